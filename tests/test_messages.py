"""Messages that no other test makes: each with the call that makes it (`errors.py`)."""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tensormask_edu import cli, config, masks
from tensormask_edu.ancestors import judge
from tensormask_edu.ancestors.fit import fit
from tensormask_edu.base.errors import InputError
from tensormask_edu.base.files import read_json
from tensormask_edu.base.lock import alone_in
from tensormask_edu.base.stages import Failed, NotRun
from tensormask_edu.commands import demo
from tensormask_edu.config import InputConfig, ModelConfig, TrainConfig
from tensormask_edu.config.json_form import from_json
from tensormask_edu.data import shapes
from tensormask_edu.data.coco import CocoFolder
from tensormask_edu.detector.model import build_model
from tensormask_edu.learn import checks
from tensormask_edu.learn.exercise import exercise, explain, numbers, predict
from tensormask_edu.learn.kinds import EXERCISES, Numbers, Predict
from tensormask_edu.learn.trials import Failure
from tensormask_edu.ops import build, cpu, dispatch, kernel
from tensormask_edu.ops.resample import Rule, resample
from tensormask_edu.ops.transforms import LARGEST
from tensormask_edu.training import journal
from tensormask_edu.weights import official, pickled

TINY = config.MODELS["tiny"]

# --- configurations ---------------------------------------------------------------------------

CONFIGURED: list[tuple[str, Callable[[], object]]] = [
    ("enlarge: expected above 0, up to 64, got 0", lambda: InputConfig(enlarge=0)),
    ("stretch_percentiles: expected 0 <= low", lambda: InputConfig(stretch_percentiles=(9, 1))),
    ("mask_threshold: expected between", lambda: replace(TINY, mask_threshold=1.0)),
    ("mask_score_power: expected at least 0", lambda: replace(TINY, mask_score_power=-1)),
    ("upscale: expected from 1 to 64, got 0", lambda: replace(TINY, upscale=0)),
    ("representation: expected aligned", lambda: replace(TINY, representation="natural")),
    ("upscale: expected 1, got 2; the bipyramid", lambda: replace(TINY, upscale=2)),
    ("upscale: expected a divisor", lambda: replace(TINY, bipyramid=False, upscale=7)),
    ("minutes: expected a positive number", lambda: TrainConfig(minutes=0)),
    ("minutes: expected a positive number, got inf", lambda: TrainConfig(minutes=math.inf)),
    ("lr: expected a positive number, got inf", lambda: TrainConfig(lr=math.inf)),
    ("cache_mb: expected at least 0", lambda: TrainConfig(cache_mb=-1)),
    ("optimizer: expected adamw or sgd", lambda: TrainConfig(optimizer="adam")),
    ("bad_pictures: expected stop or skip", lambda: TrainConfig(bad_pictures="mend")),
    ("threads: expected at least 1", lambda: TrainConfig(threads=0)),
    ("config: expected a JSON object, got list", lambda: from_json(ModelConfig, [])),
    ("here: steps: expected a whole number, got None",
     lambda: from_json(TrainConfig, {"steps": None}, "here")),
]  # fmt: skip


@pytest.mark.parametrize("message, call", CONFIGURED, ids=[words for words, _ in CONFIGURED])
def test_a_value_that_cannot_be_is_named(message, call):
    with pytest.raises(InputError, match=f"^{message}"):
        call()


# --- commands ---------------------------------------------------------------------------------

COMMANDS: list[tuple[str, str]] = [
    ("train: expected FOLDER, or --annotations", "train --output out"),
    ("inspect: expected FOLDER, or --annotations", "inspect"),
    ("pictures: expected at least 0", "inspect folder --pictures -1"),
    ("steps: expected at least 1, got 0", "ablate 2a --steps 0"),
    ("seeds: expected from 0 to", "ablate 2a --seeds -1"),
    ("jobs: expected at least 1", "ablate 2a --jobs 0"),
    ("views: expected a CHECKPOINT", "evaluate --ground-truth a --detections b --views 2"),
    ("batch_size: expected at least 1", "evaluate shapes folder --batch-size 0"),
]  # fmt: skip


@pytest.mark.parametrize("message, words", COMMANDS)
def test_a_command_names_what_it_cannot_do(message, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words.split()) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert not list(tmp_path.iterdir())


