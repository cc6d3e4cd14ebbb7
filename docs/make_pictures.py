"""Draw the pictures of the documentation: `python docs/make_pictures.py [CHECKPOINT]`.

The method's pictures and those of the stored tables need nothing else and come out the same on
every run. With the checkpoint of a model trained on the overlap world
(`outputs/demo/training/checkpoint`) the front page's picture is drawn too.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from tensormask_edu import config, learn, viz
from tensormask_edu.ablations import stored
from tensormask_edu.commands.predict import detect
from tensormask_edu.data.shapes import CLASS_NAMES
from tensormask_edu.viz.gallery import method
from tensormask_edu.weights.checkpoint import load_checkpoint

FOLDER = Path(__file__).parent / "pictures"
METHOD_IMAGE = 13  # of the overlap world's held-out set
FRONT_IMAGES = (0, 5, 6)


def main(checkpoint: str | None = None) -> None:
    """Write the pictures into docs/pictures."""
    for exhibit in method(*held_out(METHOD_IMAGE), config.MODELS["tiny"]):
        viz.save(exhibit.figure, FOLDER / f"{exhibit.name}.png", palette=True)
    tables = stored.tables()
    for name, form in (("2a", stored.TRUNK), ("2b", stored.TRUNK), ("2c", stored.ALONE)):
        figure = viz.ablation(name, tables[name, form])
        viz.save(figure, FOLDER / f"ablation-{name}.png", palette=True)
    if checkpoint:
        viz.save(front_page(checkpoint), FOLDER / "readme.png", viz.SCREEN_DPI, palette=True)


def held_out(index: int) -> tuple[torch.Tensor, dict[str, Any]]:
    """Image `index` of the held-out set with its objects, as the data set gives it."""
    return learn.picture_with_truth(index, split="val")


def front_page(checkpoint: str) -> Any:
    """Three held-out images with truth and prediction."""
    model, input_config = load_checkpoint(checkpoint)
    images, truths = zip(*(held_out(index) for index in FRONT_IMAGES), strict=True)
    found = [detect(model, image.numpy(), input_config, score=0.4) for image in images]
    return viz.truth_and_prediction(images, truths, found, CLASS_NAMES)


if __name__ == "__main__":
    main(*sys.argv[1:2])
