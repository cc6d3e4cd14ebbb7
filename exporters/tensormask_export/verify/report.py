"""Does the file compute what PyTorch computes? On every runtime that is here.

Three questions, each with limits that have reasons (`compare.LIMITS`):

    the samples inside the file    needs no checkpoint
    random and real pictures       the network's raw outputs number by number, and one to one
                                   the detections that the model itself gives
    a COCO folder                  the same on its pictures, and the AP of both

The way from a checkpoint to the verdict: `weights.checkpoint` loads the model and
`runtimes.eager` runs it; `onnx_file.read` opens the file and `runtimes.find` says who can
compute it, each behind `runtimes.session`; `compare` judges.

next: quantise.py
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tensormask_edu.base.errors import bad_input, require
from tensormask_edu.base.progress import Progress
from tensormask_edu.base.tables import text_table
from tensormask_edu.config import InputConfig
from tensormask_edu.data.coco import CocoFolder
from tensormask_edu.weights.checkpoint import load_checkpoint, weights_sha256

from .. import contract
from ..onnx_file.read import expose, raw_names, read_metadata, read_onnx
from ..runtimes.detections import detections
from ..runtimes.eager import EagerSession
from ..runtimes.find import DEFAULT_NAMES, find_sessions
from ..runtimes.session import NotComputed, Session, batch
from ..shapes import Named
from .compare import LIMITS, Difference, Limits, Match, difference, match, worst
from .layers import KINDS, compare_layers
from .pictures import Pictures, coco_pictures, picture_files, random_pictures
from .replay import replay
from .scores import Scores, compare_scores

if TYPE_CHECKING:
    import onnx

DEFAULT_SIZES = ((1, 64, 96), (2, 128, 160))  # batch, height, width
FAST = (
    "onnxruntime",
    "openvino",
    "compiled",
    "engine",
)  # kinds that compute a whole COCO folder
MOST_COLUMNS = 4  # inputs of a table; more share one column
PYTORCH = "PyTorch"


@dataclass(frozen=True)
class VerifyReport:
    """All comparisons.

    max_abs: the worst raw difference; not_run: what could not be compared here, and why;
    layers: of every layer, where asked for.
    """

    model: str
    checkpoint: str | None
    tolerance: float
    differences: list[Difference]
    not_run: dict[str, str]
    seconds: float
    precision: str = "float32"
    matches: list[Match] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)
    layers: list[Difference] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        rows = self._compared
        return bool(rows) and all(row.passed for row in rows)

    @property
    def _compared(self) -> list[Difference | Match | Scores]:
        return [*self.differences, *self.matches, *self.scores]

    @property
    def max_abs(self) -> float:
        return max((d.max_abs for d in self.differences), default=0.0)

    @property
    def worst(self) -> dict[str, dict[str, float]]:
        """Runtime -> raw output -> the largest difference on any input."""
        found: dict[str, dict[str, float]] = {}
        for row in self.differences:
            outputs = found.setdefault(row.runtime, {})
            outputs[row.output] = max(outputs.get(row.output, 0.0), _number(row.max_abs))
        return found

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "passed": self.passed,
            "max_abs": _finite(self.max_abs),
            "tolerances": asdict(LIMITS[self.precision]),
            "differences": _rows(self.differences),
            "layers": _rows(self.layers),
            "worst": self.worst,
            "summary": self.summary(),
            "claims": self.claims(),
            "facts": {},
        }

    def summary(self) -> str:
        """One line: how far ONNX Runtime, else the first runtime, is from PyTorch."""
        if not self.differences:
            return "no raw output was compared"
        inputs = len({row.input for row in self.differences})
        name = next((r for r in self.worst if "onnxruntime" in r), next(iter(self.worst)))
        outputs = self.worst[name]
        largest = max(outputs.values())
        return (
            f"largest difference {largest:.1e} over {len(outputs)} outputs and {inputs} inputs"
        )

    def claims(self) -> list[dict[str, Any]]:
        """What another report may say of each runtime, and the numbers that it rests on."""
        inputs = len({row.input for row in self.differences})
        return [
            {
                "claim": f"{runtime}, every raw output",
                "against": PYTORCH,
                "difference": max(outputs.values()),
                "limit": self.tolerance,
                "note": f"{inputs} inputs, absolute",
                "at_least": False,
            }
            for runtime, outputs in self.worst.items()
        ]

    def table(self) -> str:
        """Raw outputs, detections, scores, the first layer that differs, what was left out."""
        runtimes = dict.fromkeys(d.runtime for d in self.differences)
        parts = [
            _raw_table(name, [d for d in self.differences if d.runtime == name])
            for name in runtimes
        ]
        if self.matches:
            parts.append(_match_table(self.matches))
        parts += [row.text() for row in self.scores]
        if self.layers:
            parts.append(_first_layer(self.layers))
        parts += [f"not compared: {name} ({why})" for name, why in self.not_run.items()]
        if not self._compared:
            return "\n".join([*parts, "NOTHING WAS COMPARED"])
        verdict = "equal" if self.passed else "DIFFERENT"
        parts.append(f"{verdict}: worst {self.max_abs:.1e}, tolerance {self.tolerance:g}")
        return "\n".join(parts)


def verify(
    onnx_path: str | Path,
    checkpoint: str | Path | None = None,
    *,
    sizes: Sequence[tuple[int, ...]] = DEFAULT_SIZES,
    images: Sequence[str | Path] = (),
    coco: str | Path | None = None,
    split: str = "val",
    limit: int | None = None,
    runtimes: Sequence[str] = DEFAULT_NAMES,
    engines: Sequence[str | Path] = (),
    layers: bool = False,
    seed: int = 0,
) -> VerifyReport:
    """Compare an ONNX file with the samples in it, and with the checkpoint it was made from.

    Args:
        sizes: (batch, height, width) of random pictures; sides multiples of the model's
            padding.
        images: picture files, prepared as the checkpoint's input configuration says.
        coco, split, limit: a COCO folder, and how many of its pictures (default: all).
        runtimes: some of `find.NAMES`.
        engines: TensorRT engines of the file.
        layers: compare every layer, on the first input.
        seed: of the random pictures.

    Raises:
        InputError: a missing package, a file that is not ours or another checkpoint's, a bad
            size or image.
    """
    start = time.perf_counter()
    if checkpoint is None and (images or coco or layers):
        raise bad_input("checkpoint", "one to compare pictures and layers with", "none")
    if layers and not (sizes or images):
        fix = "add --sizes 1x128x128"
        raise bad_input("bisect", "a size or a picture to do it on", "none", fix)
    proto = read_onnx(onnx_path)
    metadata = read_metadata(proto, onnx_path)
    pytorch = dataset = None
    pictures: list[Pictures] = []
    input_config = InputConfig()
    if limit is not None:
        require(limit >= 1, "limit", "at least 1", limit)
    if checkpoint is not None:  # what is wrong with the pictures is said before long work
        pytorch, input_config = open_pytorch(checkpoint, metadata, onnx_path)
        pictures += random_pictures(pytorch.model.config, sizes, seed)
        pictures += picture_files(images, input_config)
        dataset = _with_pictures(coco, split) if coco else None
    opened = expose(proto, raw_names(proto))  # so that raw outputs can be compared
    model, threads = pytorch.model if pytorch else None, torch.get_num_threads()
    sessions, not_run = find_sessions(opened, runtimes, model, engines, threads)
    compared = Comparison(metadata, sessions, not_run)
    compared.replay()
    if pytorch is not None:
        compared.pictures(pytorch, pictures)
        if dataset is not None:
            compared.coco(pytorch, dataset, coco_pictures(dataset, limit, input_config))
        if layers:
            compared.layers(pytorch, proto, pictures[0])
    return compared.report(onnx_path, checkpoint, time.perf_counter() - start)


def _with_pictures(coco: str | Path, split: str) -> CocoFolder:
    """The split of a COCO folder, an error if it has no picture."""
    dataset = CocoFolder(coco, split, keep_empty=True)
    if not len(dataset):
        raise bad_input("coco", "a split with pictures", f"{dataset.ground_truth_path}: none")
    return dataset


def open_pytorch(
    checkpoint: str | Path, metadata: Mapping[str, Any], onnx_path: str | Path
) -> tuple[EagerSession, InputConfig]:
    """The model that the file was exported from, in PyTorch; InputError if it was another."""
    model, input_config = load_checkpoint(checkpoint)
    if metadata[contract.WEIGHTS_SHA256] != weights_sha256(model):
        expected = "the one that the ONNX file was exported from"
        raise bad_input("checkpoint", expected, "other weights", f"export {onnx_path} again")
    return EagerSession(model, metadata), input_config


@dataclass
class Comparison:
    """Runtimes of one file, and what comparing them with PyTorch gave so far.

    not_run: what could not be compared, and why; found: per runtime the detections of each
    picture of a COCO folder.
    """

    metadata: Mapping[str, Any]
    sessions: list[Session]
    not_run: dict[str, str]
    differences: list[Difference] = field(default_factory=list)
    matches: list[Match] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)
    layer_rows: list[Difference] = field(default_factory=list)
    found: dict[str, list[tuple[int, Named]]] = field(default_factory=dict)

    @property
    def precision(self) -> str:
        return str(self.metadata[contract.DETECTOR]["precision"])

    @property
    def limits(self) -> Limits:
        return LIMITS[self.precision]

    def replay(self) -> None:
        """Compare with the samples in the file."""
        if not self.metadata.get(contract.SAMPLES):
            self.not_run["samples"] = "none in the file"
            return
        for session in self.sessions:
            try:
                differences, matches = replay(session, self.limits)
            except NotComputed as error:
                self.not_run[session.title] = str(error)
                continue
            self.differences += differences
            self.matches += matches

    def pictures(
        self, pytorch: EagerSession, pictures: Iterable[Pictures], kinds: Sequence[str] = ()
    ) -> None:
        """Compare with PyTorch on some pictures.

        A runtime that cannot compute one is left out from there on.

        Args:
            kinds: of the runtimes that take part; default all.
        """
        sessions = [each for each in self.sessions if not kinds or each.kind in kinds]
        for group in Progress(pictures, desc="pictures", disable=None, leave=False):
            output_sizes = [group.output_size] * len(group.images)
            raw, expected = pytorch.raw_and_detections(group.images, output_sizes)
            self._keep(PYTORCH, group, expected)
            images = batch(group.images, self.metadata)
            for session in sessions:
                if session.title in self.not_run:
                    continue
                try:
                    outputs = session.all_outputs(images)
                except NotComputed as error:
                    self.not_run[session.title] = f"on {group.name}: {error}"
                    continue
                self._compare(session, group, outputs, raw, expected)

    def coco(
        self, pytorch: EagerSession, dataset: CocoFolder, pictures: Iterable[Pictures]
    ) -> None:
        """Compare with PyTorch on pictures of a COCO folder, and the AP of both."""
        self.pictures(pytorch, pictures, FAST)
        self.scores += compare_scores(dataset, self.found, self.limits.ap.value)

    def layers(self, pytorch: EagerSession, proto: onnx.ModelProto, group: Pictures) -> None:
        """Compare every layer of the first runtime that shows them."""
        kind = next((each.kind for each in self.sessions if each.kind in KINDS), None)
        if kind is not None:
            images = batch(group.images, self.metadata)
            self.layer_rows += compare_layers(proto, pytorch.graph, images, self.limits, kind)

    def report(
        self, model: str | Path, checkpoint: str | Path | None, seconds: float
    ) -> VerifyReport:
        return VerifyReport(
            model=str(model),
            checkpoint=str(checkpoint) if checkpoint else None,
            tolerance=self.limits.raw.value,
            precision=self.precision,
            differences=self.differences,
            not_run=self.not_run,
            seconds=round(seconds, 2),
            matches=self.matches,
            scores=self.scores,
            layers=self.layer_rows,
        )

    def _compare(
        self,
        session: Session,
        group: Pictures,
        outputs: Named,
        raw: Named,
        expected: list[Named],
    ) -> None:
        where, num = (session.title, group.name), len(group.images)
        self.differences += [
            difference(where, name, outputs[name], values, self.limits.raw.value)
            for name, values in raw.items()
            if name in outputs  # an engine has no raw outputs
        ]
        sizes = [group.input_size] * num, [group.output_size] * num
        found = detections(outputs, session.metadata, *sizes)
        converged = outputs[contract.CONVERGED].tolist()
        self.matches += [
            match(where, *row, self.limits)
            for row in zip(expected, found, converged, strict=True)
        ]
        self._keep(session.title, group, found)

    def _keep(self, runtime: str, group: Pictures, found: list[Named]) -> None:
        """Keep the detections of a COCO folder's picture for the scores."""
        if group.image_id >= 0:
            self.found.setdefault(runtime, []).append((group.image_id, found[0]))


