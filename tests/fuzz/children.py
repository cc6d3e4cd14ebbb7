"""A process that takes inputs one after the other, so that a crash, a hang or growth is seen.

    with Child(takers) as child:
        outcome = child.take("coco", path)

It is forked: it begins with everything loaded. While it takes an input it notes whatever leaves
the input's folder: a connection, a program that is started, a file that is opened elsewhere.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

from tensormask_edu.base.errors import InputError
from tensormask_edu.base.machine import cache_folder
from tensormask_edu.ops.build import find_compiler

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("tensormask_edu", "tensormask_export")
SECONDS = 10  # of work, which a busy machine does not lengthen; more is a hang
WAITING = 120  # seconds, whatever the process does or waits for
GROWTH = 2 << 30  # bytes, more is too much for a small file
SPACE = 12 << 30  # bytes of addresses, so that no input takes the machine along

Taker = Callable[[Path], object]


class Outcome(NamedTuple):
    """What became of an input.

    kind: "works", "refused" (our one-line error), or what must not be: "raised", "crash",
    "hang", "growth", "reached out". where: the last line of ours that was running. text: the
    error.
    """

    kind: str
    where: str = ""
    text: str = ""

    @property
    def fine(self) -> bool:
        return self.kind in ("works", "refused")

    @property
    def key(self) -> tuple[str, str]:
        """The same for two inputs that show the same mistake."""
        return self.kind, self.where


class Child:
    """The process; a new one is forked where the last one ended."""

    def __init__(self, takers: Mapping[str, Taker]) -> None:
        self.takers = takers
        self.log = tempfile.TemporaryFile("w+", errors="replace")
        self.process = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()
        self.log.close()

    def take(self, name: str, path: Path) -> Outcome:
        """Let the taker of that name take a file."""
        if not self.process:
            self._start()
        before = self._worked()
        os.write(self.requests, json.dumps([name, str(path)]).encode() + b"\n")
        if not self._answers():
            worked = f"{self._worked() - before:.1f} s of work; "
            os.kill(self.process, signal.SIGABRT)  # `faulthandler` says where it is
            where, text = self._ended()
            return Outcome("hang", where, worked + text)
        answer = b""
        while not answer.endswith(b"\n"):
            if not (part := os.read(self.answers, 1 << 16)):
                return Outcome("crash", *self._ended())
            answer += part
        return Outcome(*json.loads(answer))

    def _answers(self) -> bool:
        """Whether an answer comes, or the process's end, before it has worked for too long."""
        began, most = time.monotonic(), self._worked() + SECONDS
        while not select.select([self.answers], [], [], min(SECONDS / 4, 1))[0]:
            if self._worked() > most or time.monotonic() - began > WAITING:
                return False
        return True

    def _worked(self) -> float:
        """Seconds of work of the process."""
        fields = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _start(self) -> None:
        inward, self.requests = os.pipe()
        self.answers, outward = os.pipe()
        self.process = os.fork()
        if self.process == 0:
            try:
                os.close(self.requests)
                os.close(self.answers)
                _work(self.takers, inward, outward, self.log.fileno())
            finally:
                os._exit(0)
        os.close(inward)
        os.close(outward)

    def _ended(self) -> tuple[str, str]:
        """Where the process was, and how it ended; the next input starts another."""
        _, status = os.waitpid(self.process, 0)
        self.process = 0
        os.close(self.requests)
        os.close(self.answers)
        self.log.seek(0)
        text = self.log.read()
        self.log.truncate(0)
        lines = [line.strip() for line in text.splitlines() if any(p in line for p in PACKAGES)]
        return (lines[0] if lines else ""), f"{os.waitstatus_to_exitcode(status)} {text[:2000]}"

    def _end(self) -> None:
        if self.process:
            os.kill(self.process, signal.SIGKILL)
            self._ended()


# --- in the process ---------------------------------------------------------------------------


