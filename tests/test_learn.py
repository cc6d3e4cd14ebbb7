"""Exercises: right answers pass in any style, each wrong idea gets its own sentence."""

from __future__ import annotations

import functools
import inspect
import math

import numpy as np
import pytest
import torch
from conftest import ROOT

from tensormask_edu import reference
from tensormask_edu.base.errors import InputError
from tensormask_edu.learn import (
    check,
    checks,
    compare,
    exercise,
    explore,
    full_or_smoke,
    hint,
    mask_iou,
    peek,
    picture_with_truth,
    solution,
    stored_sample,
)
from tensormask_edu.learn.checks import EVERY_EXERCISE, NAMES, as_numbers, run
from tensormask_edu.learn.exercise import EXERCISES, SOLUTIONS, is_untouched
from tensormask_edu.learn.texts import SHARED, read_texts

PAD = -6.0


# --- window_mask ------------------------------------------------------------------------------


def window_mask_by_einsum(aligned, y, x, pad_value=PAD):
    num_v, num_u, height, width = aligned.shape
    half = (num_v // 2, num_u // 2)
    padded = np.pad(
        aligned, ((0, 0), (0, 0), (half[0],) * 2, (half[1],) * 2), constant_values=pad_value
    )
    return np.einsum("vuvu->vu", padded[:, :, y : y + num_v, x : x + num_u])


def window_mask_block(aligned, y, x, pad_value=PAD):
    return aligned[:, :, y, x].copy()


def window_mask_backwards(aligned, y, x, pad_value=PAD):
    return window_mask_by_einsum(aligned[::-1, ::-1], y, x, pad_value)[::-1, ::-1]


def window_mask_from_corner(aligned, y, x, pad_value=PAD):
    out = np.full(aligned.shape[:2], pad_value)
    for v in range(out.shape[0]):
        for u in range(out.shape[1]):
            if y + v < aligned.shape[2] and x + u < aligned.shape[3]:
                out[v, u] = aligned[v, u, y + v, x + u]
    return out


def window_mask_axes_swapped(aligned, y, x, pad_value=PAD):
    out = np.full(aligned.shape[:2], pad_value)
    for i, j in np.ndindex(out.shape):
        row, column = y + j - out.shape[1] // 2, x + i - out.shape[0] // 2
        if 0 <= row < aligned.shape[2] and 0 <= column < aligned.shape[3]:
            out[i, j] = aligned[i, j, row, column]
    return out


def window_mask_without_asking(aligned, y, x, pad_value=PAD):
    out = np.empty(aligned.shape[:2])
    for i, j in np.ndindex(out.shape):
        out[i, j] = aligned[i, j, y + i - out.shape[0] // 2, x + j - out.shape[1] // 2]
    return out


def window_mask_modulo(aligned, y, x, pad_value=PAD):
    rolled = np.roll(aligned, (-y, -x), (2, 3))
    out = np.empty(aligned.shape[:2])
    for i, j in np.ndindex(out.shape):
        out[i, j] = rolled[i, j, i - out.shape[0] // 2, j - out.shape[1] // 2]
    return out


def window_mask_zero_outside(aligned, y, x, pad_value=PAD):
    return window_mask_by_einsum(aligned, y, x, 0.0)


def window_mask_as_list(aligned, y, x, pad_value=PAD):
    return window_mask_by_einsum(aligned, y, x, pad_value).tolist()


# --- nat2align --------------------------------------------------------------------------------


def slide(x, step, fill):
    """By slices: the block of bin (v, u) moved by step * (v, u)."""
    out = np.full(x.shape, float(fill))
    (_, num_v, num_u, height, width) = x.shape
    for i in range(num_v):
        for j in range(num_u):
            dy, dx = step * (i - num_v // 2), step * (j - num_u // 2)
            to_y, to_x = (
                slice(max(-dy, 0), height - max(dy, 0)),
                slice(max(-dx, 0), width - max(dx, 0)),
            )
            from_y, from_x = (
                slice(max(dy, 0), height - max(-dy, 0)),
                slice(max(dx, 0), width - max(-dx, 0)),
            )
            if height > abs(dy) and width > abs(dx):
                out[:, i, j, to_y, to_x] = x[:, i, j, from_y, from_x]
    return out


def nat2align_by_slices(x, pad_value=PAD):
    return slide(x, -1, pad_value)


def nat2align_wrong_way(x, pad_value=PAD):
    return slide(x, +1, pad_value)


def nat2align_unmoved(x, pad_value=PAD):
    return x.copy()


def nat2align_from_corner(x, pad_value=PAD):
    out = np.full_like(x, pad_value)
    for i, j in np.ndindex(*x.shape[1:3]):
        for y in range(i, x.shape[3]):
            for column in range(j, x.shape[4]):
                out[:, i, j, y, column] = x[:, i, j, y - i, column - j]
    return out


def nat2align_axes_swapped(x, pad_value=PAD):
    return slide(x.transpose(0, 1, 2, 4, 3), -1, pad_value).transpose(0, 1, 2, 4, 3)


def nat2align_rolled(x, pad_value=PAD):
    out = np.empty_like(x)
    for i, j in np.ndindex(*x.shape[1:3]):
        out[:, i, j] = np.roll(x[:, i, j], (i - x.shape[1] // 2, j - x.shape[2] // 2), (-2, -1))
    return out


def nat2align_zero_outside(x, pad_value=PAD):
    return slide(x, -1, 0)


def nat2align_in_place(x, pad_value=PAD):
    x[:] = slide(x, -1, pad_value)
    return x


# --- align2nat --------------------------------------------------------------------------------


def align2nat_by_slices(x, sigma_vu=1, pad_value=PAD):
    return slide(x, sigma_vu, pad_value)


def align2nat_unit_ignored(x, sigma_vu=1, pad_value=PAD):
    return slide(x, 1, pad_value)


def align2nat_wrong_way(x, sigma_vu=1, pad_value=PAD):
    return slide(x, -sigma_vu, pad_value)


def align2nat_divided(x, sigma_vu=1, pad_value=PAD):
    out = np.full_like(x, pad_value)
    for i, j, y, column in np.ndindex(*x.shape[1:]):
        row = y + math.floor((i - x.shape[1] // 2) / sigma_vu)
        col = column + math.floor((j - x.shape[2] // 2) / sigma_vu)
        if 0 <= row < x.shape[3] and 0 <= col < x.shape[4]:
            out[:, i, j, y, column] = x[:, i, j, row, col]
    return out


def align2nat_from_corner(x, sigma_vu=1, pad_value=PAD):
    out = np.full_like(x, pad_value)
    for i, j, y, column in np.ndindex(*x.shape[1:]):
        row, col = y + sigma_vu * i, column + sigma_vu * j
        if row < x.shape[3] and col < x.shape[4]:
            out[:, i, j, y, column] = x[:, i, j, row, col]
    return out


def align2nat_axes_swapped(x, sigma_vu=1, pad_value=PAD):
    return slide(x.transpose(0, 1, 2, 4, 3), sigma_vu, pad_value).transpose(0, 1, 2, 4, 3)


def align2nat_rolled(x, sigma_vu=1, pad_value=PAD):
    out = np.empty_like(x)
    for i, j in np.ndindex(*x.shape[1:3]):
        by = (sigma_vu * (x.shape[1] // 2 - i), sigma_vu * (x.shape[2] // 2 - j))
        out[:, i, j] = np.roll(x[:, i, j], by, (-2, -1))
    return out


def align2nat_zero_outside(x, sigma_vu=1, pad_value=PAD):
    return slide(x, sigma_vu, 0.0)


# --- align2nat_view ---------------------------------------------------------------------------


def view_by_unfold(padded, height, width):
    """Windows of every map by unfold, then the diagonal: a view too."""
    windows = padded.unfold(3, height, 1).unfold(4, width, 1)  # (N, V, U, V, U, height, width)
    return windows.diagonal(0, 1, 3).diagonal(0, 1, 2).permute(0, 3, 4, 1, 2)


def view_copied(padded, height, width):
    return view_by_unfold(padded, height, width).contiguous()


def view_unmoved(padded, height, width):
    return padded[..., :height, :width]


def view_step_on_y(padded, height, width):
    n, v, u, y, x = padded.stride()
    small = padded.shape[1] <= 1 or (height - 1) * v < padded.numel()
    return (
        padded.as_strided((*padded.shape[:3], height, width), (n, v, u, v + y, u + x))
        if small
        else padded
    )


def view_axes_swapped(padded, height, width):
    n, v, u, y, x = padded.stride()
    return padded.as_strided((*padded.shape[:3], height, width), (n, v + x, u + y, y, x))


def view_of_one_map(padded, height, width):
    n, _, _, y, x = padded.stride()
    return padded.as_strided((*padded.shape[:3], height, width), (n, y, x, y, x))


def view_strides_from_shape(padded, height, width):
    _, num_v, num_u, rows, columns = padded.shape
    y, x = columns, 1
    u = rows * columns
    v, n = num_u * u, num_v * num_u * u
    return padded.as_strided((*padded.shape[:3], height, width), (n, v + y, u + x, y, x))


def view_from_offset_zero(padded, height, width):
    n, v, u, y, x = padded.stride()
    return torch.as_strided(
        padded, (*padded.shape[:3], height, width), (n, v + y, u + x, y, x), 0
    )


def view_detached(padded, height, width):
    return view_by_unfold(padded.detach(), height, width)


# --- taps -------------------------------------------------------------------------------------


def taps_in_integers(v, lam):
    """No floating point until the end."""
    lower = (2 * v + 1 - lam) // (2 * lam)
    upper_weight = (2 * v + 1 - lam - 2 * lam * lower) / (2 * lam)
    return [(lower + 1, upper_weight), (lower, 1 - upper_weight)]


def two_taps(place):
    return [(math.floor(place), 1 - place % 1), (math.floor(place) + 1, place % 1)]


def taps_corners(v, lam):
    return two_taps(v / lam)


def taps_half_a_rule(v, lam):
    return two_taps((2 * v + 1) / (2 * lam))


def taps_weights_swapped(v, lam):
    (low, a), (high, b) = taps_in_integers(v, lam)
    return [(low, b), (high, a)]


def taps_nearest(v, lam):
    return [(v // lam, 1)]


def taps_truncated(v, lam):
    place = (v + 0.5) / lam - 0.5
    low = int(place)
    return [(low, 1 - place + low), (low + 1, place - low)]


def taps_clamped(v, lam):
    place = max((v + 0.5) / lam - 0.5, 0)
    return two_taps(place)


# --- shifted_taps -----------------------------------------------------------------------------


def shifted_taps_by_parity(v, y, lam, num_v):
    first = lam * y + v - lam * num_v // 2
    return [(first, 0.5), (first + 1, 0.5)] if lam * num_v % 2 == 0 else [(first, 1.0)]


def shifted_taps_fine_grid(v, y, lam, num_v):
    return two_taps(y + v - (lam * num_v - 1) / 2)


def shifted_taps_upwards(v, y, lam, num_v):
    return two_taps(lam * y - v + (lam * num_v - 1) / 2)


def shifted_taps_coarse_centre(v, y, lam, num_v):
    return two_taps(lam * y + v - (num_v - 1) / 2)


def shifted_taps_uncentred(v, y, lam, num_v):
    return [(lam * y + v, 1)]


def shifted_taps_lower(v, y, lam, num_v):
    return [(math.floor(lam * y + v - (lam * num_v - 1) / 2), 1)]


def shifted_taps_upper(v, y, lam, num_v):
    return [(math.ceil(lam * y + v - (lam * num_v - 1) / 2), 1)]


# --- swap_align2nat ---------------------------------------------------------------------------


def loops(x, lam, pad_value, axis_v=None, axis_y=None, read=None):
    """The fused op entry by entry; what differs is given."""
    axis_v, axis_y = axis_v or taps_in_integers, axis_y or shifted_taps_by_parity
    n, num_v, num_u, height, width = x.shape
    out = np.zeros((n, lam * num_v, lam * num_u, -(-height // lam), -(-width // lam)))
    for v, u, y, column in np.ndindex(*out.shape[1:]):
        for a, wa in axis_v(v, lam):
            for b, wb in axis_v(u, lam):
                for c, wc in axis_y(v, y, lam, num_v):
                    for d, wd in axis_y(u, column, lam, num_u):
                        weight = wa * wb * wc * wd
                        out[:, v, u, y, column] += weight * (read or entry)(
                            x, (a, b, c, d), pad_value
                        )
    return out


def entry(x, place, pad_value):
    inside = all(0 <= i < extent for i, extent in zip(place, x.shape[1:], strict=True))
    return x[(slice(None), *place)] if inside else pad_value


def swap_by_loops(x, lam, pad_value=PAD):
    return loops(x, lam, pad_value)


def swap_transposed_read(x, lam, pad_value=PAD):
    def read(x, place, pad_value):
        a, b, c, d = place
        return entry(x, (b, a, c, d), pad_value)

    return loops(x, lam, pad_value, read=read)


def swap_first_tap_only(x, lam, pad_value=PAD):
    return (
        loops(x - pad_value, lam, 0.0, axis_y=lambda *a: shifted_taps_by_parity(*a)[:1])
        + pad_value
    )


def swap_half_cell_dropped(x, lam, pad_value=PAD):
    return loops(x, lam, pad_value, axis_y=shifted_taps_lower)


def swap_nearest(x, lam, pad_value=PAD):
    return loops(x, lam, pad_value, axis_v=taps_nearest)


def swap_clamped_rim(x, lam, pad_value=PAD):
    def read(x, place, pad_value):
        a, b, c, d = place
        return entry(
            x, (np.clip(a, 0, x.shape[1] - 1), np.clip(b, 0, x.shape[2] - 1), c, d), pad_value
        )

    return loops(x, lam, pad_value, read=read)


def swap_renormalised(x, lam, pad_value=PAD):
    weight = loops(np.ones_like(x), lam, 0.0)
    return loops(x, lam, 0.0) / np.where(weight > 0, weight, 1)


def swap_zero_outside(x, lam, pad_value=PAD):
    return loops(x, lam, 0.0)


def swap_unfused(x, lam, pad_value=PAD):
    return reference.subsample(reference.up_align2nat(x, lam, pad_value=pad_value), lam).copy()


# --- swap_elements ----------------------------------------------------------------------------


def elements_by_numpy(num_v, num_u, height, width, lam):
    bins = lam * lam * num_v * num_u
    return np.array(
        [bins * height * width, bins * len(range(0, height, lam)) * len(range(0, width, lam))]
    )


def elements_lam_once(v, u, h, w, lam):
    cells = len(range(0, h, lam)) * len(range(0, w, lam))
    return lam * v * u * h * w, lam * v * u * cells


def elements_coarse_between(v, u, h, w, lam):
    return v * u * h * w, int(elements_by_numpy(v, u, h, w, lam)[1])


def elements_subsampled_between(v, u, h, w, lam):
    return [int(elements_by_numpy(v, u, h, w, lam)[1])] * 2


def elements_coarse_result(v, u, h, w, lam):
    return lam**2 * v * u * h * w, v * u * len(range(0, h, lam)) * len(range(0, w, lam))


def elements_floor(v, u, h, w, lam):
    return lam**2 * v * u * h * w, lam**2 * v * u * (h // lam) * (w // lam)


def elements_as_large_as_the_input(v, u, h, w, lam):
    return lam**2 * v * u * h * w, v * u * h * w


def elements_one_number(v, u, h, w, lam):
    return lam**2 * v * u * h * w


RIGHT = {
    "window_mask": window_mask_by_einsum,
    "nat2align": nat2align_by_slices,
    "align2nat": align2nat_by_slices,
    "align2nat_view": view_by_unfold,
    "taps": taps_in_integers,
    "shifted_taps": shifted_taps_by_parity,
    "swap_align2nat": swap_by_loops,
    "swap_elements": elements_by_numpy,
}

# exercise -> wrong answers, each with words of the message that it alone triggers
WRONG = {
    "window_mask": {
        window_mask_block: "what all windows say about pixel",
        window_mask_backwards: "wrong way",
        window_mask_from_corner: "from the window's corner",
        window_mask_axes_swapped: "v move x",
        window_mask_without_asking: "outside the tensor (",
        window_mask_modulo: "wraps to the far side",
        window_mask_zero_outside: "you give 0",
        window_mask_as_list: "Return a ndarray; yours is a list",
    },
    "nat2align": {
        nat2align_unmoved: "gave the input back",
        nat2align_wrong_way: "that is align2nat",
        nat2align_from_corner: "from the window's corner",
        nat2align_axes_swapped: "v move x",
        nat2align_rolled: "come back on the other",
        nat2align_zero_outside: "you give 0",
        nat2align_in_place: "changed its input",
    },
    "align2nat": {
        align2nat_unit_ignored: "one cell per bin",
        align2nat_wrong_way: "that is nat2align",
        align2nat_divided: "divide by sigma_vu",
        align2nat_from_corner: "from the window's corner",
        align2nat_axes_swapped: "v move x",
        align2nat_rolled: "come back on the other",
        align2nat_zero_outside: "you give 0",
    },
    "align2nat_view": {
        view_unmoved: "left the strides as they are",
        view_axes_swapped: "v move x",
        view_of_one_map: "unfold of one map",
        view_strides_from_shape: "strides from the shape",
        view_from_offset_zero: "offset 0",
        view_copied: "but copied",
        view_detached: "gradient is cut",
    },
    "taps": {
        taps_corners: "corners on corners",
        taps_half_a_rule: "Half the half-cell rule",
        taps_weights_swapped: "weights are swapped",
        taps_nearest: "nearest neighbour",
        taps_truncated: "rounds towards zero",
        taps_clamped: "that is clamping",
    },
    "shifted_taps": {
        shifted_taps_fine_grid: "lam times coarser",
        shifted_taps_upwards: "walk upwards",
        shifted_taps_coarse_centre: "coarse window's",
        shifted_taps_uncentred: "from the window's first bin",
        shifted_taps_lower: "took the lower one",
        shifted_taps_upper: "took the upper one",
    },
    "swap_align2nat": {
        swap_transposed_read: "bin (u, v)",
        swap_first_tap_only: "weight is lost",
        swap_half_cell_dropped: "dropped the half cell",
        swap_nearest: "blocks",
        swap_clamped_rim: "rim is clamped",
        swap_renormalised: "no renormalisation",
        swap_zero_outside: "counts as 0",
        swap_unfused: "built the tensor between",
    },
    "swap_elements": {
        elements_lam_once: "lam times as many",
        elements_coarse_between: "fine bins already",
        elements_subsampled_between: "subsampled already",
        elements_coarse_result: "result has fine bins too",
        elements_floor: "not the floor",
        elements_as_large_as_the_input: "only if lam divides",
        elements_one_number: "Return shape (2,)",
    },
}
WRONG_ANSWERS = [
    (name, wrong, words) for name, wrongs in WRONG.items() for wrong, words in wrongs.items()
]


@functools.cache
def verdict_of(name, wrong):
    return run(EXERCISES[name], wrong)


def test_every_exercise_has_wrong_answers_and_another_right_one():
    assert set(WRONG) == set(RIGHT) == set(EXERCISES)
    assert all(len(wrongs) >= 3 for wrongs in WRONG.values())


@pytest.mark.parametrize("name", EXERCISES)
def test_the_packages_own_version_passes(name):
    found = EXERCISES[name]
    verdict = run(found, found.reference)
    assert verdict.passed, verdict.message
    assert verdict.done == (*NAMES, *found.extras)


@pytest.mark.parametrize("name", EXERCISES)
def test_a_right_answer_in_another_style_passes(name):
    verdict = run(EXERCISES[name], RIGHT[name])
    assert verdict.passed, f"{verdict.stage}: {verdict.message}"


@pytest.mark.parametrize(("name", "wrong", "words"), WRONG_ANSWERS)
def test_a_wrong_answer_is_told_its_idea(name, wrong, words):
    verdict = verdict_of(name, wrong)
    assert not verdict.passed
    assert words in verdict.message, f"{verdict.stage}: {verdict.message}"


@pytest.mark.parametrize("name", EXERCISES)
def test_no_two_wrong_answers_share_a_message(name):
    messages = [verdict_of(name, wrong).message for wrong in WRONG[name]]
    sentences = [message.partition("wrong. ")[2] or message for message in messages]
    assert len(set(sentences)) == len(sentences)


@pytest.mark.parametrize("name", EXERCISES)
def test_every_known_mistake_is_wrong(name):
    """A mistake that gave right numbers everywhere could never be told."""
    found = EXERCISES[name]
    assert not [name for name, wrong in found.mistakes.items() if run(found, wrong).passed]


@pytest.mark.parametrize("name", EXERCISES)
def test_the_case_by_hand_is_what_the_reference_gives(name):
    found = EXERCISES[name]
    by_hand = as_numbers(found.by_hand.expected)
    given = as_numbers(found.evaluate(found.reference, *found.by_hand.args))
    inside = (
        found.interior(*found.by_hand.args) if found.interior else np.ones(given.shape, bool)
    )
    assert by_hand.shape == given.shape
    assert inside.sum() >= 2
    np.testing.assert_allclose(by_hand[inside], given[inside], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", EXERCISES)
def test_every_exercise_belongs_to_a_lesson_and_has_three_hints(name):
    found = EXERCISES[name]
    assert found.lesson in ("04_two_ways_to_file_a_mask", "06_swap_and_bipyramid")
    assert len(set(found.hints)) == 3


# --- the sentences ----------------------------------------------------------------------------

TEXT_FILES = sorted((ROOT / "tensormask_edu" / "learn").rglob("*.md"))


def cases_of(found):
    rng = np.random.default_rng(0)
    return [found.by_hand, *found.random(rng), *found.borders(rng)]


def headings_of(found) -> set[str]:
    """The paragraphs that an exercise asks for; of `border` the usual one may do."""
    hints = {f"hint {number}" for number in (1, 2, 3)}
    cases = {f"case: {case.name}" for case in cases_of(found)}
    mistakes = {f"mistake: {name}" for name in found.mistakes}
    return hints | cases | mistakes | {f"extra: {name}" for name in found.extras}


def lesson_texts(found) -> dict[str, dict[str, str]]:
    number = found.lesson[:2]
    return read_texts(ROOT / "tensormask_edu" / "learn" / "lessons" / f"lesson_{number}.md")


@pytest.mark.parametrize("name", EXERCISES)
def test_every_hint_case_and_mistake_has_its_paragraph(name):
    found = EXERCISES[name]
    assert not headings_of(found) - set(found.texts)
    assert all(found.words(case) for case in cases_of(found))  # every word in braces is filled


@pytest.mark.parametrize("name", EXERCISES)
def test_no_paragraph_of_an_exercise_is_unused(name):
    found = EXERCISES[name]
    assert not set(lesson_texts(found)[name]) - headings_of(found) - {"border"}


def test_no_shared_paragraph_and_no_section_is_unused():
    for lesson in {found.lesson for found in EXERCISES.values()}:
        exercises = [found for found in EXERCISES.values() if found.lesson == lesson]
        sections = lesson_texts(exercises[0])
        shared = set(sections.pop(SHARED, {}))
        assert set(sections) == {found.name for found in exercises}
        asked = [headings_of(found) - set(sections[found.name]) for found in exercises]
        users = {heading: sum(heading in asks for asks in asked) for heading in shared}
        assert all(users.values()), users


def test_what_fits_every_exercise_is_said_somewhere_in_the_check():
    source = inspect.getsource(checks)
    assert not [heading for heading in EVERY_EXERCISE if f'"{heading}"' not in source]


def test_every_lesson_has_one_module_and_one_text_file():
    folder = ROOT / "tensormask_edu" / "learn" / "lessons"
    modules = {path.stem for path in folder.glob("*.py") if path.stem != "__init__"}
    assert modules == {path.stem for path in folder.glob("*.md")}
    assert modules == {f"lesson_{found.lesson[:2]}" for found in EXERCISES.values()}


@pytest.mark.parametrize("path", TEXT_FILES, ids=lambda path: path.stem)
def test_no_heading_of_a_text_file_is_there_twice(path):
    sections = read_texts(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(sections) == sum(line.startswith("## ") for line in lines)
    paragraphs = [text for section in sections.values() for text in section.values()]
    assert len(paragraphs) == sum(line.startswith("### ") for line in lines)
    assert all(paragraphs)


def test_a_text_file_is_read_by_its_headings(tmp_path):
    path = tmp_path / "lesson.md"
    path.write_text(
        "A note.\n\n## one\n### hint 1\nTwo\nlines.\n\n### hint 2\nMore.\n## shared\n"
    )
    assert read_texts(path) == {
        "one": {"hint 1": "Two lines.", "hint 2": "More."},
        "shared": {},
    }


# --- the mechanism ----------------------------------------------------------------------------


def test_an_untouched_stub_becomes_the_packages_version_and_says_so(capsys):
    @exercise
    def nat2align(x, pad_value=PAD):
        """What to do."""
        ...

    assert "not attempted yet" in capsys.readouterr().out
    x = np.random.default_rng(0).random((1, 3, 3, 4, 4))
    np.testing.assert_array_equal(nat2align(x), reference.nat2align(x))
    assert check(nat2align) is None
    assert "nothing to check yet" in capsys.readouterr().out


def test_a_written_stub_is_the_learners(capsys):
    @exercise
    def nat2align(x, pad_value=PAD):
        """What to do."""
        return x + 1

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
    nat2align_wrong_way.__name__ = "nat2align"
    try:
        picture = check(nat2align_wrong_way)
    finally:
        nat2align_wrong_way.__name__ = "nat2align_wrong_way"
    said = capsys.readouterr().out
    assert "Stopped at: by hand" in said
    assert "every value names its pixel" in said
    assert 'learn.hint("nat2align", 1)' in said
    assert [ax.get_title() for ax in picture.axes] == [
        "expected",
        "yours",
        "difference (× wrong)",
    ]


def test_check_lists_what_passed(capsys):
    elements_by_numpy.__name__ = "swap_elements"
    try:
        check(elements_by_numpy)
    finally:
        elements_by_numpy.__name__ = "elements_by_numpy"
    assert (
        "correct.\nPassed: shape, by hand, random, borders, input unchanged."
        in capsys.readouterr().out
    )


def test_an_exception_is_told_with_its_line():
    def answer(v, lam):
        place = (v + 0.5) / lam
        return place.nothing

    assert "Line 3 of your function. AttributeError" in run(EXERCISES["taps"], answer).message


def test_a_missing_return_is_told():
    def answer(v, u, h, w, lam):
        v * u

    assert "return" in run(EXERCISES["swap_elements"], answer).message


def test_an_unknown_mistake_is_not_explained_away():
    verdict = run(EXERCISES["swap_elements"], lambda v, u, h, w, lam: (1, 2))
    assert "none of the mistakes known here" in verdict.message


def test_solutions_switched_on_are_checked_like_answers(monkeypatch, capsys):
    monkeypatch.setenv(SOLUTIONS, "1")

    @exercise
    def swap_elements(num_v, num_u, height, width, lam): ...

    check(swap_elements)
    assert "correct" in capsys.readouterr().out


def test_a_wrong_solution_would_be_noticed(monkeypatch):
    monkeypatch.setenv(SOLUTIONS, "1")

    def swap_elements(*args):
        return 1, 2

    with pytest.raises(AssertionError, match="swap_elements fails its check"):
        check(swap_elements)


def test_hints_grow_and_the_solution_is_the_packages_source(capsys):
    hint("swap_align2nat", 3)
    assert "hint 3 of 3" in capsys.readouterr().out
    solution("swap_align2nat")
    said = capsys.readouterr().out
    assert "# tensormask_edu.reference.swap_align2nat" in said
    assert "def swap_align2nat(x: Array, lam: int" in said


def test_unknown_names_and_numbers_are_refused():
    with pytest.raises(InputError, match="exercise: expected one of window_mask"):
        hint("nothing", 1)
    with pytest.raises(InputError, match="number: expected a hint from 1 to 3"):
        hint("taps", 4)


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


def test_the_explorer_says_so_where_ipywidgets_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "ipywidgets", None)
    assert explore(lambda y: y, y=3) is None
    assert "needs ipywidgets" in capsys.readouterr().out


def test_the_explorer_draws_for_every_place():
    pytest.importorskip("ipywidgets")
    seen = []
    box = explore(lambda y, x: seen.append((y, x)), y=3, x=5)
    box.update()
    box.children[0].value = 2
    box.update()
    assert seen[0] == (1, 2)
    assert seen[-1] == (2, 2)
