"""The paper's coordinate transforms as their definitions: slow loops, exact numbers.

A mask tensor has shape (N, V, U, H, W): at every cell (y, x) of an H x W grid it holds a V x U
sub-tensor. Two units (section 3): `sigma_hw`, pixels between neighbouring cells, and
`sigma_vu`, pixels between neighbouring sub-tensor entries. v and u count from the centre of the
sub-tensor, y and x from 0.

- natural: F(v, u, y, x) is the mask value at pixel
  (sigma_hw*y + sigma_vu*v, sigma_hw*x + sigma_vu*u) in the window centred at cell (y, x).
- aligned: F^(v, u, y, x) is the mask value *at the pixel of cell (y, x)*, in the window
  centred at pixel (sigma_hw*y - sigma_vu*v, sigma_hw*x - sigma_vu*u).

Every transform treats (v, y) and (u, x) alike, so each is one formula on an axis pair: where in
the input an output entry (v, y) reads. Values between entries are 4-D linear interpolation;
outside is `pad_value`. Needs NumPy only.

twin: ops/transforms.py

next: reference/swap_align2nat.py
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
# (v, y) of the output -> (v, y) of the input, real numbers, v counted from the centre
ReadAt = Callable[[float, float], tuple[float, float]]


# --- between the representations --------------------------------------------------------------


def align2nat(
    x: Array,
    *,
    sigma_hw: float = 1,
    sigma_vu: float = 1,
    aligned_sigma_hw: float | None = None,
    aligned_sigma_vu: float | None = None,
    pad_value: float = -6.0,
) -> Array:
    """Aligned to natural representation (section 3; unequal units: appendix A.1).

    F(v, u, y, x) = F^(v^, u^, y^, x^) with v^ = (sigma_vu / aligned_sigma_vu) * v and
    y^ = (sigma_hw * y + sigma_vu * v) / aligned_sigma_hw; u^ and x^ alike.

    x: (N, V, U, H, W) aligned, any floating dtype (computed in float64).
    sigma_hw, sigma_vu: units of the natural result; aligned_*: units of x (None: the same).
    out: (N, V*r, U*r, ceil(H*s), ceil(W*s)),
        r = aligned_sigma_vu / sigma_vu, s = aligned_sigma_hw / sigma_hw.
    Raises ValueError if V*r or U*r is no integer, or a unit is not positive.
    """
    hat_hw = sigma_hw if aligned_sigma_hw is None else aligned_sigma_hw  # the paper's hats
    hat_vu = sigma_vu if aligned_sigma_vu is None else aligned_sigma_vu

    def read_at(v: float, y: float) -> tuple[float, float]:
        return sigma_vu / hat_vu * v, (sigma_hw * y + sigma_vu * v) / hat_hw

    size = _scaled_size(x, (hat_vu, sigma_vu), (hat_hw, sigma_hw))  # (V*r, U*r, H*s, W*s)
    return _resample(x, size, read_at, "pad", pad_value)


def nat2align(
    x: Array,
    *,
    sigma_hw: float = 1,
    sigma_vu: float = 1,
    aligned_sigma_hw: float | None = None,
    aligned_sigma_vu: float | None = None,
    pad_value: float = -6.0,
) -> Array:
    """Natural to aligned representation, by the inverse map of coordinates (the same sections).

    F^(v^, u^, y^, x^) = F(v, u, y, x) with v = (aligned_sigma_vu / sigma_vu) * v^ and
    y = (aligned_sigma_hw * y^ - aligned_sigma_vu * v^) / sigma_hw; u and x alike.

    x: (N, V, U, H, W) natural, any floating dtype (computed in float64).
    sigma_hw, sigma_vu: units of x; aligned_*: units of the aligned result (None: the same).
    out: (N, V/r, U/r, ceil(H/s), ceil(W/s)),
        r = aligned_sigma_vu / sigma_vu, s = aligned_sigma_hw / sigma_hw.
    Raises ValueError if V/r or U/r is no integer, or a unit is not positive.
    """
    hat_hw = sigma_hw if aligned_sigma_hw is None else aligned_sigma_hw  # the paper's hats
    hat_vu = sigma_vu if aligned_sigma_vu is None else aligned_sigma_vu

    def read_at(v_hat: float, y_hat: float) -> tuple[float, float]:
        return hat_vu / sigma_vu * v_hat, (hat_hw * y_hat - hat_vu * v_hat) / sigma_hw

    size = _scaled_size(x, (sigma_vu, hat_vu), (sigma_hw, hat_hw))  # (V/r, U/r, H/s, W/s)
    return _resample(x, size, read_at, "pad", pad_value)


# --- finer bins, fewer cells ------------------------------------------------------------------


def up_bilinear(x: Array, lam: float, edge: str = "pad", pad_value: float = -6.0) -> Array:
    """Bilinear upscaling of every sub-tensor by lam, half-pixel centres (section 3).

    x: (N, V, U, H, W) -> out: (N, lam*V, lam*U, H, W).
    lam: real, >= 1, and such that lam*V and lam*U are integers.
    edge: beyond the sub-tensor's border lies `pad_value` ("pad") or the border entry repeated
    ("clamp"). Raises ValueError for any other lam or edge.
    """

    def read_at(v: float, y: float) -> tuple[float, float]:
        return v / lam, y  # counted from the centre, half-pixel centres are a plain division

    size = (*_upscaled_size(x, lam), *x.shape[3:])  # (lam*V, lam*U, H, W)
    return _resample(x, size, read_at, edge, pad_value)


def up_nearest(x: Array, lam: float) -> Array:
    """Nearest-neighbour upscaling of every sub-tensor by lam, half-pixel centres (section 3).

    x: (N, V, U, H, W) -> out: (N, lam*V, lam*U, H, W),
        out[v, u] = x[floor((v + 1/2)/lam), floor((u + 1/2)/lam)].
    Raises ValueError unless lam >= 1 and lam*V, lam*U are integers.
    """
    fine_v, fine_u = _upscaled_size(x, lam)
    out = np.empty((x.shape[0], fine_v, fine_u, *x.shape[3:]), x.dtype)
    for v, u in np.ndindex(fine_v, fine_u):
        # In integers (lam = fine_v / V), so that no rounding moves a tie.
        v_in = (2 * v + 1) * x.shape[1] // (2 * fine_v)
        u_in = (2 * u + 1) * x.shape[2] // (2 * fine_u)
        out[:, v, u] = x[:, v_in, u_in]  # (N, H, W)
    return out


def up_align2nat(x: Array, lam: float, edge: str = "pad", pad_value: float = -6.0) -> Array:
    """`align2nat` after `up_bilinear`: coarse aligned bins to fine natural ones (section 3).

    x: (N, V, U, H, W), sigma_vu = lam * sigma_hw
    out: (N, lam*V, lam*U, H, W), sigma_vu = sigma_hw.
    Arguments and errors: see `up_bilinear`.
    """
    return align2nat(up_bilinear(x, lam, edge, pad_value), pad_value=pad_value)


def subsample(x: Array, lam: int) -> Array:
    """Keep every lam-th cell in y and x, starting at 0 (section 3).

    x: (N, V, U, H, W) -> out: (N, V, U, ceil(H/lam), ceil(W/lam)).
    Raises ValueError unless lam is an integer >= 1.
    """
    check_tensor(x)
    check_integer_lam(lam)
    return x[:, :, :, ::lam, ::lam]


# --- what they share: reading between the entries ---------------------------------------------


def _resample(
    x: Array, size: tuple[int, ...], read_at: ReadAt, edge: str, pad_value: float
) -> Array:
    """out[v, u, y, x] = the input at (read_at(v, y), read_at(u, x)), v and u from the centre.

    x: (N, V, U, H, W), size: (V', U', H', W') -> (N, V', U', H', W')
    """
    if edge not in ("pad", "clamp"):
        raise ValueError(f"edge: expected 'pad' or 'clamp', got {edge!r}")
    values = x.astype(np.float64)
    out = np.empty((len(values), *size))  # (N, V', U', H', W')
    for v, u, row, column in np.ndindex(*size):
        # An array counts from its first entry, the formulas from the centre: there and back.
        v_in, y_in = read_at(v - (size[0] - 1) / 2, row)
        u_in, x_in = read_at(u - (size[1] - 1) / 2, column)
        v_in += (x.shape[1] - 1) / 2
        u_in += (x.shape[2] - 1) / 2
        if edge == "clamp":
            v_in, u_in = np.clip(v_in, 0, x.shape[1] - 1), np.clip(u_in, 0, x.shape[2] - 1)
        out[:, v, u, row, column] = _interpolate(values, (v_in, u_in, y_in, x_in), pad_value)
    return out.astype(x.dtype)


def _interpolate(values: Array, point: tuple[float, ...], pad_value: float) -> Array | float:
    """values (N, V, U, H, W) at a point (v, u, y, x), 4-D linear, pad_value outside: (N,)."""
    total: Array | float = 0.0
    for corner in itertools.product(*(_taps(coordinate) for coordinate in point)):  # up to 16
        v, u, y, x = (tap for tap, _ in corner)
        inside = all(
            0 <= tap < extent for (tap, _), extent in zip(corner, values.shape[1:], strict=True)
        )
        value = values[:, v, u, y, x] if inside else pad_value  # (N,)
        total = total + math.prod(weight for _, weight in corner) * value
    return total


def _taps(coordinate: float) -> list[tuple[int, float]]:
    """The neighbours of a real index with their linear weights; one if it is an integer."""
    lower = math.floor(coordinate)
    fraction = coordinate - lower
    # One tap alone: 0 times an infinite neighbour would be no number.
    return [(lower, 1 - fraction), (lower + 1, fraction)] if fraction else [(lower, 1.0)]


def _scaled_size(
    x: Array, vu: tuple[float, float], hw: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Output extents: V and U times vu[0] / vu[1], H and W times hw[0] / hw[1]."""
    check_tensor(x)
    if not all(unit > 0 for unit in (*vu, *hw)):
        raise ValueError(f"sigma: expected positive units, got sigma_vu {vu} and sigma_hw {hw}")
    fine_v, fine_u = (
        _integer(extent * vu[0] / vu[1], "the sigma_vu ratio") for extent in x.shape[1:3]
    )
    # A ratio like 0.3 / 0.1 must not round up to one cell more.
    rows, columns = (math.ceil(round(extent * hw[0] / hw[1], 9)) for extent in x.shape[3:])
    return fine_v, fine_u, rows, columns


