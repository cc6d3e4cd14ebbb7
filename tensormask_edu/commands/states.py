"""Known bad states of a machine: how each is seen, and its cure.

Each check looks at one thing and says nothing where it is well. A state that stops what every
installation must do is a problem; any other is worth knowing, as something else then fails in a
way that does not name it.

next: commands/report_bug.py
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import __version__
from ..base.machine import free_memory, is_writable, version

GIB = 2**30
SMALL_DISK, NO_DISK = GIB, 50 * 2**20  # a training needs three times its model beside it
SMALL_MEMORY = GIB
SMALL_SHM = GIB // 2  # Docker gives 64 MiB where nothing is asked for
FEW_FILES = 1024  # four workers with batches of sixteen have 570 of them open
# The oldest NVIDIA driver for a major version of CUDA, by NVIDIA's table of compatibility
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}

DRIVER = Path("/proc/driver/nvidia/version")
SHM = Path("/dev/shm")
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
CACHE = "set TENSORMASK_CACHE to a folder of your own"
NO_WORKERS = "or train with --workers 0"


@dataclass(frozen=True)
class State:
    """A bad state that was found. stops: nothing works before it is mended."""

    name: str
    found: str
    cure: str
    stops: bool = False


Check = Callable[[], State | None]
CHECKS: dict[str, Check] = {}


def check(name: str) -> Callable[[Callable[[], tuple[Any, ...] | None]], Check]:
    """Register a check; it returns what was found, the cure, and whether that stops all."""

    def register(look: Callable[[], tuple[Any, ...] | None]) -> Check:
        def looked() -> State | None:
            found = look()
            return None if found is None else State(name, *found)

        CHECKS[name] = looked
        return looked

    return register


def bad_states() -> list[State]:
    """Every bad state of this machine; a check that fails itself says so."""
    found = []
    for name, looked in CHECKS.items():
        try:
            state = looked()
        except Exception as error:  # a machine that is broken enough breaks checks too
            words = f"cannot be looked at ({type(error).__name__}: {error})"
            state = State(name, words, "see what that says")
        if state is not None:
            found.append(state)
    return found


# --- places -----------------------------------------------------------------------------------


@check("this folder")
def _folder() -> tuple[Any, ...] | None:
    here = Path.cwd()
    if not is_writable(here):
        return "cannot be written", "go to a folder of your own, or name one with --output"
    return _full(here)


@check("temporary files")
def _temporary() -> tuple[Any, ...] | None:
    try:
        place = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        return str(error), "set TMPDIR to a folder that may be written", True
    return _full(place)


@check("home")
def _home() -> tuple[Any, ...] | None:
    home = os.path.expanduser("~")
    if is_writable(home):
        return None
    return f"{home} cannot be written", "set HOME to a folder that may: caches are lost else"


@check("kernel cache")
def _cache() -> tuple[Any, ...] | None:
    from ..ops.build import cache_folder, can_write

    if not can_write(cache_folder()):
        return f"{cache_folder()} cannot be written: kernels are temporary", CACHE
    if os.statvfs(cache_folder()).f_flag & getattr(os, "ST_NOEXEC", 0):
        return f"{cache_folder()} is on a disk from which nothing may run (noexec)", CACHE
    return _full(cache_folder())


@check("kernels in the cache")
def _kernels() -> tuple[Any, ...] | None:
    from ..ops.build import cache_folder, is_whole

    files = [
        path for path in cache_folder().glob("[!.]*") if path.suffix in (".so", ".kernels")
    ]
    hidden = [path for path in cache_folder().glob(".*") if path.is_file()]
    damaged = [path for path in files if not is_whole(path)]
    if not damaged and not hidden:
        return None
    found = f"{len(damaged)} damaged or of an older version, {len(hidden)} never finished"
    return found, f"nothing runs them; rm -r {cache_folder()} frees the room"


def _full(place: Path) -> tuple[Any, ...] | None:
    free = shutil.disk_usage(place).free
    if free >= SMALL_DISK:
        return None
    return f"{free / GIB:.2f} GiB free in {place}", "make room on this disk", free < NO_DISK


# --- limits -----------------------------------------------------------------------------------


@check("memory")
def _memory() -> tuple[Any, ...] | None:
    free = free_memory()
    fix = "train with a smaller --batch-size or --accumulate 2, and --cache 0"
    return None if free >= SMALL_MEMORY else (f"{free / GIB:.2f} GiB free", fix)


@check("open files")
def _open_files() -> tuple[Any, ...] | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard >= FEW_FILES:
        return None
    cure = f"raise it (docker: --ulimit nofile=65536), {NO_WORKERS}"
    return f"{hard} at most in a process", cure


@check("shared memory")
def _shared_memory() -> tuple[Any, ...] | None:
    if not SHM.is_dir() or (total := shutil.disk_usage(SHM).total) >= SMALL_SHM:
        return None
    return f"{total / GIB:.2f} GiB in {SHM}", f"docker: --shm-size 1g, {NO_WORKERS}"


@check("threads")
def _threads() -> tuple[Any, ...] | None:
    asked, cores = os.environ.get("OMP_NUM_THREADS"), len(os.sched_getaffinity(0))
    if asked is not None and not (asked.isdigit() and int(asked) > 0):
        return f"OMP_NUM_THREADS is {asked!r}", "set it to a number, or unset it"
    if asked is not None and int(asked) > cores:
        return f"OMP_NUM_THREADS is {asked} on {cores} cores", "unset it: threads are tried"
    words = CPU_QUOTA.read_text(encoding="utf-8").split() if CPU_QUOTA.is_file() else ["max"]
    if asked is None and words[0] != "max" and (share := int(words[0]) / int(words[1])) < cores:
        cure = f"set OMP_NUM_THREADS={max(1, int(share))}"
        return f"this container may use {share:.3g} of the {cores} cores that it sees", cure
    return None


# --- packages that do not belong together -----------------------------------------------------


@check("torchvision")
def _torchvision() -> tuple[Any, ...] | None:
    torch, torchvision = version("torch"), version("torchvision")
    if not torch or not torchvision:
        return None  # the packages' own lines say so
    for line in metadata.requires("torchvision") or []:
        wanted = re.match(r"torch\s*\(?==\s*([\w.]+)", line)
        if wanted and wanted[1] != torch.split("+")[0]:
            found = f"torchvision {torchvision} is made for torch {wanted[1]}, here is {torch}"
            return found, "install both anew, together: pip install -U torch torchvision", True
    return None


@check("arrays")
def _arrays() -> tuple[Any, ...] | None:
    if not version("torch") or not version("numpy"):
        return None
    import numpy as np
    import torch

    try:
        torch.from_numpy(np.zeros(1))
    except RuntimeError as error:  # made for another major version of NumPy
        words = f"torch {version('torch')} cannot use numpy {version('numpy')} ({error})"
        return words, "install both anew, together: pip install -U torch numpy", True
    return None


@check("ONNX Runtime")
def _onnxruntime() -> tuple[Any, ...] | None:
    names = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
    both = [name for name in names if version(name)]
    if len(both) < 2:
        return None
    cure = f"pip uninstall {' '.join(both)}, then install one of them"
    return f"{' and '.join(both)} overwrite each other's files", cure


@check("this installation")
def _installation() -> tuple[Any, ...] | None:
    installed = version("tensormask-edu")
    if installed in (None, __version__):
        return None
    place = Path(__file__).resolve().parents[1]
    found = f"{installed} is installed, {__version__} runs from {place}"
    return found, "pip install -e . there, or leave that folder"


@check("C++ compiler")
def _compiler() -> tuple[Any, ...] | None:
    from ..ops.build import find_compiler

    if version("torch") is None:
        return None
    if find_compiler() is None:
        cure = "install one (Debian: apt install g++): operators are several times quicker"
        return "none: operators run as PyTorch's formula", cure
    from .. import ops

    reason = ops.missing("cpu")
    cure = "see what it says; CXX names another compiler"
    return (f"operators run as PyTorch's formula: {reason}", cure) if reason else None


# --- GPU --------------------------------------------------------------------------------------


@check("GPU")
def _gpu() -> tuple[Any, ...] | None:
    torch: Any = sys.modules.get("torch")
    if torch is None or not DRIVER.is_file():
        return None
    driver = re.search(r"Module\s+(?:for \w+\s+)?(\d+)", DRIVER.read_text(encoding="utf-8"))
    if torch.version.cuda is None:
        cure = "install PyTorch's build for CUDA: https://pytorch.org/get-started/locally"
        return "an NVIDIA GPU, but a PyTorch for CPUs alone", cure
    if torch.cuda.is_available():
        return _old_gpu(torch)
    oldest = OLDEST_DRIVER.get(int(torch.version.cuda.split(".")[0]), 0)
    if driver and int(driver[1]) < oldest:
        found = f"driver {driver[1]} is too old for CUDA {torch.version.cuda} of this PyTorch"
        return found, f"install a driver from {oldest} on, or PyTorch for an older CUDA"
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        hidden = f"hidden by CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']!r}"
        return hidden, "unset it"
    return "there is a driver, but no device", "a container wants: docker run --gpus all"


def _old_gpu(torch: Any) -> tuple[Any, ...] | None:
    """A GPU for which this PyTorch holds no kernels, not even ones to be translated."""
    major, minor = torch.cuda.get_device_capability()
    known = [
        int(digits) for digits in re.findall(r"_(\d+)", " ".join(torch.cuda.get_arch_list()))
    ]
    if not known or 10 * major + minor >= min(known):
        return None
    found = f"sm_{major}{minor} is older than what this PyTorch is built for (sm_{min(known)})"
    return found, "install an older PyTorch, or hide the GPU with CUDA_VISIBLE_DEVICES="
