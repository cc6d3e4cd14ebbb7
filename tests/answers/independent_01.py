"""Answers to the exercises of lesson 01, written from its text alone."""

from __future__ import annotations

from itertools import groupby

import numpy as np

# --- visible_masks ----------------------------------------------------------------------------


def visible_masks__right__cumulative(whole):
    above = np.cumsum(whole[::-1], axis=0)[::-1] - whole
    return whole & (above == 0)


def visible_masks__right__recursion(whole):
    if len(whole) < 2:
        return np.array(whole)
    top = whole[-1:]
    return np.concatenate([visible_masks__right__recursion(whole[:-1] & ~top), top])


def visible_masks__wrong__only_the_next(whole):
    out = whole.copy()
    for k in range(len(whole) - 1):
        out[k] &= ~whole[k + 1]
    return out


def visible_masks__wrong__xor_with_next(whole):
    out = whole.copy()
    for k in range(len(whole)):
        for j in range(k + 1, len(whole)):
            out[k] = np.logical_xor(out[k], whole[j])
    return out


def visible_masks__wrong__owner_argmax(whole):
    owner = whole.argmax(0)
    return np.stack([owner == k for k in range(len(whole))])


def visible_masks__wrong__last_owner_without_background(whole):
    owner = len(whole) - 1 - whole[::-1].argmax(0)
    return np.stack([owner == k for k in range(len(whole))])


def visible_masks__wrong__label_map(whole):
    canvas = np.zeros(whole.shape[1:], int)
    for k, shape in enumerate(whole):
        canvas[shape] = k + 1
    return canvas


def visible_masks__wrong__zero_is_background(whole):
    canvas = np.zeros(whole.shape[1:], int)
    for k, shape in enumerate(whole):
        canvas[shape] = k
    return np.stack([(canvas == k) & (canvas > 0) for k in range(len(whole))])


def visible_masks__wrong__result_backwards(whole):
    seen, covered = [], np.zeros(whole.shape[1:], bool)
    for shape in whole[::-1]:
        seen.append(shape & ~covered)
        covered |= shape
    return np.stack(seen) if seen else whole.copy()


def visible_masks__wrong__covered_written_over(whole):
    covered = np.zeros(whole.shape[1:], bool)
    out = np.zeros_like(whole)
    for k in range(len(whole) - 1, -1, -1):
        out[k] = whole[k] & ~covered
        covered = whole[k]
    return out


# --- rle_counts -------------------------------------------------------------------------------


def rle_counts__right__groupby(mask):
    flat = mask.ravel(order="F").tolist()
    runs = [len(list(group)) for _, group in groupby(flat)]
    return ([0] if flat and flat[0] else []) + runs


def rle_counts__right__diff(mask):
    flat = np.concatenate([[False], mask.T.ravel()])
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]), mask.size)
    return np.diff(ends, prepend=0).tolist()


def rle_counts__wrong__last_run_lost(mask):
    counts, value, run = [], False, 0
    for pixel in mask.T.ravel():
        if pixel != value:
            counts.append(run)
            run, value = 0, pixel
        run += 1
    return counts


def rle_counts__wrong__run_restarts_at_zero(mask):
    counts, value, run = [], False, 0
    for pixel in mask.T.ravel():
        if pixel == value:
            run += 1
        else:
            counts.append(run)
            run, value = 0, pixel
    return [*counts, run]


def rle_counts__wrong__column_by_column(mask):
    counts = []
    for column in mask.T:
        for _, group in groupby(column.tolist()):
            counts.append(len(list(group)))
    return counts


def rle_counts__wrong__starts_of_runs(mask):
    flat = np.concatenate([[False], mask.T.ravel(), [False]])
    return np.flatnonzero(flat[1:] != flat[:-1]).tolist()


def rle_counts__wrong__groupby_rows(mask):
    flat = mask.ravel().tolist()
    return ([0] if flat[0] else []) + [len(list(group)) for _, group in groupby(flat)]


def rle_counts__wrong__always_a_zero_first(mask):
    return [0] + [len(list(group)) for _, group in groupby(mask.T.ravel().tolist())]


def rle_counts__wrong__zero_when_first_is_zero(mask):
    flat = mask.T.ravel().tolist()
    return ([] if flat[0] else [0]) + [len(list(group)) for _, group in groupby(flat)]


def rle_counts__wrong__x_and_y_from_i_mixed(mask):
    height, width = mask.shape
    flat = [bool(mask[i // height % height, i % height % width]) for i in range(mask.size)]
    return ([0] if flat[0] else []) + [len(list(group)) for _, group in groupby(flat)]


def rle_counts__wrong__never_empty_end(mask):
    runs = rle_counts__right__groupby(mask)
    return runs if len(runs) % 2 == 0 else [*runs, 0]


# --- mask_of_counts ---------------------------------------------------------------------------


def mask_of_counts__right__repeat(counts, height, width):
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T


def mask_of_counts__right__searchsorted(counts, height, width):
    ends = np.cumsum(counts)
    i = np.arange(width)[None, :] * height + np.arange(height)[:, None]
    return np.searchsorted(ends, i, side="right") % 2 == 1


def mask_of_counts__wrong__reshape_h_w(counts, height, width):
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)


def mask_of_counts__wrong__not_transposed(counts, height, width):
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height)


def mask_of_counts__wrong__ones_first(counts, height, width):
    return np.repeat(np.arange(len(counts)) % 2 == 0, counts).reshape(width, height).T


def mask_of_counts__wrong__zeros_and_ones(counts, height, width):
    flat = []
    for number, count in enumerate(counts):
        flat += [number] * count
    return np.array(flat).reshape(width, height).T


def mask_of_counts__wrong__divides_by_width(counts, height, width):
    out, i = np.zeros((height, width), bool), 0
    for number, count in enumerate(counts):
        for _ in range(count):
            out[i // width, i % width] = number % 2
            i += 1
    return out


def mask_of_counts__wrong__column_by_i_over_width(counts, height, width):
    out, i = np.zeros((height, width), bool), 0
    for number, count in enumerate(counts):
        for _ in range(count):
            out[i % height, i // width] = number % 2
            i += 1
    return out


def mask_of_counts__wrong__start_one_late(counts, height, width):
    flat, i = np.zeros(height * width + 1, bool), 1
    for number, count in enumerate(counts):
        flat[i : i + count] = number % 2
        i += count
    return flat[:-1].reshape(width, height).T


def mask_of_counts__wrong__position_not_moved_over_zeros(counts, height, width):
    flat, i = np.zeros(height * width, bool), 0
    for number, count in enumerate(counts):
        if number % 2:
            flat[i : i + count] = True
            i += count
    return flat.reshape(width, height).T


def mask_of_counts__wrong__toggles_after_skipping_empty(counts, height, width):
    flat, value = [], False
    for count in counts:
        if count == 0:
            continue
        flat += [value] * count
        value = not value
    return np.array(flat).reshape(width, height).T


def mask_of_counts__wrong__last_run_filled_to_one(counts, height, width):
    flat, i = np.zeros(height * width, bool), 0
    for start, count in zip(counts[::2], counts[1::2], strict=False):
        flat[i + start : count] = True
        i += start + count
    return flat.reshape(width, height).T
