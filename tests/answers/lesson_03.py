"""Answers to the exercises of lesson 03."""

from __future__ import annotations

import numpy as np

# --- units ------------------------------------------------------------------------------------

RIGHT = {"alpha_a": 0.5, "alpha_b": 1, "alpha_c": 2, "side_a": 40, "row_a": 64}
units__right__numbers = RIGHT
units__wrong__pixels_over_bins = RIGHT | {"alpha_a": 2, "alpha_c": 0.5}
units__wrong__side_of_fifteen = RIGHT | {"side_a": 60}
units__wrong__below = RIGHT | {"row_a": 96}
units__wrong__from_the_windows_top = RIGHT | {"row_a": 44}
units__wrong__in_cells = RIGHT | {"row_a": 4}
units__wrong__open = RIGHT | {"row_a": ...}
units__wrong__words = RIGHT | {"side_a": "40 px"}


# --- natural_tensor ---------------------------------------------------------------------------


def natural_tensor__right__by_slices(mask, num_v, num_u, sigma_hw, sigma_vu, pad_value=0.0):
    half_v, half_u = sigma_vu * (num_v // 2), sigma_vu * (num_u // 2)
    padded = np.pad(mask, ((half_v, half_v), (half_u, half_u)), constant_values=pad_value)
    (h, w), s = mask.shape, sigma_hw
    return np.array(
        [
            [padded[i * sigma_vu :, j * sigma_vu :][:h:s, :w:s] for j in range(num_u)]
            for i in range(num_v)
        ]
    )


def loops(mask, num_v, num_u, sigma_hw, sigma_vu, pad_value, place, size=None, centred=True):
    """The loops; `place` gives a row from (cell, bin)."""
    h, w = mask.shape
    rows, columns = size or (-(-h // sigma_hw), -(-w // sigma_hw))
    out = np.full((num_v, num_u, rows, columns), pad_value, dtype=float)
    for i, j, y, x in np.ndindex(*out.shape):
        v, u = (i - num_v // 2, j - num_u // 2) if centred else (i, j)
        r, c = place(y, v), place(x, u)
        if 0 <= r < h and 0 <= c < w:
            out[i, j, y, x] = mask[r, c]
    return out


def natural_tensor__wrong__units_exchanged(m, v, u, hw, vu, pad_value=0.0):
    """says: units are swapped"""
    return loops(m, v, u, hw, vu, pad_value, lambda cell, b: vu * cell + hw * b)


def natural_tensor__wrong__added_then_scaled(m, v, u, hw, vu, pad_value=0.0):
    return loops(m, v, u, hw, vu, pad_value, lambda cell, b: hw * (cell + b))


def natural_tensor__wrong__alpha_with_cells(m, v, u, hw, vu, pad_value=0.0):
    return loops(m, v, u, hw, vu, pad_value, lambda cell, b: cell + vu * b // hw)


def natural_tensor__wrong__minus(m, v, u, hw, vu, pad_value=0.0):
    """says: upside down"""
    return loops(m, v, u, hw, vu, pad_value, lambda cell, b: hw * cell - vu * b)


def natural_tensor__wrong__corner(m, v, u, hw, vu, pad_value=0.0):
    """says: centre"""
    return loops(m, v, u, hw, vu, pad_value, lambda c, b: hw * c + vu * b, centred=False)


def natural_tensor__wrong__rounded_down(m, v, u, hw, vu, pad_value=0.0):
    """says: missing"""
    size = m.shape[0] // hw, m.shape[1] // hw
    return loops(m, v, u, hw, vu, pad_value, lambda cell, b: hw * cell + vu * b, size)


def natural_tensor__wrong__pad_forgotten(m, v, u, hw, vu, pad_value=0.0):
    """says: you give 0"""
    return loops(m, v, u, hw, vu, 0.0, lambda cell, b: hw * cell + vu * b)


def natural_tensor__wrong__wraps(mask, num_v, num_u, sigma_hw, sigma_vu, pad_value=0.0):
    out = np.full(
        (num_v, num_u, -(-len(mask) // sigma_hw), -(-mask.shape[1] // sigma_hw)), pad_value
    )
    for i, j, y, x in np.ndindex(*out.shape):
        row = sigma_hw * y + sigma_vu * (i - num_v // 2)
        column = sigma_hw * x + sigma_vu * (j - num_u // 2)
        if row < len(mask) and column < mask.shape[1]:
            out[i, j, y, x] = mask[row, column]
    return out


def natural_tensor__wrong__middle_of_the_cell(m, v, u, hw, vu, pad_value=0.0):
    return loops(m, v, u, hw, vu, pad_value, lambda cell, b: hw * cell + hw // 2 + vu * b)


def natural_tensor__wrong__axes_first_hw(m, v, u, hw, vu, pad_value=0.0):
    right = natural_tensor__right__by_slices(m, v, u, hw, vu, pad_value)
    return right.transpose(2, 3, 0, 1)
