"""What a runtime gives for the samples in the file, against what PyTorch gave."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .. import contract
from ..onnx_file.samples import FOREGROUND, enlarged, numbers, unpacked
from ..runtimes.find import Runtime
from .compare import Difference, Limits, Match, difference, match

Array = NDArray[Any]


def replay(
    runtime: Runtime, samples: list[dict[str, Any]], limits: Limits
) -> tuple[list[Difference], list[Match]]:
    """What a runtime gives for the samples, against what they say."""
    differences, matches = [], []
    for number, sample in enumerate(samples):
        where = (runtime.name, f"sample {number}")
        pixels = unpacked(sample["pixels"]).reshape(sample["shape"])  # (3, h, w)
        found = runtime.run(torch.from_numpy(enlarged(pixels)))
        for name, values in sample["raw"].items():
            if name in found:
                given, expected = numbers(found[name]), np.array(values)
                differences.append(difference(where, name, given, expected, limits.raw.value))
        matches.append(_match(where, sample, found, limits))
    return differences, matches


def _match(
    where: tuple[str, str], sample: dict[str, Any], found: dict[str, Array], limits: Limits
) -> Match:
    """The sample's best detections among the runtime's."""
    count, best = int(found[contract.COUNT][0]), len(sample["scores"])
    shape = tuple(sample["masks_shape"])
    bits: Array = np.unpackbits(unpacked(sample["masks"]))[: np.prod(shape)]
    expected: dict[str, Array] = {
        "boxes": np.array(sample["boxes"], np.float32).reshape(best, 4),
        "scores": np.array(sample["scores"], np.float32),
        "labels": np.array(sample["labels"], np.int64),
        "masks": bits.reshape(shape).astype(bool),
    }
    given = {
        "boxes": found[contract.BOXES][0, :count],
        "scores": found[contract.SCORES][0, :count],
        "labels": found[contract.LABELS][0, :count],
        "masks": found[contract.MASKS_OUT][0, :count] >= FOREGROUND,
    }
    others = sample["count"] - best
    return match(where, expected, given, bool(found[contract.CONVERGED][0]), limits, others)
