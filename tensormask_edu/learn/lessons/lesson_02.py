"""The exercises of lesson 02: one window's mask, read out of what older detectors store.

next: learn/lessons/lesson_03.py
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ... import reference
from ...viz import look
from ...viz.look import FOLLOWED, POSITIVE, TRUTH, draw_box
from ...viz.tensors import natural_of
from ..cases import Array, case_of, unique
from ..explorer import Explorer, Mark, Panel, explore
from ..kinds import loops, predict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAD = -6.0
Box = tuple[float, float, float, float]  # x0, y0, x1, y1


def _named(*shape: int) -> Array:
    """Every value's digits are its own index."""
    return np.tensordot(10.0 ** np.arange(len(shape))[::-1], np.indices(shape), 1)


@loops("v*u h w, v, u, <h, <w -> v u", by_hand=(_named(6, 3, 4), 2, 3, 1, 2))
def read_vector(vectors: Array, num_v: int, num_u: int, y: int, x: int) -> Array:
    """The mask of the window at place (y, x) of a DeepMask: its vector, folded row by row.

    vectors: (V * U, H, W) -> (V, U).
    """
    mask = np.zeros((num_v, num_u), vectors.dtype)
    for v, u in np.ndindex(num_v, num_u):
        mask[v, u] = vectors[v * num_u + u, y, x]
    return mask


def _assembled(maps: Array, side: int, y: int, x: int, pad: float) -> Array:
    """The package's, which knows one pad alone: the logits are moved there and back."""
    from ...ancestors import instance_fcn  # torchvision takes a while to load

    moved = torch.from_numpy(maps - pad + instance_fcn.PAD)[None]
    masks = instance_fcn.assemble(moved, torch.tensor([[0, y, x]]), side)
    return masks[0].numpy() + pad - instance_fcn.PAD


@loops(
    "k*k h w, k*s, <h, <w, pad -> k*v k*u",  # v and u name the axes of a picture
    by_hand=(_named(9, 9, 9), 9, 4, 4, PAD),
    sizes={"k": (3, 5, 3, 1), "s": (3, 1, 1, 5, 3)},
    same_as=_assembled,
)
def read_maps(maps: Array, side: int, y: int, x: int, pad_value: float = PAD) -> Array:
    """The mask of the window around place (y, x), put together from score maps.

    maps: (k * k, H, W), map a * k + b for part (a, b); side: odd, m * k -> (side, side).
    """
    num_maps, height, width = maps.shape
    k = math.isqrt(num_maps)
    mask = np.full((side, side), pad_value, maps.dtype)
    for i, j in np.ndindex(side, side):
        a = i * k // side
        b = j * k // side
        v = i - (side - 1) // 2  # counted from the centre
        u = j - (side - 1) // 2
        row = y + v
        column = x + u
        if 0 <= row < height and 0 <= column < width:
            mask[i, j] = maps[a * k + b, row, column]
    return mask


SMALL = np.array([[0, 0, 0, 4, 8], [0, 0, 4, 8, 8], [0, 4, 8, 8, 8], [4, 8, 8, 8, 8.0]])
BY_HAND = (SMALL, (1.1, 0.6, 3.7, 3.0), 2)
BOXES = {
    "a box of whole cells": ((1, 2, 5, 6), 4),
    "a box taller than wide": ((2.2, 0.7, 4.6, 6.1), 3),
    "a box in the first corner": ((0, 0, 2.4, 1.8), 3),
    "a box at the last column": ((5.3, 2, 8, 4.5), 3),
    "the whole grid": ((0, 0, 8, 7), 9),
}


def _pooled(features: Array, box: Box, bins: int) -> Array:
    """Torchvision's, one point per bin."""
    from torchvision.ops import roi_align

    grid, boxes = torch.from_numpy(features)[None, None], [torch.tensor([box]).double()]
    return roi_align(grid, boxes, bins, sampling_ratio=1, aligned=True)[0, 0].numpy()


@loops(
    "h w, *, m -> m m",
    by_hand=BY_HAND,
    more=[
        case_of("a box", (unique((7, 8), np.random.default_rng(2)), box, bins), what=what)
        for what, (box, bins) in BOXES.items()
    ],
    same_as=_pooled,
)
def read_box(features: Array, box: Box, bins: int) -> Array:
    """What lies in a box of a grid, bins x bins numbers: RoIAlign with one point per bin.

    features: (H, W) -> (bins, bins).
    """
    height, width = features.shape
    x0, y0, x1, y1 = box
    grid = np.zeros((bins, bins))
    for i, j in np.ndindex(bins, bins):
        p = y0 + (i + 1 / 2) * (y1 - y0) / bins - 1 / 2  # counted from the first centre
        q = x0 + (j + 1 / 2) * (x1 - x0) / bins - 1 / 2
        p = min(max(p, 0), height - 1)
        q = min(max(q, 0), width - 1)
        for row in (math.floor(p), math.floor(p) + 1):
            for column in (math.floor(q), math.floor(q) + 1):
                weight = (1 - abs(p - row)) * (1 - abs(q - column))
                if weight > 0:
                    grid[i, j] += weight * features[row, column]
    return grid


