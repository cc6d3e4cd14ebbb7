"""The heads of Fig. 6 and 7 as one operator: sparse against dense, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensormask_export.onnx_file.graph import DetectorGraph
from tolerances import OP_F64, OP_REL

from tensormask_edu import ops
from tensormask_edu.base.errors import InputError
from tensormask_edu.config import ModelConfig, from_json, to_json
from tensormask_edu.detector.model import build_model
from tensormask_edu.detector.network import WindowMasks
from tensormask_edu.detector.targets import assign, build_targets
from tensormask_edu.geometry import Geometry, sizes_px
from tensormask_edu.ops import Rule
from tensormask_edu.reference import assign as reference
from tensormask_edu.weights.official import load_official, official_state

# name, side V of the finished mask, fields of the configuration
SMALL = {"strides_px": (4, 8), "bipyramid": False}
HEADS = [
    (f"{representation} {lam:g} {how} {edge}", side, {
        "representation": representation, "upscale": lam, "interpolation": how, "edge": edge,
    } | SMALL)
    for representation in ("natural", "aligned")
    for lam, side in ((1.0, 5), (1.0, 4), (1.5, 6), (3.0, 9))
    for how, edge in (("bilinear", "pad"), ("bilinear", "clamp"), ("nearest", "pad"))
]  # fmt: skip
HEADS += [
    (f"bipyramid {how} {edge}", 3, {"interpolation": how, "edge": edge, "strides_px": (4, 8)})
    for how, edge in (("bilinear", "pad"), ("bilinear", "clamp"), ("nearest", "pad"))
]
EXACT = {torch.float64: OP_REL[torch.float64], torch.float32: OP_REL[torch.float32]}


def model_of(side, fields, dtype=torch.float32, **more):
    """A small untrained model with mask logits of size one, which reach beyond the pad."""
    config = ModelConfig(
        sides_bins=(side,), fpn_channels=8, tower_convs=1, tower_norm_groups=2,
        class_channels=8, box_channels=8, mask_channels=8, **(fields | more),
    )  # fmt: skip
    torch.manual_seed(1)
    model = build_model(config).train()
    for predictor in model.network.mask_branch.predictors:
        torch.nn.init.normal_(predictor.weight)
    return model.to(dtype)


def some_windows(config, sizes, count=30):
    """Windows of two pictures, some of them twice: (image (P,), `Windows`)."""
    windows = config.geometry.layout(sizes).windows
    random = torch.Generator().manual_seed(0)
    image, number = (
        torch.randint(most, (count,), generator=random) for most in (2, len(windows))
    )
    number = torch.cat([number, number[:5]])
    return torch.cat([image, image[:5]]), windows[number]


@pytest.mark.parametrize("dtype", EXACT, ids=("float64", "float32"))
@pytest.mark.parametrize(("side", "fields"), [h[1:] for h in HEADS], ids=[h[0] for h in HEADS])
def test_every_head_gives_at_windows_what_it_gives_everywhere(side, fields, dtype):
    model = model_of(side, fields, dtype)
    images = [torch.rand(3, 40, 56, dtype=dtype)] * 2
    image, windows = some_windows(model.config, sizes_px(images))
    output = model.network(model.batch(images))
    natural = model.network.natural(output)
    dense = [
        WindowMasks(at, natural[k][a][image[at], :, :, windows.y[at], windows.x[at]])
        for k, a, at in windows.groups()
    ]
    sparse = list(model.network.mask_logits(output, image, windows))
    results = []
    for masks in (sparse, dense):
        values = torch.cat([group.values.flatten() for group in masks])
        weights = torch.linspace(-1, 1, len(values), dtype=dtype)
        wanted = list(model.network.mask_branch.parameters())
        grads = torch.autograd.grad((values * weights).sum(), wanted, retain_graph=True)
        results.append([values, *grads])
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).abs().max() <= EXACT[dtype] * theirs.abs().max()


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(*(st.integers(1, 4) for _ in range(4))),
    st.sampled_from(((1, 1), (1, 2), (2, 4), (2, 1), (3, 3), (1.5, 2))),
    st.sampled_from((0.0, 1.0, -0.5)), st.sampled_from(("pad", "clamp", "nearest")),
)  # fmt: skip
def test_windows_of_any_rule_are_those_of_the_whole(extents, step_and_lam, skew, edge):
    (step, lam), (num_v, num_u, height, width) = step_and_lam, extents
    x = torch.randn(2, num_v, num_u, 2 * height, 3 * width, dtype=torch.float64)
    x.requires_grad_()
    bins, rule = (round(lam * num_v), round(lam * num_u)), Rule(step, skew, edge)
    dense = ops.resample(x, bins, rule)
    cells = [torch.arange(extent) for extent in (2, *dense.shape[3:])]
    for index in (torch.cartesian_prod(*cells), torch.cartesian_prod(*cells)[:1]):
        sparse = ops.resample_windows(x, bins, rule, index)
        n, row, column = index.unbind(1)
        expected = dense[n, :, :, row, column]
        assert (sparse - expected).abs().max() <= OP_F64
        grad = torch.randn_like(sparse)
        ours, theirs = (
            torch.autograd.grad(y, x, grad, retain_graph=True)[0] for y in (sparse, expected)
        )
        assert (ours - theirs).abs().max() <= OP_F64


def test_windows_of_a_rule_have_second_derivatives():
    x = torch.randn(1, 2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([[0, 1, 2], [0, 1, 2], [0, 3, 0]])

    def windows(x):
        return ops.resample_windows(x, (4, 6), Rule(1, 1, "clamp"), index)

    assert torch.autograd.gradcheck(windows, x)
    assert torch.autograd.gradgradcheck(windows, x)


@pytest.mark.parametrize("lam", [1, 2, 4])
def test_the_rule_of_the_bipyramid_is_swap_align2nat(lam):
    x = torch.randn(2, 3, 5, 9, 8, dtype=torch.float64)
    bins, rule = (lam * 3, lam * 5), Rule(lam, 1, "pad")
    by_tables = torch.ops.tensormask_edu.resample(
        x, [*bins, -(-9 // lam), -(-8 // lam)], *rule, -6.0
    )
    for implementation in ("auto", "formula"):
        with ops.use(implementation):
            swapped = ops.swap_align2nat(x, lam)
        assert (by_tables - swapped).abs().max() <= OP_F64
    assert (ops.resample(x, bins, rule) - by_tables).abs().max() <= OP_F64


def test_the_rules_of_the_other_heads_are_the_papers_transforms():
    x = torch.randn(1, 3, 2, 5, 6, dtype=torch.float64)
    for edge in ("pad", "clamp"):
        aligned = ops.resample(x, (6, 4), Rule(1, 1, edge))
        assert torch.equal(aligned, ops.up_align2nat(x, 2, edge))
        natural = ops.resample(x, (6, 4), Rule(1, 0, edge))
        assert torch.equal(natural, ops.up_bilinear(x, 2, edge))
    nearest = ops.resample(x, (6, 4), Rule(1, 1, "nearest"))
    assert (nearest - ops.align2nat(ops.up_nearest(x, 2))).abs().max() <= OP_F64
    simple = ops.resample(x, (3, 2), Rule(1, 1, "nearest"))
    assert (simple - ops.align2nat(x)).abs().max() <= OP_F64


def test_a_natural_head_predicts_at_its_windows_alone(monkeypatch):
    model = model_of(9, {"representation": "natural", "upscale": 3.0} | SMALL)
    image, windows = some_windows(model.config, [(40, 56)] * 2)
    output = model.network(model.batch([torch.rand(3, 40, 56)] * 2))
    predictor = model.network.mask_branch.predictors[0]
    seen = []
    real = predictor.at_cells
    monkeypatch.setattr(predictor, "forward", None)  # nothing is predicted at all cells
    monkeypatch.setattr(predictor, "at_cells", lambda f: seen.append(f.shape) or real(f))
    list(model.network.mask_logits(output, image, windows))
    assert sum(rows for rows, _ in seen) == len(windows)


def test_fewer_bins_are_predicted_by_an_upscaling_head():
    model = model_of((15, 9), {"representation": "aligned", "upscale": 3.0} | SMALL)
    (predictor,) = model.network.mask_branch.predictors
    assert predictor.weight.shape[0] == 5 * 3 and predictor.bins == (5, 3)


# --- windows that are no squares --------------------------------------------------------------


@pytest.mark.parametrize("bipyramid", [True, False])
def test_windows_of_two_shapes_learn_and_detect(bipyramid):
    fields = {"strides_px": (4, 8), "bipyramid": bipyramid, "detections_per_image": 5}
    model = model_of((4, 8), fields | {"score_threshold": 1e-9})
    shapes = replace(model.config, sides_bins=((4, 8), (8, 4)))
    model = build_model(shapes).train()
    image, masks = torch.rand(3, 64, 64), torch.zeros(1, 64, 64, dtype=torch.bool)
    masks[0, 26:38, 16:44] = True  # 12 high, 28 wide: fits windows of 4 x 8 bins of 4 px
    truth = {"boxes": torch.tensor([[16.0, 26, 44, 38]]), "labels": torch.tensor([0])}
    truth["masks"] = masks
    losses = model([image], [truth])
    assert all(torch.isfinite(loss) for loss in losses.values())
    layout = shapes.geometry.layout([(64, 64)])
    targets = build_targets([truth], layout, shapes)
    groups = layout.windows[targets.window].groups()
    for (level, size_id, _), (_, bins) in zip(groups, targets.masks, strict=True):
        assert bins.shape[1:] == shapes.geometry.mask_bins(level, size_id)
        area_px = bins.flatten(1).sum(1) * shapes.geometry.bin_px(level) ** 2
        assert ((area_px - 12 * 28).abs() <= 12 * 28 / 2).all()  # rounded to bins of 4 or 8 px
    # On level 0 a window of 32 x 16 px is too narrow for the object.
    assert {
        size for level, size, _ in layout.windows[targets.window].groups() if not level
    } == {0}
    (found,) = model.eval()([image])
    assert found["masks"].shape == (5, 64, 64)


def test_windows_of_two_shapes_are_assigned_by_the_rule_for_every_window():
    config = ModelConfig(strides_px=(4, 8), sides_bins=((5, 9), (9, 5), 11))
    layout = config.geometry.layout([(64, 96)])
    boxes = torch.tensor([[10.0, 20, 42, 34], [50, 8, 62, 40], [30, 30, 70, 62]])
    windows, stride = layout.windows, layout.windows.stride_px.numpy()
    expected = reference.assign(
        windows.box_px.numpy(), stride, stride, boxes.numpy(), config.smallest_scale_px
    )
    found = torch.full((len(windows),), -1)
    pairs = assign(boxes, config, layout)
    found[pairs[:, 0]] = pairs[:, 1]
    assert found.tolist() == expected.tolist()
    widths_heights = (windows.box_px[:, 2:] - windows.box_px[:, :2]).int().tolist()
    assert {tuple(extent) for extent in widths_heights} == {
        (36, 20), (20, 36), (44, 44), (72, 40), (40, 72), (88, 88),
    }  # fmt: skip


def test_shapes_are_listed_by_their_longer_side():
    assert Geometry((4,), (5, (5, 7), (7, 5))).shapes_bins == ((5, 5), (5, 7), (7, 5))
    for sides in (((7, 5), (5, 7)), ((5, 7), 5), (5, (5, 5))):
        with pytest.raises(InputError, match="sides_bins: expected .* ascending"):
            Geometry((4,), sides)


# --- what is refused, and what still loads ----------------------------------------------------

REFUSED = {
    "natural bipyramid": ({"representation": "natural"}, "representation: expected aligned"),
    "upscaling bipyramid": ({"upscale": 3.0}, "upscale: expected 1, got 3.0; the bipyramid"),
    "lam 1.5 of 7 bins": (
        {"upscale": 1.5, "bipyramid": False, "sides_bins": (7,)},
        "upscale: expected a divisor of the sides .* 4.667 bins of 7",
    ),
    "lam below 1": ({"upscale": 0.5, "bipyramid": False}, "upscale: expected from 1 to 64"),
    "no representation": ({"representation": "polar"}, "expected natural or aligned"),
    "no interpolation": ({"interpolation": "cubic"}, "expected bilinear or nearest"),
    "no edge": ({"edge": "wrap"}, "edge: expected pad or clamp"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused_with_the_reason(name):
    fields, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        ModelConfig(**fields)


def test_a_configuration_from_before_the_heads_is_the_bipyramid():
    values = to_json(ModelConfig())
    for name in ("representation", "upscale", "interpolation", "edge"):
        del values[name]
    assert from_json(ModelConfig, json.loads(json.dumps(values))) == ModelConfig()


def test_a_configuration_with_shapes_goes_through_json():
    config = ModelConfig(sides_bins=(5, (5, 7)), bipyramid=False)
    assert from_json(ModelConfig, json.loads(json.dumps(to_json(config)))) == config


OTHER_HEADS = {
    "simple natural head": {"representation": "natural", "bipyramid": False},
    "upscaling aligned head, lam 3, nearest, pad": {
        "upscale": 3.0, "interpolation": "nearest", "bipyramid": False,
    },
    "bipyramid head, bilinear, clamp": {"edge": "clamp"},
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER_HEADS)
def test_exports_and_official_weights_name_the_head_they_cannot_take(name):
    model = model_of(9, OTHER_HEADS[name])
    assert model.config.head == name
    for use in (DetectorGraph, official_state, lambda model: load_official(model, {})):
        with pytest.raises(InputError, match=f"model: expected .*, got {name}"):
            use(model)


def test_exports_take_the_simple_aligned_head_and_no_rectangles():
    DetectorGraph(model_of(9, SMALL))
    with pytest.raises(InputError, match="model: expected square windows"):
        DetectorGraph(model_of((5, 9), SMALL))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bins": (4,)}, "bins: expected two integers"),
        ({"rule": Rule(0, 1, "pad")}, "rule: expected step > 0"),
        ({"rule": Rule(1, 1, "wrap")}, "rule: expected"),
        ({"index": torch.tensor([[0, 9, 0]])}, "index: expected 0 <="),
        ({"index": torch.zeros(1, 2, dtype=torch.int64)}, "index: expected a tensor"),
        ({"pad_value": float("inf")}, "pad_value: expected a finite"),
    ],
)
def test_wrong_arguments_of_the_operator_are_named(change, message):
    arguments = {
        "x": torch.zeros(1, 2, 2, 4, 4), "bins": (4, 4), "rule": Rule(1, 1, "clamp"),
        "index": torch.zeros(1, 3, dtype=torch.int64),
    } | change  # fmt: skip
    with pytest.raises(InputError, match=message):
        ops.resample_windows(**arguments)
