"""Writes docs/licences.md: every dependency of pyproject.toml with its licence.

    python docs/make_licences.py           from what is installed here
    python docs/make_licences.py --check   does the page name every dependency?

A package that is not installed here keeps the row that the page has of it; one that is nowhere
is an error.
"""

from __future__ import annotations

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "licences.md"
# What no machine has that writes the page, as its own metadata declares it
ELSEWHERE = {"tensorrt": "Proprietary"}
HEAD = """# Licences of what this package uses

Nothing of these packages is copied into ours; `pip` installs them, each under its own licence,
with what they need themselves. Written by `docs/make_licences.py` from the installed packages'
own declarations.

| package | for | licence |
| --- | --- | --- |
"""


def dependencies() -> dict[str, str]:
    """Every package that pyproject.toml names, and what it is for: "" or extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted: dict[str, list[str]] = {}
    for requirement in project["dependencies"]:
        wanted.setdefault(_name(requirement), []).append("all")
    for extra, requirements in project["optional-dependencies"].items():
        for name in map(_name, requirements):
            if name != project["name"]:  # an extra that holds another
                wanted.setdefault(name, []).append(extra)
    return {name: ", ".join(uses) for name, uses in wanted.items()}


def _name(requirement: str) -> str:
    return re.split(r"[><=\[!~; ]", requirement)[0].lower()


def licence(name: str) -> str | None:
    """What an installed package declares; None if it is not installed."""
    try:
        facts = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return None
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in facts.get_all("Classifier") or []
        if line.startswith("License :: ") and "OSI Approved" != line.rpartition(" :: ")[2]
    ]
    text = facts.get("License") or ""
    short = text if 0 < len(text) < 60 and "\n" not in text else ""  # some put all of it there
    return facts.get("License-Expression") or short or ", ".join(classifiers) or None


def stored() -> dict[str, str]:
    """The licences on the page as it is."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    rows = re.findall(r"^\| `([^`]+)` \| [^|]* \| ([^|]*) \|$", text, re.M)
    return {name: words.strip() for name, words in rows}


def main() -> int:
    """Write the page, or check it; the exit code."""
    known, wanted = stored(), dependencies()
    if "--check" in sys.argv[1:]:
        missing, gone = sorted(set(wanted) - set(known)), sorted(set(known) - set(wanted))
        for problem, names in (("not on the page", missing), ("no dependency", gone)):
            print(f"{problem}: {', '.join(names)}" if names else "", end="\n" if names else "")
        return 1 if missing or gone else 0
    known = ELSEWHERE | known
    found = {name: licence(name) or known.get(name) for name in wanted}
    if nowhere := [name for name, words in found.items() if words is None]:
        print(f"not installed here and not on the page: {', '.join(nowhere)}", file=sys.stderr)
        return 1
    rows = [f"| `{name}` | {wanted[name]} | {found[name]} |" for name in sorted(wanted)]
    PAGE.write_text(HEAD + "\n".join(rows) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
