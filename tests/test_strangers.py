"""Files that other tools and machines wrote: what is mended, what is left out, what is refused.

Each case is one small picture file or one edit of a small whole data set.
"""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image, ImageOps
from trainer import small_recipe

from tensormask_edu import viz
from tensormask_edu.base import command_line, errors, machine, progress
from tensormask_edu.base.errors import InputError, InputWarning
from tensormask_edu.base.machine import allow_open_files, free_memory
from tensormask_edu.base.progress import Progress
from tensormask_edu.cli import build_parser, main
from tensormask_edu.commands import inspect
from tensormask_edu.commands.evaluate import evaluate_checkpoint
from tensormask_edu.commands.predict import image_files, predict, write_predictions
from tensormask_edu.config import AugmentConfig, InputConfig, ModelConfig, TrainConfig
from tensormask_edu.data.coco import CocoFolder
from tensormask_edu.data.instances import RULES
from tensormask_edu.data.layouts import Files, data_named, find_split, ids_of_part
from tensormask_edu.data.outlines import FAR
from tensormask_edu.data.pictures import read_image
from tensormask_edu.data.stream import TrainingSet
from tensormask_edu.detector.model import build_model
from tensormask_edu.evaluation import coco_scores
from tensormask_edu.ops import build
from tensormask_edu.training import batches, journal
from tensormask_edu.training.train import train
from tensormask_edu.viz import fonts, look
from tensormask_edu.weights.checkpoint import save_checkpoint
from tensormask_edu.weights.official import read_state

HEIGHT, WIDTH = 48, 64
SQUARE = [16, 12, 48, 12, 48, 36, 16, 36]  # x 16..48, y 12..36
BOX, AREA = [16, 12, 32, 24], 32 * 24
EXACT = 1e-9  # sums of a few numbers of float64

Json = dict[str, Any]
Edit = Callable[[Json], Any]


