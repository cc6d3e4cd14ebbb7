"""Answers to the exercises of lesson 11, written from its text alone."""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import nn

# --- head_parameters --------------------------------------------------------------------------


def head_parameters__right__sum(before, channels, convs, outputs, kernel):
    widths = [before] + [channels] * convs
    tower = sum(c2 * (9 * c1 + 1) for c1, c2 in zip(widths, widths[1:], strict=False))
    return tower + outputs * (kernel**2 * widths[-1] + 1)


def head_parameters__right__cases(before, channels, convs, outputs, kernel):
    if convs == 0:
        return outputs * (kernel * kernel * before + 1)
    first = channels * (9 * before + 1)
    others = (convs - 1) * channels * (9 * channels + 1)
    return first + others + outputs * (kernel * kernel * channels + 1)


def head_parameters__right__torch(before, channels, convs, outputs, kernel):
    with torch.device("meta"):
        layers = []
        for _ in range(convs):
            layers += [nn.Conv2d(before, channels, 3), nn.ReLU()]
            before = channels
        head = nn.Sequential(*layers, nn.Conv2d(before, outputs, kernel))
    return sum(p.numel() for p in head.parameters())


def _conv(before, after, kernel, bias=1):
    return after * (kernel**2 * before + bias)


def head_parameters__wrong__no_bias(before, channels, convs, outputs, kernel):
    last = channels if convs else before
    tower = sum(_conv(channels if k else before, channels, 3, 0) for k in range(convs))
    return tower + _conv(last, outputs, kernel, 0)


def head_parameters__wrong__all_read_before(before, channels, convs, outputs, kernel):
    last = channels if convs else before
    return convs * _conv(before, channels, 3) + _conv(last, outputs, kernel)


def head_parameters__wrong__all_read_channels(before, channels, convs, outputs, kernel):
    last = channels if convs else before
    return convs * _conv(channels, channels, 3) + _conv(last, outputs, kernel)


def head_parameters__wrong__predictor_of_three(before, channels, convs, outputs, kernel):
    last = channels if convs else before
    tower = sum(_conv(channels if k else before, channels, 3) for k in range(convs))
    return tower + _conv(last, outputs, 3)


def head_parameters__wrong__kernel_everywhere(before, channels, convs, outputs, kernel):
    last = channels if convs else before
    tower = sum(_conv(channels if k else before, channels, kernel) for k in range(convs))
    return tower + _conv(last, outputs, kernel)


def head_parameters__wrong__kernel_not_squared(before, channels, convs, outputs, kernel):
    last = channels if convs else before
    tower = sum(_conv(channels if k else before, channels, 3) for k in range(convs))
    return tower + outputs * (kernel * last + 1)


def head_parameters__wrong__no_predictor(before, channels, convs, outputs, kernel):
    return sum(_conv(channels if k else before, channels, 3) for k in range(convs))


def head_parameters__wrong__convs_zero_forgotten(before, channels, convs, outputs, kernel):
    tower = sum(_conv(channels if k else before, channels, 3) for k in range(convs))
    return tower + _conv(channels, outputs, kernel)


def head_parameters__wrong__first_conv_always(before, channels, convs, outputs, kernel):
    others = (convs - 1) * _conv(channels, channels, 3)
    return _conv(before, channels, 3) + others + _conv(channels, outputs, kernel)


def head_parameters__wrong__predictor_reads_before(before, channels, convs, outputs, kernel):
    tower = sum(_conv(channels if k else before, channels, 3) for k in range(convs))
    return tower + _conv(before, outputs, kernel)


def head_parameters__wrong__bias_per_input(before, channels, convs, outputs, kernel):
    widths = [before] + [channels] * convs
    tower = sum(9 * a * b + a for a, b in zip(widths, widths[1:], strict=False))
    return tower + kernel**2 * widths[-1] * outputs + widths[-1]


def head_parameters__wrong__one_bias_per_layer(before, channels, convs, outputs, kernel):
    widths = [before] + [channels] * convs
    tower = sum(9 * a * b + 1 for a, b in zip(widths, widths[1:], strict=False))
    return tower + kernel**2 * widths[-1] * outputs + 1


def head_parameters__wrong__bias_per_weight_place(before, channels, convs, outputs, kernel):
    widths = [before] + [channels] * convs
    tower = sum(9 * b * (a + 1) for a, b in zip(widths, widths[1:], strict=False))
    return tower + kernel**2 * outputs * (widths[-1] + 1)


def head_parameters__wrong__a_conv_less(before, channels, convs, outputs, kernel):
    last = channels if convs else before
    tower = sum(_conv(channels if k else before, channels, 3) for k in range(convs - 1))
    return tower + _conv(last, outputs, kernel)


