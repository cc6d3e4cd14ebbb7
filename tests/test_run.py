"""Exported models at work: sessions, predictions, timings, and engines that are refused."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT
from exported import SMALL, needs_rtx, outspoken
from PIL import Image

from tensormask_edu.base.errors import InputError
from tensormask_edu.commands.predict import predict as predict_in_torch
from tensormask_edu.config import InputConfig, to_json
from tensormask_edu.data.shapes import write_shapes
from tensormask_edu.detector.model import build_model
from tensormask_edu.weights.checkpoint import load_checkpoint, save_checkpoint

pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from tensormask_export import bench, cli, contract
from tensormask_export import predict as exported_predict
from tensormask_export.engine.build import build_engine
from tensormask_export.engine.device import Device
from tensormask_export.engine.manifest import read_engine
from tensormask_export.onnx_file.graph import DetectorGraph
from tensormask_export.onnx_file.read import read_onnx
from tensormask_export.onnx_file.write import windows_metadata
from tensormask_export.predict import predict
from tensormask_export.runtimes import engine as engine_run
from tensormask_export.runtimes import session as run
from tensormask_export.runtimes.detections import detections
from tensormask_export.runtimes.eager import EagerSession, arrays
from tensormask_export.runtimes.find import NAMES, find_sessions, open_session
from tensormask_export.runtimes.onnxruntime import OnnxSession
from tensormask_export.shapes import Profile

PROFILE = Profile((1, 3, 32, 32), (1, 3, 64, 64), (2, 3, 96, 96))
QUICK = bench.Effort(warmup=1, iterations=5, threads=1)


@pytest.fixture(scope="module")
def folder(small, tmp_path_factory) -> Path:
    """A checkpoint, its ONNX file, three pictures of two sizes."""
    folder = tmp_path_factory.mktemp("run")
    checkpoint, model = small
    shutil.copytree(checkpoint, folder / "checkpoint")
    shutil.copy(model, folder / "model.onnx")
    write_shapes(folder / "shapes", train=1, val=2, size_px=64)
    (folder / "photos").mkdir()
    for number, path in enumerate(sorted((folder / "shapes" / "images").rglob("*.png"))):
        with Image.open(path) as picture:
            part = picture if number else picture.crop((0, 0, 64, 45))
            part.save(folder / "photos" / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def engine(folder) -> Path:
    """An engine of that model, with its manifest; built without a GPU."""
    build_engine(
        folder / "model.onnx",
        folder / "model.engine",
        profile=PROFILE,
        backend="tensorrt_rtx",
        plugin="none",
    )
    return folder / "model.engine"


@pytest.fixture
def copied(engine, tmp_path) -> Path:
    """The engine and its manifest, to be spoilt."""
    for name in (engine.name, f"{engine.name}.json"):
        shutil.copy(engine.with_name(name), tmp_path / name)
    return tmp_path / engine.name


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).random(shape, dtype=np.float32)


# --- sessions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 3, 64, 96), (2, 3, 32, 64)])
def test_buffers_have_the_shapes_that_the_model_gives(folder, shape):
    plain = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    expected = dict(
        zip(
            contract.OUTPUTS,
            plain.run(list(contract.OUTPUTS), {"images": images(*shape)}),
            strict=True,
        )
    )
    with open_session(folder / "model.onnx") as session:
        plan, found = run.output_plan(session.metadata, shape), session.run(images(*shape))
    assert expected["count"].min() > 0
    for name, values in expected.items():
        assert plan[name] == (values.shape, values.dtype), name
        np.testing.assert_array_equal(found[name], values)


def test_a_file_is_onnx_in_capitals_too(folder, tmp_path):
    shutil.copy(folder / "model.onnx", tmp_path / "Model.ONNX")
    with open_session(tmp_path / "Model.ONNX") as session:
        assert isinstance(session, OnnxSession)
    assert not bench.Subject("model", tmp_path / "Model.ONNX").needs_torch


def test_a_picture_whose_masks_would_fill_the_memory_is_refused(folder, monkeypatch):
    monkeypatch.setattr(exported_predict, "MASK_BYTES", 1000)
    with pytest.raises(InputError, match="image: expected a picture whose .* tiles"):
        predict(folder / "model.onnx", folder / "photos" / "0.png", folder / "never")
    assert not (folder / "never").exists()


def test_without_a_compiler_torch_compile_is_named_as_not_run(folder, monkeypatch):
    model = load_checkpoint(folder / "checkpoint")[0]
    proto = read_onnx(folder / "model.onnx")
    monkeypatch.setattr("tensormask_edu.ops.build.find_compiler", lambda: None)
    sessions, not_run = find_sessions(proto, ["compiled"], model)
    assert not sessions and "no C++ compiler found" in not_run["torch.compile"]


def test_a_run_allocates_no_new_outputs_and_a_shape_keeps_its_own(folder):
    with open_session(folder / "model.onnx") as session:
        first = session.run(images(1, 3, 64, 64))
        kept = {name: values.copy() for name, values in first.items()}
        other = session.run(images(1, 3, 32, 64))
        assert not np.shares_memory(first["masks"], other["masks"])
        again = session.run(1 - images(1, 3, 64, 64))
        assert all(again[name] is first[name] for name in first)
        assert not np.array_equal(again["scores"], kept["scores"])
        for side in range(32, 32 * (run.KEPT_SHAPES + 3), 32):
            session.run(images(1, 3, 32, side))
        assert len(session._ready) == run.KEPT_SHAPES


def test_pictures_are_padded_as_in_training(folder):
    with open_session(folder / "model.onnx") as session:
        pictures = [images(3, 40, 30), images(3, 20, 70)]
        padded = run.batch(pictures, session.metadata)
        assert padded.shape == (2, 3, 40, 72)
        model = load_checkpoint(folder / "checkpoint")[0]
        expected = model.batch([torch.from_numpy(p) for p in pictures])
        torch.testing.assert_close(model.normalise(torch.from_numpy(padded)), expected)
        filled = run.batch(pictures[:1], session.metadata, replace(PROFILE, min=(2, 3, 96, 64)))
        assert filled.shape == (2, 3, 96, 64) and (filled[1] == filled[0, :, -1:, -1:]).all()


def test_detections_are_those_of_pytorch(folder):
    model, _ = load_checkpoint(folder / "checkpoint")
    pictures = [images(3, 40, 30), images(3, 40, 30)[:, ::-1].copy(), images(3, 33, 31)]
    sizes = [(80, 60), (40, 30), (20, 90)]
    with open_session(folder / "model.onnx") as session:
        session.profile = PROFILE  # at most two at once
        found = session.detect(pictures, sizes)
        assert [shape[0] for shape in session._ready] == [2, 1]
    for picture, size, detection in zip(pictures, sizes, found, strict=True):
        with torch.inference_mode():
            (expected,) = model([torch.from_numpy(picture)], output_sizes=[size])
        assert len(expected["scores"]) > 3 and detection["masks"].any()
        np.testing.assert_array_equal(detection["labels"], expected["labels"])
        np.testing.assert_allclose(detection["scores"], expected["scores"], atol=1e-6)
        np.testing.assert_allclose(detection["boxes"], expected["boxes"], atol=1e-3)
        assert (detection["masks"] == expected["masks"].numpy()).mean() > 0.999


def test_sure_masks_are_drawn_and_ranked_without_pytorch_as_with_it():
    config = replace(SMALL, mask_threshold=0.6, mask_score_power=2.0)
    model, picture = outspoken(build_model(config)).eval(), images(3, 40, 32)
    metadata = {
        contract.WINDOWS: windows_metadata(config.geometry),
        contract.MODEL_CONFIG: to_json(config),
    }
    with torch.inference_mode():
        outputs = arrays(DetectorGraph(model)(torch.from_numpy(picture)[None]))
        (expected,) = model([torch.from_numpy(picture)], output_sizes=[(80, 64)])
    (found,) = detections(outputs, metadata, [(40, 32)], [(80, 64)])
    assert len(found["scores"]) > 3
    np.testing.assert_array_equal(found["labels"], expected["labels"])
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-6)
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=1e-3)
    assert (found["masks"] == expected["masks"].numpy()).mean() > 0.999


def test_every_runtime_is_a_session_and_all_find_the_same(folder):
    proto, (model, _) = read_onnx(folder / "model.onnx"), load_checkpoint(folder / "checkpoint")
    sessions, not_run = find_sessions(proto, ["onnxruntime", "numpy", "parsed"])
    assert len(sessions) + len(not_run) == 4  # with the engine that was not given
    eager = EagerSession(model, sessions[0].metadata)
    given, pictures = images(1, 3, 32, 64), [images(3, 40, 30)]
    expected, (seen,) = eager.run(given), eager.detect(pictures)
    for session in sessions:
        found, everything = session.run(given), session.all_outputs(given)
        assert set(found) == set(contract.OUTPUTS) <= set(everything)
        for name in contract.OUTPUTS:
            np.testing.assert_array_equal(found[name], everything[name])
            np.testing.assert_allclose(found[name], expected[name], atol=1e-3)
        assert session.ready((1, 3, 32, 64)).compute_ms() > 0 and session.kind in NAMES
        (mine,) = session.detect(pictures)
        np.testing.assert_allclose(mine["boxes"], seen["boxes"], atol=1e-3)


def test_predictions_are_those_of_pytorch_picture_by_picture(folder, tmp_path):
    report = predict(folder / "model.onnx", folder / "photos", tmp_path / "onnx", score=0)
    predict_in_torch(folder / "checkpoint", folder / "photos", tmp_path / "torch", score=0)
    found, expected = (
        json.loads((tmp_path / name / "detections.json").read_text())
        for name in ("onnx", "torch")
    )
    assert [Path(p).name for p in report.pictures] == ["0.png", "1.png", "2.png"]
    assert len(found) == len(expected) > 9
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine["image_id"], mine["category_id"]) == (
            theirs["image_id"],
            theirs["category_id"],
        )
        np.testing.assert_allclose(mine["bbox"], theirs["bbox"], atol=1e-3)
        assert mine["segmentation"]["size"] == theirs["segmentation"]["size"]
    assert all(
        (tmp_path / "onnx" / name).stat().st_size > 1000 for name in ("0.png", "1.png", "2.png")
    )


BAD_IMAGES = {
    "grey": (np.zeros((1, 1, 64, 64), np.float32), "three channels"),
    "RGBA": (np.zeros((1, 4, 64, 64), np.float32), "three channels"),
    "no batch": (np.zeros((3, 64, 64), np.float32), "N, 3, H, W"),
    "bytes": (np.zeros((1, 3, 64, 64), np.uint8), "uint8"),
    "not padded": (np.zeros((1, 3, 64, 70), np.float32), "multiples of"),
    "empty": (np.zeros((0, 3, 64, 64), np.float32), "N, 3, H, W"),
    "no array": ([[0.0]], "list"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_an_input_that_is_no_batch_of_pictures_is_refused(folder, case):
    with (
        open_session(folder / "model.onnx") as session,
        pytest.raises(InputError, match=BAD_IMAGES[case][1]),
    ):
        session.run(BAD_IMAGES[case][0])


@pytest.mark.parametrize("shape", [(3, 3, 64, 64), (1, 3, 64, 128), (1, 3, 128, 32)])
def test_a_shape_outside_the_profile_names_the_options_that_include_it(folder, shape):
    with open_session(folder / "model.onnx") as session:
        session.profile = PROFILE
        with pytest.raises(InputError, match="1x3x32x32 to 2x3x96x96") as caught:
            session.run(images(*shape))
    words = str(caught.value).split()
    given = {
        word[2:]: cli._numbers(words[i + 1])
        for i, word in enumerate(words)
        if word.startswith("--")
    }
    assert set(given) == {"min", "opt", "max"}
    wider = Profile(**given)
    wider.check(SMALL.geometry.padding_px)
    assert (
        run.fits(wider, shape) and run.fits(wider, PROFILE.min) and run.fits(wider, PROFILE.max)
    )


# --- what needs no PyTorch --------------------------------------------------------------------


def loaded_by(statements: str) -> set[str]:
    """Packages in memory after statements in a fresh interpreter."""
    names = "print(*{name.split('.')[0] for name in sys.modules})"
    code = f"import sys\n{statements}\n{names}"
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(child.stdout.splitlines()[-1].split())


def test_an_onnx_file_runs_without_torch(folder):
    statements = f"""
