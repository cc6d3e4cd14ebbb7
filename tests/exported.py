"""Models small enough to export in a test: once per session, see `conftest.py`."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tensormask_edu.config import MODELS, InputConfig, ModelConfig
from tensormask_edu.detector.model import TensorMask, build_model
from tensormask_edu.weights.checkpoint import save_checkpoint

NO_RTX = importlib.util.find_spec("tensorrt_rtx") is None
needs_rtx = pytest.mark.skipif(NO_RTX, reason="tensorrt_rtx is not installed")

# What the runner in C++ is built with
ORT_HEADERS = os.environ.get("ONNXRUNTIME_INCLUDE_DIR", "")
PREFIXES = [*os.environ.get("CMAKE_PREFIX_PATH", "").split(os.pathsep), "/usr", "/usr/local"]


def is_here(header: str) -> bool:
    """Whether CMake finds the library of this header."""
    places = (header, f"*-linux-gnu/{header}")
    folders = [Path(prefix, "include") for prefix in PREFIXES if prefix]
    return any(next(f.glob(place), None) for f in folders for place in places)


ABSENT = [name for name in ("png.h", "jpeglib.h", "nlohmann/json.hpp") if not is_here(name)]

SMALL = replace(
    MODELS["tiny"],
    class_names=("left", "right"),
    strides_px=(4, 8),
    sides_bins=(3, 4),
    fpn_channels=8,
    tower_convs=1,
    class_channels=8,
    box_channels=8,
    mask_channels=8,
    tower_norm_groups=2,
    detections_per_image=20,
)


def outspoken(model: TensorMask) -> TensorMask:
    """The same model with logits of the order of a trained one's.

    Fresh predictors say almost nothing: their weights are enlarged.
    """
    network = model.network
    with torch.no_grad():
        for conv in (
            network.class_predictor,
            network.box_predictor,
            *network.mask_branch.predictors,
        ):
            conv.weight.mul_(20)
    return model


def checkpoint(folder: Path, config: ModelConfig, input_config: InputConfig) -> Path:
    """A checkpoint with fixed weights."""
    torch.manual_seed(0)
    save_checkpoint(folder / "checkpoint", outspoken(build_model(config)), input_config)
    return folder / "checkpoint"
