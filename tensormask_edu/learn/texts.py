"""The sentences a learner reads: a Markdown file beside the module that says them.

    ## nat2align                     an exercise; `shared`: what several exercises say
    ### mistake: the wrong way       what the paragraph is for
        row = y - v => row = y + v
    You slide the wrong way: ...     one paragraph, its lines are joined

Indented lines with an arrow are edits of the exercise's source: a mistake is made from them
(`mutants.py`). A word in braces, `{shape}`, is filled in when the sentence is said. Everything
before the first `##` is a note to the reader of the file.

next: learn/cases.py
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SHARED = "shared"
ARROW = " => "


@dataclass(frozen=True)
class Paragraph:
    """What stands under a heading. edits: (old, new) pieces of source."""

    words: str
    edits: tuple[tuple[str, str], ...] = ()


Texts = Mapping[str, Paragraph]  # heading -> paragraph


def texts_beside(module: str | Path) -> dict[str, Texts]:
    """Exercise -> its texts, from the text file of a module's name; `shared` stands in.

    module: the `__file__` of the module.
    """
    sections = read_texts(Path(module).with_suffix(".md"))
    shared = sections.pop(SHARED, {})
    return {name: ChainMap(texts, shared) for name, texts in sections.items()}


def read_texts(path: Path) -> dict[str, dict[str, Paragraph]]:
    """Section -> heading -> paragraph, as they stand in a text file."""
    sections = _under_headings(path.read_text(encoding="utf-8"), "##")
    return {
        name: {
            heading: _paragraph(text)
            for heading, text in _under_headings(section, "###").items()
        }
        for name, section in sections.items()
    }


def _paragraph(text: str) -> Paragraph:
    lines = text.splitlines()
    edits = [line for line in lines if line.startswith("    ") and ARROW.rstrip() in line]
    words = " ".join(" ".join(line for line in lines if line not in edits).split())
    return Paragraph(words, tuple(_edit(line) for line in edits))


def _edit(line: str) -> tuple[str, str]:
    old, _, new = f"{line} ".partition(ARROW)
    return old.strip(), new.strip()


def _under_headings(text: str, mark: str) -> dict[str, str]:
    """What stands under each heading of one level."""
    _, *parts = re.split(rf"^{mark} (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))
