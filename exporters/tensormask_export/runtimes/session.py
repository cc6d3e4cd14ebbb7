"""The one abstraction of what computes an exported model: pictures in, arrays out.

    with open_session("model.engine") as session:  # `find.py`
        found = session.detect(pictures, sizes)  # boxes, scores, labels, masks

A session does once per input shape what depends on the shape: output sizes, buffers, bindings.
After that `run` copies in, computes and copies out. `verify` asks for `all_outputs`, `predict`
for `detect`, `bench` for what is `ready`. This file loads neither a runtime nor PyTorch.

next: runtimes/onnxruntime.py
"""

from __future__ import annotations

import time
import warnings
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from tensormask_edu.base.errors import bad_input
from tensormask_edu.geometry import round_up

from .. import contract
from ..shapes import Array, Named, Profile, Shape, Size, shape_name
from .detections import detections

KEPT_SHAPES = 4  # input shapes whose buffers a session keeps; the longest unused goes first
NOT_CONVERGED = (
    "the file's NMS did not come to rest on a picture: a chain of overlapping boxes is longer "
    "than its iterations. Some detections may differ from PyTorch's"
)


class NotComputed(Exception):
    """A runtime cannot compute this input; the message says why."""


class Buffer(NamedTuple):
    """What a buffer must hold. A plan of buffers is a dict of them by tensor name."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


Metadata = Mapping[str, Any]  # of the ONNX file
Plan = dict[str, Buffer]


class Ready:
    """A runtime set up for one input shape: a function on buffers of its own.

    host: its input and outputs in this machine's memory, by name.
    """

    def __init__(self, compute: Callable[[Array], Named], plan: Plan) -> None:
        self.host: Named = {name: np.empty(*buffer) for name, buffer in plan.items()}
        self.work: Callable[[], Any] = partial(compute, self.host[contract.IMAGES])

    def execute(self) -> None:
        """From `host`'s input to `host`'s outputs."""
        outputs = self.work()
        for name in contract.OUTPUTS:
            np.copyto(self.host[name], outputs[name])

    def compute_ms(self) -> float:
        """Milliseconds of computing once more, on the input that is there, without copies."""
        start = time.perf_counter()
        self.work()
        return 1e3 * (time.perf_counter() - start)


class Session(ABC):
    """A loaded model.

    kind: one word for the runtime, see `find.py`; name: with its version; title: what a report
    on one file calls it. profile: the shapes it accepts; None: all whose sides are multiples of
    the metadata's `padding_px`.
    """

    kind: str

    def __init__(
        self, name: str, device: str, metadata: Metadata, profile: Profile | None = None
    ) -> None:
        self.name = self.title = name
        self.device, self.metadata, self.profile = device, metadata, profile
        self._ready: OrderedDict[Shape, Ready] = OrderedDict()

    @abstractmethod
    def all_outputs(self, images: Array) -> Named:
        """Every output by name, raw ones too where the runtime has them; the caller's to keep.

        Raises:
            NotComputed: the runtime is here, but not able to compute this input.
        """

    def run(self, images: Array) -> Named:
        """Outputs by the names of `contract`, for images (N, 3, H, W) float32 RGB in [0, 1].

        The arrays are this session's own buffers: they hold until the next run.
        """
        check_images(images, self.metadata, self.profile)
        ready = self.ready(images.shape)  # type: ignore[arg-type]
        np.copyto(ready.host[contract.IMAGES], images)
        ready.execute()
        return {name: ready.host[name] for name in contract.OUTPUTS}

    def detect(
        self, pictures: Sequence[Array], output_sizes: Sequence[Size] | None = None
    ) -> list[Named]:
        """What is seen on pictures (3, h, w), each in pixels of its output size.

        More pictures than an engine's largest batch run in several batches.

        Returns:
            per picture `boxes` (d, 4) xyxy, `scores`, `labels` (d,), `masks` (d, height, width)
        """
        sizes = [(picture.shape[1], picture.shape[2]) for picture in pictures]
        output_sizes = output_sizes or sizes
        largest = self.profile.max[0] if self.profile else max(1, len(pictures))
        found: list[Named] = []
        for start in range(0, len(pictures), largest):
            part = slice(start, start + largest)
            outputs = self.run(batch(pictures[part], self.metadata, self.profile))
            if not outputs[contract.CONVERGED][: len(sizes[part])].all():
                warnings.warn(NOT_CONVERGED, stacklevel=2)
            found += detections(outputs, self.metadata, sizes[part], output_sizes[part])
        return found

    def ready(self, shape: Shape) -> Ready:
        """What is set up for an input shape; set up now if it is new."""
        if shape not in self._ready:
            if len(self._ready) == KEPT_SHAPES:
                self._ready.popitem(last=False)
            plan = input_plan(shape) | output_plan(self.metadata, shape)
            self._ready[shape] = self.prepare(plan)
        self._ready.move_to_end(shape)
        return self._ready[shape]

    def prepare(self, plan: Plan) -> Ready:
        """Buffers and bindings for the tensors of `plan`."""
        return Ready(self.all_outputs, plan)

    def close(self) -> None:
        """Give buffers back."""
        self._ready.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


# --- shapes -----------------------------------------------------------------------------------


def input_plan(shape: Shape) -> Plan:
    """The input's buffer."""
    return {contract.IMAGES: Buffer(tuple(shape), np.dtype(np.float32))}