def test_stages_of_the_demo_say_why_they_did_not_run(tmp_path, monkeypatch):
    run = SimpleNamespace(
        report=SimpleNamespace(claims=[]), output=tmp_path, onnx=tmp_path, claim=print
    )
    bad = {"machine": {}, "problems": ["no disk"], "abilities": []}
    monkeypatch.setattr(demo.doctor, "examine", lambda: bad)
    with pytest.raises(Failed, match="^no disk$"):
        demo.look_around(run)
    row = {"dtype": "float64", "error": 1, "grad_error": 1, "limit": 0, "cases": [], "op": "x"}
    found = {"results": [row, row | {"dtype": "float32"}], "passed": False}
    monkeypatch.setattr(demo, "check_ops", lambda device: found)
    with pytest.raises(Failed, match="an operator differs"):
        demo.check_operators(run)
    monkeypatch.setattr(demo, "version", lambda name: None)
    with pytest.raises(NotRun, match="neither tensorrt nor tensorrt-rtx is installed"):
        demo.build_engine(run)
    with pytest.raises(
        NotRun, match=r'onnx not installed: pip install "tensormask-edu\[export\]"'
    ):
        demo._need("export", "onnx")
    (tmp_path / "page.html").write_text("<html></html>")
    (tmp_path / "model.onnx").touch()
    run.onnx = tmp_path / "model.onnx"
    monkeypatch.setattr(demo, "EXPLORER", tmp_path / "page.html")
    with pytest.raises(Failed, match="has no place for a model"):
        demo.hand_to_explorer(run)


# --- files ------------------------------------------------------------------------------------


def test_a_folder_in_place_of_a_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"JSON file: expected a readable file, .*directory"):
        read_json(tmp_path)


def test_a_lock_says_who_holds_it_or_why_there_can_be_none(tmp_path):
    ready, go = os.pipe(), os.pipe()
    if (child := os.fork()) == 0:
        with alone_in(tmp_path):
            os.write(ready[1], b"!")
            os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    with pytest.raises(InputError, match=f"where process {child} on .* writes; wait"):
        with alone_in(tmp_path):
            pass
    os.write(go[1], b"!")
    os.waitpid(child, 0)
    with pytest.raises(InputError, match=r"\.lock: cannot be written \(No such file"):
        with alone_in(tmp_path / "none"):
            pass


