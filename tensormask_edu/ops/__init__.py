"""The paper's operators in PyTorch: the names of the reference, fast and differentiable."""

from .dispatch import KERNEL_DTYPES, ORDER, missing, status, use
from .swap_align2nat import swap_align2nat, swap_align2nat_windows
from .transforms import (
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
    "align2nat",
    "missing",
    "nat2align",
    "status",
    "subsample",
    "swap_align2nat",
    "swap_align2nat_windows",
    "up_align2nat",
    "up_bilinear",
    "up_nearest",
    "use",
]
