"""The promises of the layout: floors, circles, names, weight of an import, the map."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "tensormask_edu"
EXPORTER = ROOT / "exporters" / "tensormask_export"
SOURCES = sorted(PACKAGE.rglob("*.py")) + sorted(EXPORTER.rglob("*.py"))
LONGEST_LINE = 96


def lint_imports(folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """What the import linter says of the floors in `.importlinter`, on a folder's sources."""
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from importlinter.cli import lint_imports\n"
        "sys.exit(lint_imports(no_cache=True))"
    )
    roots = [str(folder), str(folder / "exporters")]
    command = [sys.executable, "-c", code, *roots]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


def test_modules_import_from_their_floor_or_below_and_in_no_circle():
    run = lint_imports()
    assert run.returncode == 0, run.stdout + run.stderr


# What is added to a file, and the contract that it breaks.
WRONG = (
    ("geometry.py", "from .config import ModelConfig", "Floors of tensormask_edu"),
    ("data/truth.py", "def late():\n    from . import augment", "No import circle"),
    ("cli.py", "import tensormask_export.contract", "The exporter knows the package"),
    ("detector/network.py", "from .losses import class_loss", "The network knows neither"),
)


def test_the_floors_can_fail(tmp_path):
    for source in [*SOURCES, ROOT / ".importlinter"]:
        copy = tmp_path / source.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    for path, line, _ in WRONG:
        with open(tmp_path / "tensormask_edu" / path, "a", encoding="utf-8") as file:
            file.write(f"\n\n{line}\n")
    run = lint_imports(tmp_path)
    broken = [row for row in run.stdout.splitlines() if row.endswith("BROKEN")]
    assert run.returncode == 1
    for _, line, contract in WRONG:
        assert any(row.startswith(contract) for row in broken), f"{line}\n{run.stdout}"


@pytest.mark.parametrize(("package", "most"), [(PACKAGE, 17), (EXPORTER, 11)])
def test_the_corridor_is_short(package, most):
    entries = [p.name for p in package.iterdir() if not p.name.startswith("__")]
    assert len(set(entries) - {"py.typed"}) <= most, sorted(entries)


def imports(path: Path) -> set[str]:
    """Top names of what a file imports, its own package's left out."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").split(".")[0])
    return names


def test_the_reference_imports_numpy_alone():
    for path in (PACKAGE / "reference").glob("*.py"):
        assert imports(path) <= {
            "numpy",
            "__future__",
            "math",
            "collections",
            "functools",
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
    assert "torch" in loaded_by("import tensormask_edu.ops")  # so the line above can fail


def test_the_package_itself_loads_nothing():
    ours = {"tensormask_edu"}
    before, after = loaded_by("import importlib, typing"), loaded_by("import tensormask_edu")
    assert after - before == ours


def test_every_public_name_loads_from_the_module_that_defines_it():
    import tensormask_edu

    for name in tensormask_edu.__all__:
        found = getattr(tensormask_edu, name)
        assert found.__module__.startswith("tensormask_edu.") or callable(found)
    assert set(tensormask_edu.__all__) <= set(dir(tensormask_edu))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tensormask_edu.nothing  # noqa: B018


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
    assert lengths[-1] <= 60


def test_the_training_loop_is_a_page():
    assert len((PACKAGE / "training" / "train.py").read_text().splitlines()) <= 220


def comments_and_code(path: Path) -> tuple[int, int]:
    """Lines with a comment, and lines with code: docstrings and blank lines are neither."""
    text = path.read_text(encoding="utf-8")
    comments, code = set(), set()
    between = {
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments.add(token.start[0])
        elif token.type not in between:
            code.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            code -= set(range(node.lineno, node.end_lineno + 1))
    return len(comments), len(code)


@pytest.mark.parametrize("room", ["detector", "ops"])
def test_the_core_explains_itself(room):
    counts = [comments_and_code(path) for path in (PACKAGE / room).glob("*.py")]
    comments, code = (sum(column) for column in zip(*counts, strict=True))
    assert comments >= 0.08 * code, f"{comments} comments in {code} lines of code"


def committed(*endings: str) -> list[Path]:
    """Files that git knows, those that are deleted but not committed left out."""
    run = subprocess.run(
        ["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    paths = (ROOT / name for name in run.stdout.split() if name.endswith(endings))
    return [path for path in paths if path.is_file()]


def test_no_line_is_longer_than_96_columns():
    long = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in committed(".py", ".cu", ".h", ".cpp")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if len(line) > LONGEST_LINE and not line.startswith("# |")  # a Markdown table
    ]
    assert not long, "\n".join(long)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_public_functions_say_what_they_do(path):
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.name}: {node.name}"


def test_the_map_is_what_the_docstrings_say():
    command = [sys.executable, ROOT / "docs" / "make_map.py", "--check"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_reading_chain_visits_every_module_once(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import make_map

    chain = make_map.chain()  # raises at a second visit
    assert chain[0] == "tensormask_edu/geometry.py" and chain[-1] == "tensormask_export/cli.py"
    assert set(chain) == set(make_map.modules())


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_a_module_says_in_one_line_what_it_is(path):
    lines = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).splitlines()
    assert lines[0].endswith((".", "?")) and (len(lines) == 1 or not lines[1]), lines[0]


def test_texts_name_no_machine():
    machine = re.compile(
        r"/work/|/root/|/home/[a-z]+/|pypi\.org|pythonhosted|registry\.npmjs|deb\.debian"
    )
    for path in committed(".py", ".md", ".toml", ".txt", ".json", ".h", ".cu", ".cpp"):
        if path != Path(__file__):
            assert not machine.search(path.read_text(encoding="utf-8")), path
