"""Pictures: whole, named, legible, true to the numbers, and in one visual code."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image

from tensormask_edu import config, ops, reference, viz
from tensormask_edu.base.errors import InputError
from tensormask_edu.geometry import Geometry
from tensormask_edu.viz import gallery
from tensormask_edu.viz.curves import _smooth
from tensormask_edu.viz.tensors import Wall, _tap_weights

CLASS_NAMES = ("ellipse", "rectangle")
PHONE_PX, LEAST_PX = 380, 9.0  # as the site promises
PENS = (viz.TRUTH, viz.PREDICTION, viz.POSITIVE, viz.IGNORED, viz.FOLLOWED)


def scene(height: int = 64, width: int = 96, count: int = 2) -> tuple[torch.Tensor, dict]:
    """A grey image with `count` rectangles, the first 20 x 30 px at (8, 8)."""
    image = torch.full((3, height, width), 128, dtype=torch.uint8)
    masks = torch.zeros(count, height, width, dtype=torch.bool)
    boxes = torch.zeros(count, 4)
    for k in range(count):
        x, y = (8 + 40 * k) % (width - 31), (8 + 24 * k) % (height - 21)
        masks[k, y : y + 20, x : x + 30] = True
        boxes[k] = torch.tensor([x, y, x + 30, y + 20])
    return image, {"boxes": boxes, "labels": torch.arange(count) % 2, "masks": masks}


def scored(instances: dict) -> dict:
    return {**instances, "scores": torch.linspace(0.9, 0.6, len(instances["labels"]))}


def training_log(lines: int = 50) -> list[dict[str, float]]:
    parts = ("loss", "loss_class", "loss_box", "loss_mask")
    return [
        {"step": 20 * n, "seconds": 1.2 * n, "lr": 1e-3, **{part: 2.0 / n for part in parts}}
        for n in range(1, lines + 1)
    ]


def pictures() -> dict:
    image, truth = scene()
    windows = gallery.positive_windows(truth, 0, image, config.MODELS["tiny"])
    found = scored(truth)
    return {
        "truth": viz.draw_instances(image, truth, CLASS_NAMES, "truth"),
        "prediction": viz.draw_instances(image, found, CLASS_NAMES, "prediction"),
        "grid": viz.truth_and_prediction([image] * 4, [truth] * 4, [found] * 4, CLASS_NAMES),
        "page": viz.truths_page([image] * 4, [truth] * 4, CLASS_NAMES, list("abcd")),
        "loss": viz.loss_curve(training_log()),
        "iou": viz.reachable_iou(
            [10, 20, 40], {"growing bins": [0.8, 0.8, 0.8], "4 px": [0.8, 0.9, 0.95]}
        ),
        "windows": viz.windows_on_image(image, windows, truth),
        "wall": viz.window_wall(
            gallery.wall_of(truth["masks"][0]), image, 16, 8, truth["masks"][0]
        ),
        "two": viz.two_representations(viz.natural_of(gallery.small_mask(), 3)),
        "shear": viz.diagonal_shear(),
        "taps": viz.sixteen_taps(),
        "bipyramid": viz.bipyramid(config.MODELS["tiny"].geometry),
        "official bipyramid": viz.bipyramid(config.MODELS["r50_fpn_1x"].geometry),
    }


@pytest.fixture(scope="module")
def drawn() -> dict:
    return pictures()


WORDS = "truth prediction grid page loss iou windows wall two shear taps bipyramid"
NAMES = (*WORDS.split(), "official bipyramid")
LABELLED = ("truth", "prediction", "grid", "page")  # where objects overlap, their labels may
each_picture = pytest.mark.parametrize("name", NAMES)


def texts(figure) -> list[Text]:
    """Everything written in a picture that shows."""
    hidden = {t for ax in figure.axes if not ax.axison for t in ax.findobj(Text)}
    hidden |= {t for ax in figure.axes for t in _ticks_out_of_range(ax)}
    found = [t for t in figure.findobj(Text) if t.get_visible() and t not in hidden]
    return [t for t in found if t.get_text().strip()]


def _ticks_out_of_range(ax) -> list[Text]:
    """Tick labels that matplotlib keeps but does not draw."""
    labels = []
    for axis in (ax.xaxis, ax.yaxis):
        shown = {id(tick) for tick in axis._update_ticks()}
        ticks = [*axis.majorTicks, *axis.minorTicks]
        labels += [label for t in ticks if id(t) not in shown for label in (t.label1, t.label2)]
    return labels


def test_every_public_picture_is_looked_at(drawn):
    assert set(drawn) == set(NAMES)


@each_picture
def test_a_picture_has_a_title_and_named_axes(name, drawn):
    axes = drawn[name].axes
    for ax in (ax for ax in axes if ax.axison):
        shared = ax.get_shared_x_axes()
        shares_x = any(other is not ax and shared.joined(ax, other) for other in axes)
        assert ax.get_xlabel() or shares_x or name in ("grid", "page")
        assert ax.get_ylabel() or name in ("grid", "page")
    title = drawn[name].get_suptitle() or drawn[name].axes[0].get_title()
    assert title


@each_picture
def test_a_picture_is_as_wide_as_a_notebook_and_nothing_is_cut_off(name, drawn):
    figure = drawn[name]
    figure.savefig(io.BytesIO(), dpi=100)  # lays the picture out
    width, height = figure.get_size_inches() * figure.dpi
    assert 690 <= width <= 710
    for t in texts(figure):
        box = t.get_window_extent()
        assert -1 <= box.x0 and box.x1 <= width + 1, t.get_text()
        assert -1 <= box.y0 and box.y1 <= height + 1, t.get_text()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in LABELLED])
def test_no_text_covers_another(name, drawn):
    drawn[name].savefig(io.BytesIO(), dpi=100)
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts(drawn[name])]
    for (a, first), (b, second) in itertools.combinations(boxes, 2):
        apart = first.x1 <= second.x0 + 1 or second.x1 <= first.x0 + 1
        apart = apart or first.y1 <= second.y0 + 1 or second.y1 <= first.y0 + 1
        assert apart, (a, b)


@each_picture
def test_text_is_large_enough_to_read(name, drawn):
    """Where the picture is as wide as a phone."""
    per_point = PHONE_PX / (72 * drawn[name].get_figwidth())
    small = [
        t.get_text() for t in texts(drawn[name]) if t.get_fontsize() * per_point < LEAST_PX
    ]
    assert not [words for words in small if "^" not in words]  # an exponent is smaller


@each_picture
def test_a_picture_says_what_it_shows(name, drawn):
    assert drawn[name].alt.endswith(".") and len(drawn[name].alt.split()) >= 8


def test_pens_differ_without_colour():
    lines = [pen.line for pen in PENS if pen is not viz.FOLLOWED]
    assert len(set(lines)) == len(lines)
    markers = [pen.marker for pen in PENS if pen.marker]
    assert len(set(markers)) == len(markers) == 4
    assert viz.IGNORED.hatch


# Machado, Oliveira, Fernandes (2009), severity 1, on linear RGB.
PROTANOPIA = (
    (0.152286, 1.052583, -0.204868),
    (0.114503, 0.786281, 0.099216),
    (-0.003882, -0.048116, 1.051998),
)
DEUTERANOPIA = (
    (0.367322, 0.860646, -0.227968),
    (0.280085, 0.672501, 0.047413),
    (-0.011820, 0.042940, 0.968881),
)
COLOUR_VISION = {"normal": np.eye(3), "protanopia": PROTANOPIA, "deuteranopia": DEUTERANOPIA}


@pytest.mark.parametrize("vision", COLOUR_VISION)
def test_pen_colours_stay_apart_for_colour_blind_eyes(vision):
    linear = np.array([to_rgb(pen.colour) for pen in PENS]) ** 2.2
    seen = np.clip(linear @ np.transpose(COLOUR_VISION[vision]), 0, 1) ** (1 / 2.2)
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)]
    assert min(distances) > 0.25


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 7), st.integers(1, 6), st.sampled_from([1, 3, 5]), st.integers(0, 2**16))
def test_the_natural_tensor_of_a_mask_is_its_definition(height, width, side, seed):
    mask = np.random.default_rng(seed).random((height, width))
    natural, half = viz.natural_of(mask, side, outside=-2.0), (side - 1) // 2
    assert natural.shape == (side, side, height, width)
    for v, u, y, x in np.ndindex(*natural.shape):
        row, column = y + v - half, x + u - half
        inside = 0 <= row < height and 0 <= column < width
        assert natural[v, u, y, x] == (mask[row, column] if inside else -2.0)


def bin_at(x: float, y: float, side: int) -> tuple[int, int, int, int]:
    """Which entry (v, u, y, x) of a wall lies at a point: the inverse of `Wall.bin`."""
    pitch = side + Wall(side, side).gap
    cell_x, cell_y = int(x // pitch), int(y // pitch)
    return int(y - cell_y * pitch), int(x - cell_x * pitch), cell_y, cell_x


def marked(ax, pen, side: int) -> set[tuple[int, int, int, int]]:
    """The entries of a wall that carry the pen's marker."""
    lines = [line for line in ax.lines if line.get_marker() == pen.marker]
    lines = [line for line in lines if line.get_color() == pen.colour]
    points = [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in lines]
    return {bin_at(x, y, side) for x, y in points}


