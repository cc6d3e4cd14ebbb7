"""Models, pictures and objects for scripts that time or check: random, always the same."""

from __future__ import annotations

import os
import random
import runpy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tensormask_edu.base.files import read_json
from tensormask_edu.config import COCO_CLASS_NAMES, MODELS
from tensormask_edu.detector.model import TensorMask, build_model
from tensormask_edu.weights.official import load_official

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(os.environ.get("TENSORMASK_SHARED", ROOT.parent / "shared")) / "golden"
Truth = list[dict[str, Any]]


def spread_model(preset: str, device: str, detections: int = 100) -> TensorMask:
    """A model of random weights with spread scores: few are high, all differ.

    Its predictors are scaled for it, its masks have edges: it finds `detections` anywhere.
    """
    torch.manual_seed(0)
    kept = {"class_names": COCO_CLASS_NAMES, "detections_per_image": detections}
    model = build_model(replace(MODELS[preset], **kept))
    network = model.network
    with torch.no_grad():
        output = network(model.batch(pictures(1, 128, 128, "cpu")))
        scale(network.class_predictor, output.logits, 1.0)
        scale(network.box_predictor, output.deltas, 0.3)
        for predictor in network.mask_branch.predictors:
            scale(predictor, [predictor(m) for m in output.mask_features], 3.0)
        nn.init.constant_(network.class_predictor.get_parameter("bias"), -6.0)
    return model.to(device)


def scale(predictor: nn.Module, outputs: list[Tensor], spread: float) -> None:
    """Give the outputs of a predictor this standard deviation."""
    found = torch.cat([x.flatten() for x in outputs]).std()
    predictor.get_parameter("weight").mul_(spread / found)


def golden_model(golden: Path) -> TensorMask:
    """The paper's R50 model with weights that are random but fixed.

    Args:
        golden: the folder of `deterministic.py` and `checkpoint_names.json`.
    """
    make = runpy.run_path(str(golden / "deterministic.py"))["deterministic_array"]
    shapes, model = read_json(golden / "checkpoint_names.json"), build_model("r50_fpn_1x")
    arrays = {name: make(name, tuple(shape)) for name, shape in shapes.items()}
    load_official(model, {name: torch.from_numpy(array) for name, array in arrays.items()})
    return model


def pictures(count: int, height: int, width: int, device: str) -> list[Tensor]:
    """Noise."""
    return [torch.rand(3, height, width, device=device) for _ in range(count)]


def objects(count: int, height: int, width: int, device: str, num: int = 10) -> Truth:
    """Per picture `num` rectangles, their sides even on a log scale from 16 px to `height`."""
    rand, truth = random.Random(0).random, []
    for _ in range(count):
        masks = torch.zeros(num, height, width, dtype=torch.bool)
        boxes = torch.zeros(num, 4)
        for g in range(num):
            side = 16 * (height / 16) ** (g / max(1, num - 1))
            h, w = (max(8, int(side * (0.6 + 0.4 * rand()))) for _ in "hw")
            h, w = min(h, height), min(w, width)
            y, x = int(rand() * (height - h + 1)), int(rand() * (width - w + 1))
            masks[g, y : y + h, x : x + w] = True
            boxes[g] = torch.tensor([x, y, x + w, y + h])
        labels = torch.arange(num, device=device)
        truth.append({"boxes": boxes.to(device), "labels": labels, "masks": masks.to(device)})
    return truth


def training_step(
    model: nn.Module, images: list[Tensor], truth: Truth, precision: str = "float32"
) -> None:
    """Forward, losses, backward, one step of SGD."""
    with autocast(images[0].device.type, precision):
        losses = model(images, truth)
    sum(losses.values()).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=1e-6)
                parameter.grad = None


def autocast(device: str, precision: str, keep: bool = True) -> torch.autocast:
    """PyTorch's autocast to a smaller type; `keep`: converted weights, until the block ends."""
    smaller = {"enabled": precision != "float32", "cache_enabled": keep}
    return torch.autocast(device, getattr(torch, precision), **smaller)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether a GPU may round float32 to 11 bits before it multiplies."""
    parts = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [part.allow_tf32 for part in parts]
    try:
        for part in parts:
            part.allow_tf32 = allowed
        yield
    finally:
        for part, value in zip(parts, before, strict=True):
            part.allow_tf32 = value
