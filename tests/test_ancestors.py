"""The ancestors: exact identities of their masks, geometry, learning by heart, bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tolerances import OP_F64, RESIZED
from torch import Generator
from torchvision.ops import roi_pool

from tensormask_edu.ancestors import (
    deepmask,
    instance_fcn,
    judge,
    mask_rcnn,
    pyramid,
    sharpmask,
    tables,
    tensormask,
)
from tensormask_edu.base.errors import InputError
from tensormask_edu.config import AugmentConfig, InputConfig, TrainConfig
from tensormask_edu.data.coco import CocoFolder
from tensormask_edu.data.shapes import write_shapes
from tensormask_edu.evaluation import coco_scores, results
from tensormask_edu.ops import align2nat, up_nearest

SIZE_PX = 64
MODULES = {
    "TensorMask": tensormask,
    "DeepMask": deepmask,
    "SharpMask": sharpmask,
    "InstanceFCN": instance_fcn,
    "Mask R-CNN": mask_rcnn,
}
# Of the mask IoU that a detector's grid can reach, what it must get on pictures it learnt by
# heart: the issue's own bar.
BY_HEART = 0.90
# What fifty steps on two pictures give at least; a mask of zeros would have 0.
BEGUN = 0.6
# How far a mask loss is from that of equal shares before anything was learnt
BLANK = 0.2
BY_HEART_STEPS = {
    "DeepMask": 400,
    "SharpMask": 1500,
    "InstanceFCN": 800,
    "Mask R-CNN": 700,
}
# By heart: not what serves best on pictures that were not seen
BY_HEART_LR = {"DeepMask": 2e-3, "SharpMask": 4e-3, "InstanceFCN": 2e-3, "Mask R-CNN": 2e-3}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Small pictures of overlapping shapes: sixteen to learn, four to be judged by."""
    folder = tmp_path_factory.mktemp("overlap")
    write_shapes(folder, 16, 4, SIZE_PX, progress=False)
    return folder


def all_cells(height: int, width: int) -> torch.Tensor:
    """Every (0, y, x) of a grid."""
    return torch.cartesian_prod(torch.tensor([0]), torch.arange(height), torch.arange(width))


# --- InstanceFCN: aligned, nearest -----------------------------------------------------------


@pytest.mark.parametrize(("parts", "side"), [(5, 15), (3, 15), (3, 9), (7, 21), (5, 21)])
def test_assembling_is_align2nat_after_nearest_upscaling(parts, side):
    height, width = 9, 11
    maps = torch.randn(1, parts * parts, height, width)
    windows = instance_fcn.assemble(maps, all_cells(height, width), side)
    natural = windows.view(1, height, width, side, side).permute(0, 3, 4, 1, 2)
    aligned = maps.unflatten(1, (parts, parts))  # (1, k, k, H, W)
    size = [side, side, height, width]
    pad = instance_fcn.PAD
    one_pass = torch.ops.tensormask_edu.resample(aligned, size, 1.0, 1.0, "nearest", pad)
    assert torch.equal(natural, one_pass)
    assert torch.equal(natural, align2nat(up_nearest(aligned, side / parts), pad_value=pad))


def test_assembling_of_a_batch_reads_the_right_picture():
    maps = torch.randn(3, 9, 8, 8)
    index = torch.tensor([[2, 1, 7], [0, 4, 4], [2, 0, 0]])
    windows = instance_fcn.assemble(maps, index, 9)
    for window, (n, y, x) in zip(windows, index.tolist(), strict=True):
        alone = instance_fcn.assemble(maps[n : n + 1], torch.tensor([[0, y, x]]), 9)[0]
        assert torch.equal(window, alone)


# --- SharpMask: two forms ---------------------------------------------------------------------