import numpy as np
from tensormask_export.runtimes.onnxruntime import OnnxSession
with OnnxSession({str(folder / "model.onnx")!r}) as session:
    (found,) = session.detect([np.random.rand(3, 40, 60).astype(np.float32)])
    assert found["masks"].shape[1:] == (40, 60)
"""
    loaded = loaded_by(statements)
    assert "onnxruntime" in loaded and not {"torch", "torchvision", "onnx"} & loaded


def test_the_whole_command_predict_on_an_onnx_file_loads_no_torch(folder, tmp_path):
    words = ["predict", str(folder / "model.onnx"), str(folder / "photos"), "--output"]
    statements = f"""
from tensormask_export.cli import main
assert main({[*words, str(tmp_path / "seen")]!r}) == 0
"""
    assert not {"torch", "torchvision"} & loaded_by(statements)
    assert (tmp_path / "seen" / "detections.json").is_file()


def test_a_benchmark_of_an_onnx_file_alone_loads_no_torch(folder):
    statements = f"""
from tensormask_export import bench
model, shape = {str(folder / "model.onnx")!r}, (1, 3, 32, 32)
effort = bench.Effort(warmup=1, iterations=5)
assert bench.measure(bench.Subject("model", model), shape, effort).memory_mb > 0
facts = bench.this_machine(effort, with_torch=False)
assert {{"date", "torch", "threads", "gpu", "ops"}} <= set(facts)
"""
    assert "torch" not in loaded_by(statements)


def test_help_loads_neither_torch_nor_matplotlib():
    statements = """
