"""A data set as a model will see it: counts, sizes, what is mended, refused; a page of it.

Every picture is read, so that a cut one is known before a training meets it, and one that two
splits share.

next: commands/ablate.py
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import viz
from ..base.errors import InputError, InputWarning, bad_input, printable, require
from ..base.files import (
    check_report,
    file_sha256,
    make_folder,
    refuse_overwriting,
    write_json,
)
from ..base.progress import Progress
from ..base.tables import text_table
from ..config import Recipe, recipe
from ..data.coco import CocoFolder
from ..data.instances import FIRST, RULES
from ..data.layouts import USUAL_SPLITS, Data, data_named, find_split, places
from ..data.prepare import input_size, intensity_range, resize, scaled, stretch
from ..data.truth import resize_truth

SHARES = (5, 50, 95)  # per cent: the sizes that are told
PAGE_PX = 480  # long side of a picture on the page
PAGE_BYTES = 2e9  # masks of a picture that would take more are not drawn


@dataclass
class Seen:
    """What was found of a split.

    pictures: how many, how many without objects, the smallest and largest height and width.
    objects: by class name. longest_px: the longest sides at 5, 50 and 95 % of the objects, in
    the file's pixels and in the model's; too_long: objects longer than any window. said: what
    was mended and left out. unreadable: pictures, with the reason.
    """

    split: str
    annotations: str
    images: str
    pictures: dict[str, Any] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)
    longest_px: dict[str, list[float]] = field(default_factory=dict)
    windows_px: list[float] = field(default_factory=list)
    too_long: int = 0
    said: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def run(args: argparse.Namespace) -> int:
    """Print what is in the data set; 0, 1 if a picture cannot be read, 2 if it is refused."""
    data = data_named(args.folder, args.annotations, args.images)
    if data is None:
        raise bad_input("inspect", "FOLDER, or --annotations FILE --images FOLDER", "neither")
    require(args.pictures >= 0, "pictures", "at least 0", args.pictures)
    chosen, splits = recipe(args.recipe), [args.split] if args.split else splits_of(data)
    pages = {split: Path(args.output) / f"{split}.png" for split in splits}
    read = places(data, splits[0])
    check_report(args.json, *read, *pages.values())
    if args.pictures:
        refuse_overwriting("output", args.output, *read)
        make_folder(args.output)
    seen, refused = [], 0
    files: dict[str, set[str]] = {}  # by split, what tells the files of its pictures apart
    for split in splits:
        try:
            found, dataset = inspect(data, split, chosen)
        except InputError as error:
            print(f"{split}: refused\nerror: {printable(error)}", file=sys.stderr)
            refused += 1
            continue
        files[split] = _contents(dataset)
        found.said += _shared(split, files)
        seen.append(found)
        print(text(found))
        if args.pictures and len(dataset) > len(found.unreadable):
            draw_page(dataset, chosen, args.pictures, pages[split])
            print(f"  {pages[split]}: some of its pictures, with their objects")
    if args.json:
        write_json(args.json, [asdict(each) for each in seen])
    return 2 if refused else int(any(each.unreadable for each in seen))


def splits_of(data: Data) -> list[str]:
    """The splits that a data set has.

    Raises:
        InputError: none.
    """
    found, errors = [], []
    for split in USUAL_SPLITS:
        try:
            find_split(data, split)
            found.append(split)
        except InputError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    return found


def inspect(data: Data, split: str, chosen: Recipe) -> tuple[Seen, CocoFolder]:
    """Look at a split, every picture of it.

    Raises:
        InputError: what training and evaluation would refuse too.
    """
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", InputWarning)
        dataset = CocoFolder(data, split, keep_empty=True)
        seen = Seen(split, str(dataset.ground_truth_path), str(dataset.image_folder))
        pictures = Progress(range(len(dataset)), desc=f"reading {split}", unit="image")
        seen.unreadable = [reason for n in pictures if (reason := dataset.problem(n))]
    messages = dict.fromkeys(str(warning.message) for warning in said)
    crowds = dataset.ground_truth.findings.lines("crowd")
    seen.said = [*messages, *(f"{dataset.ground_truth_path.name}: {line}" for line in crowds)]
    _measure(seen, dataset, chosen)
    return seen, dataset


def _contents(dataset: CocoFolder) -> set[str]:
    """The hashes of a split's picture files: a copy has another name, and the same content."""
    found = set()
    for index in range(len(dataset)):
        with suppress(OSError):  # unreadable, which is told elsewhere
            found.add(file_sha256(dataset.path(index)))
    return found


def _shared(split: str, files: Mapping[str, set[str]]) -> list[str]:
    """A line for each split before this one that has pictures of it too."""
    return [
        f"{common} of its pictures are in {other} too: scores on both say nothing of new ones"
        for other, contents in files.items()
        if other != split and (common := len(contents & files[split]))
    ]


