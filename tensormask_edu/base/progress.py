"""Progress: tqdm's bar on a terminal, elsewhere a line every so often.

next: base/distributed.py
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

EVERY_S = 30.0  # between two lines in a log


class Progress(tqdm):  # type: ignore[type-arg]
    """tqdm, but that a file or a pipe gets a line now and then, and one at the end."""

    leave: bool | None
    fp: Any

    @staticmethod
    def status_printer(file: Any) -> Callable[[str], None]:
        """What shows a line of progress in `file`."""
        if file.isatty():
            show: Callable[[str], None] = tqdm.status_printer(file)
            return show
        shown_at = time.monotonic()

        def show_sometimes(words: str) -> None:
            nonlocal shown_at
            if words.strip() and time.monotonic() - shown_at >= EVERY_S:
                file.write(f"{words.strip()}\n")
                file.flush()
                shown_at = time.monotonic()

        return show_sometimes

    def close(self) -> None:
        """End; in a file with a line of its own, where a terminal keeps the bar."""
        if not self.disable and not self.fp.isatty():
            if self.leave:
                self.fp.write(f"{self}\n")
            self.leave, self.fp = False, io.StringIO()  # nothing of a terminal's to clear
        super().close()
