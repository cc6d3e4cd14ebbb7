"""The site's pages that list what the package has."""

from __future__ import annotations

import json
import re
import runpy
from typing import Any

from conftest import ROOT

from tensormask_edu.learn.exercise import EXERCISES

PACKAGES = ROOT / "tensormask_edu", ROOT / "exporters" / "tensormask_export"
# Parsing of commands, a process of the builder, files that are data for `learn`.
NOT_CALLED = r"\.(cli|engine\.child|learn\.lessons\.\w+)$"


def public_modules() -> set[str]:
    """Every module; where a package offers names of its own, the package for its modules."""
    modules = set()
    for package in PACKAGES:
        for path in package.rglob("[!_]*.py"):
            room = path.parent
            offers = "__all__ = [" in (room / "__init__.py").read_text(encoding="utf-8")
            shown = room if offers and room != package else path.with_suffix("")
            modules.add(".".join(shown.relative_to(package.parent).parts))
    return {name for name in modules if not re.search(NOT_CALLED, name)}


def test_the_api_pages_show_every_public_module():
    pages = runpy.run_path(str(ROOT / "docs" / "make_map.py"))["api"]()
    shown = re.findall(r"automodule:: (\S+)", "".join(pages.values()))
    assert len(shown) == len(set(shown))
    assert not public_modules() - set(shown)


def lesson_pages() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs" / "lesson_pages.py"))


def test_hints_and_a_solution_unfold_under_every_exercise_of_a_page():
    pages = lesson_pages()
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        page = pages["page_of"](notebook)
        here = [each for each in EXERCISES.values() if each.lesson == notebook.name[:2]]
        folded = re.findall(r"<summary>(.*?)</summary>", page)
        assert folded.count("A solution") >= len(here), notebook.name
        assert len(folded) - len(here) >= sum(len(each.hints) for each in here)
        for each in here:
            first_line = each.solution().strip().splitlines()[0]
            assert json.dumps(first_line, ensure_ascii=False)[1:-1] in page, each.name


# --- the explorer in the lessons --------------------------------------------------------------

PANEL = ROOT / "docs" / "explorer" / "src" / "panel.js"


def explorer_links() -> dict[str, list[str]]:
    """Lesson -> the parts of the explorer that its text links to."""
    to_part = lesson_pages()["TO_PART"]
    return {
        twin.stem: [part for _, part in to_part.findall(twin.read_text(encoding="utf-8"))]
        for twin in sorted((ROOT / "notebooks" / "src").glob("*.py"))
    }


def test_lessons_link_to_parts_that_the_explorer_has():
    page = PANEL.read_text(encoding="utf-8")
    views = re.findall(r"^  (\w+): \[", page, flags=re.M)
    (line,) = re.findall(r"^const PARTS = (.*);", page, flags=re.M)
    parts = re.findall(r"(\w+): \"", line)
    assert len(views) == 5 and len(parts) == 2
    linked = explorer_links()
    assert {part for parts in linked.values() for part in parts} <= {*views, *parts}
    assert {name[:2] for name, parts in linked.items() if parts} == {
        *("03", "04", "05", "06", "08", "12")
    }


def test_a_link_into_the_explorer_says_how_to_build_it_where_it_is_not():
    pages = lesson_pages()
    text = pages["with_parts"]("Move it: [the\nexplorer](../docs/explorer.md#shear).", False)
    assert text == "Move it: [the\nexplorer](../docs/explorer.md)."
    assert "make explorer" in (ROOT / "docs" / "explorer.md").read_text(encoding="utf-8")


def test_a_part_stands_below_the_paragraph_that_links_to_it():
    text = "[here](../docs/explorer.md#lam).\n\nThen [there](../docs/explorer.md#walls)."
    first, framed, last = lesson_pages()["with_parts"](text, True).split("\n\n")
    assert first == '<a href="../explorer/index.html#lam">here</a>.'
    assert 'src="../explorer/index.html#lam/embed"' in framed and 'loading="lazy"' in framed
    assert last == 'Then <a href="../explorer/index.html#walls">there</a>.'


def test_three_lessons_hold_a_part():
    pages = lesson_pages()
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        held = {"04": ["shear"], "05": ["lam"], "08": ["assignment"]}.get(notebook.name[:2], [])
        for explorer in (True, False):
            page = pages["page_of"](notebook, explorer)
            framed = re.findall(r"explorer/index\.html#(\w+)/embed", page)
            assert framed == (held if explorer else [])
            assert "docs/explorer.md" not in page
