"""Fixtures shared by all tests, seeds, and the list of checks that did not run."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

# One thread, before torch is loaded: most tests are small, and on busy cores two threads wait
# for each other. Those that need more ask for them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("TENSORMASK_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden vectors and data sets: `TENSORMASK_SHARED`, else beside us."""
    if not SHARED.is_dir():
        pytest.skip(
            "no shared data (golden vectors, data sets): set TENSORMASK_SHARED to their folder"
        )
    return SHARED


def made_once(tmp_path_factory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills, once for all processes of a run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not (done := folder / "made").exists():
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The tiny preset, exported as users do it: (checkpoint, ONNX file, report)."""
    from exported import checkpoint
    from tensormask_export import cli

    from tensormask_edu.config import InputConfig, model_config

    def make(folder: Path) -> None:
        made = checkpoint(folder, model_config("tiny", 3), InputConfig(enlarge=1.5))
        words = ["onnx", made, folder / "tiny.onnx"]
        words += ["--json", folder / "report.json"]
        assert cli.main([str(word) for word in words]) == 0

    folder = made_once(tmp_path_factory, "tiny", make)
    report = json.loads((folder / "report.json").read_text())
    return folder / "checkpoint", folder / "tiny.onnx", report


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A smaller model with dense masks: (checkpoint, ONNX file)."""
    from exported import SMALL, checkpoint
    from tensormask_export.onnx_file.write import export_onnx

    from tensormask_edu.config import InputConfig
    from tensormask_edu.weights.checkpoint import load_checkpoint

    def make(folder: Path) -> None:
        model, _ = load_checkpoint(checkpoint(folder, SMALL, InputConfig()))
        export_onnx(model, folder / "small.onnx", masks="dense", nms_iterations=24)

    folder = made_once(tmp_path_factory, "small", make)
    return folder / "checkpoint", folder / "small.onnx"


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state and leaves no trace of its own."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


# --- a run ------------------------------------------------------------------------------------

# Whole files go to one process, as most of them share what is slow to make: long ones first
FIRST = (
    "test_notebooks test_engine test_export_detector test_distributed test_ancestors".split()
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, so that no process has one left when the others are done."""
    items.sort(key=lambda item: item.path.stem not in FIRST)


class Skips:
    """What did not run, and why; a run in which that is not expected fails."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}  # by test

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            words = report.longrepr
            reason = words[2] if isinstance(words, tuple) else str(words)
            self.reasons[report.nodeid] = reason.removeprefix("Skipped: ")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        from skips import unexpected

        self.unexpected = unexpected(self.reasons) if self.reasons else []
        if self.unexpected and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter) -> None:
        write = terminalreporter.write_line
        terminalreporter.section("checks that did not run here, and why")
        counts = Counter(
            (reason, node.split("/")[-1].split("[")[0]) for node, reason in self.reasons.items()
        )
        for reason in sorted({reason for reason, _ in counts}):
            write(reason)
            for (why, name), count in sorted(counts.items()):
                if why == reason:
                    write(f"    {name} ({count} cases)")
        if not self.reasons:
            write("none: every check ran")
        for line in self.unexpected:
            write(f"FAILED: skipped without being listed in tests/skips.py: {line}", red=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    words = "add messages without a test to errors.json, with the test that made them"
    parser.addoption("--note-errors", action="store_true", help=words)


def pytest_configure(config: pytest.Config) -> None:
    from errors import Recorder

    config.pluginmanager.register(Recorder(config), "errors")
    if "PYTEST_XDIST_WORKER" not in os.environ:  # what runs is reported to the first process
        config.pluginmanager.register(Skips())
