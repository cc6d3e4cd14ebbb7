"""What is measured on, a GPU or the processor: the one place that knows the difference.

    device = find("cuda")                  # or "cpu"
    device.milliseconds(call), device.peak_mib(call), device.recorded(call)

Scripts that time or check ask here and call no device by name, so what is written for a GPU
also runs, tiny, where there is none: `python benchmarks/gpu --rehearse`. `Tensors` counts the
bytes that live; `Clock` lets calls take turns.
"""

from __future__ import annotations

import csv
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, UntypedStorage
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MIB = 1 << 20
CYCLES_A_MS = 2_000_000  # about: of the clock that `_sleep` counts
BUSY_MS = 1  # by then a call that is timed is in the queue
MASK_OPERATORS = "tensormask_edu::swap_align2nat"
# What nvidia-smi is asked: what may explain a time that nobody expected
CLOCKS = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu", "pstate")
Call = Callable[[], Any]
Calls = dict[str, Call]


class Cpu:
    """The processor; in a rehearsal it stands for a GPU."""

    kind = "cpu"
    sees_compiled = False  # whether `peak_mib` works for what torch.compile made

    def facts(self) -> dict[str, Any]:
        """Its name; of a GPU also what estimates of its speed need."""
        return {"name": "the processor"}

    def clocks(self) -> dict[str, str]:
        """What it runs at now, as far as it says so."""
        return {}

    def kernels(self) -> ModuleType:
        """Our kernels for its tensors: a module with `forward`, `backward`, ..."""
        from tensormask_edu.ops import cpu

        return cpu

    def wait(self) -> None:
        """Until all that was asked of it is done."""
        time.sleep(self._owed_s)
        self._owed_s = 0.0

    def keep_busy(self, ms: float) -> None:
        """Give it something to do for about so long, before whatever is asked of it next."""
        self._owed_s += ms / 1e3

    _owed_s = 0.0

    def milliseconds(self, call: Call, queued: bool = False) -> float:
        """How long a call takes; `queued`: without what Python needs to launch it."""
        start = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - start)

    def peak_mib(self, call: Call) -> float:
        """The most that a call's tensors hold at once."""
        with Tensors() as seen:
            call()
        return seen.peak() / MIB

    @contextmanager
    def stream_of_its_own(self) -> Iterator[None]:
        """Work of the block goes into another queue than the usual one; it ends when done."""
        yield
        self.wait()

    @contextmanager
    def no_waiting(self) -> Iterator[None]:
        """Within the block a call that waits for the device is an error."""
        yield

    def recorded(self, call: Call) -> tuple[Any, Call]:
        """A call's results, and what computes them anew, into the same memory."""
        results = call()

        def again() -> None:
            for kept, new in zip(tensors_in(results), tensors_in(call()), strict=True):
                kept.copy_(new)

        return results, again


