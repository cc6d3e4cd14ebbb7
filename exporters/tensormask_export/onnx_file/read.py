"""An ONNX file of ours: its graph, its metadata, its inner tensors. Needs no torch.

next: engine/device.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensormask_edu.base.errors import InputError, bad_input
from tensormask_edu.base.packages import required

from .. import contract

if TYPE_CHECKING:
    import onnx


def read_onnx(path: str | Path) -> onnx.ModelProto:
    """Read an ONNX file of ours; anything else is an InputError."""
    onnx = required("onnx", "export")
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if not Path(path).is_file():
        raise bad_input("model", "an existing ONNX file", path, "check the path")
    try:
        proto = onnx.load(path)
        onnx.checker.check_model(proto)
    except (DecodeError, onnx.checker.ValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        problem = f"{path} is not a whole ONNX file ({reason}); export it again"
        raise InputError(f"model: {problem}") from None
    return proto


def read_metadata(proto: onnx.ModelProto, path: str | Path) -> dict[str, Any]:
    """A file's metadata as values, as `parse_metadata`."""
    return parse_metadata({entry.key: entry.value for entry in proto.metadata_props}, path)


def parse_metadata(stored: Mapping[str, str], path: str | Path) -> dict[str, Any]:
    """The entries under the keys of `contract`, parsed: metadata key -> JSON value.

    Args:
        stored: all of a file's entries, from wherever it was opened.
        path: for the error.

    Raises:
        InputError: there are none of `tensormask-export`.
    """
    ours = [key for key in stored if key.startswith(contract.METADATA_PREFIX)]
    found = {key: json.loads(stored[key]) for key in ours}
    if contract.DETECTOR not in found:
        expected, got = "an ONNX file of tensormask-export", f"{path} without its metadata"
        fix = "only a file of tensormask-export has the whole detector inside: export it again"
        raise bad_input("model", expected, got, fix)
    return found


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
