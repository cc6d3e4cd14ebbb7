"""Answers to the exercises of lesson 09."""

from __future__ import annotations

import math

import numpy as np

# --- losses_by_hand ---------------------------------------------------------------------------


def cost(x):
    """-log sigmoid(x)."""
    return -math.log(1 / (1 + math.exp(-x)))


RIGHT = {
    "hit": 0.3 * cost(0.9) / 3,
    "miss": 0.7 * cost(3.6) / 3,
    "box": 0.7,
    "mask": np.mean([1.5 * cost(2), cost(1), 1.5 * cost(0), cost(3)]),
}
losses_by_hand__right__with_log = RIGHT
losses_by_hand__right__rounded = {"hit": 0.0341, "miss": 0.0063, "box": 0.7, "mask": 0.398}
losses_by_hand__wrong__no_gamma = RIGHT | {
    "hit": 0.3 * cost(0.3) / 3,
    "miss": 0.7 * cost(1.2) / 3,
}
losses_by_hand__wrong__not_divided = RIGHT | {"hit": 0.3 * cost(0.9), "miss": 0.7 * cost(3.6)}
losses_by_hand__wrong__alphas_swapped = RIGHT | {
    "hit": 0.7 * cost(0.9) / 3,
    "miss": 0.3 * cost(3.6) / 3,
}
losses_by_hand__wrong__sign = RIGHT | {"miss": 0.7 * cost(-3.6) / 3}
losses_by_hand__wrong__squared = RIGHT | {"box": 0.17}
losses_by_hand__wrong__box_mean = RIGHT | {"box": 0.175}
losses_by_hand__wrong__mask_sum = RIGHT | {"mask": 4 * RIGHT["mask"]}
losses_by_hand__wrong__unweighted = RIGHT | {
    "mask": np.mean([cost(2), cost(1), cost(0), cost(3)])
}
losses_by_hand__wrong__one_open = RIGHT | {"mask": ...}


# --- decode -----------------------------------------------------------------------------------

WEIGHTS = (1.5, 1.5, 0.75, 0.75)


def decode__right__one_by_one(deltas, x, y, side):
    dx, dy, dw, dh = (d / w for d, w in zip(deltas, WEIGHTS, strict=True))
    width, height = side * math.exp(dw), side * math.exp(dh)
    left, top = x + dx * side - width / 2, y + dy * side - height / 2
    return np.array([left, top, left + width, top + height])


def decode__wrong__unweighted(deltas, x, y, side):
    """says: left the weights in"""
    return decode__right__one_by_one(deltas * np.array(WEIGHTS), x, y, side)


def decode__wrong__times(deltas, x, y, side):
    """says: multiply by the weights"""
    return decode__right__one_by_one(deltas * np.array(WEIGHTS) ** 2, x, y, side)


def decode__wrong__pixels(deltas, x, y, side):
    """says: shift is in pixels"""
    dx, dy, dw, dh = deltas / np.array(WEIGHTS)
    half = side * np.exp([dw, dh]) / 2
    centre = np.array([x + dx, y + dy])
    return np.concatenate([centre - half, centre + half])


def decode__wrong__linear_size(deltas, x, y, side):
    """says: take exp"""
    dx, dy, dw, dh = deltas / np.array(WEIGHTS)
    half = side * (1 + np.array([dw, dh])) / 2
    centre = np.array([x, y]) + side * np.array([dx, dy])
    return np.concatenate([centre - half, centre + half])


def decode__wrong__whole_size(deltas, x, y, side):
    """says: *half* its width"""
    dx, dy, dw, dh = deltas / np.array(WEIGHTS)
    size = side * np.exp([dw, dh])
    centre = np.array([x, y]) + side * np.array([dx, dy])
    return np.concatenate([centre - size, centre + size])


def decode__wrong__cxcywh(deltas, x, y, side):
    """says: corners are wanted"""
    x0, y0, x1, y1 = decode__right__one_by_one(deltas, x, y, side)
    return np.array([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0])


def decode__wrong__yx(deltas, x, y, side):
    """says: x before y"""
    x0, y0, x1, y1 = decode__right__one_by_one(deltas, x, y, side)
    return np.array([y0, x0, y1, x1])


# --- suppress ---------------------------------------------------------------------------------


def iou_of(a, b):
    width = max(min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]), 0)
    return width * height / (a[2] * a[3] + b[2] * b[3] - width * height)


def greedy(boxes, scores, overlap=iou_of, order=None):
    """The ids that stay."""
    rest = list(np.argsort(scores)[::-1]) if order is None else list(order)
    stay = []
    while rest:
        first, *rest = rest
        stay.append(first)
        rest = [k for k in rest if overlap(boxes[first], boxes[k]) <= 0.5]
    return stay


