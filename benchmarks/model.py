"""The whole model, timed: a training step and inference, stage by stage, and what each factor
is worth.

    python benchmarks/model.py --device cuda                       800 x 1344, the paper's size
    python benchmarks/model.py --height 320 --width 512            what two CPU cores do in minutes
    python benchmarks/model.py --memory                            bytes held, at 800 x 1344, batch 2

Parts (`--parts`): `stages` of inference and of a training step; `factors`, each alone, against
the official way (masks of all windows by a plain 16-tap kernel, float32, eager); `area`, the
cost against the picture's size; `scaling` from one process to two with the same total batch;
`memory`, what the mask operators hold, and what 500 detections add. Weights are random, spread
so that scores differ; every picture has 100 detections. TF32 is off unless `--tf32`. Times are
the best of several runs on a CPU, the median on a GPU.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from memory import Tensors
from ops import Clock, aligned
from torch import Tensor, nn

from tensormask_edu.base.files import write_json
from tensormask_edu.commands.check_ops import machine
from tensormask_edu.config import COCO_CLASS_NAMES, MODELS
from tensormask_edu.detector import inference
from tensormask_edu.detector.model import AT_ONCE, TensorMask, build_model
from tensormask_edu.detector.network import NetworkOutput, WindowMasks, per_window
from tensormask_edu.ops import plain, swap_align2nat

PARTS = ("stages", "factors", "area", "scaling", "memory")
MIB = 1 << 20
Targets = list[dict[str, Any]]


# --- what is measured on: a model with spread scores, pictures, objects -----------------------


def spread_model(preset: str, device: str, detections: int = 100) -> TensorMask:
    """A model of random weights, its predictors scaled: few scores are high, all differ, masks
    have edges."""
    torch.manual_seed(0)
    config = replace(
        MODELS[preset], class_names=COCO_CLASS_NAMES, detections_per_image=detections
    )
    model = build_model(config)
    network = model.network
    with torch.no_grad():
        output = network(model.batch(pictures(1, 128, 128, "cpu")))
        scale(network.class_predictor, output.logits, 1.0)
        scale(network.box_predictor, output.deltas, 0.3)
        for size_id, predictor in enumerate(network.mask_branch.predictors):
            scale(predictor, [sizes[size_id] for sizes in output.aligned], 3.0)
        nn.init.constant_(network.class_predictor.get_parameter("bias"), -6.0)
    return model.to(device)


def scale(predictor: nn.Module, outputs: list[Tensor], spread: float) -> None:
    """Give the outputs of a predictor this standard deviation."""
    predictor.get_parameter("weight").mul_(
        spread / torch.cat([x.flatten() for x in outputs]).std()
    )


def pictures(count: int, height: int, width: int, device: str) -> list[Tensor]:
    return [torch.rand(3, height, width, device=device) for _ in range(count)]


def objects(count: int, height: int, width: int, device: str, num: int = 10) -> Targets:
    """Per picture `num` rectangles, sides spread evenly on a log scale from 16 px to the
    picture's height."""
    rand, targets = random.Random(0).random, []
    for _ in range(count):
        masks = torch.zeros(num, height, width, dtype=torch.bool)
        boxes = torch.zeros(num, 4)
        for g in range(num):
            side = 16 * (height / 16) ** (g / max(1, num - 1))
            h, w = (max(8, int(side * (0.6 + 0.4 * rand()))) for _ in "hw")
            h, w = min(h, height), min(w, width)
            y, x = int(rand() * (height - h + 1)), int(rand() * (width - w + 1))
            masks[g, y : y + h, x : x + w] = True
            boxes[g] = torch.tensor([x, y, x + w, y + h])
        labels = torch.arange(num, device=device)
        targets.append({"boxes": boxes.to(device), "labels": labels, "masks": masks.to(device)})
    return targets


