"""Large pictures: cut into tiles that overlap, their detections joined without seams.

A tile is a picture of its own, but for its contrast, which is the whole picture's. What it sees
near an inner border belongs to the tile that sees it whole; what two tiles see is listed once;
what no tile sees whole is put together from its pieces. Masks are kept within their boxes, so
memory grows with what is found, not with the picture.

next: detector/views.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..base.errors import require
from ..base.progress import Progress
from ..config import InputConfig
from ..data.prepare import Pixels, input_size, intensity_range, resize, scaled, stretch
from ..masks import Box, Cutout, Cutouts, cut_out, iou_within, meet, union

# All lengths are in the model's pixels, after `enlarge`.
WHOLE_PX = 2048  # a picture with a longer side is cut into tiles
TILE_PX = 1024
SMALLEST_TILE_PX = 256
OVERLAP = 4  # neighbours share a quarter of a tile: the largest window of `tiny` and margins
MARGIN_PX = 16  # so near an inner border the network lacks what lies beyond
GRID_PX = 128  # tiles begin where the whole picture's cells do, on every level of any preset
SAME = 0.5  # from this IoU on, where both tiles look, two masks are one object

Detector = Callable[..., list[dict[str, Tensor]]]


@dataclass(frozen=True)
class Piece:
    """A detection of one tile, in pixels of the whole picture.

    tile: what its tile covers. box: (4,) xyxy. cut: no tile sees it whole.
    """

    tile: Box
    box: NDArray[np.float32]
    score: float
    label: int
    mask: Cutout
    cut: bool = False


def check_tile(tile_px: int | None) -> None:
    """Raise InputError if tiles of that side are too small to see an object whole."""
    expected = f"at least {SMALLEST_TILE_PX} px"
    require(tile_px is None or tile_px >= SMALLEST_TILE_PX, "tile", expected, tile_px)


def tiled(size: tuple[int, int], config: InputConfig, tile_px: int | None = None) -> bool:
    """Whether a picture of `size` (height, width) is cut into tiles.

    Args:
        tile_px: the side of a tile if it is forced; by default tiles begin at `WHOLE_PX`.
    """
    return max(input_size(*size, config)) > (tile_px or WHOLE_PX)


def detect_in_tiles(
    model: Detector,
    image: Pixels,
    config: InputConfig,
    device: torch.device | str = "cpu",
    score: float = 0.0,
    tile_px: int | None = None,
) -> dict[str, Any]:
    """Detections of a large picture, in its own pixels, in the order of their scores.

    Args:
        model: ``model([tile], output_sizes=[(h, w)])``, as of `TensorMask`; what it limits per
            picture is limited per tile.
        image: uint8 (3, H, W) RGB.
        score: what is below it at the end is left out.
        tile_px: the side of a tile; default `TILE_PX`.

    Returns:
        arrays: boxes (d, 4) xyxy px, scores, labels (d,); and `masks`, d `Cutouts`. Empty masks
        are left out.
    """
    size = (image.shape[1], image.shape[2])
    factor = max(input_size(*size, config)) / max(size)
    side, margin, grid = (
        max(1, round(px / factor)) for px in (tile_px or TILE_PX, MARGIN_PX, GRID_PX)
    )
    boxes = tile_boxes(size, side, side // OVERLAP, grid)
    values = intensity_range(image, config)  # of the whole picture
    pieces = []
    for box in Progress(boxes, desc="tiles", unit="tile", leave=False):
        x0, y0, x1, y1 = box
        part = image[:, y0:y1, x0:x1]
        tile = resize(stretch(part, values), scaled((y1 - y0, x1 - x0), factor))
        with torch.inference_mode():
            (found,) = model([torch.from_numpy(tile).to(device)], output_sizes=[part.shape[1:]])
        pieces += _pieces({name: value.cpu().numpy() for name, value in found.items()}, box)
    joined = join(owned(pieces, boxes, size, margin))
    joined = [piece for piece in joined if piece.score >= score]
    return {
        "boxes": np.array([piece.box for piece in joined], np.float32).reshape(-1, 4),
        "scores": np.array([piece.score for piece in joined], np.float32),
        "labels": np.array([piece.label for piece in joined], np.int64),
        "masks": Cutouts(size, [piece.mask for piece in joined]),
    }


def tile_boxes(size: tuple[int, int], side: int, overlap: int, grid: int = 1) -> list[Box]:
    """Tiles of a picture (height, width), row by row, neighbours sharing `overlap` or more.

    All are `side` long, the last of a row or column up to `grid` longer; all begin at multiples
    of `grid`.
    """
    rows, columns = (_spans(length, side, overlap, grid) for length in size)
    return [(x0, y0, x1, y1) for y0, y1 in rows for x0, x1 in columns]


def _spans(length: int, side: int, overlap: int, grid: int) -> list[tuple[int, int]]:
    step = max((side - overlap) // grid, 1) * grid
    last = max(length - side, 0) // grid * grid
    return [*((start, start + side) for start in range(0, last, step)), (last, length)]


def _pieces(found: dict[str, NDArray[Any]], tile: Box) -> list[Piece]:
    """One tile's detections in the whole picture, those with an empty mask left out."""
    x0, y0 = tile[:2]
    boxes = found["boxes"] + np.array([x0, y0, x0, y0], np.float32)
    masks = [cut_out(mask, y0, x0) for mask in found["masks"]]
    fields = zip(boxes, found["scores"].tolist(), found["labels"].tolist(), masks, strict=True)
    return [
        Piece(tile, box, score, label, mask)
        for box, score, label, mask in fields
        if mask.part.size
    ]


