"""One judge for all detectors: what they propose, with duplicates and without, and their masks.

Classes are not looked at: proposals are judged as one class. Of a data set of several the AP by
class stands beside.

next: ancestors/tables.py
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from ..base.errors import require
from ..base.progress import Progress
from ..config import InputConfig
from ..data.coco import CocoFolder
from ..data.prepare import input_size, prepare
from ..data.truth import resize_truth
from ..detector.inference import suppress
from ..evaluation import coco_scores, results
from ..masks import iou
from .fit import FILE_SIZE, Detector, Proposals

MOST = 1000  # proposals of a picture
DUPLICATE_IOU = 0.6  # of two boxes, from which on the worse one goes
TIMED, TIMED_COUNT = 20, 100  # pictures that are timed, proposals drawn in each

Found = list[results.Detection]


def judge(
    model: Detector,
    dataset: CocoFolder,
    input_config: InputConfig = FILE_SIZE,
    area_ranges: coco_scores.AreaRanges | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """All figures of a trained detector on a data set.

    Returns:
        raw, nms: `proposal_scores` of the best 1000, before and after suppression.
        classes: the COCO mask scores by class, after suppression; of several classes only.
        mask_iou, reachable_iou: means over masks drawn where the objects are given, and over
            their targets drawn the same way.
        parameters, and ms_per_picture: CPU milliseconds of this process for 100 proposals.

    Raises:
        InputError: the data set leaves out pictures without instances.
    """
    require(dataset.keep_empty, "dataset", "all pictures: keep_empty=True", "some")
    several = len(dataset.class_names) > 1
    raw: Found = []
    single: Found = []  # without duplicates
    by_class: Found = []
    for number in Progress(range(len(dataset)), desc="judging", disable=not progress):
        found = model.propose(prepared(dataset, number, input_config), MOST)
        objects = in_file(found, dataset, number)
        raw += objects
        single += [objects[k] for k in kept(found, torch.zeros_like(found.labels))]
        by_class += [objects[k] for k in kept(found, found.labels)] if several else []
    truth = coco_scores.load_ground_truth(dataset)
    figures: dict[str, Any] = {
        name: coco_scores.proposal_scores(truth, detections, area_ranges)
        for name, detections in (("raw", raw), ("nms", single))
    }
    if several:
        figures["classes"] = coco_scores.score(truth, by_class, "segm", area_ranges)
    return figures | {
        **mask_ious(model, dataset, input_config),
        "parameters": sum(p.numel() for p in model.parameters()),
        "ms_per_picture": ms_per_picture(model, dataset, input_config),
    }


def kept(found: Proposals, labels: Tensor) -> list[int]:
    """What greedy suppression by the boxes' IoU leaves within each of the `labels` (D,)."""
    return suppress(found.boxes, found.scores, labels, DUPLICATE_IOU).tolist()


def mask_ious(
    model: Detector, dataset: CocoFolder, input_config: InputConfig = FILE_SIZE
) -> dict[str, float]:
    """Mean IoU of masks with the truth, and of the best their grid can say; places given.

    Both are taken in the model's pixels.
    """
    ours, best = [], []
    for number in range(len(dataset)):
        size = input_size(*dataset.size(number), input_config)
        truth = resize_truth(dataset.truth(number), size)
        if not len(truth["boxes"]):
            continue
        drawn = model.at_truth(prepared(dataset, number, input_config), truth)
        wanted = truth["masks"][drawn.instance]  # (P, H, W)
        ours.append(iou(drawn.masks, wanted))  # (P,)
        best.append(iou(drawn.reachable, wanted))
    require(bool(ours), "dataset", "at least one picture with an instance", "none")
    return {
        "mask_iou": torch.cat(ours).mean().item(),
        "reachable_iou": torch.cat(best).mean().item(),
    }


def ms_per_picture(
    model: Detector, dataset: CocoFolder, input_config: InputConfig = FILE_SIZE
) -> float:
    """CPU milliseconds for the best 100 masks of a picture, reading and scoring left out."""
    images = [
        prepared(dataset, number, input_config) for number in range(min(TIMED, len(dataset)))
    ]
    model.propose(images[0], TIMED_COUNT)  # what is allocated once
    began = time.process_time()
    for image in images:
        model.propose(image, TIMED_COUNT)
    return 1e3 * (time.process_time() - began) / len(images)


def prepared(dataset: CocoFolder, number: int, input_config: InputConfig) -> Tensor:
    """Picture `number` as models take it: float32 (3, h, w) in [0, 1]."""
    return torch.from_numpy(prepare(dataset.image(number).numpy(), input_config))


def in_file(found: Proposals, dataset: CocoFolder, number: int) -> Found:
    """Proposals of picture `number` in its file's pixels, as objects of a results file."""
    detection = resize_truth(found._asdict(), dataset.size(number))
    return results.to_coco(dataset.image_ids[number], detection, dataset.category_ids)
