"""What `runtimes.py` gives every runtime, and how far its answer is from PyTorch's.

A subject is a model and pictures. PyTorch computes them once, each runtime's outputs come as
files, and `tensormask-export verify` says what is equal: its matching, its limits, its AP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from samples import GOLDEN, golden_model
from tensormask_export import contract
from tensormask_export.contract import CONVERGED
from tensormask_export.runtimes.detections import detections, sureness
from tensormask_export.runtimes.eager import EagerSession
from tensormask_export.runtimes.session import batch
from tensormask_export.verify.compare import LIMITS, match, match_pairs, worst
from tensormask_export.verify.pictures import Pictures, coco_pictures, picture_files
from tensormask_export.verify.scores import average_precision

from tensormask_edu.config import InputConfig
from tensormask_edu.data.coco import CocoFolder
from tensormask_edu.data.shapes import write_shapes
from tensormask_edu.detector.model import TensorMask
from tensormask_edu.weights.checkpoint import load_checkpoint

RAW_LIMIT = 1e-4  # of a raw output's largest number: float32 sums in another order
# Scores so close may change places: NMS keeps either box, the last place takes one. A bin so
# close to the mask threshold may fall on either side
TIE = 1e-5
DRAWN = 4  # pictures of a subject without a folder
R50 = "r50"  # the paper's model with weights that are random but fixed: no AP to speak of
R50_PICTURES = 20
# 800 and 1333, times 0.24: one core takes a second a picture, at full size half a minute
R50_INPUT = InputConfig(short_side_px=192, long_side_px=320)
Row = dict[str, Any]


@dataclass
class Subject:
    """A model with pictures of one kind.

    dataset: the COCO folder that the pictures are of, where AP means something; metadata: of
    the file that was exported from the model, known once it is there.
    """

    name: str
    model: TensorMask
    input_config: InputConfig
    pictures: list[Pictures]
    dataset: CocoFolder | None = None
    metadata: Mapping[str, Any] | None = None

    @property
    def drawn(self) -> bool:
        """Are the pictures small ones that were drawn for it?"""
        return self.pictures[0].image_id < 0

    def inputs(self) -> list[Any]:
        """Each picture as the file's input, (1, 3, H, W), padded."""
        return [batch(group.images, self.metadata) for group in self.pictures]

    @cached_property
    def right(self) -> list[tuple[Row, Row]]:
        """What PyTorch gives for each picture: raw outputs by name, detections."""
        pytorch = EagerSession(self.model, self.metadata)
        pairs = (pytorch.raw_and_detections(g.images, [g.output_size]) for g in self.pictures)
        return [(raw, found) for raw, (found,) in pairs]

    @cached_property
    def ap(self) -> float | None:
        """PyTorch's mask AP."""
        return self.score([found for _, found in self.right])

    def score(self, found: list[Row]) -> float | None:
        """Mask AP of detections, a dict per picture; None where there is no truth."""
        if self.dataset is None:
            return None
        ids = [group.image_id for group in self.pictures]
        return average_precision(self.dataset, list(zip(ids, found, strict=True)))["segm"]


def find_subject(words: str, size_px: int, limit: int | None, folder: Path) -> Subject:
    """MODEL, with pictures drawn into `folder`, or MODEL=COCO, with the folder's val split.

    Args:
        size_px: of drawn pictures.
        limit: at most so many pictures.
    """
    name, _, coco = words.partition("=")
    if name == R50:
        model, input_config = golden_model(GOLDEN).eval(), R50_INPUT
    else:
        model, input_config = load_checkpoint(name)
    title = Path(name).name
    if not coco:
        write_shapes(folder / "shapes", train=1, val=limit or DRAWN, size_px=size_px)
        files = sorted((folder / "shapes" / "images").glob("val_*.png"))
        return Subject(title, model, input_config, picture_files(files, input_config))
    dataset = CocoFolder(coco, "val", keep_empty=True)
    limit = limit or (R50_PICTURES if name == R50 else None)
    seen = list(coco_pictures(dataset, limit, input_config))
    return Subject(title, model, input_config, seen, None if name == R50 else dataset)


def place_of(number: int) -> str:
    """The name of a picture's file, and of the folder of what comes out of it."""
    return f"{number:04d}"


