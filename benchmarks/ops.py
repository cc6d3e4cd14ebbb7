"""How fast `swap_align2nat` is: against a copy of the same bytes, PyTorch formulas, and the
plain kernel.

    python benchmarks/ops.py --device cpu --json benchmarks/results/ops-cpu.json
    python benchmarks/ops.py --device cuda --json benchmarks/results/ops-gpu.json

One image at 800 x 1344 px has p2 = 200 x 336 cells; V = U = 15 and 11. "MB" are the needed
bytes: the input read once and the output written once. On a GPU the batch moves at least 1 GB,
so that no cache flatters it. Calls that are compared take turns. Every time is a median, from
the call to its result. The C library is told
to keep freed memory, as a running network does: else whether a call waits for new pages is left
to chance.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial

import torch
from formulas import strided_views
from torch import Tensor

from tensormask_edu import ops
from tensormask_edu.base.files import write_json
from tensormask_edu.commands.check_ops import machine
from tensormask_edu.ops import plain

HEIGHT, WIDTH = 200, 336
LAMS = (1, 2, 4, 8, 16, 32)
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in ops.KERNEL_DTYPES}
# Of 100 detections, how many lie on each level: small objects are the most.
SPLIT = dict(zip(LAMS, (40, 25, 15, 10, 7, 3), strict=True))
GPU_BYTES = 1 << 30
GPU_BUSY = 2_000_000  # clock cycles, about a millisecond: by then the call is in the queue
OPS = torch.ops.tensormask_edu


@dataclass
class Dense:
    """Milliseconds of one dense call, by what computes it."""

    device: str
    side: int
    lam: int
    dtype: str
    direction: str
    images: int
    needed_mb: float
    copy_ms: float
    clone_ms: float
    ms: dict[str, float] = field(default_factory=dict)

    @property
    def best(self) -> float:
        """The implementation that runs by default."""
        return self.ms[
            next(name for name in (*ops.ORDER[self.device], "formula") if name in self.ms)
        ]


@dataclass
class Windows:
    """Milliseconds of one windows call for K windows, beside what a user could do instead."""

    device: str
    side: int
    lam: int
    windows: int
    of: int
    ms: float
    dense_ms: float
    dense_and_copy_ms: float  # one after the other: the copy is of what the windows op returns


@dataclass
class Claim:
    """One promise: the worst figure, where it was measured, and whether it keeps the limit."""

    claim: str
    worst_at: str
    measured: float
    promised: str
    holds: bool


class Clock:
    """Times calls in `repeats` rounds: median milliseconds.

    Calls that take turns see the same moments of a shared machine. In each round every one runs
    once untimed, so that it finds the caches and the allocator as it leaves them, then timed; a
    short one again and again until ROUND_MS have passed. `queued`: on a GPU without what Python
    needs to launch it.
    """

    ROUND_MS = 1

    def __init__(self, device: str, repeats: int, queued: bool = False) -> None:
        self.device, self.repeats, self.queued = device, repeats, queued

    def __call__(self, call: Callable[[], object]) -> float:
        """One call by itself."""
        return self.turns({"": call})[""]

    def turns(self, calls: dict[str, Callable[[], object]]) -> dict[str, float]:
        """Calls that are compared, by name."""
        once = self._gpu if self.device == "cuda" else self._cpu
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(self.repeats):
            for name, call in calls.items():
                if len(calls) > 1 or not times[name]:
                    call()
                spent = 0.0
                while spent < self.ROUND_MS:
                    times[name].append(once(call))
                    spent += times[name][-1]
        return {name: statistics.median(measured) for name, measured in times.items()}

    @staticmethod
    def _cpu(call: Callable[[], object]) -> float:
        start = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - start)

    def _gpu(self, call: Callable[[], object]) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        if self.queued:
            torch.cuda._sleep(GPU_BUSY)
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)


def random(device: str, dtype: torch.dtype, *shape: int) -> Tensor:
    """Values of a usual size."""
    return torch.randn(shape, device=device, dtype=torch.float32).to(dtype)


def out_shape(x: Tensor, lam: int) -> tuple[int, ...]:
    """Shape of the dense output."""
    num, num_v, num_u, height, width = x.shape
    return num, lam * num_v, lam * num_u, -(-height // lam), -(-width // lam)


def images_for(device: str, side: int, dtype: torch.dtype) -> int:
    """One on a CPU; on a GPU enough that input and output together are 1 GB."""
    if device == "cpu":
        return 1
    return math.ceil(GPU_BYTES / (2 * side * side * HEIGHT * WIDTH * dtype.itemsize))


def dense_row(
    clock: Clock, side: int, lam: int, name: str, direction: str, others: bool
) -> Dense:
    """All implementations at one setting; `others` adds the formulas and the plain kernel."""
    dtype, device = DTYPES[name], clock.device
    images = images_for(device, side, dtype)
    x = random(device, dtype, images, side, side, HEIGHT, WIDTH)
    grad = random(device, dtype, *out_shape(x, lam))
    needed = (x.numel() + grad.numel()) * dtype.itemsize
    ms = clock.turns(
        {**copies(x, grad, direction), **implementations(x, grad, lam, direction, others)}
    )
    copy_ms, clone_ms = ms.pop("copy"), ms.pop("clone")
    return Dense(
        device, side, lam, name, direction, images, needed / 1e6, copy_ms, clone_ms, ms
    )


def copies(x: Tensor, grad: Tensor, direction: str) -> dict[str, Callable[[], object]]:
    """A copy of the needed bytes into a warm buffer; `clone` of the result, whose memory is
    new."""
    result = grad if direction == "forward" else x
    half = (x.numel() + grad.numel()) // 2
    source, target = x.new_zeros(half), x.new_zeros(half)
    return {"copy": lambda: target.copy_(source), "clone": result.clone}


def implementations(
    x: Tensor, grad: Tensor, lam: int, direction: str, others: bool
) -> dict[str, Callable[[], object]]:
    """What can run here, each forced while it runs."""
    forward = direction == "forward"

    def forced(name: str) -> object:
        with ops.use(name):
            if forward:
                return OPS.swap_align2nat(x, lam, -6.0)
            return OPS.swap_align2nat_adjoint(grad, lam, HEIGHT, WIDTH)

    calls: dict[str, Callable[[], object]] = {
        name: partial(forced, name)
        for name in ops.ORDER[x.device.type]
        if not ops.missing(name) and (others or name != "formula")
    }
    if others:
        calls["strided views"] = _strided(x, grad, lam, forward)
    if others and x.dtype == torch.float32 and plain.available(x.device.type):
        calls["plain kernel"] = lambda: (
            plain.forward(x, lam, -6.0) if forward else plain.backward(grad, lam, HEIGHT, WIDTH)
        )
    return calls


def _strided(x: Tensor, grad: Tensor, lam: int, forward: bool) -> Callable[[], object]:
    if forward:
        return lambda: strided_views(x, lam, -6.0)
    leaf = x.clone().requires_grad_()
    out = strided_views(leaf, lam, -6.0)
    return lambda: torch.autograd.grad(out, leaf, grad, retain_graph=True)


def windows_rows(clock: Clock, side: int, lams: list[int]) -> list[Windows]:
    """The windows op over K, up to every window of the level, against the dense op. float32,
    one image.

    The calls are short, so all of them take turns: a slow moment of the machine meets every row
    alike.
    """
    x = random(clock.device, torch.float32, 1, side, side, HEIGHT, WIDTH)
    calls: dict[str, Callable[[], object]] = {}
    settings: list[tuple[int, int, int]] = []
    for lam in lams:
        _, num_v, num_u, height, width = out_shape(x, lam)
        every = height * width
        masks, dense = (
            x.new_zeros(every, num_v, num_u),
            partial(OPS.swap_align2nat, x, lam, -6.0),
        )
        counts = {SPLIT[lam], 100, every // 8, every // 2, every}
        for count in sorted(count for count in counts if 1 <= count <= every):
            cells = torch.randperm(every)[:count]
            index = torch.stack([torch.zeros_like(cells), cells // width, cells % width], 1).to(
                clock.device
            )
            calls[f"dense {lam} {count}"] = dense
            calls[f"both {lam} {count}"] = partial(both, dense, masks[:count].clone)
            calls[f"windows {lam} {count}"] = partial(
                OPS.swap_align2nat_windows, x, lam, index, -6.0
            )
            settings.append((lam, count, every))
    ms = clock.turns(calls)
    times = [
        [ms[f"{what} {lam} {count}"] for what in ("windows", "dense", "both")]
        for lam, count, _ in settings
    ]
    return [
        Windows(clock.device, side, *row, *took)
        for row, took in zip(settings, times, strict=True)
    ]


def both(first: Callable[[], object], second: Callable[[], object]) -> tuple[object, object]:
    """One call after the other."""
    return first(), second()


def claims(dense: list[Dense], windows: list[Windows]) -> list[Claim]:
    """What the project promises, each with the worst figure measured and where."""
    found: list[Claim] = []
    for side in dict.fromkeys(row.side for row in dense):
        rows = [row for row in dense if row.side == side]
        found += cpu_claims(rows) if rows[0].device == "cpu" else gpu_claims(rows)
        found += windows_claims([row for row in windows if row.side == side])
    return found


def cpu_claims(rows: list[Dense]) -> list[Claim]:
    """Forward, float32, against `clone` of the output and the better formula."""
    rows = [
        row
        for row in rows
        if row.direction == "forward" and row.dtype == "float32" and "cpu" in row.ms
    ]
    large = [row for row in rows if row.lam >= 2 and "strided views" in row.ms]
    cost = {at(row): row.ms["cpu"] / row.clone_ms for row in rows}
    gain = {
        at(row): min(row.ms["formula"], row.ms["strided views"]) / row.ms["cpu"]
        for row in large
    }
    return [
        *at_most("cpu forward / clone of its output", cost, 2.5),
        *at_least("cpu forward, times faster than the better formula, lam >= 2", gain, 4),
    ]


def gpu_claims(rows: list[Dense]) -> list[Claim]:
    """Fractions of the copy bandwidth, flatness in lam, and the plain kernel."""
    rows = [row for row in rows if "cuda" in row.ms and row.dtype in ("float32", "float16")]
    share = {
        d: {at(r): r.copy_ms / r.ms["cuda"] for r in rows if r.direction == d}
        for d in ("forward", "backward")
    }
    forward = [row for row in rows if row.direction == "forward" and row.dtype == "float32"]
    per_mb = {row.lam: row.ms["cuda"] / row.needed_mb for row in forward}
    flat = {f"lam {lam}": cost / min(per_mb.values()) for lam, cost in per_mb.items()}
    top = [row for row in forward if row.lam == 32 and "plain kernel" in row.ms]
    return [
        *at_least("forward, fraction of the copy bandwidth", share["forward"], 0.80),
        *at_least("backward, fraction of the copy bandwidth", share["backward"], 0.65),
        *at_most("forward, time per byte / that of the fastest lam", flat, 1.3),
        *at_least(
            "times faster than the plain kernel",
            {at(r): r.ms["plain kernel"] / r.ms["cuda"] for r in top},
            8,
        ),
    ]


def windows_claims(rows: list[Windows]) -> list[Claim]:
    """Any number of windows against dense; on a CPU 100 windows over six levels too."""
    chosen = [row for row in rows if row.windows == SPLIT[row.lam]]
    if len(chosen) < len(LAMS):
        return []
    cost = {f"{at(row)}, {row.windows} windows": row.ms / row.dense_and_copy_ms for row in rows}
    found = at_most("windows op / dense and a copy of its output", cost, 1.2)
    if (
        chosen[0].device == "cpu"
    ):  # on a GPU the six calls last as long as it takes to launch them
        gain = sum(row.dense_ms for row in chosen) / sum(row.ms for row in chosen)
        text = "100 windows over six levels, times faster than dense"
        found = [*at_least(text, {at(chosen[0], lam=False): gain}, 20), *found]
    return found


def at(row: Dense | Windows, lam: bool = True) -> str:
    """Where a figure was measured."""
    words = [f"V = {row.side}", f"lam {row.lam}" if lam else "", getattr(row, "dtype", "")]
    return ", ".join(word for word in words if word)


def at_most(text: str, measured: dict[str, float], limit: float) -> list[Claim]:
    """The promise that none of the figures is above the limit; nothing if there is no
    figure."""
    where = max(measured, key=measured.__getitem__, default=None)
    return (
        []
        if where is None
        else [Claim(text, where, measured[where], f"<= {limit}", measured[where] <= limit)]
    )


def at_least(text: str, measured: dict[str, float], limit: float) -> list[Claim]:
    """The promise that none of the figures is below the limit; nothing if there is no
    figure."""
    where = min(measured, key=measured.__getitem__, default=None)
    return (
        []
        if where is None
        else [Claim(text, where, measured[where], f">= {limit}", measured[where] >= limit)]
    )


def dense_table(rows: list[Dense]) -> str:
    """A line per setting: ms of everything, fraction of the copy bandwidth of the default
    implementation."""
    names = list(dict.fromkeys(name for row in rows for name in row.ms))
    header = [
        "side",
        "lam",
        "dtype",
        "pass",
        "MB",
        "copy",
        "clone",
        *names,
        "of copy",
        "of clone",
    ]
    lines = [header]
    for row in rows:
        times = [f"{row.ms[name]:.2f}" if name in row.ms else "-" for name in names]
        share = [f"{100 * row.copy_ms / row.best:.0f}%", f"{row.best / row.clone_ms:.2f}x"]
        first = [str(row.side), str(row.lam), row.dtype, row.direction, f"{row.needed_mb:.0f}"]
        lines.append([*first, f"{row.copy_ms:.2f}", f"{row.clone_ms:.2f}", *times, *share])
    return aligned(lines)


def windows_table(rows: list[Windows]) -> str:
    """A line per number of windows."""
    lines = [["side", "lam", "windows", "of", "ms", "dense", "dense, copy", "of both"]]
    for row in rows:
        ratio = row.ms / row.dense_and_copy_ms
        times = [
            f"{value:.3f}" for value in (row.ms, row.dense_ms, row.dense_and_copy_ms, ratio)
        ]
        lines.append([str(row.side), str(row.lam), str(row.windows), str(row.of), *times])
    return aligned(lines)


def claims_table(rows: list[Claim]) -> str:
    """A line per promise."""
    lines = [["promise", "worst at", "measured", "promised", ""]]
    for row in rows:
        word = "holds" if row.holds else "DOES NOT HOLD"
        lines.append([row.claim, row.worst_at, f"{row.measured:.2f}", row.promised, word])
    return aligned(lines)


def aligned(lines: list[list[str]]) -> str:
    """Columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines
    )


