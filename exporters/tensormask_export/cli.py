"""`tensormask-export`: parse, call one function, print. Bad input is one line and exit code 2.

    tensormask-export onnx CHECKPOINT MODEL.onnx     a checkpoint as one ONNX file
    tensormask-export verify MODEL.onnx CHECKPOINT   does ONNX Runtime compute what PyTorch computes?
    tensormask-export engine MODEL.onnx MODEL.engine a TensorRT engine and its manifest
    tensormask-export predict MODEL IMAGE            pictures from an ONNX file or an engine
    tensormask-export bench MODEL                    how long it takes

next: plugins/README.md
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from tensormask_edu import __version__
from tensormask_edu.base.errors import InputError, bad_input

Parser = argparse.ArgumentParser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 fine, 1 the files differ, 2 bad input."""
    args = build_parser().parse_args(arguments)
    try:
        return args.run(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130


def build_parser() -> Parser:
    """The whole command line."""
    parser = Parser(
        prog="tensormask-export",
        description="A trained TensorMask as ONNX and TensorRT, with proof that they compute the same.",
        epilog="In this order: onnx, verify, engine, predict. `tensormask-export COMMAND --help` has more.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (_onnx, _verify, _engine, _predict, _bench):
        add(commands)
    return parser


def _command(
    commands: Any, name: str, run: Callable[..., int], text: str, example: str
) -> Parser:
    parser = commands.add_parser(
        name,
        help=re.split(r"\.\s", text)[0],
        description=text,
        epilog=f"example:\n  tensormask-export {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", metavar="FILE", help="also write the report here")
    parser.set_defaults(run=run)
    return parser


def _onnx(commands: Any) -> None:
    text = (
        "Write a checkpoint as one ONNX file: pictures in; boxes, scores, labels and masks out. Batch,\n"
        "height and width stay free; normalisation is inside. Our ops carry a body of standard ops: ONNX\n"
        "Runtime and TensorRT run the same file."
    )
    parser = _command(
        commands, "onnx", _run_onnx, text, "onnx outputs/demo/checkpoint outputs/model.onnx"
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint folder")
    parser.add_argument("model", metavar="MODEL.onnx", help="the file to write")
    parser.add_argument(
        "--candidates",
        type=int,
        metavar="N",
        help="(window, class) pairs that enter NMS (default: the checkpoint's; at most TensorRT's 3840)",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "float16"),
        default="float32",
        help="of weights and activations (default float32); inputs and outputs stay float32",
    )
    parser.add_argument(
        "--raw", action="store_true", help="logits and deltas of all levels as outputs too"
    )
    parser.add_argument(
        "--dense",
        action="store_true",
        help="compute the masks of all windows, for study: 144 million numbers for an 800 x 1344 picture in "
        "the paper's model",
    )


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
    text = (
        "Compare what every runtime here makes of the file with PyTorch, on the CPU: ONNX Runtime; the same\n"
        "with our ops computed by the NumPy loops; the network that TensorRT's parser made of it;\n"
        "torch.compile on request. Without a checkpoint only the samples inside the file are replayed.\n"
        "Exit code 1 if something differs by more than its tolerance."
    )
    example = (
        "verify outputs/model.onnx outputs/demo/checkpoint\n"
        "  tensormask-export verify model.onnx checkpoint --sizes 1x96x96 4x256x320 --image photo.jpg\n"
        "  tensormask-export verify model.onnx checkpoint --coco FOLDER --split val --limit 20"
    )
    parser = _command(commands, "verify", _run_verify, text, example)
    parser.add_argument(
        "model", metavar="MODEL.onnx", help="a file of `tensormask-export onnx`"
    )
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        nargs="?",
        help="the checkpoint it was exported from",
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=_numbers,
        metavar="NxHxW",
        help="random pictures of these sizes (default 1x64x96 2x128x160; none with --image or --coco alone)",
    )
    parser.add_argument(
        "--image", nargs="+", default=[], metavar="FILE", help="picture files as well"
    )
    parser.add_argument(
        "--coco", metavar="FOLDER", help="the pictures of a COCO folder as well, and their AP"
    )
    parser.add_argument("--split", default="val", help="of the COCO folder (default val)")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="at most so many of its pictures"
    )
    parser.add_argument(
        "--runtimes",
        nargs="+",
        metavar="NAME",
        help="some of onnxruntime, numpy, parsed, compiled (default: the first three)",
    )
    parser.add_argument(
        "--engine",
        nargs="+",
        default=[],
        metavar="FILE",
        help="engines of this file too, where there is a GPU",
    )
    parser.add_argument(
        "--bisect",
        action="store_true",
        help="compare every layer: where does the difference begin?",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random pictures")


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
        bisect=args.bisect,
        seed=args.seed,
    )
    _write_report(args, report)
    print(report.table())
    return 0 if report.passed else 1


