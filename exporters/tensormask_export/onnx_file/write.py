"""A trained model as one ONNX file that every runtime takes.

The steps: torch.onnx.export with our ops left as bare nodes; the ops' bodies; samples, what
PyTorch gives for a few small pictures, and the other metadata; the ONNX checker. The file
appears whole or not at all.

next: onnx_file/read.py
"""

from __future__ import annotations

import itertools
import json
import logging
import platform
import re
import time
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tensormask_edu import __version__
from tensormask_edu.base.errors import bad_input
from tensormask_edu.base.files import file_sha256, written_whole
from tensormask_edu.base.machine import version
from tensormask_edu.base.packages import required
from tensormask_edu.config import InputConfig, ModelConfig, to_json
from tensormask_edu.detector.model import TensorMask
from tensormask_edu.geometry import Geometry
from tensormask_edu.weights.checkpoint import weights_sha256

from .. import contract
from ..contract import Precision
from ..shapes import Array
from .graph import NMS_ITERATIONS, DetectorGraph, MaskMode, padding_colour
from .precision import in_precision
from .samples import make_samples

if TYPE_CHECKING:
    import onnx

NODE_SCOPE = "pkg.torch.onnx.name_scopes"
# The coarsest level's grid while it is traced; no axis is mistaken for another of its length
TRACED_CELLS = (4, 5)
SYMBOL = r"\bs\d+\b"  # what the exporter calls a free dimension: s18


@dataclass(frozen=True)
class OnnxReport:
    """What was exported.

    detector: see `contract.DETECTOR`; nodes: our custom nodes by name; notes: what differs from
    the checkpoint; seconds: of the whole export.
    """

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

    @property
    def summary(self) -> str:
        """One line."""
        size = f"{self.bytes / 2**20:.1f} MiB, {len(self.outputs)} outputs"
        nodes = ", ".join(f"{count} {name}" for name, count in self.nodes.items())
        return f"{size}, our nodes: {nodes}"

    def text(self) -> str:
        """What the command prints."""
        nodes = ", ".join(f"{count} {name}" for name, count in self.nodes.items())
        size = f"{self.bytes / 1e6:.1f} MB, opset {self.opset}"
        line = f"{self.path}: {size}, {nodes}, in {self.seconds:.1f} s"
        return "\n  note: ".join([line, *self.notes])

    def to_json(self) -> dict[str, Any]:
        """All of it. An export claims nothing: `verify` does."""
        return {**asdict(self), "summary": self.summary, "claims": [], "facts": {}}


def export_onnx(
    model: TensorMask,
    path: str | Path,
    *,
    masks: MaskMode = "windows",
    candidates: int | None = None,
    nms_iterations: int = NMS_ITERATIONS,
    precision: Precision = "float32",
    inner: Collection[contract.Inner] = (),
    input_config: InputConfig | None = None,
) -> OnnxReport:
    """Write `model` to `path` as ONNX: input `images`, outputs by the names of `contract`.

    Args:
        masks, candidates, nms_iterations: see `graph.DetectorGraph`.
        precision: of weights and activations, see `precision.py`; inputs and outputs stay
            float32.
        inner: kinds of inner tensors among the outputs, see `contract.INNER`: for study.
        input_config: how a picture file becomes the model's input; stored for the file's users.

    Raises:
        InputError: a missing package, a wrong argument, a place that cannot be written.
    """
    required("onnxscript", "export")
    start = time.perf_counter()
    if precision not in contract.PRECISIONS:
        raise bad_input("precision", " or ".join(contract.PRECISIONS), repr(precision))
    how = (masks, candidates, nms_iterations)
    graph = DetectorGraph(model, *how).eval()
    detector, weights = detector_metadata(graph, precision), weights_sha256(model)
    with written_whole(path) as temporary:
        temporary.touch()  # a folder that cannot be written shows at once
        converted = in_precision(model, precision)
        proto = capture(DetectorGraph(converted, *how, inner=inner).eval())
        add_bodies(proto)
        # PyTorch in float32 says what is right, whatever the file's precision
        samples = make_samples(partial(computed, graph), graph.config.geometry.padding_px)
        inputs = input_config or InputConfig()
        add_metadata(proto, model_metadata(graph.config, inputs, detector, samples, weights))
        hide_inner_outputs(proto, inner)
        save_checked(proto, temporary)
    seconds = round(time.perf_counter() - start, 2)
    return _report(proto, Path(path), model.config, detector, weights, seconds)


