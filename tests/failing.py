"""Faults on purpose: a command runs in a process of its own, in which something goes wrong.

    ended = in_child(lambda: cli.main(words), full_disk(20_000))
    assert ended.code == 2 and "error: " in ended.err

The child is forked: it begins with everything loaded, which a fresh interpreter needs seconds
for, and whatever is done to it, limits, mounts, kills, ends with it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

Fault = Callable[[], None]
TIMEOUT_S = 120


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code, negative for a signal, and what it said."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that a command says when it fails; all it said must be that line."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and "Traceback" not in self.err, self.err
        return lines[0].removeprefix("error: ")


def in_child(work: Callable[[], int | None], *faults: Fault) -> Ended:
    """Run `work` in a forked process after the faults were arranged there."""
    (out_read, out), (err_read, err) = os.pipe(), os.pipe()
    for number in (out, err):
        fcntl.fcntl(number, fcntl.F_SETPIPE_SZ, 1 << 20)  # read when the child has ended
    child = os.fork()
    if child == 0:
        code = 99
        try:
            signal.alarm(TIMEOUT_S)
            os.dup2(out, 1)
            os.dup2(err, 2)
            sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
            sys.stderr = open(2, "w", encoding="utf-8", closefd=False)
            for fault in faults:
                fault()
            code = work() or 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 98
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    os.close(out)
    os.close(err)
    texts = []
    for number in (out_read, err_read):
        with open(number, encoding="utf-8", errors="replace") as file:
            texts.append(file.read())
    return Ended(os.waitstatus_to_exitcode(status), *texts)


# --- the faults -------------------------------------------------------------------------------


def files_of_at_most(size: int) -> Fault:
    """A file that becomes larger than `size` bytes fails half-way, as on a full disk."""

    def fault() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    return fault


def memory_for(more: int) -> Fault:
    """The process may take `more` bytes than it has."""

    def fault() -> None:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
        resource.setrlimit(resource.RLIMIT_AS, (taken + more, taken + more))

    return fault


def killed_at_rename(pattern: str, time: int = 1, after: bool = False) -> Fault:
    """SIGKILL when a whole file gets a name with `pattern` in it: before it, or after."""

    def fault() -> None:
        rename, count = os.replace, 0

        def renamed(source: str | Path, target: str | Path) -> None:
            nonlocal count
            count += pattern in str(target)
            now = pattern in str(target) and count == time
            if now and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(source, target)
            if now:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = renamed  # type: ignore[assignment]

    return fault


def read_only(folder: Path) -> Fault:
    """A folder in which nothing can be written, also not by root: a mount of its own."""

    def fault() -> None:
        mount(folder, None, MS_BIND)
        mount(folder, None, MS_BIND | MS_REMOUNT | MS_RDONLY)

    return fault


def tiny_disk(folder: Path, size: int) -> Fault:
    """A folder becomes a disk of `size` bytes."""
    return lambda: mount(folder, f"size={size}", 0)


MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
_separate = False  # of this process


def separate() -> None:
    """Give the process mounts of its own; who is not root becomes it, for this alone."""
    global _separate
    if _separate:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNS | (CLONE_NEWUSER if user else 0)):
        raise OSError(ctypes.get_errno(), "unshare")
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _call_mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    _separate = True


def mount(folder: Path, options: str | None, flags: int) -> None:
    """A folder bound to itself (`MS_BIND`), or a new disk in memory in its place."""
    separate()
    place = os.fsencode(folder)
    kind = None if flags & MS_BIND else b"tmpfs"
    _call_mount(place, place, kind, flags, options.encode() if options else None)


def _call_mount(
    source: bytes, place: bytes, kind: bytes | None, flags: int, options: bytes | None
) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source, place, kind, ctypes.c_ulong(flags), options):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fsdecode(place))


def can_mount() -> bool:
    """Whether a process may have mounts of its own here."""
    if sys.platform != "linux":
        return False

    def separated() -> int:
        separate()
        return 0

    return in_child(separated).code == 0


NO_MOUNTS = "no mounts of its own for a process here"
needs_mounts = pytest.mark.skipif(not can_mount(), reason=NO_MOUNTS)
