"""Engines: which plugin our ops take, what the builder is asked, one error for the rest."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from types import SimpleNamespace

import pytest
from exported import needs_rtx

from tensormask_edu.base.errors import InputError
from tensormask_edu.ops.build import find_compiler
from tensormask_edu.weights.checkpoint import load_checkpoint

onnx = pytest.importorskip("onnx")

from tensormask_export import cli, contract
from tensormask_export.engine import build, child, plugin
from tensormask_export.engine.build import Effort, build_engine
from tensormask_export.engine.plugin import Plugin
from tensormask_export.onnx_file.write import export_onnx
from tensormask_export.shapes import Profile

pytestmark = needs_rtx

TARGETS = (80, 86, 89, 120)
ONE_SHAPE = Profile(*[(1, 3, 32, 32)] * 3)


@pytest.fixture(scope="module")
def dense(small):
    """The small model with the masks of all windows: quick to build."""
    return small[1]


@pytest.fixture(scope="module", params=["float32", "float16"])
def in_precision(request, tiny, tmp_path_factory):
    """(precision, the tiny model with the masks of the kept windows)."""
    checkpoint, exported, _ = tiny
    if request.param == "float32":
        return request.param, exported
    path = tmp_path_factory.mktemp("half") / "tiny.onnx"
    export_onnx(load_checkpoint(checkpoint)[0], path, precision=request.param)
    return request.param, path


def nodes_of(path) -> int:
    return sum(node.op_type in plugin.OPS for node in onnx.load(path).graph.node)


# --- every form, for every GPU ----------------------------------------------------------------

STATIC = Profile(*[(1, 3, 128, 160)] * 3)
DYNAMIC = Profile((1, 3, 64, 64), (1, 3, 128, 160), (2, 3, 256, 256))
# Plugin, shapes and targets: each with each precision, and each kind of each at least once
FORMS = {
    "float32": [("python", DYNAMIC, TARGETS), ("none", STATIC, (86,))],
    "float16": [("python", STATIC, (120, 89)), ("none", DYNAMIC, TARGETS)],
}


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=pytest.mark.long)])
def test_the_tiny_model_builds_with_the_python_plugin_and_without(
    number, in_precision, tmp_path
):
    precision, path = in_precision
    form, profile, targets = FORMS[precision][number]
    engine = tmp_path / "tiny.engine"
    report = build_engine(
        path, engine, profile=profile, sm=targets, backend="tensorrt-rtx", plugin=form
    )
    assert report.layers.get("PLUGIN_V3", 0) == (8 if form == "python" else 0)
    how = "python plugin" if form == "python" else "function body"
    assert report.ops[contract.SWAP_WINDOWS] == f"{how}, 8 nodes"
    assert report.plugin == {"kind": form, "why": "asked for", "library": None, "sha256": None}
    assert report.targets["compute_capabilities"] == [f"{sm // 10}.{sm % 10}" for sm in targets]
    assert report.bytes == engine.stat().st_size > path.stat().st_size
    manifest = json.loads((tmp_path / "tiny.engine.json").read_text())
    assert manifest["plugin"]["kind"] == form and manifest["layers"] == report.layers
    assert manifest["profile"]["images"]["max"] == list(profile.max)


def test_the_command_line_says_which_plugin_and_why(dense, tmp_path, capsys):
    words = ["engine", dense, tmp_path / "e", "--backend", "tensorrt-rtx"]
    words += [
        "--shapes",
        "1x3x32x32",
        "--sm",
        "89",
        "--plugin",
        "python",
        "--memPoolSize",
        "workspace:1G",
    ]
    words += ["--builderOptimizationLevel", "1", "--json", tmp_path / "report.json"]
    assert cli.main([*map(str, words)]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["profile"] == dict.fromkeys(("min", "opt", "max"), [1, 3, 32, 32])
    assert report["layers"]["PLUGIN_V3"] == nodes_of(dense)
    said = capsys.readouterr().out
    assert "  plugin       python: asked for\n" in said
    assert "  equivalent   none: tensorrt_rtx loads no plugins in Python\n" in said


# --- a plugin that was asked for and not taken ------------------------------------------------


def without(path, target, attribute: str):
    """The file with one node that lacks an attribute."""
    proto = onnx.load(path)
    node = next(node for node in proto.graph.node if node.op_type in plugin.OPS)
    kept = [a for a in node.attribute if a.name != attribute]
    del node.attribute[:]
    node.attribute.extend(kept)
    onnx.save(proto, target)
    return target


def test_a_node_that_takes_its_body_where_a_plugin_was_asked_for_is_an_error(dense, tmp_path):
    """Without plugin_namespace the parser prefers the body, silently."""
    damaged = without(dense, tmp_path / "damaged.onnx", "plugin_namespace")
    count = nodes_of(dense)
    message = rf"plugin python: {count - 1} plugin layers came of {count} SwapAlign2Nat nodes"
    with pytest.raises(InputError, match=message):
        build_engine(
            damaged, tmp_path / "e", profile=ONE_SHAPE, backend="tensorrt_rtx", plugin="python"
        )
    assert [p.name for p in tmp_path.iterdir()] == ["damaged.onnx"]


@pytest.mark.parametrize("kind, layers, fine", [
    ("cpp", {"PLUGIN_V3": 3}, True),
    ("cpp", {"PLUGIN_V3": 2}, False),
    ("cpp", {"CONVOLUTION": 3}, False),
    ("cpp", {"PLUGIN_V3": 4}, False),
    ("python", {"PLUGIN_V3": 0}, False),
    ("none", {"EINSUM": 4}, True),
    ("none", {"PLUGIN_V3": 1}, False),
])  # fmt: skip
def test_plugin_layers_are_as_many_as_nodes_or_it_is_an_error(kind, layers, fine):
    nodes = {contract.SWAP: 1, contract.SWAP_WINDOWS: 2}
    if fine:
        child.check_plugins(Counter(layers), kind, nodes)
    else:
        message = "1 SwapAlign2Nat, 2 SwapAlign2NatWindows nodes"
        with pytest.raises(child.BuildFailed, match=message):
            child.check_plugins(Counter(layers), kind, nodes)


def test_nodes_inside_branches_and_loops_are_counted():
    def swap():
        return onnx.helper.make_node(contract.SWAP, ["x"], ["y"], domain=contract.DOMAIN)

    inner = onnx.helper.make_graph([swap()], "inner", [], [])
    branch = onnx.helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)
    relu = onnx.helper.make_node("Relu", ["z"], ["o"])
    graph = onnx.helper.make_graph([swap(), branch, relu], "outer", [], [])
    assert build.count_ops(graph) == {contract.SWAP: 3}


def test_attributes_that_the_plugin_refuses_end_the_build_with_one_error(dense, tmp_path):
    proto = onnx.load(dense)
    node = next(node for node in proto.graph.node if node.op_type in plugin.OPS)
    next(a for a in node.attribute if a.name == contract.LAM).i = 0
    zero = tmp_path / "zero.onnx"
    onnx.save(proto, zero)
    with pytest.raises(InputError, match="did not build it: the ONNX file does not parse"):
        build_engine(
            zero, tmp_path / "e", profile=ONE_SHAPE, backend="tensorrt_rtx", plugin="python"
        )
    assert [p.name for p in tmp_path.iterdir()] == ["zero.onnx"]


# --- libraries that are none ------------------------------------------------------------------


def text_file(folder):
    path = folder / "text.so"
    path.write_text("not a library")
    return path


def compiled(folder, name: str, source: str):
    if find_compiler() is None:
        pytest.skip("no C++ compiler found")
    code, library = folder / f"{name}.cpp", folder / f"{name}.so"
    code.write_text(source)
    words = [find_compiler(), "-shared", "-fPIC", code, "-o", library]
    subprocess.run(words, check=True)
    return library


def foreign(folder):
    return compiled(folder, "foreign", 'extern "C" int answer() { return 42; }')


def empty(folder):
    """A plugin library of another op."""
    code = 'extern "C" void* const* getCreators(int& count) { count = 0; return nullptr; }'
    return compiled(folder, "empty", code + 'extern "C" void setLoggerFinder(void*) {}')


def unresolved(folder):
    """Needs a symbol of the TensorRT that it was linked for."""
    code = 'extern "C" int of_another_version(); extern "C" int getCreators() { return 0; }'
    return compiled(folder, "unresolved", code + "int now = of_another_version();")


LIBRARIES = {
    "missing": (
        lambda folder: folder / "gone.so",
        "expected a libswap_align2nat_trt.so, got no file",
    ),
    "text": (text_file, "does not load here"),
    "without getCreators": (foreign, "expected a library that exports getCreators"),
    "without our ops": (
        empty,
        "expected the ops SwapAlign2Nat, SwapAlign2NatWindows in it, got none in",
    ),
    "for another version": (unresolved, "undefined symbol: of_another_version"),
}


@pytest.mark.parametrize("case", LIBRARIES)
def test_a_library_that_is_no_plugin_of_ours_is_one_error_with_the_cure(
    case, dense, tmp_path, capsys
):
    make, message = LIBRARIES[case]
    library = make(tmp_path)
    before = sorted(tmp_path.iterdir())
    words = ["engine", dense, tmp_path / "e", "--backend", "tensorrt_rtx"]
    words += ["--shapes", "1x3x32x32"]
    assert cli.main([*map(str, words), "--dynamicPlugins", str(library)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    assert message in said and "cmake -S plugins -B build/plugins" in said
    assert sorted(tmp_path.iterdir()) == before


# --- other bad input --------------------------------------------------------------------------

WRONG = {
    "a target twice": (["--sm", "86", "86"], "sm: expected each compute capability once"),
    "a target that RTX does not build for": (
        ["--sm", "90"],
        "sm: expected some of [80, 86, 89, 120",
    ),
    "Turing": (["--sm", "86", "75"], "sm: expected later ones than Turing"),
    "one shape and three": (
        ["--shapes", "1x3x32x32", "--min", "1x3x16x16"],
        "either --shapes or --min",
    ),
    "a shape of three axes": (["--shapes", "3x32x32"], "min shape: expected Nx3xHxW"),
    "no picture": (["--shapes", "0x3x32x32"], "min shape: expected Nx3xHxW with N >= 1"),
    "no rows": (["--shapes", "1x3x0x32"], "min shape: expected Nx3xHxW"),
    "opt above max": (
        ["--opt", "1x3x512x512", "--max", "1x3x256x512"],
        "min <= opt <= max in every axis",
    ),
    "level of search": (
        ["--builderOptimizationLevel", "9"],
        "OptimizationLevel: expected 0 to 5, got 9",
    ),
    "no memory": (["--memPoolSize", "workspace:0"], "memPoolSize: expected MiB > 0"),
    "a timing cache": (
        ["--timingCacheFile", "t"],
        "timingCacheFile: expected none: TensorRT-RTX has",
    ),
    "a library and none": (
        ["--plugin", "none", "--plugin-library", "x.so"],
        "leave one of the two away",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_one_line_and_no_file(case, dense, tmp_path, capsys):
    words, message = WRONG[case]
    line = ["engine", dense, tmp_path / "e", "--backend", "tensorrt-rtx", *words]
    assert cli.main([*map(str, line)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and message in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["workspace:much", "tactics:3", "12X"])
def test_memory_that_is_no_number_is_explained(text, capsys):
    with pytest.raises(SystemExit):
        cli.main(["engine", "m", "e", "--memPoolSize", text])
    assert "expected workspace:MIB, as workspace:2048" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_found_before_the_build(dense, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "_build_in_child", lambda *request: pytest.fail("built"))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make this folder"):
        build_engine(dense, tmp_path / "file" / "e", backend="tensorrt_rtx")


# --- the vendor's command line ----------------------------------------------------------------


def test_the_equivalent_command_carries_every_option():
    backend = SimpleNamespace(tool="trtexec", is_rtx=False, version="10.16.1")
    library = Plugin("cpp", "asked for", "swap.so", "00")
    effort = Effort(workspace_mib=512.5, optimization_level=0, timing_cache="t.cache")
    command = build.equivalent_command(
        backend, "m.onnx", "m.engine", STATIC, (), library, effort
    )
    assert command.split() == [
        "trtexec",
        "--onnx=m.onnx",
        "--saveEngine=m.engine",
        *[f"--{name}Shapes=images:1x3x128x160" for name in ("min", "opt", "max")],
        "--dynamicPlugins=swap.so",
        "--memPoolSize=workspace:512.5M",
        "--builderOptimizationLevel=0",
        "--timingCacheFile=t.cache",
        "--skipInference",
        "--stronglyTyped",
    ]
