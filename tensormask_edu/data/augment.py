"""From a picture file to the model's input, and random changes of it for training.

`prepare` is what every picture goes through, in training, evaluation and prediction alike:
contrast and size. `Augment` changes a training picture at random. Every random number comes
from the generator passed in, and `TrainingSet` seeds one per position, so sample 1234 of a run
is the same whoever computes it, and when.

next: evaluate.py
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as F

from ..base.errors import bad_input
from ..config import AugmentConfig, InputConfig
from .coco import CocoFolder, Region, Target, crop, crop_target, map_points, select

# --- always: contrast and size ----------------------------------------------------------------


def prepare(image: Tensor, config: InputConfig) -> Tensor:
    """The model's input for a picture. Results return to the file's pixels by the model's
    `output_sizes`.

    Args:
        image: uint8 (3, H, W) RGB

    Returns:
        float32 (3, h, w) in [0, 1], (h, w) = `input_size`
    """
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise bad_input("image", "uint8 (3, H, W)", f"{image.dtype} {tuple(image.shape)}")
    size = input_size(image.shape[1], image.shape[2], config)
    return _resize(stretch(image, intensity_range(image, config)), size)


def input_size(height: int, width: int, config: InputConfig) -> tuple[int, int]:
    """Height and width in which a picture enters the model."""
    factor = config.enlarge
    if config.short_side_px is not None:
        factor = min(
            config.short_side_px / min(height, width), config.long_side_px / max(height, width)
        )
    return _scaled((height, width), factor)


def intensity_range(image: Tensor, config: InputConfig) -> tuple[float, float]:
    """The pixel values, 0..255, that become 0 and 1: the config's percentiles over all pixels
    and colours."""
    if config.stretch_percentiles is None:
        return 0.0, 255.0
    histogram = torch.bincount(image.reshape(-1), minlength=256).cumsum(0)
    shares = torch.tensor(config.stretch_percentiles, dtype=torch.float64) / 100 * histogram[-1]
    low, high = torch.searchsorted(histogram.double(), shares).tolist()
    return float(low), float(max(high, low + 1))  # a picture of one colour becomes 0


def stretch(image: Tensor, values: tuple[float, float]) -> Tensor:
    """uint8 to float32 in [0, 1]: `values` = (low, high) become 0 and 1, what lies beyond is
    cut."""
    low, high = values
    return image.float().sub_(low).div_(high - low).clamp_(0, 1)


def resize_target(target: Target, size: tuple[int, int]) -> Target:
    """A target in a picture of another size (height, width).

    Boxes and polygons are scaled exactly, masks take the nearest pixel: a scaled tight box is
    within a pixel of its scaled mask.
    """
    height, width = target["masks"].shape[-2:]
    if (height, width) == tuple(size):
        return target
    factor = np.array([size[1] / width, size[0] / height])
    boxes = target["boxes"] * torch.tensor([*factor, *factor], dtype=torch.float32)
    resized = target | {"boxes": boxes, "masks": _resize_masks(target["masks"], size)}
    if "polygons" in target:
        resized["polygons"] = map_points(target["polygons"], lambda points: points * factor)
    return resized


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    return F.resize(image, list(size), antialias=True).clamp_(0, 1)


def _resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest pixel centre. NumPy's take copies bytes several times faster than torch's
    indexing."""
    rows, columns = (
        ((np.arange(new) + 0.5) * (old / new)).astype(np.intp)
        for new, old in zip(size, masks.shape[-2:], strict=True)
    )
    return torch.from_numpy(masks.numpy().take(rows, axis=1).take(columns, axis=2))


def _scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    height, width = (max(1, int(side * factor + 0.5)) for side in size)
    return height, width


# --- at random: place, symmetry, light --------------------------------------------------------


