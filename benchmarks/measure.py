"""What the timing scripts share: options, tables, and where figures come from."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from tensormask_edu.base.machine import version
from tensormask_edu.base.tables import text_table
from tensormask_edu.base.threads import choose
from tensormask_edu.commands.check_ops import machine

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def script_parser(description: str | None, repeats: int = 0) -> argparse.ArgumentParser:
    """A parser whose help is a script's docstring as it stands; `repeats`: of a timing."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=style)
    parser.add_argument("--json", metavar="FILE", help="write everything here")
    if repeats:
        parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
        parser.add_argument("--repeats", type=int, default=repeats, help="rounds")
        parser.add_argument("--threads", type=int, help="of the CPU (default: tried out)")
    return parser


def settle_threads(count: int | None) -> int:
    """Use `count` threads of the CPU, or as many as are quickest; says how many and why."""
    threads = choose(count)
    print(threads.words)
    return torch.get_num_threads()


def facts(*packages: str) -> dict[str, Any]:
    """The machine, more packages, and which implementations of the operators run on it."""
    more = {"python": platform.python_version(), "cores": os.cpu_count()}
    return machine() | more | {name: version(name) for name in packages}


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Rows as text: a column for each key that one of them has, floats with four digits."""
    rows = list(rows)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    cells = ([row.get(key, "") for key in keys] for row in rows)
    shown = ([f"{x:.4g}" if isinstance(x, float) else str(x) for x in line] for line in cells)
    return text_table([keys, *shown])
