"""Polygons, run lengths, arrays, cutouts; tight boxes; overlap.

Masks change their form and are measured here, and nowhere else. Arrays are NumPy's; `iou` takes
tensors as well. Needs no torch.

next: data/shapes.py
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .base.errors import InputError

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in whole pixels, x1 and y1 not included

# --- polygons, run lengths, arrays ------------------------------------------------------------


def polygons_of(segmentation: Any) -> list[NDArray[np.float64]]:
    """The polygons of a COCO segmentation, x0, y0, x1, y1, ... each; none of a stored mask.

    Polygons of fewer than three points are dropped: pycocotools would take four numbers for a
    box.
    """
    if isinstance(segmentation, dict):
        return []
    return [np.asarray(points, dtype=np.float64) for points in segmentation if len(points) >= 6]


def to_rle(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Any COCO segmentation of a (height, width) picture as one compressed RLE.

    Args:
        segmentation: polygons, uncompressed RLE or compressed RLE.
    """
    from pycocotools import mask as mask_utils

    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], list):
            return mask_utils.frPyObjects(segmentation, height, width)
        return segmentation
    polygons = [points.tolist() for points in polygons_of(segmentation)]
    return mask_utils.merge(mask_utils.frPyObjects(polygons, height, width))


def decode(rles: Sequence[dict[str, Any]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Compressed RLEs, all of `size` (height, width), as masks: bool (m, H, W).

    In memory columns come first, as in COCO's run lengths.

    Raises:
        InputError: run lengths that do not fill the picture.
    """
    from pycocotools import mask as mask_utils

    if not rles:
        return np.zeros((0, *size), dtype=bool)
    try:
        with warnings.catch_warnings():
            # pycocotools 2.0.11 hands NumPy 2 an array of the old protocol
            warnings.simplefilter("ignore", DeprecationWarning)
            stacked = mask_utils.decode(list(rles))  # (H, W, m), first axis fastest in memory
    except ValueError as error:
        reason = f"{error}; its run lengths do not fill the picture"
        raise InputError(f"segmentation: {reason}") from None
    return stacked.transpose(2, 0, 1).view(bool)  # (m, H, W)


def encode(masks: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Masks, bool (m, H, W), as compressed RLEs with `counts` as text, ready for JSON."""
    from pycocotools import mask as mask_utils

    if masks.shape[0] == 0:
        return []
    # RLE counts down the columns, so the columns are laid out first.
    columns_first = np.ascontiguousarray(masks.transpose(0, 2, 1)).view(np.uint8)  # (m, W, H)
    rles = mask_utils.encode(columns_first.transpose(2, 1, 0))
    return [{"size": rle["size"], "counts": rle["counts"].decode("ascii")} for rle in rles]


def run_lengths(counts: str) -> NDArray[np.int64]:
    """The run lengths in a compressed RLE's text.

    A character less 48 holds five bits of a number, lowest first, and whether more follow
    (bit 5). The last one's bit 4 is the sign. From the fourth on, numbers are differences to
    the one before the last.
    """
    codes = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(codes < 32) + 1  # one past the last character of each number
    starts = np.concatenate([[0], ends[:-1]])
    digit = np.arange(len(codes)) - np.repeat(starts, ends - starts)  # place in its number
    runs = np.add.reduceat((codes & 31) << (5 * digit), starts)
    runs -= (codes[ends - 1] >> 4 & 1) << (5 * (ends - starts))  # two's complement
    runs[1::2] = runs[1::2].cumsum()  # sums of differences; the first number stands alone
    runs[2::2] = runs[2::2].cumsum()
    return runs


def draw(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The union of polygons [x0, y0, x1, y1, ...] in pixels: bool (height, width).

    COCO's rasteriser draws them, so that pixels at the border fall as in COCO's scores.
    """
    from pycocotools import mask as mask_utils

    if not polygons:
        return np.zeros(size, dtype=bool)
    return decode([mask_utils.merge(mask_utils.frPyObjects(list(polygons), *size))], size)[0]


# --- cutouts: masks of large pictures ---------------------------------------------------------


class Cutout(NamedTuple):
    """A mask kept within its box: `part` bool (h, w), whose corner lies at (top, left)."""

    top: int
    left: int
    part: NDArray[np.bool_]

    @property
    def box(self) -> Box:
        """Where the part lies in the picture."""
        height, width = self.part.shape
        return self.left, self.top, self.left + width, self.top + height

    def place(self, box: Box) -> tuple[slice, slice]:
        """Rows and columns of the part in an array that shows a box around it."""
        (height, width), (left, top) = self.part.shape, box[:2]
        y, x = self.top - top, self.left - left
        return slice(y, y + height), slice(x, x + width)

    def within(self, box: Box) -> NDArray[np.bool_]:
        """What of the part lies in a box of the picture: bool, (0, ...) or (..., 0) if none."""
        x0, y0, x1, y1 = box
        rows = slice(max(y0 - self.top, 0), max(y1 - self.top, 0))
        return self.part[rows, max(x0 - self.left, 0) : max(x1 - self.left, 0)]


class Cutouts(NamedTuple):
    """The masks of one picture of `size` (height, width), none of them as large as it."""

    size: tuple[int, int]
    cutouts: list[Cutout]


def cut_out(mask: NDArray[np.bool_], top: int = 0, left: int = 0) -> Cutout:
    """The mask within its tight box; empty masks have a part of (0, 0).

    Args:
        mask: bool (h, w), whose own corner lies at (top, left) of the picture.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return Cutout(top, left, np.zeros((0, 0), dtype=bool))
    y, x = int(rows[0]), int(columns[0])
    # A copy, so that the large mask can go
    return Cutout(top + y, left + x, mask[y : rows[-1] + 1, x : columns[-1] + 1].copy())


def around(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds them all, one at least."""
    left, top, right, bottom = zip(*boxes, strict=True)
    return min(left), min(top), max(right), max(bottom)


def union(cutouts: Sequence[Cutout]) -> Cutout:
    """The pixels in any of the masks, of one at least, none of them empty."""
    x0, y0, x1, y1 = box = around([cutout.box for cutout in cutouts])
    part = np.zeros((y1 - y0, x1 - x0), dtype=bool)
    for cutout in cutouts:
        part[cutout.place(box)] |= cutout.part
    return Cutout(y0, x0, part)


def encode_cutouts(masks: Cutouts) -> list[dict[str, Any]]:
    """What `encode` makes of the masks drawn whole, without drawing them."""
    from pycocotools import mask as mask_utils

    height, width = masks.size
    runs = []
    for top, left, part in masks.cutouts:
        x, y = part.T.nonzero()  # down the columns
        place = (x + left) * height + y + top
        begins = np.diff(place, prepend=-2) > 1
        ends = np.diff(place, append=height * width + 1) > 1
        edges = np.stack([place[begins], place[ends] + 1], axis=1)  # of each run of ones
        counts = np.diff(edges.reshape(-1), prepend=0, append=height * width)
        if edges.size and edges[-1, 1] == height * width:
            counts = counts[:-1]  # no zeros after the last one
        runs.append({"size": [height, width], "counts": counts.tolist()})
    rles = mask_utils.frPyObjects(runs, height, width) if runs else []
    return [{"size": rle["size"], "counts": rle["counts"].decode("ascii")} for rle in rles]


# --- measures ---------------------------------------------------------------------------------


def tight_boxes(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The boxes of masks, bool (m, H, W): (m, 4) xyxy px, last pixel included, 0 if empty."""
    if not masks.size:
        return np.zeros((len(masks), 4), np.float32)
    columns = np.asarray(masks.any(axis=1))  # (m, W)
    rows = np.asarray(masks.any(axis=2))  # (m, H)
    x0, y0 = columns.argmax(1), rows.argmax(1)  # the first True
    x1 = columns.shape[1] - columns[:, ::-1].argmax(1)  # one past the last pixel
    y1 = rows.shape[1] - rows[:, ::-1].argmax(1)
    boxes = np.stack([x0, y0, x1, y1], axis=1) * columns.any(1, keepdims=True)  # (m, 4)
    return boxes.astype(np.float32)


def meet(boxes: NDArray[Any], box: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of boxes (m, 4) xyxy share some area with a box (4,): (m,)."""
    return np.asarray(((boxes[:, :2] < box[2:]) & (box[:2] < boxes[:, 2:])).all(axis=1))


def iou(one: Any, other: Any, both_empty: float = 0.0) -> Any:
    """Pixels in both masks over pixels in either, bool (..., H, W) each: (...).

    Args:
        one, other: NumPy arrays or tensors whose leading axes broadcast.
        both_empty: the IoU of two empty masks.
    """
    shared = (one & other).sum((-2, -1))  # (...)
    either = (one | other).sum((-2, -1))
    return shared / either.clip(min=1) + both_empty * (either == 0)


def iou_within(one: Cutout, other: Cutout, box: Box) -> float:
    """The IoU of two masks in a box of the picture; 0 where both are empty there."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = one.box, other.box
    x0, y0, x1, y1 = box
    common = max(ax0, bx0, x0), max(ay0, by0, y0), min(ax1, bx1, x1), min(ay1, by1, y1)
    if common[0] >= common[2] or common[1] >= common[3]:
        return 0.0
    shared = int((one.within(common) & other.within(common)).sum())
    either = int(one.within(box).sum()) + int(other.within(box).sum()) - shared
    return shared / max(either, 1)
