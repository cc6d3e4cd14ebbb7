"""The (V, U, H, W) tensor in pictures: natural and aligned, the fused swap, the bipyramid.

next: viz/curves.py
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from ..geometry import Geometry
from . import look
from .images import outline_mask, show_image
from .look import FOLLOWED, IGNORED, POSITIVE, TRUTH, Array, Pen, as_array, draw_box

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OUTSIDE = -1.0  # a pad value that no mask value or pixel number equals
ENTRY = Pen("entry", "#D0D0D0", "solid")


def natural_of(mask: Any, side_bins: int, outside: float = 0.0) -> Array:
    """The natural tensor of one mask, alpha = 1: a cell stores what its own window sees.

    Args:
        mask: (H, W) values, one per cell.
        side_bins: V = U, odd, so that windows are centred on cells.
        outside: value beyond the mask.

    Returns:
        (V, U, H, W): entry (v, u, y, x) is mask[y + v - (V-1)/2, x + u - (U-1)/2].
    """
    half = (side_bins - 1) // 2
    padded = np.pad(as_array(mask).astype(float), half, constant_values=outside)
    by_cell = np.lib.stride_tricks.sliding_window_view(padded, (side_bins, side_bins))
    # (H, W, V, U): a window per cell
    return np.ascontiguousarray(by_cell.transpose(2, 3, 0, 1))


# --- the wall ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wall:
    """A (V, U, H, W) tensor laid out in the plane: H x W blocks of V x U bins.

    v, u: bins of a block. gap: between two blocks, in bins.
    """

    v: int
    u: int
    gap: float = 0.6

    def block(self, y: int, x: int) -> tuple[float, float, float, float]:
        """Cell (y, x)'s block as xyxy, in bins."""
        left, top = x * (self.u + self.gap), y * (self.v + self.gap)
        return left, top, left + self.u, top + self.v

    def bin(self, v: int, u: int, y: int, x: int) -> tuple[float, float, float, float]:
        """Entry (v, u, y, x)'s square as xyxy, in bins."""
        left, top, _, _ = self.block(y, x)
        return left + u, top + v, left + u + 1, top + v + 1


def draw_wall(ax: Axes, tensor: Any, first: tuple[int, int] = (0, 0), title: str = "") -> Wall:
    """Draw a tensor as a wall: each cell (y, x) shows its V x U values.

    Args:
        tensor: (V, U, H, W) values in [0, 1], or NaN, which is drawn as ignored.
        first: (y, x) of the first cell, when the tensor is a cut-out.

    Returns:
        The layout, to mark bins with.
    """
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    values = as_array(tensor).astype(float)
    v, u, height, width = values.shape
    wall = Wall(v, u)
    squares = [(wall.bin(*index), values[index]) for index in np.ndindex(*values.shape)]
    # One collection for all bins draws in a fraction of the time of as many rectangles.
    known = [(Rectangle(box[:2], 1, 1), value) for box, value in squares if not np.isnan(value)]
    bins = PatchCollection([square for square, _ in known], edgecolor="white", linewidth=0.4)
    bins.set(array=[value for _, value in known], cmap=look.mask_shades(), clim=(0, 1))
    ax.add_collection(bins)
    for box in (box for box, value in squares if np.isnan(value)):
        look.hatch(ax, box)
    _, _, right, bottom = wall.block(height - 1, width - 1)
    limits = {"xlim": (-wall.gap, right + wall.gap), "ylim": (bottom + wall.gap, -wall.gap)}
    ax.set(title=title, aspect="equal", **limits)
    centres_x = [wall.block(0, x)[0] + u / 2 for x in range(width)]
    centres_y = [wall.block(y, 0)[1] + v / 2 for y in range(height)]
    ax.set_xticks(centres_x, [str(first[1] + x) for x in range(width)])
    ax.set_yticks(centres_y, [str(first[0] + y) for y in range(height)])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return wall


def mark_block(ax: Axes, box: Sequence[float], pen: Pen) -> None:
    """Outline a block of a wall."""
    draw_box(ax, box, pen, width=2.2)


