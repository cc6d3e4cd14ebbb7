"""`python load_plugin.py LIBRARY`: create both plugins in this Python's TensorRT, print JSON.

It runs by itself, also in an environment that holds a TensorRT and nothing of ours.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from importlib.util import find_spec

import numpy as np

NAMES = ("SwapAlign2Nat", "SwapAlign2NatWindows")


def created(trt, name: str, lam: int) -> bool:
    creator = trt.get_plugin_registry().get_creator(name, "1", "tensormask_edu")
    kinds = trt.PluginFieldType
    values = (
        ("lam", np.array([lam], np.int32), kinds.INT32),
        ("pad_value", np.array([-6], np.float32), kinds.FLOAT32),
    )
    fields = trt.PluginFieldCollection([trt.PluginField(*value) for value in values])
    return creator.create_plugin(name, fields, trt.TensorRTPhase.BUILD) is not None


def main(library: str) -> None:
    name = next(
        n
        for n in ("tensorrt", "tensorrt_lean", "tensorrt_dispatch", "tensorrt_rtx")
        if find_spec(n)
    )
    trt = import_module(name)
    logger = trt.Logger(trt.Logger.WARNING)  # the registry writes to the last one made
    trt.get_plugin_registry().load_library(library)
    answer = {
        "runtime": f"{name} {trt.__version__}",
        "created": [op for op in NAMES if created(trt, op, 2)],
        "refused": [op for op in NAMES if not created(trt, op, 0)],
    }
    del logger
    print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1])
