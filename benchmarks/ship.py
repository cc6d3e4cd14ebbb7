"""Make a model that comes along: train it, pack it in float16, score what was packed.

    python benchmarks/ship.py shapes --minutes 120
    python benchmarks/ship.py cells --data FOLDER --minutes 120
    python benchmarks/ship.py cells --data FOLDER --minutes 120 --resume
    python benchmarks/ship.py pack cells outputs/ship/cells --data FOLDER

The first two train into `outputs/ship/NAME` and pack; Ctrl-C pauses, `--resume` goes on. `pack`
takes a run that was trained already, by `tensormask-edu train` too. Packed are weights,
configuration, card and six failures, into `tensormask_edu/weights/models/NAME` unless a folder
is named.
"""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from failures import KINDS, SURE, failures
from measure import ROOT

from tensormask_edu import viz
from tensormask_edu.base.errors import bad_input
from tensormask_edu.base.files import file_sha256, write_json, written_whole
from tensormask_edu.config import InputConfig, recipe
from tensormask_edu.data.coco import CocoFolder
from tensormask_edu.data.shapes import write_shapes
from tensormask_edu.detector.model import TensorMask
from tensormask_edu.evaluation.ceiling import ceiling
from tensormask_edu.evaluation.coco_scores import evaluate
from tensormask_edu.training.journal import STATE, read_log
from tensormask_edu.training.train import train
from tensormask_edu.weights.checkpoint import WEIGHTS, load_checkpoint, save_checkpoint
from tensormask_edu.weights.shipped import CARD, PAGE, ROOM

LARGEST_BYTES = 2_000_000
PICTURE, COLUMNS = "failures.png", 96


@dataclass(frozen=True)
class Model:
    """What a card says that no run knows. The recipe has the model's name."""

    purpose: str
    data: str
    data_licence: str
    use: str
    limits: str
    default_data: Callable[[Path], Path]  # of the run's folder


def overlap_world(run: Path) -> Path:
    """The demo's data set, drawn beside the run."""
    write_shapes(run / "data")
    return run / "data"


def nuclei(run: Path) -> Path:
    """The photos where the tests look for them."""
    shared = os.environ.get("TENSORMASK_SHARED", ROOT.parent / "shared")
    return Path(shared) / "data" / "nuclei-dsb2018"


MODELS = {
    "shapes": Model(
        "overlapping shapes in pictures of 128 px",
        "the overlap world of `tensormask-edu shapes` (seed 0): 4000 pictures to train on, 200 "
        "held out",
        "drawn by this package, Apache-2.0",
        "A first picture, lessons, the demo, tests of exporters and runtimes: small, and its "
        "data can be drawn anywhere.",
        "It has seen nothing but drawn shapes of one colour under noise, 10 to 110 px long, in "
        "pictures of 128 px. Photos are not for it.",
        overlap_world,
    ),
    "cells": Model(
        "cell nuclei in microscope photos",
        "nuclei-dsb2018: 308 photos of the 2018 Data Science Bowl's first stage (BBBC038) with "
        "corrected masks, fluorescence and stained tissue, every fifth of a kind and size held "
        "out",
        "CC0; Caicedo et al., Nature Methods 2019, ask to be cited",
        "Trying the package on photos, and starting weights for small round objects.",
        "Held-out photos come from the same experiments as those trained on, which flatters "
        "the scores. Nine in ten nuclei it learnt from are 6 to 46 px wide (root of the area); "
        "other stains, magnifications and sizes were not tried. Not for diagnosis.",
        nuclei,
    ),
}


# --- a run ------------------------------------------------------------------------------------


def trained(name: str, data: Path, output: Path, args: argparse.Namespace) -> bool:
    """Train or go on; whether the schedule came to its end."""
    chosen = recipe(name)
    given = {"minutes": args.minutes, "steps": args.steps or chosen.train.steps}
    chosen = replace(chosen, train=replace(chosen.train, seed=args.seed, **given))
    train(chosen, data, output, args.resume)
    last = read_log(output)[-1]
    return last["step"] >= given["steps"] or last["seconds"] >= 60 * args.minutes


