"""What a user installs: two import roots, the kernel sources as data, nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from datetime import date

import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_has_two_import_roots_and_no_common_names(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    roots = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert roots == {"tensormask_edu", "tensormask_export"}


def test_the_wheel_carries_kernel_sources_and_type_marks(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    kernels = "tensormask_edu/ops/_kernels/swap_align2nat"
    assert {
        f"{kernels}/{file}" for file in ("core.h", "gpu/kernels.cu", "cpu/kernels.cpp")
    } <= names
    assert {"tensormask_edu/py.typed", "tensormask_export/py.typed"} <= names
    assert "tensormask_edu/commands/report.html" in names
    assert "tensormask_edu/commands/learning-curve.json" in names


def test_the_wheel_carries_the_models_that_come_along(wheel):
    room = ROOT / "tensormask_edu" / "weights" / "models"
    wanted = {path.relative_to(ROOT).as_posix() for path in room.glob("*/*.*")}
    assert "tensormask_edu/weights/models/cells/model.safetensors" in wanted
    assert wanted <= set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_carries_every_stored_table(wheel):
    """A new one needs a line of its own in pyproject.toml: pictures beside it stay out."""
    room = ROOT / "benchmarks" / "results" / "ablations"
    stored = [*room.glob("*.json"), *room.glob("*/tables.json")]
    place = "tensormask_edu/ablations/results"
    wanted = {f"{place}/{path.relative_to(room).as_posix()}" for path in stored}
    assert f"{place}/lesson-700/tables.json" in wanted
    assert wanted <= set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_carries_every_sentence_of_the_lessons(wheel):
    texts = (ROOT / "tensormask_edu").rglob("*.md")
    wanted = {path.relative_to(ROOT).as_posix() for path in texts}
    assert "tensormask_edu/learn/lessons/lesson_04.md" in wanted
    assert wanted <= set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_installs_both_commands(wheel):
    archive = zipfile.ZipFile(wheel)
    entry = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
    text = archive.read(entry).decode()
    assert "tensormask-edu = tensormask_edu.cli:main" in text
    assert "tensormask-export = tensormask_export.cli:main" in text


def test_the_wheel_runs_where_nothing_else_of_ours_is(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    code += "import tensormask_edu; print(tensormask_edu.__file__)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert str(tmp_path) in run.stdout


def test_every_extra_of_the_documentation_exists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"learn", "export", "tensorrt", "rtx", "cuda", "dev"} <= set(
        project["optional-dependencies"]
    )


def test_constraints_pin_every_direct_requirement_but_tensorrt():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra, requirements in project["optional-dependencies"].items():
        wanted += requirements if extra != "tensorrt" else []
    pinned = {
        re.split(r"==", line)[0].strip().lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    names = {re.split(r"[><=\[]", requirement)[0].lower() for requirement in wanted}
    assert not names - pinned - {project["name"]}  # an extra may hold another


# --- licences, citation -----------------------------------------------------------------------


@pytest.fixture
def licences(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import make_licences

    return make_licences


def test_the_page_of_licences_names_every_dependency_and_its_licence(licences):
    assert set(licences.stored()) == set(licences.dependencies())
    assert all(licences.stored().values())
    assert licences.licence("numpy") == licences.stored()["numpy"]


def test_a_dependency_that_is_not_on_the_page_is_named(licences, tmp_path, monkeypatch, capsys):
    page = tmp_path / "licences.md"
    rows = licences.PAGE.read_text().splitlines()
    page.write_text("\n".join(row for row in rows if "`pillow`" not in row))
    monkeypatch.setattr(licences, "PAGE", page)
    monkeypatch.setattr(sys, "argv", ["make_licences.py", "--check"])
    assert licences.main() == 1
    assert capsys.readouterr().out == "not on the page: pillow\n"


def test_the_citation_names_the_paper_and_this_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    from tensormask_edu import __version__

    assert f"\nversion: {__version__}\n" in text
    assert "TensorMask: A Foundation for Dense Object Segmentation" in text
    assert "arXiv:1903.12174" in text and "preferred-citation" in text


# --- a release --------------------------------------------------------------------------------

NOTES = "# Changelog\n\n## 0.2.0 (unreleased)\n\n- New.\n\n## 0.1.0 (2026-01-02)\n"
PROJECT = """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "tensormask-edu"
dynamic = ["version"]
[tool.hatch.version]
path = "tensormask_edu/__init__.py"
"""


def git(folder, *words: str) -> str:
    run = subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return run.stdout


@pytest.fixture
def release(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / ".ci"))
    import release

    return release


@pytest.fixture
def checkout(tmp_path):
    """A small project with notes, one release old."""
    folder = tmp_path / "checkout"
    (folder / "tensormask_edu").mkdir(parents=True)
    (folder / "tensormask_edu" / "__init__.py").write_text('__version__ = "0.1.0"\n')
    (folder / "CHANGELOG.md").write_text(NOTES)
    shutil.copy(ROOT / "CITATION.cff", folder)
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / ".gitignore").write_text("dist/\n__pycache__/\n")
    git(folder, "init", "-q")
    git(folder, "config", "user.name", "x")
    git(folder, "config", "user.email", "x@example.org")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "All")
    git(folder, "tag", "v0.1.0")
    return folder


def test_a_dry_release_says_what_it_would_do_and_does_nothing(release, checkout, capsys):
    assert release.main(["0.2.0", "--dry"], checkout) == 0
    said = capsys.readouterr().out
    assert f"would date the notes: ## 0.2.0 ({date.today().isoformat()})" in said
    assert "would build wheel and sdist into dist/, commit, and tag v0.2.0" in said
    assert git(checkout, "status", "--porcelain") == "" and not (checkout / "dist").exists()
    assert git(checkout, "tag") == "v0.1.0\n"


def test_a_release_dates_the_notes_builds_commits_and_tags(release, checkout):
    assert release.main(["0.2.0"], checkout) == 0
    assert (
        f"## 0.2.0 ({date.today().isoformat()})\n\n- New"
        in (checkout / "CHANGELOG.md").read_text()
    )
    names = sorted(path.name for path in (checkout / "dist").iterdir())
    assert names == ["tensormask_edu-0.2.0-py2.py3-none-any.whl", "tensormask_edu-0.2.0.tar.gz"]
    assert git(checkout, "tag") == "v0.1.0\nv0.2.0\n"
    assert git(checkout, "status", "--porcelain") == ""
    assert "\nversion: 0.2.0\ndate-released: 2" in (checkout / "CITATION.cff").read_text()


WRONG = {
    "no version": ("0.2", "version: expected x.y.z, got '0.2'"),
    "a tag": ("0.1.0", "v0.1.0 is there"),
    "an earlier one": ("0.0.9", "expected a later one than"),
    "no notes": ("0.3.0", 'a section "## 0.3.0 (unreleased)"'),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_released_is_one_line(name, release, checkout, capsys):
    version, message = WRONG[name]
    assert release.main([version], checkout) == 2
    assert message in capsys.readouterr().err
    assert not (checkout / "dist").exists()


def test_what_is_not_committed_and_what_does_not_build_is_not_released(
    release, checkout, capsys
):
    (checkout / "new.txt").write_text("x")
    assert release.main(["0.2.0", "--dry"], checkout) == 2
    assert "expected nothing but what is committed, got new.txt" in capsys.readouterr().err
    (checkout / "pyproject.toml").write_text("[project\n")
    git(checkout, "add", "-A")
    git(checkout, "commit", "-qm", "Broken")
    assert release.main(["0.2.0"], checkout) == 2
    assert (checkout / "CHANGELOG.md").read_text() == NOTES
    assert git(checkout, "status", "--porcelain") == ""
