"""What only a device can show of the kernels: right and the same in every run, no waiting."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tensormask_edu.commands.check_ops import check_ops
from tensormask_edu.ops import cuda, formula

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("default"),  # set_sync_debug_mode says that it is a prototype
]
PAD_VALUE = -6.0
LAMS = (1, 2, 4, 8, 16, 32)
RUNS = 20
SANITIZER = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
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


def paper_input(dtype: torch.dtype = torch.float32) -> Tensor:
    """One image at paper size."""
    generator = torch.Generator("cuda").manual_seed(0)
    return torch.randn(1, 15, 15, 200, 336, device="cuda", generator=generator).to(dtype)


def some_cells(x: Tensor, lam: int, count: int) -> Tensor:
    """Random cells of the output's grid, repeats likely: (K, 3)."""
    rows, columns = -(-x.shape[3] // lam), -(-x.shape[4] // lam)
    ends = torch.tensor([x.shape[0], rows, columns], device="cuda")
    return (torch.rand(count, 3, device="cuda") * ends).long()


def all_four(x: Tensor, lam: int, index: Tensor) -> list[Tensor]:
    """The results of the four functions, backward ones fed with the forward ones."""
    out = cuda.forward(x, lam, PAD_VALUE)
    windows = cuda.forward_windows(x, lam, index, PAD_VALUE)
    grad = cuda.backward(out, lam, *x.shape[3:])
    return [out, windows, grad, cuda.backward_windows(windows, lam, index, x.shape)]


def test_every_kernel_compiles_for_this_gpu(record_property):
    major, minor = torch.cuda.get_device_capability()
    for name, usage in cuda.compile_all(f"sm_{major}{minor}").items():
        record_property(name, usage._asdict())


def test_every_operator_on_the_device_is_the_reference(record_property):
    report = check_ops("cuda")
    record_property("report", report)
    assert report["passed"], [row for row in report["results"] if not row["passed"]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("lam", LAMS)
def test_the_bits_are_the_same_in_every_run(lam, dtype):
    x = paper_input(dtype)
    index = some_cells(x, lam, 100)
    first = all_four(x, lam, index)
    for _ in range(RUNS - 1):
        assert all(map(torch.equal, first, all_four(x, lam, index)))


def test_work_on_a_side_stream_waits_for_a_slow_kernel_before_it():
    x, stream = paper_input(), torch.cuda.Stream()
    expected = cuda.forward(2 * x, 8, PAD_VALUE)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        got = cuda.forward(2 * x, 8, PAD_VALUE)
    stream.synchronize()
    assert torch.equal(got, expected)


def test_a_cuda_graph_replays_the_four_functions_with_new_input():
    x = paper_input()
    index = some_cells(x, 4, 50)
    all_four(x, 4, index)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = all_four(x, 4, index)
    x.mul_(-0.5)
    graph.replay()
    assert all(map(torch.equal, results, all_four(x, 4, index)))


def test_no_call_waits_for_the_device(record_property):
    x = paper_input()
    index = some_cells(x, 2, 50)
    all_four(x, 2, index)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")  # PyTorch raises if a call synchronises
    try:
        torch.cuda._sleep(500_000_000)
        start = time.perf_counter()
        all_four(x, 2, index)
        queued = time.perf_counter() - start
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    busy = time.perf_counter() - start
    record_property("queued_ms", 1e3 * queued)
    record_property("busy_ms", 1e3 * busy)
    assert queued < busy / 2


def test_beyond_32_bits_the_last_image_is_the_same_as_alone(record_property):
    lam, shape = 2, (-(-(1 << 31) // (15 * 15 * 200 * 336)) + 1, 15, 15, 200, 336)
    x = torch.empty(shape, dtype=torch.float16, device="cuda").normal_()
    record_property("elements", x.numel())
    assert x.numel() > 1 << 31
    last = x[-1:].clone()
    out = cuda.forward(x, lam, PAD_VALUE)
    assert torch.equal(out[-1:], cuda.forward(last, lam, PAD_VALUE))
    expected = formula.forward(last.float(), lam, PAD_VALUE)
    assert (out[-1:].float() - expected).abs().max() < 1e-2
    grad = cuda.backward(out, lam, *shape[3:])
    assert torch.equal(grad[-1:], cuda.backward(out[-1:].clone(), lam, *shape[3:]))


@pytest.mark.skipif(not Path(SANITIZER).is_file(), reason="compute-sanitizer is not installed")
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_compute_sanitizer_has_nothing_to_say(tool, tmp_path, record_property):
    script = tmp_path / "small.py"
    script.write_text(SMALL)
    # PyTorch's own kernels are not ours to judge; memory from the driver has exact bounds
    ours = ["--kernel-regex", "kns=swap_align2nat"]
    words = [SANITIZER, "--tool", tool, "--error-exitcode", "9", *ours, sys.executable, script]
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    child = subprocess.run(words, capture_output=True, text=True, env=environment)
    text = child.stdout + child.stderr
    summary = re.findall(r"=+ .*(?:SUMMARY|Error|error).*", text)[-5:] or text[-1000:]
    record_property("summary", summary)
    assert child.returncode == 0, summary
