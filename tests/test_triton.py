"""A Triton repository: its configuration against Triton's schema, and what is not written."""

from __future__ import annotations

import importlib.util
import shutil
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from tensormask_edu.base.errors import InputError
from tensormask_edu.base.files import file_sha256, read_json, write_json

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from tensormask_export import cli, contract, triton
from tensormask_export.onnx_file.read import parse_metadata, read_metadata
from tensormask_export.runtimes.detections import detections
from tensormask_export.runtimes.session import batch
from tensormask_export.shapes import Profile
from tensormask_export.triton import protobuf_text, write_repository

# --- the schema -------------------------------------------------------------------------------

# Of Triton's model_config.proto what a configuration of ours uses: message -> field -> (number,
# type). [x] is repeated; a capital begins a message or an enumeration.
SCHEMA: dict[str, dict[str, tuple[int, str]]] = {
    "ModelConfig": {
        "name": (1, "string"),
        "platform": (2, "string"),  # older servers know the runtime by this name
        "backend": (17, "string"),
        "max_batch_size": (4, "int32"),
        "input": (5, "[ModelInput]"),
        "output": (6, "[ModelOutput]"),
        "optimization": (12, "ModelOptimizationPolicy"),
        "dynamic_batching": (11, "ModelDynamicBatching"),
        "instance_group": (7, "[ModelInstanceGroup]"),
        "parameters": (14, "[ParametersEntry]"),  # a map: an entry is a message of two
    },
    "ParametersEntry": {"key": (1, "string"), "value": (2, "ModelParameter")},
    "ModelParameter": {"string_value": (1, "string")},
    "ModelInput": {
        "name": (1, "string"),
        "data_type": (2, "DataType"),
        "dims": (4, "[int64]"),
        "reshape": (5, "ModelTensorReshape"),
    },
    "ModelOutput": {
        "name": (1, "string"),
        "data_type": (2, "DataType"),
        "dims": (3, "[int64]"),
        "reshape": (5, "ModelTensorReshape"),
    },
    "ModelTensorReshape": {"shape": (1, "[int64]")},
    "ModelInstanceGroup": {"kind": (4, "Kind"), "count": (2, "int32")},
    "ModelDynamicBatching": {"max_queue_delay_microseconds": (2, "uint64")},
    "ModelOptimizationPolicy": {"cuda": (3, "Cuda")},
    "Cuda": {"graphs": (1, "bool")},
}
ENUMS = {
    "DataType": {"TYPE_INVALID": 0, "TYPE_BOOL": 1, "TYPE_INT64": 9, "TYPE_FP32": 11},
    "Kind": {"KIND_AUTO": 0, "KIND_GPU": 1, "KIND_CPU": 2},
}
PUBLISHED = importlib.util.find_spec("tritonclient")
needs_published = pytest.mark.skipif(not PUBLISHED, reason="tritonclient is not installed")


@cache
def by_hand():
    """`ModelConfig` of the table above."""
    file = descriptor_pb2.FileDescriptorProto(name="by_hand.proto", package="by_hand")
    file.syntax = "proto3"
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, values in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for value, number in values.items():
            enum.value.add(name=value, number=number)
    for name, fields in SCHEMA.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            field = message.field.add(name=field_name, number=number)
            field.label = kinds.LABEL_REPEATED if kind[0] == "[" else kinds.LABEL_OPTIONAL
            kind = kind.strip("[]")
            if kind[0].isupper():
                field.type_name = f".by_hand.{kind}"
                field.type = kinds.TYPE_ENUM if kind in ENUMS else kinds.TYPE_MESSAGE
            else:
                field.type = getattr(kinds, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("by_hand.ModelConfig"))


