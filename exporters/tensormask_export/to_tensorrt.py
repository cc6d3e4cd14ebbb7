"""An engine from an ONNX file: parse, build, manifest. Runs without a GPU where TensorRT-RTX is installed.

The build runs in a child process: a builder that aborts then becomes an error message, and the library path
that TensorRT-RTX needs can be set before it starts. Our ops run as their function bodies. The parser's layers
are counted by type and its outputs compared with the file's, so nobody has to guess.

next: builder.py
"""

from __future__ import annotations

import platform
import shlex
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensormask_edu.errors import InputError, bad_input
from tensormask_edu.files import read_json, write_json, written_whole

from . import contract
from .backends import Backend, child_environment, find_backend
from .to_onnx import file_sha256, read_metadata, read_onnx

if TYPE_CHECKING:
    import onnx

Shape = tuple[int, int, int, int]

PLUGIN_LAYERS = ("PLUGIN", "PLUGIN_V2", "PLUGIN_V3")


@dataclass(frozen=True)
class Profile:
    """The input shapes (N, 3, H, W) an engine accepts: smallest, the one it is tuned for, largest."""

    min: Shape = (1, 3, 128, 128)
    opt: Shape = (1, 3, 256, 256)
    max: Shape = (4, 3, 512, 512)

    def check(self, padding_px: int) -> None:
        """Raise InputError unless min <= opt <= max and every side is a multiple of `padding_px`."""
        for name, shape in asdict(self).items():
            sides_fit = all(side > 0 and side % padding_px == 0 for side in shape[2:])
            if len(shape) != 4 or shape[0] < 1 or shape[1] != 3 or not sides_fit:
                expected = f"Nx3xHxW with N >= 1, H and W multiples of {padding_px}"
                raise bad_input(f"{name} shape", expected, shape_name(shape))
        for lower, upper in ((self.min, self.opt), (self.opt, self.max)):
            if any(a > b for a, b in zip(lower, upper, strict=True)):
                raise bad_input("shapes", "min <= opt <= max in every axis", self.text())

    def text(self) -> str:
        return ", ".join(f"{name} {shape_name(shape)}" for name, shape in asdict(self).items())


def shape_name(shape: Sequence[int]) -> str:
    """(1, 3, 128, 128) as 1x3x128x128."""
    return "x".join(map(str, shape))


@dataclass(frozen=True)
class EngineReport:
    """What was built. ops: per custom node type, how it runs; layers: parsed layers by type."""

    path: str
    manifest: str
    bytes: int
    sha256: str
    model_sha256: str
    backend: str
    version: str
    targets: dict[str, Any]
    profile: dict[str, Shape]
    ops: dict[str, str]
    layers: dict[str, int]
    seconds: float
    command: str
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def build_engine(
    onnx_path: str | Path,
    engine_path: str | Path,
    *,
    profile: Profile | None = None,
    sm: Sequence[int] = (),
    backend: str = "auto",
) -> EngineReport:
    """Build `engine_path` from our ONNX file, and `<engine_path>.json`, its manifest, beside it.

    Args:
        profile: accepted input shapes.
        sm: compute capabilities, 86 for 8.6; TensorRT-RTX only. By default what TensorRT-RTX targets by
            itself, which includes later GPUs.
        backend: "auto", "tensorrt" or "tensorrt_rtx".

    Raises:
        InputError: no backend, a file that is not ours, wrong shapes or targets, a build that failed.
    """
    chosen, profile = find_backend(backend), profile or Profile()
    chosen.check_targets(sm)
    proto = read_onnx(onnx_path)
    metadata = read_metadata(proto, onnx_path)
    profile.check(metadata[contract.PREPROCESSING]["padding_px"])
    ops = Counter(node.op_type for node in proto.graph.node if node.domain == contract.DOMAIN)
    engine_path, manifest_path = Path(engine_path), Path(f"{engine_path}.json")
    with written_whole(engine_path) as temporary:
        temporary.touch()  # a folder that cannot be written shows before the build
        built = _build_in_child(chosen, onnx_path, temporary, profile, sm)
        check_outputs(proto, built["outputs"])
        report = EngineReport(
            path=str(engine_path),
            manifest=str(manifest_path),
            bytes=temporary.stat().st_size,
            sha256=file_sha256(temporary),
            model_sha256=file_sha256(onnx_path),
            backend=chosen.name,
            version=chosen.version,
            targets=chosen.targets(sm),
            profile=asdict(profile),
            ops=_how_ops_run(ops, built["layers"]),
            layers=built["layers"],
            seconds=built["seconds"],
            command=equivalent_command(chosen, onnx_path, engine_path, profile, sm),
            warnings=built["warnings"],
        )
        write_json(manifest_path, manifest(report, metadata))
    return report


