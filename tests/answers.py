"""Answers that learners might give, run against the checks: how many are caught and named.

    python tests/answers.py [FOLDER]     a table per file, and every answer with its message

A file of the folder holds functions (classes for modules) named EXERCISE__right__STYLE and
EXERCISE__wrong__IDEA. A docstring `says: WORDS` asks for words of the message.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensormask_edu.learn.kinds import EXERCISES

FOLDER = Path(__file__).with_name("answers")
SAYS = "says: "


@dataclass(frozen=True)
class Answered:
    """One answer and what its check found."""

    exercise: str
    is_right: bool
    idea: str
    wanted: str  # words that the message must hold
    verdict: Any

    @property
    def is_as_it_should_be(self) -> bool:
        """Whether a right one passed, a wrong one was caught."""
        return bool(self.verdict.passed) == self.is_right

    @property
    def is_unnamed(self) -> bool:
        """Whether a wrong one was caught without a word on what is wrong."""
        return not self.is_right and self.verdict.told == "unknown"


def answers_of(path: Path) -> Iterator[Answered]:
    """The answers of a file, checked.

    Raises ValueError for a name that is no answer to an exercise.
    """
    for name, answer in functions_of(path):
        exercise, kind, idea = name.split("__")
        if exercise not in EXERCISES:
            raise ValueError(f"{path.name}: {name} is no answer to an exercise")
        first = (answer.__doc__ or "").strip()
        wanted = first.removeprefix(SAYS) if first.startswith(SAYS) else ""
        verdict = EXERCISES[exercise].verdict(answer)
        yield Answered(exercise, kind == "right", idea, wanted, verdict)


def functions_of(path: Path) -> list[tuple[str, Any]]:
    """Name and function of every answer of a file."""
    spec = importlib.util.spec_from_file_location(f"answers_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # so that the source of its functions is found
    spec.loader.exec_module(module)
    return [
        (name, value)
        for name, value in vars(module).items()
        if re.fullmatch(r"\w+__(right|wrong)__\w+", name)
    ]


def files(folder: Path = FOLDER) -> list[Path]:
    """The files of answers."""
    return sorted(folder.glob("*.py"))


def main() -> None:
    """Print what became of every answer."""
    for path in files(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER):
        found = list(answers_of(path))
        wrong = [each for each in found if not each.is_right]
        caught = sum(each.is_as_it_should_be for each in wrong)
        refused = [each.idea for each in found if each.is_right and not each.is_as_it_should_be]
        told = {
            kind: sum(each.verdict.told == kind for each in wrong)
            for kind in ("mistake", "reading", "fact", "unknown")
        }
        print(f"{path.name}: {caught} of {len(wrong)} caught, refused {refused}, {told}")
        for each in found:
            mark = "  " if each.is_as_it_should_be and not each.is_unnamed else "! "
            what = "right" if each.is_right else "wrong"
            said = each.verdict.message or "passed"
            print(f"{mark}{each.exercise} {what} {each.idea}: [{each.verdict.stage}] {said}")


if __name__ == "__main__":
    main()
