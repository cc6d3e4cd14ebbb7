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
def Taps(cell, bins, extent, ratio, bin_stride, cell_stride):  # noqa: N802
    """What a window's B = lam*V fine bins read, for one axis pair: (v, y) or (u, x).

    Four entries: two coarse bins, each in two cells. A window of B bins is centred on its cell:
    bin centres fall between two cells if B is even, else on a cell, which is then read twice.

    cell: (K, 1) int64 the window's cell y; (1,) int64: bins V, extent H, ratio lam, and how far
        neighbours lie apart in the flat tensor, along v and along y
    place: (K, B, 4) int64, in the flat tensor
    weight: (K, B, 4) float32, 0 outside of it
    """
    zero = op.Constant(value_int=0)
    one = op.Constant(value_int=1)
    last = op.Constant(value_ints=[-1])
    number = ratio * bins  # B
    fine = op.Range(zero, op.Squeeze(number), one)  # (B,)
    # (fine + 1/2)/lam - 1/2, one bin further, in units of 1/(2 lam): integers, so exact
    phase = 2 * fine + 1 + ratio
    upper = op.Unsqueeze(phase / (2 * ratio), last)  # (B, 1), the second of the two coarse bins
    share = op.Cast(phase % (2 * ratio), to=FLOAT32) / op.Cast(2 * ratio, to=FLOAT32)
    # Shares of the first bin, twice, and of the second; half of each for either cell
    # (not `value_floats`: onnxslim makes float64 of them)
    first_bin = op.Cast(op.Constant(value_ints=[1, 1, 0, 0]), to=FLOAT32)
    shares = 0.5 * op.Abs(first_bin - op.Unsqueeze(share, last))  # (B, 4)
    bin = upper + op.Constant(value_ints=[-1, -1, 0, 0])  # noqa: A001 - (B, 4)
    here = op.Unsqueeze(ratio * cell + fine - number / 2, last)  # (K, B, 1)
    place = here + (1 - number % 2) * op.Constant(value_ints=[0, 1, 0, 1])  # (K, B, 4)
    bin_inside = op.Clip(bin, zero, op.Squeeze(bins) - 1)
    place_inside = op.Clip(place, zero, op.Squeeze(extent) - 1)
    inside = op.And(op.Equal(bin, bin_inside), op.Equal(place, place_inside))  # (K, B, 4)
    weight = shares * op.Cast(inside, to=FLOAT32)
    return bin_stride * bin_inside + cell_stride * place_inside, weight


@script(DOMAIN, default_opset=op)
def SwapAlign2NatWindows(x, index, lam: int, pad_value: float):  # noqa: N802
    """The same numbers for K windows: sixteen reads per bin, no products with hat matrices.

    x: (N, V, U, H, W), index: (K, 3) int64 (n, y, x)
    out: (K, lam*V, lam*U) dtype of x

    Nothing is computed of x as a whole. The largest intermediates have four times the output's
    shape: each of a row's four taps meets the four of every column at once.
    """
    last = op.Constant(value_ints=[-1])
    one = op.Constant(value_ints=[1])
    two = op.Constant(value_ints=[2])
    ratio = op.Reshape(op.Constant(value_int=lam), one)
    pad = op.CastLike(op.Constant(value_float=pad_value), x)
    bins_v = op.Shape(x, start=1, end=2)  # (1,) each
    bins_u = op.Shape(x, start=2, end=3)
    height = op.Shape(x, start=3, end=4)
    width = op.Shape(x, start=4, end=5)
    # How far apart neighbours along each axis lie in the flat tensor
    stride_u = height * width
    stride_v = bins_u * stride_u
    n, y, x_cell = op.Split(index, num_outputs=3, axis=1)  # (K, 1) each
    rows, row_weights = Taps(y, bins_v, height, ratio, stride_v, width)
    columns, column_weights = Taps(x_cell, bins_u, width, ratio, stride_u, one)
    image = op.Unsqueeze(bins_v * stride_v * n, last)  # (K, 1, 1)
    # int32: half the memory of the largest tensors, (K, lam*V, 4, lam*U)
    row = op.Unsqueeze(op.Cast(rows + image, to=INT32), last)  # (K, lam*V, 4, 1)
    by_tap = op.Transpose(columns, perm=[0, 2, 1])  # (K, 4, lam*U)
    column = op.Unsqueeze(op.Cast(by_tap, to=INT32), one)  # (K, 1, 4, lam*U)
    row_weight = op.CastLike(op.Unsqueeze(row_weights, last), x)  # (K, lam*V, 4, 1)
    weights_by_tap = op.Transpose(column_weights, perm=[0, 2, 1])  # (K, 4, lam*U)
    column_weight = op.CastLike(op.Unsqueeze(weights_by_tap, one), x)  # (K, 1, 4, lam*U)
    row_0, row_1, row_2, row_3 = op.Split(row, num_outputs=4, axis=2)  # (K, lam*V, 1, 1) each
    weight_0, weight_1, weight_2, weight_3 = op.Split(row_weight, num_outputs=4, axis=2)
    flat = op.Reshape(x, last)  # all of it in one axis
    upper = weight_0 * op.Gather(flat, row_0 + column) + weight_1 * op.Gather(
        flat, row_1 + column
    )
    lower = weight_2 * op.Gather(flat, row_2 + column) + weight_3 * op.Gather(
        flat, row_3 + column
    )
    inside = op.ReduceSum((upper + lower) * column_weight, two, keepdims=0)
    # The rest of each bin's weight lies outside
    of_rows = op.ReduceSum(row_weight, two, keepdims=0)  # (K, lam*V, 1)
    of_columns = op.ReduceSum(column_weight, two, keepdims=0)  # (K, 1, lam*U)
    return inside + pad * (1.0 - of_rows * of_columns)


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

    x: (N, C, H, W), scale, bias: (C,)
    out: (N, C, H, W)
    """
    within_rows = op.Constant(value_ints=[3])
    over_rows = op.Constant(value_ints=[2])
    to_maps = op.Constant(value_ints=[1, 2])
    deviation = x - op.ReduceMean(op.ReduceMean(x, within_rows), over_rows)
    row_variances = op.ReduceMean(deviation * deviation, within_rows)  # (N, C, H, 1)
    variance = op.ReduceMean(row_variances, over_rows)  # (N, C, 1, 1)
    spread = op.Sqrt(variance + op.Constant(value_float=epsilon))
    return deviation / spread * op.Unsqueeze(scale, to_maps) + op.Unsqueeze(bias, to_maps)


BODIES = {
    contract.NORM: (InstanceNormalization,),
    contract.SWAP: (Hat, SwapAlign2Nat),
    contract.SWAP_WINDOWS: (Taps, SwapAlign2NatWindows),
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
