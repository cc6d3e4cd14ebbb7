"""Small inputs inside the file, with what PyTorch gave: how they are made and packed.

They let any runtime be checked without the checkpoint: `verify/replay.py`.

A sample is a picture of a few coloured discs, stored at a quarter of its size (a kilobyte),
with some numbers of every raw output and the best detections.

next: pictures.py
"""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
import torch

from .. import contract
from ..shapes import Array, Named
from .graph import DetectorGraph

ENLARGE = 4
SIDES_PX = (64, 96)  # of the picture, rounded up to the padding
DRAWN = 8  # pictures, of which the samples are those with most detections
KEPT = 2
NUMBERS = 24  # of each raw output
BEST = 6  # detections of each sample


def make_samples(graph: DetectorGraph) -> list[dict[str, Any]]:
    """The samples of a graph, as JSON values."""
    padding_px = graph.config.geometry.padding_px
    height, width = (-(-side // padding_px) * padding_px // ENLARGE for side in SIDES_PX)
    small = [discs(seed, height, width) for seed in range(DRAWN)]
    outputs = [run(graph, pixels) for pixels in small]
    counts = [int(named[contract.COUNT][0]) for named in outputs]
    best = sorted(range(DRAWN), key=lambda i: -counts[i])[:KEPT]
    return [_sample(small[i], outputs[i]) for i in best]


def discs(seed: int, height: int, width: int) -> Array:
    """uint8 (3, height, width): discs on a plain ground."""
    random = np.random.default_rng(seed)
    picture = np.empty((3, height, width), np.uint8)
    picture[:] = random.integers(0, 256, (3, 1, 1))
    y, x = np.mgrid[:height, :width]
    for _ in range(6):
        centre, radius = random.random(2) * (height, width), random.uniform(1.5, height / 3)
        inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2
        picture[:, inside] = random.integers(0, 256, (3, 1))
    return picture


def enlarged(pixels: Array) -> Array:
    """The graph's input (1, 3, H, W) of a small picture."""
    large = pixels.repeat(ENLARGE, axis=1).repeat(ENLARGE, axis=2)
    return large[None].astype(np.float32) / 255


@torch.no_grad()
def run(graph: DetectorGraph, pixels: Array) -> Named:
    """PyTorch's outputs for a small picture."""
    images = torch.from_numpy(enlarged(pixels)).to(next(graph.parameters()).device)
    return {name: tensor.cpu().numpy() for name, tensor in graph(images).items()}


def _sample(pixels: Array, outputs: Named) -> dict[str, Any]:
    count = int(outputs[contract.COUNT][0])
    best = slice(min(count, BEST))
    raw = {
        name: some_numbers(values)
        for name, values in outputs.items()
        if name not in contract.OUTPUTS
    }
    canvases = outputs[contract.MASKS_OUT][0, best] >= 0.5
    return {
        "pixels": _packed(pixels),
        "shape": pixels.shape,
        "enlarge": ENLARGE,
        "raw": {
            name: [float(f"{value:.7g}") for value in values] for name, values in raw.items()
        },
        "count": count,
        "boxes": outputs[contract.BOXES][0, best].tolist(),
        "scores": outputs[contract.SCORES][0, best].tolist(),
        "labels": outputs[contract.LABELS][0, best].tolist(),
        "masks": _packed(
            np.packbits(canvases)
        ),  # canvases, true where the probability reaches 1/2
        "masks_shape": canvases.shape,
    }


def sample_images(sample: dict[str, Any]) -> Array:
    """The input (1, 3, H, W) of a stored sample."""
    return enlarged(_unpacked(sample["pixels"]).reshape(sample["shape"]))


def sample_detections(sample: dict[str, Any]) -> Named:
    """PyTorch's best detections on a stored sample; masks are canvases, true from 1/2 on."""
    best, shape = len(sample["scores"]), tuple(sample["masks_shape"])
    bits: Array = np.unpackbits(_unpacked(sample["masks"]))[: np.prod(shape)]
    return {
        "boxes": np.array(sample["boxes"], np.float32).reshape(best, 4),
        "scores": np.array(sample["scores"], np.float32),
        "labels": np.array(sample["labels"], np.int64),
        "masks": bits.reshape(shape).astype(bool),
    }


def some_numbers(values: Array) -> Array:
    """`NUMBERS` values of an array, evenly spaced."""
    flat = values.ravel()
    return flat[np.linspace(0, flat.size - 1, min(NUMBERS, flat.size)).astype(np.int64)]


def _packed(values: Array) -> str:
    return base64.b64encode(zlib.compress(values.tobytes(), 9)).decode()


def _unpacked(text: str) -> Array:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
