"""The exercises of lesson 06: the taps of the fused op, the op itself, and what it saves.

next: commands/predict.py
"""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ... import reference
from ...reference.swap_align2nat import _contributions, shifted_taps, taps
from ..checks import Answer, Array, Case, Exercise, without_pad
from ..texts import texts_beside
from .lesson_04 import aligned_names

LESSON = "06_swap_and_bipyramid"
TEXTS = texts_beside(__file__)
PAD = -6.0
Taps = list[tuple[int, float]]


# --- what the lesson builds and the package needs nowhere else --------------------------------


def swap_elements(num_v: int, num_u: int, height: int, width: int, lam: int) -> tuple[int, int]:
    """How many numbers `swap_align2nat` needs: (with the tensor between, fused).

    num_v, num_u, height, width: of the input, V bins on a grid of H x W.
    between: (lam*V, lam*U, H, W), before subsampling.
    fused: (lam*V, lam*U, ceil(H/lam), ceil(W/lam)).
    """
    bins = lam * num_v * lam * num_u
    return bins * height * width, bins * math.ceil(height / lam) * math.ceil(width / lam)


# --- exercise 1: taps -------------------------------------------------------------------------

REACH = 2  # taps that a picture shows beyond either end


def weights_of_taps(answer: Answer, num_v: int, lam: int) -> Array:
    """All taps of a window as a matrix (lam*V, V + 2*REACH).

    Row v holds the weights of the entries -REACH .. V+REACH-1.
    """
    matrix = np.zeros((lam * num_v, num_v + 2 * REACH))
    for v in range(lam * num_v):
        for index, weight in answer(v, lam):
            if weight and not 0 <= index + REACH < matrix.shape[1]:
                raise ValueError(f"entry {index} is far outside the input")
            if weight:
                matrix[v, int(index) + REACH] += weight
    return matrix


def _around(place: float, floor: Callable[[float], int] = math.floor) -> Taps:
    """The two entries around a place, the nearer with the larger weight."""
    lower = floor(place)
    return [(lower, 1 - (place - lower)), (lower + 1, place - lower)]


def _weights_swapped(v: int, lam: int) -> Taps:
    return [(index, 1 - weight) for index, weight in taps(v, lam)]


