"""The exercises of lesson 04: read and refile a mask tensor between its natural and aligned
forms.

In the cases by hand every value is the name of the pixel it speaks of: 10 * row + column.

next: learn/lesson_06.py
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ... import reference
from ...reference import transforms
from ..checks import Array, Case, Exercise, Extra, Mistake, without_pad

LESSON = "04_two_ways_to_file_a_mask"
PAD = -6.0


# --- what the lesson builds and the package needs nowhere else --------------------------------


def window_mask(aligned: Array, y: int, x: int, pad_value: float = PAD) -> Array:
    """One window's mask out of an aligned tensor with alpha = 1 (section 3.3): a gather along
    diagonals.

    aligned: (V, U, H, W), V and U odd -> (V, U): the window centred at cell (y, x).
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
    """`align2nat` for alpha = 1 without moving a value: the same memory, read with other
    strides.

    padded: (N, V, U, height + V - 1, width + U - 1), an aligned tensor with its border around
    it, any strides
    out: (N, V, U, height, width), a view; one step in v is also one step in y, one in u also
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
    """(1, V, U, H, W) natural, by hand: bin (v, u) of cell (y, x) names pixel (y + step * v, x
    + step * u).

    v and u count from `first`.
    """
    place = np.arange(cells) + step * np.arange(first, first + side)[:, None]
    return (10.0 * place[:, None, :, None] + place[None, :, None, :])[None]


def _tensor(
    rng: np.random.Generator, num_v: int, num_u: int, height: int, width: int, num: int = 1
) -> Array:
    return rng.random((num, num_v, num_u, height, width))


SHAPES = ((3, 3, 4, 5), (3, 5, 6, 7), (5, 3, 7, 6))


def _random_tensors(*more: Any) -> Callable[[np.random.Generator], Sequence[Case]]:
    """Cases (x, *more, pad) over V != U, H != W."""

    def cases(rng: np.random.Generator) -> Sequence[Case]:
        return [
            Case(
                (_tensor(rng, *shape, num=2), *more, PAD),
                f"random values, (V, U, H, W) = {shape}",
            )
            for shape in SHAPES
        ]

    return cases


def _border_tensors(*more: Any) -> Callable[[np.random.Generator], Sequence[Case]]:
    def cases(rng: np.random.Generator) -> Sequence[Case]:
        return [
            Case(
                (_tensor(rng, 5, 5, 3, 3), *more, -1.0),
                "windows larger than the grid, pad_value = -1",
            ),
            Case((_tensor(rng, 1, 1, 2, 3), *more, PAD), "one bin per window"),
        ]

    return cases


# --- exercise 1: window_mask ------------------------------------------------------------------


def _window_cells(rng: np.random.Generator) -> Sequence[Case]:
    return [
        Case(
            (_tensor(rng, *shape)[0], y, x, PAD),
            f"random values, (V, U, H, W) = {shape}, cell ({y}, {x})",
        )
        for shape, y, x in (((3, 3, 5, 6), 2, 3), ((3, 5, 6, 7), 1, 3), ((5, 3, 7, 6), 3, 1))
    ]


def _border_cells(rng: np.random.Generator) -> Sequence[Case]:
    return [
        Case(
            (_tensor(rng, 3, 3, 4, 5)[0], y, x, PAD),
            f"a window at the image's border, cell ({y}, {x})",
        )
        for y, x in ((3, 4), (0, 0), (0, 4))
    ]


def _read_at(sign: int, centred: bool = True) -> Callable[..., Array]:
    """window_mask with another sign, or counting bins from the corner."""

    def read(aligned: Array, y: int, x: int, pad_value: float) -> Array:
        num_v, num_u = aligned.shape[:2]
        padded = np.pad(aligned, ((0, 0), (0, 0), (9, 9), (9, 9)), constant_values=pad_value)
        out = np.empty((num_v, num_u))
        for v, u in np.ndindex(num_v, num_u):
            dv, du = (v - num_v // 2, u - num_u // 2) if centred else (v, u)
            out[v, u] = padded[v, u, y + sign * dv + 9, x + sign * du + 9]
        return out

    return read


def _wrapped_read(aligned: Array, y: int, x: int, pad_value: float) -> Array:
    num_v, num_u, height, width = aligned.shape
    out = np.empty((num_v, num_u))
    for v, u in np.ndindex(num_v, num_u):
        out[v, u] = aligned[v, u, (y + v - num_v // 2) % height, (x + u - num_u // 2) % width]
    return out


def _swapped_read(aligned: Array, y: int, x: int, pad_value: float) -> Array:
    """v moves x and u moves y."""
    return _read_at(1)(aligned.swapaxes(2, 3), x, y, pad_value)


WINDOW_MASK = Exercise(
    name="window_mask",
    lesson=LESSON,
    reference=window_mask,
    shown=(window_mask,),
    by_hand=Case(
        (aligned_names(3, 5)[0], 2, 3, PAD),
        "every value names its pixel, 10 * row + column; V = U = 3, the window of cell (2, 3)",
        [[12, 13, 14], [22, 23, 24], [32, 33, 34]],
    ),
    random=_window_cells,
    borders=_border_cells,
    interior=without_pad(window_mask),
    mistakes=(
        Mistake(
            lambda aligned, y, x, pad: aligned[:, :, y, x],
            "You read the block at (y, x). In an aligned tensor that block holds what all windows say "
            "about pixel "
            "(y, x). One window's bins lie in V * U different blocks: bin v is filed v cells further down.",
        ),
        Mistake(
            _read_at(-1),
            "You walk the wrong way. Bin v of the window looks v cells *below* its centre, so it is filed "
            "at y + v.",
        ),
        Mistake(
            _read_at(1, centred=False),
            "You count v and u from the window's corner. They count from its centre: v = index - (V - 1) "
            "// 2.",
        ),
        Mistake(
            _swapped_read,
            "You let v move x and u move y. v goes with y (both vertical), u with x.",
        ),
        Mistake(
            _wrapped_read,
            "A negative index does not fail in Python: it wraps to the far side. Ask 0 <= row < H before "
            "you read.",
        ),
        Mistake(
            lambda aligned, y, x, pad: _read_at(1)(aligned, y, x, 0.0),
            "Outside the tensor you give 0. As a logit 0 says 'half sure'; pad_value says 'surely not'.",
        ),
    ),
    hints=(
        "Follow one bin. The window at cell (y, x) has its top left bin one row up and one column left of "
        "its centre. "
        "Which pixel is that? Under that pixel the value is filed.",
        "Bin (v, u), counted from the centre, speaks of pixel (y + v, x + u). So its value is aligned[., "
        "., y + v, x + u].",
        "Two loops over the indices i, j of bins: v = i - (V - 1) // 2, u = j - (U - 1) // 2; where (y + "
        "v, x + u) is "
        "outside the grid keep pad_value, else take aligned[i, j, y + v, x + u].",
    ),
)


# --- exercises 2 and 3: nat2align, align2nat --------------------------------------------------


def _shift(
    x: Array, step: int, pad_value: float, centred: bool = True, swapped: bool = False
) -> Array:
    """out[v, u, y, x] = x[v, u, y + step * v, x + step * u], with the usual wrong ideas as
    switches."""
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


WRONG_WAY = "You slide the wrong way: that is {other}. {right}"
FROM_CORNER = "You count v and u from the window's corner. They count from its centre: v = index - (V - 1) // 2."
MIXED = "You let v move x and u move y. v goes with y (both vertical), u with x."
WRAPPED = (
    "Values that leave the grid on one side come back on the other: np.roll, or a negative index. What "
    "comes from "
    "outside is pad_value."
)
ZERO = (
    "Outside the tensor you give 0. As a logit 0 says 'half sure'; pad_value says 'surely not'."
)


def _nat2align(x: Array, pad_value: float = PAD) -> Array:
    return reference.nat2align(x, pad_value=pad_value)


NAT2ALIGN = Exercise(
    name="nat2align",
    lesson=LESSON,
    reference=_nat2align,
    shown=(reference.nat2align, transforms._resample),
    by_hand=Case(
        (natural_names(3, 5, step=1, first=-1), PAD),
        "every value names its pixel, 10 * row + column; aligned, every block must hold one name",
        aligned_names(3, 5),
    ),
    random=_random_tensors(),
    borders=_border_tensors(),
    interior=without_pad(_nat2align),
    mistakes=(
        Mistake(
            lambda x, pad: np.asarray(x),
            "You gave the input back. Filed under its pixel, bin v of the window at y - v moves to y.",
        ),
        Mistake(
            lambda x, pad: _shift(x, +1, pad),
            WRONG_WAY.format(
                other="align2nat",
                right="Pixel y is bin v of the window centred at y - v, so read at y - v and x - u.",
            ),
        ),
        Mistake(lambda x, pad: _shift(x, -1, pad, centred=False), FROM_CORNER),
        Mistake(lambda x, pad: _shift(x, -1, pad, swapped=True), MIXED),
        Mistake(lambda x, pad: _rolled(x, -1), WRAPPED),
        Mistake(lambda x, pad: _shift(x, -1, 0.0), ZERO),
    ),
    hints=(
        "Two questions per output entry: which pixel is (y, x)? Which window sees that pixel in its bin v?",
        "The window that sees pixel y in bin v is centred at y - v. So out[v, u, y, x] = x[v, u, y - v, x "
        "- u], v and u "
        "counted from the centre.",
        "Start from np.full(x.shape, pad_value). Loop over the indices i, j, y, x; v = i - (V - 1) // 2; "
        "if 0 <= y - v < H and 0 <= x - u < W, copy x[:, i, j, y - v, x - u].",
    ),
)


def _align2nat(x: Array, sigma_vu: int = 1, pad_value: float = PAD) -> Array:
    return reference.align2nat(
        x, sigma_vu=sigma_vu, aligned_sigma_vu=sigma_vu, pad_value=pad_value
    )


def _ratio_cases(rng: np.random.Generator) -> Sequence[Case]:
    return [
        Case(
            (_tensor(rng, *shape, num=2), sigma_vu, PAD),
            f"random values, (V, U, H, W) = {shape}, sigma_vu = {sigma_vu}",
        )
        for shape, sigma_vu in (((3, 3, 6, 7), 1), ((3, 5, 11, 12), 2), ((5, 3, 14, 9), 3))
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
    reference=_align2nat,
    shown=(reference.align2nat, transforms._resample),
    by_hand=Case(
        (aligned_names(3, 7), 2, PAD),
        "every value names its pixel, 10 * row + column; sigma_vu = 2, so bins are two cells apart",
        natural_names(3, 7, step=2, first=-1),
    ),
    random=_ratio_cases,
    borders=_border_tensors(2),
    interior=without_pad(_align2nat),
    mistakes=(
        Mistake(
            lambda x, sigma_vu, pad: _shift(x, +1, pad),
            "You move one cell per bin. Bins are sigma_vu cells apart here, so bin v looks at pixel y + "
            "sigma_vu * v.",
        ),
        Mistake(
            lambda x, sigma_vu, pad: _shift(x, -sigma_vu, pad),
            WRONG_WAY.format(
                other="nat2align",
                right="The window at y finds its bin v filed under pixel y + sigma_vu * v.",
            ),
        ),
        Mistake(
            _divided,
            "You divide by sigma_vu. It is the number of cells from one bin to the next, so it multiplies v.",
        ),
        Mistake(lambda x, sigma_vu, pad: _shift(x, sigma_vu, pad, centred=False), FROM_CORNER),
        Mistake(lambda x, sigma_vu, pad: _shift(x, sigma_vu, pad, swapped=True), MIXED),
        Mistake(lambda x, sigma_vu, pad: _rolled(x, sigma_vu), WRAPPED),
        Mistake(lambda x, sigma_vu, pad: _shift(x, sigma_vu, 0.0), ZERO),
    ),
    hints=(
        "It is window_mask for all cells at once, with a longer step from bin to bin.",
        "Bin v of the window at y speaks of pixel y + sigma_vu * v: out[v, u, y, x] = x[v, u, y + sigma_vu "
        "* v, x + sigma_vu * u].",
        "The loops of nat2align, with row = y + sigma_vu * v and column = x + sigma_vu * u; outside the "
        "grid stays "
        "pad_value.",
    ),
)


# --- exercise 4: the strided view -------------------------------------------------------------


def _padded(rng: np.random.Generator, shape: tuple[int, ...], layout: str = "") -> Tensor:
    """A padded aligned tensor (N, V, U, H + V - 1, W + U - 1); `layout` names an unusual one in
    memory."""
    num_v, num_u, height, width = shape
    size = (2, num_v, num_u, height + num_v - 1, width + num_u - 1)
    if layout == "transposed":
        return torch.from_numpy(rng.random((size[0], *size[3:], *size[1:3]))).permute(
            0, 3, 4, 1, 2
        )
    if layout == "slice":
        return torch.from_numpy(rng.random((2 * size[0], *size[1:])))[2:]
    return torch.from_numpy(rng.random(size))


def _view_cases(rng: np.random.Generator) -> Sequence[Case]:
    return [
        Case((_padded(rng, shape), *shape[2:]), f"random values, (V, U, H, W) = {shape}")
        for shape in SHAPES
    ]


def _view_layouts(rng: np.random.Generator) -> Sequence[Case]:
    shape = (3, 5, 4, 6)
    words = {
        "transposed": "memory in another order (a permuted tensor)",
        "slice": "a slice: it starts in the middle of its memory",
    }
    return [Case((_padded(rng, shape, layout), 4, 6), words[layout]) for layout in words]


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


def _shares_memory(answer: Callable[..., Any]) -> str:
    padded = _padded(np.random.default_rng(1), (3, 3, 4, 5))
    view = answer(padded, 4, 5)
    if view.untyped_storage().data_ptr() == padded.untyped_storage().data_ptr():
        return ""
    return (
        "Right numbers, but copied: the result has memory of its own. Return the view that as_strided "
        "gives, with no "
        "clone, contiguous, gather or loop."
    )


def _passes_gradients(answer: Callable[..., Any]) -> str:
    padded = _padded(np.random.default_rng(2), (3, 3, 4, 5)).requires_grad_()
    view = answer(padded, 4, 5)
    if not view.requires_grad:
        return "The gradient is cut: use no .data, .detach() or .numpy() on the way."
    return ""


ALIGN2NAT_VIEW = Exercise(
    name="align2nat_view",
    lesson=LESSON,
    reference=align2nat_view,
    shown=(align2nat_view,),
    by_hand=Case(
        (torch.from_numpy(aligned_names(3, 5)), 3, 3),
        "every value names its padded pixel, 10 * row + column; V = U = 3, a grid of 3 x 3",
        natural_names(3, 3, step=1, first=0),
    ),
    random=_view_cases,
    borders=_view_layouts,
    mistakes=(
        Mistake(
            _strided("n", "v", "u", "y", "x"),
            "You left the strides as they are, so every bin reads the same pixel. One step in v must also "
            "be one step "
            "down in y.",
        ),
        Mistake(
            _strided("n", "v", "u", "vy", "ux"),
            "You put the extra step on y and x. It is the step in v that moves on by one row as well: (v + "
            "y, u + x, y, x).",
        ),
        Mistake(
            _strided("n", "vx", "uy", "y", "x"),
            "You let v move x and u move y. v goes with y (both vertical), u with x.",
        ),
        Mistake(
            _strided("n", "y", "x", "y", "x"),
            "You replaced the strides of v and u by those of y and x: that is unfold of one map. Each v "
            "has a map of "
            "its own here, so the strides add up.",
        ),
        Mistake(
            _strided("n", "vy", "ux", "y", "x", contiguous=True),
            "You computed the strides from the shape. A tensor may lie in memory in another order: ask "
            "padded.stride().",
        ),
        Mistake(
            _strided("n", "vy", "ux", "y", "x", offset=0),
            "You start at offset 0 of the memory. A slice starts elsewhere: leave storage_offset out, or "
            "ask for it.",
        ),
    ),
    hints=(
        "In memory an entry lies at n*s_n + v*s_v + u*s_u + y*s_y + x*s_x. Put y + v for y and collect "
        "what belongs to v.",
        "One step in v becomes s_v + s_y, one in u becomes s_u + s_x; y and x keep their strides.",
        "n, v, u, y, x = padded.stride(), then padded.as_strided(size, (n, v + y, u + x, y, x)) with the "
        "size of the "
        "result.",
    ),
    extras=(Extra("a view", _shares_memory), Extra("gradients", _passes_gradients)),
)

EXERCISES = (WINDOW_MASK, NAT2ALIGN, ALIGN2NAT, ALIGN2NAT_VIEW)
