"""A long run in stages: each is done, not run or failed, and the others go on.

next: base/command_line.py
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from .errors import InputError

State = Literal["done", "not run", "failed"]


class NotRun(Exception):
    """A stage cannot run here, which is no failure; the message says why and what to do."""


class Failed(Exception):
    """A stage ran and went wrong in a way it knows; the message says how."""


@dataclass(frozen=True)
class Stage:
    """How a stage went. `words`: what its work returned, or why there is nothing."""

    name: str
    state: State
    seconds: float
    words: Any


def in_one_line(error: Exception) -> str:
    """An error nobody foresaw: its kind and message; the traceback goes to stderr."""
    traceback.print_exception(error)
    return f"{type(error).__name__}: {error}"


def perform(
    name: str,
    work: Callable[[], Any],
    needs: Iterable[str] = (),
    before: Iterable[Stage] = (),
    explain: Callable[[Exception], str] = in_one_line,
) -> Stage:
    """Do a stage's work if the stages it `needs` are done among those `before`.

    Args:
        explain: turns an error that is neither `Failed` nor `InputError` into words.
    """
    start = time.perf_counter()
    state: State = "done"
    done = {stage.name for stage in before if stage.state == "done"}
    missing = [need for need in needs if need not in done]
    try:
        if missing:
            raise NotRun(f"needs the stage {missing[0]}")
        words = work()
    except NotRun as reason:
        state, words = "not run", str(reason)
    except (Failed, InputError) as error:
        state, words = "failed", str(error)
    except Exception as error:
        state, words = "failed", explain(error)
    return Stage(name, state, time.perf_counter() - start, words)
