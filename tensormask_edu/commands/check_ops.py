"""`tensormask-edu check-ops`: every operator, implementation and dtype, against the reference.

Each case is computed in float64 by `reference/` from the inputs *as rounded* to the dtype, so
what remains is the implementation's own error. Compared are values, gradients (against the
transposed reference), and bits of two runs. Needs PyTorch and NumPy only.

next: commands/check_ptx.py
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import ops, reference
from ..base import machine as this
from ..base.errors import bad_input
from ..base.files import check_report, write_json
from ..base.tables import text_table

# Largest |got - ref| / max(|ref|, 1 % of the largest input): a few roundings of each dtype.
LIMITS = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 1.6e-2,
}
# Ops that kernels of ours may run instead of PyTorch formulas.
KERNEL_OPS = ("swap_align2nat", "swap_align2nat_windows")
# Vectors of the official kernel; a checkout has them, an installation does not.
GOLDEN_FILE = Path(__file__).resolve().parents[2] / "tests" / "data" / "swap_align2nat.npz"

Shape = tuple[int, int, int, int, int]  # (N, V, U, H, W)
Row = dict[str, Any]

# --- the cases --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One input and why it is in the table. `windows`: how many are chosen, None: all."""

    op: str
    why: str
    shape: Shape
    arguments: dict[str, Any] = field(default_factory=dict)
    windows: int | None = None
    strided: bool = False

    @property
    def pad_value(self) -> float:
        return self.arguments.get("pad_value", -6.0)


def _swap(why: str, shape: Shape, lam: int, pad: float = -6.0, **more: bool) -> list[Case]:
    """The dense case and the same with windows."""
    arguments = {"lam": lam, "pad_value": pad}
    return [Case(op, why, shape, arguments, **more) for op in KERNEL_OPS]


LAM_1, LAM_2 = {"lam": 1}, {"lam": 2, "pad_value": -6.0}
SWAP_CASES = (
    *_swap("odd V, lam 1: a pure shift, one tap", (1, 3, 3, 6, 9), 1),
    *_swap("even V, lam 1: half a cell of shift, neighbours averaged", (1, 2, 2, 5, 6), 1),
    *_swap("two images; pad blended into every window's rim", (2, 3, 3, 8, 12), 2),
    *_swap("V != U: lam*V even, lam*U odd", (1, 4, 3, 9, 8), 3),
    *_swap("V != U the other way round", (1, 3, 2, 10, 7), 3, 2.5),
    *_swap("H and W no multiples of lam", (1, 3, 2, 7, 11), 2),
    *_swap("lam larger than the grid: windows mostly outside", (1, 3, 3, 5, 3), 8, 0.5),
    *_swap("a single value", (1, 1, 1, 1, 1), 4),
    *_swap("one row, odd lam", (2, 2, 2, 1, 9), 5),
    *_swap("one column", (1, 2, 3, 6, 1), 2),
    *_swap("the paper's sides, 15 and 11", (1, 15, 11, 4, 5), 4),
    *_swap("the top level's lam", (1, 2, 1, 33, 9), 32, 0.0),
    *_swap("more bins than one walk of a GPU's block", (1, 2, 17, 2, 4), 2),
    *_swap("the first four columns half outside", (1, 2, 5, 3, 8), 1),
    Case("swap_align2nat", "rows as wide as several blocks", (1, 1, 2, 2, 1000), LAM_1),
    Case("swap_align2nat", "the same, even lam", (1, 1, 2, 3, 904), {"lam": 4}),
    Case("swap_align2nat", "rows of 32 bytes or less", (1, 2, 3, 9, 28), {"lam": 4}),
    Case("swap_align2nat", "cells as wide as a block", (1, 1, 1, 30, 61), {"lam": 60}),
    *_swap("strides of channels-last memory", (2, 3, 3, 6, 8), 2, strided=True),
    *_swap("no images", (0, 3, 3, 4, 4), 2),
    *_swap("no rows", (1, 3, 3, 0, 4), 2),
    Case("swap_align2nat_windows", "no windows", (1, 3, 3, 4, 4), LAM_2, 0),
    Case("swap_align2nat_windows", "few windows of many", (2, 3, 3, 16, 16), LAM_2, 5),
)
ALPHA_3 = {"sigma_vu": 3, "aligned_sigma_vu": 3}
UNITS_SWAP = {"sigma_hw": 2, "aligned_sigma_hw": 1, "aligned_sigma_vu": 2}
UNEVEN = {"sigma_vu": 1.5, "sigma_hw": 2, "aligned_sigma_vu": 1.5}
CLAMPED: dict[str, Any] = {"edge": "clamp"}
TRANSFORM_CASES = (
    Case("align2nat", "equal units, odd V: a pure shift", (2, 3, 3, 5, 6)),
    Case("align2nat", "equal units, V even, U odd", (1, 2, 3, 5, 4)),
    Case("align2nat", "alpha 3", (1, 3, 2, 6, 5), ALPHA_3),
    Case("align2nat", "units swap: lam 2", (1, 3, 2, 6, 5), UNITS_SWAP),
    Case("align2nat", "units in no whole ratio", (1, 3, 2, 5, 4), UNEVEN),
    Case("nat2align", "equal units", (2, 3, 2, 5, 6), {"pad_value": 1.0}),
    Case("nat2align", "units swap back: lam 2", (1, 4, 2, 3, 4), UNITS_SWAP),
    Case("up_bilinear", "pad blended into the rim", (2, 3, 2, 3, 4), {"lam": 2}),
    Case("up_bilinear", "real lam", (1, 4, 2, 2, 3), {"lam": 1.5}),
    Case("up_bilinear", "border repeated", (1, 3, 2, 2, 3), {"lam": 3} | CLAMPED),
    Case("up_nearest", "whole lam", (2, 3, 2, 2, 3), {"lam": 3}),
    Case("up_nearest", "real lam: uneven copies", (1, 4, 2, 2, 3), {"lam": 1.5}),
    Case("up_align2nat", "pad on the rim and beyond the grid", (1, 3, 2, 4, 4), {"lam": 2}),
    Case("up_align2nat", "real lam, border repeated", (1, 2, 4, 3, 4), {"lam": 2.5} | CLAMPED),
    Case("subsample", "starts at 0, keeps the last partial step", (2, 2, 3, 7, 5), {"lam": 3}),
)
CASES = SWAP_CASES + TRANSFORM_CASES

