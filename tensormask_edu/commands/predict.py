"""Segment image files: a PNG with the masks for each, and one JSON of all detections.

A picture of a folder that cannot be read does not keep the others from being done. Drawing and
listing load no torch, so the exporter's `predict` uses them too.

next: commands/evaluate.py
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

from .. import viz
from ..base.errors import InputError, bad_input, printable
from ..base.files import check_folder, refuse_overwriting, write_json
from ..base.memory import room_for
from ..base.progress import Progress
from ..base.signals import interrupts
from ..base.threads import Threads, choose
from ..config import PRECISIONS, InputConfig
from ..data.pictures import Pixels, read_image
from ..data.prepare import prepare
from ..evaluation.results import Detection, to_coco

if TYPE_CHECKING:
    from ..detector.model import TensorMask

Arrays = Mapping[str, Any]
DETECTIONS = "detections.json"
SMALLER = "--tile 512 looks at it in parts"
# Of the kinds that `data/pictures.py` reads
SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".jp2",
    ".tga",
}  # fmt: skip


def predict(
    checkpoint: str | Path,
    source: str | Path,
    output: str | Path,
    score: float = 0.5,
    precision: str = "float32",
    tile_px: int | None = None,
    views: int = 1,
) -> Predictions:
    """Run a checkpoint on an image or on every image of a folder; on a GPU if there is one.

    Args:
        score: detections below this score are neither drawn nor listed.
        precision: of the network: float32, bfloat16 or float16; boxes and scores stay float32.
        tile_px: the side of the tiles in which larger pictures are seen, in the model's pixels;
            by default only very large ones are, see `detector/tiles.py`.
        views: 1, or 2, 4 or 8 mirrored views that vote, see `detector/views.py`.

    Returns:
        what was written into `output`, and what could not be read, see `write_predictions`.
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
    files = image_files(Path(source), output)
    model, input_config = load_checkpoint(checkpoint)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    classes = dict(zip(model.config.categories, model.config.class_names, strict=True))
    found: Callable[[Pixels], Arrays] = partial(
        detect,
        model,
        input_config=input_config,
        score=score,
        tile_px=tile_px,
        views=views,
    )
    if device == "cpu":
        found = _timed(found, alone=len(files) == 1)
    with torch.autocast(device, getattr(torch, precision), enabled=precision != "float32"):
        return write_predictions(files, found, classes, output)


def _timed(found: Callable[[Pixels], Arrays], alone: bool) -> Callable[[Pixels], Arrays]:
    """`found` with as many threads as are quickest: tried on it, or beforehand if alone."""
    threads = choose() if alone else Threads(say=partial(Progress.write, file=sys.stderr))

    def timed(image: Pixels) -> Arrays:
        with threads.timed():
            return found(image)

    return timed


@dataclass(frozen=True)
class Predictions:
    """The pictures that were written, and why there is none of the other files."""

    pictures: list[Path]
    failed: list[str]


def write_predictions(
    files: Sequence[Path],
    detect: Callable[[Pixels], Arrays],
    classes: Mapping[int, str],
    output: str | Path,
) -> Predictions:
    """Draw detections on pictures and list them in `output/detections.json`.

    The list is in COCO's result form, with the file name as `image_id`. Of several files those
    that cannot be read are left out. Asked to end, it lists what was drawn and ends.

    Args:
        files: what `image_files` found.
        classes: the category id and the name of each label.
        detect: boxes (d, 4), scores, labels (d,) and masks (d, H, W) or d cutouts of a uint8
            image (3, H, W), whatever computes them.

    Raises:
        InputError: a single file that cannot be read, a place that cannot be written.
        KeyboardInterrupt, SystemExit: by Ctrl-C, by another signal of `base/signals.py`.
    """
    category_ids, class_names = list(classes), list(classes.values())
    written: list[Path] = []
    failed: list[str] = []
    found: list[Detection] = []
    alone, asked = len(files) == 1, Event()
    names = zip(files, picture_names(files), strict=True)
    bar = Progress(names, "predict", len(files), unit="image", disable=alone)
    # Of a single picture nothing would be done: it stops at once
    with nullcontext() if alone else interrupts(asked.set), _listed(output, found):
        for file, name in bar:
            if asked.is_set():
                break
            try:
                image = read_image(file)
            except InputError as error:
                if alone:
                    raise
                failed.append(str(error))
                continue
            detection = detect(image)
            written.append(Path(output) / name)
            viz.save_instances(written[-1], image, detection, class_names, title=file.name)
            found += to_coco(file.name, detection, category_ids)
    if asked.is_set():  # by Ctrl-C: the others have ended the program
        raise KeyboardInterrupt
    return Predictions(written, failed)


