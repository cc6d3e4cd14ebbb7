"""Load: crowded pictures, many annotations, a large photo; what memory does on the way.

    python benchmarks/load.py crowds --json benchmarks/results/load-cpu.json
    python benchmarks/load.py annotations --json benchmarks/results/load-cpu.json
    python benchmarks/load.py photo --json benchmarks/results/load-cpu.json

crowds: pictures of 128 px with 0 to 300 objects each, trained on and evaluated with the model
`shapes`, a small cache. Resident memory is read after every hundredth picture; its growth is
the slope of a line through the readings, the first third left out, in which caches fill.
annotations: a JSON of so many polygons, loaded, each mask drawn once, and scored as detections
of themselves. photo: 4000 x 6000 px through `predict`.
"""

from __future__ import annotations

import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from device import MIB
from measure import RESULTS, facts, script_parser
from PIL import Image

from tensormask_edu.base.files import read_json, write_json
from tensormask_edu.commands.predict import predict
from tensormask_edu.config import recipe
from tensormask_edu.data.coco import CocoFolder
from tensormask_edu.evaluation import coco_scores
from tensormask_edu.evaluation.ceiling import ceiling
from tensormask_edu.training import train as training
from tensormask_edu.weights.checkpoint import load_checkpoint

SIDE_PX, MOST_OBJECTS = 128, 300
CLASS_NAMES = ("ellipse", "rectangle", "triangle", "star")  # of the model `shapes`
EVERY = 100  # pictures between two readings
PHOTO_PX = (4000, 6000)
MOST_GROWTH_MB = 5.0  # per hundred pictures
CACHE_MB = 4  # of decoded pictures: full before the readings that count


# --- data -------------------------------------------------------------------------------------


