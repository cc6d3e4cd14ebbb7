"""Which form our ops take in an engine: a plugin in C++, one in Python, or none.

    cpp     the library that plugins/CMakeLists.txt builds, for every program that loads the
            engine
    python  `python_plugin.py`, on the kernels that NVRTC compiles, for Python programs that
            register it
    none    the function bodies in the ONNX file: standard ops, nothing to load

next: engine/python_plugin.py
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tensormask_edu.base.errors import InputError, bad_input
from tensormask_edu.base.files import file_sha256

from .. import contract
from . import python_plugin

if TYPE_CHECKING:
    from .backends import Backend

Kind = Literal["cpp", "python", "none"]
KINDS: tuple[Kind, ...] = ("cpp", "python", "none")
OPS = (contract.SWAP, contract.SWAP_WINDOWS)  # that have a plugin
LIBRARY = "libswap_align2nat_trt.so"
VARIABLE = "TENSORMASK_PLUGIN"  # names the library
BUILT = Path(__file__).resolve().parents[3] / "build" / "plugins" / LIBRARY  # in a checkout
BUILD = "cmake -S plugins -B build/plugins && cmake --build build/plugins"

_loaded: dict[str, str] = {}  # module -> the form that its registry holds


@dataclass(frozen=True)
class Plugin:
    """What was chosen. library, sha256: of the C++ plugin."""

    kind: Kind
    why: str
    library: str | None = None
    sha256: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def choose(asked: str, backend: Backend, library: str | Path | None = None) -> Plugin:
    """The plugin asked for, and why this one.

    Args:
        asked: "cpp", "python" or "none"; "auto": the C++ library if there is one, else Python's
            for TensorRT, else none.
        library: the C++ library; by default `$TENSORMASK_PLUGIN`, or the checkout's
            build/plugins.

    Raises:
        InputError: an unknown word, a library that is not there.
    """
    if asked not in ("auto", *KINDS):
        raise bad_input("plugin", "auto, " + ", ".join(KINDS), repr(asked))
    if library is not None and asked in ("python", "none"):
        fix = "leave one of the two away"
        raise bad_input("plugin", "cpp or auto with a library", asked, fix)
    if asked in ("auto", "cpp"):
        path, where = find_library(library)
        if path is not None:
            return Plugin("cpp", where, str(path), file_sha256(path))
        if asked == "cpp":
            fix = f"build it ({BUILD}) or set {VARIABLE}"
            raise bad_input("plugin", f"a {LIBRARY}", "none", fix)
    if asked == "none":
        return Plugin("none", "asked for")
    if asked == "python":
        return Plugin("python", "asked for")
    missing = f"no {LIBRARY} here"
    if backend.is_rtx:
        return Plugin("none", f"{missing}, and TensorRT-RTX promises no plugins")
    if find_spec("cuda") is None or find_spec("cuda.core") is None:
        return Plugin("none", f"{missing}, and Python's plugin needs tensormask-edu[cuda]")
    return Plugin("python", missing)


def find_library(given: str | Path | None) -> tuple[Path | None, str]:
    """The C++ plugin and why this one; None where nobody named one and none was built."""
    if named := given or os.environ.get(VARIABLE):
        if not Path(named).is_file():
            raise bad_input("plugin", f"a {LIBRARY}", f"no file {named}", f"build it: {BUILD}")
        return Path(named).resolve(), "asked for" if given else f"named by {VARIABLE}"
    return (BUILT, "built in build/plugins") if BUILT.is_file() else (None, "")


def load(trt: Any, kind: str, library: str | Path | None = None) -> None:
    """Make the plugin known to TensorRT in this process, before it parses or loads an engine.

    The registry belongs to the process and keeps the first plugin of a name, so it holds one
    form: asking for the same again is free, asking for another is an error.

    Raises:
        InputError: a library that is none, or one of another version; another form than the one
            loaded.
    """
    form = kind if library is None else f"{kind} {Path(library).resolve()}"
    if kind == "none" or _loaded.get(trt.__name__) == form:
        return
    if trt.__name__ in _loaded:
        expected = f"{_loaded[trt.__name__]}, which this process has loaded"
        raise bad_input("plugin", expected, form, "start a new process for the other one")
    if kind == "python":
        python_plugin.register(trt)
    else:
        _load_library(trt, Path(library or ""))
    if missing := [name for name in OPS if find_creator(trt, name) is None]:
        expected, got = f"the ops {', '.join(missing)} in it", f"none in {library or kind}"
        raise bad_input("plugin", expected, got, f"build the plugin of this version: {BUILD}")
    _loaded[trt.__name__] = form


def find_creator(trt: Any, name: str) -> Any:
    """What `trt` has registered for one of `OPS`, or None."""
    registry = trt.get_plugin_registry()
    return registry.get_creator(name, python_plugin.VERSION, python_plugin.NAMESPACE)


def _load_library(trt: Any, path: Path) -> None:
    try:
        has_creators = hasattr(ctypes.CDLL(str(path)), "getCreators")
    except OSError as error:
        problem = f"{path} does not load here ({error})"
        raise InputError(f"plugin: {problem}; build it: {BUILD}") from None
    if not has_creators:
        expected = "a library that exports getCreators"
        raise bad_input("plugin", expected, path, f"build {LIBRARY}: {BUILD}")
    trt.get_plugin_registry().load_library(str(path))
