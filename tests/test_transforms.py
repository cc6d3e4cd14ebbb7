"""The paper's coordinate transforms: NumPy definitions against facts, PyTorch against NumPy."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from cases import implementation_parameters
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import OP_F64, OP_REL

from tensormask_edu import ops, reference
from tensormask_edu.base.errors import InputError
from tensormask_edu.commands import check_ops
from tensormask_edu.ops import transforms

TRANSFORM_NUMBERS = range(len(check_ops.SWAP_CASES), len(check_ops.CASES))
FORMULA = [p for p in implementation_parameters() if p.values[1] == "formula"]
everywhere = pytest.mark.parametrize(("device", "implementation"), FORMULA)
shapes = st.tuples(
    st.integers(0, 2),
    *(st.integers(1, 4) for _ in range(2)),
    *(st.integers(1, 6) for _ in range(2)),
)


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


# --- the definitions, against facts of the paper ----------------------------------------------


def test_align2nat_reads_each_bin_at_its_own_pixel():
    x = random(1, 3, 3, 6, 7)
    out = reference.align2nat(x)
    for v, u, y, column in np.ndindex(3, 3, 4, 5):
        assert out[0, v, u, y + 1, column + 1] == x[0, v, u, y + v, column + u]


def test_align2nat_scales_the_shift_by_alpha():
    x = random(1, 3, 1, 9, 1)
    out = reference.align2nat(x, sigma_vu=2, aligned_sigma_vu=2, sigma_hw=1)
    assert out[0, 2, 0, 3, 0] == x[0, 2, 0, 5, 0]
    assert out[0, 0, 0, 3, 0] == x[0, 0, 0, 1, 0]


def test_nat2align_undoes_align2nat_away_from_the_border():
    x = random(1, 3, 3, 8, 8)
    back = reference.nat2align(reference.align2nat(x))
    assert np.abs(back - x)[..., 2:-2, 2:-2].max() <= OP_F64
    assert np.abs(back - x).max() > 1


def test_nat2align_with_units_undoes_align2nat_with_units_on_a_linear_mask():
    v, u, y, x = np.meshgrid(
        *(np.arange(extent, dtype=float) for extent in (4, 4, 12, 12)), indexing="ij"
    )
    mask = (0.3 * (v - 1.5) - 0.2 * (u - 1.5) + 0.1 * y + 0.05 * x)[None]
    units = {"sigma_hw": 2, "sigma_vu": 1, "aligned_sigma_hw": 1, "aligned_sigma_vu": 2}
    back = reference.nat2align(reference.align2nat(mask, **units), **units)
    assert back.shape == mask.shape
    assert np.abs(back - mask)[:, 1:-1, 1:-1, 5:-6, 5:-6].max() <= OP_F64


def test_up_bilinear_blends_the_pad_into_the_rim_and_clamp_does_not():
    x = np.ones((1, 2, 1, 1, 1))
    padded = reference.up_bilinear(x, 2, edge="pad", pad_value=-1.0)
    clamped = reference.up_bilinear(x, 2, edge="clamp", pad_value=-1.0)
    # u has one entry only: 3/4 of it and 1/4 of the pad, in both axes at the corner.
    assert padded[0, 0, 0, 0, 0] == pytest.approx(0.75**2 - (1 - 0.75**2))
    assert padded[0, 1, 0, 0, 0] == pytest.approx(0.75 - 0.25)
    assert (clamped == 1).all()


def test_up_bilinear_clamped_equals_interpolate():
    x = random(1, 3, 4, 2, 2)
    windows = torch.from_numpy(x).permute(0, 3, 4, 1, 2).reshape(-1, 1, 3, 4)
    up = torch.nn.functional.interpolate(
        windows, scale_factor=3, mode="bilinear", align_corners=False
    )
    expected = up.reshape(1, 2, 2, 9, 12).permute(0, 3, 4, 1, 2).numpy()
    assert np.abs(reference.up_bilinear(x, 3, edge="clamp") - expected).max() <= OP_F64


def test_up_nearest_repeats_entries():
    x = random(1, 2, 2, 1, 1)
    assert (reference.up_nearest(x, 3) == x.repeat(3, 1).repeat(3, 2)).all()


def test_up_nearest_with_real_lam_takes_the_entry_under_the_centre():
    x = np.arange(4.0).reshape(1, 4, 1, 1, 1).repeat(2, axis=2)
    assert reference.up_nearest(x, 1.5)[0, :, 0, 0, 0].tolist() == [0, 1, 1, 2, 3, 3]


def test_up_align2nat_is_align2nat_after_up_bilinear():
    x = torch.from_numpy(random(1, 3, 2, 6, 5))
    for edge in ("pad", "clamp"):
        steps = ops.align2nat(ops.up_bilinear(x, 2, edge))
        assert (ops.up_align2nat(x, 2, edge) - steps).abs().max() <= OP_F64


def test_subsample_starts_at_0_and_keeps_the_last_partial_step():
    x = random(1, 1, 1, 7, 4)
    assert (reference.subsample(x, 3)[0, 0, 0] == x[0, 0, 0, [0, 3, 6]][:, [0, 3]]).all()


# --- PyTorch against the definitions ----------------------------------------------------------


@everywhere
@pytest.mark.parametrize("dtype", OP_REL, ids=lambda dtype: str(dtype).removeprefix("torch."))
def test_transforms_equal_the_reference_on_every_case(dtype, device, implementation):
    for number in TRANSFORM_NUMBERS:
        result = check_ops.run_case(number, implementation, device, dtype)
        assert result["error"] <= OP_REL[dtype], (check_ops.CASES[number].op, result)
        assert result["grad_error"] <= OP_REL[dtype], (check_ops.CASES[number].op, result)
        assert result["same_bits"], (check_ops.CASES[number].op, result)


unit = st.sampled_from([0.5, 1, 1.5, 2, 3])


@settings(max_examples=40, deadline=None)
@given(
    shape=shapes,
    hw=unit,
    aligned_hw=unit,
    vu=unit,
    ratio=st.sampled_from([1, 2, 3]),
    pad=st.floats(-9, 9),
)
def test_align2nat_and_nat2align_equal_the_reference_for_any_units(
    shape, hw, aligned_hw, vu, ratio, pad
):
    x = random(*shape)
    to_natural = {"sigma_vu": vu, "aligned_sigma_vu": ratio * vu}
    to_aligned = {"sigma_vu": ratio * vu, "aligned_sigma_vu": vu}
    common = {"sigma_hw": hw, "aligned_sigma_hw": aligned_hw, "pad_value": pad}
    for name, units in (("align2nat", to_natural), ("nat2align", to_aligned)):
        expected = getattr(reference, name)(x, **units, **common)
        got = getattr(ops, name)(torch.from_numpy(x), **units, **common)
        assert got.shape == expected.shape
        assert np.abs(got.numpy() - expected).max(initial=0) <= OP_F64


@settings(max_examples=30, deadline=None)
@given(
    shape=shapes,
    lam=st.sampled_from([1, 1.5, 2, 2.5, 3]),
    edge=st.sampled_from(["pad", "clamp"]),
)
def test_upscaling_equals_the_reference_on_any_shape(shape, lam, edge):
    sides = (2 * shape[1], 2 * shape[2]) if lam % 1 else shape[1:3]
    x = random(shape[0], *sides, *shape[3:])
    strided = torch.from_numpy(np.stack([x, x], axis=-1))[..., 0]
    for name, arguments in (
        ("up_bilinear", (lam, edge)),
        ("up_align2nat", (lam, edge)),
        ("up_nearest", (lam,)),
    ):
        expected = getattr(reference, name)(x, *arguments)
        got = getattr(ops, name)(strided, *arguments)
        assert np.abs(got.numpy() - expected).max(initial=0) <= OP_F64


DIFFERENTIABLE = {
    "align2nat": lambda x: ops.align2nat(
        x, sigma_hw=2, sigma_vu=1, aligned_sigma_hw=1, aligned_sigma_vu=2
    ),
    "nat2align": lambda x: ops.nat2align(x, sigma_vu=1.5, aligned_sigma_vu=1.5),
    "up_bilinear": lambda x: ops.up_bilinear(x, 1.5, "clamp"),
    "up_nearest": lambda x: ops.up_nearest(x, 1.5),
    "up_align2nat": lambda x: ops.up_align2nat(x, 2),
    "subsample": lambda x: ops.subsample(x, 2),
}


@everywhere
@pytest.mark.parametrize("op", DIFFERENTIABLE.values(), ids=DIFFERENTIABLE)
def test_first_and_second_derivatives_are_right(op, device, implementation):
    x = torch.randn(1, 2, 2, 3, 2, dtype=torch.float64, device=device, requires_grad=True)
    assert torch.autograd.gradcheck(op, x)
    assert torch.autograd.gradgradcheck(op, x)


def test_registration_passes_opcheck():
    ours = torch.ops.tensormask_edu
    forward = (torch.randn(1, 2, 2, 3, 4), [4, 6, 3, 4], 1.0, 1.0, "pad", -6.0)
    torch.library.opcheck(ours.resample.default, forward)
    backward = (torch.randn(1, 4, 6, 3, 4), [2, 2, 3, 4], 1.0, 1.0, "clamp")
    torch.library.opcheck(ours.resample_adjoint.default, backward)


def test_export_keeps_height_and_width_dynamic():
    class Fine(torch.nn.Module):
        def forward(self, x):
            return ops.up_align2nat(x, 2)

    auto = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        Fine(), (torch.randn(1, 3, 3, 8, 10),), dynamic_shapes=({3: auto, 4: auto},)
    )
    x = torch.randn(1, 3, 3, 5, 7)
    assert torch.equal(program.module()(x), ops.up_align2nat(x, 2))


def test_tables_made_in_inference_mode_serve_training_too():
    x = torch.randn(1, 3, 3, 11, 13, requires_grad=True)
    with torch.inference_mode():
        first = ops.up_align2nat(x, 3)
    out = ops.up_align2nat(x, 3)
    assert torch.equal(first, out.detach())
    assert torch.autograd.grad(out.sum(), x)[0].abs().sum() > 0


def test_every_op_has_its_place_in_the_documentation():
    page = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    assert all(f"`{name}" in page for name in set(reference.__all__) & set(ops.__all__))


# --- rejects ----------------------------------------------------------------------------------

X = torch.zeros(1, 3, 2, 4, 4)
BAD = {
    "rank": (lambda o, x: o.align2nat(x[0]), "x: expected"),
    "dtype": (
        lambda o, x: o.subsample(x.astype(int) if o is reference else x.int(), 2),
        "x: expected a floating",
    ),
    "side": (lambda o, x: o.up_bilinear(x, 1.5), "lam: expected .*side 4.5"),
    "lam below 1": (lambda o, x: o.up_nearest(x, 0.5), "lam: expected a number >= 1, got 0.5"),
    "lam no integer": (
        lambda o, x: o.subsample(x, 1.5),
        "lam: expected an integer >= 1, got 1.5",
    ),
    "edge": (
        lambda o, x: o.up_align2nat(x, 2, edge="wrap"),
        "edge: expected 'pad' or 'clamp', got 'wrap'",
    ),
    "unit": (lambda o, x: o.align2nat(x, sigma_hw=0), "positive units"),
    "units' ratio": (
        lambda o, x: o.nat2align(x, aligned_sigma_vu=2),
        "integer sub-tensor side.* 1.5",
    ),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_error_that_names_the_argument(call, message):
    with pytest.raises(InputError, match=message):
        call(ops, X)
    with pytest.raises(ValueError, match=message):
        call(reference, X.numpy())


# --- the command ------------------------------------------------------------------------------


def test_check_ops_lists_every_op_and_what_did_not_run():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check_ops, "LIMITS", {torch.float64: 1e-12})
        report = check_ops.check_ops("cpu")
    assert report["passed"]
    both = set(check_ops.reference.__all__) & set(ops.__all__)
    assert {row["op"] for row in report["results"]} == both
    listed = {row["implementation"] for row in report["results"] + report["not_run"]}
    assert listed == {"cpu", "formula"}
    text = check_ops.table(report)
    assert all(row["op"] in text for row in report["results"])
    assert all(row["why"] in text for row in report["not_run"])


def test_check_ops_reports_a_failure_with_its_case():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check_ops, "LIMITS", {torch.float16: 1e-12})
        report = check_ops.check_ops("cpu")
    assert not report["passed"]
    assert "FAILED up_bilinear float16: real lam" in check_ops.table(report)


def test_check_ops_refuses_a_device_that_is_not_there():
    with pytest.raises(InputError, match="device: expected 'cpu', 'cuda' or 'all', got 'tpu'"):
        check_ops.check_ops("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="device: expected a CUDA device"):
            check_ops.check_ops("cuda")


@pytest.mark.parametrize(
    "wrong", [np.zeros(2), np.full(3, np.nan)], ids=["shape", "not finite"]
)
def test_the_error_of_a_broken_answer_is_infinite(wrong):
    assert check_ops.scaled_error(wrong, np.zeros(3), 1.0) == np.inf


@pytest.mark.long
def test_check_ops_needs_torch_and_numpy_only(tmp_path):
    others = "torchvision matplotlib PIL pycocotools safetensors tqdm onnx".split()
    command = ["check-ops", "--device", "cpu", "--json", str(tmp_path / "ops.json")]
    code = (
        f"import sys\nfor name in {others}:\n    sys.modules[name] = None\n"
        f"from tensormask_edu.cli import main\nsys.exit(main({command}))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert json.loads((tmp_path / "ops.json").read_text())["passed"]
    assert "swap_align2nat_windows" in run.stdout


def test_an_empty_result_of_more_entries_than_pytorch_counts_is_refused():
    x, lam = torch.zeros(1, 1, 1, 0, 0).expand(2**40, 1, 1, 0, 0), 10**6
    no_side = torch.zeros(1, 2**20, 2**20, 0, 0)
    for call in (
        lambda: transforms.resample_kernel(x, [lam, lam, 0, 0], 1.0, 0.0, "pad", 0.0),
        lambda: ops.up_bilinear(x, lam),
        lambda: ops.swap_align2nat(x, lam),
        lambda: ops.swap_align2nat_windows(no_side, lam, torch.zeros(0, 3, dtype=torch.int64)),
    ):
        with pytest.raises(InputError, match="lam, units: expected a result whose sizes can"):
            call()
