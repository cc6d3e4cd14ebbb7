"""Every error message of the product, and a test that triggers it, in `errors.json`.

The list is held from both sides: `test_errors.py` finds the messages in the sources, and while
tests run it is noted which of them were made. A test that stands in the list and does not make
its message fails. `pytest FILES --note-errors` adds messages that have no test yet.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (ROOT / "tensormask_edu", ROOT / "exporters" / "tensormask_export")
LIST = Path(__file__).with_name("errors.json")
Listed = dict[str, dict[str, str]]  # file -> message -> test, or "- why there is none"


class Site(NamedTuple):
    """Where a message is made: path from the root, its lines, its text with {holes}."""

    path: str
    first: int
    last: int
    message: str


# --- the messages in the sources --------------------------------------------------------------

# Functions that raise for those who call them, with the place of their first word
RAISERS = {"require": 1, "_require": 1}
# No message of ours: how a process ends, and how Python asks
SILENT = {"SystemExit", "KeyboardInterrupt", "StopIteration", "AttributeError"}


@cache
def sites() -> tuple[Site, ...]:
    """All of them, in the order of files and lines."""
    return tuple(
        site for root in PACKAGES for path in sorted(root.rglob("*.py")) for site in _in(path)
    )


def _in(path: Path) -> Iterator[Site]:
    name = path.relative_to(ROOT).as_posix()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    within = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and function.name in RAISERS
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if id(node) in within or not isinstance(node, ast.Raise | ast.Call):
            continue
        if isinstance(node, ast.Raise):
            call, skipped = node.exc, 0
        else:
            call, skipped = node, RAISERS.get(_name(node.func), -1)
        if isinstance(call, ast.Call) and skipped >= 0 and _name(call.func) not in SILENT:
            yield Site(
                name, node.lineno, node.end_lineno or node.lineno, _message(call, skipped)
            )


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _message(call: ast.Call, skipped: int) -> str:
    words = [_text(argument) for argument in call.args[skipped:]]
    name = _name(call.func)
    if name == "bad_input" or name in RAISERS:
        if name == "_require":  # ours name the argument themselves
            return f"expected {words[0]}, got {', '.join(words[1:])}"
        return f"{words[0]}: expected {', got '.join(words[1:3])}" + "".join(
            f"; {fix}" for fix in words[3:]
        )
    return f"{name}: {', '.join(words)}"


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        parts = (
            str(part.value) if isinstance(part, ast.Constant) else f"{{{_hole(part)}}}"
            for part in node.values
        )
        return "".join(parts)
    return f"{{{ast.unparse(node)}}}"


def _hole(part: ast.expr) -> str:
    return ast.unparse(part.value) if isinstance(part, ast.FormattedValue) else ""


@cache
def _by_file() -> dict[str, list[Site]]:
    found: dict[str, list[Site]] = {}
    for site in sites():
        found.setdefault(site.path, []).append(site)
    return found


@cache
def _at(filename: str, line: int) -> tuple[str, str] | None:
    """(file, message) of the innermost site at a line."""
    path = Path(filename)
    if not path.is_relative_to(ROOT):
        return None
    here = [
        site
        for site in _by_file().get(path.relative_to(ROOT).as_posix(), [])
        if site.first <= line <= site.last
    ]
    site = min(here, key=lambda site: site.last - site.first, default=None)
    return (site.path, site.message) if site else None


# --- the list ---------------------------------------------------------------------------------


def listed() -> Listed:
    return json.loads(LIST.read_text(encoding="utf-8")) if LIST.is_file() else {}


@cache
def _functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def is_there(test: str) -> bool:
    """Whether a listed test exists; a reason why there is none counts as one."""
    if test.startswith("- "):
        return True
    file, _, name = test.partition("::")
    return (ROOT / file).is_file() and name.split("[")[0] in _functions(ROOT / file)


def store(found: Listed) -> None:
    """Write the list, sorted as the sources are, without messages that are gone."""
    result: Listed = {}
    for site in sites():
        result.setdefault(site.path, {})[site.message] = found.get(site.path, {}).get(
            site.message, ""
        )
    LIST.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


# --- what a test makes ------------------------------------------------------------------------


class Recorder:
    """A plugin of pytest: notes the messages that each test makes."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.made: set[tuple[str, str]] = set()  # by the test that runs
        self.first: dict[tuple[str, str], str] = {}  # test that made a message first
        self.expected: dict[str, list[tuple[str, str]]] = {}
        for path, messages in listed().items():
            for message, test in messages.items():
                self.expected.setdefault(test, []).append((path, message))
        exit_of = pytest.RaisesExc.__exit__

        def noted(context: Any, kind: Any, error: Any, trace: Any) -> Any:
            self._note_trace(error)
            return exit_of(context, kind, error, trace)

        pytest.RaisesExc.__exit__ = noted  # type: ignore[method-assign]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        self.made.clear()
        _watch(self._note_frames)
        result = yield
        for key in self.made:
            self.first.setdefault(key, item.nodeid)
        missing = [key for key in self.expected.get(item.nodeid, []) if key not in self.made]
        if missing and not self.config.getoption("--note-errors"):
            pytest.fail(f"it did not make what errors.json says: {missing}")
        return result

    def pytest_sessionfinish(self) -> None:
        if not self.config.getoption("--note-errors"):
            return
        found = listed()
        for site in sites():
            known = found.setdefault(site.path, {})
            key = (site.path, site.message)
            if key in self.first and not is_there(known.get(site.message, "")):
                known[site.message] = self.first[key]
        store(found)

    def _note_frames(self) -> None:
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            self._note(frame.f_code.co_filename, frame.f_lineno)
            frame = frame.f_back

    def _note_trace(self, error: BaseException | None) -> None:
        while error is not None:
            trace: TracebackType | None = error.__traceback__
            while trace is not None:
                self._note(trace.tb_frame.f_code.co_filename, trace.tb_lineno)
                trace = trace.tb_next
            error = error.__cause__ or error.__context__

    def _note(self, filename: str, line: int) -> None:
        if "tensormask_" in filename and (site := _at(filename, line)):
            self.made.add(site)


def _watch(note: Any) -> None:
    """Let every exception class of ours say when it is made."""
    classes = [Exception]
    while classes:
        kind = classes.pop()
        classes += kind.__subclasses__()
        ours = kind.__module__.split(".")[0] in ("tensormask_edu", "tensormask_export")
        if not ours or "__noted__" in vars(kind):
            continue
        begin = kind.__init__

        def noted(self: Any, *words: Any, begin: Any = begin, **more: Any) -> None:
            note()
            begin(self, *words, **more)

        kind.__init__ = noted  # type: ignore[method-assign]
        kind.__noted__ = True  # type: ignore[attr-defined]
