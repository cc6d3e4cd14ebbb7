"""The network of the paper: image in; class logits, box deltas and mask features out.

It knows neither losses nor targets, so a lesson or an exporter can hold it without training
code. Parts in order: what it returns, the whole (paper, sections 4 and 5), windows in a row.

next: detector/targets.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from ..geometry import Windows
from ..ops import Rule, resample, resample_windows
from .backbone import Backbone
from .heads import MaskBranch, MaskPredictor, picked, start_small, tower


class NetworkOutput(NamedTuple):
    """What the network says about a batch, in lists over levels.

    N images, A window sizes, K classes, grids of (H_l, W_l) cells.

    features: (N, C, H_l, W_l) of the feature pyramid.
    logits: (N, A*K, H_l, W_l), channel a*K + k.
    deltas: (N, A*4, H_l, W_l), channel a*4 + (dx, dy, dw, dh), weighted as the box loss wants
        them.
    mask_features: (N, C, H, W), what the 1x1 mask predictors read. In the bipyramid every level
        has the finest grid (H_0, W_0).
    mask_predictors: one `MaskPredictor` per window size.
    config: whose head the predictors are, so how what they say becomes natural masks.
    read: per level the numbers (n,) of the images that deltas and mask features are about,
        ascending; None: all N of them.
    """

    features: list[Tensor]
    logits: list[Tensor]
    deltas: list[Tensor]
    mask_features: list[Tensor]
    mask_predictors: nn.ModuleList
    config: ModelConfig
    read: list[Tensor] | None = None

    def row(self, level: int, image: Tensor) -> Tensor:
        """Where images (P,) of the batch stand in the level's deltas and mask features."""
        return image if self.read is None else torch.searchsorted(self.read[level], image)

    def predicted(self, level: int, size_id: int) -> Tensor:
        """The mask logits as predicted, (N, V, U, H, W): aligned, or natural for such a head.

        They come of a convolution, done anew at each call: at 800 x 1344 px all levels and
        sizes are half a gigabyte per image, so each is predicted where it is used, and dropped.
        """
        logits: Tensor = self.mask_predictors[size_id](self.mask_features[level])
        return logits

    def predicted_at(self, level: int, size_id: int, index: Tensor) -> Tensor:
        """The same at the cells `index` (P, 3) alone, rows (n, y, x): (P, V, U)."""
        by_cell = self.mask_features[level].permute(0, 2, 3, 1)  # (N, H, W, C)
        features = by_cell[index.unbind(1)]  # (P, C)
        predictor = self.mask_predictors[size_id]
        assert isinstance(predictor, MaskPredictor)
        return predictor.at_cells(features)

    def of_image(self, number: int) -> NetworkOutput:
        """The part about one image of the batch, as a batch of one."""
        lists = (self.features, self.logits, self.deltas, self.mask_features)
        features, logits, deltas, masks = (
            [m[number : number + 1] for m in maps]  # (N, C, H_l, W_l) -> (1, C, H_l, W_l)
            for maps in lists
        )
        return NetworkOutput(features, logits, deltas, masks, self.mask_predictors, self.config)

    def head(self, level: int, size_id: int) -> tuple[tuple[int, int], Rule]:
        """What `resample` must know: the windows' finished bins (V', U'), and the rule."""
        rule = Rule(*self.config.head_rule(level))
        return self.config.geometry.mask_bins(level, size_id), rule


class WindowMasks(NamedTuple):
    """Masks of the windows that share one size.

    where: (P,) their positions in the list asked for.
    values: (P, V, U), logits or targets.
    """

    where: Tensor
    values: Tensor


