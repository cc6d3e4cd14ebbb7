"""Verification passes what is equal, finds what is not, says what it could not compare."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from exported import NO_RTX, SMALL

from tensormask_edu.base.errors import InputError
from tensormask_edu.base.files import write_json
from tensormask_edu.config import InputConfig
from tensormask_edu.data.shapes import write_shapes
from tensormask_edu.detector.model import build_model
from tensormask_edu.learn.kinds import EXERCISES
from tensormask_edu.learn.lessons import lesson_12
from tensormask_edu.weights.checkpoint import load_checkpoint, save_checkpoint

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from tensormask_export import cli, contract
from tensormask_export.onnx_file.graph import DetectorGraph
from tensormask_export.onnx_file.read import read_metadata, read_onnx
from tensormask_export.runtimes.find import find_sessions
from tensormask_export.verify import report as report_module
from tensormask_export.verify.compare import (
    LIMITS,
    Difference,
    difference,
    match,
    match_pairs,
)
from tensormask_export.verify.layers import both_sides, scope_of
from tensormask_export.verify.report import VerifyReport, verify

NO_EXTENSIONS = importlib.util.find_spec("onnxruntime_extensions") is None
NO_OPENVINO = importlib.util.find_spec("openvino") is None
RAW = LIMITS["float32"].raw.value
FAST = ["onnxruntime"]
HERE = sys.modules[__name__]


def changed(path, folder, name: str, change):
    """A copy of the file whose initializers with that end of a name are changed by `change`."""
    proto = onnx.load(path)
    found = [t for t in proto.graph.initializer if t.name.endswith(name)]
    assert found
    for tensor in found:
        values = change(onnx.numpy_helper.to_array(tensor))
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), tensor.name))
    onnx.save(proto, folder / "changed.onnx")
    return folder / "changed.onnx"


# --- what is equal ----------------------------------------------------------------------------


def test_the_tiny_model_equals_pytorch_for_two_batches_and_two_sizes(tiny):
    checkpoint, path, _ = tiny
    report = verify(path, checkpoint, sizes=((1, 32, 64), (2, 64, 32)), layers=True)
    kinds = {row.runtime for row in report.differences}
    assert len(kinds) == 4 - NO_RTX - NO_EXTENSIONS - NO_OPENVINO
    assert len(report.not_run) == 5 - len(kinds)  # an engine is none of them
    assert {row.output for row in report.differences} == {
        make(level) for make in (contract.logits, contract.deltas) for level in range(4)
    }
    assert len(report.differences) == len(kinds) * 8 * (2 + 2)  # two inputs and two samples
    assert (
        report.passed and 0 < report.max_abs <= RAW
    )  # two programs that compute, not one that copies
    assert sum(row.matched for row in report.matches) > 100
    assert len(report.layers) > 100 and all(row.passed for row in report.layers)


PARSE_WITH_A_PLUGIN = """
import sys
import tensorrt_rtx
from tensormask_export.engine import plugin
from tensormask_export.onnx_file.read import read_onnx
from tensormask_export.runtimes import parsed

