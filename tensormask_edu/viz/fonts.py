"""Names of files and classes in any script, drawn with a font that has their signs.

next: viz/images.py
"""

from __future__ import annotations

from functools import lru_cache

from ..base.errors import warn_once

MAIN = "DejaVu Sans"  # matplotlib brings it
NO_SIGNS = "Last Resort"  # a font of empty boxes


def drawable(text: str) -> str:
    """The text as it is, "$" too, if a font of this machine has its signs.

    What is missing is spelled out.

    To be called where a picture is drawn in our style (`look.styled`): a font that is needed
    joins its fonts.
    """
    import matplotlib

    text = text.replace("$", r"\$")  # no formula begins there, as in ticks
    missing = frozenset(sign for sign in text if sign != "\n" and not _has(MAIN, sign))
    if not missing:
        return text
    if font := _font_with(missing):
        families = [name for name in matplotlib.rcParams["font.family"] if name != "sans-serif"]
        matplotlib.rcParams["font.family"] = list(dict.fromkeys([MAIN, *families, font]))
        return text
    warn_once("font", f"no font here has all signs of {text!r}; what is missing is spelled out")
    return "".join(_spelled(sign) if sign in missing else sign for sign in text)


def _spelled(sign: str) -> str:
    return sign.encode("unicode_escape").decode()


@lru_cache
def _font_with(signs: frozenset[str]) -> str:
    """The name of an upright font with all of these signs, "" if there is none."""
    from matplotlib.font_manager import fontManager

    upright = [font for font in fontManager.ttflist if font.style == "normal"]
    for name in dict.fromkeys(font.name for font in upright):
        if not name.startswith(NO_SIGNS) and all(_has(name, sign) for sign in signs):
            return name
    return ""


@lru_cache(maxsize=4096)
def _has(font: str, sign: str) -> bool:
    from matplotlib.font_manager import findfont, get_font

    if not sign.isprintable():  # control characters, halves of surrogate pairs
        return False
    try:
        return get_font(findfont(font, fallback_to_default=False)).get_char_index(ord(sign)) > 0
    except (OSError, RuntimeError, ValueError):  # a broken font file
        return False
