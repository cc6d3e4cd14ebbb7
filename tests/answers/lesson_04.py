"""Answers to the exercises of lesson 04."""

from __future__ import annotations

import math

import numpy as np
import torch

PAD = -6.0


# --- window_mask ------------------------------------------------------------------------------


def window_mask__right__by_einsum(aligned, y, x, pad_value=PAD):
    num_v, num_u, height, width = aligned.shape
    half = (num_v // 2, num_u // 2)
    padded = np.pad(
        aligned, ((0, 0), (0, 0), (half[0],) * 2, (half[1],) * 2), constant_values=pad_value
    )
    return np.einsum("vuvu->vu", padded[:, :, y : y + num_v, x : x + num_u])


def window_mask__wrong__block(aligned, y, x, pad_value=PAD):
    """says: what all windows say about pixel"""
    return aligned[:, :, y, x].copy()


def window_mask__wrong__backwards(aligned, y, x, pad_value=PAD):
    """says: wrong way"""
    return window_mask__right__by_einsum(aligned[::-1, ::-1], y, x, pad_value)[::-1, ::-1]


def window_mask__wrong__from_corner(aligned, y, x, pad_value=PAD):
    """says: from the window's corner"""
    out = np.full(aligned.shape[:2], pad_value)
    for v in range(out.shape[0]):
        for u in range(out.shape[1]):
            if y + v < aligned.shape[2] and x + u < aligned.shape[3]:
                out[v, u] = aligned[v, u, y + v, x + u]
    return out


def window_mask__wrong__axes_swapped(aligned, y, x, pad_value=PAD):
    """says: v move x"""
    out = np.full(aligned.shape[:2], pad_value)
    for i, j in np.ndindex(out.shape):
        row, column = y + j - out.shape[1] // 2, x + i - out.shape[0] // 2
        if 0 <= row < aligned.shape[2] and 0 <= column < aligned.shape[3]:
            out[i, j] = aligned[i, j, row, column]
    return out


def window_mask__wrong__without_asking(aligned, y, x, pad_value=PAD):
    """says: do not ask whether"""
    out = np.empty(aligned.shape[:2])
    for i, j in np.ndindex(out.shape):
        out[i, j] = aligned[i, j, y + i - out.shape[0] // 2, x + j - out.shape[1] // 2]
    return out


def window_mask__wrong__modulo(aligned, y, x, pad_value=PAD):
    """says: come back on the other"""
    rolled = np.roll(aligned, (-y, -x), (2, 3))
    out = np.empty(aligned.shape[:2])
    for i, j in np.ndindex(out.shape):
        out[i, j] = rolled[i, j, i - out.shape[0] // 2, j - out.shape[1] // 2]
    return out


def window_mask__wrong__zero_outside(aligned, y, x, pad_value=PAD):
    """says: you give 0"""
    return window_mask__right__by_einsum(aligned, y, x, 0.0)


def window_mask__wrong__as_list(aligned, y, x, pad_value=PAD):
    """says: Return an array; yours is a list"""
    return window_mask__right__by_einsum(aligned, y, x, pad_value).tolist()


# --- nat2align --------------------------------------------------------------------------------


def slide(x, step, fill):
    """By slices: the block of bin (v, u) moved by step * (v, u)."""
    out = np.full(x.shape, float(fill))
    (_, num_v, num_u, height, width) = x.shape
    for i in range(num_v):
        for j in range(num_u):
            dy, dx = step * (i - num_v // 2), step * (j - num_u // 2)
            to_y, to_x = (
                slice(max(-dy, 0), height - max(dy, 0)),
                slice(max(-dx, 0), width - max(dx, 0)),
            )
            from_y, from_x = (
                slice(max(dy, 0), height - max(-dy, 0)),
                slice(max(dx, 0), width - max(-dx, 0)),
            )
            if height > abs(dy) and width > abs(dx):
                out[:, i, j, to_y, to_x] = x[:, i, j, from_y, from_x]
    return out


def nat2align__right__by_slices(x, pad_value=PAD):
    return slide(x, -1, pad_value)


def nat2align__wrong__wrong_way(x, pad_value=PAD):
    """says: that is align2nat"""
    return slide(x, +1, pad_value)


def nat2align__wrong__unmoved(x, pad_value=PAD):
    """says: gave the input back"""
    return x.copy()


def nat2align__wrong__from_corner(x, pad_value=PAD):
    """says: from the window's corner"""
    out = np.full_like(x, pad_value)
    for i, j in np.ndindex(*x.shape[1:3]):
        for y in range(i, x.shape[3]):
            for column in range(j, x.shape[4]):
                out[:, i, j, y, column] = x[:, i, j, y - i, column - j]
    return out


def nat2align__wrong__axes_swapped(x, pad_value=PAD):
    """says: v move x"""
    return slide(x.transpose(0, 1, 2, 4, 3), -1, pad_value).transpose(0, 1, 2, 4, 3)


def nat2align__wrong__rolled(x, pad_value=PAD):
    """says: come back on the other"""
    out = np.empty_like(x)
    for i, j in np.ndindex(*x.shape[1:3]):
        out[:, i, j] = np.roll(x[:, i, j], (i - x.shape[1] // 2, j - x.shape[2] // 2), (-2, -1))
    return out


def nat2align__wrong__zero_outside(x, pad_value=PAD):
    """says: you give 0"""
    return slide(x, -1, 0)


def nat2align__wrong__in_place(x, pad_value=PAD):
    """says: writes into its argument"""
    x[:] = slide(x, -1, pad_value)
    return x


# --- align2nat --------------------------------------------------------------------------------


def align2nat__right__by_slices(x, sigma_vu=1, pad_value=PAD):
    return slide(x, sigma_vu, pad_value)


def align2nat__wrong__unit_ignored(x, sigma_vu=1, pad_value=PAD):
    """says: one cell per bin"""
    return slide(x, 1, pad_value)


def align2nat__wrong__wrong_way(x, sigma_vu=1, pad_value=PAD):
    """says: that is nat2align"""
    return slide(x, -sigma_vu, pad_value)


def align2nat__wrong__divided(x, sigma_vu=1, pad_value=PAD):
    """says: divide by sigma_vu"""
    out = np.full_like(x, pad_value)
    for i, j, y, column in np.ndindex(*x.shape[1:]):
        row = y + math.floor((i - x.shape[1] // 2) / sigma_vu)
        col = column + math.floor((j - x.shape[2] // 2) / sigma_vu)
        if 0 <= row < x.shape[3] and 0 <= col < x.shape[4]:
            out[:, i, j, y, column] = x[:, i, j, row, col]
    return out


def align2nat__wrong__from_corner(x, sigma_vu=1, pad_value=PAD):
    """says: from the window's corner"""
    out = np.full_like(x, pad_value)
    for i, j, y, column in np.ndindex(*x.shape[1:]):
        row, col = y + sigma_vu * i, column + sigma_vu * j
        if row < x.shape[3] and col < x.shape[4]:
            out[:, i, j, y, column] = x[:, i, j, row, col]
    return out


def align2nat__wrong__axes_swapped(x, sigma_vu=1, pad_value=PAD):
    """says: v move x"""
    return slide(x.transpose(0, 1, 2, 4, 3), sigma_vu, pad_value).transpose(0, 1, 2, 4, 3)


def align2nat__wrong__rolled(x, sigma_vu=1, pad_value=PAD):
    """says: come back on the other"""
    out = np.empty_like(x)
    for i, j in np.ndindex(*x.shape[1:3]):
        by = (sigma_vu * (x.shape[1] // 2 - i), sigma_vu * (x.shape[2] // 2 - j))
        out[:, i, j] = np.roll(x[:, i, j], by, (-2, -1))
    return out


def align2nat__wrong__zero_outside(x, sigma_vu=1, pad_value=PAD):
    """says: you give 0"""
    return slide(x, sigma_vu, 0.0)


# --- align2nat_view ---------------------------------------------------------------------------


def align2nat_view__right__by_unfold(padded, height, width):
    """Windows of every map by unfold, then the diagonal: a view too."""
    windows = padded.unfold(3, height, 1).unfold(4, width, 1)  # (N, V, U, V, U, height, width)
    return windows.diagonal(0, 1, 3).diagonal(0, 1, 2).permute(0, 3, 4, 1, 2)


def align2nat_view__wrong__copied(padded, height, width):
    """says: but copied"""
    return align2nat_view__right__by_unfold(padded, height, width).contiguous()


def align2nat_view__wrong__unmoved(padded, height, width):
    """says: left the strides as they are"""
    return padded[..., :height, :width]


def view_step_on_y(padded, height, width):
    n, v, u, y, x = padded.stride()
    small = padded.shape[1] <= 1 or (height - 1) * v < padded.numel()
    return (
        padded.as_strided((*padded.shape[:3], height, width), (n, v, u, v + y, u + x))
        if small
        else padded
    )


def align2nat_view__wrong__axes_swapped(padded, height, width):
    """says: v move x"""
    n, v, u, y, x = padded.stride()
    return padded.as_strided((*padded.shape[:3], height, width), (n, v + x, u + y, y, x))


def align2nat_view__wrong__of_one_map(padded, height, width):
    """says: unfold of one map"""
    n, _, _, y, x = padded.stride()
    return padded.as_strided((*padded.shape[:3], height, width), (n, y, x, y, x))


def align2nat_view__wrong__strides_from_shape(padded, height, width):
    """says: strides from the shape"""
    _, num_v, num_u, rows, columns = padded.shape
    y, x = columns, 1
    u = rows * columns
    v, n = num_u * u, num_v * num_u * u
    return padded.as_strided((*padded.shape[:3], height, width), (n, v + y, u + x, y, x))


def align2nat_view__wrong__from_offset_zero(padded, height, width):
    """says: offset 0"""
    n, v, u, y, x = padded.stride()
    return torch.as_strided(
        padded, (*padded.shape[:3], height, width), (n, v + y, u + x, y, x), 0
    )


def align2nat_view__wrong__detached(padded, height, width):
    """says: gradient is cut"""
    return align2nat_view__right__by_unfold(padded.detach(), height, width)
