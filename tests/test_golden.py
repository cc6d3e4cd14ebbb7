"""The official implementation's activations, detections, targets, losses and gradients."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
import torch
from tolerances import ACTIVATION, BOX_PX, GRAD_REL, LOSS_REL, MASK_IOU, SCORE

from tensormask_edu import masks as rle
from tensormask_edu.detector.model import build_model
from tensormask_edu.detector.targets import build_targets
from tensormask_edu.masks import iou
from tensormask_edu.weights.checkpoint import load_official, official_state

HEIGHT, WIDTH = 256, 320


@pytest.fixture(scope="module")
def golden(shared):
    """`deterministic.py` of the golden folder, which rebuilds the inputs."""
    spec = importlib.util.spec_from_file_location(
        "deterministic", shared / "golden" / "deterministic.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model(shared, golden):
    model = build_model("r50_fpn_1x")
    shapes = json.loads((shared / "golden" / "checkpoint_names.json").read_text())
    state = {
        n: torch.from_numpy(golden.deterministic_array(n, tuple(s))) for n, s in shapes.items()
    }
    load_official(model, state)
    return model


@pytest.fixture(scope="module")
def image(golden):
    """RGB in [0, 1]; the official input is BGR."""
    bgr = golden.deterministic_image("image", HEIGHT, WIDTH)
    return torch.from_numpy(bgr[::-1].copy()).float() / 255


@pytest.mark.parametrize(
    "preset, count", [("r50_fpn_1x", 36_514_370), ("r101_fpn_6x", 55_454_274)]
)
def test_the_official_model_has_as_many_parameters(preset, count):
    """Weights and biases, the frozen ones of stem and res2 included, FrozenBN's buffers not."""
    with torch.device("meta"):
        model = build_model(preset)
    assert sum(p.numel() for p in model.parameters()) == count
    assert sum(p.numel() for p in model.parameters() if not p.requires_grad) == 222_400
    buffers = sum(b.numel() for b in model.buffers()) - 6  # without mean and std
    assert preset == "r101_fpn_6x" or buffers == 106_240


def test_official_names_and_back_is_exact(model, shared):
    shapes = json.loads((shared / "golden" / "checkpoint_names.json").read_text())
    state = official_state(model)
    assert {name: list(tensor.shape) for name, tensor in state.items()} == shapes
    again = build_model("r50_fpn_1x")
    load_official(again, state)
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True)
    )


def test_activations_are_the_official_ones(model, image, shared):
    golden = np.load(shared / "golden" / "forward.npz")
    with torch.inference_mode():
        output = model.eval().network(model.batch([image]))
        natural = model.network.natural(output)
    for level in range(6):
        parts = {
            "feature": output.features[level],
            "logits": output.logits[level],
            "deltas": output.deltas[level],
            "masks11": natural[level][0],
            "masks15": natural[level][1],
        }
        for name, tensor in parts.items():
            probed = tensor.flatten().numpy()[golden[f"{name}_{level}_index"]]
            np.testing.assert_allclose(
                probed, golden[f"{name}_{level}_value"], rtol=0, atol=ACTIVATION
            )


@pytest.mark.parametrize(
    "prefix, size", [("detections", (256, 320)), ("detections_2x", (512, 640))]
)
def test_detections_are_the_official_ones_in_order(model, image, shared, prefix, size):
    golden = np.load(shared / "golden" / "forward.npz")
    with torch.inference_mode():
        found = model.eval()([image], output_sizes=[size])[0]
    assert len(found["scores"]) == len(golden[f"{prefix}_scores"]) == 100
    np.testing.assert_array_equal(found["labels"].numpy(), golden[f"{prefix}_classes"])
    np.testing.assert_allclose(
        found["boxes"].numpy(), golden[f"{prefix}_boxes"], rtol=0, atol=BOX_PX
    )
    np.testing.assert_allclose(
        found["scores"].numpy(), golden[f"{prefix}_scores"], rtol=0, atol=SCORE
    )
    shape = golden[f"{prefix}_masks_shape"]
    truth = (
        np.unpackbits(golden[f"{prefix}_masks_packed"])[: np.prod(shape)]
        .reshape(shape)
        .astype(bool)
    )
    assert iou(found["masks"].numpy(), truth, both_empty=1.0).min() >= MASK_IOU


