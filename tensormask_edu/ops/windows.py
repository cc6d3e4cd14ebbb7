"""`resample` at chosen windows: the numbers of a few output cells, without all the others.

    x:     (N, V, U, H, W)                any floating dtype, any device
    index: (K, 3) int64, the cells (n, y, x) of K windows on the output's grid
    out:   (K, V', U')                    its dtype

Training and inference ask for the windows that are positive or kept, some hundred of many
thousand. Each reads rows of the same tables as the whole; no Python loop over windows. The
functions trust their arguments: public ops, in `swap_align2nat.py` and `resample.py`, check
them once.

next: ops/swap_align2nat.py
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .transforms import (
    Rule,
    Table,
    accumulation_dtype,
    cached_table,
    register,
    resample_adjoint_kernel,
    resample_kernel,
)


def forward(
    x: Tensor, bins: Sequence[int], rule: Rule, index: Tensor, pad_value: float
) -> Tensor:
    """The windows at the cells `index` alone: (N, V, U, H, W) -> (K, *bins)."""
    n, y, x_cell = index.unbind(1)  # (K,) each
    dtype, x = x.dtype, multipliable(x)
    if _dense_is_cheaper(x, x.shape, bins, rule, len(index)):
        dense = resample_kernel(x, [*bins, *out_grid(x.shape, rule)], *rule, pad_value)
        return dense[n, :, :, y, x_cell].to(dtype)
    vy, ux = _tables(x, x.shape, bins, rule, index)
    # Weight outside in (v, y), or inside there and outside in (u, x): (K, V', U')
    outside_vy, outside_ux = vy.outside[:, :, None], ux.outside[:, None, :]
    out = (outside_vy + (1 - outside_vy) * outside_ux).mul_(pad_value)
    flat, place = x.reshape(-1), torch.empty_like(out, dtype=torch.int64)  # (N V U H W,)
    read, part = torch.empty_like(out, dtype=x.dtype), torch.empty_like(out)
    for vy_place, vy_weight, ux_place, ux_weight in _tap_pairs(vy, ux):
        torch.add(vy_place, ux_place, out=place)
        torch.index_select(flat, 0, place.view(-1), out=read.view(-1))
        out.addcmul_(torch.mul(read, vy_weight, out=part), ux_weight)
    return out.to(dtype)


def backward(grad: Tensor, rule: Rule, index: Tensor, size: Sequence[int]) -> Tensor:
    """The transposed map for windows: each adds its gradient to the entries that it read.

    size: (N, V, U, H, W) of the input.
    """
    bins = grad.shape[1:]
    if _dense_is_cheaper(grad, size, bins, rule, len(index)):
        sums = accumulation_dtype(grad.dtype)
        dense = grad.new_zeros((size[0], *bins, *out_grid(size, rule)), dtype=sums)
        n, y, x = index.unbind(1)
        by_cell = dense.permute(0, 3, 4, 1, 2)  # (N, H', W', V', U')
        by_cell.index_put_((n, y, x), grad.to(sums), accumulate=True)
        return resample_adjoint_kernel(dense, list(size[1:]), *rule).to(grad.dtype)
    vy, ux = _tables(grad, size, bins, rule, index)
    grad_x = grad.new_zeros(math.prod(size), dtype=vy.weight.dtype)
    dtype, grad = grad.dtype, multipliable(grad).contiguous()
    # One buffer each for all taps: fresh memory costs more time than the arithmetic.
    place = torch.empty_like(grad, dtype=torch.int64)
    part = torch.empty_like(grad, dtype=grad_x.dtype)
    for vy_place, vy_weight, ux_place, ux_weight in _tap_pairs(vy, ux):
        torch.add(vy_place, ux_place, out=place)
        torch.mul(grad, vy_weight, out=part).mul_(ux_weight)
        _add_at(grad_x, place.view(-1), part.view(-1))
    return grad_x.view(size).to(dtype)


def multipliable(x: Tensor) -> Tensor:
    """The same numbers in a type that PyTorch multiplies: those of 8 bits it only stores."""
    return x.float() if x.dtype.itemsize == 1 else x


def out_grid(size: Sequence[int], rule: Rule) -> list[int]:
    """(N, V, U, H, W) of the input -> the output's cells [H', W'], one every `step`."""
    height, width = size[3:]
    if rule.step == 1:  # also where H and W are symbols, while a graph is traced
        return [height, width]
    return [math.ceil(height / rule.step), math.ceil(width / rule.step)]


# --- tables by window -------------------------------------------------------------------------


