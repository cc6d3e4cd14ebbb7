"""What operator tests share: implementations as parameters, an op that can be made wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _pytest.mark import ParameterSet

from tensormask_edu.commands.check_ops import implementations


def implementation_parameters() -> list[ParameterSet]:
    """(device, implementation), those that cannot run here marked with the reason."""
    return [_parameter(*found) for found in implementations("all")]


def _parameter(device: str, name: str, reason: str) -> ParameterSet:
    if device == "cuda" and not torch.cuda.is_available():
        reason = "no CUDA device"
    marks = [pytest.mark.skip(reason=reason)] if reason else []
    return pytest.param(device, name, id=f"{device}-{name}", marks=marks)


def filled(shape: tuple[int, ...]) -> np.ndarray:
    """The fill of the golden table: x_i = ((i*7919) mod 101)/50 - 1 in flat order."""
    return ((np.arange(np.prod(shape)) * 7919 % 101) / 50 - 1).reshape(shape)


# --- a third form of the op, with mistakes to order -------------------------------------------

# What each wrong variant gets wrong; `variant` without any of these is right.
WRONG = {
    "clamped rim": {"clamp": True},
    "u and v swapped": {"swap": True},
    "half-cell shift": {"shift": 0.5},
    "parity of one axis used for both": {"one_parity": True},
    "floor instead of ceil": {"floor": True},
}


def variant(
    x: torch.Tensor,
    lam: int,
    pad_value: float = -6.0,
    *,
    clamp: bool = False,
    swap: bool = False,
    shift: float = 0.0,
    one_parity: bool = False,
    floor: bool = False,
) -> torch.Tensor:
    """The op as four contractions with matrices of hat functions, with mistakes on request."""
    _, num_v, num_u, height, width = x.shape
    rows, columns = (e // lam if floor else -(-e // lam) for e in (height, width))
    # Where each bin reads: in v and u a place, in y and x a shift of lam times the cell.
    shift_v, shift_u = _shifts(lam, num_v) + shift, _shifts(lam, num_u) + shift
    if one_parity:
        shift_u += (lam * num_u % 2 - lam * num_v % 2) / 2
    v_hats = _hats(_fine(lam, num_v, clamp), num_v)  # (lam*V, V)
    u_hats = _hats(_fine(lam, num_u, clamp), num_u)  # (lam*U, U)
    y_shift, x_shift, spec = shift_v, shift_u, "Vyh,Uxw"
    if swap:
        y_shift, x_shift, spec = shift_u, shift_v, "Uyh,Vxw"
    y_hats = _hats(lam * torch.arange(rows) + y_shift[:, None], height)  # (lam*V, rows, H)
    x_hats = _hats(lam * torch.arange(columns) + x_shift[:, None], width)  # (lam*U, columns, W)
    out = torch.einsum("Vv,Uu,nvuhw->nVUhw", v_hats.to(x), u_hats.to(x), x - pad_value)
    out = torch.einsum(f"{spec},nVUhw->nVUyx", y_hats.to(x), x_hats.to(x), out)
    missing = (-(-width // lam) - columns, -(-height // lam) - rows)
    return torch.nn.functional.pad(out, (0, missing[0], 0, missing[1])) + pad_value


def _shifts(lam: int, bins: int) -> torch.Tensor:
    """v - (lam*V - 1)/2 for each v."""
    return torch.arange(lam * bins, dtype=torch.float64) - (lam * bins - 1) / 2


def _fine(lam: int, bins: int, clamp: bool) -> torch.Tensor:
    """(v + 1/2)/lam - 1/2 for each v."""
    place = (torch.arange(lam * bins, dtype=torch.float64) + 0.5) / lam - 0.5
    return place.clamp(0, bins - 1) if clamp else place


def _hats(place: torch.Tensor, extent: int) -> torch.Tensor:
    """Weight of input index i at each place: max(0, 1 - |place - i|), a new last axis."""
    return (1 - (place[..., None] - torch.arange(extent)).abs()).clamp(min=0)