from tensormask_export.cli import main
try:
    main(["--help"])
except SystemExit as end:
    assert end.code == 0
"""
    assert not {"torch", "matplotlib", "onnx", "onnxruntime"} & loaded_by(statements)


# --- engines: what is checked before one is loaded --------------------------------------------


def change(engine: Path, part: str, **fields) -> None:
    """Change fields of a manifest."""
    path = Path(f"{engine}.json")
    manifest = json.loads(path.read_text())
    manifest[part] = {**manifest.get(part, {}), **fields}
    path.write_text(json.dumps(manifest))


@needs_rtx
def test_an_engine_is_what_its_manifest_says(engine):
    file = read_engine(engine)
    assert file.profile == PROFILE and file.plugin() == {"kind": "none"}
    assert file.metadata[contract.CLASS_NAMES] == ["left", "right"]
    assert file.backend().version == file.manifest["backend"]["version"]
    assert hashlib.sha256(file.plan).hexdigest() == file.manifest["engine"]["sha256"]


@needs_rtx
@pytest.mark.parametrize("spoil", ["one bit", "cut off", "empty", "of another build"])
def test_an_engine_that_its_manifest_does_not_describe_is_not_loaded(copied, spoil):
    plan = bytearray(copied.read_bytes())
    if spoil == "one bit":
        plan[len(plan) // 2] ^= 1
    copied.write_bytes(
        {"cut off": plan[:-1], "empty": b"", "of another build": plan + b"\0"}.get(spoil, plan)
    )
    change(
        copied, "backend", version="1.0"
    )  # would be refused as well, but the hash comes first
    match = (
        "another SHA-256.*not loaded" if spoil == "one bit" else "bytes, as its manifest says"
    )
    with pytest.raises(InputError, match=match):
        engine_run.EngineSession(copied)


@needs_rtx
def test_an_engine_without_its_manifest_is_not_loaded(copied):
    Path(f"{copied}.json").unlink()
    with pytest.raises(
        InputError, match="its manifest model.engine.json beside it.*copy it together"
    ):
        engine_run.EngineSession(copied)
    Path(f"{copied}.json").write_text("{")
    with pytest.raises(InputError, match="valid JSON"):
        engine_run.EngineSession(copied)
    Path(f"{copied}.json").write_text('{"engine": {"bytes": 1}}')
    with pytest.raises(
        InputError, match="the fields engine/sha256, .*model/metadata/tensormask_edu.windows"
    ):
        engine_run.EngineSession(copied)


@needs_rtx
def test_an_engine_of_another_version_names_both(copied):
    change(copied, "backend", version="1.6.0")
    with pytest.raises(
        InputError, match=r"tensorrt_rtx 1\.6\.0.*pip install tensorrt-rtx==1\.6\.0"
    ):
        engine_run.EngineSession(copied)
    change(copied, "backend", name="tensorrt", version="0.1")  # of which no package exists
    with pytest.raises(
        InputError, match=r"tensorrt 0\.1, which built it, got .*pip install tensorrt==0\.1"
    ):
        engine_run.EngineSession(copied)


@needs_rtx
@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_an_engine_without_a_gpu_points_to_the_onnx_file(copied):
    with pytest.raises(InputError, match="no GPU.*run the .onnx file"):
        engine_run.EngineSession(copied)


@needs_rtx
def test_an_engine_for_other_gpus_names_them(copied):
    ampere, turing, hopper = (
        Device("a card", number, "580") for number in ("8.6", "7.5", "9.0")
    )
    change(copied, "targets", compute_capabilities=["8.6", "8.9"], later=False)
    assert read_engine(copied).check_device(ampere) is ampere
    for other in (turing, hopper):
        with pytest.raises(
            InputError, match=rf"8\.6 or 8\.9, got a card of {other.capability}"
        ):
            read_engine(copied).check_device(other)
    change(copied, "targets", compute_capabilities=["8.0", "12.0"], later=True)
    assert read_engine(copied).check_device(hopper) is hopper
    with pytest.raises(InputError, match="8.0 or 12.0 or later, got a card of 7.5"):
        read_engine(copied).check_device(turing)


@needs_rtx
def test_a_plugin_library_must_be_there_and_the_one_of_the_build(copied, tmp_path, monkeypatch):
    monkeypatch.delenv("TENSORMASK_PLUGIN", raising=False)
    library = tmp_path / "elsewhere" / "plugin.so"
    change(
        copied,
        "plugin",
        kind="cpp",
        library="gone/plugin.so",
        sha256=hashlib.sha256(b"code").hexdigest(),
    )
    with pytest.raises(InputError, match="plugin.so, which the engine needs.*--plugin-library"):
        read_engine(copied).plugin()
    library.parent.mkdir()
    library.write_bytes(b"other code")
    with pytest.raises(InputError, match="the library of SHA-256 .* got another one"):
        read_engine(copied).plugin(library)
    library.write_bytes(b"code")
    assert read_engine(copied).plugin(library) == {"kind": "cpp", "library": library}
    shutil.copy(library, copied.with_name("plugin.so"))
    assert read_engine(copied).plugin()["library"] == copied.with_name("plugin.so")


@needs_rtx
@pytest.mark.parametrize("spoil", ["truncated", "of another kind"])
def test_tensorrt_says_why_it_does_not_load_a_plan(engine, spoil):
    """A manifest written for a wrong file: then TensorRT's own words are the error."""
    import tensorrt_rtx as trt

    plan = engine.read_bytes()
    plan = plan[: len(plan) // 2] if spoil == "truncated" else b"onnx" * 5000
    logger = engine_run.make_logger(trt)
    match = "plan.header.size == blobSize" if spoil == "truncated" else "magicTag"
    with pytest.raises(
        InputError, match=rf"does not load it: .*{match}.*; build the engine again"
    ):
        engine_run.load_plan(trt.Runtime(logger), plan, logger)


# --- engines: as much of a run as needs no GPU ------------------------------------------------


@needs_rtx
def test_the_calls_of_a_run_exist_in_tensorrt():
    import tensorrt_rtx as trt

    classes = {
        "engine": trt.ICudaEngine,
        "context": trt.IExecutionContext,
        "runtime": trt.Runtime,
        "config": trt.IRuntimeConfig,
        "strategies": trt.DynamicShapesKernelSpecializationStrategy,
    }
    source = ROOT / "exporters" / "tensormask_export" / "runtimes" / "engine.py"
    used = {
        (name, node.attr)
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and (name := getattr(node.value, "id", getattr(node.value, "attr", ""))) in classes
    }
    assert len(used) > 12
    assert not [
        (name, attribute) for name, attribute in used if not hasattr(classes[name], attribute)
    ]


class CpuEngine:
    """What an engine is to `EngineReady`, by ONNX Runtime on addresses of the CPU's memory."""

    def __init__(self, path: Path, extra: int = 0) -> None:
        self.session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.names = ["images", *(output.name for output in self.session.get_outputs())]
        self.num_io_tensors, self.extra = len(self.names), extra

    def get_tensor_name(self, position: int) -> str:
        return self.names[position]

    def get_tensor_mode(self, name: str):
        import tensorrt_rtx as trt

        return trt.TensorIOMode.INPUT if name == "images" else trt.TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str):
        import tensorrt_rtx as trt

        kinds = {
            "labels": trt.int64,
            "windows": trt.int64,
            "count": trt.int64,
            "nms_converged": trt.bool,
        }
        return kinds.get(name, trt.float32)

    def create_runtime_config(self):
        return SimpleNamespace()

    def create_execution_context(self, config):
        assert config.dynamic_shapes_kernel_specialization_strategy.name == "EAGER"
        return CpuContext(self)


