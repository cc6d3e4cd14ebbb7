"""An ONNX file in INT8: the convolutions of backbone and towers, calibrated on a COCO folder.

Quantise and dequantise nodes stand around each of them, as ONNX Runtime's own quantiser writes
them: weights have a scale per output channel, activations one range, from pictures of the train
split. Predictors, our operators, boxes, NMS and masks stay float32. Two forms:

    unsigned   activations of 8 bits with a zero point, weights of 7 bits: what processors
               without VNNI multiply fast, for their sums of two products hold 16 bits
    symmetric  both of 8 bits, signed, no zero point: what TensorRT takes

What that costs is measured before the file appears: AP on the val split, before and after.

next: predict.py
"""

from __future__ import annotations

import logging
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from tensormask_edu.base.errors import bad_input, require
from tensormask_edu.base.files import file_sha256, written_whole
from tensormask_edu.base.machine import version
from tensormask_edu.base.packages import required
from tensormask_edu.base.progress import Progress
from tensormask_edu.config import InputConfig
from tensormask_edu.data.coco import CocoFolder
from tensormask_edu.data.prepare import prepare
from tensormask_edu.detector.model import TensorMask

from . import contract
from .onnx_file.portable import LOST
from .onnx_file.portable import portable as without_functions
from .onnx_file.read import read_metadata, read_onnx
from .onnx_file.write import OnnxReport, add_metadata, check_name, export_onnx, save_checked
from .runtimes.onnxruntime import OnnxSession
from .runtimes.session import batch
from .shapes import Array
from .verify.pictures import coco_pictures
from .verify.scores import average_precision

if TYPE_CHECKING:
    import onnx

NETWORK = re.compile(r"/(backbone|\w+_tower|mask_branch)/")  # in a node's name
PICTURES = 24  # that give the ranges, spread over the train split
MAX_LOSS = 1.0  # AP points
CALIBRATION, SCORED = "train", "val"  # splits


@dataclass(frozen=True)
class Quantisation:
    """How a file became INT8, and what it lost: `contract.QUANTISATION` in JSON.

    form: "unsigned" or "symmetric"; nodes: convolutions that compute in INT8; calibration,
    scored: pictures; before, after: mask and box AP in ONNX Runtime; loss: the larger of the
    two losses, in points of AP.
    """

    form: str
    nodes: int
    calibration: int
    scored: int
    before: dict[str, float]
    after: dict[str, float]
    loss: float

    def note(self) -> str:
        """One line for the export's report."""
        pairs = (
            f"{name} AP {before:.3f} to {self.after[name]:.3f}"
            for name, before in self.before.items()
        )
        what = f"int8, {self.form}, {self.nodes} convolutions"
        return f"{what}: {', '.join(pairs)} on {self.scored} pictures"


def export_int8(
    model: TensorMask,
    path: str | Path,
    coco: str | Path,
    *,
    symmetric: bool = False,
    max_loss: float = MAX_LOSS,
    portable: bool = False,
    input_config: InputConfig | None = None,
    **options: Any,
) -> OnnxReport:
    """Write `model` to `path` as ONNX with INT8 convolutions, as `export_onnx` writes it else.

    Args:
        coco: a COCO folder of the model's classes; its train split gives the ranges, its val
            split the AP before and after.
        symmetric: the form that TensorRT takes.
        max_loss: in points of AP, of masks and of boxes; a file that loses more is not written.
        portable, input_config, options: of `export_onnx`.

    Raises:
        InputError: as `export_onnx`; other classes, nothing found before, too great a loss.
    """
    start = time.perf_counter()
    required("onnxruntime", "export")
    require(max_loss >= 0, "max_loss", "points of AP, at least 0", max_loss)
    check_name(path)
    calibration, scored = (_folder(coco, split, model) for split in (CALIBRATION, SCORED))
    inputs = input_config or InputConfig()
    with written_whole(path) as temporary, tempfile.TemporaryDirectory() as folder:
        temporary.touch()  # a folder that cannot be written shows at once
        plain = Path(folder, "float32.onnx")
        report = export_onnx(model, plain, input_config=inputs, **options)
        feed = _feed(calibration, inputs, read_metadata(read_onnx(plain), plain))
        proto, nodes = quantised(plain, feed, symmetric)
        form, used = "symmetric" if symmetric else "unsigned", min(PICTURES, len(calibration))
        found = Quantisation(form, nodes, used, **_lost(plain, proto, scored, inputs))
        check_loss(found, max_loss)
        detector = report.detector | {"precision": "int8", "portable": portable}
        metadata = read_metadata(proto, path)
        metadata[contract.VERSIONS]["onnxruntime"] = version("onnxruntime")
        metadata |= {contract.DETECTOR: detector, contract.QUANTISATION: vars(found)}
        add_metadata(proto, metadata)
        save_checked(without_functions(proto) if portable else proto, temporary)
    return replace(
        report,
        path=str(path),
        bytes=Path(path).stat().st_size,
        sha256=file_sha256(path),
        detector=detector,
        nodes={} if portable else report.nodes,
        notes=[*report.notes, *([LOST] if portable else []), found.note()],
        seconds=round(time.perf_counter() - start, 2),
    )


