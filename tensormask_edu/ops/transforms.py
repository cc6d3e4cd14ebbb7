"""The paper's coordinate transforms in PyTorch: those of the reference, fast, differentiable.

A mask tensor has shape (N, V, U, H, W): at every cell (y, x) of an H x W grid it holds a V x U
sub-tensor; sigma_hw and sigma_vu are the pixels between neighbouring cells and sub-tensor
entries. Every transform is linear interpolation and treats the axis pairs (v, y) and (u, x)
alike, so all are one operator, `resample`, with other numbers: for each output (v', y') a table
lists the few inputs (v, y) to sum and their weights, the same for (u', x'); weight that falls
outside the tensor goes to the pad value. The backward pass gathers through the transposed
tables: no atomics, the same bits in every run. All transforms are linear, so all derivatives
exist.

Any floating dtype (16-bit ones are summed in float32), any device, any strides, empty batches
and grids.

twin: reference/transforms.py

next: ops/windows.py
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..base.errors import bad_input, require

# --- the transforms ---------------------------------------------------------------------------


def align2nat(
    x: Tensor,
    *,
    sigma_hw: float = 1,
    sigma_vu: float = 1,
    aligned_sigma_hw: float | None = None,
    aligned_sigma_vu: float | None = None,
    pad_value: float = -6.0,
) -> Tensor:
    """Aligned to natural representation (section 3; unequal units: appendix A.1).

    F(v, u, y, x) = F^(v^, u^, y^, x^) with v^ = (sigma_vu / aligned_sigma_vu) * v and
    y^ = (sigma_hw * y + sigma_vu * v) / aligned_sigma_hw; u^ and x^ alike.

    x: (N, V, U, H, W) aligned, any floating dtype.
    sigma_hw, sigma_vu: units of the natural result; aligned_*: units of x (None: the same).
    out: (N, V*r, U*r, ceil(H*s), ceil(W*s)),
        r = aligned_sigma_vu / sigma_vu, s = aligned_sigma_hw / sigma_hw.
    Raises InputError if V*r or U*r is no integer, or a unit is not positive.
    """
    hat_hw = sigma_hw if aligned_sigma_hw is None else aligned_sigma_hw  # the paper's hats
    hat_vu = sigma_vu if aligned_sigma_vu is None else aligned_sigma_vu
    size = _scaled_size(x, (hat_vu, sigma_vu), (hat_hw, sigma_hw))
    return _resample(x, size, sigma_hw / hat_hw, sigma_vu / hat_hw, "pad", pad_value)


def nat2align(
    x: Tensor,
    *,
    sigma_hw: float = 1,
    sigma_vu: float = 1,
    aligned_sigma_hw: float | None = None,
    aligned_sigma_vu: float | None = None,
    pad_value: float = -6.0,
) -> Tensor:
    """Natural to aligned representation, by the inverse map of coordinates (the same sections).

    F^(v^, u^, y^, x^) = F(v, u, y, x) with v = (aligned_sigma_vu / sigma_vu) * v^ and
    y = (aligned_sigma_hw * y^ - aligned_sigma_vu * v^) / sigma_hw; u and x alike.

    x: (N, V, U, H, W) natural, any floating dtype.
    sigma_hw, sigma_vu: units of x; aligned_*: units of the aligned result (None: the same).
    out: (N, V/r, U/r, ceil(H/s), ceil(W/s)),
        r = aligned_sigma_vu / sigma_vu, s = aligned_sigma_hw / sigma_hw.
    Raises InputError if V/r or U/r is no integer, or a unit is not positive.
    """
    hat_hw = sigma_hw if aligned_sigma_hw is None else aligned_sigma_hw  # the paper's hats
    hat_vu = sigma_vu if aligned_sigma_vu is None else aligned_sigma_vu
    size = _scaled_size(x, (sigma_vu, hat_vu), (sigma_hw, hat_hw))
    return _resample(x, size, hat_hw / sigma_hw, -hat_vu / sigma_hw, "pad", pad_value)


def up_bilinear(x: Tensor, lam: float, edge: str = "pad", pad_value: float = -6.0) -> Tensor:
    """Bilinear upscaling of every sub-tensor by lam, half-pixel centres (section 3).

    x: (N, V, U, H, W) -> out: (N, lam*V, lam*U, H, W).
    lam: real, >= 1, and such that lam*V and lam*U are integers.
    edge: beyond the sub-tensor's border lies `pad_value` ("pad") or the border entry repeated
    ("clamp"). Raises InputError for any other lam or edge.
    """
    _check_edge(edge)
    return _resample(x, _upscaled_size(x, lam), 1, 0, edge, pad_value)


def up_nearest(x: Tensor, lam: float) -> Tensor:
    """Nearest-neighbour upscaling of every sub-tensor by lam, half-pixel centres (section 3).

    x: (N, V, U, H, W) -> out: (N, lam*V, lam*U, H, W),
        out[v, u] = x[floor((v + 1/2)/lam), floor((u + 1/2)/lam)].
    Raises InputError unless lam >= 1 and lam*V, lam*U are integers.
    """
    return _resample(x, _upscaled_size(x, lam), 1, 0, "nearest", 0.0)


def up_align2nat(x: Tensor, lam: float, edge: str = "pad", pad_value: float = -6.0) -> Tensor:
    """`align2nat` after `up_bilinear`: coarse aligned bins to fine natural ones (section 3).

    x: (N, V, U, H, W), sigma_vu = lam * sigma_hw
    out: (N, lam*V, lam*U, H, W), sigma_vu = sigma_hw.
    Arguments and errors: see `up_bilinear`. It is one pass: upscaling moves v and u only, the
    shift y and x only.
    """
    _check_edge(edge)
    return _resample(x, _upscaled_size(x, lam), 1, 1, edge, pad_value)


def subsample(x: Tensor, lam: int) -> Tensor:
    """Keep every lam-th cell in y and x, starting at 0 (section 3). A view.

    x: (N, V, U, H, W) -> out: (N, V, U, ceil(H/lam), ceil(W/lam)).
    Raises InputError unless lam is an integer >= 1.
    """
    check_tensor(x)
    check_integer_lam(lam)
    return x[:, :, :, ::lam, ::lam]  # (N, V, U, ceil(H/lam), ceil(W/lam))


# --- what is refused --------------------------------------------------------------------------


LARGEST = 1 << 20  # a unit, a factor: beyond it no extent of a result fits in 64 bits
MOST_COUNTED = 1 << 59  # entries, of up to 8 bytes
MOST_PLACES = 1 << 22  # of a table, 256 MB; 480 bins on 1,500 cells are a sixth


def check_tensor(x: Tensor) -> None:
    """InputError unless x is a dense floating (N, V, U, H, W) tensor with V, U >= 1."""
    if not isinstance(x, Tensor) or x.dim() != 5 or x.shape[1] < 1 or x.shape[2] < 1:
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise bad_input(
            "x", "a tensor (N, V, U, H, W) with V, U >= 1", got, "view V*U channels as V, U"
        )
    if not x.is_floating_point():
        raise bad_input("x", "a floating dtype", x.dtype, "convert it, x.float()")
    if x.layout != torch.strided:
        raise bad_input("x", "a dense tensor", x.layout, "convert it, x.to_dense()")


def is_number(value: object) -> bool:
    """Whether a value is a number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_integer_lam(lam: int) -> None:
    """InputError unless lam is an integer >= 1."""
    if isinstance(lam, bool) or not isinstance(lam, int) or not 1 <= lam <= LARGEST:
        fix = f"1 keeps the units, {LARGEST} is the most"
        raise bad_input("lam", "an integer >= 1", repr(lam), fix)


