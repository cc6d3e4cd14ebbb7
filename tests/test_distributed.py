"""Two processes with half the batch each are one with the whole: parameters, scores, files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file
from tolerances import PROCESSES
from trainer import save_recipe, small_recipe, write_pictures

from tensormask_edu.base import distributed
from tensormask_edu.base.errors import InputError
from tensormask_edu.base.files import read_json
from tensormask_edu.commands.evaluate import evaluate_checkpoint
from tensormask_edu.config import AugmentConfig
from tensormask_edu.data.coco import CocoFolder
from tensormask_edu.detector.losses import normaliser
from tensormask_edu.detector.model import build_model
from tensormask_edu.detector.targets import build_targets
from tensormask_edu.training.train import train

# ResNet-50 with its frozen normalisation and stem, small heads: batch statistics would tell the
# two apart.
SMALL_R50 = {
    "backbone": "resnet50",
    "normaliser": "global",
    "tower_norm_groups": 0,
    "score_threshold": 0.005,  # so that a model of five steps finds something
    **dict.fromkeys(("fpn_channels", "class_channels", "box_channels", "mask_channels"), 16),
}
RECIPE = small_recipe(
    model=SMALL_R50, batch_size=4, steps=5,
    optimizer="sgd", lr=0.02, warmup=0.0, clip_norm=10.0, decay_at=(0.9,),
    augment=AugmentConfig(flip=True, noise=0.05),
)  # fmt: skip


def torchrun(count, *arguments):
    """`torchrun` on this machine, at a free port."""
    launcher = [sys.executable, "-m", "torch.distributed.run"]
    here = ["--standalone", "--nproc-per-node", str(count)]
    return subprocess.run(
        [*launcher, *here, str(ROOT / "tests" / "trainer.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=300,
    )


def test_two_processes_train_and_evaluate_as_one(tmp_path):
    world = write_pictures(tmp_path / "world", [(64, 64)] * 8)
    write_pictures(world, [(64, 48), (48, 64), (64, 64), (32, 64), (64, 64)], "val")
    train(RECIPE, world, tmp_path / "one")
    recipe = save_recipe(RECIPE, tmp_path / "recipe.json")
    run = torchrun(2, world, tmp_path / "two", recipe, "--scores", tmp_path / "two.json")
    assert run.returncode == 0, run.stderr[-2000:]

    assert_same_parameters(tmp_path / "one", tmp_path / "two")
    one = load_file(tmp_path / "one" / "checkpoint" / "model.safetensors")
    torch.manual_seed(0)
    fresh = build_model(RECIPE.model, None).state_dict()
    trained = [name for name in one if "network.box" in name or "stages.3" in name]
    moved = max((one[n] - fresh[n]).abs().max().item() for n in trained if n in fresh)
    assert moved > 100 * PROCESSES

    scores = read_json(tmp_path / "two.json")
    assert scores == evaluate_checkpoint(tmp_path / "two" / "checkpoint", world)
    assert scores["images"] == 5 and scores["detections"] > 100
    assert 0 < scores["bbox"]["AR100"] < 1 and 0 < scores["ceiling"]["segm"]["AP"] <= 1, scores
    lines = (tmp_path / "two" / "log.jsonl").read_text().splitlines()
    assert len(lines) == 5  # the first process writes, once


def one_object_each(folder, sides_px):
    """Leave one square of these sides in each picture, in its middle."""
    path = folder / "instances_train.json"
    truth = read_json(path)
    truth["annotations"] = truth["annotations"][::2]
    for annotation, side in zip(truth["annotations"], sides_px, strict=True):
        low, high = 34 - side / 2, 34 + side / 2
        annotation["segmentation"] = [[low, low, high, low, high, high, low, high]]
        annotation["bbox"], annotation["area"] = [low, low, side, side], side * side
    path.write_text(json.dumps(truth))
    return folder


def test_a_process_without_a_positive_of_some_size_trains_on_as_one_would(tmp_path):
    """Its predictors get a gradient of zero, otherwise the other process waits for ever.

    Two levels leave half the backbone without a reader, which must not be waited for either.
    """
    world = one_object_each(write_pictures(tmp_path / "world", [(68, 68)] * 2), (8, 68))
    # Windows of 20 to 56 px: the small object is in the smallest alone, the large one in none.
    model = SMALL_R50 | {"strides_px": (4, 8), "sides_bins": (5, 7)}
    recipe = replace(
        RECIPE, model=replace(RECIPE.model, **model),
        train=replace(RECIPE.train, batch_size=2, steps=3, augment=AugmentConfig()),
    )  # fmt: skip
    dataset = CocoFolder(world, "train")
    truths = [dataset[number][1] for number in range(2)]
    layout = recipe.model.geometry.layout([(68, 68)] * 2)
    targets = build_targets(truths, layout, recipe.model)
    assert set(targets.image.tolist()) == {0}
    assert set(layout.windows.size_id[targets.window].tolist()) == {0}

    train(recipe, world, tmp_path / "one")
    run = torchrun(2, world, tmp_path / "two", save_recipe(recipe, tmp_path / "recipe.json"))
    assert run.returncode == 0, run.stderr[-2000:]
    assert_same_parameters(tmp_path / "one", tmp_path / "two")


def assert_same_parameters(first, second):
    one, two = (
        load_file(folder / "checkpoint" / "model.safetensors") for folder in (first, second)
    )
    assert max((one[name] - two[name]).abs().max().item() for name in one) <= PROCESSES


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path, monkeypatch):
    world = write_pictures(tmp_path / "world", [(64, 64)])
    monkeypatch.setattr(distributed, "count", lambda: 3)
    message = "batch_size: expected a multiple of the 3 processes, got 4"
    with pytest.raises(InputError, match=message):
        train(RECIPE, world, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_normaliser_is_at_least_one_positive_in_all():
    cpu = torch.device("cpu")
    assert normaliser(0, "process", cpu) == normaliser(0, "global", cpu) == 1
    assert normaliser(7, "process", cpu) == normaliser(7, "global", cpu) == 7


def test_few_positives_of_many_processes_weigh_as_in_one(monkeypatch):
    """One positive in a batch that four processes share: their losses are averaged."""
    monkeypatch.setattr(distributed, "count", lambda: 4)
    monkeypatch.setattr(distributed, "mean", lambda values: values / 4)  # the others have none
    for positives in (0, 1):
        assert normaliser(positives, "global", torch.device("cpu")) == 1 / 4


def test_every_nth_item_goes_to_each_process_and_comes_back_in_order(monkeypatch):
    items, parts = list("abcdefg"), []
    monkeypatch.setattr(distributed, "count", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        parts.append(distributed.share(items))
    assert parts == [["a", "d", "g"], ["b", "e"], ["c", "f"]]

    def gather(found, part):
        found[:] = parts

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    assert distributed.joined(parts[0]) == items
