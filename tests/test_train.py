"""Training: it learns, it ends, it resumes, it stops on nonsense."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from tensormask_edu import train as training
from tensormask_edu.checkpoint import load_checkpoint
from tensormask_edu.config import RECIPES, TrainConfig
from tensormask_edu.data.shapes import write_shapes
from tensormask_edu.errors import InputError
from tensormask_edu.train import Diverged, lr_at, train


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    write_shapes(folder, train=8, val=2, size_px=64, progress=False)
    return folder


def recipe(**values):
    return replace(
        RECIPES["shapes"], train=replace(RECIPES["shapes"].train, batch_size=2, log_every=1, **values)
    )


def losses(output):
    return [json.loads(line)["loss"] for line in (output / "log.jsonl").read_text().splitlines()]


def test_the_learning_rate_rises_falls_and_ends_at_zero():
    config = TrainConfig(lr=1.0, warmup=0.1)
    rates = [lr_at(step / 100, config) for step in range(101)]
    assert rates[0] == 0 and rates[10] == 1 and rates[100] == pytest.approx(0)
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)


def test_training_lowers_the_loss_and_leaves_a_checkpoint(world, tmp_path):
    train(recipe(steps=30), world, tmp_path)
    values = losses(tmp_path)
    assert len(values) == 30
    assert sum(values[-5:]) < 0.8 * sum(values[:5])
    model, _ = load_checkpoint(tmp_path / "checkpoint")
    assert model.config.class_names == ("ellipse", "rectangle", "triangle", "star")


def test_the_same_seed_gives_the_same_losses_and_another_seed_does_not(world, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(recipe(steps=3, seed=seed), world, tmp_path / name)
    assert losses(tmp_path / "a") == losses(tmp_path / "b") != losses(tmp_path / "c")


def test_a_resumed_run_sees_what_the_uninterrupted_one_sees(world, tmp_path, monkeypatch):
    train(recipe(steps=6), world, tmp_path / "whole")
    step = training.Run.train_step

    def interrupted(self, *args):
        if self.step == 3:
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(training.Run, "train_step", interrupted)
    train(recipe(steps=6), world, tmp_path / "parts")
    load_checkpoint(tmp_path / "parts" / "checkpoint")  # Ctrl-C left a usable one
    assert len(losses(tmp_path / "parts")) == 3
    monkeypatch.setattr(training.Run, "train_step", step)
    train(recipe(steps=6), world, tmp_path / "parts", resume=True)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_minutes_end_the_schedule_before_its_steps(world, tmp_path):
    train(recipe(steps=100_000, minutes=0.01), world, tmp_path)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert 0 < records[-1]["step"] < 1000 and records[-1]["seconds"] >= 0.6


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(world, tmp_path, monkeypatch):
    train(recipe(steps=2), world, tmp_path)
    before = (tmp_path / "checkpoint" / "model.safetensors").read_bytes()
    nan = {"loss_class": torch.tensor(float("nan"), requires_grad=True)}
    monkeypatch.setattr("tensormask_edu.model.TensorMask.losses", lambda *args: nan)
    with pytest.raises(Diverged, match=r"loss is not finite at step 2: .*images \["):
        train(recipe(steps=4), world, tmp_path, resume=True)
    assert (tmp_path / "checkpoint" / "model.safetensors").read_bytes() == before


def test_resuming_nothing_is_an_error_that_writes_nothing(world, tmp_path):
    with pytest.raises(InputError, match="resume: expected an interrupted run"):
        train(recipe(steps=2), world, tmp_path / "new", resume=True)
    assert not (tmp_path / "new").exists()


def test_bfloat16_gives_nearly_the_same_losses_and_float32_weights(world, tmp_path):
    for precision in ("float32", "bfloat16"):
        train(recipe(steps=3, precision=precision), world, tmp_path / precision)
    assert losses(tmp_path / "bfloat16") == pytest.approx(losses(tmp_path / "float32"), rel=0.05)
    assert losses(tmp_path / "bfloat16") != losses(tmp_path / "float32")
    model, _ = load_checkpoint(tmp_path / "bfloat16" / "checkpoint")
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_vectors_are_not_decayed():
    from tensormask_edu.model import build_model

    decayed, plain = training.build_optimizer(build_model("tiny"), TrainConfig()).param_groups
    assert plain["weight_decay"] == 0 and all(p.ndim == 1 for p in plain["params"])
    assert decayed["weight_decay"] > 0 and all(p.ndim > 1 for p in decayed["params"])
