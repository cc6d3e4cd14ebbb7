"""Small inputs inside the file, with what PyTorch gave: a check that needs no checkpoint.

A sample is a picture of a few coloured discs, stored at a quarter of its size (a kilobyte),
with some numbers of every raw output and the best detections. This module draws pictures, packs
and unpacks in NumPy; whoever makes samples brings the model.

next: onnx_file/portable.py
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from tensormask_edu.base.errors import InputError, bad_input
from tensormask_edu.geometry import round_up

from .. import contract
from ..shapes import Array, Named

ENLARGE = 4
SIDES_PX = (64, 96)  # of the picture, rounded up to the padding
DRAWN = 8  # pictures, of which the samples are those with most detections
KEPT = 2
NUMBERS = 24  # of each raw output
BEST = 6  # detections of each sample
LARGEST = 1 << 20  # bytes of a sample's picture or masks
FOREGROUND = 0.5  # a canvas is stored as the bins whose probability reaches this


def make_samples(compute: Callable[[Array], Named], padding_px: int) -> list[dict[str, Any]]:
    """The samples of a model, as JSON values.

    Args:
        compute: all outputs by name, raw ones too, for images (1, 3, H, W) float32; called for
            each of `DRAWN` pictures.
        padding_px: the sides of `images` are multiples of it.
    """
    height, width = (round_up(side_px, padding_px) // ENLARGE for side_px in SIDES_PX)
    pictures = [discs(seed, height, width) for seed in range(DRAWN)]
    outputs = [compute(enlarged(pixels)) for pixels in pictures]
    counts = [int(named[contract.COUNT][0]) for named in outputs]
    fullest = sorted(range(DRAWN), key=lambda i: -counts[i])[:KEPT]
    return [_sample(pictures[i], outputs[i]) for i in fullest]


def discs(seed: int, height: int, width: int) -> Array:
    """uint8 (3, height, width): six discs on a plain ground."""
    random = np.random.default_rng(seed)
    picture = np.empty((3, height, width), np.uint8)
    picture[:] = random.integers(0, 256, (3, 1, 1))
    y, x = np.mgrid[:height, :width]
    for _ in range(6):
        centre, radius = random.random(2) * (height, width), random.uniform(1.5, height / 3)
        inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2  # (height, width)
        picture[:, inside] = random.integers(0, 256, (3, 1))
    return picture


def enlarged(pixels: Array) -> Array:
    """The model's input, float32 (1, 3, H, W) in [0, 1], of a small uint8 picture (3, h, w)."""
    large = pixels.repeat(ENLARGE, axis=1).repeat(ENLARGE, axis=2)  # (3, 4h, 4w)
    return large[None].astype(np.float32) / np.float32(255)


def _sample(pixels: Array, outputs: Named) -> dict[str, Any]:
    count = int(outputs[contract.COUNT][0])
    best = slice(min(count, BEST))
    raw = {name: outputs[name] for name in outputs if name not in contract.OUTPUTS}
    canvases = outputs[contract.MASKS_OUT][0, best] >= FOREGROUND  # (best, P, Q)
    return {
        "pixels": _packed(pixels),
        "shape": pixels.shape,
        "enlarge": ENLARGE,
        # seven digits: as exact as float32 sums are, and short in JSON
        "raw": {name: [float(f"{x:.7g}") for x in some_numbers(raw[name])] for name in raw},
        "count": count,
        "boxes": outputs[contract.BOXES][0, best].tolist(),
        "scores": outputs[contract.SCORES][0, best].tolist(),
        "labels": outputs[contract.LABELS][0, best].tolist(),
        "masks": _packed(np.packbits(canvases)),
        "masks_shape": canvases.shape,
    }


def some_numbers(values: Array) -> Array:
    """`NUMBERS` values of an array, evenly spaced, or all if it has fewer."""
    flat = values.ravel()
    return flat[np.linspace(0, flat.size - 1, min(NUMBERS, flat.size)).astype(np.int64)]


def sample_images(sample: dict[str, Any]) -> Array:
    """The input (1, 3, H, W) of a stored sample."""
    shape = tuple(sample["shape"])
    return enlarged(_unpacked(sample["pixels"], math.prod(shape)).reshape(shape))


def sample_detections(sample: dict[str, Any]) -> Named:
    """PyTorch's best detections on a stored sample; masks are canvases, true from 1/2 on."""
    best, shape = len(sample["scores"]), tuple(sample["masks_shape"])
    if {len(sample["boxes"]), len(sample["labels"]), shape[0]} != {best}:
        raise broken("as many boxes, labels and masks as scores")
    size = math.prod(shape)
    bits: Array = np.unpackbits(_unpacked(sample["masks"], -(-size // 8)))[:size]
    return {
        "boxes": np.array(sample["boxes"], np.float32).reshape(best, 4),
        "scores": np.array(sample["scores"], np.float32),
        "labels": np.array(sample["labels"], np.int64),
        "masks": bits.reshape(shape).astype(bool),  # (best, P, Q)
    }


def _packed(values: Array) -> str:
    """The bytes of an array as text."""
    return base64.b64encode(zlib.compress(values.tobytes(), 9)).decode()


def _unpacked(text: str, size: int) -> Array:
    """The bytes that were `_packed`, uint8 (size,): no file becomes larger than it says."""
    data = b""
    with suppress(ValueError, zlib.error):
        if 0 <= size <= LARGEST:
            data = zlib.decompressobj().decompress(base64.b64decode(text), size + 1)
    if len(data) != size:
        raise broken(f"{size} bytes, at most {LARGEST}")
    return np.frombuffer(data, np.uint8)


def broken(expected: str) -> InputError:
    """The error for samples that contradict themselves or the graph."""
    return bad_input("samples", expected, "others in the file", "export it again")
