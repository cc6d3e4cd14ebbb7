"""Any folder of pictures with COCO instances, read with pycocotools' masks.

Two layouts are understood, for `split` = "train", "val", ...:

    images/                 instances_train.json  instances_val.json
    train2017/  val2017/    annotations/instances_train2017.json  ...      (COCO's own)

Everything in the JSON is checked once, at construction. Pictures and masks are read when asked
for.

next: data/transforms.py
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from ..base.errors import InputError, bad_input
from ..base.files import read_json
from ..masks import decode, polygons_of, run_lengths, tight_boxes, to_rle

# Compressed run lengths: numbers of at most seven characters, all but the last of which have
# bit 5 set.
_COMPRESSED = re.compile("([P-o]{0,6}[0-O])+")

# top, left, height, width in the file's pixels; a region may reach beyond the picture (zeros
# there)
Region = tuple[int, int, int, int]
Target = dict[str, Any]
Points = NDArray[np.float64]
Polygons = list[list[Points]]  # per instance a list of x0, y0, x1, y1, ...


class CocoFolder(Dataset[tuple[Tensor, Target]]):
    """Pictures and their instances.

    ``dataset[i]`` is ``(image, target)``:

        image: uint8 (3, H, W) RGB
        target: boxes: float32 (m, 4) xyxy px; labels: int64 (m,) in 0..K-1;
            masks: bool (m, H, W); image_id: int; polygons (only if asked for)

    The box of a run-length mask is the mask's own tight box, its last pixel included (x1 = last
    + 1); the box of a polygon is the annotation's, clipped to the picture (as the official code
    trains). Crowds, polygons of fewer than three points and instances with an empty box are
    left out of targets; evaluation sees the whole JSON.

    Args:
        folder: the data set; see the module for its layouts.
        split: "train", "val" or what the file name says.
        keep_empty: keep pictures without any instance (evaluation needs them, training does
            not).
        cache: keep decoded pictures and run-length masks in memory.
        polygons: add ``target["polygons"]``: per instance a list of float64 arrays x0, y0, x1,
            y1, ... in pixels. A crop moves them, and does not cut them.

    Raises:
        InputError: the first thing that is wrong with the folder or its JSON.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str,
        keep_empty: bool = False,
        cache: bool = False,
        polygons: bool = False,
    ) -> None:
        self.ground_truth_path, self.image_folder = find_split(Path(folder), split)
        dataset = read_ground_truth(self.ground_truth_path)
        _check_files_exist(dataset["images"], self.image_folder, self.ground_truth_path)
        if polygons:
            _check_polygons(dataset["annotations"])
        self.keep_empty, self.polygons = keep_empty, polygons

        categories = sorted(dataset["categories"], key=lambda category: category["id"])
        self.category_ids: list[int] = [category["id"] for category in categories]
        self.class_names: tuple[str, ...] = tuple(category["name"] for category in categories)
        self._label = {
            category_id: label for label, category_id in enumerate(self.category_ids)
        }

        self._annotations: dict[int, list[dict[str, Any]]] = {
            image["id"]: [] for image in dataset["images"]
        }
        for annotation in filter(_is_target, dataset["annotations"]):
            self._annotations[annotation["image_id"]].append(annotation)
        kept = [
            image for image in dataset["images"] if keep_empty or self._annotations[image["id"]]
        ]
        self._images: list[dict[str, Any]] = kept
        self.image_ids: list[int] = [image["id"] for image in kept]
        self._image_cache: dict[int, Tensor] | None = {} if cache else None
        self._rle_cache: dict[int, list[dict[str, Any]]] | None = {} if cache else None

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        return self.image(index), self.target(index)

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of picture `index` in pixels, without reading it."""
        return self._images[index]["height"], self._images[index]["width"]

    def path(self, index: int) -> Path:
        """The file of picture `index`."""
        return self.image_folder / self._images[index]["file_name"]

    def image(self, index: int) -> Tensor:
        """Picture `index`: uint8 (3, H, W) RGB. With `cache`, do not write into it."""
        if self._image_cache is not None and index in self._image_cache:
            return self._image_cache[index]
        image = read_image(self.path(index))
        if tuple(image.shape[1:]) != self.size(index):
            stored = f"{self.path(index)} with (height, width) {tuple(image.shape[1:])}"
            raise bad_input(
                "image", f"(height, width) {self.size(index)} as in the JSON", stored
            )
        if self._image_cache is not None:
            self._image_cache[index] = image
        return image

    def target(self, index: int, region: Region | None = None) -> Target:
        """The instances of picture `index`, or of a region of it; coordinates count from the
        region's corner.

        Only the instances that meet the region are drawn, which makes small crops of crowded
        pictures cheap. What a region cuts gets the tight box of the part that is left.
        """
        annotations = self._annotations[self.image_ids[index]]
        rles, size = self._rles(index), self.size(index)
        boxes = _boxes_of(annotations, rles, size)
        kept = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
        if region is not None:
            kept = kept[_meets(boxes[kept], region)]
        labels = np.array(
            [self._label[annotations[k]["category_id"]] for k in kept], dtype=np.int64
        )
        target: Target = {
            "boxes": torch.from_numpy(boxes[kept].astype(np.float32)),
            "labels": torch.from_numpy(labels),
            "masks": torch.from_numpy(decode([rles[k] for k in kept], size)),
            "image_id": self.image_ids[index],
        }
        if self.polygons:
            target["polygons"] = [polygons_of(annotations[k]["segmentation"]) for k in kept]
        target = target if region is None else crop_target(target, region)
        return target | {"masks": target["masks"].contiguous()}

    def _rles(self, index: int) -> list[dict[str, Any]]:
        if self._rle_cache is not None and index in self._rle_cache:
            return self._rle_cache[index]
        height, width = self.size(index)
        annotations = self._annotations[self.image_ids[index]]
        rles = [to_rle(annotation["segmentation"], height, width) for annotation in annotations]
        if self._rle_cache is not None:
            self._rle_cache[index] = rles
        return rles


# --- pictures ---------------------------------------------------------------------------------


def read_image(path: str | Path) -> Tensor:
    """A picture file as uint8 (3, H, W) RGB.

    Turned upright as its EXIF orientation says, as viewers show it. Grey and palette become
    RGB; transparency is ignored. Pictures of more than 8 bits per grey value are scaled from
    their own minimum and maximum to 0 and 255. Of several frames the first is read.
    """
    path = Path(path)
    if not path.is_file():
        raise bad_input("image", "an existing file", path, "check the path")
    try:
        with Image.open(path) as opened:
            rgb = _to_rgb(ImageOps.exif_transpose(opened))
    except (
        OSError,
        ValueError,
        SyntaxError,
        UnidentifiedImageError,
        Image.DecompressionBombError,
    ) as error:
        raise bad_input("image", "a picture that Pillow reads", f"{path} ({error})") from None
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))


def _to_rgb(picture: Image.Image) -> NDArray[np.uint8]:
    if picture.mode.startswith(("I", "F")):  # 16 and 32 bits, integer or float
        values = np.asarray(picture).astype(np.float64)
        span = max(float(values.max() - values.min()), 1e-12)
        grey = ((values - values.min()) * (255 / span)).round().astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if "transparency" in picture.info:  # a palette with transparent entries
        picture = picture.convert("RGBA")
    return np.array(picture.convert("RGB"))


# --- targets ----------------------------------------------------------------------------------


def crop_target(target: Target, region: Region) -> Target:
    """The part of a target inside `region`: cut masks with their tight boxes; what is not
    visible is gone."""
    top, left = region[:2]
    masks = crop(target["masks"], region).contiguous()
    boxes = torch.from_numpy(tight_boxes(masks.numpy()))
    visible = boxes[:, 2] > boxes[:, 0]
    cropped = select(target | {"boxes": boxes, "masks": masks}, visible)
    if "polygons" in cropped:
        offset = np.array([left, top], dtype=np.float64)
        cropped["polygons"] = map_points(cropped["polygons"], lambda points: points - offset)
    return cropped


def crop(planes: Tensor, region: Region) -> Tensor:
    """The (height, width) region of planes (..., H, W); zeros where it reaches beyond them."""
    top, left, height, width = region
    y0, x0 = max(top, 0), max(left, 0)
    inside = planes[..., y0 : max(top + height, y0), x0 : max(left + width, x0)]
    if inside.shape[-2:] == (height, width):
        return inside
    out = planes.new_zeros(*planes.shape[:-2], height, width)
    out[..., y0 - top :, x0 - left :][..., : inside.shape[-2], : inside.shape[-1]] = inside
    return out


def select(target: Target, keep: Tensor) -> Target:
    """The instances of a target for which `keep`, bool (m,), is True."""
    if bool(keep.all()):
        return target
    picked = {name: target[name][keep] for name in ("boxes", "labels", "masks")}
    if "polygons" in target:
        picked["polygons"] = [
            p for p, kept in zip(target["polygons"], keep.tolist(), strict=True) if kept
        ]
    return target | picked


def map_points(polygons: Polygons, change: Callable[[Points], Points]) -> Polygons:
    """Polygons of every instance with `change` applied to their points, (n, 2) of (x, y)."""
    return [
        [change(points.reshape(-1, 2)).reshape(-1) for points in instance]
        for instance in polygons
    ]


def _boxes_of(
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


def _meets(boxes: NDArray[np.float64], region: Region) -> NDArray[np.bool_]:
    top, left, height, width = region
    beside = (boxes[:, 0] >= left + width) | (boxes[:, 2] <= left)
    return ~(beside | (boxes[:, 1] >= top + height) | (boxes[:, 3] <= top))


# --- the JSON ---------------------------------------------------------------------------------


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


def _is_target(annotation: dict[str, Any]) -> bool:
    segmentation = annotation["segmentation"]
    return not annotation.get("iscrowd") and (
        isinstance(segmentation, dict) or bool(polygons_of(segmentation))
    )


def _check_polygons(annotations: Iterable[dict[str, Any]]) -> None:
    for annotation in filter(_is_target, annotations):
        if isinstance(annotation["segmentation"], dict):
            got = f"annotation {annotation.get('id', '')} stored as a mask"
            raise bad_input(
                "polygons", "a data set of polygons", got, "leave it False and use masks"
            )


def _check_files_exist(images: Iterable[dict[str, Any]], folder: Path, json_path: Path) -> None:
    names = {entry.name for entry in folder.iterdir()}
    for image in images:
        name = image["file_name"]
        if name not in names and not (folder / name).is_file():
            raise bad_input(
                "image file", f"{name} (named in {json_path.name}) in {folder}", "no such file"
            )


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
