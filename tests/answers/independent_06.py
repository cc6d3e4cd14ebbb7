"""Answers to the exercises of lesson 06, written from its text alone."""

from __future__ import annotations

import math

import numpy as np

PAD = -6.0


# --- taps -------------------------------------------------------------------------------------


def taps__right__divmod(v, lam):
    k, rest = divmod(2 * v + 1 - lam, 2 * lam)
    share = rest / (2 * lam)
    return [(int(k), 1 - share), (int(k) + 1, share)]


def taps__right__hat(v, lam):
    place = (v + 0.5) / lam - 0.5
    near = range(math.floor(place), math.floor(place) + 2)
    return np.array([(k, 1 - abs(place - k)) for k in near]).tolist() and [
        (k, 1 - abs(place - k)) for k in near
    ]


def taps__wrong__no_last_half(v, lam):
    place = (v + 0.5) / lam
    k = math.floor(place)
    return [(k, 1 - (place - k)), (k + 1, place - k)]


def taps__wrong__weights_exchanged(v, lam):
    place = (v + 0.5) / lam - 0.5
    k = math.floor(place)
    return [(k, place - k), (k + 1, 1 - place + k)]


def taps__wrong__integer_division_first(v, lam):
    k = v // lam
    share = (v % lam + 0.5) / lam
    return [(k, 1 - share), (k + 1, share)]


def taps__wrong__weight_then_index(v, lam):
    return [(weight, k) for k, weight in taps__right__divmod(v, lam)]


def taps__wrong__rounded_centre(v, lam):
    place = (v + 0.5) / lam - 0.5
    k = round(place)
    return [(k, 1 - abs(place - k)), (k + 1, abs(place - k))]


def taps__wrong__half_after_times(v, lam):
    place = (v + 0.5) * lam - 0.5
    k = math.floor(place)
    return [(k, 1 - (place - k)), (k + 1, place - k)]


def taps__wrong__outside_dropped(v, lam):
    return [(max(k, 0), weight) for k, weight in taps__right__divmod(v, lam)]


def taps__wrong__truncated(v, lam):
    place = (v + 0.5) / lam - 0.5
    k = int(place)
    return [(k, 1 - (place - k)), (k + 1, place - k)]


def taps__wrong__nearest_only(v, lam):
    return [(math.floor((v + 0.5) / lam), 1.0)]


# --- shifted_taps -----------------------------------------------------------------------------


