"""The spine in one run: from a mask to an engine, every number compared with another way to get
it.

Stages run in order and leave their numbers in the report. A stage that needs an optional
package that is not here says so and is left out; anything else that goes wrong makes the exit
code 1. The exporter is
another program: it runs as a child process and answers in JSON.

next: doctor.py
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import __version__, ops, viz
from ..base.errors import InputError
from ..base.files import make_folder, read_json
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
from ..training.train import train
from ..viz.gallery import method
from ..weights.checkpoint import load_checkpoint
from . import doctor
from .check_ops import check_ops, scaled_error
from .predict import detect
from .report import Claim, Picture, Report, Stage, to_text, write_report

EXPECTED_AP = (
    0.48  # on the held-out overlap world; seen: 0.53 after 3010 steps, 0.50 after 2703
)
ENOUGH_STEPS = (
    2600  # it takes about so many; 4.7 minutes on two slow cores were 2054 and gave 0.41
)
SAME_LOSS = 1e-5  # relative: sums of float32 in another order
SAME_OP = 1e-5  # the golden numbers' own rounding, scaled
DRAWN_SCORE = 0.4  # many true objects score between 0.4 and 0.5 after minutes of training
DRAWN_IMAGES = 6
FULL: dict[str, Any] = {"steps": 4000}  # four minutes on two undisturbed cores
QUICK: dict[str, Any] = {"steps": 40, "log_every": 2}


class NotRun(Exception):
    """A stage that cannot run here for lack of an optional package; the message says what to
    do."""


class Failed(Exception):
    """A stage that ran and went wrong."""


@dataclass
class Run:
    """One run of the demo: where it writes, how long it trains, and what the stages share."""

    output: Path
    recipe: Recipe
    quick: bool
    report: Report
    steps: int = 0  # trained
    done: set[str] = field(default_factory=set)

    @property
    def shapes(self) -> Path:
        return self.output / ("shapes_quick" if self.quick else "shapes")

    @property
    def training(self) -> Path:
        return self.output / "training"

    @property
    def checkpoint(self) -> Path:
        return self.training / "checkpoint"

    @property
    def onnx(self) -> Path:
        return self.output / "model.onnx"

    @cached_property
    def held_out(self) -> CocoFolder:
        return CocoFolder(self.shapes, "val", keep_empty=True)

    @cached_property
    def trained(self) -> tuple[TensorMask, InputConfig]:
        return load_checkpoint(self.checkpoint)

    def claim(
        self,
        claim: str,
        against: str,
        difference: float | None,
        limit: float | None,
        **more: Any,
    ) -> None:
        self.report.claims.append(Claim(claim, against, difference, limit, **more))

    def picture(
        self, name: str, title: str, figure: Any, caption: str, part: Any = "method"
    ) -> None:
        """Save a figure and put it into the report."""
        file = f"pictures/{name}.png"
        viz.save(figure, self.output / file, palette=part == "method")
        self.report.pictures.append(Picture(file, title, caption, part))


# --- The stages: each returns what it found, in words -----------------------------------------


def look_around(run: Run) -> str:
    """What is installed and runs here."""
    findings = doctor.examine()
    run.report.machine = findings["machine"]
    if findings["problems"]:
        raise Failed("; ".join(findings["problems"]))
    able = [ability for ability in findings["abilities"] if ability["runs"]]
    return f"{len(able)} of {len(findings['abilities'])} abilities here; `tensormask-edu doctor` tells more"


def check_operators(run: Run) -> str:
    """Every operator against the NumPy reference, and swap_align2nat against golden vectors."""
    findings = check_ops("cpu")
    for dtype in ("float64", "float32"):
        rows = [row for row in findings["results"] if row["dtype"] == dtype]
        for key, what in (("error", "values"), ("grad_error", "gradients")):
            worst = max(row[key] for row in rows)
            run.claim(
                f"operators, {what}, {dtype}",
                "NumPy reference",
                worst,
                rows[0]["limit"],
                note="relative",
            )
    _golden(run)
    if not findings["passed"]:
        raise Failed("an operator differs from the reference; see `tensormask-edu check-ops`")
    cases = sum(len(row["cases"]) for row in findings["results"])
    return f"{cases} cases of {len({row['op'] for row in findings['results']})} operators equal the reference"


def _golden(run: Run) -> None:
    """swap_align2nat against vectors of the official kernel, where the checkout has them."""
    path = Path(__file__).resolve().parents[2] / "tests" / "data" / "swap_align2nat.npz"
    name, against = (
        "swap_align2nat, forward and backward",
        "golden vectors of the official kernel",
    )
    if not path.is_file():
        run.claim(
            name, against, None, SAME_OP, note="the vectors are in a checkout's tests/data"
        )
        return
    with np.load(path) as vectors:
        cases = json.loads(str(vectors["cases"]))
        worst = max(_golden_error(vectors, number, case) for number, case in enumerate(cases))
    run.claim(name, against, worst, SAME_OP, note=f"{len(cases)} cases, absolute")


def _golden_error(vectors: Any, number: int, case: dict[str, Any]) -> float:
    side = case["window"]
    x = (
        torch.from_numpy(vectors[f"case{number}_input"])
        .unflatten(1, (side, side))
        .requires_grad_()
    )
    lam = case["lambda_"]
    out = ops.swap_align2nat(x, lam, case["pad_value"])
    expected, grad_out = (vectors[f"case{number}_{what}"] for what in ("output", "grad_output"))
    (grad,) = torch.autograd.grad(out, x, torch.from_numpy(grad_out).view(out.shape))
    errors = (
        out.detach().flatten(1, 2).numpy() - expected,
        grad.flatten(1, 2).numpy() - vectors[f"case{number}_grad_input"],
    )
    return max(float(np.abs(error).max()) for error in errors)


def draw_shapes(run: Run) -> str:
    """The overlap world as a COCO folder."""
    train_images, held_out = (64, 8) if run.quick else (4000, 200)
    new = write_shapes(run.shapes, train=train_images, val=held_out)
    return f"{train_images} training and {held_out} held-out images {'drawn' if new else 'were there already'}"


def draw_method(run: Run) -> str:
    """Pictures of the representations and of the operator."""
    image, target = run.held_out[13 % len(run.held_out)]
    for exhibit in method(image, target, run.recipe.model):
        run.picture(*exhibit)
    return f"{len(run.report.pictures)} pictures of the method"


def train_model(run: Run) -> str:
    """Train, and draw the losses."""
    model = train(run.recipe, run.shapes, run.training)
    log = [
        json.loads(line)
        for line in (run.training / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    caption = "The three losses and their sum; the learning rate rises, then falls to zero by the end."
    run.picture("loss", "Training", viz.loss_curve(log), caption, "results")
    parameters = sum(p.numel() for p in model.parameters())
    first, last = log[0], log[-1]
    run.steps = last["step"]
    return f"{parameters:,} parameters, {last['step']} steps, loss {first['loss']:.2f} to {last['loss']:.2f}"


def compare_sparse_with_dense(run: Run) -> str:
    """The mask loss evaluated at positive windows only, and from the dense tensors of all
    windows."""
    model, input_config = run.trained
    samples = [run.held_out[index] for index in range(min(4, len(run.held_out)))]
    images = [torch.from_numpy(prepare(image.numpy(), input_config)) for image, _ in samples]
    targets = [
        resize_truth(target, (image.shape[-2], image.shape[-1]))
        for image, (_, target) in zip(images, samples, strict=True)
    ]
    with torch.inference_mode():
        sparse, dense, worst = mask_losses(model, images, targets)
    run.claim(
        "masks at positive windows",
        "dense masks of all windows",
        worst,
        SAME_OP,
        note="trained model, scaled",
    )
    run.claim(
        "mask loss at positive windows",
        "mask loss from dense masks",
        abs(sparse - dense) / dense,
        SAME_LOSS,
        note="relative",
    )
    return f"mask loss {sparse:.6f} from the positive windows, {dense:.6f} from all"


def mask_losses(
    model: TensorMask, images: list[torch.Tensor], targets: list[dict[str, Any]]
) -> tuple[float, float, float]:
    """(mask loss by the windows operator, by the dense operator, largest scaled difference of
    the logits)."""
    network = model.network
    output, layout = (
        network(model.batch(images)),
        model.config.geometry.layout(sizes_px(images)),
    )
    wanted = build_targets(targets, layout, model.config)
    chosen = layout.windows[wanted.window]
    sparse = list(network.mask_logits(output, wanted.image, chosen))
    natural = network.natural(output)
    dense = [
        WindowMasks(
            where,
            natural[level][size_id][
                wanted.image[where], :, :, chosen.y[where], chosen.x[where]
            ],
        )
        for level, size_id, where in chosen.groups()
    ]
    errors = [
        scaled_error(a.values.numpy(), b.values.numpy(), float(b.values.abs().max()))
        for a, b in zip(sparse, dense, strict=True)
    ]
    weight, count = model.config.mask_positive_weight, max(1, len(wanted.window))
    first, second = (
        float(losses.mask_loss(masks, wanted.masks, weight)) / count
        for masks in (sparse, dense)
    )
    return first, second, max(errors, default=0.0)


def score_model(run: Run) -> str:
    """COCO scores on the held-out images, with the ceiling."""
    model, input_config = run.trained
    areas = evaluate.SHAPES_AREAS
    scores = evaluate.evaluate(model, run.held_out, input_config, area_ranges=areas)
    scores["ceiling"] = ceiling(model.config, run.held_out, input_config, area_ranges=areas)
    run.report.scores = scores
    ap, reachable = scores["segm"]["AP"], scores["ceiling"]["segm"]["AP"]
    name, against = "mask AP on the held-out images", "pycocotools"
    if run.quick:
        run.claim(
            name, against, None, EXPECTED_AP, note="a quick run learns nothing", at_least=True
        )
    else:
        note = f"ceiling {reachable:.3f}"
        if run.steps < ENOUGH_STEPS:
            enough = math.ceil((run.recipe.train.minutes or 0.0) * ENOUGH_STEPS / run.steps)
            note += (
                f"; the clock ended training after {run.steps} steps, try --minutes {enough}"
            )
        run.claim(name, against, ap, EXPECTED_AP, note=note, at_least=True)
    return f"mask AP {ap:.3f} (ceiling {reachable:.3f}), box AP {scores['bbox']['AP']:.3f}"


def predict_images(run: Run) -> str:
    """Truth and prediction on six held-out images."""
    model, input_config = run.trained
    samples = [run.held_out[index] for index in range(min(DRAWN_IMAGES, len(run.held_out)))]
    found = [detect(model, image.numpy(), input_config, DRAWN_SCORE) for image, _ in samples]
    images, truths = zip(*samples, strict=True)
    figure = viz.truth_and_prediction(images, truths, found, model.config.class_names)
    caption = (
        f"Held-out images: above the true visible parts, below what the model finds with a score of at least "
        f"{DRAWN_SCORE}."
    )
    run.picture("predictions", "Truth and prediction", figure, caption, "results")
    detections, objects = (
        sum(len(instances["labels"]) for instances in group) for group in (found, truths)
    )
    return f"{len(samples)} images with {objects} objects: {detections} found with score >= {DRAWN_SCORE}"


def export_onnx(run: Run) -> str:
    """The trained model as one ONNX file."""
    _need("export", "onnx", "onnxscript")
    answer = _exporter(run, "onnx", run.checkpoint, run.onnx)
    nodes = ", ".join(f"{count} {name}" for name, count in answer["nodes"].items())
    return f"{answer['bytes'] / 2**20:.1f} MiB, {len(answer['outputs'])} outputs, our nodes: {nodes}"


def verify_onnx(run: Run) -> str:
    """ONNX Runtime, and the network as TensorRT's parser reads the file, against PyTorch."""
    _need("export", "onnxruntime")
    answer = _exporter(run, "verify", run.onnx, run.checkpoint)
    worst: dict[str, dict[str, float]] = {}  # runtime -> raw output -> largest difference
    for row in answer["differences"]:
        outputs = worst.setdefault(row["runtime"], {})
        outputs[row["output"]] = max(
            outputs.get(row["output"], 0.0), _infinite_if_none(row["max_abs"])
        )
    inputs = len({row["input"] for row in answer["differences"]})
    for runtime, outputs in worst.items():
        largest, note = max(outputs.values()), f"{inputs} inputs, absolute"
        run.claim(
            f"{runtime}, every raw output", "PyTorch", largest, answer["tolerance"], note=note
        )
    run.report.onnx = next(
        outputs for runtime, outputs in worst.items() if "onnxruntime" in runtime
    )
    largest = max(run.report.onnx.values())
    return f"largest difference {largest:.1e} over {len(run.report.onnx)} outputs and {inputs} inputs"


