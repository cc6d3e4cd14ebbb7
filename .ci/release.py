"""A release: the notes get their date, wheel and sdist are built, the commit gets its tag.

    make release VERSION=0.1.0            all of it; nothing is uploaded
    make release VERSION=0.1.0 DRY=--dry  what would be done, after the same checks

Refused: a version that is none or has a tag already, a folder with changes that are not
committed, notes without a section "## VERSION (unreleased)" or with nothing in it. If the build
fails, the files are as before.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

VERSION, NOTES, CITATION = "tensormask_edu/__init__.py", "CHANGELOG.md", "CITATION.cff"


class Refused(Exception):
    """Why there is no release; one line."""


def main(arguments: Sequence[str] | None = None, root: Path | None = None) -> int:
    """The release of the checkout at `root`; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("version", help="x.y.z")
    parser.add_argument("--dry", action="store_true", help="say what would be done")
    args = parser.parse_args(arguments)
    try:
        release(args.version, args.dry, root or Path(__file__).resolve().parents[1])
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def release(version: str, dry: bool, root: Path) -> None:
    """Check, then write, build, commit and tag."""
    check(version, root)
    changed = {name: changed_text(name, version, root) for name in (VERSION, NOTES, CITATION)}
    heading = next(line for line in changed[NOTES].splitlines() if line.startswith("## "))
    does = "would" if dry else "will"
    print(f"{does} date the notes: {heading}")
    print(f"{does} write the version {version} into {VERSION} and {CITATION}")
    print(f"{does} build wheel and sdist into dist/, commit, and tag v{version}")
    if dry:
        return
    before = {name: (root / name).read_text(encoding="utf-8") for name in changed}
    for name, text in changed.items():
        (root / name).write_text(text, encoding="utf-8")
    try:
        run(root, sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", ".")
    except Refused:
        for name, text in before.items():
            (root / name).write_text(text, encoding="utf-8")
        raise
    run(root, "git", "commit", "-qm", f"Release {version}", "--", *changed)
    run(root, "git", "tag", "-a", f"v{version}", "-m", f"tensormask_edu {version}")
    print("done; dist/ is for whoever uploads it: git push --follow-tags, twine upload dist/*")


def check(version: str, root: Path) -> None:
    """Raise Refused unless this checkout can be released as `version`."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise Refused(f"version: expected x.y.z, got {version!r}")
    if changes := run(root, "git", "status", "--porcelain"):
        raise Refused(
            f"folder: expected nothing but what is committed, got {changes.split()[1]}"
        )
    tags = run(root, "git", "tag", "--list", "v*").split()
    if f"v{version}" in tags:
        raise Refused(
            f"version: expected one without a tag, got {version}; v{version} is there"
        )
    numbers = [tuple(map(int, tag[1:].split("."))) for tag in tags if _is_release(tag)]
    if numbers and tuple(map(int, version.split("."))) < max(numbers):
        raise Refused(f"version: expected a later one than {max(numbers)}, got {version}")
    if not notes(version, root):
        wanted = f'a section "## {version} (unreleased)" with what is new'
        raise Refused(f"{NOTES}: expected {wanted}, got none")


def _is_release(tag: str) -> bool:
    return re.fullmatch(r"v\d+\.\d+\.\d+", tag) is not None


def notes(version: str, root: Path) -> str:
    """What the notes say of a version that has no date yet."""
    text = (root / NOTES).read_text(encoding="utf-8")
    heading = rf"^## {re.escape(version)} \(unreleased\)$"
    found = re.search(heading + r"\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    return found[1].strip() if found else ""


def changed_text(name: str, version: str, root: Path) -> str:
    """A file as it is in the release."""
    text, today = (root / name).read_text(encoding="utf-8"), date.today().isoformat()
    if name == NOTES:
        return text.replace(f"## {version} (unreleased)", f"## {version} ({today})", 1)
    if name == VERSION:
        return re.sub(r'^__version__ = ".*"$', f'__version__ = "{version}"', text, flags=re.M)
    text = re.sub(r"^date-released: .*\n", "", text, flags=re.M)
    dated = f"version: {version}\ndate-released: {today}"
    return re.sub(r"^version: .*$", dated, text, count=1, flags=re.M)


def run(root: Path, *words: str) -> str:
    """What a program printed; Refused with its last words if it did not end well."""
    done = subprocess.run(words, cwd=root, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise Refused(f"{' '.join(words[:4])}: {''.join(last)}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
