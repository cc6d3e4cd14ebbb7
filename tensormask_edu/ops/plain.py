"""The plain kernel, `plain.cu`: the first to read, float32, for study and measurement alone.

    x:   (N, V, U, H, W)                                        contiguous float32, CPU or CUDA
    out: (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam))            contiguous

One thread per output with 16 scattered reads; the backward sends 16 atomic adds. No operator of
this package runs it. g++ with OpenMP compiles it for CPU tensors, NVRTC for CUDA tensors.

next: ops/cpu.py
"""

from __future__ import annotations

import ctypes
import shutil
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from . import build, kernel

FLAGS = ("-x", "c++", "-std=c++17", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
THREADS = 512  # of a block


def available(device: str) -> bool:
    """Whether the plain kernel can be compiled for "cpu" or "cuda" here."""
    return bool(shutil.which("g++")) if device == "cpu" else torch.cuda.is_available()


def forward(x: Tensor, lam: int, pad_value: float) -> Tensor:
    """(N, V, U, H, W) -> (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam))."""
    n, v, u, height, width = x.shape
    out = x.new_empty(n, lam * v, lam * u, -(-height // lam), -(-width // lam))
    _call("plain_forward", (x, out), x.shape, lam, out.numel(), pad_value)
    return out


def backward(grad: Tensor, lam: int, height: int, width: int) -> Tensor:
    """The adjoint of `forward`: gradient of the output -> (N, V, U, height, width)."""
    n, fine_v, fine_u = grad.shape[:3]
    grad_x = grad.new_zeros(n, fine_v // lam, fine_u // lam, height, width)  # it is added to
    _call("plain_backward", (grad, grad_x), grad_x.shape, lam, grad.numel())
    return grad_x


def _call(
    name: str, tensors: tuple[Tensor, Tensor], shape: Any, lam: int, count: int, *pad: float
) -> None:
    # N, V, U, H, W, lam as 32-bit numbers, then how many threads are wanted.
    sizes = [ctypes.c_int(size) for size in (*shape, lam)]
    arguments = (*sizes, ctypes.c_int64(count), *map(ctypes.c_float, pad))
    if tensors[0].is_cuda:
        # As many blocks as hold all threads: the last one has some too many, hence the guard.
        blocks = -(-count // THREADS)
        kernel.run(kernel.text_of("plain.cu"), name, blocks, THREADS, *tensors, *arguments)
    else:
        pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
        getattr(_library(), name)(*pointers, *arguments)


@cache
def _library() -> ctypes.CDLL:
    source = build.kernel_folder() / "plain.cu"
    return build.loaded(partial(build.library, "g++", source, "plain", [FLAGS]))


def compiled(architecture: str) -> Any:
    """plain.cu for a GPU architecture such as "sm_90"; needs no GPU."""
    return kernel.compiled(kernel.text_of("plain.cu"), architecture)
