"""Frozen configurations, presets, and their JSON form.

Three parts, because three things are decided apart: the model, how an image file becomes its
input, and how it is trained. Derived values are properties, so nothing can go stale; an
ablation is ``dataclasses.replace(config, ...)``. A checkpoint stores the first two as JSON.

next: network.py
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from .base.errors import InputError, bad_input
from .geometry import Geometry


def _require(holds: bool, argument: str, expected: str, got: object) -> None:
    if not holds:
        raise bad_input(argument, expected, got)


@dataclass(frozen=True)
class ModelConfig:
    """The network and its detector. Lengths end in their unit; facts without a note are the
    paper's."""

    preset: str = "tiny"
    class_names: tuple[str, ...] = ("object",)

    # Windows
    strides_px: tuple[int, ...] = (4, 8, 16, 32)
    sides_bins: tuple[int, ...] = (5, 7)
    bipyramid: bool = True

    # Input: callers pass RGB in [0, 1]; the model scales and orders the channels itself
    pixel_scale: float = 1.0
    pixel_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    pixel_std: tuple[float, float, float] = (0.25, 0.25, 0.25)
    bgr: bool = False

    # Network
    backbone: Literal["tiny", "resnet50", "resnet101"] = "tiny"
    stride_in_1x1: bool = (
        True  # of a ResNet: where a stage halves its grid (official); False: in the 3x3
    )
    fpn_channels: int = 48
    tower_convs: int = 2
    class_channels: int = 48
    box_channels: int = 48
    mask_channels: int = 48
    tower_norm_groups: int = (
        8  # GroupNorm groups in towers and fuse; 0: no normalisation (official)
    )
    prior: float = 0.01
    pad_value: float = -6.0

    # Which windows are positive, where the paper's text and its code differ (section 3.3)
    centrality_unit: Literal["stride", "bin"] = (
        "stride"  # sigma_hw (official) or sigma_vu (paper)
    )
    scale_rule: Literal["side - stride", "side"] = (
        "side - stride"  # at most 2 x object: (official), (paper)
    )

    # Losses
    focal_gamma: float = 3.0
    focal_alpha: float = 0.3
    box_weights: tuple[float, float, float, float] = (1.5, 1.5, 0.75, 0.75)
    mask_loss_weight: float = 2.0
    mask_positive_weight: float = 1.5
    normaliser: Literal["process", "global"] = (
        "process"  # whose positives divide the losses; see losses.py
    )

    # Inference
    score_threshold: float = 0.05
    topk_candidates: int = 1000
    nms_threshold: float = 0.5
    detections_per_image: int = 100

    def __post_init__(self) -> None:
        _require(
            len(self.class_names) >= 1, "class_names", "at least one class", self.class_names
        )
        _require(self.backbone in BACKBONES, "backbone", f"one of {BACKBONES}", self.backbone)
        _require(0 < self.prior < 1, "prior", "a probability between 0 and 1", self.prior)
        units, rules = ("stride", "bin"), ("side - stride", "side")
        _require(
            self.centrality_unit in units,
            "centrality_unit",
            " or ".join(units),
            self.centrality_unit,
        )
        _require(self.scale_rule in rules, "scale_rule", " or ".join(rules), self.scale_rule)
        scopes = ("process", "global")
        _require(self.normaliser in scopes, "normaliser", " or ".join(scopes), self.normaliser)
        for name in ("detections_per_image", "topk_candidates"):
            _require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        groups = self.tower_norm_groups
        for name in ("class_channels", "box_channels", "mask_channels"):
            divides = groups == 0 or getattr(self, name) % groups == 0
            _require(
                divides,
                name,
                f"a multiple of tower_norm_groups = {groups}",
                getattr(self, name),
            )
        _ = self.geometry  # checks strides_px and sides_bins

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def geometry(self) -> Geometry:
        return Geometry(self.strides_px, self.sides_bins, self.bipyramid)

    @property
    def prior_bias(self) -> float:
        """Start of the class predictor's bias: sigmoid(bias) = prior (RetinaNet)."""
        return -math.log((1 - self.prior) / self.prior)

    def centrality_px(self, level: int) -> int:
        """How far a positive window's centre may be from the object's."""
        stride = self.strides_px[level]
        return stride if self.centrality_unit == "stride" else self.geometry.bin_px(level)

    def scale_slack_px(self, level: int) -> int:
        """What is taken off a window's side before it is compared with twice the object's."""
        return self.strides_px[level] if self.scale_rule == "side - stride" else 0

    @property
    def smallest_scale_px(self) -> int:
        """Objects of any smaller size still match the smallest window (the official code's 44 -
        4 = 40)."""
        return self.sides_bins[0] * self.strides_px[0] - self.scale_slack_px(0)


