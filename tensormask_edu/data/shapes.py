"""The overlap world: small pictures of shapes drawn over each other, as a COCO folder.

A picture has 2 to 6 shapes of four classes, each with a random colour, place, rotation, aspect
0.55-1 and a long side of 10-110 px (log-uniform; for pictures of 128 px). Later shapes hide
earlier ones, and a mask is the part that stays visible. The background is a colour gradient;
noise lies over everything. An instance of fewer than 20 px, or with under 30 % of its shape
visible, is not annotated.

next: data/layouts.py
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ..base.errors import bad_input
from ..base.files import cannot_write, make_folder, write_json
from ..base.progress import Progress
from ..masks import encode

CLASS_NAMES = ("ellipse", "rectangle", "triangle", "star")
SHAPES_PER_IMAGE = (2, 6)
LONG_SIDE_PX = (10.0, 110.0)  # of a 128 px picture; the upper end follows the picture's size
ASPECT = (0.55, 1.0)
CENTRE = (0.1, 0.9)  # of the picture's side, both axes
MIN_VISIBLE_PX = 20
MIN_VISIBLE_SHARE = 0.3
MIN_COLOUR_DISTANCE = 70.0  # Euclidean, of 0..255 RGB, to all that was drawn before
NOISE = 10.0  # standard deviation, of 0..255
SPLITS = ("train", "val")
RECIPE = 1  # raise it when the pictures of a seed change

Points = NDArray[np.float64]  # (n, 2) corners (x, y)


@dataclass(frozen=True)
class World:
    """How many shapes a picture has, how close they lie, and whether their kinds are told.

    shapes: least and most, of a picture.
    centre: where their centres lie, along both axes, as a share of the picture's side.
    one_class: all kinds are one class, so that boxes and masks alone are to be learnt.
    """

    shapes: tuple[int, int] = SHAPES_PER_IMAGE
    centre: tuple[float, float] = CENTRE
    one_class: bool = False

    @property
    def class_names(self) -> tuple[str, ...]:
        return ("shape",) if self.one_class else CLASS_NAMES


STANDARD = World()


# --- one picture ------------------------------------------------------------------------------


def draw(
    seed: int, split: str, index: int, size_px: int = 128, world: World = STANDARD
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], list[int]]:
    """Picture number `index` of a split.

    Returns:
        image: uint8 (size_px, size_px, 3) RGB
        masks: bool (m, size_px, size_px), the visible parts, disjoint
        labels: m indices into `CLASS_NAMES`, the shapes' kinds
    """
    rng = np.random.default_rng([RECIPE, seed, SPLITS.index(split), index])
    canvas = Image.new("L", (size_px, size_px))  # 0: background, k: the k-th shape
    pen = ImageDraw.Draw(canvas)
    kinds, areas_px = [], []
    for number, (kind, points) in enumerate(_random_shapes(rng, size_px, world), start=1):
        pen.polygon([tuple(point) for point in points.tolist()], fill=number)
        kinds.append(kind)
        areas_px.append(_polygon_area(points))  # hidden parts and what lies outside included

    numbers = np.asarray(canvas)  # (size_px, size_px)
    image = _paint(rng, numbers, len(kinds))
    each = np.arange(1, len(kinds) + 1, dtype=np.uint8)[:, None, None]
    masks = numbers == each  # (shapes, size_px, size_px)
    visible_px = masks.sum(axis=(1, 2))
    kept = visible_px >= MIN_VISIBLE_PX
    kept &= visible_px >= MIN_VISIBLE_SHARE * np.array(areas_px)
    return image, masks[kept], [kind for kind, keep in zip(kinds, kept, strict=True) if keep]


def whole(
    seed: int, split: str, index: int, size_px: int = 128, world: World = STANDARD
) -> tuple[NDArray[np.bool_], list[int]]:
    """The shapes of the same picture before they hide each other.

    Returns:
        masks: bool (k, size_px, size_px), in the order of drawing: later ones hide earlier ones
        kinds: k indices into `CLASS_NAMES`
    """
    rng = np.random.default_rng([RECIPE, seed, SPLITS.index(split), index])
    masks, kinds = [], []
    for kind, points in _random_shapes(rng, size_px, world):
        canvas = Image.new("1", (size_px, size_px))
        ImageDraw.Draw(canvas).polygon([tuple(point) for point in points.tolist()], fill=1)
        masks.append(np.asarray(canvas))
        kinds.append(kind)
    return np.stack(masks), kinds


def outline(kind: int, long_px: float, aspect: float, angle: float) -> Points:
    """Corners (n, 2) of a shape of class `kind` around (0, 0), in pixels (x, y).

    The shape fills a box of `long_px` by `aspect * long_px`, turned by `angle` (radians).
    """
    cos, sin = np.cos(angle), np.sin(angle)
    half_sides_px = long_px / 2 * np.array([1.0, aspect])
    return _UNIT_OUTLINES[kind] * half_sides_px @ np.array([[cos, sin], [-sin, cos]])


def _unit_outlines() -> tuple[Points, ...]:
    """Per class, corners in the square from -1 to 1."""

    def around(angles: NDArray[np.float64]) -> Points:
        return np.stack([np.sin(angles), -np.cos(angles)], axis=1)

    circle = around(2 * np.pi * np.arange(48) / 48)
    reach = np.where(np.arange(10) % 2, 0.45, 1.0)  # a star's tips and notches by turns
    star = around(2 * np.pi * np.arange(10) / 10) * reach[:, None]
    low, high = star.min(axis=0), star.max(axis=0)
    return (
        circle,
        np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]),
        np.array([[0.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]),
        (2 * star - low - high) / (high - low),  # five tips do not fill the square: stretched
    )


_UNIT_OUTLINES = _unit_outlines()


def _random_shapes(
    rng: np.random.Generator, size_px: int, world: World
) -> Iterator[tuple[int, Points]]:
    """Kind and corners of the shapes of one picture, in the order of drawing."""
    for _ in range(rng.integers(*world.shapes, endpoint=True)):
        kind = int(rng.integers(len(CLASS_NAMES)))
        yield kind, _random_outline(rng, kind, size_px, world.centre)


def _random_outline(
    rng: np.random.Generator, kind: int, size_px: int, centre: tuple[float, float]
) -> Points:
    shortest, longest = LONG_SIDE_PX[0], LONG_SIDE_PX[1] * size_px / 128
    long_px = np.exp(rng.uniform(np.log(shortest), np.log(longest)))
    shape = outline(kind, long_px, rng.uniform(*ASPECT), rng.uniform(0, 2 * np.pi))
    return shape + rng.uniform(*centre, size=2) * size_px


def _polygon_area(points: Points) -> float:
    """The area inside a polygon, px² (the shoelace formula)."""
    x, y = points.T.copy()
    before_x, before_y = np.append(x[-1:], x[:-1]), np.append(y[-1:], y[:-1])
    return float(abs(x @ before_y - y @ before_x) / 2)


def _paint(
    rng: np.random.Generator, numbers: NDArray[np.uint8], count: int
) -> NDArray[np.uint8]:
    """The picture of a map of shape numbers: gradient, one colour per shape, noise over all."""
    size_px = numbers.shape[0]
    start, end = rng.uniform(0, 255, size=(2, 3))
    angle = rng.uniform(0, 2 * np.pi)
    place = np.arange(size_px, dtype=np.float32) / size_px - 0.5
    # (size, size), how much of `end`
    share = 0.5 + 0.7 * (np.cos(angle) * place + np.sin(angle) * place[:, None])
    colours = [start, end]
    for _ in range(count):
        colours.append(_different_colour(rng, colours))
    table = np.array(colours[1:], dtype=np.float32)  # row k: shape k; row 0 is the gradient's
    image = table.take(numbers, axis=0)  # (size, size, 3)
    ground = numbers == 0
    for channel in range(3):  # whole planes: an axis of three is slow
        gradient = start[channel] + (end - start)[channel] * share
        image[:, :, channel] = np.where(ground, gradient, image[:, :, channel])
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    noise *= NOISE
    image += noise
    return np.clip(image, 0, 255, out=image).astype(np.uint8)


def _different_colour(
    rng: np.random.Generator, used: list[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """A colour far from all that are used; the last of 50 tries, if none is."""
    for _ in range(50):
        colour = rng.uniform(0, 255, size=3)
        if np.linalg.norm(np.array(used) - colour, axis=1).min() >= MIN_COLOUR_DISTANCE:
            break
    return colour


# --- a data set of them -----------------------------------------------------------------------


def write_shapes(
    folder: str | Path,
    train: int = 4000,
    val: int = 200,
    size_px: int = 128,
    seed: int = 0,
    progress: bool = True,
    world: World = STANDARD,
) -> bool:
    """Write the overlap world: `images/`, `instances_train.json`, `instances_val.json`.

    Every picture depends on (seed, split, its number) only, so a larger set begins with the
    smaller one. The JSON files come last and whole: a folder without them is no data set.

    Returns:
        True if it was written; False if the same set was there already.

    Raises:
        InputError: a number is out of range, or `folder` holds something else.
    """
    given = {"train": (train, 1), "val": (val, 1), "size_px": (size_px, 32), "seed": (seed, 0)}
    for name, (value, least) in given.items():
        if value < least:
            raise bad_input(name, f"at least {least}", value)
    folder, counts = Path(folder), {"train": train, "val": val}
    infos = {split: _info(split, counts[split], size_px, seed, world) for split in SPLITS}
    present = {split: _stored_info(folder / f"instances_{split}.json") for split in SPLITS}
    if present == infos:
        if progress:
            print(f"{folder}: this data set is there already")
        return False
    for split, info in present.items():
        if info not in (None, infos[split]):
            got = f"{folder}, which holds another data set"
            raise bad_input("folder", "a new folder", got, "choose another")
    if other := _other_than_ours(folder):
        got = f"{folder}, which holds {other}"
        raise bad_input("folder", "a new folder", got, "choose another")

    with Progress(total=train + val, desc="drawing", unit="image", disable=not progress) as bar:
        datasets = {
            split: _write_split(folder, infos[split], world, bar) for split in reversed(SPLITS)
        }
    for split, dataset in datasets.items():
        write_json(folder / f"instances_{split}.json", dataset, indent=None)
    return True


def _info(split: str, images: int, size_px: int, seed: int, world: World) -> dict[str, Any]:
    """What identifies a split; stored in its JSON."""
    other = (
        {} if world == STANDARD else {"world": [*world.shapes, *world.centre, world.one_class]}
    )
    return {
        "description": "overlap world of tensormask_edu",
        "recipe": RECIPE,
        "split": split,
        "images": images,
        "size_px": size_px,
        "seed": seed,
    } | other


def _stored_info(path: Path) -> Any:
    """The `info` of a ground truth file; None if there is no such file."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))["info"]
    except (OSError, ValueError, KeyError, TypeError):
        return "another file"  # equal to no info of ours


