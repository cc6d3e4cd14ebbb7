"""Deployment on a GPU, in one run: build, plugins, engines, latency; one JSON file is the
record.

Not run yet: no GPU was at hand. What needs none was run: building, the nodes' engines, the
comparison.

    python benchmarks/gpu_deploy.py                          writes benchmarks/results/deploy-NAME-DATE.json
    python benchmarks/gpu_deploy.py --engines FOLDER         tries engines that were built elsewhere as well
    python benchmarks/gpu_deploy.py --steps build --work W   without a GPU: builds what the others read

Needs tensormask-edu[export,cuda] and a TensorRT; no network. Steps, in a folder that is kept:

    build    ONNX files of two models with fresh weights, float32 and float16, and their engines, with and
             without Python's plugin
    nodes    both ops, each kernel outside an engine and as the one node of one, against NumPy in float64
    engines  does each engine load on this card, does it run, are its detections those of PyTorch? TensorRT's
             own words where not
    latency  every engine, and PyTorch beside it in the same precision, eager and compiled

A step that fails is recorded and the next one runs.
"""

from __future__ import annotations

import argparse
import datetime
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_session import attempt
from tensormask_export import bench, contract
from tensormask_export.engine import plugin
from tensormask_export.engine.backends import (
    child_environment,
    find_backend,
    make_builder,
    network_flags,
)
from tensormask_export.engine.build import build_engine
from tensormask_export.engine.device import find_device
from tensormask_export.engine.manifest import read_engine
from tensormask_export.onnx_file import bodies as onnx_body
from tensormask_export.onnx_file.write import export_onnx
from tensormask_export.runtimes import engine as engine_run
from tensormask_export.runtimes.session import Buffer, Session
from tensormask_export.shapes import Array, Profile
from tensormask_export.verify.compare import LIMITS, match

from tensormask_edu import reference
from tensormask_edu.base.files import write_json
from tensormask_edu.commands.check_ops import machine
from tensormask_edu.config import InputConfig, ModelConfig, from_json
from tensormask_edu.detector.model import TensorMask, build_model
from tensormask_edu.weights.checkpoint import load_checkpoint, save_checkpoint

HERE = Path(__file__).resolve().parent
# Model -> the shapes of its engines
MODELS = {
    "tiny": Profile((1, 3, 128, 128), (1, 3, 256, 256), (8, 3, 512, 512)),
    "r50_fpn_1x": Profile((1, 3, 800, 1344), (1, 3, 800, 1344), (1, 3, 800, 1344)),
}
PRECISIONS = ("float32", "float16")
PLUGINS = ("none", "python")
# Op, lam, sides V and U, height, width: one bin per side even and odd, grids that lam does not
# divide
NODES = [
    (1, 15, 15, 100, 168),
    (2, 11, 11, 100, 168),
    (4, 15, 11, 51, 84),
    (32, 15, 15, 50, 84),
]
PAD_VALUE = -6.0
WINDOWS = 100


# --- build ------------------------------------------------------------------------------------


def build(work: Path) -> dict[str, Any]:
    """Checkpoints, ONNX files and engines in `work`; per engine its size, seconds and
    targets."""
    found = {}
    for preset, profile in MODELS.items():
        torch.manual_seed(0)
        model, input_config = build_model(preset).eval(), InputConfig()
        save_checkpoint(work / preset, model, input_config)
        for precision in PRECISIONS:
            path = work / f"{preset}-{precision}.onnx"
            export_onnx(model, path, precision=precision, input_config=input_config)
            for kind in PLUGINS:
                engine = path.with_name(f"{path.stem}-{kind}.engine")
                found[engine.stem] = attempt(lambda: built(path, engine, profile, kind))  # noqa: B023
    return found


def built(path: Path, engine: Path, profile: Profile, kind: str) -> dict[str, Any]:
    """One engine."""
    report = build_engine(path, engine, profile=profile, plugin=kind).to_json()
    names = ("backend", "version", "targets", "bytes", "seconds", "ops", "layers", "warnings")
    return {name: report[name] for name in names}


