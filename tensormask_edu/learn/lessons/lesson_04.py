"""The exercises of lesson 04: read a mask tensor and refile it, natural and aligned.

In the cases by hand every value is the name of the pixel it speaks of: 10 * row + column.

next: learn/lessons/lesson_06.py
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ... import reference
from ...reference import transforms
from ..checks import Array, Case, Exercise, without_pad
from ..texts import texts_beside

LESSON = "04_two_ways_to_file_a_mask"
TEXTS = texts_beside(__file__)
PAD = -6.0


# --- what the lesson builds and the package needs nowhere else --------------------------------


def window_mask(aligned: Array, y: int, x: int, pad_value: float = PAD) -> Array:
    """One window's mask out of an aligned tensor with alpha = 1: a gather along diagonals.

    aligned: (V, U, H, W), V and U odd -> (V, U): the window centred at cell (y, x).
    Section 3.3.
    """
    num_v, num_u, height, width = aligned.shape
    mask = np.full((num_v, num_u), pad_value, aligned.dtype)
    for v, u in np.ndindex(num_v, num_u):
        row = y + v - (num_v - 1) // 2
        column = x + u - (num_u - 1) // 2
        if 0 <= row < height and 0 <= column < width:
            mask[v, u] = aligned[v, u, row, column]
    return mask


def align2nat_view(padded: Tensor, height: int, width: int) -> Tensor:
    """`align2nat` for alpha = 1: the same memory, read with other strides.

    padded: (N, V, U, height + V - 1, width + U - 1), an aligned tensor with its border around
    it, any strides.
    out: (N, V, U, height, width), a view. One step in v is also one step in y, one in u also
    one in x.
    """
    n, v, u, y, x = padded.stride()
    return padded.as_strided((*padded.shape[:3], height, width), (n, v + y, u + x, y, x))


# --- cases ------------------------------------------------------------------------------------


def _pixel_names(rows: int, columns: int) -> Array:
    return 10.0 * np.arange(rows)[:, None] + np.arange(columns)


def aligned_names(side: int, cells: int) -> Array:
    """(1, V, U, H, W) aligned: every value names its pixel, so every block is constant."""
    return np.broadcast_to(_pixel_names(cells, cells), (1, side, side, cells, cells)).copy()


def natural_names(side: int, cells: int, step: int, first: int) -> Array:
    """(1, V, U, H, W) natural: bin (v, u) of cell (y, x) names pixel (y + step*v, x + step*u).

    v and u count from `first`.
    """
    place = np.arange(cells) + step * np.arange(first, first + side)[:, None]  # (V, H)
    return (10.0 * place[:, None, :, None] + place[None, :, None, :])[None]


def _tensor(rng: np.random.Generator, *shape: int, num: int = 1) -> Array:
    """Random values, (num, V, U, H, W) for a shape (V, U, H, W)."""
    return rng.random((num, *shape))


SHAPES = ((3, 3, 4, 5), (3, 5, 6, 7), (5, 3, 7, 6))  # V != U and H != W tell them apart


def _border_cases(rng: np.random.Generator, *more: Any) -> Sequence[Case]:
    """Cases (x, *more, pad) for a whole tensor."""
    return [
        Case((_tensor(rng, 5, 5, 3, 3), *more, -1.0), "large windows"),
        Case((_tensor(rng, 1, 1, 2, 3), *more, PAD), "one bin"),
    ]


# --- exercise 1: window_mask ------------------------------------------------------------------


def _window_cases(rng: np.random.Generator) -> Sequence[Case]:
    shapes_and_cells = ((3, 3, 5, 6), 2, 3), ((3, 5, 6, 7), 1, 3), ((5, 3, 7, 6), 3, 1)
    return [
        Case((_tensor(rng, *shape)[0], y, x, PAD), "random", {"shape": shape, "y": y, "x": x})
        for shape, y, x in shapes_and_cells
    ]


def _window_borders(rng: np.random.Generator) -> Sequence[Case]:
    return [
        Case((_tensor(rng, 3, 3, 4, 5)[0], y, x, PAD), "border", {"y": y, "x": x})
        for y, x in ((3, 4), (0, 0), (0, 4))
    ]


def _read_at(sign: int, centred: bool = True) -> Callable[..., Array]:
    """window_mask with another sign, or counting bins from the corner."""

    def read(aligned: Array, y: int, x: int, pad_value: float) -> Array:
        num_v, num_u = aligned.shape[:2]
        border = (0, 0), (0, 0), (9, 9), (9, 9)  # wider than any window tried
        padded = np.pad(aligned, border, constant_values=pad_value)
        out = np.empty((num_v, num_u))
        for v, u in np.ndindex(num_v, num_u):
            dv, du = (v - num_v // 2, u - num_u // 2) if centred else (v, u)
            out[v, u] = padded[v, u, y + sign * dv + 9, x + sign * du + 9]
        return out

    return read


def _read_wrapped(aligned: Array, y: int, x: int, pad_value: float) -> Array:
    num_v, num_u, height, width = aligned.shape
    out = np.empty((num_v, num_u))
    for v, u in np.ndindex(num_v, num_u):
        row, column = (y + v - num_v // 2) % height, (x + u - num_u // 2) % width
        out[v, u] = aligned[v, u, row, column]
    return out


def _read_v_with_x(aligned: Array, y: int, x: int, pad_value: float) -> Array:
    return _read_at(1)(aligned.swapaxes(2, 3), x, y, pad_value)


WINDOW_MASK = Exercise(
    name="window_mask",
    lesson=LESSON,
    texts=TEXTS["window_mask"],
    reference=window_mask,
    shown=(window_mask,),
    by_hand=Case(
        (aligned_names(3, 5)[0], 2, 3, PAD),
        "by hand",
        expected=[[12, 13, 14], [22, 23, 24], [32, 33, 34]],
    ),
    random=_window_cases,
    borders=_window_borders,
    interior=without_pad(window_mask),
    mistakes={
        "the block at (y, x)": lambda aligned, y, x, pad: aligned[:, :, y, x],
        "the wrong way": _read_at(-1),
        "from the corner": _read_at(1, centred=False),
        "v with x": _read_v_with_x,
        "wrapped": _read_wrapped,
        "zero outside": lambda aligned, y, x, pad: _read_at(1)(aligned, y, x, 0.0),
    },
)


# --- exercises 2 and 3: nat2align, align2nat --------------------------------------------------


def _shift(
    x: Array, step: int, pad_value: float, centred: bool = True, swapped: bool = False
) -> Array:
    """out[v, u, y, x] = x[v, u, y + step * v, x + step * u].

    centred, swapped: switches for two usual wrong ideas.
    """
    _, num_v, num_u, height, width = x.shape
    margin = max(num_v, num_u) * abs(step)
    padded = np.pad(x, ((0, 0),) * 3 + ((margin, margin),) * 2, constant_values=pad_value)
    out = np.empty(x.shape)
    for v, u in np.ndindex(num_v, num_u):
        dv, du = (v - num_v // 2, u - num_u // 2) if centred else (v, u)
        dy, dx = (du, dv) if swapped else (dv, du)
        top, left = margin + step * dy, margin + step * dx
        out[:, v, u] = padded[:, v, u, top : top + height, left : left + width]
    return out


def _rolled(x: Array, step: int) -> Array:
    out = x.copy()
    for v, u in np.ndindex(*x.shape[1:3]):
        by = (-step * (v - x.shape[1] // 2), -step * (u - x.shape[2] // 2))
        out[:, v, u] = np.roll(x[:, v, u], by, axis=(1, 2))
    return out


def _nat2align(x: Array, pad_value: float = PAD) -> Array:
    return reference.nat2align(x, pad_value=pad_value)


def _nat2align_cases(rng: np.random.Generator) -> Sequence[Case]:
    return [
        Case((_tensor(rng, *shape, num=2), PAD), "random", {"shape": shape}) for shape in SHAPES
    ]


NAT2ALIGN = Exercise(
    name="nat2align",
    lesson=LESSON,
    texts=TEXTS["nat2align"],
    reference=_nat2align,
    shown=(reference.nat2align, transforms._resample),
    by_hand=Case(
        (natural_names(3, 5, step=1, first=-1), PAD), "by hand", expected=aligned_names(3, 5)
    ),
    random=_nat2align_cases,
    borders=_border_cases,
    interior=without_pad(_nat2align),
    mistakes={
        "unmoved": lambda x, pad: np.asarray(x),
        "the wrong way": lambda x, pad: _shift(x, +1, pad),
        "from the corner": lambda x, pad: _shift(x, -1, pad, centred=False),
        "v with x": lambda x, pad: _shift(x, -1, pad, swapped=True),
        "rolled": lambda x, pad: _rolled(x, -1),
        "zero outside": lambda x, pad: _shift(x, -1, 0.0),
    },
)


def _align2nat(x: Array, sigma_vu: int = 1, pad_value: float = PAD) -> Array:
    return reference.align2nat(
        x, sigma_vu=sigma_vu, aligned_sigma_vu=sigma_vu, pad_value=pad_value
    )


def _align2nat_cases(rng: np.random.Generator) -> Sequence[Case]:
    shapes_and_units = ((3, 3, 6, 7), 1), ((3, 5, 11, 12), 2), ((5, 3, 14, 9), 3)
    return [
        Case(
            (_tensor(rng, *shape, num=2), sigma_vu, PAD),
            "random",
            {"shape": shape, "sigma_vu": sigma_vu},
        )
        for shape, sigma_vu in shapes_and_units
    ]


def _divided(x: Array, sigma_vu: int, pad_value: float) -> Array:
    """Steps of v / sigma_vu cells, rounded down."""
    _, num_v, num_u, height, width = x.shape
    out = np.full(x.shape, float(pad_value))
    for v, u, row, column in np.ndindex(*x.shape[1:]):
        y, x_in = row + (v - num_v // 2) // sigma_vu, column + (u - num_u // 2) // sigma_vu
        if 0 <= y < height and 0 <= x_in < width:
            out[:, v, u, row, column] = x[:, v, u, y, x_in]
    return out


ALIGN2NAT = Exercise(
    name="align2nat",
    lesson=LESSON,
    texts=TEXTS["align2nat"],
    reference=_align2nat,
    shown=(reference.align2nat, transforms._resample),
    by_hand=Case(
        (aligned_names(3, 7), 2, PAD),
        "by hand",
        expected=natural_names(3, 7, step=2, first=-1),
    ),
    random=_align2nat_cases,
    borders=lambda rng: _border_cases(rng, 2),
    interior=without_pad(_align2nat),
    mistakes={
        "one cell per bin": lambda x, sigma_vu, pad: _shift(x, +1, pad),
        "the wrong way": lambda x, sigma_vu, pad: _shift(x, -sigma_vu, pad),
        "divided": _divided,
        "from the corner": lambda x, sigma_vu, pad: _shift(x, sigma_vu, pad, centred=False),
        "v with x": lambda x, sigma_vu, pad: _shift(x, sigma_vu, pad, swapped=True),
        "rolled": lambda x, sigma_vu, pad: _rolled(x, sigma_vu),
        "zero outside": lambda x, sigma_vu, pad: _shift(x, sigma_vu, 0.0),
    },
)


# --- exercise 4: the strided view -------------------------------------------------------------


def _padded(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """A padded aligned tensor: (2, V, U, H + V - 1, W + U - 1) for a shape (V, U, H, W)."""
    num_v, num_u, height, width = shape
    return rng.random((2, num_v, num_u, height + num_v - 1, width + num_u - 1))


def _view_cases(rng: np.random.Generator) -> Sequence[Case]:
    return [
        Case((torch.from_numpy(_padded(rng, shape)), *shape[2:]), "random", {"shape": shape})
        for shape in SHAPES
    ]


def _view_layouts(rng: np.random.Generator) -> Sequence[Case]:
    """Unusual orders and beginnings in memory."""
    shape = (3, 5, 4, 6)
    values = torch.from_numpy(_padded(rng, shape))  # (N, V, U, H, W), the border included
    cells_first = values.permute(0, 3, 4, 1, 2).contiguous()  # (N, H, W, V, U) in memory
    transposed = cells_first.permute(0, 3, 4, 1, 2)  # (N, V, U, H, W) by its axes
    second_half = torch.cat([torch.zeros_like(values), values])[2:]
    return [Case((transposed, 4, 6), "transposed"), Case((second_half, 4, 6), "slice")]


def _strided(
    *strides_of: str, contiguous: bool = False, offset: int | None = None
) -> Callable[..., Tensor]:
    """as_strided with, per output axis, the sum of the named input strides."""

    def view(padded: Tensor, height: int, width: int) -> Tensor:
        strides = torch.empty(padded.shape).stride() if contiguous else padded.stride()
        step = dict(zip("nvuyx", strides, strict=True))
        total = tuple(sum(step[axis] for axis in axes) for axes in strides_of)
        return padded.as_strided((*padded.shape[:3], height, width), total, offset)

    return view


def _is_copied(answer: Callable[..., Any]) -> dict[str, Any] | None:
    padded = torch.from_numpy(_padded(np.random.default_rng(1), (3, 3, 4, 5)))
    view = answer(padded, 4, 5)
    same_memory = view.untyped_storage().data_ptr() == padded.untyped_storage().data_ptr()
    return None if same_memory else {}


def _cuts_gradients(answer: Callable[..., Any]) -> dict[str, Any] | None:
    padded = torch.from_numpy(_padded(np.random.default_rng(2), (3, 3, 4, 5))).requires_grad_()
    return None if answer(padded, 4, 5).requires_grad else {}


ALIGN2NAT_VIEW = Exercise(
    name="align2nat_view",
    lesson=LESSON,
    texts=TEXTS["align2nat_view"],
    reference=align2nat_view,
    shown=(align2nat_view,),
    by_hand=Case(
        (torch.from_numpy(aligned_names(3, 5)), 3, 3),
        "by hand",
        expected=natural_names(3, 3, step=1, first=0),
    ),
    random=_view_cases,
    borders=_view_layouts,
    mistakes={
        "the strides as they are": _strided("n", "v", "u", "y", "x"),
        "the step on y and x": _strided("n", "v", "u", "vy", "ux"),
        "v with x": _strided("n", "vx", "uy", "y", "x"),
        "one map": _strided("n", "y", "x", "y", "x"),
        "strides of the shape": _strided("n", "vy", "ux", "y", "x", contiguous=True),
        "offset 0": _strided("n", "vy", "ux", "y", "x", offset=0),
    },
    extras={"a view": _is_copied, "gradients": _cuts_gradients},
)

EXERCISES = (WINDOW_MASK, NAT2ALIGN, ALIGN2NAT, ALIGN2NAT_VIEW)
