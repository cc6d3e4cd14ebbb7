"""Answers to the exercises of lesson 09, written from its text alone."""

from __future__ import annotations

import numpy as np

# --- losses_by_hand ---------------------------------------------------------------------------


def _cost(x):
    """-log sigmoid(x)."""
    return np.log1p(np.exp(-x))


_HIT, _MISS = 0.3 / 3 * _cost(3 * 0.3), 0.7 / 3 * _cost(3 * 1.2)
_MASK = (1.5 * _cost(2) + _cost(1) + 1.5 * _cost(0) + _cost(3)) / 4
losses_by_hand__right__formula = dict(hit=_HIT, miss=_MISS, box=0.7, mask=_MASK)
losses_by_hand__wrong__gamma_only_outside = dict(
    hit=0.3 / 3 * _cost(0.3), miss=0.7 / 3 * _cost(1.2), box=0.7, mask=_MASK
)
losses_by_hand__wrong__gamma_only_inside = dict(
    hit=0.3 * _cost(0.9), miss=0.7 * _cost(3.6), box=0.7, mask=_MASK
)
losses_by_hand__wrong__alphas_swapped = dict(
    hit=0.7 / 3 * _cost(0.9), miss=0.3 / 3 * _cost(3.6), box=0.7, mask=_MASK
)
losses_by_hand__wrong__y_forgotten = dict(
    hit=_HIT, miss=0.7 / 3 * _cost(-3.6), box=0.7, mask=_MASK
)
losses_by_hand__wrong__negative = dict(hit=-_HIT, miss=-_MISS, box=0.7, mask=-_MASK)
losses_by_hand__wrong__box_mean = dict(hit=_HIT, miss=_MISS, box=0.7 / 4, mask=_MASK)
losses_by_hand__wrong__box_signed = dict(hit=_HIT, miss=_MISS, box=0.3, mask=_MASK)
losses_by_hand__wrong__box_squared = dict(
    hit=_HIT, miss=_MISS, box=0.2**2 + 0.2**2 + 0.3**2, mask=_MASK
)
losses_by_hand__wrong__mask_sum = dict(hit=_HIT, miss=_MISS, box=0.7, mask=4 * _MASK)
losses_by_hand__wrong__mask_unweighted = dict(
    hit=_HIT, miss=_MISS, box=0.7, mask=(_cost(2) + _cost(1) + _cost(0) + _cost(3)) / 4
)
losses_by_hand__wrong__mask_other_bins_object = dict(
    hit=_HIT, miss=_MISS, box=0.7,
    mask=(_cost(-2) + 1.5 * _cost(-1) + _cost(0) + 1.5 * _cost(-3)) / 4,
)  # fmt: skip
losses_by_hand__wrong__mask_same_sign = dict(
    hit=_HIT, miss=_MISS, box=0.7,
    mask=(1.5 * _cost(2) + _cost(-1) + 1.5 * _cost(0) + _cost(-3)) / 4,
)  # fmt: skip
losses_by_hand__wrong__divided_by_the_weights = dict(
    hit=_HIT, miss=_MISS, box=0.7, mask=_MASK * 4 / 5
)
losses_by_hand__wrong__log_base_2 = dict(
    hit=_HIT / np.log(2), miss=_MISS / np.log(2), box=0.7, mask=_MASK / np.log(2)
)


# --- decode -----------------------------------------------------------------------------------


def decode__right__halves(deltas, x, y, side):
    centre = np.array([x, y]) + side * np.asarray(deltas)[:2] / 1.5
    half = side * np.exp(np.asarray(deltas)[2:] / 0.75) / 2
    return np.concatenate([centre - half, centre + half])


def decode__right__matrix(deltas, x, y, side):
    dx, dy, dw, dh = (float(d) for d in deltas)
    box = np.array(
        [x + side * dx / 1.5, y + side * dy / 1.5, np.exp(dw / 0.75), np.exp(dh / 0.75)]
    )
    turn = np.array(
        [[1, 0, -side / 2, 0], [0, 1, 0, -side / 2], [1, 0, side / 2, 0], [0, 1, 0, side / 2]]
    )
    return turn @ box


def decode__wrong__x0_y0_w_h(deltas, x, y, side):
    x0, y0, x1, y1 = decode__right__halves(deltas, x, y, side)
    return np.array([x0, y0, x1 - x0, y1 - y0])


def decode__wrong__centre_and_size(deltas, x, y, side):
    x0, y0, x1, y1 = decode__right__halves(deltas, x, y, side)
    return np.array([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0])


def decode__wrong__whole_sizes(deltas, x, y, side):
    dx, dy, dw, dh = deltas
    cx, cy = x + side * dx / 1.5, y + side * dy / 1.5
    w, h = side * np.exp(dw / 0.75), side * np.exp(dh / 0.75)
    return np.array([cx - w, cy - h, cx + w, cy + h])


def decode__wrong__y_first(deltas, x, y, side):
    return decode__right__halves(deltas, x, y, side)[[1, 0, 3, 2]]


