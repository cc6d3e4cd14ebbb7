"""Lessons by themselves: their maps lead somewhere, their pictures are legible."""

from __future__ import annotations

import ast
import io
import itertools
import re

import jupytext
import numpy as np
import pytest
import torch
from conftest import ROOT
from test_viz import scene, texts

from tensormask_edu import config
from tensormask_edu.ablations import coverage, stored
from tensormask_edu.ancestors import deepmask
from tensormask_edu.data import coco
from tensormask_edu.evaluation import coco_scores, lost, results
from tensormask_edu.learn.kinds import EXERCISES
from tensormask_edu.learn.lessons import (
    lesson_02,
    lesson_08,
    lesson_09,
    lesson_10,
    lesson_11,
)
from tensormask_edu.masks import encode
from tensormask_edu.reference.assign import is_positive
from tensormask_edu.viz import ablations, film, reasons, threads

TEXTS = ROOT / "notebooks" / "src"
TWINS = sorted([*TEXTS.glob("0[789]*.py"), *TEXTS.glob("1[012]*.py")])
SMALLEST_PT = 12  # at 100 dpi and 7 inches: 9 px where a picture is shown 380 px wide


# --- the map of a lesson ----------------------------------------------------------------------


def markdown_of(twin):
    cells = jupytext.read(twin).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def names_of_the_package():
    """Every function, class and field of both packages, and every file of a kernel."""
    found = {path.name for path in (ROOT / "plugins").rglob("*")}
    packages = ROOT / "tensormask_edu", ROOT / "exporters" / "tensormask_export"
    for path in itertools.chain.from_iterable(each.rglob("*.py") for each in packages):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(node.target.id)
    return found


def rows_of_the_map(text):
    """(paper, code, lesson) of every row under `| paper | code | lesson |`."""
    table = text.split("| paper | code | lesson |\n|---|---|---|\n")[1]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line[:1] == "|"]
    assert len(rows) >= 4
    return rows


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.stem)
def test_every_row_of_the_map_leads_to_code_and_to_a_part_of_the_lesson(twin):
    text, known = markdown_of(twin), names_of_the_package()
    sections = dict(re.findall(r"^## (\d+)\. (.*)$", text, re.MULTILINE))
    for paper, code, lesson in rows_of_the_map(text):
        assert "section" in paper
        names = re.findall(r"`([\w.]+)`", code)
        assert names
        assert [n for n in names if n not in known and n.split(".")[-1] not in known] == []
        number, parts = lesson.split(",")
        assert number == twin.stem[:2]
        assert set(re.findall(r"\d+", parts)) <= set(sections)


def test_the_papers_sections_have_no_second_number():
    """Subject and first number are enough to find the place."""
    package = (ROOT / "tensormask_edu").rglob("*.py")
    found = {
        path.name: re.findall(r"[sS]ection\s+\d\.\d", path.read_text(encoding="utf-8"))
        for path in [*TEXTS.glob("*.py"), *package]
    }
    assert len(found) > 100
    assert {name for name, numbers in found.items() if numbers} == set()


def test_a_map_that_leads_nowhere_would_be_noticed():
    known = names_of_the_package()
    assert {"align2nat", "plain.cu", "sides_bins", "AlignedHead"} <= known
    assert not {"align3nat", "plain.cc"} & known


# --- what the exercises stand for -------------------------------------------------------------


def test_a_vector_is_read_as_deepmask_files_it():
    network, codes = deepmask.DeepMask().eval(), torch.randn(1, deepmask.CODE, 3, 4)
    with torch.no_grad():
        vectors, natural = network.mask(codes)[0].numpy(), network.natural(codes)[0].numpy()
    for y, x in np.ndindex(3, 4):
        read = lesson_02.read_vector(vectors, deepmask.BINS, deepmask.BINS, y, x)
        np.testing.assert_array_equal(read, natural[:, :, y, x])


