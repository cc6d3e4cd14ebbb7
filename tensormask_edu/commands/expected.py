"""What a training should reach: AP after so many steps, and how long they take here.

Steps decide how good a model is, the machine decides how many there are in the time. So a
training is judged against the learning curve at the steps it reached. The curve is stored:
trainings of several seeds, each with a schedule that ends at its number of steps
(`benchmarks/learning_curve.py` makes it). A band below their mean leaves room for chance, not
for a mistake.

next: commands/demo.py
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..base.files import read_json
from ..base.threads import Threads
from ..config import Recipe
from ..data import shapes
from ..data.truth import Truth
from ..detector.model import build_model
from ..detector.targets import build_targets
from ..geometry import sizes_px
from ..masks import tight_boxes
from ..training.batches import Batch
from ..training.train import Run

NAME = "learning-curve.json"
# In a checkout, and in an installation
CURVE_FILES = (
    Path(__file__).resolve().parents[2] / "benchmarks" / "results" / NAME,
    Path(__file__).with_name(NAME),
)
# One of a hundred sound trainings falls below so many standard deviations under the mean of
# five (Student's t, four degrees of freedom, times the root of 1 + 1/5).
DEVIATIONS = 4.1
LEAST_SHARE = 0.5  # of the mean: where seeds differ much the band must still be able to fail
# Of the band's end, where the clock ends training: its learning rate then falls with time, and
# steps of uneven length get other shares of the fall than in the curve. A machine three times
# slower at first than later reached 0.77 of the mean of other seeds.
CLOCK_SHARE = 0.7
PACE_STEPS = 4  # timed, after the number of threads is found


# --- how good ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """Mask AP of trainings that ended after `steps[i]` steps: `ap[i]`, one value per seed."""

    steps: list[int]
    ap: list[list[float]]

    def at(self, steps: int) -> tuple[float, float] | None:
        """(lower end of the band, mean) after `steps`; None where the curve begins later.

        Between two points both follow the straight line, under which no curve falls that
        flattens; after the last one they stay.
        """
        if steps < self.steps[0]:
            return None
        ends = [(self._low(values), statistics.fmean(values)) for values in self.ap]
        last = len(self.steps) - 1
        left = max(k for k, first in enumerate(self.steps) if first <= steps)
        right = min(left + 1, last)
        span = self.steps[right] - self.steps[left]
        share = (steps - self.steps[left]) / span if span else 0.0
        low, mean = (
            (1 - share) * a + share * b for a, b in zip(ends[left], ends[right], strict=True)
        )
        return low, mean

    @staticmethod
    def _low(values: list[float]) -> float:
        mean = statistics.fmean(values)
        return max(mean - DEVIATIONS * statistics.stdev(values), LEAST_SHARE * mean)


def learning_curve() -> Curve:
    """The stored curve of the demo's training."""
    stored = next(file for file in CURVE_FILES if file.is_file())
    points = read_json(stored, "learning curve")["points"]
    return Curve([point["steps"] for point in points], [point["ap"] for point in points])


# --- how long ---------------------------------------------------------------------------------


def pace(recipe: Recipe) -> tuple[float, Threads]:
    """Seconds of a training step here and now, and the number of threads that was quickest.

    A model with fresh weights is trained on four pictures of the overlap world, a few steps.
    """
    config = replace(recipe.model, class_names=shapes.CLASS_NAMES)
    images, truths = zip(*(_picture(k) for k in range(recipe.train.batch_size)), strict=True)
    layout = config.geometry.layout(sizes_px(images))
    batch = Batch(list(images), build_targets(truths, layout, config), [])
    model = build_model(config).to(memory_format=torch.channels_last).train()
    run, threads = Run(model, recipe.train, Path()), Threads(recipe.train.threads)
    seconds: list[float] = []
    run.train_step([batch], recipe.train.lr, time.perf_counter())  # kernels are compiled
    while threads.trying or len(seconds) < PACE_STEPS:
        trial, start = threads.trying, time.perf_counter()
        with threads.timed():
            run.train_step([batch], recipe.train.lr, start)
        if not trial:
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), threads


def _picture(index: int) -> tuple[torch.Tensor, Truth]:
    pixels, masks, labels = shapes.draw(0, "train", index)
    image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255  # (3, H, W)
    boxes, seen = torch.from_numpy(tight_boxes(masks)), torch.from_numpy(masks)
    return image, {"boxes": boxes, "labels": torch.tensor(labels), "masks": seen}
