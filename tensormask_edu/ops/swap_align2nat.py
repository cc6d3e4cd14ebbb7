"""`swap_align2nat` in PyTorch, O(V*U*H*W) for any lam: the op of the tensor bipyramid (paper section 4.2).

    swap_align2nat = subsample(lam) after align2nat after up_bilinear(lam)

It takes an aligned tensor with coarse bins on a fine grid (sigma_vu = lam * sigma_hw) to a natural tensor
with fine bins on a coarse grid (sigma_hw = lam * sigma_vu), without the lam*lam times larger tensor between.
Output entry (v, u, y, x) is the 4-D linear interpolation of the input at

    (v + 1/2)/lam - 1/2,   (u + 1/2)/lam - 1/2,   lam*y + v - (lam*V - 1)/2,   lam*x + u - (lam*U - 1)/2

with `pad_value` outside: Y = pad + L(X - pad) with L linear. So the backward pass is L transposed, which
needs neither X nor the pad, and the derivative of that is the op itself with pad 0.

twin: reference/swap_align2nat.py   next: ../network.py
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from ..errors import bad_input
from .transforms import (
    Table,
    accumulation_dtype,
    apply_tables,
    cached_table,
    check_integer_lam,
    check_pad,
    check_tensor,
    register,
)

# --- the public ops: check once, then call ------------------------------------------------------------


def swap_align2nat(x: Tensor, lam: int, pad_value: float = -6.0) -> Tensor:
    """Aligned coarse bins to natural fine bins, for every window of the output grid.

    x: (N, V, U, H, W) any floating dtype, any strides
    out: (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam)) dtype of x, contiguous
    Raises InputError for a wrong shape or dtype, lam no integer >= 1, or a pad that is not finite.
    """
    _check(x, lam, pad_value)
    return torch.ops.tensormask_edu.swap_align2nat(x, lam, pad_value)


def swap_align2nat_windows(x: Tensor, lam: int, index: Tensor, pad_value: float = -6.0) -> Tensor:
    """The same numbers for chosen windows only.

    x: (N, V, U, H, W) any floating dtype, any strides
    index: (K, 3) int64, (n, y, x) of output cells, repeats allowed: their gradients add
    out: (K, lam*V, lam*U) dtype of x, contiguous
    Raises InputError for a wrong shape, dtype or device, lam no integer >= 1, a pad that is not finite, or an
    index outside the output grid (for CUDA tensors an asynchronous device assertion, which costs no wait).
    """
    _check(x, lam, pad_value)
    if not isinstance(index, Tensor) or index.dim() != 2 or index.shape[1] != 3:
        got = tuple(index.shape) if isinstance(index, Tensor) else type(index).__name__
        raise bad_input("index", "a tensor (K, 3) of output cells (n, y, x)", got)
    if index.dtype != torch.int64:
        raise bad_input("index", "dtype torch.int64", index.dtype, "convert it, index.long()")
    if index.device != x.device:
        raise bad_input(
            "index", f"a tensor on x's device, {x.device}", index.device, "move it, index.to(x.device)"
        )
    return torch.ops.tensormask_edu.swap_align2nat_windows(x, lam, index, pad_value)


def _check(x: Tensor, lam: int, pad_value: float) -> None:
    check_tensor(x)
    check_integer_lam(lam)
    check_pad(pad_value)


def _check_range(index: Tensor, bounds: tuple[int, int, int]) -> None:
    """Every (n, y, x) lies in the output grid. Values exist only when the op runs, so it is checked there."""
    if index.device.type == "cpu":
        ends = index.amax(0).tolist() if len(index) else [-1] * 3
        if any(end >= bound for end, bound in zip(ends, bounds, strict=True)) or (
            len(index) and index.min() < 0
        ):
            got = f"{index.amin(0).tolist()} to {ends}"
            raise bad_input("index", f"0 <= (n, y, x) < {bounds}, the output grid", got)
    else:
        inside = (index >= 0) & (index < torch.tensor(bounds).to(index.device, non_blocking=True))
        torch._assert_async(inside.all(), f"index: expected 0 <= (n, y, x) < {bounds}, the output grid")


# --- the formula --------------------------------------------------------------------------------------


def dense_formula(x: Tensor, lam: int, pad_value: float) -> Tensor:
    """Y = pad + L(X - pad), one axis pair after the other."""
    size = _out_size(x.shape[1:], lam)
    if x.numel() == 0:
        return x.new_full((len(x), *size), pad_value)
    vy, ux = _tables(x, x.shape[1:], lam, transpose=False)
    return apply_tables(x.to(vy.weight.dtype), vy, ux, size, pad_value).to(x.dtype)


def dense_adjoint_formula(grad: Tensor, lam: int, height: int, width: int) -> Tensor:
    """L transposed: what each input entry gave to the outputs, gathered."""
    size = [grad.shape[1] // lam, grad.shape[2] // lam, height, width]
    if grad.numel() == 0:
        return grad.new_zeros((len(grad), *size))
    vy, ux = _tables(grad, size, lam, transpose=True)
    return apply_tables(grad.to(vy.weight.dtype), vy, ux, size, 0.0).to(grad.dtype)


def windows_formula(x: Tensor, lam: int, index: Tensor, pad_value: float) -> Tensor:
    """The rows of the same tables that belong to the windows asked for."""
    n, y, x_cell = index.unbind(1)
    if _dense_is_cheaper(len(index), x.shape, lam):
        return dense_formula(x, lam, pad_value)[n, :, :, y, x_cell]
    vy, ux = _window_tables(x, x.shape, lam, index)
    flat = x.reshape(-1).to(vy.weight.dtype)
    # Outside in (v, y), or in (u, x), or in both.
    outside = (
        vy.outside[:, :, None] + ux.outside[:, None, :] - vy.outside[:, :, None] * ux.outside[:, None, :]
    )
    out = outside.mul_(pad_value)
    value, place = torch.empty_like(out), torch.empty_like(out, dtype=torch.int64)
    for vy_index, vy_weight in zip(vy.index, vy.weight, strict=True):
        for ux_index, ux_weight in zip(ux.index, ux.weight, strict=True):
            torch.add(vy_index[:, :, None], ux_index[:, None, :], out=place)
            torch.index_select(flat, 0, place.view(-1), out=value.view(-1))
            out.addcmul_(value.mul_(vy_weight[:, :, None]), ux_weight[:, None, :])
    return out.to(x.dtype)


def windows_adjoint_formula(grad: Tensor, lam: int, index: Tensor, size: list[int]) -> Tensor:
    """L transposed for windows: each sends its gradient to the entries it read; repeats add."""
    if _dense_is_cheaper(len(index), size, lam):
        dense = grad.new_zeros((size[0], *_out_size(size[1:], lam)), dtype=accumulation_dtype(grad.dtype))
        n, y, x = index.unbind(1)
        dense.permute(0, 3, 4, 1, 2).index_put_((n, y, x), grad.to(dense.dtype), accumulate=True)
        return dense_adjoint_formula(dense, lam, size[3], size[4]).to(grad.dtype)
    vy, ux = _window_tables(grad, size, lam, index)
    grad_x = grad.new_zeros(math.prod(size), dtype=vy.weight.dtype)
    place, value = torch.empty_like(grad, dtype=torch.int64), torch.empty_like(grad, dtype=grad_x.dtype)
    for vy_index, vy_weight in zip(vy.index, vy.weight, strict=True):
        for ux_index, ux_weight in zip(ux.index, ux.weight, strict=True):
            torch.add(vy_index[:, :, None], ux_index[:, None, :], out=place)
            torch.mul(grad, vy_weight[:, :, None], out=value)
            _add_at(grad_x, place.view(-1), value.mul_(ux_weight[:, None, :]).view(-1))
    return grad_x.view(size).to(grad.dtype)


def _out_size(size: list[int] | torch.Size, lam: int) -> list[int]:
    """(V, U, H, W) -> (lam*V, lam*U, ceil(H/lam), ceil(W/lam))."""
    num_v, num_u, height, width = size
    return [lam * num_v, lam * num_u, -(-height // lam), -(-width // lam)]


def _tables(like: Tensor, size: list[int] | torch.Size, lam: int, transpose: bool) -> tuple[Table, Table]:
    """The tables of the axis pairs (v, y) and (u, x), for an input of extents size = (V, U, H, W)."""
    num_v, num_u, height, width = size
    out_v, out_u, out_y, out_x = _out_size(size, lam)
    rule = (float(lam), 1.0, "pad")
    kind = (rule, transpose, accumulation_dtype(like.dtype), like.device)
    return (
        cached_table((num_v, height), (out_v, out_y), *kind),
        cached_table((num_u, width), (out_u, out_x), *kind),
    )


def _window_tables(
    like: Tensor, size: list[int] | torch.Size, lam: int, index: Tensor
) -> tuple[Table, Table]:
    """Per tap and window: place in the flat input and weight, (T, K, V') and (T, K, U'); outside (K, .)."""
    _, num_v, num_u, height, width = size
    kind = (lam, accumulation_dtype(like.dtype), like.device)
    n, y, x = index.unbind(1)
    vy = _rows_of(_window_table((num_v, height), (num_u * height * width, width), *kind), y)
    ux = _rows_of(_window_table((num_u, width), (height * width, 1), *kind), x)
    image = n * (num_v * num_u * height * width)
    return Table(vy.index + image[:, None], vy.weight, vy.outside), ux


def _rows_of(table: Table, cell: Tensor) -> Table:
    return Table(
        table.index.index_select(1, cell),
        table.weight.index_select(1, cell),
        table.outside.index_select(0, cell),
    )


@lru_cache(maxsize=256)
def _window_table(
    extents: tuple[int, int], strides: tuple[int, int], lam: int, dtype: torch.dtype, device: torch.device
) -> Table:
    """The pair table by cell: index and weight (T, H', V'), outside (H', V'); index counts flat entries of x.

    extents: (V, H) of the input; strides: flat entries from one v to the next, from one y to the next.
    """
    size = (lam * extents[0], -(-extents[1] // lam))
    table = cached_table(extents, size, (float(lam), 1.0, "pad"), False, dtype, device)
    place = table.index // extents[1] * strides[0] + table.index % extents[1] * strides[1]
    return Table(*(part.unflatten(-1, size).mT.contiguous() for part in (place, table.weight, table.outside)))


def _dense_is_cheaper(num_windows: int, size: list[int] | torch.Size, lam: int) -> bool:
    """Measured: a window with 16 taps, read at scattered places, costs about two of the dense form."""
    num, num_v, num_u, height, width = size
    taps = (2 if lam > 1 else 1) ** 2 * (2 - lam * num_v % 2) * (2 - lam * num_u % 2)
    return num_windows * taps > 8 * num * -(-height // lam) * -(-width // lam)


def _add_at(flat: Tensor, place: Tensor, value: Tensor) -> None:
    """flat[place] += value, in an order that never changes."""
    if flat.device.type == "cpu":
        flat.scatter_add_(0, place, value)
    else:
        flat.index_put_((place,), value, accumulate=True)  # sorts; scatter_add_ would use atomics


# --- registration: schema, kernel, shape rule, derivative ---------------------------------------------


def _dense_kernel(x: Tensor, lam: int, pad_value: float) -> Tensor:
    return dense_formula(x, lam, pad_value)


def _dense_adjoint_kernel(grad: Tensor, lam: int, height: int, width: int) -> Tensor:
    return dense_adjoint_formula(grad, lam, height, width)


def _windows_kernel(x: Tensor, lam: int, index: Tensor, pad_value: float) -> Tensor:
    out_v, out_u, out_y, out_x = _out_size(x.shape[1:], lam)
    _check_range(index, (len(x), out_y, out_x))
    if len(index) == 0:
        return x.new_empty((0, out_v, out_u))
    return windows_formula(x, lam, index, pad_value)


def _windows_adjoint_kernel(grad: Tensor, lam: int, index: Tensor, size: list[int]) -> Tensor:
    if len(index) == 0:
        return grad.new_zeros(size)
    return windows_adjoint_formula(grad, lam, index, size)


def _dense_fake(x: Tensor, lam: int, pad_value: float) -> Tensor:
    return x.new_empty((x.shape[0], *_out_size(x.shape[1:], lam)))


def _dense_adjoint_fake(grad: Tensor, lam: int, height: int, width: int) -> Tensor:
    return grad.new_empty((grad.shape[0], grad.shape[1] // lam, grad.shape[2] // lam, height, width))


def _windows_fake(x: Tensor, lam: int, index: Tensor, pad_value: float) -> Tensor:
    return x.new_empty((index.shape[0], lam * x.shape[1], lam * x.shape[2]))


def _windows_adjoint_fake(grad: Tensor, lam: int, index: Tensor, size: list[int]) -> Tensor:
    return grad.new_empty(size)


def _save_dense(ctx, inputs, output) -> None:
    x, ctx.lam, _ = inputs
    ctx.height, ctx.width = x.shape[3:]


def _dense_backward(ctx, grad):
    return torch.ops.tensormask_edu.swap_align2nat_adjoint(grad, ctx.lam, ctx.height, ctx.width), None, None


def _save_dense_adjoint(ctx, inputs, output) -> None:
    ctx.lam = inputs[1]


def _dense_adjoint_backward(ctx, grad):
    return torch.ops.tensormask_edu.swap_align2nat(grad, ctx.lam, 0.0), None, None, None


def _save_windows(ctx, inputs, output) -> None:
    x, ctx.lam, index, _ = inputs
    ctx.size = x.shape
    ctx.save_for_backward(index)


def _windows_backward(ctx, grad):
    (index,) = ctx.saved_tensors
    grad_x = torch.ops.tensormask_edu.swap_align2nat_windows_adjoint(grad, ctx.lam, index, ctx.size)
    return grad_x, None, None, None


def _save_windows_adjoint(ctx, inputs, output) -> None:
    _, ctx.lam, index, _ = inputs
    ctx.save_for_backward(index)


def _windows_adjoint_backward(ctx, grad):
    (index,) = ctx.saved_tensors
    grad_y = torch.ops.tensormask_edu.swap_align2nat_windows(grad, ctx.lam, index, 0.0)
    return grad_y, None, None, None


register(
    "swap_align2nat(Tensor x, int lam, float pad_value) -> Tensor",
    _dense_kernel,
    _dense_fake,
    _save_dense,
    _dense_backward,
)
register(
    "swap_align2nat_adjoint(Tensor grad, int lam, SymInt height, SymInt width) -> Tensor",
    _dense_adjoint_kernel,
    _dense_adjoint_fake,
    _save_dense_adjoint,
    _dense_adjoint_backward,
)
register(
    "swap_align2nat_windows(Tensor x, int lam, Tensor index, float pad_value) -> Tensor",
    _windows_kernel,
    _windows_fake,
    _save_windows,
    _windows_backward,
)
register(
    "swap_align2nat_windows_adjoint(Tensor grad, int lam, Tensor index, SymInt[] size) -> Tensor",
    _windows_adjoint_kernel,
    _windows_adjoint_fake,
    _save_windows_adjoint,
    _windows_adjoint_backward,
)
