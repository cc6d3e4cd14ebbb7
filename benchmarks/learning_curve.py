"""The learning curve of the demo's training: mask AP after so many steps, for several seeds.

    python benchmarks/learning_curve.py --json benchmarks/results/learning-curve.json

Each point is a training of its own, whose learning rate ends there, scored on the 200 held-out
pictures. Trainings that are done are kept in `--output`, so the command goes on after Ctrl-C,
and several can share the work (`--seeds 0 1` here, `--seeds 2 3 4` there).
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from measure import facts, script_parser

from tensormask_edu.base.files import read_json, write_json
from tensormask_edu.commands.demo import STEPS
from tensormask_edu.config import RECIPES, to_json
from tensormask_edu.data.coco import CocoFolder
from tensormask_edu.data.shapes import write_shapes
from tensormask_edu.evaluation.coco_scores import SHAPES_AREAS, evaluate
from tensormask_edu.training.journal import STATE, read_log
from tensormask_edu.training.train import train
from tensormask_edu.weights.checkpoint import load_checkpoint

POINTS = (300, 1000, STEPS)
SEEDS = (0, 1, 2, 3, 4)
CONFIG = replace(RECIPES["shapes"].train, precision="float32")  # on every processor


def score(folder: Path, output: Path, steps: int, seed: int) -> dict[str, Any]:
    """Train, or go on, and score; what was done before is read."""
    run = output / f"{steps}-steps-seed-{seed}"
    done = run / "score.json"
    if not done.is_file():
        recipe = replace(RECIPES["shapes"], train=replace(CONFIG, steps=steps, seed=seed))
        train(recipe, folder, run, resume=(run / STATE).is_file())
        last = read_log(run)[-1]
        if last["step"] < steps:
            raise SystemExit("stopped; the same command goes on")
        model, input_config = load_checkpoint(run / "checkpoint")
        held_out = CocoFolder(folder, "val", keep_empty=True)
        scores = evaluate(model, held_out, input_config, area_ranges=SHAPES_AREAS)
        write_json(done, {"ap": scores["segm"]["AP"], "seconds": last["seconds"]})
    found: dict[str, Any] = read_json(done)
    return found


def main() -> int:
    """Do what is missing, then write the curve."""
    parser = script_parser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("outputs/learning_curve"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--points", type=int, nargs="+", default=list(POINTS))
    args: argparse.Namespace = parser.parse_args()
    write_shapes(args.output / "shapes")
    points = []
    for steps in sorted(args.points):
        scores = [
            score(args.output / "shapes", args.output, steps, seed) for seed in args.seeds
        ]
        ap = [found["ap"] for found in scores]
        print(steps, f"{statistics.fmean(ap):.3f}", " ".join(f"{value:.3f}" for value in ap))
        points.append({"steps": steps, "ap": ap, "seconds": [s["seconds"] for s in scores]})
    if args.json:
        recipe = to_json(replace(CONFIG, seed=0))
        made = {"machine": facts(), "seeds": args.seeds, "recipe": recipe}
        write_json(args.json, made | {"points": points})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
