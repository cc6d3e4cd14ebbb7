"""Published weights are pickles, and a pickle is a program that may call what it names.

This reader lets it name eight functions, all defined here, which build NumPy arrays of numbers
and plain containers. Four walls, each enough for a known trick:

- every opcode is looked at before the first one runs: none that asks for a class by number or
  calls `__new__`, no memo slot beyond the file's own length (a large one would fill the
  memory);
- a global outside the eight is an error, and what stands for one of them is not NumPy's
  function but ours, and no attribute of it can be set;
- an array is made from bytes of exactly its size, of a dtype of `NUMBERS`: no objects, no
  structures;
- what is made in all is no larger than what the file holds: no string becomes a thousand
  arrays.

PyTorch's own archives are read by PyTorch, which runs nothing of them either.

next: base/files.py
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..base.errors import InputError, bad_input

NUMBERS = {f"{kind}{size}" for kind in "fiu" for size in (1, 2, 4, 8)} - {"f1"} | {"b1", "bool"}
REFUSED = {"EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"}
REFUSED |= {"NEXT_BUFFER", "READONLY_BUFFER"}
LARGEST_NDIM = 64  # NumPy's own


class Refused(pickle.UnpicklingError):
    """The file asks for something that weights do not need."""


def read_pickled(path: str | Path) -> Any:
    """What a pickle holds, if that is arrays of numbers, plain containers, numbers and strings.

    Strings of Python 2 are read as Latin-1, as its NumPy wrote bytes into them.

    Raises:
        InputError: no such file, cut off, or anything in it that weights do not need; nothing
            was executed.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise bad_input("weights", "a readable file", f"{path} ({error.strerror})") from None
    try:
        _look_through(data)
        return _finished(_Reader(data).load(), {})
    except Refused as error:
        fix = "nothing of it was executed; do not load it elsewhere unless you trust its origin"
        raise InputError(f"weights: {path} {error}; {fix}") from None
    except Exception as error:  # whatever a broken stack machine may say
        got = f"{path} ({type(error).__name__}: {error})"
        raise bad_input("weights", "a whole pickle of arrays", got, "fetch it again") from None


def read_archive(path: str | Path, argument: str) -> Any:
    """What a `.pth` or `.pt` of PyTorch holds: tensors and plain values.

    PyTorch's reader runs nothing of the file, and makes nothing that is larger than the records
    in it, so it is enough to refuse records that become larger when they are unpacked: PyTorch
    writes none.

    Raises:
        InputError: a broken file, or one with anything else in it.
    """
    import torch

    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(record.compress_type for record in archive.infolist()):
                    raise Refused("a packed record")
        with warnings.catch_warnings():  # what it says of sparse tensors helps nobody
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of a broken file PyTorch's reader raises anything
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        if "Weights only load failed" in reason:  # the rest advises to run what is in the file
            reason = "it holds more than weights, or is cut off"
        expected, got = "a whole file of tensors and nothing else", f"{path} ({reason})"
        fix = "nothing of it was executed"
        if argument == "weights":
            fix += "; torch.save(model.state_dict(), FILE) makes such a file"
        raise bad_input(argument, expected, got, fix) from None


# --- the first wall: before anything runs -----------------------------------------------------


def _look_through(data: bytes) -> None:
    """Refuses opcodes that weights do not need, and memo slots that no file fills."""
    count = 0
    for opcode, argument, _ in pickletools.genops(data):
        count += 1
        if opcode.name in REFUSED:
            raise Refused(f"uses the pickle opcode {opcode.name}, which weights do not need")
        if isinstance(argument, int) and "PUT" in opcode.name and not 0 <= argument <= count:
            raise Refused(f"puts something into memo slot {argument} after {count} steps")


# --- the reader: eight names, sizes that fit, a budget ----------------------------------------


