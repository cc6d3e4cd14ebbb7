"""The exercises of lesson 04: read a mask tensor and refile it, natural and aligned.

In the cases by hand every value is the name of the pixel it speaks of: 10 * row + column.

next: learn/lessons/lesson_05.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ... import reference
from ..cases import Array
from ..explorer import Explorer, Mark, Panel, explore
from ..kinds import loops

PAD = -6.0


def aligned_names(side: int, cells: int) -> Array:
    """(1, V, U, H, W) aligned: every value names its pixel, so every block is constant."""
    names = 10.0 * np.arange(cells)[:, None] + np.arange(cells)  # (H, W)
    return np.broadcast_to(names, (1, side, side, cells, cells)).copy()


def natural_names(side: int, cells: int) -> Array:
    """(1, V, U, H, W) natural: bin (v, u) of cell (y, x) names pixel (y + v, x + u)."""
    place = np.arange(cells) + np.arange(side)[:, None] - (side - 1) // 2  # (V, H)
    return (10.0 * place[:, None, :, None] + place[None, :, None, :])[None]


# --- the explorer -----------------------------------------------------------------------------


def two_ways(natural: Array) -> Explorer:
    """The same values filed in two ways: move the pixel, the window stays up and left of it.

    natural: (V, U, H, W) mask values in [0, 1], alpha = 1, V and U odd.
    """
    num_v, num_u, height, width = natural.shape
    aligned = reference.nat2align(natural[None], pad_value=np.nan)[0]
    panels = (
        Panel("natural: one block = one window", natural, "window x", "window y"),
        Panel("aligned: one block = one pixel", aligned, "pixel x", "pixel y"),
    )

    def marks(y: int, x: int) -> tuple[list[Mark], str]:
        window, lit = (y - 1, x - 1), [Mark(1, (y, x), is_followed=True)]
        for i, j in np.ndindex(num_v, num_u):
            v, u = i - (num_v - 1) // 2, j - (num_u - 1) // 2
            seen_from = (y - v, x - u)  # the window whose bin (v, u) is the pixel
            filed_at = (window[0] + v, window[1] + u)  # the pixel of the window's bin (v, u)
            lit += [Mark(0, (i, j, *seen_from), True)] if is_cell(*seen_from) else []
            lit += [Mark(1, (i, j, *filed_at), False)] if is_cell(*filed_at) else []
        seen = sum(mark.is_followed for mark in lit) - 1
        words = f"Pixel ({y}, {x}), filled: {seen} bins in {seen} windows, or one block."
        if is_cell(*window):
            lit.append(Mark(0, window, is_followed=False))
            words += f" Window {window}, dashed: one block, or a bin in each of its pixels."
        return lit, words

    def is_cell(y: int, x: int) -> bool:
        return 0 <= y < height and 0 <= x < width

    return explore(panels, marks, follow=1, y=height, x=width)


# --- the exercises ----------------------------------------------------------------------------


@loops("v u h w, <h, <w, pad -> v u", by_hand=(aligned_names(3, 5)[0], 2, 3, PAD))
def window_mask(aligned: Array, y: int, x: int, pad_value: float = PAD) -> Array:
    """One window's mask out of an aligned tensor, alpha = 1: a gather along diagonals.

    aligned: (V, U, H, W), V and U odd -> (V, U): the window centred at cell (y, x).
    Section 3.
    """
    num_v, num_u, height, width = aligned.shape
    mask = np.full((num_v, num_u), pad_value, aligned.dtype)
    for i, j in np.ndindex(num_v, num_u):
        v = i - (num_v - 1) // 2  # counted from the centre
        u = j - (num_u - 1) // 2
        row = y + v
        column = x + u
        if 0 <= row < height and 0 <= column < width:
            mask[i, j] = aligned[i, j, row, column]
    return mask


@loops(
    "n v u h w, pad -> n v u h w",
    by_hand=(natural_names(3, 5), PAD),
    same_as=lambda natural, pad: reference.nat2align(natural, pad_value=pad),
)
def nat2align(natural: Array, pad_value: float = PAD) -> Array:
    """Natural to aligned, alpha = 1: a value goes from its window to its pixel.

    natural: (N, V, U, H, W), V and U odd -> the same shape. Section 3.
    """
    _, num_v, num_u, height, width = natural.shape
    aligned = np.full(natural.shape, pad_value, natural.dtype)
    for i, j, y, x in np.ndindex(num_v, num_u, height, width):
        v = i - (num_v - 1) // 2  # counted from the centre
        u = j - (num_u - 1) // 2
        row = y - v
        column = x - u
        if 0 <= row < height and 0 <= column < width:
            aligned[:, i, j, y, x] = natural[:, i, j, row, column]
    return aligned


@loops(
    "n v u h w, sigma_vu, pad -> n v u h w",
    by_hand=(aligned_names(3, 7), 2, PAD),
    sizes={"sigma_vu": (1, 2, 2, 3)},
    same_as=lambda aligned, sigma_vu, pad: reference.align2nat(
        aligned, sigma_vu=sigma_vu, aligned_sigma_vu=sigma_vu, pad_value=pad
    ),
)
def align2nat(aligned: Array, sigma_vu: int = 1, pad_value: float = PAD) -> Array:
    """Aligned to natural, bins sigma_vu cells apart: each window collects its own bins.

    aligned: (N, V, U, H, W), V and U odd -> the same shape. Section 3.
    """
    _, num_v, num_u, height, width = aligned.shape
    natural = np.full(aligned.shape, pad_value, aligned.dtype)
    for i, j, y, x in np.ndindex(num_v, num_u, height, width):
        v = i - (num_v - 1) // 2  # counted from the centre
        u = j - (num_u - 1) // 2
        row = y + sigma_vu * v
        column = x + sigma_vu * u
        if 0 <= row < height and 0 <= column < width:
            natural[:, i, j, y, x] = aligned[:, i, j, row, column]
    return natural


def _padded(seed: int) -> Tensor:
    """An aligned tensor of 3 x 5 bins on 4 x 6 cells with its border."""
    values = np.random.default_rng(seed).random((2, 3, 5, 6, 10))
    return torch.from_numpy(values)


def _is_copied(answer: Callable[..., Any]) -> dict[str, Any] | None:
    layouts = _padded(1), _padded(1).mT.contiguous().mT  # a copy may hide in one of them
    views = [(answer(padded, 4, 6), padded) for padded in layouts]
    shared = [
        view.untyped_storage().data_ptr() == padded.untyped_storage().data_ptr()
        for view, padded in views
    ]
    return None if all(shared) else {}


def _cuts_gradients(answer: Callable[..., Any]) -> dict[str, Any] | None:
    return None if answer(_padded(2).requires_grad_(), 4, 6).requires_grad else {}


@loops(
    "n v u h+v-1 w+u-1, h, w -> n v u h w",
    by_hand=(torch.from_numpy(aligned_names(3, 5)), 3, 3),
    tensors=True,
    extras={"a view": _is_copied, "gradients": _cuts_gradients},
)
def align2nat_view(padded: Tensor, height: int, width: int) -> Tensor:
    """`align2nat` for alpha = 1: the same memory, read with other strides.

    padded: (N, V, U, height + V - 1, width + U - 1), an aligned tensor with its border around
    it, any strides.
    out: (N, V, U, height, width), a view. One step in v is also one step in y, one in u also
    one in x.
    """
    n, v, u, y, x = padded.stride()
    size = (*padded.shape[:3], height, width)
    return padded.as_strided(size, (n, v + y, u + x, y, x))
