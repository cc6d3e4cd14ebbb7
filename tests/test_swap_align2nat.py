"""`swap_align2nat` and its windows form: every implementation, the same numbers."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from cases import WRONG, filled, implementation_parameters, variant
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import GOLDEN_SUM, OP_F32, OP_F64, OP_REL

from tensormask_edu import ops, reference
from tensormask_edu.base.errors import InputError
from tensormask_edu.commands import check_ops
from tensormask_edu.commands.check_ops import Golden, golden_cases

OPS = torch.ops.tensormask_edu
everywhere = pytest.mark.parametrize(("device", "implementation"), implementation_parameters())
INDEX = torch.tensor([[0, 1, 0], [0, 0, 1], [0, 1, 0]])


@pytest.fixture
def chosen(implementation):
    """The implementation is forced for the test."""
    with ops.use(implementation):
        yield implementation


def cells_of(out: torch.Tensor) -> torch.Tensor:
    """All cells (n, y, x) of a dense output."""
    return torch.cartesian_prod(
        *(torch.arange(out.shape[axis], device=out.device) for axis in (0, 3, 4))
    )


def gather(out: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The windows at `index` of a dense output, (K, lam*V, lam*U)."""
    n, y, x = index.unbind(1)
    return out[n, :, :, y, x]


# --- values -----------------------------------------------------------------------------------


def assert_golden_by_reference(case: Golden) -> None:
    x, grad_out = case.x.astype(np.float64), case.grad_out.astype(np.float64)
    out = reference.swap_align2nat(x, case.lam, case.pad_value)
    grad_x = reference.swap_align2nat_adjoint(grad_out, case.lam, *case.x.shape[3:])
    assert np.abs(out - case.out).max() <= OP_F32
    assert np.abs(grad_x - case.grad_x).max() <= OP_F32


def assert_golden_by_op(case: Golden, device: str) -> None:
    x = torch.from_numpy(case.x).to(device).requires_grad_()
    grad_out = torch.from_numpy(case.grad_out).to(device)
    out = ops.swap_align2nat(x, case.lam, case.pad_value)
    (grad_x,) = torch.autograd.grad(out, x, grad_out)
    cells = cells_of(out)
    windows = ops.swap_align2nat_windows(x, case.lam, cells, case.pad_value)
    (grad_windows,) = torch.autograd.grad(windows, x, gather(grad_out, cells))
    for got, expected in ((out, case.out), (grad_x, case.grad_x), (grad_windows, case.grad_x)):
        assert np.abs(got.detach().cpu().numpy() - expected).max() <= OP_F32
    assert (windows - gather(out, cells)).abs().max() <= OP_F32


@pytest.mark.parametrize(
    "case", golden_cases(), ids=lambda case: f"{case.x.shape}-lam{case.lam}"
)
def test_reference_equals_the_official_op(case):
    assert_golden_by_reference(case)


def test_reference_equals_the_official_op_on_all_cases(shared):
    for case in golden_cases(shared / "golden" / "swap_align2nat.npz"):
        assert_golden_by_reference(case)


@everywhere
def test_op_equals_the_official_op(device, chosen):
    for case in golden_cases():
        assert_golden_by_op(case, device)


@everywhere
def test_op_equals_the_official_op_on_all_cases(shared, device, chosen):
    for case in golden_cases(shared / "golden" / "swap_align2nat.npz"):
        assert_golden_by_op(case, device)


# V, lam, H, W, sum Y, sum Y^2, sum gX, sum gX^2, samples Y[v, u, y, x]
TABLE = (
    (
        3,
        1,
        12,
        14,
        -912.860000,
        5933.487600,
        5.200000,
        461.825600,
        {(0, 0, 6, 7): 0.72, (1, 0, 6, 7): -0.74},
    ),
    (
        2,
        1,
        6,
        7,
        -149.310000,
        487.087850,
        1.700000,
        6.080150,
        {(0, 0, 3, 3): 0.25, (1, 1, 0, 0): 0.055},
    ),
    (
        3,
        2,
        12,
        14,
        -3024.190938,
        12449.419737,
        -1.628438,
        21.346810,
        {(3, 2, 3, 3): -0.0178125},
    ),
    (
        2,
        4,
        17,
        15,
        -3519.494062,
        15958.916688,
        -8.759063,
        88.378681,
        {(7, 1, 2, 2): -2.9484375},
    ),
    (
        3,
        4,
        25,
        26,
        -16404.038047,
        78097.255584,
        0.099141,
        229.933372,
        {(11, 1, 3, 3): -2.5300781},
    ),
    (
        3,
        3,
        19,
        20,
        -8519.310885,
        43283.770939,
        3.082221,
        449.065271,
        {(0, 0, 3, 3): -3.2177781},
    ),
)


