"""Answers to the exercises of lesson 06."""

from __future__ import annotations

import math

import numpy as np

PAD = -6.0


# --- taps -------------------------------------------------------------------------------------


def taps__right__in_integers(v, lam):
    """No floating point until the end."""
    lower = (2 * v + 1 - lam) // (2 * lam)
    upper_weight = (2 * v + 1 - lam - 2 * lam * lower) / (2 * lam)
    return [(lower + 1, upper_weight), (lower, 1 - upper_weight)]


def two_taps(place):
    return [(math.floor(place), 1 - place % 1), (math.floor(place) + 1, place % 1)]


def taps__wrong__corners(v, lam):
    """says: corners on corners"""
    return two_taps(v / lam)


def taps__wrong__half_a_rule(v, lam):
    """says: Half the half-cell rule"""
    return two_taps((2 * v + 1) / (2 * lam))


def taps__wrong__weights_swapped(v, lam):
    """says: weights are swapped"""
    (low, a), (high, b) = taps__right__in_integers(v, lam)
    return [(low, b), (high, a)]


def taps__wrong__nearest(v, lam):
    """says: nearest neighbour"""
    return [(v // lam, 1)]


def taps__wrong__truncated(v, lam):
    """says: rounds towards zero"""
    place = (v + 0.5) / lam - 0.5
    low = int(place)
    return [(low, 1 - place + low), (low + 1, place - low)]


def taps__wrong__clamped(v, lam):
    """says: that is clamping"""
    place = max((v + 0.5) / lam - 0.5, 0)
    return two_taps(place)


# --- shifted_taps -----------------------------------------------------------------------------


def shifted_taps__right__by_parity(v, y, lam, num_v):
    first = lam * y + v - lam * num_v // 2
    return [(first, 0.5), (first + 1, 0.5)] if lam * num_v % 2 == 0 else [(first, 1.0)]


def shifted_taps__wrong__fine_grid(v, y, lam, num_v):
    """says: lam times coarser"""
    return two_taps(y + v - (lam * num_v - 1) / 2)


def shifted_taps__wrong__upwards(v, y, lam, num_v):
    """says: walk upwards"""
    return two_taps(lam * y - v + (lam * num_v - 1) / 2)


def shifted_taps__wrong__coarse_centre(v, y, lam, num_v):
    """says: coarse window's"""
    return two_taps(lam * y + v - (num_v - 1) / 2)


def shifted_taps__wrong__uncentred(v, y, lam, num_v):
    """says: from the window's first bin"""
    return [(lam * y + v, 1)]


def shifted_taps__wrong__lower(v, y, lam, num_v):
    """says: took the lower one"""
    return [(math.floor(lam * y + v - (lam * num_v - 1) / 2), 1)]


def shifted_taps__wrong__upper(v, y, lam, num_v):
    """says: took the upper one"""
    return [(math.ceil(lam * y + v - (lam * num_v - 1) / 2), 1)]


# --- swap_align2nat ---------------------------------------------------------------------------


def loops(x, lam, pad_value, axis_v=None, axis_y=None, read=None):
    """The fused op entry by entry; what differs is given."""
    axis_v, axis_y = (
        axis_v or taps__right__in_integers,
        axis_y or shifted_taps__right__by_parity,
    )
    n, num_v, num_u, height, width = x.shape
    out = np.zeros((n, lam * num_v, lam * num_u, -(-height // lam), -(-width // lam)))
    for v, u, y, column in np.ndindex(*out.shape[1:]):
        for a, wa in axis_v(v, lam):
            for b, wb in axis_v(u, lam):
                for c, wc in axis_y(v, y, lam, num_v):
                    for d, wd in axis_y(u, column, lam, num_u):
                        weight = wa * wb * wc * wd
                        out[:, v, u, y, column] += weight * (read or entry)(
                            x, (a, b, c, d), pad_value
                        )
    return out


def entry(x, place, pad_value):
    inside = all(0 <= i < extent for i, extent in zip(place, x.shape[1:], strict=True))
    return x[(slice(None), *place)] if inside else pad_value


def swap_align2nat__right__by_loops(x, lam, pad_value=PAD):
    return loops(x, lam, pad_value)


def swap_align2nat__wrong__transposed_read(x, lam, pad_value=PAD):
    """says: bin (u, v)"""

    def read(x, place, pad_value):
        a, b, c, d = place
        return entry(x, (b, a, c, d), pad_value)

    return loops(x, lam, pad_value, read=read)


def swap_align2nat__wrong__first_tap_only(x, lam, pad_value=PAD):
    """says: weight is lost"""
    return (
        loops(x - pad_value, lam, 0.0, axis_y=lambda *a: shifted_taps__right__by_parity(*a)[:1])
        + pad_value
    )


def swap_align2nat__wrong__half_cell_dropped(x, lam, pad_value=PAD):
    """says: dropped the half cell"""
    return loops(x, lam, pad_value, axis_y=shifted_taps__wrong__lower)


def swap_align2nat__wrong__nearest(x, lam, pad_value=PAD):
    """says: blocks"""
    return loops(x, lam, pad_value, axis_v=taps__wrong__nearest)


def swap_align2nat__wrong__clamped_rim(x, lam, pad_value=PAD):
    """says: rim is clamped"""

    def read(x, place, pad_value):
        a, b, c, d = place
        return entry(
            x, (np.clip(a, 0, x.shape[1] - 1), np.clip(b, 0, x.shape[2] - 1), c, d), pad_value
        )

    return loops(x, lam, pad_value, read=read)


def swap_align2nat__wrong__renormalised(x, lam, pad_value=PAD):
    """says: no renormalisation"""
    weight = loops(np.ones_like(x), lam, 0.0)
    return loops(x, lam, 0.0) / np.where(weight > 0, weight, 1)


def swap_align2nat__wrong__zero_outside(x, lam, pad_value=PAD):
    """says: counts as 0"""
    return loops(x, lam, 0.0)


def swap_align2nat__wrong__unfused(x, lam, pad_value=PAD):
    """says: built the tensor between"""
    _, num_v, num_u, height, width = x.shape
    fine = [np.zeros((lam * bins, bins)) for bins in (num_v, num_u)]
    for weights in fine:
        for v in range(len(weights)):
            for k, weight in taps__right__in_integers(v, lam):
                if 0 <= k < weights.shape[1]:
                    weights[v, k] = weight
    up = np.einsum("av,bu,nvuyx->nabyx", *fine, x - pad_value) + pad_value
    reach = lam * max(num_v, num_u)
    padded = np.pad(up, ((0, 0),) * 3 + ((reach, reach),) * 2, constant_values=pad_value)
    between = np.zeros(up.shape)
    for v, u in np.ndindex(*up.shape[1:3]):
        for row, wr in shifted_taps__right__by_parity(v, 0, lam, num_v):
            for column, wc in shifted_taps__right__by_parity(u, 0, lam, num_u):
                part = padded[:, v, u, reach + row :, reach + column :][:, :height, :width]
                between[:, v, u] += wr * wc * part
    return between[..., ::lam, ::lam].copy()


# --- swap_elements ----------------------------------------------------------------------------


def swap_elements__right__by_numpy(num_v, num_u, height, width, lam):
    bins = lam * lam * num_v * num_u
    return np.array(
        [bins * height * width, bins * len(range(0, height, lam)) * len(range(0, width, lam))]
    )


def swap_elements__wrong__lam_once(v, u, h, w, lam):
    """says: lam times as many"""
    cells = len(range(0, h, lam)) * len(range(0, w, lam))
    return lam * v * u * h * w, lam * v * u * cells


def swap_elements__wrong__coarse_between(v, u, h, w, lam):
    """says: fine bins already"""
    return v * u * h * w, int(swap_elements__right__by_numpy(v, u, h, w, lam)[1])


def swap_elements__wrong__subsampled_between(v, u, h, w, lam):
    """says: subsampled already"""
    return [int(swap_elements__right__by_numpy(v, u, h, w, lam)[1])] * 2


def swap_elements__wrong__coarse_result(v, u, h, w, lam):
    """says: result has fine bins too"""
    return lam**2 * v * u * h * w, v * u * len(range(0, h, lam)) * len(range(0, w, lam))


def swap_elements__wrong__floor(v, u, h, w, lam):
    """says: not the floor"""
    return lam**2 * v * u * h * w, lam**2 * v * u * (h // lam) * (w // lam)


def swap_elements__wrong__as_large_as_the_input(v, u, h, w, lam):
    """says: only if lam divides"""
    return lam**2 * v * u * h * w, v * u * h * w


def swap_elements__wrong__one_number(v, u, h, w, lam):
    """says: Return shape (2,)"""
    return lam**2 * v * u * h * w