def write_crowds(folder: Path, pictures: int, most: int) -> Path:
    """A data set for both splits: from none to `most` rectangles in a picture, in any order."""
    generator = np.random.default_rng(0)
    counts = generator.permutation(np.linspace(0, most, pictures).round().astype(int))
    (folder / "images").mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, count in enumerate(counts.tolist()):
        pixels = generator.integers(0, 80, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
        for _ in range(count):
            h, w = generator.integers(5, 40, 2).tolist()
            y, x = (int(generator.integers(0, SIDE_PX - side)) for side in (h, w))
            pixels[y : y + h, x : x + w] = generator.integers(90, 255, 3)
            annotations.append(_annotation(len(annotations) + 1, number + 1, y, x, h, w))
        name = f"{number:05}.png"
        Image.fromarray(pixels).save(folder / "images" / name)
        images.append(_image(number + 1, name))
    _write(folder, images, annotations)
    return folder


def write_annotations(folder: Path, annotations: int, a_picture: int = 100) -> Path:
    """A data set of so many rectangles as polygons, in pictures of the same noise."""
    generator = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    pixels = generator.integers(0, 255, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "images" / "0.png")
    images = [_image(n + 1, f"{n}.png") for n in range(-(-annotations // a_picture))]
    for image in images[1:]:
        os.link(folder / "images" / "0.png", folder / "images" / image["file_name"])
    sides = generator.integers(5, 40, (annotations, 2)).tolist()
    corners = generator.integers(0, SIDE_PX - 40, (annotations, 2)).tolist()
    numbers = range(annotations)
    _write(folder, images, [
        _annotation(n + 1, n // a_picture + 1, *corners[n], *sides[n]) for n in numbers
    ])  # fmt: skip
    return folder


def _image(number: int, name: str) -> dict[str, Any]:
    return {"id": number, "file_name": name, "height": SIDE_PX, "width": SIDE_PX}


def _annotation(number: int, image: int, y: int, x: int, h: int, w: int) -> dict[str, Any]:
    polygon = [float(v) for v in (x, y, x + w, y, x + w, y + h, x, y + h)]
    shape = {"segmentation": [polygon], "bbox": [x, y, w, h], "area": h * w, "iscrowd": 0}
    return {"id": number, "image_id": image, "category_id": number % 4 + 1} | shape


def _write(folder: Path, images: list[Any], annotations: list[Any]) -> None:
    categories = [{"id": n + 1, "name": name} for n, name in enumerate(CLASS_NAMES)]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    for split in ("train", "val"):
        (folder / f"instances_{split}.json").write_text(json.dumps(truth))


# --- memory -----------------------------------------------------------------------------------


def resident_mb() -> float:
    """What this process holds in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def peak_mb() -> float:
    """The most that it ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def readings(every: int) -> Iterator[list[float]]:
    """Resident memory after every so many pictures that a data set gave, in MiB."""
    found: list[float] = []
    image, count = CocoFolder.image, 0

    def counted(self: CocoFolder, index: int) -> torch.Tensor:
        nonlocal count
        count += 1
        if count % every == 0:
            found.append(resident_mb())
        return image(self, index)

    CocoFolder.image = counted  # type: ignore[method-assign]
    try:
        yield found
    finally:
        CocoFolder.image = image  # type: ignore[method-assign]


def growth(found: Sequence[float], every: int) -> float:
    """MiB for a hundred pictures: the slope of a line through the last two thirds."""
    last = np.array(found[len(found) // 3 :])
    if len(last) < 2:
        return 0.0
    return float(np.polyfit(np.arange(len(last)), last, 1)[0]) * 100 / every


# --- the parts --------------------------------------------------------------------------------


def crowds(folder: Path, size: int) -> dict[str, Any]:
    """Train on every picture once, then evaluate on all of them."""
    every = min(EVERY, max(1, size // 10))
    data = write_crowds(folder / "crowds", size, MOST_OBJECTS)
    chosen, batch = recipe("shapes"), 4
    steps, cache = max(1, size // batch), {"cache_mb": CACHE_MB, "threads": 1}
    chosen = replace(chosen, train=replace(chosen.train, steps=steps, lr=1e-4, **cache))
    results: dict[str, Any] = {"pictures": size, "objects": f"0 to {MOST_OBJECTS}"}
    with measured(results, "train"), readings(every) as found:
        training.train(chosen, data, folder / "run", weights="shapes")
    results["train"] |= judged(found, every)
    model, input_config = load_checkpoint(folder / "run" / "checkpoint")
    dataset = CocoFolder(data, "val", keep_empty=True)
    with measured(results, "look"), readings(every) as found:
        detections, _ = coco_scores.evaluate_model(model, dataset, input_config)
    results["look"] |= judged(found, every) | {"detections": len(detections)}
    with measured(results, "score"):
        results["AP"] = coco_scores.score_all(dataset, detections, size)["segm"]["AP"]
    with measured(results, "ceiling"), readings(every) as found:
        ceiling(model.config, dataset, input_config)
    results["ceiling"] |= judged(found, every)
    return results


def annotations(folder: Path, size: int) -> dict[str, Any]:
    """Load so many, draw each once, score them as detections of themselves."""
    data = write_annotations(folder / "many", size)
    results: dict[str, Any] = {"annotations": size}
    with measured(results, "load"):
        dataset = CocoFolder(data, "val", keep_empty=True)
    with measured(results, "draw"), readings(1) as found:
        drawn = sum(len(dataset[index][1]["masks"]) for index in range(len(dataset)))
    results["draw"] |= judged(found, 1) | {"masks": drawn}
    fields = ("image_id", "category_id", "segmentation", "bbox")
    truth = dataset.ground_truth.annotations
    detections = [{name: each[name] for name in fields} | {"score": 1.0} for each in truth]
    with measured(results, "score"):
        scores = coco_scores.score_all(dataset, detections, len(dataset))
    results["AP"] = scores["segm"]["AP"]
    return results


def photo(folder: Path, size: int) -> dict[str, Any]:
    """A photo of 4000 x 6000 px with shapes everywhere, or of a part of its sides."""
    height, width = (side * size // 100 for side in PHOTO_PX)
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 80, (height, width, 3), dtype=np.uint8)
    for _ in range(height * width // 8000):
        h, w = generator.integers(10, 60, 2)
        y, x = generator.integers(0, height - h), generator.integers(0, width - w)
        pixels[y : y + h, x : x + w] = generator.integers(90, 255, 3)
    Image.fromarray(pixels).save(folder / "photo.png", compress_level=1)
    results: dict[str, Any] = {"height_px": height, "width_px": width}
    with measured(results, "predict"):
        predict("shapes", folder / "photo.png", folder / "seen", score=0.3)
    results["detections"] = len(read_json(folder / "seen" / "detections.json"))
    return results


@contextmanager
def measured(results: dict[str, Any], name: str) -> Iterator[None]:
    """Seconds of the CPU, and memory before and at most."""
    before, start = resident_mb(), time.process_time()
    yield
    seconds = time.process_time() - start
    results[name] = {"cpu_s": seconds, "before_mb": before, "peak_mb": peak_mb()}
    print(
        f"{name}: {seconds:.1f} s, {before:.0f} MiB before, {peak_mb():.0f} at most", flush=True
    )


def judged(found: Sequence[float], every: int) -> dict[str, Any]:
    """The readings, their slope, and whether it is low enough."""
    slope = growth(found, every)
    return {
        "resident_mb": [round(value, 1) for value in found],
        "growth_mb_per_100": slope,
        "bounded": slope < MOST_GROWTH_MB,
    }


# part -> what it does, how much of it
PARTS: dict[str, tuple[Callable[[Path, int], dict[str, Any]], int]] = {
    "crowds": (crowds, 1000),
    "annotations": (annotations, 100_000),
    "photo": (photo, 100),
}


def main() -> int:
    """Do one part, print and store it; 1 if memory grew."""
    parser = script_parser(__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--size", type=int, help="pictures, annotations, percent of the sides")
    parser.set_defaults(json=str(RESULTS / "load-cpu.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    work, usual = PARTS[args.part]
    with tempfile.TemporaryDirectory() as name:
        found = work(Path(name), args.size or usual)
    target = Path(args.json)
    results = read_json(target) if target.is_file() else {}
    write_json(target, results | {"machine": facts(), args.part: found})
    print(json.dumps({k: v for k, v in found.items() if k != "resident_mb"}, indent=1))
    parts = [value for value in found.values() if isinstance(value, dict)]
    return 0 if all(part.get("bounded", True) for part in parts) else 1


if __name__ == "__main__":
    raise SystemExit(main())