def check_loss(found: Quantisation, max_loss: float) -> None:
    """Raise InputError where AP says nothing, or says too much was lost."""
    if found.before["segm"] <= 0:
        got = f"mask AP 0 on {found.scored} pictures before anything was quantised"
        raise bad_input("calibrate", "pictures that the model was trained for", got)
    if found.loss > max_loss:
        fix = "raise the limit with --max-loss, or export with --precision float16"
        expected = f"a loss of at most {max_loss:g} points of AP"
        raise bad_input("max_loss", expected, f"{found.loss:.2f} ({found.note()})", fix)


def _folder(coco: str | Path, split: str, model: TensorMask) -> CocoFolder:
    dataset = CocoFolder(coco, split, keep_empty=True)
    if dataset.class_names != model.config.class_names:
        expected = f"a folder of the model's classes, {list(model.config.class_names)[:5]}"
        raise bad_input("calibrate", expected, f"classes {list(dataset.class_names)[:5]}")
    require(len(dataset) > 0, "calibrate", f"pictures in the {split} split", "none")
    return dataset


# --- the file ---------------------------------------------------------------------------------


def quantised(
    path: str | Path, images: Iterable[Array], symmetric: bool = False
) -> tuple[onnx.ModelProto, int]:
    """A float32 file of ours with INT8 convolutions, and how many there are.

    Args:
        images: inputs (N, 3, H, W) float32 that show the range of every activation.
        symmetric: see the module.
    """
    from onnxruntime import quantization as tools

    convolutions = (node.name for node in read_onnx(path).graph.node if node.op_type == "Conv")
    names = [name for name in convolutions if NETWORK.search(name)]
    feed = ({contract.IMAGES: each} for each in images)
    signed = tools.QuantType.QInt8
    with tempfile.TemporaryDirectory() as folder, quiet():
        target = Path(folder, "int8.onnx")
        tools.quantize_static(
            path,
            target,
            SimpleNamespace(get_next=partial(next, feed, None)),
            nodes_to_quantize=names,
            per_channel=True,
            weight_type=signed,
            activation_type=signed if symmetric else tools.QuantType.QUInt8,
            # 255 * 64 * 2 fits into 16 bits, 255 * 127 * 2 does not: AVX2 adds pairs there
            reduce_range=not symmetric,
            extra_options={
                "ActivationSymmetric": symmetric,
                "WeightSymmetric": True,
                "QuantizeBias": not symmetric,  # TensorRT has no INT32 to dequantise
            },
        )
        proto = read_onnx(target)
        # Shapes that the quantiser noted: a tenth of the file, and runtimes find them anyway
        del proto.graph.value_info[:]
        return proto, len(names)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the quantiser's advice, which it gives the root logger."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _feed(
    dataset: CocoFolder, config: InputConfig, metadata: dict[str, Any]
) -> Iterator[Array]:
    """Inputs (1, 3, H, W) from `PICTURES` pictures, spread over the data set, one at a time."""
    step = max(1, len(dataset) // PICTURES)
    for index in range(0, len(dataset), step)[:PICTURES]:
        yield batch([prepare(dataset.image(index).numpy(), config)], metadata)


def _lost(
    plain: Path, proto: onnx.ModelProto, dataset: CocoFolder, config: InputConfig
) -> dict[str, Any]:
    """The fields of `Quantisation` that a float32 file and the same in INT8 give together."""
    files = plain, proto.SerializeToString()
    before, after = (_ap(source, dataset, config) for source in files)
    loss = round(100 * max(before[name] - after[name] for name in before), 3)
    return {"scored": len(dataset), "before": before, "after": after, "loss": loss}


def _ap(source: Path | bytes, dataset: CocoFolder, config: InputConfig) -> dict[str, float]:
    """Mask and box AP of a file in ONNX Runtime."""
    session = OnnxSession(source, torch.get_num_threads())
    pictures = Progress(
        coco_pictures(dataset, None, config), desc="AP", disable=None, leave=False
    )
    found = [
        (group.image_id, session.detect(group.images, [group.output_size])[0])
        for group in pictures
    ]
    return average_precision(dataset, found)
