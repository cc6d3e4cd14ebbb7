"""The doctor: works where little is installed, and says what to do about it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from tensormask_edu.cli import main
from tensormask_edu.commands import doctor


@pytest.fixture
def without(monkeypatch):
    """Make some distributions look uninstalled, or of another version."""

    def change(**versions: str) -> None:
        real = doctor.version
        found = {name.replace("_", "-"): version for name, version in versions.items()}
        monkeypatch.setattr(doctor, "version", lambda name: found.get(name, real(name)))

    return change


def ability(name: str) -> dict:
    (found,) = [a for a in doctor.examine()["abilities"] if a["name"] == name]
    return found


def test_a_complete_installation_has_no_problems(capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "Everything required is here." in text and "What runs here" in text


def test_every_declared_package_is_listed_with_its_bound():
    found = {p.name: p for p in doctor.packages()}
    assert {"torch", "numpy", "pycocotools", "safetensors"} <= {
        n for n, p in found.items() if not p.extra
    }
    assert found["torch"].minimum == "2.11" and found["onnx"].extra == "export"
    assert "pytest" not in found  # only contributors need it


def test_an_installed_package_tells_its_bounds_as_the_checkout_does(monkeypatch):
    checkout = doctor._from_pyproject(ROOT / "pyproject.toml")
    lines = [f'{what}; extra == "{extra}"' if extra else what for what, extra in checkout]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: lines)
    assert doctor._from_metadata() == checkout


def test_a_missing_required_package_is_a_problem_with_its_cure(without, capsys):
    without(pycocotools="")
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert 'pycocotools is missing: pip install "pycocotools>=2.0.8"' in text
    assert "Everything required" not in text


def test_a_required_package_that_is_too_old_is_a_problem(without, capsys):
    without(torch="2.10.1+cpu")
    assert main(["doctor"]) == 1
    assert 'torch is too old: pip install "torch>=2.11"' in capsys.readouterr().out


def test_missing_optional_packages_are_no_problem_but_have_a_cure(without, capsys):
    without(onnx="", onnxruntime="", tensorrt="", tensorrt_rtx="", jupyterlab="")
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert (
        'pip install "tensormask-edu[export]"' in text
        and 'pip install "tensormask-edu[rtx]"' in text
    )
    assert (
        not ability("ONNX export")["runs"] and ability("ONNX export")["how"] == "onnx missing"
    )
    assert ability("TensorRT engine")["fix"] == 'pip install "tensormask-edu[rtx]"'


def test_the_vendors_compiler_is_named_with_its_version(without):
    without(tensorrt="", tensorrt_rtx="1.9.9")
    assert ability("TensorRT engine")["how"].startswith("tensorrt-rtx 1.9.9: builds ")
    without(tensorrt="10.1")
    assert ability("TensorRT engine")["how"].startswith("tensorrt 10.1: builds ")


def test_a_broken_installation_is_told_in_its_own_words(monkeypatch):
    def broken():
        raise RuntimeError("operator torchvision::nms does not exist\nmore")

    monkeypatch.setattr(doctor, "_training", broken)
    findings = doctor.examine()
    (problem,) = findings["problems"]
    assert problem.startswith(
        "training: RuntimeError: operator torchvision::nms does not exist; reinstall"
    )


def test_the_json_holds_the_findings(tmp_path, capsys):
    assert main(["doctor", "--json", str(tmp_path / "found.json")]) == 0
    stored = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert set(stored) == {"machine", "packages", "abilities", "states", "problems"}
    text = capsys.readouterr().out
    assert all(a["name"] in text and a["how"] in text for a in stored["abilities"])
    assert all(p["name"] in text for p in stored["packages"])


def test_without_torch_the_doctor_still_answers():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from tensormask_edu.cli import main\n"
        "sys.exit(main(['doctor']))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert "no  operators" in run.stdout and "yes NumPy reference" in run.stdout
    assert "training: ModuleNotFoundError" in run.stdout.replace(
        "ImportError", "ModuleNotFoundError"
    )


def test_looking_around_loads_no_exporter():
    code = (
        "from tensormask_edu.commands import doctor\n"
        "import sys; doctor.examine(); print(*sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = set(run.stdout.split())
    assert "tensormask_edu.ops" in loaded  # so that the next line can fail
    assert (
        not {
            "onnx",
            "onnxruntime",
            "tensorrt",
            "tensorrt_rtx",
            "tensormask_export",
            "matplotlib",
        }
        & loaded
    )


@given(
    st.lists(st.integers(0, 99), min_size=1, max_size=4),
    st.sampled_from(["", "+cpu", "rc1", ".dev3", "a0"]),
)
def test_versions_compare_by_their_leading_numbers(numbers, suffix):
    version = ".".join(map(str, numbers))
    later = ".".join(map(str, [*numbers[:-1], numbers[-1] + 1]))
    assert doctor._new_enough(version + suffix, version)
    assert doctor._new_enough(later + suffix, version)
    assert not doctor._new_enough(version + suffix, later)


def test_ten_is_more_than_nine():
    assert doctor._new_enough("2.10", "2.9.9") and not doctor._new_enough("2.9.9", "2.10")


def test_without_packaging_only_its_own_line_complains(without, monkeypatch):
    monkeypatch.setitem(sys.modules, "packaging.version", None)
    without(packaging="")
    states = {p.name: p.state for p in doctor.packages() if not p.extra}
    assert states.pop("packaging") == "missing" and set(states.values()) == {"ok"}
