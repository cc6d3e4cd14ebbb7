"""What each window should say: label, box deltas, mask (paper, section 3.3; rules of the
official code).

A window is positive for an object when it contains its box, is at most about twice as long, is
centred within one unit of the box centre, and no other object claims it too. "About" and the
unit are two fields of the configuration, because the paper and the official code differ there.

next: losses.py
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import roi_align

from .. import masks as rle
from ..config import ModelConfig
from ..geometry import Geometry, Windows
from . import boxes
from .network import WindowMasks

GridSizes = list[tuple[int, int]]


@dataclass(frozen=True)
class Targets:
    """Targets of a batch of N images with M windows each, P of them positive.

    labels: (N, M) int64, the class of a positive window, -1 for a negative one.
    image, window, instance: (P,) int64, position of each positive in its image's list of
    windows.
    deltas: (P, 4) box deltas. masks: bool targets of the positives, grouped by size.
    """

    labels: Tensor
    image: Tensor
    window: Tensor
    instance: Tensor
    deltas: Tensor
    masks: list[WindowMasks]

    def each(self, change: Callable[[Tensor], Tensor]) -> Targets:
        """The same targets with every tensor changed: moved to a device, say."""
        masks = [WindowMasks(change(where), change(values)) for where, values in self.masks]
        names = ("labels", "image", "window", "instance", "deltas")
        return Targets(**{name: change(getattr(self, name)) for name in names}, masks=masks)


def assign(box_px: Tensor, config: ModelConfig, grid_sizes: GridSizes) -> Tensor:
    """Which object each window is positive for.

    Centrality says where to look: only cells within one stride of a box centre can be positive,
    so 4 x 4 cells per object and level are examined, not every window.

    Args:
        box_px: (G, 4) float32 object boxes, xyxy in padded-input pixels.

    Returns:
        (P, 2) int64, rows (window, object) in window order.
    """
    geometry = config.geometry
    centre = (box_px[:, :2] + box_px[:, 2:]) / 2
    longest = (
        (box_px[:, 2:] - box_px[:, :2]).amax(dim=1) if len(box_px) else box_px.new_zeros(0)
    )
    found = []
    for level in range(geometry.num_levels):
        instance, y, x, size_id = _cells_near(centre, geometry, grid_sizes, level)
        window = geometry.window_index(grid_sizes, level, y, x, size_id)
        side = torch.tensor([geometry.side_px(level, a) for a in range(geometry.num_sizes)])
        side = side.to(box_px)[size_id]
        window_centre = torch.stack([x, y], dim=1).to(box_px) * geometry.strides_px[level]
        low, high = window_centre - side[:, None] / 2, window_centre + side[:, None] / 2
        contained = (low <= box_px[instance, :2]).all(1) & (high >= box_px[instance, 2:]).all(1)
        scale = (2 * longest[instance]).clamp(min=config.smallest_scale_px)
        fits = side - config.scale_slack_px(level) <= scale
        distance = (window_centre - centre[instance]).square().sum(1).sqrt()
        central = distance <= config.centrality_px(level)
        positive = contained & fits & central
        found.append(torch.stack([window[positive], instance[positive]], dim=1))
    pairs = torch.cat(found)
    pairs = pairs[pairs[:, 0].argsort(stable=True)]
    _, claim, claims = pairs[:, 0].unique(return_inverse=True, return_counts=True)
    return pairs[claims[claim] == 1]  # claimed twice: negative


def _cells_near(
    centre: Tensor, geometry: Geometry, grid_sizes: GridSizes, level: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(instance, y, x, size_id) of the windows at 4 x 4 cells around each centre, inside the
    grid."""
    rows, columns = grid_sizes[level]
    near = torch.arange(-1, 3, device=centre.device)
    sizes = torch.arange(geometry.num_sizes, device=centre.device)
    instances = torch.arange(len(centre), device=centre.device)
    instance, dy, dx, size_id = torch.meshgrid(instances, near, near, sizes, indexing="ij")
    cell = (centre / geometry.strides_px[level]).floor().long()
    y, x = cell[instance, 1] + dy, cell[instance, 0] + dx
    inside = (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
    return instance[inside], y[inside], x[inside], size_id[inside]


def build_targets(
    instances: list[dict[str, Any]],
    windows: Windows,
    grid_sizes: GridSizes,
    config: ModelConfig,
) -> Targets:
    """Targets for a batch. `instances`: per image a dict of `boxes` (G, 4) xyxy pixels,
    `labels` (G,) and `polygons` (per object a list of [x0, y0, x1, y1, ...] arrays) or `masks`
    (G, H, W) bool."""
    geometry = config.geometry
    labels, image, pairs, deltas = [], [], [], []
    for number, target in enumerate(instances):
        pair = assign(target["boxes"].float(), config, grid_sizes)
        label = torch.full((len(windows),), -1, dtype=torch.int64, device=windows.level.device)
        label[pair[:, 0]] = target["labels"][pair[:, 1]]
        labels.append(label)
        image.append(torch.full_like(pair[:, 0], number))
        pairs.append(pair)
        box = target["boxes"].float()[pair[:, 1]]
        deltas.append(boxes.encode(windows.box_px[pair[:, 0]], box, config.box_weights))
    window, instance = torch.cat(pairs).unbind(1)
    image_of = torch.cat(image)
    masks = mask_targets(instances, image_of, instance, windows[window], geometry)
    return Targets(torch.stack(labels), image_of, window, instance, torch.cat(deltas), masks)


def mask_targets(
    instances: list[dict[str, Any]],
    image: Tensor,
    instance: Tensor,
    windows: Windows,
    geometry: Geometry,
) -> list[WindowMasks]:
    """Each window's view of its object's mask: bool, side x side bins, grouped by window size.

    Args:
        image, instance: (P,) int64, which object of which image each of the P windows looks at.
    """
    masks = []
    for level, size_id, where in windows.groups():
        side = geometry.side_bins(level, size_id)
        values = torch.zeros(len(where), side, side, dtype=torch.bool, device=where.device)
        for number in image[where].unique().tolist():
            rows = (image[where] == number).nonzero().squeeze(1)
            at = where[rows]
            values[rows] = _crop(instances[number], instance[at], windows.box_px[at], side)
        masks.append(WindowMasks(where, values))
    return masks


def _crop(target: dict[str, Any], instance: Tensor, window_px: Tensor, side: int) -> Tensor:
    if "polygons" in target:
        polygons = [target["polygons"][g] for g in instance.tolist()]
        drawn = [
            draw_polygons(p, w, side) for p, w in zip(polygons, window_px.tolist(), strict=True)
        ]
        return torch.from_numpy(np.stack(drawn)).to(window_px.device)
    return crop_masks(target["masks"], instance, window_px, side)


def crop_masks(masks: Tensor, instance: Tensor, window_px: Tensor, side: int) -> Tensor:
    """Bool masks (G, H, W) seen through windows (P, 4) of objects `instance` (P,): (P, side,
    side) bool.

    A bin is set when at least half of it is covered (ROIAlign's average, as the official
    code)."""
    used, row = instance.unique(return_inverse=True)
    rois = torch.cat([row[:, None].to(window_px), window_px], dim=1)
    cover = roi_align(masks[used].to(window_px)[:, None], rois, side, aligned=True)
    return cover.squeeze(1) >= 0.5


def draw_polygons(polygons: list[Any], window_px: list[float], side: int) -> np.ndarray:
    """The union of polygons [x0, y0, x1, y1, ...] drawn on the window's bins by COCO's
    rasteriser: (side, side) bool."""
    x0, y0, x1, y1 = window_px
    scale = [side / max(x1 - x0, 0.1), side / max(y1 - y0, 0.1)]
    flat = [
        ((np.asarray(p, float).reshape(-1, 2) - [x0, y0]) * scale).ravel().tolist()
        for p in polygons
    ]
    return rle.draw(flat, (side, side))