# --- whose a piece is -------------------------------------------------------------------------


def owned(
    pieces: Sequence[Piece], tiles: Sequence[Box], size: tuple[int, int], margin: int
) -> list[Piece]:
    """The pieces without those that another tile sees whole; `cut` where none does.

    Args:
        tiles: all tiles of the picture of `size` (height, width).
        margin: px from an inner border within which a tile does not see well.
    """
    trusted = [_trusted(tile, size, margin) for tile in tiles]
    kept = []
    for piece in pieces:
        box = piece.mask.box
        if _holds(_trusted(piece.tile, size, margin), box):
            kept.append(piece)
        elif not any(_holds(tile, box) for tile in trusted):
            kept.append(replace(piece, cut=True))
    return kept


def _trusted(tile: Box, size: tuple[int, int], margin: int) -> Box:
    """The tile without the margin at its inner borders."""
    x0, y0, x1, y1 = tile
    height, width = size
    return (
        x0 + margin if x0 > 0 else 0,
        y0 + margin if y0 > 0 else 0,
        x1 - margin if x1 < width else width,
        y1 - margin if y1 < height else height,
    )


def _holds(outer: Box, inner: Box) -> bool:
    return (
        outer[0] <= inner[0]
        and outer[1] <= inner[1]
        and inner[2] <= outer[2]
        and inner[3] <= outer[3]
    )


# --- one object, several tiles ----------------------------------------------------------------


def join(pieces: Sequence[Piece]) -> list[Piece]:
    """Each object once, in the order of their scores.

    Of whole pieces that agree, the best stays; cut ones that agree with a whole one go, and cut
    ones that agree with each other become one. Pieces of one tile are never compared: its model
    has chosen among them.
    """
    pieces = sorted(pieces, key=lambda piece: (piece.cut, -piece.score))
    group: list[int | None] = []  # per piece the first of its object's; None: it went
    for number, partners in enumerate(_partners(pieces)):
        objects = {first for i in partners if (first := group[i]) is not None}
        if not objects:
            group.append(number)
        elif any(not pieces[first].cut for first in objects):
            group.append(None)
        else:
            group = [min(objects) if first in objects else first for first in group]
            group.append(min(objects))
    members: dict[int, list[Piece]] = {}
    for first, piece in zip(group, pieces, strict=True):
        if first is not None:
            members.setdefault(first, []).append(piece)
    return sorted(map(_united, members.values()), key=lambda piece: -piece.score)


def _partners(pieces: Sequence[Piece]) -> Iterator[list[int]]:
    """Per piece the earlier ones, of other tiles, that see the same object."""
    boxes = np.array([piece.mask.box for piece in pieces]).reshape(-1, 4)
    tiles = np.array([piece.tile for piece in pieces]).reshape(-1, 4)
    labels = np.array([piece.label for piece in pieces])
    for number, piece in enumerate(pieces):
        meets = meet(boxes[:number], boxes[number])
        meets &= (tiles[:number] != tiles[number]).any(1) & (labels[:number] == piece.label)
        yield [i for i in meets.nonzero()[0].tolist() if _agree(pieces[i], piece)]


def _agree(one: Piece, other: Piece) -> bool:
    """Whether two tiles see one object, by what lies where both look."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = one.tile, other.tile
    common = max(ax0, bx0), max(ay0, by0), min(ax1, bx1), min(ay1, by1)
    return iou_within(one.mask, other.mask, common) >= SAME


def _united(pieces: Sequence[Piece]) -> Piece:
    """The pieces of one object as one, with the score of the first, which is the best."""
    first = pieces[0]
    if len(pieces) == 1:
        return first
    boxes = np.stack([piece.box for piece in pieces])
    box = np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])
    mask = union([piece.mask for piece in pieces])
    return Piece(first.tile, box, first.score, first.label, mask, cut=True)
