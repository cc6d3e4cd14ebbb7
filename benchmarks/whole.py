"""Is the whole model slower? Two folders of CPU kernels, compared inside it in CPU seconds.

    python benchmarks/whole.py --against FOLDER --json benchmarks/results/whole-cpu.json

FOLDER holds the kernels of another state of this repository, its `plugins/swap_align2nat`, say
from `git worktree add`. Both are compiled and loaded into one process; inference and a training
step then run with one and with the other in turn, first one first, then the other. The ratio is
the median over these pairs. Beside the whole stands what the kernels themselves took of it.
One thread, so that other work on the machine disturbs little.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from measure import objects, pictures, script_parser, spread_model, training_step

from tensormask_edu.base.files import write_json
from tensormask_edu.base.machine import machine
from tensormask_edu.base.tables import text_table
from tensormask_edu.ops import build, cpu

# preset, height, width, times as many pairs: the paper's model on a small picture, and that of
# the course, which takes a fiftieth of the time and so varies more
SIZES = (("r50_fpn_1x", 320, 512, 1), ("tiny", 128, 128, 5))
STATES = ("before", "after")


def loaded(folder: Path) -> Any:
    """The float32 kernels of a folder: what `cpu._load` returns for it."""
    here, build.kernel_folder = build.kernel_folder, lambda: folder
    cpu._load.cache_clear()
    try:
        found = cpu._load(torch.float32)
    finally:
        build.kernel_folder = here
        cpu._load.cache_clear()
    if found[0] is None:
        raise SystemExit(f"{folder}: {found[1]}")
    return found


@contextmanager
def counted(kernels: Any) -> Iterator[list[float]]:
    """Within the block these kernels run; yields the CPU seconds of each of their calls."""
    seconds: list[float] = []
    load, call = cpu._load, cpu._call

    def timed(*arguments: Any) -> int:
        start = time.process_time()
        code = call(*arguments)
        seconds.append(time.process_time() - start)
        return code

    cpu._load, cpu._call = lambda dtype: kernels, timed
    try:
        yield seconds
    finally:
        cpu._load, cpu._call = load, call


def pairs(run: Callable[[], object], kernels: dict[str, Any], count: int) -> dict[str, Any]:
    """`run` with both states in turn, `count` times, after one untimed run of each."""
    whole: dict[str, list[float]] = {state: [] for state in STATES}
    inside: dict[str, list[float]] = {state: [] for state in STATES}
    for pair in range(-1, count):
        for state in STATES if pair % 2 else STATES[::-1]:
            with counted(kernels[state]) as calls:
                start = time.process_time()
                run()
                spent = time.process_time() - start
            if pair >= 0:
                whole[state].append(spent)
                inside[state].append(sum(calls))
    ratios = [after / before for before, after in zip(*whole.values(), strict=True)]
    middle = statistics.median
    return {
        **{f"{state}_s": middle(whole[state]) for state in STATES},
        **{f"kernels_{state}_ms": 1e3 * middle(inside[state]) for state in STATES},
        "pairs": count,
        "ratio": middle(ratios),
        "ratios": sorted(ratios),
    }


def rows(kernels: dict[str, Any], count: int) -> Iterator[dict[str, Any]]:
    """A row for inference and one for a training step, at each size."""
    for preset, height, width, times in SIZES:
        model = spread_model(preset, "cpu", detections=100)
        images, truth = pictures(1, height, width, "cpu"), objects(1, height, width, "cpu")

        def infer(model=model, images=images) -> None:
            with torch.inference_mode():
                model.eval()(images)

        def train(model=model, images=images, truth=truth) -> None:
            training_step(model.train(), images, truth)

        for what, run in (("inference", infer), ("training step", train)):
            name = f"{preset} {height} x {width}, {what}"
            yield {"row": name, **pairs(run, kernels, times * count)}


def table(rows: list[dict[str, Any]]) -> list[list[str]]:
    """A line per row: CPU seconds of the whole, ratio, milliseconds of the kernels."""
    head = ["row", "before", "after", "ratio", "kernels before", "kernels after", "pairs"]
    lines = [
        [
            row["row"],
            *(f"{row[f'{state}_s']:.3f} s" for state in STATES),
            f"{row['ratio']:.4f}",
            *(f"{row[f'kernels_{state}_ms']:.2f} ms" for state in STATES),
            str(row["pairs"]),
        ]
        for row in rows
    ]
    return [head, *lines]


def main() -> None:
    """Measure, print the table, write it."""
    parser = script_parser(__doc__)
    folder = {"metavar": "FOLDER", "help": "the kernels before"}
    parser.add_argument("--against", type=Path, required=True, **folder)
    parser.add_argument("--pairs", type=int, default=7, metavar="N")
    args = parser.parse_args()
    torch.set_num_threads(1)
    kernels = {"before": loaded(args.against.resolve()), "after": loaded(build.kernel_folder())}
    found = []
    for row in rows(kernels, args.pairs):
        found.append(row)
        print(text_table(table([row])), flush=True)
    if args.json:
        write_json(args.json, {"machine": machine(), "rows": found})


if __name__ == "__main__":
    main()