def training_step(
    model: nn.Module, images: list[Tensor], targets: Targets, precision: str = "float32"
) -> None:
    """Forward, losses, backward, one step of SGD."""
    with autocast(images[0].device.type, precision):
        losses = model(images, targets)
    sum(losses.values()).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=1e-6)
                parameter.grad = None


def autocast(device: str, precision: str) -> Any:
    return (
        nullcontext()
        if precision == "float32"
        else torch.autocast(device, getattr(torch, precision))
    )


# --- stages -----------------------------------------------------------------------------------


def stages(model: TensorMask, clock: Clock, height: int, width: int) -> dict[str, float]:
    """Milliseconds per picture of inference by stage, of a training step by stage, and of both
    whole."""
    images = pictures(1, height, width, clock.device)
    with torch.inference_mode():
        found = inference_stages(model.eval(), clock, images)
    return found | training_stages(model.train(), clock, images)


def inference_stages(model: TensorMask, clock: Clock, images: list[Tensor]) -> dict[str, float]:
    network, num_sizes = model.network, model.config.geometry.num_sizes
    batch = model.batch(images)
    size = (images[0].shape[-2], images[0].shape[-1])
    features = network.backbone(batch)
    maps = [network.mask_branch.tower(f) for f in features]
    output = network(batch)
    windows = model.config.geometry.windows(
        model.config.geometry.grid_sizes(*batch.shape[-2:]), batch.device
    )
    rows = per_window(output.logits, num_sizes)[0], per_window(output.deltas, num_sizes)[0]
    kept = inference.keep(*rows, windows, model.config)
    chosen, number = windows[kept.window], torch.zeros_like(kept.window)
    masks = list(network.mask_logits(output, number, chosen, AT_ONCE))
    return {
        "inference: backbone": clock(lambda: network.backbone(batch)),
        "inference: class and box towers": clock(
            lambda: [
                (
                    network.class_predictor(network.class_tower(f)),
                    network.box_predictor(network.box_tower(f)),
                )
                for f in features
            ]
        ),
        "inference: mask tower": clock(
            lambda: [network.mask_branch.tower(f) for f in features]
        ),
        "inference: fuse": clock(lambda: network.mask_branch.fused(maps)),
        "inference: select and NMS": clock(
            lambda: inference.keep(*rows, windows, model.config)
        ),
        "inference: masks": clock(
            lambda: list(network.mask_logits(output, number, chosen, AT_ONCE))
        ),
        "inference: paste": clock(lambda: inference.paste(masks, chosen.box_px, *size)),
        "inference": clock(lambda: model(images)),
    }


def training_stages(model: TensorMask, clock: Clock, images: list[Tensor]) -> dict[str, float]:
    targets = objects(1, images[0].shape[-2], images[0].shape[-1], clock.device)
    batch = model.batch(images)
    grid_sizes = model.config.geometry.grid_sizes(*batch.shape[-2:])
    windows = model.config.geometry.windows(grid_sizes, batch.device)
    with torch.no_grad():
        output = model.network(batch)
        losses = clock(lambda: model.losses(output, targets, windows, grid_sizes))
    return {
        "training: network forward": clock(lambda: model.network(batch)),
        "training: targets and losses, forward": losses,
        "training": clock(lambda: training_step(model, images, targets)),
    }


# --- factors ----------------------------------------------------------------------------------


