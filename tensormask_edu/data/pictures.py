"""A picture file as pixels: orientation, colours, bits, values that are none.

Needs no torch; the exporter reads pictures with it too.

next: data/prepare.py
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..base.errors import InputError, bad_input, warn_once

Pixels = NDArray[np.uint8]  # (3, H, W) RGB
Values = NDArray[Any]  # (H, W) or (H, W, 3), as stored

# How stored pixels (H, W, ...) are turned upright, by EXIF's number
TURNS: dict[int, Callable[[Any], Any]] = {
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}
BACK = {6: 8, 8: 6}  # what turns them back; the others undo themselves

# TIFF's tags
PHOTOMETRIC, ORIENTATION, NO_DATA = 262, 274, 42113
WHITE_IS_ZERO = 0

# What is read: no kind for which Pillow starts another program, as it does for PostScript
KINDS = ("PNG", "JPEG", "TIFF", "BMP", "DIB", "WEBP", "GIF", "PPM", "JPEG2000", "TGA")
# A file of some kilobytes may say that it holds more pixels than the memory. So many, or a
# quarter where a colour has more than 8 bits, take up to 2 GiB.
LARGEST_PX = 2**29 // 3

# The outermost thousandth of the values on each side counts as outliers, if the picture's range
# is more than four times that of the others.
OUTLIERS, STRETCHED = 1000, 4


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> Pixels:
    """A picture file as uint8 (3, H, W) RGB.

    It is turned upright as its EXIF orientation says, as viewers show it, unless only the
    pixels as stored have the annotated `size`. Grey and palette become RGB, transparency is
    ignored. Pictures of more than 8 bits are scaled from their own range to 0..255, all colours
    alike; outliers, no-data and what is no number do not stretch it. Of several frames the
    first is read.

    Nothing but `KINDS` is read, and nothing larger than `LARGEST_PX`.

    Args:
        size: (height, width) by which a data set's annotations know the picture.

    Raises:
        InputError: no such file, none that Pillow reads, or one that is too large.
    """
    path = Path(path)
    if not path.is_file():
        raise bad_input("image", "an existing file", path, "check the path")
    try:
        with warnings.catch_warnings():
            # Pillow warns of half of our limit, and of broken notes about the camera, which
            # change no pixel
            warnings.filterwarnings("ignore", module=r"PIL\.")
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            pixels = _upright(path, size)  # (H, W, 3)
    except InputError:
        raise
    except Exception as error:  # of a broken file Pillow's readers raise anything
        reason = str(error) or type(error).__name__
        raise bad_input("image", "a picture that Pillow reads", f"{path} ({reason})") from None
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))  # (3, H, W)


def _upright(path: Path, size: tuple[int, int] | None) -> Values:
    """The pixels uint8 (H, W, 3), turned as `read_image` says."""
    with Image.open(path, formats=KINDS) as opened:
        tags = dict(getattr(opened, "tag_v2", {}))  # a TIFF's; Pillow turns it while it loads
        deep = _deep_mode(opened)
        _check_size(opened, path, bool(deep))
        opened.load()
        orientation: Any = tags.get(ORIENTATION) or _exif_orientation(opened)
        pixels = _to_rgb(opened, path, tags, deep)
    if orientation not in TURNS:
        return pixels
    upright, stored = TURNS[orientation](pixels), pixels
    if tags:
        upright, stored = pixels, TURNS[BACK.get(orientation, orientation)](pixels)
    fits = [size == each.shape[:2] for each in (upright, stored)]
    named = f"{path.name} has EXIF orientation {orientation}"
    if fits == [False, True]:
        warn_once("stored", f"{named}, but was annotated as stored; so it is used, as others")
        return stored
    if fits == [True, True]:
        why = "its size does not say whether it was annotated upright, as is assumed"
        warn_once("upright", f"{named}; {why} of all such pictures")
    return upright


def _exif_orientation(opened: Image.Image) -> Any:
    try:
        return opened.getexif().get(ORIENTATION)
    except Exception:  # what it says of the camera is broken, its pixels are not
        return None


def _check_size(opened: Image.Image, path: Path, deep: bool) -> None:
    """Raise InputError before a pixel is read of a picture that would fill the memory."""
    width, height = opened.size
    most = LARGEST_PX // 4 if deep or opened.mode.startswith(("I", "F")) else LARGEST_PX
    if width * height > most:
        got = f"{path} of {height} x {width}"
        fix = "cut it into parts, or make it smaller"
        raise bad_input("image", f"a picture of at most {most} pixels", got, fix)


# --- colours and bits -------------------------------------------------------------------------


def _to_rgb(picture: Image.Image, path: Path, tags: dict[int, Any], deep: str) -> Values:
    if deep:
        return _scaled(_sixteen_bits(picture, path, deep), path, tags)
    if picture.mode.startswith(("I", "F")):  # grey of 16 and 32 bits, integer or float
        grey = _scaled(np.asarray(picture), path, tags)  # (H, W)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if "transparency" in picture.info:  # a palette with transparent entries
        picture = picture.convert("RGBA")
    return np.array(picture.convert("RGB"))


def _deep_mode(opened: Image.Image) -> str:
    """How 16 bits per colour are packed in the file, "" if it has no such colours."""
    if not (tiles := getattr(opened, "tile", None)):
        return ""
    args = tiles[0][3]
    mode = args if isinstance(args, str) else args[0] if args else ""
    return mode if re.fullmatch("(RGB|RGBA|RGBX|LA);16[BLN]", str(mode)) else ""


def _sixteen_bits(picture: Image.Image, path: Path, mode: str) -> Values:
    """All 16 bits of colours (H, W, 3), of which Pillow gives the upper eight.

    The file is read once more with the bytes the other way round, which gives the lower eight.
    """
    order = mode[-1] if mode[-1] != "N" else {"little": "L", "big": "B"}[sys.byteorder]
    grey = mode.startswith("LA")
    # Two bytes of grey and two of opacity, read as four colours
    other = "RGBA" if grey else mode[:-1] + {"L": "B", "B": "L"}[order]
    with Image.open(path, formats=KINDS) as again:
        again.tile = [_repacked(tile, other) for tile in again.tile]
        lower = np.asarray(again)  # uint8 (H, W, 3 or 4)
    if grey:
        upper, lower = lower[..., :1], lower[..., 1:2]
    else:
        upper, lower = np.asarray(picture)[..., :3], lower[..., :3]
    values = upper.astype(np.uint16) << 8 | lower  # (H, W, 1 or 3)
    return np.repeat(values, 3, axis=2) if grey else values


def _repacked(tile: Any, mode: str) -> Any:
    """Pillow's note of how to decode a part of a file (name, place, offset, arguments)."""
    *head, args = tile
    make = getattr(tile, "_make", tuple)  # a named tuple since Pillow 11.1
    return make((*head, mode if isinstance(args, str) else (mode, *args[1:])))


