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
