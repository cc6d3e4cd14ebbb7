"""The trainings that tables need: each done once, its figures stored, several at a time.

What is done is read, what was stopped goes on. Beside the figures stand CPU seconds. Another
detector than TensorMask takes part by a function of its own in `DETECTORS`.

next: ablations/coverage.py
"""

from __future__ import annotations

import multiprocessing
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..ancestors.tables import TABLES as ANCESTORS
from ..ancestors.tables import row
from ..base.files import make_folder, read_json, write_json
from ..base.machine import machine
from ..base.progress import Progress
from ..detector.model import build_model
from ..training.journal import STATE, read_log
from ..training.train import train
from .budget import Budget
from .scoring import Scores, scores
from .tables import HEADS, MODELS, Table
from .trunk import SharedTrunk

SHARED = "heads on one trunk"  # the name of that run, beside those of `MODELS`
FIGURES, SPENT = "figures.json", "cpu_seconds.json"
QUIET = "TQDM_DISABLE"  # read by the progress bars of a new process


@dataclass(frozen=True)
class Run:
    """One training: a model of `MODELS`, or all heads on one trunk; its place."""

    name: str
    seed: int
    budget: Budget
    output: Path

    @property
    def folder(self) -> Path:
        words = re.sub(r"[^a-z0-9.]+", "-", self.name.lower())
        return self.output / f"{self.budget.name}-{self.budget.steps}" / f"{words}-{self.seed}"

    @property
    def done(self) -> bool:
        return (self.folder / FIGURES).is_file()

    def figures(self) -> dict[str, Any]:
        """What `perform` stored: rows with their scores, seconds, machine."""
        stored: dict[str, Any] = read_json(self.folder / FIGURES)
        return stored


@dataclass(frozen=True)
class Outcome:
    """What a run gave: scores by row, the number of parameters, CPU seconds by part."""

    rows: dict[str, Scores]
    parameters: int
    cpu_seconds: dict[str, float]


def ancestor(table: str, run: Run, pictures: Path) -> Outcome:
    """A row of `ancestors/tables.py`: IoU at given places, scores of proposals less doubles."""
    areas = run.budget.areas
    found = row(table, run.name, pictures, run.seed, run.budget.steps, area_ranges=areas)
    scored = {"IoU": found["mask_iou"], **found["nms"]}
    seconds = {"training": found["cpu_seconds"]}
    return Outcome({run.name: scored}, found["parameters"], seconds)


# How other detectors are trained and scored, by the name of their row. A function gets the run
# and the folder of pictures.
DETECTORS: dict[str, Callable[[Run, Path], Outcome]] = {
    name: partial(ancestor, table) for table in ANCESTORS for name in ANCESTORS[table]
}


class Stopped(KeyboardInterrupt):
    """A training was interrupted; it goes on when it is asked for again."""


def needed(
    tables: Sequence[Table], budget: Budget, seeds: Sequence[int], output: Path
) -> list[Run]:
    """The runs of these tables, each once; a seed is complete before the next begins."""
    names: list[str] = []
    for table in tables:
        names += [SHARED] if budget.share and table.shared else table.rows
    return [Run(name, seed, budget, output) for seed in seeds for name in dict.fromkeys(names)]


def perform_all(runs: Sequence[Run], pictures: Path, jobs: int) -> None:
    """Do what is not done yet, `jobs` runs at a time, one thread each.

    Raises:
        Stopped: by Ctrl-C; what was done stays.
    """
    missing = [run for run in runs if not run.done]
    bar = Progress(total=len(runs), initial=len(runs) - len(missing), desc="runs", unit="run")
    with bar:
        for _ in _performed(missing, pictures, jobs):
            bar.update()


def _performed(runs: Sequence[Run], pictures: Path, jobs: int) -> Iterator[None]:
    """Nothing, as often as a run is done."""
    if jobs == 1 or len(runs) <= 1:
        for run in runs:
            perform(run, pictures)
            yield
        return
    # A fresh process each: a forked one would share the threads and locks of this one.
    start = multiprocessing.get_context("spawn")
    with _quiet(), ProcessPoolExecutor(jobs, mp_context=start, max_tasks_per_child=1) as pool:
        for future in as_completed([pool.submit(perform, run, pictures) for run in runs]):
            yield future.result()


@contextmanager
def _quiet() -> Iterator[None]:
    """Within the block new processes show no progress bars, which overwrite each other."""
    before = os.environ.get(QUIET)
    os.environ[QUIET] = "1"
    try:
        yield
    finally:
        os.environ.pop(QUIET)
        if before is not None:
            os.environ[QUIET] = before


def perform(run: Run, pictures: Path) -> None:
    """Train, or go on, and score; then `figures.json` is there."""
    torch.set_num_threads(1)
    make_folder(run.folder)
    outcome = DETECTORS.get(run.name, tensormask)(run, pictures)
    made = {"seed": run.seed, "steps": run.budget.steps, "machine": machine()}
    write_json(run.folder / FIGURES, made | asdict(outcome))


def tensormask(run: Run, pictures: Path) -> Outcome:
    """A TensorMask of `MODELS`, or all heads on one trunk."""
    shared = run.name == SHARED
    config = run.budget.model(HEADS["aligned 1"] if shared else MODELS[run.name])
    recipe = run.budget.recipe(config, run.seed)
    build = partial(SharedTrunk, heads=HEADS) if shared else build_model
    resume = (run.folder / STATE).is_file()
    with spent(run.folder / SPENT):
        model = train(
            recipe, pictures, run.folder, resume=resume, overwrite=not resume, build=build
        )
    if max((line["step"] for line in read_log(run.folder)), default=0) < run.budget.steps:
        raise Stopped
    began = time.process_time()
    rows = scores(model.eval(), run.name, run.budget.held_out(pictures), run.budget.areas)
    seconds = {
        "training": read_json(run.folder / SPENT),
        "scoring": time.process_time() - began,
    }
    return Outcome(rows, sum(parameter.numel() for parameter in model.parameters()), seconds)


@contextmanager
def spent(path: Path) -> Iterator[None]:
    """Add the CPU seconds of the block, all threads together, to the number in a file."""
    before, began = read_json(path) if path.is_file() else 0.0, time.process_time()
    try:
        yield
    finally:
        write_json(path, before + time.process_time() - began)
