"""Checks of the operators and their kernels that only a device can make.

`operators`: every implementation and dtype against the NumPy loops, the official kernel's
numbers, derivatives. `kernels`: the same bits in every run, streams, graphs, no waiting, more
elements than 32 bits count. Each check is a function, which `tests/gpu` calls too.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from gpu.task import NotHere, Row, Task, attempt
from tensormask_edu import ops
from tensormask_edu.commands.check_ops import (
    GOLDEN_FILE,
    golden_cases,
    golden_error,
    implementations,
    rows_of,
)
from tensormask_edu.ops import cuda, formula

PAD_VALUE = -6.0
OFFICIAL = 1e-5  # float32 against the official numbers, absolute: values reach 6
HALF = 1e-2  # float16 against float32, absolute: values reach 6, where a step is 4e-3
BUSY_MS = 250.0  # as long as some hundred calls take
# Bytes of three float16 tensors of `elements`, and a little more
ROOM = 3 * 2 * 1.2


# --- against the definitions ------------------------------------------------------------------


def operators(task: Task) -> Iterator[Row]:
    """A row per operator, implementation and dtype, then what else is known of the numbers."""
    dtypes = [getattr(torch, name) for name in task.sizes.dtypes]
    for kind, name, why in implementations(task.device.kind):
        if why:
            yield {"name": f"{name} on {kind}", "skipped": why}
        else:
            yield from map(against_loops, rows_of(kind, name, dtypes))
    yield attempt(task, "the official kernel's numbers", official)
    yield attempt(task, "first and second derivatives", derivatives)


def against_loops(row: Row) -> Row:
    """A row of `check-ops` as one of ours."""
    name = f"{row['op']}, {row['implementation']}, {row['dtype']}"
    kept = {key: row[key] for key in ("error", "grad_error", "limit", "same_bits")}
    wrong = [case["why"] for case in row["cases"] if not case["passed"]]
    return {"name": name, "ok": row["passed"], **kept, "why": "; ".join(wrong)}


def official(task: Task) -> Row:
    """The official kernel's values and gradients, on the device."""
    if not GOLDEN_FILE.is_file():
        raise NotHere("its numbers lie in a checkout's tests/data")
    error = max(golden_error(case, task.device.kind) for case in golden_cases())
    assert error <= OFFICIAL, error
    return {"error": error}


def derivatives(task: Task) -> None:
    """Both ops against differences of their own values, in float64."""
    for lam, shape in ((1, (1, 2, 3, 2, 3)), (2, (1, 2, 1, 3, 3))):
        x = torch.randn(shape, dtype=torch.float64, device=task.device.kind, requires_grad=True)
        index = some_cells(x, lam, 3)
        for call, arguments in (
            (ops.swap_align2nat, (x, lam, PAD_VALUE)),
            (ops.swap_align2nat_windows, (x, lam, index, PAD_VALUE)),
        ):
            assert torch.autograd.gradcheck(call, arguments)
            assert torch.autograd.gradgradcheck(call, arguments)


# --- on the device ----------------------------------------------------------------------------


def kernels(task: Task) -> Iterator[Row]:
    """A row per check of the kernels at paper size."""
    yield attempt(task, "every kernel compiles", compiled)
    halves = [name for name in task.sizes.dtypes if name != "float64"][:2]
    for name, lam in itertools.product(halves, task.sizes.lams):
        title = f"the same bits in {task.sizes.runs} runs, {name}, lam {lam}"
        yield attempt(task, title, same_bits, lam, name)
    yield attempt(task, "a stream of its own waits for what came before", stream)
    yield attempt(task, "a recorded graph computes new input", graph)
    yield attempt(task, "no call waits for the device", no_waiting)
    yield attempt(task, "more elements than 32 bits count", beyond_32_bits)


def paper_input(task: Task, dtype: str = "float32") -> Tensor:
    """One image at paper size: (1, V, U, H, W)."""
    side, kind = task.sizes.sides[0], task.device.kind
    generator = torch.Generator(kind).manual_seed(0)
    x = torch.randn(1, side, side, *task.sizes.cells, device=kind, generator=generator)
    return x.to(getattr(torch, dtype))


