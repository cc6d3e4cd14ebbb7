"""Answers to the exercises of lesson 12."""

from __future__ import annotations

import numpy as np

# --- flat_places ------------------------------------------------------------------------------


def flat_places__right__by_numpy(padded, n, y, x):
    v, u = np.indices(padded.shape[1:3])
    return np.ravel_multi_index((np.full_like(v, n), v, u, y + v, x + u), padded.shape)


def flat_places__right__from_a_numbered_array(padded, n, y, x):
    _, num_v, num_u, _, _ = padded.shape
    numbered = np.arange(padded.size).reshape(padded.shape)
    return np.array(
        [[numbered[n, v, u, y + v, x + u] for u in range(num_u)] for v in range(num_v)]
    )


def walked(padded, n, y, x, row=lambda y, v: y + v, column=lambda x, u: x + u):
    """The places of a window, from where its bins lie."""
    _, num_v, num_u, rows, columns = padded.shape
    places = np.zeros((num_v, num_u), dtype=int)
    for v in range(num_v):
        for u in range(num_u):
            places[v, u] = ((n * num_v + v) * num_u + u) * rows * columns
            places[v, u] += row(y, v) * columns + column(x, u)
    return places


def flat_places__right__walked(padded, n, y, x):
    return walked(padded, n, y, x)


def flat_places__wrong__inner_sizes(padded, n, y, x):
    """says: have their border"""
    _, num_v, num_u, rows, columns = padded.shape
    height, width = rows - num_v + 1, columns - num_u + 1
    v, u = np.indices((num_v, num_u))
    return (((n * num_v + v) * num_u + u) * height + y + v) * width + x + u


def flat_places__wrong__centred(padded, n, y, x):
    """says: from the centre"""
    half_v, half_u = padded.shape[1] // 2, padded.shape[2] // 2
    return walked(padded, n, y, x, lambda y, v: y + v - half_v, lambda x, u: x + u - half_u)


def flat_places__wrong__one_cell(padded, n, y, x):
    """says: at the same cell"""
    return walked(padded, n, y, x, lambda y, v: y, lambda x, u: x)


def flat_places__wrong__no_image(padded, n, y, x):
    """says: forgot the image"""
    return walked(padded, 0, y, x)


def flat_places__wrong__bins_swapped(padded, n, y, x):
    """says: slower of the two"""
    _, num_v, num_u, rows, columns = padded.shape
    v, u = np.indices((num_v, num_u))
    step_u = rows * columns
    step_v = num_u * step_u
    return n * num_v * step_v + u * step_v + v * step_u + (y + v) * columns + x + u


def flat_places__wrong__rows_for_columns(padded, n, y, x):
    """says: step in y"""
    _, num_v, num_u, rows, columns = padded.shape
    v, u = np.indices((num_v, num_u))
    return ((n * num_v + v) * num_u + u) * rows * columns + (y + v) * rows + x + u


def flat_places__wrong__minus(padded, n, y, x):
    return walked(padded, n, y, x, lambda y, v: y - v, lambda x, u: x - u)


def flat_places__wrong__x_first(padded, n, y, x):
    return walked(padded, n, x, y)


def flat_places__wrong__values(padded, n, y, x):
    return padded.ravel()[walked(padded, n, y, x)]


def flat_places__wrong__a_list(padded, n, y, x):
    """says: Return an array"""
    return walked(padded, n, y, x).tolist()


# --- spacings ---------------------------------------------------------------------------------

RIGHT = {
    "logit_32": float(np.spacing(np.float32(6))),
    "logit_16": float(np.spacing(np.float16(6))),
    "pixel_32": float(np.spacing(np.float32(2500))),
    "pixel_16": float(np.spacing(np.float16(2500))),
    "probability": 2.5e-5,
}
spacings__right__by_numpy = RIGHT
spacings__right__rounded = {
    "logit_32": 4.77e-7,
    "logit_16": 0.0039,
    "pixel_32": 2.44e-4,
    "pixel_16": 2,
    "probability": 2.5e-5,
}
spacings__wrong__all_bits = {
    "logit_32": 2.0**-22,
    "logit_16": 2.0**-9,
    "pixel_32": 2.0**-13,
    "pixel_16": 1.0,
    "probability": 2.5e-5,
}
spacings__wrong__epsilon = RIGHT | {
    "logit_32": 2.0**-23,
    "logit_16": 2.0**-10,
    "pixel_32": 2.0**-23,
    "pixel_16": 2.0**-10,
}
spacings__wrong__relative = RIGHT | {
    "logit_32": 6 * 2.0**-23,
    "logit_16": 6 * 2.0**-10,
    "pixel_32": 2500 * 2.0**-23,
    "pixel_16": 2500 * 2.0**-10,
}
spacings__wrong__rounded_up = RIGHT | {
    "logit_32": 2.0**-20,
    "logit_16": 2.0**-7,
    "pixel_32": 2.0**-11,
    "pixel_16": 4.0,
}
spacings__wrong__probability_whole = RIGHT | {"probability": 1e-4}
spacings__wrong__sigmoid_at_the_logit = RIGHT | {"probability": 2.5e-7}
spacings__wrong__types_swapped = RIGHT | {
    "pixel_32": RIGHT["pixel_16"],
    "pixel_16": RIGHT["pixel_32"],
}
spacings__wrong__one_open = RIGHT | {"logit_16": ...}


