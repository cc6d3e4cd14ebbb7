"""From the network's output to detections: select, decode, NMS, masks of the kept windows,
paste.

Scores choose, boxes suppress, and a mask is pasted from its *window*, not from the predicted
box.

next: data/coco.py
"""

from __future__ import annotations

import math
from collections.abc import Iterable
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


class Kept(NamedTuple):
    """Detections of one image before their masks: boxes (D, 4) xyxy in input pixels, scores
    (D,), labels (D,), window (D,) the position of each detection's window."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    window: Tensor


def keep(logits: Tensor, deltas: Tensor, windows: Windows, config: ModelConfig) -> Kept:
    """Select the best (window, class) pairs of one image and suppress duplicates per class.

    Args:
        logits: (M, K) class logits. deltas: (M, 4).
    """
    scores = logits.float().sigmoid().flatten()
    candidates = (scores > config.score_threshold).nonzero().squeeze(1)
    scores, order = scores[candidates].sort(descending=True, stable=True)
    best = candidates[order[: config.topk_candidates]]
    scores = scores[: config.topk_candidates]
    window, labels = best // config.num_classes, best % config.num_classes
    box = boxes.decode(windows.box_px[window], deltas.float()[window], config.box_weights)
    kept = suppress(box, scores, labels, config.nms_threshold)[: config.detections_per_image]
    return Kept(box[kept], scores[kept], labels[kept], window[kept])


def suppress(box: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """Greedy NMS within each class: the kept positions, ascending; scores must descend.

    Class by class, because `batched_nms` moves classes apart by adding to their boxes where
    there are few: that rounds IoUs, and boxes with negative coordinates can still meet another
    class's.
    """
    kept = torch.zeros_like(labels, dtype=torch.bool)
    for label in labels.unique():
        same = (labels == label).nonzero().squeeze(1)
        kept[same[nms(box[same], scores[same], threshold)]] = True
    return kept.nonzero().squeeze(1)


def paste(masks: Iterable[WindowMasks], window_px: Tensor, height: int, width: int) -> Tensor:
    """Draw windows' mask logits on the image: bool (D, height, width), true where probability
    >= 0.5.

    The probability at a pixel centre is interpolated bilinearly between bin centres, zero
    outside the window. Windows of one size cover equally many pixels, so they are drawn as
    batches of patches, of `PATCH_PIXELS` at most: beside the result nothing grows with the
    number of detections.

    Args:
        masks: logits grouped by window size, `where` pointing into the D rows of `window_px`.
        window_px: (D, 4) windows in the pixels of the image drawn on.
    """
    canvas = torch.zeros(
        len(window_px), height, width, dtype=torch.bool, device=window_px.device
    )
    for where, logits in masks:
        size = (window_px[where, 2:] - window_px[where, :2]).float().amax(dim=0)
        patch = tuple(
            min(math.ceil(s) + 1, n)
            for s, n in zip(size.tolist(), (width, height), strict=True)
        )
        count = max(1, PATCH_PIXELS // (patch[0] * patch[1]))
        for rows, values in zip(where.split(count), logits.split(count), strict=True):
            _draw(canvas, rows, values, window_px[rows].float(), patch)
    return canvas


def _draw(
    canvas: Tensor, rows: Tensor, logits: Tensor, window: Tensor, patch: tuple[int, ...]
) -> None:
    """Draw logits (P, V, U) of windows (P, 4) on `rows` of the canvas, in patches of (width,
    height)."""
    patch_w, patch_h = patch
    x0 = window[:, 0].floor().long().clamp(0, canvas.shape[2] - patch_w)
    y0 = window[:, 1].floor().long().clamp(0, canvas.shape[1] - patch_h)
    grid_x = _unit_coordinates(x0, patch_w, window[:, 0], window[:, 2])
    grid_y = _unit_coordinates(y0, patch_h, window[:, 1], window[:, 3])
    grid = torch.stack(torch.broadcast_tensors(grid_x[:, None, :], grid_y[:, :, None]), dim=3)
    probability = logits.float().sigmoid()[:, None]
    drawn = F.grid_sample(probability, grid, align_corners=False).squeeze(1) >= 0.5
    for row, top, left, mask in zip(
        rows.tolist(), y0.tolist(), x0.tolist(), drawn, strict=True
    ):
        canvas[row, top : top + patch_h, left : left + patch_w] = mask


def _unit_coordinates(start: Tensor, count: int, low: Tensor, high: Tensor) -> Tensor:
    """Pixel centres start + i + 1/2 of each patch, with [low, high] mapped to [-1, 1]: (P,
    count)."""
    pixel = start[:, None] + torch.arange(count, device=start.device) + 0.5
    return (pixel - low[:, None]) / (high - low)[:, None] * 2 - 1


def scaled(box_px: Tensor, input_size: tuple[int, int], output_size: tuple[int, int]) -> Tensor:
    """Boxes (D, 4) xyxy in an image of `input_size` (height, width), in pixels of
    `output_size`."""
    height, width = output_size[0] / input_size[0], output_size[1] / input_size[1]
    return box_px * box_px.new_tensor([width, height, width, height])


def to_output_size(
    kept: Kept, input_size: tuple[int, int], output_size: tuple[int, int]
) -> Kept:
    """The detections in output pixels: boxes scaled, clipped to the image, the empty ones
    dropped."""
    box = clip_boxes_to_image(scaled(kept.boxes, input_size, output_size), output_size)
    remaining = remove_small_boxes(box, min_size=torch.finfo(box.dtype).tiny)
    return Kept(box[remaining], *(field[remaining] for field in kept[1:]))
