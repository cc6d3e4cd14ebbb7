"""Every kind of TensorRT-RTX engine, built without a GPU: sizes, seconds, layers.

    python benchmarks/engines.py --models tiny r50 --json benchmarks/results/engines-cpu.json
    python benchmarks/engines.py --models r50 --precisions float16 --json ...    a part; rows are merged

A row is a model, a graph (the masks of the kept windows, or dense), a precision, a form of our
ops and a set of shapes, built for four GPU generations at once; with --each, one row of each
model also for each alone. `r50` is the paper's R50-FPN with the golden weights, where
TENSORMASK_SHARED has them, else with fresh ones. With --library, or where one is built, the C++
plugin is a form too, and `plugin` in the result says which
TensorRT took it: that of this Python and those of --pythons, by tests/load_plugin.py.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from tensormask_export.contract import Precision
from tensormask_export.engine.build import build_engine
from tensormask_export.engine.plugin import find_library
from tensormask_export.onnx_file.graph import MaskMode
from tensormask_export.onnx_file.write import export_onnx
from tensormask_export.shapes import Profile

from tensormask_edu.base.errors import InputError
from tensormask_edu.base.files import make_folder, read_json, write_json
from tensormask_edu.detector.model import TensorMask, build_model
from tensormask_edu.weights.official import load_official

ROOT = Path(__file__).resolve().parents[1]
TARGETS = (80, 86, 89, 120)
MIB = 2**20
KEY = ("model", "graph", "precision", "plugin", "shapes", "sm")

PROFILES = {
    ("tiny", "static"): Profile(*[(1, 3, 256, 256)] * 3),
    ("tiny", "dynamic"): Profile((1, 3, 128, 128), (1, 3, 256, 256), (4, 3, 512, 512)),
    ("r50", "static"): Profile(*[(1, 3, 800, 1344)] * 3),
    ("r50", "dynamic"): Profile((1, 3, 256, 256), (1, 3, 800, 1344), (2, 3, 1344, 1344)),
}


def tiny() -> tuple[TensorMask, str]:
    """The laptop model, as `make demo` trains it."""
    torch.manual_seed(0)
    return build_model("tiny", num_classes=4), "fresh, seed 0"


def r50() -> tuple[TensorMask, str]:
    """The paper's model."""
    torch.manual_seed(0)
    model = build_model("r50_fpn_1x")
    golden = Path(os.environ.get("TENSORMASK_SHARED", ROOT.parent / "shared")) / "golden"
    if not golden.is_dir():
        return model, "fresh, seed 0"
    spec = importlib.util.spec_from_file_location("deterministic", golden / "deterministic.py")
    assert spec and spec.loader
    deterministic = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(deterministic)
    shapes = json.loads((golden / "checkpoint_names.json").read_text())
    arrays = {
        name: deterministic.deterministic_array(name, tuple(shape))
        for name, shape in shapes.items()
    }
    load_official(model, {name: torch.from_numpy(array) for name, array in arrays.items()})
    return model, "golden"


MODELS = {"tiny": tiny, "r50": r50}


