"""COCO scores: published numbers, known answers, and the way from a model's output."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tensormask_edu.base.errors import InputError, InputWarning
from tensormask_edu.config import MODELS, InputConfig
from tensormask_edu.data.coco import CocoFolder
from tensormask_edu.detector import tiles
from tensormask_edu.evaluation import ceiling
from tensormask_edu.evaluation import coco_scores as evaluate
from tensormask_edu.masks import decode, encode, iou

PUBLISHED = 5e-4  # the published scores have three decimals
EXACT = 1e-9  # sums of a hundred float64 terms
DISCS = [(24, 24, 14), (66, 60, 10)]  # y, x, radius in px

# Mask and box scores that COCO's authors publish for their example detections, in the order of
# SCORE_NAMES
ORACLE = {
    "segm": (
        0.320, 0.562, 0.299, 0.387, 0.310, 0.327, 0.268, 0.415, 0.417, 0.469, 0.377, 0.381,
    ),
    "bbox": (
        0.505, 0.697, 0.573, 0.586, 0.519, 0.501, 0.387, 0.594, 0.595, 0.640, 0.566, 0.564,
    ),
}  # fmt: skip


@pytest.mark.parametrize("iou", ["segm", "bbox"])
def test_the_published_scores_are_reproduced(shared: Path, iou: Any):
    folder = shared / "data" / "coco-eval-oracle"
    detections = folder / f"instances_val2014_fake{iou}100_results.json"
    scores = evaluate.score(folder / "instances_val2014_100.json", detections, iou)
    assert tuple(scores) == evaluate.SCORE_NAMES
    np.testing.assert_allclose(list(scores.values()), ORACLE[iou], atol=PUBLISHED, rtol=0)


# --- a case with a known answer ---------------------------------------------------------------

SIZE = (20, 30)


def rectangle(y: int, x: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[y : y + height, x : x + width] = True
    return mask


def annotation(mask: np.ndarray, **fields: Any) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 5, "segmentation": encode(mask[None])[0], **fields}


def detection(mask: np.ndarray, score: float = 0.9, **fields: Any) -> dict[str, Any]:
    y, x = np.nonzero(mask)
    box = [int(x.min()), int(y.min()), int(np.ptp(x)) + 1, int(np.ptp(y)) + 1]
    return annotation(mask, score=score, bbox=box) | fields


def write(path: Path, *annotations: dict[str, Any]) -> Path:
    size = {"height": SIZE[0], "width": SIZE[1]}
    images = [{"id": k, "file_name": f"{k}.png", **size} for k in (1, 2)]
    categories = [{"id": 5, "name": "cell"}, {"id": 8, "name": "dot"}]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(truth))
    return path


LEFT, RIGHT = rectangle(2, 3, 10, 10), rectangle(5, 18, 10, 10)


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """Two objects of 100 px, without the fields that only pycocotools wants."""
    return write(tmp_path / "truth.json", annotation(LEFT), annotation(RIGHT))


@pytest.mark.parametrize("iou", ["segm", "bbox"])
def test_perfect_detections_score_one(truth: Path, iou: Any):
    scores = evaluate.score(truth, [detection(LEFT), detection(RIGHT)], iou)
    assert [scores[name] for name in ("AP", "AP50", "AP75", "APs", "AR100")] == pytest.approx(
        [1] * 5, abs=EXACT
    )
    assert [scores[name] for name in ("APm", "APl")] == [-1.0, -1.0]  # there is nothing to find
    assert scores["AR1"] == 0.5


def test_finding_one_of_two_scores_51_of_101_recall_points(truth: Path):
    assert evaluate.score(truth, [detection(LEFT)])["AP"] == pytest.approx(51 / 101, abs=EXACT)


def test_a_false_alarm_before_the_hit_halves_precision(tmp_path: Path):
    truth = write(tmp_path / "truth.json", annotation(LEFT))
    alarm = detection(RIGHT, score=0.95)
    assert evaluate.score(truth, [detection(LEFT), alarm])["AP"] == pytest.approx(
        0.5, abs=EXACT
    )


@pytest.mark.parametrize("iou", ["segm", "bbox"])
def test_an_overlap_of_0_58_counts_at_two_of_ten_thresholds(tmp_path: Path, iou: Any):
    truth = write(tmp_path / "truth.json", annotation(LEFT))
    found = rectangle(2, 3, 5, 10) | rectangle(7, 3, 1, 8)
    scores = evaluate.score(truth, [detection(found, bbox=[3, 2, 10, 5.8])], iou)
    assert (scores["AP50"], scores["AP75"]) == (pytest.approx(1, abs=EXACT), 0)
    assert scores["AP"] == pytest.approx(0.2, abs=EXACT)


def test_masks_and_boxes_are_scored_apart(truth: Path):
    boxes_only_right = [
        detection(LEFT) | {"segmentation": encode(rectangle(2, 3, 10, 2)[None])[0]}
    ]
    assert evaluate.score(truth, boxes_only_right, "bbox")["AP"] > 0.5
    assert evaluate.score(truth, boxes_only_right, "segm")["AP"] == 0.0


def test_no_detections_score_zero(truth: Path):
    assert evaluate.score(truth, [])["AP"] == 0.0


def test_crowds_are_neither_missed_nor_false_alarms(tmp_path: Path):
    truth = write(tmp_path / "truth.json", annotation(LEFT), annotation(RIGHT, iscrowd=1))
    with pytest.warns(InputWarning, match="1 annotations left out: iscrowd is 1"):
        scores = evaluate.score(truth, [detection(LEFT, 0.5), detection(RIGHT, 0.9)])
    assert scores["AP"] == pytest.approx(1, abs=EXACT)


def test_an_annotation_with_id_zero_is_found_like_any_other(tmp_path: Path):
    truth = write(tmp_path / "truth.json", annotation(LEFT, id=0), annotation(RIGHT, id=0))
    assert evaluate.score(truth, [detection(LEFT), detection(RIGHT)])["AP"] == pytest.approx(
        1, abs=EXACT
    )


def test_area_ranges_can_be_set(truth: Path):
    ranges = {"small": (0, 50), "medium": (50, 150), "large": (150, 1e10)}
    scores = evaluate.score(truth, [detection(LEFT), detection(RIGHT)], area_ranges=ranges)
    assert [scores[name] for name in ("APs", "APm", "APl")] == pytest.approx(
        [-1, 1, -1], abs=EXACT
    )


def test_scores_of_sizes_can_be_left_out(truth: Path):
    found = [detection(LEFT), detection(RIGHT, 0.4)]
    all_scores = evaluate.score(truth, found)
    without = evaluate.score(truth, found, area_ranges={})
    assert list(without) == ["AP", "AP50", "AP75", "AR1", "AR10", "AR100"]
    assert without == {name: all_scores[name] for name in without}


def test_shapes_are_small_below_a_square_of_20_px_and_large_above_one_of_44(tmp_path: Path):
    sides, size = (19, 21, 43, 45), (48, 48)
    squares = np.zeros((4, *size), dtype=bool)
    for square, side in zip(squares, sides, strict=True):
        square[:side, :side] = True
    truth = write(tmp_path / "truth.json")
    content = json.loads(truth.read_text())
    images = [{"id": k, "height": 48, "width": 48, "file_name": f"{k}.png"} for k in sides]
    objects = [
        annotation(square) | {"image_id": k} for k, square in zip(sides, squares, strict=True)
    ]
    truth.write_text(json.dumps(content | {"images": images, "annotations": objects}))
    found = [o | {"score": 0.9} for o in objects if o["image_id"] in (21, 45)]
    scores = evaluate.score(truth, found, area_ranges=evaluate.SHAPES_AREAS)
    assert [scores[name] for name in ("APs", "APm", "APl")] == pytest.approx(
        [0, 51 / 101, 1], abs=EXACT
    )


def test_proposals_are_counted_whatever_their_class(truth: Path):
    wrong = {"category_id": 8}
    both = [detection(LEFT, 0.9, **wrong), detection(RIGHT, 0.8)]
    scores = evaluate.proposal_scores(truth, both)
    full = ("AP", "AP50", "AP75", "AR10", "AR100", "AR1000", "ARs")
    assert [scores[name] for name in full] == pytest.approx([1] * 7, abs=EXACT)
    assert (scores["ARm"], scores["ARl"]) == (-1.0, -1.0)


def test_recall_looks_at_so_many_proposals_as_its_name_says(tmp_path: Path):
    truth = write(tmp_path / "truth.json", annotation(LEFT), annotation(RIGHT))
    alarms = [detection(rectangle(0, k, 1, 1), 0.95) for k in range(20)]
    part = rectangle(5, 18, 5, 10) | rectangle(10, 18, 1, 8)  # IoU 0.58: two of ten thresholds
    scores = evaluate.proposal_scores(
        truth, [detection(LEFT, 0.99), *alarms, detection(part, 0.5)]
    )
    assert scores["AR10"] == pytest.approx(0.5, abs=EXACT)
    assert scores["AR100"] == pytest.approx((1 + 0.2) / 2, abs=EXACT)
    assert scores["AR100"] == scores["AR1000"] == scores["ARs"]
    assert scores["AP75"] == pytest.approx(51 / 101, abs=EXACT)
    assert scores["AP50"] > scores["AP75"]


def test_the_ceiling_of_a_mask_that_fits_the_bins_is_one(tmp_path: Path):
    """A rectangle whose sides lie on borders of bins, and one that no window contains."""
    (tmp_path / "images").mkdir()
    masks = np.zeros((2, 64, 96), dtype=bool)
    masks[0, 14:34, 50:66] = masks[1, :, 1:] = True
    config = replace(MODELS["tiny"], strides_px=(4,))
    for count, windowed in ((1, 1.0), (2, 0.5)):
        path = write(tmp_path / "instances_val.json")
        image = {"id": 1, "file_name": "1.png", "height": 64, "width": 96}
        Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(tmp_path / "images" / "1.png")
        objects = [annotation(mask) for mask in masks[:count]]
        content = json.loads(path.read_text()) | {"images": [image], "annotations": objects}
        path.write_text(json.dumps(content))
        dataset = CocoFolder(tmp_path, "val", keep_empty=True)
        found = ceiling.ceiling(config, dataset, InputConfig(), progress=False)
        assert (found["windowed"], found["objects"]) == (windowed, count)
        assert found["segm"]["APs"] == pytest.approx(1, abs=EXACT)


def test_each_object_is_drawn_from_a_window_of_its_own():
    """Two discs, which no bins fit, far from each other."""
    y, x = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    masks = torch.stack([(y - cy) ** 2 + (x - cx) ** 2 < r * r for cy, cx, r in DISCS])
    boxes = torch.tensor([[cx - r, cy - r, cx + r, cy + r] for cy, cx, r in DISCS]).float()
    truth = {"boxes": boxes, "labels": torch.zeros(2, dtype=torch.int64), "masks": masks}
    best, drawn = ceiling.best_windows(MODELS["tiny"], masks, truth, InputConfig())
    assert best.tolist() == [0, 1]
    assert (iou(drawn, masks) > 0.8).all()  # bins of 4 px at the rim of 20 px and more


def test_scoring_prints_nothing_and_leaves_its_input_alone(
    truth: Path, capsys: pytest.CaptureFixture[str]
):
    found = [detection(LEFT)]
    before = json.dumps(found)
    evaluate.score(truth, found)
    assert json.dumps(found) == before
    assert capsys.readouterr().out == ""


GOOD = detection(LEFT)
BROKEN = {
    "not a list": ({"image_id": 1}, "expected a JSON list of objects, got dict"),
    "not an object": ([3], "detection 0: expected a JSON object, got int"),
    "unknown image": ([GOOD, GOOD | {"image_id": 3}], "detection 1: .* unknown image 3"),
    "unknown category": ([GOOD | {"category_id": 6}], "detection 0: .* unknown category 6"),
    "image by name": ([GOOD | {"image_id": "a.png"}], "detection 0: .* unknown image 'a.png'"),
    "no score": ([{k: v for k, v in GOOD.items() if k != "score"}], "expected a field 'score'"),
    "no mask": (
        [{k: v for k, v in GOOD.items() if k != "segmentation"}],
        "expected a field 'segmentation'",
    ),
    "score of words": (
        [GOOD | {"score": "high"}],
        "expected a finite number as score, got 'high'",
    ),
    "score not a number": (
        [GOOD | {"score": float("nan")}],
        "expected a finite number as score, got nan",
    ),
    "mask of another size": (
        [GOOD | {"segmentation": encode(LEFT.T[None])[0]}],
        r"RLE size .* = \[20, 30\]",
    ),
    "mask broken off": (
        [GOOD | {"segmentation": {"size": [20, 30], "counts": "0"}}],
        "fill 600 pixels",
    ),
}


@pytest.mark.parametrize("detections, message", BROKEN.values(), ids=BROKEN)
def test_broken_detections_are_one_clear_error(
    truth: Path, detections: Any, message: str, tmp_path: Path
):
    path = tmp_path / "found.json"
    path.write_text(json.dumps(detections))
    with pytest.raises(InputError, match=message):
        evaluate.score(truth, path)


def test_ids_of_detections_may_be_text_or_have_a_point(truth: Path, tmp_path: Path):
    plain = [GOOD, GOOD | {"score": 0.5}]
    points = [each | {"image_id": float(each["image_id"])} for each in plain]
    assert evaluate.score(truth, points) == evaluate.score(truth, plain)  # warnings are errors
    texts = [each | {"category_id": str(each["category_id"])} for each in points]
    with pytest.warns(
        InputWarning, match="detections: 2 detections repaired: an id is written"
    ):
        assert evaluate.score(truth, texts) == evaluate.score(truth, plain)
    for wrong in (True, 1.5, "1.5", None, [1]):
        with pytest.raises(InputError, match="detection 0: .* unknown image"):
            evaluate.score(truth, [GOOD | {"image_id": wrong}])


def test_polygons_of_detections_may_be_written_in_every_form(truth: Path, tmp_path: Path):
    flat = [18.0, 5, 28, 5, 28, 15, 18, 15]
    pairs = [flat[k : k + 2] for k in range(0, 8, 2)]
    forms: list[Any] = [[flat], flat, pairs, [pairs], [flat, [1, 2, 3, 4]]]
    for segmentation in forms:
        found = {"image_id": 1, "category_id": 5, "score": 0.9, "segmentation": segmentation}
        (tmp_path / "found.json").write_text(json.dumps([found]))
        scores = evaluate.score(truth, tmp_path / "found.json")
        assert scores["AP"] == pytest.approx(51 / 101, abs=EXACT), segmentation


def test_a_broken_box_is_one_clear_error(truth: Path):
    with pytest.raises(
        InputError, match="detection 0: expected a bbox x, y, width, height, got .1, 2."
    ):
        evaluate.score(truth, [GOOD | {"bbox": [1, 2]}], "bbox")


def test_files_that_are_missing_or_broken_are_named(truth: Path, tmp_path: Path):
    with pytest.raises(
        InputError, match="ground truth: expected an existing file, got .*none.json"
    ):
        evaluate.score(tmp_path / "none.json", [])
    with pytest.raises(
        InputError, match="detections: expected an existing file, got .*none.json"
    ):
        evaluate.score(truth, tmp_path / "none.json")
    (tmp_path / "cut.json").write_text('[{"image_id": 1, ')
    with pytest.raises(InputError, match="detections: expected valid JSON, got .*cut.json"):
        evaluate.score(truth, tmp_path / "cut.json")


def test_an_unknown_kind_of_overlap_is_an_error(truth: Path):
    with pytest.raises(InputError, match="iou: expected 'segm' or 'bbox', got 'mask'"):
        evaluate.score(truth, [], "mask")  # type: ignore[arg-type]


# --- from a model's output --------------------------------------------------------------------


def test_detections_become_coco_objects():
    masks = torch.from_numpy(np.stack([LEFT, RIGHT]))
    boxes = torch.tensor([[3.0, 2, 13, 12], [18.5, 5, 28, 15]])
    found = {
        "boxes": boxes,
        "scores": torch.tensor([0.5, 0.25]),
        "labels": torch.tensor([1, 0]),
        "masks": masks,
    }
    objects = json.loads(json.dumps(evaluate.to_coco(7, found, [5, 8])))
    assert [item["image_id"] for item in objects] == [7, 7]
    assert [item["category_id"] for item in objects] == [8, 5]
    assert [item["score"] for item in objects] == [0.5, 0.25]
    assert [item["bbox"] for item in objects] == [[3, 2, 10, 10], [18.5, 5, 9.5, 10]]
    np.testing.assert_array_equal(
        decode([item["segmentation"] for item in objects], SIZE), masks.numpy()
    )


def test_no_detections_become_no_objects():
    nothing = {
        "boxes": torch.zeros(0, 4),
        "scores": torch.zeros(0),
        "labels": torch.zeros(0, dtype=torch.int64),
    }
    no_masks = {"masks": torch.zeros(0, 20, 30, dtype=torch.bool)}
    assert evaluate.to_coco(7, nothing | no_masks, [5]) == []


def test_a_label_without_a_category_is_an_error():
    found = {"boxes": torch.zeros(1, 4), "scores": torch.ones(1), "labels": torch.tensor([2])}
    with pytest.raises(
        InputError, match="labels below the data set's 2 classes, got 2; was the model trained"
    ):
        evaluate.to_coco(7, found | {"masks": torch.zeros(1, 2, 2, dtype=torch.bool)}, [5, 8])


class BrightChannels(nn.Module):
    """A detector of single-coloured objects: what is bright in colour k is of class k."""

    def __init__(self) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(0.5))
        self.batch_sizes: list[int] = []

    def forward(
        self, images: list[Tensor], output_sizes: list[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        assert not self.training
        self.batch_sizes.append(len(images))
        return [
            self.detect(image, size) for image, size in zip(images, output_sizes, strict=True)
        ]

    def detect(self, image: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
        planes = (
            nn.functional.interpolate(image[None], size=size, mode="area")[0] > self.threshold
        )
        labels = planes.flatten(1).any(1).nonzero().ravel()
        boxes = [
            torch.cat([plane.nonzero().amin(0), plane.nonzero().amax(0) + 1])
            for plane in planes[labels]
        ]
        yxyx = torch.stack(boxes) if boxes else torch.zeros(0, 4)
        scores = torch.ones(len(labels))
        return {
            "boxes": yxyx[:, [1, 0, 3, 2]].float(),
            "scores": scores,
            "labels": labels,
            "masks": planes[labels],
        }


@pytest.fixture
def coloured(tmp_path: Path) -> Path:
    """Pictures of one red, one green and blue, and no object, in two sizes."""
    (tmp_path / "images").mkdir()
    images, annotations = [], []
    objects = {1: (24, 32, [(0, 2, 3)]), 2: (16, 20, [(1, 5, 4), (2, 9, 12)]), 3: (24, 32, [])}
    for image_id, (height, width, shapes) in objects.items():
        picture = np.zeros((height, width, 3), dtype=np.uint8)
        for colour, y, x in shapes:
            picture[y : y + 6, x : x + 7, colour] = 255
            rle = encode(picture[None, :, :, colour] > 0)[0]
            category_id = 10 * (colour + 1)
            annotations.append(
                {"image_id": image_id, "category_id": category_id, "segmentation": rle}
            )
        Image.fromarray(picture).save(tmp_path / "images" / f"{image_id}.png")
        images.append(
            {"id": image_id, "file_name": f"{image_id}.png", "height": height, "width": width}
        )
    categories = [
        {"id": 10 * (k + 1), "name": name} for k, name in enumerate(("red", "green", "blue"))
    ]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "instances_val.json").write_text(json.dumps(truth))
    return tmp_path


def test_a_model_that_sees_all_scores_one_in_the_files_own_pixels(coloured: Path):
    model = BrightChannels().train()
    dataset = CocoFolder(coloured, "val", keep_empty=True)
    scores = evaluate.evaluate(
        model, dataset, InputConfig(enlarge=2.0), batch_size=2, progress=False
    )
    assert [scores[iou]["AP"] for iou in ("segm", "bbox")] == pytest.approx([1, 1], abs=EXACT)
    assert (scores["images"], scores["detections"]) == (3, 3)
    assert model.batch_sizes == [2, 1]
    assert model.training


def test_large_pictures_are_seen_tile_by_tile_and_score_the_same(
    coloured: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tiles, "WHOLE_PX", 20)  # the pictures have sides of 20 and of 32
    model, dataset = BrightChannels(), CocoFolder(coloured, "val", keep_empty=True)
    scores = evaluate.evaluate(model, dataset, InputConfig(), progress=False)
    assert [scores[iou]["AP"] for iou in ("segm", "bbox")] == pytest.approx([1, 1], abs=EXACT)
    assert (scores["images"], scores["detections"]) == (3, 3)
    assert model.batch_sizes == [1, 1, 1]


def test_the_mode_of_a_model_is_restored_after_a_failure(coloured: Path):
    model = BrightChannels().train()
    (coloured / "images" / "1.png").write_text("broken")
    with pytest.raises(InputError, match="1.png"):
        dataset = CocoFolder(coloured, "val", keep_empty=True)
        evaluate.evaluate_model(model, dataset, InputConfig(), progress=False)
    assert model.training


def test_a_data_set_without_its_empty_pictures_is_refused(coloured: Path):
    with pytest.raises(
        InputError, match="dataset: expected all pictures of the split.*keep_empty=True"
    ):
        evaluate.evaluate(BrightChannels(), CocoFolder(coloured, "val"), InputConfig())


def test_the_table_shows_every_score_and_no_number_where_nothing_is_to_find():
    segm = dict.fromkeys(evaluate.SCORE_NAMES, 0.25) | {"APl": -1.0, "APm": 0.0}
    scores = {
        "segm": segm,
        "bbox": segm,
        "images": 3,
        "detections": 8,
        "ceiling": {"segm": segm},
    }
    lines = evaluate.table(scores).splitlines()
    assert lines[0].split() == ["masks", "boxes", "ceiling"]
    assert lines[1].split() == ["AP", "0.250", "0.250", "0.250"]
    assert lines[5].split() == ["APm", "0.000", "0.000", "0.000"]
    assert lines[6].split() == ["APl", "-", "-", "-"]
    assert lines[-1] == "8 detections on 3 images"
    assert evaluate.table({"bbox": segm}).splitlines()[0].split() == ["boxes"]
    assert "no score" not in evaluate.table(scores)


def test_a_truth_without_an_object_says_why_there_is_no_score():
    nothing = {"segm": dict.fromkeys(evaluate.SCORE_NAMES, -1.0), "images": 3, "detections": 8}
    *_, why, last = evaluate.table(nothing).splitlines()
    assert why.startswith("no score (-): the split has no object to find")
    assert last == "8 detections on 3 images"
