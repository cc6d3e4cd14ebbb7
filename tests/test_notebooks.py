"""The lessons run, untouched and solved, are what their text says, and repeat nothing."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import statistics
import subprocess
import sys

import nbformat
import pytest
from conftest import ROOT

from tensormask_edu import learn

FOLDER = ROOT / "notebooks"
SPEC = importlib.util.spec_from_file_location("notebooks_build", FOLDER / "build.py")
build = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(build)
TWINS = build.twins()
EXERCISE_LESSONS = [twin for twin in TWINS if not twin.stem.startswith("00")]
each_lesson = pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.stem)


def run_notebook(twin) -> subprocess.CompletedProcess:
    """Run a notebook's cells by nbmake in a pytest of its own, in smoke mode."""
    path = build.notebook_of(twin)
    options = "-q --nbmake --nbmake-timeout=600 -p no:cacheprovider".split()
    command = [sys.executable, "-m", "pytest", *options]
    command += ["-c", os.devnull, f"--rootdir={FOLDER}", str(path)]
    environment = {**os.environ, "TENSORMASK_EDU_SMOKE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        command, capture_output=True, text=True, cwd=FOLDER, env=environment, check=False
    )


@each_lesson
def test_an_untouched_lesson_runs_to_its_end(twin):
    run = run_notebook(twin)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    assert "1 passed" in run.stdout


@pytest.mark.parametrize("twin", EXERCISE_LESSONS, ids=lambda twin: twin.stem)
def test_with_the_solutions_switched_on_every_check_passes(twin, monkeypatch, capsys):
    """The stubs and checks alone.

    An untouched stub is the same function, so the other cells ran above.
    """
    monkeypatch.setenv("TENSORMASK_EDU_SOLUTIONS", "1")
    names = {"learn": learn}
    for cell in code_cells(read(twin)):
        if "learn.exercise" in cell.source or "learn.check" in cell.source:
            exec(cell.source, names)
    said = capsys.readouterr().out
    assert said.count(": correct.") == 4
    assert "not attempted" not in said


def test_a_lesson_that_fails_would_be_noticed(tmp_path, monkeypatch):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("assert False")])
    nbformat.write(notebook, tmp_path / "wrong.ipynb")
    monkeypatch.setattr(build, "notebook_of", lambda twin: tmp_path / "wrong.ipynb")
    assert run_notebook(TWINS[0]).returncode == 1


@each_lesson
def test_a_committed_lesson_is_what_its_text_says(twin):
    assert build.problems(twin) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda nb: nb.cells[0].update(source="other"), "cells differ"),
        (lambda nb: nb.metadata["tensormask_edu"].update(stamp="0"), "of other code"),
        (lambda nb: nb.metadata.update(widgets={}), "widget state"),
        (lambda nb: nb.metadata.update(filler="x" * 500_000), "larger than"),
        (lambda nb: code_cells(nb)[0].update(execution_count=None), "not run"),
        (
            lambda nb: code_cells(nb)[0].update(
                outputs=[nbformat.v4.new_output("error", ename="E", evalue="")]
            ),
            "ended in an error",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_stale_or_heavy_notebook_would_be_noticed(change, words, tmp_path, monkeypatch):
    notebook = nbformat.read(build.notebook_of(TWINS[0]), as_version=4)
    change(notebook)
    nbformat.write(notebook, tmp_path / "changed.ipynb")
    monkeypatch.setattr(build, "notebook_of", lambda twin: tmp_path / "changed.ipynb")
    assert len(found := build.problems(TWINS[0])) == 1
    assert words in found[0]


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def read(twin):
    return nbformat.read(build.notebook_of(twin), as_version=4)


@each_lesson
def test_a_lesson_is_short_and_its_cells_are_small(twin):
    notebook = read(twin)
    lengths = [len(cell.source.splitlines()) for cell in code_cells(notebook)]
    words = sum(
        len(cell.source.split()) for cell in notebook.cells if cell.cell_type == "markdown"
    )
    assert statistics.median(lengths) <= 8
    assert max(lengths) <= 25
    assert len(notebook.cells) <= 45
    assert words <= 1800


@pytest.mark.parametrize("twin", EXERCISE_LESSONS, ids=lambda twin: twin.stem)
def test_a_lesson_has_its_parts(twin):
    from tensormask_edu.learn.exercise import EXERCISES

    text = "\n".join(cell.source for cell in read(twin).cells)
    for part in (
        "**The question:**",
        "To run:",
        "Seed: 0",
        "## Recap",
        "| paper | code | lesson |",
        "glossary",
    ):
        assert part in text
    names = {name for name, each in EXERCISES.items() if each.lesson == twin.stem}
    assert len(names) == 4
    assert set(re.findall(r"@learn\.exercise\ndef (\w+)", text)) == names
    assert set(re.findall(r"learn\.check\((\w+)\)", text)) == names


@each_lesson
def test_names_in_the_map_of_a_lesson_exist(twin):
    """`ops.x` and `reference.x` in the text are functions of the package."""
    import tensormask_edu.ops
    import tensormask_edu.reference

    text = "\n".join(cell.source for cell in read(twin).cells if cell.cell_type == "markdown")
    for part, name in re.findall(r"`(ops|reference)\.(\w+)`", text):
        assert hasattr(getattr(tensormask_edu, part), name), f"{part}.{name}"


@each_lesson
def test_links_of_a_lesson_lead_somewhere(twin):
    text = "\n".join(cell.source for cell in read(twin).cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert links
    assert not [link for link in links if not (FOLDER / link).is_file()]


# --- nothing twice ----------------------------------------------------------------------------


def bodies(tree: ast.AST) -> dict[str, str]:
    """Function name -> its body without docstring, if there is more than that and dots."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            text = ast.dump(ast.Module(body, []))
            if text != ast.dump(ast.parse("...")) and body:
                found[node.name] = text
    return found


def package_bodies() -> dict[str, str]:
    paths = sorted((ROOT / "tensormask_edu").rglob("*.py"))
    return {
        name: text
        for path in paths
        for name, text in bodies(ast.parse(path.read_text("utf-8"))).items()
    }


def is_exercise(node: ast.FunctionDef) -> bool:
    return any(ast.unparse(decorator).endswith("exercise") for decorator in node.decorator_list)


def defined_twice(source: str) -> list[str]:
    """Functions of a lesson that the package has too, by name (exercises apart) or by body."""
    tree, package = ast.parse(source), package_bodies()
    by_name = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and not is_exercise(node)
    }
    by_body = {name for name, text in bodies(tree).items() if text in package.values()}
    return sorted((by_name & set(package)) | by_body)


@each_lesson
def test_a_lesson_defines_nothing_that_the_package_has(twin):
    assert defined_twice(twin.read_text(encoding="utf-8")) == []


def test_a_copy_of_the_package_would_be_noticed():
    import inspect

    from tensormask_edu.learn.lessons.lesson_06 import swap_elements

    renamed = inspect.getsource(swap_elements).replace("def swap_elements", "def mine")
    assert defined_twice(renamed) == ["mine"]
    assert defined_twice("def subsample(x):\n    return x") == ["subsample"]


def test_lessons_change_no_path_and_load_nothing_from_the_network():
    for twin in TWINS:
        assert not re.search(
            r"sys\.path|urllib|requests|wget|%cd|!pip", twin.read_text(encoding="utf-8")
        )
