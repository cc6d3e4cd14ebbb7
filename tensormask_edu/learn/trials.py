"""One exercise of a function, one call of an answer to it, and what came.

next: learn/shrinking.py
"""

from __future__ import annotations

import functools
import inspect
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from .cases import AXIS_NAMES, Array, Case, Grammar
from .texts import Texts, texts_beside

Answer = Callable[..., Any]
Demand = Callable[[Answer], dict[str, Any] | None]
TOLERANCE = 1e-5  # float32 answers are welcome; a wrong idea is wrong by far more
EVERY_EXERCISE = texts_beside(Path(__file__).with_name("checks.md"))["every exercise"]
FURTHEST = 200  # of a list of (index, weight): entries that are compared, either side of 0


# --- what an exercise is ----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Exercise:
    """One exercise of a function: what is right, what is tried.

    reference: its loops; the solution, and what mistakes are made from.
    texts: `hint 1` to `hint 3`, its own mistakes, `extra: NAME` of every extra.
    same_as: the package's own function, with the same arguments; a test compares.
    extras: by name, what this exercise asks on top: from an answer to the numbers for the words
    in braces of what is then said, None if nothing is wrong.
    """

    name: str
    lesson: str
    texts: Texts
    reference: Answer
    grammar: Grammar
    cases: tuple[Case, ...]
    same_as: Answer | None = None
    extras: Mapping[str, Demand] = field(default_factory=dict)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the arguments."""
        return tuple(inspect.signature(self.reference).parameters)

    @property
    def axes_of_result(self) -> tuple[str, str]:
        """Names of the last two axes of a result, for a picture."""
        if self.grammar.swept is not None:
            return self.parameters[self.grammar.swept], "entry"
        names = ("", *self.grammar.result)[-2:]
        row, column = (re.sub(r".*\*|/.*", "", name) for name in names)
        return AXIS_NAMES.get(row, row), AXIS_NAMES.get(column, column)

    @property
    def hints(self) -> tuple[str, ...]:
        """Three hints, each says more than the one before."""
        return tuple(self.says(f"hint {number}") for number in (1, 2, 3))

    def says(self, heading: str, **numbers: Any) -> str:
        """A sentence of this exercise, else of every one, its words in braces filled in."""
        return says(self.texts, heading, **numbers)

    def words(self, case: Case) -> str:
        """What a case tries."""
        return self.says(f"case: {case.name}", **case.numbers)


def says(texts: Texts, heading: str, **numbers: Any) -> str:
    """A sentence of an exercise, else of every one, its words in braces filled in."""
    paragraph = texts.get(heading) or EVERY_EXERCISE[heading]
    return paragraph.words.format(**numbers)


@dataclass(frozen=True)
class Trial:
    """One call of an answer: what came, as it came and as numbers, or what it raised."""

    raw: Any = None
    numbers: Any = None
    error: Exception | None = None
    changed: str = ""  # name of an argument that was written into
    calls: tuple[tuple[tuple[Any, ...], Any], ...] = ()  # of a swept parameter: one by one


class Failure(Exception):
    """What a case found wrong."""

    def __init__(self, message: str, told: str = "fact", **arrays: Any) -> None:
        super().__init__(message)
        self.message, self.told, self.arrays = message, told, arrays


# --- one call ---------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)
def right_trial(exercise: Exercise, case: Case) -> Trial:
    """What the reference gives; computed once."""
    trial = attempt(exercise, exercise.reference, case)
    assert trial.error is None, f"{exercise.name}: {trial.error!r}"
    return trial


def attempt(exercise: Exercise, answer: Answer, case: Case) -> Trial:
    """An answer's result, or what it raised."""
    args = case.make()
    try:
        if exercise.grammar.swept is not None:
            return _swept(exercise.grammar.swept, answer, args)
        raw = answer(*args)
        numbers = as_numbers(raw)
    except Exception as error:
        return Trial(error=error)
    before = case.make()
    changed = [
        name
        for name, old, new in zip(exercise.parameters, before, args, strict=False)
        if not np.array_equal(as_numbers(old), as_numbers(new))
    ]
    return Trial(raw, numbers, changed=changed[0] if changed else "")


def _swept(swept: int, answer: Answer, args: tuple[Any, ...]) -> Trial:
    """Calls for every value of one parameter; a row of weights for each."""
    calls = [(*args[:swept], value, *args[swept + 1 :]) for value in args[swept]]
    raw = [_listed(answer(*call)) for call in calls]
    told = tuple(zip(calls, raw, strict=True))
    if any(result is None for result in raw):
        return Trial(calls=told)
    if not all(map(_are_pairs, raw)):
        return Trial(raw, calls=told)
    return Trial(raw, np.array([weights_of(result) for result in raw]), calls=told)


def _listed(result: Any) -> Any:
    """What a generator gives, as a list."""
    return list(result) if isinstance(result, Iterator) else result


def _are_pairs(result: Any) -> bool:
    """Whether a result is a list or an array of pairs."""
    try:
        return all(len(pair) == 2 for pair in result)
    except TypeError:
        return False


def weights_of(pairs: Any) -> Array:
    """A list of (index, weight) as weights of the entries -FURTHEST to FURTHEST."""
    row = np.zeros(2 * FURTHEST + 1)
    for index, weight in pairs:
        place = operator.index(index) + FURTHEST  # an index must be a whole number
        row[min(max(place, 0), len(row) - 1)] += weight
    return row


def as_numbers(value: Any) -> Any:
    """A tensor, array, number or nested list of numbers as float64; None of anything else."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None