proto = read_onnx(sys.argv[1])
before = parsed.ParsedNetwork(proto).network.num_layers
plugin.load(tensorrt_rtx, "python")
after = parsed.ParsedNetwork(proto).network
assert after.num_layers == before > 100
assert "PLUGIN_V3" not in {after.get_layer(i).type.name for i in range(before)}
"""


@pytest.mark.long
@pytest.mark.skipif(NO_RTX, reason="tensorrt_rtx is not installed")
def test_the_parser_takes_function_bodies_also_where_a_plugin_is_loaded(tiny):
    pytest.importorskip("cuda.core")
    run = subprocess.run(
        [sys.executable, "-c", PARSE_WITH_A_PLUGIN, tiny[1]], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def test_the_dense_model_equals_pytorch_for_two_batches_and_two_sizes(small):
    report = verify(small[1], small[0], sizes=((2, 40, 64), (1, 8, 16)))
    assert report.passed and 0 < report.max_abs <= RAW
    assert sum(row.matched for row in report.matches) > 50


def test_the_weights_are_loaded_once(small, monkeypatch):
    loads = []

    def load(path):
        loads.append(path)
        return load_checkpoint(path)

    assert report_module.load_checkpoint is load_checkpoint
    for module in list(sys.modules.values()):
        if getattr(module, "load_checkpoint", None) is load_checkpoint and module is not HERE:
            monkeypatch.setattr(module, "load_checkpoint", load)
    report = verify(small[1], small[0], sizes=((1, 16, 16),), layers=True, runtimes=FAST)
    assert report.passed and report.layers and loads == [small[0]]


def test_the_walk_from_checkpoint_to_verdict_meets_few_files(small, monkeypatch):
    """Files of the exporter on a picture's way; the samples need no checkpoint."""
    met = set()

    def note(frame, event, argument):
        met.add(frame.f_code.co_filename)

    monkeypatch.setattr(report_module.Comparison, "replay", lambda self: None)
    sys.setprofile(note)
    try:
        assert verify(small[1], small[0], sizes=((1, 16, 16),), runtimes=FAST).passed
    finally:
        sys.setprofile(None)
    ours = {path.split("tensormask_export/")[1] for path in met if "tensormask_export/" in path}
    # of these a hash of the weights and names of tensors, which are the export's to define
    shared = {"contract.py", "onnx_file/write.py", "onnx_file/graph.py"}
    assert 5 < len(ours - shared) <= 9, sorted(ours)


def test_the_answer_tells_what_another_report_may_claim(small):
    report = verify(small[1], small[0], sizes=((1, 16, 16),), runtimes=FAST)
    answer = json.loads(json.dumps(report.to_json()))
    (claim,), (worst,) = answer["claims"], answer["worst"].values()
    assert claim["claim"].startswith("onnxruntime") and claim["against"] == "PyTorch"
    assert claim["claim"].endswith(" CPU, every raw output")
    assert claim["difference"] == report.max_abs == max(worst.values()) <= claim["limit"] == RAW
    assert claim["note"] == "3 inputs, absolute" and not claim["at_least"]
    assert (
        answer["summary"]
        == f"largest difference {report.max_abs:.1e} over 4 outputs and 3 inputs"
    )
    assert answer["facts"] == {}


def test_a_result_that_is_no_number_is_a_claim_that_fails():
    row = Difference("onnxruntime", "1x16x16", "logits_0", (1,), math.inf, math.inf, False)
    (claim,) = VerifyReport("m", "c", RAW, [row], {}, 1.0).claims()
    assert math.isfinite(claim["difference"]) and claim["difference"] > claim["limit"]


def test_without_a_checkpoint_the_samples_speak(small, capsys):
    assert cli.main(["verify", str(small[1]), "--runtimes", "onnxruntime"]) == 0
    said = capsys.readouterr().out
    assert "sample 0" in said and "equal: worst" in said
    samples = read_metadata(read_onnx(small[1]), small[1])[contract.SAMPLES]
    assert len(samples) == 2 and samples[0]["count"] >= samples[1]["count"] > 0
    assert len(json.dumps(samples)) < 10_000


@pytest.mark.skipif(NO_EXTENSIONS, reason="onnxruntime_extensions is not installed")
def test_the_numpy_loops_compute_the_nodes_inside_onnx_runtime(small, tmp_path):
    """They differ by a pad value that the loops read and the function body's copy does not."""
    proto = read_onnx(small[1])
    runtimes, _ = find_sessions(proto, ["onnxruntime", "numpy"])
    images = torch.rand(1, 3, 16, 16).numpy()
    body, loops = (runtime.run(images)[contract.MASKS_OUT] for runtime in runtimes)
    np.testing.assert_allclose(loops, body, rtol=0, atol=1e-6)
    for function in proto.functions:  # only the body changes
        if function.name == contract.SWAP:
            function.node[-1].op_type = "Sub"
    runtimes, _ = find_sessions(proto, ["onnxruntime", "numpy"])
    body, again = (runtime.run(images)[contract.MASKS_OUT] for runtime in runtimes)
    assert np.abs(body - loops).max() > 0.1
    np.testing.assert_array_equal(again, loops)


