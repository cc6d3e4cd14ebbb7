"""Many heads on one trunk: a paired difference without the noise of separate trainings.

Backbone, towers, classes and boxes are one network. Each head has a 3x3 block and predictors of
its own, and the mask loss is the mean of theirs. All heads are scored with the same detections,
so where AP differs, masks differ. The trunk is shaped by all heads together, and serves those
that agree with the others best: a head that reads features in another way than most, as nearest
neighbour does, is worse here than alone.

next: ablations/scoring.py
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from ..detector.heads import MaskPredictor, conv_block, start_small
from ..detector.model import TensorMask
from ..detector.network import NetworkOutput
from ..detector.targets import Targets
from ..geometry import Windows
from .tables import Fields


class SharedTrunk(TensorMask):
    """A TensorMask with several mask heads; in evaluation it draws the first one's masks.

    Args:
        config: of the trunk; its windows are those of all heads, it has no bipyramid.
        heads: by name, the fields in which each head's configuration differs.
    """

    def __init__(self, config: ModelConfig, heads: Mapping[str, Fields]) -> None:
        super().__init__(config)
        self.heads = {name: replace(config, **fields) for name, fields in heads.items()}
        self.network.mask_branch.predictors = nn.ModuleList()  # the trunk has none of its own
        width, groups, count = config.mask_channels, config.tower_norm_groups, len(heads)
        # The heads' blocks side by side: one wide convolution is quicker than many.
        self.blocks = nn.Sequential(*conv_block(width, count * width, count * groups))
        self.predictors = nn.ModuleList(
            nn.ModuleList(
                MaskPredictor(width, head.coarse_side(size_id))
                for size_id in range(config.geometry.num_sizes)
            )
            for head in self.heads.values()
        )
        start_small(m for m in self.predictors.modules() if isinstance(m, MaskPredictor))

    def by_head(self, output: NetworkOutput) -> dict[str, NetworkOutput]:
        """What the network says, as each head's own output."""
        # Per level (N, C, H, W) -> (N, heads*C, H, W) -> per head (N, C, H, W)
        wide = [self.blocks(m).chunk(len(self.heads), dim=1) for m in output.mask_features]
        outputs = {}
        for number, (name, head) in enumerate(self.heads.items()):
            predictors = self.predictors[number]
            assert isinstance(predictors, nn.ModuleList)
            outputs[name] = output._replace(
                mask_features=[parts[number] for parts in wide],
                mask_predictors=predictors,
                config=head,
            )
        return outputs

    def mask_loss(self, output: NetworkOutput, targets: Targets, positives: Windows) -> Tensor:
        """The mean of the heads' mask losses."""
        loss = super().mask_loss  # of one head
        outputs = self.by_head(output).values()
        return torch.stack([loss(one, targets, positives) for one in outputs]).mean()
