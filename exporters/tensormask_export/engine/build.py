"""An engine from an ONNX file: parse, build, manifest. Needs no GPU with TensorRT-RTX.

The build runs in a child process: a builder that aborts then becomes an error message, and the
library path that TensorRT-RTX needs can be set before it starts. Our ops run as the plugin that
was asked for or as their function bodies. The parser's layers are counted by type and its
outputs compared with the file's, so nobody has to guess.

next: engine/child.py
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

from packaging.version import Version

from tensormask_edu.base.errors import InputError, bad_input
from tensormask_edu.base.files import (
    file_sha256,
    read_json,
    refuse_overwriting,
    write_json,
    written_whole,
)

from .. import contract
from ..onnx_file.read import is_onnx, read_metadata, read_onnx
from ..shapes import Profile, Shape, shape_name
from .backends import Backend, child_environment, find_backend
from .plugin import OPS, Plugin, choose

if TYPE_CHECKING:
    import onnx

# What a build leaves open
NOT_RUN = {
    "claim": "TensorRT engine, every raw output",
    "against": "PyTorch",
    "difference": None,
    "limit": None,
    "note": "an engine needs an NVIDIA GPU to run; building one does not",
    "at_least": False,
}


@dataclass(frozen=True)
class Effort:
    """How hard the builder tries; None: its own choice.

    workspace_mib: scratch memory on the GPU; optimization_level: 0 to 5; timing_cache: a file,
    read if it is there and written after the build, which makes the next build faster.
    """

    workspace_mib: float | None = None
    optimization_level: int | None = None
    timing_cache: str | None = None

    def check(self, backend: Backend) -> None:
        """Raise InputError for a number that means nothing, or that the backend has not."""
        if self.timing_cache and backend.is_rtx:
            expected = "none: TensorRT-RTX has no such cache"
            why = "its builds take seconds, and the last step happens when the engine loads"
            raise bad_input(
                "timingCacheFile", expected, self.timing_cache, f"leave it away: {why}"
            )
        if self.workspace_mib is not None and not self.workspace_mib > 0:
            raise bad_input("memPoolSize", "MiB > 0", self.workspace_mib)
        if self.optimization_level is not None and self.optimization_level not in range(6):
            raise bad_input("builderOptimizationLevel", "0 to 5", self.optimization_level)

    def options(self) -> dict[str, str]:
        """As trtexec names them."""
        named = {
            "memPoolSize": self.workspace_mib and f"workspace:{self.workspace_mib:g}M",
            "builderOptimizationLevel": self.optimization_level,
            "timingCacheFile": self.timing_cache,
        }
        return {name: str(value) for name, value in named.items() if value is not None}


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
    plugin: dict[str, Any]
    ops: dict[str, str]
    layers: dict[str, int]
    seconds: float
    command: str
    warnings: list[str]

    @property
    def facts(self) -> dict[str, str]:
        """What a table says of the engine."""
        targets = [*self.targets["compute_capabilities"], f"({self.targets['note']})"]
        return {
            "built with": f"{self.backend} {self.version}, {self.seconds:.1f} s",
            "size": f"{self.bytes / 2**20:.1f} MiB",
            "for": " ".join(targets),
            "input sizes": Profile(**self.profile).text(),
            "our operators": ", ".join(f"{name}: {how}" for name, how in self.ops.items()),
            "the same by hand": self.command,
        }

    def text(self) -> str:
        """What the command prints."""
        lines = (
            f"{self.path}: {self.bytes / 1e6:.1f} MB in {self.seconds:.1f} s",
            f"built with   {self.backend} {self.version}",
            f"for          {self.facts['for']}",
            f"shapes       {self.facts['input sizes']}",
            f"plugin       {self.plugin['kind']}: {self.plugin['why']}",
            f"our ops      {self.facts['our operators']}",
            f"manifest     {self.manifest}",
            f"equivalent   {self.command}",
        )
        return "\n  ".join(lines)

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        facts = self.facts
        return {
            **asdict(self),
            "summary": f"{facts['size']}, {facts['built with']}, for {facts['for']}",
            "claims": [NOT_RUN],
            "facts": facts,
        }


def build_engine(
    onnx_path: str | Path,
    engine_path: str | Path,
    *,
    profile: Profile | None = None,
    sm: Sequence[int] = (),
    backend: str = "auto",
    plugin: str = "auto",
    plugin_library: str | Path | None = None,
    effort: Effort | None = None,
) -> EngineReport:
    """Build `engine_path` from our ONNX file, and its manifest `<engine_path>.json`.

    Args:
        profile: accepted input shapes; all three equal for an engine of one shape.
        sm: compute capabilities, 86 for 8.6; TensorRT-RTX only. By default what TensorRT-RTX
            targets by itself, which includes later GPUs.
        backend: "auto", "tensorrt" or "tensorrt_rtx".
        plugin, plugin_library: how our ops run, see `plugin.choose`.
        effort: how hard the builder tries.

    Raises:
        InputError: no backend, a file that is not ours or would be replaced, wrong shapes or
            targets, a plugin that is missing or that a node did not take, a failed build.
    """
    engine_path, manifest_path = Path(engine_path), Path(f"{engine_path}.json")
    chosen, profile, effort = find_backend(backend), profile or Profile(), effort or Effort()
    _keep_apart([engine_path, manifest_path], [onnx_path, plugin_library], effort.timing_cache)
    chosen.check_targets(sm)
    effort.check(chosen)
    proto = read_onnx(onnx_path)
    metadata = _metadata(proto, onnx_path)
    profile.check(metadata[contract.PREPROCESSING]["padding_px"])
    ops = count_ops(proto.graph)
    form = _form(plugin, chosen, plugin_library, ops)
    with written_whole(engine_path) as temporary:
        temporary.touch()  # a folder that cannot be written shows before the build
        files = {"onnx": str(onnx_path), "plan": str(temporary)}
        request = _request(chosen, profile, sm, form, ops, effort)
        built = _build_in_child(chosen, request | files)
        check_outputs(proto, built["outputs"])
        command = equivalent_command(chosen, onnx_path, engine_path, profile, sm, form, effort)
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
            plugin=form.to_json(),
            ops=_how_ops_run(ops, built["layers"], form),
            command=command,
            **{name: built[name] for name in ("layers", "seconds", "warnings")},
        )
        write_json(manifest_path, manifest(report, metadata, list(built["outputs"])))
    return report


def _metadata(proto: onnx.ModelProto, path: str | Path) -> dict[str, Any]:
    """A file's metadata; InputError for INT8 in the form of processors."""
    metadata = read_metadata(proto, path)
    if metadata.get(contract.QUANTISATION, {}).get("form") == "unsigned":
        fix = "export again with --symmetric"
        raise bad_input(
            "model", "float32, float16 or the INT8 of --symmetric", "zero points", fix
        )
    return metadata


