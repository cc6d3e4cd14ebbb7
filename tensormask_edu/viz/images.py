"""Instances and windows drawn on images.

next: viz/tensors.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from PIL import Image, ImageColor

from ..base.files import written_whole
from ..geometry import Windows
from ..masks import Cutout, Cutouts, cut_out
from . import look
from .fonts import drawable
from .look import POSITIVE, PREDICTION, TRUTH, Array, Pen, as_array, draw_box

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

# boxes (D, 4) xyxy px, labels (D,), masks (D, H, W) bool or D cutouts, maybe scores (D,)
Instances = Mapping[str, Any]

CROWD = 25  # instances; with more of them labels would hide the image


# --- instances --------------------------------------------------------------------------------


@look.readable
def draw_instances(
    image: Any,
    instances: Instances,
    class_names: Sequence[str],
    title: str = "",
    ax: Axes | None = None,
    pen: Pen | None = None,
    boxes: bool = True,
) -> Figure:
    """Masks, boxes and labels on one image; of more than 25 instances the outlines alone.

    Args:
        image: (3, H, W) RGB, uint8 or floats in [0, 1]; tensor or array.
        instances: `boxes` (D, 4) xyxy pixels, `labels` (D,), `masks` (D, H, W) bool or D
            cutouts, maybe `scores` (D,).
        class_names: name of each label; where none has a name, nothing is written.
        title: over the picture.
        ax: where to draw; a new picture if None.
        pen: by default prediction if there are scores, else truth.
        boxes: draw the boxes too.

    Returns:
        The picture drawn on.
    """
    alt = f"An image with the outlines of {len(instances['labels'])} objects."
    ax = ax or look.new_picture(_height_inches(image), alt=alt).add_subplot()
    pen = pen or (PREDICTION if "scores" in instances else TRUTH)
    labels = _draw_instances(ax, image, instances, class_names, pen, boxes)
    ax.set_title(drawable(title))
    figure = cast("Figure", ax.figure)
    place_labels(figure, [labels])
    return figure


def _draw_instances(
    ax: Axes,
    image: Any,
    instances: Instances,
    class_names: Sequence[str],
    pen: Pen,
    boxes: bool,
) -> list[Label]:
    """Everything but the places of the labels, which are known once the picture is laid out."""
    show_image(ax, image)
    masks = _cutouts(instances["masks"])
    crowded = len(masks) > CROWD
    for mask in masks:
        outline_mask(ax, mask, pen, 1.0 if crowded else 1.6)
    if crowded or not any(class_names):
        return []
    all_boxes, words = as_array(instances["boxes"]), _words(instances, class_names)
    for box in all_boxes if boxes else ():
        draw_box(ax, box, pen, width=0.8)
    return [
        Label(_label_text(ax, word, pen), _spots(mask, box))
        for word, mask, box in zip(words, masks, all_boxes, strict=True)
        if word
    ]


def _cutouts(masks: Any) -> list[Cutout]:
    """Masks in either form, each within its box."""
    if isinstance(masks, Cutouts):
        return masks.cutouts
    return [cut_out(mask) for mask in as_array(masks)]


def _words(instances: Instances, class_names: Sequence[str]) -> list[str]:
    """Per instance its class name and score; of one class alone the name says nothing."""
    names = [drawable(class_names[int(label)]) for label in as_array(instances["labels"])]
    if len(class_names) == 1:
        names = [""] * len(names)
    if "scores" not in instances:
        return names
    scores = as_array(instances["scores"])
    return [f"{name} {score:.2f}".strip() for name, score in zip(names, scores, strict=True)]


def _height_inches(image: Any) -> float:
    height, width = as_array(image).shape[-2:]
    return float(min(12.0, look.WIDTH_INCHES * height / width + 0.6))


@look.readable
def truth_and_prediction(
    images: Sequence[Any],
    truths: Sequence[Instances],
    predictions: Sequence[Instances],
    class_names: Sequence[str],
    titles: Sequence[str] | None = None,
    columns: int | None = None,
) -> Figure:
    """A grid: under each image with its truth the same image with its predictions.

    Args:
        images: B images (3, H, W); sizes may differ.
        truths, predictions: one dict per image, as in `draw_instances`.
        titles: one per image, by default "image 1", "image 2", ...
        columns: images side by side; by default two, three where no names need room.
    """
    columns = max(1, min(columns or (3 if len(class_names) == 1 else 2), len(images)))
    bands = -(-len(images) // columns)  # of two rows each, truth and prediction
    height = 2 * bands * (look.WIDTH_INCHES / columns + 0.1) + 0.5
    alt = f"{len(images)} images with true outlines, each above itself with what was found."
    figure = look.new_picture(height, "Truth (solid) and prediction (dashed)", alt=alt)
    axes = figure.subplots(2 * bands, columns, squeeze=False)
    pairs = [
        (axes[2 * band, column], axes[2 * band + 1, column])
        for band, column in np.ndindex(bands, columns)
    ]
    labels = []
    for k, (upper, lower) in enumerate(pairs[: len(images)]):
        title = drawable(titles[k]) if titles else f"image {k + 1}"
        for ax, objects, pen in (
            (upper, truths[k], TRUTH),
            (lower, predictions[k], PREDICTION),
        ):
            drawn = _draw_instances(ax, images[k], objects, class_names, pen, boxes=False)
            labels.append(drawn)
            ax.set_title(f"{title}: {pen.meaning}")
            if k % columns:  # the first of a row names the axis for all
                ax.set_ylabel("")
        upper.set_xlabel("")
    for ax in (ax for pair in pairs[len(images) :] for ax in pair):
        ax.axis("off")
    place_labels(figure, labels)
    return figure


@look.readable
def truths_page(
    images: Sequence[Any],
    truths: Sequence[Instances],
    class_names: Sequence[str],
    titles: Sequence[str],
    columns: int = 3,
) -> Figure:
    """A page of images with their truth.

    Args:
        images: B images (3, H, W), one at least; sizes may differ.
        truths: one dict per image, as in `draw_instances`.
        titles: one per image.
        columns: images side by side.
    """
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    alt = f"{len(images)} images with the outlines of what is in them."
    figure = look.new_picture(rows * (look.WIDTH_INCHES / columns + 0.3), alt=alt)
    axes = figure.subplots(rows, columns, squeeze=False).flat
    labels = []
    for ax, image, truth, title in zip(axes, images, truths, titles, strict=False):
        labels.append(_draw_instances(ax, image, truth, class_names, TRUTH, boxes=False))
        ax.set_title(drawable(title))
        ax.set(xlabel="", ylabel="")
    for ax in axes[len(images) :]:
        ax.axis("off")
    place_labels(figure, labels)
    return figure


# --- in the image's own pixels ----------------------------------------------------------------


def save_instances(
    path: str | Path,
    image: Any,
    instances: Instances,
    class_names: Sequence[str],
    title: str = "",
) -> None:
    """Write instances on an image as PNG: as `draw_instances` draws them, or painted.

    Painted is what was seen in tiles: thousands of outlines in a drawing take minutes, and its
    width has too few pixels for them.
    """
    if not isinstance(instances["masks"], Cutouts):
        look.save(draw_instances(image, instances, class_names, title=title), path)
        return
    with written_whole(path) as temporary:
        picture = Image.fromarray(paint_instances(image, instances["masks"]))
        picture.save(temporary, format="png")


def paint_instances(image: Any, masks: Cutouts, pen: Pen = PREDICTION) -> Array:
    """The image as uint8 (H, W, 3), every mask's border pixels in the pen's colour.

    image: uint8 (3, H, W).
    """
    pixels = np.moveaxis(as_array(image), 0, -1).copy()
    colour = ImageColor.getrgb(pen.colour)
    for cutout in masks.cutouts:
        x0, y0, x1, y1 = cutout.box
        part, around = cutout.part, np.pad(cutout.part, 1)
        inner = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
        pixels[y0:y1, x0:x1][part & ~inner] = colour
    return pixels


# --- parts ------------------------------------------------------------------------------------


def show_image(ax: Axes, image: Any) -> tuple[int, int]:
    """Show (3, H, W) pixels; (H, W) comes back."""
    pixels = np.moveaxis(as_array(image), 0, -1)  # (H, W, 3)
    height, width = pixels.shape[:2]
    # Pixel edges lie at whole coordinates, as boxes count; y points down.
    ax.imshow(pixels, extent=(0, width, height, 0), interpolation="nearest")
    ax.set(xticks=[0, width], yticks=[0, height], xlim=(0, width), ylim=(height, 0))
    ax.set_xlabel("x (px)", labelpad=-8)
    ax.set_ylabel("y (px)", labelpad=-12)
    return height, width


def outline_mask(ax: Axes, mask: Any, pen: Pen, width: float = 1.6) -> None:
    """The outline of a mask, on a white band so that it stands out on any image.

    mask: bool (H, W) or a cutout.
    """
    cutout = mask if isinstance(mask, Cutout) else cut_out(as_array(mask))
    if not cutout.part.any():
        return
    left, top, right, bottom = cutout.box
    padded = np.pad(cutout.part.astype(float), 1)  # so that outlines close
    y, x = np.arange(top, bottom + 2) - 0.5, np.arange(left, right + 2) - 0.5  # pixel centres
    ax.contourf(x, y, padded, levels=[0.5, 2], colors=pen.colour, alpha=0.15)
    ax.contour(x, y, padded, levels=[0.5], colors="white", linewidths=width + 1.4, alpha=0.9)
    line: dict[str, Any] = {"colors": pen.colour, "linewidths": width, "linestyles": [pen.line]}
    ax.contour(x, y, padded, levels=[0.5], **line)


# --- labels that keep clear of each other -----------------------------------------------------


class Spot(NamedTuple):
    """Where a text may stand: a point in axis units, and which part of the text lies on it."""

    x: float
    y: float
    ha: str
    va: str


class Label(NamedTuple):
    """A text and the places where it may stand, best first."""

    text: Text
    spots: list[Spot]


def _label_text(ax: Axes, words: str, pen: Pen) -> Text:
    ground = {"facecolor": pen.colour, "alpha": 0.85, "pad": 0.8, "linewidth": 0}
    return ax.text(0, 0, words, color="white", bbox=ground)


def _spots(mask: Cutout, box: Array) -> list[Spot]:
    """Above the mask's highest point, below its lowest, beside it, in its middle."""
    if not mask.part.any():
        x0, y0, x1, y1 = box
        return [Spot(x0, y0, "left", "bottom"), Spot(x0, y1, "left", "top")]
    y, x = np.nonzero(mask.part)
    y, x = y + mask.top, x + mask.left
    top, bottom, left, right = y.min(), y.max(), x.min(), x.max()
    return [
        Spot(x[y == top].mean(), top - 1, "center", "bottom"),
        Spot(x[y == bottom].mean(), bottom + 2, "center", "top"),
        Spot(right + 2, y[x == right].mean(), "left", "center"),
        Spot(left - 1, y[x == left].mean(), "right", "center"),
        Spot(x.mean(), y.mean(), "center", "center"),
    ]


