"""From the network's output to detections: select, decode, suppress, paste masks.

Scores choose, boxes suppress, and a mask is pasted from its *window*, not from the predicted
box. How sure a mask is may then weigh in its score.

next: detector/model.py
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import clip_boxes_to_image, nms, remove_small_boxes

from ..config import ModelConfig
from ..geometry import Windows
from . import boxes
from .network import WindowMasks

PATCH_PIXELS = 1 << 22  # drawn at a time: 16 bytes each, 64 MiB
BEYOND = 3.0  # in units of half a window from its middle: no bin is less than a bin away


class Kept(NamedTuple):
    """Detections of one image before their masks.

    boxes: (D, 4) xyxy in input pixels.
    scores, labels: (D,).
    window: (D,) the position of each detection's window.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    window: Tensor


def keep(logits: Tensor, deltas: Tensor, windows: Windows, config: ModelConfig) -> Kept:
    """Select the best (window, class) pairs of one image and suppress duplicates per class.

    Args:
        logits: (M, K) class logits.
        deltas: (M, 4).
    """
    # A window may be kept for several classes: (window, class) pairs compete, at M*K places.
    scores = logits.float().sigmoid().flatten()  # (M, K) -> (M*K,)
    candidates = (scores > config.score_threshold).nonzero().squeeze(1)  # (C,)
    # stable: equal scores keep their order, so results are the same on every machine
    scores, order = scores[candidates].sort(descending=True, stable=True)
    best = candidates[order[: config.topk_candidates]]
    scores = scores[: config.topk_candidates]  # (C,), at most topk_candidates
    window, labels = best // config.num_classes, best % config.num_classes
    box = boxes.decode(windows.box_px[window], deltas.float()[window], config.box_weights)
    kept = suppress(box, scores, labels, config.nms_threshold)[: config.detections_per_image]
    return Kept(box[kept], scores[kept], labels[kept], window[kept])  # (C,) -> (D,)