def _upscaled_size(x: Array, lam: float) -> tuple[int, int]:
    """(lam*V, lam*U), which must be integers."""
    check_tensor(x)
    if isinstance(lam, bool) or not lam >= 1:  # so that no-number is refused too
        raise ValueError(f"lam: expected a number >= 1, got {lam!r}")
    return _integer(lam * x.shape[1], "lam"), _integer(lam * x.shape[2], "lam")


# --- what is refused --------------------------------------------------------------------------


def check_tensor(x: Array) -> None:
    """Raises ValueError unless x is a floating (N, V, U, H, W) array with V, U >= 1."""
    if x.ndim != 5 or 0 in x.shape[1:3]:
        raise ValueError(f"x: expected shape (N, V, U, H, W) with V, U >= 1, got {x.shape}")
    if not np.issubdtype(x.dtype, np.floating):
        raise ValueError(f"x: expected a floating dtype, got {x.dtype}")


def check_integer_lam(lam: int) -> None:
    """Raises ValueError unless lam is an integer >= 1."""
    # True is an int to Python, and NumPy's integers are none
    if isinstance(lam, bool) or not isinstance(lam, int | np.integer) or lam < 1:
        raise ValueError(f"lam: expected an integer >= 1, got {lam!r}")


def _integer(extent: float, cause: str) -> int:
    """`extent` as a whole number of bins, rounding errors forgiven."""
    if extent < 0.5 or abs(extent - round(extent)) > 1e-9:
        raise ValueError(
            f"{cause}: expected one that gives an integer sub-tensor side, got side {extent}"
        )
    return round(extent)
