"""SharpMask: DeepMask's mask, refined from coarse to fine with the trunk's finer maps.

Pinheiro, Lin, Collobert, Dollár 2016 (arXiv 1603.08695). What the paper says:

- The code of a position becomes a *mask encoding* of 32 channels on the trunk's coarsest grid
  (10 x 10) instead of a mask. Modules then double its grid, four times, and a last 3x3
  convolution gives one logit per pixel of the patch.
- A module joins what is known of the mask, M, with a map F of the trunk on the same grid:
  M' = up2(ReLU(conv3x3([S, M]))), S a few channels made of F. Channels halve with each module.
- *Refactored*: the convolution of two things side by side is the sum of two convolutions. That
  of S is the same for every window, so it runs once per picture and is cut out; only that of M
  runs per window. Equal in real numbers.
- From F to S there are two convolutions: a single one trained badly.
- Two stages: DeepMask is trained to the end and frozen, its normalisation too; then the
  encoding and the modules learn, with the mask loss at full resolution, on positives alone.
- Inference: DeepMask's scores choose the best N windows of all scales, and those are refined.
- COCO 2014 val, masks: AR@10, 100, 1000 of 15.6, 27.6, 35.5, where DeepMask has 14.4, 25.8,
  33.1. Without the horizontal or without the vertical convolutions nothing was gained.

Where this file deviates: two modules (8 -> 16 -> 32 px) on a small trunk, zeros as padding, a
doubling by nearest neighbour as in the public code (the paper: bilinear), AdamW, a mask
binarised at .5. Horizontal maps see true context at a window's rim, at inference and, because
patches have a margin, in training.

next: ancestors/instance_fcn.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ..config import InputConfig, TrainConfig
from ..data.coco import CocoFolder
from . import deepmask
from .deepmask import CELLS, CODE, DeepMask, Scale, mask_loss, sampled
from .fit import FILE_SIZE, Sample, fit
from .pyramid import Trunk, windows_of

ENCODING = 16  # channels of the mask encoding; they halve with each module
EACH = 3  # positives of a picture in a batch
FIRST_SHARE = 0.45  # of all steps, what DeepMask gets before it is frozen

RECIPE = replace(deepmask.RECIPE, lr=8e-3)  # of the second stage


class Refinement(nn.Module):
    """One module: masks (P, k, s, s) of windows and a map of the picture -> (P, k/2, 2s, 2s).

    Args:
        map_channels: of the trunk's map. channels: k, of the mask encoding that comes in.
    """

    def __init__(self, map_channels: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.skip = nn.Sequential(
            nn.Conv2d(map_channels, 32, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, channels, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.inner = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True)
        )
        # over [S, M], 2k channels side by side
        self.fuse = nn.Conv2d(2 * channels, channels // 2, 3, padding=1)

    def horizontal(self, features: Tensor) -> Tensor:
        """The fusing convolution of S alone, once per picture: (N, C, H, W) -> (N, k/2, H, W).

        It has no bias: the vertical one brings it.
        """
        of_skip = self.fuse.weight[:, : self.channels]  # (k/2, k, 3, 3)
        return F.conv2d(self.skip(features), of_skip, padding=1)

    def refined(self, masks: Tensor, horizontal: Tensor, index: Tensor) -> Tensor:
        """The refactored form: what is shared was computed before, and is cut out here.

        index: (P, 3), where in the horizontal maps (n, y, x) each window begins.
        """
        of_mask = self.fuse.weight[:, self.channels :]  # (k/2, k, 3, 3)
        vertical = F.conv2d(self.inner(masks), of_mask, self.fuse.bias, padding=1)
        cut_out = windows_of(horizontal, index, masks.shape[-1])  # (P, k/2, s, s)
        return _doubled(vertical + cut_out)

    def side_by_side(self, masks: Tensor, features: Tensor, index: Tensor) -> Tensor:
        """The paper's first form, the same numbers: one convolution over [S, M] per window."""
        # One cell more on each side: S goes on beyond the window, M does not.
        skip = F.pad(self.skip(features), (1, 1, 1, 1))  # (N, k, H+2, W+2)
        skip = windows_of(skip, index, masks.shape[-1] + 2)  # (P, k, s+2, s+2)
        inner = F.pad(self.inner(masks), (1, 1, 1, 1))  # (P, k, s+2, s+2)
        both = torch.cat([skip, inner], dim=1)  # (P, 2k, s+2, s+2)
        return _doubled(F.conv2d(both, self.fuse.weight, self.fuse.bias))


