"""The heads' parts: towers of convolutions, and the branch that prepares the masks.

Class and box heads are a tower and one predictor each, put together in `network.py`. The mask
branch has more to do, because in the tensor bipyramid (paper, section 3) a coarse level
predicts at every fine position.

next: detector/network.py
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ModelConfig
from .upsampled import convolved, convolved_in_graph, in_graph, pays, upsampled


def conv_block(before: int, after: int, norm_groups: int) -> list[nn.Module]:
    """3x3 convolution, normalisation if any, ReLU: (N, before, H, W) -> (N, after, H, W)."""
    norm = [nn.GroupNorm(norm_groups, after)] if norm_groups else []
    return [nn.Conv2d(before, after, 3, padding=1), *norm, nn.ReLU(inplace=True)]


def tower(before: int, after: int, num_convs: int, norm_groups: int) -> nn.Sequential:
    """`num_convs` blocks; one tower per task, shared by all levels."""
    widths = [before] + [after] * num_convs
    blocks = [conv_block(b, a, norm_groups) for b, a in zip(widths, widths[1:], strict=False)]
    return nn.Sequential(*(layer for block in blocks for layer in block))


class MaskPredictor(nn.Conv2d):
    """A 1x1 convolution that says the mask bins at every cell: (N, C, H, W) -> (N, V, U, H, W).

    Channel v * U + u of the convolution is the logit of bin (v, u), before the head's rule
    makes a natural mask of it.

    Args:
        bins: (V, U), see `ModelConfig.coarse_side`.
    """

    bias: Tensor

    def __init__(self, channels: int, bins: tuple[int, int]) -> None:
        super().__init__(channels, bins[0] * bins[1], 1)
        self.bins = bins

    def forward(self, m: Tensor) -> Tensor:
        """At all cells, as a matrix product.

        PyTorch's convolution takes a slow way for a number of channels like 25 or 49.
        """
        if not pays(m):
            return super().forward(m).unflatten(1, self.bins)
        rows = self.weight.flatten(1).expand(len(m), -1, -1)  # (V*U, C, 1, 1) -> (N, V*U, C)
        flat = torch.baddbmm(self.bias[:, None], rows, m.flatten(2))  # (N, V*U, H*W)
        return flat.unflatten(2, m.shape[2:]).unflatten(1, self.bins)

    def at_cells(self, features: Tensor) -> Tensor:
        """At single cells, by their features alone: (P, C) -> (P, V, U)."""
        return F.linear(features, self.weight.flatten(1), self.bias).unflatten(1, self.bins)


class MaskBranch(nn.Module):
    """Features of all levels -> what the 1x1 predictors of mask logits read.

    In the bipyramid each level's map is upsampled to the finest grid and fused with the finest
    map; `swap_align2nat` then trades positions for bins. Level 0 is fused with itself, as in
    the official code. Every other head reads its level's own map.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.geometry = config.geometry
        channels, groups = config.mask_channels, config.tower_norm_groups
        self.tower = tower(config.fpn_channels, channels, config.tower_convs, groups)
        self.fuse = nn.Sequential()
        if config.bipyramid:
            self.fuse = nn.Sequential(*conv_block(channels, channels, groups))
        self.predictors = nn.ModuleList(
            MaskPredictor(channels, config.coarse_side(size_id))
            for size_id in range(self.geometry.num_sizes)
        )

    def forward(self, features: list[Tensor], read: list[Tensor] | None = None) -> list[Tensor]:
        """Per level (n, C, H, W) of the images `read` there; in a bipyramid on one grid.

        Args:
            features: per level (N, fpn_channels, H_l, W_l).
            read: per level the numbers of the images that are asked for; None: all.
        """
        own = [self.tower(picked(f, read, level)) for level, f in enumerate(features)]
        if not self.geometry.bipyramid:
            return [self.fuse(m) for m in own]  # (n_l, C, H_l, W_l); by default nothing to do
        # Level 0 of all images is a part of every level.
        finest = own[0] if read is None else self.tower(features[0])
        return self.fused(own, finest, read)

    def fused(
        self, own: list[Tensor], finest: Tensor, read: list[Tensor] | None = None
    ) -> list[Tensor]:
        """Every level's own map on the finest grid, with the finest map (bipyramid only)."""
        traced = in_graph(finest)
        if not (traced or pays(finest)):
            return [
                self.fuse(self._on_finest_grid(m, level, picked(finest, read, level)))
                for level, m in enumerate(own)
            ]
        on_coarse = convolved_in_graph if traced else convolved
        # The convolution of a sum is the sum of two, and the finest map's is the same for all.
        conv, after = self.fuse[0], self.fuse[1:]
        weight, bias = conv.get_parameter("weight"), conv.get_parameter("bias")
        shared = conv(finest)  # (N, C, H_0, W_0)
        fused = []
        for level, m in enumerate(own):
            mine = picked(shared, read, level)  # (n_l, C, H_0, W_0)
            if level == 0:
                both = 2 * mine - bias[:, None, None]  # of finest + finest
            else:
                both = mine + on_coarse(m, weight, 2**level, finest.shape[-2:])
            fused.append(after(both))
        return fused

    def _on_finest_grid(self, m: Tensor, level: int, finest: Tensor) -> Tensor:
        """Adds the finest map to a level's own; level 0 is treated like any other level."""
        if level == 0:
            return finest + finest
        # Images are padded to 32 px at most: a coarser level's last cells can reach beyond.
        return upsampled(m, 2**level, finest.shape[-2:]) + finest


def picked(m: Tensor, read: list[Tensor] | None, level: int) -> Tensor:
    """The images of a batch (N, ...) that are `read` at a level, in memory as it was."""
    if read is None or len(read[level]) == len(m):
        return m
    return m.permute(0, 2, 3, 1)[read[level]].permute(0, 3, 1, 2)  # channels stay last


def start_small(convolutions: Iterable[nn.Module]) -> None:
    """Draws weights near zero and sets biases to zero."""
    for conv in convolutions:
        nn.init.normal_(conv.get_parameter("weight"), std=0.01)
        nn.init.zeros_(conv.get_parameter("bias"))
