"""Copies of the repository, and fresh processes in them that run some tests.

A process is forked before anything of ours is loaded, but after torch and the like are: loading
them takes longer than most of the tests.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

# What a process finds loaded, where it is installed
PRELOADED = (
    "torch torchvision pycocotools.mask hypothesis.strategies matplotlib.pyplot onnxruntime "
    "onnxscript"
).split()
ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("TENSORMASK_SHARED", ROOT.parent / "shared"))
LEFT_OUT = shutil.ignore_patterns(
    ".*", "outputs", "work", "dist", "node_modules", "_build", "built", "__pycache__", "*.ipynb"
)
# Plugins of pytest: nbmake alone takes longer to load than everything else
LEFT_ALONE = ("nbmake", "xdist", "cacheprovider", "anyio", "unraisableexception")
# A deadlock uses no processor; on a busy machine a test takes ten times as long as alone.
PATIENCE = 10
# What one test may take of the processor beyond five times what it took: shared fixtures
FIXTURES_SECONDS = 60


def preload() -> None:
    for module in PRELOADED:
        with suppress(ImportError):
            import_module(module)


def fresh_tree(folder: Path) -> Path:
    """A copy of the repository, without what is made anew or not tested here."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT, folder, ignore=LEFT_OUT)
    return folder


def start(tree: Path, cpu_seconds: int, work: Callable[[], int]) -> int:
    """Run `work` in a process of its own, in a copy; returns the process's number.

    It ends after so many seconds of the processor, or many times as long by the clock. Its
    exit code is what `work` returns; what it says goes to `said.txt` in the copy.
    """
    if child := os.fork():
        return child
    code = 1
    try:
        os.setsid()  # so that what it starts can be ended with it
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 10))
        signal.alarm(PATIENCE * cpu_seconds)
        os.chdir(tree)
        said = os.open(tree / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        paths = [str(tree), str(tree / "exporters")]
        sys.path[:] = [
            *paths,
            *(path for path in sys.path if path != str(Path(__file__).parent)),
        ]
        os.environ |= {
            "PYTHONPATH": os.pathsep.join(paths),
            "TENSORMASK_SHARED": str(SHARED),
            "TENSORMASK_CACHE": str(tree / "cache"),
        }
        code = work()
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code)


def ended() -> tuple[int, int]:
    """Wait for the next process to end: its number, and its exit code or, below 0, signal."""
    child, status = os.wait()
    try:
        os.killpg(child, signal.SIGKILL)  # what it left behind
    except ProcessLookupError:
        pass
    return child, os.waitstatus_to_exitcode(status)


def run_tests(tests: list[str], plugin: Any, *words: str) -> int:
    """Run tests in this process, without what costs time and is not asked here."""
    without = [word for name in LEFT_ALONE for word in ("-p", f"no:{name}")]
    # plain: rewritten asserts say more, and take longer to load than most tests to run
    options = ["-q", "--assert=plain", *without, f"--basetemp={Path.cwd() / 'pytest'}", *words]
    return int(pytest.main([*options, *tests], [plugin]))


def to_the_first_failure(tests: dict[str, float]) -> int:
    """Run tests in this process, file after file: most faults need no more than one loaded.

    Args:
        tests: the names, with the seconds that each takes.
    """
    for _, names in groupby(tests, lambda name: name.split("::")[0]):
        if code := run_tests(list(names), FirstFailure(tests), "-x"):
            return code
    return 0


class FirstFailure:
    """Notes which test failed, or that its file could not be loaded, in `verdict.json`.

    Only who fails twice in a row is believed. A test that takes far longer than without a fault
    ends the process, by a signal.
    """

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        from hypothesis import Phase, settings

        for plugin in config.pluginmanager.get_plugins():
            # conftest.py's: skips were looked at before, and messages are noted by the first
            # run of a process alone
            if type(plugin).__name__ in ("Skips", "Recorder"):
                config.pluginmanager.unregister(plugin)

        # One failing example is enough; a smaller one would be looked for. The same examples
        # each time, and no clock: who fails then fails for the fault.
        phases = (Phase.explicit, Phase.generate)
        words = {"phases": phases, "database": None, "derandomize": True, "deadline": None}
        settings.register_profile("mutation", **words)
        settings.load_profile("mutation")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        Path("at.txt").write_text(item.nodeid)
        limit = FIXTURES_SECONDS + 5 * self.seconds[item.nodeid]
        signal.setitimer(signal.ITIMER_PROF, limit)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE * limit)
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        if any(report.failed for report in reports):
            item._initrequest()  # type: ignore[attr-defined]
            reports = runtestprotocol(item, nextitem=nextitem, log=False)
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.note("failed", report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.note("not loaded", report)

    def note(self, what: str, report: pytest.TestReport | pytest.CollectReport) -> None:
        verdict = Path("verdict.json")
        if report.failed and not verdict.exists():
            verdict.write_text(json.dumps({what: report.nodeid}))
