"""Answers to the exercises of lesson 01."""

from __future__ import annotations

import itertools

import numpy as np

# --- visible_masks ----------------------------------------------------------------------------


def visible_masks__right__from_the_top(whole):
    taken = np.zeros(whole.shape[1:], bool)
    out = []
    for shape in whole[::-1]:
        out.append(shape & ~taken)
        taken |= shape
    return np.stack(out[::-1])


def visible_masks__right__by_argmax(whole):
    owner = len(whole) - 1 - whole[::-1].argmax(0)
    return (owner == np.arange(len(whole))[:, None, None]) & whole.any(0)


def visible_masks__wrong__order_not_turned_back(whole):
    taken = np.zeros(whole.shape[1:], bool)
    out = []
    for shape in whole[::-1]:
        out.append(shape & ~taken)
        taken |= shape
    return np.stack(out)


def visible_masks__wrong__first_wins(whole):
    """says: drawn first"""
    owner = whole.argmax(0)
    return (owner == np.arange(len(whole))[:, None, None]) & whole.any(0)


def visible_masks__wrong__next_alone(whole):
    out = whole.copy()
    for k in range(len(whole) - 1):
        out[k] = whole[k] & ~whole[k + 1]
    return out


def visible_masks__wrong__background_to_the_first(whole):
    owner = len(whole) - 1 - whole[::-1].argmax(0)
    return owner == np.arange(len(whole))[:, None, None]


def visible_masks__wrong__no_overlap_at_all(whole):
    """says: The one on top keeps it"""
    return whole & (whole.sum(0) == 1)


def visible_masks__wrong__owner_map(whole):
    out = np.zeros(whole.shape[1:], int)
    for k, shape in enumerate(whole):
        out[shape] = k + 1
    return out


def visible_masks__wrong__written_into_the_input(whole):
    """says: writes into its argument"""
    for k in range(len(whole)):
        for j in range(k + 1, len(whole)):
            whole[k] &= ~whole[j]
    return whole


# --- rle_counts -------------------------------------------------------------------------------


def rle_counts__right__by_groups(mask):
    strip = mask.T.ravel()
    counts = [len(list(group)) for _, group in itertools.groupby(strip)]
    return [0, *counts] if strip[0] else counts


def rle_counts__right__by_differences(mask):
    strip = np.concatenate([[False], mask.ravel(order="F")])
    edges = np.flatnonzero(strip[1:] != strip[:-1])
    return np.diff([0, *edges, mask.size]).tolist()


def rle_counts__wrong__rows(mask):
    """says: along the rows"""
    return rle_counts__right__by_differences(mask.T)


def rle_counts__wrong__groups_alone(mask):
    """says: first count"""
    return [len(list(group)) for _, group in itertools.groupby(mask.T.ravel())]


def rle_counts__wrong__last_run_never_closed(mask):
    """says: The last run"""
    counts, run, value = [], 0, False
    for pixel in mask.T.ravel():
        if pixel == value:
            run += 1
        else:
            counts.append(run)
            run, value = 1, pixel
    return counts


def rle_counts__wrong__restarted_at_zero(mask):
    counts, run, value = [], 0, False
    for pixel in mask.T.ravel():
        if pixel == value:
            run += 1
        else:
            counts.append(run)
            run, value = 0, pixel
    return [*counts, run]


def rle_counts__wrong__with_their_values(mask):
    return [(int(v), len(list(group))) for v, group in itertools.groupby(mask.T.ravel())]


def rle_counts__wrong__ones_come_first(mask):
    return rle_counts__right__by_differences(~mask)


def rle_counts__wrong__start_and_length(mask):
    counts, begin, out = rle_counts__right__by_differences(mask), 0, []
    for number, length in enumerate(counts):
        if number % 2:
            out += [begin, length]
        begin += length
    return out


def rle_counts__wrong__column_by_column(mask):
    return [
        count
        for column in mask.T
        for count in rle_counts__right__by_differences(column[None].T)
    ]


# --- mask_of_counts ---------------------------------------------------------------------------


def mask_of_counts__right__by_repeat(counts, height, width):
    strip = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return strip.reshape(width, height).T


def mask_of_counts__wrong__rows(counts, height, width):
    """says: along the rows"""
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)


def mask_of_counts__wrong__not_transposed(counts, height, width):
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height)


def mask_of_counts__wrong__ones_first(counts, height, width):
    """says: of zeros"""
    return ~mask_of_counts__right__by_repeat(counts, height, width)


def mask_of_counts__wrong__a_strip(counts, height, width):
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts)


def mask_of_counts__wrong__y_by_width(counts, height, width):
    mask = np.zeros((height, width), bool)
    i = 0
    for number, count in enumerate(counts):
        for _ in range(count):
            mask[i % height, i // width] = number % 2
            i += 1
    return mask


def mask_of_counts__wrong__place_not_moved_by_zeros(counts, height, width):
    strip, i = np.zeros(height * width, bool), 0
    for ones in counts[1::2]:
        strip[i : i + ones] = True
        i += ones
    return strip.reshape(width, height).T


def mask_of_counts__wrong__all_zeros(counts, height, width):
    mask = np.zeros((height, width), bool)
    i, value = 0, False
    for count in counts:
        mask.T.flatten()[i : i + count] = value
        i, value = i + count, not value
    return mask
