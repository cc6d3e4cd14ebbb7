"""How many threads PyTorch uses on a CPU: tried on the work itself, and tried again.

Two threads on two idle cores are quicker than one. On two busy cores they are several times
slower, because each waits for the other at the end of every operation, and waits by counting.
Which it is cannot be known beforehand, and changes. So the first pieces of work are done with
one thread, then with more, as long as more are quicker; and anew when the work has become
slower, or some time has gone by.

next: base/progress.py
"""

from __future__ import annotations

import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

WARM_UP = 2  # pieces of work before the first trial, while memory and caches settle
TRIES = 3  # pieces with each number of threads; their median counts
GAIN = 1.15  # so much quicker must more threads be: they cost as many times the CPU seconds
SLOWER = 1.6  # so much slower than when it was chosen, and the number is tried again
WATCHED = 8  # pieces, of whose times the median is watched
AGAIN_S = 90.0  # after this too: one thread does not feel that the machine became quiet
HOPELESS = 2.0  # a number this much slower than the best is not tried to the end

PROBE_SHAPE = (4, 48, 32, 32)  # a tower's map of four small pictures


class Threads:
    """The number of threads for many pieces of work of about the same size.

        threads = Threads()
        for piece in work:
            with threads.timed():
                do(piece)

    Args:
        count: this many, nothing is tried; None: tried, unless the environment says
            OMP_NUM_THREADS, which is then kept.
        say: is told in a line what was chosen and why, whenever that changes.
    """

    def __init__(self, count: int | None = None, say: Callable[[str], None] | None = None):
        self.say = say or (lambda words: None)
        self.choices = candidates() if count is None else [count]
        self.wait = WARM_UP
        self.chosen: int | None = None  # None until the first trial has ended
        self.recent: deque[float] = deque(maxlen=WATCHED)
        self._begin()
        if len(self.choices) == 1:
            self._use(self.choices[0])
            self.chosen = self.choices[0]

    @property
    def trying(self) -> bool:
        """Whether the next piece belongs to a trial."""
        return len(self.choices) > 1 and self.tried < len(self.choices)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Do a piece of work with the number of threads that is chosen or being tried."""
        if self.trying:
            self._use(self.choices[self.tried])
        start = time.perf_counter()
        yield
        self.note(time.perf_counter() - start)

    def note(self, seconds: float) -> None:
        """A piece took so long."""
        if len(self.choices) == 1:
            return
        if not self.trying:
            self._watch(seconds)
        elif self.wait:
            self.wait -= 1
        else:
            self._try(seconds)

    def _begin(self) -> None:
        self.tried = 0
        self.times: dict[int, list[float]] = {count: [] for count in self.choices}

    def _try(self, seconds: float) -> None:
        """A piece of a trial: with the next number, if this one has had its pieces."""
        count = self.choices[self.tried]
        self.times[count].append(seconds)
        best = self._best()
        hopeless = count != best and min(self.times[count]) > HOPELESS * self._median(best)
        if len(self.times[count]) < TRIES and not hopeless:
            return
        self.tried += 1
        if hopeless or self._best() != count:
            self.tried = len(self.choices)  # still more threads would be slower still
        if not self.trying:
            self._end()

    def _end(self) -> None:
        best, before = self._best(), self.chosen
        self._use(best)
        self.expected, self.since = self._median(best), time.perf_counter()
        self.recent.clear()
        self.chosen = best
        if best != before:
            self.say(f"{self.words}{'' if before is None else f', before {before}'}")

    def _watch(self, seconds: float) -> None:
        self.recent.append(seconds)
        slow = statistics.median(self.recent) > SLOWER * self.expected
        if (slow and len(self.recent) == WATCHED) or time.perf_counter() - self.since > AGAIN_S:
            self._begin()

    def _best(self) -> int:
        """The number to prefer of those tried: more only where they are GAIN times quicker."""
        best = self.choices[0]
        for count in self.choices[1:]:
            if self.times[count] and self._median(count) * GAIN <= self._median(best):
                best = count
        return best

    def _median(self, count: int) -> float:
        return statistics.median(self.times[count])

    @property
    def words(self) -> str:
        """What was chosen and why: `1 thread: 0.21 s a step, with 2 0.35 s`."""
        if len(self.choices) == 1 or self.chosen is None:
            return f"{self.choices[0]} thread{'s' * (self.choices[0] > 1)}, as asked for"
        measured = {count: self._median(count) for count in self.choices if self.times[count]}
        mine = measured.pop(self.chosen)
        others = "".join(
            f", with {count} {seconds:.3g} s" for count, seconds in measured.items()
        )
        return f"{self.chosen} thread{'s' * (self.chosen > 1)}: {mine:.3g} s{others}"

    @staticmethod
    def _use(count: int) -> None:
        import torch

        if torch.get_num_threads() != count:
            torch.set_num_threads(count)


def candidates() -> list[int]:
    """The numbers worth trying: 1, 2, 4, ... and all cores this process may use.

    One alone where OMP_NUM_THREADS says it, in the environment.
    """
    if (asked := os.environ.get("OMP_NUM_THREADS", "")).isdigit() and int(asked) > 0:
        return [int(asked)]
    cores = len(os.sched_getaffinity(0))
    return [*(2**k for k in range(cores.bit_length()) if 2**k < cores), cores]


def choose(count: int | None = None, say: Callable[[str], None] | None = None) -> Threads:
    """Try on convolutions as small as a laptop's training has, before the work itself.

    A tenth of a second on two idle cores. For work of a single piece.
    """
    import torch

    threads = Threads(count, say)
    if threads.trying:
        m, weight = torch.ones(PROBE_SHAPE), torch.ones(48, 48, 3, 3)
        with torch.inference_mode():
            while threads.trying:
                with threads.timed():
                    for _ in range(4):
                        torch.conv2d(m, weight, padding=1)
    return threads
