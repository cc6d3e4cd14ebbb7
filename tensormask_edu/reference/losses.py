"""The three losses as loops over single numbers (paper, section 4.3; FL* from RetinaNet's
appendix).

next: ../network.py
"""

from __future__ import annotations

import numpy as np


def log_sigmoid(x: float) -> float:
    """log(1 / (1 + exp(-x))) without overflow."""
    return float(min(x, 0.0) - np.log1p(np.exp(-abs(x))))


def class_loss(logits: np.ndarray, labels: np.ndarray, gamma: float, alpha: float) -> float:
    """FL*: sum over windows m and classes k of -(alpha_t / gamma) log sigmoid(gamma x y), y =
    +-1.

    Args:
        logits: (M, K). labels: (M,) int, a class or -1 for "none of them".
    """
    total = 0.0
    for m in range(logits.shape[0]):
        for k in range(logits.shape[1]):
            y, weight = (1, alpha) if labels[m] == k else (-1, 1 - alpha)
            total -= weight / gamma * log_sigmoid(gamma * float(logits[m, k]) * y)
    return total


def box_loss(deltas: np.ndarray, targets: np.ndarray) -> float:
    """Sum of absolute differences over the positives' deltas (P, 4)."""
    return float(sum(abs(d - t) for d, t in zip(deltas.ravel(), targets.ravel(), strict=True)))


def mask_loss(
    logits: list[np.ndarray], targets: list[np.ndarray], positive_weight: float
) -> float:
    """Per positive window the mean cross-entropy over its bins, foreground weighted; summed
    over windows.

    Args:
        logits, targets: per window (side, side), targets 0 or 1.
    """
    total = 0.0
    for window_logits, window_targets in zip(logits, targets, strict=True):
        bins = 0.0
        for x, t in zip(window_logits.ravel(), window_targets.ravel(), strict=True):
            bins -= positive_weight * log_sigmoid(float(x)) if t else log_sigmoid(-float(x))
        total += bins / window_logits.size
    return total
