"""How long an exported model takes and how much memory, beside PyTorch if asked: a row per
runtime.

    compute     the model alone, on an input that is already there: on a GPU, what the device needs
    end to end  from pictures in this machine's memory to detections there, masks pasted, copies included

Every runtime works in a process of its own, so that its memory is its own and an abort is an
error message.

next: cli.py
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import torch

from tensormask_edu.base.errors import InputError, bad_input
from tensormask_edu.base.files import file_sha256
from tensormask_edu.commands.check_ops import machine
from tensormask_edu.weights.checkpoint import load_checkpoint

from . import contract
from .engine.device import find_device
from .engine.manifest import read_engine
from .onnx_file.write import weights_sha256
from .runtimes.session import (
    Array,
    OnnxSession,
    Session,
    check_shape,
    detect,
    open_session,
)
from .shapes import Shape, shape_name

Result = TypeVar("Result")

FEWEST = 5  # runs that a median is taken of, whatever `seconds` says
DEFAULT_SHAPE: Shape = (1, 3, 256, 256)

# --- what is measured -------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """A runtime and its file: an exported model, or a checkpoint in PyTorch."""

    kind: Literal["model", "eager", "compile"]
    path: str
    options: dict[str, Any] = field(default_factory=dict)  # of `open_session` or `TorchRunner`


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
        for name, least in (
            ("warmup", 1),
            ("iterations", FEWEST),
            ("seconds", 0),
            ("threads", 0),
        ):
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
    """One runtime. setup_s: load, and the first run of this shape. memory_mb: what came into
    use on the GPU, or without one the most that the process had; memory_at_start_mb: how much
    of that before loading."""

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
    """All rows, and what they were measured on. files: SHA-256 of the model and what belongs to
    it."""

    model: str
    shape: Shape
    warmup: int
    rows: list[Row]
    files: dict[str, str]
    machine: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def table(self) -> str:
        """A line per runtime."""
        head = [
            "",
            "compute ms",
            "p90",
            "p99",
            "end to end ms",
            "p90",
            "p99",
            "pictures/s",
            "MB",
            "of it new",
            "runs",
        ]
        lines = [head]
        for row in self.rows:
            times = [
                t
                for of in (row.compute_ms, row.end_to_end_ms)
                for t in (of.median, of.p90, of.p99)
            ]
            numbers = [
                *times,
                row.pictures_per_s,
                row.memory_mb,
                row.memory_mb - row.memory_at_start_mb,
            ]
            lines.append([row.runtime, *(f"{n:.4g}" for n in numbers), str(row.iterations)])
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        text = [
            "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()
            for line in lines
        ]
        devices = ", ".join(dict.fromkeys(row.device for row in self.rows))
        return "\n".join([f"{shape_name(self.shape)} on {devices}; medians", *text])


def bench(
    model: str | Path,
    *,
    shape: Shape | None = None,
    effort: Effort | None = None,
    eager: str | Path | None = None,
    compiled: str | Path | None = None,
    **engine_options: Any,
) -> BenchReport:
    """Measure an ONNX file or an engine, and the checkpoint it came from if one is given.

    Args:
        shape: of the input; default the shape the engine is tuned for, or `DEFAULT_SHAPE`.
        eager, compiled: checkpoint folders to run in PyTorch as well, as it is and through
            torch.compile.
        engine_options: see `run.open_session`.

    Raises:
        InputError: as `open_session`; a shape that the model does not take; a checkpoint of
            other weights.
    """
    effort = effort or Effort()
    subjects = [Subject("model", str(model), engine_options)]
    metadata, files, profile = described(model)
    half = {"half": metadata[contract.DETECTOR]["precision"] == "float16"}
    subjects += [Subject("eager", str(eager), half)] if eager else []
    subjects += [Subject("compile", str(compiled), half)] if compiled else []
    shape = shape or (profile.opt if profile else DEFAULT_SHAPE)
    check_shape(shape, metadata, profile)
    for subject in subjects[1:]:
        check_weights(subject.path, metadata[contract.WEIGHTS_SHA256])
    rows = [
        in_own_process(subject.path, measure, subject, shape, effort) for subject in subjects
    ]
    device = find_device()
    where = machine() | {
        "gpu": asdict(device) if device else None,
        "threads": effort.threads or "all cores",
    }
    return BenchReport(str(model), shape, effort.warmup, rows, files, where)


def described(model: str | Path) -> tuple[Any, dict[str, str], Any]:
    """Metadata, SHA-256 by file, and profile of a model, without running it."""
    if not Path(model).is_file():
        raise bad_input("model", "an existing .onnx file or engine", model, "check the path")
    if Path(model).suffix == ".onnx":
        return OnnxSession(model).metadata, {"model": file_sha256(model)}, None
    file = read_engine(model)
    hashes = {
        "engine": file.manifest["engine"]["sha256"],
        "model": file.manifest["model"].get("sha256"),
    }
    plugin = (
        {"plugin": file.manifest["plugin"]["sha256"]}
        if file.manifest["plugin"]["sha256"]
        else {}
    )
    return file.metadata, hashes | plugin, file.profile


def check_weights(checkpoint: str | Path, expected: str) -> None:
    """Raise InputError unless a checkpoint holds the weights of the model beside it."""
    if weights_sha256(load_checkpoint(checkpoint)[0]) != expected:
        expected = "the one that the model was exported from"
        raise bad_input("checkpoint", expected, f"other weights in {checkpoint}")


# --- measuring, in a process of its own -------------------------------------------------------


def in_own_process(what: str, work: Callable[..., Result], *arguments: Any) -> Result:
    """work(*arguments) in a fresh process; its errors are raised here, and its death is an
    InputError."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(work, *arguments).result()
        except BrokenProcessPool:
            raise InputError(
                f"{what}: the process that ran it died; its last words are above"
            ) from None


