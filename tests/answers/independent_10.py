"""Answers to the exercises of lesson 10, written from its text alone."""

from __future__ import annotations

import math
import statistics

import numpy as np
import torch

# --- paired_difference ------------------------------------------------------------------------


def paired_difference__right__numpy(better, other):
    points = 100 * (np.asarray(better) - np.asarray(other))
    return points.mean(), points.std(ddof=1) / np.sqrt(len(points))


def paired_difference__right__statistics(better, other):
    points = [100 * (float(a) - float(b)) for a, b in zip(better, other, strict=True)]
    return statistics.mean(points), statistics.stdev(points) / math.sqrt(len(points))


def paired_difference__right__torch(better, other):
    points = 100 * (torch.as_tensor(better) - torch.as_tensor(other)).double()
    return points.mean().item(), (points.var() / len(points)).sqrt().item()


def paired_difference__wrong__divided_by_n(better, other):
    points = 100 * (better - other)
    return points.mean(), points.std() / np.sqrt(len(points))


def paired_difference__wrong__standard_deviation(better, other):
    points = 100 * (better - other)
    return points.mean(), points.std(ddof=1)


def paired_difference__wrong__fractions(better, other):
    gaps = better - other
    return gaps.mean(), gaps.std(ddof=1) / np.sqrt(len(gaps))


def paired_difference__wrong__error_in_fractions(better, other):
    gaps = better - other
    return 100 * gaps.mean(), gaps.std(ddof=1) / np.sqrt(len(gaps))


def paired_difference__wrong__other_way_round(better, other):
    points = 100 * (other - better)
    return points.mean(), points.std(ddof=1) / np.sqrt(len(points))


def paired_difference__wrong__without_pairs(better, other):
    error = 100 * np.sqrt((better.var(ddof=1) + other.var(ddof=1)) / len(better))
    return 100 * (better.mean() - other.mean()), error


def paired_difference__wrong__variance(better, other):
    points = 100 * (better - other)
    return points.mean(), points.var(ddof=1) / len(points)


def paired_difference__wrong__over_s(better, other):
    points = 100 * (better - other)
    return points.mean(), points.std(ddof=1) / len(points)


def paired_difference__wrong__sizes(better, other):
    points = 100 * abs(better - other)
    return points.mean(), points.std(ddof=1) / np.sqrt(len(points))


def paired_difference__wrong__sorted_first(better, other):
    points = 100 * (np.sort(better) - np.sort(other))
    return points.mean(), points.std(ddof=1) / np.sqrt(len(points))


def paired_difference__wrong__mean_alone(better, other):
    return 100 * (better - other).mean()


def paired_difference__wrong__per_seed(better, other):
    points = 100 * (better - other)
    return points, points.std(ddof=1) / np.sqrt(len(points))


def paired_difference__wrong__error_first(better, other):
    points = 100 * (better - other)
    return points.std(ddof=1) / np.sqrt(len(points)), points.mean()


def paired_difference__wrong__not_about_the_mean(better, other):
    points = 100 * (better - other)
    return points.mean(), np.sqrt((points**2).sum() / (len(points) - 1) / len(points))


def paired_difference__wrong__three_seeds(better, other):
    points = 100 * (better - other)
    return points.mean(), points.std(ddof=1) / np.sqrt(3)


def paired_difference__wrong__root_of_s_minus_one(better, other):
    points = 100 * (better - other)
    return points.mean(), points.std(ddof=1) / np.sqrt(len(points) - 1)


def paired_difference__wrong__percent_of_other(better, other):
    points = 100 * (better - other) / other
    return points.mean(), points.std(ddof=1) / np.sqrt(len(points))


def paired_difference__wrong__error_of_the_better(better, other):
    return 100 * (better - other).mean(), 100 * better.std(ddof=1) / np.sqrt(len(better))


def paired_difference__wrong__median(better, other):
    points = 100 * (better - other)
    return np.median(points), points.std(ddof=1) / np.sqrt(len(points))


def paired_difference__wrong__rounded(better, other):
    points = 100 * (better - other)
    return round(points.mean(), 1), round(points.std(ddof=1) / np.sqrt(len(points)), 1)


def paired_difference__wrong__best_of_each(better, other):
    points = 100 * (better - other)
    return 100 * (better.max() - other.max()), points.std(ddof=1) / np.sqrt(len(points))


# --- count_windows ----------------------------------------------------------------------------


def count_windows__right__broadcast(inside, length, side, stride, slack):
    claims = inside & ((side - slack * stride)[:, None] <= 2 * length)
    return (claims & (claims.sum(1) == 1)[:, None]).sum(0)


