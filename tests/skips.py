"""Which checks may stay undone, and when.

A run with a skip that is not listed here with its reason fails (`conftest.py`).
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from conftest import SHARED
from exported import ABSENT, ORT_HEADERS
from failing import NO_MOUNTS, can_mount
from test_live_page import BUILT, CHROMIUM, DRIVER
from test_plugin import CUDA_HEADERS, HEADERS, NVCC, PYTHONS
from test_site import SITE

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

# All of tests/gpu.
ON_GPU = {
    "test_a_cuda_graph_replays_the_four_functions_with_new_input",
    "test_a_node_inside_an_engine_and_outside_is_the_reference",
    "test_an_engine_finds_what_pytorch_finds",
    "test_beyond_32_bits_the_last_image_is_the_same_as_alone",
    "test_compute_sanitizer_has_nothing_to_say",
    "test_derivatives_on_the_device_are_right",
    "test_every_kernel_compiles_for_this_gpu",
    "test_every_operator_on_the_device_is_the_reference",
    "test_no_call_waits_for_the_device",
    "test_tensorrt_loads_an_engine_whatever_its_manifest_says",
    "test_the_bits_are_the_same_in_every_run",
    "test_the_manifest_of_an_engine_takes_this_gpu",
    "test_work_on_a_side_stream_waits_for_a_slow_kernel_before_it",
}

# The C++ plugin is compiled where TensorRT's headers are; its launches, shared with the torch
# op, run always.
ON_EMULATOR = {
    "test_layers_that_differ_do_not_share_timings",
    "test_the_cpp_creator_refuses_wrong_attributes_in_one_line",
    "test_the_cpp_plugin_names_a_type_it_does_not_take",
    "test_the_cpp_plugin_stored_and_loaded_computes_the_reference",
    "test_the_cpp_plugin_takes_float_and_half_in_linear_layout_and_int64_indices",
}
WITH_NVCC = {
    "test_cmake_names_the_cure_for_missing_headers",
    "test_tensorrt_rtx_takes_the_library_and_builds_an_engine_with_it",
    "test_the_library_exports_two_functions_and_needs_no_cuda_and_no_tensorrt",
    "test_the_same_library_gives_other_tensorrts_both_plugins",
}

# The runner in C++ is built where what it links to is.
IN_CPP = {
    "test_arguments_of_the_runner_are_checked",
    "test_pictures_of_every_kind_are_read_as_python_reads_them",
    "test_the_list_is_the_file_of_the_python_command",
    "test_the_runner_lists_what_python_lists",
    "test_what_the_runner_cannot_read_is_one_line",
}
ENGINE = "test_an_engine_is_checked_before_a_gpu_is_asked_for"

# All of the explorer's page, of the served site and of JupyterLab; `make browser-test` builds
# what they open.
ON_SITE = {
    "test_every_link_to_a_place_in_a_page_finds_it",
    "test_every_page_fits_a_narrow_screen",
    "test_every_page_is_found_by_links_and_answers",
    "test_every_picture_is_there_and_has_words",
    "test_no_page_asks_another_server_or_reports_an_error",
}
IN_LAB = {
    "test_a_lesson_runs_to_its_end_in_jupyterlab",
    "test_a_picture_changes_when_its_slider_moves",
    "test_links_of_a_lesson_answer_in_jupyterlab",
}
IN_BROWSER = {
    "test_gestures_of_all_kinds_leave_the_page_alive",
    "test_one_file_opens_from_disk",
    "test_stored_results_come_before_the_model",
    "test_the_page_asks_nobody_else_and_reports_no_error",
    "test_the_page_fits_a_narrow_screen",
    "test_the_page_is_light",
    "test_what_the_page_finds_is_what_pytorch_finds",
    "test_without_webassembly_the_page_says_what_to_do",
}

CUDA_SANITIZER = Path("/usr/local/cuda/bin/compute-sanitizer")

# Beginning of the skip reason -> (whether it is true here, the tests that may give it).
ALLOWED: dict[str, tuple[Callable[[], bool], set[str]]] = {
    "no CUDA device": (lambda: not torch.cuda.is_available(), ON_CUDA | ON_GPU),
    "compute-sanitizer is not installed": (
        lambda: not (shutil.which("compute-sanitizer") or CUDA_SANITIZER.is_file()),
        {"test_compute_sanitizer_has_nothing_to_say"},
    ),
    "no chromium to open a page in": (
        lambda: not (shutil.which("chromium") or shutil.which("chromium-browser")),
        {"test_another_picture_when_a_slider_or_the_pointer_moves"},
    ),
    "a CUDA device is here": (
        torch.cuda.is_available,
        {
            "test_an_engine_without_a_gpu_points_to_the_onnx_file",
            "test_without_a_gpu_the_day_ends_at_once",
        },
    ),
    "no shared data": (lambda: not SHARED.is_dir(), {"*"}),
    "no node": (
        lambda: not shutil.which("node"),
        {
            "test_a_wrong_tap_is_caught",
            "test_nearest_reading_is_the_reference_too",
            "test_the_assignment_of_the_page_is_the_reference",
            "test_the_operators_of_the_page_are_the_reference_on_every_case",
        }
        | IN_BROWSER
        | ON_SITE
        | IN_LAB,
    ),
    "no Chromium": (lambda: not CHROMIUM, IN_BROWSER | ON_SITE | IN_LAB),
    "the explorer is not built": (
        lambda: not ((BUILT / "index.html").is_file() and DRIVER.is_dir()),
        IN_BROWSER | ON_SITE | IN_LAB,
    ),
    "the site is not built": (lambda: not (SITE / "index.html").is_file(), ON_SITE),
    "JupyterLab is not installed": (
        lambda: importlib.util.find_spec("jupyterlab") is None,
        IN_LAB,
    ),
    "the explorer is built with another model": (
        lambda: True,  # what `make explorer MODEL=...` was given last
        {"test_what_the_page_finds_is_what_pytorch_finds"},
    ),
    "no C++ compiler": (lambda: not shutil.which("g++"), {"*"}),
    **dict.fromkeys(  # what a compiler and a kernel can do is not asked twice
        ("the compiler has no ThreadSanitizer", "ThreadSanitizer does not start"),
        (lambda: True, {"test_threads_that_meet_without_a_barrier_are_noticed"}),
    ),
    NO_MOUNTS: (lambda: not can_mount(), {"*"}),
    "onnxruntime_extensions is not installed": (
        lambda: importlib.util.find_spec("onnxruntime_extensions") is None,
        {
            "test_loops_that_would_take_hours_are_left_out_and_said",
            "test_the_numpy_loops_compute_the_nodes_inside_onnx_runtime",
        },
    ),
    "openvino is not installed": (
        lambda: importlib.util.find_spec("openvino") is None,
        {
            "test_openvino_computes_both_files_as_pytorch_does",
            "test_openvino_is_timed_and_says_its_version",
            "test_openvino_reads_an_int8_file",
            "test_predictions_of_openvino_are_those_of_onnx_runtime",
            "test_what_openvino_does_not_take_is_one_line",
        },
    ),
    "no TensorRT headers": (lambda: not HEADERS, ON_EMULATOR | WITH_NVCC | {ENGINE}),
    "no CUDA toolkit with headers": (lambda: not CUDA_HEADERS, ON_EMULATOR | {ENGINE}),
    "no nvcc or no CMake": (lambda: not (NVCC and shutil.which("cmake")), WITH_NVCC),
    "no other TensorRT": (
        lambda: not PYTHONS,
        {"test_the_same_library_gives_other_tensorrts_both_plugins"},
    ),
    "no ONNX Runtime headers": (lambda: not ORT_HEADERS, IN_CPP),
    "no headers of libpng, libjpeg or nlohmann-json": (lambda: bool(ABSENT), IN_CPP | {ENGINE}),
    "no CMake": (lambda: not shutil.which("cmake"), IN_CPP | {ENGINE}),
    "tritonclient is not installed": (
        lambda: importlib.util.find_spec("tritonclient") is None,
        {"test_the_table_says_what_the_published_schema_says"},
    ),
    "tensorrt_rtx is not installed": (
        lambda: importlib.util.find_spec("tensorrt_rtx") is None,
        {"*"},
    ),
}


def unexpected(skipped: Mapping[str, str]) -> list[str]:
    """Of the checks that did not run, node -> reason, those that are not listed above."""
    found = []
    for node, reason in skipped.items():
        name = node.split("::")[-1].split("[")[0]
        known = [rule for start, rule in ALLOWED.items() if reason.startswith(start)]
        if not any(holds() and ({name, "*"} & tests) for holds, tests in known):
            found.append(f"{node}: {reason}")
    return found
