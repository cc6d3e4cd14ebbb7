"""Which implementation of `swap_align2nat` runs: said in words, never chosen silently.

- "cuda": our CUDA kernels, compiled by NVRTC at first use (CUDA tensors);
- "host": the same kernel source compiled for this processor at first use (CPU tensors);
- "formula": PyTorch operations, anywhere.

By default the first that works for a tensor's device runs, in this order. `use` forces one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import bad_input

# Best first, per kind of device.
ORDER = {"cpu": ("host", "formula"), "cuda": ("cuda", "formula")}
_forced: str | None = None


def missing(name: str) -> str:
    """Why an implementation cannot run here; "" if it can."""
    if name == "formula":
        return ""
    return "not part of this version"


@contextmanager
def use(name: str) -> Iterator[None]:
    """Within the block, run `name` ("cuda", "host", "formula") or nothing; "auto" is the default choice.

    For the whole process: the backward pass of a CUDA tensor runs in another thread.
    Raises InputError if `name` is unknown or cannot run here.
    """
    global _forced
    if name not in ("auto", "cuda", "host", "formula"):
        raise bad_input("implementation", "'auto', 'cuda', 'host' or 'formula'", repr(name))
    if name != "auto" and (reason := missing(name)):
        raise bad_input("implementation", "one that runs here", f"{name!r}: {reason}", "see ops.status()")
    before, _forced = _forced, None if name == "auto" else name
    try:
        yield
    finally:
        _forced = before


def chosen(device: torch.device) -> str:
    """The implementation for a tensor on `device`."""
    order = ORDER.get(device.type, ("formula",))
    if _forced is None:
        return next(name for name in order if not missing(name))
    if _forced not in order:
        raise bad_input("implementation", f"one for {device.type} tensors: {order}", repr(_forced))
    return _forced


def status() -> dict[str, dict[str, str]]:
    """Per kind of device: what runs, and why not the others. {"cpu": {"runs": "host", "why": "..."}, ...}"""
    return {device: _status(device) for device in ORDER}


def _status(device: str) -> dict[str, str]:
    if device == "cuda" and not torch.cuda.is_available():
        return {"runs": "nothing", "why": "no NVIDIA GPU is visible to PyTorch"}
    runs = chosen(torch.device(device)) if _forced is None or _forced in ORDER[device] else "nothing"
    if _forced is not None:
        return {"runs": runs, "why": f"forced: {_forced!r}"}
    reasons = [f"{name}: {missing(name)}" for name in ORDER[device] if missing(name)]
    return {"runs": runs, "why": "; ".join(reasons) or "the best one runs"}