class CpuContext:
    def __init__(self, engine: CpuEngine) -> None:
        self.engine, self.addresses, self.runs = engine, {}, 0

    def set_input_shape(self, name: str, shape) -> None:
        self.shape = tuple(shape)

    def infer_shapes(self) -> list[str]:
        given = np.zeros(self.shape, np.float32)
        names = self.engine.names
        self.shapes = dict(
            zip(
                names,
                [given, *self.engine.session.run(names[1:], {"images": given})],
                strict=True,
            )
        )
        return []

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (
            *self.shapes[name].shape[:1],
            *(n + self.engine.extra for n in self.shapes[name].shape[1:]),
        )

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def is_stream_capturable(self, handle: int) -> bool:
        return True

    def execute_async_v3(self, handle: int) -> bool:
        binding = self.engine.session.io_binding()
        for name, values in self.shapes.items():
            bind = binding.bind_input if name == "images" else binding.bind_output
            bind(name, "cpu", 0, values.dtype.type, values.shape, self.addresses[name])
        self.engine.session.run_with_iobinding(binding)
        self.runs += 1
        return handle == 7


class CpuStream:
    """A stream on which everything is done at once."""

    device, handle, captures = "cpu", 7, 0

    def use(self):
        return torch.inference_mode()

    def wait(self) -> None:
        pass

    def captured(self, work):
        self.captures += 1
        work()
        return work


