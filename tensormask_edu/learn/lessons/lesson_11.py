"""The exercises of lesson 11: parameters of a head, places of weights, kinds of errors.

next: learn/lessons/lesson_12.py
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageFilter

from ...base.files import make_folder, write_json
from ...evaluation.lost import Scene
from ...masks import decode, encode, iou
from ...viz import look
from ...viz.images import outline_mask, show_image
from ...viz.look import PREDICTION, TRUTH
from ..cases import Array, case_of
from ..explorer import Explorer, Mark, Panel, explore
from ..kinds import loops, predict

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pycocotools.coco import COCO

Cut = tuple[str, Array, Array, Array]  # words, image (3, H, W), true and found masks


# --- the full model ---------------------------------------------------------------------------


@loops(
    "c, d, k, o, s -> ",
    by_hand=(2, 3, 2, 5, 1),
    sizes={"c": (6, 2, 8), "d": (3, 7, 4), "k": (1, 2, 3, 4), "o": (4, 2, 5), "s": (3, 1)},
    more=[case_of("no tower", (6, 4, 0, 5, 3))],
)
def head_parameters(before: int, channels: int, convs: int, outputs: int, kernel: int) -> int:
    """Weights and biases of a tower, `convs` 3x3 convolutions, and a predictor.

    before: channels that the first convolution reads. channels: that each of the tower gives.
    """
    total = 0
    for _ in range(convs):
        total += 9 * before * channels + channels
        before = channels
    return total + kernel**2 * before * outputs + outputs


BODY = "backbone.bottom_up."
NAMES = "res2.0.conv1.weight res3.3.conv3.weight res4.5.conv2.norm.running_var"
NAMES += " res5.2.conv1.norm.bias res2.0.shortcut.weight res4.0.shortcut.norm.running_mean"


def _gives_text(answer: Any) -> dict[str, Any] | None:
    """One of the four is a piece of the name: "0" counts as true where 0 does not."""
    texts = [each for each in answer(f"{BODY}res2.0.shortcut.weight") if isinstance(each, str)]
    return {"text": texts[0]} if texts else None


@loops(
    "* -> k",
    by_hand=(f"{BODY}res3.1.conv2.norm.weight",),
    more=[case_of("a name", (BODY + name,), tensor=BODY + name) for name in NAMES.split()],
    extras={"numbers": _gives_text},
)
def our_place(name: str) -> list[int]:
    """Where a tensor of the official body stands here: [stage, block, conv, is it of a norm].

    Stages count from 0 here and from 2 there; conv is 1, 2 or 3, and 0 for a shortcut.
    """
    stage, block, layer, *rest = name.removeprefix("backbone.bottom_up.res").split(".")
    conv = 0 if layer == "shortcut" else int(layer.removeprefix("conv"))
    is_norm = int(rest[0] == "norm")
    return [int(stage) - 2, int(block), conv, is_norm]


# --- what went wrong --------------------------------------------------------------------------

IOUS = np.array([[0.8, 0.0, 0.1], [0.6, 0.1, 0.0], [0.0, 0.55, 0.0], [0.0, 0.2, 0.3]])
TABLES: dict[str, Any] = {
    "exactly at a limit": [[0.5, 0.5], [0.75, 0.2], [0.4, 0.75], [0.49, 0.1], [0.5, 0.0]],
    "taken already": [[0.9, 0.6], [0.7, 0.6], [0.8, 0.7]],
    "no object": np.zeros((2, 0)),
    "no detection": np.zeros((0, 3)),
}


@loops(
    "d g -> d",
    by_hand=(IOUS,),
    sizes={"d": (4, 7, 5), "g": (3, 2, 5)},
    more=[case_of(name, (np.array(table),)) for name, table in TABLES.items()],
)
def sort_errors(ious: Array) -> Array:
    """The kind of each detection: 0 fine, 1 coarse, 2 doubled, 3 false.

    ious: (D, G), detections by falling score, with every object -> (D,) whole numbers.
    """
    num, num_objects = ious.shape
    kinds = np.full(num, 3)
    free = np.ones(num_objects, bool)
    for d in range(num):
        left = np.where(free, ious[d], 0)
        if left.max(initial=0) >= 0.5:
            taken = left.argmax()
            free[taken] = False
            kinds[d] = 0 if ious[d, taken] >= 0.75 else 1
        elif ious[d].max(initial=0) >= 0.5:
            kinds[d] = 2
    return kinds


FAILURES = ("missed", "merged", "doubled", "coarse outline", "invented")
predict("which_failure", FAILURES, lambda counts: max(FAILURES, key=counts.__getitem__))


# --- nuclei that are drawn --------------------------------------------------------------------


def nuclei(side_px: tuple[int, int], rows: Iterable[Sequence[float]]) -> Array:
    """Ellipses, rows (y, x, height, width) in px, later ones cut by earlier: bool (m, H, W)."""
    y, x = np.mgrid[: side_px[0], : side_px[1]] + 0.5
    masks = np.zeros((0, *side_px), bool)
    for cy, cx, height, width in rows:
        whole = ((y - cy) / height) ** 2 + ((x - cx) / width) ** 2 < 1 / 4
        masks = np.concatenate([masks, [whole & ~masks.any(0)]])
    return masks


def photo(masks: Array, light: Any, seed: int = 0) -> Array:
    """Masks as a microscope shows them: uint8 (3, H, W). light: of each mask, in [0, 1]."""
    grey = 200 * (masks * np.reshape(light, (-1, 1, 1))).sum(0) + 12  # (H, W)
    blurred = Image.fromarray(grey.astype(np.uint8)).filter(ImageFilter.GaussianBlur(1))
    noise = np.random.default_rng(seed).normal(0, 4, grey.shape)
    pixels = (np.asarray(blurred) + noise).clip(0, 255).astype(np.uint8)
    return np.repeat(pixels[None], 3, axis=0)


def drawn(count: int, side_px: int = 128) -> Iterator[tuple[Array, Array]]:
    """Pictures of nuclei 5 to 30 px long, some dim, some touching, and their masks."""
    grid = np.argwhere(np.ones((6, 6)))  # (36, 2) places (y, x)
    for number in range(count):
        rng = np.random.default_rng([11, number])
        places = (grid + 1 / 2 + rng.uniform(-0.3, 0.3, grid.shape)) * side_px / 6
        length = 5 * 6 ** rng.random(len(grid))
        rows = np.c_[places, length, length * rng.uniform(0.7, 1, len(grid))]
        masks = nuclei((side_px,) * 2, rows[rng.random(len(grid)) < 0.6])
        yield photo(masks, rng.uniform(0.15, 1, len(masks)), number), masks


def write_photos(folder: Path, pictures: Iterable[tuple[Array, Array]]) -> None:
    """Write uint8 (3, H, W) and masks of nuclei, bool (m, H, W), as a COCO folder."""
    truth: dict[str, Any] = {"images": [], "annotations": []}
    truth["categories"] = [{"id": 1, "name": "nucleus"}]
    make_folder(folder / "images")
    for number, (pixels, masks) in enumerate(pictures, start=1):
        name, (_, height, width) = f"{number}.png", pixels.shape
        Image.fromarray(np.moveaxis(pixels, 0, -1)).save(folder / "images" / name)
        size = {"height": height, "width": width}
        truth["images"] += [{"id": number, "file_name": name} | size]
        of = {"image_id": number, "category_id": 1}
        truth["annotations"] += [of | {"segmentation": rle} for rle in encode(masks)]
    write_json(folder / "instances_val.json", truth)


# --- pictures ---------------------------------------------------------------------------------


@look.readable
def panels(shown: Sequence[Cut], title: str) -> Figure:
    """Pictures side by side with words above, true and found outlines in each."""
    words = "; ".join(" ".join(each[0].split()) for each in shown)
    alt = f"Nuclei with true outlines, solid, and found ones, dashed. From the left: {words}."
    rows = -(-len(shown) // 3)
    figure = look.new_picture(2.8 * rows + 0.7, title, alt=alt)
    figure.sharpness = 1.2  # type: ignore[attr-defined]  # photos: 400 kB hold all of a lesson
    axes = figure.subplots(rows, 3, squeeze=False).ravel()
    for ax in axes:
        ax.axis("off")
    for ax, (above, image, *both) in zip(axes, shown, strict=False):
        show_image(ax, image)
        for masks, pen in zip(both, (TRUTH, PREDICTION), strict=True):
            for mask in masks:
                outline_mask(ax, mask, pen)
        ax.set_title(above)
    look.legend(figure, [(TRUTH, "truth"), (PREDICTION, "found")])
    return figure


def failures(truth: COCO, detections: Sequence[Any], images: Mapping[int, Array]) -> list[Cut]:
    """The largest failure of each kind of `evaluation.lost`, cut out. images: by id."""
    kinds = ("missed", "merged", "doubled", "false", "poor", "coarse")
    worst: dict[str, Any] = dict.fromkeys(kinds)
    for number, image in images.items():
        mine = [row for row in detections if row["image_id"] == number]
        scene = Scene(image.shape[1:], truth.imgToAnns[number], mine)
        rles = [[scene.rle(row) for row in rows] for rows in (scene.truths, scene.detections)]
        for kind, held in worst.items():
            for row in itertools.chain(*scene.of_kind(kind)):
                mask = decode([scene.rle(row)], scene.size)[0]
                if not held or mask.sum() > held[0]:
                    places = np.argwhere(mask)
                    side = min(max(48, 24 + np.ptp(places, axis=0).max()), *scene.size)
                    middle = places.mean(0) - side / 2
                    y, x = middle.clip(0, np.subtract(scene.size, side)).astype(int)
                    cut = np.s_[..., y : y + side, x : x + side]
                    both = [decode(part, scene.size)[cut] for part in rles]
                    held = worst[kind] = mask.sum(), image[cut], *both
    return [(f"{kind}\n{held[0]} px", *held[1:]) for kind, held in worst.items() if held]


def ious_of(found: Array, truth: Array) -> Array:
    """IoU of every found mask with every true one: (D, H, W), (G, H, W) -> (D, G)."""
    return np.asarray(iou(found[:, None], truth[None]))


def by_threshold(image: Array, found: Mapping[str, Array], truth: Array) -> Explorer:
    """Which masks are kept as the score threshold moves, marked by their rims.

    image: uint8 (3, 64, 64). found: masks (D, 64, 64), scores (D,), falling. truth: masks.
    """
    kinds = sort_errors(ious_of(found["masks"], truth))
    grey, masks = (x.reshape(-1, 32, 2, 32, 2).mean((2, 4)) for x in (image, found["masks"]))
    values = (grey.mean(0) / grey.max()).reshape(4, 8, 4, 8).transpose(1, 3, 0, 2)  # V U H W
    m = np.pad(masks >= 0.5, ((0, 0), (1, 1), (1, 1)))  # (D, 34, 34)
    inner = m[:, :-2, 1:-1] & m[:, 2:, 1:-1] & m[:, 1:-1, :-2] & m[:, 1:-1, 2:]
    rims = m[:, 1:-1, 1:-1] & ~inner

    def marks(place: int) -> tuple[list[Mark], str]:
        kept = np.flatnonzero(found["scores"] >= (least := (1 + place) / 10))
        right = int((kinds[kept] < 2).sum())
        lit = [
            Mark(0, (y % 8, x % 8, y // 8, x // 8), bool(kinds[d] < 2))
            for d in kept
            for y, x in np.argwhere(rims[d]).tolist()
        ]
        words = f"Scores of {least:.1f} and more: {len(kept)} masks are kept. {right} "
        words += f"hold a nucleus of their own (filled), {len(kept) - right} do not (dashed). "
        return lit, words + f"{len(truth) - right} of {len(truth)} nuclei are missed."

    panel = Panel("dark: bright in the photo", values, "x (16 px)", "y (16 px)")
    return explore([panel], marks, follow=-1, **{"least score": 7})
