"""Segment image files: a PNG with the masks for each, and one JSON of all detections.

Drawing and listing load no torch, so the exporter's `predict` uses them too.

next: commands/evaluate.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from .. import viz
from ..base.errors import bad_input
from ..base.files import write_json
from ..config import PRECISIONS, InputConfig
from ..data.prepare import Pixels, prepare, read_image
from ..evaluation.results import to_coco

if TYPE_CHECKING:
    from ..detector.model import TensorMask

Arrays = Mapping[str, Any]
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


def predict(
    checkpoint: str | Path,
    source: str | Path,
    output: str | Path,
    score: float = 0.5,
    precision: str = "float32",
    tile_px: int | None = None,
    views: int = 1,
) -> list[Path]:
    """Run a checkpoint on an image or on every image of a folder; on a GPU if there is one.

    Args:
        score: detections below this score are neither drawn nor listed.
        precision: of the network: float32, bfloat16 or float16; boxes and scores stay float32.
        tile_px: the side of the tiles in which larger pictures are seen, in the model's pixels;
            by default only very large ones are, see `detector/tiles.py`.
        views: 1, or 2, 4 or 8 mirrored views that vote, see `detector/views.py`.

    Returns:
        the pictures written into `output`, see `write_predictions`.
    """
    import torch

    from ..detector.tiles import check_tile
    from ..detector.views import check_views
    from ..weights.checkpoint import load_checkpoint

    check_score(score)
    check_tile(tile_px)
    check_views(views)
    if precision not in PRECISIONS:
        raise bad_input("precision", " or ".join(PRECISIONS), precision)
    files = image_files(Path(source))
    model, input_config = load_checkpoint(checkpoint)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    names = model.config.class_names
    found = partial(
        detect,
        model,
        input_config=input_config,
        score=score,
        tile_px=tile_px,
        views=views,
    )
    with torch.autocast(device, getattr(torch, precision), enabled=precision != "float32"):
        return write_predictions(files, found, names, output)


def write_predictions(
    files: Sequence[Path],
    detect: Callable[[Pixels], Arrays],
    class_names: Sequence[str],
    output: str | Path,
) -> list[Path]:
    """Draw detections on pictures and list them in `output/detections.json`.

    The list is in COCO's result form, with the file name as `image_id`.

    Args:
        detect: boxes (d, 4), scores, labels (d,) and masks (d, H, W) or d cutouts of a uint8
            image (3, H, W), whatever computes them.
    """
    category_ids = list(range(1, len(class_names) + 1))
    pictures, found = [], []
    for file in tqdm(files, desc="predict", unit="image", disable=len(files) == 1):
        image = read_image(file)
        detection = detect(image)
        pictures.append(Path(output) / f"{file.stem}.png")
        viz.save_instances(pictures[-1], image, detection, class_names, title=file.name)
        found += to_coco(file.name, detection, category_ids)
    write_json(Path(output) / "detections.json", found)
    return pictures


def check_score(score: float) -> None:
    """Raise InputError unless `score` is a probability."""
    if not 0 <= score <= 1:
        raise bad_input("score", "a number between 0 and 1", score)


def image_files(source: Path) -> list[Path]:
    """The image at `source`, or the images in that folder, sorted by name."""
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise bad_input("image", "an existing image file or folder", source, "check the path")
    files = sorted(f for f in source.iterdir() if f.suffix.lower() in SUFFIXES)
    if not files:
        known = ", ".join(sorted(SUFFIXES))
        raise bad_input("image", f"a folder with images ({known})", source)
    return files


def detect(
    model: TensorMask,
    image: Pixels,
    input_config: InputConfig,
    score: float = 0.0,
    tile_px: int | None = None,
    views: int = 1,
) -> Arrays:
    """Boxes, scores, labels and masks of one uint8 image (3, H, W), in its own pixels.

    Masks are cutouts where the image is seen in tiles, of `tile_px` if given. Each
    tile is seen in all `views`.
    """
    import torch

    from ..detector import tiles
    from ..detector.views import in_views

    size, device = (image.shape[-2], image.shape[-1]), model.pixel_mean.device
    detector = in_views(model, views)
    if tiles.tiled(size, input_config, tile_px):
        return tiles.detect_in_tiles(detector, image, input_config, device, score, tile_px)
    prepared = torch.from_numpy(prepare(image, input_config)).to(device)
    with torch.inference_mode():
        detection = detector([prepared], output_sizes=[size])[0]
    chosen = detection["scores"] >= score
    return {name: value[chosen].cpu().numpy() for name, value in detection.items()}
