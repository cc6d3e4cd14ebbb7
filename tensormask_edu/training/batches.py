"""Batches with all a step needs: pictures, labels, deltas, and the masks drawn once per
positive window.

Targets depend on boxes and the grid, not on what the network says. So they are made here, ahead
of the step and in processes of their own where there are cores to spare; the step finds them
ready.

next: journal.py
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..base import distributed
from ..base.errors import bad_input
from ..config import ModelConfig
from ..data.stream import TrainingSet, collate
from ..detector.targets import Targets, build_targets

GPU_WORKERS = (
    4  # a GPU waits for one: a picture of COCO takes longer to read than to learn from
)


@dataclass(frozen=True)
class Batch:
    """Images float32 (3, h, w) in [0, 1], the targets of them all, and which pictures they
    are."""

    images: list[Tensor]
    targets: Targets
    image_ids: list[int]

    def each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same batch with every tensor changed."""
        return Batch(
            [change(image) for image in self.images], self.targets.each(change), self.image_ids
        )

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return self.each(lambda tensor: tensor.to(device, non_blocking=True))

    def as_dict(self) -> dict[str, Any]:
        """As tensors, numbers, lists and dicts, which are read back without running code."""
        targets = vars(self.targets) | {
            "masks": [masks._asdict() for masks in self.targets.masks]
        }
        return {"images": self.images, "targets": targets, "image_ids": self.image_ids}

    def pin_memory(self) -> Batch:
        """The batch in memory from which a GPU copies while the CPU does something else."""
        return self.each(Tensor.pin_memory)


class Batches(Dataset[list[Batch]]):
    """`batches[step]` is the share that this process has of a step, in `accumulate` parts.

    What is in it depends on (seed, step) alone: a resumed run sees what the uninterrupted one
    would have seen, and so do several processes, together.
    """

    def __init__(
        self, stream: TrainingSet, model: ModelConfig, batch_size: int, accumulate: int = 1
    ) -> None:
        self.rank, self.processes = distributed.rank(), distributed.count()
        if batch_size % (self.processes * accumulate):
            parts = f"{self.processes} processes" + f" times {accumulate} parts" * (
                accumulate > 1
            )
            raise bad_input("batch_size", f"a multiple of the {parts}", batch_size)
        self.stream, self.model = stream, model
        self.batch_size, self.size = batch_size, batch_size // (self.processes * accumulate)

    def __getitem__(self, step: int) -> list[Batch]:
        begin = step * self.batch_size
        firsts = range(begin, begin + self.batch_size, self.size)
        return [self.part(first) for first in firsts[self.rank :: self.processes]]

    def part(self, first: int) -> Batch:
        """The samples from a position on, with their targets."""
        images, targets = collate(
            [self.stream[position] for position in range(first, first + self.size)]
        )
        geometry = self.model.geometry
        padded_px = geometry.padded_px([(image.shape[-2], image.shape[-1]) for image in images])
        grid_sizes = geometry.grid_sizes(*padded_px)
        ready = build_targets(targets, geometry.windows(grid_sizes), grid_sizes, self.model)
        return Batch(images, ready, [target["image_id"] for target in targets])


def load(
    batches: Batches, steps: range, workers: int | None, device: torch.device
) -> DataLoader[list[Batch]]:
    """The batches of `steps` in order, prepared by `workers` processes ahead of time, or here
    if 0."""
    on_gpu = device.type == "cuda"
    if workers is None:
        workers = GPU_WORKERS if on_gpu else 0
    return DataLoader(
        batches,
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        pin_memory=on_gpu,
        worker_init_fn=_ignore_interrupts,
    )


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the training process decides what it
    means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
