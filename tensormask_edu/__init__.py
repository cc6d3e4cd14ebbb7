"""TensorMask (Chen, Girshick, He, Dollár 2019): learn, train, check.

Public names load when they are asked for. Importing this package loads nothing else;
`tensormask_edu.reference` needs NumPy, the operators add PyTorch, the detector torchvision.

next: geometry.py
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import ModelConfig as ModelConfig
    from .config import Recipe as Recipe
    from .data.coco import CocoFolder as CocoFolder
    from .detector.model import TensorMask as TensorMask
    from .detector.model import build_model as build_model
    from .evaluation.coco_scores import evaluate as evaluate
    from .geometry import Geometry as Geometry
    from .ops.swap_align2nat import swap_align2nat as swap_align2nat
    from .training.train import train as train
    from .weights.checkpoint import load_checkpoint as load_checkpoint
    from .weights.checkpoint import save_checkpoint as save_checkpoint
    from .weights.shipped import list_models as list_models

__version__ = "0.1.0"

_PUBLIC = {
    "CocoFolder": "data.coco",
    "Geometry": "geometry",
    "ModelConfig": "config",
    "Recipe": "config",
    "TensorMask": "detector.model",
    "build_model": "detector.model",
    "evaluate": "evaluation.coco_scores",
    "list_models": "weights.shipped",
    "load_checkpoint": "weights.checkpoint",
    "save_checkpoint": "weights.checkpoint",
    "swap_align2nat": "ops",
    "train": "training.train",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    """A public name, from the module that defines it."""
    if name in _PUBLIC:
        return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
