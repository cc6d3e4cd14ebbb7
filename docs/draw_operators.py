"""Draw docs/pictures/operators.png: where each operator reads its input, in the (v, y) plane.

Run `python docs/draw_operators.py`. The plane of (u, x) looks the same.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tensormask_edu import viz
from tensormask_edu.viz.look import (
    FOLLOWED,
    IGNORED,
    POSITIVE,
    TRUTH,
    draw_box,
    hatch,
    legend,
    name_rows,
    new_picture,
    readable,
)

NUM_V, HEIGHT, MARGIN = 3, 8, 4
# Name, bins V' of the output, cells y' drawn, and where output (v', y') reads.
# v' counts from the centre.
ReadsAt = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
PANELS: tuple[tuple[str, int, tuple[int, ...], ReadsAt], ...] = (
    ("align2nat", 3, (2, 5), lambda v, y: (v, y + v)),
    ("nat2align", 3, (2, 5), lambda v, y: (v, y - v)),
    ("up_bilinear, lam 2", 6, (2, 5), lambda v, y: (v / 2, y + 0 * v)),
    ("up_align2nat, lam 2", 6, (2, 5), lambda v, y: (v / 2, y + v)),
    ("subsample, lam 3", 3, (0, 1, 2), lambda v, y: (v, 3 * y + 0 * v)),
    ("swap_align2nat, lam 3", 9, (0, 1), lambda v, y: (v / 3, 3 * y + v)),
)
LOOKS = (POSITIVE, FOLLOWED, TRUTH)


@readable
def operators() -> Figure:
    """Six planes: grey squares are input entries, dots what the bins of an output cell read."""
    title = "Where each operator reads, in the (v, y) plane of its input"
    figure = new_picture(5.6, title, alt=str(operators.__doc__))
    for ax, (name, bins, cells, reads_at) in zip(
        figure.subplots(3, 2).flat, PANELS, strict=True
    ):
        _plane(ax)
        for look, cell in zip(LOOKS, cells, strict=False):
            v, y = reads_at(np.arange(bins) - (bins - 1) / 2, cell)
            ax.plot(y, v, color=look.colour, linewidth=1, marker=look.marker, markersize=4)
        ax.set_title(name)
    legend(
        figure,
        [(look, f"output cell {'ABC'[i]}") for i, look in enumerate(LOOKS)]
        + [(IGNORED, "outside: pad value")],
        marks=True,
    )
    return figure


def _plane(ax: Axes) -> None:
    for v in range(-2, 3):
        for y in range(-MARGIN, HEIGHT + MARGIN):
            box = (y - 0.5, v - 0.5, y + 0.5, v + 0.5)
            if abs(v) <= NUM_V // 2 and 0 <= y < HEIGHT:
                draw_box(ax, box, IGNORED, 0.5)
            else:
                hatch(ax, box)
    ax.set(
        xlim=(-MARGIN - 0.5, HEIGHT + MARGIN - 0.5),
        ylim=(2.5, -2.5),
        xlabel="y (cells)",
    )
    name_rows(ax, "v")
    ax.set_xticks(range(HEIGHT))
    ax.set_yticks((-1, 0, 1))


if __name__ == "__main__":
    viz.save(operators(), Path(__file__).parent / "pictures" / "operators.png")
