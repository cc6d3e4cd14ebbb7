"""The whole model, timed: training step and inference by stage, and what each factor is worth.

    python benchmarks/model.py --device cuda                 800 x 1344, the paper's size
    python benchmarks/model.py --height 320 --width 512      what two CPU cores do in minutes
    python benchmarks/model.py --memory                      bytes held, at 800 x 1344, batch 2

Parts (`--parts`): `stages` of inference and of a training step; `factors`, each alone, against
the official way (masks of all windows by a plain 16-tap kernel, float32, eager); `area`, the
cost against the picture's size; `scaling` from one process to two with the same total batch;
`memory`, what the mask operators hold, and what 500 detections add. Weights are random, spread
so that scores differ; every picture has 100 detections. TF32 is off unless `--tf32`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import factors
import measure
import torch
from device import MIB, Calls, Clock, Tensors
from samples import objects, pictures, spread_model, training_step
from torch import Tensor, nn

from tensormask_edu.base.files import write_json
from tensormask_edu.config import MODELS
from tensormask_edu.detector import inference
from tensormask_edu.detector.model import AT_ONCE, TensorMask
from tensormask_edu.detector.network import per_window
from tensormask_edu.detector.targets import build_targets
from tensormask_edu.geometry import Geometry, sizes_px
from tensormask_edu.ops import plain

Figures = dict[str, float]


# --- stages -----------------------------------------------------------------------------------


def stages(args: argparse.Namespace) -> Figures:
    """Milliseconds per picture: inference and a training step, by stage and whole."""
    model, clock = spread_model(args.preset, args.device), Clock(args.device, args.repeats)
    images = pictures(1, args.height, args.width, args.device)
    truth = objects(1, args.height, args.width, args.device)
    with torch.inference_mode():
        calls = inference_stages(model.eval(), images)
        found = {name: clock(call) for name, call in calls.items()}
    model.train()
    batch = model.batch(images)
    layout = model.config.geometry.layout(sizes_px(images), batch.device)
    with torch.no_grad():
        output = model.network(batch)
        losses = clock(
            lambda: model.losses(output, build_targets(truth, layout, model.config), layout)
        )
    found["training: network forward"] = clock(lambda: model.network(batch))
    found["training: targets and losses, forward"] = losses
    return found | {"training": clock(lambda: training_step(model, images, truth))}


def inference_stages(model: TensorMask, images: list[Tensor]) -> Calls:
    """Every stage with the input that the stage before it made."""
    net, config, batch = model.network, model.config, model.batch(images)
    features = net.backbone(batch)
    heads = [(net.class_predictor, net.class_tower), (net.box_predictor, net.box_tower)]
    maps = [net.mask_branch.tower(f) for f in features]
    output = net(batch)
    windows = config.geometry.layout(sizes_px(images), batch.device).windows
    both = (output.logits, output.deltas)
    rows = [per_window(maps, config.geometry.num_sizes)[0] for maps in both]
    kept = inference.keep(*rows, windows, config)
    chosen, number = windows[kept.window], torch.zeros_like(kept.window)
    masks = list(net.mask_logits(output, number, chosen, AT_ONCE))
    size = tuple(images[0].shape[-2:])
    calls: Calls = {
        "backbone": lambda: net.backbone(batch),
        "class and box towers": lambda: [p(t(f)) for p, t in heads for f in features],
        "mask tower": lambda: [net.mask_branch.tower(f) for f in features],
        "fuse": lambda: net.mask_branch.fused(maps, maps[0]),
        "select and NMS": lambda: inference.keep(*rows, windows, config),
        "masks": lambda: list(net.mask_logits(output, number, chosen, AT_ONCE)),
        "paste": lambda: inference.paste(masks, chosen.box_px, *size),
    }
    named = {f"inference: {name}": call for name, call in calls.items()}
    return named | {"inference": lambda: model(images)}


# --- factors ----------------------------------------------------------------------------------


def each_factor(args: argparse.Namespace) -> list[factors.Row]:
    """Each factor alone, then together (`factors.py`), beside the official way."""
    kernels = [k for k in args.dense if k == "ours" or plain.available(args.device)]
    gpu = args.device == "cuda"
    subject = factors.Subject(args.preset, args.device, (args.height, args.width), args.repeats)
    rows = []
    for way in factors.ways(kernels, args.precisions, 2 * args.compile, gpu):
        rows.append(subject.row(way))
        print(measure.table(rows[-1:]), flush=True)
    return rows


# --- area and processes -----------------------------------------------------------------------


def area(args: argparse.Namespace) -> list[Figures]:
    """Inference at a quarter, a half and the whole of the picture's area."""
    model, rows = spread_model(args.preset, args.device).eval(), []
    for share in (0.25, 0.5, 1.0):
        sides = (round(side * share**0.5 / 32) * 32 for side in (args.height, args.width))
        height, width = (max(32, side) for side in sides)
        call = partial(model, pictures(1, height, width, args.device))
        with torch.inference_mode():
            ms = Clock(args.device, args.repeats)(call)
        size = {"height": height, "width": width}
        rows.append({**size, "ms": ms, "ms_per_mpx": ms / (height * width / 1e6)})
    return rows


