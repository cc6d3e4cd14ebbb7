"""How long a GPU takes at least, from what a launch moved and issued: a model to be refuted.

Five parts of the machine work at once, and the slowest decides:

    hbm      every byte of the tensors once, at the memory's bandwidth
    l2       sectors that blocks load, each once per block, and all that they store
    issue    instructions of warps; four schedulers per multiprocessor start one a cycle each
    l1       4 sectors of global memory, or a wave of shared memory, a cycle and multiprocessor
    latency  rounds of warps that load: each waits for memory once, and only so many warps wait
             at a time as there are registers and shared memory for

`costs` counts what a launch asks of any GPU, `estimate` says how long a `Card` takes for it.
The model counts on L2 to hold what neighbouring blocks share, and leaves out the last wave of
blocks and what the assembler makes of the PTX (1.2 to 1.3 instructions of one). So a time below
it refutes the model; one far above says that something else binds (`judged`). `share` is the
part of hbm in it: 1 where memory alone decides.

next: masks.py
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ..cuda import Call
from .execute import Run

SECTOR_BYTES = 32
SCHEDULERS = 4  # per multiprocessor
SECTORS_A_CYCLE = 4
# Of a multiprocessor of Hopper. A warp gets registers by the 256, and every scheduler as many
# warps; a block gets shared memory by the 128 bytes.
REGISTERS, REGISTERS_AT_ONCE, WARPS, BLOCKS = 1 << 16, 256, 64, 32
SHARED_BYTES, SHARED_BYTES_OF_BLOCK, SHARED_BYTES_AT_ONCE = 228 << 10, 1 << 10, 128
FAR = 1.5  # times the bound: from there on it explains little


class Card(NamedTuple):
    """What a GPU can do in a second. l2_bytes, waiting_cycles: assumed, no maker says them."""

    multiprocessors: int
    cycles: float
    hbm_bytes: float
    l2_bytes: float = 5.5e12
    waiting_cycles: float = 480  # for memory, with nobody else in the way


CARDS = {"H100": Card(132, 1.7e9, 3.35e12), "H200": Card(132, 1.7e9, 4.8e12)}


class Costs(NamedTuple):
    """What a launch moves and issues, whatever the GPU.

    Bytes of the tensors, each once; bytes between L2 and the multiprocessors; instructions of
    warps; cycles of one multiprocessor's L1; rounds of warps that load; and warps that a
    multiprocessor holds at a time, 0 if none fits.
    """

    hbm_bytes: float
    l2_bytes: float
    instructions: float
    l1_cycles: float
    rounds: float
    warps: int

    def of_images(self, count: int) -> Costs:
        """Those of a batch of `count`, where these are of one image: blocks are images' own."""
        scaled = {name: count * cost for name, cost in self._asdict().items()}
        return Costs(**scaled | {"warps": self.warps})


class Estimate(NamedTuple):
    """Seconds that each part of the machine needs."""

    hbm: float
    l2: float
    issue: float
    l1: float
    latency: float

    @property
    def bound(self) -> str:
        """The part that decides."""
        return max(self._fields, key=lambda part: float(getattr(self, part)))

    @property
    def share(self) -> float:
        """Of the bandwidth that the memory has: 1 is all of it."""
        return self.hbm / max(self)


def costs(call: Call, run: Run, every: int = 1, registers: int = 0) -> Costs:
    """The costs of a call of which every `every`-th block was executed.

    registers: of a thread, as the assembler gives them out; 0: as if there were enough.
    """
    counts, whole = run.counts, scale(call, every)
    sectors = counts.global_load.moved + counts.global_store.moved
    waves = counts.shared_load.moved + counts.shared_store.moved
    return Costs(
        sum(tensor.nbytes for tensor in call.tensors),
        whole * SECTOR_BYTES * (counts.loaded_by_blocks + counts.global_store.moved),
        whole * counts.instructions,
        whole * (sectors / SECTORS_A_CYCLE + waves),
        whole * counts.loading,
        warps_held(call, registers),
    )


def warps_held(call: Call, registers: int) -> int:
    """Warps of a launch that a multiprocessor holds at a time."""
    launch, warps = call.launch, _warps_of(call)
    blocks = min(BLOCKS, WARPS // warps)
    shared = -(-launch.shared_bytes // SHARED_BYTES_AT_ONCE) * SHARED_BYTES_AT_ONCE
    blocks = min(blocks, SHARED_BYTES // (shared + SHARED_BYTES_OF_BLOCK))
    if registers:
        of_warp = -(-32 * registers // REGISTERS_AT_ONCE) * REGISTERS_AT_ONCE
        of_all = REGISTERS // of_warp // SCHEDULERS * SCHEDULERS
        blocks = min(blocks, of_all // warps)
    return warps * blocks


def _warps_of(call: Call) -> int:
    return -(-call.launch.threads // 32)


def estimate(costs: Costs, card: Card) -> Estimate:
    """The model's times on a card."""
    cycles = card.multiprocessors * card.cycles
    return Estimate(
        costs.hbm_bytes / card.hbm_bytes,
        costs.l2_bytes / card.l2_bytes,
        costs.instructions / (SCHEDULERS * cycles),
        costs.l1_cycles / cycles,
        costs.rounds * card.waiting_cycles / cycles / costs.warps if costs.warps else math.inf,
    )


def judged(seconds: float, bound: float) -> str:
    """What a measured time says of the bound: refuted, near it, or far above."""
    if seconds < bound:
        return "refuted"
    return "near" if seconds <= FAR * bound else "something else binds"


def scale(call: Call, every: int) -> float:
    """Blocks of the grid per executed block."""
    return call.launch.blocks / -(-call.launch.blocks // every)


def figures(
    call: Call, run: Run, every: int = 1, registers: int = 0
) -> dict[str, float | int | str]:
    """What a launch cost per element and byte, and what each card's estimate is bound by.

    Elements: of the largest tensor. Traffic is relative to the bytes that are read and written,
    waves of shared memory to the fewest. registers: as for `costs`.
    """
    counts, whole = run.counts, scale(call, every)
    read, written = call.tensors[0], call.tensors[-1]
    elements = max(read.numel(), written.numel())
    waves = counts.shared_load.moved + counts.shared_store.moved
    fewest = counts.shared_load.fewest + counts.shared_store.fewest
    found: dict[str, float | int | str] = {
        "blocks": call.launch.blocks,
        "threads": call.launch.threads,
        "shared_bytes": call.launch.shared_bytes,
        # of a warp's 32 lanes each, as if all took part
        "instructions": whole * counts.instructions * 32 / elements,
        "lanes": counts.lanes / counts.instructions,
        "loaded": whole * counts.loaded_by_blocks * SECTOR_BYTES / read.nbytes,
        "stored": whole * counts.global_store.moved * SECTOR_BYTES / written.nbytes,
        "waves": waves / fewest if fewest else 1.0,
        "registers": registers,
        "warps": warps_held(call, registers),
    }
    for name, card in CARDS.items():
        parts = estimate(costs(call, run, every, registers), card)
        found |= {f"{name}_share": parts.share, f"{name}_bound": parts.bound}
        found |= {f"{name}_us": 1e6 * max(parts)}
    return found
