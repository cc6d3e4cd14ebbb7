"""Arrays and their shapes: as text, as what an engine accepts.

next: onnx_file/leading.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from numpy.typing import NDArray

from tensormask_edu.base.errors import bad_input

Array = NDArray[Any]
Named = dict[str, Array]  # by the names of `contract`, or of a detection's fields
Shape = tuple[int, int, int, int]  # N, 3, H, W
Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Profile:
    """The input shapes an engine accepts: smallest, the one it is tuned for, largest."""

    min: Shape = (1, 3, 128, 128)
    opt: Shape = (1, 3, 256, 256)
    max: Shape = (4, 3, 512, 512)

    def check(self, padding_px: int) -> None:
        """Raise InputError unless min <= opt <= max and `padding_px` divides every side."""
        for name, shape in asdict(self).items():
            sides_fit = all(side > 0 and side % padding_px == 0 for side in shape[2:])
            if len(shape) != 4 or shape[0] < 1 or shape[1] != 3 or not sides_fit:
                expected = f"Nx3xHxW with N >= 1, H and W multiples of {padding_px}"
                raise bad_input(f"{name} shape", expected, shape_name(shape))
        for lower, upper in ((self.min, self.opt), (self.opt, self.max)):
            if any(a > b for a, b in zip(lower, upper, strict=True)):
                raise bad_input("shapes", "min <= opt <= max in every axis", self.text())

    def text(self) -> str:
        """min 1x3x128x128, opt 1x3x256x256, max 4x3x512x512."""
        return ", ".join(f"{name} {shape_name(shape)}" for name, shape in asdict(self).items())


def shape_name(shape: Sequence[int]) -> str:
    """(1, 3, 128, 128) as 1x3x128x128."""
    return "x".join(map(str, shape))
