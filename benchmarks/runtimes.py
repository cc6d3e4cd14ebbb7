"""One exported file in every runtime that takes it: the same numbers? how many CPU ms?

    python benchmarks/runtimes.py shapes cells=NUCLEI r50=COCO --environments DIR \\
        --json benchmarks/results/runtimes-cpu.json
    python benchmarks/runtimes.py --json benchmarks/results/runtimes-cpu.json    the table again

A subject is a checkpoint, `shapes` or a folder: pictures of --size px are drawn for it, and
every form of its file goes through every version of every runtime. A form is the file as
`tensormask-export onnx` writes it, inlined as --portable does, the first after onnxslim, or the
second after onnxsim (which takes our `Identity` for the standard one). With =FOLDER a subject
has the val split of a COCO folder, in the newest and the oldest version, as each runtime takes
the file. `r50` is the paper's model with the golden weights ($TENSORMASK_SHARED), on 20
pictures of 192 px.

Each version has a virtual environment in DIR, made with pip where it is missing, in which
`runtime_worker.py` computes; in a browser `docs/explorer/tests/runtime.mjs` does, where `make
explorer` has been run. Without --environments what is installed here runs. Engines are built
and not run. PyTorch says what is right: raw outputs may differ by 1e-4 of their largest number,
detections must agree one to one within the limits of `tensormask-export verify`. Near-ties are
excepted and listed: two scores, or a bin and the mask threshold, within 1e-5 of each other. A
row takes the place of an older one of its kind.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from measure import ROOT, facts, script_parser, table
from runtime_subjects import Row, Subject, compared, find_subject, place_of
from tensormask_export.engine.build import build_engine
from tensormask_export.onnx_file.portable import portable
from tensormask_export.onnx_file.read import expose, raw_names, read_metadata, read_onnx
from tensormask_export.onnx_file.write import export_onnx
from tensormask_export.shapes import Profile

from tensormask_edu.base.errors import InputError
from tensormask_edu.base.files import make_folder, read_json, write_json

PACKAGES = {  # runtime -> what pip installs for it, the newest first
    "onnxruntime": (
        ["onnxruntime"],
        ["onnxruntime==1.23.2"],
        ["onnxruntime==1.20.1"],
        ["onnxruntime==1.17.3", "numpy<2"],
    ),
    "openvino": (["openvino"], ["openvino==2025.0.0"]),
    "onnx.reference": (["onnx"],),
    "onnxruntime-web": (["of docs/explorer"],),
    "tensorrt_rtx": (["plugin none"], ["plugin python"]),
}
FORMS = ("as written", "portable", "onnxslim", "onnxsim")
# The form in which a runtime gets whole folders; the others would take minutes a picture there
TAKES = {name: FORMS[0] for name in ("onnxruntime", "onnxruntime-web", "tensorrt_rtx")}
TAKES["openvino"] = FORMS[1]
TOOLS = ["onnx", "onnxslim", "onnxsim"]
KEY = ("model", "runtime", "asked", "file")
EXPLORER = ROOT / "docs" / "explorer"
NOT_RUN = "engine built, not run"


def python_of(folder: Path | None, packages: list[str]) -> str:
    """The interpreter of an environment with these packages; made if it is not there."""
    if folder is None:
        return sys.executable
    place = folder / "-".join(packages).replace("<", "").replace("=", "")
    python = place / "bin" / "python"
    if not (place / "done").is_file():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "numpy", *packages], check=True)
        (place / "done").touch()
    return str(python)


def forms(
    subject: Subject, asked: list[str], folder: Path, environments: Path | None
) -> dict[str, Path | str]:
    """The file in each form, or why there is none; gives the subject its metadata."""
    written, inlined = folder / "written.onnx", folder / "portable.onnx"
    export_onnx(subject.model, written, input_config=subject.input_config)
    proto = read_onnx(written)
    subject.metadata = read_metadata(proto, written)
    onnx.save(portable(proto), inlined)
    made: dict[str, Path | str] = {"as written": written, "portable": inlined}
    for tool in FORMS[2:]:
        if tool in asked and subject.drawn:
            source = inlined if tool == "onnxsim" else written
            target = (folder / tool).with_suffix(".onnx")
            words = [python_of(environments, TOOLS), "-m", tool, source, target]
            run = subprocess.run(words, capture_output=True, text=True)
            made[tool] = target if target.is_file() else last_line(run.stderr)
    return {form: path for form, path in made.items() if form in asked}


def last_line(text: str) -> str:
    """Why a program ended: its last words."""
    return (text.strip().splitlines() or ["no reason given"])[-1].strip()[:300]


def plan(subject: Subject, args: argparse.Namespace) -> Iterator[tuple[str, list[str], str]]:
    """Runtime, packages, form: everything for drawn pictures, newest and oldest for folders."""
    for runtime in args.runtimes:
        versions = PACKAGES[runtime]
        if not subject.drawn:
            versions = (*versions[:1], *versions[1:][-1:])
        if args.environments is None and runtime != "tensorrt_rtx":
            versions = versions[:1]  # only one version is here
        for number, packages in enumerate(versions):
            for form in args.forms:
                if not subject.drawn and TAKES.get(runtime) != form:
                    continue
                if form in FORMS[2:] and (number or runtime == "tensorrt_rtx"):
                    continue  # of tools' files the newest version is enough
                if form == FORMS[1] and packages == ["plugin python"]:
                    continue  # no node is left for it
                yield runtime, packages, form


def computed(command: list[str], path: Path, subject: Subject, folder: Path, runs: int) -> Row:
    """A program computes all pictures into `folder`: version and CPU ms, or "error"."""
    proto = read_onnx(path)
    onnx.save(expose(proto, raw_names(proto)), folder / "raw.onnx")
    for number, images in enumerate(subject.inputs()):
        np.save(folder / f"{place_of(number)}.npy", images)
    words = [*command, path, folder / "raw.onnx", folder, str(runs)]
    environment = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    run = subprocess.run(words, capture_output=True, text=True, env=environment)
    if run.returncode:
        return {"same": False, "error": last_line(run.stderr)}
    told = json.loads(run.stdout.splitlines()[-1])
    if "error" in told:
        return {"same": False, "error": told["error"].replace(f"{folder}/", "")}
    return told


def command_of(runtime: str, packages: list[str], environments: Path | None) -> list[str]:
    """The program that computes a file in this runtime."""
    if runtime == "onnxruntime-web":
        chromium = shutil.which("chromium") or shutil.which("chromium-browser") or ""
        return ["node", str(EXPLORER / "tests" / "runtime.mjs"), chromium]
    worker = str(ROOT / "benchmarks" / "runtime_worker.py")
    return [python_of(environments, packages), worker, runtime]


def built(path: Path, subject: Subject, plugin: str, folder: Path) -> Row:
    """An engine for the first picture's size."""
    shape = subject.inputs()[0].shape
    options = {"profile": Profile(shape, shape, shape), "plugin": plugin}
    try:
        report = build_engine(path, folder / "e.engine", backend="tensorrt_rtx", **options)
    except InputError as error:
        return {"same": False, "error": str(error).replace(str(path.parent), "")}
    return {"version": report.version, "ops": report.ops, "note": NOT_RUN}


