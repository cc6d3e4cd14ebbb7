"""The benchmarks measure the right things, and every script runs on a tiny input."""

from __future__ import annotations

import json
import shutil
import sys
from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT
from tolerances import OP_F64
from trainer import write_pictures

from tensormask_edu import ops
from tensormask_edu.ablations.budget import WORLD
from tensormask_edu.base.errors import InputError
from tensormask_edu.base.files import write_json
from tensormask_edu.data.shapes import write_shapes

CASES = [(1, 3, 3), (1, 2, 3), (2, 3, 2), (3, 4, 3), (4, 1, 2)]  # lam, V, U
SCRIPTS = [path.stem for path in (ROOT / "benchmarks").glob("*.py")]


@pytest.fixture
def benchmarks(monkeypatch):
    """The folder of scripts on the path, for one test."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield
    for name in SCRIPTS:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(("lam", "num_v", "num_u"), CASES)
def test_the_strided_formula_equals_the_op(lam, num_v, num_u, benchmarks):
    import ops as script

    x = torch.randn(2, num_v, num_u, 9, 11, dtype=torch.float64)
    error = script.strided_views(x, lam, -6.0) - ops.swap_align2nat(x, lam)
    assert error.abs().max() <= OP_F64


def run(monkeypatch, script, *words: object) -> int | None:
    """The exit code of a script's `main` with these words."""
    monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, words)])
    return script.main()


@pytest.mark.long
def test_the_script_writes_every_figure_and_every_promise(
    benchmarks, tmp_path, monkeypatch, capsys
):
    import ops as script

    # it would hold for the tests to come
    monkeypatch.setattr(script, "keep_memory", lambda: None)
    threads, target = torch.get_num_threads(), tmp_path / "ops.json"
    options = "--sides 15 --cells 40 36 --dtypes float32 bfloat16 --repeats 1"
    options += f" --threads {threads}"
    code = run(monkeypatch, script, *options.split(), "--json", target)
    report = json.loads(target.read_text())
    # whether the promises hold on so small a grid does not matter
    assert code == (0 if all(claim["holds"] for claim in report["claims"]) else 1)
    assert {(row["lam"], row["direction"]) for row in report["dense"]} == {
        (lam, direction) for lam in script.LAMS for direction in ("forward", "backward")
    }
    assert all(row["ms"][name] > 0 for row in report["dense"] for name in row["ms"])
    single = [row for row in report["dense"] if row["dtype"] == "float32"]
    assert all({"formula", "strided views"} <= set(row["ms"]) for row in single)
    assert all(row["difference"] <= script.SAME for row in single)
    assert {row["lam"] for row in report["windows"]} == set(script.LAMS)
    assert "100 windows over six levels" in capsys.readouterr().out


def test_the_cost_of_a_trunk_is_counted_beside_two_heads(benchmarks, tmp_path, monkeypatch):
    import trunk as script

    write_shapes(tmp_path / "shapes-64px-3000", 4, 2, 64, progress=False, world=WORLD)
    target = tmp_path / "trunk.json"
    run(monkeypatch, script, "--pictures", tmp_path, "--steps", 1, "--json", target)
    stored = json.loads(target.read_text())
    trunk, *single = (row["sum s"] for row in stored["rows"])
    assert len(single) == 2
    assert stored["ratios"]["sum s"] == pytest.approx(trunk / sum(single), rel=1e-6)
    assert all(row["scoring s"] > 0 and row["steps s"] > 0 for row in stored["rows"])


def test_a_promise_names_the_worst_figure_and_where_it_was_measured(benchmarks):
    import ops as script

    figures = {"here": 1.0, "there": 3.0}
    (most,) = script.claim("cost", figures, "<=", 2.5)
    assert (most["worst_at"], most["measured"], most["holds"]) == ("there", 3.0, False)
    (least,) = script.claim("gain", figures, ">=", 0.5)
    assert (least["worst_at"], least["promised"], least["holds"]) == ("here", ">= 0.5", True)
    assert script.claim("nothing measured", {}, ">=", 1) == []


@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
def test_the_model_script_writes_every_part_and_all_ways_find_the_same(
    benchmarks, tmp_path, monkeypatch
):
    import model as script

    target, threads = tmp_path / "model.json", torch.get_num_threads()
    options = (
        f"--preset tiny --height 64 --width 96 --no-compile --repeats 1 --threads {threads}"
    )
    parts = ["--parts", "stages", "factors", "area", "memory"]
    assert run(monkeypatch, script, *options.split(), *parts, "--json", target) == 0
    report = json.loads(target.read_text())
    assert {"machine", "settings", "stages_ms", "factors", "area", "memory"} <= set(report)
    assert all(ms > 0 for ms in report["stages_ms"].values())
    ways = [row["way"] for row in report["factors"]]
    alone = ["windows", "windows, formula", "windows, channels_last"]
    assert ways == ["dense, plain kernel", "dense, ours kernel", *alone]
    assert all(row["mask_iou"] > 0.999 for row in report["factors"])
    assert report["settings"]["tf32"] is False and report["machine"]["date"]
    assert 0 < report["memory"]["inference_share"] < report["memory"]["training_share"] < 1


