"""Models that come along: names, files, cards, and every command that takes a name."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch
from conftest import ROOT
from test_architecture import loaded_by
from tolerances import PACKED_IOU, PACKED_SCORE

import tensormask_edu
from tensormask_edu.base.errors import InputError
from tensormask_edu.base.files import file_sha256, read_json
from tensormask_edu.cli import main
from tensormask_edu.commands import models as command
from tensormask_edu.commands.evaluate import evaluate_checkpoint
from tensormask_edu.commands.predict import detect
from tensormask_edu.data.coco import CocoFolder
from tensormask_edu.data.shapes import CLASS_NAMES, write_shapes
from tensormask_edu.masks import iou
from tensormask_edu.weights import shipped
from tensormask_edu.weights.checkpoint import build_from, load_checkpoint, save_checkpoint
from tensormask_edu.weights.shipped import list_models, located, read_card, read_page

NAMES = ("cells", "shapes")
LARGEST_BYTES = 2_000_000
FILES = {"model.safetensors", "config.json", "card.json", "card.md", "failures.png"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "world"
    write_shapes(folder, train=4, val=8, progress=False)
    return folder


@pytest.fixture
def ship(monkeypatch):
    """The script that makes the models."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import ship

    yield ship
    for name in ("ship", "failures", "measure"):
        sys.modules.pop(name, None)


def test_two_models_come_along():
    assert tuple(list_models()) == NAMES == tuple(tensormask_edu.list_models())


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_small_and_what_its_card_says(name, ship):
    card, folder = read_card(name), located(name)
    assert {path.name for path in folder.iterdir()} == FILES
    weights = folder / "model.safetensors"
    assert weights.stat().st_size == card["weights"]["bytes"] <= LARGEST_BYTES
    assert file_sha256(weights) == card["weights"]["sha256"]
    model, _ = load_checkpoint(name)
    assert list(model.config.class_names) == card["classes"]
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == card["weights"]["parameters"]
    assert ship.page(card) == read_page(name)  # every number of the page is the card's
    assert ship.MODELS[name].limits == card["limits"]
    assert 0 < card["scores"]["AP"] < card["scores"]["ceiling_AP"] < 1
    assert len(card["failures"]["shown"]) == 6


def test_packed_weights_are_float16_and_a_loaded_model_is_float32():
    from safetensors.torch import load_file

    stored = load_file(located("shapes") / "model.safetensors")
    kinds = {x.dtype for x in stored.values() if x.is_floating_point()}
    model, _ = load_checkpoint("shapes")
    assert kinds == {torch.float16}
    assert {x.dtype for x in model.state_dict().values() if x.is_floating_point()} == {
        torch.float32
    }
    assert not model.training


def test_weights_that_the_card_does_not_know_are_refused(tmp_path):
    folder = shutil.copytree(located("shapes"), tmp_path / "shapes")
    load_checkpoint(folder)
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(
        InputError, match="SHA-256 [0-9a-f]{64}, got [0-9a-f]{64}; the file was"
    ):
        load_checkpoint(folder)


def test_a_name_wins_over_a_folder_which_a_longer_path_still_reaches(tmp_path, monkeypatch):
    from pathlib import Path

    monkeypatch.chdir(tmp_path)
    (tmp_path / "cells").mkdir()
    assert located("cells") == shipped.ROOM / "cells"
    assert located("./cells") == located(Path("cells")) == Path("cells")


@pytest.mark.parametrize("load", [load_checkpoint, lambda name: build_from(name, None)])
def test_an_unknown_name_is_told_the_known_ones_and_that_folders_are_taken(load):
    with pytest.raises(InputError, match="folder.* name: cells, shapes, got cell$"):
        load("cell")


@pytest.mark.parametrize("name", [None, *NAMES])
def test_the_command_prints_a_row_for_each_or_a_card(name, capsys):
    assert main(["models", *([name] if name else [])]) == 0
    out = capsys.readouterr().out
    if name:
        assert out == read_page(name)
        return
    head, *rows = out.split("\n\n")[0].splitlines()
    assert head.split()[0] == "name" and [row.split()[0] for row in rows] == list(NAMES)
    for name, row in zip(NAMES, rows, strict=True):
        scores, sha256 = read_card(name)["scores"], read_card(name)["weights"]["sha256"]
        assert f"{scores['AP']:.3f} of {scores['ceiling_AP']:.3f}" in row and sha256[:12] in row


def test_the_command_refuses_another_name(capsys):
    assert main(["models", "cats"]) == 2
    assert "model: expected one of cells, shapes, got cats" in capsys.readouterr().err


def test_the_table_needs_no_torch():
    loaded = loaded_by("from tensormask_edu.cli import main; main(['models'])")
    assert not {"torch", "matplotlib", "safetensors"} & loaded
    assert "tensormask_edu" in loaded and command.HEAD


def test_predict_evaluate_and_train_take_a_name(world, tmp_path, capsys):
    picture = sorted((world / "images").glob("val_*.png"))[0]
    words = ["predict", "shapes", picture, "--output", tmp_path / "seen"]
    assert main([str(word) for word in words]) == 0
    assert (tmp_path / "seen" / picture.name).is_file()
    scores = evaluate_checkpoint("shapes", world)
    assert main(["evaluate", "shapes", str(world), "--json", str(tmp_path / "s.json")]) == 0
    assert read_json(tmp_path / "s.json")["segm"] == scores["segm"]
    words = ["train", world, "--output", tmp_path / "run", "--weights", "shapes", "--steps", 1]
    assert main([str(word) for word in [*words, "--batch-size", 2, "--lr", 1e-9]]) == 0
    started, _ = load_checkpoint("shapes")
    after, _ = load_checkpoint(tmp_path / "run" / "checkpoint")
    for (name, one), two in zip(started.named_parameters(), after.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-6), name


