"""Scores of a checkpoint on a data set, or of a file of detections on a file of the truth.

next: commands/inspect.py
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..base import distributed
from ..base.errors import InputError, bad_input, require, warn_of_input
from ..base.files import check_report, write_json
from ..base.progress import Progress
from ..data.coco import CocoFolder
from ..data.layouts import Data, data_named, places
from ..detector.views import check_views, in_views
from ..evaluation import coco_scores, lost
from ..evaluation.ceiling import ceiling
from ..weights.checkpoint import checkpoint_files, load_checkpoint


def run(args: argparse.Namespace) -> int:
    """Print the scores, write the JSON if asked: once, of however many processes."""
    data = data_named(args.folder, args.annotations, args.images)
    files, trained = (args.ground_truth, args.detections), (args.checkpoint, data)
    if all(files) and not any(trained):
        require(args.views == 1, "views", "a CHECKPOINT that sees pictures", "a file")
        check_report(args.json, *files)
        scores: dict[str, Any] = {args.iou: coco_scores.score(*files, iou=args.iou)}
        if args.losses:
            truth = coco_scores.load_ground_truth(args.ground_truth)
            scores["losses"] = lost.lost(truth, args.detections)
        show(scores, args.json)
    elif data is not None and args.checkpoint and not any(files):
        if args.json:
            read = [*places(data, args.split), *checkpoint_files(args.checkpoint)]
            check_report(args.json, *read)
        with distributed.processes():
            words = (args.split, args.losses, args.views, args.bad_pictures == "skip")
            scores = evaluate_checkpoint(args.checkpoint, data, *words, args.batch_size)
            if distributed.rank() == 0:
                show(scores, args.json)
    else:
        either = "either CHECKPOINT FOLDER or --ground-truth A --detections B"
        raise bad_input("evaluate", either, [a for a in (*trained, *files) if a] or "nothing")
    return 1 if scores.get("left out") else 0


def show(scores: dict[str, Any], file: str | None) -> None:
    """Print the tables; write the scores into `file` if there is one."""
    print(coco_scores.table(scores))
    if "losses" in scores:
        print("", lost.table(scores["losses"]), sep="\n")
    if file:
        write_json(file, scores)


def evaluate_checkpoint(
    checkpoint: str | Path,
    data: Data,
    split: str = "val",
    losses: bool = False,
    views: int = 1,
    skip_bad: bool = False,
    batch_size: int = 4,
) -> dict[str, Any]:
    """Scores of a checkpoint on a data set's split: masks, boxes, and the ceiling beside them.

    Args:
        losses: also where mask AP is lost, see `evaluation/lost.py`.
        views: 1, or 2, 4 or 8 mirrored views that vote, see `detector/views.py`.
        skip_bad: leave out pictures that cannot be read; the scores are of the others.
        batch_size: how many pictures are looked at at a time.

    Raises:
        InputError: no checkpoint, no data set, classes that differ between the two, another
            number of views, or pictures that cannot be read.
    """
    check_views(views)
    require(batch_size >= 1, "batch_size", "at least 1", batch_size)
    with distributed.processes() as device:
        model, input_config = load_checkpoint(checkpoint)
        dataset = CocoFolder(data, split, keep_empty=True)
        if tuple(dataset.class_names) != model.config.class_names:
            raise bad_input(
                "checkpoint",
                f"one trained on the data's classes, {list(dataset.class_names)[:5]}",
                f"classes {list(model.config.class_names)[:5]}",
            )
        speaks = distributed.rank() == 0
        left_out = _without_bad(dataset, skip_bad, speaks)
        model.to(device)
        found, images = coco_scores.evaluate_model(
            in_views(model, views), dataset, input_config, batch_size, speaks
        )
        scores = coco_scores.score_all(dataset, found, images)
        scores["ceiling"] = ceiling(model.config, dataset, input_config, speaks)
        if left_out:
            scores["left out"] = left_out
        if losses and speaks:
            truth = coco_scores.load_ground_truth(dataset)
            scores["losses"] = lost.lost(truth, found)
        return scores


def _without_bad(dataset: CocoFolder, skip: bool, speaks: bool) -> list[str]:
    """The reasons why pictures were left out; all are read before a model sees the first."""
    mine = distributed.share(range(len(dataset)))
    words = {"desc": "reading", "unit": "image", "disable": not speaks}
    reasons = distributed.joined([dataset.problem(index) for index in Progress(mine, **words)])
    bad = {index: reason for index, reason in enumerate(reasons) if reason}
    if bad and not skip:
        fix = "--bad-pictures skip leaves such pictures out"
        raise InputError(f"{next(iter(bad.values()))}; {len(bad)} of {len(dataset)}, {fix}")
    for reason in bad.values():
        warn_of_input(f"left out: {reason}")
    dataset.leave_out(bad)
    return list(bad.values())