def _scaled(values: Values, path: Path, tags: dict[int, Any]) -> Values:
    """Values of any range as uint8 of the same shape; black where there is none."""
    kind = np.float32 if values.dtype.itemsize <= 2 else np.float64  # exact for 16 bits
    values = values.astype(np.promote_types(values.dtype, kind))  # changed in place from here
    if NO_DATA in tags:  # as geographers mark it
        values[values == _number(tags[NO_DATA])] = np.nan
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        np.negative(values, out=values)
    finite = np.isfinite(values)
    if not finite.any():
        raise bad_input("image", "a picture with values", f"{path}, all of it no number")
    known = values if finite.all() else values[finite]
    low, high = _range(known.reshape(-1))
    notes = [f"{path.name} has more than 8 bits, {low:g} to {high:g} become 0 to 255"]
    if known.size < values.size:
        notes.append(f"{values.size - known.size} values that are no number are black")
    if (low, high) != (known.min(), known.max()):
        notes.append(f"outliers are cut, values go from {known.min():g} to {known.max():g}")
    if len(notes) > 1 or values.ndim == 3:  # of a grey picture nothing else is expected
        warn_once(f"bits {len(notes)}", f"{'; '.join(notes)}; others alike")
    del known
    with np.errstate(invalid="ignore", over="ignore"):
        values -= low
        values *= 255 / max(high - low, 1e-12)
    np.nan_to_num(values, copy=False, nan=0, posinf=255, neginf=0)
    return values.clip(0, 255, out=values).round(out=values).astype(np.uint8)


def _range(values: Values) -> tuple[float, float]:
    """The lowest and the highest of finite values (n,), outliers left out."""
    low, high = float(values.min()), float(values.max())
    number = -(-len(values) // OUTLIERS)
    if len(values) <= 2 * number:
        return low, high
    places = (number, len(values) - 1 - number)
    inner_low, inner_high = np.partition(values, places)[list(places)].tolist()
    if inner_high > inner_low and high - low > STRETCHED * (inner_high - inner_low):
        return inner_low, inner_high
    return low, high


def _number(text: Any) -> float:
    try:
        return float(str(text).strip("\0 "))
    except ValueError:
        return float("nan")
