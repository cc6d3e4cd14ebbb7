"""How much is spent: pictures, steps, and the small model that all rows have in common.

A budget is in steps. CPU seconds stand beside its results: on another machine they are others,
the figures are the same.

next: ablations/trunk.py
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ..base.errors import bad_input
from ..config import RECIPES, InputConfig, ModelConfig, Recipe, TrainConfig
from ..data.coco import CocoFolder
from ..data.shapes import World, write_shapes
from ..evaluation.coco_scores import AreaRanges
from .tables import HEAD_SIDE_BINS, Fields

# One class: AP then says something after some hundred steps, with four it takes thousands.
WORLD = World(one_class=True)
FINEST_PX = 4


@dataclass(frozen=True)
class Budget:
    """Pictures and steps.

    size_px: of the overlap world's pictures. train, val: how many. channels: of the pyramid and
    the towers. share: heads are trained on one trunk, else each model by itself.
    """

    name: str
    steps: int
    size_px: int
    train: int
    val: int
    batch_size: int = 4
    channels: int = 32
    share: bool = False

    @property
    def areas(self) -> AreaRanges:
        """What small, medium and large objects are: squares of 14 and 28 px at 64 px."""
        medium, large = ((px * self.size_px // 64) ** 2 for px in (14, 28))
        return {"small": (0, medium), "medium": (medium, large), "large": (large, 1e10)}

    def model(self, fields: Fields) -> ModelConfig:
        """The common model with a row's fields.

        Heads have the levels on which windows of 15 bins reach the picture's side; smaller
        windows get a level more.
        """
        levels = (self.size_px // 16).bit_length()
        if fields["sides_bins"] == (HEAD_SIDE_BINS,):
            levels -= 1
        width = self.channels
        return ModelConfig(
            preset="mini",
            strides_px=tuple(FINEST_PX * 2**k for k in range(levels)),
            fpn_channels=width,
            class_channels=width,
            box_channels=width,
            mask_channels=width,
            **fields,
        )

    def recipe(self, model: ModelConfig, seed: int) -> Recipe:
        """How each model is trained: as `shapes`, but for length and size."""
        shapes: TrainConfig = RECIPES["shapes"].train
        train = replace(
            shapes,
            steps=self.steps,
            batch_size=self.batch_size,
            seed=seed,
            save_every=200,
            threads=1,  # runs share the cores, one thread each
            precision="float32",  # on every processor, as in the stored tables
        )
        return Recipe(model, InputConfig(), train)

    def write_pictures(self, folder: Path, progress: bool = True) -> Path:
        """Draw the pictures if they are not there; the same for every row and seed."""
        place = folder / f"shapes-{self.size_px}px-{self.train}"
        if not (place / "instances_val.json").is_file():  # which is written last
            write_shapes(
                place, self.train, self.val, self.size_px, progress=progress, world=WORLD
            )
        return place

    def held_out(self, folder: Path) -> CocoFolder:
        """The held-out pictures of what `write_pictures` wrote."""
        return CocoFolder(folder, "val", keep_empty=True, cache=True)


BUDGETS = {
    budget.name: budget
    for budget in (
        # Eleven heads on one trunk: for a lesson, and to see that all works
        Budget("lesson", steps=700, size_px=64, train=3000, val=200, share=True),
        # The paper's form, each model by itself. Masks of the bipyramid stay on a plateau for
        # 400 steps.
        Budget("laptop", steps=1200, size_px=64, train=3000, val=200),
        Budget("gpu", steps=4000, size_px=128, train=4000, val=400, batch_size=8, channels=48),
    )
}


def budget(name: str, steps: int | None = None, share: bool | None = None) -> Budget:
    """The budget of that name, with other steps or the other form if asked for."""
    if name not in BUDGETS:
        raise bad_input("budget", f"one of {', '.join(BUDGETS)}", repr(name))
    found = BUDGETS[name]
    found = replace(found, steps=found.steps if steps is None else steps)
    return replace(found, share=found.share if share is None else share)
