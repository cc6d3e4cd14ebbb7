"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden vectors and data sets: `TENSORMASK_SHARED`, by default beside the checkout."""
    folder = Path(os.environ.get("TENSORMASK_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("no shared data (golden vectors, data sets): set TENSORMASK_SHARED to their folder")
    return folder
