"""Box deltas: how far, in window sides, a box lies from its window (Faster R-CNN's code).

next: detector/backbone.py
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LARGEST_LOG_RATIO = math.log(1000 / 16)  # an untrained network must not overflow exp()


def encode(window_px: Tensor, box_px: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Deltas (P, 4) from windows (P, 4) to boxes (P, 4), both xyxy pixels.

    They are (dx, dy) / side and log(size / side), each times its weight.
    """
    window_centre, window_size = _centre_and_size(window_px)
    centre, size = _centre_and_size(box_px)
    shift, log_ratio = (centre - window_centre) / window_size, torch.log(size / window_size)
    deltas = torch.cat([shift, log_ratio], dim=1)  # twice (P, 2) -> (P, 4)
    # The weights say how much the L1 loss hears of each.
    return deltas * deltas.new_tensor(weights)


def decode(window_px: Tensor, deltas: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Boxes (P, 4) xyxy pixels from windows (P, 4) and deltas (P, 4): `encode` inverted."""
    window_centre, window_size = _centre_and_size(window_px)
    shift, log_ratio = (deltas / deltas.new_tensor(weights)).split(2, dim=1)  # twice (P, 2)
    centre = window_centre + shift * window_size
    half = window_size * torch.exp(log_ratio.clamp(max=LARGEST_LOG_RATIO)) / 2
    return torch.cat([centre - half, centre + half], dim=1)  # twice (P, 2) -> (P, 4)


def _centre_and_size(box_px: Tensor) -> tuple[Tensor, Tensor]:
    low, high = box_px.split(2, dim=1)  # (P, 4) -> twice (P, 2): x0 y0, x1 y1
    return (low + high) / 2, high - low