class RefusingStream(CpuStream):
    """A stream that cannot record, as CUDA says it."""

    def captured(self, work):
        raise RuntimeError("operation not permitted when stream is capturing")


@needs_rtx
@pytest.mark.parametrize("cuda_graph", [True, False])
def test_an_engine_is_bound_once_and_runs_on_its_own_buffers(folder, cuda_graph):
    import tensorrt_rtx as trt

    metadata = OnnxSession(folder / "model.onnx").metadata
    stream, engine = CpuStream(), CpuEngine(folder / "model.onnx")
    engine_run.check_tensors(trt, engine)
    shape = (2, 3, 64, 32)
    plan = run.input_plan(shape) | run.output_plan(metadata, shape)
    ready = engine_run.EngineReady(
        trt, engine, engine_run.make_logger(trt), stream, plan, cuda_graph
    )
    assert (stream.captures, ready.context.runs) == ((1, 2) if cuda_graph else (0, 1))
    addresses = dict(ready.context.addresses)
    for seed in (0, 1):
        given = np.random.default_rng(seed).random(shape, dtype=np.float32)
        ready.host["images"][:] = given
        ready.execute()
        expected = OnnxSession(folder / "model.onnx").run(given)
        for name in contract.OUTPUTS:
            np.testing.assert_array_equal(ready.host[name], expected[name])
    assert ready.context.addresses == addresses


