"""One step, in a process of its own: `python -m gpu.step NAME --output FOLDER`.

Its rows are in FOLDER/NAME.json as soon as each is there, beside the device, the date, the
versions and the commit, so what is cut leaves what it found. The file says how the step stands:
running, ok, failed, or skipped with the reason.
"""

from __future__ import annotations

import argparse
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from gpu.task import REAL, REHEARSED, NotHere, Row, Task, failures, why_not_here
from tensormask_edu.base.files import write_json
from tensormask_edu.base.machine import machine, version

# Where the function `NAME(task)` is, which yields rows; its module may have `NAME_text(rows)`.
MODULES = {
    "machine": "here",
    "operators": "kernels",
    "kernels": "kernels",
    "network": "network",
    "speed": "speed",
    "model": "model",
    "engines": "engines",
    "build": "engines",
    "sanitizer": "watched",
}
VERSIONS = (
    "cuda-core", "cuda-bindings", "nvidia-cuda-nvrtc", "torchvision", "triton", "onnx",
    "onnxruntime", "tensorrt", "tensorrt-rtx",
)  # fmt: skip


class Record:
    """The step's file, written anew with every row."""

    def __init__(self, path: Path, head: Row) -> None:
        self.path, self.head, self.rows = path, head, []
        self.start = time.monotonic()
        self.text: Callable[[list[Row]], list[str]] = checked

    def write(self, state: str, **more: Any) -> None:
        """The file as it stands."""
        seconds = {"seconds": round(time.monotonic() - self.start, 1)}
        text = self.text(self.rows)
        record = self.head | {"state": state} | more | seconds | {"text": text}
        write_json(self.path, record | {"rows": self.rows})

    def run(self, name: str, task: Task) -> str:
        """Every row of a step; how it ended."""
        module = import_module(f"gpu.{MODULES[name]}")
        self.text = getattr(module, f"{name}_text", checked)
        rows: Iterator[Row] = getattr(module, name)(task)
        for row in rows:
            self.rows.append(row)
            self.write("running")
        clocks = task.device.clocks()  # while it is still warm
        state = "ok" if any("ok" in row for row in self.rows) else "skipped"
        if any(not row.get("ok", True) for row in self.rows):
            state = "failed"
        self.write(state, clocks=clocks)
        return state


def checked(rows: Sequence[Row]) -> list[str]:
    """How many held; which did not, and which could not run."""
    ran = [row["ok"] for row in rows if "ok" in row]
    return [f"{sum(ran)} of {len(ran)} held", *failures(rows)]


def found_device(rehearse: bool) -> Any:
    """The GPU, or the processor in its place; NotHere if there is none."""
    import device
    import torch

    if not rehearse and not torch.cuda.is_available():
        raise NotHere("no CUDA device is visible to PyTorch")
    return device.find("cpu" if rehearse else "cuda")


def main(words: Sequence[str] | None = None) -> int:
    """0: it went well, 1: something failed, 3: it cannot run here. The file says more."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=MODULES)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--commit", default="")
    parser.add_argument("--rehearse", action="store_true")
    args = parser.parse_args(words)
    sizes = REHEARSED if args.rehearse else REAL
    head = {"step": args.name, "rehearsal": args.rehearse, "commit": args.commit}
    head["began"] = datetime.now().astimezone().isoformat(timespec="seconds")
    record = Record(args.output / f"{args.name}.json", head)
    record.write("running")  # so that the file is there if nothing else comes to be
    try:
        device = found_device(args.rehearse)
        head |= {"device": device.facts(), "machine": machine()}
        head |= {"python": platform.python_version(), "sizes": asdict(sizes)}
        head["versions"] = {name: version(name) for name in VERSIONS}
        state = record.run(args.name, Task(device, sizes, args.work))
    except Exception as error:
        why = why_not_here(error)
        state = "skipped" if why else "failed"
        record.write(state, why=why or traceback.format_exc(limit=-3))
    return {"ok": 0, "failed": 1, "skipped": 3}[state]


if __name__ == "__main__":
    raise SystemExit(main())
