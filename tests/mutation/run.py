"""Puts small faults into the core, one at a time, and looks whether a test notices.

    make mutate                                            40 of each room, an hour at most
    python tests/mutation/run.py --rooms geometry ops      of these alone
    python tests/mutation/run.py --count 80 --jobs 2       more: the first 40 are not run again

A seed draws the faults; a test file at a time is watched beforehand (coverage.py), so that each
fault faces the tests that ran its line, the quickest first, 120 tests and 40 seconds at most,
in a fresh process on a copy of the repository. A fault counts as noticed if a test fails twice
in a row, or takes far longer than without it. Whatever test noticed one must pass there without
it, or what it noticed is forgotten and the run ends. Faults that keep a file from being loaded
or compiled count neither way: no test is needed for them. Results stay in outputs/mutation:
`results.jsonl`, and `report.md`, which lists what no test noticed. A run that was stopped goes
on where it was; a fault that survived is tried again when its tests change. Faults that change
nothing stand in `equivalent.toml`, each with its reason, and are not run. Exit code 1 if in
some room fewer than 95 of 100 others were noticed.

Why no tool: mutmut (3.8) chooses tests by function, not by line, leaves out decorated functions
(most of `geometry.py`, and all that is registered with torch) and constants of modules, and its
wrappers around functions hide the signatures that torch reads; cosmic-ray (8.7) has one command
of tests for all mutants and draws no sample. Neither knows C++.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
import tomllib
from collections.abc import Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded

from children import ROOT, ended, fresh_tree, preload, start, to_the_first_failure
from lines import SOURCES, Tests, collect, digest, meaning
from mutants import Mutant, mutants

OUTPUT = ROOT / "outputs" / "mutation"
KERNELS = "plugins/swap_align2nat"
# What the issue of trust is about: room -> its sources
ROOMS = {
    "geometry": ["tensormask_edu/geometry.py"],
    "reference": ["tensormask_edu/reference/*.py"],
    "ops": ["tensormask_edu/ops/*.py"],
    "detector": ["tensormask_edu/detector/*.py"],
    "data": ["tensormask_edu/data/*.py", "tensormask_edu/masks.py"],
    "scoring": ["tensormask_edu/evaluation/*.py"],
    "training": ["tensormask_edu/training/*.py"],
    "graph": ["exporters/tensormask_export/onnx_file/graph.py"],
    "detections": ["exporters/tensormask_export/runtimes/detections.py"],
    "kernels": [f"{KERNELS}/core.h", f"{KERNELS}/gpu/kernels.cu", f"{KERNELS}/cpu/*.h"],
}
TEST_FILES = [
    f"tests/test_{name}.py"
    for name in (
        "geometry masks upsampled losses targets inference heads transforms swap_align2nat "
        "views tiles model data strangers evaluate lost checkpoint memory kernels train "
        "distributed golden export export_detector run verify weights ablations limits "
        "messages"
    ).split()
]
NOTICED, AT_LEAST = ("killed", "stopped"), 0.95
UNFIT = ("broken", "not loaded")  # by a compiler, by Python: others take their place
# What a mutant may take beyond five times its tests: loading, fixtures
STARTING_SECONDS = 60


class Trial(NamedTuple):
    """A mutant in a copy, at work."""

    room: str
    mutant: Mutant
    tests: list[str]
    tree: Path
    began: float


def sources_of(room: str) -> list[str]:
    found = [path for pattern in ROOMS[room] for path in sorted(ROOT.glob(pattern))]
    return [path.relative_to(ROOT).as_posix() for path in found]


def drawn(room: str, seed: int) -> list[Mutant]:
    """All mutants of a room in a random order."""
    found = [m for path in sources_of(room) for m in mutants(path, (ROOT / path).read_text())]
    random.Random(f"{seed} {room}").shuffle(found)
    return found


# --- one mutant -------------------------------------------------------------------------------


def key(mutant: Mutant, tests: list[str]) -> dict[str, str]:
    """What a result holds for: the change, and the files of its source and its tests."""
    files = sorted({name.split("::")[0] for name in tests})
    place = f"{mutant.path}:{mutant.line}:{mutant.column}"
    return {
        "mutant": f"{place} {mutant.operator} {mutant.before!r} -> {mutant.after!r}",
        "source": meaning(ROOT / mutant.path),
        "tests": digest(*(ROOT / file for file in files)) if files else "",
    }


def compiles(mutant: Mutant, text: str, tree: Path) -> bool:
    """Whether the changed file is one that a compiler takes."""
    if mutant.path.endswith(".py"):
        try:
            compile(text, mutant.path, "exec")
        except SyntaxError:
            return False
        return True
    sources = ("tests/emulated_kernels.cpp", f"{KERNELS}/cpu/kernels.cpp")
    flags = ["-std=c++17", "-fsyntax-only", "-w", "-DSWAP_DTYPE=1", f"-I{KERNELS}"]
    return not any(
        subprocess.run(["g++", *flags, source], cwd=tree, capture_output=True).returncode
        for source in sources
    )


def begin(room: str, mutant: Mutant, tests: list[str], tree: Path, tests_of: Tests) -> int:
    """Start the tests on a changed copy; 0 if no compiler takes the change."""
    text = mutant.applied((ROOT / mutant.path).read_text())
    (tree / mutant.path).write_text(text)
    return ask(tests, tree, tests_of) if compiles(mutant, text, tree) else 0


def ask(tests: Iterable[str], tree: Path, tests_of: Tests) -> int:
    """Start tests on a copy as it is; returns the number of their process."""
    # Compiled kernels: a mutant may write what the next one must not find.
    shutil.rmtree(tree / "cache", ignore_errors=True)
    if (OUTPUT / "cache").is_dir():
        shutil.copytree(OUTPUT / "cache", tree / "cache")
    for name in ("verdict.json", "at.txt"):
        (tree / name).unlink(missing_ok=True)
    timed = {name: tests_of.seconds(name) for name in tests}
    seconds = STARTING_SECONDS + 5 * sum(timed.values())
    return start(tree, int(seconds), partial(to_the_first_failure, timed))


def keep_cache(tree: Path) -> None:
    """Keep what was compiled without a fault."""
    if (tree / "cache").is_dir():
        shutil.copytree(tree / "cache", OUTPUT / "cache", dirs_exist_ok=True)


def restore(mutant: Mutant, tree: Path) -> None:
    shutil.copy2(ROOT / mutant.path, tree / mutant.path)


def verdict(code: int, tree: Path) -> dict[str, str]:
    """What became of a mutant whose tests ended with an exit code."""
    found, said = tree / "verdict.json", (tree / "said.txt").read_text(errors="replace")
    noted = json.loads(found.read_text()) if found.exists() else {}
    if code < 0:
        at = (tree / "at.txt").read_text() if (tree / "at.txt").exists() else "loading"
        return {"outcome": "stopped", "by": f"{signal.Signals(-code).name} in {at}"}
    if code == 0:
        return {"outcome": "survived"}
    if "failed" in noted:
        return {"outcome": "killed", "by": noted["failed"]}
    if "not found:" in said and not noted:
        raise SystemExit(f"a test has another name now; watch them anew\n{said[-2000:]}")
    return {"outcome": "not loaded", "by": noted.get("not loaded", said[-200:])}


# --- all of them ------------------------------------------------------------------------------


class Results:
    """The results so far, a line of JSON each; the last one of a mutant counts."""

    def __init__(self, path: Path) -> None:
        self.path, self.found = path, {}
        for line in path.read_text().splitlines() if path.exists() else []:
            record = json.loads(line)
            self.found[record["mutant"]] = record

    def of(self, wanted: dict[str, str]) -> dict[str, Any] | None:
        """The result that still holds, if there is one."""
        record = self.found.get(wanted["mutant"])
        if record is None or record["source"] != wanted["source"]:
            return None
        settled = record["outcome"] in (*NOTICED, *UNFIT)
        return record if settled or record["tests"] == wanted["tests"] else None

    def forget(self, test: str) -> None:
        """Leave out what a test noticed that fails without a fault too."""
        self.found = {name: r for name, r in self.found.items() if r.get("by") != test}
        lines = "".join(json.dumps(record) + "\n" for record in self.found.values())
        self.path.write_text(lines)

    def add(self, record: dict[str, Any]) -> None:
        self.found[record["mutant"]] = record
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(f"{record['outcome']:9} {record['mutant'][:100]}", flush=True)


class Unchanged:
    """Which tests passed on a copy without a fault, asked in the same way."""

    def __init__(self, path: Path, tests: Tests) -> None:
        self.path, self.tests = path, tests
        self.passed = json.loads(path.read_text()) if path.exists() else {}
        files = [path for folder in SOURCES for path in sorted((ROOT / folder).rglob("*.py"))]
        files += [p for p in sorted((ROOT / "tests").glob("*.py")) if "test_" not in p.name]
        self.sources = " ".join(meaning(path) for path in files)

    def new(self, names: Iterable[str]) -> list[str]:
        """Those that were not run yet."""
        return [name for name in names if self.passed.get(name) != self.state(name)]

    def failing(self, names: Iterable[str], tree: Path) -> str:
        """The first that fails of those that were not run yet; "" if all pass."""
        if not (new := self.new(names)):
            return ""
        print(f"{len(new)} tests without a fault ...", flush=True)
        ask(new, tree, self.tests)
        _, code = ended()
        if code:
            return (tree / "at.txt").read_text()  # where it ended
        keep_cache(tree)
        self.passed |= {name: self.state(name) for name in new}
        self.path.write_text(json.dumps(self.passed))
        return ""

    @cache  # noqa: B019
    def state_of(self, file: str) -> str:
        together = digest(ROOT / file) + self.sources
        return hashlib.sha256(together.encode()).hexdigest()[:12]

    def state(self, name: str) -> str:
        return self.state_of(name.split("::")[0])


class Run:
    """Draws mutants and tries them, in as many copies as there are jobs."""

    def __init__(self, args: argparse.Namespace, tests: Tests, trees: list[Path]) -> None:
        self.args, self.tests, self.free = args, tests, trees
        self.results = Results(OUTPUT / "results.jsonl")
        self.unchanged = Unchanged(OUTPUT / "unchanged.json", tests)
        self.working: dict[int, Trial] = {}
        self.listed = equivalents()
        self.until = time.monotonic() + 60 * args.minutes

    def room(self, room: str) -> None:
        """Try mutants until so many of a room have been tried, or time is up."""
        tried = 0
        for mutant in drawn(room, self.args.seed):
            if tried + len(self.working) >= self.args.count:
                tried += self.wait_for_all()
            if tried >= self.args.count or time.monotonic() > self.until:
                break
            names = self.tests.facing(mutant)
            record = self.results.of(key(mutant, names))
            untried = key(mutant, names) | {"room": room, "code": mutant.code}
            if record is None and (not names or without_line(untried) in self.listed):
                record = untried | {"outcome": "not run"}
                self.results.add(record)
            if record is None:
                tried += self.try_one(room, mutant, names)
            else:
                tried += record["outcome"] not in UNFIT
        self.wait_for_all()
        self.check_who_noticed(room)

    def check_who_noticed(self, room: str) -> None:
        """Run the tests that noticed something in a room without a fault: they must pass."""
        known, records = self.tests.tests, self.results.found.values()
        noticed = {r["by"] for r in records if r["room"] == room and r["outcome"] == "killed"}
        names = self.tests.file_by_file(sorted(noticed & known.keys()))
        if test := self.unchanged.failing(names, self.free[0]):
            self.results.forget(test)
            said = (self.free[0] / "said.txt").read_text(errors="replace")
            raise SystemExit(f"fails without a fault: {test}\n{said[-3000:]}")

    def try_one(self, room: str, mutant: Mutant, names: list[str]) -> int:
        """Start one, after others have ended if no copy is free; returns how many did."""
        done = 0 if self.free else self.wait()
        tree = self.free.pop()
        child = begin(room, mutant, names, tree, self.tests)
        trial = Trial(room, mutant, names, tree, time.monotonic())
        if child:
            self.working[child] = trial
        else:
            self.end(trial, {"outcome": "broken"})
        return done

    def wait(self) -> int:
        child, code = ended()
        trial = self.working.pop(child)
        found = verdict(code, trial.tree)
        self.end(trial, found)
        return int(found["outcome"] not in UNFIT)

    def wait_for_all(self) -> int:
        return sum(self.wait() for _ in list(self.working))

    def end(self, trial: Trial, found: dict[str, str]) -> None:
        record = key(trial.mutant, trial.tests) | {"room": trial.room} | found
        record |= {"code": trial.mutant.code, "asked": len(trial.tests)}
        self.results.add(record | {"seconds": round(time.monotonic() - trial.began, 1)})
        restore(trial.mutant, trial.tree)
        self.free.append(trial.tree)

    def sample(self, room: str) -> list[dict[str, Any]]:
        """The results of a room's sample as far as it was tried, with those that are unfit."""
        found, fit = [], 0
        for mutant in drawn(room, self.args.seed):
            record = self.results.of(key(mutant, self.tests.facing(mutant)))
            if record is None or fit == self.args.count:
                break
            found.append(record)
            fit += record["outcome"] not in UNFIT
        return found


