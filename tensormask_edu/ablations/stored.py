"""The tables that come along: what was trained before, so that nobody has to wait for it.

Folders as `tensormask-edu ablate` writes them, and the rows of `benchmarks/ancestors.py`.

next: learn/texts.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..base.files import read_json
from .summary import Rows, difference
from .tables import TABLES

# In a checkout, and in an installation
PLACES = (
    Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "ablations",
    Path(__file__).with_name("results"),
)
TRUNK, ALONE = "on one trunk", "each by itself"  # the two forms of a table
Tables = dict[tuple[str, str], dict[str, Any]]


def tables(place: Path | None = None) -> Tables:
    """(table, form) -> what `summary.py` made of it; of several lengths the longest training.

    Args:
        place: a folder of folders; None: the package's own.
    """
    place = place or next(folder for folder in PLACES if folder.is_dir())
    found: Tables = {}
    for name in ("ancestors", "roi"):
        if (path := place / f"{name}.json").is_file():
            found[name, ALONE] = _of_rows(name, read_json(path, "ablation")["rows"])
    summaries = [read_json(path, "ablation") for path in sorted(place.glob("*/tables.json"))]
    for summary in sorted(summaries, key=lambda one: int(one["budget"]["steps"])):
        about = {"seeds": summary["seeds"], "steps": summary["budget"]["steps"]}
        for name, table in summary["tables"].items():
            found[name, TRUNK if table["one trunk"] else ALONE] = table | about
    return found


def _of_rows(name: str, stored: list[dict[str, Any]]) -> dict[str, Any]:
    """A table of detectors from rows of a detector and a seed each."""
    by_seed: dict[str, dict[int, dict[str, float]]] = {}
    for row in stored:
        scores = {"IoU": row["mask_iou"], **row["nms"]}
        by_seed.setdefault(row["model"], {})[row["seed"]] = scores
    differences = []
    for one in TABLES[name].differences:
        pair = {model: by_seed.get(model, {}) for model in (one.better, one.other)}
        both = sorted(set.intersection(*(set(seeds) for seeds in pair.values())))
        if both:  # what one of the two has not been trained for has no difference
            rows: Rows = {
                model: {score: [seeds[s][score] for s in both] for score in seeds[both[0]]}
                for model, seeds in pair.items()
            }
            differences.append(difference(one, rows))
    return {"judged": TABLES[name].judged, "differences": differences}