def rows(args: argparse.Namespace, words: str, folder: Path) -> Iterator[Row]:
    """Every row of a subject."""
    environments = Path(args.environments).resolve() if args.environments else None
    subject = find_subject(words, args.size, args.limit, folder)
    made = forms(subject, args.forms, folder, environments)
    height, width = subject.inputs()[0].shape[2:]
    for runtime, packages, form in plan(subject, args):
        row: Row = {"model": subject.name, "runtime": runtime, "asked": packages[0]}
        row |= {"file": form, "px": f"{height} x {width}"}
        path = made[form]
        with tempfile.TemporaryDirectory() as temporary:
            if isinstance(path, str):
                row |= {"same": False, "error": path}
            elif runtime == "tensorrt_rtx":
                row |= built(path, subject, packages[0].split()[-1], Path(temporary))
            else:
                command = command_of(runtime, packages, environments)
                row |= computed(command, path, subject, Path(temporary), args.repeats)
                if "error" not in row:
                    row |= compared(subject, Path(temporary))
        yield row | {"load": round(os.getloadavg()[0], 1)}  # what else the machine did


# --- the table --------------------------------------------------------------------------------


def markdown(result: Row) -> str:
    """A line per runtime, version and form, a column per model."""
    found = {tuple(row[name] for name in KEY): row for row in result["rows"]}
    models = list(dict.fromkeys(row["model"] for row in result["rows"]))
    heads = [head(model, result["rows"]) for model in models]
    lines = [["runtime", "version", "file", *heads], ["---"] * (3 + len(models))]
    # also for a row that says just why there are no numbers
    known = {key[1:3]: row["version"] for key, row in found.items() if "version" in row}
    for runtime, versions in PACKAGES.items():
        for (asked, *_), form in itertools.product(versions, FORMS):
            mine = [found.get((model, runtime, asked, form)) for model in models]
            if any(mine):
                version = known.get((runtime, asked), asked)
                shown = f"{version}, {asked}" if runtime == "tensorrt_rtx" else version
                lines.append([runtime, shown, form, *map(cell, mine)])
    told = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([*told, *near_ties(result["rows"])])


