"""Pictures in panels: one image or several with outlines; precision against recall.

next: ancestors/fit.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import look
from .images import outline_mask, show_image
from .look import FOLLOWED, POSITIVE, PREDICTION, TRUTH, Array, as_array, draw_box

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 3
Shown = tuple[str, Array, Array, Array]  # words, image (3, H, W), true and found masks


@look.readable
def film_strip(image: Any, panels: Mapping[str, Any], title: str) -> Figure:
    """One image over and over, with other outlines: the truth first, then what was found.

    Args:
        image: (3, H, W).
        panels: title -> masks (m, H, W) bool, or boxes (m, 4) xyxy px; the first are the truth.
        title: over the picture.
    """
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    words = "; ".join(" ".join(each.split()) for each in panels)
    alt = f"One image over and over, with the outlines of: {words}."
    figure = look.new_picture(2.6 * rows + 0.5, title, alt=alt)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.axis("off")
    for number, (ax, (words, drawn)) in enumerate(zip(axes, panels.items(), strict=False)):
        show_image(ax, image)
        pen = PREDICTION if number else TRUTH
        for each in as_array(drawn):
            outline_mask(ax, each, pen) if each.ndim == 2 else draw_box(ax, each, pen, 1.0)
        ax.set_title(words)
    return figure


@look.readable
def truth_and_found(shown: Sequence[Shown], title: str) -> Figure:
    """Several pictures with words above, true and found outlines in each."""
    words = "; ".join(" ".join(each[0].split()) for each in shown)
    alt = f"True outlines, solid, and found ones, dashed. From the left: {words}."
    columns = 3 if len(shown) % 3 == 0 else 2  # no holes
    rows = -(-len(shown) // columns)
    figure = look.new_picture(2.8 * rows + 0.7, title, alt=alt)
    figure.sharpness = 1.2  # type: ignore[attr-defined]  # photos: 400 kB hold all of a lesson
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.axis("off")
    for ax, (above, image, *both) in zip(axes, shown, strict=False):
        show_image(ax, image)
        for masks, pen in zip(both, (TRUTH, PREDICTION), strict=True):
            for mask in masks:
                outline_mask(ax, mask, pen)
        ax.set_title(above)
    look.legend(figure, [(TRUTH, "truth"), (PREDICTION, "found")])
    return figure


@look.readable
def precision_and_recall(overlaps: Mapping[str, Array], objects: Mapping[str, int]) -> Figure:
    """Precision against recall at IoU 0.5, a line per class.

    Args:
        overlaps: class -> IoU per mask by falling score. objects: class -> how many there are.
    """
    alt = (
        f"A line each for {', '.join(overlaps)}. As less confident masks are counted in, "
        "recall grows and precision falls."
    )
    title = "The most confident masks first: precision and recall"
    figure = look.new_picture(4.0, title, alt=alt)
    ax = figure.subplots()
    lines, marks = ("solid", "dashed", "dashdot", "dotted"), "osD^"
    pens = (TRUTH, PREDICTION, POSITIVE, FOLLOWED)
    for k, (name, overlap) in enumerate(overlaps.items()):
        hits = np.cumsum(overlap >= 0.5)
        recall, precision = hits / objects[name], hits / np.arange(1, len(hits) + 1)
        style: dict[str, Any] = {"linestyle": lines[k % 4], "marker": marks[k % 4]}
        colour = pens[k % 4].colour
        ax.plot(recall, precision, label=name, color=colour, markersize=3, **style)
    ax.set(xlabel="recall: objects found", ylabel="precision: masks that are right")
    ax.set(xlim=(0, 1.02), ylim=(0, 1.05))
    ax.legend(frameon=False, ncols=2, loc="upper right")
    return figure
