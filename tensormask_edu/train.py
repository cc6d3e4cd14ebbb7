"""Training as a page: samples in a seeded order, one step function, a schedule that knows its end.

The schedule runs on *progress*, the larger of steps done / steps and time spent / minutes allowed, so a
run ends with a learning rate of zero whichever limit comes first.

next: ops/swap_align2nat.py
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .checkpoint import load_weights, save_checkpoint
from .config import Recipe, TrainConfig
from .data.coco import CocoFolder, Target
from .data.transforms import TrainingSet, collate
from .errors import bad_input
from .files import make_folder, written_whole
from .model import TensorMask, build_model

Batch = tuple[list[Tensor], list[Target]]


class Diverged(RuntimeError):
    """The loss is no longer a number; the last checkpoint is from before that."""


def lr_at(progress: float, config: TrainConfig) -> float:
    """Learning rate at `progress` in [0, 1]: linear warm-up, then a cosine to zero."""
    if progress < config.warmup:
        return config.lr * progress / config.warmup
    return (
        config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - config.warmup) / (1 - config.warmup))))
    )


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW or SGD; no weight decay on biases and normalisation parameters (all of them vectors)."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9)
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


def batches(stream: TrainingSet, size: int, first_step: int, device: torch.device) -> Iterator[Batch]:
    """Endless batches. What is in batch s depends on (seed, s) alone, so a resumed run sees what the
    uninterrupted one would have seen."""
    position = first_step * size
    while True:
        images, targets = collate([stream[p] for p in range(position, position + size)])
        yield [image.to(device) for image in images], [to_device(target, device) for target in targets]
        position += size


def to_device(target: Target, device: torch.device) -> Target:
    """A target with its tensors on `device`."""
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in target.items()}


@dataclass
class Run:
    """What changes during training and must survive an interruption."""

    model: TensorMask
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0

    def save(self, output: Path, recipe: Recipe) -> None:
        """Write `output/checkpoint` (for use) and `output/resume.pt` (to go on training)."""
        save_checkpoint(output / "checkpoint", self.model, recipe.input)
        state = {"step": self.step, "seconds": self.seconds, "optimizer": self.optimizer.state_dict()}
        with written_whole(output / "resume.pt") as temporary:
            torch.save(state, temporary)

    def load(self, output: Path) -> None:
        """Continue from what `save` wrote."""
        path = output / "resume.pt"
        if not path.is_file():
            raise bad_input("resume", "an interrupted run in the output folder", output, "train without it")
        load_weights(self.model, output / "checkpoint" / "model.safetensors")
        state = torch.load(path, weights_only=True)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]

    def train_step(self, batch: Batch, config: TrainConfig, lr: float) -> dict[str, float]:
        """One update. Returns the losses as numbers."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with torch.autocast(batch[0][0].device.type, torch.bfloat16, config.precision == "bfloat16"):
            losses = self.model(*batch)
        total = sum(losses.values())
        if not torch.isfinite(total):
            images = [target["image_id"] for target in batch[1]]
            parts = {name: value.item() for name, value in losses.items()}
            raise Diverged(f"loss is not finite at step {self.step}: {parts}, images {images}; lower lr?")
        self.optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
        self.optimizer.step()
        self.step += 1
        return {"loss": total.item(), **{name: value.item() for name, value in losses.items()}}


def train(recipe: Recipe, folder: str | Path, output: str | Path, resume: bool = False) -> TensorMask:
    """Train on `folder`'s train split; write `output/checkpoint`, `output/log.jsonl`, `output/resume.pt`.

    The class names come from the data. Ctrl-C saves a usable checkpoint and returns.

    Raises:
        InputError: a folder that is no data set, or nothing to resume.
        Diverged: the loss became infinite or NaN; the last checkpoint stays.
    """
    output, config = Path(output), recipe.train
    dataset = CocoFolder(folder, "train", cache=True)
    torch.manual_seed(config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(replace(recipe.model, class_names=tuple(dataset.class_names)))
    model = model.to(device).to(memory_format=torch.channels_last).train()
    run = Run(model, build_optimizer(model, config))
    if resume:
        run.load(output)
    make_folder(output)
    with open(output / "log.jsonl", "a" if resume else "w", encoding="utf-8") as log:
        stream = TrainingSet(dataset, recipe.input, config.augment, config.seed)
        _loop(run, batches(stream, config.batch_size, run.step, device), recipe, output, log)
    return model.eval()


def _loop(run: Run, stream: Iterator[Batch], recipe: Recipe, output: Path, log: Any) -> None:
    config, since_log = recipe.train, []
    start = time.perf_counter() - run.seconds
    bar = tqdm(total=config.steps, initial=run.step, desc="train", unit="step", dynamic_ncols=True)
    try:
        while (progress := _progress(run, config)) < 1:
            lr = lr_at(progress, config)
            since_log.append(run.train_step(next(stream), config, lr))
            run.seconds = time.perf_counter() - start
            bar.update()
            if len(since_log) == config.log_every or _progress(run, config) >= 1:
                means = {k: sum(r[k] for r in since_log) / len(since_log) for k in since_log[0]}
                record = {"step": run.step, "seconds": run.seconds, "lr": lr, **means}
                log.write(json.dumps(record) + "\n")
                log.flush()
                bar.set_postfix(loss=f"{means['loss']:.3f}")
                since_log = []
            if run.step % config.save_every == 0:
                run.save(output, recipe)
    except KeyboardInterrupt:
        bar.write(f"stopped at step {run.step}; the checkpoint in {output} can be used or resumed")
    finally:
        bar.close()
    run.save(output, recipe)


def _progress(run: Run, config: TrainConfig) -> float:
    by_time = run.seconds / (60 * config.minutes) if config.minutes else 0.0
    return max(run.step / config.steps, by_time)
