"""Large pictures in tiles: the objects are those of the whole picture, once each."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tensormask_edu import viz
from tensormask_edu.base.errors import InputError
from tensormask_edu.commands.predict import detect
from tensormask_edu.config import MODELS, InputConfig
from tensormask_edu.data.pictures import read_image
from tensormask_edu.data.shapes import draw
from tensormask_edu.detector import tiles
from tensormask_edu.detector.model import build_model
from tensormask_edu.evaluation.results import to_coco
from tensormask_edu.masks import Cutout, Cutouts, cut_out, decode, iou, tight_boxes
from tensormask_edu.weights.checkpoint import load_checkpoint

SURE = 0.5  # scores of the trained network from which on a detection counts
TILE_PX = tiles.SMALLEST_TILE_PX
WHOLE_IN_A_TILE_PX = TILE_PX // tiles.OVERLAP - 2 * tiles.MARGIN_PX  # wherever it lies


def colours(images: list[Tensor], output_sizes: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """A detector that sees every colour as an object, even one of a single pixel."""
    (image,), (size,) = images, output_sizes
    assert image.shape[1:] == size
    numbers = ((image[0] + 256 * image[1]) * 255).round().long()
    colour = numbers.unique()
    colour = colour[colour > 0]
    masks = numbers == colour[:, None, None]
    boxes = torch.from_numpy(tight_boxes(masks.numpy()))
    scores = 0.5 + colour / 2**17
    return [{"boxes": boxes, "scores": scores, "labels": colour % 2, "masks": masks}]


def painted(size: tuple[int, int], boxes: list[tuple[int, int, int, int]]) -> np.ndarray:
    """A picture (3, H, W) with a rectangle of its own colour for each x, y, width, height."""
    image = np.zeros((3, *size), dtype=np.uint8)
    for number, (x, y, width, height) in enumerate(boxes, start=1):
        image[0, y : y + height, x : x + width] = number % 256
        image[1, y : y + height, x : x + width] = number // 256
    return image


def whole(image: np.ndarray) -> dict[str, Any]:
    """What the detector sees in the whole picture, best first."""
    given = torch.from_numpy(image / np.float32(255))
    (found,) = colours([given], [image.shape[1:]])
    return {name: value.flip(0).numpy() for name, value in found.items()}


def assert_same(found: dict[str, Any], expected: dict[str, Any], size: tuple[int, int]) -> None:
    assert isinstance(found["masks"], Cutouts)
    for name in ("scores", "labels", "boxes"):
        assert found[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(found[name], expected[name])
    seen = [row["segmentation"] for row in to_coco(0, found, [1, 2])]
    wanted = [row["segmentation"] for row in to_coco(0, expected, [1, 2])]
    assert seen == wanted


@settings(max_examples=25, deadline=None)
@given(
    st.integers(200, 620),
    st.integers(200, 620),
    st.integers(0, 60),
    st.integers(0, 60),
    st.integers(0, 2**32 - 1),
)
def test_objects_on_the_seams_are_those_of_the_whole_picture(height, width, left, top, seed):
    random, pitch = np.random.default_rng(seed), WHOLE_IN_A_TILE_PX
    boxes = []
    for y in range(top, height - pitch, pitch):  # as dense as can be: many touch
        for x in range(left, width - pitch, pitch):
            w, h = random.integers(1, pitch + 1, size=2).tolist()
            dx, dy = random.integers(0, [pitch - w + 1, pitch - h + 1]).tolist()
            boxes.append((x + dx, y + dy, w, h))
    image = painted((height, width), boxes)
    found = tiles.detect_in_tiles(colours, image, InputConfig(), tile_px=TILE_PX)
    assert len(found["scores"]) == len(boxes)
    assert_same(found, whole(image), (height, width))


def test_an_object_larger_than_a_tile_is_put_together_from_its_pieces():
    size = (300, 900)
    image = painted(size, [(20, 40, 850, 30), (100, 100, 30, 190), (400, 90, 10, 10)])
    found = tiles.detect_in_tiles(colours, image, InputConfig(), tile_px=TILE_PX)
    assert_same(found, whole(image), size)


@given(
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.integers(40, 1024),
    st.integers(1, 128),
)
def test_tiles_cover_the_picture_and_share_what_they_promise(height, width, side, grid):
    overlap = side // tiles.OVERLAP
    boxes = tiles.tile_boxes((height, width), side, overlap, min(grid, side - overlap))
    for axis, length in ((0, width), (1, height)):
        spans = sorted({(box[axis], box[axis + 2]) for box in boxes})
        assert spans[0][0] == 0 and spans[-1][1] == length
        for (_, end), (start, _) in zip(spans, spans[1:], strict=False):
            assert end - start >= overlap
        assert all(end - start < side + grid for start, end in spans)
        assert all(start % min(grid, side - overlap) == 0 for start, _ in spans)


def piece(tile: Any, x: int, width: int, score: float, cut: bool = False) -> tiles.Piece:
    mask = cut_out(np.ones((10, width), dtype=bool), 5, x)
    box = np.array(mask.box, np.float32)
    return tiles.Piece(tile, box, score, 0, mask, cut)


LEFT, RIGHT = (0, 0, 100, 20), (60, 0, 160, 20)


def test_the_better_of_two_views_of_an_object_stays():
    one, other = piece(LEFT, 70, 20, 0.6), piece(RIGHT, 72, 20, 0.8)
    assert tiles.join([one, other]) == [other]


def test_a_whole_view_outranks_a_better_cut_one():
    one, other = piece(LEFT, 62, 38, 0.9, cut=True), piece(RIGHT, 62, 44, 0.4)
    assert tiles.join([one, other]) == [other]


def test_touching_objects_of_two_tiles_both_stay():
    one, other = piece(LEFT, 65, 10, 0.6), piece(RIGHT, 75, 10, 0.8)
    assert tiles.join([one, other]) == [other, one]


def test_what_one_tile_tells_apart_is_not_joined():
    one, other = piece(LEFT, 70, 20, 0.6), piece(LEFT, 71, 20, 0.8)
    assert tiles.join([one, other]) == [other, one]


def upright(each: tiles.Piece) -> tiles.Piece:
    """The same with x and y exchanged: tiles above one another, not side by side."""
    (x0, y0, x1, y1), (top, left, part) = each.tile, each.mask
    box, mask = each.box[[1, 0, 3, 2]], Cutout(left, top, part.T)
    return replace(each, tile=(y0, x0, y1, x1), box=box, mask=mask)


@pytest.mark.parametrize("turn", [lambda each: each, upright], ids=["beside", "above"])
def test_a_piece_near_an_inner_border_is_left_to_the_tile_that_sees_it_whole(turn):
    near, inner, first = (turn(piece(LEFT, x, 10, 0.5)) for x in (88, 40, 0))
    early, last = (turn(piece(RIGHT, x, 10, 0.5)) for x in (62, 150))
    both = [first.tile, last.tile]
    size = (max(tile[3] for tile in both), max(tile[2] for tile in both))
    kept = tiles.owned([near, inner, first, early, last], both, size, margin=8)
    assert kept == [inner, first, last]
    (alone,) = tiles.owned([near], both[:1], size, margin=8)
    assert alone.cut


def test_contrast_is_that_of_the_whole_picture():
    image = np.full((3, 40, 700), 10, dtype=np.uint8)
    image[:, :, 350:] = 200
    seen = []

    def nothing(images: list[Tensor], output_sizes: list[tuple[int, int]]):
        seen.extend(image.unique().tolist() for image in images)
        empty = torch.zeros(0)
        masks = torch.zeros(0, *output_sizes[0], dtype=torch.bool)
        return [
            {
                "boxes": torch.zeros(0, 4),
                "scores": empty,
                "labels": empty.long(),
                "masks": masks,
            }
        ]

    config = InputConfig(stretch_percentiles=(0.5, 99.5))
    found = tiles.detect_in_tiles(nothing, image, config, tile_px=TILE_PX)
    assert seen[0] == [0.0] and seen[-1] == [1.0]
    assert found["boxes"].shape == (0, 4)
    assert to_coco(0, found, [1]) == []


def test_small_pictures_are_seen_whole_and_large_ones_in_tiles():
    config = InputConfig(enlarge=2.0)
    assert not tiles.tiled((1024, 1024), config)
    assert tiles.tiled((10, 1025), config)
    assert tiles.tiled((200, 200), config, tile_px=256)
    assert not tiles.tiled((4000, 4000), InputConfig(short_side_px=800))
    with pytest.raises(InputError, match="tile: expected at least 256 px, got 100"):
        tiles.check_tile(100)


def test_a_network_in_tiles_lists_what_it_lists_in_a_single_tile():
    config = replace(MODELS["tiny"], prior=0.04, detections_per_image=20)
    model, random = build_model(config).eval(), np.random.default_rng(0)
    image = random.integers(0, 256, (3, 100, 200), dtype=np.uint8)
    as_ever = detect(model, image, InputConfig())
    in_one = tiles.detect_in_tiles(model, image, InputConfig())
    masks = decode([row["segmentation"] for row in to_coco(0, in_one, [1])], (100, 200))
    drawn = as_ever["masks"].any((1, 2))
    assert drawn.any()
    for name in ("boxes", "scores", "labels"):
        np.testing.assert_array_equal(in_one[name], as_ever[name][drawn])
    np.testing.assert_array_equal(masks, as_ever["masks"][drawn])
    in_many = detect(model, np.tile(image, 2), InputConfig(enlarge=1.5), tile_px=256)
    assert isinstance(in_many["masks"], Cutouts)
    x0, y0, x1, y1 = in_many["boxes"].T
    assert min(x0.min(), y0.min()) >= 0 and x1.max() <= 400 and y1.max() <= 100


def test_cutouts_are_drawn_as_masks_are():
    image = painted((60, 80), [(5, 6, 20, 30), (40, 20, 25, 25)])
    found = whole(image)
    cutouts = Cutouts((60, 80), [cut_out(mask) for mask in found["masks"]])
    words = (image, found, ("a", "b"))
    expected = viz.png(viz.draw_instances(*words))
    assert (
        viz.png(viz.draw_instances(image, found | {"masks": cutouts}, ("a", "b"))) == expected
    )


def test_what_was_seen_in_tiles_is_painted_in_the_pictures_own_pixels(tmp_path):
    image = painted((60, 80), [(5, 6, 20, 30)])
    cutouts = Cutouts((60, 80), [cut_out(mask) for mask in whole(image)["masks"]])
    viz.save_instances(tmp_path / "seen.png", image, whole(image) | {"masks": cutouts}, ("a",))
    changed = (read_image(tmp_path / "seen.png") != image).any(0)
    expected = np.zeros((60, 80), dtype=bool)
    expected[6:36, 5:25] = True
    expected[7:35, 6:24] = False
    np.testing.assert_array_equal(changed, expected)


# --- a trained network ------------------------------------------------------------------------


def mosaic(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of the overlap world side by side, shifted against the tiles; all their masks.

    (3, H, W) and (G, H, W), H = 128 * rows.
    """
    side = 128
    image = np.zeros((3, rows * side, columns * side), np.uint8)
    masks = []
    for k, (row, column) in enumerate(itertools.product(range(rows), range(columns))):
        pixels, seen, _ = draw(0, "val", k)
        place = np.s_[row * side : (row + 1) * side, column * side : (column + 1) * side]
        image[:, place[0], place[1]] = pixels.transpose(2, 0, 1)
        for mask in seen:
            masks.append(np.zeros(image.shape[1:], bool))
            masks[-1][place] = mask
    # The seams then run through pictures, not between them.
    shift = (40, 56)
    return np.roll(image, shift, (1, 2)), np.roll(np.stack(masks), shift, (1, 2))


