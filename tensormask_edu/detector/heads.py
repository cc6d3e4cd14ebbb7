"""The heads' parts: towers of convolutions, and the branch that prepares the masks.

Class and box heads are a tower and one predictor each, put together in `network.py`. The mask
branch has more to do, because in the tensor bipyramid a coarse level predicts at every fine
position (paper, section 4.2).

next: detector/network.py
"""

from __future__ import annotations

from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ModelConfig


def conv_block(before: int, after: int, norm_groups: int) -> list[nn.Module]:
    """3x3 convolution, normalisation if any, ReLU: (N, before, H, W) -> (N, after, H, W)."""
    norm = [nn.GroupNorm(norm_groups, after)] if norm_groups else []
    return [nn.Conv2d(before, after, 3, padding=1), *norm, nn.ReLU(inplace=True)]


def tower(before: int, after: int, num_convs: int, norm_groups: int) -> nn.Sequential:
    """`num_convs` blocks; one tower per task, shared by all levels."""
    widths = [before] + [after] * num_convs
    blocks = [conv_block(b, a, norm_groups) for b, a in zip(widths, widths[1:], strict=False)]
    return nn.Sequential(*(layer for block in blocks for layer in block))


class MaskBranch(nn.Module):
    """Features of all levels -> what the 1x1 predictors of aligned mask logits read.

    In the bipyramid each level's map is upsampled to the finest grid and fused with the finest
    map; `swap_align2nat` then trades positions for bins. Level 0 is fused with itself, as in
    the official code.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.geometry = config.geometry
        channels, groups = config.mask_channels, config.tower_norm_groups
        self.tower = tower(config.fpn_channels, channels, config.tower_convs, groups)
        self.fuse: nn.Module = nn.Identity()
        if config.bipyramid:
            self.fuse = nn.Sequential(*conv_block(channels, channels, groups))
        # Channel v * side + u of a predictor is the logit of bin (v, u).
        self.predictors = nn.ModuleList(
            nn.Conv2d(channels, side * side, 1) for side in config.sides_bins
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        # (N, fpn_channels, H_l, W_l) -> (N, C, H_l, W_l), or (N, C, H_0, W_0) in the bipyramid
        return self.fused([self.tower(feature) for feature in features])

    def fused(self, maps: list[Tensor]) -> list[Tensor]:
        """Puts every level on the finest grid, with the finest map (bipyramid only)."""
        if not self.geometry.bipyramid:
            return maps
        finest = maps[0]
        return [
            self.fuse(self._on_finest_grid(m, level, finest)) for level, m in enumerate(maps)
        ]

    def _on_finest_grid(self, m: Tensor, level: int, finest: Tensor) -> Tensor:
        if level == 0:
            return finest + finest  # the official code treats it like any other level
        up = F.interpolate(  # (N, C, H_l, W_l) -> (N, C, 2^l H_l, 2^l W_l)
            m, scale_factor=float(2**level), mode="bilinear", align_corners=False
        )
        # Images are padded to 32 px at most: a coarser level's last cells can reach beyond.
        if self.geometry.strides_px[level] > self.geometry.padding_px:
            up = up[..., : finest.shape[-2], : finest.shape[-1]]  # -> (N, C, H_0, W_0)
        return up + finest


def start_small(convolutions: Iterable[nn.Module]) -> None:
    """Draws weights near zero and sets biases to zero."""
    for conv in convolutions:
        nn.init.normal_(conv.get_parameter("weight"), std=0.01)
        nn.init.zeros_(conv.get_parameter("bias"))
