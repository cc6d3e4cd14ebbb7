"""Does training work on real photos? Over-fits a small model on eight of them and compares with
the ceiling.

    python benchmarks/overfit.py FOLDER --output outputs/overfit \\
        --json benchmarks/results/overfit-cpu.json

The photos are the first eight with objects, by id, of the folder's val split, 256 px on the
long side, always
the same: no augmentation. Scored are the same photos by the trained model in evaluation mode,
so BatchNorm's running statistics are tested too. The ceiling is the score of the true masks
seen through the model's windows. Ctrl-C pauses, `--resume` goes on: the result is the same.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from tensormask_edu.base.files import make_folder, write_json
from tensormask_edu.commands.check_ops import machine
from tensormask_edu.commands.evaluate import evaluate_checkpoint
from tensormask_edu.config import RECIPES, AugmentConfig, InputConfig, Recipe, to_json
from tensormask_edu.data.instances import find_split, read_ground_truth
from tensormask_edu.training.train import train

PHOTOS, LONG_SIDE_PX = 8, 256
WANTED = 0.8  # of the ceiling


def chosen_photos(source: Path, folder: Path) -> list[int]:
    """Make `folder` a data set of the chosen photos, for training and evaluation; returns their
    ids."""
    truth_path, images = find_split(source, "val")
    truth = read_ground_truth(truth_path)
    with_objects = {a["image_id"] for a in truth["annotations"] if not a.get("iscrowd")}
    ids = sorted(image["id"] for image in truth["images"] if image["id"] in with_objects)[
        :PHOTOS
    ]
    part = truth | {
        "images": [image for image in truth["images"] if image["id"] in ids],
        "annotations": [a for a in truth["annotations"] if a["image_id"] in ids],
    }
    make_folder(folder)
    for split in ("train", "val"):
        write_json(folder / f"instances_{split}.json", part)
    if not (folder / "images").is_symlink():
        os.symlink(images.resolve(), folder / "images")
    return ids


def recipe(steps: int) -> Recipe:
    """The recipe for shapes without augmentation and weight decay: to learn by heart is wanted
    here."""
    shapes = RECIPES["shapes"]
    config = replace(
        shapes.train, steps=steps, weight_decay=0.0, augment=AugmentConfig(), save_every=100
    )
    return Recipe(
        shapes.model, InputConfig(short_side_px=LONG_SIDE_PX, long_side_px=LONG_SIDE_PX), config
    )


def report(args: argparse.Namespace, ids: list[int], chosen: Recipe) -> dict[str, Any] | None:
    """The figures of a finished run, None of one that was paused."""
    lines = (args.output / "log.jsonl").read_text(encoding="utf-8").splitlines()
    last = json.loads(lines[-1]) if lines else {"step": 0}
    if last["step"] < args.steps:
        return None
    scores = evaluate_checkpoint(args.output / "checkpoint", args.output / "photos")
    ap, ceiling = scores["segm"]["AP"], scores["ceiling"]["segm"]["AP"]
    return {
        "machine": machine(),
        "photos": ids,
        "recipe": to_json(chosen),
        "last_step": last,
        "mask_ap": ap,
        "ceiling_ap": ceiling,
        "ratio": ap / ceiling,
        "scores": scores,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a COCO folder with a val split")
    parser.add_argument("--output", type=Path, default=Path("outputs/overfit"), metavar="DIR")
    parser.add_argument(
        "--steps", type=int, default=650, help="length of the schedule (default 650)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with a paused run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    args = parser.parse_args()
    ids, chosen = chosen_photos(args.folder, args.output / "photos"), recipe(args.steps)
    train(chosen, args.output / "photos", args.output, args.resume)
    found = report(args, ids, chosen)
    if found is None:
        print("paused; go on with --resume")
        return 1
    if args.json:
        write_json(args.json, found)
    ap, ceiling, seconds = found["mask_ap"], found["ceiling_ap"], found["last_step"]["seconds"]
    print(
        f"mask AP {ap:.3f}, ceiling {ceiling:.3f}, ratio {found['ratio']:.2f} (wanted {WANTED:g})"
    )
    print(
        f"{args.steps} steps in {seconds / 60:.1f} minutes on {found['machine']['threads']} threads"
    )
    return 0 if found["ratio"] >= WANTED else 1


if __name__ == "__main__":
    raise SystemExit(main())
