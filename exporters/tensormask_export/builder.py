"""The child process that parses and builds: `python -m tensormask_export.builder REQUEST.json`.

It reads what to do from a JSON file and writes what came of it to another, because the libraries it loads may
end the process. So it imports little, and no PyTorch.

next: cli.py
"""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tensormask_edu.errors import InputError
from tensormask_edu.files import read_json, write_json

from . import contract
from .backends import find_backend, make_builder, network_flags

STOPPED = 130  # exit code after Ctrl-C
# Remarks that say nothing: a function used twice repeats its node names, and int64 outputs stay int64.
HARMLESS = ("already exists, the output tensors of this new instance", "has Int64 binding")


class BuildFailed(Exception):
    """The builder said no; the message says why."""


def run(request_path: str) -> int:
    """Do what the request says, write the answer where it says; returns the exit code."""
    request = read_json(request_path)
    stopped: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: stopped.append(number))
    try:
        answer = _parse_and_build(find_backend(request["backend"]).module, request, stopped)
    except (BuildFailed, InputError) as error:
        if stopped:
            return STOPPED
        answer = {"error": str(error)}
    write_json(request["answer"], answer)
    return 0


def _parse_and_build(trt: Any, request: dict[str, Any], stopped: list[int]) -> dict[str, Any]:
    start = time.perf_counter()
    logger = _logger(trt)
    builder = make_builder(trt, logger)
    network = builder.create_network(network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(request["onnx"]):
        raise BuildFailed(f"the ONNX file does not parse: {parser.get_error(0).desc()}")
    layers = Counter(network.get_layer(i).type.name for i in range(network.num_layers))
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    plan = builder.build_serialized_network(network, _config(trt, builder, request, stopped))
    if plan is None:
        raise BuildFailed(logger.errors[-1] if logger.errors else "it gave no reason")
    Path(request["plan"]).write_bytes(plan)
    return {
        "layers": dict(layers.most_common()),
        "outputs": {output.name: list(output.shape) for output in outputs},
        "seconds": round(time.perf_counter() - start, 2),
        "warnings": logger.warnings,
    }


def _config(trt: Any, builder: Any, request: dict[str, Any], stopped: list[int]) -> Any:
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    profile.set_shape(contract.IMAGES, *(request["profile"][key] for key in ("min", "opt", "max")))
    config.add_optimization_profile(profile)
    if request["sm"]:
        config.num_compute_capabilities = len(request["sm"])
    for position, number in enumerate(request["sm"]):
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{number}"), position)
    config.progress_monitor = _progress_monitor(trt, stopped)
    return config


def _logger(trt: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        """Keeps errors and warnings, each once."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.warnings: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            kept = {"INTERNAL_ERROR": self.errors, "ERROR": self.errors, "WARNING": self.warnings}
            messages = kept.get(severity.name)
            if messages is None or message in messages or any(h in message for h in HARMLESS):
                return
            messages.append(message)

    return Logger()


def _progress_monitor(trt: Any, stopped: list[int]) -> Any:
    from tqdm import tqdm  # type: ignore[import-untyped]

    class Progress(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        """One bar per phase; says no to the builder once Ctrl-C was pressed."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.bars: dict[str, Any] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            place = len(self.bars)
            self.bars[phase_name] = tqdm(
                total=num_steps, desc=phase_name, position=place, leave=False, disable=None
            )

        def step_complete(self, phase_name: str, step: int) -> bool:
            bar = self.bars.get(phase_name)
            if bar is not None:
                bar.update(step + 1 - bar.n)
            return not stopped

        def phase_finish(self, phase_name: str) -> None:
            bar = self.bars.pop(phase_name, None)
            if bar is not None:
                bar.close()

    return Progress()


if __name__ == "__main__":
    sys.exit(run(sys.argv[1]))
