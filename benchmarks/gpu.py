"""Everything worth doing while a GPU is at hand, in one run: checks, then times; one JSON file.

    python benchmarks/gpu.py                             benchmarks/results/gpu-NAME-DATE.json
    python benchmarks/gpu.py --steps checks ops          two of the steps
    python benchmarks/gpu.py --steps build --work W      without a GPU: what the others read
    python benchmarks/gpu.py --work W --minutes 9        on the GPU, no longer than it is lent

Needs tensormask-edu[dev,export,cuda] and a TensorRT; no network. Steps:

    build    ONNX files of two models with fresh weights, float32 and float16; their engines
             with and without Python's plugin; what lies in W already stays
    checks   pytest tests/gpu: kernels, engines and nodes are right, as only a device can show
    ops      benchmarks/ops.py: against a copy, formulas and the plain kernel
    model    benchmarks/model.py: the paper's model at 800 x 1344 by stages, factors and area
    latency  every engine in W, those built elsewhere too, and PyTorch beside it in the same
             precision, eager and compiled

A step that fails is recorded and the next one runs; none begins when --minutes are over. Not
run on a GPU yet; building was.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measure import RESULTS, ROOT, facts, script_parser
from tensormask_export import bench
from tensormask_export.engine.device import find_device
from tensormask_export.engine.manifest import read_engine

from tensormask_edu.base.files import make_folder, read_json, write_json

CHECKS = ROOT / "tests" / "gpu"
sys.path.append(str(CHECKS))
import subjects  # noqa: E402

Outcome = dict[str, Any]
STEPS = ("build", "checks", "ops", "model", "latency")
BUILT = ("backend", "targets", "ops", "layers")  # of a manifest


@dataclass
class Run:
    """The steps, in the folder `work`. until: when time is over, by `time.monotonic`."""

    work: Path
    until: float = math.inf

    def build(self) -> Outcome:
        """Every engine that is not there yet."""
        names = [name for kinds in subjects.NAMES.values() for name in kinds]
        return {name: self.attempt(partial(self.built, name)) for name in names}

    def built(self, name: str) -> Outcome:
        """What one engine became."""
        path = subjects.engine(name, self.work)
        manifest = read_engine(path).manifest
        return {"bytes": path.stat().st_size, **{key: manifest[key] for key in BUILT}}

    def checks(self) -> Outcome:
        """Per check what it saw."""
        with tempfile.TemporaryDirectory() as folder:
            record = Path(folder) / "record.jsonl"
            paths = os.pathsep.join([str(CHECKS), os.environ.get("PYTHONPATH", "")])
            places = {"TENSORMASK_GPU_WORK": self.work, "TENSORMASK_GPU_RECORD": record}
            words = ["-m", "pytest", "-p", "record", "-p", "no:cacheprovider", CHECKS]
            said = self.child(*words, PYTHONPATH=paths, **places)
            lines = record.read_text().splitlines() if record.is_file() else []
        rows = {row.pop("check"): row for row in map(json.loads, lines)}
        if not rows or said.returncode not in (0, 1):  # 1: a check failed, which its row says
            rows["pytest"] = {"ok": False, "why": f"exit {said.returncode}: {said.stderr}"}
        return rows

    def ops(self) -> Outcome:
        return self.timed("ops.py")

    def model(self) -> Outcome:
        return self.timed("model.py", "--parts", "stages", "factors", "area")

    def timed(self, script: str, *options: str) -> Outcome:
        """What a script beside this one writes about this device."""
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "timed.json"
            words = (ROOT / "benchmarks" / script, "--device", "cuda", "--json", target)
            said = self.child(*words, *options)
            if target.is_file():
                return read_json(target)
        raise RuntimeError(f"{script} ended with {said.returncode}: {said.stderr}")

    def child(self, *words: Any, **more: Any) -> subprocess.CompletedProcess[str]:
        """A Python of its own with more variables, killed when time is over."""
        left = self.until - time.monotonic()
        return subprocess.run(
            [sys.executable, *map(str, words)],
            env=os.environ | {name: str(value) for name, value in more.items()},
            stderr=subprocess.PIPE,
            text=True,
            timeout=None if math.isinf(left) else left,
        )

    def latency(self) -> Outcome:
        """Times of every engine, and PyTorch once per model and precision."""
        paths = sorted(self.work.glob("*.engine"))
        return {path.stem: self.attempt(partial(self.bench, path)) for path in paths}

    def bench(self, path: Path) -> Outcome:
        """One engine."""
        effort = bench.Effort(warmup=20, iterations=200, seconds=20)
        beside = subjects.checkpoint_of(path) if path.stem.endswith("none") else None
        report = bench.bench(path, effort=effort, eager=beside, compiled=beside)
        print(report.table(), flush=True)
        return report.to_json()

    def attempt(self, step: Callable[[], Any]) -> Outcome:
        """What a step returned, or why it failed; either way how long it took."""
        start = time.monotonic()
        if start > self.until:
            return {"ok": False, "why": "not begun: --minutes were over", "seconds": 0}
        try:
            outcome: Outcome = {"ok": True, "result": step()}
        except Exception:
            outcome = {"ok": False, "why": traceback.format_exc(limit=-3)}
        return outcome | {"seconds": round(time.monotonic() - start, 2)}


def passed(outcome: Any) -> bool:
    """Whether a step, and every step inside it, went well."""
    parts = outcome.get("result", {}).values()
    return outcome["ok"] and all(p.get("ok", True) for p in parts if isinstance(p, dict))


def where() -> Outcome:
    """The machine and its GPU, as far as there is one."""
    found = facts("onnx", "tensorrt", "tensorrt-rtx", "cuda-core", "nvidia-cuda-nvrtc")
    if device := find_device():
        properties = torch.cuda.get_device_properties(0)
        found |= {"device": asdict(device), "memory_bytes": properties.total_memory}
        found["multiprocessors"] = properties.multi_processor_count
    return found


def main() -> int:
    """Run the steps; 0 if all went well, 1 if one failed, 2 if there is no GPU."""
    parser = script_parser(__doc__)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--work", type=Path, default=subjects.WORK, help="for what is built")
    parser.add_argument("--minutes", type=float, default=math.inf, help="for all steps")
    args = parser.parse_args()
    if not torch.cuda.is_available() and list(args.steps) != ["build"]:
        words = "no CUDA device is visible to PyTorch: only --steps build runs here"
        print(words, file=sys.stderr)
        return 2
    machine = where()
    record: Outcome = {"machine": machine}
    name = re.sub(r"\W+", "-", machine["gpu"] or "no gpu").strip("-").lower()
    target = Path(args.json or RESULTS / f"gpu-{name}-{machine['date']}.json")
    run = Run(make_folder(args.work).resolve(), time.monotonic() + 60 * args.minutes)
    for step in args.steps:
        record[step] = run.attempt(getattr(run, step))
        verdict = "ok" if passed(record[step]) else "FAILED"
        print(f"{step}: {verdict} in {record[step]['seconds']} s", flush=True)
        write_json(target, record)
    print(f"written to {target}")
    return 0 if all(passed(record[step]) for step in args.steps) else 1


if __name__ == "__main__":
    raise SystemExit(main())