def test_the_lit_values_are_the_same_in_both_representations():
    pixels = np.arange(49.0).reshape(7, 7)  # each value names its pixel
    natural = viz.natural_of(pixels, 3, outside=np.nan)
    aligned = reference.nat2align(np.nan_to_num(natural, nan=-9.0)[None], pad_value=-9.0)[0]
    left, right = viz.two_representations(natural / 49, pixel=(3, 4), window=(2, 2)).axes
    followed = marked(left, viz.FOLLOWED, 3)
    assert len(followed) == 9 and {natural[entry] for entry in followed} == {pixels[3, 4]}
    assert {aligned[v, u, 3, 4] for v, u in np.ndindex(3, 3)} == {pixels[3, 4]}
    window = marked(right, viz.POSITIVE, 3)
    assert {aligned[entry] for entry in window} == set(natural[:, :, 2, 2].flat)


def test_the_shear_shows_which_pixel_each_entry_speaks_of():
    _, lower = viz.diagonal_shear(extent=6, side_bins=3, pixel=2, window=2).axes
    numbers = {t.get_position(): t.get_text() for t in lower.texts if t.get_text().isdigit()}
    places = [(y, v) for v in range(3) for y in range(6) if 0 <= y + v - 1 < 6]
    assert numbers == {(y, v): str(y + v - 1) for y, v in places}


