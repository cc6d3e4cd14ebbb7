"""Answers to the exercises of lesson 12, written from its text alone."""

from __future__ import annotations

import numpy as np

# --- flat_places ------------------------------------------------------------------------------


def flat_places__right__broadcast(padded, n, y, x):
    _, num_v, num_u, rows, columns = padded.shape
    v, u = np.arange(num_v)[:, None], np.arange(num_u)[None, :]
    return (((n * num_v + v) * num_u + u) * rows + y + v) * columns + x + u


def flat_places__right__numbered(padded, n, y, x):
    numbers = np.arange(padded.size).reshape(padded.shape)
    v, u = np.indices(padded.shape[1:3])
    return numbers[n, v, u, y + v, x + u]


def flat_places__right__loops(padded, n, y, x):
    places = np.zeros(padded.shape[1:3], dtype=np.int64)
    for v in range(padded.shape[1]):
        for u in range(padded.shape[2]):
            places[v, u] = np.ravel_multi_index((n, v, u, y + v, x + u), padded.shape)
    return places


def flat_places__right__own_strides(padded, n, y, x):
    s = [1]
    for side in padded.shape[:0:-1]:
        s.insert(0, s[0] * side)
    v, u = np.mgrid[: padded.shape[1], : padded.shape[2]]
    return n * s[0] + v * s[1] + u * s[2] + (y + v) * s[3] + x + u


def _places(padded, n, y, x, *, rows=None, columns=None, v_in=None, u_in=None):
    _, num_v, num_u, all_rows, all_columns = padded.shape
    rows, columns = rows or all_rows, columns or all_columns
    v, u = np.mgrid[:num_v, :num_u]
    row = y + (v if v_in is None else v_in(v, num_v))
    column = x + (u if u_in is None else u_in(u, num_u))
    return (((n * num_v + v) * num_u + u) * rows + row) * columns + column


def flat_places__wrong__without_the_border(padded, n, y, x):
    _, num_v, num_u, rows, columns = padded.shape
    return _places(padded, n, y, x, rows=rows - num_v + 1, columns=columns - num_u + 1)


def flat_places__wrong__from_the_centre(padded, n, y, x):
    return _places(
        padded,
        n,
        y,
        x,
        v_in=lambda v, num: v - (num - 1) // 2,
        u_in=lambda u, num: u - (num - 1) // 2,
    )


def flat_places__wrong__the_cell_alone(padded, n, y, x):
    return _places(padded, n, y, x, v_in=lambda v, _: 0 * v, u_in=lambda u, _: 0 * u)


def flat_places__wrong__minus(padded, n, y, x):
    return _places(padded, n, y, x, v_in=lambda v, _: -v, u_in=lambda u, _: -u)


def flat_places__wrong__x_with_y(padded, n, y, x):
    return _places(padded, n, x, y)


def flat_places__wrong__rows_for_columns(padded, n, y, x):
    return _places(padded, n, y, x, columns=padded.shape[3])


def flat_places__wrong__image_forgotten(padded, n, y, x):
    return _places(padded, 0, y, x)


def flat_places__wrong__bytes(padded, n, y, x):
    s = padded.strides
    v, u = np.mgrid[: padded.shape[1], : padded.shape[2]]
    return n * s[0] + v * s[1] + u * s[2] + (y + v) * s[3] + (x + u) * s[4]


def flat_places__wrong__one_map_only(padded, n, y, x):
    v, u = np.mgrid[: padded.shape[1], : padded.shape[2]]
    return (y + v) * padded.shape[4] + x + u


def flat_places__wrong__v_and_u_swapped(padded, n, y, x):
    _, num_v, num_u, rows, columns = padded.shape
    v, u = np.mgrid[:num_v, :num_u]
    return (((n * num_u + u) * num_v + v) * rows + y + v) * columns + x + u


def flat_places__wrong__v_steps_by_v(padded, n, y, x):
    _, num_v, num_u, rows, columns = padded.shape
    v, u = np.mgrid[:num_v, :num_u]
    return ((n * num_v * num_u + v * num_v + u) * rows + y + v) * columns + x + u


