"""The command line: parse, call one function, print.

    tensormask-export onnx CHECKPOINT MODEL.onnx     a checkpoint as one ONNX file
    tensormask-export verify MODEL.onnx CHECKPOINT   does it compute what PyTorch computes?
    tensormask-export engine MODEL.onnx MODEL.engine a TensorRT engine and its manifest
    tensormask-export predict MODEL IMAGE            pictures from an ONNX file or an engine
    tensormask-export bench MODEL                    how long it takes

Each command imports what it needs when it runs, so `--help` is quick.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from textwrap import dedent
from typing import Any

from tensormask_edu import __version__
from tensormask_edu.base.command_line import Parser, add_command, run_command
from tensormask_edu.base.errors import bad_input

Add = Callable[..., None]  # (name of an argument, its help, keywords of argparse)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 fine, 1 the files differ, 2 bad input."""
    return run_command(build_parser(), arguments, "stopped; nothing was written")


def build_parser() -> Parser:
    """The whole command line."""
    what = "A trained TensorMask as ONNX and TensorRT, with proof that they compute the same."
    more = "`tensormask-export COMMAND --help` has more."
    order = f"In this order: onnx, verify, engine, predict. {more}"
    parser = Parser(prog="tensormask-export", description=what, epilog=order)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (_onnx, _verify, _engine, _predict, _bench):
        command(commands)
    return parser


def _command(
    commands: Any, name: str, run: Callable[..., int], text: str, *examples: str
) -> Add:
    """A command; returns what adds an argument to it."""
    example = "\n  tensormask-export ".join(f"{name} {words}" for words in examples)
    parser = add_command(commands, name, run, dedent(text).strip(), example)

    def add(names: str, help: str, **keywords: Any) -> None:
        parser.add_argument(*names.split(), help=help, **keywords)

    add("--json", "also write the report here", metavar="FILE")
    return add


def _onnx(commands: Any) -> None:
    text = """
        Write a checkpoint as one ONNX file: pictures in; boxes, scores, labels and masks out.
        Batch, height and width stay free; normalisation is inside. Our ops carry a body of
        standard ops: ONNX Runtime and TensorRT run the same file.
    """
    example = "outputs/demo/checkpoint outputs/model.onnx"
    add = _command(commands, "onnx", _run_onnx, text, example)
    add("checkpoint", "a checkpoint folder", metavar="CHECKPOINT")
    add("model", "the file to write", metavar="MODEL.onnx")
    default = "default: the checkpoint's; at most TensorRT's 3840"
    pairs = f"(window, class) pairs that enter NMS ({default})"
    add("--candidates", pairs, type=int, metavar="N")
    kinds = ("float32", "float16")
    words = "of weights and activations (default float32); inputs and outputs stay float32"
    add("--precision", words, choices=kinds, default=kinds[0])
    add("--raw", "logits and deltas of all levels as outputs too", action="store_true")
    size = "144 million numbers for an 800 x 1344 picture in the paper's model"
    words = f"compute the masks of all windows, for study: {size}"
    add("--dense", words, action="store_true")


def _run_onnx(args: argparse.Namespace) -> int:
    from tensormask_edu.weights.checkpoint import load_checkpoint

    from .onnx_file.write import export_onnx

    model, input_config = load_checkpoint(args.checkpoint)
    report = export_onnx(
        model,
        args.model,
        masks="dense" if args.dense else "windows",
        candidates=args.candidates,
        precision=args.precision,
        raw=args.raw,
        input_config=input_config,
    )
    _write_report(args, report)
    nodes = ", ".join(f"{count} {name}" for name, count in report.nodes.items())
    size = f"{report.bytes / 1e6:.1f} MB, opset {report.opset}"
    print(f"{report.path}: {size}, {nodes}, in {report.seconds:.1f} s")
    for note in report.notes:
        print(f"  note: {note}")
    return 0


def _verify(commands: Any) -> None:
    text = """
        Compare what every runtime here makes of the file with PyTorch, on the CPU: ONNX
        Runtime; the same with our ops computed by the NumPy loops; the network that TensorRT's
        parser made of it; torch.compile on request. Without a checkpoint only the samples
        inside the file are replayed. Exit code 1 if something differs by more than its
        tolerance.
    """
    examples = (
        "outputs/model.onnx outputs/demo/checkpoint",
        "model.onnx checkpoint --sizes 1x96x96 4x256x320 --image photo.jpg",
        "model.onnx checkpoint --coco FOLDER --split val --limit 20",
    )
    add = _command(commands, "verify", _run_verify, text, *examples)
    add("model", "a file of `tensormask-export onnx`", metavar="MODEL.onnx")
    add("checkpoint", "the checkpoint it was exported from", metavar="CHECKPOINT", nargs="?")
    default = "default 1x64x96 2x128x160; none with --image or --coco alone"
    words = f"random pictures of these sizes ({default})"
    add("--sizes", words, nargs="+", type=_numbers, metavar="NxHxW")
    add("--image", "picture files as well", nargs="+", default=[], metavar="FILE")
    add("--coco", "the pictures of a COCO folder as well, and their AP", metavar="FOLDER")
    add("--split", "of the COCO folder (default val)", default="val")
    add("--limit", "at most so many of its pictures", type=int, metavar="N")
    words = "some of onnxruntime, numpy, parsed, compiled (default: the first three)"
    add("--runtimes", words, nargs="+", metavar="NAME")
    words = "engines of this file too, where there is a GPU"
    add("--engine", words, nargs="+", default=[], metavar="FILE")
    words = "compare every layer: where does the difference begin?"
    add("--bisect", words, action="store_true")
    add("--seed", "of the random pictures", type=int, default=0)


