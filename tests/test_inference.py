"""Selection and pasting: against the plain way to do them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tensormask_edu.config import MODELS
from tensormask_edu.detector import inference
from tensormask_edu.detector.model import build_model
from tensormask_edu.detector.network import WindowMasks

CONFIG = replace(MODELS["tiny"], class_names=("a", "b"), topk_candidates=50)
WINDOWS = CONFIG.geometry.layout([(32, 32)]).windows


def pasted_plainly(logits, window, height, width, threshold=0.5):
    """The whole image sampled at once, pixels outside the window left out."""
    x0, y0, x1, y1 = window.tolist()
    x = (torch.arange(width) + 0.5 - x0) / (x1 - x0) * 2 - 1
    y = (torch.arange(height) + 0.5 - y0) / (y1 - y0) * 2 - 1
    grid = torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), dim=2)[None]
    inside = (x.abs() <= 1)[None, :] & (y.abs() <= 1)[:, None]
    drawn = F.grid_sample(logits.sigmoid()[None, None], grid, align_corners=False)[0, 0]
    return (drawn >= threshold) & inside


THRESHOLDS = [0.1, 0.3, 0.5, 0.7, 0.9]


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("height, width", [(40, 50), (7, 90), (1, 1)])
def test_paste_draws_what_sampling_the_whole_image_draws(height, width, threshold):
    corner = torch.rand(12, 2) * 60 - 20
    window_px = torch.cat([corner, corner + torch.tensor([20.0, 23.5])], dim=1)
    logits = 3 * torch.randn(12, 6, 6)
    where = torch.randperm(12)
    groups = [
        WindowMasks(where[:5], logits[where[:5]]),
        WindowMasks(where[5:], logits[where[5:]]),
    ]
    pasted = inference.paste(groups, window_px, height, width, threshold)
    for row in range(12):
        plain = pasted_plainly(logits[row], window_px[row], height, width, threshold)
        assert torch.equal(pasted[row], plain)


def test_paste_of_windows_scaled_to_another_size_of_image():
    window_px = inference.scaled(torch.tensor([[-6.0, 2, 14, 22]]), (32, 32), (77, 51))
    logits = 3 * torch.randn(1, 5, 5)
    pasted = inference.paste([WindowMasks(torch.tensor([0]), logits)], window_px, 77, 51)
    assert torch.equal(pasted[0], pasted_plainly(logits[0], window_px[0], 77, 51))


def test_nothing_to_paste_is_an_empty_stack_of_masks():
    assert inference.paste([], torch.zeros(0, 4), 5, 6).shape == (0, 5, 6)


def test_keep_sorts_by_score_and_suppresses_within_a_class_only():
    logits = torch.full((len(WINDOWS), 2), -10.0)
    twin = (WINDOWS.box_px == WINDOWS.box_px[0]).all(1).nonzero()[0, 0]
    logits[twin, 0], logits[twin, 1] = 2.0, 1.0
    logits[2, 0] = 3.0  # the next cell, same size: overlaps the first by more than half
    kept = inference.keep(logits, torch.zeros(len(WINDOWS), 4), WINDOWS, CONFIG)
    assert kept.scores.tolist() == sorted(kept.scores.tolist(), reverse=True)
    found = list(zip(kept.window.tolist(), kept.labels.tolist(), strict=True))
    assert found == [(2, 0), (int(twin), 1)]


def test_keep_finds_nothing_below_the_threshold():
    logits = torch.full((len(WINDOWS), 2), -10.0)
    kept = inference.keep(logits, torch.zeros(len(WINDOWS), 4), WINDOWS, CONFIG)
    assert len(kept.scores) == len(kept.boxes) == len(kept.labels) == len(kept.window) == 0


def test_keep_returns_no_more_than_asked_for():
    logits = torch.full((len(WINDOWS), 2), 2.0)
    config = replace(CONFIG, nms_threshold=1.0, detections_per_image=7)
    kept = inference.keep(logits, torch.zeros(len(WINDOWS), 4), WINDOWS, config)
    assert len(kept.scores) == 7


def test_a_score_must_exceed_the_threshold_as_in_the_official_code():
    logits = torch.full((len(WINDOWS), 2), -10.0)
    logits[3, 1], logits[5, 0] = 0.0, 0.1  # a half exactly, and more
    config = replace(CONFIG, score_threshold=0.5)
    kept = inference.keep(logits, torch.zeros(len(WINDOWS), 4), WINDOWS, config)
    assert kept.window.tolist() == [5]


def test_the_best_candidates_of_all_classes_compete():
    logits = torch.full((len(WINDOWS), 2), -10.0)
    logits[10:14, 0], logits[20:24, 1] = torch.arange(4.0), torch.arange(4.0) + 0.5
    config = replace(CONFIG, nms_threshold=1.0, topk_candidates=3)
    kept = inference.keep(logits, torch.zeros(len(WINDOWS), 4), WINDOWS, config)
    assert kept.window.tolist() == [23, 13, 22] and kept.labels.tolist() == [1, 0, 1]


def test_a_probability_at_the_threshold_is_set_and_counts_as_sure():
    window_px, masks = (
        torch.tensor([[2.0, 1, 6, 5]]),
        [WindowMasks(torch.tensor([0]), torch.zeros(1, 4, 4))],
    )
    pasted = inference.paste(masks, window_px, 6, 8, 0.5)
    assert pasted[0].nonzero().tolist() == [[y, x] for y in range(1, 5) for x in range(2, 6)]
    sureness = torch.zeros(1)
    list(inference.with_sureness(masks, 0.5, sureness))
    assert sureness.item() == 0.5


def test_boxes_outside_the_output_are_dropped():
    kept = inference.Kept(
        torch.tensor([[-30.0, -30, -10, -10], [-5, -5, 8, 8], [2, 4, 2.125, 6]]),
        torch.ones(3),
        torch.zeros(3),
        torch.arange(3),
    )
    rest = inference.to_output_size(kept, (10, 10), (20, 30))
    assert rest.window.tolist() == [1, 2]  # a thin one is a box
    assert rest.boxes.tolist() == [[0, 0, 24, 16], [6, 8, 6.375, 12]]


def test_a_higher_threshold_draws_the_pixels_that_reach_it():
    window_px, logits = torch.tensor([[0.0, 0, 20, 20]]), 3 * torch.randn(1, 5, 5)
    masks = [WindowMasks(torch.tensor([0]), logits)]
    lower, higher = (inference.paste(masks, window_px, 20, 20, t)[0] for t in (0.5, 0.8))
    plain = F.interpolate(logits.sigmoid()[None], size=(20, 20), mode="bilinear")[0, 0]
    assert torch.equal(higher[2:-2, 2:-2], (plain >= 0.8)[2:-2, 2:-2])
    assert (lower | higher).equal(lower) and not lower.equal(higher)


def test_sureness_is_the_mean_probability_of_the_bins_that_are_set():
    probability = torch.tensor([[[0.9, 0.7], [0.1, 0.5]], [[0.1, 0.2], [0.3, 0.4]]])
    masks = [WindowMasks(torch.tensor([1, 2]), probability.logit())]
    sureness = torch.zeros(3)
    (handed_on,) = inference.with_sureness(masks, 0.6, sureness)
    torch.testing.assert_close(sureness, torch.tensor([0, 0.8, 0]))
    assert handed_on[1] is masks[0][1]


def test_sure_masks_rank_before_likelier_objects():
    scores, order = inference.ranked(torch.tensor([0.8, 0.6]), torch.tensor([0.5, 1.0]), 2.0)
    assert order.tolist() == [1, 0]
    torch.testing.assert_close(scores, torch.tensor([0.6, 0.2]))


def test_a_model_ranks_by_sureness_only_if_told_to():
    torch.manual_seed(0)
    config = replace(MODELS["tiny"], prior=0.06, detections_per_image=20)
    plain, sure = build_model(config).eval(), build_model(replace(config, mask_score_power=2.0))
    sure.load_state_dict(plain.state_dict())
    image = torch.rand(3, 64, 64)
    with torch.inference_mode():
        (before,), (after,) = plain([image]), sure.eval()([image])
    assert len(before["scores"]) == len(after["scores"]) > 0
    assert (after["scores"].diff() <= 0).all() and (after["scores"] < before["scores"]).all()
    assert (
        after["masks"]
        .flatten(1)
        .sum(1)
        .sort()
        .values.equal(before["masks"].flatten(1).sum(1).sort().values)
    )