def _keep_apart(
    written: Sequence[Path], read: Sequence[str | Path | None], cache: str | None
) -> None:
    """Raise InputError where a file of the build would replace another, or be taken for one."""
    refuse_overwriting("timing cache", cache, *read)
    for file in written:
        refuse_overwriting("engine", file, *read, cache)
    if is_onnx(written[0]):  # by this name `predict` tells it from an ONNX file
        raise bad_input("engine", "another name than of an ONNX file", written[0])


def _form(
    asked: str, backend: Backend, library: str | Path | None, ops: Counter[str]
) -> Plugin:
    """How our ops run; InputError where a plugin is asked for and no node could be one."""
    takes_one = any(ops[name] for name in OPS)
    if not takes_one and asked == "auto" and library is None:
        return Plugin("none", "the file has no node for a plugin")
    form = choose(asked, backend, library)
    if form.kind != "none" and not takes_one:
        expected, fix = f"a file with nodes {' or '.join(OPS)}", "export it without --portable"
        raise bad_input("plugin", expected, "none in this one", fix)
    return form


def _request(
    backend: Backend,
    profile: Profile,
    sm: Sequence[int],
    plugin: Plugin,
    ops: Counter[str],
    effort: Effort,
) -> dict[str, Any]:
    """What the child process has to do, but for the files."""
    return {
        "backend": backend.name,
        "profile": asdict(profile),
        "sm": list(sm),
        "plugin": {"kind": plugin.kind, "library": plugin.library},
        "plugin_nodes": {name: ops[name] for name in OPS if ops[name]},
        **asdict(effort),
    }


