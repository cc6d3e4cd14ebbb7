"""The GPU day: checks first, then times, in one run of nine minutes at most; no network.

    make gpu                                   or: python benchmarks/gpu
    python benchmarks/gpu --rehearse           the same on the processor, tiny: try it before
    python benchmarks/gpu --steps machine operators kernels
    python benchmarks/gpu --output FOLDER --minutes 6

It needs PyTorch with CUDA and NumPy; nothing has to be installed, it runs from the sources.
Our kernels are compiled by cuda-core, the model needs torchvision, its training the rest: what
is missing there can be brought along, in versions that belong to the PyTorch there,

    pip install --no-deps --target FOLDER cuda-core torchvision==0.26.0 \
        safetensors pillow tqdm pycocotools packaging
    PYTHONPATH=FOLDER python benchmarks/gpu

What is still missing is said first, with the
steps that are skipped for want of it. Engines are built beforehand, on any machine:

    python benchmarks/gpu --build --work W     needs tensormask-edu[export,rtx]; no GPU
    python benchmarks/gpu --work W             then on the GPU, with a TensorRT

Each step is a process with a limit of its own: one that hangs is cut, one that fails does not
keep the next from running, and one that the nine minutes have no room for is dropped. Its JSON
is in the folder at once, whole, and tells device, date, versions and commit: by default
benchmarks/results/gpu-DATE. day.json tells how all of them went.

Exit code 0: every check that can run here held; 1: one did not, or one of the first four steps
was cut or dropped; 2: there is no GPU, no PyTorch, or the call is wrong. Times are no checks.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

from tensormask_edu.base.errors import InputError
from tensormask_edu.base.files import check_place, make_folder, read_json, write_json
from tensormask_edu.base.tables import text_table

ROOT = Path(__file__).resolve().parents[2]
MINUTES = 9.0
PATIENCE = 10.0  # times as long as a step has may its rehearsal take
SHORTEST_S = 5.0  # with less than that no step begins
LAST_WORDS = 1500  # characters of what a step that died had to say


@dataclass(frozen=True)
class Step:
    """A step; it is cut after so many seconds.

    bad: the ways to end that the exit code is 1 for.
    """

    name: str
    seconds: float
    what: str
    bad: Sequence[str] = ()


FAILED = ("failed", "died")
UNDONE = (*FAILED, "cut", "dropped")
# Three minutes for the checks, then what matters most; the sanitizer takes what is left.
STEPS = (
    Step("machine", 60, "what is here and what is not; our kernels compile", UNDONE),
    Step("operators", 70, "every operator and dtype against the NumPy loops", UNDONE),
    Step("kernels", 50, "bits, streams, graphs, no waiting, 2^31 elements", UNDONE),
    Step("network", 60, "maps, losses, gradients as on the processor; it learns", UNDONE),
    Step("speed", 90, "the op beside a copy, the plain kernel and the estimate"),
    Step("model", 180, "training step and inference at 800 x 1344, factor by factor"),
    Step("engines", 90, "TensorRT: the same detections, and times", FAILED),
    Step("sanitizer", 90, "compute-sanitizer watches every kernel", FAILED),
)
BUILD = Step("build", 7200, "engines for another day, in --work", UNDONE)


@dataclass
class Outcome:
    """How a step went: ok, failed, skipped, cut, dropped, or died without a word of its own."""

    step: str
    state: str
    seconds: float = 0.0
    why: str = ""
    text: Sequence[str] = ()


@dataclass(frozen=True)
class Day:
    """Where everything goes, and when it ends by `time.monotonic`.

    options: of `gpu.step`, the same for every step.
    """

    output: Path
    until: float
    options: Sequence[str] = ()

    def run(self, step: Step) -> Outcome:
        """One step, to its end or its limit."""
        start = time.monotonic()
        limit = min(step.seconds, self.until - start)
        if limit < SHORTEST_S:
            return Outcome(step.name, "dropped", why="not begun: the time was over")
        file = self.output / f"{step.name}.json"
        file.unlink(missing_ok=True)  # what an earlier day left
        code, said = watched(self.command(step), limit)
        seconds = round(time.monotonic() - start, 1)
        record: dict[str, Any] = {"step": step.name, "state": "running", "rows": []}
        with suppress(InputError):  # it did not get to write its file
            record |= read_json(file)
        if code is None or record["state"] == "running":
            record |= unsaid(record["rows"], code, said, seconds)
            write_json(file, record)
        why, text = record.get("why", ""), record.get("text", ())
        return Outcome(step.name, record["state"], seconds, why, text)

    def command(self, step: Step) -> list[str]:
        """The step as a process of its own."""
        words = ["-m", "gpu.step", step.name, "--output", str(self.output), *self.options]
        return [sys.executable, *words]


def unsaid(
    rows: Sequence[dict[str, Any]], code: int | None, said: str, seconds: float
) -> dict[str, str]:
    """How a step ended that could not say it itself; code None: it was cut."""
    if code is not None:
        return {"state": "died", "why": f"exit {code}: {said}"}
    wrong = any(not row.get("ok", True) for row in rows)
    return {"state": "failed" if wrong else "cut", "why": f"cut after {seconds:.0f} s"}


def watched(command: Sequence[str], limit: float) -> tuple[int | None, str]:
    """The exit code of a process, None if it had to be ended, and its last words."""
    with tempfile.TemporaryFile("w+", errors="replace") as words:
        # a session of its own: what it started ends with it
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stderr=words, start_new_session=True
        )
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:  # Ctrl-C does not reach it by itself
            end(process)
        words.seek(0)
        return code, words.read()[-LAST_WORDS:].strip()


def end(process: subprocess.Popen[bytes]) -> None:
    """A process and all that it started; one that does not die within 10 s is left."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)


