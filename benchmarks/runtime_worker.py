"""One runtime computes an ONNX file: `runtimes.py` starts this in an environment of its own.

    python benchmarks/runtime_worker.py RUNTIME MODEL.onnx WITH_RAW.onnx FOLDER RUNS

It knows nothing of this project: what any program must do to use the file. FOLDER holds
pictures, NAME.npy (1, 3, H, W); what comes out of each goes to NAME/OUTPUT.npy. Prints one line
of JSON: the version, the median CPU milliseconds of a run on the first picture, one thread.
`docs/explorer/tests/runtime.mjs` is the same for a browser.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[Any], dict[str, Any]]  # images (N, 3, H, W) -> outputs by name
WARM = 2  # runs that make buffers, not timed


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
    name, model, with_raw, folder, runs = sys.argv[1:]
    pictures = sorted(Path(folder).glob("*.npy"))
    try:
        version, run = RUNTIMES[name](with_raw)
    except Exception as error:  # every runtime has classes of its own
        print(json.dumps({"error": " ".join(str(error).split())[:400]}))
        return
    for path in pictures:
        place = path.with_suffix("")
        place.mkdir()
        for output, values in run(np.load(path)).items():
            np.save(place / output, values)
    first, spent = np.load(pictures[0]), []
    _, run = RUNTIMES[name](model)
    for turn in range(WARM + int(runs)):
        start = time.process_time()
        run(first)
        if turn >= WARM:
            spent.append(1e3 * (time.process_time() - start))
    cpu_ms = round(statistics.median(spent), 2) if spent else None
    print(json.dumps({"version": version, "cpu_ms": cpu_ms}))


if __name__ == "__main__":
    main()
