"""The plain kernels of `plain.cu`, float32: by g++ with OpenMP for CPU tensors, by NVRTC for
CUDA tensors."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SOURCE = Path(__file__).parents[1] / "plugins" / "swap_align2nat" / "plain.cu"
THREADS = 512
Tensors = tuple[Tensor, Tensor]


def available(device: str) -> bool:
    """Whether the plain kernel can be compiled for "cpu" or "cuda" here."""
    return bool(shutil.which("g++")) if device == "cpu" else torch.cuda.is_available()


def forward(x: Tensor, lam: int, pad_value: float) -> Tensor:
    """(N, V, U, H, W) -> (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam)), contiguous float32."""
    num, num_v, num_u, height, width = x.shape
    out = x.new_empty(num, lam * num_v, lam * num_u, -(-height // lam), -(-width // lam))
    _call("plain_forward", out, (x, out), x.shape, lam, (pad_value,))
    return out


def backward(grad: Tensor, lam: int, height: int, width: int) -> Tensor:
    """The gradient of the output -> (N, V, U, height, width)."""
    grad_x = grad.new_zeros(
        len(grad), grad.shape[1] // lam, grad.shape[2] // lam, height, width
    )
    _call("plain_backward", grad, (grad, grad_x), grad_x.shape, lam, ())
    return grad_x


def _call(
    name: str, outputs: Tensor, tensors: Tensors, shape: Any, lam: int, pad: tuple[float, ...]
) -> None:
    sizes = [ctypes.c_int(size) for size in (*shape, lam)]
    arguments = (*sizes, ctypes.c_int64(outputs.numel()), *map(ctypes.c_float, pad))
    if outputs.is_cuda:
        _launch(name, tensors, outputs.numel(), arguments)
    else:
        pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
        getattr(_library(), name)(*pointers, *arguments)


@cache
def _library() -> ctypes.CDLL:
    target = Path(tempfile.mkdtemp()) / "plain.so"
    flags = ["-x", "c++", "-std=c++17", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"]
    subprocess.run(["g++", *flags, str(SOURCE), "-o", str(target)], check=True)
    return ctypes.CDLL(str(target))


def compiled(arch: str) -> Any:
    """plain.cu for a GPU architecture such as "sm_90"; needs no GPU."""
    from cuda.core import Program, ProgramOptions

    program = Program(SOURCE.read_text(), "c++", ProgramOptions(std="c++17", arch=arch))
    return program.compile("cubin")


@cache
def _kernel(name: str, device: int) -> Any:
    major, minor = torch.cuda.get_device_capability(device)
    return compiled(f"sm_{major}{minor}").get_kernel(name)


def _launch(name: str, tensors: Tensors, threads: int, arguments: tuple[Any, ...]) -> None:
    from cuda.core import Device, LaunchConfig, Stream, launch

    device = tensors[0].device.index
    Device(device).set_current()
    stream = Stream.from_handle(torch.cuda.current_stream(device).cuda_stream)
    config = LaunchConfig(grid=-(-threads // THREADS), block=THREADS)
    launch(
        stream,
        config,
        _kernel(name, device),
        *(tensor.data_ptr() for tensor in tensors),
        *arguments,
    )
