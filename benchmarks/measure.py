"""What the timing scripts share: a clock, a model to time, and where figures come from."""

from __future__ import annotations

import argparse
import os
import platform
import random
import runpy
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, UntypedStorage, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tensormask_edu.base.files import read_json
from tensormask_edu.base.machine import version
from tensormask_edu.base.tables import text_table
from tensormask_edu.base.threads import choose
from tensormask_edu.commands.check_ops import machine
from tensormask_edu.config import COCO_CLASS_NAMES, MODELS
from tensormask_edu.detector.model import TensorMask, build_model
from tensormask_edu.weights.official import load_official

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
GOLDEN = Path(os.environ.get("TENSORMASK_SHARED", ROOT.parent / "shared")) / "golden"
MIB = 1 << 20
GPU_BUSY = 2_000_000  # clock cycles, about a millisecond: by then the call is in the queue
MASK_OPERATORS = "tensormask_edu::swap_align2nat"
Calls = dict[str, Callable[[], Any]]
Truth = list[dict[str, Any]]


def script_parser(description: str | None, repeats: int = 0) -> argparse.ArgumentParser:
    """A parser whose help is a script's docstring as it stands; `repeats`: of a timing."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=style)
    parser.add_argument("--json", metavar="FILE", help="write everything here")
    if repeats:
        parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
        parser.add_argument("--repeats", type=int, default=repeats, help="rounds")
        parser.add_argument("--threads", type=int, help="of the CPU (default: tried out)")
    return parser


def settle_threads(count: int | None) -> int:
    """Use `count` threads of the CPU, or as many as are quickest; says how many and why."""
    threads = choose(count)
    print(threads.words)
    return torch.get_num_threads()


def facts(*packages: str) -> dict[str, Any]:
    """The machine, more packages, and which implementations of the operators run on it."""
    more = {"python": platform.python_version(), "cores": os.cpu_count()}
    return machine() | more | {name: version(name) for name in packages}


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Rows as text: a column for each key that one of them has, floats with four digits."""
    rows = list(rows)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    cells = ([row.get(key, "") for key in keys] for row in rows)
    shown = ([f"{x:.4g}" if isinstance(x, float) else str(x) for x in line] for line in cells)
    return text_table([keys, *shown])


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

    def __call__(self, call: Callable[[], Any]) -> float:
        """One call by itself."""
        return self.turns({"": call})[""]

    def turns(self, calls: Calls) -> dict[str, float]:
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
    def _cpu(call: Callable[[], Any]) -> float:
        start = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - start)

    def _gpu(self, call: Callable[[], Any]) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        if self.queued:
            torch.cuda._sleep(GPU_BUSY)
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)


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


# --- models, pictures, objects ----------------------------------------------------------------


def spread_model(preset: str, device: str, detections: int = 100) -> TensorMask:
    """A model of random weights with spread scores: few are high, all differ.

    Its predictors are scaled for it, its masks have edges: it finds `detections` anywhere.
    """
    torch.manual_seed(0)
    kept = {"class_names": COCO_CLASS_NAMES, "detections_per_image": detections}
    model = build_model(replace(MODELS[preset], **kept))
    network = model.network
    with torch.no_grad():
        output = network(model.batch(pictures(1, 128, 128, "cpu")))
        scale(network.class_predictor, output.logits, 1.0)
        scale(network.box_predictor, output.deltas, 0.3)
        for predictor in network.mask_branch.predictors:
            scale(predictor, [predictor(m) for m in output.mask_features], 3.0)
        nn.init.constant_(network.class_predictor.get_parameter("bias"), -6.0)
    return model.to(device)


def scale(predictor: nn.Module, outputs: list[Tensor], spread: float) -> None:
    """Give the outputs of a predictor this standard deviation."""
    found = torch.cat([x.flatten() for x in outputs]).std()
    predictor.get_parameter("weight").mul_(spread / found)


def golden_model(golden: Path) -> TensorMask:
    """The paper's R50 model with weights that are random but fixed.

    Args:
        golden: the folder of `deterministic.py` and `checkpoint_names.json`.
    """
    make = runpy.run_path(str(golden / "deterministic.py"))["deterministic_array"]
    shapes, model = read_json(golden / "checkpoint_names.json"), build_model("r50_fpn_1x")
    arrays = {name: make(name, tuple(shape)) for name, shape in shapes.items()}
    load_official(model, {name: torch.from_numpy(array) for name, array in arrays.items()})
    return model


def pictures(count: int, height: int, width: int, device: str) -> list[Tensor]:
    """Noise."""
    return [torch.rand(3, height, width, device=device) for _ in range(count)]


def objects(count: int, height: int, width: int, device: str, num: int = 10) -> Truth:
    """Per picture `num` rectangles, their sides even on a log scale from 16 px to `height`."""
    rand, truth = random.Random(0).random, []
    for _ in range(count):
        masks = torch.zeros(num, height, width, dtype=torch.bool)
        boxes = torch.zeros(num, 4)
        for g in range(num):
            side = 16 * (height / 16) ** (g / max(1, num - 1))
            h, w = (max(8, int(side * (0.6 + 0.4 * rand()))) for _ in "hw")
            h, w = min(h, height), min(w, width)
            y, x = int(rand() * (height - h + 1)), int(rand() * (width - w + 1))
            masks[g, y : y + h, x : x + w] = True
            boxes[g] = torch.tensor([x, y, x + w, y + h])
        labels = torch.arange(num, device=device)
        truth.append({"boxes": boxes.to(device), "labels": labels, "masks": masks.to(device)})
    return truth


def training_step(
    model: nn.Module, images: list[Tensor], truth: Truth, precision: str = "float32"
) -> None:
    """Forward, losses, backward, one step of SGD."""
    with autocast(images[0].device.type, precision):
        losses = model(images, truth)
    sum(losses.values()).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=1e-6)
                parameter.grad = None


def autocast(device: str, precision: str) -> torch.autocast:
    """PyTorch's autocast to a smaller type; float32 as it is."""
    return torch.autocast(device, getattr(torch, precision), enabled=precision != "float32")
