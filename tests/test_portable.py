"""Files without nodes of ours, OpenVINO, and files, places and inputs that mean nothing."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT
from exported import SMALL, needs_rtx
from PIL import Image

from tensormask_edu.base.errors import InputError
from tensormask_edu.commands.predict import image_files
from tensormask_edu.detector.model import build_model
from tensormask_edu.weights.checkpoint import load_checkpoint

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from tensormask_export import cli, contract
from tensormask_export.engine import backends
from tensormask_export.onnx_file import write
from tensormask_export.onnx_file.graph import MOST_CANDIDATES, DetectorGraph
from tensormask_export.onnx_file.portable import LOST, is_portable, portable
from tensormask_export.onnx_file.read import read_metadata, read_onnx
from tensormask_export.onnx_file.write import export_onnx
from tensormask_export.runtimes.find import LONG_NAMES, find_sessions, open_session
from tensormask_export.verify.layers import scoped_tensors
from tensormask_export.verify.report import verify

NO_OPENVINO = importlib.util.find_spec("openvino") is None
needs_openvino = pytest.mark.skipif(NO_OPENVINO, reason="openvino is not installed")
SIZES = [(1, 64, 96)]


@pytest.fixture(scope="module")
def inlined(small, tmp_path_factory):
    """The small model's portable file, and the report of the command that wrote it."""
    path = tmp_path_factory.mktemp("portable") / "model.onnx"
    report = path.with_suffix(".json")
    words = ["onnx", str(small[0]), str(path), "--portable", "--json", str(report)]
    assert cli.main(words) == 0
    return path, json.loads(report.read_text())


# --- the portable file ------------------------------------------------------------------------


def test_a_portable_file_has_standard_operators_alone_and_says_so(inlined, small):
    path, report = inlined
    proto = read_onnx(path)
    assert is_portable(proto) and not is_portable(read_onnx(small[1]))
    assert not proto.functions and [each.domain for each in proto.opset_import] == [""]
    assert proto.ir_version == contract.IR_VERSION
    constants = [node for node in proto.graph.node if node.op_type == "Constant"]
    assert {a.name for node in constants for a in node.attribute} == {"value"}
    names = [node.name for node in proto.graph.node]
    assert len(set(names)) == len(names)
    metadata, plain = read_metadata(proto, path), read_metadata(read_onnx(small[1]), small[1])
    assert metadata.keys() == plain.keys()
    assert metadata[contract.DETECTOR]["portable"] and not plain[contract.DETECTOR]["portable"]
    assert report["notes"] == [LOST] and report["nodes"] == {}
    assert "our nodes: none" in report["summary"]


def test_constants_keep_value_type_and_shape_when_they_are_spelled_out():
    short = {"value_int": 7, "value_ints": [1, 2], "value_float": 0.5, "value_floats": [2.0]}
    nodes = [
        onnx.helper.make_node("Constant", [], [name], **{name: v}) for name, v in short.items()
    ]
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in short]
    graph = onnx.helper.make_graph(nodes, "constants", [], outputs)
    proto = onnx.helper.make_model(graph, ir_version=contract.IR_VERSION)
    before, after = (
        onnx.reference.ReferenceEvaluator(each).run(None, {})
        for each in (proto, portable(proto))
    )
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


def test_a_portable_file_equals_pytorch_and_names_its_layers(inlined, small):
    path, _ = inlined
    runtimes = ("onnxruntime", "numpy")
    report = verify(path, small[0], sizes=SIZES, runtimes=runtimes, layers=True)
    assert report.passed, report.table()
    assert len(report.layers) > 20 and all(row.passed for row in report.layers)
    assert report.not_run[LONG_NAMES["numpy"]].startswith("a portable file has no nodes")


def test_layers_are_told_by_the_same_tensors_as_in_the_file_with_bodies(small):
    model, _ = load_checkpoint(small[0])
    modules = [name for name, part in DetectorGraph(model).named_modules() if name]
    plain = read_onnx(small[1])
    assert scoped_tensors(portable(plain), modules) == scoped_tensors(plain, modules)


@needs_rtx
@pytest.mark.parametrize("plugin", ["python", "cpp"])
def test_a_plugin_for_a_file_without_nodes_is_an_error(inlined, plugin, tmp_path, capsys):
    words = ["engine", str(inlined[0]), str(tmp_path / "a.engine"), "--plugin", plugin]
    (tmp_path / "lib.so").write_bytes(b"")
    library = ["--plugin-library", str(tmp_path / "lib.so")] if plugin == "cpp" else []
    assert cli.main([*words, *library]) == 2
    error = capsys.readouterr().err
    assert "plugin: expected a file with nodes SwapAlign2Nat or" in error
    assert "without --portable" in error and not list(tmp_path.glob("*.engine*"))