def decode__wrong__weights_multiplied(deltas, x, y, side):
    return decode__right__halves(np.asarray(deltas) * [2.25, 2.25, 0.5625, 0.5625], x, y, side)


def decode__wrong__weights_swapped(deltas, x, y, side):
    return decode__right__halves(np.asarray(deltas) * [2, 2, 0.5, 0.5], x, y, side)


def decode__wrong__no_exp(deltas, x, y, side):
    dx, dy, dw, dh = deltas
    cx, cy, w, h = x + side * dx / 1.5, y + side * dy / 1.5, side * dw / 0.75, side * dh / 0.75
    return np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])


def decode__wrong__dw_moves_the_edge(deltas, x, y, side):
    dx, dy, dw, dh = deltas
    x0, y0 = x + side * dx / 1.5, y + side * dy / 1.5
    return np.array([x0, y0, x0 + side * np.exp(dw / 0.75), y0 + side * np.exp(dh / 0.75)])


def decode__wrong__pixels_not_sides(deltas, x, y, side):
    dx, dy, dw, dh = deltas
    cx, cy = x + dx / 1.5, y + dy / 1.5
    w, h = side * np.exp(dw / 0.75), side * np.exp(dh / 0.75)
    return np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])


def decode__wrong__scaled_in_place(deltas, x, y, side):
    deltas[:2] /= 1.5
    deltas[2:] /= 0.75
    w, h = side * np.exp(deltas[2]), side * np.exp(deltas[3])
    cx, cy = x + side * deltas[0], y + side * deltas[1]
    return np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])


def decode__wrong__rounded_to_pixels(deltas, x, y, side):
    return np.round(decode__right__halves(deltas, x, y, side))


def decode__wrong__last_pixel_inside(deltas, x, y, side):
    return decode__right__halves(deltas, x, y, side) - [0, 0, 1, 1]


# --- suppress ---------------------------------------------------------------------------------


def _overlap(one, other):
    """IoU of two boxes x0, y0, width, height."""
    wide = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    high = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    both = max(wide, 0) * max(high, 0)
    return both / (one[2] * one[3] + other[2] * other[3] - both)


def _greedy(boxes, scores, goes, order=None):
    stay = np.zeros(len(boxes), bool)
    for i in np.argsort(-np.asarray(scores), kind="stable") if order is None else order:
        stay[i] = not any(goes(boxes[i], boxes[j]) for j in np.flatnonzero(stay))
    return stay


def suppress__right__recursion(boxes, scores):
    stay = np.zeros(len(boxes), bool)

    def rest(left):
        if left:
            best, *others = left
            stay[best] = True
            rest([i for i in others if _overlap(boxes[best], boxes[i]) <= 0.5])

    rest(sorted(range(len(boxes)), key=lambda i: -scores[i]))
    return stay


def suppress__right__greedy(boxes, scores):
    return _greedy(boxes, scores, lambda a, b: _overlap(a, b) > 0.5)


def suppress__wrong__every_better_box(boxes, scores):
    return np.array(
        [
            not any(
                scores[j] > scores[i] and _overlap(boxes[i], boxes[j]) > 0.5
                for j in range(len(boxes))
            )
            for i in range(len(boxes))
        ],
        bool,
    )


def suppress__wrong__corners(boxes, scores):
    def goes(a, b):
        wide = min(a[2], b[2]) - max(a[0], b[0])
        high = min(a[3], b[3]) - max(a[1], b[1])
        both = max(wide, 0) * max(high, 0)
        areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
        return both > 0.5 * (sum(areas) - both)

    return _greedy(boxes, scores, goes)


def suppress__wrong__order_given(boxes, scores):
    return _greedy(boxes, scores, lambda a, b: _overlap(a, b) > 0.5, range(len(boxes)))


def suppress__wrong__worst_first(boxes, scores):
    return _greedy(boxes, scores, lambda a, b: _overlap(a, b) > 0.5, np.argsort(scores))


def suppress__wrong__at_least_half(boxes, scores):
    return _greedy(boxes, scores, lambda a, b: _overlap(a, b) >= 0.5)


def suppress__wrong__any_overlap(boxes, scores):
    return _greedy(boxes, scores, lambda a, b: _overlap(a, b) > 0)


def suppress__wrong__over_the_sum(boxes, scores):
    def goes(a, b):
        iou = _overlap(a, b)
        return iou / (1 + iou) > 0.5

    return _greedy(boxes, scores, goes)


def suppress__wrong__over_the_smaller(boxes, scores):
    def goes(a, b):
        wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
        high = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
        return max(wide, 0) * max(high, 0) > 0.5 * min(a[2] * a[3], b[2] * b[3])

    return _greedy(boxes, scores, goes)


def suppress__wrong__negative_areas(boxes, scores):
    def goes(a, b):
        wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
        high = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
        both = wide * high
        return both / (a[2] * a[3] + b[2] * b[3] - both) > 0.5

    return _greedy(boxes, scores, goes)


