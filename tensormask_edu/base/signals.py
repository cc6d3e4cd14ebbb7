"""Asked to end: what is at work is done or not begun, and then the program ends.

next: base/values.py
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# By Ctrl-C, by a scheduler or `kill`, by a terminal that was closed.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


@contextmanager
def interrupts(noted: Callable[[], None]) -> Iterator[None]:
    """A signal of `SIGNALS` calls `noted`, so that a step is done or not begun.

    A second Ctrl-C stops at once; all but Ctrl-C end the program when the work is left. What
    is ignored stays ignored, as `nohup` wants it.

    Raises:
        SystemExit: 128 + the signal's number, as shells call a process that it ended.
    """
    if threading.current_thread() is not threading.main_thread():  # where no signal arrives
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    before = {n: each for n, each in before.items() if each not in (signal.SIG_IGN, None)}
    ending: list[int] = []

    def note(number: int, _: Any) -> None:
        if number == signal.SIGINT:
            signal.signal(number, before[number])  # for the second one
        else:
            ending.append(number)
        noted()

    for number in before:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, each in before.items():
            signal.signal(number, each)
    if ending:
        raise SystemExit(128 + ending[0])