def test_both_forms_of_the_refinement_are_equal():
    module = sharpmask.Refinement(6, 8).double()
    features = torch.randn(2, 6, 12, 14, dtype=torch.float64, requires_grad=True)
    masks = torch.randn(5, 8, 4, 4, dtype=torch.float64)
    # at every rim of the map, where padding is, and inside it
    index = torch.tensor([[0, 0, 0], [1, 8, 10], [0, 3, 5], [1, 0, 10], [1, 8, 2]])
    shared = module.refined(masks, module.horizontal(features), index)
    joint = module.side_by_side(masks, features, index)
    assert shared.shape == (5, 4, 8, 8)
    torch.testing.assert_close(shared, joint, rtol=0, atol=OP_F64)
    wanted = [features, *module.parameters()]
    weights = torch.randn_like(shared)
    for one, other in zip(
        torch.autograd.grad((shared * weights).sum(), wanted),
        torch.autograd.grad((joint * weights).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=OP_F64, atol=10 * OP_F64)


def test_refining_leaves_what_is_frozen_alone(world):
    first = deepmask.train(
        tables.OneClass(world, "train"), quick("DeepMask", 1), progress=False
    )
    before = {name: value.clone() for name, value in first.state_dict().items()}
    dataset, config = tables.OneClass(world, "train"), quick("SharpMask", 2)
    refined = sharpmask.train(dataset, config, progress=False, first=first)
    after = refined.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    torch.manual_seed(config.seed)
    assert not torch.equal(after["last.weight"], sharpmask.SharpMask(first).last.weight)


# --- DeepMask: natural ------------------------------------------------------------------------


def test_the_mask_layer_is_the_simple_natural_head():
    model = deepmask.DeepMask().double().eval()
    features = torch.randn(1, pyramid.Trunk.channels, 12, 13, dtype=torch.float64)
    codes = model.bottleneck(features)  # (1, 256, 5, 6)
    natural = model.natural(codes)  # (1, V, U, 5, 6)
    side = deepmask.BINS
    # Its rule: step 1, skew 0. Bin (v, u) of cell (y, x) is entry (v, u, y, x) itself.
    size = [side, side, *codes.shape[2:]]
    rule = torch.ops.tensormask_edu.resample(natural, size, 1.0, 0.0, "pad", -6.0)
    assert torch.equal(natural, rule)
    # The paper's form: linear layers on the cells of one patch
    squeeze, relu, spread = model.bottleneck
    for y, x in ((0, 0), (4, 5), (2, 3)):
        patch = features[:, :, y : y + deepmask.CELLS, x : x + deepmask.CELLS]
        code = F.linear(relu(squeeze(patch)).flatten(1), spread.weight.flatten(1), spread.bias)
        mask = F.linear(code, model.mask.weight.flatten(1), model.mask.bias).view(side, side)
        torch.testing.assert_close(natural[0, :, :, y, x], mask, rtol=0, atol=OP_F64)


# --- windows ----------------------------------------------------------------------------------


def test_a_cell_of_the_grid_sees_the_patch_that_training_cuts_out():
    image = torch.rand(3, 40, 52)
    model = deepmask.DeepMask(scales=(1.0,)).eval()
    (scale,) = model.seen(image)
    pad_px = deepmask.WINDOW_PX // 2 + deepmask.CONTEXT_PX
    padded = pyramid.resized(pyramid.normalised(image), 1.0, pad_px, 4)[0]
    patch_px = deepmask.WINDOW_PX + 2 * deepmask.CONTEXT_PX
    for y, x in ((4, 5), (5, 8)):  # inside: at the rim roi_align repeats the last half pixel
        seen = padded[:, 4 * y : 4 * y + patch_px, 4 * x : 4 * x + patch_px]
        patch = deepmask.patches_of(pyramid.normalised(image), scale.window_px[y, x][None])[0]
        inside = (seen != 0) & (patch != 0)
        torch.testing.assert_close(seen[inside], patch[inside], rtol=0, atol=RESIZED)


@pytest.mark.parametrize(("dilation", "seen_px"), [(1, 47), (2, 79)])
def test_a_cell_of_the_trunk_sees_so_many_pixels(dilation, seen_px):
    image = torch.randn(1, 3, 128, 128, requires_grad=True)
    trunk = pyramid.Trunk(dilation).eval()
    trunk(image)[1][0, :, 16, 16].sum().backward()
    rows = image.grad.abs().sum(dim=(0, 1, 3)).nonzero()[:, 0]
    assert rows.max() - rows.min() + 1 == seen_px


def test_windows_of_a_scale_lie_where_the_scaled_picture_is():
    grid = pyramid.grid_windows((40, 50), 0.5, (3, 4), 4, 0, 32)
    assert grid.shape == (3, 4, 4)
    # cell (1, 2): centre (8, 4) px of a picture of 25 x 20, so (16, 8) of 50 x 40; side 64
    assert grid[1, 2].tolist() == [16 - 32, 8 - 32, 16 + 32, 8 + 32]


def test_near_and_far_are_the_rule_of_the_paper():
    box = torch.tensor([[20.0, 20.0, 40.0, 30.0]])
    (window,) = pyramid.canonical(box)
    side = 20 * 224 / 128
    assert (window[2] - window[0]).item() == pytest.approx(side)
    steps = torch.tensor([0.0, 0.06, 0.08, 0.13, 0.15])  # of the side; 16/224 = 0.071
    moved = window + (steps[:, None] * side) * torch.tensor([1.0, 0, 1, 0])
    near, far = pyramid.near_and_far(moved, box)
    assert near[:, 0].tolist() == [True, True, False, False, False]
    assert far[:, 0].tolist() == [False, False, False, False, True]
    sides = side * 2 ** torch.tensor([0.2, 0.3, 0.9, 1.1, -1.1])
    scaled = pyramid.squares(torch.tensor([[30.0, 25.0]]).expand(5, 2), sides)
    near, far = pyramid.near_and_far(scaled, box)
    assert near[:, 0].tolist() == [True, False, False, False, False]
    assert far[:, 0].tolist() == [False, False, False, True, True]
    jittered = pyramid.jittered(window.expand(200, 4), Generator().manual_seed(0))
    assert pyramid.near_and_far(jittered, box)[0].float().mean() > 0.8  # as seen from itself


def test_taught_cells_of_a_crop_are_around_the_object():
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[0, 20:44, 24:40] = True
    truth = {"boxes": torch.tensor([[24.0, 20, 40, 44]]), "masks": mask}
    # a crop at the scale that makes the object canonical
    extent = instance_fcn.CROP_PX / (instance_fcn.WINDOW_PX * pyramid.CANONICAL / 24)
    region = pyramid.squares(torch.tensor([[32.0, 32.0]]), torch.tensor([extent]))[0]
    positive, negative, masks = instance_fcn.labelled(
        truth, region, (32, 32), Generator().manual_seed(0)
    )
    assert len(positive) == 4 and len(negative) == 4  # two cells a jitter on either axis
    assert sorted(map(tuple, positive.tolist())) == [(15, 15), (15, 16), (16, 15), (16, 16)]
    share = masks.mean(dim=(1, 2))  # of a window: 128/224 of it, times 16/24 of that
    torch.testing.assert_close(
        share, torch.full((4,), 0.571 * 0.571 * 0.667), atol=0.06, rtol=0
    )


# --- Mask R-CNN: poolers and mask predictors --------------------------------------------------


def test_pooling_on_a_pyramid_takes_each_region_from_its_level():
    maps = {str(level): torch.randn(2, 3, 64 >> level, 64 >> level) for level in range(3)}
    boxes = [
        torch.tensor([[0.0, 0, 20, 20], [10, 10, 90, 90], [0, 0, 250, 250]]),
        torch.tensor([[30.0, 40, 110, 100]]),
    ]
    pool = mask_rcnn.MultiScaleRoIPool(7)
    found = pool(maps, boxes, [(256, 256)] * 2)
    levels = (0, 1, 2, 1)  # sides 20, 80, 250, 69: 112 px belong to stride 16, 56 to stride 8
    regions = [(0, boxes[0][0]), (0, boxes[0][1]), (0, boxes[0][2]), (1, boxes[1][0])]
    for one, level, (image, box) in zip(found, levels, regions, strict=True):
        here = maps[str(level)][image : image + 1]
        assert torch.equal(one, roi_pool(here, [box[None]], 7, 1 / (4 << level))[0])


def test_a_bin_is_a_softmax_masks_where_its_class_has_the_largest_share():
    x = torch.randn(2, mask_rcnn.CHANNELS, 14, 14)
    predictor = mask_rcnn.SoftmaxMasks(5)
    share = predictor(x).softmax(1)
    lead = predictor.eval()(x)
    assert share.shape == lead.shape == (2, 5, 28, 28)
    assert torch.equal(lead > 0, F.one_hot(share.argmax(1), 5).movedim(-1, 1).bool())
    # A lead is of log shares
    torch.testing.assert_close(lead[:, 2].clamp(max=0), (share[:, 2] / share.amax(1)).log())


def test_agnostic_masks_are_the_same_for_all_classes():
    x = torch.randn(2, mask_rcnn.CHANNELS, 14, 14)
    agnostic = mask_rcnn.AgnosticMasks(5)(x)
    assert torch.equal(agnostic[:, 0], agnostic[:, 4])


def test_the_multinomial_loss_is_cross_entropy_over_classes_and_background():
    logits = torch.randn(3, 5, 28, 28, dtype=torch.float64)
    labels, inside = torch.tensor([1, 4, 2]), torch.rand(3, 28, 28) < 0.5
    told = torch.where(inside, labels[:, None, None], 0)  # (3, 28, 28)
    ours = mask_rcnn.multinomial_loss(logits, labels, inside.double())
    torch.testing.assert_close(ours, F.cross_entropy(logits, told), rtol=0, atol=OP_F64)


def test_softmax_masks_change_the_mask_loss_alone(world):
    dataset = CocoFolder(world, "train", cache=True)
    samples = [(judge.prepared(dataset, n, InputConfig()), dataset.truth(n)) for n in (0, 1)]
    model = mask_rcnn.MaskRCNN(len(dataset.class_names), masks="softmax").train()
    found = []
    for model.masks in ("sigmoid", "softmax"):
        torch.manual_seed(0)  # the same regions are taught
        found.append(model.losses(samples, Generator()))
    logistic, multinomial = (losses.pop("loss_mask").item() for losses in found)
    assert found[0] == found[1] and len(found[0]) == 4
    # Nothing is known yet: one of two, one of all classes and the background
    assert logistic == pytest.approx(np.log(2), abs=BLANK)
    assert multinomial == pytest.approx(np.log(len(dataset.class_names) + 1), abs=BLANK)


# --- the judge --------------------------------------------------------------------------------


def test_recall_of_proposals_is_pycocotools_own(world):
    """Of one class it is what `score` says; masks moved by up to 3 px make the scores vary."""
    dataset = tables.OneClass(world, "train", keep_empty=True)
    generator = np.random.default_rng(0)
    found = []
    for number in range(len(dataset)):
        truth = dataset.truth(number)
        masks = torch.stack(
            [mask.roll(tuple(generator.integers(-3, 4, 2)), (0, 1)) for mask in truth["masks"]]
        )
        scores = torch.from_numpy(generator.random(len(masks)))
        detection = truth | {"masks": masks, "scores": scores}
        found += results.to_coco(dataset.image_ids[number], detection, dataset.category_ids)
    truth = coco_scores.load_ground_truth(dataset)
    for annotation in truth.dataset["annotations"]:
        annotation["category_id"] = dataset.category_ids[0]
    truth.createIndex()
    wanted = coco_scores.score(truth, found)
    assert coco_scores.score(truth, found, trusted=True) == wanted
    ours = coco_scores.proposal_scores(dataset.ground_truth_path, found)
    assert 0.2 < ours["AR100"] < 0.9
    for name in ("AP", "AP50", "AP75", "AR10", "AR100", "ARs"):
        assert ours[name] == pytest.approx(wanted[name], abs=1e-12), name
    assert ours["AR1000"] == ours["AR100"]  # there are fewer
    assert ours["ARl"] == -1


@pytest.mark.parametrize("name", MODULES)
def test_a_row_is_trained_and_judged(world, name):
    made = tables.row("ancestors", name, world, seed=3, steps=4, progress=False)
    steps = round(4 * tables.TABLES["ancestors"][name].share)
    assert (made["model"], made["seed"], made["steps"]) == (name, 3, steps)
    assert made["cpu_seconds"] > 0 and made["parameters"] > 3e5 and made["ms_per_picture"] > 0
    for part in ("raw", "nms"):
        assert set(made[part]) >= {"AP", "AP75", "AR10", "AR100", "AR1000"}
        assert all(-1 <= value <= 1 for value in made[part].values())
        assert made[part]["AR10"] <= made[part]["AR100"] <= made[part]["AR1000"]
    assert 0 <= made["mask_iou"] < made["reachable_iou"] <= 1
    assert made["reachable_iou"] > 0.6  # its grid can say these shapes
    assert "classes" not in made


def test_a_run_repeats_bit_for_bit(world):
    dataset = tables.OneClass(world, "train")
    for name in ("DeepMask", "InstanceFCN", "Mask R-CNN"):
        one, other = (
            MODULES[name].train(dataset, quick(name, 2), progress=False).state_dict()
            for _ in range(2)
        )
        assert all(torch.equal(one[key], other[key]) for key in one), name


def test_classes_are_judged_where_they_are_asked_for(world):
    made = tables.row("roi", "RoIAlign, softmax", world, steps=1, progress=False)
    assert set(made["classes"]) == set(coco_scores.SCORE_NAMES)


def test_pictures_that_are_enlarged_are_judged_in_their_own_pixels(world):
    dataset = tables.OneClass(world, "val", keep_empty=True)
    model = deepmask.DeepMask(scales=(0.5, 1.0)).eval()
    config = InputConfig(enlarge=1.5)
    found = model.propose(judge.prepared(dataset, 0, config), 5)
    assert found.masks.shape[1:] == (96, 96)
    objects = judge.in_file(found, dataset, 0)
    assert all(o["segmentation"]["size"] == [SIZE_PX, SIZE_PX] for o in objects)
    assert set(judge.mask_ious(model, dataset, config)) == {"mask_iou", "reachable_iou"}


# --- learning ---------------------------------------------------------------------------------


def quick(name: str, steps: int, **changes) -> TrainConfig:
    """The recipe of a detector with so many steps."""
    return replace(tables.TABLES["ancestors"][name].recipe, steps=steps, **changes)


def share_of_reachable(name: str, dataset: CocoFolder, steps: int, batch_size: int) -> float:
    """Mask IoU after learning `dataset` by heart, of what the detector's grid can say."""
    changes = {"augment": AugmentConfig(), "weight_decay": 0, "lr": BY_HEART_LR[name]}
    config = quick(name, steps, batch_size=batch_size, **changes)
    model = MODULES[name].train(dataset, config, progress=False)
    figures = judge.mask_ious(model, dataset)
    return figures["mask_iou"] / figures["reachable_iou"]


def few_of(dataset: CocoFolder, numbers: list[int]) -> CocoFolder:
    """A part of a data set, for training and mask IoU."""
    dataset._images = [dataset._images[k] for k in numbers]
    dataset.image_ids = [dataset.image_ids[k] for k in numbers]
    return dataset


SLOWEST = "SharpMask"  # it has two stages


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.long) if name == SLOWEST else name
     for name in BY_HEART_STEPS],
)  # fmt: skip
def test_two_pictures_are_begun_to_be_learnt_by_heart(world, name):
    dataset = few_of(tables.OneClass(world, "train"), [0, 1])
    steps = 150 if name == SLOWEST else 50
    assert share_of_reachable(name, dataset, steps, batch_size=2) >= BEGUN


