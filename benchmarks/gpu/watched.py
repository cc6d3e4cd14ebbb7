"""NVIDIA's compute-sanitizer watches every kernel in every dtype once.

`python -m gpu.watched cuda` is what it watches; the step `sanitizer` runs that under each tool.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import torch
from device import find

from gpu.kernels import PAD_VALUE
from gpu.task import NotHere, Row, Task, attempt

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
TOOLKIT = "/usr/local/cuda/bin/compute-sanitizer"  # where it often is, and not on the path
CODE = 9  # what it ends with if it found something
# Sizes that tiles do not divide, rows that vectors of four fit into and rows that they do not
SHAPES = ((1, 3, 2, 21, 34), (2, 2, 3, 9, 36))


def every_kernel(kind: str) -> None:
    """Every kernel, every dtype."""
    ours = find(kind).kernels()
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        for lam, shape in ((lam, shape) for lam in (1, 2, 3, 8) for shape in SHAPES):
            x = torch.randn(shape, device=kind).to(dtype)
            out = ours.forward(x, lam, PAD_VALUE)
            ours.backward(out, lam, *shape[3:])
            for count in (1, 500):  # few windows, then more than there are cells
                ends = torch.tensor([shape[0], *out.shape[3:]], device=kind)
                index = (torch.rand(count, 3, device=kind) * ends).long()
                windows = ours.forward_windows(x, lam, index, PAD_VALUE)
                ours.backward_windows(windows, lam, index, shape)
        # a lam that no tile fits: a thread per element
        x = torch.randn(1, 1, 1, 3, 3, device=kind).to(dtype)
        ours.backward(ours.forward(x, 400, PAD_VALUE), 400, 3, 3)
    find(kind).wait()


def sanitizer(task: Task) -> Iterator[Row]:
    """A row without it, then one per tool."""
    yield attempt(task, "every kernel, unwatched", unwatched)
    for tool in TOOLS:
        yield attempt(task, tool, watched, tool)


def unwatched(task: Task) -> None:
    """What is watched, so that the kernels are compiled."""
    every_kernel(task.device.kind)


def watched(task: Task, tool: str) -> Row:
    """What one tool has to say; an error if it found something."""
    program = shutil.which("compute-sanitizer") or TOOLKIT
    if not os.path.isfile(program):
        raise NotHere("compute-sanitizer is not installed")
    # PyTorch's own kernels are not ours to judge; memory from the driver has exact bounds
    options = [
        "--tool",
        tool,
        "--error-exitcode",
        str(CODE),
        "--kernel-regex",
        "kns=swap_align2nat",
    ]
    words = [program, *options, sys.executable, "-m", "gpu.watched", task.device.kind]
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    child = subprocess.run(words, capture_output=True, text=True, env=environment)
    text = child.stdout + child.stderr
    summary = re.findall(r"=+ .*(?:SUMMARY|Error|error).*", text)[-5:] or [text[-1000:]]
    assert child.returncode == 0, summary
    return {"summary": summary}


if __name__ == "__main__":
    every_kernel(sys.argv[1])
