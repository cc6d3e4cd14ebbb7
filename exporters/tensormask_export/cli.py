"""The command line: parse, call one function, print.

    tensormask-export onnx CHECKPOINT MODEL.onnx     a checkpoint as one ONNX file
    tensormask-export verify MODEL.onnx CHECKPOINT   does it compute what PyTorch computes?
    tensormask-export engine MODEL.onnx MODEL.engine a TensorRT engine and its manifest
    tensormask-export predict MODEL IMAGE            pictures from an ONNX file or an engine
    tensormask-export bench MODEL                    how long it takes
    tensormask-export triton MODEL --output FOLDER   what Triton Inference Server serves

Each command imports what it needs when it runs, so `--help` is quick.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from textwrap import dedent
from typing import Any

from tensormask_edu import __version__
from tensormask_edu.base.command_line import Parser, add_command, run_command
from tensormask_edu.base.errors import InputError, bad_input, printable
from tensormask_edu.base.files import (
    check_report,
    read_json,
    refuse_overwriting,
    refuse_replacing_other,
    write_json,
)

from . import contract

PICTURE = "outputs/shapes/images/val_00000.png"  # of `tensormask-edu shapes outputs/shapes`
Add = Callable[..., None]  # (names and value of an argument, its help, keywords of argparse)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 fine, 1 the files differ, 2 bad input."""
    return run_command(build_parser(), arguments, "stopped; nothing was written")


def build_parser() -> Parser:
    """The whole command line."""
    what = "A trained TensorMask as ONNX and TensorRT, with proof that they compute the same."
    more = "`tensormask-export COMMAND --help` has more."
    trained = (
        "The examples start from those of `tensormask-edu shapes --help` and `train --help`."
    )
    order = f"In this order: onnx, verify, engine, predict or triton. {trained} {more}"
    parser = Parser(prog="tensormask-export", description=what, epilog=order)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (_onnx, _verify, _engine, _predict, _bench, _triton):
        command(commands)
    return parser


def _command(
    commands: Any, name: str, run: Callable[..., int], text: str, *examples: str
) -> Add:
    """A command; returns what adds an argument to it, as `add("--limit N", "at most so many")`.

    The last word, without dashes, is what `--help` calls the value.
    """
    example = "\n  tensormask-export ".join(f"{name} {words}" for words in examples)
    parser = add_command(commands, name, run, dedent(text).strip(), example)

    def add(names_and_value: str, help: str, **keywords: Any) -> None:
        names = names_and_value.split()
        if len(names) > 1 and not names[-1].startswith("-"):
            keywords["metavar"] = names.pop()
        parser.add_argument(*names, help=help, **keywords)

    add("--json FILE", "also write the report here")
    return add


def _done(args: argparse.Namespace, report: Any, text: str) -> int:
    """Write the report if asked to, print; returns the exit code of a command that is fine."""
    if args.json:
        write_json(args.json, report.to_json())
    print(text)
    return 0


def _onnx(commands: Any) -> None:
    text = """
        Write a checkpoint as one ONNX file: pictures in; boxes, scores, labels and masks out.
        Batch, height and width stay free; normalisation is inside. Our ops carry a body of
        standard ops: ONNX Runtime and TensorRT run the same file.

        --precision int8: convolutions of backbone and towers with the ranges that the train
        split of a COCO folder shows, for processors; --symmetric: as TensorRT takes it. AP on
        the val split before and after stands in the file.
    """
    examples = "outputs/run/checkpoint outputs/model.onnx", "cells outputs/cells.onnx"
    default = "default: the checkpoint's; at most TensorRT's 3840"
    stays = "inputs and outputs stay float32"
    size = "144 million numbers for an 800 x 1344 picture in the paper's model"
    kinds = {"choices": ("float32", "float16", "int8"), "default": "float32"}
    points = {"type": float, "metavar": "POINTS"}
    flag = {"action": "store_true"}
    inner = f"inner tensors as outputs too: {', '.join(contract.INNER)} (all, if none is named)"
    add = _command(commands, "onnx", _run_onnx, text, *examples)
    add("checkpoint CHECKPOINT", "a checkpoint folder, or the name of a model that comes along")
    add("model MODEL.onnx", "the file to write")
    add("--candidates N", f"(window, class) pairs that enter NMS ({default})", type=int)
    add("--precision", f"of weights and activations (default float32); {stays}", **kinds)
    add("--inner KIND", inner, nargs="*", choices=contract.INNER)
    add("--portable", "no node of ours, for OpenVINO and others; no plugin", **flag)
    add("--calibrate --calib FOLDER", "a COCO folder, for --precision int8")
    add("--symmetric", "INT8 without zero points, as TensorRT takes it", **flag)
    add("--max-loss", "refuse INT8 that loses more AP than this (default 1)", **points)
    add("--dense", f"compute the masks of all windows, for study: {size}", **flag)


