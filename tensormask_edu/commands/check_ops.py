"""`tensormask-edu check-ops`: every operator, implementation and dtype present, against the
NumPy reference.

Each case is computed in float64 by `reference/` from the inputs *as rounded* to the dtype, so
what remains is the implementation's own error. Compared are values, gradients (against the
transposed reference), and bits of two runs. Needs PyTorch and NumPy only.

next: ../exporters/tensormask_export/contract.py
"""

from __future__ import annotations

import argparse
import math
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import __version__, ops, reference
from ..base.errors import bad_input
from ..base.files import write_json

# Largest |got - ref| / max(|ref|, 1 % of the largest input): a few roundings of each dtype.
LIMITS = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 1.6e-2,
}
# Ops that kernels of ours may run instead of PyTorch formulas.
KERNEL_OPS = ("swap_align2nat", "swap_align2nat_windows")


@dataclass(frozen=True)
class Case:
    """One input and why it is in the table. shape: (N, V, U, H, W); windows: how many cells are
    chosen."""

    op: str
    why: str
    shape: tuple[int, int, int, int, int]
    arguments: dict[str, Any] = field(default_factory=dict)
    windows: int | None = None
    strided: bool = False

    @property
    def pad_value(self) -> float:
        return self.arguments.get("pad_value", -6.0)


def _swap(
    why: str, shape: tuple[int, int, int, int, int], lam: int, pad: float = -6.0, **kind: Any
) -> list[Case]:
    """The dense case and the same with windows: every cell once in random order, then three
    again."""
    arguments = {"lam": lam, "pad_value": pad}
    cells = shape[0] * math.ceil(shape[3] / lam) * math.ceil(shape[4] / lam)
    return [
        Case("swap_align2nat", why, shape, arguments, **kind),
        Case(
            "swap_align2nat_windows",
            why,
            shape,
            arguments,
            windows=cells + 3 if cells else 0,
            **kind,
        ),
    ]


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
    *_swap("the paper's sides, 15 and 11", (1, 15, 11, 6, 9), 4),
    *_swap("the top level's lam", (1, 2, 1, 33, 40), 32, 0.0),
    *_swap("strides of channels-last memory", (2, 3, 3, 6, 8), 2, strided=True),
    *_swap("no images", (0, 3, 3, 4, 4), 2),
    *_swap("no rows", (1, 3, 3, 0, 4), 2),
    Case(
        "swap_align2nat_windows",
        "no windows",
        (1, 3, 3, 4, 4),
        {"lam": 2, "pad_value": -6.0},
        windows=0,
    ),
    Case(
        "swap_align2nat_windows",
        "few windows of many",
        (2, 3, 3, 16, 16),
        {"lam": 2, "pad_value": -6.0},
        windows=5,
    ),
)


def _transform(
    op: str, why: str, shape: tuple[int, int, int, int, int], **arguments: Any
) -> Case:
    return Case(op, why, shape, arguments)


TRANSFORM_CASES = (
    _transform("align2nat", "equal units, odd V: a pure shift", (2, 3, 3, 5, 6)),
    _transform("align2nat", "equal units, V even, U odd", (1, 2, 3, 5, 4)),
    _transform("align2nat", "alpha 3", (1, 3, 2, 6, 5), sigma_vu=3, aligned_sigma_vu=3),
    _transform(
        "align2nat",
        "units swap: lam 2",
        (1, 3, 2, 6, 5),
        sigma_hw=2,
        aligned_sigma_hw=1,
        aligned_sigma_vu=2,
    ),
    _transform(
        "align2nat",
        "units in no whole ratio",
        (1, 3, 2, 5, 4),
        sigma_vu=1.5,
        sigma_hw=2,
        aligned_sigma_vu=1.5,
    ),
    _transform("nat2align", "equal units", (2, 3, 2, 5, 6), pad_value=1.0),
    _transform(
        "nat2align",
        "units swap back: lam 2",
        (1, 4, 2, 3, 4),
        sigma_hw=2,
        aligned_sigma_hw=1,
        aligned_sigma_vu=2,
    ),
    _transform("up_bilinear", "pad blended into the rim", (2, 3, 2, 3, 4), lam=2),
    _transform("up_bilinear", "real lam", (1, 4, 2, 2, 3), lam=1.5),
    _transform("up_bilinear", "border repeated", (1, 3, 2, 2, 3), lam=3, edge="clamp"),
    _transform("up_nearest", "whole lam", (2, 3, 2, 2, 3), lam=3),
    _transform("up_nearest", "real lam: uneven copies", (1, 4, 2, 2, 3), lam=1.5),
    _transform("up_align2nat", "pad on the rim and beyond the grid", (1, 3, 2, 5, 6), lam=2),
    _transform(
        "up_align2nat", "real lam, border repeated", (1, 2, 4, 4, 5), lam=2.5, edge="clamp"
    ),
    _transform("subsample", "starts at 0, keeps the last partial step", (2, 2, 3, 7, 5), lam=3),
)
CASES = SWAP_CASES + TRANSFORM_CASES


