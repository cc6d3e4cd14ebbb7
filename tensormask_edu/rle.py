"""COCO's run-length masks and arrays, both ways: pycocotools behind two functions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def decode(rles: Sequence[dict[str, Any]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Compressed RLEs, all of `size` (height, width), as masks: bool (m, H, W), columns first in memory.

    Raises:
        ValueError: run lengths that do not fill the picture.
    """
    from pycocotools import mask as mask_utils

    if not rles:
        return np.zeros((0, *size), dtype=bool)
    with warnings.catch_warnings():  # pycocotools 2.0.11 hands NumPy 2 an array of the old protocol
        warnings.simplefilter("ignore", DeprecationWarning)
        stacked = mask_utils.decode(list(rles))  # (H, W, m), first axis fastest in memory
    return stacked.transpose(2, 0, 1).view(bool)


def encode(masks: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Masks, bool (m, H, W), as compressed RLEs with `counts` as text, ready for JSON."""
    from pycocotools import mask as mask_utils

    if masks.shape[0] == 0:
        return []
    columns_first = np.ascontiguousarray(masks.transpose(0, 2, 1)).view(np.uint8)  # the order RLE counts in
    rles = mask_utils.encode(columns_first.transpose(2, 1, 0))
    return [{"size": rle["size"], "counts": rle["counts"].decode("ascii")} for rle in rles]


def draw(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The union of polygons [x0, y0, x1, y1, ...] in pixels, by COCO's rasteriser: bool (height, width)."""
    from pycocotools import mask as mask_utils

    if not polygons:
        return np.zeros(size, dtype=bool)
    return decode([mask_utils.merge(mask_utils.frPyObjects(list(polygons), *size))], size)[0]
