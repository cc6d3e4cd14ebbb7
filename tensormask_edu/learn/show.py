"""Short looks at tensors, for lessons.

Name, shape and range; how far apart two are; pictures to begin with.

next: learn/lessons/lesson_01.py
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..base.errors import bad_input
from ..data import shapes
from ..masks import iou, tight_boxes
from ..viz.look import as_array
from .cases import Array
from .trials import as_numbers

SMOKE = "TENSORMASK_EDU_SMOKE"
ROUNDING = 1e-6  # a few float32 steps: as equal as two orders of summation can be
Value = TypeVar("Value")


def full_or_smoke(full: Value, smoke: Value) -> Value:
    """`full`, or `smoke` where a short run is asked for by TENSORMASK_EDU_SMOKE."""
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
    differing, most = int((gap > 0).sum()), f"{gap.max():.3g} at {where}"
    print(f"{words}: {differing} of {a.size} values differ, most by {most}")


def mask_iou(one: Any, other: Any) -> Array:
    """Pixels in both masks over pixels in either, for masks that pair up.

    one, other: (..., H, W) bool, arrays or tensors -> (...), an array.
    """
    return np.asarray(iou(as_array(one), as_array(other)))


def stored_sample(
    path: str | Path,
) -> tuple[Array, dict[str, Array], dict[str, Array], list[str]]:
    """The picture that `notebooks/data/make_sample.py` stored.

    Returns:
        image: (3, H, W) uint8
        truth: boxes (m, 4) xyxy px, labels (m,), masks (m, H, W) bool
        found: the same, and scores (m,), as a trained model gave them
        class_names: of the labels

    Raises:
        InputError: there is no such file.
    """
    if not Path(path).is_file():
        fix = "start the notebook in its own folder"
        raise bad_input("path", "an existing .npz file", path, fix)
    with np.load(path) as stored:  # plain arrays only: np.load refuses pickles by itself
        arrays = dict(stored)
    truth, found = _part(arrays, "truth_"), _part(arrays, "found_")
    return arrays["image"], truth, found, arrays["class_names"].tolist()


def _part(arrays: dict[str, Array], prefix: str) -> dict[str, Array]:
    part = {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
    masks = np.unpackbits(part["masks"], axis=-1)  # (m, H, W / 8) bytes -> (m, H, W) of 0 and 1
    return part | {"masks": masks.astype(bool)}


def picture_with_truth(
    number: int, size_px: int = 128, seed: int = 0, split: str = "train"
) -> tuple[Tensor, dict[str, Any]]:
    """Picture `number` of the overlap world, drawn now: nothing is stored or downloaded.

    Returns:
        image: (3, size_px, size_px) uint8
        target: masks (m, size_px, size_px) bool, boxes (m, 4) float32 xyxy px, labels (m,)
            int64
    """
    pixels, masks, labels = shapes.draw(seed, split, number, size_px)
    target = {
        "masks": torch.from_numpy(masks),
        "boxes": torch.from_numpy(tight_boxes(masks)),
        "labels": torch.tensor(labels, dtype=torch.int64),
    }
    image = np.moveaxis(pixels, -1, 0).copy()  # (H, W, 3) -> (3, H, W)
    return torch.from_numpy(image), target
