"""One COCO segmentation, looked at: what it draws, whether anything may be drawn of it.

pycocotools trusts what it is given: run lengths that do not fill the picture give random pixels
or an endless loop, points that are no numbers write beyond its memory. So nothing reaches it
that was not looked at here.

next: data/instances.py
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..base.errors import bad_input
from ..masks import run_lengths, to_rle

Size = tuple[int, int]  # height, width of a picture
Floats = NDArray[np.float64]

# Compressed run lengths: numbers of at most seven characters, all but the last of which have
# bit 5 set.
_COMPRESSED = re.compile("([P-o]{0,6}[0-O])+")

FAR = 10  # long sides of its picture: a point further from it is a mistake of some program
BEYOND_PX = 2.0  # so far outlines may reach beyond the picture without a word: rounding
SHORT = 6  # numbers: fewer are no outline, and four would be taken for a box


class Shape(NamedTuple):
    """What an annotation draws.

    segmentation: polygons of three points or more, or run lengths of the whole picture.
    box: (4,) xyxy px, around its points or its pixels, within the picture.
    rules: names in `instances.RULES` that were needed for it.
    """

    segmentation: Any
    box: Floats
    rules: list[str]


def shape_of(segmentation: Any, size: Size, what: str) -> Shape | str:
    """What a segmentation draws in a picture, or the name of the rule that leaves it out.

    Raises:
        InputError: it is nothing that draws; the error begins with `what`.
    """
    if isinstance(segmentation, dict) and segmentation:
        return _of_runs(segmentation, size, what)
    if segmentation in (None, "", {}):  # a box alone
        return "no outline"
    if _are_runs(segmentation):
        return _of_several(segmentation, size, what)
    parts, rules = outlines(segmentation, size, what)
    if not parts:
        return "no outline"
    (height, width), points = size, np.concatenate(parts).reshape(-1, 2)  # (n, 2) of x, y
    around = np.concatenate([points.min(axis=0), points.max(axis=0)])  # (4,) xyxy
    box = around.clip(0, [width, height, width, height])
    if (box[2:] <= box[:2]).any():
        return "outside" if (around != box).any() else "empty"
    if (box[2:] - box[:2] < 1).all() or not _draws(parts, box, around, size):
        return "empty"
    if np.abs(around - box).max() > BEYOND_PX:
        rules = [*rules, "beyond"]
    kept = [part.tolist() for part in parts] if rules else segmentation
    return Shape(kept, box, rules)


def check_segmentation(segmentation: Any, size: Size, what: str) -> None:
    """Raise an InputError that begins with `what`, unless this is a mask of such a picture."""
    if isinstance(segmentation, dict):
        _checked_runs(segmentation, size, what)
    elif not outlines(segmentation, size, what)[0]:
        expected = f"{_FORMS} of three points or more"
        raise bad_input(what, expected, str(segmentation)[:60])


def area_of(segmentation: Any, size: Size) -> float:
    """Pixels that a checked segmentation covers."""
    from pycocotools import mask as mask_utils

    return float(mask_utils.area(to_rle(segmentation, *size)))


# --- polygons ---------------------------------------------------------------------------------

_FORMS = "RLE or polygons [[x, y, x, y, ...], ...]"


def outlines(segmentation: Any, size: Size, what: str) -> tuple[list[Floats], list[str]]:
    """The polygons of a segmentation, x0, y0, x1, y1, ..., and the rules needed to read it.

    Understood are also points in pairs, [[x, y], ...] or [[[x, y], ...], ...], and a single
    list [x, y, ...]; parts of fewer than three points are dropped.

    Raises:
        InputError: no polygons, or points that are not finite or far from the picture.
    """
    if not isinstance(segmentation, list):
        raise bad_input(what, _FORMS, repr(segmentation)[:60])
    lists, pairs = _as_polygons(segmentation)
    parts = []
    for entry in lists:
        points, in_pairs = _numbers(entry)
        if points is None:
            raise bad_input(what, _FORMS, str(segmentation)[:60])
        _check_place(points, size, what)
        parts.append(points)
        pairs |= in_pairs
    whole = [points for points in parts if len(points) >= SHORT]
    short = bool(whole) and len(whole) < len(parts)
    return whole, ["pairs"] * pairs + ["parts"] * short


def _as_polygons(segmentation: list[Any]) -> tuple[list[Any], bool]:
    """The lists that are polygons, and whether they had to be put together for it."""
    if segmentation and not isinstance(segmentation[0], list):
        return [segmentation], True  # x, y, x, y, ... without the list around it
    two_each = all(isinstance(entry, list) and len(entry) == 2 for entry in segmentation)
    if two_each and len(segmentation) >= SHORT // 2 and _numbers(segmentation)[1]:
        return [list(chain.from_iterable(segmentation))], True
    return segmentation, False


def _numbers(entry: Any) -> tuple[Floats | None, bool]:
    """The numbers of one polygon, None if it is none; and whether they came in pairs."""
    try:
        values = np.asarray(entry)
    except ValueError:  # lists of different lengths
        return None, False
    if not values.size:
        return np.zeros(0), False
    in_pairs = values.ndim == 2 and values.shape[1] == 2
    flat = values.ndim == 1 and len(values) % 2 == 0
    if values.dtype.kind not in "iuf" or not (flat or in_pairs):
        return None, False
    return values.reshape(-1).astype(np.float64), in_pairs


def _check_place(points: Floats, size: Size, what: str) -> None:
    far = FAR * max(size)
    # Written so that NaN, which is neither below nor above anything, does not hold either
    holds = not points.size or -far <= points.min() <= points.max() <= far
    if not holds:
        got = next(value for value in points.tolist() if not abs(value) <= far)
        expected = f"points within {far} px of its picture"
        raise bad_input(what, expected, got, "mend or remove this annotation")


def _draws(parts: Sequence[Floats], box: Floats, around: Floats, size: Size) -> bool:
    """Whether a pixel comes of it; drawn only where a look at the outline does not tell."""
    # An outline with as much area as length holds a circle of radius 1, so a pixel's centre.
    whole = (around == box).all()
    if whole and any(_area(part) >= _length(part) for part in parts):
        return True
    return area_of([part.tolist() for part in parts], size) > 0


def _area(points: Floats) -> float:
    x, y = points[::2], points[1::2]
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2


def _length(points: Floats) -> float:
    step = points - np.roll(points, 2)
    return float(np.hypot(step[::2], step[1::2]).sum())


# --- run lengths ------------------------------------------------------------------------------


def _of_runs(rle: dict[str, Any], size: Size, what: str) -> Shape | str:
    from pycocotools import mask as mask_utils

    if not _checked_runs(rle, size, what):
        return "empty"
    x, y, width, height = mask_utils.toBbox(to_rle(rle, *size)).tolist()
    return Shape(rle, np.array([x, y, x + width, y + height]), [])


def _are_runs(segmentation: Any) -> bool:
    """Whether it is a list of run lengths, which pycocotools reads and COCO does not write."""
    if not isinstance(segmentation, list) or not segmentation:
        return False
    return all(isinstance(entry, dict) and "counts" in entry for entry in segmentation)


def _of_several(rles: list[dict[str, Any]], size: Size, what: str) -> Shape | str:
    from pycocotools import mask as mask_utils

    for rle in rles:
        _checked_runs(rle, size, what)
    merged = mask_utils.merge([to_rle(rle, *size) for rle in rles])
    shape = _of_runs(merged | {"counts": merged["counts"].decode("ascii")}, size, what)
    return shape if isinstance(shape, str) else shape._replace(rules=["runs in a list"])


def _checked_runs(rle: dict[str, Any], size: Size, what: str) -> int:
    """How many pixels run lengths cover; an error if they do not fill the picture."""
    if rle.get("size") != list(size):
        expected = f"RLE size [height, width] = {list(size)}"
        raise bad_input(what, expected, rle.get("size"))
    counts, runs = rle.get("counts"), None
    if isinstance(counts, str | bytes):
        text = counts.decode("latin-1") if isinstance(counts, bytes) else counts
        runs = run_lengths(text).tolist() if _COMPRESSED.fullmatch(text) else None
    elif isinstance(counts, list) and all(type(run) is int for run in counts):
        runs = counts
    if runs is None or min(runs, default=-1) < 0 or sum(runs) != size[0] * size[1]:
        expected = f"RLE counts that fill {size[0] * size[1]} pixels"
        raise bad_input(what, expected, repr(counts)[:60])
    return sum(runs[1::2])


# --- numbers ----------------------------------------------------------------------------------


def whole_number(value: Any) -> int | None:
    """The whole number that a JSON value says, 4, 4.0 or "4"; None if it says none."""
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value.strip()):
        return int(value)
    whole = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if whole and abs(value) < 2**63 and value == int(value) else None


def four_numbers(values: Any) -> bool:
    """Whether `values` is a JSON list of four finite numbers."""
    if not isinstance(values, list) or len(values) != 4:
        return False
    return all(type(value) in (int, float) and abs(value) < 1e12 for value in values)
