"""Answers to the exercises of lesson 11."""

from __future__ import annotations

import re

import numpy as np

# --- head_parameters --------------------------------------------------------------------------


def conv(k, c_in, c_out):
    """Parameters of one convolution with biases."""
    return c_out * (k * k * c_in + 1)


def head_parameters__right__list_of_channels(before, channels, convs, outputs, kernel):
    widths = [before] + [channels] * convs
    tower = sum(conv(3, a, b) for a, b in zip(widths, widths[1:], strict=False))
    return tower + conv(kernel, widths[-1], outputs)


def head_parameters__right__cases(before, channels, convs, outputs, kernel):
    if convs == 0:
        return conv(kernel, before, outputs)
    first, rest = conv(3, before, channels), (convs - 1) * conv(3, channels, channels)
    return first + rest + conv(kernel, channels, outputs)


def head_parameters__right__numpy(before, channels, convs, outputs, kernel):
    read = np.array([before] + [channels] * convs)
    return int((channels * (9 * read[:-1] + 1)).sum()) + conv(kernel, read[-1], outputs)


def head_parameters__wrong__no_biases(before, channels, convs, outputs, kernel):
    """says: weights only"""
    widths = [before] + [channels] * convs
    tower = sum(9 * a * b for a, b in zip(widths, widths[1:], strict=False))
    return tower + kernel * kernel * widths[-1] * outputs


def head_parameters__wrong__tower_all_from_before(before, channels, convs, outputs, kernel):
    return convs * conv(3, before, channels) + conv(kernel, channels, outputs)


def head_parameters__wrong__tower_all_from_channels(before, channels, convs, outputs, kernel):
    """says: reads `before` channels, not"""
    return convs * conv(3, channels, channels) + conv(kernel, channels, outputs)


def head_parameters__wrong__no_tower_forgotten(before, channels, convs, outputs, kernel):
    first = conv(3, before, channels)
    return first + (convs - 1) * conv(3, channels, channels) + conv(kernel, channels, outputs)


def head_parameters__wrong__channels_without_tower(before, channels, convs, outputs, kernel):
    """says: Without a tower"""
    widths = [before] + [channels] * convs
    tower = sum(conv(3, a, b) for a, b in zip(widths, widths[1:], strict=False))
    return tower + conv(kernel, channels, outputs)


def head_parameters__wrong__kernel_once(before, channels, convs, outputs, kernel):
    widths = [before] + [channels] * convs
    tower = sum(conv(3, a, b) for a, b in zip(widths, widths[1:], strict=False))
    return tower + outputs * (kernel * widths[-1] + 1)


def head_parameters__wrong__predictor_3x3(before, channels, convs, outputs, kernel):
    return head_parameters__right__cases(before, channels, convs, outputs, 3)


def head_parameters__wrong__tower_of_kernel(before, channels, convs, outputs, kernel):
    widths = [before] + [channels] * convs
    tower = sum(conv(kernel, a, b) for a, b in zip(widths, widths[1:], strict=False))
    return tower + conv(kernel, widths[-1], outputs)


def head_parameters__wrong__biases_of_inputs(before, channels, convs, outputs, kernel):
    """says: output channel"""
    widths = [before] + [channels] * convs
    tower = sum(9 * a * b + a for a, b in zip(widths, widths[1:], strict=False))
    return tower + kernel**2 * widths[-1] * outputs + widths[-1]


def head_parameters__wrong__one_bias_each(before, channels, convs, outputs, kernel):
    widths = [before] + [channels] * convs
    tower = sum(9 * a * b + 1 for a, b in zip(widths, widths[1:], strict=False))
    return tower + kernel**2 * widths[-1] * outputs + 1


def head_parameters__wrong__tower_only(before, channels, convs, outputs, kernel):
    widths = [before] + [channels] * convs
    return sum(conv(3, a, b) for a, b in zip(widths, widths[1:], strict=False))


# --- our_place --------------------------------------------------------------------------------


def our_place__right__regex(name):
    found = re.search(r"res(\d)\.(\d+)\.(?:conv(\d)|shortcut)\.(norm)?", name)
    stage, block, number, norm = found.groups()
    return [int(stage) - 2, int(block), int(number or 0), int(norm is not None)]


def our_place__right__split(name):
    parts = name.split(".")
    convs = {"shortcut": 0, "conv1": 1, "conv2": 2, "conv3": 3}
    return [int(parts[2][-1]) - 2, int(parts[3]), convs[parts[4]], int("norm" in parts)]


def our_place__right__tuple(name):
    return tuple(our_place__right__regex(name))


def our_place__wrong__stage_as_is(name):
    """says: take 2 off"""
    stage, *rest = our_place__right__split(name)
    return [stage + 2, *rest]


