"""Which checks may stay undone, and when. A new skip fails here until it is listed with its reason."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable

import pytest
import torch
from conftest import SHARED, SKIPPED

# Also parametrised by device; the CPU's share of each always runs.
ON_CUDA = {
    "test_backward_gives_the_same_bits_in_every_run",
    "test_backward_is_the_transpose_of_forward",
    "test_first_and_second_derivatives_are_right",
    "test_gradients_of_repeated_windows_add",
    "test_op_and_windows_equal_the_reference_on_any_shape",
    "test_op_equals_the_official_op",
    "test_op_equals_the_official_op_on_all_cases",
    "test_op_equals_the_reference_on_every_case",
    "test_op_gives_the_published_sums",
    "test_registration_passes_opcheck",
    "test_the_op_keeps_its_inputs_dtype_under_autocast",
    "test_transforms_equal_the_reference_on_every_case",
}

# Beginning of the skip reason -> (whether it is true here, the tests that may give it).
ALLOWED: dict[str, tuple[Callable[[], bool], set[str]]] = {
    "no CUDA device": (lambda: not torch.cuda.is_available(), ON_CUDA),
    "a CUDA device is here": (
        torch.cuda.is_available,
        {"test_an_engine_without_a_gpu_points_to_the_onnx_file"},
    ),
    "no shared data": (lambda: not SHARED.is_dir(), {"*"}),
    "no C++ compiler": (lambda: not shutil.which("g++"), {"*"}),
    "onnxruntime_extensions is not installed": (
        lambda: importlib.util.find_spec("onnxruntime_extensions") is None,
        {
            "test_loops_that_would_take_hours_are_left_out_and_said",
            "test_the_numpy_loops_compute_the_nodes_inside_onnx_runtime",
        },
    ),
    "tensorrt_rtx is not installed": (lambda: importlib.util.find_spec("tensorrt_rtx") is None, {"*"}),
}


def test_only_the_listed_checks_did_not_run(request: pytest.FixtureRequest):
    unexpected = []
    for node, reason in request.config.stash[SKIPPED].items():
        name = node.split("::")[-1].split("[")[0]
        known = [rule for start, rule in ALLOWED.items() if reason.startswith(start)]
        if not any(holds() and ({name, "*"} & tests) for holds, tests in known):
            unexpected.append(f"{node}: {reason}")
    assert not unexpected, "skipped without being listed in test_skips.py:\n" + "\n".join(unexpected)
