"""What TensorRT's parser made of an ONNX file, computed on the CPU.

TensorRT cannot run without a GPU, but it can parse, and a misreading shows. The parsed network
is a list of layers with weights, and this file computes them one by one, with NumPy and
PyTorch. It caught the parser reading an attribute as 0.

next: runtimes/eager.py
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tensormask_edu.base.errors import InputError

from .. import contract
from ..engine.backends import find_backend, make_builder, network_flags
from ..onnx_file.read import read_metadata
from ..shapes import Array, Named
from .session import NotComputed, Session

if TYPE_CHECKING:
    import onnx

Inputs = list[Any]  # arrays, or None for an input that is not used
Layer = Any  # a TensorRT layer of the class that `LAYERS` names


@dataclass(frozen=True)
class Step:
    """A layer, the tensors it reads by name, and those it makes with their dtypes."""

    layer: Layer
    function: Callable[[Layer, Inputs], Any]
    reads: list[str | None]
    makes: list[tuple[str, Any]]


class ParsedSession(Session):
    """The parsed network as a runtime; NotComputed for a layer that this file does not know."""

    kind = "parsed"

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.network = ParsedNetwork(proto)
        metadata = read_metadata(proto, "the ONNX file")
        super().__init__(self.network.name, "CPU", metadata)

    def all_outputs(self, images: Array) -> Named:
        return self.network.compute({contract.IMAGES: images})


def _without_plugins(proto: onnx.ModelProto) -> bytes:
    """The file for a parser that must take function bodies, even where a plugin is loaded."""
    changed = copy.deepcopy(proto)
    for node in changed.graph.node:
        if node.domain == contract.DOMAIN:
            kept = [a for a in node.attribute if a.name not in contract.PLUGIN_ATTRIBUTES]
            del node.attribute[:]
            node.attribute.extend(kept)
    return changed.SerializeToString()


class ParsedNetwork:
    """The network that a TensorRT parser makes of an ONNX file.

    Raises:
        InputError: no TensorRT here, or the file does not parse.
    """

    def __init__(self, proto: onnx.ModelProto, backend: str = "auto") -> None:
        chosen = find_backend(backend)
        self.name = f"{chosen.name} {chosen.version} as parsed"
        trt = self.trt = chosen.module
        self.logger = trt.Logger(trt.Logger.ERROR)
        self.builder = make_builder(trt, self.logger)
        self.network = self.builder.create_network(network_flags(trt))
        self.parser = trt.OnnxParser(self.network, self.logger)
        if not self.parser.parse(_without_plugins(proto)):
            reason = self.parser.get_error(0).desc()
            raise InputError(f"model: the file does not parse ({reason})")

    def compute(self, inputs: Named) -> Named:
        """All outputs for all inputs, by name."""
        known = dict(inputs)
        for step in self.steps:
            values = [None if name is None else known[name] for name in step.reads]
            results = step.function(step.layer, values)
            results = results if isinstance(results, tuple) else (results,)
            for (name, dtype), result in zip(step.makes, results, strict=False):
                known[name] = np.asarray(result).astype(dtype, copy=False)
        names = [self.network.get_output(i).name for i in range(self.network.num_outputs)]
        return {name: known[name] for name in names}

    @cached_property
    def steps(self) -> list[Step]:
        """The layers, each behind those it reads; they come in almost that order."""
        network, ordered = self.network, list[Step]()
        known = {None, *(network.get_input(i).name for i in range(network.num_inputs))}
        waiting = [self._step(network.get_layer(i)) for i in range(network.num_layers)]
        while waiting:
            later = []
            for step in waiting:
                if known.issuperset(step.reads):
                    ordered.append(step)
                    known.update(name for name, _ in step.makes)
                else:
                    later.append(step)
            if len(later) == len(waiting):
                name = later[0].layer.name
                raise NotComputed(f"layer {name} waits for an input that nothing makes")
            waiting = later
        return ordered

    def _step(self, layer: Layer) -> Step:
        """How a layer is computed; NotComputed if this file does not know its type."""
        kind = layer.type.name
        if kind not in LAYERS:
            raise NotComputed(f"layer type {kind}")
        class_name, function = LAYERS[kind]
        # the bindings return every layer as its base class
        layer.__class__ = getattr(self.trt, class_name)
        tensors = [layer.get_input(i) for i in range(layer.num_inputs)]
        outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
        return Step(
            layer=layer,
            function=function,
            reads=[None if tensor is None else tensor.name for tensor in tensors],
            makes=[(each.name, self.trt.nptype(each.dtype)) for each in outputs],
        )


# --- layers: (layer, inputs) -> output --------------------------------------------------------

ELEMENTWISE: dict[str, Callable[[Array, Array], Array]] = {
    "SUM": np.add,
    "SUB": np.subtract,
    "PROD": np.multiply,
    "DIV": lambda a, b: np.trunc(a / b) if a.dtype.kind == "i" else a / b,
    "FLOOR_DIV": np.floor_divide,
    "POW": np.power,
    "MAX": np.maximum,
    "MIN": np.minimum,
    "EQUAL": np.equal,
    "LESS": np.less,
    "GREATER": np.greater,
    "AND": np.logical_and,
    "OR": np.logical_or,
}
UNARY = {
    "ABS": np.abs,
    "EXP": np.exp,
    "NEG": np.negative,
    "SQRT": np.sqrt,
    "RECIP": np.reciprocal,
    "NOT": np.logical_not,
}
ACTIVATION = {"RELU": lambda a: np.maximum(a, 0), "SIGMOID": lambda a: 1 / (1 + np.exp(-a))}
REDUCE = {"MAX": np.max, "MIN": np.min, "SUM": np.sum, "AVG": np.mean, "PROD": np.prod}


def _choose(table: dict[str, Any], kind: Any) -> Any:
    if kind.name not in table:
        raise NotComputed(f"operation {kind}")
    return table[kind.name]


def _axes(bits: int) -> tuple[int, ...]:
    return tuple(axis for axis in range(bits.bit_length()) if bits >> axis & 1)


def _given(inputs: Inputs, position: int, fixed: Any) -> Any:
    """A layer's parameter: an input tensor if there is one, else what parsing fixed."""
    found = inputs[position] if position < len(inputs) else None
    return fixed if found is None else found


