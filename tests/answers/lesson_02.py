"""Answers to the exercises of lesson 02."""

from __future__ import annotations

import math

import numpy as np

PAD = -6.0


# --- read_vector ------------------------------------------------------------------------------


def read_vector__right__reshape(vectors, num_v, num_u, y, x):
    return vectors[:, y, x].reshape(num_v, num_u)


def read_vector__right__lists(vectors, num_v, num_u, y, x):
    rows = np.split(np.array([channel[y][x] for channel in vectors]), num_v)
    return np.stack(rows)


def read_vector__right__unflattened_whole(vectors, num_v, num_u, y, x):
    return vectors.reshape(num_v, num_u, *vectors.shape[1:])[:, :, y, x].copy()


def read_vector__wrong__sides_exchanged(vectors, num_v, num_u, y, x):
    return vectors[:, y, x].reshape(num_u, num_v)


def read_vector__wrong__fortran_order(vectors, num_v, num_u, y, x):
    """says: columns"""
    return vectors[:, y, x].reshape(num_v, num_u, order="F")


def read_vector__wrong__turned_into_shape(vectors, num_v, num_u, y, x):
    return vectors[:, y, x].reshape(num_u, num_v).T


def read_vector__wrong__x_first(vectors, num_v, num_u, y, x):
    return vectors[:, x, y].reshape(num_v, num_u)


def read_vector__wrong__the_vector(vectors, num_v, num_u, y, x):
    return vectors[:, y, x]


def read_vector__wrong__channels_at_the_end(vectors, num_v, num_u, y, x):
    return vectors[y, x].reshape(num_v, num_u)


def read_vector__wrong__row_by_v(vectors, num_v, num_u, y, x):
    place = vectors[:, y, x]
    return np.array([[place[v * num_v + u] for u in range(num_u)] for v in range(num_v)])


def read_vector__wrong__next_place(vectors, num_v, num_u, y, x):
    return vectors[:, y - 1, x - 1].reshape(num_v, num_u)


def read_vector__wrong__reversed(vectors, num_v, num_u, y, x):
    return vectors[::-1, y, x].reshape(num_v, num_u)


def read_vector__wrong__folded_before_picked(vectors, num_v, num_u, y, x):
    return vectors.reshape(*vectors.shape[1:], num_v, num_u)[y, x]


# --- read_maps --------------------------------------------------------------------------------


def window(plane, side, y, x, pad_value):
    """A square of one map around (y, x)."""
    padded = np.pad(plane, side, constant_values=pad_value)
    begin_y, begin_x = y + side - side // 2, x + side - side // 2
    return padded[begin_y : begin_y + side, begin_x : begin_x + side]


def put_together(maps, side, y, x, pad_value, number=None):
    """The jigsaw; number: which map part (a, b) of k is read from."""
    k = round(len(maps) ** 0.5)
    number = number or (lambda a, b, k: a * k + b)
    step, mask = side // k, np.empty((side, side), maps.dtype)
    for a in range(k):
        for b in range(k):
            part = np.s_[a * step : (a + 1) * step, b * step : (b + 1) * step]
            mask[part] = window(maps[number(a, b, k)], side, y, x, pad_value)[part]
    return mask


def read_maps__right__by_pieces(maps, side, y, x, pad_value=PAD):
    return put_together(maps, side, y, x, pad_value)


def read_maps__right__by_offsets(maps, side, y, x, pad_value=PAD):
    k, half = math.isqrt(maps.shape[0]), side // 2
    out = np.full((side, side), pad_value)
    for r in range(max(0, y - half), min(maps.shape[1], y + half + 1)):
        for c in range(max(0, x - half), min(maps.shape[2], x + half + 1)):
            a, b = (r - y + half) // (side // k), (c - x + half) // (side // k)
            out[r - y + half, c - x + half] = maps[k * a + b, r, c]
    return out


def read_maps__wrong__number_exchanged(maps, side, y, x, pad_value=PAD):
    """says: row after row"""
    return put_together(maps, side, y, x, pad_value, lambda a, b, k: b * k + a)


def read_maps__wrong__first_map(maps, side, y, x, pad_value=PAD):
    return put_together(maps, side, y, x, pad_value, lambda a, b, k: 0)


def read_maps__wrong__mirrored_parts(maps, side, y, x, pad_value=PAD):
    return put_together(maps, side, y, x, pad_value, lambda a, b, k: k * k - 1 - a * k - b)


def read_maps__wrong__zeros(maps, side, y, x, pad_value=PAD):
    """says: you give 0"""
    return put_together(maps, side, y, x, 0.0)


def read_maps__wrong__minus_six(maps, side, y, x, pad_value=PAD):
    return put_together(maps, side, y, x, -6.0)


