"""Engines on the GPU at hand: do they load, do they find what PyTorch finds, is a node right?

Engines that lie in `TENSORMASK_GPU_WORK` are tried too, such as those that `python
benchmarks/gpu --build` left; those of the tiny model are made where they are missing.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT

pytest.importorskip("onnx")
sys.path.append(str(ROOT / "benchmarks"))

from device import Gpu
from gpu import engines
from gpu.engines import NAMES, beside_pytorch, checkpoint_of
from gpu.task import Task
from one_node import PAD_VALUE, node_engine, node_inputs, run_node
from tensormask_export import contract
from tensormask_export.engine import plugin
from tensormask_export.engine.backends import make_logger
from tensormask_export.engine.device import find_device
from tensormask_export.engine.manifest import read_engine
from tensormask_export.runtimes.engine import EngineSession, load_plan
from tolerances import OP_REL

from tensormask_edu import reference
from tensormask_edu.commands.check_ops import scaled_error
from tensormask_edu.ops import cuda
from tensormask_edu.weights.checkpoint import load_checkpoint

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("default"),  # what a driver warns of is not asked here
]
WORK = Path(os.environ.get("TENSORMASK_GPU_WORK", Task(Gpu()).work))
ENGINES = sorted({path.stem for path in WORK.glob("*.engine")} | set(NAMES["tiny"]))
# lam, V, U, H, W: one bin per side even and odd, grids that lam does not divide
NODES = [
    (1, 15, 15, 100, 168),
    (2, 11, 11, 100, 168),
    (4, 15, 11, 51, 84),
    (32, 15, 15, 50, 84),
]


def engine(name: str) -> Path:
    """An engine, made where it is missing."""
    return engines.engine(name, WORK)


@pytest.mark.parametrize("name", ENGINES)
def test_the_manifest_of_an_engine_takes_this_gpu(name, record_property):
    device = find_device()
    record_property("seen", str(read_engine(engine(name)).check_device(device)))


@pytest.mark.parametrize("name", ENGINES)
def test_tensorrt_loads_an_engine_whatever_its_manifest_says(name, record_property):
    file = read_engine(engine(name))
    trt = file.backend().module
    plugin.load(trt, **file.plugin())
    logger = make_logger(trt)
    loaded = load_plan(trt.Runtime(logger), file.plan, logger)
    record_property("layers", loaded.num_layers)
    record_property("warnings", logger.warnings)


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_finds_what_pytorch_finds(name, record_property):
    path = engine(name)
    with EngineSession(path) as session:
        rows = beside_pytorch(session, load_checkpoint(checkpoint_of(path))[0].cuda())
    record_property("rows", rows)
    assert all(row["passed"] for row in rows), rows


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("case", NODES, ids=str)
@pytest.mark.parametrize("op", plugin.OPS)
def test_a_node_inside_an_engine_and_outside_is_the_reference(
    op, case, dtype, tmp_path, record_property
):
    lam, inputs = case[0], node_inputs(op, case, dtype)
    wide, x = inputs["x"].astype(np.float64), torch.from_numpy(inputs["x"]).cuda()
    if op == contract.SWAP:
        expected = reference.swap_align2nat(wide, lam, PAD_VALUE)
        outside = cuda.forward(x, lam, PAD_VALUE)
    else:
        index = inputs["index"]
        expected = reference.swap_align2nat_windows(wide, lam, index, PAD_VALUE)
        outside = cuda.forward_windows(x, lam, torch.from_numpy(index).cuda(), PAD_VALUE)
    inside = run_node(node_engine(tmp_path, op, case, dtype), inputs, expected.shape)
    scale = max(np.abs(wide).max(), abs(PAD_VALUE))
    for name, got in (("outside", outside.cpu().numpy()), ("inside", inside)):
        error = scaled_error(got.astype(np.float64), expected, scale)
        record_property(name, error)
        assert error <= OP_REL[x.dtype], name