def our_place__wrong__torchvision(name):
    """says: torchvision"""
    stage, *rest = our_place__right__split(name)
    return [stage + 1, *rest]


def our_place__wrong__conv_from_0(name):
    """says: conv1 is 1"""
    stage, block, number, norm = our_place__right__split(name)
    return [stage, block, number - 1 if number else 0, norm]


def our_place__wrong__statistics_alone(name):
    stage, block, number, _ = our_place__right__split(name)
    return [stage, block, number, int("running" in name)]


def our_place__wrong__not_a_weight(name):
    """says: a `weight` too"""
    stage, block, number, _ = our_place__right__split(name)
    return [stage, block, number, int(not name.endswith("weight"))]


def our_place__wrong__strings(name):
    parts = name.split(".")
    return [parts[2], parts[3], parts[4], "norm" in parts]


def our_place__wrong__no_shortcut(name):
    parts = name.split(".")
    number = int(parts[4][-1])  # raises for "shortcut"
    return [int(parts[2][-1]) - 2, int(parts[3]), number, int("norm" in parts)]


def our_place__wrong__shortcut_is_4(name):
    stage, block, number, norm = our_place__right__split(name)
    return [stage, block, number or 4, norm]


def our_place__wrong__inverted(name):
    stage, block, number, norm = our_place__right__split(name)
    return [stage, block, number, 1 - norm]


# --- sort_errors ------------------------------------------------------------------------------


def sort_errors__right__set_of_taken(ious):
    taken, kinds = set(), []
    for row in ious:
        free = [g for g in range(len(row)) if g not in taken]
        best = max(free, key=lambda g: row[g], default=None)
        if best is not None and row[best] >= 0.5:
            taken.add(best)
            kinds.append(0 if row[best] >= 0.75 else 1)
        else:
            kinds.append(2 if any(v >= 0.5 for v in row) else 3)
    return np.array(kinds, dtype=int)


def sort_errors__right__crossed_out(ious):
    left = ious.copy()
    kinds = np.where((ious >= 0.5).any(1), 2, 3)
    for d in range(len(ious)):
        if (left[d] >= 0.5).any():
            g = left[d].argmax()
            kinds[d] = int(left[d, g] < 0.75)
            left[:, g] = 0
    return kinds


def sort_errors__wrong__row_by_row(ious):
    """says: Nothing is ever taken"""
    best = ious.max(1, initial=0)
    return np.where(best >= 0.75, 0, np.where(best >= 0.5, 1, 3))


def sort_errors__wrong__best_of_all(ious):
    kinds, taken = np.full(len(ious), 3), set()
    for d, row in enumerate(ious):
        if row.size and row.max() >= 0.5:
            g = int(row.argmax())
            kinds[d] = 2 if g in taken else int(row[g] < 0.75)
            taken.add(g)
    return kinds


def sort_errors__wrong__more_than_half(ious):
    """says: is enough"""
    return sort_errors__right__crossed_out(np.where(ious == 0.5, 0.49, ious))


def sort_errors__wrong__more_than_three_quarters(ious):
    """says: is fine"""
    return sort_errors__right__crossed_out(np.where(ious == 0.75, 0.74, ious))


def sort_errors__wrong__swapped(ious):
    """says: changed places"""
    return np.array([1, 0, 2, 3])[sort_errors__right__crossed_out(ious)]


def sort_errors__wrong__doubled_as_false(ious):
    kinds = sort_errors__right__crossed_out(ious)
    return np.where(kinds == 2, 3, kinds)


def sort_errors__wrong__any_overlap(ious):
    kinds = sort_errors__right__crossed_out(ious)
    return np.where((kinds == 3) & (ious > 0).any(1), 2, kinds)


def sort_errors__wrong__ascending(ious):
    return sort_errors__right__crossed_out(ious[::-1].copy())[::-1].copy()


def sort_errors__wrong__first_that_will_do(ious):
    kinds, free = np.full(len(ious), 3), np.ones(ious.shape[1], bool)
    for d, row in enumerate(ious):
        good = [g for g in range(len(row)) if free[g] and row[g] >= 0.5]
        if good:
            free[good[0]] = False
            kinds[d] = int(row[good[0]] < 0.75)
        elif (row >= 0.5).any():
            kinds[d] = 2
    return kinds


def sort_errors__wrong__fails_without_objects(ious):
    kinds, left = [], ious.copy()
    for d in range(len(ious)):
        g = left[d].argmax()
        if left[d, g] >= 0.5:
            kinds.append(int(left[d, g] < 0.75))
            left[:, g] = 0
        else:
            kinds.append(2 if ious[d].max() >= 0.5 else 3)
    return np.array(kinds, dtype=int)


def sort_errors__wrong__a_list(ious):
    """says: Return an array"""
    return sort_errors__right__crossed_out(ious).tolist()
