"""Answers to the exercises of lesson 04, written from its text alone."""

from __future__ import annotations

import numpy as np
import torch

PAD = -6.0


# --- window_mask ------------------------------------------------------------------------------


def window_mask__right__dictionary(aligned, y, x, pad_value=PAD):
    num_v, num_u, height, width = aligned.shape
    rows = dict(enumerate(range(y - num_v // 2, y + num_v // 2 + 1)))
    columns = dict(enumerate(range(x - num_u // 2, x + num_u // 2 + 1)))
    return np.array(
        [
            [
                aligned[i, j, rows[i], columns[j]]
                if rows[i] in range(height) and columns[j] in range(width)
                else pad_value
                for j in columns
            ]
            for i in rows
        ],
        float,
    )


def window_mask__right__indices(aligned, y, x, pad_value=PAD):
    num_v, num_u, height, width = aligned.shape
    v, u = np.mgrid[:num_v, :num_u]
    row, column = v + y - num_v // 2, u + x - num_u // 2
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    values = aligned[v, u, row.clip(0, height - 1), column.clip(0, width - 1)]
    return np.where(inside, values, pad_value)


def window_mask__wrong__centre_bin_crop(aligned, y, x, pad_value=PAD):
    num_v, num_u, _, _ = aligned.shape
    middle = np.pad(
        aligned[num_v // 2, num_u // 2],
        ((num_v // 2,) * 2, (num_u // 2,) * 2),
        constant_values=pad_value,
    )
    return middle[y : y + num_v, x : x + num_u]


def window_mask__wrong__pad_is_the_edge(aligned, y, x, pad_value=PAD):
    num_v, num_u, height, width = aligned.shape
    v, u = np.mgrid[:num_v, :num_u]
    row = (v + y - num_v // 2).clip(0, height - 1)
    column = (u + x - num_u // 2).clip(0, width - 1)
    return aligned[v, u, row, column]


def window_mask__wrong__rest_of_bins_dropped(aligned, y, x, pad_value=PAD):
    out = np.full(aligned.shape[:2], pad_value)
    half_v, half_u = aligned.shape[0] // 2, aligned.shape[1] // 2
    for v in range(-half_v, half_v):
        for u in range(-half_u, half_u):
            if 0 <= y + v < aligned.shape[2] and 0 <= x + u < aligned.shape[3]:
                out[v + half_v, u + half_u] = aligned[v + half_v, u + half_u, y + v, x + u]
    return out


def window_mask__wrong__bin_index_is_v(aligned, y, x, pad_value=PAD):
    out = np.full(aligned.shape[:2], pad_value)
    half_v, half_u = aligned.shape[0] // 2, aligned.shape[1] // 2
    for v in range(-half_v, half_v + 1):
        for u in range(-half_u, half_u + 1):
            if 0 <= y + v < aligned.shape[2] and 0 <= x + u < aligned.shape[3]:
                out[v, u] = aligned[v, u, y + v, x + u]
    return out


def window_mask__wrong__only_one_axis(aligned, y, x, pad_value=PAD):
    out = np.full(aligned.shape[:2], pad_value)
    for i, j in np.ndindex(out.shape):
        row = y + i - out.shape[0] // 2
        if 0 <= row < aligned.shape[2]:
            out[i, j] = aligned[i, j, row, x]
    return out


def window_mask__wrong__returns_probabilities(aligned, y, x, pad_value=PAD):
    return 1 / (1 + np.exp(-window_mask__right__indices(aligned, y, x, pad_value)))


def window_mask__wrong__pad_not_padded_when_all_inside(aligned, y, x, pad_value=PAD):
    num_v, num_u, height, width = aligned.shape
    half_v, half_u = num_v // 2, num_u // 2
    if y < half_v or x < half_u or y + half_v >= height or x + half_u >= width:
        return np.full((num_v, num_u), pad_value)
    return window_mask__right__indices(aligned, y, x, pad_value)


def window_mask__wrong__inside_from_one(aligned, y, x, pad_value=PAD):
    out = np.full(aligned.shape[:2], pad_value)
    for i, j in np.ndindex(out.shape):
        row, column = y + i - out.shape[0] // 2, x + j - out.shape[1] // 2
        if 0 < row < aligned.shape[2] and 0 < column < aligned.shape[3]:
            out[i, j] = aligned[i, j, row, column]
    return out


# --- nat2align --------------------------------------------------------------------------------


def nat2align__right__slices(natural, pad_value=PAD):
    _, num_v, num_u, height, width = natural.shape
    half_v, half_u = num_v // 2, num_u // 2
    padded = np.pad(
        natural,
        ((0, 0), (0, 0), (0, 0), (half_v, half_v), (half_u, half_u)),
        constant_values=pad_value,
    )
    out = np.empty_like(natural)
    for i in range(num_v):
        for j in range(num_u):
            top, left = 2 * half_v - i, 2 * half_u - j
            out[:, i, j] = padded[:, i, j, top : top + height, left : left + width]
    return out


def nat2align__right__scatter(natural, pad_value=PAD):
    out = np.full(natural.shape, pad_value, natural.dtype)
    _, num_v, num_u, height, width = natural.shape
    for i, j, y, x in np.ndindex(natural.shape[1:]):
        row, column = y + i - num_v // 2, x + j - num_u // 2
        if 0 <= row < height and 0 <= column < width:
            out[:, i, j, row, column] = natural[:, i, j, y, x]
    return out


def nat2align__wrong__window_masks_collected(natural, pad_value=PAD):
    out = np.full(natural.shape, pad_value)
    for n, y, x in np.ndindex(natural.shape[0], *natural.shape[3:]):
        out[n, :, :, y, x] = window_mask__right__indices(natural[n], y, x, pad_value)
    return out


def nat2align__wrong__scatter_backwards(natural, pad_value=PAD):
    out = np.full(natural.shape, pad_value)
    _, num_v, num_u, height, width = natural.shape
    for i, j, y, x in np.ndindex(natural.shape[1:]):
        row, column = y - (i - num_v // 2), x - (j - num_u // 2)
        if 0 <= row < height and 0 <= column < width:
            out[:, i, j, row, column] = natural[:, i, j, y, x]
    return out


def nat2align__wrong__rolled(natural, pad_value=PAD):
    out = natural.copy()
    for i, j in np.ndindex(natural.shape[1:3]):
        shift = (i - natural.shape[1] // 2, j - natural.shape[2] // 2)
        out[:, i, j] = np.roll(natural[:, i, j], shift, axis=(1, 2))
    return out


def nat2align__wrong__rolled_other_axes(natural, pad_value=PAD):
    out = np.full(natural.shape, pad_value)
    _, num_v, num_u, height, width = natural.shape
    for i, j, y, x in np.ndindex(natural.shape[1:]):
        row, column = y - i + num_v // 2, x - j + num_v // 2
        if 0 <= row < height and 0 <= column < width:
            out[:, i, j, y, x] = natural[:, i, j, row, column]
    return out


def nat2align__wrong__bins_mirrored(natural, pad_value=PAD):
    out = np.full(natural.shape, pad_value)
    _, num_v, num_u, height, width = natural.shape
    for i, j, y, x in np.ndindex(natural.shape[1:]):
        row, column = y - i + num_v // 2, x - j + num_u // 2
        if 0 <= row < height and 0 <= column < width:
            out[:, i, j, y, x] = natural[:, num_v - 1 - i, num_u - 1 - j, row, column]
    return out


def nat2align__wrong__in_place(natural, pad_value=PAD):
    natural[...] = nat2align__right__slices(natural, pad_value)
    return natural


def nat2align__wrong__only_image_zero(natural, pad_value=PAD):
    return nat2align__right__slices(natural[:1], pad_value)


def nat2align__wrong__pad_where_both_outside(natural, pad_value=PAD):
    out = np.full(natural.shape, pad_value)
    _, num_v, num_u, height, width = natural.shape
    for i, j, y, x in np.ndindex(natural.shape[1:]):
        row, column = y - i + num_v // 2, x - j + num_u // 2
        if 0 <= row < height or 0 <= column < width:
            row, column = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
            out[:, i, j, y, x] = natural[:, i, j, row, column]
    return out


# --- align2nat --------------------------------------------------------------------------------


def align2nat__right__pad_and_slice(aligned, sigma_vu=1, pad_value=PAD):
    _, num_v, num_u, height, width = aligned.shape
    edge_v, edge_u = sigma_vu * (num_v // 2), sigma_vu * (num_u // 2)
    padded = np.pad(
        aligned,
        ((0, 0), (0, 0), (0, 0), (edge_v, edge_v), (edge_u, edge_u)),
        constant_values=pad_value,
    )
    rows = [
        np.stack(
            [
                padded[:, i, j, sigma_vu * i :, sigma_vu * j :][..., :height, :width]
                for j in range(num_u)
            ],
            1,
        )
        for i in range(num_v)
    ]
    return np.stack(rows, 1)


def align2nat__wrong__unit_forgotten(aligned, sigma_vu=1, pad_value=PAD):
    return align2nat__right__pad_and_slice(aligned, 1, pad_value)


def align2nat__wrong__unit_on_the_cell(aligned, sigma_vu=1, pad_value=PAD):
    out = np.full(aligned.shape, pad_value)
    _, num_v, num_u, height, width = aligned.shape
    for i, j, y, x in np.ndindex(aligned.shape[1:]):
        row, column = sigma_vu * y + i - num_v // 2, sigma_vu * x + j - num_u // 2
        if 0 <= row < height and 0 <= column < width:
            out[:, i, j, y, x] = aligned[:, i, j, row, column]
    return out


def align2nat__wrong__unit_before_centring(aligned, sigma_vu=1, pad_value=PAD):
    out = np.full(aligned.shape, pad_value)
    _, num_v, num_u, height, width = aligned.shape
    for i, j, y, x in np.ndindex(aligned.shape[1:]):
        row, column = y + sigma_vu * i - num_v // 2, x + sigma_vu * j - num_u // 2
        if 0 <= row < height and 0 <= column < width:
            out[:, i, j, y, x] = aligned[:, i, j, row, column]
    return out


def align2nat__wrong__unit_divides(aligned, sigma_vu=1, pad_value=PAD):
    out = np.full(aligned.shape, pad_value)
    _, num_v, num_u, height, width = aligned.shape
    for i, j, y, x in np.ndindex(aligned.shape[1:]):
        row = y + (i - num_v // 2) // sigma_vu
        column = x + (j - num_u // 2) // sigma_vu
        if 0 <= row < height and 0 <= column < width:
            out[:, i, j, y, x] = aligned[:, i, j, row, column]
    return out


def align2nat__wrong__unit_in_v_only(aligned, sigma_vu=1, pad_value=PAD):
    out = np.full(aligned.shape, pad_value)
    _, num_v, num_u, height, width = aligned.shape
    for i, j, y, x in np.ndindex(aligned.shape[1:]):
        row, column = y + sigma_vu * (i - num_v // 2), x + j - num_u // 2
        if 0 <= row < height and 0 <= column < width:
            out[:, i, j, y, x] = aligned[:, i, j, row, column]
    return out


def align2nat__wrong__other_direction(aligned, sigma_vu=1, pad_value=PAD):
    out = np.full(aligned.shape, pad_value)
    _, num_v, num_u, height, width = aligned.shape
    for i, j, y, x in np.ndindex(aligned.shape[1:]):
        row = y - sigma_vu * (i - num_v // 2)
        column = x - sigma_vu * (j - num_u // 2)
        if 0 <= row < height and 0 <= column < width:
            out[:, i, j, y, x] = aligned[:, i, j, row, column]
    return out


def align2nat__wrong__padded_by_bins_not_cells(aligned, sigma_vu=1, pad_value=PAD):
    _, num_v, num_u, height, width = aligned.shape
    padded = np.pad(
        aligned,
        ((0, 0), (0, 0), (0, 0), (num_v // 2,) * 2, (num_u // 2,) * 2),
        constant_values=pad_value,
    )
    out = np.full(aligned.shape, pad_value)
    for i, j in np.ndindex(num_v, num_u):
        piece = padded[:, i, j, sigma_vu * i :, sigma_vu * j :][..., :height, :width]
        out[:, i, j, : piece.shape[1], : piece.shape[2]] = piece
    return out


def align2nat__wrong__dtype_int(aligned, sigma_vu=1, pad_value=PAD):
    return align2nat__right__pad_and_slice(aligned, sigma_vu, pad_value).astype(int)


# --- align2nat_view ---------------------------------------------------------------------------


def align2nat_view__right__list(padded, height, width):
    strides = list(padded.stride())
    strides[1] += strides[3]
    strides[2] += strides[4]
    size = [*padded.shape[:3], height, width]
    return padded.as_strided(size, strides, padded.storage_offset())


def align2nat_view__right__diagonals(padded, height, width):
    rows = padded.unfold(3, height, 1).diagonal(dim1=1, dim2=3)
    both = rows.unfold(2, width, 1).diagonal(dim1=1, dim2=2)
    return both.permute(0, 2, 4, 1, 3)


def align2nat_view__wrong__contiguous_strides(padded, height, width):
    n, v, u, h, w = padded.shape
    strides = (v * u * h * w, u * h * w + w, h * w + 1, w, 1)
    return padded.as_strided((n, v, u, height, width), strides)


def align2nat_view__wrong__strides_of_the_result(padded, height, width):
    n, v, u = padded.shape[:3]
    strides = (v * u * height * width, u * height * width + width, height * width + 1, width, 1)
    return padded.as_strided((n, v, u, height, width), strides)


def align2nat_view__wrong__y_and_x_changed(padded, height, width):
    n, v, u, y, x = padded.stride()
    return padded.as_strided((*padded.shape[:3], height, width), (n, v, u, y + v, x + u))


def align2nat_view__wrong__one_step_only(padded, height, width):
    n, v, u, y, x = padded.stride()
    return padded.as_strided((*padded.shape[:3], height, width), (n, v + 1, u + 1, y, x))


def align2nat_view__wrong__minus(padded, height, width):
    n, v, u, y, x = padded.stride()
    return padded.as_strided((*padded.shape[:3], height, width), (n, v - y, u - x, y, x))


def align2nat_view__wrong__plain_crop(padded, height, width):
    return padded[..., :height, :width]


def align2nat_view__wrong__copied_by_slices(padded, height, width):
    out = torch.empty(*padded.shape[:3], height, width, dtype=padded.dtype)
    for i in range(padded.shape[1]):
        for j in range(padded.shape[2]):
            out[:, i, j] = padded[:, i, j, i : i + height, j : j + width]
    return out


def align2nat_view__wrong__cross_axes(padded, height, width):
    n, v, u, y, x = padded.stride()
    return padded.as_strided((*padded.shape[:3], height, width), (n, v + x, u + y, y, x))


def align2nat_view__wrong__size_of_padded(padded, height, width):
    n, v, u, y, x = padded.stride()
    return padded.contiguous().as_strided(padded.shape, (n, v + y, u + x, y, x))
