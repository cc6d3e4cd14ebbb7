"""An engine of one node of ours, which is Python's plugin: made and run.

`python one_node.py FILE.onnx` builds FILE.plan: a process of its own, as for every engine.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from tensormask_export import contract
from tensormask_export.engine import plugin
from tensormask_export.engine.backends import (
    child_environment,
    find_backend,
    make_builder,
    make_logger,
    network_flags,
)
from tensormask_export.onnx_file import bodies
from tensormask_export.runtimes.engine import load_plan, make_context
from tensormask_export.shapes import Array

PAD_VALUE = -6.0
WINDOWS = 100
Case = tuple[int, int, int, int, int]  # lam, V, U, H, W


def node_inputs(op: str, case: Case, dtype: str) -> dict[str, Array]:
    """x (2, V, U, H, W), and index (K, 3) for windows: the same numbers in every call."""
    lam, v, u, height, width = case
    random = np.random.default_rng(0)
    x = random.normal(scale=3, size=(2, v, u, height, width)).astype(dtype)
    if op == contract.SWAP:
        return {"x": x}
    ends = (2, -(-height // lam), -(-width // lam))
    return {"x": x, "index": random.integers(0, ends, (WINDOWS, 3))}


def node_engine(folder: Path, op: str, case: Case, dtype: str) -> Path:
    """The plan of one node, built by a child."""
    path = folder / f"{op}-{'-'.join(map(str, case))}-{dtype}.onnx"
    write_node(path, op, case[0], node_inputs(op, case, dtype))
    with child_environment(find_backend()) as environment:
        words = [sys.executable, __file__, str(path)]
        child = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr[-1500:]
    return path.with_suffix(".plan")


def write_node(path: Path, op: str, lam: int, inputs: dict[str, Array]) -> None:
    """An ONNX file of one node with its function body."""
    import onnx
    from onnx import helper

    kinds = {name: helper.np_dtype_to_tensor_dtype(a.dtype) for name, a in inputs.items()}
    values = [
        helper.make_tensor_value_info(name, kinds[name], array.shape)
        for name, array in inputs.items()
    ]
    attributes = {contract.LAM: lam, contract.PAD_VALUE: PAD_VALUE}
    attributes |= contract.PLUGIN_ATTRIBUTES
    node = helper.make_node(op, list(inputs), ["out"], domain=contract.DOMAIN, **attributes)
    rank = 3 if op == contract.SWAP_WINDOWS else 5
    out = helper.make_tensor_value_info("out", kinds["x"], [None] * rank)
    opsets = {"": contract.OPSET, contract.DOMAIN: contract.DOMAIN_VERSION}
    model = helper.make_model(
        helper.make_graph([node], "node", values, [out]),
        functions=bodies.functions({op}),
        opset_imports=[helper.make_opsetid(*opset) for opset in opsets.items()],
        ir_version=10,
    )
    onnx.save(model, path)


def build_node(path: Path) -> None:
    """In the child: an error unless the node became a plugin layer."""
    trt = find_backend().module
    logger = make_logger(trt)
    builder = make_builder(trt, logger)
    plugin.load(trt, "python")
    network = builder.create_network(network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        raise SystemExit(parser.get_error(0).desc())
    layers = [network.get_layer(i).type.name for i in range(network.num_layers)]
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    if plan is None or "PLUGIN_V3" not in layers:
        raise SystemExit(f"layers {layers}; {logger.errors}")
    path.with_suffix(".plan").write_bytes(plan)


def run_node(path: Path, inputs: dict[str, Array], shape: tuple[int, ...]) -> Array:
    """The output of a one-node engine."""
    trt = find_backend().module
    logger = make_logger(trt)
    plugin.load(trt, "python")
    engine = load_plan(trt.Runtime(logger), path.read_bytes(), logger)
    context = make_context(trt, engine)
    tensors = {name: torch.from_numpy(array).cuda() for name, array in inputs.items()}
    tensors["out"] = torch.zeros(shape, dtype=tensors["x"].dtype, device="cuda")
    for name, tensor in tensors.items():
        context.set_tensor_address(name, tensor.data_ptr())
    stream = torch.cuda.Stream()  # TensorRT wants another than the default one
    torch.cuda.synchronize()
    assert context.execute_async_v3(stream.cuda_stream), logger.errors
    stream.synchronize()
    return tensors["out"].cpu().numpy()


if __name__ == "__main__":
    build_node(Path(sys.argv[1]))
