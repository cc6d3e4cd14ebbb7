"""The network of the paper: image in; class logits, box deltas and mask features out.

It knows neither losses nor targets, so a lesson or an exporter can hold it without training
code.
Parts in order: tower, predictors, bipyramid, whole (paper, sections 4 and 5).

next: model.py
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ModelConfig
from ..geometry import Windows
from ..ops import swap_align2nat, swap_align2nat_windows
from .backbone import Backbone

Item = TypeVar("Item")


class OnDemand(Generic[Item]):
    """A list whose items are made when asked for, and not kept."""

    def __init__(self, count: int, make: Callable[[int], Item]) -> None:
        self.count, self.make = count, make

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Item:
        return self.make(range(self.count)[index])

    def __iter__(self) -> Iterator[Item]:
        return map(self.make, range(self.count))


class NetworkOutput(NamedTuple):
    """What the network says about a batch; lists run over levels, A = window sizes, K =
    classes.

    features: (N, C, H_l, W_l) of the feature pyramid.
    logits: (N, A*K, H_l, W_l), channel a*K + k.
    deltas: (N, A*4, H_l, W_l), channel a*4 + (dx, dy, dw, dh), weighted as the box loss wants
    them.
    mask_features: (N, C, H, W), what the 1x1 mask predictors read. In the bipyramid every level
    has the
        finest grid (H_0, W_0).
    mask_predictors: one 1x1 convolution per window size.
    """

    features: list[Tensor]
    logits: list[Tensor]
    deltas: list[Tensor]
    mask_features: list[Tensor]
    mask_predictors: nn.ModuleList

    @property
    def aligned(self) -> OnDemand[OnDemand[Tensor]]:
        """`aligned[level][size_id]`: (N, V, U, H, W), mask logits in the aligned
        representation, before `swap_align2nat(lam)`. At 800 x 1344 px all of them are half a
        gigabyte per image, so each is predicted where it is used, and dropped."""
        num_sizes = len(self.mask_predictors)
        return OnDemand(
            len(self.mask_features),
            lambda level: OnDemand(num_sizes, lambda a: self._predict(level, a)),
        )

    def _predict(self, level: int, size_id: int) -> Tensor:
        flat = self.mask_predictors[size_id](self.mask_features[level])
        side = math.isqrt(flat.shape[1])
        return flat.unflatten(1, (side, side))

    def of_image(self, number: int) -> NetworkOutput:
        """The part about one image of the batch, as a batch of one."""
        lists = (self.features, self.logits, self.deltas, self.mask_features)
        features, logits, deltas, masks = (
            [m[number : number + 1] for m in maps] for maps in lists
        )
        return NetworkOutput(features, logits, deltas, masks, self.mask_predictors)


class WindowMasks(NamedTuple):
    """Masks of the windows that share one size. where: (P,) their positions in the list asked
    for;
    values: (P, side, side), logits or targets."""

    where: Tensor
    values: Tensor


def conv_block(before: int, after: int, norm_groups: int) -> list[nn.Module]:
    """3x3 convolution, normalisation if any, ReLU."""
    norm = [nn.GroupNorm(norm_groups, after)] if norm_groups else []
    return [nn.Conv2d(before, after, 3, padding=1), *norm, nn.ReLU(inplace=True)]


def tower(before: int, after: int, num_convs: int, norm_groups: int) -> nn.Sequential:
    """`num_convs` blocks; one tower per task, shared by all levels."""
    widths = [before] + [after] * num_convs
    blocks = [conv_block(b, a, norm_groups) for b, a in zip(widths, widths[1:], strict=False)]
    return nn.Sequential(*(layer for block in blocks for layer in block))


class MaskBranch(nn.Module):
    """Features of all levels -> what the 1x1 predictors of aligned mask logits read, all
    levels.

    With the bipyramid (section 4.2) each level's map is upsampled to the finest grid and fused
    with the finest map, so that a coarse level predicts at every fine position;
    `swap_align2nat` then trades positions for bins. Level 0 is fused with itself, as in the
    official code.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.geometry = config.geometry
        channels = config.mask_channels
        self.tower = tower(
            config.fpn_channels, channels, config.tower_convs, config.tower_norm_groups
        )
        self.fuse = (
            nn.Sequential(*conv_block(channels, channels, config.tower_norm_groups))
            if config.bipyramid
            else nn.Identity()
        )
        self.predictors = nn.ModuleList(
            nn.Conv2d(channels, side * side, 1) for side in config.sides_bins
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return self.fused([self.tower(feature) for feature in features])

    def fused(self, maps: list[Tensor]) -> list[Tensor]:
        """Of the bipyramid: every level on the finest grid, fused with the finest map."""
        if not self.geometry.bipyramid:
            return maps
        return [
            self.fuse(self._on_finest_grid(m, level, maps[0])) for level, m in enumerate(maps)
        ]

    def _on_finest_grid(self, m: Tensor, level: int, finest: Tensor) -> Tensor:
        if level == 0:
            return finest + finest
        up = F.interpolate(
            m, scale_factor=float(2**level), mode="bilinear", align_corners=False
        )
        if (
            self.geometry.strides_px[level] > self.geometry.padding_px
        ):  # only then can it overshoot
            up = up[..., : finest.shape[-2], : finest.shape[-1]]
        return up + finest


class TensorMaskNet(nn.Module):
    """Backbone and the three branches: (N, 3, H, W) normalised image, H and W multiples of
    `geometry.padding_px` -> `NetworkOutput`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        num_sizes, fpn = config.geometry.num_sizes, config.fpn_channels
        convs, groups = config.tower_convs, config.tower_norm_groups
        self.backbone = Backbone(
            config.backbone, fpn, config.geometry.num_levels, config.stride_in_1x1
        )
        self.class_tower = tower(fpn, config.class_channels, convs, groups)
        self.class_predictor = nn.Conv2d(
            config.class_channels, num_sizes * config.num_classes, 3, padding=1
        )
        self.box_tower = tower(fpn, config.box_channels, convs, groups)
        self.box_predictor = nn.Conv2d(config.box_channels, num_sizes * 4, 3, padding=1)
        self.mask_branch = MaskBranch(config)
        self._init_head()

    def _init_head(self) -> None:
        """Predictors (and, without normalisation, every head convolution) start small; the
        class bias starts at the prior, so that the many negatives do not swamp the first
        steps."""
        predictors = [self.class_predictor, self.box_predictor, *self.mask_branch.predictors]
        towers = [self.class_tower, self.box_tower, self.mask_branch]
        plain = [m for t in towers for m in t.modules() if isinstance(m, nn.Conv2d)]
        for conv in predictors if self.config.tower_norm_groups else predictors + plain:
            nn.init.normal_(conv.get_parameter("weight"), std=0.01)
            nn.init.zeros_(conv.get_parameter("bias"))
        nn.init.constant_(self.class_predictor.get_parameter("bias"), self.config.prior_bias)

    def forward(self, image: Tensor) -> NetworkOutput:
        features = self.backbone(image)
        return NetworkOutput(
            features=features,
            logits=[self.class_predictor(self.class_tower(f)) for f in features],
            deltas=[self.box_predictor(self.box_tower(f)) for f in features],
            mask_features=self.mask_branch(features),
            mask_predictors=self.mask_branch.predictors,
        )

    def natural(self, output: NetworkOutput) -> list[list[Tensor]]:
        """All natural mask logits, per level and size (N, lam*V, lam*U, H_l, W_l).

        For study and export: training and inference evaluate just the windows they need."""
        lams = self.config.geometry.lams
        return [
            [swap_align2nat(aligned, lam, self.config.pad_value) for aligned in sizes]
            for lam, sizes in zip(lams, output.aligned, strict=True)
        ]

    def mask_logits(
        self, output: NetworkOutput, image: Tensor, windows: Windows, at_once: int | None = None
    ) -> Iterator[WindowMasks]:
        """The natural mask logits of P chosen windows, the same numbers as in `natural`.

        One group after the other, so that a single aligned tensor lives at a time.

        Args:
            image: (P,) int64, which image of the batch each window belongs to.
            windows: the P windows.
            at_once: groups are handed out in pieces of at most so many windows.
        """
        lams, pad_value = self.config.geometry.lams, self.config.pad_value
        for level, size_id, where in windows.groups():
            aligned = output.aligned[level][size_id]
            for part in where.split(at_once or len(where)):
                index = torch.stack([image[part], windows.y[part], windows.x[part]], dim=1)
                yield WindowMasks(
                    part, swap_align2nat_windows(aligned, lams[level], index, pad_value)
                )
            del aligned  # before the next one is made


def per_window(maps: list[Tensor], num_sizes: int) -> Tensor:
    """Level maps (N, A*C, H_l, W_l) -> (N, M, C) in the window order of `Geometry.windows`."""
    rows = [m.unflatten(1, (num_sizes, -1)).permute(0, 3, 4, 1, 2).flatten(1, 3) for m in maps]
    return torch.cat(rows, dim=1)