@needs_rtx
def test_work_that_no_graph_can_hold_names_the_option(folder):
    import tensorrt_rtx as trt

    shape, engine = (1, 3, 32, 32), CpuEngine(folder / "model.onnx")
    plan = run.input_plan(shape) | run.output_plan(
        OnnxSession(folder / "model.onnx").metadata, shape
    )
    with pytest.raises(
        InputError, match="not permitted when stream is capturing.*--no-cuda-graph"
    ):
        engine_run.EngineReady(
            trt, engine, engine_run.make_logger(trt), RefusingStream(), plan, True
        )


@needs_rtx
def test_an_engine_of_other_outputs_is_refused(folder):
    import tensorrt_rtx as trt

    metadata = OnnxSession(folder / "model.onnx").metadata
    shape = (1, 3, 32, 32)
    plan = run.input_plan(shape) | run.output_plan(metadata, shape)
    with pytest.raises(InputError, match="engine's images: expected"):
        engine_run.EngineReady(
            trt, CpuEngine(folder / "model.onnx", extra=1), None, CpuStream(), plan, False
        )
    engine = CpuEngine(folder / "model.onnx")
    engine.names.remove("masks")
    engine.num_io_tensors -= 1
    with pytest.raises(InputError, match="the outputs boxes, scores"):
        engine_run.check_tensors(trt, engine)


