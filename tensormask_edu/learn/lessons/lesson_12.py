"""The exercises of lesson 12: a gather as places in memory, spacings, where two runs part.

next: commands/predict.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from ... import ops
from ...config import InputConfig, model_config
from ...detector.model import build_model
from ...viz import look
from ...viz.look import FOLLOWED, INK, PREDICTION, TRUTH
from ...weights.checkpoint import save_checkpoint
from ..cases import Array, case_of
from ..explorer import Explorer, Mark, Panel, explore
from ..kinds import loops, numbers, predict

if TYPE_CHECKING:
    import onnx
    from matplotlib.figure import Figure

Stages = Sequence[Array]


class SwapByTwo(nn.Module):
    """`ops.swap_align2nat` with lam = 2 and nothing else: an exporter takes modules."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.swap_align2nat(x, 2)


# --- a gather as places in memory -------------------------------------------------------------


@loops("n v u h+v-1 w+u-1, <n, <h, <w -> v u", by_hand=(np.zeros((1, 3, 3, 5, 5)), 0, 1, 2))
def flat_places(padded: Array, n: int, y: int, x: int) -> Array:
    """Where the bins of one window lie in `padded.ravel()`, alpha = 1.

    padded: aligned with its border, (N, V, U, H + V - 1, W + U - 1) -> (V, U) int64 for the
    window at cell (y, x) of image n.
    """
    _, num_v, num_u, rows, columns = padded.shape
    step_y = columns  # from one row to the next, and so on outwards
    step_u = rows * step_y
    step_v = num_u * step_u
    step_n = num_v * step_v
    places = np.zeros((num_v, num_u), np.int64)
    for v, u in np.ndindex(num_v, num_u):
        row = y + v
        column = x + u
        places[v, u] = n * step_n + v * step_v + u * step_u + row * step_y + column
    return places


def places_in_memory(side: int = 3, cells: int = 3) -> Explorer:
    """One window's bins in an aligned tensor with its border, and in its memory.

    side: V = U, odd. cells: H = W, so that there are as many windows each way.
    """
    rows, half = cells + side - 1, (side - 1) // 2
    values = np.full((side, side, rows, rows), np.nan)
    values[:, :, half : half + cells, half : half + cells] = 0.3
    maps = values.reshape(side**2, rows**2, 1, 1)
    panels = (
        Panel("padded, as a wall", values, "padded x", "padded y"),
        Panel("in memory, a line per map", maps, "place in the map", "map of bin (v, u)"),
    )

    def marks(y: int, x: int) -> tuple[list[Mark], str]:
        places = flat_places(values[None], 0, y, x)
        lit = []
        for v, u in np.ndindex(side, side):
            line, place = divmod(int(places[v, u]), rows**2)
            lit.append(Mark(0, (v, u, y + v, x + u), is_followed=True))
            lit.append(Mark(1, (line, place, 0, 0), is_followed=True))
        listed = "; ".join(", ".join(map(str, line)) for line in places.tolist())
        return lit, f"Window ({y}, {x}) reads places {listed}."

    return explore(panels, marks, follow=0, y=cells, x=cells)


# --- how far apart numbers are ----------------------------------------------------------------

GAPS = {"logit_32": 5e-9, "logit_16": 4e-5, "pixel_32": 2e-6, "pixel_16": 0.02}  # tolerances


@numbers(GAPS | {"probability": 2e-7})
def spacings() -> dict[str, float]:
    """From 6 and from 2500 to the next larger number of either type; a logit's 1e-4."""
    return {
        "logit_32": 2.0 ** (2 - 23),  # 6 lies between 2**2 and 2**3; float32 has 24 bits
        "logit_16": 2.0 ** (2 - 10),
        "pixel_32": 2.0 ** (11 - 23),  # 2500 lies between 2**11 and 2**12
        "pixel_16": 2.0 ** (11 - 10),
        "probability": 1e-4 / 4,
    }


@look.readable
def staircase(marked: Mapping[str, float]) -> Figure:
    """The spacing of float32 and float16 over their magnitude. marked: word -> magnitude."""
    alt = "Two staircases on log scales: float16's steps lie 8,192 times above float32's."
    figure = look.new_picture(3.6, "From a number to the next larger one", alt=alt)
    ax, magnitude = figure.subplots(), np.geomspace(0.05, 8000, 4000)
    for kind, pen in ((np.float16, PREDICTION), (np.float32, TRUTH)):
        spacing = np.spacing(magnitude.astype(kind))
        ax.plot(magnitude, spacing, color=pen.colour, linestyle=pen.line)
        ax.text(0.06, 8 * float(spacing[0]), np.dtype(kind).name, color=pen.colour)
    for words, place in marked.items():
        ax.axvline(place, color=INK, linestyle="dotted")
        ax.text(place * 0.93, 1e-8, words, ha="right", va="bottom")
    ax.set(xscale="log", yscale="log", ylim=(3e-9, 20))
    ax.set(xlabel="magnitude", ylabel="spacing")
    return figure


def _largest(logit: float, score: float, box_px: float) -> str:
    apart = {"logits": logit, "scores": score, "boxes": box_px}
    return max(apart, key=lambda name: apart[name])


predict("half_precision", ("logits", "scores", "boxes"), _largest)

# --- where two runs part ----------------------------------------------------------------------


