"""The kernel source, compiled for the CPU, for devices, and for a device played by the CPU.

No GPU is needed: `emulated_kernels.cpp` runs the text of kernels.cu block by block, called by
`ops.cuda` with the launches and arguments that a device would get, and `thread_checks.cpp` runs
a block's threads as threads of the system, for the sanitizer to see where two of them meet.
"""

from __future__ import annotations

import ctypes
import importlib.util
import multiprocessing
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tolerances import OP_F32, OP_REL

from tensormask_edu import reference
from tensormask_edu.base.errors import InputError
from tensormask_edu.commands.check_ops import golden_cases
from tensormask_edu.ops import build, cpu, cuda, kernel, plain

DTYPES = list(OP_REL)
# why: ((N, V, U, H, W), lam)
CASES = {
    "one_cell": ((1, 1, 1, 1, 1), 1),
    "pure_shift": ((2, 3, 3, 6, 9), 1),
    "half_cell_at_lam_1": ((1, 2, 4, 5, 6), 1),
    "half_cell_along_y_alone": ((1, 4, 3, 7, 8), 1),
    "half_cell_along_x_alone": ((1, 3, 2, 5, 7), 3),
    "odd_lam_has_an_exact_phase": ((1, 3, 3, 10, 11), 3),
    "wide_windows": ((1, 2, 5, 6, 9), 2),
    "rows_not_divisible": ((2, 3, 2, 7, 9), 4),
    "rows_of_more_cells_than_a_vector": ((1, 2, 1, 5, 35), 4),
    "window_larger_than_grid": ((1, 5, 3, 4, 3), 4),
    "lam_larger_than_grid": ((1, 2, 3, 3, 5), 8),
    "one_row": ((1, 3, 3, 1, 12), 2),
    "one_column": ((1, 3, 3, 12, 1), 2),
}
shapes = st.tuples(st.integers(1, 2), *[st.integers(1, 4)] * 2, *[st.integers(1, 9)] * 2)


def draw(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.float64).uniform_(-3, 3).to(dtype)


