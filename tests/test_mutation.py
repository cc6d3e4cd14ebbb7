"""The faults of `make mutate`: each is a program, each exception is still a fault."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

FOLDER = Path(__file__).with_name("mutation")
sys.path.insert(0, str(FOLDER))

from mutants import mutants

EXAMPLE = '''
def window(x, low=2):
    """Not this one: 1 < 2."""
    if len(x) <= 3 and low > 0:
        raise ValueError(f"{low + 1} is {1 < 2}")
    x[:, 1:] += min(x.sum(), low)
    return x[0, :low], -low
'''


def changes(text: str, path: str = "example.py") -> set[tuple[str, str]]:
    return {(mutant.before, mutant.after) for mutant in mutants(path, text)}


def test_every_kind_of_fault_is_put_in_where_it_can_matter():
    assert changes(EXAMPLE) == {
        ("2", "3"), ("2", "1"),  # the default
        ("len(x) <= 3 and low > 0", "(len(x) <= 3 or low > 0)"),
        ("len(x) <= 3 and low > 0", "(not (len(x) <= 3 and low > 0))"),
        ("len(x) <= 3", "(len(x) < 3)"), ("len(x) <= 3", "(len(x) > 3)"),
        ("low > 0", "(low >= 0)"), ("low > 0", "(low <= 0)"),
        ("3", "4"), ("3", "2"), ("0", "1"), ("0", "(-1)"), ("1", "2"), ("1", "0"),
        ("x[:, 1:] += min(x.sum(), low)", "x[:, 1:] -= min(x.sum(), low)"),
        ("x[:, 1:] += min(x.sum(), low)", "pass"),
        ("1:", ":"), (":low", ":"), (":, 1:", "1:, :"),
        ("min", "max"), ("x.sum", "x.mean"), ("min(x.sum(), low)", "min(low, x.sum())"),
        ("return x[0, :low], -low", "return None"), ("0, :low", ":low, 0"),
        ("x[0, :low], -low", "-low, x[0, :low]"), ("-low", "low"),
    }  # fmt: skip


def test_words_of_cpp_are_changed_outside_comments_and_brackets():
    text = "#if A < 2\nint a = f<T, 1>(b) < c;  // 3 < 4\n"
    assert changes(text, "example.h") == {
        ("1", "2"), ("1", "0"), (" < ", " <= "), (" < ", " >= "),
    }  # fmt: skip


VERDICTS = """
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from run import ended, start, to_the_first_failure, verdict

for name in sys.argv[2:]:
    Path("verdict.json").unlink(missing_ok=True)
    start(Path.cwd(), 60, partial(to_the_first_failure, {name: 0.1}))
    print(*verdict(ended()[1], Path.cwd()).values())
"""


def test_a_fickle_test_notices_nothing_and_what_cannot_be_loaded_is_told_apart(tmp_path):
    fickle = "tries = []\ndef test_fickle():\n    tries.append(0)\n    assert len(tries) > 1\n"
    wrong = "def test_wrong():\n    assert not 1\ndef test_right():\n    assert 1\n"
    ends = "def test_ends():\n    import os\n    os.kill(os.getpid(), 11)\n"
    (tmp_path / "test_some.py").write_text(fickle + wrong + ends)
    (tmp_path / "test_broken.py").write_text("import not_there\n\ndef test_it(): pass\n")
    names = [f"test_some.py::test_{word}" for word in ("fickle", "right", "wrong", "ends")]
    words = [sys.executable, "-c", VERDICTS, str(FOLDER), *names, "test_broken.py::test_it"]
    run = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout.splitlines() == [
        "survived",
        "survived",
        f"killed {names[2]}",
        f"stopped SIGSEGV in {names[3]}",
        "not loaded test_broken.py",
    ], run.stderr
    unknown = subprocess.run(
        [*words[:4], "test_some.py::test_renamed"], cwd=tmp_path, capture_output=True, text=True
    )
    assert unknown.returncode and "another name now" in unknown.stderr


@pytest.mark.parametrize("path", ["geometry.py", "ops/windows.py", "detector/targets.py"])
def test_every_fault_is_another_program_that_compiles(path):
    text = (ROOT / "tensormask_edu" / path).read_text()
    whole, found = ast.dump(ast.parse(text)), mutants(f"tensormask_edu/{path}", text)
    assert len(found) > 100
    for mutant in found:
        assert ast.dump(ast.parse(mutant.applied(text))) != whole, mutant


def test_what_is_listed_as_equivalent_is_still_there_and_has_a_reason():
    entries = tomllib.loads((FOLDER / "equivalent.toml").read_text())["equivalent"]
    for entry in entries:
        text = (ROOT / entry["path"]).read_text()
        found = {
            (mutant.code, f"{mutant.operator} {mutant.before!r} -> {mutant.after!r}")
            for mutant in mutants(entry["path"], text)
        }
        assert (entry["code"], entry["change"]) in found, entry
        assert len(entry["reason"].split()) > 3, entry