# --- first_diverging --------------------------------------------------------------------------


def agree(right, given, tolerance):
    """Whether one stage agrees."""
    if right.shape != given.shape or np.isnan(given).any():
        return False
    largest = np.max(np.abs(right))
    limit = tolerance if largest <= 10 else tolerance * largest / 10
    return bool((np.abs(right - given) <= limit).all())


def first_that_not(ours, theirs, tolerance, agree=agree):
    """The first stage that does not agree."""
    for number, (right, given) in enumerate(zip(ours, theirs, strict=True)):
        if not agree(right, given, tolerance):
            return number
    return -1


def first_diverging__right__question_by_question(ours, theirs, tolerance):
    return first_that_not(ours, theirs, tolerance)


def first_diverging__right__number_by_number(ours, theirs, tolerance):
    for k in range(len(ours)):
        if np.shape(ours[k]) != np.shape(theirs[k]):
            return k
        limit = tolerance * max(1, max(abs(float(a)) for a in ours[k].flat) / 10)
        for a, b in zip(ours[k].flat, theirs[k].flat, strict=True):
            if b != b or abs(b - a) > limit:
                return k
    return -1


def first_diverging__wrong__worst(ours, theirs, tolerance):
    """says: differs most"""
    gaps = [
        np.inf
        if a.shape != b.shape or np.isnan(b).any()
        else np.abs(a - b).max() / max(1, np.abs(a).max() / 10)
        for a, b in zip(ours, theirs, strict=True)
    ]
    worst = int(np.argmax(gaps))
    return worst if gaps[worst] > tolerance else -1


def first_diverging__wrong__nan_passes(ours, theirs, tolerance):
    """says: NaN passes"""
    for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a.shape != b.shape:
            return k
        if np.max(np.abs(a - b)) > tolerance * max(1, np.max(np.abs(a)) / 10):
            return k
    return -1


def first_diverging__wrong__stretched(ours, theirs, tolerance):
    """says: ask for the shape"""
    for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        within = np.abs(a - b) <= tolerance * max(1, np.max(np.abs(a)) / 10)
        if not within.all():
            return k
    return -1


def first_diverging__wrong__signed(ours, theirs, tolerance):
    """says: absolute value"""

    def close(a, b, tolerance):
        limit = tolerance * max(1, np.abs(a).max() / 10)
        return a.shape == b.shape and bool(((b - a) <= limit).all())

    return first_that_not(ours, theirs, tolerance, close)


def first_diverging__wrong__mean(ours, theirs, tolerance):
    """says: take the mean"""

    def close(a, b, tolerance):
        limit = tolerance * max(1, np.abs(a).max() / 10)
        return a.shape == b.shape and np.mean(np.abs(b - a)) <= limit

    return first_that_not(ours, theirs, tolerance, close)


def first_diverging__wrong__no_scale(ours, theirs, tolerance):
    """says: in proportion"""

    def close(a, b, tolerance):
        return a.shape == b.shape and np.abs(b - a).max() <= tolerance

    return first_that_not(ours, theirs, tolerance, close)


def first_diverging__wrong__always_relative(ours, theirs, tolerance):
    """says: never falls below"""

    def close(a, b, tolerance):
        return a.shape == b.shape and np.abs(b - a).max() <= tolerance * np.abs(a).max() / 10

    return first_that_not(ours, theirs, tolerance, close)


def first_diverging__wrong__strict(ours, theirs, tolerance):
    """says: still agrees"""

    def close(a, b, tolerance):
        limit = tolerance * max(1, np.abs(a).max() / 10)
        return a.shape == b.shape and np.abs(b - a).max() < limit

    return first_that_not(ours, theirs, tolerance, close)


def first_diverging__wrong__none_for_none(ours, theirs, tolerance):
    """says: returns None"""
    for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if not agree(a, b, tolerance):
            return k


def first_diverging__wrong__count_from_one(ours, theirs, tolerance):
    first = first_that_not(ours, theirs, tolerance)
    return first + 1 if first >= 0 else -1


def first_diverging__wrong__how_many(ours, theirs, tolerance):
    """says: return -1"""
    first = first_that_not(ours, theirs, tolerance)
    return first if first >= 0 else len(ours)


def first_diverging__wrong__allclose(ours, theirs, tolerance):
    for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a.shape != b.shape or not np.allclose(a, b, atol=tolerance):
            return k
    return -1
