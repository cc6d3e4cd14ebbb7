"""The exported file on real pictures, on a CPU: detections one to one, AP, size, memory; one
JSON file.

    python benchmarks/deploy.py r50 GOLDEN COCO          the paper's R50 model with the golden weights
    python benchmarks/deploy.py trained CHECKPOINT COCO  a trained checkpoint, on a COCO folder
    python benchmarks/deploy.py memory MODEL.onnx ...    peak memory at 800 x 1344

Each adds its part to benchmarks/results/deploy-cpu.json. GOLDEN is the folder with
`deterministic.py` and `checkpoint_names.json`; its weights are random but fixed, so the model
finds a hundred things in any picture.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from tensormask_export.contract import PRECISIONS, Precision

from tensormask_edu.base.files import read_json, write_json
from tensormask_edu.config import InputConfig
from tensormask_edu.detector.model import build_model
from tensormask_edu.weights.checkpoint import save_checkpoint
from tensormask_edu.weights.official import load_official

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "deploy-cpu.json"
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")
# The official test size
SHORT_PX, LONG_PX = 800, 1333
MEASURE = """
import resource, sys
import numpy as np
import onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
images = np.random.default_rng(0).random((1, 3, 800, 1344), np.float32)
session.run(None, {"images": images})
print(loaded, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def golden_checkpoint(golden: Path, folder: Path) -> None:
    """The R50 model with the golden weights as a checkpoint."""
    spec = importlib.util.spec_from_file_location("deterministic", golden / "deterministic.py")
    assert spec is not None and spec.loader is not None
    deterministic = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(deterministic)
    names = read_json(golden / "checkpoint_names.json")
    state = {
        name: torch.from_numpy(deterministic.deterministic_array(name, tuple(shape)))
        for name, shape in names.items()
    }
    model = build_model("r50_fpn_1x")
    load_official(model, state)
    save_checkpoint(folder, model, InputConfig(short_side_px=SHORT_PX, long_side_px=LONG_PX))


def export_and_verify(
    checkpoint: Path, coco: Path, split: str, limit: int | None, precision: Precision
) -> dict[str, Any]:
    """Export unless the file is there, verify on a COCO folder; what is worth keeping of both
    reports."""
    from tensormask_export.onnx_file.write import export_onnx

    from tensormask_edu.weights.checkpoint import load_checkpoint

    path = checkpoint.with_name(f"{checkpoint.name}-{precision}.onnx")
    if not path.is_file():
        model, input_config = load_checkpoint(checkpoint)
        report = export_onnx(model, path, precision=precision, input_config=input_config)
        write_json(path.with_suffix(".json"), report.to_json())
    exported = read_json(path.with_suffix(".json"))
    del exported["path"]  # of this machine
    return exported | {"verified": [verified(path, checkpoint, coco, split, limit)]}


def verified(
    path: Path, checkpoint: Path, coco: Path, split: str, limit: int | None
) -> dict[str, Any]:
    """The report of `verify` on a COCO folder in ONNX Runtime, one line per kind."""
    from tensormask_export.verify.compare import worst
    from tensormask_export.verify.report import verify

    report = verify(
        path,
        checkpoint,
        sizes=(),
        coco=coco,
        split=split,
        limit=limit,
        runtimes=["onnxruntime"],
    )
    print(report.table())
    answer = report.to_json()
    pictures = [m for m in report.matches if not m.input.startswith("sample")]
    return {
        "split": split,
        "pictures": len(pictures),
        "detections": vars(worst(pictures)),
        "raw_max_abs": report.max_abs,
        "scores": answer["scores"],
        "passed": report.passed,
        "tolerances": answer["tolerances"],
        "seconds": report.seconds,
    }


def memory(path: Path) -> dict[str, Any]:
    """Peak memory of one run of ONNX Runtime on one 800 x 1344 picture, in a process of its
    own."""
    child = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True
    )
    loaded, peak = map(int, child.stdout.split())
    return {
        "file_bytes": path.stat().st_size,
        "loaded_mb": round(loaded / 1024),
        "peak_mb": round(peak / 1024),
    }


def keep(part: str, value: dict[str, Any]) -> None:
    """Put a part into the results; several runs of `verify` add up."""
    results = read_json(RESULTS) if RESULTS.is_file() else {}
    before = results.get(part, {})
    if "verified" in value and before.get("sha256") == value["sha256"]:
        value = value | {"verified": [*before["verified"], *value["verified"]]}
    results[part] = value
    results["machine"] = {
        "date": f"{datetime.date.today()}",
        "device": f"CPU, {torch.get_num_threads()} thread, {platform.machine()}",
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
    }
    write_json(RESULTS, results)
    print(json.dumps(value, indent=2))


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("r50", "trained", "memory"))
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument(
        "--folder", type=Path, default=Path("outputs/deploy"), help="for checkpoint and ONNX"
    )
    parser.add_argument("--split", default="val")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    args = parser.parse_args()
    if args.part == "memory":
        keep("memory at 800 x 1344", {path.stem: memory(path) for path in args.paths})
        return
    first, coco = args.paths
    checkpoint = first
    if args.part == "r50":
        checkpoint = args.folder / "r50"
        if not checkpoint.is_dir():
            golden_checkpoint(first, checkpoint)
    part = args.part if args.precision == "float32" else f"{args.part}, {args.precision}"
    keep(part, export_and_verify(checkpoint, coco, args.split, args.limit, args.precision))


if __name__ == "__main__":
    main()
