"""What a step is given, and how it tries things: one that fails does not end the others."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from device import Cpu

ROOT = Path(__file__).resolve().parents[2]
Row = dict[str, Any]
LONGEST = 2000  # characters of what went wrong
INSTALLED_AS = {"cuda": "cuda-core", "PIL": "pillow"}
OURS = ("tensormask_edu", "tensormask_export", "gpu")


class NotHere(Exception):
    """Something cannot run on this machine; the message says why."""


@dataclass(frozen=True)
class Sizes:
    """How large everything is.

    picture: (H, W) pixels that are timed; compared: of those whose numbers are compared.
    cells, sides, lams, dtypes: of the operators, see `benchmarks/ops.py`.
    elements: more of them than this are in the largest tensor.
    repeats, iterations: of a time, of an engine's; golden: whether official numbers are tried.
    compiled, backend: how many ways compile, and by what.
    """

    preset: str = "r50_fpn_1x"
    picture: tuple[int, int] = (800, 1344)
    compared: tuple[int, int] = (256, 320)
    cells: tuple[int, int] = (200, 336)
    sides: tuple[int, ...] = (15, 11)
    lams: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    dtypes: tuple[str, ...] = ("float32", "float16", "bfloat16", "float64")
    precisions: tuple[str, ...] = ("bfloat16", "float16")
    elements: int = 1 << 31
    runs: int = 20
    repeats: int = 5
    iterations: int = 100
    train_steps: int = 20
    golden: bool = True
    compiled: int = 2
    backend: str = "inductor"


REAL = Sizes()
REHEARSED = Sizes(
    preset="tiny", picture=(32, 64), compared=(64, 64), cells=(9, 16), sides=(3,), lams=(1, 2),
    dtypes=("float32",), precisions=("bfloat16",), elements=1 << 12, runs=2, repeats=1,
    iterations=5, train_steps=2, golden=False, compiled=0, backend="eager",
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """The device, the sizes, and the folder of what was built beforehand."""

    device: Cpu
    sizes: Sizes = REAL
    work: Path = ROOT / "outputs" / "gpu"


def attempt(task: Task, name: str, call: Callable[..., Row | None], *arguments: Any) -> Row:
    """A row: what `call(task, ...)` found, or why it failed or cannot run here; its seconds."""
    start = time.monotonic()
    try:
        row = call(task, *arguments) or {}
        task.device.wait()  # until then a kernel's error may not have been seen
        row = {"ok": True, **row}
    except Exception as error:
        if why := why_not_here(error):
            row = {"skipped": why}
        else:
            said = "".join(traceback.format_exception(error, limit=-2))
            row = {"ok": False, "why": said[-LONGEST:]}
    return {"name": name, **row, "seconds": round(time.monotonic() - start, 3)}


def failures(rows: Sequence[Row]) -> list[str]:
    """A line for each row that failed or could not run here."""
    lines = []
    for row in rows:
        if not row.get("ok", True):
            lines.append(f"FAILED {row['name']}: {row['why'].strip().splitlines()[-1]}")
        elif "skipped" in row:
            lines.append(f"skipped {row['name']}: {row['skipped']}")
    return lines


def why_not_here(error: Exception) -> str:
    """What is missing on this machine; "" for any other error, be it a module of ours."""
    if isinstance(error, NotHere):
        return str(error)
    missing = isinstance(error, ModuleNotFoundError) and error.name or ""
    package = missing.split(".")[0]
    if package in ("", *OURS):
        return ""
    return f"{INSTALLED_AS.get(package, package)} is not installed"
