"""A picture with sliders that draws itself in the page: no kernel, no redraw, no waiting.

The walls are drawn once, as SVG. What changes when a slider moves are marks on them; those of
every position are computed beforehand and travel with the page, so a move costs the browser a
few rectangles. It works in JupyterLab, on the site and in a saved page; where no script runs,
the first position stands there as a still picture.

next: learn/show.py
"""

from __future__ import annotations

import hashlib
import html
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..viz.look import FOLLOWED, IGNORED, INK, PAPER, POSITIVE, Array, as_array
from ..viz.tensors import Wall

BIN = 13.0  # units per bin; the whole is about 700 wide
FONT = 17  # units, 9 px where the picture is 380 px wide
SHADES = 8  # between paper and ink
WIDEST_PX, ENLARGED = 740, 1.15  # on the page; a narrow picture grows by so much, not taller
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Panel:
    """A tensor as a wall. values: (V, U, H, W) in [0, 1], or NaN for what lies outside.

    x_names, y_names: of columns and rows of blocks, where they are not called 0, 1, ...
    """

    title: str
    values: Array
    x_label: str
    y_label: str
    x_names: Sequence[str] = ()
    y_names: Sequence[str] = ()


@dataclass(frozen=True)
class Mark:
    """What is lit up at one position.

    place: a bin (v, u, y, x), or a block (y, x). end: the last one, where it is a rectangle.
    """

    panel: int
    place: tuple[int, ...]
    is_followed: bool  # else it is the marked window
    end: tuple[int, ...] = ()


class Explorer:
    """A picture with sliders; shows itself as the last line of a cell."""

    def __init__(self, page: str) -> None:
        self.page = page

    def _repr_html_(self) -> str:
        return self.page

    def __repr__(self) -> str:
        return "a picture with sliders: open the notebook, or the page on the site"