def out_shape(shape: tuple[int, ...], lam: int) -> tuple[int, ...]:
    return (shape[0], lam * shape[1], lam * shape[2], -(-shape[3] // lam), -(-shape[4] // lam))


def cells(shape: tuple[int, ...], lam: int, count: int) -> torch.Tensor:
    """Random cells (n, y, x) of the output grid; the first comes again at the end."""
    grid = out_shape(shape, lam)
    index = (torch.rand(count, 3) * torch.tensor([grid[0], *grid[3:]])).long()
    return torch.cat([index, index[:1]])


def error(got: torch.Tensor, expected: np.ndarray, *inputs: float) -> float:
    """Relative to the reference, but to no less than 1% of the largest input."""
    floor = 1e-2 * max(abs(value) for value in inputs)
    return float(
        np.max(np.abs(got.double().numpy() - expected) / np.maximum(np.abs(expected), floor))
    )


def check_forward(shape, lam, dtype, implementation, pad_value=-6.0) -> None:
    x = draw(shape, dtype)
    expected = reference.swap_align2nat(x.double().numpy(), lam, pad_value)
    got = implementation.forward(x, lam, pad_value)
    assert got.dtype == x.dtype
    assert error(got, expected, float(x.abs().max()), pad_value) <= OP_REL[x.dtype]


def check_backward(shape, lam, dtype, implementation) -> None:
    grad = draw(out_shape(shape, lam), dtype)
    expected = reference.swap_align2nat_adjoint(grad.double().numpy(), lam, *shape[3:])
    got = implementation.backward(grad, lam, *shape[3:])
    assert got.dtype == dtype
    assert error(got, expected, float(grad.abs().max())) <= OP_REL[dtype]


def check_windows(shape, lam, dtype, implementation, count=4) -> None:
    x, index = draw(shape, dtype), cells(shape, lam, count)
    expected = reference.swap_align2nat_windows(x.double().numpy(), lam, index.numpy(), -6.0)
    got = implementation.forward_windows(x, lam, index, -6.0)
    assert error(got, expected, 6.0) <= OP_REL[dtype]
    grad = draw(got.shape, dtype)
    expected = reference.swap_align2nat_windows_adjoint(
        grad.double().numpy(), lam, index.numpy(), shape
    )
    got = implementation.backward_windows(grad, lam, index, shape)
    assert error(got, expected, float(grad.abs().max())) <= OP_REL[dtype]


# --- the CPU library --------------------------------------------------------------------------


@pytest.fixture
def compiled_cpu():
    found, reason = cpu.available()
    if not found:
        pytest.skip(reason)
    return cpu


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_the_cpu_kernels_forward_equals_the_reference(name, dtype, compiled_cpu):
    check_forward(*CASES[name], dtype, compiled_cpu)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_the_cpu_kernels_backward_equals_the_adjoint(name, dtype, compiled_cpu):
    check_backward(*CASES[name], dtype, compiled_cpu)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_the_cpu_kernels_windows_equal_the_reference(name, dtype, compiled_cpu):
    check_windows(*CASES[name], dtype, compiled_cpu)


# Levels with more than 4096 cells, whose windows all threads sort
LEVELS = {
    "copies": ((1, 3, 5, 70, 75), 1),
    "copies_past_the_caches": ((1, 17, 19, 90, 95), 1),  # more than 8 MB of float32
    "pairs": ((1, 3, 5, 130, 141), 2),
    "pairs_of_two_images": ((2, 4, 3, 67, 133), 2),
    "four_phases": ((1, 2, 3, 250, 290), 4),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("name", LEVELS)
def test_nearly_all_windows_equal_the_dense_result(name, dtype, compiled_cpu):
    shape, lam = LEVELS[name]
    x = draw(shape, dtype)
    dense = compiled_cpu.forward(x, lam, -6.0)
    n, y, x_cell = torch.meshgrid(
        *map(torch.arange, (dense.shape[0], *dense.shape[3:])), indexing="ij"
    )
    kept = (y % 8 > 0) | (x_cell % 3 == 0)  # of some rows a third
    index = torch.stack([n, y, x_cell], 3)[kept]
    index = torch.cat([index, index[:50]])[torch.randperm(len(index) + 50)]  # some twice
    got = compiled_cpu.forward_windows(x, lam, index, -6.0)
    expected = dense.permute(0, 3, 4, 1, 2)[tuple(index.T)]
    assert len(index) > 4096
    assert error(got, expected.double().numpy(), 6.0) <= OP_REL[dtype]
    index[-1, 2] = dense.shape[4]
    with pytest.raises(InputError, match="index"):
        compiled_cpu.forward_windows(x, lam, index, -6.0)
    with pytest.raises(InputError, match="index"):
        compiled_cpu.backward_windows(got, lam, index, shape)


fixtures_are_constant = [HealthCheck.function_scoped_fixture]


@settings(max_examples=40, deadline=None, suppress_health_check=fixtures_are_constant)
@given(shape=shapes, lam=st.integers(1, 6), pad_value=st.sampled_from([-6.0, 0.0, 0.7]))
def test_the_cpu_kernels_holds_for_any_shape(shape, lam, pad_value, compiled_cpu):
    check_forward(shape, lam, torch.float64, compiled_cpu, pad_value)
    check_backward(shape, lam, torch.float64, compiled_cpu)
    check_windows(shape, lam, torch.float64, compiled_cpu)


def check_golden(implementation, shared, cases: slice) -> None:
    for case in golden_cases(shared / "golden" / "swap_align2nat.npz")[cases]:
        arrays = (case.x, case.out, case.grad_out, case.grad_x)
        x, out, grad, grad_x = map(torch.from_numpy, arrays)
        got = implementation.forward(x, case.lam, case.pad_value)
        torch.testing.assert_close(got, out, rtol=0, atol=OP_F32)
        got = implementation.backward(grad, case.lam, *x.shape[3:])
        torch.testing.assert_close(got, grad_x, rtol=0, atol=OP_F32)


def test_the_cpu_kernels_meets_the_golden_file(shared, compiled_cpu):
    check_golden(compiled_cpu, shared, slice(None))


def test_the_cpu_kernels_reads_strided_tensors(compiled_cpu):
    x = draw((1, 9, 3, 8, 2), torch.float32).permute(0, 2, 4, 3, 1)
    assert torch.equal(
        compiled_cpu.forward(x, 2, -6.0), compiled_cpu.forward(x.contiguous(), 2, -6.0)
    )


EMPTY = [(0, 3, 3, 4, 4), (1, 3, 3, 0, 4), (1, 3, 3, 4, 0), (1, 0, 3, 4, 4)]


@pytest.mark.parametrize("shape", EMPTY, ids=str)
def test_the_cpu_kernels_takes_empty_tensors(shape, compiled_cpu):
    out = compiled_cpu.forward(torch.empty(shape), 2, -6.0)
    assert out.numel() == 0
    assert compiled_cpu.backward(out, 2, *shape[3:]).shape == shape


def test_no_windows_have_no_gradient(compiled_cpu):
    index, shape = torch.empty((0, 3), dtype=torch.int64), (1, 3, 3, 4, 5)
    out = compiled_cpu.forward_windows(torch.ones(shape), 2, index, -6.0)
    assert out.shape == (0, 6, 6)
    assert torch.equal(compiled_cpu.backward_windows(out, 2, index, shape), torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_cpu_results_do_not_depend_on_the_number_of_threads(dtype, compiled_cpu):
    shape, lam, results = (2, 4, 3, 30, 41), 4, []
    x, index = draw(shape, dtype), cells(shape, lam, 50)
    threads = torch.get_num_threads()
    for count in (1, 2, 5, 5):
        torch.set_num_threads(count)
        out, windows = cpu.forward(x, lam, -6.0), cpu.forward_windows(x, lam, index, -6.0)
        grads = (
            cpu.backward(out, lam, 30, 41),
            cpu.backward_windows(windows, lam, index, shape),
        )
        results.append((out, windows, *grads))
    torch.set_num_threads(threads)
    assert all(
        torch.equal(a, b)
        for other in results[1:]
        for a, b in zip(results[0], other, strict=True)
    )


def check_infinity(implementation) -> None:
    x = torch.zeros(1, 3, 3, 7, 7)
    x[0, 1, 1, 2:4, 4] = 1
    support = torch.from_numpy(reference.swap_align2nat(x.numpy(), 3, 0.0)) > 0
    out = implementation.forward(x.masked_fill(x > 0, torch.inf), 3, 0.0)
    assert torch.equal(out.isinf(), support)
    assert not out.isnan().any()


def check_infinite_gradient(implementation) -> None:
    grad = torch.zeros(1, 9, 9, 3, 3)
    grad[0, 2:5, 4, 1, 0:3:2] = 1  # of windows at both ends of a row
    support = torch.from_numpy(reference.swap_align2nat_adjoint(grad.numpy(), 3, 7, 7)) > 0
    got = implementation.backward(grad.masked_fill(grad > 0, torch.inf), 3, 7, 7)
    assert torch.equal(got.isinf(), support)
    assert not got.isnan().any()


def test_an_infinite_value_reaches_its_own_outputs_alone(compiled_cpu):
    check_infinity(compiled_cpu)


def test_an_infinite_gradient_reaches_what_its_output_read_alone(compiled_cpu):
    check_infinite_gradient(compiled_cpu)


# --- the CPU library: compiling and caching --------------------------------------------------


@pytest.fixture
def not_loaded():
    """The library is loaded anew, within the test and after it."""
    cpu._load.cache_clear()
    yield
    cpu._load.cache_clear()


def test_no_compiler_is_a_reason_and_an_error(not_loaded, tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORMASK_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "find_compiler", lambda: None)
    assert cpu.available() == (
        False,
        "no C++ compiler found (looked for $CXX, c++, g++, clang++)",
    )
    with pytest.raises(
        RuntimeError, match="the CPU kernels are not available: no C\\+\\+ compiler found"
    ):
        cpu.forward(torch.ones(1, 1, 1, 1, 1), 1, 0.0)


def test_a_failing_compiler_is_quoted(not_loaded, tmp_path, monkeypatch):
    compiler = tmp_path / "c++"
    compiler.write_text('#!/bin/sh\necho out of order >&2\ntest "$1" = --version\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("TENSORMASK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", str(compiler))
    found, reason = cpu.available()
    assert not found and "out of order" in reason
    assert not list((tmp_path / "cache").glob("*.so"))


@pytest.mark.long
def test_processes_that_compile_at_once_do_not_meet(tmp_path, compiled_cpu):
    code = (
        "from tensormask_edu.ops import cpu; import torch\n"
        "cpu.FLAG_SETS = (('-O0', '-std=c++17', '-shared', '-fPIC', '-pthread'),)\n"
        "print(cpu.available(), cpu.forward(torch.ones(1, 1, 1, 2, 2), 1, 0.).sum().item())"
    )
    environment = {**os.environ, "TENSORMASK_CACHE": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    runs = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    printed = [run.communicate()[0] for run in runs]
    assert printed[0] == printed[1] and printed[0].endswith("4.0\n")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".sha256", ".so"]


# Builds that Python does not load, and what they need of the compiler
BUILDS = {
    "without_vectors": ["-O1", "-U__SSE2__"],
    "with_sanitizers": [
        "-O1",
        "-march=native",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover",
    ],
}


@pytest.mark.long
@pytest.mark.parametrize("name", BUILDS)
def test_other_builds_of_the_cpu_kernels_are_right(name, tmp_path, compiled_cpu):
    flags = [
        "-std=c++17",
        "-pthread",
        "-DSWAP_DTYPE=1",
        f"-I{build.kernel_folder()}",
        *BUILDS[name],
    ]
    source, program = Path(__file__).with_name("cpu_checks.cpp"), tmp_path / "checks"
    command = [build.find_compiler(), *flags, str(source), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode and "sanitize" in name and "-lasan" in built.stderr:
        pytest.skip("the compiler has no sanitizers")
    assert built.returncode == 0, built.stderr
    run = subprocess.run([program], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_half_where_the_compiler_has_none_rounds_as_numpy_does(tmp_path, compiled_cpu):
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    steps = np.sort(halves[np.isfinite(halves)])
    middle = (steps[1:] + steps[:-1]) / 2  # exact; of two as near the even one is taken
    around = [np.nextafter(middle, np.float32(end)) for end in (-np.inf, np.inf)]
    bits = np.random.default_rng(0).integers(0, 1 << 32, 50_000, dtype=np.uint32)
    floats = np.concatenate([halves, middle, *around, bits.view(np.float32)])
    source, program = Path(__file__).with_name("half_checks.cpp"), tmp_path / "half"
    command = [
        build.find_compiler(),
        "-std=c++17",
        "-U__FLT16_MANT_DIG__",
        *BUILDS["with_sanitizers"],
    ]
    command += [f"-I{build.kernel_folder()}", str(source), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode and "-lasan" in built.stderr:
        pytest.skip("the compiler has no sanitizers")
    assert built.returncode == 0, built.stderr
    run = subprocess.run([program], input=floats.tobytes(), capture_output=True)
    assert run.returncode == 0, run.stderr.decode()
    with np.errstate(over="ignore"):
        wanted = floats.astype(np.float16)
    half = np.frombuffer(run.stdout[: 2 * len(floats)], np.float16)
    number = ~np.isnan(wanted)
    assert np.isnan(half[~number]).all()
    assert np.array_equal(half[number].view(np.uint16), wanted[number].view(np.uint16))
    back = np.frombuffer(run.stdout[2 * len(floats) :], np.float32)
    assert np.array_equal(back, halves, equal_nan=True)
    assert np.array_equal(np.signbit(back), np.signbit(halves))


def test_threads_of_its_own_give_the_same_numbers(compiled_cpu):
    """Where PyTorch has no OpenMP threads, the kernels start their own."""
    x = torch.randn(1, 5, 6, 61, 83)
    library, threads = cpu._load(torch.float32)[0], cpu._threads_of_torch()
    out = cpu.forward(x, 4, -6.0)
    library.swap_use_threads(None)
    try:
        assert out.numel() >= cpu.SHARED_WORK and torch.equal(cpu.forward(x, 4, -6.0), out)
    finally:
        library.swap_use_threads(threads)


# Each makes one mistake in core.h: (text, mistaken text)
MISTAKES = {
    "half_cell_for_odd_sizes_too": ("return (lam * bins + 1) % 2;", "return 1;"),
    "half_cell_never": ("return (lam * bins + 1) % 2;", "return 0;"),
    "weights_exchanged": (
        "unit * A(2 * lam - upper), unit * A(upper)",
        "unit * A(upper), unit * A(2 * lam - upper)",
    ),
    "phase_from_zero": ("2 * phase + 1 - lam % 2", "2 * phase"),
    "grid_rounded_down": ("return quotient_up(cells, lam);", "return quotient(cells, lam);"),
    "axes_exchanged": (
        "vy() const { return {V, H, lam}; }",
        "vy() const { return {U, H, lam}; }",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_arithmetic_is_noticed(name, tmp_path, monkeypatch, compiled_cpu):
    shutil.copytree(build.kernel_folder(), tmp_path, dirs_exist_ok=True)
    right, wrong = MISTAKES[name]
    assert right in (tmp_path / "core.h").read_text()
    (tmp_path / "core.h").write_text((tmp_path / "core.h").read_text().replace(right, wrong))
    library = tmp_path / "mistaken.so"
    flags = [
        "-O0",
        "-std=c++17",
        "-shared",
        "-fPIC",
        "-pthread",
        f"-DSWAP_DTYPE={cpu.DTYPES[torch.float64]}",
    ]
    subprocess.run(
        [
            build.find_compiler(),
            *flags,
            str(tmp_path / "cpu" / "kernels.cpp"),
            "-o",
            str(library),
        ],
        check=True,
    )
    monkeypatch.setattr(
        cpu, "_load", lambda dtype: (cpu._declared(ctypes.CDLL(str(library))), "")
    )
    with pytest.raises(AssertionError):
        for case in (
            "pure_shift",
            "half_cell_along_y_alone",
            "rows_not_divisible",
            "wide_windows",
        ):
            check_forward(*CASES[case], torch.float64, cpu)


# --- the plain kernel -------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
@pytest.mark.parametrize("name", CASES)
def test_the_plain_kernel_equals_the_reference(name):
    check_forward(*CASES[name], torch.float32, plain)
    check_backward(*CASES[name], torch.float32, plain)


@pytest.mark.skipif(build.find_compiler() is None, reason="no C++ compiler")
@pytest.mark.parametrize("name", ["pure_shift", "rows_not_divisible"])
def test_the_text_of_the_plain_kernel_runs_in_the_emulator(name):
    shape, lam = CASES[name]
    x = draw(shape, torch.float32)
    out = plain.forward(x, lam, -6.0)
    memory = torch.full((out.numel() + 64,), torch.nan)  # a stray write would change the margin
    blocks, count = -(-out.numel() // 32), ctypes.c_int64(out.numel())
    text = kernel.text_of("plain.cu")
    kernel.run(text, "plain_forward", blocks, 32, x, memory, *shape, lam, count, -6.0)
    torch.testing.assert_close(memory[: out.numel()], out.flatten())
    assert memory[out.numel() :].isnan().all()


SHARING = """
extern "C" __global__ void slide(const float* x, float* out) {
  __shared__ float row[4];
  const int i = threadIdx.x;
  row[i] = x[4 * blockIdx.x + i];
  __syncthreads();
  out[4 * blockIdx.x + i] = row[(i + 1) % 4];
}
"""


@pytest.mark.skipif(build.find_compiler() is None, reason="no C++ compiler")
def test_the_emulator_finds_barriers_that_are_missing_or_not_for_all():
    x, out = torch.arange(8.0).view(2, 4), torch.empty(2, 4)
    kernel.run(SHARING, "slide", 2, 4, x, out)
    assert torch.equal(out, x.roll(-1, 1))
    kernel.run(SHARING.replace("__syncthreads();", ""), "slide", 2, 4, x, out)
    # the second block's threads run in the other order: only its last one is too early
    assert out.isnan().tolist() == [[True, True, True, False], [False, False, False, True]]
    for_some = SHARING.replace("__syncthreads();", "if (i) __syncthreads();")
    with pytest.raises(RuntimeError, match="others never reach"):
        kernel.run(for_some, "slide", 2, 4, x, out)
    with pytest.raises(RuntimeError, match="number of arguments"):
        kernel.run(SHARING, "slide", 2, 4, x)


def test_an_excerpt_is_the_numbered_lines_from_one_word_to_the_next():
    text = "ends\nbegins\nmore\nends\nends"
    assert kernel.excerpt(text, "begins", "ends") == "  2  begins\n  3  more\n  4  ends"


def test_the_plain_kernel_compiles_for_a_gpu():
    if importlib.util.find_spec("cuda") is None:
        pytest.skip("cuda-core is not installed")
    assert plain.compiled("sm_90").code


# --- the device kernels, played by the CPU ----------------------------------------------------


@pytest.fixture(scope="session")
def emulator(tmp_path_factory):
    """kernels.cu compiled for the CPU, with fibres for threads."""
    if build.find_compiler() is None:
        pytest.skip("no C++ compiler found")
    library = tmp_path_factory.mktemp("emulator") / "emulated.so"
    source = Path(__file__).with_name("emulated_kernels.cpp")
    flags = [
        "-std=c++17",
        "-O1",
        "-shared",
        "-fPIC",
        "-Wno-unknown-pragmas",
        f"-I{build.kernel_folder()}",
    ]
    subprocess.run([build.find_compiler(), *flags, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def guarded(tensor: torch.Tensor, allocated: list) -> torch.Tensor:
    """The tensor between margins that a stray write would change.

    It is full of NaN until it is written.
    """
    margin = 64
    memory = tensor.new_full((tensor.numel() + 2 * margin,), 77)
    inner = memory[margin : margin + tensor.numel()]
    inner.fill_(torch.nan)
    allocated.append((memory[:margin], memory[margin + tensor.numel() :]))
    return inner.view(tensor.shape)


def word(argument: torch.Tensor | int | float) -> int:
    """The 64 bits that a launch passes to the driver."""
    number = argument.data_ptr() if isinstance(argument, torch.Tensor) else argument
    return struct.unpack("q", struct.pack("d" if isinstance(number, float) else "q", number))[0]


@pytest.fixture
def device(emulator, monkeypatch):
    """`ops.cuda` with its launches led to the emulator: CPU tensors play those of a device."""
    launched, allocated, new_empty = [], [], torch.Tensor.new_empty

    def launch(call):
        kernel, parameters = call.kernel, call.parameters
        words = [word(argument) for argument in call.arguments]
        code = emulator.emulate(
            kernel.encode(),
            cpu.DTYPES[call.tensors[0].dtype],
            parameters[0] if parameters else 0,
            (ctypes.c_int64 * 4)(*call.launch),
            (ctypes.c_int64 * len(words))(*words),
            ctypes.c_int64(len(words)),
        )
        assert code == 0, f"{kernel}: failure {code}"
        assert all((side == 77).all() for sides in allocated for side in sides)
        launched.append(f"{kernel} {parameters[0]}" if parameters else kernel)

    monkeypatch.setattr(cuda, "_launch", launch)
    monkeypatch.setattr(
        torch.Tensor, "new_empty", lambda t, *size: guarded(new_empty(t, *size), allocated)
    )
    functions = ("forward", "backward", "forward_windows", "backward_windows")
    return SimpleNamespace(
        launched=launched, **{name: getattr(cuda, name) for name in functions}
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_the_device_forward_equals_the_reference(name, dtype, device):
    check_forward(*CASES[name], dtype, device)
    assert device.launched[0].startswith("forward_tiles")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_the_device_backward_equals_the_adjoint(name, dtype, device):
    check_backward(*CASES[name], dtype, device)
    assert device.launched[0].startswith("backward_tiles")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_the_device_windows_equal_the_reference(name, dtype, device):
    check_windows(*CASES[name], dtype, device)


def test_a_device_window_outside_the_grid_is_padding(device):
    # The grid is (1, 4, 2): of each cell one coordinate alone is outside.
    x = draw((1, 2, 3, 8, 4), torch.float32)
    index = torch.tensor([[1, 0, 0], [-1, 0, 0], [0, 4, 1], [0, -1, 0], [0, 1, 2], [0, 1, -1]])
    assert (device.forward_windows(x, 2, index, -7.0) == -7).all()


# What only the device's form can get wrong: the launches expected, and the case
FORMS = {
    "four_columns_at_once": (["forward_tiles 4", "backward_tiles 2"], (1, 3, 3, 6, 16), 2),
    "one_column_at_once": (["forward_tiles 1", "backward_tiles 1"], (1, 3, 3, 6, 15), 2),
    "four_columns_over_the_left_edge": (
        ["forward_tiles 4", "backward_tiles 2"],
        (1, 2, 5, 3, 8),
        1,
    ),
    "several_tiles_of_four": (["forward_tiles 4", "backward_tiles 2"], (1, 2, 1, 2, 1000), 1),
    "several_tiles_of_one": (["forward_tiles 1", "backward_tiles 1"], (1, 1, 2, 3, 401), 1),
    "one_team_for_a_wide_stage": (
        ["forward_tiles 4", "backward_tiles 2"],
        (1, 2, 1, 2, 800),
        1,
    ),
    "teams_side_by_side": (["forward_tiles 4", "backward_tiles 2"], (1, 1, 3, 26, 272), 8),
    "teams_one_above_another": (["forward_tiles 4", "backward_tiles 2"], (1, 3, 3, 44, 52), 8),
    "a_tile_that_rolls_twice": (["forward_tiles 4", "backward_tiles 2"], (1, 1, 20, 5, 12), 4),
    "several_walks": (["forward_tiles 4", "backward_tiles 2"], (1, 2, 17, 2, 4), 2),
    "several_walks_over_many_cells": (
        ["forward_tiles 4", "backward_tiles 2"],
        (1, 1, 18, 2, 40),
        2,
    ),
    "cells_as_wide_as_a_tile": (
        ["forward_tiles 1", "backward_tiles 1"],
        (1, 1, 1, 30, 61),
        120,
    ),
    "lam_too_large_for_a_tile": (
        ["forward_elements", "backward_elements"],
        (1, 1, 1, 3, 3),
        240,
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_the_device_kernels_is_right(name, dtype, device):
    launches, shape, lam = FORMS[name]
    check_forward(shape, lam, dtype, device, pad_value=-0.7)
    check_backward(shape, lam, dtype, device)
    assert device.launched == launches


@pytest.mark.parametrize(
    "name", ["half_cell_along_x_alone", "rows_not_divisible", "lam_larger_than_grid"]
)
def test_where_no_tile_fits_the_element_kernels_are_right(name, device, monkeypatch):
    monkeypatch.setattr(cuda, "forward_launch", lambda *shape: cuda.NO_LAUNCH)
    monkeypatch.setattr(cuda, "backward_launch", lambda *shape: cuda.NO_LAUNCH)
    check_forward(*CASES[name], torch.float32, device)
    check_backward(*CASES[name], torch.float32, device)
    assert device.launched == ["forward_elements", "backward_elements"]


def test_on_the_device_too_an_infinite_value_reaches_its_own_outputs_alone(device):
    check_infinity(device)


@pytest.mark.parametrize("tiles", [True, False], ids=["tiles", "elements"])
def test_on_the_device_too_an_infinite_gradient_stays_where_it_belongs(
    tiles, device, monkeypatch
):
    if not tiles:
        monkeypatch.setattr(cuda, "backward_launch", lambda *shape: cuda.NO_LAUNCH)
    check_infinite_gradient(device)
    assert device.launched == ["backward_tiles 1" if tiles else "backward_elements"]


def test_an_address_between_vectors_is_read_column_by_column(device):
    x = draw((1 + 3 * 3 * 4 * 8,), torch.float16)[1:].view(1, 3, 3, 4, 8)
    assert torch.equal(device.forward(x, 2, -6.0), device.forward(x.clone(), 2, -6.0))
    assert device.launched == ["forward_tiles 1", "forward_tiles 4"]


@settings(max_examples=25, deadline=None, suppress_health_check=fixtures_are_constant)
@given(shape=shapes, lam=st.integers(1, 6), dtype=st.sampled_from(DTYPES[:2]))
def test_the_device_holds_for_any_shape(shape, lam, dtype, device):
    check_forward(shape, lam, dtype, device, pad_value=0.7)
    check_backward(shape, lam, dtype, device)


@pytest.mark.parametrize(
    ("count", "kernel"), [(1, "backward_few_windows"), (80, "backward_windows")]
)
def test_few_windows_and_many_have_the_same_gradient_as_the_reference(count, kernel, device):
    check_windows((1, 3, 2, 12, 12), 2, torch.float32, device, count)
    assert device.launched[-1] == kernel


def test_the_device_meets_the_golden_file(shared, device):
    check_golden(device, shared, slice(0, 4))


@pytest.mark.parametrize("shape", EMPTY, ids=str)
def test_the_device_launches_nothing_for_empty_tensors(shape, device):
    out = device.forward(torch.empty(shape), 2, -6.0)
    assert device.backward(out, 2, *shape[3:]).shape == shape
    assert not device.launched


@settings(deadline=None, suppress_health_check=fixtures_are_constant)
@given(
    number=st.integers(0, 2**62) | st.builds(lambda k: k << 32, st.integers(0, 2**30)),
    extents=st.lists(st.integers(1, 2**31 - 1) | st.sampled_from([1, 2, 3, 256]), max_size=4),
)
def test_numbers_of_elements_beyond_32_bits_are_taken_apart(number, extents, emulator):
    digits = (ctypes.c_int64 * (len(extents) + 1))()
    given = (ctypes.c_int64 * max(len(extents), 1))(*extents)
    emulator.digits_of(ctypes.c_int64(number), given, len(extents), digits)
    for extent, digit in zip(extents, digits, strict=False):
        number, expected = divmod(number, extent)
        assert digit == expected
    assert digits[len(extents)] == number


@settings(max_examples=50, deadline=None, suppress_health_check=fixtures_are_constant)
@given(
    shape=st.tuples(st.integers(1, 3), *[st.integers(1, 20)] * 2, *[st.integers(1, 900)] * 2),
    lam=st.integers(1, 200),
    kind=st.sampled_from([(1, 1, 2), (1, 1, 4), (1, 1, 8), (4, 2, 2), (4, 2, 4)]),
)
@example(shape=(1, 3, 3, 8, 4), lam=892, kind=(4, 2, 4))  # a stage of more than there is
def test_launches_are_those_that_the_kernel_source_computes(shape, lam, kind, emulator):
    columns, back_columns, item_bytes = kind
    forward, backward = (ctypes.c_int64 * 4)(), (ctypes.c_int64 * 4)()
    emulator.launch_shapes((ctypes.c_int64 * 6)(*shape, lam), *kind, forward, backward)
    assert tuple(forward) == cuda.forward_launch(shape, lam, columns, item_bytes)
    assert tuple(backward) == cuda.backward_launch(shape, lam, back_columns, item_bytes)


def test_paper_sized_calls_fit_the_tile_kernels():
    for lam in (1, 2, 4, 8, 16, 32):
        for side in (11, 15):
            shape = (16, side, side, 200, 336)
            assert cuda.forward_launch(shape, lam, 4, 4).blocks
            assert cuda.forward_launch(shape, lam, 1, 8).blocks
            assert cuda.backward_launch(shape, lam, 2, 4).blocks
            assert cuda.backward_launch(shape, lam, 1, 8).blocks


# --- the same, with threads of the system, under ThreadSanitizer ------------------------------

BARRIER = "    __syncthreads();\n"
# (text, what stands there instead, which of its places in kernels.cu)
RACES = {
    "as_it_is": ("", "", 0),
    "no_barrier_in_the_forward": (BARRIER, "", 0),
    "no_barrier_in_the_backward": (BARRIER, "", 1),
    "one_half_of_the_stage_for_all_steps": ("(t & 1) * places", "0 * places", 0),
}


@pytest.mark.skipif(build.find_compiler() is None, reason="no C++ compiler")
@pytest.mark.parametrize(
    "name", [*list(RACES)[:3], pytest.param(list(RACES)[3], marks=pytest.mark.long)]
)
def test_threads_that_meet_without_a_barrier_are_noticed(name, tmp_path):
    shutil.copytree(build.kernel_folder(), tmp_path, dirs_exist_ok=True)
    kernels, (right, wrong, place) = tmp_path / "gpu" / "kernels.cu", RACES[name]
    if right:
        parts = kernels.read_text().split(right)
        assert len(parts) > place + 1
        halves = right.join(parts[: place + 1]), right.join(parts[place + 1 :])
        kernels.write_text(wrong.join(halves))
    source, program = Path(__file__).with_name("thread_checks.cpp"), tmp_path / "checks"
    flags = ["-std=c++20", "-O0", "-fsanitize=thread", "-pthread", "-Wno-unknown-pragmas"]
    command = [build.find_compiler(), *flags, f"-I{tmp_path}", str(source), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode and re.search("-ltsan|barrier: No such file", built.stderr):
        pytest.skip("the compiler has no ThreadSanitizer")
    assert built.returncode == 0, built.stderr
    environment = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1"}
    run = subprocess.run([program], capture_output=True, text=True, env=environment)
    if "unexpected memory mapping" in run.stderr:  # addresses drawn from more than it knows
        pytest.skip("ThreadSanitizer does not start on this kernel")
    assert ("data race" in run.stderr) == bool(right), run.stdout + run.stderr
    assert run.returncode == 0 or right, run.stdout + run.stderr


@pytest.mark.long
@pytest.mark.skipif(build.find_compiler() is None, reason="no C++ compiler")
def test_the_device_kernels_leave_none_of_their_arrays(tmp_path):
    source, program = Path(__file__).with_name("thread_checks.cpp"), tmp_path / "checks"
    flags = ["-std=c++20", "-pthread", "-Wno-unknown-pragmas", *BUILDS["with_sanitizers"]]
    command = [build.find_compiler(), *flags, f"-I{build.kernel_folder()}", str(source)]
    built = subprocess.run([*command, "-o", str(program)], capture_output=True, text=True)
    if built.returncode and re.search("-l[a-z]*san|barrier: No such file", built.stderr):
        pytest.skip("the compiler has no sanitizers")
    assert built.returncode == 0, built.stderr
    run = subprocess.run([program], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


# --- the device kernels, compiled -------------------------------------------------------------

# Three warps share the 16384 registers of a scheduler, so a block of twelve starts.
FORWARD_REGISTERS = 168
# `make test` compiles for the newest, `make test-all` for all.
NEWEST = cuda.ARCHITECTURES[-1]


@pytest.fixture(scope="session")
def reports(request):
    """What the assembler said of each architecture that is asked for, two at a time."""
    if (
        importlib.util.find_spec("cuda") is None
        or importlib.util.find_spec("cuda.core") is None
    ):
        pytest.skip("cuda-core is not installed")
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        asked = {
            word
            for item in request.session.items
            for word in cuda.ARCHITECTURES
            if word in item.name
        }
        yield {
            name: pool.submit(cuda.compile_all, name)
            for name in cuda.ARCHITECTURES
            if name in asked
        }


@pytest.mark.parametrize(
    "architecture",
    [
        name if name == NEWEST else pytest.param(name, marks=pytest.mark.long)
        for name in cuda.ARCHITECTURES
    ],
)
def test_every_kernel_compiles_without_spilling_registers(architecture, reports):
    report = reports[architecture].result()
    assert len(report) == 7 + 3 * 9
    assert not {
        name: usage
        for name, usage in report.items()
        if usage.spilled_bytes or usage.stack_bytes
    }
    assert all(usage.registers <= FORWARD_REGISTERS for usage in report.values())


def test_without_a_device_the_status_says_so(monkeypatch):
    if importlib.util.find_spec("cuda") is None:
        pytest.skip("cuda-core is not installed")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cuda.available() == (False, "PyTorch sees no CUDA device")
    assert cuda.status() == "no CUDA kernels: PyTorch sees no CUDA device"


def test_a_missing_header_names_the_package_to_install(monkeypatch):
    monkeypatch.setattr(cuda, "_header_candidates", list)
    with pytest.raises(
        RuntimeError, match="cuda_fp16.h not found: install nvidia-cuda-runtime"
    ):
        cuda.header_folder("cuda_fp16.h")


def test_the_headers_of_the_package_come_before_those_of_a_toolkit(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "mine"))
    monkeypatch.delenv("CUDA_PATH", raising=False)
    *packaged, mine, usual = cuda._header_candidates()
    assert (mine, usual) == (tmp_path / "mine" / "include", Path("/usr/local/cuda/include"))
    assert all((folder / "cuda_fp16.h").is_file() for folder in packaged)
    monkeypatch.setattr(cuda, "_header_candidates", lambda: [usual / "none", mine])
    mine.mkdir(parents=True)
    (mine / "cuda_fp16.h").touch()
    assert cuda.header_folder("cuda_fp16.h") == str(mine)


# What ptxas writes of a kernel, shortened
ASSEMBLED = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'first' for 'sm_90'
ptxas info    : Function properties for first
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 400 bytes cmem[0]
ptxas info    : Function properties for second
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 255 registers
"""


def test_what_the_assembler_says_of_each_kernel_is_read():
    assert cuda._usage(ASSEMBLED) == {
        "first": cuda.Usage(registers=40, spilled_bytes=4 + 12, stack_bytes=8),
        "second": cuda.Usage(registers=255, spilled_bytes=0, stack_bytes=0),
    }


def test_without_the_package_for_cuda_the_reason_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.core", None)  # as if it were not installed
    found, reason = cuda.available()
    assert not found and reason.startswith("cuda-core is not installed (")
    assert reason.endswith("install tensormask-edu[cuda]")
    assert cuda.status() == f"no CUDA kernels: {reason}"


def test_on_other_systems_processor_and_threads_are_not_looked_up(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no /proc")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", refuse)
        processor, threads = build._processor(), cpu._threads_of_torch.__wrapped__()
    assert processor.startswith(platform.machine()) and threads is None
