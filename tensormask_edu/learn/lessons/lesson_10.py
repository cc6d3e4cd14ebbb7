"""The exercises of lesson 10: an order to bet on, a paired difference, windows per object.

next: learn/lessons/lesson_11.py
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ...ablations.budget import budget
from ...ablations.stored import ALONE, TRUNK, Tables
from ...ablations.tables import MODELS, TABLES
from ...config import ModelConfig
from ...detector.targets import assign
from ...geometry import Windows
from ..cases import Array, Case, case_of
from ..explorer import Explorer, Mark, Panel, explore
from ..kinds import explain, loops, predict

# --- which idea earns what --------------------------------------------------------------------

ORDERS = ("A B C D", "A C B D", "C A D B", "C D A B")


def _by_gain(gains: Mapping[str, float]) -> str:
    return " ".join(sorted(gains, key=lambda letter: -gains[letter]))


predict("paper_order", ORDERS, _by_gain)
explain("which_earns_what", __name__)


@loops(
    "[s], [s] -> 2",
    by_hand=(np.array([0.61, 0.65, 0.60]), np.array([0.58, 0.61, 0.58])),
    sizes={"s": (5, 2, 8, 3)},
)
def paired_difference(better: Array, other: Array) -> tuple[float, float]:
    """How much more one head scores, in points, and the standard error of that.

    better, other: (S,), scores from 0 to 1 by seed, the same seeds in the same order.
    """
    points = 100 * (better - other)
    mean = points.mean()
    error = points.std(ddof=1) / math.sqrt(len(points))
    return float(mean), float(error)


# --- windows per object -----------------------------------------------------------------------

# Three objects of 26, 14 and 30 px; two windows of 28 px (stride 4), two of 56 px (stride 8)
INSIDE = np.array([[0, 1, 0], [1, 1, 0], [1, 0, 1], [1, 0, 0]], bool)
LENGTH, SIDE, STRIDE = np.array([26.0, 14, 30]), np.array([28, 28, 56, 56]), [4, 4, 8, 8]


def _drawn(name: str, windows: int, objects: int, slack: int) -> Case:
    """Objects and windows by chance; some are exactly as long as the rule asks."""
    rng = np.random.default_rng(10 * windows + objects)
    stride = rng.choice([4, 8, 16], windows)
    side = stride * rng.choice([5, 7], windows)
    just = np.concatenate([side - slack * stride, side - slack]) / 2
    length = np.where(rng.random(objects) < 0.5, rng.choice(just, objects), 0)
    length = np.where(length, length, rng.integers(8, 60, objects)).astype(float)
    inside = rng.random((windows, objects)) < 0.35
    return case_of(name, (inside, length, side, stride, slack), slack=slack)


@loops(
    "m g, [g], [m], [m], * -> g",
    by_hand=(INSIDE, LENGTH, SIDE, np.array(STRIDE), 0),
    more=[
        case_of("the code's", (INSIDE, LENGTH, SIDE, np.array(STRIDE), 1)),
        *(
            _drawn("drawn", m, g, slack)
            for m, g in ((9, 4), (24, 6), (40, 5))
            for slack in (0, 1)
        ),
        case_of("none inside", (np.zeros((4, 3), bool), LENGTH, SIDE, np.array(STRIDE), 1)),
        _drawn("one object", 6, 1, 0),
    ],
)
def count_windows(
    inside: Array, length: Array, side: Array, stride: Array, slack: int
) -> Array:
    """How many positive windows each object has, (G,).

    inside: (M, G) bool, whether window m holds object g and is centred on it. length: (G,) of
    the objects; side, stride: (M,) of the windows; px. slack: strides that are taken off a
    side, 1 in the official code, 0 in the paper's text on label assignment.
    """
    num_windows, num_objects = inside.shape
    counts = np.zeros(num_objects, int)
    for m in range(num_windows):
        shortest = (side[m] - slack * stride[m]) / 2
        claims = [g for g in range(num_objects) if inside[m, g] and length[g] >= shortest]
        if len(claims) == 1:  # claimed by several it is nobody's
            counts[claims[0]] += 1
    return counts


def inside_and_central(box_px: Array, windows: Windows) -> Array:
    """Which objects lie in a window and within a stride of its centre, (M, G) bool.

    box_px: (G, 4) xyxy.
    """
    low, high = windows.box_px.numpy()[:, None, :2], windows.box_px.numpy()[:, None, 2:]
    inside = (low <= box_px[:, :2]) & (box_px[:, 2:] <= high)  # (M, G, 2)
    apart = (low + high - box_px[:, :2] - box_px[:, 2:]) / 2
    central = np.hypot(*apart.transpose(2, 0, 1)) <= windows.stride_px.numpy()[:, None]
    return np.asarray(inside.all(2) & central)


# --- the gap between two levels ---------------------------------------------------------------

LENGTHS, OFF = range(14, 63, 4), range(9)  # px
ONE, TWO = (7,), (5, 7)  # sides of windows, in bins


def level_config(sides: tuple[int, ...], slack: int) -> ModelConfig:
    """The model of table 2d: three levels, windows of these sides; see `count_windows`."""
    config = budget("laptop").model(MODELS["one size"])
    return replace(config, sides_bins=sides, scale_rule="side - stride" if slack else "side")


def _windows_of_a_square(sides: tuple[int, ...], slack: int) -> Array:
    """(9, 13) positive windows of a lone square, by how far off a cell and how long it is."""
    config = level_config(sides, slack)
    off, length = (t.float().flatten() for t in torch.meshgrid(
        torch.tensor(OFF), torch.tensor(LENGTHS), indexing="ij"))  # fmt: skip
    x, y = 64 + off, torch.full_like(off, 64)  # at (64, 64) every level has a cell
    box_px = torch.stack([x - length / 2, y - length / 2, x + length / 2, y + length / 2], 1)
    pictures = torch.arange(len(off))  # one square in each
    owner = assign(box_px, config, config.geometry.layout([(128, 128)]), pictures)[:, 1]
    return owner.bincount(minlength=len(off)).view(len(OFF), len(LENGTHS)).numpy()


def gaps() -> Explorer:
    """One object, longer or shorter, on a cell or between two: how many windows has it?"""
    text, code = ([_windows_of_a_square(sides, s) for sides in (ONE, TWO)] for s in (0, 1))
    most = max(counts.max() for counts in text)
    names = {
        "x_names": [str(px) if k % 2 else "" for k, px in enumerate(LENGTHS)],
        "y_names": [str(px) for px in OFF],
    }
    panels = [
        Panel(title, np.where(counts > 0, counts / most, np.nan)[None, None],
              "length (px)", "off (px)", **names)
        for title, counts in zip(("one size of windows", "two sizes"), text, strict=True)
    ]  # fmt: skip

    def marks(off: int, length: int) -> tuple[list[Mark], str]:
        one, two, *official = (int(c[off, length]) for c in (*text, *code))
        words = (
            f"A square of {LENGTHS[length]} px, {OFF[off]} px off a cell, has {_many(one)} "
            f"with one size and {_many(two)} with two. By the code's rule: {official[0]} and "
            f"{official[1]}."
        )
        return [Mark(k, (off, length), is_followed=True) for k in (0, 1)], words

    just_too_long = {"off": 2, "length": LENGTHS.index(26)}
    sliders = {"off": len(OFF), "length": len(LENGTHS)}
    return explore(panels, marks, 0, just_too_long, **sliders)


def _many(count: int) -> str:
    return "NO window" if count == 0 else f"{count} window{'s' * (count > 1)}"


# --- our tables beside the paper's ------------------------------------------------------------

# Words of a row before the difference's own
IDEAS = {
    "1": ["aligned,"],
    "2a": ["aligned,"],
    "2b": ["bilinear,"],
    "2c": [],
    "2d": ["two sizes,"],
}
Row = tuple[str, float | None, dict[str, Any]]


def differences(tables: Tables, score: str = "AP") -> Iterator[Row]:
    """Words, the paper's points and ours, form -> one per seed, of every difference."""
    for name, idea in IDEAS.items():
        for number, one in enumerate(TABLES[name].differences):
            ours = {
                form: tables[name, form]["differences"][number]["points"][score]
                for form in (TRUNK, ALONE)
                if (name, form) in tables
            }
            yield " ".join([name, *idea, one.name]), one.paper, ours
