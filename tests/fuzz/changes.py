"""How a right file is made wrong: bytes, JSON values, the fields of a picture's header.

Every change is drawn by hypothesis, so that a failing input shrinks to the few changes that it
takes, and the same seed gives the same inputs.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

Draw = Callable[..., Any]
Path = tuple[Any, ...]  # the keys and places that lead to a value

NUMBERS = (
    0, 1, -1, 2, 3, 7, 0.5, -0.0, 1e-300, 1e10, 1e308, float("nan"), float("inf"),
    float("-inf"), 255, 256, 65_535, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63, 2**64, -(2**63),
    10**18, 10**400, 100_000, 46_341,
)  # fmt: skip
WORDS = (
    "", " ", "x", "0", "1", "-1", "1e999", "nan", "\0", "\ud800", "é", "e\u0301", "../x", "/",
    "/etc/passwd", "../../../../etc/passwd", "C:\\x", "file:///etc/passwd", "x" * 5000,
    "%2e%2e/", "http://localhost:9/x", "float32", "none", "auto", "aligned", "resnet50",
)  # fmt: skip
ODD: tuple[Any, ...] = (
    None, True, False, *NUMBERS, *WORDS, [], [[]], {}, [None], [0, 0, 0, 0], [1, 2, 3, 4, 5, 6],
    {"size": [1, 1], "counts": "1"}, [[[0, 0], [1, 1], [0, 1]]], {"": {}}, [1] * 3000,
)  # fmt: skip
DEEP = "\x1bdeep"  # stands for a value nested so often; written out in the text
DEPTHS = (50, 900, 5_000, 200_000)
LARGEST = 1 << 22  # characters of a file, about: a longer one takes long and shows nothing new


# --- JSON -------------------------------------------------------------------------------------


@st.composite
def changed_json(draw: Draw, value: Any, most: int = 4) -> bytes:
    """A JSON file of `value` with one to `most` changes: fields, types, numbers, nesting."""
    for _ in range(draw(st.integers(1, most))):
        changed = draw(changed_value(value))
        if is_small(changed):  # a list 50 times as long may be lengthened again
            value = changed
    return written(value)


@st.composite
def changed_value(draw: Draw, value: Any) -> Any:
    """A JSON value in which one place was changed."""
    paths = list(places(value))
    path = draw(st.sampled_from(paths))
    here = at(value, path)
    kind = draw(st.sampled_from(("odd", "odd", "gone", "twice", "deep", "other", "near")))
    if kind == "odd":
        return put(value, path, draw(st.sampled_from(ODD)))
    if kind == "other":  # what stands somewhere else in the same file
        return put(value, path, at(value, draw(st.sampled_from(paths))))
    if kind == "deep":
        return put(value, path, f"{DEEP}{draw(st.sampled_from(DEPTHS))}")
    if kind == "near":
        return put(value, path, draw(_near(here)))
    return _without(value, path) if kind == "gone" else _twice(value, path)


def _near(value: Any) -> st.SearchStrategy[Any]:
    """Something of the same type."""
    if isinstance(value, bool) or value is None:
        return st.sampled_from((True, False, None))
    if isinstance(value, int | float):
        # An int that no float can hold is multiplied by whole numbers alone
        small = isinstance(value, float) or abs(value) < 1e300
        factors = st.sampled_from((-1, 0, 0.5, 2, 1000, 1e6) if small else (-1, 0, 2, 1000))
        return factors.map(lambda f: value * f) | st.integers(-5, 5).map(lambda n: value + n)
    if isinstance(value, str):
        return changed_bytes([value.encode("utf-8", "surrogatepass")]).map(
            lambda data: data.decode("latin-1")
        )
    if isinstance(value, list):
        return st.sampled_from((value[::-1], value * 2, value * 50, value[1:], [value]))
    return st.just({key.upper(): item for key, item in value.items()})


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Every place of a JSON value; of a long list the first and the last ones."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for place in {*range(min(len(value), 3)), len(value) - 1} - {-1}:
            yield from places(value[place], (*path, place))


def is_small(value: Any) -> bool:
    """Whether a JSON value is of at most `LARGEST` characters."""
    left, inner = LARGEST, [iter((value,))]
    while inner and left > 0:
        for each in inner[-1]:
            left -= 4 + (len(each) if isinstance(each, str) else 0)
            if isinstance(each, dict):
                inner += [iter(each), iter(each.values())]
                break
            if isinstance(each, list):
                inner.append(iter(each))
                break
            if left <= 0:
                break
        else:
            inner.pop()
    return left > 0


def at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


def put(value: Any, path: Path, new: Any) -> Any:
    """A copy of a JSON value with another one at a place."""
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = put(value[path[0]], path[1:], new)
    return copy


def _without(value: Any, path: Path) -> Any:
    if not path:
        return None
    copy = at(value, path[:-1]).copy()
    del copy[path[-1]]
    return put(value, path[:-1], copy)


def _twice(value: Any, path: Path) -> Any:
    if not path:
        return [value, value]
    above = at(value, path[:-1])
    new = [*above, above[path[-1]]] if isinstance(above, list) else above | {"more": value}
    return put(value, path[:-1], new)


def written(value: Any) -> bytes:
    """JSON with NaN and the like; nested values are written out, which `json` could not."""
    try:
        text = json.dumps(value)
    except (RecursionError, ValueError):
        text = "[]"
    pattern = json.dumps(DEEP)[1:-1].replace("\\", "\\\\")
    deep = re.compile(f'"{pattern}(\\d+)"')
    return deep.sub(lambda found: "[" * int(found[1]) + "]" * int(found[1]), text).encode()


# --- bytes ------------------------------------------------------------------------------------


@st.composite
def changed_bytes(draw: Draw, seeds: list[bytes], most: int = 6, until: int = 1 << 20) -> bytes:
    """One of some files with one to `most` changes, most of them within its first `until`."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, most))):
        end = min(len(data), until)
        place = draw(st.integers(0, end)) if draw(st.booleans()) else draw(_early(end))
        kind = draw(st.sampled_from(("flip", "set", "number", "cut", "gone", "again", "new")))
        length = draw(st.sampled_from((1, 2, 4, 8, 33, 500)))
        if kind == "flip" and place < len(data):
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            data[place : place + 1] = bytes([draw(st.sampled_from((0, 1, 127, 128, 255)))])
        elif kind == "number":
            data[place : place + 8] = draw(packed_numbers())
        elif kind == "cut" and draw(st.integers(0, 3)) == 0:
            del data[place:]
        elif kind == "gone":
            del data[place : place + length]
        elif kind == "again":
            data[place:place] = data[place : place + length]
        elif kind == "new":
            data[place:place] = draw(st.binary(min_size=1, max_size=16))
    return bytes(data)


