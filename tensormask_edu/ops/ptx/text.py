"""PTX of the kernels, made by NVRTC from their source: no compiler, no driver, no GPU.

    ptx = kernels(torch.float32)
    ptx.text, ptx.symbols["swap_align2nat::backward_tiles<float, 1>"]

It is the last form that is readable and documented; a driver's assembler makes machine code of
it. Kept on disk as all that is built (`build.kept`).

next: ops/ptx/program.py
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...base.errors import InputError, bad_input
from .. import build, cuda

# Of the GPU that the estimates are for; older ones convert bfloat16 bit by bit.
ARCHITECTURE = "compute_90"
CURE = 'pip install "tensormask-edu[cuda]"'


class Ptx(NamedTuple):
    """Compiled kernels. symbols: a kernel's name in C++ -> its name in the text."""

    text: str
    symbols: dict[str, str]


def kernels(dtype: torch.dtype) -> Ptx:
    """Every kernel of kernels.cu for one dtype.

    Raises InputError if NVRTC or a header is missing, with the way to install it.
    """
    folder = build.kernel_folder()
    source = (folder / "gpu" / "kernels.cu").read_text(encoding="utf-8")
    return compiled(source, cuda.kernel_names(dtype), _options(dtype))


def compiled(source: str, names: Sequence[str], options: Sequence[str] = ()) -> Ptx:
    """The kernels `names` of a CUDA source; what is not named is compiled if it is no template.

    Raises InputError if NVRTC is missing, or with its words for a source that it refuses.
    """
    nvrtc = _nvrtc()
    core = (build.kernel_folder() / "core.h").read_text(encoding="utf-8")
    named = build.key(source, core, cuda.nvrtc_version(), ARCHITECTURE, *names, *options)

    def write(target: Path) -> None:
        made = _compile(nvrtc, source, names, options)
        target.write_text(json.dumps(made.symbols) + "\n" + made.text, encoding="utf-8")

    # JSON on the first line, then the text.
    symbols, _, text = build.kept(f"{named}.ptx", write).read_text("utf-8").partition("\n")
    return Ptx(text, json.loads(symbols))


def _options(dtype: torch.dtype) -> list[str]:
    macro = cuda.TYPES[dtype][1]
    options = [f"-I{build.kernel_folder() / 'gpu'}"]  # where kernels.cu says "../core.h"
    if macro:
        try:
            options += [f"-I{cuda.header_folder(cuda.HEADERS[macro])}", f"-D{macro}"]
        except RuntimeError as error:
            raise InputError(str(error)) from None
    return options


def _nvrtc() -> Any:
    """The bindings of NVRTC, after a call that loads the library itself."""
    # cuda-core also compiles, but asks the driver for its version where the result is PTX.
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError) as error:
        raise bad_input("NVRTC", "cuda-bindings with NVIDIA's compiler", error, CURE) from None
    return nvrtc


def _compile(nvrtc: Any, source: str, names: Sequence[str], options: Sequence[str]) -> Ptx:
    def call(function: str, *arguments: Any) -> Any:
        code, *values = getattr(nvrtc, f"nvrtc{function}")(*arguments)
        if code != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise InputError(f"NVRTC: {function}: {code.name}{log()}")
        return values[0] if values else None

    def log() -> str:
        text = bytes(nvrtc.nvrtcGetProgramLogSize(program)[1])
        nvrtc.nvrtcGetProgramLog(program, text)
        return ": " + text.decode(errors="replace").rstrip("\0 \n")

    program = call("CreateProgram", source.encode(), b"kernels.cu", 0, [], [])
    for name in names:
        call("AddNameExpression", program, name.encode())
    words = [f"--gpu-architecture={ARCHITECTURE}", "--std=c++17", *options]
    call("CompileProgram", program, len(words), [word.encode() for word in words])
    text = bytes(call("GetPTXSize", program))
    call("GetPTX", program, text)
    symbols = {name: call("GetLoweredName", program, name.encode()).decode() for name in names}
    call("DestroyProgram", program)
    return Ptx(text.rstrip(b"\0").decode(), symbols)
