"""Answers to the exercises of lesson 03, written from its text alone."""

from __future__ import annotations

import math

import numpy as np

# --- units ------------------------------------------------------------------------------------

units__right__fractions = {
    "alpha_a": 8 / 16, "alpha_b": 4 / 4, "alpha_c": 8 / 4, "side_a": 40, "row_a": 5 * 16 - 16
}  # fmt: skip
units__wrong__alpha_upside_down = {
    "alpha_a": 2, "alpha_b": 1, "alpha_c": 0.5, "side_a": 40, "row_a": 64
}  # fmt: skip
units__wrong__between_bin_centres = {
    "alpha_a": 0.5, "alpha_b": 1, "alpha_c": 2, "side_a": 32, "row_a": 64
}  # fmt: skip
units__wrong__side_of_cells = {
    "alpha_a": 0.5, "alpha_b": 1, "alpha_c": 2, "side_a": 80, "row_a": 64
}  # fmt: skip
units__wrong__row_with_units_swapped = {
    "alpha_a": 0.5, "alpha_b": 1, "alpha_c": 2, "side_a": 40, "row_a": 5 * 8 - 2 * 16
}  # fmt: skip
units__wrong__row_sign = {
    "alpha_a": 0.5, "alpha_b": 1, "alpha_c": 2, "side_a": 40, "row_a": 96
}  # fmt: skip
units__wrong__row_in_cells = {
    "alpha_a": 0.5, "alpha_b": 1, "alpha_c": 2, "side_a": 40, "row_a": 5 - 2 * 0.5
}  # fmt: skip
units__wrong__units_swapped_all_over = {
    "alpha_a": 2, "alpha_b": 1, "alpha_c": 0.5, "side_a": 80, "row_a": 8
}  # fmt: skip
units__wrong__row_from_the_corner_of_the_window = {
    "alpha_a": 0.5, "alpha_b": 1, "alpha_c": 2, "side_a": 40, "row_a": 5 * 16 - 20 - 2 * 8
}  # fmt: skip
units__wrong__middle_of_the_cell = {
    "alpha_a": 0.5, "alpha_b": 1, "alpha_c": 2, "side_a": 40, "row_a": 5 * 16 + 8 - 16
}  # fmt: skip
units__wrong__only_alphas = {"alpha_a": 0.5, "alpha_b": 1, "alpha_c": 2}
units__wrong__text_for_a_number = {
    "alpha_a": "1/2", "alpha_b": 1, "alpha_c": 2, "side_a": 40, "row_a": 64
}  # fmt: skip
units__wrong__side_squared = {
    "alpha_a": 0.5, "alpha_b": 1, "alpha_c": 2, "side_a": 1600, "row_a": 64
}  # fmt: skip


# --- natural_tensor ---------------------------------------------------------------------------


