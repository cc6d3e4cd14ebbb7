"""COCO's JSON, and the one rule for what is refused, repaired or left out.

Training, evaluation and the ceiling use the same `GroundTruth`, read and mended once, before
any work. `RULES` lists what is mended and what is left out; a warning says how many of each,
and the first ids. Refused, with an error that names the annotation, is what no rule mends: an
unknown category, annotations all of which are of other images, an id of an image or a category
used twice, a size that is none, a segmentation that is neither polygons nor run lengths of the
whole picture, points that are no numbers or far from their picture, coordinates that are all
fractions. Crowds are left out of training and of the ceiling without a word, as COCO wants it;
the evaluator knows what to do with them.

next: data/truth.py
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from ..base.errors import InputError, bad_input, warn_of_input
from ..base.files import read_json
from .outlines import Shape, area_of, four_numbers, shape_of, whole_number
from .pictures import LARGEST_PX

# --- the rules --------------------------------------------------------------------------------


class Rule(NamedTuple):
    """What happens to what, and why."""

    does: Literal["repaired", "left out", "kept", "crowd"]
    what: Literal["annotations", "pictures", "categories"]
    why: str


RULES = {
    "text": Rule("repaired", "annotations", "a number is written as text"),
    "crowd": Rule("repaired", "annotations", "iscrowd is null or text, read as 0 or 1"),
    "area": Rule("repaired", "annotations", "area is no positive number, the mask's is taken"),
    "no box": Rule("repaired", "annotations", "bbox is not four numbers, the mask's is taken"),
    "other box": Rule(
        "repaired", "annotations", "bbox contradicts the mask, the mask's is taken"
    ),
    "pairs": Rule("repaired", "annotations", "points are listed otherwise than COCO does"),
    "runs in a list": Rule("repaired", "annotations", "run lengths in a list, all are taken"),
    "parts": Rule("repaired", "annotations", "a part has fewer than three points, it goes"),
    "beyond": Rule("repaired", "annotations", "the outline is cut at the picture's border"),
    "no picture": Rule("left out", "annotations", "of no image in the list"),
    "no outline": Rule("left out", "annotations", "a box or a click, not three points or more"),
    "outside": Rule("left out", "annotations", "the outline lies outside the picture"),
    "empty": Rule("left out", "annotations", "the mask has no pixel, or is smaller than one"),
    "many crowds": Rule(
        "left out",
        "annotations",
        "iscrowd is 1, of more than a tenth: 0 is for a single object",
    ),
    "same object": Rule(
        "kept", "annotations", "another has its class, box and area: is it there twice?"
    ),
    "same file": Rule(
        "kept", "pictures", "another names this file too: does each have all its objects?"
    ),
    "root": Rule(
        "left out",
        "categories",
        "no split has an object of it, it only names the supercategory of the others",
    ),
    "same name": Rule("kept", "categories", "another has this name too: each is a class"),
    "is crowd": Rule("crowd", "annotations", "a crowd, which is neither learnt nor counted"),
    "text of a picture": Rule("repaired", "pictures", "a number is written as text"),
    "text of a category": Rule("repaired", "categories", "an id is text, or a name a number"),
    "signs": Rule("repaired", "categories", "a name has signs that cannot be shown: blanks"),
    "renamed": Rule("repaired", "pictures", "the file was found by another form of its name"),
}
FIRST = 5  # ids that a warning names
# COCO has a crowd in a hundred annotations. Tools that write iscrowd 1 for whatever was painted
# have many; their objects would be lost without a word.
CROWDED = 0.1

# A box fits its mask if each side is at most this far off: of the box's extent, and in px at
# least, for programs that round.
FIT, FIT_PX = 0.05, 2.0
UNIT = 1.5  # polygons that all stay below are in shares of their picture, if a little beyond it


@dataclass
class Findings:
    """Which rules were needed: the ids that each of them met."""

    ids: dict[str, list[Any]] = field(default_factory=dict)
    _last: dict[str, Any] = field(default_factory=dict, repr=False)

    def add(self, rule: str, number: Any, item: Any = None) -> None:
        """A rule of `RULES` was needed for what has this id.

        item: the JSON object itself, for a rule that may be needed for two of its fields. Ids
        do not tell: some tools give all annotations the same one.
        """
        if item is None or self._last.get(rule) is not item:
            self.ids.setdefault(rule, []).append(number)
        self._last[rule] = item

    def lines(self, *does: str) -> list[str]:
        """A line per rule that does one of these (default: all of them)."""
        return [
            f"{len(ids)} {rule.what} {rule.does}: {rule.why} (ids {_some(ids)})"
            for name, rule in RULES.items()
            if (ids := self.ids.get(name)) and (not does or rule.does in does)
        ]

    def tell(self, where: str | Path) -> None:
        """Warn of what was repaired, left out or looks wrong, a line for each rule."""
        for line in self.lines("repaired", "left out", "kept"):
            warn_of_input(f"{where}: {line}")


def _some(ids: Sequence[Any]) -> str:
    return ", ".join(map(str, ids[:FIRST])) + (", ..." if len(ids) > FIRST else "")


# --- reading ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class GroundTruth:
    """A COCO instances file, checked and mended: every annotation can be used as it is.

    An annotation has id, image_id, category_id, iscrowd (0 or 1), segmentation, bbox (x, y,
    width, height) and area.
    """

    path: Path
    images: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    findings: Findings

    def of_images(self, ids: Iterable[int]) -> GroundTruth:
        """The part about some pictures."""
        chosen = set(ids)
        images = [image for image in self.images if image["id"] in chosen]
        annotations = [each for each in self.annotations if each["image_id"] in chosen]
        return replace(self, images=images, annotations=annotations)

    def without_root(self, files: Iterable[Path]) -> GroundTruth:
        """The same without the category that some tools put above all others.

        Roboflow names it like the project. It is left out if it only names the supercategory of
        all others, and no annotation in the `files` of any split is of it.
        """
        root = _root(self.categories)
        if root is None or any(root in _used(file) for file in set(files)):
            return self
        self.findings.add("root", root)
        others = [each for each in self.categories if each["id"] != root]
        self.findings.ids.pop("same name", None)  # often its only class has its name
        _note_twice("same name", ((c["id"], c["name"]) for c in others), self.findings)
        return replace(self, categories=others)

    def fingerprint(self) -> str:
        """A hash that tells data sets apart: which pictures, and which objects where."""
        pictures = [(image["id"], image["file_name"]) for image in self.images]
        names = ("image_id", "category_id", "iscrowd", "bbox")
        objects = [[each[name] for name in names] for each in self.annotations]
        return hashlib.sha256(repr((pictures, objects)).encode()).hexdigest()

    def to_coco(self) -> dict[str, Any]:
        """The same as the JSON object that COCO's tools read."""
        names = ("images", "categories", "annotations")
        return {name: [dict(each) for each in getattr(self, name)] for name in names}


