"""Training: it learns, it ends, it resumes as if nothing had happened, it stops on nonsense."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file
from tolerances import LOSS_REL
from torchvision.models import resnet50
from trainer import SHAKEN, save_recipe, small_recipe, write_pictures

from tensormask_edu.base.errors import InputError
from tensormask_edu.base.memory import OutOfMemory
from tensormask_edu.base.signals import interrupts
from tensormask_edu.config import RECIPES, AugmentConfig, TrainConfig
from tensormask_edu.data.coco import CocoFolder
from tensormask_edu.data.shapes import write_shapes
from tensormask_edu.data.stream import TrainingSet
from tensormask_edu.detector.model import build_model
from tensormask_edu.training import batches, schedule
from tensormask_edu.training import train as training
from tensormask_edu.training.batches import Batches
from tensormask_edu.training.journal import read_log, store
from tensormask_edu.training.schedule import build_optimizer, lr_at, precision_on
from tensormask_edu.training.train import Diverged, train
from tensormask_edu.weights.checkpoint import load_checkpoint

MIXED = [(48, 64), (64, 48), (40, 64), (64, 40), (48, 64), (48, 60), (64, 48)]
# A run that changes everything a resumed one must repeat; saved at steps 6, 12, 18 and 20.
CHANGING = small_recipe(steps=20, save_every=6, augment=SHAKEN, group_by_aspect=True)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    write_shapes(folder, train=8, val=2, size_px=64, progress=False)
    return folder


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Wide and tall pictures with polygons, and what an undisturbed run makes of them."""
    folder = write_pictures(tmp_path_factory.mktemp("mixed"), MIXED)
    train(CHANGING, folder, folder / "undisturbed")
    return folder


