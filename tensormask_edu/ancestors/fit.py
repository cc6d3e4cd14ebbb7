"""What a detector of this room can do, and the loop that trains it.

Three methods make a detector comparable: its losses, what it proposes in a picture, and the
masks it draws, and at best could draw, where the objects are given. A run is short: it keeps
no state to go on from, and repeats bit for bit with the same seed and number of threads.

next: ancestors/pyramid.py
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Generator, Tensor, nn

from ..base.errors import require
from ..base.progress import Progress
from ..config import AugmentConfig, InputConfig, TrainConfig
from ..data.coco import CocoFolder
from ..data.stream import TrainingSet
from ..data.truth import Truth
from ..training.schedule import build_optimizer, lr_at

Sample = tuple[Tensor, Truth]  # float32 (3, h, w) in [0, 1], and what is in it

# The symmetries of the square and the order of colours, as the recipe for shapes has them
AUGMENT = AugmentConfig(flip=True, flip_vertical=True, transpose=True, shuffle_channels=1.0)

FILE_SIZE = InputConfig()  # pictures enter as their files are


class Proposals(NamedTuple):
    """What is found in one picture of H x W pixels, best first.

    boxes: (D, 4) float32 xyxy px. scores: (D,) float32, descending. labels: (D,) int64.
    masks: (D, H, W) bool.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor

    def pick(self, rows: Tensor) -> Proposals:
        """Some of them: positions in ascending order, or bool (D,)."""
        return Proposals(*(field[rows] for field in self))


class Drawn(NamedTuple):
    """Masks at the objects' own places, so that no search and no score is in them.

    instance: (P,) whose mask it is. masks: (P, H, W) bool, as the detector draws it.
    reachable: (P, H, W) bool, its target drawn the same way, the most its grid can say.
    """

    instance: Tensor
    masks: Tensor
    reachable: Tensor


class Detector(nn.Module, ABC):
    """One interface for DeepMask, SharpMask, InstanceFCN, Mask R-CNN and TensorMask."""

    @abstractmethod
    def losses(self, samples: Sequence[Sample], generator: Generator) -> dict[str, Tensor]:
        """The scalars whose sum is minimised, of a batch; what is random is `generator`'s."""

    @abstractmethod
    def propose(self, image: Tensor, count: int) -> Proposals:
        """At most `count` objects of a picture (3, H, W) in [0, 1], duplicates among them."""

    @abstractmethod
    def at_truth(self, image: Tensor, truth: Truth) -> Drawn:
        """The masks of a picture's objects, their places given."""


Trained = TypeVar("Trained", bound=Detector)


def fit(
    build: Callable[[], Trained],
    dataset: CocoFolder,
    config: TrainConfig,
    input_config: InputConfig = FILE_SIZE,
    progress: bool = True,
) -> Trained:
    """What `build` makes, trained for `config.steps` batches of `dataset`, in evaluation mode.

    It follows `config` in steps, batch_size, the optimizer and its learning rate, clip_norm,
    augment and seed.

    Raises:
        InputError: no picture with an object.
        FloatingPointError: the loss is infinite or NaN.
    """
    require(
        config.minutes is None, "minutes", "None: a budget here is in steps", config.minutes
    )
    torch.manual_seed(config.seed)  # of the weights
    model = build()
    stream = TrainingSet(dataset, input_config, config.augment, config.seed)
    # channels_last: the order of memory in which convolutions are quickest
    model.to(memory_format=torch.channels_last)
    optimizer = build_optimizer(model, config)
    generator = Generator().manual_seed(config.seed)
    model.train()
    bar = Progress(range(config.steps), desc="train", unit="step", disable=not progress)
    for step in bar:
        first = step * config.batch_size
        samples = [stream[position] for position in range(first, first + config.batch_size)]
        losses = model.losses(samples, generator)
        total = torch.stack(list(losses.values())).sum()
        if not math.isfinite(total.item()):
            raise FloatingPointError(f"the loss at step {step} is {losses}; lower lr?")
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step / config.steps, config)
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm or math.inf)
        optimizer.step()
        if step % config.log_every == 0:
            bar.set_postfix(loss=f"{total.item():.3f}")
    return model.eval()