def check_index(index: Tensor, bounds: Sequence[int]) -> None:
    """InputError unless every (n, y, x) lies in the output grid, `bounds`."""
    # Values exist only when the op runs, so it is checked there.
    if index.device.type == "cuda":  # asynchronous: the values are not waited for
        inside = (index >= 0).all()
        for column, bound in zip(index.unbind(1), bounds, strict=True):
            inside &= (column < bound).all()
        torch._assert_async(
            inside, f"index: expected 0 <= (n, y, x) < {tuple(bounds)}, the output grid"
        )
    elif len(index) and not index.is_meta:
        low, high = (bound.tolist() for bound in torch.aminmax(index, dim=0))
        if min(low) < 0 or any(end >= bound for end, bound in zip(high, bounds, strict=True)):
            raise bad_input(
                "index",
                f"0 <= (n, y, x) < {tuple(bounds)}, the output grid",
                f"{low} to {high}",
            )


def check_pad(pad_value: float, dtype: torch.dtype) -> None:
    """InputError unless pad_value is a finite number, also in a tensor of this dtype.

    A sum of four of them has to be finite too, where sums are formed: in float32 at least.
    """
    # It is compared with numbers, because torch.compile cannot trace math.isfinite.
    sums = torch.float64 if dtype == torch.float64 else torch.float32
    most = min(torch.finfo(dtype).max, torch.finfo(sums).max / 4)
    if not isinstance(pad_value, int | float) or not -most <= pad_value <= most:
        expected, fix = f"a finite number of {dtype}", "-6 stands for an empty mask"
        raise bad_input("pad_value", expected, repr(pad_value), fix)