def _nearest(v: int, lam: int) -> Taps:
    return [(v // lam, 1.0)]


def _clamped(v: int, lam: int) -> Taps:
    return [(max(index, 0), weight) for index, weight in taps(v, lam)]


def _off_the_rim(num_v: int, lam: int) -> Array:
    """True in the rows of `weights_of_taps` whose entries are both inside."""
    v = np.arange(lam * num_v)
    inside = (v >= lam // 2) & (v < lam * num_v - lam // 2)
    return np.tile(inside[:, None], num_v + 2 * REACH)


def _taps_case(num_v: int, lam: int) -> Case:
    return Case((num_v, lam), "sizes", {"num_v": num_v, "lam": lam})


TAPS = Exercise(
    name="taps",
    lesson=LESSON,
    texts=TEXTS["taps"],
    reference=taps,
    shown=(taps,),
    by_hand=Case(
        (3, 2),
        "by hand",
        expected=[
            [0, 0.25, 0.75, 0, 0, 0, 0],
            [0, 0, 0.75, 0.25, 0, 0, 0],
            [0, 0, 0.25, 0.75, 0, 0, 0],
            [0, 0, 0, 0.75, 0.25, 0, 0],
            [0, 0, 0, 0.25, 0.75, 0, 0],
            [0, 0, 0, 0, 0.75, 0.25, 0],
        ],
    ),
    random=lambda rng: [_taps_case(4, 3), _taps_case(5, 4), _taps_case(2, 8)],
    borders=lambda rng: [_taps_case(3, 1)],
    interior=_off_the_rim,
    evaluate=weights_of_taps,
    mistakes={
        "corners on corners": lambda v, lam: _around(v / lam),
        "half a rule": lambda v, lam: _around((v + 0.5) / lam),
        "weights swapped": _weights_swapped,
        "nearest": _nearest,
        "towards zero": lambda v, lam: _around((v + 0.5) / lam - 0.5, floor=int),
        "clamped": _clamped,
    },
)


# --- exercise 2: shifted_taps -----------------------------------------------------------------


def weights_of_cells(answer: Answer, y: int, lam: int, num_v: int) -> Array:
    """The cells that the window at y reads, as a matrix (lam*V, cells).

    Row: bin v. Column: the cells lam*y - lam*V .. lam*y + lam*V.
    """
    reach = lam * num_v
    matrix = np.zeros((reach, 2 * reach + 1))
    for v in range(reach):
        for cell, weight in answer(v, y, lam, num_v):
            column = cell - lam * y + reach
            if weight and not 0 <= column < matrix.shape[1]:
                column = 0 if column < 0 else -1  # far away: shown at the picture's edge
            if weight:
                matrix[v, int(column)] += weight
    return matrix


def _fine_grid(v: int, y: int, lam: int, num_v: int) -> Taps:
    return _around(y + v - (lam * num_v - 1) / 2)


def _upwards(v: int, y: int, lam: int, num_v: int) -> Taps:
    return _around(lam * y - v + (lam * num_v - 1) / 2)


def _coarse_centre(v: int, y: int, lam: int, num_v: int) -> Taps:
    return _around(lam * y + v - (num_v - 1) / 2)


def _from_first_bin(v: int, y: int, lam: int, num_v: int) -> Taps:
    return _around(lam * y + v)


def _lower_cell(v: int, y: int, lam: int, num_v: int) -> Taps:
    return [(shifted_taps(v, y, lam, num_v)[0][0], 1.0)]


def _upper_cell(v: int, y: int, lam: int, num_v: int) -> Taps:
    lower, upper = shifted_taps(v, y, lam, num_v)
    return [(upper[0] if upper[1] else lower[0], 1.0)]


def _cells_case(y: int, lam: int, num_v: int) -> Case:
    return Case((y, lam, num_v), "window", {"y": y, "lam": lam, "num_v": num_v})


SHIFTED_TAPS = Exercise(
    name="shifted_taps",
    lesson=LESSON,
    texts=TEXTS["shifted_taps"],
    reference=shifted_taps,
    shown=(shifted_taps,),
    by_hand=Case((2, 2, 3), "by hand", expected=0.5 * (np.eye(6, 13, 3) + np.eye(6, 13, 4))),
    random=lambda rng: [_cells_case(3, 1, 5), _cells_case(1, 3, 3), _cells_case(4, 4, 2)],
    borders=lambda rng: [_cells_case(0, 2, 3), _cells_case(0, 1, 4)],
    evaluate=weights_of_cells,
    mistakes={
        "the fine grid": _fine_grid,
        "upwards": _upwards,
        "the coarse centre": _coarse_centre,
        "from the first bin": _from_first_bin,
        "the lower cell": _lower_cell,
        "the upper cell": _upper_cell,
    },
)


# --- exercise 3: the fused op -----------------------------------------------------------------


def _swap_cases(rng: np.random.Generator) -> Sequence[Case]:
    shapes_and_lams = ((3, 3, 9, 8), 2), ((2, 3, 7, 9), 3), ((3, 2, 6, 7), 1)
    return [
        Case((rng.random((1, *shape)), lam, PAD), "random", {"shape": shape, "lam": lam})
        for shape, lam in shapes_and_lams
    ]


def _swap_borders(rng: np.random.Generator) -> Sequence[Case]:
    return [
        Case((rng.random((2, 3, 3, 5, 5)), 2, -1.0), "two images"),
        Case((rng.random((1, 2, 2, 3, 3)), 4, PAD), "one cell"),
    ]


def _combined(
    vu: Answer = taps,
    yx: Answer = shifted_taps,
    outside: float | None = None,
    clamp: bool = False,
    renormalise: bool = False,
) -> Answer:
    """The fused op from other taps, and other rules for what lies outside.

    outside: counts there instead of pad_value. clamp: a bin outside is pulled to the window's
    edge. renormalise: the weights inside are made to sum to 1.
    """

    def answer(x: Array, lam: int, pad_value: float) -> Array:
        _, num_v, num_u, height, width = x.shape
        rows = _weights(vu, yx, lam, num_v, height, clamp)
        columns = _weights(vu, yx, lam, num_u, width, clamp)
        out = np.einsum("vyab,uxcd,nacbd->nvuyx", rows, columns, x)
        inside = np.einsum("vyab,uxcd->vuyx", rows, columns)
        if renormalise:
            return out / np.where(inside, inside, 1)
        return out + (1 - inside) * (pad_value if outside is None else outside)

    return answer


def _weights(vu: Answer, yx: Answer, lam: int, num: int, extent: int, clamp: bool) -> Array:
    """Weights of one pair of axes, from input (V, H) to output: (lam*V, H', V, H)."""
    cells = -(-extent // lam)
    weights = np.zeros((lam * num, cells, num, extent))
    for v, y in np.ndindex(lam * num, cells):
        for k, weight_v in vu(v, lam):
            k = min(max(k, 0), num - 1) if clamp else k
            for cell, weight_y in yx(v, y, lam, num):
                if 0 <= k < num and 0 <= cell < extent:
                    weights[v, y, k, cell] += weight_v * weight_y
    return weights


def _transposed(x: Array, lam: int, pad_value: float) -> Array:
    return _combined()(x.swapaxes(1, 2), lam, pad_value)


def _first_cell(v: int, y: int, lam: int, num_v: int) -> Taps:
    """The first of the two cells alone, its weight left as it is."""
    return shifted_taps(v, y, lam, num_v)[:1]


def _builds_between(answer: Answer) -> dict[str, Any] | None:
    """Whether the most memory at once reaches half of the tensor between."""
    x = np.random.default_rng(3).random((1, 2, 2, 12, 12))
    answer(x, 4, PAD)  # what is made once does not count
    tracemalloc.start()
    try:
        answer(x, 4, PAD)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    between = 8 * swap_elements(2, 2, 12, 12, 4)[0]  # bytes, as float64
    if peak < between / 2:
        return None
    result = between / 16  # every fourth cell in y and in x
    return {"peak": f"{peak / 1024:.0f}", "result": f"{result / 1024:.0f}"}


def _named_windows(cells: int, side: int, lam: int) -> Array:
    """Bin (v, u) of output cell (y, x) names pixel (lam*y + v - (lam*V - 1)/2, ...)."""
    v = np.arange(lam * side) - (lam * side - 1) / 2
    place = lam * np.arange(cells // lam) + v[:, None]  # (lam*V, H/lam)
    return (10 * place[:, None, :, None] + place[None, :, None, :])[None]


SWAP_ALIGN2NAT = Exercise(
    name="swap_align2nat",
    lesson=LESSON,
    texts=TEXTS["swap_align2nat"],
    reference=reference.swap_align2nat,
    shown=(reference.swap_align2nat, reference.swap_align2nat_windows, _contributions),
    by_hand=Case((aligned_names(2, 8), 2, PAD), "by hand", expected=_named_windows(8, 2, 2)),
    random=_swap_cases,
    borders=_swap_borders,
    interior=without_pad(reference.swap_align2nat),
    mistakes={
        "bin (u, v)": _transposed,
        "a weight lost": _combined(yx=_first_cell),
        "half a cell lost": _combined(yx=_lower_cell),
        "nearest": _combined(vu=_nearest),
        "a clamped rim": _combined(clamp=True),
        "renormalised": _combined(renormalise=True),
        "zero outside": _combined(outside=0.0),
    },
    extras={"no tensor between": _builds_between},
)


# --- exercise 4: what the tensor between would cost -------------------------------------------


def _elements_case(*sizes: int) -> Case:
    names = ("num_v", "num_u", "height", "width", "lam")
    return Case(sizes, "sizes", dict(zip(names, sizes, strict=True)))


def _lam_once(v: int, u: int, h: int, w: int, lam: int) -> tuple[int, int]:
    between, fused = swap_elements(v, u, h, w, lam)
    return between // lam, fused // lam


def _coarse_between(v: int, u: int, h: int, w: int, lam: int) -> tuple[int, int]:
    return v * u * h * w, swap_elements(v, u, h, w, lam)[1]


def _subsampled_between(v: int, u: int, h: int, w: int, lam: int) -> tuple[int, int]:
    fused = swap_elements(v, u, h, w, lam)[1]
    return fused, fused


def _coarse_result(v: int, u: int, h: int, w: int, lam: int) -> tuple[int, int]:
    between, fused = swap_elements(v, u, h, w, lam)
    return between, fused // lam**2


def _floor(v: int, u: int, h: int, w: int, lam: int) -> tuple[int, int]:
    between = swap_elements(v, u, h, w, lam)[0]
    return between, lam * v * lam * u * (h // lam) * (w // lam)


def _as_large_as_the_input(v: int, u: int, h: int, w: int, lam: int) -> tuple[int, int]:
    return swap_elements(v, u, h, w, lam)[0], v * u * h * w


SWAP_ELEMENTS = Exercise(
    name="swap_elements",
    lesson=LESSON,
    texts=TEXTS["swap_elements"],
    reference=swap_elements,
    shown=(swap_elements,),
    by_hand=Case((3, 3, 5, 4, 2), "by hand", expected=(720, 216)),
    random=lambda rng: [
        _elements_case(15, 15, 64, 64, 4),
        _elements_case(5, 7, 32, 16, 8),
        _elements_case(11, 11, 64, 128, 1),
    ],
    borders=lambda rng: [
        _elements_case(15, 15, 200, 336, 32),
        _elements_case(3, 3, 5, 7, 2),
        _elements_case(3, 3, 3, 3, 8),
    ],
    mistakes={
        "lam once": _lam_once,
        "coarse between": _coarse_between,
        "subsampled between": _subsampled_between,
        "coarse result": _coarse_result,
        "the floor": _floor,
        "as large as the input": _as_large_as_the_input,
    },
)

EXERCISES = (TAPS, SHIFTED_TAPS, SWAP_ALIGN2NAT, SWAP_ELEMENTS)