def _tables(
    like: Tensor, size: Sequence[int], bins: Sequence[int], rule: Rule, index: Tensor
) -> tuple[Table, Table]:
    """The tables of (v, y) and (u, x) for every window, by place in the flat input.

    Returns:
        place and weight (T, K, V') and (T, K, U') per tap; outside (K, V') and (K, U').
    """
    _, num_v, num_u, height, width = size
    rows, columns = out_grid(size, rule)
    kind = (rule, accumulation_dtype(like.dtype), like.device)
    n, y, x = index.unbind(1)
    # A step along v passes U*H*W entries of the flat input, along y W; along u H*W, along x 1.
    strides_vy, strides_ux = (num_u * height * width, width), (height * width, 1)
    vy = _rows_of(_by_cell((num_v, height), (bins[0], rows), strides_vy, *kind), y)
    ux = _rows_of(_by_cell((num_u, width), (bins[1], columns), strides_ux, *kind), x)
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
    """A table `_by_cell` at the cells (K,) asked for: (T, K, V') twice, and (K, V')."""
    return Table(
        table.place.index_select(1, cell),
        table.weight.index_select(1, cell),
        table.outside.index_select(0, cell),
    )


def _add_at(flat: Tensor, place: Tensor, value: Tensor) -> None:
    """flat[place] += value, in an order that never changes."""
    if flat.device.type == "cpu":
        flat.scatter_add_(0, place, value)
    else:
        # This sorts; scatter_add_ would use atomics.
        flat.index_put_((place,), value, accumulate=True)


@lru_cache(maxsize=256)
def _by_cell(
    extents: tuple[int, int],
    size: tuple[int, int],
    strides: tuple[int, int],
    rule: Rule,
    dtype: torch.dtype,
    device: torch.device,
) -> Table:
    """The pair table by cell: place and weight (T, H', V'), outside (H', V').

    extents, size: (V, H) of the input and of the output; strides: flat entries of x from one v
    to the next, and from one y to the next. `place` counts them.
    """
    table = cached_table(extents, size, rule, False, dtype, device)
    # From v * H + y, as the pair table counts, to entries of x.
    place = table.place // extents[1] * strides[0] + table.place % extents[1] * strides[1]
    return Table(
        *(
            part.unflatten(-1, size).mT.contiguous()
            for part in (place, table.weight, table.outside)
        )
    )


def _dense_is_cheaper(
    like: Tensor, size: Sequence[int], bins: Sequence[int], rule: Rule, num_windows: int
) -> bool:
    """Whether all windows take less time than these, each by itself."""
    num, num_v, num_u, height, width = size
    rows, columns = out_grid(size, rule)
    if not num_windows or not num * rows * columns:
        return False
    kind = (rule, False, accumulation_dtype(like.dtype), like.device)
    taps = len(cached_table((num_v, height), (bins[0], rows), *kind).place)
    taps *= len(cached_table((num_u, width), (bins[1], columns), *kind).place)
    # Measured: a window with 16 taps, read at scattered places, costs about two of the dense.
    return num_windows * taps > 8 * num * rows * columns


# --- the op and its adjoint, registered with PyTorch ------------------------------------------


def _forward(
    x: Tensor,
    bins: Sequence[int],
    step: float,
    skew: float,
    edge: str,
    index: Tensor,
    pad_value: float,
) -> Tensor:
    return forward(x, bins, Rule(step, skew, edge), index, pad_value)


def _backward(
    grad: Tensor, size: Sequence[int], step: float, skew: float, edge: str, index: Tensor
) -> Tensor:
    return backward(grad, Rule(step, skew, edge), index, size)


def _fake(
    x: Tensor, bins: Sequence[int], step: float, skew: float, edge: str, index: Tensor, *_: Any
) -> Tensor:
    return x.new_empty((index.shape[0], *bins))


def _fake_adjoint(grad: Tensor, size: Sequence[int], *_: Any) -> Tensor:
    return grad.new_empty(size)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.bins, *ctx.rule, index, _ = inputs
    ctx.size = x.shape  # the map is linear: what x holds is not needed
    ctx.save_for_backward(index)


def _save_adjoint(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, _, *ctx.rule, index = inputs
    ctx.bins = grad.shape[1:]
    ctx.save_for_backward(index)


def _derivative(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (index,) = ctx.saved_tensors
    grad_x = torch.ops.tensormask_edu.resample_windows_adjoint(grad, ctx.size, *ctx.rule, index)
    return grad_x, None, None, None, None, None, None


def _adjoint_derivative(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (index,) = ctx.saved_tensors
    grad_y = torch.ops.tensormask_edu.resample_windows(grad, ctx.bins, *ctx.rule, index, 0.0)
    return grad_y, None, None, None, None, None


register(
    "resample_windows(Tensor x, SymInt[] bins, float step, float skew, str edge, Tensor index,"
    " float pad_value) -> Tensor",
    _forward,
    _fake,
    _save,
    _derivative,
)
register(
    "resample_windows_adjoint(Tensor grad, SymInt[] size, float step, float skew, str edge,"
    " Tensor index) -> Tensor",
    _backward,
    _fake_adjoint,
    _save_adjoint,
    _adjoint_derivative,
)
