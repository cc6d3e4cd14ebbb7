"""Bad states of a machine: each is made here, seen by the doctor, and told with its cure."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from failing import in_child, needs_mounts, read_only

from tensormask_edu import cli
from tensormask_edu.commands import doctor, states
from tensormask_edu.commands.states import CHECKS, State

Patch = pytest.MonkeyPatch
Make = Callable[[Patch, Path], None]  # given a folder of the test's own


def disk(free: int, total: int = 1 << 40) -> Make:
    """Every disk has so much room."""

    def make(patch: Patch, folder: Path) -> None:
        found = SimpleNamespace(total=total, used=total - free, free=free)
        patch.setattr(shutil, "disk_usage", lambda path: found)

    return make


def full_cache(patch: Patch, folder: Path) -> None:
    patch.setenv("TENSORMASK_CACHE", str(folder))
    disk(10)(patch, folder)


def environment(**values: str) -> Make:
    return lambda patch, folder: [patch.setenv(*item) for item in values.items()][0]


def locked_cache(patch: Patch, folder: Path) -> None:
    (folder / "file").touch()  # no folder can be made below it
    patch.setenv("TENSORMASK_CACHE", str(folder / "file" / "cache"))


def noexec_cache(patch: Patch, folder: Path) -> None:
    patch.setenv("TENSORMASK_CACHE", str(folder))
    flags = SimpleNamespace(f_flag=os.ST_NOEXEC)
    patch.setattr(os, "statvfs", lambda path: flags)


def damaged_kernels(patch: Patch, folder: Path) -> None:
    patch.setenv("TENSORMASK_CACHE", str(folder))
    (folder / "cpu-float32-0123.so").write_bytes(b"cut")
    (folder / ".cpu-float32-0123.4711.so").write_bytes(b"half")


def few_files(patch: Patch, folder: Path) -> None:
    patch.setattr(resource, "getrlimit", lambda which: (256, 256))


def small_shm(patch: Patch, folder: Path) -> None:
    patch.setattr(states, "SHM", folder)
    disk(64 << 20, 64 << 20)(patch, folder)


def quota(patch: Patch, folder: Path) -> None:
    (folder / "cpu.max").write_text("150000 100000\n")
    patch.setattr(states, "CPU_QUOTA", folder / "cpu.max")
    patch.delenv("OMP_NUM_THREADS", raising=False)
    patch.setattr(os, "sched_getaffinity", lambda pid: range(16))


def versions(**values: str) -> Make:
    """Distributions as they would be installed."""

    def make(patch: Patch, folder: Path) -> None:
        found = {name.replace("_", "-"): value for name, value in values.items()}
        real = states.version
        patch.setattr(states, "version", lambda name: found.get(name, real(name)))

    return make


def other_torchvision(patch: Patch, folder: Path) -> None:
    versions(torch="2.12.1+cpu", torchvision="0.26.0")(patch, folder)
    patch.setattr("importlib.metadata.requires", lambda name: ["numpy", "torch==2.11.0"])


def other_numpy(patch: Patch, folder: Path) -> None:
    def refuse(array: Any) -> None:
        raise RuntimeError("Numpy is not available")

    patch.setattr(torch, "from_numpy", refuse)


def compiler(path: str | None, reason: str) -> Make:
    def make(patch: Patch, folder: Path) -> None:
        patch.setattr("tensormask_edu.ops.build.find_compiler", lambda: path)
        patch.setattr("tensormask_edu.ops.missing", lambda name: reason)

    return make


def gpu(
    driver: int, cuda: str | None, capability: tuple[int, int] | None = None, **env: str
) -> Make:
    """A driver, the CUDA that PyTorch is built for, and the GPU that it sees."""

    def make(patch: Patch, folder: Path) -> None:
        line = f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}.12.04  Fri\n"
        (folder / "version").write_text(line)
        patch.setattr(states, "DRIVER", folder / "version")
        patch.setattr(torch.version, "cuda", cuda)
        patch.setattr(torch.cuda, "is_available", lambda: capability is not None)
        patch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        patch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90", "compute_90"])
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        for item in env.items():
            patch.setenv(*item)

    return make


def no_temporary(patch: Patch, folder: Path) -> None:
    def refuse() -> str:
        raise FileNotFoundError("No usable temporary directory found in ['/tmp']")

    patch.setattr("tempfile.gettempdir", refuse)


# name, what makes the state, words of what is found, words of the cure, whether it stops all
BAD: list[tuple[str, Make, str, str, bool]] = [
    ("this folder", disk(900 << 20), "0.88 GiB free", "make room", False),
    ("this folder", disk(1 << 20), "0.00 GiB free", "make room", True),
    ("temporary files", no_temporary, "No usable temporary", "set TMPDIR", True),
    ("temporary files", disk(1 << 20), "0.00 GiB free", "make room", True),
    ("home", environment(HOME="/nowhere/at/all"), "cannot be written", "set HOME", False),
    ("kernel cache", locked_cache, "cannot be written", "set TENSORMASK_CACHE", False),
    ("kernel cache", noexec_cache, "noexec", "set TENSORMASK_CACHE", False),
    ("kernel cache", full_cache, "0.00 GiB free", "make room", True),
    ("kernels in the cache", damaged_kernels, "1 damaged", "rm -r", False),
    ("memory", lambda patch, folder: patch.setattr(states, "free_memory", lambda: 500 << 20),
     "0.49 GiB free", "--batch-size", False),
    ("open files", few_files, "256 at most", "--ulimit nofile=65536", False),
    ("shared memory", small_shm, "0.06 GiB", "--shm-size 1g", False),
    ("threads", environment(OMP_NUM_THREADS="4096"), "4096 on", "unset it", False),
    ("threads", environment(OMP_NUM_THREADS="many"), "'many'", "set it to a number", False),
    ("threads", quota, "1.5 of the 16 cores", "OMP_NUM_THREADS=1", False),
    ("torchvision", other_torchvision, "made for torch 2.11.0", "together", True),
    ("arrays", other_numpy, "Numpy is not available", "together", True),
    ("ONNX Runtime", versions(onnxruntime="1.23.0", onnxruntime_gpu="1.23.0"),
     "onnxruntime and onnxruntime-gpu", "pip uninstall onnxruntime onnxruntime-gpu", False),
    ("this installation", versions(tensormask_edu="0.0.1"), "0.0.1 is installed", "pip install",
     False),
    ("C++ compiler", compiler(None, "none"), "none", "apt install g++", False),
    ("C++ compiler", compiler("c++", "compiling with c++ failed: out of order"),
     "out of order", "CXX", False),
    ("GPU", gpu(580, None), "a PyTorch for CPUs alone", "build for CUDA", False),
    ("GPU", gpu(470, "13.0"), "driver 470 is too old for CUDA", "driver from 580 on", False),
    ("GPU", gpu(580, "13.0", CUDA_VISIBLE_DEVICES=""), "hidden by", "unset it", False),
    ("GPU", gpu(580, "13.0"), "no device", "--gpus all", False),
    ("GPU", gpu(580, "13.0", (6, 1)), "sm_61 is older", "an older PyTorch", False),
]  # fmt: skip


@pytest.mark.parametrize(
    "name, make, found, cure, stops", BAD, ids=[f"{row[0]}: {row[2]}" for row in BAD]
)
def test_a_bad_state_is_seen_and_told_with_its_cure(
    name, make, found, cure, stops, monkeypatch, tmp_path
):
    with monkeypatch.context() as patch:
        make(patch, tmp_path)
        state = CHECKS[name]()
    assert state is not None and state.name == name
    assert found in state.found and cure in state.cure and state.stops == stops


def test_every_check_has_a_state_that_it_sees():
    assert {name for name, *_ in BAD} == set(CHECKS)


@pytest.mark.parametrize("name", CHECKS)
def test_a_well_machine_is_left_alone(name, monkeypatch, tmp_path):
    monkeypatch.setenv("TENSORMASK_CACHE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 1 << 20))
    monkeypatch.setattr(states, "free_memory", lambda: 8 << 30)
    monkeypatch.setattr(states, "SHM", tmp_path)
    monkeypatch.setattr("tensormask_edu.ops.missing", lambda name: "")
    monkeypatch.setattr("tensormask_edu.ops.build.find_compiler", lambda: "c++")
    disk(1 << 40)(monkeypatch, tmp_path)
    for make in (gpu(580, "13.0", (9, 0)), gpu(580, "13.0", (12, 0))):
        with monkeypatch.context() as patch:
            make(patch, tmp_path)
            assert CHECKS[name]() is None


def test_what_stops_everything_is_a_problem_and_the_rest_is_worth_knowing(monkeypatch, capsys):
    found = [State("disk", "full", "make room", True), State("GPU", "old", "a newer one")]
    monkeypatch.setattr(doctor, "bad_states", lambda: found)
    assert cli.main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "Worth knowing\n" in text and "old  ->  a newer one" in text
    assert text.endswith("disk: full; make room\n")
    monkeypatch.setattr(doctor, "bad_states", lambda: found[1:])
    assert cli.main(["doctor"]) == 0


def test_a_check_that_fails_itself_keeps_nothing_else_from_being_told(monkeypatch):
    def fail() -> None:
        raise PermissionError("no")

    monkeypatch.setitem(CHECKS, "memory", fail)
    (state,) = [state for state in states.bad_states() if state.name == "memory"]
    assert state.found == "cannot be looked at (PermissionError: no)"


@needs_mounts
def test_a_folder_that_is_really_read_only_is_seen(tmp_path):
    def look() -> int:
        os.chdir(tmp_path)
        state = CHECKS["this folder"]()
        print(state and state.found)
        return 0

    assert in_child(look, read_only(tmp_path)).out == "cannot be written\n"
