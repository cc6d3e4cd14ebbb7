"""The child process that builds: `python -m tensormask_export.engine.child REQUEST.json`.

It reads what to do from a JSON file and writes what came of it to another, because the
libraries it loads may end the process. So it imports little, and no PyTorch.

next: engine/manifest.py
"""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]

from tensormask_edu.base.errors import InputError
from tensormask_edu.base.files import cannot_write, read_json, write_json, written_whole

from .. import contract
from . import plugin
from .backends import find_backend, make_builder, make_logger, network_flags

PLUGIN_LAYERS = ("PLUGIN", "PLUGIN_V2", "PLUGIN_V3")


class BuildFailed(Exception):
    """The builder said no; the message says why."""


def run(request_path: str) -> int:
    """Do what the request says, write the answer where it says; returns the exit code."""
    # Ctrl-C ends it in the middle of the builder's work: Python's own handler would wait
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    request = read_json(request_path)
    try:
        answer = _parse_and_build(find_backend(request["backend"]).module, request)
    except (BuildFailed, InputError) as error:
        answer = {"error": str(error)}
    except OSError as error:
        answer = {"error": str(cannot_write(request["plan"], error))}
    write_json(request["answer"], answer)
    return 0


def _parse_and_build(trt: Any, request: dict[str, Any]) -> dict[str, Any]:
    start = time.perf_counter()
    logger = make_logger(trt)
    builder = make_builder(trt, logger)
    plugin.load(trt, **request["plugin"])
    network = builder.create_network(network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(request["onnx"]):
        raise BuildFailed(f"the ONNX file does not parse: {parser.get_error(0).desc()}")
    layers = Counter(network.get_layer(i).type.name for i in range(network.num_layers))
    check_plugins(layers, request["plugin"]["kind"], request["plugin_nodes"])
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    config = _config(trt, builder, request)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildFailed(logger.errors[-1] if logger.errors else "it gave no reason")
    Path(request["plan"]).write_bytes(plan)
    if request["timing_cache"]:
        with written_whole(request["timing_cache"]) as temporary:
            temporary.write_bytes(config.get_timing_cache().serialize())
    return {
        "layers": dict(layers.most_common()),
        "outputs": {output.name: list(output.shape) for output in outputs},
        "seconds": round(time.perf_counter() - start, 2),
        "warnings": logger.warnings,
    }


def check_plugins(layers: Counter[str], kind: str, nodes: dict[str, int]) -> None:
    """Raise BuildFailed unless every node of ours became a plugin layer, or none, as asked.

    The parser itself takes a node's function body without a word where it finds no plugin.
    """
    found = sum(layers[name] for name in PLUGIN_LAYERS)
    wanted = 0 if kind == "none" else sum(nodes.values())
    if found != wanted:
        names = ", ".join(f"{count} {name}" for name, count in nodes.items())
        raise BuildFailed(
            f"plugin {kind}: {found} plugin layers came of {names} nodes in the ONNX file. "
            "Does each node have the attributes plugin_namespace and plugin_version? Export "
            "again, or use --plugin none"
        )


def _config(trt: Any, builder: Any, request: dict[str, Any]) -> Any:
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    shapes = [request["profile"][name] for name in ("min", "opt", "max")]
    profile.set_shape(contract.IMAGES, *shapes)
    config.add_optimization_profile(profile)
    if request["sm"]:
        config.num_compute_capabilities = len(request["sm"])
    for position, number in enumerate(request["sm"]):
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{number}"), position)
    if request["workspace_mib"] is not None:
        limit = int(request["workspace_mib"] * 2**20)  # bytes
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, limit)
    if request["optimization_level"] is not None:
        config.builder_optimization_level = request["optimization_level"]
    if request["timing_cache"]:
        _set_timing_cache(config, Path(request["timing_cache"]))
    config.progress_monitor = _progress_monitor(trt)
    return config


def _set_timing_cache(config: Any, path: Path) -> None:
    """An empty cache, or the one that an earlier build left."""
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        problem = "is of another version or GPU, or damaged: remove it"
        raise BuildFailed(f"the timing cache {path} {problem}")


def _progress_monitor(trt: Any) -> Any:
    class Progress(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        """One bar: steps of the outermost phase, and the name of the phase at work."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.outermost, self.bar = "", tqdm(disable=None, leave=False)

        def phase_start(
            self, phase_name: str, parent_phase: str | None, num_steps: int
        ) -> None:
            if parent_phase is None:
                self.outermost, self.bar.total = phase_name, num_steps
            self.bar.set_description(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name == self.outermost:
                self.bar.update(step + 1 - self.bar.n)
            return True  # go on

        def phase_finish(self, phase_name: str) -> None:
            if phase_name == self.outermost:
                self.bar.close()

    return Progress()


if __name__ == "__main__":
    sys.exit(run(sys.argv[1]))
