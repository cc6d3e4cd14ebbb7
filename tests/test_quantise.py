"""INT8: what is quantised, what stands in the file, when it is refused, who reads it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from exported import SMALL, needs_rtx
from test_portable import needs_openvino
from trainer import write_pictures

from tensormask_edu.base.errors import InputError
from tensormask_edu.data.shapes import write_shapes
from tensormask_edu.detector.model import build_model
from tensormask_edu.weights.checkpoint import load_checkpoint

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from tensormask_export import cli, contract, quantise
from tensormask_export.engine.build import build_engine
from tensormask_export.onnx_file.portable import is_portable, portable
from tensormask_export.onnx_file.read import read_metadata, read_onnx
from tensormask_export.onnx_file.write import export_onnx
from tensormask_export.runtimes.find import open_session
from tensormask_export.runtimes.onnxruntime import OnnxSession
from tensormask_export.shapes import Profile
from tensormask_export.verify.compare import LIMITS
from tensormask_export.verify.report import verify

SHARE = 0.4  # of the float32 file's bytes: weights are a quarter, names and nodes stay
SHAPE = (1, 3, 64, 96)
SAME_INT8 = 1e-4  # two runtimes on one INT8 file: scores where no rounding falls the other way


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A COCO folder of drawn shapes, which the shipped model knows."""
    folder = tmp_path_factory.mktemp("int8") / "world"
    write_shapes(folder, train=4, val=4, size_px=96)
    return folder


@pytest.fixture(scope="module")
def made(world, tmp_path_factory):
    """The INT8 file of the command, and its report."""
    path = tmp_path_factory.mktemp("int8") / "int8.onnx"
    words = ["--precision", "int8", "--calibrate", str(world), "--max-loss", "20"]
    report = path.with_suffix(".json")
    assert cli.main(["onnx", "shapes", str(path), *words, "--json", str(report)]) == 0
    return path, json.loads(report.read_text())