def shifted_taps__right__both_halves(v, y, lam, num_v):
    twice = 2 * (lam * y + v) - lam * num_v + 1
    return [(twice // 2, 0.5), (-(-twice // 2), 0.5)]


def shifted_taps__right__floor(v, y, lam, num_v):
    place = lam * y + v - (lam * num_v - 1) / 2
    cell = math.floor(place)
    return [(cell, 1 - place + cell), (cell + 1, place - cell)]


def shifted_taps__wrong__coarse_centre(v, y, lam, num_v):
    place = lam * y + v - (num_v - 1) / 2
    cell = math.floor(place)
    return [(cell, 1 - place + cell), (cell + 1, place - cell)]


def shifted_taps__wrong__integer_centre(v, y, lam, num_v):
    return [(lam * y + v - (lam * num_v - 1) // 2, 1.0)]


def shifted_taps__wrong__cell_not_scaled(v, y, lam, num_v):
    place = y + v - (lam * num_v - 1) / 2
    cell = math.floor(place)
    return [(cell, 1 - place + cell), (cell + 1, place - cell)]


def shifted_taps__wrong__minus_v(v, y, lam, num_v):
    place = lam * y - v + (lam * num_v - 1) / 2
    cell = math.floor(place)
    return [(cell, 1 - place + cell), (cell + 1, place - cell)]


def shifted_taps__wrong__half_of_the_side(v, y, lam, num_v):
    place = lam * y + v - lam * num_v / 2
    cell = math.floor(place)
    return [(cell, 1 - place + cell), (cell + 1, place - cell)]


def shifted_taps__wrong__always_a_mean(v, y, lam, num_v):
    cell = math.floor(lam * y + v - (lam * num_v - 1) / 2)
    return [(cell, 0.5), (cell + 1, 0.5)]


def shifted_taps__wrong__float_cell(v, y, lam, num_v):
    return [(lam * y + v - (lam * num_v - 1) / 2, 1.0)]


def shifted_taps__wrong__both_whole(v, y, lam, num_v):
    place = lam * y + v - (lam * num_v - 1) / 2
    return [(math.floor(place), 1.0), (math.ceil(place), 1.0)]


def shifted_taps__wrong__bins_in_coarse_units(v, y, lam, num_v):
    place = lam * y + (v + 0.5) / lam - 0.5 - (num_v - 1) / 2
    cell = math.floor(place)
    return [(cell, 1 - place + cell), (cell + 1, place - cell)]


# --- swap_align2nat ---------------------------------------------------------------------------


def _dense(pairs, count):
    """Weights of entries 0 to count - 1; what lies outside is left to the pad."""
    row = np.zeros(count)
    for k, weight in pairs:
        if 0 <= k < count:
            row[k] += weight
    return row


def _by_weights(aligned, lam, pad_value, cells, shifted=shifted_taps__right__floor):
    _, num_v, num_u, height, width = aligned.shape
    high, wide = cells
    rows = np.array([_dense(taps__right__divmod(v, lam), num_v) for v in range(lam * num_v)])
    columns = np.array([_dense(taps__right__divmod(u, lam), num_u) for u in range(lam * num_u)])
    down = np.array(
        [
            [_dense(shifted(v, y, lam, num_v), height) for y in range(high)]
            for v in range(lam * num_v)
        ]
    ).reshape(lam * num_v, high, height)
    right = np.array(
        [
            [_dense(shifted(u, x, lam, num_u), width) for x in range(wide)]
            for u in range(lam * num_u)
        ]
    ).reshape(lam * num_u, wide, width)
    return pad_value + np.einsum(
        "ik,jm,iyr,jxc,nkmrc->nijyx",
        rows,
        columns,
        down,
        right,
        aligned - pad_value,
        optimize=True,
    )


def _up(count, lam):
    return -(-count // lam)


def swap_align2nat__right__above_the_pad(aligned, lam, pad_value=PAD):
    cells = (_up(aligned.shape[3], lam), _up(aligned.shape[4], lam))
    return _by_weights(aligned, lam, pad_value, cells)


def _loops(aligned, lam, pad_value, value):
    n, num_v, num_u, height, width = aligned.shape
    out = np.zeros((n, lam * num_v, lam * num_u, _up(height, lam), _up(width, lam)))
    for i, j, y, x in np.ndindex(out.shape[1:]):
        for k, a in taps__right__divmod(i, lam):
            for m, b in taps__right__divmod(j, lam):
                for r, c in shifted_taps__right__floor(i, y, lam, num_v):
                    for s, d in shifted_taps__right__floor(j, x, lam, num_u):
                        out[:, i, j, y, x] += a * b * c * d * value(k, m, r, s)
    return out


def swap_align2nat__wrong__outside_skipped(aligned, lam, pad_value=PAD):
    return swap_align2nat__right__above_the_pad(aligned, lam, 0.0)


def swap_align2nat__wrong__window_edge_clamped(aligned, lam, pad_value=PAD):
    _, num_v, num_u, height, width = aligned.shape

    def value(k, m, r, s):
        if not (0 <= r < height and 0 <= s < width):
            return pad_value
        return aligned[:, min(max(k, 0), num_v - 1), min(max(m, 0), num_u - 1), r, s]

    return _loops(aligned, lam, pad_value, value)


def swap_align2nat__wrong__grid_edge_clamped(aligned, lam, pad_value=PAD):
    _, num_v, num_u, height, width = aligned.shape

    def value(k, m, r, s):
        if not (0 <= k < num_v and 0 <= m < num_u):
            return pad_value
        return aligned[:, k, m, min(max(r, 0), height - 1), min(max(s, 0), width - 1)]

    return _loops(aligned, lam, pad_value, value)


def swap_align2nat__wrong__cells_rounded_down(aligned, lam, pad_value=PAD):
    cells = (aligned.shape[3] // lam, aligned.shape[4] // lam)
    return _by_weights(aligned, lam, pad_value, cells)


def swap_align2nat__wrong__not_subsampled(aligned, lam, pad_value=PAD):
    return _by_weights(
        aligned,
        lam,
        pad_value,
        aligned.shape[3:],
        lambda v, y, lam, num_v: shifted_taps__right__floor(v, y / lam, lam, num_v),
    )


def swap_align2nat__wrong__v_for_u(aligned, lam, pad_value=PAD):
    n, num_v, num_u, height, width = aligned.shape
    out = np.zeros((n, lam * num_v, lam * num_u, _up(height, lam), _up(width, lam)))
    for i, j, y, x in np.ndindex(out.shape[1:]):
        for k, a in taps__right__divmod(i, lam):
            for m, b in taps__right__divmod(j, lam):
                for r, c in shifted_taps__right__floor(i, y, lam, num_v):
                    for s, d in shifted_taps__right__floor(j, x, lam, num_v):
                        inside = (
                            0 <= k < num_v
                            and 0 <= m < num_u
                            and 0 <= r < height
                            and 0 <= s < width
                        )
                        value = aligned[:, k, m, r, s] if inside else pad_value
                        out[:, i, j, y, x] += a * b * c * d * value
    return out


def swap_align2nat__wrong__assigned_not_added(aligned, lam, pad_value=PAD):
    n, num_v, num_u, height, width = aligned.shape
    out = np.full((n, lam * num_v, lam * num_u, _up(height, lam), _up(width, lam)), pad_value)
    for i, j, y, x in np.ndindex(out.shape[1:]):
        for k, a in taps__right__divmod(i, lam):
            for m, b in taps__right__divmod(j, lam):
                for r, c in shifted_taps__right__floor(i, y, lam, num_v):
                    for s, d in shifted_taps__right__floor(j, x, lam, num_u):
                        if (
                            0 <= k < num_v
                            and 0 <= m < num_u
                            and 0 <= r < height
                            and 0 <= s < width
                        ):
                            out[:, i, j, y, x] = a * b * c * d * aligned[:, k, m, r, s]
    return out


def swap_align2nat__wrong__starts_from_the_pad(aligned, lam, pad_value=PAD):
    return pad_value + swap_align2nat__right__above_the_pad(aligned, lam, pad_value)


def swap_align2nat__wrong__only_bins_asked(aligned, lam, pad_value=PAD):
    _, num_v, num_u, height, width = aligned.shape

    def value(k, m, r, s):
        return aligned[:, k, m, r, s] if 0 <= k < num_v and 0 <= m < num_u else pad_value

    return _loops(aligned, lam, pad_value, value)


def swap_align2nat__wrong__units_of_the_input_kept(aligned, lam, pad_value=PAD):
    _, num_v, num_u, height, width = aligned.shape
    return _by_weights(
        aligned,
        lam,
        pad_value,
        (_up(height, lam), _up(width, lam)),
        lambda v, y, lam, num_v: shifted_taps__right__floor(v, y / lam, lam, num_v),
    )


# --- swap_elements ----------------------------------------------------------------------------


def swap_elements__right__shapes(num_v, num_u, height, width, lam):
    before = np.prod([lam * num_v, lam * num_u, height, width])
    after = np.prod([lam * num_v, lam * num_u, math.ceil(height / lam), math.ceil(width / lam)])
    return int(before), int(after)


def swap_elements__wrong__divided_by_lam_squared(num_v, num_u, height, width, lam):
    before = lam**2 * num_v * num_u * height * width
    return before, before // lam**2


def swap_elements__wrong__float_division(num_v, num_u, height, width, lam):
    before = lam**2 * num_v * num_u * height * width
    return before, lam * num_v * lam * num_u * (height / lam) * (width / lam)


def swap_elements__wrong__lam_once(num_v, num_u, height, width, lam):
    before = lam * num_v * num_u * height * width
    return before, lam * num_v * num_u * -(-height // lam) * -(-width // lam)


def swap_elements__wrong__other_order(num_v, num_u, height, width, lam):
    return swap_elements__right__shapes(num_v, num_u, height, width, lam)[::-1]


def swap_elements__wrong__input_and_result(num_v, num_u, height, width, lam):
    result = lam**2 * num_v * num_u * -(-height // lam) * -(-width // lam)
    return num_v * num_u * height * width, result


def swap_elements__wrong__subsampled_before(num_v, num_u, height, width, lam):
    result = num_v * num_u * -(-height // lam) * -(-width // lam)
    return lam**2 * num_v * num_u * height * width, result


def swap_elements__wrong__round_half(num_v, num_u, height, width, lam):
    bins = lam**2 * num_v * num_u
    return bins * height * width, bins * round(height / lam) * round(width / lam)


def swap_elements__wrong__ceil_of_the_product(num_v, num_u, height, width, lam):
    bins = lam**2 * num_v * num_u
    return bins * height * width, bins * math.ceil(height * width / lam**2)


def swap_elements__wrong__bytes(num_v, num_u, height, width, lam):
    return tuple(4 * n for n in swap_elements__right__shapes(num_v, num_u, height, width, lam))
