"""Which implementation of `swap_align2nat` runs: said in words, never chosen silently.

- "cuda": our CUDA kernels, compiled at first use (CUDA tensors);
- "cpu": our C++ kernels, compiled for this processor at first use (CPU tensors);
- "formula": PyTorch operations, anywhere.

By default the first that can run for a tensor's device runs, in this order; `use` forces one.
Each is a module with the functions `forward`, `backward`, `forward_windows`,
`backward_windows`.

next: ops/formula.py
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from ..base.errors import bad_input

# Best first, per kind of device.
ORDER = {"cpu": ("cpu", "formula"), "cuda": ("cuda", "formula")}
KERNEL_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# What a kernel computes of `ops.resample`, and so of the mask heads
KNOWN_RULE = "swap_align2nat alone (step lam, skew 1, edge pad): bipyramid, simple aligned head"
_forced = "auto"


@contextmanager
def use(name: str) -> Iterator[None]:
    """Within the block, run `name`: "cuda", "cpu", "formula", or "auto", the default choice.

    Holds for the whole process, because the backward pass of a CUDA tensor runs in another
    thread. Raises InputError if `name` is unknown or cannot run here.
    """
    global _forced
    if name not in ("auto", "cuda", "cpu", "formula"):
        raise bad_input("implementation", "'auto', 'cuda', 'cpu' or 'formula'", repr(name))
    if name != "auto" and (reason := missing(name)):
        raise bad_input(
            "implementation", "one that can run here", f"{name!r}: {reason}", "see ops.status()"
        )
    before, _forced = _forced, name  # blocks may be nested
    try:
        yield
    finally:
        _forced = before


def missing(name: str) -> str:
    """Why an implementation cannot run here; "" if it can. Asking may compile it."""
    return "" if name == "formula" else _found(name)[0]


def status() -> dict[str, dict[str, str]]:
    """What runs and why, per kind of device, and which mask heads it computes.

    Heads of another rule than a kernel's are computed by the formula.

    Returns:
        {"cpu": {"runs": "cpu", "why": "compiled with ...", "rule": "swap_align2nat ..."}, ...}
    """
    found = {device: _status(device) for device in ORDER}
    for what in found.values():
        what["rule"] = {"formula": "every rule", "nothing": "none"}.get(
            what["runs"], KNOWN_RULE
        )
    return found


def implementation(tensor: Tensor) -> ModuleType:
    """The module that computes the op for this tensor. InputError if a forced one cannot."""
    return _chosen(tensor.device.type, tensor.dtype, _forced)


# The choice is kept, as the op asks at every call: what is missing does not appear while a
# process runs.
@cache
def _chosen(device: str, dtype: torch.dtype, forced: str) -> ModuleType:
    order = ORDER.get(device, ("formula",))  # "meta", "mps", ...: PyTorch alone
    if dtype not in KERNEL_DTYPES:  # float8 and others
        order = ("formula",)
    if forced == "auto":
        return _module(next(name for name in order if not missing(name)))
    if forced not in order:
        expected = f"one for {device} tensors of {dtype}: {', '.join(order)}"
        raise bad_input("implementation", expected, repr(forced), "leave the choice to 'auto'")
    return _module(forced)


@cache
def _module(name: str) -> ModuleType:
    # A module is imported when it is asked for: `cuda` would cost every CPU user its import.
    return import_module(f".{name}", __package__)


@cache
def _found(name: str) -> tuple[str, str]:
    """Of a kernel implementation: why it cannot run ("" if it can), and what it is."""
    if name == "cuda" and not torch.cuda.is_available():
        return "no CUDA device is visible to PyTorch", ""
    runs, text = _module(name).available()  # this may compile
    return ("", text) if runs else (text, "")


def _status(device: str) -> dict[str, str]:
    if device == "cuda" and not torch.cuda.is_available():
        return {"runs": "nothing", "why": "no CUDA device is visible to PyTorch"}
    if _forced != "auto":
        return {
            "runs": _forced if _forced in ORDER[device] else "nothing",
            "why": f"forced: {_forced!r}",
        }
    kernel = ORDER[device][0]
    reason, text = _found(kernel)
    if reason:
        return {"runs": "formula", "why": f"{kernel}: {reason}"}
    return {"runs": kernel, "why": text}
