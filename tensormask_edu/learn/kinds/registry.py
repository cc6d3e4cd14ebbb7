"""What every kind of exercise can do, and the list of all of them.

next: learn/kinds/function.py
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any, Protocol

from ..checks import Verdict
from ..texts import Texts, texts_beside


class Kind(Protocol):
    """What every kind of exercise can do."""

    @property
    def name(self) -> str: ...
    @property
    def lesson(self) -> str: ...
    @property
    def hints(self) -> tuple[str, ...]: ...
    def verdict(self, answer: Any) -> Verdict:
        """What is right and wrong about an answer."""
        ...

    def solution(self) -> str:
        """What to print for somebody who gives up."""
        ...


EXERCISES: dict[str, Any] = {}  # name -> Kind, in the order of declaration


def declare_kind(kind: Any) -> None:
    """Make an exercise known under its name, which must be new."""
    if kind.name in EXERCISES:
        raise ValueError(f"exercise: expected a new name, got {kind.name!r} again")
    EXERCISES[kind.name] = kind


def lesson_of(module: str) -> str:
    """The number in a module's name, `lesson_04`: "04"."""
    return module.rpartition("lesson_")[2]


@functools.cache
def _all_texts(path: Path) -> dict[str, Texts]:
    return texts_beside(path)


def texts_of(module: str, name: str) -> Texts:
    """The sentences of an exercise, from the file beside the module that declares it."""
    path = sys.modules[module].__file__
    assert path is not None
    found = _all_texts(Path(path))
    if name not in found:
        raise ValueError(f"{Path(path).with_suffix('.md').name}: has no section {name!r}")
    return found[name]


def hints_of(texts: Texts) -> tuple[str, ...]:
    """Up to three hints."""
    headings = (f"hint {number}" for number in (1, 2, 3))
    return tuple(texts[heading].words for heading in headings if heading in texts)