@pytest.mark.skipif(NO_EXTENSIONS, reason="onnxruntime_extensions is not installed")
def test_loops_that_would_take_hours_are_left_out_and_said(small, monkeypatch):
    monkeypatch.setattr("tensormask_export.runtimes.numpy_loops.MOST_LOOPED_BINS", 10)
    report = verify(small[1], small[0], sizes=((1, 16, 16),), runtimes=["numpy"])
    assert not report.differences
    assert any("the loops take up to 10" in why for why in report.not_run.values())


# --- what is not ------------------------------------------------------------------------------


def test_a_changed_weight_is_found(small, tmp_path, capsys):
    path = changed(small[1], tmp_path, "class_predictor.bias", lambda bias: bias + 3e-4)
    words = ["verify", path, small[0], "--sizes", "1x16x16", "--runtimes", "onnxruntime"]
    assert cli.main([*map(str, words), "--json", str(tmp_path / "report.json")]) == 1
    report = json.loads((tmp_path / "report.json").read_text())
    failed = {row["output"] for row in report["differences"] if not row["passed"]}
    assert failed == {"logits_0", "logits_1"}
    assert not report["passed"] and report["tolerances"]["raw"]["reason"]
    assert any(row["score"] > 1e-5 for row in report["matches"])
    assert "DIFFERENT: worst 3.0e-04" in capsys.readouterr().out


def test_the_samples_alone_find_it_as_well(small, tmp_path):
    path = changed(small[1], tmp_path, "box_predictor.weight", lambda weight: weight * 1.01)
    report = verify(path, runtimes=["onnxruntime"])
    failed = {(row.input, row.output) for row in report.differences if not row.passed}
    assert failed == {
        (f"sample {i}", f"deltas_{level}") for i in range(2) for level in range(2)
    }


def test_the_first_layer_that_differs_is_named(small, tmp_path):
    path = changed(small[1], tmp_path, "class_tower.0.weight", lambda weight: weight * 1.01)
    report = verify(path, small[0], sizes=((1, 16, 16),), runtimes=["onnxruntime"], layers=True)
    first = next(row for row in report.layers if not row.passed)
    assert first.output == "class_tower.0"
    assert "layers: the first that differs is class_tower.0," in report.table()
    assert {row.passed for row in report.layers if row.output.startswith("backbone")} == {True}


def test_the_file_broken_for_lesson_12_differs_where_only_masks_come_by(small):
    proto, graph = read_onnx(small[1]), DetectorGraph(load_checkpoint(small[0])[0], "dense")
    images, found = np.random.default_rng(0).random((1, 3, 32, 48), np.float32), {}
    for name, file in (("whole", proto), ("broken", lesson_12.broken(proto))):
        layers, _ = both_sides(file, graph.eval(), images)
        found[name] = lesson_12.first_diverging(*zip(*layers.values(), strict=True), RAW)
    names, node = list(layers), lesson_12.broken(proto).graph.node
    assert found["whole"] == -1 and names[found["broken"]].startswith("mask_branch.fuse.")
    differ = [one for one, other in zip(node, proto.graph.node, strict=True) if one != other]
    assert [scope_of(each)[0] for each in differ] == [["network", "mask_branch"]]


def test_lesson_12_asks_of_a_stage_what_verify_asks_of_an_output():
    for case in EXERCISES["first_diverging"].cases:
        ours, theirs, tolerance = case.make()
        passed = [
            difference(("", ""), "", found, expected, tolerance).passed
            for expected, found in zip(ours, theirs, strict=True)
        ]
        first = passed.index(False) if False in passed else -1
        assert lesson_12.first_diverging(ours, theirs, tolerance) == first


