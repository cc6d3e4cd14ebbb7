"""An engine file and its manifest, checked before TensorRT sees a byte of it. Needs no GPU.

TensorRT trusts an engine: it holds machine code. So first comes the hash in the manifest beside
it, and the bytes that were hashed are the bytes that are loaded. Then comes what TensorRT would
say less clearly: another version, another GPU, a plugin library that is missing or another one.

next: runtimes/detections.py
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from packaging.version import Version

from tensormask_edu.base.errors import InputError, bad_input
from tensormask_edu.base.files import file_sha256, read_json
from tensormask_edu.base.values import misfit

from .. import contract
from ..onnx_file.read import check_metadata
from ..shapes import Profile, Shape
from . import plugin
from .backends import Backend, find_backend
from .device import Device

# What a manifest must say: each field by the names that lead to it
FIELDS = (
    *(("engine", name) for name in ("bytes", "sha256")),
    *(("backend", name) for name in ("name", "version")),
    ("targets", "compute_capabilities"),
    *(("profile", contract.IMAGES, name) for name in ("min", "opt", "max")),
    *(("plugin", name) for name in ("kind", "library", "sha256")),
    *(("model", "metadata", key) for key in contract.NEEDED),
)


class _Engine(TypedDict):
    bytes: int
    sha256: str


class _Backend(TypedDict):
    name: str
    version: str


class _Targets(TypedDict):
    compute_capabilities: list[str]


class _Profile(TypedDict):
    min: Shape
    opt: Shape
    max: Shape


class _Plugin(TypedDict):
    kind: plugin.Kind
    library: str | None
    sha256: str | None


class _Model(TypedDict):
    metadata: dict[str, Any]


class Manifest(TypedDict):
    """What those fields are."""

    engine: _Engine
    model: _Model
    backend: _Backend
    targets: _Targets
    profile: dict[str, _Profile]
    plugin: _Plugin


AGAIN = "build the engine again: tensormask-export engine"


@dataclass(frozen=True)
class EngineFile:
    """The bytes of an engine whose hash is that of its manifest."""

    path: Path
    plan: bytes
    manifest: Mapping[str, Any]

    @property
    def metadata(self) -> Mapping[str, Any]:
        """That of the ONNX file."""
        return self.manifest["model"]["metadata"]

    @property
    def profile(self) -> Profile:
        """The input shapes that the engine accepts."""
        shapes = self.manifest["profile"][contract.IMAGES]
        bounds = [tuple(shapes[name]) for name in ("min", "opt", "max")]
        return Profile(*bounds)  # type: ignore[arg-type]

    def backend(self) -> Backend:
        """The TensorRT that built the engine, if it is here in the same version.

        Raises:
            InputError: it is not; says which version to install.
        """
        name, version = (self.manifest["backend"][key] for key in ("name", "version"))
        try:
            here = find_backend(name)
            found = here.version
        except InputError as error:
            found = f"none ({error})"
        if found != version:  # an engine runs in the very version that built it
            fix = f"pip install {name.replace('_', '-')}=={version}, or {AGAIN}"
            raise bad_input("engine", f"{name} {version}, which built it", found, fix)
        return here

    def check_device(self, device: Device | None) -> Device:
        """The GPU, if the engine was built for it; else InputError."""
        targets = self.manifest["targets"]
        capabilities, later = targets["compute_capabilities"], targets.get("later", False)
        wanted = [*capabilities, "later"] if later else capabilities
        expected = f"a GPU of compute capability {' or '.join(wanted)}"
        if device is None:
            fix = "run the .onnx file here, engines need a GPU"
            raise bad_input("engine", expected, "no GPU", fix)
        first = min(map(Version, capabilities), default=None)
        above = later and first is not None and Version(device.capability) > first
        if device.capability not in capabilities and not above:
            got = f"{device.name} of {device.capability}"
            fix = f"{AGAIN}, on this machine or with --sm for its GPU"
            raise bad_input("engine", expected, got, fix)
        return device

    def plugin(self, library: str | Path | None = None) -> dict[str, Any]:
        """Arguments of `plugin.load`: the plugin that the engine was built with.

        Args:
            library: where the C++ library lies now; by default `$TENSORMASK_PLUGIN`, else
                beside the engine, else in the checkout's build/plugins. No place that the
                manifest names is looked at: a library is a program.

        Raises:
            InputError: no library there, or another one.
        """
        built_with = self.manifest["plugin"]
        if built_with["kind"] != "cpp":
            return {"kind": built_with["kind"]}
        name = Path(built_with["library"] or plugin.LIBRARY).name
        given = library or os.environ.get(plugin.VARIABLE)
        places = [Path(given)] if given else [self.path.parent / name, plugin.BUILT]
        # Not by Path, which raises where a name is too long
        found = next((place for place in places if os.path.isfile(place)), None)
        if found is None:
            ways = "pass --plugin-library FILE, put it beside the engine, or build it"
            expected = f"{name}, which the engine needs"
            raise bad_input("plugin", expected, "no such file", f"{ways}: {plugin.BUILD}")
        if file_sha256(found) != built_with["sha256"]:
            fix = f"take the library of the build, or {AGAIN} with this one"
            expected = f"the library of SHA-256 {built_with['sha256']}"
            raise bad_input("plugin", expected, f"another one, {found}", fix)
        return {"kind": "cpp", "library": found}


def read_engine(path: str | Path) -> EngineFile:
    """An engine and its manifest `<path>.json`.

    Raises:
        InputError: no manifest or a broken one, an engine cut off or of another hash.
    """
    path, beside = Path(path), Path(f"{path}.json")
    if not beside.is_file():
        fix = f"copy it together with the engine, or {AGAIN}"
        raise bad_input("engine", f"its manifest {beside.name} beside it", "none", fix)
    manifest = read_json(beside, "manifest")
    if missing := ["/".join(names) for names in FIELDS if not _has(manifest, names)]:
        expected, fix = f"the fields {', '.join(missing)}", f"is it of another version? {AGAIN}"
        raise bad_input("manifest", expected, f"{beside} without them", fix)
    _check_types(manifest, beside)
    try:
        plan = path.read_bytes()
    except OSError as error:
        raise bad_input("engine", "a readable file", f"{path} ({error.strerror})") from None
    if len(plan) != manifest["engine"]["bytes"]:
        expected = f"{manifest['engine']['bytes']} bytes, as its manifest says"
        got, fix = f"{len(plan)} bytes in {path}", f"copy it again, or {AGAIN}"
        raise bad_input("engine", expected, got, fix)
    if hashlib.sha256(plan).hexdigest() != manifest["engine"]["sha256"]:
        problem = f"{path} is not the file that {beside.name} describes (another SHA-256)"
        raise InputError(f"engine: {problem}; not loaded. Copy both again, or {AGAIN}")
    return EngineFile(path, plan, manifest)


def _check_types(manifest: dict[str, Any], path: Path) -> None:
    """Raise InputError for a field that the builder would not have written so."""
    wrong = misfit(manifest, Manifest, "manifest")
    capabilities = [] if wrong else manifest["targets"]["compute_capabilities"]
    if unknown := [each for each in capabilities if not re.fullmatch(r"\d{1,3}\.\d", each)]:
        wrong = f"compute capability {unknown[0][:20]!r}"
    if wrong:
        raise bad_input("manifest", "what the builder wrote", f"{path} ({wrong})", AGAIN)
    check_metadata(manifest["model"]["metadata"], "manifest", path)


def _has(manifest: Any, names: Sequence[str]) -> bool:
    """Is there a value under these names, each inside the one before?"""
    for name in names:
        if not isinstance(manifest, dict) or name not in manifest:
            return False
        manifest = manifest[name]
    return True
