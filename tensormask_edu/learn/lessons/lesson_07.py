"""The exercises of lesson 07: an operator without loops over cells, a head, a kernel's launch.

next: learn/lessons/lesson_08.py
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ... import ops
from ..kinds import loops, module, numbers, predict
from .lesson_04 import aligned_names

PAD = -6.0


class _Counted(TorchDispatchMode):
    """Counts the operations that PyTorch runs."""

    count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.count += 1
        return function(*args, **(kwargs or {}))


def _aligned(cells: int) -> Tensor:
    values = np.random.default_rng(cells).random((1, 3, 3, cells, cells))
    return torch.from_numpy(values)


def _loops_over_cells(answer: Callable[..., Any]) -> dict[str, Any] | None:
    counts = []
    for cells in (4, 8):
        aligned = _aligned(cells)
        with _Counted() as counted:
            answer(aligned, PAD)
        counts.append(counted.count)
    small, large = counts
    return {"small": small, "large": large} if large > small else None


def _cuts_gradients(answer: Callable[..., Any]) -> dict[str, Any] | None:
    return None if answer(_aligned(4).requires_grad_(), PAD).requires_grad else {}


@loops(
    "n v u h w, pad -> n v u h w",
    by_hand=(torch.from_numpy(aligned_names(3, 5)), PAD),
    same_as=lambda aligned, pad: ops.align2nat(aligned, pad_value=pad),
    tensors=True,
    extras={"no loop over cells": _loops_over_cells, "gradients": _cuts_gradients},
)
def align2nat_fast(aligned: Tensor, pad_value: float = PAD) -> Tensor:
    """Aligned to natural, alpha = 1: one slice per bin instead of one read per number.

    aligned: (N, V, U, H, W), V and U odd -> the same shape. Section 3.
    """
    num_v, num_u, height, width = aligned.shape[1:]
    half_v, half_u = (num_v - 1) // 2, (num_u - 1) // 2
    around = (half_u, half_u, half_v, half_v)  # left, right, above, below
    padded = torch.nn.functional.pad(aligned, around, value=pad_value)
    natural = torch.empty_like(aligned)
    for i in range(num_v):
        for j in range(num_u):
            natural[:, i, j] = padded[:, i, j, i : i + height, j : j + width]
    return natural


@module([(4, 3, 3), (2, 3, 5)], [[(2, 4, 5, 6)], [(3, 2, 6, 4)]])
class AlignedHead(nn.Module):
    """Features (N, C, H, W) to natural mask logits (N, V, U, H, W).

    A 1 x 1 convolution says V * U aligned numbers at every cell; they are refiled.
    """

    def __init__(self, channels: int, num_v: int, num_u: int) -> None:
        super().__init__()
        self.bins = (num_v, num_u)
        self.predict = nn.Conv2d(channels, num_v * num_u, 1)

    def forward(self, features: Tensor) -> Tensor:
        channels = self.predict(features)  # (N, V * U, H, W)
        aligned = channels.unflatten(1, self.bins)
        return align2nat_fast(aligned, PAD)


@numbers(dict.fromkeys(("blocks", "idle", "i", "v", "u", "y", "x"), 0.01))
def launch_numbers() -> dict[str, float]:
    """The launch for an output (1, 6, 6, 4, 5) and 128 threads; thread 70 of block 3."""
    count, threads = 6 * 6 * 4 * 5, 128
    blocks = math.ceil(count / threads)
    idle = blocks * threads - count
    i = 3 * threads + 70
    x = i % 5
    y = i // 5 % 4
    u = i // (5 * 4) % 6
    v = i // (5 * 4 * 6)
    return {"blocks": blocks, "idle": idle, "i": i, "v": v, "u": u, "y": y, "x": x}


def _rows_wrong(right: Tensor, without: Tensor) -> str:
    wrong = (right != without).any(1)  # (rows,): a NaN is unequal to anything
    return "every row" if wrong.all() else "some rows" if wrong.any() else "no row"


predict("no_barrier", ("no row", "some rows", "every row"), _rows_wrong)