def instances(golden, form):
    """The ten golden objects with polygons or with bitmaps as masks."""
    polygons = [[golden[f"polygon{i}"]] for i in range(10)]
    truth = {
        "boxes": torch.from_numpy(golden["boxes"]).float(),
        "labels": torch.from_numpy(golden["classes"]).long(),
        "image_id": 0,
    }
    if form == "polygon":
        return truth | {"polygons": polygons}
    masks = [rle.draw([p[0].tolist()], (HEIGHT, WIDTH)) for p in polygons]
    return truth | {"masks": torch.from_numpy(np.stack(masks))}


@pytest.mark.parametrize("form", ["polygon", "bitmask"])
def test_targets_are_the_official_ones(model, shared, form):
    golden = np.load(shared / "golden" / "training.npz")
    layout = model.config.geometry.layout([(HEIGHT, WIDTH)])
    targets = build_targets([instances(golden, form)], layout, model.config)
    np.testing.assert_array_equal(targets.window.numpy(), golden["assigned_windows"])
    np.testing.assert_array_equal(targets.instance.numpy(), golden["assigned_instances"])
    np.testing.assert_allclose(
        targets.deltas.numpy(), golden[f"{form}_deltas"], rtol=0, atol=ACTIVATION
    )
    positives = layout.windows[targets.window]
    for (level, size_id, _), masks in zip(positives.groups(), targets.masks, strict=True):
        prefix = f"{form}_masktarget_{level}_{size_id}"
        shape = golden[f"{prefix}_shape"]
        bits = np.unpackbits(golden[f"{prefix}_packed"], axis=1)[:, : shape[1] * shape[2]]
        truth = bits.reshape(shape).astype(bool)
        np.testing.assert_array_equal(masks.values.numpy(), truth)


@pytest.mark.parametrize("form", ["polygon", "bitmask"])
def test_losses_and_gradients_are_the_official_ones(model, image, shared, form):
    golden = np.load(shared / "golden" / "training.npz")
    model.train().zero_grad()
    losses = model([image], [instances(golden, form)])
    sum(losses.values()).backward()
    for ours, official in (("class", "cls"), ("box", "box_reg"), ("mask", "mask")):
        assert losses[f"loss_{ours}"].item() == pytest.approx(
            golden[f"{form}_loss_{official}"], rel=LOSS_REL
        )
    gradients = {name: p.grad for name, p in _by_official_name(model).items()}
    probed = [key for key in golden.files if key.startswith(f"{form}_gradnorm_")]
    assert len(probed) == 6
    for key in probed:
        norm = gradients[key.removeprefix(f"{form}_gradnorm_")].norm().item()
        assert norm == pytest.approx(golden[key], rel=GRAD_REL)


def _by_official_name(model):
    from tensormask_edu.weights.official import official_name

    return {official_name(n, model.config.sides_bins): p for n, p in model.named_parameters()}


def test_weights_of_another_model_are_refused(model):
    state = official_state(model)
    missing = {name: tensor for name, tensor in state.items() if name != "head.cls_score.bias"}
    with pytest.raises(
        ValueError, match=r"1 official tensors are missing, the first is head\.cls_score\.bias"
    ):
        load_official(model, missing)
    with pytest.raises(ValueError, match="not of this model"):
        load_official(model, state | {"head.extra": torch.zeros(1)})
    wrong = state | {"head.cls_score.bias": torch.zeros(3)}
    with pytest.raises(
        ValueError, match=r"head\.cls_score\.bias: expected shape \(160,\), got \(3,\)"
    ):
        load_official(model, wrong)
