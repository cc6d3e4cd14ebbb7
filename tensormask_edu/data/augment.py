"""Random changes of a training picture and its truth: place, symmetry, light.

Every random number comes from the generator passed in, so the same state gives the same sample.

next: data/stream.py
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Generator, Tensor

from ..config import AugmentConfig, InputConfig
from .prepare import resize, scaled
from .truth import Region, Truth, crop, crop_truth, map_points, resize_truth, select


class Augment:
    """Random changes of a prepared picture and its truth: crop and scale, symmetry, light.

    ``augment(image, truth, generator)`` with image float32 (3, h, w) in [0, 1] and a truth of
    `CocoFolder`. The same generator state gives the same result, bit for bit.
    """

    def __init__(self, config: AugmentConfig) -> None:
        self.config = config

    def __call__(
        self, image: Tensor, truth: Truth, generator: Generator
    ) -> tuple[Tensor, Truth]:
        height, width = image.shape[-2:]
        region, size = self.choose_region((height, width), (height, width), generator)
        if region is not None:
            image, truth = crop(image, region), crop_truth(truth, region)
        image = torch.from_numpy(resize(image.numpy(), size))  # (3, *size)
        return self.after_crop(image, resize_truth(truth, size), generator)

    def choose_size(self, config: InputConfig, generator: Generator) -> InputConfig:
        """The input configuration, with a short side drawn for this picture if that is asked.

        Every whole number of the range is as likely, both ends included.
        """
        if self.config.short_side_px is None:
            return config
        low, high = self.config.short_side_px
        return replace(config, short_side_px=low + _integer(generator, high - low + 1))

    def choose_region(
        self, file_size: tuple[int, int], model_size: tuple[int, int], generator: Generator
    ) -> tuple[Region | None, tuple[int, int]]:
        """Which part of a picture to use, and the size it gets.

        Args:
            file_size: height and width of the picture in the file's pixels.
            model_size: the same as it would enter the model, without augmentation.

        Returns:
            region: in the file's pixels, None for the whole. Cutting comes first: the rest is
                then cheap.
            size: (height, width) to which the region is resized.
        """
        # Uniform in the logarithm: twice as large is as likely as half as large.
        scale = math.exp(_uniform(generator, *map(math.log, self.config.scale)))
        crop_px = self.config.crop_px
        if crop_px is None:
            return None, scaled(model_size, scale)
        # The crop has crop_px pixels in the model, so fewer of the file where that is enlarged.
        side = max(1, round(crop_px * file_size[0] / model_size[0] / scale))
        top, left = (_integer(generator, max(0, length - side) + 1) for length in file_size)
        return (top, left, side, side), (crop_px, crop_px)

    def after_crop(
        self, image: Tensor, truth: Truth, generator: Generator
    ) -> tuple[Tensor, Truth]:
        """The changes that need no other pixels: drop slivers, then symmetry, then light."""
        config = self.config
        areas_px = torch.tensor([np.count_nonzero(mask) for mask in truth["masks"].numpy()])
        truth = select(truth, areas_px >= config.min_area_px)
        for wanted, change in (
            (config.flip, flip),
            (config.flip_vertical, flip_vertical),
            (config.transpose, transpose),
        ):
            if wanted and _uniform(generator) < 0.5:
                image, truth = change(image, truth)
        return change_light(image, config, generator), truth


# --- symmetries of the square -----------------------------------------------------------------


def flip(image: Tensor, truth: Truth) -> tuple[Tensor, Truth]:
    """Left becomes right."""
    width = image.shape[-1]
    x0, y0, x1, y1 = truth["boxes"].unbind(1)
    flipped = truth | {
        "boxes": torch.stack([width - x1, y0, width - x0, y1], 1),  # the right end is now left
        "masks": truth["masks"].flip(2),
    }
    if "polygons" in truth:
        flipped["polygons"] = map_points(
            truth["polygons"], lambda points: [width, 0] + points * [-1, 1]
        )
    return image.flip(2), flipped


def flip_vertical(image: Tensor, truth: Truth) -> tuple[Tensor, Truth]:
    """Top becomes bottom."""
    height = image.shape[-2]
    x0, y0, x1, y1 = truth["boxes"].unbind(1)
    flipped = truth | {
        "boxes": torch.stack([x0, height - y1, x1, height - y0], 1),
        "masks": truth["masks"].flip(1),
    }
    if "polygons" in truth:
        flipped["polygons"] = map_points(
            truth["polygons"], lambda points: [0, height] + points * [1, -1]
        )
    return image.flip(1), flipped


def transpose(image: Tensor, truth: Truth) -> tuple[Tensor, Truth]:
    """y becomes x: the mirror on the main diagonal."""
    turned = truth | {
        "boxes": truth["boxes"][:, [1, 0, 3, 2]],
        "masks": truth["masks"].transpose(1, 2).contiguous(),  # (m, W, H)
    }
    if "polygons" in truth:
        turned["polygons"] = map_points(truth["polygons"], lambda points: points[:, ::-1])
    return image.transpose(1, 2).contiguous(), turned  # (3, W, H)


# --- light ------------------------------------------------------------------------------------


def change_light(image: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    """Colour order, grey, inversion, gamma, gain, offset, noise; then cut to [0, 1].

    image: float32 (3, h, w) in [0, 1]. What is off draws no random number.
    """
    if config.shuffle_channels and _uniform(generator) < config.shuffle_channels:
        image = image[torch.randperm(3, generator=generator)]
    if config.grey and _uniform(generator) < config.grey:
        image = image.mean(dim=0, keepdim=True).expand(3, -1, -1)
    if config.invert and _uniform(generator) < config.invert:
        image = 1 - image
    if config.gamma != (1.0, 1.0):
        image = image ** math.exp(_uniform(generator, *map(math.log, config.gamma)))
    if config.gain != (1.0, 1.0):
        image = image * _uniform(generator, *config.gain)
    if config.offset:
        image = image + _uniform(generator, -config.offset, config.offset)
    if config.noise:
        deviation = _uniform(generator, 0, config.noise)
        image = torch.randn(image.shape, generator=generator).mul_(deviation).add_(image)
    return image.clamp(0, 1)


# --- random numbers ---------------------------------------------------------------------------


def _uniform(generator: Generator, low: float = 0.0, high: float = 1.0) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def _integer(generator: Generator, below: int) -> int:
    return int(torch.randint(below, (), generator=generator))