# --- nodes ------------------------------------------------------------------------------------


def nodes(work: Path) -> dict[str, Any]:
    """Per case the error of each kernel, as `check-ops` counts it."""
    return {
        f"{op} lam {lam} {v}x{u} at {height}x{width} {kind}": attempt(
            lambda: node_errors(work, op, (lam, v, u, height, width), kind)  # noqa: B023
        )
        for op in plugin.OPS
        for lam, v, u, height, width in NODES
        for kind in PRECISIONS
    }


def node_errors(work: Path, op: str, case: tuple[int, ...], kind: str) -> dict[str, float]:
    """Largest relative error outside and inside an engine."""
    from tensormask_edu.ops import cuda

    lam, inputs, expected = case[0], node_inputs(op, case, kind), None
    wide, index = inputs["x"].astype(np.float64), inputs.get("index")
    x = torch.from_numpy(inputs["x"]).cuda()
    if index is None:
        expected = reference.swap_align2nat(wide, lam, PAD_VALUE)
        outside = cuda.forward(x, lam, PAD_VALUE)
    else:
        expected = reference.swap_align2nat_windows(wide, lam, index, PAD_VALUE)
        outside = cuda.forward_windows(x, lam, torch.from_numpy(index).cuda(), PAD_VALUE)
    inside = run_node(node_engine(work, op, case, kind), inputs, expected.shape)
    scale = np.maximum(np.abs(expected), 1e-2 * max(np.abs(wide).max(), abs(PAD_VALUE)))
    return {
        name: float((np.abs(got.astype(np.float64) - expected) / scale).max())
        for name, got in (("outside", outside.cpu().numpy()), ("inside", inside))
    }


def node_inputs(op: str, case: tuple[int, ...], kind: str) -> dict[str, Array]:
    """The same numbers in every call."""
    lam, v, u, height, width = case
    random = np.random.default_rng(0)
    inputs: dict[str, Array] = {
        "x": random.normal(scale=3, size=(2, v, u, height, width)).astype(kind)
    }
    if op == contract.SWAP_WINDOWS:
        ends = (2, -(-height // lam), -(-width // lam))
        inputs["index"] = random.integers(0, ends, (WINDOWS, 3))
    return inputs


def node_engine(work: Path, op: str, case: tuple[int, ...], kind: str) -> Path:
    """An engine of one node that is Python's plugin; built by a child, as every engine is."""
    path = work / f"{op}-{'-'.join(map(str, case))}-{kind}.plan"
    write_node(path.with_suffix(".onnx"), op, case, node_inputs(op, case, kind))
    backend = find_backend()
    with child_environment(backend) as environment:
        environment["PYTHONPATH"] = f"{HERE}:{environment['PYTHONPATH']}"
        words = [sys.executable, str(HERE / "gpu_deploy.py"), "--node", str(path)]
        child = subprocess.run(words, env=environment, capture_output=True, text=True)
    if child.returncode:
        raise RuntimeError(f"exit {child.returncode}: {child.stderr[-1500:]}")
    return path


def write_node(path: Path, op: str, case: tuple[int, ...], inputs: dict[str, Array]) -> None:
    """An ONNX file of one node with its function body."""
    import onnx

    helper = onnx.helper
    values = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in inputs.items()
    ]
    attributes = {
        contract.LAM: case[0],
        contract.PAD_VALUE: PAD_VALUE,
        **contract.PLUGIN_ATTRIBUTES,
    }
    node = helper.make_node(op, list(inputs), ["out"], domain=contract.DOMAIN, **attributes)
    rank = 3 if op == contract.SWAP_WINDOWS else 5
    out = helper.make_tensor_value_info(
        "out", values[0].type.tensor_type.elem_type, [None] * rank
    )
    opsets = [(("", contract.OPSET)), (contract.DOMAIN, contract.DOMAIN_VERSION)]
    model = helper.make_model(
        helper.make_graph([node], "node", values, [out]),
        functions=onnx_body.functions({op}),
        opset_imports=[helper.make_opsetid(*opset) for opset in opsets],
        ir_version=10,
    )
    onnx.save(model, path)


def build_node(path: Path) -> int:
    """In the child: path.onnx to the plan `path`; an error unless the node became a plugin
    layer."""
    trt = find_backend().module
    logger = engine_run.make_logger(trt)
    builder = make_builder(trt, logger)
    plugin.load(trt, "python")
    network = builder.create_network(network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path.with_suffix(".onnx"))):
        raise SystemExit(parser.get_error(0).desc())
    layers = [network.get_layer(i).type.name for i in range(network.num_layers)]
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    if plan is None or "PLUGIN_V3" not in layers:
        raise SystemExit(f"layers {layers}; {engine_run.reasons(logger)}")
    path.write_bytes(plan)
    return 0


