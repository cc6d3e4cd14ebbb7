"""Copies of the repository, and fresh processes in them that run some tests.

A process is forked before anything of ours is loaded, but after torch is: loading that takes
longer than most of the tests.
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
from pathlib import Path
from typing import Any

import pycocotools.mask  # noqa: F401
import pytest
import torch  # noqa: F401
import torchvision  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("TENSORMASK_SHARED", ROOT.parent / "shared"))
LEFT_OUT = shutil.ignore_patterns(
    ".*", "outputs", "work", "dist", "node_modules", "_build", "built", "__pycache__", "*.ipynb"
)
# A deadlock uses no processor; on a busy machine a test takes ten times as long as alone.
PATIENCE = 10


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
    """Wait for the next process to end: its number, and its exit code, -1 if it was stopped."""
    child, status = os.wait()
    try:
        os.killpg(child, signal.SIGKILL)  # what it left behind
    except ProcessLookupError:
        pass
    return child, os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1


def run_tests(tests: list[str], plugin: Any = None, *words: str) -> int:
    """Run tests in this process, to the first failure if no plugin watches."""
    options = ["-q", "-p", "no:cacheprovider", f"--basetemp={Path.cwd() / 'pytest'}", *words]
    return int(pytest.main([*options, *tests], [plugin] if plugin else None))


class FirstFailure:
    """Notes which test failed, in `verdict.json` of the copy."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        verdict = Path("verdict.json")
        if report.failed and not verdict.exists():
            verdict.write_text(json.dumps(report.nodeid))
