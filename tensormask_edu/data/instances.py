"""COCO's JSON: where it lies, and what an annotation must say before anything uses it.

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
        raise bad_input(
            "folder", f"{wanted} in it", folder, f"is {split!r} the name of the split?"
        )
    folders = [folder / "images", folder / split, folder / f"{split}2017"]
    image_folder = next((candidate for candidate in folders if candidate.is_dir()), None)
    if image_folder is None:
        raise bad_input(
            "folder", f"pictures in images/, {split}/ or {split}2017/ in it", folder
        )
    return path, image_folder


def read_ground_truth(path: Path) -> dict[str, Any]:
    """The COCO instances JSON at `path`, checked: every annotation can be used without further
    questions."""
    dataset = read_json(path, "ground truth")
    lists = ("images", "annotations", "categories")
    if not isinstance(dataset, dict) or not all(
        isinstance(dataset.get(name), list) for name in lists
    ):
        raise bad_input(
            "ground truth", f"a JSON object with the lists {', '.join(lists)}", path
        )
    try:
        sizes = _check_images(dataset["images"])
        category_ids = {
            _field(category, "id", int, "a category") for category in dataset["categories"]
        }
        for category in dataset["categories"]:
            _field(category, "name", str, f"category {category['id']}")
        _require(bool(category_ids), "at least one category", "none")
        _require(
            len(category_ids) == len(dataset["categories"]),
            "different category ids",
            "one id twice",
        )
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
        size = _field(image, "height", int, what), _field(image, "width", int, what)
        _require(
            min(size) > 0,
            f"{what} of at least 1 x 1 pixels",
            f"height {size[0]}, width {size[1]}",
        )
        _require(image_id not in sizes, "different image ids", f"{image_id} twice")
        sizes[image_id] = size
    return sizes


def _check_annotation(
    annotation: Any, sizes: dict[int, tuple[int, int]], category_ids: set[int]
) -> None:
    what = (
        f"annotation {annotation.get('id', '')}"
        if isinstance(annotation, dict)
        else "an annotation"
    )
    image_id = _field(annotation, "image_id", int, what)
    _require(
        image_id in sizes, f"{what} to be of an image in the list", f"unknown image {image_id}"
    )
    category_id = _field(annotation, "category_id", int, what)
    known = category_id in category_ids
    _require(
        known, f"{what} to be of a category in the list", f"unknown category {category_id}"
    )
    _require(
        "segmentation" in annotation,
        f"{what} with a segmentation",
        "none",
        "boxes alone teach no masks",
    )
    check_segmentation(annotation["segmentation"], sizes[image_id], what)
    if "bbox" in annotation:
        _require(
            are_numbers(annotation["bbox"], 4),
            f"{what} with bbox x, y, width, height",
            annotation["bbox"],
        )


def check_segmentation(segmentation: Any, size: tuple[int, int], what: str) -> None:
    """Polygons or RLE of a picture of `size`, or an error that begins with `what`."""
    if isinstance(segmentation, dict):
        same = segmentation.get("size") == list(size)
        _require(
            same,
            f"{what} with RLE size [height, width] = {list(size)}",
            segmentation.get("size"),
        )
        _check_counts(segmentation.get("counts"), size[0] * size[1], what)
        return
    polygons = isinstance(segmentation, list) and all(
        are_numbers(points) for points in segmentation
    )
    even = polygons and all(len(points) % 2 == 0 for points in segmentation)
    _require(
        even, f"{what} with RLE or polygons [[x, y, x, y, ...], ...]", str(segmentation)[:60]
    )


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


def is_target(annotation: dict[str, Any]) -> bool:
    segmentation = annotation["segmentation"]
    return not annotation.get("iscrowd") and (
        isinstance(segmentation, dict) or bool(polygons_of(segmentation))
    )


def check_polygons(annotations: Iterable[dict[str, Any]]) -> None:
    for annotation in filter(is_target, annotations):
        if isinstance(annotation["segmentation"], dict):
            got = f"annotation {annotation.get('id', '')} stored as a mask"
            raise bad_input(
                "polygons", "a data set of polygons", got, "leave it False and use masks"
            )


def check_files_exist(images: Iterable[dict[str, Any]], folder: Path, json_path: Path) -> None:
    names = {entry.name for entry in folder.iterdir()}
    for image in images:
        name = image["file_name"]
        if name not in names and not (folder / name).is_file():
            raise bad_input(
                "image file", f"{name} (named in {json_path.name}) in {folder}", "no such file"
            )


def boxes_of(
    annotations: Sequence[dict[str, Any]], rles: Sequence[dict[str, Any]], size: tuple[int, int]
) -> NDArray[np.float64]:
    """Boxes (m, 4) xyxy: a polygon's from its annotation, clipped; a mask's from the mask."""
    from pycocotools import mask as mask_utils

    if not annotations:
        return np.zeros((0, 4))
    boxes = mask_utils.toBbox(list(rles)).astype(np.float64)
    for k, annotation in enumerate(annotations):
        if "bbox" in annotation and not isinstance(annotation["segmentation"], dict):
            boxes[k] = annotation["bbox"]
    boxes[:, 2:] += boxes[:, :2]
    height, width = size
    return boxes.clip(0, [width, height, width, height])


def _field(item: Any, name: str, kind: type, what: str) -> Any:
    if not isinstance(item, dict) or not isinstance(item.get(name), kind):
        got = item.get(name) if isinstance(item, dict) else item
        raise bad_input(what, f"a field {name!r} ({kind.__name__})", repr(got)[:60])
    return item[name]


def _require(holds: bool, expected: str, got: object, fix: str = "") -> None:
    if not holds:
        raise bad_input("ground truth", expected, got, fix)


def are_numbers(values: Any, length: int | None = None) -> bool:
    """Whether `values` is a JSON list of numbers, `length` of them if given."""
    if not isinstance(values, list) or length not in (None, len(values)):
        return False
    return all(isinstance(value, int | float) for value in values)
