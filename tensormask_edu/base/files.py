"""Files that are whole or absent: write beside the target, then rename.

next: base/packages.py
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import InputError, bad_input


def make_folder(folder: str | Path) -> Path:
    """Make `folder` and what is above it, if it is not there."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot make this folder ({error.strerror})") from error
    return Path(folder)


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it on success, remove it on failure.

    The temporary name keeps the suffix, so writers that choose a format by suffix still work.
    """
    path = Path(path)
    make_folder(path.parent)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        _to_disk(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):  # a read-only folder refuses to remove even what is not there
            temporary.unlink(missing_ok=True)


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
    for temporary in path.parent.glob(f".{path.stem}.*{path.suffix}"):
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read_json(path: str | Path, what: str = "JSON file") -> Any:
    """Read JSON; a missing or broken file is an `InputError` naming the place."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise bad_input(what, "an existing file", path, "check the path") from None
    except OSError as error:
        raise bad_input(what, "a readable file", f"{path} ({error.strerror})") from None
    except ValueError as error:
        got = f"{path} ({error})"
        raise bad_input(what, "valid JSON", got, "the file may be cut off") from None


def file_sha256(path: str | Path) -> str:
    """What `sha256sum` says."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
