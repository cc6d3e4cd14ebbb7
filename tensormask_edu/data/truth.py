"""The truth of a picture: its objects as boxes, labels and masks, and what a change does to them.

next: data/coco.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..masks import tight_boxes

# top, left, height, width in the file's pixels; a region may reach beyond the picture (zeros
# there)
Region = tuple[int, int, int, int]


Target = dict[str, Any]


Points = NDArray[np.float64]


Polygons = list[list[Points]]  # per instance a list of x0, y0, x1, y1, ...


def crop_target(target: Target, region: Region) -> Target:
    """The part of a target inside `region`: cut masks with their tight boxes; what is not
    visible is gone."""
    top, left = region[:2]
    masks = crop(target["masks"], region).contiguous()
    boxes = torch.from_numpy(tight_boxes(masks.numpy()))
    visible = boxes[:, 2] > boxes[:, 0]
    cropped = select(target | {"boxes": boxes, "masks": masks}, visible)
    if "polygons" in cropped:
        offset = np.array([left, top], dtype=np.float64)
        cropped["polygons"] = map_points(cropped["polygons"], lambda points: points - offset)
    return cropped


def crop(planes: Tensor, region: Region) -> Tensor:
    """The (height, width) region of planes (..., H, W); zeros where it reaches beyond them."""
    top, left, height, width = region
    y0, x0 = max(top, 0), max(left, 0)
    inside = planes[..., y0 : max(top + height, y0), x0 : max(left + width, x0)]
    if inside.shape[-2:] == (height, width):
        return inside
    out = planes.new_zeros(*planes.shape[:-2], height, width)
    out[..., y0 - top :, x0 - left :][..., : inside.shape[-2], : inside.shape[-1]] = inside
    return out


def select(target: Target, keep: Tensor) -> Target:
    """The instances of a target for which `keep`, bool (m,), is True."""
    if bool(keep.all()):
        return target
    picked = {name: target[name][keep] for name in ("boxes", "labels", "masks")}
    if "polygons" in target:
        picked["polygons"] = [
            p for p, kept in zip(target["polygons"], keep.tolist(), strict=True) if kept
        ]
    return target | picked


def map_points(polygons: Polygons, change: Callable[[Points], Points]) -> Polygons:
    """Polygons of every instance with `change` applied to their points, (n, 2) of (x, y)."""
    return [
        [change(points.reshape(-1, 2)).reshape(-1) for points in instance]
        for instance in polygons
    ]


def resize_target(target: Target, size: tuple[int, int]) -> Target:
    """A target in a picture of another size (height, width).

    Boxes and polygons are scaled exactly, masks take the nearest pixel: a scaled tight box is
    within a pixel of its scaled mask.
    """
    height, width = target["masks"].shape[-2:]
    if (height, width) == tuple(size):
        return target
    factor = np.array([size[1] / width, size[0] / height])
    boxes = target["boxes"] * torch.tensor([*factor, *factor], dtype=torch.float32)
    resized = target | {"boxes": boxes, "masks": _resize_masks(target["masks"], size)}
    if "polygons" in target:
        resized["polygons"] = map_points(target["polygons"], lambda points: points * factor)
    return resized


def _resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest pixel centre. NumPy's take copies bytes several times faster than torch's
    indexing."""
    rows, columns = (
        ((np.arange(new) + 0.5) * (old / new)).astype(np.intp)
        for new, old in zip(size, masks.shape[-2:], strict=True)
    )
    return torch.from_numpy(masks.numpy().take(rows, axis=1).take(columns, axis=2))
