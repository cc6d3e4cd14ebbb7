"""The exercises of lesson 06: the taps of the fused op, the op itself, and what it saves.

next: notebooks/README.md
"""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable, Sequence

import numpy as np

from ... import reference
from ...reference.swap_align2nat import _contributions, shifted_taps, taps
from ..checks import Answer, Array, Case, Exercise, Extra, Mistake, without_pad
from .lesson_04 import aligned_names

LESSON = "06_swap_and_bipyramid"
PAD = -6.0
Taps = list[tuple[int, float]]


# --- what the lesson builds and the package needs nowhere else --------------------------------


def swap_elements(num_v: int, num_u: int, height: int, width: int, lam: int) -> tuple[int, int]:
    """How many numbers `swap_align2nat` needs: (with the tensor between, fused).

    num_v, num_u, height, width: of the input, V bins on a grid of H x W.
    between: (lam*V, lam*U, H, W), before subsampling. fused: (lam*V, lam*U, ceil(H/lam),
    ceil(W/lam)).
    """
    bins = lam * num_v * lam * num_u
    return bins * height * width, bins * math.ceil(height / lam) * math.ceil(width / lam)


# --- exercise 1: taps -------------------------------------------------------------------------

REACH = 2  # taps that a picture shows beyond either end


def weights_of_taps(answer: Answer, num_v: int, lam: int) -> Array:
    """All taps of a window as a matrix (lam*V, V + 2*REACH): row v holds the weights of the
    entries " "-REACH .. V+REACH-1."""
    matrix = np.zeros((lam * num_v, num_v + 2 * REACH))
    for v in range(lam * num_v):
        _add(matrix[v], answer(v, lam), REACH)
    return matrix


def _add(row: Array, found: Taps, first: int) -> None:
    """Weights of equal entries add; a tap beyond the row is the answer's error."""
    for index, weight in found:
        if weight and not 0 <= index + first < len(row):
            raise ValueError(f"entry {index} is far outside the input")
        if weight:
            row[int(index) + first] += weight


def _taps_at(
    place: Callable[[int, int], float], floor: Callable[[float], int] = math.floor
) -> Answer:
    """taps of another rule for the place."""

    def answer(v: int, lam: int) -> Taps:
        at = place(v, lam)
        lower = floor(at)
        return [(lower, 1 - (at - lower)), (lower + 1, at - lower)]

    return answer


def _half_pixel(v: int, lam: int) -> float:
    return (v + 0.5) / lam - 0.5


def _clamped(v: int, lam: int) -> Taps:
    return [(max(index, 0), weight) for index, weight in taps(v, lam)]


