"""Exercises in a notebook: write a stub's body, check it, ask for hints, read a solution.

    @learn.exercise
    def nat2align(x, pad_value=-6.0):
        ...

    learn.check(nat2align)

A stub left as it is becomes the package's function and says so: "Run All" always reaches the
end. With the environment variable TENSORMASK_EDU_SOLUTIONS set, every stub becomes the
package's function *as an answer*: it is checked like one, and a failing check raises. The tests
run the lessons that way.

next: learn/checks.py
"""

from __future__ import annotations

import dis
import importlib
import inspect
import os
import pkgutil
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from ..base.errors import bad_input
from . import lessons
from .checks import Exercise, Verdict, run

SOLUTIONS = "TENSORMASK_EDU_SOLUTIONS"
WIDTH = 100  # characters of a line that is printed in a notebook


def _of_all_lessons() -> Iterator[Exercise]:
    """The exercises of every module in lessons/, in the order of their names."""
    for found in pkgutil.iter_modules(lessons.__path__):
        yield from importlib.import_module(f"{lessons.__name__}.{found.name}").EXERCISES


EXERCISES: dict[str, Exercise] = {each.name: each for each in _of_all_lessons()}


def exercise(stub: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate an exercise's function, which has the exercise's name.

    One that is still untouched becomes the package's.

    Raises InputError if there is no exercise of that name.
    """
    found = _find(stub.__name__)
    if os.environ.get(SOLUTIONS):
        return _package_version(found)
    if not is_untouched(stub):
        return stub
    print(f"{found.name}: not attempted yet, the package's own version stands in from here on.")
    stand_in = _package_version(found)
    stand_in.is_stand_in = True  # type: ignore[attr-defined]
    return stand_in


def _package_version(found: Exercise) -> Callable[..., Any]:
    def answer(*args: Any, **kwargs: Any) -> Any:
        return found.reference(*args, **kwargs)

    answer.__name__, answer.__doc__ = found.name, found.reference.__doc__
    return answer


def is_untouched(function: Callable[..., Any]) -> bool:
    """Whether a function's body is a docstring, `...` or `pass`, and no more.

    Such a body compiles to `return None`, in one instruction or two, by Python's version.
    """
    marks = ("RESUME", "NOP")  # they do nothing
    steps = [step for step in dis.get_instructions(function) if step.opname not in marks]
    only_returns = ["LOAD_CONST", "RETURN_VALUE"], ["RETURN_CONST"]
    return [step.opname for step in steps] in only_returns and steps[0].argval is None


def check(answer: Callable[..., Any]) -> Any:
    """Try an answer, from simple to hard, and say which idea is probably wrong.

    It stops at the first failure. Returns the picture expected / yours / difference of the
    failing case, None if there is none.
    """
    name = answer.__name__
    found = _find(name)
    if getattr(answer, "is_stand_in", False):
        start = f'learn.hint("{name}", 1)'
        print(f"{name}: nothing to check yet. Write it above; for a start: {start}")
        return None
    verdict = run(found, answer)
    for line in report(found, verdict).splitlines():
        print(textwrap.fill(line, WIDTH))
    if os.environ.get(SOLUTIONS) and not verdict.passed:
        raise AssertionError(f"the package's own {name} fails its check")
    return _picture(verdict)


def report(found: Exercise, verdict: Verdict) -> str:
    """A verdict in words."""
    done = ", ".join(verdict.done)
    if verdict.passed:
        return f"{found.name}: correct.\nPassed: {done}."
    lines = [f"{found.name}: not yet. Stopped at: {verdict.stage}."]
    if done:
        lines.append(f"Passed before: {done}.")
    if verdict.case:
        lines.append(f"The case: {verdict.case}")
    hint, solution = f'learn.hint("{found.name}", 1)', f'learn.solution("{found.name}")'
    lines += [verdict.message, f"More: {hint}, then 2, 3, then {solution}"]
    return "\n".join(lines)


def _picture(verdict: Verdict) -> Any:
    if verdict.expected is None or verdict.yours is None:
        return None
    from ..viz.lessons import expected_and_yours

    return expected_and_yours(verdict.expected, verdict.yours, verdict.tolerance)


def hint(name: str, number: int) -> None:
    """Print hint 1, 2 or 3 of an exercise; each says more than the one before.

    Raises InputError for another number or an unknown name.
    """
    hints = _find(name).hints
    if number not in range(1, len(hints) + 1):
        raise bad_input("number", f"a hint from 1 to {len(hints)}", number)
    text = f"{name}, hint {number} of {len(hints)}: {hints[number - 1]}"
    print(textwrap.fill(text, WIDTH))


def solution(name: str) -> None:
    """Print the package's own source for an exercise: one solution, stored in one place.

    Raises InputError for an unknown name.
    """
    for function in _find(name).shown:
        print(f"# {function.__module__}")
        print(inspect.getsource(function))


def _find(name: str) -> Exercise:
    if name not in EXERCISES:
        raise bad_input("exercise", f"one of {', '.join(EXERCISES)}", repr(name))
    return EXERCISES[name]
