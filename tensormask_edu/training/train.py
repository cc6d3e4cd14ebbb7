"""Training as a page: batches in a seeded order, one step, a schedule that knows its end.

The schedule runs on *progress*, the larger of steps done / steps and time spent / minutes
allowed, so a run ends with its last learning rate whichever limit comes first. Under torchrun
each process takes its part of a batch, gradients are averaged, and the first one writes.

next: training/journal.py
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..base import distributed, signals
from ..base.progress import Progress
from ..base.threads import Threads
from ..config import ModelConfig, Recipe, TrainConfig
from ..data.coco import CocoFolder
from ..data.layouts import Data
from ..detector.model import TensorMask, build_model
from ..weights.checkpoint import build_from, save_checkpoint
from . import journal
from .batches import Batch, batches_of, cache_bytes, load, memory_for
from .schedule import build_optimizer, lr_at, precision_on

KEPT = ("model", "optimizer", "scaler")  # what has a state of its own


class Diverged(RuntimeError):
    """The loss is no longer a number; the last checkpoint is from before that."""


@dataclass
class Run:
    """What changes during training and must survive an interruption, and the step itself."""

    model: TensorMask
    config: TrainConfig
    output: Path
    data: str = ""  # the fingerprint of what it learns
    step: int = 0
    seconds: float = 0.0
    recent: list[dict[str, float]] = field(default_factory=list)  # losses not yet in the log
    interrupted: bool = False  # this process, by Ctrl-C or another signal
    stop: bool = False  # all processes, after the step at hand: one of them was interrupted

    def __post_init__(self) -> None:
        self.device = self.model.pixel_mean.device
        self.optimizer = build_optimizer(self.model, self.config)
        self.precision = precision_on(self.device, self.config)
        scaled = self.precision == "float16"  # whose small gradients would be zero on their way
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=scaled)
        self.network: nn.Module = self.model
        if distributed.count() > 1:
            devices = [self.device] if self.device.type == "cuda" else None
            self.network = DistributedDataParallel(self.model, devices)

    @property
    def progress(self) -> float:
        by_time = self.seconds / (60 * self.config.minutes) if self.config.minutes else 0.0
        return max(self.step / self.config.steps, by_time)

    def state(self) -> dict[str, Any]:
        """For `load_state`, as plain values and tensors."""
        parts = {name: getattr(self, name).state_dict() for name in KEPT}
        kept = {name: getattr(self, name) for name in ("step", "seconds", "recent", "data")}
        return parts | kept | {"steps": self.config.steps}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        journal.restore({name: getattr(self, name) for name in KEPT}, state, self.output)
        self.step, self.seconds, self.recent = state["step"], state["seconds"], state["recent"]

    def interrupt(self) -> None:
        """Note a signal."""
        self.interrupted = True

    def train_step(self, parts: list[Batch], lr: float, began: float) -> None:
        """One update. Processes agree on losses, on the time since `began`, whether to stop."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        losses = [self.backward(part, last=part is parts[-1]) for part in parts]
        means = {
            name: torch.stack([of_part[name] for of_part in losses]).mean()
            for name in losses[0]
        }
        self.scaler.unscale_(self.optimizer)
        limit = self.config.clip_norm or math.inf  # the norm is wanted even where none is set
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        local = [*means.values(), norm, time.perf_counter() - began, self.interrupted]
        agreed = distributed.mean(  # one message for all of them
            torch.stack([torch.as_tensor(v).double().to(self.device) for v in local])
        )
        *values, gradient_norm, self.seconds, stop = agreed.tolist()  # here a GPU is waited for
        record = dict(zip(means, values, strict=True))
        self.check(record, gradient_norm, parts)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step, self.stop = self.step + 1, stop > 0
        self.recent.append(record)

    def backward(self, part: Batch, last: bool) -> dict[str, Tensor]:
        """Add a part's gradients; with the last one, processes average theirs."""
        dtype, half = getattr(torch, self.precision), self.precision != "float32"
        no_sync = getattr(self.network, "no_sync", nullcontext)  # DistributedDataParallel's
        averaged = nullcontext if last else no_sync
        with averaged():
            with torch.autocast(self.device.type, dtype, enabled=half):
                losses = self.network(part.images, part.targets)
            total = sum(losses.values())
            self.scaler.scale(total / self.config.accumulate).backward()
        return {name: value.detach() for name, value in ({"loss": total} | losses).items()}

    def check(self, record: dict[str, float], gradient_norm: float, parts: list[Batch]) -> None:
        """Stop before weights change for the worse."""
        # Float16 gradients may overflow: the scaler skips such steps.
        gradient_is_fine = math.isfinite(gradient_norm) or self.scaler.is_enabled()
        if math.isfinite(sum(record.values())) and gradient_is_fine:
            return
        path = self.output / f"not_finite_{distributed.rank()}.pt"
        batch = [part.as_dict() for part in parts]
        journal.store(path, {"step": self.step, "losses": record, "batch": batch})
        images = [image_id for part in parts for image_id in part.image_ids]
        raise Diverged(
            f"loss is not finite at step {self.step}: {record}, gradient norm {gradient_norm}, "
            f"images {images}; the batch is in {path}, the last checkpoint as it was; lower lr?"
        )

    def log(self, lr: float) -> dict[str, float]:
        """Write the means since the last line; returns the line."""
        means = {k: sum(r[k] for r in self.recent) / len(self.recent) for k in self.recent[0]}
        line = {"step": self.step, "seconds": self.seconds, "lr": lr, **means}
        if distributed.rank() == 0:
            journal.append_log(self.output, line)
        self.recent = []
        return line

    def save(self, recipe: Recipe) -> None:
        """Write `output/checkpoint` (for use) and `output/resume.pt` (to go on training)."""
        journal.write_state(self.output, self.state(), recipe)
        save_checkpoint(self.output / "checkpoint", self.model, recipe.input)


