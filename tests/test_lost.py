"""Where AP is lost: hand-made answers, one for each kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tensormask_edu.evaluation import coco_scores, lost
from tensormask_edu.masks import encode

SIZE = (40, 60)
EXACT = 1e-9  # sums of a hundred float64 terms
Rectangle = tuple[int, int, int, int]  # x, y, width, height


def rows(*rectangles: Rectangle, **fields: Any) -> list[dict[str, Any]]:
    masks = np.zeros((len(rectangles), *SIZE), dtype=bool)
    for mask, (x, y, width, height) in zip(masks, rectangles, strict=True):
        mask[y : y + height, x : x + width] = True
    return [
        {"image_id": 1, "category_id": 1, "segmentation": rle, **fields}
        for rle in encode(masks)
    ]


def found(*rectangles: Rectangle) -> list[dict[str, Any]]:
    """Detections, the first with the highest score."""
    return [row | {"score": 0.9 - 0.1 * k} for k, row in enumerate(rows(*rectangles))]


def truth(*rectangles: Rectangle, crowds: tuple[Rectangle, ...] = ()) -> Any:
    objects = rows(*rectangles) + rows(*crowds, iscrowd=1)
    for number, (row, (_, _, width, height)) in enumerate(
        zip(objects, rectangles + crowds, strict=True), start=1
    ):
        row |= {"id": number, "area": width * height, "bbox": [0, 0, 1, 1], "iscrowd": 0} | row
    image = {"id": 1, "file_name": "1.png", "height": SIZE[0], "width": SIZE[1]}
    categories = [{"id": 1, "name": "cell"}]
    return coco_scores.indexed(
        {"images": [image], "annotations": objects, "categories": categories}
    )


def numbers(losses: dict[str, Any]) -> dict[str, int]:
    """How many of each kind, of all sizes; kinds with none are left out."""
    counts = {
        kind: row["small"] + row["medium"] + row["large"]
        for kind, row in losses["kinds"].items()
    }
    return {kind: count for kind, count in counts.items() if count}


A, B = (2, 2, 10, 10), (12, 2, 10, 10)  # two that touch
FAR = (40, 25, 10, 10)

CASES = {
    "all fine": ([A, B], [A, B], {"fine": 2}),
    "fine: nine of ten rows": ([A], [(2, 2, 10, 9)], {"fine": 1}),
    "coarse: six of ten rows": ([A], [(2, 2, 10, 6)], {"coarse": 1}),
    "poor: four of ten rows": ([A], [(2, 2, 10, 4)], {"poor": 1}),
    "coarse from IoU 0.5 on": ([A], [(2, 2, 10, 5)], {"coarse": 1}),
    "fine from IoU 0.75 on": ([(2, 2, 8, 10)], [(2, 2, 6, 10)], {"fine": 1}),
    "poor from IoU 0.1 on": ([A], [(2, 2, 10, 1)], {"poor": 1}),
    "two touching in one mask": ([A, B], [(2, 2, 20, 10)], {"merged": 2}),
    "a small one swallowed": ([A, (12, 2, 4, 10)], [(2, 2, 14, 10)], {"merged": 2}),
    "three in one mask, one of them found": (
        [A, B, (22, 2, 10, 10)],
        [A, (2, 2, 30, 10)],
        {"fine": 1, "merged": 2},
    ),
    "a second detection": ([A], [A, (2, 2, 10, 9)], {"fine": 1, "doubled": 1}),
    "a fragment of what is found": ([A], [A, (3, 3, 3, 3)], {"fine": 1, "doubled": 1}),
    "a blob over two that are found": (
        [A, B],
        [A, B, (2, 2, 20, 10)],
        {"fine": 2, "doubled": 1},
    ),
    "a pixel of what is found": ([A], [A, (3, 3, 1, 1)], {"fine": 1, "doubled": 1}),
    "half of a detection on what is found": (
        [A],
        [A, (2, 2, 20, 10)],
        {"fine": 1, "doubled": 1},
    ),
    "a mask four times as large as its one object": ([A], [(2, 2, 20, 20)], {"poor": 1}),
    "nothing there": ([A], [A, FAR], {"fine": 1, "false": 1}),
    "no detection": ([A, FAR], [A], {"fine": 1, "missed": 1}),
    "neither": ([], [], {}),
}


@pytest.mark.parametrize("objects, detections, expected", CASES.values(), ids=CASES)
def test_each_kind_is_told_from_the_others(objects, detections, expected):
    assert numbers(lost.lost(truth(*objects), found(*detections))) == expected


MENDED = {  # kind: objects, detections, AP as it is and mended
    "coarse": ([A], [(2, 2, 10, 6)], 0.3, 1),  # IoU 0.6: three of ten thresholds
    "poor": ([A], [(2, 2, 10, 4)], 0, 1),
    "merged": ([A, B], [(2, 2, 20, 7)], 0, 1),
    "doubled": ([A, FAR], [A, (2, 2, 10, 9), FAR], (51 + 50 * 2 / 3) / 101, 1),
    "false": ([A], [FAR, A], 0.5, 1),
    "missed": ([A, FAR], [A], 51 / 101, 1),
    "fine": ([A], [(2, 2, 10, 8)], 0.7, 1),  # IoU 0.8: seven of ten thresholds
}


@pytest.mark.parametrize("kind", MENDED)
def test_mending_a_kind_gives_back_what_it_costs_and_mending_another_nothing(kind: str):
    objects, detections, now, mended = MENDED[kind]
    losses = lost.lost(truth(*objects), found(*detections))
    assert losses["now"]["AP"] == pytest.approx(now, abs=EXACT)
    for other, row in losses["kinds"].items():
        expected = mended if other == kind else now
        assert row["mended"]["AP"] == pytest.approx(expected, abs=EXACT), other


def test_objects_count_by_size():
    objects = [A, (2, 2, 35, 35)]
    for medium, large in ((50, 1000), (100, 35 * 35)):  # a size begins with its lower bound
        ranges = {"small": (0, medium), "medium": (medium, large), "large": (large, 1e10)}
        row = lost.lost(truth(*objects), [], ranges)["kinds"]["missed"]
        assert [row[name] for name in ranges] == [0, 1, 1]


def test_what_a_crowd_takes_is_no_kind():
    losses = lost.lost(truth(A, crowds=(FAR,)), found(A, FAR))
    assert numbers(losses) == {"fine": 1}


def test_classes_and_pictures_are_apart():
    other = truth(A).dataset | {"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]}
    losses = lost.lost(
        coco_scores.indexed(other), found(A)[:0] + [found(A)[0] | {"category_id": 2}]
    )
    assert numbers(losses) == {"false": 1, "missed": 1}


def test_the_table_has_a_row_for_each_kind():
    lines = lost.table(lost.lost(truth(A, FAR), found(A))).splitlines()
    assert lines[0].split() == ["small", "medium", "large", *lost.SHOWN]
    assert lines[1].split()[:2] == ["now", "0.505"]
    assert [line.split()[0] for line in lines[2:9]] == list(lost.KINDS)
    assert lines[8].split()[:5] == ["missed", "1", "0", "0", "1.000"]
    assert len({len(line) for line in lines[:9]}) == 1  # columns stand below each other
    # Then what the words mean, as far to the right as the longest of them asks for
    meanings = [line.split(maxsplit=1) for line in lines[10:]]
    assert lines[9].startswith("Each row: ") and dict(meanings) == lost.KINDS
    assert {line.index(line.split(maxsplit=1)[1]) for line in lines[10:]} == {9}
