"""The ceiling: the AP of the true masks seen through windows, the best a model can do.

Each object is drawn from its best positive window's target, with score 1. What is lost is lost
to bins and missing windows of this geometry, not to learning; an AP reads only beside it.

next: weights/shipped.py
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..base import distributed
from ..base.progress import Progress
from ..config import InputConfig, ModelConfig
from ..data.coco import CocoFolder
from ..data.prepare import input_size
from ..data.truth import Truth, resize_truth
from ..detector import inference
from ..detector.network import WindowMasks
from ..detector.targets import assign, mask_targets
from ..masks import iou
from . import coco_scores, results

CERTAIN = 20.0  # logit of a bin that is surely inside; its negative surely outside


def ceiling(
    config: ModelConfig,
    dataset: CocoFolder,
    input_config: InputConfig,
    progress: bool = True,
    area_ranges: coco_scores.AreaRanges | None = None,
) -> dict[str, Any]:
    """COCO mask scores of the pasted targets, and the share of objects with a window.

    Returns:
        ``{"segm": {"AP": ...}, "windowed": share, "objects": count}``.
    """
    # Per picture: what is drawn, and how many objects it has
    found: list[tuple[bytes, int]] = []
    pictures = distributed.share(range(len(dataset)))
    for index in Progress(pictures, desc="ceiling", unit="image", disable=not progress):
        truth = dataset.truth(index)
        # Of a picture its size alone matters, which the masks have too: no file is decoded
        best, masks = best_windows(config, truth["masks"], truth, input_config)
        detection = {
            "boxes": truth["boxes"][best],
            "scores": torch.ones(len(best)),
            "labels": truth["labels"][best],
            "masks": masks,
        }
        drawn = results.to_coco(truth["image_id"], detection, dataset.category_ids)
        found.append((results.packed(drawn), len(truth["labels"])))
    found = distributed.joined(found)
    detections = results.unpacked(drawn for drawn, _ in found)
    objects = sum(number for _, number in found)
    truth = coco_scores.load_ground_truth(dataset)
    scores = coco_scores.score(truth, detections, "segm", area_ranges)
    return {"segm": scores, "windowed": len(detections) / max(objects, 1), "objects": objects}


def best_windows(
    config: ModelConfig, image: Tensor, truth: Truth, input_config: InputConfig
) -> tuple[Tensor, Tensor]:
    """The objects (B,) that have a window, and the mask of each one's best window.

    The masks are (B, H, W) bool, in the picture's own pixels.

    Args:
        image: (..., H, W), of which the size alone is read.
    """
    height, width = image.shape[-2:]
    size = input_size(height, width, input_config)
    seen = resize_truth(truth, size)  # as the model sees it
    geometry = config.geometry
    layout = geometry.layout([size])
    window, instance = assign(seen["boxes"], config, layout).unbind(1)  # (P, 2) -> twice (P,)
    windows = layout.windows[window]
    masks = mask_targets([seen], torch.zeros_like(instance), instance, windows, geometry)
    # Bool bins -> logits of a model that is sure of each
    logits = [WindowMasks(where, (bins.float() * 2 - 1) * CERTAIN) for where, bins in masks]
    window_px = inference.scaled(windows.box_px, size, (height, width))
    drawn = inference.paste(logits, window_px, height, width)  # (P, H, W)
    overlap = iou(drawn, truth["masks"][instance])  # (P,)
    best = [int(torch.where(instance == g, overlap, -1).argmax()) for g in instance.unique()]
    return instance[best], drawn[best]