def _kind(layer: Layer) -> Any:
    """`type` of an activation or a pooling, which hides behind the `type` of all layers."""
    return type(layer).type.__get__(layer)


def _activation(layer: Layer, inputs: Inputs) -> Array:
    return _choose(ACTIVATION, _kind(layer))(inputs[0])


def _constant(layer: Layer, inputs: Inputs) -> Array:
    return np.array(layer.weights).reshape(tuple(layer.shape))


def _padding(layer: Layer) -> tuple[int, ...]:
    if tuple(layer.pre_padding) != tuple(layer.post_padding):
        raise NotComputed("uneven padding")
    if layer.padding_mode.name != "EXPLICIT_ROUND_DOWN":
        raise NotComputed(f"padding {layer.padding_mode}")
    return tuple(layer.pre_padding)


def _convolution(layer: Layer, inputs: Inputs) -> Array:
    if layer.num_groups != 1:
        raise NotComputed("grouped convolution")
    shape = (layer.num_output_maps, -1, *layer.kernel_size_nd)
    kernel = _given(inputs, 1, np.array(layer.kernel)).reshape(shape)
    bias = np.array(_given(inputs, 2, layer.bias))
    return F.conv2d(
        _torch(inputs[0]),
        _torch(kernel),
        _torch(bias) if bias.size else None,
        stride=tuple(layer.stride_nd),
        padding=_padding(layer),
        dilation=tuple(layer.dilation_nd),
    ).numpy()


def _torch(array: Array) -> Tensor:
    return torch.from_numpy(np.array(array))


def _fill(layer: Layer, inputs: Inputs) -> Array:
    if layer.operation.name != "LINSPACE":
        raise NotComputed(f"operation {layer.operation}")
    (count,) = _given(inputs, 0, layer.shape)
    start = np.asarray(_given(inputs, 1, layer.alpha)).item()
    step = np.asarray(_given(inputs, 2, layer.beta)).item()
    return start + step * np.arange(int(count))


