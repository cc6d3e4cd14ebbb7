"""The detector: network, targets, losses and inference behind torchvision's detection contract.

    model = build_model("tiny", num_classes=4)
    losses = model(images, targets)                       # training
    detections = model.eval()(images)                     # evaluation

next: detector/tiles.py
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..base.errors import bad_input, require
from ..config import ModelConfig, model_config
from ..data.truth import Truth
from ..geometry import Layout, Windows, sizes_px
from . import inference, losses
from .network import NetworkOutput, TensorMaskNet, per_window
from .targets import Targets, build_targets

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
        In training a dict of scalars `loss_class`, `loss_box`, `loss_mask`, whose sum is
        minimised. In evaluation per image a dict of `boxes` (D, 4) xyxy output pixels, `scores`
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
        # (3, 1, 1), to meet (..., 3, H, W). Not in checkpoints: the configuration holds them.
        mean, std = (
            torch.tensor(values).view(3, 1, 1)
            for values in (config.pixel_mean, config.pixel_std)
        )
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)

    def forward(
        self,
        images: list[Tensor],
        targets: list[Truth] | Targets | None = None,
        output_sizes: list[tuple[int, int]] | None = None,
    ) -> Losses | Detections:
        _check_images(images)
        sizes = sizes_px(images)
        if self.training and not isinstance(targets, Targets):
            _check_truths(targets, sizes, self.config.num_classes)
        batch = self.batch(images)  # N times (3, H_n, W_n) -> (N, 3, H, W)
        layout = self.config.geometry.layout(sizes, batch.device)
        if not self.training:
            output = self.network(batch)
            return self.detections(output, layout, sizes, output_sizes or sizes)
        assert targets is not None
        if not isinstance(targets, Targets):
            targets = build_targets(targets, layout, self.config)
        return self.losses(self.network(batch, self._read(targets, layout)), targets, layout)

    def normalise(self, images: Tensor) -> Tensor:
        """RGB in [0, 1], (..., 3, H, W), to what the network was trained on.

        That is the order of the colours, the scale, mean and spread.
        """
        ordered = images.flip(-3) if self.config.bgr else images
        return (ordered * self.config.pixel_scale - self.pixel_mean) / self.pixel_std

    def batch(self, images: list[Tensor]) -> Tensor:
        """Normalised images, zero-padded at the right and bottom to one size: (N, 3, H, W)."""
        padded_px = self.config.geometry.padded_px(sizes_px(images))
        batch = images[0].new_zeros(len(images), 3, *padded_px)
        for row, image in zip(batch, images, strict=True):
            # An image is normalised first, so that the padding is the mean colour.
            row[:, : image.shape[-2], : image.shape[-1]] = self.normalise(image)
        return batch

    def _read(self, targets: Targets, layout: Layout) -> list[Tensor] | None:
        """Per level the images with a positive there: the others have no box and mask loss.

        None where the network is compiled: as many shapes as there are batches would be.
        """
        if torch.compiler.is_compiling() or self.network._compiled_call_impl is not None:
            return None
        level = layout.windows.level[targets.window]  # (P,)
        return [
            targets.image[level == number].unique()  # ascending
            for number in range(self.config.geometry.num_levels)
        ]

    def losses(self, output: NetworkOutput, targets: Targets, layout: Layout) -> Losses:
        """The three losses of a batch, boxes and masks at positive windows only."""
        config, num_sizes = self.config, self.config.geometry.num_sizes
        logits = per_window(output.logits, num_sizes)  # (N, M, K)
        positives = layout.windows[targets.window]  # P of M
        loss_class = losses.class_loss(
            logits, targets.labels, config.focal_gamma, config.focal_alpha
        )
        predicted = self.network.deltas_of(output, targets.image, positives)  # (P, 4)
        loss_box = losses.box_loss(predicted, targets.deltas)
        loss_mask = self.mask_loss(output, targets, positives)
        normaliser = losses.normaliser(len(positives), config.normaliser, logits.device)
        return {
            "loss_class": loss_class / normaliser,
            "loss_box": loss_box / normaliser,
            "loss_mask": config.mask_loss_weight * loss_mask / normaliser,
        }

    def mask_loss(self, output: NetworkOutput, targets: Targets, positives: Windows) -> Tensor:
        """The mask loss, summed over the positive windows (P of them)."""
        masks = list(self.network.mask_logits(output, targets.image, positives))
        loss = losses.mask_loss(masks, targets.masks, self.config.mask_positive_weight)
        # Without a positive of some size its predictor would get no gradient, and
        # DistributedDataParallel waits for one: it gets a zero.
        return loss + sum(p.sum() * 0 for p in self.network.mask_branch.parameters())

    def detections(
        self,
        output: NetworkOutput,
        layout: Layout,
        input_sizes: list[tuple[int, int]],
        output_sizes: list[tuple[int, int]],
    ) -> Detections:
        """Detections of a batch; masks are evaluated at the kept windows only.

        Image by image: how many are kept differs, and one image's masks fill memory enough.
        """
        windows, num_sizes = layout.windows, self.config.geometry.num_sizes
        threshold = self.config.mask_threshold
        logits = per_window(output.logits, num_sizes)  # (N, M, K)
        deltas = per_window(output.deltas, num_sizes)  # (N, M, 4)
        results = []
        sizes = zip(input_sizes, output_sizes, strict=True)
        for number, (input_size, output_size) in enumerate(sizes):
            kept = inference.keep(logits[number], deltas[number], windows, self.config)
            kept = inference.to_output_size(kept, input_size, output_size)
            chosen = windows[kept.window]  # D of M
            in_batch_of_one = torch.zeros_like(kept.window)
            masks = self.network.mask_logits(
                output.of_image(number), in_batch_of_one, chosen, at_once=AT_ONCE
            )
            sureness, power = torch.zeros_like(kept.scores), self.config.mask_score_power
            if power:
                masks = inference.with_sureness(masks, threshold, sureness)
            # Where a mask is drawn: its window, which the box does not move.
            window_px = inference.scaled(chosen.box_px, input_size, output_size)
            drawn = inference.paste(masks, window_px, *output_size, threshold)  # (D, H, W)
            found = {"boxes": kept.boxes, "scores": kept.scores, "labels": kept.labels}
            found["masks"] = drawn
            if power:
                scores, order = inference.ranked(kept.scores, sureness, power)
                found = {name: value[order] for name, value in found.items()}
                found["scores"] = scores
            results.append(found)
        return results


def build_model(config: str | ModelConfig, num_classes: int | None = None) -> TensorMask:
    """A model with fresh weights from a preset's name (``"tiny"``) or a configuration.

    Raises:
        InputError: an unknown preset, or `num_classes` that contradicts the configuration.
    """
    if isinstance(config, str):
        return TensorMask(model_config(config, num_classes))
    if num_classes not in (None, config.num_classes):
        expected = f"{config.num_classes}, as in the configuration"
        raise bad_input("num_classes", expected, num_classes)
    return TensorMask(config)


def _check_images(images: list[Tensor]) -> None:
    if not isinstance(images, list | tuple) or not images:
        expected = "a non-empty list of (3, H, W) tensors"
        raise bad_input("images", expected, type(images).__name__)
    for number, image in enumerate(images):
        where, shape = f"images[{number}]", tuple(image.shape)
        if len(shape) != 3 or shape[0] != 3 or 0 in shape:
            raise bad_input(where, "shape (3, H, W), H and W at least 1", shape)
        if not image.is_floating_point():
            raise bad_input(where, "floats in [0, 1]", image.dtype, "divide uint8 by 255")


def _check_truths(
    truths: list[Truth] | None, sizes: list[tuple[int, int]], num_classes: int
) -> None:
    """The public argument is called `targets`, as in torchvision, and so it is in errors."""
    if truths is None or len(truths) != len(sizes):
        got = "none" if truths is None else len(truths)
        raise bad_input("targets", f"one dict per image ({len(sizes)}) in training mode", got)
    for number, (truth, size) in enumerate(zip(truths, sizes, strict=True)):
        _check_truth(truth, size, num_classes, f"targets[{number}]")


def _check_truth(truth: Truth, size: tuple[int, int], num_classes: int, where: str) -> None:
    def require_shape(name: str, *expected: int) -> None:
        shape = tuple(truth[name].shape)
        require(shape == expected, f"{where}['{name}']", f"shape {expected}", shape)

    if not {"boxes", "labels"} <= set(truth) or not {"masks", "polygons"} & set(truth):
        raise bad_input(where, "keys boxes, labels, and masks or polygons", sorted(truth))
    labels = truth["labels"]
    count = len(labels)
    require_shape("boxes", count, 4)
    if count and (int(labels.min()) < 0 or int(labels.max()) >= num_classes):
        expected = f"classes 0..{num_classes - 1}"
        raise bad_input(f"{where}['labels']", expected, labels.tolist())
    if "masks" in truth:
        require_shape("masks", count, *size)
