"""What each table compares: models by name, differences between them, the paper's numbers.

A model is a few fields of the configuration on top of what all have in common (`budget.py`).
Two tables may name the same model: it is trained once. The paper's values are mask AP on COCO
val2017 of R50-FPN after 72 epochs, as in its arXiv version.

The tables `ancestors` and `roi` compare other detectors, which `DETECTORS` of `runs.py` trains.

next: ablations/budget.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..base.errors import bad_input

Fields = dict[str, Any]  # of a `ModelConfig`
HEAD_SIDE_BINS = 15  # of the windows of tables 1, 2a and 2b, as in the paper
LAMS = (1.0, 1.5, 3.0, 5.0)  # upscaling of the paper's tables 2a and 2b; 1: the simple heads


def _head(representation: str, lam: float, interpolation: str = "bilinear") -> Fields:
    # Beyond its border an aligned mask is padded as in the bipyramid; a natural mask's border
    # is the window's own, where nothing else is known.
    edge = "pad" if representation == "aligned" else "clamp"
    names = {"representation": representation, "interpolation": interpolation, "edge": edge}
    return {**names, "upscale": lam, "bipyramid": False, "sides_bins": (HEAD_SIDE_BINS,)}


# All of these can share one trunk.
HEADS: dict[str, Fields] = {
    **{f"{name} {lam:g}": _head(name, lam) for lam in LAMS for name in ("aligned", "natural")},
    **{f"nearest {lam:g}": _head("aligned", lam, "nearest") for lam in LAMS[1:]},
}

# Smaller windows and a level more; where the levels meet matters here
PYRAMIDS: dict[str, Fields] = {
    "feature pyramid": {"sides_bins": (5, 7), "bipyramid": False},
    "bipyramid": {"sides_bins": (5, 7)},
    "one size": {"sides_bins": (7,)},
    "two sizes, paper's rule": {"sides_bins": (5, 7), "scale_rule": "side"},
    "one size, paper's rule": {"sides_bins": (7,), "scale_rule": "side"},
}

MODELS: dict[str, Fields] = HEADS | PYRAMIDS


@dataclass(frozen=True)
class Contrast:
    """One model against another: `better` less `other`.

    paper: the paper's difference in mask AP, points; None: it has none.
    """

    name: str
    better: str
    other: str
    paper: float | None


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    judged: the score that tells most here; AP stands beside it.
    paper: mask AP of its rows, where the paper says it.
    """

    name: str
    question: str
    differences: tuple[Contrast, ...]
    paper: dict[str, float]
    judged: str = "IoU"

    @property
    def rows(self) -> tuple[str, ...]:
        """Models by name, each once."""
        pairs = ((d.other, d.better) for d in self.differences)
        return tuple(dict.fromkeys(name for pair in pairs for name in pair))

    @property
    def shared(self) -> bool:
        """Whether all rows are heads, which can share one trunk."""
        return set(self.rows) <= set(HEADS)


def _differences(better: str, other: str, paper: dict[str, float]) -> tuple[Contrast, ...]:
    return tuple(
        Contrast(f"λ = {lam}", f"{better} {lam}", f"{other} {lam}", ap)
        for lam, ap in paper.items()
    )


_BILINEAR = {"aligned 1.5": 29.7, "aligned 3": 29.5, "aligned 5": 29.1}

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        Table(
            "1",
            "Simple heads: is aligned better than natural where nothing is upscaled?",
            # The paper says that they are within 0.2 of each other.
            (Contrast("λ = 1", "aligned 1", "natural 1", 0.2),),
            {},
        ),
        Table(
            "2a",
            "Upscaling heads: is aligned better than natural?",
            _differences("aligned", "natural", {"1.5": 0.9, "3": 4.1, "5": 15.6}),
            _BILINEAR | {"natural 1.5": 28.8, "natural 3": 25.4, "natural 5": 13.5},
        ),
        Table(
            "2b",
            "Upscaling aligned heads: is bilinear better than nearest neighbour?",
            _differences("aligned", "nearest", {"1.5": 0.3, "3": 1.0, "5": 3.2}),
            _BILINEAR | {"nearest 1.5": 29.4, "nearest 3": 28.5, "nearest 5": 25.9},
        ),
        Table(
            "2c",
            "Is the tensor bipyramid better than the feature pyramid?",
            (Contrast("bipyramid", "bipyramid", "feature pyramid", 4.1),),
            {"feature pyramid": 29.7, "bipyramid": 33.8},
        ),
        Table(
            "2d",
            "Are two window sizes better than one?",
            (
                Contrast(
                    "paper's rule", "two sizes, paper's rule", "one size, paper's rule", 1.6
                ),
                Contrast("official rule", "bipyramid", "one size", 1.6),
            ),
            {"one size": 33.8, "bipyramid": 35.4},
            judged="AR100",
        ),
        Table(
            "ancestors",
            "What did each step from DeepMask on add, in the same CPU seconds?",
            (
                Contrast("refinement", "SharpMask", "DeepMask", None),
                Contrast("aligned", "InstanceFCN", "DeepMask", None),
                Contrast("all of it", "TensorMask", "DeepMask", None),
                Contrast("boxes first", "Mask R-CNN", "TensorMask", 1.3),
            ),
            {"TensorMask": 35.5, "Mask R-CNN": 36.8},  # Table 3, test-dev
            judged="AR100",
        ),
        Table(
            "roi",
            "Mask R-CNN: what are regions worth that are not rounded?",
            (Contrast("pooling", "RoIAlign, sigmoid", "RoIPool, sigmoid", 3.4),),
            # Table 2c of Mask R-CNN, R50 without a pyramid
            {"RoIPool, sigmoid": 26.9, "RoIAlign, sigmoid": 30.3},
            judged="AP75",
        ),
    )
}


def chosen(names: Sequence[str]) -> list[Table]:
    """The tables of these names.

    Raises:
        InputError: a name that is none.
    """
    if unknown := [name for name in names if name not in TABLES]:
        raise bad_input("table", f"one of {', '.join(TABLES)}", " ".join(unknown))
    return [TABLES[name] for name in names]
