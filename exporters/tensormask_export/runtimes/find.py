"""Whatever can compute an exported file here: each takes pictures and gives arrays by name.

    onnxruntime   ONNX Runtime on the CPU, our nodes by their function bodies
    numpy         ONNX Runtime with our nodes computed by the loops of `tensormask_edu.reference`
    parsed        the network that TensorRT's parser made of the file, layer by layer on the CPU
    compiled      the PyTorch graph under torch.compile (slow to start, so only on request)
    engine        TensorRT engines of the file, where there is a GPU

next: compare.py
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tensormask_edu import reference
from tensormask_edu.base.errors import InputError, bad_input
from tensormask_edu.base.packages import required

from .. import contract
from ..engine.device import find_device
from ..engine.manifest import read_engine
from ..onnx_file.graph import DetectorGraph
from ..onnx_file.read import read_metadata
from .parsed import NotComputed, ParsedNetwork
from .session import open_session

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
    proto: onnx.ModelProto,
    names: Sequence[str] = DEFAULT_NAMES,
    graph: DetectorGraph | None = None,
    engines: Sequence[str | Path] = (),
) -> tuple[list[Runtime], dict[str, str]]:
    """The runtimes of `names` that are here, and of the others the reason why not.

    Args:
        graph: what `proto` was exported from, for `compiled`.
        engines: built of `proto`.

    Raises:
        InputError: an unknown name, no ONNX Runtime, a file that ONNX Runtime does not take, or
            an engine that is damaged or of another model.
    """
    if unknown := sorted(set(names) - set(NAMES)):
        raise bad_input("runtimes", f"some of {', '.join(NAMES)}", ", ".join(unknown))
    runtimes: list[Runtime] = []
    not_run = {} if engines else {"TensorRT engine": "none given: --engine"}
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
    for path in engines:
        check_engine(path, proto)
        if find_device() is None:
            not_run[Path(path).name] = "an engine needs an NVIDIA GPU to run"
        else:
            runtimes.append(Engine(path))
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
            raise InputError(
                f"model: the file does not load in ONNX Runtime ({reason})"
            ) from None

    def run(self, images: Tensor) -> Named:
        """All outputs by name."""
        names = [output.name for output in self.session.get_outputs()]
        return dict(
            zip(names, self.session.run(names, {contract.IMAGES: images.numpy()}), strict=True)
        )


class ReferenceSession(OnnxSession):
    """ONNX Runtime that computes our nodes with the NumPy loops: a custom op of a node's name
    takes precedence over the node's body."""

    kind = "numpy"

    def __init__(self, proto: onnx.ModelProto) -> None:
        extensions = required("onnxruntime_extensions", "export")
        _register_reference(extensions)
        super().__init__(proto, extensions.get_library_path())
        self.name = f"NumPy reference in {self.name}"

    def run(self, images: Tensor) -> Named:
        """All outputs by name; NotComputed where the loops would take too long."""
        _TOO_LONG.clear()
        outputs = super().run(images)
        if _TOO_LONG:
            most = f"{max(_TOO_LONG):,} bins in one node; the loops take up to {MOST_LOOPED_BINS:,}"
            raise NotComputed(most)
        return outputs


_REGISTERED: list[Any] = []  # once per process
_TOO_LONG: list[
    int
] = []  # bins of nodes that were left out: an exception in a custom op ends the process


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
        num, side_v, side_u, *grid = x.shape
        shape = (num, lam * side_v, lam * side_u, *(-(-extent // lam) for extent in grid))
        return (
            reference.swap_align2nat(x, lam, pad_value)
            if _short(shape)
            else np.zeros(shape, x.dtype)
        )

    @extensions.onnx_op(
        op_type=f"{contract.DOMAIN}::{contract.SWAP_WINDOWS}",
        inputs=[kinds.dt_float, kinds.dt_int64],
        outputs=[kinds.dt_float],
        attrs=attrs,
    )
    def swap_windows(x: Any, index: Any, lam: int, pad_value: float, **_: str) -> Any:
        different, place = np.unique(
            index, axis=0, return_inverse=True
        )  # most rows are of other windows
        shape = (len(different), lam * x.shape[1], lam * x.shape[2])
        if not _short(shape):
            return np.zeros((len(index), *shape[1:]), x.dtype)
        return reference.swap_align2nat_windows(x, lam, different, pad_value)[place.ravel()]

    _REGISTERED.extend([swap, swap_windows])


def _short(shape: tuple[int, ...]) -> bool:
    """Can the loops compute an output of this shape in a while? If not, it is noted."""
    bins = math.prod(shape)
    if bins > MOST_LOOPED_BINS:
        _TOO_LONG.append(bins)
    return bins <= MOST_LOOPED_BINS


class Parsed:
    """`parsed.ParsedNetwork` as a runtime."""

    kind = "parsed"

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.network = ParsedNetwork(proto)
        self.name = self.network.name

    def run(self, images: Tensor) -> Named:
        """All outputs by name."""
        return self.network.run(images)


def check_engine(path: str | Path, proto: onnx.ModelProto) -> None:
    """InputError if the engine or its manifest is damaged, or another file's: hashes say so
    without a GPU."""
    stored = read_engine(path).metadata
    ours = read_metadata(proto, "the ONNX file")
    for key in (contract.WEIGHTS_SHA256, contract.DETECTOR):
        if stored[key] != ours[key]:
            raise bad_input(
                "engine", "one that was built of this ONNX file", path, "build it again"
            )


class Engine:
    """A TensorRT engine on this machine's GPU."""

    kind = "engine"

    def __init__(self, path: str | Path) -> None:
        self.session = open_session(path)
        self.name = f"{Path(path).name} in {self.session.name}"

    def run(self, images: Tensor) -> Named:
        """The contract's outputs by name; NotComputed outside the engine's shapes."""
        try:
            outputs = self.session.run(images.numpy())
        except InputError as error:
            raise NotComputed(str(error)) from None
        return {name: values.copy() for name, values in outputs.items()}


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