# --- report -----------------------------------------------------------------------------------


def equivalents() -> dict[str, str]:
    """Mutants that change nothing, without their line: with the reason."""
    path = Path(__file__).with_name("equivalent.toml")
    entries = tomllib.loads(path.read_text())["equivalent"]
    return {f"{e['path']} {e['code']} {e['change']}": e["reason"] for e in entries}


def without_line(record: dict[str, Any]) -> str:
    """How `equivalent.toml` names a mutant: by the text of its line, not by its number."""
    place, change = record["mutant"].split(" ", 1)
    return f"{place.split(':')[0]} {record.get('code', '')} {change}"


def report(run: Run) -> tuple[str, bool]:
    """The report, and whether every room has what it should."""
    listed, rows, survivors, enough = run.listed, [], [], True
    for room in run.args.rooms:
        drawn_ones = run.sample(room)
        sample = [r for r in drawn_ones if r["outcome"] not in UNFIT]
        noticed = [r for r in sample if r["outcome"] in NOTICED]
        others = [r for r in sample if r["outcome"] not in NOTICED]
        left = [r for r in others if without_line(r) not in listed]
        share = len(noticed) / max(len(noticed) + len(left), 1)
        enough &= share >= AT_LEAST
        lines = "" if room == "kernels" else f"{run.tests.share_run(sources_of(room)):.1%}"
        by_time = sum(r["outcome"] == "stopped" for r in sample)
        counts = [len(noticed), by_time, len(others) - len(left), len(left)]
        minutes = sum(r.get("seconds", 0) for r in drawn_ones) / 60
        cells = [room, f"{len(sample)} of {run.args.count}", *counts, f"{share:.1%}"]
        cells += [len(drawn_ones) - len(sample), lines, f"{minutes:.1f}"]
        rows.append(f"| {' | '.join(map(str, cells))} |")
        survivors += [
            f"- {r['outcome']}: `{r['mutant']}`\n  `{r.get('code', '')}`" for r in left
        ]
    head = "| room | tried | noticed | of these stopped | equivalent | survived |"
    head += " noticed of others | not loaded | lines run | minutes |"
    rule = "| --- " + "| --: " * 9 + "|"
    return "\n".join([head, rule, *rows, "", *survivors, ""]), enough


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rooms", nargs="+", choices=ROOMS, default=list(ROOMS))
    parser.add_argument("--count", type=int, default=40, help="mutants of each room")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, choices=(1, 2), help="processes")
    parser.add_argument("--minutes", type=float, default=60, help="begin none after so long")
    parser.add_argument("--lines-only", action="store_true", help="watch the tests, no more")
    words = "after a change of some lines: watch no tests for it"
    parser.add_argument("--keep-lines", action="store_true", help=words)
    args = parser.parse_args()
    os.chdir(ROOT)
    preload()
    trees = [fresh_tree(OUTPUT / f"tree{job}") for job in range(args.jobs)]
    collect(OUTPUT / "lines", trees[0], TEST_FILES, args.keep_lines)
    keep_cache(trees[0])
    if args.lines_only:
        return 0
    run = Run(args, Tests(OUTPUT / "lines"), trees)
    for room in args.rooms:
        run.room(room)
    text, enough = report(run)
    (OUTPUT / "report.md").write_text(text)
    print(text)
    return 0 if enough else 1


if __name__ == "__main__":
    raise SystemExit(main())
