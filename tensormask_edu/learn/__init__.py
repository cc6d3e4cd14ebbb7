"""Exercises that explain mistakes, short looks at tensors.

In the order of reading:

    exercise.py   the decorator of a stub; check, hint, solution
    checks.py     the stages of a check; checks.md, what fits every exercise
    texts.py      how the sentences are read from the text files
    show.py       peek, compare, an explorer
    lessons/      per lesson a module of functions and a text file of sentences
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
