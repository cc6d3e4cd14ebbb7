"""All drawing, one visual code.

Four roles look the same in every picture, by colour *and* by line, marker or hatch, so that
print and colour-blind eyes lose nothing (colours after Okabe and Ito):

    truth            blue, solid line
    prediction       orange-red, dashed line
    positive window  green, dash-dotted line, or x where a line pattern does not fit
    ignored          grey, hatched: outside the tensor, or not used

A fifth, wine red with a dot, follows one value through the transforms. Functions return a
`Picture`, a
matplotlib figure outside pyplot: it needs no display, stays in no global list, and shows itself
as the last line of a notebook cell. `save` writes it whole.

    look.py     the code itself: roles, sizes, saving
    images.py   instances and windows on images
    tensors.py  the (V, U, H, W) tensor and what the transforms do to it
    curves.py   training, reachable IoU

next: viz/look.py
"""

from .curves import loss_curve, reachable_iou
from .images import draw_instances, truth_and_prediction, windows_on_image
from .look import (
    FOLLOWED,
    IGNORED,
    POSITIVE,
    PREDICTION,
    SCREEN_DPI,
    TRUTH,
    Look,
    new_picture,
    png,
    save,
)
from .tensors import (
    bipyramid,
    diagonal_shear,
    natural_of,
    sixteen_taps,
    two_representations,
    window_wall,
)

__all__ = [
    "FOLLOWED",
    "IGNORED",
    "POSITIVE",
    "PREDICTION",
    "SCREEN_DPI",
    "TRUTH",
    "Look",
    "bipyramid",
    "diagonal_shear",
    "draw_instances",
    "loss_curve",
    "natural_of",
    "new_picture",
    "png",
    "reachable_iou",
    "save",
    "sixteen_taps",
    "truth_and_prediction",
    "two_representations",
    "window_wall",
    "windows_on_image",
]
