"""How long an exported model takes, and how much memory; PyTorch beside it.

    compute     the model alone, on an input that is there already; a GPU is timed by its clock
    end to end  from pictures in this machine's memory to detections there, masks pasted

Every runtime has a row, and works in a process of its own, so that its memory is its own and an
abort is an error message. An ONNX file alone is measured without PyTorch.

next: triton.py
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from tensormask_edu.base.errors import InputError, bad_input
from tensormask_edu.base.files import file_sha256
from tensormask_edu.base.machine import machine
from tensormask_edu.base.tables import text_table

from . import contract
from .engine.device import find_device
from .engine.manifest import read_engine
from .onnx_file.read import is_onnx
from .runtimes.find import open_session
from .runtimes.onnxruntime import OnnxSession
from .runtimes.session import Session, check_model, check_shape
from .shapes import Array, Shape, shape_name

Result = TypeVar("Result")

FEWEST = 5  # runs that a median is taken of, whatever `seconds` says
DEFAULT_SHAPE: Shape = (1, 3, 256, 256)

# --- what is measured -------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """A runtime and its file: an exported model, or a checkpoint in PyTorch."""

    kind: Literal["model", "eager", "compile"]
    path: str | Path
    options: dict[str, Any] = field(default_factory=dict)  # of the function that opens it

    @property
    def needs_torch(self) -> bool:
        return self.kind != "model" or not is_onnx(self.path)


@dataclass(frozen=True)
class Effort:
    """How long to measure: `iterations`, or until `seconds` are over.

    threads: of the CPU; 0: as many as it has cores.
    """

    warmup: int = 10
    iterations: int = 100
    seconds: float = 60.0
    threads: int = 0

    def __post_init__(self) -> None:
        fewest = {"warmup": 1, "iterations": FEWEST, "seconds": 0, "threads": 0}
        for name, least in fewest.items():
            if getattr(self, name) < least:
                raise bad_input(name, f"at least {least}", getattr(self, name))


@dataclass(frozen=True)
class Times:
    """Milliseconds."""

    median: float
    p90: float
    p99: float


@dataclass(frozen=True)
class Row:
    """One runtime.

    setup_s: load, and the first run of this shape; memory_mb: what came into use on the GPU, or
    without one the most that the process had; memory_at_start_mb: how much of that before
    loading.
    """

    runtime: str
    device: str
    iterations: int
    setup_s: float
    compute_ms: Times
    end_to_end_ms: Times
    pictures_per_s: float
    memory_mb: float
    memory_at_start_mb: float


@dataclass(frozen=True)
class BenchReport:
    """All rows, and what was measured where; files: SHA-256 of the model and its plugin."""

    model: str
    shape: Shape
    warmup: int
    rows: list[Row]
    files: dict[str, str]
    machine: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        medians = (f"{row.runtime} {row.compute_ms.median:.4g} ms" for row in self.rows)
        summary = f"{shape_name(self.shape)}: {', '.join(medians)}"
        return asdict(self) | {"summary": summary, "claims": [], "facts": {}}

    def table(self) -> str:
        """A line per runtime."""
        slow = ("p90", "p99")
        rest = ("pictures/s", "MB", "of it new", "runs")
        lines = [["", "compute ms", *slow, "end to end ms", *slow, *rest]]
        for row in self.rows:
            new_mb = row.memory_mb - row.memory_at_start_mb
            times = (*asdict(row.compute_ms).values(), *asdict(row.end_to_end_ms).values())
            numbers = (*times, row.pictures_per_s, row.memory_mb, new_mb)
            cells = [f"{number:.4g}" for number in numbers]
            lines.append([row.runtime, *cells, str(row.iterations)])
        devices = ", ".join(dict.fromkeys(row.device for row in self.rows))
        return f"{shape_name(self.shape)} on {devices}; medians\n{text_table(lines)}"


def bench(
    model: str | Path,
    *,
    shape: Shape | None = None,
    effort: Effort | None = None,
    eager: str | Path | None = None,
    compiled: str | Path | None = None,
    **options: Any,
) -> BenchReport:
    """Measure an ONNX file or an engine, and the checkpoint it came from if one is given.

    Args:
        shape: of the input; default the shape the engine is tuned for, or `DEFAULT_SHAPE`.
        eager, compiled: checkpoints (folders or names) to run in PyTorch as well, as it is and
            through torch.compile.
        options: see `find.open_session`.

    Raises:
        InputError: as `open_session`; a shape that the model does not take; a checkpoint of
            other weights.
    """
    effort = effort or Effort()
    metadata, files, profile = described(model)
    shape = shape or (profile.opt if profile else DEFAULT_SHAPE)
    check_shape(shape, metadata, profile)
    subjects = [Subject("model", str(model), {"threads": effort.threads, **options})]
    if eager:
        subjects.append(Subject("eager", eager, {"metadata": metadata}))
    if compiled:
        how = {"metadata": metadata, "compiled": True}
        subjects.append(Subject("compile", compiled, how))
    for subject in subjects[1:]:
        check_weights(subject.path, metadata[contract.WEIGHTS_SHA256])
    rows = [
        in_own_process(str(subject.path), measure, subject, shape, effort)
        for subject in subjects
    ]
    where = this_machine(effort, any(subject.needs_torch for subject in subjects))
    return BenchReport(str(model), shape, effort.warmup, rows, files, where)


def described(model: str | Path) -> tuple[Any, dict[str, str], Any]:
    """Metadata, SHA-256 by file, and profile of a model, without running it."""
    check_model(model)
    if is_onnx(model):
        return OnnxSession(model).metadata, {"model": file_sha256(model)}, None
    file = read_engine(model)
    parts = {name: file.manifest[name].get("sha256") for name in ("engine", "model", "plugin")}
    if not parts["plugin"]:
        del parts["plugin"]
    return file.metadata, parts, file.profile


def check_weights(checkpoint: str | Path, expected: str) -> None:
    """Raise InputError unless a checkpoint holds the weights of the model beside it."""
    from tensormask_edu.weights.checkpoint import load_checkpoint, weights_sha256

    if weights_sha256(load_checkpoint(checkpoint)[0]) != expected:
        expected = "the one that the model was exported from"
        raise bad_input("checkpoint", expected, f"other weights in {checkpoint}")


def this_machine(effort: Effort, with_torch: bool) -> dict[str, Any]:
    """Facts that stand beside the times; those that PyTorch knows only where it took part."""
    facts = machine() | {"gpu": None, "threads": effort.threads or "all cores", "ops": None}
    if with_torch:
        from tensormask_edu.commands import check_ops

        gpu = find_device()
        facts |= {"gpu": asdict(gpu) if gpu else None, "ops": check_ops.machine()["ops"]}
    return facts


# --- measuring, in a process of its own -------------------------------------------------------


def in_own_process(what: str, work: Callable[..., Result], *arguments: Any) -> Result:
    """work(*arguments) in a fresh process; its errors are raised here, its death as one."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(work, *arguments).result()
        except BrokenProcessPool:
            why = "the process that ran it died; its last words are above"
            raise InputError(f"{what}: {why}") from None