def head_parameters__wrong__a_conv_more(before, channels, convs, outputs, kernel):
    tower = sum(_conv(channels if k else before, channels, 3) for k in range(convs + 1))
    return tower + _conv(channels, outputs, kernel)


def head_parameters__wrong__with_norms(before, channels, convs, outputs, kernel):
    last = channels if convs else before
    tower = sum(_conv(channels if k else before, channels, 3) for k in range(convs))
    return tower + 2 * channels * convs + _conv(last, outputs, kernel)


def head_parameters__wrong__early_return(before, channels, convs, outputs, kernel):
    total = 0
    for _ in range(convs):
        total += _conv(before, channels, 3)
        before = channels
        return total + _conv(before, outputs, kernel)
    return total + _conv(before, outputs, kernel)


def head_parameters__wrong__tower_without_bias(before, channels, convs, outputs, kernel):
    last = channels if convs else before
    tower = sum(_conv(channels if k else before, channels, 3, 0) for k in range(convs))
    return tower + _conv(last, outputs, kernel)


# --- our_place --------------------------------------------------------------------------------


def our_place__right__split(name):
    parts = name.split(".")
    stage, block, layer = parts[2], parts[3], parts[4]
    conv = 0 if layer == "shortcut" else int(layer[-1])
    return [int(stage[-1]) - 2, int(block), conv, int("norm" in parts)]


def our_place__right__pattern(name):
    found = re.search(r"\.res(\d+)\.(\d+)\.(?:conv(\d)|shortcut)(\.norm)?\.", name)
    stage, block, conv, norm = found.groups()
    return [int(stage) - 2, int(block), int(conv or 0), 1 if norm else 0]


def our_place__right__tables(name):
    _, _, stage, block, layer, *rest = name.split(".")
    stages = {"res2": 0, "res3": 1, "res4": 2, "res5": 3}
    layers = {"shortcut": 0, "conv1": 1, "conv2": 2, "conv3": 3}
    return [stages[stage], int(block), layers[layer], len(rest) - 1]


def _parts(name):
    _, _, stage, block, layer, *rest = name.split(".")
    return int(stage[-1]), int(block), layer, rest


def our_place__wrong__stage_from_two(name):
    stage, block, layer, rest = _parts(name)
    return [stage, block, 0 if layer == "shortcut" else int(layer[-1]), len(rest) - 1]


def our_place__wrong__stage_less_one(name):
    stage, block, layer, rest = _parts(name)
    return [stage - 1, block, 0 if layer == "shortcut" else int(layer[-1]), len(rest) - 1]


def our_place__wrong__conv_from_zero(name):
    stage, block, layer, rest = _parts(name)
    return [stage - 2, block, 3 if layer == "shortcut" else int(layer[-1]) - 1, len(rest) - 1]


def our_place__wrong__shortcut_is_four(name):
    stage, block, layer, rest = _parts(name)
    return [stage - 2, block, 4 if layer == "shortcut" else int(layer[-1]), len(rest) - 1]


def our_place__wrong__shortcut_fails(name):
    stage, block, layer, rest = _parts(name)
    return [stage - 2, block, int(layer[-1]), len(rest) - 1]


def our_place__wrong__block_from_one(name):
    stage, block, layer, rest = _parts(name)
    conv = 0 if layer == "shortcut" else int(layer[-1])
    return [stage - 2, block + 1, conv, len(rest) - 1]


def our_place__wrong__block_less_one(name):
    stage, block, layer, rest = _parts(name)
    conv = 0 if layer == "shortcut" else int(layer[-1])
    return [stage - 2, block - 1, conv, len(rest) - 1]


def our_place__wrong__norm_is_last_word(name):
    stage, block, layer, _ = _parts(name)
    conv = 0 if layer == "shortcut" else int(layer[-1])
    return [stage - 2, block, conv, int(name.endswith(("bias", "mean", "var")))]


def our_place__wrong__norm_only_if_running(name):
    stage, block, layer, _ = _parts(name)
    conv = 0 if layer == "shortcut" else int(layer[-1])
    return [stage - 2, block, conv, int("running" in name)]


def our_place__wrong__weight_is_no_norm(name):
    stage, block, layer, _ = _parts(name)
    conv = 0 if layer == "shortcut" else int(layer[-1])
    return [stage - 2, block, conv, int("weight" not in name)]


def our_place__wrong__norm_turned(name):
    stage, block, layer, rest = _parts(name)
    conv = 0 if layer == "shortcut" else int(layer[-1])
    return [stage - 2, block, conv, int(len(rest) == 1)]


def our_place__wrong__strings(name):
    _, _, stage, block, layer, *rest = name.split(".")
    return [stage[-1], block, layer[-1], str(len(rest) - 1)]