def keep_memory() -> None:
    """Freed memory stays with the process (glibc; elsewhere nothing is changed)."""
    trim_threshold, mmap_max = -1, -4  # glibc's numbers of the two settings
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(trim_threshold, -1)
        mallopt(mmap_max, 0)


def measure(args: argparse.Namespace) -> tuple[list[Dense], list[Windows]]:
    """Everything asked for, each dense line printed as it comes."""
    clock = Clock(args.device, args.repeats, queued=True)
    dense, windows = [], []
    for side in args.sides:
        for name in args.dtypes:
            for lam in args.lams:
                for direction in ("forward", "backward"):
                    dense.append(
                        dense_row(
                            clock, side, lam, name, direction, others=name in args.compare
                        )
                    )
                    print(dense_table(dense[-1:]).splitlines()[1], flush=True)
        windows += windows_rows(
            Clock(args.device, 3 * args.repeats, queued=True), side, args.lams
        )
    return dense, windows


def main() -> int:
    """Measure, print the tables and the promises; 0 if all promises hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--sides", type=int, nargs="+", default=[15, 11], help="V = U")
    parser.add_argument("--lams", type=int, nargs="+", default=list(LAMS), choices=LAMS)
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=DTYPES)
    parser.add_argument(
        "--compare",
        nargs="*",
        default=["float32"],
        choices=DTYPES,
        help="formulas too, for these",
    )
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--json", metavar="FILE", help="write everything here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_memory()
    with torch.no_grad() if args.device == "cuda" else torch.enable_grad():
        dense, windows = measure(args)
    promises = claims(dense, windows)
    if args.json:
        parts = {"dense": dense, "windows": windows, "claims": promises}
        write_json(
            args.json,
            {"machine": machine(), **{k: [asdict(row) for row in v] for k, v in parts.items()}},
        )
    print(dense_table(dense), windows_table(windows), claims_table(promises), sep="\n\n")
    return 0 if all(promise.holds for promise in promises) else 1


if __name__ == "__main__":
    raise SystemExit(main())