def place_labels(figure: Figure, groups: Sequence[Sequence[Label]]) -> None:
    """Put each label at its spot with the least overlap; labels of one group share axes."""
    if not any(groups):
        return
    figure.draw_without_rendering()  # only now it is known where the axes are
    for labels in groups:
        taken: list[Bbox] = []
        for label in labels:
            covered_px = [_covered_px(label.text, spot, taken) for spot in label.spots]
            _move(label.text, label.spots[covered_px.index(min(covered_px))])
            taken.append(label.text.get_window_extent())


def _covered_px(text: Text, spot: Spot, taken: Sequence[Bbox]) -> float:
    """How many pixels of other labels the text would cover there."""
    _move(text, spot)  # matplotlib knows a text's extent where it stands
    box = text.get_window_extent().padded(2)
    overlaps = (box.intersection(box, other) for other in taken)
    return sum(overlap.width * overlap.height for overlap in overlaps if overlap is not None)


def _move(text: Text, spot: Spot) -> None:
    """Put the text at `spot`, pushed back inside the axes."""
    x, y, ha, va = spot
    text.set(position=(x, y), ha=ha, va=va)
    assert text.axes is not None
    frame, box = text.axes.get_window_extent(), text.get_window_extent()
    shift_x = max(frame.x0 - box.x0, 0) + min(frame.x1 - box.x1, 0)
    shift_y = max(frame.y0 - box.y0, 0) + min(frame.y1 - box.y1, 0)
    inside_px = text.axes.transData.transform((x, y)) + [shift_x, shift_y]
    text.set_position(tuple(text.axes.transData.inverted().transform(inside_px)))


