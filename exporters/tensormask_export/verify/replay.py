"""The samples inside the file, run again: needs no checkpoint.

next: verify/scores.py
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import contract
from ..onnx_file.samples import broken, sample_detections, sample_images, some_numbers
from ..runtimes.session import Session
from ..shapes import Named
from .compare import Difference, Limits, Match, difference, match


def replay(session: Session, limits: Limits) -> tuple[list[Difference], list[Match]]:
    """What a runtime gives for the samples of its file, against what they say.

    Raises:
        NotComputed: the runtime cannot compute them.
    """
    if contract.SAMPLES not in session.metadata:
        raise broken("some")
    differences, matches = [], []
    for number, sample in enumerate(session.metadata[contract.SAMPLES]):
        where = (session.title, f"sample {number}")
        found = session.all_outputs(sample_images(sample))
        numbers = _numbers(sample, found)
        differences += [
            difference(where, name, given, np.array(sample["raw"][name]), limits.raw.value)
            for name, given in numbers.items()
        ]
        matches.append(_match(where, sample, found, limits))
    return differences, matches


def _numbers(sample: dict[str, Any], found: Named) -> Named:
    """What the sample keeps of each raw output; an engine has none of them."""
    numbers = {name: some_numbers(found[name]) for name in sample["raw"] if name in found}
    for name, given in numbers.items():
        if len(given) != len(sample["raw"][name]):
            raise broken(f"{len(given)} numbers of {name}")
    if list(found[contract.MASKS_OUT].shape[2:]) != list(sample["masks_shape"][1:]):
        raise broken(f"canvases of {found[contract.MASKS_OUT].shape[2:]}")
    return numbers


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