def test_out_of_perfect_storages_the_same_mask_is_read():
    """Where windows look at the moon; next to the star two neighbours may disagree."""
    shapes = lesson_02.moon_and_star()
    windows = lesson_02.perfect_windows(shapes, 15)
    vectors, maps = windows.reshape(225, 24, 24), lesson_02.perfect_maps(windows, 5)
    for y, x in ((12, 11), (14, 8), (10, 9)):
        vector = lesson_02.read_vector(vectors, 15, 15, y, x)
        np.testing.assert_array_equal(lesson_02.read_maps(maps, 15, y, x, 0.0), vector)
        seen = np.pad(shapes[0], 7)[y : y + 15, x : x + 15]
        np.testing.assert_array_equal(vector, seen)
    box = lesson_02.read_box(shapes.any(0).astype(float), (4, 7, 16, 19), 12)
    np.testing.assert_array_equal(box, shapes[0, 7:19, 4:16])


def test_a_window_without_a_reason_is_positive_for_the_package_too():
    found = EXERCISES["reason"]
    answers = []
    for case in found.cases:
        dy, dx, side, height, width, stride = case.make()
        window = np.array([0, 0, side, side])
        centre = np.array([side / 2 + dx, side / 2 + dy])
        half = np.array([width, height]) / 2
        box = np.concatenate([centre - half, centre + half])
        answers.append(lesson_08.reason(*case.make()))
        theirs = is_positive(window, stride, stride, box, smallest=16)
        assert (answers[-1] == 0) == theirs, case.make()
    assert set(answers) == {0, 1, 2, 3}


def test_average_precision_is_that_of_pycocotools():
    """Of masks moved by chance: hits, misses and doubles, of two classes in twelve pictures."""
    rng, truths, found, annotations, detections = np.random.default_rng(0), [], [], [], []
    for number in range(12):
        count = rng.integers(1, 4)
        masks = np.zeros((count, 24, 24), bool)
        for k, (y, x) in enumerate(rng.integers(0, 14, (count, 2))):
            masks[k, y : y + 9, x : x + 8] = True
        labels, source = rng.integers(0, 2, count), rng.integers(0, count, 5)
        moved = np.stack([np.roll(masks[k], rng.integers(-4, 5, 2), (0, 1)) for k in source])
        scores = np.sort(rng.random(5))[::-1].copy()
        truths.append({"labels": torch.tensor(labels), "masks": torch.tensor(masks)})
        boxes, seen = torch.zeros(5, 4), {"masks": torch.tensor(moved)}
        seen |= {"labels": torch.tensor(labels[source]), "scores": torch.tensor(scores)}
        found.append(seen)
        detections += results.to_coco(number + 1, seen | {"boxes": boxes}, [1, 2])
        true = {"boxes": torch.zeros(count, 4), "scores": torch.ones(count)}
        annotations += results.to_coco(number + 1, truths[-1] | true, [1, 2])
    images = [{"id": n + 1, "height": 24, "width": 24, "file_name": ""} for n in range(12)]
    truth = coco_scores.indexed(
        {
            "images": images,
            "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
            "annotations": [
                each | {"id": k, "iscrowd": 0, "area": 72.0}
                for k, each in enumerate(annotations, start=1)
            ],
        }
    )
    matches = [lesson_09.matched(found, truths, label) for label in (0, 1)]
    own = np.mean([lesson_09.average_precision(*match) for match in matches])
    theirs = coco_scores.score(truth, detections)["AP50"]
    assert 0.05 < theirs < 0.95
    assert own == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("slack", [0, 1])
@pytest.mark.parametrize("sides", [lesson_10.ONE, lesson_10.TWO])
def test_windows_per_object_are_those_of_training(sides, slack):
    config, counts = lesson_10.level_config(sides, slack), []
    windows = config.geometry.layout([(64, 64)]).windows
    side = (windows.box_px[:, 2] - windows.box_px[:, 0]).numpy()
    for box in coverage.boxes(coverage.WORLDS["crowded"], 8, 64):
        length = (box[:, 2:] - box[:, :2]).amax(1).clamp(min=config.smallest_scale_px / 2)
        inside = lesson_10.inside_and_central(box.numpy(), windows)
        facts = inside, length.numpy(), side, windows.stride_px.numpy()
        counts += lesson_10.count_windows(*facts, slack).tolist()
    package = coverage.counts(coverage.WORLDS["crowded"], config, 8)
    assert np.mean(counts) == pytest.approx(package["windows per object"])
    assert np.mean(np.equal(counts, 0)) == pytest.approx(package["without one"])


