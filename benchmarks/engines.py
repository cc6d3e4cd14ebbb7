"""Every kind of TensorRT-RTX engine, built without a GPU: sizes, seconds, layers.

    python benchmarks/engines.py --models tiny r50 --json benchmarks/results/engines-cpu.json
    python benchmarks/engines.py --models r50 --precisions float16 --json ...    some rows again

A row is a model, a graph (the masks of the kept windows, or dense), a precision, a form of our
ops and a set of shapes, built for four GPU generations at once; with --each, one row of each
model also for each alone. A row takes the place of an older one of its kind. `r50` is the
paper's R50-FPN with the golden weights, where TENSORMASK_SHARED has them, else with fresh ones.
With --library, or where one is built, the C++ plugin is a form too.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from device import MIB
from measure import facts, script_parser, table
from samples import GOLDEN, golden_model
from tensormask_export.contract import PRECISIONS
from tensormask_export.engine.build import build_engine
from tensormask_export.engine.plugin import find_library
from tensormask_export.onnx_file.write import export_onnx
from tensormask_export.shapes import Profile

from tensormask_edu.base.errors import InputError
from tensormask_edu.base.files import make_folder, read_json, write_json
from tensormask_edu.detector.model import TensorMask, build_model

TARGETS = (80, 86, 89, 120)
KEY = ("model", "graph", "precision", "plugin", "shapes", "sm")
# Option -> what there is
CHOICES = {
    "models": ("tiny", "r50"),
    "graphs": ("windows", "dense"),
    "precisions": PRECISIONS,
    "plugins": ("none", "python", "cpp"),
    "shapes": ("static", "dynamic"),
}
PROFILES = {
    ("tiny", "static"): Profile(*[(1, 3, 256, 256)] * 3),
    ("tiny", "dynamic"): Profile((1, 3, 128, 128), (1, 3, 256, 256), (4, 3, 512, 512)),
    ("r50", "static"): Profile(*[(1, 3, 800, 1344)] * 3),
    ("r50", "dynamic"): Profile((1, 3, 256, 256), (1, 3, 800, 1344), (2, 3, 1344, 1344)),
}
Row = dict[str, Any]


def model_of(name: str) -> tuple[TensorMask, str]:
    """The laptop model, as `make demo` trains it, or the paper's; and what its weights are."""
    torch.manual_seed(0)
    if name == "tiny":
        return build_model("tiny", num_classes=4), "fresh, seed 0"
    if GOLDEN.is_dir():
        return golden_model(GOLDEN), "golden"
    return build_model("r50_fpn_1x"), "fresh, seed 0"


def rows(args: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Export once per model, graph and precision; build everything else from that file."""
    for name, graph, precision in itertools.product(args.models, args.graphs, args.precisions):
        path = folder / f"{name}-{graph}-{precision}.onnx"
        shared = {"model": name, "graph": graph, "precision": precision}
        shared |= exported(path, name, graph, precision)
        kinds = [(*kind, TARGETS) for kind in itertools.product(args.plugins, args.shapes)]
        if args.each and (graph, precision) == ("windows", "float32"):
            kinds += [(args.plugins[0], "static", (sm,)) for sm in TARGETS]
        for plugin, shapes, sm in kinds:
            row = {**shared, "plugin": plugin, "shapes": shapes, "sm": list(sm)}
            yield row | built(path, row, args.library if plugin == "cpp" else None)


def exported(path: Path, name: str, graph: Any, precision: Any) -> Row:
    """The ONNX file, made once."""
    record = path.with_suffix(".json")
    if not record.is_file():
        model, weights = model_of(name)
        report = export_onnx(model.eval(), path, masks=graph, precision=precision)
        size = {"mib": round(report.bytes / MIB, 2), "seconds": report.seconds}
        write_json(record, {"weights": weights, "onnx": size | {"nodes": report.nodes}})
    return read_json(record)


def built(path: Path, row: Row, library: str | None) -> Row:
    """One build; what went wrong is a result too."""
    profile, engine = PROFILES[row["model"], row["shapes"]], path.with_suffix(".engine")
    options = {"profile": profile, "sm": row["sm"], "backend": "tensorrt_rtx"}
    options |= {"plugin": row["plugin"], "plugin_library": library}
    found: Row = {"profile": profile.text()}
    try:
        report = build_engine(path, engine, **options)
    except InputError as error:
        return found | {"error": str(error).replace(str(path.parent), "")}
    finally:
        engine.unlink(missing_ok=True)
    load = round(os.getloadavg()[0], 1)  # what else the machine did
    size = {"mib": round(report.bytes / MIB, 2), "seconds": report.seconds, "load": load}
    more = {name: getattr(report, name) for name in ("ops", "layers", "warnings")}
    return found | {"engine": size, **more}


def main() -> int:
    """Build what is asked for, row by row into the file; 0 if every engine was built."""
    parser = script_parser(__doc__)
    add = parser.add_argument
    for name, choices in CHOICES.items():
        add(f"--{name}", nargs="+", choices=choices, default=choices)
    add("--each", action="store_true", help="also an engine for each GPU generation alone")
    add("--folder", metavar="DIR", help="keep ONNX files here and use those that are")
    add("--library", metavar="FILE.so", help="the C++ plugin")
    parser.set_defaults(models=["tiny"], plugins=None)
    args = parser.parse_args()
    library, _ = find_library(args.library)
    args.library = library and str(library)
    if args.plugins is None:
        args.plugins = ["none", "python", *(["cpp"] if library else [])]
    target = Path(args.json) if args.json else None
    result = read_json(target) if target and target.is_file() else {"rows": []}
    result["machine"] = facts("tensorrt-rtx", "onnx", "onnxscript")
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        for row in rows(args, make_folder(args.folder or temporary)):
            key = {name: row[name] for name in KEY}
            shown = key | {"onnx MiB": row["onnx"]["mib"]}
            print(table([shown | row.get("engine", {"error": row.get("error")})]), flush=True)
            failed += "error" in row
            older = [old for old in result["rows"] if key != {name: old[name] for name in KEY}]
            result["rows"] = [*older, row]
            if target:
                write_json(target, result)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