def _run_onnx(args: argparse.Namespace) -> int:
    from tensormask_edu.weights.checkpoint import checkpoint_files, load_checkpoint

    from .onnx_file.write import export_onnx

    _check_int8(args)
    read = [*checkpoint_files(args.checkpoint), *_calibrating(args.calibrate)]
    refuse_overwriting("model", args.model, *read)
    check_report(args.json, args.model, *read)
    model, input_config = load_checkpoint(args.checkpoint)
    options: dict[str, Any] = {
        "masks": "dense" if args.dense else "windows",
        "candidates": args.candidates,
        "inner": contract.INNER if args.inner == [] else args.inner or (),
        "portable": args.portable,
        "input_config": input_config,
    }
    if args.precision == "int8":
        from .quantise import export_int8

        loss = {} if args.max_loss is None else {"max_loss": args.max_loss}
        options |= {"symmetric": args.symmetric, **loss}
        report = export_int8(model, args.model, args.calibrate, **options)
    else:
        report = export_onnx(model, args.model, precision=args.precision, **options)
    return _done(args, report, report.text())


def _check_int8(args: argparse.Namespace) -> None:
    """Refuse INT8 without pictures, and what only INT8 has without it."""
    if args.precision == "int8" and args.calibrate is None:
        fix = "add --calibrate FOLDER: its pictures give the ranges and the AP"
        raise bad_input("calibrate", "a COCO folder with --precision int8", "none", fix)
    others = (args.calibrate, args.symmetric or None, args.max_loss)
    if args.precision != "int8" and any(each is not None for each in others):
        expected = "int8 with --calibrate, --symmetric or --max-loss"
        raise bad_input("precision", expected, args.precision)


def _calibrating(folder: str | None) -> list[Path]:
    """Annotations and pictures that an INT8 export reads."""
    if folder is None:
        return []
    from tensormask_edu.data.layouts import find_split, places

    from .quantise import CALIBRATION, SCORED

    # `places` has all splits, but asks for the first alone
    return [*places(folder, CALIBRATION), *find_split(folder, SCORED)[:2]]


def _verify(commands: Any) -> None:
    text = """
        Compare what every runtime here makes of the file with PyTorch, on the CPU: ONNX
        Runtime; the same with our ops computed by the NumPy loops; OpenVINO; the network that
        TensorRT's parser made of it; torch.compile on request. Without a checkpoint only the
        samples inside the file are replayed. Exit code 1 if something differs by more than its
        tolerance, or nothing was compared.
    """
    examples = (
        "outputs/model.onnx outputs/run/checkpoint",
        f"outputs/model.onnx outputs/run/checkpoint --sizes 1x96x96 2x96x128 --image {PICTURE}",
        "outputs/model.onnx outputs/run/checkpoint --coco outputs/shapes --limit 20",
    )
    default = "default 1x64x96 2x128x160; none with --image or --coco alone"
    runtimes = "onnxruntime, numpy, openvino, parsed, compiled (default: all but compiled)"
    files = {"nargs": "+", "default": []}
    add = _command(commands, "verify", _run_verify, text, *examples)
    add("model MODEL.onnx", "a file of `tensormask-export onnx`")
    add("checkpoint CHECKPOINT", "what it was exported from, a folder or a name", nargs="?")
    several = {"nargs": "+", "type": _numbers}
    add("--sizes NxHxW", f"random pictures of these sizes ({default})", **several)
    add("--image FILE", "picture files as well", **files)
    add("--coco FOLDER", "the pictures of a COCO folder as well, and their AP")
    add("--split", "of the COCO folder (default val)", default="val")
    add("--limit N", "at most so many of its pictures", type=int)
    add("--runtimes NAME", f"some of {runtimes}", nargs="+")
    add("--engine FILE", "engines of this file too, where there is a GPU", **files)
    where = "compare every layer: where does the difference begin?"
    add("--bisect", where, action="store_true")
    add("--seed", "of the random pictures", type=int, default=0)


