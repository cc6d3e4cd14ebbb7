"""Which test runs which line, and how long each takes: coverage.py, a test file at a time."""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache, partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import coverage
import pytest
from children import ROOT, ended, run_tests, start
from mutants import Mutant, is_text

# No more of them for one mutant: cases of one function notice the same
MOST_TESTS, MOST_SECONDS = 120, 40.0
# For a file that takes minutes under coverage
COLLECTING_SECONDS = 3000
SOURCES = ("tensormask_edu", "exporters/tensormask_export")
# What tests a C++ file: those that use one of these fixtures
COMPILED = {
    "gpu/": {"device", "emulator"},
    "cpu/": {"compiled_cpu"},
    "core.h": {"device", "compiled_cpu"},
}
# These change the sources themselves, and fail where a text is not found.
ABOUT_TEXTS = ("mistake", "without_a_barrier")


def digest(*paths: Path) -> str:
    """Of the bytes of files."""
    found = hashlib.sha256()
    for path in paths:
        found.update(path.read_bytes())
    return found.hexdigest()[:12]


def meaning(path: Path) -> str:
    """A digest of what a source does: of Python without comments and docstrings."""
    if path.suffix != ".py":
        return digest(path)
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and is_text(body[0]):
            del body[0]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:12]


class Watch:
    """A pytest plugin: lines by test, and seconds of the processor by test."""

    def __init__(self, target: Path) -> None:
        self.target, self.tests, self.failed = target, {}, set()
        self.coverage = coverage.Coverage(
            data_file=str(target), source=list(SOURCES), config_file=False
        )
        self.coverage.set_option("run:relative_files", True)
        self.coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.coverage.switch_context(item.nodeid)
        began = sum(os.times()[:4])
        result = yield
        seconds = sum(os.times()[:4]) - began
        fixtures = sorted(set(item.fixturenames) & set.union(*COMPILED.values()))
        self.tests[item.nodeid] = {"seconds": round(seconds, 3), "fixtures": fixtures}
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome != "passed":
            self.failed.add(report.nodeid)

    def save(self) -> None:
        self.coverage.stop()
        self.coverage.save()
        passed = {name: test for name, test in self.tests.items() if name not in self.failed}
        self.target.with_suffix(".json").write_text(json.dumps(passed))


def watched(test_file: str, target: Path) -> int:
    """Run a test file and keep what it ran. What fails or skips here is not asked later."""
    watch = Watch(target)
    code = run_tests([test_file], watch, "-m", "not long")
    watch.save()
    return code


def collect(folder: Path, tree: Path, test_files: Iterable[str], keep: bool = False) -> None:
    """What `Tests` reads, for each file whose text or whose sources changed since.

    Args:
        keep: a file is watched anew for its own text alone.
    """
    sources = [path for room in SOURCES for path in (tree / room).rglob("*.py")]
    helpers = [path for path in (tree / "tests").glob("*.py") if "test_" not in path.name]
    state = digest(*sorted(sources), *sorted(helpers))
    folder.mkdir(parents=True, exist_ok=True)
    for test_file in test_files:
        name = f"{Path(test_file).stem}-{digest(tree / test_file)}"
        if list(folder.glob(f"{name}-{'*' if keep else state}.json")):
            continue
        for old in folder.glob(f"{Path(test_file).stem}-*"):
            old.unlink()
        print(f"lines of {test_file} ...", flush=True)
        target = folder / f"{name}-{state}.coverage"
        start(tree, COLLECTING_SECONDS, partial(watched, test_file, target))
        ended()
        if not target.with_suffix(".json").exists():
            said = (tree / "said.txt").read_text()[-2000:]
            raise SystemExit(f"{test_file} was not run to its end:\n{said}")


class Tests:
    """The tests that were watched, and which of them a mutant must face."""

    def __init__(self, folder: Path) -> None:
        self.tests: dict[str, dict[str, Any]] = {}
        self.data = []
        for path in sorted(folder.glob("*.json")):
            stem, text, _ = path.stem.rsplit("-", 2)
            if text != digest(ROOT / "tests" / f"{stem}.py"):
                continue  # its tests may have other names now
            self.tests |= json.loads(path.read_text())
            data = coverage.CoverageData(basename=str(path.with_suffix(".coverage")))
            data.read()
            self.data.append(data)

    @cache  # noqa: B019
    def by_line(self, path: str) -> dict[int, set[str]]:
        """Which tests ran each line of a source; "" where it ran while a file was loaded."""
        found: dict[int, set[str]] = defaultdict(set)
        for data in self.data:
            for line, names in data.contexts_by_lineno(path).items():
                found[line] |= set(names) & {"", *self.tests}
        return found

    def facing(self, mutant: Mutant) -> list[str]:
        """The tests to run on a mutant, of each function the quickest case first."""
        if not mutant.path.endswith(".py"):
            fixtures = next(names for part, names in COMPILED.items() if part in mutant.path)
            return self.chosen(
                name
                for name, test in self.tests.items()
                if fixtures & set(test["fixtures"]) and not any(w in name for w in ABOUT_TEXTS)
            )
        by_line = self.by_line(mutant.path)
        first, last = mutant.lines
        names = set().union(*(by_line.get(line, ()) for line in range(first, last + 1)))
        if "" in names:  # whoever uses the module may notice, a test of the line itself first
            return self.chosen(names - {""}, set().union(*by_line.values()) - {""} - names)
        return self.chosen(names)

    def chosen(self, *groups: Iterable[str]) -> list[str]:
        """At most so many, and so long, the first group's before the next one's.

        They come file after file, as those of a file share what is slow to make.
        """
        taken, total = [], 0.0
        for names in groups:
            cases: dict[str, list[str]] = defaultdict(list)
            for name in sorted(names, key=lambda name: (self.seconds(name), name)):
                cases[name.split("[")[0]].append(name)
            for name in filter(None, chain(*zip_longest(*cases.values()))):
                if not taken or total + self.seconds(name) <= MOST_SECONDS:
                    taken.append(name)
                    total += self.seconds(name)
        return self.file_by_file(taken[:MOST_TESTS])

    def file_by_file(self, names: Iterable[str]) -> list[str]:
        """The same tests, the quickest file first."""
        files: dict[str, list[str]] = defaultdict(list)
        for name in names:
            files[name.split("::")[0]].append(name)
        quick_first = sorted(files.values(), key=lambda part: sum(map(self.seconds, part)))
        return [name for part in quick_first for name in part]

    def seconds(self, name: str) -> float:
        return float(self.tests[name]["seconds"])

    def share_run(self, paths: Iterable[str]) -> float:
        """Of the lines of these Python files that could run, the share that did."""
        together = coverage.Coverage(data_file=None, config_file=False)
        together.set_option("run:relative_files", True)
        for data in self.data:
            together.get_data().update(data)
        counted = [together.analysis2(path) for path in paths if path.endswith(".py")]
        statements, missing = (sum(len(c[k]) for c in counted) for k in (1, 3))
        return 1 - missing / statements if statements else 1.0
