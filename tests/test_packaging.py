"""What a user installs: two import roots, the kernel sources as data, nothing else."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile

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
    import re

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
