"""Answers to the exercises of lesson 05, written from its text alone."""

from __future__ import annotations

import math

import numpy as np

PAD = -6.0


def _centres(count, lam):
    return (np.arange(round(count * lam)) + 0.5) / lam


def _shift(fine, pad_value):
    """Natural from aligned, bins one cell apart."""
    _, num_v, num_u, height, width = fine.shape
    padded = np.pad(
        fine,
        ((0, 0), (0, 0), (0, 0), (num_v // 2,) * 2, (num_u // 2,) * 2),
        constant_values=pad_value,
    )
    out = np.empty_like(fine)
    for i, j in np.ndindex(num_v, num_u):
        out[:, i, j] = padded[:, i, j, i : i + height, j : j + width]
    return out


# --- up_nearest -------------------------------------------------------------------------------


def up_nearest__right__take(coarse, lam):
    rows = np.floor(_centres(coarse.shape[1], lam)).astype(int)
    columns = np.floor(_centres(coarse.shape[2], lam)).astype(int)
    return coarse.take(rows, axis=1).take(columns, axis=2)


def up_nearest__wrong__tie_to_the_lower(coarse, lam):
    rows, columns = (
        np.abs(_centres(n, lam)[:, None] - np.arange(n) - 0.5).argmin(1)
        for n in coarse.shape[1:3]
    )
    return coarse[:, rows][:, :, columns]


def up_nearest__wrong__repeat_rounded_lam(coarse, lam):
    return coarse.repeat(int(lam), axis=1).repeat(int(lam), axis=2)


def up_nearest__wrong__edge_of_the_bin(coarse, lam):
    rows, columns = (
        np.floor(np.arange(round(n * lam)) / lam).astype(int) for n in coarse.shape[1:3]
    )
    return coarse[:, rows][:, :, columns]


def up_nearest__wrong__round_of_the_edge(coarse, lam):
    rows, columns = (
        np.minimum(np.round(np.arange(round(n * lam)) / lam).astype(int), n - 1)
        for n in coarse.shape[1:3]
    )
    return coarse[:, rows][:, :, columns]


def up_nearest__wrong__tiled(coarse, lam):
    rows, columns = (np.arange(round(n * lam)) % n for n in coarse.shape[1:3])
    return coarse[:, rows][:, :, columns]


def up_nearest__wrong__cells_made_finer(coarse, lam):
    rows, columns = (np.floor(_centres(n, lam)).astype(int) for n in coarse.shape[3:])
    return coarse[:, :, :, rows][..., columns]


def up_nearest__wrong__half_outside(coarse, lam):
    rows, columns = (
        np.floor(np.arange(round(n * lam)) / lam + 0.5).astype(int).clip(0, n - 1)
        for n in coarse.shape[1:3]
    )
    return coarse[:, rows][:, :, columns]


def up_nearest__wrong__result_of_rows_for_both(coarse, lam):
    n, num_v, num_u, height, width = coarse.shape
    side = round(lam * num_v)
    out = np.zeros((n, side, side, height, width))
    for i in range(side):
        for j in range(side):
            column = math.floor((j + 0.5) / lam)
            if column < num_u:
                out[:, i, j] = coarse[:, math.floor((i + 0.5) / lam), column]
    return out


def up_nearest__wrong__centred_index(coarse, lam):
    n, num_v, num_u, height, width = coarse.shape
    out = np.zeros((n, round(lam * num_v), round(lam * num_u), height, width))
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            v, u = i - (out.shape[1] - 1) // 2, j - (out.shape[2] - 1) // 2
            k, m = math.floor((v + 0.5) / lam), math.floor((u + 0.5) / lam)
            out[:, i, j] = coarse[:, (k + num_v // 2) % num_v, (m + num_u // 2) % num_u]
    return out


# --- up_bilinear ------------------------------------------------------------------------------


def _weights(count, lam):
    """A row per fine bin; the first and the last column are of the pad."""
    p = _centres(count, lam) - 0.5
    return np.maximum(0, 1 - np.abs(p[:, None] - np.arange(-1, count + 1)))


def up_bilinear__right__einsum(coarse, lam, pad_value=PAD):
    padded = np.pad(coarse, ((0, 0), (1, 1), (1, 1), (0, 0), (0, 0)), constant_values=pad_value)
    return np.einsum(
        "ik,jm,nkmyx->nijyx",
        _weights(coarse.shape[1], lam),
        _weights(coarse.shape[2], lam),
        padded,
    )


def _clamped(coarse, lam, shift=0.5):
    def matrix(count):
        p = (np.arange(round(count * lam)) + shift) / lam - shift
        p = np.clip(p, 0, count - 1)
        return np.maximum(0, 1 - np.abs(p[:, None] - np.arange(count)))

    return np.einsum(
        "ik,jm,nkmyx->nijyx", matrix(coarse.shape[1]), matrix(coarse.shape[2]), coarse
    )


def up_bilinear__wrong__edge_repeated(coarse, lam, pad_value=PAD):
    return _clamped(coarse, lam)


def up_bilinear__wrong__half_missing(coarse, lam, pad_value=PAD):
    padded = np.pad(coarse, ((0, 0), (1, 1), (1, 1), (0, 0), (0, 0)), constant_values=pad_value)

    def matrix(count):
        p = np.arange(round(count * lam)) / lam
        return np.maximum(0, 1 - np.abs(p[:, None] - np.arange(-1, count + 1)))

    return np.einsum(
        "ik,jm,nkmyx->nijyx", matrix(coarse.shape[1]), matrix(coarse.shape[2]), padded
    )


def up_bilinear__wrong__corners_aligned(coarse, lam, pad_value=PAD):
    def matrix(count):
        p = np.linspace(0, count - 1, round(count * lam))
        return np.maximum(0, 1 - np.abs(p[:, None] - np.arange(count)))

    return np.einsum(
        "ik,jm,nkmyx->nijyx", matrix(coarse.shape[1]), matrix(coarse.shape[2]), coarse
    )


def up_bilinear__wrong__weights_swapped(coarse, lam, pad_value=PAD):
    padded = np.pad(coarse, ((0, 0), (1, 1), (1, 1), (0, 0), (0, 0)), constant_values=pad_value)
    n, num_v, num_u, height, width = coarse.shape
    out = np.zeros((n, round(lam * num_v), round(lam * num_u), height, width))
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            p, q = (i + 0.5) / lam - 0.5, (j + 0.5) / lam - 0.5
            k, m = math.floor(p), math.floor(q)
            for a in (0, 1):
                for b in (0, 1):
                    weight = abs(p - k - a) * abs(q - m - b)
                    out[:, i, j] += weight * padded[:, k + a + 1, m + b + 1]
    return out


def up_bilinear__wrong__outside_left_out(coarse, lam, pad_value=PAD):
    return np.einsum(
        "ik,jm,nkmyx->nijyx",
        _weights(coarse.shape[1], lam)[:, 1:-1],
        _weights(coarse.shape[2], lam)[:, 1:-1],
        coarse,
    )


def up_bilinear__wrong__renormalised(coarse, lam, pad_value=PAD):
    rows, columns = (_weights(n, lam)[:, 1:-1] for n in coarse.shape[1:3])
    rows, columns = (m / m.sum(1, keepdims=True) for m in (rows, columns))
    return np.einsum("ik,jm,nkmyx->nijyx", rows, columns, coarse)


def up_bilinear__wrong__all_pad_if_any_neighbour_is_missing(coarse, lam, pad_value=PAD):
    n, num_v, num_u, height, width = coarse.shape
    out = np.full((n, round(lam * num_v), round(lam * num_u), height, width), pad_value)
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            p, q = (i + 0.5) / lam - 0.5, (j + 0.5) / lam - 0.5
            k, m = math.floor(p), math.floor(q)
            if 0 <= k and k + 1 < num_v and 0 <= m and m + 1 < num_u:
                a, b = p - k, q - m
                out[:, i, j] = (1 - a) * (
                    (1 - b) * coarse[:, k, m] + b * coarse[:, k, m + 1]
                ) + a * ((1 - b) * coarse[:, k + 1, m] + b * coarse[:, k + 1, m + 1])
    return out


def up_bilinear__wrong__int_for_floor(coarse, lam, pad_value=PAD):
    n, num_v, num_u, height, width = coarse.shape
    out = np.zeros((n, round(lam * num_v), round(lam * num_u), height, width))
    for i, j in np.ndindex(out.shape[1:3]):
        p, q = (i + 0.5) / lam - 0.5, (j + 0.5) / lam - 0.5
        for k in (int(p), int(p) + 1):
            for m in (int(q), int(q) + 1):
                weight = (1 - abs(p - k)) * (1 - abs(q - m))
                inside = 0 <= k < num_v and 0 <= m < num_u
                out[:, i, j] += weight * (coarse[:, k, m] if inside else pad_value)
    return out


def up_bilinear__wrong__weights_added(coarse, lam, pad_value=PAD):
    n, num_v, num_u, height, width = coarse.shape
    out = np.zeros((n, round(lam * num_v), round(lam * num_u), height, width))
    for i, j in np.ndindex(out.shape[1:3]):
        p, q = (i + 0.5) / lam - 0.5, (j + 0.5) / lam - 0.5
        for k in (math.floor(p), math.floor(p) + 1):
            for m in (math.floor(q), math.floor(q) + 1):
                weight = ((1 - abs(p - k)) + (1 - abs(q - m))) / 4
                inside = 0 <= k < num_v and 0 <= m < num_u
                out[:, i, j] += weight * (coarse[:, k, m] if inside else pad_value)
    return out


def up_bilinear__wrong__pad_without_weight(coarse, lam, pad_value=PAD):
    n, num_v, num_u, height, width = coarse.shape
    out = np.zeros((n, round(lam * num_v), round(lam * num_u), height, width))
    for i, j in np.ndindex(out.shape[1:3]):
        p, q = (i + 0.5) / lam - 0.5, (j + 0.5) / lam - 0.5
        for k in (math.floor(p), math.floor(p) + 1):
            for m in (math.floor(q), math.floor(q) + 1):
                if 0 <= k < num_v and 0 <= m < num_u:
                    out[:, i, j] += (1 - abs(p - k)) * (1 - abs(q - m)) * coarse[:, k, m]
                else:
                    out[:, i, j] += pad_value
    return out


# --- up_align2nat -----------------------------------------------------------------------------


def up_align2nat__right__einsum_and_slices(aligned, lam, pad_value=PAD):
    return _shift(up_bilinear__right__einsum(aligned, lam, pad_value), pad_value)


def up_align2nat__wrong__only_the_blend(aligned, lam, pad_value=PAD):
    return up_bilinear__right__einsum(aligned, lam, pad_value)


def up_align2nat__wrong__copied_not_blended(aligned, lam, pad_value=PAD):
    return _shift(up_nearest__right__take(aligned, lam), pad_value)


def up_align2nat__wrong__natural_first(aligned, lam, pad_value=PAD):
    step = int(lam)
    num_v, num_u = aligned.shape[1:3]
    coarse = np.full(aligned.shape, pad_value)
    for i, j, y, x in np.ndindex(aligned.shape[1:]):
        row, column = y + step * (i - num_v // 2), x + step * (j - num_u // 2)
        if 0 <= row < aligned.shape[3] and 0 <= column < aligned.shape[4]:
            coarse[:, i, j, y, x] = aligned[:, i, j, row, column]
    return up_bilinear__right__einsum(coarse, lam, pad_value)


def up_align2nat__wrong__bins_still_lam_apart(aligned, lam, pad_value=PAD):
    fine = up_bilinear__right__einsum(aligned, lam, pad_value)
    out = np.full(fine.shape, pad_value)
    for i, j, y, x in np.ndindex(fine.shape[1:]):
        row = math.floor(y + lam * (i - fine.shape[1] // 2))
        column = math.floor(x + lam * (j - fine.shape[2] // 2))
        if 0 <= row < fine.shape[3] and 0 <= column < fine.shape[4]:
            out[:, i, j, y, x] = fine[:, i, j, row, column]
    return out


def up_align2nat__wrong__coarse_centre(aligned, lam, pad_value=PAD):
    fine = up_bilinear__right__einsum(aligned, lam, pad_value)
    out = np.full(fine.shape, pad_value)
    for i, j, y, x in np.ndindex(fine.shape[1:]):
        row, column = y + i - aligned.shape[1] // 2, x + j - aligned.shape[2] // 2
        if 0 <= row < fine.shape[3] and 0 <= column < fine.shape[4]:
            out[:, i, j, y, x] = fine[:, i, j, row, column]
    return out


def up_align2nat__wrong__wrong_way(aligned, lam, pad_value=PAD):
    fine = up_bilinear__right__einsum(aligned, lam, pad_value)
    return _shift(fine[:, ::-1, ::-1], pad_value)[:, ::-1, ::-1]


def up_align2nat__wrong__pad_of_the_blend_forgotten(aligned, lam, pad_value=PAD):
    return _shift(up_bilinear__right__einsum(aligned, lam), pad_value)


def up_align2nat__wrong__clamped_blend(aligned, lam, pad_value=PAD):
    return _shift(_clamped(aligned, lam), pad_value)


def up_align2nat__wrong__cells_rolled(aligned, lam, pad_value=PAD):
    fine = up_bilinear__right__einsum(aligned, lam, pad_value)
    out = np.empty_like(fine)
    for i, j in np.ndindex(fine.shape[1:3]):
        shift = (fine.shape[1] // 2 - i, fine.shape[2] // 2 - j)
        out[:, i, j] = np.roll(fine[:, i, j], shift, (1, 2))
    return out
