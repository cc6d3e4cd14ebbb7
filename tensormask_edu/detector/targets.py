"""What each window should say: label, box deltas, mask (section 4; the official rules).

A window is positive for an object when it contains its box, is at most about twice as long, is
centred within one unit of the box centre, and no other object claims it too. "About" and the
unit are two fields of the configuration, because the paper and the official code differ there.

next: detector/losses.py
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import roi_align

from ..config import ModelConfig
from ..data.truth import Truth
from ..geometry import Geometry, Layout, Windows
from ..masks import draw
from . import boxes
from .network import WindowMasks

Bins = tuple[int, int]  # (V, U) of a window's mask


@dataclass(frozen=True)
class Targets:
    """Targets of a batch of N images with M windows each, P of them positive.

    labels: (N, M) int64, the class of a positive window, -1 for a negative one.
    image, window, instance: (P,) int64, which image each positive is in, its position in the
        image's list of windows, and its object.
    deltas: (P, 4) box deltas.
    masks: bool targets of the positives, grouped by size.
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


def build_targets(truths: Sequence[Truth], layout: Layout, config: ModelConfig) -> Targets:
    """Targets for a batch, from the truth of each image and where the batch's windows lie.

    Args:
        truths: per image its objects' boxes, labels and masks; see `data/truth.py`.
    """
    windows, counts = layout.windows, [len(truth["boxes"]) for truth in truths]
    # All objects of the batch in a row: (G, 4), and which image each is of, (G,)
    box_px = torch.cat([truth["boxes"].float() for truth in truths])
    of = torch.arange(len(truths)).repeat_interleave(torch.tensor(counts)).to(box_px.device)
    window, thing = assign(box_px, config, layout, of).unbind(1)  # (P, 2) -> twice (P,)
    image = of[thing]
    labels = torch.full((len(truths), len(windows)), -1, device=box_px.device)
    # Every window is negative, unless ...
    labels[image, window] = torch.cat([truth["labels"] for truth in truths])[thing]
    deltas = boxes.encode(windows.box_px[window], box_px[thing], config.box_weights)  # (P, 4)
    # An object's place in the batch, less the objects of the images before
    before = torch.tensor(counts).cumsum(0) - torch.tensor(counts)  # (N,)
    instance = thing - before.to(image.device)[image]
    masks = mask_targets(truths, image, instance, windows[window], config.geometry)
    return Targets(labels, image, window, instance, deltas, masks)


def assign(
    box_px: Tensor, config: ModelConfig, layout: Layout, image: Tensor | None = None
) -> Tensor:
    """Which object each window is positive for.

    Centrality says where to look: only cells within one stride of a box centre can be positive,
    so 4 x 4 cells per object and level are examined, not every window.

    Args:
        box_px: (G, 4) float32 object boxes, xyxy in padded-input pixels.
        image: (G,) int64, which image of a batch each object is of; None: they are of one.

    Returns:
        (P, 2) int64, rows (window, object), image after image, each in window order.
    """
    low_px, high_px = box_px[:, :2], box_px[:, 2:]  # (G, 4) -> twice (G, 2)
    # (G, 2) -> (G,); without objects amax has nothing to choose from
    longest = (high_px - low_px).amax(dim=1) if len(box_px) else box_px.new_zeros(0)
    # Q windows are asked; all tensors below are (Q,), and (Q, 2) for points
    window, instance = _windows_near((low_px + high_px) / 2, config.geometry, layout)
    low, high = layout.windows.box_px[window].split(2, dim=1)
    low_px, high_px = low_px[instance], high_px[instance]
    contained = (low <= low_px).all(1) & (high >= high_px).all(1)
    level = layout.windows.level[window]
    slack, unit = (
        torch.tensor([rule(k) for k in range(config.geometry.num_levels)]).to(box_px)[level]
        for rule in (config.scale_slack_px, config.centrality_px)
    )
    # The smallest windows take even smaller objects, which would have none otherwise.
    scale = (2 * longest[instance]).clamp(min=config.smallest_scale_px)
    fits = (high - low).amax(1) - slack <= scale  # the window's longer side
    apart = (low + high) / 2 - (low_px + high_px) / 2
    positive = contained & fits & (apart.square().sum(1).sqrt() <= unit)
    pairs = torch.stack([window[positive], instance[positive]], dim=1)  # (P', 2)
    # The windows of a batch, numbered through: those of image 1 follow those of image 0.
    first = 0 if image is None else image[pairs[:, 1]] * len(layout.windows)
    number, order = (pairs[:, 0] + first).sort(stable=True)  # (P',) each
    _, claim, claims = number.unique_consecutive(return_inverse=True, return_counts=True)
    return pairs[order][claims[claim] == 1]  # claimed twice: negative