def explore(
    panels: Sequence[Panel],
    marks: Callable[..., tuple[Sequence[Mark], str]],
    follow: int,
    start: Mapping[str, int] | None = None,
    **sliders: int,
) -> Explorer:
    """Walls with marks that follow the sliders, and the pointer.

    Args:
        panels: drawn once, side by side.
        marks: from a value of every slider to what is lit up, and a sentence about it.
        follow: the panel whose blocks (y, x) move the sliders when the pointer is on them.
        start: slider -> where it stands at first; in the middle, if nothing is said.
        sliders: name -> count of values, from 0; the first two are y and x of a block.
    """
    walls = [Wall(*panel.values.shape[:2]) for panel in panels]
    lefts = np.cumsum([0.0, *(_width(w, p) + 30 for w, p in zip(walls, panels, strict=True))])
    at: dict[str, tuple[list[list[Any]], str]] = {}
    for values in itertools.product(*(range(count) for count in sliders.values())):
        lit, words = marks(*values)
        boxes = [[*_box(walls[m.panel], m.place, lefts[m.panel], m.end), _kind(m)] for m in lit]
        at[",".join(map(str, values))] = (boxes, words)
    begin = {name: count // 2 for name, count in sliders.items()} | dict(start or {})
    first = ",".join(str(begin[name]) for name in sliders)
    height = max(_height(w, p) for w, p in zip(walls, panels, strict=True)) + 4 * FONT
    drawn = [
        _panel(wall, panel, left, number == follow)
        for number, (wall, panel, left) in enumerate(zip(walls, panels, lefts, strict=False))
    ]
    widest = min(WIDEST_PX, round(ENLARGED * lefts[-1]))
    svg = (
        f'<svg viewBox="0 0 {lefts[-1]:g} {height:g}" style="max-width:{widest}px" role="img" '
        f'aria-label="{html.escape(at[first][1], quote=True)}">{HATCH}{"".join(drawn)}'
        f'<g class="lit">{"".join(map(_lit, at[first][0]))}</g></svg>'
    )
    inputs = "".join(_slider(name, count, begin[name]) for name, count in sliders.items())
    data = json.dumps(at, separators=(",", ":")).replace("</", "<\\/")
    name = f"explorer-{hashlib.sha256((svg + data).encode()).hexdigest()[:8]}"
    words = f'<p class="words" aria-live="polite">{html.escape(at[first][1])}</p>'
    script = SCRIPT.replace("NAME", name).replace("DATA", data)
    style = STYLE.replace("NAME", name)
    return Explorer(
        f'<div id="{name}"><style>{style}</style>{svg}<div>{inputs}</div>{words}'
        f"<script>{script}</script></div>"
    )


# --- drawing ----------------------------------------------------------------------------------


def _width(wall: Wall, panel: Panel) -> float:
    return 2 * FONT + BIN * wall.block(0, panel.values.shape[3] - 1)[2]


def _height(wall: Wall, panel: Panel) -> float:
    return BIN * wall.block(panel.values.shape[2] - 1, 0)[3]


def _box(wall: Wall, place: tuple[int, ...], left: float, end: tuple[int, ...] = ()) -> Box:
    """x, y, width, height of a bin or a block, or up to its `end`, in units of the picture."""
    square = wall.bin if len(place) == 4 else wall.block
    (x0, y0, _, _), (_, _, x1, y1) = square(*place), square(*(end or place))
    top = 1.5 * FONT
    x, y = left + 2 * FONT + BIN * x0, top + BIN * y0
    return _short(x), _short(y), _short(BIN * (x1 - x0)), _short(BIN * (y1 - y0))


def _short(length: float) -> float:
    """To a tenth; whole numbers without a point, as thousands of them travel with a page."""
    return int(length) if length == int(length) else round(length, 1)


def _kind(mark: Mark) -> str:
    where = "block" if len(mark.place) == 2 or mark.end else "bin"  # with what is in it seen
    return f"{where} {'followed' if mark.is_followed else 'window'}"


def _panel(wall: Wall, panel: Panel, left: float, follows: bool) -> str:
    """A wall, its title and axes; where the pointer moves the sliders, its blocks."""
    values = as_array(panel.values)
    parts = [_text(left + 2 * FONT, FONT, panel.title, "start")]
    for shade in range(-1, SHADES):  # one path per shade, -1: outside
        picked = np.isnan(values) if shade < 0 else np.round(values * (SHADES - 1)) == shade
        boxes = (_box(wall, tuple(map(int, place)), left) for place in np.argwhere(picked))
        path = "".join(f"M{x:g} {y:g}h{w:g}v{h:g}h-{w:g}z" for x, y, w, h in boxes)
        fill = "url(#outside)" if shade < 0 else _shade(shade / (SHADES - 1))
        if path:
            parts.append(f'<path d="{path}" fill="{fill}" class="bins"/>')
    _, _, rows, columns = values.shape
    x_names, y_names = panel.x_names or range(columns), panel.y_names or range(rows)
    for x in range(columns):
        bx, by, width, height = _box(wall, (rows - 1, x), left)
        parts.append(_text(bx + width / 2, by + height + FONT, str(x_names[x])))
    for y in range(rows):
        bx, by, _, height = _box(wall, (y, 0), left)
        parts.append(_text(left + FONT, by + height / 2 + FONT / 3, str(y_names[y])))
        for x in range(columns) if follows else ():
            corner = 'x="{:g}" y="{:g}" width="{:g}" height="{:g}"'
            place = corner.format(*_box(wall, (y, x), left))
            parts.append(f'<rect {place} data-at="{y},{x}" class="touch"/>')
    bottom = _height(wall, panel) + 3.6 * FONT
    label = f"{panel.y_label} ↓, {panel.x_label} →"
    return "".join([*parts, _text(left + 2 * FONT, bottom, label, "start")])


def _shade(value: float) -> str:
    """From paper to ink."""
    ends = [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in (PAPER, INK)]
    mixed = (round(a + value * (b - a)) for a, b in zip(*ends, strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def _text(x: float, y: float, words: str, align: str = "middle") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{align}">{html.escape(words)}</text>'


def _lit(box: Sequence[Any]) -> str:
    x, y, width, height, kind = box
    place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
    return f'<rect {place} class="{kind}"/>'


def _slider(name: str, count: int, value: int) -> str:
    settings = f'min="0" max="{count - 1}" value="{value}" aria-label="{name}"'
    return f'<label>{name} <input type="range" {settings}/></label> '


# Colours are joined by shape, as everywhere: what is followed is filled, the window is dashed.
STYLE = f"""
#NAME svg {{width:100%;height:auto;font:{FONT}px sans-serif}}
#NAME text {{fill:currentColor}} #NAME .bins {{stroke:#fff;stroke-width:.6}}
#NAME .touch {{fill:transparent;cursor:pointer}} #NAME .lit {{pointer-events:none}}
#NAME .bin.followed {{fill:{FOLLOWED.colour};stroke:#fff}}
#NAME .bin.window {{fill:#fff;fill-opacity:.4;stroke:{POSITIVE.colour};stroke-width:3;
  stroke-dasharray:4 2}}
#NAME .block {{fill:none;stroke-width:4}} #NAME .block.followed {{stroke:{FOLLOWED.colour}}}
#NAME .block.window {{stroke:{POSITIVE.colour};stroke-dasharray:8 3}}
#NAME label {{display:inline-block;margin-right:1.5em}} #NAME input {{vertical-align:middle}}
"""
HATCH = (
    '<defs><pattern id="outside" width="5" height="5" patternUnits="userSpaceOnUse">'
    f'<path d="M0 5L5 0" stroke="{IGNORED.colour}"/></pattern></defs>'
)
SCRIPT = """
(() => {
  const box = document.getElementById("NAME"), at = DATA;
  const inputs = [...box.querySelectorAll("input")], lit = box.querySelector(".lit");
  const draw = () => {
    const [boxes, words] = at[inputs.map((input) => input.value).join(",")];
    lit.replaceChildren(...boxes.map(([x, y, width, height, kind]) => {
      const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      for (const [key, value] of Object.entries({x, y, width, height, class: kind}))
        rect.setAttribute(key, value);
      return rect;
    }));
    box.querySelector(".words").textContent = words;
  };
  inputs.forEach((input) => input.addEventListener("input", draw));
  box.querySelector("svg").addEventListener("pointermove", (event) => {
    const place = event.target.dataset && event.target.dataset.at;
    if (!place) return;
    place.split(",").forEach((value, number) => { inputs[number].value = value; });
    draw();
  });
})();
"""
