"""A function to write: its loops are reference, solution and source of mistakes.

next: learn/kinds/table.py
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ..cases import Case, arguments_in_words, case_of, cases, parse
from ..checks import Verdict, run
from ..mutants import source_of
from ..trials import Answer, Demand, Exercise
from .registry import declare_kind, lesson_of, texts_of

Declared = TypeVar("Declared")


@dataclass(frozen=True, eq=False)
class Loops(Exercise):
    """An exercise of a function: see `checks.Exercise`."""

    def verdict(self, answer: Any) -> Verdict:
        """What `checks.run` finds."""
        return run(self, answer)

    def solution(self) -> str:
        """The loops."""
        return source_of(self.reference)


def loops(
    grammar: str,
    *,
    by_hand: tuple[Any, ...] | None = None,
    sizes: Mapping[str, Sequence[int]] | None = None,
    more: Sequence[Case] = (),
    same_as: Answer | None = None,
    extras: Mapping[str, Demand] | None = None,
    tensors: bool = False,
) -> Callable[[Declared], Declared]:
    """Declare a function as an exercise: it is reference, solution and source of mistakes.

    Args:
        grammar: what its arguments are, see `cases.py`.
        by_hand: arguments of a small first case, whose words are `case: by hand`.
        sizes: letter of the grammar -> values that take turns; of v, u, h, w and n there are.
        more: cases that the grammar does not make.
        same_as: the package's own function, with the same arguments.
        extras: demands of this exercise alone, see `checks.Exercise`.
        tensors: whether arrays are torch tensors.
    """

    def declare(function: Any) -> Any:
        name, module = function.__name__, function.__module__
        parameters = tuple(inspect.signature(function).parameters)
        parsed = parse(grammar)
        tried = list(cases(parsed, parameters, sizes or {}, tensors))
        if by_hand is not None:
            words = arguments_in_words(parameters, by_hand)
            tried.insert(0, case_of("by hand", by_hand, arguments=words))
        texts = texts_of(module, name)
        all_cases = (*tried, *more)
        lesson = lesson_of(module)
        declare_kind(
            Loops(name, lesson, texts, function, parsed, all_cases, same_as, extras or {})
        )
        return function

    return declare
