"""Scores of a trained row, or of all heads of a trunk with the same detections.

next: ablations/runs.py
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..base.progress import Progress
from ..config import InputConfig
from ..data.coco import CocoFolder
from ..data.prepare import prepare
from ..data.truth import Truth
from ..detector.model import TensorMask
from ..detector.network import NetworkOutput
from ..evaluation import positives
from ..evaluation.coco_scores import AreaRanges, load_ground_truth, score
from ..evaluation.results import Detection, to_coco
from ..geometry import sizes_px
from .trunk import SharedTrunk

AT_ONCE = 8  # pictures
Scores = dict[str, float]


@torch.inference_mode()
def scores(
    model: TensorMask, name: str, dataset: CocoFolder, areas: AreaRanges, progress: bool = True
) -> dict[str, Scores]:
    """Mask IoU at positive windows and COCO's mask scores, by head.

    Args:
        model: in evaluation mode. name: what its head is called, if it has only one.
        dataset: pictures of one size, which enter the model as they are.
        areas: of small, medium and large objects, px².

    Returns:
        head -> {"IoU", "IoUs", "IoUm", "IoUl", "AP", "AP50", "AP75", "AR1", "AR10", "AR100"}.
        AP by size is not among them: matching three more times for each head takes longer
        than drawing its masks, and IoU by size has less chance in it.
    """
    found: dict[str, list[Detection]] = {}
    measured: dict[str, list[positives.Measured]] = {}
    batches = range(0, len(dataset), AT_ONCE)
    for first in Progress(
        batches, desc="scoring", unit="batch", leave=False, disable=not progress
    ):
        images, truths = _batch(dataset, first, model.pixel_mean.device)
        sizes = sizes_px(images)
        layout = model.config.geometry.layout(sizes, images[0].device)
        at = positives.asked(model.config, layout, truths)  # the same for all heads
        for head, output in _outputs(model, name, images):
            mine = found.setdefault(head, [])
            for truth, one in zip(
                truths, model.detections(output, layout, sizes, sizes), strict=True
            ):
                on_cpu = {key: value.cpu() for key, value in one.items()}
                mine += to_coco(truth["image_id"], on_cpu, dataset.category_ids)
            measured.setdefault(head, []).append(positives.measure(model, output, at))
    truth = load_ground_truth(dataset)
    return {
        head: positives.summary(measured[head], areas)
        | score(truth, detections, "segm", area_ranges={}, trusted=True)
        for head, detections in found.items()
    }


def _batch(
    dataset: CocoFolder, first: int, device: torch.device
) -> tuple[list[torch.Tensor], list[Truth]]:
    pairs = [dataset[i] for i in range(first, min(first + AT_ONCE, len(dataset)))]
    prepared = (prepare(image.numpy(), InputConfig()) for image, _ in pairs)
    images = [torch.from_numpy(image).to(device) for image in prepared]
    return images, [truth for _, truth in pairs]


def _outputs(
    model: TensorMask, name: str, images: list[torch.Tensor]
) -> Iterator[tuple[str, NetworkOutput]]:
    """What the network says of a batch, head by head."""
    output = model.network(model.batch(images))
    if isinstance(model, SharedTrunk):
        yield from model.by_head(output).items()
    else:
        yield name, output