def picture(seed: int = 0) -> np.ndarray:
    """A bright rectangle on dark noise."""
    pixels = np.random.default_rng(seed).integers(0, 90, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    pixels[12:36, 16:48] = 200
    return pixels


def whole(count: int = 3) -> Json:
    """The JSON of `count` pictures p1.png, ..., one whole object in each."""
    numbers = range(1, count + 1)
    size = {"height": HEIGHT, "width": WIDTH}
    of_all = {"category_id": 1, "iscrowd": 0, "area": AREA, "bbox": BOX}
    return {
        "images": [{"id": n, "file_name": f"p{n}.png"} | size for n in numbers],
        "annotations": [
            {"id": 10 * n, "image_id": n, "segmentation": [SQUARE]} | of_all for n in numbers
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }


def write(folder: Path, edit: Edit | None = None, count: int = 3) -> Path:
    """A folder with these pictures; `edit` changes the JSON of both splits."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number in range(1, count + 1):
        Image.fromarray(picture(number)).save(folder / f"images/p{number}.png")
    data = whole(count)
    if edit:
        edit(data)
    for split in ("train", "val"):
        (folder / f"instances_{split}.json").write_text(json.dumps(data))
    return folder


def first(**fields: Any) -> Edit:
    """Change fields of the first annotation."""
    return lambda data: data["annotations"][0].update(fields)


def drop(*names: str) -> Edit:
    """Remove fields of the first annotation."""
    return lambda data: [data["annotations"][0].pop(name) for name in names]


def loaded(folder: Path) -> CocoFolder:
    """The data set, whatever it warns of."""
    with pytest.warns(InputWarning):
        return CocoFolder(folder, "val")


# --- the rule ---------------------------------------------------------------------------------

PAIRS = [[x, y] for x, y in zip(SQUARE[::2], SQUARE[1::2], strict=True)]
SHIFTED = [x + 30 if k % 2 == 0 else x for k, x in enumerate(SQUARE)]  # x 46..78 of 64
RLE = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}
# Of SQUARE and of its left and its right half, pixels down the columns
BLOCK, *HALVES = (
    {
        "size": [HEIGHT, WIDTH],
        "counts": [12 + HEIGHT * x0, *[24] * (2 * (x1 - x0) - 1), 12 + HEIGHT * (WIDTH - x1)],
    }
    for x0, x1 in ((16, 48), (16, 32), (32, 48))
)
NAN, INF = float("nan"), float("inf")

MENDED: dict[str, tuple[str, Edit]] = {  # what came: the rule, the edit
    "ids as text": ("text", first(image_id="1", category_id="1")),
    "iscrowd null": ("crowd", first(iscrowd=None)),
    "iscrowd text": ("crowd", first(iscrowd="0")),
    "iscrowd false as text": ("crowd", first(iscrowd="False")),
    "area null": ("area", first(area=None)),
    "area text": ("area", first(area="768")),
    "area zero": ("area", first(area=0)),
    "area not a number": ("area", first(area=NAN)),
    "area infinite": ("area", first(area=INF)),
    "bbox null": ("no box", first(bbox=None)),
    "bbox empty": ("no box", first(bbox=[])),
    "bbox of three": ("no box", first(bbox=BOX[:3])),
    "bbox not a number": ("no box", first(bbox=[NAN, 0, 1, 1])),
    "bbox text": ("no box", first(bbox=["16", "12", "32", "24"])),
    "bbox zero": ("other box", first(bbox=[0, 0, 0, 0])),
    "bbox with corners": ("other box", first(bbox=[16, 12, 48, 36])),
    "bbox y first": ("other box", first(bbox=[12, 16, 24, 32])),
    "bbox in shares": ("other box", first(bbox=[0.25, 0.25, 0.5, 0.5])),
    "bbox of centre": ("other box", first(bbox=[32, 24, 32, 24])),
    "one list": ("pairs", first(segmentation=SQUARE)),
    "points in pairs": ("pairs", first(segmentation=PAIRS)),
    "polygon of pairs": ("pairs", first(segmentation=[PAIRS])),
    "a click beside": ("parts", first(segmentation=[SQUARE, [3, 3]])),
    "a line beside": ("parts", first(segmentation=[[3, 3, 9, 9], SQUARE])),
    "nothing beside": ("parts", first(segmentation=[SQUARE, []])),
    "run lengths in a list": ("runs in a list", first(segmentation=HALVES)),
    "a mask in a list": ("runs in a list", first(segmentation=[BLOCK])),
}


@pytest.mark.parametrize("rule, edit", MENDED.values(), ids=MENDED)
def test_what_has_a_plain_meaning_is_mended_and_said(rule: str, edit: Edit, tmp_path: Path):
    folder = write(tmp_path, edit)
    with pytest.warns(InputWarning, match=r"1 annotations repaired: .* \(ids 10\)") as said:
        dataset = CocoFolder(folder, "val")
    assert len(said) == 1 and RULES[rule].why in str(said[0].message)
    assert len(dataset) == 3
    mended, other = dataset.truth(0), dataset.truth(1)
    for name in ("boxes", "masks", "labels"):
        assert mended[name].tolist() == other[name].tolist(), name
    annotations = dataset.ground_truth.annotations
    assert annotations[0]["bbox"] == pytest.approx(BOX, abs=EXACT)
    assert annotations[0]["area"] == AREA and annotations[0]["iscrowd"] == 0


@pytest.mark.parametrize("name", ["area", "bbox", "iscrowd", "id"])
def test_fields_that_coco_can_do_without_are_filled_without_a_word(name: str, tmp_path: Path):
    dataset = CocoFolder(write(tmp_path, drop(name)), "val")  # a warning would be an error
    assert dataset.truth(0)["boxes"].tolist() == dataset.truth(1)["boxes"].tolist()
    assert coco_scores.score(coco_scores.load_ground_truth(dataset), [])["AP"] == 0


LEFT_OUT: dict[str, tuple[str, Edit]] = {
    "a picture that was removed": ("no picture", first(image_id=77)),
    "no segmentation": ("no outline", drop("segmentation")),
    "segmentation null": ("no outline", first(segmentation=None)),
    "segmentation of no text": ("no outline", first(segmentation="")),
    "segmentation of nothing": ("no outline", first(segmentation={})),
    "no polygon": ("no outline", first(segmentation=[])),
    "empty polygon": ("no outline", first(segmentation=[[]])),
    "a click": ("no outline", first(segmentation=[[10, 10]])),
    "two clicks": ("no outline", first(segmentation=[[10, 10], [20, 20]])),
    "two points": ("no outline", first(segmentation=[[10, 10, 30, 30]])),
    "beside the picture": ("outside", first(segmentation=[[x + 100 for x in SQUARE]])),
    "above the picture": ("outside", first(segmentation=[[x - 60 for x in SQUARE]])),
    "no pixel in the mask": ("empty", first(segmentation=RLE)),
    "smaller than a pixel": (
        "empty", first(segmentation=[[5.1, 5.1, 5.6, 5.1, 5.6, 5.7, 5.1, 5.7]]),
    ),
    "three points in one": ("empty", first(segmentation=[[5, 5, 5, 5, 5, 5]])),
    "a needle": ("empty", first(segmentation=[[5.6, 5, 5.61, 5, 5.61, 40, 5.6, 40]])),
}  # fmt: skip


@pytest.mark.parametrize("rule, edit", LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_draws_nothing_is_left_out_of_training_and_evaluation_alike(
    rule: str, edit: Edit, tmp_path: Path
):
    folder = write(tmp_path, edit)
    with pytest.warns(InputWarning, match=r"1 annotations left out: .* \(ids 10\)") as said:
        dataset = CocoFolder(folder, "val")
    assert len(said) == 1 and RULES[rule].why in str(said[0].message)
    assert dataset.image_ids == [2, 3]
    with pytest.warns(InputWarning, match="1 annotations left out"):
        truth = coco_scores.load_ground_truth(folder / "instances_val.json")
    assert [each["image_id"] for each in truth.dataset["annotations"]] == [2, 3]
    assert len(coco_scores.load_ground_truth(dataset).dataset["annotations"]) == 2
    found = [
        {"image_id": n, "category_id": 1, "score": 1.0, "segmentation": [SQUARE]}
        for n in (2, 3)
    ]
    assert coco_scores.score(truth, found)["AP"] == pytest.approx(1, abs=EXACT)


def test_an_outline_is_cut_at_the_border_and_that_is_said(tmp_path: Path):
    folder = write(tmp_path, first(segmentation=[SHIFTED], bbox=[46, 12, 32, 24]))
    dataset = loaded(folder)
    lines = dataset.ground_truth.findings.lines()
    assert len(lines) == 2 and "cut at the picture's border" in lines[1]
    assert dataset.truth(0)["boxes"].tolist() == [[46, 12, 64, 36]]
    assert dataset.truth(0)["masks"].sum() == 18 * 24


FAR_PX = FAR * WIDTH + 1.0
REFUSED: dict[str, tuple[Edit, str]] = {
    "a point that is no number": (first(segmentation=[[*SQUARE[:-1], NAN]]), "10: .* got nan"),
    "an infinite point": (first(segmentation=[[INF, *SQUARE[1:]]]), "10: .* got inf"),
    "minus infinity": (first(segmentation=[[-INF, *SQUARE[1:]]]), "10: .* got -inf"),
    "a point far away": (first(segmentation=[[3.5e8, *SQUARE[1:]]]), "within 640 px"),
    "a point beyond float32": (first(segmentation=[[1e300, *SQUARE[1:]]]), "within 640 px"),
    "a point just too far": (first(segmentation=[[-FAR_PX, *SQUARE[1:]]]), "within 640 px"),
    "an integer without end": (first(segmentation=[[10**30, *SQUARE[1:]]]), "10: expected"),
    "a point of a short part": (first(segmentation=[SQUARE, [NAN, 1]]), "10: .* got nan"),
    "null among points": (first(segmentation=[[None, *SQUARE[1:]]]), "10: expected RLE or pol"),
    "text among points": (first(segmentation=[["1", *SQUARE[1:]]]), "10: expected RLE or pol"),
    "true among points": (first(segmentation=[[True] * 8]), "10: expected RLE or polygons"),
    "an odd number": (first(segmentation=[SQUARE[:-1]]), "10: expected RLE or polygons"),
    "segmentation a number": (first(segmentation=5), "10: expected RLE or polygons"),
    "segmentation as text": (
        first(segmentation=f"[{SQUARE}]"), "10: expected RLE or polygons .* got '",
    ),
    "run lengths among polygons": (first(segmentation=[SQUARE, BLOCK]), "10: expected RLE or"),
    "a list of run lengths of other pictures": (
        first(segmentation=[BLOCK, RLE | {"size": [WIDTH, HEIGHT]}]), "10: expected RLE size",
    ),
    "a category twice": (
        lambda d: d["categories"].append({"id": 1, "name": "b"}), "category ids, got 1 twice",
    ),
    "no categories": (lambda d: d.pop("categories"), "got .*json without categories"),
    "run lengths with a fraction": (
        first(segmentation=RLE | {"counts": [0.5, HEIGHT * WIDTH - 0.5]}), "10: expected RLE c",
    ),
    "run lengths null": (first(segmentation=RLE | {"counts": None}), "10: expected RLE counts"),
    "shares of the picture": (
        lambda d: [
            a.update(segmentation=[[0.25, 0.25, 0.75, 0.25, 0.75, 0.75]])
            for a in d["annotations"]
        ],
        "polygons in pixels, got none above 1.5.*multiply x by the width",
    ),
    "iscrowd 2": (first(iscrowd=2), "10 with iscrowd 0 or 1, got 2"),
    "iscrowd a word": (first(iscrowd="perhaps"), "10 with iscrowd 0 or 1, got 'perhaps'"),
    "iscrowd a list": (first(iscrowd=[]), "10 with iscrowd 0 or 1"),
    "image_id null": (first(image_id=None), "10: expected a field 'image_id'"),
    "image_id a word": (first(image_id="p1"), "10: expected a field 'image_id'"),
    "no category_id": (drop("category_id"), "10: expected a field 'category_id'"),
    "annotation without id": (
        lambda d: d["annotations"][1].update(id=None, category_id=77),
        "number 2 .*unknown category",
    ),
    "pictures of another data set": (
        lambda d: [each.update(image_id=77) for each in d["annotations"]],
        "of images in the list, got none of 3, but unknown image 77; are images and annot",
    ),
    "annotation null": (lambda d: d["annotations"].append(None), "annotation number 4"),
    "height null": (lambda d: d["images"][0].update(height=None), "image 1: .*'height'"),
    "width a word": (lambda d: d["images"][0].update(width="wide"), "image 1: .*'width'"),
    "name of a file empty": (lambda d: d["images"][0].update(file_name=""), "'file_name'"),
    "category of blanks": (
        lambda d: d["categories"][0].update(name="  "), "category 1: expected a field 'name'",
    ),
    "category without a name": (
        lambda d: d["categories"][0].update(name=None), "category 1: expected a field 'name'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("edit, message", REFUSED.values(), ids=REFUSED)
@pytest.mark.filterwarnings("ignore::tensormask_edu.base.errors.InputWarning")
def test_what_no_rule_mends_is_refused_at_load_by_its_id(
    edit: Edit, message: str, tmp_path: Path
):
    folder = write(tmp_path, edit)
    with pytest.raises(InputError, match=message):
        CocoFolder(folder, "train")
    with pytest.raises(InputError, match=message):
        coco_scores.load_ground_truth(folder / "instances_val.json")


def test_polygons_of_single_pixels_are_no_shares(tmp_path: Path):
    def edit(data: Json) -> None:
        for image, annotation in zip(data["images"], data["annotations"], strict=True):
            image.update(height=1, width=1)
            annotation.update(
                segmentation=[[0, 0, 1, 0, 1, 1, 0, 1]], bbox=[0, 0, 1, 1], area=1
            )

    folder = write(tmp_path, edit)
    for path in (folder / "images").iterdir():
        Image.new("RGB", (1, 1)).save(path)
    assert CocoFolder(folder, "val").truth(0)["masks"].tolist() == [[[True]]]


def test_sizes_and_names_as_other_types_are_mended(tmp_path: Path):
    def edit(data: Json) -> None:
        data["images"][0].update(id="1", height=str(HEIGHT), width=float(WIDTH))
        data["categories"][0].update(id="1", name=7)

    dataset = loaded(write(tmp_path, edit))
    assert dataset.class_names == ("7",) and dataset.category_ids == [1]
    assert dataset.size(0) == (HEIGHT, WIDTH) and dataset.image_ids == [1, 2, 3]


def test_crowds_alone_teach_nothing_and_count_nothing(tmp_path: Path):
    def edit(data: Json) -> None:
        for annotation in data["annotations"]:
            annotation["iscrowd"] = 1

    with pytest.warns(InputWarning, match="3 annotations left out: iscrowd is 1, of more"):
        dataset = CocoFolder(write(tmp_path, edit), "train")
    with pytest.raises(InputError, match="at least one picture .* got none; 3 .* iscrowd is 1"):
        TrainingSet(dataset, InputConfig(), AugmentConfig(), seed=0)
    assert coco_scores.score(coco_scores.load_ground_truth(dataset), [])["AP"] == -1


def test_a_warning_names_the_first_ids_and_how_many(tmp_path: Path):
    def edit(data: Json) -> None:
        for annotation in data["annotations"]:
            annotation["area"] = None

    with pytest.warns(InputWarning, match=r"7 ann.*\(ids 10, 20, 30, 40, 50, ...\)"):
        CocoFolder(write(tmp_path, edit, count=7), "train")


def test_annotations_of_one_id_are_counted_each(tmp_path: Path):
    def edit(data: Json) -> None:
        for annotation in data["annotations"]:
            annotation.update(id=0, area=None, image_id=str(annotation["image_id"]))

    lines = loaded(write(tmp_path, edit)).ground_truth.findings.lines()
    assert [line.split(":")[0] for line in lines] == ["3 annotations repaired"] * 2


def test_a_name_neither_breaks_the_line_of_an_error_nor_commands_a_terminal(
    tmp_path: Path, capsys: Any
):
    name = "p\n1\x1b[2J.png"
    folder = write(tmp_path, lambda d: d["images"][0].update(file_name=name))
    run = tmp_path / "run"
    assert command("train", folder, "--output", run) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: image file: expected p\\n1\\x1b[2J.png (named in ")
    assert said.count("\n") == 1 and not run.exists()
    assert command("inspect", folder, "--pictures", 0, "--split", "val") == 2
    assert "\x1b" not in (said := capsys.readouterr().err) and said.count("\n") == 2


def test_predict_lists_names_that_command_no_terminal(tmp_path: Path, capsys: Any):
    (tmp_path / "photos").mkdir()
    Image.fromarray(picture()).save(tmp_path / "photos" / "a\n\x1b[31mb.png")
    output = tmp_path / "seen"
    assert command("predict", "shapes", tmp_path / "photos", "--output", output) == 0
    assert capsys.readouterr().out == f"{output}/a\\n\\x1b[31mb.png\n"
    assert (output / "a\n\x1b[31mb.png").is_file()


def test_every_rule_has_a_case():
    tried = {rule for rule, _ in (MENDED | LEFT_OUT).values()}
    others = {"beyond", "is crowd", "renamed", "text of a picture", "text of a category"}
    assert tried | others | set(DOUBTFUL) | {"signs", "root"} == set(RULES)


def doubled(data: Json) -> None:
    data["annotations"].append(data["annotations"][0] | {"id": 70})


DOUBTFUL: dict[str, tuple[Edit, str]] = {  # rule: what it meets, what is said
    "same object": (doubled, "1 annotations kept: .* twice.* [(]ids 70[)]"),
    "same file": (
        lambda d: d["images"][1].update(file_name="p1.png"), "1 pictures kept: .*[(]ids 2[)]",
    ),
    "same name": (
        lambda d: d["categories"].insert(0, {"id": 0, "name": "thing"}),
        "1 categories kept: .* each is a class [(]ids 1[)]",
    ),
    "many crowds": (first(iscrowd=1), "1 annotations left out: iscrowd is 1, .*[(]ids 10[)]"),
}  # fmt: skip


@pytest.mark.parametrize("edit, said", DOUBTFUL.values(), ids=DOUBTFUL)
def test_what_may_be_a_mistake_is_said(edit: Edit, said: str, tmp_path: Path):
    folder = write(tmp_path, edit)
    with pytest.warns(InputWarning, match=said) as warned:
        dataset = CocoFolder(folder, "val", keep_empty=True)
    assert len(warned) == 1 and len(dataset) == 3


def test_few_crowds_among_many_objects_are_usual(tmp_path: Path):
    CocoFolder(write(tmp_path, first(iscrowd=1), count=10), "val")  # a warning is an error


def test_a_category_cannot_command_a_terminal(tmp_path: Path, capsys: Any):
    folder = write(tmp_path, lambda d: d["categories"][0].update(name="a\nb\x1b[2Jc"))
    with pytest.warns(InputWarning, match="1 categories repaired: a name has signs"):
        assert CocoFolder(folder, "val").class_names == ("a b [2Jc",)
    assert command("inspect", folder, "--pictures", 0) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_categories_of_one_name_are_counted_apart(tmp_path: Path, capsys: Any):
    def edit(data: Json) -> None:  # as tools write that name the project and its class alike
        data["categories"].append({"id": 0, "name": "thing", "supercategory": "none"})

    assert command("inspect", write(tmp_path, edit), "--pictures", 0, "--split", "val") == 0
    assert "thing (category 0) 0, thing (category 1) 3" in capsys.readouterr().out


def rooted(data: Json, **root: Any) -> None:
    """Categories as Roboflow writes them: the project's, of which no object is, above all."""
    data["categories"][0]["supercategory"] = "project"
    above = {"id": 0, "name": "project", "supercategory": "none"}
    data["categories"].insert(0, above | root)


def test_a_category_that_only_stands_above_the_others_is_no_class(tmp_path: Path):
    folder = write(tmp_path, rooted)
    with pytest.warns(InputWarning, match=r"1 categories left out: no split .*0\)$") as said:
        dataset = CocoFolder(folder, "val")
    assert len(said) == 1
    assert dataset.class_names == ("thing",) and dataset.category_ids == [1]
    assert dataset.truth(0)["labels"].tolist() == [0]
    # Detections of other programs may be of it: a file of the truth keeps it
    assert 0 in coco_scores.load_ground_truth(folder / "instances_val.json").cats


def test_a_project_may_be_named_like_its_class(tmp_path: Path):
    folder = write(tmp_path, lambda d: rooted(d, name="thing"))
    truth = json.loads((folder / "instances_val.json").read_text())
    truth["categories"][1]["supercategory"] = "thing"
    (folder / "instances_val.json").write_text(json.dumps(truth))
    with pytest.warns(InputWarning, match="1 categories left out") as said:
        assert CocoFolder(folder, "val").class_names == ("thing",)
    assert len(said) == 1  # one class has the name


def used_in_train(folder: Path) -> None:
    path = folder / "instances_train.json"
    data = json.loads(path.read_text())
    data["annotations"][0]["category_id"] = 0
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    "edit, then",
    [
        pytest.param(rooted, used_in_train, id="an object in another split"),
        pytest.param(partial(rooted, supercategory="project"), None, id="as COCO's person"),
        pytest.param(partial(rooted, name="a class"), None, id="no supercategory's name"),
        pytest.param(
            lambda d: (
                rooted(d), d["categories"].append({"id": 2, "name": "b", "supercategory": "a"}),
            ),
            None,
            id="not above all",
        ),
        pytest.param(lambda d: d["categories"].append({"id": 2, "name": "b"}), None, id="none"),
    ],
)  # fmt: skip
def test_a_category_without_an_object_in_a_split_stays_a_class(
    edit: Edit, then: Callable[[Path], None] | None, tmp_path: Path
):
    folder = write(tmp_path, edit)
    count = len(json.loads((folder / "instances_val.json").read_text())["categories"])
    if then:
        then(folder)
    for split in ("train", "val"):
        assert len(CocoFolder(folder, split).class_names) == count  # a warning is an error


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_json_of_other_encodings_is_read(encoding: str, tmp_path: Path):
    folder = write(tmp_path)
    (folder / "instances_val.json").write_bytes(json.dumps(whole()).encode(encoding))
    assert len(CocoFolder(folder, "val")) == 3


def test_json_that_is_nested_too_deep_is_refused(tmp_path: Path):
    folder = write(tmp_path)
    (folder / "instances_val.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="ground truth: expected valid JSON"):
        CocoFolder(folder, "val")


@pytest.mark.parametrize(
    "field, shape",
    [
        ("segmentation", []),
        ("segmentation", [[]]),
        ("segmentation", [[1, 2, 3, 4]]),
        ("segmentation", [1, 2, 3, 4]),
        ("segmentation", None),
        ("segmentation", [[NAN, *SQUARE[1:]]]),
        ("segmentation", [[1e300, *SQUARE[1:]]]),
        ("bbox", [NAN, 0, 1, 1]),
        ("bbox", [0, 0, INF, 1]),
        ("bbox", [0, 0, -5, 1]),
        ("bbox", []),
        ("bbox", None),
    ],
)
def test_detections_that_are_no_mask_or_box_are_refused(field: Any, shape: Any, tmp_path: Path):
    truth = write(tmp_path) / "instances_val.json"
    found = [{"image_id": 1, "category_id": 1, "score": 0.5, field: shape}]
    iou = "segm" if field == "segmentation" else "bbox"
    with pytest.raises(InputError, match="detection 0: expected"):
        coco_scores.score(truth, found, iou)


# --- names of files ---------------------------------------------------------------------------

NAMES = {  # as the JSON has it: as the disk has it
    "composed": ("B\u00e4r.png", "Ba\u0308r.png"),
    "decomposed": ("Ba\u0308r.png", "B\u00e4r.png"),
    "upper case": ("P1.PNG", "p1.png"),
    "Windows' slashes": ("deep\\p1.png", "deep/p1.png"),
    "a folder of another machine": ("C:\\photos\\cells\\p1.png", "p1.png"),
    "an absolute path": ("/data/photos/p1.png", "p1.png"),
    "upwards": ("../../media/upload/p1.png", "p1.png"),
    "percent signs": ("a%20b%C3%A4.png", "a b\u00e4.png"),
    "another folder": ("upload/1/p1.png", "p1.png"),
    "a signed address": ("https://host/set/p1.png?sign=a%2Fb/c&at=1", "p1.png"),
}


@pytest.mark.parametrize("written, stored", NAMES.values(), ids=NAMES)
def test_a_file_is_found_by_other_forms_of_its_name(written: str, stored: str, tmp_path: Path):
    folder = write(tmp_path, lambda data: data["images"][0].update(file_name=written))
    target = folder / "images" / stored
    target.parent.mkdir(exist_ok=True)
    (folder / "images" / "p1.png").rename(target)
    with pytest.warns(InputWarning, match=r"1 pictures repaired: .* form of its name \(ids 1"):
        dataset = CocoFolder(folder, "val")
    assert dataset.path(0).samefile(target)
    assert dataset.image(0).shape == (3, HEIGHT, WIDTH)


def test_a_name_that_two_files_have_is_refused(tmp_path: Path):
    folder = write(tmp_path, lambda data: data["images"][0].update(file_name="old/p.png"))
    for place in ("a", "b"):
        (folder / "images" / place).mkdir()
        Image.fromarray(picture()).save(folder / "images" / place / "p.png")
    with pytest.raises(InputError, match="image file: .*several that it may be"):
        CocoFolder(folder, "val")


def test_one_file_is_not_two_pictures(tmp_path: Path):
    def edit(data: Json) -> None:
        data["images"][0]["file_name"] = "left/q.png"
        data["images"][1]["file_name"] = "right/q.png"

    folder = write(tmp_path, edit)
    (folder / "images" / "p1.png").rename(folder / "images" / "q.png")
    with pytest.raises(InputError, match="image file: expected right/q.png"):
        CocoFolder(folder, "val")


def test_no_name_leads_out_of_the_folder(tmp_path: Path):
    Image.fromarray(picture()).save(tmp_path / "secret.png")
    for name in ("../secret.png", str(tmp_path / "secret.png"), "x/../../secret.png"):

        def edit(data: Json, name: str = name) -> None:
            data["images"][0]["file_name"] = name

        folder = write(tmp_path / "data", edit)
        with pytest.raises(InputError, match="image file: .* no such file"):
            CocoFolder(folder, "val")


@pytest.mark.parametrize("kind", ["folder", "dead link"])
def test_what_is_no_file_is_missed_at_load(kind: str, tmp_path: Path):
    folder = write(tmp_path)
    place = folder / "images" / "p1.png"
    place.unlink()
    place.mkdir() if kind == "folder" else place.symlink_to("/nowhere")
    with pytest.raises(InputError, match="image file: expected p1.png"):
        CocoFolder(folder, "val")


# --- picture files ----------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def nothing_told_yet() -> None:
    """What is said once in a process is said anew in each test."""
    errors.SAID.clear()


TALL = (HEIGHT, WIDTH)[::-1]


def turned(orientation: int, suffix: str, folder: Path, side: int | None = None) -> Path:
    """An asymmetric picture whose file asks viewers to turn it."""
    pixels = picture()[:side, :side]
    pixels[:9, :5] = 255
    path = folder / f"turned{orientation}{suffix}"
    if suffix == ".tif":
        tags = {274: orientation}
        Image.fromarray(pixels).save(path, tiffinfo=tags)
    else:
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(pixels).save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_the_annotated_size_decides_about_the_orientation(
    orientation: int, suffix: str, tmp_path: Path
):
    path = turned(orientation, suffix, tmp_path)
    stored = np.asarray(picture())
    stored[:9, :5] = 255
    with Image.open(path) as opened:
        upright = np.asarray(ImageOps.exif_transpose(opened))
    np.testing.assert_array_equal(read_image(path), upright.transpose(2, 0, 1))
    if orientation < 5:  # the sizes are the same
        with pytest.warns(InputWarning, match=f"EXIF orientation {orientation}; its size does"):
            read = read_image(path, (HEIGHT, WIDTH))
        np.testing.assert_array_equal(read, upright.transpose(2, 0, 1))
        return
    np.testing.assert_array_equal(read_image(path, TALL), upright.transpose(2, 0, 1))
    with pytest.warns(InputWarning, match="annotated as stored"):
        read = read_image(path, (HEIGHT, WIDTH))
    np.testing.assert_array_equal(read, stored.transpose(2, 0, 1))


def test_a_square_photo_that_is_turned_is_said(tmp_path: Path):
    path = turned(6, ".png", tmp_path, side=HEIGHT)
    with pytest.warns(InputWarning, match="EXIF orientation 6") as said:
        read_image(path, (HEIGHT, HEIGHT))
        read_image(path, (HEIGHT, HEIGHT))
    assert len(said) == 1  # however many pictures of the kind there are


def png16(path: Path, values: np.ndarray) -> Path:
    """A PNG of 16 bits per colour, (H, W, colours), which Pillow does not write."""
    height, width, colours = values.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[colours]
    # every row is preceded by its filter: 1, the difference to the pixel before
    raw = values.astype(">u2").view(np.uint8).reshape(height, width, 2 * colours)
    left = np.pad(raw, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    rows = b"".join(b"\1" + row.tobytes() for row in raw - left)

    def chunk(name: bytes, body: bytes) -> bytes:
        crc = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    end = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + end)
    return path


def tiff16(path: Path, values: np.ndarray, order: str, packed: bool) -> Path:
    """A TIFF of 16 bits per colour, (H, W, colours), in either byte order."""
    height, width, colours = values.shape
    data = values.astype(f"{order}u2").tobytes()
    data = zlib.compress(data) if packed else data
    tags = [
        (256, 3, 1, width), (257, 3, 1, height), (259, 3, 1, 8 if packed else 1),
        (262, 3, 1, 2), (273, 4, 1, 8),
        (277, 3, 1, colours), (278, 3, 1, height), (279, 4, 1, len(data)),
    ]  # fmt: skip
    bits_at = 8 + len(data)
    tags.insert(2, (258, 3, colours, bits_at))
    if colours == 4:
        tags.append((338, 3, 1, 0))
    body = b"MM\0*" if order == ">" else b"II*\0"
    ifd_at = bits_at + 2 * colours
    body += struct.pack(f"{order}I", ifd_at) + data
    body += struct.pack(f"{order}{colours}H", *[16] * colours)
    body += struct.pack(f"{order}H", len(tags))
    for tag, kind, count, value in tags:
        pads = f"{order}HHIHxx" if kind == 3 and count == 1 else f"{order}HHII"
        body += struct.pack(pads, tag, kind, count, value)
    path.write_bytes(body + bytes(4))
    return path


def sixteen(colours: int) -> np.ndarray:
    """A 12-bit camera's picture: 300 and, within a rectangle, up to 900, of 65535."""
    values = np.full((HEIGHT, WIDTH, colours), 300)
    values[12:36, 16:48] = np.arange(599, 901, 2)[:24, None, None] + np.arange(colours) * 100
    values[0, 0], values[20, 20] = 300, 900
    return values


@pytest.mark.parametrize(
    "kind, colours",
    [("png", n) for n in (1, 2, 3, 4)]
    + [(kind, n) for kind in ("tif", "tif backwards", "tif packed") for n in (3, 4)],
)
@pytest.mark.filterwarnings("ignore::tensormask_edu.base.errors.InputWarning")
def test_all_sixteen_bits_are_used(kind: str, colours: int, tmp_path: Path):
    values = sixteen(colours)
    if kind == "png":
        path = png16(tmp_path / "a.png", values)
    else:
        order = ">" if "backwards" in kind else "<"
        path = tiff16(tmp_path / "a.tif", values, order, packed="packed" in kind)
    shown = values[..., :3] if colours > 2 else np.repeat(values[..., :1], 3, axis=2)
    expected = np.round((shown - 300) * (255 / (shown.max() - 300)))
    # float32 rounds a value halfway between two to either
    assert np.abs(read_image(path).transpose(1, 2, 0) - expected).max() <= 1
    assert int(read_image(path).min()) == 0 and int(read_image(path).max()) == 255


def test_the_range_of_deep_colours_is_said_once(tmp_path: Path):
    path = png16(tmp_path / "a.png", sixteen(3))
    with pytest.warns(InputWarning, match="a.png has more than 8 bits, 300 to 900") as said:
        read_image(path)
        read_image(path)
    assert len(said) == 1


def float_tiff(path: Path, *odd: float, **tags: Any) -> tuple[Path, np.ndarray]:
    """A float TIFF from 0 to 200 whose first pixels are `odd`; and the same without them."""
    values = picture().mean(2).astype(np.float32)
    clean = path.with_name("clean.tif")
    values[0, : len(odd)] = 0
    Image.fromarray(values).save(clean)
    values[0, : len(odd)] = odd
    Image.fromarray(values).save(path, **tags)
    return path, read_image(clean)


@pytest.mark.parametrize(
    "odd, shown",
    [
        ((NAN,), [0]),
        ((INF, -INF), [255, 0]),
        ((NAN, NAN, INF), [0, 0, 255]),
        ((1e30,), [255]),
        ((-3.4e38, 3.4e38), [0, 255]),
        ((65535, 65535), [255, 255]),
    ],
    ids=["nan", "infinite", "both", "hot", "no data", "hot pixels"],
)
def test_values_that_are_none_do_not_eat_the_others(
    odd: tuple[float, ...], shown: list[int], tmp_path: Path
):
    with pytest.warns(InputWarning, match="no number are black|outliers are cut"):
        path, clean = float_tiff(tmp_path / "a.tif", *odd)
        image = read_image(path)
    assert image[0, 0, : len(odd)].tolist() == shown
    # without the outermost thousandth on both sides
    assert np.abs(image[:, 1:].astype(int) - clean[:, 1:]).max() <= 8


def test_no_data_of_geographers_is_none(tmp_path: Path):
    values = picture().mean(2).astype(np.float32)
    values[:20] = -9999  # much of the picture
    Image.fromarray(values).save(tmp_path / "a.tif", tiffinfo={42113: "-9999"})
    with pytest.warns(InputWarning, match="1280 values that are no number are black"):
        image = read_image(tmp_path / "a.tif")
    assert (image[:, :20] == 0).all() and image.max() == 255 and image[0, 30].std() > 50


def test_a_picture_without_a_number_is_refused(tmp_path: Path):
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match="image: expected a picture with values"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_may_be_zero(dtype: Any, tmp_path: Path):
    values = np.arange(24, dtype=dtype).reshape(4, 6) * 10
    Image.fromarray(values).save(tmp_path / "black.tif", tiffinfo={262: 1})
    black = tmp_path / "black.tif"
    # the same file, but for the tag: 262, short, once, its value
    for word in (b"\x06\x01\x03\x00\x01\x00\x00\x00", b"\x06\x01\x04\x00\x01\x00\x00\x00"):
        content = black.read_bytes()
        white = content.replace(word + b"\1", word + b"\0")
        if white != content:
            (tmp_path / "white.tif").write_bytes(white)
    inverted = read_image(tmp_path / "white.tif")
    assert inverted[0, 0, 0] == 255 and (np.diff(inverted[0, 0].astype(int)) < 0).all()
    np.testing.assert_array_equal(inverted, 255 - read_image(black))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp", "a.webp"])
def test_a_cut_file_is_one_clear_error(name: str, tmp_path: Path):
    Image.fromarray(picture()).save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    for share in (0, 0.01, 0.3, 0.9):
        (tmp_path / name).write_bytes(content[: int(share * len(content))])
        with pytest.raises(InputError, match=f"image: expected a picture .*{name}"):
            read_image(tmp_path / name)


def test_the_next_picture_stands_in_for_a_bad_one(tmp_path: Path):
    folder = write(tmp_path)
    place = folder / "images" / "p2.png"
    place.write_bytes(place.read_bytes()[:300])
    words = (CocoFolder(folder, "train"), InputConfig(), AugmentConfig(), 0)
    stream = TrainingSet(*words, skip_bad=True)
    position = next(p for p in range(3) if stream.index(p) == 1)
    with pytest.warns(InputWarning, match="skipped: image: .*p2.png"):
        assert stream[position][1]["image_id"] == 3
    with pytest.raises(InputError, match="p2.png"):
        TrainingSet(*words)[position]
    for file in (folder / "images").iterdir():
        file.write_bytes(b"")
    with (
        pytest.warns(InputWarning, match="skipped"),
        pytest.raises(InputError, match="dataset: expected a picture that can be read, got no"),
    ):
        stream[position]


# --- layouts of tools -------------------------------------------------------------------------

WHOLE_FILE = {  # tool: its one JSON, the folder of the pictures, their names in the JSON
    "CVAT": ("annotations/instances_default.json", "images", "{}"),
    "CVAT, subset": ("annotations/instances_default.json", "images/default", "{}"),
    "Label Studio": ("result.json", "images", "images/{}"),
    "Label Studio on Windows": ("result.json", "images", "images\\{}"),
    "FiftyOne": ("labels.json", "data", "{}"),
    "Roboflow, one split": ("_annotations.coco.json", ".", "{}"),
    "labelme2coco": ("dataset.json", ".", "{}"),
    "labelme's example": ("annotations.json", "JPEGImages", "JPEGImages/{}"),
    "another name": ("annotations/cells_2024.json", "images", "{}"),
}
BY_SPLIT = {  # tool: the JSON and the pictures of the held-out split
    "CVAT": ("annotations/instances_val.json", "images/val"),
    "CVAT, in capitals": ("annotations/instances_Validation.json", "images/Validation"),
    "Roboflow": ("valid/_annotations.coco.json", "valid"),
    "FiftyOne": ("validation/labels.json", "validation/data"),
    "labelme2coco": ("val.json", "."),
    "others": ("annotations/val.json", "val"),
}


def lay_out(folder: Path, path: str, images: str, name: str = "{}", count: int = 5) -> Path:
    """Pictures and their JSON in these places."""
    (folder / images).mkdir(parents=True, exist_ok=True)
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    data = whole(count)
    for number, image in enumerate(data["images"], start=1):
        Image.fromarray(picture(number)).save(folder / images / image["file_name"])
        image["file_name"] = name.format(image["file_name"])
    (folder / path).write_text(json.dumps(data))
    return folder


@pytest.mark.parametrize("path, images, name", WHOLE_FILE.values(), ids=WHOLE_FILE)
@pytest.mark.filterwarnings("ignore:.*another form of its name")
def test_of_one_file_a_fifth_is_held_out(path: str, images: str, name: str, tmp_path: Path):
    lay_out(tmp_path, path, images, name)
    (tmp_path / "p1.json").write_text('{"shapes": [], "imagePath": "p1.png"}')  # labelme's
    with pytest.warns(InputWarning, match="holds all pictures: 4 of them are train"):
        train = CocoFolder(tmp_path, "train")
    with pytest.warns(InputWarning, match="holds all pictures: 1 of them are val"):
        held_out = CocoFolder(tmp_path, "val")
    everything = CocoFolder(tmp_path, "all")
    assert sorted(train.image_ids + held_out.image_ids) == everything.image_ids
    assert everything.image(0).shape == (3, HEIGHT, WIDTH)
    files = Files(tmp_path / path, tmp_path / images)
    with pytest.warns(InputWarning, match="holds all pictures"):
        assert CocoFolder(files, "val").image_ids == held_out.image_ids


@pytest.mark.parametrize("path, images", BY_SPLIT.values(), ids=BY_SPLIT)
def test_a_file_for_each_split_is_found(path: str, images: str, tmp_path: Path):
    lay_out(tmp_path, path, images)
    assert len(CocoFolder(tmp_path, "val")) == 5
    with pytest.raises(InputError, match="instances_train.json .*--annotations FILE --images"):
        CocoFolder(tmp_path, "train")  # the held-out pictures are not trained on


def test_of_two_exports_in_one_folder_one_is_read_whatever_came_first(tmp_path: Path):
    files = ["annotations/instances_default.json", "result.json", "labels.json"]
    files += ["_annotations.coco.json", "some.json", "annotations/some.json"]
    for images in ("images", "data"):
        for path in reversed(files):
            lay_out(tmp_path, path, images)
    for path in files:
        assert find_split(tmp_path, "val").annotations == tmp_path / path
        (tmp_path / path).unlink()


def test_of_several_files_that_may_be_meant_two_are_named(tmp_path: Path):
    for name in ("a.json", "b.json"):
        lay_out(tmp_path, name, "images")
    with pytest.raises(InputError, match="which of a.json, b.json[?] Say --annotations FILE"):
        find_split(tmp_path, "train")


def test_what_is_held_out_stays_so_when_pictures_are_added():
    few, many = (whole(n)["images"] for n in (50, 60))
    before, after = (set(ids_of_part(images, "val")) for images in (few, many))
    assert (len(before), len(after)) == (10, 12)
    assert len(after - before - set(range(51, 61))) <= 2  # the share has grown by two


def test_a_data_set_is_named_in_one_way(tmp_path: Path):
    for words in (("a", "b", None), (None, "a", None), (None, None, "b"), ("a", "b", "c")):
        got = [word for word in words if word]
        with pytest.raises(InputError, match="data: expected FOLDER, or --annot") as told:
            data_named(*words)
        assert str(told.value).endswith(f"got {got}")
    folder = lay_out(tmp_path, "x.json", "y")
    with pytest.raises(InputError, match="split: expected train, val, all of one file"):
        CocoFolder(Files(folder / "x.json", folder / "y"), "test")
    with pytest.raises(InputError, match="annotations: expected an existing COCO file"):
        CocoFolder(Files(folder / "z.json", folder / "y"), "val")
    with pytest.raises(InputError, match="images: expected an existing folder"):
        CocoFolder(Files(folder / "x.json", folder / "z"), "val")
    lay_out(tmp_path / "one", "x.json", "images", count=1)
    with pytest.raises(InputError, match="two pictures at least"):
        CocoFolder(tmp_path / "one", "train")


def test_a_link_that_leads_to_itself_is_left_out(tmp_path: Path):
    photos, output = write(tmp_path / "data", count=1) / "images", tmp_path / "seen"
    (photos / "loop.png").symlink_to("loop.png")
    none = {"boxes": np.zeros((0, 4)), "scores": np.zeros(0), "labels": np.zeros(0, int)}
    none["masks"] = np.zeros((0, HEIGHT, WIDTH), bool)
    files = image_files(photos, output)
    done = write_predictions(files, lambda image: none, {1: "thing"}, output)
    assert [path.name for path in done.pictures] == ["p1.png"]
    assert len(done.failed) == 1 and "loop.png" in done.failed[0]


# --- inspect ----------------------------------------------------------------------------------


def command(*words: Any) -> int:
    return main([str(word) for word in words])


def test_inspect_shows_a_data_set_as_a_model_will_see_it(tmp_path: Path, capsys: Any):
    def edit(data: Json) -> None:
        data["annotations"][0]["bbox"] = [0, 0, 0, 0]
        data["annotations"][1]["segmentation"] = [[5, 5]]

    folder, page, file = write(tmp_path / "data", edit), tmp_path / "seen", tmp_path / "s.json"
    words = ("inspect", folder, "--recipe", "cells", "--output", page, "--json", file)
    assert command(*words) == 0
    shown = capsys.readouterr().out
    sizes = "3, 48 px high, 64 px wide; 1 without objects"
    for line in (sizes, "thing 2", "1 annotations repaired"):
        assert line in shown
    assert "32 / 32 / 32 px at 5" in shown and "64 / 64 / 64 px; its windows have 20" in shown
    assert "(ids 20)" in shown  # the click is left out
    train, held_out = json.loads(file.read_text())
    assert train["pictures"]["number"] == 3 and train["objects"] == {"thing": 2}
    assert len(train["said"]) == 2
    shared = "3 of its pictures are in train too: scores on both say nothing of new ones"
    assert len(held_out["said"]) == 3 and held_out["said"][-1] == shared
    for split in ("train", "val"):
        with Image.open(page / f"{split}.png") as drawn:
            assert min(drawn.size) > 100


def test_inspect_tells_categories_of_one_name_apart(tmp_path: Path, capsys: Any):
    def edit(data: Json) -> None:
        data["categories"] += [{"id": 5, "name": "thing"}, {"id": 7, "name": "other"}]
        data["annotations"][2]["category_id"] = 5

    folder, file = write(tmp_path / "data", edit), tmp_path / "s.json"
    assert command("inspect", folder, "--pictures", 0, "--json", file) == 0
    objects = {"thing (category 1)": 2, "thing (category 5)": 1, "other": 0}
    assert json.loads(file.read_text())[0]["objects"] == objects
    assert "3, at most 1 in a picture" in capsys.readouterr().out


def test_inspect_says_what_is_refused_and_what_cannot_be_read(tmp_path: Path, capsys: Any):
    folder = write(tmp_path / "data")
    bad = json.loads((folder / "instances_val.json").read_text())
    bad["annotations"][1]["category_id"] = 9
    (folder / "instances_val.json").write_text(json.dumps(bad))
    (folder / "images/p2.png").write_bytes(b"")
    words = ("inspect", folder, "--output", tmp_path / "seen")
    assert command(*words, "--pictures", 0) == 2
    shown = capsys.readouterr()
    assert "unreadable" in shown.out and "p2.png" in shown.out
    assert "val: refused" in shown.err and "annotation 20" in shown.err
    assert command(*words, "--split", "train") == 1
    assert (tmp_path / "seen" / "train.png").is_file()  # the others
    assert not (tmp_path / "seen" / "val.png").exists()
    capsys.readouterr()
    of_other = (folder / "instances_train.json", "val")
    for report, split in ((tmp_path / "seen" / "train.png", "train"), of_other):
        assert command(*words, "--split", split, "--json", report) == 2
        assert "would replace" in capsys.readouterr().err
    assert command(*words, "--json", tmp_path) == 2
    assert capsys.readouterr().out == ""  # before the pictures are read
    with pytest.raises(InputError, match="would replace"):
        drawn_here = ["inspect", folder, "--output", folder / "images"]
        inspect.run(build_parser().parse_args([str(word) for word in drawn_here]))
    assert command("inspect", tmp_path / "nowhere") == 2
    assert command("inspect") == 2


# --- machines ---------------------------------------------------------------------------------


def started(*words: Any, **environment: str | None) -> subprocess.CompletedProcess[bytes]:
    """The command line in a process of its own; None removes a variable."""
    changed = {name: value for name, value in environment.items() if value is not None}
    kept = {name: value for name, value in os.environ.items() if name not in environment}
    command = [sys.executable, "-m", "tensormask_edu", *map(str, words)]
    return subprocess.run(command, capture_output=True, env=kept | changed, cwd=ROOT)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    Image.fromarray(picture()).save(folder / "\u7d30\u80de $5_and_$6.png")
    Image.fromarray(picture()).save(folder / os.fsdecode(b"B\xe4r.png"))  # Latin-1, not UTF-8
    return folder


STRANGE = {
    "all at once": {"PYTHONIOENCODING": "latin-1", "MPLBACKEND": "bogus", "HOME": "/none"},
    "ascii": {"PYTHONIOENCODING": "ascii", "MPLBACKEND": "module://none.such"},
    "no home": {"HOME": None, "USER": None, "MPLCONFIGDIR": None, "XDG_CACHE_HOME": None},
}


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param(each, marks=[pytest.mark.long] * (name != "all at once"), id=name)
        for name, each in STRANGE.items()
    ],
)
def test_predict_runs_on_strange_machines(
    environment: dict[str, str | None], photos: Path, tmp_path: Path
):
    run = started("predict", "shapes", photos, "--output", tmp_path, **environment)
    assert run.returncode == 0, run.stderr
    assert len(list(tmp_path.glob("*.png"))) == 2
    assert json.loads((tmp_path / "detections.json").read_text()) is not None
    assert b"Traceback" not in run.stderr


