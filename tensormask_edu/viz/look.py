"""The visual code: one pen per meaning, how large a picture is, how it is saved.

next: viz/fonts.py
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from ..base.files import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL import Image

Array = np.ndarray[Any, Any]
Given = ParamSpec("Given")
Drawn = TypeVar("Drawn")


# --- the pens ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pen:
    """What draws one meaning, in every picture: its colour, line, marker and hatch."""

    meaning: str
    colour: str
    line: str | tuple[float, tuple[float, ...]]  # matplotlib's: a word, or (offset, dashes)
    marker: str = ""  # where a line pattern would not fit
    hatch: str = ""


TRUTH = Pen("truth", "#0072B2", "solid", marker="s")
PREDICTION = Pen("prediction", "#D55E00", (0, (4, 1.5)), marker="D")
POSITIVE = Pen("positive window", "#009E73", (0, (6, 1.5, 1.5, 1.5)), marker="x")
IGNORED = Pen("ignored", "#B0B0B0", (0, (1, 1.5)), hatch="////")
FOLLOWED = Pen("followed value", "#882255", "solid", marker="o")

PAPER, INK = "#F1F1F1", "#606060"  # mask values 0 and 1
WIDTH_INCHES = 7.0  # 700 px at notebook resolution; drawn in the `readable` style
NARROW_INCHES = 4.2  # `styled`: the smallest text has 9 px where it is shown 380 px wide
SCREEN_DPI, PRINT_DPI = 100, 160
COLOURS, NEARLY = 128, 8  # of a picture with a palette; in steps of 256
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "figure.titlesize": 11,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.color": IGNORED.colour,
    "hatch.linewidth": 0.6,
}


# The same, its text 9 px high where a picture is shown 380 px wide, as on a phone
READABLE: Any = STYLE | dict.fromkeys(
    (
        "font.size", "axes.titlesize", "axes.labelsize", "xtick.labelsize", "ytick.labelsize",
        "legend.fontsize",
    ),
    12,
) | {"figure.titlesize": 13}  # fmt: skip


# --- a picture and its file -------------------------------------------------------------------


def styled(draw: Callable[Given, Drawn]) -> Callable[Given, Drawn]:
    """Run `draw` in our style; matplotlib's global settings stay as they were."""
    return _in(STYLE, draw)


def readable(draw: Callable[Given, Drawn]) -> Callable[Given, Drawn]:
    """Run `draw` in our style with text that a phone can show."""
    return _in(READABLE, draw)


def _in(style: Any, draw: Callable[Given, Drawn]) -> Callable[Given, Drawn]:
    @functools.wraps(draw)
    def in_style(*args: Given.args, **kwargs: Given.kwargs) -> Drawn:
        import matplotlib

        with matplotlib.rc_context(style):
            return draw(*args, **kwargs)

    return in_style


@functools.cache
def _picture_class() -> type[Figure]:
    """`Picture`, made when the first one is asked for: matplotlib takes a while to load."""
    from matplotlib.figure import Figure

    class Picture(Figure):
        """A figure that Jupyter shows without pyplot.

        alt: what it shows, in words. sharpness: pixels drawn per px that it is shown with, two
        for a fine screen and a phone; of photos fewer, whose noise does not pack.
        """

        alt, sharpness = "", 2.0

        def _repr_png_(self) -> Any:
            pixels = png(self, round(self.sharpness * SCREEN_DPI), True)
            width_px = int.from_bytes(pixels[16:20], "big")  # a PNG's header
            shown: dict[str, Any] = {"width": round(width_px / self.sharpness)}
            return pixels, shown | ({"alt": self.alt} if self.alt else {})

    return Picture


def new_picture(
    height_inches: float, title: str = "", width_inches: float = WIDTH_INCHES, alt: str = ""
) -> Figure:
    """An empty picture, by default of notebook width, whose parts make room for each other.

    alt: what it shows, for those who cannot see it.
    """
    figure = _picture_class()(figsize=(width_inches, height_inches), layout="constrained")
    figure.alt = alt  # type: ignore[attr-defined]
    if title:
        figure.suptitle(title, fontweight="bold")
    return figure


def png(figure: Figure, dpi: int = PRINT_DPI, palette: bool = False) -> bytes:
    """The whole figure as PNG bytes: the canvas grows where something would be cut off.

    Args:
        palette: few colours instead of all, a fifth of the bytes. Drawings lose nothing,
            photographs a little.
    """
    from PIL import Image

    drawn, packed = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi, bbox_inches="tight")
    picture = Image.open(drawn).convert("RGB")
    if palette:
        picture = _few_colours(picture)
    picture.save(packed, format="png", optimize=True)
    return packed.getvalue()


