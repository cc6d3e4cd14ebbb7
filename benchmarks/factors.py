"""What each factor is worth: one model run in many ways, beside the plain one.

    subject = Subject("r50_fpn_1x", "cuda", (800, 1344), repeats=3)
    for way in ways(precisions=["bfloat16"], compiled=2, gpu=True):
        print(subject.row(way))

A row has the milliseconds and the peak MiB of inference and of a training step for one picture,
and how far the way's masks are those of the plain way. Weights are random, spread so that
scores differ; every picture has 100 detections.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from typing import Any
from unittest import mock

import torch
from device import Call, Clock, find
from samples import autocast, objects, pictures, spread_model, tf32, training_step
from torch import Tensor

from tensormask_edu import ops
from tensormask_edu.detector.model import TensorMask
from tensormask_edu.detector.network import NetworkOutput, WindowMasks
from tensormask_edu.masks import iou
from tensormask_edu.ops import plain, swap_align2nat

Row = dict[str, Any]
DENSE = ("plain", "ours")  # kernels for the masks of all windows


@dataclass(frozen=True)
class Way:
    """How the model is run; as it stands: windows alone, our kernels, float32, eager.

    dense: masks of all windows by this kernel, as the official code computes them.
    implementation: of the mask operator (`ops.use`).
    graph: the network recorded once and replayed, inference alone.
    """

    dense: str | None = None
    implementation: str = "auto"
    channels_last: bool = False
    precision: str = "float32"
    tf32: bool = False
    graph: bool = False
    compiled: bool = False

    @property
    def name(self) -> str:
        """What is special about it."""
        words = [f"dense, {self.dense} kernel" if self.dense else "windows"]
        words += [self.implementation] * (self.implementation != "auto")
        words += [word for word in ("channels_last", "tf32") if getattr(self, word)]
        words += [self.precision] * (self.precision != "float32")
        return ", ".join(words + ["graph"] * self.graph + ["compile"] * self.compiled)


def ways(
    dense: Sequence[str] = DENSE,
    precisions: Sequence[str] = (),
    compiled: int = 0,
    gpu: bool = False,
) -> Iterator[Way]:
    """The official way first, each factor alone, then together; what compiles last.

    compiled: how many ways that compile: all factors together first, then compiling alone.
    """
    yield from (Way(dense=kernel) for kernel in dense)
    yield from (Way(), Way(implementation="formula"), Way(channels_last=True))
    if gpu:
        yield from (Way(tf32=True), Way(graph=True))
    yield from (Way(precision=precision) for precision in precisions)
    together = [Way(channels_last=True, precision=precision) for precision in precisions]
    yield from (replace(way, graph=gpu) for way in together)
    both = (*together[:1], Way())
    yield from (replace(way, compiled=True) for way in both[:compiled])


@dataclass(frozen=True)
class Subject:
    """What is run: a preset's model on a device, a picture of (height, width) pixels.

    backend: of torch.compile.
    """

    preset: str
    device: str
    size: tuple[int, int]
    repeats: int
    backend: str = "inductor"

    def row(self, way: Way) -> Row:
        """Times and memory of one way, and the mean IoU with the plain way's masks."""
        figures, found = self.measured(way)
        return {"way": way.name, **figures, "mask_iou": agreement(self.expected, found)}

    @cached_property
    def expected(self) -> dict[str, Tensor]:
        """What the plain way detects."""
        model = spread_model(self.preset, self.device).eval()
        with torch.inference_mode():
            return model(pictures(1, *self.size, self.device))[0]

    def measured(self, way: Way) -> tuple[Row, dict[str, Tensor]]:
        """Times and memory of one way, and what it detects."""
        # the numbers behind a seed depend on what was drawn before: models first, then pictures
        model = spread_model(self.preset, self.device)
        images = pictures(1, *self.size, self.device)
        truth = objects(1, *self.size, self.device)
        clock, figures = Clock(self.device, self.repeats), {}
        if way.channels_last:
            model.to(memory_format=torch.channels_last)
        if way.compiled:
            model.network.compile(fullgraph=True, backend=self.backend)

        def infer() -> Any:
            with torch.inference_mode(), autocast(self.device, way.precision):
                return model(images)

        def learn() -> None:
            training_step(model, images, truth, way.precision)

        def put(what: str, call: Call) -> None:
            figures[f"{what}_ms"] = clock(call)
            if clock.on.sees_compiled or not way.compiled:
                figures[f"{what}_mib"] = clock.on.peak_mib(call)

        with applied(way, model.eval(), images):
            put("inference", infer)
            found = infer()[0]
        if not way.graph:
            with applied(way, model.train(), images):
                put("training", learn)
        return figures, found


@contextmanager
def applied(way: Way, model: TensorMask, images: list[Tensor]) -> Iterator[None]:
    """Within the block the model runs that way, as far as it is no property of the model."""
    with ExitStack() as stack:
        enter = stack.enter_context
        if way.dense:
            enter(dense_masks(model, way.dense))
        if way.implementation != "auto":
            enter(ops.use(way.implementation))
        if way.tf32:
            enter(tf32(True))
        if way.graph:
            replayed = recorded(model, way.precision, images)
            enter(mock.patch.object(model.network, "forward", replayed))
        yield


def recorded(model: TensorMask, precision: str, images: list[Tensor]) -> Any:
    """The network's forward as a replay of what it did once, for one size of pictures."""
    given, network = model.batch(images), model.network.forward
    # a weight that autocast converted and kept would be gone when the graph is replayed
    with torch.inference_mode(), autocast(given.device.type, precision, keep=False):
        output, again = find(given.device.type).recorded(lambda: network(given))

    def forward(batch: Tensor, read: None = None) -> NetworkOutput:
        given.copy_(batch)
        again()
        return output

    return forward


# --- the official way -------------------------------------------------------------------------


class PlainSwap(torch.autograd.Function):
    """`swap_align2nat` by the plain kernel: 16 taps always, the backward by atomic scatter."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, lam: int, pad_value: float) -> Tensor:
        ctx.lam, ctx.size = lam, x.shape[3:]
        return plain.forward(x.contiguous(), lam, pad_value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return plain.backward(grad.contiguous(), ctx.lam, *ctx.size), None, None


SWAPS = {"plain": PlainSwap.apply, "ours": swap_align2nat}


@contextmanager
def dense_masks(model: TensorMask, kernel: str) -> Iterator[None]:
    """Within the block masks of all windows are computed, as the official code does."""

    def mask_logits(
        output: NetworkOutput, image: Tensor, windows: Any, at_once: int | None = None
    ) -> list[WindowMasks]:
        natural = model.network.natural(output)
        return [
            WindowMasks(at, natural[k][a][image[at], :, :, windows.y[at], windows.x[at]])
            for k, a, at in windows.groups()
        ]

    # A package's `resample` is its function: the module of that name is looked up.
    heads = import_module("tensormask_edu.ops.resample")
    with mock.patch.object(heads, "swap_align2nat", SWAPS[kernel]):
        with mock.patch.object(model.network, "mask_logits", mask_logits):
            yield


def agreement(expected: dict[str, Tensor], found: dict[str, Tensor]) -> float:
    """The mean, over expected detections, of the best mask IoU with one of the same class."""
    ious = []
    for mask, label in zip(expected["masks"], expected["labels"], strict=True):
        same = found["masks"][found["labels"] == label]
        ious.append(iou(same, mask, both_empty=1.0).max().item() if len(same) else 0.0)
    return sum(ious) / max(1, len(ious))