def _doubled(masks: Tensor) -> Tensor:
    """ReLU, then nearest neighbour: (P, k/2, s, s) -> (P, k/2, 2s, 2s)."""
    return F.interpolate(F.relu(masks), scale_factor=2.0)


def _keep_spread(module: nn.Module) -> None:
    """He's weights: PyTorch's own shrink a signal by two at each of seven ReLUs in a row."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        assert module.bias is not None
        nn.init.zeros_(module.bias)


class SharpMask(DeepMask):
    """A DeepMask, frozen, whose masks are refined to (P, 32, 32)."""

    def __init__(self, first: DeepMask) -> None:
        super().__init__(first.scales)
        self.load_state_dict(first.state_dict())
        self.requires_grad_(False)  # all that is there so far; what follows learns
        self.encode = nn.Conv2d(CODE, ENCODING * CELLS * CELLS, 1)
        self.coarse = Refinement(Trunk.channels, ENCODING)  # 8 -> 16 cells of 2 px
        self.fine = Refinement(Trunk.fine_channels, ENCODING // 2)  # 16 -> 32, a pixel each
        self.last = nn.Conv2d(ENCODING // 4, 1, 3, padding=1)
        for part in (self.encode, self.coarse, self.fine, self.last):
            part.apply(_keep_spread)

    def train(self, mode: bool = True) -> SharpMask:
        """What is frozen stays in evaluation mode: statistics do not move, nothing drops."""
        super().train(mode)
        for frozen in (self.trunk, self.bottleneck, self.mask, self.score):
            frozen.eval()
        return self

    def masks_of(self, scale: Scale, index: Tensor) -> Tensor:
        """Refined logits (P, 32, 32) at the positions (n, y, x), index (P, 3)."""
        codes = windows_of(scale.codes, index, 1)  # (P, 256, 1, 1)
        masks = self.encode(codes).view(-1, ENCODING, CELLS, CELLS)  # (P, 16, 8, 8)
        # A window begins a cell of context after its patch, and finer maps count faster.
        begin = index + index.new_tensor([0, 1, 1])
        masks = self.coarse.refined(masks, self.coarse.horizontal(scale.coarse), begin)
        begin = begin * begin.new_tensor([1, 2, 2])
        masks = self.fine.refined(masks, self.fine.horizontal(scale.fine), begin)
        return self.last(masks)[:, 0]  # (P, 4, 32, 32) -> (P, 32, 32)

    def losses(self, samples: Sequence[Sample], generator: Generator) -> dict[str, Tensor]:
        patches = sampled(samples, self.scales, generator, EACH, 0)  # positives alone
        positives = len(patches.masks)
        with torch.no_grad():  # frozen
            fine, coarse, codes = self.code(patches.pixels)
        index = torch.zeros(positives, 3, dtype=torch.int64)
        index[:, 0] = torch.arange(positives)
        nothing = codes.new_zeros(0)
        logits = self.masks_of(Scale(fine, coarse, codes, nothing, nothing), index)
        return {"loss_mask": mask_loss(logits, patches.masks)}


def train(
    dataset: CocoFolder,
    config: TrainConfig = RECIPE,
    input_config: InputConfig = FILE_SIZE,
    progress: bool = True,
    first: DeepMask | None = None,
) -> SharpMask:
    """A SharpMask trained on any COCO folder, in two stages.

    Args:
        config: its steps are those of both stages, its lr the second's.
        first: a trained DeepMask; all steps then refine its masks.

    Raises:
        InputError, FloatingPointError: see `fit`.
    """
    steps = 0 if first else max(1, round(config.steps * FIRST_SHARE))
    if first is None:
        begin = replace(config, steps=steps, lr=deepmask.RECIPE.lr)
        first = deepmask.train(dataset, begin, input_config, progress)
    rest = replace(config, steps=max(1, config.steps - steps))
    return fit(partial(SharpMask, first), dataset, rest, input_config, progress)