def refused(*args: object, **more: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_picture_or_a_log_that_finds_no_room_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.write_bytes", refused)
    with pytest.raises(InputError, match=r"a.png: cannot be written \(No space.*make room"):
        shapes._save(np.zeros((4, 4, 3), np.uint8), tmp_path / "a.png")
    with pytest.raises(InputError, match=r"log.jsonl: cannot be written \(No such file"):
        journal.append_log(tmp_path / "none", {"step": 1})


def test_run_lengths_that_do_not_fill_a_picture_are_named():
    (rle,) = masks.encode(np.ones((1, 4, 4), bool))
    with pytest.raises(InputError, match="segmentation: .*do not fill the picture"):
        masks.decode([rle | {"size": [2, 2]}], (2, 2))


# --- operators --------------------------------------------------------------------------------


def test_what_the_operators_cannot_do_is_told(monkeypatch):
    x = torch.zeros(1, 2, 2, 4, 4)
    with pytest.raises(InputError, match="bins: expected two integers"):
        resample(x, (2, 0), Rule(1.0, 1.0, "pad"))
    with pytest.raises(InputError, match="rule: expected step > 0"):
        resample(x, (2, 2), Rule(0.0, 1.0, "pad"))
    with pytest.raises(
        InputError, match="implementation: expected one for cpu .*leave the choice"
    ):
        dispatch._chosen("cpu", torch.float32, "cuda")
    monkeypatch.setattr(
        cpu, "_load", lambda dtype: (SimpleNamespace(swap_forward=no_memory), "")
    )
    with pytest.raises(MemoryError, match="swap_forward: no memory for the scratch rows"):
        cpu.forward(x, 1, 0.0)


def test_the_largest_numbers_of_a_rule_are_taken_and_none_beyond():
    x = torch.zeros(1, 2, 2, 4, 4)
    for step, skew in ((LARGEST, 1), (1, LARGEST), (1, -LARGEST)):
        # Most of what it reads lies outside
        assert (resample(x, (2, 2), Rule(step, skew, "pad"), -6.0) < 0).any()
        beyond = (2 * step, skew) if step > 1 else (step, 2 * skew)
        with pytest.raises(InputError, match="rule: expected step > 0"):
            resample(x, (2, 2), Rule(*beyond, "pad"))


def no_memory(*arguments: object) -> int:
    return 1  # what a kernel returns that finds none


def test_a_kernel_that_cannot_be_compiled_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORMASK_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "wrong.cpp"
    source.write_text("nonsense")
    with pytest.raises(OSError, match="wrong.cpp"):
        build._compile(
            build.find_compiler() or "c++", source, [("-shared",)], tmp_path / "x.so"
        )
    monkeypatch.setattr(build, "find_compiler", lambda: None)
    with pytest.raises(OSError, match="the emulator needs one"):
        kernel._emulated("text", "name")
    monkeypatch.setattr(build, "__file__", str(tmp_path / "a" / "b" / "c" / "build.py"))
    with pytest.raises(FileNotFoundError, match="no kernel sources in"):
        build.kernel_folder()


# --- weights of others ------------------------------------------------------------------------

RECONSTRUCT = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n"
PICKLES: list[tuple[str, bytes]] = [
    ("makes an array of a class of its own",
     RECONSTRUCT + b"cnumpy\ndtype\nK\x00\x85U\x01b\x87R."),
    ("uses the encoding 'utf-8'",
     b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00xX\x05\x00\x00\x00utf-8\x86R."),
    ("holds a dtype in place of a value", pickle.dumps({"a": np.dtype("f4")}, 2)),
]  # fmt: skip


@pytest.mark.parametrize("message, data", PICKLES, ids=[words for words, _ in PICKLES])
def test_a_pickle_that_is_no_table_of_arrays_is_refused(message, data, tmp_path):
    (tmp_path / "a.pkl").write_bytes(data)
    with pytest.raises(InputError, match=message):
        pickled.read_pickled(tmp_path / "a.pkl")


def test_nothing_sets_an_attribute_of_what_stands_for_a_function():
    with pytest.raises(pickled.Refused, match="sets the attribute function of a function"):
        pickled._Call(print).function = exec


def test_weights_that_are_others_are_named(tmp_path):
    with pytest.raises(InputError, match="weights: expected a readable file, .*none.pkl"):
        pickled.read_pickled(tmp_path / "none.pkl")
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([1, 2], 2))
    with pytest.raises(InputError, match="weights: expected a dictionary of tensors"):
        official.read_state(tmp_path / "list.pkl")
    other = build_model(replace(TINY, bipyramid=False))
    with pytest.raises(InputError, match="model: expected the bipyramid head"):
        official.official_state(other)
    model = build_model(TINY)
    state = official.official_state(model)
    with pytest.raises(InputError, match="state: 1 tensors are not of this model"):
        official.load_official(model, state | {"stranger": torch.zeros(1)})
    name = next(iter(state))
    with pytest.raises(InputError, match=r"state: .*: expected shape \(.*\), got \(7,\)"):
        official.load_official(model, state | {name: torch.zeros(7)})


# --- exercises --------------------------------------------------------------------------------


def told(name: str, answer: Callable[..., object]) -> str:
    """What is said of the first case of an exercise that an answer fails."""
    found = EXERCISES[name]
    with pytest.raises(Failure) as raised:
        checks._check_case(found, answer, found.cases[0])
    return str(raised.value)


def test_an_answer_of_another_kind_is_told_so():
    found, taps = EXERCISES["window_mask"], EXERCISES["taps"]
    right = found.reference

    def writes(*arguments: Any) -> object:
        result = right(*arguments)
        arguments[0][...] = 0
        return result

    changed = found.says("input changed", name=found.parameters[0])
    assert told("window_mask", writes) == changed
    listed = told("window_mask", lambda *a: right(*a).tolist())
    assert listed == found.says("another kind", expected="an array", yours="a list")
    text = told("window_mask", lambda *a: np.array(["text"]))
    assert text == found.says("no numbers", expected="an array")
    assert told("taps", lambda *a: [1, 2]) == taps.says("no pairs", yours=[1, 2])


def test_what_is_asked_on_top_is_told_too():
    found = EXERCISES["align2nat_view"]
    extra = next(iter(found.extras))
    with pytest.raises(Failure):
        checks._check_extra(found, extra, lambda *a: found.reference(*a).clone())
    with pytest.raises(Failure, match="ZeroDivisionError"):
        checks._check_extra(found, extra, lambda *a: 1 / 0)


def test_an_exercise_of_another_kind_is_named():
    def predict_it() -> None: ...

    tables = [name for name, each in EXERCISES.items() if isinstance(each, Numbers)]
    choices = [name for name, each in EXERCISES.items() if isinstance(each, Predict)]
    predict_it.__name__ = tables[0]
    with pytest.raises(InputError, match="exercise: expected one that is a function"):
        exercise(predict_it)
    with pytest.raises(InputError, match="name: expected an exercise that is a table"):
        numbers("taps")
    with pytest.raises(InputError, match="name: expected an exercise that is a choice"):
        predict("taps")
    with pytest.raises(InputError, match="name: expected an exercise that is a line"):
        explain("taps")
    choice = replace(EXERCISES[choices[0]], outcome=lambda *measured: "nothing known")
    with pytest.raises(InputError, match="outcome: expected one of"):
        choice.compare(...)


# --- other detectors --------------------------------------------------------------------------


def test_an_ancestor_whose_loss_is_no_number_stops(tmp_path):
    shapes.write_shapes(tmp_path, train=1, val=1, size_px=64, progress=False)

    class Diverging(torch.nn.Linear):
        def losses(self, samples: object, generator: object) -> dict[str, torch.Tensor]:
            return {"loss": self.weight.sum() * torch.inf}

    one = TrainConfig(steps=1, batch_size=1)
    with pytest.raises(FloatingPointError, match="the loss at step 0 is .*lower lr"):
        fit(lambda: Diverging(1, 1), CocoFolder(tmp_path, "train"), one, progress=False)


def test_a_judge_wants_an_object():
    with pytest.raises(InputError, match="dataset: expected at least one picture with an"):
        judge.mask_ious(None, [])
