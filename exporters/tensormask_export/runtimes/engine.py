"""A TensorRT engine as a session: per input shape a context, buffers and a CUDA graph.

Not run on a GPU yet. Without one, tests run the checks of the file, the plugin's registration,
the buffers and the order of the calls; TensorRT-RTX itself reads an engine's header and then
asks for a driver. `Stream` holds every call of torch.cuda that needs one.

next: runtimes/find.py
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tensormask_edu.base.errors import InputError, bad_input

from .. import contract
from ..engine import plugin
from ..engine.backends import make_logger
from ..engine.device import find_device
from ..engine.manifest import AGAIN, read_engine
from ..shapes import Array, Named
from .session import Buffer, NotComputed, Plan, Ready, Session


class EngineSession(Session):
    """An engine on this machine's GPU.

    Args:
        plugin_library: where the C++ plugin lies, if the engine has one: `EngineFile.plugin`.
        cuda_graph: record the work once per input shape and replay it: less for the CPU to do.
        allow_host_code: accept an engine that carries code for the CPU, as one with a plugin
            library inside.

    Raises:
        InputError: what `read_engine` and `EngineFile` check, then what TensorRT says.
    """

    kind = "engine"

    def __init__(
        self,
        path: str | Path,
        *,
        plugin_library: str | Path | None = None,
        cuda_graph: bool = True,
        allow_host_code: bool = False,
    ) -> None:
        file = read_engine(path)
        backend = file.backend()
        gpu = file.check_device(find_device())
        plugin.load(backend.module, **file.plugin(plugin_library))
        name = f"{backend.name} {backend.version}"
        super().__init__(name, gpu.name, file.metadata, file.profile)
        self.title = f"{Path(path).name} in {name}"
        self.trt, self.logger = backend.module, make_logger(backend.module)
        self.runtime = self.trt.Runtime(self.logger)
        self.engine = load_plan(self.runtime, file.plan, self.logger, allow_host_code)
        check_tensors(self.trt, self.engine)
        self.cuda_graph, self.stream = cuda_graph, Stream()

    def all_outputs(self, images: Array) -> Named:
        """The contract's outputs; NotComputed outside the engine's shapes."""
        try:
            outputs = self.run(images)
        except InputError as error:
            raise NotComputed(str(error)) from None
        return {name: values.copy() for name, values in outputs.items()}

    def prepare(self, plan: Plan) -> Ready:
        parts = (self.trt, self.engine, self.logger, self.stream)
        return EngineReady(*parts, plan, self.cuda_graph)

    def close(self) -> None:
        super().close()
        self.engine = self.runtime = None


def load_plan(runtime: Any, plan: bytes, logger: Any, allow_host_code: bool = False) -> Any:
    """The engine in `plan`, or TensorRT's reason as an InputError."""
    runtime.engine_host_code_allowed = allow_host_code
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise InputError(f"engine: TensorRT does not load it: {reasons(logger)}; {AGAIN}")
    return engine


