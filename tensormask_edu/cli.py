"""The command line: parse, call one function, print.

No logic lives here. Each command imports what it needs when it runs, so `--help` is quick, and
`check-ops` and `doctor` work where only part of the packages is installed.

next: tensormask_export/contract.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from . import __version__
from .base.command_line import Parser, add_command, run_command

Args = argparse.Namespace
CHECKPOINT = "a checkpoint folder, or a name of `tensormask-edu models`"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 fine, 1 a check failed, 2 bad input."""
    return run_command(build_parser(), arguments)


def build_parser() -> Parser:
    """The whole command line."""
    parser = Parser(
        prog="tensormask-edu",
        description="TensorMask: learn it, train it, check it.",
        epilog="Start with `tensormask-edu demo`, or with shapes, train, evaluate and predict, "
        "in this order. `tensormask-edu COMMAND --help` explains each command.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (
        _demo, _models, _shapes, _inspect, _train, _evaluate, _predict, _ablate, _convert,
        _check_ops, _doctor, _report_bug,
    ):  # fmt: skip
        command(commands)
    return parser


def _demo(commands: Any) -> None:
    text = (
        "From shapes to a TensorRT engine and a report, on a laptop, in about ten minutes.\n"
        "It says beforehand how long it takes here. AP is judged at the steps it reached, so\n"
        "exit code 1 means that something is wrong, not that the machine is slow."
    )
    example = "demo --output outputs/demo"
    add = add_command(commands, "demo", _run_demo, text, example).add_argument
    add("--output", default="outputs/demo", metavar="DIR", help="where everything goes")
    add("--minutes", type=float, default=12.0, help="training time at most (default 12)")
    add("--steps", type=int, help="of training (default: what gives a mask AP of 0.50)")
    add("--seed", type=int, default=0, help="of the weights and the order of the images")
    add("--quick", action="store_true", help="a one-minute smoke test; learns nothing")


def _run_demo(args: Args) -> int:
    from .commands.demo import run_demo

    words = (args.output, args.minutes, args.seed, args.quick, args.steps)
    return run_demo(*words)


def _models(commands: Any) -> None:
    text = "The trained models that come along, by the names that every command takes."
    add = add_command(commands, "models", _run_models, text, "models cells").add_argument
    add("name", nargs="?", metavar="NAME", help="print this model's card")


def _run_models(args: Args) -> int:
    from .commands import models

    print(models.text(args.name))
    return 0


def _shapes(commands: Any) -> None:
    text = "Write the overlap world: small pictures of overlapping shapes, as a COCO folder."
    example = "shapes outputs/shapes"
    add = add_command(commands, "shapes", _run_shapes, text, example).add_argument
    add("folder", metavar="FOLDER", help="made if it does not exist")
    add("--train", type=int, default=4000, help="training images (default 4000)")
    add("--val", type=int, default=200, help="held-out images (default 200)")
    add("--size", type=int, default=128, metavar="PX", help="side of an image (default 128)")
    add("--seed", type=int, default=0)


def _run_shapes(args: Args) -> int:
    from .data.shapes import write_shapes

    write_shapes(args.folder, train=args.train, val=args.val, size_px=args.size, seed=args.seed)
    print(f"{args.folder}: {args.train} training and {args.val} held-out images")
    return 0


def _inspect(commands: Any) -> None:
    text = (
        "A data set as the model will see it: how many pictures and objects, how large, which\n"
        "annotations are repaired or left out and why, which pictures cannot be read, and a\n"
        "page of pictures with their objects. What training would refuse is refused here,\n"
        "with the first id. Look at the page: are masks on their objects, objects whole?\n"
        "Exit code 1: a picture cannot be read; 2: a split is refused."
    )
    example = (
        "inspect FOLDER --recipe cells\n"
        "  tensormask-edu inspect --annotations labels.json --images photos"
    )
    add = add_command(commands, "inspect", _run_inspect, text, example).add_argument
    _data(add, None)
    add("--recipe", default="shapes", help="of the training to come: sizes in its model")
    add("--output", default="outputs/inspected", metavar="DIR", help="gets a page per split")
    add("--pictures", type=int, default=12, metavar="N", help="on a page (default 12, 0: none)")
    add("--json", metavar="FILE", help="also write the findings here")


