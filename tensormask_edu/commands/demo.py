"""The spine in one run, from a mask to an engine, each number compared with another way to it.

Stages run in order and leave their numbers in the report. A stage that needs an optional
package that is not here says so and is left out; anything else that goes wrong makes the exit
code 1. The exporter is another program: it runs as a child process and answers in JSON, with
its own claims in it.

next: cli.py
"""

from __future__ import annotations

import base64
import gzip
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from .. import __version__, viz
from ..base.files import make_folder, read_json, written_whole
from ..base.machine import version
from ..base.stages import Failed, NotRun, perform
from ..config import RECIPES, InputConfig, Recipe
from ..data.coco import CocoFolder
from ..data.prepare import prepare
from ..data.shapes import write_shapes
from ..data.truth import resize_truth
from ..detector import losses
from ..detector.model import TensorMask
from ..detector.network import WindowMasks
from ..detector.targets import build_targets
from ..evaluation import coco_scores as evaluate
from ..evaluation.ceiling import ceiling
from ..geometry import sizes_px
from ..training.journal import read_log
from ..training.train import train
from ..viz.gallery import method
from ..weights.checkpoint import load_checkpoint
from ..weights.shipped import read_card
from . import doctor
from .check_ops import GOLDEN_FILE, check_ops, golden_cases, golden_error, scaled_error
from .expected import CLOCK_SHARE, learning_curve, pace
from .predict import detect
from .report import Claim, Picture, Report, to_text, write_report

MINUTES = 12.0  # of training at most; the learning rate comes to its end before
OTHER_STAGES = 900  # as long as so many training steps
SHIPPED = "shapes"  # the model that comes along
SHIPPED_AP = 0.005  # below its card's: another machine rounds otherwise
SAME_LOSS = 1e-5  # relative: sums of float32 in another order
SAME_OP = 1e-5  # the golden numbers' own rounding, scaled
DRAWN_SCORE = 0.4  # many true objects score between 0.4 and 0.5 after minutes of training
DRAWN_IMAGES = 6
STEPS = 3400  # 3000 give a mask AP of 0.517, the mean of five seeds; one of six had 0.494
# `make explorer` builds it in a checkout; an installation has none
EXPLORER = Path(__file__).resolve().parents[2] / "docs/explorer/built/tensormask.html"
QUICK: dict[str, Any] = {"steps": 40, "log_every": 2}


@dataclass
class Run:
    """One run of the demo: where it writes, how long it trains, and what the stages share."""

    output: Path
    recipe: Recipe
    quick: bool
    report: Report
    steps: int = 0  # trained

    def __post_init__(self) -> None:
        self.shapes = self.output / ("shapes_quick" if self.quick else "shapes")
        self.training = self.output / "training"
        self.checkpoint = self.training / "checkpoint"
        self.onnx = self.output / "model.onnx"

    @cached_property
    def held_out(self) -> CocoFolder:
        return CocoFolder(self.shapes, "val", keep_empty=True)

    @cached_property
    def trained(self) -> tuple[TensorMask, InputConfig]:
        return load_checkpoint(self.checkpoint)

    def some(self, most: int) -> list[tuple[torch.Tensor, dict[str, Any]]]:
        """The first held-out pictures with their truth."""
        return [self.held_out[index] for index in range(min(most, len(self.held_out)))]

    def claim(self, *words: Any, **more: Any) -> None:
        """Put a `Claim` into the report."""
        self.report.claims.append(Claim(*words, **more))

    def picture(self, name: str, title: str, figure: Any, *caption_and_part: Any) -> None:
        """Save a figure and put it into the report."""
        picture = Picture(f"pictures/{name}.png", title, *caption_and_part)
        viz.save(figure, self.output / picture.file, palette=picture.part == "method")
        self.report.pictures.append(picture)


# --- the stages: each returns what it found, in words -----------------------------------------


def look_around(run: Run) -> str:
    """What is installed and runs here."""
    findings = doctor.examine()
    run.report.machine = findings["machine"]
    if findings["problems"]:
        raise Failed("; ".join(findings["problems"]))
    able = [ability["runs"] for ability in findings["abilities"]]
    return f"{sum(able)} of {len(able)} abilities here; `tensormask-edu doctor` tells more"


