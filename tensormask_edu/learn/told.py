"""What is said of wrong values and of exceptions: where it read, then which mistake it is.

Nothing is said that was not tested: a known mistake is named if it gives the answer's numbers
in every case, and where it does so in the failing case alone, that is said with it.

next: learn/checks.py
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import textwrap
import traceback
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

import numpy as np
from torch import Tensor

from .cases import Array, Case
from .mutants import Mistake, mistakes, two_at_once
from .reading import where_it_read
from .shrinking import smallest_failing
from .trials import (
    FURTHEST,
    TOLERANCE,
    Answer,
    Exercise,
    Failure,
    Trial,
    as_numbers,
    attempt,
    right_trial,
)

FEW = 6  # numbers of an argument or a result that are told as they are
LONGEST = 240  # letters of a call that is told with its results
TELLING = 3  # different values of a result: fewer agree by chance
MOSTLY = (
    2 / 3
)  # of the cases that fail: a mistake that explains as many is told, with the count


# --- wrong values -----------------------------------------------------------------------------


def wrong_values(
    exercise: Exercise, answer: Answer, case: Case, expected: Trial, yours: Trial, wrong: Array
) -> Failure:
    """What to say of wrong values, and the arrays to draw.

    wrong: where yours is not what was expected.
    """
    inside = _inside(exercise, case, expected)
    # A value read at another place tells most, then one that is missing, then a border.
    pad = case.make()[-1] if exercise.grammar.parts[-1].kind == "pad" else np.nan
    among = (wrong & inside & (yours.numbers != pad), wrong & inside, wrong)
    place = _worst(expected.numbers, yours.numbers, next(part for part in among if part.any()))
    counts = {"wrong": int(wrong.sum()), "all": wrong.size}
    where = "wrong at the border" if not (wrong & inside).any() else "wrong values"
    read = _one_result(exercise, case, expected, yours, place) or where_it_read(
        exercise.parameters,
        case.make(),
        _as_run(exercise.reference),
        _as_run(answer),
        place,
    )
    idea = _known_mistake(exercise, answer, case, yours)
    told = "mistake" if idea else "reading" if read else "unknown"
    counted = not yours.calls and wrong.size > 1
    parts = [exercise.says(where, **counts) if counted else "", read, idea]
    if not (read or idea):
        told, said = _of_a_smaller_call(exercise, answer, case)
        parts += said or [_one_value(exercise, expected, yours, place)]
    message = " ".join(part for part in parts if part)
    arrays: dict[str, Any] = {"expected": expected.numbers, "yours": yours.numbers}
    arrays |= {"place": place}
    if yours.calls:
        arrays = _crop(expected.numbers, yours.numbers, place)
    return Failure(message, told, **arrays)


def _of_a_smaller_call(exercise: Exercise, answer: Answer, case: Case) -> tuple[str, list[str]]:
    """How much a small call that fails tells, and what to say of it; nothing if none does."""
    args = smallest_failing(exercise, answer, case)
    if args is None:
        return "unknown", []
    call = _told_call(exercise, args, answer(*args), exercise.reference(*args))
    if len(call) > LONGEST:
        return "unknown", []
    return "reading", [exercise.says("smaller call", call=call)]


def _one_value(
    exercise: Exercise, expected: Trial, yours: Trial, place: tuple[int, ...]
) -> str:
    """One value of the result that is wrong, and what to do without a name for the mistake."""
    values = {"expected": expected.numbers[place], "yours": yours.numbers[place]}
    if not place:
        return exercise.says("another number", **values)
    next_step = "unknown mistake" if len(place) > 1 else "unknown mistake in a list"
    one = exercise.says("another value", place=list(place), **values)
    return f"{one} {exercise.says(next_step)}"


def another_shape(
    exercise: Exercise, answer: Answer, case: Case, expected: Trial, yours: Trial
) -> Failure:
    """What to say of a result of another shape, and which known mistake gives it."""
    shapes = {"expected": expected.numbers.shape, "yours": yours.numbers.shape}
    read = "" if yours.calls else _one_result(exercise, case, expected, yours, ())
    idea = _known_mistake(exercise, answer, case, yours)
    message = " ".join([exercise.says("another shape", **shapes), read, idea])
    told = "mistake" if idea else "reading" if read else "fact"
    return Failure(" ".join(message.split()), told)


def _inside(exercise: Exercise, case: Case, expected: Trial) -> Array:
    """Where no pad value counts: where another pad gives the same."""
    everywhere = np.ones(expected.numbers.shape, bool)
    if exercise.grammar.parts[-1].kind != "pad":
        return everywhere
    other = (*case.make()[:-1], case.make()[-1] - 1)
    moved: Array = as_numbers(exercise.reference(*other)) == expected.numbers
    return moved


def _worst(expected: Array, yours: Array, among: Array) -> tuple[int, ...]:
    """The entry with the largest difference; one that is no number is worse than any."""
    gap = np.where(among, np.abs(yours - expected), -1.0)
    gap[np.isnan(gap)] = np.inf
    return tuple(int(i) for i in np.unravel_index(gap.argmax(), gap.shape))


def _one_result(
    exercise: Exercise, case: Case, expected: Trial, yours: Trial, place: tuple[int, ...]
) -> str:
    """A call and its results in full, where they are short enough."""
    if yours.calls:
        args, given = yours.calls[place[0]]
        wanted = expected.calls[place[0]][1]
    elif expected.numbers.size <= FEW and not any(map(_is_long, case.make())):
        args, given, wanted = case.make(), yours.raw, expected.raw
    else:
        return ""
    return _told_call(exercise, args, given, wanted)


def _told_call(exercise: Exercise, args: tuple[Any, ...], given: Any, wanted: Any) -> str:
    call = f"{exercise.name}({', '.join(map(_argument, args))})"
    return f"{call} gave {_short(given)}, expected {_short(wanted)}."


def _argument(value: Any) -> str:
    """An argument; of many zeros the shape is all there is to say."""
    are_zeros = isinstance(value, np.ndarray) and not value.any() and _is_long(value)
    return f"zeros{value.shape}" if are_zeros else _short(value)


def _is_long(value: Any) -> bool:
    """Whether an argument is more than a few numbers."""
    return isinstance(value, np.ndarray | Tensor) and len(as_numbers(value).ravel()) > FEW


def _short(value: Any) -> str:
    """A result without types and endless digits; bool as 0 and 1."""
    if isinstance(value, np.ndarray | Tensor):
        value = (value * 1).tolist()
    if isinstance(value, list | tuple):
        inside = ", ".join(map(_short, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    return f"{value:.6g}" if isinstance(value, float) and abs(value) < 1e5 else str(value)


def _as_run(answer: Answer) -> Callable[[tuple[Any, ...]], Any]:
    def run(args: tuple[Any, ...]) -> Any:
        try:
            return as_numbers(answer(*args))
        except Exception:
            return None

    return run


def _crop(expected: Array, yours: Array, place: tuple[int, ...]) -> dict[str, Any]:
    """Of rows of weights the entries that either uses, and one more on both sides."""
    used = np.flatnonzero((expected != 0).any(0) | (yours != 0).any(0))
    low, high = max(used[0] - 1, 0), used[-1] + 2
    return {
        "expected": expected[:, low:high],
        "yours": yours[:, low:high],
        "place": (place[0], int(place[1] - low)),
        "first_column": int(low) - FURTHEST,
    }


# --- known mistakes ---------------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def known_mistakes(exercise: Exercise) -> tuple[Mistake, ...]:
    """The mistakes of an exercise, the preferred ones first."""
    return tuple(mistakes(exercise.reference, exercise.texts))


@functools.lru_cache(maxsize=64)
def _known_pairs(exercise: Exercise) -> tuple[Mistake, ...]:
    return tuple(two_at_once(exercise.reference, exercise.texts))


def _singles_then_pairs(exercise: Exercise) -> Iterator[Mistake]:
    yield from known_mistakes(exercise)
    yield from _known_pairs(exercise)


@functools.lru_cache(maxsize=4096)
def _mistake_trial(exercise: Exercise, mistake: Mistake, case: Case) -> Trial:
    return attempt(exercise, mistake.run, case)


def _known_mistake(exercise: Exercise, answer: Answer, case: Case, yours: Trial) -> str:
    """What to say of the known mistake that gives the same in every case; else ""."""
    mine = functools.cache(lambda other: attempt(exercise, answer, other))
    others = [each for each in exercise.cases if each is not case and each.required]
    mostly = ""
    for mistake in _singles_then_pairs(exercise):
        if not _same(_mistake_trial(exercise, mistake, case), yours):
            continue
        differ = [
            other
            for other in others
            if not _same(_mistake_trial(exercise, mistake, other), mine(other))
        ]
        if not differ:
            return _sentence(exercise, mistake)
        if not mostly and not yours.error and len(mistake.headings) == 1:
            mostly = _in_most_cases(exercise, mistake, (case, *others), differ, mine)
    return mostly


def _in_most_cases(
    exercise: Exercise,
    mistake: Mistake,
    cases: tuple[Case, ...],
    differ: list[Case],
    mine: Callable[[Case], Trial],
) -> str:
    """What to say of a mistake that gives the same in most of the cases that fail; else "".

    Two results of one number, or of 0 and 1 alone, are the same by chance too often; and a
    mistake that also fails where the answer is right has to explain all that is wrong.
    """
    right = {each: right_trial(exercise, each) for each in cases}
    wrong = [each for each in cases if not _same(mine(each), right[each])]
    alike = [each for each in wrong if each not in differ]
    tells = any(len(np.unique(mine(each).numbers)) >= TELLING for each in alike)
    either = len(wrong) + sum(each not in wrong for each in differ)
    is_all = len(alike) == len(wrong) > 2
    if not tells or not (is_all or len(alike) >= MOSTLY * either):
        return ""
    counts = exercise.says("mostly", alike=len(alike), all=len(wrong))
    return f"{counts} {_sentence(exercise, mistake)}"


def _sentence(exercise: Exercise, mistake: Mistake) -> str:
    sentences = [exercise.says(heading) for heading in mistake.headings]
    if len(sentences) > 1:
        sentences.insert(0, exercise.says("two at once"))
    if mistake.partly:
        sentences.append(exercise.says("in part"))
    return " ".join(sentences)


def _same(one: Trial, other: Trial) -> bool:
    """Whether two trials raised the same, or gave the same numbers and wrote into the same."""
    if one.error is not None or other.error is not None:
        return _without_numbers(one.error) == _without_numbers(other.error)
    if one.numbers is None or other.numbers is None or one.changed != other.changed:
        return False
    return one.numbers.shape == other.numbers.shape and np.allclose(
        one.numbers, other.numbers, rtol=0, atol=TOLERANCE, equal_nan=True
    )


# Words of NumPy's and PyTorch's errors about two shapes
SHAPES_MEET = (
    "broadcast",
    "equal size",
    "must match the size",
    "must match the existing size",
    "Sizes of tensors",
    "multiply up",
)


def _without_numbers(error: Exception | None) -> str:
    """An error's kind and words: two with other indices, or two about shapes, are the same."""
    if any(of_shapes in str(error) for of_shapes in SHAPES_MEET):
        return "shapes"
    return re.sub(r"-?\d+", "#", f"{type(error).__name__} {error}")


