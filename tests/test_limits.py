"""What files say is checked before it is used: types, sizes, nesting, what contradicts."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import pytest
import torch
from exported import SMALL
from PIL import Image

from tensormask_edu import ops
from tensormask_edu.base.errors import LONGEST, InputError, bad_input
from tensormask_edu.base.files import DEEPEST, parsed_json, read_json
from tensormask_edu.base.values import misfit, shortened
from tensormask_edu.config import MODELS, RECIPES, InputConfig, ModelConfig, from_json, to_json
from tensormask_edu.data.pictures import LARGEST_PX, read_image
from tensormask_edu.detector.model import build_model
from tensormask_edu.geometry import Geometry
from tensormask_edu.ops.transforms import LARGEST
from tensormask_edu.training import journal
from tensormask_edu.weights.checkpoint import load_checkpoint, save_checkpoint
from tensormask_edu.weights.pickled import read_archive

# --- values -----------------------------------------------------------------------------------


class Sized(TypedDict):
    height: int
    name: str | None


FITS: list[tuple[Any, Any]] = [
    (3, int), (3, float), (0.5, float), ("x", str), (True, bool), (None, None), (1, int | None),
    ([1, 2], list[int]), ((1, 2), list[int]), ([1, "x"], tuple[int, str]),
    ([], tuple[int, ...]), ({"a": [1.5]}, dict[str, list[float]]), ("a", Literal["a", "b"]),
    ({"height": 3, "name": None, "more": 0}, Sized), ({"x": object()}, dict[str, Any]),
]  # fmt: skip
MISFITS: list[tuple[Any, Any, str]] = [
    (True, int, "value: expected a whole number, got True"),
    (2**63, int, "value: expected a whole number"),
    (float("nan"), float, "value: expected a finite number, got nan"),
    (10**400, float, "value: expected a finite number"),
    (10**5000, float, "value: expected a finite number, got a int"),
    ("x" * 99, int, "value: expected a whole number, got 'xxx"),
    ([1, "x"], list[int], r"value\[1\]: expected a whole number, got 'x'"),
    ([1], tuple[int, int], "value: expected a list of 2"),
    ("c", Literal["a", "b"], "value: expected a or b"),
    (0.5, int | None, "value: expected a whole number or null"),
    ({"height": 3}, Sized, "value: expected the field 'name', got none"),
    ({"height": "3", "name": ""}, Sized, "value.height: expected a whole number, got '3'"),
    ([], Sized, r"value: expected an object, got \[\]"),
    ({"a": 1}, dict[str, str], "value.a: expected text"),
]


@pytest.mark.parametrize("number", range(len(FITS)))
def test_a_value_of_the_right_type_fits(number):
    assert misfit(*FITS[number]) == ""


@pytest.mark.parametrize("number", range(len(MISFITS)))
def test_a_value_of_another_type_is_told_with_its_place(number):
    value, kind, message = MISFITS[number]
    with pytest.raises(InputError, match=f"^{message}"):
        raise InputError(misfit(value, kind))


def test_an_error_is_one_line_whatever_came():
    for got in ("two\nlines", "x" * 9999, 10**5000, ["x\n" * 900]):
        text = str(bad_input("it", "less", got))
        assert "\n" not in text and len(text) < LONGEST + 100
    assert len(shortened([1] * 999)) == 60


# --- JSON -------------------------------------------------------------------------------------


def test_json_may_be_nested_as_deep_as_any_file_of_ours_and_no_deeper(tmp_path):
    for depth in (1, DEEPEST):
        assert parsed_json("[" * depth + "]" * depth) is not None
    assert parsed_json('{"a": [[1], {"b": []}]}') == {"a": [[1], {"b": []}]}
    with pytest.raises(ValueError, match=f"nested deeper than {DEEPEST}"):
        parsed_json("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1))
    with pytest.raises(ValueError, match="nested too deep"):
        parsed_json("[" * 200_000 + "]" * 200_000)
    (tmp_path / "deep.json").write_text('{"a":' * 300 + "1" + "}" * 300)
    with pytest.raises(InputError, match=r"valid JSON, got .*deep.json \(nested deeper"):
        read_json(tmp_path / "deep.json")


# --- pictures ---------------------------------------------------------------------------------


def png_of(height: int, width: int, bits: int = 8) -> bytes:
    """The head of a PNG that says it is so large; kilobytes, whatever it says."""
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "PNG")
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return (
        file.getvalue()[:12]
        + head
        + struct.pack(">I", zlib.crc32(head))
        + (file.getvalue()[33:])
    )


@pytest.mark.parametrize("bits", [8, 16])
def test_a_picture_that_would_fill_the_memory_is_refused_before_a_pixel_is_read(bits, tmp_path):
    most = LARGEST_PX // (4 if bits == 16 else 1)
    side = int(most**0.5) + 1
    (tmp_path / "bomb.png").write_bytes(png_of(side, side, bits))
    ours, pillows = f"at most {most} pixels, got .*bomb.png of {side} x", "exceeds limit"
    with pytest.raises(InputError, match=pillows if bits == 8 else ours):
        read_image(tmp_path / "bomb.png")


def test_no_picture_starts_another_program(tmp_path):
    (tmp_path / "page.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(InputError, match="cannot identify image file"):
        read_image(tmp_path / "page.png")


# --- configurations and weights ---------------------------------------------------------------

CONFIGS: list[tuple[type, dict[str, Any], str]] = [
    (InputConfig, {"enlarge": 1e6}, "c: enlarge: expected above 0, up to 64"),
    (InputConfig, {"short_side_px": 0}, "c: short_side_px, long_side_px: expected from 1"),
    (ModelConfig, {"fpn_channels": "48"}, "c: fpn_channels: expected a whole number, got '48'"),
    (ModelConfig, {"fpn_channels": 10**6}, "c: fpn_channels: expected from 1 to 4096"),
    (ModelConfig, {"tower_convs": 10**9}, "c: tower_convs: expected from 0 to 64"),
    (ModelConfig, {"pixel_std": [0, 1, 1]}, "c: pixel_std: expected positive numbers"),
    (ModelConfig, {"pixel_mean": [0, 1]}, "c: pixel_mean: expected a list of 3"),
    (ModelConfig, {"strides_px": []}, "c: strides_px: expected 1 to 8 strides"),
    (ModelConfig, {"sides_bins": [10**9]}, "c: sides_bins: expected at most 64 sizes"),
]


@pytest.mark.parametrize("number", range(len(CONFIGS)))
def test_a_configuration_from_a_file_has_its_types_and_limits(number):
    kind, values, message = CONFIGS[number]
    with pytest.raises(InputError, match=f"^{message}"):
        from_json(kind, json.loads(json.dumps(to_json(kind()) | values)), "c")


def test_geometries_have_limits():
    with pytest.raises(InputError, match="strides_px: expected 1 to 8 strides"):
        Geometry((), (5,))
    with pytest.raises(InputError, match="sides_bins: expected at most 64 sizes"):
        Geometry((4,), (129,))


def test_weights_of_another_configuration_are_refused_before_memory_is_taken(tmp_path):
    save_checkpoint(tmp_path, build_model(SMALL), InputConfig())
    values = json.loads((tmp_path / "config.json").read_text())
    # Forty gigabytes, if they were made
    values["model"] |= {"fpn_channels": 4096, "tower_convs": 64, "mask_channels": 4096}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match="belongs to another configuration"):
        load_checkpoint(tmp_path)


def test_a_packed_archive_is_not_unpacked(tmp_path):
    torch.save({"w": torch.zeros(1 << 16)}, tmp_path / "plain.pth")
    assert read_archive(tmp_path / "plain.pth", "weights")["w"].numel() == 1 << 16
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain:
        with zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed:
            for record in plain.infolist():
                packed.writestr(record.filename, plain.read(record))
    message = r"weights: expected a whole file of tensors.*packed.pth \(a packed record\)"
    with pytest.raises(InputError, match=message):
        read_archive(tmp_path / "packed.pth", "weights")


def test_a_state_of_another_program_is_named(tmp_path):
    recipe = replace(RECIPES["shapes"], model=SMALL)
    torch.save({"recipe": {}, "data": "x", "step": "3"}, tmp_path / journal.STATE)
    with pytest.raises(InputError, match="the state of a run of this version, got .*'model'"):
        journal.read_state(tmp_path, recipe, "x")


def test_what_is_left_of_a_line_of_the_log_is_passed_over(tmp_path):
    lines = [{"step": step, "loss": 1 / step} for step in (1, 2, 3)]
    whole = [json.dumps(line).encode() for line in lines]
    torn = (b'{"step": 4, "lo', b"7", b"[]", b"{}", b'{"step": "5"}', b"\0" * 30, b"\xff\xfe")
    (tmp_path / journal.LOG).write_bytes(b"\n".join([*whole[:2], *torn, whole[2]]))
    assert journal.read_log(tmp_path) == lines
    journal.go_on(tmp_path, 2)
    assert (tmp_path / journal.LOG).read_bytes() == b"".join(x + b"\n" for x in whole[:2])


def test_every_preset_is_within_the_limits():
    for config in MODELS.values():
        assert from_json(ModelConfig, json.loads(json.dumps(to_json(config)))) == config


# --- operators --------------------------------------------------------------------------------

X = torch.zeros(1, 2, 2, 3, 3)


def test_a_factor_beyond_all_extents_is_named():
    with pytest.raises(InputError, match=f"lam: expected an integer >= 1.*{LARGEST} is the"):
        ops.swap_align2nat(X, 2**31)
    with pytest.raises(InputError, match=f"lam: expected a number >= 1.*at most {LARGEST}"):
        ops.up_bilinear(X, float("inf"))
    with pytest.raises(InputError, match="sigma_vu, sigma_hw: expected positive units"):
        ops.align2nat(X, sigma_hw=1e300)
    # Within all limits alone, but what reads what would be a table of 20 million rows
    with pytest.raises(InputError, match="lam, units: expected a result of at most 4194304"):
        ops.up_align2nat(torch.zeros(1, 4, 2, 5, 5), 1_000_000)
    with pytest.raises(InputError, match="rule: expected step > 0"):
        ops.resample(X, [2, 2], ops.Rule(1, None, "pad"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float8_e4m3fn])
def test_a_pad_value_that_the_tensor_cannot_hold_is_named(dtype):
    # Four of them are added in float32.
    most = min(torch.finfo(dtype).max, torch.finfo(torch.float32).max / 4)
    x = torch.zeros(1, 2, 2, 0, 3, dtype=dtype)
    rule = ops.Rule(1, 0, "pad")
    for call in (
        lambda pad: ops.resample(x, [2, 2], rule, pad),
        lambda pad: ops.up_bilinear(x, 2, pad_value=pad),
        lambda pad: ops.swap_align2nat(x, 2, pad),
    ):
        assert call(-most).numel() == 0
        with pytest.raises(InputError, match=f"pad_value: expected a finite number of {dtype}"):
            call(most * 1.1)


def test_a_sparse_tensor_is_named():
    with pytest.raises(InputError, match="x: expected a dense tensor"):
        ops.swap_align2nat(X.to_sparse(), 2)


@pytest.mark.parametrize("windows", [1, 40])
def test_windows_of_8_bit_floats_are_those_of_the_whole(windows):
    """PyTorch stores them, and multiplies none; few windows and many go different ways."""
    x = torch.randn(1, 2, 2, 4, 4).to(torch.float8_e4m3fn)
    index = torch.zeros(windows, 3, dtype=torch.int64)
    whole = ops.swap_align2nat(x, 2)[0, :, :, 0, 0]
    found = ops.swap_align2nat_windows(x, 2, index)
    assert found.dtype == x.dtype and torch.equal(found[0].float(), whole.float())


# --- exported files ---------------------------------------------------------------------------

onnx = pytest.importorskip("onnx")
from tensormask_export import contract
from tensormask_export.engine import manifest
from tensormask_export.onnx_file import read, samples
from tensormask_export.runtimes.detections import paste
from tensormask_export.runtimes.onnxruntime import told
from tensormask_export.verify.compare import LIMITS
from tensormask_export.verify.replay import replay


def metadata() -> dict[str, Any]:
    """That of a file of the small model, but for its samples."""
    geometry = SMALL.geometry
    values = {
        contract.CLASS_NAMES: SMALL.class_names,
        contract.WINDOWS: read.windows_metadata(geometry),
        contract.STRIDES_PX: geometry.strides_px,
        contract.PREPROCESSING: {
            "padding_px": geometry.padding_px,
            "padding_colour": [0.5, 0.5, 0.5],
        },
        contract.MODEL_CONFIG: to_json(SMALL),
        contract.INPUT_CONFIG: to_json(InputConfig()),
        contract.DETECTOR: {"candidates": SMALL.topk_candidates, "detections": 20},
    }
    return json.loads(json.dumps(values))


CHANGES: list[tuple[str, Any, str]] = [
    (contract.STRIDES_PX, None, r"strides_px: expected a list, each a whole number"),
    (contract.STRIDES_PX, [4, 16], "strides_px contradicts the model's configuration"),
    (contract.WINDOWS, [], "windows contradicts"),
    (contract.WINDOWS, [{"level": 0}], r"windows\[0\]: expected the field"),
    (contract.DETECTOR, {"candidates": 5, "detections": 20}, "candidates contradicts"),
    (contract.INPUT_CONFIG, {"enlarge": -1}, "enlarge: expected above 0"),
    (contract.MODEL_CONFIG, {"fpn_channels": None}, "fpn_channels: expected a whole number"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_metadata_that_were_changed_are_named(number):
    read.check_metadata(metadata(), "model", "m.onnx")
    key, value, message = CHANGES[number]
    with pytest.raises(InputError, match=f"metadata of tensormask-export, got .*{message}"):
        read.check_metadata(metadata() | {key: value}, "model", "m.onnx")


def test_metadata_that_are_missing_or_no_json_are_named():
    without = {key: value for key, value in metadata().items() if key != contract.WINDOWS}
    with pytest.raises(InputError, match="windows is missing"):
        read.check_metadata(without, "model", "m.onnx")
    with pytest.raises(InputError, match="expected metadata in JSON"):
        read.parse_metadata({contract.DETECTOR: "{"}, "m.onnx")


def test_weights_in_another_file_are_refused(tmp_path):
    tensor = onnx.helper.make_tensor("w", 1, [1], [0.0])
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")
    graph = onnx.helper.make_graph([], "g", [], [], [tensor])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "m.onnx")
    with pytest.raises(InputError, match="all weights in the file, got w of .* in another"):
        read.read_onnx(tmp_path / "m.onnx")


def test_what_onnx_runtime_cannot_compute_is_one_line():
    with pytest.raises(InputError, match="does not run in ONNX Runtime .a graph."), told():
        raise RuntimeError("a graph\nof two lines")
    with pytest.raises(RuntimeError, match="bad_alloc"), told():
        raise RuntimeError("std::bad_alloc")


def test_a_window_that_the_metadata_do_not_list_is_named():
    window, canvas = np.array([7, 0, 0, 0]), np.zeros((18, 18), np.float32)
    with pytest.raises(
        InputError, match=r"window that the file's metadata lists, got \(7, 0\)"
    ):
        paste(np.zeros((64, 64), bool), canvas, window, metadata(), (64, 64), 0.5)


class Recorded:
    """Outputs as a session gives them."""

    title = "recorded"

    def __init__(self, sample: dict[str, Any] | None) -> None:
        self.metadata = metadata() | ({contract.SAMPLES: [sample]} if sample else {})

    def all_outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        canvases = np.zeros((1, 20, images.shape[2] // 4 + 2, images.shape[3] // 4 + 2))
        places = {contract.BOXES: (1, 20, 4), contract.SCORES: (1, 20)}
        found = {name: np.zeros(shape, np.float32) for name, shape in places.items()}
        found |= {contract.LABELS: np.zeros((1, 20), np.int64), contract.MASKS_OUT: canvases}
        found |= {contract.COUNT: np.array([1]), contract.CONVERGED: np.array([True])}
        return found | {"logits_0": np.zeros((1, 4, 2, 2), np.float32)}


def sample(**changed: Any) -> dict[str, Any]:
    pixels = samples.discs(0, 16, 24)
    right = {
        "pixels": samples._packed(pixels), "shape": pixels.shape,
        "raw": {"logits_0": [0.0] * 16}, "count": 1,
        "boxes": [[0, 0, 0, 0]], "scores": [0.0], "labels": [0],
        "masks": samples._packed(np.packbits(np.zeros((1, 18, 26), bool))),
        "masks_shape": [1, 18, 26],
    }  # fmt: skip
    return right | changed


SAMPLES: list[tuple[dict[str, Any] | None, str]] = [
    (None, "expected some"),
    (sample(scores=[0.0, 0.1]), "as many boxes, labels and masks as scores"),
    (sample(pixels="no base64"), "expected 1152 bytes"),
    (sample(shape=[3, 10**6, 10**6]), "expected 3000000000000 bytes"),
    (sample(pixels=samples._packed(np.zeros(1 << 24, np.uint8))), "expected 1152 bytes"),
    (sample(raw={"logits_0": [0.0]}), "expected 16 numbers of logits_0"),
    (sample(masks_shape=[1, 9, 52]), r"expected canvases of \(18, 26\)"),
]


@pytest.mark.parametrize("number", range(len(SAMPLES)))
def test_samples_that_were_changed_are_named(number):
    assert replay(Recorded(sample()), LIMITS["float32"])[0][0].passed
    changed, message = SAMPLES[number]
    with pytest.raises(InputError, match=f"samples: {message}|samples: expected {message}"):
        replay(Recorded(changed), LIMITS["float32"])


def test_a_manifest_that_was_changed_is_named_and_its_library_stays_where_it_is(tmp_path):
    import hashlib

    plan, elsewhere = b"a plan", tmp_path / "elsewhere.so"
    elsewhere.write_bytes(b"code")
    right = {
        "engine": {"bytes": 6, "sha256": hashlib.sha256(plan).hexdigest()},
        "model": {"metadata": metadata()},
        "backend": {"name": "tensorrt", "version": "11"},
        "targets": {"compute_capabilities": ["8.0"]},
        "profile": {contract.IMAGES: dict.fromkeys(("min", "opt", "max"), [1, 3, 64, 64])},
        "plugin": {"kind": "cpp", "library": str(elsewhere),
                   "sha256": hashlib.sha256(b"code").hexdigest()},
    }  # fmt: skip
    place = tmp_path / "room" / "m.engine"
    place.parent.mkdir()
    place.write_bytes(plan)
    beside = Path(f"{place}.json")
    beside.write_text(json.dumps(right))
    with pytest.raises(InputError, match="elsewhere.so, which the engine needs, got no such"):
        manifest.read_engine(place).plugin()
    for part, value, message in (
        ("targets", {"compute_capabilities": ["x"]}, "compute capability 'x'"),
        ("plugin", right["plugin"] | {"kind": 3}, "manifest.plugin.kind: expected cpp or"),
    ):
        beside.write_text(json.dumps(right | {part: value}))
        with pytest.raises(InputError, match=f"what the builder wrote, got .*{message}"):
            manifest.read_engine(place)
