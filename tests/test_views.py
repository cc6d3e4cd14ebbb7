"""Views of one picture: they map back exactly, and agree or are outvoted."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tolerances as tol
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tensormask_edu.base.errors import InputError
from tensormask_edu.commands.predict import detect
from tensormask_edu.config import MODELS, InputConfig
from tensormask_edu.detector import tiles
from tensormask_edu.detector.model import build_model
from tensormask_edu.detector.views import VIEWS, Seen, View, grouped, in_views, voted
from tensormask_edu.masks import Cutout, Cutouts, cut_out, tight_boxes

every_view = pytest.mark.parametrize("view", VIEWS)
several = pytest.mark.parametrize("count", [2, 4, 8])


class Colours(nn.Module):
    """A detector that sees each value of red as an object, however the picture is turned."""

    def __init__(self, limit: int = 100) -> None:
        super().__init__()
        self.config = SimpleNamespace(detections_per_image=limit)

    def forward(self, images: list[Tensor], output_sizes: list[tuple[int, int]]):
        return [self.seen(image) for image in images]

    def seen(self, image: Tensor) -> dict[str, Tensor]:
        red = (image[0] * 255).round().long()
        values = red.unique().flip(0)
        values = values[values > 0]
        masks = red == values[:, None, None]
        boxes = torch.from_numpy(tight_boxes(masks.numpy()))
        return {"boxes": boxes, "scores": values / 300, "labels": values % 3, "masks": masks}


class LeftOnly(Colours):
    """One that sees the left half of a picture alone."""

    def seen(self, image: Tensor) -> dict[str, Tensor]:
        image = image.clone()
        image[:, :, image.shape[2] // 2 :] = 0
        return super().seen(image)


def squares(height: int, width: int, seed: int) -> Tensor:
    """Rectangles that touch and overlap, (3, height, width)."""
    random, image = np.random.default_rng(seed), torch.zeros(3, height, width)
    for value in range(1, 9):
        y, x = random.integers(0, [height, width]).tolist()
        h, w = random.integers(1, 9, 2).tolist()
        image[0, y : y + h, x : x + w] = value / 255
    return image


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)


# --- there and back ---------------------------------------------------------------------------


@every_view
@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_a_view_maps_back_exactly(view: View, height, width, seed):
    picture = squares(height, width, seed)
    shown = view.of(picture)
    assert shown.shape[-2:] == view.size((height, width))
    torch.testing.assert_close(view.back(shown), picture, rtol=0, atol=0)
    found = Colours().seen(shown)
    boxes = tight_boxes(view.back(found["masks"]).numpy())
    back = view.boxes_back(found["boxes"], (height, width)).numpy()
    np.testing.assert_array_equal(back, boxes)


def test_the_views_differ():
    picture = torch.arange(9.0).view(3, 3)
    shown = {tuple(view.of(picture).flatten().tolist()) for view in VIEWS}
    assert len(shown) == 8
    assert torch.equal(VIEWS[0].of(picture), picture)
    assert torch.equal(VIEWS[1].of(picture), picture.flip(1))


@several
@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_a_detector_blind_to_direction_finds_the_same_in_views(count, height, width, seed):
    images = [squares(height, width, seed), squares(7, 11, seed + 1)]
    sizes = [(height, width), (7, 11)]
    model = Colours()
    found = in_views(model, count)(images, output_sizes=sizes)
    for mine, expected in zip(found, model(images, sizes), strict=True):
        assert_equal(mine, expected)


@several
def test_pictures_with_nothing_in_them_are_empty_in_views(count):
    (found,) = in_views(Colours(), count)([torch.zeros(3, 5, 8)], output_sizes=[(5, 8)])
    assert_equal(found, Colours().seen(torch.zeros(3, 5, 8)))


# --- votes ------------------------------------------------------------------------------------


def seen(view: int, x: int, score: float, label: int = 0, width: int = 10) -> Seen:
    mask = Cutout(3, x, np.ones((10, width), dtype=bool))
    return Seen(view, np.array(mask.box, np.float32), score, label, mask)


def test_views_of_one_object_are_one_and_touching_objects_stay_apart():
    one, other = seen(0, 20, 0.9), seen(1, 21, 0.8)
    beside, again = seen(0, 30, 0.7), seen(1, 30, 0.6)
    assert grouped([one, beside, other, again]) == [[one, other], [beside, again]]


def test_what_one_view_tells_apart_and_other_classes_are_not_merged():
    one, same_view, other_class = seen(0, 20, 0.9), seen(0, 20, 0.8), seen(1, 20, 0.7, label=1)
    assert grouped([one, same_view, other_class]) == [[one], [same_view], [other_class]]


def test_of_every_view_the_detection_that_overlaps_most_is_taken():
    one, near, exact = seen(0, 20, 0.9), seen(1, 21, 0.8), seen(1, 20, 0.7)
    assert grouped([one, near, exact]) == [[one, exact], [near]]


def test_what_fewer_views_see_counts_less():
    everywhere = [seen(view, 20, 0.5) for view in range(4)]
    once = [seen(0, 50, 0.9)]
    first, last = voted([once, everywhere], views=4)
    assert (first.score, last.score) == (0.5, 0.9 / 4)
    image = torch.zeros(3, 6, 20)
    image[0, 2:4, 2:6] = 200 / 255
    (found,) = in_views(LeftOnly(), 2)([image], output_sizes=[(6, 20)])
    (expected,) = Colours()([image], [(6, 20)])
    assert_equal(found, expected | {"scores": expected["scores"] / 2})


def test_pixels_and_boxes_are_voted_on_by_score():
    group = [seen(0, 20, 0.375), seen(1, 22, 0.3125), seen(2, 23, 0.3125)]
    (found,) = voted([group], views=3)
    assert found.mask.box == (22, 3, 32, 13)  # 20 and 21 have 0.375 of 1
    assert found.box.tolist() == [21.5625, 3, 31.5625, 13]
    assert found.score == 1 / 3


def test_no_picture_gets_more_detections_than_the_model_allows():
    image = squares(20, 30, seed=0)
    (found,) = in_views(Colours(limit=3), 2)([image], output_sizes=[(20, 30)])
    assert len(found["scores"]) == 3
    assert_equal(found, {name: value[:3] for name, value in Colours().seen(image).items()})


# --- with the network -------------------------------------------------------------------------


def test_one_view_is_the_model_itself():
    model = Colours()
    assert in_views(model, 1) is model


@pytest.mark.parametrize("count", [-1, 0, 3, 16])
def test_other_numbers_of_views_are_refused(count):
    with pytest.raises(InputError, match=f"views: expected 1, 2, 4 or 8, got {count}"):
        in_views(Colours(), count)


@several
def test_a_network_in_views_finds_a_picture_and_its_mirror_image_alike(count):
    config = replace(MODELS["tiny"], prior=0.04, detections_per_image=20)
    model, random = build_model(config).eval(), np.random.default_rng(0)
    image = random.integers(0, 256, (3, 51, 77), dtype=np.uint8)
    mirror = np.ascontiguousarray(image[:, :, ::-1])
    found, mirrored = (
        detect(model, picture, InputConfig(), views=count) for picture in (image, mirror)
    )
    assert len(found["scores"]) == 20
    np.testing.assert_allclose(found["scores"], mirrored["scores"], rtol=0, atol=tol.SCORE)
    alone = detect(model, image, InputConfig())
    assert {name: value.dtype for name, value in found.items()} == {
        name: value.dtype for name, value in alone.items()
    }


def test_large_pictures_are_seen_in_views_tile_by_tile():
    side = tiles.SMALLEST_TILE_PX
    image = np.zeros((3, 300, 700), dtype=np.uint8)
    for value, x in enumerate((10, 100, 240, 330, 600), start=1):
        image[0, 100:120, x : x + 30] = value
    detector = in_views(Colours(), 4)
    found = tiles.detect_in_tiles(detector, image, InputConfig(), tile_px=side)
    alone = tiles.detect_in_tiles(Colours(), image, InputConfig(), tile_px=side)
    assert isinstance(found["masks"], Cutouts)
    for name in ("boxes", "scores", "labels"):
        np.testing.assert_array_equal(found[name], alone[name])
    drawn = [cut_out(one.part, one.top, one.left).box for one in found["masks"].cutouts]
    assert drawn == [one.box for one in alone["masks"].cutouts]
