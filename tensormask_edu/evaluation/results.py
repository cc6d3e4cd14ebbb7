"""Detections in the form of a COCO results file. Needs no torch.

next: evaluation/coco_scores.py
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..base.errors import bad_input
from ..masks import Cutouts, encode, encode_cutouts

# One object of a COCO results file: image_id, category_id, score, segmentation, bbox
Detection = dict[str, Any]


def to_coco(
    image_id: int | str, detection: Mapping[str, Any], category_ids: Sequence[int]
) -> list[Detection]:
    """The detections of one picture as objects of a COCO results file.

    Args:
        image_id: of the data set, or a file name where there is none
        detection: arrays or CPU tensors: boxes (d, 4) xyxy px, scores (d,), labels (d,) in
            0..K-1, masks bool (d, H, W) or d cutouts
        category_ids: K ids, the data set's category of each label
    """
    boxes, scores, labels = (detection[name].tolist() for name in ("boxes", "scores", "labels"))
    if labels and max(labels) >= len(category_ids):
        expected = f"labels below the data set's {len(category_ids)} classes"
        fix = "was the model trained on other classes?"
        raise bad_input("detection", expected, max(labels), fix)
    masks = detection["masks"]
    whole = not isinstance(masks, Cutouts)
    rles = encode(np.asarray(masks, dtype=bool)) if whole else encode_cutouts(masks)
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[label],
            "score": score,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "segmentation": rle,
        }
        for (x0, y0, x1, y1), score, label, rle in zip(boxes, scores, labels, rles, strict=True)
    ]


def packed(found: Sequence[Detection]) -> bytes:
    """Detections in a quarter of their memory, to be kept until all pictures are done."""
    return json.dumps(found).encode("utf-8")


def unpacked(parts: Iterable[bytes]) -> list[Detection]:
    """What `packed` made, all in one list; JSON gives every number back as it was."""
    return [detection for part in parts for detection in json.loads(part)]
