"""Make `sample.npz`, the stored picture of lesson 00.

It holds one picture, its truth and a trained model's detections.

    python notebooks/data/make_sample.py CHECKPOINT [--index 21] [--score 0.5]

The picture is number INDEX of the overlap world's validation set; CHECKPOINT is a folder that
`tensormask-edu train` wrote. Masks are stored as bits, everything as plain arrays.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from tensormask_edu.base.files import written_whole
from tensormask_edu.commands.predict import detect
from tensormask_edu.data import shapes
from tensormask_edu.masks import tight_boxes
from tensormask_edu.weights.checkpoint import load_checkpoint

SAMPLE = Path(__file__).parent / "sample.npz"


def make_sample(checkpoint: str, index: int, score: float) -> dict[str, np.ndarray]:
    """The arrays of the file, by name.

    image: (3, H, W) uint8. class_names. truth_* and found_*: boxes (xyxy px), labels, masks (as
    bits along the last axis); found_scores.
    """
    pixels, masks, labels = shapes.draw(0, "val", index)
    image = np.moveaxis(pixels, -1, 0)  # (H, W, 3) -> (3, H, W)
    model, input_config = load_checkpoint(checkpoint)
    found = detect(model, torch.from_numpy(image.copy()), input_config, score)
    return {
        "image": image,
        "class_names": np.array(shapes.CLASS_NAMES),
        "truth_boxes": tight_boxes(masks),
        "truth_labels": np.array(labels),
        "truth_masks": np.packbits(masks, axis=-1),
        "found_boxes": found["boxes"].numpy(),
        "found_labels": found["labels"].numpy(),
        "found_scores": found["scores"].numpy(),
        "found_masks": np.packbits(found["masks"].numpy(), axis=-1),
    }


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--index", type=int, default=21)
    parser.add_argument("--score", type=float, default=0.5)
    arguments = parser.parse_args()
    arrays = make_sample(arguments.checkpoint, arguments.index, arguments.score)
    with written_whole(SAMPLE) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    found, true = len(arrays["found_labels"]), len(arrays["truth_labels"])
    size = f"{SAMPLE.stat().st_size / 1000:.0f} kB"
    print(f"{SAMPLE.name}: {found} detections, {true} true objects, {size}")


if __name__ == "__main__":
    main()
