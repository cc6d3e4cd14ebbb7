"""Where a model fails: detections and objects matched by mask IoU, each failure with numbers.

What is drawn in a picture is what the model finds with a score of at least SURE. Surest first,
a detection takes the free object that it overlaps most, if by half. What is left over on either
side, or matched badly, is a failure of one of six kinds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import box_iou
from tqdm import tqdm

from tensormask_edu import viz
from tensormask_edu.commands.predict import detect
from tensormask_edu.config import InputConfig, ModelConfig
from tensormask_edu.data.coco import CocoFolder
from tensormask_edu.data.truth import crop, crop_truth
from tensormask_edu.detector.model import TensorMask
from tensormask_edu.evaluation.ceiling import best_windows
from tensormask_edu.masks import iou

KINDS = ("missed", "merged", "doubled", "coarse outline", "wrong class", "invented")
SURE = 0.5  # score from which on a detection counts
MATCHED = 0.5  # IoU, and share of an object that a merged mask covers
FINE = 0.7  # IoU from which on an outline is not called coarse
MARGIN_PX, SMALLEST_PX = 12, 64  # around a failure in the picture; side of what is shown


@dataclass
class Failure:
    """What went wrong at some objects (indices of the truth) and detections of a picture."""

    kind: str
    picture: int  # index in the data set
    severity: float  # comparable within a kind
    objects: list[int]
    detections: list[int]


class Seen:
    """A picture, its objects and all that the model finds there, with their overlaps.

    Shapes, for T objects and D detections, surest first: iou, covered (the share of the object
    that the detection covers) and of_detection (the share of the detection) are (D, T).
    """

    def __init__(self, dataset: CocoFolder, index: int, model: TensorMask, size: InputConfig):
        self.index, self.name, self.config = index, dataset.path(index).name, model.config
        self.names, self.input = model.config.class_names, size
        self.image, self.truth = dataset[index]
        found = detect(model, self.image.numpy(), size)
        order = np.argsort(-found["scores"], kind="stable")
        self.found = {name: values[order] for name, values in found.items()}
        self.score, self.label = self.found["scores"], self.found["labels"]
        self.true_label = self.truth["labels"].numpy()
        self.measure(self.found["masks"], self.truth["masks"].numpy())

    def measure(self, found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> None:
        """Areas and overlaps of masks (D, H, W) and (T, H, W)."""
        ours, theirs = (
            masks.reshape(len(masks), math.prod(masks.shape[1:])).astype(np.float32)
            for masks in (found, truth)
        )
        both, area = ours @ theirs.T, ours.sum(1)[:, None]  # (D, T), (D, 1)
        self.area = theirs.sum(1)  # (T,) px
        self.iou = both / np.maximum(area + self.area - both, 1)
        self.covered, self.of_detection = both / self.area, both / np.maximum(area, 1)

    # --- what went wrong ------------------------------------------------------------------

    def failures(self) -> Iterator[Failure]:
        """Every failure in this picture; an object or a detection has one at most."""
        owner: dict[int, int] = {}  # object -> the detection that took it
        left = []
        for d in np.flatnonzero(self.score >= SURE).tolist():
            free = [t for t in range(len(self.area)) if t not in owner]
            t = max(free, key=lambda t: self.iou[d, t], default=None)
            if t is not None and self.iou[d, t] >= MATCHED:
                owner[t] = d
            else:
                left.append(d)
        explained = set(owner)
        for d in [*owner.values(), *left]:
            both = [t for t in self._covered_by(d) if owner.get(t, d) == d]
            if len(both) > 1:
                explained |= set(both)
                yield self._failure("merged", self.covered[d, both].min(), both, [d])
            elif d in left:
                yield self._left_over(d, owner, explained)
            else:
                yield from self._badly_matched(d, next(t for t in owner if owner[t] == d))
        for t in set(range(len(self.area))) - explained:
            yield self._failure("missed", self.area[t], [t], [])

    def _covered_by(self, d: int) -> list[int]:
        return np.flatnonzero(self.covered[d] >= MATCHED).tolist()

    def _left_over(self, d: int, owner: dict[int, int], explained: set[int]) -> Failure:
        """A detection that took no object; the object it overlaps badly counts as explained."""
        t = int(self.iou[d].argmax()) if len(self.area) else None
        if t is None or self.of_detection[d, t] < MATCHED:
            return self._failure("invented", self.score[d], [], [d])
        if t in owner:
            return self._failure("doubled", self.score[d], [t], [owner[t], d])
        explained.add(t)
        return self._failure("coarse outline", -self.iou[d, t], [t], [d])

    def _badly_matched(self, d: int, t: int) -> Iterator[Failure]:
        if self.label[d] != self.true_label[t]:
            yield self._failure("wrong class", self.score[d], [t], [d])
        elif self.iou[d, t] < FINE:
            yield self._failure("coarse outline", -self.iou[d, t], [t], [d])

    def _failure(
        self, kind: str, severity: float, objects: list[int], detections: list[int]
    ) -> Failure:
        return Failure(kind, self.index, float(severity), objects, detections)

    # --- in words -------------------------------------------------------------------------

    def words(self, failure: Failure) -> str:
        """What went wrong and, as far as numbers tell, why."""
        return getattr(self, f"_{failure.kind.replace(' ', '_')}")(failure)

    def _missed(self, failure: Failure) -> str:
        (t,) = failure.objects
        what = f"{self._object(t)} is not found"
        overlapping = np.flatnonzero(self.iou[:, t] >= MATCHED)
        if len(overlapping):
            d = int(overlapping[0])
            seen = f"a mask of IoU {self.iou[d, t]:.2f} has a score of {self.score[d]:.2f} only"
            return f"{what}: {seen}"
        best = self.iou[:, t].max(initial=0)
        return f"{what}: no mask, however unsure, overlaps it by more than IoU {best:.2f}"

    def _merged(self, failure: Failure) -> str:
        (d,), objects = failure.detections, failure.objects
        shares = " and ".join(f"{self.covered[d, t]:.0%}" for t in objects)
        areas = " and ".join(f"{self.area[t]:.0f}" for t in objects)
        masks = self.truth["masks"].numpy()[objects]
        near = "they touch" if _touch(masks) else "they lie apart"
        what = f"one {self.names[self.label[d]]} (score {self.score[d]:.2f})"
        return f"{what} covers {shares} of {len(objects)} objects of {areas} px; {near}"

    def _doubled(self, failure: Failure) -> str:
        first, second = failure.detections
        boxes = torch.from_numpy(self.found["boxes"][[first, second]])
        overlap = float(box_iou(boxes, boxes)[0, 1])
        scores = f"scores {self.score[first]:.2f} and {self.score[second]:.2f}"
        what = f"{self._object(failure.objects[0])} has two masks ({scores})"
        if self.label[first] != self.label[second]:
            one, other = (self.names[self.label[d]] for d in (first, second))
            return f"{what}, {one} and {other}: NMS compares boxes of one class only"
        limit = self.config.nms_threshold
        return f"{what}: their boxes overlap by IoU {overlap:.2f}, NMS removes above {limit:g}"

    def _coarse_outline(self, failure: Failure) -> str:
        (d,), (t,) = failure.detections, failure.objects
        what = f"the mask of {self._object(t)} has IoU {self.iou[d, t]:.2f}"
        indices, masks = best_windows(self.config, self.image, self.truth, self.input)
        if t not in indices.tolist():
            return f"{what}; no window is assigned to it"
        reachable = float(iou(masks[indices.tolist().index(t)], self.truth["masks"][t]))
        return f"{what}; the bins of its best window reach {reachable:.2f}"

    def _wrong_class(self, failure: Failure) -> str:
        (d,), (t,) = failure.detections, failure.objects
        called = f"{self.names[self.label[d]]} with score {self.score[d]:.2f}"
        right = (self.label == self.true_label[t]) & (self.iou[:, t] >= MATCHED)
        score = self.score[right].max(initial=0)
        rest = f"the right name gets {score:.2f}" if score else "the right name gets no score"
        return f"{self._object(t)} is called {called} (IoU {self.iou[d, t]:.2f}); {rest}"

    def _invented(self, failure: Failure) -> str:
        (d,) = failure.detections
        inside = self.of_detection[d].max(initial=0)
        what = f"{_a(self.names[self.label[d]])} (score {self.score[d]:.2f})"
        return f"{what} of which no object holds more than {inside:.0%}"

    def _object(self, t: int) -> str:
        return f"{_a(self.names[self.true_label[t]])} of {self.area[t]:.0f} px"

    # --- in a picture ---------------------------------------------------------------------

    def part(self, failure: Failure) -> tuple[Any, Any, Any]:
        """The image around a failure, its objects, and what the model surely finds there."""
        boxes = [self.truth["boxes"].numpy()[failure.objects]]
        boxes.append(self.found["boxes"][failure.detections])
        corners = np.concatenate(boxes)
        low, high = corners[:, :2].min(0) - MARGIN_PX, corners[:, 2:].max(0) + MARGIN_PX
        height, width = self.image.shape[-2:]
        side = min(int(max(SMALLEST_PX, (high - low).max())), height, width)
        left, top = np.clip((low + high - side) / 2, 0, [width - side, height - side])
        region = int(top), int(left), side, side
        found = {name: values[self.score >= SURE] for name, values in self.found.items()}
        names = ("boxes", "labels", "masks")  # scores would cover so small a picture
        shown = crop_truth({name: torch.from_numpy(found[name]) for name in names}, region)
        return crop(self.image, region), crop_truth(self.truth, region), shown


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _touch(masks: Any) -> bool:
    """Whether some pixel of one mask (m, H, W) is a neighbour of another's."""
    grown = np.pad(masks, ((0, 0), (1, 1), (1, 1)))
    across = grown[:, :-2, 1:-1] | grown[:, 2:, 1:-1] | grown[:, 1:-1, :-2] | grown[:, 1:-1, 2:]
    return bool(((masks | across).sum(0) > 1).any())


