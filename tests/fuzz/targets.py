"""The kinds of input: what is right, how it is made wrong, and who takes it.

A target's input is always one file. What else its reader needs (pictures beside a JSON, weights
beside a configuration) lies ready in a folder of its own, made once.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import resource
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from changes import changed_bytes, changed_json, changed_picture
from children import GROWTH, memory_taken
from exported import SMALL
from hypothesis import strategies as st
from operators import OPERATORS, arguments, call
from PIL import Image
from tensormask_export import contract
from tensormask_export.engine import manifest
from tensormask_export.onnx_file import read
from tensormask_export.predict import detect_image
from tensormask_export.runtimes.find import open_session
from tensormask_export.verify.compare import LIMITS
from tensormask_export.verify.replay import replay

from tensormask_edu import ops
from tensormask_edu.base.memory import room_for
from tensormask_edu.commands.evaluate import evaluate_checkpoint
from tensormask_edu.config import (
    AugmentConfig,
    InputConfig,
    ModelConfig,
    TrainConfig,
    from_json,
    to_json,
)
from tensormask_edu.data.coco import CocoFolder
from tensormask_edu.data.outlines import area_of, check_segmentation, shape_of
from tensormask_edu.data.pictures import read_image
from tensormask_edu.data.shapes import CLASS_NAMES, write_shapes
from tensormask_edu.detector.model import build_model
from tensormask_edu.evaluation import coco_scores, lost
from tensormask_edu.masks import decode, to_rle
from tensormask_edu.training import journal
from tensormask_edu.weights.checkpoint import load_checkpoint, save_checkpoint
from tensormask_edu.weights.official import load_official, official_state
from tensormask_edu.weights.pickled import read_pickled

SIZE = (40, 56)  # of a picture, height and width in px


@dataclass(frozen=True)
class Target:
    """A kind of input.

    name: of its file, beside what `beside` names in the world. inputs: wrong ones, as bytes.
    take: what reads and uses the file; an InputError is fine.
    """

    name: str
    inputs: st.SearchStrategy[bytes]
    take: Callable[[Path], object]
    beside: Sequence[str] = ()

    def put(self, data: bytes, world: Path, folder: Path) -> Path:
        """Write an input into a folder, with what it needs."""
        for name in self.beside:
            source, copy = world / name, folder / Path(name).name
            if not copy.exists():
                (shutil.copytree if source.is_dir() else shutil.copy)(source, copy)
        (folder / self.name).write_bytes(data)
        return folder / self.name


def make_world(folder: Path, onnx_file: Path) -> None:
    """Right files of every kind."""
    write_shapes(folder / "shapes", train=1, val=2, size_px=48, progress=False)
    torch.manual_seed(0)
    model = build_model(replace(SMALL, class_names=CLASS_NAMES))
    save_checkpoint(folder / "checkpoint", model, InputConfig())
    shutil.copy(onnx_file, folder / "model.onnx")
    (folder / "model.engine").write_bytes(b"a plan")
    (folder / "plugin.so").write_bytes(b"a library")


def targets(world: Path) -> dict[str, Target]:
    """All of them by name."""
    made = (
        _truth(world),
        _segmentations(),
        _pictures(),
        _detections(world),
        *_checkpoints(world),
        _recipes(),
        *_published(),
        _state(),
        *_onnx(world),
        _manifests(world),
        _operators(),
    )
    return dict(made)


# --- data sets --------------------------------------------------------------------------------


def _truth(world: Path) -> tuple[str, Target]:
    name = "instances_val.json"
    right = json.loads((world / "shapes" / name).read_text())
    first = right["annotations"][0]
    box = first["bbox"]
    x0, y0, x1, y1 = box[0], box[1], box[0] + box[2], box[1] + box[3]
    polygon = first | {"id": 1001, "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]]}
    crowd = first | {"id": 1002, "iscrowd": 1}
    right["annotations"] = [*right["annotations"][:3], polygon, crowd]

    def take(path: Path) -> None:
        dataset = CocoFolder(path.parent, "val", keep_empty=True)
        for index in range(len(dataset)):
            assert dataset.problem(index) or dataset[index]
            dataset.truth(index, (0, 0, 9, 20))
        coco_scores.score(path, [], "segm")
        coco_scores.score(path, [], "bbox")

    texts = changed_json(right) | changed_bytes([json.dumps(right).encode()])
    return "coco", Target(name, texts, take, ("shapes/images",))


def _segmentations() -> tuple[str, Target]:
    """Masks of one picture: run lengths and their size, polygons."""
    mask = np.zeros((1, *SIZE), bool)
    mask[0, 3:30, 5:40:3] = True
    packed = _encoded(mask)
    runs = {"size": list(SIZE), "counts": [5, 100, 40 * 56 - 105]}
    rights = [{"size": list(SIZE), "segmentation": s} for s in (
        packed, runs, [[1, 1, 30, 2, 20, 30]],
        [[1.5, 2, 9, 9, 3, 20, 5, 5], [0, 0, 5, 0, 5, 5]],
    )]  # fmt: skip

    def take(path: Path) -> None:
        value = json.loads(path.read_bytes())
        size = tuple(value["size"]) if _is_size(value.get("size")) else SIZE
        segmentation = value.get("segmentation")
        shape = shape_of(segmentation, size, "a mask")
        if isinstance(shape, str):
            return
        check_segmentation(shape.segmentation, size, "a mask")
        decode([to_rle(shape.segmentation, *size)], size)
        area_of(shape.segmentation, size)

    texts = st.one_of([changed_json(right) for right in rights])
    counted = st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=60)
    free = counted.map(
        lambda text: json.dumps(
            {"size": list(SIZE), "segmentation": {"size": list(SIZE), "counts": text}}
        ).encode()
    )
    objects = (texts | free).filter(_is_object)
    return "masks", Target("mask.json", objects, take)


def _encoded(mask: np.ndarray) -> dict[str, Any]:
    from tensormask_edu.masks import encode

    return encode(mask)[0]


def _is_size(value: Any) -> bool:
    """A picture's size, which its file has given: whole and positive, not beyond reason."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(side) is int and 0 < side <= 10_000 for side in value)
    )


