"""Run an exported model: prepared pictures in, arrays out, with ONNX Runtime or from a TensorRT
engine.

    with open_session("model.engine") as session:
        found = detect(session, pictures, sizes)  # as the PyTorch model: boxes, scores, labels, masks

A session does what depends on the input's shape once per shape: output sizes, buffers,
bindings. After that a run copies in, computes and copies out; it allocates nothing. This file
holds what every runtime shares, and ONNX Runtime; `engine_run.py` holds what needs a GPU.

next: engine_file.py
"""

from __future__ import annotations

import json
import time
import warnings
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from tensormask_edu.base.errors import InputError, bad_input
from tensormask_edu.base.packages import required

from .. import contract
from ..shapes import Profile, Shape, shape_name
from .detections import Size, detections

Array = NDArray[Any]
Named = dict[str, Array]

KEPT_SHAPES = (
    4  # input shapes whose buffers a session keeps; the one used longest ago goes first
)


class Buffer(NamedTuple):
    """What a buffer must hold."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Ready(Protocol):
    """A runtime set up for one input shape. host: its input and outputs in this machine's
    memory, by name."""

    host: Named

    def execute(self) -> None:
        """From `host`'s input to `host`'s outputs."""

    def compute_ms(self) -> float:
        """Compute once more on the input that is already there, without copies; returns
        milliseconds."""


class Session(ABC):
    """A loaded model.

    profile: the shapes it accepts; None: all whose sides are multiples of the metadata's
    `padding_px`.
    """

    def __init__(
        self,
        name: str,
        device: str,
        metadata: Mapping[str, Any],
        profile: Profile | None = None,
    ) -> None:
        self.name, self.device, self.metadata, self.profile = name, device, metadata, profile
        self._ready: OrderedDict[Shape, Ready] = OrderedDict()

    def run(self, images: Array) -> Named:
        """Outputs by the names of `contract`, for images (N, 3, H, W) float32 RGB in [0, 1].

        The arrays are this session's own buffers: they hold until the next run.
        """
        check_images(images, self.metadata, self.profile)
        ready = self.ready(images.shape)  # type: ignore[arg-type]
        np.copyto(ready.host[contract.IMAGES], images)
        ready.execute()
        return {name: ready.host[name] for name in contract.OUTPUTS}

    def ready(self, shape: Shape) -> Ready:
        """What is set up for an input shape; set up now if it is new."""
        if shape not in self._ready:
            if len(self._ready) == KEPT_SHAPES:
                self._ready.popitem(last=False)
            self._ready[shape] = self.prepare(
                output_plan(self.metadata, shape) | input_plan(shape)
            )
        self._ready.move_to_end(shape)
        return self._ready[shape]

    @abstractmethod
    def prepare(self, plan: dict[str, Buffer]) -> Ready:
        """Buffers and bindings for the tensors of `plan`."""

    def close(self) -> None:
        """Give buffers back."""
        self._ready.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def open_session(path: str | Path, threads: int = 0, **engine_options: Any) -> Session:
    """A session for a file of `tensormask-export`: ONNX by its suffix, else an engine.

    Args:
        threads: of the CPU, for ONNX Runtime; 0: as many as it has cores.
        engine_options: of `engine_run.EngineSession`; an ONNX file has no use for them.

    Raises:
        InputError: not such a file, or one that cannot run here; the message says why and what
            to do.
    """
    if not Path(path).is_file():
        raise bad_input("model", "an existing .onnx file or engine", path, "check the path")
    if Path(path).suffix == ".onnx":
        return OnnxSession(path, threads)
    from .engine import EngineSession

    return EngineSession(path, **engine_options)


# --- shapes -----------------------------------------------------------------------------------


def input_plan(shape: Shape) -> dict[str, Buffer]:
    """The input's buffer."""
    return {contract.IMAGES: Buffer(tuple(shape), np.dtype(np.float32))}