def check_operators(run: Run) -> str:
    """Every operator against the NumPy reference, and swap_align2nat against golden vectors."""
    findings = check_ops("cpu")
    results = findings["results"]
    for dtype in ("float64", "float32"):
        rows = [row for row in results if row["dtype"] == dtype]
        for key, what in (("error", "values"), ("grad_error", "gradients")):
            name, worst = f"operators, {what}, {dtype}", max(row[key] for row in rows)
            run.claim(name, "NumPy reference", worst, rows[0]["limit"], "relative")
    worst, note = None, "the vectors are in a checkout's tests/data"
    if GOLDEN_FILE.is_file():
        errors = [golden_error(case) for case in golden_cases()]
        worst, note = max(errors), f"{len(errors)} cases, absolute"
    against = "golden vectors of the official kernel"
    run.claim("swap_align2nat, forward and backward", against, worst, SAME_OP, note)
    if not findings["passed"]:
        raise Failed("an operator differs from the reference; see `tensormask-edu check-ops`")
    cases, names = sum(len(row["cases"]) for row in results), {row["op"] for row in results}
    return f"{cases} cases of {len(names)} operators equal the reference"


def draw_shapes(run: Run) -> str:
    """The overlap world as a COCO folder."""
    train_images, held_out = (64, 8) if run.quick else (4000, 200)
    new = write_shapes(run.shapes, train=train_images, val=held_out)
    how = "drawn" if new else "were there already"
    return f"{train_images} training and {held_out} held-out images {how}"


def draw_method(run: Run) -> str:
    """Pictures of the representations and of the operator."""
    image, truth = run.held_out[13 % len(run.held_out)]
    for exhibit in method(image, truth, run.recipe.model):
        run.picture(*exhibit)
    return f"{len(run.report.pictures)} pictures of the method"


def train_model(run: Run) -> str:
    """Train, and draw the losses."""
    model = train(run.recipe, run.shapes, run.training, overwrite=True)  # the demo's own
    log = read_log(run.training)
    rate = "the learning rate rises, then falls to zero by the end."
    caption = f"The three losses and their sum; {rate}"
    run.picture("loss", "Training", viz.loss_curve(log), caption, "results")
    first, last, run.steps = log[0]["loss"], log[-1]["loss"], log[-1]["step"]
    size = sum(parameter.numel() for parameter in model.parameters())
    return f"{size:,} parameters, {run.steps} steps, loss {first:.2f} to {last:.2f}"


def compare_sparse_with_dense(run: Run) -> str:
    """The mask loss at positive windows only, and from the dense tensors of all windows."""
    model, input_config = run.trained
    pictures, truths = zip(*run.some(4), strict=True)
    images = [torch.from_numpy(prepare(image.numpy(), input_config)) for image in pictures]
    pairs = zip(truths, sizes_px(images), strict=True)
    targets = [resize_truth(truth, size) for truth, size in pairs]
    with torch.inference_mode():
        sparse, dense, worst = mask_losses(model, images, targets)
    name, against = "masks at positive windows", "dense masks of all windows"
    run.claim(name, against, worst, SAME_OP, "trained model, scaled")
    name, against = "mask loss at positive windows", "mask loss from dense masks"
    run.claim(name, against, abs(sparse - dense) / dense, SAME_LOSS, "relative")
    return f"mask loss {sparse:.6f} from the positive windows, {dense:.6f} from all"


def mask_losses(
    model: TensorMask, images: list[torch.Tensor], targets: list[dict[str, Any]]
) -> tuple[float, float, float]:
    """The mask loss by the windows operator, by the dense one, and how the logits differ."""
    network, layout = model.network, model.config.geometry.layout(sizes_px(images))
    output = network(model.batch(images))
    wanted = build_targets(targets, layout, model.config)
    chosen = layout.windows[wanted.window]
    sparse = list(network.mask_logits(output, wanted.image, chosen))
    natural = network.natural(output)
    dense, worst = [], 0.0
    for few, (level, size_id, where) in zip(sparse, chosen.groups(), strict=True):
        n, y, x = wanted.image[where], chosen.y[where], chosen.x[where]
        values = natural[level][size_id][n, :, :, y, x]  # (K, V, U)
        dense.append(WindowMasks(where, values))
        error = scaled_error(few.values.numpy(), values.numpy(), float(values.abs().max()))
        worst = max(worst, error)
    weight, count = model.config.mask_positive_weight, max(1, len(wanted.window))
    first, second = (losses.mask_loss(some, wanted.masks, weight) for some in (sparse, dense))
    return float(first) / count, float(second) / count, worst


def score_model(run: Run) -> str:
    """COCO scores on the held-out images, with the ceiling."""
    model, input_config = run.trained
    areas = evaluate.SHAPES_AREAS
    scores = evaluate.evaluate(model, run.held_out, input_config, area_ranges=areas)
    scores["ceiling"] = ceiling(model.config, run.held_out, input_config, area_ranges=areas)
    run.report.scores = scores
    ap, reachable = scores["segm"]["AP"], scores["ceiling"]["segm"]["AP"]
    name, against = f"mask AP after {run.steps} steps", "learning curve of five seeds"
    run.claim(name, against, *_judged(run, ap), at_least=True)
    return f"mask AP {ap:.3f} (ceiling {reachable:.3f}), box AP {scores['bbox']['AP']:.3f}"


