"""The samples inside the file, run again: needs no checkpoint.

next: verify/scores.py
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import contract
from ..onnx_file.samples import sample_detections, sample_images, some_numbers
from ..runtimes.session import Session
from ..shapes import Named
from .compare import Difference, Limits, Match, difference, match


def replay(session: Session, limits: Limits) -> tuple[list[Difference], list[Match]]:
    """What a runtime gives for the samples of its file, against what they say.

    Raises:
        NotComputed: the runtime cannot compute them.
    """
    differences, matches = [], []
    for number, sample in enumerate(session.metadata[contract.SAMPLES]):
        where = (session.title, f"sample {number}")
        found = session.all_outputs(sample_images(sample))
        differences += [
            difference(
                where, name, some_numbers(found[name]), np.array(values), limits.raw.value
            )
            for name, values in sample["raw"].items()
            if name in found  # an engine has no raw outputs
        ]
        matches.append(_match(where, sample, found, limits))
    return differences, matches


def _match(
    where: tuple[str, str], sample: dict[str, Any], found: Named, limits: Limits
) -> Match:
    """The sample's best detections among the runtime's; masks are compared as canvases."""
    count = int(found[contract.COUNT][0])
    given = {
        "boxes": found[contract.BOXES][0, :count],
        "scores": found[contract.SCORES][0, :count],
        "labels": found[contract.LABELS][0, :count],
        "masks": found[contract.MASKS_OUT][0, :count] >= 0.5,
    }
    others = sample["count"] - len(sample["scores"])  # that PyTorch had, but were not stored
    converged = bool(found[contract.CONVERGED][0])
    return match(where, sample_detections(sample), given, converged, limits, others)
