"""One runtime computes an ONNX file: `runtimes.py` starts this in an environment of its own.

    python benchmarks/runtime_worker.py RUNTIME MODEL.onnx WITH_RAW.onnx IMAGES.npy OUT.npz RUNS

It knows nothing of this project: what any program must do to use the file. Prints one line of
JSON: the version, the median CPU milliseconds of a run on one picture, with one thread.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Run = Callable[[Any], dict[str, Any]]  # images (N, 3, H, W) -> outputs by name


def onnxruntime(path: str) -> tuple[str, Run]:
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images: Any) -> dict[str, Any]:
        return dict(zip(names, session.run(names, {"images": images}), strict=True))

    return runtime.__version__, run


def openvino(path: str) -> tuple[str, Run]:
    import openvino as runtime

    # without the hint it computes in bfloat16 on processors that have it
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = runtime.Core().compile_model(path, "CPU", settings)

    def run(images: Any) -> dict[str, Any]:
        found = compiled({"images": images})
        return {name: v.copy() for port, v in found.items() for name in port.names}

    return runtime.__version__.split("-")[0], run


def reference(path: str) -> tuple[str, Run]:
    import onnx
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(path)
    names = evaluator.output_names

    def run(images: Any) -> dict[str, Any]:
        return dict(zip(names, evaluator.run(None, {"images": images}), strict=True))

    return onnx.__version__, run


RUNTIMES = {"onnxruntime": onnxruntime, "openvino": openvino, "onnx.reference": reference}


def main() -> None:
    """Compute, store, time, print."""
    name, model, with_raw, pictures, target, runs = sys.argv[1:]
    images = np.load(pictures)  # (N, 3, H, W)
    try:
        version, run = RUNTIMES[name](with_raw)
    except Exception as error:  # every runtime has classes of its own
        print(json.dumps({"error": " ".join(str(error).split())[:400]}))
        return
    found = [run(image[None]) for image in images]
    np.savez(target, **{key: np.concatenate([o[key] for o in found]) for key in found[0]})
    spent = []
    _, run = RUNTIMES[name](model)
    for turn in range(int(runs) + 2):
        start = time.process_time()
        run(images[:1])
        if turn >= 2:  # the first ones make buffers
            spent.append(1e3 * (time.process_time() - start))
    cpu_ms = round(statistics.median(spent), 2) if spent else None
    print(json.dumps({"version": version, "cpu_ms": cpu_ms}))


if __name__ == "__main__":
    main()
