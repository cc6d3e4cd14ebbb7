"""Pictures with sliders: a picture at once, another one when a slider moves."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from tensormask_edu import viz
from tensormask_edu.learn import explorer
from tensormask_edu.learn.lessons import lesson_02, lesson_04, lesson_12
from tensormask_edu.viz import gallery

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
LIT = r'<rect [^>]*class="(?:bin|block) (?:followed|window)"'


@pytest.fixture(scope="module")
def page():
    tiny = gallery.small_mask().astype(float)
    return lesson_04.two_ways(viz.natural_of(tiny, side_bins=3))._repr_html_()


def test_the_picture_is_there_before_any_script_runs(page):
    svg = page[page.index("<svg") : page.index("</svg>")]
    assert len(re.findall(LIT, svg)) == 20  # nine bins and a block in either wall
    assert "Pixel (3, 3)" in page
    assert svg.count("<path") >= 4  # two shades in each wall


def test_every_position_is_in_the_page_and_small(page):
    assert len(re.findall(r'"\d,\d":', page)) == 49
    assert len(page) < 120_000  # of the 400 kB of a notebook


def test_the_picture_names_itself_and_follows_the_page_s_colours(page):
    assert 'role="img" aria-label="Pixel (3, 3)' in page
    assert "fill:currentColor" in page


def test_a_window_is_lit_in_the_wall_and_in_memory():
    page = lesson_12.places_in_memory()._repr_html_()
    svg = page[page.index("<svg") : page.index("</svg>")]
    assert len(re.findall(LIT, svg)) == 2 * 9
    assert "Window (1, 1) reads places 6, 32, 58; 86, 112, 138; 166, 192, 218." in page
    assert len(re.findall(r'"\d,\d":', page)) == 9


def test_a_value_outside_is_hatched():
    natural = viz.natural_of(np.ones((3, 3)), side_bins=3)
    assert "url(#outside)" in lesson_04.two_ways(natural)._repr_html_()


def test_a_rectangle_ends_where_the_picture_does():
    """A window of 3 x 3 parts of 3 cells: in the corner four of them see the picture."""
    shapes = lesson_02.moon_and_star()[:, 2:22:2, 2:22:2]
    page = lesson_02.jigsaw(shapes, (6, 4))._repr_html_()
    at = json.loads(re.search(r"at = (\{.*\});", page)[1])
    boxes, words = at["0,0"]
    sides = [[round(length / explorer.BIN) for length in box[2:4]] for box in boxes[2:]]
    assert sides == [[2, 2], [3, 2], [2, 3], [3, 3]]
    assert "a piece of 4 maps. Pixel (6, 4), purple, lies outside." in words
    boxes, words = at["5,5"]
    assert [box[4] for box in boxes] == [
        "block followed",
        *["block window"] * 10,
        "bin followed",
    ]
    assert "map (1, 1) answers 1." in words


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium to open a page in")
def test_another_picture_when_a_slider_or_the_pointer_moves(page, tmp_path):
    """In a browser: what is lit up after a slider moved, and after the pointer moved."""
    moves = """
      const lit = () => [...document.querySelectorAll(".lit rect")].length + " lit, "
        + document.querySelector(".words").textContent;
      const said = [lit()];
      const slider = document.querySelector("input");
      slider.value = 0; slider.dispatchEvent(new Event("input"));
      said.push(lit());
      document.querySelector('[data-at="5,5"]').dispatchEvent(
        new PointerEvent("pointermove", {bubbles: true}));
      said.push(lit());
      document.body.innerHTML = said.join("|");
    """
    path = tmp_path / "page.html"
    path.write_text(f"<body>{page}<script>{moves}</script></body>", encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --dump-dom".split()
    command = [CHROMIUM, *flags, f"--user-data-dir={tmp_path / 'user'}", path.as_uri()]
    run = subprocess.run(command, capture_output=True, text=True, timeout=240)
    first, moved, pointed = re.search(r"<body>(.*)</body>", run.stdout, re.S)[1].split("|")
    assert first.startswith("20 lit, Pixel (3, 3)")
    assert "Pixel (0, 3)" in moved and not moved.startswith("20 lit")
    assert pointed.startswith("20 lit, Pixel (5, 5)")
