"""Every lesson opened in JupyterLab: it runs, its sliders move, its links lead somewhere."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from conftest import ROOT
from test_live_page import CHROMIUM, EXPLORER, node, why_no_browser

sys.path.append(str(ROOT / "notebooks"))
import lab

LESSONS = [path.name for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
WITH_SLIDERS = {"02", "04", "10", "11", "12"}
START_S = 120  # until the server answers; nothing here is a time limit of a lesson
# Cells that are out of sight are in the page too, and nobody is asked anything.
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false"},
}


def why_not() -> str:
    """Why JupyterLab cannot be opened here; "" where it can."""
    if importlib.util.find_spec("jupyterlab") is None:
        return "JupyterLab is not installed"
    return why_no_browser()


in_lab = pytest.mark.skipif(bool(why_not()), reason=why_not())
pytestmark = pytest.mark.long


@contextmanager
def served(root: Path, token: str) -> Iterator[str]:
    """JupyterLab on copies of the lessons, as `make lab` starts it; its address."""
    aside = shutil.ignore_patterns("_build", "explorer", "lessons", "api")
    shutil.copytree(ROOT / "docs", root / "docs", ignore=aside)  # where links of lessons lead
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "exporters")])
    }
    environment |= {"TENSORMASK_EDU_SMOKE": "1"}
    for name in ("CONFIG", "DATA", "RUNTIME"):  # nothing of the reader's own is touched
        environment[f"JUPYTER_{name}_DIR"] = str(root / name.lower())
    environment["JUPYTERLAB_SETTINGS_DIR"] = str(root / "settings")
    for name, values in SETTINGS.items():
        file = root / "settings" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), encoding="utf-8")
    work = root / "work"
    lab.copy_lessons(work)
    sign = f"import lab, pathlib; lab.trust(lab.untouched(pathlib.Path({str(work)!r})))"
    signing = environment | {"PYTHONPATH": str(ROOT / "notebooks")}
    subprocess.run([sys.executable, "-c", sign], check=True, env=signing)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", f"--port={port}", f"--IdentityProvider.token={token}"]
    options += ["--expose-app-in-browser", "--ServerApp.log_level=ERROR"]
    command = lab.jupyter_command(work, options)
    with (root / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=root)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(START_S):
            try:
                urlopen(f"{address}/api?token={token}")
                break
            except URLError:
                assert server.poll() is None, (root / "server.log").read_text()
                time.sleep(1)
        yield address
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> dict:
    """What happened to every lesson, see `docs/explorer/tests/lab.mjs`."""
    root, token = tmp_path_factory.mktemp("lab"), "lessons"
    with served(root, token) as address:
        script = EXPLORER / "tests" / "lab.mjs"
        node(script, address, token, str(CHROMIUM), root / "report.json", *LESSONS)
    return json.loads((root / "report.json").read_text())


@in_lab
@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_runs_to_its_end_in_jupyterlab(lesson, opened):
    seen = opened[lesson]
    assert not seen["failed"] and not seen["errors"]
    assert seen["notRun"] == 0
    assert seen["pictures"]


@in_lab
@pytest.mark.parametrize("lesson", LESSONS)
def test_a_picture_changes_when_its_slider_moves(lesson, opened):
    """That which is stored, before any cell ran, and that of the run."""
    seen = opened[lesson]
    assert bool(seen["stored"]) == (lesson[:2] in WITH_SLIDERS)
    assert all(seen["stored"]) and all(seen["run"])
    assert len(seen["run"]) == len(seen["stored"])


@in_lab
@pytest.mark.parametrize("lesson", LESSONS)
def test_links_of_a_lesson_answer_in_jupyterlab(lesson, opened):
    links = opened[lesson]["links"]
    inside = {link: status for link, status in links.items() if status != "outside"}
    assert any("glossary" in link for link in inside)
    assert not [link for link, status in inside.items() if status != 200]