# --- timings ----------------------------------------------------------------------------------


@pytest.mark.long
def test_a_benchmark_measures_the_model_and_pytorch_in_processes_of_their_own(folder):
    report = bench.bench(
        folder / "model.onnx", shape=(2, 3, 64, 64), effort=QUICK, eager=folder / "checkpoint"
    )
    onnx_row, torch_row = report.rows
    assert onnx_row.runtime.startswith("onnxruntime") and torch_row.runtime.endswith("eager")
    for row in report.rows:
        assert row.iterations == QUICK.iterations and row.device
        for times in (row.compute_ms, row.end_to_end_ms):
            assert 0 < times.median <= times.p90 <= times.p99
        assert row.pictures_per_s == pytest.approx(2e3 / row.end_to_end_ms.median)
        assert row.memory_mb > 0
    assert report.files == {
        "model": hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    }
    stored = json.loads(json.dumps(report.to_json()))
    assert stored["shape"] == [2, 3, 64, 64] and stored["machine"]["threads"] == 1
    assert len(report.table().splitlines()) == 4


def test_a_benchmark_refuses_what_means_nothing(folder, tmp_path):
    model = folder / "model.onnx"
    with pytest.raises(InputError, match="iterations: expected at least 5"):
        bench.Effort(iterations=1)
    with pytest.raises(InputError, match="multiples of"):
        bench.bench(model, shape=(1, 3, 33, 64), effort=QUICK)
    save_checkpoint(tmp_path / "other", build_model(SMALL), InputConfig())
    with pytest.raises(InputError, match="other weights"):
        bench.bench(model, effort=QUICK, eager=tmp_path / "other")


def test_a_runtime_that_dies_is_an_error_message():
    with pytest.raises(InputError, match="some model: the process that ran it died"):
        bench.in_own_process("some model", os._exit, 3)


# --- the command line -------------------------------------------------------------------------


def test_the_commands_run_an_onnx_file(folder, tmp_path, capsys):
    photo, seen = str(folder / "photos" / "1.png"), tmp_path / "seen"
    words = [
        "predict",
        str(folder / "model.onnx"),
        photo,
        "--output",
        str(seen),
        "--score",
        "0",
        "--json",
    ]
    assert cli.main([*words, str(tmp_path / "report.json")]) == 0
    assert capsys.readouterr().out == f"{seen / '1.png'}\n"
    assert sorted(p.name for p in seen.iterdir()) == ["1.png", "detections.json"]
    assert json.loads((tmp_path / "report.json").read_text())["runtime"].startswith(
        "onnxruntime"
    )


def test_the_commands_write_over_nothing_that_they_read(folder, tmp_path, capsys):
    model, link = shutil.copy(folder / "model.onnx", tmp_path / "m.onnx"), tmp_path / "l.onnx"
    link.symlink_to(model)
    shutil.copy(model, odd := tmp_path / "n.json")
    checkpoint, photo = (
        shutil.copytree(folder / "checkpoint", tmp_path / "c"),
        folder / "photos",
    )
    shapes, library = tmp_path / "shapes", tmp_path / "plugin.so"
    (shapes / "images").mkdir(parents=True)
    for file in (shapes / "instances_train.json", shapes / "instances_val.json", library):
        file.write_text("{}")
    int8 = ["onnx", checkpoint, tmp_path / "q.onnx", "--precision", "int8", "--calibrate"]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for words in (
        ["engine", model, model],
        ["engine", model, link],
        ["engine", odd, tmp_path / "n"],
        ["engine", model, tmp_path / "e", "--json", tmp_path / "e.json"],
        ["onnx", checkpoint, checkpoint / "model.safetensors"],
        ["onnx", checkpoint, tmp_path / "o.onnx", "--json", tmp_path / "o.onnx"],
        ["verify", model, checkpoint, "--json", checkpoint / "config.json"],
        ["predict", model, photo, "--output", photo],
        ["predict", model, photo, "--output", tmp_path, "--json", tmp_path / "detections.json"],
        ["predict", model, photo, "--output", tmp_path, "--json", tmp_path / "1.png"],
        ["bench", link, "--json", model],
        ["bench", model, "--eager", checkpoint, "--json", checkpoint / "config.json"],
        ["bench", model, "--plugin-library", library, "--json", library],
        [*int8, shapes, "--json", shapes / "instances_val.json"],
        [*int8, shapes, "--json", shapes / "instances_train.json"],
    ):
        assert cli.main([str(word) for word in words]) == 2
        assert "would replace" in capsys.readouterr().err
    served = ["triton", model, "--output", tmp_path / "served", "--json"]
    assert cli.main([str(word) for word in (*served, tmp_path / "served/m/1/model.onnx")]) == 2
    assert "json: expected a place outside" in capsys.readouterr().err
    (tmp_path / "other.json").write_text("[]")  # the manifest of an engine `other`
    before[tmp_path / "other.json"] = b"[]"
    assert cli.main(["engine", str(model), str(tmp_path / "other")]) == 2
    assert "other.json, which holds something else" in capsys.readouterr().err
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before and not (tmp_path / "served").exists()


