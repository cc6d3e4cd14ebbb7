"""Engines for the checks and timings on a GPU, and how they are compared with PyTorch."""

from __future__ import annotations

import os
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensormask_export import contract
from tensormask_export.engine.build import build_engine
from tensormask_export.onnx_file.write import export_onnx
from tensormask_export.runtimes.session import Session
from tensormask_export.shapes import Profile
from tensormask_export.verify.compare import LIMITS, match

from tensormask_edu.base.files import make_folder
from tensormask_edu.config import InputConfig, ModelConfig, from_json
from tensormask_edu.detector.model import TensorMask, build_model
from tensormask_edu.weights.checkpoint import load_checkpoint, save_checkpoint

ROOT = Path(__file__).resolve().parents[2]
# Where engines lie; those built elsewhere are tried too. Each is MODEL-PRECISION-PLUGIN.engine,
# its manifest beside it, and belongs to the checkpoint folder MODEL.
WORK = Path(os.environ.get("TENSORMASK_GPU_WORK", ROOT / "outputs" / "gpu"))
PROFILES = {
    "tiny": Profile((1, 3, 128, 128), (1, 3, 256, 256), (8, 3, 512, 512)),
    "r50_fpn_1x": Profile(*[(1, 3, 800, 1344)] * 3),
}
KINDS = ["-".join(kind) for kind in product(("float32", "float16"), ("none", "python"))]
NAMES = {preset: [f"{preset}-{kind}" for kind in KINDS] for preset in PROFILES}


def engine(name: str, work: Path = WORK) -> Path:
    """An engine by its name, say tiny-float16-none; what is missing of it is made.

    Its model has fresh weights. Nothing here needs a GPU if TensorRT-RTX builds.
    """
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
    return path.with_name(path.name.split("-")[0])


def beside_pytorch(session: Session, model: TensorMask) -> list[dict[str, Any]]:
    """Detections of random pictures by both, one to one, at the smallest and largest shape."""
    assert session.profile is not None
    model.config = from_json(ModelConfig, session.metadata[contract.MODEL_CONFIG])
    limits = LIMITS[session.metadata[contract.DETECTOR]["precision"]]
    device, rows = model.pixel_mean.device, []
    for num, _, height, width in dict.fromkeys((session.profile.min, session.profile.max)):
        pictures = list(np.random.default_rng(0).random((num, 3, height, width), np.float32))
        with torch.inference_mode():
            expected = model([torch.from_numpy(picture).to(device) for picture in pictures])
        found = zip(expected, session.detect(pictures), strict=True)
        for number, (theirs, ours) in enumerate(found):
            wanted = {name: tensor.cpu().numpy() for name, tensor in theirs.items()}
            where = (session.name, f"{number} of {num}x3x{height}x{width}")
            rows.append(asdict(match(where, wanted, ours, True, limits)))
    return rows
