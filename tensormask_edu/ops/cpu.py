"""The kernels for CPU tensors: compiled by the machine's C++ compiler at first use, then kept.

Each dtype is a library of its own, so that the first use waits for one alone.

    x:     (N, V, U, H, W)                              CPU tensor, float64/32/16 or bfloat16
    out:   (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam))  its dtype
    index: (K, 3) int64, the cells (n, y, x) of K windows;  windows op: out (K, lam*V, lam*U)

The functions trust their arguments: the public op checks them once. Results do not depend on
the number of threads, at most `torch.get_num_threads()`. Source:
`plugins/swap_align2nat/cpu/kernels.cpp`.

next: ops/cuda.py
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

from . import build
from .transforms import check_index

# dtype -> its number in kernels.cpp
DTYPES = {torch.float64: 0, torch.float32: 1, torch.float16: 2, torch.bfloat16: 3}
COMMON_FLAGS = ("-std=c++17", "-O3", "-shared", "-fPIC", "-pthread", "-fvisibility=hidden")
# The first set that the compiler takes: not every compiler knows -march=native.
FLAG_SETS = (("-march=native", *COMMON_FLAGS), COMMON_FLAGS)

# A second thread pays from so many written elements on. An element of a window costs more than
# one of the dense op.
SHARED_WORK = 1 << 17
SHARED_WINDOWS = 1 << 12

INDEX_OUTSIDE = 3  # what a kernel returns if an index lies outside the grid
_Sizes = ctypes.c_int64 * 6  # N, V, U, H, W, lam


def forward(x: Tensor, lam: int, pad_value: float) -> Tensor:
    """(N, V, U, H, W) -> (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam))."""
    n, v, u, height, width = x.shape
    out = x.new_empty(n, lam * v, lam * u, -(-height // lam), -(-width // lam))
    if out.numel():  # the kernels divide by the extents
        x = x.contiguous()
        pointers = x.data_ptr(), out.data_ptr()
        _call("swap_forward", x, x.shape, lam, pad_value, _threads(out), *pointers)
    return out


def backward(grad: Tensor, lam: int, height: int, width: int) -> Tensor:
    """The adjoint of `forward`: gradient of the output -> (N, V, U, height, width)."""
    n, fine_v, fine_u = grad.shape[:3]
    # Each entry gathers its readers and is written once: no zeros first.
    grad_x = grad.new_empty(n, fine_v // lam, fine_u // lam, height, width)
    if grad_x.numel():
        grad = grad.contiguous()
        pointers = grad.data_ptr(), grad_x.data_ptr()
        _call("swap_backward", grad, grad_x.shape, lam, _threads(grad_x), *pointers)
    return grad_x


def forward_windows(x: Tensor, lam: int, index: Tensor, pad_value: float) -> Tensor:
    """The windows at the cells `index` alone: (K, lam*V, lam*U).

    Raises InputError if a cell is outside the output grid.
    """
    count = index.shape[0]
    out = x.new_empty(count, lam * x.shape[1], lam * x.shape[2])
    if out.numel():
        x, index = x.contiguous(), index.contiguous()
        pointers = x.data_ptr(), index.data_ptr(), count, out.data_ptr()
        threads = _threads(out, SHARED_WINDOWS)
        # The kernel says only that an index is outside; the check finds it and raises.
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
    """How many threads write this tensor: for a small one, more cost more than they help."""
    return torch.get_num_threads() if written.numel() >= shared else 1


def available() -> tuple[bool, str]:
    """Whether the CPU kernels run here, and the reason in words. Compiles those of float32."""
    library, reason = _load(torch.float32)
    return library is not None, reason


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
    """The kernels of a dtype, or None; and what they are, or why there are none."""
    compiler = build.find_compiler()
    if compiler is None:
        return None, "no C++ compiler found (looked for $CXX, c++, g++, clang++)"
    source = build.kernel_folder() / "cpu" / "kernels.cpp"
    name, only = f"cpu-{str(dtype).removeprefix('torch.')}", f"-DSWAP_DTYPE={DTYPES[dtype]}"
    try:
        flag_sets = [(*flags, only) for flags in FLAG_SETS]
        library = _declared(
            build.loaded(partial(build.library, compiler, source, name, flag_sets))
        )
    except (OSError, ValueError, AttributeError, subprocess.SubprocessError) as error:
        return None, f"compiling with {compiler} failed: {error}"
    library.swap_use_threads(_threads_of_torch())
    return library, f"compiled with {compiler}, cached in {library._name}"


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library with the argument types of its functions."""
    pointer, count, pad = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
    dtype, threads = ctypes.c_int, ctypes.c_int
    shape = ctypes.POINTER(ctypes.c_int64)
    windows = (pointer, pointer, count, pointer)  # read, index, how many, written
    library.swap_use_threads.argtypes = [pointer]
    library.swap_forward.argtypes = [dtype, shape, pad, threads, pointer, pointer]
    library.swap_backward.argtypes = [dtype, shape, threads, pointer, pointer]
    library.swap_forward_windows.argtypes = [dtype, shape, pad, threads, *windows]
    library.swap_backward_windows.argtypes = [dtype, shape, threads, *windows]
    return library


@cache
def _threads_of_torch() -> int | None:
    """The address of `GOMP_parallel` in the OpenMP library of PyTorch, None if there is none.

    Threads of our own would take turns with PyTorch's, which wait for their next task without
    sleeping.
    """
    try:
        mapped = Path("/proc/self/maps").read_text().split()
    except OSError:
        return None
    # The names of GNU's, Intel's and LLVM's; the last two know GNU's entry point too.
    names = re.compile(r"/lib(gomp|iomp5|omp)[^/]*\.so")
    for path in dict.fromkeys(word for word in mapped if names.search(word)):
        if start := getattr(ctypes.CDLL(path), "GOMP_parallel", None):
            return ctypes.cast(start, ctypes.c_void_p).value
    return None