def check_outputs(proto: onnx.ModelProto, outputs: dict[str, list[int]]) -> None:
    """Raise InputError unless the parser gave every output the name and shape of the ONNX file."""
    for value in proto.graph.output:
        dimensions = [d.dim_value or -1 for d in value.type.tensor_type.shape.dim]
        found = outputs.get(value.name, [])
        fits = len(found) == len(dimensions) and all(
            -1 in (a, b) or a == b for a, b in zip(dimensions, found, strict=True)
        )
        if not fits:
            expected = f"shape {dimensions} (-1: free)"
            raise bad_input(f"output {value.name} as parsed", expected, found, "try another TensorRT")


def manifest(report: EngineReport, metadata: dict[str, Any]) -> dict[str, Any]:
    """What the engine's user must know; plans carry no metadata themselves."""
    return {
        "engine": {"file": Path(report.path).name, "bytes": report.bytes, "sha256": report.sha256},
        "model": {"sha256": report.model_sha256, "metadata": metadata},
        "backend": {"name": report.backend, "version": report.version},
        "targets": report.targets,
        "profile": {contract.IMAGES: report.profile},
        "ops": report.ops,
        "layers": report.layers,
        "build": {"seconds": report.seconds, "machine": platform.machine(), "command": report.command},
    }


def equivalent_command(
    backend: Backend, onnx_path: str | Path, engine_path: str | Path, profile: Profile, sm: Sequence[int]
) -> str:
    """The vendor's command line that builds the same engine."""
    shapes = {f"{name}Shapes": f"{contract.IMAGES}:{shape_name(s)}" for name, s in asdict(profile).items()}
    options = {"onnx": str(onnx_path), "saveEngine": str(engine_path), **shapes}
    if sm:
        options["computeCapabilities"] = ",".join(map(str, sm))
    words = [backend.tool, *(f"--{key}={value}" for key, value in options.items()), "--skipInference"]
    if not backend.is_rtx and backend.version.startswith("10."):
        words.append("--stronglyTyped")  # the only mode of version 11
    return shlex.join(words)


def _how_ops_run(ops: Counter[str], layers: dict[str, int]) -> dict[str, str]:
    """Per custom node type: as a plugin, as the backend's own layer, or as its function body."""
    plugins = sum(layers.get(name, 0) for name in PLUGIN_LAYERS)
    swaps = "plugin" if plugins >= ops[contract.SWAP] + ops[contract.SWAP_WINDOWS] else "function body"
    norm = "built-in layer" if layers.get("NORMALIZATION", 0) >= ops[contract.NORM] else "function body"
    how = {contract.SWAP: swaps, contract.SWAP_WINDOWS: swaps, contract.NORM: norm}
    return {name: f"{how[name]}, {count} nodes" for name, count in sorted(ops.items())}


def _build_in_child(
    backend: Backend, onnx_path: str | Path, plan: Path, profile: Profile, sm: Sequence[int]
) -> dict[str, Any]:
    """Run `builder.py` as a program; returns its answer or raises what went wrong as an InputError."""
    with tempfile.TemporaryDirectory() as folder, child_environment(backend) as env:
        request, answer = Path(folder) / "request.json", Path(folder) / "answer.json"
        values = {"backend": backend.name, "onnx": str(onnx_path), "plan": str(plan), "sm": list(sm)}
        write_json(request, {**values, "answer": str(answer), "profile": asdict(profile)})
        code = _run([sys.executable, "-m", f"{__package__}.builder", str(request)], env)
        built = read_json(answer) if answer.is_file() else {}
    if code == -signal.SIGINT:
        raise KeyboardInterrupt
    if code != 0 or "error" in built:
        raise InputError(f"engine: {backend.name} {backend.version} did not build it: {_reason(code, built)}")
    return built


def _run(words: list[str], environment: dict[str, str]) -> int:
    """Exit code of a child, which ends with us."""
    child = subprocess.Popen(words, env=environment)
    try:
        return child.wait()
    finally:
        child.kill()
        child.wait()


def _reason(code: int, built: dict[str, Any]) -> str:
    if "error" in built:
        return str(built["error"])
    if code < 0:
        return f"the builder died of {signal.Signals(-code).name}"
    return f"the builder left with code {code}"