def _judged(run: Run, ap: float) -> tuple[float | None, float | None, str]:
    """AP as a claim says it: what was seen, the lower end of the curve's band, a note."""
    curve = learning_curve()
    if run.quick:
        return None, None, "a quick run learns nothing"
    band = curve.at(run.steps)
    if band is None:
        return None, None, f"the curve begins at {curve.steps[0]} steps; try more --minutes"
    low, mean = band
    note = f"other seeds: {mean:.3f}"
    if run.steps < run.recipe.train.steps:
        low *= CLOCK_SHARE
        note += f"; the clock ended training before {run.recipe.train.steps} steps"
    return ap, low, note


def predict_images(run: Run) -> str:
    """Truth and prediction on six held-out images."""
    return _drawn(run, *run.trained, "predictions", "Truth and prediction", "the model")


def shipped_model(run: Run) -> str:
    """The model that comes along on the same images: its score, as on its card, and a picture.

    It was trained for longer, on the same training images.
    """
    model, input_config = load_checkpoint(SHIPPED)
    areas = evaluate.SHAPES_AREAS
    scores = evaluate.evaluate(model, run.held_out, input_config, area_ranges=areas)
    run.report.scores["shipped"] = scores
    ap, card = scores["segm"]["AP"], read_card(SHIPPED)
    seen, note = ap, f"the card says {card['scores']['AP']:.3f}"
    if run.quick:
        seen, note = None, "a quick run has fewer images"
    name, least = f"mask AP of the model `{SHIPPED}`", card["scores"]["AP"] - SHIPPED_AP
    run.claim(name, "its card", seen, least, note, at_least=True)
    title, who = "The model that comes along", f"the model `{SHIPPED}`"
    words = _drawn(run, model, input_config, "shipped", title, who)
    return f"mask AP {ap:.3f} after {card['training']['steps']} steps; {words}"


def _drawn(
    run: Run, model: TensorMask, input_config: InputConfig, name: str, title: str, who: str
) -> str:
    """Draw the truth and what a model finds on the first held-out images; count it in words."""
    images, truths = zip(*run.some(DRAWN_IMAGES), strict=True)
    found = [detect(model, image.numpy(), input_config, DRAWN_SCORE) for image in images]
    figure = viz.truth_and_prediction(images, truths, found, model.config.class_names)
    below = f"below what {who} finds with a score of at least {DRAWN_SCORE}"
    caption = f"Held-out images: above the true visible parts, {below}."
    run.picture(name, title, figure, caption, "results")
    hits, objects = (sum(len(some["labels"]) for some in group) for group in (found, truths))
    there = f"{len(images)} images with {objects} objects"
    return f"{there}: {hits} found with score >= {DRAWN_SCORE}"


def export_onnx(run: Run) -> str:
    """The trained model as one ONNX file."""
    _need("export", "onnx", "onnxscript")
    return _exporter(run, "onnx", run.checkpoint, run.onnx)["summary"]


def verify_onnx(run: Run) -> str:
    """ONNX Runtime, and the network as TensorRT's parser reads the file, against PyTorch."""
    _need("export", "onnxruntime")
    answer = _exporter(run, "verify", run.onnx, run.checkpoint)
    by_onnxruntime = (found for name, found in answer["worst"].items() if "onnxruntime" in name)
    run.report.onnx = next(by_onnxruntime, {})
    return answer["summary"]


def build_engine(run: Run) -> str:
    """A TensorRT engine, built without a GPU."""
    if not (version("tensorrt") or version("tensorrt-rtx")):
        fix = 'pip install "tensormask-edu[rtx]"'
        raise NotRun(f"neither tensorrt nor tensorrt-rtx is installed: {fix}")
    answer = _exporter(run, "engine", run.onnx, run.output / "model.engine")
    run.report.engine = answer["facts"]
    return answer["summary"]


def hand_to_explorer(run: Run) -> str:
    """The explorer's page with the trained model inside, where there is one."""
    if not EXPLORER.is_file():
        raise NotRun("`make explorer` builds the page (it needs node); the next demo fills it")
    page = EXPLORER.read_text(encoding="utf-8")
    model = base64.b64encode(gzip.compress(run.onnx.read_bytes())).decode("ascii")
    filled, places = re.subn(
        r'id="model\.onnx">[^<]*', lambda _: f'id="model.onnx" data-own>{model}', page
    )
    if places != 1:
        raise Failed(f"{EXPLORER} has no place for a model; `make explorer` builds it anew")
    run.report.explorer = "explorer.html"
    with written_whole(run.output / run.report.explorer) as temporary:
        temporary.write_text(filled, encoding="utf-8")
    return f"the trained model in the browser: {run.report.explorer}"


