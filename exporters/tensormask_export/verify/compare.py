"""How far two results are apart, and how far is still equal.

Raw outputs are compared number by number. Detections are matched one to one: each of PyTorch's,
best first, takes the unmatched one of the same class whose box overlaps it most.

next: verify/replay.py
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tensormask_edu.masks import iou

from ..shapes import Array, Named


@dataclass(frozen=True)
class Tolerance:
    """A limit and why it is where it is."""

    value: float
    reason: str


@dataclass(frozen=True)
class Limits:
    """What counts as equal.

    raw: of a raw output of order 1 to 10, in proportion beyond; box_px, score, mask_iou: of a
    matched detection, which then agrees; agreed: the part of them that must agree; ap: of both
    sides' AP.
    """

    raw: Tolerance
    box_px: Tolerance
    score: Tolerance
    mask_iou: Tolerance
    agreed: Tolerance
    ap: Tolerance


LIMITS = {
    "float32": Limits(
        raw=Tolerance(
            1e-4,
            "float32 sums of a few thousand products, ordered differently, are 1e-6 to 1e-5 "
            "apart; the limit leaves room for other processors and moves a probability by at "
            "most 2.5e-5",
        ),
        box_px=Tolerance(
            1e-2, "a delta off by 1e-5 moves a box of a 600 px window by 0.004 px"
        ),
        score=Tolerance(1e-5, "a logit off by 4e-5 moves a probability by at most 1e-5"),
        mask_iou=Tolerance(
            0.999, "a pixel whose probability is 1/2 up to rounding may fall on either side"
        ),
        agreed=Tolerance(1.0, "every one"),
        ap=Tolerance(
            1e-3, "0.1 points: what one reordered detection can change on a small data set"
        ),
    ),
    "float16": Limits(
        raw=Tolerance(
            5e-2, "numbers of order 10 rounded to 11 bits (5e-3) in each of some 50 layers"
        ),
        box_px=Tolerance(4.0, "a delta off by 3e-3 moves a box of a 1920 px window by 4 px"),
        score=Tolerance(1.5e-2, "a logit off by 5e-2 moves a probability by at most 1.25e-2"),
        mask_iou=Tolerance(0.8, "one or two pixels at the border of a mask of a dozen"),
        agreed=Tolerance(
            0.9,
            "scores near the threshold and overlaps near the NMS limit may fall either way, "
            "and so may most of a mask of three pixels",
        ),
        ap=Tolerance(5e-3, "0.5 points: the detections above that fall either way"),
    ),
    "int8": Limits(
        raw=Tolerance(
            1.0,
            "activations of 8 bits before and after each of some 12 layers: seen are 0.4, and "
            "0.6 without zero points; what that costs, the AP says",
        ),
        box_px=Tolerance(8.0, "a delta off by 0.1 moves a box of a 120 px window by 8 px"),
        score=Tolerance(0.15, "a logit off by 0.6 moves a probability by at most 0.15"),
        mask_iou=Tolerance(0.7, "two or three pixels at the border of a mask of a dozen"),
        agreed=Tolerance(
            0.6, "more scores than in half precision lie near the threshold, on either side"
        ),
        ap=Tolerance(1e-2, "1 point: what the export refuses to lose beyond"),
    ),
}
LARGE_OUTPUT = 10.0
SAME_BOX = 0.5  # IoU below which two boxes are two detections


@dataclass(frozen=True)
class Difference:
    """One output on one input.

    max_rel: of values above a hundredth of the output's largest. Both differences are infinite
    where shapes differ or the runtime's numbers are not finite.
    """

    runtime: str
    input: str
    output: str
    shape: tuple[int, ...]
    max_abs: float
    max_rel: float
    passed: bool


@dataclass(frozen=True)
class Match:
    """PyTorch's detections on one picture and a runtime's.

    agreed: matched within all limits; box_px, score: largest differences of matched ones;
    mask_iou: the lowest; converged: the file's NMS came to rest.
    """

    runtime: str
    input: str
    expected: int
    found: int
    matched: int
    agreed: int
    box_px: float
    score: float
    mask_iou: float
    converged: bool
    passed: bool


def difference(
    where: tuple[str, str], output: str, found: Array, expected: Array, limit: float
) -> Difference:
    """Compare one output.

    Args:
        where: the runtime's title and the input's name.
        limit: of values up to `LARGE_OUTPUT`.
    """
    if found.shape != expected.shape or not np.isfinite(found).all():
        return Difference(*where, output, found.shape, math.inf, math.inf, False)
    wide = expected.astype(np.float64)
    error = np.abs(found.astype(np.float64) - wide)
    largest = float(np.abs(wide).max(initial=0))
    large = np.abs(wide) > 0.01 * largest
    max_abs = float(error.max(initial=0))
    max_rel = float((error[large] / np.abs(wide[large])).max(initial=0))
    passed = max_abs <= limit * max(1.0, largest / LARGE_OUTPUT)
    return Difference(*where, output, found.shape, max_abs, max_rel, passed)


def match(
    where: tuple[str, str],
    expected: Named,
    found: Named,
    converged: bool,
    limits: Limits,
    others: int = 0,
) -> Match:
    """Compare the detections of one picture: dicts of boxes, scores, labels, masks.

    Args:
        where: the runtime's title and the input's name.
        others: detections that PyTorch had besides `expected`; only their number is compared.
    """
    pairs = match_pairs(expected, found)
    a, b = np.array(pairs, np.int64).reshape(-1, 2).T
    box_px = np.abs(expected["boxes"][a] - found["boxes"][b]).max(axis=1, initial=0)
    score = np.abs(expected["scores"][a] - found["scores"][b])
    masks = ((expected["masks"][i], found["masks"][j]) for i, j in pairs)
    ious = np.array([iou(*both, both_empty=1.0) for both in masks])
    agree = box_px <= limits.box_px.value
    agree &= (score <= limits.score.value) & (ious >= limits.mask_iou.value)
    counts = len(expected["scores"]) + others, len(found["scores"]), len(pairs) + others
    agreed = int(agree.sum()) + others
    passed = converged and agreed >= limits.agreed.value * max(counts)
    largest_px, largest = float(box_px.max(initial=0)), float(score.max(initial=0))
    lowest = float(ious.min(initial=1))
    return Match(*where, *counts, agreed, largest_px, largest, lowest, converged, passed)


def match_pairs(expected: Named, found: Named) -> list[tuple[int, int]]:
    """(expected, found) positions, one to one.

    Boxes clipped at the border may coincide; there the closer score decides.
    """
    overlap = box_iou(expected["boxes"], found["boxes"])
    fit = overlap - np.abs(expected["scores"][:, None] - found["scores"])
    fit[(expected["labels"][:, None] != found["labels"]) | (overlap < SAME_BOX)] = -np.inf
    pairs = []
    for i in range(len(fit)):
        if fit.shape[1] and np.isfinite(fit[i].max()):
            j = int(fit[i].argmax())
            pairs.append((i, j))
            fit[:, j] = -np.inf
    return pairs


def box_iou(a: Array, b: Array) -> Array:
    """(A, 4), (B, 4) xyxy -> (A, B)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])  # (A, B, 2), the corners of what is shared
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)  # (A, B)
    area_a, area_b = ((box[:, 2:] - box[:, :2]).prod(axis=1) for box in (a, b))
    return shared / np.maximum(area_a[:, None] + area_b - shared, 1e-12)


def worst(rows: Sequence[Match]) -> Match:
    """One row for many pictures of one runtime: sums of counts, worst of the rest."""
    return Match(
        rows[0].runtime,
        f"{len(rows)} pictures" if len(rows) > 1 else rows[0].input,
        sum(row.expected for row in rows),
        sum(row.found for row in rows),
        sum(row.matched for row in rows),
        sum(row.agreed for row in rows),
        max(row.box_px for row in rows),
        max(row.score for row in rows),
        min(row.mask_iou for row in rows),
        all(row.converged for row in rows),
        all(row.passed for row in rows),
    )