class _Reader(pickle.Unpickler):
    """Finds eight names, each a stand-in of its own, and nothing else."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        # Bytes that may still be made: strings are encoded once, arrays are copied once.
        self.left = 2 * len(data)
        array, numeric = "numpy.core.multiarray", "numpy.core.numeric"
        self.ndarray = _Call(self.reconstruct)  # only ever compared with
        self.allowed = {
            (array, "_reconstruct"): _Call(self.reconstruct),
            (array, "scalar"): _Call(self.scalar),
            (numeric, "_frombuffer"): _Call(self.array),
            ("numpy", "ndarray"): self.ndarray,
            ("numpy", "dtype"): _Call(_Dtype),
            ("_codecs", "encode"): _Call(self.encode),
            ("__builtin__", "bytes"): _Call(self.no_bytes),  # how old protocols write b""
            ("collections", "OrderedDict"): _Call(self.dictionary),
        }

    def find_class(self, module: str, name: str) -> Any:
        """What pickle asks for every global; NumPy 2 calls its own `numpy._core`."""
        module = module.replace("numpy._core", "numpy.core")
        if (module, name) not in self.allowed:
            raise Refused(f"wants to use {module}.{name}, which weights do not need")
        return self.allowed[module, name]

    def pay(self, count: int) -> None:
        """Take what is about to be made off what may be made."""
        self.left -= count
        if self.left < 0:
            raise Refused("would become larger than it is")

    def reconstruct(self, kind: Any, *_: Any) -> _Array:
        if kind is not self.ndarray:
            raise Refused("makes an array of a class of its own")
        return _Array(self)

    def array(self, data: Any, dtype: Any, shape: Any, order: str) -> _Array:
        if isinstance(data, str):  # bytes of Python 2
            data = data.encode("latin1")
        if not isinstance(data, bytes | bytearray) or not isinstance(dtype, _Dtype):
            made_of = type(data).__name__
            raise Refused(f"holds an array made of a {made_of}, not of the bytes of numbers")
        if len(shape) > LARGEST_NDIM or not all(
            type(extent) is int and extent >= 0 for extent in shape
        ):
            raise Refused("holds an array of impossible shape")
        kind = dtype.numpy()
        if math.prod(shape) * kind.itemsize != len(data):
            got = f"shape {tuple(shape)} with {len(data)} bytes of {kind}"
            raise Refused(f"holds an array of {got}")
        self.pay(len(data))
        flat = np.frombuffer(data, kind) if data else np.empty(0, kind)
        shaped = flat.reshape(shape, order="F" if order == "F" else "C")
        found = _Array(self)
        # a copy, in this machine's byte order: nothing keeps the file's bytes
        found.value = np.array(shaped, dtype=kind.newbyteorder("="), order="C")
        return found

    def scalar(self, dtype: Any, data: Any) -> Any:
        return self.array(data, dtype, (), "C").value.item()

    def encode(self, text: Any, encoding: Any) -> bytes:
        if _text(encoding) not in ("latin1", "latin-1"):
            raise Refused(f"uses the encoding {encoding[:20]!r}")
        self.pay(len(_text(text)))
        return text.encode("latin1")

    def no_bytes(self) -> bytes:
        return b""

    def dictionary(self, pairs: Any = ()) -> dict[Any, Any]:
        self.pay(len(pairs))
        return dict(pairs)


# --- what stands for NumPy's names ------------------------------------------------------------


class _Call:
    """A function whose attributes a pickle cannot set."""

    __slots__ = ("function",)
    function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        # past our own `__setattr__`, which refuses everybody else
        object.__setattr__(self, "function", function)

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __setattr__(self, name: str, value: object) -> None:
        raise Refused(f"sets the attribute {name} of a function")

    def __setstate__(self, state: object) -> None:
        raise Refused("sets the state of a function")


class _Dtype:
    """Stands for numpy.dtype: `code` such as "f4" and, from its state, the byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = _text(code).lstrip("<>|="), "="
        if self.code not in NUMBERS:
            raise Refused(f"holds an array of dtype {self.code[:20]!r}, which is no number")

    def __setstate__(self, state: Any) -> None:
        self.order = _text(state[1])

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.code).newbyteorder(self.order)  # type: ignore[arg-type]


class _Array:
    """Stands for numpy.ndarray until its state arrives; `value` is the array."""

    __slots__ = ("reader", "value")
    value: np.ndarray

    def __init__(self, reader: _Reader) -> None:
        self.reader = reader

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.value = self.reader.array(data, dtype, shape, "F" if fortran else "C").value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Refused(f"has a {type(value).__name__} where a word belongs")
    return value


# --- what comes out ---------------------------------------------------------------------------


def _finished(value: Any, done: dict[int, Any]) -> Any:
    """The arrays themselves, where they stand in containers.

    done: by id what was visited. What is shared in the file is shared in what comes out, so a
    short file stays short.
    """
    if id(value) not in done:
        done[id(value)] = _plain(value, done)
    return done[id(value)]


def _plain(value: Any, done: dict[int, Any]) -> Any:
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        return {_finished(key, done): _finished(item, done) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_finished(item, done) for item in value)
    if not isinstance(value, str | bytes | int | float | None):
        raise Refused(f"holds a {type(value).__name__.strip('_').lower()} in place of a value")
    return value