def build_engine(run: Run) -> str:
    """A TensorRT engine, built without a GPU."""
    if not (doctor.installed_version("tensorrt") or doctor.installed_version("tensorrt-rtx")):
        raise NotRun(
            'neither tensorrt nor tensorrt-rtx is installed: pip install "tensormask-edu[rtx]"'
        )
    answer = _exporter(run, "engine", run.onnx, run.output / "model.engine")
    run.report.engine = engine_words(answer)
    reason = "an engine needs an NVIDIA GPU to run; building one does not"
    run.claim("TensorRT engine, every raw output", "PyTorch", None, None, note=reason)
    engine = run.report.engine
    return f"{engine['size']}, {engine['built with']}, for {engine['for']}"


def engine_words(answer: dict[str, Any]) -> dict[str, str]:
    """What the report says of an engine, from the exporter's answer."""
    shapes = answer["profile"]
    return {
        "built with": f"{answer['backend']} {answer['version']}, {answer['seconds']:.1f} s",
        "size": f"{answer['bytes'] / 2**20:.1f} MiB",
        "for": " ".join(
            [*answer["targets"]["compute_capabilities"], f"({answer['targets']['note']})"]
        ),
        "input sizes": ", ".join(
            f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items()
        ),
        "our operators": ", ".join(f"{name}: {how}" for name, how in answer["ops"].items()),
        "the same by hand": answer["command"],
    }