def compared(subject: Subject, folder: Path) -> Row:
    """How far a runtime's outputs, files in `folder`, are from PyTorch's; are they equal?"""
    assert subject.metadata is not None
    limits, raw_rel = LIMITS["float32"], 0.0
    rows, ties, all_given = [], [], []
    for number, (group, (raw, expected)) in enumerate(
        zip(subject.pictures, subject.right, strict=True)
    ):
        files = (folder / place_of(number)).glob("*.npy")
        found = {path.stem: np.load(path) for path in files}
        sizes = [group.input_size], [group.output_size]
        (given,) = detections(found, subject.metadata, *sizes)
        where, converged = ("", group.name), bool(found[CONVERGED][0])
        rows.append(match(where, expected, given, converged, limits))
        close = near_ties(expected, given)
        close += threshold_ties(found, expected, given, subject.metadata[contract.MODEL_CONFIG])
        ties += [{"picture": group.name, **tie} for tie in close]
        all_given.append(given)
        off = (float(abs(found[n] - v).max() / abs(v).max()) for n, v in raw.items())
        raw_rel = max(raw_rel, *off)
    all_of_them = worst(rows)
    missing = max(all_of_them.expected, all_of_them.found) - all_of_them.agreed
    same = raw_rel <= RAW_LIMIT and all_of_them.converged and missing <= len(ties)
    row = {"pictures": len(rows), "raw_rel": raw_rel, "ties": ties}
    names = ("expected", "found", "agreed", "box_px", "score", "mask_iou")
    row |= {name: getattr(all_of_them, name) for name in names}
    if (ap := subject.score(all_given)) is not None:
        row |= {"ap": ap, "ap_pytorch": subject.ap}
        same = same and abs(ap - subject.ap) <= limits.ap.value
    return {"same": same, **row}


def near_ties(expected: Row, found: Row) -> list[Row]:
    """Pairs of detections that one side alone has, of scores closer than `TIE`."""
    pairs = match_pairs(expected, found)
    ours, theirs = (set(column) for column in (zip(*pairs, strict=True) if pairs else ((), ())))
    left = [j for j in range(len(found["scores"])) if j not in theirs]
    ties = []
    for i in (i for i in range(len(expected["scores"])) if i not in ours):
        gaps = {j: abs(float(expected["scores"][i] - found["scores"][j])) for j in left}
        j = min(gaps, key=gaps.__getitem__, default=None)
        if j is not None and gaps[j] <= TIE:
            left.remove(j)
            score = float(expected["scores"][i])
            boxes = [side["boxes"][k].tolist() for side, k in ((expected, i), (found, j))]
            ties.append({"score": score, "gap": gaps[j], "boxes": boxes})
    return ties


def threshold_ties(
    outputs: Row, expected: Row, given: Row, config: Mapping[str, Any]
) -> list[Row]:
    """Detections whose scores differ because a bin of the mask lies on the threshold.

    A score weighs in the mean of the bins that reach the threshold (`mask_score_power`): a bin
    that is as large up to rounding counts here and not there. It is a tie if one side's score
    is what comes of counting the bins within `TIE` of the threshold, the other's of leaving
    them out.

    Args:
        outputs: of the runtime for the picture, each (1, ...).
        expected, given: both sides' detections.
        config: the model's, in the file.
    """
    threshold, power = config["mask_threshold"], config["mask_score_power"]
    count, limit = int(outputs[contract.COUNT][0]), LIMITS["float32"].score.value
    canvases = outputs[contract.MASKS_OUT][0, :count] if power else ()
    scores = [
        [
            float(score) * sureness(canvas, bound) ** power
            for bound in (threshold - TIE, threshold + TIE)
        ]
        for score, canvas in zip(outputs[contract.SCORES][0], canvases, strict=False)
    ]
    ties = []
    for i, j in match_pairs(expected, given):
        pair = sorted((float(expected["scores"][i]), float(given["scores"][j])))
        off = [float(np.abs(np.subtract(sorted(both), pair)).max()) for both in scores]
        if pair[1] - pair[0] > limit and off and min(off) <= limit:
            canvas = canvases[int(np.argmin(off))]
            bins = canvas[abs(canvas - threshold) <= TIE].tolist()
            ties.append({"scores": pair, "gap": pair[1] - pair[0], "bins": bins})
    return ties