@pytest.mark.parametrize(
    ("side", "lam", "output"),
    [(3, 2, (4, 1, 2, 2)), (3, 2, (0, 5, 2, 2)), (3, 3, (4, 2, 1, 2))],
)
def test_the_taps_are_the_gradient_of_the_operator(side, lam, output):
    weights = _tap_weights(side, lam, output)
    x = torch.zeros(1, *weights.shape, dtype=torch.float64, requires_grad=True)
    ops.swap_align2nat(x, lam)[(0, *output)].backward()
    assert x.grad is not None
    np.testing.assert_allclose(weights, x.grad[0].numpy(), atol=1e-15)


def test_tap_numbers_add_up_with_the_pad():
    _, source = viz.sixteen_taps(side_bins=3, lam=2, output=(0, 0, 2, 2)).axes
    inside = sum(int(t.get_text()) for t in source.texts)
    assert f"sum: {inside} + {64 - inside} of the pad value outside" in source.get_xlabel()
    assert "parts of 64" in source.get_title()


def test_the_bipyramid_is_at_true_scale():
    geometry = Geometry((4, 8, 16), (5, 7))
    for ax in viz.bipyramid(geometry).axes:
        widths = sorted({round(patch.get_width()) for patch in ax.patches})
        assert widths == [28, 56, 112]
        assert ax.get_aspect() == 1
    bins = [t.get_text().split("\n")[1] for t in viz.bipyramid(geometry).axes[1].texts]
    assert bins == ["7² bins", "14² bins", "28² bins"]


def test_an_outline_runs_along_the_pixel_edges_of_its_mask():
    image, truth = scene(count=1)
    (ax,) = viz.draw_instances(image, truth, CLASS_NAMES).axes
    vertices = np.concatenate([path.vertices for path in ax.collections[-1].get_paths()])
    np.testing.assert_allclose(vertices.min(0), [8, 8])
    np.testing.assert_allclose(vertices.max(0), [38, 28])


def test_labels_name_class_and_score():
    image, truth = scene()
    (ax,) = viz.draw_instances(image, scored(truth), CLASS_NAMES).axes
    assert [t.get_text() for t in ax.texts] == ["ellipse 0.90", "rectangle 0.60"]


def test_labels_keep_clear_of_each_other_and_inside_the_image():
    image, truth = scene(count=6)  # rectangles that overlap, some at the border
    (ax,) = viz.draw_instances(image, scored(truth), CLASS_NAMES).axes
    boxes, frame = [t.get_window_extent() for t in ax.texts], ax.get_window_extent()
    assert len(boxes) == 6
    for first, second in itertools.combinations(boxes, 2):
        assert not first.overlaps(second)
    for box in boxes:
        assert frame.x0 <= box.x0 + 1 and box.x1 <= frame.x1 + 1
        assert frame.y0 <= box.y0 + 1 and box.y1 <= frame.y1 + 1


def test_an_instance_without_visible_pixels_keeps_its_label():
    image, truth = scene(count=1)
    truth["masks"][:] = False
    (ax,) = viz.draw_instances(image, truth, CLASS_NAMES).axes
    assert [t.get_text() for t in ax.texts] == ["ellipse"]


