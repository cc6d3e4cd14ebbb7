"""Does training work on real photos? A small model learns eight of them by heart.

    python benchmarks/overfit.py FOLDER --output outputs/overfit \\
        --json benchmarks/results/overfit-cpu.json

The photos are the first eight with objects, by id, of the folder's val split, 256 px on the
long side, always the same: no augmentation. Scored are the same photos by the trained model in
evaluation mode, so BatchNorm's running statistics are tested too. The ceiling is the score of
the true masks seen through the model's windows. Ctrl-C pauses, `--resume` goes on: the result
is the same.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from measure import facts, script_parser

from tensormask_edu.base.files import make_folder, write_json
from tensormask_edu.commands.evaluate import evaluate_checkpoint
from tensormask_edu.config import RECIPES, AugmentConfig, InputConfig, Recipe, to_json
from tensormask_edu.data.coco import CocoFolder
from tensormask_edu.training.journal import read_log
from tensormask_edu.training.train import train

PHOTOS, LONG_SIDE_PX = 8, 256
WANTED = 0.8  # of the ceiling


def chosen_photos(source: Path, folder: Path) -> list[int]:
    """Make `folder` a data set of the chosen photos, for both splits; returns their ids."""
    dataset = CocoFolder(source, "val")  # those with objects
    ids = sorted(dataset.image_ids)[:PHOTOS]
    part = dataset.ground_truth.of_images(ids).to_coco()
    make_folder(folder)
    for split in ("train", "val"):
        write_json(folder / f"instances_{split}.json", part)
    if not (folder / "images").is_symlink():
        os.symlink(dataset.image_folder.resolve(), folder / "images")
    return ids


def recipe(steps: int) -> Recipe:
    """The recipe for shapes, but learning by heart: no augmentation, no weight decay."""
    shapes = RECIPES["shapes"]
    config = replace(shapes.train, steps=steps, save_every=100)
    config = replace(config, augment=AugmentConfig(), weight_decay=0.0)
    size = InputConfig(short_side_px=LONG_SIDE_PX, long_side_px=LONG_SIDE_PX)
    return Recipe(shapes.model, size, config)


def report(args: argparse.Namespace, ids: list[int], chosen: Recipe) -> dict[str, Any] | None:
    """The figures of a finished run, None of one that was paused."""
    last = [{"step": 0}, *read_log(args.output)][-1]
    if last["step"] < args.steps:
        return None
    scores = evaluate_checkpoint(args.output / "checkpoint", args.output / "photos")
    ap, ceiling = scores["segm"]["AP"], scores["ceiling"]["segm"]["AP"]
    figures = {"mask_ap": ap, "ceiling_ap": ceiling, "ratio": ap / ceiling, "scores": scores}
    made = {"photos": ids, "recipe": to_json(chosen), "last_step": last}
    return {"machine": facts(), **made, **figures}


def main() -> int:
    """Train or go on, then score; 0 if the model reached what is wanted."""
    parser = script_parser(__doc__)
    add = parser.add_argument
    add("folder", type=Path, help="a COCO folder with a val split")
    add("--output", type=Path, default=Path("outputs/overfit"), metavar="DIR")
    add("--steps", type=int, default=650, help="length of the schedule (default 650)")
    add("--resume", action="store_true", help="go on with a paused run")
    add("--overwrite", action="store_true", help="begin anew where there is a run")
    args = parser.parse_args()
    ids, chosen = chosen_photos(args.folder, args.output / "photos"), recipe(args.steps)
    begin = {"resume": args.resume, "overwrite": args.overwrite}
    train(chosen, args.output / "photos", args.output, **begin)
    figures = report(args, ids, chosen)
    if figures is None:
        print("paused; go on with --resume")
        return 1
    if args.json:
        write_json(args.json, figures)
    ap, ceiling, ratio = (figures[name] for name in ("mask_ap", "ceiling_ap", "ratio"))
    print(f"mask AP {ap:.3f}, ceiling {ceiling:.3f}, ratio {ratio:.2f} (wanted {WANTED:g})")
    minutes, threads = figures["last_step"]["seconds"] / 60, figures["machine"]["threads"]
    print(f"{args.steps} steps in {minutes:.1f} minutes on {threads} threads")
    return 0 if ratio >= WANTED else 1


if __name__ == "__main__":
    raise SystemExit(main())