def count_windows__right__loops(inside, length, side, stride, slack):
    counts = [0] * len(length)
    for m in range(len(side)):
        claimed = [
            g
            for g in range(len(length))
            if inside[m, g] and side[m] - slack * stride[m] <= 2 * length[g]
        ]
        if len(claimed) == 1:
            counts[claimed[0]] += 1
    return np.array(counts, int)


def count_windows__right__bincount(inside, length, side, stride, slack):
    enough = 2 * length[None, :] + slack * stride[:, None] >= side[:, None]
    claims = inside * enough
    alone = claims[claims.sum(axis=1) == 1]
    return np.bincount(np.nonzero(alone)[1], minlength=len(length))


def _alone(claims):
    return claims[claims.sum(1) == 1].sum(0)


def count_windows__wrong__shared_count_too(inside, length, side, stride, slack):
    return (inside & ((side - slack * stride)[:, None] <= 2 * length)).sum(0)


def count_windows__wrong__shared_go_to_the_first(inside, length, side, stride, slack):
    claims = inside & ((side - slack * stride)[:, None] <= 2 * length)
    first = claims.argmax(1)[claims.any(1)]
    return np.bincount(first, minlength=len(length))


def count_windows__wrong__no_slack(inside, length, side, stride, slack):
    return _alone(inside & (side[:, None] <= 2 * length))


def count_windows__wrong__always_slack(inside, length, side, stride, slack):
    return _alone(inside & ((side - stride)[:, None] <= 2 * length))


def count_windows__wrong__slack_in_pixels(inside, length, side, stride, slack):
    return _alone(inside & ((side - slack)[:, None] <= 2 * length))


def count_windows__wrong__length_not_doubled(inside, length, side, stride, slack):
    return _alone(inside & ((side - slack * stride)[:, None] <= length))


def count_windows__wrong__half_the_length(inside, length, side, stride, slack):
    return _alone(inside & ((side - slack * stride)[:, None] <= length / 2))


def count_windows__wrong__strictly(inside, length, side, stride, slack):
    return _alone(inside & ((side - slack * stride)[:, None] < 2 * length))


def count_windows__wrong__other_direction(inside, length, side, stride, slack):
    return _alone(inside & ((side - slack * stride)[:, None] >= 2 * length))


def count_windows__wrong__slack_added(inside, length, side, stride, slack):
    return _alone(inside & ((side + slack * stride)[:, None] <= 2 * length))


def count_windows__wrong__not_inside(inside, length, side, stride, slack):
    return _alone((side - slack * stride)[:, None] <= 2 * length)


def count_windows__wrong__only_inside(inside, length, side, stride, slack):
    return _alone(inside)


def count_windows__wrong__alone_before_the_length(inside, length, side, stride, slack):
    alone = inside & (inside.sum(1) == 1)[:, None]
    return (alone & ((side - slack * stride)[:, None] <= 2 * length)).sum(0)


def count_windows__wrong__per_window(inside, length, side, stride, slack):
    claims = inside & ((side - slack * stride)[:, None] <= 2 * length)
    return (claims.sum(1) == 1).astype(int)


def count_windows__wrong__objects_with_one_window(inside, length, side, stride, slack):
    claims = inside & ((side - slack * stride)[:, None] <= 2 * length)
    return (claims & (claims.sum(0) == 1)).sum(0)


def count_windows__wrong__whether_any(inside, length, side, stride, slack):
    return _alone(inside & ((side - slack * stride)[:, None] <= 2 * length)) > 0


def count_windows__wrong__total(inside, length, side, stride, slack):
    return _alone(inside & ((side - slack * stride)[:, None] <= 2 * length)).sum()


def count_windows__wrong__share(inside, length, side, stride, slack):
    return _alone(inside & ((side - slack * stride)[:, None] <= 2 * length)) / len(side)


def count_windows__wrong__first_stride(inside, length, side, stride, slack):
    return _alone(inside & ((side - slack * stride[0])[:, None] <= 2 * length))


def count_windows__wrong__shared_by_two_kept(inside, length, side, stride, slack):
    claims = inside & ((side - slack * stride)[:, None] <= 2 * length)
    return claims[claims.sum(1) <= 2].sum(0)


def count_windows__wrong__two_strides(inside, length, side, stride, slack):
    return _alone(inside & ((side - 2 * slack * stride)[:, None] <= 2 * length))


def count_windows__wrong__shortest_wins(inside, length, side, stride, slack):
    claims = inside & ((side - slack * stride)[:, None] <= 2 * length)
    owner = np.where(claims, length, np.inf).argmin(1)
    return np.bincount(owner[claims.any(1)], minlength=len(length))
