"""Batches with all a step needs: pictures, labels, deltas, and the positive windows' masks.

Targets depend on boxes and the grid, not on what the network says. So they are made here, ahead
of the step and in processes of their own where there are cores to spare; the step finds them
ready.

next: training/train.py
"""

from __future__ import annotations

import math
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..base import distributed
from ..base.errors import InputError, bad_input
from ..base.machine import allow_open_files, free_memory, whole_memory
from ..base.memory import room_for
from ..base.signals import SIGNALS
from ..config import ModelConfig, Recipe, TrainConfig
from ..data.coco import CocoFolder
from ..data.stream import TrainingSet, collate
from ..detector.targets import Targets, build_targets
from ..geometry import sizes_px

# A GPU would wait for a single worker: a picture of COCO takes longer to read than to learn
# from.
GPU_WORKERS = 4

# Of the memory that is free when a run begins, for decoded pictures
CACHED_SHARE = 1 / 4

# A worker hands each tensor over as an open file. Beside the pictures of a batch there are at
# most so many tensors, and beside the batches so many files.
TENSORS, FILES = 40, 64
SHARED = Path("/dev/shm")
# What a worker leaves that ends while it hands a batch over
CUT_SHORT = (ConnectionError, EOFError)
LOOKS = 100  # twenty a second, until such a worker's end is known
PATIENCE_S = 900.0  # for a batch: a worker that takes longer will never send one


@dataclass(frozen=True)
class Batch:
    """Images float32 (3, h, w) in [0, 1], the targets of them all, which pictures they are."""

    images: list[Tensor]
    targets: Targets
    image_ids: list[int]

    def each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same batch with every tensor changed."""
        images = [change(image) for image in self.images]
        return Batch(images, self.targets.each(change), self.image_ids)

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return self.each(lambda tensor: tensor.to(device, non_blocking=True))

    def as_dict(self) -> dict[str, Any]:
        """As tensors, numbers, lists and dicts, which are read back without running code."""
        masks = [group._asdict() for group in self.targets.masks]
        targets = vars(self.targets) | {"masks": masks}
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
            parts = f"{self.processes} processes"
            if accumulate > 1:
                parts += f" times {accumulate} parts"
            raise bad_input("batch_size", f"a multiple of the {parts}", batch_size)
        self.stream, self.model = stream, model
        self.batch_size, self.size = batch_size, batch_size // (self.processes * accumulate)

    def __getitem__(self, step: int) -> list[Batch]:
        begin = step * self.batch_size
        firsts = range(begin, begin + self.batch_size, self.size)
        return [self.part(first) for first in firsts[self.rank :: self.processes]]

    def part(self, first: int) -> Batch:
        """The samples from a position on, with their targets."""
        positions = range(first, first + self.size)
        images, truths = collate([self.stream[position] for position in positions])
        layout = self.model.geometry.layout(sizes_px(images))
        targets = build_targets(truths, layout, self.model)
        return Batch(images, targets, [truth["image_id"] for truth in truths])


def batches_of(dataset: CocoFolder, recipe: Recipe) -> Batches:
    """The batches of a run."""
    config = recipe.train
    group_size = config.batch_size if config.group_by_aspect else None
    order = (config.augment, config.seed, group_size, config.bad_pictures == "skip")
    stream = TrainingSet(dataset, recipe.input, *order)
    return Batches(stream, recipe.model, config.batch_size, config.accumulate)


def cache_bytes(config: TrainConfig) -> int:
    """How much of the pictures a process may keep in memory; each worker keeps its own."""
    total = 0.0
    if config.cache_mb is not None:
        total = config.cache_mb * 1e6
    elif config.cache:
        total = free_memory() * CACHED_SHARE
    processes = distributed.count() * max(1, _workers(config.workers))
    return int(total / processes)


def _workers(asked: int | None) -> int:
    return (GPU_WORKERS if torch.cuda.is_available() else 0) if asked is None else asked


class _Tried(Dataset[list[Batch] | InputError]):
    """Batches, or why there is none: raised in a worker, the reason would get a traceback."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __getitem__(self, step: int) -> list[Batch] | InputError:
        try:
            return self.batches[step]
        except InputError as error:
            return error


def load(
    batches: Batches, steps: range, workers: int | None, device: torch.device
) -> Iterator[list[Batch]]:
    """The batches of `steps` in order, prepared ahead by `workers` processes, or here if 0.

    Raises:
        InputError: a picture that cannot be read, a machine without room for workers.
    """
    on_gpu, workers = device.type == "cuda", _workers(workers)
    _check_memory(batches)
    if workers:
        _check_open_files(workers, batches.batch_size)
        _check_shared_memory(workers, batches)
    loader = DataLoader(
        _Tried(batches),
        batch_size=None,  # what `batches` holds are whole batches
        sampler=steps,
        num_workers=workers,
        pin_memory=on_gpu,
        worker_init_fn=_ignore_interrupts,
        timeout=PATIENCE_S if workers else 0,
    )
    with workers_alive():
        for batch in _deaths_told_here(loader):
            if isinstance(batch, InputError):
                raise batch
            yield batch


