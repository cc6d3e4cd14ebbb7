"""Curves: the losses of a run, the reachable IoU by object size, two runs layer by layer.

next: viz/ablations.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .look import FOLLOWED, INK, POSITIVE, PREDICTION, TRUTH, Array, new_picture, readable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRID = "#E5E5E5"  # of the lines behind the curves
# Key of `log.jsonl` -> word, colour, line
LOSSES = {
    "loss": ("total", "black", "solid"),
    "loss_box": ("box", PREDICTION.colour, "dashed"),
    "loss_mask": ("mask", TRUTH.colour, "dashdot"),
    "loss_class": ("class", POSITIVE.colour, "dotted"),
}


@readable
def loss_curve(log: Sequence[Mapping[str, float]]) -> Figure:
    """The losses of a run over its steps, and the learning rate below.

    Args:
        log: one dict per line of `log.jsonl`: step, seconds, lr, loss, loss_class, loss_box,
            loss_mask.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    last = log[-1] if log else {}
    ends = ", ".join(f"{key.removeprefix('loss_')} {last.get(key, 0):.2g}" for key in LOSSES)
    alt = f"Losses over the steps of a run, at its end {ends}. Below, the learning rate."
    figure = new_picture(4.2, "Training", alt=alt)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    step = np.array([line["step"] for line in log], dtype=float)
    for key, (word, colour, line) in LOSSES.items():
        values = np.array([entry[key] for entry in log], dtype=float)
        upper.plot(step, values, color=colour, linewidth=0.6, alpha=0.35)
        thick: dict[str, Any] = {"linestyle": line, "linewidth": 1.8, "label": word}
        upper.plot(step, _smooth(values), color=colour, **thick)
    upper.set(yscale="log", ylabel="loss (log scale)", title=_run_title(log))
    upper.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    upper.yaxis.set_major_formatter("{x:g}")
    upper.yaxis.set_minor_formatter(NullFormatter())
    upper.legend(ncols=4, frameon=False)
    upper.grid(axis="y", which="both", color=GRID, linewidth=0.6)
    lower.plot(step, [entry["lr"] for entry in log], color=INK)
    lower.set(xlabel="step", ylabel="learning rate", ylim=(0, None))
    lower.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
    return figure


def _run_title(log: Sequence[Mapping[str, float]]) -> str:
    if not log:
        return "no steps logged"
    steps, minutes = log[-1]["step"], log[-1]["seconds"] / 60
    return f"{steps:.0f} steps in {minutes:.1f} min; thin: as logged, thick: smoothed"


def _smooth(values: Array, span: float = 0.05) -> Array:
    """The running mean over a share `span` of the run, half of it on either side.

    At the ends of the run it is shorter, never shifted.
    """
    half = int(len(values) * span / 2)
    total = np.concatenate([[0.0], np.cumsum(values)])  # of the first k values
    centre = np.arange(len(values))
    low, high = np.maximum(centre - half, 0), np.minimum(centre + half + 1, len(values))
    return np.asarray((total[high] - total[low]) / np.maximum(high - low, 1))


@readable
def reachable_iou(
    sizes_px: Sequence[float], iou_by_name: Mapping[str, Sequence[float]]
) -> Figure:
    """The best IoU that bins can reach, by object size: one line per way of making bins.

    Args:
        sizes_px: long sides of objects, ascending.
        iou_by_name: for each named line, one IoU per size.
    """
    ends = [f"{name} {ious[0]:.2f} to {ious[-1]:.2f}" for name, ious in iou_by_name.items()]
    sizes = f"{min(sizes_px):g} to {max(sizes_px):g} px"
    alt = f"A line per way of making bins, for objects of {sizes}: {', '.join(ends)}."
    figure = new_picture(3.2, "Best reachable IoU by object size", alt=alt)
    ax = figure.subplots()
    lines: list[dict[str, Any]] = [
        {"marker": "o", "linestyle": "solid", "color": TRUTH.colour},
        {"marker": "s", "linestyle": "dashed", "color": PREDICTION.colour},
        {"marker": "^", "linestyle": "dotted", "color": POSITIVE.colour},
    ]
    for k, (name, ious) in enumerate(iou_by_name.items()):
        ax.plot(sizes_px, ious, markersize=5, label=name, **lines[k % len(lines)])
    ax.set(xlabel="long side of the object (px)", ylabel="IoU with the true mask", xscale="log")
    ax.set_xticks(list(sizes_px), [f"{size:g}" for size in sizes_px])
    ax.minorticks_off()
    ax.legend(frameon=False)
    ax.grid(color=GRID, linewidth=0.6)
    return figure


@readable
def apart_by_layer(runs: Mapping[str, Sequence[float]], tolerance: float, first: int) -> Figure:
    """How far runs are from PyTorch, layer by layer in the order of computation.

    runs: name -> difference per layer, in proportion, two of them. first: the layer to mark.
    """
    alt = f"One file stays below the tolerance, the other crosses it at layer {first}, of many."
    figure = new_picture(3.8, "Largest difference from PyTorch, layer by layer", alt=alt)
    ax = figure.subplots()
    for (name, values), pen in zip(runs.items(), (TRUTH, PREDICTION), strict=True):
        shown = np.maximum(values, 1e-9)  # a log scale has no 0
        ax.plot(shown, pen.marker, color=pen.colour, label=name, markersize=4, alpha=0.8)
    ax.axhline(tolerance, color=INK, linestyle="dashed", label="tolerance")
    ax.axvline(first, color=FOLLOWED.colour, label=f"first beyond it: layer {first}")
    ax.set(yscale="log", xlabel="layer, in the order of computation", ylabel="difference")
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    return figure
