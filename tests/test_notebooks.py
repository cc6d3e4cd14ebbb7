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

from tensormask_edu.learn.kinds import EXERCISES

FOLDER = ROOT / "notebooks"
sys.path.append(str(FOLDER))  # build.py's own neighbours
import course
import lab

SPEC = importlib.util.spec_from_file_location("notebooks_build", FOLDER / "build.py")
build = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(build)
TWINS = build.twins()
EXERCISE_LESSONS = [twin for twin in TWINS if course.lesson_of(twin).exercises]
each_lesson = pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.stem)


def run_notebook(twin) -> subprocess.CompletedProcess:
    """Run a notebook's cells by nbmake in a pytest of its own, in smoke mode."""
    path = build.notebook_of(twin)
    options = "-q --nbmake --nbmake-timeout=600 -p no:cacheprovider".split()
    command = [sys.executable, "-m", "pytest", *options]
    command += ["-c", os.devnull, f"--rootdir={FOLDER}", str(path)]
    environment = {**os.environ, "TENSORMASK_EDU_SMOKE": "1"}
    packages = [str(ROOT), str(ROOT / "exporters"), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(packages)
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
    """The imports and the cells of exercises alone.

    An untouched stub is the same function, so the other cells ran above. What a choice is
    compared with, `learn.check("NAME", measured)`, comes from those.
    """
    monkeypatch.setenv("TENSORMASK_EDU_SOLUTIONS", "1")
    imports, *cells = code_cells(read(twin))
    names = {}
    exec(imports.source, names)
    for cell in cells:
        measured = re.search(r"learn\.check\(\S+, ", cell.source)
        is_exercise = r"learn\.(exercise|check|numbers|predict|explain)\b"
        if re.search(is_exercise, cell.source) and not measured:
            exec(cell.source, names)
    said = capsys.readouterr().out
    graded = [name for name in course.lesson_of(twin).exercises if is_graded(name)]
    assert [name for name in graded if f"{name}: correct." not in said] == []
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
    text = "\n".join(cell.source for cell in read(twin).cells)
    for part in (
        "**The question:**",
        "**After this lesson you can**",
        "To run:",
        "Seed: 0",
        "## Recap",
        "| paper | code | lesson |",
        "glossary",
    ):
        assert part in text
    names = {name for name, each in EXERCISES.items() if each.lesson == twin.stem[:2]}
    assert set(course.lesson_of(twin).exercises) == names
    written = re.findall(r"@learn\.exercise\n(?:def|class) (\w+)", text)
    written += re.findall(r'learn\.(?:numbers|predict|explain)\(\s*"(\w+)"', text)
    assert set(written) == names
    checked = set(re.findall(r'learn\.check\("?(\w+)', text))
    assert {name for name in names if is_graded(name)} <= checked


@pytest.mark.parametrize("twin", EXERCISE_LESSONS, ids=lambda twin: twin.stem)
def test_a_stub_has_the_arguments_of_the_function_it_stands_for(twin):
    text = "\n".join(cell.source for cell in code_cells(read(twin)))
    for name, arguments in re.findall(r"@learn\.exercise\ndef (\w+)\((.*?)\):", text, re.S):
        stub = [part.split("=")[0].strip() for part in arguments.split(",") if part.strip()]
        assert tuple(stub) == EXERCISES[name].parameters


# --- what comes from the front matter ---------------------------------------------------------


def is_graded(name):
    return hasattr(EXERCISES[name], "verdict")


def test_thirteen_lessons_are_in_the_table_each_once():
    rows = course.table().splitlines()[2:]
    numbers = [re.search(r"\| \[?(\d\d) ", row)[1] for row in rows]
    assert numbers == [f"{number:02}" for number in range(13)]


def test_every_lesson_leads_to_the_one_before_and_the_next():
    order = course.lessons()
    for before, after in zip(order, order[1:], strict=False):
        assert f"**Next:** {after.link()}" in course.last(before)
        assert f"**Before:** {before.link()}" in course.last(after)
        assert course.last(before) in read(before.twin).cells[-1].source


def test_the_map_of_the_course_is_in_lesson_00():
    text = "\n".join(cell.source for cell in read(TWINS[0]).cells)
    assert course.table() in text
    assert "{{" not in text


@pytest.mark.parametrize("line", ["#     minutes: 60", "#     title: Two ways to file a mask"])
def test_front_matter_that_is_not_whole_is_refused(line, tmp_path):
    twin = tmp_path / "04_two.py"
    text = next(t for t in TWINS if t.stem.startswith("04")).read_text(encoding="utf-8")
    assert line in text
    twin.write_text(text.replace(line, "#     mintues: 1"), encoding="utf-8")
    with pytest.raises(ValueError, match="front matter"):
        course.lesson_of(twin)


def test_nothing_else_lists_the_lessons():
    """The menu takes what is in a folder, the pages fill in the table."""
    assert "lessons/*" in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert course.MAP in (ROOT / "docs" / "course.md").read_text(encoding="utf-8")
    for path in (ROOT / "docs" / "course.md", TWINS[0]):
        assert "| [04" not in path.read_text(encoding="utf-8")


# --- copies of the lessons --------------------------------------------------------------------


@pytest.fixture
def lessons(tmp_path):
    """Two lessons as they are committed, and their data."""
    source = tmp_path / "notebooks"
    (source / "data").mkdir(parents=True)
    (source / "data" / "sample.npz").write_bytes(b"data")
    for name in ("00_start", "04_two"):
        (source / f"{name}.ipynb").write_text(f"{name}, first")
    return source


def test_the_lab_copies_lessons_and_leaves_the_committed_ones_alone(lessons):
    work = lessons.parent / "work"
    said = lab.copy_lessons(work, lessons)
    assert said == ["work/00_start.ipynb: copied", "work/04_two.ipynb: copied"]
    assert (work / "data" / "sample.npz").read_bytes() == b"data"
    (work / "04_two.ipynb").write_text("my answers")  # what saving does
    assert lab.copy_lessons(work, lessons) == []
    assert (work / "04_two.ipynb").read_text() == "my answers"
    assert (lessons / "04_two.ipynb").read_text() == "04_two, first"


def test_an_update_replaces_what_nobody_changed_and_tells_of_the_rest(lessons):
    work = lessons.parent / "work"
    lab.copy_lessons(work, lessons)
    (work / "04_two.ipynb").write_text("my answers")
    for name in ("00_start", "04_two"):
        (lessons / f"{name}.ipynb").write_text("second")
    assert lab.copy_lessons(work, lessons) == [
        "work/00_start.ipynb: updated",
        "work/04_two.ipynb: yours; there is a newer one: make fresh LESSON=04",
    ]
    assert (work / "00_start.ipynb").read_text() == "second"
    assert (work / "04_two.ipynb").read_text() == "my answers"


def test_a_fresh_copy_keeps_the_old_one(lessons):
    work = lessons.parent / "work"
    lab.copy_lessons(work, lessons)
    (work / "04_two.ipynb").write_text("my answers")
    said = lab.fresh(work, "04", lessons)
    assert said == ["work/04_two.mine1.ipynb: yours, kept", "work/04_two.ipynb: updated"]
    assert (work / "04_two.mine1.ipynb").read_text() == "my answers"
    assert (work / "04_two.ipynb").read_text() == "04_two, first"
    for wrong in ("", "99"):
        with pytest.raises(ValueError, match="expected one of 00, 04"):
            lab.fresh(work, wrong, lessons)


def test_only_copies_that_nobody_changed_are_trusted(lessons):
    work = lessons.parent / "work"
    lab.copy_lessons(work, lessons)
    (work / "04_two.ipynb").write_text("my answers")
    assert lab.untouched(work) == [work / "00_start.ipynb"]


def test_copies_are_not_under_version_control():
    run = subprocess.run(["git", "check-ignore", "work/00_start_here.ipynb"], cwd=ROOT)
    assert run.returncode == 0


def test_links_of_a_copy_lead_into_the_folder_that_the_server_shows(monkeypatch):
    """The server's root is the checkout, so `../docs` from `work` is inside."""
    command = lab.jupyter_command(ROOT / "work", [])
    assert f"--ServerApp.root_dir={ROOT}" in command
    assert command[4] == str(ROOT / "work" / "00_start_here.ipynb")


def test_as_root_jupyter_is_told_so(monkeypatch, capsys):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert "--allow-root" in lab.jupyter_command(ROOT / "work", [])
    assert "make lab LAB=--ip=0.0.0.0" in capsys.readouterr().out
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "--allow-root" not in lab.jupyter_command(ROOT / "work", [])


def test_make_lab_says_what_it_installs():
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8")
    before = recipe[recipe.index("$(VENV)/.learn:") :]
    assert before.index("5.8 GB") < before.index("-e '.[learn]'")
    assert "5.8 GB" in (ROOT / "README.md").read_text(encoding="utf-8")


@each_lesson
def test_names_in_the_map_of_a_lesson_exist(twin):
    """`ops.x` and `reference.x` in the text are functions of the package."""
    import tensormask_edu.ops
    import tensormask_edu.reference

    text = "\n".join(cell.source for cell in read(twin).cells if cell.cell_type == "markdown")
    for part, name in re.findall(r"`(ops|reference)\.(\w+)`", text):
        assert hasattr(getattr(tensormask_edu, part), name), f"{part}.{name}"


def rows_of_the_map(text):
    """(code, lessons) of every row of "paper | code | lesson"."""
    _, _, table = text.partition("| paper | code | lesson |\n")
    rows = table.partition("\n\n")[0].splitlines()[1:]
    return [tuple(cell.strip() for cell in row.split("|")[2:4]) for row in rows]


@pytest.mark.parametrize("twin", EXERCISE_LESSONS, ids=lambda twin: twin.stem)
def test_every_row_of_the_map_leads_to_what_it_names(twin):
    """To parts that are there, of a lesson whose own text holds one of the row's names."""
    written = {each.stem[:2]: build.source_of(each).cells for each in TWINS}
    rows = rows_of_the_map("\n".join(cell.source for cell in written[twin.stem[:2]]))
    assert len(rows) >= 3
    for code, where in rows:
        names = {
            re.split(r"[(\[=]", name)[0].split(".")[-1] for name in re.findall("`(.+?)`", code)
        }
        for number, parts in re.findall(r"(\d\d)(?:, parts? ([\d to and]+))?", where):
            text = "\n".join(cell.source for cell in written[number])
            before = text.partition("| paper |")[0]
            assert any(re.search(rf"\b{name}\b", before) for name in names), (code, where)
            for part in re.findall(r"\d+", parts):
                assert f"## {part}. " in text, (code, where)


PAPER = re.compile(r"https://arxiv\.org/abs/\d{4}\.\d{5}")  # no other site: they go away


@each_lesson
def test_links_of_a_lesson_lead_somewhere(twin):
    text = "\n".join(cell.source for cell in read(twin).cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)#]+)\)", text)
    papers = [link for link in links if PAPER.fullmatch(link)]
    assert len(links) > len(papers)
    assert not [link for link in links if not (link in papers or (FOLDER / link).is_file())]


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


def is_exercise(node: ast.FunctionDef | ast.ClassDef) -> bool:
    return any(ast.unparse(decorator).endswith("exercise") for decorator in node.decorator_list)


def defined_twice(source: str) -> list[str]:
    """Functions of a lesson that the package has too, by name (exercises apart) or by body."""
    tree, package = ast.parse(source), package_bodies()
    tree.body = [
        node for node in tree.body if not (isinstance(node, ast.ClassDef) and is_exercise(node))
    ]
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

    from tensormask_edu.masks import iou

    renamed = inspect.getsource(iou).replace("def iou", "def mine")
    assert defined_twice(renamed) == ["mine"]
    assert defined_twice("def subsample(x):\n    return x") == ["subsample"]


def test_lessons_change_no_path_and_load_nothing_from_the_network():
    for twin in TWINS:
        assert not re.search(
            r"sys\.path|urllib|requests|wget|%cd|!pip", twin.read_text(encoding="utf-8")
        )
