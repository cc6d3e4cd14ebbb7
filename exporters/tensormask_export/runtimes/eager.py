"""A checkpoint's model in PyTorch: what every other runtime is compared with and timed beside.

next: runtimes/engine.py
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tensormask_edu.detector.model import TensorMask
from tensormask_edu.weights.checkpoint import load_checkpoint

from .. import contract
from ..engine.device import find_device
from ..onnx_file.graph import DetectorGraph
from ..shapes import Array, Named, Size
from .session import NotComputed, Plan, Ready, Session


class EagerSession(Session):
    """The model as `tensormask-edu predict` runs it, and as the graph that was exported.

    `detect` and `Ready.compute_ms` run the model itself, masks pasted; `all_outputs` the graph.

    Args:
        model: on the CPU; it is moved to the device.
        metadata: of the file that was exported from it.
        device: "cpu" or "cuda".
        half: in float16 on the device, by autocast.
        word: for the session's name, "eager" or "compiled".
    """

    kind = "eager"

    def __init__(
        self,
        model: TensorMask,
        metadata: Mapping[str, Any],
        device: str = "cpu",
        half: bool = False,
        word: str = "eager",
    ) -> None:
        gpu = find_device() if device == "cuda" else None
        words = ["torch", torch.__version__, word, *(["float16"] if half else [])]
        super().__init__(" ".join(words), gpu.name if gpu else "CPU", metadata)
        self.where, self.half = device, half
        self.model = model.to(device)
        stored = metadata[contract.DETECTOR]
        how = (stored["masks"], stored["candidates"], stored["nms_iterations"])
        self.graph = DetectorGraph(model, *how).eval()

    @torch.no_grad()
    def all_outputs(self, images: Array) -> Named:
        return arrays(self.graph(torch.from_numpy(images).to(self.where)))

    @torch.no_grad()
    def raw_and_detections(
        self, pictures: Sequence[Array], output_sizes: Sequence[Size]
    ) -> tuple[Named, list[Named]]:
        """The network's logits and deltas by name, and what the model itself finds.

        The model takes as many candidates as the file, so that both can be equal.
        """
        model = copy.copy(self.model)
        model.config = self.graph.config
        images = model.batch([torch.from_numpy(p).to(self.where) for p in pictures])
        output = model.network(images)
        sizes = [(picture.shape[1], picture.shape[2]) for picture in pictures]
        layout = model.config.geometry.layout(sizes, images.device)
        found = model.detections(output, layout, sizes, list(output_sizes))
        return arrays(self.graph.raw(output)), [arrays(each) for each in found]

    def detect(
        self, pictures: Sequence[Array], output_sizes: Sequence[Size] | None = None
    ) -> list[Named]:
        sizes = list(output_sizes) if output_sizes else None
        images = [torch.from_numpy(picture).to(self.where) for picture in pictures]
        return [arrays(each) for each in self.run_model(images, sizes)]

    @torch.inference_mode()
    def run_model(
        self, images: list[torch.Tensor], output_sizes: list[Size] | None = None
    ) -> list[dict[str, torch.Tensor]]:
        """The model's detections, left on the device."""
        with torch.autocast(self.where, torch.float16, enabled=self.half):
            found: list[dict[str, torch.Tensor]] = self.model(images, output_sizes=output_sizes)
        return found

    def prepare(self, plan: Plan) -> Ready:
        return EagerReady(self, plan)


class EagerReady(Ready):
    """Buffers for a model in PyTorch, which brings its own outputs."""

    def __init__(self, session: EagerSession, plan: Plan) -> None:
        super().__init__(session.all_outputs, plan)
        self.session = session

    def compute_ms(self) -> float:
        images = torch.from_numpy(self.host[contract.IMAGES]).to(self.session.where)
        self._wait()
        start = time.perf_counter()
        self.session.run_model(list(images))
        self._wait()
        return 1e3 * (time.perf_counter() - start)

    def _wait(self) -> None:
        if self.session.where == "cuda":
            torch.cuda.synchronize()


class CompiledSession(EagerSession):
    """The exported graph under torch.compile."""

    kind = "compiled"

    def __init__(self, model: TensorMask, metadata: Mapping[str, Any]) -> None:
        super().__init__(model, metadata)
        self.name = self.title = f"torch.compile {torch.__version__}"
        self.compiled = torch.compile(self.graph)

    @torch.no_grad()
    def all_outputs(self, images: Array) -> Named:
        try:
            return arrays(self.compiled(torch.from_numpy(images)))
        except (RuntimeError, OSError) as error:  # a compiler that does not work
            raise NotComputed(str(error).splitlines()[0][:200]) from None


def open_checkpoint(
    path: str | Path, metadata: Mapping[str, Any], compiled: bool = False
) -> EagerSession:
    """A checkpoint on this machine's GPU, else its CPU.

    Args:
        metadata: of the file that was exported from it; on a GPU its precision is taken.
        compiled: its network by torch.compile.
    """
    device = "cuda" if find_device() else "cpu"
    half = device == "cuda" and metadata[contract.DETECTOR]["precision"] == "float16"
    model, _ = load_checkpoint(path)
    if compiled:
        model.network.compile()
    word = "compiled" if compiled else "eager"
    return EagerSession(model, metadata, device, half, word)


def arrays(tensors: Mapping[str, torch.Tensor]) -> Named:
    """Tensors as arrays in this machine's memory."""
    return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