@cache
def published():
    """Triton's own module of its schema, loaded without the client around it."""
    place = Path(PUBLISHED.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", place)
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():  # it was made for the protobuf of another year
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
    return module


@needs_published
def test_the_table_says_what_the_published_schema_says():
    file = published().DESCRIPTOR
    messages = dict(file.message_types_by_name)
    nested = (
        m for message in file.message_types_by_name.values() for m in message.nested_types
    )
    messages |= {m.name: m for m in nested if m.name in SCHEMA and m.name != "ParametersEntry"}
    messages["ParametersEntry"] = messages["ModelConfig"].nested_types_by_name[
        "ParametersEntry"
    ]
    for name, fields in SCHEMA.items():
        for field_name, (number, kind) in fields.items():
            field = messages[name].fields_by_name[field_name]
            assert field.number == number, (name, field_name)
            type_of = field.message_type or field.enum_type
            expected = type_of.name if type_of else kind.strip("[]")
            assert expected == kind.strip("[]")
            assert field.is_repeated == (kind[0] == "[")
            if not type_of:
                names = descriptor_pb2.FieldDescriptorProto
                assert field.type == getattr(names, f"TYPE_{expected.upper()}")
    kinds = messages["ModelInstanceGroup"].enum_types_by_name["Kind"]
    enums = {"DataType": file.enum_types_by_name["DataType"], "Kind": kinds}
    for name, values in ENUMS.items():
        for value, number in values.items():
            assert enums[name].values_by_name[value].number == number


def read_config(folder: Path):
    """The configuration in a model's folder, by the schema above, and the published one."""
    text = (folder / "config.pbtxt").read_text()
    if PUBLISHED:
        theirs = text_format.Parse(text, published().ModelConfig())
        assert text_format.Parse(text_format.MessageToString(theirs), by_hand()())
    return text_format.Parse(text, by_hand()())


def tensors(fields) -> dict[str, tuple[str, list[int], bool]]:
    """Name -> (type, dims, whether the server takes the only side away)."""
    types = {number: name for name, number in ENUMS["DataType"].items()}
    return {
        each.name: (
            types[each.data_type],
            list(each.dims),
            each.HasField("reshape") and not each.reshape.shape,
        )
        for each in fields
    }


# --- an ONNX file -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(small, tmp_path_factory) -> Path:
    """The small model as a repository."""
    folder = tmp_path_factory.mktemp("triton")
    shutil.copy(small[1], folder / "model.onnx")
    words = [
        "triton",
        folder / "model.onnx",
        "--output",
        folder / "models",
        "--name",
        "small.1",
    ]
    words += ["--max-batch", "3", "--instances", "2", "--json", folder / "report.json"]
    assert cli.main(list(map(str, words))) == 0
    return folder


def test_a_repository_holds_the_file_and_a_configuration_that_fits_the_schema(served):
    model = served / "models" / "small.1"
    found = sorted(path.relative_to(served / "models") for path in served.glob("models/**/*"))
    names = ["small.1", "small.1/1", "small.1/1/model.onnx", "small.1/config.pbtxt"]
    assert [str(path) for path in found] == names
    assert file_sha256(model / "1" / "model.onnx") == file_sha256(served / "model.onnx")
    config = read_config(model)
    assert (config.name, config.backend) == ("small.1", "onnxruntime")
    assert (config.platform, config.max_batch_size) == ("onnxruntime_onnx", 3)
    (group,) = config.instance_group
    assert (group.kind, group.count) == (ENUMS["Kind"]["KIND_CPU"], 2)
    assert config.dynamic_batching.max_queue_delay_microseconds > 0
    assert not config.HasField("optimization")
    report = read_json(served / "report.json")
    assert report["max_batch_size"] == 3 and report["command"].startswith("tritonserver ")


def test_inputs_and_outputs_are_those_that_the_file_has(served):
    """What Triton's ONNX Runtime checks: name, type, sides; the batch's is left out."""
    config = read_config(served / "models" / "small.1")
    session = ort.InferenceSession(served / "model.onnx", providers=["CPUExecutionProvider"])
    types = {
        "tensor(float)": "TYPE_FP32",
        "tensor(int64)": "TYPE_INT64",
        "tensor(bool)": "TYPE_BOOL",
    }
    for listed, values in (
        (tensors(config.input), session.get_inputs()),
        (tensors(config.output), session.get_outputs()),
    ):
        assert set(listed) == {value.name for value in values}
        for value in values:
            sides = [side if isinstance(side, int) else -1 for side in value.shape[1:]]
            expected = (types[value.type], sides or [1], not sides)
            assert listed[value.name] == expected


def test_a_client_makes_detections_of_what_the_server_gives(served):
    """The metadata in the configuration is the file's, and is enough."""
    config = read_config(served / "models" / "small.1")
    stored = {each.key: each.value.string_value for each in config.parameters}
    metadata = parse_metadata(stored, "the server")
    ours = read_metadata(onnx.load(served / "model.onnx"), "the file")
    assert metadata == {key: ours[key] for key in ours if key != contract.SAMPLES}
    session = ort.InferenceSession(served / "model.onnx", providers=["CPUExecutionProvider"])
    picture = np.random.default_rng(0).random((3, 40, 30), np.float32)
    names = [each.name for each in config.output]
    outputs = session.run(names, {config.input[0].name: batch([picture], metadata)})
    (found,) = detections(
        dict(zip(names, outputs, strict=True)), metadata, [(40, 30)], [(80, 60)]
    )
    assert len(found["scores"]) > 3 and found["masks"].shape[1:] == (80, 60)


def test_one_picture_at_a_time_waits_for_no_other(small, tmp_path):
    write_repository(small[1], tmp_path, max_batch=1)
    config = read_config(tmp_path / "small")
    assert config.max_batch_size == 1 and not config.HasField("dynamic_batching")


def test_text_of_every_kind_comes_back():
    texts = ["a \"b\" \\n 'c'", "naïve 細胞 🔬", "line\nbreak\ttab\0zero", "\\101"]
    for text in texts:
        fields = {"name": text, "parameters": [{"key": text, "value": {"string_value": text}}]}
        written = protobuf_text(fields)
        assert written.isascii()
        read = text_format.Parse(written, by_hand()())
        assert read.name == read.parameters[0].key == text
        assert read.parameters[0].value.string_value == text


# --- engines ----------------------------------------------------------------------------------

PROFILE = Profile((1, 3, 64, 96), (2, 3, 128, 96), (4, 3, 256, 96))


@pytest.fixture
def engine(small, tmp_path) -> Path:
    """The manifest of an engine of TensorRT beside bytes that nobody looks into."""
    path = tmp_path / "model.engine"
    path.write_bytes(b"plan")
    metadata = read_metadata(onnx.load(small[1]), small[1])
    shapes = {"min": PROFILE.min, "opt": PROFILE.opt, "max": PROFILE.max}
    manifest = {
        "engine": {"bytes": 4, "sha256": file_sha256(path)},
        "model": {"metadata": metadata},
        "backend": {"name": "tensorrt", "version": "10.13.3"},
        "targets": {"compute_capabilities": ["8.6"]},
        "profile": {contract.IMAGES: shapes},
        "outputs": list(contract.OUTPUTS),
        "plugin": {"kind": "none", "library": None, "sha256": None},
    }
    write_json(f"{path}.json", manifest)
    return path


def edited(engine: Path, *names: str, value) -> Path:
    """The engine with another value in its manifest."""
    manifest = inner = read_json(f"{engine}.json")
    for name in names[:-1]:
        inner = inner[name]
    inner[names[-1]] = value
    write_json(f"{engine}.json", manifest)
    return engine


def test_an_engine_is_served_in_the_shapes_it_was_built_for(engine, tmp_path):
    report = write_repository(engine, tmp_path / "models")
    config = read_config(tmp_path / "models" / "model")
    assert (config.backend, config.platform) == ("tensorrt", "tensorrt_plan")
    assert (config.max_batch_size, config.optimization.cuda.graphs) == (4, True)
    assert config.instance_group[0].kind == ENUMS["Kind"]["KIND_GPU"]
    places = read_json(f"{engine}.json")["model"]["metadata"][contract.DETECTOR]["detections"]
    assert tensors(config.input) == {"images": ("TYPE_FP32", [3, -1, 96], False)}
    masks = tensors(config.output)["masks"]
    assert masks == ("TYPE_FP32", [places, -1, 96 // 4 + contract.CANVAS_BORDER], False)
    plan = tmp_path / "models" / "model" / "1" / "model.plan"
    assert plan.read_bytes() == engine.read_bytes() and "LD_PRELOAD" not in report.command


def test_an_engine_of_whole_batches_gets_them_whole(engine, tmp_path):
    shapes = dict.fromkeys(("min", "opt", "max"), (2, 3, 64, 96))
    edited(engine, "profile", contract.IMAGES, value=shapes)
    write_repository(engine, tmp_path / "models")
    config = read_config(tmp_path / "models" / "model")
    assert config.max_batch_size == 0 and not config.HasField("dynamic_batching")
    assert tensors(config.input)["images"] == ("TYPE_FP32", [2, 3, 64, 96], False)
    assert tensors(config.output)["count"] == ("TYPE_INT64", [2], False)


def test_the_plugin_of_an_engine_comes_along_and_is_preloaded(engine, tmp_path):
    library = tmp_path / "libswap_align2nat_trt.so"
    library.write_bytes(b"code")
    built_with = {"kind": "cpp", "library": str(library), "sha256": file_sha256(library)}
    edited(engine, "plugin", value=built_with)
    report = write_repository(engine, tmp_path / "models", plugin_library=library)
    copied = tmp_path / "models" / "model" / library.name
    assert copied.read_bytes() == b"code" and str(copied) in report.files
    assert f"TENSORMASK_PLUGIN={copied} LD_PRELOAD={triton.REGISTER}" in report.command
    library.write_bytes(b"other code")
    with pytest.raises(InputError, match="plugin: expected the library of SHA-256"):
        write_repository(engine, tmp_path / "models", name="other", plugin_library=library)


# --- what is not written ----------------------------------------------------------------------


def refused(*words, match: str) -> None:
    model, output, *rest = words
    before = sorted(Path(output).rglob("*")) if Path(output).exists() else []
    with pytest.raises(InputError, match=match):
        write_repository(model, output, **(rest[0] if rest else {}))
    assert (sorted(Path(output).rglob("*")) if Path(output).exists() else []) == before


def test_what_triton_could_not_load_is_refused(engine, small, tmp_path):
    out = tmp_path / "models"
    refused(tmp_path / "no.onnx", out, match="model: expected an existing .onnx file or engine")
    (tmp_path / "cut.onnx").write_bytes(small[1].read_bytes()[:1000])
    refused(tmp_path / "cut.onnx", out, match="not a whole ONNX file")
    proto = onnx.load(small[1])
    del proto.graph.output[0]
    onnx.save(proto, tmp_path / "fewer.onnx")
    refused(tmp_path / "fewer.onnx", out, match="model: expected the output .* with none")
    proto = onnx.load(small[1])
    proto.graph.output[1].type.tensor_type.shape.dim[1].dim_value = 7
    onnx.save(proto, tmp_path / "other.onnx")
    refused(tmp_path / "other.onnx", out, match=r"model: expected the output .* with .* 7\]")
    for names, value, match in (
        (("backend", "name"), "tensorrt_rtx", "engine: expected one of tensorrt, which"),
        (("plugin", "kind"), "python", "engine: expected the C.. plugin or none"),
        (("outputs",), [*contract.OUTPUTS, "logits_0"], "no outputs for study, got logits_0"),
        (("outputs",), 7, r"manifest: expected what the builder wrote, got .* \(outputs"),
        (("engine", "bytes"), 5, "engine: expected 5 bytes"),
    ):
        shutil.copy(f"{engine}.json", tmp_path / "kept.json")
        refused(edited(engine, *names, value=value), out, match=match)
        shutil.copy(tmp_path / "kept.json", f"{engine}.json")
    refused(engine, out, {"max_batch": 5}, match="max_batch: expected 1 to 4, as the engine")


def test_wrong_words_are_named(small, tmp_path):
    for name in ("", ".hidden", "a/b", "two words", "-x"):
        refused(small[1], tmp_path / "m", {"name": name}, match="name: expected letters")
    refused(small[1], tmp_path / "m", {"max_batch": 0}, match="max_batch: expected at least 1")
    refused(small[1], tmp_path / "m", {"instances": 0}, match="instances: expected at least 1")


def test_nothing_that_is_there_is_replaced(small, tmp_path):
    write_repository(small[1], tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    refused(small[1], tmp_path, match="output: expected a model that is not there yet")
    (tmp_path / "file").touch()
    refused(small[1], tmp_path / "file", match="cannot make this folder")
    write_repository(small[1], tmp_path, name="second")
    assert all(
        path.stat().st_mtime_ns == time for path, time in before.items() if path.is_file()
    )


def test_a_repository_is_whole_or_absent(small, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(triton, "protobuf_text", full)
    refused(small[1], tmp_path / "m", match="No space left on device.; make room")
    assert not list((tmp_path / "m").iterdir())


def test_the_image_copies_and_loads_what_the_build_makes():
    """The Dockerfile is not run; its names are those of the build files."""
    text = (ROOT / "exporters" / "docker" / "Dockerfile").read_text()
    builds = [(ROOT / p / "CMakeLists.txt").read_text() for p in ("plugins", "exporters/cpp")]
    for target in ("swap_align2nat_trt", "tensormask_register", "tensormask-run"):
        assert target in text and any(f"({target} " in build for build in builds)
    assert f"/{triton.REGISTER}" in text and "NOT RUN" in text
