"""Weights of others: the published checkpoints' names, torchvision's ResNets', and ours.

The official model stores 319 tensors under detectron2's names
(`backbone.bottom_up.res2.0.conv1.norm.weight`, `head.mask_pred_15.bias`); all of them have one
counterpart here with the same shape and meaning. One rule table is read in both directions.

next: weights/pickled.py
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..base.errors import InputError, bad_input
from ..config import for_torchvision_body
from ..detector.model import TensorMask
from ..geometry import Side
from .pickled import read_archive, read_pickled

State = Mapping[str, Any]  # tensors or arrays by name
BODY = "network.backbone.body."
# How PyTorch's files begin that are older than 1.6: a pickle of this number
OLD_FORMAT = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

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


# --- names ------------------------------------------------------------------------------------


def official_name(name: str, sides_bins: tuple[Side, ...]) -> str:
    """The official name of our parameter or buffer `name` (as in `model.state_dict()`)."""
    name = name.removeprefix("network.")
    for pattern, official, first in NUMBERED:
        if match := re.search(pattern, name):
            name = name.replace(match[0], official.format(int(match[1]) + first))
    # A mask predictor is called by its window's side in bins there, by its number here.
    if match := re.search(r"mask_branch\.predictors\.(\d)", name):
        name = name.replace(match[0], f"head.mask_pred_{sides_bins[int(match[1])]:02d}")
    for pattern, official in RULES:
        name = re.sub(pattern, official, name)
    return name


def torchvision_name(name: str) -> str:
    """The name in torchvision's ResNet of our parameter or buffer `name` of the body."""
    name = name.removeprefix(BODY).replace("stem.0.", "conv1.").replace("stem.1.", "bn1.")
    return re.sub(r"stages\.(\d)\.", lambda match: f"layer{int(match[1]) + 1}.", name)


# --- loading ----------------------------------------------------------------------------------


def load_official(model: TensorMask, state: State | str | Path) -> None:
    """Load weights under official names into `model`; every name and shape must match.

    Cell anchors, stored in the files of 2019, are derived here and ignored.

    Args:
        state: the tensors or arrays by official name, or the path of a published `.pkl`.

    Raises:
        InputError: a tensor is missing, left over, or of another shape; a file that is none of
            weights; a model with another head than the published one.
    """
    state = state if isinstance(state, Mapping) else read_state(state)
    given = {name: value for name, value in state.items() if "cell_anchors" not in name}
    _fill(model, _official_names(model), given, "official tensors")


def official_state(model: TensorMask) -> dict[str, Tensor]:
    """The model's tensors under their official names: the inverse of `load_official`."""
    names = _official_names(model)
    return {names[name]: tensor for name, tensor in model.state_dict().items()}


def _official_names(model: TensorMask) -> dict[str, str]:
    """Ours -> official, of a model with the one head that was published."""
    config = model.config
    square = all(isinstance(side, int) for side in config.sides_bins)
    if not (config.bipyramid and config.swaps and square):
        got = f"{config.head}, windows {config.sides_bins}"
        fix = "no other head was published"
        raise bad_input("model", "the bipyramid head, bilinear, pad, square windows", got, fix)
    return {name: official_name(name, config.sides_bins) for name in model.state_dict()}


def load_torchvision(model: TensorMask, state: State | str | Path) -> None:
    """Load a torchvision ResNet, trained on ImageNet, into the body; without its classifier.

    Args:
        model: one of `config.for_torchvision_body(...)`: torchvision strides in the 3x3
            convolutions and was trained on normalised RGB. Names and shapes of another model
            would match, its numbers would not.
        state: `torchvision.models.resnet50(weights=...).state_dict()`, or the path of such a
            `.pth`.

    Raises:
        InputError: a model that would compute something else with these weights, or wrong names
            and shapes.
    """
    if model.config != for_torchvision_body(model.config):
        expected = "a configuration made for torchvision's weights"
        fix = "build_model(config.for_torchvision_body(config))"
        raise bad_input("model", expected, model.config.preset, fix)
    state = _unwrapped(state if isinstance(state, Mapping) else read_state(state))
    # The classifier and the counters of batches stay out.
    unused = re.compile(r"^fc\.|num_batches")
    given = {name: value for name, value in state.items() if not unused.search(name)}
    ours = [name for name in model.state_dict() if name.startswith(BODY)]
    names = {name: torchvision_name(name) for name in ours}
    _fill(model, names, given, "tensors of torchvision")


