"""Exercises: what is right passes, each mistake gets its sentence, nothing untested is said."""

from __future__ import annotations

import inspect
import math
import re

import numpy as np
import pytest
import torch
from conftest import ROOT

from tensormask_edu import learn, reference
from tensormask_edu.base.errors import InputError
from tensormask_edu.learn import (
    compare,
    exercise,
    full_or_smoke,
    mask_iou,
    peek,
    picture_with_truth,
    stored_sample,
)
from tensormask_edu.learn import exercise as exercise_decorator
from tensormask_edu.learn.cases import parse, size_of
from tensormask_edu.learn.checks import run
from tensormask_edu.learn.exercise import SOLUTIONS, is_untouched
from tensormask_edu.learn.kinds import EXERCISES, Loops
from tensormask_edu.learn.lessons.lesson_04 import aligned_names, natural_names
from tensormask_edu.learn.mutants import (
    COMMON,
    MISTAKE,
    OF_RESULTS,
    compiled,
    edited,
    source_of,
)
from tensormask_edu.learn.texts import SHARED, Paragraph, read_texts
from tensormask_edu.learn.told import known_mistakes
from tensormask_edu.learn.trials import EVERY_EXERCISE, attempt, right_trial
from tensormask_edu.viz.lessons import expected_and_yours

PAD = -6.0
LOOPS = {name: each for name, each in EXERCISES.items() if isinstance(each, Loops)}
each_function = pytest.mark.parametrize("name", LOOPS)
TEXT_FILES = sorted((ROOT / "tensormask_edu" / "learn").rglob("*.md"))


def own_mistakes():
    """(exercise, heading) of every mistake that a lesson's text file makes by edits."""
    return [
        (name, heading)
        for name, found in LOOPS.items()
        for heading in found.texts
        if heading.startswith(MISTAKE) and found.texts[heading].edits
    ]


# --- every exercise ---------------------------------------------------------------------------


@each_function
def test_the_reference_passes(name):
    verdict = LOOPS[name].verdict(LOOPS[name].reference)
    assert verdict.passed, verdict.message
    assert not verdict.remarks


@each_function
def test_the_loops_are_the_packages_own_function(name):
    found = LOOPS[name]
    if found.same_as is None:
        return
    for case in found.cases:
        theirs = attempt(found, found.same_as, case)
        np.testing.assert_allclose(
            theirs.numbers, right_trial(found, case).numbers, rtol=0, atol=1e-6
        )


@each_function
def test_the_solution_that_is_shown_is_an_answer_on_its_own(name, capsys):
    """With NumPy, PyTorch and the earlier exercises at hand, nothing else of the package."""
    names = {"np": np, "math": math, "itertools": __import__("itertools"), "PAD": PAD}
    names |= {"torch": torch, "Array": object, "Tensor": object, "Taps": object}
    for other in LOOPS:
        learn.solution(other)
        exec(capsys.readouterr().out, names)
        if other == name:
            break
    verdict = LOOPS[name].verdict(names[name])
    assert verdict.passed, verdict.message


@each_function
def test_an_exercise_has_three_hints_and_tries_what_is_strange(name):
    found = LOOPS[name]
    assert len(set(found.hints)) == 3
    assert len(found.cases) >= 4
    assert all(found.words(case) for case in found.cases)  # every word in braces is filled
    tried = {case.name for case in found.cases}
    if found.grammar.parts[-1].kind == "pad":
        assert {case.make()[-1] for case in found.cases} >= {-6.0, -1.0}
    if "n" in found.grammar.letters:
        assert {"several images", "order in memory", "a slice", "float32", "no image"} <= tried


@pytest.mark.parametrize(("name", "heading"), own_mistakes())
def test_a_lessons_mistake_is_wrong_and_told_in_its_own_words(name, heading):
    found = LOOPS[name]
    paragraph = found.texts[heading]
    wrong = compiled(edited(source_of(found.reference), paragraph.edits), found.reference)
    verdict = found.verdict(wrong)
    assert not verdict.passed
    assert paragraph.words in verdict.message, verdict.message


