"""TensorMask itself behind the same interface, so that one judge sees all.

next: ancestors/judge.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Generator, Tensor

from ..config import InputConfig, ModelConfig, TrainConfig
from ..data.coco import CocoFolder
from ..data.stream import collate
from ..data.truth import Truth
from ..detector.inference import paste
from ..detector.model import build_model
from ..detector.targets import assign, mask_targets
from .fit import AUGMENT, FILE_SIZE, Detector, Drawn, Proposals, Sample, fit

CERTAIN = 20.0  # logit of a bin that is surely inside; its negative surely outside

# Of the ancestors' size: windows of 20 and 28 px, 40 and 56, 80 and 112
SMALL = ModelConfig(
    preset="small",
    strides_px=(4, 8, 16),
    fpn_channels=32,
    class_channels=32,
    box_channels=32,
    mask_channels=32,
)
RECIPE = TrainConfig(batch_size=4, augment=AUGMENT)


class TensorMaskBeside(Detector):
    """A TensorMask that keeps duplicates: what is one, the judge says."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.model = build_model(replace(config, nms_threshold=1.0, score_threshold=0.0))

    def losses(self, samples: Sequence[Sample], generator: Generator) -> dict[str, Tensor]:
        images, truths = collate(samples)
        losses = self.model(images, truths)
        assert isinstance(losses, dict)  # in training
        return losses

    @torch.inference_mode()
    def propose(self, image: Tensor, count: int) -> Proposals:
        self.model.config = replace(self.model.config, detections_per_image=count)
        (found,) = self.model([image])
        return Proposals(*(found[name] for name in Proposals._fields))

    @torch.inference_mode()
    def at_truth(self, image: Tensor, truth: Truth) -> Drawn:
        model, config = self.model, self.model.config
        height, width = image.shape[-2:]
        layout = config.geometry.layout([(height, width)])
        window, instance = assign(truth["boxes"], config, layout).unbind(1)  # (P,) each
        windows, one = layout.windows[window], torch.zeros_like(instance)
        output = model.network(model.batch([image]))
        logits = list(model.network.mask_logits(output, one, windows))
        bins = mask_targets([truth], one, instance, windows, config.geometry)
        sure = [
            group._replace(values=(group.values.float() * 2 - 1) * CERTAIN) for group in bins
        ]
        masks, reachable = (
            paste(groups, windows.box_px, height, width, config.mask_threshold)
            for groups in (logits, sure)
        )
        return Drawn(instance, masks, reachable)


def train(
    dataset: CocoFolder,
    config: TrainConfig = RECIPE,
    input_config: InputConfig = FILE_SIZE,
    progress: bool = True,
    model_config: ModelConfig = SMALL,
) -> TensorMaskBeside:
    """A TensorMask trained as its ancestors are.

    Raises:
        InputError, FloatingPointError: see `fit`.
    """
    model_config = replace(model_config, class_names=dataset.class_names, category_ids=())
    build = partial(TensorMaskBeside, model_config)
    return fit(build, dataset, config, input_config, progress)