def test_without_a_home_caches_go_to_a_folder_that_nobody_else_writes(
    tmp_path: Path, monkeypatch: Any
):
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    monkeypatch.setenv("MPLBACKEND", "bogus")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    command_line.settle_environment()
    home = Path(os.environ["HOME"])
    assert home.parent == tmp_path and home.stat().st_mode & 0o777 == 0o700
    assert os.environ["MPLBACKEND"] == "agg"
    assert machine.own_temporary_folder() == str(home)  # the same again
    home.chmod(0o777)
    assert machine.own_temporary_folder() != str(home)  # open to others


def test_who_has_no_place_for_temporary_files_is_told(tmp_path: Path, monkeypatch: Any):
    monkeypatch.setattr(tempfile, "tempdir", None)
    nowhere = [str(tmp_path / "nowhere")]
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: nowhere)
    with pytest.raises(InputError, match="TMPDIR: expected a folder that may be written"):
        machine.own_temporary_folder()


@pytest.mark.parametrize(
    "closed",
    ["0<&- 2>&-", *(pytest.param(each, marks=pytest.mark.long) for each in ("2>&-", "1>&-"))],
)
def test_a_service_without_streams_gets_its_results(closed: str, tmp_path: Path):
    folder, file = write(tmp_path / "data"), tmp_path / "seen.json"
    words = [sys.executable, "-m", "tensormask_edu", "inspect", folder, "--pictures", "0"]
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *map(str, words), "--json", str(file)]
    run = subprocess.run(shell, cwd=ROOT, capture_output=True)
    assert run.returncode == 0 and len(json.loads(file.read_text())) == 2
    assert file.read_text().startswith("[")  # nothing was printed into it