class Gpu(Cpu):
    """An NVIDIA GPU through PyTorch."""

    kind = "cuda"
    sees_compiled = True

    def facts(self) -> dict[str, Any]:
        properties = torch.cuda.get_device_properties()
        found = {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "l2_bytes": properties.L2_cache_size,
            # in kHz; PyTorch tells it since 2.9
            "highest_hz": 1e3 * getattr(properties, "clock_rate", 0),
            "cuda": torch.version.cuda,
        }
        return found | {"driver": self.asked("driver_version").get("driver_version")}

    def clocks(self) -> dict[str, str]:
        return self.asked(*CLOCKS)

    @staticmethod
    def asked(*names: str) -> dict[str, str]:
        """What nvidia-smi says of the first GPU; nothing where it is not or does not know."""
        if not shutil.which("nvidia-smi"):
            return {}
        words = ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader"]
        run = subprocess.run(words, capture_output=True, text=True, timeout=20)
        rows = list(csv.reader(run.stdout.splitlines(), skipinitialspace=True))
        return dict(zip(names, rows[0], strict=False)) if not run.returncode and rows else {}

    def kernels(self) -> ModuleType:
        from tensormask_edu.ops import cuda

        return cuda

    def wait(self) -> None:
        torch.cuda.synchronize()

    def keep_busy(self, ms: float) -> None:
        torch.cuda._sleep(int(ms * CYCLES_A_MS))

    def milliseconds(self, call: Call, queued: bool = False) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        if queued:
            self.keep_busy(BUSY_MS)
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    def peak_mib(self, call: Call) -> float:
        """The most that PyTorch's allocator gave out for a call."""
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return (torch.cuda.max_memory_allocated() - before) / MIB

    @contextmanager
    def stream_of_its_own(self) -> Iterator[None]:
        stream = torch.cuda.Stream()
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            yield
        stream.synchronize()

    @contextmanager
    def no_waiting(self) -> Iterator[None]:
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def recorded(self, call: Call) -> tuple[Any, Call]:
        call()  # what is compiled, loaded or kept at a first call must not be recorded
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = call()
        graph.replay()  # recording computes nothing
        return results, graph.replay


def find(kind: str) -> Cpu:
    """The device "cpu" or "cuda"."""
    return Gpu() if kind == "cuda" else Cpu()


def tensors_in(values: Any) -> list[Tensor]:
    """The tensors in nested lists and tuples."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


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
        self.on = find(device)

    def __call__(self, call: Call) -> float:
        """One call by itself."""
        return self.turns({"": call})[""]

    def turns(self, calls: Calls) -> dict[str, float]:
        """Calls that are compared, by name."""
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(self.repeats):
            for name, call in calls.items():
                if len(calls) > 1 or not times[name]:
                    call()
                spent = 0.0
                while spent < self.ROUND_MS:
                    times[name].append(self.on.milliseconds(call, self.queued))
                    spent += times[name][-1]
        return {name: statistics.median(measured) for name, measured in times.items()}


# --- bytes of tensors that live at once, and which of them the mask operators touched ---------


class Tensors(TorchDispatchMode):
    """The storages made while it was on: how large each was, when it was born and died.

        with Tensors() as seen:
            model(images)
        seen.peak(), seen.peak(seen.of_masks)

    It sees every operation of the forward and the backward pass (tried on a CPU). An
    operation's results count from its end to the death of their storage (looked at after every
    operation); what an operation allocates for itself does not show.

    Attributes:
        of_masks: the storages that a mask operator read or wrote.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes: list[int] = []
        self.events: list[tuple[int, int]] = []  # (number of a storage, +1 born or -1 dead)
        self.of_masks: set[int] = set()
        # address of a storage -> its number, and whether it lives
        self.alive: dict[int, tuple[int, StorageWeakRef]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        for address in [a for a, (_, reference) in self.alive.items() if reference.expired()]:
            self.events.append((self.alive.pop(address)[0], -1))
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        before = {x.untyped_storage()._cdata for x in given}
        for x in [*given, *(x for x in tree_leaves(result) if isinstance(x, Tensor))]:
            number = self._number(x.untyped_storage(), before)
            masks = func.name().startswith(MASK_OPERATORS) and x.is_floating_point()
            if masks and number is not None:
                self.of_masks.add(number)
        return result

    def _number(self, storage: UntypedStorage, before: set[int]) -> int | None:
        address = storage._cdata  # names it while it lives
        if address not in self.alive:
            if address in before or not address:
                return None
            self.alive[address] = (len(self.bytes), StorageWeakRef(storage))
            self.events.append((len(self.bytes), 1))
            self.bytes.append(storage.nbytes())
        return self.alive[address][0]

    def peak(self, among: set[int] | None = None) -> int:
        """The most bytes that lived at once, of all storages or `among` some."""
        living = most = 0
        for number, change in self.events:
            if among is None or number in among:
                living += change * self.bytes[number]
                most = max(most, living)
        return most
