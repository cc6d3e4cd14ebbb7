"""Checkpoints and configurations: a round trip, and one clear error for everything else."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from tensormask_edu import config
from tensormask_edu.base.errors import InputError
from tensormask_edu.base.files import read_json, write_json, written_whole
from tensormask_edu.detector.model import build_model
from tensormask_edu.weights.checkpoint import load_checkpoint, save_checkpoint

CELLS = config.RECIPES["cells"]


@pytest.fixture
def saved(tmp_path):
    model = build_model("tiny", num_classes=3)
    save_checkpoint(tmp_path / "checkpoint", model, CELLS.input)
    return tmp_path / "checkpoint", model


def test_a_saved_model_comes_back_exactly(saved):
    folder, model = saved
    loaded, input_config = load_checkpoint(folder)
    assert loaded.config == model.config and input_config == CELLS.input
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    files = sorted(path.name for path in folder.iterdir())
    assert files == ["config.json", "model.safetensors"]


def test_loading_a_model_does_not_load_the_compiler():
    """It takes longer than all the rest."""
    code = (
        "import sys\n"
        "from tensormask_edu.weights.checkpoint import load_checkpoint\n"
        "model, _ = load_checkpoint('shapes')\n"
        "assert 'torch._dynamo' not in sys.modules\n"
        "assert not any(p.is_meta for p in model.parameters())\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", sorted(config.RECIPES))
def test_every_configuration_survives_json(name):
    recipe = config.RECIPES[name]
    for part in (recipe.model, recipe.input, recipe.train):
        values = json.loads(json.dumps(config.to_json(part)))
        assert config.from_json(type(part), values) == part


def test_weights_of_another_configuration_are_refused(saved):
    folder, model = saved
    other = {"model": config.to_json(replace(model.config, mask_channels=16)), "input": {}}
    write_json(folder / "config.json", other)
    message = r"belongs to another configuration; \d+ tensors differ"
    with pytest.raises(InputError, match=message):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda f: (f / "config.json").unlink(), "expected an existing file"),
        (lambda f: (f / "model.safetensors").unlink(), "expected an existing weights file"),
        (lambda f: (f / "config.json").write_text("{"), "expected valid JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "with the parts model and input"),
        (
            lambda f: (f / "model.safetensors").write_bytes(b"\x00" * 40),
            "not a whole safetensors file",
        ),
        (
            lambda f: write_json(f / "config.json", {"model": {"colour": 1}, "input": {}}),
            r"unknown \['colour'\]",
        ),
    ],
)
def test_broken_checkpoints_are_refused(saved, change, message):
    folder, _ = saved
    change(folder)
    with pytest.raises(InputError, match=message):
        load_checkpoint(folder)


def test_what_a_broken_file_says_is_not_repeated_at_length(saved):
    header = json.dumps("x" * 5000).encode()
    (saved[0] / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(InputError, match="not a whole safetensors file") as raised:
        load_checkpoint(saved[0])
    assert len(str(raised.value)) < 300 + len(str(saved[0]))


def test_line_breaks_of_a_broken_file_do_not_break_the_line(saved):
    header = b'{"a": {"dtype": "\\nF32", "shape": [1], "data_offsets": [0, 4]}}'
    whole = len(header).to_bytes(8, "little") + header + bytes(4)
    (saved[0] / "model.safetensors").write_bytes(whole)
    with pytest.raises(InputError, match=r"unknown variant .*\\nF32") as raised:
        load_checkpoint(saved[0])
    assert str(raised.value).isprintable()


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(InputError, match=r"checkpoint: expected a folder .* got .*nowhere"):
        load_checkpoint(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "values, message",
    [
        ({"prior": 0.0}, "prior: expected a probability"),
        ({"class_names": ()}, "class_names: expected at least one class"),
        (
            {"mask_channels": 30},
            "mask_channels: expected a multiple of tower_norm_groups = 8, got 30",
        ),
        ({"strides_px": (4, 12)}, "strides_px: expected each stride twice"),
        ({"backbone": "vgg"}, "backbone: expected one of"),
        ({"centrality_unit": "px"}, "centrality_unit: expected stride or bin, got px"),
        ({"scale_rule": "half"}, "scale_rule: expected side - stride or side, got half"),
        ({"detections_per_image": 0}, "detections_per_image: expected from 1 to 10000, got 0"),
    ],
)
def test_impossible_models_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        config.ModelConfig(**values)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "values.json"
    write_json(path, [1])
    with pytest.raises(RuntimeError), written_whole(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(path) == [1]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda w: w.fill_(float("nan")), "weights that are finite, got .* with NaN"),
        (lambda w: w.fill_(float("inf")), "weights that are finite, got .* or infinity"),
        (lambda w: w.to(torch.int32), "dense tensors of floating numbers, got .*int32"),
        (lambda w: w.to(torch.complex64), "dense tensors of floating numbers, got .*complex64"),
    ],
)
def test_weights_that_are_no_numbers_are_refused(saved, change, message):
    folder, model = saved
    state = model.state_dict()
    name = next(name for name in state if name.endswith("weight"))
    save_file(state | {name: change(state[name].clone())}, folder / "model.safetensors")
    with pytest.raises(InputError, match=f"model.safetensors: expected {message}"):
        load_checkpoint(folder)
    halves = {key: value.bfloat16() for key, value in state.items()}
    save_file(halves, folder / "model.safetensors")  # another precision is fine
    assert next(load_checkpoint(folder)[0].parameters()).dtype == torch.float32
