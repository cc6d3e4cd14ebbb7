"""Answers written apart from the list of known mistakes: caught, not refused, named.

The answers lie in `answers/`, a file per lesson; what they may look like stands in
`answers.py`.
"""

from __future__ import annotations

import functools

import answers
import pytest

from tensormask_edu.learn.kinds import EXERCISES

CAUGHT = 0.98  # of the wrong answers, at least
UNNAMED = 0.10  # of the wrong answers, at most: "none of the mistakes known here"
FEWEST = 4  # wrong answers per exercise
FILES = answers.files()
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@functools.cache
def found_in(path):
    return list(answers.answers_of(path))


def test_every_exercise_has_answers():
    names = [name.split("__")[:2] for path in FILES for name, _ in answers.functions_of(path)]
    graded = {name for name, each in EXERCISES.items() if hasattr(each, "verdict")}
    for name in graded:
        assert names.count([name, "wrong"]) >= FEWEST, name
        assert names.count([name, "right"]) >= 1, name


@each_file
def test_wrong_answers_are_caught(path):
    wrong = [each for each in found_in(path) if not each.is_right]
    missed = [f"{each.exercise} {each.idea}" for each in wrong if each.verdict.passed]
    assert len(missed) <= (1 - CAUGHT) * len(wrong), missed


@each_file
def test_no_right_answer_is_refused(path):
    refused = {
        f"{each.exercise} {each.idea}": each.verdict.message
        for each in found_in(path)
        if each.is_right and not each.verdict.passed
    }
    assert not refused


@each_file
def test_few_wrong_answers_are_left_without_a_word(path):
    wrong = [each for each in found_in(path) if not each.is_right]
    unnamed = [f"{each.exercise} {each.idea}" for each in wrong if each.is_unnamed]
    assert len(unnamed) <= UNNAMED * len(wrong), unnamed


@each_file
def test_a_message_holds_the_words_that_its_answer_asks_for(path):
    without = {
        f"{each.exercise} {each.idea}": each.verdict.message
        for each in found_in(path)
        if each.wanted not in each.verdict.message
    }
    assert not without


SAMPLE = '''
def swap_elements__right__one(v, u, h, w, lam):
    bins = lam * lam * v * u
    return bins * h * w, bins * -(-h // lam) * -(-w // lam)
def swap_elements__wrong__passes(v, u, h, w, lam):
    return swap_elements__right__one(v, u, h, w, lam)
def swap_elements__right__refused(v, u, h, w, lam):
    """says: gave (1, 2)"""
    return 1, 2
'''


def test_the_bars_can_fail(tmp_path):
    path = tmp_path / "lesson.py"
    path.write_text(SAMPLE)
    right, missed, refused = answers.answers_of(path)
    assert right.is_as_it_should_be
    assert not missed.is_as_it_should_be
    assert not refused.is_as_it_should_be and refused.wanted in refused.verdict.message
    with pytest.raises(AssertionError):
        test_wrong_answers_are_caught(path)
    with pytest.raises(AssertionError):
        test_no_right_answer_is_refused(path)
    path.write_text("def nothing__wrong__at_all(): ...")
    with pytest.raises(ValueError, match="is no answer to an exercise"):
        list(answers.answers_of(path))