def check_countable(shape: Sequence[int]) -> None:
    """InputError unless PyTorch can count the entries of a result of this shape."""
    # It counts the strides of what is empty too, and overflows
    countable = math.prod(max(extent, 1) for extent in shape) < MOST_COUNTED
    require(countable, "lam, units", "a result whose sizes can be multiplied", tuple(shape))


def _check_edge(edge: str) -> None:
    if edge not in ("pad", "clamp"):
        raise bad_input("edge", "'pad' or 'clamp'", repr(edge))


# --- the extents of the output ----------------------------------------------------------------


def _scaled_size(x: Tensor, vu: tuple[float, float], hw: tuple[float, float]) -> list[int]:
    """Output extents (V, U, H, W): V, U times vu[0] / vu[1], and H, W times hw[0] / hw[1]."""
    check_tensor(x)
    if not all(is_number(unit) and 1 / LARGEST <= unit <= LARGEST for unit in (*vu, *hw)):
        expected = f"positive units, from 1/{LARGEST} to {LARGEST}"
        raise bad_input("sigma_vu, sigma_hw", expected, f"sigma_vu {vu}, sigma_hw {hw}")
    num_v, num_u = (
        _side(extent * vu[0] / vu[1], "sigma_vu / aligned_sigma_vu") for extent in x.shape[1:3]
    )
    if hw[0] == hw[1]:  # also where H and W are symbols, while a graph is traced
        return [num_v, num_u, x.shape[3], x.shape[4]]
    # A ratio like 0.3 / 0.1 must not round up to one cell more.
    grid = (math.ceil(round(extent * hw[0] / hw[1], 9)) for extent in x.shape[3:])
    return [num_v, num_u, *grid]


def _upscaled_size(x: Tensor, lam: float) -> list[int]:
    """Output extents (V, U, H, W): V and U times lam, which must give integers."""
    check_tensor(x)
    if not is_number(lam) or not 1 <= lam <= LARGEST:
        raise bad_input("lam", "a number >= 1", repr(lam), f"at most {LARGEST}")
    num_v, num_u = (_side(lam * extent, "lam") for extent in x.shape[1:3])
    return [num_v, num_u, x.shape[3], x.shape[4]]


def _side(side: float, cause: str) -> int:
    """`side` as a whole number of bins, rounding errors forgiven."""
    if side < 0.5 or abs(side - round(side)) > 1e-9:
        raise bad_input(cause, "a ratio that gives an integer sub-tensor side", f"side {side}")
    return round(side)


def _resample(
    x: Tensor, size: list[int], step: float, skew: float, edge: str, pad_value: float
) -> Tensor:
    """(N, V, U, H, W) -> (N, *size); `pair_table` tells what step, skew and edge mean."""
    check_pad(pad_value, x.dtype)
    return torch.ops.tensormask_edu.resample(x, size, step, skew, edge, pad_value)


# --- tables: which inputs an output reads -----------------------------------------------------


class Rule(NamedTuple):
    """The numbers that make `resample` one transform rather than another; see `pair_table`.

    step: input cells from one output cell to the next. skew: input cells by which a bin reads
    beside its own cell, per bin. edge: what lies beyond the sub-tensor's border, the pad value
    ("pad") or the border entry ("clamp"); or "nearest", which reads one entry instead of two.
    """

    step: float
    skew: float
    edge: str


class Table(NamedTuple):
    """A map of one axis pair: output j sums weight[t, j] * input[place[t, j]] over t.

    place: (T, J) int64, weight: (T, J), T taps of J = V' * H' outputs; outside: (J,) the weight
    left for the pad value.
    """

    place: Tensor
    weight: Tensor
    outside: Tensor


