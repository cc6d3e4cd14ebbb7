"""The formula of `swap_align2nat` in PyTorch operations: runs where no kernel of ours does.

    x:     (N, V, U, H, W)                              any floating dtype, any device
    out:   (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam))  its dtype
    index: (K, 3) int64, the cells (n, y, x) of K windows;  windows op: out (K, lam*V, lam*U)

Y = pad + L(X - pad), where L, the op with zeros for its pad, is linear. L is computed by the
tables of `transforms.py`, one axis pair after the other: no Python loop over windows, nothing
lam times larger than the output. The functions trust their arguments: the public op, in
`swap_align2nat.py`, checks them once. `cpu.py` and `cuda.py` have the same four functions.

next: ops/build.py
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from .transforms import Table, accumulation_dtype, apply_tables, cached_table


def forward(x: Tensor, lam: int, pad_value: float) -> Tensor:
    """(N, V, U, H, W) -> (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam))."""
    size = out_size(x.shape[1:], lam)
    if x.numel() == 0:
        return x.new_full((len(x), *size), pad_value)
    # Tables are float32 or float64: 16-bit values are summed in float32 and rounded once.
    vy, ux = _tables(x, x.shape[1:], lam, transpose=False)
    return apply_tables(x.to(vy.weight.dtype), vy, ux, size, pad_value).to(x.dtype)


def backward(grad: Tensor, lam: int, height: int, width: int) -> Tensor:
    """L transposed, gradient of the output -> (N, V, U, height, width): gathers the readers."""
    size = [grad.shape[1] // lam, grad.shape[2] // lam, height, width]
    if grad.numel() == 0:
        return grad.new_zeros((len(grad), *size))
    vy, ux = _tables(grad, size, lam, transpose=True)
    return apply_tables(grad.to(vy.weight.dtype), vy, ux, size, 0.0).to(grad.dtype)


def forward_windows(x: Tensor, lam: int, index: Tensor, pad_value: float) -> Tensor:
    """The windows at the cells `index` alone, (K, lam*V, lam*U): rows of the same tables."""
    n, y, x_cell = index.unbind(1)  # (K,) each
    if _dense_is_cheaper(len(index), x.shape, lam):
        return forward(x, lam, pad_value)[n, :, :, y, x_cell]
    vy, ux = _window_tables(x, x.shape, lam, index)
    # Weight outside in (v, y), or inside there and outside in (u, x): (K, lam*V, lam*U)
    outside_vy, outside_ux = vy.outside[:, :, None], ux.outside[:, None, :]
    out = (outside_vy + (1 - outside_vy) * outside_ux).mul_(pad_value)
    flat, place = x.reshape(-1), torch.empty_like(out, dtype=torch.int64)  # (N V U H W,)
    read, part = torch.empty_like(out, dtype=x.dtype), torch.empty_like(out)
    for vy_place, vy_weight, ux_place, ux_weight in _tap_pairs(vy, ux):
        torch.add(vy_place, ux_place, out=place)
        torch.index_select(flat, 0, place.view(-1), out=read.view(-1))
        out.addcmul_(torch.mul(read, vy_weight, out=part), ux_weight)
    return out.to(x.dtype)


def backward_windows(grad: Tensor, lam: int, index: Tensor, size: Sequence[int]) -> Tensor:
    """L transposed for windows: each adds its gradient to the entries that it read.

    size: (N, V, U, H, W) of the input.
    """
    if _dense_is_cheaper(len(index), size, lam):
        sums = accumulation_dtype(grad.dtype)
        dense = grad.new_zeros((size[0], *out_size(size[1:], lam)), dtype=sums)
        n, y, x = index.unbind(1)
        by_cell = dense.permute(0, 3, 4, 1, 2)  # (N, H', W', V', U')
        by_cell.index_put_((n, y, x), grad.to(sums), accumulate=True)
        return backward(dense, lam, size[3], size[4]).to(grad.dtype)
    vy, ux = _window_tables(grad, size, lam, index)
    grad_x = grad.new_zeros(math.prod(size), dtype=vy.weight.dtype)
    grad = grad.contiguous()
    # One buffer each for all taps: fresh memory costs more time than the arithmetic.
    place = torch.empty_like(grad, dtype=torch.int64)
    part = torch.empty_like(grad, dtype=grad_x.dtype)
    for vy_place, vy_weight, ux_place, ux_weight in _tap_pairs(vy, ux):
        torch.add(vy_place, ux_place, out=place)
        torch.mul(grad, vy_weight, out=part).mul_(ux_weight)
        _add_at(grad_x, place.view(-1), part.view(-1))
    return grad_x.view(size).to(grad.dtype)


def out_size(size: Sequence[int], lam: int) -> list[int]:
    """(V, U, H, W) -> (lam*V, lam*U, ceil(H/lam), ceil(W/lam))."""
    num_v, num_u, height, width = size
    return [lam * num_v, lam * num_u, -(-height // lam), -(-width // lam)]


def _tables(
    like: Tensor, size: Sequence[int], lam: int, transpose: bool
) -> tuple[Table, Table]:
    """The tables of the axis pairs (v, y) and (u, x); size: (V, U, H, W) of the input."""
    num_v, num_u, height, width = size
    out_v, out_u, out_y, out_x = out_size(size, lam)
    rule = (float(lam), 1.0, "pad")  # y = lam * y' + 1 * v'
    kind = (rule, transpose, accumulation_dtype(like.dtype), like.device)
    return (
        cached_table((num_v, height), (out_v, out_y), *kind),
        cached_table((num_u, width), (out_u, out_x), *kind),
    )


def _window_tables(
    like: Tensor, size: Sequence[int], lam: int, index: Tensor
) -> tuple[Table, Table]:
    """The tables of (v, y) and (u, x) for every window, by place in the flat input.

    Returns:
        place and weight (T, K, V') and (T, K, U') per tap; outside (K, V') and (K, U').
    """
    _, num_v, num_u, height, width = size
    kind = (lam, accumulation_dtype(like.dtype), like.device)
    n, y, x = index.unbind(1)
    vy = _rows_of(_window_table((num_v, height), (num_u * height * width, width), *kind), y)
    ux = _rows_of(_window_table((num_u, width), (height * width, 1), *kind), x)
    # The place of (v, y) counts from image n's first entry.
    image = n * (num_v * num_u * height * width)
    return Table(vy.place + image[:, None], vy.weight, vy.outside), ux


def _tap_pairs(vy: Table, ux: Table) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Every tap of (v, y) with every tap of (u, x).

    Yields:
        place and weight of the first, (K, V', 1), and of the second, (K, 1, U').
    """
    for vy_place, vy_weight in zip(vy.place, vy.weight, strict=True):
        for ux_place, ux_weight in zip(ux.place, ux.weight, strict=True):
            yield (
                vy_place[:, :, None],
                vy_weight[:, :, None],
                ux_place[:, None, :],
                ux_weight[:, None, :],
            )


