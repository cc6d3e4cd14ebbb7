"""The course, from the front matter of its lessons: table, map, first and last lines.

Every lesson's text, `src/NN_name.py`, begins with what is known of it:

    #   lesson:
    #     title: Two ways to file a mask
    #     asks: natural or aligned?                     for tables
    #     question: A network must store ...            for the lesson itself
    #     needs: PyTorch and NumPy, nothing of TensorMask.
    #     minutes: 60                                   to work through it
    #     seconds: 10                                   to run it
    #     objectives: [say where any mask value lives, ...]
    #     exercises: [window_mask, nat2align]

Nothing else lists the lessons: the site's menu and table, the map in lesson 00, previous and
next, and the tests are made from this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

FOLDER = Path(__file__).resolve().parent
# What a text may hold in the place of lines that are made here.
HEAD, LAST, MAP = "{{ head }}", "{{ last }}", "{{ map }}"


@dataclass(frozen=True)
class Lesson:
    """A lesson's front matter. twin: its text."""

    twin: Path
    title: str
    asks: str
    question: str
    needs: str
    minutes: int
    seconds: int
    objectives: Sequence[str]
    exercises: Sequence[str]

    @property
    def number(self) -> str:
        """Two digits, "04"."""
        return self.twin.stem[:2]

    @property
    def name(self) -> str:
        """Number and title."""
        return f"{self.number} {self.title}"

    def link(self, folder: str = "") -> str:
        """A Markdown link to the notebook."""
        return f"[{self.name}]({folder}{self.twin.stem}.ipynb)"


def lessons(folder: Path = FOLDER / "src") -> list[Lesson]:
    """All lessons that are written, in order."""
    return [lesson_of(twin) for twin in sorted(folder.glob("*.py"))]


def lesson_of(twin: Path) -> Lesson:
    """A lesson from the front matter of its text.

    Raises ValueError for a key that is missing or unknown.
    """
    lines = twin.read_text(encoding="utf-8").split("# ---\n")[1].splitlines()
    front = yaml.safe_load("\n".join(line.removeprefix("# ") for line in lines))
    try:
        return Lesson(twin, **front["jupyter"]["lesson"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{twin.name}: front matter: {error}") from None


def table(folder: str = "") -> str:
    """All lessons as a Markdown table.

    folder: where the notebooks lie, seen from the page.
    """
    head = "| lesson | question | exercises | work |\n|---|---|---|---|"
    return "\n".join([head, *(_row(each, folder) for each in lessons())])


def _row(lesson: Lesson, folder: str) -> str:
    exercises = len(lesson.exercises) or "–"
    minutes = f"{lesson.minutes}\N{NO-BREAK SPACE}min"
    return f"| {lesson.link(folder)} | {lesson.asks} | {exercises} | {minutes} |"


def head(lesson: Lesson) -> str:
    """The first lines of a lesson: title, question, what it takes and what it gives."""
    takes = f"To run: {lesson.seconds} seconds."
    if lesson.exercises:
        plural = "s" * (len(lesson.exercises) > 1)
        exercises = f"{len(lesson.exercises)} exercise{plural}"
        takes += f" To work through with the {exercises}: {lesson.minutes} minutes."
    parts = [f"# {lesson.name}", f"**The question:** {lesson.question}"]
    parts.append(f"*You need:* {lesson.needs} *{takes}*")
    if lesson.objectives:
        goals = "\n".join(f"> - {goal}" for goal in lesson.objectives)
        parts.append(f"> **After this lesson you can**\n>\n{goals}")
    return "\n\n".join(parts)


def last(lesson: Lesson) -> str:
    """The last line of a lesson: the one before, the one after, the glossary."""
    order = lessons()
    place = [each.twin for each in order].index(lesson.twin)
    parts = []
    if place:
        parts.append(f"**Before:** {order[place - 1].link()}")
    if place + 1 < len(order):
        parts.append(f"**Next:** {order[place + 1].link()}")
    return " · ".join([*parts, "Words: [glossary](../docs/glossary.md)"])


def filled(text: str, lesson: Lesson) -> str:
    """A cell's text with the lines that are made here."""
    made = {HEAD: head, LAST: last, MAP: lambda _: table()}
    for place, make in made.items():
        if place in text:
            text = text.replace(place, make(lesson))
    return text
