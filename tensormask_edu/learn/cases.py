"""A grammar of shapes that makes the calls an answer is tried with.

    "v u h w, <h, <w, pad -> v u"           window_mask(aligned, y, x, pad_value)
    "n v u h w, lam, pad -> n lam*v lam*u h/lam w/lam"
    "<lam*v, lam -> pairs"                  taps(v, lam)

One part per parameter, in order: several sizes are the shape of an array ("[k]" of one axis),
`<h` is an index from 0 to h - 1, a size alone is a number, `pad` is the value of what lies
outside, `*` is something else: then every case is written out. A size is a letter, a number
or letters with * + - and /, which rounds up. Behind the arrow stands the shape of the answer;
`pairs` is a list of (index, weight), and then the first index runs over its whole range in
every case.

Every array holds unique values between 0 and 1, none of them whole, so that each value of an
answer can be looked up (`reading.py`).

next: learn/common.py
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]
Sizes = Mapping[str, int]
AXIS_NAMES = {"h": "y", "w": "x"}  # an index along H is called y
PAIRS = "pairs"
KINDS = {"pad": "pad", "*": "other"}  # parts that are one word


# --- the grammar ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """What one parameter gets. kind: "array", "index", "size", "pad" or "other"."""

    kind: str
    sizes: tuple[str, ...] = ()

    def shape(self, sizes: Sizes) -> tuple[int, ...]:
        """The part's sizes as numbers."""
        return tuple(size_of(words, sizes) for words in self.sizes)

    @property
    def axes(self) -> str:
        """Names of an array's indices, "v u y x"."""
        return " ".join(AXIS_NAMES.get(words[0], words[0]) for words in self.sizes)


@dataclass(frozen=True)
class Grammar:
    """The parameters of an exercise's function, and what it returns."""

    parts: tuple[Part, ...]
    result: tuple[str, ...]

    @property
    def letters(self) -> set[str]:
        """The sizes that have to be chosen."""
        return {
            letter
            for part in self.parts
            for words in part.sizes
            for letter in re.findall(r"[a-z_]+", words)
        }

    @property
    def swept(self) -> int | None:
        """The parameter that runs over its whole range, where the answer is `pairs`."""
        kinds = [part.kind for part in self.parts]
        return kinds.index("index") if self.result == (PAIRS,) else None


def parse(text: str) -> Grammar:
    """A grammar from its text.

    Raises ValueError where there is not one arrow.
    """
    before, arrow, after = text.partition("->")
    if not arrow:
        raise ValueError(f"grammar: expected '... -> ...', got {text!r}")
    return Grammar(tuple(map(_part, before.split(","))), tuple(after.split()))


def _part(text: str) -> Part:
    words = text.strip()
    if words in KINDS:
        return Part(KINDS[words])
    if words.startswith("<"):
        return Part("index", (words[1:],))
    sizes = tuple(words.strip("[]").split())
    return Part("array" if words.startswith("[") or len(sizes) > 1 else "size", sizes)


