"""The checks here are those of the GPU day, `benchmarks/gpu`: its folder is on the path."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
