"""The GPU day rehearsed on a CPU: every step runs, and none keeps the others from running."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest
import torch
from conftest import ROOT
from exported import needs_rtx

from tensormask_edu.ops.ptx.estimate import CARDS, Costs

SCRIPTS = [path.stem for path in (ROOT / "benchmarks").iterdir()]
H200 = {"name": "NVIDIA H200", "multiprocessors": 132, "highest_hz": 1.98e9}


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    """The folder of the benchmarks on the path, for one test."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "gpu"))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.split(".")[0] in {*SCRIPTS, "one_node"}:
            del sys.modules[name]


def stored(folder: Path) -> dict[str, dict]:
    """The files of a day, by step."""
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def test_the_rehearsal_reaches_every_step_and_all_holds(small, tmp_path, capsys):
    from gpu import run

    work, output = tmp_path / "work", tmp_path / "day"
    shutil.copytree(small[0], work / "small")
    shutil.copy(small[1], work / "small-float32-python.onnx")
    words = ["--rehearse", "--output", str(output), "--work", str(work)]
    assert run.main(words) == 0, capsys.readouterr().out
    files = stored(output)
    assert {each["step"]: each["state"] for each in files.pop("day")["steps"]} == dict.fromkeys(
        (step.name for step in run.STEPS), "ok"
    )
    assert set(files) == {step.name for step in run.STEPS}
    for record in files.values():
        assert record["rehearsal"] and record["device"]["name"] == "the processor"
        assert record["machine"]["torch"] and record["machine"]["date"] in record["began"]
        assert record["rows"] and "commit" in record and "cuda-core" in record["versions"]
    assert {row["name"].split(",")[1].strip() for row in files["operators"]["rows"][:-2]} == {
        *("formula", "cpu")
    }
    assert all(row["dense"]["ms"]["cpu"] > 0 for row in files["speed"]["rows"][:-1])
    ways = [row["way"] for row in files["model"]["rows"]]
    assert "windows, graph" in ways and len(set(ways)) == 9
    assert all(row["mask_iou"] > 0.9 for row in files["model"]["rows"])
    assert files["engines"]["rows"][0]["compared"][0]["expected"] > 0
    said = capsys.readouterr().out
    assert all(f"\n{step.name} " in said for step in run.STEPS)


# --- what may go wrong ------------------------------------------------------------------------


def day_of(monkeypatch, folder: Path, code: str, seconds: float = 60.0):
    """A day whose step is this code, and the step."""
    from gpu import run

    words = [sys.executable, "-c", f"folder = {str(folder)!r}\n{code}"]
    monkeypatch.setattr(run.Day, "command", lambda day, step: words)
    return run.Day(folder, time.monotonic() + 60), run.Step("tried", seconds, "", run.UNDONE)


HANGS = """
import json, pathlib, subprocess, time
path = pathlib.Path(folder, "tried.json")
record = {"step": "tried", "state": "running", "rows": ROWS, "text": ["1 of 1"]}
path.write_text(json.dumps(record))
child = subprocess.Popen(["sleep", "600"])
pathlib.Path(folder, "child").write_text(str(child.pid))
time.sleep(600)
"""


@pytest.mark.parametrize(("right", "state"), [(True, "cut"), (False, "failed")])
def test_a_step_that_hangs_is_cut_with_all_it_started_and_keeps_its_rows(
    right, state, monkeypatch, tmp_path
):
    from gpu import run

    monkeypatch.setattr(run, "SHORTEST_S", 0.0)
    rows = [{"ok": True}, {"ok": right}]
    day, step = day_of(monkeypatch, tmp_path, HANGS.replace("ROWS", str(rows)), seconds=3)
    outcome = day.run(step)
    assert (outcome.state, outcome.text) == (state, ["1 of 1"]) and "cut after" in outcome.why
    file = stored(tmp_path)["tried"]
    assert (file["state"], file["rows"]) == (state, rows)
    child = Path("/proc", (tmp_path / "child").read_text(), "stat")
    for _ in range(100):  # whoever takes over the orphan has to look at it
        if not child.exists() or child.read_text().split()[2] == "Z":
            break
        time.sleep(0.1)
    assert not child.exists() or child.read_text().split()[2] == "Z"


def test_a_step_that_dies_leaves_its_last_words(monkeypatch, tmp_path):
    day, step = day_of(
        monkeypatch, tmp_path, "import os\nos.write(2, b'out of luck')\nos.kill(os.getpid(), 9)"
    )
    outcome = day.run(step)
    assert outcome.state == "died" and "exit -9" in outcome.why and "out of luck" in outcome.why
    assert stored(tmp_path)["tried"] == {
        "step": "tried", "rows": [], "state": "died", "why": outcome.why
    }  # fmt: skip


