"""The two plugins in Python: the same names, attributes and kernels as in C++, and no compiler.

`register(trt)` puts them into the registry of TensorRT 10, 11 or TensorRT-RTX; then the parser
finds them, and engines that contain them load in this process. TensorRT calls the methods
below: while building for shapes and types, while running `enqueue`, which needs PyTorch and
tensormask-edu[cuda] and hands the kernel to the engine's stream. Twin:
plugins/swap_align2nat/tensorrt/plugin.cpp.

next: to_tensorrt.py
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensormask_edu.base.errors import InputError, bad_input

from .. import contract

if TYPE_CHECKING:
    from torch import Tensor

NAMESPACE = contract.PLUGIN_ATTRIBUTES["plugin_namespace"]
VERSION = contract.PLUGIN_ATTRIBUTES["plugin_version"]

_creators: list[Any] = []  # the registries hold them by address


def register(trt: Any) -> None:
    """Put both plugins into the registry of the module `trt`; once is enough."""
    registry = trt.get_plugin_registry()
    bases = (
        trt.IPluginV3,
        trt.IPluginV3OneCore,
        trt.IPluginV3OneBuild,
        trt.IPluginV3OneRuntime,
    )
    plugin = type("SwapPlugin", (SwapPlugin, *bases), {"trt": trt, "bases": bases})
    creator = type(
        "SwapCreator", (SwapCreator, trt.IPluginCreatorV3One), {"trt": trt, "plugin": plugin}
    )
    for name in (contract.SWAP, contract.SWAP_WINDOWS):
        if registry.get_creator(name, VERSION, NAMESPACE) is None:
            _creators.append(creator(name))
            registry.register_creator(_creators[-1], NAMESPACE)


class SwapCreator:
    """Makes the layers of one op."""

    trt: Any
    plugin: Any

    def __init__(self, name: str) -> None:
        self.trt.IPluginCreatorV3One.__init__(self)
        self.name, self.plugin_namespace, self.plugin_version = name, NAMESPACE, VERSION
        kinds = self.trt.PluginFieldType
        empty = np.array([], np.int32)
        fields = ((contract.LAM, kinds.INT32), (contract.PAD_VALUE, kinds.FLOAT32))
        self.fields = [self.trt.PluginField(key, empty, kind) for key, kind in fields]
        self.field_names = self.trt.PluginFieldCollection(self.fields)

    def create_plugin(self, name: str, fields: Any, phase: Any) -> Any:
        """A layer, or None and a line on stderr: TensorRT knows no exceptions."""
        try:
            return self.plugin(
                self.name, *checked({field.name: field.data for field in fields})
            )
        except InputError as error:
            print(f"{self.name}: {error}", file=sys.stderr)
            return None


def checked(fields: dict[str, Any]) -> tuple[int, float]:
    """(lam, pad_value) from a layer's attributes."""
    if set(fields) != {contract.LAM, contract.PAD_VALUE}:
        raise bad_input(
            "attributes", f"{contract.LAM} and {contract.PAD_VALUE}", sorted(fields)
        )
    lam, pad_value = (
        np.asarray(fields[key]).ravel() for key in (contract.LAM, contract.PAD_VALUE)
    )
    if lam.size != 1 or lam.dtype.kind != "i" or lam[0] < 1:
        raise bad_input(contract.LAM, "an integer >= 1", lam.tolist())
    if pad_value.size != 1 or pad_value.dtype.kind != "f" or not math.isfinite(pad_value[0]):
        raise bad_input(contract.PAD_VALUE, "a finite number", pad_value.tolist())
    return int(lam[0]), float(pad_value[0])


