"""The faults of `make mutate`: each is a program, each exception is still a fault."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

FOLDER = Path(__file__).with_name("mutation")
sys.path.insert(0, str(FOLDER))

from operators import mutants

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