def test_learning_by_heart_takes_the_first_eight_and_reports_the_ratio(
    benchmarks, tmp_path, monkeypatch
):
    import overfit

    folder = write_pictures(tmp_path / "photos", [(40, 64)] * 10, "val")
    options = ["--output", tmp_path / "run", "--steps", 1, "--json", tmp_path / "found.json"]
    assert run(monkeypatch, overfit, folder, *options) == 1  # nothing is learnt in a step
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["photos"] == list(range(8)) and found["scores"]["images"] == 8
    assert found["ratio"] == found["mask_ap"] / found["ceiling_ap"] < overfit.WANTED < 1
    assert found["ceiling_ap"] > 0.5 and found["last_step"]["step"] == 1
    unfinished = Namespace(output=tmp_path / "run", steps=2)
    assert overfit.report(unfinished, [], overfit.recipe(2)) is None


def test_the_engines_script_writes_a_row_per_kind_and_what_went_wrong(
    benchmarks, tmp_path, monkeypatch
):
    pytest.importorskip("onnx")
    import engines

    def build(path, engine, *, plugin, **options):
        if plugin == "python":
            raise InputError(f"{path}: no")
        facts = {"ops": {}, "layers": {}, "warnings": []}
        return SimpleNamespace(bytes=2**20, seconds=1.0, **facts)

    written = SimpleNamespace(bytes=2**20, seconds=1.0, nodes={})
    monkeypatch.setattr(engines, "export_onnx", lambda *words, **options: written)
    monkeypatch.setattr(engines, "build_engine", build)
    monkeypatch.setattr(engines, "model_of", lambda name: (torch.nn.Identity(), "none"))
    target, options = tmp_path / "rows.json", ["--precisions", "float32", "--each"]
    plugins = ["--plugins", "none", "python"]
    assert run(monkeypatch, engines, *options, *plugins, "--json", target) == 1
    rows = json.loads(target.read_text())["rows"]
    assert len(rows) == 2 * 2 * 2 + len(engines.TARGETS)
    assert {row.get("error") for row in rows} == {None, "/tiny-windows-float32.onnx: no"} | {
        "/tiny-dense-float32.onnx: no"
    }
    run(monkeypatch, engines, *options, "--plugins", "none", "--json", target)
    assert len(json.loads(target.read_text())["rows"]) == len(rows)  # in place of older ones