def test_a_bad_picture_does_not_keep_the_others_from_being_done(folder, tmp_path, capsys):
    photos = shutil.copytree(folder / "photos", tmp_path / "photos")
    (photos / "1.png").write_bytes((photos / "1.png").read_bytes()[:100])
    words = ["predict", folder / "model.onnx", photos, "--output", tmp_path / "seen"]
    assert cli.main([*map(str, words), "--json", str(tmp_path / "r.json")]) == 1
    report = json.loads((tmp_path / "r.json").read_text())
    assert len(report["pictures"]) == 2 and "1 left out" in report["summary"]
    assert "1.png" in report["failed"][0] and "1.png" in capsys.readouterr().err
    assert (tmp_path / "seen" / "detections.json").is_file()


BAD_INPUT = {
    "no such model": (["predict", "gone.onnx", "PHOTO"], "an existing .onnx file or engine"),
    "model cut off": (["predict", "CUT", "PHOTO"], "does not load in ONNX Runtime"),
    "another's ONNX file": (["predict", "OTHER", "PHOTO"], "a file of tensormask-export"),
    "no such photo": (["predict", "MODEL", "gone.jpg"], "an existing image file"),
    "a photo that is none": (["predict", "MODEL", "TEXT"], "a picture that Pillow reads"),
    "a score beyond 1": (["predict", "MODEL", "PHOTO", "--score", "7"], "between 0 and 1"),
    "an engine without manifest": (["predict", "ENGINE", "PHOTO"], "its manifest"),
    "the same by option": (["predict", "--engine", "ENGINE", "PHOTO"], "its manifest"),
    "two models": (
        ["predict", "MODEL", "PHOTO", "--engine", "ENGINE"],
        "one of MODEL and --engine",
    ),
    "bench of nothing": (["bench", "gone.onnx"], "an existing .onnx file or engine"),
    "bench of an engine without manifest": (["bench", "ENGINE"], "its manifest"),
    "bench of no batch": (["bench", "MODEL", "--shape", "1x3x64"], "N, 3, H, W"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_exit_code_2_and_no_file(folder, tmp_path, capsys, case):
    words, match = BAD_INPUT[case]
    places = {
        "MODEL": folder / "model.onnx",
        "PHOTO": folder / "photos" / "0.png",
        "CUT": tmp_path / "cut.onnx",
        "OTHER": tmp_path / "other.onnx",
        "TEXT": tmp_path / "text.png",
        "ENGINE": tmp_path / "model.engine",
    }
    plain = (folder / "model.onnx").read_bytes()
    places["CUT"].write_bytes(plain[: len(plain) // 2])
    places["TEXT"].write_text("no picture")
    places["ENGINE"].write_bytes(b"plan")
    write_other(places["OTHER"])
    output = ["--output", str(tmp_path / "seen")] if words[0] == "predict" else []
    assert cli.main([*(str(places.get(word, word)) for word in words), *output]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and match in error
    assert not (tmp_path / "seen").exists()


def write_other(path: Path) -> None:
    """An ONNX file that `tensormask-export` did not write."""
    import onnx

    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], []
    )
    graph.output.append(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1]))
    onnx.save(
        onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10
        ),
        path,
    )
