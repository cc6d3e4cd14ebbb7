"""Pictures that one lesson draws: legible on a phone, with words for those who cannot see."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.text import Text

from tensormask_edu.data import shapes
from tensormask_edu.learn.lessons import lesson_01, lesson_02, lesson_03, lesson_05, lesson_12
from tensormask_edu.viz import curves, lessons

PHONE_PX, LEAST_PX = 380, 9.0  # as the site promises
WHOLE, _ = shapes.whole(0, "train", 16, 64)
IMAGE = np.full((3, 64, 64), 200, np.uint8)
WALL = lesson_03.natural_tensor(WHOLE[1].astype(float), 5, 5, 16, 8)
SHAPES = lesson_05.touching()
BINS = lesson_05.perfect_natural(SHAPES, 15, 1)[0, :, :, 15, 15]
MOON = lesson_02.moon_and_star()
WINDOWS = lesson_02.perfect_windows(MOON, 15)
STORED = {
    "vectors": WINDOWS.reshape(225, 24, 24),
    "coarse": WINDOWS[1::3, 1::3].reshape(25, 24, 24),
    "fine": MOON.any(0).astype(float),
    "maps": WINDOWS[1::3, 1::3].reshape(25, 24, 24),
}
STEP = ("qix,npqjx->npqji", (1, 6, 6, 4, 5))

PICTURES = {
    "01 pile": lambda: lesson_01.pile(IMAGE, WHOLE, lesson_01.visible_masks(WHOLE)),
    "01 snake": lambda: lesson_01.snake(lesson_01.SMALL, lesson_01.rle_counts(lesson_01.SMALL)),
    "02 storages": lambda: lesson_02.storages(MOON, STORED, 12, 11, (4, 7, 16, 19)),
    "02 points": lambda: lesson_02.points_of_bins(*lesson_02.BY_HAND),
    "03 one window": lambda: lesson_03.one_window(
        IMAGE, WHOLE[1], WALL[:, :, 2, 2], (2, 2), 16, 8
    ),
    "03 wall": lambda: lesson_03.wall_over_image(IMAGE, WALL, (2, 2), 16, 8),
    "03 units": lambda: lesson_03.units_at_true_scale(8, (4, 8, 16), 5),
    "05 scene": lambda: lesson_05.scene(SHAPES, (15, 15), 15),
    "05 beside": lambda: lessons.beside(BINS >= 0.5, {"a": BINS, "b": BINS[1::5, 1::5]}),
    "05 centres": lambda: lesson_05.centres(4, 1.5),
    "12 body": lambda: lesson_12.node_and_body([("x", (1, 3, 3, 8, 10))] + 4 * [STEP]),
    "12 staircase": lambda: lesson_12.staircase({"a logit": 6, "a pixel": 2500}),
    "12 layers": lambda: curves.apart_by_layer(
        {"the whole file": [1e-7, 2e-6], "the broken file": [0, 0.3]}, 1e-4, 1
    ),
}


@pytest.fixture(scope="module")
def drawn():
    return {name: draw() for name, draw in PICTURES.items()}


def small_texts(figure):
    """Texts below the least size where the picture is as wide as a phone."""
    per_point = PHONE_PX / (72 * figure.get_figwidth())
    texts = [text for text in figure.findobj(Text) if text.get_text().strip()]
    assert texts
    return [text.get_text() for text in texts if text.get_fontsize() * per_point < LEAST_PX]


@pytest.mark.parametrize("name", PICTURES)
def test_text_is_legible_on_a_phone(name, drawn):
    assert not small_texts(drawn[name])


def test_text_too_small_would_be_noticed(drawn):
    figure = lesson_05.scene(SHAPES, (15, 15), 15)
    figure.text(0.5, 0.5, "fine print", fontsize=6)
    assert small_texts(figure) == ["fine print"]


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_says_what_it_shows(name, drawn):
    pixels, described = drawn[name]._repr_png_()
    assert pixels.startswith(b"\x89PNG")
    assert described["alt"].endswith(".") and len(described["alt"].split()) >= 12


def test_numbers_in_the_words_are_those_of_the_picture(drawn):
    assert f"from 0 to {WHOLE.sum(0).max()}." in drawn["01 pile"].alt
    counts = ", ".join(map(str, lesson_01.rle_counts(lesson_01.SMALL)))
    assert counts in drawn["01 snake"].alt
    assert "a 1.00" in drawn["05 beside"].alt
    assert "at layer 1" in drawn["12 layers"].alt
    assert np.spacing(np.float16(6)) / np.spacing(np.float32(6)) == 8192
