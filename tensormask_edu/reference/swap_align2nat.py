"""`swap_align2nat`, the op of the tensor bipyramid, as its definition in loops (section 3).

    swap_align2nat = subsample(lam) after align2nat after up_bilinear(lam)

It takes an aligned tensor with coarse bins on a fine grid (sigma_vu = lam * sigma_hw) to a
natural tensor with fine bins on a coarse grid (sigma_hw = lam * sigma_vu): the units swap, the
size stays about the same. Output entry (v, u, y, x) is the 4-D linear interpolation of the
input at

    v axis: (v + 1/2)/lam - 1/2        y axis: lam*y + v - (lam*V - 1)/2
    u axis: (u + 1/2)/lam - 1/2        x axis: lam*x + u - (lam*U - 1)/2

with `pad_value` outside the input in any axis: no clamping, no renormalisation. So for lam >= 2
the outermost lam // 2 entries of every window are blended with the pad: the rim. (v, y) and
(u, x) never mix: at most 2 x 2 taps for each of the two axis pairs, 16 in all, and their
weights are fractions of integers.

twin: ops/swap_align2nat.py

next: reference/assign.py
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .transforms import Array, check_integer_lam, check_tensor

# --- the op and its adjoint -------------------------------------------------------------------


def swap_align2nat(x: Array, lam: int, pad_value: float = -6.0) -> Array:
    """Aligned coarse bins to natural fine bins, for every window of the output grid.

    x: (N, V, U, H, W) any floating dtype (computed in float64)
    out: (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam)) dtype of x
    Raises ValueError for a wrong shape or dtype, or lam not an integer >= 1.
    """
    _check(x, lam)
    num, _, _, height, width = x.shape
    rows, columns = -(-height // lam), -(-width // lam)  # rounded up
    windows = swap_align2nat_windows(x, lam, _all_cells(num, rows, columns), pad_value)
    # (K, lam*V, lam*U), K = N * rows * columns, and back into the order of a tensor
    by_cell = windows.reshape(num, rows, columns, *windows.shape[1:])
    return by_cell.transpose(0, 3, 4, 1, 2).copy()  # (N, lam*V, lam*U, rows, columns)


def swap_align2nat_windows(
    x: Array, lam: int, index: NDArray[np.int64], pad_value: float = -6.0
) -> Array:
    """The same numbers for chosen windows only.

    x: (N, V, U, H, W) any floating dtype (computed in float64)
    index: (K, 3) int64, (n, y, x) of output cells, repeats allowed
    out: (K, lam*V, lam*U) dtype of x
    Raises ValueError for a wrong shape or dtype, lam no integer >= 1, or an index outside the
    output grid.
    """
    _check(x, lam)
    _check_index(index, x.shape, lam)
    values, cells = x.astype(np.float64), index.tolist()
    out = np.empty((len(cells), lam * x.shape[1], lam * x.shape[2]))  # (K, lam*V, lam*U)
    for k, v, u in np.ndindex(out.shape):
        value, inside = 0.0, 0.0
        for entry, weight in _contributions(x.shape, lam, cells[k], v, u):
            value += weight * values[entry]
            inside += weight
        # what is missing to a weight of 1 lies outside the tensor: the pad
        out[k, v, u] = value + (1 - inside) * pad_value
    return out.astype(x.dtype)


def swap_align2nat_adjoint(grad: Array, lam: int, height: int, width: int) -> Array:
    """The transposed linear map: the gradient of `swap_align2nat` with respect to x.

    grad: (N, lam*V, lam*U, ceil(height/lam), ceil(width/lam)) -> (N, V, U, height, width)
    """
    num, fine_v, fine_u, rows, columns = grad.shape
    windows = grad.transpose(0, 3, 4, 1, 2).reshape(-1, fine_v, fine_u)  # (K, lam*V, lam*U)
    shape = (num, fine_v // lam, fine_u // lam, height, width)
    return swap_align2nat_windows_adjoint(windows, lam, _all_cells(num, rows, columns), shape)


def swap_align2nat_windows_adjoint(
    grad: Array, lam: int, index: NDArray[np.int64], shape: tuple[int, ...]
) -> Array:
    """The transposed map of `swap_align2nat_windows`; gradients of repeated windows add.

    grad: (K, lam*V, lam*U), index: (K, 3) int64, shape: (N, V, U, H, W) of x
    out: (N, V, U, H, W) dtype of grad
    """
    grad_x, cells = np.zeros(shape), index.tolist()  # (N, V, U, H, W), float64
    for k, v, u in np.ndindex(grad.shape):
        value = float(grad[k, v, u])
        # the same entries and weights as forward, written instead of read; the pad is constant
        for entry, weight in _contributions(shape, lam, cells[k], v, u):
            grad_x[entry] += weight * value
    return grad_x.astype(grad.dtype)


def _all_cells(num: int, rows: int, columns: int) -> NDArray[np.int64]:
    """(n, y, x) of every cell of an output grid, x fastest: (num * rows * columns, 3)."""
    cells = list(np.ndindex(num, rows, columns))
    return np.array(cells, np.int64).reshape(-1, 3)  # also where there is no cell


# --- where an output entry reads --------------------------------------------------------------


def taps(v: int, lam: int) -> list[tuple[int, float]]:
    """The two sub-tensor entries around (v + 1/2)/lam - 1/2, with their weights."""
    # the place is (2v + 1 - lam) / (2 lam): a quotient of integers, so no rounding
    lower, remainder = divmod(2 * v + 1 - lam, 2 * lam)
    return [(lower, 1 - remainder / (2 * lam)), (lower + 1, remainder / (2 * lam))]


def shifted_taps(v: int, y: int, lam: int, num_v: int) -> list[tuple[int, float]]:
    """The cells around lam*y + v - (lam*V - 1)/2, with their weights.

    There is one if lam*V is odd (the other has weight 0), else two with weight 1/2.
    """
    lower, remainder = divmod(1 - lam * num_v, 2)  # v counts from the window's centre
    return [(lam * y + v + lower, 1 - remainder / 2), (lam * y + v + lower + 1, remainder / 2)]


@lru_cache(maxsize=1 << 16)  # every u and x asks the same of a v and y
def _pair(
    v: int, y: int, lam: int, num_v: int, height: int
) -> tuple[tuple[int, int, float], ...]:
    """The (v, y) that bin v of output row y reads, with their weights; so for (u, x).

    What lies outside, or weighs nothing, is not read.
    """
    return tuple(
        (v_in, y_in, weight_v * weight_y)
        for v_in, weight_v in taps(v, lam)
        for y_in, weight_y in shifted_taps(v, y, lam, num_v)
        if weight_v * weight_y > 0 and 0 <= v_in < num_v and 0 <= y_in < height
    )


def _contributions(
    shape: tuple[int, ...], lam: int, cell: list[int], v: int, u: int
) -> Iterator[tuple[tuple[int, ...], float]]:
    """The input entries (n, v, u, y, x), with weights, that sum to bin (v, u) of `cell`."""
    _, num_v, num_u, height, width = shape
    n, y, x = cell
    rows, columns = _pair(v, y, lam, num_v, height), _pair(u, x, lam, num_u, width)
    for (v_in, y_in, weight_vy), (u_in, x_in, weight_ux) in itertools.product(rows, columns):
        yield (n, v_in, u_in, y_in, x_in), weight_vy * weight_ux


# --- what is refused --------------------------------------------------------------------------


def _check(x: Array, lam: int) -> None:
    check_tensor(x)
    check_integer_lam(lam)


def _check_index(index: NDArray[np.int64], shape: tuple[int, ...], lam: int) -> None:
    if index.ndim != 2 or index.shape[1] != 3 or index.dtype != np.int64:
        raise ValueError(
            f"index: expected int64 of shape (K, 3), got {index.dtype} of shape {index.shape}"
        )
    ends = (shape[0], -(-shape[3] // lam), -(-shape[4] // lam))  # (N, rows, columns)
    if ((index < 0) | (index >= ends)).any():
        raise ValueError(
            f"index: expected 0 <= (n, y, x) < {ends}, got {index.min(0)} to {index.max(0)}"
        )