def suppress(box: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """The kept positions of greedy NMS within each class, ascending; scores must descend.

    Class by class, because `batched_nms` moves classes apart by adding to their boxes where
    there are few: that rounds IoUs, and boxes with negative coordinates can still meet another
    class's.
    """
    kept = torch.zeros_like(labels, dtype=torch.bool)
    for label in labels.unique():
        same = (labels == label).nonzero().squeeze(1)  # (C,) -> (C of this class,)
        kept[same[nms(box[same], scores[same], threshold)]] = True
    return kept.nonzero().squeeze(1)  # bool (C,) -> (kept,)


def with_sureness(
    masks: Iterable[WindowMasks], threshold: float, sureness: Tensor
) -> Iterator[WindowMasks]:
    """Hands the masks on, writing how sure each is into its place of `sureness` (D,).

    That is the mean probability of its bins from `threshold` on, 0 if there are none.
    """
    for where, logits in masks:  # (P,), (P, V, U)
        probability = logits.float().sigmoid()
        drawn = probability >= threshold
        total = (probability * drawn).sum(dim=(1, 2))  # (P, V, U) -> (P,)
        sureness[where] = total / drawn.sum(dim=(1, 2)).clamp(min=1)
        yield WindowMasks(where, logits)


def ranked(scores: Tensor, sureness: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """Scores (D,) times `sureness` (D,) to a power, descending, and whose each is (D,)."""
    return (scores * sureness**power).sort(descending=True, stable=True)


def paste(
    masks: Iterable[WindowMasks],
    window_px: Tensor,
    height: int,
    width: int,
    threshold: float = 0.5,
) -> Tensor:
    """Draw windows' mask logits on the image: bool (D, height, width).

    A pixel is set where the probability is at least `threshold`. At its centre it is
    interpolated bilinearly between bin centres, towards zero beyond the outer ones, and zero
    outside the window. (The official code interpolates half a bin further: the same from a
    threshold of 0.5 on.) Windows of one size cover equally many pixels, so they are drawn as
    batches of patches, of `PATCH_PIXELS` at most: beside the result nothing grows with the
    number of detections.

    Args:
        masks: logits grouped by window size, `where` pointing into the D rows of `window_px`.
        window_px: (D, 4) windows in the pixels of the image drawn on.
    """
    shape = (len(window_px), height, width)
    canvas = torch.zeros(shape, dtype=torch.bool, device=window_px.device)
    for where, logits in masks:  # (P,), (P, V, U)
        extent = (window_px[where, 2:] - window_px[where, :2]).float().amax(dim=0)  # (2,): x, y
        window_w, window_h = extent.tolist()
        # one pixel more: a window that begins between two pixels touches one more of them
        patch_w = min(math.ceil(window_w) + 1, width)
        patch_h = min(math.ceil(window_h) + 1, height)
        count = max(1, PATCH_PIXELS // (patch_w * patch_h))
        for rows, values in zip(where.split(count), logits.split(count), strict=True):
            window = window_px[rows].float()
            _draw(canvas, rows, values, window, (patch_w, patch_h), threshold)
    return canvas


def _draw(
    canvas: Tensor,
    rows: Tensor,
    logits: Tensor,
    window: Tensor,
    patch: tuple[int, int],
    threshold: float,
) -> None:
    """Draw logits (P, V, U) of windows (P, 4) on `rows` of the canvas.

    patch: (width, height) of what is drawn for each, in pixels.
    """
    patch_w, patch_h = patch
    # Where each patch begins, (P,): at its window's corner, moved into the image
    x0 = window[:, 0].floor().long().clamp(0, canvas.shape[2] - patch_w)
    y0 = window[:, 1].floor().long().clamp(0, canvas.shape[1] - patch_h)
    grid_x = _unit_coordinates(x0, patch_w, window[:, 0], window[:, 2])  # (P, patch_w)
    grid_y = _unit_coordinates(y0, patch_h, window[:, 1], window[:, 3])  # (P, patch_h)
    # (P, 1, patch_w) and (P, patch_h, 1) -> (P, patch_h, patch_w, 2), x first
    grid = torch.stack(torch.broadcast_tensors(grid_x[:, None, :], grid_y[:, :, None]), dim=3)
    probability = logits.float().sigmoid()[:, None]  # (P, V, U) -> (P, 1, V, U)
    # -> (P, patch_h, patch_w); grid_sample's padding is zeros: no mask outside the window
    drawn = F.grid_sample(probability, grid, align_corners=False).squeeze(1) >= threshold
    for row, top, left, mask in zip(
        rows.tolist(), y0.tolist(), x0.tolist(), drawn, strict=True
    ):
        canvas[row, top : top + patch_h, left : left + patch_w] = mask


def _unit_coordinates(start: Tensor, count: int, low: Tensor, high: Tensor) -> Tensor:
    """Pixel centres start + i + 1/2 of each patch, [low, high] mapped to [-1, 1].

    Those outside of it are `BEYOND` all bins. All of (P,) -> (P, count).
    """
    pixel = start[:, None] + torch.arange(count, device=start.device) + 0.5  # (P, count)
    unit = (pixel - low[:, None]) / (high - low)[:, None] * 2 - 1
    return torch.where(unit.abs() <= 1, unit, BEYOND)


def scaled(box_px: Tensor, input_size: tuple[int, int], output_size: tuple[int, int]) -> Tensor:
    """Boxes (D, 4) xyxy in an image of `input_size`, in pixels of `output_size`.

    Sizes are (height, width).
    """
    y_scale, x_scale = output_size[0] / input_size[0], output_size[1] / input_size[1]
    return box_px * box_px.new_tensor([x_scale, y_scale, x_scale, y_scale])


def to_output_size(
    kept: Kept, input_size: tuple[int, int], output_size: tuple[int, int]
) -> Kept:
    """The detections in output pixels: scaled, clipped to the image, without empty boxes."""
    box = clip_boxes_to_image(scaled(kept.boxes, input_size, output_size), output_size)
    # any length above zero counts: `tiny` is the smallest float that is not zero
    remaining = remove_small_boxes(box, min_size=torch.finfo(box.dtype).tiny)  # (D,) -> (D',)
    return Kept(box[remaining], *(field[remaining] for field in kept[1:]))
