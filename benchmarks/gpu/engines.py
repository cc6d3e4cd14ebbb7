"""Engines on the GPU: each finds what PyTorch finds, then its times beside PyTorch's.

They lie in the folder `--work`, built beforehand on any machine (`python benchmarks/gpu
--build`), those of another TensorRT too; of the tiny model they are built here where they are
missing. Each is MODEL-PRECISION-PLUGIN.engine, its manifest beside it, and belongs to the
checkpoint folder MODEL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np
import torch
from tensormask_export import bench, contract
from tensormask_export.engine.backends import find_backend
from tensormask_export.engine.manifest import read_engine
from tensormask_export.runtimes.find import open_session
from tensormask_export.runtimes.session import Session
from tensormask_export.shapes import Profile
from tensormask_export.verify.compare import LIMITS, match

from gpu.task import NotHere, Row, Task, attempt, failures
from tensormask_edu.base.errors import InputError
from tensormask_edu.base.files import make_folder
from tensormask_edu.config import InputConfig, ModelConfig, from_json
from tensormask_edu.detector.model import TensorMask, build_model
from tensormask_edu.weights.checkpoint import load_checkpoint, save_checkpoint

PROFILES = {
    "tiny": Profile((1, 3, 128, 128), (1, 3, 256, 256), (8, 3, 512, 512)),
    "r50_fpn_1x": Profile(*[(1, 3, 800, 1344)] * 3),
}
KINDS = ["-".join(kind) for kind in product(("float32", "float16"), ("none", "python"))]
NAMES = {preset: [f"{preset}-{kind}" for kind in KINDS] for preset in PROFILES}
BUILT = ("backend", "targets", "ops", "layers")  # of a manifest
SECONDS = 5.0  # for the times of one engine


def build(task: Task) -> Iterator[Row]:
    """Every engine that is not there yet; needs a TensorRT that builds, with RTX no GPU."""
    for name in (name for names in NAMES.values() for name in names):
        yield attempt(task, name, built, name)


def built(task: Task, name: str) -> Row:
    """What one engine became."""
    path = engine(name, task.work)
    manifest = read_engine(path).manifest
    return {"bytes": path.stat().st_size, **{key: manifest[key] for key in BUILT}}


def engine(name: str, work: Path) -> Path:
    """An engine by its name, say tiny-float16-none; what is missing of it is made.

    Its model has fresh weights.
    """
    from tensormask_export.engine.build import build_engine
    from tensormask_export.onnx_file.write import export_onnx

    target = work / f"{name}.engine"
    if target.is_file():
        return target
    preset, precision, plugin = name.split("-")
    onnx = make_folder(work) / f"{preset}-{precision}.onnx"
    if not (work / preset).is_dir():
        torch.manual_seed(0)
        save_checkpoint(work / preset, build_model(preset), InputConfig())
    if not onnx.is_file():
        model, input_config = load_checkpoint(work / preset)
        export_onnx(model.eval(), onnx, precision=precision, input_config=input_config)
    build_engine(onnx, target, profile=PROFILES[preset], plugin=plugin)
    return target


def checkpoint_of(path: Path) -> Path:
    """The checkpoint of an engine, by its name."""
    return path.with_name(path.stem.split("-")[0])


def engines(task: Task) -> Iterator[Row]:
    """Per engine two rows: right, and how quick."""
    suffix = ".engine"
    if task.device.kind == "cpu":  # in a rehearsal: the ONNX files that engines are built of
        suffix = ".onnx"
    else:
        find_runtime()
    names = {path.stem for path in task.work.glob(f"*{suffix}")}
    if suffix == ".engine":
        names |= set(NAMES["tiny"])
    if not names:
        raise NotHere(f"there is no *{suffix} in --work")
    for name in sorted(names):
        path = task.work / f"{name}{suffix}"
        yield attempt(task, f"{name} finds what PyTorch finds", right, path)
        yield attempt(task, f"{name}, times", times, path)


def engines_text(rows: Sequence[Row]) -> list[str]:
    """The times, and what is wrong."""
    lines = [line for row in rows for line in row.get("table", "").splitlines()]
    return [f"{len(rows) // 2} engines", *failures(rows), *lines]


def find_runtime() -> None:
    """NotHere unless there is a TensorRT."""
    try:
        find_backend()
    except InputError as error:
        raise NotHere(str(error)) from None


def right(task: Task, path: Path) -> Row:
    """Detections of an exported model beside PyTorch's, on the device."""
    if path.suffix == ".engine":
        engine(path.stem, path.parent)
    with open_session(path) as session:
        model = load_checkpoint(checkpoint_of(path))[0].to(task.device.kind)
        rows = beside_pytorch(session, model)
    wrong = [row for row in rows if not row["passed"]]
    assert not wrong, wrong
    return {"compared": rows}


def beside_pytorch(session: Session, model: TensorMask) -> list[Row]:
    """Detections of random pictures by both, one to one, at the smallest and largest shape."""
    profile = session.profile or Profile(*[(1, 3, 64, 64)] * 3)
    model.config = from_json(ModelConfig, session.metadata[contract.MODEL_CONFIG])
    limits = LIMITS[session.metadata[contract.DETECTOR]["precision"]]
    device, rows = model.pixel_mean.device, []
    for num, _, height, width in dict.fromkeys((profile.min, profile.max)):
        pictures = list(np.random.default_rng(0).random((num, 3, height, width), np.float32))
        with torch.inference_mode():
            expected = model([torch.from_numpy(picture).to(device) for picture in pictures])
        found = zip(expected, session.detect(pictures), strict=True)
        for number, (theirs, ours) in enumerate(found):
            wanted = {name: tensor.cpu().numpy() for name, tensor in theirs.items()}
            where = (session.name, f"{number} of {num}x3x{height}x{width}")
            rows.append(asdict(match(where, wanted, ours, True, limits)))
    return rows


def times(task: Task, path: Path) -> Row:
    """Milliseconds; PyTorch beside it, once per model and precision."""
    beside = checkpoint_of(path) if path.stem.endswith("none") else None
    effort = bench.Effort(task.sizes.iterations // 5, task.sizes.iterations, SECONDS)
    report = bench.bench(path, effort=effort, eager=beside)
    return {"table": report.table(), "report": report.to_json()}
