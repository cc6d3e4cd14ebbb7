"""The same names, fast: PyTorch, and our kernels.

Every operator takes tensors of any device and dtype, is differentiable, and is compared with
the one of its name in `tensormask_edu.reference`.
"""

from .dispatch import KERNEL_DTYPES, ORDER, missing, status, use
from .resample import resample, resample_windows
from .swap_align2nat import swap_align2nat, swap_align2nat_windows
from .transforms import (
    Rule,
    align2nat,
    nat2align,
    subsample,
    up_align2nat,
    up_bilinear,
    up_nearest,
)

__all__ = [
    "KERNEL_DTYPES",
    "ORDER",
    "Rule",
    "align2nat",
    "missing",
    "nat2align",
    "resample",
    "resample_windows",
    "status",
    "subsample",
    "swap_align2nat",
    "swap_align2nat_windows",
    "up_align2nat",
    "up_bilinear",
    "up_nearest",
    "use",
]
