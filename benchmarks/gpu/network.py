"""Checks of the whole model: the GPU computes what the processor computes, and it learns.

The processor is held to the official implementation by the tests; where its golden numbers are
at hand (`TENSORMASK_SHARED`) the GPU is held to them here too. TF32 is off.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from factors import agreement, recorded
from samples import GOLDEN, golden_model, objects, spread_model, tf32
from torch import Tensor, nn

from gpu.task import NotHere, Row, Task, attempt

# Of the largest value of a map: a GPU's convolutions sum in another order, or by Winograd,
# whose roundings are some times those of direct sums, through twenty layers.
MAPS = 1e-4
LOSSES = 1e-4  # relative: sums over all windows
GRADIENTS = 1e-3  # of the whole gradient's norm
FOUND = 0.98  # mean IoU of masks: with random weights some scores are near ties
# Against the official implementation, absolute and relative: five times what a CPU is held to.
ACTIVATIONS, OFFICIAL_LOSSES, OFFICIAL_NORMS = 5e-4, 5e-5, 2.5e-3


def network(task: Task) -> Iterator[Row]:
    """A row per check."""
    with tf32(False):
        yield attempt(task, "its maps and masks are the processor's", maps)
        yield attempt(task, "its losses and gradients too", gradients)
        yield attempt(task, "a recorded network computes new pictures", replayed)
        if task.sizes.golden:
            yield attempt(task, "the official activations", activations)
            yield attempt(task, "the official losses", official_losses)
    for precision in ("float32", *task.sizes.precisions):
        yield attempt(task, f"it learns in {precision}", learns, precision)


# --- beside the processor ---------------------------------------------------------------------


def maps(task: Task) -> Row:
    """Logits, deltas and natural masks of a picture, then what is detected."""
    image = torch.rand(3, *task.sizes.compared)
    found = []
    for kind in ("cpu", task.device.kind):
        model = spread_model(task.sizes.preset, kind).eval()
        with torch.inference_mode():
            output = model.network(model.batch([image.to(kind)]))
            masks = [each for level in model.network.natural(output) for each in level]
            parts = {"logits": output.logits, "deltas": output.deltas, "masks": masks}
            (detected,) = model([image.to(kind)])
        found.append((parts, {name: value.cpu() for name, value in detected.items()}))
    (expected, theirs), (got, ours) = found
    errors = {name: max(map(relative, got[name], expected[name])) for name in got}
    alike = agreement(theirs, ours)
    assert max(errors.values()) <= MAPS, errors
    assert len(ours["scores"]) == len(theirs["scores"]) and alike >= FOUND, alike
    return {"errors": errors, "mask_iou": alike}


def relative(got: Tensor, expected: Tensor) -> float:
    """The largest difference, of the largest value."""
    return ((got.cpu() - expected).abs().max() / expected.abs().max()).item()


def gradients(task: Task) -> Row:
    """The three losses of a picture with objects, and the gradient of their sum."""
    image, found = torch.rand(3, *task.sizes.compared), []
    for kind in ("cpu", task.device.kind):
        model = spread_model(task.sizes.preset, kind).train()
        losses = model([image.to(kind)], objects(1, *task.sizes.compared, kind))
        sum(losses.values()).backward()
        found.append(({name: loss.item() for name, loss in losses.items()}, whole(model)))
    (expected, theirs), (got, ours) = found
    errors = {name: abs(got[name] / expected[name] - 1) for name in got}
    errors["gradient"] = ((ours - theirs).norm() / theirs.norm()).item()
    assert max(errors[name] for name in got) <= LOSSES, errors
    assert errors["gradient"] <= GRADIENTS, errors
    return {"errors": errors}


def whole(model: nn.Module) -> Tensor:
    """The gradients of all parameters in a row: (P,)."""
    parts = [p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None]
    return torch.cat(parts)


def replayed(task: Task) -> Row:
    """A network recorded with one picture, given another, beside the same not recorded."""
    kind, size = task.device.kind, task.sizes.compared
    model = spread_model(task.sizes.preset, kind).eval()
    first, second = (torch.rand(3, *size, device=kind) for _ in range(2))
    with torch.inference_mode():
        forward = recorded(model, "float32", [first])
        batch = model.batch([second])
        got, expected = forward(batch), model.network(batch)
        errors = [
            relative(g, e.cpu()) for g, e in zip(got.logits, expected.logits, strict=True)
        ]
    assert max(errors) <= MAPS, errors
    return {"error": max(errors)}


# --- beside the official implementation -------------------------------------------------------

HEIGHT, WIDTH, INSTANCES = 256, 320, 10


def golden_file(name: str) -> Path:
    """A file of the golden folder; NotHere where there is none."""
    if not (GOLDEN / name).is_file():
        raise NotHere("no golden numbers: TENSORMASK_SHARED names the folder they lie in")
    return GOLDEN / name


def golden_image(task: Task) -> Tensor:
    """RGB in [0, 1]; the official input is BGR."""
    import runpy

    make = runpy.run_path(str(golden_file("deterministic.py")))["deterministic_image"]
    image = torch.from_numpy(make("image", HEIGHT, WIDTH)[::-1].copy()).float() / 255
    return image.to(task.device.kind)


def activations(task: Task) -> Row:
    """Values at some places of every map."""
    import numpy as np

    golden, image = np.load(golden_file("forward.npz")), golden_image(task)
    model, errors = golden_model(GOLDEN).to(task.device.kind).eval(), {}
    with torch.inference_mode():
        output = model.network(model.batch([image]))
        small, large = zip(*model.network.natural(output), strict=True)
    parts = {"feature": output.features, "logits": output.logits, "deltas": output.deltas}
    for name, tensors in (parts | {"masks11": small, "masks15": large}).items():
        for level, tensor in enumerate(tensors):
            got = tensor.flatten().cpu().numpy()[golden[f"{name}_{level}_index"]]
            error = np.abs(got - golden[f"{name}_{level}_value"]).max().item()
            errors[name] = max(error, errors.get(name, 0.0))
    assert max(errors.values()) <= ACTIVATIONS, errors
    return {"errors": errors}


def official_losses(task: Task) -> Row:
    """The three losses, and the norms of some gradients."""
    import numpy as np

    from tensormask_edu.weights.official import official_name

    golden, kind = np.load(golden_file("training.npz")), task.device.kind
    truth = {
        "boxes": torch.from_numpy(golden["boxes"]).float().to(kind),
        "labels": torch.from_numpy(golden["classes"]).long().to(kind),
        "polygons": [[golden[f"polygon{number}"]] for number in range(INSTANCES)],
    }
    model = golden_model(GOLDEN).to(kind).train()
    losses = model([golden_image(task)], [truth])
    sum(losses.values()).backward()
    names = {"class": "cls", "box": "box_reg", "mask": "mask"}
    errors = {
        name: abs(losses[f"loss_{name}"].item() / golden[f"polygon_loss_{theirs}"].item() - 1)
        for name, theirs in names.items()
    }
    assert max(errors.values()) <= OFFICIAL_LOSSES, errors
    sides = model.config.sides_bins
    ours = {official_name(name, sides): p for name, p in model.named_parameters()}
    start = "polygon_gradnorm_"
    for key in (key for key in golden.files if key.startswith(start)):
        norm = ours[key.removeprefix(start)].grad.norm().item()
        errors[key.removeprefix(start)] = abs(norm / golden[key].item() - 1)
    assert max(errors.values()) <= OFFICIAL_NORMS, errors
    return {"errors": errors}


# --- training ---------------------------------------------------------------------------------


def learns(task: Task, precision: str) -> Row:
    """Some steps of `tensormask-edu train` on pictures of shapes: losses that are numbers."""
    from tensormask_edu.config import RECIPES
    from tensormask_edu.data.shapes import write_shapes
    from tensormask_edu.training.train import train

    steps = task.sizes.train_steps
    recipe = RECIPES["shapes"]
    config = replace(
        recipe.train, steps=steps, precision=precision, batch_size=2, workers=0, log_every=1,
        threads=1,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shapes(folder / "shapes", train=8, val=1, size_px=64, progress=False)
        train(replace(recipe, train=config), folder / "shapes", folder / "run")
        lines = (folder / "run" / "log.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert len(losses) == steps and all(map(math.isfinite, losses)), losses
    return {"first_loss": losses[0], "last_loss": losses[-1]}
