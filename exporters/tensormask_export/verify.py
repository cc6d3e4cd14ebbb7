"""Does the ONNX file compute what PyTorch computes? Per raw output, largest absolute and relative error.

ONNX Runtime runs the file on the CPU; where a TensorRT is installed, the network that its parser makes of the
file is computed as well (`parsed.py`). PyTorch in eager mode runs `graph.RawGraph` on the same pixels. Chosen
windows need care: where two scores differ by rounding noise, the runtimes may order them differently, and
both are right. So PyTorch judges the runtime's choice: the logits at those cells must be the best ones, and
the masks at those cells must equal the runtime's.

next: backends.py
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from tensormask_edu.checkpoint import load_checkpoint
from tensormask_edu.config import InputConfig
from tensormask_edu.errors import InputError, bad_input
from tensormask_edu.model import TensorMask

from . import contract
from .graph import RawGraph, best_cells, pad_to_multiple
from .parsed import NotComputed, ParsedNetwork
from .to_onnx import read_metadata, read_onnx, required, weights_sha256

# Largest absolute difference of a raw output. float32 sums of a few thousand products, ordered differently,
# are 1e-6 to 1e-5 apart for outputs of order 1 to 10. 1e-4 leaves room for other processors, and still moves
# a probability by at most 2.5e-5 and a box of 100 px by about 0.01 px. Rounding grows with the numbers: where
# an output has values beyond 10 (mask logits of a trained model) the limit grows in proportion.
RAW_OUTPUT = 1e-4
LARGE_OUTPUT = 10.0

DEFAULT_SIZES = ((1, 128, 128), (2, 160, 224))  # batch, height, width

Array = NDArray[Any]
Named = dict[str, Array]


class Runtime(Protocol):
    """Whatever computes raw outputs from images."""

    name: str

    def run(self, images: Tensor) -> Named: ...


@dataclass(frozen=True)
class Difference:
    """One output on one input. max_rel: of values above a hundredth of the output's largest.

    Both are infinite where shapes differ or the runtime's numbers are not finite."""

    runtime: str
    input: str
    output: str
    shape: tuple[int, ...]
    max_abs: float
    max_rel: float
    passed: bool


@dataclass(frozen=True)
class VerifyReport:
    """All differences. max_abs: the worst of them; not_run: what could not be compared here, and why."""

    model: str
    checkpoint: str
    tolerance: float
    differences: list[Difference]
    not_run: dict[str, str]
    seconds: float

    @property
    def passed(self) -> bool:
        return all(d.passed for d in self.differences)

    @property
    def max_abs(self) -> float:
        return max(d.max_abs for d in self.differences)

    def to_json(self) -> dict[str, Any]:
        rows = [
            asdict(d) | {"max_abs": _finite(d.max_abs), "max_rel": _finite(d.max_rel)}
            for d in self.differences
        ]
        worst = {"passed": self.passed, "max_abs": _finite(self.max_abs)}
        return asdict(self) | worst | {"differences": rows}

    def table(self) -> str:
        """Per runtime a line per output: largest absolute difference per input, largest relative one."""
        runtimes = list(dict.fromkeys(d.runtime for d in self.differences))
        parts = [
            _table(runtime, [d for d in self.differences if d.runtime == runtime]) for runtime in runtimes
        ]
        parts += [f"not compared: {name} ({why})" for name, why in self.not_run.items()]
        verdict = "equal" if self.passed else "DIFFERENT"
        return "\n".join([*parts, f"{verdict}: worst {self.max_abs:.1e}, tolerance {self.tolerance:g}"])


def _table(title: str, differences: list[Difference]) -> str:
    inputs = list(dict.fromkeys(d.input for d in differences))
    by_place = {(d.output, d.input): d for d in differences}
    rows = [("max abs difference", *inputs, "max rel", "")]
    for output in dict.fromkeys(d.output for d in differences):
        line = [by_place[output, name] for name in inputs]
        verdict = "" if all(d.passed for d in line) else "DIFFERENT"
        max_rel = max(d.max_rel for d in line)
        rows.append((output, *(f"{d.max_abs:.1e}" for d in line), f"{max_rel:.1e}", verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([title, *lines, ""])


def verify(
    onnx_path: str | Path,
    checkpoint: str | Path,
    *,
    sizes: Sequence[tuple[int, int, int]] = DEFAULT_SIZES,
    images: Sequence[str | Path] = (),
    seed: int = 0,
) -> VerifyReport:
    """Compare the ONNX file with the checkpoint it was exported from.

    Args:
        sizes: (batch, height, width) of random pictures; sides multiples of the model's padding.
        images: picture files, prepared as the checkpoint's input configuration says.

    Raises:
        InputError: a missing package, a file that is not ours or another checkpoint's, a bad size or image.
    """
    start = time.perf_counter()
    model, input_config = load_checkpoint(checkpoint)
    graph = exported_graph(model, onnx_path)
    inputs = {_size_name(size): random_pictures(model, size, seed) for size in sizes}
    inputs |= {Path(image).name: read_picture(model, image, input_config) for image in images}
    if not inputs:
        raise bad_input("sizes", "at least one size or image", "none")
    runtimes, not_run = find_runtimes(onnx_path)
    differences: list[Difference] = []
    for runtime in runtimes:
        try:
            for name in tqdm(inputs, desc=runtime.name, disable=None, leave=False):
                differences += compare(graph, inputs[name], runtime, name)
        except NotComputed as error:
            not_run[runtime.name] = str(error)
    seconds = round(time.perf_counter() - start, 2)
    return VerifyReport(str(onnx_path), str(checkpoint), RAW_OUTPUT, differences, not_run, seconds)


def exported_graph(model: TensorMask, onnx_path: str | Path) -> RawGraph:
    """What the file was exported from, in PyTorch; InputError if that was not `model`."""
    metadata = read_metadata(read_onnx(onnx_path), onnx_path)
    if metadata[contract.WEIGHTS_SHA256] != weights_sha256(model):
        expected = "the one that the ONNX file was exported from"
        raise bad_input("checkpoint", expected, "other weights", f"export {onnx_path} again")
    masks = metadata[contract.MASKS]
    return RawGraph(model, masks["mode"], masks.get("windows_per_level")).eval()


def find_runtimes(onnx_path: str | Path) -> tuple[list[Runtime], dict[str, str]]:
    """What can compute the file here, and what cannot, with the reason."""
    runtimes: list[Runtime] = [OnnxSession(onnx_path)]
    try:
        return [*runtimes, ParsedNetwork(onnx_path)], {}
    except InputError as error:
        return runtimes, {"TensorRT's parser": str(error)}


class OnnxSession:
    """ONNX Runtime on the CPU."""

    def __init__(self, path: str | Path) -> None:
        runtime = required("onnxruntime", "export")
        self.name = f"onnxruntime {runtime.__version__} CPU"
        try:
            self.session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # its exception classes are private
            reason = str(error).splitlines()[0]
            raise InputError(f"model: {path} does not load in ONNX Runtime ({reason})") from None

    def run(self, images: Tensor) -> Named:
        """Raw outputs by name."""
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, {contract.IMAGES: images.numpy()}), strict=True))


