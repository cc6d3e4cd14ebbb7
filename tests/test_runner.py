"""The runner in C++: what it lists is what Python lists; bad input is one line, exit code 2."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from exported import ABSENT, ORT_HEADERS, needs_rtx
from PIL import Image

from tensormask_edu.base.files import read_json
from tensormask_edu.data.pictures import read_image
from tensormask_edu.data.shapes import write_shapes
from tensormask_edu.evaluation.results import to_coco
from tensormask_edu.masks import decode

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from tensormask_export import contract
from tensormask_export.engine import backends, plugin
from tensormask_export.engine.build import build_engine
from tensormask_export.predict import detect_image, predict
from tensormask_export.runtimes.find import open_session
from tensormask_export.shapes import Profile
from tensormask_export.triton import REGISTER
from test_plugin import CUDA_HEADERS, HEADERS, needs_headers

SOURCE = ROOT / "exporters" / "cpp"
ORT_LIBRARY = next((Path(ort.__file__).parent / "capi").glob("libonnxruntime.so*"), None)
NO_LIBRARIES = f"no headers of libpng, libjpeg or nlohmann-json: {', '.join(ABSENT)}"
NO_ORT = "no ONNX Runtime headers: set ONNXRUNTIME_INCLUDE_DIR to onnxruntime_c_api.h's folder"
NO_CMAKE = "no CMake to build the runner with"

needs_libraries = pytest.mark.skipif(bool(ABSENT), reason=NO_LIBRARIES)
needs_ort = pytest.mark.skipif(not ORT_HEADERS, reason=NO_ORT)
needs_cmake = pytest.mark.skipif(not shutil.which("cmake"), reason=NO_CMAKE)

# Both sides compute scores in float32 by the same library; a mean of bins is summed in another
# order.
SCORE = 2e-6


def built(folder: Path, *options: str) -> Path:
    """The executable, compiled with warnings as errors."""
    flags = ["-DCMAKE_CXX_FLAGS=-Werror", "-DCMAKE_BUILD_TYPE=Release", *options]
    quiet = {"check": True, "capture_output": True, "text": True}
    subprocess.run(["cmake", "-S", str(SOURCE), "-B", str(folder), *flags], **quiet)
    subprocess.run(["cmake", "--build", str(folder)], **quiet)
    return folder / "tensormask-run"


@pytest.fixture(scope="module")
def runner(tmp_path_factory) -> Path:
    """The runner of .onnx files."""
    return built(
        tmp_path_factory.mktemp("cpp"),
        f"-DONNXRUNTIME_INCLUDE_DIR={ORT_HEADERS}",
        f"-DONNXRUNTIME_LIBRARY={ORT_LIBRARY}",
        "-DTENSORRT_LIBRARY=",
    )


def run(runner: Path, *words) -> subprocess.CompletedProcess:
    return subprocess.run([runner, *map(str, words)], capture_output=True, text=True)


# --- pictures ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> dict[str, Path]:
    """Pictures of every kind that the runner reads."""
    folder = tmp_path_factory.mktemp("pictures")
    write_shapes(folder / "shapes", train=1, val=1, size_px=128)
    scene = Image.open(next((folder / "shapes" / "images").glob("val_*.png"))).convert("RGB")
    scene = scene.crop((0, 3, 118, 94))
    grey, noise = scene.convert("L"), np.random.default_rng(0).integers(0, 256, (91, 118, 3))
    seen = Image.fromarray((0.8 * np.asarray(scene) + 0.2 * noise).astype(np.uint8))
    turned = Image.Exif()
    made = {
        "rgb.png": (seen, {}),
        "grey.png": (grey, {}),
        "two_bits.png": (grey.quantize(4), {"bits": 2}),
        "palette.png": (seen.quantize(64), {"transparency": 3}),
        "clear.png": (seen.convert("RGBA"), {}),
        "photo.jpg": (seen, {"quality": 85}),
        "even.jpeg": (seen.crop((0, 0, 112, 80)), {"quality": 60, "progressive": True}),
        "grey.jpg": (grey, {}),
        "named_wrong.png": (seen, {"format": "JPEG"}),
    }
    for orientation in range(2, 9):
        turned[0x0112] = orientation
        made[f"turned_{orientation}.jpg"] = (seen, {"exif": turned.tobytes()})
    made["turned.png"] = (seen, {"exif": turned.tobytes()})
    for name, (picture, options) in made.items():
        picture.save(folder / name, **options)
    return {name: folder / name for name in made}


def changed(model: Path, path: Path, **values) -> Path:
    """A copy of a file whose metadata says other things."""
    proto = onnx.load(model)
    for entry in proto.metadata_props:
        for key, change in values.items():
            if entry.key == contract.METADATA_PREFIX + key:
                entry.value = json.dumps(json.loads(entry.value) | change)
    onnx.save(proto, path)
    return path


@pytest.fixture(scope="module")
def models(small, tiny, tmp_path_factory) -> dict[str, Path]:
    """Files whose pictures are enlarged, shrunk and stretched; whose scores are weighed."""
    folder = tmp_path_factory.mktemp("models")
    shrunk = {"short_side_px": 50, "long_side_px": 60, "stretch_percentiles": [1.5, 98.0]}
    sure = {"mask_threshold": 0.6, "mask_score_power": 1.5, "category_ids": [7, 3]}
    return {
        "plain": small[1],
        "enlarged": tiny[1],
        "shrunk": changed(small[1], folder / "shrunk.onnx", input_config=shrunk),
        "sure": changed(small[1], folder / "sure.onnx", model_config=sure),
    }


def listed(model: Path, picture: Path, score: float) -> list[dict]:
    """What `predict` lists, without its drawing."""
    with open_session(model, threads=1) as session:
        found = detect_image(session, read_image(picture), score)
        names = session.metadata[contract.CLASS_NAMES]
        stored = session.metadata[contract.MODEL_CONFIG].get("category_ids")
        return to_coco(picture.name, found, stored or range(1, len(names) + 1))


def compare(runner: Path, model: Path, picture: Path, folder: Path, score: float) -> int:
    """The runner's two files against Python's list; returns how many detections there are."""
    done = run(runner, model, picture, "--output", folder, "--score", score)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    found, expected = read_json(folder / "detections.json"), listed(model, picture, score)
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert list(mine) == list(theirs)
        assert mine["image_id"] == theirs["image_id"] == picture.name
        assert mine["category_id"] == theirs["category_id"]
        assert mine["segmentation"] == theirs["segmentation"]
        assert mine["bbox"] == theirs["bbox"]
        np.testing.assert_allclose(mine["score"], theirs["score"], rtol=SCORE)
    with Image.open(folder / f"{picture.stem}.png") as numbered:
        numbers = np.asarray(numbered)
        assert numbered.mode == "P"
    masks = decode([each["segmentation"] for each in expected], numbers.shape)
    first = np.where(masks.any(axis=0), masks.argmax(axis=0) + 1, 0) if len(masks) else 0
    np.testing.assert_array_equal(numbers, np.broadcast_to(first, numbers.shape))
    files = {"detections.json", f"{picture.stem}.png"}
    assert {path.name for path in folder.iterdir()} == files
    return len(expected)


@needs_cmake
@needs_libraries
@needs_ort
@pytest.mark.parametrize("name", ["plain", "enlarged", "shrunk", "sure"])
def test_the_runner_lists_what_python_lists(name, runner, models, pictures, tmp_path):
    counts = [
        compare(runner, models[name], pictures[picture], tmp_path / f"{picture}{score}", score)
        for picture, score in (("rgb.png", 0), ("photo.jpg", 0.2), ("rgb.png", 1))
    ]
    assert counts[0] > 5 and counts[2] == 0


@needs_cmake
@needs_libraries
@needs_ort
def test_pictures_of_every_kind_are_read_as_python_reads_them(
    runner, small, pictures, tmp_path
):
    for name, picture in pictures.items():
        assert compare(runner, small[1], picture, tmp_path / name, 0) > 3, name


@needs_cmake
@needs_libraries
@needs_ort
def test_the_list_is_the_file_of_the_python_command(runner, small, pictures, tmp_path):
    """The same numbers, though a last digit may be written otherwise."""
    picture = tmp_path / "größe.jpg"
    picture.write_bytes(pictures["photo.jpg"].read_bytes())
    predict(small[1], picture, tmp_path / "python", score=0.2, threads=1)
    done = run(runner, small[1], picture, "--output", tmp_path / "cpp", "--score", "0.2")
    assert done.stdout == f"{tmp_path / 'cpp' / 'größe.png'}\n"
    found, expected = (tmp_path / n / "detections.json" for n in ("cpp", "python"))
    assert read_json(found) == read_json(expected) and len(read_json(found)) > 3
    lines = [path.read_text().splitlines() for path in (found, expected)]
    assert len(lines[0]) == len(lines[1]) and lines[0][:4] == lines[1][:4]


# --- bad input --------------------------------------------------------------------------------


def refused(done: subprocess.CompletedProcess, *words: str) -> None:
    """One line, exit code 2."""
    assert done.returncode == 2 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and all(word in line for word in words), line


@pytest.fixture
def hostile(small, pictures, tmp_path) -> dict[str, Path]:
    """Files that are not what their names say."""
    picture, photo = pictures["rgb.png"].read_bytes(), pictures["photo.jpg"].read_bytes()
    model = small[1].read_bytes()
    files = {
        "text.png": b"not a picture",
        "empty.jpg": b"",
        "cut.png": picture[: len(picture) // 2],
        "spoilt.png": picture[:200] + bytes([picture[200] ^ 1]) + picture[201:],
        "cut.jpg": photo[: len(photo) // 2],
        "start.jpg": photo[:2],
        "text.onnx": b"not a model",
        "cut.onnx": model[: len(model) // 2],
        "other.engine": b"not an engine",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    Image.new("CMYK", (40, 30)).save(tmp_path / "print.jpg")
    Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40)).save(
        tmp_path / "deep.png"
    )
    plain = onnx.load(small[1])
    del plain.metadata_props[:]
    onnx.save(plain, tmp_path / "bare.onnx")
    wrong = {"windows": "none"}
    proto = onnx.load(small[1])
    for entry in proto.metadata_props:
        name = entry.key.removeprefix(contract.METADATA_PREFIX)
        entry.value = json.dumps(wrong.get(name)) if name in wrong else entry.value
    onnx.save(proto, tmp_path / "wrong.onnx")
    changed(small[1], tmp_path / "more.onnx", detector={"detections": 10**6})
    changed(small[1], tmp_path / "most.onnx", detector={"detections": 30})
    return {path.name: path for path in tmp_path.iterdir()}


@needs_cmake
@needs_libraries
@needs_ort
def test_what_the_runner_cannot_read_is_one_line(runner, small, pictures, hostile, tmp_path):
    model, good, out = small[1], pictures["rgb.png"], tmp_path / "out"
    reasons = {
        "no_such.png": "an existing file",
        "text.png": "a whole PNG or JPEG",
        "empty.jpg": "it is neither",
        "cut.png": "a whole PNG",
        "spoilt.png": "a whole PNG",
        "cut.jpg": "a whole PNG or JPEG",
        "start.jpg": "it is neither",
        "print.jpg": "CMYK",
        "deep.png": "more than 8 bits",
    }
    for name, reason in reasons.items():
        refused(run(runner, model, tmp_path / name, "--output", out), "image: ", name, reason)
    models = {
        "no_such.onnx": "an existing .onnx file or engine",
        "text.onnx": "does not load in ONNX Runtime",
        "cut.onnx": "does not load in ONNX Runtime",
        "bare.onnx": "without the metadata",
        "wrong.onnx": "metadata of tensormask-export",
        "more.onnx": "masks fit in 4 GB",
        "most.onnx": "of shape 1x30",
        "other.engine": "this build has no TensorRT",
    }
    for name, reason in models.items():
        words = (tmp_path / name, good, "--output", out, "--score", 0)
        refused(run(runner, *words), reason)
    assert not out.exists()


@needs_cmake
@needs_libraries
@needs_ort
def test_arguments_of_the_runner_are_checked(runner, small, pictures, tmp_path):
    model, good, out = small[1], pictures["rgb.png"], tmp_path / "out"
    refused(run(runner, model, good), "MODEL PICTURE --output FOLDER")
    refused(run(runner, model, "--output", out), "MODEL PICTURE --output FOLDER")
    refused(run(runner, model, good, "--output", out, "--colour", "red"), "--colour")
    for score in ("2", "-1", "nan", "half", ""):
        refused(run(runner, model, good, "--output", out, "--score", score), "--score", "0")
    refused(run(runner, model, good, "--output", good.parent), "a place of its own")
    refused(run(runner, model, good, "--output", small[1]), str(small[1]))
    assert not out.exists() and "usage" in run(runner, "--help").stdout
    assert "onnx" in run(runner, "--help").stdout


# --- engines ----------------------------------------------------------------------------------


@needs_rtx
@needs_cmake
@needs_libraries
@needs_headers
@pytest.mark.skipif(not CUDA_HEADERS, reason="no CUDA toolkit with headers found")
def test_an_engine_is_checked_before_a_gpu_is_asked_for(small, pictures, tmp_path):
    runner = built(
        tmp_path / "cpp",
        f"-DTENSORRT_INCLUDE_DIR={HEADERS}",
        f"-DTENSORRT_LIBRARY={backends._rtx_library()}",
        "-DONNXRUNTIME_LIBRARY=",
    )
    engine, picture = tmp_path / "model.engine", pictures["rgb.png"]
    profile = Profile((1, 3, 32, 32), (1, 3, 64, 64), (2, 3, 96, 96))
    build_engine(small[1], engine, profile=profile, backend="tensorrt_rtx", plugin="none")
    out = ("--output", tmp_path / "out")
    if not torch.cuda.is_available():
        reason = "an NVIDIA GPU and its driver"
        refused(run(runner, engine, picture, *out), reason, "run the .onnx file")
    refused(run(runner, small[1], picture, *out), "this build has no ONNX Runtime")
    beside = Path(f"{engine}.json")
    text = beside.read_text()
    spoilt = {
        text.replace('"tensorrt_rtx"', '"tensorrt"'): "expected one of tensorrt_rtx",
        text.replace('"sha256": "', '"sha256": "0'): "of another SHA-256",
        text.replace('"profile"', '"profiles"'): "metadata of tensormask-export",
        text[:100]: "metadata of tensormask-export",
    }
    for content, reason in spoilt.items():
        beside.write_text(content)
        refused(run(runner, engine, picture, *out), reason)
    beside.unlink()
    refused(run(runner, engine, picture, *out), "its manifest", "copy it together")
    # What registers the plugin says so where it is not told which
    words = [sys.executable, "-c", f"import ctypes; ctypes.CDLL('{runner.parent / REGISTER}')"]
    unset = {name: value for name, value in os.environ.items() if name != plugin.VARIABLE}
    done = subprocess.run(words, env=unset, capture_output=True, text=True)
    assert done.returncode == 0 and plugin.VARIABLE in done.stderr


# --- words ------------------------------------------------------------------------------------


def test_the_runner_uses_the_words_of_the_contract():
    text = (SOURCE / "model.h").read_text()
    keys = {
        contract.METADATA_PREFIX + key for key in re.findall(r"tensormask_edu\.(\w+)", text)
    }
    assert {*contract.NEEDED, contract.MODEL_CONFIG} == keys
    assert f'IMAGES = "{contract.IMAGES}"' in text
    assert f"CANVAS_BORDER = {contract.CANVAS_BORDER};" in text
    planned = re.findall(r'\{+"(\w+)", \{Type::', text)
    assert sorted(planned) == sorted(contract.OUTPUTS)
