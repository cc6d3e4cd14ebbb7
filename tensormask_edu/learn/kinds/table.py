"""A table of numbers to fill in, each to a tolerance.

next: learn/kinds/network.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ..checks import Verdict
from ..mutants import mistakes, source_of
from ..texts import Texts
from ..trials import says
from .registry import declare_kind, hints_of, lesson_of, texts_of

Declared = TypeVar("Declared")


@dataclass(frozen=True, eq=False)
class Numbers:
    """A table to fill in.

    reference: gives the right rows, from no argument; mistakes are edits of its source.
    tolerances: row -> how far from right is still right.
    """

    name: str
    lesson: str
    texts: Texts
    reference: Callable[[], dict[str, float]]
    tolerances: Mapping[str, float]

    @property
    def hints(self) -> tuple[str, ...]:
        """Up to three."""
        return hints_of(self.texts)

    def verdict(self, answer: Any) -> Verdict:
        """Which rows are right, and what is known of those that are not."""
        right, given = self.reference(), dict(answer)
        open_rows = [row for row in right if given.get(row, ...) is ...]
        good = [
            row for row in right if row not in open_rows and self._is_right(row, given[row])
        ]
        if len(good) == len(right):
            return Verdict(tuple(right))
        wrong = [row for row in right if row not in (*good, *open_rows)]
        parts = [self._about(row, given[row], right[row]) for row in wrong]
        parts += [f"{row} is still open." for row in open_rows]
        named = any(self._mistake(row, given[row]) for row in wrong)
        told = "mistake" if named else "fact"
        return Verdict(tuple(good), "the table", " ".join(parts), told=told)

    def _is_right(self, row: str, value: Any) -> bool:
        return bool(_gap(value, self.reference()[row]) <= self.tolerances[row])

    def _about(self, row: str, value: Any, right: float) -> str:
        try:
            side = "too large" if float(value) > right else "too small"
        except (TypeError, ValueError):
            return f"{row} is not a number: {value!r}."
        idea = self._mistake(row, value)
        return f"{row} = {value} is {side}." + (f" {idea}" if idea else "")

    def _mistake(self, row: str, value: Any) -> str:
        for mistake in mistakes(self.reference, self.texts):
            try:
                known = mistake.run()[row]
            except Exception:
                continue  # a mistake may not run, or not give the row
            if not self._is_right(row, known) and _gap(value, known) <= self.tolerances[row]:
                return says(self.texts, mistake.headings[0])
        return ""

    def solution(self) -> str:
        """The function that gives the rows."""
        return source_of(self.reference)


def _gap(value: Any, other: float) -> float:
    try:
        gap = abs(float(value) - other)
    except (TypeError, ValueError):
        return float("inf")
    return float("inf") if gap != gap else gap


def numbers(tolerances: Mapping[str, float]) -> Callable[[Declared], Declared]:
    """Declare a function without arguments that gives a table: row -> number.

    tolerances: row -> how far from right is still right; in the order of the table.
    """

    def declare(function: Any) -> Any:
        texts = texts_of(function.__module__, function.__name__)
        lesson = lesson_of(function.__module__)
        declare_kind(Numbers(function.__name__, lesson, texts, function, dict(tolerances)))
        return function

    return declare