HAND = {
    "window_mask": [[12, 13, 14], [22, 23, 24], [32, 33, 34]],
    "swap_elements": [720, 216],
}


@pytest.mark.parametrize("name", HAND)
def test_the_case_by_hand_is_right(name):
    np.testing.assert_array_equal(
        right_trial(LOOPS[name], LOOPS[name].cases[0]).numbers, HAND[name]
    )


def test_the_cases_by_hand_with_names_are_right_inside():
    aligned = right_trial(LOOPS["nat2align"], LOOPS["nat2align"].cases[0]).numbers
    inside = np.s_[..., 1:-1, 1:-1]
    np.testing.assert_array_equal(aligned[inside], aligned_names(3, 5)[inside])
    view = right_trial(LOOPS["align2nat_view"], LOOPS["align2nat_view"].cases[0]).numbers
    np.testing.assert_array_equal(view, natural_names(3, 5)[inside])
    taps = right_trial(LOOPS["taps"], LOOPS["taps"].cases[0]).calls
    assert taps[0] == ((0, 2), [(-1, 0.25), (0, 0.75)])
    assert taps[5] == ((5, 2), [(2, 0.75), (3, 0.25)])
    cells = right_trial(LOOPS["shifted_taps"], LOOPS["shifted_taps"].cases[0]).calls
    assert cells[0] == ((0, 2, 2, 3), [(1, 0.5), (2, 0.5)])


# --- the defects that readers found -----------------------------------------------------------


def message_of(name, answer):
    verdict = EXERCISES[name].verdict(answer)
    assert not verdict.passed
    return verdict.message


def nat2align_only_first_image(natural, pad_value=PAD):
    right = reference.nat2align(natural, pad_value=pad_value)
    right[1:] = right[:1]
    return right


def nat2align_backwards(natural, pad_value=PAD):
    return reference.align2nat(natural, pad_value=pad_value)


def test_the_border_is_blamed_only_where_the_inside_is_right():
    wrong_inside = message_of("nat2align", nat2align_backwards)
    assert "the others are right" not in wrong_inside

    def zero_outside(natural, pad_value=PAD):
        return reference.nat2align(natural, pad_value=0.0)

    assert "where pad_value counts; the others are right" in message_of(
        "nat2align", zero_outside
    )


@pytest.mark.parametrize("wrong", [nat2align_only_first_image, nat2align_backwards])
def test_picture_and_words_count_the_same_and_mark_the_same_entry(wrong):
    """Also where the first image is right and a later one wrong."""
    verdict = EXERCISES["nat2align"].verdict(wrong)
    picture = expected_and_yours(verdict.expected, verdict.yours, verdict.place)
    title = picture.get_suptitle()
    counted = int((~np.isclose(verdict.yours, verdict.expected)).sum())
    assert title.startswith(f"{counted} of {verdict.expected.size} values are wrong")
    assert f"{counted} of {verdict.expected.size} values are wrong" in verdict.message
    marked = f"out[{', '.join(map(str, verdict.place))}]"
    assert marked in title and marked in verdict.message
    assert verdict.yours[verdict.place] != verdict.expected[verdict.place]
    crosses = [line for ax in picture.axes for line in ax.lines]
    assert crosses, "no wrong entry is in the part that is drawn"


@pytest.mark.parametrize(
    "shape", [(4,), (2, 3), (3, 2, 3), (3, 3, 4, 4), (2, 3, 3, 4, 4), (2, 2, 3, 3, 4, 4)]
)
def test_a_result_of_any_number_of_axes_has_a_picture(shape):
    expected, place = np.zeros(shape), tuple(extent - 1 for extent in shape)
    yours = expected.copy()
    yours[place] = 1
    picture = expected_and_yours(expected, yours, place)
    assert f"out[{', '.join(map(str, place))}]" in picture.get_suptitle()
    assert sum(len(ax.lines) for ax in picture.axes) == 1  # the cross