class Augment:
    """Random changes of a prepared picture and its target: scale and crop, the square's
    symmetries, light.

    ``augment(image, target, generator)`` with image float32 (3, h, w) in [0, 1] and a target of
    `CocoFolder`. The same generator state gives the same result, bit for bit.
    """

    def __init__(self, config: AugmentConfig) -> None:
        self.config = config

    def __call__(
        self, image: Tensor, target: Target, generator: Generator
    ) -> tuple[Tensor, Target]:
        height, width = image.shape[-2:]
        region, size = self.choose_region((height, width), (height, width), generator)
        if region is not None:
            image, target = crop(image, region), crop_target(target, region)
        image, target = _resize(image, size), resize_target(target, size)
        return self.after_crop(image, target, generator)

    def choose_size(self, config: InputConfig, generator: Generator) -> InputConfig:
        """The input configuration with a short side drawn for this picture, if it is to be
        random."""
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
        scale = math.exp(_uniform(generator, *map(math.log, self.config.scale)))
        crop_px = self.config.crop_px
        if crop_px is None:
            return None, _scaled(model_size, scale)
        side = max(1, round(crop_px * file_size[0] / model_size[0] / scale))
        top, left = (_integer(generator, max(0, length - side) + 1) for length in file_size)
        return (top, left, side, side), (crop_px, crop_px)

    def after_crop(
        self, image: Tensor, target: Target, generator: Generator
    ) -> tuple[Tensor, Target]:
        """The changes that need no other pixels: drop slivers, then symmetry, then light."""
        config = self.config
        areas_px = torch.tensor([np.count_nonzero(mask) for mask in target["masks"].numpy()])
        target = select(target, areas_px >= config.min_area_px)
        for wanted, change in (
            (config.flip, flip),
            (config.flip_vertical, flip_vertical),
            (config.transpose, transpose),
        ):
            if wanted and _uniform(generator) < 0.5:
                image, target = change(image, target)
        return change_light(image, config, generator), target


def flip(image: Tensor, target: Target) -> tuple[Tensor, Target]:
    """Left becomes right."""
    width = image.shape[-1]
    x0, y0, x1, y1 = target["boxes"].unbind(1)
    flipped = target | {
        "boxes": torch.stack([width - x1, y0, width - x0, y1], 1),
        "masks": target["masks"].flip(2),
    }
    if "polygons" in target:
        flipped["polygons"] = map_points(
            target["polygons"], lambda points: [width, 0] + points * [-1, 1]
        )
    return image.flip(2), flipped


def flip_vertical(image: Tensor, target: Target) -> tuple[Tensor, Target]:
    """Top becomes bottom."""
    height = image.shape[-2]
    x0, y0, x1, y1 = target["boxes"].unbind(1)
    flipped = target | {
        "boxes": torch.stack([x0, height - y1, x1, height - y0], 1),
        "masks": target["masks"].flip(1),
    }
    if "polygons" in target:
        flipped["polygons"] = map_points(
            target["polygons"], lambda points: [0, height] + points * [1, -1]
        )
    return image.flip(1), flipped


def transpose(image: Tensor, target: Target) -> tuple[Tensor, Target]:
    """y becomes x: the mirror on the main diagonal."""
    boxes, masks = (
        target["boxes"][:, [1, 0, 3, 2]],
        target["masks"].transpose(1, 2).contiguous(),
    )
    turned = target | {"boxes": boxes, "masks": masks}
    if "polygons" in target:
        turned["polygons"] = map_points(target["polygons"], lambda points: points[:, ::-1])
    return image.transpose(1, 2).contiguous(), turned


