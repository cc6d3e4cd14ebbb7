"""The exercises of lesson 08: why a window is not positive, and who claims it.

next: learn/lessons/lesson_09.py
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from ..cases import Array, Case, arguments_in_words, case_of
from ..kinds import explain, loops, predict

ARGUMENTS = ("dy", "dx", "side", "height", "width", "stride")
# What is special: the numbers of a window and an object, in pixels
DRAWN = {
    "in the middle, just fitting": (0, 0, 28, 28, 20, 4),
    "one pixel too tall": (0, 0, 28, 29, 20, 4),
    "one pixel too wide": (0, 0, 28, 20, 29, 4),
    "moved until it sticks out above": (-5, 0, 28, 20, 20, 8),
    "moved to the left and sticking out": (0, -5, 28, 10, 20, 8),
    "small for the window": (0, 0, 56, 20, 23, 8),
    "just large enough": (0, 0, 56, 24, 10, 8),
    "tall and thin": (0, 0, 56, 40, 4, 8),
    "tiny, in the smallest window": (1, 1, 20, 3, 2, 4),
    "tiny, in a larger window": (1, 1, 28, 3, 2, 4),
    "a little off in both directions": (3, 3, 40, 16, 20, 5),
    "exactly one stride off": (3, -4, 40, 16, 20, 5),
    "off in both directions": (4, 4, 40, 16, 20, 5),
    "small and off centre": (9, 9, 80, 20, 20, 8),
}


def _drawn(what: str, args: tuple[int, ...]) -> Case:
    return case_of("drawn", args, what=what, arguments=arguments_in_words(ARGUMENTS, args))


def _many() -> list[Case]:
    """Every combination of a few places, sizes and strides."""
    places, sizes = itertools.product((0, 6, -9), (0, -7)), ((12, 30), (33, 8), (5, 5))
    drawn = itertools.product(places, sizes, ((28, 4), (40, 8), (56, 8), (80, 16)))
    return [
        _drawn("any", (*place, side, *size, stride)) for place, size, (side, stride) in drawn
    ]


@loops(
    "2, 1, 28, 12, 20, 4 -> ",
    by_hand=(2, -1, 28, 12, 20, 4),
    more=[_drawn(what, args) for what, args in DRAWN.items()] + _many(),
)
def reason(dy: int, dx: int, side: int, height: int, width: int, stride: int) -> int:
    """0: the window is positive; 1: the object sticks out, 2: is too small, 3: is off centre.

    dy, dx: from the window's centre to that of the object's box. side: of the window.
    height, width: of the box. stride: from cell to cell. All in pixels. Section 4.
    """
    if abs(dy) + height / 2 > side / 2 or abs(dx) + width / 2 > side / 2:
        return 1
    if side - stride > 2 * max(height, width, 8):
        return 2
    if math.sqrt(dy**2 + dx**2) > stride:
        return 3
    return 0


BY_HAND = np.array([[0.2, 0.9], [0.4, 0.5], [0.8, 0.7], [0.6, 0.5], [0.1, 0.3]])


@loops(
    "m g, lam -> m",
    by_hand=(BY_HAND, 2),
    sizes={"m": (6, 12, 8), "g": (2, 3, 1), "lam": (2, 4, 1)},
    more=[
        case_of("three at once", (np.array([[0.1, 0.2, 0.3], [0.5, 0.2, 0.9]]), 2)),
        case_of("four at once", (np.array([[0.25, 0.1, 0.2, 0.2], [0.9, 0.3, 0.9, 0.2]]), 4)),
    ],
)
def claimed(apart: Array, lam: int) -> Array:
    """The object that alone claims each window, -1 for none or several.

    apart: (M, G), how far the centres of window m and object g are apart, in cells.
    lam: a window is claimed within one bin, the lam-th part of a cell -> (M,). Section 4.
    """
    num_windows, num_objects = apart.shape
    owner = np.full(num_windows, -1)
    for m in range(num_windows):
        claims = [g for g in range(num_objects) if apart[m, g] <= 1 / lam]
        if len(claims) == 1:
            owner[m] = claims[0]
    return owner


def _how_many(one_size: Array, two_sizes: Array) -> str:
    ratio = np.mean(two_sizes) / np.mean(one_size)
    return "the same" if ratio < 1.2 else "half as many again" if ratio < 1.75 else "twice"


predict("second_size", ("the same", "half as many again", "twice"), _how_many)
explain("why_a_cell", __name__)
