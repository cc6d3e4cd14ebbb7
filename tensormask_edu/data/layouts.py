"""Where a data set's JSON and pictures lie: the layouts that tools export, and names of files.

Some tools write a file for each split, others one for everything, of which a fifth is held out:
the pictures whose names have the lowest hashes, so that the same are held out every time,
whatever is added. `Files` names the two places by hand.

next: data/outlines.py
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote

from ..base.errors import InputError, bad_input, require


class Files(NamedTuple):
    """A data set named by hand: a COCO instances file, and the folder of its pictures."""

    annotations: Path
    images: Path


class Place(NamedTuple):
    """Where a split lies; part: "train" or "val" of a file that holds both, or "all"."""

    annotations: Path
    images: Path
    part: str = "all"


Data = str | Path | Files  # a folder, or the two places


class Layout(NamedTuple):
    """How a tool lays out what it exports: the JSON, and the first of these folders there is.

    {split} stands for each name of the split; without it the JSON holds all pictures.
    """

    tool: str
    annotations: str
    images: tuple[str, ...]


ANYWHERE = ("images", "JPEGImages", "data", ".")
LAYOUTS = (
    Layout("ours", "instances_{split}.json", ("images", "{split}", "{split}2017")),
    Layout(
        "COCO, CVAT",
        "annotations/instances_{split}.json",
        ("images/{split}", "images", "{split}", "{split}2017"),
    ),
    Layout(
        "COCO", "annotations/instances_{split}2017.json", ("images", "{split}", "{split}2017")
    ),
    Layout("Roboflow", "{split}/_annotations.coco.json", ("{split}",)),
    Layout("FiftyOne", "{split}/labels.json", ("{split}/data",)),
    Layout("labelme2coco", "{split}.json", ("{split}", *ANYWHERE)),
    Layout("others", "annotations/{split}.json", ("{split}", *ANYWHERE)),
    Layout("CVAT", "annotations/instances_default.json", ("images/default", "images", ".")),
    Layout("Label Studio", "result.json", ("images", ".")),
    Layout("FiftyOne", "labels.json", ("data", ".")),
    Layout("Roboflow", "_annotations.coco.json", (".",)),
    # A single file of another name
    Layout("labelme2coco", "*.json", ANYWHERE),
    Layout("others", "annotations/*.json", ANYWHERE),
)

USUAL_SPLITS = ("train", "val", "test")
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation")}
PARTS = (*SPLITS, "all")
HELD_OUT = 1 / 5
_OF_A_SPLIT = re.compile("train|val|test")


def data_named(folder: str | None, annotations: str | None, images: str | None) -> Data | None:
    """The data set that a command line names: one folder, or the two places; None if none."""
    if annotations is None and images is None:
        return folder
    if annotations is None or images is None or folder is not None:
        got = [word for word in (folder, annotations, images) if word is not None]
        raise bad_input("data", "FOLDER, or --annotations FILE --images FOLDER", got)
    return Files(Path(annotations), Path(images))


# --- the two places ---------------------------------------------------------------------------


def find_split(data: Data, split: str) -> Place:
    """The ground truth file and the picture folder of a split, by the first fitting layout.

    Raises:
        InputError: nothing there that fits, or no such split.
    """
    if isinstance(data, Files):
        annotations, images = map(Path, data)
        if not annotations.is_file():
            raise bad_input("annotations", "an existing COCO file", annotations)
        if not images.is_dir():
            raise bad_input("images", "an existing folder", images)
        require(split in PARTS, "split", f"{', '.join(PARTS)} of one file", repr(split))
        return Place(annotations, images, split)
    folder = Path(data)
    if not folder.is_dir():
        raise bad_input("folder", "an existing folder", folder, "check the path")
    for layout in LAYOUTS:
        by_split = "{split}" in layout.annotations
        if not by_split and split not in PARTS:
            continue
        for name in SPLITS.get(split, (split,)) if by_split else (split,):
            path = _only_file(folder, layout.annotations.format(split=name))
            if path is not None:
                names = [each.format(split=name) for each in layout.images]
                images = _picture_folder(folder, names)
                return Place(path, images, "all" if by_split else split)
    files = [f"instances_{split}.json", f"annotations/instances_{split}.json"]
    wanted = f"{' or '.join(files)} (or what another tool exports, docs/training.md) in it"
    fix = f"is {split!r} the name of the split? Else --annotations FILE --images FOLDER"
    several = [file.name for file in _coco_files(folder, "*.json")]
    if len(several) > 1:
        fix = f"which of {', '.join(several[:3])}? Say --annotations FILE --images FOLDER"
    raise bad_input("folder", wanted, folder, fix)


def places(data: Data, split: str) -> list[Path]:
    """The JSON and the pictures of a split and of the others: no result may replace them.

    Raises:
        InputError: as `find_split`, for this split; others may be missing.
    """
    return [path for place in every_split(data, split) for path in place[:2]]


def every_split(data: Data, split: str) -> Iterator[Place]:
    """Where a split lies, and after it the others that there are, looked for one by one.

    Raises:
        InputError: as `find_split`, for this split.
    """
    yield find_split(data, split)
    for other in USUAL_SPLITS:
        with suppress(InputError):
            yield find_split(data, other)


def _only_file(folder: Path, pattern: str) -> Path | None:
    """The file at a path below `folder`, upper and lower case alike; of `*` the one of COCO."""
    *folders, name = pattern.split("/")
    for each in folders:
        inner = _entry(folder, each)
        if inner is None or not inner.is_dir():
            return None
        folder = inner
    if "*" not in name:
        found = _entry(folder, name)
        return found if found is not None and found.is_file() else None
    files = _coco_files(folder, name)
    return files[0] if len(files) == 1 else None


def _coco_files(folder: Path, pattern: str) -> list[Path]:
    return [file for file in sorted(folder.glob(pattern)) if _looks_like_coco(file)]


def _entry(folder: Path, name: str) -> Path | None:
    if (folder / name).exists():
        return folder / name
    if not folder.is_dir():
        return None
    same = [e for e in os.listdir(folder) if e.casefold() == name.casefold()]
    return folder / same[0] if len(same) == 1 else None


def _looks_like_coco(file: Path) -> bool:
    """Whether a JSON has COCO's three lists, and is of no split by its name.

    Those beside labelme's pictures have no such lists.
    """
    if not file.is_file() or file.name[0] == "." or _OF_A_SPLIT.search(file.stem.casefold()):
        return False
    content = file.read_bytes()
    return all(word in content for word in (b'"images"', b'"annotations"', b'"categories"'))


def _picture_folder(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        found = folder
        for part in PurePosixPath(name).parts:
            found = _entry(found, part) or found / part
        if found.is_dir():
            return found
    wanted = f"pictures in {', '.join(f'{name}/' for name in names)} in it"
    raise bad_input("folder", wanted, folder)


# --- a part of the pictures -------------------------------------------------------------------


def ids_of_part(images: Sequence[dict[str, Any]], part: str) -> list[int]:
    """The ids of the pictures that belong to "train", "val" or "all", in the file's order."""
    if part == "all":
        return [image["id"] for image in images]
    require(len(images) > 1, "images", "two pictures at least, to hold one out", len(images))
    ranked = sorted(images, key=lambda image: _hash(image["file_name"]))
    held_out = {image["id"] for image in ranked[: max(1, round(HELD_OUT * len(images)))]}
    return [each["id"] for each in images if (each["id"] in held_out) == (part == "val")]


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()