def _gather(layer: Layer, inputs: Inputs) -> Array:
    data, index = inputs
    if layer.mode.name == "DEFAULT":
        return np.take(data, index, axis=layer.axis)
    if layer.mode.name != "ND" or layer.num_elementwise_dims:
        raise NotComputed(f"gather {layer.mode}")
    return data[tuple(np.moveaxis(index, -1, 0))]


def _matrix_multiply(layer: Layer, inputs: Inputs) -> Array:
    if {layer.op0.name, layer.op1.name} != {"NONE"}:
        raise NotComputed(f"matrix product {layer.op0} {layer.op1}")
    return inputs[0] @ inputs[1]


def _normalization(layer: Layer, inputs: Inputs) -> Array:
    if layer.num_groups != 1:
        raise NotComputed("grouped normalisation")
    data, scale, bias = inputs
    deviation = data - data.mean(_axes(layer.axes), keepdims=True, dtype=np.float64)
    variance = (deviation**2).mean(_axes(layer.axes), keepdims=True)
    return deviation / np.sqrt(variance + layer.epsilon) * scale + bias


def _pooling(layer: Layer, inputs: Inputs) -> Array:
    if _kind(layer).name != "MAX":
        raise NotComputed(f"pooling {_kind(layer)}")
    window, stride = tuple(layer.window_size_nd), tuple(layer.stride_nd)
    return F.max_pool2d(_torch(inputs[0]), window, stride, _padding(layer)).numpy()


def _reduce(layer: Layer, inputs: Inputs) -> Array:
    reduce = _choose(REDUCE, layer.op)
    return reduce(inputs[0], axis=_axes(layer.axes), keepdims=layer.keep_dims)


def _resize(layer: Layer, inputs: Inputs) -> Array:
    mode, where = layer.resize_mode.name, layer.coordinate_transformation.name
    nearest = (mode, where, layer.nearest_rounding.name) == ("NEAREST", "ASYMMETRIC", "FLOOR")
    bilinear = (mode, where) == ("LINEAR", "HALF_PIXEL")
    if not (nearest or bilinear) or len(inputs) > 1 or len(layer.scales) != 4:
        raise NotComputed(f"resize {mode} {where} {layer.nearest_rounding}")
    data, scales = _torch(inputs[0]), tuple(layer.scales[2:])
    how = {"mode": "nearest"} if nearest else {"mode": "bilinear", "align_corners": False}
    return F.interpolate(data, scale_factor=scales, **how).numpy()


