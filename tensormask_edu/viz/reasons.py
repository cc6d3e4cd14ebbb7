"""Pictures of lesson 08: windows by the reason why they are not positive, bars side by side.

next: viz/film.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..geometry import Windows
from . import look
from .images import outline_mask, show_image
from .look import FOLLOWED, POSITIVE, PREDICTION, TRUTH, Array, Pen, as_array, draw_box

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# By number: 0 positive, 1, 2 and 3 as the exercise counts them, 4 claimed by several objects
REASONS = (
    Pen("positive", POSITIVE.colour, "solid", marker="X"),
    Pen("sticks out", "#606060", "solid", marker="."),
    Pen("too small", PREDICTION.colour, "solid", marker="D"),
    Pen("off centre", FOLLOWED.colour, "solid", marker="o"),
    Pen("claimed twice", "#000000", "solid", marker="s"),
)
FEW = 7  # names: there is room for numbers on the bars
MANY = 4  # positive windows: their squares would hide the picture


@look.readable
def windows_by_reason(
    image: Any, masks: Any, windows: Windows, reasons: Any, shown: Sequence[tuple[int, int]]
) -> Figure:
    """Each window as a mark at its centre, by reason; the positive ones as squares too.

    Args:
        image: (3, H, W). masks: (m, H, W) bool, outlined.
        windows: M of an image. reasons: (M,) numbers of `REASONS`.
        shown: (level, size id) of each panel, four at most.
    """
    numbers = as_array(reasons)
    title = "Which windows are positive, and why the others are not"
    counts = ", ".join(
        f"{int((numbers == number).sum())} {pen.meaning}" for number, pen in enumerate(REASONS)
    )
    alt = (
        f"An image {len(shown)} times, a mark at the centre of every window of one size, by "
        f"reason. Of all windows: {counts}."
    )
    figure = look.new_picture(8.8 if len(shown) > 2 else 5.2, title, alt=alt)
    axes = figure.subplots(-(-len(shown) // 2), 2, squeeze=False).ravel()
    for ax, (level, size_id) in zip(axes, shown, strict=True):
        height, width = show_image(ax, image)
        for mask in as_array(masks):
            outline_mask(ax, mask, TRUTH)
        here = as_array((windows.level == level) & (windows.size_id == size_id))
        boxes, reason = as_array(windows.box_px)[here], numbers[here]
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        for number in (1, 2, 3, 4, 0):  # the positive ones on top
            pen, (x, y) = REASONS[number], centre[reason == number].T
            edge = {"markeredgecolor": "white", "markeredgewidth": 0.7} if number != 1 else {}
            ax.plot(x, y, pen.marker, markersize=8 if edge else 4, color=pen.colour, **edge)
        positive = boxes[reason == 0]
        for box in positive if len(positive) < MANY else ():
            draw_box(ax, box, POSITIVE, 1.2)
        side = boxes[0, 2] - boxes[0, 0]
        ax.set_title(f"windows of {side:.0f} px: {len(positive)} positive")
        ax.set(xlim=(-0.1 * width, 1.1 * width), ylim=(1.1 * height, -0.1 * height))
    used = [number for number in range(len(REASONS)) if (numbers == number).any()]
    _marks(figure, [REASONS[number] for number in used])
    return figure


def _marks(figure: Figure, pens: Sequence[Pen]) -> None:
    """A legend of marks."""
    from matplotlib.lines import Line2D

    line: dict[str, Any] = {"linestyle": "", "markersize": 8}
    handles = [
        Line2D([], [], color=pen.colour, marker=pen.marker, label=pen.meaning, **line)
        for pen in pens
    ]
    figure.legend(handles=handles, frameon=False, loc="outside lower center", ncols=4)


@look.readable
def bars_side_by_side(
    names: Sequence[Any], values: Mapping[str, Array], title: str, axes: tuple[str, str]
) -> Figure:
    """For each name as many bars as there are groups.

    Args:
        names: under the bars. values: group -> one number per name. axes: labels of x and y.
    """
    said = "; ".join(
        f"{group}: {', '.join(f'{height:.3g}' for height in heights)}"
        for group, heights in values.items()
    )
    alt = f"{title}. Bars by {axes[0]}, {axes[1]}. {said}.".replace("\n", " ")
    figure = look.new_picture(3.6, title, alt=alt)
    ax, place, width = figure.subplots(), np.arange(len(names)), 0.8 / len(values)
    looks = ({"color": TRUTH.colour}, {"facecolor": "white", "edgecolor": PREDICTION.colour})
    for k, (group, heights) in enumerate(values.items()):
        style: dict[str, Any] = dict(looks[k % 2]) | {"hatch": "///" if k % 2 else ""}
        left = place + (k - (len(values) - 1) / 2) * width
        bars = ax.bar(left, heights, width, label=group, **style)
        if len(names) < FEW:
            ax.bar_label(bars, fmt="%.0f")
    ax.set_xticks(place, [str(name) for name in names])
    ax.set(xlabel=axes[0], ylabel=axes[1])
    ax.legend(frameon=False)
    return figure
