"""Messages of the exporter that no other test makes: each with the call that makes it."""

from __future__ import annotations

import ctypes.util
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from tensormask_export import contract
from tensormask_export.engine import backends, child, manifest, plugin
from tensormask_export.onnx_file.graph import DetectorGraph
from tensormask_export.onnx_file.write import export_onnx
from tensormask_export.runtimes import engine, find, parsed
from tensormask_export.runtimes.eager import CompiledSession
from tensormask_export.runtimes.session import batch
from tensormask_export.verify.pictures import random_pictures

from tensormask_edu import config
from tensormask_edu.base.errors import InputError
from tensormask_edu.detector.model import build_model

TINY = config.MODELS["tiny"]

# --- what the parsed network's interpreter does not compute -----------------------------------


def named(name: str, **more: object) -> SimpleNamespace:
    """A value of one of TensorRT's enumerations."""
    return SimpleNamespace(name=name, **more)


def typed(kind: str, **fields: object) -> object:
    """A layer whose class, as TensorRT's bindings have it, says its `type`."""
    made = type("Layer", (SimpleNamespace,), {"type": property(lambda self: named(kind))})
    return made(**fields)


Fake = SimpleNamespace
EVEN = {"pre_padding": (1, 1), "post_padding": (1, 1)}
SAME, WRAP, CUBIC = named("SAME_UPPER"), named("WRAP"), named("CUBIC")
PIXEL, FLOOR = named("HALF_PIXEL"), named("FLOOR")
A = np.zeros((1, 1, 4, 4))
SLICE = {"axes": None, "start": (0, 0, 0, 0), "shape": (1, 1, 9, 4), "stride": (1, 1, 1, 1)}
# message, function, layer, inputs
NOT_COMPUTED: list[tuple[str, Callable[..., object], object, list[np.ndarray]]] = [
    ("operation", parsed._reduce, Fake(op=named("NORM")), [A]),
    ("operation", parsed._fill, Fake(operation=named("RANDOM")), []),
    ("grouped convolution", parsed._convolution, Fake(num_groups=2), [A]),
    ("gather", parsed._gather, Fake(mode=named("ND"), num_elementwise_dims=1), [A, A]),
    ("matrix product", parsed._matrix_multiply, Fake(op0=SAME, op1=named("NONE")), [A, A]),
    ("grouped normalisation", parsed._normalization, Fake(num_groups=2), [A, A, A]),
    ("pooling", parsed._pooling, typed("AVERAGE"), [A]),
    ("resize CUBIC", parsed._resize,
     Fake(resize_mode=CUBIC, coordinate_transformation=PIXEL, nearest_rounding=FLOOR,
          scales=(1, 1, 2, 2)), [A]),
    ("slice beyond the data", parsed._slice, Fake(mode=WRAP, **SLICE), [A]),
    ("scale", parsed._scale, Fake(mode=named("UNIFORM"), power=()), [A]),
]  # fmt: skip


@pytest.mark.parametrize(
    "message, compute, layer, inputs", NOT_COMPUTED, ids=[words for words, *_ in NOT_COMPUTED]
)
def test_what_the_parsed_network_does_not_compute_is_told(message, compute, layer, inputs):
    with pytest.raises(parsed.NotComputed, match=f"^{message}"):
        compute(layer, inputs)


def test_a_padding_that_pytorch_does_not_know_is_told():
    with pytest.raises(parsed.NotComputed, match="uneven padding"):
        parsed._padding(Fake(**EVEN | {"pre_padding": (0, 1)}, padding_mode=SAME))
    with pytest.raises(parsed.NotComputed, match="^padding"):
        parsed._padding(Fake(**EVEN, padding_mode=SAME))


class Bound(SimpleNamespace):
    """A layer as the bindings return it."""


def network(*layers: Bound) -> parsed.ParsedNetwork:
    """A parsed network of these layers, without a parser."""
    no_inputs = {"num_inputs": 0, "get_input": None, "num_outputs": 0}
    held = SimpleNamespace(num_layers=len(layers), get_layer=lambda i: layers[i], **no_inputs)
    made = object.__new__(parsed.ParsedNetwork)
    made.network, made.trt = held, SimpleNamespace(IShapeLayer=Bound)
    return made