@dataclass(frozen=True)
class InputConfig:
    """How an image file becomes the model's input; results always go back to the file's own
    pixels."""

    enlarge: float = 1.0  # factor on both sides; ignored when short_side_px is set
    short_side_px: int | None = None  # resize so that the short side has this length ...
    long_side_px: int = 1333  # ... unless the long side would exceed this one
    stretch_percentiles: tuple[float, float] | None = (
        None  # per-image contrast stretch, for microscopes
    )

    def __post_init__(self) -> None:
        _require(self.enlarge > 0, "enlarge", "a positive factor", self.enlarge)
        if self.stretch_percentiles is not None:
            low, high = self.stretch_percentiles
            _require(
                0 <= low < high <= 100,
                "stretch_percentiles",
                "0 <= low < high <= 100",
                (low, high),
            )


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of a training image. All off by default."""

    flip: bool = False  # left-right
    flip_vertical: bool = False
    transpose: bool = False  # swap y and x: with both flips, the eight symmetries of the square
    shuffle_channels: float = 0.0  # probability of a random colour order
    grey: float = 0.0  # probability of averaging the colours
    invert: float = 0.0  # probability of 1 - image
    gamma: tuple[float, float] = (1.0, 1.0)  # exponent range, log-uniform
    gain: tuple[float, float] = (1.0, 1.0)  # factor range
    offset: float = 0.0  # added value, uniform in +- this
    noise: float = 0.0  # standard deviation of pixel noise, uniform in [0, this]
    scale: tuple[float, float] = (
        1.0,
        1.0,
    )  # size factor range, log-uniform, on top of InputConfig
    short_side_px: tuple[int, int] | None = (
        None  # any whole number in this range instead of InputConfig's
    )
    crop_px: int | None = None  # square crop after scaling
    min_area_px: int = 1  # an instance with fewer visible pixels after the crop is background


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained. The schedule ends at `steps`, or at `minutes` if that comes
    first."""

    steps: int = 4000
    minutes: float | None = None
    batch_size: int = 4  # of all processes together
    accumulate: int = 1  # parts in which a process takes its share: less memory, the same step
    optimizer: Literal["adamw", "sgd"] = "adamw"  # sgd with momentum 0.9
    lr: float = 4e-3
    weight_decay: float = 1e-2  # 0 on normalisation parameters ...
    decay_biases: bool = False  # ... and on biases, but for the official recipe
    warmup: float = 0.1  # fraction of the schedule, linear ...
    warmup_start: float = 0.0  # ... from this part of lr
    decay_at: tuple[
        float, ...
    ] = ()  # lr falls to a tenth at these fractions; none: a cosine to 0
    clip_norm: float | None = 1.0
    precision: Literal["float32", "bfloat16", "float16"] = (
        "float32"  # of the network; weights stay float32
    )
    seed: int = 0
    log_every: int = 20
    save_every: int = 1000
    augment: AugmentConfig = AugmentConfig()

    # Data
    polygons: bool = False  # mask targets drawn from polygons (official), else from bitmaps
    group_by_aspect: bool = False  # wide pictures with wide ones, tall with tall: less padding
    cache: bool = True  # keep decoded pictures in memory
    workers: int | None = None  # processes that prepare batches; None: 0 on a CPU, 4 on a GPU

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "log_every", "save_every"):
            _require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        _require(
            self.minutes is None or self.minutes > 0,
            "minutes",
            "a positive number",
            self.minutes,
        )
        _require(self.lr > 0, "lr", "a positive number", self.lr)
        _require(
            self.optimizer in ("adamw", "sgd"), "optimizer", "adamw or sgd", self.optimizer
        )
        _require(
            self.precision in PRECISIONS, "precision", ", ".join(PRECISIONS), self.precision
        )
        rising = list(self.decay_at) == sorted(self.decay_at) and all(
            0 < f < 1 for f in self.decay_at
        )
        _require(rising, "decay_at", "rising fractions between 0 and 1", self.decay_at)
        _require(0 <= self.warmup < 1, "warmup", "a fraction below 1", self.warmup)
        positive = self.clip_norm is None or self.clip_norm > 0
        _require(positive, "clip_norm", "a positive number or None", self.clip_norm)
        _require(
            self.workers is None or self.workers >= 0, "workers", "at least 0", self.workers
        )


BACKBONES = ("tiny", "resnet50", "resnet101")
PRECISIONS = ("float32", "bfloat16", "float16")  # of a network at work; weights stay float32