def run_node(path: Path, inputs: dict[str, Array], shape: tuple[int, ...]) -> Array:
    """The output of a one-node engine."""
    trt = find_backend().module
    logger = engine_run.make_logger(trt)
    plugin.load(trt, "python")
    engine = engine_run.load_plan(trt.Runtime(logger), path.read_bytes(), logger)
    stream, context = engine_run.Stream(), engine_run.make_context(trt, engine)
    plan = {name: Buffer(array.shape, array.dtype) for name, array in inputs.items()}
    buffers = engine_run.Buffers(
        plan | {"out": Buffer(shape, inputs["x"].dtype)}, stream.device
    )
    for name, tensor in buffers.device.items():
        if name in inputs:
            tensor.copy_(torch.from_numpy(inputs[name]))
        context.set_tensor_address(name, tensor.data_ptr())
    torch.cuda.synchronize()
    if not context.execute_async_v3(stream.handle):
        raise RuntimeError(engine_run.reasons(logger))
    stream.wait()
    return buffers.device["out"].cpu().numpy()


# --- engines ----------------------------------------------------------------------------------


def engines(work: Path) -> dict[str, Any]:
    """Per engine: what the manifest's check says, what TensorRT says, and how far it is from
    PyTorch."""
    return {
        path.stem: {
            "manifest": attempt(lambda: str(read_engine(path).check_device(find_device()))),  # noqa: B023
            "loads": attempt(lambda: load_unchecked(path)),  # noqa: B023
            "equals PyTorch": attempt(lambda: compared(path, work)),  # noqa: B023
        }
        for path in engine_files(work)
    }


def load_unchecked(path: Path) -> str:
    """TensorRT alone, whatever the manifest says of the card."""
    file = read_engine(path)
    trt = file.backend().module
    plugin.load(trt, **file.plugin())
    logger = engine_run.make_logger(trt)
    engine = engine_run.load_plan(trt.Runtime(logger), file.plan, logger)
    return (
        f"{engine.num_io_tensors} tensors, {engine.num_layers} layers; said: {logger.warnings}"
    )


def compared(path: Path, work: Path) -> list[dict[str, Any]]:
    """The engine's detections beside those of PyTorch on this GPU."""
    with engine_run.EngineSession(path) as session:
        return beside_pytorch(session, load_checkpoint(checkpoint_of(path, work))[0].cuda())


def beside_pytorch(session: Session, model: TensorMask) -> list[dict[str, Any]]:
    """Detections of random pictures from both, one to one, for the smallest and the largest
    shape."""
    assert session.profile is not None
    model.config = from_json(ModelConfig, session.metadata[contract.MODEL_CONFIG])
    limits = LIMITS[session.metadata[contract.DETECTOR]["precision"]]
    rows = []
    for num, _, height, width in dict.fromkeys((session.profile.min, session.profile.max)):
        pictures = list(np.random.default_rng(0).random((num, 3, height, width), np.float32))
        with torch.inference_mode():
            expected = model(
                [torch.from_numpy(picture).to(model.pixel_mean.device) for picture in pictures]
            )
        for number, (theirs, ours) in enumerate(
            zip(expected, session.detect(pictures), strict=True)
        ):
            wanted = {name: tensor.cpu().numpy() for name, tensor in theirs.items()}
            where = (session.name, f"{number} of {num}x3x{height}x{width}")
            rows.append(asdict(match(where, wanted, ours, True, limits)))
    return rows


