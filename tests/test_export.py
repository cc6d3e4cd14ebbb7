"""ONNX files and engines: bodies against the reference, the file's contents, clear errors."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT
from exported import NO_RTX, SMALL, needs_rtx
from tolerances import OP_F32

from tensormask_edu import reference
from tensormask_edu.base.errors import InputError
from tensormask_edu.config import InputConfig, from_json, model_config, to_json
from tensormask_edu.detector.model import build_model

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx.reference import ReferenceEvaluator
from tensormask_export import cli, contract
from tensormask_export.engine import build
from tensormask_export.onnx_file import bodies, translations
from tensormask_export.onnx_file.capture import run_of
from tensormask_export.onnx_file.graph import DetectorGraph, pad_to_multiple, padding_colour
from tensormask_export.onnx_file.read import expose, raw_names, read_metadata, read_onnx
from tensormask_export.runtimes.parsed import ParsedNetwork
from tensormask_export.shapes import Profile

# A float16 result of order 6: a few roundings of 2^-10 relative.
HALF = 2e-2

# --- function bodies --------------------------------------------------------------------------

# V, U, H, W, lam, pad: why
CASES = {
    "lam 1, odd V: one tap": (3, 3, 6, 7, 1, -6.0),
    "lam 1, even V: means of cells": (2, 4, 5, 6, 1, 0.0),
    "lam 2, V odd, H not divisible": (3, 2, 7, 9, 2, -6.0),
    "lam 3: weights that are no binary fractions, both parities": (2, 3, 7, 8, 3, 2.5),
    "lam 4, windows larger than the picture": (5, 3, 6, 3, 4, -6.0),
    "lam 5, one row, one bin": (1, 2, 1, 4, 5, -6.0),
    "lam 4, runs of two cells": (2, 3, 5, 6, 4, -6.0),
    "lam 8, runs of two, windows larger than the picture": (3, 5, 9, 8, 8, 1.5),
    "lam 12, runs shorter than its half": (1, 2, 13, 8, 12, -6.0),
}
RUNTIMES = ["onnxruntime", "onnx.reference", pytest.param("tensorrt parser", marks=needs_rtx)]


def body_model(
    op_type: str,
    lam: int,
    pad_value: float,
    bins: tuple[int, int],
    kind: int = onnx.TensorProto.FLOAT,
    columns: int = 1,
):
    """A model of one node, with its function; bins: (V, U), columns: a divisor of W."""
    helper, windows = onnx.helper, op_type == contract.SWAP_WINDOWS
    inputs = [helper.make_tensor_value_info("x", kind, ["N", "V", "U", "H", "W"])]
    if windows:
        inputs.append(helper.make_tensor_value_info("index", onnx.TensorProto.INT64, ["K", 3]))
    shape = ["K", "P", "Q"] if windows else ["N", "P", "Q", "Y", "X"]
    out = helper.make_tensor_value_info("out", kind, shape)
    attributes = {"lam": lam, "pad_value": pad_value, **contract.PLUGIN_ATTRIBUTES}
    if windows:
        attributes |= dict(zip((contract.BINS_V, contract.BINS_U), bins, strict=True))
        attributes[contract.RUN] = run_of(lam, columns)
    names = [i.name for i in inputs]
    node = helper.make_node(op_type, names, ["out"], domain=contract.DOMAIN, **attributes)
    model = helper.make_model(
        helper.make_graph([node], "body", inputs, [out]),
        functions=bodies.functions({op_type}),
        opset_imports=[
            helper.make_opsetid("", contract.OPSET),
            helper.make_opsetid(contract.DOMAIN, 1),
        ],
        ir_version=10,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def run_body(runtime: str, model, inputs: dict[str, np.ndarray]) -> np.ndarray:
    if runtime == "onnxruntime":
        return ort.InferenceSession(model.SerializeToString()).run(None, inputs)[0]
    if runtime == "onnx.reference":
        return ReferenceEvaluator(model).run(None, inputs)[0]
    return ParsedNetwork(model, "tensorrt_rtx").compute(inputs)["out"]


def filled(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(scale=3, size=shape).astype(np.float32)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("case", CASES)
def test_the_dense_body_is_the_reference(case, runtime):
    v, u, height, width, lam, pad_value = CASES[case]
    x = filled(2, v, u, height, width)
    expected = reference.swap_align2nat(x, lam, pad_value)
    out = run_body(runtime, body_model(contract.SWAP, lam, pad_value, (v, u)), {"x": x})
    assert out.dtype == np.float32 and out.shape == expected.shape
    np.testing.assert_allclose(out, expected, rtol=0, atol=OP_F32)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("case", CASES)
def test_the_windows_body_is_the_reference(case, runtime):
    v, u, height, width, lam, pad_value = CASES[case]
    x = filled(2, v, u, height, width)
    index = np.array(list(np.ndindex(2, -(-height // lam), -(-width // lam))))
    index = np.concatenate([index[::-1], index[:1]])  # in no particular order, one twice
    expected = reference.swap_align2nat_windows(x, lam, index, pad_value)
    inputs = {"x": x, "index": index}
    model = body_model(contract.SWAP_WINDOWS, lam, pad_value, (v, u), columns=width)
    out = run_body(runtime, model, inputs)
    assert out.dtype == np.float32 and out.shape == expected.shape
    np.testing.assert_allclose(out, expected, rtol=0, atol=OP_F32)


@pytest.mark.parametrize(
    ("lam", "columns", "run"),
    [(1, 8, 1), (3, 9, 1), (2, 8, 1), (4, 7, 1), (4, 8, 2), (32, 8, 2)],
)
def test_a_run_reads_the_same_bins_and_divides_rows(lam, columns, run):
    assert run_of(lam, columns) == run


def test_the_windows_body_takes_no_windows():
    inputs = {"x": filled(1, 3, 3, 4, 4), "index": np.zeros((0, 3), np.int64)}
    model = body_model(contract.SWAP_WINDOWS, 2, -6.0, (3, 3))
    assert run_body("onnxruntime", model, inputs).shape == (0, 6, 6)


@pytest.mark.parametrize("op_type", [contract.SWAP, contract.SWAP_WINDOWS])
def test_half_precision_costs_only_roundings(op_type):
    x = filled(1, 3, 3, 9, 70).astype(np.float16)
    index = np.array([[0, 0, 0], [0, 2, 17]])
    inputs = {"x": x, "index": index} if op_type == contract.SWAP_WINDOWS else {"x": x}
    model = body_model(op_type, 4, -6.0, (3, 3), onnx.TensorProto.FLOAT16, columns=70)
    out = run_body("onnx.reference", model, inputs)
    wide = x.astype(np.float64)
    expected = (
        reference.swap_align2nat_windows(wide, 4, index, -6.0)
        if op_type == contract.SWAP_WINDOWS
        else reference.swap_align2nat(wide, 4, -6.0)
    )
    assert out.dtype == np.float16
    np.testing.assert_allclose(out.astype(np.float64), expected, rtol=0, atol=HALF)


def test_helpers_of_the_bodies_have_no_attributes():
    """TensorRT's parser reads an attribute handed on from function to function as 0."""
    protos = {f.name: f for f in bodies.functions(set(bodies.BODIES))}
    called = {
        node.op_type
        for f in protos.values()
        for node in f.node
        if node.domain == contract.DOMAIN
    }
    assert called == {"Blend", "Hat", "PairSums", "Taps"}
    assert not any(protos[name].attribute for name in called)


