"""The detector's contract, and the two ways to evaluate masks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tolerances import ACTIVATION, GRAD_REL, HALF_IOU, HALF_SCORE, LOSS_REL
from torchvision.ops import box_iou

from tensormask_edu.base.errors import InputError
from tensormask_edu.config import MODELS, model_config
from tensormask_edu.detector import inference, losses
from tensormask_edu.detector.backbone import Backbone
from tensormask_edu.detector.model import build_model
from tensormask_edu.detector.network import WindowMasks
from tensormask_edu.detector.targets import build_targets
from tensormask_edu.geometry import sizes_px
from tensormask_edu.masks import iou


def example(height=96, width=64, objects=3, num_classes=4):
    """An image and its truth with rectangles as objects."""
    masks = torch.zeros(objects, height, width, dtype=torch.bool)
    boxes = torch.zeros(objects, 4)
    for g in range(objects):
        y, x, side = 8 + 20 * g, 4 + 12 * g, 14 + 6 * g
        masks[g, y : y + side, x : x + side] = True
        boxes[g] = torch.tensor([x, y, x + side, y + side])
    labels = torch.arange(objects) % num_classes
    return torch.rand(3, height, width), {
        "boxes": boxes,
        "labels": labels,
        "masks": masks,
        "image_id": 0,
    }


def busy(model):
    """The model with a class bias that lets an untrained network report detections."""
    torch.nn.init.constant_(model.network.class_predictor.bias, -1.0)
    return model.eval()


def test_the_tiny_model_has_the_promised_number_of_parameters():
    parameters = build_model("tiny", num_classes=4).parameters()
    assert 0.7e6 < sum(p.numel() for p in parameters) < 0.8e6


def test_training_returns_three_finite_losses_that_reach_every_parameter():
    model = build_model("tiny", num_classes=4).train()
    image, truth = example()
    result = model([image], [truth])
    assert sorted(result) == ["loss_box", "loss_class", "loss_mask"]
    sum(result.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_pictures_are_padded_at_the_right_and_bottom_with_the_mean_colour():
    model, images = build_model("tiny"), [torch.rand(3, 33, 40), torch.rand(3, 60, 20)]
    batch = model.batch(images)
    assert batch.shape == (2, 3, 64, 64)
    for row, image in zip(batch, images, strict=True):
        height, width = image.shape[1:]
        assert torch.equal(row[:, :height, :width], model.normalise(image))
        assert not row[:, height:].any() and not row[:, :, width:].any()


@pytest.mark.parametrize("groups", [0, 8])
def test_a_fresh_model_gives_every_class_its_prior_probability(groups):
    config = replace(MODELS["tiny"], tower_norm_groups=groups)
    model = build_model(config)
    # Towers that nothing normalises start near zero: at a hundredth, as the predictors.
    deviations = [
        m.weight.std() for m in model.network.class_tower if hasattr(m, "kernel_size")
    ]
    assert all((deviation < 0.011) == (groups == 0) for deviation in deviations)
    with torch.inference_mode():
        output = model.network(torch.randn(1, 3, 64, 64))
    for logits in output.logits:
        probability = logits.sigmoid()
        assert config.prior / 2 < probability.min() and probability.max() < config.prior * 2


def test_a_fresh_pyramid_of_the_official_backbone_keeps_the_size_of_signals():
    lateral = Backbone("resnet50", 64, 4).fpn.laterals[0]
    signal = lateral(torch.randn(1, 256, 32, 32))
    assert signal.std().item() == pytest.approx(1, rel=0.05) and not lateral.bias.any()


def test_evaluation_returns_detections_in_the_images_own_sizes():
    model = busy(build_model("tiny", num_classes=4))
    images = [torch.rand(3, 50, 70), torch.rand(3, 96, 33)]
    with torch.inference_mode():
        found = model(images)
    for detection, image in zip(found, images, strict=True):
        count = len(detection["scores"])
        assert 0 < count <= model.config.detections_per_image
        assert detection["boxes"].shape == (count, 4) and detection["labels"].shape == (count,)
        assert detection["masks"].shape == (count, *image.shape[-2:])
        assert detection["masks"].dtype == torch.bool
        assert (detection["scores"].diff() <= 0).all()
        height, width = image.shape[-2:]
        assert (detection["boxes"] >= 0).all() and detection["boxes"][:, 2::2].max() <= width
        assert detection["boxes"][:, 1::2].max() <= height


def test_output_sizes_scale_boxes_and_masks():
    model, image = busy(build_model("tiny", num_classes=4)), torch.rand(3, 64, 64)
    with torch.inference_mode():
        plain, double = model([image])[0], model([image], output_sizes=[(128, 128)])[0]
    torch.testing.assert_close(double["boxes"], 2 * plain["boxes"], rtol=1e-5, atol=1e-3)
    assert double["masks"].shape[1:] == (128, 128)
    areas = plain["masks"].sum((1, 2)), double["masks"].sum((1, 2))
    large = areas[0] > 100
    assert large.any()
    torch.testing.assert_close(
        areas[1][large] / areas[0][large],
        torch.full((int(large.sum()),), 4.0),
        rtol=0.1,
        atol=0,
    )


def test_an_image_gives_the_same_detections_alone_and_in_a_batch():
    model = busy(build_model("tiny", num_classes=4))
    images = [torch.rand(3, 64, 64), torch.rand(3, 64, 64)]
    with torch.inference_mode():
        alone, together = model(images[1:])[0], model(images)[1]
    # An untrained model's scores nearly tie, so their order may differ; the scores may not.
    torch.testing.assert_close(alone["scores"], together["scores"], rtol=0, atol=1e-5)
    assert alone["masks"].shape == together["masks"].shape


@pytest.mark.parametrize("bipyramid", [True, False])
def test_the_mask_loss_at_positive_windows_is_the_dense_one(bipyramid):
    config = replace(model_config("tiny", 4), bipyramid=bipyramid)
    model = build_model(config).train()
    image, truth = example()
    output = model.network(model.batch([image, image]))
    layout = config.geometry.layout(sizes_px([image, image]))
    targets = build_targets([truth, truth], layout, config)
    chosen = layout.windows[targets.window]
    natural = model.network.natural(output)
    dense = [
        WindowMasks(
            where, natural[k][a][targets.image[where], :, :, chosen.y[where], chosen.x[where]]
        )
        for k, a, where in chosen.groups()
    ]
    sparse = list(model.network.mask_logits(output, targets.image, chosen))
    for ours, theirs in zip(sparse, dense, strict=True):
        torch.testing.assert_close(ours.values, theirs.values, rtol=0, atol=ACTIVATION)
    parameters = list(model.network.mask_branch.parameters())
    results = []
    for logits in (sparse, dense):
        loss = losses.mask_loss(logits, targets.masks, config.mask_positive_weight)
        results.append((loss.item(), torch.autograd.grad(loss, parameters, retain_graph=True)))
    assert results[0][0] == pytest.approx(results[1][0], rel=LOSS_REL)
    for ours, theirs in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("bipyramid", [True, False])
@pytest.mark.parametrize("objects", [(0, 2, 1), (3, 0, 0), (0, 0, 0)])
def test_what_the_losses_do_not_read_changes_neither_them_nor_their_gradients(
    objects, bipyramid
):
    config = replace(model_config("tiny", 4), bipyramid=bipyramid)
    model = build_model(config).train().double()
    images, truths = zip(*(example(objects=count) for count in objects), strict=True)
    layout = config.geometry.layout(sizes_px(images))
    targets = build_targets(truths, layout, config)
    batch, read = (
        model.batch([image.double() for image in images]),
        model._read(targets, layout),
    )
    assert [len(numbers) for numbers in read] != [len(images)] * len(read)
    results = []
    for asked in (read, None):  # what is read, and everything
        found = model.losses(model.network(batch, asked), targets, layout)
        gradients = torch.autograd.grad(
            sum(found.values()), list(model.parameters()), materialize_grads=True
        )
        results.append((found, gradients))
    (some, some_gradients), (every, every_gradients) = results
    for name in every:
        torch.testing.assert_close(some[name], every[name], rtol=LOSS_REL, atol=0)
    for ours, theirs in zip(some_gradients, every_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=GRAD_REL, atol=1e-9)


def test_a_batch_without_objects_gives_every_parameter_a_gradient():
    """DistributedDataParallel would wait for one that never comes."""
    model = build_model("tiny", num_classes=4).train()
    image, truth = example(objects=0)
    sum(model([image, image], [truth, truth]).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_a_batch_with_positives_of_one_size_gives_every_parameter_a_gradient():
    model = build_model("tiny", num_classes=4).train()
    image, masks = torch.rand(3, 64, 64), torch.zeros(1, 64, 64, dtype=torch.bool)
    masks[0, 30:38, 30:38] = True
    truth = {"boxes": torch.tensor([[30.0, 30, 38, 38]]), "masks": masks}
    truth["labels"] = torch.tensor([0])
    layout = model.config.geometry.layout([(64, 64)])
    targets = build_targets([truth], layout, model.config)
    assert layout.windows.size_id[targets.window].unique().tolist() == [0]
    sum(model([image], [truth]).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_masks_of_detections_are_the_dense_ones():
    model, image = busy(build_model("tiny", num_classes=4)), torch.rand(3, 64, 96)
    with torch.inference_mode():
        found = model([image])[0]
        output = model.network(model.batch([image]))
        natural = model.network.natural(output)
        windows = model.config.geometry.layout([(64, 96)]).windows
        flat = [
            tensor.permute(0, 3, 4, 1, 2).flatten(0, 2) for sizes in natural for tensor in sizes
        ]
        kept = inference.keep(
            *(x[0] for x in _class_and_box(model, output)), windows, model.config
        )
        kept = inference.to_output_size(kept, (64, 96), (64, 96))
        chosen = windows[kept.window]
        groups = []
        for level, a, where in chosen.groups():
            cells = chosen.y[where] * (96 // model.config.strides_px[level]) + chosen.x[where]
            groups.append(WindowMasks(where, flat[level * 2 + a][cells]))
        dense = inference.paste(groups, chosen.box_px, 64, 96)
    assert torch.equal(found["masks"], dense)


def _class_and_box(model, output):
    from tensormask_edu.detector.network import per_window

    return [
        per_window(maps, model.config.geometry.num_sizes)
        for maps in (output.logits, output.deltas)
    ]


def test_an_image_without_objects_has_zero_box_and_mask_loss():
    model = build_model("tiny", num_classes=4).train()
    image, truth = example(objects=0)
    result = model([image], [truth])
    assert result["loss_box"].item() == 0 and result["loss_mask"].item() == 0
    assert result["loss_class"].item() > 0
    sum(result.values()).backward()


def test_a_model_that_finds_nothing_returns_empty_tensors():
    model = build_model("tiny", num_classes=4).eval()
    torch.nn.init.constant_(model.network.class_predictor.bias, -20.0)
    with torch.inference_mode():
        found = model([torch.rand(3, 40, 60)])[0]
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "boxes": (0, 4),
        "scores": (0,),
        "labels": (0,),
        "masks": (0, 40, 60),
    }


def test_polygons_and_masks_of_the_same_rectangle_give_nearly_the_same_loss():
    model = build_model("tiny", num_classes=4).train()
    image, truth = example()
    with torch.no_grad():
        by_mask = model([image], [truth])
        polygons = [
            [[x0, y0, x1, y0, x1, y1, x0, y1]] for x0, y0, x1, y1 in truth["boxes"].tolist()
        ]
        without = {name: value for name, value in truth.items() if name != "masks"}
        by_polygon = model([image], [without | {"polygons": polygons}])
    assert by_polygon["loss_class"] == by_mask["loss_class"]
    assert by_polygon["loss_mask"].item() == pytest.approx(
        by_mask["loss_mask"].item(), rel=0.05
    )


def test_one_step_of_an_optimizer_lowers_the_loss():
    model = build_model("tiny", num_classes=4).train()
    image, truth = example()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    before = None
    for _ in range(8):
        loss = sum(model([image, image], [truth, truth]).values())
        before = loss.item() if before is None else before
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.9 * before


def test_levels_beyond_the_body_are_cropped_to_the_finest_grid():
    config = replace(MODELS["tiny"], strides_px=(4, 8, 16, 32, 64))
    model = build_model(config).eval()
    output = model.network(model.batch([torch.rand(3, 96, 96)]))
    for level in range(5):
        for size_id in range(2):
            assert output.predicted(level, size_id).shape[-2:] == (24, 24)
    grids = [tuple(logits.shape[-2:]) for logits in output.logits]
    assert grids == config.geometry.grid_sizes(96, 96)


def spread(model):
    """The model with scores far apart, so that rounding does not change their order much."""
    model = model.eval()
    with torch.no_grad():
        logits = model.network(model.batch([torch.rand(3, 64, 96)])).logits
        model.network.class_predictor.weight.mul_(
            3 / torch.cat([x.flatten() for x in logits]).std()
        )
    torch.nn.init.constant_(model.network.class_predictor.bias, -4.0)
    return model


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_best_detections_in_half_precision_are_nearly_those_of_float32(dtype):
    model, image = spread(build_model("tiny", num_classes=4)), torch.rand(3, 64, 96)
    with torch.inference_mode():
        exact = model([image])[0]
        with torch.autocast("cpu", dtype):
            found = model([image])[0]
    assert found["boxes"].dtype == found["scores"].dtype == torch.float32
    assert exact["scores"][0] > 0.5 and len(exact["scores"]) > 10
    for box, score, label, mask in zip(*(exact[k][:10] for k in DETECTION), strict=True):
        same = found["labels"] == label
        overlap = box_iou(box[None], found["boxes"][same])[0]
        best = overlap.argmax()
        assert overlap[best] > HALF_IOU
        assert (found["scores"][same][best] - score).abs() < HALF_SCORE
        assert iou(found["masks"][same][best], mask, both_empty=1.0) >= HALF_IOU


DETECTION = ("boxes", "scores", "labels", "masks")


@pytest.mark.parametrize(
    "backend, levels", [("aot_eager", 2), pytest.param("inductor", 1, marks=pytest.mark.long)]
)
def test_the_compiled_network_is_one_graph_with_the_same_numbers(backend, levels):
    config = replace(model_config("tiny", 4), strides_px=(4, 8)[:levels], tower_convs=1)
    training = backend == "aot_eager"
    model = build_model(config).train(training)
    (image, truth), names = example(), list(model.state_dict())
    batch = model.batch([image, image])
    with torch.set_grad_enabled(training):
        expected = model.network(batch)
        # fullgraph: a graph break would be an error
        model.network.compile(fullgraph=True, backend=backend)
        found = model.network(batch)
    for maps, expected_maps in zip(found[:4], expected[:4], strict=True):
        for map_, expected_map in zip(maps, expected_maps, strict=True):
            torch.testing.assert_close(map_, expected_map, rtol=0, atol=ACTIVATION)
    if training:
        losses_ = model([image], [truth])
        sum(losses_.values()).backward()
        for name, parameter in model.network.mask_branch.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert list(model.state_dict()) == names  # so a checkpoint does not notice


IMAGE, TRUTH = torch.rand(3, 32, 32), example(32, 32, objects=0)[1]


@pytest.mark.parametrize(
    "images, targets, message",
    [
        ([], [], r"images: expected a non-empty list"),
        (
            [torch.rand(1, 32, 32)],
            [TRUTH],
            r"images\[0\]: expected shape \(3, H, W\).*got \(1, 32, 32\)",
        ),
        ([torch.rand(3, 0, 32)], [TRUTH], r"images\[0\]: expected shape"),
        ([torch.zeros(3, 32, 32, dtype=torch.uint8)], [TRUTH], "divide uint8 by 255"),
        (
            [IMAGE],
            None,
            r"targets: expected one dict per image \(1\) in training mode, got none",
        ),
        ([IMAGE], [], r"targets: expected one dict per image \(1\)"),
        (
            [IMAGE],
            [{"boxes": torch.zeros(0, 4)}],
            "expected keys boxes, labels, and masks or polygons",
        ),
        (
            [IMAGE],
            [TRUTH | {"boxes": torch.zeros(2, 4)}],
            r"targets\[0\]\['boxes'\]: expected shape \(0, 4\)",
        ),
        (
            [IMAGE],
            [TRUTH | {"masks": torch.zeros(0, 8, 8)}],
            r"targets\[0\]\['masks'\]: expected shape \(0, 32, 32\), got \(0, 8, 8\)",
        ),
        (
            [IMAGE],
            [{"boxes": torch.zeros(1, 4), "labels": torch.tensor([4]), "polygons": [[]]}],
            r"targets\[0\]\['labels'\]: expected classes 0..3, got \[4\]",
        ),
    ],
)
def test_bad_calls_name_the_argument(images, targets, message):
    with pytest.raises(InputError, match=message):
        build_model("tiny", num_classes=4).train()(images, targets)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("huge",), "preset: expected one of tiny"),
        (("tiny", 0), "num_classes: expected at least 1, got 0"),
        ((MODELS["tiny"], 3), "num_classes: expected 1, as in the configuration, got 3"),
    ],
)
def test_build_model_refuses_what_it_cannot_build(arguments, message):
    with pytest.raises(InputError, match=message):
        build_model(*arguments)
