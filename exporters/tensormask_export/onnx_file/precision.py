"""The model in half precision, with islands of float32.

A strongly typed export: TensorRT 11 and RTX compute each tensor in the type that the file gives
it. Weights and activations of the network are float16. What stays float32, and why:

    pixels       normalisation subtracts means of 100 from values up to 255
    statistics   group normalisation sums up to a million values (`translations.group_norm`)
    detector     candidates, boxes, overlaps: coordinates beyond 2048 px have no float16
    sigmoid      of mask bins, after the detections' own bins are picked

Batch normalisation is folded into the convolution before it in every precision, in float64: its
running variances may lie below the smallest float16, and a file has fewer operators.

next: onnx_file/bodies.py
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from tensormask_edu.detector.model import TensorMask

from ..contract import Precision


def in_precision(model: TensorMask, precision: Precision) -> TensorMask:
    """A copy of `model` in evaluation: batch normalisations folded, network in `precision`."""
    copied = copy.deepcopy(model).eval()
    fold_norms(copied.network)
    if precision == "float16":
        copied.network.half()
    return copied


def fold_norms(module: nn.Module) -> None:
    """Fold every batch normalisation into the convolution before it.

    Frozen or not, as it works in evaluation.
    """
    before: nn.Module | None = None
    for name, part in module.named_children():
        is_norm = isinstance(part, nn.BatchNorm2d | FrozenBatchNorm2d)
        if is_norm and isinstance(before, nn.Conv2d):
            _fold(before, part)
            setattr(module, name, nn.Identity())
        else:
            fold_norms(part)
        before = part


@torch.no_grad()
def _fold(conv: nn.Conv2d, norm: nn.Module) -> None:
    weight, bias, mean, variance = (
        getattr(norm, name).double()
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = weight / (variance + norm.eps).sqrt()  # (C,)
    before = torch.zeros_like(mean) if conv.bias is None else conv.bias.double()
    # norm(w*x + before) = scale * (w*x + before - mean) + bias: the convolution takes it all
    conv.weight = nn.Parameter((conv.weight.double() * scale[:, None, None, None]).float())
    conv.bias = nn.Parameter((bias + (before - mean) * scale).float())