def read_ground_truth(path: Path) -> GroundTruth:
    """The COCO instances JSON at `path`, checked and mended.

    Raises:
        InputError: the first thing that is wrong with it and that no rule mends.
    """
    dataset = read_json(path, "ground truth")
    lists = ("images", "annotations", "categories")
    if not all(_has_list(dataset, name) for name in lists):
        expected = f"a JSON object with the lists {', '.join(lists)}"
        missing = ", ".join(name for name in lists if not _has_list(dataset, name))
        raise bad_input("ground truth", expected, f"{path} without {missing}")
    findings = Findings()
    try:
        images = _images(dataset["images"], findings)
        categories = _categories(dataset["categories"], findings)
        reader = _Annotations(images, categories, findings)
        read = [reader.read(item, n) for n, item in enumerate(dataset["annotations"], 1)]
        reader.check_pictures(len(read))
        reader.check_unit()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    annotations = [annotation for annotation in read if annotation is not None]
    _note_doubtful(images, categories, annotations, findings)
    return GroundTruth(path, images, categories, annotations, findings)


def _has_list(dataset: Any, name: str) -> bool:
    return isinstance(dataset, dict) and isinstance(dataset.get(name), list)


def _note_doubtful(
    images: list[dict[str, Any]],
    categories: list[dict[str, Any]],
    annotations: list[dict[str, Any]],
    findings: Findings,
) -> None:
    """Note what may be meant, but often is not: doubles, as merging makes them, and crowds."""
    _note_twice("same name", ((each["id"], each["name"]) for each in categories), findings)
    _note_twice("same file", ((each["id"], each["file_name"]) for each in images), findings)
    objects = (
        (each["id"], (each["image_id"], each["category_id"], *each["bbox"], each["area"]))
        for each in annotations
    )
    _note_twice("same object", objects, findings)
    crowds = [each["id"] for each in annotations if each["iscrowd"]]
    if len(crowds) > CROWDED * len(annotations):
        findings.ids["many crowds"] = crowds
        del findings.ids["is crowd"]  # one line of two


def _note_twice(rule: str, marked: Iterable[tuple[Any, Any]], findings: Findings) -> None:
    """Note each id whose mark another before it has."""
    seen = set()
    for number, mark in marked:
        if mark in seen:
            findings.add(rule, number)
        seen.add(mark)


