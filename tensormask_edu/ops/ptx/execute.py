"""A launch of a kernel's PTX, executed on a CPU: faults by line, and what the launch cost.

    run = execute(program, call)
    run.faults, run.counts.instructions

The executor is a C++ library, compiled once: `plugins/swap_align2nat/ptx/executor.cpp`. Tensors
lie in this machine's memory and are written as a GPU would write them; an access that is not
allowed is noted and does not happen.

next: ops/ptx/estimate.py
"""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from torch import Tensor

from ...base.errors import bad_input
from .. import build
from ..cuda import Call
from .program import Program, read
from .text import Ptx

# What executor.cpp calls OUTSIDE, READ_ONLY, ... in its order.
FAULTS = (
    "an address in no tensor, or beyond the block's shared memory",
    "a store into a tensor that is only read",
    "an address that is no multiple of the access",
    "two threads at the same bytes with no barrier between",
    "shared memory read before it was written",
    "a register read before it was set",
    "a barrier that some threads do not reach",
    "a warp that does not end",
)
SHOWN = 16  # places that are named; all are counted
# Nothing is fused that the PTX does not fuse.
FLAGS = ("-std=c++17", "-O1", "-shared", "-fPIC", "-ffp-contract=off")
FLAG_SETS = (("-march=native", *FLAGS), FLAGS)


@dataclass(frozen=True)
class Traffic:
    """What loads or stores moved: sectors of 32 bytes, or waves of shared memory."""

    requests: int  # instructions of a warp
    moved: int
    fewest: int  # that the same bytes could take


@dataclass(frozen=True)
class Counts:
    """What a launch cost. Instructions are those of a warp, whatever lanes take part."""

    instructions: int
    lanes: int  # instructions of single threads
    global_load: Traffic
    global_store: Traffic
    shared_load: Traffic
    shared_store: Traffic
    # Sectors, each once per block: a block's later loads find them in its L1 cache.
    loaded_by_blocks: int
    stored_by_blocks: int
    # How often the load that was issued most was: once in a round of a walk that loads at all.
    loading: int


@dataclass(frozen=True)
class Run:
    """One launch. faults: kind -> how many; first: sentences on some of them.

    costs: (rows of the program, 4): issued, lanes, moved, fewest.
    """

    faults: dict[str, int]
    first: list[str]
    counts: Counts
    costs: np.ndarray


@cache
def program(ptx_text: str, symbol: str) -> Program:
    """A kernel of a PTX text, in the executor's numbers."""
    table = _library()
    return read(ptx_text, symbol, lambda name: int(table.ptx_number(name.encode())))


def execute(ptx: Ptx, call: Call, every: int = 1, races: bool = True) -> Run:
    """Run a call's kernel: its tensors, contiguous ones of the CPU, are read and written.

    every: of the grid's blocks, run number 0, `every`, 2 `every`, ... races: look for threads
    that meet at one place of a tensor, which takes memory eight times its size.

    Raises InputError for PTX that the executor does not know.
    """
    kernel = program(ptx.text, ptx.symbols[call.spelled])
    if len(kernel.parameters) != len(call.arguments):
        expected = f"{len(kernel.parameters)} arguments for {call.kernel}"
        raise bad_input("call", expected, len(call.arguments))
    constants = kernel.constants | dict(
        zip(kernel.parameters, map(_bits, call.arguments), strict=True)
    )
    tensors = call.tensors
    regions = [[t.data_ptr(), t.nbytes, int(t is tensors[-1])] for t in tensors]
    launch, shared = call.launch, kernel.shared_bytes + call.launch.shared_bytes
    blocks = -(-launch.blocks // every)
    grid = [0, every, blocks, launch.threads, shared, launch.blocks, int(races)]
    costs = np.zeros((len(kernel.rows), 4), np.int64)
    distinct = np.zeros(2, np.int64)
    faults = np.zeros(len(FAULTS) + 1 + 5 * SHOWN, np.int64)
    code = np.array(kernel.rows, np.int32)
    pairs = np.array(list(constants.items()), dtype=object)
    _library().ptx_run(
        _at(code), ctypes.c_int64(len(code)), ctypes.c_int64(len(kernel.registers)),
        _at(_longs(pairs)), ctypes.c_int64(len(pairs)),
        _at(_longs(regions)), ctypes.c_int64(len(regions)), _at(_longs(grid)),
        _at(costs), _at(distinct), _at(faults),
    )  # fmt: skip
    found = {kind: int(n) for kind, n in zip(FAULTS, faults, strict=False) if n}
    places = faults[len(FAULTS) + 1 :].reshape(SHOWN, 5)[: faults[len(FAULTS)]]
    first = [_sentence(kernel, call, *map(int, place)) for place in places]
    return Run(found, first, _counts(kernel, costs, distinct), costs)


def _bits(argument: Tensor | float | int) -> int:
    """The 64 bits that a launch passes."""
    if isinstance(argument, Tensor):
        return argument.data_ptr()
    if isinstance(argument, float):
        return int(struct.unpack("q", struct.pack("d", argument))[0])
    return argument


def _longs(numbers: object) -> np.ndarray:
    """64-bit numbers, with or without a sign."""
    flat = [int(number) for number in np.array(numbers, dtype=object).ravel()]
    return np.array([n - (1 << 64) if n >= 1 << 63 else n for n in flat], np.int64)


def _at(array: np.ndarray) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)  # keeps the array for as long as itself


def _sentence(
    kernel: Program, call: Call, kind: int, row: int, block: int, thread: int, address: int
) -> str:
    line, words = kernel.texts[row]
    where = f"block {block}, thread {thread % call.launch.threads}"
    at = f", address {address:#x}" if address else ""
    return f"{call.kernel}: {FAULTS[kind]}: line {line} '{words}', {where}{at}"


def _counts(kernel: Program, costs: np.ndarray, distinct: np.ndarray) -> Counts:
    opcodes = [words.split(" ")[words.startswith("@")] for _, words in kernel.texts]

    def of(prefix: str) -> Traffic:
        rows = costs[[opcode.startswith(prefix) for opcode in opcodes]]
        return Traffic(int((rows[:, 1] > 0) @ rows[:, 0]), *map(int, rows[:, 2:].sum(0)))

    issued, lanes = map(int, costs[:, :2].sum(0))
    loaded, stored = map(int, distinct)
    traffic = of("ld.global"), of("st.global"), of("ld.shared"), of("st.shared")
    loads = costs[[opcode.startswith("ld.global") for opcode in opcodes], 0]
    return Counts(issued, lanes, *traffic, loaded, stored, int(loads.max(initial=0)))


@cache
def _library() -> ctypes.CDLL:
    """The executor. Raises InputError where there is no C++ compiler."""
    compiler = build.find_compiler()
    if compiler is None:
        raise bad_input("compiler", "a C++ compiler for the executor of PTX", "none")
    source = build.kernel_folder() / "ptx" / "executor.cpp"
    return build.loaded(partial(build.library, compiler, source, "ptx", FLAG_SETS))
