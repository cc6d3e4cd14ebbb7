"""What eleven heads on one trunk cost beside two single heads: CPU seconds, scoring included.

    python benchmarks/trunk.py --pictures outputs/ablate \\
        --json benchmarks/results/trunk-cpu.json

Three models of the budget `lesson` are trained from fresh weights, a step of each in turn on
the same pictures, so that all see the same moments of a shared machine. Then each is scored on
the held-out pictures as `tensormask-edu ablate` does. One thread.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from measure import facts, script_parser, table
from torch import nn

from tensormask_edu.ablations.budget import Budget, budget
from tensormask_edu.ablations.runs import SHARED
from tensormask_edu.ablations.scoring import scores
from tensormask_edu.ablations.tables import HEADS
from tensormask_edu.ablations.trunk import SharedTrunk
from tensormask_edu.base.files import write_json
from tensormask_edu.base.progress import Progress
from tensormask_edu.config import TrainConfig
from tensormask_edu.data.coco import CocoFolder
from tensormask_edu.data.stream import TrainingSet, collate
from tensormask_edu.detector.model import TensorMask, build_model
from tensormask_edu.training.schedule import build_optimizer, lr_at

SINGLE = ("natural 3", "aligned 3")
Spent = dict[str, float]  # CPU seconds by model


@contextmanager
def counted(spent: Spent, name: str) -> Iterator[None]:
    """Adds the CPU seconds of the block."""
    began = time.process_time()
    yield
    spent[name] = spent.get(name, 0.0) + time.process_time() - began


def models(chosen: Budget) -> dict[str, TensorMask]:
    """The trunk with all heads, and two heads by themselves."""
    single = {name: build_model(chosen.model(HEADS[name])) for name in SINGLE}
    return {SHARED: SharedTrunk(chosen.model(HEADS["aligned 1"]), HEADS), **single}


def train_in_turn(chosen: Budget, trained: Mapping[str, TensorMask], folder: Path) -> Spent:
    """CPU seconds of all steps of each model."""
    spent: Spent = {}
    recipe = chosen.recipe(trained[SHARED].config, seed=0)
    data = CocoFolder(folder, "train", cache=True)
    stream = TrainingSet(data, recipe.input, recipe.train.augment, recipe.train.seed)
    steppers = {name: stepper(model, recipe.train) for name, model in trained.items()}
    size = chosen.batch_size
    for number in Progress(range(chosen.steps), desc="training", unit="step"):
        for name, step in steppers.items():
            with counted(spent, name):
                step(number, [stream[size * number + k] for k in range(size)])
    return spent


def stepper(model: TensorMask, config: TrainConfig) -> Callable[[int, list[Any]], None]:
    """A function that does one step of the training."""
    model.train().to(memory_format=torch.channels_last)
    optimizer = build_optimizer(model, config)

    def step(number: int, samples: list[Any]) -> None:
        for group in optimizer.param_groups:
            group["lr"] = lr_at(number / config.steps, config)
        images, truths = collate(samples)
        loss = torch.stack(list(model(images, truths).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm or math.inf)
        optimizer.step()

    return step


def main() -> None:
    """Train, score, print the table, write it."""
    parser = script_parser(__doc__)
    parser.add_argument("--pictures", type=Path, required=True, help="drawn here if missing")
    parser.add_argument("--steps", type=int, help="of each model (default: the budget's)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    chosen = budget("lesson", args.steps)
    folder = chosen.write_pictures(args.pictures)
    trained, held_out = models(chosen), chosen.held_out(folder)
    training, scoring = train_in_turn(chosen, trained, folder), {}
    for name, model in trained.items():
        with counted(scoring, name):
            scores(model.eval(), name, held_out, chosen.areas, progress=False)
    rows = [
        {
            "model": name,
            "steps s": training[name],
            "scoring s": scoring[name],
            "sum s": training[name] + scoring[name],
        }
        for name in trained
    ]
    ratios = {}
    for column in ("steps s", "scoring s", "sum s"):
        trunk, *single = (row[column] for row in rows)
        ratios[column] = trunk / sum(single)
    print(table([*rows, {"model": "trunk to both", **ratios}]))
    if args.json:
        made = {"steps": chosen.steps, "pictures": len(held_out), "machine": facts()}
        write_json(args.json, made | {"rows": rows, "ratios": ratios})


if __name__ == "__main__":
    main()