def middle(lams: tuple[int, ...]) -> int:
    """The one where there is most of everything: taps, slots, cells."""
    return lams[len(lams) // 2]


def some_cells(x: Tensor, lam: int, count: int) -> Tensor:
    """Random cells of the output's grid, repeats likely: (K, 3)."""
    rows, columns = -(-x.shape[3] // lam), -(-x.shape[4] // lam)
    ends = torch.tensor([x.shape[0], rows, columns], device=x.device)
    return (torch.rand(count, 3, device=x.device) * ends).long()


def all_four(task: Task, x: Tensor, lam: int, index: Tensor) -> list[Tensor]:
    """The results of the four functions, backward ones fed with the forward ones."""
    ours = task.device.kernels()
    out = ours.forward(x, lam, PAD_VALUE)
    windows = ours.forward_windows(x, lam, index, PAD_VALUE)
    grad = ours.backward(out, lam, *x.shape[3:])
    return [out, windows, grad, ours.backward_windows(windows, lam, index, x.shape)]


def compiled(task: Task) -> Row:
    """Registers and spills of every kernel, as this GPU's assembler reports them."""
    major, _, minor = task.device.facts().get("capability", "9.0").partition(".")
    dtypes = [getattr(torch, name) for name in task.sizes.dtypes]
    try:
        usage = cuda.compile_all(f"sm_{major}{minor}", dtypes)
    except ModuleNotFoundError as error:
        raise NotHere(f"{error}: cuda-core compiles them") from None
    spilled = [name for name, used in usage.items() if used.spilled_bytes]
    assert not spilled, spilled
    return {"usage": {name: used._asdict() for name, used in usage.items()}}


def same_bits(task: Task, lam: int, dtype: str) -> None:
    """No result depends on the order in which blocks happen to run."""
    x = paper_input(task, dtype)
    index = some_cells(x, lam, 100)
    first = all_four(task, x, lam, index)
    for _ in range(task.sizes.runs - 1):
        assert all(map(torch.equal, first, all_four(task, x, lam, index)))


def stream(task: Task) -> None:
    """The kernels go into PyTorch's current stream: what fills their input comes before."""
    x, lam, ours = paper_input(task), middle(task.sizes.lams), task.device.kernels()
    expected = ours.forward(2 * x, lam, PAD_VALUE)
    task.device.wait()
    with task.device.stream_of_its_own():
        task.device.keep_busy(25)
        got = ours.forward(2 * x, lam, PAD_VALUE)
    assert torch.equal(got, expected)


def graph(task: Task) -> None:
    """What was recorded once computes whatever its input holds later."""
    x, lam = paper_input(task), middle(task.sizes.lams)
    index = some_cells(x, lam, 50)
    results, again = task.device.recorded(lambda: all_four(task, x, lam, index))
    x.mul_(-0.5)
    again()
    assert all(map(torch.equal, results, all_four(task, x, lam, index)))


def no_waiting(task: Task) -> Row:
    """Calls return while the device is still busy with what came before."""
    x, device = paper_input(task), task.device
    lam = task.sizes.lams[1]
    index = some_cells(x, lam, 50)
    all_four(task, x, lam, index)
    device.wait()
    with device.no_waiting():
        device.keep_busy(BUSY_MS)
        start = time.perf_counter()
        all_four(task, x, lam, index)
        queued = time.perf_counter() - start
    device.wait()
    busy = time.perf_counter() - start
    found = {"queued_ms": 1e3 * queued, "busy_ms": 1e3 * busy}
    assert queued < busy / 2, found
    return found


def beyond_32_bits(task: Task) -> Row:
    """The last image of a batch too large for 32-bit offsets, beside the same image alone."""
    lam, side, kind = 2, task.sizes.sides[0], task.device.kind
    one = (side, side, *task.sizes.cells)
    count = task.sizes.elements // torch.Size(one).numel() + 1
    memory = task.device.facts().get("memory_bytes", float("inf"))
    if memory < ROOM * task.sizes.elements:
        raise NotHere(f"it takes {ROOM * task.sizes.elements / 1e9:.0f} GB of memory")
    ours = task.device.kernels()
    x = torch.empty(count, *one, dtype=torch.float16, device=kind).normal_()
    assert x.numel() > task.sizes.elements
    last = x[-1:].clone()
    out = ours.forward(x, lam, PAD_VALUE)
    assert torch.equal(out[-1:], ours.forward(last, lam, PAD_VALUE))
    expected = formula.forward(last.float(), lam, PAD_VALUE)
    error = (out[-1:].float() - expected).abs().max().item()
    assert error < HALF, error
    grad = ours.backward(out, lam, *one[2:])
    assert torch.equal(grad[-1:], ours.backward(out[-1:].clone(), lam, *one[2:]))
    return {"elements": x.numel(), "error": error}