def _is_object(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data), dict)
    except (ValueError, RecursionError):
        return False


def _pictures() -> tuple[str, Target]:
    """Pictures of every kind that is read, as Pillow writes them."""
    random = np.random.default_rng(0)
    colour = Image.fromarray(random.integers(0, 255, (20, 31, 3), np.uint8))
    grey = Image.fromarray(random.integers(0, 65_535, (20, 31), np.uint16))
    real = Image.fromarray(random.random((20, 31), np.float32))
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (colour, "PNG", {}), (colour.convert("P"), "PNG", {"transparency": 3}),
        (grey, "PNG", {}), (colour.convert("LA"), "PNG", {}), (colour.convert("1"), "PNG", {}),
        (colour, "JPEG", {"quality": 80}), (colour, "JPEG", {"progressive": True}),
        (colour.convert("CMYK"), "JPEG", {}), (colour, "TIFF", {}), (grey, "TIFF", {}),
        (real, "TIFF", {}), (colour, "TIFF", {"compression": "tiff_lzw"}),
        (colour, "TIFF", {"compression": "jpeg"}), (colour.convert("1"), "TIFF",
        {"compression": "group4"}), (colour, "BMP", {}), (colour.convert("P"), "BMP", {}),
        (colour, "WEBP", {}), (colour.convert("P"), "GIF", {}), (colour, "PPM", {}),
        (colour.convert("RGBA"), "PNG", {}), (colour, "JPEG2000", {}),
    ]  # fmt: skip
    seeds = [_saved(picture, kind, **more) for picture, kind, more in kinds]
    seeds += [_sixteen_bit_png(), *_programs()]
    files = changed_picture(seeds)
    return "pictures", Target("picture.png", files, read_image)


def _saved(picture: Image.Image, kind: str, **more: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **more)
    return file.getvalue()