def read_maps__wrong__from_the_corner(maps, side, y, x, pad_value=PAD):
    """says: corner"""
    return put_together(maps, side, y + side // 2, x + side // 2, pad_value)


def read_maps__wrong__at_the_centre(maps, side, y, x, pad_value=PAD):
    """says: at the window's centre"""
    k = math.isqrt(len(maps))
    return np.kron(maps[:, y, x].reshape(k, k), np.ones((side // k, side // k)))


def read_maps__wrong__negative_index(maps, side, y, x, pad_value=PAD):
    k, half = math.isqrt(len(maps)), side // 2
    out = np.full((side, side), pad_value)
    for i in range(side):
        for j in range(side):
            row, column = y + i - half, x + j - half
            if row < maps.shape[1] and column < maps.shape[2]:
                out[i, j] = maps[i * k // side * k + j * k // side, row, column]
    return out


def read_maps__wrong__a_part_is_k_long(maps, side, y, x, pad_value=PAD):
    k, half = math.isqrt(len(maps)), side // 2
    out = np.full((side, side), pad_value)
    for i in range(side):
        for j in range(side):
            row, column = y + i - half, x + j - half
            if 0 <= row < maps.shape[1] and 0 <= column < maps.shape[2]:
                out[i, j] = maps[i // k * k + j // k, row, column]
    return out


def read_maps__wrong__upside_down(maps, side, y, x, pad_value=PAD):
    return put_together(maps, side, y, x, pad_value)[::-1]


def read_maps__wrong__average_of_maps(maps, side, y, x, pad_value=PAD):
    return window(maps.mean(0), side, y, x, pad_value)


def read_maps__wrong__x_and_y(maps, side, y, x, pad_value=PAD):
    return put_together(maps, side, x, y, pad_value)


# --- read_box ---------------------------------------------------------------------------------


def points(low, high, bins, extent, shift=-0.5, within=0.5):
    """Where along one axis bins look, counted from the first cell's centre."""
    place = low + (np.arange(bins) + within) * (high - low) / bins + shift
    return np.clip(place, 0, extent - 1)


def weights(place, extent):
    """(bins, extent): the share of every cell."""
    return np.maximum(0, 1 - abs(place[:, None] - np.arange(extent)))


def blended(features, box, bins, **how):
    (h, w), (x0, y0, x1, y1) = features.shape, box
    rows = weights(points(y0, y1, bins, h, **how), h)
    columns = weights(points(x0, x1, bins, w, **how), w)
    return rows @ features @ columns.T


def read_box__right__by_matrices(features, box, bins):
    return blended(features, box, bins)


def read_box__right__padded_at_the_edge(features, box, bins):
    x0, y0, x1, y1 = box
    padded = np.pad(features, 1, mode="edge")
    out = np.empty((bins, bins))
    for i in range(bins):
        for j in range(bins):
            p = y0 + (i + 0.5) * (y1 - y0) / bins + 0.5
            q = x0 + (j + 0.5) * (x1 - x0) / bins + 0.5
            r, c = int(p), int(q)
            top = (1 - q + c) * padded[r, c] + (q - c) * padded[r, c + 1]
            below = (1 - q + c) * padded[r + 1, c] + (q - c) * padded[r + 1, c + 1]
            out[i, j] = (1 - p + r) * top + (p - r) * below
    return out


def read_box__wrong__without_the_half(features, box, bins):
    """says: half a cell"""
    return blended(features, box, bins, shift=0.0)


def read_box__wrong__corner_of_the_bin(features, box, bins):
    """says: corner"""
    return blended(features, box, bins, within=0.0)


def read_box__wrong__both_halves_gone(features, box, bins):
    return blended(features, box, bins, within=0.0, shift=0.0)


def read_box__wrong__slices(features, box, bins):
    """says: RoIAlign rounds nothing"""
    return blended(features, [round(side) for side in box], bins)


def read_box__wrong__nearest_cell(features, box, bins):
    """says: nearest"""
    (h, w), (x0, y0, x1, y1) = features.shape, box
    rows = points(y0, y1, bins, h).round().astype(int)
    columns = points(x0, x1, bins, w).round().astype(int)
    return features[rows][:, columns]


def read_box__wrong__cell_that_holds_the_point(features, box, bins):
    (h, w), (x0, y0, x1, y1) = features.shape, box
    rows = np.floor(points(y0, y1, bins, h, shift=0)).astype(int)
    columns = np.floor(points(x0, x1, bins, w, shift=0)).astype(int)
    return features[rows][:, columns].astype(float)


def read_box__wrong__box_is_yxyx(features, box, bins):
    y0, x0, y1, x1 = box
    return blended(features, (x0, y0, x1, y1), bins)


def read_box__wrong__align_corners(features, box, bins):
    (h, w), (x0, y0, x1, y1) = features.shape, box
    rows = np.clip(y0 - 0.5 + np.arange(bins) * (y1 - y0) / max(bins - 1, 1), 0, h - 1)
    columns = np.clip(x0 - 0.5 + np.arange(bins) * (x1 - x0) / max(bins - 1, 1), 0, w - 1)
    return weights(rows, h) @ features @ weights(columns, w).T


def read_box__wrong__size_is_x1_y1(features, box, bins):
    x0, y0, x1, y1 = box
    return blended(features, (x0, y0, x0 + x1, y0 + y1), bins)


def read_box__wrong__weights_the_other_way(features, box, bins):
    (h, w), (x0, y0, x1, y1) = features.shape, box
    out = np.zeros((bins, bins))
    for i, p in enumerate(points(y0, y1, bins, h)):
        for j, q in enumerate(points(x0, x1, bins, w)):
            for r in (math.floor(p), min(math.floor(p) + 1, h - 1)):
                for c in (math.floor(q), min(math.floor(q) + 1, w - 1)):
                    out[i, j] += abs(p - r) * abs(q - c) * features[r, c]
    return out


def read_box__wrong__zero_beyond(features, box, bins):
    """says: beyond the outermost centres"""
    x0, y0, x1, y1 = box
    inner = blended(np.pad(features, 1), (x0 + 1, y0 + 1, x1 + 1, y1 + 1), bins)
    return inner


def read_box__wrong__transposed(features, box, bins):
    return blended(features, box, bins).T


def read_box__wrong__largest(features, box, bins):
    (h, w), (x0, y0, x1, y1) = features.shape, box
    out = np.zeros((bins, bins))
    for i, p in enumerate(points(y0, y1, bins, h)):
        for j, q in enumerate(points(x0, x1, bins, w)):
            near = features[math.floor(p) : math.floor(p) + 2, math.floor(q) :][:, :2]
            out[i, j] = near.max()
    return out