def suppress__wrong__indices(boxes, scores):
    return np.flatnonzero(suppress__right__greedy(boxes, scores))


def suppress__wrong__sorted_order(boxes, scores):
    return suppress__right__greedy(boxes, scores)[
        np.argsort(-np.asarray(scores), kind="stable")
    ]


def suppress__wrong__the_dropped(boxes, scores):
    return ~suppress__right__greedy(boxes, scores)


def suppress__wrong__only_the_last_kept(boxes, scores):
    stay, last = np.zeros(len(boxes), bool), None
    for i in np.argsort(-np.asarray(scores), kind="stable"):
        if last is None or _overlap(boxes[i], boxes[last]) <= 0.5:
            stay[i], last = True, i
    return stay


def suppress__wrong__only_the_best(boxes, scores):
    if not len(boxes):
        return np.zeros(0, bool)
    best = int(np.argmax(scores))
    return np.array(
        [i == best or _overlap(box, boxes[best]) <= 0.5 for i, box in enumerate(boxes)]
    )


# --- average_precision ------------------------------------------------------------------------


def _curve(overlap, objects, threshold=0.5):
    hit = np.asarray(overlap) >= threshold
    hits = np.cumsum(hit)
    return hits / np.arange(1, len(hits) + 1), hits / max(objects, 1)


def average_precision__right__vectorised(overlap, objects):
    precision, recall = _curve(overlap, objects)
    reached = recall[None, :] >= np.linspace(0, 1, 101)[:, None] - 1e-9
    return float(np.where(reached, precision, 0).max(1, initial=0).mean())


def average_precision__right__whole_numbers(overlap, objects):
    hits, best = 0, [0.0] * 101
    for count, value in enumerate(overlap, 1):
        hits += bool(value >= 0.5)
        for r in range(101):
            if r * objects <= 100 * hits:
                best[r] = max(best[r], hits / count)
    return sum(best) / 101


def average_precision__wrong__exact_area(overlap, objects):
    precision, recall = _curve(overlap, objects)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((best * np.diff(recall, prepend=0)).sum())


def average_precision__wrong__strictly_above(overlap, objects):
    precision, recall = _curve(overlap, objects, np.nextafter(0.5, 1))
    reached = recall[None, :] >= np.linspace(0, 1, 101)[:, None] - 1e-9
    return float(np.where(reached, precision, 0).max(1, initial=0).mean())


def average_precision__wrong__hundred_recalls(overlap, objects):
    precision, recall = _curve(overlap, objects)
    reached = recall[None, :] >= np.arange(100)[:, None] / 100
    return float(np.where(reached, precision, 0).max(1, initial=0).mean())


def average_precision__wrong__eleven_recalls(overlap, objects):
    precision, recall = _curve(overlap, objects)
    reached = recall[None, :] >= np.linspace(0, 1, 11)[:, None]
    return float(np.where(reached, precision, 0).max(1, initial=0).mean())


def average_precision__wrong__no_beyond(overlap, objects):
    precision, recall = _curve(overlap, objects)
    total = 0.0
    for r in np.arange(101) / 100:
        at = np.flatnonzero(recall >= r)
        total += precision[at[0]] if len(at) else 0
    return float(total / 101)


def average_precision__wrong__mean_of_precisions(overlap, objects):
    precision, _ = _curve(overlap, objects)
    return float(precision.mean()) if len(precision) else 0.0


def average_precision__wrong__mean_at_hits(overlap, objects):
    precision, _ = _curve(overlap, objects)
    hit = np.asarray(overlap) >= 0.5
    return float(precision[hit].mean()) if hit.any() else 0.0


def average_precision__wrong__recall_of_masks(overlap, objects):
    hit = np.asarray(overlap) >= 0.5
    return average_precision__right__vectorised(overlap, max(int(hit.sum()), 1))


def average_precision__wrong__only_reached_recalls(overlap, objects):
    precision, recall = _curve(overlap, objects)
    values = [precision[recall >= r].max() for r in np.arange(101) / 100 if (recall >= r).any()]
    return float(np.mean(values)) if values else 0.0


def average_precision__wrong__precision_from_zero(overlap, objects):
    hits = np.cumsum(np.asarray(overlap) >= 0.5)
    precision, recall = hits / np.maximum(np.arange(len(hits)), 1), hits / max(objects, 1)
    reached = recall[None, :] >= np.linspace(0, 1, 101)[:, None] - 1e-9
    return float(np.where(reached, precision, 0).max(1, initial=0).mean())


def average_precision__wrong__overlaps_summed(overlap, objects):
    hits = np.cumsum(np.asarray(overlap, float))
    precision, recall = hits / np.arange(1, len(hits) + 1), hits / max(objects, 1)
    reached = recall[None, :] >= np.linspace(0, 1, 101)[:, None] - 1e-9
    return float(np.where(reached, precision, 0).max(1, initial=0).mean())


def average_precision__wrong__percent(overlap, objects):
    return 100 * average_precision__right__vectorised(overlap, objects)