def _run_inspect(args: Args) -> int:
    from .commands import inspect

    return inspect.run(args)


def _train(commands: Any) -> None:
    text = (
        "Train on a COCO folder, as this program, CVAT, Roboflow, Label Studio, FiftyOne\n"
        "or labelme2coco lay it out, or on --annotations and --images. Of one file for\n"
        "everything a fifth of the pictures is held out. `inspect` shows what is learnt.\n"
        "Ctrl-C keeps a usable checkpoint; --resume goes on from it. On several GPUs or\n"
        "machines, start it with `torchrun --nproc-per-node 8 -m tensormask_edu train ...`\n"
        "(docs/training.md)."
    )
    example = (
        "train outputs/shapes --minutes 5 --output outputs/run\n"
        "  tensormask-edu train outputs/shapes --minutes 10 --output outputs/run --resume"
    )
    add = add_command(commands, "train", _run_train, text, example).add_argument
    recipes = (
        "shapes (small clean pictures), cells (many small objects), "
        "coco_1x or coco_6x (the paper's)"
    )
    weights = "start from a checkpoint, a model that comes along or torchvision's ImageNet .pth"
    precision = "float32, bfloat16 or float16 (default: what is quickest on this processor)"
    cache = "memory for decoded pictures (default: a quarter of what is free, 0: none)"
    bad = "at a picture that cannot be read: stop and save (default), or take the next"
    workers = "processes that prepare batches (default 0, 4 on a GPU)"
    _data(add, "train")
    add("--output", required=True, metavar="DIR", help="gets checkpoint/ and log.jsonl")
    add("--recipe", default="shapes", help=recipes)
    add("--preset", help="another model than the recipe's")
    add("--weights", metavar="PATH", help=weights)
    add("--steps", type=int, help="length of the schedule")
    add("--minutes", type=float, help="the schedule ends here at the latest")
    add("--batch-size", type=int, help="images per step, of all processes together")
    add("--accumulate", type=int, help="parts a process takes its images in: less memory")
    add("--lr", type=float, help="highest learning rate")
    add("--seed", type=int, help="of the weights and the order of the images")
    add("--precision", help=precision)
    add("--normaliser", help="whose positives divide the losses: process or global")
    add("--workers", type=int, help=workers)
    add("--cache", type=int, metavar="MB", dest="cache_mb", help=cache)
    add("--bad-pictures", choices=("stop", "skip"), help=bad)
    add("--threads", type=int, help="of the CPU (default: tried out; same number, same bits)")
    add("--resume", action="store_true", help="continue the run in --output")
    add("--overwrite", action="store_true", help="begin anew, though --output holds a run")


def _data(add: Any, split: str | None) -> None:
    """What names a data set, and a part of it."""
    usual = split or "each there is"
    add("folder", nargs="?", metavar="FOLDER", help="the data set")
    add("--annotations", metavar="JSON", help="instead of FOLDER: a COCO instances file ...")
    add("--images", metavar="DIR", help="... and the folder of its pictures")
    add("--split", default=split, help=f"train, val, ...; all of one file (default {usual})")


# Options of `train` that stand in for the recipe's own values
TRAIN_OPTIONS = (
    "steps minutes batch_size accumulate lr seed precision workers threads bad_pictures "
    "cache_mb".split()
)