@pytest.mark.long
@pytest.mark.parametrize(("name", "steps"), BY_HEART_STEPS.items())
def test_sixteen_pictures_are_learnt_by_heart(world, name, steps):
    dataset = tables.OneClass(world, "train")
    assert share_of_reachable(name, dataset, steps, batch_size=4) >= BY_HEART


@pytest.mark.long
@pytest.mark.parametrize("name", BY_HEART_STEPS)
def test_nuclei_are_learnt(shared, name):
    """Real pictures: a short run draws better masks than a single step does."""
    nuclei = CocoFolder(shared / "data/nuclei-dsb2018", "train", cache=True)
    dataset = few_of(nuclei, [0, 60, 120, 180])
    before, after = (
        MODULES[name].train(dataset, quick(name, steps, batch_size=2), progress=False)
        for steps in (1, 60)
    )
    iou_before, iou_after = (judge.mask_ious(m, dataset)["mask_iou"] for m in (before, after))
    assert iou_after > iou_before + 0.1


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cousins", "DeepMask"), "table: expected one of ancestors, roi, got 'cousins'"),
        (("ancestors", "deepmask"), "name: expected one of TensorMask, DeepMask"),
    ],
)
def test_unknown_rows_are_named(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        tables.row(*arguments, tmp_path)


def test_budgets_and_data_are_checked(tmp_path, world):
    with pytest.raises(InputError, match="steps: expected at least 1, got 0"):
        tables.row("ancestors", "DeepMask", world, steps=0)
    with pytest.raises(InputError, match="folder: expected"):
        tables.row("ancestors", "DeepMask", tmp_path)
    dataset = tables.OneClass(world, "val")
    with pytest.raises(InputError, match="dataset: expected all pictures: keep_empty=True"):
        judge.judge(deepmask.DeepMask(), dataset, progress=False)
    with pytest.raises(InputError, match="minutes: expected None"):
        deepmask.train(dataset, replace(deepmask.RECIPE, minutes=1.0), progress=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes: expected at least 1, got 0"),
        ({"num_classes": 1, "pooling": "warp"}, "pooling: expected 'align' or 'pool'"),
        ({"num_classes": 1, "masks": "tanh"}, "masks: expected 'sigmoid', 'softmax' or"),
    ],
)
def test_forms_of_mask_rcnn_are_checked(arguments, message):
    with pytest.raises(InputError, match=message):
        mask_rcnn.MaskRCNN(**arguments)
