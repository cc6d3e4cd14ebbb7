"""Exercises that explain mistakes, short looks at tensors.

In the order of reading:

    texts.py      the sentences of a text file, and the edits that make mistakes
    cases.py      a grammar of shapes that makes the calls an answer is tried with
    common.py     mistakes that are made everywhere
    mutants.py    mistakes made from the right source, a lesson's own and the common ones
    reading.py    where an answer read
    trials.py     an exercise, one call of an answer, and what came
    told.py       what is said of it
    checks.py     a check of a function; checks.md, what fits every exercise
    kinds/        the kinds of exercise, as a lesson declares them
    exercise.py   what a learner calls: exercise, check, hint, solution
    explorer.py   a picture with sliders that draws itself in the page
    show.py       peek, compare, pictures to begin with
    lessons/      per lesson a module of functions and a text file of sentences
"""

from .exercise import check, exercise, explain, hint, numbers, predict, solution
from .show import (
    compare,
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
    "explain",
    "full_or_smoke",
    "hint",
    "mask_iou",
    "numbers",
    "peek",
    "picture_with_truth",
    "predict",
    "solution",
    "stored_sample",
]
