"""Times of the operators: a copy of as many bytes, formulas, the plain kernel, the estimate.

It is `benchmarks/ops.py`, a row at a time, the rows that matter most first.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

import ops as script
import torch
from device import Clock
from measure import table

from gpu import estimates
from gpu.task import Row, Task, attempt, failures

DIRECTIONS = ("forward", "backward")


def speed(task: Task) -> Iterator[Row]:
    """`swap_align2nat` beside a copy of as many bytes, the plain kernel and the estimate."""
    sizes, device = task.sizes, task.device.facts()
    for case in itertools.product(sizes.sides, sizes.dtypes, sizes.lams, DIRECTIONS):
        side, dtype, lam, way = case
        yield attempt(task, f"{way}, {dtype}, V = {side}, lam {lam}", dense, device, *case)
    for side in sizes.sides:
        yield attempt(task, f"windows alone, V = {side}", windows, side)


@torch.no_grad()
def dense(task: Task, device: Row, side: int, dtype: str, lam: int, way: str) -> Row:
    """One direction, beside formulas and the plain kernel where that is asked for."""
    compare = (side, dtype) == (task.sizes.sides[0], "float32")
    row = script.dense_row(clock(task), task.sizes.cells, side, lam, dtype, way, compare)
    return {"dense": row, "estimate": estimates.beside(row, task.sizes.cells, device)}


@torch.no_grad()
def windows(task: Task, side: int) -> Row:
    """The windows of detections alone, beside all of them."""
    rows = script.windows_rows(clock(task), task.sizes.cells, side, task.sizes.lams)
    return {"windows": rows}


def clock(task: Task) -> Clock:
    """Of the device alone, without what Python needs to launch a kernel."""
    return Clock(task.device.kind, task.sizes.repeats, queued=True)


def speed_text(rows: Sequence[Row]) -> list[str]:
    """Shares of the copy, the promises, and how the estimates fared."""
    timed = [row["dense"] for row in rows if "dense" in row]
    said = Counter(row["estimate"]["says"] for row in rows if "says" in row.get("estimate", ()))
    words = ", ".join(f"{count} {what}" for what, count in said.items()) or "none to compare"
    lines = [f"{len(timed)} times; estimates: {words}", *failures(rows)]
    if timed:
        lines += table(map(script.flat, timed)).splitlines()
        lines += table(script.claims(timed)).splitlines()
    return lines
