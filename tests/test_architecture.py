"""The promises of the layout: who imports whom, names, weight of an import, the tree in the
README."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "tensormask_edu"
SOURCES = sorted(PACKAGE.rglob("*.py")) + sorted((ROOT / "exporters").rglob("*.py"))

# part -> what it must not import (of ours, and of others)
FORBIDDEN = {
    "reference": {"torch", "tensormask_edu.*"},
    "geometry": {"ops", "config", "model", "reference"},
    "config": {"ops", "model", "network", "reference", "argparse"},
    "ops": {"reference", "geometry", "config", "model", "network"},
    "backbone": {"reference", "geometry", "config", "ops"},
    "network": {"targets", "losses", "data", "inference", "model", "reference"},
    "targets": {"model", "inference", "losses", "data", "reference"},
    "losses": {"model", "inference", "targets", "data", "reference", "geometry"},
    "inference": {"model", "targets", "losses", "data", "reference"},
    "model": {"data", "train", "reference", "evaluate"},
    "data": {"model", "network", "targets", "inference", "train", "reference"},
    "evaluate": {"model", "network", "targets", "train", "reference"},
    "train": {"reference", "viz"},
}


def imports(path: Path) -> set[str]:
    """Top names of what a file imports: "torch", or for our own "model", "data", ..."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {
                alias.name.removeprefix("tensormask_edu.").split(".")[0] for alias in node.names
            }
        elif isinstance(node, ast.ImportFrom):
            names |= _from(path, node)
    return names


def _from(path: Path, node: ast.ImportFrom) -> set[str]:
    module = node.module or ""
    if node.level == 0:
        if module == "tensormask_edu":
            return {alias.name for alias in node.names}
        return {module.removeprefix("tensormask_edu.").split(".")[0]}
    base = path.parent
    for _ in range(node.level - 1):
        base = base.parent
    if base != PACKAGE:  # inside reference/, ops/, data/
        return set()
    return {module.split(".")[0]} if module else {alias.name for alias in node.names}


def part(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if PACKAGE in p.parents], ids=lambda p: p.stem
)
def test_imports_point_one_way(path):
    assert not imports(path) & FORBIDDEN.get(part(path), set())
    assert "tensormask_export" not in imports(path)


def test_the_direction_test_can_fail(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from tensormask_edu.detector.model import build_model\nimport torch\n")
    assert imports(wrong) == {"model", "torch"}


def test_the_reference_imports_numpy_alone():
    for path in (PACKAGE / "reference").glob("*.py"):
        assert imports(path) <= {
            "numpy",
            "__future__",
            "math",
            "collections",
            "itertools",
            "typing",
        }, path.name


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in memory after a statement in a fresh interpreter."""
    code = f"{statement}\nimport sys\nprint(*{{m.split('.')[0] for m in sys.modules}})"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(run.stdout.split())


def test_the_reference_runs_without_torch():
    assert "torch" not in loaded_by("import tensormask_edu.reference")
    assert "torch" in loaded_by(
        "import tensormask_edu.ops"
    )  # so the line above could have failed


def test_the_operators_need_no_torchvision():
    assert not {"torchvision", "matplotlib", "pycocotools"} & loaded_by(
        "import tensormask_edu.ops"
    )


def test_the_model_loads_no_drawing_and_no_exporter():
    heavy = {
        "matplotlib",
        "pycocotools",
        "onnx",
        "onnxruntime",
        "tensorrt",
        "tensorrt_rtx",
        "tensormask_export",
    }
    assert not heavy & loaded_by("import tensormask_edu.detector.model")


BANNED = re.compile(r"^(lambda_\w*|\w*anchor\w*|lvl|anc|roi)$")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_names_are_the_fields(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
    assert not {name for name in names if BANNED.match(name)}


def functions(path: Path) -> list[ast.FunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def test_functions_are_short():
    lengths = sorted(f.end_lineno - f.lineno + 1 for path in SOURCES for f in functions(path))
    assert lengths[len(lengths) // 2] <= 15
    assert sum(length > 60 for length in lengths) <= 3


def test_the_training_loop_is_a_page():
    assert len((PACKAGE / "train.py").read_text().splitlines()) <= 220


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_public_functions_say_what_they_do(path):
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.name}: {node.name}"


def tree_in_readme() -> list[str]:
    """Paths in the README's tree: indentation gives the folder, the first word the name."""
    block = re.search(
        r"```text\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S
    )
    assert block, "README.md has no ```text tree"
    paths, folders = [], []
    for line in block[1].splitlines():
        if not line.strip():
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        for name in re.split(r"  +", line.strip())[0].split():
            folders = folders[:depth]
            paths.append("/".join([*folders, name.rstrip("/")]))
        if name.endswith("/"):
            folders = [*folders, name.rstrip("/")]
    return paths


def test_the_readme_tree_names_what_is_there():
    paths = tree_in_readme()
    assert not [path for path in paths if not (ROOT / path).exists()]
    modules = {
        str(p.relative_to(ROOT)) for p in PACKAGE.glob("*.py") if not p.name.startswith("__")
    }
    assert modules <= set(paths), sorted(modules - set(paths))


def test_texts_name_no_machine():
    machine = re.compile(
        r"/work/|/root/|/home/[a-z]+/|pypi\.org|pythonhosted|registry\.npmjs|deb\.debian"
    )
    listed = subprocess.run(
        ["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    for name in listed.stdout.split():
        if (
            name.endswith((".py", ".md", ".toml", ".txt", ".json", ".h", ".cu", ".cpp"))
            and name != "tests/test_architecture.py"
        ):
            assert not machine.search((ROOT / name).read_text(encoding="utf-8")), name