def _few_colours(picture: Image.Image) -> Image.Image:
    """The picture with a palette that has every pen: a photo's many shades would mix them."""
    from PIL import Image, ImageColor

    pens = (TRUTH, PREDICTION, POSITIVE, IGNORED, FOLLOWED)
    kept = [ImageColor.getrgb(colour) for colour in ("#FFF", "#000", *(p.colour for p in pens))]
    most = COLOURS - len(kept)
    chosen = picture.quantize(most, dither=Image.Dither.NONE).getpalette() or []
    common = np.reshape(chosen[: 3 * most], (-1, 3))  # (colours, 3)
    # Of two shades that nearly agree Pillow may take either: a kept one stands alone.
    is_apart = (abs(common[:, None] - np.array(kept)).max(-1) > NEARLY).all(1)  # (colours,)
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate([kept, common[is_apart]]).ravel().tolist())
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


def save(figure: Figure, path: str | Path, dpi: int = PRINT_DPI, palette: bool = False) -> None:
    """Write the figure as PNG (see `png`), whole: nothing cut off, no half file.

    Raises:
        InputError: `path` cannot be written.
    """
    with written_whole(path) as temporary:
        temporary.write_bytes(png(figure, dpi, palette))


# --- what every picture is made of ------------------------------------------------------------


def draw_box(
    ax: Axes, box: Sequence[float], pen: Pen, width: float = 1.6, fill: bool = False
) -> None:
    """A rectangle xyxy in axis units, on a white band so that it shows on any ground."""
    from matplotlib.patches import Rectangle

    x0, y0, x1, y1 = box
    where: dict[str, Any] = {"xy": (x0, y0), "width": x1 - x0, "height": y1 - y0}
    band: dict[str, Any] = {"edgecolor": "white", "linewidth": width + 1.4, "alpha": 0.8}
    line: dict[str, Any] = {"edgecolor": pen.colour, "linewidth": width, "linestyle": pen.line}
    ax.add_patch(Rectangle(**where, fill=False, **band))
    ax.add_patch(Rectangle(**where, fill=False, **line))
    if fill:
        ax.add_patch(Rectangle(**where, facecolor=pen.colour, alpha=0.2, linewidth=0))


def name_rows(ax: Axes, name: str) -> None:
    """Name the y axis; a single letter stands upright, for v on its side reads as >."""
    upright = len(name) == 1
    turn, gap = (0, 10) if upright else (90, 4)  # degrees, points
    ax.set_ylabel(name, rotation=turn, va="center", labelpad=gap)


def hatch(ax: Axes, box: Sequence[float]) -> None:
    """A rectangle xyxy that is outside the tensor, or not used."""
    from matplotlib.patches import Rectangle

    x0, y0, x1, y1 = box
    style: dict[str, Any] = {"edgecolor": IGNORED.colour, "hatch": IGNORED.hatch}
    ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, linewidth=0.3, **style))


def legend(figure: Figure, entries: Sequence[tuple[Pen, str]], marks: bool = False) -> None:
    """What each pen says here, below the picture.

    Args:
        entries: pens with their words.
        marks: shown as points on a line, not as boxes.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Patch | Line2D] = []
    for pen, text in entries:
        if marks and not pen.hatch:
            point: dict[str, Any] = {"marker": pen.marker, "markersize": 4, "linewidth": 1}
            handles.append(Line2D([], [], color=pen.colour, label=text, **point))
        else:
            box: dict[str, Any] = {"linestyle": pen.line, "linewidth": 1.6, "hatch": pen.hatch}
            handles.append(Patch(fill=False, edgecolor=pen.colour, label=text, **box))
    place: dict[str, Any] = {"loc": "outside lower center", "ncols": len(handles)}
    figure.legend(handles=handles, frameon=False, **place)


def mask_shades() -> Any:
    """Mask values from 0 (paper) to 1 (ink)."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("mask", [PAPER, INK])


def as_array(values: Any) -> Array:
    """A NumPy array of a tensor (any device) or array."""
    is_tensor = hasattr(values, "detach")  # said without loading torch
    return values.detach().cpu().numpy() if is_tensor else np.asarray(values)
