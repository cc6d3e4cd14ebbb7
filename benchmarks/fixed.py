"""What each command costs before it does anything large: two checkouts in turn, CPU seconds.

    python benchmarks/fixed.py --against FOLDER --checkpoint CHECKPOINT \\
        --json benchmarks/results/fixed-cpu.json

FOLDER is another state of this repository. Every command is a process of its own with one
thread; its CPU time, user and system, children included, hardly knows what else the machine
does. Shown is the median of the rounds; the compiled kernels are there already, except in the
rows `cold`.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import ROOT, facts, script_parser

from tensormask_edu.base.files import write_json
from tensormask_edu.base.tables import text_table

STATES = ("before", "after")
HEAD = ["command", "before", "after", "ratio"]
EDU, EXPORT = "tensormask_edu", "tensormask_export"


def commands(folder: Path, checkpoint: Path) -> dict[str, list[str]]:
    """The commands in their order: each may read what one before it wrote into `folder`."""
    model, engine = str(folder / "model.onnx"), str(folder / "model.engine")
    return {
        "doctor": [EDU, "doctor"],
        "check-ops": [EDU, "check-ops", "--device", "cpu"],
        "shapes": [EDU, "shapes", str(folder / "shapes")],
        "onnx": [EXPORT, "onnx", str(checkpoint), model],
        "verify": [EXPORT, "verify", model, str(checkpoint)],
        "engine": [EXPORT, "engine", model, engine],
    }


def cpu_seconds(root: Path, words: list[str], cache: Path) -> float:
    """User and system time of a command of the checkout `root`."""
    paths = os.pathsep.join((str(root), str(root / "exporters")))
    more = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "TENSORMASK_CACHE": str(cache)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", *words]
    subprocess.run(command, check=True, capture_output=True, cwd=root, env=os.environ | more)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def one_round(root: Path, checkpoint: Path) -> dict[str, float]:
    """CPU seconds of each command, of the two that compile kernels also the first time."""
    seconds = {}
    with tempfile.TemporaryDirectory() as name:
        words = commands(Path(name), checkpoint)
        for command in ("doctor", "check-ops"):
            cache = Path(name) / f"cache-{command}"
            seconds[f"{command}, cold"] = cpu_seconds(root, words[command], cache)
        for command, line in words.items():  # check-ops left every kernel here
            seconds[command] = cpu_seconds(root, line, cache)
    return seconds


def line(row: dict[str, Any]) -> list[str]:
    """A row as cells below HEAD."""
    return [row["command"], *(f"{row[s]:.1f} s" for s in STATES), f"{row['ratio']:.2f}"]


def main() -> None:
    """Measure, print the table, write it."""
    parser = script_parser(__doc__)
    parser.add_argument("--against", type=Path, required=True, help="the checkout before")
    parser.add_argument("--checkpoint", type=Path, required=True, help="what is exported")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    roots = dict(zip(STATES, (args.against.resolve(), ROOT), strict=True))
    rounds: dict[str, list[dict[str, float]]] = {state: [] for state in STATES}
    for number in range(args.rounds):
        for state in STATES if number % 2 else STATES[::-1]:
            rounds[state].append(one_round(roots[state], args.checkpoint.resolve()))
    rows = []
    for name in rounds["after"][0]:
        times = {s: statistics.median(each[name] for each in rounds[s]) for s in STATES}
        rows.append({"command": name, **times})
    warm = [row for row in rows if not row["command"].endswith("cold")]
    rows.append({"command": "sum, warm", **{s: sum(row[s] for row in warm) for s in STATES}})
    for row in rows:
        row["ratio"] = row["after"] / row["before"]
    print(text_table([HEAD, *map(line, rows)]))
    if args.json:
        write_json(args.json, {"machine": facts("onnx", "onnxscript"), "rows": rows})


if __name__ == "__main__":
    main()
