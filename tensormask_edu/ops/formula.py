"""The formula of `swap_align2nat` in PyTorch operations: runs where no kernel of ours does.

    x:     (N, V, U, H, W)                              any floating dtype, any device
    out:   (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam))  its dtype
    index: (K, 3) int64, the cells (n, y, x) of K windows;  windows op: out (K, lam*V, lam*U)

Y = pad + L(X - pad), where L, the op with zeros for its pad, is linear. It is `resample` with
step lam and skew 1, so the tables of `transforms.py` compute it, one axis pair after the other:
nothing lam times larger than the output. The functions trust their arguments: the public op, in
`swap_align2nat.py`, checks them once. `cpu.py` and `cuda.py` have the same four functions.

next: ops/build.py
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from . import windows
from .transforms import Rule, resample_adjoint_kernel, resample_kernel


def forward(x: Tensor, lam: int, pad_value: float) -> Tensor:
    """(N, V, U, H, W) -> (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam))."""
    return resample_kernel(x, out_size(x.shape[1:], lam), *rule(lam), pad_value)


def backward(grad: Tensor, lam: int, height: int, width: int) -> Tensor:
    """L transposed, gradient of the output -> (N, V, U, height, width): gathers the readers."""
    size = [grad.shape[1] // lam, grad.shape[2] // lam, height, width]
    return resample_adjoint_kernel(grad, size, *rule(lam))


def forward_windows(x: Tensor, lam: int, index: Tensor, pad_value: float) -> Tensor:
    """The windows at the cells `index` alone: (K, lam*V, lam*U)."""
    return windows.forward(x, out_size(x.shape[1:], lam)[:2], rule(lam), index, pad_value)


def backward_windows(grad: Tensor, lam: int, index: Tensor, size: Sequence[int]) -> Tensor:
    """L transposed for windows: (K, lam*V, lam*U) -> `size`, (N, V, U, H, W) of the input."""
    return windows.backward(grad, rule(lam), index, size)


def rule(lam: int) -> Rule:
    """The numbers of `resample`: y = lam * y' + 1 * v', with the pad beyond the border."""
    return Rule(float(lam), 1.0, "pad")


def out_size(size: Sequence[int], lam: int) -> list[int]:
    """(V, U, H, W) -> (lam*V, lam*U, ceil(H/lam), ceil(W/lam))."""
    num_v, num_u, height, width = size
    return [lam * num_v, lam * num_u, -(-height // lam), -(-width // lam)]
