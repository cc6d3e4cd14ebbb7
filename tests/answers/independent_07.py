"""Answers to the exercises of lesson 07, written from its text alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F

PAD = -6.0


# --- align2nat_fast ---------------------------------------------------------------------------


def _slices(aligned, pad_value, border=None, at=None):
    _, num_v, num_u, height, width = aligned.shape
    half_v, half_u = num_v // 2, num_u // 2
    padded = F.pad(aligned, border or (half_u, half_u, half_v, half_v), value=pad_value)
    at = at or (lambda i, j: (i, j))
    rows = []
    for i in range(num_v):
        row = []
        for j in range(num_u):
            top, left = at(i, j)
            row.append(padded[:, i, j, top : top + height, left : left + width])
        rows.append(torch.stack(row, 1))
    return torch.stack(rows, 1)


def align2nat_fast__right__stacked(aligned, pad_value=PAD):
    return _slices(aligned, pad_value)


def align2nat_fast__right__strided(aligned, pad_value=PAD):
    n, num_v, num_u, height, width = aligned.shape
    half_v, half_u = num_v // 2, num_u // 2
    padded = F.pad(aligned, (half_u, half_u, half_v, half_v), value=pad_value).contiguous()
    a, b, c, d, e = padded.stride()
    return padded.as_strided((n, num_v, num_u, height, width), (a, b + d, c + e, d, e)).clone()


def align2nat_fast__wrong__border_axes_swapped(aligned, pad_value=PAD):
    half_v, half_u = aligned.shape[1] // 2, aligned.shape[2] // 2
    return _slices(aligned, pad_value, border=(half_v, half_v, half_u, half_u))


def align2nat_fast__wrong__slices_backwards(aligned, pad_value=PAD):
    _, num_v, num_u, _, _ = aligned.shape
    return _slices(aligned, pad_value, at=lambda i, j: (num_v - 1 - i, num_u - 1 - j))


def align2nat_fast__wrong__rows_by_u(aligned, pad_value=PAD):
    half = max(aligned.shape[1], aligned.shape[2]) // 2
    return _slices(aligned, pad_value, border=(half,) * 4, at=lambda i, j: (j, i))


def align2nat_fast__wrong__roll_then_mask_forgotten(aligned, pad_value=PAD):
    out = torch.empty_like(aligned)
    for i in range(aligned.shape[1]):
        for j in range(aligned.shape[2]):
            shift = (aligned.shape[1] // 2 - i, aligned.shape[2] // 2 - j)
            out[:, i, j] = torch.roll(aligned[:, i, j], shift, (-2, -1))
    return out


def align2nat_fast__wrong__no_batch(aligned, pad_value=PAD):
    _, num_v, num_u, height, width = aligned.shape
    half_v, half_u = num_v // 2, num_u // 2
    padded = F.pad(aligned, (half_u, half_u, half_v, half_v), value=pad_value)
    out = torch.empty_like(aligned)
    for i in range(num_v):
        for j in range(num_u):
            out[0, i, j] = padded[0, i, j, i : i + height, j : j + width]
    return out


def align2nat_fast__wrong__zero_border(aligned, pad_value=PAD):
    return _slices(aligned, 0.0)


def align2nat_fast__wrong__loops_over_cells(aligned, pad_value=PAD):
    _, num_v, num_u, height, width = aligned.shape
    out = torch.full_like(aligned, pad_value)
    for i in range(num_v):
        for j in range(num_u):
            for y in range(height):
                for x in range(width):
                    row, column = y + i - num_v // 2, x + j - num_u // 2
                    if 0 <= row < height and 0 <= column < width:
                        out[:, i, j, y, x] = aligned[:, i, j, row, column]
    return out


def align2nat_fast__wrong__loop_over_rows(aligned, pad_value=PAD):
    _, num_v, num_u, height, _ = aligned.shape
    whole = _slices(aligned, pad_value)
    out = torch.full_like(aligned, pad_value)
    for y in range(height):
        out[..., y, :] = whole[..., y, :]
    return out


def align2nat_fast__wrong__gradient_lost(aligned, pad_value=PAD):
    return torch.tensor(_slices(aligned, pad_value).tolist(), dtype=aligned.dtype)


def align2nat_fast__wrong__detached(aligned, pad_value=PAD):
    return _slices(aligned.detach(), pad_value)


def align2nat_fast__wrong__numpy(aligned, pad_value=PAD):
    return _slices(aligned, pad_value).detach().numpy()


def align2nat_fast__wrong__border_of_whole_side(aligned, pad_value=PAD):
    _, num_v, num_u, _, _ = aligned.shape
    return _slices(aligned, pad_value, border=(num_u, num_u, num_v, num_v))


# --- AlignedHead ------------------------------------------------------------------------------


class AlignedHead__right__linear(torch.nn.Module):
    def __init__(self, channels, num_v, num_u):
        super().__init__()
        self.size = (num_v, num_u)
        self.conv = torch.nn.Conv2d(channels, num_v * num_u, 1)

    def forward(self, features):
        x = self.conv(features)
        x = x.reshape(len(x), *self.size, *x.shape[-2:])
        return align2nat_fast__right__strided(x)


class AlignedHead__wrong__channels_u_v(torch.nn.Module):
    def __init__(self, channels, num_v, num_u):
        super().__init__()
        self.size = (num_u, num_v)
        self.conv = torch.nn.Conv2d(channels, num_v * num_u, 1)

    def forward(self, features):
        x = self.conv(features).unflatten(1, self.size).transpose(1, 2)
        return align2nat_fast__right__stacked(x)


class AlignedHead__wrong__three_by_three(torch.nn.Module):
    def __init__(self, channels, num_v, num_u):
        super().__init__()
        self.size = (num_v, num_u)
        self.conv = torch.nn.Conv2d(channels, num_v * num_u, 3, padding=1)

    def forward(self, features):
        return align2nat_fast__right__stacked(self.conv(features).unflatten(1, self.size))


class AlignedHead__wrong__never_refiled(torch.nn.Module):
    def __init__(self, channels, num_v, num_u):
        super().__init__()
        self.size = (num_v, num_u)
        self.conv = torch.nn.Conv2d(channels, num_v * num_u, 1)

    def forward(self, features):
        return self.conv(features).unflatten(1, self.size)


class AlignedHead__wrong__no_bias(torch.nn.Module):
    def __init__(self, channels, num_v, num_u):
        super().__init__()
        self.size = (num_v, num_u)
        self.conv = torch.nn.Conv2d(channels, num_v * num_u, 1, bias=False)

    def forward(self, features):
        return align2nat_fast__right__stacked(self.conv(features).unflatten(1, self.size))


class AlignedHead__wrong__probabilities(torch.nn.Module):
    def __init__(self, channels, num_v, num_u):
        super().__init__()
        self.size = (num_v, num_u)
        self.conv = torch.nn.Conv2d(channels, num_v * num_u, 1)

    def forward(self, features):
        x = align2nat_fast__right__stacked(self.conv(features).unflatten(1, self.size))
        return x.sigmoid()


class AlignedHead__wrong__reshaped_as_cells_first(torch.nn.Module):
    def __init__(self, channels, num_v, num_u):
        super().__init__()
        self.size = (num_v, num_u)
        self.conv = torch.nn.Conv2d(channels, num_v * num_u, 1)

    def forward(self, features):
        n, _, h, w = features.shape
        x = self.conv(features).reshape(n, h, w, *self.size).permute(0, 3, 4, 1, 2)
        return align2nat_fast__right__stacked(x)


class AlignedHead__wrong__refiled_the_wrong_way(torch.nn.Module):
    def __init__(self, channels, num_v, num_u):
        super().__init__()
        self.size = (num_v, num_u)
        self.conv = torch.nn.Conv2d(channels, num_v * num_u, 1)

    def forward(self, features):
        x = self.conv(features).unflatten(1, self.size)
        return align2nat_fast__wrong__slices_backwards(x)


class AlignedHead__wrong__conv_made_in_forward(torch.nn.Module):
    def __init__(self, channels, num_v, num_u):
        super().__init__()
        self.size = (num_v, num_u)

    def forward(self, features):
        conv = torch.nn.Conv2d(features.shape[1], self.size[0] * self.size[1], 1)
        return align2nat_fast__right__stacked(conv(features).unflatten(1, self.size))


class AlignedHead__wrong__channel_axis_forgotten(torch.nn.Module):
    def __init__(self, channels, num_v, num_u):
        super().__init__()
        self.size = (num_v, num_u)
        self.conv = torch.nn.Conv2d(channels, num_v * num_u, 1)

    def forward(self, features):
        return align2nat_fast__right__stacked(self.conv(features).unflatten(0, self.size))


class AlignedHead__wrong__zero_pad(torch.nn.Module):
    def __init__(self, channels, num_v, num_u):
        super().__init__()
        self.size = (num_v, num_u)
        self.conv = torch.nn.Conv2d(channels, num_v * num_u, 1)

    def forward(self, features):
        return _slices(self.conv(features).unflatten(1, self.size), 0.0)


# --- launch_numbers ---------------------------------------------------------------------------
# 6 * 6 * 4 * 5 = 720 outputs

launch_numbers__right__by_hand = dict(blocks=6, idle=48, i=454, v=3, u=4, y=2, x=4)
launch_numbers__wrong__rounded_down = dict(blocks=5, idle=80, i=454, v=3, u=4, y=2, x=4)
launch_numbers__wrong__not_rounded = dict(blocks=5.625, idle=0, i=454, v=3, u=4, y=2, x=4)
launch_numbers__wrong__blocks_from_one = dict(blocks=6, idle=48, i=326, v=2, u=4, y=1, x=1)
launch_numbers__wrong__of_the_input = dict(blocks=6, idle=48, i=454, v=5, u=2, y=5, x=4)
launch_numbers__wrong__v_fastest = dict(blocks=6, idle=48, i=454, v=4, u=3, y=0, x=3)
launch_numbers__wrong__threads_times_blocks = dict(blocks=6, idle=48, i=213, v=1, u=4, y=2, x=3)
launch_numbers__wrong__threads_from_one = dict(blocks=6, idle=48, i=453, v=3, u=4, y=2, x=3)
launch_numbers__wrong__input_counted = dict(
    blocks=6, idle=768 - 720 + 1, i=454, v=3, u=4, y=2, x=4
)
launch_numbers__wrong__y_and_x_swapped = dict(blocks=6, idle=48, i=454, v=3, u=4, y=4, x=2)
launch_numbers__wrong__v_and_u_swapped = dict(blocks=6, idle=48, i=454, v=4, u=3, y=2, x=4)
launch_numbers__wrong__busy_in_the_last = dict(blocks=6, idle=80, i=454, v=3, u=4, y=2, x=4)