def random_pictures(model: TensorMask, size: tuple[int, int, int], seed: int) -> Tensor:
    """Soft random blobs with noise, (N, 3, H, W) in [0, 1]: edges and flat parts, as pictures have."""
    num, height, width = size
    multiple = model.config.geometry.padding_px
    if num < 1 or height < 1 or width < 1 or height % multiple or width % multiple:
        expected = f"batch >= 1 and sides that are multiples of {multiple}"
        raise bad_input("size", expected, _size_name(size))
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(num, 3, height // multiple + 1, width // multiple + 1, generator=generator)
    blobs = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    noise = torch.randn(num, 3, height, width, generator=generator)
    return ((blobs - 0.5) * 1.5 + 0.5 + 0.05 * noise).clamp(0, 1)


def read_picture(model: TensorMask, path: str | Path, input_config: InputConfig) -> Tensor:
    """A picture file as the graph's input (1, 3, H, W): prepared, then padded to a multiple."""
    from tensormask_edu.data.coco import read_image
    from tensormask_edu.data.transforms import prepare

    return pad_to_multiple(model, prepare(read_image(path), input_config)[None])


@torch.no_grad()
def compare(graph: RawGraph, images: Tensor, runtime: Runtime, name: str) -> list[Difference]:
    """Differences between a runtime's raw outputs and PyTorch's, for the input called `name`."""
    found = runtime.run(images)
    expected = {output: tensor.numpy() for output, tensor in graph(images).items()}
    if set(found) != set(expected):
        raise bad_input("model", f"outputs {sorted(expected)}", sorted(found), "export it again")
    if graph.masks == "windows":
        expected |= _at_chosen_windows(graph, images, found)
    where = (runtime.name, name)
    return [_difference(where, output, found[output], expected[output]) for output in expected]


def _at_chosen_windows(graph: RawGraph, images: Tensor, found: Named) -> Named:
    """What PyTorch says of the windows that the runtime chose, where that choice is as good as its own."""
    output, judged = graph.network_output(images), {}
    for level, logits in enumerate(output.logits):
        for size_id, best in enumerate(graph.best_class(logits)):
            key = contract.window_index(level, size_id)
            index = torch.from_numpy(found[key])
            if _is_best_choice(index, best, graph.windows_per_level):
                judged[key] = found[key]
                masks = graph.masks_at(output, level, size_id, index)
                judged[contract.window_masks(level, size_id)] = masks.numpy()
    return judged


def _is_best_choice(index: Tensor, best: Tensor, count: int) -> bool:
    """Are `index` different cells of each image that score as high as the best ones of `best` (N, H, W)?"""
    ordered, own_choice = best_cells(best, count)
    return (
        index.shape == own_choice.shape
        and _distinct_cells(index, best.shape)
        and bool((best[index.unbind(2)] - ordered).abs().max() <= RAW_OUTPUT)
    )


def _distinct_cells(index: Tensor, grid: Sequence[int]) -> bool:
    """Is `index` (N, B, 3) inside the grid (N, H, W), each row in its own image, without repeats?"""
    inside = ((index >= 0) & (index < torch.tensor(grid))).all()
    own_image = (index[..., 0] == torch.arange(grid[0])[:, None]).all()
    return bool(inside and own_image) and len(index.flatten(0, 1).unique(dim=0)) == index[..., 0].numel()


def _difference(where: tuple[str, str], output: str, found: Array, expected: Array) -> Difference:
    if found.shape != expected.shape or not np.isfinite(found).all():
        return Difference(*where, output, found.shape, math.inf, math.inf, False)
    wide = expected.astype(np.float64)
    error = np.abs(found.astype(np.float64) - wide)
    largest = float(np.abs(wide).max(initial=0))
    large = np.abs(wide) > 0.01 * largest
    max_abs = float(error.max(initial=0))
    max_rel = float((error[large] / np.abs(wide[large])).max(initial=0))
    limit = RAW_OUTPUT * max(1.0, largest / LARGE_OUTPUT)
    return Difference(*where, output, found.shape, max_abs, max_rel, max_abs <= limit)


def _size_name(size: tuple[int, int, int]) -> str:
    return "x".join(map(str, size))


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None