def _engine(commands: Any) -> None:
    text = (
        "Build a TensorRT engine. Beside it comes its manifest: hashes, sizes, targets, classes, windows.\n\n"
        "With `tensorrt` installed the engine is for the GPU of this machine. Else `tensorrt-rtx` builds it\n"
        "without any GPU, for compute capability 8.0, 8.6, 8.9, 12.0 and later; --sm narrows that.\n\n"
        "--plugin: how our ops run. `cpp`, a library built with CMake; `python`, for Python programs that\n"
        "register it; `none`, as the standard ops in the file; `auto`, the first of these that is here, but\n"
        "`python` for TensorRT alone. If a node does not take the plugin asked for, that is an error."
    )
    example = (
        "engine outputs/model.onnx outputs/model.engine\n"
        "  tensormask-export engine model.onnx model.engine --sm 86 89 "
        "--min 1x3x128x128 --opt 1x3x256x256 --max 8x3x512x512\n"
        "  tensormask-export engine model.onnx model.engine --shapes 1x3x800x1344 --plugin cpp"
    )
    parser = _command(commands, "engine", _run_engine, text, example)
    parser.add_argument(
        "model", metavar="MODEL.onnx", help="a file of `tensormask-export onnx`"
    )
    parser.add_argument("engine", metavar="MODEL.engine", help="the file to write")
    backends = ("auto", "tensorrt", "tensorrt-rtx", "tensorrt_rtx")
    parser.add_argument(
        "--backend", choices=backends, default="auto", metavar="NAME", help="tensorrt-rtx ..."
    )
    parser.add_argument(
        "--sm",
        nargs="+",
        type=int,
        default=[],
        metavar="NN",
        help="86 for 8.6; several fit in one",
    )
    for name, default in (
        ("min", "1x3x128x128"),
        ("opt", "1x3x256x256"),
        ("max", "4x3x512x512"),
    ):
        parser.add_argument(
            f"--{name}",
            f"--{name}Shapes",
            type=_numbers,
            metavar="Nx3xHxW",
            help=f"default {default}",
        )
    parser.add_argument(
        "--shapes", type=_numbers, metavar="Nx3xHxW", help="all three: an engine of one shape"
    )
    plugins = ("auto", "cpp", "python", "none")
    parser.add_argument("--plugin", choices=plugins, default="auto", help="default auto")
    parser.add_argument(
        "--plugin-library",
        "--dynamicPlugins",
        metavar="FILE.so",
        help="the C++ plugin (default: $TENSORMASK_PLUGIN, or build/plugins of the checkout)",
    )
    parser.add_argument(
        "--timingCacheFile", metavar="FILE", help="read if there, written after the build"
    )
    parser.add_argument(
        "--memPoolSize", type=_mib, metavar="workspace:MIB", help="scratch memory on the GPU"
    )
    parser.add_argument(
        "--builderOptimizationLevel", type=int, metavar="0..5", help="how long it searches"
    )


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
    text = (
        "Segment an image or a folder of images with an exported model; writes pictures and\n"
        "detections.json. An ONNX file runs on the CPU, an engine on the GPU it was built for, after its\n"
        "hash was compared with its manifest."
    )
    example = (
        "predict outputs/model.onnx photo.jpg --output outputs/seen\n"
        "  tensormask-export predict --engine outputs/model.engine photos --output outputs/seen --score 0.3"
    )
    parser = _command(commands, "predict", _run_predict, text, example)
    _add_model(parser, needed=False)
    parser.add_argument(
        "--engine", metavar="FILE", help="the same as MODEL, in trtexec's manner"
    )
    parser.add_argument("image", metavar="IMAGE", help="an image file or a folder of them")
    parser.add_argument("--output", required=True, metavar="DIR", help="where the pictures go")
    parser.add_argument(
        "--score", type=float, default=0.5, help="draw from this score on (default 0.5)"
    )


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
    text = (
        "Time an exported model, the computation alone and from array to arrays, and measure its memory.\n"
        "With --eager or --compile also the checkpoint in PyTorch, as the same graph. Each runs in a\n"
        "process of its own. On the CPU keep the machine quiet."
    )
    example = (
        "bench outputs/model.onnx --shape 1x3x256x256 --eager outputs/demo/checkpoint\n"
        "  tensormask-export bench outputs/model.engine --shape 8x3x512x512 --json bench.json"
    )
    parser = _command(commands, "bench", _run_bench, text, example)
    _add_model(parser)
    parser.add_argument(
        "--shape",
        type=_numbers,
        metavar="Nx3xHxW",
        help="default: what the engine is tuned for, or 1x3x256x256",
    )
    parser.add_argument("--eager", metavar="CHECKPOINT", help="PyTorch as well")
    parser.add_argument(
        "--compile", metavar="CHECKPOINT", help="PyTorch through torch.compile as well"
    )
    parser.add_argument(
        "--warmup", type=int, default=10, metavar="N", help="runs before (default 10)"
    )
    parser.add_argument(
        "--iterations", type=int, default=100, metavar="N", help="runs (default 100)"
    )
    parser.add_argument(
        "--seconds", type=float, default=60, help="stop a runtime then (default 60)"
    )
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="of the CPU (default: all cores)"
    )


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


def _add_model(parser: Parser, needed: bool = True) -> None:
    """An exported model, and what an engine may need."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs=None if needed else "?",
        help="a .onnx file, or an engine with its manifest beside it",
    )
    parser.add_argument(
        "--plugin-library",
        metavar="FILE.so",
        help="the C++ plugin that an engine was built with",
    )
    parser.add_argument(
        "--no-cuda-graph", action="store_true", help="do not record an engine's work"
    )
    parser.add_argument(
        "--allow-host-code",
        action="store_true",
        help="accept an engine that carries code for the CPU",
    )


def _engine_options(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "plugin_library": args.plugin_library,
        "cuda_graph": not args.no_cuda_graph,
        "allow_host_code": args.allow_host_code,
    }


def _mib(text: str) -> float:
    """workspace:1024 as 1024.0, in MiB; trtexec's K, M and G as well."""
    number, unit = re.fullmatch(
        r"(.*?)([KMG]?)", text.removeprefix("workspace:"), re.S
    ).groups()  # type: ignore[union-attr]
    try:
        return float(number) * {"K": 2**-10, "": 1, "M": 1, "G": 2**10}[unit]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected workspace:MIB, as workspace:2048, got {text!r}"
        ) from None


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
