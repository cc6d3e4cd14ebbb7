"""Has a value from a JSON file the type that it should have? Types are Python's own hints.

    misfit({"height": "7"}, dict[str, int], "picture")
    # "picture.height: expected a whole number, got '7'"

Numbers are finite and fit in 64 bits: JSON's may be neither. A hint of lists may be a tuple.

next: base/lock.py
"""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

WORDS = {
    int: "a whole number",
    float: "a finite number",
    str: "text",
    bool: "true or false",
    NoneType: "null",
}


def misfit(value: Any, kind: Any, where: str = "value") -> str:
    """The first place that does not fit, as `place: expected ..., got ...`; "" if all does.

    Args:
        kind: int, float, str, bool, None, Literal, a union, list[...], tuple[...],
            dict[str, ...], a TypedDict, whose fields must be there, or a class.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return ""
    if origin in (Union, UnionType):
        fits = any(not misfit(value, part, where) for part in parts)
        return "" if fits else _told(value, kind, where)
    if origin is Literal:
        return "" if value in parts else _told(value, kind, where)
    if origin in (list, tuple) and isinstance(value, list | tuple):
        kinds = [parts[0]] * len(value) if origin is list or parts[-1] is ... else list(parts)
        if len(kinds) != len(value):
            return _told(value, kind, where)
        pairs = enumerate(zip(value, kinds, strict=True))
        return _first(misfit(item, each, f"{where}[{n}]") for n, (item, each) in pairs)
    if is_typeddict(kind) and isinstance(value, dict):
        hints = get_type_hints(kind)
        if missing := sorted(hints.keys() - value.keys()):
            return f"{where}: expected the field {missing[0]!r}, got none"
        return _first(misfit(value[name], hints[name], f"{where}.{name}") for name in hints)
    if origin is dict and isinstance(value, dict):
        return _first(misfit(item, parts[1], f"{where}.{key}") for key, item in value.items())
    return "" if _is_plain(value, kind) else _told(value, kind, where)


def _is_plain(value: Any, kind: Any) -> bool:
    """Whether a value is of a type without parts; True and False are no numbers."""
    if kind is float and type(value) is float:  # so written that NaN does not hold
        return -1e308 < value < 1e308
    if kind in (int, float):  # tensors take no larger whole number, for a float either
        return type(value) is int and abs(value) < 2**63
    if kind in (None, NoneType):
        return value is None
    return isinstance(kind, type) and not is_typeddict(kind) and isinstance(value, kind)


def _first(misfits: Any) -> str:
    return next(filter(None, misfits), "")


def _told(value: Any, kind: Any, where: str) -> str:
    return f"{where}: expected {in_words(kind)}, got {shortened(value)}"


def in_words(kind: Any) -> str:
    """A type for those who do not read Python."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(map(in_words, parts))
    if origin is Literal:
        return " or ".join(map(str, parts))
    if origin is tuple and parts[-1] is not ...:
        return f"a list of {len(parts)}"
    if origin in (list, tuple):
        return f"a list, each {in_words(parts[0])}"
    if origin is dict or is_typeddict(kind):
        return "an object"
    return WORDS.get(kind, getattr(kind, "__name__", str(kind)))


def shortened(value: Any, length: int = 60) -> str:
    """A value in a few characters, however large it is."""
    try:
        return repr(value)[:length]
    except ValueError:  # with an integer of thousands of digits
        return f"a {type(value).__name__}"
