"""The exercises of lesson 06: the taps of the fused op, the op itself, and what it saves.

next: learn/lessons/lesson_07.py
"""

from __future__ import annotations

import itertools
import math
import tracemalloc
from typing import Any

import numpy as np

from ... import reference
from ...reference.swap_align2nat import shifted_taps as package_shifted_taps
from ...reference.swap_align2nat import taps as package_taps
from ..cases import Array
from ..kinds import loops
from ..trials import Answer
from .lesson_04 import aligned_names

PAD = -6.0
Taps = list[tuple[int, float]]


@loops(
    "<lam*v, lam -> pairs",
    by_hand=(range(6), 2),
    sizes={"v": (2, 3, 4, 5), "lam": (3, 1, 4, 8, 5)},
    same_as=package_taps,
)
def taps(v: int, lam: int) -> Taps:
    """The two coarse bins around fine bin v, as pairs (index, weight).

    One of them may lie outside the window, at -1 or V. Section 3.
    """
    place = (v + 1 / 2) / lam - 1 / 2  # of its centre, counted in coarse bins
    lower = math.floor(place)
    fraction = place - lower
    return [(lower, 1 - fraction), (lower + 1, fraction)]


@loops(
    "<lam*v, <h, lam, v -> pairs",
    by_hand=(range(6), 2, 2, 3),
    sizes={"v": (3, 4, 5, 2), "lam": (1, 2, 3, 1, 4)},
    same_as=package_shifted_taps,
)
def shifted_taps(v: int, y: int, lam: int, num_v: int) -> Taps:
    """The input cells that bin v of output cell y reads, as pairs (cell, weight).

    num_v: the coarse V. Section 3.
    """
    place = lam * y + v - (lam * num_v - 1) / 2  # v counts from the window's centre
    lower = math.floor(place)
    fraction = place - lower
    return [(lower, 1 - fraction), (lower + 1, fraction)]


def _builds_between(answer: Answer) -> dict[str, Any] | None:
    """Whether the most memory at once reaches half of the tensor between.

    The sizes are such that an input with a border of whole windows stays far below.
    """
    num_v, cells, lam = 2, 24, 8
    x = np.random.default_rng(3).random((1, num_v, num_v, cells, cells))
    answer(x, lam, PAD)  # what is made once does not count
    tracemalloc.start()
    try:
        answer(x, lam, PAD)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    between, result = (8 * n for n in swap_elements(num_v, num_v, cells, cells, lam))  # bytes
    if peak < between / 2:
        return None
    return {"peak": f"{peak / 1024:.0f}", "result": f"{result / 1024:.0f}"}


@loops(
    "n v u h w, lam, pad -> n lam*v lam*u h/lam w/lam",
    by_hand=(aligned_names(2, 8), 2, PAD),
    sizes={"v": (2, 3, 2), "u": (2, 2, 3), "h": (4, 5, 3, 6), "w": (4, 3, 5), "lam": (2, 3, 1)},
    same_as=reference.swap_align2nat,
    extras={"no tensor between": _builds_between},
)
def swap_align2nat(aligned: Array, lam: int, pad_value: float = PAD) -> Array:
    """Coarse aligned bins on a fine grid to fine natural bins on a coarse grid.

    aligned: (N, V, U, H, W) -> (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam)). Section 3.
    """
    num, num_v, num_u, height, width = aligned.shape
    rows, columns = math.ceil(height / lam), math.ceil(width / lam)
    out = np.empty((num, lam * num_v, lam * num_u, rows, columns))
    for v, u, y, x in np.ndindex(*out.shape[1:]):
        inside, total = 0.0, np.zeros(num)  # weights and values of what lies inside
        bins = itertools.product(taps(v, lam), taps(u, lam))
        cells = shifted_taps(v, y, lam, num_v), shifted_taps(u, x, lam, num_u)
        for (k, wk), (j, wj) in bins:
            for (row, wr), (column, wc) in itertools.product(*cells):
                if not (0 <= k < num_v and 0 <= j < num_u):
                    continue
                if not (0 <= row < height and 0 <= column < width):
                    continue
                weight = wk * wj * wr * wc
                inside += weight
                total = total + weight * aligned[:, k, j, row, column]  # (N,)
        out[:, v, u, y, x] = total + (1 - inside) * pad_value
    return out


@loops(
    "v, u, h, w, lam -> 2",
    by_hand=(3, 3, 5, 4, 2),
    sizes={"v": (15, 5, 3), "u": (15, 7, 3), "h": (64, 5), "lam": (4, 8, 1, 2, 3)},
)
def swap_elements(num_v: int, num_u: int, height: int, width: int, lam: int) -> tuple[int, int]:
    """How many numbers `swap_align2nat` needs: (with the tensor between, fused).

    num_v, num_u, height, width: of the input, V x U bins on a grid of H x W.
    between: (lam*V, lam*U, H, W), before subsampling.
    fused: (lam*V, lam*U, ceil(H/lam), ceil(W/lam)).
    """
    bins = lam * num_v * lam * num_u
    between = bins * height * width
    fused = bins * math.ceil(height / lam) * math.ceil(width / lam)
    return between, fused