def _stages(*apart: float, value: float = 1.0) -> tuple[list[Array], list[Array]]:
    """Stages of three values each, one of which is so far apart; neighbours differ in shape."""
    ours = [np.full((3, 1) if k % 2 else 3, value) for k in range(len(apart))]
    theirs = [right.copy() for right in ours]
    for given, gap in zip(theirs, apart, strict=True):
        given[1] += gap
    return ours, theirs


OTHER_SHAPE = ([np.ones((1, 2)), np.ones((2, 2))], [np.ones((1, 2)), np.ones((2, 1))])
TURNED = ([np.ones(2), np.ones((2, 3))], [np.ones(2), np.ones((3, 2))])  # nothing to stretch
ONE_LARGE = [np.array([1.0, 500, 1])] * 2
OFF_BESIDE_IT = [np.array([1.0, 500, 1 + gap]) for gap in (3e-3, 6e-3)]
TRIED = {
    "none is further apart than the tolerance": (*_stages(0.0, 5e-5, 9e-5), 1e-4),
    "theirs are smaller than ours": (*_stages(0.0, -0.5, 0.5), 1e-4),
    "the very first differs": (*_stages(3e-4, 0.0), 1e-4),
    "one value of three differs": (*_stages(0.0, 2e-4, 1.0), 1e-4),
    "each is off by less than the tolerance": (*_stages(6e-5, 6e-5, 6e-5), 1e-4),
    "theirs holds NaN in stage 1": (*_stages(0.0, np.nan, 1.0), 1e-4),
    "stage 1 has another shape and equal values": (*OTHER_SHAPE, 1e-4),
    "values of -500 allow 50 times the tolerance": (*_stages(0, 3e-3, 6e-3, value=-5e2), 1e-4),
    "values of 10 allow the tolerance itself": (*_stages(0.0, 9e-5, 1.5e-4, value=10.0), 1e-4),
    "exactly the tolerance, then more": (*_stages(0.0, 0.25, 0.5), 0.25),
    "stage 1 has another shape and as many values": (*TURNED, 1e-4),
    "values of 1 beside one of 500": (ONE_LARGE, OFF_BESIDE_IT, 1e-4),
    "theirs are larger than ours, of 10": (*_stages(0.5, 1.05, value=10.0), 1.0),
}


@loops(
    "*, *, * -> ",
    by_hand=(*_stages(0.0, 1e-6, 2e-3, 1.0, 1e-6), 1e-4),
    more=[case_of("tried", arguments, what=words) for words, arguments in TRIED.items()],
)
def first_diverging(ours: Stages, theirs: Stages, tolerance: float) -> int:
    """The number of the first stage that two runs do not agree on, -1 if they agree on all.

    ours, theirs: an array per stage. tolerance: of values up to 10, in proportion beyond.
    """
    for number in range(len(ours)):
        right, given = ours[number], theirs[number]
        if given.shape != right.shape:
            return number
        limit = tolerance * max(1.0, np.abs(right).max() / 10)
        apart = np.abs(given - right).max()
        if not apart <= limit:  # asked this way round, NaN is no agreement
            return number
    return -1


def broken(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of an exported detector in which one thing is wrong. Read it afterwards."""
    changed = type(proto)()
    changed.CopyFrom(proto)
    # Another convention for where a map's samples lie: every shape stays as it was.
    for node in changed.graph.node:
        settings = {each.name: each for each in node.attribute}
        if node.op_type == "Resize" and settings["mode"].s == b"linear":
            settings["coordinate_transformation_mode"].s = b"asymmetric"
            break
    return changed


def small_checkpoint(folder: Path) -> Path:
    """A model with two levels and random weights, for a run in seconds."""
    config = replace(model_config("tiny", 4), strides_px=(4, 8), sides_bins=(5,), tower_convs=1)
    save_checkpoint(folder / "small", build_model(config), InputConfig())
    return folder / "small"


# --- pictures ---------------------------------------------------------------------------------


@look.readable
def node_and_body(body: Sequence[tuple[str, tuple[int, ...]]]) -> Figure:
    """One node beside its function body: operators and the shapes they make, from x on."""
    ends = [body[0], ("SwapAlign2Nat", body[-1][1])]
    alt = f"Left one node from input to output; right a chain of {len(body) - 1} operators."
    figure = look.new_picture(0.62 * len(body) + 0.9, "One node, two ways to run it", alt=alt)
    titles = ("with a plugin: one kernel", "without: the function body")
    for ax, title, steps in zip(figure.subplots(1, 2), titles, (ends, body), strict=True):
        places = np.linspace(0, len(body) - 1, len(steps))
        for number, ((words, shape), place) in enumerate(zip(steps, places, strict=True)):
            pen = FOLLOWED if words == "SwapAlign2Nat" else TRUTH
            look.draw_box(ax, (0, place - 0.38, 1, place + 0.38), pen, 1.4, fill=number > 0)
            ax.text(0.5, place, f"{words}\n{shape}", ha="center", va="center", linespacing=1.1)
            if number:
                ends_at = {"xy": (0.5, place - 0.4), "xytext": (0.5, places[number - 1] + 0.4)}
                ax.annotate("", **ends_at, arrowprops={"arrowstyle": "->", "color": INK})
        ax.set(xlim=(-0.02, 1.02), ylim=(len(body) - 0.5, -0.6), title=title)
        ax.set_axis_off()
    return figure