def _windows_near(centre: Tensor, geometry: Geometry, layout: Layout) -> tuple[Tensor, Tensor]:
    """(window, instance), (Q,) each: the windows at 4 x 4 cells around each centre (G, 2).

    Those outside the grid are left out.
    """
    device = centre.device
    rows, columns = torch.tensor(layout.grid_sizes, device=device).unbind(1)  # (L,) each
    instance, level, dy, dx, size_id = torch.meshgrid(  # each (G, L, 4, 4, A)
        torch.arange(len(centre), device=device),
        torch.arange(geometry.num_levels, device=device),
        # Counted from the cell at or before the centre: one more before it, two after it.
        # Nothing farther lies within a stride.
        torch.arange(-1, 3, device=device),
        torch.arange(-1, 3, device=device),
        torch.arange(geometry.num_sizes, device=device),
        indexing="ij",
    )
    strides = torch.tensor(geometry.strides_px, device=device)
    cell = (centre[:, None] / strides[:, None]).floor().long()  # (G, L, 2): x, y
    x, y = (cell[instance, level] + torch.stack([dx, dy], dim=-1)).unbind(-1)
    inside = (y >= 0) & (y < rows[level]) & (x >= 0) & (x < columns[level])
    place = (m[inside] for m in (level, y, x, size_id))  # (Q,) each
    return geometry.window_index(layout.grid_sizes, *place), instance[inside]


def mask_targets(
    truths: Sequence[Truth],
    image: Tensor,
    instance: Tensor,
    windows: Windows,
    geometry: Geometry,
) -> list[WindowMasks]:
    """Each window's view of its object's mask: bool, V x U bins, grouped by window size.

    Args:
        image, instance: (P,) int64, which object of which image each of the P windows looks at.
    """
    with_polygons = torch.tensor(["polygons" in truth for truth in truths], device=image.device)
    masks = []
    for level, size_id, where in windows.groups():  # where: (p,), the windows of this size
        bins = geometry.mask_bins(level, size_id)
        values = torch.zeros(len(where), *bins, dtype=torch.bool, device=where.device)
        drawn = with_polygons[image[where]]  # (p,)
        for crop, rows in ((_crop_polygons, drawn), (_crop_masks, ~drawn)):
            if rows.any():
                at = where[rows]
                values[rows] = crop(truths, image[at], instance[at], windows.box_px[at], bins)
        masks.append(WindowMasks(where, values))  # (p,), (p, V, U)
    return masks


def _crop_masks(
    truths: Sequence[Truth], image: Tensor, instance: Tensor, window_px: Tensor, bins: Bins
) -> Tensor:
    """Objects (p,) of images (p,) through windows (p, 4): bool (p, V, U)."""
    # The masks that are looked at, of all images: (G', H, W) where their sizes are one.
    pairs, row = torch.stack([image, instance], dim=1).unique(dim=0, return_inverse=True)
    used = [
        truths[number]["masks"][pairs[pairs[:, 0] == number, 1]]
        for number in pairs[:, 0].unique().tolist()
    ]
    if len({masks.shape[1:] for masks in used}) == 1:
        return crop_masks(torch.cat(used), row, window_px, bins)
    seen = torch.zeros(len(row), *bins, dtype=torch.bool, device=row.device)
    first = 0
    for masks in used:
        mine = (row >= first) & (row < first + len(masks))
        seen[mine] = crop_masks(masks, row[mine] - first, window_px[mine], bins)
        first += len(masks)
    return seen


def _crop_polygons(
    truths: Sequence[Truth], image: Tensor, instance: Tensor, window_px: Tensor, bins: Bins
) -> Tensor:
    """The same from polygons, which are drawn on the bins."""
    places = zip(image.tolist(), instance.tolist(), window_px.tolist(), strict=True)
    drawn = [draw_polygons(truths[n]["polygons"][k], box, bins) for n, k, box in places]
    return torch.from_numpy(np.stack(drawn)).to(window_px.device)


def crop_masks(masks: Tensor, instance: Tensor, window_px: Tensor, bins: Bins) -> Tensor:
    """Bool masks (G, H, W) of objects (P,) seen through windows (P, 4): (P, V, U) bool.

    A bin is set when at least half of it is covered (ROIAlign's average, as the official
    code).
    """
    used, row = instance.unique(return_inverse=True)  # float copies of the used masks only
    rois = torch.cat([row[:, None].to(window_px), window_px], dim=1)  # (P, 5): mask, xyxy
    cover = roi_align(masks[used].to(window_px)[:, None], rois, bins, aligned=True)
    return cover.squeeze(1) >= 0.5  # (P, 1, V, U) -> (P, V, U)


def draw_polygons(polygons: list[Any], window_px: list[float], bins: Bins) -> np.ndarray:
    """The union of polygons [x0, y0, x1, y1, ...] on the window's bins: (V, U) bool.

    COCO's rasteriser draws them.
    """
    x0, y0, x1, y1 = window_px
    # The official code's guard against empty boxes; a window never is one.
    scale = [bins[1] / max(x1 - x0, 0.1), bins[0] / max(y1 - y0, 0.1)]
    flat = [
        # points (n, 2) from pixels to bins, then flat again (2n,)
        ((np.asarray(p, float).reshape(-1, 2) - [x0, y0]) * scale).ravel().tolist()
        for p in polygons
    ]
    return draw(flat, bins)
