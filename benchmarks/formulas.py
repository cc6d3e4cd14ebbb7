"""PyTorch formulas of the dense op that kernels are measured against, and the plainest kernel.

The third formula, two passes of row gathers, is what the package itself falls back to:
`ops/formula.py`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def strided_views(x: Tensor, lam: int, pad_value: float) -> Tensor:
    """The op as four weighted views of a padded copy.

    (N, V, U, H, W) -> (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam)).
    With v = lam*p + phase - lead, lead = (lam+1)//2, bin v reads entries p-1 and p with weights
    that depend on the phase only, at row lam*(y+p) + phase - lam*V//2 - lead: each tap is one
    view with fixed strides.
    """
    num, num_v, num_u, height, width = x.shape
    lead = (lam + 1) // 2
    z = _padded(x - pad_value, lam, lead)
    for axis, bins in ((3, num_v), (4, num_u)):
        if lam * bins % 2 == 0:
            last = z.shape[axis] - 1
            z = (z.narrow(axis, 0, last) + z.narrow(axis, 1, last)) / 2
    z = z.contiguous()
    _, sv, su, sy, sx = z.stride()
    size = (num, num_v + 1, lam, num_u + 1, lam, -(-height // lam), -(-width // lam))
    strides = (z.stride(0), sv + lam * sy, sy, su + lam * sx, sx, lam * sy, lam * sx)
    upper = (2 * torch.arange(lam, dtype=z.dtype, device=z.device) + 1 - lam % 2) / (2 * lam)
    weights = (1 - upper, upper)
    out = z.new_zeros(size)
    for i in (0, 1):
        for j in (0, 1):
            weight = weights[i].view(-1, 1, 1, 1, 1) * weights[j].view(-1, 1, 1)
            out.addcmul_(z.as_strided(size, strides, i * sv + j * su), weight)
    out = out.view(num, lam * (num_v + 1), lam * (num_u + 1), *size[5:])
    return out[:, lead : lead + lam * num_v, lead : lead + lam * num_u].contiguous() + pad_value


def _padded(z: Tensor, lam: int, lead: int) -> Tensor:
    """Zeros around all four axes, wide enough for every row and column that a view touches."""
    _, num_v, num_u, height, width = z.shape
    before = [lam * bins // 2 + lead for bins in (num_v, num_u)]
    axes = ((num_v, height), (num_u, width))
    needed = [lam * (-(-cells // lam) + bins) + 1 for bins, cells in axes]
    after = [needed[0] - before[0] - height, needed[1] - before[1] - width]
    return F.pad(z, (before[1], max(after[1], 0), before[0], max(after[0], 0), 1, 1, 1, 1))