def test_a_wrong_mask_of_several_shapes_is_told_and_drawn(capsys):
    def visible_masks(whole):
        return whole & (whole.sum(0) == 1)

    picture = learn.check(visible_masks)
    assert "You take the overlap from both shapes." in capsys.readouterr().out
    assert [ax.get_title() for ax in picture.axes] == ["expected", "yours"]


@pytest.mark.long
@each_function
def test_every_known_mistake_has_its_picture(name):
    """In the first case in which it gives another result, if that has two axes or more."""
    found = LOOPS[name]
    for mistake in known_mistakes(found):
        for case in found.cases:
            right = right_trial(found, case).numbers
            wrong = attempt(found, mistake.run, case).numbers
            if right.ndim < 2 or wrong is None or wrong.shape != right.shape:
                continue
            places = np.argwhere(~np.isclose(wrong, right, rtol=0, atol=1e-5))
            if len(places):
                place = tuple(map(int, places[0]))
                picture = expected_and_yours(right, wrong, place, found.axes_of_result)
                assert len(picture.axes) == 2
                break


@pytest.mark.parametrize("garbage", [1e308, -1e308, np.inf, np.nan])
def test_memory_that_was_never_written_has_a_picture(garbage):
    expected = np.random.default_rng(0).random((1, 3, 3, 4, 4))
    yours = expected.copy()
    yours[0, 1, 1, 2, 2] = garbage
    picture = expected_and_yours(expected, yours, (0, 1, 1, 2, 2))
    assert max(len(text.get_text()) for ax in picture.axes for text in ax.texts) <= 7


def test_a_picture_that_cannot_be_drawn_ends_no_check(monkeypatch, capsys):
    monkeypatch.setattr("tensormask_edu.viz.lessons._walls", lambda *_: 1 / 0)
    assert learn.check(renamed(nat2align_backwards, "nat2align")) is None
    assert "There is no picture of this: division by zero" in capsys.readouterr().out


def renamed(function, name):
    function.__name__ = name
    return function


def interpolated(coarse, lam, pad_value=PAD):
    """As PyTorch does it: beyond the window's edge its outermost bin is repeated."""
    bins = torch.from_numpy(np.ascontiguousarray(np.moveaxis(coarse, (1, 2), (3, 4))))
    fine = torch.nn.functional.interpolate(
        bins.flatten(0, 2)[:, None], scale_factor=lam, mode="bilinear", align_corners=False
    )
    fine = fine[:, 0].unflatten(0, bins.shape[:3])  # (N, H, W, lam * V, lam * U)
    return np.moveaxis(fine.numpy(), (3, 4), (1, 2))


def test_a_clamped_edge_is_named_where_weights_are_made_of_the_place():
    assert "as F.interpolate does" in message_of("up_bilinear", interpolated)


