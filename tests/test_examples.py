"""The examples of `--help` run as they stand there, one after the other, in an empty folder."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from exported import SMALL, needs_rtx

from tensormask_edu import cli
from tensormask_edu.ablations.budget import BUDGETS, Budget
from tensormask_edu.commands import demo
from tensormask_edu.config import InputConfig
from tensormask_edu.data.shapes import CLASS_NAMES, write_shapes
from tensormask_edu.detector.model import build_model
from tensormask_edu.weights.checkpoint import save_checkpoint

# Options after those of an example, so that a minute is enough for all.
SHORTER = {
    "demo": ["--quick"],
    "shapes": ["--train", "4", "--val", "2", "--size", "64"],
    "train": ["--steps", "2", "--batch-size", "2"],
    "check-ops": ["--device", "cpu"],
    "bench": ["--warmup", "1", "--iterations", "5"],
}
TRAINED = (
    "demo", "shapes", "train", "evaluate", "predict", "ablate", "models", "check-ops", "doctor",
)  # fmt: skip
EXPORTED = ("onnx", "verify", "engine", "predict", "bench", "triton")


def examples(main, program, commands, capsys):
    """Every example of the commands, as words without the program's name."""
    for command in commands:
        with pytest.raises(SystemExit):
            main([command, "--help"])
        shown = capsys.readouterr().out.partition("example:\n")[2]
        lines = shown.strip().splitlines()
        assert lines and all(re.match(rf" *{program} {command}( |$)", line) for line in lines)
        yield from (line.split()[1:] for line in lines)


def run(main, words):
    return main([*words, *SHORTER.get(words[0], [])])


def test_the_examples_of_the_first_command_run_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "STAGES", demo.STAGES[2:4])  # the rest has tests of its own
    small = Budget("lesson", 2, 64, train=4, val=2, channels=8, share=True)
    monkeypatch.setitem(BUDGETS, "lesson", small)
    for words in list(examples(cli.main, "tensormask-edu", TRAINED, capsys)):
        assert run(cli.main, words) == 0, words
    (convert,) = examples(cli.main, "tensormask-edu", ["convert"], capsys)
    assert run(cli.main, convert) == 2  # its file is a download
    assert "model_final_8f325c.pkl" in capsys.readouterr().err


def test_an_example_reads_what_one_before_it_wrote(capsys):
    from tensormask_export.cli import main

    made = []
    for words in [
        *examples(cli.main, "tensormask-edu", TRAINED, capsys),
        *examples(main, "tensormask-export", EXPORTED, capsys),
    ]:
        written = [
            words[i + 1] for i, word in enumerate(words) if word in ("--output", "--json")
        ]
        written += words[1:2] if words[0] == "shapes" else []
        written += words[2:3] if words[0] in ("onnx", "engine") else []
        for path in {word for word in words[1:] if "/" in word or "." in word} - {*written}:
            assert any(f"{path}/".startswith(f"{each}/") for each in made) or path == "0.3", (
                path
            )
        made += written


@pytest.mark.long
@needs_rtx
def test_the_examples_of_the_exporter_run_in_order(tmp_path, monkeypatch, capsys):
    from tensormask_export.cli import main

    monkeypatch.chdir(tmp_path)
    write_shapes("outputs/shapes", train=1, val=2, size_px=64)
    model = build_model(replace(SMALL, class_names=CLASS_NAMES))
    save_checkpoint("outputs/run/checkpoint", model, InputConfig())
    for words in list(examples(main, "tensormask-export", EXPORTED, capsys)):
        runs_an_engine = words[0] in ("predict", "bench") and "outputs/model.engine" in words
        needs = 2 if runs_an_engine and not torch.cuda.is_available() else 0
        assert run(main, words) == needs, (words, capsys.readouterr().err)
        assert not needs or "GPU" in capsys.readouterr().err