@contextmanager
def workers_alive() -> Iterator[None]:
    """One clear error for a worker that died or hangs."""
    try:
        yield
    except (RuntimeError, *CUT_SHORT) as error:
        of_worker = re.match(r"DataLoader (worker \(pid|timed out)", str(error))
        if isinstance(error, RuntimeError) and not of_worker:
            raise
        fix = "more memory or /dev/shm, fewer --workers, or --workers 0"
        got = str(error).splitlines()[0] if of_worker else "one that ended in mid-sentence"
        raise bad_input("workers", "processes that live", got, fix) from None


def _check_memory(batches: Batches) -> None:
    """Raise InputError where the pixels of one step alone would fill the memory.

    Such a step would be gathered for hours before its process is killed.
    """
    picture = 4 * math.prod(batches.stream.sample_shape())  # bytes
    # What is free says too little: the files that Linux keeps in memory make room
    most = whole_memory() / picture * batches.processes
    if batches.batch_size > most:
        expected = f"at most {int(most)}, which fit in memory"
        raise bad_input("batch_size", expected, batches.batch_size, "choose fewer pictures")


def _check_shared_memory(workers: int, batches: Batches) -> None:
    """Raise InputError where the batches that are under way do not fit into shared memory.

    A container has 64 MB of it, unless told otherwise; who writes beyond it is killed.
    """
    if sys.platform != "linux":
        return
    needed = 4 * batches.size * (workers + 1) * math.prod(batches.stream.sample_shape())
    room = shutil.disk_usage(SHARED).free if SHARED.is_dir() else 0
    if room < needed:
        fix = "docker run --shm-size 2g, fewer --workers, or --workers 0"
        expected = f"{needed / 1e6:.0f} MB of shared memory in {SHARED}"
        raise bad_input("workers", expected, f"{room / 1e6:.0f} MB", fix)


def _deaths_told_here(loader: DataLoader[Any]) -> Iterator[Any]:
    """What a loader gives; that a worker died is told where a batch is waited for.

    PyTorch tells it at once, which may be in the middle of an update of the weights: they could
    not be saved then.
    """
    batches = iter(loader)  # starts the workers, and watches them from now on
    told: Any = signal.getsignal(signal.SIGCHLD) if loader.num_workers else None
    if not callable(told) or threading.current_thread() is not threading.main_thread():
        yield from batches
        return
    waits, deaths = True, 0

    def note(number: int, frame: Any) -> None:
        nonlocal deaths
        deaths += 1
        if waits:
            told(number, frame)

    signal.signal(signal.SIGCHLD, note)
    try:
        while True:
            waits = True
            if deaths:
                told(signal.SIGCHLD, None)
            try:
                batch = next(batches)
            except StopIteration:
                return
            except CUT_SHORT:
                # Its end is not known yet: told later, it would break off the save
                for _ in range(LOOKS):
                    told(signal.SIGCHLD, None)
                    time.sleep(0.05)
                raise
            waits = False
            yield batch
    finally:
        signal.signal(signal.SIGCHLD, told)


def memory_for(
    parts: list[Batch], save: Callable[[], object] | None
) -> AbstractContextManager[None]:
    """For a step's work: where memory runs out, the batch is named, and what makes it smaller.

    save: what was learnt, before the error is raised.
    """
    images = [image for part in parts for image in part.images]
    height, width = map(max, zip(*(image.shape[-2:] for image in images), strict=True))
    work = f"a step of {len(images)} pictures of up to {height} x {width} px"
    work += f" in {len(parts)} parts" if len(parts) > 1 else ""
    fix = "smaller pictures need less"
    if len(images) > len(parts):
        parts_of_it = f"--accumulate {2 * len(parts)}: the same step in smaller parts"
        fix = f"{parts_of_it}, also with --resume; or a smaller --batch-size"
    return room_for(work, fix, save)


def _check_open_files(workers: int, batch_size: int) -> None:
    """Raise InputError where workers could not send their batches, and all would wait."""
    needed = FILES + (2 * workers + 1) * (TENSORS + batch_size)  # two batches of each wait
    if (allowed := allow_open_files(needed)) < needed:
        fix = "raise `ulimit -n`, take fewer --workers, or --workers 0"
        raise bad_input("workers", f"a machine that allows {needed} open files", allowed, fix)


def _ignore_interrupts(worker: int) -> None:
    """Signals reach every process of a terminal or a job; the training process answers."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