# --- the picture files ------------------------------------------------------------------------


def find_pictures(
    images: Iterable[dict[str, Any]], folder: Path, json_path: Path
) -> dict[int, str]:
    """The path in `folder` of each picture whose file has another name than the JSON says.

    Seen through are Unicode forms, upper and lower case, Windows' slashes, percent signs, and
    folders that were other ones when the JSON was written. No name leads out of the folder.

    Raises:
        InputError: a picture without a file, or two with the same one.
    """
    with os.scandir(folder) as entries:  # one call, not one per picture
        files = {entry.name for entry in entries if entry.is_file()}
    images = list(images)
    missing = [
        image
        for image in images
        if image["file_name"] not in files and not _inside(folder, image)
    ]
    others: dict[int, str] = {}
    owners: dict[str, str] = {}
    below = _files_below(folder) if missing else {}
    for image in missing:
        name = image["file_name"]
        found = next(filter(None, (below.get(form) for form in _forms(name, folder))), [])
        if len(found) != 1 or owners.setdefault(found[0], name) != name:
            expected = f"{name} (named in {json_path.name}) in {folder}"
            several = f"several that it may be, {', '.join(found[:2])}"
            got = (
                several
                if found
                else f"no such file; {len(missing)} names are not there as written"
            )
            fix = "add the file, or take the picture out of the JSON"
            raise bad_input("image file", expected, got, "" if found else fix)
        others[image["id"]] = found[0]
    return others


def _inside(folder: Path, image: dict[str, Any]) -> bool:
    """Whether there is a file of the name in a folder below."""
    path = PurePosixPath(image["file_name"])
    if path.is_absolute() or ".." in path.parts or "\0" in image["file_name"]:
        return False
    return os.path.isfile(folder / path)  # Path's own raises where a name is too long


def _files_below(folder: Path) -> dict[str, list[str]]:
    """Files of `folder` and below, by what `_normal` makes of their path, and of their name."""
    found: dict[str, list[str]] = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.relpath(os.path.join(place, name), folder)
            if os.path.isfile(os.path.join(place, name)):
                for form in {_normal(path), "/" + _normal(name)}:
                    found.setdefault(form, []).append(path)
    return found


def _forms(name: str, folder: Path) -> list[str]:
    """What a picture's name may be in `_files_below`, the likeliest first."""
    forms = []
    if "://" in name:  # an address, with a signature behind the file's name
        name = name.partition("?")[0]
    for written in (name, unquote(name)):
        path = _normal(written.replace("\\", "/"))
        below = path.removeprefix(_normal(folder.name) + "/")  # named from the folder above
        forms += [path, below, "/" + path.rsplit("/", 1)[-1]]
    return forms


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
