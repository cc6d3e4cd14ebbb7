"""PyTorch operators that torch.onnx.export translates our way instead of its own.

Ours become bare nodes: the exporter inlines script functions, and only an op known by its
schema alone stays a node. Group normalisation becomes our instance normalisation, which is
accurate in ONNX Runtime and fused in TensorRT. The exporter reads the annotations of these
functions, so they must be complete.

next: onnx_file/samples.py
"""

# mypy: ignore-errors
# (onnxscript's annotations name ONNX types; the values are traced)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import torch
from onnxscript import FLOAT, INT64, ir, values
from onnxscript import opset18 as op  # of the exporter's own translations; it converts later

from .. import contract
from .bodies import DOMAIN

FLOAT32, FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def table() -> dict[Any, Callable[..., Any]]:
    """For `torch.onnx.export(custom_translation_table=...)`."""
    ours = torch.ops.tensormask_edu
    return {
        ours.swap_align2nat.default: swap_node,
        ours.swap_align2nat_windows.default: swap_windows_node,
        torch.ops.aten.group_norm.default: group_norm,
    }


# --- our ops ----------------------------------------------------------------------------------


def _bare_op(name: str, inputs: dict[str, str], attributes: dict[str, Any]) -> values.Op:
    """An op of our domain that is known by its schema alone: so it stays a node."""
    schema = onnx.defs.OpSchema
    definition = schema(
        name,
        contract.DOMAIN,
        contract.DOMAIN_VERSION,
        inputs=[schema.FormalParameter(key, kind) for key, kind in inputs.items()],
        outputs=[schema.FormalParameter("out", "T")],
        type_constraints=[("T", ["tensor(float)", "tensor(float16)"], "of x and out")],
        attributes=[
            schema.Attribute(key, kind, required=True) for key, kind in attributes.items()
        ],
    )
    return values.Op(DOMAIN, name, definition)


_KINDS = onnx.defs.OpSchema.AttrType
_SWAP_KINDS = {contract.LAM: _KINDS.INT, contract.PAD_VALUE: _KINDS.FLOAT}
_SWAP_KINDS |= dict.fromkeys(contract.PLUGIN_ATTRIBUTES, _KINDS.STRING)
_WINDOWS_INPUTS = {"x": "T", "index": "tensor(int64)"}
_NORM_INPUTS = {"x": "T", "scale": "T", "bias": "T"}
_SWAP = _bare_op(contract.SWAP, {"x": "T"}, _SWAP_KINDS)
_SWAP_WINDOWS = _bare_op(contract.SWAP_WINDOWS, _WINDOWS_INPUTS, _SWAP_KINDS)
_NORM = _bare_op(contract.NORM, _NORM_INPUTS, {"epsilon": _KINDS.FLOAT})


def _attributes(lam: int, pad_value: float) -> dict[str, Any]:
    return {contract.LAM: lam, contract.PAD_VALUE: pad_value, **contract.PLUGIN_ATTRIBUTES}


def swap_node(x: FLOAT, lam: int, pad_value: float = -6.0) -> FLOAT:
    """Translation of `ops.swap_align2nat`; the exporter reads these annotations."""
    return _SWAP(x, **_attributes(lam, pad_value))


def swap_windows_node(x: FLOAT, lam: int, index: INT64, pad_value: float = -6.0) -> FLOAT:
    """Translation of `ops.swap_align2nat_windows`."""
    return _SWAP_WINDOWS(x, index, **_attributes(lam, pad_value))


# --- group normalisation ----------------------------------------------------------------------


def group_norm(
    x: FLOAT,
    groups: int,
    weight: FLOAT,
    bias: FLOAT,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> FLOAT:
    """Instance normalisation of whole groups, then the scale and shift of each channel.

    x: (N, C, H, W), weight, bias: (C,)
    out: (N, C, H, W)

    Half precision is left for the statistics, whose sums it cannot hold.
    """
    half = x.dtype == ir.DataType.FLOAT16
    # In a Reshape, 0 means: as in the input, and -1: what is left
    to_groups = op.Constant(value_ints=[0, groups, -1, 0])
    to_channels = op.Constant(value_ints=[0, x.shape[1], -1, 0])
    per_channel = op.Constant(value_ints=[-1, 1, 1])
    one = op.Constant(value_floats=[1.0] * groups)
    zero = op.Constant(value_floats=[0.0] * groups)
    grouped = op.Reshape(x, to_groups)  # (N, groups, C/groups*H, W)
    normal = _NORM(op.Cast(grouped, to=FLOAT32) if half else grouped, one, zero, epsilon=eps)
    normal = op.Cast(normal, to=FLOAT16) if half else normal
    scaled = op.Mul(op.Reshape(normal, to_channels), op.Reshape(weight, per_channel))
    return op.Add(scaled, op.Reshape(bias, per_channel))  # (N, C, H, W)
