"""The host build of the kernel source: compiled with the machine's C++ compiler at first use,
then cached.

Each dtype is a library of its own, so that the first use waits for one alone.

    x:     (N, V, U, H, W)                                        CPU tensor, float64/32/16 or bfloat16
    out:   (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam))            its dtype
    index: (K, 3) int64, the cells (n, y, x) of K windows;  windows op: out (K, lam*V, lam*U)

The functions trust their arguments: the public op checks them once. Results do not depend on
the number of threads, at most `torch.get_num_threads()`. Source:
`plugins/swap_align2nat/host.cpp`.

next: ops/cuda.py
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ..base.files import written_whole
from .transforms import check_index

DTYPES = {torch.float64: 0, torch.float32: 1, torch.float16: 2, torch.bfloat16: 3}
COMMON_FLAGS = ("-std=c++17", "-O3", "-shared", "-fPIC", "-pthread", "-fvisibility=hidden")
# The first set that the compiler takes: not every compiler knows -march=native.
FLAG_SETS = (("-march=native", *COMMON_FLAGS), COMMON_FLAGS)

# Elements written from which on a second thread pays. An element of a window costs more than
# one among all.
SHARED_WORK = 1 << 17
SHARED_WINDOWS = 1 << 12

INDEX_OUTSIDE = 3  # the code that says so
_Sizes = ctypes.c_int64 * 6
_lock = threading.Lock()


def forward(x: Tensor, lam: int, pad_value: float) -> Tensor:
    """(N, V, U, H, W) -> (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam))."""
    n, v, u, height, width = x.shape
    out = x.new_empty(n, lam * v, lam * u, -(-height // lam), -(-width // lam))
    if out.numel():
        x = x.contiguous()
        _call(
            "swap_forward",
            x,
            x.shape,
            lam,
            pad_value,
            _threads(out),
            x.data_ptr(),
            out.data_ptr(),
        )
    return out


def backward(grad: Tensor, lam: int, height: int, width: int) -> Tensor:
    """The adjoint of `forward`: gradient of the output -> gradient (N, V, U, height, width) of
    the input."""
    n, fine_v, fine_u = grad.shape[:3]
    grad_x = grad.new_empty(n, fine_v // lam, fine_u // lam, height, width)
    if grad_x.numel():
        grad = grad.contiguous()
        pointers = grad.data_ptr(), grad_x.data_ptr()
        _call("swap_backward", grad, grad_x.shape, lam, _threads(grad_x), *pointers)
    return grad_x


def forward_windows(x: Tensor, lam: int, index: Tensor, pad_value: float) -> Tensor:
    """The windows at the cells `index` alone: (K, lam*V, lam*U). Raises InputError if one is
    outside."""
    count = index.shape[0]
    out = x.new_empty(count, lam * x.shape[1], lam * x.shape[2])
    if out.numel():
        x, index = x.contiguous(), index.contiguous()
        pointers = x.data_ptr(), index.data_ptr(), count, out.data_ptr()
        threads = _threads(out, SHARED_WINDOWS)
        if _call("swap_forward_windows", x, x.shape, lam, pad_value, threads, *pointers):
            check_index(index, _grid(x.shape, lam))
    return out


def backward_windows(
    grad: Tensor, lam: int, index: Tensor, input_shape: tuple[int, ...]
) -> Tensor:
    """The adjoint of `forward_windows`; windows that occur twice in `index` add."""
    grad_x = grad.new_empty(input_shape)
    if grad_x.numel():
        grad, index = grad.contiguous(), index.contiguous()
        pointers = grad.data_ptr(), index.data_ptr(), len(index), grad_x.data_ptr()
        if _call("swap_backward_windows", grad, grad_x.shape, lam, _threads(grad_x), *pointers):
            check_index(index, _grid(grad_x.shape, lam))
    return grad_x


def _grid(shape: torch.Size, lam: int) -> tuple[int, int, int]:
    """What an index (n, y, x) has to stay below."""
    n, _, _, height, width = shape
    return n, -(-height // lam), -(-width // lam)


def _threads(written: Tensor, shared: int = SHARED_WORK) -> int:
    """How many threads write this tensor: starting one costs more than it helps with a small
    one."""
    return torch.get_num_threads() if written.numel() >= shared else 1


def available() -> tuple[bool, str]:
    """Whether the CPU kernels run here, and the reason in words. Compiles those of float32 at
    first."""
    library, reason = _load(torch.float32)
    return library is not None, reason


def kernel_folder() -> Path:
    """The folder of the kernel sources: data of the installed package, or `plugins/` of a
    checkout."""
    here = Path(__file__).resolve()
    candidates = (
        here.parent / "_kernels" / "swap_align2nat",
        here.parents[2] / "plugins" / "swap_align2nat",
    )
    for folder in candidates:
        if (folder / "core.h").is_file():
            return folder
    raise FileNotFoundError(
        f"no kernel sources in {' or '.join(str(folder) for folder in candidates)}"
    )


def cache_folder() -> Path:
    """Where compiled kernels are kept: `TENSORMASK_CACHE`, else the user's cache folder."""
    if chosen := os.environ.get("TENSORMASK_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "tensormask_edu"


def _call(name: str, tensor: Tensor, shape: torch.Size, lam: int, *arguments: float) -> int:
    """0, or the code for an index outside; raises for what else can happen."""
    library, reason = _load(tensor.dtype)
    if library is None:
        raise RuntimeError(f"the CPU kernels are not available: {reason}")
    code: int = getattr(library, name)(DTYPES[tensor.dtype], _Sizes(*shape, lam), *arguments)
    if code not in (0, INDEX_OUTSIDE):
        raise MemoryError(
            f"{name}: no memory for the scratch rows of shape {tuple(shape)}, lam {lam}"
        )
    return code


@cache
def _load(dtype: torch.dtype) -> tuple[ctypes.CDLL | None, str]:
    compiler = _find_compiler()
    if compiler is None:
        return None, "no C++ compiler found (looked for $CXX, c++, g++, clang++)"
    try:
        with _lock:
            path = _compiled(compiler, dtype, cache_folder())
        library = _declared(ctypes.CDLL(str(path)))
        library.swap_use_threads(_threads_of_torch())
        return library, f"compiled with {compiler}, cached in {path}"
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return None, f"compiling with {compiler} failed: {error}"


def _find_compiler() -> str | None:
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        if name and (path := shutil.which(name)):
            return path
    return None


def _compiled(compiler: str, dtype: torch.dtype, folder: Path) -> Path:
    source = kernel_folder() / "cpu" / "kernels.cpp"
    path = folder / f"cpu-{str(dtype).removeprefix('torch.')}-{_key(compiler, source)}.so"
    if not path.is_file():
        with written_whole(path) as temporary:
            _compile(compiler, source, dtype, temporary)
    return path


def _key(compiler: str, source: Path) -> str:
    """Changes with the sources, the flags, the compiler and, because of -march=native, the
    processor."""
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, check=True
    ).stdout
    folders = source.parent, kernel_folder()
    headers = [file for folder in folders for file in sorted(folder.glob("*.h"))]
    sources = [file.read_text() for file in (source, *headers)]
    texts = (*sources, str(FLAG_SETS), version, _processor())
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:20]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(
        sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    )


