"""Where does a runtime leave PyTorch? Every layer's output on both sides, in order.

The exporter notes on each node the module that it came from. A module may be called once per
level; its nth call is the nth group of nodes with its name. The last node of the group makes
what the module returned.

next: verify/report.py
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..onnx_file.graph import DetectorGraph
from ..onnx_file.read import expose
from ..onnx_file.write import NODE_SCOPE
from ..runtimes.find import find_sessions
from ..shapes import Array
from .compare import Difference, Limits, difference

if TYPE_CHECKING:
    import onnx

KINDS = ("onnxruntime", "numpy", "parsed")  # of runtimes that show inner tensors
Call = tuple[str, int]  # a module's name, and which of its calls


def compare_layers(
    proto: onnx.ModelProto,
    graph: DetectorGraph,
    images: Array,
    limits: Limits,
    kind: str = "onnxruntime",
) -> list[Difference]:
    """The difference of each layer that can be told on both sides, in the order of computation.

    Args:
        kind: of the runtime, one of `KINDS`.
    """
    layers, title = both_sides(proto, graph, images, kind)
    where = (title, "first input")
    return [
        difference(where, name, found, expected, limits.raw.value)
        for name, (expected, found) in layers.items()
    ]


def both_sides(
    proto: onnx.ModelProto, graph: DetectorGraph, images: Array, kind: str = "onnxruntime"
) -> tuple[dict[str, tuple[Array, Array]], str]:
    """What every layer gives in PyTorch and in a runtime, in the order of computation.

    Args:
        kind: of the runtime, one of `KINDS`.

    Returns:
        layer -> PyTorch's output and the runtime's, of one shape; the runtime's title
    """
    expected = module_outputs(graph, images)
    tensors = scoped_tensors(proto)
    # a module with a call on one side only made several operations of one call
    unclear = {module for module, _ in tensors.keys() ^ expected.keys()}
    tensors = {call: tensor for call, tensor in tensors.items() if call[0] not in unclear}
    opened, threads = expose(proto, tensors.values()), torch.get_num_threads()
    (session,), _ = find_sessions(opened, [kind], threads=threads)
    found = session.all_outputs(images)
    layers = {
        _title(call): (values, found[tensors[call]])
        for call, values in expected.items()
        if call in tensors and found[tensors[call]].shape == values.shape
    }
    return layers, session.title


@torch.no_grad()
def module_outputs(graph: DetectorGraph, images: Array) -> dict[Call, Array]:
    """What every module without parts returned, call by call."""
    outputs: dict[Call, Array] = {}
    counts: dict[str, int] = defaultdict(int)

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            # a copy, for a ReLU may write into it later
            outputs[name, counts[name]] = output.clone().numpy()
            counts[name] += 1

        return hook

    parts = {
        name: module for name, module in graph.named_modules() if not list(module.children())
    }
    hooks = [module.register_forward_hook(note(name)) for name, module in parts.items()]
    try:
        graph(torch.from_numpy(images))
    finally:
        for hook in hooks:
            hook.remove()
    return outputs


def scoped_tensors(proto: onnx.ModelProto) -> dict[Call, str]:
    """The tensor that each call of each module returned, as far as the nodes' notes tell."""
    # module -> operation -> its last tensor
    calls: dict[str, dict[str, str]] = defaultdict(dict)
    for node in proto.graph.node:
        scope = scope_of(node)
        if len(scope) >= 2:
            module, operation = scope[-2:]
            calls[module][operation] = node.output[0]
    return {
        (module, number): tensor
        for module, operations in calls.items()
        for number, tensor in enumerate(operations.values())
    }


def scope_of(node: onnx.NodeProto) -> list[str]:
    """The modules that a node came from, from the outermost, then the operation; or []."""
    notes = [note.value for note in node.metadata_props if note.key == NODE_SCOPE]
    return list(ast.literal_eval(notes[0])) if notes else []


def _title(call: Call) -> str:
    module, number = call
    return module.removeprefix("model.network.") + (f", call {number + 1}" if number else "")
