"""The truth of a picture: its objects as boxes, labels and masks.

Here is what a crop and another size do to it. Functions return a new truth, and share with the
old one what did not change.

next: data/pictures.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..masks import tight_boxes

# What a data set says about one picture of H x W pixels with m objects:
#   boxes     (m, 4) float32, xyxy px       labels    (m,) int64, 0..K-1
#   masks     (m, H, W) bool                image_id  int
#   polygons  `Polygons`, only if asked for
Truth = dict[str, Any]

Points = NDArray[np.float64]  # x0, y0, x1, y1, ... in pixels
Polygons = list[list[Points]]  # per object its outlines

# Top, left, height, width in the file's pixels. It may reach beyond the picture: zeros there.
Region = tuple[int, int, int, int]


def crop_truth(truth: Truth, region: Region) -> Truth:
    """What is visible inside `region`: cut masks with their tight boxes, polygons moved."""
    top, left = region[:2]
    masks = crop(truth["masks"], region).contiguous()  # (m, height, width)
    boxes = torch.from_numpy(tight_boxes(masks.numpy()))
    visible = boxes[:, 2] > boxes[:, 0]  # (m,) bool: an empty mask's box is 0
    cropped = select(truth | {"boxes": boxes, "masks": masks}, visible)
    if "polygons" in cropped:
        offset = np.array([left, top], dtype=np.float64)
        cropped["polygons"] = map_points(cropped["polygons"], lambda points: points - offset)
    return cropped


def resize_truth(truth: Truth, size: tuple[int, int]) -> Truth:
    """The same truth in a picture of another size (height, width).

    Boxes and polygons are scaled exactly, masks take the nearest pixel: a scaled tight box is
    within a pixel of its scaled mask.
    """
    height, width = truth["masks"].shape[-2:]
    if (height, width) == tuple(size):
        return truth
    factor = np.array([size[1] / width, size[0] / height])  # of x and y
    boxes = truth["boxes"] * torch.tensor([*factor, *factor], dtype=torch.float32)
    resized = truth | {"boxes": boxes, "masks": _resize_masks(truth["masks"], size)}
    if "polygons" in truth:
        resized["polygons"] = map_points(truth["polygons"], lambda points: points * factor)
    return resized


def select(truth: Truth, keep: Tensor) -> Truth:
    """The objects for which `keep`, bool (m,), is True."""
    if bool(keep.all()):
        return truth
    picked = {name: truth[name][keep] for name in ("boxes", "labels", "masks")}
    if "polygons" in truth:  # a list, which no mask can index
        picked["polygons"] = [
            p for p, kept in zip(truth["polygons"], keep.tolist(), strict=True) if kept
        ]
    return truth | picked


def crop(planes: Tensor, region: Region) -> Tensor:
    """The (height, width) region of planes (..., H, W); zeros where it reaches beyond them."""
    top, left, height, width = region
    y0, x0 = max(top, 0), max(left, 0)
    # Beside the picture the end may lie before the start; a slice of nothing is meant.
    inside = planes[..., y0 : max(top + height, y0), x0 : max(left + width, x0)]
    if inside.shape[-2:] == (height, width):
        return inside  # a view
    out = planes.new_zeros(*planes.shape[:-2], height, width)
    out[..., y0 - top :, x0 - left :][..., : inside.shape[-2], : inside.shape[-1]] = inside
    return out


def map_points(polygons: Polygons, change: Callable[[Points], Points]) -> Polygons:
    """Every object's polygons with `change` applied to their points, (n, 2) of (x, y)."""
    return [
        [change(points.reshape(-1, 2)).reshape(-1) for points in outlines]
        for outlines in polygons
    ]


def _resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (m, H, W) in another size: the pixel of the old that holds the new one's centre."""
    rows, columns = (
        ((np.arange(new) + 0.5) * (old / new)).astype(np.intp)
        for new, old in zip(size, masks.shape[-2:], strict=True)
    )
    # NumPy's take copies bytes several times faster than torch's indexing.
    return torch.from_numpy(masks.numpy().take(rows, axis=1).take(columns, axis=2))
