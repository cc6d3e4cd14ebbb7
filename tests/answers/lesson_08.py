"""Answers to the exercises of lesson 08."""

from __future__ import annotations

import math

import numpy as np

# --- reason -----------------------------------------------------------------------------------


def reason__right__by_corners(dy, dx, side, height, width, stride):
    top, bottom = side / 2 + dy - height / 2, side / 2 + dy + height / 2
    left, right = side / 2 + dx - width / 2, side / 2 + dx + width / 2
    if min(top, left) < 0 or max(bottom, right) > side:
        return 1
    if (side - stride) / 2 > max(8, height, width):
        return 2
    return 3 if dy * dy + dx * dx > stride * stride else 0


def reason__right__by_numpy(dy, dx, side, height, width, stride):
    fits = (np.abs([dy, dx]) + np.array([height, width]) / 2 <= side / 2).all()
    large = 2 * max(height, width, 8) >= side - stride
    central = np.linalg.norm([dy, dx]) <= stride
    answers = [fits, large, central]
    return 0 if all(answers) else 1 + answers.index(False)


def reason__wrong__signed(dy, dx, side, height, width, stride):
    """says: dy and dx may be negative"""
    if dy + height / 2 > side / 2 or dx + width / 2 > side / 2:
        return 1
    if side - stride > 2 * max(height, width, 8):
        return 2
    return 3 if math.hypot(dy, dx) > stride else 0


def reason__wrong__swapped(dy, dx, side, height, width, stride):
    """says: dy goes with the height"""
    if abs(dx) + height / 2 > side / 2 or abs(dy) + width / 2 > side / 2:
        return 1
    if side - stride > 2 * max(height, width, 8):
        return 2
    return 3 if math.hypot(dy, dx) > stride else 0


def reason__wrong__sizes_alone(dy, dx, side, height, width, stride):
    """says: compare sizes alone"""
    if height > side or width > side:
        return 1
    if side - stride > 2 * max(height, width, 8):
        return 2
    return 3 if math.hypot(dy, dx) > stride else 0


def reason__wrong__no_floor(dy, dx, side, height, width, stride):
    """says: shorter than 8 px"""
    if abs(dy) + height / 2 > side / 2 or abs(dx) + width / 2 > side / 2:
        return 1
    if side - stride > 2 * max(height, width):
        return 2
    return 3 if math.hypot(dy, dx) > stride else 0


def reason__wrong__papers_side(dy, dx, side, height, width, stride):
    """says: stride is taken off"""
    if abs(dy) + height / 2 > side / 2 or abs(dx) + width / 2 > side / 2:
        return 1
    if side > 2 * max(height, width, 8):
        return 2
    return 3 if math.hypot(dy, dx) > stride else 0


def reason__wrong__city_block(dy, dx, side, height, width, stride):
    """says: not the sum"""
    if abs(dy) + height / 2 > side / 2 or abs(dx) + width / 2 > side / 2:
        return 1
    if side - stride > 2 * max(height, width, 8):
        return 2
    return 3 if abs(dy) + abs(dx) > stride else 0


def reason__wrong__area(dy, dx, side, height, width, stride):
    if abs(dy) + height / 2 > side / 2 or abs(dx) + width / 2 > side / 2:
        return 1
    if side - stride > 2 * max(math.sqrt(height * width), 8):
        return 2
    return 3 if math.hypot(dy, dx) > stride else 0


def reason__wrong__true_or_false(dy, dx, side, height, width, stride):
    fits = abs(dy) + height / 2 <= side / 2 and abs(dx) + width / 2 <= side / 2
    large = side - stride <= 2 * max(height, width, 8)
    return int(fits and large and math.hypot(dy, dx) <= stride)


def reason__wrong__centre_first(dy, dx, side, height, width, stride):
    if math.hypot(dy, dx) > stride:
        return 3
    if abs(dy) + height / 2 > side / 2 or abs(dx) + width / 2 > side / 2:
        return 1
    return 2 if side - stride > 2 * max(height, width, 8) else 0


def reason__wrong__no_zero(dy, dx, side, height, width, stride):
    """says: It returns None"""
    if abs(dy) + height / 2 > side / 2 or abs(dx) + width / 2 > side / 2:
        return 1
    if side - stride > 2 * max(height, width, 8):
        return 2
    if math.hypot(dy, dx) > stride:
        return 3


# --- claimed ----------------------------------------------------------------------------------


def claimed__right__by_sums(apart, lam):
    near = apart * lam <= 1
    return np.where(near.sum(1) == 1, near.argmax(1), -1)


def claimed__wrong__nearest(apart, lam):
    """says: nearest of several"""
    return np.where(apart.min(1) * lam <= 1, apart.argmin(1), -1)


def claimed__wrong__first(apart, lam):
    """says: first of several"""
    near = apart <= 1 / lam
    return np.where(near.any(1), near.argmax(1), -1)


def claimed__wrong__last(apart, lam):
    near = (apart <= 1 / lam)[:, ::-1]
    return np.where(near.any(1), apart.shape[1] - 1 - near.argmax(1), -1)


def claimed__wrong__one_cell(apart, lam):
    """says: whole cell"""
    near = apart <= 1
    return np.where(near.sum(1) == 1, near.argmax(1), -1)


def claimed__wrong__lam_cells(apart, lam):
    """says: whole cell or more"""
    near = apart <= lam
    return np.where(near.sum(1) == 1, near.argmax(1), -1)


def claimed__wrong__zero_for_none(apart, lam):
    """says: Windows of nobody"""
    near = apart <= 1 / lam
    return np.where(near.sum(1) == 1, near.argmax(1), 0)


def claimed__wrong__strictly(apart, lam):
    """says: still a claim"""
    near = apart < 1 / lam
    return np.where(near.sum(1) == 1, near.argmax(1), -1)


def claimed__wrong__flags(apart, lam):
    return (apart <= 1 / lam).sum(1) == 1


def claimed__wrong__a_list(apart, lam):
    """says: Return an array"""
    near = apart <= 1 / lam
    return np.where(near.sum(1) == 1, near.argmax(1), -1).tolist()