def test_a_network_with_unknown_layers_or_inputs_says_so():
    reads = {"num_inputs": 1, "get_input": lambda i: named("nowhere"), "num_outputs": 0}
    last = Bound(name="last", type=named("SHAPE"), **reads)
    with pytest.raises(parsed.NotComputed, match="layer last waits for an input"):
        network(last).compute({})
    last.type = named("RNN")
    with pytest.raises(parsed.NotComputed, match="layer type RNN"):
        network(last).compute({})


# --- the exporter: what it refuses ------------------------------------------------------------


class Refusing:
    """Stands for a TensorRT that has no builder, no context and runs nothing."""

    errors = ("out of room",)

    def Builder(self, logger: object) -> object:
        raise RuntimeError("no GPU")

    __name__ = "tensorrt"


def test_a_backend_that_cannot_work_says_why(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="backend: expected auto, tensorrt or tensorrt_rtx"):
        backends.find_backend("tensorflow")
    with pytest.raises(InputError, match="backend: tensorrt has no builder here"):
        backends.make_builder(Refusing(), None)
    plain = backends.Backend("tensorrt", Fake(__version__="10.9"))
    with pytest.raises(InputError, match="sm: expected nothing: tensorrt builds for the GPU"):
        plain.check_targets([86])
    monkeypatch.setattr(
        backends, "import_module", lambda name: Fake(__file__=str(tmp_path / "a.py"))
    )
    with pytest.raises(InputError, match="backend: no libtensorrt_rtx.so in"):
        backends._rtx_library()


def test_an_engine_that_does_not_run_says_why(monkeypatch):
    with pytest.raises(InputError, match="engine: expected one input, got others"):
        context = Fake(infer_shapes=lambda: ["more"], set_input_shape=lambda *words: True)
        engine.checked_plan(None, None, context, {"images": Fake(shape=(1, 3, 8, 8))})
    monkeypatch.setattr(engine, "make_context", lambda trt, loaded: None)
    with pytest.raises(InputError, match=r"no room for it .*\(out of room\); use smaller"):
        engine.EngineReady(None, None, Refusing(), None, {}, False)
    ready = object.__new__(engine.EngineReady)
    ready.context = Fake(execute_async_v3=lambda handle: False)
    ready.logger, ready.stream = Refusing(), Fake(handle=0)
    with pytest.raises(RuntimeError, match="TensorRT did not run the engine: out of room"):
        ready.enqueue()
    session = object.__new__(engine.EngineSession)
    monkeypatch.setattr(engine.EngineSession, "run", beyond)
    with pytest.raises(parsed.NotComputed, match="images: too large"):
        session.all_outputs(A)


def beyond(self: object, images: object) -> None:
    raise InputError("images: too large")


def test_a_compiler_that_breaks_is_a_runtime_that_did_not_compute():
    session = object.__new__(CompiledSession)
    session.compiled = broken
    with pytest.raises(parsed.NotComputed, match="^c.. went away$"):
        session.all_outputs(A)


def broken(images: object) -> None:
    raise RuntimeError("c++ went away\nand more")


@pytest.mark.parametrize(
    "message, change, options",
    [
        ("model: expected a head of swap_align2nat", {"edge": "clamp"}, {}),
        ("model: expected square windows", {"sides_bins": ((11, 15), (15, 11))}, {}),
        ("nms_iterations: expected at least 1", {}, {"nms_iterations": 0}),
    ],
)
def test_a_model_that_has_no_graph_is_named(message, change, options):
    with pytest.raises(InputError, match=message):
        DetectorGraph(build_model(replace(TINY, **change)), **options)


def test_words_that_the_exporter_does_not_know_are_named(tmp_path):
    with pytest.raises(InputError, match="precision: expected float32 or float16"):
        export_onnx(build_model(TINY), tmp_path / "a.onnx", precision="int8")
    with pytest.raises(InputError, match=r"pictures\[0\]: expected shape \(3, H, W\)"):
        batch([np.zeros((4, 4), np.float32)], {}, None)
    with pytest.raises(InputError, match="seed: expected from 0 to"):
        random_pictures(TINY, [(64, 64)], seed=-1)


