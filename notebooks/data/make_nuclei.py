"""Cut a few photos of nuclei out of a COCO folder, for lesson 11: `nuclei`, a COCO folder too.

    python notebooks/data/make_nuclei.py FOLDER [--output notebooks/data/nuclei]

FOLDER holds photos that may be passed on (those of the 2018 Data Science Bowl are CC0), its
split `val` those that the model `cells` was not trained on. Eight of them, evenly spaced, are
cut to the 128 px that hold the most whole nuclei. Lesson 11 draws nuclei where there is no such
folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tensormask_edu.data.coco import CocoFolder
from tensormask_edu.learn.lessons.lesson_11 import write_photos

COUNT, SIDE_PX, STEP_PX = 8, 128, 16
NUCLEI = Path(__file__).parent / "nuclei"


def crops(source: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pixels (3, H, W) and masks (m, H, W) of each crop."""
    dataset = CocoFolder(source, "val")
    for k in np.linspace(0, len(dataset) - 1, COUNT).round().astype(int).tolist():
        top, left = fullest(dataset.truth(k)["boxes"].numpy(), *dataset.size(k))
        truth = dataset.truth(k, (top, left, SIDE_PX, SIDE_PX))
        pixels = dataset.image(k)[:, top : top + SIDE_PX, left : left + SIDE_PX]
        yield pixels.numpy(), truth["masks"].numpy()


def fullest(boxes: np.ndarray, height: int, width: int) -> tuple[int, int]:
    """Top and left of the crop with the most whole objects, of boxes (G, 4)."""
    places = np.ndindex((height - SIDE_PX) // STEP_PX + 1, (width - SIDE_PX) // STEP_PX + 1)

    def whole(place: tuple[int, int]) -> int:
        inside = boxes - STEP_PX * np.array(place[::-1] * 2)
        return int(((inside >= 0) & (inside <= SIDE_PX)).all(1).sum())

    row, column = max(places, key=whole)
    return STEP_PX * row, STEP_PX * column


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--output", type=Path, default=NUCLEI)
    arguments = parser.parse_args()
    write_photos(arguments.output, crops(arguments.folder))
    size = sum(path.stat().st_size for path in arguments.output.rglob("*.*"))
    print(f"{arguments.output}: {COUNT} photos, {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