def training_facts(name: str, run: Path) -> dict[str, Any]:
    """How a run was trained, as its log and its state tell."""
    log = read_log(run)
    kept = torch.load(run / STATE, map_location="cpu", weights_only=True)["recipe"]
    names = ("seed", "batch_size", "optimizer", "precision")
    facts = {"steps": log[-1]["step"], "highest_lr": max(line["lr"] for line in log)}
    hours = round(log[-1]["seconds"] / 3600, 2)
    return {"recipe": name, **facts, **{n: kept[n] for n in names}, "hours": hours}


# --- packing ----------------------------------------------------------------------------------


def pack(name: str, run: Path, data: Path, folder: Path) -> dict[str, Any]:
    """Write the model of a run into `folder`; returns the facts on its card.

    The scores are those of the weights as they were packed.

    Raises:
        InputError: no run, weights that float16 does not hold, or more than LARGEST_BYTES.
    """
    training = training_facts(name, run)
    model, size = load_checkpoint(run / "checkpoint")
    dataset = CocoFolder(data, "val", keep_empty=True)
    full = scores_of(model, dataset, size)
    (folder / CARD).unlink(missing_ok=True)  # of other weights
    save_checkpoint(folder, model, size, torch.float16)
    model, _ = load_checkpoint(folder)
    if not all(bool(x.isfinite().all()) for x in model.state_dict().values()):
        raise bad_input("run", "weights that float16 holds", f"larger ones in {run}")
    if (number := (folder / WEIGHTS).stat().st_size) > LARGEST_BYTES:
        raise bad_input("run", f"at most {LARGEST_BYTES} bytes of weights", number)
    scores = scores_of(model, dataset, size)
    best = ceiling(model.config, dataset, size)["segm"]
    wrong, figure = failures(model, dataset, size)
    viz.save(figure, folder / PICTURE, viz.SCREEN_DPI, palette=True)
    said = MODELS[name]
    facts = {
        "name": name,
        "purpose": said.purpose,
        "classes": list(model.config.class_names),
        "licence": "Apache-2.0",
        "data": said.data,
        "data_licence": said.data_licence,
        "use": said.use,
        "limits": said.limits,
        "weights": {
            "sha256": file_sha256(folder / WEIGHTS),
            "bytes": number,
            "dtype": "float16",
            "parameters": sum(p.numel() for p in model.parameters()),
        },
        "training": training,
        "scores": {
            "pictures": len(dataset),
            **scores,
            "ceiling_AP": best["AP"],
            "ceiling_AP50": best["AP50"],
            "float32_AP": full["AP"],
        },
        "failures": wrong,
    }
    with written_whole(folder / PAGE) as temporary:
        temporary.write_text(page(facts), encoding="utf-8")
    write_json(folder / CARD, facts)
    return facts


def scores_of(model: TensorMask, dataset: CocoFolder, size: InputConfig) -> dict[str, float]:
    """The scores on a card."""
    scores = evaluate(model, dataset, size)
    masks, boxes = scores["segm"], scores["bbox"]
    return {"AP": masks["AP"], "AP50": masks["AP50"], "AP75": masks["AP75"]} | {
        "box_AP": boxes["AP"],
        "box_AP50": boxes["AP50"],
    }


# --- the card as a page -----------------------------------------------------------------------


