"""A bug report: all that helps, and nothing that says whose machine it was."""

from __future__ import annotations

import getpass
import json
import os
import platform
import re
import sys
from pathlib import Path

import pytest
import torch

from tensormask_edu import cli
from tensormask_edu.base.command_line import LAST_ERROR
from tensormask_edu.base.errors import InputError
from tensormask_edu.commands.report_bug import SHORT, impersonal, last_log, report_bug

# A path from the root on, with two parts or more; addresses have a word before their slash
ABSOLUTE = re.compile(r"(?<![\w./~-])(?:[A-Za-z]:)?[\\/][\w.~-]+[\\/][\w.~-]")


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """A machine of somebody with a home, two runs, a cache and a mistake of ours in it."""
    home = tmp_path / "home" / "ann smith"
    work = home / "secret project"
    work.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("LOGNAME", "asmith42")
    monkeypatch.setenv("TENSORMASK_CACHE", str(home / ".cache"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(work / "lib"), "/opt/firm/lib"]))
    monkeypatch.setattr(platform, "node", lambda: "annslaptop.firm.example")
    monkeypatch.chdir(work)
    for number, name in enumerate(("old", "new")):
        log = work / "outputs" / name / "log.jsonl"
        log.parent.mkdir(parents=True)
        lines = [json.dumps({"step": step, "loss": number}) for step in range(50)]
        log.write_text("\n".join(lines) + "\n")
        os.utime(log, (number, number))
    return work


def mistaken(words: list[str]) -> None:
    """A command in which a mistake of ours shows, as `main` leaves it."""
    with pytest.raises(ZeroDivisionError) as raised:
        cli.main(words)
    assert "`tensormask-edu report-bug` packs it" in raised.value.__notes__[0]


def test_a_report_holds_what_helps_and_no_name_or_path_of_the_machine(
    workplace, monkeypatch, capsys
):
    def mistake(*args, **kwargs):
        return 1 / len("".join([]))

    with monkeypatch.context() as patch:
        patch.setattr("tensormask_edu.data.shapes.write_shapes", mistake)
        mistaken(["shapes", str(workplace / "shapes")])
    assert cli.main(["report-bug"]) == 0
    assert "bug.txt: read it, then attach it" in capsys.readouterr().out
    text = (workplace / "bug.txt").read_text(encoding="utf-8")
    assert torch.__version__ in text and "What runs here" in text
    assert "ZeroDivisionError" in text and ".../tensormask_edu/cli.py" in text
    assert "new/log.jsonl, 50 lines" in text and '{"step": 49, "loss": 1}' in text
    assert '"step": 29,' not in text  # twenty lines are enough
    for name in ("ann", "smith", "secret", "laptop", "firm", str(Path(sys.prefix).parent)):
        assert name not in text.replace("nearest", ""), name
    assert not ABSOLUTE.search(text), ABSOLUTE.search(text)
    for name in {getpass.getuser(), Path.home().name}:
        assert len(name) < SHORT or not re.search(rf"\b{re.escape(name)}\b", text)


@pytest.mark.parametrize(
    "said, kept",
    [
        ("/home/Ann/data/a.png: broken", ".../a.png: broken"),
        ("~/data/a.png", ".../a.png"),
        ("../../ann/a.png", ".../a.png"),
        (r"C:\\Users\\ann\\a.png", ".../a.png"),
        ("/a/b:/home/Ann/c", ".../b:.../c"),
        ("file:///home/Ann/a.png", "file://.../a.png"),
        ("(/home/Ann/a)", "(.../a)"),
        ('File "/home/Ann/venv/lib/python3.11/site-packages/torch/nn/x.py", line 3',
         'File ".../torch/nn/x.py", line 3'),
        ("/home/Ann/repo/tensormask_edu/ops/cpu.py", ".../tensormask_edu/ops/cpu.py"),
        ("https://pytorch.org/get-started/locally", "https://pytorch.org/get-started/locally"),
        ("outputs/run/log.jsonl", "outputs/run/log.jsonl"),
        ("1/2 and and/or", "1/2 and and/or"),
        ("process 3 on annslaptop, by ann-b", "process 3 on HOST, by ann-b"),
        ("user anne's", "user anne's"),
    ],
)  # fmt: skip
def test_paths_and_names_are_replaced_and_other_text_stays(said, kept):
    names = {"annslaptop": "HOST", "annb": "USER"}
    assert impersonal(said, names) == kept


def test_a_run_may_be_named_and_must_have_a_log(workplace):
    assert last_log("outputs/old") == Path("outputs/old/log.jsonl")
    assert last_log(None) == Path("outputs/new/log.jsonl")
    with pytest.raises(InputError, match="run: expected the folder of a training"):
        report_bug("bug.txt", workplace / "outputs")


def test_without_a_run_or_an_error_the_report_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TENSORMASK_CACHE", str(tmp_path / "cache"))
    text = report_bug("bug.txt").read_text(encoding="utf-8")
    assert "no training below this folder" in text and "none was kept" in text
    assert report_bug("bug.txt").is_file()  # the older one goes
    Path("notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="output: expected a new file or an older report"):
        report_bug("notes.txt")
    assert Path("notes.txt").read_text(encoding="utf-8") == "mine"


def test_a_mistake_that_cannot_be_kept_is_told_all_the_same(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TENSORMASK_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("tensormask_edu.data.shapes.write_shapes", lambda *a, **b: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["shapes", str(tmp_path / "shapes")])
    assert not (tmp_path / LAST_ERROR).exists()


def test_no_report_replaces_the_log_or_the_error_that_it_quotes(workplace):
    log = workplace / "outputs" / "new" / "log.jsonl"
    error = Path(os.environ["TENSORMASK_CACHE"]) / LAST_ERROR
    error.parent.mkdir(parents=True)
    error.write_text("a mistake")
    for place in (log, error):
        before = place.read_text()
        with pytest.raises(InputError, match="output: expected a place of its own"):
            report_bug(place, log.parent)
        assert place.read_text() == before
