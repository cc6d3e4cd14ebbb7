"""Builds wheel and sdist, and uses them where nothing of this checkout is.

    make release-check                                        newest and oldest pins
    make release-check CHECK="--pythons python3.12 python3.13"  by other Pythons
    python tests/packaging/run.py --pins constraints.txt --keep   one of them; keep the folder

For each Python and each set of pins: a virtual environment in a temporary folder (6 GB with
PyTorch's CUDA libraries, removed afterwards), the wheel with its extra `export`, then the
commands of the README in an empty folder. Looked at as well: what came into site-packages,
`pip check`, types for whoever imports the package, the kernels with a compiler and without one.
A table of what holds comes last; exit code 1 if something does not.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PINS = ("constraints.txt", "constraints-oldest.txt")
OURS = {"tensormask_edu", "tensormask_export"}
KERNELS = "from tensormask_edu import ops; print(ops.status()['cpu']['runs'])"
SECONDS = 1800  # for an installation


class Failed(Exception):
    """Something does not hold; the message says what."""


def main() -> int:
    """Everything; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pythons", nargs="+", default=[sys.executable])
    parser.add_argument("--pins", nargs="+", default=list(PINS))
    parser.add_argument("--keep", action="store_true", help="do not remove the folder")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="release-"))
    rows: list[tuple[str, str, str]] = []
    try:
        wheel, sdist = built(folder / "dist")
        rows += looked_at("the files", checks_of_files(wheel, sdist))
        for python in args.pythons:
            for pins in args.pins:
                name = f"{version_of(python)}, {pins}"
                place = folder / re.sub(r"\W+", "-", name)
                rows += looked_at(name, checks_of(place, python, wheel, ROOT / pins))
                if not args.keep:
                    shutil.rmtree(place, ignore_errors=True)
    finally:
        print(folder if args.keep else "", end="\n" if args.keep else "")
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)
    for where, what, came in rows:
        print(f"{where:34} {what:44} {came}")
    return 0 if all(came == "holds" for *_, came in rows) else 1


Checks = dict[str, Callable[[], None]]


def looked_at(where: str, checks: Checks) -> list[tuple[str, str, str]]:
    """A row for each check; after a failed one whose name ends in "!" the others are moot."""
    rows = []
    for name, check in checks.items():
        try:
            check()
            came = "holds"
        except (Failed, OSError, subprocess.SubprocessError) as error:
            came = f"FAILED: {str(error)[-600:]}"
        rows.append((where, name.rstrip("!"), came))
        print(f"{where}: {name.rstrip('!')}: {came}", flush=True)
        if came != "holds" and name.endswith("!"):
            break
    return rows


def ran(words: Sequence[str | Path], **more: object) -> str:
    """What a program printed; Failed with its last words if it did not end well."""
    run = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=SECONDS, **more
    )  # type: ignore[call-overload]
    if run.returncode:
        raise Failed(f"{' '.join(map(str, words))[-120:]}: {(run.stdout + run.stderr)[-500:]}")
    return run.stdout


def version_of(python: str) -> str:
    return ran([python, "-c", "import platform; print(platform.python_version())"]).strip()


# --- the files --------------------------------------------------------------------------------


def built(folder: Path) -> tuple[Path, Path]:
    """Wheel and sdist of what git knows here: no file that lies about gets in."""
    words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    ran(words)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def checks_of_files(wheel: Path, sdist: Path) -> Checks:
    def the_same_from_the_sdist() -> None:
        with tempfile.TemporaryDirectory() as place:
            shutil.unpack_archive(sdist, place, filter="data")
            (source,) = Path(place).iterdir()
            ran([sys.executable, "-m", "build", "--wheel", "--no-isolation", source])
            (again,) = (source / "dist").glob("*.whl")
            if names(again) != names(wheel):
                raise Failed(f"other files: {sorted(names(again) ^ names(wheel))[:5]}")

    return {"a wheel of the sdist has the same files": the_same_from_the_sdist}


def names(wheel: Path) -> set[str]:
    import zipfile

    return set(zipfile.ZipFile(wheel).namelist())


# --- an environment ---------------------------------------------------------------------------


