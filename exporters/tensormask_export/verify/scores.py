"""AP of a runtime's detections beside PyTorch's, on the same pictures.

next: verify/layers.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tensormask_edu.data.coco import CocoFolder
from tensormask_edu.evaluation.coco_scores import load_ground_truth, score
from tensormask_edu.evaluation.results import to_coco

from ..shapes import Named

Found = Sequence[tuple[int, Named]]  # (image id, detections of that picture)


@dataclass(frozen=True)
class Scores:
    """Mask and box AP on some pictures of a data set: PyTorch's expected, a runtime's found."""

    runtime: str
    images: int
    expected: dict[str, float]
    found: dict[str, float]
    passed: bool

    def text(self) -> str:
        """One line."""
        pairs = [
            f"{name} AP {self.found[name]:.4f}, PyTorch {self.expected[name]:.4f}"
            for name in self.expected
        ]
        verdict = "" if self.passed else "  DIFFERENT"
        return f"{self.runtime} on {self.images} pictures: {'; '.join(pairs)}{verdict}\n"


def compare_scores(
    dataset: CocoFolder, found: Mapping[str, Found], limit: float
) -> list[Scores]:
    """Each runtime's scores beside those of the first entry, PyTorch, at most `limit` apart."""
    results = {name: average_precision(dataset, each) for name, each in found.items()}
    (reference, expected), *others = results.items()
    return [
        Scores(name, len(found[name]), expected, given, _close(given, expected, limit))
        for name, given in others
    ]


def average_precision(dataset: CocoFolder, found: Found) -> dict[str, float]:
    """Mask and box AP on the pictures in `found` alone."""
    ids = {image_id for image_id, _ in found}
    ground_truth = load_ground_truth(dataset, ids)
    rows = [
        row
        for image_id, detection in found
        for row in to_coco(image_id, detection, dataset.category_ids)
    ]
    return {name: score(ground_truth, rows, name)["AP"] for name in ("segm", "bbox")}


def _close(found: dict[str, float], expected: dict[str, float], limit: float) -> bool:
    return all(abs(found[name] - expected[name]) <= limit for name in expected)
