"""Lists as long as the data says, in a graph that TensorRT takes too.

A picture has a few hundred candidates and some ten detections of a kind of window; a graph of
fixed shapes computes thousands and a hundred. But an engine wants fixed shapes: they alone go
into a CUDA graph. So all lengths that follow the data come from one op, `leading(x, count)`,
the first `count` entries of a list. Its node has a standard operator's name, Identity, in our
domain. Whoever reads the function body of the node cuts the list. TensorRT goes by the name
alone: its Identity hands on the whole list.

Hence the rule for what is computed of such a list: its tail, if it is there, changes nothing.

next: onnx_file/graph.py
"""

from __future__ import annotations

import torch
from torch import Tensor


def leading(x: Tensor, count: Tensor) -> Tensor:
    """The first `count` entries of x, at least one, so that no tensor is empty.

    Args:
        x: (L,), L at least 1.
        count: int64 scalar.

    Returns:
        (B,)
    """
    out: Tensor = torch.ops.tensormask_edu.leading(x, count)
    return out


def _kernel(x: Tensor, count: Tensor) -> Tensor:
    return x[: max(int(count), 1)].clone()  # an op's output is no view of its input


def _fake(x: Tensor, count: Tensor) -> Tensor:
    return x.new_empty(torch.library.get_ctx().new_dynamic_size())


NAME = "tensormask_edu::leading"
torch.library.define(NAME, "(Tensor x, Tensor count) -> Tensor")
torch.library.impl(NAME, "default", _kernel)  # for every device
torch.library.register_fake(NAME, _fake)
