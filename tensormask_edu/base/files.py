"""Files that are whole or absent: write beside the target, then rename.

next: base/signals.py
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import InputError, bad_input

LONGEST_STEM = 200  # bytes: a name has 255 on most disks, a temporary adds some
DEEPEST = 64  # lists and objects in one another; COCO's have six

# What helps where the system refuses to write
_SPACE = "make room on this disk, or choose another"
_PLACE = "choose a place that may be written"
_IN_THE_WAY = "a file is in the way: choose another place"
CURES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _SPACE),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), _PLACE),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR), _IN_THE_WAY),
}


def cannot_write(
    path: str | Path, error: OSError, what: str = "cannot be written"
) -> InputError:
    """The error for a file or folder that the system refuses, with what helps."""
    cure = CURES.get(error.errno or 0)
    message = f"{path}: {what} ({error.strerror or error})"
    return InputError(f"{message}; {cure}" if cure else message)


def make_folder(folder: str | Path) -> Path:
    """Make `folder` and what is above it, if it is not there."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error, "cannot make this folder") from error
    return Path(folder)


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it on success, remove it on failure.

    The temporary name keeps the suffix, so writers that choose a format by suffix still work.
    """
    path = Path(path)
    temporary = _beside(path)
    try:
        yield temporary
        _to_disk(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):  # a read-only folder refuses to remove even what is not there
            temporary.unlink(missing_ok=True)


def check_place(path: str | Path) -> None:
    """Raise InputError unless a file can be written there; its folder is made.

    Long work asks before it begins.
    """
    temporary = _beside(Path(path))
    try:
        temporary.touch()
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_report(json: str | Path | None, *others: str | Path | None) -> None:
    """Refuse `--json` in the place of one of the `others`, or where none can be written.

    The work that a report tells of may take long.
    """
    refuse_overwriting("json", json, *others)
    if json is not None:
        check_place(json)


def check_folder(folder: str | Path) -> None:
    """Raise InputError where a file stands in the way of a folder to be made."""
    nearest = next(each for each in (Path(folder), *Path(folder).parents) if each.exists())
    if not nearest.is_dir():
        error = NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        raise cannot_write(folder, error, "cannot make this folder")


def _beside(path: Path) -> Path:
    """The temporary name of a file to be written, in a folder that is there."""
    make_folder(path.parent)
    if path.is_dir():
        raise InputError(f"{path}: is a folder, no place for a file; add a file's name")
    if _is_stream(path):
        raise InputError(f"{path}: is a device or a stream, not a file; name a file")
    return path.with_name(f".{_short(path)}.{os.getpid()}{path.suffix}")


def _is_stream(path: Path) -> bool:
    """Whether a path is `/dev/null`, `/dev/stdout`, a pipe: a rename would put a file there.

    Whoever is root would so take the device from every program of the machine.
    """
    if path.exists() and not path.is_file():
        return True
    # A stream that goes into a file looks like one, at the end of its links
    places = (os.readlink(path) if path.is_symlink() else "", os.path.realpath(path.parent))
    return any(place.startswith("/proc/") for place in places)


def _short(path: Path) -> str:
    """What stands for a name in that of its temporary, which is longer and must fit too."""
    stem = os.fsencode(path.stem)
    return path.stem if len(stem) <= LONGEST_STEM else hashlib.sha256(stem).hexdigest()[:16]


def _to_disk(path: Path) -> None:
    """Wait until a file is on the disk: a power cut could else leave an empty one."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(path: str | Path) -> None:
    """Remove temporaries whose writer was killed; only for a `path` that nobody is writing."""
    path = Path(path)
    name = f".{_short(path)}."
    for temporary in path.parent.glob(f"{glob.escape(name)}*{path.suffix}"):
        if temporary.stem.removeprefix(name).isdigit():  # a process wrote it
            temporary.unlink(missing_ok=True)


def refuse_overwriting(
    argument: str, output: str | Path | None, *others: str | Path | None
) -> None:
    """Raise InputError if writing `output` would replace one of the `others`.

    Links, relative paths and, where the disk does so, upper and lower case are seen through.

    Args:
        argument: what the caller calls `output`.
        others: what is read, or written as well. A folder among them stands for the files that
            are in it and below. None, here or as `output`: an option that was not given.
    """
    if output is None:
        return
    inside = Path(output).resolve().parents if Path(output).is_file() else ()
    for other in others:
        if other is not None and any(_same(place, other) for place in (output, *inside)):
            got = f"{output}, which would replace {other}"
            raise bad_input(argument, "a place of its own", got, "choose another")


def refuse_replacing_other(
    argument: str, path: str | Path, expected: str, is_ours: Callable[[Path], bool]
) -> None:
    """Raise InputError where a file is that a new one of ours may not replace.

    Args:
        argument: what the caller calls what is written.
        expected: what may be there, for the error.
        is_ours: whether a file is of the kind that is written, only older.
    """
    path = Path(path)
    if path.is_file() and not is_ours(path):
        got = f"{path}, which holds something else"
        raise bad_input(argument, expected, got, "choose another")


def _same(path: str | Path, other: str | Path) -> bool:
    """Whether two paths are one place on the disk, be something there or not."""
    if os.path.exists(path) and os.path.exists(other):
        return os.path.samefile(path, other)
    return os.path.realpath(path) == os.path.realpath(other)


def write_json(path: str | Path, value: Any, indent: int | None = 2) -> None:
    """Write `value` as JSON, whole or not at all; without `indent` on one line, faster."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(value, indent=indent) + "\n", encoding="utf-8")


def read_json(path: str | Path, what: str = "JSON file") -> Any:
    """Read JSON; a missing or broken file is an `InputError` naming the place.

    A byte order mark, and UTF-16 and UTF-32, as Windows tools write them, are understood.
    """
    path = Path(path)
    try:
        return parsed_json(path.read_bytes())
    except FileNotFoundError:
        raise bad_input(what, "an existing file", path, "check the path") from None
    except OSError as error:
        raise bad_input(what, "a readable file", f"{path} ({error.strerror})") from None
    except ValueError as error:
        got = f"{path} ({error})"
        raise bad_input(what, "valid JSON", got, "the file may be cut off") from None


def parsed_json(text: str | bytes) -> Any:
    """What JSON says; of bytes the encoding is found. ValueError if it is none.

    What is nested deeper than any file of ours is refused here, so that whoever looks through
    the value may call itself for what is inside.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    level = [value] if type(value) in (list, dict) else []
    for _ in range(DEEPEST):
        inner = (each.values() if type(each) is dict else each for each in level)
        level = [item for items in inner for item in items if type(item) in (list, dict)]
    if level:
        raise ValueError(f"nested deeper than {DEEPEST}")
    return value


def file_sha256(path: str | Path) -> str:
    """What `sha256sum` says."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
