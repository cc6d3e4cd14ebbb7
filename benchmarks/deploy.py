"""The exported file on real pictures, on a CPU: detections one to one, AP, size, memory.

    python benchmarks/deploy.py r50 GOLDEN COCO          R50 with the golden weights
    python benchmarks/deploy.py trained CHECKPOINT COCO  a trained checkpoint, on a COCO folder
    python benchmarks/deploy.py memory MODEL.onnx ...    peak memory at 800 x 1344

Each adds its part to benchmarks/results/deploy-cpu.json. GOLDEN is the folder with
`deterministic.py` and `checkpoint_names.json`; its weights are random but fixed, so the model
finds a hundred things in any picture.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from measure import RESULTS, facts, script_parser
from samples import golden_model
from tensormask_export.contract import PRECISIONS, Precision
from tensormask_export.onnx_file.write import export_onnx
from tensormask_export.verify.compare import worst
from tensormask_export.verify.report import verify

from tensormask_edu.base.files import read_json, write_json
from tensormask_edu.config import InputConfig
from tensormask_edu.weights.checkpoint import load_checkpoint, save_checkpoint

KEPT = ("scores", "passed", "tolerances", "seconds")  # of the report of `verify`
OFFICIAL = InputConfig(short_side_px=800, long_side_px=1333)
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


def exported(checkpoint: Path, precision: Precision) -> tuple[Path, dict[str, Any]]:
    """The ONNX file beside the checkpoint, made once, and its report."""
    path = checkpoint.with_name(f"{checkpoint.name}-{precision}.onnx")
    if not path.is_file():
        model, input_config = load_checkpoint(checkpoint)
        report = export_onnx(model, path, precision=precision, input_config=input_config)
        write_json(path.with_suffix(".json"), report.to_json())
    kept = read_json(path.with_suffix(".json"))
    del kept["path"]  # of this machine
    return path, kept


def verified(path: Path, checkpoint: Path, coco: Path, **which: Any) -> dict[str, Any]:
    """The report of `verify` on a COCO folder in ONNX Runtime, one line per kind."""
    report = verify(path, checkpoint, sizes=(), coco=coco, runtimes=["onnxruntime"], **which)
    print(report.table())
    answer = report.to_json()
    pictures = [m for m in report.matches if not m.input.startswith("sample")]
    found = {"split": which["split"], "pictures": len(pictures)}
    found |= {"detections": vars(worst(pictures)), "raw_max_abs": report.max_abs}
    return found | {name: answer[name] for name in KEPT}


def memory(path: Path) -> dict[str, Any]:
    """Peak memory of ONNX Runtime on one 800 x 1344 picture, in a process of its own."""
    words = [sys.executable, "-c", MEASURE, str(path)]
    child = subprocess.run(words, capture_output=True, text=True, check=True)
    loaded_mb, peak_mb = (round(int(word) / 1024) for word in child.stdout.split())
    return {"file_bytes": path.stat().st_size, "loaded_mb": loaded_mb, "peak_mb": peak_mb}


def keep(target: Path, part: str, value: dict[str, Any]) -> None:
    """Put a part into the results; several runs of `verify` add up."""
    results = read_json(target) if target.is_file() else {}
    before = results.get(part, {})
    if "verified" in value and before.get("sha256") == value["sha256"]:
        value = value | {"verified": [*before["verified"], *value["verified"]]}
    results[part] = value
    results["machine"] = facts("onnx", "onnxscript", "onnxruntime")
    write_json(target, results)
    print(json.dumps(value, indent=2))


def main() -> None:
    """Run one part."""
    parser = script_parser(__doc__)
    parser.set_defaults(json=RESULTS / "deploy-cpu.json")
    add, folder = parser.add_argument, Path("outputs/deploy")
    add("part", choices=("r50", "trained", "memory"))
    add("paths", nargs="+", type=Path)
    add("--folder", type=Path, default=folder, help="for checkpoint and ONNX")
    add("--split", default="val")
    add("--limit", type=int)
    add("--precision", choices=PRECISIONS, default="float32")
    args = parser.parse_args()
    if args.part == "memory":
        part, value = "memory at 800 x 1344", {path.stem: memory(path) for path in args.paths}
    else:
        part, (checkpoint, coco) = args.part, args.paths
        if part == "r50":
            golden, checkpoint = checkpoint, args.folder / "r50"
            if not checkpoint.is_dir():
                save_checkpoint(checkpoint, golden_model(golden), OFFICIAL)
        if args.precision != "float32":
            part = f"{part}, {args.precision}"
        path, value = exported(checkpoint, args.precision)
        which = {"split": args.split, "limit": args.limit}
        value["verified"] = [verified(path, checkpoint, coco, **which)]
    keep(Path(args.json), part, value)


if __name__ == "__main__":
    main()