def _sixteen_bit_png() -> bytes:
    """Colours of 16 bits, which Pillow cannot write."""
    import zlib

    from changes import resealed

    head = struct.pack(">IIBBBBB", 6, 4, 16, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(range(36))) * 4)
    chunks = ((b"IHDR", head), (b"IDAT", rows), (b"IEND", b""))
    parts = (struct.pack(">I", len(body)) + name + body + b"\0" * 4 for name, body in chunks)
    return resealed(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def _programs() -> list[bytes]:
    """Files that some readers hand to another program."""
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    return [page, b"\xd7\xcd\xc6\x9a" + b"\0" * 60]


# --- detections -------------------------------------------------------------------------------


def _detections(world: Path) -> tuple[str, Target]:
    truth = json.loads((world / "shapes" / "instances_val.json").read_text())
    names = ("image_id", "category_id", "bbox", "segmentation")
    right = [
        {name: each[name] for name in names} | {"score": 0.5 + 0.01 * n}
        for n, each in enumerate(truth["annotations"][:4])
    ]
    right[1]["segmentation"] = [[1, 1, 30, 2, 20, 30]]

    def take(path: Path) -> None:
        truth = path.parent / "shapes" / "instances_val.json"
        refusal: Exception | None = None
        for kind in ("segm", "bbox"):
            try:
                coco_scores.score(truth, path, kind)
            except coco_scores.InputError as error:
                refusal = error
        lost.lost(coco_scores.load_ground_truth(truth), str(path))
        if refusal is not None:
            raise refusal

    texts = changed_json(right) | changed_bytes([json.dumps(right).encode()])
    return "detections", Target("detections.json", texts, take, ("shapes",))


# --- models -----------------------------------------------------------------------------------


def _checkpoints(world: Path) -> list[tuple[str, Target]]:
    """A configuration beside right weights, and weights beside a right configuration."""
    config = json.loads((world / "checkpoint" / "config.json").read_text())
    weights = (world / "checkpoint" / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", weights[:8])
    head = json.loads(weights[8 : 8 + length])

    def take(path: Path) -> None:
        model, input_config = load_checkpoint(path.parent)
        from tensormask_edu.commands.predict import detect

        detect(model, np.zeros((3, 40, 64), np.uint8), input_config)

    def with_head(text: bytes) -> bytes:
        return struct.pack("<Q", len(text)) + text + weights[8 + length :]

    files = changed_json(head).map(with_head) | changed_bytes([weights], until=8 + length)
    texts = changed_json(config) | changed_bytes([json.dumps(config).encode()])
    names = ("config.json", "model.safetensors")
    beside = [(f"checkpoint/{name}",) for name in names]
    return [
        ("configs", Target(names[0], texts, take, beside[1])),
        ("weights", Target(names[1], files, take, beside[0])),
    ]


def _recipes() -> tuple[str, Target]:
    """The other configurations, as a stored run keeps them."""
    augment = AugmentConfig(flip=True, scale=(0.8, 1.2), short_side_px=(40, 60), crop_px=64)
    right = {
        "input": to_json(InputConfig(short_side_px=64, stretch_percentiles=(1, 99))),
        "train": to_json(TrainConfig(augment=augment, decay_at=(0.5, 0.9))),
        "model": to_json(SMALL),
    }
    right = json.loads(json.dumps(right))  # lists in place of tuples

    def take(path: Path) -> None:
        from tensormask_edu.base.files import read_json

        values = read_json(path)
        values = values if isinstance(values, dict) else {}
        for name, kind in (
            ("input", InputConfig),
            ("train", TrainConfig),
            ("model", ModelConfig),
        ):
            made = from_json(kind, values.get(name), name)
            assert from_json(kind, json.loads(json.dumps(to_json(made)))) == made

    return "recipes", Target("recipe.json", changed_json(right), take)


def _published() -> list[tuple[str, Target]]:
    """Published weights: pickles of arrays, and PyTorch's archives."""
    model = build_model(SMALL)
    state = official_state(model)
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    few = dict(list(arrays.items())[:3])
    seeds = [pickle.dumps({"model": few, "__author__": "x"}, protocol) for protocol in range(6)]
    seeds += [pickle.dumps({"a": [1, (2.5, None), np.float16(1)]}, 2)]
    archive, old = io.BytesIO(), io.BytesIO()
    torch.save({"model": {name: state[name] for name in few}}, archive)
    torch.save({name: state[name] for name in few}, old, _use_new_zipfile_serialization=False)

    def take(path: Path) -> None:
        if path.suffix == ".pkl":
            read_pickled(path)
        load_official(build_model(SMALL), path)

    pickles = changed_bytes(seeds) | changed_bytes(seeds, most=2) | opcodes(seeds)
    archives = changed_bytes([archive.getvalue(), old.getvalue()], most=3)
    return [
        ("pickles", Target("weights.pkl", pickles, take)),
        ("archives", Target("weights.pth", archives, take)),
    ]


@st.composite
def opcodes(draw: Any, seeds: list[bytes]) -> bytes:
    """A pickle in which steps of the machine were put in, left out or done again."""
    import pickletools

    data = draw(st.sampled_from(seeds))
    starts = [place for _, _, place in pickletools.genops(data)] + [len(data)]
    steps = [data[a:b] for a, b in zip(starts, starts[1:], strict=False)]
    for _ in range(draw(st.integers(1, 5))):
        place = draw(st.integers(0, len(steps) - 1))
        kind = draw(st.sampled_from(("gone", "again", "other", "new")))
        if kind == "gone" and len(steps) > 1:
            del steps[place]
        elif kind == "again":
            steps.insert(place, steps[place])
        elif kind == "other":
            steps[place] = steps[draw(st.integers(0, len(steps) - 1))]
        else:
            steps.insert(place, draw(st.sampled_from(STEPS)))
    return b"".join(steps)


STEPS = (
    b"cos\nsystem\n", b"cbuiltins\neval\n", b"cnumpy\nload\n", b"cnumpy\ndtype\n",
    b"cnumpy.core.multiarray\n_reconstruct\n", b"cos.path\n__class__\n", b"R", b"b", b"(",
    b"t", b"N", b"]", b"}", b"a", b"s", b"0", b"2", b".", b"\x85", b"\x86", b"\x87", b"\x94",
    b"h\x00", b"h\x05", b"K\xff", b"J\xff\xff\xff\x7f", b"\x8a\x09" + b"\xff" * 8 + b"\x7f",
    b"\x8e" + b"\xff" * 8,
)  # fmt: skip


def _state() -> tuple[str, Target]:
    """What an interrupted run left."""
    from tensormask_edu.config import RECIPES

    recipe = replace(RECIPES["shapes"], model=SMALL)
    value = {"step": 3, "steps": 9, "data": "x", "recipe": journal._fixed(recipe),
             "model": {"w": torch.zeros(3, 2)}, "optimizer": {}, "scaler": {}, "seconds": 0.5,
             "recent": [{"loss": 1.5}]}  # fmt: skip
    file = io.BytesIO()
    torch.save(value, file)

    def take(path: Path) -> None:
        journal.read_state(path.parent, recipe, "x")

    files = changed_bytes([file.getvalue()], most=3)
    return "states", Target(journal.STATE, files, take)


# --- the exporter -----------------------------------------------------------------------------


def _onnx(world: Path) -> list[tuple[str, Target]]:
    import onnx

    whole = (world / "model.onnx").read_bytes()
    proto = onnx.load_from_string(whole)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    values = {key: json.loads(text) for key, text in metadata.items()}

    def with_metadata(text: bytes) -> bytes:
        try:
            changed = json.loads(text)
        except (ValueError, RecursionError):
            changed = None
        if not isinstance(changed, dict):  # the text itself, under one of the keys
            changed = {contract.DETECTOR: None}
        del proto.metadata_props[:]
        for key, value in changed.items():
            stored = (
                json.dumps(value) if value is not None else text[:100_000].decode("latin-1")
            )
            key = key.encode("utf-8", "replace").decode()
            proto.metadata_props.add(key=key, value=stored.encode("utf-8", "replace").decode())
        return proto.SerializeToString()

    def take(path: Path) -> None:
        found = read.read_onnx(path)
        read.read_metadata(found, path)
        read.raw_names(found)
        # A graph is a program and may ask for any memory; where it lacks, one line says so.
        with open_session(path, threads=1) as session, no_more_memory_than(GROWTH):
            with room_for("the file's graph", "export it again"):
                detect_image(session, np.zeros((3, 40, 64), np.uint8))
                replay(session, LIMITS["float32"])

    stored = changed_json(values).map(with_metadata)
    fields = onnx_fields(whole)
    return [
        ("metadata", Target("model.onnx", stored, take)),
        ("onnx", Target("model.onnx", fields | changed_bytes([whole], most=3), take)),
    ]


@contextmanager
def no_more_memory_than(count: int) -> Iterator[None]:
    """This process gets no more than so many bytes beyond what it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (memory_taken() + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@st.composite
def onnx_fields(draw: Any, whole: bytes) -> bytes:
    """An ONNX file with other fields in a node, an initializer or the graph's head."""
    import onnx

    proto = onnx.load_from_string(whole)
    graph = proto.graph
    kind = draw(st.sampled_from(("node", "tensor", "external", "head", "input", "attribute")))
    if kind == "node":
        node = draw(st.sampled_from(list(graph.node)))
        other = draw(st.sampled_from(list(graph.node)))
        field = draw(st.sampled_from(("op_type", "domain", "input", "output")))
        if field in ("op_type", "domain"):
            setattr(node, field, getattr(other, field))
        elif (names := getattr(node, field)) and (wanted := getattr(other, field)):
            names[draw(st.integers(0, len(names) - 1))] = wanted[0]
    elif kind == "attribute":
        node = draw(st.sampled_from([n for n in graph.node if n.attribute]))
        attribute = draw(st.sampled_from(list(node.attribute)))
        attribute.i = draw(st.sampled_from((0, -1, 3, 7, 100_000, 2**31, 2**62)))
        if attribute.ints:
            attribute.ints[0] = attribute.i
    elif kind in ("tensor", "external"):
        tensor = draw(st.sampled_from(list(graph.initializer)))
        if kind == "external":
            place = draw(
                st.sampled_from(("/etc/passwd", "../../etc/passwd", "x", "model.onnx"))
            )
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=place)
            tensor.external_data.add(key="length", value=draw(st.sampled_from(("4", "9" * 18))))
        else:
            dims = [0, -1, 1, 2**20, 2**40, 2**62]
            if tensor.dims:
                tensor.dims[0] = draw(st.sampled_from(dims))
            tensor.data_type = draw(st.sampled_from((tensor.data_type, 1, 7, 10, 16, 99)))
    elif kind == "head":
        proto.ir_version = draw(st.sampled_from((0, 1, 8, 99, 2**40)))
        proto.opset_import[0].version = draw(st.sampled_from((0, 1, 20, 99, 2**40)))
    else:
        shape = graph.input[0].type.tensor_type.shape
        shape.dim[draw(st.integers(0, 3))].dim_value = draw(st.sampled_from((1, 7, 2**40)))
    return proto.SerializeToString()


def _manifests(world: Path) -> tuple[str, Target]:
    import onnx

    metadata = read.read_metadata(onnx.load(world / "model.onnx"), "model.onnx")
    plan, library = b"a plan", b"a library"
    shapes = {"min": [1, 3, 64, 64], "opt": [1, 3, 64, 96], "max": [2, 3, 128, 128]}
    right = {
        "engine": {"file": "model.engine", "bytes": len(plan),
                   "sha256": hashlib.sha256(plan).hexdigest()},
        "model": {"sha256": "0" * 64, "metadata": metadata},
        "backend": {"name": "tensorrt_rtx", "version": "1.2.0"},
        "targets": {"compute_capabilities": ["8.0", "8.6"], "later": True, "note": ""},
        "profile": {contract.IMAGES: shapes},
        "plugin": {"kind": "cpp", "why": "", "library": "/etc/passwd",
                   "sha256": hashlib.sha256(library).hexdigest()},
    }  # fmt: skip

    def take(path: Path) -> None:
        from tensormask_export.engine.device import Device
        from tensormask_export.runtimes.session import check_shape

        refusal: Exception | None = None
        file = manifest.read_engine(path.with_suffix(""))
        uses: tuple[Callable[[], object], ...] = (
            lambda: file.profile.check(32),
            file.backend,
            lambda: file.check_device(None),
            lambda: file.check_device(Device("a GPU", "8.9", "1")),
            lambda: file.plugin(),
            lambda: check_shape((1, 3, 64, 64), file.metadata, file.profile),
        )
        for use in uses:
            try:
                use()
            except coco_scores.InputError as error:
                refusal = error
        if refusal is not None:
            raise refusal

    texts = changed_json(right) | changed_bytes([json.dumps(right).encode()])
    return "manifests", Target("model.engine.json", texts, take, ("model.engine",))


# --- operators --------------------------------------------------------------------------------


def _operators() -> tuple[str, Target]:
    """Arguments as JSON; `operators.py` says what they stand for."""

    def take(path: Path) -> None:
        call(json.loads(path.read_bytes()))

    ops.status()  # the kernels are compiled before a child has seconds for an input
    assert OPERATORS
    return "operators", Target("arguments.json", arguments(), take)


def evaluate(checkpoint: Path, folder: Path) -> object:
    """A whole evaluation: what a stranger's data set meets."""
    return evaluate_checkpoint(checkpoint, folder)
