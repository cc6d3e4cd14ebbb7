"""What is installed, what runs here, and what to do about the rest.

Reads the packages' metadata and imports as little as possible, so it works where little is
installed. The required versions are the ones the package itself declares. Paste its output into
a bug report.

next: commands/states.py
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import platform
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..base.files import write_json
from ..base.machine import gpu, in_words, version
from ..base.tables import text_table
from .states import bad_states

DISTRIBUTION = "tensormask-edu"
OLDEST_PYTHON = (3, 11)
# `dev` and `docs` concern nobody but contributors.
SHOWN_EXTRAS = ("learn", "export", "tensorrt", "rtx", "cuda")


@dataclass(frozen=True)
class Package:
    """One package we declare: `extra` "" if required; `state` ok, missing or too old."""

    name: str
    version: str
    minimum: str
    extra: str
    state: str

    @property
    def fix(self) -> str:
        """What to type when the state is not ok."""
        extra, required = f"{DISTRIBUTION}[{self.extra}]", f"{self.name}>={self.minimum}"
        wanted = extra if self.extra else required
        return "" if self.state == "ok" else f'pip install "{wanted}"'


@dataclass(frozen=True)
class Ability:
    """One thing the project can do: whether it runs here, how, and if not, what to do."""

    name: str
    runs: bool
    how: str
    fix: str = ""
    needed: bool = False  # part of what every installation must do


# --- what is installed ------------------------------------------------------------------------


def packages() -> list[Package]:
    """Every package we declare for users, with the version found here."""
    pyproject = Path(__file__).resolve().parents[2] / "pyproject.toml"
    # A checkout's own file is newer than what was written down when it was installed.
    declared = _from_pyproject(pyproject) if pyproject.is_file() else _from_metadata()
    return [
        _package(requirement, extra)
        for requirement, extra in declared
        # `learn` asks for another extra of ours, whose packages have lines of their own
        if extra in ("", *SHOWN_EXTRAS) and not requirement.startswith(DISTRIBUTION)
    ]


def _package(requirement: str, extra: str) -> Package:
    name, _, minimum = requirement.partition(">=")
    found, minimum, state = version(name) or "", minimum or "0", "missing"
    if found:
        state = "ok" if _new_enough(found, minimum) else "too old"
    return Package(name, found, minimum, extra, state)


def _new_enough(found: str, minimum: str) -> bool:
    """Whether a version reaches a minimum; its release candidates and nightly builds do too."""
    try:
        from packaging.version import Version
    except ImportError:  # its own line says so; the others are still worth reading
        return True
    return Version(Version(found).base_version) >= Version(minimum)


def _from_pyproject(path: Path) -> list[tuple[str, str]]:
    """(requirement, extra) pairs of a checkout."""
    import tomllib

    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    wanted = {"": project["dependencies"], **project.get("optional-dependencies", {})}
    return [(requirement, extra) for extra, some in wanted.items() for requirement in some]


def _from_metadata() -> list[tuple[str, str]]:
    """The same pairs of an installation, from lines like ``onnx>=1.20; extra == 'export'``."""
    try:
        lines = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    pairs = []
    for line in lines:
        extra = re.search(r"extra\s*==\s*['\"](\w+)['\"]", line)
        pairs.append((line.split(";")[0].strip(), extra[1] if extra else ""))
    return pairs


# --- what runs here ---------------------------------------------------------------------------


def abilities() -> list[Ability]:
    """What the project can do on this machine, in the order a learner meets it."""
    return [
        _ability("NumPy reference", "numpy", _named("numpy")),
        _ability("operators", "torch", _operators),
        _ability("training", "torch torchvision", _training),
        _ability("COCO scores", "pycocotools", _named("pycocotools")),
        _ability("pictures", "matplotlib", _named("matplotlib")),
        _ability("lessons", "jupyterlab", lambda: "JupyterLab: make lab", "learn"),
        _ability("ONNX export", "onnx onnxscript", _named("onnx"), "export"),
        _ability("ONNX verify", "onnxruntime", _named("onnxruntime", "ONNX Runtime"), "export"),
        _engine(),
        _kernels(),
    ]


def _ability(name: str, needs: str, how: Callable[[], str], extra: str = "") -> Ability:
    """Able if every package of `needs` is installed and `how`, which may import it, works.

    Needed unless an `extra` brings it.
    """
    fix = f'pip install "{DISTRIBUTION}[{extra}]"' if extra else f"pip install {needs}"
    missing = [package for package in needs.split() if not version(package)]
    if missing:
        return Ability(name, False, f"{' and '.join(missing)} missing", fix, not extra)
    try:
        return Ability(name, True, how(), needed=not extra)
    except Exception as error:  # a broken installation fails in any way; saying so is our job
        words = next(iter(str(error).splitlines()), "")
        reason = f"{type(error).__name__}: {words}"
        return Ability(name, False, reason, f"reinstall: {fix}", not extra)


def _named(package: str, title: str = "") -> Callable[[], str]:
    return lambda: f"{title or package} {version(package)}"


def _operators() -> str:
    from .. import ops

    found = ops.status().items()
    return ", ".join(f"{device}: {what['runs']} ({what['why']})" for device, what in found)


def _training() -> str:
    import torch

    # Its library fails here when it does not belong to this torch. Importing the package would
    # say the same and take as long as torch itself.
    found = importlib.util.find_spec("torchvision")
    folders = found.submodule_search_locations if found else None
    libraries = [file for folder in folders or () for file in Path(folder).glob("_C*")]
    for library in libraries:
        if library.suffix in (".so", ".pyd"):
            torch.ops.load_library(library)
    torch.ops.torchvision.nms  # noqa: B018  (raises if no library brought it)

    name = gpu()
    return f"on the GPU {name}" if name else f"on the CPU, {torch.get_num_threads()} threads"


def _engine() -> Ability:
    where = "builds engines; running them needs an NVIDIA GPU"
    if gpu():
        where = "builds and runs engines"
    name = "tensorrt" if version("tensorrt") else "tensorrt-rtx"
    return _ability("TensorRT engine", name, lambda: f"{name} {version(name)}: {where}", "rtx")


def _kernels() -> Ability:
    if not gpu():
        reason = "no NVIDIA GPU that PyTorch can use"
        return Ability("CUDA kernels", False, reason, "not needed for anything else")
    from .. import ops

    if reason := ops.missing("cuda"):
        return Ability("CUDA kernels", False, reason, f'pip install "{DISTRIBUTION}[cuda]"')
    return Ability("CUDA kernels", True, "compiled at first use")


# --- the findings -----------------------------------------------------------------------------


def examine() -> dict[str, Any]:
    """All findings as plain values; `problems` is what stops everything, in words."""
    found, able = packages(), abilities()  # loads torch, which then knows the GPU
    wrong = [package for package in found if not package.extra and package.state != "ok"]
    problems = [f"{package.name} is {package.state}: {package.fix}" for package in wrong]
    if sys.version_info < OLDEST_PYTHON:
        problems.append(f"Python {platform.python_version()} is too old: install 3.11 or newer")
    states = bad_states()
    problems += [
        f"{state.name}: {state.found}; {state.cure}" for state in states if state.stops
    ]
    if not problems:  # a missing package explains what does not run
        problems = [f"{a.name}: {a.how}; {a.fix}" for a in able if a.needed and not a.runs]
    return {
        "machine": in_words(),
        "packages": [{**asdict(p), "fix": p.fix} for p in found],
        "abilities": [asdict(a) for a in able],
        "states": [asdict(state) for state in states],
        "problems": problems,
    }


def text(findings: dict[str, Any]) -> str:
    """The findings for reading."""
    installed, runs = [], []
    for p in findings["packages"]:
        needed = f"[{p['extra']}]" if p["extra"] else "required"
        installed.append((p["name"], p["version"] or "-", needed, p["state"], p["fix"]))
    for a in findings["abilities"]:
        answer, advice = "yes" if a["runs"] else "no", f"  ->  {a['fix']}" if a["fix"] else ""
        runs.append((f"{answer:<4}{a['name']}", a["how"] + advice))
    known = [(s["name"], f"{s['found']}  ->  {s['cure']}") for s in findings["states"]]
    parts = [
        text_table(findings["machine"].items()),
        "Installed\n" + text_table(installed, "  "),
        "What runs here\n" + text_table(runs, "  "),
        *(["Worth knowing\n" + text_table(known, "  ")] if known else []),
        "\n".join(findings["problems"] or ["Everything required is here."]),
    ]
    return "\n\n".join(parts)


def run(args: argparse.Namespace) -> int:
    """Print the findings; 0 if everything required is here, else 1."""
    findings = examine()
    print(text(findings))
    if args.json:
        write_json(args.json, findings)
    return 1 if findings["problems"] else 0
