"""Pictures that only lessons need: an answer beside the right one, the rim, the memory.

next: viz/threads.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..masks import iou
from . import look
from .images import Instances, draw_instances, outline_mask, show_image
from .look import FOLLOWED, IGNORED, PREDICTION, TRUTH, Array, Pen, as_array, draw_box
from .tensors import draw_wall

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LARGEST_WALL = 9  # bins shown per side, so that each has room for its number
LARGEST_GRID = 8  # rows and columns of a matrix shown
MOST_DIGITS = 1e5  # a number from here on is written with an exponent

# --- an answer beside the right one -----------------------------------------------------------


@look.readable
def expected_and_yours(
    expected: Any,
    yours: Any,
    place: Sequence[int],
    labels: tuple[str, str] = ("row", "column"),
    first_column: int = 0,
    tolerance: float = 1e-5,
) -> Figure:
    """An answer beside the right one, around one wrong entry; every wrong entry has a cross.

    Args:
        expected, yours: equal shapes; (N, V, U, H, W) and (V, U, H, W) are drawn as a wall, a
            matrix as numbers, of a stack of either the one that `place` lies in.
        place: the entry that is marked, an index of all axes.
        labels: of a matrix's rows and columns.
        first_column: what a matrix's first column is called, where it is not entry 0.
        tolerance: a difference beyond it is wrong.
    """
    right, given = as_array(expected).astype(float), as_array(yours).astype(float)
    wrong = ~np.isclose(given, right, rtol=0, atol=tolerance)
    name = f"out[{', '.join(map(str, place))}]"
    if first_column:
        name = f"{labels[0]} = {place[0]}, {labels[1]} {place[1] + first_column}"
    title = f"{int(wrong.sum())} of {wrong.size} values are wrong; marked: {name}"
    alt = f"The expected values beside yours. {title}; every wrong one has a cross."
    while right.ndim > 4 or right.ndim == 3:  # the image or plane that is marked
        right, given, wrong = right[place[0]], given[place[0]], wrong[place[0]]
        place = place[1:]
    if right.ndim == 4:
        figure = _walls((right, given), wrong, place, title)
    else:
        figure = _matrices((right, given), wrong, place, labels, title)
    figure.alt = alt  # type: ignore[attr-defined]
    for ax in figure.axes if right.ndim < 4 else ():
        ax.xaxis.set_major_formatter(lambda column, _: f"{column + first_column:.0f}")
        ax.locator_params(integer=True)
    return figure


def _walls(pair: tuple[Array, Array], wrong: Array, place: Sequence[int], title: str) -> Figure:
    """Two walls, cut to the blocks around a place."""
    num_v, num_u, height, width = wrong.shape
    rows = _around(place[2], height, max(2, LARGEST_WALL // num_v))
    columns = _around(place[3], width, max(2, LARGEST_WALL // num_u))
    tallness = num_v * len(rows) / (num_u * len(columns))
    figure = look.new_picture(1.0 + look.WIDTH_INCHES / 2.2 * min(1.3, tallness), title)
    low, high = float(pair[0].min()), float(pair[0].max())
    spot = (*place[:2], place[2] - rows[0], place[3] - columns[0])
    for ax, name, values in zip(
        figure.subplots(1, 2), ("expected", "yours"), pair, strict=True
    ):
        cut = values[:, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        shades = (np.clip(cut, low, high) - low) / max(high - low, 1e-9)
        wall = draw_wall(ax, 0.5 * shades, (rows[0], columns[0]), name)
        crossed = wrong[:, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        for index in np.ndindex(*cut.shape):
            x0, y0, x1, y1 = wall.bin(*(int(i) for i in index))
            is_crossed = name == "yours" and bool(crossed[index])
            _number(ax, ((x0 + x1) / 2, (y0 + y1) / 2), float(cut[index]), is_crossed)
        draw_box(ax, wall.bin(*spot), FOLLOWED, 2.4)
        ax.set(xlabel="x (cells)", ylabel="y (cells)")
    return figure


def _matrices(
    pair: tuple[Array, Array],
    wrong: Array,
    place: Sequence[int],
    labels: tuple[str, str],
    title: str,
) -> Figure:
    """Two matrices as numbers, cut to what lies around a place."""
    right, given = (np.atleast_2d(values) for values in pair)
    wrong, (row, column) = np.atleast_2d(wrong), (0, *place)[-2:]
    rows = _around(row, wrong.shape[0], LARGEST_GRID)
    columns = _around(column, wrong.shape[1], LARGEST_GRID)
    tallness = len(rows) / len(columns)
    figure = look.new_picture(1.0 + look.WIDTH_INCHES / 2.3 * min(1.2, tallness), title)
    low, high = float(right.min()), float(right.max())
    for ax, name, values in zip(
        figure.subplots(1, 2), ("expected", "yours"), (right, given), strict=True
    ):
        cut = values[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        extent = (columns[0] - 0.5, columns[-1] + 0.5, rows[-1] + 0.5, rows[0] - 0.5)
        brightest = high + (high - low) + 1e-9  # no ground as dark as the numbers on it
        shades: dict[str, Any] = {"cmap": look.mask_shades(), "vmin": low, "vmax": brightest}
        ax.imshow(cut, extent=extent, aspect="equal", **shades)
        for r, c in np.ndindex(*cut.shape):
            at = (columns[0] + c, rows[0] + r)
            _number(ax, at, float(cut[r, c]), name == "yours" and bool(wrong[at[1], at[0]]))
        draw_box(ax, (column - 0.5, row - 0.5, column + 0.5, row + 0.5), FOLLOWED, 2.4)
        ax.set(title=name, xlabel=labels[1])
        look.name_rows(ax, labels[0])
    return figure


def _around(place: int, extent: int, most: int) -> range:
    """At most so many neighbouring indices, this one as near the middle as the ends allow."""
    first = min(max(place - most // 2, 0), max(extent - most, 0))
    return range(first, min(first + most, extent))


def _number(ax: Axes, at: tuple[float, float], value: float, is_wrong: bool) -> None:
    """A value in three characters or so; a wrong one coloured and crossed."""
    is_whole = value == round(value) if np.isfinite(value) else True
    words = f"{value:.0f}" if is_whole or abs(value) >= 10 else f"{value:.1f}"
    if np.isfinite(value) and abs(value) >= MOST_DIGITS:  # memory that nothing was written into
        words = f"{value:.0e}"
    elif abs(value) < 1 and not is_whole:
        words = f"{value:.2f}".replace("0.", ".", 1)
    colour = PREDICTION.colour if is_wrong else "black"
    weight = "bold" if is_wrong else "normal"
    ax.text(*at, words, ha="center", va="center", color=colour, weight=weight)
    if is_wrong:
        ax.plot(at[0] + 0.33, at[1] - 0.33, "x", color=colour, markersize=3, markeredgewidth=1)


# --- the swap, its rim and its price ----------------------------------------------------------


@look.readable
def half_cells(num_v: int = 3, lam: int = 2) -> Figure:
    """Where the fine bins of a window lie among its coarse ones: between them, a rim outside.

    Args:
        num_v: coarse bins V.
        lam: fine bins per coarse one.
    """
    title = f"V = {num_v} coarse bins, λ = {lam}: {lam * num_v} fine bins in the same window"
    alt = (
        f"A row of {num_v} coarse bins with a pad value on either side. Below them "
        f"{lam * num_v} fine bins in the same width; a line leads from each up to the place "
        "that it reads, between two coarse centres, at the ends beyond the outermost."
    )
    figure = look.new_picture(3.0, title, alt=alt)
    ax = figure.subplots()
    for k in range(-1, num_v + 1):
        _coarse_bin(ax, k, inside=0 <= k < num_v)
    for v in range(lam * num_v):
        _fine_bin(ax, v, lam)
    ax.set(xlim=(-1.55, num_v + 0.55), ylim=(-1.6, 1.1), yticks=[], xticks=range(num_v))
    ax.set_xlabel("place (coarse bins): v lies at (v + 1/2)/λ - 1/2")
    ax.spines[:].set_visible(False)
    coarse, fine = (TRUTH, "coarse, ■ its centre"), (PREDICTION, "fine, ◆ its centre")
    look.legend(figure, [coarse, fine, (IGNORED, "outside")])
    return figure


def _coarse_bin(ax: Axes, k: int, inside: bool) -> None:
    """Entry k of the window, or a place beside it, where the pad value counts."""
    box = (k - 0.5, 0.0, k + 0.5, 1.0)
    if inside:
        draw_box(ax, box, TRUTH, 1.6)
        ax.plot(k, 0.5, TRUTH.marker, color=TRUTH.colour, markersize=7)
    else:
        look.hatch(ax, box)
    words = f"entry {k}" if inside else "pad value"
    back = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
    ax.text(k, 0.72, words, ha="center", bbox=back)


def _fine_bin(ax: Axes, v: int, lam: int) -> None:
    """Bin v below the coarse ones, with a line up to the place it reads."""
    centre, colour = (v + 0.5) / lam - 0.5, PREDICTION.colour
    draw_box(ax, (centre - 0.5 / lam, -1.55, centre + 0.5 / lam, -0.45), PREDICTION, 1.2)
    ax.plot(centre, -0.62, PREDICTION.marker, color=colour, markersize=5)
    ax.plot([centre, centre], [-0.55, 0.5], color=colour, linestyle="dotted", linewidth=1)
    ax.text(centre, -1.12, f"v = {v}\n{centre:g}", ha="center", va="center")


@look.readable
def rim(side_bins: int, lams: Sequence[int] = (1, 2, 4)) -> Figure:
    """The rim of the fused op: the pad value's share in every bin of a window.

    Args:
        side_bins: V = U of the input.
        lams: one window each.
    """
    sizes = ", ".join(f"{lam * side_bins} x {lam * side_bins}" for lam in lams)
    alt = (
        f"Windows of {sizes} bins, shaded by the pad value's share in each bin. It is 0 inside "
        "and grows towards the rim, which is λ / 2 bins wide; the corners have most."
    )
    figure = look.new_picture(2.9, "The rim: what share of a bin is pad value", alt=alt)
    axes = figure.subplots(1, len(lams), squeeze=False)[0]
    for ax, lam in zip(axes, lams, strict=True):
        share = _pad_share(side_bins, lam)  # (bins, bins)
        bins, middle = len(share), len(share) // 2
        shades: dict[str, Any] = {"cmap": look.mask_shades(), "vmin": 0, "vmax": 0.8}
        drawn = ax.imshow(share, interpolation="nearest", **shades)
        ends = f"edge {share[0, middle]:.2g}, corner {share[0, 0]:.2g}"
        ax.set_title(f"λ = {lam}: rim {lam // 2},\n{ends}")
        ax.set(xlabel="u (fine bins)", xticks=[0, bins - 1], yticks=[0, bins - 1])
    axes[0].set_ylabel("v (fine bins)")
    figure.colorbar(drawn, ax=axes, label="share of pad value", shrink=0.8)
    return figure


def _pad_share(side_bins: int, lam: int) -> Array:
    """Per bin the weight that falls outside, for a window in the middle of the grid."""
    from ..reference import swap_align2nat_windows

    cells = 3 * side_bins * lam
    # The op on ones with pad 0 gives the weight that falls inside.
    x = np.ones((1, side_bins, side_bins, cells, cells), np.float32)
    middle = np.array([[0, cells // (2 * lam), cells // (2 * lam)]])
    return np.asarray(1 - swap_align2nat_windows(x, lam, middle, 0.0)[0])


@look.readable
def memory_bars(
    names: Sequence[str], between: Sequence[float], fused: Sequence[float]
) -> Figure:
    """MiB with the tensor between and fused, per level, on a log scale.

    Args:
        names: one per pair of bars.
        between, fused: MiB.
    """
    title = "Mask values of one image: with the tensor between, and fused"
    alt = (
        f"Two bars per level, on a log scale. With the tensor between they grow from "
        f"{_short(between[0])} to {_short(between[-1])}, fused from {_short(fused[0])} to "
        f"{_short(fused[-1])}; numbers without a unit are MiB."
    )
    figure = look.new_picture(3.1, title, alt=alt)
    ax = figure.subplots()
    position = np.arange(len(names))
    hatched: dict[str, Any] = {"color": "white", "edgecolor": PREDICTION.colour, "hatch": "///"}
    filled: dict[str, Any] = {"color": TRUTH.colour, "edgecolor": TRUTH.colour, "hatch": ""}
    bars = [
        ax.bar(position - 0.2, between, 0.38, label="with the tensor between", **hatched),
        ax.bar(position + 0.2, fused, 0.38, label="fused", **filled),
    ]
    for drawn, values in zip(bars, (between, fused), strict=True):
        ax.bar_label(drawn, [_short(value) for value in values], padding=1)
    ax.set(yscale="log", ylabel="MiB, float32 (log scale)", xlabel="level")
    ax.set_ylim(min(fused) / 3, max(between) * 4)
    ax.set_xticks(position, names)
    ax.legend(frameon=False, loc="upper left")
    return figure


def _short(mebibytes: float) -> str:
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 1024 else f"{mebibytes:.0f}"


# --- objects and whole pictures ---------------------------------------------------------------


@look.styled
def one_object(image: Any, truth: Any, masks: Mapping[str, Any], title: str = "") -> Figure:
    """One object, close up, as several ways of making bins can store it, each over the truth.

    Args:
        image: (3, H, W). truth: (H, W) bool, with a pixel at least.
        masks: by name (H, W) bool.
    """
    stored = {name: iou(as_array(mask), as_array(truth)) for name, mask in masks.items()}
    said = ", ".join(f"{name} {value:.3f}" for name, value in stored.items())
    alt = f"One object over and over, its true outline and what the bins can say. IoU: {said}."
    wide = look.NARROW_INCHES
    figure = look.new_picture(wide / (len(masks) + 0.3) + 0.9, title, wide, alt)
    axes = figure.subplots(1, len(masks), squeeze=False)[0]
    pixels = np.argwhere(as_array(truth))  # (pixels, 2): y, x
    (top, left), (bottom, right) = pixels.min(0), pixels.max(0)
    half = 0.6 * max(bottom - top, right - left)  # of what is shown: a square around the object
    x, y = (left + right) / 2, (top + bottom) / 2
    for ax, (name, mask) in zip(axes, masks.items(), strict=True):
        show_image(ax, image)
        outline_mask(ax, truth, TRUTH, 1.2)
        outline_mask(ax, mask, PREDICTION, 1.6)
        ax.set_title(f"{name}\nIoU {stored[name]:.3f}")
        ax.set(xlim=(x - half, x + half), ylim=(y + half, y - half), facecolor=look.PAPER)
        ticks = [round(tick) for tick in (x - half, x, x + half)]
        ax.set(xticks=ticks, yticks=[round(tick) for tick in (y - half, y, y + half)])
        ax.set_xlabel("x (px)", labelpad=4)
        ax.set_ylabel("y (px)", labelpad=6)
    look.legend(figure, [(TRUTH, "true outline"), (PREDICTION, "what the bins can say")])
    return figure


@look.styled
def beside(truth: Array, windows: Mapping[str, Array]) -> Figure:
    """A window's mask, made in several ways, each under the true outline and with its IoU.

    truth: bool (V, U); windows: by name (v, u) values in [0, 1], of any number of bins.
    """
    said = {}
    for name, values in windows.items():
        fine = np.kron(values, np.ones([side // len(values) for side in truth.shape]))
        said[name] = iou(fine >= 0.5, truth)
    listed = ", ".join(f"{name} {value:.2f}" for name, value in said.items())
    alt = f"The same window's mask in {len(said)} ways over the true outline. IoU: {listed}."
    rows = -(-len(windows) // 2)
    figure = look.new_picture(2.3 * rows, "", look.NARROW_INCHES, alt)
    axes = figure.subplots(rows, 2, squeeze=False).ravel()
    edge = len(truth) - 0.5
    for ax, (name, values) in zip(axes, windows.items(), strict=False):
        shades: dict[str, Any] = {"cmap": look.mask_shades(), "vmin": 0, "vmax": 1}
        ax.imshow(values, extent=(-0.5, edge, edge, -0.5), interpolation="nearest", **shades)
        ax.contour(np.pad(truth, 1)[1:-1, 1:-1], [0.5], colors="white", linewidths=3)
        ax.contour(truth, [0.5], colors=TRUTH.colour, linewidths=1.6)
        ax.set(title=f"{name}\nIoU {said[name]:.2f}", xticks=[], yticks=[])
    look.legend(figure, [(TRUTH, "true outline")])
    return figure


@look.readable
def truth_beside_prediction(
    image: Any, truth: Instances, prediction: Instances, class_names: Sequence[str]
) -> Figure:
    """One image twice, side by side: with the truth, with the predictions.

    Args:
        image: (3, H, W).
        truth, prediction: as in `draw_instances`.
    """
    title = "The same picture: what is there, and what the network found"
    names, found = (
        ", ".join(class_names[int(label)] for label in as_array(objects["labels"]))
        for objects in (truth, prediction)
    )
    alt = f"Outlines with names on one image. Left, the truth: {names}. Right, found: {found}."
    left, right = look.new_picture(4.1, title, alt=alt).subplots(1, 2)
    words = "truth (solid)"
    draw_instances(image, truth, class_names, words, left, TRUTH, boxes=False)
    words = "prediction (dashed), with scores"
    draw_instances(image, prediction, class_names, words, right, PREDICTION, boxes=False)
    return cast("Figure", left.figure)


# --- what happens to single entries -----------------------------------------------------------


@look.readable
def gradient_paths(grad: Any, title: str = "") -> Figure:
    """Where a gradient arrives in an aligned tensor: a dot in every bin that gets some.

    Args:
        grad: (V, U, H, W).
        title: over the picture.
    """
    values = as_array(grad)
    alt = f"A wall of bins; a dot marks the {np.count_nonzero(values)} that get a gradient."
    figure = look.new_picture(3.1, title, alt=alt)
    ax = figure.subplots()
    wall = draw_wall(ax, (values != 0).astype(float))
    for place in np.argwhere(values):
        x0, y0, x1, y1 = wall.bin(*(int(i) for i in place))
        ax.plot((x0 + x1) / 2, (y0 + y1) / 2, FOLLOWED.marker, color="white", markersize=4)
    ax.set(xlabel="x (cells)", ylabel="y (cells)")
    return figure


@look.readable
def survivors(mask: Any, title: str = "") -> Figure:
    """Which entries of a natural tensor come back from a round trip: the others are hatched.

    Args:
        mask: (V, U, H, W) bool.
        title: over the picture.
    """
    values = np.where(as_array(mask), 0.55, np.nan)
    lost = int(np.isnan(values).sum())
    alt = (
        f"A wall of bins: {values.size - lost} come back from the round trip, {lost} at the "
        "rim of the picture are hatched and lost."
    )
    figure = look.new_picture(3.9, title, alt=alt)
    ax = figure.subplots()
    draw_wall(ax, values)
    ax.set(xlabel="window centre x (cells)", ylabel="window centre y (cells)")
    entries = [(Pen("back", look.INK, "solid"), "comes back")]
    look.legend(figure, [*entries, (IGNORED, "lost: it spoke of a pixel outside")])
    return figure