def natural_tensor__right__take_from_padded(
    mask, num_v, num_u, sigma_hw, sigma_vu, pad_value=0.0
):
    half_v, half_u = num_v // 2 * sigma_vu, num_u // 2 * sigma_vu
    padded = np.pad(
        mask.astype(float), ((half_v, half_v), (half_u, half_u)), constant_values=pad_value
    )
    rows = sigma_hw * np.arange(-(-mask.shape[0] // sigma_hw))
    columns = sigma_hw * np.arange(-(-mask.shape[1] // sigma_hw))
    row = rows[None, :] + sigma_vu * np.arange(num_v)[:, None]
    column = columns[None, :] + sigma_vu * np.arange(num_u)[:, None]
    return padded[row[:, None, :, None], column[None, :, None, :]]


def natural_tensor__right__loops(mask, num_v, num_u, sigma_hw, sigma_vu, pad_value=0.0):
    high, wide = mask.shape
    cells = (math.ceil(high / sigma_hw), math.ceil(wide / sigma_hw))
    out = np.full((num_v, num_u, *cells), float(pad_value))
    for i, j, y, x in np.ndindex(out.shape):
        row = sigma_hw * y + sigma_vu * (i - num_v // 2)
        column = sigma_hw * x + sigma_vu * (j - num_u // 2)
        if row in range(high) and column in range(wide):
            out[i, j, y, x] = mask[row, column]
    return out


def _loops(mask, num_v, num_u, place, cells, pad_value):
    out = np.full((num_v, num_u, *cells), float(pad_value))
    for i, j, y, x in np.ndindex(out.shape):
        row, column = place(i, j, y, x)
        if 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1]:
            out[i, j, y, x] = mask[row, column]
    return out


def natural_tensor__wrong__centre_in_pixels(
    mask, num_v, num_u, sigma_hw, sigma_vu, pad_value=0.0
):
    def place(i, j, y, x):
        return (
            sigma_hw * y + sigma_vu * i - num_v // 2,
            sigma_hw * x + sigma_vu * j - num_u // 2,
        )

    cells = (-(-mask.shape[0] // sigma_hw), -(-mask.shape[1] // sigma_hw))
    return _loops(mask, num_v, num_u, place, cells, pad_value)


def natural_tensor__wrong__grid_rounded_down(
    mask, num_v, num_u, sigma_hw, sigma_vu, pad_value=0.0
):
    def place(i, j, y, x):
        return (
            sigma_hw * y + sigma_vu * (i - num_v // 2),
            sigma_hw * x + sigma_vu * (j - num_u // 2),
        )

    cells = (mask.shape[0] // sigma_hw, mask.shape[1] // sigma_hw)
    return _loops(mask, num_v, num_u, place, cells, pad_value)


def natural_tensor__wrong__units_swapped(mask, num_v, num_u, sigma_hw, sigma_vu, pad_value=0.0):
    def place(i, j, y, x):
        return (
            sigma_vu * y + sigma_hw * (i - num_v // 2),
            sigma_vu * x + sigma_hw * (j - num_u // 2),
        )

    cells = (-(-mask.shape[0] // sigma_hw), -(-mask.shape[1] // sigma_hw))
    return _loops(mask, num_v, num_u, place, cells, pad_value)


def natural_tensor__wrong__cell_in_its_middle(
    mask, num_v, num_u, sigma_hw, sigma_vu, pad_value=0.0
):
    def place(i, j, y, x):
        return (
            sigma_hw * y + sigma_hw // 2 + sigma_vu * (i - num_v // 2),
            sigma_hw * x + sigma_hw // 2 + sigma_vu * (j - num_u // 2),
        )

    cells = (-(-mask.shape[0] // sigma_hw), -(-mask.shape[1] // sigma_hw))
    return _loops(mask, num_v, num_u, place, cells, pad_value)


def natural_tensor__wrong__axes_h_w_v_u(mask, num_v, num_u, sigma_hw, sigma_vu, pad_value=0.0):
    right = natural_tensor__right__loops(mask, num_v, num_u, sigma_hw, sigma_vu, pad_value)
    return right.transpose(2, 3, 0, 1)


def natural_tensor__wrong__channels_u_v(mask, num_v, num_u, sigma_hw, sigma_vu, pad_value=0.0):
    right = natural_tensor__right__loops(mask, num_v, num_u, sigma_hw, sigma_vu, pad_value)
    return right.transpose(1, 0, 2, 3)


def natural_tensor__wrong__slice_clipped(mask, num_v, num_u, sigma_hw, sigma_vu, pad_value=0.0):
    padded = np.pad(
        mask.astype(float), ((num_v // 2,) * 2, (num_u // 2,) * 2), constant_values=pad_value
    )
    cells = (-(-mask.shape[0] // sigma_hw), -(-mask.shape[1] // sigma_hw))
    out = np.full((num_v, num_u, *cells), float(pad_value))
    for y, x in np.ndindex(*cells):
        piece = padded[
            sigma_hw * y : sigma_hw * y + num_v * sigma_vu : sigma_vu,
            sigma_hw * x : sigma_hw * x + num_u * sigma_vu : sigma_vu,
        ]
        out[: piece.shape[0], : piece.shape[1], y, x] = piece
    return out


def natural_tensor__wrong__sizes_from_bins(
    mask, num_v, num_u, sigma_hw, sigma_vu, pad_value=0.0
):
    def place(i, j, y, x):
        return (
            sigma_hw * y + sigma_vu * (i - num_v // 2),
            sigma_hw * x + sigma_vu * (j - num_u // 2),
        )

    cells = (-(-mask.shape[0] // sigma_vu), -(-mask.shape[1] // sigma_vu))
    return _loops(mask, num_v, num_u, place, cells, pad_value)


def natural_tensor__wrong__type_of_the_mask(
    mask, num_v, num_u, sigma_hw, sigma_vu, pad_value=0.0
):
    right = natural_tensor__right__loops(mask, num_v, num_u, sigma_hw, sigma_vu, pad_value)
    return right > 0.5


def natural_tensor__wrong__strictly_inside(
    mask, num_v, num_u, sigma_hw, sigma_vu, pad_value=0.0
):
    high, wide = mask.shape
    cells = (math.ceil(high / sigma_hw), math.ceil(wide / sigma_hw))
    out = np.full((num_v, num_u, *cells), float(pad_value))
    for i, j, y, x in np.ndindex(out.shape):
        row = sigma_hw * y + sigma_vu * (i - num_v // 2)
        column = sigma_hw * x + sigma_vu * (j - num_u // 2)
        if 0 < row < high and 0 < column < wide:
            out[i, j, y, x] = mask[row, column]
    return out
