"""PyTorch operators that torch.onnx.export translates our way instead of its own.

Ours become nodes of our domain, without a body yet. Group normalisation becomes our instance
normalisation, which is accurate in ONNX Runtime and fused in TensorRT. What changes shapes
becomes fewer nodes than PyTorch makes of it, and keeps free axes free: its own `unflatten`
computes where the axis is, and from there on the sizes of the example stand in the file.

next: onnx_file/capture.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.onnx import (
    register_custom_op_symbolic,
    symbolic_helper,
    unregister_custom_op_symbolic,
)
from torch.onnx.symbolic_helper import parse_args

from .. import contract

Value = Any  # a tensor of the graph that PyTorch writes: `graph.op` adds a node for it
END = torch.iinfo(torch.int64).max  # of a Slice that goes on to the last entry


@contextmanager
def our_translations() -> Iterator[None]:
    """Our translations in force; afterwards PyTorch's own again."""
    for name, translation in TRANSLATIONS.items():
        register_custom_op_symbolic(name, translation, contract.OPSET)
    try:
        yield
    finally:
        for name in TRANSLATIONS:
            unregister_custom_op_symbolic(name, contract.OPSET)


# --- our ops ----------------------------------------------------------------------------------


@parse_args("v", "i", "f")
def swap_node(graph: Any, x: Value, lam: int, pad_value: float = -6.0) -> Value:
    """`ops.swap_align2nat`: (N, V, U, H, W) -> (N, lam*V, lam*U, H', W')."""
    return _free(graph.op(_ours(contract.SWAP), x, **_attributes(lam, pad_value)), x, 5)


@parse_args("v", "i", "v", "f")
def swap_windows_node(
    graph: Any, x: Value, lam: int, index: Value, pad_value: float = -6.0
) -> Value:
    """`ops.swap_align2nat_windows`: (N, V, U, H, W), (K, 3) -> (K, lam*V, lam*U)."""
    node = graph.op(_ours(contract.SWAP_WINDOWS), x, index, **_attributes(lam, pad_value))
    return _free(node, x, 3)


@parse_args("v", "v")
def leading_node(graph: Any, x: Value, count: Value) -> Value:
    """`leading.leading`: (L,), () -> (B,)."""
    return _free(graph.op(_ours(contract.LEADING), x, count), x, 1)


def _attributes(lam: int, pad_value: float) -> dict[str, Any]:
    """A suffix tells the exporter each attribute's kind: integer, float, string."""
    plugin = {f"{key}_s": value for key, value in contract.PLUGIN_ATTRIBUTES.items()}
    return {f"{contract.LAM}_i": lam, f"{contract.PAD_VALUE}_f": pad_value, **plugin}


def _ours(name: str) -> str:
    return f"{contract.DOMAIN}::{name}"


def _free(out: Value, x: Value, rank: int) -> Value:
    """`out` with the type of x and `rank` free axes: nobody can infer them for our nodes."""
    return out.setType(x.type().with_sizes([None] * rank))


# --- PyTorch's --------------------------------------------------------------------------------


@parse_args("v", "i", "v", "v", "f", "b")
def group_norm(
    graph: Any,
    x: Value,
    groups: int,
    weight: Value,
    bias: Value,
    eps: float,
    cudnn_enabled: bool,
) -> Value:
    """Instance normalisation of whole groups, then the scale and shift of each channel.

    x: (N, C, H, W), weight, bias: (C,)
    out: (N, C, H, W)

    Half precision is left for the statistics, whose sums it cannot hold.
    """
    half = x.type().scalarType() == "Half"
    channels = weight.type().sizes()[0]
    # In a Reshape, 0 means: as in the input, and -1: what is left
    grouped = graph.op("Reshape", x, _integers(graph, [0, groups, -1, 0]))
    if half:
        grouped = graph.op("Cast", grouped, to_i=torch.onnx.TensorProtoDataType.FLOAT)
    one, zero = (_constant(graph, torch.full((groups,), value)) for value in (1.0, 0.0))
    normal = graph.op(_ours(contract.NORM), grouped, one, zero, epsilon_f=eps)
    normal = _free(normal, grouped, 4)  # (N, groups, C/groups*H, W)
    if half:
        normal = graph.op("Cast", normal, to_i=torch.onnx.TensorProtoDataType.FLOAT16)
    whole = graph.op("Reshape", normal, _integers(graph, [0, channels, -1, 0]))  # (N, C, H, W)
    # A batch of mean 0 and variance 1, as it is: one pass over the map for scale and shift
    unit = (_constant(graph, torch.full((channels,), value)) for value in (0.0, 1.0))
    return graph.op("BatchNormalization", whole, weight, bias, *unit, epsilon_f=0.0)


@parse_args("v", "i", "is")
def unflatten(graph: Any, x: Value, axis: int, sizes: Sequence[int]) -> Value:
    """`Tensor.unflatten` of an axis counted from the first."""
    return _reshape(graph, x, axis, sizes, axis)


@parse_args("v", "i", "i")
def flatten(graph: Any, x: Value, start: int, end: int) -> Value:
    """`Tensor.flatten` of axes counted from the first, or to the last."""
    return _reshape(graph, x, start, [-1], end % x.type().dim())


def pad(graph: Any, x: Value, sizes: Value, mode: Value, value: Value) -> Value:
    """`torch.nn.functional.pad` with zeros; lengths may follow the data."""
    # Another way, which the graph has not, would be translated wrongly in silence
    assert symbolic_helper._maybe_get_const(mode, "s") == "constant"
    fill = symbolic_helper._maybe_get_const(value, "f")
    assert symbolic_helper._is_none(value) or fill == 0
    given = symbolic_helper._maybe_get_const(sizes, "is")
    if not isinstance(given, list):  # some length is a value of the graph
        given = [
            symbolic_helper._maybe_get_const(size, "i")
            for size in symbolic_helper._unpack_list(sizes)
        ]
    given += [0] * (2 * x.type().dim() - len(given))
    # PyTorch names the last axis first, each before and after; ONNX all before, then all after
    ordered = [*given[-2::-2], *given[::-2]]
    parts = [
        _integers(graph, [size])
        if isinstance(size, int)
        else graph.op("Reshape", size, _integers(graph, [1]))
        for size in ordered
    ]
    return graph.op("Pad", x, graph.op("Concat", *parts, axis_i=0))


def _reshape(graph: Any, x: Value, start: int, sizes: Sequence[int], end: int) -> Value:
    """x with `sizes` in the place of its axes `start` to `end`; fewer nodes than PyTorch's."""
    shape = _integers(graph, [0] * start + list(sizes))  # 0: as in the input
    if end + 1 < x.type().dim():
        after = (_integers(graph, [place]) for place in (end + 1, END))
        tail = graph.op("Slice", graph.op("Shape", x), *after)
        shape = graph.op("Concat", shape, tail, axis_i=0)
    return graph.op("Reshape", x, shape)


def _integers(graph: Any, values: Sequence[int]) -> Value:
    return _constant(graph, torch.tensor(values))


def _constant(graph: Any, value: torch.Tensor) -> Value:
    return graph.op("Constant", value_t=value)


TRANSLATIONS: dict[str, Callable[..., Value]] = {
    "tensormask_edu::swap_align2nat": swap_node,
    "tensormask_edu::swap_align2nat_windows": swap_windows_node,
    "tensormask_edu::leading": leading_node,
    "aten::group_norm": group_norm,
    "aten::unflatten": unflatten,
    "aten::flatten": flatten,
    "aten::pad": pad,
}
