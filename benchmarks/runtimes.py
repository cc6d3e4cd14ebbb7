"""One exported file in every runtime that takes it: the same numbers? how many CPU ms?

    python benchmarks/runtimes.py --models shapes cells --environments DIR \\
        --json benchmarks/results/runtimes-cpu.json

A row is a model, a runtime of one version and a form of the file: as `tensormask-export onnx`
writes it, `--portable`, or the first after onnxslim or onnxsim. Each version has a virtual
environment in DIR, made with pip where it is missing, in which `runtime_worker.py` computes
pictures of --size px: --images, cut to that size, or drawn ones. PyTorch says what is right.
Raw outputs may differ by 1e-4 of their largest number, detections must agree one to one within
the limits of `tensormask-export verify`. Without --environments what is installed here runs.
A row takes the place of an older one of its kind: --models, --runtimes and --forms say which.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from measure import ROOT, facts, script_parser, table
from tensormask_export.contract import CONVERGED
from tensormask_export.onnx_file.read import expose, raw_names, read_metadata, read_onnx
from tensormask_export.onnx_file.write import export_onnx
from tensormask_export.runtimes.detections import detections
from tensormask_export.runtimes.eager import EagerSession
from tensormask_export.verify.compare import LIMITS, match, worst

from tensormask_edu.base.files import make_folder, read_json, write_json
from tensormask_edu.data.pictures import read_image
from tensormask_edu.data.shapes import write_shapes
from tensormask_edu.weights.checkpoint import load_checkpoint

RAW_LIMIT = 1e-4  # of a raw output's largest number: float32 sums in another order
PACKAGES = {  # runtime -> what pip installs for it, the newest first
    "onnxruntime": (
        ["onnxruntime"],
        ["onnxruntime==1.23.2"],
        ["onnxruntime==1.20.1"],
        ["onnxruntime==1.17.3", "numpy<2"],
    ),
    "openvino": (["openvino"],),
    "onnx.reference": (["onnx"],),
}
TOOLS = ["onnx", "onnxslim", "onnxsim"]
KEY = ("model", "runtime", "asked", "file")
FORMS = ("as written", "portable", "onnxslim", "onnxsim")
Row = dict[str, Any]


def python_of(folder: Path | None, packages: list[str]) -> str:
    """The interpreter of an environment with these packages; made if it is not there."""
    if folder is None:
        return sys.executable
    place = folder / "-".join(packages).replace("<", "").replace("=", "")
    python = place / "bin" / "python"
    if not (place / "done").is_file():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "numpy", *packages], check=True)
        (place / "done").touch()
    return str(python)


def forms(
    name: str, asked: list[str], folder: Path, environments: Path | None
) -> Iterator[tuple[str, Path | str]]:
    """The file in each form, or the reason why there is none."""
    model, input_config = load_checkpoint(name)
    written, inlined = folder / "written.onnx", folder / "portable.onnx"
    export_onnx(model, written, input_config=input_config)
    yield "as written", written
    if "portable" in asked:
        export_onnx(model, inlined, input_config=input_config, portable=True)
        yield "portable", inlined
    for tool in (form for form in FORMS[2:] if form in asked):
        tools = python_of(environments, TOOLS)
        made = folder / f"{tool}.onnx"
        words = [tools, "-m", tool, written, made]
        run = subprocess.run(words, capture_output=True, text=True)
        yield tool, made if made.is_file() else last_line(run.stderr)


def last_line(text: str) -> str:
    """Why a program ended: its last words."""
    return (text.strip().splitlines() or ["no reason given"])[-1].strip()[:300]


def pictures(files: list[str], size_px: int, folder: Path) -> Any:
    """(N, 3, size, size) float32 in [0, 1]: the top left of files, or drawn shapes."""
    if not files:
        write_shapes(folder / "shapes", train=1, val=4, size_px=size_px)
        files = sorted(map(str, (folder / "shapes" / "images").glob("val_*.png")))
    cut = [read_image(file)[:, :size_px, :size_px] for file in files]
    return np.stack(cut).astype(np.float32) / 255


def compared(pytorch: EagerSession, images: Any, found: Row) -> Row:
    """How far a runtime's outputs are from PyTorch's, and whether that is equal."""
    sizes = [(images.shape[-2], images.shape[-1])] * len(images)
    raw, right = pytorch.raw_and_detections(list(images), sizes)
    given = detections(found, pytorch.metadata, sizes, sizes)
    converged = found[CONVERGED].tolist()
    limits = LIMITS["float32"]
    rows = [
        match(("", str(number)), *each, limits)
        for number, each in enumerate(zip(right, given, converged, strict=True))
    ]
    all_of_them = worst(rows)
    raw_rel = max(float(abs(found[n] - v).max() / abs(v).max()) for n, v in raw.items())
    return {
        "same": raw_rel <= RAW_LIMIT and all(row.passed for row in rows),
        "raw_rel": raw_rel,
        "detections": sum(row.expected for row in rows),
        "matched": sum(row.agreed for row in rows),
        "box_px": all_of_them.box_px,
        "score": all_of_them.score,
        "mask_iou": all_of_them.mask_iou,
    }


def computed(runtime: str, python: str, path: Path, images: Any, runs: int) -> Row:
    """A row's figures, and the outputs under "found"; or the reason under "error"."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        proto = read_onnx(path)
        onnx.save(expose(proto, raw_names(proto)), folder / "raw.onnx")
        np.save(folder / "images.npy", images)
        files = [path, folder / "raw.onnx", folder / "images.npy", folder / "out.npz"]
        worker = ROOT / "benchmarks" / "runtime_worker.py"
        words = [python, worker, runtime, *files, str(runs)]
        environment = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
        run = subprocess.run(words, capture_output=True, text=True, env=environment)
        if run.returncode:
            return {"same": False, "error": last_line(run.stderr)}
        told = json.loads(run.stdout.splitlines()[-1])
        if "error" in told:
            return {"same": False, "error": told["error"].replace(f"{folder}/", "")}
        with np.load(folder / "out.npz") as stored:
            return told | {"found": dict(stored)}


