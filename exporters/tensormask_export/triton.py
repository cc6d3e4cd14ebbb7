"""An exported model as Triton Inference Server loads it.

    outputs/triton/model/config.pbtxt      what the server checks the file against
    outputs/triton/model/1/model.onnx      the file as it is, or model.plan, an engine
    outputs/triton/model/libswap_...so     the plugin of an engine that was built with one

A request holds one or more pictures that are prepared and padded already; the answer holds the
outputs of `contract`. The metadata that a client makes detections with is in the configuration.

Checked against Triton's schema; no server has been started with it here.

next: cli.py
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensormask_edu.base.errors import bad_input
from tensormask_edu.base.files import cannot_write, make_folder
from tensormask_edu.base.values import misfit

from . import contract
from .engine.manifest import AGAIN, read_engine
from .engine.plugin import VARIABLE
from .onnx_file.read import is_onnx, read_metadata, read_onnx
from .runtimes.session import Buffer, Metadata, Plan, check_model, input_plan, output_plan
from .shapes import Profile, Shape

if TYPE_CHECKING:
    import onnx

CONFIG, VERSION = "config.pbtxt", "1"
REGISTER = "libtensormask_register.so"  # of exporters/cpp: registers the plugin when loaded
LARGEST_BATCH = 4  # of an ONNX file, which takes any; memory grows with it
# How long a picture waits for others of its size: little beside what a model takes
QUEUE_MICROSECONDS = 500
TYPES = {"float32": "TYPE_FP32", "int64": "TYPE_INT64", "bool": "TYPE_BOOL"}
FREE = -1  # a side that a request chooses


class Word(str):
    """A name of an enumeration: stands without quotes."""


@dataclass(frozen=True)
class Served:
    """A file as Triton sees it.

    backend, platform, place: what runs it, and the name it must have. kind: of processor.
    profile: the shapes it accepts. library: the plugin it needs.
    """

    backend: str
    platform: str
    place: str
    kind: str
    metadata: Metadata
    profile: Profile
    max_batch: int  # 0: every request is a whole batch
    library: Path | None = None


@dataclass(frozen=True)
class TritonReport:
    """What was written, and how the server is started."""

    path: str
    model: str
    backend: str
    max_batch_size: int
    files: list[str]
    command: str

    @property
    def summary(self) -> str:
        """The model in a few words."""
        batch = f"up to {self.max_batch_size}" if self.max_batch_size else "of one size"
        return f"{self.model} for Triton's {self.backend}, batches {batch}"

    def text(self) -> str:
        """What the command prints."""
        return "\n  ".join([self.summary, *self.files, f"start   {self.command}"])

    def to_json(self) -> dict[str, Any]:
        """All of it. A repository claims nothing: the server checks it."""
        return {**asdict(self), "summary": self.summary, "claims": [], "facts": {}}


def write_repository(
    model: str | Path,
    output: str | Path,
    *,
    name: str | None = None,
    max_batch: int | None = None,
    instances: int = 1,
    plugin_library: str | Path | None = None,
) -> TritonReport:
    """Write `output/name`, a model of the repository `output`; others in it stay as they are.

    Args:
        model: an ONNX file, or a TensorRT engine with its manifest.
        name: of the model; by default that of the file.
        max_batch: the most pictures computed at once; by default 4, or what the engine takes.
        instances: copies of the model that work side by side.
        plugin_library: the C++ plugin that an engine was built with, see `EngineFile.plugin`.

    Raises:
        InputError: a file that Triton does not load, a name that is taken or none.
    """
    check_model(model)
    name = Path(model).stem if name is None else name
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise bad_input("name", "letters, digits, dots and dashes", repr(name), "use --name")
    if instances < 1:
        raise bad_input("instances", "at least 1", instances)
    served = _served(model, max_batch, plugin_library)
    folder = Path(output) / name
    with _new_folder(folder) as temporary:
        (temporary / VERSION).mkdir()
        shutil.copyfile(model, temporary / VERSION / served.place)
        if served.library:
            shutil.copyfile(served.library, temporary / served.library.name)
        fields = configuration(name, served, instances)
        (temporary / CONFIG).write_text(protobuf_text(fields), encoding="ascii")
    files = sorted(str(path) for path in folder.rglob("*") if path.is_file())
    command = _command(Path(output), folder, served)
    return TritonReport(
        str(folder), name, served.backend, served.max_batch, files, shlex.join(command)
    )


def _command(repository: Path, folder: Path, served: Served) -> list[str]:
    """How the server is started.

    Triton opens plugin libraries and does not ask them for their plugins; `REGISTER` does.
    """
    command = ["tritonserver", f"--model-repository={repository.resolve()}"]
    if served.library is None:
        return command
    library = folder.resolve() / served.library.name
    return ["env", f"{VARIABLE}={library}", f"LD_PRELOAD={REGISTER}", *command]


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`; it gets that name when all is written.

    Raises:
        InputError: something of this name is there, or the disk refuses.
    """
    if folder.exists():
        fix = "remove it, or choose another with --name"
        raise bad_input("output", "a model that is not there yet", folder, fix)
    temporary = make_folder(folder.parent) / f".{folder.name}.{os.getpid()}"
    try:
        temporary.mkdir()
        yield temporary
        temporary.rename(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


# --- what Triton loads ------------------------------------------------------------------------


def _served(model: str | Path, max_batch: int | None, library: str | Path | None) -> Served:
    """The file as Triton sees it, or an InputError that says why it would not load it."""
    if max_batch is not None and max_batch < 1:
        raise bad_input("max_batch", "at least 1", max_batch)
    return _onnx(model, max_batch) if is_onnx(model) else _engine(model, max_batch, library)


def _onnx(model: str | Path, max_batch: int | None) -> Served:
    proto = read_onnx(model)
    metadata = read_metadata(proto, model)
    step = metadata[contract.PREPROCESSING]["padding_px"]
    # Of two shapes that differ everywhere: what differs in the outputs too is free
    profile = Profile((1, 3, step, step), (1, 3, step, step), (2, 3, 2 * step, 2 * step))
    served = Served(
        backend="onnxruntime",
        platform="onnxruntime_onnx",
        place="model.onnx",
        kind="KIND_CPU",  # where the file's numbers were compared with PyTorch's
        metadata=metadata,
        profile=profile,
        max_batch=max_batch or LARGEST_BATCH,
    )
    _check_tensors(proto, _plan(metadata, profile, output_plan), model)
    return served


def _check_tensors(proto: onnx.ModelProto, plan: Plan, model: str | Path) -> None:
    """Raise InputError unless the file's outputs are the contract's: Triton compares them."""
    from onnx.helper import tensor_dtype_to_np_dtype

    found = {value.name: value.type.tensor_type for value in proto.graph.output}
    for name, (shape, dtype) in plan.items():
        expected, got = f"the output {name} {dtype} {list(shape)} ({FREE}: free)", "none"
        if name in found:
            sides = [side.dim_value or FREE for side in found[name].shape.dim]
            got = f"{tensor_dtype_to_np_dtype(found[name].elem_type)} {sides}"
        if got != f"{dtype} {list(shape)}":
            raise bad_input("model", expected, f"{model} with {got}", "export it again")


def _engine(model: str | Path, max_batch: int | None, library: str | Path | None) -> Served:
    file = read_engine(model)
    built_by, plugin = file.manifest["backend"]["name"], file.manifest["plugin"]["kind"]
    if built_by != "tensorrt":
        fix = "build it with --backend tensorrt, or serve the .onnx file"
        raise bad_input("engine", "one of tensorrt, which Triton loads", built_by, fix)
    if plugin == "python":
        fix = f"{AGAIN} --plugin cpp, or none"
        raise bad_input("engine", "the C++ plugin or none", "Python's, for Python alone", fix)
    outputs = file.manifest.get("outputs", [])  # older manifests lack it
    if wrong := misfit(outputs, list[str], "outputs"):
        raise bad_input("manifest", "what the builder wrote", f"{model} ({wrong})", AGAIN)
    others = sorted(set(outputs) - set(contract.OUTPUTS))
    if others:  # Triton asks for each output of an engine, and no manifest has their types
        fix = "export without --inner"
        raise bad_input("engine", "no outputs for study", ", ".join(others), fix)
    least, most = file.profile.min[0], file.profile.max[0]
    if max_batch is not None and not least <= max_batch <= most:
        raise bad_input("max_batch", f"{least} to {most}, as the engine was built", max_batch)
    found = file.plugin(library).get("library")
    return Served(
        backend="tensorrt",
        platform="tensorrt_plan",
        place="model.plan",
        kind="KIND_GPU",
        metadata=file.metadata,
        profile=file.profile,
        # Triton forms batches from one picture on; an engine that begins higher gets them whole
        max_batch=(max_batch or most) if least == 1 else 0,
        library=Path(found) if found else None,
    )


# --- the configuration ------------------------------------------------------------------------


def configuration(name: str, served: Served, instances: int) -> dict[str, Any]:
    """The fields of Triton's `ModelConfig`, by its names."""
    images = _plan(served.metadata, served.profile, lambda _, shape: input_plan(shape))
    outputs = _plan(served.metadata, served.profile, output_plan)
    fields = {
        "name": name,
        "platform": served.platform,
        "backend": served.backend,
        "max_batch_size": served.max_batch,
        "input": _tensors(images, served.max_batch),
        "output": _tensors(outputs, served.max_batch),
        "instance_group": [{"kind": Word(served.kind), "count": instances}],
        # All but the samples, which are large: `onnx_file.read.parse_metadata` takes them
        "parameters": [
            {"key": key, "value": {"string_value": json.dumps(value)}}
            for key, value in sorted(served.metadata.items())
            if key != contract.SAMPLES
        ],
    }
    if served.max_batch > 1:
        fields["dynamic_batching"] = {"max_queue_delay_microseconds": QUEUE_MICROSECONDS}
    if served.backend == "tensorrt":
        fields["optimization"] = {"cuda": {"graphs": True}}  # of the shape it is tuned for
    return fields


def _plan(
    metadata: Metadata, profile: Profile, plan: Callable[[Metadata, Shape], Plan]
) -> Plan:
    """The buffers of a profile's shapes; a side in which the ends differ is FREE."""
    smallest, largest = plan(metadata, profile.min), plan(metadata, profile.max)
    found = {}
    for name, (shape, dtype) in smallest.items():
        ends = zip(shape, largest[name].shape, strict=True)
        found[name] = Buffer(tuple(a if a == b else FREE for a, b in ends), dtype)
    return found


def _tensors(plan: Plan, max_batch: int) -> list[dict[str, Any]]:
    """The fields of inputs or outputs; the batch is left out where Triton forms it."""
    tensors = []
    for name, (shape, dtype) in plan.items():
        dims = list(shape[1:] if max_batch else shape)
        kind = Word(TYPES[dtype.name])
        tensor: dict[str, Any] = {"name": name, "data_type": kind, "dims": dims or [1]}
        if not dims:  # one number per picture, but Triton's tensors have sides
            tensor["reshape"] = {"shape": []}
        tensors.append(tensor)
    return tensors


def protobuf_text(fields: Mapping[str, Any], indent: str = "") -> str:
    """A message in protobuf's text format: mappings are messages, lists repeated fields."""
    lines = []
    for name, value in fields.items():
        several = value if isinstance(value, list) else [value]
        if several and all(isinstance(each, Mapping) for each in several):
            for each in several:
                inner = protobuf_text(each, indent + "  ")
                lines.append(f"{indent}{name} {{\n{inner}{indent}}}\n")
        else:
            lines.append(f"{indent}{name}: {_scalar(value)}\n")
    return "".join(lines)


def _scalar(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_scalar, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return _quoted(value) if type(value) is str else str(value)


def _quoted(text: str) -> str:
    """Text in quotes: what is not plain ASCII, and what has a meaning in quotes, in octal."""
    plain = set(range(32, 127)) - set(b'"\\')
    codes = (chr(c) if c in plain else f"\\{c:03o}" for c in text.encode("utf-8"))
    return f'"{"".join(codes)}"'
