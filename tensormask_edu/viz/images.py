"""Instances and windows drawn on images.

next: viz/tensors.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..geometry import Windows
from .look import (
    POSITIVE,
    PREDICTION,
    SMALL,
    TRUTH,
    WIDTH_INCHES,
    Look,
    as_array,
    draw_box,
    legend,
    new_picture,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Instances = Mapping[str, Any]  # boxes (D, 4) xyxy px, labels (D,), masks (D, H, W), maybe scores (D,)


@styled
def draw_instances(
    image: Any,
    instances: Instances,
    class_names: Sequence[str],
    title: str = "",
    ax: Axes | None = None,
    look: Look | None = None,
    boxes: bool = True,
) -> Figure:
    """Masks, boxes and labels on one image. Beyond 25 instances outlines alone, or labels hide the image.

    Args:
        image: (3, H, W) RGB, uint8 or floats in [0, 1]; tensor or array.
        instances: `boxes` (D, 4) xyxy pixels, `labels` (D,), `masks` (D, H, W) bool, maybe `scores` (D,).
        class_names: name of each label.
        title: over the picture.
        ax: where to draw; a new picture if None.
        look: by default prediction if there are scores, else truth.
        boxes: draw the boxes too.

    Returns:
        The picture drawn on.
    """
    ax = ax or new_picture(_height_inches(image)).add_subplot()
    look = look or (PREDICTION if "scores" in instances else TRUTH)
    size = show_image(ax, image)
    masks, texts = as_array(instances["masks"]), _texts(instances, class_names)
    crowded = len(masks) > 25
    for mask in masks:
        outline_mask(ax, mask, look, 1.0 if crowded else 1.6)
    for box, text in zip(as_array(instances["boxes"]), () if crowded else texts, strict=not crowded):
        if boxes:
            draw_box(ax, box, look, width=0.8)
        _label(ax, box, text, look, size)
    ax.set_title(title)
    return cast("Figure", ax.figure)


def _texts(instances: Instances, class_names: Sequence[str]) -> list[str]:
    """Per instance its class name and score."""
    names = [class_names[int(label)] for label in as_array(instances["labels"])]
    if "scores" not in instances:
        return names
    return [f"{name} {score:.2f}" for name, score in zip(names, as_array(instances["scores"]), strict=True)]


def _height_inches(image: Any) -> float:
    height, width = as_array(image).shape[-2:]
    return float(min(12.0, WIDTH_INCHES * height / width + 0.6))


@styled
def truth_and_prediction(
    images: Sequence[Any],
    truths: Sequence[Instances],
    predictions: Sequence[Instances],
    class_names: Sequence[str],
    titles: Sequence[str] | None = None,
    columns: int = 3,
) -> Figure:
    """A grid: under each image with its truth the same image with its predictions.

    Args:
        images: B images (3, H, W); sizes may differ.
        truths, predictions: one dict per image, as in `draw_instances`.
        titles: one per image, by default "image 1", "image 2", ...
        columns: images side by side.
    """
    columns = max(1, min(columns, len(images)))
    bands = -(-len(images) // columns)
    height = 2 * bands * (WIDTH_INCHES / columns + 0.1) + 0.5
    figure = new_picture(height, "Truth (solid) and prediction (dashed)")
    axes = figure.subplots(2 * bands, columns, squeeze=False)
    pairs = [
        (axes[2 * band, column], axes[2 * band + 1, column]) for band, column in np.ndindex(bands, columns)
    ]
    for k, (upper, lower) in enumerate(pairs[: len(images)]):
        title = titles[k] if titles else f"image {k + 1}"
        draw_instances(images[k], truths[k], class_names, f"{title}: truth", upper, TRUTH, boxes=False)
        draw_instances(
            images[k], predictions[k], class_names, f"{title}: prediction", lower, PREDICTION, boxes=False
        )
        upper.set_xlabel("")
        for ax in (upper, lower) if k % columns else ():
            ax.set_ylabel("")
    for ax in (ax for pair in pairs[len(images) :] for ax in pair):
        ax.axis("off")
    return figure


def show_image(ax: Axes, image: Any) -> tuple[int, int]:
    """Show (3, H, W) pixels with pixel edges at whole coordinates, as boxes count; returns (H, W)."""
    pixels = np.moveaxis(as_array(image), 0, -1)
    height, width = pixels.shape[:2]
    ax.imshow(pixels, extent=(0, width, height, 0), interpolation="nearest")
    ax.set(xticks=[0, width], yticks=[0, height], xlim=(0, width), ylim=(height, 0))
    ax.set_xlabel("x (px)", labelpad=-8)
    ax.set_ylabel("y (px)", labelpad=-12)
    return height, width


def outline_mask(ax: Axes, mask: Any, look: Look, width: float = 1.6) -> None:
    """The outline of a mask (H, W), on a white band so that it stands out on any image."""
    mask = as_array(mask)
    if not mask.any():
        return
    (top, left), (bottom, right) = np.argwhere(mask).min(0), np.argwhere(mask).max(0) + 1
    padded = np.pad(mask[top:bottom, left:right].astype(float), 1)
    y, x = np.arange(top, bottom + 2) - 0.5, np.arange(left, right + 2) - 0.5
    ax.contourf(x, y, padded, levels=[0.5, 2], colors=look.colour, alpha=0.15)
    ax.contour(x, y, padded, levels=[0.5], colors="white", linewidths=width + 1.4, alpha=0.9)
    ax.contour(x, y, padded, levels=[0.5], colors=look.colour, linewidths=width, linestyles=[look.line])


def _label(ax: Axes, box: Sequence[float], text: str, look: Look, size: tuple[int, int]) -> None:
    """Small text above the box, or just inside it where the image ends."""
    height, width = size
    x0, y0, x1, _ = box
    to_the_left = x0 > 0.6 * width
    ax.text(
        min(x1, width) if to_the_left else max(x0, 0),
        max(y0, 0),
        text,
        fontsize=SMALL,
        color="white",
        ha="right" if to_the_left else "left",
        va="bottom" if y0 > 0.08 * height else "top",
        bbox={"facecolor": look.colour, "alpha": 0.9, "pad": 0.8, "linewidth": 0},
    )


@styled
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
    height = min(4.2, WIDTH_INCHES / len(levels)) + 0.9
    figure = new_picture(height, title or "Positive windows")
    axes = figure.subplots(1, len(levels), squeeze=False)[0]
    for ax, level in zip(axes, levels, strict=True):
        _windows_of_level(ax, image, windows[windows.level == level], instances, level)
    legend(figure, [(TRUTH, "object"), (POSITIVE, "positive window, x its centre")])
    return figure


def _windows_of_level(
    ax: Axes, image: Any, windows: Windows, instances: Instances | None, level: int
) -> None:
    height, width = show_image(ax, image)
    for mask in as_array(instances["masks"]) if instances else ():
        outline_mask(ax, mask, TRUTH)
    boxes = as_array(windows.box_px)
    for box in boxes:
        draw_box(ax, box, POSITIVE, 1.3)
    x, y = (boxes[:, :2] + boxes[:, 2:]).T / 2
    ax.plot(x, y, "x", color="white", markersize=6, markeredgewidth=3)
    ax.plot(x, y, "x", color=POSITIVE.colour, markersize=5, markeredgewidth=1.6)
    low = np.minimum(0, boxes[:, :2].min(0, initial=0)) - 0.02 * width
    high = np.maximum([width, height], boxes[:, 2:].max(0, initial=0)) + 0.02 * width
    ax.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]))
    stride = int(windows.stride_px[0]) if len(windows) else 0
    ax.set_title(f"level {level}: {len(windows)} windows,\na cell every {stride} px")
