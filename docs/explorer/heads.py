"""What three trained heads say of the same ten objects, for the page to show.

    python docs/explorer/heads.py benchmarks/results/ablations/laptop-1200

The heads are those of `tensormask-edu ablate 2a 2b --budget laptop`, each trained by itself:
natural, aligned with nearest and aligned with bilinear upscaling, 3 x 3 bins a window made
15 x 15. The objects are the largest of the first ten held-out pictures, each in the middle one
of its positive windows. Writes `src/heads.json`.
"""

from __future__ import annotations

import argparse
import base64
import io
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tensormask_edu.ablations.budget import WORLD, budget
from tensormask_edu.base.files import write_json
from tensormask_edu.data.coco import CocoFolder
from tensormask_edu.data.shapes import write_shapes
from tensormask_edu.detector import inference
from tensormask_edu.detector.model import TensorMask
from tensormask_edu.detector.targets import assign
from tensormask_edu.geometry import Windows
from tensormask_edu.masks import iou
from tensormask_edu.weights.checkpoint import load_checkpoint

TARGET = Path(__file__).parent / "src" / "heads.json"
HEADS = ("natural-5", "nearest-5", "aligned-5")
SHOWN, DRAWN = 10, 40  # objects; held-out pictures to find them in
JPEG_QUALITY = 85


def main() -> int:
    """Write what the page shows; prints the mean IoU of each head on it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="with a checkpoint per head")
    folder = parser.parse_args().folder
    models = {name: load_checkpoint(folder / name)[0].eval() for name in HEADS}
    with tempfile.TemporaryDirectory() as place, torch.inference_mode():
        write_shapes(place, 1, DRAWN, budget("laptop").size_px, progress=False, world=WORLD)
        pictures = CocoFolder(place, "val", keep_empty=True)
        shown = list(islice(seen(models, pictures), SHOWN))
    write_json(TARGET, shown)
    for name in HEADS:
        print(name, round(float(np.mean([one["heads"][name]["iou"] for one in shown])), 3))
    return 0


def seen(models: dict[str, TensorMask], pictures: CocoFolder) -> Iterator[dict[str, Any]]:
    """One object per picture that has a positive window, and what each head says of it."""
    model = models[HEADS[0]]  # of one geometry, all three
    for picture, truth in (pictures[number] for number in range(len(pictures))):
        layout = model.config.geometry.layout([tuple(picture.shape[1:])])
        pairs = assign(truth["boxes"], model.config, layout)  # (P, 2)
        largest = int(truth["masks"].sum((1, 2)).argmax())
        its = pairs[pairs[:, 1] == largest, 0]
        if len(its):
            window = layout.windows[its[len(its) // 2].view(1)]
            mask = truth["masks"][largest]  # (H, W)
            yield {
                "picture": jpeg(picture),
                "size": picture.shape[1],
                "window": window.box_px[0].tolist(),
                "truth": text(np.packbits(mask.numpy())),
                "heads": {
                    name: said(each, picture, mask, window) for name, each in models.items()
                },
            }


def said(model: TensorMask, picture: Tensor, mask: Tensor, window: Windows) -> dict[str, Any]:
    """A head's logits of one window, float16, and IoU with the object's mask (H, W)."""
    output = model.network(model.batch([picture / 255]))
    first = torch.zeros(1, dtype=torch.int64)  # the only picture of the batch
    logits = list(model.network.mask_logits(output, first, window))
    drawn = inference.paste(logits, window.box_px, *mask.shape, model.config.mask_threshold)
    ((_, bins),) = logits  # (1, V, U)
    return {
        "bins": text(bins[0].numpy().astype("<f2")),
        "iou": round(float(iou(drawn, mask[None])[0]), 3),
    }


def text(values: Any) -> str:
    """The bytes of an array, base64."""
    return base64.b64encode(values.tobytes()).decode()


def jpeg(picture: Tensor) -> str:
    """A picture (3, H, W) uint8 as a file, base64."""
    file = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=JPEG_QUALITY)
    return base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    raise SystemExit(main())