def our_place__wrong__only_three(name):
    stage, block, layer, _ = _parts(name)
    return [stage - 2, block, 0 if layer == "shortcut" else int(layer[-1])]


def our_place__wrong__stage_and_block_swapped(name):
    stage, block, layer, rest = _parts(name)
    return [block, stage - 2, 0 if layer == "shortcut" else int(layer[-1]), len(rest) - 1]


def our_place__wrong__fixed_letters(name):
    tail = name[len("backbone.bottom_up.res") :]
    conv = 0 if "shortcut" in tail else int(tail[8])
    return [int(tail[0]) - 2, int(tail[2]) % 2, conv, int(".norm." in tail)]


def our_place__wrong__shortcut_norm_forgotten(name):
    stage, block, layer, rest = _parts(name)
    if layer == "shortcut":
        return [stage - 2, block, 0, 0]
    return [stage - 2, block, int(layer[-1]), len(rest) - 1]


def our_place__wrong__which_norm_tensor(name):
    stage, block, layer, rest = _parts(name)
    kinds = ["weight", "bias", "running_mean", "running_var"]
    norm = kinds.index(rest[-1]) + 1 if len(rest) > 1 else 0
    return [stage - 2, block, 0 if layer == "shortcut" else int(layer[-1]), norm]


def our_place__wrong__all_digits(name):
    digits = [int(each) for each in re.findall(r"\d", name)]
    return [digits[0] - 2, digits[1], (digits + [1])[2], int("norm" in name)]


def our_place__wrong__text_inside(name):
    _, _, stage, block, layer, *rest = name.split(".")
    return [int(stage[-1]) - 2, block, "0" if layer == "shortcut" else layer[-1], len(rest) - 1]


# --- sort_errors ------------------------------------------------------------------------------


def sort_errors__right__loops(ious):
    num_detections, num_objects = ious.shape
    taken, kinds = set(), []
    for d in range(num_detections):
        best, which = 0.0, None
        for g in range(num_objects):
            if g not in taken and ious[d, g] > best:
                best, which = ious[d, g], g
        if which is not None and best >= 0.5:
            taken.add(which)
            kinds.append(0 if best >= 0.75 else 1)
        elif any(ious[d, g] >= 0.5 for g in range(num_objects)):
            kinds.append(2)
        else:
            kinds.append(3)
    return np.array(kinds, dtype=int)


def sort_errors__right__masked(ious):
    kinds = np.full(len(ious), 3)
    if ious.shape[1] == 0:
        return kinds
    left = ious.astype(float).copy()
    for d, row in enumerate(ious):
        g = left[d].argmax()
        if left[d, g] >= 0.5:
            kinds[d] = int(left[d, g] < 0.75)
            left[:, g] = -1
        elif row.max() >= 0.5:
            kinds[d] = 2
    return kinds


def sort_errors__right__free_list(ious):
    free = list(range(ious.shape[1]))

    def kind(row):
        best = max(free, key=lambda g: (row[g], -g), default=None)
        if best is not None and row[best] >= 0.5:
            free.remove(best)
            return 0 if row[best] >= 0.75 else 1
        return 2 if (row >= 0.5).any() else 3

    return np.array([kind(row) for row in ious], np.int64)


def _sort_errors(
    ious,
    *,
    least=0.5,
    fine=0.75,
    strict=False,
    keep=False,
    last=False,
    any_iou=0.5,
    backwards=False,
):
    kinds, free = [3] * len(ious), np.ones(ious.shape[1], bool)
    order = range(len(ious))[::-1] if backwards else range(len(ious))
    for d in order:
        row = np.where(free, ious[d], -1)
        if not len(row):
            continue
        g = len(row) - 1 - row[::-1].argmax() if last else row.argmax()
        if row[g] > least if strict else row[g] >= least:
            free[g] = keep
            kinds[d] = 0 if (row[g] > fine if strict else row[g] >= fine) else 1
        elif (ious[d] > any_iou if strict else ious[d] >= any_iou).any():
            kinds[d] = 2
    return np.array(kinds, int)


def sort_errors__wrong__strictly(ious):
    return _sort_errors(ious, strict=True)


def sort_errors__wrong__never_taken(ious):
    return _sort_errors(ious, keep=True)


def sort_errors__wrong__last_of_equals(ious):
    return _sort_errors(ious, last=True)


def sort_errors__wrong__from_the_last_row(ious):
    return _sort_errors(ious, backwards=True)


def sort_errors__wrong__doubled_from_a_touch(ious):
    return _sort_errors(ious, any_iou=1e-9)


def sort_errors__wrong__fine_alone_counts(ious):
    return _sort_errors(ious, least=0.75)


