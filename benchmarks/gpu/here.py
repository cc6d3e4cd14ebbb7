"""What this machine has for the day, and what is skipped for want of something."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from gpu.task import Row, Task, attempt, failures
from tensormask_edu.base.machine import COMPILERS

# Package or program -> what is not done without it
NEEDED = {
    "numpy": "every check against the loops",
    "cuda.core": "our kernels: nearly everything",
    "cuda.bindings": "our kernels: nearly everything",
    "torchvision": "the steps network, model and engines",
    "safetensors": "training, and the engines",
    "PIL": "training",
    "tqdm": "training",
    "pycocotools": "training, and the official losses",
    "triton": "the ways that compile",
    "packaging": "the engines",
    "onnx": "engines that are built here",
    "tensorrt or tensorrt_rtx": "the engines",
    "a C++ compiler": "the ways that compile",
    "compute-sanitizer": "the step sanitizer",
    "nvidia-smi": "clocks beside the times",
}


def machine(task: Task) -> Iterator[Row]:
    """A row per package and program that the steps know, then whether our kernels run."""
    for name, without in NEEDED.items():
        if is_here(name):
            yield {"name": name, "ok": True}
        else:
            yield {"name": name, "skipped": f"not here; left out: {without}"}
    yield attempt(task, "our kernels run here", kernels_run)


def machine_text(rows: Sequence[Row]) -> list[str]:
    """What is missing, and what that costs."""
    here = [row["name"] for row in rows if row.get("ok")]
    return [f"{len(here)} of {len(NEEDED) + 1} are here", *failures(rows)]


def is_here(name: str) -> bool:
    """Whether one of the packages or programs of that name can be found."""
    if name == "a C++ compiler":
        return any(map(shutil.which, COMPILERS))
    if "-" in name:
        return shutil.which(name) is not None
    return any(spec(package) for package in name.split(" or "))


def spec(package: str) -> bool:
    """Whether a package can be imported, without doing so."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # what it lies in is not here either
        return False


def kernels_run(task: Task) -> Row:
    """An error with the reason if they do not; compiles those of float32."""
    from tensormask_edu import ops

    kind = task.device.kind
    if why := ops.missing(kind):
        raise RuntimeError(why)
    return {"runs": ops.status()[kind]["why"].split(", cached in")[0]}
