"""The method in six pictures, drawn from one image: for the report and the front page.

This is the one module of the room that loads torch: windows and labels are the model's own.

next: viz/lessons.py
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ..config import ModelConfig
from ..detector.targets import assign, crop_masks
from ..geometry import Windows, sizes_px
from .images import windows_on_image
from .look import Array, as_array
from .tensors import (
    bipyramid,
    diagonal_shear,
    natural_of,
    sixteen_taps,
    two_representations,
    window_wall,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL_PX, BIN_PX, SIDE_BINS = 16, 8, 5  # of the wall: coarse enough to see every bin

SMALL_MASK = """
. . . . . . .
. . . # # . .
. # # # # . .
. # # # # . .
. # # # . . .
. . # # . . .
. . . . . . .
"""


class Exhibit(NamedTuple):
    """A picture with what to look at in it."""

    name: str
    title: str
    figure: Figure
    caption: str


def method(image: Any, truth: dict[str, Any], config: ModelConfig) -> Iterator[Exhibit]:
    """The method's pictures, in reading order.

    Args:
        image: (3, H, W) uint8, sides multiples of the model's padding.
        truth: boxes (m, 4) xyxy px and masks (m, H, W) of its m >= 1 objects, of which one is
            shown.
        config: whose windows are drawn.
    """
    instance = _instance_of_wall_size(truth["boxes"])
    mask = truth["masks"][instance]  # (H, W)
    windows = positive_windows(truth, instance, image, config)
    yield Exhibit(
        "window_wall",
        "A mask tensor is a wall of windows",
        window_wall(wall_of(mask), image, CELL_PX, BIN_PX, mask, _cell_of(mask)),
        "At every cell of the image sits a window, and in every window a small mask of the "
        "object, seen from there. Together they are the tensor (V, U, H, W) that TensorMask "
        "predicts.",
    )
    yield Exhibit(
        "windows",
        "Which windows should learn this object",
        windows_on_image(image, windows, {"masks": mask[None]}),
        "A window is positive when it holds the object's box, is not much longer, is centred "
        "within one cell of the box centre, and no other object claims it.",
    )
    yield Exhibit(
        "two_representations",
        "Natural and aligned",
        two_representations(natural_of(small_mask(), 3)),
        "The same values, filed twice. Natural: a block is one window's mask. Aligned: a block "
        "holds what all windows say about one pixel. Followed here: one pixel (dots) and one "
        "window (crosses).",
    )
    yield Exhibit(
        "diagonal_shear",
        "From one to the other",
        diagonal_shear(),
        "In one dimension align2nat slides row v by v cells. What stood in a column, all about "
        "one pixel, now lies on a diagonal, and each window's own bins stand in a column.",
    )
    yield Exhibit(
        "sixteen_taps",
        "swap_align2nat, one entry",
        sixteen_taps(),
        "The operator turns coarse bins on a fine grid into fine bins on a coarse grid. Each "
        "output entry is a weighted mean of at most 16 input entries: two per axis.",
    )
    yield Exhibit(
        "bipyramid",
        "The tensor bipyramid",
        bipyramid(config.geometry),
        "In a feature pyramid a large object gets as few mask bins as a small one. In the "
        "tensor bipyramid bins keep their size in pixels, so large objects get larger masks.",
    )


# --- what they show ---------------------------------------------------------------------------


def small_mask() -> Array:
    """A 7 x 7 mask, coarse enough to follow single values."""
    lines = SMALL_MASK.strip().splitlines()
    return np.array([[word == "#" for word in line.split()] for line in lines])


def wall_of(mask: torch.Tensor) -> Array:
    """The natural tensor of a mask (H, W): cells of 16 px, windows of 5 x 5 bins of 8 px."""
    rows, columns = (-(-extent // CELL_PX) for extent in mask.shape)
    cells = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    y, x = (grid.flatten() * CELL_PX for grid in cells)  # (rows * columns,) each
    half = SIDE_BINS * BIN_PX / 2
    window_px = torch.stack([x - half, y - half, x + half, y + half], dim=1)
    bins = crop_masks(mask[None], torch.zeros_like(y), window_px, (SIDE_BINS, SIDE_BINS))
    return as_array(bins.view(rows, columns, SIDE_BINS, SIDE_BINS).permute(2, 3, 0, 1))


def positive_windows(
    truth: dict[str, Any], instance: int, image: Any, config: ModelConfig
) -> Windows:
    """The windows of `image` that are positive for one object."""
    layout = config.geometry.layout(sizes_px([image]))
    pairs = assign(truth["boxes"], config, layout)  # (P, 2): window, object
    return layout.windows[pairs[pairs[:, 1] == instance, 0]]


def _instance_of_wall_size(boxes: torch.Tensor) -> int:
    """The object that fills a window of the wall best."""
    longest = (boxes[:, 2:] - boxes[:, :2]).amax(1)
    return int((longest - SIDE_BINS * BIN_PX).abs().argmin())


def _cell_of(mask: torch.Tensor) -> tuple[int, int]:
    """The cell nearest to the mask's centre."""
    y, x = (mask.nonzero().float().mean(0) / CELL_PX).round().long().tolist()
    return y, x
