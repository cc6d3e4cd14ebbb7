"""Answers to the exercises of lesson 08, written from its text alone."""

from __future__ import annotations

import math

import numpy as np

# --- reason -----------------------------------------------------------------------------------


def reason__right__first_failing(dy, dx, side, height, width, stride):
    questions = (
        max(abs(dy) + height / 2, abs(dx) + width / 2) <= side / 2,
        side - stride <= 2 * max(height, width, 8),
        dy * dy + dx * dx <= stride * stride,
    )
    return next((k for k, passed in enumerate(questions, 1) if not passed), 0)


def reason__right__corners(dy, dx, side, height, width, stride):
    top, bottom, left, right = dy - height / 2, dy + height / 2, dx - width / 2, dx + width / 2
    if min(top, left) < -side / 2 or max(bottom, right) > side / 2:
        return 1
    if (side - stride) / 2 > max(height, width, 8):
        return 2
    return 3 if math.hypot(dy, dx) > stride else 0


def _reason(dy, dx, side, height, width, stride, **other):
    contained = abs(dy) + height / 2 <= side / 2 and abs(dx) + width / 2 <= side / 2
    large = side - stride <= 2 * max(height, width, 8)
    central = math.hypot(dy, dx) <= stride
    contained = other.get("contained", contained)
    large, central = other.get("large", large), other.get("central", central)
    return 1 if not contained else 2 if not large else 3 if not central else 0


def reason__wrong__side_for_half(dy, dx, side, height, width, stride):
    contained = abs(dy) + height <= side and abs(dx) + width <= side
    return _reason(dy, dx, side, height, width, stride, contained=contained)


def reason__wrong__no_absolute_value(dy, dx, side, height, width, stride):
    contained = dy + height / 2 <= side / 2 and dx + width / 2 <= side / 2
    return _reason(dy, dx, side, height, width, stride, contained=contained)


def reason__wrong__stride_not_taken_off(dy, dx, side, height, width, stride):
    large = side <= 2 * max(height, width, 8)
    return _reason(dy, dx, side, height, width, stride, large=large)


def reason__wrong__eight_is_a_stride(dy, dx, side, height, width, stride):
    large = side - stride <= 2 * max(height, width, 2 * stride)
    return _reason(dy, dx, side, height, width, stride, large=large)


def reason__wrong__shorter_side(dy, dx, side, height, width, stride):
    large = side - stride <= 2 * max(min(height, width), 8)
    return _reason(dy, dx, side, height, width, stride, large=large)


def reason__wrong__each_axis_central(dy, dx, side, height, width, stride):
    central = abs(dy) <= stride and abs(dx) <= stride
    return _reason(dy, dx, side, height, width, stride, central=central)


def reason__wrong__city_block(dy, dx, side, height, width, stride):
    central = abs(dy) + abs(dx) <= stride
    return _reason(dy, dx, side, height, width, stride, central=central)


def reason__wrong__squared_against_stride(dy, dx, side, height, width, stride):
    central = dy**2 + dx**2 <= stride
    return _reason(dy, dx, side, height, width, stride, central=central)


def reason__wrong__strict(dy, dx, side, height, width, stride):
    contained = abs(dy) + height / 2 < side / 2 and abs(dx) + width / 2 < side / 2
    large = side - stride < 2 * max(height, width, 8)
    central = math.hypot(dy, dx) < stride
    return _reason(
        dy, dx, side, height, width, stride, contained=contained, large=large, central=central
    )


def reason__wrong__last_failing(dy, dx, side, height, width, stride):
    if math.hypot(dy, dx) > stride:
        return 3
    if side - stride > 2 * max(height, width, 8):
        return 2
    return 1 if max(abs(dy) + height / 2, abs(dx) + width / 2) > side / 2 else 0


def reason__wrong__first_that_holds(dy, dx, side, height, width, stride):
    if abs(dy) + height / 2 <= side / 2 and abs(dx) + width / 2 <= side / 2:
        return 1
    if side - stride <= 2 * max(height, width, 8):
        return 2
    return 3 if math.hypot(dy, dx) <= stride else 0


def reason__wrong__true_or_false(dy, dx, side, height, width, stride):
    return reason__right__corners(dy, dx, side, height, width, stride) == 0


def reason__wrong__height_with_dx(dy, dx, side, height, width, stride):
    contained = abs(dx) + height / 2 <= side / 2 and abs(dy) + width / 2 <= side / 2
    return _reason(dy, dx, side, height, width, stride, contained=contained)


def reason__wrong__one_axis_is_enough(dy, dx, side, height, width, stride):
    contained = abs(dy) + height / 2 <= side / 2 or abs(dx) + width / 2 <= side / 2
    return _reason(dy, dx, side, height, width, stride, contained=contained)


# --- claimed ----------------------------------------------------------------------------------


def claimed__right__dot(apart, lam):
    near = (apart <= 1 / lam).astype(int)
    numbers = near @ np.arange(near.shape[1]) if near.shape[1] else np.zeros(len(near), int)
    return np.where(near.sum(1) == 1, numbers, -1)


def claimed__right__list(apart, lam):
    owners = []
    for row in apart:
        near = [g for g, d in enumerate(row) if d * lam <= 1]
        owners.append(near[0] if len(near) == 1 else -1)
    return np.array(owners, int)


def claimed__wrong__nearest_wins(apart, lam):
    return np.where(apart.min(1) <= 1 / lam, apart.argmin(1), -1)


def claimed__wrong__first_wins(apart, lam):
    near = apart <= 1 / lam
    return np.where(near.any(1), near.argmax(1), -1)


def claimed__wrong__lam_cells(apart, lam):
    near = apart <= lam
    return np.where(near.sum(1) == 1, near.argmax(1), -1)


def claimed__wrong__within_one_cell(apart, lam):
    near = apart <= 1
    return np.where(near.sum(1) == 1, near.argmax(1), -1)


def claimed__wrong__strictly(apart, lam):
    near = apart < 1 / lam
    return np.where(near.sum(1) == 1, near.argmax(1), -1)


def claimed__wrong__zero_for_nobody(apart, lam):
    near = apart <= 1 / lam
    return np.where(near.sum(1) == 1, near.argmax(1) + 1, 0)


def claimed__wrong__per_object(apart, lam):
    near = apart <= 1 / lam
    return np.where(near.sum(0) == 1, near.argmax(0), -1)


def claimed__wrong__whole_number_division(apart, lam):
    near = apart <= 1 // lam
    return np.where(near.sum(1) == 1, near.argmax(1), -1)


def claimed__wrong__several_get_last(apart, lam):
    owner = np.full(len(apart), -1)
    for m, g in zip(*np.nonzero(apart <= 1 / lam), strict=True):
        owner[m] = g
    return owner


def claimed__wrong__count(apart, lam):
    near = apart <= 1 / lam
    return np.where(near.sum(1) == 1, 1, -1)


def claimed__wrong__table_of_claims(apart, lam):
    near = apart <= 1 / lam
    return near & (near.sum(1, keepdims=True) == 1)


def claimed__wrong__taken_back_and_given_again(apart, lam):
    owner = np.full(len(apart), -1)
    for m, g in zip(*np.nonzero(apart <= 1 / lam), strict=True):
        owner[m] = g if owner[m] == -1 else -1
    return owner
