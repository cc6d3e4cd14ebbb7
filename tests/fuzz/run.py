"""Tries wrong inputs of every kind for a while, and keeps what it finds.

    make fuzz                                     all kinds, 30 minutes
    make fuzz MINUTES=5                           a shorter time
    python tests/fuzz/run.py --targets coco onnx  of these alone
    python tests/fuzz/run.py --replay             the corpus alone

An input either works or is refused by the one-line error of `base/errors.py`. Whatever else
happens is a find: another exception, a crash of the process, more than ten seconds, more than
2 GiB, a file or a connection outside its folder. A find is made small, kept in
tests/fuzz/corpus, which `make test` replays, and ends the run with exit code 1.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from children import Child, Outcome
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from targets import Target, make_world, targets

CORPUS = HERE / "corpus"
LARGEST = 64 << 10  # bytes of a file in the corpus
LARGE = HERE.parents[1] / "outputs" / "fuzz"  # git passes over it
BATCH = 50  # inputs between two looks at the clock


class Found(Exception):
    """An input that does what no input should."""

    def __init__(self, outcome: Outcome, data: bytes) -> None:
        super().__init__(f"{outcome.kind}: {outcome.where}\n{outcome.text[-1200:]}")
        self.outcome, self.data = outcome, data


class Fuzzer:
    """Tries inputs; remembers what it has found, so that a mistake is told once."""

    def __init__(self, child: Child, world: Path, place: Path) -> None:
        self.child, self.world, self.place = child, world, place
        self.tried: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.known: set[tuple[str, str, str]] = set()

    def take(self, name: str, target: Target, data: bytes) -> Outcome:
        """One input in the child."""
        folder = self.place / name
        folder.mkdir(parents=True, exist_ok=True)
        outcome = self.child.take(name, target.put(data, self.world, folder))
        self.tried[name] += 1
        self.refused[name] += outcome.kind == "refused"
        return outcome

    def batch(self, name: str, target: Target, number: int, count: int) -> Found | None:
        """`count` inputs drawn with a seed; the first new find, made small."""

        @seed(number)
        @settings(max_examples=count, database=None, deadline=None, print_blob=False,
                  phases=[Phase.generate, Phase.shrink],
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(st.data())
        def tried(data: st.DataObject) -> None:
            wrong = data.draw(target.inputs)
            outcome = self.take(name, target, wrong)
            if not outcome.fine and (name, *outcome.key) not in self.known:
                raise Found(outcome, wrong)

        try:
            tried()
        except Found as found:
            self.known.add((name, *found.outcome.key))
            return found
        except BaseExceptionGroup as group:  # several mistakes in one batch
            finds = [each for each in group.exceptions if isinstance(each, Found)]
            if not finds:
                raise
            self.known.update((name, *each.outcome.key) for each in finds)
            return finds[0]
        return None


def keep(name: str, target: Target, data: bytes) -> Path:
    """Put a find into the corpus, or beside it if it is large."""
    corpus = CORPUS if len(data) <= LARGEST else LARGE
    place = corpus / name / (hashlib.sha256(data).hexdigest()[:12] + Path(target.name).suffix)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return place


def replay(fuzzer: Fuzzer, chosen: dict[str, Target]) -> list[str]:
    """What the stored finds do that they should not."""
    wrong = []
    for name, target in chosen.items():
        for file in sorted((CORPUS / name).glob("*.*")):
            outcome = fuzzer.take(name, target, file.read_bytes())
            if not outcome.fine:
                wrong.append(f"{file.relative_to(HERE)}: {outcome.kind} {outcome.where}")
    return wrong


def exported_model(folder: Path) -> Path:
    """A small ONNX file."""
    from exported import SMALL, checkpoint
    from tensormask_export.onnx_file.write import export_onnx

    from tensormask_edu.config import InputConfig
    from tensormask_edu.weights.checkpoint import load_checkpoint

    model, _ = load_checkpoint(checkpoint(folder, SMALL, InputConfig()))
    export_onnx(model, folder / "small.onnx", nms_iterations=4, candidates=64)
    return folder / "small.onnx"


def run(fuzzer: Fuzzer, chosen: dict[str, Target], minutes: float, first: int) -> int:
    """Batch after batch, the kind with the least time first; how many finds."""
    finds, number, spent = 0, first, dict.fromkeys(chosen, 0.0)
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        name = min(spent, key=lambda each: spent[each])
        began = time.monotonic()
        found = fuzzer.batch(name, chosen[name], number, BATCH)
        spent[name] += time.monotonic() - began
        number += 1
        gc.collect()  # inputs of megabytes lie in cycles
        if found:
            finds += 1
            place = keep(name, chosen[name], found.data)
            print(f"--- {name}, kept as {place}: {found}", flush=True)
    return finds


def main() -> int:
    """The whole run; the exit code: 1 if there was a find."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--targets", nargs="+", help="default: all")
    parser.add_argument("--seed", type=int, help="default: another one each time")
    parser.add_argument("--replay", action="store_true", help="the corpus alone")
    args = parser.parse_args()
    first = random.randrange(10**6) if args.seed is None else args.seed
    with tempfile.TemporaryDirectory() as folder:
        world = Path(folder) / "world"
        world.mkdir()
        make_world(world, exported_model(Path(folder)))
        every = targets(world)
        chosen = {name: every[name] for name in args.targets or every}
        takers = {name: target.take for name, target in every.items()}
        with Child(takers) as child:
            fuzzer = Fuzzer(child, world, Path(folder) / "inputs")
            wrong = replay(fuzzer, chosen)
            print("\n".join(wrong), end="\n" if wrong else "")
            print(f"seed {first}", flush=True)
            try:
                finds = 0 if args.replay else run(fuzzer, chosen, args.minutes, first)
            finally:  # what was tried counts also where a mistake of this program ends it
                print(counted(fuzzer), flush=True)
    print(f"{finds + len(wrong)} finds")
    return 1 if finds or wrong else 0


def counted(fuzzer: Fuzzer) -> str:
    """A line for each kind of input, and their sum."""
    counts = fuzzer.tried.items()
    lines = [f"{name:12}{count:10}{fuzzer.refused[name]:10}" for name, count in counts]
    total = f"{sum(fuzzer.tried.values())} inputs"
    return "\n".join([f"{'kind':12}{'inputs':>10}{'refused':>10}", *lines, total])


if __name__ == "__main__":
    sys.exit(main())
