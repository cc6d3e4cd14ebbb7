"""Image to a pyramid of feature maps: a small or torchvision's residual network, then an FPN.

Two quirks of the official model are kept because its weights depend on them:

- The stride of a ResNet stage sits in its first 1x1 convolution, torchvision's in the 3x3.
  Names and shapes of the weights are the same either way; only the numbers would be wrong.
- The FPN merges by the mean of lateral and upsampled map, "for stability" (paper, section 5).
  torchvision's FPN adds.

next: detector/upsampled.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet50, resnet101
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops import FrozenBatchNorm2d


class TinyBody(nn.Module):
    """Stem and four residual blocks, each halving the grid.

    (N, 3, H, W) -> four maps (N, C, H / s, W / s) of strides s = 4, 8, 16, 32.
    """

    out_channels = (48, 64, 96, 128)

    def __init__(self, stem_channels: int = 24) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            # no bias: BatchNorm adds one of its own
            nn.Conv2d(3, stem_channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(stem_channels),
            nn.ReLU(inplace=True),
        )
        widths = (stem_channels, *self.out_channels)
        self.stages = nn.ModuleList(
            BasicBlock(before, after, stride=2, downsample=shortcut(before, after))
            for before, after in zip(widths, widths[1:], strict=False)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = [self.stem(image)]  # (N, 3, H, W) -> (N, 24, H/2, W/2)
        for stage in self.stages:
            maps.append(stage(maps[-1]))  # (N, C, h, w) -> (N, C', h/2, w/2)
        return maps[1:]  # the pyramid begins at stride 4


def shortcut(before: int, after: int, stride: int = 2) -> nn.Sequential:
    """A block's way around its convolutions, brought to the same channels and grid."""
    return nn.Sequential(
        nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
    )


class ResNetBody(nn.Module):
    """Torchvision's ResNet without its classifier.

    (N, 3, H, W) -> res2 .. res5, strides 4, 8, 16, 32. Normalisation is frozen; stem and res2
    are not trained (as in the official recipe).
    """

    out_channels = (256, 512, 1024, 2048)

    def __init__(self, build: Callable[..., ResNet], stride_in_1x1: bool = True) -> None:
        super().__init__()
        resnet = build(weights=None, norm_layer=FrozenBatchNorm2d)
        self.stem = nn.Sequential(resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool)
        self.stages = nn.ModuleList(
            [resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4]
        )
        if stride_in_1x1:
            for layer in (resnet.layer2, resnet.layer3, resnet.layer4):  # layer1 has no stride
                first: Any = layer[0]  # only a stage's first block has one
                first.conv1.stride, first.conv2.stride = first.conv2.stride, first.conv1.stride
        for frozen in (self.stem, self.stages[0]):
            frozen.requires_grad_(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = [self.stem(image)]  # (N, 3, H, W) -> (N, 64, H/4, W/4)
        for stage in self.stages:
            maps.append(stage(maps[-1]))  # the first keeps the grid, the others halve it
        return maps[1:]


class FeaturePyramid(nn.Module):
    """FPN with mean merges: body maps -> maps of `channels` channels at the same strides.

    Then `num_extra` coarser ones: p6 from the last body map, p7 from ReLU(p6), ...
    """

    def __init__(self, in_channels: tuple[int, ...], channels: int, num_extra: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.outputs = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels
        )
        # p6 reads the body's own channels, what follows reads the pyramid's
        extra_in = (in_channels[-1], *([channels] * num_extra))[:num_extra]
        self.extras = nn.ModuleList(
            nn.Conv2d(c, channels, 3, stride=2, padding=1) for c in extra_in
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        # (N, C_l, H_l, W_l) -> (N, channels, H_l, W_l), per level
        merged = [lateral(m) for lateral, m in zip(self.laterals, maps, strict=True)]
        for fine in range(len(merged) - 2, -1, -1):  # from coarse to fine
            coarser = merged[fine + 1]  # by nearest neighbour (h, w) -> (2h, 2w)
            # the official mean, where FPN sums
            merged[fine] = (merged[fine] + F.interpolate(coarser, scale_factor=2.0)) / 2
        pyramid = [output(m) for output, m in zip(self.outputs, merged, strict=True)]
        coarse = maps[-1]
        for index, extra in enumerate(self.extras):
            # (N, C, h, w) -> (N, channels, h/2, w/2); the body's map has had its ReLU already
            coarse = extra(F.relu(coarse) if index else coarse)
            pyramid.append(coarse)
        return pyramid


class Backbone(nn.Module):
    """Body and FPN: (N, 3, H, W) -> one map (N, channels, H_l, W_l) per level.

    H and W are multiples of the coarsest stride the body is used at, 32 at most.
    """

    def __init__(
        self, name: str, channels: int, num_levels: int, stride_in_1x1: bool = True
    ) -> None:
        super().__init__()
        self.body = TinyBody() if name == "tiny" else ResNetBody(_RESNETS[name], stride_in_1x1)
        self.num_levels = num_levels
        num_body = min(num_levels, 4)  # a body has four maps; what is coarser is added
        self.fpn = FeaturePyramid(
            self.body.out_channels[:num_body], channels, num_levels - num_body
        )
        # Nothing reads the rest, and DistributedDataParallel would wait for their gradients.
        self.body.stages[num_body:].requires_grad_(False)
        if name != "tiny":
            self.fpn.apply(_init_like_caffe2)

    def forward(self, image: Tensor) -> list[Tensor]:
        return self.fpn(self.body(image)[: self.num_levels])


_RESNETS = {"resnet50": resnet50, "resnet101": resnet101}


def _init_like_caffe2(module: nn.Module) -> None:
    """Uniform Kaiming with a = 1 and zero bias: what the official recipe was tuned with."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_uniform_(module.weight, a=1)
        assert module.bias is not None
        nn.init.zeros_(module.bias)