def test_a_crowd_is_drawn_without_labels():
    image, truth = scene(count=26)
    (ax,) = viz.draw_instances(image, truth, CLASS_NAMES).axes
    assert not ax.texts and len(ax.collections) == 3 * 26


def test_an_image_without_objects_can_be_drawn():
    image, truth = scene(count=0)
    assert viz.png(viz.draw_instances(image, scored(truth), CLASS_NAMES))
    windows = gallery.positive_windows(truth, 0, image, config.MODELS["tiny"])
    assert viz.png(viz.windows_on_image(image, windows, truth))


def test_floats_and_arrays_are_images_too():
    image, truth = scene()
    assert viz.png(viz.draw_instances(image.float() / 255, truth, CLASS_NAMES))
    assert viz.png(viz.draw_instances(image.numpy(), truth, CLASS_NAMES))


def test_smoothing_moves_nothing():
    np.testing.assert_allclose(_smooth(np.full(7, 3.0)), 3.0)
    line = np.arange(100.0)
    np.testing.assert_allclose(_smooth(line)[10:-10], line[10:-10])
    assert len(_smooth(np.array([1.0]))) == 1


def test_a_run_of_one_line_has_a_curve():
    assert viz.png(viz.loss_curve(training_log(1)))


def test_a_saved_picture_is_a_whole_small_png(tmp_path):
    viz.save(viz.sixteen_taps(), tmp_path / "new" / "taps.png")
    with Image.open(tmp_path / "new" / "taps.png") as picture:
        picture.load()
        assert picture.format == "PNG" and picture.mode == "RGB"
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "taps.png"]


def test_a_palette_makes_a_drawing_smaller_and_changes_no_colour_visibly():
    small, full = viz.png(viz.sixteen_taps(), palette=True), viz.png(viz.sixteen_taps())
    pixels = [
        np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=int)
        for data in (small, full)
    ]
    assert len(small) < 0.8 * len(full)
    assert np.abs(pixels[0] - pixels[1]).max() <= 40


def test_the_same_picture_has_the_same_bytes():
    assert viz.png(viz.sixteen_taps()) == viz.png(viz.sixteen_taps())


def test_a_picture_that_cannot_be_written_is_bad_input(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot"):
        viz.save(viz.sixteen_taps(), tmp_path / "file" / "taps.png")


def test_a_picture_shows_itself_in_a_notebook():
    pixels, shown = viz.sixteen_taps()._repr_png_()
    width_px, _ = Image.open(io.BytesIO(pixels)).size
    assert abs(shown["width"] - width_px / 2) < 1  # twice as many pixels as it is wide
    assert "16 input entries" in shown["alt"]


def test_drawing_needs_no_pyplot_and_leaves_the_settings_alone():
    code = (
        "import matplotlib, sys\nfrom tensormask_edu import viz\n"
        "from tensormask_edu.viz.look import STYLE\n"
        "before = {name: matplotlib.rcParams[name] for name in STYLE}\n"
        "viz.png(viz.sixteen_taps())\n"
        "assert before == {name: matplotlib.rcParams[name] for name in STYLE} != STYLE\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_documentation_has_every_picture_of_the_method():
    image, truth = scene()
    for exhibit in gallery.method(image, truth, config.MODELS["tiny"]):
        file = ROOT / "docs" / "pictures" / f"{exhibit.name}.png"
        assert file.stat().st_size < 200_000
        assert exhibit.caption.endswith(".") and exhibit.title


def test_a_photo_s_many_shades_leave_the_pens_their_colours():
    image, truth = scene()
    noise = torch.randint(0, 256, image.shape, generator=torch.manual_seed(0)).byte()
    data = viz.png(viz.draw_instances(noise, scored(truth), CLASS_NAMES), palette=True)
    shown = {colour for _, colour in Image.open(io.BytesIO(data)).convert("RGB").getcolors()}
    pen = tuple(round(255 * part) for part in to_rgb(viz.PREDICTION.colour))
    assert {pen, (255, 255, 255), (0, 0, 0)} <= shown


def test_a_dollar_in_a_name_begins_no_formula_and_ticks_are_formulas():
    image, truth = scene()
    (ax,) = viz.draw_instances(image, truth, ("a $5 note", "$6"), "$x_1$").axes
    shown = [ax.get_title(), *(text.get_text() for text in ax.texts)]
    assert shown == [r"\$x_1\$", r"a \$5 note", r"\$6"]  # matplotlib draws "\$" as "$"
    figure = viz.loss_curve(training_log())
    assert viz.png(figure)
    assert all(text.get_parse_math() for text in texts(figure))