def change_light(image: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    """Colour order, grey, inversion, gamma, gain, offset and noise, in this order, then cut to
    [0, 1]."""
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


def _uniform(generator: Generator, low: float = 0.0, high: float = 1.0) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def _integer(generator: Generator, below: int) -> int:
    return int(torch.randint(below, (), generator=generator))


# --- the order of a run -----------------------------------------------------------------------


class TrainingSet(Dataset[tuple[Tensor, Target]]):
    """The endless stream of training samples of a run, as a pure function of the position in
    it.

    ``training_set[position]`` is picture `training_set.index(position)`, changed by
    `generator_at(seed, position)`. A run that stopped after some positions continues from there
    and sees what it would have seen:

        DataLoader(training_set, batch_size=4, sampler=range(start, end), collate_fn=collate)

    Args:
        group_size: batches of this many positions hold wide pictures or tall ones, at most two
            an epoch hold both; None leaves the order as it was shuffled.
    """

    def __init__(
        self,
        dataset: CocoFolder,
        input_config: InputConfig,
        augment: AugmentConfig,
        seed: int,
        group_size: int | None = None,
    ) -> None:
        if not len(dataset):
            raise bad_input("dataset", "at least one picture with an instance", "none")
        self.dataset, self.input_config, self.augment = dataset, input_config, Augment(augment)
        self.seed, self.group_size = seed, group_size
        sizes = [dataset.size(index) for index in range(len(dataset))] if group_size else []
        self.wide = torch.tensor([width > height for height, width in sizes], dtype=torch.bool)
        self._grouped: tuple[int, Tensor] = (
            -1,
            torch.empty(0),
        )  # the epoch last asked for, and its order

    def __getitem__(self, position: int) -> tuple[Tensor, Target]:
        generator = generator_at(self.seed, position)
        return training_sample(
            self.dataset, self.index(position), self.input_config, self.augment, generator
        )

    def index(self, position: int) -> int:
        """Which picture stands at `position` of the run."""
        length = len(self.dataset)
        if not self.group_size:
            return sample_index(self.seed, position, length)
        epoch, place = divmod(position, length)
        if self._grouped[0] != epoch:
            begun = min(-epoch * length % self.group_size, length)
            order = grouped(
                _epoch_order(self.seed, epoch, length), self.wide, self.group_size, begun
            )
            self._grouped = epoch, order
        return int(self._grouped[1][place])


def grouped(order: Tensor, wide: Tensor, size: int, begun: int = 0) -> Tensor:
    """An epoch's order with pictures of one orientation side by side, `size` at a time.

    A batch comes where its last picture stood in the shuffled order, so batches stay shuffled
    too. The pictures that fill no batch end the epoch.

    Args:
        order: (n,) the shuffled pictures. wide: (pictures,) bool, their orientation.
        begun: how many pictures the last batch of the epoch before still wants; they come
            first.
    """
    batches, ends, rest = [], [], []
    for orientation in (False, True):
        places = (wide[order[begun:]] == orientation).nonzero().squeeze(1) + begun
        full = len(places) // size * size
        batches.append(places[:full].view(-1, size))
        ends.append(batches[-1][:, -1])
        rest.append(places[full:])
    by_end = torch.cat(batches)[torch.cat(ends).argsort()]
    return order[
        torch.cat([torch.arange(begun), by_end.flatten(), torch.cat(rest).sort().values])
    ]


def training_sample(
    dataset: CocoFolder,
    index: int,
    input_config: InputConfig,
    augment: Augment,
    generator: Generator,
) -> tuple[Tensor, Target]:
    """Picture `index`, prepared and augmented: image float32 (3, h, w) in [0, 1] and its
    target.

    The same steps as `prepare`, then `augment`, but cut in the file's pixels and resized once.
    """
    image, file_size = dataset.image(index), dataset.size(index)
    input_config = augment.choose_size(input_config, generator)
    region, size = augment.choose_region(
        file_size, input_size(*file_size, input_config), generator
    )
    values = intensity_range(image, input_config)
    part = image if region is None else crop(image, region)
    target = dataset.target(index, region)
    return augment.after_crop(
        _resize(stretch(part, values), size), resize_target(target, size), generator
    )


def sample_index(seed: int, position: int, length: int) -> int:
    """Which of `length` pictures stands at `position` of the run: every epoch is a shuffle of
    its own."""
    epoch, place = divmod(position, length)
    return int(_epoch_order(seed, epoch, length)[place])


def generator_at(seed: int, position: int) -> Generator:
    """The generator of every random change at `position` of the run."""
    return Generator().manual_seed(_mixed(seed, position, stream=1))


@lru_cache(maxsize=4)
def _epoch_order(seed: int, epoch: int, length: int) -> Tensor:
    return torch.randperm(
        length, generator=Generator().manual_seed(_mixed(seed, epoch, stream=0))
    )


def _mixed(seed: int, number: int, stream: int) -> int:
    """One seed from three numbers; neighbours give unrelated generators."""
    return int(
        np.random.SeedSequence([seed, number, stream]).generate_state(1, np.uint64)[0]
        >> np.uint64(1)
    )


def collate(samples: Sequence[tuple[Tensor, Target]]) -> tuple[list[Tensor], list[Target]]:
    """A batch as the model takes it: a list of images and a list of targets."""
    images, targets = zip(*samples, strict=True)
    return list(images), list(targets)
