"""A trained model as one ONNX file that every runtime takes.

The steps: the graph with our ops as bare nodes (`capture.py`); the ops' bodies, in the nodes'
places on request (`portable.py`); samples, what PyTorch gives for a few small pictures, and the
other metadata; the ONNX checker. The file appears whole or not at all.

next: onnx_file/read.py
"""

from __future__ import annotations

import itertools
import json
import platform
import time
from collections.abc import Collection, Mapping
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
from tensormask_edu.weights.checkpoint import weights_sha256

from .. import contract
from ..contract import Precision
from ..shapes import Array
from .capture import capture
from .graph import NMS_ITERATIONS, DetectorGraph, MaskMode, padding_colour
from .portable import LOST
from .portable import portable as without_functions
from .precision import in_precision
from .read import is_onnx, windows_metadata
from .samples import make_samples

if TYPE_CHECKING:
    import onnx


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
        return f"{size}, our nodes: {nodes or 'none'}"

    def text(self) -> str:
        """What the command prints."""
        nodes = ", ".join(f"{count} {name}" for name, count in self.nodes.items())
        size = f"{self.bytes / 1e6:.1f} MB, opset {self.opset}"
        line = f"{self.path}: {size}, {nodes or 'no nodes of ours'}, in {self.seconds:.1f} s"
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
    portable: bool = False,
    input_config: InputConfig | None = None,
) -> OnnxReport:
    """Write `model` to `path` as ONNX: input `images`, outputs by the names of `contract`.

    Args:
        masks, candidates, nms_iterations: see `graph.DetectorGraph`.
        precision: of weights and activations, see `precision.py`; inputs and outputs stay
            float32.
        inner: kinds of inner tensors among the outputs, see `contract.INNER`: for study.
        portable: no nodes of ours, see `portable.py`.
        input_config: how a picture file becomes the model's input; stored for the file's users.

    Raises:
        InputError: a missing package, a wrong argument, a place that cannot be written.
    """
    required("onnxscript", "export")
    start = time.perf_counter()
    if precision not in contract.PRECISIONS:
        raise bad_input("precision", " or ".join(contract.PRECISIONS), repr(precision))
    check_name(path)
    how = (masks, candidates, nms_iterations)
    graph = DetectorGraph(model, *how).eval()
    detector = detector_metadata(graph, precision, portable)
    weights = weights_sha256(model)
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
        if portable:
            proto = without_functions(proto)
        save_checked(proto, temporary)
    seconds = round(time.perf_counter() - start, 2)
    return _report(proto, Path(path), model.config, detector, weights, seconds)


def check_name(path: str | Path) -> None:
    """Raise InputError unless `predict` will tell the file from an engine."""
    if not is_onnx(path):
        raise bad_input("model", "a name that ends in .onnx", path, f"write {path}.onnx")


@torch.no_grad()
def computed(graph: DetectorGraph, images: Array) -> dict[str, Array]:
    """What PyTorch gives for images (N, 3, H, W) float32: all outputs by name."""
    device = next(graph.parameters()).device
    outputs = graph(torch.from_numpy(images).to(device))
    return {name: tensor.cpu().numpy() for name, tensor in outputs.items()}


# --- the file ---------------------------------------------------------------------------------


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


def detector_metadata(
    graph: DetectorGraph, precision: Precision, portable: bool = False
) -> dict[str, Any]:
    """How this file was made of the model: `contract.DETECTOR`."""
    return {
        "candidates": graph.config.topk_candidates,
        "detections": graph.num_detections,
        "nms_iterations": graph.nms_iterations,
        "masks": graph.masks,
        "precision": precision,
        "portable": portable,
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
    notes = [LOST] if detector["portable"] else []
    if taken != wanted:
        notes.append(f"{taken} candidates enter NMS; the checkpoint says {wanted}")
    return OnnxReport(
        path=str(path),
        bytes=path.stat().st_size,
        sha256=file_sha256(path),
        weights_sha256=weights,
        detector=detector,
        opset=contract.OPSET,
        nodes={name: ours.count(name) for name in sorted(set(ours))},
        outputs=[value.name for value in proto.graph.output],
        notes=notes,
        seconds=seconds,
    )
