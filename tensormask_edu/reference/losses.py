"""The three losses as loops over single numbers (paper, section 4).

FL*, the class loss, is defined in the appendix of RetinaNet's paper.

next: ops/transforms.py
"""

from __future__ import annotations

import numpy as np


def class_loss(logits: np.ndarray, labels: np.ndarray, gamma: float, alpha: float) -> float:
    """FL*: the sum of -(alpha_t / gamma) log sigmoid(gamma x y) over windows m and classes k.

    Args:
        logits: (M, K). labels: (M,) int, a class or -1 for "none of them".
    """
    total = 0.0
    for m in range(logits.shape[0]):
        for k in range(logits.shape[1]):
            # y = +1 for the window's own class, -1 for every other
            y, alpha_t = (1, alpha) if labels[m] == k else (-1, 1 - alpha)
            total -= alpha_t / gamma * log_sigmoid(gamma * float(logits[m, k]) * y)
    return total


def box_loss(deltas: np.ndarray, targets: np.ndarray) -> float:
    """Sum of absolute differences over the positives' deltas (P, 4)."""
    return float(sum(abs(d - t) for d, t in zip(deltas.ravel(), targets.ravel(), strict=True)))


def mask_loss(
    logits: list[np.ndarray], targets: list[np.ndarray], positive_weight: float
) -> float:
    """Mean cross-entropy over a window's bins, foreground weighted, summed over windows.

    Args:
        logits, targets: per positive window (side, side), targets 0 or 1.
    """
    total = 0.0
    for window_logits, window_targets in zip(logits, targets, strict=True):
        cross_entropy = 0.0
        for x, t in zip(window_logits.ravel(), window_targets.ravel(), strict=True):
            if t:
                cross_entropy -= positive_weight * log_sigmoid(float(x))
            else:
                cross_entropy -= log_sigmoid(-float(x))  # log(1 - sigmoid(x))
        total += cross_entropy / window_logits.size  # a large window counts as much as a small
    return total


def log_sigmoid(x: float) -> float:
    """log(1 / (1 + exp(-x))) without overflow."""
    return float(min(x, 0.0) - np.log1p(np.exp(-abs(x))))  # no exponent above 0
