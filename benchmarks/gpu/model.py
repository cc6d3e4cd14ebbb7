"""Times of the model: a training step and inference, in every way that it can be run.

The ways are those of `benchmarks/factors.py`, the official one first, what compiles last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import factors
from measure import table

from gpu.task import Row, Task, attempt, failures
from tensormask_edu.ops import plain

SHOWN = ("way", "inference_ms", "inference_mib", "training_ms", "training_mib", "mask_iou")


def model(task: Task) -> Iterator[Row]:
    """Every way to run it, each as it stands and then together."""
    sizes, kind = task.sizes, task.device.kind
    masks = [name for name in factors.DENSE if name == "ours" or plain.available(kind)]
    subject = factors.Subject(sizes.preset, kind, sizes.picture, sizes.repeats, sizes.backend)
    for way in factors.ways(masks, sizes.precisions, sizes.compiled, gpu=True):
        yield attempt(task, way.name, one_way, subject, way)


def one_way(task: Task, subject: factors.Subject, way: factors.Way) -> Row:
    """Times, memory, and whether it finds the same."""
    return subject.row(way)


def model_text(rows: Sequence[Row]) -> list[str]:
    """Milliseconds and MiB of every way, and why there are none."""
    shown = [{key: row[key] for key in SHOWN if key in row} for row in rows if "way" in row]
    lines = table(shown).splitlines() if shown else []
    return [f"{len(shown)} ways", *failures(rows), *lines]
