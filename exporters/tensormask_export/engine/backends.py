"""TensorRT and TensorRT-RTX behind one view: which is here, and what it builds for.

    tensorrt      builds on the machine with the GPU, for that GPU
    tensorrt_rtx  builds on any machine, for a family of GPUs; each compiles the last step
                  when it loads

next: engine/plugin.py
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import tensormask_edu
from tensormask_edu.base.errors import InputError, bad_input

from .device import find_device

PACKAGES = ("tensorrt", "tensorrt_rtx")
# TensorRT-RTX builds for these unless told; and for later ones, says its documentation
RTX_DEFAULT_TARGETS = ("8.0", "8.6", "8.9", "12.0")
# It names this one, too, but builds no network there that multiplies matrices in float32
TURING = 75
# Remarks that say nothing: a function used twice repeats its node names, and int64 outputs stay
# int64
HARMLESS = ("already exists, the output tensors of this new instance", "has Int64 binding")


@dataclass(frozen=True)
class Backend:
    """One of `PACKAGES`, importable here."""

    name: str
    module: ModuleType

    @property
    def version(self) -> str:
        return str(self.module.__version__)

    @property
    def is_rtx(self) -> bool:
        return self.name == "tensorrt_rtx"

    @property
    def tool(self) -> str:
        """The vendor's command line program."""
        return "tensorrt_rtx" if self.is_rtx else "trtexec"

    def targets(self, sm: Sequence[int]) -> dict[str, Any]:
        """For which compute capabilities an engine is built.

        Args:
            sm: those asked for, 86 for 8.6; none: the backend's own choice.

        Returns:
            them, a note in words, and whether `later` ones may do as well.
        """
        if not self.is_rtx:
            device = find_device()
            here, name = ([device.capability], f", {device.name}") if device else ([], "")
            return _targets(here, f"the GPU of the machine that built it{name}")
        if sm:
            return _targets([f"{n // 10}.{n % 10}" for n in sm], "these and no others")
        note = "the default of TensorRT-RTX: these and later ones"
        return _targets(list(RTX_DEFAULT_TARGETS), note, later=True)

    def check_targets(self, sm: Sequence[int]) -> None:
        """Raise InputError for a target that this backend cannot build for."""
        if sm and not self.is_rtx:
            expected = "nothing: tensorrt builds for the GPU of this machine"
            fix = "leave --sm away, or use --backend tensorrt_rtx"
            raise bad_input("sm", expected, list(sm), fix)
        if len(set(sm)) < len(sm):
            raise bad_input("sm", "each compute capability once", list(sm))
        if TURING in sm:
            expected = (
                "later ones than Turing, where TensorRT-RTX multiplies no float32 matrices"
            )
            fix = "there run the .onnx file, or build with --backend tensorrt"
            raise bad_input("sm", expected, TURING, fix)
        known = self.known_targets() if self.is_rtx else []
        if wrong := [n for n in sm if n not in known]:
            expected = f"some of {known}, what {self.name} {self.version} builds for"
            raise bad_input("sm", expected, wrong)

    def known_targets(self) -> list[int]:
        """Compute capabilities that a detector can be built for, 86 for 8.6."""
        names = self.module.ComputeCapability.__members__
        numbers = {int(name[2:]) for name in names if name.startswith("SM")}
        return sorted(numbers - {TURING})


def _targets(capabilities: list[str], note: str, later: bool = False) -> dict[str, Any]:
    return {"compute_capabilities": capabilities, "later": later, "note": note}


def find_backend(name: str = "auto") -> Backend:
    """The backend asked for; "auto": `tensorrt` if it imports, else `tensorrt_rtx`."""
    name = name.replace("-", "_")
    if name not in ("auto", *PACKAGES):
        raise bad_input("backend", "auto, " + " or ".join(PACKAGES), repr(name))
    reasons = []
    for package in PACKAGES if name == "auto" else (name,):
        try:
            return Backend(package, import_module(package))
        except (ImportError, OSError, RuntimeError) as error:
            reasons.append(f"{package}: {error}")
    extras = {"auto": "rtx", "tensorrt": "tensorrt", "tensorrt_rtx": "rtx"}
    fix = f'pip install "tensormask-edu[{extras[name]}]"'
    raise bad_input("backend", "an installed TensorRT", "; ".join(reasons), fix)


def make_builder(trt: Any, logger: Any) -> Any:
    """A builder; `tensorrt` has none without a GPU."""
    try:
        return trt.Builder(logger)
    except (RuntimeError, TypeError) as error:
        problem = f"{trt.__name__} has no builder here: is there a GPU?"
        fix = "without one use --backend tensorrt_rtx"
        raise InputError(f"backend: {problem} {fix} ({error})") from None


def network_flags(trt: Any) -> int:
    """Flags of a network whose precision comes from the file: TensorRT 11 has no other kind."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)  # TensorRT 10 has to be asked for it


@contextmanager
def child_environment(backend: Backend) -> Iterator[dict[str, str]]:
    """The environment of a child process that uses the backend and this package.

    The ONNX parser of TensorRT-RTX opens its library by a name without version, which the wheel
    does not ship; without a link of that name on LD_LIBRARY_PATH, a node that maps to a plugin
    aborts the process.
    """
    # Both packages may lie in a checkout that is on this process's path alone
    roots = {Path(tensormask_edu.__file__).parents[1], Path(__file__).parents[2]}
    environment = dict(os.environ)
    paths = (*sorted(map(str, roots)), environment.get("PYTHONPATH"))
    environment["PYTHONPATH"] = _joined(*paths)
    with tempfile.TemporaryDirectory(prefix="tensormask_export_") as folder:
        if backend.is_rtx:
            library = _rtx_library()
            (Path(folder) / "libtensorrt_rtx.so").symlink_to(library)
            libraries = (folder, str(library.parent), environment.get("LD_LIBRARY_PATH"))
            environment["LD_LIBRARY_PATH"] = _joined(*libraries)
        yield environment


def _rtx_library() -> Path:
    libraries = Path(import_module("tensorrt_rtx_libs").__file__ or "").parent
    found = sorted(libraries.glob("libtensorrt_rtx.so*"))
    if not found:
        fix = 'pip install --force-reinstall "tensormask-edu[rtx]"'
        raise InputError(f"backend: no libtensorrt_rtx.so in {libraries}; {fix}")
    return found[-1]


def _joined(*paths: str | None) -> str:
    return os.pathsep.join(path for path in paths if path)


def make_logger(trt: Any) -> Any:
    """A logger that keeps what TensorRT says."""

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        """Keeps errors and warnings, each once."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.warnings: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            kept = {
                "INTERNAL_ERROR": self.errors,
                "ERROR": self.errors,
                "WARNING": self.warnings,
            }
            messages = kept.get(severity.name)
            if messages is None or message in messages or any(h in message for h in HARMLESS):
                return
            messages.append(message)

    return Logger()
