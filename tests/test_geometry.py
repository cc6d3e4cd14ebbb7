"""Windows: their order, units and places."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tensormask_edu.base.errors import InputError
from tensormask_edu.config import MODELS
from tensormask_edu.geometry import Geometry

TINY, OFFICIAL = MODELS["tiny"].geometry, MODELS["r50_fpn_1x"].geometry


def test_windows_are_the_official_ones_in_their_order(shared):
    golden = np.load(shared / "golden" / "training.npz")
    windows = OFFICIAL.layout([(256, 320)]).windows
    np.testing.assert_array_equal(windows.box_px.numpy(), golden["anchors"])
    np.testing.assert_array_equal(windows.stride_px.numpy(), golden["unit_lengths"].ravel())
    level, _, y, x, size_id = golden["indexes"].T
    for ours, theirs in zip(
        (windows.level, windows.y, windows.x, windows.size_id),
        (level, y, x, size_id),
        strict=True,
    ):
        np.testing.assert_array_equal(ours.numpy(), theirs)


def test_bins_are_four_pixels_on_every_level_of_the_bipyramid():
    for level in range(OFFICIAL.num_levels):
        for size_id in range(OFFICIAL.num_sizes):
            side = OFFICIAL.side_bins(level, size_id) * OFFICIAL.bin_px(level)
            assert side == OFFICIAL.side_px(level, size_id)
            assert OFFICIAL.bin_px(level) == 4


def test_bins_grow_with_the_stride_in_the_feature_pyramid():
    geometry = Geometry((4, 8, 16), (5,), bipyramid=False)
    assert [geometry.bin_px(level) for level in range(3)] == [4, 8, 16]
    assert geometry.lams == (1, 1, 1)


@pytest.mark.parametrize("height, width", [(32, 32), (128, 96), (33, 70)])
def test_window_index_is_the_place_in_the_list(height, width):
    grid_sizes = TINY.grid_sizes(height, width)
    windows = TINY.windows(grid_sizes)
    for level in range(TINY.num_levels):
        at = (windows.level == level).nonzero().squeeze(1)
        chosen = windows[at]
        index = TINY.window_index(grid_sizes, level, chosen.y, chosen.x, chosen.size_id)
        assert torch.equal(index, at)


def test_a_layout_is_that_of_the_padded_batch_padded_already_or_not():
    layout = TINY.layout([(33, 70), (20, 90)])
    assert layout.grid_sizes == TINY.layout([(64, 96)]).grid_sizes == TINY.grid_sizes(64, 96)
    assert torch.equal(layout.windows.box_px, TINY.windows(layout.grid_sizes).box_px)
    assert layout.windows.box_px.dtype == torch.float32  # what predicted boxes are, too


def test_groups_cover_every_window_once():
    windows = TINY.layout([(64, 64)]).windows[torch.tensor([0, 5, 5, 300, 600, 679])]
    places = torch.cat([where for _, _, where in windows.groups()])
    assert sorted(places.tolist()) == list(range(6))
    for level, size_id, where in windows.groups():
        assert (windows.level[where] == level).all()
        assert (windows.size_id[where] == size_id).all()


def test_no_windows_make_no_groups():
    windows = TINY.layout([(32, 32)]).windows[torch.zeros(0, dtype=torch.int64)]
    assert len(windows) == 0 and list(windows.groups()) == []


@pytest.mark.parametrize("strides, sides", [((4, 12), (5,)), ((4, 8), (7, 5)), ((4, 8), ())])
def test_impossible_geometry_is_refused(strides, sides):
    with pytest.raises(InputError, match="expected"):
        Geometry(strides, sides)