class PlainSwap(torch.autograd.Function):
    """`swap_align2nat` by the plain kernel: 16 taps always, the backward by atomic scatter."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, lam: int, pad_value: float) -> Tensor:
        ctx.lam, ctx.size = lam, x.shape[3:]
        return plain.forward(x.contiguous(), lam, pad_value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return plain.backward(grad.contiguous(), ctx.lam, *ctx.size), None, None


SWAPS: dict[str, Callable[[Tensor, int, float], Tensor]] = {
    "plain": PlainSwap.apply,
    "ours": swap_align2nat,
}


@contextmanager
def dense(model: TensorMask, kernel: str) -> Iterator[None]:
    """Within the block masks are computed for all windows of all levels, as the official code
    does."""
    network, swap = model.network, SWAPS[kernel]
    lams, pad_value = network.config.geometry.lams, network.config.pad_value

    def mask_logits(
        output: NetworkOutput, image: Tensor, windows: Any, at_once: int | None = None
    ) -> list[WindowMasks]:
        natural = [
            [swap(x, lam, pad_value) for x in sizes]
            for lam, sizes in zip(lams, output.aligned, strict=True)
        ]
        return [
            WindowMasks(
                where, natural[k][a][image[where], :, :, windows.y[where], windows.x[where]]
            )
            for k, a, where in windows.groups()
        ]

    network.mask_logits = mask_logits  # type: ignore[method-assign]
    try:
        yield
    finally:
        del network.mask_logits


def factors(args: argparse.Namespace, clock: Clock) -> list[dict[str, Any]]:
    """Each factor alone: milliseconds of inference and of a training step, peak memory, same
    detections?"""
    ways: list[tuple[str, str | None, bool, str]] = []
    for kernel in args.dense:
        if kernel == "ours" or plain.available(args.device):
            ways.append((f"dense, {kernel} kernel", kernel, False, "float32"))
    ways.append(("windows", None, False, "float32"))
    if args.compile:
        ways.append(("windows, compile", None, True, "float32"))
    for precision in args.precisions:
        ways.append((f"windows, {precision}", None, False, precision))
        if args.compile:
            ways.append((f"windows, compile, {precision}", None, True, precision))
    expected = None
    rows = []
    for name, kernel, compiled, precision in ways:
        row, found = factor(args, clock, kernel, compiled, precision)
        expected = found if name == "windows" or expected is None else expected
        rows.append({"way": name, **row, "mask_iou": agreement(expected, found)})
        print(
            aligned(
                [
                    [
                        name,
                        *(
                            f"{key} {value:.3g}"
                            for key, value in rows[-1].items()
                            if key != "way"
                        ),
                    ]
                ]
            )
        )
    return rows


def factor(
    args: argparse.Namespace, clock: Clock, kernel: str | None, compiled: bool, precision: str
) -> tuple[dict[str, float], dict[str, Tensor]]:
    model = spread_model(args.preset, args.device)
    images = pictures(1, args.height, args.width, args.device)
    targets = objects(1, args.height, args.width, args.device)
    if compiled:
        model.network.compile(fullgraph=True)

    def infer() -> Any:
        with torch.inference_mode(), autocast(args.device, precision):
            return model(images)

    with dense(model, kernel) if kernel else nullcontext():
        model.eval()
        row = {"inference_ms": clock(infer)} | peak(
            "inference_mib", infer, args.device, compiled
        )
        found = infer()[0]
        model.train()

        def step() -> None:
            training_step(model, images, targets, precision)

        row |= {"training_ms": clock(step)} | peak("training_mib", step, args.device, compiled)
    return row, found


def peak(
    name: str, call: Callable[[], object], device: str, compiled: bool
) -> dict[str, float]:
    """Peak of what the call allocates: CUDA's allocator on a GPU, `memory.Tensors` on a CPU,
    which does not see into compiled code."""
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return {name: (torch.cuda.max_memory_allocated() - before) / MIB}
    if compiled:
        return {}
    with Tensors() as seen:
        call()
    return {name: seen.peak() / MIB}


def agreement(expected: dict[str, Tensor], found: dict[str, Tensor]) -> float:
    """The mean, over expected detections, of the best mask IoU with a found one of the same
    class."""
    ious = []
    for mask, label in zip(expected["masks"], expected["labels"], strict=True):
        same = found["masks"][found["labels"] == label]
        union = (same | mask).flatten(1).sum(1)
        iou = (same & mask).flatten(1).sum(1) / union.clamp(min=1)
        ious.append(torch.where(union == 0, 1.0, iou).max().item() if len(same) else 0.0)
    return sum(ious) / max(1, len(ious))


# --- area and processes -----------------------------------------------------------------------


def area(args: argparse.Namespace, clock: Clock) -> list[dict[str, float]]:
    """Inference at a quarter, a half and the whole of the picture's area."""
    model, rows = spread_model(args.preset, args.device).eval(), []
    for share in (0.25, 0.5, 1.0):
        height, width = (
            max(32, round(n * share**0.5 / 32) * 32) for n in (args.height, args.width)
        )
        images = pictures(1, height, width, args.device)
        with torch.inference_mode():
            ms = clock(lambda images=images: model(images))
        rows.append(
            {
                "height": height,
                "width": width,
                "ms": ms,
                "ms_per_mpx": ms / (height * width / 1e6),
            }
        )
    return rows


