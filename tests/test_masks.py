"""Masks: every form of one is the same mask; their boxes and their overlap by definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_utils

from tensormask_edu.masks import (
    Cutouts,
    cut_out,
    decode,
    encode,
    encode_cutouts,
    iou,
    iou_within,
    run_lengths,
    tight_boxes,
    to_rle,
    union,
)

SQUARE = [2.0, 2.0, 8.0, 2.0, 8.0, 6.0, 2.0, 6.0]  # columns 2..7, rows 2..5


def random_masks(*shape: int, seed: int = 0, share: float = 0.4) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < share


# --- polygons and run lengths -----------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 4), st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_masks_survive_the_round_trip_through_rle(
    count: int, height: int, width: int, seed: int
):
    masks = random_masks(count, height, width, seed=seed)
    rles = encode(masks)
    np.testing.assert_array_equal(decode(rles, (height, width)), masks)
    boxes = tight_boxes(masks)
    assert boxes.shape == (count, 4)
    for mask, rle, box in zip(masks, rles, boxes.tolist(), strict=True):
        assert run_lengths(rle["counts"]).tolist() == runs_of(mask)
        x, y, w, h = mask_utils.toBbox(rle)
        assert box == ([x, y, x + w, y + h] if w else [0, 0, 0, 0])


def test_polygons_and_both_kinds_of_rle_are_the_same_mask():
    square = np.zeros((1, 10, 16), dtype=bool)
    square[0, 2:6, 2:8] = True
    forms = [[SQUARE], encode(square)[0], {"size": [10, 16], "counts": runs_of(square[0])}]
    masks = decode([to_rle(form, 10, 16) for form in forms], (10, 16))
    np.testing.assert_array_equal(masks, np.repeat(square, 3, 0))


def runs_of(mask: np.ndarray) -> list[int]:
    """Run lengths by definition: down the columns, beginning with zeros."""
    counts, value = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            counts, value = [*counts, 0], pixel
        counts[-1] += 1
    return counts


# --- tight boxes ------------------------------------------------------------------------------


def test_a_tight_box_holds_every_pixel_and_touches_one_on_each_side():
    masks = random_masks(20, 9, 13, share=0.03)
    boxes = tight_boxes(masks)
    assert boxes.dtype == np.float32
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.astype(int), strict=True):
        assert mask[y0:y1, x0:x1].sum() == mask.sum()
        if mask.any():
            assert all(
                side.any() for side in (mask[y0], mask[y1 - 1], mask[:, x0], mask[:, x1 - 1])
            )


def test_the_last_pixel_is_inside_the_box():
    masks = np.zeros((2, 4, 6), dtype=bool)
    masks[0, 3, 5] = True
    masks[1] = True
    assert tight_boxes(masks).tolist() == [[5, 3, 6, 4], [0, 0, 6, 4]]


@pytest.mark.parametrize("shape", [(0, 4, 6), (2, 0, 6), (2, 4, 0), (2, 4, 6)])
def test_masks_without_a_pixel_have_boxes_of_zeros(shape: tuple[int, ...]):
    assert tight_boxes(np.zeros(shape, dtype=bool)).tolist() == [[0, 0, 0, 0]] * shape[0]


# --- overlap ----------------------------------------------------------------------------------

as_given = pytest.mark.parametrize(
    "kind", [np.asarray, torch.as_tensor], ids=["numpy", "torch"]
)


@as_given
def test_iou_is_pixels_in_both_over_pixels_in_either(kind):
    one, other = random_masks(5, 6, 7, seed=1), random_masks(5, 6, 7, seed=2)
    found = iou(kind(one), kind(other))
    assert isinstance(found, type(kind(one)))
    for k in range(5):
        pairs = list(zip(one[k].ravel(), other[k].ravel(), strict=True))
        both, either = sum(a and b for a, b in pairs), sum(a or b for a, b in pairs)
        assert float(found[k]) == pytest.approx(both / either, rel=1e-6)


@as_given
def test_iou_of_a_mask_with_itself_is_one_and_with_its_complement_zero(kind):
    mask = random_masks(6, 7)
    assert float(iou(kind(mask), kind(mask))) == 1
    assert float(iou(kind(mask), kind(~mask))) == 0


@as_given
def test_leading_axes_broadcast(kind):
    one, other = random_masks(3, 1, 5, 4, seed=1), random_masks(2, 5, 4, seed=2)
    found = iou(kind(one), kind(other))
    assert tuple(found.shape) == (3, 2)
    for i, j in itertools.product(range(3), range(2)):
        assert found[i, j] == iou(kind(one[i, 0]), kind(other[j]))
    assert tuple(iou(kind(one[:0, 0]), kind(other[0])).shape) == (0,)


@as_given
@pytest.mark.parametrize("both_empty", [0.0, 1.0])
def test_two_empty_masks_agree_as_much_as_is_said(kind, both_empty: float):
    masks = np.zeros((2, 3, 4), dtype=bool)
    masks[1, 0, 0] = True
    assert iou(kind(masks), kind(masks[:1]), both_empty=both_empty).tolist() == [both_empty, 0]
    assert iou(kind(masks), kind(masks), both_empty).tolist() == [both_empty, 1]


# --- cutouts ----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 15), st.integers(1, 15), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_cutouts_have_the_run_lengths_of_the_whole_masks(
    height: int, width: int, seed: int, share: float
):
    masks = random_masks(4, height, width, seed=seed, share=share)
    cutouts = [cut_out(mask) for mask in masks]
    assert encode_cutouts(Cutouts((height, width), cutouts)) == encode(masks)
    for cutout, box in zip(cutouts, tight_boxes(masks).tolist(), strict=True):
        assert not cutout.part.size or list(cutout.box) == box


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1))
def test_cutouts_unite_and_overlap_as_the_whole_masks(seed: int, share: float):
    random = np.random.default_rng(seed)
    masks = np.zeros((2, 12, 17), dtype=bool)
    for mask in masks:  # one patch each, somewhere
        y, x = random.integers(0, [8, 13])
        mask[y : y + 5, x : x + 5] = random.random((min(5, 12 - y), min(5, 17 - x))) < share
        mask[y, x] = True
    one, other = (cut_out(mask) for mask in masks)
    (x0, x1), (y0, y1) = np.sort(random.integers(0, [[18], [13]], (2, 2))).tolist()
    inside = masks[:, y0:y1, x0:x1]
    assert iou_within(one, other, (x0, y0, x1, y1)) == iou(*inside)
    both = union([one, other])
    assert encode_cutouts(Cutouts((12, 17), [both])) == encode(masks.any(0)[None])


def test_a_cutout_of_a_part_lies_where_the_part_does():
    mask = random_masks(9, 8)
    mask[:2] = False
    whole = np.zeros((30, 40), dtype=bool)
    whole[11:20, 25:33] = mask
    assert encode_cutouts(Cutouts((30, 40), [cut_out(mask, 11, 25)])) == encode(whole[None])
