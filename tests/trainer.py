"""A training run as a program of its own, for the tests that kill it or start several.

    python trainer.py FOLDER OUTPUT RECIPE.json [--resume] [--die WHERE FILE TIME]

`--die` ends the process by SIGKILL when FILE is written for the TIME-th time: "inside" half-way
through its bytes, "after" once it has its name.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tensormask_edu import config
from tensormask_edu.base.files import write_json
from tensormask_edu.config import RECIPES, AugmentConfig, Recipe

# Pictures of both orientations change size, place and light at random: everything a resumed run
# must repeat.
SHAKEN = AugmentConfig(flip=True, scale=(0.8, 1.25), gamma=(0.8, 1.2), noise=0.05)


def small_recipe(
    model: dict[str, Any] | None = None, input: dict[str, Any] | None = None, **train: Any
) -> Recipe:
    """The recipe for shapes with small batches and a line in the log for every step."""
    recipe = RECIPES["shapes"]
    usual = {"batch_size": 2, "log_every": 1, "precision": "float32"}  # on every processor
    return Recipe(
        replace(recipe.model, **(model or {})),
        replace(recipe.input, **(input or {})),
        replace(recipe.train, **(usual | train)),
    )


def save_recipe(recipe: Recipe, path: Path) -> Path:
    path.write_text(json.dumps(config.to_json(recipe)))
    return path


def load_recipe(path: Path) -> Recipe:
    values = json.loads(path.read_text())
    return Recipe(
        config.from_json(config.ModelConfig, values["model"]),
        config.from_json(config.InputConfig, values["input"]),
        config.from_json(config.TrainConfig, values["train"]),
    )


def write_pictures(folder: Path, sizes: list[tuple[int, int]], split: str = "train") -> Path:
    """Noisy pictures of the sizes (height, width) with two coloured rectangles each.

    Their COCO ground truth stores polygons, with boxes.
    """
    generator = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number, (height, width) in enumerate(sizes):
        pixels = generator.integers(0, 80, (height, width, 3), dtype=np.uint8)
        for label in (1, 2):
            h, w = generator.integers(12, 24, 2)
            y, x = generator.integers(0, height - h), generator.integers(0, width - w)
            pixels[y : y + h, x : x + w, label] += 150
            polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
            number_of_it = len(annotations) + 1
            annotation = {"id": number_of_it, "image_id": number, "category_id": label}
            shape = {"bbox": [int(x), int(y), int(w), int(h)], "area": int(h * w)}
            outline = {"segmentation": [[float(v) for v in polygon]], "iscrowd": 0}
            annotations.append(annotation | shape | outline)
        name = f"{split}_{number}.png"
        Image.fromarray(pixels).save(folder / "images" / name)
        images.append({"id": number, "file_name": name, "height": height, "width": width})
    categories = [{"id": 1, "name": "green"}, {"id": 2, "name": "blue"}]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    (folder / f"instances_{split}.json").write_text(json.dumps(truth))
    return folder


def die(where: str, name: str, time: int) -> None:
    """Arrange for the death of this process."""
    write_bytes, rename = Path.write_bytes, os.replace
    count = 0

    def now(path: Path | str) -> bool:
        """Whether this is the write to die at; counts those of the file."""
        nonlocal count
        count += name in str(path)
        return name in str(path) and count == time

    def half(self: Path, data: Any) -> int:
        if where == "inside" and now(self):
            write_bytes(self, bytes(data)[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return write_bytes(self, data)

    def renamed(source: Any, target: Any) -> None:
        rename(source, target)
        if where == "after" and now(target):
            os.kill(os.getpid(), signal.SIGKILL)

    Path.write_bytes, os.replace = half, renamed  # type: ignore[method-assign, assignment]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("output", type=Path)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--die", nargs=3)
    words = "evaluate afterwards, and the first process writes here"
    parser.add_argument("--scores", type=Path, help=words)
    args = parser.parse_args()
    if args.die:
        die(args.die[0], args.die[1], int(args.die[2]))
    # Here, so that a test that only borrows the helpers above loads no training.
    from tensormask_edu.base import distributed
    from tensormask_edu.commands.evaluate import evaluate_checkpoint
    from tensormask_edu.training.train import train

    with distributed.processes():
        train(load_recipe(args.recipe), args.folder, args.output, args.resume)
        if args.scores:
            scores = evaluate_checkpoint(args.output / "checkpoint", args.folder)
            if distributed.rank() == 0:
                write_json(args.scores, scores)


if __name__ == "__main__":
    main()