def _rows_of(table: Table, cell: Tensor) -> Table:
    """A `_window_table` at the cells (K,) asked for: (T, K, V') twice, and (K, V')."""
    return Table(
        table.place.index_select(1, cell),
        table.weight.index_select(1, cell),
        table.outside.index_select(0, cell),
    )


@lru_cache(maxsize=256)
def _window_table(
    extents: tuple[int, int],
    strides: tuple[int, int],
    lam: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Table:
    """The pair table by cell: place and weight (T, H', V'), outside (H', V').

    extents: (V, H) of the input; strides: flat entries of x from one v to the next, and from
    one y to the next. `place` counts them.
    """
    size = (lam * extents[0], -(-extents[1] // lam))
    table = cached_table(extents, size, (float(lam), 1.0, "pad"), False, dtype, device)
    # From v * H + y, as the pair table counts, to entries of x.
    place = table.place // extents[1] * strides[0] + table.place % extents[1] * strides[1]
    return Table(
        *(
            part.unflatten(-1, size).mT.contiguous()
            for part in (place, table.weight, table.outside)
        )
    )


def _dense_is_cheaper(num_windows: int, size: Sequence[int], lam: int) -> bool:
    """Whether all windows take less time than these, each by itself."""
    # Measured: a window with 16 taps, read at scattered places, costs about two of the dense.
    num, num_v, num_u, height, width = size
    # lam = 1 has one tap along v and one along u; an odd number of fine bins one along y or x.
    taps = (2 if lam > 1 else 1) ** 2 * (2 - lam * num_v % 2) * (2 - lam * num_u % 2)
    return num_windows * taps > 8 * num * -(-height // lam) * -(-width // lam)


def _add_at(flat: Tensor, place: Tensor, value: Tensor) -> None:
    """flat[place] += value, in an order that never changes."""
    if flat.device.type == "cpu":
        flat.scatter_add_(0, place, value)
    else:
        # This sorts; scatter_add_ would use atomics.
        flat.index_put_((place,), value, accumulate=True)