def test_when_the_time_is_over_what_is_left_is_dropped_and_said(monkeypatch, tmp_path, capsys):
    from gpu import run

    slow = "import time; time.sleep(600)"
    _, step = day_of(monkeypatch, tmp_path, slow)
    monkeypatch.setattr(run, "SHORTEST_S", 0.5)
    day, steps = (
        run.Day(tmp_path, time.monotonic() + 2),
        [step, run.Step("other", 60, "", run.UNDONE)],
    )
    outcomes = run.run_all(day, steps)
    assert [each.state for each in outcomes] == ["cut", "dropped"]
    assert run.exit_code(outcomes, steps) == 1
    assert "the time was over" in capsys.readouterr().out
    assert [each["state"] for each in stored(tmp_path)["day"]["steps"]] == ["cut", "dropped"]
    assert "dropped" in run.summary(outcomes)


def test_the_exit_code_is_that_of_the_checks():
    from gpu import run

    kinds = {"a": run.UNDONE, "b": run.FAILED, "c": ()}
    steps = [run.Step(name, 1, "", bad) for name, bad in kinds.items()]

    def code(*states: str) -> int:
        pairs = zip("abc", states, strict=True)
        return run.exit_code([run.Outcome(*pair) for pair in pairs], steps)

    assert code("ok", "cut", "failed") == code("skipped", "dropped", "cut") == 0
    assert {code(state, "ok", "ok") for state in ("failed", "cut", "dropped", "died")} == {1}
    assert {code("ok", state, "ok") for state in ("failed", "died")} == {1}


@pytest.mark.parametrize(
    "words", [["--minutes", "0"], ["--steps", "none"], ["--output", "/proc/nowhere"]], ids=str
)
def test_a_wrong_call_ends_before_anything_runs(words, capsys):
    from gpu import run

    try:
        code = run.main(words)
    except SystemExit as ended:
        code = ended.code
    assert code == 2 and "error: " in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_without_a_gpu_the_day_ends_at_once(tmp_path, capsys):
    from gpu import run

    assert run.main(["--output", str(tmp_path)]) == 2
    assert "no CUDA device is visible to PyTorch" in capsys.readouterr().out
    assert set(stored(tmp_path)) == {"machine", "day"}


@pytest.mark.parametrize(
    ("package", "name", "said"),
    [("torch", "machine", "torch is not"), ("torchvision", "network", "torchvision is not")],
)
def test_a_step_whose_package_is_missing_says_so(package, name, said, tmp_path, monkeypatch):
    from gpu import run

    block = f"import sys\nsys.modules[{package!r}] = None\n"
    (tmp_path / "sitecustomize.py").write_text(block)
    monkeypatch.setattr(
        run, "environment", lambda found=run.environment: first(found(), tmp_path)
    )
    (step,) = [step for step in run.STEPS if step.name == name]
    options = ["--work", str(tmp_path), "--rehearse"]
    outcome = run.Day(tmp_path, time.monotonic() + 600, options).run(step)
    assert outcome.state == "skipped" and said in outcome.why
    assert run.exit_code([outcome], run.STEPS) == (2 if name == "machine" else 0)


def first(environment: dict[str, str], folder: Path) -> dict[str, str]:
    """The environment with a folder before all others on Python's path."""
    return environment | {"PYTHONPATH": f"{folder}:{environment['PYTHONPATH']}"}


def ended(monkeypatch, folder: Path, rows, name: str = "machine") -> tuple[int, dict]:
    """Exit code and file of a step in which `rows(task)` stands for what it does."""
    from gpu import step

    module = ModuleType("gpu.tried")
    setattr(module, name, rows)
    monkeypatch.setitem(sys.modules, "gpu.tried", module)
    monkeypatch.setitem(step.MODULES, name, "tried")
    words = [name, "--output", str(folder), "--work", str(folder), "--rehearse"]
    return step.main(words), stored(folder)[name]


def test_a_row_that_fails_does_not_keep_the_next_from_being_tried(monkeypatch, tmp_path):
    from gpu.task import NotHere, attempt

    def missing(task) -> None:
        raise ModuleNotFoundError("gone", name="somewhere.deep")

    def not_here(task) -> None:
        raise NotHere("too small")

    def rows(task):
        yield attempt(task, "wrong", lambda task: 1 / 0)
        yield attempt(task, "missing", missing)
        yield attempt(task, "small", not_here)
        yield attempt(task, "right", lambda task, number: {"found": number}, 1)

    code, file = ended(monkeypatch, tmp_path, rows)
    assert (code, file["state"]) == (1, "failed")
    wrong, gone, small, right = file["rows"]
    assert not wrong["ok"] and "ZeroDivisionError" in wrong["why"]
    assert gone["skipped"] == "somewhere is not installed"
    assert small["skipped"] == "too small"
    assert right["ok"] and right["found"] == 1
    assert file["text"][:2] == [
        "1 of 2 held",
        "FAILED wrong: ZeroDivisionError: division by zero",
    ]


