"""A trained model as one ONNX file that every runtime takes.

Three steps: torch.onnx.export with our ops left as bare nodes; the ops' bodies and the metadata
put into the file; the ONNX checker. The file appears whole or not at all.

next: detections.py
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save
from torch import Tensor

from tensormask_edu import __version__
from tensormask_edu.base.errors import bad_input
from tensormask_edu.base.files import file_sha256, written_whole
from tensormask_edu.base.packages import required
from tensormask_edu.config import InputConfig, to_json
from tensormask_edu.detector.model import TensorMask

from .. import contract
from .graph import DetectorGraph, MaskMode, padding_colour
from .precision import PRECISIONS, Precision, in_precision

if TYPE_CHECKING:
    import onnx

NODE_SCOPE = "pkg.torch.onnx.name_scopes"
TRACED_CELLS = (
    4,
    5,
)  # of the coarsest level; the traced sizes differ, so that no axis is mistaken for another


@dataclass(frozen=True)
class OnnxReport:
    """What was exported. detector: see `contract.DETECTOR`; nodes: our custom nodes by name;
    notes: what differs from the checkpoint; seconds: of the whole export."""

    path: str
    bytes: int
    sha256: str
    weights_sha256: str
    detector: dict[str, Any]
    opset: int
    nodes: dict[str, int]
    outputs: list[str]
    notes: list[str]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def export_onnx(
    model: TensorMask,
    path: str | Path,
    *,
    masks: MaskMode = "windows",
    candidates: int | None = None,
    precision: Precision = "float32",
    raw: bool = False,
    input_config: InputConfig | None = None,
) -> OnnxReport:
    """Write `model` to `path` as ONNX: input `images`, outputs by the names of `contract`.

    Args:
        masks, candidates: see `graph.DetectorGraph`.
        precision: of weights and activations, see `precision.py`; inputs and outputs stay
            float32.
        raw: keep the network's logits and deltas among the outputs.
        input_config: how a picture file becomes the model's input; stored for the file's users.

    Raises:
        InputError: a missing package, a wrong argument, a place that cannot be written.
    """
    required("onnxscript", "export")
    start = time.perf_counter()
    if precision not in PRECISIONS:
        raise bad_input("precision", " or ".join(PRECISIONS), repr(precision))
    graph = DetectorGraph(model, masks, candidates).eval()
    with written_whole(path) as temporary:
        temporary.touch()  # a folder that cannot be written shows at once
        proto = capture(DetectorGraph(in_precision(model, precision), masks, candidates).eval())
        add_bodies(proto)
        add_metadata(proto, graph, input_config or InputConfig(), precision)
        if not raw:
            hide_raw_outputs(proto)
        save_checked(proto, temporary)
    return _report(proto, Path(path), graph, precision, time.perf_counter() - start)


def capture(graph: DetectorGraph) -> onnx.ModelProto:
    """The graph as ONNX with free batch, height and width; our ops are bare nodes without a
    body yet."""
    from .translations import table

    geometry = graph.model.config.geometry
    stride_px, padding_px = geometry.strides_px[-1], geometry.padding_px
    sides_px = [cells * max(stride_px, padding_px) for cells in TRACED_CELLS]
    example = torch.rand(2, 3, *sides_px, device=next(graph.parameters()).device)
    names = (contract.BATCH, contract.ROWS, contract.COLUMNS)
    batch, rows, columns = (torch.export.Dim(name) for name in names)
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph,
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=contract.OPSET,
            input_names=[contract.IMAGES],
            output_names=graph.output_names,
            dynamic_shapes=({0: batch, 2: padding_px * rows, 3: padding_px * columns},),
            custom_translation_table=table(),
        )
    assert program is not None
    proto = program.model_proto
    _name_free_dimensions(proto)
    _drop_notes(proto)
    return proto


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporter's own remarks about its internals; its errors still come."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _name_free_dimensions(proto: onnx.ModelProto) -> None:
    """Rename the exporter's symbols (s18) to rows and columns, as the input has them.

    The coarsest level's logits (the last of their kind) are stride_px times smaller than the
    input."""
    symbols = {
        symbol: name
        for value in proto.graph.output
        if value.name.startswith(contract.logits(0)[:-1])
        for dimension, name in zip(
            value.type.tensor_type.shape.dim[2:], (contract.ROWS, contract.COLUMNS), strict=True
        )
        for symbol in re.findall(r"\bs\d+\b", dimension.dim_param)
    }
    for value in [*proto.graph.input, *proto.graph.output, *proto.graph.value_info]:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                renamed = re.sub(
                    r"\bs\d+\b", lambda m: symbols.get(m[0], m[0]), dimension.dim_param
                )
                dimension.dim_param = renamed


def _drop_notes(proto: onnx.ModelProto) -> None:
    """Of the exporter's notes on a node keep the module it belongs to: the rest is bulky, and
    its source lines hold paths of this machine."""
    for node in proto.graph.node:
        kept = [note for note in node.metadata_props if note.key == NODE_SCOPE]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)


def hide_raw_outputs(proto: onnx.ModelProto) -> None:
    """Make plain inner tensors of the outputs that are not the contract's; `expose` makes
    outputs of them."""
    inner = [value for value in proto.graph.output if value.name not in contract.OUTPUTS]
    outputs = [value for value in proto.graph.output if value.name in contract.OUTPUTS]
    del proto.graph.output[:]
    proto.graph.output.extend(outputs)
    proto.graph.value_info.extend(inner)


def add_bodies(proto: onnx.ModelProto) -> None:
    """Put the functions of our nodes into the file, so that it runs without a plugin."""
    import onnx

    from .bodies import functions

    used = {node.op_type for node in proto.graph.node if node.domain == contract.DOMAIN}
    present = {function.name for function in proto.functions}
    proto.functions.extend(f for f in functions(used) if f.name not in present)
    if contract.DOMAIN not in {opset.domain for opset in proto.opset_import}:
        proto.opset_import.append(
            onnx.helper.make_opsetid(contract.DOMAIN, contract.DOMAIN_VERSION)
        )


def add_metadata(
    proto: onnx.ModelProto,
    graph: DetectorGraph,
    input_config: InputConfig,
    precision: Precision,
) -> None:
    """Everything a user of the file must know, as JSON under the keys of `contract`."""
    import onnx

    proto.producer_name, proto.producer_version = "tensormask_export", __version__
    metadata = model_metadata(graph, input_config, precision)
    values = {key: json.dumps(value) for key, value in metadata.items()}
    onnx.helper.set_model_props(proto, values)


def model_metadata(
    graph: DetectorGraph, input_config: InputConfig, precision: Precision = "float32"
) -> dict[str, Any]:
    """Metadata key -> JSON value."""
    config = graph.model.config
    from .samples import make_samples

    geometry = config.geometry
    windows = [
        {
            "level": level,
            "size_id": size_id,
            "stride_px": geometry.strides_px[level],
            "side_px": geometry.side_px(level, size_id),
            "side_bins": geometry.side_bins(level, size_id),
            "bin_px": geometry.bin_px(level),
        }
        for level in range(geometry.num_levels)
        for size_id in range(geometry.num_sizes)
    ]
    preprocessing = {
        "input": "float32 RGB in [0, 1]; normalisation is inside the graph",
        "padding_px": geometry.padding_px,
        "padding_colour": padding_colour(graph.model),
        "padding_sides": "right and bottom",
    }
    return {
        contract.CLASS_NAMES: config.class_names,
        contract.WINDOWS: windows,
        contract.STRIDES_PX: geometry.strides_px,
        contract.LAMS: geometry.lams,
        contract.PADDING: config.pad_value,
        contract.PREPROCESSING: preprocessing,
        contract.MODEL_CONFIG: to_json(graph.config),
        contract.INPUT_CONFIG: to_json(input_config),
        contract.DETECTOR: detector_metadata(graph, precision),
        contract.SAMPLES: make_samples(graph),
        contract.VERSIONS: versions(),
        contract.WEIGHTS_SHA256: weights_sha256(graph.model),
    }


def detector_metadata(graph: DetectorGraph, precision: Precision) -> dict[str, Any]:
    """How this file was made of the model: `contract.DETECTOR`."""
    return {
        "candidates": graph.config.topk_candidates,
        "detections": graph.num_detections,
        "nms_iterations": graph.nms_iterations,
        "masks": graph.masks,
        "precision": precision,
    }


def versions() -> dict[str, str]:
    """Versions of what wrote the file."""
    packages = {name: metadata.version(name) for name in ("torch", "onnx", "onnxscript")}
    return {"tensormask_edu": __version__, "python": platform.python_version(), **packages}


def weights_sha256(model: TensorMask) -> str:
    """SHA-256 of the weights as a safetensors file: that of a checkpoint's
    model.safetensors."""
    state: dict[str, Tensor] = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    return hashlib.sha256(save(state)).hexdigest()


def save_checked(proto: onnx.ModelProto, path: str | Path) -> None:
    """Write the file and let the checker, with full shape inference, look at it."""
    import onnx

    onnx.save(proto, path)
    onnx.checker.check_model(path, full_check=True)


def _report(
    proto: onnx.ModelProto,
    path: Path,
    graph: DetectorGraph,
    precision: Precision,
    seconds: float,
) -> OnnxReport:
    ours = [node.op_type for node in proto.graph.node if node.domain == contract.DOMAIN]
    model_candidates, candidates = (
        graph.model.config.topk_candidates,
        graph.config.topk_candidates,
    )
    notes = [f"{candidates} candidates enter NMS; the checkpoint says {model_candidates}"]
    return OnnxReport(
        path=str(path),
        bytes=path.stat().st_size,
        sha256=file_sha256(path),
        weights_sha256=weights_sha256(graph.model),
        detector=detector_metadata(graph, precision),
        opset=contract.OPSET,
        nodes={name: ours.count(name) for name in sorted(set(ours))},
        outputs=[value.name for value in proto.graph.output],
        notes=notes if candidates != model_candidates else [],
        seconds=round(seconds, 2),
    )