def _images(items: list[Any], findings: Findings) -> list[dict[str, Any]]:
    images, seen = [], set()
    for item in items:
        image_id = _number(item, "id", "an image", "text of a picture", findings)
        what = f"image {image_id}"
        _text(item, "file_name", what)
        height, width = (
            _number(item, name, what, "text of a picture", findings, image_id)
            for name in ("height", "width")
        )
        got = f"height {height}, width {width}"
        _require(min(height, width) > 0, f"{what} of at least 1 x 1 pixels", got)
        _require(height * width <= LARGEST_PX, f"{what} of at most {LARGEST_PX} pixels", got)
        _require(image_id not in seen, "different image ids", f"{image_id} twice")
        seen.add(image_id)
        images.append(item | {"id": image_id, "height": height, "width": width})
    return images


def _categories(items: list[Any], findings: Findings) -> list[dict[str, Any]]:
    categories = []
    for item in items:
        number = _number(item, "id", "a category", "text of a category", findings)
        name = item.get("name")
        if type(name) in (int, float):  # "1", "2", ... for want of names
            findings.add("text of a category", number, item)
            name = str(name)
        _text({"name": name}, "name", f"category {number}")
        # One form of letters, or a model's classes could differ from the data's by it
        name = normalize("NFC", name)
        shown = "".join(sign if sign.isprintable() else " " for sign in name)
        if shown != name:  # a line break or a terminal's commands, in every table of classes
            findings.add("signs", number)
        categories.append(item | {"id": number, "name": shown})
    ids = [category["id"] for category in categories]
    _require(bool(ids), "at least one category", "none")
    twice = next((number for number in ids if ids.count(number) > 1), None)
    _require(twice is None, "different category ids", f"{twice} twice")
    return categories


def _root(categories: list[dict[str, Any]]) -> int | None:
    """The id of the one category that is the supercategory of all others, not its own."""
    for root in categories:
        others = [each for each in categories if each is not root]
        above = {str(each.get("supercategory")) for each in others}
        if above == {root["name"]} != {str(root.get("supercategory"))}:
            return int(root["id"])
    return None


def _used(path: Path) -> set[int | None]:
    """Ids of the categories that annotations of a file are of, whatever is done with these."""
    try:
        dataset = read_json(path)
    except InputError:  # of a split that nobody asked for
        return set()
    annotations = dataset["annotations"] if _has_list(dataset, "annotations") else []
    items = (each for each in annotations if isinstance(each, dict))
    return {whole_number(each.get("category_id")) for each in items}