def _need(extra: str, *names: str) -> None:
    missing = [name for name in names if not doctor.installed_version(name)]
    if missing:
        raise NotRun(
            f'{" and ".join(missing)} not installed: pip install "tensormask-edu[{extra}]"'
        )


def _exporter(run: Run, command: str, *arguments: Path) -> dict[str, Any]:
    """Run `tensormask-export COMMAND` as a child process; its JSON answer."""
    answer = run.output / f"export_{command}.json"
    answer.unlink(missing_ok=True)
    words = [command, *map(str, arguments), "--json", str(answer)]
    child = subprocess.run(
        [sys.executable, "-m", "tensormask_export", *words], capture_output=True, text=True
    )
    said = (child.stdout + child.stderr).strip()
    (run.output / f"export_{command}.log").write_text(said + "\n", encoding="utf-8")
    if not answer.is_file():
        last = said.splitlines()[-1] if said else "no word"
        raise Failed(f"tensormask-export {command}, exit code {child.returncode}: {last}")
    return dict(read_json(answer, "the exporter's answer"))


def _infinite_if_none(value: float | None) -> float:
    """JSON has no infinity: the exporter writes null."""
    return float("inf") if value is None else value


# --- The run ----------------------------------------------------------------------------------

Work = Callable[[Run], str]