def sort_errors__wrong__best_of_all_even_taken(ious):
    kinds, taken = [], set()
    for row in ious:
        if not len(row):
            kinds.append(3)
            continue
        g = int(row.argmax())
        if row[g] < 0.5:
            kinds.append(3)
        elif g in taken:
            kinds.append(2)
        else:
            taken.add(g)
            kinds.append(0 if row[g] >= 0.75 else 1)
    return np.array(kinds, int)


def sort_errors__wrong__only_fine_takes(ious):
    kinds, free = [], np.ones(ious.shape[1], bool)
    for row in ious:
        open_ = np.where(free, row, -1)
        best = open_.max() if len(row) else -1
        if best >= 0.75:
            free[open_.argmax()] = False
        kinds.append(
            0 if best >= 0.75 else 1 if best >= 0.5 else 2 if (row >= 0.5).any() else 3
        )
    return np.array(kinds, int)


def sort_errors__wrong__first_that_is_enough(ious):
    kinds, free = [], np.ones(ious.shape[1], bool)
    for row in ious:
        enough = np.flatnonzero(free & (row >= 0.5))
        if len(enough):
            free[enough[0]] = False
            kinds.append(0 if row[enough[0]] >= 0.75 else 1)
        else:
            kinds.append(2 if (row >= 0.5).any() else 3)
    return np.array(kinds, int)


def sort_errors__wrong__no_objects_fails(ious):
    kinds, left = [], ious.copy()
    for d, row in enumerate(ious):
        g = left[d].argmax()
        if left[d, g] >= 0.5:
            kinds.append(0 if left[d, g] >= 0.75 else 1)
            left[:, g] = -1
        else:
            kinds.append(2 if row.max() >= 0.5 else 3)
    return np.array(kinds, int)


def sort_errors__wrong__written_into(ious):
    kinds = []
    for d in range(len(ious)):
        before = ious[d].copy()
        g = ious[d].argmax() if ious.shape[1] else -1
        if g >= 0 and ious[d, g] >= 0.5:
            kinds.append(0 if ious[d, g] >= 0.75 else 1)
            ious[:, g] = 0
        else:
            kinds.append(2 if (before >= 0.5).any() else 3)
    return np.array(kinds, int)


def sort_errors__wrong__doubled_forgotten_after_zeroing(ious):
    kinds, left = [], ious.copy()
    for d in range(len(ious)):
        row = left[d]
        best = row.max() if len(row) else 0
        if best >= 0.5:
            kinds.append(0 if best >= 0.75 else 1)
            left[:, row.argmax()] = 0
        else:
            kinds.append(2 if (row >= 0.5).any() else 3)
    return np.array(kinds, int)


def sort_errors__wrong__per_object(ious):
    kinds = np.full(len(ious), 3)
    for column in ious.T:
        over = np.flatnonzero(column >= 0.5)
        kinds[over] = 2
        if len(over):
            best = over[column[over].argmax()]
            kinds[best] = 0 if column[best] >= 0.75 else 1
    return kinds


def sort_errors__wrong__largest_alone(ious):
    best = ious.max(1, initial=0)
    return np.where(best >= 0.75, 0, np.where(best >= 0.5, 1, 3))


def sort_errors__wrong__fine_and_coarse_swapped(ious):
    kinds = sort_errors__right__loops(ious)
    return np.where(kinds < 2, 1 - kinds, kinds)


def sort_errors__wrong__numbered_from_one(ious):
    return sort_errors__right__loops(ious) + 1


def sort_errors__wrong__false_and_doubled_swapped(ious):
    kinds = sort_errors__right__loops(ious)
    return np.where(kinds >= 2, 5 - kinds, kinds)


def sort_errors__wrong__early_return(ious):
    kinds = np.full(len(ious), 3)
    free = np.ones(ious.shape[1], bool)
    for d, row in enumerate(ious):
        open_ = np.where(free, row, -1)
        if len(row) and open_.max() >= 0.5:
            free[open_.argmax()] = False
            kinds[d] = int(open_.max() < 0.75)
        elif (row >= 0.5).any():
            kinds[d] = 2
        else:
            return kinds
    return kinds


def sort_errors__wrong__list_of_words(ious):
    words = ("fine", "coarse", "doubled", "false")
    return [words[k] for k in sort_errors__right__loops(ious)]


def sort_errors__wrong__doubled_if_coarse(ious):
    kinds, free = [], np.ones(ious.shape[1], bool)
    for row in ious:
        open_ = np.where(free, row, -1)
        best = open_.max() if len(row) else -1
        if best >= 0.5:
            free[open_.argmax()] = False
            kinds.append(0 if best >= 0.75 else 1)
        else:
            kinds.append(2 if (row >= 0.75).any() else 3)
    return np.array(kinds, int)
