"""`tensormask-edu`: parse, call one function, print. Bad input is one line and exit code 2.

No logic lives here. Each command imports what it needs when it runs, so `--help` is quick, and
`check-ops` and `doctor` work where only part of the packages is installed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from . import __version__
from .base.errors import InputError

Parser = argparse.ArgumentParser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 fine, 1 a check failed, 2 bad input."""
    args = build_parser().parse_args(arguments)
    try:
        return args.run(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def build_parser() -> Parser:
    """The whole command line."""
    parser = Parser(
        prog="tensormask-edu",
        description="TensorMask: learn it, train it, check it.",
        epilog="Start with `tensormask-edu demo`. `tensormask-edu COMMAND --help` explains each command.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (_demo, _shapes, _train, _evaluate, _predict, _convert, _check_ops, _doctor):
        add(commands)
    return parser


def _command(
    commands: Any, name: str, run: Callable[..., int], text: str, example: str
) -> Parser:
    parser = commands.add_parser(
        name,
        help=text.split(". ")[0],
        description=text,
        epilog=f"example:\n  tensormask-edu {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _demo(commands: Any) -> None:
    text = "From shapes to a TensorRT engine and a report, on a laptop, in about ten minutes."
    parser = _command(commands, "demo", _run_demo, text, "demo --output outputs/demo")
    parser.add_argument(
        "--output", default="outputs/demo", metavar="DIR", help="where everything goes"
    )
    parser.add_argument(
        "--minutes", type=float, default=4.7, help="training time at most (default 4.7)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the weights and the order of the images"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a one-minute smoke test; learns nothing"
    )


def _run_demo(args: argparse.Namespace) -> int:
    from .commands.demo import run_demo

    return run_demo(args.output, minutes=args.minutes, seed=args.seed, quick=args.quick)


def _shapes(commands: Any) -> None:
    text = "Write the overlap world: small pictures of overlapping shapes, as a COCO folder."
    parser = _command(commands, "shapes", _run_shapes, text, "shapes outputs/shapes")
    parser.add_argument("folder", metavar="FOLDER", help="made if it does not exist")
    parser.add_argument(
        "--train", type=int, default=4000, help="training images (default 4000)"
    )
    parser.add_argument("--val", type=int, default=200, help="held-out images (default 200)")
    parser.add_argument(
        "--size", type=int, default=128, metavar="PX", help="side of an image (default 128)"
    )
    parser.add_argument("--seed", type=int, default=0)


def _run_shapes(args: argparse.Namespace) -> int:
    from .data.shapes import write_shapes

    write_shapes(args.folder, train=args.train, val=args.val, size_px=args.size, seed=args.seed)
    print(f"{args.folder}: {args.train} training and {args.val} held-out images")
    return 0


def _train(commands: Any) -> None:
    text = (
        "Train on a COCO folder (images/ with instances_train.json, or COCO's own layout). "
        "Ctrl-C keeps a usable checkpoint; --resume goes on from it. "
        "On several GPUs or machines, start it with torchrun (docs/training.md)."
    )
    example = (
        "train my_cells --recipe cells --minutes 20 --output outputs/cells\n"
        "  torchrun --nproc-per-node 8 -m tensormask_edu train coco --recipe coco_1x --output outputs/coco"
    )
    parser = _command(commands, "train", _run_train, text, example)
    parser.add_argument("folder", metavar="FOLDER", help="the data set")
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="gets checkpoint/ and log.jsonl"
    )
    parser.add_argument(
        "--recipe",
        default="shapes",
        help="shapes (small clean pictures), cells (many small objects), coco_1x or coco_6x (the paper's)",
    )
    parser.add_argument("--preset", help="another model than the recipe's")
    parser.add_argument(
        "--weights",
        metavar="PATH",
        help="start from a checkpoint folder or torchvision's ImageNet .pth",
    )
    parser.add_argument("--steps", type=int, help="length of the schedule")
    parser.add_argument("--minutes", type=float, help="the schedule ends here at the latest")
    parser.add_argument(
        "--batch-size", type=int, help="images per step, of all processes together"
    )
    parser.add_argument(
        "--accumulate", type=int, help="parts a process takes its images in: less memory"
    )
    parser.add_argument("--lr", type=float, help="highest learning rate")
    parser.add_argument("--seed", type=int, help="of the weights and the order of the images")
    parser.add_argument(
        "--precision", help="float32; bfloat16 or float16 where the processor is quick at it"
    )
    parser.add_argument(
        "--normaliser", help="whose positives divide the losses: process or global"
    )
    parser.add_argument(
        "--workers", type=int, help="processes that prepare batches (default 0, 4 on a GPU)"
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in --output")


def _run_train(args: argparse.Namespace) -> int:
    from .base import distributed
    from .config import recipe
    from .training.train import Diverged, train

    names = (
        "steps",
        "minutes",
        "batch_size",
        "lr",
        "seed",
        "precision",
        "workers",
        "accumulate",
    )
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    chosen = recipe(args.recipe, args.preset)
    chosen = replace(chosen, train=replace(chosen.train, **given))
    if args.normaliser:
        chosen = replace(chosen, model=replace(chosen.model, normaliser=args.normaliser))
    with distributed.processes():
        try:
            train(chosen, args.folder, args.output, args.resume, args.weights)
        except Diverged as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        if distributed.rank() == 0:
            print(
                f"{args.output}/checkpoint: weights and configuration; {args.output}/log.jsonl: the losses"
            )
    return 0


def _evaluate(commands: Any) -> None:
    text = (
        "COCO scores by pycocotools. Either a checkpoint on a data set, with the ceiling beside it "
        "(the true masks seen through the model's windows), or a detections file on a ground-truth file."
    )
    example = (
        "evaluate outputs/cells/checkpoint my_cells\n"
        "  tensormask-edu evaluate --ground-truth instances_val.json --detections found.json --iou segm"
    )
    parser = _command(commands, "evaluate", _run_evaluate, text, example)
    parser.add_argument(
        "checkpoint", nargs="?", metavar="CHECKPOINT", help="a checkpoint folder"
    )
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help="the data set")
    parser.add_argument(
        "--split", default="val", help="which split of the data set (default val)"
    )
    parser.add_argument("--ground-truth", metavar="JSON", help="a COCO instances file")
    parser.add_argument("--detections", metavar="JSON", help="a COCO results file")
    parser.add_argument(
        "--iou", choices=("segm", "bbox"), default="segm", help="overlap of masks or boxes"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the scores here")


def _run_evaluate(args: argparse.Namespace) -> int:
    from .base import distributed
    from .base.errors import bad_input
    from .evaluation import coco_scores as evaluate

    files, trained = (args.ground_truth, args.detections), (args.checkpoint, args.folder)
    if all(files) and not any(trained):
        _show({args.iou: evaluate.score(*files, iou=args.iou)}, args.json)
    elif all(trained) and not any(files):
        from .evaluation.ceiling import evaluate_checkpoint

        with distributed.processes():
            scores = evaluate_checkpoint(args.checkpoint, args.folder, args.split)
            if distributed.rank() == 0:
                _show(scores, args.json)
    else:
        either = "either CHECKPOINT FOLDER or --ground-truth A --detections B"
        raise bad_input("evaluate", either, [a for a in (*trained, *files) if a] or "nothing")
    return 0


def _show(scores: dict[str, Any], file: str | None) -> None:
    from .base.files import write_json
    from .evaluation.coco_scores import table

    print(table(scores))
    if file:
        write_json(file, scores)


def _predict(commands: Any) -> None:
    text = "Segment an image or a folder of images; writes pictures and detections.json."
    example = "predict outputs/cells/checkpoint photo.jpg --output outputs/seen"
    parser = _command(commands, "predict", _run_predict, text, example)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint folder")
    parser.add_argument("image", metavar="IMAGE", help="an image file or a folder of them")
    parser.add_argument("--output", required=True, metavar="DIR", help="where the pictures go")
    parser.add_argument(
        "--score", type=float, default=0.5, help="draw from this score on (default 0.5)"
    )
    parser.add_argument(
        "--precision", default="float32", help="float32, or bfloat16 or float16 on a GPU"
    )


def _run_predict(args: argparse.Namespace) -> int:
    from .commands.predict import predict

    for picture in predict(
        args.checkpoint, args.image, args.output, args.score, args.precision
    ):
        print(picture)
    return 0


def _convert(commands: Any) -> None:
    text = (
        "Make a checkpoint of a published .pkl, for evaluate, predict and tensormask-export. "
        "The file is read as data: one that wants to run code is refused. docs/weights.md says where it is."
    )
    example = "convert model_final_8f325c.pkl --preset r50_fpn_1x --output outputs/r50_1x"
    parser = _command(commands, "convert", _run_convert, text, example)
    parser.add_argument("weights", metavar="PKL", help="the published file")
    parser.add_argument("--preset", required=True, help="r50_fpn_1x or r50_fpn_6x")
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="becomes the checkpoint folder"
    )


def _run_convert(args: argparse.Namespace) -> int:
    from .weights.checkpoint import convert

    convert(args.weights, args.preset, args.output)
    print(f"{args.output}: weights and configuration")
    return 0


def _check_ops(commands: Any) -> None:
    text = "Every operator, implementation and dtype present, against the NumPy reference in float64."
    parser = _command(commands, "check-ops", _run_check_ops, text, "check-ops --device all")
    parser.add_argument("--device", choices=("cpu", "cuda", "all"), default="all")
    parser.add_argument("--json", metavar="FILE", help="also write the table here")


def _run_check_ops(args: argparse.Namespace) -> int:
    from .commands import check_ops

    return check_ops.run(args)


def _doctor(commands: Any) -> None:
    text = "What is installed, what runs here, and what to do about the rest."
    parser = _command(commands, "doctor", _run_doctor, text, "doctor")
    parser.add_argument("--json", metavar="FILE", help="also write the findings here")


def _run_doctor(args: argparse.Namespace) -> int:
    from .commands import doctor

    return doctor.run(args)