def flat_places__wrong__from_one(padded, n, y, x):
    return _places(padded, n, y, x) + 1


def flat_places__wrong__values(padded, n, y, x):
    return padded.ravel()[_places(padded, n, y, x)]


def flat_places__wrong__in_a_row(padded, n, y, x):
    return _places(padded, n, y, x).ravel()


def flat_places__wrong__block_of_one_map(padded, n, y, x):
    _, num_v, num_u, rows, columns = padded.shape
    v, u = np.mgrid[:num_v, :num_u]
    return (n * num_v * num_u * rows + y + v) * columns + x + u


def flat_places__wrong__first_axis_fastest(padded, n, y, x):
    v, u = np.mgrid[: padded.shape[1], : padded.shape[2]]
    index = (np.full_like(v, n), v, u, y + v, x + u)
    return np.ravel_multi_index(index, padded.shape, order="F")


def flat_places__wrong__early_return(padded, n, y, x):
    places = np.zeros(padded.shape[1:3], dtype=np.int64)
    for v in range(padded.shape[1]):
        for u in range(padded.shape[2]):
            places[v, u] = np.ravel_multi_index((n, v, u, y + v, x + u), padded.shape)
        return places


def flat_places__wrong__u_forgotten_in_x(padded, n, y, x):
    return _places(padded, n, y, x, u_in=lambda u, _: 0 * u)


def flat_places__wrong__maps_not_counted(padded, n, y, x):
    _, num_v, num_u, rows, columns = padded.shape
    v, u = np.mgrid[:num_v, :num_u]
    return ((n + v + u) * rows + y + v) * columns + x + u


# --- first_diverging --------------------------------------------------------------------------


def first_diverging__right__loop(ours, theirs, tolerance):
    for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a.shape != b.shape:
            return k
        largest = np.abs(a).max()
        limit = tolerance if largest <= 10 else tolerance * largest / 10
        if not (np.abs(a - b) <= limit).all():
            return k
    return -1


def first_diverging__right__next(ours, theirs, tolerance):
    def agrees(a, b):
        limit = tolerance * max(1, float(abs(a).max()) / 10)
        return a.shape == b.shape and bool(abs(a - b).max() <= limit)

    stages = enumerate(zip(ours, theirs, strict=False))
    return next((k for k, pair in stages if not agrees(*pair)), -1)


def first_diverging__right__isnan(ours, theirs, tolerance):
    for k in range(len(ours)):
        a, b = np.asarray(ours[k], float), np.asarray(theirs[k], float)
        if a.shape != b.shape or np.isnan(b).any():
            return k
        if np.max(np.abs(a - b)) > tolerance * np.maximum(np.max(np.abs(a)), 10) / 10:
            return k
    return -1


def _first(
    ours, theirs, tolerance, limit=None, differs=None, shape=lambda a, b: a.shape == b.shape
):
    limit = limit or (lambda a, b: tolerance * max(1, abs(a).max() / 10))
    differs = differs or (lambda a, b, most: not (abs(a - b) <= most).all())
    for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if not shape(a, b) or differs(a, b, limit(a, b)):
            return k
    return -1


def first_diverging__wrong__asked_with_larger(ours, theirs, tolerance):
    return _first(ours, theirs, tolerance, differs=lambda a, b, most: (abs(a - b) > most).any())


def first_diverging__wrong__absolute_alone(ours, theirs, tolerance):
    return _first(ours, theirs, tolerance, limit=lambda a, b: tolerance)


def first_diverging__wrong__relative_alone(ours, theirs, tolerance):
    return _first(
        ours, theirs, tolerance, limit=lambda a, b: tolerance * float(abs(a).max()) / 10
    )


def first_diverging__wrong__times_largest(ours, theirs, tolerance):
    return _first(
        ours, theirs, tolerance, limit=lambda a, b: tolerance * max(1.0, float(abs(a).max()))
    )


