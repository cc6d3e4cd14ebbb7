"""One picture seen in several views, mirrored and turned: what they see is voted on.

A view is a symmetry of the picture. Each is detected, and mapped back exactly: pixels only
change places. Then detections that overlap enough, one per view, are one object. Its pixels are
those that most of them hold, a vote weighing what its score is; its score is the mean over all
views, those that did not see it counting zero.

next: training/schedule.py
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..base.errors import require
from ..masks import Cutout, around, cut_out, iou_within, meet
from .model import Detections, TensorMask

SAME = 0.7  # from this mask IoU on, detections of two views are one object


class View(NamedTuple):
    """A symmetry: rows and columns exchanged, then left and right, then top and bottom."""

    transposed: bool
    mirrored: bool
    flipped: bool

    def of(self, picture: Tensor) -> Tensor:
        """What the view shows of a picture (..., H, W): (..., H, W), or (..., W, H)."""
        return self._turned(picture.transpose(-1, -2) if self.transposed else picture)

    def back(self, shown: Tensor) -> Tensor:
        """The picture (..., H, W) of which the view shows this."""
        shown = self._turned(shown)
        return shown.transpose(-1, -2) if self.transposed else shown

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of what it shows of a picture of `size`."""
        return size[::-1] if self.transposed else size

    def boxes_back(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """Boxes (d, 4) xyxy px in what it shows, in the picture of `size` (height, width)."""
        height, width = self.size(size)
        x0, y0, x1, y1 = boxes.unbind(1)
        if self.mirrored:
            x0, x1 = width - x1, width - x0
        if self.flipped:
            y0, y1 = height - y1, height - y0
        corners = (y0, x0, y1, x1) if self.transposed else (x0, y0, x1, y1)
        return torch.stack(corners, dim=1)

    def _turned(self, picture: Tensor) -> Tensor:
        axes = ((-1, self.mirrored), (-2, self.flipped))
        return picture.flip([axis for axis, turned in axes if turned])


# In the order in which they are added: the picture, its mirror image, both upside down, and all
# of these with rows and columns exchanged
VIEWS = tuple(
    View(t, m, f) for t in (False, True) for f in (False, True) for m in (False, True)
)
COUNTS = (1, 2, 4, 8)


class Seen(NamedTuple):
    """A detection of one view, in the picture's pixels; box (4,) xyxy."""

    view: int
    box: NDArray[np.float32]
    score: float
    label: int
    mask: Cutout


class InViews(nn.Module):
    """A detector that looks at every picture in several views, one after the other.

    Called as the model in it, with the same results but for empty masks, which are left out;
    no picture gets more than the model's `detections_per_image`. Between views masks are kept
    within their boxes.
    """

    def __init__(self, model: TensorMask, views: Sequence[View]) -> None:
        super().__init__()
        self.model, self.views = model, views
        self.limit = model.config.detections_per_image

    def forward(self, images: list[Tensor], output_sizes: list[tuple[int, int]]) -> Detections:
        seen: list[list[Seen]] = [[] for _ in images]
        for number, view in enumerate(self.views):
            shown = [view.of(image) for image in images]
            found = self.model(shown, output_sizes=[view.size(size) for size in output_sizes])
            for mine, one, size in zip(seen, found, output_sizes, strict=True):
                mine += _seen(one, view, number, size)
        device = images[0].device
        return [
            _detections(voted(grouped(mine), len(self.views))[: self.limit], size, device)
            for mine, size in zip(seen, output_sizes, strict=True)
        ]


def in_views(model: TensorMask, count: int) -> nn.Module:
    """The model, looking at pictures in `count` views: one, two, four or eight.

    Raises:
        InputError: another count.
    """
    check_views(count)
    return model if count == 1 else InViews(model, VIEWS[:count])


def check_views(count: int) -> None:
    """Raise InputError unless `count` views are symmetries that belong together."""
    require(count in COUNTS, "views", "1, 2, 4 or 8", count)


def _seen(
    found: dict[str, Tensor], view: View, number: int, size: tuple[int, int]
) -> Iterable[Seen]:
    """One view's detections in the picture of `size`, those with an empty mask left out."""
    boxes = view.boxes_back(found["boxes"], size).cpu().numpy()
    masks = view.back(found["masks"]).cpu().numpy()  # (d, H, W)
    scores, labels = found["scores"].tolist(), found["labels"].tolist()
    for box, score, label, mask in zip(boxes, scores, labels, masks, strict=True):
        cutout = cut_out(mask)
        if cutout.part.size:
            yield Seen(number, box, score, label, cutout)


def grouped(seen: Sequence[Seen]) -> list[list[Seen]]:
    """Per object what the views saw of it, one at most each, the best first.

    The best detection left takes, of every other view, the one of its class that overlaps it
    most, if that is enough; then the next.
    """
    seen = sorted(seen, key=lambda one: -one.score)
    boxes = np.array([one.mask.box for one in seen]).reshape(-1, 4)
    kinds = np.array([(one.view, one.label) for one in seen]).reshape(-1, 2)
    free = np.ones(len(seen), dtype=bool)
    groups = []
    for number, one in enumerate(seen):
        if not free[number]:
            continue
        others = free & (kinds[:, 0] != one.view) & (kinds[:, 1] == one.label)
        others &= meet(boxes, boxes[number])
        best = {one.view: (1.0, number)}
        for other in others.nonzero()[0].tolist():
            overlap, view = _iou(one.mask, seen[other].mask), seen[other].view
            if overlap >= SAME and overlap > best.get(view, (0.0, 0))[0]:
                best[view] = overlap, other
        members = [member for _, member in best.values()]
        free[members] = False
        groups.append([seen[member] for member in members])
    return groups


def _iou(one: Cutout, other: Cutout) -> float:
    return iou_within(one, other, around([one.box, other.box]))


def voted(groups: Iterable[Sequence[Seen]], views: int) -> list[Seen]:
    """Each group as one detection, in the order of their scores; empty masks are left out.

    Args:
        views: the number of views, whether they saw an object or not.
    """
    objects = []
    for group in groups:
        weights = np.array([one.score for one in group])  # float64, so that equal votes agree
        boxes = np.stack([one.box for one in group])
        box = (weights @ boxes / weights.sum()).astype(np.float32)
        mask = _majority([one.mask for one in group], weights)
        if mask.part.size:
            score = float(weights.sum()) / views
            objects.append(Seen(group[0].view, box, score, group[0].label, mask))
    return sorted(objects, key=lambda one: -one.score)


def _majority(masks: Sequence[Cutout], weights: NDArray[np.float64]) -> Cutout:
    """The pixels in masks that hold at least half of the weights."""
    x0, y0, x1, y1 = box = around([mask.box for mask in masks])
    votes = np.zeros((y1 - y0, x1 - x0))
    for mask, weight in zip(masks, weights, strict=True):
        votes[mask.place(box)] += weight * mask.part
    return cut_out(2 * votes >= weights.sum(), y0, x0)


def _detections(
    objects: Sequence[Seen], size: tuple[int, int], device: torch.device
) -> dict[str, Tensor]:
    """The detections of a picture of `size` in the form of `TensorMask`."""
    height, width = size
    masks = np.zeros((len(objects), height, width), dtype=bool)
    for canvas, one in zip(masks, objects, strict=True):
        canvas[one.mask.place((0, 0, width, height))] = one.mask.part
    boxes = np.array([one.box for one in objects], np.float32).reshape(-1, 4)
    found = {
        "boxes": torch.from_numpy(boxes),
        "scores": torch.tensor([one.score for one in objects], dtype=torch.float32),
        "labels": torch.tensor([one.label for one in objects], dtype=torch.int64),
        "masks": torch.from_numpy(masks),
    }
    return {name: value.to(device) for name, value in found.items()}
