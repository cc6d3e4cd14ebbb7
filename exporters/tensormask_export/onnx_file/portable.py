"""A file without nodes of ours, for programs that know no functions: OpenVINO, TVM.

Function bodies take the places of their nodes. What that costs: no plugin of TensorRT finds a
node to compute, and no other runtime can put its own op there.

next: onnx_file/write.py
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import contract

if TYPE_CHECKING:
    import onnx

# Short forms of a Constant, which not every program reads -> the type that each stands for
SHORT_FORMS = {
    "value_int": np.int64,
    "value_ints": np.int64,
    "value_float": np.float32,
    "value_floats": np.float32,
}
LOST = "portable: no node is left that a TensorRT plugin could take"


def portable(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which standard operators do everything, under the names they had."""
    from onnx.inliner import inline_local_functions

    inlined = inline_local_functions(proto)
    # The node that makes what a body's node made takes its name: `verify --bisect` goes by it
    names = {node.output[0]: node.name for node in proto.graph.node}
    for node in inlined.graph.node:
        node.name = names.get(node.output[0], node.name)
        if node.op_type == "Constant":
            _spell_out(node)
    kept = [each for each in inlined.opset_import if each.domain != contract.DOMAIN]
    del inlined.opset_import[:]
    inlined.opset_import.extend(kept)
    return inlined


def is_portable(proto: onnx.ModelProto) -> bool:
    """Has the file no node of ours?"""
    return all(node.domain != contract.DOMAIN for node in proto.graph.node)


def _spell_out(constant: onnx.NodeProto) -> None:
    """Give a Constant its value as a tensor, the form that every program reads."""
    import onnx  # optional, and at hand where there is a node

    (attribute,) = constant.attribute
    if attribute.name in SHORT_FORMS:
        value = onnx.helper.get_attribute_value(attribute)
        array = np.array(value, SHORT_FORMS[attribute.name])
        tensor = onnx.numpy_helper.from_array(array)
        attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))
