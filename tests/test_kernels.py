"""The kernel source, compiled for the host and for devices, against the NumPy reference."""

from __future__ import annotations

import ctypes
import json
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import OP_F32, OP_REL

from tensormask_edu import reference
from tensormask_edu.ops import cuda, host

DTYPES = list(OP_REL)
# (N, V, U, H, W), lam, and why
CASES = {
    "one_cell": ((1, 1, 1, 1, 1), 1),
    "pure_shift": ((2, 3, 3, 6, 9), 1),
    "half_cell_at_lam_1": ((1, 2, 4, 5, 6), 1),
    "half_cell_along_y_alone": ((1, 4, 3, 7, 8), 1),
    "half_cell_along_x_alone": ((1, 3, 2, 5, 7), 3),
    "odd_lam_has_an_exact_phase": ((1, 3, 3, 10, 11), 3),
    "wide_windows": ((1, 2, 5, 6, 9), 2),
    "rows_not_divisible": ((2, 3, 2, 7, 9), 4),
    "window_larger_than_grid": ((1, 5, 3, 4, 3), 4),
    "lam_larger_than_grid": ((1, 2, 3, 3, 5), 8),
    "one_row": ((1, 3, 3, 1, 12), 2),
    "one_column": ((1, 3, 3, 12, 1), 2),
}
shapes = st.tuples(st.integers(1, 2), *[st.integers(1, 4)] * 2, *[st.integers(1, 9)] * 2)


def draw(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.float64).uniform_(-3, 3).to(dtype)


