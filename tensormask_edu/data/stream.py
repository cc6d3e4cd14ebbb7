"""The order of a run: sample 1234 is the same whoever computes it, and when.

Nothing is remembered between two samples. The order and every random change follow from the
seed and the position alone, so a run can stop, go on, or be shared among processes.

next: detector/boxes.py
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from ..base.errors import InputError, bad_input, warn_of_input
from ..config import AugmentConfig, InputConfig
from .augment import Augment
from .coco import CocoFolder
from .prepare import input_size, intensity_range, resize, stretch
from .truth import Truth, crop, resize_truth

# --- samples ----------------------------------------------------------------------------------


class TrainingSet(Dataset[tuple[Tensor, Truth]]):
    """The endless stream of a run's samples, as a pure function of the position in it.

    ``training_set[position]`` is picture `training_set.index(position)`, changed by
    `generator_at(seed, position)`. A run that stopped after some positions continues from there
    and sees what it would have seen:

        DataLoader(training_set, batch_size=4, sampler=range(start, end), collate_fn=collate)

    Args:
        group_size: batches of this many positions hold wide pictures or tall ones, at most two
            an epoch hold both; None leaves the order as it was shuffled.
        skip_bad: the next picture of the data set stands in for one that cannot be read.
    """

    def __init__(
        self,
        dataset: CocoFolder,
        input_config: InputConfig,
        augment: AugmentConfig,
        seed: int,
        group_size: int | None = None,
        skip_bad: bool = False,
    ) -> None:
        if not len(dataset):
            why = "; ".join(["none", *dataset.ground_truth.findings.lines()])
            raise bad_input("dataset", "at least one picture with an instance", why)
        self.dataset, self.input_config, self.augment = dataset, input_config, Augment(augment)
        self.seed, self.group_size, self.skip_bad = seed, group_size, skip_bad
        sizes = [dataset.size(index) for index in range(len(dataset))] if group_size else []
        self.wide = torch.tensor([width > height for height, width in sizes], dtype=torch.bool)
        # Two numbers a picture, which would take longer to find than the crop takes to stretch
        self._ranges: dict[int, tuple[float, float]] = {}
        # A grouped epoch is ordered as a whole: the one last asked for is kept.
        self._epoch: int | None = None
        self._order = torch.empty(0, dtype=torch.int64)

    def __getitem__(self, position: int) -> tuple[Tensor, Truth]:
        first, length = self.index(position), len(self.dataset)
        for index in range(first, first + length):
            try:
                return self.sample(index % length, generator_at(self.seed, position))
            except InputError as error:  # the same each time, so a resumed run repeats it
                if not self.skip_bad:
                    raise
                warn_of_input(f"skipped: {error}")
        raise bad_input("dataset", "a picture that can be read", f"none of {length}")

    def sample(self, index: int, generator: Generator) -> tuple[Tensor, Truth]:
        """Picture `index`, prepared and augmented: float32 (3, h, w) in [0, 1], and its truth.

        The same steps as `prepare`, then `augment`, but cut in the file's pixels and resized
        once.
        """
        image, file_size = self.dataset.image(index), self.dataset.size(index)
        input_config = self.augment.choose_size(self.input_config, generator)
        model_size = input_size(*file_size, input_config)
        region, size = self.augment.choose_region(file_size, model_size, generator)
        if index not in self._ranges:
            # Contrast is the whole picture's, also in a crop, as evaluation sees it.
            self._ranges[index] = intensity_range(image.numpy(), input_config)
        part = image if region is None else crop(image, region)
        stretched = stretch(part.numpy(), self._ranges[index])
        prepared = torch.from_numpy(resize(stretched, size))  # (3, h, w)
        truth = resize_truth(self.dataset.truth(index, region), size)
        return self.augment.after_crop(prepared, truth, generator)

    def sample_shape(self) -> tuple[int, int, int]:
        """About what a sample measures, (3, h, w): the first picture's, or the crops'."""
        crop_px = self.augment.config.crop_px
        size = input_size(*self.dataset.size(0), self.input_config)
        return (3, crop_px, crop_px) if crop_px else (3, *size)

    def index(self, position: int) -> int:
        """Which picture stands at `position` of the run."""
        length = len(self.dataset)
        if not self.group_size:
            return sample_index(self.seed, position, length)
        epoch, place = divmod(position, length)
        if self._epoch != epoch:
            # A batch may run on over an epoch's end: this one begins with what it still wants.
            begun = min(-epoch * length % self.group_size, length)
            order = _epoch_order(self.seed, epoch, length)
            self._order = grouped(order, self.wide, self.group_size, begun)
            self._epoch = epoch
        return int(self._order[place])


def collate(samples: Sequence[tuple[Tensor, Truth]]) -> tuple[list[Tensor], list[Truth]]:
    """A batch as the model takes it: a list of images and a list of truths."""
    images, truths = zip(*samples, strict=True)
    return list(images), list(truths)


# --- the order --------------------------------------------------------------------------------


def sample_index(seed: int, position: int, length: int) -> int:
    """Which of `length` pictures stands at `position`: every epoch is a shuffle of its own."""
    epoch, place = divmod(position, length)
    return int(_epoch_order(seed, epoch, length)[place])


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
        batches.append(places[:full].view(-1, size))  # (batches, size) places in the order
        ends.append(batches[-1][:, -1])
        rest.append(places[full:])
    by_end = torch.cat(batches)[torch.cat(ends).argsort()]
    places = torch.cat([torch.arange(begun), by_end.flatten(), torch.cat(rest).sort().values])
    return order[places]


# --- randomness from numbers ------------------------------------------------------------------


def generator_at(seed: int, position: int) -> Generator:
    """The generator of every random change at `position` of the run."""
    return Generator().manual_seed(_mixed(seed, position, stream=1))


@lru_cache(maxsize=4)  # neighbours in a run are of one epoch
def _epoch_order(seed: int, epoch: int, length: int) -> Tensor:
    generator = Generator().manual_seed(_mixed(seed, epoch, stream=0))
    return torch.randperm(length, generator=generator)


def _mixed(seed: int, number: int, stream: int) -> int:
    """One seed from three numbers; neighbours give unrelated generators."""
    state = np.random.SeedSequence([seed, number, stream]).generate_state(1, np.uint64)[0]
    return int(state >> np.uint64(1))  # torch takes 63 bits
