"""The network and its detector: every choice between the paper's variants is a field here.

next: config/images.py
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..base.errors import bad_input, require
from ..geometry import Geometry, Side

BACKBONES = ("tiny", "resnet50", "resnet101")
# What a field holds at least and at most: beyond it a model would fill the memory, if a file
# says so by mistake or on purpose.
BOUNDS = {
    **dict.fromkeys(
        ("fpn_channels", "class_channels", "box_channels", "mask_channels"), (1, 4096)
    ),
    "tower_convs": (0, 64),
    "tower_norm_groups": (0, 4096),
    "upscale": (1, 64),
    "topk_candidates": (1, 100_000),
    "detections_per_image": (1, 10_000),
}


@dataclass(frozen=True)
class ModelConfig:
    """The network and its detector.

    Names of lengths end in their unit. What a comment calls official is the published code's;
    facts without a note are the paper's.
    """

    preset: str = "tiny"
    class_names: tuple[str, ...] = ("object",)
    # The data set's category of each label; none: 1, 2, ... K
    category_ids: tuple[int, ...] = ()

    # Windows
    strides_px: tuple[int, ...] = (4, 8, 16, 32)
    sides_bins: tuple[Side, ...] = (5, 7)  # (V, U) for a window that is no square
    bipyramid: bool = True

    # Head (Fig. 6 and 7): how what a predictor says becomes a natural mask, see `head_rule`
    representation: Literal["natural", "aligned"] = "aligned"
    upscale: float = 1.0  # lam of an upscaling head: so many times fewer bins are predicted
    interpolation: Literal["bilinear", "nearest"] = "bilinear"
    edge: Literal["pad", "clamp"] = "pad"  # beyond the predicted bins: pad_value, or the border

    # Input: callers pass RGB in [0, 1]; the model scales and orders the channels itself
    pixel_scale: float = 1.0
    pixel_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    pixel_std: tuple[float, float, float] = (0.25, 0.25, 0.25)
    bgr: bool = False

    # Network
    backbone: Literal["tiny", "resnet50", "resnet101"] = "tiny"
    # Where a stage of a ResNet halves its grid: in its 1x1 (official), or else in its 3x3
    stride_in_1x1: bool = True
    fpn_channels: int = 48
    tower_convs: int = 2
    class_channels: int = 48
    box_channels: int = 48
    mask_channels: int = 48
    # GroupNorm groups in towers and fuse; 0: no normalisation (official)
    tower_norm_groups: int = 8
    prior: float = 0.01  # probability of every class before training
    pad_value: float = -6.0  # what a mask logit outside the tensor counts as: surely not

    # Which windows are positive, where the paper's text and its code differ (section 4):
    # the unit is sigma_hw (official) or sigma_vu (paper)
    centrality_unit: Literal["stride", "bin"] = "stride"
    # what may be at most twice as long as the object: the window's side, less a stride in the
    # official code
    scale_rule: Literal["side - stride", "side"] = "side - stride"

    # Losses
    focal_gamma: float = 3.0
    focal_alpha: float = 0.3
    box_weights: tuple[float, float, float, float] = (1.5, 1.5, 0.75, 0.75)
    mask_loss_weight: float = 2.0
    mask_positive_weight: float = 1.5
    # Whose positives divide the losses; see detector/losses.py
    normaliser: Literal["process", "global"] = "process"

    # Inference
    score_threshold: float = 0.05
    topk_candidates: int = 1000
    nms_threshold: float = 0.5
    detections_per_image: int = 100
    # Probability from which on a pixel is set (official). Positive bins that weigh w in the
    # loss are learnt too sure of: w / (1 + w) is then an even chance, at 1.5 it is 0.6.
    mask_threshold: float = 0.5
    # A score is the class's times its mask's mean probability, where set, to this power; 0: the
    # class's alone (official)
    mask_score_power: float = 0.0

    def __post_init__(self) -> None:
        names, groups = self.class_names, self.tower_norm_groups
        require(len(names) >= 1, "class_names", "at least one class", names)
        for name, (least, most) in BOUNDS.items():
            value = getattr(self, name)
            require(least <= value <= most, name, f"from {least} to {most}", value)
        ids = self.category_ids
        numbers = not ids or (len(ids) == len(names) and all(isinstance(n, int) for n in ids))
        require(numbers, "category_ids", f"{len(names)} whole numbers, or none", ids)
        require(self.backbone in BACKBONES, "backbone", f"one of {BACKBONES}", self.backbone)
        require(0 < self.prior < 1, "prior", "a probability between 0 and 1", self.prior)
        threshold, power = self.mask_threshold, self.mask_score_power
        require(0 < threshold < 1, "mask_threshold", "between 0 and 1", threshold)
        require(power >= 0, "mask_score_power", "at least 0", power)
        for name in ("pixel_std", "box_weights"):
            values = getattr(self, name)
            require(min(values) > 0, name, "positive numbers", values)
        self._require_one_of("centrality_unit", ("stride", "bin"))
        self._require_one_of("scale_rule", ("side - stride", "side"))
        self._require_one_of("normaliser", ("process", "global"))
        expected = f"a multiple of tower_norm_groups = {groups}"
        for name in ("class_channels", "box_channels", "mask_channels"):
            channels = getattr(self, name)
            require(groups == 0 or channels % groups == 0, name, expected, channels)
        self._check_head(self.geometry)  # which checks strides_px and sides_bins

    def _check_head(self, geometry: Geometry) -> None:
        self._require_one_of("representation", ("natural", "aligned"))
        self._require_one_of("interpolation", ("bilinear", "nearest"))
        self._require_one_of("edge", ("pad", "clamp"))
        lam = self.upscale
        if self.bipyramid and self.representation == "natural":
            why = "the bipyramid makes fine bins of many cells, as aligned masks alone allow"
            raise bad_input("representation", "aligned", "natural", f"{why}; bipyramid=False")
        if self.bipyramid and lam != 1:
            why = "the bipyramid has an upscaling of its own, lam = 2**level"
            raise bad_input("upscale", "1", lam, f"{why}; bipyramid=False")
        for side in {side for shape in geometry.shapes_bins for side in shape}:
            coarse = side / lam
            if round(coarse) < 1 or abs(coarse - round(coarse)) > 1e-9:
                expected = f"a divisor of the sides {self.sides_bins}"
                why = f"a predictor would say {coarse:.4g} bins of {side}"
                raise bad_input("upscale", expected, lam, why)

    def _require_one_of(self, name: str, choices: tuple[str, ...]) -> None:
        value = getattr(self, name)
        require(value in choices, name, " or ".join(choices), value)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def categories(self) -> tuple[int, ...]:
        """The category id of each label, in files of detections."""
        return self.category_ids or tuple(range(1, self.num_classes + 1))

    @property
    def geometry(self) -> Geometry:
        return Geometry(self.strides_px, self.sides_bins, self.bipyramid)

    def coarse_side(self, size_id: int) -> tuple[int, int]:
        """Rows and columns (V, U) of what a predictor says of a window: its bins / upscale."""
        rows, columns = self.geometry.shapes_bins[size_id]
        return round(rows / self.upscale), round(columns / self.upscale)

    def head_rule(self, level: int) -> tuple[float, float, str]:
        """Step, skew and edge of `ops.resample`, which makes natural masks of predicted ones.

        A natural head reads each bin at its own cell, an aligned one beside it; in the
        bipyramid the cells of a level are lam fine cells apart.
        """
        skew = 1.0 if self.representation == "aligned" else 0.0
        edge = "nearest" if self.interpolation == "nearest" else self.edge
        return float(self.geometry.lams[level]), skew, edge

    @property
    def swaps(self) -> bool:
        """Whether the head is `swap_align2nat` on every level: what kernels and exports know.

        It is that of the bipyramid, and the simple aligned head, which is its case lam = 1.
        """
        as_published = self.interpolation == "bilinear" and self.edge == "pad"
        simple = max(self.geometry.lams) == 1  # no border is crossed, so any edge is right
        aligned = self.representation == "aligned" and self.upscale == 1
        return aligned and (as_published or simple)

    @property
    def head(self) -> str:
        """The head in words: `upscaling natural head, lam 3, bilinear, pad`."""
        if self.bipyramid:
            return f"bipyramid head, {self.interpolation}, {self.edge}"
        if self.upscale == 1:
            return f"simple {self.representation} head"
        how = f"lam {self.upscale:g}, {self.interpolation}, {self.edge}"
        return f"upscaling {self.representation} head, {how}"

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
        """Twice an object's length counts as at least so many pixels.

        So any smaller object still matches the smallest window. The official code has
        44 - 4 = 40.
        """
        return self.geometry.side_px(0, 0) - self.scale_slack_px(0)
