"""Any folder of pictures with COCO instances, read with pycocotools' masks.

`layouts.py` knows how tools lay it out; ours is

    images/  instances_train.json  instances_val.json

Everything in the JSON is checked once, at construction, by the rule of `instances.py`, which
warns of what it mends. Pictures and masks are read when asked for.

next: data/augment.py
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..base.errors import InputError, bad_input, warn_of_input
from ..config import ModelConfig
from ..masks import decode, meet, polygons_of, to_rle
from .instances import GroundTruth, boxes_of, check_polygons, is_target, read_ground_truth
from .layouts import Data, every_split, find_pictures, find_split, ids_of_part
from .pictures import read_image
from .truth import Region, Truth, crop_truth

RLE_BYTES = 450  # of a mask in memory, beside its run lengths


class CocoFolder(Dataset[tuple[Tensor, Truth]]):
    """Pictures and their truths.

    ``dataset[i]`` is ``(image, truth)``:

        image: uint8 (3, H, W) RGB
        truth: boxes: float32 (m, 4) xyxy px; labels: int64 (m,) in 0..K-1;
            masks: bool (m, H, W); image_id: int; polygons (only if asked for)

    The box of a run-length mask is the mask's own tight box, its last pixel included (x1 = last
    + 1); the box of a polygon is the annotation's, clipped to the picture (as the official code
    trains). Truths hold no crowds; `ground_truth`, which evaluation uses, does. What else is
    left out, of both, says `instances.RULES`.

    Args:
        data: the folder of the data set in one of `layouts.LAYOUTS`, or `layouts.Files`.
        split: "train", "val" or what the file name says; "all" of one file.
        keep_empty: keep pictures without any instance (evaluation needs them, training does
            not).
        cache: keep decoded pictures and run-length masks in memory; a number: at most so many
            bytes of them.
        polygons: add ``truth["polygons"]``: per instance a list of float64 arrays x0, y0, x1,
            y1, ... in pixels. A crop moves them, and does not cut them.

    Raises:
        InputError: the first thing that is wrong with the folder or its JSON.
    """

    def __init__(
        self,
        data: Data,
        split: str,
        keep_empty: bool = False,
        cache: bool | int = False,
        polygons: bool = False,
    ) -> None:
        place = find_split(data, split)
        self.ground_truth_path, self.image_folder = place.annotations, place.images
        truth = read_ground_truth(place.annotations)
        # Other splits are looked for if there is such a category alone
        truth = truth.without_root(each.annotations for each in every_split(data, split))
        if place.part != "all":
            truth = truth.of_images(ids_of_part(truth.images, place.part))
            kept, name = len(truth.images), place.annotations.name
            warn_of_input(f"{name} holds all pictures: {kept} of them are {place.part}")
        self._other_names = find_pictures(truth.images, place.images, place.annotations)
        for image_id in self._other_names:
            truth.findings.add("renamed", image_id)
        truth.findings.tell(place.annotations.name)
        if polygons:
            check_polygons(truth.annotations)
        self.ground_truth: GroundTruth = truth
        self.keep_empty, self.polygons = keep_empty, polygons

        # A label is a category's place among the ascending ids, which may have gaps.
        categories = sorted(truth.categories, key=lambda category: category["id"])
        self.category_ids: list[int] = [category["id"] for category in categories]
        self.class_names: tuple[str, ...] = tuple(category["name"] for category in categories)
        self._label = {number: label for label, number in enumerate(self.category_ids)}

        self._annotations: dict[int, list[dict[str, Any]]] = {
            image["id"]: [] for image in truth.images
        }
        for annotation in filter(is_target, truth.annotations):
            self._annotations[annotation["image_id"]].append(annotation)
        self._images: list[dict[str, Any]] = [
            image for image in truth.images if keep_empty or self._annotations[image["id"]]
        ]
        self.image_ids: list[int] = [image["id"] for image in self._images]
        self._image_cache: dict[int, Tensor] = {}
        self._room = math.inf if cache is True else int(cache)  # bytes for more of both caches
        self._rle_cache: dict[int, list[dict[str, Any]]] = {}

    def named(self, config: ModelConfig) -> ModelConfig:
        """A model's configuration with the classes of this data set."""
        usual = self.category_ids == list(range(1, len(self.category_ids) + 1))
        ids = () if usual else tuple(self.category_ids)
        return replace(config, class_names=self.class_names, category_ids=ids)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, Truth]:
        return self.image(index), self.truth(index)

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of picture `index` in pixels, without reading it."""
        return self._images[index]["height"], self._images[index]["width"]

    def count(self, index: int) -> int:
        """How many instances picture `index` has."""
        return len(self._annotations[self.image_ids[index]])

    def path(self, index: int) -> Path:
        """The file of picture `index`."""
        image = self._images[index]
        return self.image_folder / self._other_names.get(image["id"], image["file_name"])

    def problem(self, index: int) -> str:
        """Why picture `index` cannot be read; "" if it can."""
        try:
            self.image(index)
        except InputError as error:
            return str(error)
        return ""

    def leave_out(self, indices: Collection[int]) -> None:
        """Go on without some pictures, and without their annotations."""
        self._images = [each for n, each in enumerate(self._images) if n not in indices]
        self.image_ids = [image["id"] for image in self._images]
        self.ground_truth = self.ground_truth.of_images(self.image_ids)
        self._image_cache.clear()  # keys of both are indices
        self._rle_cache.clear()

    def image(self, index: int) -> Tensor:
        """Picture `index`: uint8 (3, H, W) RGB. With `cache`, do not write into it."""
        if index in self._image_cache:
            return self._image_cache[index]
        image = torch.from_numpy(read_image(self.path(index), self.size(index)))  # (3, H, W)
        if tuple(image.shape[1:]) != self.size(index):
            expected = f"(height, width) {self.size(index)} as in the JSON"
            stored = f"{self.path(index)} with (height, width) {tuple(image.shape[1:])}"
            raise bad_input("image", expected, stored)
        if image.nbytes <= self._room:  # the first that come stay: a run sees all as often
            self._image_cache[index], self._room = image, self._room - image.nbytes
        return image

    def truth(self, index: int, region: Region | None = None) -> Truth:
        """The instances of picture `index`, or of a region of it, counted from its corner.

        Only the instances that meet the region are drawn, which makes small crops of crowded
        pictures cheap. What a region cuts gets the tight box of the part that is left.
        """
        annotations = self._annotations[self.image_ids[index]]
        rles, size = self._rles(index), self.size(index)
        boxes = boxes_of(annotations, rles, size)  # (annotations, 4)
        kept = np.arange(len(boxes))  # (m,)
        if region is not None:
            top, left, height, width = region
            kept = kept[meet(boxes, np.array([left, top, left + width, top + height]))]
        labels = [self._label[annotations[k]["category_id"]] for k in kept]
        truth: Truth = {
            "boxes": torch.from_numpy(boxes[kept].astype(np.float32)),  # (m, 4)
            "labels": torch.tensor(labels, dtype=torch.int64),  # (m,)
            "masks": torch.from_numpy(decode([rles[k] for k in kept], size)),  # (m, H, W)
            "image_id": self.image_ids[index],
        }
        if self.polygons:
            truth["polygons"] = [polygons_of(annotations[k]["segmentation"]) for k in kept]
        if region is not None:
            truth = crop_truth(truth, region)
        # pycocotools fills masks columns first; rows first is what everything after it reads
        return truth | {"masks": truth["masks"].contiguous()}

    def _rles(self, index: int) -> list[dict[str, Any]]:
        """The masks of picture `index`, compressed; polygons are drawn for this once."""
        if index in self._rle_cache:
            return self._rle_cache[index]
        height, width = self.size(index)
        annotations = self._annotations[self.image_ids[index]]
        rles = [to_rle(annotation["segmentation"], height, width) for annotation in annotations]
        size = sum(len(rle["counts"]) + RLE_BYTES for rle in rles)
        if size < self._room:
            self._rle_cache[index], self._room = rles, self._room - size
        return rles
