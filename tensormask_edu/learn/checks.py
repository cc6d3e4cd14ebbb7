"""How an answer is checked: stages from simple to hard, stopping at the first failure.

    shape        it runs, and gives the right kind and shape of thing
    by hand      a tiny case whose answer stands here as numbers; away from the border
    random       random cases; away from the border
    borders      where the border matters
    input        it left its input as it was
    (more)       what one exercise asks on top: a view that shares memory, no large intermediate

A wrong answer is compared with the answers of *known wrong ideas*: if one of them gives the
same numbers, its sentence is printed. So a message is about the idea, not about the symptom.

next: learn/lesson_04.py
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]
Answer = Callable[..., Any]
TOLERANCE = 1e-5  # float32 answers are welcome; a wrong idea is wrong by far more
NAMES = ("shape", "by hand", "random", "borders", "input unchanged")


class Case(NamedTuple):
    """Arguments of one call, in words, and for the case by hand the answer."""

    args: tuple[Any, ...]
    words: str
    expected: Any = None


class Mistake(NamedTuple):
    """A wrong idea as a function, and what to tell somebody who has it."""

    does: Answer
    says: str


class Extra(NamedTuple):
    """A demand of one exercise: `finds(answer)` returns what is wrong, "" if nothing is."""

    name: str
    finds: Callable[[Answer], str]


def call(answer: Answer, *args: Any) -> Any:
    """The plain way to try an answer: call it once."""
    return answer(*args)


@dataclass(frozen=True)
class Exercise:
    """One exercise: what is right, what is tried, which mistakes are known.

    evaluate: from an answer and a case's arguments to one array; by default a call.
    interior: from a case's arguments to where (bool, shape of the array) no border matters;
    None: everywhere.
    shown: the functions whose source is the solution.
    """

    name: str
    lesson: str
    reference: Answer
    shown: tuple[Answer, ...]
    by_hand: Case
    random: Callable[[np.random.Generator], Sequence[Case]]
    borders: Callable[[np.random.Generator], Sequence[Case]]
    mistakes: tuple[Mistake, ...]
    hints: tuple[str, str, str]
    evaluate: Callable[..., Any] = call
    interior: Callable[..., Array] | None = None
    extras: tuple[Extra, ...] = ()
    border_says: str = (
        "Right inside, wrong where an entry's source lies outside: there it is pad_value."
    )


@dataclass(frozen=True)
class Verdict:
    """What a check found: the stages passed, and for a failure its stage, message and
    arrays."""

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
        self,
        message: str,
        case: str = "",
        expected: Array | None = None,
        yours: Array | None = None,
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
            return Verdict(tuple(done), name, **failure.verdict)  # type: ignore[arg-type]
        done.append(name)
    return Verdict(tuple(done))


def _stages(exercise: Exercise, answer: Answer) -> Iterator[tuple[str, Callable[[], None]]]:
    rng = np.random.default_rng(0)
    random, borders = list(exercise.random(rng)), list(exercise.borders(rng))
    hand = exercise.by_hand
    yield NAMES[0], lambda: _check_shape(exercise, answer, hand)
    yield NAMES[1], lambda: _check_values(exercise, answer, [hand], everywhere=False)
    yield NAMES[2], lambda: _check_values(exercise, answer, random, everywhere=False)
    yield (
        NAMES[3],
        lambda: _check_values(exercise, answer, [*random, *borders], everywhere=True),
    )
    yield NAMES[4], lambda: _check_input(exercise, answer, [hand, *random])
    for extra in exercise.extras:
        yield extra.name, lambda extra=extra: _check_extra(extra, answer)  # type: ignore[misc]


def _check_shape(exercise: Exercise, answer: Answer, case: Case) -> None:
    expected = exercise.evaluate(exercise.reference, *copy.deepcopy(case.args))
    yours = _try(exercise, answer, case)
    if yours is None:
        raise _Failure(
            "It returns None: the `return` is missing, or one path does not reach it.",
            case.words,
        )
    kind = type(expected).__name__
    if isinstance(expected, Tensor | np.ndarray) and not isinstance(yours, type(expected)):
        raise _Failure(f"Return a {kind}; yours is a {type(yours).__name__}.", case.words)
    expected, yours = as_numbers(expected), as_numbers(yours)
    if yours is None:
        raise _Failure(f"Return numbers, as a {kind}.", case.words)
    if yours.shape != expected.shape:
        raise _Failure(f"Return shape {expected.shape}; yours is {yours.shape}.", case.words)


def _check_values(
    exercise: Exercise, answer: Answer, cases: Sequence[Case], everywhere: bool
) -> None:
    for case in cases:
        expected = as_numbers(exercise.evaluate(exercise.reference, *copy.deepcopy(case.args)))
        yours = as_numbers(_try(exercise, answer, case))
        if yours is None or yours.shape != expected.shape:
            got = "something else" if yours is None else f"shape {yours.shape}"
            raise _Failure(f"Return shape {expected.shape}; here it is {got}.", case.words)
        wrong = ~np.isclose(yours, expected, rtol=0, atol=TOLERANCE)
        if exercise.interior is not None and not everywhere:
            wrong &= exercise.interior(*copy.deepcopy(case.args))
        if wrong.any():
            counted = f"{int(wrong.sum())} of {wrong.size} values are wrong. "
            message = counted + _probably(exercise, case, expected, yours, everywhere)
            raise _Failure(message, case.words, expected, yours)


def _probably(
    exercise: Exercise, case: Case, expected: Array, yours: Array, at_border: bool
) -> str:
    """The sentence of the first known wrong idea that gives the same wrong numbers."""
    for mistake in exercise.mistakes:
        try:
            same = as_numbers(exercise.evaluate(mistake.does, *copy.deepcopy(case.args)))
        except (
            IndexError,
            ValueError,
            RuntimeError,
        ):  # a wrong idea may not survive every case
            continue
        is_wrong_here = (
            same is not None and same.shape == yours.shape and not _close(same, expected)
        )
        if is_wrong_here and _close(same, yours):
            return mistake.says
    if at_border and exercise.interior is not None:
        return exercise.border_says
    return "It is none of the mistakes known here: compare the picture with the formula, bin by bin."


def _check_input(exercise: Exercise, answer: Answer, cases: Sequence[Case]) -> None:
    for case in cases:
        args = copy.deepcopy(case.args)
        exercise.evaluate(answer, *args)
        for before, after in zip(case.args, args, strict=True):
            if not np.array_equal(as_numbers(before), as_numbers(after)):
                raise _Failure(
                    "Your function changed its input. Write into a new array, not into x.",
                    case.words,
                )


def _check_extra(extra: Extra, answer: Answer) -> None:
    if message := extra.finds(answer):
        raise _Failure(message)


def _try(exercise: Exercise, answer: Answer, case: Case) -> Any:
    """The answer's result; an exception of its own becomes a failure with the line that raised
    it."""
    try:
        return exercise.evaluate(answer, *copy.deepcopy(case.args))
    except IndexError as error:
        raise _Failure(
            f"{_line_of(error, answer)}You read outside the tensor ({error}). Ask whether the place is "
            f"inside "
            "before you read; outside lies pad_value.",
            case.words,
        ) from None
    except Exception as error:
        raise _Failure(
            f"{_line_of(error, answer)}{type(error).__name__}: {error}", case.words
        ) from None


def _line_of(error: BaseException, answer: Answer) -> str:
    """ "Line 3 of your function. " if the error comes from there."""
    code = getattr(answer, "__code__", None)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if code and frame.filename == code.co_filename and frame.lineno:
            return f"Line {frame.lineno - code.co_firstlineno + 1} of your function. "
    return ""


def _close(one: Array, other: Array) -> bool:
    return bool(np.allclose(one, other, rtol=0, atol=TOLERANCE))


def as_numbers(value: Any) -> Any:
    """A float64 array of a tensor, array, number or nested list of numbers; None of anything
    else."""
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
