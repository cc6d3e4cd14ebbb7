"""Answers to the exercises of lesson 02, written from its text alone."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn.functional import grid_sample

# --- read_vector ------------------------------------------------------------------------------


def read_vector__right__reshape_all(vectors, num_v, num_u, y, x):
    return vectors.reshape(num_v, num_u, *vectors.shape[1:])[:, :, y, x]


def read_vector__right__by_hand(vectors, num_v, num_u, y, x):
    mask = np.empty((num_v, num_u))
    for v in range(num_v):
        for u in range(num_u):
            mask[v, u] = vectors[v * num_u + u, y, x]
    return mask


def read_vector__right__strips(vectors, num_v, num_u, y, x):
    return np.stack([vectors[v * num_u : (v + 1) * num_u, y, x] for v in range(num_v)])


def read_vector__wrong__x_before_y(vectors, num_v, num_u, y, x):
    return vectors[:, x % vectors.shape[1], y % vectors.shape[2]].reshape(num_v, num_u)


def read_vector__wrong__u_rows(vectors, num_v, num_u, y, x):
    return vectors[:, y, x].reshape(num_u, num_v)


def read_vector__wrong__u_rows_turned(vectors, num_v, num_u, y, x):
    return vectors[:, y, x].reshape(num_u, num_v).T


def read_vector__wrong__square(vectors, num_v, num_u, y, x):
    side = math.isqrt(len(vectors))
    return vectors[: side * side, y, x].reshape(side, side)


def read_vector__wrong__channels_last(vectors, num_v, num_u, y, x):
    size = num_v * num_u
    return (
        vectors.reshape(-1)[: len(vectors.reshape(-1)) // size * size]
        .reshape(-1, size)[y * vectors.shape[2] + x]
        .reshape(num_v, num_u)
    )


def read_vector__wrong__still_flat(vectors, num_v, num_u, y, x):
    return vectors[:, y, x]


def read_vector__wrong__thresholded(vectors, num_v, num_u, y, x):
    return vectors[:, y, x].reshape(num_v, num_u) > 0.5


def read_vector__wrong__sigmoid(vectors, num_v, num_u, y, x):
    return 1 / (1 + np.exp(-vectors[:, y, x].reshape(num_v, num_u)))


def read_vector__wrong__step_of_v(vectors, num_v, num_u, y, x):
    v, u = np.mgrid[:num_v, :num_u]
    return vectors[(v * num_v + u) % len(vectors), y, x]


def read_vector__wrong__whole_picture(vectors, num_v, num_u, y, x):
    return vectors.reshape(num_v, num_u, *vectors.shape[1:])


def read_vector__wrong__from_one(vectors, num_v, num_u, y, x):
    return vectors[:, y - 1, x - 1].reshape(num_v, num_u)


def read_vector__wrong__corner_of_the_window(vectors, num_v, num_u, y, x):
    y, x = max(y - num_v // 2, 0), max(x - num_u // 2, 0)
    return vectors[:, y, x].reshape(num_v, num_u)


def read_vector__wrong__from_below(vectors, num_v, num_u, y, x):
    return vectors[:, y, x].reshape(num_v, num_u)[::-1]


# --- read_maps --------------------------------------------------------------------------------


def read_maps__right__loops(maps, side, y, x, pad_value=-6.0):
    k, (_, height, width) = math.isqrt(len(maps)), maps.shape
    mask = np.full((side, side), float(pad_value))
    for i in range(side):
        for j in range(side):
            row, column = y + i - side // 2, x + j - side // 2
            if 0 <= row < height and 0 <= column < width:
                mask[i, j] = maps[i * k // side * k + j * k // side, row, column]
    return mask


def read_maps__right__pad_and_blocks(maps, side, y, x, pad_value=-6.0):
    k = round(len(maps) ** 0.5)
    part = side // k
    half = side // 2
    around = np.pad(
        maps.astype(float), ((0, 0), (half, half), (half, half)), constant_values=pad_value
    )
    window = around[:, y : y + side, x : x + side].reshape(k, k, k, part, k, part)
    one = np.arange(k)
    blocks = window[one[:, None], one[None, :], one[:, None], :, one[None, :], :]
    return blocks.transpose(0, 2, 1, 3).reshape(side, side)


def read_maps__right__index_arrays(maps, side, y, x, pad_value=-6.0):
    k = int(np.sqrt(len(maps)))
    steps = np.arange(side)
    rows, columns = y + steps - side // 2, x + steps - side // 2
    part = steps * k // side
    inside = ((rows >= 0) & (rows < maps.shape[1]))[:, None] & (
        (columns >= 0) & (columns < maps.shape[2])
    )
    found = maps[
        part[:, None] * k + part,
        rows.clip(0, maps.shape[1] - 1)[:, None],
        columns.clip(0, maps.shape[2] - 1),
    ]
    return np.where(inside, found, pad_value)


def _read_maps(maps, side, y, x, pad_value=-6.0, *, part=None, place=None, channel=None):
    k, (_, height, width) = math.isqrt(len(maps)), maps.shape
    part = part or (lambda i: i * k // side)
    place = place or (lambda centre, i: centre + i - side // 2)
    channel = channel or (lambda a, b: a * k + b)
    mask = np.full((side, side), float(pad_value))
    for i in range(side):
        for j in range(side):
            row, column = place(y, i), place(x, j)
            if 0 <= row < height and 0 <= column < width:
                mask[i, j] = maps[channel(part(i), part(j)) % len(maps), row, column]
    return mask


def read_maps__wrong__columns_first(maps, side, y, x, pad_value=-6.0):
    k = math.isqrt(len(maps))
    return _read_maps(maps, side, y, x, pad_value, channel=lambda a, b: b * k + a)


def read_maps__wrong__y_and_x_swapped(maps, side, y, x, pad_value=-6.0):
    return _read_maps(maps, side, x, y, pad_value)


def read_maps__wrong__place_is_the_corner(maps, side, y, x, pad_value=-6.0):
    return _read_maps(maps, side, y, x, pad_value, place=lambda centre, i: centre + i)


def read_maps__wrong__one_too_far(maps, side, y, x, pad_value=-6.0):
    return _read_maps(
        maps, side, y, x, pad_value, place=lambda centre, i: centre + i - (side - 1) // 2 + 1
    )


def read_maps__wrong__half_of_k(maps, side, y, x, pad_value=-6.0):
    k = math.isqrt(len(maps))
    return _read_maps(maps, side, y, x, pad_value, place=lambda centre, i: centre + i - k // 2)


def read_maps__wrong__part_modulo(maps, side, y, x, pad_value=-6.0):
    k = math.isqrt(len(maps))
    return _read_maps(maps, side, y, x, pad_value, part=lambda i: i % k)


def read_maps__wrong__part_over_k(maps, side, y, x, pad_value=-6.0):
    k = math.isqrt(len(maps))
    return _read_maps(maps, side, y, x, pad_value, part=lambda i: i // k)


def read_maps__wrong__zeros_outside(maps, side, y, x, pad_value=-6.0):
    return _read_maps(maps, side, y, x, 0.0)


def read_maps__wrong__always_minus_six(maps, side, y, x, pad_value=-6.0):
    return _read_maps(maps, side, y, x)


def read_maps__wrong__wraps_round(maps, side, y, x, pad_value=-6.0):
    k, (_, height, width) = math.isqrt(len(maps)), maps.shape
    steps = np.arange(side)
    part = steps * k // side
    rows, columns = (y + steps - side // 2) % height, (x + steps - side // 2) % width
    return maps[part[:, None] * k + part, rows[:, None], columns]


def read_maps__wrong__edge_repeated(maps, side, y, x, pad_value=-6.0):
    k, (_, height, width) = math.isqrt(len(maps)), maps.shape
    steps = np.arange(side)
    part = steps * k // side
    rows = (y + steps - side // 2).clip(0, height - 1)
    columns = (x + steps - side // 2).clip(0, width - 1)
    return maps[part[:, None] * k + part, rows[:, None], columns]


def read_maps__wrong__negative_from_behind(maps, side, y, x, pad_value=-6.0):
    k, mask = math.isqrt(len(maps)), np.full((side, side), float(pad_value))
    for i in range(side):
        for j in range(side):
            try:
                row, column = y + i - side // 2, x + j - side // 2
                mask[i, j] = maps[i * k // side * k + j * k // side, row, column]
            except IndexError:
                pass
    return mask


def read_maps__wrong__k_is_three(maps, side, y, x, pad_value=-6.0):
    return _read_maps(
        maps,
        side,
        y,
        x,
        pad_value,
        part=lambda i: i * 3 // side,
        channel=lambda a, b: a * 3 + b,
    )


def read_maps__wrong__same_piece_in_each_part(maps, side, y, x, pad_value=-6.0):
    k = math.isqrt(len(maps))
    size = side // k
    mask = np.full((side, side), float(pad_value))
    for a in range(k):
        for b in range(k):
            for i in range(size):
                for j in range(size):
                    row, column = y + i - size // 2, x + j - size // 2
                    if 0 <= row < maps.shape[1] and 0 <= column < maps.shape[2]:
                        mask[a * size + i, b * size + j] = maps[a * k + b, row, column]
    return mask


def read_maps__wrong__one_map_for_all(maps, side, y, x, pad_value=-6.0):
    return _read_maps(maps, side, y, x, pad_value, part=lambda i: math.isqrt(len(maps)) // 2)


def read_maps__wrong__mean_of_maps(maps, side, y, x, pad_value=-6.0):
    return _read_maps(maps.mean(0, keepdims=True), side, y, x, pad_value)


def read_maps__wrong__k_by_k(maps, side, y, x, pad_value=-6.0):
    k = math.isqrt(len(maps))
    return maps[:, y, x].reshape(k, k)


def read_maps__wrong__rows_padded_only(maps, side, y, x, pad_value=-6.0):
    k, (_, height, width) = math.isqrt(len(maps)), maps.shape
    mask = np.full((side, side), float(pad_value))
    for i in range(side):
        for j in range(side):
            row, column = y + i - side // 2, min(max(x + j - side // 2, 0), width - 1)
            if 0 <= row < height:
                mask[i, j] = maps[i * k // side * k + j * k // side, row, column]
    return mask


# --- read_box ---------------------------------------------------------------------------------


def read_box__right__matrices(features, box, bins):
    x0, y0, x1, y1 = box

    def weights(low, high, cells):
        points = low + (np.arange(bins) + 0.5) * (high - low) / bins - 0.5
        points = points.clip(0, cells - 1)
        return np.maximum(1 - abs(points[:, None] - np.arange(cells)), 0)

    height, width = features.shape
    return weights(y0, y1, height) @ features @ weights(x0, x1, width).T


def read_box__right__loops(features, box, bins):
    x0, y0, x1, y1 = box
    height, width = features.shape
    out = np.zeros((bins, bins))
    for i in range(bins):
        p = min(max(y0 + (i + 0.5) * (y1 - y0) / bins - 0.5, 0), height - 1)
        for j in range(bins):
            q = min(max(x0 + (j + 0.5) * (x1 - x0) / bins - 0.5, 0), width - 1)
            for row in {math.floor(p), min(math.floor(p) + 1, height - 1)}:
                for column in {math.floor(q), min(math.floor(q) + 1, width - 1)}:
                    weight = (1 - abs(p - row)) * (1 - abs(q - column))
                    out[i, j] += weight * features[row, column]
    return out


def read_box__right__grid_sample(features, box, bins):
    (x0, y0, x1, y1), (height, width) = box, features.shape
    middles = (torch.arange(bins).double() + 0.5) / bins
    ys, xs = y0 + middles * (y1 - y0), x0 + middles * (x1 - x0)
    y, x = torch.meshgrid(2 * ys / height - 1, 2 * xs / width - 1, indexing="ij")
    image = torch.from_numpy(np.array(features, float))[None, None]
    grid = torch.stack([x, y], -1)[None]
    return grid_sample(image, grid, padding_mode="border", align_corners=False)[0, 0].numpy()


def _read_box(features, box, bins, *, middle=0.5, shift=0.5, clip=True, blend=True):
    x0, y0, x1, y1 = box
    height, width = features.shape
    p = y0 + (np.arange(bins) + middle) * (y1 - y0) / bins - shift
    q = x0 + (np.arange(bins) + middle) * (x1 - x0) / bins - shift
    if clip:
        p, q = p.clip(0, height - 1), q.clip(0, width - 1)
    if not blend:
        return features[np.ix_(np.rint(p).astype(int), np.rint(q).astype(int))]
    rows = np.maximum(1 - abs(p[:, None] - np.arange(height)), 0)
    columns = np.maximum(1 - abs(q[:, None] - np.arange(width)), 0)
    return rows @ features @ columns.T


def read_box__wrong__no_half_cell(features, box, bins):
    return _read_box(features, box, bins, shift=0)


def read_box__wrong__half_added(features, box, bins):
    return _read_box(features, box, bins, shift=-0.5)


def read_box__wrong__half_twice(features, box, bins):
    return _read_box(features, box, bins, shift=1)


def read_box__wrong__corner_of_the_bin(features, box, bins):
    return _read_box(features, box, bins, middle=0)


def read_box__wrong__end_of_the_bin(features, box, bins):
    return _read_box(features, box, bins, middle=1)


def read_box__wrong__nearest_cell(features, box, bins):
    return _read_box(features, box, bins, blend=False)


def read_box__wrong__edge_fades(features, box, bins):
    return _read_box(features, box, bins, clip=False)


def read_box__wrong__box_is_y_first(features, box, bins):
    x0, y0, x1, y1 = box
    return _read_box(features, (y0, x0, y1, x1), bins)


def read_box__wrong__transposed(features, box, bins):
    return _read_box(features, box, bins).T


def read_box__wrong__box_is_a_size(features, box, bins):
    x0, y0, width, height = box
    return _read_box(features, (x0, y0, x0 + width, y0 + height), bins)


def read_box__wrong__rounded_box(features, box, bins):
    return _read_box(features, [round(each) for each in box], bins)


def read_box__wrong__from_end_to_end(features, box, bins):
    (x0, y0, x1, y1), (height, width) = box, features.shape
    p = (np.linspace(y0, y1, bins) - 0.5).clip(0, height - 1)
    q = (np.linspace(x0, x1, bins) - 0.5).clip(0, width - 1)
    rows = np.maximum(1 - abs(p[:, None] - np.arange(height)), 0)
    columns = np.maximum(1 - abs(q[:, None] - np.arange(width)), 0)
    return rows @ features @ columns.T


def read_box__wrong__rows_alone(features, box, bins):
    (x0, y0, x1, y1), (height, width) = box, features.shape
    p = (y0 + (np.arange(bins) + 0.5) * (y1 - y0) / bins - 0.5).clip(0, height - 1)
    q = (x0 + (np.arange(bins) + 0.5) * (x1 - x0) / bins - 0.5).clip(0, width - 1)
    rows = np.maximum(1 - abs(p[:, None] - np.arange(height)), 0)
    return rows @ features[:, np.rint(q).astype(int)]


def read_box__wrong__weights_swapped(features, box, bins):
    (x0, y0, x1, y1), (height, width) = box, features.shape
    out = np.zeros((bins, bins))
    for i in range(bins):
        p = min(max(y0 + (i + 0.5) * (y1 - y0) / bins - 0.5, 0), height - 1)
        for j in range(bins):
            q = min(max(x0 + (j + 0.5) * (x1 - x0) / bins - 0.5, 0), width - 1)
            r, c = int(p), int(q)
            s, d = min(r + 1, height - 1), min(c + 1, width - 1)
            t, w = p - r, q - c
            out[i, j] = (
                t * w * features[r, c]
                + t * (1 - w) * features[r, d]
                + (1 - t) * w * features[s, c]
                + (1 - t) * (1 - w) * features[s, d]
            )
    return out


def read_box__wrong__weights_added(features, box, bins):
    (x0, y0, x1, y1), (height, width) = box, features.shape
    out = np.zeros((bins, bins))
    for i in range(bins):
        p = min(max(y0 + (i + 0.5) * (y1 - y0) / bins - 0.5, 0), height - 1)
        for j in range(bins):
            q = min(max(x0 + (j + 0.5) * (x1 - x0) / bins - 0.5, 0), width - 1)
            for row in {int(p), min(int(p) + 1, height - 1)}:
                for column in {int(q), min(int(q) + 1, width - 1)}:
                    weight = (1 - abs(p - row) + 1 - abs(q - column)) / 4
                    out[i, j] += weight * features[row, column]
    return out


def read_box__wrong__outside_the_array(features, box, bins):
    (x0, y0, x1, y1), (height, width) = box, features.shape
    out = np.zeros((bins, bins))
    for i in range(bins):
        p = min(max(y0 + (i + 0.5) * (y1 - y0) / bins - 0.5, 0), height - 1)
        for j in range(bins):
            q = min(max(x0 + (j + 0.5) * (x1 - x0) / bins - 0.5, 0), width - 1)
            for row in (math.floor(p), math.floor(p) + 1):
                for column in (math.floor(q), math.floor(q) + 1):
                    weight = (1 - abs(p - row)) * (1 - abs(q - column))
                    out[i, j] += weight * features[row, column]
    return out


def read_box__wrong__limits_of_height_for_both(features, box, bins):
    (x0, y0, x1, y1), (height, width) = box, features.shape
    p = (y0 + (np.arange(bins) + 0.5) * (y1 - y0) / bins - 0.5).clip(0, height - 1)
    q = (x0 + (np.arange(bins) + 0.5) * (x1 - x0) / bins - 0.5).clip(0, height - 1)
    rows = np.maximum(1 - abs(p[:, None] - np.arange(height)), 0)
    columns = np.maximum(1 - abs(q[:, None] - np.arange(width)), 0)
    return rows @ features @ columns.T


def read_box__wrong__clipped_at_the_size(features, box, bins):
    (x0, y0, x1, y1), (height, width) = box, features.shape
    p = (y0 + (np.arange(bins) + 0.5) * (y1 - y0) / bins - 0.5).clip(0, height)
    q = (x0 + (np.arange(bins) + 0.5) * (x1 - x0) / bins - 0.5).clip(0, width)
    rows = np.maximum(1 - abs(p[:, None] - np.arange(height)), 0)
    columns = np.maximum(1 - abs(q[:, None] - np.arange(width)), 0)
    return rows @ features @ columns.T


def read_box__wrong__sum_of_the_bin(features, box, bins):
    x0, y0, x1, y1 = box
    return _read_box(features, box, bins) * (y1 - y0) * (x1 - x0) / bins**2


def read_box__wrong__bins_of_one_cell(features, box, bins):
    x0, y0, _, _ = box
    return _read_box(features, (x0, y0, x0 + bins, y0 + bins), bins)


def read_box__wrong__whole_numbers(features, box, bins):
    return _read_box(features, box, bins).astype(int)
