"""The site's pages that list what the package has."""

from __future__ import annotations

import re

from conftest import ROOT

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


def test_the_api_page_shows_every_public_module():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    shown = re.findall(r"automodule:: (\S+)", page)
    assert len(shown) == len(set(shown))
    assert not public_modules() - set(shown)