def test_every_body_reads_all_that_it_is_given():
    """onnxslim takes an input that nobody reads out of the signature, and nodes keep it."""
    for body in bodies.functions(set(bodies.BODIES)):
        assert set(body.input) <= {name for node in body.node for name in node.input}, body.name


def test_the_normalisation_is_exact_on_large_maps():
    x = np.random.default_rng(0).random((1, 4, 480, 640), np.float32) ** 4 + 5
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    maps = [
        helper.make_tensor_value_info(name, kind, [1, 4, "H", "W"]) for name in ("x", "out")
    ]
    vectors = [helper.make_tensor_value_info(name, kind, [4]) for name in ("scale", "bias")]
    names = ["x", "scale", "bias"]
    node = helper.make_node(contract.NORM, names, ["out"], domain=contract.DOMAIN, epsilon=1e-5)
    model = helper.make_model(
        helper.make_graph([node], "norm", [maps[0], *vectors], [maps[1]]),
        functions=bodies.functions({contract.NORM}),
        opset_imports=[
            helper.make_opsetid("", contract.OPSET),
            helper.make_opsetid(contract.DOMAIN, 1),
        ],
        ir_version=10,
    )
    scale, bias = np.arange(1, 5, dtype=np.float32), np.zeros(4, np.float32)
    inputs = {"x": x, "scale": scale, "bias": bias}
    out = ort.InferenceSession(model.SerializeToString()).run(None, inputs)[0]
    weights = [torch.from_numpy(t).double() for t in (scale, bias)]
    expected = torch.nn.functional.instance_norm(
        torch.from_numpy(x).double(), None, None, *weights
    )
    # Values reach 12
    np.testing.assert_allclose(out, expected.numpy(), rtol=0, atol=2 * OP_F32)