def _run_verify(args: argparse.Namespace) -> int:
    from tensormask_edu.data.layouts import places

    from .runtimes.find import DEFAULT_NAMES
    from .verify.report import DEFAULT_SIZES, verify

    read = _files_of_checkpoints(args.checkpoint)
    read += places(args.coco, args.split) if args.coco and args.json else []
    engines = [file for engine in args.engine for file in _files_of(engine)]
    check_report(args.json, args.model, *args.image, *engines, *read)
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
    _done(args, report, report.table())
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
        f"outputs/model.onnx outputs/large.engine {shapes}",
        "outputs/model.onnx outputs/one.engine --shapes 1x3x128x128 --plugin none",
    )
    backends = ("auto", "tensorrt", "tensorrt-rtx", "tensorrt_rtx")
    plugins = ("auto", "cpp", "python", "none")
    library = "default: $TENSORMASK_PLUGIN, or build/plugins of the checkout"
    add = _command(commands, "engine", _run_engine, text, *examples)
    add("model MODEL.onnx", "a file of `tensormask-export onnx`")
    add("engine MODEL.engine", "the file to write")
    add("--backend NAME", "tensorrt-rtx ...", choices=backends, default="auto")
    add("--sm NN", "86 for 8.6; several fit in one", nargs="+", type=int, default=[])
    add("--min --minShapes Nx3xHxW", "default 1x3x128x128", type=_numbers)
    add("--opt --optShapes Nx3xHxW", "default 1x3x256x256", type=_numbers)
    add("--max --maxShapes Nx3xHxW", "default 4x3x512x512", type=_numbers)
    add("--shapes Nx3xHxW", "all three: an engine of one shape", type=_numbers)
    add("--plugin", "default auto", choices=plugins, default="auto")
    add("--plugin-library --dynamicPlugins FILE.so", f"the C++ plugin ({library})")
    add("--timingCacheFile FILE", "read if there, written after the build")
    add("--memPoolSize workspace:MIB", "scratch memory on the GPU", type=_mib)
    add("--builderOptimizationLevel 0..5", "how long it searches", type=int)


def _run_engine(args: argparse.Namespace) -> int:
    from .engine.build import Effort, build_engine
    from .shapes import Profile

    given = {name: getattr(args, name) for name in ("min", "opt", "max") if getattr(args, name)}
    if args.shapes:
        if given:
            raise bad_input("shapes", "either --shapes or --min, --opt and --max", "both")
        given = dict.fromkeys(("min", "opt", "max"), args.shapes)
    given_files = (args.model, args.plugin_library, args.timingCacheFile)
    check_report(args.json, *given_files, *_files_of(args.engine))
    manifest = _files_of(args.engine)[1]  # its name was not given, but made
    refuse_overwriting("engine", manifest, *given_files)
    expected = "a name beside which no other JSON is"
    refuse_replacing_other("engine", manifest, expected, _is_manifest)
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
    return _done(args, report, report.text())


def _is_manifest(path: Path) -> bool:
    with suppress(InputError):
        found = read_json(path)
        return isinstance(found, dict) and {"engine", "model"} <= set(found)
    return False


def _predict(commands: Any) -> None:
    text = """
        Segment an image or a folder of images with an exported model; writes pictures and
        detections.json. An ONNX file runs on the CPU, an engine on the GPU it was built for,
        after its hash was compared with its manifest. Exit code 1 if some pictures of a folder
        could not be read: the others are done.
    """
    examples = (
        f"outputs/model.onnx {PICTURE} --output outputs/seen",
        f"--engine outputs/model.engine {PICTURE} --output outputs/seen --score 0.3",
    )
    add = _command(commands, "predict", _run_predict, text, *examples)
    _add_model(add, nargs="?")
    add("--engine FILE", "the same as MODEL, in trtexec's manner")
    add("image IMAGE", "an image file or a folder of them")
    add("--output DIR", "where the pictures go", required=True)
    add("--score", "draw from this score on (default 0.5)", type=float, default=0.5)


def _run_predict(args: argparse.Namespace) -> int:
    from tensormask_edu.commands.predict import (
        DETECTIONS,
        exit_code,
        image_files,
        picture_names,
    )

    from .predict import predict

    if (args.model is None) == (args.engine is None):
        raise bad_input("model", "one of MODEL and --engine", "both" if args.model else "none")
    model = args.model or args.engine
    files = image_files(Path(args.image), args.output)
    written = (Path(args.output) / name for name in (*picture_names(files), DETECTIONS))
    read = (*_files_of(model), args.image, args.plugin_library)
    check_report(args.json, *read, *written)
    report = predict(model, args.image, args.output, args.score, **_model_options(args))
    _done(args, report, "\n".join(map(printable, report.pictures)))
    return exit_code(report.failed)