@pytest.mark.long
def test_who_reads_may_stop_reading(tmp_path: Path):
    folder = write(tmp_path / "data")
    words = f"{sys.executable} -m tensormask_edu inspect {folder} --pictures 0 | true"
    run = subprocess.run(["bash", "-o", "pipefail", "-c", words], cwd=ROOT, capture_output=True)
    assert run.returncode in (0, 141) and b"Traceback" not in run.stderr
    assert b"Exception ignored" not in run.stderr


def test_progress_in_a_file_is_a_line_now_and_then(monkeypatch: Any):
    file = io.StringIO()
    for _ in Progress(range(1000), desc="work", file=file, mininterval=0):
        pass
    assert file.getvalue().count("\n") == 1 and "1000/1000" in file.getvalue()
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    file = io.StringIO()
    for _ in Progress(range(5), file=file, mininterval=0, miniters=1):
        pass
    assert 5 <= file.getvalue().count("\n") <= 7 and "\r" not in file.getvalue()


def test_names_are_drawn_as_they_are(tmp_path: Path):
    shown = {
        "boxes": np.array([BOX]),
        "labels": [0],
        "masks": np.ones((1, HEIGHT, WIDTH), bool),
    }
    for name in ("$a_or_$b_", "$\\frac$", "\u00fcml\u00e4ut \u0416", "tab\there"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InputWarning)  # a tab is spelled out
            figure = viz.draw_instances(
                picture().transpose(2, 0, 1), shown, [name, "other"], title=name
            )
            viz.save(figure, tmp_path / "a.png")  # matplotlib's warnings would be errors
        words = [text.get_text() for text in figure.axes[0].texts]
        drawn = [each.replace(r"\$", "$") for each in (*words, figure.axes[0].get_title())]
        assert drawn == [name.replace("\t", "\\t")] * 2  # matplotlib draws "\$" as "$"