def _early(end: int) -> st.SearchStrategy[int]:
    """A place in a file's head, where its sizes stand."""
    return st.integers(0, min(end, 96))


@st.composite
def packed_numbers(draw: Draw) -> bytes:
    """A whole number that programs trip over, in either byte order and any width."""
    whole = [n for n in NUMBERS if isinstance(n, int)]
    width = draw(st.sampled_from((1, 2, 4, 8)))
    number = draw(st.sampled_from(whole)) % (1 << (8 * width))
    return number.to_bytes(width, draw(st.sampled_from(("little", "big"))))


# --- pictures ---------------------------------------------------------------------------------

SIDES = (0, 1, 2, 3, 255, 256, 4096, 10_000, 30_000, 65_500, 65_535, 2**31 - 1, 2**32 - 1)


@st.composite
def changed_picture(draw: Draw, seeds: list[bytes]) -> bytes:
    """A picture whose bytes or header fields were changed; a PNG's checks are right again."""
    data = draw(st.sampled_from(seeds))
    if draw(st.booleans()):
        data = draw(changed_bytes([data]))
    if draw(st.booleans()):
        data = draw(_changed_header(data))
    return resealed(data) if draw(st.integers(0, 3)) else data


@st.composite
def _changed_header(draw: Draw, data: bytes) -> bytes:
    """Another number in one or two fields of the header."""
    fields = list(header_fields(data))
    for _ in range(draw(st.integers(1, 2)) if fields else 0):
        place, code = draw(st.sampled_from(fields))
        size = struct.calcsize(code)
        number = draw(st.sampled_from(SIDES)) % (1 << (8 * size))
        if place + size <= len(data):
            data = data[:place] + struct.pack(code, number) + data[place + size :]
    return data


def header_fields(data: bytes) -> Iterator[tuple[int, str]]:
    """Places of numbers in a picture's header, and how `struct` writes each."""
    if data[:4] == b"\x89PNG":
        yield from ((16, ">I"), (20, ">I"), (24, "B"), (25, "B"), (26, "B"), (28, "B"))
    elif data[:2] == b"BM":
        yield from ((10, "<I"), (14, "<I"), (18, "<I"), (22, "<I"), (28, "<H"), (30, "<I"))
        yield (46, "<I")
    elif data[:4] == b"II*\0":
        yield from _tiff_fields(data)
    elif data[:2] == b"\xff\xd8":
        for marker in (b"\xff\xc0", b"\xff\xc2"):
            if (place := data.find(marker)) > 0:
                yield from ((place + 5, ">H"), (place + 7, ">H"), (place + 9, "B"))
    elif data[:3] == b"GIF":
        yield from ((6, "<H"), (8, "<H"))
    elif data[:4] == b"RIFF":
        yield from ((4, "<I"), (16, "<I"), (26, "<H"), (28, "<H"))


def _tiff_fields(data: bytes) -> Iterator[tuple[int, str]]:
    """Tag, kind, count and value of each entry of a TIFF's first directory."""
    if len(data) < 8:  # it was cut within its head
        return
    (start,) = struct.unpack_from("<I", data, 4)
    if start + 2 > len(data):
        return
    (count,) = struct.unpack_from("<H", data, start)
    for place in range(start + 2, min(start + 2 + 12 * count, len(data) - 12), 12):
        yield from ((place, "<H"), (place + 2, "<H"), (place + 4, "<I"), (place + 8, "<I"))


def resealed(data: bytes) -> bytes:
    """A PNG with right checksums: of a chunk with a wrong one readers see nothing else."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return data
    out, place = data[:8], 8
    while place + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        body = data[place + 4 : place + 8 + length]
        out += data[place : place + 4] + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + length
    return out
