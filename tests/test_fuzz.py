"""Wrong inputs of every kind work or are refused in a line; what was found stays mended.

Here are a few inputs of each kind, always the same; `make fuzz` tries others for as long as it
is let. Both take them in a process of its own: `fuzz/children.py`.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

HERE = Path(__file__).with_name("fuzz")
sys.path.insert(0, str(HERE))

pytest.importorskip("onnxruntime")
import changes
import children
from children import Child
from run import CORPUS, Fuzzer
from targets import Target, make_world, targets

from tensormask_edu.base.errors import InputError

NAMES = (
    "coco", "masks", "pictures", "detections", "configs", "weights", "recipes", "pickles",
    "archives", "states", "metadata", "onnx", "manifests", "operators",
)  # fmt: skip
INPUTS = 12  # of each kind
KEPT = sorted(CORPUS.glob("*/*.*"))


@pytest.fixture(scope="module")
def fuzzer(small, tmp_path_factory) -> Iterator[tuple[Fuzzer, dict[str, Target]]]:
    folder = tmp_path_factory.mktemp("fuzz")
    make_world(folder, small[1])
    every = targets(folder)
    with Child({name: target.take for name, target in every.items()}) as child:
        yield Fuzzer(child, folder, folder / "inputs"), every


def test_every_kind_is_tried(fuzzer):
    assert tuple(fuzzer[1]) == NAMES
    assert {path.parent.name for path in KEPT} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_input_works_or_is_refused_in_a_line(name, fuzzer):
    tries, every = fuzzer
    found = tries.batch(name, every[name], number=0, count=INPUTS)
    assert found is None, found
    assert tries.tried[name] >= INPUTS and tries.refused[name]


@pytest.mark.parametrize("file", KEPT, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_was_found_stays_mended(file, fuzzer):
    tries, every = fuzzer
    name = file.parent.name
    outcome = tries.take(name, every[name], file.read_bytes())
    assert outcome.fine, outcome


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP"])
def test_the_header_of_a_picture_may_be_cut_anywhere(kind):
    file = io.BytesIO()
    Image.new("RGB", (3, 2)).save(file, kind)
    whole = file.getvalue()
    counts = [len(list(changes.header_fields(whole[:end]))) for end in range(len(whole) + 1)]
    assert counts[0] == 0 < counts[-1]


# --- what must not be is seen -----------------------------------------------------------------


def refuse(_: Path) -> None:
    raise InputError("a line")


def refuse_in_two_lines(path):
    error = InputError("two")
    error.args = ("two\nlines",)  # as it would be if the error let it pass
    raise error


def raise_another(_: Path) -> None:
    raise KeyError("a bug")


def crash(_: Path) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def hang(_: Path) -> None:
    while True:
        pass


def wait(_: Path) -> None:
    time.sleep(60)


def grow(_: Path) -> None:
    bytearray(64 << 20)


def reach_out(_: Path) -> None:
    Path("/etc/hostname").open().close()


def start_a_program(_: Path) -> None:
    os.system("true")


DOES: dict[str, tuple[Any, str]] = {
    "nothing": (lambda path: path.read_bytes(), "works"),
    "refuses": (refuse, "refused"),
    "refuses in two lines": (refuse_in_two_lines, "raised"),
    "raises another": (raise_another, "raised"),
    "crashes": (crash, "crash"),
    "hangs": (hang, "hang"),
    "waits": (wait, "hang"),
    "grows": (grow, "growth"),
    "opens another file": (reach_out, "reached out"),
    "starts a program": (start_a_program, "reached out"),
}


def test_whatever_an_input_does_is_seen_and_the_next_one_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(children, "SECONDS", 0.5)
    monkeypatch.setattr(children, "WAITING", 3)
    monkeypatch.setattr(children, "GROWTH", 32 << 20)
    (tmp_path / "input").write_text("x")
    with Child({name: does for name, (does, _) in DOES.items()}) as child:
        kinds = {name: child.take(name, tmp_path / "input").kind for name in DOES}
    assert kinds == {name: kind for name, (_, kind) in DOES.items()}


def test_a_file_grows_only_so_far_however_often_its_lists_are_repeated():
    value = ["a word"] * 50
    for _ in range(3):
        assert changes.is_small(value)
        value = [value] * 50
    assert not changes.is_small(value) and not changes.is_small({"x": value})
    assert not changes.is_small({"x" * changes.LARGEST: 1})
