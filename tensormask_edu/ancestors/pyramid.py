"""Windows of one size on a pyramid of scales: patches to train on, grids to slide over.

DeepMask, SharpMask and InstanceFCN know one window, a square of fixed side, and meet objects of
all sizes by resizing the picture. A window fits an object if it is *canonical*: the object's
centre in its middle, the object's long side 128/224 of its own. Near is within a jitter of
that, far beyond two jitters or a factor of two; what lies between teaches nothing.

next: ancestors/deepmask.py
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torchvision.models.resnet import BasicBlock
from torchvision.ops import roi_align

from ..detector.backbone import TinyBody, shortcut
from ..detector.inference import paste
from ..detector.network import WindowMasks
from ..masks import tight_boxes
from .fit import Proposals

CANONICAL = 128 / 224  # an object's long side, in sides of its window
JITTER = 16 / 224  # of the centre, per axis, in sides of the window
OCTAVES = 1 / 4  # jitter of the scale
SCALES = tuple(2 ** (half / 2) for half in range(-3, 3))  # 0.35 to 2, in half octaves
MEAN, STD = 0.5, 0.25  # of pixels in [0, 1]: grey becomes 0, which is what padding is


class Trunk(nn.Module):
    """`TinyBody` to stride 4, then two blocks that keep the grid.

    (N, 3, H, W) -> (N, 24, H/2, W/2) and (N, 96, H/4, W/4).

    Args:
        dilation: of the two blocks: a cell sees 47 px with 1, 79 px with 2.
    """

    fine_channels, channels, stride_px = 24, 96, 4

    def __init__(self, dilation: int = 1) -> None:
        super().__init__()
        body = TinyBody(self.fine_channels)
        self.stem, self.stage = body.stem, body.stages[0]
        widths = (body.out_channels[0], 64, self.channels)
        self.deep = nn.Sequential(
            *(
                BasicBlock(before, after, downsample=shortcut(before, after, stride=1))
                for before, after in zip(widths, widths[1:], strict=False)
            )
        )
        for conv in self.deep.modules():
            # torchvision's block refuses a dilation of its own
            if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3):
                conv.dilation = conv.padding = (dilation, dilation)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.stem(image)  # (N, 3, H, W) -> (N, 24, H/2, W/2)
        return fine, self.deep(self.stage(fine))  # (N, 96, H/4, W/4)


def normalised(image: Tensor) -> Tensor:
    """Pixels in [0, 1] to mean 0 and a spread near 1."""
    return (image - MEAN) / STD


# --- windows and objects ----------------------------------------------------------------------


def squares(centre: Tensor, side: Tensor) -> Tensor:
    """Windows (n, 4) xyxy around centres (n, 2), of sides (n,)."""
    half = side[:, None] / 2  # (n, 1)
    return torch.cat([centre - half, centre + half], dim=1)  # twice (n, 2) -> (n, 4)


def centre_and_side(box: Tensor) -> tuple[Tensor, Tensor]:
    """Centres (n, 2) and long sides (n,) of boxes (n, 4) xyxy."""
    low, high = box.split(2, dim=1)  # twice (n, 2)
    return (low + high) / 2, (high - low).amax(dim=1)


def canonical(box: Tensor) -> Tensor:
    """The window (m, 4) that fits each object's box (m, 4) exactly."""
    centre, long = centre_and_side(box)
    return squares(centre, long / CANONICAL)


def jittered(window: Tensor, generator: Generator) -> Tensor:
    """Windows (n, 4) moved and scaled at random, as far as they still are positive."""
    centre, side = centre_and_side(window)
    shift = _plus_minus(len(window), 2, generator) * JITTER * side[:, None]  # (n, 2)
    scale = 2 ** (_plus_minus(len(window), 1, generator)[:, 0] * OCTAVES)  # (n,)
    return squares(centre + shift, side * scale)