def test_signs_without_a_font_are_spelled_out_once_said(monkeypatch: Any):
    monkeypatch.setattr(fonts, "_font_with", lambda signs: "")
    with pytest.warns(InputWarning, match="no font here has all signs") as said:
        assert look.styled(fonts.drawable)("\u7d30 cell") == "\\u7d30 cell"
        assert look.styled(fonts.drawable)("\udce4.png") == "\\udce4.png"
    assert len(said) == 1


def test_a_font_that_has_the_signs_is_used():
    import matplotlib

    def families() -> tuple[str, list[str]]:
        return fonts.drawable("\u2a0c"), list(matplotlib.rcParams["font.family"])

    # an integral that the main font lacks, but one that matplotlib brings has
    assert not fonts._has(fonts.MAIN, "\U0001d49c")
    font = fonts._font_with(frozenset("\U0001d49c"))
    assert font and not font.startswith(fonts.NO_SIGNS)
    assert look.styled(families)()[0] == "\u2a0c"


def test_workers_want_room_for_their_files_and_batches(tmp_path: Path, monkeypatch: Any):
    dataset = CocoFolder(write(tmp_path), "train")
    made = batches.batches_of(dataset, small_recipe(batch_size=2))
    words = (made, range(1), 2, torch.device("cpu"))
    with monkeypatch.context() as patch, pytest.raises(InputError, match="ulimit -n"):
        patch.setattr(batches, "allow_open_files", lambda number: 40)
        next(batches.load(*words))
    with monkeypatch.context() as patch, pytest.raises(InputError, match="--shm-size"):
        patch.setattr(batches, "SHARED", tmp_path / "none")
        next(batches.load(*words))