def test_a_step_that_raises_keeps_the_rows_before(monkeypatch, tmp_path):
    def rows(task):
        yield {"name": "first", "ok": True}
        raise RuntimeError("device-side assert")

    code, file = ended(monkeypatch, tmp_path, rows)
    assert (code, file["state"], len(file["rows"])) == (1, "failed", 1)
    assert "device-side assert" in file["why"]


def test_a_module_of_ours_that_is_missing_is_no_skip(monkeypatch, tmp_path):
    def rows(task):
        yield {"name": "first", "ok": True}
        import tensormask_edu.nothing  # noqa: F401

    code, file = ended(monkeypatch, tmp_path, rows)
    assert (code, file["state"]) == (1, "failed")
    assert "No module named 'tensormask_edu.nothing'" in file["why"]


def test_the_sanitizer_runs_every_kernel_under_each_tool(monkeypatch, tmp_path):
    from device import Cpu
    from gpu import watched
    from gpu.task import Task

    code = "case $2 in racecheck) echo '========= Error: race'; exit 9;; esac"
    program = tmp_path / "compute-sanitizer"
    program.write_text(f'#!/bin/sh\n{code}\necho "========= ERROR SUMMARY: 0 errors"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(watched, "every_kernel", lambda kind: None)
    _, *rows = watched.sanitizer(Task(Cpu()))
    assert [row["name"] for row in rows if not row["ok"]] == ["racecheck"]
    assert "Error: race" in rows[1]["why"]
    assert rows[0]["summary"] == ["========= ERROR SUMMARY: 0 errors"]


# --- the seam ---------------------------------------------------------------------------------


def test_pytorch_has_every_call_that_the_gpu_needs(monkeypatch):
    """A CUDA that knows the names and arguments of the real one and does nothing."""
    import device

    cuda = mock.create_autospec(torch.cuda)
    properties = mock.Mock(
        name="card", major=9, minor=0, multi_processor_count=132, total_memory=1, clock_rate=2,
        L2_cache_size=3,
    )  # fmt: skip
    cuda.get_device_properties.return_value = properties
    cuda.memory_allocated.return_value, cuda.max_memory_allocated.return_value = 0, 3 << 20
    cuda.Event.return_value.elapsed_time.return_value = 2.0
    cuda._sleep = mock.create_autospec(torch.cuda._sleep)
    monkeypatch.setattr(torch, "cuda", cuda)
    gpu, calls = device.find("cuda"), []
    facts = gpu.facts()
    assert (facts["capability"], facts["highest_hz"]) == ("9.0", 2e3)
    assert gpu.milliseconds(lambda: calls.append(1), queued=True) == 2.0
    assert gpu.peak_mib(lambda: calls.append(1)) == 3
    with gpu.stream_of_its_own(), gpu.no_waiting():
        gpu.wait()
    assert cuda.set_sync_debug_mode.mock_calls == [mock.call("error"), mock.call("default")]
    results, again = gpu.recorded(lambda: len(calls))
    again()
    assert results == 2 and cuda.CUDAGraph.return_value.replay.call_count == 2


def test_clocks_are_what_nvidia_smi_says_and_nothing_where_it_fails(monkeypatch, tmp_path):
    import device

    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for text, expected in (("echo '1980 MHz, 3201 MHz'", "1980 MHz"), ("exit 6", None)):
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
        assert device.Gpu().clocks().get("clocks.sm") == expected


def test_the_processor_stands_for_a_gpu_that_is_busy_and_that_replays():
    import device

    cpu, x = device.find("cpu"), torch.ones(3)
    cpu.keep_busy(60)
    start = time.perf_counter()
    cpu.wait()
    assert time.perf_counter() - start >= 0.06
    (doubled, _), again = cpu.recorded(lambda: (2 * x, "no tensor"))
    x.fill_(5)
    again()
    assert doubled.tolist() == [10, 10, 10]


# --- the estimate -----------------------------------------------------------------------------


def test_the_stored_costs_are_of_these_sources_and_of_every_dense_kernel():
    from gpu import estimates
    from gpu.task import REAL

    found = estimates.stored()
    assert len(found) == 2 * len(REAL.dtypes) * len(REAL.lams) * len(REAL.sides), (
        "the kernels changed: python benchmarks/gpu --estimates"
    )
    needed = found["forward", "float32", 1, 15, 200, 336].hbm_bytes
    assert needed == 2 * 4 * 15 * 15 * 200 * 336


@pytest.mark.parametrize(
    ("ms", "says"), [(0.5, "refuted"), (2.5, "near"), (40.0, "something else binds")]
)
def test_a_measurement_can_refute_the_estimate(ms, says, monkeypatch):
    from gpu import estimates

    # A ms of the memory
    one = Costs(CARDS["H200"].hbm_bytes / 1e3, 0, 0, 1.98e9 * 132 / 1e6, 0, warps=64)
    row = {"direction": "forward", "dtype": "float32", "lam": 1, "side": 15, "images": 2}
    key = ("forward", "float32", 1, 15, 200, 336)
    monkeypatch.setattr(estimates, "stored", lambda: {key: one})
    found = estimates.beside(row | {"ms": {"cuda": ms}}, (200, 336), H200)
    assert (found["binds"], found["says"]) == ("hbm", says)
    assert found["bound_us"] == pytest.approx(2000) and found["ratio"] == pytest.approx(ms / 2)
    assert found["parts_us"]["l1"] == pytest.approx(2)
    other = estimates.beside(row | {"ms": {"cuda": ms}}, (9, 9), H200)
    assert "not counted for this size" in other["none"]
    unknown = estimates.beside(row | {"ms": {"cuda": ms}}, (200, 336), {"name": "another"})
    assert "no figures of this device" in unknown["none"]


def test_the_times_of_a_card_that_the_model_knows_stand_beside_its_estimate(monkeypatch):
    import device
    from gpu import estimates, speed
    from gpu.task import REHEARSED, Task

    costs = Costs(1.0, 1.0, 1.0, 1.0, 1.0, warps=8)
    keys = [("forward", "float32", lam, 3, 9, 16) for lam in (1, 2)]
    monkeypatch.setattr(device.Cpu, "facts", lambda cpu: H200)
    monkeypatch.setattr(estimates, "stored", lambda: dict.fromkeys(keys, costs))
    renamed = {"cpu": "cuda"}
    beside = estimates.beside

    def as_cuda(row, *rest):
        return beside(row | {"ms": {renamed.get(k, k): v for k, v in row["ms"].items()}}, *rest)

    monkeypatch.setattr(estimates, "beside", as_cuda)
    rows = list(speed.speed(Task(device.find("cpu"), REHEARSED)))
    says = [row["estimate"].get("says") for row in rows if "estimate" in row]
    assert says == ["something else binds", None] * 2
    assert "2 something else binds" in speed.speed_text(rows)[0]


# --- what needs more than a rehearsal has -----------------------------------------------------


@pytest.mark.long
def test_ways_that_compile_find_the_same():
    import device
    from gpu import model
    from gpu.task import REHEARSED, Task

    sizes = replace(REHEARSED, compiled=2)
    *_, both, alone = model.model(Task(device.find("cpu"), sizes))
    assert both["way"] == "windows, channels_last, bfloat16, compile"
    assert alone["way"] == "windows, compile" and alone["mask_iou"] > 0.999


@pytest.mark.long
def test_the_checks_against_the_official_numbers_hold_on_the_processor(shared):
    import device
    from gpu import network
    from gpu.task import Task

    task = Task(device.find("cpu"))
    assert 0 < max(network.activations(task)["errors"].values()) < network.ACTIVATIONS / 5
    assert math.isfinite(sum(network.official_losses(task)["errors"].values()))


@pytest.mark.long
@needs_rtx
def test_engines_for_the_day_are_built_without_a_gpu(monkeypatch, tmp_path):
    import device
    from gpu import engines
    from gpu.task import Task

    monkeypatch.setattr(engines, "NAMES", {"tiny": ["tiny-float32-none"]})
    (row,) = engines.build(Task(device.find("cpu"), work=tmp_path))
    assert row["ok"] and row["bytes"] > 1e6, row
    assert engines.checkpoint_of(tmp_path / "tiny-float32-none.engine").is_dir()


@pytest.mark.long
@needs_rtx
@pytest.mark.parametrize("op", ["SwapAlign2Nat", "SwapAlign2NatWindows"])
def test_an_engine_is_built_of_one_plugin(op, tmp_path):
    pytest.importorskip("onnx")
    import one_node

    plan = one_node.node_engine(tmp_path, op, (2, 3, 4, 6, 7), "float16")
    assert plan.stat().st_size > 1000
