"""Mistakes made from the right source: edits of one function, compiled again.

A lesson names its own mistakes in its text file, as edits. The common ones come free with every
exercise (`common.py`).

next: learn/reading.py
"""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .common import COMMON, OF_RESULTS, USUAL, Function, Rule
from .texts import Texts

Edits = Sequence[tuple[str, str]]
MISTAKE = "mistake: "


@dataclass(frozen=True, eq=False)
class Mistake:
    """A wrong version of an exercise's function.

    headings: of what to say about it.
    partly: only some of its edits were made: in one direction of two, say.
    """

    headings: tuple[str, ...]
    run: Function
    partly: bool = False


def source_of(function: Function) -> str:
    """A function's or a class's source without decorators, from the left margin."""
    source = textwrap.dedent(inspect.getsource(function))
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    return "\n".join(source.splitlines()[node.lineno - 1 :]) + "\n"


def compiled(source: str, original: Function) -> Function:
    """The function or class of a source, in the names that the original sees."""
    home = inspect.getmodule(original)
    names = dict(vars(home))
    exec(compile(source, f"<mistake in {original.__name__}>", "exec"), names)
    made: Function = names[original.__name__]
    return made


def edited(source: str, edits: Edits) -> str:
    """A source with pieces replaced, each everywhere it occurs.

    Raises ValueError for a piece that does not occur.
    """
    for old, new in edits:
        if old not in source:
            raise ValueError(f"edit: expected a piece of the source, got {old!r}")
        source = source.replace(old, new)
    return source


def mistakes(function: Function, texts: Texts) -> Iterator[Mistake]:
    """The known mistakes of an exercise: its own, whole and in part, then the common ones."""
    for heading, change, partly in _changes(texts):
        for source in change(source_of(function)):
            yield Mistake((heading,), compiled(source, function), partly)
    for name, wrap in OF_RESULTS.items():
        yield Mistake((MISTAKE + name,), wrap(function))


def two_at_once(function: Function, texts: Texts) -> Iterator[Mistake]:
    """Two usual mistakes together, where the second is still possible."""
    usual = [change for change in _changes(texts) if _is_usual(change)]
    for one, other in itertools.combinations(usual, 2):
        if one[0] == other[0]:
            continue
        for source in one[1](source_of(function)):
            for both in other[1](source):
                yield Mistake((one[0], other[0]), compiled(both, function))


Change = Callable[[str], list[str]]


def _is_usual(change: tuple[str, Change, bool]) -> bool:
    """A lesson's own, made whole, or one of the common ones that are made most."""
    heading, _, partly = change
    return not partly and heading.removeprefix(MISTAKE) not in set(COMMON) - USUAL


def _changes(texts: Texts) -> list[tuple[str, Change, bool]]:
    """(heading, what it makes of a source, whether in part)."""
    own = {heading: texts[heading].edits for heading in texts if heading.startswith(MISTAKE)}
    whole = [(heading, _editing(edits), False) for heading, edits in own.items() if edits]
    parts = [
        (heading, _editing(part), True)
        for heading, edits in own.items()
        for count in range(len(edits) - 1, 0, -1)
        for part in itertools.combinations(edits, count)
    ]
    return (
        whole
        + parts
        + [(MISTAKE + name, _ruling(rule), False) for name, rule in COMMON.items()]
    )


def _editing(edits: Edits) -> Change:
    def change(source: str) -> list[str]:
        return [edited(source, edits)] if all(old in source for old, _ in edits) else []

    return change


def _ruling(rule: Rule) -> Change:
    return lambda source: [ast.unparse(tree) for tree in rule(ast.parse(source))]
