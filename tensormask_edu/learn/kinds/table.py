"""A table of numbers to fill in, each to a tolerance.

next: learn/kinds/network.py
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ..checks import Verdict
from ..mutants import Mistake, mistakes, source_of
from ..texts import Texts
from ..trials import says
from .registry import declare_kind, hints_of, lesson_of, texts_of

Declared = TypeVar("Declared")
Rows = tuple[str, ...]


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
        wrong = {row: given[row] for row in right if row not in (*good, *open_rows)}
        no_numbers = [row for row, value in wrong.items() if _gap(value, 0) == float("inf")]
        parts = [f"{row} is not a number: {wrong.pop(row)!r}." for row in no_numbers]
        ideas = self._ideas(given, wrong)
        for rows, idea in ideas.items():
            about = ", ".join(self._about(row, given[row]) for row in rows)
            parts.append(f"{about}. {idea}".strip())
        parts += [f"{row} is still open." for row in open_rows]
        told = "mistake" if any(ideas.values()) else "fact"
        return Verdict(tuple(good), "the table", " ".join(parts), told=told)

    def _is_right(self, row: str, value: Any) -> bool:
        return bool(_gap(value, self.reference()[row]) <= self.tolerances[row])

    def _about(self, row: str, value: Any) -> str:
        side = "too large" if float(value) > self.reference()[row] else "too small"
        return f"{row} = {value} is {side}"

    def _ideas(self, given: Mapping[str, Any], wrong: Iterable[str]) -> dict[Rows, str]:
        """What is wrong with rows, each sentence once: first what explains most of them."""
        left, ideas = list(wrong), {}
        known = list(mistakes(self.reference, self.texts))
        whole = [each for each in known if not each.partly]
        while found := (
            self._explained(whole, given, left)
            or self._changed_places(given, left)
            or self._explained(known, given, left)
            or self._explained(known, given, left, elsewhere_right=True)
        ):
            ideas[found[0]] = found[1]
            left = [row for row in left if row not in found[0]]
        by_idea: dict[str, Rows] = {}
        for row in left:
            idea = self._sign_or_factor(row, float(given[row]))
            by_idea[idea or row] = (*by_idea.get(idea or row, ()), row)
        return ideas | {rows: "" if idea in rows else idea for idea, rows in by_idea.items()}

    def _explained(
        self,
        known: Sequence[Mistake],
        given: Mapping[str, Any],
        left: Sequence[str],
        elsewhere_right: bool = False,
    ) -> tuple[Rows, str] | None:
        """The rows of the mistake that explains most, and its sentence.

        elsewhere_right: it may be made in some of its rows, the others being right.
        """
        most: tuple[Rows, str] | None = None
        for mistake in known:
            found = self._given_by(mistake, given, elsewhere_right)
            rows = tuple(row for row in found if row in left)
            # One whole number alone is that of some edit by chance too often
            is_likely = len(rows) > 1 or any(given[row] % 1 for row in rows)
            by_chance = (mistake.partly or elsewhere_right) and not is_likely
            if not by_chance and len(rows) > len(most[0] if most else ()):
                most = rows, says(self.texts, mistake.headings[0])
        return most

    def _given_by(
        self, mistake: Mistake, given: Mapping[str, Any], elsewhere_right: bool
    ) -> list[str]:
        """The wrong rows that a mistake gives.

        None if it makes wrong a row that is right, unless it may be right elsewhere.
        """
        try:
            known = mistake.run()
            rows = [row for row in self.reference() if not self._is_right(row, known[row])]
        except Exception:
            return []  # a mistake may not run, or not give the row
        if not elsewhere_right and any(self._is_right(row, given.get(row)) for row in rows):
            return []
        return [row for row in rows if _gap(given.get(row), known[row]) <= self.tolerances[row]]

    def _changed_places(
        self, given: Mapping[str, Any], left: Sequence[str]
    ) -> tuple[Rows, str] | None:
        """Two rows that hold each other's right value."""
        right = self.reference()
        for one, other in itertools.combinations(left, 2):
            if self._is_right(one, given[other]) and self._is_right(other, given[one]):
                if right[one] != right[other]:
                    words = says(self.texts, "rows changed places", one=one, other=other)
                    return (one, other), words
        return None

    def _sign_or_factor(self, row: str, value: float) -> str:
        """What the number itself tells; else ""."""
        if self._is_right(row, -value):
            return says(self.texts, "sign of a row")
        for factor in range(2, 11):  # of whole numbers the ratio is one by chance too often
            if value % 1 and any(
                self._is_right(row, v) for v in (value * factor, value / factor)
            ):
                return says(self.texts, "factor of a row", factor=factor)
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
