"""InstanceFCN: the mask of a window is put together from k x k maps of the whole picture.

Dai, He, Li, Ren, Sun 2016 (arXiv 1603.08678). What the paper says:

- A fully convolutional trunk of stride 8 (VGG-16, dilated). Mask branch: 1x1 convolution to
  512, ReLU, 3x3 convolution to k x k *score maps*, k = 5. Score branch: 3x3 convolution to 512,
  ReLU, 1x1 convolution to 1: is there an object in the window around this cell?
- Assembling has no parameters: a window of m x m cells, m = 21, is divided into k x k parts,
  and each part copies from its own score map, at the same place.
- Loss: logistic, of 256 windows a picture, as many positives as negatives, positives as in
  DeepMask; masks of positives only.
- Trained on whole pictures whose short side is drawn from 600 x 1.5^(-4 to 1); tested on the
  same scales; duplicates suppressed by the IoU of the masks' tight boxes, .8.
- COCO 2014 val, masks: AR@10, 100, 1000 of 16.6, 31.7, 39.2 (DeepMask 12.6, 24.5, 33.1). VOC
  2012: k = 3, 5, 7 differ by half a point.

Score map (a, b) at cell (y, x) is the *aligned* tensor F^(a, b, y, x) with V^ = U^ = k: what
cell (y, x) says of itself as part (a, b) of a window. Assembling is TensorMask's
``align2nat(up_nearest(F^, m / k))``, bit for bit where m and m / k are odd. For other m / k the
parts are of unequal size; here bin i copies part floor((2 i + 1) k / 2 m), the package's
half-pixel rule, which is symmetric.

Where this file deviates: a small trunk of stride 4 from scratch, windows of m = 15 cells, 60
px, and a pyramid an octave finer than DeepMask's for it; crops of 128 px in place of whole
pictures, half of them at a scale that fits one of their objects; the mask weighs 2 x its mean,
not a sum over pixels; AdamW; a cell outside the grid counts as surely empty.

next: ancestors/mask_rcnn.py
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ..config import InputConfig, TrainConfig
from ..data.coco import CocoFolder
from ..data.truth import Truth
from . import pyramid
from .fit import AUGMENT, FILE_SIZE, Detector, Drawn, Proposals, Sample, fit
from .pyramid import (
    OCTAVES,
    Trunk,
    best_of,
    canonical,
    centre_and_side,
    cut,
    cut_masks,
    drawn,
    grid_windows,
    near_and_far,
    normalised,
    paste_windows,
    resized,
    squares,
)

SCALES = tuple(2 * scale for scale in pyramid.SCALES)  # the window is twice as large
PARTS = 5  # k
SIDE = 15  # m, in cells: odd, so that a window has a cell in its middle, and a multiple of k
STEP_PX = Trunk.stride_px
WINDOW_PX = SIDE * STEP_PX
CROP_PX = 128  # what is trained on, in the scaled picture
EACH = 32  # positives at most, and as many negatives, of a crop
THRESHOLD = 0.5
PAD = -6.0  # the logit of a cell outside the grid

RECIPE = TrainConfig(batch_size=4, lr=1e-3, augment=AUGMENT)


def assemble(maps: Tensor, index: Tensor, side: int) -> Tensor:
    """The masks of windows of side x side cells around the cells (n, y, x), index (P, 3).

    maps: (N, k * k, H, W), map a * k + b for part (a, b). out: (P, side, side).
    side: odd. Cells outside the grid count as `PAD`.
    """
    parts = round(maps.shape[1] ** 0.5)
    bins = torch.arange(side, device=maps.device)
    part = (2 * bins + 1) * parts // (2 * side)  # (side,), the half-pixel rule
    channel = part[:, None] * parts + part  # (side, side)
    # with a margin no window leaves the grid, and bin i of a window at y lies in row y + i
    maps = F.pad(maps, [side // 2] * 4, value=PAD)
    n, y, x = (column[:, None, None] for column in index.unbind(1))  # (P, 1, 1)
    return maps[n, channel, y + bins[:, None], x + bins]  # (P, side, side)


class InstanceFCN(Detector):
    """Masks (P, 15, 15) of windows of 60 px at any scale."""

    def __init__(self, scales: Sequence[float] = SCALES) -> None:
        super().__init__()
        self.scales = tuple(scales)
        # Dilated as the paper's: what a window of 60 px holds must be seen from its middle.
        self.trunk = Trunk(dilation=2)
        self.mask = nn.Sequential(
            nn.Conv2d(Trunk.channels, 64, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, PARTS * PARTS, 3, padding=1),
        )
        self.score = nn.Sequential(
            nn.Conv2d(Trunk.channels, 64, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 1, 1),
        )

    def maps(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Score maps (N, 25, h, w) and objectness (N, h, w) of normalised pixels."""
        features = self.trunk(pixels)[1]  # (N, 3, H, W) -> (N, 96, h, w)
        return self.mask(features), self.score(features)[:, 0]

    # --- training -----------------------------------------------------------------------------

    def losses(self, samples: Sequence[Sample], generator: Generator) -> dict[str, Tensor]:
        regions = [self._region(image, truth, generator) for image, truth in samples]
        crops = [
            cut(normalised(image), region[None], CROP_PX)
            for (image, _), region in zip(samples, regions, strict=True)
        ]
        maps, scores = self.maps(torch.cat(crops))  # (N, 25, 32, 32), (N, 32, 32)
        taught = [
            labelled(truth, region, scores.shape[1:], generator)
            for (_, truth), region in zip(samples, regions, strict=True)
        ]
        # (y, x) of each crop -> (n, y, x)
        positive, negative = (
            torch.cat([F.pad(cells[kind], (1, 0), value=n) for n, cells in enumerate(taught)])
            for kind in (0, 1)
        )
        mask = torch.cat([masks for _, _, masks in taught])  # (P, 15, 15)
        logits = assemble(maps, positive, SIDE)  # (P, 15, 15)
        score = scores[torch.cat([positive, negative]).unbind(1)]
        target = (torch.arange(len(score)) < len(positive)).float()
        loss_mask = F.binary_cross_entropy_with_logits(logits, mask, reduction="sum")
        return {
            "loss_mask": 2 * loss_mask / max(1, mask.numel()),  # a crop may have no positive
            "loss_score": F.binary_cross_entropy_with_logits(score, target),
        }

    def _region(self, image: Tensor, truth: Truth, generator: Generator) -> Tensor:
        """What part of a picture a crop shows: (4,) xyxy px, a square of 128 px / scale."""
        fits, octave, *place = torch.rand(4, generator=generator).tolist()
        if fits < 0.5 and len(truth["boxes"]):  # one of the objects, near enough canonical
            chosen = int(torch.randint(len(truth["boxes"]), (), generator=generator))
            centre, side = centre_and_side(canonical(truth["boxes"][chosen : chosen + 1]))
            crop = side * CROP_PX / WINDOW_PX * 2 ** ((2 * octave - 1) * OCTAVES)  # (1,)
            # moved, but not so far that the windows around it leave the crop
            shift = (torch.tensor([place]) - 0.5) * (1 - WINDOW_PX / CROP_PX)
            return squares(centre + shift * crop[:, None], crop)[0]
        smallest, largest = CROP_PX / max(self.scales), CROP_PX / min(self.scales)
        anywhere = torch.tensor([place]) * torch.tensor([image.shape[2], image.shape[1]])
        return squares(anywhere, torch.tensor([smallest * (largest / smallest) ** octave]))[0]

    # --- inference ----------------------------------------------------------------------------

    @torch.inference_mode()
    def propose(self, image: Tensor, count: int) -> Proposals:
        pad_px = WINDOW_PX // 2 // STEP_PX * STEP_PX  # half a window, in whole cells
        size = (image.shape[1], image.shape[2])
        pixels = [resized(normalised(image), scale, pad_px, STEP_PX) for scale in self.scales]
        maps, scores = zip(*(self.maps(scaled) for scaled in pixels), strict=True)
        best = best_of([score[0] for score in scores], count)
        logits, windows, chosen = [], [], []
        for scale, score_maps, score, cells in zip(
            self.scales, maps, scores, best, strict=True
        ):
            if not len(cells):
                continue
            width = score.shape[2]
            index = torch.stack([cells * 0, cells // width, cells % width], dim=1)  # (P, 3)
            place = (STEP_PX, STEP_PX / 2 - pad_px, WINDOW_PX)  # a cell's middle is its centre
            grid = grid_windows(size, scale, score.shape[1:], *place)  # (h, w, 4)
            logits.append(assemble(score_maps, index, SIDE))
            windows.append(grid.flatten(0, 1)[cells])
            chosen.append(score.flatten()[cells])
        return drawn(logits, windows, chosen, size, THRESHOLD)

    @torch.inference_mode()
    def at_truth(self, image: Tensor, truth: Truth) -> Drawn:
        windows = canonical(truth["boxes"])  # (m, 4)
        size = (image.shape[1], image.shape[2])
        # A crop of an odd number of cells, the object's in the middle
        cells = CROP_PX // STEP_PX + 1
        centre, side = centre_and_side(windows)
        around = squares(centre, side * cells / SIDE)
        maps = self.maps(cut(normalised(image), around, cells * STEP_PX))[0]  # (m, 25, 33, 33)
        middle = torch.full((len(windows), 3), cells // 2)
        middle[:, 0] = torch.arange(len(windows))
        logits = assemble(maps, middle, SIDE)  # (m, 15, 15)
        target = cut_masks(truth["masks"], windows, SIDE) * 40 - 20  # sure logits
        masks, reachable = (paste_windows([x], [windows], size) for x in (logits, target))
        return Drawn(torch.arange(len(windows)), masks, reachable)


def labelled(
    truth: Truth, region: Tensor, grid: Sequence[int], generator: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Cells of a crop that are taught, at most `EACH` of a kind, drawn at random.

    Args:
        region: (4,) the crop, xyxy px of the picture. grid: its cells (h, w).

    Returns:
        positives (p, 2) and negatives (q, 2), both (y, x), and the masks (p, 15, 15) of 0 and 1
        that positives should say. Where the crop holds no positive there are `EACH` negatives.
    """
    height, width = grid
    y, x = (torch.arange(extent).float() + 0.5 for extent in (height, width))
    centre = torch.stack(torch.broadcast_tensors(x[None], y[:, None]), dim=2).flatten(0, 1)
    cell_px = (region[2] - region[0]) / width
    windows = squares(region[:2] + centre * cell_px, (SIDE * cell_px).expand(len(centre)))
    near, far = near_and_far(windows, truth["boxes"])  # (h * w, m) each
    margin = SIDE // 2
    whole = torch.zeros(height, width, dtype=torch.bool)  # windows that the crop holds
    whole[margin : height - margin, margin : width - margin] = True
    positive = (near.any(dim=1) & whole.flatten()).nonzero()[:, 0]
    negative = (far.all(dim=1) & whole.flatten()).nonzero()[:, 0]
    positive = positive[torch.randperm(len(positive), generator=generator)[:EACH]]
    count = len(positive) or EACH
    negative = negative[torch.randperm(len(negative), generator=generator)[:count]]
    # Of several objects that are near, the first: a window says one mask.
    instance = near[positive].int().argmax(dim=1) if near.shape[1] else positive
    masks = cut_masks(truth["masks"][instance], windows[positive], SIDE)
    cells = [torch.stack([c // width, c % width], dim=1) for c in (positive, negative)]
    return cells[0], cells[1], masks


def train(
    dataset: CocoFolder,
    config: TrainConfig = RECIPE,
    input_config: InputConfig = FILE_SIZE,
    progress: bool = True,
) -> InstanceFCN:
    """An InstanceFCN trained on any COCO folder; classes are not looked at.

    Raises:
        InputError, FloatingPointError: see `fit`.
    """
    return fit(InstanceFCN, dataset, config, input_config, progress)
