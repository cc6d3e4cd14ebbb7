"""Which runtimes are here: a session for a file, and all that can compute one.

    onnxruntime   ONNX Runtime on the CPU, our nodes by their function bodies
    numpy         ONNX Runtime, our nodes by the loops of `tensormask_edu.reference`
    openvino      OpenVINO on the CPU, the bodies in the nodes' places
    parsed        the network that TensorRT's parser made of the file, layer by layer on the CPU
    compiled      the PyTorch graph under torch.compile (slow to start, so only on request)
    engine        TensorRT engines of the file, where there is a GPU

`open_session` of an ONNX file loads no PyTorch; `find_sessions` does.

next: verify/pictures.py
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensormask_edu.base.errors import InputError, bad_input

from .. import contract
from ..engine.device import find_device
from ..engine.manifest import read_engine
from ..onnx_file.portable import is_portable
from ..onnx_file.read import is_onnx, read_metadata, read_onnx
from .numpy_loops import LoopsSession
from .onnxruntime import OnnxSession
from .openvino import OpenvinoSession
from .session import Session, check_model

if TYPE_CHECKING:
    import onnx

    from tensormask_edu.detector.model import TensorMask

CPU_NAMES = ("onnxruntime", "openvino")  # that `predict` and `bench` take
NAMES = ("onnxruntime", "numpy", "openvino", "parsed", "compiled")
DEFAULT_NAMES = NAMES[:4]
LONG_NAMES = {
    "numpy": "the NumPy reference inside ONNX Runtime",
    "openvino": "OpenVINO",
    "parsed": "TensorRT's parser",
}


def open_session(
    path: str | Path, threads: int = 0, runtime: str = "onnxruntime", **engine_options: Any
) -> Session:
    """A session for a file of `tensormask-export`: ONNX by its suffix, else an engine.

    Args:
        threads: of the CPU, for an ONNX file; 0: as many as it has cores.
        runtime: one of `CPU_NAMES`, for an ONNX file.
        engine_options: of `engine.EngineSession`; an ONNX file has no use for them.

    Raises:
        InputError: not such a file, or one that cannot run here; the message says why and what
            to do.
    """
    check_model(path)
    if runtime not in CPU_NAMES:
        raise bad_input("runtime", " or ".join(CPU_NAMES), repr(runtime))
    if is_onnx(path) and runtime == "openvino":
        return OpenvinoSession(read_onnx(path), threads)
    if is_onnx(path):
        return OnnxSession(path, threads)
    if runtime != CPU_NAMES[0]:
        raise bad_input("runtime", "none with an engine, which TensorRT runs", runtime)
    from .engine import EngineSession

    return EngineSession(path, **engine_options)


def find_sessions(
    proto: onnx.ModelProto,
    names: Sequence[str] = DEFAULT_NAMES,
    model: TensorMask | None = None,
    engines: Sequence[str | Path] = (),
    threads: int = 0,
) -> tuple[list[Session], dict[str, str]]:
    """The runtimes of `names` that are here, and of the others the reason why not.

    Args:
        model: what `proto` was exported from, for `compiled`.
        engines: built of `proto`.
        threads: of the CPU; 0: as many as it has cores.

    Raises:
        InputError: an unknown name, no ONNX Runtime, a file that ONNX Runtime does not take, or
            an engine that is damaged or of another model.
    """
    from tensormask_edu.ops.build import find_compiler

    from .eager import CompiledSession
    from .parsed import ParsedSession

    if unknown := sorted(set(names) - set(NAMES)):
        raise bad_input("runtimes", f"some of {', '.join(NAMES)}", ", ".join(unknown))
    file, metadata = proto.SerializeToString(), read_metadata(proto, "the ONNX file")
    sessions: list[Session] = []
    not_run = {} if engines else {"TensorRT engine": "none given: --engine"}
    if "onnxruntime" in names:
        sessions.append(OnnxSession(file, threads))
    optional: dict[str, Callable[[], Session]] = {
        "numpy": lambda: LoopsSession(file, threads),
        "openvino": lambda: OpenvinoSession(proto, threads),
        "parsed": lambda: ParsedSession(proto),
    }
    if "numpy" in names and is_portable(proto):
        del optional["numpy"]
        not_run[LONG_NAMES["numpy"]] = "a portable file has no nodes for it to compute"
    for name in (name for name in optional if name in names):
        try:
            sessions.append(optional[name]())
        except InputError as error:
            not_run[LONG_NAMES[name]] = str(error)
    if "compiled" in names and model is not None and find_compiler() is None:
        not_run["torch.compile"] = "no C++ compiler found (looked for $CXX, c++, g++, clang++)"
    elif "compiled" in names and model is not None:
        sessions.append(CompiledSession(model, metadata))
    for path in engines:
        check_engine(path, metadata)
        if find_device() is None:
            not_run[Path(path).name] = "an engine needs an NVIDIA GPU to run"
        else:
            sessions.append(open_session(path))
    return sessions, not_run


def check_engine(path: str | Path, ours: dict[str, Any]) -> None:
    """InputError if an engine or its manifest is damaged, or of another file than `ours`.

    Hashes say so without a GPU.
    """
    stored = read_engine(path).metadata
    if any(
        stored.get(key) != ours[key] for key in (contract.WEIGHTS_SHA256, contract.DETECTOR)
    ):
        expected = "one that was built of this ONNX file"
        raise bad_input("engine", expected, path, "build it again")
