"""From a model's outputs to detections in a picture's own pixels: clip, scale, paste, rank.

What `inference.to_output_size`, `paste` and `ranked` do in PyTorch, here in NumPy alone: for
whoever runs the ONNX file or an engine without PyTorch.

next: runtimes/session.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tensormask_edu.base.errors import bad_input

from .. import contract
from ..shapes import Array, Named, Size


def detections(
    outputs: Mapping[str, Array],
    metadata: Mapping[str, Any],
    input_sizes: Sequence[Size],
    output_sizes: Sequence[Size],
) -> list[Named]:
    """Per picture `boxes` (d, 4), `scores`, `labels` (d,) and `masks` (d, height, width) bool.

    Args:
        outputs: by name, as `contract` says.
        metadata: of the file, `onnx_file.read.read_metadata`.
        input_sizes: (height, width) of each picture as it entered, before it was padded.
        output_sizes: (height, width) of the pictures on which boxes and masks are wanted.
    """
    return [
        _of_one({name: outputs[name][number] for name in contract.OUTPUTS}, metadata, *sizes)
        for number, sizes in enumerate(zip(input_sizes, output_sizes, strict=True))
    ]


def _of_one(
    outputs: Named, metadata: Mapping[str, Any], input_size: Size, output_size: Size
) -> Named:
    count = int(outputs[contract.COUNT])
    growth = [o / i for o, i in zip(output_size, input_size, strict=True)]  # height, width
    scale = np.array(growth * 2, np.float32)[::-1]  # (4,): x, y, x, y, as a box has them
    config = metadata.get(contract.MODEL_CONFIG, {})  # older files lack both fields
    threshold, power = config.get("mask_threshold", 0.5), config.get("mask_score_power", 0.0)
    limit = np.array(output_size * 2, np.float32)[::-1]
    box = np.clip(outputs[contract.BOXES][:count] * scale, 0, limit)  # (d, 4)
    chosen = np.flatnonzero((box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1]))
    masks = np.zeros((len(chosen), *output_size), bool)
    for mask, number in zip(masks, chosen, strict=True):
        window = outputs[contract.WINDOWS_OUT][number]
        canvas = outputs[contract.MASKS_OUT][number]
        paste(mask, canvas, window, metadata, input_size, threshold)
    found = {
        "boxes": box[chosen],
        "scores": outputs[contract.SCORES][chosen],
        "labels": outputs[contract.LABELS][chosen],
        "masks": masks,
    }
    if power:
        means = [sureness(outputs[contract.MASKS_OUT][k], threshold) for k in chosen]
        found["scores"] = found["scores"] * np.array(means, np.float32) ** np.float32(power)
        order = np.argsort(-found["scores"], kind="stable")
        found = {name: value[order] for name, value in found.items()}
    return found


def sureness(canvas: Array, threshold: float) -> float:
    """The mean probability of the bins that reach the threshold, 0 if none does."""
    drawn = canvas[canvas >= threshold]
    return float(drawn.mean()) if len(drawn) else 0.0


def paste(
    mask: Array,
    canvas: Array,
    window: Array,
    metadata: Mapping[str, Any],
    input_size: Size,
    threshold: float,
) -> None:
    """Draw one canvas of probabilities into `mask` (height, width).

    It is true where they reach `threshold`.

    Args:
        canvas: (P, Q), see `contract.MASKS_OUT`.
        window: (4,) int64: level, size_id, y, x.
        input_size: (height, width) that became the height and width of `mask`.
    """
    level, size_id, y, x = window.tolist()
    kinds = (w for w in metadata[contract.WINDOWS] if w["level"] == level)
    kind = next((w for w in kinds if w["size_id"] == size_id), None)
    if kind is None:  # a graph that was changed
        expected = "a window that the file's metadata lists"
        raise bad_input("model", expected, (level, size_id), "export it again")
    rows = _taps(y * kind["stride_px"], kind, input_size[0], mask.shape[0])
    columns = _taps(x * kind["stride_px"], kind, input_size[1], mask.shape[1])
    (place_y, first_y, weight_y), (place_x, first_x, weight_x) = rows, columns
    if not len(first_y) or not len(first_x):  # the window lies beyond the picture
        return
    # linear between two bins, first down the rows, then along them
    above = canvas[first_y[0] : first_y[-1] + 2, first_x[0] : first_x[-1] + 2]
    first_y, first_x = first_y - first_y[0], first_x - first_x[0]
    lines = above[first_y] * (1 - weight_y)[:, None] + above[first_y + 1] * weight_y[:, None]
    values = lines[:, first_x] * (1 - weight_x) + lines[:, first_x + 1] * weight_x
    mask[place_y, place_x] = values >= threshold


def _taps(
    centre_px: int, kind: Mapping[str, Any], input_length: int, output_length: int
) -> tuple[slice, Array, Array]:
    """Says for one axis between which bins each pixel inside the window lies.

    Returns:
        the pixels, the first of each one's two bins, the weight of the second
    """
    scale = input_length / output_length
    pixel = (np.arange(output_length) + 0.5) * scale
    inside = np.flatnonzero(np.abs(pixel - centre_px) <= kind["side_px"] / 2)
    if not len(inside):
        return slice(0, 0), inside, pixel[:0].astype(np.float32)
    # one bin of border comes first; a window of an even number of bins lies half a bin off
    shift = 0 if kind["side_bins"] % 2 else 0.5
    place = pixel[inside] / kind["bin_px"] + 1 - shift
    first = np.floor(place).astype(np.int64)
    return slice(inside[0], inside[-1] + 1), first, (place - first).astype(np.float32)