def test_the_explorer_of_windows_shows_the_gap_below_an_octave():
    page = lesson_10.gaps()._repr_html_()
    assert "A square of 26 px, 0 px off a cell, has 1 window with one size" in page
    first = re.search(r'class="words"[^>]*>(.*?)</p>', page)
    assert first[1].startswith(
        "A square of 26 px, 2 px off a cell, has NO window with one size"
    )
    assert page.count(">30<") == 0 and page.count(">34<") == 2  # every other length is named


def test_the_kinds_of_errors_are_those_of_the_package_where_nothing_is_merged():
    """Discs of 10 px, found moved to the right: the further, the worse the kind."""
    size, truths, found = (24, 200), [], []
    for k, moved in enumerate((0, 1, 2, 8)):
        x = 5 + 50 * k
        truths.append((7, x + 5, 10, 10))
        found += [(7, x + 5 + moved, 10, 10)] * (1 + (k == 0))
    masks = [
        np.concatenate([lesson_11.nuclei(size, [row]) for row in rows])
        for rows in (found, truths)
    ]
    ious = lesson_11.ious_of(*masks)
    mine = lesson_11.sort_errors(ious).tolist()
    rles = [encode(part) for part in masks]
    judged = lost.judge(lost.Overlap(*rles), np.zeros(len(ious), bool))
    kinds = ["false" if kind == "poor" else kind for kind in judged.kind]
    assert [("fine", "coarse", "doubled", "false")[kind] for kind in mine] == kinds
    assert set(mine) == {0, 1, 2, 3}


def test_photos_are_read_back_as_they_were_written(tmp_path):
    drawn = list(lesson_11.drawn(2, side_px=96))
    lesson_11.write_photos(tmp_path, drawn)
    dataset = coco.CocoFolder(tmp_path, "val", keep_empty=True)
    for k, (pixels, masks) in enumerate(drawn):
        image, truth = dataset[k]
        assert np.array_equal(image, pixels)
        assert np.array_equal(truth["masks"], masks[masks.any((1, 2))])


# --- pictures ---------------------------------------------------------------------------------


def pictures():
    image, truth = scene(64, 64)
    windows = config.MODELS["tiny"].geometry.layout([(64, 64)]).windows
    why, shown = torch.arange(len(windows)) % 5, [(1, 0), (1, 1), (2, 0), (2, 1)]
    overlap = np.array([0.9, 0.2, 0.8, 0.7, 0.1])
    heights = {"one": [1, 2, 3], "two": [3, 2, 1]}
    panels = {"truth": truth["masks"], "boxes": truth["boxes"], "step 3": truth["masks"][:0]}
    return {
        "maps": threads.moved_maps(),
        "threads": threads.blocks_and_threads((2, 2, 3, 4), 13),
        "reasons": reasons.windows_by_reason(image, truth["masks"], windows, why, shown),
        "bars": reasons.bars_side_by_side("abc", heights, "Bars", ("x", "y")),
        "seeds": ablations.by_seed(("one", "other"), overlap, overlap + 1, "AP"),
        "paper": ablations.beside_the_paper(list(lesson_10.differences(stored.tables()))),
        "film": film.film_strip(image, panels, "One picture"),
        "recall": film.precision_and_recall({"a": overlap}, {"a": 4}),
    }


@pytest.mark.parametrize(
    "name", ["maps", "threads", "reasons", "bars", "seeds", "paper", "film", "recall"]
)
def test_a_lessons_picture_has_a_title_and_text_that_a_phone_can_show(name):
    figure = pictures()[name]
    figure.savefig(io.BytesIO(), dpi=100)  # lays the picture out
    width, height = figure.get_size_inches() * figure.dpi
    assert figure.get_suptitle()
    assert min(text.get_fontsize() for text in texts(figure)) >= SMALLEST_PT
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    for words, box in boxes:
        assert -1 <= box.x0 and box.x1 <= width + 1, words
        assert -1 <= box.y0 and box.y1 <= height + 1, words