def _bench(commands: Any) -> None:
    text = """
        Time an exported model, the computation alone and from array to arrays, and measure its
        memory. With --eager or --compile also the checkpoint in PyTorch, as the same graph.
        Each runs in a process of its own. On the CPU keep the machine quiet.
    """
    examples = (
        "outputs/model.onnx --shape 1x3x256x256 --eager outputs/run/checkpoint",
        "outputs/model.engine --json outputs/bench.json",
    )
    default = "default: what the engine is tuned for, or 1x3x256x256"
    add = _command(commands, "bench", _run_bench, text, *examples)
    _add_model(add)
    add("--shape Nx3xHxW", default, type=_numbers)
    add("--eager CHECKPOINT", "PyTorch as well")
    add("--compile CHECKPOINT", "PyTorch through torch.compile as well")
    add("--warmup N", "runs before (default 10)", type=int, default=10)
    add("--iterations N", "runs (default 100)", type=int, default=100)
    add("--seconds", "stop a runtime then (default 60)", type=float, default=60)
    add("--threads N", "of the CPU (default: all cores)", type=int, default=0)


def _run_bench(args: argparse.Namespace) -> int:
    from .bench import Effort, bench

    checkpoints = {"eager": args.eager, "compiled": args.compile}
    read = _files_of_checkpoints(*checkpoints.values())
    check_report(args.json, *_files_of(args.model), args.plugin_library, *read)
    effort = Effort(args.warmup, args.iterations, args.seconds, args.threads)
    options = checkpoints | _model_options(args)
    report = bench(args.model, shape=args.shape, effort=effort, **options)
    return _done(args, report, report.table())


def _triton(commands: Any) -> None:
    text = """
        Write a model repository for Triton Inference Server. An ONNX file is computed by
        Triton's ONNX Runtime on the CPU, an engine of TensorRT on the GPU it was built for. The
        server takes prepared pictures and gives the outputs of the file; the configuration
        holds the metadata that detections are made with. Nothing that is there is replaced.
    """
    examples = (
        "outputs/model.onnx --output outputs/triton",
        "outputs/model.onnx --output outputs/triton --name crowd --max-batch 8 --instances 2",
    )
    add = _command(commands, "triton", _run_triton, text, *examples)
    add("model MODEL", "a .onnx file, or an engine with its manifest beside it")
    add("--output DIR", "the repository; other models in it stay", required=True)
    add("--name", "of the model (default: the file's)")
    add("--max-batch N", "pictures at once (default 4, or the engine's most)", type=int)
    add("--instances N", "copies that work side by side (default 1)", type=int, default=1)
    add("--plugin-library FILE.so", "the C++ plugin that an engine was built with")


def _run_triton(args: argparse.Namespace) -> int:
    from .triton import write_repository

    folder = Path(args.output) / (args.name or Path(args.model).stem)
    if args.json and folder.resolve() in Path(args.json).resolve().parents:
        raise bad_input("json", f"a place outside {folder}", args.json, "choose another")
    check_report(args.json, *_files_of(args.model), args.plugin_library)
    report = write_repository(
        args.model,
        args.output,
        name=args.name,
        max_batch=args.max_batch,
        instances=args.instances,
        plugin_library=args.plugin_library,
    )
    return _done(args, report, report.text())


def _files_of(model: str) -> tuple[str, str]:
    """An engine and its manifest; an ONNX file has none, which does no harm."""
    return model, f"{model}.json"


def _files_of_checkpoints(*checkpoints: str | None) -> list[Path]:
    """The files of those that were given; without one PyTorch is not loaded for it."""
    given = [each for each in checkpoints if each]
    if not given:
        return []
    from tensormask_edu.weights.checkpoint import checkpoint_files

    return [file for each in given for file in checkpoint_files(each)]


def _add_model(add: Add, **keywords: Any) -> None:
    """An exported model, and what an engine may need."""
    add("model MODEL", "a .onnx file, or an engine with its manifest beside it", **keywords)
    runtimes = {"choices": ("onnxruntime", "openvino"), "default": "onnxruntime"}
    add("--runtime", "of a .onnx file (default onnxruntime)", **runtimes)
    add("--plugin-library FILE.so", "the C++ plugin that an engine was built with")
    accept = "accept an engine that carries code for the CPU"
    record = {"action": "store_false", "dest": "cuda_graph"}
    add("--no-cuda-graph", "do not record an engine's work", **record)
    add("--allow-host-code", accept, action="store_true")


def _model_options(args: argparse.Namespace) -> dict[str, Any]:
    names = ("runtime", "plugin_library", "cuda_graph", "allow_host_code")
    return {name: getattr(args, name) for name in names}


def _mib(text: str) -> float:
    """workspace:1024 as 1024.0, in MiB; trtexec's K, M and G as well."""
    number = text.removeprefix("workspace:")
    unit = number[-1:] if number[-1:] in ("K", "M", "G") else ""
    try:
        return float(number.removesuffix(unit)) * {"K": 2**-10, "": 1, "M": 1, "G": 2**10}[unit]
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
