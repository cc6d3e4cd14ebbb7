"""The learning rate over a run, the optimizer it is given to, and what the network computes in.

next: training/batches.py
"""

from __future__ import annotations

import math

import torch
from torch import nn

from ..base.machine import multiplies_bfloat16
from ..config import Precision, TrainConfig


def lr_at(progress: float, config: TrainConfig) -> float:
    """Learning rate at `progress` in [0, 1]: linear warm-up, then steps or a cosine."""
    if progress < config.warmup:
        start = config.warmup_start
        return config.lr * (start + (1 - start) * progress / config.warmup)
    if config.decay_at:
        return config.lr * 0.1 ** sum(progress >= fraction for fraction in config.decay_at)
    done = min(1.0, (progress - config.warmup) / (1 - config.warmup))
    return config.lr * 0.5 * (1 + math.cos(math.pi * done))


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW or SGD, in two groups: what weight decay pulls to zero, and what it spares.

    Spared are normalisation parameters and, unless `decay_biases`, biases.
    """
    norms = {
        parameter
        for module in model.modules()
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm)
        for parameter in module.parameters()
    }
    trained = [p for p in model.parameters() if p.requires_grad]
    # Outside the normalisations what has one axis is a bias.
    spared = {p for p in trained if p in norms or (p.ndim == 1 and not config.decay_biases)}
    decayed = [p for p in trained if p not in spared]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p in spared], "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9)
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


def precision_on(device: torch.device, config: TrainConfig) -> Precision:
    """The configured precision; left open, bfloat16 on a CPU that multiplies it, else float32.

    A step of `shapes` takes 0.75 times as long there, and AP is higher after the same seconds.
    """
    native = device.type == "cpu" and multiplies_bfloat16()
    return config.precision or ("bfloat16" if native else "float32")