def sums(values: torch.Tensor) -> tuple[float, float]:
    return values.sum().item(), values.square().sum().item()


@everywhere
def test_op_gives_the_published_sums(device, chosen):
    for side, lam, height, width, total, squares, grad_total, grad_squares, samples in TABLE:
        x = torch.from_numpy(filled((1, side, side, height, width))).to(device).requires_grad_()
        out = ops.swap_align2nat(x, lam)
        (grad,) = torch.autograd.grad(out, x, torch.from_numpy(filled(out.shape)).to(device))
        assert sums(out) == pytest.approx((total, squares), abs=GOLDEN_SUM)
        assert sums(grad) == pytest.approx((grad_total, grad_squares), abs=GOLDEN_SUM)
        for place, value in samples.items():
            assert out[0][place].item() == pytest.approx(value, abs=2e-6)


SWAP_NUMBERS = range(len(check_ops.SWAP_CASES))


@everywhere
@pytest.mark.parametrize("dtype", OP_REL, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("op", check_ops.KERNEL_OPS)
def test_op_equals_the_reference_on_every_case(op, dtype, device, implementation):
    for number in SWAP_NUMBERS:
        if check_ops.CASES[number].op == op:
            result = check_ops.run_case(number, implementation, device, dtype)
            assert result["error"] <= OP_REL[dtype], result
            assert result["grad_error"] <= OP_REL[dtype], result
            assert result["same_bits"], result


shapes = st.tuples(*(st.integers(1, 4) for _ in range(3)), st.integers(1, 9), st.integers(1, 9))


@everywhere
@settings(max_examples=40, deadline=None)
@given(
    shape=shapes,
    lam=st.integers(1, 6),
    pad=st.floats(-9, 9),
    strides=st.booleans(),
    seed=st.integers(0, 9),
)
def test_op_and_windows_equal_the_reference_on_any_shape(
    device, implementation, shape, lam, pad, strides, seed
):
    x = np.random.default_rng(seed).normal(size=shape)
    expected = reference.swap_align2nat(x, lam, pad)
    given_x = torch.from_numpy(x).to(device)
    if strides:
        given_x = torch.stack([given_x, given_x], dim=-1)[..., 1]
    with ops.use(implementation):
        out = ops.swap_align2nat(given_x, lam, pad)
        cells = cells_of(out)[
            torch.randperm(out.shape[0] * out.shape[3] * out.shape[4])[: 1 + seed]
        ]
        windows = ops.swap_align2nat_windows(given_x, lam, cells.to(device), pad)
    assert out.shape == expected.shape
    assert np.abs(out.cpu().numpy() - expected).max() <= OP_F64
    assert (windows - gather(out, cells.to(device))).abs().max() <= OP_F64


@pytest.mark.parametrize("lam", [1, 2, 3, 4])
def test_op_is_subsampling_after_align2nat_after_upscaling(lam):
    x = torch.randn(2, 3, 2, 7, 9, dtype=torch.float64)
    steps = ops.subsample(ops.align2nat(ops.up_bilinear(x, lam)), lam)
    assert (ops.swap_align2nat(x, lam) - steps).abs().max() <= OP_F64


@pytest.mark.parametrize("lam", [1, 2, 3, 4])
def test_op_is_align2nat_with_swapped_units(lam):
    x = torch.randn(2, 3, 2, 7, 9, dtype=torch.float64)
    units = {"sigma_hw": lam, "sigma_vu": 1, "aligned_sigma_hw": 1, "aligned_sigma_vu": lam}
    assert (ops.swap_align2nat(x, lam) - ops.align2nat(x, **units)).abs().max() <= OP_F64


def test_lam_1_with_odd_sides_copies_values_exactly():
    x = torch.randn(1, 3, 5, 8, 8)
    assert torch.equal(ops.swap_align2nat(x, 1)[:, 1, 2], x[:, 1, 2])


def errors_of_variant(mistake: dict) -> list[float]:
    """How far a variant is from the reference on each dense case of the table."""
    errors = []
    for number, case in enumerate(check_ops.CASES):
        if case.op == "swap_align2nat" and 0 not in case.shape:
            numbers = check_ops.sample(number, torch.float64)
            out = variant(
                torch.from_numpy(numbers.x), case.arguments["lam"], case.pad_value, **mistake
            )
            scale = max(np.abs(numbers.x).max(), abs(case.pad_value))
            errors.append(check_ops.scaled_error(out.numpy(), numbers.expected, scale))
    return errors


def test_the_variant_without_a_mistake_equals_the_reference():
    assert max(errors_of_variant({})) <= OP_F64


@pytest.mark.parametrize("mistake", WRONG.values(), ids=WRONG)
def test_the_case_table_catches_a_wrong_variant_even_in_bfloat16(mistake):
    assert max(errors_of_variant(mistake)) > 10 * OP_REL[torch.bfloat16]


@pytest.mark.parametrize("mistake", WRONG.values(), ids=WRONG)
def test_check_ops_fails_for_a_wrong_op(mistake, monkeypatch):
    monkeypatch.setattr(
        ops,
        "swap_align2nat",
        lambda x, lam, pad_value=-6.0: variant(x, lam, pad_value, **mistake),
    )
    numbers = [i for i in SWAP_NUMBERS if check_ops.CASES[i].op == "swap_align2nat"]
    shapes = [check_ops.CASES[i].shape for i in numbers]
    results = [
        check_ops.run_case(i, "formula", "cpu", torch.float64)
        for i, shape in zip(numbers, shapes, strict=True)
        if 0 not in shape
    ]
    assert not all(result["passed"] for result in results)
    assert max(result["grad_error"] for result in results) > OP_REL[torch.bfloat16]


# --- gradients --------------------------------------------------------------------------------


@everywhere
@settings(max_examples=25, deadline=None)
@given(shape=shapes, lam=st.integers(1, 6), seed=st.integers(0, 9))
def test_backward_is_the_transpose_of_forward(device, implementation, shape, lam, seed):
    torch.manual_seed(seed)
    x = torch.randn(shape, dtype=torch.float64, device=device, requires_grad=True)
    with ops.use(implementation):
        out = ops.swap_align2nat(x, lam, 0.0)
        grad = torch.randn_like(out)
        cells = cells_of(out)
        cells = torch.cat([cells, cells[:2]])
        windows = ops.swap_align2nat_windows(x, lam, cells, 0.0)
        grad_windows = torch.randn_like(windows)
        (dense,) = torch.autograd.grad(out, x, grad)
        (sparse,) = torch.autograd.grad(windows, x, grad_windows)
    assert ((out * grad).sum() - (x * dense).sum()).abs() <= 1e3 * OP_F64
    assert ((windows * grad_windows).sum() - (x * sparse).sum()).abs() <= 1e3 * OP_F64


@everywhere
@pytest.mark.parametrize("shape", [(1, 2, 3, 3, 4), (2, 3, 1, 2, 5)], ids=str)
@pytest.mark.parametrize("lam", [1, 2, 3])
def test_first_and_second_derivatives_are_right(shape, lam, device, chosen):
    x = torch.randn(shape, dtype=torch.float64, device=device, requires_grad=True)
    index = torch.tensor([[0, 0, 1], [0, 0, 0], [0, 0, 1]], device=device)
    for op in (
        lambda x: ops.swap_align2nat(x, lam),
        lambda x: ops.swap_align2nat_windows(x, lam, index),
    ):
        assert torch.autograd.gradcheck(op, x)
        assert torch.autograd.gradgradcheck(op, x)


@everywhere
def test_gradients_of_repeated_windows_add(device, chosen):
    x = torch.randn(1, 3, 3, 6, 6, dtype=torch.float64, device=device, requires_grad=True)
    once = torch.tensor([[0, 1, 2]], device=device)
    (single,) = torch.autograd.grad(ops.swap_align2nat_windows(x, 2, once).sum(), x)
    (triple,) = torch.autograd.grad(
        ops.swap_align2nat_windows(x, 2, once.repeat(3, 1)).sum(), x
    )
    assert (triple - 3 * single).abs().max() <= OP_F64
    assert single.abs().sum() > 0


@everywhere
def test_backward_gives_the_same_bits_in_every_run(device, chosen):
    x = torch.randn(2, 5, 5, 24, 24, device=device, requires_grad=True)
    index = torch.randint(0, 12, (60, 3), device=device).clamp(
        max=torch.tensor([1, 11, 11], device=device)
    )
    grads = []
    for _ in range(3):
        out = ops.swap_align2nat_windows(x, 2, index)
        grads.append(torch.autograd.grad(out.square().sum(), x)[0])
    assert torch.equal(grads[0], grads[1])
    assert torch.equal(grads[0], grads[2])


# --- dtype ------------------------------------------------------------------------------------


@everywhere
def test_the_op_keeps_its_inputs_dtype_under_autocast(device, chosen):
    x = torch.randn(1, 3, 3, 6, 6, device=device, requires_grad=True)
    with torch.autocast(device, torch.bfloat16):
        out = ops.swap_align2nat(x, 2)
        windows = ops.swap_align2nat_windows(x, 2, INDEX.to(device))
    assert out.dtype == windows.dtype == torch.float32
    assert torch.equal(out, ops.swap_align2nat(x, 2))
    assert torch.autograd.grad(out.sum() + windows.sum(), x)[0].dtype == torch.float32


# --- rejects ----------------------------------------------------------------------------------

X = torch.zeros(1, 2, 2, 4, 4)
BAD = {
    "rank": (
        lambda: ops.swap_align2nat(torch.zeros(1, 4, 4, 4), 2),
        r"x: expected a tensor \(N, V, U, H, W\)",
    ),
    "dtype": (
        lambda: ops.swap_align2nat(X.int(), 2),
        "x: expected a floating dtype, got torch.int32",
    ),
    "lam 0": (lambda: ops.swap_align2nat(X, 0), "lam: expected an integer >= 1, got 0"),
    "lam 1.5": (lambda: ops.swap_align2nat(X, 1.5), "lam: expected an integer >= 1, got 1.5"),
    "lam True": (
        lambda: ops.swap_align2nat(X, True),
        "lam: expected an integer >= 1, got True",
    ),
    "pad": (
        lambda: ops.swap_align2nat(X, 2, float("inf")),
        "pad_value: expected a finite number of torch.float32, got inf",
    ),
    "index shape": (
        lambda: ops.swap_align2nat_windows(X, 2, INDEX[:, :2]),
        r"index: expected a tensor \(K, 3\)",
    ),
    "index dtype": (
        lambda: ops.swap_align2nat_windows(X, 2, INDEX.int()),
        "index: expected dtype torch.int64",
    ),
    "index device": (
        lambda: ops.swap_align2nat_windows(X, 2, INDEX.to("meta")),
        "index: .*device, cpu, got meta",
    ),
    "index above": (
        lambda: ops.swap_align2nat_windows(X, 2, INDEX + 1),
        r"index: .*< \(1, 2, 2\).*\[1, 2, 2\]",
    ),
    "index below": (
        lambda: ops.swap_align2nat_windows(X, 2, INDEX - 1),
        "index: expected 0 <=",
    ),
    "windows lam": (
        lambda: ops.swap_align2nat_windows(X, -1, INDEX),
        "lam: expected an integer >= 1, got -1",
    ),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_error_that_names_the_argument(call, message):
    with pytest.raises(InputError, match=message):
        call()


REFERENCE_BAD = {
    "rank": (lambda: reference.swap_align2nat(np.zeros((1, 4, 4, 4)), 2), "x: expected shape"),
    "dtype": (
        lambda: reference.swap_align2nat(np.zeros((1, 2, 2, 4, 4), int), 2),
        "x: expected a floating dtype",
    ),
    "lam": (
        lambda: reference.swap_align2nat(X.numpy(), 0),
        "lam: expected an integer >= 1, got 0",
    ),
    "index": (
        lambda: reference.swap_align2nat_windows(X.numpy(), 2, INDEX.numpy() + 1),
        "index: expected 0 <=",
    ),
    "index dtype": (
        lambda: reference.swap_align2nat_windows(X.numpy(), 2, INDEX.int().numpy()),
        "index: .*int64",
    ),
    **{
        f"{name} outside": (
            lambda cell=cell: reference.swap_align2nat_windows(X.numpy(), 2, np.array([cell])),
            r"index: expected 0 <= \(n, y, x\) < \(1, 2, 2\)",
        )
        for name, cell in {
            "image": (1, 0, 0),
            "row": (0, 2, 0),
            "column": (0, 0, 2),
            "row below": (0, -1, 0),
        }.items()
    },
}


@pytest.mark.parametrize(("call", "message"), REFERENCE_BAD.values(), ids=REFERENCE_BAD)
def test_the_reference_rejects_bad_input_too(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- choice of implementation -----------------------------------------------------------------


def test_status_says_what_runs_and_why():
    assert ops.status()["cpu"]["runs"] in ("cpu", "formula")
    assert ops.status()["cpu"]["why"]
    with ops.use("formula"):
        forced = {"runs": "formula", "why": "forced: 'formula'", "rule": "every rule"}
        assert ops.status()["cpu"] == forced


def test_status_says_which_heads_a_kernel_computes():
    for what in ops.status().values():
        kernel = what["runs"] in ("cpu", "cuda")
        assert ("swap_align2nat alone" in what["rule"]) == kernel


def test_a_forced_choice_that_cannot_run_raises():
    with (
        pytest.raises(InputError, match="implementation: expected .*got 'fastest'"),
        ops.use("fastest"),
    ):
        pass
    with pytest.raises(InputError, match="implementation: expected one"), ops.use("cuda"):
        ops.swap_align2nat(X, 2)


# --- registration, export, compile ------------------------------------------------------------


# opcheck itself reads .grad of tensors that are no leaves.
@everywhere
@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_registration_passes_opcheck(device, chosen):
    x = torch.randn(1, 2, 3, 3, 4, device=device, requires_grad=True)
    grad = torch.randn(1, 4, 6, 2, 2, device=device, requires_grad=True)
    grad_windows = torch.randn(3, 4, 6, device=device, requires_grad=True)
    index = INDEX.to(device)
    torch.library.opcheck(OPS.swap_align2nat.default, (x, 2, -6.0))
    torch.library.opcheck(OPS.swap_align2nat_adjoint.default, (grad, 2, 3, 4))
    torch.library.opcheck(OPS.swap_align2nat_windows.default, (x, 2, index, -6.0))
    torch.library.opcheck(
        OPS.swap_align2nat_windows_adjoint.default, (grad_windows, 2, index, [1, 2, 3, 3, 4])
    )


class Both(torch.nn.Module):
    def forward(self, x, index):
        return ops.swap_align2nat(x, 2), ops.swap_align2nat_windows(x, 2, index)


def test_export_keeps_height_width_and_number_of_windows_dynamic():
    auto = torch.export.Dim.DYNAMIC
    example = (torch.randn(1, 3, 3, 8, 10), INDEX)
    program = torch.export.export(
        Both(), example, dynamic_shapes=({3: auto, 4: auto}, {0: auto})
    )
    x, index = torch.randn(1, 3, 3, 13, 7), INDEX[:2]
    dense, windows = program.module()(x, index)
    assert torch.equal(dense, ops.swap_align2nat(x, 2))
    assert torch.equal(windows, ops.swap_align2nat_windows(x, 2, index))


def test_compile_traces_forward_and_backward_whole():
    compiled = torch.compile(Both(), fullgraph=True, dynamic=True, backend="aot_eager")
    for height in (8, 13):
        x = torch.randn(1, 3, 3, height, 10, requires_grad=True)
        grads = [
            torch.autograd.grad(dense.square().sum() + windows.sum(), x)[0]
            for dense, windows in (compiled(x, INDEX), Both()(x, INDEX))
        ]
        assert torch.equal(*grads)


@pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler"
)
@pytest.mark.filterwarnings("ignore")
def test_compile_with_the_default_backend_gives_the_same_numbers():
    x = torch.randn(1, 3, 3, 8, 10)
    with (
        torch.no_grad()
    ):  # the ops alone: nothing of it has to be compiled, which would take half a minute
        dense, windows = torch.compile(Both(), fullgraph=True)(x, INDEX)
    assert torch.equal(dense, ops.swap_align2nat(x, 2))
    assert torch.equal(windows, ops.swap_align2nat_windows(x, 2, INDEX))