def count_ops(graph: onnx.GraphProto) -> Counter[str]:
    """Our nodes by type, those inside loops and branches too."""
    counts = Counter(node.op_type for node in graph.node if node.domain == contract.DOMAIN)
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        inner = [attribute.g] if attribute.HasField("g") else attribute.graphs
        for body in inner:
            counts += count_ops(body)
    return counts


def check_outputs(proto: onnx.ModelProto, outputs: dict[str, list[int]]) -> None:
    """Raise InputError unless the parser kept each output's name and shape."""
    for value in proto.graph.output:
        dimensions = [side.dim_value or -1 for side in value.type.tensor_type.shape.dim]
        found = outputs.get(value.name, [])
        if not _same_shape(dimensions, found):
            expected, fix = f"shape {dimensions} (-1: free)", "try another TensorRT"
            raise bad_input(f"output {value.name} as parsed", expected, found, fix)


def _same_shape(shape: Sequence[int], other: Sequence[int]) -> bool:
    """The same numbers, where neither is free (-1)."""
    if len(shape) != len(other):
        return False
    return all(-1 in (a, b) or a == b for a, b in zip(shape, other, strict=True))


def manifest(
    report: EngineReport, metadata: dict[str, Any], outputs: Sequence[str]
) -> dict[str, Any]:
    """What the engine's user must know; plans carry no metadata themselves."""
    return {
        "engine": {
            "file": Path(report.path).name,
            "bytes": report.bytes,
            "sha256": report.sha256,
        },
        "model": {"sha256": report.model_sha256, "metadata": metadata},
        "backend": {"name": report.backend, "version": report.version},
        "targets": report.targets,
        "profile": {contract.IMAGES: report.profile},
        "outputs": outputs,
        "plugin": report.plugin,
        "ops": report.ops,
        "layers": report.layers,
        "build": {
            "seconds": report.seconds,
            "machine": platform.machine(),
            "command": report.command,
        },
    }


def equivalent_command(
    backend: Backend,
    onnx_path: str | Path,
    engine_path: str | Path,
    profile: Profile,
    sm: Sequence[int] = (),
    plugin: Plugin | None = None,
    effort: Effort | None = None,
) -> str:
    """The vendor's command line that builds the same engine."""
    options = {"onnx": str(onnx_path), "saveEngine": str(engine_path)}
    for name, shape in asdict(profile).items():
        options[f"{name}Shapes"] = f"{contract.IMAGES}:{shape_name(shape)}"
    if sm:
        options["computeCapabilities"] = ",".join(map(str, sm))
    if plugin and plugin.kind == "python":
        return f"none: {backend.tool} loads no plugins in Python"
    if plugin and plugin.library:
        options["dynamicPlugins"] = plugin.library
    options |= (effort or Effort()).options()
    named = [f"--{name}={value}" for name, value in options.items()]
    words = [backend.tool, *named, "--skipInference"]
    if not backend.is_rtx and Version(backend.version).major == 10:
        words.append("--stronglyTyped")  # the only mode of version 11
    return shlex.join(words)


def _how_ops_run(ops: Counter[str], layers: dict[str, int], plugin: Plugin) -> dict[str, str]:
    """Per custom node type: a plugin, the backend's own layer, or the function body."""
    how = dict.fromkeys(ops, "function body")
    if plugin.kind != "none":
        how |= dict.fromkeys(OPS, f"{plugin.kind} plugin")
    for name, layer in (contract.NORM, "NORMALIZATION"), (contract.LEADING, "IDENTITY"):
        if layers.get(layer, 0) >= ops[name]:
            how[name] = "built-in layer"
    return {name: f"{how[name]}, {count} nodes" for name, count in sorted(ops.items())}


def _build_in_child(backend: Backend, request: dict[str, Any]) -> dict[str, Any]:
    """The answer of `child.py`, run as a program; what went wrong is an InputError."""
    with tempfile.TemporaryDirectory() as folder, child_environment(backend) as environment:
        path, answer = Path(folder) / "request.json", Path(folder) / "answer.json"
        write_json(path, {**request, "answer": str(answer)})
        words = [sys.executable, "-m", f"{__package__}.child", str(path)]
        code = _run(words, environment)
        built = read_json(answer) if answer.is_file() else {}
    if code == -signal.SIGINT:
        raise KeyboardInterrupt
    if code != 0 or "error" in built:
        problem = f"{backend.name} {backend.version} did not build it: {_reason(code, built)}"
        raise InputError(f"engine: {problem}")
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
