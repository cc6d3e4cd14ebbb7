"""Where does a runtime leave PyTorch? Every layer's output on both sides, in order.

The exporter notes on each node the module that it came from. A module may be called once per
level; its nth call is the nth group of nodes with its name. The last node of the group makes
what the module returned.

next: verify.py
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..onnx_file.graph import DetectorGraph
from ..onnx_file.read import expose
from ..onnx_file.write import NODE_SCOPE
from ..runtimes.find import find_runtimes
from .compare import Difference, Limits, difference

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]
KINDS = ("onnxruntime", "numpy", "parsed")  # of runtimes that show inner tensors
Call = tuple[str, int]  # a module's name, and which of its calls


def layers(
    proto: onnx.ModelProto,
    graph: DetectorGraph,
    images: Tensor,
    limits: Limits,
    kind: str = "onnxruntime",
) -> list[Difference]:
    """The difference of each layer that can be told on both sides, in the order of computation.

    Args:
        kind: of the runtime, one of `KINDS`.
    """
    expected = module_outputs(graph, images)
    tensors = scoped_tensors(proto)
    unclear = {
        module for module, _ in tensors.keys() ^ expected.keys()
    }  # several operations in one call
    tensors = {call: tensor for call, tensor in tensors.items() if call[0] not in unclear}
    (runtime,), _ = find_runtimes(expose(proto, tensors.values()), [kind])
    found, where = runtime.run(images), (runtime.name, "first input")
    return [
        difference(where, _title(call), found[tensors[call]], values, limits.raw.value)
        for call, values in expected.items()
        if call in tensors and found[tensors[call]].shape == values.shape
    ]


@torch.no_grad()
def module_outputs(graph: DetectorGraph, images: Tensor) -> dict[Call, Array]:
    """What every module without parts returned, call by call."""
    outputs: dict[Call, Array] = {}
    counts: dict[str, int] = defaultdict(int)

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            outputs[name, counts[name]] = (
                output.clone().numpy()
            )  # a ReLU may write into it later
            counts[name] += 1

        return hook

    parts = {
        name: module for name, module in graph.named_modules() if not list(module.children())
    }
    hooks = [module.register_forward_hook(note(name)) for name, module in parts.items()]
    try:
        graph(images)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs


def scoped_tensors(proto: onnx.ModelProto) -> dict[Call, str]:
    """The tensor that each call of each module returned, as far as the nodes' notes tell."""
    calls: dict[str, dict[str, str]] = defaultdict(
        dict
    )  # module -> operation -> its last tensor
    for node in proto.graph.node:
        scopes = [
            ast.literal_eval(note.value)
            for note in node.metadata_props
            if note.key == NODE_SCOPE
        ]
        if scopes and len(scopes[0]) >= 2:
            calls[scopes[0][-2]][scopes[0][-1]] = node.output[0]
    return {
        (module, number): tensor
        for module, operations in calls.items()
        for number, tensor in enumerate(operations.values())
    }


def _title(call: Call) -> str:
    module, number = call
    return module.removeprefix("model.network.") + (f", call {number + 1}" if number else "")
