"""DeepMask: at every position of a pyramid of scales one mask and one score.

Pinheiro, Collobert, Dollár 2015 (arXiv 1506.06204), in the form of the SharpMask paper and the
public code ("DeepMask-ours"). What the paper says:

- A patch of 160 px, with 16 px of context around it, goes through a trunk of stride 16 to
  10 x 10 cells (a ResNet-50 cut at stride 16); then one bottleneck for both heads: a 1x1
  convolution to 128, ReLU, a linear layer to 512.
- Mask: linear, 512 -> 56 x 56 logits, upscaled bilinearly. Score: linear 512 -> 1024, ReLU,
  linear -> 1, dropout .5 before each.
- A positive has one object in its middle, whose long side is 128/224 of the patch; centre and
  scale are jittered (16/224 of the patch, a quarter octave). A negative is two jitters or a
  factor of two away from every such patch. As many of either.
- Loss: logistic, the mean over the mask's pixels for positives only, and the score of all; the
  mask weighs 32 times as much.
- Inference: linear layers are convolutions, so the whole picture is one pass per scale, a
  window every 16 px, scales in half octaves, grey around the picture, the best N by score, no
  suppression.
- COCO 2014 val, masks: AR@10, 100, 1000 of 14.4, 25.8, 33.1 (first form: 12.6, 24.5, 33.1).

The masks of one scale are a tensor of the *natural* representation (V, U, H, W) with V = U: bin
(v, u) of cell (y, x) lies at (v, u) in the window of (y, x). TensorMask's simple natural head
is this head on a feature pyramid.

Where this file deviates: small pictures (patch 32 px, context 4, stride 4, 8 x 8 cells, 12 x 12
bins, code 256) and a small trunk from scratch, whose padding is zeros, not reflected; both
heads learn from every batch, 2 x mask + score; AdamW; objects are drawn picture by picture, not
class by class; a mask is binarised at .5, not .2.

next: ancestors/sharpmask.py
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ..config import InputConfig, TrainConfig
from ..data.coco import CocoFolder
from ..data.truth import Truth
from .fit import AUGMENT, FILE_SIZE, Detector, Drawn, Proposals, Sample, fit
from .pyramid import (
    SCALES,
    Trunk,
    best_of,
    canonical,
    cut,
    cut_masks,
    drawn,
    grid_windows,
    jittered,
    near_and_far,
    normalised,
    paste_windows,
    random_windows,
    resized,
    windows_of,
)

WINDOW_PX, CONTEXT_PX = 32, 4  # a patch, and what surrounds it on each side
CELLS = WINDOW_PX // Trunk.stride_px
BINS = 12  # V = U
CODE = 256  # what a position knows: the rank of the mask layer
EACH = 2  # positives, and as many negatives, of a picture in a batch
THRESHOLD = 0.5

RECIPE = TrainConfig(batch_size=8, lr=2e-3, augment=AUGMENT)


class Patches(NamedTuple):
    """What a batch teaches: p positives first, then negatives.

    pixels: (n, 3, 40, 40), normalised. masks: (p, 32, 32) of 0 and 1, without the context.
    """

    pixels: Tensor
    masks: Tensor


class Scale(NamedTuple):
    """A picture at one scale: maps of the trunk, and per position (h, w) what it knows.

    fine: (1, 24, H, W), coarse: (1, 96, H/2, W/2). codes: (1, 256, h, w). scores: (h, w)
    logits. window_px: (h, w, 4) in the picture.
    """

    fine: Tensor
    coarse: Tensor
    codes: Tensor
    scores: Tensor
    window_px: Tensor


class DeepMask(Detector):
    """Masks (n, 12, 12) and scores of windows of 32 px at any scale."""

    def __init__(self, scales: Sequence[float] = SCALES) -> None:
        super().__init__()
        self.scales = tuple(scales)
        self.trunk = Trunk()
        self.bottleneck = nn.Sequential(
            nn.Conv2d(Trunk.channels, 32, 1),
            nn.ReLU(inplace=True),
            # the linear layer on all cells of a patch, as a convolution that slides
            nn.Conv2d(32, CODE, CELLS),
        )
        self.mask = nn.Conv2d(CODE, BINS * BINS, 1)  # channel v * BINS + u
        self.score = nn.Sequential(
            nn.Dropout(),
            nn.Conv2d(CODE, CODE, 1),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Conv2d(CODE, 1, 1),
        )

    def code(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps and codes (N, 256, h, w) of normalised pixels (N, 3, H, W): one per 4 px.

        Code (y, x) has seen the patch that begins at 4 y, 4 x; of 40 px there is just one.
        """
        fine, coarse = self.trunk(pixels)
        # the context did its work in the trunk: a cell of it is cut off on each side
        return fine, coarse, self.bottleneck(coarse[:, :, 1:-1, 1:-1])

    def natural(self, codes: Tensor) -> Tensor:
        """Mask logits as a tensor of the natural representation: (N, V, U, h, w)."""
        return self.mask(codes).unflatten(1, (BINS, BINS))

    # --- training -----------------------------------------------------------------------------

    def losses(self, samples: Sequence[Sample], generator: Generator) -> dict[str, Tensor]:
        patches = sampled(samples, self.scales, generator)
        codes = self.code(patches.pixels)[2]  # (n, 256, 1, 1)
        positives = len(patches.masks)
        scores = self.score(codes).flatten()  # (n,)
        logits = self.natural(codes[:positives])[..., 0, 0]  # (p, V, U)
        target = (torch.arange(len(scores)) < positives).float()
        return {
            "loss_mask": 2 * mask_loss(logits, patches.masks),
            "loss_score": F.binary_cross_entropy_with_logits(scores, target),
        }

    # --- inference ----------------------------------------------------------------------------

    def seen(self, image: Tensor) -> list[Scale]:
        """A picture (3, H, W) in [0, 1] at all scales."""
        found = []
        for scale in self.scales:
            pad_px = WINDOW_PX // 2 + CONTEXT_PX  # the first patch's centre is the corner
            pixels = resized(normalised(image), scale, pad_px, Trunk.stride_px)
            fine, coarse, codes = self.code(pixels)
            scores = self.score(codes)[0, 0]  # (h, w)
            (height, width), (h, w) = image.shape[1:], scores.shape
            place = (Trunk.stride_px, 0, WINDOW_PX)
            windows = grid_windows((height, width), scale, (h, w), *place)
            found.append(Scale(fine, coarse, codes, scores, windows))
        return found

    def masks_of(self, scale: Scale, index: Tensor) -> Tensor:
        """Mask logits (P, side, side) at the positions (n, y, x), index (P, 3)."""
        return self.natural(windows_of(scale.codes, index, 1))[..., 0, 0]

    @torch.inference_mode()
    def propose(self, image: Tensor, count: int) -> Proposals:
        scales = self.seen(image)
        logits, windows, scores = [], [], []
        best = best_of([scale.scores for scale in scales], count)
        for scale, cells in zip(scales, best, strict=True):
            if not len(cells):
                continue
            width = scale.scores.shape[1]
            index = torch.stack([cells * 0, cells // width, cells % width], dim=1)  # (P, 3)
            logits.append(self.masks_of(scale, index))
            windows.append(scale.window_px.flatten(0, 1)[cells])  # (P, 4)
            scores.append(scale.scores.flatten()[cells])
        size = (image.shape[1], image.shape[2])
        return drawn(logits, windows, scores, size, THRESHOLD)

    @torch.inference_mode()
    def at_truth(self, image: Tensor, truth: Truth) -> Drawn:
        windows = canonical(truth["boxes"])  # (m, 4)
        size = (image.shape[1], image.shape[2])
        fine, coarse, codes = self.code(patches_of(normalised(image), windows))
        nothing = codes.new_zeros(0)
        index = torch.zeros(len(windows), 3, dtype=torch.int64)
        index[:, 0] = torch.arange(len(windows))  # each patch is a picture with one window
        logits = self.masks_of(Scale(fine, coarse, codes, nothing, nothing), index)
        target = cut_masks(truth["masks"], windows, logits.shape[-1]) * 40 - 20  # sure logits
        masks, reachable = (paste_windows([x], [windows], size) for x in (logits, target))
        return Drawn(torch.arange(len(windows)), masks, reachable)


def mask_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Logistic loss of logits (p, V, U) against masks (p, side, side), a mean over pixels.

    The logits are upscaled bilinearly to the masks' side, so that the loss sees their edges.
    """
    if not len(masks):  # a batch of empty pictures
        return logits.sum()
    large = F.interpolate(logits[:, None], masks.shape[1:], mode="bilinear")[:, 0]
    return F.binary_cross_entropy_with_logits(large, masks)


def patches_of(image: Tensor, window_px: Tensor) -> Tensor:
    """Windows (n, 4) of a normalised picture with their context: (n, 3, 40, 40)."""
    side_px = WINDOW_PX + 2 * CONTEXT_PX
    margin = (window_px[:, 2:] - window_px[:, :2]) * CONTEXT_PX / WINDOW_PX  # (n, 2)
    outer = torch.cat([window_px[:, :2] - margin, window_px[:, 2:] + margin], dim=1)
    return cut(image, outer, side_px)


def sampled(
    samples: Sequence[Sample],
    scales: Sequence[float],
    generator: Generator,
    num_positives: int = EACH,
    num_negatives: int = EACH,
) -> Patches:
    """Positives and negatives of every picture, up to so many each, drawn at random."""
    positives, negatives, masks = [], [], []
    for image, truth in samples:
        boxes, pixels = truth["boxes"], normalised(image)
        chosen = torch.randperm(len(boxes), generator=generator)[:num_positives]
        windows = jittered(canonical(boxes[chosen]), generator)  # (p, 4)
        positives.append(patches_of(pixels, windows))
        masks.append(cut_masks(truth["masks"][chosen], windows, WINDOW_PX))
        sides = (WINDOW_PX / max(scales), WINDOW_PX / min(scales))
        size = (image.shape[1], image.shape[2])
        tried = random_windows(10 * num_negatives, size, sides, generator)
        far = near_and_far(tried, boxes)[1].all(dim=1)  # (tried,), of every object
        negatives.append(patches_of(pixels, tried[far][:num_negatives]))
    return Patches(torch.cat(positives + negatives), torch.cat(masks))


def train(
    dataset: CocoFolder,
    config: TrainConfig = RECIPE,
    input_config: InputConfig = FILE_SIZE,
    progress: bool = True,
) -> DeepMask:
    """A DeepMask trained on any COCO folder; classes are not looked at.

    Raises:
        InputError, FloatingPointError: see `fit`.
    """
    return fit(DeepMask, dataset, config, input_config, progress)
