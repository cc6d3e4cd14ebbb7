"""How fast `swap_align2nat` is: against a copy, PyTorch formulas, and the plain kernel.

    python benchmarks/ops.py --device cpu --json benchmarks/results/ops-cpu.json
    python benchmarks/ops.py --device cuda --json benchmarks/results/ops-gpu.json

One image at 800 x 1344 px has p2 = 200 x 336 cells; V = U = 15 and 11. "MB" are the needed
bytes: the input read once and the output written once. On a GPU the batch moves at least 1 GB,
so that no cache flatters it. Calls that are compared take turns. Every time is a median, from
the call to its result. The C library is told to keep freed memory, as a running network does:
else whether a call waits for new pages is left to chance. Exit code 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from device import Calls, Clock
from measure import facts, script_parser, settle_threads, table
from torch import Tensor

from tensormask_edu import ops
from tensormask_edu.base.files import write_json
from tensormask_edu.ops import plain

CELLS = (200, 336)
PAD_VALUE = -6.0
LAMS = (1, 2, 4, 8, 16, 32)
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in ops.KERNEL_DTYPES}
# Of 100 detections, how many lie on each level: small objects are the most.
SPLIT = dict(zip(LAMS, (40, 25, 15, 10, 7, 3), strict=True))
GPU_BYTES = 1 << 30
SAME = 1e-5  # of the largest value: a few roundings of float32
OPS = torch.ops.tensormask_edu
Row = dict[str, Any]
Cells = tuple[int, int]  # H, W of the input's grid


# --- a formula, beside that of `ops/formula.py` -----------------------------------------------


def strided_views(x: Tensor, lam: int, pad_value: float) -> Tensor:
    """The op as four weighted views of a padded copy.

    (N, V, U, H, W) -> (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam)).
    With v = lam*p + phase - lead, lead = (lam+1)//2, bin v reads entries p-1 and p with weights
    that depend on the phase only, at row lam*(y+p) + phase - lam*V//2 - lead: each tap is one
    view with fixed strides.
    """
    num, num_v, num_u, height, width = x.shape
    lead = (lam + 1) // 2
    z = padded(x - pad_value, lam, lead)
    for axis, bins in ((3, num_v), (4, num_u)):
        if lam * bins % 2 == 0:
            last = z.shape[axis] - 1
            z = (z.narrow(axis, 0, last) + z.narrow(axis, 1, last)) / 2
    z = z.contiguous()
    _, sv, su, sy, sx = z.stride()
    size = (num, num_v + 1, lam, num_u + 1, lam, -(-height // lam), -(-width // lam))
    strides = (z.stride(0), sv + lam * sy, sy, su + lam * sx, sx, lam * sy, lam * sx)
    upper = (2 * torch.arange(lam, dtype=z.dtype, device=z.device) + 1 - lam % 2) / (2 * lam)
    weights = (1 - upper, upper)
    out = z.new_zeros(size)
    for i in (0, 1):
        for j in (0, 1):
            weight = weights[i].view(-1, 1, 1, 1, 1) * weights[j].view(-1, 1, 1)
            out.addcmul_(z.as_strided(size, strides, i * sv + j * su), weight)
    out = out.view(num, lam * (num_v + 1), lam * (num_u + 1), *size[5:])
    return out[:, lead : lead + lam * num_v, lead : lead + lam * num_u].contiguous() + pad_value


def padded(z: Tensor, lam: int, lead: int) -> Tensor:
    """Zeros around all four axes, wide enough for every row and column that a view touches."""
    _, num_v, num_u, height, width = z.shape
    before = [lam * bins // 2 + lead for bins in (num_v, num_u)]
    axes = ((num_v, height), (num_u, width))
    needed = [lam * (-(-cells // lam) + bins) + 1 for bins, cells in axes]
    after = [needed[0] - before[0] - height, needed[1] - before[1] - width]
    return F.pad(z, (before[1], max(after[1], 0), before[0], max(after[0], 0), 1, 1, 1, 1))


# --- dense ------------------------------------------------------------------------------------


def dense_row(
    clock: Clock, cells: Cells, side: int, lam: int, name: str, way: str, compare: bool
) -> Row:
    """Milliseconds by what computes it; `compare`: formulas and the plain kernel too."""
    dtype, device, images = DTYPES[name], clock.device, 1
    height, width = cells
    if device == "cuda":
        images = math.ceil(GPU_BYTES / (2 * side * side * height * width * dtype.itemsize))
    x = torch.randn(images, side, side, height, width, device=device).to(dtype)
    # (N, V, U, H, W) -> (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam))
    sizes = (lam * side, lam * side, -(-height // lam), -(-width // lam))
    grad = torch.randn(images, *sizes, device=device).to(dtype)
    needed = x.numel() + grad.numel()
    source, target = x.new_zeros(needed // 2), x.new_zeros(needed // 2)
    calls = implementations(x, grad, lam, way == "forward", compare)
    # `copy` goes into a warm buffer, `clone` of the result into new memory
    result = grad if way == "forward" else x
    ms = clock.turns({"copy": lambda: target.copy_(source), "clone": result.clone, **calls})
    row = {"device": device, "side": side, "lam": lam, "dtype": name, "direction": way}
    row |= {"images": images, "needed_mb": needed * dtype.itemsize / 1e6}
    row |= {"copy_ms": ms.pop("copy"), "clone_ms": ms.pop("clone"), "ms": ms}
    if compare:  # how far it is from the formula, as a part of the largest value
        found, expected = calls[best(device, calls)](), calls["formula"]()
        row["difference"] = ((found - expected).abs().max() / expected.abs().max()).item()
    return row


def flat(row: Row) -> Row:
    """A row for the table, with the default implementation beside a copy."""
    ms = row["ms"][best(row["device"], row["ms"])]
    share = {"of copy": row["copy_ms"] / ms, "of clone": ms / row["clone_ms"]}
    return {key: value for key, value in row.items() if key != "ms"} | row["ms"] | share


def implementations(x: Tensor, grad: Tensor, lam: int, forward: bool, compare: bool) -> Calls:
    """What can run here, each forced while it runs."""

    height, width = x.shape[3:]

    def forced(name: str) -> Tensor:
        with ops.use(name):
            if forward:
                return OPS.swap_align2nat(x, lam, PAD_VALUE)
            return OPS.swap_align2nat_adjoint(grad, lam, height, width)

    names = [name for name in ops.ORDER[x.device.type] if not ops.missing(name)]
    if not compare and len(names) > 1:
        names.remove("formula")
    calls: Calls = {name: partial(forced, name) for name in names}
    if compare and forward:
        calls["strided views"] = partial(strided_views, x, lam, PAD_VALUE)
    elif compare:
        with torch.enable_grad():
            leaf = x.clone().requires_grad_()
            given = strided_views(leaf, lam, PAD_VALUE), leaf, grad
        calls["strided views"] = partial(torch.autograd.grad, *given, retain_graph=True)
    if compare and x.dtype == torch.float32 and plain.available(x.device.type):
        calls["plain kernel"] = partial(plain.backward, grad, lam, height, width)
        if forward:
            calls["plain kernel"] = partial(plain.forward, x, lam, PAD_VALUE)
    return calls


def best(device: str, found: dict[str, Any]) -> str:
    """The implementation that runs by default."""
    return next(name for name in ops.ORDER[device] if name in found)


# --- windows ----------------------------------------------------------------------------------


def windows_rows(clock: Clock, cells: Cells, side: int, lams: Sequence[int]) -> list[Row]:
    """The windows op for a few windows and for all, beside the dense op: float32, one image."""
    x = torch.randn(1, side, side, *cells, device=clock.device)
    rows = []
    for lam in lams:
        height, width = (-(-cell // lam) for cell in cells)
        every = height * width
        calls: Calls = {"dense": partial(OPS.swap_align2nat, x, lam, PAD_VALUE)}
        for count in sorted({SPLIT[lam], 100, every}):
            if count <= every:
                at = torch.randperm(every)[:count]
                index = torch.stack([0 * at, at // width, at % width], dim=1)  # (K, 3)
                arguments = (x, lam, index.to(x.device), PAD_VALUE)
                calls[f"{count}"] = partial(OPS.swap_align2nat_windows, *arguments)
        where = {"device": clock.device, "side": side, "lam": lam}
        (_, dense_ms), *chosen = clock.turns(calls).items()
        for count, ms in chosen:
            times = {"windows": int(count), "of": every, "ms": ms, "dense_ms": dense_ms}
            rows.append(where | times)
    return rows


def windows_gain(rows: list[Row]) -> str:
    """What computing the windows of detections alone saves, in words: no promise."""
    chosen = [row for row in rows if row["windows"] == SPLIT[row["lam"]]]
    if {row["lam"] for row in chosen} != set(LAMS):
        return ""
    gain = sum(row["dense_ms"] for row in chosen) / sum(row["ms"] for row in chosen)
    return f"100 windows over six levels, times faster than dense: {gain:.1f}"


# --- promises ---------------------------------------------------------------------------------


def claims(dense: list[Row]) -> list[Row]:
    """What the project promises, each with the worst figure measured and where."""
    found = []
    for side in dict.fromkeys(row["side"] for row in dense):
        rows = [row for row in dense if row["side"] == side]
        single = [row for row in rows if row["dtype"] == "float32"]
        compared = [row for row in single if "difference" in row]
        same = {f"{at(row)}, {row['direction']}": row["difference"] for row in compared}
        found += claim("difference from the formula / largest value", same, "<=", SAME)
        found += cpu_claims(single) if rows[0]["device"] == "cpu" else gpu_claims(rows)
    return found


def cpu_claims(rows: list[Row]) -> list[Row]:
    """Forward, against `clone` of the output and the better formula."""
    rows = [row for row in rows if row["direction"] == "forward" and "cpu" in row["ms"]]
    large = [row for row in rows if row["lam"] >= 2 and "formula" in row["ms"]]
    cost = {at(row): row["ms"]["cpu"] / row["clone_ms"] for row in rows}
    formulas = {at(r): min(r["ms"]["formula"], r["ms"]["strided views"]) for r in large}
    gain = {at(row): formulas[at(row)] / row["ms"]["cpu"] for row in large}
    faster = "cpu forward, times faster than the better formula, lam >= 2"
    found = claim("cpu forward / clone of its output", cost, "<=", 2.5)
    return found + claim(faster, gain, ">=", 4)


def gpu_claims(rows: list[Row]) -> list[Row]:
    """Fractions of the copy bandwidth, flatness in lam, and the plain kernel."""
    rows = [r for r in rows if "cuda" in r["ms"] and r["dtype"] in ("float32", "float16")]
    found = []
    for way, least in (("forward", 0.80), ("backward", 0.65)):
        chosen = [row for row in rows if row["direction"] == way]
        share = {at(row): row["copy_ms"] / row["ms"]["cuda"] for row in chosen}
        found += claim(f"{way}, fraction of the copy bandwidth", share, ">=", least)
    forward = [r for r in rows if r["direction"] == "forward" and r["dtype"] == "float32"]
    per_mb = {at(row): row["ms"]["cuda"] / row["needed_mb"] for row in forward}
    flat = {where: cost / min(per_mb.values()) for where, cost in per_mb.items()}
    top = [row for row in forward if row["lam"] == 32 and "plain kernel" in row["ms"]]
    gain = {at(row): row["ms"]["plain kernel"] / row["ms"]["cuda"] for row in top}
    found += claim("forward, time per byte / that of the fastest lam", flat, "<=", 1.3)
    return found + claim("times faster than the plain kernel", gain, ">=", 8)


def at(row: Row) -> str:
    """Where a figure was measured."""
    return f"V = {row['side']}, lam {row['lam']}, {row['dtype']}"


def claim(text: str, figures: dict[str, float], sign: str, limit: float) -> list[Row]:
    """The promise that every figure is `sign` the limit; none where nothing was measured."""
    if not figures:
        return []
    choose = max if sign == "<=" else min
    where, worst = choose(figures.items(), key=lambda found: found[1])
    holds = worst <= limit if sign == "<=" else worst >= limit
    row = {"claim": text, "worst_at": where, "measured": worst}
    return [{**row, "promised": f"{sign} {limit}", "holds": holds}]


# --- command line -----------------------------------------------------------------------------


def keep_memory() -> None:
    """Freed memory stays with the process (glibc; elsewhere nothing is changed)."""
    trim_threshold, mmap_max = -1, -4  # glibc's numbers of the two settings
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(trim_threshold, -1)
        mallopt(mmap_max, 0)


def measure(args: argparse.Namespace) -> tuple[list[Row], list[Row]]:
    """Everything asked for, each dense line printed as it comes."""
    clock, dense, windows = Clock(args.device, args.repeats, queued=True), [], []
    directions = ("forward", "backward")
    for side in args.sides:
        for name, lam, way in itertools.product(args.dtypes, args.lams, directions):
            row = dense_row(clock, args.cells, side, lam, name, way, name in args.compare)
            dense.append(row)
            print(table([flat(row)]).splitlines()[1], flush=True)
        windows += windows_rows(clock, args.cells, side, args.lams)
    return dense, windows


def main() -> int:
    """Measure, print the tables and the promises; 0 if all promises hold."""
    parser = script_parser(__doc__, repeats=5)
    add, also = parser.add_argument, "formulas too, for these"
    add("--sides", type=int, nargs="+", default=[15, 11], help="V = U")
    add("--cells", type=int, nargs=2, default=CELLS, metavar=("H", "W"), help="of the grid")
    add("--lams", type=int, nargs="+", default=list(LAMS), choices=LAMS)
    add("--dtypes", nargs="+", default=list(DTYPES), choices=DTYPES)
    add("--compare", nargs="*", default=["float32"], choices=DTYPES, help=also)
    args = parser.parse_args()
    args.threads = settle_threads(args.threads)
    keep_memory()
    with torch.no_grad():
        dense, windows = measure(args)
    promises = claims(dense)
    if args.json:
        parts = {"dense": dense, "windows": windows, "claims": promises}
        write_json(args.json, {"machine": facts(), **parts})
    tables = map(table, (map(flat, dense), windows, promises))
    print(*tables, windows_gain(windows), sep="\n\n")
    return 0 if all(promise["holds"] for promise in promises) else 1


if __name__ == "__main__":
    raise SystemExit(main())
