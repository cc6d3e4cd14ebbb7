"""The estimate beside the measurement: what `ops/ptx/estimate.py` says a call takes at least.

A measurement below it refutes the model. Costs of one image at paper size are stored, with the
sources they were counted from, because counting executes a GPU's code on the processor. `python
benchmarks/gpu --estimates` counts anew; it needs NVRTC and a C++ compiler, no GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from measure import RESULTS, facts

from tensormask_edu.base.files import read_json, write_json
from tensormask_edu.ops import build
from tensormask_edu.ops.ptx.estimate import CARDS, Card, Costs, estimate, judged

FILE = RESULTS / "gpu-costs.json"
SIDES, LAMS = (15, 11), (1, 2, 4, 8, 16, 32)
Row = dict[str, Any]
Key = tuple[Any, ...]  # direction, dtype, lam, V, H, W


def sources() -> str:
    """A name for the sources of the kernels as they are."""
    folder = build.kernel_folder()
    names = ("core.h", "gpu/kernels.cu")
    return build.key(*((folder / name).read_text(encoding="utf-8") for name in names))


def write() -> None:
    """Count what every dense kernel costs: half a minute."""
    from tensormask_edu.commands.check_ptx import PAPER, cost_rows
    from tensormask_edu.ops.ptx.text import kernels

    rows = []
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        ptx = kernels(dtype)
        for side in SIDES:
            shape = (1, side, side, *PAPER[3:])
            for row in (row for lam in LAMS for row in cost_rows(dtype, ptx, lam, shape)):
                kept = {name: row[name] for name in ("dtype", "lam", "costs")}
                kept["direction"] = row["kernel"].removesuffix("_tiles")
                rows.append({"side": side, "cells": shape[3:], **kept})
    what = "counts of one image, no times; see benchmarks/gpu/estimates.py"
    record = {"what": what, "sources": sources(), "machine": facts(), "rows": rows}
    write_json(FILE, record)


@cache
def stored() -> dict[Key, Costs]:
    """Costs of one image by what is computed; none if they were counted from other sources."""
    if not FILE.is_file() or (record := read_json(FILE))["sources"] != sources():
        return {}
    return {key_of(row, row["cells"]): Costs(**row["costs"]) for row in record["rows"]}


def key_of(row: Row, cells: Sequence[int]) -> Key:
    """What a row is about."""
    return (*(row[name] for name in ("direction", "dtype", "lam", "side")), *cells)


def card_of(device: Row) -> Card | None:
    """The figures of a GPU that the model knows, with its own count and clock; else None."""
    known = [card for name, card in CARDS.items() if name in device["name"]]
    if not known:
        return None
    cycles = device["highest_hz"] or known[0].cycles  # a bound holds at the highest clock
    return known[0]._replace(multiprocessors=device["multiprocessors"], cycles=cycles)


def beside(row: Row, cells: tuple[int, int], device: Row) -> Row:
    """The estimate for a row of `ops.dense_row`, or why there is none.

    Microseconds of each part of the machine, which of them binds, the measured time over the
    bound, and what that says of the model.
    """
    ours, card = row["ms"].get("cuda"), card_of(device)
    key = key_of(row, cells)
    if card is None or ours is None:
        return {"none": "the model has no figures of this device"}
    if key not in stored():
        return {"none": "not counted for this size, or for other sources"}
    parts = estimate(stored()[key].of_images(row["images"]), card)
    bound = max(parts)
    found = {"parts_us": {name: 1e6 * part for name, part in parts._asdict().items()}}
    found |= {"bound_us": 1e6 * bound, "binds": parts.bound, "ratio": ours / (1e3 * bound)}
    return found | {"says": judged(ours / 1e3, bound)}