class SwapPlugin:
    """One layer.

    x:     (N, V, U, H, W)    float or half, linear
    index: (K, 3) int64       the cells (n, y, x), windows only
    out:   (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam)) or (K, lam*V, lam*U), of x's type
    """

    trt: Any
    bases: tuple[Any, ...]

    def __init__(self, name: str, lam: int, pad_value: float) -> None:
        for base in self.bases:
            base.__init__(self)
        self.plugin_name, self.plugin_namespace, self.plugin_version = name, NAMESPACE, VERSION
        self.lam, self.pad_value, self.windows = lam, pad_value, name == contract.SWAP_WINDOWS
        self.num_outputs = 1
        self.timing_cache_id = self.metadata_string = f"lam={lam} pad_value={pad_value}"
        self.values = {contract.LAM: np.array([lam], np.int32)}
        self.values[contract.PAD_VALUE] = np.array([pad_value], np.float32)

    def get_capability_interface(self, kind: Any) -> Any:
        return self

    def clone(self) -> Any:
        return type(self)(self.plugin_name, self.lam, self.pad_value)

    # --- build: types, formats, shapes

    def get_output_data_types(self, types: Sequence[Any]) -> list[Any]:
        return [types[0]]

    def supports_format_combination(
        self, position: int, tensors: Sequence[Any], num_inputs: int
    ) -> bool:
        """Positions: x, then index for windows, then out."""
        kinds, here = self.trt.DataType, tensors[position].desc
        if num_inputs != 1 + self.windows or here.format != self.trt.TensorFormat.LINEAR:
            return False
        if position == 0:
            return here.type in (kinds.FLOAT, kinds.HALF)
        return here.type == (kinds.INT64 if position < num_inputs else tensors[0].desc.type)

    def get_output_shapes(
        self, inputs: Sequence[Any], shape_inputs: Any, expressions: Any
    ) -> list[Any]:
        x, lam, operation = (
            inputs[0],
            expressions.constant(self.lam),
            self.trt.DimensionOperation,
        )
        fine = [expressions.operation(operation.PROD, x[axis], lam) for axis in (1, 2)]
        coarse = [expressions.operation(operation.CEIL_DIV, x[axis], lam) for axis in (3, 4)]
        sizes = [inputs[1][0], *fine] if self.windows else [x[0], *fine, *coarse]
        out = self.trt.DimsExprs(len(sizes))
        for axis, size in enumerate(sizes):
            out[axis] = size
        return [out]

    def configure_plugin(self, inputs: Any, outputs: Any) -> None:
        pass

    # --- run

    def on_shape_change(self, inputs: Any, outputs: Any) -> None:
        pass

    def attach_to_context(self, context: Any) -> Any:
        return self.clone()

    def get_fields_to_serialize(self) -> Any:
        """What a stored engine keeps: the fields that the creator reads."""
        kinds = self.trt.PluginFieldType
        kind = {contract.LAM: kinds.INT32, contract.PAD_VALUE: kinds.FLOAT32}
        fields = [
            self.trt.PluginField(name, value, kind[name]) for name, value in self.values.items()
        ]
        return self.trt.PluginFieldCollection(fields)

    def enqueue(
        self,
        input_descriptions: Sequence[Any],
        output_descriptions: Sequence[Any],
        inputs: Sequence[int],
        outputs: Sequence[int],
        workspace: int,
        stream: int,
    ) -> None:
        """Queue the kernel of `tensormask_edu.ops.cuda` on TensorRT's stream, on TensorRT's
        memory."""
        from tensormask_edu.ops import cuda

        half = input_descriptions[0].type == self.trt.DataType.HALF
        kinds = ["f2" if half else "f4", "i8"]
        x, *index = (
            device_tensor(address, tuple(description.dims), kind)
            for address, description, kind in zip(
                inputs, input_descriptions, kinds, strict=False
            )
        )
        out = device_tensor(outputs[0], tuple(output_descriptions[0].dims), kinds[0])
        with on_stream(stream):
            if self.windows:
                cuda.forward_windows(x, self.lam, index[0], self.pad_value, out)
            else:
                cuda.forward(x, self.lam, self.pad_value, out)


def device_tensor(address: int, shape: tuple[int, ...], kind: str) -> Tensor:
    """A tensor on memory of the device; kind: f4, f2, i8 as NumPy names types."""
    import torch

    interface = {"shape": shape, "typestr": f"<{kind}", "data": (address, False), "version": 3}
    holder = type("Memory", (), {"__cuda_array_interface__": interface})
    return torch.as_tensor(holder(), device="cuda")


def on_stream(stream: int) -> Any:
    """A context in which PyTorch queues on a stream that it did not make."""
    import torch

    return torch.cuda.stream(torch.cuda.ExternalStream(stream))