def rows(args: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Export once per model, graph and precision; build everything else from that file."""
    for name, graph, precision in itertools.product(args.models, args.graphs, args.precisions):
        path = folder / f"{name}-{graph}-{precision}.onnx"
        shared = {
            "model": name,
            "graph": graph,
            "precision": precision,
            **exported(path, name, graph, precision),
        }
        for plugin, shapes in itertools.product(args.plugins, args.shapes):
            yield shared | built(path, name, plugin, shapes, TARGETS, args)
        if args.each and (graph, precision) == ("windows", "float32"):
            for sm in TARGETS:
                yield shared | built(path, name, args.plugins[0], "static", (sm,), args)


def exported(path: Path, name: str, graph: MaskMode, precision: Precision) -> dict[str, Any]:
    """The ONNX file, made once."""
    record = path.with_suffix(".json")
    if not record.is_file():
        model, weights = MODELS[name]()
        report = export_onnx(model.eval(), path, masks=graph, precision=precision)
        onnx = {
            "mib": round(report.bytes / MIB, 2),
            "seconds": report.seconds,
            "nodes": report.nodes,
        }
        write_json(record, {"weights": weights, "onnx": onnx})
    return read_json(record)


def built(
    path: Path,
    model: str,
    plugin: str,
    shapes: str,
    sm: tuple[int, ...],
    args: argparse.Namespace,
) -> dict[str, Any]:
    """One build; what went wrong is a result too."""
    row: dict[str, Any] = {"plugin": plugin, "shapes": shapes, "sm": list(sm)}
    profile, engine = PROFILES[model, shapes], path.with_suffix(".engine")
    row["profile"] = profile.text()
    library = args.library if plugin == "cpp" else None
    try:
        report = build_engine(
            path,
            engine,
            profile=profile,
            sm=sm,
            backend="tensorrt_rtx",
            plugin=plugin,
            plugin_library=library,
        )
    except InputError as error:
        return row | {"error": str(error).replace(str(path.parent), "")}
    finally:
        engine.unlink(missing_ok=True)
    load = round(os.getloadavg()[0], 1)  # what else the machine did
    row["engine"] = {
        "mib": round(report.bytes / MIB, 2),
        "seconds": report.seconds,
        "load": load,
    }
    return row | {"ops": report.ops, "layers": report.layers, "warnings": report.warnings}


def loaded(library: str, pythons: list[str]) -> list[str]:
    """The runtimes in which one library gave both plugins."""
    runtimes = []
    for python in [*pythons, sys.executable]:
        words = [python, str(ROOT / "tests" / "load_plugin.py"), library]
        answer = json.loads(
            subprocess.run(words, check=True, capture_output=True, text=True).stdout
        )
        if len(answer["created"]) == len(answer["refused"]) == 2:
            runtimes.append(answer["runtime"])
    return sorted(runtimes)


def merged(old: list[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows with `new` in place of an older one of the same key, or at the end."""
    key = [new[name] for name in KEY]
    return [row for row in old if [row[name] for name in KEY] != key] + [new]


def where() -> dict[str, Any]:
    """What built them, and when."""
    packages = ("tensormask-edu", "tensorrt-rtx", "torch", "onnx", "onnxscript")
    versions = {name: metadata.version(name) for name in packages}
    return {
        "date": date.today().isoformat(),
        "device": f"no GPU; {os.cpu_count()} cores, {platform.machine()}, {torch.get_num_threads()} threads",
        "python": platform.python_version(),
        **versions,
    }


def line(row: dict[str, Any]) -> str:
    """A row as text."""
    engine = row.get("engine")
    size = (
        f"{engine['mib']:8.1f} MiB {engine['seconds']:6.1f} s"
        if engine
        else f"ERROR {row['error']}"
    )
    names = " ".join(str(row[name]).ljust(8) for name in KEY[:5])
    return f"{names} {'+'.join(map(str, row['sm'])):14} onnx {row['onnx']['mib']:7.1f} MiB  engine {size}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["tiny"])
    parser.add_argument(
        "--graphs", nargs="+", choices=("windows", "dense"), default=["windows", "dense"]
    )
    precisions = ("float32", "float16")
    parser.add_argument("--precisions", nargs="+", choices=precisions, default=list(precisions))
    parser.add_argument("--plugins", nargs="+", choices=("none", "python", "cpp"))
    parser.add_argument(
        "--shapes", nargs="+", choices=("static", "dynamic"), default=["static", "dynamic"]
    )
    parser.add_argument(
        "--each", action="store_true", help="also an engine for each GPU generation alone"
    )
    parser.add_argument(
        "--folder", metavar="DIR", help="keep ONNX files here and use those that are"
    )
    parser.add_argument("--library", metavar="FILE.so", help="the C++ plugin")
    parser.add_argument(
        "--pythons", nargs="+", default=[], metavar="PYTHON", help="with another TensorRT"
    )
    parser.add_argument("--json", metavar="FILE", help="write or extend this file")
    args = parser.parse_args()
    found, _ = find_library(args.library)
    args.library = found and str(found)
    args.plugins = args.plugins or ["none", "python", *(["cpp"] if found else [])]
    target = Path(args.json) if args.json else None
    result = read_json(target) if target and target.is_file() else {"rows": []}
    result["machine"] = where()
    if found:
        result["plugin"] = {"both_plugins_created_in": loaded(args.library, args.pythons)}
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        for row in rows(args, make_folder(args.folder or temporary)):
            print(line(row), flush=True)
            failed += "error" in row
            result["rows"] = merged(result["rows"], row)
            if target:
                write_json(target, result)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
