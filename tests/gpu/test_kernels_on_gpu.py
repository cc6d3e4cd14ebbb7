"""What only a device can show of the kernels: right and the same in every run, no waiting.

The checks are functions of `benchmarks/gpu`, which runs them without pytest.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))

from device import Gpu
from gpu import kernels, watched
from gpu.task import Task

from tensormask_edu.commands.check_ops import check_ops

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("default"),  # set_sync_debug_mode says that it is a prototype
]
TASK = Task(Gpu())
SANITIZER = shutil.which("compute-sanitizer") or watched.TOOLKIT


def test_every_kernel_compiles_for_this_gpu():
    kernels.compiled(TASK)


def test_every_operator_on_the_device_is_the_reference():
    report = check_ops("cuda")
    assert report["passed"], [row for row in report["results"] if not row["passed"]]


def test_derivatives_on_the_device_are_right():
    kernels.derivatives(TASK)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("lam", TASK.sizes.lams)
def test_the_bits_are_the_same_in_every_run(lam, dtype):
    kernels.same_bits(TASK, lam, dtype)


def test_work_on_a_side_stream_waits_for_a_slow_kernel_before_it():
    kernels.stream(TASK)


def test_a_cuda_graph_replays_the_four_functions_with_new_input():
    kernels.graph(TASK)


def test_no_call_waits_for_the_device():
    kernels.no_waiting(TASK)


def test_beyond_32_bits_the_last_image_is_the_same_as_alone():
    kernels.beyond_32_bits(TASK)


@pytest.mark.skipif(not Path(SANITIZER).is_file(), reason="compute-sanitizer is not installed")
@pytest.mark.parametrize("tool", watched.TOOLS)
def test_compute_sanitizer_has_nothing_to_say(tool, monkeypatch):
    monkeypatch.chdir(ROOT / "benchmarks")  # where `gpu` and `device` are found
    watched.watched(TASK, tool)
