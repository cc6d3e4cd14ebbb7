"""One writer for a folder: a second one is told who is at work there.

next: base/packages.py
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from .errors import bad_input
from .files import cannot_write

fcntl: Any = None
with suppress(ImportError):  # Windows has none
    import fcntl

LOCK = ".lock"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder: while one process does, `folder/.lock` says which one it is.

    The system gives the lock back when its process ends, whatever ends it, so what a killed
    process left behind keeps nobody out. A disk that knows no locks lets everybody in.

    Raises:
        InputError: another process holds it, or the folder cannot be written.
    """
    path = folder / LOCK
    try:
        file = _held(path)
    except BlockingIOError as error:
        got = f"{folder}, where {error.strerror} writes"
        fix = "wait for its end, or choose another folder"
        raise bad_input("output", "a folder that nobody else writes into", got, fix) from None
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield
    finally:
        with suppress(OSError):
            os.unlink(path)  # while it is held: nobody else's can be meant
        file.close()


def _held(path: Path) -> IO[str]:
    """The lock file, open and locked; BlockingIOError with its holder's name if another is."""
    while True:
        file = open(path, "a+", encoding="utf-8")
        try:
            _lock(file)
        except BlockingIOError:
            file.close()
            raise
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                break
        file.close()  # its holder removed it before it was locked here: there is a new one
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}\n")
    file.flush()
    return file


def _lock(file: IO[str]) -> None:
    """Lock an open file for this process, where the system and its disk can."""
    if fcntl is None:
        return
    try:
        # Not `flock`, which workers would inherit that are forked from here: they live on for
        # seconds when their parent is killed, and would keep the folder from the next run.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        file.seek(0)
        holder = file.read().strip() or "another process"
        raise BlockingIOError(error.errno, holder) from None
    except OSError:
        pass  # a disk without locks
