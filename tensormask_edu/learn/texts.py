"""The sentences a learner reads: a Markdown file beside the module that says them.

    ## nat2align                     an exercise; `shared`: what several exercises say
    ### mistake: the wrong way       what the paragraph is for
    You slide the wrong way: ...     one paragraph, its lines are joined

A word in braces, `{shape}`, is filled in when the sentence is said. Everything before the first
`##` is a note to the reader of the file. Which headings an exercise needs: see `Exercise`.

next: learn/show.py
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path

SHARED = "shared"
Texts = Mapping[str, str]  # heading -> paragraph


def texts_beside(module: str) -> dict[str, Texts]:
    """Exercise -> its texts, from the text file of a module's name; `shared` stands in.

    module: the `__file__` of the module.
    """
    sections = read_texts(Path(module).with_suffix(".md"))
    shared = sections.pop(SHARED, {})
    return {name: ChainMap(texts, shared) for name, texts in sections.items()}


def read_texts(path: Path) -> dict[str, dict[str, str]]:
    """Section -> heading -> paragraph, as they stand in a text file."""
    sections = _under_headings(path.read_text(encoding="utf-8"), "##")
    return {
        name: {
            heading: " ".join(paragraph.split())
            for heading, paragraph in _under_headings(section, "###").items()
        }
        for name, section in sections.items()
    }


def _under_headings(text: str, mark: str) -> dict[str, str]:
    """What stands under each heading of one level."""
    _, *parts = re.split(rf"^{mark} (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))
