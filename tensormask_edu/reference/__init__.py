"""The definitions: NumPy loops.

Nothing here imports PyTorch or any other part of the package, so that an oracle cannot share
its bugs.
"""

from .swap_align2nat import (
    swap_align2nat,
    swap_align2nat_adjoint,
    swap_align2nat_windows,
    swap_align2nat_windows_adjoint,
)
from .transforms import (
    align2nat,
    nat2align,
    subsample,
    up_align2nat,
    up_bilinear,
    up_nearest,
)

__all__ = [
    "align2nat",
    "nat2align",
    "subsample",
    "swap_align2nat",
    "swap_align2nat_adjoint",
    "swap_align2nat_windows",
    "swap_align2nat_windows_adjoint",
    "up_align2nat",
    "up_bilinear",
    "up_nearest",
]