def _unwrapped(state: State) -> State:
    """A ResNet's tensors by its own names, where a module around it stands before all of them.

    `DataParallel` writes `module.conv1.weight`, Lightning `model.conv1.weight` or the like.
    """
    first = "conv1.weight"
    shortest = min((name for name in state if name.endswith(f".{first}")), key=len, default="")
    prefix = shortest.removesuffix(first)
    if first in state or not all(name.startswith(prefix) for name in state):
        return state
    return {name.removeprefix(prefix): value for name, value in state.items()}


def read_state(path: str | Path) -> State:
    """The tensors of a weights file: a pickle of arrays (`.pkl`), or PyTorch's own (`.pth`).

    Neither runs code of the file. PyTorch wrote zip files since version 1.6, and others before.
    """
    if Path(path).suffix == ".safetensors":
        fix = "name the folder of a checkpoint, not its file"
        raise bad_input("weights", "a .pth of PyTorch or a .pkl", path, fix)
    if _is_zip(path) or _is_old(path):
        values = read_archive(path, "weights")
    else:
        values = read_pickled(path)
    # detectron2 puts the tensors under "model", beside its author's name; training loops, as
    # Lightning's, under "state_dict", beside an optimizer's.
    state = values.get("model", values) if isinstance(values, dict) else None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        got = f"{path} with something else"
        raise bad_input("weights", "a dictionary of tensors by name", got)
    return state


def _is_zip(path: str | Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # one that says it spans several disks
        return True


def _is_old(path: str | Path) -> bool:
    """Whether PyTorch before 1.6 wrote the file, or a later one asked to write it so."""
    with suppress(OSError), open(path, "rb") as file:
        return file.read(len(OLD_FORMAT)) == OLD_FORMAT
    return False


def _fill(model: TensorMask, names: dict[str, str], given: State, what: str) -> None:
    """Copy `given` into the model's tensors, all of `names` (ours -> theirs) and no other."""
    if missing := sorted(set(names.values()) - set(given)):
        reason = f"{len(missing)} {what} are missing, the first is {missing[0]}"
        raise InputError(f"state: {reason}; is it another model's file?")
    if extra := sorted(set(given) - set(names.values())):
        reason = f"{len(extra)} tensors are not of this model, the first is {extra[0]}"
        raise InputError(f"state: {reason}")
    ours = model.state_dict()
    for name, theirs in names.items():
        expected, got = tuple(ours[name].shape), tuple(getattr(given[theirs], "shape", ()))
        if expected != got:
            raise InputError(f"state: {theirs}: expected shape {expected}, got {got}")
    values = {name: torch.as_tensor(given[theirs]) for name, theirs in names.items()}
    check_numbers(model, values, "state")
    model.load_state_dict(values, strict=False)  # the body's names are not all of the model's


def check_numbers(model: TensorMask, values: Mapping[str, Tensor], argument: str) -> None:
    """Raise InputError unless the weights among a model's tensors are finite floats.

    Copied as they are, whole numbers would be taken for weights, imaginary parts and tensors
    without memory be dropped, and of NaN a model would come that finds nothing.
    """
    ours = model.state_dict()
    for name, value in values.items():
        if not ours[name].is_floating_point():  # a counter
            continue
        plain = value.layout == torch.strided and not value.is_meta
        if not (plain and value.is_floating_point()):
            got = f"{name}: {value.dtype}, {value.layout}, device {value.device}"
            raise bad_input(argument, "dense tensors of floating numbers", got)
        if not value.float().isfinite().all():
            got = f"{name} with NaN or infinity"
            fix = "did its training diverge, or was it converted beyond float16's range?"
            raise bad_input(argument, "weights that are finite", got, fix)