def _run_verify(args: argparse.Namespace) -> int:
    from .runtimes.find import DEFAULT_NAMES
    from .verify.report import DEFAULT_SIZES, verify

    report = verify(
        args.model,
        args.checkpoint,
        sizes=args.sizes or (() if args.image or args.coco else DEFAULT_SIZES),
        images=args.image,
        coco=args.coco,
        split=args.split,
        limit=args.limit,
        runtimes=args.runtimes or DEFAULT_NAMES,
        engines=args.engine,
        layers=args.bisect,
        seed=args.seed,
    )
    _write_report(args, report)
    print(report.table())
    return 0 if report.passed else 1


def _engine(commands: Any) -> None:
    text = """
        Build a TensorRT engine. Beside it comes its manifest: hashes, sizes, targets, classes,
        windows.

        With `tensorrt` installed the engine is for the GPU of this machine. Else `tensorrt-rtx`
        builds it without any GPU, for compute capability 8.0, 8.6, 8.9, 12.0 and later; --sm
        narrows that.

        --plugin: how our ops run. `cpp`, a library built with CMake; `python`, for Python
        programs that register it; `none`, as the standard ops in the file; `auto`, the first of
        these that is here, but `python` for TensorRT alone. If a node does not take the plugin
        asked for, that is an error.
    """
    shapes = "--min 1x3x128x128 --opt 1x3x256x256 --max 8x3x512x512"
    examples = (
        "outputs/model.onnx outputs/model.engine",
        f"model.onnx model.engine --sm 86 89 {shapes}",
        "model.onnx model.engine --shapes 1x3x800x1344 --plugin cpp",
    )
    add = _command(commands, "engine", _run_engine, text, *examples)
    add("model", "a file of `tensormask-export onnx`", metavar="MODEL.onnx")
    add("engine", "the file to write", metavar="MODEL.engine")
    backends = ("auto", "tensorrt", "tensorrt-rtx", "tensorrt_rtx")
    add("--backend", "tensorrt-rtx ...", choices=backends, default="auto", metavar="NAME")
    words = "86 for 8.6; several fit in one"
    add("--sm", words, nargs="+", type=int, default=[], metavar="NN")
    shape: dict[str, Any] = {"type": _numbers, "metavar": "Nx3xHxW"}
    add("--min --minShapes", "default 1x3x128x128", **shape)
    add("--opt --optShapes", "default 1x3x256x256", **shape)
    add("--max --maxShapes", "default 4x3x512x512", **shape)
    add("--shapes", "all three: an engine of one shape", **shape)
    plugins = ("auto", "cpp", "python", "none")
    add("--plugin", "default auto", choices=plugins, default="auto")
    words = "the C++ plugin (default: $TENSORMASK_PLUGIN, or build/plugins of the checkout)"
    add("--plugin-library --dynamicPlugins", words, metavar="FILE.so")
    add("--timingCacheFile", "read if there, written after the build", metavar="FILE")
    words = "scratch memory on the GPU"
    add("--memPoolSize", words, type=_mib, metavar="workspace:MIB")
    add("--builderOptimizationLevel", "how long it searches", type=int, metavar="0..5")


def _run_engine(args: argparse.Namespace) -> int:
    from .engine.build import Effort, build_engine
    from .shapes import Profile

    given = {name: getattr(args, name) for name in ("min", "opt", "max") if getattr(args, name)}
    if args.shapes:
        if given:
            raise bad_input("shapes", "either --shapes or --min, --opt and --max", "both")
        given = dict.fromkeys(("min", "opt", "max"), args.shapes)
    report = build_engine(
        args.model,
        args.engine,
        profile=Profile(**given),
        sm=args.sm,
        backend=args.backend,
        plugin=args.plugin,
        plugin_library=args.plugin_library,
        effort=Effort(args.memPoolSize, args.builderOptimizationLevel, args.timingCacheFile),
    )
    _write_report(args, report)
    targets = " ".join(report.targets["compute_capabilities"])
    print(f"{report.path}: {report.bytes / 1e6:.1f} MB in {report.seconds:.1f} s")
    print(f"  built with   {report.backend} {report.version}")
    print(f"  for          {targets} ({report.targets['note']})")
    print(f"  shapes       {Profile(**report.profile).text()}")
    print(f"  plugin       {report.plugin['kind']}: {report.plugin['why']}")
    print(f"  our ops      {', '.join(f'{name}: {how}' for name, how in report.ops.items())}")
    print(f"  manifest     {report.manifest}")
    print(f"  equivalent   {report.command}")
    return 0


