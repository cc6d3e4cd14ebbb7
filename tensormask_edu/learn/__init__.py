"""What the lessons need beside the package: exercises that explain mistakes, short looks at
tensors.

    exercise.py   the decorator of a stub; check, hint, solution
    checks.py     the stages of a check, and what it says
    show.py       peek, compare, an explorer
    lesson_04.py  the exercises of lesson 04; lesson_06.py those of 06

next: learn/exercise.py
"""

from .exercise import check, exercise, hint, solution
from .show import (
    compare,
    explore,
    full_or_smoke,
    mask_iou,
    peek,
    picture_with_truth,
    stored_sample,
)

__all__ = [
    "check",
    "compare",
    "exercise",
    "explore",
    "full_or_smoke",
    "hint",
    "mask_iou",
    "peek",
    "picture_with_truth",
    "solution",
    "stored_sample",
]
