"""How an image file becomes the model's input, and how training pictures are varied.

next: config/train.py
"""

from __future__ import annotations

from dataclasses import dataclass

from ..base.errors import require

LARGEST_FACTOR, LARGEST_PX = 64, 1 << 15  # more is a mistake, and would fill the memory


@dataclass(frozen=True)
class InputConfig:
    """How an image file becomes the model's input.

    Results always go back to the file's own pixels.
    """

    enlarge: float = 1.0  # factor on both sides; ignored when short_side_px is set
    short_side_px: int | None = None  # resize so that the short side has this length ...
    long_side_px: int = 1333  # ... unless the long side would exceed this one
    # Contrast stretch of each image between these percentiles, for microscopes
    stretch_percentiles: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        factor, short_px = self.enlarge, self.short_side_px
        sides_px = (1 if short_px is None else short_px, self.long_side_px)
        require(
            0 < factor <= LARGEST_FACTOR, "enlarge", f"above 0, up to {LARGEST_FACTOR}", factor
        )
        fits = all(1 <= side_px <= LARGEST_PX for side_px in sides_px)
        expected = f"from 1 to {LARGEST_PX} px"
        require(fits, "short_side_px, long_side_px", expected, sides_px)
        if self.stretch_percentiles is not None:
            low, high = self.stretch_percentiles
            expected = "0 <= low < high <= 100"
            require(0 <= low < high <= 100, "stretch_percentiles", expected, (low, high))


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of a training image. All off by default."""

    flip: bool = False  # left-right
    flip_vertical: bool = False
    transpose: bool = False  # swap y and x: with both flips, the eight symmetries of the square
    shuffle_channels: float = 0.0  # probability of a random colour order
    grey: float = 0.0  # probability of averaging the colours
    invert: float = 0.0  # probability of 1 - image
    gamma: tuple[float, float] = (1.0, 1.0)  # exponent range, log-uniform
    gain: tuple[float, float] = (1.0, 1.0)  # factor range
    offset: float = 0.0  # added value, uniform in +- this
    noise: float = 0.0  # standard deviation of pixel noise, uniform in [0, this]
    # Size factor range, log-uniform, on top of InputConfig
    scale: tuple[float, float] = (1.0, 1.0)
    # Any whole number in this range instead of InputConfig's
    short_side_px: tuple[int, int] | None = None
    crop_px: int | None = None  # square crop after scaling
    min_area_px: int = 1  # an instance with fewer visible pixels after the crop is background