def _predict(commands: Any) -> None:
    text = """
        Segment an image or a folder of images with an exported model; writes pictures and
        detections.json. An ONNX file runs on the CPU, an engine on the GPU it was built for,
        after its hash was compared with its manifest.
    """
    examples = (
        "outputs/model.onnx photo.jpg --output outputs/seen",
        "--engine outputs/model.engine photos --output outputs/seen --score 0.3",
    )
    add = _command(commands, "predict", _run_predict, text, *examples)
    _add_model(add, nargs="?")
    add("--engine", "the same as MODEL, in trtexec's manner", metavar="FILE")
    add("image", "an image file or a folder of them", metavar="IMAGE")
    add("--output", "where the pictures go", required=True, metavar="DIR")
    add("--score", "draw from this score on (default 0.5)", type=float, default=0.5)


def _run_predict(args: argparse.Namespace) -> int:
    from .predict import predict

    if (args.model is None) == (args.engine is None):
        raise bad_input("model", "one of MODEL and --engine", "both" if args.model else "none")
    model = args.model or args.engine
    report = predict(model, args.image, args.output, args.score, **_engine_options(args))
    _write_report(args, report)
    for picture in report.pictures:
        print(picture)
    return 0


def _bench(commands: Any) -> None:
    text = """
        Time an exported model, the computation alone and from array to arrays, and measure its
        memory. With --eager or --compile also the checkpoint in PyTorch, as the same graph.
        Each runs in a process of its own. On the CPU keep the machine quiet.
    """
    examples = (
        "outputs/model.onnx --shape 1x3x256x256 --eager outputs/demo/checkpoint",
        "outputs/model.engine --shape 8x3x512x512 --json bench.json",
    )
    add = _command(commands, "bench", _run_bench, text, *examples)
    _add_model(add)
    words = "default: what the engine is tuned for, or 1x3x256x256"
    add("--shape", words, type=_numbers, metavar="Nx3xHxW")
    add("--eager", "PyTorch as well", metavar="CHECKPOINT")
    add("--compile", "PyTorch through torch.compile as well", metavar="CHECKPOINT")
    add("--warmup", "runs before (default 10)", type=int, default=10, metavar="N")
    add("--iterations", "runs (default 100)", type=int, default=100, metavar="N")
    add("--seconds", "stop a runtime then (default 60)", type=float, default=60)
    add("--threads", "of the CPU (default: all cores)", type=int, default=0, metavar="N")


def _run_bench(args: argparse.Namespace) -> int:
    from .bench import Effort, bench

    report = bench(
        args.model,
        shape=args.shape,
        effort=Effort(args.warmup, args.iterations, args.seconds, args.threads),
        eager=args.eager,
        compiled=args.compile,
        **_engine_options(args),
    )
    _write_report(args, report)
    print(report.table())
    return 0


def _add_model(add: Add, **keywords: Any) -> None:
    """An exported model, and what an engine may need."""
    words = "a .onnx file, or an engine with its manifest beside it"
    add("model", words, metavar="MODEL", **keywords)
    words = "the C++ plugin that an engine was built with"
    add("--plugin-library", words, metavar="FILE.so")
    add("--no-cuda-graph", "do not record an engine's work", action="store_true")
    words = "accept an engine that carries code for the CPU"
    add("--allow-host-code", words, action="store_true")


def _engine_options(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "plugin_library": args.plugin_library,
        "cuda_graph": not args.no_cuda_graph,
        "allow_host_code": args.allow_host_code,
    }


def _mib(text: str) -> float:
    """workspace:1024 as 1024.0, in MiB; trtexec's K, M and G as well."""
    words = text.removeprefix("workspace:")
    unit = words[-1:] if words[-1:] in ("K", "M", "G") else ""
    try:
        return float(words.removesuffix(unit)) * {"K": 2**-10, "": 1, "M": 1, "G": 2**10}[unit]
    except ValueError:
        expected = "workspace:MIB, as workspace:2048"
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}") from None


def _numbers(text: str) -> tuple[int, ...]:
    """1x128x128 as (1, 128, 128); trtexec's images:1x3x128x128 as well."""
    try:
        return tuple(int(part) for part in text.rpartition(":")[2].split("x"))
    except ValueError:
        expected = "numbers joined by x, as 1x128x128"
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}") from None


def _write_report(args: argparse.Namespace, report: Any) -> None:
    from tensormask_edu.base.files import write_json

    if args.json:
        write_json(args.json, report.to_json())