def check_tensors(trt: Any, engine: Any) -> None:
    """Raise InputError unless the engine's inputs and outputs are those of the contract."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    inputs = {name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT}
    if inputs != {contract.IMAGES} or not set(contract.OUTPUTS) <= set(names):
        expected = f"the input {contract.IMAGES} and the outputs {', '.join(contract.OUTPUTS)}"
        raise bad_input("engine", expected, ", ".join(names), AGAIN)


def reasons(logger: Any) -> str:
    """The errors that TensorRT logged."""
    return "; ".join(logger.errors) or "it gave no reason"


class EngineReady(Ready):
    """An engine set up for one input shape, in a context of its own.

    So a graph that was recorded for a shape stays valid.
    """

    def __init__(
        self, trt: Any, engine: Any, logger: Any, stream: Stream, plan: Plan, cuda_graph: bool
    ) -> None:
        self.logger, self.stream = logger, stream
        self.context = make_context(trt, engine)
        if self.context is None:
            why = f"no room for it on the GPU ({reasons(logger)})"
            raise InputError(f"engine: {why}; use smaller shapes")
        plan = checked_plan(trt, engine, self.context, plan)
        with stream.use():
            # memory for every tensor, twice: here, where the device can read it, and there
            self.here = {name: empty(*buffer, stream.device) for name, buffer in plan.items()}
            self.there: dict[str, torch.Tensor] = {}
            for name, tensor in self.here.items():
                self.there[name] = torch.zeros_like(tensor, device=stream.device)
                self.context.set_tensor_address(name, self.there[name].data_ptr())
            # what TensorRT sets up at the first call must not be part of a graph
            self.enqueue()
        self.host = {name: tensor.numpy() for name, tensor in self.here.items()}
        stream.wait()
        self.work = self.recorded() if cuda_graph else self.enqueue

    def enqueue(self) -> None:
        """Queue the engine's work."""
        if not self.context.execute_async_v3(self.stream.handle):
            raise RuntimeError(f"TensorRT did not run the engine: {reasons(self.logger)}")

    def recorded(self) -> Callable[[], None]:
        """The work as a CUDA graph; InputError where TensorRT does what a graph cannot hold."""
        # TensorRT-RTX says whether a graph can be recorded; TensorRT always can
        ask = getattr(self.context, "is_stream_capturable", None)
        if ask and not ask(self.stream.handle):
            return self.enqueue
        try:
            return self.stream.captured(self.enqueue)
        except RuntimeError as error:
            why = f"a CUDA graph cannot hold its work ({error})"
            raise InputError(f"engine: {why}; use --no-cuda-graph") from None

    def execute(self) -> None:
        with self.stream.use():
            self.there[contract.IMAGES].copy_(self.here[contract.IMAGES], non_blocking=True)
            self.work()
            for name, tensor in self.there.items():
                if name != contract.IMAGES:
                    self.here[name].copy_(tensor, non_blocking=True)
        self.stream.wait()

    def compute_ms(self) -> float:
        return self.stream.milliseconds(self.work)


def make_context(trt: Any, engine: Any) -> Any:
    """A context for one shape; TensorRT-RTX compiles at once, not beside the first runs."""
    strategies = getattr(trt, "DynamicShapesKernelSpecializationStrategy", None)
    if strategies is None:
        return engine.create_execution_context()
    config = engine.create_runtime_config()
    config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
    return engine.create_execution_context(config)


def checked_plan(trt: Any, engine: Any, context: Any, plan: Plan) -> Plan:
    """Set the context's input shape; returns all tensors, which must be as planned."""
    context.set_input_shape(contract.IMAGES, plan[contract.IMAGES].shape)
    if missing := context.infer_shapes():
        raise bad_input("engine", "one input", f"others without a shape: {missing}", AGAIN)
    found = {}
    for name in (engine.get_tensor_name(i) for i in range(engine.num_io_tensors)):
        dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name)))
        found[name] = Buffer(tuple(context.get_tensor_shape(name)), dtype)
        if name in plan and found[name] != plan[name]:
            raise bad_input(f"engine's {name}", str(plan[name]), str(found[name]), AGAIN)
    return found


def empty(shape: tuple[int, ...], dtype: np.dtype[Any], device: str) -> torch.Tensor:
    """An array of this machine that the device can read."""
    same = torch.from_numpy(np.empty(0, dtype)).dtype  # PyTorch's name of a NumPy type
    return torch.empty(shape, dtype=same, pin_memory=device != "cpu")


class Stream:
    """A CUDA stream of its own, and what is done with it."""

    device = "cuda"

    def __init__(self) -> None:
        self.stream = torch.cuda.Stream()
        self.handle = self.stream.cuda_stream

    def use(self) -> AbstractContextManager[Any]:
        """What PyTorch queues inside goes to this stream."""
        return torch.cuda.stream(self.stream)

    def wait(self) -> None:
        """Until everything queued is done."""
        self.stream.synchronize()

    def captured(self, work: Callable[[], None]) -> Callable[[], None]:
        """The work as a CUDA graph: call what is returned to run it again."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            work()
        return graph.replay

    def milliseconds(self, work: Callable[[], None]) -> float:
        """How long the device takes for the work."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        with self.use():
            start.record()
            work()
            end.record()
        end.synchronize()
        return start.elapsed_time(end)
