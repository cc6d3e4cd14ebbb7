"""`tensormask-edu check-ops --device ptx`: the GPU's own code, executed on this CPU.

Every kernel that can compute a case, not only the one that would be chosen, for every dtype:
its numbers against the reference, and what it must not do: leave a tensor, race, diverge at a
barrier, read what was never written. Then what the dense kernels cost at paper size, and how
long two GPUs would take at least. Needs NVRTC and a C++ compiler, no GPU and no driver.

next: commands/doctor.py
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..base.files import check_report, write_json
from ..base.tables import text_table
from ..ops import cuda
from ..ops.ptx.estimate import CARDS, costs, figures
from ..ops.ptx.execute import Run, execute
from ..ops.ptx.text import Ptx, kernels
from .check_ops import CASES, KERNEL_OPS, LIMITS, Row, machine, sample, scaled_error

NUMBERS = tuple(number for number, case in enumerate(CASES) if case.op in KERNEL_OPS)
# One image at the finest level, p2 of 800 x 1344 pixels; so many blocks of the grid tell.
PAPER, LAMS, SAMPLED = (1, 15, 15, 200, 336), (1, 2, 4, 8, 16, 32), 48
ESTIMATED = "sm_90"  # the architecture of the estimates' cards


def calls(number: int, dtype: torch.dtype) -> Iterator[tuple[cuda.Call, np.ndarray, float]]:
    """Every call of a kernel that case `number` can be computed by.

    Yields (call, what it should write, the scale of errors); none for an empty tensor.
    """
    case, wanted = CASES[number], sample(number, dtype)
    lam, pad_value = case.arguments["lam"], case.pad_value
    x, grad = (torch.from_numpy(a).to(dtype).contiguous() for a in (wanted.x, wanted.grad))
    scale = max(np.abs(wanted.x).max(initial=0), abs(pad_value))
    if not x.numel() or not grad.numel():
        return
    if wanted.index is None:
        forward = cuda.forward_calls(x, lam, pad_value, _unwritten(grad))
        backward = cuda.backward_calls(grad, lam, _unwritten(x))
    else:
        index = torch.from_numpy(wanted.index)
        forward = cuda.forward_windows_calls(x, lam, index, pad_value, _unwritten(grad))
        backward = cuda.backward_windows_calls(grad, lam, index, torch.zeros_like(x))
    for call in forward:
        yield call, wanted.expected, scale
    for call in backward:
        yield call, wanted.expected_grad, np.abs(wanted.grad).max()


def _unwritten(like: Tensor) -> Tensor:
    return torch.full_like(like, torch.nan)


def run_case(number: int, dtype: torch.dtype, ptx: Ptx) -> Iterator[tuple[cuda.Call, Run, Row]]:
    """Each kernel's run of a case: (call, run, row of the report)."""
    for call, expected, scale in calls(number, dtype):
        # Kernels of one case share the tensor they write.
        call.tensors[-1].fill_(0 if "windows" in call.kernel else torch.nan)
        run = execute(ptx, call)
        error = scaled_error(call.tensors[-1].double().numpy(), expected, scale)
        passed = error <= LIMITS[dtype] and not run.faults
        yield call, run, {"why": CASES[number].why, "error": error, "passed": passed}


def check_ptx(
    dtypes: Sequence[torch.dtype] = tuple(LIMITS),
    numbers: Sequence[int] = NUMBERS,
    lams: Sequence[int] = LAMS,
) -> dict[str, Any]:
    """Run the table: of `CASES` the `numbers`, and the costs at these `lams`.

    Returns {"passed", "results": a row per kernel x dtype, "costs": a row per kernel x dtype x
    lam, "machine"}. Raises InputError if NVRTC, a header or a C++ compiler is missing.
    """
    results: list[Row] = []
    costs: list[Row] = []
    for dtype in dtypes:
        ptx = kernels(dtype)
        results += _rows(dtype, ptx, numbers)
        costs += [row for lam in lams for row in cost_rows(dtype, ptx, lam)]
    passed = all(row["passed"] for row in results)
    return {"passed": passed, "results": results, "costs": costs, "machine": machine()}


def _rows(dtype: torch.dtype, ptx: Ptx, numbers: Sequence[int]) -> list[Row]:
    """A row per kernel: its worst error, its faults, what it cost over all cases."""
    rows: dict[str, Row] = {}
    for number in numbers:
        for call, run, case in run_case(number, dtype, ptx):
            name = " ".join([call.kernel, *map(str, call.parameters)])
            row = rows.setdefault(name, _empty_row(name, dtype))
            row["cases"] += 1
            row["error"] = max(row["error"], case["error"])
            row["faults"] += sum(run.faults.values())
            row["first"] = (row["first"] + run.first)[:3]
            row["wrong"] += [] if case["passed"] else [case["why"]]
            row["passed"] &= case["passed"]
            counts = run.counts
            row["instructions"] += counts.instructions
            row["sectors"] += counts.global_load.moved + counts.global_store.moved
            row["fewest_sectors"] += counts.global_load.fewest + counts.global_store.fewest
            row["waves"] += counts.shared_load.moved + counts.shared_store.moved
            row["fewest_waves"] += counts.shared_load.fewest + counts.shared_store.fewest
    return list(rows.values())


