"""Tensors that live at once, counted: one mask operator at a time, pasting in patches."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from conftest import ROOT
from test_model import busy, example

from tensormask_edu.config import MODELS
from tensormask_edu.detector import inference
from tensormask_edu.detector.model import AT_ONCE, build_model

# Six levels and few channels: the masks are those of the large models, the rest is small.
CONFIG = replace(
    MODELS["tiny"], strides_px=(4, 8, 16, 32, 64, 128), sides_bins=(11, 15),
    fpn_channels=8, tower_convs=1, tower_norm_groups=0,
    class_channels=8, box_channels=8, mask_channels=8, detections_per_image=20,
)  # fmt: skip
SIZE = (256, 320)
# bytes, one image
ALL_WINDOWS = 4 * sum(2 * side**2 * 64 * 80 * 6 for side in CONFIG.sides_bins)


@pytest.fixture
def memory(monkeypatch):
    """The counting tool of the benchmarks."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import device

    yield device
    sys.modules.pop("device")


def test_the_tool_counts_what_lives_and_forgets_what_died(memory):
    with memory.Tensors() as seen:
        a = torch.zeros(1000)
        b = a + 1
        del a
        c = b * 2
        c.add_(b.view(10, 100).sum())
    assert 8000 <= seen.peak() <= 8004
    assert len(seen.bytes) == 4 and not seen.of_masks


def test_the_mask_operators_of_a_training_step_hold_little_at_once(memory):
    model = build_model(CONFIG).train()
    image, target = example(*SIZE, objects=10, num_classes=1)
    with memory.Tensors() as seen:
        sum(model([image, image], [target, target]).values()).backward()
    one = 4 * 2 * 15**2 * 64 * 80  # an aligned tensor of the larger size
    assert one < seen.peak(seen.of_masks) < 1.2 * one < 0.15 * 2 * ALL_WINDOWS
    with memory.Tensors() as seen:
        output = model.network(model.batch([image, image]))
        sum(x.sum() for sizes in model.network.natural(output) for x in sizes).backward()
    # So the tool sees what all windows hold.
    assert seen.peak(seen.of_masks) > 0.5 * 2 * ALL_WINDOWS


def test_the_mask_operators_of_inference_hold_little_at_once(memory):
    model = busy(build_model(CONFIG))
    with torch.inference_mode(), memory.Tensors() as seen:
        found = model([torch.rand(3, *SIZE), torch.rand(3, *SIZE)])
    assert len(found[0]["scores"]) == 20
    assert 0 < seen.peak(seen.of_masks) < 0.1 * 2 * ALL_WINDOWS


def test_an_aligned_tensor_is_made_when_asked_for_and_not_kept(memory):
    model = build_model(CONFIG).eval()
    with torch.inference_mode():
        output = model.network(model.batch([torch.rand(3, *SIZE)]))
        assert torch.equal(output.predicted(5, 1), output.predicted(5, 1))
        assert output.predicted(5, 1).shape == (1, 15, 15, 64, 80)
        with pytest.raises(IndexError):
            output.predicted(6, 1)
        with memory.Tensors() as seen:
            for level in range(6):
                output.predicted(level, 1)
    assert seen.peak() < 2 * 4 * 15**2 * 64 * 80


@pytest.mark.parametrize("count", [50, 500])
def test_pasting_adds_the_masks_and_little_that_grows_with_their_number(memory, count):
    model = build_model(CONFIG).eval()
    windows = CONFIG.geometry.layout([SIZE]).windows
    largest = torch.where((windows.level == 5) & (windows.size_id == 1))[0]  # 480 x 480 bins
    chosen = windows[largest.repeat(count)[:count]]
    with torch.inference_mode():
        output = model.network(model.batch([torch.rand(3, *SIZE)]))
        with memory.Tensors() as seen:
            masks = model.network.mask_logits(
                output, torch.zeros_like(chosen.level), chosen, AT_ONCE
            )
            pasted = inference.paste(masks, chosen.box_px, *SIZE)
    assert pasted.shape == (count, *SIZE)
    at_once = 4 * AT_ONCE * 480**2
    beside = seen.peak() - pasted.numel()
    assert beside < 2.5 * at_once + 16 * inference.PATCH_PIXELS + 4 * 15**2 * 64 * 80
