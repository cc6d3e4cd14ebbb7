"""Pictures from an exported model, as `tensormask-edu predict` makes.

An ONNX file needs no PyTorch, and none is loaded.

next: bench.py
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tensormask_edu.base.errors import bad_input
from tensormask_edu.commands.predict import (
    DETECTIONS,
    check_score,
    image_files,
    write_predictions,
)
from tensormask_edu.config import InputConfig, from_json
from tensormask_edu.data.prepare import Pixels, prepare

from . import contract
from .runtimes.find import open_session
from .runtimes.session import Session
from .shapes import Named

# A picture's masks are made whole, a byte per pixel
MASK_BYTES = 4e9


@dataclass(frozen=True)
class PredictReport:
    """What was written by which runtime."""

    model: str
    runtime: str
    pictures: list[str]
    detections: str
    failed: list[str]  # why there is no picture of the other files

    def to_json(self) -> dict[str, Any]:
        summary = f"{len(self.pictures)} pictures by {self.runtime}"
        if self.failed:
            summary += f", {len(self.failed)} left out"
        return asdict(self) | {"summary": summary, "claims": [], "facts": {}}


def predict(
    model: str | Path,
    source: str | Path,
    output: str | Path,
    score: float = 0.5,
    **options: Any,
) -> PredictReport:
    """Run an exported model on an image or on every image of a folder.

    Args:
        score: detections below this score are neither drawn nor listed.
        options: see `find.open_session`.

    Returns:
        the pictures written into `output`, the list of detections beside them, and which files
        could not be read.
    """
    check_score(score)
    files = image_files(Path(source), output)
    with open_session(model, **options) as session:
        names = session.metadata[contract.CLASS_NAMES]
        stored = session.metadata.get(contract.MODEL_CONFIG, {}).get("category_ids")
        classes = dict(zip(stored or range(1, len(names) + 1), names, strict=True))
        found = write_predictions(
            files, lambda image: detect_image(session, image, score), classes, output
        )
    pictures, listed = [str(each) for each in found.pictures], str(Path(output) / DETECTIONS)
    return PredictReport(str(model), session.name, pictures, listed, found.failed)


def detect_image(session: Session, image: Pixels, score: float = 0.0) -> Named:
    """Detections (boxes, scores, labels, masks) of one uint8 image (3, H, W), in its pixels.

    Raises:
        InputError: a picture so large that its masks would fill the memory.
    """
    most = session.metadata[contract.DETECTOR]["detections"]
    if most * image.shape[1] * image.shape[2] > MASK_BYTES:
        expected = f"a picture whose {most} masks fit in {MASK_BYTES / 1e9:g} GB"
        fix = "`tensormask-edu predict` sees large pictures in tiles"
        raise bad_input("image", expected, f"{image.shape[1]} x {image.shape[2]} px", fix)
    input_config = from_json(InputConfig, session.metadata[contract.INPUT_CONFIG], "metadata")
    prepared = prepare(image, input_config)
    (found,) = session.detect([prepared], [(image.shape[1], image.shape[2])])
    chosen = found["scores"] >= score
    return {name: values[chosen] for name, values in found.items()}