def test_an_onnx_file_that_does_not_parse_says_why(monkeypatch):
    refusing = Fake(parse=lambda text: False, get_error=lambda number: Fake(desc=lambda: "no"))
    logger = type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None})
    trt = Fake(OnnxParser=lambda *words: refusing, Logger=logger)
    found = Fake(name="a", version="1", module=trt)
    monkeypatch.setattr(parsed, "find_backend", lambda name: found)
    builder = Fake(create_network=lambda flags: None)
    monkeypatch.setattr(parsed, "make_builder", lambda *words: builder)
    monkeypatch.setattr(parsed, "network_flags", lambda trt: 0)
    monkeypatch.setattr(parsed, "_without_plugins", lambda proto: b"")
    with pytest.raises(InputError, match=r"model: the file does not parse \(no\)"):
        parsed.ParsedNetwork(Fake())


# --- engines and plugins that are not what they should be -------------------------------------


def test_a_manifest_beside_no_file_and_an_engine_of_another_file_are_named(
    tmp_path, monkeypatch
):
    model = tmp_path / "a.engine"
    model.mkdir()
    (tmp_path / "a.engine.json").write_text("{}")
    monkeypatch.setattr(manifest, "FIELDS", ())
    monkeypatch.setattr(manifest, "_check_types", lambda fields, path: None)
    with pytest.raises(InputError, match="engine: expected a readable file, got .*directory"):
        manifest.read_engine(model)
    of_another = {key: "other" for key in (contract.WEIGHTS_SHA256, contract.DETECTOR)}
    monkeypatch.setattr(find, "read_engine", lambda path: Fake(metadata={}))
    with pytest.raises(InputError, match="engine: expected one that was built of this ONNX"):
        find.check_engine(model, of_another)


def test_a_plugin_library_that_is_none_is_named(tmp_path, monkeypatch):
    (tmp_path / "text.so").write_text("text")
    with pytest.raises(InputError, match="plugin: .*text.so does not load here"):
        plugin._load_library(Fake(), tmp_path / "text.so")
    with pytest.raises(InputError, match="plugin: expected a library that exports getCreators"):
        plugin._load_library(Fake(), ctypes.util.find_library("c"))
    monkeypatch.setattr(plugin, "_load_library", lambda trt, path: None)
    registry = Fake(get_creator=lambda *words: None)
    trt = Fake(__name__="an older one", get_plugin_registry=lambda: registry)
    with pytest.raises(InputError, match="plugin: expected the ops .* in it, got none in a.so"):
        plugin.load(trt, "cpp", "a.so")


def test_a_build_that_fails_says_why(tmp_path, monkeypatch):
    parser = Fake(
        parse_from_file=lambda path: False, get_error=lambda n: Fake(desc=lambda: "no")
    )
    network = Fake(num_layers=0, num_outputs=0)
    builder = Fake(
        create_network=lambda flags: network, build_serialized_network=lambda *words: None
    )
    monkeypatch.setattr(child, "make_logger", lambda trt: Fake(errors=[], warnings=[]))
    monkeypatch.setattr(child, "make_builder", lambda *words: builder)
    monkeypatch.setattr(child, "network_flags", lambda trt: 0)
    monkeypatch.setattr(child, "_config", lambda *words: None)
    request = {"plugin": {"kind": "none"}, "onnx": "a.onnx", "plugin_nodes": {}}
    trt = Fake(OnnxParser=lambda *words: parser, __name__="trt")
    with pytest.raises(child.BuildFailed, match="the ONNX file does not parse: no"):
        child._parse_and_build(trt, request)
    parser.parse_from_file = lambda path: True
    with pytest.raises(child.BuildFailed, match="it gave no reason"):
        child._parse_and_build(trt, request)
    settings = Fake(create_timing_cache=lambda stored: None)
    with pytest.raises(child.BuildFailed, match="the timing cache .* damaged: remove it"):
        child._set_timing_cache(settings, tmp_path / "cache")