# --- the graph --------------------------------------------------------------------------------


@pytest.mark.parametrize("bgr", [False, True])
def test_padding_a_picture_before_the_graph_is_padding_inside_the_model(bgr):
    config = replace(
        SMALL, bgr=bgr, pixel_scale=255.0, pixel_mean=(100.0, 110.0, 120.0), pixel_std=(1, 2, 3)
    )
    model = build_model(config)
    image = torch.rand(3, 13, 22)
    padded = pad_to_multiple(model, image[None])
    assert padded.shape == (1, 3, 16, 24)
    assert padding_colour(config) == tuple(
        v / 255 for v in ((120, 110, 100) if bgr else (100, 110, 120))
    )
    # A mean of 100 to 120 times the float32 rounding of 255 x 1/255
    torch.testing.assert_close(model.normalise(padded), model.batch([image]), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"masks": "some"}, "masks: expected windows or dense"),
        ({"candidates": 0}, "at least 1"),
    ],
)
def test_a_wrong_graph_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        DetectorGraph(build_model(SMALL), **arguments)


# --- the exported model -----------------------------------------------------------------------


def test_the_nodes_are_bare_and_carry_their_bodies(tiny):
    _, path, report = tiny
    proto = onnx.load(path)
    nodes = [node for node in proto.graph.node if node.op_type == contract.SWAP_WINDOWS]
    attributes = [
        {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute} for node in nodes
    ]
    assert {node.domain for node in nodes} == {contract.DOMAIN}
    assert sorted(a["lam"] for a in attributes) == [1, 1, 2, 2, 4, 4, 8, 8]
    assert {a["pad_value"] for a in attributes} == {-6.0}
    assert {(a["plugin_namespace"], a["plugin_version"]) for a in attributes} == {
        (b"tensormask_edu", b"1")
    }
    assert [(a["bins_v"], a["bins_u"]) for a in attributes] == [(5, 5), (7, 7)] * 4
    assert [a["run_cells"] for a in attributes] == [1, 1, 1, 1, 2, 2, 2, 2]
    # no dense node; lists of candidates, pairs, boxes in NMS, places twice, each kind of window
    nodes_by_name = {contract.LEADING: 13, contract.NORM: 28, contract.SWAP_WINDOWS: 8}
    assert report["nodes"] == nodes_by_name
    size = f"{path.stat().st_size / 2**20:.1f} MiB"
    words = "our nodes: 13 Identity, 28 InstanceNormalization, 8 SwapAlign2NatWindows"
    assert report["summary"] == f"{size}, 7 outputs, {words}"
    standard = {opset.version for opset in proto.opset_import if not opset.domain}
    assert standard == {
        opset.version for f in proto.functions for opset in f.opset_import if not opset.domain
    }
    helpers = {"InstanceNormalization", "Identity", "Blend", "PairSums", "Taps"}
    assert {f.name for f in proto.functions} == {*helpers, nodes[0].op_type}


def test_batch_height_and_width_are_free_and_named(tiny):
    _, path, report = tiny
    graph = onnx.load(path).graph
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in [*graph.input, *graph.output]
    }
    assert shapes["images"] == ["batch", 3, "32*rows", "32*columns"]
    assert shapes["masks"] == ["batch", 100, "8*rows + 2", "8*columns + 2"]
    assert shapes["boxes"] == shapes["windows"] == ["batch", 100, 4]
    assert shapes["count"] == shapes["nms_converged"] == ["batch"]
    assert tuple(report["outputs"]) == tuple(shapes)[1:] == contract.OUTPUTS


