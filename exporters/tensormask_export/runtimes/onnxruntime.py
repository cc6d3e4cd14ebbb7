"""An ONNX file in ONNX Runtime, on the CPU. Loads no PyTorch.

next: runtimes/numpy_loops.py
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tensormask_edu.base.errors import InputError
from tensormask_edu.base.memory import is_out_of_memory
from tensormask_edu.base.packages import required

from .. import contract
from ..onnx_file.read import parse_metadata
from ..shapes import Array, Named
from .session import Plan, Ready, Session


class OnnxSession(Session):
    """An ONNX file in ONNX Runtime.

    Args:
        model: the file, or its bytes.
        threads: of one operator; 0: as many as the machine has cores.
        library: of custom ops, which take precedence over the function bodies of their names.
    """

    kind = "onnxruntime"

    def __init__(
        self, model: str | Path | bytes, threads: int = 0, library: str | None = None
    ) -> None:
        runtime = required("onnxruntime", "export")
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        if library:
            options.register_custom_ops_library(library)
        source, path = (model, "the file") if isinstance(model, bytes) else (str(model), model)
        try:
            self.session = runtime.InferenceSession(
                source, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exception classes are private
            reason = str(error).splitlines()[0]
            fix = "is the file whole? export it again"
            problem = f"{path} does not load in ONNX Runtime ({reason})"
            raise InputError(f"model: {problem}; {fix}") from None
        stored = self.session.get_modelmeta().custom_metadata_map
        metadata = parse_metadata(stored, path)
        super().__init__(f"onnxruntime {runtime.__version__}", "CPU", metadata)
        self.title = f"{self.name} CPU"

    def all_outputs(self, images: Array) -> Named:
        names = [output.name for output in self.session.get_outputs()]
        with told():
            values = self.session.run(names, {contract.IMAGES: images})
        return dict(zip(names, values, strict=True))

    def prepare(self, plan: Plan) -> Ready:
        return OnnxReady(self, plan)


class OnnxReady(Ready):
    """Buffers bound to an ONNX Runtime session: a run allocates nothing."""

    def __init__(self, session: OnnxSession, plan: Plan) -> None:
        super().__init__(session.all_outputs, plan)
        binding = session.session.io_binding()
        with told():
            for name, array in self.host.items():
                bind = binding.bind_input if name == contract.IMAGES else binding.bind_output
                bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        self.work = partial(session.session.run_with_iobinding, binding)

    def execute(self) -> None:
        with told():
            self.work()


@contextmanager
def told() -> Iterator[None]:
    """What ONNX Runtime cannot compute as one line: a graph that fits its metadata no more."""
    try:
        yield
    except Exception as error:  # its exception classes are private
        if is_out_of_memory(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        problem = f"the file does not run in ONNX Runtime ({reason})"
        raise InputError(f"model: {problem}; export it again") from None