def _off_the_rim(num_v: int, lam: int) -> Array:
    """True in the rows of `weights_of_taps` whose entries are both inside."""
    v = np.arange(lam * num_v)
    inside = (v >= lam // 2) & (v < lam * num_v - lam // 2)
    return np.tile(inside[:, None], num_v + 2 * REACH)


TAPS = Exercise(
    name="taps",
    lesson=LESSON,
    reference=taps,
    shown=(taps,),
    by_hand=Case(
        (3, 2),
        "V = 3, lam = 2; row: fine bin v, column: coarse bin from -2 to 4",
        [
            [0, 0.25, 0.75, 0, 0, 0, 0],
            [0, 0, 0.75, 0.25, 0, 0, 0],
            [0, 0, 0.25, 0.75, 0, 0, 0],
            [0, 0, 0, 0.75, 0.25, 0, 0],
            [0, 0, 0, 0.25, 0.75, 0, 0],
            [0, 0, 0, 0, 0.75, 0.25, 0],
        ],
    ),
    random=lambda rng: [
        Case((num_v, lam), f"V = {num_v}, lam = {lam}")
        for num_v, lam in ((4, 3), (5, 4), (2, 8))
    ],
    borders=lambda rng: [Case((3, 1), "V = 3, lam = 1")],
    interior=_off_the_rim,
    evaluate=weights_of_taps,
    mistakes=(
        Mistake(
            _taps_at(lambda v, lam: v / lam),
            "You put fine bin v at v / lam: corners on corners. Bins have centres: the fine one at (v + "
            "1/2) / lam, the "
            "coarse ones at whole numbers plus 1/2. So the place is (v + 1/2) / lam - 1/2.",
        ),
        Mistake(
            _taps_at(lambda v, lam: (v + 0.5) / lam),
            "Half the half-cell rule: you centred the fine bin, but forgot that coarse bins have their "
            "centres at + 1/2 "
            "too. Take 1/2 off.",
        ),
        Mistake(
            lambda v, lam: [(index, 1 - weight) for index, weight in taps(v, lam)],
            "The two weights are swapped. The nearer entry weighs more: the lower one gets 1 - fraction.",
        ),
        Mistake(
            lambda v, lam: [(v // lam, 1.0)],
            "That is nearest neighbour: one entry with weight 1. Between two centres the weights are "
            "shared linearly.",
        ),
        Mistake(
            _taps_at(_half_pixel, int),
            "int() rounds towards zero, so -0.25 gives 0 and a negative weight. Take math.floor: the entry "
            "below -0.25 "
            "is -1.",
        ),
        Mistake(
            _clamped,
            "You pulled entry -1 back to 0: that is clamping. Here the entry outside stays outside; it "
            "will read "
            "pad_value. This is the rim.",
        ),
    ),
    hints=(
        "Draw V = 2 coarse bins as boxes of width 1 and split each in lam = 2. Where are the centres of "
        "the four fine "
        "bins, counted in coarse bins?",
        "The centre of fine bin v is at (v + 1/2) / lam, that of coarse bin k at k + 1/2. So v lies at "
        "p = (v + 1/2) / lam - 1/2, between the entries floor(p) and floor(p) + 1.",
        "lower = math.floor(p); fraction = p - lower; return [(lower, 1 - fraction), (lower + 1, "
        "fraction)]. -1 may "
        "come out: leave it.",
    ),
    border_says="Right inside the window, wrong on its rim: there one of the two entries lies outside.",
)


# --- exercise 2: shifted_taps -----------------------------------------------------------------


def weights_of_cells(answer: Answer, y: int, lam: int, num_v: int) -> Array:
    """The cells each bin of the window at y reads: (lam*V, cells), from lam*y - lam*V to lam*y
    + lam*V."""
    reach = lam * num_v
    matrix = np.zeros((reach, 2 * reach + 1))
    for v in range(reach):
        for cell, weight in answer(v, y, lam, num_v):
            column = cell - lam * y + reach
            if weight and not 0 <= column < matrix.shape[1]:
                column = 0 if column < 0 else -1
            if weight:
                matrix[v, int(column)] += weight
    return matrix


def _cells_at(place: Callable[[int, int, int, int], float]) -> Answer:
    def answer(v: int, y: int, lam: int, num_v: int) -> Taps:
        at = place(v, y, lam, num_v)
        lower = math.floor(at)
        return [(lower, 1 - (at - lower)), (lower + 1, at - lower)]

    return answer


def _lower_cell(v: int, y: int, lam: int, num_v: int) -> Taps:
    return [(shifted_taps(v, y, lam, num_v)[0][0], 1.0)]


def _upper_cell(v: int, y: int, lam: int, num_v: int) -> Taps:
    lower, upper = shifted_taps(v, y, lam, num_v)
    return [(upper[0] if upper[1] else lower[0], 1.0)]


def _cell_cases(
    pairs: Sequence[tuple[int, int, int]],
) -> Callable[[np.random.Generator], Sequence[Case]]:
    return lambda rng: [
        Case((y, lam, num_v), f"the window at cell y = {y}, lam = {lam}, V = {num_v}")
        for y, lam, num_v in pairs
    ]


SHIFTED_TAPS = Exercise(
    name="shifted_taps",
    lesson=LESSON,
    reference=shifted_taps,
    shown=(shifted_taps,),
    by_hand=Case(
        (2, 2, 3),
        "V = 3, lam = 2, the window of output cell y = 2, centred at input cell 4; row: fine bin v, "
        "column: input cell "
        "from -2 to 10",
        0.5 * (np.eye(6, 13, 3) + np.eye(6, 13, 4)),
    ),
    random=_cell_cases(((3, 1, 5), (1, 3, 3), (4, 4, 2))),
    borders=_cell_cases(((0, 2, 3), (0, 1, 4))),
    evaluate=weights_of_cells,
    mistakes=(
        Mistake(
            _cells_at(lambda v, y, lam, num_v: y + v - (lam * num_v - 1) / 2),
            "You put the window at input cell y. The output grid is lam times coarser: output cell y is "
            "input cell lam * y.",
        ),
        Mistake(
            _cells_at(lambda v, y, lam, num_v: lam * y - v + (lam * num_v - 1) / 2),
            "You walk upwards with v. Bin v lies below the centre for v > (lam * V - 1) / 2: add it.",
        ),
        Mistake(
            _cells_at(lambda v, y, lam, num_v: lam * y + v - (num_v - 1) / 2),
            "You centre with the coarse window's (V - 1) / 2. v counts fine bins here, and there are lam * "
            "V of them.",
        ),
        Mistake(
            _cells_at(lambda v, y, lam, num_v: lam * y + v),
            "You count v from the window's first bin. The window is centred on the cell: take (lam * V - "
            "1) / 2 off.",
        ),
        Mistake(
            _lower_cell,
            "For lam * V even the place lies half-way between two cells, and you took the lower one. Take "
            "both, with 1/2 each.",
        ),
        Mistake(
            _upper_cell,
            "For lam * V even the place lies half-way between two cells, and you took the upper one. Take "
            "both, with 1/2 each.",
        ),
    ),
    hints=(
        "First lam = 1, V = 3: the window at y has its bins at y - 1, y, y + 1. Write that with v = 0, 1, 2.",
        "With lam * V fine bins the middle is (lam * V - 1) / 2, and output cell y stands at input cell "
        "lam * y. So bin v "
        "looks at lam * y + v - (lam * V - 1) / 2.",
        "If lam * V is odd this is one whole cell: weight 1. If it is even it ends in 1/2: the cells below "
        "and above get "
        "1/2 each. math.floor and the fraction do both.",
    ),
)


# --- exercise 3: the fused op -----------------------------------------------------------------


def _swap_cases(rng: np.random.Generator) -> Sequence[Case]:
    return [
        Case(
            (rng.random((1, num_v, num_u, height, width)), lam, PAD),
            f"random values, (V, U, H, W) = {(num_v, num_u, height, width)}, lam = {lam}",
        )
        for num_v, num_u, height, width, lam in (
            (3, 3, 9, 8, 2),
            (2, 3, 7, 9, 3),
            (3, 2, 6, 7, 1),
        )
    ]


def _swap_borders(rng: np.random.Generator) -> Sequence[Case]:
    return [
        Case(
            (rng.random((2, 3, 3, 5, 5)), 2, -1.0),
            "two images, pad_value = -1, an odd grid of 5 x 5, lam = 2",
        ),
        Case(
            (rng.random((1, 2, 2, 3, 3)), 4, PAD),
            "a grid smaller than lam = 4: one output cell",
        ),
    ]


def _combined(
    vu: Answer = taps,
    yx: Answer = shifted_taps,
    keep: Callable[[float], float] = lambda weight: weight,
    clamp: tuple[bool, bool] = (False, False),
    empty: bool = False,
) -> Answer:
    """The fused op from other taps and other rules for what lies outside."""

    def answer(x: Array, lam: int, pad_value: float) -> Array:
        _, num_v, num_u, height, width = x.shape
        rows = _matrix(vu, yx, lam, num_v, height, clamp)
        columns = _matrix(vu, yx, lam, num_u, width, clamp)
        out = np.einsum("vyab,uxcd,nacbd->nvuyx", rows, columns, x)
        inside = np.einsum("vyab,uxcd->vuyx", rows, columns)
        if empty:
            return out / np.where(inside, inside, 1)
        return out + (1 - inside) * keep(pad_value)

    return answer


def _matrix(
    vu: Answer, yx: Answer, lam: int, num: int, extent: int, clamp: tuple[bool, bool]
) -> Array:
    """Weights (lam*V, H', V, H) of one axis pair."""
    cells = -(-extent // lam)
    matrix = np.zeros((lam * num, cells, num, extent))
    for v, y in np.ndindex(lam * num, cells):
        for k, weight_v in vu(v, lam):
            k = min(max(k, 0), num - 1) if clamp[0] else k
            for cell, weight_y in yx(v, y, lam, num):
                cell = min(max(cell, 0), extent - 1) if clamp[1] else cell
                if 0 <= k < num and 0 <= cell < extent:
                    matrix[v, y, k, cell] += weight_v * weight_y
    return matrix


def _no_intermediate(answer: Answer) -> str:
    """The most memory at once, against the size of the tensor between."""
    x = np.random.default_rng(3).random((1, 2, 2, 12, 12))
    answer(x, 4, PAD)  # what is made once does not count
    tracemalloc.start()
    try:
        answer(x, 4, PAD)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    between = 8 * swap_elements(2, 2, 12, 12, 4)[0]
    if peak < between / 2:
        return ""
    return (
        f"Right numbers, but you built the tensor between: {peak / 1024:.0f} KiB at once for a result of "
        f"{between / 16 / 1024:.0f} KiB. Compute only the cells that are kept, every lam-th."
    )


def _named_windows(cells: int, side: int, lam: int) -> Array:
    """By hand: bin (v, u) of output cell (y, x) names pixel (lam*y + v - (lam*V - 1)/2,
    ...)."""
    v = np.arange(lam * side) - (lam * side - 1) / 2
    place = lam * np.arange(cells // lam) + v[:, None]
    return (10 * place[:, None, :, None] + place[None, :, None, :])[None]


SWAP_ALIGN2NAT = Exercise(
    name="swap_align2nat",
    lesson=LESSON,
    reference=reference.swap_align2nat,
    shown=(reference.swap_align2nat, reference.swap_align2nat_windows, _contributions),
    by_hand=Case(
        (aligned_names(2, 8), 2, PAD),
        "every value names its pixel, 10 * row + column; V = U = 2, lam = 2: inside, bin (v, u) of cell "
        "(y, x) must "
        "name pixel (2y + v - 1.5, 2x + u - 1.5)",
        _named_windows(8, 2, 2),
    ),
    random=_swap_cases,
    borders=_swap_borders,
    interior=without_pad(reference.swap_align2nat),
    mistakes=(
        Mistake(
            lambda x, lam, pad: _combined()(x.swapaxes(1, 2), lam, pad),
            "You read bin (u, v) where (v, u) is meant: the axes are (N, V, U, H, W), v before u.",
        ),
        Mistake(
            _combined(yx=lambda v, y, lam, num: shifted_taps(v, y, lam, num)[:1]),
            "A weight is lost: where lam * V is even two cells count 1/2 each, in y and in x. All weights "
            "sum to 1.",
        ),
        Mistake(
            _combined(yx=_lower_cell),
            "You dropped the half cell: for lam * V even a place lies between two cells; take the mean of "
            "both, not one.",
        ),
        Mistake(
            _combined(vu=lambda v, lam: [(v // lam, 1.0)]),
            "Your sub-tensor is upscaled by nearest neighbour: blocks. Use the two taps of exercise 1 in v "
            "and in u.",
        ),
        Mistake(
            _combined(clamp=(True, False)),
            "Your rim is clamped: beyond the window's edge you repeat its last bin. Here pad_value is "
            "blended in.",
        ),
        Mistake(
            _combined(empty=True),
            "You divide by the sum of the weights that are inside. There is no renormalisation: what is "
            "missing to 1 is "
            "the weight of pad_value.",
        ),
        Mistake(
            _combined(keep=lambda pad: 0.0),
            "Outside counts as 0 in your sum. It counts as pad_value: add (1 - sum of the weights used) * "
            "pad_value.",
        ),
    ),
    hints=(
        "Loop over output entries. Two taps in v, two in u, two in y, two in x: a sum over all "
        "combinations, the weight "
        "is the product of four.",
        "out[n, v, u, y, x] = sum of w_v * w_u * w_y * w_x * x[n, k, j, row, column] over taps(v, lam), "
        "taps(u, lam), "
        "shifted_taps(v, y, lam, V), shifted_taps(u, x, lam, U).",
        "Work with x - pad_value: then whatever is outside counts 0 and may be skipped. Add pad_value at "
        "the end.",
    ),
    extras=(Extra("no tensor between", _no_intermediate),),
    border_says="Right inside, wrong where a tap is outside (in v, u, y or x): such a tap reads pad_value.",
)


# --- exercise 4: what the tensor between would cost -------------------------------------------


def _elements_cases(
    pairs: Sequence[tuple[int, ...]],
) -> Callable[[np.random.Generator], Sequence[Case]]:
    return lambda rng: [
        Case(pair, "V = {}, U = {}, H = {}, W = {}, lam = {}".format(*pair)) for pair in pairs
    ]


def _floored(num_v: int, num_u: int, height: int, width: int, lam: int) -> tuple[int, int]:
    bins = lam * num_v * lam * num_u
    return bins * height * width, bins * (height // lam) * (width // lam)


SWAP_ELEMENTS = Exercise(
    name="swap_elements",
    lesson=LESSON,
    reference=swap_elements,
    shown=(swap_elements,),
    by_hand=Case((3, 3, 5, 4, 2), "V = U = 3 on a grid of 5 x 4, lam = 2", (720, 216)),
    random=_elements_cases(((15, 15, 64, 64, 4), (5, 7, 32, 16, 8), (11, 11, 64, 128, 1))),
    borders=_elements_cases(((15, 15, 200, 336, 32), (3, 3, 5, 7, 2), (3, 3, 3, 3, 8))),
    mistakes=(
        Mistake(
            lambda v, u, h, w, lam: (
                lam * v * u * h * w,
                lam * v * u * -(-h // lam) * -(-w // lam),
            ),
            "You count lam times as many bins. A window grows by lam in v and by lam in u: lam * lam.",
        ),
        Mistake(
            lambda v, u, h, w, lam: (
                v * u * h * w,
                lam * lam * v * u * -(-h // lam) * -(-w // lam),
            ),
            "The tensor between has fine bins already: (lam*V, lam*U) of them at each of the H x W cells.",
        ),
        Mistake(
            lambda v, u, h, w, lam: (swap_elements(v, u, h, w, lam)[1],) * 2,
            "Your tensor between is subsampled already. Unfused, every one of the H x W cells gets its "
            "fine window first.",
        ),
        Mistake(
            lambda v, u, h, w, lam: (
                lam * v * lam * u * h * w,
                v * u * -(-h // lam) * -(-w // lam),
            ),
            "The fused result has fine bins too: lam*V by lam*U at every lam-th cell.",
        ),
        Mistake(
            _floored,
            "Every lam-th cell starting at 0: of 5 cells lam = 2 keeps 0, 2 and 4. That is the ceiling of "
            "H / lam, not "
            "the floor.",
        ),
        Mistake(
            lambda v, u, h, w, lam: (lam * v * lam * u * h * w, v * u * h * w),
            "The result is as large as the input only if lam divides H and W. Count (lam*V) * (lam*U) * "
            "ceil(H/lam) * ceil(W/lam).",
        ),
    ),
    hints=(
        "Write the three shapes down: input, after up_bilinear and align2nat, after subsample.",
        "(V, U, H, W), then (lam*V, lam*U, H, W), then (lam*V, lam*U, ceil(H/lam), ceil(W/lam)).",
        "Return the product of the second shape and the product of the third; -(-H // lam) is the ceiling "
        "in whole numbers.",
    ),
)

EXERCISES = (TAPS, SHIFTED_TAPS, SWAP_ALIGN2NAT, SWAP_ELEMENTS)
