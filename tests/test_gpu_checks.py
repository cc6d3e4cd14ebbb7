"""The script for the day a GPU is at hand, and its checks, as far as a CPU can try them."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from conftest import ROOT
from exported import needs_rtx

from tensormask_edu.weights.checkpoint import load_checkpoint

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from tensormask_export import contract
from tensormask_export.runtimes.find import open_session
from tensormask_export.shapes import Profile

PROFILE = Profile((1, 3, 32, 32), (1, 3, 64, 64), (2, 3, 96, 96))


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    """The folders of the checks and of the benchmarks on the path, for one test."""
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "gpu"))
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield
    for name in ("gpu", "measure", "one_node", "record", "subjects"):
        sys.modules.pop(name, None)


def test_a_session_is_compared_with_pytorch(small):
    import subjects

    checkpoint, onnx = small
    with open_session(onnx) as session:
        session.profile = PROFILE
        rows = subjects.beside_pytorch(session, load_checkpoint(checkpoint)[0])
    sizes = ["0 of 1x3x32x32", "0 of 2x3x96x96", "1 of 2x3x96x96"]
    assert [row["input"] for row in rows] == sizes
    assert all(row["passed"] and row["expected"] > 0 for row in rows)


@pytest.mark.long
@needs_rtx
@pytest.mark.parametrize("op", [contract.SWAP, contract.SWAP_WINDOWS])
def test_an_engine_is_built_of_one_plugin(op, tmp_path):
    import one_node

    plan = one_node.node_engine(tmp_path, op, (2, 3, 4, 6, 7), "float16")
    assert plan.stat().st_size > 1000


without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")


@without_gpu
def test_the_script_says_what_it_does_without_a_gpu(monkeypatch, capsys):
    import gpu

    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    assert gpu.main() == 2
    assert "only --steps build runs here" in capsys.readouterr().err


def test_a_step_that_fails_is_recorded_and_the_next_one_runs(monkeypatch, tmp_path, capsys):
    import gpu

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "where", lambda: {"gpu": "some", "date": "today"})
    monkeypatch.setattr(gpu.Run, "ops", lambda run: run.missing)
    monkeypatch.setattr(gpu.Run, "model", lambda run: {"part": {"ok": True}})
    monkeypatch.setattr(gpu.Run, "latency", lambda run: {"engine": {"ok": False}})
    target, options = tmp_path / "record.json", ["--work", str(tmp_path)]
    steps = ["--steps", "ops", "model", "latency"]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *steps, *options, "--json", str(target)])
    assert gpu.main() == 1
    said = [line.split(" in ")[0] for line in capsys.readouterr().out.splitlines()[:3]]
    assert said == ["ops: FAILED", "model: ok", "latency: FAILED"]
    assert "AttributeError" in json.loads(target.read_text())["ops"]["why"]
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--minutes", "-1"])
    assert gpu.main() == 1
    assert "not begun" in json.loads(target.read_text())["model"]["why"]


@pytest.mark.long
@without_gpu
def test_what_became_of_every_check_is_in_the_record(tmp_path):
    import gpu

    rows = gpu.Run(tmp_path).checks()
    assert len(rows) > 40 and all(row["outcome"] == "skipped" for row in rows.values())
    assert any(name.startswith("test_engines.py::test_a_node") for name in rows)
