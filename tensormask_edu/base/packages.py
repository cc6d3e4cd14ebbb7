"""Optional packages: imported where they are needed, or named with the way to install them.

next: base/tables.py
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from .errors import bad_input


def required(package: str, extra: str) -> ModuleType:
    """Import an optional package, or say how to install it."""
    try:
        return import_module(package)
    except ImportError as error:
        fix = f'pip install "tensormask-edu[{extra}]"'
        raise bad_input(package, "this optional package", f"none ({error})", fix) from None
