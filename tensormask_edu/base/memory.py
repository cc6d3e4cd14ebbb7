"""No memory left: which work wanted it, and which option makes it smaller.

next: base/threads.py
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .errors import InputError

# What allocators say that have no exception of their own: PyTorch's of the CPU, C++'s, CUDA's
# libraries, ONNX Runtime's, oneDNN's
_SAID = re.compile(
    r"can't allocate memory|out of memory|bad_alloc|(STATUS_|_)ALLOC_FAILED|"
    r"[Ff]ailed to allocate memory|Cannot allocate memory|"
    r"could not create a (primitive|memory object)$",
    re.M,
)
_WANTED = re.compile(r"(?:allocate|size:?) ([\d.]+ ?(?:[KMGT]iB|bytes|(?=\D|$)))")


class OutOfMemory(InputError):
    """The work is too large for this machine: it names the work and what makes it smaller."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of the CPU or of a GPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True  # PyTorch's, of a GPU
    # ONNX Runtime's errors are of no kind of Python's.
    foreign = type(error).__module__.startswith("onnxruntime")
    known = isinstance(error, RuntimeError | OSError) or foreign
    return known and bool(_SAID.search(str(error)))


def in_a_line(error: BaseException) -> str:
    """What ran out, and how much was asked for last, where the error says so."""
    words = str(error)
    where = "of the GPU" if "CUDA" in words or "GPU" in words else "of the CPU"
    wanted = _WANTED.search(words)
    return f"memory {where} ran out" + (f" at {wanted[1].strip()} more" if wanted else "")


@contextmanager
def room_for(work: str, fix: str, save: Callable[[], object] | None = None) -> Iterator[None]:
    """Do a piece of work; where memory runs out, say which one it was and what to do.

    Args:
        work: what was done, with its sizes: "step 7: 4 pictures of up to 800 x 1344 px".
        fix: the option that makes it smaller.
        save: done before the error is raised, and told in it.

    Raises:
        OutOfMemory: in place of whatever PyTorch, NumPy or another library raised.
    """
    try:
        yield
        return
    except Exception as error:
        if not is_out_of_memory(error) or isinstance(error, OutOfMemory):
            raise
        words = f"{work}: {in_a_line(error)}; {fix}"
    # The error is gone by now, and with it the tensors that its traceback held.
    if save is not None:
        save()
        words += "; what was learnt before is saved"
    raise OutOfMemory(words)