def environment() -> dict[str, str]:
    """This process's, and where a step's modules are: nothing has to be installed."""
    folders = [ROOT, ROOT / "exporters", ROOT / "benchmarks"]
    paths = [*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def commit() -> str:
    """The commit that is checked out, "" where git does not say."""
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    with suppress(OSError):
        return subprocess.run(words, capture_output=True, text=True).stdout.strip()
    return ""


# --- the day ----------------------------------------------------------------------------------


def run_all(day: Day, steps: Sequence[Step], say: Any = print) -> list[Outcome]:
    """The steps in order; each is said and written when it is over."""
    outcomes: list[Outcome] = []
    began = datetime.now().astimezone().isoformat(timespec="seconds")
    for step in steps:
        say(f"{step.name}: {step.what} (at most {step.seconds:.0f} s)", flush=True)
        outcomes.append(outcome := day.run(step))
        lines = [*outcome.text, *([outcome.why] * bool(outcome.why))]
        say(*(f"    {line}" for line in lines), sep="\n", flush=True)
        say(f"  {outcome.state} in {outcome.seconds:.0f} s", flush=True)
        record = {"began": began, "steps": [asdict(each) for each in outcomes]}
        write_json(day.output / "day.json", record)
        if step.name == "machine" and outcome.state == "skipped":
            break  # no GPU, or no PyTorch: nothing else can run
    return outcomes


def summary(outcomes: Sequence[Outcome]) -> str:
    """The table at the end."""
    head = ["step", "", "s", "what it says first"]
    rows = [
        [
            each.step,
            each.state,
            f"{each.seconds:.0f}",
            (each.why or "".join(each.text[:1]))[:60],
        ]
        for each in outcomes
    ]
    return text_table([head, *(row[:3] + row[3].splitlines()[:1] or [""] for row in rows)])


def exit_code(outcomes: Sequence[Outcome], steps: Sequence[Step]) -> int:
    """0 if all checks held that can run here, 1 if not, 2 if there is nothing to run on."""
    bad = {step.name: step.bad for step in steps}
    if outcomes and outcomes[0].step == "machine" and outcomes[0].state == "skipped":
        return 2
    return int(any(each.state in bad[each.step] for each in outcomes))


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    style = argparse.RawDescriptionHelpFormatter
    steps = "".join(f"\n    {each.name:10} {each.what}" for each in STEPS)
    parser = argparse.ArgumentParser(
        prog="python benchmarks/gpu",
        description=__doc__,
        epilog=f"steps:{steps}",
        formatter_class=style,
    )
    add = parser.add_argument
    add("--output", type=Path, metavar="FOLDER", help="for the JSON files")
    add("--minutes", type=float, default=MINUTES, help="of all steps together (default 9)")
    add("--steps", nargs="+", choices=[each.name for each in STEPS], help="these alone")
    add("--work", type=Path, default=ROOT / "outputs" / "gpu", help="where engines lie")
    add("--build", action="store_true", help="build them, and nothing else")
    add("--estimates", action="store_true", help="count the kernels' costs anew, nothing else")
    add("--commit", default=commit(), help="of the sources, where git does not say it")
    add("--rehearse", action="store_true", help="on the processor, everything tiny")
    args = parser.parse_args(words)
    if not args.minutes > 0:
        parser.error(f"--minutes: expected a positive number, got {args.minutes}")
    return args


def planned(args: argparse.Namespace) -> tuple[Day, list[Step]]:
    """The day that is asked for. InputError if its files cannot be written."""
    steps = [step for step in STEPS if not args.steps or step.name in args.steps]
    place = ROOT / "benchmarks" / "results" / f"gpu-{date.today().isoformat()}"
    minutes, options = (
        args.minutes,
        ["--work", str(args.work.resolve()), "--commit", args.commit],
    )
    if args.build:
        steps, minutes = [BUILD], BUILD.seconds / 60
    elif args.rehearse:  # a busy processor takes long, and only what hangs should be cut
        steps = [replace(step, seconds=PATIENCE * step.seconds) for step in steps]
        minutes *= PATIENCE
    if args.build or args.rehearse:  # neither needs a GPU, nor has results to keep
        place = ROOT / "outputs" / "gpu-rehearsal"
        options.append("--rehearse")
    output = make_folder(args.output or place).resolve()
    check_place(output / "day.json")
    return Day(output, time.monotonic() + 60 * minutes, options), steps


def main(words: Sequence[str] | None = None) -> int:
    """Run the day; print the table."""
    args = parse(words)
    if args.estimates:
        from gpu import estimates

        estimates.write()
        return 0
    try:
        day, steps = planned(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    outcomes = run_all(day, steps)
    print(f"\n{summary(outcomes)}\n\nwritten to {day.output}")
    return exit_code(outcomes, steps)