def test_a_step_that_would_fill_the_memory_is_refused_before_it_is_gathered(
    tmp_path: Path, monkeypatch: Any
):
    made = batches.batches_of(CocoFolder(write(tmp_path), "train"), small_recipe(batch_size=2))
    one = 4.0 * np.prod(made.stream.sample_shape())
    monkeypatch.setattr(batches, "whole_memory", lambda: 1.5 * one)
    with pytest.raises(InputError, match="batch_size: expected at most 1, which fit in mem"):
        next(batches.load(made, range(1), 0, torch.device("cpu")))


def test_files_are_allowed_up_to_the_hard_limit():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        assert allow_open_files(100) == 100
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (100, hard)
        assert allow_open_files(80) == 100
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_cache_of_pictures_has_a_bound(tmp_path: Path):
    folder, size = write(tmp_path), 3 * HEIGHT * WIDTH
    for room, kept in ((2 * size, 2), (2 * size - 1, 1), (0, 0), (True, 3), (False, 0)):
        dataset = CocoFolder(folder, "train", cache=room)
        first = [dataset.image(index) for index in range(3)]
        again = [dataset.image(index) for index in range(3)]
        assert sum(a is b for a, b in zip(first, again, strict=True)) == kept
    config = TrainConfig(workers=0)
    assert 0 < batches.cache_bytes(config) <= free_memory()
    assert batches.cache_bytes(replace(config, cache_mb=4, workers=2)) == 2e6
    assert batches.cache_bytes(replace(config, cache_mb=0)) == 0
    assert batches.cache_bytes(replace(config, cache=False)) == 0


