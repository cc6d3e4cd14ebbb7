"""The exercises of lesson 01: who owns a pixel where shapes overlap, and masks as run lengths.

next: learn/lessons/lesson_02.py
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...viz import look
from ...viz.images import outline_mask, show_image
from ...viz.look import FOLLOWED, TRUTH, Pen
from ..cases import Array, case_of
from ..kinds import loops, predict

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def mask_of(*lines: str) -> Array:
    """A mask as it is drawn: bool (H, W), True where a line has a #."""
    return np.array([[letter == "#" for letter in line] for line in lines])


SMALL = mask_of(".##..", ".###.", "..##.", "....#")
PILE = np.random.default_rng(1).random((4, 5, 7)) < 0.5
DOTS = np.random.default_rng(2).random((6, 4)) < 0.4


# --- who owns a pixel -------------------------------------------------------------------------


@loops(
    "* -> k h w",
    by_hand=(np.stack([mask_of("##.", "##."), mask_of(".##", "..."), mask_of(".#.", ".##")]),),
    more=[
        case_of("a pile", (PILE,)),
        case_of("hidden whole", (np.stack([mask_of("#.."), mask_of("##."), mask_of("..#")]),)),
        case_of("one shape", (PILE[:1],)),
        case_of("a transposed pile", (PILE.transpose(0, 2, 1),)),
    ],
)
def visible_masks(whole: Array) -> Array:
    """What stays visible of shapes that are drawn one after the other.

    whole: bool (K, H, W), in the order of drawing -> bool (K, H, W), disjoint.
    """
    num, height, width = whole.shape
    visible = np.zeros(whole.shape, bool)
    for k, y, x in np.ndindex(num, height, width):
        if whole[k, y, x]:
            visible[:, y, x] = False
            visible[k, y, x] = True
    return visible


CHANGES = ("the foreground", "who owns a pixel", "both", "nothing")


def _what_changes(foreground: bool, owners: bool) -> str:
    return CHANGES[{(1, 0): 0, (0, 1): 1, (1, 1): 2, (0, 0): 3}[foreground, owners]]


other_order = predict("other_order", CHANGES, _what_changes)


# --- run lengths ------------------------------------------------------------------------------


@loops(
    "* -> k",
    by_hand=(mask_of(".#", ".#", "#."),),
    more=[
        case_of("begins with an object", (mask_of("##", ".."),)),
        case_of("no object", (mask_of("...", "..."),)),
        case_of("nothing else", (mask_of("##", "##", "##"),)),
        case_of("the small mask", (SMALL,)),
        case_of("scattered", (DOTS,)),
        case_of("scattered, transposed", (DOTS.T,)),
    ],
)
def rle_counts(mask: Array) -> list[int]:
    """A mask as run lengths: pixels that are 0, then 1, then 0, ..., down the columns.

    mask: bool (H, W) -> counts; the first is of zeros and may be 0. COCO's format.
    """
    height, width = mask.shape
    counts, value = [0], False  # value: of the run that is counted
    for i in range(height * width):
        y, x = i % height, i // height  # down the columns
        if mask[y, x] != value:
            value = not value
            counts.append(0)
        counts[-1] += 1
    return counts


@loops(
    "*, h, w -> h w",
    by_hand=([1, 2, 2, 1], 3, 2),
    more=[
        case_of("begins with an object", ([0, 1, 1, 1, 1], 2, 2)),
        case_of("no object", ([6], 2, 3)),
        case_of("nothing else", ([0, 6], 3, 2)),
        case_of("the small mask", (rle_counts(SMALL), 4, 5)),
        case_of("scattered", (rle_counts(DOTS), 6, 4)),
        case_of("scattered, transposed", (rle_counts(DOTS.T), 4, 6)),
    ],
)
def mask_of_counts(counts: Sequence[int], height: int, width: int) -> Array:
    """The mask of run lengths: bool (height, width). COCO's format."""
    mask = np.zeros((height, width), bool)
    i, value = 0, False
    for count in counts:
        for _ in range(count):
            mask[i % height, i // height] = value  # down the columns
            i += 1
        value = not value
    return mask


# --- pictures ---------------------------------------------------------------------------------

WHOLE = Pen("whole shape", "#FFFFFF", (0, (2, 1.2)))


@look.styled
def pile(image: Any, whole: Array, visible: Array) -> Figure:
    """A picture with the visible part and the whole outline of each shape, and their count.

    image: (3, H, W); whole, visible: bool (K, H, W).
    """
    count = whole.sum(0)
    alt = (
        f"Left: {len(whole)} overlapping shapes; a solid line around what is seen of each, a "
        "dashed line around the whole of it. Right: a map of how many lie at each pixel, "
        f"from 0 to {count.max()}."
    )
    figure = look.new_picture(2.9, "", look.NARROW_INCHES, alt)
    left, right = figure.subplots(1, 2)
    show_image(left, image)
    centres = np.arange(count.shape[0]) + 0.5, np.arange(count.shape[1]) + 0.5  # y, x
    dashed: dict[str, Any] = {"colors": WHOLE.colour, "linestyles": [WHOLE.line]}
    for shape in whole:
        left.contour(*centres[::-1], shape, [0.5], linewidths=1.3, **dashed)
    for part in visible:  # over the dashes: they show where a shape is hidden
        outline_mask(left, part, TRUTH, 1.2)
    left.set_title("what is seen")
    drawn = right.imshow(count, cmap=look.mask_shades().resampled(count.max() + 1))
    drawn.set_clim(-0.5, count.max() + 0.5)
    bar = figure.colorbar(drawn, ax=right, location="bottom", ticks=range(count.max() + 1))
    bar.set_label("shapes at the pixel")
    right.set(title="what lies there", xticks=[], yticks=[])
    dashes = Pen("", look.INK, WHOLE.line)  # white would not show on white
    look.legend(figure, [(TRUTH, "visible part"), (dashes, "whole shape (white)")])
    return figure


@look.styled
def snake(mask: Array, counts: Sequence[int]) -> Figure:
    """A small mask with the number of each pixel, and its runs one after the other.

    mask: bool (H, W), drawn twice: as an image, and as the strip down its columns.
    """
    height, width = mask.shape
    runs = ", ".join(map(str, counts))
    alt = (
        f"A mask of {height} x {width} pixels, numbered down the columns from 0 to "
        f"{mask.size - 1}. Below, the same pixels in a row; the lengths of its runs are {runs}."
    )
    figure = look.new_picture(3.2, "", look.NARROW_INCHES, alt)
    image, strip = figure.subplots(2, 1, height_ratios=[height, 1.6])
    shades: dict[str, Any] = {"cmap": look.mask_shades(), "vmin": 0, "vmax": 1.6}
    image.imshow(mask, **shades)
    for i in range(mask.size):
        at = (i // height, i % height)
        image.text(*at, str(i), ha="center", va="center", fontsize=10)
    image.set(title="pixel i, down the columns", xlabel="x", ylabel="y")
    image.set(xticks=range(width), yticks=range(height))
    strip.imshow(mask.T.reshape(1, -1), aspect="auto", **shades)
    ends = np.cumsum(counts)
    for end, length in zip(ends, counts, strict=True):
        strip.axvline(end - 0.5, color=FOLLOWED.colour, linewidth=1.6)
        strip.text(
            end - 0.5 - length / 2, 0, str(length), ha="center", va="center", fontsize=10
        )
    strip.set(title=f"the same in a row; runs: {runs}", yticks=[], xticks=[])
    return figure
