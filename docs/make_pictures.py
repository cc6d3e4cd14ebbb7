"""Draw the pictures of the documentation: `python docs/make_pictures.py`. The same pixels on every run."""

from __future__ import annotations

from pathlib import Path

import torch

from tensormask_edu import config, viz
from tensormask_edu.data.shapes import draw
from tensormask_edu.viz.gallery import method

FOLDER = Path(__file__).parent / "pictures"
PICTURE = 13  # of the overlap world's held-out set


def main() -> None:
    """Write the method's pictures into docs/pictures."""
    pixels, masks, labels = draw(seed=0, split="val", index=PICTURE)
    image, masks = torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(masks)
    target = {
        "boxes": torch.stack([_box(mask) for mask in masks]),
        "labels": torch.tensor(labels),
        "masks": masks,
    }
    for exhibit in method(image, target, config.MODELS["tiny"]):
        viz.save(exhibit.figure, FOLDER / f"{exhibit.name}.png")
        print(FOLDER / f"{exhibit.name}.png")


def _box(mask: torch.Tensor) -> torch.Tensor:
    """The tight xyxy box of a mask, its last pixel included."""
    y, x = mask.nonzero().unbind(1)
    return torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()


if __name__ == "__main__":
    main()