@pytest.mark.parametrize("seed", [-1, 2**63, 2**70])
def test_a_seed_that_no_generator_takes_is_refused(seed: int, tmp_path: Path, capsys: Any):
    folder = write(tmp_path / "data")
    words = ("train", folder, "--output", tmp_path / "run", "--steps", 1, "--seed", seed)
    assert command(*words) == 2
    assert "error: seed: expected from 0 to" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_categories_keep_their_ids_from_the_data_to_the_detections(tmp_path: Path):
    def edit(data: Json) -> None:
        names = {90: "c", 3: "a", 7: "b"}
        data["categories"] = [{"id": n, "name": name} for n, name in names.items()]
        for annotation in data["annotations"]:
            annotation["category_id"] = 90

    config = CocoFolder(write(tmp_path, edit), "train").named(ModelConfig(prior=0.5))
    assert config.class_names == ("a", "b", "c") and config.categories == (3, 7, 90)
    assert ModelConfig(class_names=("x", "y")).categories == (1, 2)
    with pytest.raises(InputError, match="category_ids: expected 1 whole numbers"):
        ModelConfig(category_ids=(1, 2))
    save_checkpoint(tmp_path / "model", build_model(config), InputConfig())
    photo = tmp_path / "images" / "p1.png"
    predict(tmp_path / "model", photo, tmp_path / "seen", score=0)
    found = json.loads((tmp_path / "seen" / "detections.json").read_text())
    assert found and {each["category_id"] for each in found} <= {3, 7, 90}


