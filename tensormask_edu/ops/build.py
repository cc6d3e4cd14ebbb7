"""Compile once, keep on disk: what the implementations `cpu`, `cuda` and `plain` share.

A built file is named after a key of all that went into it, sources, flags, compiler and
processor, so nothing in the cache goes stale and any of it may be deleted at any time. It is
written whole: processes that build at once do not meet. Its SHA-256 lies beside it: what a
crash or a full disk cut off, or somebody changed, is built anew and never loaded.

next: ops/kernel.py
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ..base.files import file_sha256, written_whole
from ..base.machine import cache_folder, is_writable, own_temporary_folder

_lock = threading.Lock()


def kernel_folder() -> Path:
    """The folder of the kernel sources: data of the installed package, or of a checkout."""
    here = Path(__file__).resolve()
    candidates = (
        here.parent / "_kernels" / "swap_align2nat",  # an installed package
        here.parents[2] / "plugins" / "swap_align2nat",  # a checkout
    )
    for folder in candidates:
        if (folder / "core.h").is_file():
            return folder
    raise FileNotFoundError(
        f"no kernel sources in {' or '.join(str(folder) for folder in candidates)}"
    )


def key(*texts: str) -> str:
    """A name for what these texts produce."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:20]


def kept(name: str, build: Callable[[Path], None]) -> Path:
    """The file of this name in the cache; if it is not there, whole, `build(path)` writes it.

    Where the cache cannot be written, into a folder of this user among the temporary files.
    """
    with _lock:  # of this process: else two threads would build the same at once
        path = cache_folder() / name
        if is_whole(path):  # asked once: it reads all of the file
            return path
        if not can_write(path.parent):
            path = Path(own_temporary_folder()) / name
            if is_whole(path):
                return path
        with written_whole(path) as temporary:
            build(temporary)
            text = f"{file_sha256(temporary)}  {name}\n"
            sum_file(path).write_text(text, encoding="utf-8")
    return path


def sum_file(path: Path) -> Path:
    """Where the SHA-256 of a built file is written, as `sha256sum --check` reads it."""
    return path.with_name(path.name + ".sha256")


def is_whole(path: Path) -> bool:
    """Whether a built file is there, as it was written."""
    try:
        written = sum_file(path).read_text(encoding="utf-8").split()
        return written[:1] == [file_sha256(path)]
    except (OSError, ValueError):
        return False


def can_write(folder: Path) -> bool:
    """Whether files can be made in a folder, which is made if it is not there."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return is_writable(folder)


def loaded(build: Callable[[], Path]) -> ctypes.CDLL:
    """The shared library that `build` finds or makes; one that does not load is made anew."""
    path = build()
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        path.unlink(missing_ok=True)  # cut off, or of a machine that only seems the same
        return ctypes.CDLL(str(build()))


# --- with the machine's C++ compiler ----------------------------------------------------------


def find_compiler() -> str | None:
    """The path of a C++ compiler: $CXX, c++, g++ or clang++; None if there is none."""
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        if name and (path := shutil.which(name)):
            return path
    return None


def library(
    compiler: str, source: Path, name: str, flag_sets: Sequence[tuple[str, ...]]
) -> Path:
    """`source` as a shared library from the cache, `name` in front of its key.

    flag_sets: the first that the compiler takes is used; not every compiler knows each flag.
    Raises OSError with the compiler's words if it takes none.
    """
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, check=True
    ).stdout
    # Every header that the source could include belongs to the key.
    folders = {source.parent, kernel_folder()}
    headers = [file for folder in sorted(folders) for file in sorted(folder.glob("*.h"))]
    sources = [file.read_text() for file in (source, *headers)]
    # What -march=native allows here belongs to the key: on another processor of a shared home
    # the same library could hold instructions that it does not have.
    named = key(*sources, str(flag_sets), version, _processor(), _native_macros(compiler))
    return kept(
        f"{name}-{named}.so", lambda target: _compile(compiler, source, flag_sets, target)
    )


def _compile(
    compiler: str, source: Path, flag_sets: Sequence[tuple[str, ...]], target: Path
) -> None:
    for flags in flag_sets:
        command = [compiler, *flags, str(source), "-o", str(target)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if result.returncode == 0:
            return
    # What the compiler says of the last set, which asks for the least.
    raise OSError(f"{' '.join(command)}: {result.stderr.strip()[-600:]}")


def _native_macros(compiler: str) -> str:
    """The macros that a compiler sets for this processor: each instruction set has one."""
    command = [compiler, "-march=native", "-dM", "-E", "-x", "c++", os.devnull]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return result.stdout if result.returncode == 0 else ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return f"{platform.machine()} {platform.processor()}"
    # One line of a kind: the frequency changes, and all cores are alike.
    return "\n".join(
        sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    )
