"""Answers to the exercises of lesson 05."""

from __future__ import annotations

import math

import numpy as np

PAD = -6.0


# --- up_nearest -------------------------------------------------------------------------------


def up_nearest__right__by_index(coarse, lam):
    v = [int((2 * v + 1) / (2 * lam)) for v in range(round(lam * coarse.shape[1]))]
    u = [int((2 * u + 1) / (2 * lam)) for u in range(round(lam * coarse.shape[2]))]
    return coarse[:, v][:, :, u]


def nearest(coarse, lam, which):
    v = [which(v) for v in range(round(lam * coarse.shape[1]))]
    u = [which(u) for u in range(round(lam * coarse.shape[2]))]
    return coarse[:, np.clip(v, 0, coarse.shape[1] - 1)][
        :, :, np.clip(u, 0, coarse.shape[2] - 1)
    ]


def up_nearest__wrong__repeat(coarse, lam):
    return coarse.repeat(int(lam), 1).repeat(int(lam), 2)


def up_nearest__wrong__tile(coarse, lam):
    """says: beside itself"""
    v = np.arange(round(lam * coarse.shape[1])) % coarse.shape[1]
    u = np.arange(round(lam * coarse.shape[2])) % coarse.shape[2]
    return coarse[:, v][:, :, u]


def up_nearest__wrong__edge_of_the_bin(coarse, lam):
    """says: centre"""
    return nearest(coarse, lam, lambda v: int(v / lam))


def up_nearest__wrong__rounded(coarse, lam):
    return nearest(coarse, lam, lambda v: round((v + 0.5) / lam))


def up_nearest__wrong__the_cells(coarse, lam):
    return np.swapaxes(np.swapaxes(up_nearest__right__by_index(coarse, lam), 1, 3), 2, 4)


def up_nearest__wrong__one_direction(coarse, lam):
    return coarse[:, [math.floor((v + 0.5) / lam) for v in range(round(lam * coarse.shape[1]))]]


def up_nearest__wrong__float_size(coarse, lam):
    out = np.zeros(
        (len(coarse), lam * coarse.shape[1], lam * coarse.shape[2], *coarse.shape[3:])
    )
    for v in range(out.shape[1]):
        for u in range(out.shape[2]):
            out[:, v, u] = coarse[:, math.floor((v + 0.5) / lam), math.floor((u + 0.5) / lam)]
    return out


def up_nearest__wrong__whole_result(coarse, lam):
    shape = len(coarse), round(lam * coarse.shape[1]), round(lam * coarse.shape[2])
    out = np.zeros((*shape, *coarse.shape[3:]), int)
    for v, u in np.ndindex(*shape[1:]):
        out[:, v, u] = coarse[:, math.floor((v + 0.5) / lam), math.floor((u + 0.5) / lam)]
    return out


# --- up_bilinear ------------------------------------------------------------------------------


def matrix(num, lam, place=None, weight=None):
    """(lam * num, num + 2): the share of every coarse bin, and of the two beyond the edges."""
    place = place or (lambda v: (v + 0.5) / lam - 0.5)
    weight = weight or (lambda far: max(0.0, 1 - abs(far)))
    fine = range(round(lam * num))
    return np.array([[weight(place(v) - k) for k in range(-1, num + 1)] for v in fine])


def up_bilinear__right__by_matrices(coarse, lam, pad_value=PAD, **how):
    border = (0, 0), (1, 1), (1, 1), (0, 0), (0, 0)
    padded = np.pad(coarse.astype(float), border, constant_values=pad_value)
    a, b = matrix(coarse.shape[1], lam, **how), matrix(coarse.shape[2], lam, **how)
    return np.einsum("vk,uj,nkjhw->nvuhw", a, b, padded)


def up_bilinear__wrong__no_half(coarse, lam, pad_value=PAD):
    """says: centre"""
    return up_bilinear__right__by_matrices(coarse, lam, pad_value, place=lambda v: v / lam)


def up_bilinear__wrong__one_half(coarse, lam, pad_value=PAD):
    return up_bilinear__right__by_matrices(
        coarse, lam, pad_value, place=lambda v: v / lam - 0.5
    )


def up_bilinear__wrong__edge_repeated(coarse, lam, pad_value=PAD):
    border = (0, 0), (1, 1), (1, 1), (0, 0), (0, 0)
    padded = np.pad(coarse, border, mode="edge")
    a, b = matrix(coarse.shape[1], lam), matrix(coarse.shape[2], lam)
    return np.einsum("vk,uj,nkjhw->nvuhw", a, b, padded)


def up_bilinear__wrong__zeros_outside(coarse, lam, pad_value=PAD):
    return up_bilinear__right__by_matrices(coarse, lam, 0.0)


