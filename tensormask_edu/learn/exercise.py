"""What a learner calls: write a stub's body, check it, ask for hints, read a solution.

    @learn.exercise
    def nat2align(natural, pad_value=-6.0):
        ...

    learn.check(nat2align)      # or learn.check("nat2align")

A stub left as it is becomes the package's function and says so: "Run All" always reaches the
end. With the environment variable TENSORMASK_EDU_SOLUTIONS set, every stub becomes the
package's function *as an answer*: it is checked like one, and a failing check raises. The tests
run the lessons that way.

next: learn/explorer.py
"""

from __future__ import annotations

import difflib
import dis
import importlib
import inspect
import os
import pkgutil
import textwrap
from collections.abc import Callable
from typing import Any

from ..base.errors import bad_input
from . import lessons
from .checks import Verdict
from .kinds import EXERCISES, Explain, Kind, Loops, Module, Numbers, Predict, Unfolds

SOLUTIONS = "TENSORMASK_EDU_SOLUTIONS"
WIDTH = 100  # characters of a line that is printed in a notebook

# Importing a lesson's module declares its exercises.
for _found in pkgutil.iter_modules(lessons.__path__):
    importlib.import_module(f"{lessons.__name__}.{_found.name}")

_answers: dict[str, Any] = {}  # name -> the learner's last one, or what stands in
_untouched: set[str] = set()  # names for which the package stands in


# --- giving an answer -------------------------------------------------------------------------


