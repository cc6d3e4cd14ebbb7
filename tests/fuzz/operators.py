"""Arguments of the operators as JSON, drawn and called: odd shapes, units, sizes, dtypes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from tensormask_edu import ops
from tensormask_edu.base.memory import is_out_of_memory

DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "uint8", "bool", "complex64",
          "float8_e4m3fn")  # fmt: skip

OPERATORS: dict[str, Callable[..., Any]] = {
    name: getattr(ops, name)
    for name in (
        "swap_align2nat",
        "swap_align2nat_windows",
        "resample",
        "resample_windows",
        "align2nat",
        "nat2align",
        "up_bilinear",
        "up_nearest",
        "up_align2nat",
        "subsample",
    )  # fmt: skip
}
NO_PAD = ("up_nearest", "subsample")
UNITS = ("sigma_hw", "sigma_vu", "aligned_sigma_hw", "aligned_sigma_vu")

odd = st.sampled_from(
    (None, True, 0, -1, 1, 2, 3, 4, 7, 0.5, 1.5, 2.0, 1e-9, 1e9, 10**6, 2**31, 2**63, "2", [2],
     "nan", "inf")
)  # fmt: skip
side = st.integers(0, 9) | st.sampled_from((1, 2, 3, 5, 16))
tensor = st.fixed_dictionaries(
    {
        "shape": st.tuples(st.integers(0, 3), *[side] * 4).map(list)
        | st.lists(side, max_size=6),
        "dtype": st.sampled_from(("float32",) * 4 + DTYPES),
        "layout": st.sampled_from(
            ("contiguous", "contiguous", "transposed", "expanded", "huge", "sliced", "sparse",
             "meta", "none", "array")
        ),
    }
)  # fmt: skip
index = st.fixed_dictionaries(
    {
        "shape": st.tuples(st.integers(0, 5), st.just(3)).map(list)
        | st.lists(side, max_size=3),
        "dtype": st.sampled_from(("int64",) * 5 + DTYPES),
        "low": st.sampled_from((0, 0, 0, -1, -(2**62))),
        "high": st.sampled_from((1, 1, 2, 3, 100, 2**62)),
        "layout": st.sampled_from(("contiguous", "contiguous", "transposed", "meta", "none")),
    }
)


def arguments() -> st.SearchStrategy[bytes]:
    """The arguments of one call, as JSON."""
    small, edge = st.integers(1, 4), st.sampled_from(("pad", "clamp", "nearest", "x", None))
    values = st.fixed_dictionaries(
        {
            "op": st.sampled_from(tuple(OPERATORS)),
            "x": tensor,
            "lam": small | small | odd,
            "pad": st.sampled_from((-6.0, 0, 1)) | odd,
            "index": index,
            "bins": st.lists(small, min_size=2, max_size=2) | st.lists(odd, max_size=3),
            "rule": st.tuples(small | odd, st.sampled_from((0, 1)) | odd, edge).map(list),
            "edge": edge,
            "units": st.lists(st.sampled_from((1, 2, 4, 0.5)) | odd, min_size=4, max_size=4),
            "grad": st.booleans(),
        }
    )
    return values.map(lambda each: json.dumps(each).encode())


def call(given: dict[str, Any]) -> None:
    """Call the operator, and its derivative where it has one."""
    name = given["op"]
    x = made(given["x"])
    lam, pad = unwritten(given["lam"]), unwritten(given["pad"])
    chosen = index_made(given["index"])
    words: dict[str, Any] = {} if name in NO_PAD else {"pad_value": pad}
    values: tuple[Any, ...] = (x, lam)
    if name in ("align2nat", "nat2align"):
        values = (x,)
        words |= dict(zip(UNITS, map(unwritten, given["units"]), strict=True))
    elif name.startswith("resample"):
        rule = ops.Rule(*map(unwritten, given["rule"]))
        values = (x, [unwritten(each) for each in given["bins"]], rule)
    elif name in ("up_bilinear", "up_align2nat"):
        words["edge"] = given["edge"]
    if name.endswith("_windows"):
        values = (*values, chosen)
    can = isinstance(x, Tensor) and x.is_floating_point() and x.layout == torch.strided
    if given["grad"] and can:
        x.requires_grad_()
    try:
        out = OPERATORS[name](*values, **words)
        if given["grad"] and can and out.dtype.itemsize > 1 and out.numel() < 1 << 24:
            out.sum().backward()
    except Exception as error:
        if not is_out_of_memory(error):  # who asks for a huge result is told so by PyTorch
            raise


def unwritten(value: Any) -> Any:
    """JSON's value, with the numbers that JSON has not."""
    return float(value) if value in ("nan", "inf") else value


def made(given: dict[str, Any]) -> Any:
    """The tensor that a description stands for; something else where it says so."""
    shape, dtype, layout = given["shape"], getattr(torch, given["dtype"]), given["layout"]
    if layout in ("none", "array"):
        return None if layout == "none" else torch.zeros(shape).numpy()
    if layout == "meta":
        return torch.empty(shape, dtype=dtype, device="meta")
    if layout == "huge" and shape:  # no memory behind it: what is made of it would need some
        return torch.zeros([1] * len(shape), dtype=dtype).expand([2**40, *shape[1:]])
    x = torch.zeros(shape).to(dtype)
    if layout == "transposed" and len(shape) > 1:
        return x.transpose(-1, -2)
    if layout == "expanded" and shape:
        return torch.zeros([1] * len(shape)).to(dtype).expand(shape)
    if layout == "sliced" and shape:
        return x[..., ::2]
    return x.to_sparse() if layout == "sparse" and dtype == torch.float32 else x


def index_made(given: dict[str, Any]) -> Any:
    """The index that a description stands for."""
    if given["layout"] == "none":
        return [[0, 0, 0]]
    values = torch.randint(given["low"], given["high"], given["shape"])
    values = values.to(getattr(torch, given["dtype"]))
    if given["layout"] == "transposed" and values.dim() == 2:
        values = values.T.contiguous().T
    return values.to("meta") if given["layout"] == "meta" else values