def _run_train(args: Args) -> int:
    from .base import distributed
    from .base.errors import bad_input, printable
    from .config import recipe
    from .data.layouts import data_named
    from .training.train import Diverged, train

    given = {
        name: value for name in TRAIN_OPTIONS if (value := getattr(args, name)) is not None
    }
    chosen = recipe(args.recipe, args.preset)
    chosen = replace(chosen, train=replace(chosen.train, **given))
    if args.normaliser:
        chosen = replace(chosen, model=replace(chosen.model, normaliser=args.normaliser))
    data = data_named(args.folder, args.annotations, args.images)
    if data is None:
        raise bad_input("train", "FOLDER, or --annotations FILE --images FOLDER", "neither")
    again = (args.resume, args.weights, args.overwrite)
    with distributed.processes():
        try:
            train(chosen, data, args.output, *again, split=args.split)
        except Diverged as error:
            print(f"error: {printable(error)}", file=sys.stderr)
            return 1
        if distributed.rank() == 0:
            print(
                f"{args.output}/checkpoint: weights and configuration; "
                f"{args.output}/log.jsonl: the losses"
            )
    return 0


# Of `evaluate` and `predict`
VIEWS = "mirrored views that vote: 1, 2, 4 or 8 (default 1), N times as long"


def _evaluate(commands: Any) -> None:
    text = (
        "COCO scores by pycocotools. Either a checkpoint on a data set, with the ceiling\n"
        "beside it (the true masks seen through the model's windows), or a detections file on\n"
        "a ground-truth file (--detections and --ground-truth, both JSON in COCO's form)."
    )
    example = "evaluate outputs/run/checkpoint outputs/shapes --json outputs/scores.json"
    add = add_command(commands, "evaluate", _run_evaluate, text, example).add_argument
    add("checkpoint", nargs="?", metavar="CHECKPOINT", help=CHECKPOINT)
    _data(add, "val")
    add("--ground-truth", metavar="JSON", help="a COCO instances file")
    add("--detections", metavar="JSON", help="a COCO results file")
    add("--iou", choices=("segm", "bbox"), default="segm", help="overlap of masks or boxes")
    add("--views", type=int, default=1, metavar="N", help=VIEWS)
    bad = "pictures that cannot be read: stop before the work (default), or leave them out"
    add("--bad-pictures", choices=("stop", "skip"), default="stop", help=bad)
    add("--batch-size", type=int, default=4, help="pictures at a time (default 4)")
    add("--losses", action="store_true", help="also show where mask AP is lost")
    add("--json", metavar="FILE", help="also write the scores here")


def _run_evaluate(args: Args) -> int:
    from .commands import evaluate

    return evaluate.run(args)


def _predict(commands: Any) -> None:
    text = (
        "Segment an image or a folder of images; writes pictures and detections.json. Exit\n"
        "code 1 if some of a folder could not be read: the others are done."
    )
    picture = "outputs/shapes/images/val_00000.png"
    example = (
        f"predict shapes {picture} --output outputs/seen\n"
        f"  tensormask-edu predict outputs/run/checkpoint {picture} --output outputs/seen_too"
    )
    add = add_command(commands, "predict", _run_predict, text, example).add_argument
    precision = "float32, or bfloat16 or float16 on a GPU"
    tile = "side of the tiles for larger pictures (default: 1024, from 2049 on)"
    add("checkpoint", metavar="CHECKPOINT", help=CHECKPOINT)
    add("image", metavar="IMAGE", help="an image file or a folder of them")
    add("--output", required=True, metavar="DIR", help="where the pictures go")
    add("--score", type=float, default=0.5, help="draw from this score on (default 0.5)")
    add("--precision", default="float32", help=precision)
    add("--tile", type=int, metavar="PX", help=tile)
    add("--views", type=int, default=1, metavar="N", help=VIEWS)


def _run_predict(args: Args) -> int:
    from .base.errors import printable
    from .commands.predict import exit_code, predict

    words = (args.checkpoint, args.image, args.output, args.score, args.precision)
    done = predict(*words, args.tile, args.views)
    print(*map(printable, done.pictures), sep="\n")
    return exit_code(done.failed)