def failures(
    model: TensorMask, dataset: CocoFolder, size: InputConfig, most: int = 6
) -> tuple[dict[str, Any], Any]:
    """How often each kind happens, and the worst `most` of different kinds and pictures.

    Returns:
        ``{"objects": number, "counts": {kind: number}, "shown": [{"picture": file name,
        "kind": ..., "words": ...}, ...]}``, and a figure of those shown.
    """
    found, objects = [], 0
    for index in tqdm(range(len(dataset)), desc="failures", unit="image"):
        seen = Seen(dataset, index, model, size)
        objects += len(seen.area)
        found += seen.failures()
    counts = Counter(failure.kind for failure in found)
    chosen = _worst(found, most)
    pictures = [Seen(dataset, failure.picture, model, size) for failure in chosen]
    pairs = list(zip(pictures, chosen, strict=True))
    shown = [{"picture": s.name, "kind": f.kind, "words": s.words(f)} for s, f in pairs]
    figure = _figure(pairs, model.config)
    return {"objects": objects, "counts": {k: counts[k] for k in KINDS}, "shown": shown}, figure


def _worst(found: list[Failure], most: int) -> list[Failure]:
    """The worst of each kind in turn, each from another picture while there are some."""
    queues = [
        sorted((f for f in found if f.kind == kind), key=lambda f: -f.severity)
        for kind in KINDS
    ]
    chosen: list[Failure] = []
    while len(chosen) < most and any(queues):
        for queue in filter(None, queues):
            used = {failure.picture for failure in chosen}
            queue.sort(key=lambda f: f.picture in used)  # stable: the worst stays first
            chosen.append(queue.pop(0))
    return sorted(chosen[:most], key=lambda failure: KINDS.index(failure.kind))


def _figure(pairs: list[tuple[Seen, Failure]], config: ModelConfig) -> Any:
    parts = [seen.part(failure) for seen, failure in pairs]
    images, truths, found = zip(*parts, strict=True)
    titles = [f"{number} {f.kind}" for number, (_, f) in enumerate(pairs, start=1)]
    return viz.truth_and_prediction(images, truths, found, config.class_names, titles)
