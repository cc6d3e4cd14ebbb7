"""What is installed, what runs here, and what to do about the rest.

Reads the packages' metadata and imports as little as possible, so it works where little is
installed. The required versions are the ones the package itself declares. Paste its output into
a bug report.

next: demo.py
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..base.files import write_json

DISTRIBUTION = "tensormask-edu"
OLDEST_PYTHON = (3, 11)
COMPILERS = ("c++", "g++", "clang++")
SHOWN_EXTRAS = (
    "learn",
    "export",
    "tensorrt",
    "rtx",
    "cuda",
)  # `dev` concerns nobody but contributors


@dataclass(frozen=True)
class Package:
    """One package we declare: `extra` is "" for a required one; `state` ok, missing or too
    old."""

    name: str
    version: str
    minimum: str
    extra: str
    state: str

    @property
    def fix(self) -> str:
        """What to type when the state is not ok."""
        if self.state == "ok":
            return ""
        wanted = (
            f'"{DISTRIBUTION}[{self.extra}]"'
            if self.extra
            else f'"{self.name}>={self.minimum}"'
        )
        return f"pip install {wanted}"


@dataclass(frozen=True)
class Ability:
    """One thing the project can do: whether it runs here, how, and if not, what to do."""

    name: str
    runs: bool
    how: str
    fix: str = ""
    needed: bool = False  # part of what every installation must do


# --- What is installed ------------------------------------------------------------------------


def packages() -> list[Package]:
    """Every package we declare for users, with the version found here."""
    found = []
    for requirement, extra in _declared():
        name, minimum = _parts(requirement)
        version = installed_version(name)
        state = (
            "missing"
            if not version
            else "ok"
            if _numbers(version) >= _numbers(minimum)
            else "too old"
        )
        found.append(Package(name, version, minimum, extra, state))
    return found


def installed_version(name: str) -> str:
    """The version of an installed distribution, "" if there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _declared() -> list[tuple[str, str]]:
    """(requirement, extra) pairs: from the checkout's pyproject if we run in one, else as
    installed."""
    pyproject = Path(__file__).resolve().parents[2] / "pyproject.toml"
    pairs = _from_pyproject(pyproject) if pyproject.is_file() else _from_metadata()
    return [
        (requirement, extra) for requirement, extra in pairs if extra in ("", *SHOWN_EXTRAS)
    ]


def _from_pyproject(path: Path) -> list[tuple[str, str]]:
    import tomllib

    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    optional = project.get("optional-dependencies", {})
    extras = [
        (requirement, extra) for extra, wanted in optional.items() for requirement in wanted
    ]
    return [(requirement, "") for requirement in project["dependencies"]] + extras


def _from_metadata() -> list[tuple[str, str]]:
    """Lines like ``onnx>=1.20; extra == 'export'``."""
    try:
        lines = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    pairs = []
    for line in lines:
        extra = re.search(r"extra\s*==\s*['\"](\w+)['\"]", line)
        pairs.append((line.split(";")[0].strip(), extra.group(1) if extra else ""))
    return pairs