# COCO's 80 classes in the order of their category ids: what channel k of a published model
# means.
COCO_CLASS_NAMES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard",
    "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
# How pictures entered the published models.
COCO_INPUT = InputConfig(short_side_px=800, long_side_px=1333)


def _official(preset: str, backbone: Literal["resnet50", "resnet101"]) -> ModelConfig:
    """The published models: windows of 44 and 60 px at p2, doubling to p7; BGR input in
    0..255."""
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


# What each preset promises stands beside it; `build_model("tiny", num_classes=4)` starts from
# here.
MODELS: dict[str, ModelConfig] = {
    # 0.77 M parameters, windows 20/28 to 160/224 px: learns small pictures from scratch on a
    # laptop.
    "tiny": ModelConfig(),
    # 36.5 M parameters. The official models: mask AP on COCO val2017 32.4 and, trained six
    # times as long,
    # 35.8, as published with their weights. They differ in their recipes alone.
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
    """The official recipe: 16 pictures a step, 1000 steps of warm-up, the rate divided twice by
    10."""
    train = TrainConfig(
        steps=steps, batch_size=16,
        optimizer="sgd", lr=0.02, weight_decay=1e-4, decay_biases=True, clip_norm=None,
        warmup=1000 / steps, warmup_start=1e-3, decay_at=tuple(step / steps for step in decay_steps),
        polygons=True, group_by_aspect=True, cache=False, augment=augment,
    )  # fmt: skip
    return Recipe(MODELS[preset], InputConfig(short_side_px=800), train)


RECIPES: dict[str, Recipe] = {
    # The overlap world of `tensormask-edu shapes`.
    "shapes": Recipe(
        MODELS["tiny"],
        InputConfig(),
        TrainConfig(
            augment=AugmentConfig(flip=True, flip_vertical=True, transpose=True, shuffle_channels=1.0)
        ),
    ),
    # Microscope pictures with many small objects: enlarged twice, cropped, slight changes of
    # light (strong ones learn several times more slowly). Meant for --minutes 20 on two cores.
    "cells": Recipe(
        replace(MODELS["tiny"], topk_candidates=3000),
        InputConfig(enlarge=2.0, stretch_percentiles=(0.5, 99.8)),
        TrainConfig(
            steps=10_000,
            augment=AugmentConfig(
                flip=True, flip_vertical=True, transpose=True, grey=0.1,
                gamma=(0.85, 1.2), gain=(0.9, 1.1), offset=0.05, noise=0.02,
                scale=(0.8, 1.25), crop_px=192, min_area_px=12,
            ),
        ),
    ),
    # COCO as the published models were trained, 12 and 73 times through train2017: for GPUs.
    "coco_1x": _coco("r50_fpn_1x", 90_000, (60_000, 80_000), AugmentConfig(flip=True)),
    "coco_6x": _coco(
        "r50_fpn_6x", 540_000, (480_000, 520_000), AugmentConfig(flip=True, short_side_px=(640, 800))
    ),
}  # fmt: skip


def model_config(preset: str, num_classes: int | None = None) -> ModelConfig:
    """The preset's configuration, with classes named "class 0", ... if a number of them is
    given."""
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
    """The same model around a ResNet of torchvision: its place of the stride, RGB, its mean and
    spread."""
    return replace(
        config,
        stride_in_1x1=False,
        bgr=False,
        pixel_scale=1.0,
        pixel_mean=(0.485, 0.456, 0.406),
        pixel_std=(0.229, 0.224, 0.225),
    )


Config = TypeVar("Config", ModelConfig, InputConfig, AugmentConfig, TrainConfig)


def to_json(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values."""
    return dataclasses.asdict(config)


def from_json(kind: type[Config], values: Any, where: str = "config") -> Config:
    """The configuration of class `kind` from JSON values; unknown or missing fields are
    errors."""
    if not isinstance(values, dict):
        raise bad_input(where, "a JSON object", type(values).__name__)
    known = {field.name for field in dataclasses.fields(kind)}
    if unknown := sorted(set(values) - known):
        raise bad_input(
            where,
            f"fields of {kind.__name__}",
            f"unknown {unknown}",
            "is it of another version?",
        )
    tuples = {name: _as_tuple(value) for name, value in values.items()}
    if kind is TrainConfig and isinstance(values.get("augment"), dict):
        tuples["augment"] = from_json(AugmentConfig, values["augment"], f"{where}.augment")
    try:
        return kind(**tuples)
    except TypeError as error:  # a value of the wrong JSON type
        raise InputError(f"{where}: {error}") from None


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value
