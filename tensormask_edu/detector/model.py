"""The detector: network, targets, losses and inference behind torchvision's detection contract.

    model = build_model("tiny", num_classes=4)
    losses = model(images, targets)                       # training
    detections = model.eval()(images)                     # evaluation

next: targets.py
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..base.errors import bad_input
from ..config import ModelConfig, model_config
from ..geometry import Windows
from . import inference, losses
from .network import NetworkOutput, TensorMaskNet, per_window
from .targets import GridSizes, Targets, build_targets

Losses = dict[str, Tensor]
Detections = list[dict[str, Tensor]]

AT_ONCE = 64  # windows evaluated at a time: of the largest, 480 x 480 bins in float32, 59 MB


class TensorMask(nn.Module):
    """TensorMask as a module.

    Args of a call:
        images: list of (3, H, W) RGB float tensors in [0, 1], any sizes; nothing is resized.
        targets: in training, per image a dict of `boxes` (G, 4) float xyxy pixels, `labels`
            (G,) int64 in 0..K-1, and `masks` (G, H, W) bool or `polygons` (per object a list of
            flat xy arrays); or what `build_targets` made of them.
        output_sizes: per image (height, width) to which results are scaled; default the image's
            own.

    Returns:
        in training a dict of scalars `loss_class`, `loss_box`, `loss_mask`; their sum is
        minimised; in evaluation per image a dict of `boxes` (D, 4) xyxy output pixels, `scores`
        (D,), descending, `labels` (D,), `masks` (D, height, width) bool.

    Half precision: call it under ``torch.autocast``; boxes, scores and losses stay float32.
    Compiled: ``model.network.compile(fullgraph=True)``; what follows the network depends on its
    numbers and is not.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.network = TensorMaskNet(config)
        self.register_buffer(
            "pixel_mean", torch.tensor(config.pixel_mean).view(3, 1, 1), persistent=False
        )
        self.register_buffer(
            "pixel_std", torch.tensor(config.pixel_std).view(3, 1, 1), persistent=False
        )

    def forward(
        self,
        images: list[Tensor],
        targets: list[dict[str, Any]] | Targets | None = None,
        output_sizes: list[tuple[int, int]] | None = None,
    ) -> Losses | Detections:
        _check_images(images)
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        if self.training and not isinstance(targets, Targets):
            _check_targets(targets, sizes, self.config.num_classes)
        batch = self.batch(images)
        output = self.network(batch)
        grid_sizes = self.config.geometry.grid_sizes(batch.shape[-2], batch.shape[-1])
        windows = self.config.geometry.windows(grid_sizes, batch.device)
        if self.training:
            assert targets is not None
            return self.losses(output, targets, windows, grid_sizes)
        return self.detections(output, windows, sizes, output_sizes or sizes)

    def normalise(self, images: Tensor) -> Tensor:
        """RGB in [0, 1], (..., 3, H, W), to what the network was trained on: scale, order,
        mean, spread."""
        ordered = images.flip(-3) if self.config.bgr else images
        return (ordered * self.config.pixel_scale - self.pixel_mean) / self.pixel_std

    def batch(self, images: list[Tensor]) -> Tensor:
        """Normalised images, zero-padded at the right and bottom to one size: (N, 3, H, W)."""
        padded_px = self.config.geometry.padded_px(
            [(image.shape[-2], image.shape[-1]) for image in images]
        )
        batch = images[0].new_zeros(len(images), 3, *padded_px)
        for row, image in zip(batch, images, strict=True):
            row[:, : image.shape[-2], : image.shape[-1]] = self.normalise(image)
        return batch

    def losses(
        self,
        output: NetworkOutput,
        targets: list[dict[str, Any]] | Targets,
        windows: Windows,
        grid_sizes: GridSizes,
    ) -> Losses:
        """The three losses of a batch; the mask loss is evaluated at positive windows only."""
        config, num_sizes = self.config, self.config.geometry.num_sizes
        if not isinstance(targets, Targets):
            targets = build_targets(targets, windows, grid_sizes, config)
        logits, deltas = (
            per_window(output.logits, num_sizes),
            per_window(output.deltas, num_sizes),
        )
        masks = list(self.network.mask_logits(output, targets.image, windows[targets.window]))
        normaliser = losses.normaliser(len(targets.window), config.normaliser, logits.device)
        mask_loss = losses.mask_loss(masks, targets.masks, config.mask_positive_weight)
        # Without a positive of some size its predictor would get no gradient; DDP wants a zero
        # one.
        mask_loss = mask_loss + sum(p.sum() * 0 for p in self.network.mask_branch.parameters())
        return {
            "loss_class": losses.class_loss(
                logits, targets.labels, config.focal_gamma, config.focal_alpha
            )
            / normaliser,
            "loss_box": losses.box_loss(deltas[targets.image, targets.window], targets.deltas)
            / normaliser,
            "loss_mask": config.mask_loss_weight * mask_loss / normaliser,
        }

    def detections(
        self,
        output: NetworkOutput,
        windows: Windows,
        input_sizes: list[tuple[int, int]],
        output_sizes: list[tuple[int, int]],
    ) -> Detections:
        """Detections of a batch; masks are evaluated at the kept windows only, image by
        image."""
        num_sizes = self.config.geometry.num_sizes
        logits, deltas = (
            per_window(output.logits, num_sizes),
            per_window(output.deltas, num_sizes),
        )
        results = []
        for number, (input_size, output_size) in enumerate(
            zip(input_sizes, output_sizes, strict=True)
        ):
            kept = inference.keep(logits[number], deltas[number], windows, self.config)
            kept = inference.to_output_size(kept, input_size, output_size)
            chosen, of_image = windows[kept.window], torch.zeros_like(kept.window)
            masks = self.network.mask_logits(
                output.of_image(number), of_image, chosen, at_once=AT_ONCE
            )
            window_px = inference.scaled(chosen.box_px, input_size, output_size)
            results.append(
                {
                    "boxes": kept.boxes,
                    "scores": kept.scores,
                    "labels": kept.labels,
                    "masks": inference.paste(masks, window_px, *output_size),
                }
            )
        return results