@pytest.fixture(scope="module")
def large() -> dict[str, Any]:
    """A mosaic; what the model that comes along finds there by tiles, and in each alone."""
    model, config = load_checkpoint("shapes")
    image, truth = mosaic(4, 5)
    size = (image.shape[1], image.shape[2])
    found = detect(model, image, config, SURE, tile_px=TILE_PX)
    found["masks"] = decode([row["segmentation"] for row in to_coco(0, found, range(9))], size)
    boxes = tiles.tile_boxes(size, TILE_PX, TILE_PX // tiles.OVERLAP, tiles.GRID_PX)
    alone = []
    for x0, y0, x1, y1 in boxes:
        part = detect(model, image[:, y0:y1, x0:x1], config, SURE)
        for label, mask in zip(part["labels"], part["masks"], strict=True):
            drawn = np.zeros(size, bool)
            drawn[y0:y1, x0:x1] = mask
            alone.append(((x0, y0, x1, y1), int(label), drawn))
    return {"size": size, "truth": truth, "found": found, "tiles": boxes, "alone": alone}


def test_the_objects_of_a_large_picture_are_those_of_its_tiles(large):
    found, (height, width) = large["found"], large["size"]
    inner = 0
    for (x0, y0, x1, y1), label, mask in large["alone"]:
        ax, ay, bx, by = tight_boxes(mask[None])[0]
        margin = tiles.MARGIN_PX
        beside_x = (ax < x0 + margin and x0 > 0) or (bx > x1 - margin and x1 < width)
        beside_y = (ay < y0 + margin and y0 > 0) or (by > y1 - margin and y1 < height)
        if beside_x or beside_y:
            continue  # a neighbour of the seam
        same = found["labels"] == label
        assert iou(found["masks"][same], mask).max(initial=0) >= tiles.SAME
        inner += 1
    assert inner > 40
    # and nothing but them: each mask is one tile's, or put together of several
    for label, mask in zip(found["labels"], found["masks"], strict=True):
        parts = [part for _, its, part in large["alone"] if its == label]
        assert max((part & mask).sum() / mask.sum() for part in parts) > 0.5


def test_an_object_on_a_seam_is_found_as_often_as_others_and_once(large):
    coarse = np.s_[:, ::4, ::4]  # a sixteenth of the pixels tells as well which overlap
    found, truth = large["found"]["masks"][coarse], large["truth"][coarse]
    overlap = iou(found[:, None], truth)  # (D, G)
    hits = (overlap >= 0.5).sum(0)  # (G,)
    boxes = tight_boxes(large["truth"])
    seams_x = {x for x0, _, x1, _ in large["tiles"] for x in (x0, x1)} - {0, large["size"][1]}
    seams_y = {y for _, y0, _, y1 in large["tiles"] for y in (y0, y1)} - {0, large["size"][0]}
    on_seam = np.array(
        [
            any(x0 < x < x1 for x in seams_x) or any(y0 < y < y1 for y in seams_y)
            for x0, y0, x1, y1 in boxes
        ]
    )
    assert on_seam.sum() > 20
    # Twice only what the network sees twice in a single tile
    twice = np.zeros_like(hits)
    for tile in large["tiles"]:
        masks = np.array([mask for at, _, mask in large["alone"] if at == tile])[coarse]
        twice = np.maximum(twice, (iou(masks[:, None], truth) >= 0.5).sum(0))
    assert (hits <= np.maximum(twice, 1)).all()
    assert (hits[on_seam] > 0).mean() >= 0.9 * (hits[~on_seam] > 0).mean()
