"""A PyTorch module as a graph of ONNX nodes; the detector's with free batch, height and width.

PyTorch runs the module once and writes down each operator. Its names say which module a node
came from: `/network/class_tower/class_tower.0_2/Conv` is the third call of the tower's part 0.

next: onnx_file/samples.py
"""

from __future__ import annotations

import itertools
import logging
import math
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tensormask_edu.base.packages import required

from .. import contract
from .graph import DetectorGraph
from .translations import our_translations

if TYPE_CHECKING:
    import onnx

Axes = Sequence[int | str]  # of a tensor: a size, or the name of a free one
# The coarsest level's grid while it is traced: no side of 1, which would stand for any
TRACED_CELLS = (4, 5)
LONGEST_RUN = 2  # cells


def capture(graph: DetectorGraph) -> onnx.ModelProto:
    """The graph as ONNX with free batch, height and width; our ops are nodes without a body."""
    geometry = graph.config.geometry
    step_px = max(geometry.strides_px[-1], geometry.padding_px)
    sides_px = [cells * step_px for cells in TRACED_CELLS]
    example = torch.rand(2, 3, *sides_px, device=next(graph.parameters()).device)
    shapes = {contract.IMAGES: images_shape(graph), **output_shapes(graph)}
    proto = traced(graph, (example,), [contract.IMAGES], graph.output_names, shapes)
    _note_bins(proto, graph)
    for value in [*proto.graph.input, *proto.graph.output]:
        dims = value.type.tensor_type.shape.dim
        del dims[:]
        for axis in shapes[value.name]:
            dims.add(**{"dim_value" if isinstance(axis, int) else "dim_param": axis})
    return proto


def traced(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    shapes: Mapping[str, Axes] | None = None,
) -> onnx.ModelProto:
    """A module as ONNX, our ops as nodes without a body.

    Args:
        inputs: for which PyTorch runs it.
        shapes: by name; axes with a name stay free, all others keep the size they have now.
    """
    onnx = required("onnx", "export")
    free = {
        name: {number: axis for number, axis in enumerate(axes) if isinstance(axis, str)}
        for name, axes in (shapes or {}).items()
    }
    with tempfile.TemporaryDirectory() as folder, quiet(), our_translations(), torch.no_grad():
        path = Path(folder, "traced.onnx")
        # The exporter on torch.export follows every symbol of every shape, in three passes: a
        # graph like ours takes it thirteen times as long
        torch.onnx.export(
            module,
            inputs,
            path,
            dynamo=False,
            opset_version=contract.OPSET,
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_axes=free,
            custom_opsets={contract.DOMAIN: contract.DOMAIN_VERSION},
        )
        proto = onnx.load(path)
    proto.ir_version = contract.IR_VERSION
    _drop_doubles(proto)
    return proto


def _note_bins(proto: onnx.ModelProto, graph: DetectorGraph) -> None:
    """Write V, U and the cells read at once onto the windows' nodes, in `strips`'s order.

    A translation does not know them: the axes of what it gets are free.
    """
    import onnx  # optional, and at hand where there is a `proto`

    geometry = graph.config.geometry
    nodes = [node for node in proto.graph.node if node.op_type == contract.SWAP_WINDOWS]
    kinds = itertools.product(geometry.lams, geometry.shapes_bins)
    for node, (lam, (bins_v, bins_u)) in zip(nodes, kinds, strict=False):
        run = run_of(lam, max(1, geometry.padding_px // geometry.strides_px[0]))
        noted = {contract.BINS_V: bins_v, contract.BINS_U: bins_u, contract.RUN: run}
        node.attribute.extend(itertools.starmap(onnx.helper.make_attribute, noted.items()))


def run_of(lam: int, columns: int) -> int:
    """How many cells a window's node reads at once: `bodies.SwapAlign2NatWindows`.

    Args:
        columns: a number that divides the grid's.
    """
    # Longer ones were no quicker, and their border is memory
    return 1 if lam % 2 else math.gcd(lam // 2, columns, LONGEST_RUN)


def _drop_doubles(proto: onnx.ModelProto) -> None:
    """Take out the second names that the exporter gives to equal weights and constants.

    Each is a node.
    """
    same = {weight.name: weight.name for weight in proto.graph.initializer}
    constants: dict[bytes, str] = {}  # value -> the first with it
    kept = []
    for node in proto.graph.node:  # producers come first, so a name of a name is found too
        node.input[:] = [same.get(name, name) for name in node.input]
        if (node.op_type, node.domain) == ("Identity", "") and node.input[0] in same:
            same[node.output[0]] = node.input[0]
        elif node.op_type == "Constant":
            value = b"".join(each.SerializeToString() for each in node.attribute)
            same[node.output[0]] = constants.setdefault(value, node.output[0])
            if same[node.output[0]] == node.output[0]:
                kept.append(node)
        else:
            kept.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(kept)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporter's remarks about its own age and about constants in the graph."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def images_shape(graph: DetectorGraph) -> Axes:
    """The input's axes."""
    padding_px = graph.config.geometry.padding_px
    sides = (f"{padding_px}*{name}" for name in (contract.ROWS, contract.COLUMNS))
    return (contract.BATCH, 3, *sides)


def output_shapes(graph: DetectorGraph) -> dict[str, Axes]:
    """Every output's axes, free ones in the words of the input's."""
    config, geometry, num = graph.config, graph.config.geometry, graph.num_detections
    canvas = [f"{cells} + {contract.CANVAS_BORDER}" for cells in grid_names(graph, 0)]
    shapes: dict[str, Axes] = {
        contract.BOXES: (contract.BATCH, num, 4),
        contract.SCORES: (contract.BATCH, num),
        contract.LABELS: (contract.BATCH, num),
        contract.WINDOWS_OUT: (contract.BATCH, num, 4),
        contract.MASKS_OUT: (contract.BATCH, num, *canvas),
        contract.COUNT: (contract.BATCH,),
        contract.CONVERGED: (contract.BATCH,),
    }
    for level in range(geometry.num_levels):
        cells = grid_names(graph, level)
        fine = grid_names(graph, 0) if geometry.bipyramid else cells  # of the mask features
        per_class, per_box = geometry.num_sizes * config.num_classes, geometry.num_sizes * 4
        shapes[contract.logits(level)] = (contract.BATCH, per_class, *cells)
        shapes[contract.deltas(level)] = (contract.BATCH, per_box, *cells)
        for size_id, coarse in enumerate(geometry.shapes_bins):
            natural = geometry.mask_bins(level, size_id)
            shapes[contract.aligned(level, size_id)] = (contract.BATCH, *coarse, *fine)
            shapes[contract.natural(level, size_id)] = (contract.BATCH, *natural, *cells)
    return {name: shapes[name] for name in graph.output_names}


def grid_names(graph: DetectorGraph, level: int) -> list[str]:
    """A level's cells along both axes, ceil(side / stride), in words of the input's axes."""
    geometry = graph.config.geometry
    stride_px, padding_px = geometry.strides_px[level], geometry.padding_px
    names = [contract.ROWS, contract.COLUMNS]
    if stride_px < padding_px:
        return [f"{padding_px // stride_px}*{name}" for name in names]
    if stride_px == padding_px:
        return names
    share = stride_px // padding_px  # padded sides are multiples of half such a stride, or less
    return [f"({name} + {share - 1})//{share}" for name in names]
