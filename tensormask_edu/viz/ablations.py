"""Differences between rows of a table: our seeds as dots beside the paper's bars.

next: viz/gallery.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .curves import GRID
from .look import IGNORED, INK, PREDICTION, TRUTH, Array, new_picture, readable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS = 0.06  # between the dots of two seeds, in widths of a place


@readable
def ablation(name: str, table: Mapping[str, Any]) -> Figure:
    """A table's differences: left in the score that tells most, right in AP beside the paper's.

    Args:
        name: "2a". table: of `ablations/summary.py`: `question`, `judged`, and
            `differences` with `name`, `paper` and `points`, the seeds' by score.
    """
    alt = f"Differences of table {name} in points: dots for our seeds, bars for the paper's AP."
    figure = new_picture(3.9, f"Table {name}\n{table['question']}", alt=alt)
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
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=2)
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


@readable
def by_seed(names: tuple[str, str], other: Array, better: Array, score: str) -> Figure:
    """Two heads, seed by seed: what each scores, and how far apart the two are.

    Args:
        names: of the two heads. other, better: (S,) points of each. score: what is scored.
    """
    gap = better - other
    alt = (
        f"Left: a line per seed from {names[0]} to {names[1]}, all nearly parallel. "
        f"Right: how far each rises, {gap.min():.1f} to {gap.max():.1f} points."
    )
    figure = new_picture(3.4, "Seeds differ more than heads do", alt=alt)
    left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
    for seed, (low, high) in enumerate(zip(other, better, strict=True)):
        mark: dict[str, Any] = {"color": TRUTH.colour, "marker": "osD^v"[seed % 5]}
        left.plot([0, 1], [low, high], **mark)
        place: dict[str, Any] = {"xytext": (9, 0), "textcoords": "offset points"}
        left.annotate(f"seed {seed}", (1, high), va="center", **place)
        right.plot(seed, high - low, **mark)
    ends = np.concatenate([other, better])
    middle, half = (ends.max() + ends.min()) / 2, 0.6 * np.ptp(ends)  # the same scale twice
    left.set(xlim=(-0.3, 1.7), ylim=(middle - half, middle + half), title="each head")
    left.set_xticks([0, 1], names)
    left.set_ylabel(f"{score} (points)")
    right.axhline(0, color=INK, linewidth=0.8)
    right.set(xlim=(-0.6, len(gap) - 0.4), ylim=(-0.4 * half, 1.6 * half), xlabel="seed")
    right.set(xticks=range(len(gap)), title="the difference")
    return figure


@readable
def beside_the_paper(rows: Sequence[tuple[str, float | None, Mapping[str, Any]]]) -> Figure:
    """Differences in AP: a bar of the paper, a mark per seed of ours.

    Args:
        rows: words, the paper's points, ours by form of training; where none is stored it is
            said.
    """
    stored = sum(bool(ours) for _, _, ours in rows)
    alt = (
        f"{len(rows)} rows of tables 1 to 2d, each with a bar, the paper's difference in AP; "
        f"{stored} of them with a mark for every seed of ours."
    )
    figure = new_picture(0.48 * len(rows) + 1.2, "What each idea adds to mask AP", alt=alt)
    ax, places = figure.subplots(), np.arange(len(rows))[::-1]
    style: dict[str, Any] = {"color": IGNORED.colour, "label": "the paper, COCO"}
    ax.barh(places, [paper or 0.0 for _, paper, _ in rows], 0.7, **style)
    forms = dict.fromkeys(form for _, _, ours in rows for form in ours)
    for number, (form, pen) in enumerate(zip(forms, (TRUTH, PREDICTION), strict=False)):
        seeds = [
            (points, place + 0.16 * (len(forms) - 1) * (1 - 2 * number))
            for place, (_, _, ours) in zip(places, rows, strict=True)
            for points in ours.get(form, ())
        ]
        mark: dict[str, Any] = {"color": pen.colour, "marker": pen.marker, "linestyle": "none"}
        ax.plot(*zip(*seeds, strict=True), **mark, markersize=5, label=f"ours, {form}")
    for place, (_, paper, ours) in zip(places, rows, strict=True):
        if not ours:
            ax.text((paper or 0.0) + 0.3, place, "ours: not stored yet", va="center")
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set_yticks(places, [words for words, _, _ in rows])
    ax.set_xlabel("difference in AP (points)")
    ax.grid(axis="x", color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)
    figure.legend(frameon=False, loc="outside lower center", ncols=3)
    return figure
