"""Configurations as JSON: what a checkpoint, an ONNX file and a saved run keep.

next: reference/transforms.py
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, get_type_hints

from ..base.errors import InputError, bad_input
from ..base.values import misfit
from .images import AugmentConfig, InputConfig
from .model import ModelConfig
from .train import TrainConfig

Config = TypeVar("Config", ModelConfig, InputConfig, AugmentConfig, TrainConfig)


def to_json(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values."""
    return dataclasses.asdict(config)


def from_json(kind: type[Config], values: Any, where: str = "config") -> Config:
    """The configuration of class `kind` from JSON values.

    Raises:
        InputError: unknown fields, values of a wrong type, or such as no configuration has.
    """
    if not isinstance(values, dict):
        raise bad_input(where, "a JSON object", type(values).__name__)
    known = {field.name for field in dataclasses.fields(kind)}
    if unknown := sorted(set(values) - known):
        expected, got = f"fields of {kind.__name__}", f"unknown {unknown}"
        raise bad_input(where, expected, got, "is it of another version?")
    tuples = {name: _as_tuple(value) for name, value in values.items()}
    if kind is TrainConfig and isinstance(values.get("augment"), dict):
        tuples["augment"] = from_json(AugmentConfig, values["augment"], f"{where}.augment")
    hints = get_type_hints(kind)
    for name, value in tuples.items():
        if wrong := misfit(value, hints[name], f"{where}: {name}"):
            raise InputError(wrong)
    try:
        return kind(**tuples)
    except InputError as error:  # a value that no model has
        raise InputError(f"{where}: {error}") from None


def _as_tuple(value: Any) -> Any:
    """JSON has lists only; the frozen configurations hold tuples."""
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value