STORED = ("DeepMask", "InstanceFCN", "Mask R-CNN")
fewest = predict("fewest", STORED, lambda *counts: STORED[int(np.argmin(counts))])


# --- what perfect networks would store --------------------------------------------------------


def moon_and_star() -> Array:
    """A crescent and a small star that do not touch: bool (2, 24, 24)."""
    y, x = np.mgrid[:24, :24]
    moon = (np.hypot(y - 12.5, x - 10) < 5.8) & (np.hypot(y - 9.4, x - 13.8) >= 4.9)
    return np.stack([moon, abs(y - 6) + abs(x - 18) < 3])


def perfect_windows(shapes: Array, side: int) -> Array:
    """Every window's mask: what it sees of the shape whose centre is nearer to its own.

    shapes: bool (2, H, W) -> (side, side, H, W) of 0 and 1.
    """
    y, x = np.mgrid[: shapes.shape[1], : shapes.shape[2]]
    centres = (np.argwhere(shape).mean(0) for shape in shapes)
    nearer = np.argmin([np.hypot(y - cy, x - cx) for cy, cx in centres], axis=0)  # (H, W)
    return np.choose(nearer, [natural_of(shape, side) for shape in shapes])


def perfect_maps(windows: Array, parts: int) -> Array:
    """The middle of every part of every window, kept where it lies in the picture.

    windows: (side, side, H, W) -> (parts * parts, H, W).
    """
    cells = len(windows) // parts  # along a part
    middles = windows[None, cells // 2 :: cells, cells // 2 :: cells]  # (1, k, k, H, W)
    units: dict[str, Any] = {"sigma_vu": cells, "aligned_sigma_vu": cells, "pad_value": 0.0}
    return reference.nat2align(middles, **units)[0].reshape(-1, *windows.shape[2:])


# --- pictures ---------------------------------------------------------------------------------


def jigsaw(shapes: Array, pixel: tuple[int, int], parts: int = 3, side: int = 9) -> Explorer:
    """Move a window: which part of it is read from which score map, and where in it.

    shapes: bool (2, H, W); pixel: followed from map to map.
    """
    height, width = size = shapes.shape[1:]
    maps = perfect_maps(perfect_windows(shapes, side), parts).reshape(parts, parts, *size)
    panels = (
        Panel("the picture", shapes.max(0)[None, None].astype(float), "x", "y"),
        Panel(f"{parts} x {parts} score maps", maps.transpose(2, 3, 0, 1), "b", "a"),
    )

    def square(panel: int, top: int, left: int, cells: int, *block: int) -> list[Mark]:
        """Of a square of cells what lies in the picture, if anything."""
        first = (max(top, 0), max(left, 0))
        last = (min(top + cells, height) - 1, min(left + cells, width) - 1)
        is_seen = first[0] <= last[0] and first[1] <= last[1]
        return [Mark(panel, (*first, *block), False, (*last, *block))] if is_seen else []

    def marks(y: int, x: int) -> tuple[list[Mark], str]:
        top, left, cells = y - side // 2, x - side // 2, side // parts
        lit = [Mark(0, pixel, True), *square(0, top, left, side)]
        for a, b in np.ndindex(parts, parts):
            lit += square(1, top + a * cells, left + b * cells, cells, a, b)
        words = f"The window around ({y}, {x}), dashed: a piece of {len(lit) - 2} maps. Pixel"
        a, b = (pixel[0] - top) // cells, (pixel[1] - left) // cells
        if not (a in range(parts) and b in range(parts)):
            return lit, f"{words} {pixel}, purple, lies outside."
        lit.append(Mark(1, (*pixel, a, b), True))
        answer = f"map ({a}, {b}) answers {maps[(a, b, *pixel)]:.0f}."
        return lit, f"{words} {pixel}, purple: {answer}"

    return explore(panels, marks, follow=0, y=height, x=width)


@look.styled
def storages(shapes: Array, stored: dict[str, Array], y: int, x: int, box: Box) -> Figure:
    """A picture, the mask asked for, and what each of four detectors keeps for it.

    shapes: bool (2, H, W); stored: vectors, coarse, fine and maps of windows of 15 x 15.
    """
    alt = (
        "A crescent and a star, a dashed square around the crescent; the crescent alone; a "
        "stripe of 225 shades; one of 25 beside the picture; 25 small pictures with a square "
        "on a part of each; the picture with a box of 12 x 12 bins on the crescent."
    )
    figure = look.new_picture(6.6, "", look.NARROW_INCHES, alt)
    scene, asked, vector, refined, maps, crop = figure.subplots(3, 2).ravel()
    window, coarse = (stored[name][:, y, x, None] for name in ("vectors", "coarse"))
    _show(scene, shapes[0] * 0.9 + shapes[1] * 0.45, "the picture, × a place")
    draw_box(scene, (x - 7, y - 7, x + 8, y + 8), POSITIVE, 2)
    scene.plot(x + 0.5, y + 0.5, POSITIVE.marker, color=POSITIVE.colour, markeredgewidth=2)
    _show(asked, window.reshape(15, 15), "asked for: its mask")
    _show(vector, window.repeat(80, 1), "DeepMask:\n225 numbers at ×")
    fine = np.pad(stored["fine"], ((0, 1), (2, 0)), constant_values=np.nan)  # of 25 rows too
    _show(refined, np.hstack([coarse.repeat(4, 1), fine]), "SharpMask:\n25 at ×, and a map")
    spaced = np.pad(stored["maps"], ((0, 0), (0, 3), (0, 3)), constant_values=np.nan)
    tiled = spaced.reshape(5, 5, 27, 27).swapaxes(1, 2).reshape(135, 135)
    _show(maps, tiled, "InstanceFCN:\n25 maps, a piece of each")
    for a, b in np.ndindex(5, 5):
        left, top = 30 * b + x - 7, 30 * a + y - 7  # 27 to the next map, 3 to the next part
        draw_box(maps, (left, top, left + 3, top + 3), POSITIVE, 1)
    _show(crop, stored["fine"], "Mask R-CNN:\na grid in a box")
    _draw_bins(crop, box, 12)
    return figure


def _show(ax: Axes, values: Array, title: str) -> None:
    """Mask values, their edges at whole coordinates; nothing where they are NaN."""
    ax.pcolormesh(values, cmap=look.mask_shades(), vmin=0, vmax=1)
    ax.set(title=title, xticks=[], yticks=[], aspect="equal", ylim=(len(values), 0))
    ax.spines[:].set_visible(False)


def _draw_bins(ax: Axes, box: Box, bins: int) -> None:
    x0, y0, x1, y1 = box
    columns, rows = np.linspace(x0, x1, bins + 1), np.linspace(y0, y1, bins + 1)
    ax.vlines(columns, y0, y1, POSITIVE.colour, linewidth=0.8)
    ax.hlines(rows, x0, x1, POSITIVE.colour, linewidth=0.8)
    draw_box(ax, box, POSITIVE, 2)


@look.styled
def points_of_bins(features: Array, box: Box, bins: int) -> Figure:
    """A box over numbers, a point in the middle of each bin, and what the first one blends."""
    alt = "A box askew over a grid of numbers, a point in each bin, one joined to four cells."
    figure = look.new_picture(3.5, "", look.NARROW_INCHES, alt)
    ax = figure.subplots()
    _show(ax, 0.4 * features / features.max(), "")
    for (row, column), number in np.ndenumerate(features):
        ax.plot(column + 0.5, row + 0.5, TRUTH.marker, color=TRUTH.colour, markersize=4)
        ax.text(column + 0.5, row + 0.25, f"{number:g}", ha="center")
    _draw_bins(ax, box, bins)
    middles = (np.arange(bins) + 0.5) / bins
    xs, ys = (low + (box[k + 2] - low) * middles for k, low in enumerate(box[:2]))
    for down, right in np.ndindex(2, 2):
        corner = math.floor(xs[0] - 0.5) + right + 0.5, math.floor(ys[0] - 0.5) + down + 0.5
        ax.plot((xs[0], corner[0]), (ys[0], corner[1]), color=FOLLOWED.colour, linewidth=1)
    ax.plot(*map(np.ravel, np.meshgrid(xs, ys)), FOLLOWED.marker, color=FOLLOWED.colour)
    ax.set(xticks=range(features.shape[1] + 1), yticks=range(len(features) + 1))
    ax.set(xlabel="x (cells)", ylabel="y (cells)")
    look.legend(figure, [(TRUTH, "centre of a cell"), (FOLLOWED, "middle of a bin")], True)
    return figure
