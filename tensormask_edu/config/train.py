"""How a model is trained.

next: config/presets.py
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from ..base.errors import require
from .images import AugmentConfig

# The network runs in this type; weights, boxes, scores and losses stay float32. The names are
# also PyTorch's.
Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
SEEDS = 2**63  # beyond that no generator of PyTorch goes

BadPictures = Literal["stop", "skip"]


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained.

    The schedule ends at `steps`, or at `minutes` if that comes first.
    """

    steps: int = 4000
    minutes: float | None = None
    batch_size: int = 4  # of all processes together
    accumulate: int = 1  # parts in which a process takes its share: less memory, the same step
    optimizer: Literal["adamw", "sgd"] = "adamw"  # sgd with momentum 0.9
    lr: float = 4e-3
    weight_decay: float = 1e-2  # 0 on normalisation parameters ...
    decay_biases: bool = False  # ... and on biases, but for the official recipe
    warmup: float = 0.1  # fraction of the schedule, linear ...
    warmup_start: float = 0.0  # ... from this part of lr
    # lr falls to a tenth at these fractions; none: a cosine to 0
    decay_at: tuple[float, ...] = ()
    clip_norm: float | None = 1.0
    precision: Precision | None = "float32"  # None: what trains a small model quickest here
    seed: int = 0
    log_every: int = 20
    save_every: int = 1000
    augment: AugmentConfig = AugmentConfig()

    # Data
    polygons: bool = False  # mask targets drawn from polygons (official), else from bitmaps
    group_by_aspect: bool = False  # wide pictures with wide ones, tall with tall: less padding
    bad_pictures: BadPictures = "stop"  # that cannot be read; skip: the next one instead
    cache: bool = True  # keep decoded pictures in memory, a quarter of what is free ...
    cache_mb: int | None = None  # ... or so many MB of all processes together; 0: none
    workers: int | None = None  # processes that prepare batches; None: 0 on a CPU, 4 on a GPU
    # of the CPU; None: as many as turn out quickest (base/threads.py). A run repeats bit for
    # bit only with the same number of them.
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "log_every", "save_every"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        allowed = self.minutes is None or 0 < self.minutes < math.inf
        require(allowed, "minutes", "a positive number", self.minutes)
        allowed = 0 <= self.seed < SEEDS
        require(allowed, "seed", f"from 0 to {SEEDS - 1}", self.seed)
        allowed = self.cache_mb is None or self.cache_mb >= 0
        require(allowed, "cache_mb", "at least 0", self.cache_mb)
        require(0 < self.lr < math.inf, "lr", "a positive number", self.lr)
        known = self.optimizer in ("adamw", "sgd")
        require(known, "optimizer", "adamw or sgd", self.optimizer)
        known = self.precision is None or self.precision in PRECISIONS
        require(known, "precision", ", ".join(PRECISIONS), self.precision)
        known = self.bad_pictures in get_args(BadPictures)
        require(known, "bad_pictures", "stop or skip", self.bad_pictures)
        fractions = all(0 < fraction < 1 for fraction in self.decay_at)
        rising = fractions and list(self.decay_at) == sorted(self.decay_at)
        require(rising, "decay_at", "rising fractions between 0 and 1", self.decay_at)
        require(0 <= self.warmup < 1, "warmup", "a fraction below 1", self.warmup)
        positive = self.clip_norm is None or self.clip_norm > 0
        require(positive, "clip_norm", "a positive number or None", self.clip_norm)
        allowed = self.workers is None or self.workers >= 0
        require(allowed, "workers", "at least 0", self.workers)
        allowed = self.threads is None or self.threads >= 1
        require(allowed, "threads", "at least 1", self.threads)