def pair_table(
    extents: tuple[int, int], size: tuple[int, int], step: float, skew: float, edge: str
) -> Table:
    """Where each output (v', y') reads the inputs (v, y), float64, on the CPU.

    extents, size: (V, H) of the input and of the output.
    v = (v' + 1/2) * V/V' - 1/2 (half-pixel centres), y = step * y' + skew * (v' - (V'-1)/2).
    """
    (num_v, num_y), (out_v, out_y) = extents, size
    if out_v * out_y > MOST_PLACES:
        expected = f"a result of at most {MOST_PLACES} bins x cells along an axis pair"
        raise bad_input("lam, units", expected, f"{out_v} x {out_y}")
    v_out = torch.arange(out_v, dtype=torch.float64, device="cpu")[:, None]  # (V', 1)
    # (v' + 1/2) * V/V' - 1/2, as one division: exact where it can be
    v_in = ((2 * v_out + 1) * num_v - out_v) / (2 * out_v)
    y_out = torch.arange(out_y, dtype=torch.float64, device="cpu")
    y_in = step * y_out + skew * (v_out - (out_v - 1) / 2)  # (V', H')
    if edge == "clamp":
        v_in = v_in.clamp(0, num_v - 1)  # beyond the border lies the border itself
    if edge == "nearest":
        v_in = torch.div((2 * v_out + 1) * num_v, 2 * out_v, rounding_mode="floor")
    places, weights = [], []
    for v, v_weight in _taps(v_in.expand_as(y_in), num_v):
        for y, y_weight in _taps(y_in, num_y):
            places.append((v * num_y + y).reshape(-1))  # flat input (v, y); (V'H',)
            weights.append((v_weight * y_weight).reshape(-1))
    place, weight = torch.stack(places), torch.stack(weights)  # (4, V'H')
    used = weight.any(dim=1)  # lam = 1 needs one tap where others need two
    return Table(place[used], weight[used], 1 - weight.sum(dim=0))


def _taps(coordinate: Tensor, extent: int) -> list[tuple[Tensor, Tensor]]:
    """The two neighbours of a real index and their linear weights, 0 outside 0..extent-1."""
    lower = coordinate.floor()
    fraction = coordinate - lower
    taps = []
    for tap, weight in ((lower, 1 - fraction), (lower + 1, fraction)):
        inside = (tap >= 0) & (tap < extent)
        # What is outside is led inside, to be read with weight 0.
        taps.append((tap.clamp(0, extent - 1).long(), weight * inside))
    return taps


def transposed(table: Table, num_inputs: int) -> Table:
    """The table of the transposed map: input i sums its readers. Nothing falls outside."""
    # The map as a matrix has these entries: output, input, weight.
    taps, outputs = table.weight.nonzero(as_tuple=True)
    inputs, weight = table.place[taps, outputs], table.weight[taps, outputs]
    order = inputs.argsort(stable=True)  # by input: its readers stand side by side
    inputs, outputs, weight = inputs[order], outputs[order], weight[order]
    readers = inputs.bincount(minlength=num_inputs)
    # Which of its input's readers each entry is: the tap that it becomes.
    rank = torch.arange(len(inputs), device="cpu") - (readers.cumsum(0) - readers)[inputs]
    shape = (int(readers.max()) if len(inputs) else 0, num_inputs)
    place_t, weight_t = inputs.new_zeros(shape), weight.new_zeros(shape)
    # Inputs with fewer readers keep place 0 with weight 0.
    place_t[rank, inputs] = outputs
    weight_t[rank, inputs] = weight
    return Table(place_t, weight_t, weight.new_zeros(num_inputs))


