"""Is the whole model slower? Two folders of CPU kernels, compared inside it in CPU seconds.

    python benchmarks/whole.py --against FOLDER --json benchmarks/results/whole-cpu.json

FOLDER is `plugins/swap_align2nat` of another state of this repository. Both are loaded into one
process and run in turn, one thread, so that other work on the machine disturbs little. The
ratio is the median over pairs. Beside the whole stands what the kernels took of it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measure import script_parser
from samples import objects, pictures, spread_model, training_step

from tensormask_edu.base.files import write_json
from tensormask_edu.base.machine import machine
from tensormask_edu.base.tables import text_table
from tensormask_edu.ops import build, cpu

# preset, height, width, times as many pairs: the paper's model on a small picture, and that of
# the course, which takes a fiftieth of the time and so varies more
SIZES = (("r50_fpn_1x", 320, 512, 1), ("tiny", 128, 128, 5))
STATES = ("before", "after")
HEAD = ["row", "before", "after", "ratio", "kernels before", "kernels after", "pairs"]


def loaded(folder: Path) -> Any:
    """The float32 kernels of a folder: what `cpu._load` returns for it."""
    here, build.kernel_folder = build.kernel_folder, lambda: folder
    cpu._load.cache_clear()
    found = cpu._load(torch.float32)
    build.kernel_folder = here
    if found[0] is None:
        raise SystemExit(f"{folder}: {found[1]}")
    return found


def timed(run: Callable[[], object], kernels: Any) -> tuple[float, float]:
    """CPU seconds of `run` with these kernels, and of the kernels in it."""
    load, call, inside = cpu._load, cpu._call, []

    def counted(*arguments: Any) -> int:
        start = time.process_time()
        code = call(*arguments)
        inside.append(time.process_time() - start)
        return code

    cpu._load, cpu._call = lambda dtype: kernels, counted
    try:
        start = time.process_time()
        run()
        return time.process_time() - start, sum(inside)
    finally:
        cpu._load, cpu._call = load, call


def compared(run: Callable[[], object], kernels: dict[str, Any], pairs: int) -> dict[str, Any]:
    """`run` with both states in turn, after one untimed run of each."""
    times: dict[str, list[tuple[float, float]]] = {state: [] for state in STATES}
    for pair in range(pairs + 1):
        for state in STATES if pair % 2 else STATES[::-1]:
            times[state].append(timed(run, kernels[state]))
    row: dict[str, Any] = {}
    for state, (_, *timed_runs) in times.items():
        whole, inside = zip(*timed_runs, strict=True)
        row[f"{state}_s"] = statistics.median(whole)
        row[f"kernels_{state}_ms"] = 1e3 * statistics.median(inside)
    ratios = [b[0] / a[0] for a, b in zip(*times.values(), strict=True)][1:]
    return row | {"pairs": pairs, "ratio": statistics.median(ratios), "ratios": sorted(ratios)}


def rows(kernels: dict[str, Any], pairs: int) -> Iterator[dict[str, Any]]:
    """A row for inference and one for a training step, at each size."""
    for preset, height, width, times in SIZES:
        model, size = spread_model(preset, "cpu"), (height, width)
        images, truth = pictures(1, *size, "cpu"), objects(1, *size, "cpu")
        name = f"{preset} {height} x {width}"
        infer = torch.inference_mode()(partial(model.eval(), images))
        yield {"row": f"{name}, inference", **compared(infer, kernels, times * pairs)}
        train = partial(training_step, model.train(), images, truth)
        yield {"row": f"{name}, training step", **compared(train, kernels, times * pairs)}


def line(row: dict[str, Any]) -> list[str]:
    """A row as cells below HEAD: CPU seconds of the whole, milliseconds of the kernels."""
    whole = [f"{row[f'{state}_s']:.3f} s" for state in STATES]
    inside = [f"{row[f'kernels_{state}_ms']:.2f} ms" for state in STATES]
    return [row["row"], *whole, f"{row['ratio']:.4f}", *inside, str(row["pairs"])]


def main() -> None:
    """Measure, print the table, write it."""
    parser = script_parser(__doc__)
    parser.add_argument("--against", type=Path, required=True, help="the kernels before")
    parser.add_argument("--pairs", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    folders = args.against.resolve(), build.kernel_folder()
    found = list(rows(dict(zip(STATES, map(loaded, folders), strict=True)), args.pairs))
    print(text_table([HEAD, *map(line, found)]))
    if args.json:
        write_json(args.json, {"machine": machine(), "rows": found})


if __name__ == "__main__":
    main()