def test_an_error_about_shapes_is_that_of_a_mistake_whatever_its_words():
    def pads_swapped(aligned, pad_value=PAD):
        num_v, num_u, height, width = aligned.shape[1:]
        around = [half for half in (num_v // 2, num_u // 2) for _ in "ab"]
        padded = torch.nn.functional.pad(aligned, around, value=pad_value)
        maps = [
            padded[:, i, j, i : i + height, j : j + width]
            for i in range(num_v)
            for j in range(num_u)
        ]
        return torch.stack(maps, 1).unflatten(1, (num_v, num_u))

    assert "F.pad begins with the *last* axis" in message_of("align2nat_fast", pads_swapped)


def test_a_float_index_is_told_where_it_is_made():
    def with_floats(v, lam):
        lower = np.floor((v + 0.5) / lam - 0.5)
        fraction = (v + 0.5) / lam - 0.5 - lower
        return [(lower, 1 - fraction), (lower + 1, fraction)]

    said = message_of("taps", with_floats)
    assert "whole number of type int" in said and "outside" not in said

    def swap(aligned, lam, pad_value=PAD):
        return aligned[:, 0.0]

    assert "whole number of type int" in message_of("swap_align2nat", swap)


def test_padding_the_input_is_no_tensor_between():
    def by_padding(aligned, lam, pad_value=PAD):
        num, num_v, num_u, height, width = aligned.shape
        reach = lam * max(num_v, num_u)
        around = ((0, 0), (1, 1), (1, 1), (reach, reach), (reach, reach))
        padded = np.pad(aligned, around, constant_values=pad_value)
        taps, cells = EXERCISES["taps"].reference, EXERCISES["shifted_taps"].reference
        out = np.zeros((num, lam * num_v, lam * num_u, -(-height // lam), -(-width // lam)))
        for v, u, y, x in np.ndindex(*out.shape[1:]):
            for k, wk in taps(v, lam):
                for j, wj in taps(u, lam):
                    for row, wr in cells(v, y, lam, num_v):
                        for column, wc in cells(u, x, lam, num_u):
                            read = padded[:, k + 1, j + 1, row + reach, column + reach]
                            out[:, v, u, y, x] += wk * wj * wr * wc * read
        return out

    verdict = EXERCISES["swap_align2nat"].verdict(by_padding)
    assert verdict.passed, verdict.message


def test_lower_and_upper_cells_in_turn_are_not_taken_for_the_lower_ones():
    def in_turn(v, y, lam, num_v):
        place = lam * y + v - (lam * num_v - 1) / 2
        return [(math.floor(place) if v % 2 else math.ceil(place), 1.0)]

    said = message_of("shifted_taps", in_turn)
    assert "you took the" not in said
    assert "gave [(2, 1)], expected [(1, 0.5), (2, 0.5)]" in said


def window_mask_always_six(aligned, y, x, pad_value=PAD):
    return EXERCISES["window_mask"].reference(aligned, y, x, -6.0)


def view_made_contiguous(padded, height, width):
    return EXERCISES["align2nat_view"].reference(padded.contiguous(), height, width)


def test_what_used_to_pass_is_caught():
    assert "always give -6" in message_of("window_mask", window_mask_always_six)
    assert "but copied" in message_of("align2nat_view", view_made_contiguous)


def test_an_argument_lost_to_a_loop_is_named():
    def nat2align(x, pad_value=-6.0):
        out = np.full(x.shape, pad_value)
        for y in range(x.shape[3]):
            for x in range(x.shape[4]):  # noqa: B020, the mistake
                out[..., y, x] = x[..., y, x]
        return out

    said = message_of("nat2align", nat2align)
    assert "In line 4 a loop gives the name x to its own numbers" in said


def test_no_exercise_has_an_argument_that_its_loops_want():
    """`x` is the tensor in one place and the column in the next: the trap of an older text."""
    for name, found in LOOPS.items():
        arrays = {
            parameter
            for parameter, part in zip(found.parameters, found.grammar.parts, strict=True)
            if part.kind == "array"
        }
        assert not arrays & {"v", "u", "y", "x"}, name


def test_check_and_hint_and_solution_take_a_function_or_a_name(capsys):
    @exercise
    def nat2align(natural, pad_value=PAD):
        return reference.nat2align(natural, pad_value=pad_value)

    learn.check(nat2align)
    learn.check("nat2align")
    assert capsys.readouterr().out.count("nat2align: correct.") == 2
    learn.hint(nat2align)
    learn.hint("nat2align", 1)
    one, other = capsys.readouterr().out.strip().split("nat2align, hint 1 of 3: ")[1:]
    assert one.strip() == other.strip()
    learn.solution(nat2align)
    assert "def nat2align(natural" in capsys.readouterr().out


def test_a_bad_name_is_answered_by_near_ones_alone():
    with pytest.raises(InputError, match="a name such as nat2align") as error:
        learn.hint("natalign")
    assert "swap_elements" not in str(error.value)


def test_a_name_that_was_never_answered_says_what_to_run():
    exercise_module = inspect.getmodule(exercise_decorator)
    exercise_module._answers.pop("swap_elements", None)
    with pytest.raises(InputError, match="run the cell with its stub first"):
        learn.check("swap_elements")


def test_pictures_by_hand_write_their_numbers():
    verdict = EXERCISES["window_mask"].verdict(lambda aligned, y, x, pad: aligned[:, :, y, x])
    labels = EXERCISES["window_mask"].axes_of_result
    picture = expected_and_yours(verdict.expected, verdict.yours, verdict.place, labels)
    written = {text.get_text() for ax in picture.axes for text in ax.texts}
    assert {"12", "34", "23"} <= written
    assert [(ax.get_ylabel(), ax.get_xlabel()) for ax in picture.axes] == [("v", "u")] * 2


# --- what is said -----------------------------------------------------------------------------


def test_where_it_read_is_an_entry_of_the_input():
    said = message_of("window_mask", lambda aligned, y, x, pad: aligned[:, :, y, x])
    assert "out[0, 0] should be aligned[0, 0, 1, 2]; yours is aligned[0, 0, 2, 3]." in said


def test_whole_numbers_are_noticed():
    def as_ints(natural, pad_value=PAD):
        return reference.nat2align(natural, pad_value=pad_value).astype(int)

    assert "array of whole numbers" in message_of("nat2align", as_ints)


def test_pairs_may_come_in_any_shape_but_must_be_pairs():
    right = EXERCISES["taps"].reference

    def one_by_one(v, lam):
        yield from reversed(right(v, lam))

    assert EXERCISES["taps"].verdict(one_by_one).passed
    assert EXERCISES["taps"].verdict(lambda v, lam: np.array(right(v, lam), object)).passed
    said = message_of("taps", lambda v, lam: right(v, lam)[0])
    assert said == "Return a list of pairs (index, weight); yours is (-1, 0.25)."


def test_a_mistake_that_explains_most_cases_is_told_with_their_number():
    def wrong_way_but_for_large_windows(natural, pad_value=PAD):
        is_large = natural.shape[1] > natural.shape[3]
        transform = reference.nat2align if is_large else reference.align2nat
        return transform(natural, pad_value=pad_value)

    said = message_of("nat2align", wrong_way_but_for_large_windows)
    assert re.search(r"in (\d+) of the \1 cases that fail: .* wrong way", said), said


def test_weights_of_a_mixture_are_told():
    def half(aligned, lam, pad_value=PAD):
        right = reference.swap_align2nat(aligned, lam, pad_value)
        return pad_value + 0.5 * (right - pad_value)

    said = message_of("swap_align2nat", half)
    assert "pad_value weighs" in said and "and should" in said


def test_weights_that_do_not_give_the_value_back_are_not_told():
    def squared(aligned, lam, pad_value=PAD):
        return reference.swap_align2nat(aligned, lam, pad_value) ** 2

    assert "weighs" not in message_of("swap_align2nat", squared)


def test_a_change_of_the_input_comes_before_any_guess():
    def in_place(natural, pad_value=PAD):
        natural[:] = 0
        return natural

    assert message_of("nat2align", in_place).startswith(
        "Your function writes into its argument"
    )


def test_two_mistakes_at_once_are_told_apart():
    def backwards_and_zero(natural, pad_value=PAD):
        return reference.align2nat(natural, pad_value=0.0)

    said = message_of("nat2align", backwards_and_zero)
    assert "Two things at once." in said
    assert "wrong way" in said and "you give 0" in said


def test_one_direction_alone_is_told_as_one():
    def only_rows(natural, pad_value=PAD):
        source = source_of(LOOPS["nat2align"].reference)
        wrong = edited(source, [("row = y - v", "row = y + v")])
        return compiled(wrong, LOOPS["nat2align"].reference)(natural, pad_value)

    assert "in one of two places" in message_of("nat2align", only_rows)


def test_an_unknown_mistake_is_not_explained_away():
    verdict = run(
        EXERCISES["swap_align2nat"],
        lambda aligned, lam, pad: np.sin(reference.swap_align2nat(aligned, lam, pad)),
    )
    assert verdict.told == "unknown"
    assert "none of the mistakes known here" in verdict.message


def test_an_exception_is_told_with_its_line():
    def answer(v, lam):
        place = (v + 0.5) / lam
        return place.nothing

    assert "Line 3 of your function. AttributeError" in message_of("taps", answer)


def test_a_missing_return_is_told():
    def answer(v, u, h, w, lam):
        v * u

    assert "return" in message_of("swap_elements", answer)


def test_no_image_is_a_remark_and_no_failure():
    def stacked(natural, pad_value=PAD):
        images = [reference.nat2align(image[None], pad_value=pad_value) for image in natural]
        return np.concatenate(images)

    verdict = EXERCISES["nat2align"].verdict(stacked)
    assert verdict.passed
    assert "no image at all" in verdict.remarks[0]


# --- grammar, edits, texts --------------------------------------------------------------------


def test_sizes_are_computed_and_rounded_up():
    sizes = {"h": 7, "v": 3, "lam": 2}
    assert [size_of(words, sizes) for words in ("h/lam", "lam*v", "h+v-1", "4")] == [4, 6, 9, 4]


def test_a_grammar_names_its_parts():
    grammar = parse("n v u h+v-1 w, <h, lam, [k], pad -> pairs")
    assert [part.kind for part in grammar.parts] == ["array", "index", "size", "array", "pad"]
    assert grammar.letters == {"n", "v", "u", "h", "w", "lam", "k"}
    assert grammar.swept == 1
    with pytest.raises(ValueError, match="->"):
        parse("v u")


def test_values_are_unique_and_no_value_is_whole():
    for case in LOOPS["align2nat"].cases[1:]:
        values = np.asarray(case.make()[0])
        assert len(np.unique(values)) == values.size
        assert not np.any(values % 1 == 0)


def test_memory_is_laid_out_in_unusual_ways():
    by_name = {case.name: case.make()[0] for case in LOOPS["align2nat_view"].cases}
    assert not by_name["order in memory"].is_contiguous()
    assert by_name["a slice"].storage_offset() > 0
    assert by_name["float32"].dtype == torch.float32


def test_an_edit_that_fits_nowhere_is_refused():
    with pytest.raises(ValueError, match="a piece of the source"):
        edited("a = 1", [("b", "c")])


def test_every_common_mistake_has_its_sentence_and_every_sentence_is_used():
    headings = {heading for heading in EVERY_EXERCISE if heading.startswith(MISTAKE)}
    assert headings == {MISTAKE + name for name in (*COMMON, *OF_RESULTS)}
    folder = ROOT / "tensormask_edu" / "learn"
    files = ("checks.py", "told.py", "cases.py", "kinds/table.py", "kinds/network.py")
    source = "".join((folder / name).read_text(encoding="utf-8") for name in files)
    rest = set(EVERY_EXERCISE) - headings
    said = {heading.removeprefix("case: ") for heading in rest} - {"by hand"}  # by kinds.py
    assert not [words for words in said if not re.search(f"[\"']{words}[\"']", source)]


@pytest.mark.parametrize("rule", COMMON)
def test_every_common_mistake_is_made_in_some_exercise(rule):
    import ast

    sources = [source_of(found.reference) for found in LOOPS.values()]
    made = [tree for source in sources for tree in COMMON[rule](ast.parse(source))]
    assert made


@each_function
def test_no_paragraph_of_an_exercise_is_unused(name):
    found = LOOPS[name]
    common = {MISTAKE + rule for rule in (*COMMON, *OF_RESULTS)}
    known = {f"hint {number}" for number in (1, 2, 3)} | {"case: by hand"} | common
    known |= {"outside", "index too far"}  # of `checks.md`, put otherwise
    known |= {f"extra: {extra}" for extra in found.extras}
    known |= {f"case: {case.name}" for case in found.cases}
    own = read_texts(ROOT / f"tensormask_edu/learn/lessons/lesson_{found.lesson}.md")[name]
    assert not {heading for heading in own if not own[heading].edits} - known


@pytest.mark.parametrize("path", TEXT_FILES, ids=lambda path: path.stem)
def test_no_heading_of_a_text_file_is_there_twice(path):
    sections = read_texts(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(sections) == sum(line.startswith("## ") for line in lines)
    paragraphs = [text for section in sections.values() for text in section.values()]
    assert len(paragraphs) == sum(line.startswith("### ") for line in lines)
    assert all(paragraph.words for paragraph in paragraphs)


def test_a_text_file_is_read_by_its_headings(tmp_path):
    path = tmp_path / "lesson.md"
    path.write_text(
        "A note.\n\n## one\n### hint 1\nTwo\nlines.\n\n"
        "### mistake: m\n    a + b => a - b\nMinus.\n\n## shared\n"
    )
    assert read_texts(path) == {
        "one": {
            "hint 1": Paragraph("Two lines."),
            "mistake: m": Paragraph("Minus.", (("a + b", "a - b"),)),
        },
        SHARED: {},
    }


def test_every_lesson_has_one_module_and_one_text_file():
    folder = ROOT / "tensormask_edu" / "learn" / "lessons"
    modules = {path.stem for path in folder.glob("*.py") if path.stem != "__init__"}
    assert modules == {path.stem for path in folder.glob("*.md")}
    assert modules == {f"lesson_{found.lesson}" for found in EXERCISES.values()}


@pytest.mark.parametrize("number", sorted({found.lesson for found in EXERCISES.values()}))
def test_a_lesson_costs_at_most_300_lines_beside_its_text(number):
    """Module with its pictures, and sentences; blank lines are not counted."""
    folder = ROOT / "tensormask_edu" / "learn" / "lessons"
    files = sorted(folder.glob(f"*{number}*.*"))
    assert {path.suffix for path in files} == {".py", ".md"}
    lines = [line for path in files for line in path.read_text("utf-8").splitlines()]
    assert sum(bool(line.strip()) for line in lines) <= 300


# --- stubs and solutions ----------------------------------------------------------------------


def test_an_untouched_stub_becomes_the_packages_version_and_says_so(capsys):
    @exercise
    def nat2align(natural, pad_value=PAD):
        """What to do."""
        ...

    assert "not attempted yet" in capsys.readouterr().out
    x = np.random.default_rng(0).random((1, 3, 3, 4, 4))
    np.testing.assert_array_equal(nat2align(x), reference.nat2align(x))
    assert learn.check(nat2align) is None
    assert learn.check("nat2align") is None
    assert capsys.readouterr().out.count("nothing to check yet") == 2


def test_a_written_stub_is_the_learners(capsys):
    @exercise
    def nat2align(natural, pad_value=PAD):
        """What to do."""
        return natural + 1

    assert nat2align(1) == 2
    assert capsys.readouterr().out == ""


def test_what_counts_as_untouched():
    def with_pass():
        pass

    def with_words():
        """Words."""

    def with_dots(): ...

    def with_work():
        return 1

    def with_a_line():
        print()

    assert [is_untouched(f) for f in (with_pass, with_words, with_dots)] == [True] * 3
    assert [is_untouched(f) for f in (with_work, with_a_line)] == [False] * 2


def test_check_names_the_stage_the_case_and_the_way_on_and_draws(capsys):
    @exercise
    def nat2align(natural, pad_value=PAD):
        return reference.align2nat(natural, pad_value=pad_value)

    picture = learn.check(nat2align)
    said = capsys.readouterr().out
    assert "Stopped at: by hand" in said
    assert "every value names its pixel" in said
    assert 'learn.hint("nat2align", 1)' in said
    assert [ax.get_title() for ax in picture.axes] == ["expected", "yours"]


def test_solutions_switched_on_are_checked_like_answers(monkeypatch, capsys):
    monkeypatch.setenv(SOLUTIONS, "1")

    @exercise
    def swap_elements(num_v, num_u, height, width, lam): ...

    learn.check(swap_elements)
    assert "correct" in capsys.readouterr().out


def test_a_wrong_solution_would_be_noticed(monkeypatch):
    monkeypatch.setenv(SOLUTIONS, "1")

    def swap_elements(*args):
        return 1, 2

    with pytest.raises(AssertionError, match="swap_elements fails its check"):
        learn.check(swap_elements)


def test_hints_grow_and_end(capsys):
    learn.hint("swap_align2nat", 3)
    assert "hint 3 of 3" in capsys.readouterr().out
    with pytest.raises(InputError, match="number: expected a hint from 1 to 3"):
        learn.hint("taps", 4)


# --- looks ------------------------------------------------------------------------------------


def test_peek_prints_name_shape_and_range(capsys):
    peek(x=torch.arange(6.0).view(2, 3), many=np.zeros((0, 2)))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["x", "(2,", "3)", "float32", "0", "to", "5"]
    assert lines[1].endswith("empty")


def test_compare_says_where_two_tensors_differ(capsys):
    one = np.zeros((2, 3))
    other = one.copy()
    other[1, 2] = 0.5
    compare(one, other, "zeros")
    assert "1 of 6 values differ, most by 0.5 at (1, 2)" in capsys.readouterr().out
    compare(one, one)
    assert "equal" in capsys.readouterr().out
    compare(one, one + 1e-13, "nearly")
    assert capsys.readouterr().out == "nearly: agree, all 6 values to 1e-13 (rounding)\n"
    with pytest.raises(InputError, match="shape"):
        compare(one, other[0])


def test_iou_of_masks():
    one = torch.tensor([[[1, 1, 0, 0]]]).bool()
    other = torch.tensor([[[0, 1, 1, 0]], [[0, 0, 0, 1]], [[1, 1, 0, 0]]]).bool()
    np.testing.assert_allclose(mask_iou(one, other), [1 / 3, 0, 1])
    assert mask_iou(np.zeros((1, 4), bool), np.zeros((1, 4), bool)) == 0


def test_the_stored_sample_has_its_parts():
    image, truth, found, names = stored_sample(ROOT / "notebooks" / "data" / "sample.npz")
    assert image.shape == (3, 128, 128)
    assert truth["masks"].shape == (len(truth["labels"]), 128, 128)
    assert found["scores"].min() >= 0.5
    assert names[int(found["labels"][0])] in ("ellipse", "rectangle", "triangle", "star")


def test_a_missing_sample_is_told(tmp_path):
    with pytest.raises(InputError, match="an existing .npz"):
        stored_sample(tmp_path / "nothing.npz")


def test_pictures_with_truth_are_the_overlap_worlds():
    image, target = picture_with_truth(0, size_px=64)
    assert image.shape == (3, 64, 64)
    y, x = target["masks"][0].nonzero(as_tuple=True)
    assert target["boxes"][0].tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_smoke_mode_shortens(monkeypatch):
    monkeypatch.delenv("TENSORMASK_EDU_SMOKE", raising=False)
    assert full_or_smoke(10, 1) == 10
    monkeypatch.setenv("TENSORMASK_EDU_SMOKE", "1")
    assert full_or_smoke(10, 1) == 1
