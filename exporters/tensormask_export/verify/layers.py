"""Where does a runtime leave PyTorch? Every layer's output on both sides, in order.

A node's name says which module it came from, and in which of its calls
(`onnx_file/capture.py`). The last node of a call makes what the module returned.

next: verify/report.py
"""

from __future__ import annotations

import copy
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..onnx_file.graph import DetectorGraph
from ..onnx_file.precision import fold_norms
from ..onnx_file.read import expose
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
    folded = copy.deepcopy(graph)
    fold_norms(folded.model.network)  # as in the file
    expected = module_outputs(folded, images)
    tensors = scoped_tensors(proto, (module for module, _ in expected))
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


def scoped_tensors(proto: onnx.ModelProto, modules: Iterable[str]) -> dict[Call, str]:
    """The tensor that each call of each of `modules` returned, as far as the nodes' names tell.

    Args:
        modules: by their names in the graph, as in `nn.Module.named_modules`.
    """
    paths = {name: _joined(name.split(".")) for name in modules}
    tensors: dict[Call, str] = {}
    for node in proto.graph.node:
        path, call = scope_of(node)
        # a part that is called from elsewhere is named without the modules around it
        found = [name for name in paths if path and paths[name][-len(path) :] == path]
        if len(found) == 1:
            tensors[found[0], call] = node.output[0]  # later nodes of a call replace earlier
    return tensors


def scope_of(node: onnx.NodeProto) -> tuple[list[str], int]:
    """The modules that a node came from, from the outermost, and which call of the innermost.

    `/network/tower/tower.0_2/Conv` -> (["network", "tower.0"], 2).
    """
    *modules, last = node.name.split("/")[1:-1] or [""]
    named = re.fullmatch(r"(.*?)(?:_(\d+))?", last)
    assert named is not None  # the pattern takes every text
    modules.append(named[1])
    # parts of a list are named after it, and stand behind it if the list itself was called
    inner = [
        module
        for module, after in zip(modules, [*modules[1:], ""], strict=True)
        if not re.fullmatch(re.escape(re.sub(r"_\d+$", "", module)) + r"\.\d+", after)
    ]
    return ([] if inner == [""] else inner), int(named[2] or 0)


def _joined(names: list[str]) -> list[str]:
    """["network", "tower", "0"] -> ["network", "tower.0"], as nodes have them."""
    joined: list[str] = []
    for name in names:
        if name.isdecimal() and joined:
            joined[-1] += f".{name}"
        else:
            joined.append(name)
    return joined


def _title(call: Call) -> str:
    module, number = call
    return module.removeprefix("model.network.") + (f", call {number + 1}" if number else "")