@needs_rtx
@pytest.mark.long
def test_an_engine_of_a_portable_file_says_why_it_has_no_plugin(inlined, tmp_path):
    path, engine = inlined[0], tmp_path / "a.engine"
    assert cli.main(["engine", str(path), str(engine), "--shapes", "1x3x32x32"]) == 0
    manifest = json.loads((tmp_path / "a.engine.json").read_text())
    assert manifest["plugin"]["why"] == "the file has no node for a plugin"
    assert manifest["ops"] == {}


# --- OpenVINO ---------------------------------------------------------------------------------


@needs_openvino
def test_openvino_computes_both_files_as_pytorch_does(inlined, small):
    for path in (inlined[0], small[1]):
        report = verify(path, small[0], sizes=SIZES, runtimes=["openvino"])
        assert report.passed and len(report.worst) == 1, report.table()
        assert {row.runtime.split()[0] for row in report.matches} == {"openvino"}


@needs_openvino
def test_predictions_of_openvino_are_those_of_onnx_runtime(small, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (50, 60, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    found = {}
    for runtime in ("onnxruntime", "openvino"):
        words = [str(small[1]), str(tmp_path / "photo.png"), "--score", "0.1"]
        output = ["--output", str(tmp_path / runtime), "--runtime", runtime]
        report = tmp_path / f"{runtime}.json"
        assert cli.main(["predict", *words, *output, "--json", str(report)]) == 0
        assert json.loads(report.read_text())["runtime"].startswith(runtime)
        found[runtime] = json.loads((tmp_path / runtime / "detections.json").read_text())
    one, other = found.values()
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        assert a["category_id"] == b["category_id"]
        assert a["score"] == pytest.approx(b["score"], abs=1e-5)
        assert a["bbox"] == pytest.approx(b["bbox"], abs=1e-2)


@needs_openvino
def test_openvino_is_timed_and_says_its_version(small, tmp_path):
    words = ["--shape", "1x3x32x32", "--warmup", "1", "--iterations", "5", "--threads", "1"]
    report = tmp_path / "bench.json"
    options = [*words, "--runtime", "openvino", "--json", str(report)]
    assert cli.main(["bench", str(small[1]), *options]) == 0
    (row,) = json.loads(report.read_text())["rows"]
    assert row["runtime"].startswith("openvino 2") and row["compute_ms"]["median"] > 0


@needs_openvino
def test_what_openvino_does_not_take_is_one_line(small):
    proto = read_onnx(small[1])
    proto.graph.node[0].op_type = "Riddle"
    sessions, not_run = find_sessions(proto, ["openvino"])
    assert not sessions and "\n" not in not_run["OpenVINO"]
    assert "OpenVINO does not load the file" in not_run["OpenVINO"]


def test_a_refusal_of_openvino_is_one_line(small, monkeypatch):
    """The same without OpenVINO: one that refuses everything stands in its place."""

    def refused(*words: object) -> None:
        raise RuntimeError("check failed\n  no conversion rule")

    refusing = SimpleNamespace(Core=lambda: SimpleNamespace(read_model=refused))
    monkeypatch.setitem(sys.modules, "openvino", refusing)
    with pytest.raises(
        InputError, match=r"does not load the file \(check failed no conversion"
    ):
        open_session(small[1], runtime="openvino")


def test_without_openvino_the_reason_is_told(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "openvino", None)
    report = verify(small[1], runtimes=["onnxruntime", "openvino"])
    assert report.passed
    assert 'pip install "tensormask-edu[openvino]"' in report.not_run["OpenVINO"]
    Image.new("RGB", (40, 40)).save(tmp_path / "photo.png")
    words = ["predict", str(small[1]), str(tmp_path / "photo.png"), "--runtime", "openvino"]
    assert cli.main([*words, "--output", str(tmp_path / "seen")]) == 2
    assert "[openvino]" in capsys.readouterr().err and not (tmp_path / "seen").exists()


def test_a_runtime_that_is_none_for_the_file_is_refused(small, tmp_path):
    with pytest.raises(
        InputError, match="runtime: expected onnxruntime or openvino, got 'tvm'"
    ):
        open_session(small[1], runtime="tvm")
    (tmp_path / "a.engine").write_bytes(b"plan")
    with pytest.raises(InputError, match="runtime: expected none with an engine"):
        open_session(tmp_path / "a.engine", runtime="openvino")


# --- nothing compared, nothing to compute -----------------------------------------------------


def test_a_file_with_emptied_samples_is_not_called_equal(small, tmp_path, capsys):
    proto = read_onnx(small[1])
    write.add_metadata(proto, read_metadata(proto, small[1]) | {contract.SAMPLES: []})
    onnx.save(proto, tmp_path / "emptied.onnx")
    words = ["verify", str(tmp_path / "emptied.onnx")]
    runtimes = ["--runtimes", "onnxruntime"]
    assert cli.main([*words, *runtimes]) == 1
    said = capsys.readouterr().out
    assert "NOTHING WAS COMPARED" in said and "equal" not in said
    assert "not compared: samples (none in the file)" in said
    assert cli.main([*words, str(small[0]), "--sizes", "1x32x32", *runtimes]) == 0


def test_a_verify_without_any_runtime_is_not_called_equal(small, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert cli.main(["verify", str(small[1]), "--runtimes", "openvino"]) == 1
    assert "NOTHING WAS COMPARED" in capsys.readouterr().out


NO_PICTURES = {
    "pixels of 0 to 255": lambda x: x * 255,
    "not a number": lambda x: x * np.nan,
    "normalised already": lambda x: (x - 0.5) / 0.25,
}


@pytest.mark.parametrize("case", NO_PICTURES)
def test_numbers_that_are_no_picture_are_refused(small, case):
    change = NO_PICTURES[case]
    images = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)
    with open_session(small[1]) as session:
        session.run(images)
        with pytest.raises(InputError, match="images: expected numbers from 0 to 1, got"):
            session.run(change(images).astype(np.float32))
        with pytest.raises(InputError, match="divide pixels of 0..255 by 255"):
            session.detect([change(images[0]).astype(np.float32)])


def test_more_candidates_than_fit_in_memory_are_refused_at_once(small, tmp_path, capsys):
    with pytest.raises(InputError, match=f"candidates: expected at most {MOST_CANDIDATES}"):
        DetectorGraph(build_model(SMALL), candidates=MOST_CANDIDATES + 1)
    words = ["onnx", str(small[0]), str(tmp_path / "a.onnx"), "--candidates", "10000000"]
    assert cli.main(words) == 2 and not list(tmp_path.iterdir())
    assert capsys.readouterr().err.startswith("error: candidates: expected at most")


def test_turing_is_refused_before_the_build():
    members = {"NONE": 0, "CURRENT": 1, "SM75": 2, "SM86": 3}
    module = SimpleNamespace(__version__="1", ComputeCapability=SimpleNamespace())
    module.ComputeCapability.__members__ = members
    backend = backends.Backend("tensorrt_rtx", module)
    assert backend.known_targets() == [86]
    with pytest.raises(InputError, match=r"sm: expected later ones than Turing.*--backend"):
        backend.check_targets([86, 75])
    backend.check_targets([86])


# --- places -----------------------------------------------------------------------------------


def test_a_name_that_predict_would_misread_is_refused(small, tmp_path):
    model, _ = load_checkpoint(small[0])
    with pytest.raises(InputError, match=r"model: expected a name that ends in .onnx, got"):
        export_onnx(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())


@needs_rtx
def test_an_engine_is_not_named_as_an_onnx_file(small, tmp_path, capsys):
    assert cli.main(["engine", str(small[1]), str(tmp_path / "engine.onnx")]) == 2
    assert "engine: expected another name" in capsys.readouterr().err


def test_a_folder_in_the_place_of_a_file_is_refused_before_the_work(
    small, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(write, "capture", lambda graph: pytest.fail("it was exported"))
    (tmp_path / "model.onnx").mkdir()
    words = ["onnx", str(small[0])]
    assert cli.main([*words, str(tmp_path / "model.onnx")]) == 2
    assert "is a folder, no place for a file" in capsys.readouterr().err
    assert cli.main([*words, str(tmp_path / "a.onnx"), "--json", str(tmp_path)]) == 2
    assert "is a folder, no place for a file" in capsys.readouterr().err
    (tmp_path / "text").write_text("")
    assert cli.main([*words, str(tmp_path / "a.onnx"), "--json", str(tmp_path / "text/a")]) == 2
    assert "cannot make this folder" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.onnx/*"))


def test_a_report_makes_the_folders_it_lies_in(small, tmp_path):
    report = tmp_path / "new" / "folder" / "report.json"
    words = ["verify", str(small[1]), "--runtimes", "onnxruntime", "--json", str(report)]
    assert cli.main(words) == 0 and json.loads(report.read_text())["passed"]


def test_a_gif_is_seen_in_a_folder_as_it_is_alone(tmp_path):
    for name in ("a.gif", "b.png", "c.txt"):
        shutil.copy(ROOT / "README.md", tmp_path / name)
    names = [file.name for file in image_files(tmp_path, tmp_path / "out")]
    assert names == ["a.gif", "b.png"]
