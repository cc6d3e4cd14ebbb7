"""The three losses against the loops of the reference and known values."""

from __future__ import annotations

import math

import pytest
import torch
from tolerances import LOSS_REL

from tensormask_edu.detector import losses
from tensormask_edu.detector.network import WindowMasks
from tensormask_edu.reference import losses as reference

GAMMA, ALPHA = 3.0, 0.3


@pytest.mark.parametrize(
    "logit, label, expected",
    [(0.3, 0, 0.0341154), (-1.2, -1, 0.0062900), (-math.log(99), 0, 1.3785361)],
)
def test_class_loss_has_the_official_values(logit, label, expected):
    loss = losses.class_loss(torch.tensor([[[logit]]]), torch.tensor([[label]]), GAMMA, ALPHA)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_class_loss_is_the_reference_sum():
    logits, labels = 3 * torch.randn(2, 7, 4), torch.randint(-1, 4, (2, 7))
    expected = sum(
        reference.class_loss(x.numpy(), y.numpy(), GAMMA, ALPHA)
        for x, y in zip(logits, labels, strict=True)
    )
    assert losses.class_loss(logits, labels, GAMMA, ALPHA).item() == pytest.approx(
        expected, rel=LOSS_REL
    )


def test_class_loss_survives_extreme_logits():
    logits = torch.tensor([[[1e4], [-1e4]]], requires_grad=True)
    loss = losses.class_loss(logits, torch.tensor([[-1, 0]]), GAMMA, ALPHA)
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


def test_losses_of_half_precision_are_summed_in_float32():
    """Tens of thousands of windows: float16 ends at 65504, bfloat16 has eight bits."""
    for dtype in (torch.float16, torch.bfloat16):
        logits, deltas = 3 * torch.randn(2, 40000, 2).to(dtype), torch.randn(20000, 4).to(dtype)
        masks = 2 * torch.randn(50, 60, 60).to(dtype)
        labels, bits = torch.randint(-1, 2, (2, 40000)), torch.rand(50, 60, 60) > 0.5
        where, zeros = torch.arange(50), torch.zeros(20000, 4)
        results = [
            (
                losses.class_loss(logits.to(kind), labels, GAMMA, ALPHA),
                losses.box_loss(deltas.to(kind), zeros),
                losses.mask_loss(
                    [WindowMasks(where, masks.to(kind))], [WindowMasks(where, bits)], 1.5
                ),
            )
            for kind in (dtype, torch.float32)
        ]
        for half, full in zip(*results, strict=True):
            assert half.item() == pytest.approx(full.item(), rel=LOSS_REL)


def test_box_loss_is_the_reference_sum():
    deltas, targets = torch.randn(5, 4), torch.randn(5, 4)
    expected = reference.box_loss(deltas.numpy(), targets.numpy())
    assert losses.box_loss(deltas, targets).item() == pytest.approx(expected, rel=LOSS_REL)


def test_mask_loss_is_the_reference_sum_over_windows_of_all_sizes():
    sides, where = (3, 6), torch.tensor([0, 1])
    logits = [WindowMasks(where, 2 * torch.randn(2, s, s)) for s in sides]
    targets = [WindowMasks(where, torch.rand(2, s, s) > 0.5) for s in sides]
    expected = reference.mask_loss(
        [m.numpy() for group in logits for m in group.values],
        [m.numpy() for group in targets for m in group.values],
        1.5,
    )
    assert losses.mask_loss(logits, targets, 1.5).item() == pytest.approx(
        expected, rel=LOSS_REL
    )


def test_mask_loss_of_no_windows_is_zero():
    assert losses.mask_loss([], [], 1.5).item() == 0
