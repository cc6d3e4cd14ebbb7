"""Times: `speed` of the operators, `model` of a training step and inference.

Both are the scripts of `benchmarks/`, a row at a time, the rows that matter most first.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from device import Clock

from gpu.task import Row, Task, attempt

DIRECTIONS = ("forward", "backward")


# --- operators --------------------------------------------------------------------------------


def speed(task: Task) -> Iterator[Row]:
    """`swap_align2nat` beside a copy of as many bytes, the plain kernel and the estimate."""
    import ops as script

    from gpu import estimates

    sizes, device = task.sizes, task.device.facts()
    clock = Clock(task.device.kind, sizes.repeats, queued=True)

    def dense(side: int, dtype: str, lam: int, way: str) -> Row:
        compare = (side, dtype) == (sizes.sides[0], "float32")
        row = script.dense_row(clock, sizes.cells, side, lam, dtype, way, compare)
        return {"dense": row, "estimate": estimates.beside(row, sizes.cells, device)}

    with torch.no_grad():
        for each in itertools.product(sizes.sides, sizes.dtypes, sizes.lams, DIRECTIONS):
            side, dtype, lam, way = each
            name = f"{way}, {dtype}, V = {side}, lam {lam}"
            yield attempt(task, name, lambda each=each: dense(*each))
        for side in sizes.sides:
            name = f"windows alone, V = {side}"
            at = (clock, sizes.cells, side, sizes.lams)
            yield attempt(task, name, lambda at=at: {"windows": script.windows_rows(*at)})


def speed_text(rows: Sequence[Row]) -> list[str]:
    """Shares of the copy, the promises, and how the estimates fared."""
    import ops as script
    from measure import table

    dense = [row["dense"] for row in rows if "dense" in row]
    judged = [row["estimate"] for row in rows if "says" in row.get("estimate", {})]
    lines = [f"FAILED {row['name']}: {row['why']}" for row in rows if row.get("why")]
    if not dense:
        return lines
    lines += [*table(map(script.flat, dense)).splitlines(), ""]
    lines += table(script.claims(dense)).splitlines()
    said = Counter(each["says"] for each in judged)
    words = ", ".join(f"{count} {what}" for what, count in said.items()) or "none to compare"
    return [*lines, "", f"estimates of the kernels' times: {words}"]


# --- the model --------------------------------------------------------------------------------


def model(task: Task) -> Iterator[Row]:
    """Every way to run it, each as it stands and then together."""
    import factors

    from tensormask_edu.ops import plain

    sizes = task.sizes
    dense = [
        name for name in factors.DENSE if name == "ours" or plain.available(task.device.kind)
    ]
    subject = factors.Subject(
        sizes.preset, task.device.kind, sizes.picture, sizes.repeats, sizes.backend
    )
    for way in factors.ways(dense, sizes.precisions, compiled=True, gpu=True):
        yield attempt(task, way.name, lambda way=way: subject.row(way))


def model_text(rows: Sequence[Row]) -> list[str]:
    """Milliseconds and MiB of every way, and why there are none."""
    from measure import table

    kept = ("way", "inference_ms", "inference_mib", "training_ms", "training_mib", "mask_iou")
    shown = [{key: row[key] for key in kept if key in row} for row in rows if "way" in row]
    lines = table(shown).splitlines() if shown else []
    return lines + [
        f"FAILED {row['name']}: {row['why'].strip().splitlines()[-1]}"
        for row in rows
        if row.get("why")
    ]
