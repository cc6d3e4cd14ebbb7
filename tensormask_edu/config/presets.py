"""What has a name: presets of models, recipes of whole runs, COCO's classes.

next: config/json_form.py
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ..base.errors import bad_input
from .images import AugmentConfig, InputConfig
from .model import ModelConfig
from .train import TrainConfig

# COCO's 80 classes in the order of their category ids: channel k of a published model
COCO_CLASS_NAMES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat",
    "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack",
    "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball",
    "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket",
    "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair",
    "couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote",
    "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book",
    "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # numbers that COCO gave to no category
COCO_CATEGORY_IDS = tuple(number for number in range(1, 91) if number not in _UNUSED)
# How pictures entered the published models
COCO_INPUT = InputConfig(short_side_px=800, long_side_px=1333)


def _official(preset: str, backbone: Literal["resnet50", "resnet101"]) -> ModelConfig:
    """A published model: windows of 44 and 60 px at p2, doubling to p7; BGR input in 0..255."""
    return ModelConfig(
        preset=preset,
        class_names=COCO_CLASS_NAMES,
        strides_px=(4, 8, 16, 32, 64, 128),
        sides_bins=(11, 15),
        pixel_scale=255.0,
        pixel_mean=(103.53, 116.28, 123.675),
        pixel_std=(1.0, 1.0, 1.0),
        bgr=True,
        backbone=backbone,
        fpn_channels=256,
        tower_convs=4,
        class_channels=256,
        box_channels=128,
        mask_channels=128,
        tower_norm_groups=0,
        topk_candidates=6000,
    )


# What each preset promises stands beside it; `build_model("tiny", num_classes=4)` starts here.
MODELS: dict[str, ModelConfig] = {
    # 0.77 M parameters, windows 20/28 to 160/224 px: learns small pictures from scratch on a
    # laptop.
    "tiny": ModelConfig(),
    # 36.5 M parameters. The official models: mask AP on COCO val2017 32.4 and, trained six
    # times as long, 35.8, as published with their weights. They differ in their recipes alone.
    "r50_fpn_1x": _official("r50_fpn_1x", "resnet50"),
    "r50_fpn_6x": _official("r50_fpn_6x", "resnet50"),
    # 55.5 M parameters. In the paper 37.3 mask AP on COCO test-dev; no weights were published.
    "r101_fpn_6x": _official("r101_fpn_6x", "resnet101"),
}


@dataclass(frozen=True)
class Recipe:
    """A whole run: which model, how images enter it, how it is trained."""

    model: ModelConfig
    input: InputConfig
    train: TrainConfig


def _coco(
    preset: str, steps: int, decay_steps: tuple[int, ...], augment: AugmentConfig
) -> Recipe:
    """The official recipe: 16 pictures a step, 1000 steps of warm-up, two steps down by ten."""
    train = TrainConfig(
        steps=steps, batch_size=16, augment=augment,
        optimizer="sgd", lr=0.02, weight_decay=1e-4, decay_biases=True, clip_norm=None,
        warmup=1000 / steps, warmup_start=1e-3,
        decay_at=tuple(step / steps for step in decay_steps),
        polygons=True, group_by_aspect=True, cache=False,
    )  # fmt: skip
    return Recipe(MODELS[preset], InputConfig(short_side_px=800), train)


# The eight symmetries of the square
_SYMMETRIES = AugmentConfig(flip=True, flip_vertical=True, transpose=True)

RECIPES: dict[str, Recipe] = {
    # The overlap world of `tensormask-edu shapes`
    "shapes": Recipe(
        MODELS["tiny"],
        InputConfig(),
        TrainConfig(precision=None, augment=replace(_SYMMETRIES, shuffle_channels=1.0)),
    ),
    # Microscope pictures with many small objects: enlarged twice, cropped, slight changes of
    # light (strong ones learn several times more slowly). Meant for --minutes 20 on two cores.
    "cells": Recipe(
        replace(
            MODELS["tiny"], topk_candidates=3000, mask_threshold=0.6, mask_score_power=2.0
        ),
        InputConfig(enlarge=2.0, stretch_percentiles=(0.5, 99.8)),
        TrainConfig(
            steps=10_000, precision=None,
            augment=replace(
                _SYMMETRIES, grey=0.1,
                gamma=(0.85, 1.2), gain=(0.9, 1.1), offset=0.05, noise=0.02,
                scale=(0.8, 1.25), crop_px=192, min_area_px=12,
            ),
        ),
    ),
    # COCO as the published models were trained, 12 and 73 times through train2017: for GPUs
    "coco_1x": _coco("r50_fpn_1x", 90_000, (60_000, 80_000), AugmentConfig(flip=True)),
    "coco_6x": _coco(
        "r50_fpn_6x", 540_000, (480_000, 520_000),
        AugmentConfig(flip=True, short_side_px=(640, 800)),
    ),
}  # fmt: skip


def model_config(preset: str, num_classes: int | None = None) -> ModelConfig:
    """The preset's configuration; its classes are "class 0", ... if their number is given."""
    if preset not in MODELS:
        raise bad_input("preset", f"one of {', '.join(MODELS)}", repr(preset))
    if num_classes is None:
        return MODELS[preset]
    if num_classes < 1:
        raise bad_input("num_classes", "at least 1", num_classes)
    return replace(MODELS[preset], class_names=tuple(f"class {k}" for k in range(num_classes)))


def recipe(name: str, preset: str | None = None) -> Recipe:
    """The recipe of that name, with another preset's model if one is given."""
    if name not in RECIPES:
        raise bad_input("recipe", f"one of {', '.join(RECIPES)}", repr(name))
    return replace(RECIPES[name], model=model_config(preset)) if preset else RECIPES[name]


def for_torchvision_body(config: ModelConfig) -> ModelConfig:
    """The same model around a ResNet of torchvision: its stride, RGB, its mean and spread."""
    return replace(
        config,
        stride_in_1x1=False,
        bgr=False,
        pixel_scale=1.0,
        pixel_mean=(0.485, 0.456, 0.406),
        pixel_std=(0.229, 0.224, 0.225),
    )
