"""Does the file compute what PyTorch computes? On every runtime that is here (`runtimes.py`).

Three questions, each with limits that have reasons (`compare.LIMITS`):

    the samples inside the file    needs no checkpoint
    random and real pictures       the network's raw outputs number by number; the detections that the model
                                   itself gives, one to one
    a COCO folder                  the same on its pictures, and the AP of both

next: backends.py
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm  # type: ignore[import-untyped]

from tensormask_edu.base.errors import bad_input
from tensormask_edu.data.coco import CocoFolder
from tensormask_edu.geometry import sizes_px
from tensormask_edu.weights.checkpoint import load_checkpoint

from .. import contract
from ..onnx_file.graph import DetectorGraph, pad_to_multiple
from ..onnx_file.read import expose, raw_names, read_metadata, read_onnx
from ..onnx_file.write import weights_sha256
from ..runtimes.detections import detections
from ..runtimes.find import DEFAULT_NAMES, Named, Runtime, find_runtimes
from ..runtimes.parsed import NotComputed
from . import layers as layerwise
from .compare import LIMITS, Difference, Limits, Match, difference, match, worst
from .pictures import Pictures, coco_pictures, picture_files, random_pictures
from .replay import replay
from .scores import Scores, compare_scores

DEFAULT_SIZES = ((1, 64, 96), (2, 128, 160))  # batch, height, width
FAST = (
    "onnxruntime",
    "compiled",
    "engine",
)  # kinds of runtime that compute the pictures of a COCO folder
MOST_COLUMNS = 4  # inputs of a table; more share one column
PYTORCH = "PyTorch"


@dataclass
class Findings:
    """What comparisons gave so far. found: per runtime the detections of each picture of a COCO
    folder."""

    limits: Limits
    differences: list[Difference] = field(default_factory=list)
    matches: list[Match] = field(default_factory=list)
    found: dict[str, list[tuple[int, Mapping[str, Any]]]] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class VerifyReport:
    """All comparisons. max_abs: the worst raw difference; not_run: what could not be compared
    here, and why;
    layers: of every layer, where asked for."""

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
        return all(
            row.passed for rows in (self.differences, self.matches, self.scores) for row in rows
        )

    @property
    def max_abs(self) -> float:
        return max((d.max_abs for d in self.differences), default=0.0)

    def to_json(self) -> dict[str, Any]:
        limits = asdict(LIMITS[self.precision])
        worst_ones = {
            "passed": self.passed,
            "max_abs": _finite(self.max_abs),
            "tolerances": limits,
        }
        return (
            asdict(self)
            | worst_ones
            | {"differences": _rows(self.differences), "layers": _rows(self.layers)}
        )

    def table(self) -> str:
        """Raw outputs per runtime, detections, scores, the first layer that differs, what was
        left out."""
        runtimes = list(dict.fromkeys(d.runtime for d in self.differences))
        parts = [
            _raw_table(name, [d for d in self.differences if d.runtime == name])
            for name in runtimes
        ]
        parts += [_match_table(self.matches)] if self.matches else []
        parts += [row.text() for row in self.scores]
        parts += [_first_layer(self.layers)] if self.layers else []
        parts += [f"not compared: {name} ({why})" for name, why in self.not_run.items()]
        verdict = "equal" if self.passed else "DIFFERENT"
        return "\n".join(
            [*parts, f"{verdict}: worst {self.max_abs:.1e}, tolerance {self.tolerance:g}"]
        )


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
    bisect: bool = False,
    seed: int = 0,
) -> VerifyReport:
    """Compare the ONNX file with the samples in it, and with the checkpoint it was exported
    from.

    Args:
        sizes: (batch, height, width) of random pictures; sides multiples of the model's
            padding.
        images: picture files, prepared as the checkpoint's input configuration says.
        coco, split, limit: a COCO folder, and how many of its pictures (default: all).
        runtimes: some of `runtimes.NAMES`.
        engines: TensorRT engines of the file.
        bisect: compare every layer, on the first input.

    Raises:
        InputError: a missing package, a file that is not ours or another checkpoint's, a bad
            size or image.
    """
    start = time.perf_counter()
    if checkpoint is None and (images or coco or bisect):
        raise bad_input("checkpoint", "one to compare pictures and layers with", "none")
    if bisect and not (sizes or images):
        raise bad_input(
            "bisect", "a size or a picture to do it on", "none", "add --sizes 1x128x128"
        )
    proto = read_onnx(onnx_path)
    metadata = read_metadata(proto, onnx_path)
    graph = exported_graph(checkpoint, metadata, onnx_path) if checkpoint else None
    chosen, not_run = find_runtimes(expose(proto, raw_names(proto)), runtimes, graph, engines)
    precision = metadata[contract.DETECTOR]["precision"]
    limits = LIMITS[precision]
    findings, scores, rows = Findings(limits, not_run=not_run), [], []
    for runtime in chosen:
        replay_samples(findings, runtime, metadata)
    if graph is not None and checkpoint is not None:
        _, input_config = load_checkpoint(checkpoint)
        pictures = [
            *random_pictures(graph.config, sizes, seed),
            *picture_files(images, input_config),
        ]
        compare_pictures(findings, graph, metadata, chosen, pictures)
        if coco is not None:
            dataset = CocoFolder(coco, split, keep_empty=True)
            fast = [runtime for runtime in chosen if runtime.kind in FAST]
            compare_pictures(
                findings, graph, metadata, fast, coco_pictures(dataset, limit, input_config)
            )
            scores = compare_scores(dataset, findings.found, limits.ap.value)
        kinds = [runtime.kind for runtime in chosen if runtime.kind in layerwise.KINDS]
        if bisect and kinds:
            rows = layerwise.layers(proto, graph, padded(graph, pictures[0]), limits, kinds[0])
    return VerifyReport(
        model=str(onnx_path),
        checkpoint=str(checkpoint) if checkpoint else None,
        tolerance=limits.raw.value,
        precision=precision,
        differences=findings.differences,
        not_run=findings.not_run,
        seconds=round(time.perf_counter() - start, 2),
        matches=findings.matches,
        scores=scores,
        layers=rows,
    )


def exported_graph(
    checkpoint: str | Path, metadata: Mapping[str, Any], onnx_path: str | Path
) -> DetectorGraph:
    """What the file was exported from, in PyTorch; InputError if that was not the checkpoint's
    model."""
    model, _ = load_checkpoint(checkpoint)
    if metadata[contract.WEIGHTS_SHA256] != weights_sha256(model):
        expected = "the one that the ONNX file was exported from"
        raise bad_input("checkpoint", expected, "other weights", f"export {onnx_path} again")
    detector = metadata[contract.DETECTOR]
    return DetectorGraph(
        model, detector["masks"], detector["candidates"], detector["nms_iterations"]
    ).eval()


def replay_samples(findings: Findings, runtime: Runtime, metadata: Mapping[str, Any]) -> None:
    """Compare a runtime with the samples in the file."""
    try:
        differences, matches = replay(runtime, metadata[contract.SAMPLES], findings.limits)
    except NotComputed as error:
        findings.not_run[runtime.name] = str(error)
        return
    findings.differences += differences
    findings.matches += matches


def compare_pictures(
    findings: Findings,
    graph: DetectorGraph,
    metadata: Mapping[str, Any],
    runtimes: Sequence[Runtime],
    pictures: Iterable[Pictures],
) -> None:
    """Compare runtimes with PyTorch on some pictures. A runtime that cannot compute one is left
    out from there on."""
    for batch in tqdm(pictures, desc="pictures", disable=None, leave=False):
        raw, expected = pytorch(graph, batch)
        _note(findings, PYTORCH, batch, expected)
        for runtime in runtimes:
            if runtime.name in findings.not_run:
                continue
            try:
                outputs = runtime.run(padded(graph, batch))
            except NotComputed as error:
                findings.not_run[runtime.name] = f"on {batch.name}: {error}"
                continue
            _compare(findings, (runtime.name, batch), outputs, raw, expected, metadata)


def _compare(
    findings: Findings,
    where: tuple[str, Pictures],
    outputs: Named,
    raw: Named,
    expected: list[dict[str, Any]],
    metadata: Mapping[str, Any],
) -> None:
    runtime, batch = where
    place, limit, num = (runtime, batch.name), findings.limits.raw.value, len(batch.images)
    inner = [name for name in raw if name in outputs]  # an engine has none
    findings.differences += [
        difference(place, name, outputs[name], raw[name], limit) for name in inner
    ]
    found = detections(outputs, metadata, [batch.input_size] * num, [batch.output_size] * num)
    converged = outputs[contract.CONVERGED]
    findings.matches += [
        match(place, *row, findings.limits)
        for row in zip(expected, found, converged.tolist(), strict=True)
    ]
    _note(findings, runtime, batch, found)


def _note(
    findings: Findings, runtime: str, batch: Pictures, found: list[dict[str, Any]]
) -> None:
    """Keep the detections of a COCO folder's picture for the scores."""
    if batch.image_id >= 0:
        findings.found.setdefault(runtime, []).append((batch.image_id, found[0]))


