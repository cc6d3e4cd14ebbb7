"""An ONNX file of ours: its graph, its metadata, its inner tensors. Needs no torch.

next: engine/device.py
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensormask_edu.base.errors import InputError, bad_input
from tensormask_edu.base.files import parsed_json
from tensormask_edu.base.packages import required
from tensormask_edu.base.values import misfit
from tensormask_edu.config import InputConfig, ModelConfig, from_json
from tensormask_edu.geometry import Geometry

from .. import contract

if TYPE_CHECKING:
    import onnx


def is_onnx(path: str | Path) -> bool:
    """Whether a file is ONNX by its name: `.onnx`, or `.ONNX` as some systems write it."""
    return Path(path).suffix.lower() == ".onnx"


def read_onnx(path: str | Path) -> onnx.ModelProto:
    """Read an ONNX file of ours; anything else is an InputError."""
    onnx = required("onnx", "export")
    if not Path(path).is_file():
        raise bad_input("model", "an existing ONNX file", path, "check the path")
    try:
        # Ours hold their weights: no other file is opened, whatever this one names
        proto = onnx.load(path, load_external_data=False)
        _check_external(proto, path)
        onnx.checker.check_model(proto)
    except InputError:
        raise
    except Exception as error:  # of a broken file its readers raise several kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        problem = f"{path} is not a whole ONNX file ({reason[:200]}); export it again"
        raise InputError(f"model: {problem}") from None
    return proto


def _check_external(proto: onnx.ModelProto, path: str | Path) -> None:
    """Raise InputError where weights are said to lie in another file."""
    from onnx.external_data_helper import uses_external_data

    if outside := [each.name for each in proto.graph.initializer if uses_external_data(each)]:
        expected, got = "all weights in the file", f"{outside[0]} of {path} in another"
        raise bad_input("model", expected, got, "export it again")


def read_metadata(proto: onnx.ModelProto, path: str | Path) -> dict[str, Any]:
    """A file's metadata as values, as `parse_metadata`."""
    return parse_metadata({entry.key: entry.value for entry in proto.metadata_props}, path)


def parse_metadata(stored: Mapping[str, str], path: str | Path) -> dict[str, Any]:
    """The entries under the keys of `contract`, parsed: metadata key -> JSON value.

    Args:
        stored: all of a file's entries, from wherever it was opened.
        path: for the error.

    Raises:
        InputError: there are none of `tensormask-export`, or they were changed.
    """
    ours = [key for key in stored if key.startswith(contract.METADATA_PREFIX)]
    if contract.DETECTOR not in ours:
        expected, got = "an ONNX file of tensormask-export", f"{path} without its metadata"
        fix = "only a file of tensormask-export has the whole detector inside: export it again"
        raise bad_input("model", expected, got, fix)
    try:
        found = {key: parsed_json(stored[key]) for key in ours}
    except ValueError as error:
        got = f"{path} ({str(error)[:200]})"
        raise bad_input("model", "metadata in JSON", got, "export it again") from None
    check_metadata(found, "model", path)
    return found


def windows_metadata(geometry: Geometry) -> list[dict[str, int]]:
    """The windows by level and size: `contract.WINDOWS`."""
    return [
        {
            "level": level,
            "size_id": size_id,
            "stride_px": geometry.strides_px[level],
            "side_px": geometry.side_px(level, size_id),
            "side_bins": geometry.side_bins(level, size_id),
            "bin_px": geometry.bin_px(level),
        }
        for level in range(geometry.num_levels)
        for size_id in range(geometry.num_sizes)
    ]


def check_metadata(found: Mapping[str, Any], argument: str, path: str | Path) -> None:
    """Raise InputError unless metadata is what `contract` says; `argument` begins the error."""
    kinds = contract.METADATA
    missing = (f"{key} is missing" for key in contract.NEEDED if key not in found)
    misfits = (misfit(found[key], kinds[key], key) for key in found if key in kinds)
    wrong = next(filter(None, (*missing, *misfits)), "") or _contradiction(found)
    if wrong:
        got = f"{path} ({wrong})"
        raise bad_input(argument, "metadata of tensormask-export", got, "export it again")


def _contradiction(found: Mapping[str, Any]) -> str:
    """Where the entries say other things than the configuration among them, if there is one."""
    try:
        from_json(InputConfig, found[contract.INPUT_CONFIG], contract.INPUT_CONFIG)
        if contract.MODEL_CONFIG not in found:
            return ""
        config = from_json(ModelConfig, found[contract.MODEL_CONFIG], contract.MODEL_CONFIG)
    except InputError as error:
        return str(error)
    geometry, detector = config.geometry, found[contract.DETECTOR]
    same = (
        (contract.CLASS_NAMES, list(config.class_names), found[contract.CLASS_NAMES]),
        (contract.STRIDES_PX, list(geometry.strides_px), found[contract.STRIDES_PX]),
        (contract.WINDOWS, windows_metadata(geometry), found[contract.WINDOWS]),
        ("padding_px", geometry.padding_px, found[contract.PREPROCESSING]["padding_px"]),
        ("candidates", config.topk_candidates, detector["candidates"]),
    )
    other = [name for name, expected, got in same if expected != got]
    return f"{other[0]} contradicts the model's configuration" if other else ""


def expose(proto: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """A copy in which the inner tensors `names` are outputs as well."""
    import onnx  # optional, and at hand where there is a `proto`

    exposed = onnx.ModelProto()
    exposed.CopyFrom(proto)
    described = {value.name: value for value in proto.graph.value_info}
    present = {value.name for value in proto.graph.output}
    exposed.graph.output.extend(
        described.get(name) or onnx.ValueInfoProto(name=name)
        for name in names
        if name not in present
    )
    return exposed


def raw_names(proto: onnx.ModelProto) -> list[str]:
    """The network's logits and deltas in the file, outputs or not."""
    made = [name for node in proto.graph.node for name in node.output]
    return [name for name in made if re.fullmatch(r"(logits|deltas)_\d+", name)]
