"""Cases that are written out or named by a grammar, and what is said of a wrong shape."""

from __future__ import annotations

import numpy as np
import pytest

from tensormask_edu import ops
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


def of_one_size(arrays):
    return np.stack(arrays)


def test_a_line_is_told_only_of_the_answers_own_function():
    def with_a_helper(whole):
        shapes = [shape[k:] for k, shape in enumerate(whole)]
        return of_one_size(shapes)

    verdict = EXERCISES["visible_masks"].verdict(with_a_helper)
    assert "Line 3 of your function. ValueError" in verdict.message


def test_where_nothing_lies_outside_nobody_is_told_to_ask():
    def divides_by_width(counts, height, width):
        mask = np.zeros((height, width), bool)
        for i in np.repeat(range(len(counts)), counts).nonzero()[0]:
            mask[i % height, i // width] = True
        return mask

    said = EXERCISES["mask_of_counts"].verdict(divides_by_width).message
    assert "the index itself is wrong" in said and "Ask whether" not in said

    def takes_the_first(apart, lam):
        return np.array([np.flatnonzero(row <= 1 / lam)[0] for row in apart])

    said = EXERCISES["claimed"].verdict(takes_the_first).message
    assert "An array is empty in this case" in said and "the index itself" not in said


def test_one_number_is_told_with_its_call():
    verdict = EXERCISES["average_precision"].verdict(lambda overlap, objects: 0.5)
    call = "average_precision([0.9, 0.3, 0.7, 0.6, 0], 4) gave 0.5, expected 0.628713."
    assert verdict.message == call and verdict.told == "reading"


def test_a_mistake_that_agrees_by_chance_is_not_named():
    exercise = EXERCISES["suppress"]

    def only_the_best(boxes, scores):
        """Boxes that the best one of all does not drop: others drop nobody."""
        among = (
            [[b, box] for box in boxes for b in boxes[[scores.argmax()]]] if len(boxes) else []
        )
        return np.array(
            [exercise.reference(np.array(two), np.array([1, 0.5])).all() for two in among], bool
        ) | (scores == max(scores, default=0))

    verdict = exercise.verdict(only_the_best)
    assert "not the other corner" not in verdict.message
    assert "A small call that fails too" in verdict.message
    boxes = verdict.message.split("suppress([[")[1].split("]]")[0]
    assert boxes.count("], [") == 2  # three: the best, one it spares, and one that this drops


def test_a_small_call_is_not_printed_by_the_answer(capsys):
    def prints(whole):
        print("here")
        return np.logical_xor.accumulate(whole[::-1])[::-1]

    cases_of_it = len(EXERCISES["visible_masks"].cases)
    assert EXERCISES["visible_masks"].verdict(prints).told == "reading"
    assert capsys.readouterr().out.count("here") <= cases_of_it + 2


class RefiledTheOtherWay(EXERCISES["AlignedHead"].reference):
    def forward(self, features):
        return ops.nat2align(self.predict(features).unflatten(1, self.bins))


def test_a_value_at_another_place_of_an_output_is_told():
    verdict = EXERCISES["AlignedHead"].verdict(RefiledTheOtherWay)
    assert verdict.told == "reading"
    # Bin -1 went one cell down, not up: two cells too far
    words = "At [0, 0, 0, 0, 0] of the output stands what belongs at [0, 0, 0, 2, 2]."
    assert words in verdict.message


LAUNCH = {"blocks": 6, "idle": 48, "i": 454, "v": 3, "u": 4, "y": 2, "x": 4}
TABLES = {
    "one mistake in four rows": (
        "launch_numbers",
        {"v": 4, "u": 3, "y": 0, "x": 3},
        "v = 4 is too large, u = 3 is too small, y = 0 is too small, x = 3 is too small.",
    ),
    "the thread counted from one, in two rows": (
        "launch_numbers",
        {"i": 453, "x": 3},
        "i = 453 is too small, x = 3 is too small. Blocks and threads count from 0",
    ),
    "two rows that changed places": (
        "launch_numbers",
        {"v": 4, "u": 3},
        "v = 4 is too large, u = 3 is too small. v and u have changed places.",
    ),
    "a factor": (
        "losses_by_hand",
        {"box": 0.7 / 4},
        "box = 0.175 is too small. It is off by a factor of 4.",
    ),
    "two signs": (
        "losses_by_hand",
        {"hit": -0.0341, "box": -0.7},
        "hit = -0.0341 is too small, box = -0.7 is too small. The sign is the other way round.",
    ),
}


@pytest.mark.parametrize("name, rows, words", TABLES.values(), ids=TABLES)
def test_what_is_told_of_a_table(name, rows, words):
    exercise = EXERCISES[name]
    assert exercise.verdict(exercise.reference() | rows).message.startswith(words)


def test_a_single_row_of_a_mistake_is_not_explained_by_chance():
    """x = 3 is also what another order of the axes gives, but then v, u and y differ too."""
    said = EXERCISES["launch_numbers"].verdict(LAUNCH | {"i": 213, "v": 1, "x": 3}).message
    assert said == "i = 213 is too small. v = 1 is too small. x = 3 is too small."
