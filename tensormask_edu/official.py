"""The names of the published checkpoints, and ours: one rule table, read in both directions.

The official model stores 319 tensors under detectron2's names (`backbone.bottom_up.res2.0.conv1.norm.weight`,
`head.mask_pred_15.bias`); all of them have one counterpart here with the same shape and meaning.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from .errors import InputError
from .model import TensorMask

# Ours -> official. Levels and stages are numbered from 0 here, from 2 there.
RULES: tuple[tuple[str, str], ...] = (
    (r"class_tower", "head.cls_subnet"),
    (r"box_tower", "head.bbox_subnet"),
    (r"mask_branch\.tower", "head.mask_subnet"),
    (r"class_predictor", "head.cls_score"),
    (r"box_predictor", "head.bbox_pred"),
    (r"mask_branch\.fuse\.0", "head.mask_fuse.0"),
    (r"backbone\.body\.stem\.0", "backbone.bottom_up.stem.conv1"),
    (r"backbone\.body\.stem\.1", "backbone.bottom_up.stem.conv1.norm"),
    (r"\.bn(\d)", r".conv\1.norm"),
    (r"downsample\.0", "shortcut"),
    (r"downsample\.1", "shortcut.norm"),
)
NUMBERED: tuple[tuple[str, str, int], ...] = (
    (r"backbone\.body\.stages\.(\d)\.", "backbone.bottom_up.res{}.", 2),
    (r"backbone\.fpn\.laterals\.(\d)", "backbone.fpn_lateral{}", 2),
    (r"backbone\.fpn\.outputs\.(\d)", "backbone.fpn_output{}", 2),
    (r"backbone\.fpn\.extras\.(\d)", "backbone.top_block.p{}", 6),
)


def official_name(name: str, sides_bins: tuple[int, ...]) -> str:
    """The official name of our parameter or buffer `name` (as in `model.state_dict()`)."""
    name = name.removeprefix("network.")
    for pattern, official, first in NUMBERED:
        if match := re.search(pattern, name):
            name = name.replace(match[0], official.format(int(match[1]) + first))
    if match := re.search(r"mask_branch\.predictors\.(\d)", name):
        name = name.replace(match[0], f"head.mask_pred_{sides_bins[int(match[1])]:02d}")
    for pattern, official in RULES:
        name = re.sub(pattern, official, name)
    return name


def load_official(model: TensorMask, state: dict[str, Tensor]) -> None:
    """Load weights under official names into `model`; every name and shape must match.

    Cell anchors, stored in the files of 2019, are derived here and ignored.

    Raises:
        InputError: a tensor is missing, left over, or of another shape.
    """
    given = {name: value for name, value in state.items() if "cell_anchors" not in name}
    ours = model.state_dict()
    names = {name: official_name(name, model.config.sides_bins) for name in ours}
    if missing := sorted(set(names.values()) - set(given)):
        raise InputError(f"state: {len(missing)} official tensors are missing, the first is {missing[0]}")
    if extra := sorted(set(given) - set(names.values())):
        raise InputError(f"state: {len(extra)} tensors are not of this model, the first is {extra[0]}")
    for name, official in names.items():
        value = torch.as_tensor(given[official])
        if value.shape != ours[name].shape:
            expected, got = tuple(ours[name].shape), tuple(value.shape)
            raise InputError(f"state: {official}: expected shape {expected}, got {got}")
    model.load_state_dict({name: torch.as_tensor(given[official]) for name, official in names.items()})


def official_state(model: TensorMask) -> dict[str, Tensor]:
    """The model's tensors under their official names: the inverse of `load_official`."""
    return {official_name(n, model.config.sides_bins): t for n, t in model.state_dict().items()}
