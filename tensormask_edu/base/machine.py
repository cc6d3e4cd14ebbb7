"""Where figures come from: date, versions, processor, threads, GPU. Loads no package to say so."""

from __future__ import annotations

import os
import platform
import sys
from datetime import date
from importlib import metadata
from typing import Any

from .. import __version__


def machine() -> dict[str, Any]:
    """Facts of this machine and process that stand beside every stored figure.

    Returns:
        date, versions of this package, torch and numpy, processor, and of PyTorch, where it is
        loaded, its threads and the GPU it sees.
    """
    torch = sys.modules.get("torch")
    has_gpu = torch is not None and torch.cuda.is_available()
    return {
        "date": date.today().isoformat(),
        "tensormask_edu": __version__,
        "torch": version("torch"),
        "numpy": version("numpy"),
        "processor": platform.machine(),
        "threads": torch.get_num_threads() if torch else os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch and has_gpu else None,
    }


def version(distribution: str) -> str | None:
    """The installed version of a distribution, None where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