def train(
    recipe: Recipe,
    data: Data,
    output: str | Path,
    resume: bool = False,
    weights: str | Path | None = None,
    overwrite: bool = False,
    build: Callable[[ModelConfig], TensorMask] = build_model,
    split: str = "train",
) -> TensorMask:
    """Train on a split of a data set; `output` gets checkpoint, log.jsonl and resume.pt.

    The classes are the data's. Ctrl-C, SIGTERM and SIGHUP end it with a checkpoint. The model
    is `build`'s or starts from `weights`. A run in `output` goes on or is replaced, if asked.

    Raises:
        InputError: no data set, a run in `output` and neither of the two, nothing to resume,
            a full disk; a broken picture, after a save.
        Diverged: the loss is not finite; the batch is saved, the last checkpoint stays.
    """
    output, config = Path(output), recipe.train
    journal.check_place(output, weights, resume, overwrite)
    dataset = CocoFolder(data, split, False, cache_bytes(config), config.polygons)
    recipe = replace(recipe, model=dataset.named(recipe.model))
    with distributed.processes() as device:
        torch.manual_seed(config.seed)
        model = build_from(weights, recipe.model) if weights else build(recipe.model)
        # channels_last: the order of memory in which convolutions are quickest
        model = model.to(device).to(memory_format=torch.channels_last).train()
        recipe = replace(recipe, model=model.config)  # that of `weights`, where given
        batches = batches_of(dataset, recipe)
        run = Run(model, config, output, dataset.ground_truth.fingerprint())
        if resume:
            run.load_state(journal.read_state(output, recipe, run.data))
        with journal.alone(output, run.step if resume else None):
            steps = range(run.step, config.steps)
            _loop(run, load(batches, steps, config.workers, device), recipe)
    return model.eval()


def _loop(run: Run, batches: Iterator[list[Batch]], recipe: Recipe) -> None:
    """Step after step, until the schedule ends or a signal stops it; then a save."""
    config, began = run.config, time.perf_counter() - run.seconds
    quiet, save = distributed.rank() > 0, partial(run.save, recipe)
    bar = Progress(None, "train", config.steps, initial=run.step, unit="step", disable=quiet)
    threads = Threads(distributed.threads(config.threads, run.device), bar.write)
    if config.precision != run.precision != "float32":
        bar.write(f"in {run.precision}, quicker here; --precision float32 turns it off")
    with bar, signals.interrupts(run.interrupt):
        for batch in journal.kept(batches, save):
            if run.stop or (progress := run.progress) >= 1:
                break
            lr = lr_at(progress, config)
            with threads.timed(), memory_for(batch, save if run.step else None):
                run.train_step([part.to(run.device) for part in batch], lr, began)
            bar.update()
            if run.step % config.log_every == 0 or run.progress >= 1:
                bar.set_postfix(loss=f"{run.log(lr)['loss']:.3f}")
            if run.step % config.save_every == 0 and not quiet:
                run.save(recipe)
        if not quiet:
            run.save(recipe)
        distributed.wait()  # for the first process to have written it
        if run.stop and not quiet:
            journal.tell(bar, f"stopped at step {run.step}; --resume goes on from it")