def build_model(config: str | ModelConfig, num_classes: int | None = None) -> TensorMask:
    """A model with fresh weights from a preset's name (``"tiny"``) or a configuration.

    Raises:
        InputError: an unknown preset, or `num_classes` that contradicts the configuration.
    """
    if isinstance(config, str):
        return TensorMask(model_config(config, num_classes))
    if num_classes not in (None, config.num_classes):
        raise bad_input(
            "num_classes", f"{config.num_classes}, as in the configuration", num_classes
        )
    return TensorMask(config)


def _check_images(images: list[Tensor]) -> None:
    if not isinstance(images, list | tuple) or not images:
        raise bad_input(
            "images", "a non-empty list of (3, H, W) tensors", type(images).__name__
        )
    for number, image in enumerate(images):
        if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
            raise bad_input(
                f"images[{number}]", "shape (3, H, W), H and W at least 1", tuple(image.shape)
            )
        if not image.is_floating_point():
            raise bad_input(
                f"images[{number}]", "floats in [0, 1]", image.dtype, "divide uint8 by 255"
            )


def _check_targets(
    targets: list[dict[str, Any]] | None, sizes: list[tuple[int, int]], num_classes: int
) -> None:
    if targets is None or len(targets) != len(sizes):
        got = "none" if targets is None else len(targets)
        raise bad_input("targets", f"one dict per image ({len(sizes)}) in training mode", got)
    for number, (target, size) in enumerate(zip(targets, sizes, strict=True)):
        where, missing = f"targets[{number}]", {"boxes", "labels"} - set(target)
        if missing or not {"masks", "polygons"} & set(target):
            raise bad_input(where, "keys boxes, labels, and masks or polygons", sorted(target))
        count = len(target["labels"])
        if tuple(target["boxes"].shape) != (count, 4):
            raise bad_input(
                f"{where}['boxes']", f"shape ({count}, 4)", tuple(target["boxes"].shape)
            )
        if (
            count
            and not 0
            <= int(target["labels"].min())
            <= int(target["labels"].max())
            < num_classes
        ):
            raise bad_input(
                f"{where}['labels']", f"classes 0..{num_classes - 1}", target["labels"].tolist()
            )
        if "masks" in target and tuple(target["masks"].shape) != (count, *size):
            raise bad_input(
                f"{where}['masks']", f"shape {(count, *size)}", tuple(target["masks"].shape)
            )