def _parts(requirement: str) -> tuple[str, str]:
    """("torch", "2.11") of "torch>=2.11"."""
    name, _, minimum = requirement.partition(">=")
    return name.strip(), minimum.strip() or "0"


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers, to compare: (2, 15, 0) of 2.15.0+cpu."""
    numbers = []
    for part in version.split("."):
        digits = re.match(r"\d+", part)
        if not digits:
            break
        numbers.append(int(digits.group()))
    return tuple(numbers)


# --- What runs here ---------------------------------------------------------------------------


def abilities() -> list[Ability]:
    """What the project can do on this machine, in the order a learner meets it."""
    return [
        _ability("NumPy reference", "numpy", lambda: f"numpy {installed_version('numpy')}"),
        _ability("operators", "torch", _operators),
        _ability("training", "torch torchvision", _training),
        _ability(
            "COCO scores",
            "pycocotools",
            lambda: f"pycocotools {installed_version('pycocotools')}",
        ),
        _ability(
            "pictures", "matplotlib", lambda: f"matplotlib {installed_version('matplotlib')}"
        ),
        _ability("lessons", "jupyterlab ipywidgets", lambda: "JupyterLab: make lab", "learn"),
        _ability(
            "ONNX export",
            "onnx onnxscript",
            lambda: f"onnx {installed_version('onnx')}",
            "export",
        ),
        _ability(
            "ONNX verify",
            "onnxruntime",
            lambda: f"ONNX Runtime {installed_version('onnxruntime')}",
            "export",
        ),
        _engine(),
        _kernels(),
    ]


def _ability(name: str, needs: str, how: Callable[[], str], extra: str = "") -> Ability:
    """Able if every package of `needs` is installed and `how`, which may import them, does not
    fail.

    Needed unless an `extra` brings it."""
    fix = f'pip install "{DISTRIBUTION}[{extra}]"' if extra else f"pip install {needs}"
    missing = [package for package in needs.split() if not installed_version(package)]
    if missing:
        return Ability(name, False, f"{' and '.join(missing)} missing", fix, not extra)
    try:
        return Ability(name, True, how(), needed=not extra)
    except (
        Exception
    ) as error:  # a broken installation may fail in any way; saying so is our job
        words = str(error).splitlines() or [""]
        return Ability(
            name, False, f"{type(error).__name__}: {words[0]}", f"reinstall: {fix}", not extra
        )


def _operators() -> str:
    from .. import ops

    return ", ".join(
        f"{device}: {found['runs']} ({found['why']})" for device, found in ops.status().items()
    )


def _training() -> str:
    import torch
    import torchvision  # noqa: F401  (fails here when it does not belong to this torch)

    if has_gpu():
        return f"on the GPU {torch.cuda.get_device_name()}"
    return f"on the CPU, {torch.get_num_threads()} threads"


def _engine() -> Ability:
    where = (
        "builds and runs engines"
        if has_gpu()
        else "builds engines; running them needs an NVIDIA GPU"
    )
    for name in ("tensorrt", "tensorrt-rtx"):
        if version := installed_version(name):
            return Ability("TensorRT engine", True, f"{name} {version}: {where}")
    return _ability("TensorRT engine", "tensorrt-rtx", lambda: "", "rtx")


def _kernels() -> Ability:
    if not has_gpu():
        return Ability(
            "CUDA kernels",
            False,
            "no NVIDIA GPU that PyTorch can use",
            "not needed for anything else",
        )
    from .. import ops

    reason = ops.missing("cuda")
    if not reason:
        return Ability("CUDA kernels", True, "compiled at first use")
    return Ability("CUDA kernels", False, reason, f'pip install "{DISTRIBUTION}[cuda]"')


def has_gpu() -> bool:
    """Whether PyTorch is here and sees an NVIDIA GPU."""
    try:
        import torch
    except Exception:  # missing or broken: told elsewhere
        return False
    return torch.cuda.is_available()


def machine() -> dict[str, str]:
    """The machine in words: what a bug report needs."""
    facts: dict[str, Callable[[], str]] = {
        "tensormask_edu": lambda: __version__,
        "python": platform.python_version,
        "system": platform.platform,
        "cores": lambda: str(os.cpu_count()),
        "free disk": lambda: f"{shutil.disk_usage(Path.cwd()).free / 2**30:.0f} GiB",
        "C++ compiler": lambda: next(
            (c for c in COMPILERS if shutil.which(c)), "none (only needed for plugins)"
        ),
        "GPU": _gpu_words,
    }
    return {name: tell() for name, tell in facts.items()}


def _gpu_words() -> str:
    if not has_gpu():
        return "none that PyTorch can use"
    import torch

    major, minor = torch.cuda.get_device_capability()
    return f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}, CUDA {torch.version.cuda}"


# --- The report -------------------------------------------------------------------------------


def examine() -> dict[str, Any]:
    """All findings as plain values: `machine`, `packages`, `abilities`, `problems`."""
    found, able = packages(), abilities()
    problems = [
        f"{p.name} is {p.state}: {p.fix}" for p in found if not p.extra and p.state != "ok"
    ]
    if sys.version_info < OLDEST_PYTHON:
        problems.append(f"Python {platform.python_version()} is too old: install 3.11 or newer")
    known = any(problems)  # a missing package explains what does not run
    problems += [
        f"{a.name}: {a.how}; {a.fix}" for a in able if a.needed and not a.runs and not known
    ]
    return {
        "machine": machine(),
        "packages": [{**asdict(p), "fix": p.fix} for p in found],
        "abilities": [asdict(a) for a in able],
        "problems": problems,
    }


def text(findings: dict[str, Any]) -> str:
    """The findings for reading."""
    lines = [f"{name:<16}{value}" for name, value in findings["machine"].items()]
    lines += ["", "Installed"]
    for p in findings["packages"]:
        needed = f"[{p['extra']}]" if p["extra"] else "required"
        lines.append(
            f"  {p['name']:<22}{p['version'] or '-':<16}{needed:<12}{p['state']:<9}{p['fix']}".rstrip()
        )
    lines += ["", "What runs here"]
    for a in findings["abilities"]:
        advice = f"  ->  {a['fix']}" if a["fix"] else ""
        lines.append(f"  {'yes' if a['runs'] else 'no ':<4}{a['name']:<18}{a['how']}{advice}")
    lines += ["", *(findings["problems"] or ["Everything required is here."])]
    return "\n".join(lines)


def run(args: argparse.Namespace) -> int:
    """Print the findings; 0 if everything required is here, else 1."""
    findings = examine()
    print(text(findings))
    if args.json:
        write_json(args.json, findings)
    return 1 if findings["problems"] else 0
