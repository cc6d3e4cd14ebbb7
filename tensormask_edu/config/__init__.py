"""Frozen configurations, presets, recipes, their JSON form.

Three parts, because three things are decided apart: the model, how an image file becomes its
input, and how it is trained. Derived values are properties, so nothing can go stale; an
ablation is ``dataclasses.replace(config, ...)``. A checkpoint stores the first two as JSON.
"""

from .images import AugmentConfig, InputConfig
from .json_form import from_json, to_json
from .model import BACKBONES, ModelConfig
from .presets import (
    COCO_CATEGORY_IDS,
    COCO_CLASS_NAMES,
    COCO_INPUT,
    MODELS,
    RECIPES,
    Recipe,
    for_torchvision_body,
    model_config,
    recipe,
)
from .train import PRECISIONS, SEEDS, Precision, TrainConfig

__all__ = [
    "BACKBONES",
    "COCO_CATEGORY_IDS",
    "COCO_CLASS_NAMES",
    "COCO_INPUT",
    "MODELS",
    "PRECISIONS",
    "RECIPES",
    "SEEDS",
    "AugmentConfig",
    "InputConfig",
    "ModelConfig",
    "Precision",
    "Recipe",
    "TrainConfig",
    "for_torchvision_body",
    "from_json",
    "model_config",
    "recipe",
    "to_json",
]
