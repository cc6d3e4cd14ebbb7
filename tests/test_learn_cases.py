"""Cases that are written out or named by a grammar, and what is said of a wrong shape."""

from __future__ import annotations

import numpy as np
import pytest

from tensormask_edu.learn.cases import cases, parse
from tensormask_edu.learn.kinds import EXERCISES


def test_where_an_argument_is_something_else_no_case_is_made():
    assert not list(cases(parse("*, h, w -> h w"), ("counts", "height", "width"), {}))


def test_a_case_is_not_named_after_what_the_grammar_has_not():
    names = {case.name for case in cases(parse("h w, pad -> h w"), ("mask", "pad_value"), {})}
    assert "H is not W" in names and "other sizes" in names
    assert not names & {"V is not U", "several images", "no image", "one bin"}


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        ("rle_counts", lambda mask: [1], "gave [1], expected [2, 3, 1]"),
        ("natural_tensor", lambda *args: np.zeros((3, 3, 4, 4)), "Return shape (3, 3, 2, 2)"),
    ],
)
def test_a_wrong_shape_is_told_with_the_result_where_that_is_short(name, wrong, words):
    assert words in EXERCISES[name].verdict(wrong).message


def test_a_mistake_of_shape_is_named():
    exercise = EXERCISES["visible_masks"]
    verdict = exercise.verdict(lambda whole: exercise.reference(whole).any(0))
    assert verdict.told == "mistake" and "the foreground" in verdict.message


def test_an_unknown_mistake_is_told_by_a_small_call():
    exercise = EXERCISES["visible_masks"]
    verdict = exercise.verdict(lambda whole: np.logical_xor.accumulate(whole[::-1])[::-1])
    assert verdict.told == "reading"
    assert "visible_masks([[[0]], [[1]]]) gave [[[1]], [[1]]], expected" in verdict.message


def test_a_result_in_reverse_order_is_named():
    exercise = EXERCISES["visible_masks"]
    verdict = exercise.verdict(lambda whole: exercise.reference(whole)[::-1])
    assert verdict.told == "mistake" and "the other way round" in verdict.message