def checks_of(place: Path, python: str, wheel: Path, pins: Path) -> Checks:
    """What is looked at in a new environment, in this order."""
    here = place / "bin"
    empty = place / "empty"
    home = place / "home"
    environment = {name: value for name, value in os.environ.items() if "PYTHON" not in name}
    environment |= {"PATH": f"{here}:/usr/bin:/bin", "HOME": str(home)}
    no_compiler = environment | {"PATH": f"{here}:{place / 'tools'}"}

    def installed() -> None:
        ran([python, "-m", "venv", place])
        for folder in (empty, home, place / "tools"):
            folder.mkdir()
        pip = [here / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        ran([*pip, "-c", pins, f"{wheel}[export]"], env=environment, cwd=empty)

    def nothing_stray() -> None:
        code = (
            "import importlib.metadata as m\n"
            "for f in m.files('tensormask-edu'): print(str(f).split('/')[0])"
        )
        tops = set(ran([here / "python", "-c", code], env=environment).split())
        stray = {t for t in tops - OURS if not re.fullmatch(r"tensormask_edu-.*|\.\.", t)}
        if stray:
            raise Failed(f"also {sorted(stray)}")

    def kernels(runs: str, settings: dict[str, str]) -> Callable[[], None]:
        def check() -> None:
            said = ran([here / "python", "-c", KERNELS], env=settings, cwd=empty).strip()
            if said != runs:
                raise Failed(f"{said} runs")

        return check

    def readme() -> None:
        for command in commands_of_readme():
            ran(["/bin/sh", "-ec", command], env=environment, cwd=empty)

    def without_a_compiler() -> None:
        words = f"predict shapes {empty}/outputs/shapes/images/val_00000.png --output seen"
        ran([here / "tensormask-edu", *words.split()], env=no_compiler, cwd=empty)

    def exported() -> None:
        for words in (
            "onnx shapes model.onnx", "verify model.onnx shapes --runtimes onnxruntime",
            "predict model.onnx outputs/shapes/images/val_00000.png --output from-onnx",
        ):  # fmt: skip
            ran([here / "tensormask-export", *words.split()], env=environment, cwd=empty)

    def typed() -> None:
        (empty / "uses.py").write_text(USES)
        words = [sys.executable, "-m", "mypy", "--python-executable", here / "python"]
        ran([*words, "--strict", "--follow-imports", "silent", "uses.py"], cwd=empty)

    def unchanged() -> None:
        libraries = next((place / "lib").glob("python*")) / "site-packages"
        own = [path for top in OURS for path in (libraries / top).rglob("*") if path.is_file()]
        listed = ran([here / "python", "-c", FILES], env=environment).split("\n")
        extra = [p for p in own if "__pycache__" not in p.parts and str(p) not in listed]
        if extra:
            raise Failed(f"written into site-packages: {extra[:3]}")

    return {
        "the wheel with [export] is installed!": installed,
        "nothing stray in site-packages": nothing_stray,
        "pip check": lambda: _pip_check(here, environment),
        "kernels from the wheel, with a compiler": kernels("cpu", environment),
        "the formula, without one": kernels("formula", no_compiler),
        "the README's commands in an empty folder": readme,
        "predict without a compiler": without_a_compiler,
        "onnx, verify, predict": exported,
        "the public names are typed": typed,
        "nothing was written into site-packages": unchanged,
    }


def _pip_check(here: Path, environment: dict[str, str]) -> None:
    ran([here / "python", "-m", "pip", "check", "--disable-pip-version-check"], env=environment)


FILES = (
    "import importlib.metadata as m\n"
    "for f in m.files('tensormask-edu'): print(f.locate().resolve())"
)
USES = """from tensormask_edu import TensorMask, build_model, evaluate, load_checkpoint

model: TensorMask = build_model("tiny", num_classes=4)
again, size = load_checkpoint("shapes")
enlarge: float = size.enlarge
scores = evaluate
"""


def commands_of_readme() -> list[str]:
    """The README's commands, those left out that need data of the reader."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
    lines = [
        line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()
    ]
    own = [line for line in lines if re.match(r"tensormask-(edu|export) ", line)]
    return [
        line for line in own if not re.search(r"FOLDER|FILE|outputs/cells|photo\.jpg", line)
    ]


if __name__ == "__main__":
    sys.exit(main())