@contextmanager
def _listed(output: str | Path, found: list[Detection]) -> Iterator[None]:
    """Write the list at the end, also where an error comes after some pictures are drawn."""
    try:
        yield
    except BaseException:
        if found:
            with suppress(InputError):  # the first error is the one to tell
                write_json(Path(output) / DETECTIONS, found)
        raise
    write_json(Path(output) / DETECTIONS, found)


def picture_names(files: Sequence[Path]) -> list[str]:
    """The PNG of each file: `a.png` for `a.jpg`, but `a.jpg.png` where that could be another's.

    Upper and lower case are one, and so are a letter's Unicode forms, as they are on some
    disks. Files that differ in nothing else get `a.jpg.png` and `a.jpg.2.png`.
    """
    stems = Counter(_form(name) for file in files for name in (file.stem, file.name))
    names: dict[str, str] = {}  # by their forms, in the order of the files
    for file in files:
        name = first = file.stem if stems[_form(file.stem)] == 1 else file.name
        number = 1
        while _form(name) in names:
            number += 1
            name = f"{first}.{number}"
        names[_form(name)] = f"{name}.png"
    return list(names.values())


def _form(name: str) -> str:
    """What names have in common that some disk takes for one."""
    return normalize("NFC", normalize("NFC", name).casefold())


def exit_code(failed: Sequence[str]) -> int:
    """What a command returns; says on stderr which files were left out."""
    for reason in failed:
        print(f"left out: {printable(reason)}", file=sys.stderr)
    return 1 if failed else 0


def check_score(score: float) -> None:
    """Raise InputError unless `score` is a probability."""
    if not 0 <= score <= 1:
        raise bad_input("score", "a number between 0 and 1", score)


def image_files(source: Path, output: str | Path) -> list[Path]:
    """The image at `source`, or the images in that folder, sorted by name.

    Hidden files, as macOS leaves them beside pictures, and folders are passed over.

    Raises:
        InputError: nothing there, or what is written into `output` could replace an image.
    """
    if not source.exists():
        raise bad_input("image", "an existing image file or folder", source, "check the path")
    files = sorted(filter(_is_image, source.iterdir())) if source.is_dir() else [source]
    # Not Path.resolve, to which a link that leads to itself is an error
    folders = {Path(path).parent for f in files for path in (f, os.path.realpath(f))}
    refuse_overwriting("output", output, *folders)
    check_folder(output)
    if not files:
        known = ", ".join(sorted(SUFFIXES))
        raise bad_input("image", f"a folder with images ({known})", source)
    return files


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and file.name[0] != "." and not file.is_dir()


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
    with room_for(f"a picture of {size[0]} x {size[1]} px", SMALLER):
        if tiles.tiled(size, input_config, tile_px):
            return tiles.detect_in_tiles(detector, image, input_config, device, score, tile_px)
        prepared = torch.from_numpy(prepare(image, input_config)).to(device)
        with torch.inference_mode():
            detection = detector([prepared], output_sizes=[size])[0]
    chosen = detection["scores"] >= score
    return {name: value[chosen].cpu().numpy() for name, value in detection.items()}