def suppress__right__with_a_list(boxes, scores):
    out = np.zeros(len(boxes), dtype=bool)
    out[np.array(greedy(boxes, scores), dtype=int)] = True
    return out


def suppress__wrong__all_better(boxes, scores):
    """says: Only boxes that *stay*"""
    out = np.ones(len(boxes), bool)
    for i in range(len(boxes)):
        for j in range(len(boxes)):
            if scores[j] > scores[i] and iou_of(boxes[i], boxes[j]) > 0.5:
                out[i] = False
    return out


def suppress__wrong__unsorted(boxes, scores):
    """says: in the order given"""
    out = np.zeros(len(boxes), bool)
    out[greedy(boxes, scores, order=range(len(boxes)))] = True
    return out


def suppress__wrong__ascending(boxes, scores):
    """says: worst score"""
    out = np.zeros(len(boxes), bool)
    out[greedy(boxes, -scores)] = True
    return out


def suppress__wrong__as_corners(boxes, scores):
    """says: not the other corner"""

    def overlap(a, b):
        shared = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
        areas = (a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()
        return shared / (areas - shared)

    out = np.zeros(len(boxes), bool)
    out[greedy(boxes, scores, overlap)] = True
    return out


def suppress__wrong__ids(boxes, scores):
    """says: Return shape"""
    return np.array(greedy(boxes, scores))


def suppress__wrong__dropped(boxes, scores):
    """says: that are dropped"""
    return ~suppress__right__with_a_list(boxes, scores)


def suppress__wrong__any_overlap(boxes, scores):
    out = np.zeros(len(boxes), bool)
    out[greedy(boxes, scores, lambda a, b: iou_of(a, b) > 0)] = True
    return out


# --- average_precision ------------------------------------------------------------------------


def average_precision__right__from_behind(overlap, objects):
    total, best, recalls = 0.0, 0.0, [r / 100 for r in range(101)]
    hits = int((np.asarray(overlap) >= 0.5).sum())
    for k in range(len(overlap) - 1, -1, -1):
        best = max(best, hits / (k + 1))
        before = hits - (overlap[k] >= 0.5)
        if before < hits:
            total += best * sum(before / objects < r <= hits / objects for r in recalls)
        hits = before
    return (total + best) / 101  # recall 0 is reached by the first mask


def average_precision__wrong__plain_area(overlap, objects):
    found, area = 0, 0.0
    for k, value in enumerate(overlap, start=1):
        if value >= 0.5:
            found += 1
            area += found / k / objects
    return area


def average_precision__wrong__no_envelope(overlap, objects):
    """says: best from there on"""
    hits = np.cumsum(overlap >= 0.5)
    recall, precision = hits / objects, hits / (1 + np.arange(len(overlap)))
    reached = [precision[recall >= r] for r in np.linspace(0, 1, 101)]
    return sum(part[0] for part in reached if len(part)) / 101


def average_precision__wrong__recall_by_masks(overlap, objects):
    """says: by the objects"""
    hits = np.cumsum(overlap >= 0.5)
    recall, precision = hits / max(len(overlap), 1), hits / (1 + np.arange(len(overlap)))
    best = [precision[recall >= r].max(initial=0) for r in np.linspace(0, 1, 101)]
    return np.mean(best)


def average_precision__wrong__mean_precision(overlap, objects):
    """says: average the precision over masks"""
    if len(overlap) == 0:
        return 0.0
    return float(np.mean(np.cumsum(overlap >= 0.5) / (1 + np.arange(len(overlap)))))


def average_precision__wrong__eleven(overlap, objects):
    hits = np.cumsum(overlap >= 0.5)
    recall, precision = hits / objects, hits / (1 + np.arange(len(overlap)))
    return np.mean([precision[recall >= r].max(initial=0) for r in np.linspace(0, 1, 11)])


def average_precision__wrong__exactly_half(overlap, objects):
    """says: exactly 0.5"""
    hits = np.cumsum(overlap > 0.5)
    recall, precision = hits / objects, hits / (1 + np.arange(len(overlap)))
    return np.mean([precision[recall >= r].max(initial=0) for r in np.linspace(0, 1, 101)])


def average_precision__wrong__soft_hits(overlap, objects):
    """says: You add IoUs"""
    hits = np.cumsum(overlap)
    recall, precision = hits / objects, hits / (1 + np.arange(len(overlap)))
    return np.mean([precision[recall >= r].max(initial=0) for r in np.linspace(0, 1, 101)])
