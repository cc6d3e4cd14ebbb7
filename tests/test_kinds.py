"""Exercises that are no function: tables, modules, choices, lines to write."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torch
from torch import nn

from tensormask_edu import learn
from tensormask_edu.base.errors import InputError
from tensormask_edu.learn.exercise import SOLUTIONS
from tensormask_edu.learn.kinds import EXERCISES

MODULE = """
from torch import nn
from tensormask_edu.learn.kinds import explain, module, numbers, predict


@numbers({"alpha": 0.01, "bins": 0})
def lengths():
    alpha = 8 / 16
    return {"alpha": alpha, "bins": 5 * 5}


@module(arguments=[(3, 4), (2, 1)], inputs=[[(2, 3, 5, 6)], [(1, 2, 3, 3)]])
class Head(nn.Module):
    def __init__(self, channels, bins):
        super().__init__()
        self.conv = nn.Conv2d(channels, bins, 3, padding=1)

    def forward(self, x):
        return self.conv(x.relu())


predict("sharper", ("nearest", "bilinear"), lambda a, b: "nearest" if a > b else "bilinear")
explain("why", __name__)
"""
SENTENCES = """
## lengths
### hint 1
Divide.
### mistake: upside down
    8 / 16 => 16 / 8
You divided the wrong way round.

## Head
### mistake: no relu
    x.relu() => x
Your relu is missing.

## sharper
### outcome: nearest
Blocks have hard edges.
### outcome: bilinear
Planes are kept.

