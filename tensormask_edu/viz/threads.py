"""Pictures of lesson 07: maps that move as a whole, blocks and threads.

next: viz/reasons.py
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import look
from .look import FOLLOWED, IGNORED, POSITIVE, PREDICTION, TRUTH, draw_box
from .tensors import draw_wall

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLOCK_PENS = (TRUTH, PREDICTION, POSITIVE, FOLLOWED)  # by turns


@look.readable
def moved_maps(num_v: int = 3, cells: int = 4) -> Figure:
    """Three bins of one column: the slice of each padded map that becomes the result."""
    alt = (
        f"A padded map of {cells} x {cells} numbers {num_v} times. A frame of as many numbers, "
        "the slice that becomes the result, lies one row further down each time."
    )
    title = "One slice per bin: H x W numbers move at once"
    figure = look.new_picture(3.7, title, alt=alt)
    half, axes = (num_v - 1) // 2, figure.subplots(1, num_v, sharey=True)
    for i, ax in enumerate(axes):
        ax.set(xlim=(-half - 0.6, cells + half - 0.4), ylim=(cells + half - 0.4, -half - 0.6))
        for y, x in np.ndindex(cells + 2 * half, cells + 2 * half):
            row, column = y - half, x - half
            box = (column - 0.5, row - 0.5, column + 0.5, row + 0.5)
            if 0 <= row < cells and 0 <= column < cells:
                ax.text(column, row, f"{10 * row + column}", ha="center", va="center")
            else:
                look.hatch(ax, box)
        draw_box(ax, (-0.5, i - half - 0.5, cells - 0.5, i - half + cells - 0.5), POSITIVE, 2)
        ax.set_title(f"v = {i - half}: from row {i}")
        ax.set(xlabel="x (cells)", xticks=range(cells), yticks=range(cells), aspect="equal")
    axes[0].set_ylabel("y (cells)")
    slice_words = "the slice: natural[:, i, j]"
    look.legend(figure, [(POSITIVE, slice_words), (IGNORED, "pad_value around the map")])
    return figure


@look.readable
def blocks_and_threads(shape: tuple[int, int, int, int], threads: int) -> Figure:
    """Which thread of which block makes which output.

    Args:
        shape: (V, U, H, W) of the output.
        threads: of a block.
    """
    count = int(np.prod(shape))
    blocks = -(-count // threads)
    title = f"{count} outputs, {threads} threads a block: {blocks} blocks"
    alt = (
        f"Above, {count} numbered outputs in {blocks} rows of {threads}, a row per block and a "
        "column per thread; the last places are idle. Below, the same numbers and colours "
        "where the outputs lie in the tensor's wall."
    )
    figure = look.new_picture(6.4, title, alt=alt)
    upper, lower = figure.subplots(2, 1, height_ratios=[1, 2])
    for block, thread in np.ndindex(blocks, threads):
        i, pen = block * threads + thread, BLOCK_PENS[block % len(BLOCK_PENS)]
        box = (thread - 0.5, block - 0.5, thread + 0.5, block + 0.5)
        if i >= count:
            look.hatch(upper, box)
            continue
        draw_box(upper, box, pen, 0.8, fill=True)
        upper.text(thread, block, str(i), ha="center", va="center")
    upper.set(xlim=(-0.6, threads - 0.4), ylim=(blocks - 0.4, -0.6), yticks=range(blocks))
    upper.set(xlabel="thread", ylabel="block", xticks=range(0, threads, 2))
    wall = draw_wall(lower, np.zeros(shape))
    for i in range(count):
        _, *place = np.unravel_index(i, (1, *shape))
        x0, y0, x1, y1 = wall.bin(*(int(p) for p in place))
        pen = BLOCK_PENS[i // threads % len(BLOCK_PENS)]
        draw_box(lower, (x0, y0, x1, y1), pen, 0.6, fill=True)
        middle: dict[str, Any] = {"ha": "center", "va": "center"}
        lower.text((x0 + x1) / 2, (y0 + y1) / 2, str(i), **middle)
    lower.set(xlabel="x (cells)", ylabel="y (cells)")
    look.legend(figure, [(IGNORED, "idle threads: the guard stops them")])
    return figure
