"""Short looks at tensors, for lessons: name, shape, range; how far apart two are; something to
drag.

next: learn/lesson_04.py
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..base.errors import bad_input
from ..data import shapes
from ..masks import iou, tight_boxes
from ..viz.look import as_array
from .checks import Array, as_numbers

SMOKE = "TENSORMASK_EDU_SMOKE"
ROUNDING = 1e-6  # a few float32 steps: as equal as two orders of summation can be
Value = TypeVar("Value")


def full_or_smoke(full: Value, smoke: Value) -> Value:
    """`full`, or `smoke` where the environment variable TENSORMASK_EDU_SMOKE asks for a short
    run."""
    return smoke if os.environ.get(SMOKE) else full


def peek(**tensors: Any) -> None:
    """Print name, shape, type and range of tensors or arrays: ``peek(x=x, masks=masks)``."""
    width = max((len(name) for name in tensors), default=0)
    for name, tensor in tensors.items():
        numbers = as_numbers(tensor)
        span = f"{numbers.min():.4g} to {numbers.max():.4g}" if numbers.size else "empty"
        kind = str(getattr(tensor, "dtype", type(tensor).__name__)).removeprefix("torch.")
        print(f"{name:{width}}  {numbers.shape!s:20}  {kind:8}  {span}")


def compare(one: Any, other: Any, words: str = "the two") -> None:
    """Print whether two tensors agree, and where they differ most.

    Raises InputError if their shapes differ.
    """
    a, b = as_numbers(one), as_numbers(other)
    if a.shape != b.shape:
        raise bad_input("other", f"shape {a.shape}", b.shape)
    if np.array_equal(a, b):
        print(f"{words}: equal, all {a.size} values")
        return
    gap = np.abs(a - b)
    if gap.max() <= ROUNDING * max(1.0, float(np.abs(a).max())):
        print(f"{words}: agree, all {a.size} values to {gap.max():.1g} (rounding)")
        return
    where = tuple(int(i) for i in np.unravel_index(gap.argmax(), gap.shape))
    print(
        f"{words}: {int((gap > 0).sum())} of {a.size} values differ, most by {gap.max():.3g} at {where}"
    )


def mask_iou(one: Any, other: Any) -> Array:
    """IoU of masks that pair up, bool (..., H, W) each: pixels in both over those in either."""
    return np.asarray(iou(as_array(one), as_array(other)))  # (...)


def explore(draw: Callable[..., Any], **ranges: int) -> Any:
    """Sliders that redraw a picture: ``explore(draw, y=7, x=7)`` calls draw(y=..., x=...), each
    in 0..6.

    Needs ipywidgets; without it a sentence says so, and the lesson's still picture says the
    same.
    """
    try:
        from ipywidgets import IntSlider, interactive
    except ImportError:
        print('The explorer needs ipywidgets: pip install "tensormask-edu[learn]".')
        return None
    sliders = {}
    for name, count in ranges.items():
        settings = {"value": count // 2, "min": 0, "max": count - 1, "description": name}
        sliders[name] = IntSlider(**settings, continuous_update=False)
    return interactive(draw, **sliders)


def stored_sample(
    path: str | Path,
) -> tuple[Array, dict[str, Array], dict[str, Array], list[str]]:
    """The picture that `notebooks/data/make_sample.py` stored: (image, truth, found,
    class_names).

    image: (3, H, W) uint8. truth, found: boxes (m, 4) xyxy px, labels (m,), masks (m, H, W)
    bool; found also scores (m,), as a trained model gave them.

    Raises:
        InputError: there is no such file.
    """
    if not Path(path).is_file():
        raise bad_input(
            "path", "an existing .npz file", path, "start the notebook in its own folder"
        )
    with np.load(path) as stored:  # plain arrays only: np.load refuses pickles by itself
        arrays = dict(stored)
    parts = []
    for which in ("truth_", "found_"):
        part = {
            key.removeprefix(which): value
            for key, value in arrays.items()
            if key.startswith(which)
        }
        parts.append(part | {"masks": np.unpackbits(part["masks"], axis=-1).astype(bool)})
    return arrays["image"], parts[0], parts[1], arrays["class_names"].tolist()


def picture_with_truth(
    number: int, size_px: int = 128, seed: int = 0
) -> tuple[Tensor, dict[str, Any]]:
    """Picture `number` of the overlap world, drawn now: nothing is stored or downloaded.

    Returns:
        image: (3, size_px, size_px) uint8
        target: masks (m, size_px, size_px) bool, boxes (m, 4) float32 xyxy px, labels (m,)
            int64
    """
    pixels, masks, labels = shapes.draw(seed, "train", number, size_px)
    found, boxes = torch.from_numpy(masks), torch.from_numpy(tight_boxes(masks))
    target = {"masks": found, "boxes": boxes, "labels": torch.tensor(labels, dtype=torch.int64)}
    return torch.from_numpy(np.moveaxis(pixels, -1, 0).copy()), target