def up_bilinear__wrong__far_one_weighs_more(coarse, lam, pad_value=PAD):
    def weight(far):
        return abs(far) if abs(far) < 1 else 0.0

    return up_bilinear__right__by_matrices(coarse, lam, pad_value, weight=weight)


def up_bilinear__wrong__two_of_four(coarse, lam, pad_value=PAD):
    num, num_v, num_u, *cells = coarse.shape
    out = np.zeros((num, round(lam * num_v), round(lam * num_u), *cells))
    for v, u in np.ndindex(*out.shape[1:3]):
        p, q = (v + 0.5) / lam - 0.5, (u + 0.5) / lam - 0.5
        for step in (0, 1):  # both neighbours together
            k, j = math.floor(p) + step, math.floor(q) + step
            inside = 0 <= k < num_v and 0 <= j < num_u
            value = coarse[:, k, j] if inside else pad_value
            out[:, v, u] += (1 - abs(p - k)) * (1 - abs(q - j)) * value
    return out


def up_bilinear__wrong__outside_left_out(coarse, lam, pad_value=PAD):
    num, num_v, num_u, *cells = coarse.shape
    out = np.full((num, round(lam * num_v), round(lam * num_u), *cells), pad_value)
    for v, u in np.ndindex(*out.shape[1:3]):
        p, q = (v + 0.5) / lam - 0.5, (u + 0.5) / lam - 0.5
        if 0 <= p <= num_v - 1 and 0 <= q <= num_u - 1:
            total = 0
            for k in (math.floor(p), math.ceil(p)):
                for j in (math.floor(q), math.ceil(q)):
                    w = (1 - abs(p - k)) * (1 - abs(q - j))
                    total = total + w * coarse[:, k, j]
            out[:, v, u] = total
    return out


def up_bilinear__wrong__int_towards_zero(coarse, lam, pad_value=PAD):
    num, num_v, num_u, *cells = coarse.shape
    out = np.zeros((num, round(lam * num_v), round(lam * num_u), *cells))
    for v, u in np.ndindex(*out.shape[1:3]):
        p, q = (v + 0.5) / lam - 0.5, (u + 0.5) / lam - 0.5
        for k in (int(p), int(p) + 1):
            for j in (int(q), int(q) + 1):
                inside = 0 <= k < num_v and 0 <= j < num_u
                value = coarse[:, k, j] if inside else pad_value
                out[:, v, u] += (1 - abs(p - k)) * (1 - abs(q - j)) * value
    return out


# --- up_align2nat -----------------------------------------------------------------------------


def slid(fine, pad_value, step=1, centre=None):
    """Every bin's map moved by step * (v, u)."""
    num, num_v, num_u, height, width = fine.shape
    cv, cu = centre or (num_v // 2, num_u // 2)
    out = np.full(fine.shape, float(pad_value))
    for i, j, y, x in np.ndindex(num_v, num_u, height, width):
        row, column = y + step * (i - cv), x + step * (j - cu)
        if 0 <= row < height and 0 <= column < width:
            out[:, i, j, y, x] = fine[:, i, j, row, column]
    return out


def up_align2nat__right__two_steps(aligned, lam, pad_value=PAD):
    return slid(up_bilinear__right__by_matrices(aligned, lam, pad_value), pad_value)


def up_align2nat__wrong__first_step_alone(aligned, lam, pad_value=PAD):
    """says: stopped"""
    return up_bilinear__right__by_matrices(aligned, lam, pad_value)


def up_align2nat__wrong__upwards(aligned, lam, pad_value=PAD):
    """says: wrong way"""
    return slid(up_bilinear__right__by_matrices(aligned, lam, pad_value), pad_value, -1)


def up_align2nat__wrong__natural_first(aligned, lam, pad_value=PAD):
    return up_bilinear__right__by_matrices(slid(aligned, pad_value), lam, pad_value)


def up_align2nat__wrong__coarse_middle(aligned, lam, pad_value=PAD):
    """says: centre"""
    fine = up_bilinear__right__by_matrices(aligned, lam, pad_value)
    return slid(fine, pad_value, 1, (aligned.shape[1] // 2, aligned.shape[2] // 2))


def up_align2nat__wrong__blocks(aligned, lam, pad_value=PAD):
    """says: blocks"""
    return slid(up_nearest__right__by_index(aligned, lam), pad_value)


def up_align2nat__wrong__step_of_lam(aligned, lam, pad_value=PAD):
    fine = up_bilinear__right__by_matrices(aligned, lam, pad_value)
    return slid(fine, pad_value, round(lam))


def up_align2nat__wrong__zero_pad_in_the_blend(aligned, lam, pad_value=PAD):
    return slid(up_bilinear__right__by_matrices(aligned, lam, 0.0), pad_value)


def up_align2nat__wrong__pad_not_passed_on(aligned, lam, pad_value=PAD):
    return slid(up_bilinear__right__by_matrices(aligned, lam), pad_value)