def rows(args: argparse.Namespace, name: str, folder: Path) -> Iterator[Row]:
    """Every form in the newest version of each runtime, the first two in the older ones."""
    environments = Path(args.environments).resolve() if args.environments else None
    images = pictures(args.images, args.size, folder)
    made = dict(forms(name, args.forms, folder, environments))
    model, _ = load_checkpoint(name)
    metadata = read_metadata(read_onnx(made["as written"]), made["as written"])
    pytorch = EagerSession(model, metadata)
    for runtime in args.runtimes:
        for number, packages in enumerate(PACKAGES[runtime]):
            if number and environments is None:  # only one version is here
                break
            python = python_of(environments, packages)
            for form, path in made.items():
                if form not in args.forms or (form in FORMS[2:] and number):
                    continue
                row: Row = {"model": name, "runtime": runtime, "asked": packages[0]}
                row |= {"file": form, "px": args.size}
                if isinstance(path, str):
                    yield row | {"same": False, "error": path}
                    continue
                row |= computed(runtime, python, path, images, args.repeats)
                found = row.pop("found", None)
                load = {"load": round(os.getloadavg()[0], 1)}  # what else the machine did
                yield row | (compared(pytorch, images, found) if found else {}) | load


def main() -> int:
    """Every row, printed and written as it comes; 0 if no runtime gave other numbers."""
    parser = script_parser(__doc__)
    add = parser.add_argument
    add("--models", nargs="+", default=["shapes"], help="checkpoints, folders or names")
    add("--runtimes", nargs="+", choices=list(PACKAGES), default=list(PACKAGES))
    add("--forms", nargs="+", choices=FORMS, default=list(FORMS), help="of the file")
    add("--environments", metavar="DIR", help="with each version in one of its own")
    add(
        "--images", nargs="+", default=[], metavar="FILE", help="pictures of at least --size px"
    )
    add("--size", type=int, default=128, help="px of a side")
    add("--repeats", type=int, default=20, help="timed runs")
    args = parser.parse_args()
    target = Path(args.json) if args.json else None
    result = read_json(target) if target and target.is_file() else {"rows": []}
    result["machine"] = facts("onnx")
    for name in args.models:
        with tempfile.TemporaryDirectory() as temporary:
            for row in rows(args, name, make_folder(temporary)):
                print(table([row]), flush=True)
                key = [row[name] for name in KEY]
                older = [old for old in result["rows"] if key != [old[name] for name in KEY]]
                result["rows"] = [*older, row]
                if target:
                    write_json(target, result)
    return 0 if all(row["same"] or "error" in row for row in result["rows"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