def test_the_exporter_compares_a_file_with_a_model_by_name(tiny, capsys):
    pytest.importorskip("onnxruntime")
    from tensormask_export import cli

    for words in (["verify", tiny[1], "cells"], ["bench", tiny[1], "--eager", "cells"]):
        assert cli.main([str(word) for word in words]) == 2
        assert "other weights" in capsys.readouterr().err


@pytest.mark.long
def test_every_command_of_the_exporter_takes_a_name(tmp_path):
    pytest.importorskip("onnxruntime")
    from tensormask_export import cli

    model, report = tmp_path / "shapes.onnx", tmp_path / "report.json"
    assert cli.main(["onnx", "shapes", str(model)]) == 0
    words = ["verify", model, "shapes", "--sizes", "1x64x96", "--runtimes", "onnxruntime"]
    assert cli.main([str(word) for word in words]) == 0
    words = ["bench", model, "--shape", "1x3x64x64", "--eager", "shapes", "--warmup", 1]
    words += ["--iterations", 5, "--json", report]
    assert cli.main([str(word) for word in words]) == 0
    assert len(json.loads(report.read_text())["rows"]) == 2


def test_float16_weights_find_what_float32_ones_do(world, tmp_path):
    model, size = load_checkpoint("shapes")
    for parameter in model.parameters():  # numbers that float16 has to round
        parameter.data *= 1 + 2e-4 * torch.rand_like(parameter)
    save_checkpoint(tmp_path, model, size, torch.float16)
    packed, _ = load_checkpoint(tmp_path)
    dataset, compared = CocoFolder(world, "val", keep_empty=True), 0
    for index in range(len(dataset)):
        image = dataset.image(index).numpy()
        one, two = detect(model, image, size, 0.3), detect(packed, image, size)
        for k in range(len(one["scores"])):
            same = two["labels"] == one["labels"][k]
            overlap = iou(one["masks"][k][None], two["masks"]) * same
            best = int(overlap.argmax())
            assert overlap[best] >= PACKED_IOU
            assert abs(two["scores"][best] - one["scores"][k]) <= PACKED_SCORE
            compared += 1
    assert compared >= 5


def test_the_script_trains_and_packs_what_it_trained(
    ship, world, tmp_path, monkeypatch, capsys
):
    run, folder = tmp_path / "run", tmp_path / "packed"
    options = ["--steps", 2, "--data", world, "--output", run, "--folder", folder]
    monkeypatch.setattr(sys, "argv", ["ship.py", "shapes", *map(str, options)])
    assert ship.main() == 0
    card = read_json(folder / "card.json")
    assert {path.name for path in folder.iterdir()} == FILES
    assert card["training"]["steps"] == 2 and card["classes"] == list(CLASS_NAMES)
    assert card["failures"]["counts"]["missed"] == card["failures"]["objects"]
    load_checkpoint(folder)
    packed = folder / "model.safetensors"
    before = file_sha256(packed)
    words = ["pack", "shapes", run, folder, "--data", world]
    monkeypatch.setattr(sys, "argv", ["ship.py", *map(str, words)])
    assert ship.main() == 0 and file_sha256(packed) == before
    with pytest.raises(InputError, match="run: expected the folder of a training"):
        ship.training_facts("shapes", world)


def test_each_kind_of_failure_is_told_from_the_others(ship, world):
    """Masks made by hand, on a picture of two squares side by side."""
    import failures
    import numpy as np

    def box(*corners):
        mask = np.zeros((20, 40), dtype=bool)
        x0, y0, x1, y1 = corners
        mask[y0:y1, x0:x1] = True
        return mask

    def kinds(*found):
        """Of detections (corners, label, score)."""
        seen = object.__new__(failures.Seen)
        masks = np.array([box(*corners) for corners, _, _ in found]).reshape(-1, 20, 40)
        truth = np.array([box(0, 0, 10, 10), box(10, 0, 20, 10)])
        seen.index, seen.true_label = 0, np.array([0, 1])
        seen.label = np.array([label for _, label, _ in found], dtype=int)
        seen.score = np.array([score for *_, score in found])
        seen.measure(masks, truth)
        return sorted(failure.kind for failure in seen.failures())

    left, right = ((0, 0, 10, 10), 0, 0.9), ((10, 0, 20, 10), 1, 0.8)
    assert kinds(left, right) == []
    assert kinds() == ["missed", "missed"]
    assert kinds(left, ((10, 0, 20, 10), 1, 0.4)) == ["missed"]  # too unsure to count
    assert kinds(left, ((10, 0, 20, 10), 0, 0.8)) == ["wrong class"]
    assert kinds(left, ((10, 0, 20, 6), 1, 0.8)) == ["coarse outline"]  # IoU 0.6
    assert kinds(left, ((10, 0, 20, 4), 1, 0.8)) == ["coarse outline"]  # IoU 0.4
    assert kinds(left, right, ((0, 0, 10, 9), 0, 0.7)) == ["doubled"]
    assert kinds(left, right, ((25, 5, 35, 15), 0, 0.7)) == ["invented"]
    assert kinds(((0, 0, 20, 10), 0, 0.9)) == ["merged"]