def test_a_mask_that_differs_is_found_though_the_raw_outputs_are_equal(small, tmp_path):
    path = changed(
        small[1], tmp_path, "mask_branch.predictors.0.weight", lambda weight: -weight
    )
    report = verify(path, small[0], sizes=((1, 32, 32),), runtimes=["onnxruntime"])
    assert all(row.passed for row in report.differences)
    assert not report.passed and min(row.mask_iou for row in report.matches) < 0.9


def test_nms_that_did_not_come_to_rest_fails(small):
    found = some_detections(3)
    assert match(("runtime", "picture"), found, found, True, LIMITS["float32"]).passed
    assert not match(("runtime", "picture"), found, found, False, LIMITS["float32"]).passed


# --- matching ---------------------------------------------------------------------------------


def some_detections(count: int) -> dict[str, np.ndarray]:
    """Boxes in a row, alternating classes, each with a square mask."""
    start = 20.0 * np.arange(count)
    boxes = np.stack([start, 0 * start, start + 10, 0 * start + 10], axis=1).astype(np.float32)
    masks = np.zeros((count, 12, 20 * count), bool)
    for mask, x in zip(masks, start.astype(int), strict=True):
        mask[2:10, x : x + 10] = True
    scores = np.linspace(0.9, 0.5, count).astype(np.float32)
    return {"boxes": boxes, "scores": scores, "labels": np.arange(count) % 2, "masks": masks}


def only(detections, index):
    return {name: values[index].copy() for name, values in detections.items()}


def moved(detections, name, amount):
    detections = only(detections, slice(None))
    detections[name][0] = detections[name][0] + amount
    return detections


def one_pixel(masks):
    return (np.arange(masks[0].size) == 200).reshape(masks[0].shape)


CHANGES = {
    "the same": (lambda d: d, True),
    "another order": (lambda d: only(d, [2, 0, 1, 3]), True),
    "one missing": (lambda d: only(d, slice(3)), False),
    "one twice": (lambda d: only(d, [0, 1, 2, 3, 3]), False),
    "another class": (lambda d: moved(d, "labels", 1), False),
    "a box moved by a hair": (lambda d: moved(d, "boxes", 0.009), True),
    "a box moved": (lambda d: moved(d, "boxes", 0.02), False),
    "a box gone elsewhere": (lambda d: moved(d, "boxes", 200), False),
    "another score": (lambda d: moved(d, "scores", 2e-5), False),
    "one pixel of 80": (lambda d: d | {"masks": d["masks"] ^ one_pixel(d["masks"])}, False),
    "none at all": (lambda d: only(d, slice(0)), False),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES)
def test_detections_are_matched_one_to_one(case):
    change, passes = CHANGES[case]
    expected = some_detections(4)
    row = match(("runtime", "picture"), expected, change(expected), True, LIMITS["float32"])
    assert row.passed == passes
    assert row.expected == 4 and row.matched <= min(row.found, 4)


def test_boxes_that_coincide_are_told_apart_by_their_scores():
    expected = some_detections(2)
    expected["boxes"][:], expected["labels"][:] = expected["boxes"][0], 0
    assert match_pairs(expected, only(expected, [1, 0])) == [(0, 1), (1, 0)]


# --- pictures and scores ----------------------------------------------------------------------


def test_a_picture_file_is_prepared_as_the_checkpoint_says(tiny, tmp_path, capsys):
    from PIL import Image

    checkpoint, path, _ = tiny
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    words = [
        "verify",
        path,
        checkpoint,
        "--image",
        tmp_path / "noise.png",
        "--json",
        tmp_path / "v.json",
    ]
    assert cli.main([*map(str, words), "--runtimes", "onnxruntime"]) == 0
    rows = json.loads((tmp_path / "v.json").read_text())["differences"]
    assert {row["input"] for row in rows} == {"noise.png", "sample 0", "sample 1"}
    shapes = {row["output"]: row["shape"] for row in rows if row["input"] == "noise.png"}
    assert shapes["logits_0"] == [1, 6, 24, 32]  # 75 x 105, padded to 96 x 128