def mark_bin(ax: Axes, box: Sequence[float], pen: Pen) -> None:
    """Outline one bin of a wall, with the pen's marker inside: a line pattern does not fit."""
    x0, y0, x1, y1 = box
    inset = 0.06 * (x1 - x0)
    inner = (x0 + inset, y0 + inset, x1 - inset, y1 - inset)
    draw_box(ax, inner, replace(pen, line="solid"), width=1.3)
    middle = ((x0 + x1) / 2, (y0 + y1) / 2)
    ax.plot(*middle, pen.marker, color="white", markersize=6, markeredgewidth=2.4)
    ax.plot(*middle, pen.marker, color=pen.colour, markersize=4, markeredgewidth=1.4)


# --- one tensor, two ways to file it ----------------------------------------------------------


@look.readable
def window_wall(
    tensor: Any,
    image: Any,
    sigma_hw: float,
    sigma_vu: float,
    mask: Any = None,
    window: tuple[int, int] | None = None,
) -> Figure:
    """A natural tensor as a wall of windows, beside the image it describes.

    Args:
        tensor: (V, U, H, W) natural mask values in [0, 1].
        image: (3, Himage, Wimage).
        sigma_hw: pixels between cells; cell (y, x) is centred at pixel
            (y * sigma_hw, x * sigma_hw).
        sigma_vu: pixels between bins.
        mask: (Himage, Wimage) of the object the tensor describes, outlined in the image.
        window: (y, x) of the window marked in both; by default the middle.
    """
    values = as_array(tensor)
    v, u, height, width = values.shape
    y, x = window if window is not None else (height // 2, width // 2)
    shape = f"({v}, {u}, {height}, {width})"
    alt = (
        f"Left: an image with a cross every {sigma_hw:g} px and a window of {v} x {u} bins "
        f"around one of them. Right: {height} x {width} blocks, a window's bins in each; those "
        "near the object hold pieces of its mask."
    )
    title = f"A mask tensor of shape (V, U, H, W) = {shape}"
    figure = look.new_picture(4.1, title, alt=alt)
    left, right = figure.subplots(1, 2, width_ratios=[0.8, 1])
    show_image(left, image)
    if mask is not None:
        outline_mask(left, mask, TRUTH)
    draw_cells(left, height, width, sigma_hw)
    draw_window(left, (y * sigma_hw, x * sigma_hw), (v, u), sigma_vu)
    window_words = f"square: one window, bins of {sigma_vu:g} px"
    left.set_title(f"+: a cell every {sigma_hw:g} px,\n{window_words}")
    words = f"block (y, x): the window of that cell,\n{v} x {u} bins of mask"
    wall = draw_wall(right, values, title=words)
    mark_block(right, wall.block(y, x), POSITIVE)
    right.set(xlabel="x (cells)", ylabel="y (cells)")
    return figure


def _outside_as_nan(tensor: Array) -> Array:
    """NaN, drawn as ignored, where the transforms put `OUTSIDE`."""
    return np.where(tensor == OUTSIDE, np.nan, tensor)


def draw_cells(ax: Axes, height: int, width: int, sigma_hw: float, size: float = 4.0) -> None:
    """A cross at the pixel of every cell. size: of a cross, in points."""
    x, y = np.meshgrid(np.arange(width) * sigma_hw, np.arange(height) * sigma_hw)  # (H, W) each
    ax.plot(x, y, "+", color="white", markersize=size + 1, markeredgewidth=2.2, clip_on=False)
    ax.plot(x, y, "+", color="black", markersize=size, markeredgewidth=0.9, clip_on=False)


def draw_window(
    ax: Axes, centre_px: tuple[float, float], bins: tuple[int, int], sigma_vu: float
) -> None:
    """One window with its bins at true scale; centre (y, x), bins (V, U)."""
    (cy, cx), (v, u) = centre_px, bins
    y = cy + (np.arange(v + 1) - v / 2) * sigma_vu
    x = cx + (np.arange(u + 1) - u / 2) * sigma_vu
    ax.hlines(y, x[0], x[-1], color=POSITIVE.colour, linewidth=0.6)
    ax.vlines(x, y[0], y[-1], color=POSITIVE.colour, linewidth=0.6)
    draw_box(ax, (x[0], y[0], x[-1], y[-1]), POSITIVE, 2)


@look.readable
def two_representations(
    natural: Any,
    pixel: tuple[int, int] | None = None,
    window: tuple[int, int] | None = None,
) -> Figure:
    """The same values filed in two ways, lit up: what is one block here is spread out there.

    Args:
        natural: (V, U, H, W) mask values in [0, 1], alpha = 1, V = U odd.
        pixel: (y, x) whose values are followed; by default the middle.
        window: (y, x) of the window that is marked; by default one cell up and left of the
            pixel.
    """
    from .. import reference

    values = as_array(natural)
    v, u, height, width = values.shape
    half_v, half_u = (v - 1) // 2, (u - 1) // 2
    py, px = pixel if pixel is not None else (height // 2, width // 2)
    wy, wx = window if window is not None else (py - 1, px - 1)
    aligned = _outside_as_nan(reference.nat2align(values[None], pad_value=OUTSIDE)[0])
    alt = (
        f"Two walls of {height} x {width} blocks with the same values. What is said of pixel "
        f"({py}, {px}) lies in as many blocks as bins on the left, in one block on the right; "
        f"window ({wy}, {wx}) is one block on the left and scattered on the right."
    )
    figure = look.new_picture(4.3, "Two ways to file the same mask values", alt=alt)
    left, right = figure.subplots(1, 2)
    in_natural = draw_wall(left, values, title="natural: one block = one window")
    in_aligned = draw_wall(right, aligned, title="aligned: one block = one pixel")
    for bin_v, bin_u in np.ndindex(v, u):
        dv, du = bin_v - half_v, bin_u - half_u  # counted from the centre
        # natural: pixel (py, px) is bin (dv, du) of the window dv rows up, du columns left
        if 0 <= py - dv < height and 0 <= px - du < width:
            mark_bin(left, in_natural.bin(bin_v, bin_u, py - dv, px - du), FOLLOWED)
        # aligned: window (wy, wx) says bin (dv, du) at the pixel dv rows down, du columns right
        if 0 <= wy + dv < height and 0 <= wx + du < width:
            mark_bin(right, in_aligned.bin(bin_v, bin_u, wy + dv, wx + du), POSITIVE)
    mark_block(left, in_natural.block(wy, wx), POSITIVE)
    mark_block(right, in_aligned.block(py, px), FOLLOWED)
    left.set(xlabel="window centre x (cells)", ylabel="window centre y (cells)")
    right.set(xlabel="pixel x (cells)", ylabel="pixel y (cells)")
    window_word, pixel_word = f"× window ({wy}, {wx})", f"● pixel ({py}, {px})"
    entries = [(POSITIVE, window_word), (FOLLOWED, pixel_word), (IGNORED, "outside: pad value")]
    look.legend(figure, entries)
    return figure


@look.readable
def diagonal_shear(
    extent: int = 9, side_bins: int = 5, pixel: int = 4, window: int = 3
) -> Figure:
    """align2nat in the (v, y) plane: row v slides by v cells, so stripes turn into diagonals.

    Numbers are pixels: each entry says which pixel it speaks of.

    Args:
        extent: cells H of the one-dimensional image.
        side_bins: V, odd.
        pixel: the pixel followed.
        window: the window marked.
    """
    from .. import reference

    half = (side_bins - 1) // 2
    pixels = np.broadcast_to(np.arange(extent, dtype=float), (side_bins, extent))
    aligned = pixels.reshape(1, side_bins, 1, extent, 1)
    natural = _outside_as_nan(reference.align2nat(aligned, pad_value=OUTSIDE))
    alt = (
        f"Two planes of numbers, v down and y to the right. Above, pixel {pixel} is a column "
        f"and window {window} a diagonal. Below, row v has slid by v cells: the pixel is a "
        "diagonal, the window a column."
    )
    title = "align2nat is a shear of the (v, y) plane"
    figure = look.new_picture(6.2, title, alt=alt)
    upper, lower = figure.subplots(2, 1, sharex=True)
    _plane(upper, aligned[0, :, 0, :, 0])
    _plane(lower, natural[0, :, 0, :, 0])
    words = "aligned: a column is one pixel, seen from V windows;\na window is a diagonal"
    upper.set_title(words)
    words = "natural: a column is one window, its V bins in order;\na pixel is a diagonal"
    lower.set_title(words)
    for v in range(-half, half + 1):
        row = v + half
        _square(upper, row, pixel, FOLLOWED, dot=True)
        _square(upper, row, window + v, POSITIVE)
        _square(lower, row, pixel - v, FOLLOWED, dot=True)
        _square(lower, row, window, POSITIVE)
        slide = f"slide {abs(v)} {'left' if v > 0 else 'right'}" if v else "stay"
        lower.text(extent - 0.3, row, slide, va="center")
    look.name_rows(upper, "v")
    words = "y (cells): above of the pixel, below of the window's centre"
    lower.set_xlabel(words)
    look.name_rows(lower, "v")
    entries = [(FOLLOWED, f"pixel {pixel}"), (POSITIVE, f"window {window}")]
    look.legend(figure, [*entries, (IGNORED, "outside: pad value")])
    return figure


def _plane(ax: Axes, pixels: Array) -> None:
    """A (V, H) plane of pixel numbers, v centred at 0."""
    rows, columns = pixels.shape
    half = (rows - 1) // 2
    for row, column in np.ndindex(rows, columns):
        box = (column - 0.5, row - 0.5, column + 0.5, row + 0.5)
        if np.isnan(pixels[row, column]):
            look.hatch(ax, box)
        else:
            draw_box(ax, box, ENTRY, 0.5)
            number = f"{pixels[row, column]:.0f}"
            ax.text(column, row, number, ha="center", va="center")
    ax.set(xlim=(-0.52, columns + 1.2), ylim=(rows - 0.48, -0.52))
    ax.set_xticks(range(columns))
    ax.set_yticks(range(rows), [f"{v:+d}" if v else "0" for v in range(-half, half + 1)])
    ax.tick_params(length=0, labelbottom=True)
    ax.spines[:].set_visible(False)


def _square(ax: Axes, row: int, column: int, pen: Pen, dot: bool = False) -> None:
    """Mark one entry of a plane, if it is inside."""
    rows, columns = len(ax.get_yticks()), len(ax.get_xticks())  # a tick each
    if 0 <= row < rows and 0 <= column < columns:
        inset = 0.06 if dot else 0.14  # two marks on one entry both show
        box = (column - 0.5 + inset, row - 0.5 + inset, column + 0.5 - inset, row + 0.5 - inset)
        draw_box(ax, box, pen, fill=dot)


# --- the swap ---------------------------------------------------------------------------------


@look.readable
def sixteen_taps(
    side_bins: int = 3, lam: int = 2, output: tuple[int, int, int, int] = (4, 1, 2, 2)
) -> Figure:
    """Which input entries make one output entry of swap_align2nat, and with which weights.

    The weights are the reference's own adjoint, not a second formula.

    Args:
        side_bins: V = U of the input.
        lam: unit ratio.
        output: the output entry (v, u, y, x).
    """
    v, u, y, x = output
    weights = _tap_weights(side_bins, lam, output)  # (V, U, H, W)
    taps = np.argwhere(weights)  # (taps, 4): v, u, y, x
    # Weights are products of fractions: over their common denominator they are whole numbers.
    shares = [Fraction(weights[tuple(tap)]).limit_denominator(4096) for tap in taps]
    unit = math.lcm(*(share.denominator for share in shares))
    top, left = np.maximum(taps[:, 2:].min(0) - 1, 0)
    bottom, right = taps[:, 2:].max(0) + 2

    title = f"The {len(taps)} taps of one entry of swap_align2nat, λ = {lam}"
    outside, bins = int(unit - sum(shares) * unit), lam * side_bins
    alt = (
        f"Left: one of {bins} x {bins} bins of a window. Right: the {len(taps)} input entries "
        f"that it is made of, each with its weight in parts of {unit}; {outside} parts fall "
        "outside."
    )
    figure = look.new_picture(4.2, title, alt=alt)
    result, source = figure.subplots(1, 2, width_ratios=[0.6, 1])
    empty = np.zeros((bins, bins, 1, 1))  # one cell's window
    wall = draw_wall(result, empty, title=f"output: window of cell ({y}, {x})")
    mark_bin(result, wall.bin(v, u, 0, 0), FOLLOWED)
    result.set_xticks(np.arange(bins) + 0.5, range(bins))
    result.set_yticks(np.arange(bins) + 0.5, range(bins))
    result.set(xlabel="u (output bins)", ylabel="v (output bins)")
    shown = np.zeros_like(weights[:, :, top:bottom, left:right])
    wall = draw_wall(source, shown, (top, left), f"input: weights, parts of {unit}")
    for tap, share in zip(taps, shares, strict=True):
        x0, y0, x1, y1 = box = wall.bin(tap[0], tap[1], tap[2] - top, tap[3] - left)
        draw_box(source, box, FOLLOWED, width=1.2, fill=True)
        middle = ((x0 + x1) / 2, (y0 + y1) / 2)
        source.text(*middle, str(int(share * unit)), ha="center", va="center")
    rest = f" + {outside} of the pad value outside" if outside else ""
    source.set(xlabel=f"x (input cells)\nsum: {unit - outside}{rest}", ylabel="y (input cells)")
    return figure


def _tap_weights(side_bins: int, lam: int, output: tuple[int, int, int, int]) -> Array:
    """The weight of every input entry (V, U, H, W) in one output entry."""
    from ..reference import swap_align2nat_windows_adjoint

    v, u, y, x = output
    one = np.zeros((1, lam * side_bins, lam * side_bins))  # one window, of bin (v, u) alone
    one[0, v, u] = 1.0
    cells = lam * (max(y, x) + side_bins)
    shape = (1, side_bins, side_bins, cells, cells)
    return np.asarray(swap_align2nat_windows_adjoint(one, lam, np.array([[0, y, x]]), shape)[0])


# --- the bipyramid ----------------------------------------------------------------------------


@look.readable
def bipyramid(geometry: Geometry) -> Figure:
    """The largest window of each level at true scale, filled with the same object.

    Above bins grow with the stride (feature pyramid), below they keep their size (tensor
    bipyramid).

    Args:
        geometry: strides and sides; both rows are drawn whatever its `bipyramid` says.
    """
    size_id = geometry.num_sizes - 1
    sides = [geometry.side_px(level, size_id) for level in range(geometry.num_levels)]
    slots = [max(side, 0.2 * sum(sides)) for side in sides]  # room for the words
    lefts = np.cumsum([0.0, *(slot + 0.03 * sides[-1] for slot in slots)])
    total = float(lefts[-1])
    height = 2 * (look.WIDTH_INCHES * sides[-1] / total + 1.3)
    alt = (
        f"A lobed object in a window of each level, {', '.join(map(str, sides))} px long. "
        "Above, every window has as many bins, so it is coarse in the large ones. Below, bins "
        "keep their size, and the largest window draws it finest."
    )
    figure = look.new_picture(height, "A window of every level, at true scale", alt=alt)
    upper, lower = figure.subplots(2, 1)
    upper.set_title("feature pyramid: bins grow with the stride")
    lower.set_title("tensor bipyramid: bins keep their size")
    for ax, keeps_bins in ((upper, False), (lower, True)):
        pyramid = Geometry(geometry.strides_px, geometry.sides_bins, keeps_bins)
        for level, (left, slot) in enumerate(zip(lefts[:-1], slots, strict=True)):
            _scaled_window(ax, pyramid, level, size_id, left + (slot - sides[level]) / 2, total)
        ax.set(xlim=(0, total), ylim=(1.02 * sides[-1], -0.12 * total), aspect="equal")
        ax.set(xlabel="px", ylabel="px")
        ax.set_yticks([side for side in sides if side >= sides[-1] / 8])
        ax.spines[:].set_visible(False)
    return figure


def _scaled_window(
    ax: Axes, geometry: Geometry, level: int, size_id: int, left: float, total: float
) -> None:
    """One window with its bins and an object in it."""
    side, bins = geometry.side_px(level, size_id), geometry.side_bins(level, size_id)
    edges = np.linspace(0, side, bins + 1)
    visible = side / bins > total / 200  # closer lines would print as a grey area
    shades: dict[str, Any] = {"cmap": look.mask_shades(), "vmin": 0, "vmax": 1}
    lines: dict[str, Any] = {"edgecolors": "white" if visible else "none", "linewidth": 0.3}
    ax.pcolormesh(left + edges, edges, _blob(bins), **shades, **lines, antialiased=visible)
    draw_box(ax, (left, 0, left + side, side), POSITIVE, 1.2)
    words = f"level {level}\n{bins}² bins\nof {geometry.bin_px(level)} px"
    above = (left + side / 2, -0.015 * total)
    ax.text(*above, words, ha="center", va="bottom")


def _blob(bins: int) -> Array:
    """A five-lobed object that fills a window, sampled at the centres of bins x bins."""
    centre = (np.arange(bins) + 0.5) / bins * 2 - 1
    x, y = np.meshgrid(centre, centre)
    return np.asarray(np.hypot(x, y) < 0.64 + 0.22 * np.cos(5 * np.arctan2(x, -y)), dtype=float)
