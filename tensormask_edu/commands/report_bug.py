"""What a bug report needs, in one text file: versions, the doctor's findings, the last log.

Nothing in it says whose machine it was: paths keep what stands in a package or their last part,
names of the user and of the host are replaced.

next: commands/report.py
"""

from __future__ import annotations

import getpass
import os
import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ..base.command_line import LAST_ERROR
from ..base.errors import bad_input
from ..base.files import refuse_overwriting, refuse_replacing_other, written_whole
from ..base.machine import cache_folder, machine
from ..base.tables import text_table
from . import doctor

LOG_LINES = 20
FIRST_PART = "Versions"
# What changes how things run, and is nobody's secret
VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CXX", "TENSORMASK_CACHE",
    "TENSORMASK_SHARED", "MPLBACKEND", "LANG", "LC_ALL", "PYTHONPATH", "WORLD_SIZE",
)  # fmt: skip
SHORT = 3  # letters: a shorter name of a user or host stands in other words too
# Absolute, from home or upwards; not what follows a word, as in an address or below this folder
_PATH = re.compile(
    r"(?:(?<![\w/\\.~])|(?<=//))(?:[A-Za-z]:|~|\.{1,2})?"
    r"(?:(?:/|\\{1,2})[^\s\\/'\":;,()<>|\[\]]+){2,}[\\/]?"
)
_IN_PACKAGE = re.compile(r".*[\\/](?:site-packages|dist-packages|python3\.\d+)[\\/](.+)")


def report_bug(output: str | Path, run: str | Path | None = None) -> Path:
    """Write the report.

    Args:
        output: the text file.
        run: the folder of a training; by default the one of those below this folder that was
            written last.

    Raises:
        InputError: no training in `run`, a place that cannot be written, or one of those files.
    """
    log = last_log(run)
    refuse_overwriting("output", output, log, cache_folder() / LAST_ERROR)
    refuse_replacing_other("output", output, "a new file or an older report", _is_report)
    parts = {
        FIRST_PART: text_table([(name, str(value)) for name, value in machine().items()]),
        "Doctor": doctor.text(doctor.examine()),
        "Environment": text_table([(n, os.environ[n]) for n in VARIABLES if n in os.environ]),
        "Last error": _read(cache_folder() / LAST_ERROR) or "none was kept",
        "Last log": _tail(log) if log else "no training below this folder",
    }
    text = "\n\n".join(f"## {title}\n\n{words}" for title, words in parts.items())
    with written_whole(output) as temporary:
        temporary.write_text(impersonal(text) + "\n", encoding="utf-8")
    return Path(output)


def _is_report(place: Path) -> bool:
    return _read(place).startswith(f"## {FIRST_PART}\n")


def last_log(run: str | Path | None) -> Path | None:
    """The log of a training: of this one, or the last that was written below this folder."""
    if run is not None:
        log = Path(run) / "log.jsonl"
        if not log.is_file():
            raise bad_input("run", "the folder of a training, with log.jsonl", run)
        return log
    logs = [
        path for depth in ("*", "*/*", "*/*/*") for path in Path().glob(f"{depth}/log.jsonl")
    ]
    return max(logs, key=lambda path: path.stat().st_mtime, default=None)


def _tail(log: Path) -> str:
    lines = _read(log).splitlines()
    return "\n".join([f"{log.parent.name}/{log.name}, {len(lines)} lines", *lines[-LOG_LINES:]])


def _read(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").strip()
    return ""


# --- without names ----------------------------------------------------------------------------


def impersonal(text: str, names: Mapping[str, str] | None = None) -> str:
    """The text without paths of this machine and without names of its user and itself.

    names: what stands for what; default: this user and this host.
    """
    # Names of these may hold spaces, which end a path for the pattern; the longer one first.
    for place in sorted({str(Path.home()), str(Path.cwd())} - {os.sep}, key=len, reverse=True):
        text = text.replace(place + os.sep, f"~{os.sep}")
    text = _PATH.sub(_last_part, text)
    for name, stand_in in (personal() if names is None else names).items():
        if len(name) >= SHORT:
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", stand_in, text)
    return text


def personal() -> dict[str, str]:
    """Names of this user and this host, and what stands for them."""
    names = {platform.node(): "HOST", platform.node().split(".")[0]: "HOST"}
    with suppress(KeyError, OSError, ImportError):  # a user without an entry
        names[getpass.getuser()] = "USER"
    names[Path.home().name] = "USER"
    return {name: stand_in for name, stand_in in names.items() if name}


def _last_part(found: re.Match[str]) -> str:
    """A path as `.../name`, or as its place in a package: what helps, and is nobody's."""
    path = found[0]
    inside = _IN_PACKAGE.search(path)
    if inside:
        return f".../{inside[1]}"
    for name in ("tensormask_edu", "tensormask_export"):
        ours = re.search(rf"[\\/]{name}[\\/](.+)", path)
        if ours:
            return f".../{name}/{ours[1]}"
    return ".../" + re.split(r"[\\/]", path.rstrip("\\/"))[-1]


def run(output: str, folder: str | None) -> int:
    """Write the report and say where it is."""
    place = report_bug(output, folder)
    print(f"{place}: read it, then attach it to your report")
    return 0
