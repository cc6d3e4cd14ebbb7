"""The paper's tables in miniature: train what is missing, then print, draw and store.

next: commands/models.py
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from .. import viz
from ..ablations import summary
from ..ablations.budget import Budget, budget
from ..ablations.runs import needed, perform_all
from ..ablations.tables import Table, chosen
from ..base.errors import require
from ..config import SEEDS


def run(args: argparse.Namespace) -> int:
    """Print the tables; their figures and pictures are in the output folder."""
    tables = chosen(list(dict.fromkeys(args.tables)))
    share = None if args.form is None else args.form == "shared"
    spent, seeds = budget(args.budget, args.steps, share), list(dict.fromkeys(args.seeds))
    require(spent.steps >= 1, "steps", "at least 1", spent.steps)
    allowed = min(seeds) >= 0 and max(seeds) < SEEDS
    require(allowed, "seeds", f"from 0 to {SEEDS - 1}", seeds)
    require(args.jobs is None or args.jobs >= 1, "jobs", "at least 1", args.jobs)
    place = ablate(tables, spent, seeds, Path(args.output), args.jobs or _jobs())
    print(f"{place}: tables.json, tables.csv and a picture per table")
    return 0


def ablate(
    tables: list[Table], spent: Budget, seeds: list[int], output: Path, jobs: int = 1
) -> Path:
    """Do what the tables need, then write and print them; returns the folder.

    Raises:
        InputError: a place that cannot be written.
        runs.Stopped: by Ctrl-C; the same call goes on.
    """
    pictures = spent.write_pictures(output)
    runs = needed(tables, spent, seeds, output)
    left = sum(not run.done for run in runs)
    print(f"{len(runs)} runs of {spent.steps} steps, {left} of them to do", flush=True)
    perform_all(runs, pictures, min(jobs, max(1, left)))
    found = summary.summarise(tables, spent, seeds, output)
    place = output / f"{spent.name}-{spent.steps}"
    summary.write(found, place)
    for name, table in found["tables"].items():
        viz.save(viz.ablation(name, table), place / f"table-{name}.png")
    print(summary.to_text(found))
    return place


def _jobs() -> int:
    """One per core; one alone where a GPU does the work."""
    return 1 if torch.cuda.is_available() else len(os.sched_getaffinity(0))
