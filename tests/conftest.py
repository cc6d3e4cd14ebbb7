"""Fixtures shared by all tests, seeds, and the list of checks that did not run."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

# One thread, before torch is loaded: most tests are small, and on busy cores two threads wait
# for each other. Those that need more ask for them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("TENSORMASK_SHARED", ROOT.parent / "shared"))
SKIPPED = pytest.StashKey[dict[str, str]]()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden vectors and data sets: `TENSORMASK_SHARED`, else beside us."""
    if not SHARED.is_dir():
        pytest.skip(
            "no shared data (golden vectors, data sets): set TENSORMASK_SHARED to their folder"
        )
    return SHARED


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The tiny preset, exported as users do it: (checkpoint, ONNX file, report)."""
    from exported import checkpoint
    from tensormask_export import cli

    from tensormask_edu.config import InputConfig, model_config

    folder = tmp_path_factory.mktemp("tiny")
    made = checkpoint(folder, model_config("tiny", 3), InputConfig(enlarge=1.5))
    words = ["onnx", made, folder / "tiny.onnx", "--json", folder / "report.json"]
    assert cli.main([str(word) for word in words]) == 0
    return made, folder / "tiny.onnx", json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A smaller model with dense masks: (checkpoint, ONNX file)."""
    from exported import SMALL, checkpoint
    from tensormask_export.onnx_file.write import export_onnx

    from tensormask_edu.config import InputConfig
    from tensormask_edu.weights.checkpoint import load_checkpoint

    folder = tmp_path_factory.mktemp("small")
    made = checkpoint(folder, SMALL, InputConfig())
    export_onnx(load_checkpoint(made)[0], folder / "small.onnx", masks="dense")
    return made, folder / "small.onnx"


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state and leaves no trace of its own."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SKIPPED] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The test that compares the skips with the pinned list runs last."""
    items.sort(key=lambda item: item.name == "test_only_the_listed_checks_did_not_run")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    outcome = yield
    report = outcome.get_result()
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = (
            report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        )
        item.config.stash[SKIPPED][item.nodeid] = reason.removeprefix("Skipped: ")


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    skipped = config.stash[SKIPPED]
    terminalreporter.section("checks that did not run here, and why")
    counts = Counter(
        (reason, node.split("/")[-1].split("[")[0]) for node, reason in skipped.items()
    )
    for reason in sorted({reason for reason, _ in counts}):
        terminalreporter.write_line(reason)
        for (why, name), count in sorted(counts.items()):
            if why == reason:
                terminalreporter.write_line(f"    {name} ({count} cases)")
    if not skipped:
        terminalreporter.write_line("none: every check ran")