def page(facts: dict[str, Any]) -> str:
    """The card in Markdown: the same facts, the same numbers."""
    name, wrong = facts["name"], facts["failures"]
    rows = [f"| {what} | {value} |" for what, value in _table(facts)]
    counts = ", ".join(f"{wrong['counts'][kind]} {kind}" for kind in KINDS)
    shown = [
        f"{number}. **{row['kind']}**, `{row['picture']}`: {row['words']}."
        for number, row in enumerate(wrong["shown"], start=1)
    ]
    blocks = [
        f"# {name}: {facts['purpose']}",
        f"```sh\ntensormask-edu predict {name} photo.png --output outputs/seen\n```",
        "\n".join(["| what | |", "| --- | --- |", *rows]),
        "## Data and training",
        _wrapped(f"Data: {facts['data']}. Licence of the data: {facts['data_licence']}."),
        _wrapped(_training(facts)),
        "## Intended use and limits",
        _wrapped(facts["use"]),
        _wrapped(facts["limits"]),
        "## Six failures",
        _wrapped(
            f"What has a score of at least {SURE:g} counts as found. Among {wrong['objects']} "
            f"objects: {counts}. The worst of each kind, the truth above what the model finds:"
        ),
        f"![Six parts of held-out pictures]({PICTURE})",
        "\n".join(_wrapped(line, "   ") for line in shown),
    ]
    return "\n\n".join(blocks) + "\n"


def _table(facts: dict[str, Any]) -> list[tuple[str, str]]:
    weights, scores = facts["weights"], facts["scores"]

    def of(*names: str) -> str:
        return ", ".join(f"{scores[name]:.3f}" for name in names)

    return [
        ("classes", ", ".join(facts["classes"])),
        ("mask AP, AP50, AP75", of("AP", "AP50", "AP75")),
        ("their ceiling: AP, AP50", of("ceiling_AP", "ceiling_AP50")),
        ("box AP, AP50", of("box_AP", "box_AP50")),
        ("scored on", f"{scores['pictures']} held-out pictures"),
        ("mask AP before packing, float32", of("float32_AP")),
        ("parameters", f"{weights['parameters']:,}, in {weights['dtype']}"),
        ("bytes", f"{weights['bytes']:,}"),
        ("SHA-256", f"`{weights['sha256']}`"),
        ("licence of the weights", facts["licence"]),
    ]


def _training(facts: dict[str, Any]) -> str:
    run = facts["training"]
    steps = f"{run['steps']} steps of {run['batch_size']} pictures in {run['precision']}"
    rate = f"{run['optimizer']} with a highest rate of {run['highest_lr']:.2g}"
    hours = f"{run['hours']:.1f} hours by the clock, on a CPU"
    made = f"`python benchmarks/ship.py {facts['name']}` makes such a model"
    recipe = f"recipe `{run['recipe']}`, {steps}, {rate}, seed {run['seed']}"
    return f"Training: {recipe}; {hours}. {made}."


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, COLUMNS, subsequent_indent=indent, break_on_hyphens=False)


def main() -> int:
    """Train and pack, or pack alone; 1 if training was paused."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    words = parser.add_subparsers(dest="word", required=True)
    for name in MODELS:
        add = words.add_parser(name, help="train this model and pack it").add_argument
        add("--output", type=Path, metavar="DIR", help=f"default outputs/ship/{name}")
        add("--minutes", type=float, default=120, help="the schedule ends here at the latest")
        add("--steps", type=int, help="length of the schedule (default: the recipe's)")
        add("--seed", type=int, default=0)
        add("--resume", action="store_true", help="go on with a paused run")
        add("--data", type=Path, metavar="FOLDER", help="the data set")
        add("--folder", type=Path, help="where the model is packed")
    add = words.add_parser("pack", help="pack a trained run").add_argument
    add("name", choices=MODELS)
    add("output", type=Path, metavar="RUN", help="has checkpoint/, log.jsonl and resume.pt")
    add("folder", type=Path, nargs="?", metavar="FOLDER", help="where the model is packed")
    add("--data", type=Path, metavar="FOLDER", help="the data set")
    args = parser.parse_args()
    name = args.name if args.word == "pack" else args.word
    run = args.output or Path("outputs/ship") / name
    data = args.data or MODELS[name].default_data(run)
    if args.word != "pack" and not trained(name, data, run, args):
        print("paused; go on with --resume")
        return 1
    folder = args.folder or ROOM / name
    scores = pack(name, run, data, folder)["scores"]
    print(f"mask AP {scores['AP']:.3f} of {scores['ceiling_AP']:.3f}; {folder / PAGE}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