def _measure(seen: Seen, dataset: CocoFolder, chosen: Recipe) -> None:
    """Counts and sizes, from the annotations alone."""
    sizes = dict(zip(dataset.image_ids, map(dataset.size, range(len(dataset))), strict=True))
    learnt = [each for each in dataset.ground_truth.annotations if not each["iscrowd"]]
    of_picture = Counter(each["image_id"] for each in learnt)
    names = dict(zip(dataset.category_ids, dataset.class_names, strict=True))
    of_class = Counter(each["category_id"] for each in learnt)
    heights, widths = zip(*sizes.values(), strict=True) if sizes else ((0,), (0,))
    several = Counter(names.values())  # two categories may have one name
    seen.objects = {
        name if several[name] == 1 else f"{name} (category {number})": of_class[number]
        for number, name in names.items()
    }
    seen.pictures = {
        "number": len(sizes),
        "without objects": len(sizes) - len(of_picture),
        "heights_px": [min(heights), max(heights)],
        "widths_px": [min(widths), max(widths)],
        "most objects": max(of_picture.values(), default=0),
    }
    factors = {
        number: input_size(*size, chosen.input)[0] / size[0] for number, size in sizes.items()
    }
    in_file = np.array([max(each["bbox"][2:]) for each in learnt])  # (objects,)
    in_model = in_file * [factors[each["image_id"]] for each in learnt]
    geometry = chosen.model.geometry
    sides = geometry.windows(geometry.grid_sizes(1, 1)).box_px
    longest = (sides[:, 2:] - sides[:, :2]).amax(dim=1)
    seen.windows_px = [float(longest.min()), float(longest.max())]
    seen.too_long = int((in_model > seen.windows_px[1]).sum())
    if learnt:
        both = {"file": in_file, "model": in_model}
        seen.longest_px = {
            name: np.percentile(values, SHARES).round(1).tolist()
            for name, values in both.items()
        }


def text(seen: Seen) -> str:
    """What was found, as lines."""
    pictures, low, high = seen.pictures, *seen.windows_px
    height, width = (_range(pictures[name]) for name in ("heights_px", "widths_px"))
    total = sum(seen.objects.values())
    without = f"{pictures['without objects']} without objects"
    rows = [
        ("pictures", f"{pictures['number']}, {height} px high, {width} px wide; {without}"),
        ("objects", f"{total}, at most {pictures['most objects']} in a picture"),
        ("classes", ", ".join(f"{name} {number}" for name, number in seen.objects.items())),
    ]
    if seen.longest_px:
        file, model = (
            " / ".join(f"{value:g}" for value in values) for values in seen.longest_px.values()
        )
        windows = f"its windows have {low:g} to {high:g} px"
        rows.append(("longest side", f"{file} px at 5 / 50 / 95 % of the objects"))
        rows.append(("... in the model", f"{model} px; {windows}"))
    if seen.too_long:
        rows.append(("too long", f"{seen.too_long} objects, which no window holds"))
    rows += [("said", printable(line)) for line in seen.said]
    rows += [("unreadable", printable(line)) for line in seen.unreadable[:FIRST]]
    if len(seen.unreadable) > FIRST:
        rows.append(("unreadable", f"{len(seen.unreadable)} in all; --json names each"))
    return f"{seen.split}: {seen.annotations}, {seen.images}\n{text_table(rows, '  ')}"


def _range(ends: list[int]) -> str:
    return str(ends[0]) if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


# --- the page ---------------------------------------------------------------------------------


def draw_page(dataset: CocoFolder, chosen: Recipe, number: int, path: Path) -> None:
    """Some pictures with their objects, those that were mended first; contrast as in training.

    The others are as far apart in the data set as they can be.
    """
    findings = dataset.ground_truth.findings.ids.items()
    repaired = (ids for rule, ids in findings if RULES[rule][:2] == ("repaired", "annotations"))
    ids = {number for of_rule in repaired for number in of_rule}
    mended = {a["image_id"] for a in dataset.ground_truth.annotations if a["id"] in ids}
    order = sorted(range(len(dataset)), key=lambda k: (dataset.image_ids[k] not in mended, k))
    few = order[: number // 2] if mended else []
    spread = np.linspace(0, len(dataset) - 1, number).round().astype(int).tolist()
    images, truths, titles = [], [], []
    for index in list(dict.fromkeys([*few, *spread]))[:number]:
        try:
            image = dataset.image(index).numpy()
        except InputError:
            continue
        height, width = dataset.size(index)
        if dataset.count(index) * height * width > PAGE_BYTES:
            continue
        size = scaled((height, width), min(1.0, PAGE_PX / max(height, width)))
        step = max(1, max(height, width) // (4 * PAGE_PX))  # of a large one few pixels are seen
        values = intensity_range(image, chosen.input)
        shown = resize(stretch(image[:, ::step, ::step], values), size)
        images.append(torch.from_numpy(shown))
        truths.append(resize_truth(dataset.truth(index), size))
        star = " (mended)" if dataset.image_ids[index] in mended else ""
        titles.append(f"{dataset.path(index).name}{star}")
    if images:
        viz.save(viz.truths_page(images, truths, dataset.class_names, titles), path)
