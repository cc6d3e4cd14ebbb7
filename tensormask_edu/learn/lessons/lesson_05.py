"""The exercises of lesson 05: few bins into many, nearest, bilinear, and in the aligned form.

next: learn/lessons/lesson_06.py
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ... import reference
from ...viz import look
from ...viz.look import POSITIVE, PREDICTION, TRUTH, draw_box
from ...viz.tensors import natural_of
from ..cases import Array, case_of, unique
from ..kinds import loops, predict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAD = -6.0


def _bins(*shape: int) -> Array:
    return unique(shape, np.random.default_rng(5))


def _ramp(num_v: int, num_u: int) -> Array:
    """(1, V, U, 1, 1): 10 * v + u, values that are read off at a glance."""
    return (10.0 * np.arange(num_v)[:, None] + np.arange(num_u))[None, :, :, None, None]


# --- more bins, by copying --------------------------------------------------------------------


@loops(
    "n v u h w, lam -> n lam*v lam*u h w",
    by_hand=(_ramp(2, 3), 2),
    sizes={"v": (2, 3, 3, 1), "u": (2, 2, 3), "lam": (3, 1, 2, 4, 5), "h": (2, 1), "w": (1, 2)},
    more=[case_of("one and a half", (_bins(1, 4, 4, 2, 1), lam)) for lam in (1.5, 1.75)],
    same_as=reference.up_nearest,
)
def up_nearest(coarse: Array, lam: float) -> Array:
    """Every fine bin gets the value of the coarse bin that its centre lies in.

    coarse: (N, V, U, H, W) -> (N, lam*V, lam*U, H, W), both whole numbers. Section 3.
    """
    num, num_v, num_u, height, width = coarse.shape
    fine_v, fine_u = round(lam * num_v), round(lam * num_u)
    fine = np.zeros((num, fine_v, fine_u, height, width), coarse.dtype)
    for v, u in np.ndindex(fine_v, fine_u):
        k = math.floor((v + 1 / 2) / lam)
        j = math.floor((u + 1 / 2) / lam)
        fine[:, v, u] = coarse[:, k, j]
    return fine


# --- more bins, by blending -------------------------------------------------------------------

EXACT = ("nearest", "bilinear", "both", "neither")


def _which(nearest_error: float, bilinear_error: float) -> str:
    is_exact = nearest_error < 1e-9, bilinear_error < 1e-9
    return EXACT[{(1, 0): 0, (0, 1): 1, (1, 1): 2, (0, 0): 3}[is_exact]]


exact_on_a_plane = predict("exact_on_a_plane", EXACT, _which)


@loops(
    "n v u h w, lam, pad -> n lam*v lam*u h w",
    by_hand=(_ramp(2, 3), 2, PAD),
    sizes={"v": (2, 3, 3, 1), "u": (2, 2, 3), "lam": (3, 1, 2, 4, 5), "h": (2, 1), "w": (1, 2)},
    more=[case_of("one and a half", (_bins(1, 4, 2, 2, 1), 1.5, PAD))],
    same_as=lambda coarse, lam, pad: reference.up_bilinear(coarse, lam, pad_value=pad),
)
def up_bilinear(coarse: Array, lam: float, pad_value: float = PAD) -> Array:
    """Every fine bin blends the coarse bins around its centre; beyond the window lies the pad.

    coarse: (N, V, U, H, W) -> (N, lam*V, lam*U, H, W), both whole numbers. Section 3.
    """
    num, num_v, num_u, height, width = coarse.shape
    fine_v, fine_u = round(lam * num_v), round(lam * num_u)
    fine = np.zeros((num, fine_v, fine_u, height, width))
    for v, u in np.ndindex(fine_v, fine_u):
        p = (v + 1 / 2) / lam - 1 / 2  # its centre, in coarse bins
        q = (u + 1 / 2) / lam - 1 / 2
        for k in (math.floor(p), math.floor(p) + 1):
            for j in (math.floor(q), math.floor(q) + 1):
                weight = (1 - abs(p - k)) * (1 - abs(q - j))
                if 0 <= k < num_v and 0 <= j < num_u:
                    fine[:, v, u] += weight * coarse[:, k, j]
                else:
                    fine[:, v, u] += weight * pad_value
    return fine


# --- and read along the diagonal --------------------------------------------------------------


@loops(
    "n v u h w, lam, pad -> n lam*v lam*u h w",
    by_hand=(np.broadcast_to(_ramp(5, 5)[0, :, :, 0, 0], (1, 3, 3, 5, 5)).copy(), 3, PAD),
    sizes={"v": (3, 1, 3, 3), "u": (3, 3, 1), "lam": (3, 1, 3, 5), "h": (4, 3), "w": (4, 5, 3)},
    more=[case_of("one and a half", (_bins(1, 2, 2, 4, 5), 1.5, PAD))],
    same_as=lambda aligned, lam, pad: reference.up_align2nat(aligned, lam, pad_value=pad),
)
def up_align2nat(aligned: Array, lam: float, pad_value: float = PAD) -> Array:
    """Coarse aligned bins to fine natural ones: blend, then every window collects its pixels.

    aligned: (N, V, U, H, W), bins lam cells apart -> (N, lam*V, lam*U, H, W), one cell apart;
    lam*V and lam*U odd. Section 3.
    """
    fine = up_bilinear(aligned, lam, pad_value)
    _, fine_v, fine_u, height, width = fine.shape
    natural = np.full(fine.shape, pad_value)
    for i, j, y, x in np.ndindex(fine_v, fine_u, height, width):
        v = i - (fine_v - 1) // 2  # counted from the centre
        u = j - (fine_u - 1) // 2
        row = y + v
        column = x + u
        if 0 <= row < height and 0 <= column < width:
            natural[:, i, j, y, x] = fine[:, i, j, row, column]
    return natural


# --- two shapes that touch --------------------------------------------------------------------

CENTRES = (15, 12), (16, 21)  # of the ellipse and of the rectangle
UNSURE_PX = 2  # how gradually windows pass from one shape to the other


def touching(side_px: int = 32) -> Array:
    """An ellipse that lies on a rectangle: bool (2, side_px, side_px), disjoint."""
    y, x = np.mgrid[:side_px, :side_px]
    ellipse = ((y - 15) / 6.7) ** 2 + ((x - 12) / 4.7) ** 2 < 1
    rectangle = (abs(y - 16) < 5) & (abs(x - 21) < 7) & ~ellipse
    return np.stack([ellipse, rectangle])


def perfect_natural(shapes: Array, side_bins: int, lam: int) -> Array:
    """What a perfect network says: masks of the nearer shape, and of both half-way between.

    shapes: bool (2, H, W) -> (1, V, U, H, W) in [0, 1], natural, bins lam pixels apart.
    """
    y, x = np.mgrid[: shapes.shape[1], : shapes.shape[2]]
    first, second = (np.hypot(y - cy, x - cx) for cy, cx in CENTRES)  # (H, W) each
    share = 1 / (1 + np.exp((first - second) / UNSURE_PX))
    both = [natural_of(shape, lam * (side_bins - 1) + 1)[::lam, ::lam] for shape in shapes]
    return (share * both[0] + (1 - share) * both[1])[None]


@look.styled
def scene(shapes: Array, window: tuple[int, int], side_px: int) -> Figure:
    """Two shapes, and the window at a cell.

    shapes: bool (2, H, W), one shade each.
    """
    (y, x), half = window, side_px / 2
    alt = "An ellipse beside a rectangle, which touch; a dashed square, a window, holds both."
    figure = look.new_picture(2.4, "", look.NARROW_INCHES, alt)
    ax = figure.subplots()
    shades = shapes[0] * 0.9 + shapes[1] * 0.45
    ax.imshow(shades, cmap=look.mask_shades(), vmin=0, vmax=1)
    draw_box(ax, (x - half, y - half, x + half, y + half), POSITIVE, 2)
    ax.plot(x, y, POSITIVE.marker, color=POSITIVE.colour, markersize=6, markeredgewidth=2)
    ax.text(12, 3.5, "ellipse", ha="center", va="center")
    ax.text(24, 24.5, "rectangle", ha="center", va="center")
    ax.set(xlabel="x (px)", ylabel="y (px)", title="× the window's centre")
    return figure


@look.styled
def centres(num_v: int, lam: float) -> Figure:
    """Coarse bins above, fine ones below; a line from each fine centre up to its place."""
    fine = round(lam * num_v)
    alt = (
        f"{num_v} boxes in a row, {fine} narrower ones below, and a line up from each of these."
    )
    figure = look.new_picture(2.2, "", look.NARROW_INCHES, alt)
    ax = figure.subplots()
    rows = (
        (num_v, TRUTH, "k = {}", (0, 0.35, 1)),
        (fine, PREDICTION, "v={}", (-1.3, -0.7, -0.5)),
    )
    for count, pen, words, (low, mark, high) in rows:
        for number in range(count):
            left, middle = (num_v / count * (number + step) for step in (0, 0.5))
            draw_box(ax, (left, low, left + num_v / count, high), pen, 1.4)
            ax.plot(middle, mark, pen.marker, color=pen.colour, markersize=6)
            ax.text(middle, 1.4 * low + 0.77, words.format(number), ha="center", va="center")
    middles = (np.arange(fine) + 0.5) / lam
    ax.vlines(middles, -0.7, 0.35, colors=PREDICTION.colour, linestyles=":")
    ax.set(xlim=(-0.05, num_v + 0.05), ylim=(-1.4, 1.1), xticks=range(num_v + 1), yticks=[])
    ax.set_xlabel("from the window's edge (coarse bins)")
    ax.spines[:].set_visible(False)
    look.legend(
        figure, [(TRUTH, "coarse bin, ■ its centre"), (PREDICTION, "fine, ◆ its centre")]
    )
    return figure