@torch.no_grad()
def pytorch(graph: DetectorGraph, batch: Pictures) -> tuple[Named, list[dict[str, Any]]]:
    """Raw outputs and detections of the model itself, with the file's number of candidates."""
    model = copy.copy(graph.model)
    model.config = graph.config
    images = model.batch(batch.images)
    output = model.network(images)
    layout, num = model.config.geometry.layout(sizes_px(images)), len(batch.images)
    sizes = [batch.input_size] * num, [batch.output_size] * num
    found = model.detections(output, layout, *sizes)
    raw = {name: tensor.numpy() for name, tensor in graph.raw(output).items()}
    return raw, [{name: tensor.numpy() for name, tensor in each.items()} for each in found]


def padded(graph: DetectorGraph, batch: Pictures) -> torch.Tensor:
    """The graph's input."""
    return pad_to_multiple(graph.model, torch.stack(batch.images))


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
    return "\n".join([title, *_aligned(rows), ""])


def _match_table(matches: list[Match]) -> str:
    """A line per runtime and input; many pictures share one, and those that differ have their
    own."""
    rows = [
        [
            "detections",
            "on",
            "PyTorch",
            "found",
            "matched",
            "agreed",
            "box px",
            "score",
            "mask IoU",
            "",
        ]
    ]
    for runtime in dict.fromkeys(m.runtime for m in matches):
        mine = [m for m in matches if m.runtime == runtime]
        bad = [m for m in mine if not m.passed]
        for row in [worst(mine), *bad] if len(mine) > MOST_COLUMNS else mine:
            numbers = [f"{row.expected}", f"{row.found}", f"{row.matched}", f"{row.agreed}"]
            errors = [f"{row.box_px:.1e}", f"{row.score:.1e}", f"{row.mask_iou:.5f}"]
            verdict = (
                "" if row.passed else "DIFFERENT" if row.converged else "NMS DID NOT CONVERGE"
            )
            rows.append([row.runtime, row.input, *numbers, *errors, verdict])
    return "\n".join([*_aligned(rows), ""])


def _first_layer(layers: list[Difference]) -> str:
    first = next((row for row in layers if not row.passed), None)
    if first is None:
        return f"layers: none of {len(layers)} differs; worst {max(d.max_abs for d in layers):.1e}\n"
    before = layers[layers.index(first) - 1] if layers.index(first) else None
    last = f"; before it {before.output} {before.max_abs:.1e}" if before else ""
    return f"layers: the first that differs is {first.output}, {first.max_abs:.1e}{last}\n"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _rows(differences: list[Difference]) -> list[dict[str, Any]]:
    return [
        asdict(d) | {"max_abs": _finite(d.max_abs), "max_rel": _finite(d.max_rel)}
        for d in differences
    ]


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None
