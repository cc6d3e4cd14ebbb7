"""How much of a file's time is spent behind the network: on candidates, NMS and masks?

    python benchmarks/behind.py --models shapes cells --sizes 128 256 \\
        --json benchmarks/results/behind-cpu.json
    python benchmarks/behind.py --models shapes --before older.onnx

A row is a model at a size: CPU milliseconds of one picture, one thread, the median; all take
turns, picture by picture. `file` is ONNX Runtime on the exported file, `network` on the same
file cut where the network ends, at logits, deltas and aligned masks; `behind` is the share of
the rest. `eager` is PyTorch, masks pasted. `before` is a file of the same checkpoint that an
older version exported: its detections must be the same, one to one, within the limits of
`verify`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from measure import facts, script_parser, table
from tensormask_export import contract
from tensormask_export.onnx_file.read import raw_names, read_metadata, read_onnx
from tensormask_export.onnx_file.write import export_onnx
from tensormask_export.runtimes.detections import detections
from tensormask_export.verify.compare import LIMITS, match, worst

from tensormask_edu.base.files import make_folder, read_json, write_json
from tensormask_edu.data.pictures import read_image
from tensormask_edu.data.shapes import write_shapes
from tensormask_edu.weights.checkpoint import load_checkpoint

SWAPS = (contract.SWAP, contract.SWAP_WINDOWS)
KEY = ("model", "px")
Call = Callable[[Any], Any]
Row = dict[str, Any]


def network_of(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that ends where the network does: at logits, deltas and aligned masks."""
    aligned = [node.input[0] for node in proto.graph.node if node.op_type in SWAPS]
    ends = list(dict.fromkeys([*raw_names(proto), *aligned]))
    cut = onnx.ModelProto()
    cut.CopyFrom(proto)
    needed, kept = set(ends), []
    for node in reversed(proto.graph.node):  # producers come first
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    del cut.graph.node[:], cut.graph.output[:]
    cut.graph.node.extend(reversed(kept))
    cut.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in ends)
    return cut


def session(model: bytes) -> ort.InferenceSession:
    """ONNX Runtime with one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def cpu_ms(calls: dict[str, Call], images: Any, repeats: int) -> dict[str, float]:
    """Median CPU milliseconds of each call on one picture; all take turns."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for image in images:
            for name, call in calls.items():
                start = time.process_time()
                call(image[None])
                if turn:  # the first round makes buffers
                    spent[name].append(1e3 * (time.process_time() - start))
    return {name: round(statistics.median(times), 2) for name, times in spent.items()}


def compared(before: Any, after: Any, images: Any, metadata: Any) -> Row:
    """Detections of two sessions: how many agree one to one, how far apart they are."""
    sizes = [(images.shape[-2], images.shape[-1])] * len(images)
    named = [
        dict(zip(contract.OUTPUTS, each.run(contract.OUTPUTS, {"images": images}), strict=True))
        for each in (before, after)
    ]
    old, new = (detections(outputs, metadata, sizes, sizes) for outputs in named)
    converged = named[1][contract.CONVERGED].tolist()
    rows = [
        match(("", str(number)), *each, LIMITS["float32"])
        for number, each in enumerate(zip(old, new, converged, strict=True))
    ]
    last = worst(rows)
    figures = {"box_px": last.box_px, "score": last.score, "mask_iou": last.mask_iou}
    counts = {
        "detections": sum(row.expected for row in rows),
        "matched": sum(row.agreed for row in rows),
    }
    return {"same": all(row.passed for row in rows), **counts, **figures}


def pictures(files: list[str], size_px: int, folder: Path) -> Any:
    """(N, 3, size, size) float32 in [0, 1]: the top left of files, or drawn shapes."""
    if not files:
        write_shapes(folder / "shapes", train=1, val=4, size_px=size_px, progress=False)
        files = sorted(map(str, (folder / "shapes" / "images").glob("val_*.png")))
    cut = [read_image(file)[:, :size_px, :size_px] for file in files]
    return np.stack(cut).astype(np.float32) / 255


def measured(args: argparse.Namespace, name: str, older: Path | None, size_px: int) -> Row:
    """One row."""
    model, input_config = load_checkpoint(name)
    model.eval()
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_folder(temporary)
        images = pictures(args.images, size_px, folder)
        path = folder / "file.onnx"
        export_onnx(model, path, input_config=input_config)
        proto = read_onnx(path)
    file, network = (session(p.SerializeToString()) for p in (proto, network_of(proto)))

    @torch.inference_mode()
    def eager(image: Any) -> Any:
        return model(list(torch.from_numpy(image)))

    calls: dict[str, Call] = {
        "file": lambda image: file.run(None, {"images": image}),
        "network": lambda image: network.run(None, {"images": image}),
        "eager": eager,
    }
    row: Row = {"model": Path(name).name, "px": size_px}
    if older:
        before = session(older.read_bytes())
        calls["before"] = lambda image: before.run(None, {"images": image})
        row |= compared(before, file, images, read_metadata(proto, path))
    spent = cpu_ms(calls, images, args.repeats)
    row |= {f"{call}_cpu_ms": ms for call, ms in spent.items()}
    row["behind"] = round(1 - spent["network"] / spent["file"], 3)
    against = [call for call in ("before", "eager") if call in spent]
    row |= {f"of_{call}": round(spent["file"] / spent[call], 3) for call in against}
    return row | {"load": round(os.getloadavg()[0], 1)}  # what else the machine did


def main() -> int:
    """Every row, printed and written as it comes; 0 if no file gave other detections."""
    parser = script_parser(__doc__)
    add = parser.add_argument
    add("--models", nargs="+", default=["shapes"], help="checkpoints, folders or names")
    add("--before", nargs="+", default=[], metavar="FILE", help="one older file per model")
    add("--sizes", nargs="+", type=int, default=[128], help="px of a side")
    add("--images", nargs="+", default=[], metavar="FILE", help="pictures of that size or more")
    add("--repeats", type=int, default=10, help="rounds over all pictures")
    args = parser.parse_args()
    if args.before and len(args.before) != len(args.models):
        parser.error("--before: one file per model")
    torch.set_num_threads(1)
    target = Path(args.json) if args.json else None
    result = read_json(target) if target and target.is_file() else {"rows": []}
    result["machine"] = facts("onnx", "onnxruntime")
    for number, name in enumerate(args.models):
        older = Path(args.before[number]) if args.before else None
        for size_px in args.sizes:
            row = measured(args, name, older, size_px)
            print(table([row]), flush=True)
            key = [row[word] for word in KEY]
            others = [old for old in result["rows"] if key != [old[word] for word in KEY]]
            result["rows"] = [*others, row]
            if target:
                write_json(target, result)
    return 0 if all(row.get("same", True) for row in result["rows"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
