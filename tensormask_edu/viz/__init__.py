"""All drawing, one visual code.

Four meanings have a pen each, the same in every picture: a colour *and* a line, a marker or a
hatch, so that print and colour-blind eyes lose nothing (colours after Okabe and Ito):

    truth            blue, solid line
    prediction       orange-red, dashed line
    positive window  green, dash-dotted line, or x where a line pattern does not fit
    ignored          grey, hatched: outside the tensor, or not used

A fifth, wine red with a dot, follows one value through the transforms. Functions return a
`Picture`, a matplotlib figure outside pyplot: it needs no display, stays in no global list, and
shows itself as the last line of a notebook cell. `save` writes it whole.

    look.py     the code itself: pens, sizes, saving
    fonts.py    names in any script
    images.py   instances and windows on images
    tensors.py  the (V, U, H, W) tensor and what the transforms do to it
    curves.py   training, reachable IoU, two runs layer by layer
    ablations.py  differences between heads, beside the paper's
    gallery.py  the method in six pictures, for the report and the front page
    lessons.py  what only lessons draw: an answer beside the right one, the rim, memory
    threads.py, reasons.py, film.py: what lessons 07, 08, and 09 and 11 draw

Only the gallery, which needs the model's targets, loads torch; the rest takes its tensors as
they come. matplotlib loads with the first picture.
"""

from .ablations import ablation
from .curves import loss_curve, reachable_iou
from .images import (
    draw_instances,
    save_instances,
    truth_and_prediction,
    truths_page,
    windows_on_image,
)
from .look import (
    FOLLOWED,
    IGNORED,
    POSITIVE,
    PREDICTION,
    SCREEN_DPI,
    TRUTH,
    Pen,
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
    "Pen",
    "ablation",
    "bipyramid",
    "diagonal_shear",
    "draw_instances",
    "loss_curve",
    "natural_of",
    "new_picture",
    "png",
    "reachable_iou",
    "save",
    "save_instances",
    "sixteen_taps",
    "truth_and_prediction",
    "truths_page",
    "two_representations",
    "window_wall",
    "windows_on_image",
]
