"""From pixels to the model's input: contrast, size.

Every picture goes through this, in training, evaluation and prediction alike, whatever computes
the model: arrays are NumPy's, and no torch is loaded.

next: data/coco.py
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..base.errors import bad_input
from ..config import InputConfig
from .pictures import Pixels

Floats = NDArray[np.float32]  # (3, H, W) RGB in [0, 1]


def prepare(image: Pixels, config: InputConfig) -> Floats:
    """The model's input for a picture: float32 (3, h, w) in [0, 1], (h, w) = `input_size`.

    Results return to the file's pixels by the model's `output_sizes`.

    Args:
        image: uint8 (3, H, W) RGB

    Raises:
        InputError: an array of another shape or type.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise bad_input("image", "uint8 (3, H, W)", f"{image.dtype} {tuple(image.shape)}")
    size = input_size(image.shape[1], image.shape[2], config)
    # Contrast comes first: percentiles are the file's, not those of a smoothed picture.
    return resize(stretch(image, intensity_range(image, config)), size)


def input_size(height: int, width: int, config: InputConfig) -> tuple[int, int]:
    """Height and width in which a picture enters the model."""
    factor = config.enlarge
    if config.short_side_px is not None:
        factor = min(
            config.short_side_px / min(height, width), config.long_side_px / max(height, width)
        )
    return scaled((height, width), factor)


def scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """A size (height, width) times a factor, rounded, at least 1 px."""
    height, width = (max(1, int(side * factor + 0.5)) for side in size)
    return height, width


def intensity_range(image: Pixels, config: InputConfig) -> tuple[float, float]:
    """The pixel values, 0..255, that become 0 and 1: the config's percentiles.

    They are taken over all pixels and colours.
    """
    if config.stretch_percentiles is None:
        return 0.0, 255.0
    counts = np.bincount(image.reshape(-1), minlength=256).cumsum()  # pixels up to each value
    shares = np.array(config.stretch_percentiles) / 100 * counts[-1]
    low, high = np.searchsorted(counts, shares).tolist()
    return float(low), float(max(high, low + 1))  # a picture of one colour becomes 0


def stretch(image: Pixels, values: tuple[float, float]) -> Floats:
    """uint8 to float32: `values` = (low, high) become 0 and 1, what lies beyond is cut."""
    low, high = (np.float32(value) for value in values)  # so that the result is float32 too
    return ((image.astype(np.float32) - low) / (high - low)).clip(0, 1)


def resize(image: Floats, size: tuple[int, int]) -> Floats:
    """A picture in another size (height, width): bilinear, and antialiased where it shrinks.

    Antialiased: a pixel of the smaller picture is a weighted mean of all that it covers, not of
    its four neighbours. torchvision's resize does the same, to 6e-5: its weights are float32.
    """
    if image.shape[-2:] == tuple(size):
        return image
    height, width = size
    planes = [  # Pillow resizes floats one plane (H, W) at a time
        np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR))
        for plane in image
    ]
    return np.stack(planes).clip(0, 1)  # (3, height, width), no rounding beyond 0 and 1