def _other_than_ours(folder: Path) -> str | None:
    """The first file in `folder` that no interrupted writer left; hidden ones do not count."""
    ours = r"images(/(train|val)_\d{5,}\.png)?|instances_(train|val)\.json"
    there = [*folder.glob("*"), *(folder / "images").glob("*")]
    names = sorted(path.relative_to(folder).as_posix() for path in there if path.name[0] != ".")
    return next((name for name in names if not re.fullmatch(ours, name)), None)


def _write_split(folder: Path, info: dict[str, Any], world: World, bar: Any) -> dict[str, Any]:
    """Draw and write the pictures of one split; its COCO ground truth comes back."""
    make_folder(folder / "images")
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(info["images"]):
        name = f"{info['split']}_{index:05d}.png"
        which = info["seed"], info["split"], index, info["size_px"]
        image, masks, kinds = draw(*which, world)
        labels = [0] * len(kinds) if world.one_class else kinds
        _save(image, folder / "images" / name)
        height, width = image.shape[:2]
        images.append({"id": index + 1, "file_name": name, "height": height, "width": width})
        for annotation in _annotations(masks, labels):
            annotations.append({"id": len(annotations) + 1, "image_id": index + 1} | annotation)
        bar.update()
    names = world.class_names
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(names)]
    return {
        "info": info,
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }


def _save(image: NDArray[np.uint8], path: Path) -> None:
    try:
        path.write_bytes(_png(image))
    except OSError as error:
        with suppress(OSError):  # half a picture
            path.unlink(missing_ok=True)
        raise cannot_write(path, error) from None


def _png(image: NDArray[np.uint8]) -> bytes:
    """uint8 (height, width, 3) as a PNG whose rows are stored as they are.

    Noise hardly gets smaller: a library's search for the best filter would take half of the
    time of drawing, and every training would undo it again, for a quarter of the bytes.
    """
    height, width, _ = image.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # a row's first byte: its filter, none
    rows[:, 1:] = image.reshape(height, -1)
    # 8 bits per channel, red green blue, and the three methods that there are
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 0)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _annotations(masks: NDArray[np.bool_], labels: list[int]) -> Iterator[dict[str, Any]]:
    """COCO's annotations of one picture, but for their ids."""
    from pycocotools import mask as mask_utils

    for label, rle in zip(labels, encode(masks), strict=True):
        yield {
            "category_id": label + 1,
            "iscrowd": 0,
            "area": int(mask_utils.area(rle)),
            "bbox": mask_utils.toBbox(rle).tolist(),
            "segmentation": rle,
        }
