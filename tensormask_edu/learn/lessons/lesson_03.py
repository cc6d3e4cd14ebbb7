"""The exercises of lesson 03: a mask as a tensor of windows, and its two units of length.

next: learn/lessons/lesson_04.py
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...viz import look
from ...viz.images import outline_mask, show_image
from ...viz.look import POSITIVE, TRUTH, draw_box
from ...viz.tensors import Wall, draw_cells, draw_wall, draw_window, natural_of
from ..cases import Array
from ..kinds import explain, loops, numbers, predict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# --- which windows see an object --------------------------------------------------------------

LEGIBLE = 7  # bins per side whose numbers are written
SEEN = ("exactly one", "about a dozen", "nearly all")


def _how_many(windows: int, of: int) -> str:
    return SEEN[0] if windows == 1 else SEEN[2] if windows > 0.8 * of else SEEN[1]


windows_that_see = predict("windows_that_see", SEEN, _how_many)


# --- the units --------------------------------------------------------------------------------


@numbers({"alpha_a": 0.01, "alpha_b": 0.01, "alpha_c": 0.01, "side_a": 0.5, "row_a": 0.5})
def units() -> dict[str, float]:
    """Numbers of three tensors; per tensor sigma_hw, sigma_vu: a 16 8, b 4 4, c 4 8.

    alpha is sigma_vu / sigma_hw, a window's side V * sigma_vu. Section 3.
    """
    return {
        "alpha_a": 8 / 16,
        "alpha_b": 4 / 4,
        "alpha_c": 8 / 4,
        "side_a": 5 * 8,
        "row_a": 16 * 5 + 8 * -2,
    }


# --- from a mask to the tensor ----------------------------------------------------------------


def _from_all_windows(
    mask: Array, num_v: int, num_u: int, sigma_hw: int, sigma_vu: int, pad_value: float
) -> Array:
    """The same, taken out of the windows of every pixel."""
    reach = sigma_vu * (max(num_v, num_u) - 1) // 2
    of_pixels = natural_of(mask, 2 * reach + 1, pad_value)  # (side, side, h, w)
    rows, columns = (
        slice(reach - sigma_vu * (count // 2), reach + sigma_vu * (count // 2) + 1, sigma_vu)
        for count in (num_v, num_u)
    )
    return of_pixels[rows, columns, ::sigma_hw, ::sigma_hw]


@loops(
    "h w, v, u, sigma_hw, sigma_vu, pad -> v u h/sigma_hw w/sigma_hw",
    by_hand=(10.0 * np.arange(1, 5)[:, None] + np.arange(1, 5), 3, 3, 2, 1, 0.0),
    sizes={"sigma_hw": (1, 2, 3, 2), "sigma_vu": (2, 1, 1, 3, 2)},
    same_as=_from_all_windows,
)
def natural_tensor(
    mask: Array, num_v: int, num_u: int, sigma_hw: int, sigma_vu: int, pad_value: float = 0.0
) -> Array:
    """The natural tensor of a mask: bin (v, u) of cell (y, x) reads one pixel.

    mask: (h, w); num_v, num_u odd -> (V, U, ceil(h / sigma_hw), ceil(w / sigma_hw)).
    Section 3.
    """
    height, width = mask.shape
    rows, columns = math.ceil(height / sigma_hw), math.ceil(width / sigma_hw)  # of cells
    natural = np.full((num_v, num_u, rows, columns), pad_value, mask.dtype)
    for i, j, y, x in np.ndindex(num_v, num_u, rows, columns):
        v = i - (num_v - 1) // 2  # counted from the centre
        u = j - (num_u - 1) // 2
        row = sigma_hw * y + sigma_vu * v
        column = sigma_hw * x + sigma_vu * u
        if 0 <= row < height and 0 <= column < width:
            natural[i, j, y, x] = mask[row, column]
    return natural


why_one_convolution = explain("why_one_convolution", __name__)


# --- pictures ---------------------------------------------------------------------------------


@look.styled
def one_window(
    image: Any, mask: Array, bins: Array, window: tuple[int, int], sigma_hw: int, sigma_vu: int
) -> Figure:
    """One window over the image at true scale, and its bins as numbers.

    image: (3, h, w); mask: bool (h, w), outlined; bins: (V, U) of the window at cell (y, x).
    """
    (y, x), (num_v, num_u) = window, bins.shape
    alt = (
        f"Left: an image with an outlined object, a plus sign every {sigma_hw} pixels, and a "
        f"square of {num_v} x {num_u} small squares around one of them. Right: these "
        f"{bins.size} squares alone, 1 where the middle is on the object, else 0."
    )
    figure = look.new_picture(2.6, "", look.NARROW_INCHES, alt)
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    show_image(left, image)
    outline_mask(left, mask, TRUTH)
    rows, columns = (-(-extent // sigma_hw) for extent in mask.shape)
    draw_cells(left, rows, columns, sigma_hw, size=sigma_hw / 4)
    draw_window(left, (y * sigma_hw, x * sigma_hw), bins.shape, sigma_vu)
    left.set_title(f"the window of cell ({y}, {x})")
    wall = draw_wall(right, 0.5 * bins[:, :, None, None], title=f"its {num_v} x {num_u} bins")
    for v, u in np.ndindex(*bins.shape) if num_v <= LEGIBLE else ():
        x0, y0, x1, y1 = wall.bin(v, u, 0, 0)
        words = f"{bins[v, u]:.0f}"
        right.text((x0 + x1) / 2, (y0 + y1) / 2, words, ha="center", va="center", fontsize=10)
    half_v, half_u = num_v // 2, num_u // 2
    right.set_xticks([0.5, half_u + 0.5, num_u - 0.5], [-half_u, 0, half_u])
    right.set_yticks([0.5, half_v + 0.5, num_v - 0.5], [-half_v, 0, half_v])
    right.set_xlabel("u")
    look.name_rows(right, "v")
    return figure


@look.styled
def wall_over_image(
    image: Any, tensor: Array, window: tuple[int, int], sigma_hw: int, sigma_vu: int
) -> Figure:
    """Every window's mask, small, at its cell in the image; one of them at true scale.

    image: (3, h, w); tensor: (V, U, H, W) of values in [0, 1].
    """
    num_v, num_u, height, width = tensor.shape
    alt = (
        f"{height} x {width} small grids of {num_v} x {num_u} bins over an image, one per "
        "cell. Those near the object show it, each shifted a little. A dashed square "
        "marks how large one window really is: it covers several cells."
    )
    figure = look.new_picture(4.2, "", look.NARROW_INCHES, alt)
    ax = figure.subplots()
    wall = Wall(num_v, num_u, gap=1.0)
    scale = sigma_hw / (num_v + wall.gap)  # pixels per drawn bin
    shades: dict[str, Any] = {"cmap": look.mask_shades(), "vmin": 0, "vmax": 1, "alpha": 0.8}
    for y, x in np.ndindex(height, width):
        left, top, _, _ = wall.block(y, x)
        columns = scale * (left + np.arange(num_u + 1) - num_u / 2)  # edges of bins, pixels
        rows = scale * (top + np.arange(num_v + 1) - num_v / 2)
        lines: dict[str, Any] = {"edgecolors": "white", "linewidth": 0.3}
        ax.pcolormesh(columns, rows, tensor[:, :, y, x], **shades, **lines)
    y, x = window
    draw_box(ax, [scale * (side - num_v / 2) for side in wall.block(y, x)], POSITIVE, 1.8)
    draw_window(ax, (y * sigma_hw, x * sigma_hw), (num_v, num_u), sigma_vu)
    show_image(ax, image)
    low, high = -0.6 * sigma_hw, (width - 0.4) * sigma_hw
    ax.set(xlim=(low, high), ylim=((height - 0.4) * sigma_hw, low), aspect="equal")
    ax.set_xticks([x * sigma_hw for x in range(width)], [str(x) for x in range(width)])
    ax.set_yticks([y * sigma_hw for y in range(height)], [str(y) for y in range(height)])
    ax.set_xlabel("x (cells)", labelpad=2)
    ax.set_ylabel("y (cells)", labelpad=2)
    return figure


@look.styled
def units_at_true_scale(sigma_hw: int, sigmas_vu: Sequence[int], side_bins: int) -> Figure:
    """Windows of as many bins at the same cell, their bins ever further apart."""
    alphas = [sigma_vu / sigma_hw for sigma_vu in sigmas_vu]
    alt = (
        f"The same grid {len(alphas)} times, a plus sign every {sigma_hw} pixels, with a "
        f"window of {side_bins} x {side_bins} bins; alpha is {', '.join(map(str, alphas))}. "
        "The larger alpha, the larger the window and its bins."
    )
    figure = look.new_picture(2.1, "", look.NARROW_INCHES, alt)
    for ax, sigma_vu, alpha in zip(
        figure.subplots(1, len(alphas)), sigmas_vu, alphas, strict=True
    ):
        side = 2 * (side_bins * sigmas_vu[-1] // (2 * sigma_hw)) + 1  # cells
        draw_cells(ax, side, side, sigma_hw, size=3.5)
        centre = side // 2 * sigma_hw
        draw_window(ax, (centre, centre), (side_bins, side_bins), sigma_vu)
        words = f"bins of {sigma_vu} px,\nwindow {side_bins * sigma_vu} px"
        ax.set(title=f"α = {alpha:g}", xticks=[], yticks=[], xlabel=words, aspect="equal")
        ax.spines[:].set_visible(False)
    return figure
