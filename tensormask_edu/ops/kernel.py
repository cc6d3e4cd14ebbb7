"""A kernel's text, run: by a GPU where its tensors lie on one, else by an emulator on the CPU.

    kernel.run(text, "plain_forward", blocks, threads, x, out, 1, 3, 3, 8, 10, 2, ...)

NVRTC compiles the text for a GPU. The C++ compiler of the machine compiles the same text
between `emulator.h` and a few lines, in which the words of CUDA mean something for a CPU. For
study: it is as slow as it is plain.

next: ops/plain.py
"""

from __future__ import annotations

import ctypes
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import build

# What stands before a kernel's text, and after it.
BEFORE = """\
#include <cmath>
#include "emulator.h"
#define __CUDACC__
#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ EMULATED_SHARED
[[maybe_unused]] static void atomicAdd(float* to, float value) { *to += value; }
#line 1
"""
AFTER = """
extern "C" int run(const int64_t* launch, const int64_t* words, int64_t count) {
  return call(KERNEL, launch, words, count);
}
"""
FLAGS = ("-std=c++17", "-O1", "-shared", "-fPIC", "-Wno-unknown-pragmas")
FAILURES = {
    1: "some threads wait at a barrier that others never reach: a GPU would hang",
    2: "the kernel takes another number of arguments",
}


def text_of(name: str) -> str:
    """A kernel source of the package, such as "plain.cu"."""
    return (build.kernel_folder() / name).read_text(encoding="utf-8")


def excerpt(text: str, begins: str, ends: str) -> str:
    """The lines from the one that holds `begins` to the next that holds `ends`, numbered.

    Raises StopIteration if there is no such line.
    """
    lines = list(enumerate(text.splitlines(), start=1))
    first = next(number for number, line in lines if begins in line)
    last = next(number for number, line in lines if ends in line and number >= first)
    return "\n".join(f"{number:3}  {line}" for number, line in lines[first - 1 : last])


def can_run(device: str) -> bool:
    """Whether `run` works here for tensors on "cpu" or "cuda"."""
    return build.find_compiler() is not None if device == "cpu" else torch.cuda.is_available()


def run(text: str, name: str, blocks: int, threads: int, *arguments: Any) -> None:
    """Start `blocks` blocks of `threads` threads of the kernel `name`.

    arguments: in the kernel's order: contiguous tensors, all on one device, as addresses; an
    int as 32 bits, a float as 32 bits, a ctypes number as it is.
    Raises OSError for a text that does not compile, RuntimeError for what the emulator finds.
    """
    tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
    passed = [_passed(argument) for argument in arguments]
    if tensors[0].is_cuda:
        on_gpu(text, name, blocks, threads, tensors[0].device.index, passed)
        return
    words = [int.from_bytes(bytes(value), "little", signed=False) for value in passed]
    launch = (ctypes.c_int64 * 4)(blocks, threads)
    packed = (ctypes.c_uint64 * len(words))(*words)
    failure = _emulated(text, name).run(launch, packed, ctypes.c_int64(len(words)))
    if failure:
        raise RuntimeError(f"{name}: {FAILURES[failure]}")


def _passed(argument: Any) -> Any:
    """An argument as ctypes has it."""
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, int):
        return ctypes.c_int(argument)
    return ctypes.c_float(argument) if isinstance(argument, float) else argument


# --- without a GPU ----------------------------------------------------------------------------


@cache
def _emulated(text: str, name: str) -> ctypes.CDLL:
    whole = BEFORE + text + AFTER.replace("KERNEL", name)
    source = build.kept(f"{name}-{build.key(whole)}.cpp", lambda path: _write(path, whole))
    compiler = build.find_compiler()
    if compiler is None:
        raise OSError("no C++ compiler found: the emulator needs one")
    flags = (*FLAGS, f"-I{build.kernel_folder()}")
    return build.loaded(partial(build.library, compiler, source, name, [flags]))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


# --- with one ---------------------------------------------------------------------------------


def compiled(text: str, architecture: str) -> Any:
    """A text for a GPU architecture such as "sm_90"; needs no GPU."""
    from cuda.core import Program, ProgramOptions

    options = ProgramOptions(std="c++17", arch=architecture)
    return Program(text, "c++", options).compile("cubin")


@cache
def _kernel(text: str, name: str, device: int) -> Any:
    major, minor = torch.cuda.get_device_capability(device)
    return compiled(text, f"sm_{major}{minor}").get_kernel(name)


def on_gpu(
    text: str, name: str, blocks: int, threads: int, device: int, passed: list[Any]
) -> None:
    """Start a kernel on PyTorch's current stream of a device."""
    from cuda.core import Device, LaunchConfig, Stream, launch

    Device(device).set_current()
    stream = Stream.from_handle(torch.cuda.current_stream(device).cuda_stream)
    # cuda.core takes an address as a plain number.
    values = [v.value if isinstance(v, ctypes.c_void_p) else v for v in passed]
    config = LaunchConfig(grid=blocks, block=threads)
    launch(stream, config, _kernel(text, name, device), *values)
