"""Assignment and mask targets: the reference's loops, the official code's known answers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import OP_F32

from tensormask_edu.config import MODELS
from tensormask_edu.detector import boxes
from tensormask_edu.detector.targets import assign, build_targets, crop_masks, draw_polygons
from tensormask_edu.reference import assign as reference

OFFICIAL, TINY = MODELS["r50_fpn_1x"], MODELS["tiny"]


def positives(box_list, config=OFFICIAL, height=256, width=320):
    """{(level, size_id, y, x): object} of the positive windows."""
    layout = config.geometry.layout([(height, width)])
    box_px = torch.tensor(box_list, dtype=torch.float32).reshape(-1, 4)
    pairs = assign(box_px, config, layout)
    windows = layout.windows[pairs[:, 0]]
    places = zip(windows.level, windows.size_id, windows.y, windows.x, strict=True)
    return {
        tuple(int(i) for i in place): int(g)
        for place, g in zip(places, pairs[:, 1], strict=True)
    }


def cells(level, size_ids, places):
    return {(level, a, y, x) for a in size_ids for y, x in places}


CROSS = [(13, 14), (14, 13), (14, 14), (14, 15), (15, 14)]
SQUARE = [(14, 14), (14, 15), (15, 14), (15, 15)]


@pytest.mark.parametrize(
    "box, expected",
    [
        ((40, 40, 72, 72), cells(0, (0, 1), CROSS)),
        ((42, 41, 74, 73), cells(0, (0, 1), SQUARE)),
        (
            (100, 60, 220, 180),
            cells(1, (1,), [(15, 20)]) | cells(2, (0, 1), [(7, 10), (8, 10)]),
        ),
        ((12, 200, 24, 210), cells(0, (0,), [(51, 4), (51, 5), (52, 4), (52, 5)])),
        ((101.5, 50.25, 160.75, 101), cells(1, (0, 1), [(9, 16), (9, 17), (10, 16), (10, 17)])),
    ],
)
def test_known_boxes_get_the_official_windows(box, expected):
    assert set(positives([box])) == expected


def test_the_limits_of_the_rule_count_as_inside():
    assert (0, 0, 14, 14) in positives([(34, 34, 78, 78)])  # the very window
    for outside in ((33.75, 34, 78, 78), (34, 34, 78, 78.25)):
        assert (0, 0, 14, 14) not in positives([outside])
    window = np.array([[34.0, 34, 78, 78]])
    for step, expected in ((0.0, 0), (0.25, -1)):
        for side in range(4):  # each side on the window's, then beyond it
            box = window.copy()
            box[0, side] += -step if side < 2 else step
            found = reference.assign(window, np.array([4]), np.array([4]), box, 40)
            assert found.tolist() == [expected]
    # 60 px less a stride are twice 28 px.
    assert (0, 1, 14, 14) in positives([(42, 50, 70, 62)])
    assert (0, 1, 14, 14) not in positives([(42, 50, 69.75, 62)])


def test_a_window_claimed_twice_is_negative():
    found = positives([(40, 40, 72, 72), (42, 41, 74, 73)])
    first, second = cells(0, (0, 1), [(13, 14), (14, 13)]), cells(0, (0, 1), [(15, 15)])
    assert found == dict.fromkeys(first, 0) | dict.fromkeys(second, 1)


def test_one_picture_with_polygons_and_one_with_masks_are_seen_as_each_alone():
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[0, 8:36, 12:40] = True
    one = {"boxes": torch.tensor([[12.0, 8, 40, 36]]), "labels": torch.tensor([0])}
    outline = [np.array([12.0, 8, 40, 8, 40, 36, 12, 36])]
    truths = [one | {"masks": mask}, one | {"polygons": [outline]}]
    layout = TINY.geometry.layout([(64, 64)])
    together = build_targets(truths, layout, TINY)
    for number, truth in enumerate(truths):
        alone = build_targets([truth], layout, TINY)
        for (where, values), (_, expected) in zip(together.masks, alone.masks, strict=True):
            assert torch.equal(values[together.image[where] == number], expected)


def test_pictures_of_two_sizes_are_seen_as_each_alone():
    truths = []
    for number, (height, width) in enumerate([(64, 64), (48, 60), (64, 40)]):
        masks = torch.zeros(2, height, width, dtype=torch.bool)
        masks[0, 4 : 20 + number, 6:22], masks[1, 24:44, 12 : 30 + number] = True, True
        box_px = [[6.0, 4, 22, 20 + number], [12, 24, 30 + number, 44]]
        truth = {"boxes": torch.tensor(box_px), "labels": torch.tensor([0, 1]), "masks": masks}
        truths.append(truth)
    config = replace(TINY, class_names=("a", "b"))
    layout = config.geometry.layout([(64, 64)])
    together = build_targets(truths, layout, config)
    for number, truth in enumerate(truths):
        alone, mine = build_targets([truth], layout, config), together.image == number
        assert torch.equal(together.labels[number], alone.labels[0])
        for name in ("window", "instance", "deltas"):
            assert torch.equal(getattr(together, name)[mine], getattr(alone, name))
        for (where, values), (_, expected) in zip(together.masks, alone.masks, strict=True):
            assert torch.equal(values[mine[where]], expected)


def test_no_objects_make_no_positives():
    assert positives([]) == {}


coordinate = st.integers(-20, 4 * 150).map(lambda n: n / 4)
length = st.integers(1, 4 * 120).map(lambda n: n / 4)


RULES = [
    replace(TINY, centrality_unit=unit, scale_rule=rule)
    for unit in ("stride", "bin")
    for rule in ("side - stride", "side")
]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(coordinate, coordinate, length, length), max_size=5),
    st.sampled_from(RULES),
)
def test_assignment_is_the_reference_rule_applied_to_every_window(objects, config):
    box_list = [(x, y, x + w, y + h) for x, y, w, h in objects]
    layout = config.geometry.layout([(96, 128)])
    windows = layout.windows
    box_px = torch.tensor(box_list, dtype=torch.float32).reshape(-1, 4)
    stride = windows.stride_px.numpy()
    unit = stride if config.centrality_unit == "stride" else np.full_like(stride, 4)
    slack, smallest = (stride, 16) if config.scale_rule == "side - stride" else (0 * stride, 20)
    expected = reference.assign(windows.box_px.numpy(), unit, slack, box_px.numpy(), smallest)
    pairs = assign(box_px, config, layout)
    found = np.full(len(windows), -1)
    found[pairs[:, 0]] = pairs[:, 1]
    np.testing.assert_array_equal(found, expected)
    assert (pairs[:, 0].diff() > 0).all()


def test_the_papers_rules_accept_fewer_windows_but_never_lose_a_small_object():
    paper = replace(OFFICIAL, centrality_unit="bin", scale_rule="side")
    on_a_cell, between_cells = (66, 66, 126, 126), (70, 70, 130, 130)
    for box in (on_a_cell, between_cells):
        assert {p for p in positives([box], paper)} < {p for p in positives([box])}
    # On level 1 a stride is 8 px and a bin 4; (100, 100) is 5.7 px from the four cells around
    # it. Windows of both sizes take an object of 60 px there: 88 - 8 and 120 - 8 are at most
    # twice that.
    assert sum(place[0] == 1 for place in positives([between_cells])) == 4 * 2
    assert not any(place[0] == 1 for place in positives([between_cells], paper))
    # The smallest window takes what is below half its side.
    assert positives([(100, 100, 103, 104)], paper)
    # A window of 88 px is at most twice an object of 44 px: 43 is too small for the paper, not
    # for the code.
    small = (42.5, 42.5, 85.5, 85.5)
    assert {place[0] for place in positives([small])} == {0, 1}
    assert {place[0] for place in positives([small], paper)} == {0}


def test_deltas_are_the_reference_formula_and_decode_inverts_them():
    windows = torch.tensor([[0.0, 0, 44, 44], [-20, 10, 68, 98], [4, 8, 64, 28]])
    box_px = torch.tensor([[3.0, 5, 30, 41], [-2, 20, 60, 55], [9, 11, 59, 26]])
    deltas = boxes.encode(windows, box_px, OFFICIAL.box_weights)
    for row, window, box in zip(deltas, windows, box_px, strict=True):
        expected = reference.box_deltas(window.numpy(), box.numpy(), OFFICIAL.box_weights)
        np.testing.assert_allclose(row.numpy(), expected, rtol=0, atol=OP_F32)
    back = boxes.decode(windows, deltas, OFFICIAL.box_weights)
    torch.testing.assert_close(back, box_px, rtol=0, atol=1e-4)


@pytest.mark.parametrize("factor", [1 / 40, 0.3, 1, 3.5, 40])
def test_boxes_far_smaller_and_far_larger_than_their_window_survive_the_deltas(factor):
    window, weights = torch.tensor([[-4.0, 8, 36, 48]]), OFFICIAL.box_weights
    width, height = factor * 40.0, factor * 32.0
    box_px = torch.tensor([[10 - width / 2, 90 - height, 10 + width / 2, 90]])
    deltas = boxes.encode(window, box_px, weights)
    expected = reference.box_deltas(window[0].numpy(), box_px[0].numpy(), weights)
    np.testing.assert_allclose(deltas[0].numpy(), expected, rtol=OP_F32, atol=OP_F32)
    # Sides are relative to the larger of box and window, whose roundings they carry.
    back = boxes.decode(window, deltas, weights)
    torch.testing.assert_close(back, box_px, rtol=0, atol=OP_F32 * max(factor, 1) * 40)


def test_a_log_ratio_beyond_all_reason_is_cut_to_62_and_a_half_sides():
    window = torch.tensor([[0.0, 0, 20, 40]])
    sides = 1000 / 16  # as torchvision and the official code
    for log_ratio in (math.log(sides) + 0.1, 1e4):
        deltas = torch.tensor([[0, 0, log_ratio, log_ratio]])
        box_px = boxes.decode(window, deltas, (1.0, 1.0, 1.0, 1.0))
        expected = torch.tensor([[20.0, 40]]) * sides
        torch.testing.assert_close(box_px[:, 2:] - box_px[:, :2], expected)


def test_polygons_are_drawn_as_the_official_code_draws_them():
    polygon, window = [np.array([40, 40, 72, 44, 50, 70])], [34, 34, 78, 78]
    drawn = draw_polygons(polygon, window, (11, 11))
    assert drawn.sum(axis=1).tolist() == [0, 0, 7, 7, 5, 4, 3, 1, 0, 0, 0]
    assert [int(draw_polygons(polygon, window, (side, side)).sum()) for side in (22, 44)] == [
        111,
        452,
    ]
    assert draw_polygons([], window, (11, 11)).sum() == 0
    # 40 px in 10 bins beside each other, 20 px in 4: the left half of the lower half
    lower = draw_polygons([np.array([8, 20, 28, 20, 28, 30, 8, 30])], [8, 10, 48, 30], (4, 10))
    assert lower.shape == (4, 10) and lower[2:, :5].all() and lower.sum() == 2 * 5


def test_a_mask_seen_through_a_window_of_one_pixel_bins_is_the_mask_itself():
    mask = torch.rand(2, 24, 20) > 0.5
    window = torch.tensor([[4.0, 6, 14, 16]])
    seen = crop_masks(mask, torch.tensor([1]), window, (10, 10))
    assert torch.equal(seen[0], mask[1, 6:16, 4:14])


def test_a_bin_is_set_from_half_coverage_on():
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, :4, :2] = True  # half of the first 4 x 4 bin
    mask[0, 4:, 4:5] = True  # a quarter of the last
    seen = crop_masks(mask, torch.tensor([0]), torch.tensor([[0.0, 0, 8, 8]]), (2, 2))
    assert seen[0].tolist() == [[True, False], [False, False]]


def test_targets_of_a_batch_keep_images_apart():
    layout = TINY.geometry.layout([(64, 64)])
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[0, 20:36, 20:36] = True
    one = {
        "boxes": torch.tensor([[20.0, 20, 36, 36]]),
        "labels": torch.tensor([0]),
        "masks": mask,
    }
    none = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros(0, 64, 64, dtype=torch.bool),
    }
    targets = build_targets([none, one], layout, TINY)
    assert (targets.labels[0] == -1).all()
    assert (targets.labels[1] >= 0).sum() == len(targets.window) > 0
    assert (targets.image == 1).all()
    assert sum(len(m.where) for m in targets.masks) == len(targets.window)
    for masks in targets.masks:
        assert masks.values.any(dim=(1, 2)).all()