class _Annotations:
    """Reads annotations of some pictures and categories, one after the other."""

    def __init__(
        self, images: list[dict[str, Any]], categories: list[dict[str, Any]], findings: Findings
    ) -> None:
        self.sizes = {image["id"]: (image["height"], image["width"]) for image in images}
        self.category_ids = {category["id"] for category in categories}
        self.findings = findings
        self.elsewhere: list[int] = []  # ids of images that are not in the list
        self.drawn = self.fractions = 0  # polygons, and those that stay below UNIT

    def read(self, item: Any, place: int) -> dict[str, Any] | None:
        """The annotation mended, None if a rule leaves it out; `place` names one without id."""
        if not isinstance(item, dict):
            raise bad_input(f"annotation number {place}", "a JSON object", repr(item)[:60])
        number = item["id"] if item.get("id") is not None else f"number {place}"
        what = f"annotation {number}"
        image_id, category_id = (
            _number(item, name, what, "text", self.findings, number)
            for name in ("image_id", "category_id")
        )
        if image_id not in self.sizes:  # tools that remove a picture may leave its objects
            self.elsewhere.append(image_id)
            self.findings.add("no picture", number)
            return None
        got = f"unknown category {category_id}"
        _require(
            category_id in self.category_ids, f"{what} to be of a category in the list", got
        )
        size = self.sizes[image_id]
        segmentation = item.get("segmentation")
        if max(size) > UNIT:  # of a smaller picture pixels and shares look alike
            self._note_unit(segmentation)
        shape = shape_of(segmentation, size, what)
        if isinstance(shape, str):
            self.findings.add(shape, number)
            return None
        for rule in shape.rules:
            self.findings.add(rule, number)
        return item | {
            "id": number,
            "image_id": image_id,
            "category_id": category_id,
            "iscrowd": self._crowd(item, number, what),
            "segmentation": shape.segmentation,
            "bbox": self._box(item, shape, number),
            "area": self._area(item, shape, size, number),
        }

    def _crowd(self, item: dict[str, Any], number: Any, what: str) -> int:
        value = item.get("iscrowd", 0)
        if value is None or isinstance(value, str):
            self.findings.add("crowd", number)
            value = _SAID.get(str(value).strip().lower(), value)
        expected = f"{what} with iscrowd 0 or 1"
        _require(value in (0, 1), expected, repr(value)[:60])
        if value:
            self.findings.add("is crowd", number)
        return int(value)

    def _box(self, item: dict[str, Any], shape: Shape, number: Any) -> list[float]:
        """The file's box x, y, width, height if it fits the mask, else the mask's own."""
        given: Any = item.get("bbox")
        if four_numbers(given):
            x, y, width, height = given
            box = np.array([x, y, x + width, y + height])
            sides = shape.box[2:] - shape.box[:2]  # (2,) width, height
            near = np.abs(box - shape.box) <= np.tile((FIT * sides).clip(FIT_PX), 2)
            if near.all() and width > 0 and height > 0:
                return list(given)
            self.findings.add("other box", number)
        elif "bbox" in item:  # COCO's tools may leave it away
            self.findings.add("no box", number)
        x0, y0, x1, y1 = shape.box.tolist()
        return [x0, y0, x1 - x0, y1 - y0]

    def _area(
        self, item: dict[str, Any], shape: Shape, size: tuple[int, int], number: Any
    ) -> float:
        value: Any = item.get("area")
        if type(value) in (int, float) and 0 < value < float("inf"):
            return value
        if "area" in item:
            self.findings.add("area", number)
        return area_of(shape.segmentation, size)

    def _note_unit(self, segmentation: Any) -> None:
        if not isinstance(segmentation, list) or next(_leaves(segmentation), None) is None:
            return
        self.drawn += 1
        self.fractions += all(
            type(value) in (int, float) and abs(value) < UNIT for value in _leaves(segmentation)
        )

    def check_pictures(self, number: int) -> None:
        """Raise InputError where none of this number of annotations is of a known image."""
        got = f"none of {number}, but unknown image {', '.join(map(str, self.elsewhere[:1]))}"
        fix = "are images and annotations of the same data set?"
        known = len(self.elsewhere) < max(number, 1)
        _require(known, "annotations of images in the list", got, fix)

    def check_unit(self) -> None:
        """Raise InputError where all polygons are in shares of the picture, not pixels."""
        got = f"none above {UNIT}: shares of the picture's sides?"
        fix = "multiply x by the width and y by the height"
        _require(self.fractions < max(self.drawn, 1), "polygons in pixels", got, fix)


# What iscrowd says in text, in lower case
_SAID = {"none": 0, "": 0, "0": 0, "false": 0, "no": 0, "1": 1, "true": 1, "yes": 1}


# --- fields -----------------------------------------------------------------------------------


def _number(
    item: Any, name: str, what: str, rule: str, findings: Findings, of: Any = None
) -> int:
    """A field that holds a whole number, or text that says one, which is noted."""
    value = item.get(name) if isinstance(item, dict) else None
    number = whole_number(value)
    if number is None:
        got = value if isinstance(item, dict) else item
        raise bad_input(what, f"a field {name!r} (a whole number)", repr(got)[:60])
    if isinstance(value, str):
        findings.add(rule, number if of is None else of, item)
    return number


def _text(item: dict[str, Any], name: str, what: str) -> None:
    if not isinstance(item.get(name), str) or not item[name].strip():
        raise bad_input(what, f"a field {name!r} (text)", repr(item.get(name))[:60])


def _leaves(nested: Any) -> Iterator[Any]:
    """What stands in nested lists, one after the other."""
    for entry in nested:
        if isinstance(entry, list):
            yield from _leaves(entry)
        else:
            yield entry


def _require(holds: bool, expected: str, got: object, fix: str = "") -> None:
    if not holds:
        raise bad_input("ground truth", expected, got, fix)


# --- what training makes of it ----------------------------------------------------------------


def is_target(annotation: dict[str, Any]) -> bool:
    """Whether an annotation is something to learn: no crowd."""
    return not annotation["iscrowd"]


def check_polygons(annotations: Iterable[dict[str, Any]]) -> None:
    """Only polygons among the targets, or an error: a stored mask has no outline to draw."""
    for annotation in filter(is_target, annotations):
        if isinstance(annotation["segmentation"], dict):
            got = f"annotation {annotation['id']} stored as a mask"
            fix = "leave it False and use masks"
            raise bad_input("polygons", "a data set of polygons", got, fix)


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
        if not isinstance(annotation["segmentation"], dict):
            boxes[k] = annotation["bbox"]
    boxes[:, 2:] += boxes[:, :2]  # now xyxy
    height, width = size
    return boxes.clip(0, [width, height, width, height])