# --- what the reference says ------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """A case in numbers, float64 holding a dtype's values, with the reference's answers."""

    x: np.ndarray
    grad: np.ndarray
    index: np.ndarray | None
    expected: np.ndarray
    expected_grad: np.ndarray


@cache
def sample(number: int, dtype: torch.dtype) -> Sample:
    """Case `number` of CASES: inputs rounded to a dtype, what the reference makes of them."""
    case = CASES[number]
    random = np.random.default_rng(number)
    x = _rounded(random.uniform(-8, 8, case.shape), dtype)
    index = _window_index(case, random)
    more = {} if index is None else {"index": index}
    expected = getattr(reference, case.op)(x, **case.arguments, **more)
    grad = _rounded(random.uniform(-1, 1, expected.shape), dtype)
    return Sample(x, grad, index, expected, _reference_gradient(number, index, grad))


def _window_index(case: Case, random: np.random.Generator) -> np.ndarray | None:
    """(K, 3) cells, each once in random order, then three again; None for dense ops."""
    if case.op != "swap_align2nat_windows":
        return None
    (n, _, _, height, width), lam = case.shape, case.arguments["lam"]
    cells = np.array(list(np.ndindex(n, -(-height // lam), -(-width // lam))), np.int64)
    cells = random.permutation(cells.reshape(-1, 3))
    return np.concatenate([cells, cells[:3]])[: case.windows]


def _reference_gradient(number: int, index: np.ndarray | None, grad: np.ndarray) -> np.ndarray:
    """What the transposed op of case `number` makes of `grad`."""
    case = CASES[number]
    lam: Any = case.arguments.get("lam")
    if case.op == "swap_align2nat":
        return reference.swap_align2nat_adjoint(grad, lam, *case.shape[3:])
    if index is not None:
        return reference.swap_align2nat_windows_adjoint(grad, lam, index, case.shape)
    columns = _columns(number)
    return np.tensordot(grad, columns, axes=(range(1, 5), range(1, 5))).reshape(case.shape)


@cache
def _columns(number: int) -> np.ndarray:
    """The matrix of a linear op, from its definition: column i is what it makes of input i.

    (V*U*H*W, ...) with the op's output behind; the same for all dtypes.
    """
    case = CASES[number]
    entries = math.prod(case.shape[1:])
    impulses = np.eye(entries).reshape(entries, *case.shape[1:])
    pad = {} if case.op in ("up_nearest", "subsample") else {"pad_value": 0.0}
    return getattr(reference, case.op)(impulses, **{**case.arguments, **pad})


def _rounded(values: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    return torch.from_numpy(values).to(dtype).double().numpy()


# --- what the official kernel says ------------------------------------------------------------


@dataclass(frozen=True)
class Golden:
    """One case of the official op: float32 arrays (N, V, U, H, W)."""

    lam: int
    pad_value: float
    x: np.ndarray
    out: np.ndarray
    grad_out: np.ndarray
    grad_x: np.ndarray


def golden_cases(path: Path = GOLDEN_FILE) -> list[Golden]:
    """All cases in a golden file; by default the subset that travels with the tests."""
    with np.load(path) as file:
        return [_golden(file, i, case) for i, case in enumerate(json.loads(str(file["cases"])))]


def _golden(file: Any, number: int, case: dict[str, Any]) -> Golden:
    side, lam, height, width = (case[k] for k in ("window", "lambda_", "height", "width"))
    x_shape = (case["n"], side, side, height, width)
    out_shape = (case["n"], lam * side, lam * side, -(-height // lam), -(-width // lam))
    names = ("input", "output", "grad_output", "grad_input")
    shapes = zip(names, (x_shape, out_shape, out_shape, x_shape), strict=True)
    # The file holds V and U as one axis of channels.
    arrays = (file[f"case{number}_{name}"].reshape(shape) for name, shape in shapes)
    return Golden(lam, case["pad_value"], *arrays)


def golden_error(golden: Golden, device: str = "cpu") -> float:
    """The largest absolute difference of our output and gradient from the official ones."""
    x = torch.from_numpy(golden.x).to(device).requires_grad_()
    out = ops.swap_align2nat(x, golden.lam, golden.pad_value)
    (grad,) = torch.autograd.grad(out, x, torch.from_numpy(golden.grad_out).to(device))
    errors = (out.detach().cpu().numpy() - golden.out, grad.cpu().numpy() - golden.grad_x)
    return max(float(np.abs(error).max()) for error in errors)


# --- the comparison ---------------------------------------------------------------------------


def scaled_error(got: np.ndarray, expected: np.ndarray, scale: float) -> float:
    """Largest |got - expected| / max(|expected|, 1 % of scale); inf for another shape."""
    if got.shape != expected.shape:
        return math.inf
    if expected.size == 0:
        return 0.0
    error = np.abs(got - expected) / np.maximum(np.abs(expected), 1e-2 * scale + 1e-300)
    return float(error.max()) if np.isfinite(got).all() else math.inf


def run_case(number: int, implementation: str, device: str, dtype: torch.dtype) -> Row:
    """One case by one implementation: errors of values and gradient; are two runs bit-equal?"""
    case, wanted = CASES[number], sample(number, dtype)
    with ops.use(implementation):
        out, grad = _forward_backward(case, wanted, device, dtype)
        again, grad_again = _forward_backward(case, wanted, device, dtype)
    scale = max(np.abs(wanted.x).max(initial=0), abs(case.pad_value))
    error = scaled_error(out.double().cpu().numpy(), wanted.expected, scale)
    grad_scale = np.abs(wanted.grad).max(initial=0)
    grad_error = scaled_error(grad.double().cpu().numpy(), wanted.expected_grad, grad_scale)
    same = torch.equal(out, again) and torch.equal(grad, grad_again)
    passed = same and out.dtype == dtype and max(error, grad_error) <= LIMITS[dtype]
    row = {"why": case.why, "error": error, "grad_error": grad_error}
    return row | {"same_bits": same, "passed": passed}


def _forward_backward(
    case: Case, numbers: Sample, device: str, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    x = torch.from_numpy(numbers.x).to(device, dtype)
    if case.strided:
        x = x.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)
    x.requires_grad_()
    arguments = dict(case.arguments)
    if numbers.index is not None:
        arguments["index"] = torch.from_numpy(numbers.index).to(device)
    out = getattr(ops, case.op)(x, **arguments)
    (grad,) = torch.autograd.grad(out, x, torch.from_numpy(numbers.grad).to(device, dtype))
    return out.detach(), grad


def implementations(device: str) -> Iterator[tuple[str, str, str]]:
    """(device, implementation, "" or why it does not run here) for "cpu", "cuda" or "all"."""
    for kind in ("cpu", "cuda") if device == "all" else (device,):
        unseen = "no CUDA device is visible to PyTorch"
        hidden = kind == "cuda" and not torch.cuda.is_available()
        for name in ops.ORDER[kind]:
            yield kind, name, unseen if hidden else ops.missing(name)


def check_ops(device: str = "all") -> dict[str, Any]:
    """Run the whole table on "cpu", "cuda" or "all".

    Returns {"passed", "results": a row per op x implementation x dtype with its cases,
    "not_run", "machine"}. Raises InputError if `device` is "cuda" and there is none.
    """
    if device not in ("cpu", "cuda", "all"):
        raise bad_input("device", "'cpu', 'cuda' or 'all'", repr(device))
    if device == "cuda" and not torch.cuda.is_available():
        expected, fix = "a CUDA device visible to PyTorch", "check with --device cpu"
        raise bad_input("device", expected, "none", fix)
    results: list[Row] = []
    not_run: list[Row] = []
    for kind, name, reason in implementations(device):
        if reason:
            not_run.append({"device": kind, "implementation": name, "why": reason})
        else:
            results += rows_of(kind, name)
    passed = all(row["passed"] for row in results)
    return {"passed": passed, "results": results, "not_run": not_run, "machine": machine()}


def rows_of(
    device: str, implementation: str, dtypes: Sequence[torch.dtype] | None = None
) -> Iterator[Row]:
    """The table of one implementation, a row per operator and dtype, each when it is done.

    dtypes: by default all that have a limit.
    """
    every = tuple(dict.fromkeys(case.op for case in CASES))
    for op in every if implementation == "formula" else KERNEL_OPS:
        for dtype in dtypes or LIMITS:
            yield _row(op, implementation, device, dtype)


def _row(op: str, implementation: str, device: str, dtype: torch.dtype) -> Row:
    numbers = [number for number, case in enumerate(CASES) if case.op == op]
    cases = [run_case(number, implementation, device, dtype) for number in numbers]
    row: Row = {"op": op, "implementation": implementation, "device": device}
    row |= {"dtype": str(dtype).removeprefix("torch."), "limit": LIMITS[dtype]}
    row |= {key: max(case[key] for case in cases) for key in ("error", "grad_error")}
    row |= {key: all(case[key] for case in cases) for key in ("same_bits", "passed")}
    return row | {"cases": cases}


def machine() -> dict[str, Any]:
    """Facts of this machine, with the implementations of the operators that run on it."""
    status = ops.status()
    for found in status.values():  # where the compiled file lies is the machine's own business
        found["why"] = found["why"].split(", cached in")[0]
    return this.machine() | {"ops": status}


def table(report: dict[str, Any]) -> str:
    """The report as text, a line per op x implementation x dtype."""
    head = ("op", "device", "by", "dtype", "cases", "error", "gradient", "limit", "bits", "")
    lines = [text_table([head, *map(_cells, report["results"])]), ""]
    lines.append("not run here:" if report["not_run"] else "every implementation ran")
    for row in report["not_run"]:
        lines.append(f"  {row['implementation']} on {row['device']}: {row['why']}")
    for row in report["results"]:
        wrong = [case["why"] for case in row["cases"] if not case["passed"]]
        lines += [f"FAILED {row['op']} {row['dtype']}: {why}" for why in wrong]
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    bits = "same" if row["same_bits"] else "DIFFER"
    verdict = "ok" if row["passed"] else "FAILED"
    errors = (f"{row[name]:.1e}" for name in ("error", "grad_error", "limit"))
    names = (row[name] for name in ("op", "device", "implementation", "dtype"))
    return (*names, str(len(row["cases"])), *errors, bits, verdict)


def run(args: argparse.Namespace) -> int:
    """Print the table, write the JSON if asked. 0: all equal, 1: something differs."""
    check_report(args.json)
    report = check_ops(args.device)
    if args.json:
        write_json(args.json, report)
    print(table(report))
    return 0 if report["passed"] else 1