def first_diverging__wrong__not_divided_beyond(ours, theirs, tolerance):
    def limit(a, b):
        largest = abs(a).max()
        return tolerance if largest <= 10 else tolerance * largest

    return _first(ours, theirs, tolerance, limit=limit)


def first_diverging__wrong__largest_of_theirs(ours, theirs, tolerance):
    return _first(
        ours, theirs, tolerance, limit=lambda a, b: tolerance * max(1, np.nanmax(abs(b)) / 10)
    )


def first_diverging__wrong__no_absolute_value(ours, theirs, tolerance):
    return _first(ours, theirs, tolerance, differs=lambda a, b, most: not (a - b <= most).all())


def first_diverging__wrong__largest_without_sign(ours, theirs, tolerance):
    return _first(ours, theirs, tolerance, limit=lambda a, b: tolerance * max(1, a.max() / 10))


def first_diverging__wrong__mean(ours, theirs, tolerance):
    return _first(
        ours, theirs, tolerance, differs=lambda a, b, most: not abs(a - b).mean() <= most
    )


def first_diverging__wrong__each_its_own_limit(ours, theirs, tolerance):
    return _first(
        ours, theirs, tolerance, limit=lambda a, b: tolerance * np.maximum(1, abs(a) / 10)
    )


def first_diverging__wrong__exactly_is_out(ours, theirs, tolerance):
    return _first(
        ours, theirs, tolerance, differs=lambda a, b, most: not (abs(a - b) < most).all()
    )


def first_diverging__wrong__shape_not_asked(ours, theirs, tolerance):
    return _first(ours, theirs, tolerance, shape=lambda a, b: True)


def first_diverging__wrong__size_for_shape(ours, theirs, tolerance):
    return _first(
        ours,
        theirs,
        tolerance,
        shape=lambda a, b: a.size == b.size,
        differs=lambda a, b, most: not (abs(a.ravel() - b.ravel()) <= most).all(),
    )


def first_diverging__wrong__last(ours, theirs, tolerance):
    last = -1
    for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if _first([a], [b], tolerance) == 0:
            last = k
    return last


def first_diverging__wrong__from_one(ours, theirs, tolerance):
    return _first(ours, theirs, tolerance) + 1


def first_diverging__wrong__last_that_agrees(ours, theirs, tolerance):
    first = _first(ours, theirs, tolerance)
    return first - 1 if first >= 0 else -1


def first_diverging__wrong__none_for_all_right(ours, theirs, tolerance):
    first = _first(ours, theirs, tolerance)
    return None if first < 0 else first


def first_diverging__wrong__length_for_all_right(ours, theirs, tolerance):
    first = _first(ours, theirs, tolerance)
    return len(ours) if first < 0 else first


def first_diverging__wrong__worst(ours, theirs, tolerance):
    gaps = [
        np.inf if a.shape != b.shape else np.nan_to_num(abs(a - b).max(), nan=np.inf)
        for a, b in zip(ours, theirs, strict=True)
    ]
    return int(np.argmax(gaps)) if _first(ours, theirs, tolerance) >= 0 else -1


def first_diverging__wrong__early_return(ours, theirs, tolerance):
    for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        return k if _first([a], [b], tolerance) == 0 else -1
    return -1


def first_diverging__wrong__other_shapes_skipped(ours, theirs, tolerance):
    for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a.shape == b.shape and _first([a], [b], tolerance) == 0:
            return k
    return -1


def first_diverging__wrong__allclose(ours, theirs, tolerance):
    return _first(
        ours,
        theirs,
        tolerance,
        differs=lambda a, b, most: not np.allclose(a, b, rtol=0.1 * tolerance, atol=tolerance),
    )


def first_diverging__wrong__nan_ignored(ours, theirs, tolerance):
    return _first(
        ours,
        theirs,
        tolerance,
        differs=lambda a, b, most: np.nan_to_num(abs(a - b)).max() > most,
    )


def first_diverging__wrong__truth(ours, theirs, tolerance):
    return _first(ours, theirs, tolerance) >= 0