def test_the_deploy_script_adds_what_was_verified(benchmarks, small, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    import deploy

    checkpoint = shutil.copytree(small[0], tmp_path / "checkpoint")
    model = shutil.copy(small[1], tmp_path / "checkpoint-float32.onnx")
    write_json(model.with_suffix(".json"), {"path": "gone", "sha256": "same"})
    coco, target = write_pictures(tmp_path / "coco", [(40, 64)] * 2, "val"), tmp_path / "d.json"
    monkeypatch.setattr(deploy, "MEASURE", deploy.MEASURE.replace("800, 1344", "64, 64"))
    for _ in range(2):
        run(monkeypatch, deploy, "trained", checkpoint, coco, "--limit", 1, "--json", target)
    run(monkeypatch, deploy, "memory", model, "--json", target)
    found = json.loads(target.read_text())
    assert "path" not in found["trained"] and len(found["trained"]["verified"]) == 2
    assert all(v["passed"] and v["pictures"] == 1 for v in found["trained"]["verified"])
    assert found["memory at 800 x 1344"][model.stem]["peak_mb"] > 0


def test_the_runtimes_script_compares_what_is_here(benchmarks, small, tmp_path, monkeypatch):
    import runtimes as script

    target, words = tmp_path / "runtimes.json", ["--runtimes", "onnxruntime", "--repeats", "1"]
    words += [small[0], "--size", "32", "--json", target]
    assert run(monkeypatch, script, *words) == 0
    rows = {row["file"]: row for row in json.loads(target.read_text())["rows"]}
    assert list(rows) == list(script.FORMS)
    for form in ("as written", "portable"):
        row = rows[form]
        assert row["same"] and row["raw_rel"] <= 1e-4 and row["cpu_ms"] > 0
        assert row["expected"] == row["agreed"] > 0 and row["ties"] == []
    for form in ("onnxslim", "onnxsim"):  # where they are not installed they say so
        assert rows[form]["same"] or rows[form]["error"]


def test_the_time_behind_the_network_is_that_of_the_file_without_it(
    benchmarks, small, tmp_path, monkeypatch
):
    import behind as script

    target, words = tmp_path / "behind.json", ["--models", small[0], "--before", small[1]]
    words += ["--sizes", "32", "--repeats", "1", "--json", target]
    assert run(monkeypatch, script, *words) == 0
    (row,) = json.loads(target.read_text())["rows"]
    assert row["same"] and row["detections"] == row["matched"] > 0
    assert 0 < row["behind"] < 1 and row["file_cpu_ms"] > row["network_cpu_ms"] > 0
    assert row["of_before"] > 0 and row["of_eager"] > 0
    cut = script.network_of(script.read_onnx(small[1]))
    inner = {node.op_type for node in cut.graph.node}
    assert "Conv" in inner and not inner & {"TopK", *script.SWAPS}


def test_a_folder_is_compared_by_its_ap_too_and_a_later_run_replaces_rows(
    benchmarks, small, tmp_path, monkeypatch, capsys
):
    import runtimes as script

    coco, target = write_pictures(tmp_path / "coco", [(40, 64)] * 2, "val"), tmp_path / "r.json"
    words = [
        f"{small[0]}={coco}",
        "--runtimes",
        "onnxruntime",
        "--repeats",
        1,
        "--json",
        target,
    ]
    for limit in (1, 2):
        assert run(monkeypatch, script, *words, "--limit", limit) == 0
    (row,) = json.loads(target.read_text())["rows"]
    assert row["same"] and row["pictures"] == 2 and row["file"] == "as written"
    assert row["ap"] == row["ap_pytorch"]
    capsys.readouterr()
    assert run(monkeypatch, script, "--json", target) == 0  # the table again
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("| runtime | version | file | checkpoint, 2 pictures; ms at ")
    assert told[2].startswith(f"| onnxruntime | {row['version']} | as written | same, ")


def test_the_guide_s_table_of_runtimes_is_that_of_the_results(benchmarks):
    import runtimes as script

    stored = json.loads((script.ROOT / "benchmarks/results/runtimes-cpu.json").read_text())
    guide = (ROOT / "docs" / "deployment-guide.md").read_text(encoding="utf-8")
    assert script.markdown(stored) in guide
    others = [row for row in stored["rows"] if not row.get("same")]
    assert all({"error", "note"} & row.keys() for row in others)


@pytest.fixture
def subject(benchmarks, small, tmp_path):
    """The small model on a drawn picture, and a folder where a runtime's outputs lie."""
    import runtime_subjects as script
    from tensormask_export.onnx_file.read import read_metadata, read_onnx

    found = script.find_subject(str(small[0]), 32, 1, tmp_path)
    found.metadata = read_metadata(read_onnx(small[1]), small[1])
    return found


def test_a_file_that_a_runtime_refuses_is_a_row_with_the_reason(
    benchmarks, small, subject, tmp_path
):
    import runtimes as script

    proto = script.read_onnx(small[1])
    del proto.functions[:]
    script.onnx.save(proto, tmp_path / "bare.onnx")
    command = script.command_of("onnxruntime", ["onnxruntime"], None)
    found = script.computed(command, tmp_path / "bare.onnx", subject, tmp_path, 1)
    assert not found["same"] and "is not a registered function" in found["error"]
    assert str(tmp_path) not in found["error"]


@pytest.mark.parametrize("change", [1e-3, -1e-3])
def test_the_runtimes_script_sees_a_difference(benchmarks, subject, tmp_path, change):
    import runtime_subjects as script

    (images,) = subject.inputs()
    right = script.EagerSession(subject.model, subject.metadata).all_outputs(images)
    place = tmp_path / script.place_of(0)
    place.mkdir()

    def same(outputs):
        for name, values in outputs.items():
            np.save(place / f"{name}.npy", values)
        return script.compared(subject, tmp_path)["same"]

    assert same(right)
    assert not same(right | {"logits_0": right["logits_0"] * (1 + change)})
    assert not same(right | {"boxes": right["boxes"] + 100 * change})
    assert not same(right | {"nms_converged": ~right["nms_converged"]})


def test_two_boxes_of_one_score_may_change_places(benchmarks):
    import runtime_subjects as script

    def side(*boxes, score):
        boxes = np.array(boxes, np.float32)
        scores = np.array([0.9, score], np.float32)
        return {"boxes": boxes, "scores": scores, "labels": np.zeros(2, np.int64)}

    shared, ours, theirs = (0, 0, 9, 9), (20, 0, 29, 9), (40, 0, 49, 9)
    expected = side(shared, ours, score=0.5)
    (tie,) = script.near_ties(expected, side(shared, theirs, score=0.5 + script.TIE / 2))
    assert tie["boxes"] == [list(ours), list(theirs)] and 0 < tie["gap"] <= script.TIE
    assert script.near_ties(expected, expected) == []
    assert script.near_ties(expected, side(shared, theirs, score=0.5 + 3 * script.TIE)) == []


def test_a_bin_on_the_mask_threshold_counts_on_one_side(benchmarks):
    import runtime_subjects as script
    from tensormask_export import contract

    config = {"mask_threshold": 0.6, "mask_score_power": 2.0}

    def outputs(last_bin):
        canvas = np.array([[0.9, 0.9], [last_bin, 0.1]], np.float32)
        found = {contract.COUNT: [1], contract.SCORES: [[0.8]], contract.MASKS_OUT: [[canvas]]}
        return {name: np.array(values) for name, values in found.items()}

    def side(mean):
        score, boxes = np.array([0.8 * mean**2]), np.array([[0.0, 0, 9, 9]])
        return {"boxes": boxes, "scores": score, "labels": np.zeros(1, np.int64)}

    without, counted = side(0.9), side(0.8)
    close, far = outputs(0.6 + script.TIE / 2), outputs(0.6 + 3 * script.TIE)
    (tie,) = script.threshold_ties(close, without, counted, config)
    assert tie["bins"] == pytest.approx([0.6], abs=script.TIE)
    assert tie["scores"] == pytest.approx([0.8 * 0.8**2, 0.8 * 0.9**2], abs=script.TIE)
    assert script.threshold_ties(far, without, counted, config) == []
    assert script.threshold_ties(close, counted, counted, config) == []
    assert script.threshold_ties(close, side(0.85), counted, config) == []


def test_fixed_costs_are_measured_of_two_checkouts(benchmarks, tmp_path, monkeypatch, capsys):
    import fixed as script

    short = {name: [script.EDU, "--version"] for name in ("doctor", "check-ops")}
    monkeypatch.setattr(script, "commands", lambda folder, checkpoint: short)
    target, given = tmp_path / "fixed.json", ("--against", ROOT, "--checkpoint", tmp_path)
    run(monkeypatch, script, *given, "--rounds", 1, "--json", target)
    rows = json.loads(target.read_text(encoding="utf-8"))["rows"]
    warm = sum(row["after"] for row in rows if row["command"] in short)
    assert rows[-1]["command"] == "sum, warm" and rows[-1]["after"] == pytest.approx(warm)
    assert all(
        row["before"] > 0 and row["command"] in capsys.readouterr().out for row in rows[:1]
    )


def test_rows_of_the_ancestors_are_made_once(benchmarks, tmp_path, monkeypatch, capsys):
    import ancestors as script

    monkeypatch.setattr(script, "TRAIN", 4)
    monkeypatch.setattr(script, "VAL", 2)
    target = tmp_path / "rows.json"
    options = ["--folder", tmp_path / "world", "--steps", 1, "--json", target]
    rows = ["--rows", "RoIPool, sigmoid", "--seeds", 0]
    for _ in range(2):
        assert run(monkeypatch, script, "roi", *options, *rows) == 0
        (made,) = json.loads(target.read_text(encoding="utf-8"))["rows"]
        assert made["steps"] == 1 and made["model"] == "RoIPool, sigmoid"
    assert capsys.readouterr().out.count(f"{made['cpu_seconds']:.4g}") >= 3  # the same row
    times = script.forms(windows=5, repeats=1)
    assert times["ratio"] == times["side by side"] / times["refactored"]


def test_memory_that_grows_is_told_from_caches_that_fill(benchmarks):
    import load as script

    filling = [500.0, 700, 760, 780, 781, 780, 781, 780, 781]
    assert abs(script.growth(filling, every=100)) < 0.5
    assert script.growth([500.0 + 8 * k for k in range(9)], every=100) == pytest.approx(8)
    assert script.growth([500.0 + 8 * k for k in range(9)], every=50) == pytest.approx(16)
    assert not script.judged([500.0 + 8 * k for k in range(9)], every=100)["bounded"]


def test_the_load_script_stores_every_part(benchmarks, tmp_path, monkeypatch):
    import load as script

    monkeypatch.setattr(script, "MOST_OBJECTS", 20)
    target = tmp_path / "load.json"
    for part, size in (("crowds", 8), ("annotations", 60), ("photo", 2)):
        run(monkeypatch, script, part, "--size", size, "--json", target)
    found = json.loads(target.read_text(encoding="utf-8"))
    assert found["crowds"]["pictures"] == 8 and len(found["crowds"]["look"]["resident_mb"]) == 8
    assert found["annotations"]["draw"]["masks"] == 60
    assert found["annotations"]["AP"] == pytest.approx(1)  # of detections of themselves
    assert (found["photo"]["height_px"], found["photo"]["width_px"]) == (80, 120)
    assert all(found[part]["score"]["cpu_s"] > 0 for part in ("crowds", "annotations"))
