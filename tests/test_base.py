"""What most rooms need: tables, machine facts, stages, files, the command line, packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from tensormask_edu.base.command_line import Parser, add_command, run_command
from tensormask_edu.base.errors import InputError, bad_input
from tensormask_edu.base.files import (
    check_place,
    file_sha256,
    read_json,
    remove_leftovers,
    write_json,
    written_whole,
)
from tensormask_edu.base.machine import in_words, machine, multiplies_bfloat16, version
from tensormask_edu.base.packages import required
from tensormask_edu.base.stages import Failed, NotRun, perform
from tensormask_edu.base.tables import text_table


def test_columns_are_as_wide_as_their_widest_cell():
    rows = [("op", "error"), ("swap_align2nat", "0"), ("x", "")]
    assert text_table(rows, "  ").splitlines() == [
        "  op              error",
        "  swap_align2nat  0",
        "  x",
    ]
    with pytest.raises(ValueError):
        text_table([("a", "b"), ("c",)])


def test_the_machine_can_be_written_as_json_and_names_versions():
    facts = json.loads(json.dumps(machine()))
    assert facts["torch"] == torch.__version__ and facts["threads"] == torch.get_num_threads()
    assert facts["numpy"] == version("numpy") and (facts["gpu"] is None) is (
        not torch.cuda.is_available()
    )
    assert version("no-such-distribution") is None
    assert {"python", "system", "GPU"} <= in_words().keys()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor: 0\nflags\t\t: fpu avx512f avx512_bf16 avx512_vnni\n", True),
        ("flags : fpu avx2 amx_bf16\nflags : fpu\n", True),
        ("flags : fpu avx512f avx512_vnni\nvmx flags : avx512_bf16\n", False),
        ("bugs : avx512_bf16\nFeatures : fp asimd bf16\n", False),
        ("", False),
        (None, False),
    ],
)
def test_what_the_processor_multiplies_is_read_off_its_flags(text, expected, monkeypatch):
    def read(path: Path) -> str:
        if text is None:
            raise FileNotFoundError(path)
        return text

    monkeypatch.setattr(Path, "read_text", read)
    found = multiplies_bfloat16()
    monkeypatch.undo()
    assert found is expected


def test_facts_of_the_machine_load_no_package():
    code = (
        "import sys\n"
        "from tensormask_edu.base.machine import in_words, machine\n"
        "facts = machine(), in_words()\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
        "print(facts[0]['torch'], facts[0]['threads'], facts[0]['gpu'])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout.split() == [version("torch"), str(os.cpu_count()), "None"]


def raises(error: Exception):
    def work():
        raise error

    return work


def test_a_stage_says_how_it_went(capsys):
    done = perform("one", lambda: {"any": "value"})
    assert (done.state, done.words) == ("done", {"any": "value"}) and done.seconds >= 0
    absent = perform("two", raises(NotRun("no GPU")))
    assert (absent.state, absent.words) == ("not run", "no GPU")
    for error in (Failed("it differs"), InputError("it differs")):
        failed = perform("three", raises(error))
        assert (failed.state, failed.words) == ("failed", "it differs")
    assert capsys.readouterr().err == ""
    bug = perform("four", raises(KeyError("lam")))
    assert (bug.state, bug.words) == ("failed", "KeyError: 'lam'")
    assert "Traceback" in capsys.readouterr().err


def test_a_stage_waits_for_what_it_needs():
    before = [perform("shapes", lambda: ""), perform("train", raises(Failed("")))]
    assert perform("method", lambda: "drawn", ["shapes"], before).words == "drawn"
    stage = perform("onnx", raises(AssertionError()), ["shapes", "train"], before)
    assert (stage.state, stage.words) == ("not run", "needs the stage train")


def test_a_caller_may_explain_errors_in_its_own_way(capsys):
    stage = perform("check", raises(ZeroDivisionError()), explain=lambda error: repr(error))
    assert (stage.state, stage.words) == ("failed", "ZeroDivisionError()")
    assert capsys.readouterr().err == ""


def command_line(run):
    parser = Parser(prog="a-program")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    text = "Do it, e.g. now. And more about it."
    add_command(commands, "do", run, text, "do --it").add_argument("--it", action="store_true")
    return parser


def test_a_command_has_a_line_in_the_list_and_an_example(capsys):
    for words in (["--help"], ["do", "--help"]):
        with pytest.raises(SystemExit):
            run_command(command_line(None), words)
    first, second = capsys.readouterr().out.split("usage: a-program do")
    assert "And more" not in first and "And more" in second
    assert "example:\n  a-program do --it" in second


def test_errors_end_a_command_with_one_line(capsys):
    assert run_command(command_line(lambda args: int(args.it)), ["do", "--it"]) == 1
    assert run_command(command_line(lambda args: raises(InputError("bad"))()), ["do"]) == 2
    assert capsys.readouterr().err == "error: bad\n"
    stopped = command_line(lambda args: raises(KeyboardInterrupt())())
    assert run_command(stopped, ["do"], "stopped; nothing was written") == 130
    assert capsys.readouterr().err == "stopped; nothing was written\n"


def test_bad_input_names_argument_expectation_value_and_fix():
    assert str(bad_input("lam", "an integer", 0, "pass 1")) == (
        "lam: expected an integer, got 0; pass 1"
    )


def test_a_package_that_is_missing_is_named_with_its_extra():
    assert required("json", "export") is json
    with pytest.raises(InputError, match=r'pip install "tensormask-edu\[export\]"'):
        required("no_such_package", "export")


def test_torchvision_comes_without_the_compiler_and_both_work_afterwards():
    code = (
        "import sys\n"
        "from tensormask_edu.base.packages import import_torchvision\n"
        "import_torchvision()\n"
        "assert 'torchvision.ops' in sys.modules\n"
        "assert not any(name.startswith('torch._dynamo') for name in sys.modules)\n"
        "import torch, torchvision\n"
        "torch.use_deterministic_algorithms(True)\n"  # roi_align now asks the compiler
        "box = torch.tensor([[0.0, 0, 0, 4, 4]])\n"
        "print(torchvision.ops.roi_align(torch.ones(1, 1, 8, 8), box, 1).item())\n"
        "assert hasattr(sys.modules['torch._dynamo.utils'], 'counters')\n"
        "print(torch.compile(lambda x: x + 1, backend='eager')(torch.ones(())).item())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.stdout.split(), run.stderr) == (["1.0", "2.0"], "")


def test_a_torchvision_that_wants_more_of_the_compiler_gets_it(tmp_path):
    (tmp_path / "torchvision.py").write_text(
        "from torch._dynamo.utils import counters, is_compile_supported\nimport torch\n"
        "assert torch._dynamo.utils.counters is counters\n"
    )
    code = (
        "from tensormask_edu.base.packages import import_torchvision as load\n"
        "load()\n"
        "import sys, torch\n"
        "assert sys.modules['torch._dynamo'] is torch._dynamo\n"
        "print(torch._dynamo.utils.is_compile_supported('cpu'))"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert (run.stdout.strip(), run.stderr) == ("True", "")


def test_a_file_is_whole_or_absent(tmp_path):
    write_json(tmp_path / "new" / "a.json", {"b": 1})
    assert read_json(tmp_path / "new" / "a.json") == {"b": 1}
    with pytest.raises(KeyError), written_whole(tmp_path / "half.txt") as temporary:
        temporary.write_text("half")
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    (tmp_path / "empty").touch()
    assert file_sha256(tmp_path / "empty").startswith("e3b0c44298fc1c14")


def test_a_device_or_a_stream_is_no_place_for_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "stdout").symlink_to("/proc/self/fd/1")
    streams = (tmp_path / "pipe", tmp_path / "stdout", "/dev/null", "/dev/stdout", "/dev/fd/1")
    for place in streams:
        with pytest.raises(InputError, match="is a device or a stream, not a file"):
            check_place(place)
    assert (tmp_path / "stdout").is_symlink() and (tmp_path / "pipe").is_fifo()
    # A link to a file is a file's place as ever
    (tmp_path / "link").symlink_to(tmp_path / "file")
    check_place(tmp_path / "link")


@pytest.mark.parametrize("stem", ["a" * 251, "é" * 125, "[a]"], ids=["long", "accents", "glob"])
def test_any_name_that_a_disk_takes_is_written_and_its_leftovers_go(stem, tmp_path):
    path = tmp_path / f"{stem}.txt"
    with written_whole(path) as temporary:
        temporary.write_text("x")
        left = Path(temporary)
    assert path.read_text() == "x"
    left.touch()  # of a writer that was killed
    remove_leftovers(path)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_an_error_is_one_line_of_a_length_that_can_be_read():
    name = "a\nb" + "x" * 5000
    error = InputError(InputError(f"{name}: expected a number, got none; write one").args[0])
    assert str(error).isprintable() and len(str(error)) < 2000
    assert str(error).startswith("a\\nbxx") and str(error).endswith("got none; write one")