def measure(subject: Subject, shape: Shape, effort: Effort) -> Row:
    """Load, warm up, time. Compute and end to end take turns, so that a slow moment meets
    both."""
    if effort.threads:
        torch.set_num_threads(effort.threads)
    images = np.random.default_rng(0).random(shape, dtype=np.float32)
    memory = Memory()
    start = time.perf_counter()
    runner = open_runner(subject, images, effort.threads)
    runner.end_to_end()
    setup_s = time.perf_counter() - start
    for _ in range(effort.warmup - 1):
        runner.end_to_end()
    compute, end_to_end = timed(runner, effort)
    memory_mb, at_start_mb = memory.used_mb(on_cpu=runner.device == "CPU")
    return Row(
        runtime=runner.name,
        device=runner.device,
        iterations=len(compute),
        setup_s=round(setup_s, 3),
        compute_ms=times(compute),
        end_to_end_ms=times(end_to_end),
        pictures_per_s=shape[0] / np.median(end_to_end).item() * 1e3,
        memory_mb=round(memory_mb, 1),
        memory_at_start_mb=round(at_start_mb, 1),
    )


def timed(runner: Runner, effort: Effort) -> tuple[list[float], list[float]]:
    """Milliseconds of each run: compute, end to end."""
    compute: list[float] = []
    end_to_end: list[float] = []
    until = time.perf_counter() + effort.seconds
    while len(compute) < effort.iterations and (
        len(compute) < FEWEST or time.perf_counter() < until
    ):
        compute.append(runner.compute_ms())
        start = time.perf_counter()
        runner.end_to_end()
        end_to_end.append(1e3 * (time.perf_counter() - start))
    return compute, end_to_end


def times(milliseconds: Sequence[float]) -> Times:
    """Median and the slow end."""
    return Times(*(np.percentile(milliseconds, share).item() for share in (50, 90, 99)))


class Memory:
    """Megabytes (10^6 bytes) that come into use from here on."""

    def __init__(self) -> None:
        self.free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0
        self.resident_mb = process_mb("VmRSS")

    def used_mb(self, on_cpu: bool) -> tuple[float, float]:
        """On the CPU the process's peak, and what it had at the start; else the GPU's growth,
        and 0."""
        if on_cpu:
            return process_mb("VmHWM"), self.resident_mb
        return (self.free - torch.cuda.mem_get_info()[0]) / 1e6, 0.0


def process_mb(name: str) -> float:
    """A memory figure of this process as Linux keeps it: VmRSS now, VmHWM the most so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


# --- runtimes ---------------------------------------------------------------------------------


class Runner(Protocol):
    """A runtime with its input."""

    name: str
    device: str

    def compute_ms(self) -> float:
        """Milliseconds of the computation alone."""

    def end_to_end(self) -> None:
        """From pictures in this machine's memory to detections there."""


def open_runner(subject: Subject, images: Array, threads: int = 0) -> Runner:
    """Whatever is measured, loaded."""
    if subject.kind == "model":
        return ModelRunner(
            open_session(subject.path, threads=threads, **subject.options), images
        )
    return TorchRunner(subject.path, subject.kind == "compile", images, **subject.options)


class ModelRunner:
    """An exported model."""

    def __init__(self, session: Session, images: Array) -> None:
        self.session, self.pictures = session, list(images)
        self.ready = session.ready(images.shape)  # type: ignore[arg-type]
        self.name, self.device = session.name, session.device

    def compute_ms(self) -> float:
        return self.ready.compute_ms()

    def end_to_end(self) -> None:
        detect(self.session, self.pictures)


class TorchRunner:
    """A checkpoint in PyTorch, as `tensormask-edu predict` runs it. Masks are pasted in
    `compute_ms` too.

    compiled: its network by torch.compile. half: on a GPU in float16, by autocast."""

    def __init__(
        self, checkpoint: str | Path, compiled: bool, images: Array, half: bool = False
    ) -> None:
        gpu = find_device()
        self.where, self.device = ("cuda", gpu.name) if gpu else ("cpu", "CPU")
        self.half = half and gpu is not None
        self.model = load_checkpoint(checkpoint)[0].to(self.where)
        if compiled:
            self.model.network.compile()
        words = [
            "torch",
            torch.__version__,
            "compiled" if compiled else "eager",
            "float16" * self.half,
        ]
        self.name = " ".join(filter(None, words))
        self.images = torch.from_numpy(images)
        self.there = list(self.images.to(self.where))

    @torch.inference_mode()
    def compute_ms(self) -> float:
        self._wait()
        start = time.perf_counter()
        self._run(self.there)
        self._wait()
        return 1e3 * (time.perf_counter() - start)

    @torch.inference_mode()
    def end_to_end(self) -> None:
        for detection in self._run(list(self.images.to(self.where))):
            for tensor in detection.values():
                tensor.cpu()

    def _run(self, images: list[torch.Tensor]) -> Any:
        with torch.autocast(self.where, torch.float16, enabled=self.half):
            return self.model(images)

    def _wait(self) -> None:
        if self.where == "cuda":
            torch.cuda.synchronize()