# --- what was raised --------------------------------------------------------------------------


def raised(exercise: Exercise, answer: Answer, case: Case, yours: Trial) -> Failure:
    """What to say of an exception."""
    error = yours.error
    assert error is not None
    idea = _known_mistake(exercise, answer, case, yours) or _about(exercise, answer, error)
    words = f"{type(error).__name__}: {error}".rstrip(".")
    message = f"{_line_of(error, answer)}{words}. {idea}".strip()
    return Failure(message, "mistake" if idea else "unknown")


def _about(exercise: Exercise, answer: Answer, error: Exception) -> str:
    """What can be said of an error from its words and the answer's source; else ""."""
    words = str(error)
    taken = _taken_names(answer)
    if taken and isinstance(error, TypeError | AttributeError | IndexError):
        return exercise.says("name taken", name=taken[0], line=taken[1])
    if isinstance(error, IndexError) and "with size 0" in words:
        return exercise.says("empty array")
    if isinstance(error, IndexError) and "out of " in words:  # "... bounds", "... range"
        asks = "0 <= " in inspect.getsource(exercise.reference)
        return exercise.says("outside" if asks else "index too far")
    if "bounds for storage" in words:
        return exercise.says("beyond the memory")
    whole = "only integers" in words or "cannot be interpreted as an integer" in words
    if isinstance(error, IndexError | TypeError) and (whole or "slice indices" in words):
        return exercise.says("no whole index")
    if any(of_shapes in words for of_shapes in SHAPES_MEET):
        return exercise.says("shapes meet")
    return ""


def _taken_names(answer: Answer) -> tuple[str, int] | None:
    """A parameter that the answer gives to something else in a loop, and in which line."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(answer))).body[0]
    except (OSError, TypeError, SyntaxError):
        return None
    parameters = set(inspect.signature(answer).parameters)
    first = getattr(answer, "__code__", None)
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.comprehension):
            for name in ast.walk(node.target):
                if isinstance(name, ast.Name) and name.id in parameters and first:
                    return name.id, name.lineno
    return None


def _line_of(error: BaseException, answer: Answer) -> str:
    """Where in the answer an error comes from: "Line 3 of your function. "; else ""."""
    code = getattr(answer, "__code__", None)
    if not isinstance(code, CodeType):
        return ""
    lines = [
        line
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code is code  # not a helper of the same file
    ]
    return f"Line {lines[-1] - code.co_firstlineno + 1} of your function. " if lines else ""
