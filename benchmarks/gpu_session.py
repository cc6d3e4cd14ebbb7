"""Everything worth doing while a GPU is at hand, in one run: build, check, time; one JSON file
is the record.

    python benchmarks/gpu_session.py                        writes benchmarks/results/gpu-NAME-DATE.json
    python benchmarks/gpu_session.py --steps build check    two of the steps

Steps: `build` compiles every kernel for this GPU; `check` compares all implementations with the
NumPy reference; `hold` tries what only a device can show (same bits in every run, other
streams, CUDA graphs, no waiting, more than 2^31 elements); `sanitize` runs compute-sanitizer,
or records why not; `time` measures against a copy, formulas and the plain kernel; `model` times
the paper's model at 800 x 1344, stage by stage and factor by factor. A step that fails is
recorded and the next one runs. Not run on a GPU yet.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tensormask_edu.base.files import read_json, write_json
from tensormask_edu.commands.check_ops import check_ops, machine
from tensormask_edu.ops import cuda, formula

HERE = Path(__file__).resolve().parent
LAMS = (1, 2, 4, 8, 16, 32)
RUNS = 20
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
# What compute-sanitizer watches: every kernel, every dtype, sizes that tiles do not divide.
SMALL = """
import torch
from tensormask_edu.ops import cuda
for dtype in cuda.TYPES:
    for lam in (1, 2, 3, 8):
        for shape in ((1, 3, 2, 21, 34), (2, 2, 3, 9, 36)):
            x = torch.randn(shape, device="cuda").to(dtype)
            out = cuda.forward(x, lam, -6.0)
            cuda.backward(out, lam, *shape[3:])
            for count in (1, 500):
                ends = torch.tensor([shape[0], *out.shape[3:]], device="cuda")
                index = (torch.rand(count, 3, device="cuda") * ends).long()
                windows = cuda.forward_windows(x, lam, index, -6.0)
                cuda.backward_windows(windows, lam, index, shape)
    x = torch.randn(1, 1, 1, 3, 3, device="cuda").to(dtype)
    cuda.backward(cuda.forward(x, 400, -6.0), 400, 3, 3)
torch.cuda.synchronize()
"""


def build() -> dict[str, Any]:
    """Seconds, and registers and spills of every kernel for this device."""
    major, minor = torch.cuda.get_device_capability()
    start = time.perf_counter()
    report = cuda.compile_all(f"sm_{major}{minor}")
    kernels = {name: usage._asdict() for name, usage in report.items()}
    return {"seconds": time.perf_counter() - start, "kernels": kernels}


def check() -> dict[str, Any]:
    """The table of `check-ops` on this device."""
    report = check_ops("cuda")
    if not report["passed"]:
        raise AssertionError([row for row in report["results"] if not row["passed"]])
    return report


def hold() -> dict[str, Any]:
    """What must hold on a device: name -> what was seen."""
    tests = (same_bits, other_stream, captured_graph, no_waiting, beyond_32_bits)
    return {test.__name__: attempt(test) for test in tests}


def paper_input(dtype: torch.dtype = torch.float32) -> Tensor:
    """One image at paper size."""
    generator = torch.Generator("cuda").manual_seed(0)
    return torch.randn(1, 15, 15, 200, 336, device="cuda", generator=generator).to(dtype)


def some_cells(out: Tensor, count: int) -> Tensor:
    """Random cells of an output's grid, repeats likely."""
    ends = torch.tensor([out.shape[0], *out.shape[3:]], device="cuda")
    return (torch.rand(count, 3, device="cuda") * ends).long()


def all_four(x: Tensor, lam: int, index: Tensor) -> list[Tensor]:
    """The results of the four functions, backward ones fed with the forward ones."""
    out, windows = cuda.forward(x, lam, -6.0), cuda.forward_windows(x, lam, index, -6.0)
    grads = (
        cuda.backward(out, lam, *x.shape[3:]),
        cuda.backward_windows(windows, lam, index, x.shape),
    )
    return [out, windows, *grads]


def same_bits() -> str:
    """Repeated runs, every lam, two dtypes."""
    for dtype in (torch.float32, torch.float16):
        x = paper_input(dtype)
        for lam in LAMS:
            index = some_cells(cuda.forward(x, lam, -6.0), 100)
            first = all_four(x, lam, index)
            for _ in range(RUNS - 1):
                assert all(map(torch.equal, first, all_four(x, lam, index))), (dtype, lam)
    return f"{RUNS} runs of four functions, {len(LAMS)} lam, 2 dtypes: equal bits"


def other_stream() -> str:
    """Work queued on a side stream behind a slow kernel must wait for it."""
    x, stream = paper_input(), torch.cuda.Stream()
    expected = cuda.forward(2 * x, 8, -6.0)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        got = cuda.forward(2 * x, 8, -6.0)
    stream.synchronize()
    assert torch.equal(got, expected)
    return "a side stream's order is kept"


def captured_graph() -> str:
    """The four functions in a CUDA graph, replayed with new input."""
    x = paper_input()
    index = some_cells(cuda.forward(x, 4, -6.0), 50)
    all_four(x, 4, index)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = all_four(x, 4, index)
    x.mul_(-0.5)
    graph.replay()
    assert all(map(torch.equal, results, all_four(x, 4, index)))
    return "captured, replayed with new input, equal to a direct call"


