"""How an answer is checked: stages from simple to hard, stopping at the first failure.

    shape        it runs, and gives the right kind and shape of thing
    by hand      a tiny case whose answer stands here as numbers; away from the border
    random       random cases; away from the border
    borders      where the border matters
    input        it left its input as it was
    (more)       what one exercise asks on top: a view that shares memory, no large intermediate

A wrong answer is compared with the answers of *known wrong ideas*: if one of them gives the
same numbers, its sentence is printed. So a message is about the idea, not about the symptom.
What fits every exercise is said in `checks.md`.

next: learn/texts.py
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .texts import Texts, texts_beside

Array = np.ndarray[Any, Any]
Answer = Callable[..., Any]
Demand = Callable[[Answer], dict[str, Any] | None]
TOLERANCE = 1e-5  # float32 answers are welcome; a wrong idea is wrong by far more
EVERY_EXERCISE = texts_beside(__file__)["every exercise"]
NAMES = ("shape", "by hand", "random", "borders", "input unchanged")


def call(answer: Answer, *args: Any) -> Any:
    """The plain way to try an answer: call it once."""
    return answer(*args)


@dataclass(frozen=True)
class Case:
    """One call that is tried.

    name: of the paragraph that says in words what is tried, `### case: NAME`.
    numbers: for the words in braces of that paragraph.
    expected: for the case by hand, the answer.
    """

    args: tuple[Any, ...]
    name: str
    numbers: dict[str, Any] = field(default_factory=dict)
    expected: Any = None


@dataclass(frozen=True)
class Exercise:
    """One exercise: what is right, what is tried, which mistakes are known.

    texts: its sentences: `hint 1` to `hint 3`, `case: NAME` of every case, `mistake: NAME` and
    `extra: NAME` of every mistake and extra, `border` where the usual one does not fit.
    shown: the functions whose source is the solution.
    mistakes: by name, wrong ideas as functions; the first with the answer's numbers is told.
    evaluate: from an answer and a case's arguments to one array; by default a call.
    interior: from a case's arguments to where (bool, shape of the array) no border matters;
    None: everywhere.
    extras: by name, what this exercise asks on top: from an answer to the numbers for the words
    in braces of what is then said, None if nothing is wrong.
    """

    name: str
    lesson: str
    texts: Texts
    reference: Answer
    shown: tuple[Answer, ...]
    by_hand: Case
    random: Callable[[np.random.Generator], Sequence[Case]]
    borders: Callable[[np.random.Generator], Sequence[Case]]
    mistakes: Mapping[str, Answer]
    evaluate: Callable[..., Any] = call
    interior: Callable[..., Array] | None = None
    extras: Mapping[str, Demand] = field(default_factory=dict)

    @property
    def hints(self) -> tuple[str, ...]:
        """Three hints, each says more than the one before."""
        return tuple(self.says(f"hint {number}") for number in (1, 2, 3))

    def says(self, heading: str, **numbers: Any) -> str:
        """A sentence of this exercise, else of every one, its words in braces filled in."""
        text = self.texts.get(heading) or EVERY_EXERCISE[heading]
        return text.format(**numbers)

    def words(self, case: Case) -> str:
        """What a case tries."""
        return self.says(f"case: {case.name}", **case.numbers)


@dataclass(frozen=True)
class Verdict:
    """What a check found: the stages passed, and what was wrong in the one that failed."""

    done: tuple[str, ...]
    stage: str = ""
    message: str = ""
    case: str = ""
    expected: Array | None = None
    yours: Array | None = None
    tolerance: float = TOLERANCE

    @property
    def passed(self) -> bool:
        return not self.stage


class _Failure(Exception):
    """What a stage found wrong; the arrays are drawn."""

    def __init__(
        self, message: str, case: str = "", expected: Any = None, yours: Any = None
    ) -> None:
        super().__init__(message)
        self.verdict = {"message": message, "case": case, "expected": expected, "yours": yours}


def run(exercise: Exercise, answer: Answer) -> Verdict:
    """Check an answer; never raises because of it."""
    done: list[str] = []
    for name, stage in _stages(exercise, answer):
        try:
            stage()
        except _Failure as failure:
            return Verdict(tuple(done), name, **failure.verdict)
        done.append(name)
    return Verdict(tuple(done))


def _stages(exercise: Exercise, answer: Answer) -> Iterator[tuple[str, Callable[[], None]]]:
    rng = np.random.default_rng(0)
    random, borders = list(exercise.random(rng)), list(exercise.borders(rng))
    hand = exercise.by_hand
    checks = (
        lambda: _check_shape(exercise, answer, hand),
        lambda: _check_values(exercise, answer, [hand], everywhere=False),
        lambda: _check_values(exercise, answer, random, everywhere=False),
        lambda: _check_values(exercise, answer, [*random, *borders], everywhere=True),
        lambda: _check_input(exercise, answer, [hand, *random]),
    )
    yield from zip(NAMES, checks, strict=True)
    for name in exercise.extras:
        yield name, partial(_check_extra, exercise, name, answer)


def _check_shape(exercise: Exercise, answer: Answer, case: Case) -> None:
    expected = exercise.evaluate(exercise.reference, *copy.deepcopy(case.args))
    yours = _try(exercise, answer, case)
    if yours is None:
        raise _failure(exercise, case, "nothing returned")
    kind, your_kind = type(expected).__name__, type(yours).__name__
    if isinstance(expected, Tensor | np.ndarray) and not isinstance(yours, type(expected)):
        raise _failure(exercise, case, "another kind", expected=kind, yours=your_kind)
    expected, yours = as_numbers(expected), as_numbers(yours)
    if yours is None:
        raise _failure(exercise, case, "no numbers", expected=kind)
    if yours.shape != expected.shape:
        shapes = {"expected": expected.shape, "yours": yours.shape}
        raise _failure(exercise, case, "another shape", **shapes)


def _check_values(
    exercise: Exercise, answer: Answer, cases: Sequence[Case], everywhere: bool
) -> None:
    for case in cases:
        expected = as_numbers(exercise.evaluate(exercise.reference, *copy.deepcopy(case.args)))
        yours = as_numbers(_try(exercise, answer, case))
        if yours is None:
            raise _failure(exercise, case, "no numbers here", expected=expected.shape)
        if yours.shape != expected.shape:
            shapes = {"expected": expected.shape, "yours": yours.shape}
            raise _failure(exercise, case, "another shape here", **shapes)
        wrong = ~np.isclose(yours, expected, rtol=0, atol=TOLERANCE)
        if exercise.interior is not None and not everywhere:
            wrong &= exercise.interior(*copy.deepcopy(case.args))
        if wrong.any():
            why = _probably(exercise, case, expected, yours, everywhere)
            counts = {"wrong": int(wrong.sum()), "all": wrong.size}
            message = exercise.says("wrong values", **counts, why=why)
            raise _Failure(message, exercise.words(case), expected, yours)


def _failure(exercise: Exercise, case: Case, heading: str, **numbers: Any) -> _Failure:
    return _Failure(exercise.says(heading, **numbers), exercise.words(case))


def _probably(
    exercise: Exercise, case: Case, expected: Array, yours: Array, at_border: bool
) -> str:
    """The sentence of the first known wrong idea that gives the same wrong numbers."""
    for name, wrong_idea in exercise.mistakes.items():
        try:
            same = as_numbers(exercise.evaluate(wrong_idea, *copy.deepcopy(case.args)))
        except (IndexError, ValueError, RuntimeError):
            continue  # a wrong idea may not survive every case
        if same is None or same.shape != yours.shape or _close(same, expected):
            continue  # it is not wrong here
        if _close(same, yours):
            return exercise.says(f"mistake: {name}")
    is_border = at_border and exercise.interior is not None
    return exercise.says("border" if is_border else "unknown mistake")


def _check_input(exercise: Exercise, answer: Answer, cases: Sequence[Case]) -> None:
    for case in cases:
        args = copy.deepcopy(case.args)
        exercise.evaluate(answer, *args)
        for before, after in zip(case.args, args, strict=True):
            if not np.array_equal(as_numbers(before), as_numbers(after)):
                raise _failure(exercise, case, "input changed")


def _check_extra(exercise: Exercise, name: str, answer: Answer) -> None:
    numbers = exercise.extras[name](answer)
    if numbers is not None:
        raise _Failure(exercise.says(f"extra: {name}", **numbers))


def _try(exercise: Exercise, answer: Answer, case: Case) -> Any:
    """The answer's result; an exception of its own becomes a failure that names its line."""
    try:
        return exercise.evaluate(answer, *copy.deepcopy(case.args))
    except Exception as error:
        if isinstance(error, IndexError):
            message = exercise.says("outside", error=error)
        else:
            message = f"{type(error).__name__}: {error}"
        raise _Failure(_line_of(error, answer) + message, exercise.words(case)) from None


def _line_of(error: BaseException, answer: Answer) -> str:
    """Where in the answer an error comes from: "Line 3 of your function. "; else ""."""
    code = getattr(answer, "__code__", None)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if code and frame.filename == code.co_filename and frame.lineno:
            return f"Line {frame.lineno - code.co_firstlineno + 1} of your function. "
    return ""


def _close(one: Array, other: Array) -> bool:
    return bool(np.allclose(one, other, rtol=0, atol=TOLERANCE))


def as_numbers(value: Any) -> Any:
    """A tensor, array, number or nested list of numbers as float64; None of anything else."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().to(torch.float64).numpy()
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None


def without_pad(reference: Answer) -> Callable[..., Array]:
    """Where an answer does not depend on its last argument, the pad value: the interior."""

    def interior(*args: Any) -> Array:
        low, high = (as_numbers(reference(*args[:-1], pad)) for pad in (0.0, 1.0))
        return np.asarray(low == high)

    return interior
