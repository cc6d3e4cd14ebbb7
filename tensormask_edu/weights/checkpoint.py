"""A checkpoint is a folder: `model.safetensors` (weights) and `config.json` (model, input).

Nothing is unpickled; the configuration is enough to rebuild the model. A model that comes along
is loaded by its name (`shipped.py`). Weights of others come in through `load_official` and
`load_torchvision`; `convert` makes a checkpoint of a published file.

next: weights/official.py
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import nn
from torch.overrides import TorchFunctionMode

from .. import __version__
from ..base.errors import InputError, bad_input
from ..base.files import make_folder, read_json, write_json, written_whole
from ..base.lock import alone_in
from ..config import (
    COCO_CATEGORY_IDS,
    COCO_INPUT,
    InputConfig,
    ModelConfig,
    for_torchvision_body,
    from_json,
    model_config,
    to_json,
)
from ..detector.model import TensorMask, build_model
from .official import (
    check_numbers,
    load_official,
    load_torchvision,
    official_state,
    read_state,
)
from .shipped import check_weights, list_models, located

__all__ = [
    "build_from",
    "checkpoint_files",
    "convert",
    "load_checkpoint",
    "load_config",
    "load_official",
    "load_torchvision",
    "load_weights",
    "official_state",
    "save_checkpoint",
    "weights_sha256",
]

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def save_checkpoint(
    folder: str | Path,
    model: TensorMask,
    input_config: InputConfig,
    dtype: torch.dtype | None = None,
) -> None:
    """Write weights and configuration into `folder`, each file whole or not at all.

    Args:
        dtype: of the numbers in the file, by default the model's own; float16 halves it. A
            loaded model is float32 whatever the file holds.
    """
    folder = Path(folder)
    parts = {"model": to_json(model.config), "input": to_json(input_config)}
    values = {"version": __version__, **parts}
    # The weights get their name last: a folder that has them has a configuration too.
    with written_whole(folder / WEIGHTS) as temporary:
        temporary.write_bytes(_weights_file(model, dtype))
        write_json(folder / CONFIG, values)


def checkpoint_files(folder: str | Path) -> list[Path]:
    """The files of a checkpoint, for what must not replace them."""
    return [Path(folder) / name for name in (WEIGHTS, CONFIG)]


def weights_sha256(model: TensorMask) -> str:
    """SHA-256 of the model's `model.safetensors`: by it an ONNX file knows its checkpoint."""
    return hashlib.sha256(_weights_file(model)).hexdigest()


def _weights_file(model: TensorMask, dtype: torch.dtype | None = None) -> bytes:
    """The weights as the bytes of a safetensors file; counters stay integers."""
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    if dtype:
        state = {name: x.to(dtype) if x.is_floating_point() else x for name, x in state.items()}
    return save({name: tensor.contiguous() for name, tensor in state.items()})


def load_config(folder: str | Path) -> tuple[ModelConfig, InputConfig]:
    """The configurations of a checkpoint, or of a model that comes along."""
    path = located(folder) / CONFIG
    values = read_json(path, "checkpoint")
    if not isinstance(values, dict) or not {"model", "input"} <= set(values):
        raise bad_input("checkpoint", "a config.json with the parts model and input", path)
    return (
        from_json(ModelConfig, values["model"], f"{path}: model"),
        from_json(InputConfig, values["input"], f"{path}: input"),
    )


def load_checkpoint(folder: str | Path) -> tuple[TensorMask, InputConfig]:
    """Rebuild a model from a checkpoint folder, or one that comes along, in evaluation mode.

    Args:
        folder: the folder, or a name of `list_models()`.

    Raises:
        InputError: not a checkpoint, a broken file, or weights that belong to another
            configuration.
    """
    folder = located(folder)
    if not folder.is_dir():
        expected = (
            f"a folder with {WEIGHTS} and {CONFIG}, or a name: {', '.join(list_models())}"
        )
        raise bad_input("checkpoint", expected, folder)
    model_config, input_config = load_config(folder)
    # Without memory for its weights at first: a configuration may say more than any machine has
    with torch.device("meta"), _Undrawn():
        check_fit(build_model(model_config), folder / WEIGHTS)
    model = build_model(model_config)
    load_weights(model, folder / WEIGHTS)
    return model.eval(), input_config


class _Undrawn(TorchFunctionMode):
    """Draws nothing into weights without memory: PyTorch would load its compiler for that."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        draws = getattr(func, "__module__", None) == nn.init.__name__
        return None if draws else func(*args, **(kwargs or {}))


def load_weights(model: TensorMask, path: str | Path) -> None:
    """Load a safetensors file into `model`; names, shapes and kinds of numbers must match."""
    check_fit(model, path)
    check_weights(Path(path))
    state = load_file(path)
    check_numbers(model, state, f"checkpoint: {path}")
    model.load_state_dict(state)


def check_fit(model: TensorMask, path: str | Path) -> None:
    """Raise InputError unless a safetensors file has the model's names and shapes.

    Its head alone is read.
    """
    if not Path(path).is_file():
        raise bad_input("checkpoint", "an existing weights file", path)
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    except Exception as error:  # of a broken file its reader raises several kinds
        reason = f"is not a whole safetensors file ({str(error)[:100]})"
        raise InputError(f"checkpoint: {path} {reason}") from None
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    names = sorted({*found, *expected})
    if wrong := [name for name in names if found.get(name) != expected.get(name)]:
        first = f"the first is {wrong[0]}: expected {expected.get(wrong[0])}"
        raise InputError(
            f"checkpoint: {path} belongs to another configuration; "
            f"{len(wrong)} tensors differ, {first}, got {found.get(wrong[0])}"
        )


def build_from(weights: str | Path, config: ModelConfig) -> TensorMask:
    """A model that starts from weights.

    Args:
        weights: a checkpoint folder or a name of `list_models()`, for all of them; or
            torchvision's ImageNet weights of a ResNet (`.pth`), for the body, which makes the
            configuration one for them.

    Raises:
        InputError: no such file, or weights of another model.
    """
    path = located(weights)
    if not path.exists():
        expected = "a checkpoint folder, torchvision's weights of a ResNet, or a name: "
        raise bad_input("weights", expected + ", ".join(list_models()), path)
    if path.is_dir():
        model = build_model(config)
        load_weights(model, path / WEIGHTS)
    else:
        model = build_model(for_torchvision_body(config))
        state = read_state(path)
        try:
            load_torchvision(model, state)
        except InputError as error:
            raise InputError(f"weights: {path}: {error}") from None
    return model


def convert(weights: str | Path, preset: str, folder: str | Path) -> TensorMask:
    """Make a checkpoint of a published `.pkl`: COCO's classes, short sides of 800 px.

    Raises:
        InputError: a file that is not whole, does more than hold arrays, or is not of this
            preset; a folder that holds a checkpoint already.
    """
    _require_empty(folder)
    model = build_model(replace(model_config(preset), category_ids=COCO_CATEGORY_IDS))
    load_official(model, weights)
    with alone_in(make_folder(folder)):
        _require_empty(folder)  # another process may have been quicker
        save_checkpoint(folder, model, COCO_INPUT)
    return model.eval()


def _require_empty(folder: str | Path) -> None:
    """Raise InputError where a checkpoint is; a killed run leaves a configuration alone."""
    weights, config = checkpoint_files(folder)
    if not weights.exists() and config.exists():
        load_config(folder)  # an error if it is another program's
    if weights.exists():
        got = f"{folder}, which holds one"
        raise bad_input("output", "a folder without a checkpoint", got, "choose another")