def _need(extra: str, *names: str) -> None:
    missing = " and ".join(name for name in names if not version(name))
    if missing:
        raise NotRun(f'{missing} not installed: pip install "tensormask-edu[{extra}]"')


def _exporter(run: Run, command: str, *arguments: Path) -> dict[str, Any]:
    """Run `tensormask-export COMMAND` as a child process; its JSON answer, its claims ours."""
    file = run.output / f"export_{command}.json"
    file.unlink(missing_ok=True)
    words = [sys.executable, "-m", "tensormask_export", command, *map(str, arguments)]
    child = subprocess.run([*words, "--json", str(file)], capture_output=True, text=True)
    said = (child.stdout + child.stderr).strip()
    (run.output / f"export_{command}.log").write_text(said + "\n", encoding="utf-8")
    if not file.is_file():
        last = said.splitlines()[-1] if said else "no word"
        raise Failed(f"tensormask-export {command}, exit code {child.returncode}: {last}")
    answer: dict[str, Any] = read_json(file, "the exporter's answer")
    for claim in answer["claims"]:
        run.claim(**claim)
    return answer


# --- the run ----------------------------------------------------------------------------------

# name, what it does, the stages it builds on
STAGES: tuple[tuple[str, Callable[[Run], str], tuple[str, ...]], ...] = (
    ("doctor", look_around, ()),
    ("operators", check_operators, ()),
    ("shapes", draw_shapes, ()),
    ("method", draw_method, ("shapes",)),
    ("train", train_model, ("shapes",)),
    ("sparse and dense", compare_sparse_with_dense, ("train",)),
    ("evaluate", score_model, ("train",)),
    ("predict", predict_images, ("train",)),
    ("shipped model", shipped_model, ("shapes",)),
    ("onnx", export_onnx, ("train",)),
    ("verify", verify_onnx, ("onnx",)),
    ("engine", build_engine, ("onnx",)),
    ("explorer", hand_to_explorer, ("onnx",)),
)


def run_demo(
    output: str | Path = "outputs/demo",
    minutes: float = MINUTES,
    seed: int = 0,
    quick: bool = False,
    steps: int | None = None,
) -> int:
    """Run every stage and write `output/report.html`, `.txt`, `.json`; prints as it goes.

    Args:
        minutes: training stops here at the latest.
        steps: of training; None: `STEPS`.
        seed: of the weights and the order of the images; the images are always the same.
        quick: a smoke test of under a minute: few images, 40 steps; it learns nothing.

    Returns 0, or 1 if a stage failed or a claim does not hold; an absent optional package is no
    failure. Raises InputError for a bad number, or a place that cannot be written.
    """
    run = start(Path(output), minutes, seed, quick, steps)
    stages = run.report.stages
    if not quick:
        print(how_long(run), flush=True)
    for number, (name, work, needs) in enumerate(STAGES, start=1):
        print(f"[{number}/{len(STAGES)}] {name}", flush=True)
        stages.append(stage := perform(name, partial(work, run), needs, stages))
        print(f"      {stage.state}: {stage.words} ({stage.seconds:.1f} s)", flush=True)
    page = write_report(run.report, run.output)
    print(f"\n{to_text(run.report)}\nThe same with pictures: {page}")
    return 1 if run.report.failures else 0


def how_long(run: Run) -> str:
    """The pace of this machine, measured, and what follows from it."""
    seconds, threads = pace(run.recipe)
    config = run.recipe.train
    assert config.minutes is not None
    training = min(config.steps * seconds / 60, config.minutes)
    whole = training + OTHER_STAGES * seconds / 60
    cut = ""
    if config.steps * seconds > 60 * config.minutes:
        reached = int(60 * config.minutes / seconds)
        cut = f", which the clock ends after about {reached}; AP is judged at what is reached"
    return (
        f"{seconds:.2f} s a training step here ({threads.words})\n"
        f"{config.steps} steps{cut}: {training:.0f} min, about {whole:.0f} with the rest"
    )


def start(
    output: Path, minutes: float, seed: int, quick: bool, steps: int | None = None
) -> Run:
    """A run with an empty report; checks the numbers and the place before any work."""
    recipe, length = RECIPES["shapes"], QUICK if quick else {"steps": steps or STEPS}
    recipe = replace(recipe, train=replace(recipe.train, minutes=minutes, seed=seed, **length))
    make_folder(output / "pictures")
    title = "TensorMask, from a mask to an engine" + (" (quick run)" if quick else "")
    made = f"{datetime.now():%Y-%m-%d %H:%M}, tensormask_edu {__version__}, seed {seed}"
    return Run(output, recipe, quick, Report(title, made))
