"""`swap_align2nat`, the op of the tensor bipyramid, in PyTorch (section 3).

    swap_align2nat = subsample(lam) after align2nat after up_bilinear(lam)

It takes an aligned tensor with coarse bins on a fine grid (sigma_vu = lam * sigma_hw) to a
natural tensor with fine bins on a coarse grid (sigma_hw = lam * sigma_vu), in O(V*U*H*W) for
any lam: without the lam*lam times larger tensor between. Output entry (v, u, y, x) is the 4-D
linear interpolation of the input at

    (v + 1/2)/lam - 1/2,         (u + 1/2)/lam - 1/2,
    lam*y + v - (lam*V - 1)/2,   lam*x + u - (lam*U - 1)/2

with `pad_value` outside: Y = pad + L(X - pad) with L linear. So the backward pass is L
transposed, which needs neither X nor the pad, and the derivative of that is the op itself with
pad 0.

twin: reference/swap_align2nat.py

next: ops/resample.py
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..base.errors import bad_input
from . import cpu
from .dispatch import implementation
from .formula import out_size
from .transforms import (
    check_countable,
    check_index,
    check_integer_lam,
    check_pad,
    check_tensor,
    register,
)

_OPS = torch.ops.tensormask_edu

# --- the public ops: check once, then call ----------------------------------------------------


def swap_align2nat(x: Tensor, lam: int, pad_value: float = -6.0) -> Tensor:
    """Aligned coarse bins to natural fine bins, for every window of the output grid.

    x: (N, V, U, H, W) any floating dtype, any strides
    out: (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam)) dtype of x, contiguous
    Raises InputError for a wrong shape or dtype, lam no integer >= 1, or a pad that is not
    finite.
    """
    _check(x, lam, pad_value)
    return _OPS.swap_align2nat(x, lam, pad_value)


def swap_align2nat_windows(
    x: Tensor, lam: int, index: Tensor, pad_value: float = -6.0
) -> Tensor:
    """The same numbers for chosen windows only.

    x: (N, V, U, H, W) any floating dtype, any strides
    index: (K, 3) int64, (n, y, x) of output cells, repeats allowed: their gradients add
    out: (K, lam*V, lam*U) dtype of x, contiguous
    Raises InputError for a wrong shape, dtype or device, lam no integer >= 1, a pad that is not
    finite, or an index outside the output grid (for CUDA tensors an asynchronous device
    assertion, which costs no wait).
    """
    _check(x, lam, pad_value)
    check_windows(x, index)
    return _OPS.swap_align2nat_windows(x, lam, index, pad_value)


def check_windows(x: Tensor, index: Tensor) -> None:
    """InputError unless index is an int64 tensor (K, 3) on x's device, whatever it holds."""
    if not isinstance(index, Tensor) or index.dim() != 2 or index.shape[1] != 3:
        got = tuple(index.shape) if isinstance(index, Tensor) else type(index).__name__
        raise bad_input("index", "a tensor (K, 3) of output cells (n, y, x)", got)
    if index.dtype != torch.int64:
        raise bad_input("index", "dtype torch.int64", index.dtype, "convert it, index.long()")
    if index.device != x.device:
        fix = "move it, index.to(x.device)"
        raise bad_input("index", f"a tensor on x's device, {x.device}", index.device, fix)


def _check(x: Tensor, lam: int, pad_value: float) -> None:
    check_tensor(x)
    check_integer_lam(lam)
    check_pad(pad_value, x.dtype)


# --- registration: schema, kernel, shape rule, derivative -------------------------------------
# Per op: the kernel asks which implementation runs; `_fake...` gives the output's shape to
# whoever traces a graph; `_save...` keeps what `..._derivative` needs.


def _forward(x: Tensor, lam: int, pad_value: float) -> Tensor:
    check_countable((x.shape[0], *out_size(x.shape[1:], lam)))
    return implementation(x).forward(x, lam, pad_value)


def _backward(grad: Tensor, lam: int, height: int, width: int) -> Tensor:
    return implementation(grad).backward(grad, lam, height, width)


def _forward_windows(x: Tensor, lam: int, index: Tensor, pad_value: float) -> Tensor:
    check_countable((index.shape[0], lam * x.shape[1], lam * x.shape[2]))
    chosen = implementation(x)
    if chosen is not cpu:  # the CPU kernels look at every index themselves
        check_index(index, (x.shape[0], *out_size(x.shape[1:], lam)[2:]))
    return chosen.forward_windows(x, lam, index, pad_value)


def _backward_windows(grad: Tensor, lam: int, index: Tensor, size: Sequence[int]) -> Tensor:
    return implementation(grad).backward_windows(grad, lam, index, size)


def _fake(x: Tensor, lam: int, pad_value: float) -> Tensor:
    # (N, V, U, H, W) -> (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam))
    return x.new_empty((x.shape[0], *out_size(x.shape[1:], lam)))


def _fake_adjoint(grad: Tensor, lam: int, height: int, width: int) -> Tensor:
    # H and W are arguments: ceil(H/lam) does not tell H.
    return grad.new_empty(
        (grad.shape[0], grad.shape[1] // lam, grad.shape[2] // lam, height, width)
    )


def _fake_windows(x: Tensor, lam: int, index: Tensor, pad_value: float) -> Tensor:
    return x.new_empty((index.shape[0], lam * x.shape[1], lam * x.shape[2]))


def _fake_windows_adjoint(grad: Tensor, lam: int, index: Tensor, size: Sequence[int]) -> Tensor:
    return grad.new_empty(size)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.lam, _ = inputs  # L does not depend on x: its shape is enough
    ctx.height, ctx.width = x.shape[3:]


def _save_adjoint(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.lam = inputs[1]


def _save_windows(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.lam, index, _ = inputs
    ctx.size = x.shape
    ctx.save_for_backward(index)


def _save_windows_adjoint(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, ctx.lam, index, _ = inputs
    ctx.save_for_backward(index)


def _derivative(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    # L transposed; lam and pad_value get no gradient.
    return _OPS.swap_align2nat_adjoint(grad, ctx.lam, ctx.height, ctx.width), None, None


def _adjoint_derivative(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    # L transposed twice is L: the op with pad 0, for second derivatives.
    return _OPS.swap_align2nat(grad, ctx.lam, 0.0), None, None, None


def _windows_derivative(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (index,) = ctx.saved_tensors
    return _OPS.swap_align2nat_windows_adjoint(grad, ctx.lam, index, ctx.size), None, None, None


def _windows_adjoint_derivative(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (index,) = ctx.saved_tensors
    # Which windows there are is no number: no gradient for the index.
    return _OPS.swap_align2nat_windows(grad, ctx.lam, index, 0.0), None, None, None


register(
    "swap_align2nat(Tensor x, int lam, float pad_value) -> Tensor",
    _forward,
    _fake,
    _save,
    _derivative,
)
register(
    "swap_align2nat_adjoint(Tensor grad, int lam, SymInt height, SymInt width) -> Tensor",
    _backward,
    _fake_adjoint,
    _save_adjoint,
    _adjoint_derivative,
)
register(
    "swap_align2nat_windows(Tensor x, int lam, Tensor index, float pad_value) -> Tensor",
    _forward_windows,
    _fake_windows,
    _save_windows,
    _windows_derivative,
)
register(
    "swap_align2nat_windows_adjoint(Tensor grad, int lam, Tensor index, SymInt[] size)"
    " -> Tensor",
    _backward_windows,
    _fake_windows_adjoint,
    _save_windows_adjoint,
    _windows_adjoint_derivative,
)
