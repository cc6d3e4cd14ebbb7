"""Box deltas: how far, in window sides, an object's box lies from its window (Faster R-CNN's
code)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LARGEST_LOG_RATIO = math.log(1000 / 16)  # an untrained network must not overflow exp()


def encode(window_px: Tensor, box_px: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Deltas (P, 4) from windows (P, 4) to boxes (P, 4), both xyxy pixels:
    (dx, dy) / side and log(size / side), each times its weight."""
    window_centre, window_size = _centre_and_size(window_px)
    centre, size = _centre_and_size(box_px)
    deltas = torch.cat(
        [(centre - window_centre) / window_size, torch.log(size / window_size)], dim=1
    )
    return deltas * deltas.new_tensor(weights)


def decode(window_px: Tensor, deltas: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Boxes (P, 4) xyxy pixels from windows (P, 4) and deltas (P, 4): the inverse of
    `encode`."""
    window_centre, window_size = _centre_and_size(window_px)
    shift, log_ratio = (deltas / deltas.new_tensor(weights)).split(2, dim=1)
    centre = window_centre + shift * window_size
    half = window_size * torch.exp(log_ratio.clamp(max=LARGEST_LOG_RATIO)) / 2
    return torch.cat([centre - half, centre + half], dim=1)


def _centre_and_size(box_px: Tensor) -> tuple[Tensor, Tensor]:
    low, high = box_px.split(2, dim=1)
    return (low + high) / 2, high - low