def output_plan(metadata: Mapping[str, Any], shape: Shape) -> dict[str, Buffer]:
    """The outputs' buffers for an input shape: fixed by the contract, so known before anything
    runs."""
    num, _, *sides_px = shape
    places = metadata[contract.DETECTOR]["detections"]
    stride_px = metadata[contract.STRIDES_PX][0]
    canvas = [side_px // stride_px + contract.CANVAS_BORDER for side_px in sides_px]
    shapes: dict[str, tuple[tuple[int, ...], type]] = {
        contract.BOXES: ((num, places, 4), np.float32),
        contract.SCORES: ((num, places), np.float32),
        contract.LABELS: ((num, places), np.int64),
        contract.WINDOWS_OUT: ((num, places, 4), np.int64),
        contract.MASKS_OUT: ((num, places, *canvas), np.float32),
        contract.COUNT: ((num,), np.int64),
        contract.CONVERGED: ((num,), np.bool_),
    }
    return {name: Buffer(size, np.dtype(dtype)) for name, (size, dtype) in shapes.items()}


def check_images(images: Any, metadata: Mapping[str, Any], profile: Profile | None) -> None:
    """Raise InputError unless `images` is an array that the model takes."""
    if not isinstance(images, np.ndarray) or images.dtype != np.float32:
        got = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
        raise bad_input("images", "a float32 NumPy array in [0, 1]", got)
    check_shape(images.shape, metadata, profile)


def check_shape(
    shape: Sequence[int], metadata: Mapping[str, Any], profile: Profile | None
) -> None:
    """Raise InputError unless the model takes images of this shape."""
    if len(shape) != 4 or shape[1] != 3 or min(shape) < 1:
        fix = "three channels, RGB: repeat a grey one, drop transparency"
        raise bad_input("images", "shape (N, 3, H, W)", tuple(shape), fix)
    padding_px = metadata[contract.PREPROCESSING]["padding_px"]
    if shape[2] % padding_px or shape[3] % padding_px:
        expected = f"sides that are multiples of {padding_px}"
        raise bad_input("images", expected, shape_name(shape), "`run.batch` pads pictures")
    if profile and not fits(profile, shape):
        raise excluded(shape, profile)


def excluded(shape: Sequence[int], profile: Profile) -> InputError:
    """The error for a shape outside the profile, with the options that build an engine for
    it."""
    lower, upper = (
        shape_name([choose(a, b) for a, b in zip(shape, bound, strict=True)])
        for choose, bound in ((min, profile.min), (max, profile.max))
    )
    fix = f"build the engine again with --min {lower} --opt {shape_name(shape)} --max {upper}"
    expected = f"a shape from {shape_name(profile.min)} to {shape_name(profile.max)}, as the engine was built"
    return bad_input("images", expected, shape_name(shape), fix)


def fits(profile: Profile, shape: Sequence[int]) -> bool:
    """Does an engine of this profile accept an input of this shape?"""
    return all(a <= n <= b for a, n, b in zip(profile.min, shape, profile.max, strict=True))


def batch(
    pictures: Sequence[Array], metadata: Mapping[str, Any], profile: Profile | None = None
) -> Array:
    """Pictures (3, h, w) float32 in [0, 1] as one input (N, 3, H, W).

    Each lies at the top left; beyond it is the padding colour, zero once normalised, as in
    training. Where a profile asks for more than the pictures have, N and the sides are filled
    up in the same way.
    """
    for number, picture in enumerate(pictures):
        if picture.ndim != 3 or picture.shape[0] != 3 or not picture.size:
            raise bad_input(f"pictures[{number}]", "shape (3, H, W)", picture.shape)
    preprocessing = metadata[contract.PREPROCESSING]
    multiple = preprocessing["padding_px"]
    sides = (-(-max(p.shape[axis] for p in pictures) // multiple) * multiple for axis in (1, 2))
    shape = [len(pictures), 3, *sides]
    if profile:
        shape = [max(n, smallest) for n, smallest in zip(shape, profile.min, strict=True)]
    images = np.empty(shape, np.float32)
    images[:] = np.array(preprocessing["padding_colour"], np.float32)[:, None, None]
    for image, picture in zip(images, pictures, strict=False):
        image[:, : picture.shape[1], : picture.shape[2]] = picture
    return images


def detect(
    session: Session, pictures: Sequence[Array], output_sizes: Sequence[Size] | None = None
) -> list[Named]:
    """Per picture (3, h, w) its `boxes` (d, 4) xyxy, `scores`, `labels` (d,) and `masks` (d,
    height, width), in pixels of its output size. More pictures than an engine's largest batch
    run in several batches."""
    sizes = [(picture.shape[1], picture.shape[2]) for picture in pictures]
    output_sizes = output_sizes or sizes
    largest = session.profile.max[0] if session.profile else max(1, len(pictures))
    found: list[Named] = []
    for start in range(0, len(pictures), largest):
        part = slice(start, start + largest)
        outputs = session.run(batch(pictures[part], session.metadata, session.profile))
        if not outputs[contract.CONVERGED][: len(sizes[part])].all():
            warnings.warn(NOT_CONVERGED, stacklevel=2)
        found += detections(outputs, session.metadata, sizes[part], output_sizes[part])
    return found


NOT_CONVERGED = (
    "the file's NMS did not come to rest on a picture: a chain of overlapping boxes is longer than its "
    "iterations. Some detections may differ from PyTorch's"
)

# --- ONNX Runtime -----------------------------------------------------------------------------


class OnnxSession(Session):
    """ONNX Runtime on the CPU. threads: of one operator; 0: as many as the machine has
    cores."""

    def __init__(self, path: str | Path, threads: int = 0) -> None:
        runtime = required("onnxruntime", "export")
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        try:
            self.session = runtime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exception classes are private
            reason = str(error).splitlines()[0]
            fix = "is the file whole? export it again"
            raise InputError(
                f"model: {path} does not load in ONNX Runtime ({reason}); {fix}"
            ) from None
        stored = self.session.get_modelmeta().custom_metadata_map
        super().__init__(
            f"onnxruntime {runtime.__version__}", "CPU", parse_metadata(stored, path)
        )

    def prepare(self, plan: dict[str, Buffer]) -> Ready:
        return _OnnxReady(self.session, plan)


class _OnnxReady:
    """Buffers bound to an ONNX Runtime session."""

    def __init__(self, session: Any, plan: dict[str, Buffer]) -> None:
        self.session, self.binding = session, session.io_binding()
        self.host = {
            name: np.empty(tensor.shape, tensor.dtype) for name, tensor in plan.items()
        }
        for name, array in self.host.items():
            bind = (
                self.binding.bind_input if name == contract.IMAGES else self.binding.bind_output
            )
            bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def execute(self) -> None:
        self.session.run_with_iobinding(self.binding)

    def compute_ms(self) -> float:
        start = time.perf_counter()
        self.session.run_with_iobinding(self.binding)
        return 1e3 * (time.perf_counter() - start)


def parse_metadata(stored: Mapping[str, str], path: str | Path) -> dict[str, Any]:
    """A file's metadata as values; InputError unless they are those of `tensormask-export`."""
    found = {
        k: json.loads(v) for k, v in stored.items() if k.startswith(contract.METADATA_PREFIX)
    }
    if contract.DETECTOR not in found:
        expected = "a file of tensormask-export with the whole detector inside"
        raise bad_input("model", expected, f"{path} without its metadata", "export it again")
    return found