def measure(subject: Subject, shape: Shape, effort: Effort) -> Row:
    """Load, warm up, time."""
    opened = opener(subject, effort.threads)
    pictures = np.random.default_rng(0).random(shape, dtype=np.float32)
    memory = Memory(subject.needs_torch)
    start = time.perf_counter()
    session = opened(subject.path, **subject.options)
    session.detect(list(pictures))
    setup_s = time.perf_counter() - start
    for _ in range(effort.warmup - 1):
        session.detect(list(pictures))
    compute, end_to_end = timed(session, pictures, effort)
    memory_mb, at_start_mb = memory.used_mb(on_cpu=session.device == "CPU")
    return Row(
        runtime=session.name,
        device=session.device,
        iterations=len(compute),
        setup_s=round(setup_s, 3),
        compute_ms=times(compute),
        end_to_end_ms=times(end_to_end),
        pictures_per_s=shape[0] / np.median(end_to_end).item() * 1e3,
        memory_mb=round(memory_mb, 1),
        memory_at_start_mb=round(at_start_mb, 1),
    )


def opener(subject: Subject, threads: int) -> Callable[..., Session]:
    """What opens a subject. PyTorch is imported here, so that it is no part of the set-up."""
    if not subject.needs_torch:
        return open_session
    import torch

    from .runtimes.eager import open_checkpoint

    if threads:
        torch.set_num_threads(threads)
    return open_session if subject.kind == "model" else open_checkpoint


def timed(session: Session, pictures: Array, effort: Effort) -> tuple[list[float], list[float]]:
    """Milliseconds of each run: compute, end to end."""
    # in turns, so that a slow moment meets both
    compute: list[float] = []
    end_to_end: list[float] = []
    ready = session.ready(pictures.shape)  # type: ignore[arg-type]
    np.copyto(ready.host[contract.IMAGES], pictures)
    until = time.perf_counter() + effort.seconds
    while len(compute) < effort.iterations and (
        len(compute) < FEWEST or time.perf_counter() < until
    ):
        compute.append(ready.compute_ms())
        start = time.perf_counter()
        session.detect(list(pictures))
        end_to_end.append(1e3 * (time.perf_counter() - start))
    return compute, end_to_end


def times(milliseconds: Sequence[float]) -> Times:
    """Median and the slow end."""
    return Times(*(np.percentile(milliseconds, share).item() for share in (50, 90, 99)))


class Memory:
    """Megabytes (10^6 bytes) that come into use from here on."""

    def __init__(self, with_torch: bool) -> None:
        cuda = sys.modules["torch"].cuda if with_torch else None
        self.cuda = cuda if cuda and cuda.is_available() else None
        self.free = self.cuda.mem_get_info()[0] if self.cuda else 0
        self.resident_mb = process_mb("VmRSS")

    def used_mb(self, on_cpu: bool) -> tuple[float, float]:
        """On the CPU the process's peak and what it had at the start; else the GPU's growth."""
        if on_cpu or self.cuda is None:
            return process_mb("VmHWM"), self.resident_mb
        return (self.free - self.cuda.mem_get_info()[0]) / 1e6, 0.0


def process_mb(name: str) -> float:
    """A memory figure of this process as Linux keeps it: VmRSS now, VmHWM the most so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0