def test_convolutions_of_backbone_and_towers_are_int8_and_nothing_else_is(made):
    path, report = made
    proto = read_onnx(path)
    weights = {each.name: each for each in proto.graph.initializer}
    makers = {name: node for node in proto.graph.node for name in node.output}
    kinds = {}
    for node in (node for node in proto.graph.node if node.op_type == "Conv"):
        source = makers.get(node.input[1])
        kinds[node.name] = source.op_type if source else "float"
        if source:
            assert weights[source.input[0]].data_type == onnx.TensorProto.INT8
            assert len(weights[source.input[1]].dims) == 1  # a scale per output channel
            assert makers[node.input[0]].op_type == "DequantizeLinear"
    inside = {name for name, kind in kinds.items() if kind == "DequantizeLinear"}
    assert inside == {name for name in kinds if "predictor" not in name}
    assert not any("predictor" in name for name in inside) and len(inside) < len(kinds)
    around = [node for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    assert around and not any("MatMul" in node.name for node in around)
    assert report["nodes"] and f"{len(inside)} convolutions" in report["notes"][0]
    assert proto.ir_version == contract.IR_VERSION


def test_the_file_says_what_it_lost_and_is_small(made, world, tmp_path):
    path, report = made
    detector, found = (
        read_metadata(read_onnx(path), path)[key]
        for key in (contract.DETECTOR, contract.QUANTISATION)
    )
    assert detector["precision"] == "int8" and report["detector"] == detector
    assert found["form"] == "unsigned" and found["calibration"] == found["scored"] == 4
    assert found["before"]["segm"] > 0.3
    losses = [found["before"][name] - found["after"][name] for name in ("segm", "bbox")]
    assert found["loss"] == pytest.approx(100 * max(losses), abs=1e-3)
    assert path.stat().st_size == report["bytes"]
    plain = tmp_path / "plain.onnx"
    export_onnx(load_checkpoint("shapes")[0], plain)
    assert report["bytes"] <= SHARE * plain.stat().st_size


def test_verify_compares_it_with_pytorch_by_the_limits_of_int8(made, world):
    path, _ = made
    images = sorted((world / "images").glob("val_*.png"))[:2]
    report = verify(path, "shapes", sizes=(), images=images, runtimes=["onnxruntime"])
    assert report.precision == "int8" and report.passed
    assert LIMITS["float32"].raw.value < report.max_abs <= LIMITS["int8"].raw.value


def test_who_has_no_onnx_runtime_reads_the_same_numbers(made, tmp_path):
    from onnx.reference import ReferenceEvaluator

    path, _ = made
    images = np.random.default_rng(0).random(SHAPE, np.float32)
    expected = OnnxSession(path, 1).all_outputs(images)
    inlined = portable(read_onnx(path))
    assert is_portable(inlined)
    names = [contract.COUNT, contract.SCORES]
    found = ReferenceEvaluator(inlined).run(names, {contract.IMAGES: images})
    assert found[0] == expected[contract.COUNT]
    np.testing.assert_allclose(found[1], expected[contract.SCORES], atol=SAME_INT8)


@needs_openvino
def test_openvino_reads_an_int8_file(made):
    path, _ = made
    images = np.random.default_rng(0).random(SHAPE, np.float32)
    expected = OnnxSession(path, 1).all_outputs(images)
    with open_session(path, 1, "openvino") as session:
        found = session.all_outputs(images)
    np.testing.assert_allclose(
        found[contract.SCORES][0, :5], expected[contract.SCORES][0, :5], atol=0.05
    )


# --- the form that TensorRT takes -------------------------------------------------------------


@pytest.fixture(scope="module")
def symmetric(small):
    """The small model with ranges of two random pictures; where TensorRT takes its form."""
    images = np.random.default_rng(0).random((2, *SHAPE), np.float32)
    return quantise.quantised(small[1], images, symmetric=True)


def test_symmetric_files_have_no_zero_points(symmetric):
    proto, count = symmetric
    arrays = {w.name: onnx.numpy_helper.to_array(w) for w in proto.graph.initializer}
    around = [
        n for n in proto.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")
    ]
    zeros = [arrays[node.input[2]] for node in around]
    activations = [zero for zero in zeros if zero.dtype == np.int8]
    assert count > 10 and len(activations) > 2 * count
    assert not any(zero.any() for zero in zeros)


@needs_rtx
@pytest.mark.long
def test_an_engine_is_built_of_the_symmetric_form(symmetric, tmp_path):
    path = tmp_path / "int8.onnx"
    onnx.save(symmetric[0], path)
    # Of one shape alone TensorRT-RTX 1.7 ends in an error of its own
    free = Profile(SHAPE, SHAPE, (2, *SHAPE[1:]))
    report = build_engine(path, tmp_path / "e.engine", profile=free)
    assert {"QUANTIZE", "DEQUANTIZE"} <= set(report.layers)


@needs_rtx
def test_an_engine_of_the_other_form_is_refused(made, tmp_path):
    with pytest.raises(InputError, match="INT8 of --symmetric"):
        build_engine(made[0], tmp_path / "e.engine")
    assert not list(tmp_path.iterdir())


# --- refusals ---------------------------------------------------------------------------------

WITHOUT = {
    "no pictures": (["--precision", "int8"], "calibrate: expected a COCO folder"),
    "a folder alone": (["--calibrate", "here"], "precision: expected int8"),
    "a limit alone": (["--max-loss", "2"], "precision: expected int8"),
    "a form alone": (["--symmetric"], "precision: expected int8"),
}


@pytest.mark.parametrize("which", WITHOUT)
def test_options_that_need_each_other_are_named(which, tmp_path, capsys):
    words, error = WITHOUT[which]
    assert cli.main(["onnx", "shapes", str(tmp_path / "model.onnx"), *words]) == 2
    assert error in capsys.readouterr().err


def test_a_loss_beyond_the_limit_is_refused_with_what_was_lost():
    ap = {"segm": 0.5, "bbox": 0.4}, {"segm": 0.49, "bbox": 0.38}
    found = quantise.Quantisation("unsigned", 49, 24, 60, *ap, loss=2.0)
    quantise.check_loss(found, 2.0)
    with pytest.raises(InputError, match="at most 1.5 points of AP, got 2.00 .*0.400 to 0.380"):
        quantise.check_loss(found, 1.5)


def test_other_classes_no_pictures_and_negative_limits_are_refused_at_once(small, tmp_path):
    model, _ = load_checkpoint(small[0])
    coco = write_pictures(tmp_path / "coco", [(40, 64)], "train")
    target = tmp_path / "model.onnx"
    with pytest.raises(InputError, match="a folder of the model's classes"):
        quantise.export_int8(model, target, coco)
    with pytest.raises(InputError, match="max_loss: expected points of AP"):
        quantise.export_int8(model, target, coco, max_loss=-1)
    empty = write_pictures(tmp_path / "empty", [], "train")
    coloured = build_model(replace(SMALL, class_names=("green", "blue"))).eval()
    with pytest.raises(InputError, match="calibrate: expected pictures in the train split"):
        quantise.export_int8(coloured, target, empty)
    assert not target.exists()


def test_where_the_model_finds_nothing_no_file_is_written(world, tmp_path):
    """An untrained model: no loss can be measured."""
    shipped, _ = load_checkpoint("shapes")
    names = {"class_names": shipped.config.class_names}
    model = build_model(replace(SMALL, **names)).eval()
    target = tmp_path / "out" / "model.onnx"
    target.parent.mkdir()
    with pytest.raises(InputError, match="mask AP 0 on 4 pictures"):
        quantise.export_int8(model, target, world)
    assert not list(target.parent.iterdir())