def exercise(stub: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate an exercise's function or class, which has the exercise's name.

    One that is still untouched becomes the package's.

    Raises InputError if there is no exercise of that name.
    """
    found = _find(stub)
    if not isinstance(found, Loops | Module):
        raise bad_input("exercise", "one that is a function or a class", found.name)
    if not os.environ.get(SOLUTIONS) and not is_untouched(stub):
        _untouched.discard(found.name)
        _answers[found.name] = stub
        return stub
    answer = _package_version(found)
    _stand_in(found.name, answer)
    return answer


def numbers(name: str, **rows: Any) -> dict[str, Any]:
    """Fill in a table, a row per argument; three dots leave a row open.

    Returns the rows; where one is open, the package's number stands in.
    Raises InputError for another row, or a name that is no table.
    """
    found = _find(name)
    if not isinstance(found, Numbers):
        raise bad_input("name", "an exercise that is a table", name)
    right = found.reference()
    for row in rows:
        if row not in right:
            raise bad_input("row", f"one of {', '.join(right)}", row)
    is_open = all(rows.get(row, ...) is ... for row in right)
    if is_open or os.environ.get(SOLUTIONS):
        _stand_in(name, right)
    else:
        _untouched.discard(name)
        _answers[name] = rows
    return right | {row: value for row, value in rows.items() if value is not ...}


def predict(name: str, choice: Any = ...) -> None:
    """Choose what will come out, before the run; three dots leave it open.

    Raises InputError for a choice that is no option.
    """
    found = _find(name)
    if not isinstance(found, Predict):
        raise bad_input("name", "an exercise that is a choice", name)
    options = ", ".join(f'"{option}"' for option in found.options)
    if choice is not ... and choice not in found.options:
        raise bad_input("choice", f"one of {options}", repr(choice))
    _answers[name] = choice
    said = f"your choice is {choice}" if choice is not ... else f"choose one of {options}"
    print(f"{name}: {said}. Then run on.")


def explain(name: str, line: Any = ...) -> Any:
    """Write a conclusion in one line; ours can be unfolded below it then.

    Returns what to show: yours, and ours folded; None as long as there is none.
    """
    found = _find(name)
    if not isinstance(found, Explain):
        raise bad_input("name", "an exercise that is a line to write", name)
    if os.environ.get(SOLUTIONS):
        line = found.solution()
    if line is ... or not str(line).strip():
        print(f"{name}: write a line in place of the dots; ours unfolds then.")
        return None
    return Unfolds(f"Yours: {line}", "Ours", found.solution())


def _stand_in(name: str, answer: Any) -> None:
    _answers[name] = answer
    if os.environ.get(SOLUTIONS):
        _untouched.discard(name)
        return
    _untouched.add(name)
    print(f"{name}: not attempted yet, the package's own version stands in from here on.")


def _package_version(found: Any) -> Any:
    if isinstance(found, Module):
        return found.reference

    def answer(*args: Any, **kwargs: Any) -> Any:
        return found.reference(*args, **kwargs)

    answer.__name__, answer.__doc__ = found.name, found.reference.__doc__
    return answer


def is_untouched(stub: Any) -> bool:
    """Whether a stub's body is a docstring, `...` or `pass`, and no more; a class's `forward`.

    Such a body compiles to `return None`, in one instruction or two, by Python's version.
    """
    function = stub.__dict__.get("forward") if inspect.isclass(stub) else stub
    if function is None:
        return True
    marks = ("RESUME", "NOP")  # they do nothing
    steps = [step for step in dis.get_instructions(function) if step.opname not in marks]
    only_returns = ["LOAD_CONST", "RETURN_VALUE"], ["RETURN_CONST"]
    return [step.opname for step in steps] in only_returns and steps[0].argval is None


# --- what comes back --------------------------------------------------------------------------


def check(answer: Any, *measured: Any) -> Any:
    """Try an answer, from small to strange, and say what is wrong with it.

    Args:
        answer: the function, class or name of an exercise.
        measured: for a choice, what the run gave.

    Returns the picture expected / yours of the failing case, None if there is none.
    Raises InputError for an unknown name, or one whose cell has not run.
    """
    found = _find(answer)
    name = found.name
    if isinstance(found, Predict):
        _print(f"{name}: {found.compare(_answers.get(name, ...), *measured)}")
        return None
    given = _answers.get(name) if isinstance(answer, str) else answer
    if given is None:
        fix = "run the cell with its stub first"
        raise bad_input("answer", f"an answer to {name}", "none yet", fix)
    stands_in = _answers.get(name) is given and name in _untouched
    if stands_in:
        start = f'learn.hint("{name}", 1)'
        print(f"{name}: nothing to check yet. Write it above; for a start: {start}")
        return None
    verdict = found.verdict(given)
    _print(report(found, verdict))
    if os.environ.get(SOLUTIONS) and not verdict.passed:
        raise AssertionError(f"the package's own {name} fails its check")
    return _picture(found, verdict)


def report(found: Kind, verdict: Verdict) -> str:
    """A verdict in words."""
    done = ", ".join(name for name in verdict.done if name != verdict.stage)
    if verdict.passed:
        return "\n".join([f"{found.name}: correct.", f"Passed: {done}.", *verdict.remarks])
    lines = [f"{found.name}: not yet. Stopped at: {verdict.stage}."]
    if done:
        lines.append(f"Passed before: {done}.")
    if verdict.case:
        lines.append(f"The case: {verdict.case}")
    hint, solution = f'learn.hint("{found.name}", 1)', f'learn.solution("{found.name}")'
    lines += [verdict.message, f"More: {hint}, then 2, 3, then {solution}"]
    return "\n".join(lines)


def _print(text: str) -> None:
    for line in text.splitlines():
        print(textwrap.fill(line, WIDTH))


def _picture(found: Any, verdict: Verdict) -> Any:
    if verdict.expected is None or verdict.yours is None or verdict.expected.ndim < 2:
        return None  # a short result is told in words
    from ..viz.lessons import expected_and_yours

    expected, yours = verdict.expected, verdict.yours
    labels, first = found.axes_of_result, verdict.first_column
    try:
        return expected_and_yours(expected, yours, verdict.place, labels, first)
    except Exception as error:  # the words are out: a lesson must not end for its picture
        _print(f"(There is no picture of this: {error})")
        return None


def hint(answer: Any, number: int = 1) -> None:
    """Print hint 1, 2 or 3 of an exercise; each says more than the one before.

    answer: the function or its name.
    Raises InputError for another number or an unknown name.
    """
    found = _find(answer)
    if number not in range(1, len(found.hints) + 1):
        raise bad_input("number", f"a hint from 1 to {len(found.hints)}", number)
    text = f"{found.name}, hint {number} of {len(found.hints)}: {found.hints[number - 1]}"
    print(textwrap.fill(text, WIDTH))


def solution(answer: Any) -> None:
    """Print a solution of an exercise: the loops that it is checked against.

    answer: the function or its name.
    Raises InputError for an unknown name.
    """
    print(_find(answer).solution())


def _find(answer: Any) -> Any:
    """The exercise of a name, or of a function's or class's name."""
    name = answer if isinstance(answer, str) else getattr(answer, "__name__", repr(answer))
    if name not in EXERCISES:
        raise bad_input("exercise", _near(name), repr(name))
    return EXERCISES[name]


def _near(name: str) -> str:
    """Names like this one; else those of the lesson that is being worked on."""
    near = difflib.get_close_matches(name, EXERCISES, n=3)
    if near:
        return f"a name such as {' or '.join(near)}"
    here = {EXERCISES[given].lesson for given in list(_answers)[-1:]}
    names = [each.name for each in EXERCISES.values() if each.lesson in here]
    return f"one of {', '.join(names)}" if names else "the name of a lesson's exercise"
