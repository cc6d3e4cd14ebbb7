"""The GPU of this machine, if there is one.

next: engine/backends.py
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """A GPU."""

    name: str
    capability: str  # "8.6"
    driver: str  # the kernel module's version


def find_device() -> Device | None:
    """The GPU that PyTorch uses, or None."""
    import torch  # heavy, and only who runs or builds for a GPU asks

    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return Device(properties.name, f"{properties.major}.{properties.minor}", driver_version())


def driver_version() -> str:
    """As nvidia-smi says; "unknown" without it."""
    if not shutil.which("nvidia-smi"):
        return "unknown"
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    lines = subprocess.run(words, capture_output=True, text=True).stdout.splitlines()
    return lines[0].strip() if lines else "unknown"