def scaling(args: argparse.Namespace) -> Figures:
    """Seconds per training step of two pictures in one process and in two; {} on one GPU."""
    if args.device == "cuda" and torch.cuda.device_count() < 2:
        return {}
    seconds, queue = {}, torch.multiprocessing.get_context("spawn").SimpleQueue()
    for processes in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            arguments = (processes, f"file://{folder}/meeting", args, queue)
            torch.multiprocessing.spawn(worker, arguments, nprocs=processes)
        seconds[f"seconds_{processes}"] = queue.get()
    return seconds | {"speedup": seconds["seconds_1"] / seconds["seconds_2"]}


def worker(rank: int, processes: int, where: str, args: Any, queue: Any) -> None:
    """One process of `scaling`; they meet at `where`."""
    torch.set_num_threads(max(1, args.threads))
    device, backend = "cpu", "gloo"
    if args.device == "cuda":
        device, backend = f"cuda:{rank}", "nccl"
        torch.cuda.set_device(rank)
    torch.distributed.init_process_group(backend, where, rank=rank, world_size=processes)
    model = nn.parallel.DistributedDataParallel(spread_model(args.preset, device).train())
    images = pictures(2 // processes, args.height, args.width, device)
    truth = objects(2 // processes, args.height, args.width, device)
    times = []
    for _ in range(args.repeats + 1):
        torch.distributed.barrier()
        start = time.perf_counter()
        training_step(model, images, truth)
        if args.device == "cuda":
            torch.cuda.synchronize()
        torch.distributed.barrier()
        times.append(time.perf_counter() - start)
    if rank == 0:
        queue.put(min(times[1:]))
    torch.distributed.destroy_process_group()


# --- memory -----------------------------------------------------------------------------------


def memory(args: argparse.Namespace, batch: int = 2) -> Figures:
    """MiB that the mask operators hold, beside the dense way's, and what pasting adds."""
    model = spread_model(args.preset, args.device)
    images = pictures(batch, args.height, args.width, args.device)
    truth = objects(batch, args.height, args.width, args.device)
    with Tensors() as training:
        training_step(model.train(), images, truth)
    with torch.inference_mode(), Tensors() as inferring:
        model.eval()(images)
    held = {"training": training, "inference": inferring}
    mib = {f"{name}_mib": seen.peak(seen.of_masks) / MIB for name, seen in held.items()}
    all_windows = batch * dense_mib(model.config.geometry, args.height, args.width)
    shares = {name.replace("mib", "share"): value / all_windows for name, value in mib.items()}
    return {"dense_mib": all_windows, **mib, **shares, **pasting(args)}


def dense_mib(geometry: Geometry, height: int, width: int) -> float:
    """Inputs and outputs of `swap_align2nat` over all levels and sizes, for one picture."""
    cells = [rows * columns for rows, columns in geometry.grid_sizes(height, width)]
    count = 0
    for level, own in enumerate(cells):
        finest = cells[0] if geometry.bipyramid else own
        for size_id, predicted in enumerate(geometry.shapes_bins):
            count += prod(predicted) * finest + prod(geometry.mask_bins(level, size_id)) * own
    return 4 * count / MIB


def pasting(args: argparse.Namespace, count: int = 500) -> Figures:
    """What evaluating and pasting `count` detections adds.

    Their windows are spread over all levels, or, the worst case, all of the largest size.
    """
    model = spread_model(args.preset, args.device, count).eval()
    geometry, found = model.config.geometry, {}
    batch = model.batch(pictures(1, args.height, args.width, args.device))
    windows = geometry.layout([(args.height, args.width)], args.device).windows
    with torch.inference_mode():
        output = model.network(batch)
    large = windows.size_id == geometry.num_sizes - 1
    levels = [torch.where((windows.level == k) & large)[0] for k in range(geometry.num_levels)]
    for name, some in {"spread": levels, "largest": levels[-1:]}.items():
        share = -(-count // len(some))
        picked = torch.cat([at[torch.randint(len(at), (share,))] for at in some])[:count]
        chosen, before = windows[picked], resident_mib(reset=True)
        with torch.inference_mode(), Tensors() as seen:
            masks = model.network.mask_logits(output, torch.zeros_like(picked), chosen, AT_ONCE)
            inference.paste(masks, chosen.box_px, args.height, args.width)
        found[f"paste_{count}_{name}_mib"] = seen.peak() / MIB
        if before is not None:
            found[f"paste_{count}_{name}_rss_mib"] = resident_mib() - before
    return found


def resident_mib(reset: bool = False) -> float | None:
    """The process's peak resident memory since the last reset; None but on Linux."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024


# --- command line -----------------------------------------------------------------------------

# In this order: memory is clean at first
PARTS = {
    "memory": memory, "stages": stages, "factors": each_factor, "area": area,
    "scaling": scaling,
}  # fmt: skip
USUAL = [part for part in PARTS if part != "memory"]


def main() -> int:
    """Measure what is asked for, print it, write it."""
    parser = measure.script_parser(__doc__, repeats=3)
    add = parser.add_argument
    add("--preset", default="r50_fpn_1x", choices=MODELS)
    add("--height", type=int, default=800)
    add("--width", type=int, default=1344)
    add("--parts", nargs="+", default=USUAL, choices=PARTS)
    alone = "that part alone"
    add("--memory", action="store_const", const=["memory"], dest="parts", help=alone)
    add(
        "--dense", nargs="*", choices=factors.DENSE, default=factors.DENSE, help="which kernels"
    )
    add("--compile", action=argparse.BooleanOptionalAction, default=True)
    add("--precisions", nargs="*", choices=("bfloat16", "float16"))
    add("--tf32", action="store_true", help="allow TF32 in float32 convolutions and products")
    args = parser.parse_args()
    if args.precisions is None:  # a CPU without the instructions takes thirty times as long
        args.precisions = ["bfloat16"] if args.device == "cuda" else []
    args.threads = measure.settle_threads(args.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.tf32
    start, found = time.perf_counter(), {}
    for part in (part for part in PARTS if part in args.parts):
        figures = PARTS[part](args)
        found["stages_ms" if part == "stages" else part] = figures
        if isinstance(figures, dict):
            figures = [{part: name, "": value} for name, value in figures.items()]
        print(measure.table(figures), flush=True)
    settings = {name: value for name, value in vars(args).items() if name != "json"}
    timed = {"settings": settings, "seconds": round(time.perf_counter() - start)}
    if args.json:
        write_json(args.json, {"machine": measure.facts(), **timed, **found})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
