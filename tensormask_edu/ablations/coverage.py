"""What a second window size changes before anything is learnt: how many windows an object has.

With one size the levels meet exactly under the paper's text: windows of level k take long sides
up to V strides, and those of the next begin where they end. An object just below that length
fits only if a cell lies nearly on its centre: a gap at every octave, which a second size
closes. The official code takes a stride off a window's side before it compares, so its levels
overlap by themselves, and a second size has crowds left to help in, where windows that two
objects claim are lost to both.

next: ablations/summary.py
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from ..config import ModelConfig
from ..data.shapes import STANDARD, World, draw
from ..detector.targets import assign
from ..masks import tight_boxes

PICTURES, SIZE_PX = 150, 64
WORLDS = {
    "standard": STANDARD,
    # Neighbours' windows meet.
    "crowded": World(shapes=(6, 10), centre=(0.35, 0.65)),
    # Shapes lie within each other, their centres nearly on one another.
    "nested": World(shapes=(3, 6), centre=(0.45, 0.55)),
}
RULES: dict[str, Literal["side - stride", "side"]] = {
    "official": "side - stride",
    "paper's text": "side",
}
SIZES = {"7": (7,), "5 and 7": (5, 7)}


def counts(
    world: World, config: ModelConfig, pictures: int = PICTURES, size_px: int = SIZE_PX
) -> dict[str, float]:
    """Windows per object, and the shares of objects without one and with one at most.

    Args:
        config: its geometry and rules are asked; nothing is learnt.
        pictures: of the training split, from the first on.
    """
    layout = config.geometry.layout([(size_px, size_px)])
    windows: list[Tensor] = []
    for box_px in boxes(world, pictures, size_px):
        owner = assign(box_px, config, layout)[:, 1]  # (P,): the object of each positive
        windows.append(owner.bincount(minlength=len(box_px)))  # (G,)
    number = torch.cat(windows)
    return {
        "objects": len(number),
        "windows per object": float(number.float().mean()),
        "without one": float((number == 0).float().mean()),
        "with one at most": float((number <= 1).float().mean()),
    }


def boxes(world: World, pictures: int, size_px: int) -> Iterator[Tensor]:
    """The objects' boxes of each picture that has some: (G, 4) float32 xyxy px."""
    for index in range(pictures):
        _, masks, _ = draw(0, "train", index, size_px, world)
        if len(masks):
            yield torch.from_numpy(tight_boxes(masks))


def all_counts(config: ModelConfig, pictures: int = PICTURES) -> list[dict[str, Any]]:
    """`counts` of every world, rule and choice of sizes, on the levels of a configuration."""
    found = []
    for world_name, world in WORLDS.items():
        for rule_name, rule in RULES.items():
            for sizes_name, sizes in SIZES.items():
                asked = replace(config, sides_bins=sizes, scale_rule=rule)
                names = {"world": world_name, "rule": rule_name, "sizes": sizes_name}
                found.append({**names, **counts(world, asked, pictures)})
    return found
