"""The operator behind every mask head: a kernel where one knows the rule, tables elsewhere.

What a head's predictor says becomes natural masks by `resample` with three numbers, its `Rule`
(Fig. 6 and 7 of the paper; V' x U' are the finished bins, V x U the predicted ones):

| head | V | step | skew | edge |
|---|---|---|---|---|
| simple, natural or aligned | V' | 1 | 0 or 1 | any |
| upscaling, natural or aligned | V'/lam | 1 | 0 or 1 | pad or clamp |
| upscaling by nearest neighbour | V'/lam | 1 | 0 or 1 | nearest |
| tensor bipyramid: `swap_align2nat` | V'/lam | lam | 1 | pad |

The third row, aligned, is InstanceFCN's assembling. Our kernels know the last, and with lam = 1
the simple aligned head.

next: ops/dispatch.py
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..base.errors import require
from .swap_align2nat import check_windows, swap_align2nat, swap_align2nat_windows
from .transforms import LARGEST, Rule, check_index, check_pad, check_tensor, is_number
from .windows import out_grid

EDGES = ("pad", "clamp", "nearest")


def resample(x: Tensor, bins: Sequence[int], rule: Rule, pad_value: float = -6.0) -> Tensor:
    """What a head predicts as natural masks, for every window of the output grid.

    x: (N, V, U, H, W) any floating dtype, any strides
    bins: (V', U') of the finished masks
    out: (N, V', U', ceil(H/step), ceil(W/step)) dtype of x
    Raises InputError for a wrong shape or dtype, a rule that is none, or a pad that is not
    finite.
    """
    _check(x, bins, rule, pad_value)
    if lam := _lam_of_swap(x, bins, rule):
        return swap_align2nat(x, lam, pad_value)
    size = [*bins, *out_grid(x.shape, rule)]
    return torch.ops.tensormask_edu.resample(x, size, *rule, pad_value)


def resample_windows(
    x: Tensor, bins: Sequence[int], rule: Rule, index: Tensor, pad_value: float = -6.0
) -> Tensor:
    """The same numbers for chosen windows only.

    x, bins, rule: as for `resample`
    index: (K, 3) int64, (n, y, x) of output cells, repeats allowed: their gradients add
    out: (K, V', U') dtype of x
    Raises InputError as `resample` does, and for an index as `swap_align2nat_windows` does.
    """
    _check(x, bins, rule, pad_value)
    if lam := _lam_of_swap(x, bins, rule):
        return swap_align2nat_windows(x, lam, index, pad_value)
    check_windows(x, index)
    check_index(index, (x.shape[0], *out_grid(x.shape, rule)))
    op = torch.ops.tensormask_edu.resample_windows
    return op(x, list(bins), *rule, index, pad_value)


def _check(x: Tensor, bins: Sequence[int], rule: Rule, pad_value: float) -> None:
    check_tensor(x)
    check_pad(pad_value, x.dtype)
    fits = len(bins) == 2 and all(isinstance(n, int) and 1 <= n <= LARGEST for n in bins)
    require(fits, "bins", "two integers >= 1, V' and U'", bins)
    step, skew, edge = rule
    numbers = is_number(step) and is_number(skew)
    fits = numbers and 1 / LARGEST <= step <= LARGEST and abs(skew) <= LARGEST and edge in EDGES
    require(fits, "rule", f"step > 0, edge of {EDGES}", rule)


def _lam_of_swap(x: Tensor, bins: Sequence[int], rule: Rule) -> int:
    """The lam with which `swap_align2nat` computes this rule; 0 if it does not."""
    lam = int(rule.step)
    aligned = rule.skew == 1 and rule.step == lam
    # Where no bin lies between two others, the sub-tensor's border is never crossed.
    any_edge = lam == 1
    fits = list(bins) == [lam * side for side in x.shape[1:3]]
    return lam if aligned and fits and (any_edge or rule.edge == "pad") else 0
