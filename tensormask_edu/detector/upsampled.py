"""A 3x3 convolution of an upsampled map, computed on the coarse grid it came from.

Upsampling and convolving are both linear along y and along x. So the coarse map goes through
the nine taps first, where it is small, and two matrices carry the results to the fine grid:
one per axis, with the weights of the upsampling in them, once for each tap. For a map four
times as long that is a sixth of the multiplications, and the upsampled map is never there.

next: detector/heads.py
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


def pays(m: Tensor) -> bool:
    """Whether the detour is quicker and as exact: on a CPU, in full precision, not traced.

    Half precision would round between the steps; a graph is easier to read without them.
    """
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    exact = m.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
    return m.device.type == "cpu" and exact and not traced


def in_graph(m: Tensor) -> bool:
    """Whether a graph is being traced in full precision."""
    return torch.jit.is_tracing() and m.dtype in (torch.float32, torch.float64)


def upsampled(m: Tensor, factor: int, size: Sequence[int]) -> Tensor:
    """A map (N, C, h, w) `factor` times as long, bilinearly, cut to `size` = (H, W)."""
    up = F.interpolate(m, scale_factor=float(factor), mode="bilinear", align_corners=False)
    return up[..., : size[0], : size[1]]  # (N, C, factor*h, factor*w) -> (N, C, H, W)


def convolved(m: Tensor, weight: Tensor, factor: int, size: Sequence[int]) -> Tensor:
    """`conv2d(upsampled(m, factor, size), weight, padding=1)`, without the upsampled map.

    Args:
        m: (N, C, h, w), best in channels-last memory.
        weight: (K, C, 3, 3).

    Returns:
        (N, K, H, W) in channels-last memory.
    """
    (n, channels, h, w), (height, width), k = m.shape, size, len(weight)
    along_y, along_x = (
        _taps(coarse, factor, fine, m.dtype) for coarse, fine in ((h, height), (w, width))
    )
    per_tap = weight.permute(3, 2, 0, 1).reshape(9 * k, channels)  # rows: tap x, tap y, K
    values = F.linear(m.permute(0, 2, 3, 1), per_tap)  # (N, h, w, C) -> (N, h, w, 9*K)
    # The x of the taps is summed: (W, w*3) times (N, h, w*3, 3*K) -> (N, h, W, 3*K)
    values = along_x @ values.view(n, h, w * 3, 3 * k)
    # ... and then their y: -> (N, h*3, W*K); (H, h*3) times that -> (N, H, W*K)
    values = values.view(n, h, width, 3, k).transpose(2, 3).reshape(n, h * 3, width * k)
    return (along_y @ values).view(n, height, width, k).permute(0, 3, 1, 2)


def convolved_in_graph(m: Tensor, weight: Tensor, factor: int, size: Sequence[int]) -> Tensor:
    """The same for a graph with free axes, in few nodes; N at least 1.

    The map is upsampled along x alone and convolved along x, into one result for each y of the
    taps; then one matrix carries all to the fine y.
    """
    wide = F.interpolate(m, scale_factor=(1.0, float(factor)), mode="bilinear")
    wide = wide[..., : size[1]]  # (N, C, h, W)
    per_tap = weight.transpose(1, 2).flatten(0, 1)[:, :, None]  # (K*3, C, 1, 3)
    values = F.conv2d(wide, per_tap, padding=(0, 1))  # (N, K*3, h, W)
    values = values.reshape(m.shape[0], len(weight), -1, size[1])  # (N, K, 3*h, W)
    y = torch.arange(m.shape[2], device=m.device)
    impulses = (y.view(1, 1, -1, 1) == y).to(m.dtype)  # (1, 1, h, h)
    up = F.interpolate(impulses, scale_factor=(float(factor), 1.0), mode="bilinear")
    up = up[:, :, : size[0]]  # (1, 1, H, h)
    beyond = F.pad(up, (0, 0, 1, 1))  # a row of zeros before the first and behind the last
    along_y = torch.cat([beyond[:, :, :-2], up, beyond[:, :, 2:]], dim=3)  # (1, 1, H, 3*h)
    return along_y @ values  # (N, K, H, W)


@lru_cache(maxsize=64)
def _taps(coarse: int, factor: int, fine: int, dtype: torch.dtype) -> Tensor:
    """(fine, coarse * 3): what coarse position y gives fine position Y through tap t.

    Entry [Y, y * 3 + t] is the weight of y in the upsampled position Y + t - 1, zero where that
    is outside, as the convolution's padding is.
    """
    with torch.inference_mode(False):  # made within an inference, kept for a training
        impulses = torch.eye(coarse, dtype=dtype)[None]  # (1, coarse, coarse)
        up = F.interpolate(
            impulses, scale_factor=float(factor), mode="linear", align_corners=False
        )
        weights = F.pad(up[0].T[:fine], (0, 0, 1, 1))  # (fine + 2, coarse)
        return torch.stack([weights[t : t + fine] for t in range(3)], dim=2).flatten(1)