def test_a_run_goes_on_with_its_own_data_and_no_fewer_steps(tmp_path: Path):
    folder, output = write(tmp_path / "data"), tmp_path / "run"
    recipe = small_recipe(steps=4)
    train(recipe, folder, output)

    def go_on(data: Path, steps: int) -> None:
        longer = replace(recipe, train=replace(recipe.train, steps=steps))
        train(longer, data, output, resume=True)

    moved = shutil.copytree(folder, tmp_path / "moved")
    go_on(moved, 5)
    with pytest.raises(InputError, match="steps: expected at least the 5 that are done, got 3"):
        go_on(folder, 3)
    for other in (
        write(tmp_path / "boxes", first(bbox=[17, 12, 31, 24])),
        write(tmp_path / "fewer", count=2),
    ):
        with pytest.raises(InputError, match="resume: expected the run's pictures and annot"):
            go_on(other, 6)


def test_a_shorter_schedule_is_said(tmp_path: Path, monkeypatch: Any):
    recipe = small_recipe(steps=9)
    parts = dict.fromkeys(("model", "optimizer", "scaler"), {})
    state = parts | {"step": 2, "steps": 9, "seconds": 1.0, "recent": [], "data": "these"}
    journal.write_state(tmp_path, state, recipe)
    shorter = replace(recipe, train=replace(recipe.train, steps=5))
    with pytest.warns(InputWarning, match="steps: 5 now, 9 before"):
        journal.read_state(tmp_path, shorter, "these")


@pytest.mark.parametrize("content", [b"", b"\x7fELF"], ids=["empty", "cut off"])
def test_a_broken_library_in_the_cache_is_made_anew(
    content: bytes, tmp_path: Path, monkeypatch: Any
):
    compiler = build.find_compiler()
    if compiler is None:
        pytest.skip("no C++ compiler")
    monkeypatch.setenv("TENSORMASK_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "a.cpp"
    source.write_text('extern "C" int answer() { return 42; }')
    make = partial(build.library, compiler, source, "test", [("-shared", "-fPIC")])
    make().write_bytes(content)
    assert build.loaded(make).answer() == 42


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before 1.6"])
def test_weights_of_both_file_formats_are_read_and_run_no_code(old: bool, tmp_path: Path):
    path = tmp_path / "a.pth"
    torch.save({"x": torch.ones(2)}, path, _use_new_zipfile_serialization=not old)
    assert read_state(path)["x"].tolist() == [1, 1]
    torch.save({"x": Path}, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(InputError, match="holds more than weights"):
        read_state(path)
    torch.save({"x": torch.ones(2000)}, path, _use_new_zipfile_serialization=not old)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(InputError):
        read_state(path)


def test_the_rules_stand_in_the_guide():
    guide = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    for rule in RULES.values():
        assert rule.why.removesuffix(" or counted") in guide.replace("\n", " "), rule


def test_evaluation_names_bad_pictures_before_the_work_or_goes_without(tmp_path: Path):
    folder = write(tmp_path / "data")
    (folder / "images" / "p2.png").write_bytes(b"")
    model = ModelConfig(class_names=("thing",))
    save_checkpoint(tmp_path / "model", build_model(model), InputConfig())
    with pytest.raises(InputError, match="p2.png.* 1 of 3, --bad-pictures skip"):
        evaluate_checkpoint(tmp_path / "model", folder)
    with pytest.warns(InputWarning, match="left out: image: .*p2.png"):
        scores = evaluate_checkpoint(tmp_path / "model", folder, skip_bad=True, losses=True)
    assert scores["images"] == 2 and scores["ceiling"]["objects"] == 2
    assert len(scores["left out"]) == 1
    words = ("evaluate", tmp_path / "model", folder, "--bad-pictures", "skip")
    assert command(*words) == 1


def test_a_worker_that_died_is_one_clear_error():
    with (
        pytest.raises(InputError, match="workers: expected processes that live, .*Bus error"),
        batches.workers_alive(),
    ):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is\n")
    with pytest.raises(RuntimeError, match="another"), batches.workers_alive():
        raise RuntimeError("another")


def test_class_names_in_two_unicode_forms_are_one(tmp_path: Path):
    classes = []
    for name in ("B\u00e4r", "Ba\u0308r"):
        folder = write(tmp_path / ascii(name))
        data = whole() | {"categories": [{"id": 1, "name": name}]}
        (folder / "instances_val.json").write_text(json.dumps(data))
        classes.append(CocoFolder(folder, "val").class_names)
    assert classes[0] == classes[1]


def test_broken_exif_does_not_keep_a_picture_from_being_read(tmp_path: Path):
    Image.fromarray(picture()).save(
        tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xffcut"
    )
    assert read_image(tmp_path / "a.jpg").shape == (3, HEIGHT, WIDTH)
