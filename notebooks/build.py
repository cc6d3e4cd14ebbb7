"""Make the notebooks from their text twins: run every cell, keep the outputs, stamp them.

    python notebooks/build.py            all lessons, in full
    python notebooks/build.py 04         those whose name begins so
    python notebooks/build.py --words    the text alone is new: run nothing, outputs stay
    python notebooks/build.py --check    run nothing; 1 if a notebook is not what its twin says

The source of a lesson is `src/NAME.py` (jupytext's percent format); reviews happen there. Lines
such as its head are filled in from its front matter (`course.py`).
`NAME.ipynb` is made from it and committed with its outputs. Its stamp is a hash of the code
cells that gave the outputs, so a test can tell that they are of this code. Widgets are left
out: they show nothing without a running kernel.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Any

import course
import jupytext
import nbformat

FOLDER = Path(__file__).resolve().parent
LARGEST_KB = 400
SECONDS = 600  # a cell that takes longer hangs
WIDGET = "application/vnd.jupyter.widget-view+json"
KEY = "tensormask_edu"


def twins(start: str = "") -> list[Path]:
    """The text twins whose name begins with `start`, in the course's order."""
    return sorted(path for path in (FOLDER / "src").glob("*.py") if path.stem.startswith(start))


def notebook_of(twin: Path) -> Path:
    """Where a twin's notebook lies."""
    return FOLDER / f"{twin.stem}.ipynb"


def source_of(twin: Path) -> Any:
    """A twin's cells, what comes from front matter filled in."""
    notebook, lesson = jupytext.read(twin), course.lesson_of(twin)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = course.filled(cell.source, lesson)
    return notebook


def stamp(notebook: Any) -> str:
    """A hash of the code cells."""
    code = "\x00".join(cell.source for cell in _code(notebook))
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def problems(twin: Path) -> list[str]:
    """How a committed notebook differs from what its twin would give, in words; [] if not."""
    path = notebook_of(twin)
    if not path.is_file():
        return [f"{path.name} is missing"]
    source, built = source_of(twin), nbformat.read(path, as_version=4)
    has_widgets = "widgets" in built.metadata or WIDGET in path.read_text(encoding="utf-8")
    checks = {
        "its cells differ from the twin's": _sources(built) != _sources(source),
        "its outputs are of other code": _stored_stamp(built) != stamp(source),
        f"it is larger than {LARGEST_KB} kB": path.stat().st_size > 1000 * LARGEST_KB,
        "it holds widget state": has_widgets,
        "a cell ended in an error": any(out.output_type == "error" for out in _outputs(built)),
        "a cell was not run": not all(cell.execution_count for cell in _code(built)),
    }
    return [f"{path.name}: {words}" for words, found in checks.items() if found]


def build(twin: Path) -> None:
    """Run a twin's cells and write the notebook with its outputs."""
    from nbclient import NotebookClient

    notebook = source_of(twin)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02}"  # the same in every build: quiet diffs
    start = time.perf_counter()
    NotebookClient(
        notebook,
        timeout=SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(FOLDER)}},
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,  # what a cell prints is one output, however it came
    ).execute()
    seconds = time.perf_counter() - start
    for cell in _code(notebook):
        cell.outputs = [out for out in cell.outputs if WIDGET not in out.get("data", {})]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, KEY: {"stamp": stamp(notebook)}}
    notebook.metadata = nbformat.from_dict(metadata)
    nbformat.validate(notebook)
    nbformat.write(notebook, notebook_of(twin))
    size = notebook_of(twin).stat().st_size / 1000
    print(f"{notebook_of(twin).name}: {seconds:.0f} s, {size:.0f} kB", flush=True)


def reword(twin: Path) -> None:
    """Bring a twin's text into its notebook, if the code is that of the outputs."""
    notebook, built = source_of(twin), nbformat.read(notebook_of(twin), as_version=4)
    if _stored_stamp(built) == stamp(notebook):
        outputs = iter(_code(built))
        for number, cell in enumerate(notebook.cells):
            kept = next(outputs) if cell.cell_type == "code" else cell
            cell |= kept | {"id": f"cell-{number:02}"}
        notebook.metadata = built.metadata
        nbformat.write(notebook, notebook_of(twin))


def _code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _sources(notebook: Any) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def _outputs(notebook: Any) -> list[Any]:
    return [out for cell in _code(notebook) for out in cell.outputs]


def _stored_stamp(notebook: Any) -> Any:
    return notebook.metadata.get(KEY, {}).get("stamp")


def main() -> int:
    """Build, or check."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    begins = "the beginning of a name, such as 04"
    parser.add_argument("lesson", nargs="?", default="", help=begins)
    parser.add_argument("--words", action="store_true", help="run nothing, bring in the text")
    parser.add_argument("--check", action="store_true", help="run nothing, compare")
    arguments = parser.parse_args()
    checkout = FOLDER.parent  # that the notebooks lie in
    packages = os.pathsep.join([str(checkout), str(checkout / "exporters")])
    os.environ.setdefault("PYTHONPATH", packages)
    if not arguments.check:
        for twin in twins(arguments.lesson):
            reword(twin) if arguments.words else build(twin)
    found = [words for twin in twins(arguments.lesson) for words in problems(twin)]
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