def cells(shape: tuple[int, ...], lam: int, count: int) -> torch.Tensor:
    """Random cells (n, y, x) of the output grid; the first is repeated at the end."""
    ends = torch.tensor([shape[0], -(-shape[3] // lam), -(-shape[4] // lam)])
    index = (torch.rand(count, 3) * ends).long()
    return torch.cat([index, index[:1]])


def error(got: torch.Tensor, expected: np.ndarray, *inputs: float) -> float:
    """Relative to the reference, but to no less than 1% of the largest input."""
    floor = 1e-2 * max(abs(value) for value in inputs)
    return float(np.max(np.abs(got.double().numpy() - expected) / np.maximum(np.abs(expected), floor)))


def check_forward(x: torch.Tensor, lam: int, pad_value: float, forward) -> None:
    expected = reference.swap_align2nat(x.double().numpy(), lam, pad_value)
    got = forward(x, lam, pad_value)
    assert got.dtype == x.dtype
    assert error(got, expected, float(x.abs().max()), pad_value) <= OP_REL[x.dtype]


def check_backward(shape: tuple[int, ...], lam: int, dtype: torch.dtype, backward) -> None:
    grad = draw((shape[0], lam * shape[1], lam * shape[2], -(-shape[3] // lam), -(-shape[4] // lam)), dtype)
    expected = reference.swap_align2nat_adjoint(grad.double().numpy(), lam, *shape[3:])
    got = backward(grad, lam, *shape[3:])
    assert got.dtype == dtype
    assert error(got, expected, float(grad.abs().max())) <= OP_REL[dtype]


def check_windows(shape: tuple[int, ...], lam: int, dtype: torch.dtype, implementation) -> None:
    x, index = draw(shape, dtype), cells(shape, lam, 4)
    expected = reference.swap_align2nat_windows(x.double().numpy(), lam, index.numpy(), -6.0)
    got = implementation.forward_windows(x, lam, index, -6.0)
    assert error(got, expected, 6.0) <= OP_REL[dtype]
    grad = draw(got.shape, dtype)
    expected = reference.swap_align2nat_windows_adjoint(grad.double().numpy(), lam, index.numpy(), shape)
    got = implementation.backward_windows(grad, lam, index, shape)
    assert error(got, expected, float(grad.abs().max())) <= OP_REL[dtype]


# --- the host library -----------------------------------------------------------------------------------


@pytest.fixture(scope="session", autouse=True)
def compiled_host():
    found, reason = host.available()
    if not found:
        pytest.skip(reason)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_the_host_forward_equals_the_reference(name, dtype):
    shape, lam = CASES[name]
    check_forward(draw(shape, dtype), lam, -6.0, host.forward)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_the_host_backward_equals_the_adjoint(name, dtype):
    shape, lam = CASES[name]
    check_backward(shape, lam, dtype, host.backward)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_the_host_windows_equal_the_reference(name, dtype):
    shape, lam = CASES[name]
    check_windows(shape, lam, dtype, host)


@settings(max_examples=40, deadline=None)
@given(shape=shapes, lam=st.integers(1, 6), pad_value=st.sampled_from([-6.0, 0.0, 2.5]))
def test_the_host_holds_for_any_shape(shape, lam, pad_value):
    check_forward(draw(shape, torch.float64), lam, pad_value, host.forward)
    check_backward(shape, lam, torch.float64, host.backward)
    check_windows(shape, lam, torch.float64, host)


def test_the_host_meets_the_golden_file(shared):
    golden = np.load(shared / "golden" / "swap_align2nat.npz")
    for i, case in enumerate(json.loads(str(golden["cases"]))):
        size, lam = case["window"], case["lambda_"]
        x, out, grad, grad_x = (
            torch.from_numpy(golden[f"case{i}_{name}"]).unflatten(1, (-1, side))
            for name, side in (
                ("input", size),
                ("output", lam * size),
                ("grad_output", lam * size),
                ("grad_input", size),
            )
        )
        torch.testing.assert_close(host.forward(x, lam, case["pad_value"]), out, rtol=0, atol=OP_F32)
        torch.testing.assert_close(host.backward(grad, lam, *x.shape[3:]), grad_x, rtol=0, atol=OP_F32)


def test_the_host_reads_strided_tensors():
    x = draw((1, 9, 3, 8, 2), torch.float32).permute(0, 2, 4, 3, 1)
    assert torch.equal(host.forward(x, 2, -6.0), host.forward(x.contiguous(), 2, -6.0))


@pytest.mark.parametrize(
    "shape", [(0, 3, 3, 4, 4), (1, 3, 3, 0, 4), (1, 3, 3, 4, 0), (1, 0, 3, 4, 4)], ids=str
)
def test_the_host_takes_empty_tensors(shape):
    out = host.forward(torch.empty(shape), 2, -6.0)
    assert out.numel() == 0
    assert host.backward(out, 2, *shape[3:]).shape == shape


def test_no_windows_have_no_gradient():
    index, shape = torch.empty((0, 3), dtype=torch.int64), (1, 3, 3, 4, 5)
    out = host.forward_windows(torch.ones(shape), 2, index, -6.0)
    assert out.shape == (0, 6, 6)
    assert torch.equal(host.backward_windows(out, 2, index, shape), torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_host_results_do_not_depend_on_the_number_of_threads(dtype):
    shape, lam, results = (2, 4, 3, 30, 41), 4, []
    x, index = draw(shape, dtype), cells(shape, lam, 50)
    threads = torch.get_num_threads()
    for count in (1, 2, 5, 5):
        torch.set_num_threads(count)
        out, windows = host.forward(x, lam, -6.0), host.forward_windows(x, lam, index, -6.0)
        results.append(
            (
                out,
                windows,
                host.backward(out, lam, 30, 41),
                host.backward_windows(windows, lam, index, shape),
            )
        )
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_an_infinite_value_reaches_its_own_outputs_alone():
    x = torch.zeros(1, 3, 3, 7, 7)
    x[0, 1, 1, 2:4, 4] = 1
    support = torch.from_numpy(reference.swap_align2nat(x.numpy(), 3, 0.0)) > 0
    out = host.forward(x.masked_fill(x > 0, torch.inf), 3, 0.0)
    assert torch.equal(out.isinf(), support)
    assert not out.isnan().any()


# --- the device kernels, emulated: cuda.py calls them as it would on a device ------------------------------


@pytest.fixture(scope="session")
def emulator(tmp_path_factory):
    """kernels.cu compiled for the CPU, with fibres for threads."""
    found, reason = host.available()
    if not found:
        pytest.skip(reason)
    library = tmp_path_factory.mktemp("emulator") / "emulated.so"
    source = Path(__file__).with_name("emulated_kernels.cpp")
    flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-Wno-unknown-pragmas", f"-I{host.kernel_folder()}"]
    subprocess.run([host._find_compiler(), *flags, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


@pytest.fixture
def device(emulator, monkeypatch):
    """`cuda` with its launches led to the emulator: tensors of the CPU play those of a device."""
    launched = []

    def launch(kernel, parameters, like, shape, *arguments):
        words = [
            struct.unpack("q", struct.pack("d" if isinstance(a, float) else "q", a))[0] for a in arguments
        ]
        columns = parameters[0] if parameters else 0
        code = emulator.emulate(
            kernel.encode(),
            host.DTYPES[like.dtype],
            columns,
            (ctypes.c_int64 * 4)(*shape),
            (ctypes.c_int64 * len(words))(*words),
            ctypes.c_int64(len(words)),
        )
        assert code == 0, f"{kernel}: failure {code}"
        launched.append(kernel)

    monkeypatch.setattr(cuda, "_launch", launch)
    monkeypatch.setattr(cuda, "launched", launched, raising=False)
    return cuda


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_the_device_forward_equals_the_reference(name, dtype, device):
    shape, lam = CASES[name]
    check_forward(draw(shape, dtype), lam, -6.0, device.forward)
    assert device.launched == ["forward_tiles"]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_the_device_backward_equals_the_adjoint(name, dtype, device):
    shape, lam = CASES[name]
    check_backward(shape, lam, dtype, device.backward)
    assert device.launched == ["backward_tiles"]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_the_device_windows_equal_the_reference(name, dtype, device):
    shape, lam = CASES[name]
    check_windows(shape, lam, dtype, device)
