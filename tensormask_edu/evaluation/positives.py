"""How good masks are where a mask is asked for: IoU at positive windows, scores set aside.

AP asks for detections too: for a class, a score, a box. This asks for the mask alone. Every
window of a held-out picture that is positive by the rule of training draws its mask, which is
compared with the visible part of its object. Seeds move it less than AP, so it tells heads
apart after short trainings.

next: evaluation/ceiling.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..config import ModelConfig
from ..data.truth import Truth
from ..detector import inference
from ..detector.model import AT_ONCE, TensorMask
from ..detector.network import NetworkOutput
from ..detector.targets import assign
from ..geometry import Layout, Windows
from ..masks import iou
from .coco_scores import AreaRanges

# Per object size and positive window: area in px² and IoU, (P,) each
Measured = tuple[Tensor, Tensor]


class Asked(NamedTuple):
    """The positive windows of a batch: where a mask is asked for, and which.

    image: (P,) of the batch. windows: P of them. masks: (P, H, W) bool, on the CPU.
    """

    image: Tensor
    windows: Windows
    masks: Tensor


def asked(config: ModelConfig, layout: Layout, truths: Sequence[Truth]) -> Asked:
    """What the rule of training makes positive.

    Args:
        truths: of pictures of one size, in the model's pixels.
    """
    windows = layout.windows
    pairs = [assign(truth["boxes"].to(windows.box_px), config, layout) for truth in truths]
    numbers = [torch.full((len(pair),), n) for n, pair in enumerate(pairs)]
    image = torch.cat(numbers).to(windows.level)  # (P,)
    seen = [truth["masks"][pair[:, 1].cpu()] for truth, pair in zip(truths, pairs, strict=True)]
    return Asked(image, windows[torch.cat(pairs)[:, 0]], torch.cat(seen))


def measure(model: TensorMask, output: NetworkOutput, at: Asked) -> Measured:
    """Areas (P,) of the objects, and IoU (P,) of the masks, at a batch's positive windows.

    Args:
        output: what the network says of the batch; its head draws the masks.
    """
    height, width = at.masks.shape[-2:]
    logits = model.network.mask_logits(output, at.image, at.windows, at_once=AT_ONCE)
    threshold = model.config.mask_threshold
    drawn = inference.paste(logits, at.windows.box_px, height, width, threshold)  # (P, H, W)
    return at.masks.sum(dim=(1, 2)), iou(drawn.cpu(), at.masks)


def summary(measured: Sequence[Measured], area_ranges: AreaRanges) -> dict[str, float]:
    """Mean IoU over all positive windows, and over those of small, medium and large objects.

    NaN where a range has none.
    """
    area, overlap = (torch.cat(column) for column in zip(*measured, strict=True))
    ranges: Mapping[str, tuple[float, float]] = {"": (0, 1e10)} | dict(area_ranges)
    return {
        f"IoU{name[:1]}": float(overlap[(area >= low) & (area < high)].mean())
        for name, (low, high) in ranges.items()
    }