def _work(takers: Mapping[str, Taker], inward: int, outward: int, log: int) -> None:
    faulthandler.enable(log)
    os.dup2(log, 1)
    os.dup2(log, 2)
    resource.setrlimit(resource.RLIMIT_AS, (SPACE + memory_taken(), resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    watch = Watch()
    sys.addaudithook(watch.note)
    with os.fdopen(inward, encoding="utf-8") as requests:
        for line in requests:
            name, path = json.loads(line)
            os.ftruncate(log, 0)
            outcome = _taken_by(takers[name], Path(path), watch)
            os.write(outward, json.dumps(outcome).encode() + b"\n")


def _taken_by(taker: Taker, path: Path, watch: Watch) -> Outcome:
    before = _status("VmRSS")
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak is measured anew
    error: BaseException | None = None
    watch.begin(path.parent)
    try:
        taker(path)
    except BaseException as raised:
        error = raised
    finally:
        reached = watch.end()
    outcome = _judged(error)
    if reached and outcome.fine:
        return Outcome("reached out", reached[0], "; ".join(reached))
    grown = _status("VmHWM") - before
    if grown > GROWTH and outcome.fine:
        return Outcome("growth", path.parent.name, f"{grown >> 20} MiB, {outcome.text}")
    return outcome


def _judged(error: BaseException | None) -> Outcome:
    if error is None:
        return Outcome("works")
    if isinstance(error, InputError):
        if "\n" in str(error) or len(str(error)) > 2000:
            return Outcome("raised", _where(error), f"not one line: {str(error)[:300]!r}")
        return Outcome("refused", "", str(error))
    text = "".join(traceback.format_exception(error))
    return Outcome("raised", f"{type(error).__name__} in {_where(error)}", text[-3000:])


def _where(error: BaseException) -> str:
    """The function of ours that was running last."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if any(f"{package}/" in f.filename for package in PACKAGES)]
    if not ours:
        return frames[-1].name
    return f"{Path(ours[-1].filename).stem}.{ours[-1].name}"


class Watch:
    """Notes what leaves the folder of an input."""

    EVENTS = ("socket.connect", "socket.getaddrinfo", "os.system", "os.exec", "os.posix_spawn",
              "subprocess.Popen", "os.remove", "os.rename", "shutil.rmtree", "urllib.Request",
              "ctypes.dlopen", "pickle.find_class")  # fmt: skip

    def __init__(self) -> None:
        self.folder: Path | None = None
        places = (sys.prefix, sys.base_prefix, ROOT, cache_folder(), "/proc", "/sys", "/dev",
                  "/usr", "/etc/fonts", "/etc/mime.types")  # fmt: skip
        self.allowed = tuple(os.path.realpath(place) for place in places)
        self.seen: list[str] = []

    def begin(self, folder: Path) -> None:
        self.folder, self.seen = folder, []

    def end(self) -> list[str]:
        self.folder = None
        return self.seen

    def note(self, event: str, arguments: tuple[Any, ...]) -> None:
        folder = self.folder
        if folder is None:
            return
        if event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if not path.startswith((*self.allowed, os.path.realpath(folder))):
                self.seen.append(f"open {path}")
        elif event in self.EVENTS and not self._ours(event, arguments):
            self.seen.append(f"{event} {str(arguments)[:200]}")

    @staticmethod
    def _ours(event: str, arguments: tuple[Any, ...]) -> bool:
        """Whether an event is of the readers themselves, whatever the file says."""
        # Libraries of Python's packages, and the kernels, which are compiled at first use
        if event == "subprocess.Popen" and arguments[0] == find_compiler():
            return True
        return event == "ctypes.dlopen" and not str(arguments[0]).startswith("/tmp/")


def _status(field: str) -> int:
    """A size in bytes from this process's status."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return 0


def memory_taken() -> int:
    """Bytes of addresses that this process has."""
    return _status("VmSize")