def near_ties(found: list[Row]) -> list[str]:
    """A line per near-tie that a runtime decided otherwise than PyTorch."""
    lines = []
    for row in found:
        for tie in row.get("ties", ()):
            where = f"{row['model']}, {row['runtime']} {row['version']}, {tie['picture']}"
            if "bins" in tie:
                bins = " and ".join(f"{value:.7f}" for value in tie["bins"])
                scores = " and ".join(f"{score:.5f}" for score in tie["scores"])
                lines.append(f"- {where}: scores {scores}, for a bin of {bins}")
            else:
                lines.append(f"- {where}: boxes of scores {tie['gap']:.1g} apart")
    return ["", "Near-ties:", "", *sorted(lines)] if lines else []


def head(model: str, found: list[Row]) -> str:
    """A model's column: the size that was timed, and of how many pictures the numbers are."""
    mine = [row for row in found if row["model"] == model]
    pictures = max(row.get("pictures", 0) for row in mine)
    return f"{model}, {pictures} pictures; ms at {mine[0]['px']}"


def cell(row: Row | None) -> str:
    """What a table says of one row."""
    if row is None:
        return ""
    if "note" in row:
        return row["note"]
    if "error" in row:
        return "does not take it"
    words = ["same" if row["same"] else "DIFFERENT", f"{row['cpu_ms']:.4g} ms"]
    if row["ties"]:
        words.insert(1, f"{len(row['ties'])} near-tie{'s' * (len(row['ties']) > 1)}")
    return ", ".join(words)


def main() -> int:
    """Every row, printed and written as it comes; 0 if no runtime gave other numbers."""
    parser = script_parser(__doc__)
    add = parser.add_argument
    add("subjects", nargs="*", metavar="MODEL[=COCO]", help="a checkpoint, a name, or r50")
    add("--runtimes", nargs="+", choices=list(PACKAGES), default=list(PACKAGES))
    add("--forms", nargs="+", choices=FORMS, default=list(FORMS), help="of the file")
    add("--environments", metavar="DIR", help="with each version in one of its own")
    add("--size", type=int, default=128, help="px of a side of drawn pictures")
    add("--limit", type=int, metavar="N", help="at most so many pictures of each subject")
    add("--repeats", type=int, default=20, help="timed runs")
    args = parser.parse_args()
    target = Path(args.json) if args.json else None
    result = read_json(target) if target and target.is_file() else {"rows": []}
    for words in args.subjects:
        with tempfile.TemporaryDirectory() as temporary:
            for row in rows(args, words, make_folder(temporary)):
                print(table([row]), flush=True)
                key = [row[name] for name in KEY]
                older = [old for old in result["rows"] if key != [old[name] for name in KEY]]
                result = {"machine": facts("onnx"), "rows": [*older, row]}
                if target:
                    write_json(target, result)
    print(markdown(result))
    return 0 if all(row.get("same", True) or "error" in row for row in result["rows"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
