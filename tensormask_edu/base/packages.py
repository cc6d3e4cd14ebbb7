"""Optional packages: imported where they are needed, or named with the way to install them.

next: base/tables.py
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from .errors import bad_input


def required(package: str, extra: str) -> ModuleType:
    """Import an optional package, or say how to install it."""
    try:
        return import_module(package)
    except ImportError as error:
        fix = f'pip install "tensormask-edu[{extra}]"'
        raise bad_input(package, "this optional package", f"none ({error})", fix) from None


def import_torchvision() -> None:
    """Import torchvision without torch's compiler, if neither has been imported yet.

    torchvision's `roi_align` takes one function from the compiler, to be called only where
    deterministic algorithms are asked for. To load the compiler for it takes as long as all the
    rest of torch. So modules that stand in for it give that function, which loads the compiler
    when it is called, and are gone after the import.
    """
    names = ("torch._dynamo", "torch._dynamo.utils")
    import_module("torch")  # by itself: it looks at its own modules
    if any(name in sys.modules for name in (*names, "torchvision")):
        return

    def is_compile_supported(device_type: str) -> bool:
        supported: bool = import_module(names[1]).is_compile_supported(device_type)
        return supported

    def stand_in(name: str) -> ModuleType:
        def real(attribute: str) -> Any:  # another torchvision wants more of it
            if attribute.startswith("__"):  # `inspect` asks every module for its file
                raise AttributeError(attribute)
            leave()
            return getattr(import_module(name), attribute)

        module = ModuleType(name)
        vars(module)["__getattr__"] = real
        return module

    def leave() -> None:
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]

    stand_ins = {name: stand_in(name) for name in names}
    vars(stand_ins[names[1]])["is_compile_supported"] = is_compile_supported
    sys.modules.update(stand_ins)
    try:
        import_module("torchvision")
    finally:
        leave()