def _shuffle(layer: Layer, inputs: Inputs) -> Array:
    data = inputs[0].transpose(tuple(layer.first_transpose)[: inputs[0].ndim])
    target = _given(inputs, 1, layer.reshape_dims)
    if target is not None:
        sizes = [int(size) for size in target]
        if layer.zero_is_placeholder:
            sizes = [data.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
        data = data.reshape(sizes)
    return data.transpose(tuple(layer.second_transpose)[: data.ndim])


def _slice(layer: Layer, inputs: Inputs) -> Array:
    """Strided slices that may reach beyond the data: then filled, or an error."""
    data = inputs[0]
    fixed = (layer.start, layer.shape, layer.stride)
    parts = [_given(inputs, i, value) for i, value in enumerate(fixed, start=1)]
    axes = range(data.ndim) if layer.axes is None else layer.axes
    indices = [np.arange(size) for size in data.shape]
    for axis, start, size, stride in zip(axes, *parts, strict=True):
        indices[axis] = int(start) + int(stride) * np.arange(int(size))
    inside = [
        (index >= 0) & (index < size) for index, size in zip(indices, data.shape, strict=True)
    ]
    if all(part.all() for part in inside):
        return data[np.ix_(*indices)]
    if layer.mode.name != "FILL":
        raise NotComputed(f"slice beyond the data with {layer.mode}")
    filling = _given(inputs, 4, np.zeros(1)).item()
    out = np.full([len(index) for index in indices], filling, data.dtype)
    known = (index[part] for index, part in zip(indices, inside, strict=True))
    out[np.ix_(*inside)] = data[np.ix_(*known)]
    return out


def _squeeze(layer: Layer, inputs: Inputs) -> Array:
    axes = _given(inputs, 1, None)
    if axes is not None:
        axes = tuple(int(axis) for axis in np.atleast_1d(axes))
    return np.squeeze(inputs[0], axes)


def _unsqueeze(layer: Layer, inputs: Inputs) -> Array:
    return np.expand_dims(inputs[0], tuple(int(axis) for axis in np.atleast_1d(inputs[1])))


def _topk(layer: Layer, inputs: Inputs) -> tuple[Array, Array]:
    (axis,) = _axes(layer.axes)
    count = int(np.asarray(_given(inputs, 1, layer.k)).item())
    ascending = -inputs[0] if layer.op.name == "MAX" else inputs[0]
    order = np.argsort(ascending, axis=axis, kind="stable").take(range(count), axis=axis)
    return np.take_along_axis(inputs[0], order, axis), order


def _cast(layer: Layer, inputs: Inputs) -> Array:
    return inputs[0]  # every output gets its declared type


def _concatenation(layer: Layer, inputs: Inputs) -> Array:
    return np.concatenate(inputs, layer.axis)


def _einsum(layer: Layer, inputs: Inputs) -> Array:
    return np.einsum(layer.equation, *inputs)


def _elementwise(layer: Layer, inputs: Inputs) -> Array:
    return _choose(ELEMENTWISE, layer.op)(*inputs)


def _scale(layer: Layer, inputs: Inputs) -> Array:
    """Factor and shift of each channel; what is not given changes nothing."""
    if layer.mode.name != "CHANNEL" or np.array(layer.power).size:
        raise NotComputed(f"scale {layer.mode}, or with a power")
    (x,) = inputs
    axes = [1] * x.ndim
    axes[layer.channel_axis] = -1
    factor, shift = np.array(layer.scale), np.array(layer.shift)
    x = x * factor.reshape(axes) if factor.size else x
    return x + shift.reshape(axes) if shift.size else x


def _select(layer: Layer, inputs: Inputs) -> Any:
    return np.where(*inputs)


def _shape(layer: Layer, inputs: Inputs) -> Array:
    return np.array(inputs[0].shape)


def _unary(layer: Layer, inputs: Inputs) -> Array:
    return _choose(UNARY, layer.op)(inputs[0])


# Layer type -> its class in the bindings, and how it is computed
LAYERS: dict[str, tuple[str, Callable[[Layer, Inputs], Any]]] = {
    "ACTIVATION": ("IActivationLayer", _activation),
    "CAST": ("ICastLayer", _cast),
    "CONCATENATION": ("IConcatenationLayer", _concatenation),
    "CONSTANT": ("IConstantLayer", _constant),
    "CONVOLUTION": ("IConvolutionLayer", _convolution),
    "EINSUM": ("IEinsumLayer", _einsum),
    "ELEMENTWISE": ("IElementWiseLayer", _elementwise),
    "FILL": ("IFillLayer", _fill),
    "GATHER": ("IGatherLayer", _gather),
    "IDENTITY": ("IIdentityLayer", _cast),
    "MATRIX_MULTIPLY": ("IMatrixMultiplyLayer", _matrix_multiply),
    "NORMALIZATION": ("INormalizationLayer", _normalization),
    "POOLING": ("IPoolingLayer", _pooling),
    "REDUCE": ("IReduceLayer", _reduce),
    "RESIZE": ("IResizeLayer", _resize),
    "SCALE": ("IScaleLayer", _scale),
    "SELECT": ("ISelectLayer", _select),
    "SHAPE": ("IShapeLayer", _shape),
    "SHUFFLE": ("IShuffleLayer", _shuffle),
    "SLICE": ("ISliceLayer", _slice),
    "SQUEEZE": ("ISqueezeLayer", _squeeze),
    "TOPK": ("ITopKLayer", _topk),
    "UNARY": ("IUnaryLayer", _unary),
    "UNSQUEEZE": ("IUnsqueezeLayer", _unsqueeze),
}