@lru_cache(maxsize=256)
def cached_table(
    extents: tuple[int, int],
    size: tuple[int, int],
    rule: Rule,
    transpose: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> Table:
    """The table of a map or its transpose, kept: a network asks for the same few again."""
    table = pair_table(extents, size, *rule)
    if transpose:
        table = transposed(table, extents[0] * extents[1])
    return Table(
        table.place.to(device), table.weight.to(device, dtype), table.outside.to(device, dtype)
    )


def apply_tables(x: Tensor, vy: Table, ux: Table, size: list[int], pad_value: float) -> Tensor:
    """Both axis pairs in turn, each a gather of rows: (N, V, U, H, W) -> (N, *size)."""
    num, num_v, num_u, height, width = x.shape
    out_v, out_u, out_y, out_x = size
    # Rows of one axis pair, columns of the other: (N, VH, UW)
    rows = x.permute(0, 1, 3, 2, 4).reshape(num, num_v * height, num_u * width)
    rows = _gather_rows(rows, vy, pad_value)  # (N, V'H', UW)
    rows = _gather_rows(rows.mT.contiguous(), ux, pad_value)  # (N, U'W', V'H')
    return rows.view(num, out_u, out_x, out_v, out_y).permute(0, 3, 1, 4, 2).contiguous()


def _gather_rows(rows: Tensor, table: Table, pad_value: float) -> Tensor:
    """(N, I, R) -> (N, J, R): an output row is a weighted sum of input rows and the pad."""
    size = (len(rows), len(table.outside), rows.shape[2])
    # What each output takes from outside, the pad value, is there first.
    out = (table.outside * pad_value)[:, None].expand(size).contiguous()
    # One buffer for all taps: fresh memory costs more time than the arithmetic.
    gathered = torch.empty_like(out)
    for place, weight in zip(table.place, table.weight, strict=True):
        torch.index_select(rows, 1, place, out=gathered)
        out.addcmul_(gathered, weight[:, None])
    return out


# --- the op `resample` and its adjoint, registered with PyTorch -------------------------------


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Values of 16 bits (or 8) are summed in float32."""
    return torch.float32 if dtype.itemsize < 4 else dtype


def resample_kernel(
    x: Tensor, size: list[int], step: float, skew: float, edge: str, pad_value: float
) -> Tensor:
    """(N, V, U, H, W) -> (N, *size), size (V', U', H', W'); see `pair_table`."""
    if x.numel() == 0 or 0 in size:  # no entries, so no tables
        shape = (len(x), *size)
        check_countable(shape)
        return x.new_full(shape, pad_value)
    dtype = accumulation_dtype(x.dtype)  # sums are rounded once, at the end
    key = (Rule(step, skew, edge), False, dtype, x.device)
    _, num_v, num_u, height, width = x.shape
    vy = cached_table((num_v, height), (size[0], size[2]), *key)
    ux = cached_table((num_u, width), (size[1], size[3]), *key)
    return apply_tables(x.to(dtype), vy, ux, size, pad_value).to(x.dtype)


def resample_adjoint_kernel(
    grad: Tensor, size: list[int], step: float, skew: float, edge: str
) -> Tensor:
    """(N, V', U', H', W') -> (N, *size): the transposed map, size (V, U, H, W) of the input."""
    if grad.numel() == 0 or 0 in size:
        return grad.new_zeros((len(grad), *size))
    dtype = accumulation_dtype(grad.dtype)
    key = (Rule(step, skew, edge), True, dtype, grad.device)
    _, out_v, out_u, out_y, out_x = grad.shape
    vy = cached_table((size[0], size[2]), (out_v, out_y), *key)
    ux = cached_table((size[1], size[3]), (out_u, out_x), *key)
    return apply_tables(grad.to(dtype), vy, ux, size, 0.0).to(grad.dtype)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, _, *ctx.rule = inputs[:5]
    ctx.size = x.shape[1:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_x = torch.ops.tensormask_edu.resample_adjoint(grad, ctx.size, *ctx.rule)
    return grad_x, None, None, None, None, None


def _adjoint_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_y = torch.ops.tensormask_edu.resample(grad, ctx.size, *ctx.rule, 0.0)
    return grad_y, None, None, None, None


def register(
    schema: str,
    kernel: Callable[..., Tensor],
    fake: Callable[..., Tensor],
    save: Callable[..., None],
    backward: Callable[..., tuple[Tensor | None, ...]],
) -> None:
    """One op of ours: schema, kernel for every device, shape rule for tracing, derivative."""
    name = f"tensormask_edu::{schema.partition('(')[0]}"
    # "default": this kernel for every device; which implementation runs is its own affair.
    torch.library.define(name, schema[schema.index("(") :])
    torch.library.impl(name, "default", kernel)
    torch.library.register_fake(name, fake)
    torch.library.register_autograd(name, backward, setup_context=save)


def _fake(x: Tensor, size: list[int], *rule: Any) -> Tensor:
    return x.new_empty((x.shape[0], *size))


register(
    "resample(Tensor x, SymInt[] size, float step, float skew, str edge, float pad_value)"
    " -> Tensor",
    resample_kernel,
    _fake,
    _save,
    _backward,
)
register(
    "resample_adjoint(Tensor grad, SymInt[] size, float step, float skew, str edge) -> Tensor",
    resample_adjoint_kernel,
    _fake,
    _save,
    _adjoint_backward,
)
