"""Answers to the exercises of lesson 07."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

PAD = -6.0


# --- align2nat_fast ---------------------------------------------------------------------------


def align2nat_fast__right__by_stacking(aligned, pad_value=-6.0):
    n, num_v, num_u, height, width = aligned.shape
    x = F.pad(aligned, (num_u // 2, num_u // 2, num_v // 2, num_v // 2), value=pad_value)
    maps = []
    for v in range(num_v):
        for u in range(num_u):
            maps.append(x[:, v, u, v : v + height, u : u + width])
    return torch.stack(maps, 1).reshape(n, num_v, num_u, height, width)


def align2nat_fast__right__by_a_view(aligned, pad_value=-6.0):
    _, num_v, num_u, height, width = aligned.shape
    x = F.pad(aligned, (num_u // 2, num_u // 2, num_v // 2, num_v // 2), value=pad_value)
    n, v, u, y, column = x.stride()
    return x.as_strided(aligned.shape, (n, v + y, u + column, y, column)).clone()


def align2nat_fast__wrong__no_shift(aligned, pad_value=-6.0):
    """says: nothing moves"""
    _, num_v, num_u, height, width = aligned.shape
    top, left = num_v // 2, num_u // 2
    x = F.pad(aligned, (left, left, top, top), value=pad_value)
    return x[..., top : top + height, left : left + width].clone()


def align2nat_fast__wrong__backwards(aligned, pad_value=-6.0):
    """says: other way"""
    _, num_v, num_u, height, width = aligned.shape
    top, left = num_v // 2, num_u // 2
    x = F.pad(aligned, (left, left, top, top), value=pad_value)
    out = torch.zeros_like(aligned)
    for v in range(-top, top + 1):
        for u in range(-left, left + 1):
            y, column = top - v, left - u
            piece = x[:, v + top, u + left, y : y + height, column : column + width]
            out[:, v + top, u + left] = piece
    return out


def align2nat_fast__wrong__pad_order(aligned, pad_value=-6.0):
    """says: last"""
    _, num_v, num_u, height, width = aligned.shape
    top, left = num_v // 2, num_u // 2
    x = F.pad(aligned, (top, top, left, left), value=pad_value)
    out = torch.zeros_like(aligned)
    for v in range(num_v):
        for u in range(num_u):
            out[:, v, u] = x[:, v, u, v : v + height, u : u + width]
    return out


def align2nat_fast__wrong__default_pad(aligned, pad_value=-6.0):
    """says: you give 0"""
    _, num_v, num_u, height, width = aligned.shape
    x = F.pad(aligned, (num_u // 2, num_u // 2, num_v // 2, num_v // 2))
    rows = [
        [x[:, v, u, v : v + height, u : u + width] for u in range(num_u)] for v in range(num_v)
    ]
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def align2nat_fast__wrong__rolled(aligned, pad_value=-6.0):
    out = torch.empty_like(aligned)
    for i in range(aligned.shape[1]):
        for j in range(aligned.shape[2]):
            by = (aligned.shape[1] // 2 - i, aligned.shape[2] // 2 - j)
            out[:, i, j] = torch.roll(aligned[:, i, j], by, (-2, -1))
    return out


def align2nat_fast__wrong__first_image(aligned, pad_value=-6.0):
    _, num_v, num_u, height, width = aligned.shape
    x = F.pad(aligned, (num_u // 2, num_u // 2, num_v // 2, num_v // 2), value=pad_value)
    out = torch.full_like(aligned, pad_value)
    for v in range(num_v):
        for u in range(num_u):
            out[0, v, u] = x[0, v, u, v : v + height, u : u + width]
    return out


def align2nat_fast__wrong__still_loops(aligned, pad_value=-6.0):
    """says: the work grows with the grid"""
    _, num_v, num_u, height, width = aligned.shape
    out = torch.full_like(aligned, pad_value)
    for v in range(num_v):
        for u in range(num_u):
            for y in range(height):
                for x in range(width):
                    row, column = y + v - num_v // 2, x + u - num_u // 2
                    if 0 <= row < height and 0 <= column < width:
                        out[:, v, u, y, x] = aligned[:, v, u, row, column]
    return out


def align2nat_fast__wrong__by_numpy(aligned, pad_value=-6.0):
    """says: the gradient is cut"""
    x = aligned.detach().numpy()
    _, num_v, num_u, height, width = x.shape
    edges = ((0, 0),) * 3 + ((num_v // 2,) * 2, (num_u // 2,) * 2)
    x = np.pad(x, edges, constant_values=pad_value)
    out = np.empty(aligned.shape, x.dtype)
    for v in range(num_v):
        for u in range(num_u):
            out[:, v, u] = x[:, v, u, v : v + height, u : u + width]
    return torch.from_numpy(out)


# --- AlignedHead ------------------------------------------------------------------------------


class Head(torch.nn.Module):
    """What the answers below share."""

    size, bias = 1, True

    def __init__(self, channels, num_v, num_u):
        super().__init__()
        self.num_v, self.num_u = num_v, num_u
        middle = self.size // 2
        self.conv = torch.nn.Conv2d(
            channels, num_v * num_u, self.size, padding=middle, bias=self.bias
        )

    def aligned(self, features):
        n, _, height, width = features.shape
        return self.conv(features).view(n, self.num_v, self.num_u, height, width)

    def forward(self, features):
        return align2nat_fast__right__by_stacking(self.aligned(features))


class AlignedHead__right__by_view(Head):
    pass


class AlignedHead__wrong__still_aligned(Head):
    """says: filed under the pixel"""

    def forward(self, features):
        return self.aligned(features)


class AlignedHead__wrong__flat(Head):
    def forward(self, features):
        return self.conv(features)


class AlignedHead__wrong__large_kernel(Head):
    """says: Parameters of shapes"""

    size = 3


class AlignedHead__wrong__without_bias(Head):
    """says: Parameters of shapes"""

    bias = False


class AlignedHead__wrong__u_first(Head):
    """says: run v fastest"""

    def aligned(self, features):
        n, _, height, width = features.shape
        flat = self.conv(features).view(n, self.num_u, self.num_v, height, width)
        return flat.transpose(1, 2)


class AlignedHead__wrong__probabilities(Head):
    """says: probabilities"""

    def forward(self, features):
        return super().forward(features).sigmoid()


class AlignedHead__wrong__pad_zero(Head):
    """says: half sure"""

    def forward(self, features):
        return align2nat_fast__right__by_stacking(self.aligned(features), 0.0)


# --- launch_numbers ---------------------------------------------------------------------------

RIGHT = {"blocks": 6, "idle": 48, "i": 454, "v": 3, "u": 4, "y": 2, "x": 4}
launch_numbers__right__by_head = RIGHT
launch_numbers__wrong__rounded_down = RIGHT | {"blocks": 5, "idle": -80}
launch_numbers__wrong__busy_not_idle = RIGHT | {"idle": 80}
launch_numbers__wrong__one_based = RIGHT | {"i": 325, "v": 2, "u": 4, "y": 1, "x": 0}
launch_numbers__wrong__thread_alone = RIGHT | {"i": 70, "v": 0, "u": 3, "y": 2, "x": 0}
launch_numbers__wrong__y_and_x_swapped = RIGHT | {"y": 4, "x": 2}
launch_numbers__wrong__of_the_input = RIGHT | {"v": 1, "u": 2}