def test_the_raw_outputs_stay_inside_by_their_names_and_can_be_exposed(tiny):
    proto = read_onnx(tiny[1])
    names = raw_names(proto)
    assert sorted(names) == sorted(
        make(k) for make in (contract.logits, contract.deltas) for k in range(4)
    )
    assert not set(names) & {value.name for value in proto.graph.output}
    exposed = expose(proto, names).graph.output
    shapes = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in exposed
    }
    assert shapes["logits_0"] == ["batch", 6, "8*rows", "8*columns"]


def test_the_metadata_says_what_a_user_must_know(tiny):
    checkpoint, path, report = tiny
    metadata = read_metadata(read_onnx(path), path)
    assert metadata[contract.CLASS_NAMES] == ["class 0", "class 1", "class 2"]
    assert metadata[contract.LAMS] == [1, 2, 4, 8]
    assert metadata[contract.STRIDES_PX] == [4, 8, 16, 32]
    assert metadata[contract.PADDING] == -6.0
    detector = {"candidates": 1000, "detections": 100, "nms_iterations": 32}
    detector |= {"masks": "windows", "precision": "float32", "portable": False}
    assert metadata[contract.DETECTOR] == report["detector"] == detector
    last = {"level": 3, "size_id": 1, "stride_px": 32, "side_px": 224, "side_bins": 56}
    last |= {"bin_px": 4}
    assert len(metadata[contract.WINDOWS]) == 8 and metadata[contract.WINDOWS][-1] == last
    assert metadata[contract.PREPROCESSING]["padding_px"] == 32
    assert metadata[contract.PREPROCESSING]["padding_colour"] == [0.5, 0.5, 0.5]
    assert from_json(InputConfig, metadata[contract.INPUT_CONFIG]) == InputConfig(enlarge=1.5)
    assert metadata[contract.MODEL_CONFIG] == json.loads(
        json.dumps(to_json(model_config("tiny", 3)))
    )
    weights = hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()
    assert metadata[contract.WEIGHTS_SHA256] == weights == report["weights_sha256"]
    assert report["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_metadata_says_how_long_nms_iterates(small):
    detector = read_metadata(read_onnx(small[1]), small[1])[contract.DETECTOR]
    assert (detector["nms_iterations"], detector["masks"]) == (24, "dense")


def test_the_file_is_small_and_names_no_folder_of_this_machine(tiny):
    checkpoint, path, _ = tiny
    assert str(ROOT).encode() not in path.read_bytes()
    assert path.stat().st_size < 1.1 * (checkpoint / "model.safetensors").stat().st_size


# --- engines ----------------------------------------------------------------------------------


@needs_rtx
def test_an_engine_builds_without_a_gpu(small, tmp_path, capsys):
    _, path = small
    engine = tmp_path / "small.engine"
    shapes = ["--min", "1x3x16x16", "--opt", "1x3x32x32", "--maxShapes", "images:2x3x64x64"]
    words = ["engine", path, engine, "--backend", "tensorrt_rtx", "--sm", "86", "120", *shapes]
    assert cli.main([*map(str, words), "--json", str(tmp_path / "report.json")]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    manifest = json.loads((tmp_path / "small.engine.json").read_text())
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "report.json",
        "small.engine",
        "small.engine.json",
    ]
    assert manifest["engine"]["sha256"] == hashlib.sha256(engine.read_bytes()).hexdigest()
    assert manifest["model"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifest["model"]["metadata"][contract.CLASS_NAMES] == ["left", "right"]
    assert manifest["targets"]["compute_capabilities"] == ["8.6", "12.0"]
    assert manifest["profile"]["images"]["max"] == [2, 3, 64, 64]
    assert manifest["ops"][contract.SWAP] == "function body, 4 nodes"
    assert report["layers"]["EINSUM"] == 4 * 4 and "PLUGIN_V3" not in report["layers"]
    for name in (contract.NORM, contract.LEADING):
        assert report["ops"][name].startswith("built-in layer")
    facts, (claim,) = report["facts"], report["claims"]
    assert facts["for"] == "8.6 12.0 (these and no others)" in report["summary"]
    assert facts["input sizes"] == "min 1x3x16x16, opt 1x3x32x32, max 2x3x64x64"
    assert facts["built with"].startswith("tensorrt_rtx ") and facts["size"].endswith(" MiB")
    assert claim["difference"] is None and "building one does not" in claim["note"]
    said = capsys.readouterr().out
    assert "built with   tensorrt_rtx" in said
    assert (
        f"tensorrt_rtx --onnx={path} --saveEngine={engine} --minShapes=images:1x3x16x16" in said
    )
    assert "--computeCapabilities=86,120" in said
    words = ["verify", path, "--runtimes", "onnxruntime", "--engine", engine]
    if not torch.cuda.is_available():
        assert cli.main([str(word) for word in words]) == 0
        assert (
            "not compared: small.engine (an engine needs an NVIDIA GPU"
            in capsys.readouterr().out
        )
    engine.write_bytes(engine.read_bytes()[:-1])
    assert cli.main([str(word) for word in words]) == 2


@pytest.mark.long
@needs_rtx
def test_an_engine_of_the_default_graph_builds_without_a_gpu(tiny, tmp_path):
    profile = Profile((1, 3, 64, 64), (1, 3, 64, 64), (2, 3, 128, 128))
    report = build.build_engine(
        tiny[1], tmp_path / "tiny.engine", profile=profile, backend="tensorrt_rtx"
    )
    assert (
        report.ops[contract.SWAP_WINDOWS] == "function body, 8 nodes"
        and report.layers["TOPK"] == 5
    )
    assert report.targets["compute_capabilities"] == ["8.0", "8.6", "8.9", "12.0"]
    assert report.bytes > tiny[1].stat().st_size and not report.warnings


@needs_rtx
def test_a_builder_that_dies_is_an_error_and_leaves_nothing(small, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "_run", lambda words, environment: -6)
    with pytest.raises(InputError, match="the builder died of SIGABRT"):
        build.build_engine(small[1], tmp_path / "a.engine", backend="tensorrt_rtx")
    assert not list(tmp_path.iterdir())


@needs_rtx
def test_what_the_builder_refuses_is_an_error_and_leaves_nothing(small, tmp_path):
    """An op that TensorRT does not know."""
    proto = onnx.load(small[1])
    proto.graph.node.append(onnx.helper.make_node("NonZero", ["boxes"], ["nonzero"]))
    found = onnx.helper.make_tensor_value_info("nonzero", onnx.TensorProto.INT64, [3, "number"])
    proto.graph.output.append(found)
    onnx.save(proto, tmp_path / "strange.onnx")
    with pytest.raises(InputError, match=r"tensorrt_rtx [\d.]+ did not build it: .*NonZero"):
        build.build_engine(
            tmp_path / "strange.onnx", tmp_path / "a.engine", backend="tensorrt_rtx"
        )
    assert [p.name for p in tmp_path.iterdir()] == ["strange.onnx"]


def test_an_output_that_the_parser_misread_is_an_error(small):
    proto = onnx.load(small[1])
    shapes = {
        value.name: [-1] * len(value.type.tensor_type.shape.dim) for value in proto.graph.output
    }
    build.check_outputs(proto, shapes)
    message = r"output masks as parsed: expected shape \[-1, 20, -1, -1\]"
    with pytest.raises(InputError, match=message):
        build.check_outputs(proto, {**shapes, "masks": [-1, 0, -1, -1]})


# --- errors -----------------------------------------------------------------------------------


def damaged(path, folder):
    target = folder / "cut.onnx"
    target.write_bytes(path.read_bytes()[:-1000])
    return target


def foreign(path, folder):
    proto = onnx.load(path)
    del proto.metadata_props[:]
    onnx.save(proto, folder / "foreign.onnx")
    return folder / "foreign.onnx"


# Each gives a command line from (checkpoint, ONNX file, empty folder), and a part of the
# message
WRONG = {
    "no checkpoint": (
        lambda c, o, d: ["onnx", d / "no", d / "m.onnx"],
        "checkpoint: expected a folder",
    ),
    "folder is a file": (lambda c, o, d: ["onnx", c, o / "m.onnx"], "cannot make this folder"),
    "no candidates": (
        lambda c, o, d: ["onnx", c, d / "m.onnx", "--candidates", 0],
        "expected at least 1",
    ),
    "no model": (
        lambda c, o, d: ["verify", d / "no.onnx", c],
        "model: expected an existing ONNX file",
    ),
    "cut model": (lambda c, o, d: ["verify", damaged(o, d), c], "is not a whole ONNX file"),
    "foreign model": (
        lambda c, o, d: ["verify", foreign(o, d), c],
        "an ONNX file of tensormask-export",
    ),
    "no image": (
        lambda c, o, d: ["verify", o, c, "--image", d / "no.jpg"],
        "expected an existing",
    ),
    "odd size": (
        lambda c, o, d: ["verify", o, c, "--sizes", "1x17x16"],
        "sides that are multiples of 8",
    ),
    "engine of a cut model": (
        lambda c, o, d: ["engine", damaged(o, d), d / "e"],
        "not a whole ONNX file",
    ),
    "odd shape": (
        lambda c, o, d: ["engine", o, d / "e", "--min", "1x3x17x16"],
        "H and W multiples of 8",
    ),
    "two channels": (
        lambda c, o, d: ["engine", o, d / "e", "--opt", "1x2x16x16"],
        "opt shape: expected",
    ),
    "min above opt": (
        lambda c, o, d: ["engine", o, d / "e", "--min", "9x3x256x256"],
        "min <= opt <= max",
    ),
    "unknown target": (
        lambda c, o, d: ["engine", o, d / "e", "--sm", "35"],
        "sm: expected some of",
    ),
    "place of a folder": (lambda c, o, d: ["engine", o, o / "e"], "cannot make this folder"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_one_line_and_exit_code_2(case, small, tmp_path, capsys):
    words, message = WRONG[case]
    line = [str(word) for word in words(*small, tmp_path)]
    if NO_RTX and line[0] == "engine":
        pytest.skip("tensorrt_rtx is not installed")
    before = sorted(tmp_path.iterdir())  # after the damaged files were made
    assert cli.main(line) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and message in said
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "package, words, fix",
    [
        (
            "onnxscript",
            ["onnx", "CHECKPOINT", "m.onnx"],
            'pip install "tensormask-edu[export]"',
        ),
        (
            "onnxruntime",
            ["verify", "MODEL", "CHECKPOINT"],
            'pip install "tensormask-edu[export]"',
        ),
        ("tensorrt_rtx", ["engine", "MODEL", "m.engine"], 'pip install "tensormask-edu[rtx]"'),
    ],
)
def test_a_missing_package_is_named_with_the_way_to_install_it(
    package, words, fix, small, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    places = {"CHECKPOINT": str(small[0]), "MODEL": str(small[1])}
    assert cli.main([places.get(word, word) for word in words]) == 2
    said = capsys.readouterr().err
    assert fix in said and package in said


def loaded_by(code: str, *arguments) -> set[str]:
    """Top-level modules in memory after some lines in a fresh interpreter."""
    code += "\nimport sys; print(*{m.split('.')[0] for m in sys.modules})"
    words = [sys.executable, "-c", code, *map(str, arguments)]
    run = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
    return set(run.stdout.split())


def test_help_loads_nothing_heavy():
    loaded = loaded_by("import tensormask_export.cli as c; c.build_parser()")
    assert not {"torch", "onnx", "onnxruntime", "tensorrt_rtx"} & loaded


def test_a_file_is_read_and_an_engine_asked_for_without_torch(small):
    read = "from tensormask_export.onnx_file.read import read_metadata, read_onnx\nimport sys\n"
    read += "assert read_metadata(read_onnx(sys.argv[1]), sys.argv[1])"
    others = ("contract", "shapes", "onnx_file.samples", "engine.build", "engine.child")
    modules = ", ".join(f"tensormask_export.{name}" for name in (*others, "engine.manifest"))
    assert "torch" not in loaded_by(f"{read}\nimport {modules}", small[1])


def test_translations_cover_our_ops():
    ours = torch.ops.tensormask_edu
    ops = (ours.swap_align2nat.default, ours.swap_align2nat_windows.default)
    assert {op.name().removesuffix(".default") for op in ops} < set(translations.TRANSLATIONS)