def scaled_error(got: np.ndarray, expected: np.ndarray, scale: float) -> float:
    """Largest |got - expected| / max(|expected|, 1 % of scale); 0 for empty arrays, inf for
    another shape."""
    if got.shape != expected.shape:
        return math.inf
    if expected.size == 0:
        return 0.0
    error = np.abs(got - expected) / np.maximum(np.abs(expected), 1e-2 * scale + 1e-300)
    return float(error.max()) if np.isfinite(got).all() else math.inf


@dataclass(frozen=True)
class Sample:
    """A case in numbers, float64 holding values of a smaller dtype, with the reference's
    answers."""

    x: np.ndarray
    grad: np.ndarray
    index: np.ndarray | None
    expected: np.ndarray
    expected_grad: np.ndarray


@cache
def sample(number: int, dtype: torch.dtype) -> Sample:
    """Case `number` of CASES for a dtype: inputs rounded to it, outputs and gradient of the
    reference."""
    case = CASES[number]
    random = np.random.default_rng(number)
    x = _rounded(random.uniform(-8, 8, case.shape), dtype)
    index = window_index(case, random)
    expected = reference_op(case, index)(x)
    grad = _rounded(random.uniform(-1, 1, expected.shape), dtype)
    return Sample(x, grad, index, expected, reference_gradient(case, index, grad))


