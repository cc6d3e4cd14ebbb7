"""The smallest call that still fails: rows are taken out of the arguments while it does.

A wrong answer that no known mistake explains is best seen on two boxes instead of fourteen:

    suppress([[0, 0, 10, 10], [3, 0, 10, 10]], [0.9, 0.8]) gave [1, 1], expected [1, 0].

next: learn/told.py
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Iterator
from typing import Any

import numpy as np

from .cases import Array, Case
from .trials import TOLERANCE, Answer, Exercise, as_numbers

MOST_TRIALS = 400  # calls of the answer that are spent on it
SYMMETRIC = {"v", "u"}  # windows have a middle bin: one row less has none
Args = tuple[Any, ...]
Axis = tuple[tuple[int, int], ...]  # (argument, its axis) of all that shrink together


def smallest_failing(exercise: Exercise, answer: Answer, case: Case) -> Args | None:
    """Arguments as small as they get with the answer still wrong.

    None where the answer raises or no axis may lose a row.
    """
    args, trials = case.make(), 0
    axes = list(_axes(exercise, args))
    if not axes or not _fails(exercise, answer, args):
        return None
    again = True
    while again:
        again = False
        for fewer in _one_row_less(args, axes):
            trials += 1
            if trials > MOST_TRIALS:
                break
            if _fails(exercise, answer, fewer):
                args, again = fewer, True
                break
    return _with_few_digits(exercise, answer, args)


def _with_few_digits(exercise: Exercise, answer: Answer, args: Args) -> Args:
    """Fractions rounded where the answer stays wrong: they are to be worked out by hand."""
    for number, arg in enumerate(args):
        for digits in (1, 2) if isinstance(arg, np.ndarray) and arg.dtype.kind == "f" else ():
            short = arg.round(digits)
            if arg.ndim == 1 and len(np.unique(short)) < len(np.unique(arg)):
                continue  # equal scores have no order
            if np.count_nonzero(short) < np.count_nonzero(arg):
                continue  # a box without a height has no overlap
            rounded = (*args[:number], short, *args[number + 1 :])
            if _fails(exercise, answer, rounded):
                args = rounded
                break
    return args


def _axes(exercise: Exercise, args: Args) -> Iterator[Axis]:
    """The axes that may lose a row: those of one letter lose it together."""
    by_letter: dict[str, list[tuple[int, int]]] = {}
    for number, (part, arg) in enumerate(zip(exercise.grammar.parts, args, strict=False)):
        if part.kind == "other" and isinstance(arg, np.ndarray):
            yield from (((number, axis),) for axis in range(arg.ndim))
        elif part.kind == "array" and isinstance(arg, np.ndarray):
            for axis, letter in enumerate(part.sizes):
                if letter.isalpha() and letter not in SYMMETRIC:
                    by_letter.setdefault(letter, []).append((number, axis))
    yield from map(tuple, by_letter.values())


def _one_row_less(args: Args, axes: list[Axis]) -> Iterator[Args]:
    for axis in axes:
        first, along = axis[0]
        count = args[first].shape[along]
        for row in range(count if count > 1 else 0):
            fewer = list(args)
            for number, part in axis:
                fewer[number] = np.delete(args[number], row, part)
            yield tuple(fewer)


def _fails(exercise: Exercise, answer: Answer, args: Args) -> bool:
    """Whether the answer gives other numbers than the reference; an error does not count."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # what the answer prints is not news
            wanted: Array = as_numbers(exercise.reference(*copy.deepcopy(args)))
            given: Array | None = as_numbers(answer(*copy.deepcopy(args)))
    except Exception:
        return False
    if given is None or given.shape != wanted.shape:
        return False
    return not np.allclose(given, wanted, rtol=0, atol=TOLERANCE)