def size_of(words: str, sizes: Sizes) -> int:
    """A size as a number: `h+v-1`, `lam*v`, `h/lam` (rounded up)."""
    total = 0
    for sign, term in re.findall(r"([+-]?)([^+-]+)", words):
        value = 1
        for operator, factor in re.findall(r"([*/]?)([a-z_]+|\d+)", term):
            number = int(factor) if factor.isdigit() else sizes[factor]
            value = -(-value // number) if operator == "/" else value * number
        total += -value if sign == "-" else value
    return total


# --- cases ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Case:
    """One call that is tried.

    name: of the paragraph that says what is tried, `### case: NAME`.
    make: gives the arguments, new ones each time: an answer may write into them.
    numbers: for the words in braces of the paragraph.
    required: whether an answer that fails here is wrong; if not, it is told and passes.
    """

    name: str
    make: Callable[[], tuple[Any, ...]]
    numbers: Mapping[str, Any] = field(default_factory=dict)
    required: bool = True


def case_of(name: str, args: tuple[Any, ...], **numbers: Any) -> Case:
    """A case of arguments written out."""
    return Case(name, lambda: copy.deepcopy(args), numbers)


@dataclass(frozen=True)
class Row:
    """A line of the plan: the sizes of a case and what is unusual about it.

    about: the letters that its name speaks of; without one of them it is called something else.
    """

    name: str
    sizes: Mapping[str, int]
    pad: float = -6.0
    place: str = "middle"  # of an index: "middle", "first", "last" or "corner"
    memory: str = ""  # "permuted" or "slice"
    dtype: type = np.float64
    required: bool = True
    about: str = ""


# The first that fails is told, so they go from small to strange.
PLAN = (
    Row("small", {"n": 1, "v": 3, "u": 3, "h": 4, "w": 4}),
    Row("V is not U", {"n": 1, "v": 3, "u": 5, "h": 6, "w": 6}, about="vu"),
    Row("V is not U", {"n": 1, "v": 5, "u": 3, "h": 6, "w": 6}, about="vu"),
    Row("H is not W", {"n": 1, "v": 3, "u": 3, "h": 5, "w": 8}, about="hw"),
    Row("H is not W", {"n": 1, "v": 3, "u": 3, "h": 8, "w": 5}, about="hw"),
    Row("several images", {"n": 3, "v": 3, "u": 5, "h": 5, "w": 7}, about="n"),
    Row("at the border", {"n": 1, "v": 3, "u": 3, "h": 4, "w": 5}, place="first", about="hw"),
    Row("at the border", {"n": 1, "v": 3, "u": 3, "h": 4, "w": 5}, place="last", about="hw"),
    Row("at the border", {"n": 1, "v": 3, "u": 3, "h": 4, "w": 5}, place="corner", about="hw"),
    Row("another pad", {"n": 1, "v": 3, "u": 3, "h": 4, "w": 5}, pad=-1.0, place="first"),
    Row("another pad", {"n": 1, "v": 3, "u": 3, "h": 5, "w": 4}, pad=-1.0, place="last"),
    Row("large windows", {"n": 2, "v": 5, "u": 5, "h": 3, "w": 2}, pad=-1.0, about="vu"),
    Row("one bin", {"n": 2, "v": 1, "u": 1, "h": 2, "w": 3}, about="vu"),
    Row("order in memory", {"n": 2, "v": 3, "u": 5, "h": 4, "w": 6}, memory="permuted"),
    Row("a slice", {"n": 2, "v": 3, "u": 3, "h": 4, "w": 5}, memory="slice"),
    Row("float32", {"n": 1, "v": 3, "u": 3, "h": 4, "w": 5}, dtype=np.float32),
    Row("no image", {"n": 0, "v": 3, "u": 3, "h": 4, "w": 5}, required=False, about="n"),
)


def cases(
    grammar: Grammar,
    parameters: Sequence[str],
    sizes: Mapping[str, Sequence[int]],
    as_tensor: bool = False,
) -> Iterator[Case]:
    """The cases of a grammar: every row of the plan that is new for it.

    parameters: their names. sizes: letter -> values that take turns, before the plan's own.
    """
    if any(part.kind == "other" for part in grammar.parts):
        return
    seen = set()
    for number, row in enumerate(PLAN):
        chosen = {
            letter: sizes[letter][number % len(sizes[letter])]
            if letter in sizes and not (letter == "n" and row.sizes["n"] == 0)
            else row.sizes[letter]
            for letter in grammar.letters
        }
        key = _what_is_new(grammar, row, chosen)
        if key not in seen:
            seen.add(key)
            yield _case(grammar, parameters, _called(row, grammar), chosen, as_tensor)


def _called(row: Row, grammar: Grammar) -> Row:
    """The row under a name that is true of a grammar."""
    kinds = {part.kind for part in grammar.parts}
    needs = {"at the border": "index", "another pad": "pad"}.get(row.name)
    told = needs in kinds if needs else not row.about or grammar.letters & set(row.about)
    return row if told else replace(row, name="other sizes")


def _what_is_new(grammar: Grammar, row: Row, chosen: Sizes) -> tuple[Any, ...]:
    """What sets a row apart for a grammar: a pad counts where there is one, and so on."""
    kinds = [part.kind for part in grammar.parts]
    return (
        tuple(sorted(chosen.items())),
        row.pad if "pad" in kinds else None,
        row.place if kinds.count("index") > (grammar.swept is not None) else None,
        (row.memory, row.dtype) if "array" in kinds else None,
    )


def _case(
    grammar: Grammar, parameters: Sequence[str], row: Row, chosen: Sizes, as_tensor: bool
) -> Case:
    def make() -> tuple[Any, ...]:
        rng = np.random.default_rng(0)
        args = []
        for number, part in enumerate(grammar.parts):
            if part.kind == "array":
                values: Array = unique(part.shape(chosen), rng).astype(row.dtype)
                args.append(stored(values, row.memory, as_tensor))
            elif part.kind == "pad":
                args.append(row.pad)
            elif part.kind == "index" and number == grammar.swept:
                args.append(range(*part.shape(chosen)))
            elif part.kind == "index":
                args.append(_index(part.shape(chosen)[0], row.place, number))
            else:
                args.append(part.shape(chosen)[0])
        return tuple(args)

    numbers = {"arguments": arguments_in_words(parameters, make(), grammar)}
    return Case(row.name, make, numbers, row.required)


def _index(extent: int, place: str, number: int) -> int:
    """An index of the row's place; "corner": the first of one axis, the last of the next."""
    middle = extent // 2 - number % 2 * (extent > 3)  # of two axes not the same
    is_last = place == "last" or (place == "corner" and number % 2 == 0)
    return {"middle": middle}.get(place, extent - 1 if is_last else 0)


def unique(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Values between 0 and 1, no two of them equal, in no order that a mistake could follow."""
    count = math.prod(shape)
    return (1 + rng.permutation(count)).reshape(shape) / (count + 1)


def stored(values: Array, memory: str, as_tensor: bool) -> Any:
    """The same values as an array or a tensor, laid out in memory another way."""
    if memory == "permuted":
        values = np.ascontiguousarray(values.T).T
    whole = np.concatenate([np.zeros_like(values), values]) if memory == "slice" else values
    held = torch.from_numpy(whole) if as_tensor else whole
    return held[len(whole) - len(values) :]  # a slice begins in the middle of its memory


def arguments_in_words(
    parameters: Sequence[str], args: tuple[Any, ...], grammar: Grammar | None = None
) -> str:
    """Arguments as a learner reads them: "aligned of shape (3, 3, 4, 4), y = 2, x = 1"."""
    words = []
    for number, (name, value) in enumerate(zip(parameters, args, strict=False)):
        if isinstance(value, np.ndarray | Tensor):
            axes = grammar.parts[number].sizes if grammar else ()
            names = f" ({', '.join(axes).upper()}) =" if axes else ""
            words.append(f"{name} of shape{names} {tuple(value.shape)}")
        elif isinstance(value, range):
            words.append(f"{name} from 0 to {value.stop - 1}")
        else:
            words.append(
                f"{name} = {value:g}" if isinstance(value, float) else f"{name} = {value}"
            )
    return ", ".join(words)
