"""Where an answer read: each of its values looked up among unique values of the input.

    out[0, 0] should be aligned[0, 0, 1, 2]; yours is aligned[1, 2, 1, 2].
    out[0, 0] should be pad_value; yours is 0.

Where an entry is a mixture, as of bilinear interpolation, its weights are found: the answer
runs on inputs that are 1 in a single entry. Weights that do not give the answer's own value
back are not told.

next: learn/trials.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]
Run = Callable[[tuple[Any, ...]], Any]  # from arguments to numbers, or None
Place = tuple[int, ...]
EXACT = 1e-5  # the values that are looked up lie further apart
MOST_WEIGHTS = 400  # entries of an input whose weights are looked for
TERMS = 3  # weights told


def where_it_read(
    parameters: Sequence[str], args: tuple[Any, ...], right: Run, answer: Run, place: Place
) -> str:
    """What an entry of the result should be, and what it is; "" if that cannot be said.

    parameters: names of the arguments. right, answer: give the results as numbers.
    place: an index of the result.
    """
    probe = with_unique_values(args)
    if probe is None:
        return ""
    expected, yours = right(probe), answer(probe)
    if yours is None or yours.shape != expected.shape:
        return ""
    wanted, given = expected[place], yours[place]
    if abs(wanted - given) <= EXACT:
        return ""  # right on other values of the same shape: it did not read elsewhere
    names = dict(zip(parameters, probe, strict=False))
    origin = source_of_value(wanted, names)
    if origin:
        found = source_of_value(given, names) or _in_numbers(given, yours)
        end = "" if found.endswith("?") else "."
        return f"out{_index(place)} should be {origin}; yours is {found}{end}"
    return _weights(names, probe, (right, answer), place)


def with_unique_values(args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The arguments with other values in arrays of fractions, no two alike; None: no such."""
    rng = np.random.default_rng(1)
    floating = [arg for arg in args if _is_floating(arg)]
    count = sum(arg.size if isinstance(arg, np.ndarray) else arg.numel() for arg in floating)
    if not count:
        return None
    values = (1 + rng.permutation(count)) / (count + 1)
    filled = []
    for arg in args:
        if _is_floating(arg):
            size = arg.size if isinstance(arg, np.ndarray) else arg.numel()
            part, values = values[:size].reshape(tuple(arg.shape)), values[size:]
            arg = _like(arg, part)
        filled.append(arg)
    return tuple(filled)


def _like(arg: Any, values: Array) -> Any:
    """The values in the argument's order in memory."""
    if isinstance(arg, Tensor):
        return torch.empty_like(arg, dtype=torch.float64).copy_(torch.from_numpy(values))
    array = np.empty_like(arg, dtype=np.float64)
    array[...] = values
    return array


def _is_floating(arg: Any) -> bool:
    if isinstance(arg, Tensor):
        return arg.is_floating_point()
    return isinstance(arg, np.ndarray) and arg.dtype.kind == "f"


def source_of_value(value: float, names: Mapping[str, Any]) -> str:
    """The entry of an argument that has this value, or the argument that is it; else ""."""
    for name, arg in names.items():
        if _is_floating(arg):
            found = np.argwhere(np.abs(np.asarray(arg) - value) <= EXACT)
            if len(found):
                return f"{name}{_index(tuple(int(i) for i in found[0]))}"
    pad = names.get("pad_value")
    return "pad_value" if pad is not None and abs(pad - value) <= EXACT else ""


def _in_numbers(value: float, all_of_them: Array) -> str:
    if value == 0 and np.any(all_of_them % 1):
        return "0"
    if all_of_them.size > 1 and not np.any(all_of_them % 1):
        return f"{value:g}, and no value of yours has a fraction: an array of whole numbers?"
    return f"{value:.4g}, which is no entry of the input"


def _weights(
    names: Mapping[str, Any], args: tuple[Any, ...], runs: tuple[Run, Run], place: Place
) -> str:
    """The first entries whose weights differ, for a result that is a mixture of entries."""
    (name, number) = next((n, i) for i, (n, a) in enumerate(names.items()) if _is_floating(a))
    if "pad_value" not in names or args[number].size > MOST_WEIGHTS:
        return ""
    right, given = (_weights_of(run, args, number, place) for run in runs)
    if right is None or given is None:
        return ""
    gap = np.abs(right - given)
    told = [int(k) for k in np.argsort(-gap, kind="stable") if gap[k] > EXACT][:TERMS]
    words = [
        f"{_entry(name, k, args[number].shape)} weighs {given[k]:.4g} and should {right[k]:.4g}"
        for k in told
    ]
    return f"In out{_index(place)} " + "; ".join(words) + "." if words else ""


def _entry(name: str, number: int, shape: tuple[int, ...]) -> str:
    if number == np.prod(shape):
        return "pad_value"
    return f"{name}{_index(tuple(int(i) for i in np.unravel_index(number, shape)))}"


def _weights_of(run: Run, args: tuple[Any, ...], number: int, place: Place) -> Array | None:
    """Weights of every entry and, last, of the pad; None if the result is no such sum.

    The units go in as images of one batch: one call, as the first axes are N.
    """
    (first, *rest), pad = args[number].shape, len(args) - 1
    if first != 1:
        return None
    count = args[number].size
    units, nothing = np.eye(count).reshape(count, *rest), np.zeros((1, *rest))
    results = [
        run((*args[:number], x, *args[number + 1 : pad], pad_value))
        for x, pad_value in ((units, 0.0), (nothing, 1.0), (args[number], args[pad]))
    ]
    if any(result is None or result.shape[1:] != results[2].shape[1:] for result in results):
        return None
    of_units, of_pad, whole = (result[(slice(None), *place[1:])] for result in results)
    total = of_units @ args[number].ravel() + of_pad[0] * args[pad]
    return np.append(of_units, of_pad) if abs(total - whole[0]) <= EXACT else None


def _index(place: Place) -> str:
    return f"[{', '.join(map(str, place))}]"
