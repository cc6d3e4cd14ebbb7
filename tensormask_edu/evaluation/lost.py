"""Where AP is lost: every detection and object by kind, and the AP if a kind were mended.

An oracle mends one kind at a time and leaves the rest; what AP gains is what the kind costs.
Costs do not add up: once the one thing is mended, another may matter more.

next: evaluation/positives.py
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..masks import to_rle
from .coco_scores import (
    COCO_AREAS,
    AreaRanges,
    indexed,
    load_detections,
    score,
    three_decimals,
)
from .results import Detection

if TYPE_CHECKING:
    from pycocotools.coco import COCO

FOUND, FINE, SEEN = 0.5, 0.75, 0.1  # IoUs
COVERED = 0.5  # share of an object, or of a detection, that lies in the other
KINDS = {
    "merged": "objects in a mask that has swallowed one beside another",
    "coarse": f"found, IoU {FOUND} to {FINE}",
    "fine": f"found, IoU {FINE} and more",
    "poor": f"seen, IoU {SEEN} to {FOUND}",
    "doubled": "more detections of an object that has one",
    "false": "detections of nothing",
    "missed": "objects without any detection",
}
SHOWN = ("AP", "AP50", "AP75", "APs", "APm", "APl")
Array = NDArray[Any]


@dataclass
class Judged:
    """Detections and objects of one picture and class, by kind.

    kind: per detection; "" where a crowd takes it. objects: per detection the numbers of those
    that are its due: what mending makes of it. missed: numbers of objects.
    """

    kind: list[str]
    objects: list[list[int]]
    missed: list[int] = field(default_factory=list)


def lost(
    ground_truth: COCO,
    detections: str | Any | Sequence[Detection],
    area_ranges: AreaRanges = COCO_AREAS,
) -> dict[str, Any]:
    """How many of each kind there are, by size, and the mask scores if it were mended.

    Args:
        ground_truth: of `coco_scores.load_ground_truth`.
        detections: a COCO results JSON, or its content, with masks.
        area_ranges: px² of small, medium and large; objects count by theirs, detections of
            nothing and doubled ones by their own.

    Returns:
        {"now": scores, "kinds": {kind: {"small": number, ..., "mended": scores}}}
    """
    from pycocotools import mask as mask_utils

    detections = load_detections(detections, ground_truth)
    scenes = [Scene(*scene) for scene in _scenes(ground_truth, detections)]
    kinds: dict[str, Any] = {}
    for kind in KINDS:
        areas: list[float] = []
        mended: list[Detection] = []
        gone: set[int] = set()
        for scene in scenes:
            objects, lone = scene.of_kind(kind)
            areas += [truth["area"] for truth in objects]
            areas += [float(mask_utils.area(scene.rle(row))) for row in lone]
            mended += scene.mended(kind)
            gone |= {truth["id"] for truth in objects} if kind == "missed" else set()
        sizes = {
            name: sum(low <= area < high for area in areas)
            for name, (low, high) in area_ranges.items()
        }
        truth = _without(ground_truth, gone)
        kinds[kind] = sizes | {"mended": score(truth, mended, "segm", area_ranges)}
    return {"now": score(ground_truth, detections, "segm", area_ranges), "kinds": kinds}


def table(losses: Mapping[str, Any]) -> str:
    """What `lost` found as text: a row per kind, its numbers, and the scores if mended."""
    width = max(map(len, KINDS)) + 2
    sizes = [name for name in next(iter(losses["kinds"].values())) if name != "mended"]
    head = " " * width + "".join(f"{name:>8}" for name in sizes)
    lines = [head + "".join(f"{name:>7}" for name in SHOWN)]
    lines.append(f"{'now':{width}}" + " " * 8 * len(sizes) + _cells(losses["now"]))
    for kind, row in losses["kinds"].items():
        numbers = "".join(f"{row[name]:>8}" for name in sizes)
        lines.append(f"{kind:{width}}{numbers}{_cells(row['mended'])}")
    lines.append("Each row: how many, and the scores if this kind alone were mended.")
    lines += [f"{kind:{width}}{meaning}" for kind, meaning in KINDS.items()]
    return "\n".join(lines)


def _cells(scores: Mapping[str, float]) -> str:
    return "".join(f"{three_decimals(scores[name]):>7}" for name in SHOWN)


# --- one picture and class --------------------------------------------------------------------


class Scene:
    """One class of one picture: its objects, its detections, the judgement over them."""

    def __init__(
        self, size: tuple[int, int], truths: list[dict[str, Any]], detections: list[Detection]
    ) -> None:
        self.size = size
        self.truths = [truth for truth in truths if not truth["iscrowd"]]
        self.detections = sorted(detections, key=lambda row: -row["score"])  # stable
        found = [self.rle(row) for row in self.detections]
        crowds = [self.rle(truth) for truth in truths if truth["iscrowd"]]
        overlap = Overlap(found, [self.rle(truth) for truth in self.truths])
        in_crowd = np.asarray((Overlap(found, crowds).of_found >= COVERED).any(axis=1))
        self.judged = judge(overlap, in_crowd)

    def rle(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return to_rle(row["segmentation"], *self.size)

    def of_kind(self, kind: str) -> tuple[list[dict[str, Any]], list[Detection]]:
        """The objects of a kind, and the detections that have none."""
        if kind == "missed":
            return [self.truths[number] for number in self.judged.missed], []
        rows = zip(self.detections, self.judged.kind, self.judged.objects, strict=True)
        mine = [(row, objects) for row, its, objects in rows if its == kind]
        objects = [self.truths[number] for _, numbers in mine for number in numbers]
        return objects, [row for row, numbers in mine if not numbers]

    def mended(self, kind: str) -> list[Detection]:
        """The detections, those of this kind replaced by the objects that are their due."""
        result = []
        rows = zip(self.detections, self.judged.kind, self.judged.objects, strict=True)
        for row, its, objects in rows:
            if its != kind:
                result.append(row)
            else:
                dues = [self.rle(self.truths[number]) for number in objects]
                result += [row | {"segmentation": rle} for rle in dues]
        return result


class Overlap:
    """How D detections and G objects overlap, given as RLEs.

    iou: (D, G). of_found, of_truth: (D, G), the shared pixels' share of the detection, of the
    object.
    """

    def __init__(
        self, found: Sequence[dict[str, Any]], truth: Sequence[dict[str, Any]]
    ) -> None:
        from pycocotools import mask as mask_utils

        shape = (len(found), len(truth))
        plain = [0] * len(truth)  # none of them a crowd: IoU, not the share of the detection
        ious = mask_utils.iou(list(found), list(truth), plain) if all(shape) else 0
        self.iou: Array = np.zeros(shape) + ious
        a, b = (np.array([float(mask_utils.area(r)) for r in rles]) for rles in (found, truth))
        shared = self.iou / (1 + self.iou) * (a[:, None] + b[None])
        self.of_found: Array = shared / a.clip(min=1)[:, None]
        self.of_truth: Array = shared / b.clip(min=1)[None]


def judge(overlap: Overlap, in_crowd: Array) -> Judged:
    """The kinds of D detections, best first, and of G objects.

    First come COCO's matches at IoU 0.5. An object without one then goes to the first detection
    that swallowed it with another, else to the first that saw it at all, else it is missed.
    """
    count, objects = overlap.iou.shape
    owner = np.full(objects, -1)  # per object the detection it goes to
    match = np.full(count, -1)  # per detection its object
    for row in range(count):
        free = np.where(owner < 0, overlap.iou[row], 0)
        if objects and free.max() >= FOUND:
            match[row] = free.argmax()
            owner[match[row]] = row
    judged = Judged([""] * count, [[] for _ in range(count)])
    for row in range(count):
        covered = overlap.of_truth[row] >= COVERED
        swallowed = np.flatnonzero(covered & (owner < 0))
        if covered.sum() >= 2 and len(swallowed):
            owner[swallowed] = row
            judged.kind[row] = "merged"
        elif match[row] >= 0:
            fine = overlap.iou[row, match[row]] >= FINE
            judged.kind[row] = "fine" if fine else "coarse"
        judged.objects[row] = np.flatnonzero(owner == row).tolist()
    for row in range(count):
        if not judged.kind[row]:
            _judge_unmatched(row, overlap, owner, judged, bool(in_crowd[row]))
    judged.missed = np.flatnonzero(owner < 0).tolist()
    return judged


def _judge_unmatched(
    row: int, overlap: Overlap, owner: Array, judged: Judged, in_crowd: bool
) -> None:
    free = np.where(owner < 0, overlap.iou[row], 0)
    if len(free) and free.max() >= SEEN:
        judged.kind[row] = "poor"
        judged.objects[row] = [int(free.argmax())]
        owner[free.argmax()] = row
    elif not in_crowd:
        again = (overlap.iou[row] >= FOUND) | (overlap.of_found[row] >= COVERED)
        judged.kind[row] = "doubled" if again.any() else "false"


def _scenes(
    ground_truth: COCO, detections: Iterable[Detection]
) -> Iterable[tuple[tuple[int, int], list[dict[str, Any]], list[Detection]]]:
    """Per picture and class with anything in it: size, objects, detections."""
    scenes: dict[tuple[int, int], tuple[list[Any], list[Any]]] = {}
    for part, rows in enumerate((ground_truth.dataset["annotations"], detections)):
        for row in rows:
            key = row["image_id"], row["category_id"]
            scenes.setdefault(key, ([], []))[part].append(row)
    for (image_id, _), (truths, found) in scenes.items():
        image = ground_truth.imgs[image_id]
        yield (image["height"], image["width"]), truths, found


def _without(ground_truth: COCO, gone: set[int]) -> COCO:
    rows = ground_truth.dataset["annotations"]
    kept = [row for row in rows if row["id"] not in gone]
    return indexed(ground_truth.dataset | {"annotations": kept}) if gone else ground_truth