class TensorMaskNet(nn.Module):
    """Backbone and the three branches: (N, 3, H, W) normalised image -> `NetworkOutput`.

    H and W are multiples of `geometry.padding_px`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        num_sizes, fpn = config.geometry.num_sizes, config.fpn_channels
        num_levels, num_classes = config.geometry.num_levels, config.num_classes
        convs, groups = config.tower_convs, config.tower_norm_groups
        box_channels, class_channels = config.box_channels, config.class_channels
        self.backbone = Backbone(config.backbone, fpn, num_levels, config.stride_in_1x1)
        # The attributes' names are the checkpoints'; their order is that of the random draws.
        self.class_tower = tower(fpn, class_channels, convs, groups)
        self.class_predictor = nn.Conv2d(class_channels, num_sizes * num_classes, 3, padding=1)
        self.box_tower = tower(fpn, box_channels, convs, groups)
        self.box_predictor = nn.Conv2d(box_channels, num_sizes * 4, 3, padding=1)
        self.mask_branch = MaskBranch(config)
        self._init_heads()

    def _init_heads(self) -> None:
        """Predictors start small, and so do the towers where nothing normalises them."""
        start_small([self.class_predictor, self.box_predictor, *self.mask_branch.predictors])
        if not self.config.tower_norm_groups:
            heads = [self.class_tower, self.box_tower, self.mask_branch]
            start_small(m for head in heads for m in head.modules() if isinstance(m, nn.Conv2d))
        # At first every class has the prior probability, so that the many negatives do not
        # swamp the first steps.
        nn.init.constant_(self.class_predictor.get_parameter("bias"), self.config.prior_bias)

    def forward(self, image: Tensor, read: list[Tensor] | None = None) -> NetworkOutput:
        """Say everything about a batch, or what a loss reads of it.

        Args:
            read: per level the numbers of the images whose boxes and masks are wanted there,
                ascending; None: all.
        """
        features = self.backbone(image)  # (N, 3, H, W) -> per level (N, C, H_l, W_l)
        for_boxes = [picked(f, read, level) for level, f in enumerate(features)]
        return NetworkOutput(
            features=features,
            # The same weights on all levels: towers and predictors are shared.
            logits=[self.class_predictor(self.class_tower(f)) for f in features],
            deltas=[self.box_predictor(self.box_tower(f)) for f in for_boxes],
            mask_features=self.mask_branch(features, read),
            mask_predictors=self.mask_branch.predictors,
            config=self.config,
            read=read,
        )

    def natural(self, output: NetworkOutput) -> list[list[Tensor]]:
        """All natural mask logits, per level and size (N, V', U', H_l, W_l).

        For study and export: training and inference evaluate just the windows they need.
        """
        geometry, pad_value = output.config.geometry, output.config.pad_value
        return [
            [
                # (N, V, U, H, W) as predicted -> (N, V', U', H_l, W_l)
                resample(
                    output.predicted(level, size_id), *output.head(level, size_id), pad_value
                )
                for size_id in range(geometry.num_sizes)
            ]
            for level in range(geometry.num_levels)
        ]

    def mask_logits(
        self, output: NetworkOutput, image: Tensor, windows: Windows, at_once: int | None = None
    ) -> Iterator[WindowMasks]:
        """The natural mask logits of P chosen windows, the same numbers as in `natural`.

        One group after the other, so that a single predicted tensor lives at a time.

        Args:
            image: (P,) int64, which image of the batch each window belongs to.
            windows: the P windows.
            at_once: groups are handed out in pieces of at most so many windows.
        """
        for level, size_id, where in windows.groups():
            masks_at = _reader(output, level, size_id)
            for part in where.split(at_once or len(where)):
                row = output.row(level, image[part])
                place = [row, windows.y[part], windows.x[part]]
                index = torch.stack(place, dim=1)  # three times (p,) -> (p, 3)
                # (p, V', U') a piece; no name here keeps it alive
                yield WindowMasks(part, masks_at(index))
            del masks_at  # and what it holds, before the next one is made

    def deltas_of(self, output: NetworkOutput, image: Tensor, windows: Windows) -> Tensor:
        """The box deltas (P, 4) of P chosen windows; image: (P,), as for `mask_logits`."""
        places = output.deltas[0].new_zeros(len(windows), 4)
        for level, deltas in enumerate(output.deltas):
            where = (windows.level == level).nonzero().squeeze(1)  # (p,)
            row, y, x = output.row(level, image[where]), windows.y[where], windows.x[where]
            by_size = deltas.unflatten(1, (-1, 4))  # (n, A, 4, H_l, W_l)
            places[where] = by_size[row, windows.size_id[where], :, y, x]  # (p, 4)
        return places


def _reader(output: NetworkOutput, level: int, size_id: int) -> Callable[[Tensor], Tensor]:
    """A function from cells (p, 3), rows (n, y, x), to their natural masks (p, V', U')."""
    (bins, rule), pad_value = output.head(level, size_id), output.config.pad_value
    if output.config.representation == "aligned":
        predicted = output.predicted(level, size_id)  # (N, V, U, H, W)
        return partial(resample_windows, predicted, bins, rule, pad_value=pad_value)

    def natural_at(index: Tensor) -> Tensor:
        # A natural mask lies whole at its own cell: no other is predicted. Each is a grid
        # of one cell.
        predicted = output.predicted_at(level, size_id, index)[..., None, None]
        natural = resample(predicted, bins, rule, pad_value)
        return natural.flatten(2)  # (p, V', U', 1, 1) -> (p, V', U')

    return natural_at


def per_window(maps: list[Tensor], num_sizes: int) -> Tensor:
    """Level maps (N, A*C, H_l, W_l) -> (N, M, C) in the window order of `Geometry.windows`."""
    rows = []
    for m in maps:
        by_cell = m.permute(0, 2, 3, 1).flatten(1, 2)  # (N, H_l*W_l, A*C)
        # The window order is y, x, size: -> (N, H_l*W_l, A, C) -> (N, H_l*W_l*A, C)
        rows.append(by_cell.unflatten(2, (num_sizes, -1)).flatten(1, 2))
    return torch.cat(rows, dim=1)  # (N, M, C)
