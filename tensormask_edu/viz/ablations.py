"""Differences between rows of a table: our seeds as dots beside the paper's bars.

next: viz/gallery.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .curves import GRID
from .look import IGNORED, INK, PREDICTION, TRUTH, new_picture, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS = 0.06  # between the dots of two seeds, in widths of a place


@styled
def ablation(name: str, table: Mapping[str, Any]) -> Figure:
    """A table's differences: left in the score that tells most, right in AP beside the paper's.

    Args:
        name: "2a". table: of `ablations/summary.py`: `question`, `judged`, and
            `differences` with `name`, `paper` and `points`, the seeds' by score.
    """
    figure = new_picture(3.0, f"Table {name}: {table['question']}")
    left, right = figure.subplots(1, 2)
    differences = table["differences"]
    _dots(left, differences, table["judged"])
    words = {"IoU": "mask IoU at positive windows", "AR100": "AR of 100 masks"}
    what = words.get(table["judged"], f"mask {table['judged']}")
    left.set(title=f"{what}, here", ylabel="difference in points")
    places = np.arange(len(differences))
    bars: dict[str, Any] = {"color": IGNORED.colour, "label": "the paper, COCO"}
    right.bar(places, [one["paper"] or 0.0 for one in differences], 0.5, **bars)
    _dots(right, differences, "AP")
    right.set(title="mask AP")
    right.legend(frameon=False)
    return figure


def _dots(ax: Axes, differences: Sequence[Mapping[str, Any]], score: str) -> None:
    """One dot per seed, and a line at their mean."""
    pen = TRUTH if score == "AP" else PREDICTION
    for place, one in enumerate(differences):
        values = one["points"][score]
        shift = (np.arange(len(values)) - (len(values) - 1) / 2) * DOTS
        label = "here, one dot per seed" if place == 0 else None
        style: dict[str, Any] = {"color": pen.colour, "marker": pen.marker, "linestyle": "none"}
        ax.plot(place + shift, values, **style, markersize=4, label=label)
        ax.hlines(np.mean(values), place - 0.3, place + 0.3, color=pen.colour, linewidth=1)
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.set_xticks(range(len(differences)), [one["name"] for one in differences])
    ax.set_xlim(-0.6, len(differences) - 0.4)
    ax.grid(axis="y", color=GRID, linewidth=0.6)