@pytest.fixture(autouse=True)
def terminal():
    """Signals as a terminal leaves them: in the background of a script they are ignored."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def recipe(**values):
    return small_recipe(**values)


def records(output):
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def losses(output):
    """All losses of every step, without the time they took."""
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records(output)]


def weights(output):
    return (output / "checkpoint" / "model.safetensors").read_bytes()


def files(output):
    return {path.name: path.read_bytes() for path in output.rglob("*") if path.is_file()}


# --- the schedule and the optimizer -----------------------------------------------------------


def test_the_learning_rate_rises_falls_and_ends_at_zero():
    config = TrainConfig(lr=1.0, warmup=0.1)
    rates = [lr_at(step / 100, config) for step in range(101)]
    assert rates[0] == 0 and rates[10] == 1 and rates[100] == pytest.approx(0)
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)
    # Half-way down a cosine is half the height; where the time is over it stays at zero
    assert rates[55] == pytest.approx(0.5) and lr_at(1.2, config) == pytest.approx(0)
    slow = replace(config, warmup_start=0.2)
    assert [lr_at(at, slow) for at in (0, 0.05)] == pytest.approx([0.2, 0.6])


@pytest.mark.parametrize(
    "name, decay_steps", [("coco_1x", (60_000, 80_000)), ("coco_6x", (480_000, 520_000))]
)
def test_the_official_recipes_warm_up_and_step_down_where_the_official_ones_do(
    name, decay_steps
):
    config = RECIPES[name].train
    steps = (0, 500, 999, 1000, config.steps - 1)
    first, half_warm, nearly_warm, warm, last = (lr_at(s / config.steps, config) for s in steps)
    assert first == pytest.approx(2e-5)
    assert half_warm == pytest.approx(0.02 * (0.001 * 0.5 + 0.5))
    assert nearly_warm < 0.02 and warm == 0.02 and last == pytest.approx(2e-4)
    for factor, step in zip((1, 0.1), decay_steps, strict=True):
        before, after = (lr_at(s / config.steps, config) for s in (step - 1, step))
        assert before == pytest.approx(0.02 * factor) and after == pytest.approx(0.002 * factor)


def test_vectors_are_not_decayed():
    config = TrainConfig(weight_decay=0.03)
    decayed, plain = build_optimizer(build_model("tiny"), config).param_groups
    assert plain["weight_decay"] == 0 and all(p.ndim == 1 for p in plain["params"])
    assert decayed["weight_decay"] == 0.03 and all(p.ndim > 1 for p in decayed["params"])


def test_the_official_recipe_decays_biases_but_no_normalisation():
    model, config = build_model("tiny"), replace(RECIPES["coco_1x"].train, decay_biases=True)
    decayed, plain = build_optimizer(model, config).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    biases = {names[id(p)] for p in decayed["params"] if p.ndim == 1}
    assert "network.box_predictor.bias" in biases
    norms = (torch.nn.BatchNorm2d, torch.nn.GroupNorm)
    normalised = [name for name, m in model.named_modules() if isinstance(m, norms)]
    assert {"network.backbone.body.stem.1", "network.class_tower.1"} <= set(normalised)
    spared = {names[id(p)].rpartition(".")[0] for p in plain["params"]}
    assert spared == set(normalised) and len(plain["params"]) == 2 * len(spared)
    assert decayed["momentum"] == plain["momentum"] == 0.9  # Detectron's, of all its recipes


# --- a run ------------------------------------------------------------------------------------


def test_training_lowers_the_loss_and_leaves_a_checkpoint(world, tmp_path):
    train(recipe(steps=30), world, tmp_path)
    values = [record["loss"] for record in records(tmp_path)]
    assert len(values) == 30
    assert sum(values[-5:]) < 0.8 * sum(values[:5])
    model, _ = load_checkpoint(tmp_path / "checkpoint")
    assert model.config.class_names == ("ellipse", "rectangle", "triangle", "star")


def test_the_same_seed_gives_the_same_losses_and_another_seed_does_not(world, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(recipe(steps=3, seed=seed), world, tmp_path / name)
    assert losses(tmp_path / "a") == losses(tmp_path / "b") != losses(tmp_path / "c")


def test_the_seed_draws_the_first_weights_too(tmp_path):
    folder = write_pictures(tmp_path / "world", [(48, 64)])  # one picture: no order to draw
    for seed in (0, 1):
        still = recipe(steps=1, seed=seed, batch_size=1, augment=AugmentConfig())
        train(still, folder, tmp_path / str(seed))
    assert losses(tmp_path / "0") != losses(tmp_path / "1")


def test_a_signal_to_one_process_stops_all_of_them(world, tmp_path, monkeypatch):
    config, model = recipe().train, build_model("tiny", num_classes=4).train()
    stream = TrainingSet(CocoFolder(world, "train"), recipe().input, AugmentConfig(), 0)
    batch = Batches(stream, model.config, 2)[0]
    run = training.Run(model, config, tmp_path)
    run.train_step(batch, 1e-4, time.perf_counter())
    assert not run.stop
    run.interrupt()  # what the mean over this process and seven others is
    monkeypatch.setattr(training.distributed, "mean", lambda values: values / 8)
    run.train_step(batch, 1e-4, time.perf_counter())
    assert run.stop


def test_minutes_end_the_schedule_before_its_steps(world, tmp_path):
    train(recipe(steps=100_000, minutes=0.01), world, tmp_path)
    last = records(tmp_path)[-1]
    assert 0 < last["step"] < 1000 and last["seconds"] >= 0.6


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_gives_nearly_the_same_losses_and_float32_weights(
    precision, world, tmp_path
):
    for name in ("float32", precision):
        train(recipe(steps=3, precision=name), world, tmp_path / name)
    half, full = (
        [record["loss"] for record in records(tmp_path / n)] for n in (precision, "float32")
    )
    assert half == pytest.approx(full, rel=0.05) and half != full
    model, _ = load_checkpoint(tmp_path / precision / "checkpoint")
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("device", "native", "quickest"),
    [("cpu", True, "bfloat16"), ("cpu", False, "float32"), ("cuda", True, "float32")],
)
def test_a_precision_that_nobody_chose_is_what_the_processor_multiplies(
    device, native, quickest, monkeypatch
):
    monkeypatch.setattr(schedule, "multiplies_bfloat16", lambda: native)
    for asked in (None, "float32", "bfloat16"):
        config = recipe(precision=asked).train
        assert precision_on(torch.device(device), config) == (asked or quickest)


def test_a_precision_that_nobody_chose_is_told_and_used(world, tmp_path, monkeypatch, capfd):
    for name, native in (("quick", True), ("plain", False)):
        monkeypatch.setattr(schedule, "multiplies_bfloat16", lambda native=native: native)
        train(recipe(steps=2, precision=None), world, tmp_path / name)
        assert ("--precision float32 turns it off" in capfd.readouterr().out) is native
    train(recipe(steps=2, precision="bfloat16"), world, tmp_path / "asked")
    assert "--precision" not in capfd.readouterr().out
    quick, plain, asked = (weights(tmp_path / name) for name in ("quick", "plain", "asked"))
    assert quick == asked != plain


def test_an_overflow_of_float16_gradients_is_skipped_and_the_scale_lowered(world, tmp_path):
    train(recipe(steps=1, precision="float16"), world, tmp_path)
    state = torch.load(tmp_path / "resume.pt", weights_only=True)
    state["scaler"]["scale"] = 2.0**127  # any gradient overflows
    store(tmp_path / "resume.pt", state)
    before = weights(tmp_path)
    train(recipe(steps=2, precision="float16"), world, tmp_path, resume=True)
    after = torch.load(tmp_path / "resume.pt", weights_only=True)
    assert after["scaler"]["scale"] == 2.0**126 and after["step"] == 2
    same = load_file(tmp_path / "checkpoint" / "model.safetensors")
    parameters = [name for name, _ in build_model("tiny").named_parameters()]
    store(tmp_path / "before.pt", 0)
    (tmp_path / "before.safetensors").write_bytes(before)
    old = load_file(tmp_path / "before.safetensors")
    assert all(torch.equal(same[name], old[name]) for name in parameters)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_step_is_as_long_as_the_limit_of_the_gradient_allows(precision, world, tmp_path):
    """Of the gradient itself, not of the one that a scaler made longer."""
    plain = {"optimizer": "sgd", "weight_decay": 0.0, "clip_norm": 0.01}
    limited, model = recipe(precision=precision, **plain), build_model("tiny", num_classes=4)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    run = training.Run(model.train(), limited.train, tmp_path)
    if precision == "float16":
        run.scaler = torch.amp.GradScaler("cpu", init_scale=256.0)  # without an overflow
    batches = Batches(
        TrainingSet(CocoFolder(world, "train"), limited.input, SHAKEN, 0), model.config, 2
    )
    run.train_step(batches[0], 2.0, time.perf_counter())
    ways = [after - old for after, old in zip(model.parameters(), before, strict=True)]
    length = torch.cat([way.flatten() for way in ways]).norm().item()
    assert length == pytest.approx(2 * 0.01, rel=0.01)


def test_a_line_of_the_log_is_the_mean_since_the_line_before(world, tmp_path):
    for every in (1, 3):
        train(recipe(steps=3, log_every=every), world, tmp_path / str(every))
    (line,) = losses(tmp_path / "3")
    for name in ("loss", "loss_class", "loss_box", "loss_mask"):
        each = [record[name] for record in records(tmp_path / "1")]
        assert line[name] == pytest.approx(sum(each) / 3) and each[0] != each[1]


def test_the_steps_of_an_epoch_show_every_picture_once(world):
    dataset = CocoFolder(world, "train")
    batches = Batches(
        TrainingSet(dataset, recipe().input, AugmentConfig(), 0), build_model("tiny").config, 2
    )
    for epoch in (range(4), range(4, 8)):
        seen = [number for step in epoch for part in batches[step] for number in part.image_ids]
        assert sorted(seen) == sorted(dataset.image_ids)


def test_targets_drawn_ahead_give_the_losses_of_targets_drawn_in_the_step(mixed):
    dataset = CocoFolder(mixed, "train", polygons=True)
    stream = TrainingSet(dataset, CHANGING.input, SHAKEN, seed=0)
    model = build_model("tiny", num_classes=2).train()
    (batch,) = Batches(stream, model.config, 4)[1]
    images, targets = zip(*(stream[position] for position in range(4, 8)), strict=True)
    assert len(batch.targets.window)
    ahead, in_step = model(batch.images, batch.targets), model(list(images), list(targets))
    assert {k: v.item() for k, v in ahead.items()} == {k: v.item() for k, v in in_step.items()}


def test_parts_of_a_batch_add_up_to_one_step(mixed, tmp_path):
    config = recipe(
        batch_size=4,
        accumulate=2,
        steps=1,
        optimizer="sgd",
        lr=0.01,
        warmup=0.0,
        clip_norm=None,
    )
    trained = train(config, mixed, tmp_path)
    torch.manual_seed(0)
    model = build_model("tiny", num_classes=2).to(memory_format=torch.channels_last).train()
    stream = TrainingSet(CocoFolder(mixed, "train"), config.input, config.train.augment, seed=0)
    parts = Batches(stream, model.config, 4, accumulate=2)[0]
    assert [len(part.images) for part in parts] == [2, 2]
    losses_of_parts = [sum(model(part.images, part.targets).values()) for part in parts]
    (sum(losses_of_parts) / 2).backward()
    optimizer = build_optimizer(model, config.train)
    optimizer.step()
    for ours, expected in zip(trained.parameters(), model.parameters(), strict=True):
        assert torch.allclose(ours, expected, atol=1e-7)
    assert records(tmp_path)[0]["loss"] == pytest.approx(
        sum(losses_of_parts).item() / 2, rel=LOSS_REL
    )


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_workers_change_nothing_but_who_does_the_work(mixed, tmp_path):
    train(replace(CHANGING, train=replace(CHANGING.train, workers=1)), mixed, tmp_path)
    assert losses(tmp_path) == losses(mixed / "undisturbed")
    assert weights(tmp_path) == weights(mixed / "undisturbed")


def test_the_pictures_of_a_run_are_kept_in_a_quarter_of_the_free_memory(monkeypatch):
    monkeypatch.setattr(batches, "free_memory", lambda: 8_000_000)
    shares = {workers: batches.cache_bytes(TrainConfig(workers=workers)) for workers in (0, 4)}
    assert shares == {0: 2_000_000, 4: 500_000}  # each worker keeps its own


def test_workers_are_refused_where_their_files_or_batches_do_not_fit(world, monkeypatch):
    asked, sent = [], 3 * 64 * 64 * 4  # bytes of a picture as it is handed over
    made = batches.batches_of(CocoFolder(world, "train"), recipe(batch_size=2))
    monkeypatch.setattr(batches, "allow_open_files", lambda number: asked.append(number) or 0)
    for workers, size in ((4, 8), (4, 1000)):
        with pytest.raises(InputError, match="workers: expected a machine that allows"):
            batches._check_open_files(workers, size)
    # Two batches of each worker are under way; most machines allow 1024 files
    assert 2 * 4 * 8 < asked[0] < 1024 and asked[1] > 2 * 4 * 1000

    def free(size):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=size))
        return batches._check_shared_memory(3, made)

    assert free((3 + 1) * 2 * sent) is None  # a batch of each, and the one in the step
    with pytest.raises(InputError, match="workers: expected 0 MB of shared memory in"):
        free((3 + 1) * 2 * sent - 1)


def test_a_worker_that_died_is_told_from_other_errors():
    told = "workers: expected processes that live, got DataLoader worker .pid 7. is gone; more"
    with pytest.raises(InputError, match=told), batches.workers_alive():
        raise RuntimeError("DataLoader worker (pid 7) is gone\nat some place")
    with pytest.raises(RuntimeError, match="^a bug$"), batches.workers_alive():
        raise RuntimeError("a bug")


def test_a_step_without_memory_names_its_pictures_and_parts():
    part = SimpleNamespace(images=[torch.zeros(3, 48, 60), torch.zeros(3, 40, 64)])
    for parts, words in (
        ([part], "a step of 2 pictures of up to 48 x 64 px: .*; --accumulate 2: the same step"),
        ([part, part], "a step of 4 .* 48 x 64 px in 2 parts: .*; --accumulate 4: the same"),
        ([SimpleNamespace(images=part.images[:1])], "a step of 1 .*; smaller pictures need"),
    ):
        with pytest.raises(OutOfMemory, match=words), batches.memory_for(parts, None):
            raise MemoryError("no room")


def test_nothing_random_happens_in_a_step_but_by_its_position(mixed, tmp_path, monkeypatch):
    step = training.Run.train_step

    def disturbed(self, *args):
        torch.manual_seed(self.step + 1000)
        return step(self, *args)

    monkeypatch.setattr(training.Run, "train_step", disturbed)
    train(CHANGING, mixed, tmp_path)
    assert losses(tmp_path) == losses(mixed / "undisturbed")


def test_the_official_recipe_runs_and_trains_what_it_should(tmp_path):
    folder = write_pictures(tmp_path / "world", [(48, 64), (64, 48), (48, 64)])
    official = RECIPES["coco_1x"]
    small = replace(
        official,
        input=replace(official.input, short_side_px=64),
        train=replace(official.train, steps=2, batch_size=2, log_every=1, lr=1e-4),
    )
    trained = dict(train(small, folder, tmp_path / "run").named_parameters())
    assert records(tmp_path / "run")[0]["lr"] == pytest.approx(1e-7)
    torch.manual_seed(0)
    fresh = dict(
        build_model(replace(official.model, class_names=("green", "blue"))).named_parameters()
    )
    moved = {
        name.split(".")[1:4][-1] if "stages" not in name else ".".join(name.split(".")[3:5])
        for name in fresh
        if not torch.equal(trained[name], fresh[name])
    }
    assert {"stages.1", "stages.2", "stages.3"} <= moved and not {"stages.0", "stem"} & moved
    assert {p.requires_grad for n, p in trained.items() if "stem" in n or "stages.0" in n} == {
        False
    }


@pytest.mark.long
def test_training_starts_from_imagenet_weights_or_a_checkpoint(tmp_path):
    folder = write_pictures(tmp_path / "world", [(64, 64)])
    state = resnet50().state_dict()
    torch.save(state, tmp_path / "resnet50.pth")
    channels = dict.fromkeys(
        ("fpn_channels", "class_channels", "box_channels", "mask_channels"), 8
    )
    small = recipe(
        model={"backbone": "resnet50", **channels}, batch_size=1, steps=1, optimizer="sgd"
    )
    train(small, folder, tmp_path / "run", weights=tmp_path / "resnet50.pth")
    first, _ = load_checkpoint(tmp_path / "run" / "checkpoint")
    assert torch.equal(first.network.backbone.body.stem[0].weight, state["conv1.weight"])
    assert first.config.pixel_mean == (0.485, 0.456, 0.406) and not first.config.stride_in_1x1

    go_on = replace(small, model=first.config, train=replace(small.train, lr=1e-12))
    train(go_on, folder, tmp_path / "again", weights=tmp_path / "run" / "checkpoint")
    second, _ = load_checkpoint(tmp_path / "again" / "checkpoint")
    for name, value in second.state_dict().items():
        assert torch.allclose(value, first.state_dict()[name], atol=1e-9), name


# --- interruptions ----------------------------------------------------------------------------


def start(folder, output, *options, recipe=CHANGING):
    """A training run in a process of its own."""
    path = save_recipe(recipe, output.with_suffix(".json"))
    command = [
        sys.executable,
        str(ROOT / "tests" / "trainer.py"),
        str(folder),
        str(output),
        str(path),
    ]
    return subprocess.Popen([*command, *options], cwd=ROOT, stderr=subprocess.DEVNULL)


def expect_undisturbed(folder, output):
    train(CHANGING, folder, output, resume=True)
    assert losses(output) == losses(folder / "undisturbed")
    assert weights(output) == weights(folder / "undisturbed")
    assert not [path for path in output.rglob(".*")]  # nothing half-written is left


def test_killed_at_any_step_a_resumed_run_is_the_undisturbed_one(mixed, tmp_path):
    """SIGKILL from outside, at a step that another seed would choose elsewhere."""
    last = random.Random(4).randrange(4, 13)
    run = start(mixed, tmp_path / "run")
    log = tmp_path / "run" / "log.jsonl"
    while not log.is_file() or len(log.read_text().splitlines()) < last:
        assert run.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    run.kill()
    assert run.wait() == -signal.SIGKILL
    expect_undisturbed(mixed, tmp_path / "run")


@pytest.mark.parametrize(
    "where, file, saved",
    [
        ("inside", ".resume.", 6),  # half of the new state is written
        # the new state is there, the new weights are not
        pytest.param("after", "resume.pt", 12, marks=pytest.mark.long),
    ],
)
def test_killed_while_saving_a_resumed_run_is_the_undisturbed_one(
    where, file, saved, mixed, tmp_path
):
    run = start(mixed, tmp_path / "run", "--die", where, file, "2")
    assert run.wait() == -signal.SIGKILL
    assert torch.load(tmp_path / "run" / "resume.pt", weights_only=True)["step"] == saved
    load_checkpoint(tmp_path / "run" / "checkpoint")  # usable all the time
    expect_undisturbed(mixed, tmp_path / "run")


def test_ctrl_c_ends_after_the_step_and_a_resumed_run_is_the_undisturbed_one(
    mixed, tmp_path, monkeypatch
):
    step = training.Run.train_step

    def interrupted(self, *args):
        if self.step == 4:
            signal.raise_signal(signal.SIGINT)
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(training.Run, "train_step", interrupted)
        train(CHANGING, mixed, tmp_path)
    assert len(losses(tmp_path)) == 5
    load_checkpoint(tmp_path / "checkpoint")  # Ctrl-C left a usable one
    expect_undisturbed(mixed, tmp_path)


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_scheduler_or_a_closed_terminal_ends_a_run_that_goes_on_undisturbed(
    number, code, mixed, tmp_path, monkeypatch
):
    step = training.Run.train_step

    def ended(self, *args):
        if self.step == 4:
            for _ in range(2):  # launchers pass on what the process got already
                signal.raise_signal(number)
        return step(self, *args)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(training.Run, "train_step", ended)
        train(CHANGING, mixed, tmp_path)
    assert stopped.value.code == code and len(losses(tmp_path)) == 5
    assert signal.getsignal(number) == signal.SIG_DFL
    expect_undisturbed(mixed, tmp_path)


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts(lambda: pytest.fail("it was noted")):
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_cut_picture_ends_a_run_that_goes_on_undisturbed_when_it_is_whole(
    workers, mixed, tmp_path
):
    folder = shutil.copytree(mixed, tmp_path / "data")
    stream = TrainingSet(
        CocoFolder(folder, "train"), CHANGING.input, SHAKEN, 0, CHANGING.train.batch_size
    )
    shown = [stream.index(position) for position in range(len(MIXED))]
    picture = folder / "images" / f"train_{shown[-1]}.png"  # not of the first batch
    whole = picture.read_bytes()
    picture.write_bytes(whole[:600])
    config = replace(CHANGING, train=replace(CHANGING.train, workers=workers))
    with pytest.raises(InputError, match=rf"^image: .*{picture.name}.* is saved, --resume"):
        train(config, folder, tmp_path / "run")
    assert 0 < len(losses(tmp_path / "run")) < 6  # before the first save of the schedule
    load_checkpoint(tmp_path / "run" / "checkpoint")
    picture.write_bytes(whole)
    train(config, folder, tmp_path / "run", resume=True)
    assert weights(tmp_path / "run") == weights(mixed / "undisturbed")


def test_a_run_is_not_replaced_without_being_asked(world, tmp_path):
    train(recipe(steps=1), world, tmp_path)
    before = files(tmp_path)
    with pytest.raises(InputError, match="output: expected a folder without a run.*--resume"):
        train(recipe(steps=1), "not even looked at", tmp_path)
    (tmp_path / "resume.pt").unlink()
    with pytest.raises(InputError, match="which has one; --overwrite"):
        train(recipe(steps=1), world, tmp_path)
    with pytest.raises(InputError, match="overwrite: expected no --resume"):
        train(recipe(steps=1), world, tmp_path, resume=True, overwrite=True)
    with pytest.raises(InputError, match="output: expected a place of its own"):
        start_from = tmp_path / "checkpoint"
        train(recipe(steps=1), world, tmp_path, weights=start_from, overwrite=True)
    assert weights(tmp_path) == before["model.safetensors"]
    train(recipe(steps=1, seed=1), world, tmp_path, overwrite=True)
    assert weights(tmp_path) != before["model.safetensors"]


def test_resuming_nothing_is_an_error_that_writes_nothing(world, tmp_path):
    with pytest.raises(InputError, match="resume: expected an interrupted run"):
        train(recipe(steps=2), world, tmp_path / "new", resume=True)
    assert not (tmp_path / "new").exists()


def test_a_run_that_is_done_may_be_resumed_and_stays_as_it_is(world, tmp_path):
    train(recipe(steps=1), world, tmp_path)
    before = weights(tmp_path)
    train(recipe(steps=1), world, tmp_path, resume=True)
    assert weights(tmp_path) == before and [row["step"] for row in records(tmp_path)] == [1]
    assert read_log(tmp_path) == records(tmp_path)
    with pytest.raises(InputError, match="run: expected the folder of a training, with log"):
        read_log(tmp_path / "checkpoint")


def test_another_run_or_a_broken_file_is_not_resumed(world, tmp_path):
    train(recipe(steps=1), world, tmp_path)
    for other in (
        recipe(steps=2, batch_size=1),
        recipe(steps=2, seed=5),
        recipe(model={"pad_value": -5.0}),
    ):
        with pytest.raises(InputError, match="resume: expected the run's"):
            train(other, world, tmp_path, resume=True)
    state = (tmp_path / "resume.pt").read_bytes()
    store(tmp_path / "resume.pt", {"step": 1})
    with pytest.raises(InputError, match="resume: expected the state of a run"):
        train(recipe(steps=2), world, tmp_path, resume=True)
    (tmp_path / "resume.pt").write_bytes(state)
    whole = torch.load(tmp_path / "resume.pt", weights_only=True)
    for part, other in (("model", {}), ("optimizer", {}), ("optimizer", {"param_groups": []})):
        store(tmp_path / "resume.pt", whole | {part: other})
        with pytest.raises(InputError, match="resume: expected the state of this model, got"):
            train(recipe(steps=2), world, tmp_path, resume=True)
    (tmp_path / "resume.pt").write_bytes(state[: len(state) // 2])
    with pytest.raises(InputError, match="resume: expected a whole file"):
        train(recipe(steps=2), world, tmp_path, resume=True)


def test_a_state_that_would_run_code_is_refused(world, tmp_path):
    train(recipe(steps=1), world, tmp_path)
    torch.save({"step": Path("harmless")}, tmp_path / "resume.pt")
    with pytest.raises(InputError, match=r"resume: expected a whole file of tensors"):
        train(recipe(steps=2), world, tmp_path, resume=True)


def test_a_new_run_forgets_the_state_of_the_old_one(world, tmp_path, monkeypatch):
    train(recipe(steps=1), world, tmp_path)
    monkeypatch.setattr(training.Run, "train_step", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(recipe(steps=1), world, tmp_path, overwrite=True)
    with pytest.raises(InputError, match="resume: expected an interrupted run"):
        train(recipe(steps=1), world, tmp_path, resume=True)


# --- what goes wrong --------------------------------------------------------------------------


def test_a_full_disk_is_one_clear_error_and_the_last_checkpoint_stays(world, tmp_path):
    train(recipe(steps=2, save_every=2), world, tmp_path)
    before = files(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # any larger file fails half-way
    try:
        with pytest.raises(
            InputError, match=r"resume.pt: cannot be written \(File too large\)"
        ):
            train(recipe(steps=4, save_every=2), world, tmp_path, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    after = files(tmp_path)
    assert set(after) == set(before)
    assert {name for name in before if after[name] != before[name]} == {"log.jsonl"}
    train(recipe(steps=4, save_every=2), world, tmp_path, resume=True)
    assert [record["step"] for record in records(tmp_path)] == [1, 2, 3, 4]


def test_a_read_only_folder_is_one_clear_error(world, tmp_path, monkeypatch):
    """A stand-in: root may write everywhere but on a read-only disk, which says this."""
    train(recipe(steps=1), world, tmp_path)
    before = files(tmp_path)

    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        for name in ("write_bytes", "write_text", "unlink"):
            patch.setattr(Path, name, refuse)
        for begin in ("overwrite", "resume"):
            with pytest.raises(
                InputError, match=r"cannot be written \(Read-only file system\)"
            ):
                train(recipe(steps=2), world, tmp_path, **{begin: True})
    assert files(tmp_path) == before


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_batch_and_checkpoint(
    world, tmp_path, monkeypatch
):
    train(recipe(steps=2), world, tmp_path)
    before = files(tmp_path)
    nan = {"loss_class": torch.tensor(float("nan"), requires_grad=True)}
    monkeypatch.setattr("tensormask_edu.detector.model.TensorMask.losses", lambda *args: nan)
    with pytest.raises(Diverged, match=r"loss is not finite at step 2: .*images \["):
        train(recipe(steps=4), world, tmp_path, resume=True)
    after = files(tmp_path)
    found = torch.load(tmp_path / "not_finite_0.pt", weights_only=True)
    assert after == before | {"not_finite_0.pt": after["not_finite_0.pt"]}
    (batch,) = found["batch"]
    assert found["step"] == 2 and len(batch["images"]) == len(batch["image_ids"]) == 2
    assert batch["targets"]["masks"][0]["values"].dtype == torch.bool


def test_a_gradient_that_is_no_number_stops_the_run_before_the_weights_change(
    world, tmp_path, monkeypatch
):
    """Saving right after such a step would have kept the broken weights."""
    config = recipe(steps=3, save_every=1)
    train(recipe(steps=2, save_every=1), world, tmp_path)
    before = weights(tmp_path)
    clip = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(
        torch.nn.utils, "clip_grad_norm_", lambda p, n: clip(p, n) * float("inf")
    )
    with pytest.raises(Diverged, match="gradient norm inf"):
        train(config, world, tmp_path, resume=True)
    assert weights(tmp_path) == before


@pytest.mark.parametrize(
    "values, message",
    [
        ({"decay_at": (0.9, 0.5)}, "decay_at: expected rising fractions"),
        ({"warmup": 1.0}, "warmup"),
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"precision": "float64"}, "precision"),
        ({"workers": -1}, "workers"),
        ({"accumulate": 0}, "accumulate: expected at least 1"),
        ({"log_every": 0}, "log_every: expected at least 1"),
    ],
)
def test_impossible_settings_are_named(values, message):
    with pytest.raises(InputError, match=message):
        TrainConfig(**values)


def test_no_augmentation_is_the_default():
    assert TrainConfig().augment == AugmentConfig()
