"""Answers to the exercises of lesson 10."""

from __future__ import annotations

import statistics

import numpy as np

# --- paired_difference ------------------------------------------------------------------------


def paired_difference__right__statistics(better, other):
    gaps = [100 * float(a - b) for a, b in zip(better, other, strict=True)]
    return statistics.mean(gaps), statistics.stdev(gaps) / len(gaps) ** 0.5


def paired_difference__right__array(better, other):
    d = (np.asarray(better) - np.asarray(other)) * 100
    return np.array([d.mean(), np.sqrt(((d - d.mean()) ** 2).sum() / (len(d) - 1) / len(d))])


def paired_difference__wrong__two_samples(better, other):
    """says: seeds of their own"""
    error = np.sqrt(np.var(better, ddof=1) / len(better) + np.var(other, ddof=1) / len(other))
    return 100 * (np.mean(better) - np.mean(other)), 100 * error


def paired_difference__wrong__fractions(better, other):
    """says: multiply by 100"""
    d = better - other
    return d.mean(), d.std(ddof=1) / np.sqrt(len(d))


def paired_difference__wrong__numpys_std(better, other):
    """says: Divide by S - 1"""
    d = 100 * (better - other)
    return d.mean(), d.std() / np.sqrt(len(d))


def paired_difference__wrong__deviation(better, other):
    """says: how far apart single seeds are"""
    d = 100 * (better - other)
    return d.mean(), d.std(ddof=1)


def paired_difference__wrong__over_s(better, other):
    """says: divided by the root of S"""
    d = 100 * (better - other)
    return d.mean(), d.std(ddof=1) / len(d)


def paired_difference__wrong__turned(better, other):
    """says: the sign is the other way round"""
    d = 100 * (other - better)
    return d.mean(), d.std(ddof=1) / np.sqrt(len(d))


def paired_difference__wrong__absolute(better, other):
    """says: signs of single seeds"""
    d = 100 * np.abs(better - other)
    return d.mean(), d.std(ddof=1) / np.sqrt(len(d))


def paired_difference__wrong__mean_alone(better, other):
    """says: Return shape"""
    return 100 * (better - other).mean()


def paired_difference__wrong__sorted(better, other):
    d = 100 * (np.sort(better) - np.sort(other))
    return d.mean(), d.std(ddof=1) / np.sqrt(len(d))


# --- count_windows ----------------------------------------------------------------------------


def count_windows__right__matrix(inside, length, side, stride, slack):
    claims = inside & ((side - slack * np.asarray(stride))[:, None] <= 2 * length[None])
    return claims[claims.sum(1) == 1].sum(0)


def count_windows__wrong__shared(inside, length, side, stride, slack):
    """says: They are nobody's"""
    return (inside & ((side - slack * stride)[:, None] <= 2 * length)).sum(0)


def count_windows__wrong__first(inside, length, side, stride, slack):
    """says: first of several"""
    out = np.zeros(len(length), int)
    for m in range(len(side)):
        for g in range(len(length)):
            if inside[m, g] and side[m] - slack * stride[m] <= 2 * length[g]:
                out[g] += 1
                break
    return out


def count_windows__wrong__no_size(inside, length, side, stride, slack):
    """says: You forgot the size"""
    return inside[inside.sum(1) == 1].sum(0)


def count_windows__wrong__alone_first(inside, length, side, stride, slack):
    """says: ask for size first"""
    alone = inside.sum(1) == 1
    return (inside & alone[:, None] & ((side - slack * stride)[:, None] <= 2 * length)).sum(0)


def count_windows__wrong__once(inside, length, side, stride, slack):
    """says: *twice*"""
    claims = inside & ((side - slack * stride)[:, None] <= length)
    return claims[claims.sum(1) == 1].sum(0)


def count_windows__wrong__text_only(inside, length, side, stride, slack):
    """says: slack"""
    return count_windows__right__matrix(inside, length, side, stride, 0)


def count_windows__wrong__pixels(inside, length, side, stride, slack):
    """says: They are strides"""
    return count_windows__right__matrix(inside, length, side, np.ones_like(side), slack)


def count_windows__wrong__strict(inside, length, side, stride, slack):
    """says: It still fits"""
    claims = inside & ((side - slack * stride)[:, None] < 2 * length)
    return claims[claims.sum(1) == 1].sum(0)


def count_windows__wrong__by_window(inside, length, side, stride, slack):
    """says: Return shape"""
    claims = inside & ((side - slack * stride)[:, None] <= 2 * length)
    return claims.sum(1)


def count_windows__wrong__whether(inside, length, side, stride, slack):
    return count_windows__right__matrix(inside, length, side, stride, slack) > 0


def count_windows__wrong__without(inside, length, side, stride, slack):
    return count_windows__right__matrix(inside, length, side, stride, slack) == 0