# name, what it does, the stages it builds on
STAGES: tuple[tuple[str, Work, tuple[str, ...]], ...] = (
    ("doctor", look_around, ()),
    ("operators", check_operators, ()),
    ("shapes", draw_shapes, ()),
    ("method", draw_method, ("shapes",)),
    ("train", train_model, ("shapes",)),
    ("sparse and dense", compare_sparse_with_dense, ("train",)),
    ("evaluate", score_model, ("train",)),
    ("predict", predict_images, ("train",)),
    ("onnx", export_onnx, ("train",)),
    ("verify", verify_onnx, ("onnx",)),
    ("engine", build_engine, ("onnx",)),
)


def run_demo(
    output: str | Path = "outputs/demo",
    minutes: float = 4.7,
    seed: int = 0,
    quick: bool = False,
) -> int:
    """Run every stage and write `output/report.html`, `.txt`, `.json`; prints as it goes.

    Args:
        minutes: training stops here at the latest.
        seed: of the weights and the order of the images; the images themselves are always the
            same.
        quick: a smoke test of under a minute: few images, 40 steps; it learns nothing.

    Returns:
        0, or 1 if a stage failed or a claim does not hold. An absent optional package is no
        failure.

    Raises:
        InputError: a bad number, or a place that cannot be written.
    """
    run = start(Path(output), minutes, seed, quick)
    for number, (name, work, needs) in enumerate(STAGES, start=1):
        print(f"[{number}/{len(STAGES)}] {name}", flush=True)
        stage = perform(run, name, work, needs)
        run.report.stages.append(stage)
        print(f"      {stage.state}: {stage.words} ({stage.seconds:.1f} s)", flush=True)
    page = write_report(run.report, run.output)
    print(f"\n{to_text(run.report)}\nThe same with pictures: {page}")
    return 1 if run.report.failures else 0


def start(output: Path, minutes: float, seed: int, quick: bool) -> Run:
    """A run with an empty report; checks the numbers and the place before any work."""
    recipe = RECIPES["shapes"]
    length = QUICK if quick else FULL
    recipe = replace(recipe, train=replace(recipe.train, minutes=minutes, seed=seed, **length))
    make_folder(output / "pictures")
    title = "TensorMask, from a mask to an engine" + (" (quick run)" if quick else "")
    made = f"{datetime.now():%Y-%m-%d %H:%M}, tensormask_edu {__version__}, seed {seed}"
    return Run(output, recipe, quick, Report(title, made))


def perform(run: Run, name: str, work: Work, needs: tuple[str, ...]) -> Stage:
    """Run one stage if what it builds on is there, and say how it went."""
    begin = time.perf_counter()
    missing = [need for need in needs if need not in run.done]
    if missing:
        return Stage(name, "not run", 0.0, f"needs the stage {missing[0]}")
    try:
        words = work(run)
    except NotRun as reason:
        return Stage(name, "not run", time.perf_counter() - begin, str(reason))
    except (Failed, InputError) as error:
        return Stage(name, "failed", time.perf_counter() - begin, str(error))
    except Exception as error:
        traceback.print_exc()
        return Stage(
            name, "failed", time.perf_counter() - begin, f"{type(error).__name__}: {error}"
        )
    run.done.add(name)
    return Stage(name, "done", time.perf_counter() - begin, words)