def _empty_row(kernel: str, dtype: torch.dtype) -> Row:
    row: Row = {"kernel": kernel, "dtype": _name(dtype), "limit": LIMITS[dtype], "cases": 0}
    row |= {"error": 0.0, "faults": 0, "first": [], "wrong": [], "passed": True}
    kinds = ("instructions", "sectors", "fewest_sectors", "waves", "fewest_waves")
    return row | dict.fromkeys(kinds, 0)


def cost_rows(
    dtype: torch.dtype, ptx: Ptx, lam: int, shape: tuple[int, ...] = PAPER
) -> Iterator[Row]:
    """What the dense kernels cost, forward and backward, from some of the grid's blocks."""
    n, v, u, height, width = shape
    x = torch.zeros(shape, dtype=dtype)
    out = x.new_zeros(n, lam * v, lam * u, -(-height // lam), -(-width // lam))
    for found in (cuda.forward_calls(x, lam, -6.0, out), cuda.backward_calls(out, lam, x)):
        call = next(found)
        # An odd step, so that blocks of every kind come: rows, ends of rows, rims.
        every = max(1, call.launch.blocks // SAMPLED) | 1
        run = execute(ptx, call, every, races=False)
        used = _usage(dtype).get(call.spelled.replace("swap_align2nat::", ""))
        registers = used.registers if used else 0
        row: Row = {"kernel": call.kernel, "dtype": _name(dtype), "lam": lam}
        row |= figures(call, run, every, registers) | {"faults": sum(run.faults.values())}
        yield row | {"costs": costs(call, run, every, registers)._asdict()}


@cache
def _usage(dtype: torch.dtype) -> dict[str, cuda.Usage]:
    """What the kernels of a dtype use of the GPU of the estimates, where it can be told."""
    try:
        return cuda.compile_all(ESTIMATED, [dtype])
    except ImportError:  # PTX needs cuda-bindings alone, the assembler cuda-core
        return {}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# --- as text ----------------------------------------------------------------------------------


def table(report: dict[str, Any]) -> str:
    """The report as text: right or wrong, what it costs, and where the first faults are."""
    lines = [text_table([RESULT_HEAD, *map(_result_cells, report["results"])])]
    if report["costs"]:
        lines += ["", f"at {PAPER}, from {SAMPLED} blocks; shares of the memory's bandwidth:"]
        lines += ["", text_table([COST_HEAD, *map(_cost_cells, report["costs"])])]
    for row in report["results"]:
        lines += [f"FAILED {row['kernel']} {row['dtype']}: {why}" for why in row["wrong"]]
        lines += row["first"]
    return "\n".join(lines)


RESULT_HEAD = (
    "kernel", "dtype", "cases", "error", "limit", "faults", "instructions", "sectors", "waves",
    "",
)  # fmt: skip
COST_HEAD = (
    "kernel", "dtype", "lam", "instructions/element", "lanes", "loaded", "stored", "waves",
    "registers", "warps", *CARDS,
)  # fmt: skip


def _result_cells(row: Row) -> tuple[str, ...]:
    verdict = "ok" if row["passed"] else "FAILED"
    sectors, waves = (
        f"{row[kind]} ({row[kind] / max(1, row[f'fewest_{kind}']):.2f})"
        for kind in ("sectors", "waves")
    )
    errors = (f"{row['error']:.1e}", f"{row['limit']:.1e}", str(row["faults"]))
    names = (row["kernel"], row["dtype"], str(row["cases"]))
    return (*names, *errors, str(row["instructions"]), sectors, waves, verdict)


def _cost_cells(row: Row) -> tuple[str, ...]:
    numbers = (f"{row[key]:.2f}" for key in ("loaded", "stored", "waves"))
    cards = (f"{row[f'{card}_share']:.2f} {row[f'{card}_bound']}" for card in CARDS)
    names = (row["kernel"], row["dtype"], str(row["lam"]))
    counts = (f"{row['registers'] or '-'}", f"{row['warps']}")
    instructions, lanes = f"{row['instructions']:.0f}", f"{row['lanes']:.0f}"
    return (*names, instructions, lanes, *numbers, *counts, *cards)


def run(args: argparse.Namespace) -> int:
    """Print the tables, write the JSON if asked. 0: all right, 1: something is not."""
    check_report(args.json)
    report = check_ptx()
    if args.json:
        write_json(args.json, report)
    print(table(report))
    return 0 if report["passed"] else 1