def scaling(args: argparse.Namespace) -> dict[str, float]:
    """Seconds per training step of two pictures in one process and in two, gradients
    averaged."""
    device_count = torch.cuda.device_count() if args.device == "cuda" else 2
    if device_count < 2:
        return {}
    seconds = {}
    for processes in (1, 2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        manager = torch.multiprocessing.get_context("spawn")
        queue = manager.SimpleQueue()
        torch.multiprocessing.spawn(worker, (processes, port, args, queue), nprocs=processes)
        seconds[f"seconds_{processes}"] = queue.get()
    return seconds | {"speedup": seconds["seconds_1"] / seconds["seconds_2"]}


def worker(rank: int, processes: int, port: int, args: argparse.Namespace, queue: Any) -> None:
    """One process of `scaling`."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(max(1, args.threads))
    torch.distributed.init_process_group(
        "nccl" if args.device == "cuda" else "gloo", rank=rank, world_size=processes
    )
    device = f"cuda:{rank}" if args.device == "cuda" else "cpu"
    if args.device == "cuda":
        torch.cuda.set_device(rank)
    model = nn.parallel.DistributedDataParallel(spread_model(args.preset, device).train())
    images = pictures(2 // processes, args.height, args.width, device)
    targets = objects(2 // processes, args.height, args.width, device)
    times = []
    for _ in range(args.repeats + 1):
        torch.distributed.barrier()
        start = time.perf_counter()
        training_step(model, images, targets)
        if args.device == "cuda":
            torch.cuda.synchronize()
        torch.distributed.barrier()
        times.append(time.perf_counter() - start)
    if rank == 0:
        queue.put(min(times[1:]))
    torch.distributed.destroy_process_group()


# --- memory -----------------------------------------------------------------------------------


def memory(args: argparse.Namespace, batch: int = 2) -> dict[str, float]:
    """MiB held by the mask operators' inputs and outputs, beside the dense way's; what pasting
    adds."""
    model = spread_model(args.preset, args.device)
    images = pictures(batch, args.height, args.width, args.device)
    targets = objects(batch, args.height, args.width, args.device)
    all_windows = dense_mib(model, args.height, args.width, batch)
    model.train()
    with Tensors() as training:
        training_step(model, images, targets)
    model.eval()
    with torch.inference_mode(), Tensors() as inferring:
        model(images)
    held = {
        "training_mib": training.peak(training.of_masks) / MIB,
        "inference_mib": inferring.peak(inferring.of_masks) / MIB,
    }
    shares = {name.replace("mib", "share"): value / all_windows for name, value in held.items()}
    return {"dense_mib": all_windows, **held, **shares, **pasting(args)}


def dense_mib(model: TensorMask, height: int, width: int, batch: int) -> float:
    """Inputs and outputs of `swap_align2nat` over all levels and sizes."""
    geometry = model.config.geometry
    grids = geometry.grid_sizes(height, width)
    count = 0
    for level, (rows, columns) in enumerate(grids):
        finest = grids[0] if geometry.bipyramid else (rows, columns)
        for size_id, side in enumerate(geometry.sides_bins):
            count += side**2 * finest[0] * finest[1]
            count += geometry.side_bins(level, size_id) ** 2 * rows * columns
    return 4 * batch * count / MIB


def pasting(args: argparse.Namespace, count: int = 500) -> dict[str, float]:
    """What evaluating and pasting `count` detections adds: windows spread over all levels, and
    the worst case, all of them windows of the largest size."""
    model = spread_model(args.preset, args.device, count).eval()
    geometry, found = model.config.geometry, {}
    batch = model.batch(pictures(1, args.height, args.width, args.device))
    windows = geometry.windows(geometry.grid_sizes(*batch.shape[-2:]), args.device)
    with torch.inference_mode():
        output = model.network(batch)
    places = [
        torch.where((windows.level == k) & (windows.size_id == geometry.num_sizes - 1))[0]
        for k in range(geometry.num_levels)
    ]
    for name, some in {"spread": places, "largest": places[-1:]}.items():
        picked = torch.cat([p[torch.randint(len(p), (-(-count // len(some)),))] for p in some])[
            :count
        ]
        chosen, before = windows[picked], resident_mib(reset=True)
        with torch.inference_mode(), Tensors() as seen:
            masks = model.network.mask_logits(output, torch.zeros_like(picked), chosen, AT_ONCE)
            inference.paste(masks, chosen.box_px, args.height, args.width)
        found[f"paste_{count}_{name}_mib"] = seen.peak() / MIB
        if before is not None:
            found[f"paste_{count}_{name}_rss_mib"] = resident_mib() - before
    return found


def resident_mib(reset: bool = False) -> float | None:
    """The process's peak resident memory since the last reset, as Linux counts it; None
    elsewhere."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = status.read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


# --- command line -----------------------------------------------------------------------------


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Everything asked for, printed as it comes."""
    clock, found = Clock(args.device, args.repeats), {}
    if "memory" in args.parts:
        found["memory"] = memory(args)
        print(
            aligned([[name, f"{value:.3f}"] for name, value in found["memory"].items()]),
            flush=True,
        )
    if "stages" in args.parts:
        found["stages_ms"] = stages(
            spread_model(args.preset, args.device), clock, args.height, args.width
        )
        print(
            aligned([[name, f"{ms:.1f} ms"] for name, ms in found["stages_ms"].items()]),
            flush=True,
        )
    if "factors" in args.parts:
        found["factors"] = factors(args, clock)
    if "area" in args.parts:
        found["area"] = area(args, clock)
        print(
            aligned(
                [[f"{key} {value:.4g}" for key, value in row.items()] for row in found["area"]]
            ),
            flush=True,
        )
    if "scaling" in args.parts:
        found["scaling"] = scaling(args)
        print("two processes:", found["scaling"] or "one GPU only", flush=True)
    return found


def main() -> int:
    """Measure what is asked for, print it, write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--preset", default="r50_fpn_1x", choices=MODELS)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1344)
    parser.add_argument(
        "--parts", nargs="+", default=[p for p in PARTS if p != "memory"], choices=PARTS
    )
    parser.add_argument(
        "--memory", action="store_const", const=["memory"], dest="parts", help="that part alone"
    )
    parser.add_argument(
        "--dense", nargs="*", default=["plain", "ours"], choices=SWAPS, help="which kernels"
    )
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--precisions", nargs="*", choices=("bfloat16", "float16"))
    parser.add_argument(
        "--tf32", action="store_true", help="allow TF32 in float32 convolutions and products"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--json", metavar="FILE", help="write everything here")
    args = parser.parse_args()
    if args.precisions is None:  # a CPU without the instructions takes thirty times as long
        args.precisions = ["bfloat16"] if args.device == "cuda" else []
    torch.set_num_threads(args.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.tf32
    start = time.perf_counter()
    found = measure(args)
    settings = {name: value for name, value in vars(args).items() if name != "json"}
    seconds = round(time.perf_counter() - start)
    if args.json:
        write_json(
            args.json, {"machine": machine(), "settings": settings, "seconds": seconds, **found}
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
