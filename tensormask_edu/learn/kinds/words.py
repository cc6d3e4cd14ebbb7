"""A choice before a run, a line after it: nobody grades them.

next: learn/exercise.py
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...base.errors import bad_input
from ..texts import Texts
from .registry import declare_kind, hints_of, lesson_of, texts_of


@dataclass(frozen=True, eq=False)
class Predict:
    """A choice that is made before a run and compared after it; no choice is wrong.

    outcome: from what the run measured to the option that came out.
    """

    name: str
    lesson: str
    texts: Texts
    options: tuple[str, ...]
    outcome: Callable[..., str]

    @property
    def hints(self) -> tuple[str, ...]:
        """Up to three."""
        return hints_of(self.texts)

    def compare(self, choice: Any, *measured: Any) -> str:
        """What came out, beside what was chosen, and what it means."""
        came = self.outcome(*measured)
        if came not in self.options:
            raise bad_input("outcome", f"one of {', '.join(self.options)}", came)
        if choice is ...:
            first = f"No choice was made. It came out: {came}."
        elif choice == came:
            first = f"As you said: {came}."
        else:
            first = f"You said: {choice}. It came out: {came}."
        return f"{first} {self.texts[f'outcome: {came}'].words}"

    def solution(self) -> str:
        """What the outcomes mean."""
        told = (
            f"{option}: {self.texts[f'outcome: {option}'].words}" for option in self.options
        )
        return "\n".join(told)


def predict(name: str, options: Sequence[str], outcome: Callable[..., str]) -> Predict:
    """Declare a choice; its text file says what each outcome means, `outcome: OPTION`."""
    module_name = outcome.__module__
    texts = texts_of(module_name, name)
    declared = Predict(name, lesson_of(module_name), texts, tuple(options), outcome)
    declare_kind(declared)
    return declared


@dataclass(frozen=True, eq=False)
class Explain:
    """A conclusion in one line, beside ours; nobody grades it."""

    name: str
    lesson: str
    texts: Texts

    @property
    def hints(self) -> tuple[str, ...]:
        """Up to three."""
        return hints_of(self.texts)

    def solution(self) -> str:
        """Our line."""
        return self.texts["ours"].words


class Unfolds:
    """Text that shows a line and unfolds another, in a notebook and without one."""

    def __init__(self, line: str, summary: str, folded: str) -> None:
        self.line, self.summary, self.folded = line, summary, folded

    def __repr__(self) -> str:
        return f"{self.line}\n{self.summary}: {self.folded}"

    def _repr_html_(self) -> str:
        line, summary, folded = map(html.escape, (self.line, self.summary, self.folded))
        return f"<p>{line}</p><details><summary>{summary}</summary><p>{folded}</p></details>"


def explain(name: str, module_name: str) -> Explain:
    """Declare a line to write: `explain("why", __name__)`; ours stands under `ours`."""
    declared = Explain(name, lesson_of(module_name), texts_of(module_name, name))
    declare_kind(declared)
    return declared