def _ablate(commands: Any) -> None:
    text = (
        "The paper's tables in miniature: which idea earns what. Trains what they compare on\n"
        "small pictures of shapes, and sets the differences beside the paper's. Runs that are\n"
        "done are kept, so the same command goes on after Ctrl-C, with more seeds or tables."
    )
    example = "ablate 2a 2b --output outputs/ablations"
    add = add_command(commands, "ablate", _run_ablate, text, example).add_argument
    budget = "lesson (heads share a trunk), laptop (each alone) or gpu (128 px)"
    form = "shared (heads of 1, 2a, 2b on one trunk) or separate (default: the budget's)"
    add("tables", nargs="+", metavar="TABLE", help="1, 2a, 2b, 2c, 2d, ancestors or roi")
    add("--budget", default="lesson", help=f"{budget}; default lesson")
    add("--output", default="outputs/ablations", metavar="DIR", help="pictures, runs, tables")
    add("--seeds", type=int, nargs="+", default=[0], help="of weights and order (default 0)")
    add("--steps", type=int, help="of each training, instead of the budget's")
    add("--form", choices=("shared", "separate"), help=form)
    add("--jobs", type=int, help="runs at a time, a thread each (default: one per core)")


def _run_ablate(args: Args) -> int:
    from .commands import ablate

    return ablate.run(args)


def _convert(commands: Any) -> None:
    text = (
        "Make a checkpoint of a published .pkl, for evaluate, predict and tensormask-export.\n"
        "The file is read as data: one that wants to run code is refused. docs/weights.md\n"
        "says where it is."
    )
    example = "convert model_final_8f325c.pkl --preset r50_fpn_1x --output outputs/r50_1x"
    add = add_command(commands, "convert", _run_convert, text, example).add_argument
    add("weights", metavar="PKL", help="the published file")
    add("--preset", required=True, help="r50_fpn_1x or r50_fpn_6x")
    add("--output", required=True, metavar="DIR", help="becomes the checkpoint folder")


def _run_convert(args: Args) -> int:
    from .weights.checkpoint import convert

    convert(args.weights, args.preset, args.output)
    print(f"{args.output}: weights and configuration")
    return 0


def _check_ops(commands: Any) -> None:
    text = (
        "Every operator, implementation and dtype present, "
        "against the NumPy reference in float64.\n"
        "ptx: the GPU's code, executed on this CPU: its numbers, its faults and its costs."
    )
    example = "check-ops --device all"
    add = add_command(commands, "check-ops", _run_check_ops, text, example).add_argument
    add("--device", choices=("cpu", "cuda", "all", "ptx"), default="all")
    add("--json", metavar="FILE", help="also write the table here")


def _run_check_ops(args: Args) -> int:
    from .commands import check_ops, check_ptx

    return check_ptx.run(args) if args.device == "ptx" else check_ops.run(args)


def _doctor(commands: Any) -> None:
    text = "What is installed, what runs here, and what to do about the rest."
    add = add_command(commands, "doctor", _run_doctor, text, "doctor").add_argument
    add("--json", metavar="FILE", help="also write the findings here")


def _run_doctor(args: Args) -> int:
    from .commands import doctor

    return doctor.run(args)


def _report_bug(commands: Any) -> None:
    text = (
        "Pack what a bug report needs: versions, the doctor's findings, the last error and\n"
        "the last log, without names of yours or of your folders, into one text file."
    )
    example = "report-bug --output bug.txt"
    add = add_command(commands, "report-bug", _run_report_bug, text, example).add_argument
    add("training", nargs="?", metavar="RUN", help="a training; default: the last below here")
    add("--output", default="bug.txt", metavar="FILE", help="default bug.txt")


def _run_report_bug(args: Args) -> int:
    from .commands import report_bug

    return report_bug.run(args.output, args.training)