def _compile(compiler: str, source: Path, dtype: torch.dtype, target: Path) -> None:
    for flags in FLAG_SETS:
        command = [
            compiler,
            *flags,
            f"-DSWAP_DTYPE={DTYPES[dtype]}",
            str(source),
            "-o",
            str(target),
        ]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if result.returncode == 0:
            return
    raise OSError(f"{' '.join(command)}: {result.stderr.strip()[-600:]}")


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library with the argument types of its functions."""
    pointer, count, pad, threads = (
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_double,
        ctypes.c_int,
    )
    dtype, shape = ctypes.c_int, ctypes.POINTER(ctypes.c_int64)
    library.swap_use_threads.argtypes = [pointer]
    library.swap_forward.argtypes = [dtype, shape, pad, threads, pointer, pointer]
    library.swap_backward.argtypes = [dtype, shape, threads, pointer, pointer]
    library.swap_forward_windows.argtypes = [
        dtype,
        shape,
        pad,
        threads,
        pointer,
        pointer,
        count,
        pointer,
    ]
    library.swap_backward_windows.argtypes = [
        dtype,
        shape,
        threads,
        pointer,
        pointer,
        count,
        pointer,
    ]
    return library


@cache
def _threads_of_torch() -> int | None:
    """The address of `GOMP_parallel` in the OpenMP library that PyTorch has loaded, None if
    there is none.

    Threads of our own would take turns with PyTorch's, which wait for their next task without
    sleeping.
    """
    try:
        mapped = Path("/proc/self/maps").read_text().split()
    except OSError:
        return None
    names = re.compile(r"/lib(gomp|iomp5|omp)[^/]*\.so")
    for path in dict.fromkeys(word for word in mapped if names.search(word)):
        if start := getattr(ctypes.CDLL(path), "GOMP_parallel", None):
            return ctypes.cast(start, ctypes.c_void_p).value
    return None
