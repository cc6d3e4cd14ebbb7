"""What tables say: rows and differences over seeds, as JSON, CSV and text.

next: ablations/stored.py
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..base.files import write_json, written_whole
from ..base.machine import machine
from ..base.tables import text_table
from .budget import Budget
from .coverage import all_counts
from .runs import SHARED, Run, needed
from .tables import MODELS, Contrast, Table

SHOWN = ("IoU", "IoUs", "IoUm", "IoUl", "AP", "AP50", "AP75", "AR100")
POINTS = 100.0  # a score's hundredths, as papers print them

# row -> score -> one value per seed
Rows = dict[str, dict[str, list[float]]]


def summarise(
    tables: Sequence[Table], budget: Budget, seeds: Sequence[int], output: Path
) -> dict[str, Any]:
    """All figures of the tables, as JSON values; every run they need is done."""
    return {
        "machine": machine(),
        "budget": asdict(budget) | {"areas_px2": dict(budget.areas)},
        "seeds": list(seeds),
        "tables": {t.name: _table(t, budget, seeds, output) for t in tables},
        "cpu_seconds": _seconds(needed(tables, budget, seeds, output)),
    }


def _table(table: Table, budget: Budget, seeds: Sequence[int], output: Path) -> dict[str, Any]:
    runs = needed([table], budget, seeds, output)
    rows: Rows = {name: {} for name in table.rows}
    for figures in (run.figures() for run in runs):
        for name, scores in figures["rows"].items():
            for score, value in scores.items():
                if name in rows:  # a trunk has heads that the table does not ask for
                    rows[name].setdefault(score, []).append(value)
    for name, scores in rows.items():  # runs of earlier versions may have more of them
        rows[name] = {
            score: values for score, values in scores.items() if len(values) == len(seeds)
        }
    found = {
        "question": table.question,
        "one trunk": runs[0].name == SHARED,
        "judged": table.judged,
        "rows": {name: {"paper_ap": table.paper.get(name), **rows[name]} for name in rows},
        "differences": [difference(one, rows) for one in table.differences],
    }
    if table.name == "2d":
        found["coverage"] = all_counts(budget.model(MODELS["one size"]))
    return found


def difference(contrast: Contrast, rows: Rows) -> dict[str, Any]:
    """Paired differences in points, seed by seed."""
    better, other = rows[contrast.better], rows[contrast.other]
    both = [name for name in better if name in other]
    pairs = {name: zip(better[name], other[name], strict=True) for name in both}
    points = {name: [POINTS * (a - b) for a, b in values] for name, values in pairs.items()}
    return {**asdict(contrast), "points": points}


def _seconds(runs: Sequence[Run]) -> dict[str, dict[str, list[float]]]:
    """Per run the CPU seconds of its training and scoring, seed by seed."""
    found: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        for part, seconds in run.figures()["cpu_seconds"].items():
            found.setdefault(run.name, {}).setdefault(part, []).append(seconds)
    return found


# --- files and text ---------------------------------------------------------------------------


def write(summary: dict[str, Any], folder: Path) -> None:
    """Write `tables.json` and `tables.csv`, a line per row and seed."""
    write_json(folder / "tables.json", summary)
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    names = list(dict.fromkeys(name for _, _, scores in _lines(summary) for name in scores))
    lines.writerow(["table", "row", "seed", *names])
    for (table, row), seed, scores in _lines(summary):
        cells = (f"{scores[name]:.5f}" if name in scores else "" for name in names)
        lines.writerow([table, row, seed, *cells])
    with written_whole(folder / "tables.csv") as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def _lines(summary: dict[str, Any]) -> list[tuple[tuple[str, str], int, dict[str, float]]]:
    """(table, row), seed, scores."""
    return [
        ((table, row), seed, {k: v[n] for k, v in values.items() if isinstance(v, list)})
        for table, found in summary["tables"].items()
        for row, values in found["rows"].items()
        for n, seed in enumerate(summary["seeds"])
    ]


def to_text(summary: dict[str, Any]) -> str:
    """What the command prints: each table's means over seeds, then its differences."""
    parts = []
    for name, table in summary["tables"].items():
        form = "on one trunk" if table["one trunk"] else "trained separately"
        parts.append(f"Table {name}. {table['question']} ({form})")
        parts.append(text_table(_row_cells(table), indent="  "))
        parts.append(text_table(_difference_cells(table), indent="  "))
        if "coverage" in table:
            parts.append(text_table(_coverage_cells(table["coverage"]), indent="  "))
    total = sum(sum(map(sum, run.values())) for run in summary["cpu_seconds"].values())
    seeds = len(summary["seeds"])
    parts.append(f"{seeds} seed{'s' * (seeds > 1)}, {total:.0f} CPU seconds in all")
    return "\n\n".join(parts)


def _row_cells(table: dict[str, Any]) -> list[list[str]]:
    shown = [score for score in SHOWN if all(score in row for row in table["rows"].values())]
    cells = [["", *shown, "paper's AP"]]
    for name, row in table["rows"].items():
        means = (f"{statistics.fmean(row[score]):.3f}" for score in shown)
        paper = row["paper_ap"]
        cells.append([name, *means, "-" if paper is None else f"{paper:.1f}"])
    return cells


def _difference_cells(table: dict[str, Any]) -> list[list[str]]:
    """Differences in points, every seed's."""
    every = [one["points"] for one in table["differences"]]
    asked = dict.fromkeys(("IoU", table["judged"], "AP"))
    judged = [score for score in asked if all(score in points for points in every)]
    cells = [["difference in points", *judged, "paper's AP"]]
    for one in table["differences"]:
        shown = (" ".join(f"{v:+.1f}" for v in one["points"][score]) for score in judged)
        words = f"{one['better']} - {one['other']}"
        paper = one["paper"]
        cells.append([words, *shown, "-" if paper is None else f"{paper:+.1f}"])
    return cells


def _coverage_cells(coverage: list[dict[str, Any]]) -> list[list[str]]:
    cells = [["world", "rule", "sizes", "windows per object", "without one", "at most one"]]
    for one in coverage:
        names = [one[name] for name in ("world", "rule", "sizes")]
        shares = (f"{100 * one[name]:.1f} %" for name in ("without one", "with one at most"))
        cells.append([*names, f"{one['windows per object']:.1f}", *shares])
    return cells
