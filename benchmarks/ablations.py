"""Keep what `tensormask-edu ablate` found, and say whether what should hold does.

    tensormask-edu ablate 1 2a 2b --budget lesson --seeds 0 1 2 --output outputs/ablations
    tensormask-edu ablate 1 2a 2b 2c 2d --budget laptop --seeds 0 1 2 --output outputs/ablations
    python benchmarks/ablations.py outputs/ablations/lesson-700
    python benchmarks/ablations.py outputs/ablations/laptop-1200

The second form trains every model by itself, 48 runs; after Ctrl-C the same command goes on.
This script copies the tables and their pictures into `benchmarks/results/ablations/NAME/`, and,
where heads were trained separately, the three of the lesson about upscaling as float16
checkpoints. A new folder's `tables.json` gets a line in `pyproject.toml`, so that lesson 10
finds it in an installation too. Exit code 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from measure import RESULTS

from tensormask_edu.ablations.budget import budget
from tensormask_edu.ablations.runs import Run
from tensormask_edu.base.files import make_folder, read_json
from tensormask_edu.base.tables import text_table
from tensormask_edu.config import InputConfig
from tensormask_edu.weights.checkpoint import load_checkpoint, save_checkpoint

KEPT_MODELS = ("natural 5", "nearest 5", "aligned 5")
SHARE_OF_TWO = 1.3  # CPU seconds of eleven heads on a trunk, in those of two single heads

Bar = tuple[str, float, Sequence[float]]  # what, at least, points seen per seed


def main() -> int:
    """Copy, pack, check."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="OUTPUT/BUDGET-STEPS of the command")
    parser.add_argument("--single", type=Path, help="OUTPUT/BUDGET-STEPS with single heads")
    args = parser.parse_args()
    found = read_json(args.folder / "tables.json")
    place = make_folder(RESULTS / "ablations" / args.folder.name)
    for name in ("tables.json", "tables.csv", *(f"table-{t}.png" for t in found["tables"])):
        shutil.copyfile(args.folder / name, place / name)
    pack(args.folder, place)
    held = True
    rows = [["", "at least", "seen, seed by seed"]]
    for what, least, seen in bars(found):
        held &= min(seen) >= least
        rows.append([what, f"{least:+.1f}", " ".join(f"{value:+.2f}" for value in seen)])
    print(text_table(rows))
    if args.single:
        ratio = cost(found, args.single)
        held &= ratio <= SHARE_OF_TWO
        print(f"heads on one trunk cost {ratio:.2f} of two single heads (most {SHARE_OF_TWO})")
    return 0 if held else 1


def pack(folder: Path, place: Path) -> None:
    """Float16 checkpoints of separately trained heads, where the folder has them."""
    name, _, steps = folder.name.partition("-")
    for model in KEPT_MODELS:
        run = Run(model, 0, budget(name, int(steps)), folder.parent)
        if run.done:
            trained, _ = load_checkpoint(run.folder / "checkpoint")
            target = place / model.replace(" ", "-")
            save_checkpoint(target, trained, InputConfig(), torch.float16)


def cost(found: dict[str, Any], single: Path) -> float:
    """CPU seconds of the trunk, training and scoring, in those of two single heads.

    Args:
        single: a folder of separate runs of as many steps.
    """
    names = list(found["cpu_seconds"])
    (trunk,) = (_total(found["cpu_seconds"][name]) for name in names if "trunk" in name)
    heads = read_json(single / "tables.json")["cpu_seconds"]
    mean = sum(map(_total, heads.values())) / len(heads)
    return trunk / (2 * mean)


def _total(parts: dict[str, list[float]]) -> float:
    """Mean over seeds of a run's CPU seconds."""
    return sum(sum(values) / len(values) for values in parts.values())


# --- what should hold -------------------------------------------------------------------------


def bars(found: dict[str, Any]) -> Iterator[Bar]:
    """The bars of the tables that are there, in points of IoU or AP."""
    tables = found["tables"]
    shared = any(table["one trunk"] for table in tables.values())
    if {"2a", "2b"} <= set(tables):
        yield from _of_trunk(tables) if shared else _of_separate_heads(tables)
    if "1" in tables and shared:
        yield "1: aligned - natural, lam 1: IoU", 0.0, _points(tables["1"], "λ = 1", "IoU")
    if "2c" in tables:
        for score in ("AP", "IoUm", "IoUl"):
            yield f"2c: bipyramid, {score}", 0.0, _points(tables["2c"], "bipyramid", score)
    if "2d" in tables:
        values = _points(tables["2d"], "paper's rule", "AR100")
        yield "2d: two sizes, paper's rule, mean AR100", 0.0, [sum(values) / len(values)]


def _of_trunk(tables: dict[str, Any]) -> Iterator[Bar]:
    for table, words, least in (
        ("2a", "aligned - natural", {"λ = 1.5": 0.0, "λ = 3": 3.0, "λ = 5": 5.0}),
        ("2b", "bilinear - nearest", {"λ = 1.5": 0.0, "λ = 3": 2.0, "λ = 5": 6.0}),
    ):
        seen = {lam: _points(tables[table], lam, "IoU") for lam in least}
        for lam, bar in least.items():
            yield f"{table}: {words}, {lam}: IoU", bar, seen[lam]
        for small, large in (("λ = 1.5", "λ = 3"), ("λ = 3", "λ = 5")):
            if (table, small) != ("2a", "λ = 1.5"):  # at lam 1.5 its sign alone is asked for
                growth = [b - a for a, b in zip(seen[small], seen[large], strict=True)]
                yield f"{table}: {words} grows from {small} to {large}: IoU", 0.0, growth
    for lam, bar in (("λ = 3", 3.5), ("λ = 5", 5.0)):
        yield f"2a: aligned - natural, {lam}: AP", bar, _points(tables["2a"], lam, "AP")
    if "1" in tables:
        rows = tables["1"]["rows"] | tables["2a"]["rows"]
        lost = {name: _lost(rows, name) for name in ("aligned", "natural")}
        yield (
            "aligned loses from lam 1 to 5, less than 3: IoU",
            -3.0,
            [-v for v in lost["aligned"]],
        )
        yield "natural loses from lam 1 to 5: IoU", 4.0, lost["natural"]


def _of_separate_heads(tables: dict[str, Any]) -> Iterator[Bar]:
    for table, lams in (("2a", ("λ = 3", "λ = 5")), ("2b", ("λ = 5",))):
        for lam in lams:
            yield f"{table}: {lam}, IoU", 0.0, _points(tables[table], lam, "IoU")


def _points(table: dict[str, Any], name: str, score: str) -> list[float]:
    """A difference of a table in points, seed by seed."""
    (values,) = (one["points"][score] for one in table["differences"] if one["name"] == name)
    seen: list[float] = values
    return seen


def _lost(rows: dict[str, Any], name: str) -> list[float]:
    """Points of IoU that a head loses from lam 1 to 5, seed by seed."""
    pairs = zip(rows[f"{name} 1"]["IoU"], rows[f"{name} 5"]["IoU"], strict=True)
    return [100 * (one - five) for one, five in pairs]


if __name__ == "__main__":
    raise SystemExit(main())