# --- tables -----------------------------------------------------------------------------------


def _raw_table(title: str, differences: list[Difference]) -> str:
    inputs = list(dict.fromkeys(d.input for d in differences))
    many = len(inputs) > MOST_COLUMNS
    columns = [f"worst of {len(inputs)}"] if many else inputs
    rows = [["max abs difference", *columns, "max rel", ""]]
    for output in dict.fromkeys(d.output for d in differences):
        line = [d for d in differences if d.output == output]
        errors = [max(d.max_abs for d in line if many or d.input == name) for name in inputs]
        verdict = "" if all(d.passed for d in line) else "DIFFERENT"
        shown = [f"{error:.1e}" for error in ([max(errors)] if many else errors)]
        rows.append([output, *shown, f"{max(d.max_rel for d in line):.1e}", verdict])
    return f"{title}\n{text_table(rows)}\n"


def _match_table(matches: list[Match]) -> str:
    """A line per runtime and input; many pictures share one, each that differs has its own."""
    counts = ["PyTorch", "found", "matched", "agreed"]
    rows = [["detections", "on", *counts, "box px", "score", "mask IoU", ""]]
    for runtime in dict.fromkeys(m.runtime for m in matches):
        mine = [m for m in matches if m.runtime == runtime]
        bad = [m for m in mine if not m.passed]
        for row in [worst(mine), *bad] if len(mine) > MOST_COLUMNS else mine:
            numbers = map(str, (row.expected, row.found, row.matched, row.agreed))
            errors = [f"{row.box_px:.1e}", f"{row.score:.1e}", f"{row.mask_iou:.5f}"]
            rows.append([row.runtime, row.input, *numbers, *errors, _verdict(row)])
    return text_table(rows) + "\n"


def _verdict(row: Match) -> str:
    if row.passed:
        return ""
    return "DIFFERENT" if row.converged else "NMS DID NOT CONVERGE"


def _first_layer(layers: list[Difference]) -> str:
    first = next((number for number, row in enumerate(layers) if not row.passed), None)
    if first is None:
        largest = max(row.max_abs for row in layers)
        return f"layers: none of {len(layers)} differs; worst {largest:.1e}\n"
    row, before = layers[first], layers[:first][-1:]
    last = "".join(f"; before it {one.output} {one.max_abs:.1e}" for one in before)
    return f"layers: the first that differs is {row.output}, {row.max_abs:.1e}{last}\n"


def _rows(differences: list[Difference]) -> list[dict[str, Any]]:
    return [
        asdict(d) | {"max_abs": _finite(d.max_abs), "max_rel": _finite(d.max_rel)}
        for d in differences
    ]


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None


def _number(value: float) -> float:
    """For infinity the largest number: a claim without a number would count as not run."""
    return min(value, sys.float_info.max)
