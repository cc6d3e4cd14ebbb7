"""COCO scores: pycocotools behind one function, and the way from a model's detections to it.

Under torchrun every process takes its share of the batches, and all return what one process
would.

next: evaluation/lost.py
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from ..base import distributed
from ..base.errors import InputError, bad_input, warn_of_input
from ..base.files import read_json
from ..base.memory import room_for
from ..base.progress import Progress
from ..base.values import misfit, shortened
from ..config import InputConfig
from ..data.coco import CocoFolder
from ..data.instances import read_ground_truth
from ..data.outlines import check_segmentation, four_numbers, outlines, whole_number
from ..data.prepare import prepare
from ..detector.tiles import detect_in_tiles, tiled
from ..masks import to_rle
from .results import Detection, packed, to_coco, unpacked

if TYPE_CHECKING:
    from pycocotools.coco import COCO

# In pycocotools' order
SCORE_NAMES = (
    "AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl",
)  # fmt: skip

SIZE_SCORES = SCORE_NAMES[3:6] + SCORE_NAMES[9:]  # of small, medium and large objects
# Lower and upper area in px² of "small", "medium" and "large" objects
AreaRanges = Mapping[str, tuple[float, float]]


def _areas(medium_px: int, large_px: int) -> AreaRanges:
    """Ranges that begin where an object is a square of these sides."""
    medium, large = medium_px**2, large_px**2
    return {"small": (0, medium), "medium": (medium, large), "large": (large, 1e10)}


COCO_AREAS, SHAPES_AREAS = _areas(32, 96), _areas(20, 44)  # the second for 128 px pictures


def evaluate(
    model: nn.Module,
    dataset: CocoFolder,
    input_config: InputConfig,
    batch_size: int = 4,
    progress: bool = True,
    area_ranges: AreaRanges | None = None,
) -> dict[str, Any]:
    """Mask and box scores of a model on all pictures of a data set.

    Returns:
        {"segm": {score name: value}, "bbox": {...}, "images": number, "detections": number}

    Raises:
        InputError: the data set leaves out pictures without instances, where detections are
            wrong too.
    """
    if not dataset.keep_empty:
        expected, got = "all pictures of the split", "only those with instances"
        raise bad_input("dataset", expected, got, "set keep_empty=True")
    detections, images = evaluate_model(model, dataset, input_config, batch_size, progress)
    return score_all(dataset, detections, images, area_ranges)


def score_all(
    dataset: CocoFolder,
    detections: Sequence[Detection],
    images: int,
    area_ranges: AreaRanges | None = None,
) -> dict[str, Any]:
    """The scores of `evaluate`, of what `evaluate_model` found: in all processes alike."""
    scores = {}
    if distributed.rank() == 0:
        truth = load_ground_truth(dataset)
        scores = {iou: score(truth, detections, iou, area_ranges) for iou in ("segm", "bbox")}
    scores = distributed.from_first(scores)
    return {**scores, "images": images, "detections": len(detections)}


def evaluate_model(
    model: nn.Module,
    dataset: CocoFolder,
    input_config: InputConfig,
    batch_size: int = 4,
    progress: bool = True,
) -> tuple[list[Detection], int]:
    """Detections of a model on all pictures of a data set, in the files' own pixels.

    Args:
        model: in evaluation mode, ``model(images, output_sizes=[(H, W), ...])`` is a list of
            dicts of boxes (d, 4) xyxy px, scores (d,), labels (d,) and masks, bool (d, H, W).
            Its mode is restored.

    Returns:
        the detections as objects of a COCO results file, and the number of pictures.
    """
    parameter = next(model.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    order = sorted(range(len(dataset)), key=dataset.size)  # equal sizes together: less padding
    small = [index for index in order if not tiled(dataset.size(index), input_config)]
    batches = [small[start : start + batch_size] for start in range(0, len(small), batch_size)]
    batches += [[index] for index in order if tiled(dataset.size(index), input_config)]
    found: list[bytes] = []  # of each batch
    was_training = model.training
    model.eval()
    try:
        share = distributed.share(batches)
        for batch in Progress(share, desc="evaluating", unit="batch", disable=not progress):
            with room_for(_work(dataset, batch), "--batch-size 1, or smaller pictures"):
                results = _detections(model, dataset, batch, input_config, device)
            of_batch: list[Detection] = []
            for index, result in zip(batch, results, strict=True):
                of_batch += to_coco(dataset.image_ids[index], result, dataset.category_ids)
            found.append(packed(of_batch))
    finally:
        model.train(was_training)
    return unpacked(distributed.joined(found)), len(order)


def _work(dataset: CocoFolder, batch: Sequence[int]) -> str:
    height, width = map(max, zip(*(dataset.size(index) for index in batch), strict=True))
    return f"{len(batch)} pictures of up to {height} x {width} px"


def _detections(
    model: nn.Module,
    dataset: CocoFolder,
    batch: Sequence[int],
    input_config: InputConfig,
    device: torch.device,
) -> list[dict[str, Any]]:
    """What a model finds in small pictures, all at once, or in a large one, tile by tile."""
    pictures, sizes = (
        [dataset.image(i).numpy() for i in batch],
        [dataset.size(i) for i in batch],
    )
    if tiled(sizes[0], input_config):
        return [detect_in_tiles(model, image, input_config, device) for image in pictures]
    images = [torch.from_numpy(prepare(image, input_config)).to(device) for image in pictures]
    with torch.inference_mode():
        return model(images, output_sizes=sizes)


def score(
    ground_truth: str | Path | COCO,
    detections: str | Path | Sequence[Detection],
    iou: Literal["segm", "bbox"] = "segm",
    area_ranges: AreaRanges | None = None,
    trusted: bool = False,
) -> dict[str, float]:
    """The twelve COCO scores by name, by pycocotools; -1 where no object is in the range.

    Args:
        ground_truth: an instances JSON, or one loaded by `load_ground_truth`.
        detections: a COCO results JSON, or its content.
        iou: "segm" compares masks, "bbox" boxes.
        area_ranges: other bounds of small, medium and large than COCO's, such as
            `SHAPES_AREAS`; {}: none, which leaves out the scores of sizes (APs, ..., ARl) and
            three quarters of the time.
        trusted: detections are `to_coco`'s own, of these pictures: checking each of them would
            take a fifth of the time.

    Raises:
        InputError: a file is missing or broken, or a detection does not fit the ground truth.
    """
    if iou not in ("segm", "bbox"):
        raise bad_input("iou", "'segm' or 'bbox'", repr(iou))
    evaluation = _matched(ground_truth, detections, iou, area_ranges, trusted=trusted)
    of_sizes = area_ranges is None or bool(area_ranges)
    for name in () if of_sizes else ("precision", "recall"):  # (..., areas, counts)
        # The summary reads the three sizes all the same: -1, no object
        values = evaluation.eval[name]
        missing = [(0, 0)] * (values.ndim - 2) + [(0, 3), (0, 0)]
        evaluation.eval[name] = np.pad(values, missing, constant_values=-1)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its scores
        evaluation.summarize()
    named = zip(SCORE_NAMES, evaluation.stats, strict=True)
    return {name: float(value) for name, value in named if of_sizes or name not in SIZE_SCORES}


def proposal_scores(
    ground_truth: str | Path | COCO,
    detections: str | Path | Sequence[Detection],
    area_ranges: AreaRanges | None = None,
) -> dict[str, float]:
    """Scores of masks as proposals, classes not looked at; -1 where no object is in the range.

    Args:
        ground_truth, detections, area_ranges: as of `score`.

    Returns:
        AR10, AR100 and AR1000, the recall of the best 10, 100 and 1000 masks of a picture, a
        mean over IoU .5 to .95; ARs, ARm, ARl, of the best 100; AP, AP50, AP75, of the best
        100, all objects as one class.

    Raises:
        InputError: as of `score`.
    """
    counts = (10, 100, 1000)
    evaluation = _matched(ground_truth, detections, "segm", area_ranges, counts, classes=False)
    recall = evaluation.eval["recall"][:, 0]  # (IoU, areas, counts)
    precision = evaluation.eval["precision"][:, :, 0, 0, 1]  # (IoU, recall), of the best 100
    scores = {f"AR{count}": _mean(recall[:, 0, k]) for k, count in enumerate(counts)}
    scores |= {f"AR{area}": _mean(recall[:, k, 1]) for k, area in enumerate("sml", start=1)}
    of_iou = zip(evaluation.params.iouThrs.round(2), precision, strict=True)
    by_iou = {float(iou): _mean(values) for iou, values in of_iou}
    return scores | {"AP": _mean(precision), "AP50": by_iou[0.5], "AP75": by_iou[0.75]}


def _mean(values: Any) -> float:
    """The mean of an array of scores, -1 if they are."""
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0


def _matched(
    ground_truth: str | Path | COCO,
    detections: str | Path | Sequence[Detection],
    iou: Literal["segm", "bbox"],
    area_ranges: AreaRanges | None,
    counts: Sequence[int] | None = None,
    classes: bool = True,
    trusted: bool = False,
) -> Any:
    """Pycocotools' evaluation, done but for its summary.

    Args:
        counts: how many detections of a picture are looked at; None: COCO's 1, 10, 100.
        classes: whether a detection must be of its object's class.
        trusted: as of `score`.
    """
    from pycocotools.cocoeval import COCOeval

    if isinstance(ground_truth, str | Path):
        ground_truth = load_ground_truth(ground_truth)
    field: Literal["segmentation", "bbox"] = "segmentation" if iou == "segm" else "bbox"
    if not trusted or isinstance(detections, str | Path):
        detections = load_detections(detections, ground_truth, field)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluation = COCOeval(ground_truth, _results(detections, ground_truth, field), iou)
        ranges = COCO_AREAS if area_ranges is None else area_ranges
        sizes = [list(ranges[name]) for name in ("small", "medium", "large") if ranges]
        evaluation.params.areaRng = [[0, 1e10], *sizes]  # the first counts objects of all sizes
        evaluation.params.useCats = int(classes)
        if counts:
            evaluation.params.maxDets = list(counts)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def table(scores: Mapping[str, Any]) -> str:
    """Scores as text: a row per score, a column for masks, boxes and the masks' ceiling.

    Args:
        scores: of `evaluate`, or {"segm" or "bbox": of `score`}; "ceiling" may hold another
            such dict. What is missing has no column.
    """
    columns = {"masks": scores.get("segm"), "boxes": scores.get("bbox")}
    columns["ceiling"] = scores.get("ceiling", {}).get("segm")
    shown = {title: values for title, values in columns.items() if values is not None}
    lines = [" " * 6 + "".join(f"{title:>9}" for title in shown)]
    for name in SCORE_NAMES:
        cells = (f"{three_decimals(values[name]):>9}" for values in shown.values())
        lines.append(f"{name:6}" + "".join(cells))
    if all(values["AP"] < 0 for values in shown.values()):
        lines.append("no score (-): the split has no object to find; crowds do not count")
    if "images" in scores:
        lines.append(f"{scores['detections']} detections on {scores['images']} images")
    return "\n".join(lines)


def three_decimals(value: float) -> str:
    """A score as text."""
    return "-" if value < 0 else f"{value:.3f}"  # -1: no object in the range


def load_ground_truth(
    source: str | Path | CocoFolder, image_ids: Iterable[int] | None = None
) -> COCO:
    """The truth of a data set, or of an instances JSON, checked and mended, for pycocotools.

    image_ids: of these pictures alone.
    """
    if isinstance(source, CocoFolder):
        truth = source.ground_truth  # said already what was mended
    else:
        truth = read_ground_truth(Path(source))
        truth.findings.tell(truth.path.name)
    dataset = (truth if image_ids is None else truth.of_images(image_ids)).to_coco()
    for number, annotation in enumerate(dataset["annotations"], start=1):
        annotation["id"] = number  # not from 0 on: pycocotools takes id 0 for "no match"
    return indexed(dataset)


def load_detections(
    detections: str | Path | Sequence[Detection],
    ground_truth: COCO,
    field: Literal["segmentation", "bbox"] = "segmentation",
) -> list[Detection]:
    """A COCO results file, or its content, every object checked against the ground truth."""
    where = "detections"
    if isinstance(detections, str | Path):
        where, detections = str(detections), read_json(detections, "detections")
    if not isinstance(detections, list | tuple):
        raise bad_input(where, "a JSON list of objects", type(detections).__name__)
    detections = _with_numbers(detections, where)
    try:
        for number, detection in enumerate(detections):
            _check_detection(detection, f"detection {number}", ground_truth, field)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if field == "segmentation":
        return [_with_polygons(detection, ground_truth) for detection in detections]
    return detections


def _with_polygons(detection: Detection, ground_truth: COCO) -> Detection:
    """The same with polygons as lists of numbers, in whichever form they were written."""
    if not isinstance(detection["segmentation"], list):
        return detection
    image = ground_truth.imgs[detection["image_id"]]
    size = image["height"], image["width"]
    polygons, _ = outlines(detection["segmentation"], size, "segmentation")
    return detection | {"segmentation": [points.tolist() for points in polygons]}


def _with_numbers(detections: Sequence[Any], where: str) -> list[Any]:
    """The same with ids as whole numbers, as in the truth, where they are 4.0 or "4"."""
    found, texts = list(detections), 0
    for place, detection in enumerate(found):
        if not isinstance(detection, dict):
            continue
        given = {name: detection.get(name) for name in ("image_id", "category_id")}
        if all(type(value) is int for value in given.values()):
            continue
        numbers = {name: whole_number(value) for name, value in given.items()}
        known = {name: number for name, number in numbers.items() if number is not None}
        found[place] = detection | known
        texts += any(isinstance(given[name], str) for name in known)
    if texts:
        warn_of_input(f"{where}: {texts} detections repaired: an id is written as text")
    return found


def _check_detection(detection: Any, what: str, ground_truth: COCO, field: str) -> None:
    if not isinstance(detection, dict):
        raise bad_input(what, "a JSON object", type(detection).__name__)
    for name in ("image_id", "category_id", "score", field):
        if name not in detection:
            got = ", ".join(detection) or "an empty object"
            raise bad_input(what, f"a field {name!r}", f"only {got}")
    _check_known(detection["image_id"], ground_truth.imgs, what, "image")
    _check_known(detection["category_id"], ground_truth.cats, what, "category")
    if misfit(detection["score"], float):
        raise bad_input(what, "a finite number as score", shortened(detection["score"]))
    if field == "segmentation":
        image = ground_truth.imgs[detection["image_id"]]
        check_segmentation(detection[field], (image["height"], image["width"]), what)
    elif not four_numbers(detection[field]) or min(detection[field][2:]) < 0:
        raise bad_input(what, "a bbox x, y, width, height", repr(detection[field])[:60])


def _check_known(number: Any, known: Mapping[int, Any], what: str, kind: str) -> None:
    if type(number) is not int or number not in known:
        expected, got = f"{kind} of the ground truth", f"unknown {kind} {number!r}"
        raise bad_input(what, expected, got, "are they of the same data set?")


def _results(detections: Sequence[Detection], ground_truth: COCO, field: str) -> COCO:
    """Detections as pycocotools wants them.

    Not by its loadRes, which needs at least one, writes into them, and takes the area of a mask
    from the box if both are there.
    """
    annotations = [
        {name: detection[name] for name in ("image_id", "category_id", "score")}
        | {"id": number, "iscrowd": 0}
        | _shape(detection, ground_truth, field)
        for number, detection in enumerate(detections, start=1)
    ]
    return indexed(ground_truth.dataset | {"annotations": annotations})


def _shape(detection: Detection, ground_truth: COCO, field: str) -> dict[str, Any]:
    from pycocotools import mask as mask_utils

    if field == "bbox":
        return {"bbox": detection["bbox"], "area": detection["bbox"][2] * detection["bbox"][3]}
    image = ground_truth.imgs[detection["image_id"]]
    rle = to_rle(detection["segmentation"], image["height"], image["width"])
    return {"segmentation": rle, "area": float(mask_utils.area(rle))}


def indexed(dataset: dict[str, Any]) -> COCO:
    """A complete ground truth, as `load_ground_truth` makes it, for pycocotools."""
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = dataset
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco
