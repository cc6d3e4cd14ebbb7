"""The custom ops as ONNX functions of standard operators: what runs where no plugin is.

A node `SwapAlign2Nat` with a model-local function of the same name runs in ONNX Runtime, in
onnx.reference and in TensorRT without the plugin; TensorRT with the plugin takes the plugin.
Both bodies work on x - pad_value with zeros outside: tap weights sum to one, so that is exactly
the padding rule.

The decorated functions are never called: `onnxscript` reads their source text and writes the
function. Helpers take no attributes: TensorRT-RTX 1.7 reads an attribute that one function
hands on to another as 0, without a word. Positions are int64 or float32 and become the type of
x only as weights, so half precision is safe.

next: onnx_file/translations.py
"""

# mypy: ignore-errors
# (the text below a decorator is ONNX, not Python)

from __future__ import annotations

import onnx
from onnxscript import opset20 as op
from onnxscript import script, values

from .. import contract

DOMAIN = values.Opset(contract.DOMAIN, contract.DOMAIN_VERSION)
FLOAT32, INT32 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT32


@script(DOMAIN, default_opset=op)
def Hat(position, extent):  # noqa: N802 - the name in the graph
    """Weights of linear interpolation: out[..., i] = max(0, 1 - |position - i|).

    position: (...) float32, extent: int64 scalar
    out: (..., extent) float32
    """
    zero = op.Constant(value_int=0)
    one = op.Constant(value_int=1)
    last = op.Constant(value_ints=[-1])
    index = op.Cast(op.Range(zero, extent, one), to=FLOAT32)  # (extent,)
    return op.Relu(1.0 - op.Abs(op.Unsqueeze(position, last) - index))  # (..., extent)


@script(DOMAIN, default_opset=op)
def SwapAlign2Nat(x, lam: int, pad_value: float):  # noqa: N802
    """The formula of `ops.swap_align2nat`: four contractions with hat matrices.

    x: (N, V, U, H, W)
    out: (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam)) dtype of x

    Letters: v u y x index the input, p q j i the output in the same order; H' = ceil(H/lam).
    The row axes are done first, so that the largest intermediate is lam, not lam * lam, times
    the input.
    """
    zero = op.Constant(value_int=0)
    one = op.Constant(value_int=1)
    last = op.Constant(value_ints=[-1])
    ratio = op.Constant(value_int=lam)
    scale = op.Cast(ratio, to=FLOAT32)
    pad = op.CastLike(op.Constant(value_float=pad_value), x)
    shape = op.Shape(x)
    bins_v = op.Gather(shape, 1)
    bins_u = op.Gather(shape, 2)
    height = op.Gather(shape, 3)
    width = op.Gather(shape, 4)
    p = op.Cast(op.Range(zero, ratio * bins_v, one), to=FLOAT32)  # (lam*V,)
    q = op.Cast(op.Range(zero, ratio * bins_u, one), to=FLOAT32)  # (lam*U,)
    j = op.Cast(op.Range(zero, (height + ratio - 1) / ratio, one), to=FLOAT32)  # (H',)
    i = op.Cast(op.Range(zero, (width + ratio - 1) / ratio, one), to=FLOAT32)  # (W',)
    # A bin reads at the cell it lies on: lam*j, where its window is centred, plus its offset
    shift_y = p + 0.5 - 0.5 * scale * op.Cast(bins_v, to=FLOAT32)  # (lam*V,)
    shift_x = q + 0.5 - 0.5 * scale * op.Cast(bins_u, to=FLOAT32)  # (lam*U,)
    hat_v = op.CastLike(Hat((p + 0.5) / scale - 0.5, bins_v), x)  # (lam*V, V)
    hat_u = op.CastLike(Hat((q + 0.5) / scale - 0.5, bins_u), x)  # (lam*U, U)
    place_y = op.Unsqueeze(shift_y, last) + scale * j  # (lam*V, H')
    place_x = op.Unsqueeze(shift_x, last) + scale * i  # (lam*U, W')
    hat_y = op.CastLike(Hat(place_y, height), x)  # (lam*V, H', H)
    hat_x = op.CastLike(Hat(place_x, width), x)  # (lam*U, W', W)
    npuyx = op.Einsum(hat_v, x - pad, equation="pv,nvuyx->npuyx")  # (N, lam*V, U, H, W)
    npujx = op.Einsum(hat_y, npuyx, equation="pjy,npuyx->npujx")  # (N, lam*V, U, H', W)
    npqjx = op.Einsum(hat_u, npujx, equation="qu,npujx->npqjx")  # (N, lam*V, lam*U, H', W)
    npqji = op.Einsum(hat_x, npqjx, equation="qix,npqjx->npqji")  # (N, lam*V, lam*U, H', W')
    return npqji + pad


@script(DOMAIN, default_opset=op)
def PairSums(x, step, lost):  # noqa: N802
    """Each entry of a list plus the one `step` behind it, without so many entries at the end.

    x: (L,), step, lost: (1,) int64, 0 <= step <= lost
    out: (L - lost,)
    """
    first = op.Constant(value_ints=[0])
    length = op.Shape(x) - lost
    return op.Slice(x, first, length) + op.Slice(x, step, length + step)


@script(DOMAIN, default_opset=op)
def Taps(cell, bins, extent, ratio, run):  # noqa: N802
    """What a window's lam*V fine bins read, for one axis pair: (v, y) or (u, x).

    T coarse bins each: two, but for lam = 1, where a fine bin is a coarse one. Cells count in
    runs: a run's fine bins read the same coarse bins.

    cell: (K, 1) int64 the window's cell y; int64 scalars: bins V, extent H in runs, ratio lam,
        run, which divides lam / 2, or is 1
    coarse: (T, lam*V / run) int64, bins of the tensor
    weight: (T, lam*V) float32, 0 for a bin beyond them
    place: (K, lam*V / run) int64, the run of cells, counted from the border's first; beyond the
        border there is nothing but border
    """
    zero = op.Constant(value_int=0)
    one = op.Constant(value_int=1)
    first = op.Constant(value_ints=[0])
    last = op.Constant(value_ints=[-1])
    fine = op.Range(zero, ratio * bins, one)  # (lam*V,)
    # (fine + 1/2)/lam - 1/2, one bin further, in units of 1/(2 lam): integers, so exact
    phase = 2 * fine + 1 + ratio
    share = op.Cast(phase % (2 * ratio), to=FLOAT32) / op.Cast(2 * ratio, to=FLOAT32)
    # How many bins each of the two comes before the second: 1 and 0, for lam = 1 the 1 alone
    before = op.Slice(op.Constant(value_ints=[1, 0]), first, op.Reshape(op.Min(ratio, 2), last))
    before = op.Unsqueeze(before, last)  # (T, 1)
    unclipped = phase / (2 * ratio) - before  # (T, lam*V)
    coarse = op.Clip(unclipped, zero, bins - 1)
    inside = op.Cast(op.Equal(coarse, unclipped), to=FLOAT32)
    weight = op.Abs(op.Cast(before, to=FLOAT32) - share) * inside
    every = op.Reshape(run, last)
    starts = op.Slice(fine, first, op.Shape(fine), first, every) / run  # (lam*V / run,)
    of_runs = op.Slice(coarse, first, op.Shape(fine), op.Constant(value_ints=[1]), every)
    # Known beforehand like all above
    inner = starts - (ratio * bins) / (2 * run) + 2
    place = op.Clip((ratio / run) * cell + inner, zero, extent + 2)  # (K, lam*V / run)
    return of_runs, weight, place


@script(DOMAIN, default_opset=op)
def Blend(read, weight_v, weight_u, pad):  # noqa: N802
    """What was read for each bin, a quarter of a sum of four cells, weighted; and the padding.

    read: (T, T, K, lam*V, lam*U), weight_v: (T, lam*V), weight_u: (T, lam*U) float32
    out: (K, lam*V, lam*U) dtype of read
    """
    # Weights: (T, 1, 1, lam*V, 1) times (1, T, 1, 1, lam*U)
    weight = op.Unsqueeze(weight_v, op.Constant(value_ints=[1, 2, 4])) * op.Unsqueeze(
        weight_u, op.Constant(value_ints=[0, 2, 3])
    )
    over_taps = op.Constant(value_ints=[0, 1])
    inside = op.ReduceSum(read * op.CastLike(0.25 * weight, read), over_taps, keepdims=0)
    # The rest of each bin's weight lies beyond the bins
    rest = op.CastLike(
        1.0 - op.ReduceSum(weight, over_taps, keepdims=0), read
    )  # (1, lam*V, lam*U)
    return inside + pad * rest


@script(DOMAIN, default_opset=op)
def SwapAlign2NatWindows(  # noqa: N802
    x, index, lam: int, pad_value: float, bins_v: int, bins_u: int, run_cells: int
):
    """The same numbers for K windows: reads and weights, no products with hat matrices.

    x: (N, V, U, H, W), index: (K, 3) int64 (n, y, x); bins_v, bins_u: V and U
    run_cells: divides W, and lam / 2 or is 1
    out: (K, lam*V, lam*U) dtype of x

    A window of lam*V fine bins is centred on its cell: bin centres fall on cells if their
    number is odd, midway between cells if it is even, for the whole tensor alike. So first
    cells are added in pairs, or each to itself if the number is odd: in the flat tensor a
    neighbour is so many entries further. Along x, lam / 2 fine bins read the same coarse bins
    at cells side by side: so runs of cells are read, not cell by cell.
    """
    last = op.Constant(value_ints=[-1])
    ratio = op.Constant(value_int=lam)
    pad = op.CastLike(op.Constant(value_float=pad_value), x)
    number_v = op.Constant(value_int=bins_v)
    number_u = op.Constant(value_int=bins_u)
    single = op.Constant(value_int=1)
    length = op.Constant(value_int=run_cells)
    length_list = op.Reshape(length, last)
    shape = op.Shape(x)
    height = op.Gather(shape, 3)
    width = op.Gather(shape, 4) / length  # in runs
    # A border of two cells along y, two runs along x, before and behind
    border = op.Concat(op.Constant(value_ints=[0, 0, 0, 2]), 2 * length_list, axis=0)
    bordered = op.Pad(x, op.Concat(border, border, axis=0), pad)
    # How far apart neighbours along each axis lie in the flat tensor, in runs
    stride_y = width + 4
    stride_u = (height + 4) * stride_y
    stride_v = number_u * stride_u
    stride_n = number_v * stride_v
    even_v = (ratio * number_v + 1) % 2
    even_u = op.Reshape((ratio * number_u + 1) % 2, last)
    next_row = op.Reshape((even_v * length) * stride_y, last)
    rows = PairSums(op.Reshape(bordered, last), next_row, next_row)
    fours = PairSums(rows, even_u, even_u * length_list)  # of cells, two along y, two along x
    runs = op.Reshape(fours, op.Concat(last, length_list, axis=0))
    n, y, x_cell = op.Split(index, num_outputs=3, axis=1)  # (K, 1) each
    bin_v, weight_v, place_y = Taps(y, number_v, height, ratio, single)
    bin_u, weight_u, place_x = Taps(x_cell, number_u, width, ratio, length)
    to_rows = op.Constant(value_ints=[1, 4])
    to_columns = op.Constant(value_ints=[0, 3])
    one = op.Constant(value_ints=[1])
    # int32: half the memory of the largest tensors, (T, T, K, lam*V, lam*U / run)
    row = stride_n * n + stride_y * place_y + op.Unsqueeze(stride_v * bin_v, one)
    row = op.Unsqueeze(op.Cast(row, to=INT32), to_rows)  # (T, 1, K, lam*V, 1)
    column = place_x + op.Unsqueeze(stride_u * bin_u, one)  # (T, K, lam*U / run)
    column = op.Unsqueeze(op.Cast(column, to=INT32), to_columns)  # (1, T, K, 1, lam*U / run)
    read = op.Gather(runs, row + column)  # (T, T, K, lam*V, lam*U / run, run)
    bins = op.Concat(
        op.Constant(value_ints=[0, 0, 0, 0]), op.Reshape(ratio * number_u, last), axis=0
    )
    read = op.Reshape(read, bins)  # (T, T, K, lam*V, lam*U)
    return Blend(read, weight_v, weight_u, pad)


@script(DOMAIN, default_opset=op)
def Identity(x, count):  # noqa: N802
    """The first `count` entries of x, at least one: `leading.py`. TensorRT never reads this.

    x: (L,), count: int64 scalar
    out: (B,)
    """
    zero = op.Constant(value_ints=[0])
    one = op.Constant(value_ints=[1])
    return op.Slice(x, zero, op.Max(op.Reshape(count, one), one))


@script(DOMAIN, default_opset=op)
def InstanceNormalization(x, scale, bias, epsilon: float):  # noqa: N802
    """The standard operator with exact means: each channel of an image to mean 0, variance 1.

    A channel may have a million entries. ONNX Runtime's own operator adds them one after the
    other in float32 and is off by 1e-4 and more; means of rows, then of their means, are as
    exact as PyTorch, and faster. TensorRT goes by the name alone, takes its fused layer and
    never reads this body.

    x: (N, C, H, W), scale: (C,), bias: (C,), zeros: added to the maps they would be one more
    pass. They are to the scale, as onnxslim takes an input that no node reads out of the
    signature, and leaves it at the nodes.
    out: (N, C, H, W)
    """
    within_rows = op.Constant(value_ints=[3])
    over_rows = op.Constant(value_ints=[2])
    to_maps = op.Constant(value_ints=[1, 2])
    deviation = x - op.ReduceMean(op.ReduceMean(x, within_rows), over_rows)
    row_variances = op.ReduceMean(deviation * deviation, within_rows)  # (N, C, H, 1)
    variance = op.ReduceMean(row_variances, over_rows)  # (N, C, 1, 1)
    spread = op.Sqrt(variance + op.Constant(value_float=epsilon))
    factor = op.Unsqueeze(scale + bias, to_maps) / spread  # (N, C, 1, 1)
    return deviation * factor


BODIES = {
    contract.NORM: (InstanceNormalization,),
    contract.SWAP: (Hat, SwapAlign2Nat),
    contract.SWAP_WINDOWS: (PairSums, Taps, Blend, SwapAlign2NatWindows),
    contract.LEADING: (Identity,),
}


def functions(op_types: set[str]) -> list[onnx.FunctionProto]:
    """The model-local functions that nodes of `op_types` need, helpers before their users."""
    return [
        f.to_function_proto()
        for name, parts in BODIES.items()
        if name in op_types
        for f in parts
    ]
