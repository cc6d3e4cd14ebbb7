"""The tables `ancestors` and `roi`: a row is one detector, trained and judged.

`ancestors` holds TensorMask beside DeepMask, SharpMask, InstanceFCN and Mask R-CNN on the same
pictures, all objects one class, with steps that cost about the same CPU seconds. `roi` asks of
Mask R-CNN at equal steps what RoIAlign is worth, and what a mask's logits should mean.

next: ablations/tables.py
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..base.errors import bad_input, require
from ..config import InputConfig, TrainConfig
from ..data.coco import CocoFolder
from ..data.truth import Region, Truth
from ..evaluation.coco_scores import AreaRanges
from . import deepmask, instance_fcn, mask_rcnn, sharpmask, tensormask
from .fit import FILE_SIZE, Detector
from .judge import judge

Row = dict[str, Any]


class OneClass(CocoFolder):
    """A COCO folder whose objects are all of one class."""

    def __init__(self, folder: str | Path, split: str, keep_empty: bool = False) -> None:
        super().__init__(folder, split, keep_empty, cache=True)
        self.class_names = ("object",)

    def truth(self, index: int, region: Region | None = None) -> Truth:
        truth = super().truth(index, region)
        return truth | {"labels": torch.zeros_like(truth["labels"])}


@dataclass(frozen=True)
class Entry:
    """A row before it is trained.

    train: of a data set, a configuration, an input configuration and whether to show progress.
    recipe: how, but for steps and seed. share: its steps, of what the table is given, so that
    CPU seconds come out alike.
    """

    train: Callable[..., Detector]
    recipe: TrainConfig
    share: float = 1.0


def _rcnn(pooling: mask_rcnn.Pooling, masks: mask_rcnn.Masks) -> Entry:
    return Entry(partial(mask_rcnn.train, pooling=pooling, masks=masks), mask_rcnn.RECIPE)


# Rows by table and name
TABLES: dict[str, dict[str, Entry]] = {
    "ancestors": {
        "TensorMask": Entry(tensormask.train, tensormask.RECIPE),
        "DeepMask": Entry(deepmask.train, deepmask.RECIPE, 0.6),
        "SharpMask": Entry(sharpmask.train, sharpmask.RECIPE, 0.75),
        "InstanceFCN": Entry(instance_fcn.train, instance_fcn.RECIPE, 0.5),
        "Mask R-CNN": Entry(mask_rcnn.train, mask_rcnn.RECIPE, 0.75),
    },
    "roi": {
        "RoIAlign, sigmoid": _rcnn("align", "sigmoid"),
        "RoIPool, sigmoid": _rcnn("pool", "sigmoid"),
        "RoIAlign, softmax": _rcnn("align", "softmax"),
        "RoIAlign, agnostic": _rcnn("align", "agnostic"),
    },
}


def row(
    table: str,
    name: str,
    folder: str | Path,
    seed: int = 0,
    steps: int = 900,
    lr: float | None = None,
    input_config: InputConfig = FILE_SIZE,
    area_ranges: AreaRanges | None = None,
    progress: bool = True,
) -> Row:
    """Train one row of a table on `folder`'s train split and judge it on its val split.

    Args:
        steps: of TensorMask's; a row's own may be a share of them, see `Entry`.
        lr: another learning rate than the recipe's.
        area_ranges: what small, medium and large mean; None: COCO's.

    Returns:
        table, model, seed, steps, lr, batch_size, cpu_seconds of training (of this process),
        and what `judge` says.

    Raises:
        InputError: an unknown table or row, no data set, steps below 1.
        FloatingPointError: the loss is infinite or NaN.
    """
    entry = _entry(table, name)
    require(steps >= 1, "steps", "at least 1", steps)
    config = replace(entry.recipe, seed=seed, steps=max(1, round(steps * entry.share)))
    if lr is not None:
        config = replace(config, lr=lr)
    several = table == "roi"  # there what a class means is part of the question
    kind = partial(CocoFolder, cache=True) if several else OneClass
    train_set, val_set = kind(folder, "train"), kind(folder, "val", keep_empty=True)
    began = time.process_time()
    model = entry.train(train_set, config, input_config, progress)
    seconds = time.process_time() - began
    about = {"table": table, "model": name, "seed": seed, "steps": config.steps}
    about |= {"lr": config.lr, "batch_size": config.batch_size, "cpu_seconds": seconds}
    return about | judge(model, val_set, input_config, area_ranges, progress)


def rows(
    table: str,
    folder: str | Path,
    seeds: Sequence[int] = (0, 1),
    steps: int = 900,
    **options: Any,
) -> Iterator[Row]:
    """All rows of a table, seed after seed; `options` are those of `row`."""
    for seed in seeds:
        for name in names(table):
            yield row(table, name, folder, seed, steps, **options)


def names(table: str) -> list[str]:
    """The rows of a table, in order."""
    if table not in TABLES:
        raise bad_input("table", f"one of {', '.join(TABLES)}", repr(table))
    return list(TABLES[table])


def _entry(table: str, name: str) -> Entry:
    if name not in names(table):
        raise bad_input("name", f"one of {', '.join(names(table))}", repr(name))
    return TABLES[table][name]
