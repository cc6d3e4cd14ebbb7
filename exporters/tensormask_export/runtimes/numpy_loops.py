"""ONNX Runtime with our nodes computed by the loops of `tensormask_edu.reference`.

The third way to compute a swap, besides the kernels and the function bodies in the file.

next: runtimes/openvino.py
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tensormask_edu import reference
from tensormask_edu.base.packages import required

from .. import contract
from ..shapes import Array, Named
from .onnxruntime import OnnxSession
from .session import NotComputed, Plan, Ready, Session

# Bins that the loops compute in about ten seconds; the paper's model has windows of 230 000.
MOST_LOOPED_BINS = 200_000

_registered: list[Any] = []  # the two ops: once per process, and never collected
_too_long: list[int] = []  # bins of nodes left out: an exception in an op ends the process


class LoopsSession(OnnxSession):
    """ONNX Runtime in which custom ops take the place of our nodes' function bodies."""

    kind = "numpy"

    def __init__(self, model: bytes, threads: int = 0) -> None:
        extensions = required("onnxruntime_extensions", "export")
        if not _registered:
            _registered.extend(_register(extensions.onnx_op, extensions.PyCustomOpDef))
        super().__init__(model, threads, extensions.get_library_path())
        self.title = f"NumPy reference in {self.title}"

    def all_outputs(self, images: Array) -> Named:
        """Every output by name; NotComputed where the loops would take too long."""
        _too_long.clear()
        outputs = super().all_outputs(images)
        if _too_long:
            bins = f"{max(_too_long):,} bins in one node"
            raise NotComputed(f"{bins}; the loops take up to {MOST_LOOPED_BINS:,}")
        return outputs

    def prepare(self, plan: Plan) -> Ready:
        return Session.prepare(self, plan)  # by `all_outputs`, which sees what was left out


def _register(onnx_op: Any, kinds: Any) -> tuple[Any, Any]:
    """Both ops as functions that ONNX Runtime calls."""
    attributes = {contract.LAM: kinds.dt_int64, contract.PAD_VALUE: kinds.dt_float}
    attributes |= dict.fromkeys(contract.PLUGIN_ATTRIBUTES, kinds.dt_string)

    @onnx_op(
        op_type=f"{contract.DOMAIN}::{contract.SWAP}",
        inputs=[kinds.dt_float],
        outputs=[kinds.dt_float],
        attrs=attributes,
    )
    def swap(x: Any, lam: int, pad_value: float, **_: str) -> Any:
        num, side_v, side_u, *grid = x.shape  # (N, V, U, H, W)
        shape = (num, lam * side_v, lam * side_u, *(-(-extent // lam) for extent in grid))
        if not _short(shape):
            return np.zeros(shape, x.dtype)
        return reference.swap_align2nat(x, lam, pad_value)

    @onnx_op(
        op_type=f"{contract.DOMAIN}::{contract.SWAP_WINDOWS}",
        inputs=[kinds.dt_float, kinds.dt_int64],
        outputs=[kinds.dt_float],
        attrs=attributes,
    )
    def swap_windows(x: Any, index: Any, lam: int, pad_value: float, **_: str) -> Any:
        # rows may repeat a window: kept for two classes, or the first, where a batch has fewer
        different, row = np.unique(index, axis=0, return_inverse=True)
        shape = (len(different), lam * x.shape[1], lam * x.shape[2])
        if not _short(shape):
            return np.zeros((len(index), *shape[1:]), x.dtype)
        return reference.swap_align2nat_windows(x, lam, different, pad_value)[row.ravel()]

    return swap, swap_windows


def _short(shape: tuple[int, ...]) -> bool:
    """Can the loops compute an output of this shape in a while? If not, it is noted."""
    bins = math.prod(shape)
    if bins > MOST_LOOPED_BINS:
        _too_long.append(bins)
    return bins <= MOST_LOOPED_BINS