def output_plan(metadata: Metadata, shape: Shape) -> Plan:
    """The outputs' buffers for an input shape: the contract tells them before anything runs."""
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


def check_model(path: str | Path) -> None:
    """Raise InputError unless there is a file."""
    if not Path(path).is_file():
        raise bad_input("model", "an existing .onnx file or engine", path, "check the path")


def check_images(images: Any, metadata: Metadata, profile: Profile | None) -> None:
    """Raise InputError unless `images` is an array that the model takes."""
    found = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
    if found != np.float32:
        raise bad_input("images", "a float32 NumPy array in [0, 1]", found)
    check_shape(images.shape, metadata, profile)
    # a little beyond is what a smooth resize may leave; NaN fails both
    if not (images.min() >= -0.1 and images.max() <= 1.1):
        got = f"{images.min():g} to {images.max():g}"
        raise bad_input("images", "numbers from 0 to 1", got, "divide pixels of 0..255 by 255")


def check_shape(shape: Sequence[int], metadata: Metadata, profile: Profile | None) -> None:
    """Raise InputError unless the model takes images of this shape."""
    if len(shape) != 4 or shape[1] != 3 or min(shape) < 1:
        fix = "three channels, RGB: repeat a grey one, drop transparency"
        raise bad_input("images", "shape (N, 3, H, W)", tuple(shape), fix)
    padding_px = metadata[contract.PREPROCESSING]["padding_px"]
    if shape[2] % padding_px or shape[3] % padding_px:
        expected = f"sides that are multiples of {padding_px}"
        raise bad_input("images", expected, shape_name(shape), "`session.batch` pads pictures")
    if profile and not fits(profile, shape):
        smallest, largest = shape_name(profile.min), shape_name(profile.max)
        expected = f"a shape from {smallest} to {largest}, as the engine was built"
        lower = shape_name(list(map(min, shape, profile.min)))
        upper = shape_name(list(map(max, shape, profile.max)))
        options = f"--min {lower} --opt {shape_name(shape)} --max {upper}"
        fix = f"build the engine again with {options}"
        raise bad_input("images", expected, shape_name(shape), fix)


def fits(profile: Profile, shape: Sequence[int]) -> bool:
    """Does an engine of this profile accept an input of this shape?"""
    return all(a <= n <= b for a, n, b in zip(profile.min, shape, profile.max, strict=True))


def batch(
    pictures: Sequence[Array], metadata: Metadata, profile: Profile | None = None
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
    longest = (max(picture.shape[axis] for picture in pictures) for axis in (1, 2))
    sides_px = (round_up(length, preprocessing["padding_px"]) for length in longest)
    shape = [len(pictures), 3, *sides_px]
    if profile:
        shape = list(map(max, shape, profile.min))
    images = np.empty(shape, np.float32)
    images[:] = np.array(preprocessing["padding_colour"], np.float32)[:, None, None]
    for image, picture in zip(images, pictures, strict=False):  # a profile may ask for more
        image[:, : picture.shape[1], : picture.shape[2]] = picture
    return images