def engine_files(work: Path) -> Iterator[Path]:
    """Those built here and those brought along."""
    yield from sorted(work.glob("*.engine"))


def checkpoint_of(engine: Path, work: Path) -> Path:
    """By its name: tiny-float16-none.engine belongs to the folder tiny."""
    return work / engine.name.split("-")[0]


# --- latency ----------------------------------------------------------------------------------


def latency(work: Path) -> dict[str, Any]:
    """Times of every engine, with PyTorch in the same precision beside it."""
    effort = bench.Effort(warmup=20, iterations=200, seconds=20)
    return {
        path.stem: attempt(lambda: timed(path, work, effort)) for path in engine_files(work)
    }  # noqa: B023


def timed(path: Path, work: Path, effort: bench.Effort) -> dict[str, Any]:
    """One engine, and PyTorch once per model and precision."""
    beside = checkpoint_of(path, work) if path.stem.endswith(PLUGINS[0]) else None
    report = bench.bench(path, effort=effort, eager=beside, compiled=beside)
    print(report.table(), flush=True)
    return report.to_json()


def went_well(outcome: Any) -> bool:
    """Whether a step, and every step inside it, went well."""
    inner = (
        outcome.values()
        if isinstance(outcome, dict)
        else outcome
        if isinstance(outcome, list)
        else []
    )
    failed = isinstance(outcome, dict) and outcome.get("ok") is False
    return not failed and all(map(went_well, inner))


STEPS = {"build": build, "nodes": nodes, "engines": engines, "latency": latency}


def bring(folder: Path, work: Path) -> None:
    """Engines with their manifests, and checkpoint folders, from elsewhere into `work`."""
    for path in folder.iterdir():
        (work / path.name).unlink(missing_ok=True)
        (work / path.name).symlink_to(path.resolve())


def main() -> int:
    """Run the steps; 0 if all went well, 1 if one failed, 2 if there is no GPU."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument(
        "--work", type=Path, default=Path("outputs/gpu_deploy"), help="for what is built"
    )
    parser.add_argument(
        "--engines", type=Path, metavar="FOLDER", help="engines, manifests, checkpoints"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="default: benchmarks/results/deploy-NAME-DATE.json"
    )
    parser.add_argument("--node", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.node:
        return build_node(args.node)
    device = find_device()
    if device is None and args.steps != ["build"]:
        print(
            "no CUDA device is visible to PyTorch: only --steps build runs here",
            file=sys.stderr,
        )
        return 2
    args.work.mkdir(parents=True, exist_ok=True)
    if args.engines:
        bring(args.engines, args.work)
    today = datetime.date.today().isoformat()
    record: dict[str, Any] = {
        "machine": machine() | {"gpu": asdict(device) if device else None}
    }
    name = re.sub(r"\W+", "-", device.name if device else "no-gpu").strip("-").lower()
    target = Path(args.json or HERE / "results" / f"deploy-{name}-{today}.json")
    for step in args.steps:
        record[step] = attempt(lambda: STEPS[step](args.work))  # noqa: B023
        verdict = "ok" if went_well(record[step]) else "FAILED"
        print(f"{step}: {verdict} in {record[step]['seconds']} s", flush=True)
        write_json(target, record)
    print(f"written to {target}")
    return 0 if all(went_well(record[step]) for step in args.steps) else 1


if __name__ == "__main__":
    raise SystemExit(main())