def near_and_far(window: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
    """Whether windows (n, 4) are positives, or negatives, of objects (m, 4): two (n, m)."""
    (centre, side), (wanted, fitting) = centre_and_side(window), centre_and_side(canonical(box))
    # (n, 1, 2) and (m, 2) -> (n, m), in sides of the window
    away = (centre[:, None] - wanted).abs().amax(dim=2) / side[:, None]
    octaves = (side[:, None] / fitting).log2().abs()  # (n, m)
    near = (away <= JITTER) & (octaves <= OCTAVES)
    return near, (away >= 2 * JITTER) | (octaves >= 1)


def random_windows(
    count: int, size: tuple[int, int], sides: tuple[float, float], generator: Generator
) -> Tensor:
    """Windows (count, 4) anywhere in a picture of `size` (height, width).

    Their sides lie between `sides`, every octave as likely.
    """
    y, x, octave = torch.rand(count, 3, generator=generator).unbind(1)  # (count,) each
    centre = torch.stack([x * size[1], y * size[0]], dim=1)  # (count, 2)
    smallest, largest = sides
    return squares(centre, smallest * (largest / smallest) ** octave)


def _plus_minus(count: int, columns: int, generator: Generator) -> Tensor:
    return torch.rand(count, columns, generator=generator) * 2 - 1


# --- patches ----------------------------------------------------------------------------------


def cut(planes: Tensor, window: Tensor, side_px: int) -> Tensor:
    """Windows (n, 4) of one picture (C, H, W), each resized: (n, C, side_px, side_px).

    Where a window is larger than `side_px` its pixels are averaged. Beyond the picture: 0.
    """
    return roi_align(planes[None], [window], side_px, aligned=True)


def cut_masks(masks: Tensor, window: Tensor, side: int) -> Tensor:
    """Each mask (n, H, W) bool in its own window (n, 4): float32 (n, side, side) of 0 and 1."""
    number = torch.arange(len(window), dtype=window.dtype)[:, None]  # mask k in window k
    share = roi_align(
        masks[:, None].float(), torch.cat([number, window], 1), side, aligned=True
    )
    return (share[:, 0] >= 0.5).float()


def windows_of(planes: Tensor, index: Tensor, side: int) -> Tensor:
    """Parts of maps (N, C, H, W) that begin at (n, y, x), index (P, 3): (P, C, side, side)."""
    n, y, x = index.unbind(1)
    along = torch.arange(side, device=planes.device)
    rows, columns = y[:, None] + along, x[:, None] + along  # (P, side)
    # -> (P, side, side, C), channels last in memory
    part = planes.permute(0, 2, 3, 1)[n[:, None, None], rows[:, :, None], columns[:, None]]
    return part.permute(0, 3, 1, 2)


# --- the pyramid ------------------------------------------------------------------------------


def resized(image: Tensor, scale: float, pad_px: int, multiple_px: int) -> Tensor:
    """A normalised picture (3, H, W) at a scale, with grey around: (1, 3, h, w).

    `pad_px` on each side, and more at the right and bottom up to a multiple of `multiple_px`.
    """
    height, width = (max(1, round(extent * scale)) for extent in image.shape[1:])
    small = F.interpolate(image[None], (height, width), mode="bilinear", antialias=True)
    right, bottom = (-(extent + 2 * pad_px) % multiple_px for extent in (width, height))
    return F.pad(small, (pad_px, pad_px + right, pad_px, pad_px + bottom))


def grid_windows(
    size: tuple[int, int],
    scale: float,
    grid: tuple[int, int],
    step_px: int,
    first_px: float,
    side_px: int,
) -> Tensor:
    """The windows (h, w, 4) that the cells of a grid (h, w) stand for, in picture pixels.

    In the picture at `scale` cell (y, x) is the centre of a square of `side_px`, at `first_px`
    plus `step_px` per cell.

    Args:
        size: (height, width) of the picture.
    """
    bounds = []  # per axis: where windows begin and end, (cells, 2)
    for extent, cells in zip(size, grid, strict=True):
        factor = max(1, round(extent * scale)) / extent  # whole pixels: not quite `scale`
        centre = first_px + step_px * torch.arange(cells)
        bounds.append(torch.stack([centre - side_px / 2, centre + side_px / 2], 1) / factor)
    (y0, y1), (x0, x1) = (bound.unbind(1) for bound in bounds)  # (h,) and (w,)
    corners = (x0[None], y0[:, None], x1[None], y1[:, None])
    return torch.stack(torch.broadcast_tensors(*corners), dim=2)  # (h, w, 4)


def best_of(scores: Sequence[Tensor], count: int) -> list[Tensor]:
    """Which cells are among the `count` best of all scales: per scale positions, ascending.

    scores: per scale (h, w) logits; positions count along its rows.
    """
    flat = torch.cat([s.flatten() for s in scores])
    best = flat.argsort(descending=True, stable=True)[:count].sort().values
    ends = torch.tensor([0] + [s.numel() for s in scores]).cumsum(0).tolist()
    return [
        best[(best >= start) & (best < end)] - start
        for start, end in zip(ends, ends[1:], strict=False)
    ]


def drawn(
    logits: Sequence[Tensor],
    window_px: Sequence[Tensor],
    scores: Sequence[Tensor],
    size: tuple[int, int],
    threshold: float,
) -> Proposals:
    """Masks of windows as proposals of a picture of `size` (height, width), best first.

    Args:
        logits: per scale (P, V, U). window_px: per scale (P, 4). scores: per scale (P,) logits.
    """
    masks = paste_windows(logits, window_px, size, threshold)  # (D, H, W)
    score, order = torch.cat(list(scores)).sigmoid().sort(descending=True, stable=True)
    masks = masks[order]
    boxes = torch.from_numpy(tight_boxes(masks.numpy()))  # (D, 4), 0 where nothing is drawn
    found = Proposals(boxes, score, torch.zeros_like(order), masks)
    return found.pick(boxes[:, 2] > boxes[:, 0])


def paste_windows(
    logits: Sequence[Tensor],
    window_px: Sequence[Tensor],
    size: tuple[int, int],
    threshold: float = 0.5,
) -> Tensor:
    """Masks of windows, scale by scale, on a picture of `size`: bool (D, H, W)."""
    ends = torch.tensor([0] + [len(values) for values in logits]).cumsum(0).tolist()
    groups = [
        WindowMasks(torch.arange(start, end), values)
        for start, end, values in zip(ends, ends[1:], logits, strict=False)
        if len(values)  # a scale may have none of the best
    ]
    return paste(groups, torch.cat(list(window_px)), *size, threshold)