# --- PyTorch ----------------------------------------------------------------------------------


def capture(graph: DetectorGraph) -> onnx.ModelProto:
    """The graph as ONNX with free batch, height and width; our ops are nodes without a body."""
    from .translations import table  # needs onnxscript, which is optional

    geometry = graph.model.config.geometry
    stride_px, padding_px = geometry.strides_px[-1], geometry.padding_px
    sides_px = [cells * max(stride_px, padding_px) for cells in TRACED_CELLS]
    example = torch.rand(2, 3, *sides_px, device=next(graph.parameters()).device)
    names = (contract.BATCH, contract.ROWS, contract.COLUMNS)
    batch, rows, columns = (torch.export.Dim(name) for name in names)
    with quiet(), single_node_rules(), torch.no_grad():
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


@torch.no_grad()
def computed(graph: DetectorGraph, images: Array) -> dict[str, Array]:
    """What PyTorch gives for images (N, 3, H, W) float32: all outputs by name."""
    device = next(graph.parameters()).device
    outputs = graph(torch.from_numpy(images).to(device))
    return {name: tensor.cpu().numpy() for name, tensor in outputs.items()}


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


@contextmanager
def single_node_rules() -> Iterator[None]:
    """Leave out the exporter's rewrite rule for two Slices that are a Split.

    It goes through the whole graph at each node, four fifths of the rewriter's time, and our
    graph has no such pair.
    """
    from onnxscript import rewriter  # optional

    rules = getattr(rewriter, "_DEFAULT_REWRITE_RULES", None)
    if not rules:  # another version: slower, no worse
        yield
        return
    rewriter._DEFAULT_REWRITE_RULES = tuple(r for r in rules if r.name != "SlicesSplit")
    try:
        yield
    finally:
        rewriter._DEFAULT_REWRITE_RULES = rules


# --- the file ---------------------------------------------------------------------------------


def _name_free_dimensions(proto: onnx.ModelProto) -> None:
    """Rename the exporter's symbols (s18) to rows and columns, as the input has them."""
    finest = next(value for value in proto.graph.output if value.name == contract.logits(0))
    sides = [side.dim_param for side in finest.type.tensor_type.shape.dim[2:]]  # 8*s18, 8*s24
    symbols = {
        symbol: name
        for side, name in zip(sides, (contract.ROWS, contract.COLUMNS), strict=True)
        for symbol in re.findall(SYMBOL, side)
    }
    for value in [*proto.graph.input, *proto.graph.output, *proto.graph.value_info]:
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param:
                side.dim_param = re.sub(
                    SYMBOL, lambda found: symbols.get(found[0], found[0]), side.dim_param
                )


def _drop_notes(proto: onnx.ModelProto) -> None:
    """Keep of the exporter's notes on a node only the module that it belongs to.

    The rest is bulky, and its source lines hold paths of this machine.
    """
    for node in proto.graph.node:
        kept = [note for note in node.metadata_props if note.key == NODE_SCOPE]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)


def hide_inner_outputs(proto: onnx.ModelProto, kept: Collection[contract.Inner] = ()) -> None:
    """Make plain inner tensors of the outputs that are neither the contract's nor `kept`.

    `read.expose` makes outputs of them again.
    """
    values = list(proto.graph.output)
    stays = [v.name in contract.OUTPUTS or v.name.split("_")[0] in kept for v in values]
    del proto.graph.output[:]
    proto.graph.output.extend(itertools.compress(values, stays))
    proto.graph.value_info.extend(v for v, stay in zip(values, stays, strict=True) if not stay)


