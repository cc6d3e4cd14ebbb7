"""Open the lessons as copies that are yours: JupyterLab on the folder `work`.

    python notebooks/lab.py                copy what is new, open lesson 00
    python notebooks/lab.py --fresh 04     an untouched copy of a lesson; yours is kept
    python notebooks/lab.py --copy         copy only

`work` is not under version control, so saving, updating and testing never collide: the lessons
under `notebooks` stay as they were committed. A copy that you never changed follows an update
by itself; one that you changed stays, and a sentence says so.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
FIRST = "00_start_here.ipynb"
RECORD = ".copied.json"  # name -> hash of the lesson when it was copied


def copy_lessons(work: Path, source: Path = FOLDER) -> list[str]:
    """Bring the lessons and their data to `work`; what was done, in words.

    A copy that its reader changed is left alone.
    """
    work.mkdir(exist_ok=True)
    shutil.copytree(source / "data", work / "data", dirs_exist_ok=True)
    record, said = _record(work), []
    for lesson in sorted(source.glob("*.ipynb")):
        copy, now = work / lesson.name, _hash(lesson)
        was = record.get(lesson.name)
        if not copy.exists() or (_hash(copy) == was and was != now):
            shutil.copy(lesson, copy)
            record[lesson.name] = now
            said.append(f"{work.name}/{lesson.name}: {'updated' if was else 'copied'}")
        elif was not in (now, None):
            cure = f"make fresh LESSON={lesson.name[:2]}"
            said.append(f"{work.name}/{lesson.name}: yours; there is a newer one: {cure}")
    (work / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
    return said


def fresh(work: Path, number: str, source: Path = FOLDER) -> list[str]:
    """Put an untouched copy of the lessons that begin so in place; the old ones are kept.

    Raises ValueError if there is no such lesson.
    """
    lessons = sorted(source.glob(f"{number}*.ipynb")) if number else []
    if not lessons:
        names = ", ".join(path.name[:2] for path in sorted(source.glob("*.ipynb")))
        raise ValueError(f"lesson: expected one of {names}, got {number!r}")
    said = []
    for lesson in lessons:
        copy = work / lesson.name
        if copy.exists():
            kept = _free_name(copy)
            copy.rename(kept)
            said.append(f"{work.name}/{kept.name}: yours, kept")
    return said + copy_lessons(work, source)


def untouched(work: Path) -> list[Path]:
    """The copies that are as they were copied."""
    record = _record(work)
    return [
        work / name
        for name, was in record.items()
        if (work / name).is_file() and _hash(work / name) == was
    ]


def trust(copies: list[Path]) -> None:
    """Tell Jupyter that these outputs are ours: it shows pictures with sliders at once then."""
    import nbformat
    from nbformat.sign import NotebookNotary

    for copy in copies:
        NotebookNotary().sign(nbformat.read(copy, as_version=4))


def _free_name(path: Path) -> Path:
    names = (path.with_name(f"{path.stem}.mine{number}.ipynb") for number in range(1, 1000))
    return next(name for name in names if not name.exists())


def _record(work: Path) -> dict[str, str]:
    path = work / RECORD
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def jupyter_command(work: Path, arguments: list[str]) -> list[str]:
    """JupyterLab on lesson 00's copy; its root is the checkout, where links to docs lead.

    As root, as in a container, Jupyter asks to be told that this is meant.
    """
    command = [sys.executable, "-m", "jupyter", "lab", str(work / FIRST)]
    command += [f"--ServerApp.root_dir={work.parent}"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
        if not arguments:
            print("As root in a container: make lab LAB=--ip=0.0.0.0, and publish port 8888.")
    return command + arguments


def main() -> int:
    """Copy, say what was done, open."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fresh", metavar="NN", help="an untouched copy of one lesson")
    parser.add_argument("--copy", action="store_true", help="copy only, open nothing")
    arguments, others = parser.parse_known_args()
    work = ROOT / "work"
    try:
        said = copy_lessons(work) if arguments.fresh is None else fresh(work, arguments.fresh)
    except ValueError as error:
        print(error)
        return 2
    nothing = f"{work.name}: your copies of the lessons, nothing new"
    print("\n".join(said or [nothing]), flush=True)
    if arguments.copy or arguments.fresh is not None:
        return 0
    trust(untouched(work))
    command = jupyter_command(work, others)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    os.execv(command[0], command)


if __name__ == "__main__":
    sys.exit(main())
