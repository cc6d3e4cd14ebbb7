"""Lessons as pages of the site: links at the top, help that unfolds, figures that move.

In a notebook a reader calls `learn.hint` and `learn.solution`. A page has no kernel, so that
what they print is put there, folded. A lesson's link to a part of the explorer,
`[words](../docs/explorer.md#PART)`, leads to the explorer's page, which says how to build it;
where it was built the link opens that part, and three parts stand in the page as well.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensormask_edu.learn.exercise import EXERCISES

ENDS = ("learn.check", "learn.explain")  # what is explained is compared by the reader
PAPER = "https://arxiv.org/abs/1903.12174"

Cell = dict[str, Any]

TO_PART = re.compile(r"\[([^\]]+)\]\(\.\./docs/explorer\.md#(\w+)\)")
EMBEDDED = ("shear", "lam", "assignment")  # where a slider is the lesson; none loads the model


def page_of(notebook: Path, explorer: bool = False) -> str:
    """A lesson's notebook as the site shows it, as JSON; links lead to the site's own pages.

    explorer: whether the site holds the explorer.
    """
    lesson: dict[str, Any] = json.loads(notebook.read_text(encoding="utf-8"))
    for cell in lesson["cells"]:
        if cell["cell_type"] == "markdown":
            text = with_parts("".join(cell["source"]), explorer)
            cell["source"] = text.replace("](../docs/", "](../")
    first, *others = lesson["cells"]
    with_help = (shown for cell in others for shown in (cell, *helped(cell)))
    lesson["cells"] = [first, markdown("links", links(notebook.name)), *with_help]
    for cell in others:
        dress(cell)
    return json.dumps(lesson, indent=1, ensure_ascii=False)


def helped(cell: Cell) -> Iterator[Cell]:
    """A cell of what unfolds under a code cell, if an exercise is checked there."""
    if cell["cell_type"] != "code":
        return
    for name in checked("".join(cell["source"])):
        found = EXERCISES[name]
        parts = [
            folded(f"Hint {number} of {len(found.hints)}", hint)
            for number, hint in enumerate(found.hints, start=1)
        ]
        parts.append(folded("A solution", f"```python\n{found.solution().strip()}\n```"))
        yield markdown(f"help-{name}", "\n\n".join(parts))


def with_parts(text: str, explorer: bool) -> str:
    """Text with its links to parts of the explorer, which may stand below the paragraph."""
    if not explorer:
        return TO_PART.sub(r"[\1](../docs/explorer.md)", text)
    paragraphs = []
    for paragraph in text.split("\n\n"):
        linked = TO_PART.sub(r'<a href="../explorer/index.html#\2">\1</a>', paragraph)
        parts = [part for _, part in TO_PART.findall(paragraph) if part in EMBEDDED]
        paragraphs += [linked, *map(frame, parts)]
    return "\n\n".join(paragraphs)


def frame(part: str) -> str:
    """A part of the explorer in the page; a browser without frames shows a link."""
    page = f"../explorer/index.html#{part}"
    inside = f'<a href="{page}">The explorer: {part}</a>'
    attributes = f'class="live {part}" src="{page}/embed" title="The explorer: {part}"'
    return f'<iframe {attributes} loading="lazy">{inside}</iframe>'


def dress(cell: Cell) -> None:
    """What a page needs to know of a cell's outputs: words of a picture, whether lines wrap."""
    for output in cell.get("outputs", ()):
        about = output.get("metadata", {}).get("image/png", {})
        if "alt" in about:  # of the cell: MyST-NB reads it there alone
            cell["metadata"]["mystnb"] = {"image": {"alt": about["alt"]}}
    printed = ["".join(output.get("text", "")) for output in cell.get("outputs", ())]
    if any(printed) and not re.search(r"\S {2,}\S", "".join(printed)):  # no columns
        cell["metadata"].setdefault("tags", []).append("sentences")


def markdown(name: str, text: str) -> Cell:
    """A cell of text; its name is new in the notebook."""
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": text}


def links(name: str) -> str:
    """Where the notebook is to be had as a file, and the paper."""
    file = f'<a download href="../notebooks/{name}">This lesson as a notebook</a>'
    return f'<p>{file} · <a href="{PAPER}">The paper</a></p>'


def checked(source: str) -> Iterator[str]:
    """Names of the exercises that a cell ends."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ENDS:
            yield ast.unparse(node.args[0]).strip("'")  # a function, or a name as text


def folded(summary: str, inside: str) -> str:
    """Markdown that unfolds; the empty lines let its inside be Markdown again."""
    return f'<details class="help"><summary>{summary}</summary>\n\n{inside}\n\n</details>'