def add_bodies(proto: onnx.ModelProto) -> None:
    """Put the functions of our nodes into the file, so that it runs without a plugin."""
    import onnx  # optional, and at hand where there is a `proto`

    from .bodies import functions

    used = {node.op_type for node in proto.graph.node if node.domain == contract.DOMAIN}
    present = {function.name for function in proto.functions}
    proto.functions.extend(f for f in functions(used) if f.name not in present)
    if contract.DOMAIN not in {opset.domain for opset in proto.opset_import}:
        ours = onnx.helper.make_opsetid(contract.DOMAIN, contract.DOMAIN_VERSION)
        proto.opset_import.append(ours)


def add_metadata(proto: onnx.ModelProto, metadata: Mapping[str, Any]) -> None:
    """Put metadata into the file, each value as JSON."""
    import onnx

    proto.producer_name, proto.producer_version = "tensormask_export", __version__
    texts = {key: json.dumps(value) for key, value in metadata.items()}
    onnx.helper.set_model_props(proto, texts)


def save_checked(proto: onnx.ModelProto, path: str | Path) -> None:
    """Write the file and let the checker, with full shape inference, look at it."""
    import onnx

    onnx.save(proto, path)
    onnx.checker.check_model(path, full_check=True)


# --- metadata ---------------------------------------------------------------------------------


def model_metadata(
    config: ModelConfig,
    input_config: InputConfig,
    detector: Mapping[str, Any],
    samples: list[dict[str, Any]],
    weights: str,
) -> dict[str, Any]:
    """Everything a user of the file must know: metadata key -> JSON value.

    Args:
        config: of the graph, with its number of candidates.
        input_config: see `export_onnx`.
        detector, samples, weights: of `detector_metadata`, `make_samples`, `weights_sha256`.
    """
    geometry = config.geometry
    preprocessing = {
        "input": "float32 RGB in [0, 1]; normalisation is inside the graph",
        "padding_px": geometry.padding_px,
        "padding_colour": padding_colour(config),
        "padding_sides": "right and bottom",
    }
    return {
        contract.CLASS_NAMES: config.class_names,
        contract.WINDOWS: windows_metadata(geometry),
        contract.STRIDES_PX: geometry.strides_px,
        contract.LAMS: geometry.lams,
        contract.PADDING: config.pad_value,
        contract.PREPROCESSING: preprocessing,
        contract.MODEL_CONFIG: to_json(config),
        contract.INPUT_CONFIG: to_json(input_config),
        contract.DETECTOR: detector,
        contract.SAMPLES: samples,
        contract.VERSIONS: versions(),
        contract.WEIGHTS_SHA256: weights,
    }


def windows_metadata(geometry: Geometry) -> list[dict[str, int]]:
    """The windows by level and size: `contract.WINDOWS`."""
    return [
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


def detector_metadata(graph: DetectorGraph, precision: Precision) -> dict[str, Any]:
    """How this file was made of the model: `contract.DETECTOR`."""
    return {
        "candidates": graph.config.topk_candidates,
        "detections": graph.num_detections,
        "nms_iterations": graph.nms_iterations,
        "masks": graph.masks,
        "precision": precision,
    }


def versions() -> dict[str, str | None]:
    """Versions of what wrote the file."""
    packages = {name: version(name) for name in ("torch", "onnx", "onnxscript")}
    return {"tensormask_edu": __version__, "python": platform.python_version(), **packages}


def _report(
    proto: onnx.ModelProto,
    path: Path,
    config: ModelConfig,
    detector: dict[str, Any],
    weights: str,
    seconds: float,
) -> OnnxReport:
    """What was exported from a model of `config`, the checkpoint's."""
    ours = [node.op_type for node in proto.graph.node if node.domain == contract.DOMAIN]
    wanted, taken = config.topk_candidates, detector["candidates"]
    fewer = f"{taken} candidates enter NMS; the checkpoint says {wanted}"
    return OnnxReport(
        path=str(path),
        bytes=path.stat().st_size,
        sha256=file_sha256(path),
        weights_sha256=weights,
        detector=detector,
        opset=contract.OPSET,
        nodes={name: ours.count(name) for name in sorted(set(ours))},
        outputs=[value.name for value in proto.graph.output],
        notes=[] if taken == wanted else [fewer],
        seconds=seconds,
    )
