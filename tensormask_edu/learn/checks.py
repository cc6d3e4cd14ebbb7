"""How an answer is checked: calls from small to strange, stopping at the first that fails.

Each call is one of the cases that the exercise's grammar makes (`cases.py`), after one by hand.
What is wrong is told in this order, and nothing is told that was not tested:

    it raised, it changed its input, another kind or shape
    how many values are wrong, and whether only those where pad_value belongs
    where it read                                  (reading.py)
    the known mistake with the same numbers        (mutants.py)
    (more)  what one exercise asks on top: a view that shares memory, no large intermediate

What fits every exercise is said in `checks.md`.

next: learn/kinds/registry.py
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from .cases import Array, Case
from .told import another_shape, raised, wrong_values
from .trials import TOLERANCE, Answer, Exercise, Failure, Trial, attempt, right_trial


@dataclass(frozen=True)
class Verdict:
    """What a check found: what passed, and what was wrong in the case that failed.

    told: how much could be said of it: "mistake", "reading", "fact" or "unknown".
    place: the entry that the message speaks of.
    remarks: what is told of an answer that passes.
    """

    done: tuple[str, ...]
    stage: str = ""
    message: str = ""
    case: str = ""
    told: str = ""
    expected: Array | None = None
    yours: Array | None = None
    place: tuple[int, ...] = ()
    first_column: int = 0  # what the arrays' first column is called
    remarks: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing was wrong."""
        return not self.stage


# --- the check --------------------------------------------------------------------------------


def run(exercise: Exercise, answer: Answer) -> Verdict:
    """Check an answer; never raises because of it."""
    done: dict[str, None] = {}  # names in order, each once
    remarks = []
    for name, words, required, stage in _stages(exercise, answer):
        try:
            stage()
        except Failure as failure:
            if not required:
                remarks.append(exercise.says("remark", case=words, problem=failure.message))
                continue
            told = {"message": failure.message, "told": failure.told, **failure.arrays}
            return Verdict(tuple(done), name, case=words, **told)
        done[name] = None
    return Verdict(tuple(done), remarks=tuple(remarks))


def _stages(
    exercise: Exercise, answer: Answer
) -> Iterator[tuple[str, str, bool, Callable[[], None]]]:
    """(name, what is tried, whether it must pass, the check) of every case and extra."""
    for case in exercise.cases:
        stage = functools.partial(_check_case, exercise, answer, case)
        yield case.name, exercise.words(case), case.required, stage
    for name in exercise.extras:
        yield name, "", True, functools.partial(_check_extra, exercise, name, answer)


def _check_case(exercise: Exercise, answer: Answer, case: Case) -> None:
    expected, yours = right_trial(exercise, case), attempt(exercise, answer, case)
    if yours.error is not None:
        raise raised(exercise, answer, case, yours)
    if yours.changed:
        raise Failure(exercise.says("input changed", name=yours.changed))
    _check_kind(exercise, answer, case, expected, yours)
    wrong = ~np.isclose(yours.numbers, expected.numbers, rtol=0, atol=TOLERANCE)
    if wrong.any():
        raise wrong_values(exercise, answer, case, expected, yours, wrong)


def _check_kind(
    exercise: Exercise, answer: Answer, case: Case, expected: Trial, yours: Trial
) -> None:
    if yours.raw is None:
        raise Failure(exercise.says("nothing returned"))
    kind, your_kind = _kind_in_words(expected.raw), _kind_in_words(yours.raw)
    is_array = isinstance(expected.raw, Tensor | np.ndarray)
    if is_array and not isinstance(yours.raw, type(expected.raw)):
        raise Failure(exercise.says("another kind", expected=kind, yours=your_kind))
    if yours.numbers is None and yours.calls:
        raise Failure(exercise.says("no pairs", yours=yours.raw[0]))
    if yours.numbers is None:
        raise Failure(exercise.says("no numbers", expected=kind))
    if yours.numbers.shape != expected.numbers.shape:
        raise another_shape(exercise, answer, case, expected, yours)


def _kind_in_words(value: object) -> str:
    if isinstance(value, np.ndarray):
        return "an array"
    name = type(value).__name__
    return f"a{'n' * (name[0].lower() in 'aeiou')} {name}"


def _check_extra(exercise: Exercise, name: str, answer: Answer) -> None:
    try:
        numbers = exercise.extras[name](answer)
    except Exception as error:
        raise Failure(f"{type(error).__name__}: {error}", "unknown") from None
    if numbers is not None:
        raise Failure(exercise.says(f"extra: {name}", **numbers), "mistake")