# --- windows ----------------------------------------------------------------------------------


@look.readable
def windows_on_image(
    image: Any, windows: Windows, instances: Instances | None = None, title: str = ""
) -> Figure:
    """Windows (usually the positive ones of an object) over the image, one panel per level.

    Args:
        image: (3, H, W).
        windows: the windows to draw, of any levels.
        instances: masks drawn as truth.
        title: over the picture.
    """
    levels = sorted(set(windows.level.tolist())) or [0]
    height = min(4.2, look.WIDTH_INCHES / len(levels)) + 0.9
    alt = (
        f"An image per level, with the outlines of objects and {len(windows)} windows as "
        "dashed squares with a cross at their centres."
    )
    figure = look.new_picture(height, title or "Positive windows", alt=alt)
    axes = figure.subplots(1, len(levels), squeeze=False)[0]
    for ax, level in zip(axes, levels, strict=True):
        _windows_of_level(ax, image, windows[windows.level == level], instances, level)
    look.legend(figure, [(TRUTH, "object"), (POSITIVE, "positive window, x its centre")])
    return figure


def _windows_of_level(
    ax: Axes, image: Any, windows: Windows, instances: Instances | None, level: int
) -> None:
    height, width = show_image(ax, image)
    for mask in as_array(instances["masks"]) if instances else ():
        outline_mask(ax, mask, TRUTH)
    boxes = as_array(windows.box_px)  # (M, 4)
    for box in boxes:
        draw_box(ax, box, POSITIVE, 1.3)
    x, y = (boxes[:, :2] + boxes[:, 2:]).T / 2  # the centres, (M,) each
    ax.plot(x, y, "x", color="white", markersize=6, markeredgewidth=3)
    ax.plot(x, y, "x", color=POSITIVE.colour, markersize=5, markeredgewidth=1.6)
    # Windows may reach beyond the image: the axes hold both.
    low = np.minimum(0, boxes[:, :2].min(0, initial=0)) - 0.02 * width
    high = np.maximum([width, height], boxes[:, 2:].max(0, initial=0)) + 0.02 * width
    ax.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]))
    stride = int(windows.stride_px[0]) if len(windows) else 0
    ax.set_title(f"level {level}: {len(windows)} windows,\na cell every {stride} px")