## why
### ours
Filing is only moving.
"""


@pytest.fixture(autouse=True)
def lesson(tmp_path):
    """A lesson of its own, forgotten afterwards."""
    (tmp_path / "lesson_98.py").write_text(MODULE)
    (tmp_path / "lesson_98.md").write_text(SENTENCES)
    before = set(EXERCISES)
    spec = importlib.util.spec_from_file_location("lesson_98", tmp_path / "lesson_98.py")
    module = sys.modules["lesson_98"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in set(EXERCISES) - before:
        del EXERCISES[name]
    del sys.modules["lesson_98"]


def said_by(capsys, call, *args, **kwargs):
    capsys.readouterr()
    call(*args, **kwargs)
    return " ".join(capsys.readouterr().out.split())


def test_a_table_left_open_is_the_packages(capsys):
    rows = learn.numbers("lengths", alpha=..., bins=...)
    assert rows == {"alpha": 0.5, "bins": 25}
    assert "not attempted yet" in capsys.readouterr().out
    assert "nothing to check yet" in said_by(capsys, learn.check, "lengths")


def test_a_table_is_right_within_its_tolerances(capsys):
    learn.numbers("lengths", alpha=0.505, bins=25)
    assert "lengths: correct." in said_by(capsys, learn.check, "lengths")


def test_a_wrong_row_is_told_by_its_mistake_and_its_side(capsys):
    learn.numbers("lengths", alpha=2, bins=24)
    said = said_by(capsys, learn.check, "lengths")
    assert "alpha = 2 is too large. You divided the wrong way round." in said
    assert "bins = 24 is too small." in said
    learn.numbers("lengths", alpha=0.5)
    assert "Passed before: alpha." in said_by(capsys, learn.check, "lengths")
    learn.numbers("lengths", alpha="half", bins=25)
    assert "alpha is not a number: 'half'." in said_by(capsys, learn.check, "lengths")
    with pytest.raises(InputError, match="row: expected one of alpha, bins"):
        learn.numbers("lengths", beta=1)


class Parts(nn.Module):
    """Right, with other names and in another order."""

    def __init__(self, channels, bins):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(bins))
        self.kernel = nn.Parameter(torch.zeros(bins, channels, 3, 3))

    def forward(self, x):
        return nn.functional.conv2d(x.clamp(min=0), self.kernel, self.bias, padding=1)


def test_a_mistake_made_in_one_row_alone_is_named():
    right = EXERCISES["losses_by_hand"].reference()
    hit = 0.3 / 3 * float(torch.nn.functional.softplus(torch.tensor(-0.3)))
    verdict = EXERCISES["losses_by_hand"].verdict(right | {"hit": hit})
    assert "You forgot gamma inside the sigmoid" in verdict.message
    assert "miss =" not in verdict.message


def test_a_whole_number_is_not_explained_by_a_mistake_that_others_did_not_make():
    right = EXERCISES["launch_numbers"].reference()
    verdict = EXERCISES["launch_numbers"].verdict(right | {"v": 1})
    assert verdict.message == "v = 1 is too small."


def test_a_module_is_right_whatever_its_parameters_are_called():
    verdict = EXERCISES["Head"].verdict(Parts)
    assert verdict.passed, verdict.message


def test_a_module_is_told_what_differs(lesson):
    class NoRelu(lesson.Head):
        def forward(self, x):
            return self.conv(x)

    class Cut(lesson.Head):
        def forward(self, x):
            return self.conv(x.relu().detach())

    class Wide(lesson.Head):
        def __init__(self, channels, bins):
            super().__init__(channels, bins)
            self.conv = nn.Conv2d(channels, bins, 5, padding=2)

    class Broken(lesson.Head):
        def forward(self, x):
            return self.missing(x)

    found = {kind: EXERCISES["Head"].verdict(kind) for kind in (NoRelu, Cut, Wide, Broken)}
    assert "Your relu is missing." in found[NoRelu].message
    assert found[Cut].stage == "gradient of the input"
    assert found[Wide].stage == "parameters"
    assert "AttributeError" in found[Broken].message


def test_an_untouched_class_is_the_packages(capsys, lesson):
    @learn.exercise
    class Head(nn.Module):
        """What to do."""

        def forward(self, x): ...

    assert Head is lesson.Head
    assert "nothing to check yet" in said_by(capsys, learn.check, "Head")


def test_a_choice_is_compared_after_the_run(capsys):
    assert 'choose one of "nearest", "bilinear"' in said_by(
        capsys, learn.predict, "sharper", ...
    )
    assert "No choice was made. It came out: nearest." in said_by(
        capsys, learn.check, "sharper", 2, 1
    )
    learn.predict("sharper", "bilinear")
    said = said_by(capsys, learn.check, "sharper", 2, 1)
    assert said.endswith("You said: bilinear. It came out: nearest. Blocks have hard edges.")
    assert "As you said: bilinear. Planes are kept." in said_by(
        capsys, learn.check, "sharper", 1, 2
    )
    with pytest.raises(InputError, match='choice: expected one of "nearest", "bilinear"'):
        learn.predict("sharper", "both")


def test_a_line_is_written_before_ours_unfolds(capsys):
    assert learn.explain("why", ...) is None
    assert "ours unfolds" in capsys.readouterr().out
    shown = learn.explain("why", "because <b>")
    assert "<summary>Ours</summary><p>Filing is only moving.</p>" in shown._repr_html_()
    assert "because &lt;b&gt;" in shown._repr_html_()


def test_solutions_switched_on_pass_every_kind(monkeypatch, capsys):
    monkeypatch.setenv(SOLUTIONS, "1")
    learn.numbers("lengths", alpha=..., bins=...)
    learn.check("lengths")
    learn.exercise(type("Head", (nn.Module,), {}))
    learn.check("Head")
    assert capsys.readouterr().out.count(": correct.") == 2
    assert "Filing" in repr(learn.explain("why", ...))


def test_solutions_of_every_kind_are_printed(capsys):
    for name, words in {
        "lengths": "alpha = 8 / 16",
        "Head": "self.conv(x.relu())",
        "sharper": "bilinear: Planes are kept.",
        "why": "only moving",
    }.items():
        assert words in said_by(capsys, learn.solution, name)
    with pytest.raises(InputError, match="a hint from 1 to 1"):
        learn.hint("lengths", 2)


def test_an_exercise_without_its_section_or_with_a_known_name_is_refused(lesson):
    from tensormask_edu.learn.kinds import explain

    with pytest.raises(ValueError, match="lesson_98.md: has no section 'nothing'"):
        explain("nothing", "lesson_98")
    with pytest.raises(ValueError, match="got 'why' again"):
        explain("why", "lesson_98")
