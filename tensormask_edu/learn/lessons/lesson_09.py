"""The exercises of lesson 09: losses by hand, boxes from deltas, suppression, a score.

next: learn/lessons/lesson_10.py
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...masks import iou
from ..cases import Array, case_of
from ..kinds import loops, numbers


@numbers(dict.fromkeys(("hit", "miss", "box", "mask"), 5e-4))
def losses_by_hand() -> dict[str, float]:
    """One term of the class loss with y = 1, one with y = -1; a box; a mask of four bins."""

    def surprise(x: float) -> float:
        return math.log1p(math.exp(-x))  # -log sigmoid(x)

    hit = 0.3 / 3 * surprise(3 * 0.3)
    miss = 0.7 / 3 * surprise(3 * 1.2)
    box = abs(0.3 - 0.1) + abs(-0.1 - 0.1) + abs(0.5 - 0.2)
    object_bins = 1.5 * (surprise(2) + surprise(0))
    mask = (object_bins + surprise(1) + surprise(3)) / 4
    return {"hit": hit, "miss": miss, "box": box, "mask": mask}


@loops(
    "[4], x, y, side -> 4",
    by_hand=(np.array([-0.3, 0.15, -0.75 * np.log(2), 0.0]), 40, 24, 20),
    sizes={"x": (64, 16, 40), "y": (32, 48, 8), "side": (20, 28, 56)},
)
def decode(deltas: Array, x: float, y: float, side: float) -> Array:
    """A box x0, y0, x1, y1 from a window's centre (x, y), its side, and its four numbers."""
    dx, dy, dw, dh = deltas / np.array([1.5, 1.5, 0.75, 0.75])
    centre_x, centre_y = x + side * dx, y + side * dy
    half_width, half_height = side * np.exp(dw) / 2, side * np.exp(dh) / 2
    low = centre_x - half_width, centre_y - half_height
    high = centre_x + half_width, centre_y + half_height
    return np.array([*low, *high])


# The second is dropped for the first, so the third, which meets only the second, stays.
CHAIN = np.array([[0, 0, 10, 10], [3, 0, 10, 10], [6, 0, 10, 10], [30, 5, 8, 9.0]])
CROWD = np.random.default_rng(3).uniform([0, 0, 8, 8], [9, 9, 16, 16], (14, 4))
CROWD_SCORES = np.random.default_rng(4).permutation(14) / 20 + 0.1


@loops(
    "d 4, [d] -> d",
    by_hand=(CHAIN, np.array([0.9, 0.8, 0.7, 0.6])),
    sizes={"d": (8, 14, 5)},
    more=[
        case_of("a crowd", (CROWD, CROWD_SCORES)),
        case_of(
            "exactly half", (np.array([[0, 0, 10, 5], [0, 0, 10, 10.0]]), np.array([0.4, 0.6]))
        ),
        case_of("none", (np.zeros((0, 4)), np.zeros(0))),
    ],
)
def suppress(boxes: Array, scores: Array) -> Array:
    """Which boxes stay, (D,) bool: the best first, and none that overlaps one that stays.

    boxes: (D, 4), rows x0, y0, width, height. scores: (D,). Overlap: IoU > 0.5.
    """
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    area = boxes[:, 2] * boxes[:, 3]
    kept = np.zeros(len(boxes), bool)
    for i in np.argsort(-scores):
        inside = np.minimum(high, high[i]) - np.maximum(low, low[i])
        shared = np.maximum(inside, 0).prod(1)
        overlap = shared / (area + area[i] - shared)
        kept[i] = not (kept & (overlap > 0.5)).any()
    return kept


@loops(
    "[d], d+2 -> ",
    by_hand=(np.array([0.9, 0.3, 0.7, 0.6, 0.0]), 4),
    sizes={"d": (6, 12, 9)},
    more=[
        case_of("all found", (np.array([0.8, 0.5, 0.9]), 3)),
        case_of("none", (np.ones(0), 2)),
    ],
)
def average_precision(overlap: Array, objects: int) -> float:
    """AP at IoU 0.5, as COCO counts it.

    overlap: (D,), by falling score: the IoU with the object that a mask was given to, or 0.
    objects: how many there are.
    """
    hits = np.cumsum(overlap >= 0.5)
    recall = hits / objects
    precision = hits / np.arange(1, len(overlap) + 1)
    total = 0.0
    for level in np.linspace(0, 1, 101):
        total += precision[recall >= level].max(initial=0.0)
    return float(total / 101)


def matched(
    found: Sequence[Mapping[str, Any]], truths: Sequence[Mapping[str, Any]], label: int
) -> tuple[Array, int]:
    """Every mask of a class with its object, as COCO matches at IoU 0.5.

    found, truths: per picture `labels`, `masks` and, of what was found, `scores`. In the order
    of falling scores each mask takes the object with the largest IoU among those still free.
    Returns the IoUs by falling score, 0 where there was none of at least 0.5, and how many
    objects there are.
    """
    scores, overlaps, objects = [], [], 0
    for seen, truth in zip(found, truths, strict=True):
        masks = seen["masks"][seen["labels"] == label].numpy()  # scores fall
        free = list(truth["masks"][truth["labels"] == label].numpy())
        objects += len(free)
        scores += seen["scores"][seen["labels"] == label].tolist()
        for mask in masks:
            ious = [float(iou(mask, other)) for other in free]
            best = int(np.argmax(ious)) if ious else 0
            is_match = bool(ious) and ious[best] >= 0.5
            overlaps.append(ious[best] if is_match else 0.0)
            if is_match:
                del free[best]
    order = np.argsort(-np.array(scores), kind="stable")
    return np.array(overlaps)[order], objects
