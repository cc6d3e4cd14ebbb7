"""The benchmark measures the right things: its formulas compute the op, its
script runs."""

from __future__ import annotations

import json
import shutil
import sys
from argparse import Namespace

import pytest
import torch
from conftest import ROOT
from tolerances import OP_F64
from trainer import write_pictures

from tensormask_edu import ops

CASES = [(1, 3, 3), (1, 2, 3), (2, 3, 2), (3, 4, 3), (4, 1, 2)]  # lam, V, U


@pytest.fixture
def benchmarks(monkeypatch):
    """The folder of scripts on the path, for one test."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield
    for name in ("formulas", "ops", "model", "memory", "overfit"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(("lam", "num_v", "num_u"), CASES)
def test_the_strided_formula_equals_the_op(lam, num_v, num_u, benchmarks):
    import formulas

    x = torch.randn(2, num_v, num_u, 9, 11, dtype=torch.float64)
    assert (
        formulas.strided_views(x, lam, -6.0) - ops.swap_align2nat(x, lam)
    ).abs().max() <= OP_F64


def test_the_script_writes_every_figure_and_every_promise(
    benchmarks, tmp_path, monkeypatch, capsys
):
    import ops as script

    monkeypatch.setattr(script, "HEIGHT", 40)
    monkeypatch.setattr(script, "WIDTH", 36)
    monkeypatch.setattr(
        script, "keep_memory", lambda: None
    )  # it would hold for the tests to come
    threads, target = torch.get_num_threads(), tmp_path / "ops.json"
    options = [
        "--sides",
        "15",
        "--dtypes",
        "float32",
        "bfloat16",
        "--repeats",
        "1",
        "--threads",
        str(threads),
    ]
    monkeypatch.setattr(sys, "argv", ["ops.py", *options, "--json", str(target)])
    assert script.main() in (
        0,
        1,
    )  # whether the promises hold on so small a grid does not matter
    report = json.loads(target.read_text())
    assert {(row["lam"], row["direction"]) for row in report["dense"]} == {
        (lam, direction) for lam in script.LAMS for direction in ("forward", "backward")
    }
    assert all(row["ms"][name] > 0 for row in report["dense"] for name in row["ms"])
    assert all(
        {"formula", "strided views"} <= set(row["ms"])
        for row in report["dense"]
        if row["dtype"] == "float32"
    )
    assert {row["lam"] for row in report["windows"]} == set(script.LAMS)
    assert "100 windows over six levels" in capsys.readouterr().out


@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
def test_the_model_script_writes_every_part_and_all_ways_find_the_same(
    benchmarks, tmp_path, monkeypatch
):
    import model as script

    target = tmp_path / "model.json"
    options = "--preset tiny --height 64 --width 96 --no-compile --repeats 1 --parts stages factors area memory"
    threads = ["--threads", str(torch.get_num_threads())]
    monkeypatch.setattr(
        sys, "argv", ["model.py", *options.split(), *threads, "--json", str(target)]
    )
    assert script.main() == 0
    report = json.loads(target.read_text())
    assert {"machine", "settings", "stages_ms", "factors", "area", "memory"} <= set(report)
    assert all(ms > 0 for ms in report["stages_ms"].values())
    assert [row["way"] for row in report["factors"]] == [
        "dense, plain kernel",
        "dense, ours kernel",
        "windows",
    ]
    assert all(row["mask_iou"] > 0.999 for row in report["factors"])
    assert report["settings"]["tf32"] is False and report["machine"]["date"]
    assert 0 < report["memory"]["inference_share"] < report["memory"]["training_share"] < 1


def test_learning_by_heart_takes_the_first_eight_and_reports_the_ratio(
    benchmarks, tmp_path, monkeypatch
):
    import overfit

    folder, target = (
        write_pictures(tmp_path / "photos", [(40, 64)] * 10, "val"),
        tmp_path / "found.json",
    )
    arguments = [
        str(folder),
        "--output",
        str(tmp_path / "run"),
        "--steps",
        "1",
        "--json",
        str(target),
    ]
    monkeypatch.setattr(sys, "argv", ["overfit.py", *arguments])
    assert overfit.main() == 1  # nothing is learnt in a step
    found = json.loads(target.read_text())
    assert found["photos"] == list(range(8)) and found["scores"]["images"] == 8
    assert found["ratio"] == found["mask_ap"] / found["ceiling_ap"] < overfit.WANTED < 1
    assert found["ceiling_ap"] > 0.5 and found["last_step"]["step"] == 1
    unfinished = Namespace(output=tmp_path / "run", steps=2)
    assert overfit.report(unfinished, [], overfit.recipe(2)) is None