def test_a_coco_folder_gives_the_ap_of_both(small, tmp_path, capsys):
    """Only the exported twin counts: the model may be untrained and lack some classes."""
    write_shapes(tmp_path / "shapes", train=1, val=6, size_px=48)
    words = [
        "verify",
        small[1],
        small[0],
        "--coco",
        tmp_path / "shapes",
        "--limit",
        5,
        "--runtimes",
    ]
    assert cli.main([*map(str, words), "onnxruntime", "--json", str(tmp_path / "v.json")]) == 0
    report = json.loads((tmp_path / "v.json").read_text())
    (scores,) = report["scores"]
    assert scores["images"] == 5 and scores["expected"] == scores["found"]
    assert set(scores["found"]) == {"segm", "bbox"} and scores["passed"]
    assert len({row["input"] for row in report["matches"]}) == 2 + 5
    said = capsys.readouterr().out
    assert "on 5 pictures: segm AP" in said and "7 pictures" in said and "worst of 7" in said


# --- errors and gaps --------------------------------------------------------------------------


def test_another_checkpoint_than_the_exported_one_is_refused(small, tmp_path):
    save_checkpoint(tmp_path / "other", build_model(SMALL), InputConfig())
    with pytest.raises(
        InputError, match="the one that the ONNX file was exported from, got other weights"
    ):
        verify(small[1], tmp_path / "other")


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ["--image", "a.png"],
            "checkpoint: expected one to compare pictures and layers with, got none",
        ),
        (["CHECKPOINT", "--coco", "FOLDER", "--limit", "0"], "limit: expected at least 1"),
        (
            ["CHECKPOINT", "--coco", "FOLDER", "--bisect"],
            "bisect: expected a size or a picture",
        ),
        (["CHECKPOINT", "--engine", "no.engine"], "no.engine"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_exit_code_2(
    words, message, small, tmp_path, capsys
):
    write_shapes(tmp_path, train=1, val=1, size_px=32)
    capsys.readouterr()  # its progress
    places = {"CHECKPOINT": str(small[0]), "FOLDER": str(tmp_path)}
    words = ["verify", str(small[1]), *(places.get(word, word) for word in words)]
    assert cli.main([*words, "--runtimes", "onnxruntime"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and message in said


@pytest.mark.parametrize("words", [{"sizes": [(1, 64)]}, {"images": ["no.png"]}, {"seed": -1}])
def test_pictures_that_are_none_are_refused_before_anything_is_computed(
    words, small, monkeypatch
):
    monkeypatch.setattr(report_module, "find_sessions", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(InputError, match="size: expected|image: expected|seed: expected"):
        verify(small[1], small[0], **words)


def test_a_split_without_pictures_is_refused_before_anything_is_computed(
    small, tmp_path, monkeypatch
):
    monkeypatch.setattr(report_module, "find_sessions", lambda *_: pytest.fail("it was opened"))
    (tmp_path / "images").mkdir()
    truth = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    write_json(tmp_path / "instances_val.json", truth)
    with pytest.raises(InputError, match="coco: expected a split with pictures, got .*: none"):
        verify(small[1], small[0], coco=tmp_path)


def test_an_unknown_runtime_is_refused(small):
    with pytest.raises(InputError, match="runtimes: expected some of onnxruntime, numpy"):
        verify(small[1], small[0], runtimes=["onnxruntime", "abacus"])


def test_what_is_not_installed_is_named_with_the_way_to_install_it(small, monkeypatch):
    for package in ("tensorrt", "tensorrt_rtx", "onnxruntime_extensions"):
        monkeypatch.setitem(sys.modules, package, None)
    report = verify(small[1], small[0], sizes=((1, 16, 16),))
    assert report.passed and "tensormask-edu[rtx]" in report.not_run["TensorRT's parser"]
    assert "tensormask-edu[export]" in report.not_run["the NumPy reference inside ONNX Runtime"]
    assert "not compared: TensorRT's parser" in report.table()
