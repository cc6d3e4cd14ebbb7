"""Whatever can compute an exported file here: each takes pictures and gives arrays by name.

    onnxruntime   ONNX Runtime on the CPU, our nodes by their function bodies
    numpy         ONNX Runtime with our nodes computed by the loops of `tensormask_edu.reference`
    parsed        the network that TensorRT's parser made of the file, layer by layer on the CPU
    compiled      the PyTorch graph under torch.compile (slow to start, so only on request)

next: compare.py
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tensormask_edu import reference
from tensormask_edu.errors import InputError, bad_input

from . import contract
from .graph import DetectorGraph
from .parsed import NotComputed, ParsedNetwork
from .to_onnx import required

if TYPE_CHECKING:
    import onnx

NAMES = ("onnxruntime", "numpy", "parsed", "compiled")
DEFAULT_NAMES = NAMES[:3]
# Bins that the loops compute in about ten seconds; the paper's model has windows of 230 000.
MOST_LOOPED_BINS = 200_000

Named = dict[str, NDArray[Any]]


class Runtime(Protocol):
    """Whatever computes outputs from images. kind: one of `NAMES`; name: with its version."""

    kind: str
    name: str

    def run(self, images: Tensor) -> Named: ...


def find_runtimes(
    proto: onnx.ModelProto, names: Sequence[str] = DEFAULT_NAMES, graph: DetectorGraph | None = None
) -> tuple[list[Runtime], dict[str, str]]:
    """The runtimes of `names` that are here, and of the others the reason why not.

    Args:
        graph: what `proto` was exported from, for `compiled`.

    Raises:
        InputError: an unknown name, no ONNX Runtime, or a file that ONNX Runtime does not take.
    """
    if unknown := sorted(set(names) - set(NAMES)):
        raise bad_input("runtimes", f"some of {', '.join(NAMES)}", ", ".join(unknown))
    runtimes: list[Runtime] = []
    not_run = {"TensorRT engine": "an engine needs an NVIDIA GPU: tensormask-export predict --engine, there"}
    if "onnxruntime" in names:
        runtimes.append(OnnxSession(proto))
    for name, make in (("numpy", ReferenceSession), ("parsed", Parsed)):
        if name not in names:
            continue
        try:
            runtimes.append(make(proto))
        except InputError as error:
            not_run[LONG_NAMES[name]] = str(error)
    if "compiled" in names and graph is not None:
        runtimes.append(Compiled(graph))
    return runtimes, not_run


LONG_NAMES = {"numpy": "the NumPy reference inside ONNX Runtime", "parsed": "TensorRT's parser"}


class OnnxSession:
    """ONNX Runtime on the CPU."""

    kind = "onnxruntime"

    def __init__(self, proto: onnx.ModelProto, library: str | None = None) -> None:
        runtime = required("onnxruntime", "export")
        self.name = f"onnxruntime {runtime.__version__} CPU"
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        if library:
            options.register_custom_ops_library(library)
        try:
            self.session = runtime.InferenceSession(
                proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exception classes are private
            reason = str(error).splitlines()[0]
            raise InputError(f"model: the file does not load in ONNX Runtime ({reason})") from None

    def run(self, images: Tensor) -> Named:
        """All outputs by name."""
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, {contract.IMAGES: images.numpy()}), strict=True))


class ReferenceSession(OnnxSession):
    """ONNX Runtime that computes our nodes with the NumPy loops: a custom op of a node's name takes
    precedence over the node's body."""

    kind = "numpy"

    def __init__(self, proto: onnx.ModelProto) -> None:
        extensions = required("onnxruntime_extensions", "export")
        _register_reference(extensions)
        super().__init__(proto, extensions.get_library_path())
        self.name = f"NumPy reference in {self.name}"

    def run(self, images: Tensor) -> Named:
        """All outputs by name; NotComputed where the loops would take too long."""
        _REFUSED.clear()
        try:
            return super().run(images)
        except Exception:
            if _REFUSED:
                raise NotComputed(_REFUSED[0]) from None
            raise


_REGISTERED: list[Any] = []  # once per process
_REFUSED: list[str] = []  # exceptions do not pass through ONNX Runtime


def _register_reference(extensions: Any) -> None:
    if _REGISTERED:
        return
    kinds = extensions.PyCustomOpDef
    attrs = {contract.LAM: kinds.dt_int64, contract.PAD_VALUE: kinds.dt_float}
    attrs |= dict.fromkeys(contract.PLUGIN_ATTRIBUTES, kinds.dt_string)

    @extensions.onnx_op(
        op_type=f"{contract.DOMAIN}::{contract.SWAP}",
        inputs=[kinds.dt_float],
        outputs=[kinds.dt_float],
        attrs=attrs,
    )
    def swap(x: Any, lam: int, pad_value: float, **_: str) -> Any:
        _check_length(x.size * lam * lam)
        return reference.swap_align2nat(x, lam, pad_value)

    @extensions.onnx_op(
        op_type=f"{contract.DOMAIN}::{contract.SWAP_WINDOWS}",
        inputs=[kinds.dt_float, kinds.dt_int64],
        outputs=[kinds.dt_float],
        attrs=attrs,
    )
    def swap_windows(x: Any, index: Any, lam: int, pad_value: float, **_: str) -> Any:
        different, place = np.unique(index, axis=0, return_inverse=True)  # most rows are of other windows
        _check_length(len(different) * lam * lam * x.shape[1] * x.shape[2])
        return reference.swap_align2nat_windows(x, lam, different, pad_value)[place.ravel()]

    _REGISTERED.extend([swap, swap_windows])


def _check_length(bins: int) -> None:
    if bins > MOST_LOOPED_BINS:
        _REFUSED.append(
            f"its loops would compute {bins:,} bins in one node; {MOST_LOOPED_BINS:,} are the limit"
        )
        raise NotComputed(_REFUSED[0])


class Parsed:
    """`parsed.ParsedNetwork` of a file in memory."""

    kind = "parsed"

    def __init__(self, proto: onnx.ModelProto) -> None:
        import onnx

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(proto, path)
            self.network = ParsedNetwork(path)
        self.name = self.network.name

    def run(self, images: Tensor) -> Named:
        """All outputs by name."""
        return self.network.run(images)


class Compiled:
    """The graph in PyTorch under torch.compile."""

    kind = "compiled"

    def __init__(self, graph: DetectorGraph) -> None:
        self.name = f"torch.compile {torch.__version__}"
        self.graph = torch.compile(graph)

    @torch.no_grad()
    def run(self, images: Tensor) -> Named:
        """All outputs by name."""
        return {name: tensor.numpy() for name, tensor in self.graph(images).items()}
