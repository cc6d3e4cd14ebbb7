"""TensorMask beside its ancestors, and what RoIAlign is worth: the tables of small detectors.

    python benchmarks/ancestors.py ancestors --json benchmarks/results/ablations/ancestors.json
    python benchmarks/ancestors.py roi --json benchmarks/results/ablations/roi.json
    python benchmarks/ancestors.py forms          # SharpMask's two forms, timed

Pictures of the overlap world, 64 px, drawn into --folder if they are not there; or any COCO
folder. A row is stored as soon as it is there, and rows that are there are not made again: a
run can be stopped. Steps are the budget; CPU seconds of one thread stand beside them and say
little where the machine does something else too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from device import Clock
from measure import facts, script_parser, table

from tensormask_edu.ancestors.pyramid import Trunk
from tensormask_edu.ancestors.sharpmask import CELLS, ENCODING, Refinement
from tensormask_edu.ancestors.tables import TABLES, row
from tensormask_edu.base.files import read_json, write_json
from tensormask_edu.data.shapes import write_shapes

TRAIN, VAL, SIZE_PX = 3000, 80, 64
# Small, medium and large begin where COCO's do in shares of a picture: bounds at 14 and 28 px
AREAS = {"small": (0, 14**2), "medium": (14**2, 28**2), "large": (28**2, 1e10)}
SHOWN = ("AP", "AP75", "AR10", "AR100", "AR1000")


def key(stored: dict[str, Any]) -> tuple[Any, ...]:
    """What tells rows of a table apart."""
    return stored["model"], stored["seed"], stored["steps"], stored["lr"]


def shown(stored: dict[str, Any]) -> dict[str, Any]:
    """A row as a line: its figures without duplicates, raw recall beside them."""
    about = {name: stored[name] for name in ("model", "seed", "steps", "lr", "cpu_seconds")}
    scores = {name: stored["nms"][name] for name in SHOWN}
    rest = {name: stored[name] for name in ("mask_iou", "parameters", "ms_per_picture")}
    return about | scores | {"raw AR100": stored["raw"]["AR100"]} | rest


def wanted_rows(args: Any) -> list[tuple[str, int]]:
    """Names and seeds, in the order in which they are made."""
    names = args.rows or list(TABLES[args.table])
    return [(name, seed) for seed in args.seeds for name in names]


def add_rows(args: Any) -> list[dict[str, Any]]:
    """Make what is not stored yet; all rows."""
    path = Path(args.json) if args.json else None
    stored = read_json(path)["rows"] if path and path.is_file() else []
    for name, seed in wanted_rows(args):
        entry = TABLES[args.table][name]
        steps, lr = max(1, round(args.steps * entry.share)), args.lr or entry.recipe.lr
        if (name, seed, steps, lr) in map(key, stored):
            continue
        made = row(args.table, name, args.folder, seed, args.steps, args.lr, area_ranges=AREAS)
        stored.append(made)
        print(table([shown(made)]), flush=True)
        if path:
            write_json(path, {"machine": facts("torchvision"), "rows": stored})
    return stored


def forms(windows: int, repeats: int) -> dict[str, float]:
    """Both forms of SharpMask's modules on one picture: milliseconds, and their ratio."""
    torch.manual_seed(0)
    modules = Refinement(Trunk.channels, ENCODING), Refinement(24, ENCODING // 2)
    maps = torch.randn(1, Trunk.channels, 32, 32), torch.randn(1, 24, 64, 64)
    place = torch.randint(32 - CELLS, (windows, 2))
    index = torch.cat([torch.zeros(windows, 1, dtype=torch.int64), place], dim=1)

    def run(shared: bool) -> torch.Tensor:
        masks = torch.ones(windows, ENCODING, CELLS, CELLS)
        for level, (module, features) in enumerate(zip(modules, maps, strict=True)):
            begin = index * torch.tensor([1, 2**level, 2**level])
            if shared:
                masks = module.refined(masks, module.horizontal(features), begin)
            else:
                masks = module.side_by_side(masks, features, begin)
        return masks

    with torch.inference_mode():
        times = Clock("cpu", repeats).turns(
            {"side by side": lambda: run(False), "refactored": lambda: run(True)}
        )
    return times | {"ratio": times["side by side"] / times["refactored"]}


def main() -> int:
    """Make the rows that are wanted, print them all."""
    parser = script_parser(__doc__)
    add = parser.add_argument
    add("table", choices=(*TABLES, "forms"))
    add("--folder", type=Path, default=Path("outputs/overlap64"), metavar="DIR")
    add("--rows", nargs="+", metavar="NAME", help="some of the table's")
    add("--seeds", type=int, nargs="+", default=[0, 1])
    add("--steps", type=int, default=900, help="of TensorMask, or of each row of `roi`")
    add("--lr", type=float, help="another learning rate than the recipes'")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.table == "forms":
        print(table([{"windows": n} | forms(n, 15) for n in (10, 100, 500)]))
        return 0
    if not args.folder.is_dir():
        write_shapes(args.folder, TRAIN, VAL, SIZE_PX)
    print(table(map(shown, add_rows(args))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