def no_waiting() -> str:
    """No call may synchronise: PyTorch raises if one does, and the queue must be longer than
    the calls."""
    x = paper_input()
    index = some_cells(cuda.forward(x, 2, -6.0), 50)
    all_four(x, 2, index)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.cuda._sleep(500_000_000)
        start = time.perf_counter()
        all_four(x, 2, index)
        queued = time.perf_counter() - start
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    waited = time.perf_counter() - start
    assert queued < waited / 2, (queued, waited)
    return (
        f"queued in {1e3 * queued:.2f} ms while the device was busy for {1e3 * waited:.0f} ms"
    )


def beyond_32_bits() -> str:
    """More than 2^31 elements: images at the far end equal the same images alone."""
    lam, shape = 2, (-(-(1 << 31) // (15 * 15 * 200 * 336)) + 1, 15, 15, 200, 336)
    x = torch.empty(shape, dtype=torch.float16, device="cuda").normal_()
    out = cuda.forward(x, lam, -6.0)
    assert x.numel() > 1 << 31 and torch.equal(
        out[-1:], cuda.forward(x[-1:].clone(), lam, -6.0)
    )
    expected = formula.forward(x[-1:].float(), lam, -6.0)
    assert (out[-1:].float() - expected).abs().max() < 1e-2
    grad = cuda.backward(out, lam, *shape[3:])
    assert torch.equal(grad[-1:], cuda.backward(out[-1:].clone(), lam, *shape[3:]))
    return f"{x.numel()} elements"


def sanitize() -> dict[str, Any]:
    """compute-sanitizer's verdict per tool; its refusal is a result too."""
    program = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(program).is_file():
        return {"why_not": "compute-sanitizer is not installed"}
    return {tool: sanitized(program, tool) for tool in TOOLS}


def sanitized(program: str, tool: str) -> dict[str, Any]:
    """One tool over the small script. Memory comes from the driver directly, so that its bounds
    are exact."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "small.py"
        script.write_text(SMALL)
        ours = [
            "--kernel-regex",
            "kns=swap_align2nat",
        ]  # PyTorch's own kernels are not ours to judge
        command = [
            program,
            "--tool",
            tool,
            "--error-exitcode",
            "9",
            *ours,
            sys.executable,
            str(script),
        ]
        environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        run = subprocess.run(command, capture_output=True, text=True, env=environment)
    text = run.stdout + run.stderr
    summary = re.findall(r"=+ .*(?:SUMMARY|Error|error).*", text)
    return {
        "exit": run.returncode,
        "clean": run.returncode == 0,
        "summary": summary[-5:] or text[-1000:],
    }


def measure(script: str, *options: str) -> dict[str, Any]:
    """What a benchmark beside this file writes about this device, from a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "measured.json"
        command = [
            sys.executable,
            str(HERE / script),
            "--device",
            "cuda",
            "--json",
            str(target),
            *options,
        ]
        run = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        if not target.is_file():
            raise RuntimeError(f"{script} ended with {run.returncode}: {run.stderr[-2000:]}")
        return read_json(target)


def attempt(step: Callable[[], Any]) -> dict[str, Any]:
    """What a step returned, or why it failed; either way how long it took."""
    start = time.perf_counter()
    try:
        outcome: dict[str, Any] = {"ok": True, "result": step()}
    except Exception:
        outcome = {"ok": False, "why": traceback.format_exc(limit=-3)}
    outcome["seconds"] = round(time.perf_counter() - start, 2)
    return outcome


def where() -> dict[str, Any]:
    """Device, driver, versions, date."""
    properties = torch.cuda.get_device_properties(0)
    from cuda.bindings import driver, nvrtc

    return {
        **machine(),
        "date": datetime.date.today().isoformat(),
        "gpu": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "memory_gb": round(properties.total_memory / 1e9, 1),
        "capability": list(torch.cuda.get_device_capability(0)),
        "driver": driver.cuDriverGetVersion()[1],
        "nvrtc": list(nvrtc.nvrtcVersion()[1:]),
    }


STEPS: dict[str, Callable[[], Any]] = {
    "build": build,
    "check": check,
    "hold": hold,
    "sanitize": sanitize,
    "time": partial(measure, "ops.py"),
    "model": partial(measure, "model.py", "--parts", "stages", "factors", "area"),
}


def passed(outcome: dict[str, Any]) -> bool:
    """Whether a step, and every step inside it, went well."""
    inner = outcome.get("result")
    parts = inner.values() if isinstance(inner, dict) else []
    return outcome["ok"] and all(
        part.get("ok", True) for part in parts if isinstance(part, dict)
    )


def main() -> int:
    """Run the steps; 0 if all went well, 1 if one failed, 2 if there is no GPU."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument(
        "--json", metavar="FILE", help="default: benchmarks/results/gpu-NAME-DATE.json"
    )
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device is visible to PyTorch: nothing to do", file=sys.stderr)
        return 2
    record: dict[str, Any] = {"machine": where()}
    name = re.sub(r"\W+", "-", record["machine"]["gpu"]).strip("-").lower()
    target = Path(
        args.json or HERE / "results" / f"gpu-{name}-{record['machine']['date']}.json"
    )
    for step in args.steps:
        record[step] = attempt(STEPS[step])
        print(
            f"{step}: {'ok' if passed(record[step]) else 'FAILED'} in {record[step]['seconds']} s",
            flush=True,
        )
        write_json(target, record)
    print(f"written to {target}")
    return 0 if all(passed(record[step]) for step in args.steps) else 1


if __name__ == "__main__":
    raise SystemExit(main())