def window_index(case: Case, random: np.random.Generator) -> np.ndarray | None:
    """(K, 3) cells: each once in random order, then some again; None for ops without
    windows."""
    if case.windows is None:
        return None
    lam = case.arguments["lam"]
    cells = np.array(
        list(np.ndindex(case.shape[0], -(-case.shape[3] // lam), -(-case.shape[4] // lam))),
        np.int64,
    )
    cells = random.permutation(cells.reshape(-1, 3))
    return np.concatenate([cells, cells[:3]])[: case.windows]


def reference_op(case: Case, index: np.ndarray | None) -> Callable[[np.ndarray], np.ndarray]:
    """The NumPy op of a case with its arguments."""
    op = getattr(reference, case.op)
    arguments = dict(case.arguments) if index is None else {**case.arguments, "index": index}
    return lambda x: op(x, **arguments)


def reference_gradient(case: Case, index: np.ndarray | None, grad: np.ndarray) -> np.ndarray:
    """What the transposed op makes of `grad`."""
    if case.op == "swap_align2nat":
        return reference.swap_align2nat_adjoint(grad, case.arguments["lam"], *case.shape[3:])
    if index is not None:
        return reference.swap_align2nat_windows_adjoint(
            grad, case.arguments["lam"], index, case.shape
        )
    return _transposed_transform(case, grad)


def _transposed_transform(case: Case, grad: np.ndarray) -> np.ndarray:
    """The gradient from the definition of a matrix: column i is the op's answer to input i
    alone."""
    entries = math.prod(case.shape[1:])
    impulses = np.eye(entries).reshape(entries, *case.shape[1:])
    pad = {} if case.op in ("up_nearest", "subsample") else {"pad_value": 0.0}
    columns = getattr(reference, case.op)(impulses, **{**case.arguments, **pad})
    return np.tensordot(grad, columns, axes=(range(1, 5), range(1, 5))).reshape(case.shape)


def _rounded(values: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    return torch.from_numpy(values).to(dtype).double().numpy()


def run_case(
    number: int, implementation: str, device: str, dtype: torch.dtype
) -> dict[str, Any]:
    """One case by one implementation: errors of values and gradient, and whether two runs are
    bit-equal."""
    case, expected = CASES[number], sample(number, dtype)
    with ops.use(implementation):
        out, grad = _forward_backward(case, expected, device, dtype)
        again, grad_again = _forward_backward(case, expected, device, dtype)
    scale = max(np.abs(expected.x).max(initial=0), abs(case.pad_value))
    error = scaled_error(out.double().cpu().numpy(), expected.expected, scale)
    grad_scale = np.abs(expected.grad).max(initial=0)
    grad_error = scaled_error(grad.double().cpu().numpy(), expected.expected_grad, grad_scale)
    same = torch.equal(out, again) and torch.equal(grad, grad_again)
    passed = same and out.dtype == dtype and max(error, grad_error) <= LIMITS[dtype]
    return {
        "why": case.why,
        "error": error,
        "grad_error": grad_error,
        "same_bits": same,
        "passed": passed,
    }


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
        for name in ops.ORDER[kind]:
            yield kind, name, _missing(kind, name)


def _missing(kind: str, name: str) -> str:
    if kind == "cuda" and not torch.cuda.is_available():
        return "no CUDA device is visible to PyTorch"
    return ops.missing(name)


def check_ops(device: str = "all") -> dict[str, Any]:
    """Run the whole table on "cpu", "cuda" or "all".

    Returns {"passed", "results": a row per op x implementation x dtype with its cases,
    "not_run", "machine"}. Raises InputError if `device` is "cuda" and there is none.
    """
    if device not in ("cpu", "cuda", "all"):
        raise bad_input("device", "'cpu', 'cuda' or 'all'", repr(device))
    if device == "cuda" and not torch.cuda.is_available():
        raise bad_input(
            "device", "a CUDA device visible to PyTorch", "none", "check with --device cpu"
        )
    results, not_run = [], []
    for kind, name, reason in implementations(device):
        if reason:
            not_run.append({"device": kind, "implementation": name, "why": reason})
        else:
            results += [_row(op, name, kind, dtype) for op in _ops_of(name) for dtype in LIMITS]
    passed = all(row["passed"] for row in results)
    return {"passed": passed, "results": results, "not_run": not_run, "machine": machine()}


def _ops_of(implementation: str) -> list[str]:
    every = list(dict.fromkeys(case.op for case in CASES))
    return every if implementation == "formula" else list(KERNEL_OPS)


def _row(op: str, implementation: str, device: str, dtype: torch.dtype) -> dict[str, Any]:
    cases = [
        run_case(i, implementation, device, dtype)
        for i, case in enumerate(CASES)
        if case.op == op
    ]
    return {
        "op": op,
        "implementation": implementation,
        "device": device,
        "dtype": str(dtype).removeprefix("torch."),
        "limit": LIMITS[dtype],
        "error": max(case["error"] for case in cases),
        "grad_error": max(case["grad_error"] for case in cases),
        "same_bits": all(case["same_bits"] for case in cases),
        "passed": all(case["passed"] for case in cases),
        "cases": cases,
    }


def machine() -> dict[str, Any]:
    """Where figures come from: versions, threads, GPU, which implementations run."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "date": date.today().isoformat(),
        "tensormask_edu": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        # Where the compiled file lies is the machine's own business.
        "ops": {
            device: found | {"why": found["why"].split(", cached in")[0]}
            for device, found in ops.status().items()
        },
    }


def table(report: dict[str, Any]) -> str:
    """The report as text, a line per op x implementation x dtype."""
    header = ("op", "device", "by", "dtype", "cases", "error", "gradient", "limit", "bits", "")
    rows = [header, *map(_cells, report["results"])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines += ["", "not run here:" if report["not_run"] else "every implementation ran"]
    lines += [
        f"  {row['implementation']} on {row['device']}: {row['why']}"
        for row in report["not_run"]
    ]
    failed = [row for row in report["results"] if not row["passed"]]
    lines += [
        f"FAILED {row['op']} {row['dtype']}: {case['why']}"
        for row in failed
        for case in row["cases"]
        if not case["passed"]
    ]
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["op"],
        row["device"],
        row["implementation"],
        row["dtype"],
        str(len(row["cases"])),
        f"{row['error']:.1e}",
        f"{row['grad_error']:.1e}",
        f"{row['limit']:.1e}",
        "same" if row["same_bits"] else "DIFFER",
        "ok" if row["passed"] else "FAILED",
    )


def run(args: argparse.Namespace) -> int:
    """The command: print the table, write the JSON if asked. 0: all equal, 1: something
    differs."""
    report = check_ops(args.device)
    if args.json:
        write_json(args.json, report)
    print(table(report))
    return 0 if report["passed"] else 1
