"""COCO's JSON, and the one rule for what is refused, repaired or left out.

Training, evaluation and the ceiling read the same file and go by this:

- **Refused**, with an error that names the annotation: a missing field, an unknown image or
  category, an id used twice, a size that is none, a segmentation that is neither polygons nor
  run lengths of the whole picture, a box that is not four numbers, a picture file that is not
  there. A file that was read can be used without further questions.
- **Repaired**: a polygon's box is clipped to the picture; a mask's box is its own tight box,
  whatever the annotation says; a polygon's box that is missing is drawn from the polygon.
- **Left out** of training and of the ceiling: crowds, polygons of fewer than three points,
  boxes without extent. Evaluation hands the whole file to pycocotools, which has its own rule
  for crowds (`evaluation/coco_scores.py` fills in the fields that pycocotools reads).

next: data/truth.py
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..base.errors import InputError, bad_input
from ..base.files import read_json
from ..masks import polygons_of, run_lengths

# Compressed run lengths: numbers of at most seven characters, all but the last of which have
# bit 5 set.
_COMPRESSED = re.compile("([P-o]{0,6}[0-O])+")


# --- where it lies ----------------------------------------------------------------------------


def find_split(folder: Path, split: str) -> tuple[Path, Path]:
    """The ground truth file and the image folder of a split."""
    if not folder.is_dir():
        raise bad_input("folder", "an existing folder", folder, "check the path")
    files = [
        folder / f"instances_{split}.json",
        folder / "annotations" / f"instances_{split}.json",
        folder / "annotations" / f"instances_{split}2017.json",
    ]
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        wanted = " or ".join(str(file.relative_to(folder)) for file in files)
        fix = f"is {split!r} the name of the split?"
        raise bad_input("folder", f"{wanted} in it", folder, fix)
    folders = [folder / "images", folder / split, folder / f"{split}2017"]
    image_folder = next((candidate for candidate in folders if candidate.is_dir()), None)
    if image_folder is None:
        wanted = f"pictures in images/, {split}/ or {split}2017/ in it"
        raise bad_input("folder", wanted, folder)
    return path, image_folder


# --- what is refused --------------------------------------------------------------------------


def read_ground_truth(path: Path) -> dict[str, Any]:
    """The COCO instances JSON at `path`, checked: every annotation can be used as it is.

    Raises:
        InputError: the first thing that is wrong with it.
    """
    dataset = read_json(path, "ground truth")
    lists = ("images", "annotations", "categories")
    if not isinstance(dataset, dict) or not all(
        isinstance(dataset.get(name), list) for name in lists
    ):
        expected = f"a JSON object with the lists {', '.join(lists)}"
        raise bad_input("ground truth", expected, path)
    try:
        sizes = _check_images(dataset["images"])
        category_ids = _check_categories(dataset["categories"])
        for annotation in dataset["annotations"]:
            _check_annotation(annotation, sizes, category_ids)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return dataset


def _check_images(images: list[Any]) -> dict[int, tuple[int, int]]:
    """Height and width by image id."""
    sizes: dict[int, tuple[int, int]] = {}
    for image in images:
        image_id = _field(image, "id", int, "an image")
        what = f"image {image_id}"
        _field(image, "file_name", str, what)
        height, width = _field(image, "height", int, what), _field(image, "width", int, what)
        got = f"height {height}, width {width}"
        _require(min(height, width) > 0, f"{what} of at least 1 x 1 pixels", got)
        _require(image_id not in sizes, "different image ids", f"{image_id} twice")
        sizes[image_id] = height, width
    return sizes


def _check_categories(categories: list[Any]) -> set[int]:
    ids = {_field(category, "id", int, "a category") for category in categories}
    for category in categories:
        _field(category, "name", str, f"category {category['id']}")
    _require(bool(ids), "at least one category", "none")
    _require(len(ids) == len(categories), "different category ids", "one id twice")
    return ids


def _check_annotation(
    annotation: Any, sizes: dict[int, tuple[int, int]], category_ids: set[int]
) -> None:
    what = "an annotation"
    if isinstance(annotation, dict):
        what = f"annotation {annotation.get('id', '')}"
    image_id = _field(annotation, "image_id", int, what)
    got = f"unknown image {image_id}"
    _require(image_id in sizes, f"{what} to be of an image in the list", got)
    category_id = _field(annotation, "category_id", int, what)
    got = f"unknown category {category_id}"
    _require(category_id in category_ids, f"{what} to be of a category in the list", got)
    drawn, fix = "segmentation" in annotation, "boxes alone teach no masks"
    _require(drawn, f"{what} with a segmentation", "none", fix)
    check_segmentation(annotation["segmentation"], sizes[image_id], what)
    if "bbox" in annotation:
        box = annotation["bbox"]
        _require(are_numbers(box, 4), f"{what} with bbox x, y, width, height", box)


def check_segmentation(segmentation: Any, size: tuple[int, int], what: str) -> None:
    """Polygons or RLE of a picture of `size`, or an error that begins with `what`."""
    if isinstance(segmentation, dict):
        given, expected = segmentation.get("size"), list(size)
        _require(given == expected, f"{what} with RLE size [height, width] = {expected}", given)
        _check_counts(segmentation.get("counts"), size[0] * size[1], what)
        return
    polygons = isinstance(segmentation, list) and all(map(are_numbers, segmentation))
    even = polygons and all(len(points) % 2 == 0 for points in segmentation)
    expected_forms = f"{what} with RLE or polygons [[x, y, x, y, ...], ...]"
    _require(even, expected_forms, str(segmentation)[:60])


def _check_counts(counts: Any, area_px: int, what: str) -> None:
    """pycocotools trusts run lengths: a wrong sum gives random pixels or an endless loop."""
    if isinstance(counts, str | bytes):
        text = counts.decode("latin-1") if isinstance(counts, bytes) else counts
        runs = run_lengths(text) if _COMPRESSED.fullmatch(text) else None
        holds = runs is not None and runs.min() >= 0 and runs.sum() == area_px
    else:
        whole = isinstance(counts, list) and all(
            isinstance(run, int) and run >= 0 for run in counts
        )
        holds = whole and sum(counts) == area_px
    _require(holds, f"{what} with RLE counts that fill {area_px} pixels", repr(counts)[:60])


def check_polygons(annotations: Iterable[dict[str, Any]]) -> None:
    """Only polygons among the targets, or an error: a stored mask has no outline to draw."""
    for annotation in filter(is_target, annotations):
        if isinstance(annotation["segmentation"], dict):
            got = f"annotation {annotation.get('id', '')} stored as a mask"
            fix = "leave it False and use masks"
            raise bad_input("polygons", "a data set of polygons", got, fix)


def check_files_exist(images: Iterable[dict[str, Any]], folder: Path, json_path: Path) -> None:
    """A file for every picture, or an error that names the first that is missing."""
    names = {entry.name for entry in folder.iterdir()}  # one call, not one per picture
    for image in images:
        name = image["file_name"]
        if name not in names and not (folder / name).is_file():  # it may lie deeper
            expected = f"{name} (named in {json_path.name}) in {folder}"
            raise bad_input("image file", expected, "no such file")


def are_numbers(values: Any, length: int | None = None) -> bool:
    """Whether `values` is a JSON list of numbers, `length` of them if given."""
    if not isinstance(values, list) or length not in (None, len(values)):
        return False
    return all(isinstance(value, int | float) for value in values)


def _field(item: Any, name: str, kind: type, what: str) -> Any:
    if not isinstance(item, dict) or not isinstance(item.get(name), kind):
        got = item.get(name) if isinstance(item, dict) else item
        raise bad_input(what, f"a field {name!r} ({kind.__name__})", repr(got)[:60])
    return item[name]


def _require(holds: bool, expected: str, got: object, fix: str = "") -> None:
    if not holds:
        raise bad_input("ground truth", expected, got, fix)


# --- what is repaired -------------------------------------------------------------------------


def boxes_of(
    annotations: Sequence[dict[str, Any]], rles: Sequence[dict[str, Any]], size: tuple[int, int]
) -> NDArray[np.float64]:
    """Boxes (m, 4) xyxy: a polygon's from its annotation, clipped; a mask's from the mask."""
    from pycocotools import mask as mask_utils

    if not annotations:
        return np.zeros((0, 4))
    boxes = mask_utils.toBbox(list(rles)).astype(np.float64)  # (m, 4) x, y, width, height
    for k, annotation in enumerate(annotations):
        # The official code trains on a polygon's annotated box, which is finer than pixels.
        if "bbox" in annotation and not isinstance(annotation["segmentation"], dict):
            boxes[k] = annotation["bbox"]
    boxes[:, 2:] += boxes[:, :2]  # now xyxy
    height, width = size
    return boxes.clip(0, [width, height, width, height])


# --- what is left out -------------------------------------------------------------------------


def is_target(annotation: dict[str, Any]) -> bool:
    """Whether an annotation is something to learn: no crowd, and a mask or a real polygon."""
    segmentation = annotation["segmentation"]
    return not annotation.get("iscrowd") and (
        isinstance(segmentation, dict) or bool(polygons_of(segmentation))
    )


def have_extent(boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which boxes (m, 4) xyxy hold anything at all: (m,)."""
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
