"""The three losses, all divided by the number of positives (paper, section 4).

Where several processes train together, the configuration says whose positives: "process" takes
each one's own (official); "global" takes the mean over the processes. Their gradients are
averaged, so with "global" n processes with a part of the batch each do what one does with the
whole, and with "process" a part with few positives weighs more.

next: detector/inference.py
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base import distributed
from .network import WindowMasks


def class_loss(logits: Tensor, labels: Tensor, gamma: float, alpha: float) -> Tensor:
    """FL* of RetinaNet's appendix, summed over windows and classes.

    It is -(alpha_t / gamma) * log sigmoid(gamma * x * y) with y = +-1.

    Args:
        logits: (N, M, K).
        labels: (N, M) int64, a class or -1 for "none of them".
    """
    logits = logits.float()  # half precision has too few digits for a sum this long
    is_class = torch.zeros_like(logits, dtype=torch.bool)
    image, window = (labels >= 0).nonzero(as_tuple=True)  # (N, M) -> twice (P,)
    is_class[image, window, labels[image, window]] = True  # one-hot (N, M, K), -1 as all zeros
    signed = torch.where(is_class, logits, -logits)  # x * y
    weight = torch.where(is_class, alpha, 1 - alpha)
    # softplus(-z) = -log sigmoid(z), but finite for any z
    return (weight * F.softplus(-gamma * signed)).sum() / gamma


def box_loss(deltas: Tensor, target_deltas: Tensor) -> Tensor:
    """L1 over the positives' deltas (P, 4), summed."""
    return F.l1_loss(deltas.float(), target_deltas, reduction="sum")


def mask_loss(
    logits: list[WindowMasks], targets: list[WindowMasks], positive_weight: float
) -> Tensor:
    """Binary cross-entropy, the mean over each window's bins, summed over windows.

    Foreground bins weigh `positive_weight`. A window counts the same whatever its number of
    bins.
    """
    total = torch.zeros(())
    for predicted, target in zip(logits, targets, strict=True):  # a group of one size each
        values = predicted.values.float()  # (P, side, side)
        weight = values.new_tensor(positive_weight)
        loss = F.binary_cross_entropy_with_logits(
            values, target.values.to(values), pos_weight=weight, reduction="sum"
        )
        total = total.to(loss) + loss / values[0].numel()  # side * side bins
    return total


def normaliser(num_positives: int, scope: str, device: torch.device) -> float | Tensor:
    """What divides the losses: positives of this process, or the mean over all processes.

    At least one positive is counted, in all processes together.
    """
    if scope == "process":
        return max(1, num_positives)
    mean = distributed.mean(torch.tensor(float(num_positives), device=device))
    return mean.clamp(min=1 / distributed.count())  # one in all of them
