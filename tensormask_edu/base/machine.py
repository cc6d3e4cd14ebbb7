"""This machine: date, versions, processor, threads, GPU. Loads no package to say so.

next: base/memory.py
"""

from __future__ import annotations

import math
import os
import platform
import shutil
import stat
import sys
import tempfile
from contextlib import suppress
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import __version__
from .errors import bad_input

COMPILERS = ("c++", "g++", "clang++")


def machine() -> dict[str, Any]:
    """Facts of this machine and process that stand beside every stored figure.

    Returns:
        date, versions of this package, torch and numpy, processor, and of PyTorch, where it is
        loaded, its threads and the GPU it sees.
    """
    torch = sys.modules.get("torch")
    return {
        "date": date.today().isoformat(),
        "tensormask_edu": __version__,
        # torch itself also tells its build: 2.11.0+cpu
        "torch": str(torch.__version__) if torch else version("torch"),
        "numpy": version("numpy"),
        "processor": platform.machine(),
        "threads": torch.get_num_threads() if torch else os.cpu_count(),
        "gpu": gpu(),
    }


def in_words() -> dict[str, str]:
    """The machine as a bug report needs it."""
    compilers = (compiler for compiler in COMPILERS if shutil.which(compiler))
    return {
        "tensormask_edu": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": str(os.cpu_count()),
        "free disk": f"{shutil.disk_usage(Path.cwd()).free / 2**30:.0f} GiB",
        "C++ compiler": next(compilers, "none (only needed for plugins)"),
        "GPU": _gpu_in_words(),
    }


def cache_folder() -> Path:
    """For compiled kernels and the last error: `TENSORMASK_CACHE`, else the user's cache."""
    if chosen := os.environ.get("TENSORMASK_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "tensormask_edu"


def own_temporary_folder() -> str:
    """A folder among the temporary files that no other user can write; the same each time.

    Raises:
        InputError: there is no place for temporary files.
    """
    try:
        path = os.path.join(tempfile.gettempdir(), f"tensormask_edu-{os.getuid()}")
    except FileNotFoundError:  # as in a container whose every disk is read-only
        expected, fix = "a folder that may be written", "set TMPDIR to one"
        raise bad_input("TMPDIR", expected, "none, and no such home", fix) from None
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
    found = os.lstat(path)
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o22:
        return path
    return tempfile.mkdtemp(prefix="tensormask_edu-")  # another user's came first


def is_writable(folder: str | Path) -> bool:
    """Whether there is such a folder, in which this process can make files."""
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)


def whole_memory() -> float:
    """Bytes that the machine has, or its container may take; infinity where nobody says."""
    known = _meminfo("MemTotal:")
    for most, _ in (("memory.max", ""), _CGROUP_1):
        with suppress(OSError, ValueError):  # "max": no limit
            known.append(int((_CGROUPS / most).read_text()))
    return min(known, default=math.inf)


def _meminfo(name: str) -> list[int]:
    """What Linux says of the machine's memory, in bytes."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return [int(next(x for x in lines if x.startswith(name)).split()[1]) * 1024]
    return []


def free_memory() -> int:
    """Bytes that this process may still take: of the machine, and of its container."""
    known = _meminfo("MemAvailable:")
    for most, used in (("memory.max", "memory.current"), _CGROUP_1):
        with suppress(OSError, ValueError):  # "max": no limit
            limit, taken = (int((_CGROUPS / name).read_text()) for name in (most, used))
            known.append(max(limit - taken, 0))
    return min(known, default=4 * 2**30)


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for products of bfloat16 matrices.

    Those without them convert each number first, and are slower than in float32.
    """
    with suppress(OSError):  # not Linux: no
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):  # of the first core; all are alike
                return not {"avx512_bf16", "amx_bf16"}.isdisjoint(line.split())
    return False


_CGROUPS = Path("/sys/fs/cgroup")
_CGROUP_1 = ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")


def allow_open_files(number: int) -> int:
    """Let this process have so many open files, if it may; how many it may have."""
    try:
        import resource
    except ImportError:  # Windows
        return number
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = hard == resource.RLIM_INFINITY
    wanted = number if unlimited else min(number, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return number if soft == resource.RLIM_INFINITY else soft


def gpu() -> str | None:
    """The GPU that PyTorch can use, None where there is none or PyTorch is not loaded."""
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None


def _gpu_in_words() -> str:
    name = gpu()
    if name is None:
        return "none that PyTorch can use"
    torch = sys.modules["torch"]
    major, minor = torch.cuda.get_device_capability()
    return f"{name}, compute capability {major}.{minor}, CUDA {torch.version.cuda}"


def version(distribution: str) -> str | None:
    """The installed version of a distribution, None where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
