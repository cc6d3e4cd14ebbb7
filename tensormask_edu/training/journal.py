"""What an interrupted run needs to go on as if nothing had happened, and its log.

`resume.pt` holds weights, optimizer, scaler and position together: one file, published by one
rename, so whatever is on the disk after a power cut belongs together. It is read without
running code from it.

next: evaluation/results.py
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import torch

from ..base import distributed
from ..base.errors import InputError, bad_input, require, warn_of_input
from ..base.files import (
    cannot_write,
    make_folder,
    parsed_json,
    refuse_overwriting,
    remove_leftovers,
    written_whole,
)
from ..base.lock import alone_in
from ..base.values import misfit
from ..config import Recipe, to_json
from ..weights.pickled import read_archive


class _State(TypedDict):
    """What a state must hold; of the first three only their owners know more."""

    model: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    recipe: dict[str, Any]
    data: str
    step: int
    steps: int
    seconds: float
    recent: list[dict[str, float]]


Item = TypeVar("Item")
STATE, LOG = "resume.pt", "log.jsonl"
WITHOUT = "train without --resume"  # what to do where a state is of no use

# What a resumed run must share with the one it continues, or its batches would be others.
FIXED = (
    "seed", "batch_size", "optimizer", "augment", "polygons", "group_by_aspect", "precision",
)  # fmt: skip


def check_place(
    output: Path, weights: str | Path | None, resume: bool, overwrite: bool
) -> None:
    """Raise InputError where a run would replace an earlier one, or the weights it starts from.

    Args:
        resume: the earlier one goes on. overwrite: it may be replaced.
    """
    require(not (resume and overwrite), "overwrite", "no --resume beside it", "both")
    if resume:
        return
    refuse_overwriting("output", output / "checkpoint", weights)
    log, resumable = output / LOG, (output / STATE).is_file()
    there = resumable or (output / "checkpoint" / "model.safetensors").is_file()
    if not overwrite and (there or (log.is_file() and log.stat().st_size)):
        goes_on = "--resume goes on with it, " if resumable else ""
        fix = f"{goes_on}--overwrite replaces it; or choose another folder"
        raise bad_input("output", "a folder without a run", f"{output}, which has one", fix)


@contextmanager
def alone(output: Path, goes_on_at: int | None) -> Iterator[None]:
    """Hold the folder of a run, begun anew or brought to the step at which it goes on.

    Raises:
        InputError: another process trains there, or the folder cannot be written.
    """
    if distributed.rank() > 0:  # the first process holds it for all
        yield
        return
    with alone_in(make_folder(output)):
        begin(output) if goes_on_at is None else go_on(output, goes_on_at)
        yield


def begin(output: Path) -> None:
    """Begin a run in its folder; an older one there cannot be resumed any more."""
    clean(output)
    with _writing(output / STATE):
        (output / STATE).unlink(missing_ok=True)
    with written_whole(output / LOG) as temporary:
        temporary.touch()


def clean(output: Path) -> None:
    """Remove what writers left behind that were killed."""
    for name in (STATE, LOG, "checkpoint/model.safetensors", "checkpoint/config.json"):
        remove_leftovers(output / name)


def store(path: Path, value: Any) -> None:
    """Tensors and plain values into a file, whole or not at all.

    `torch.load(weights_only=True)` reads it.
    """
    memory = io.BytesIO()  # torch's own file writer does not say why it failed
    torch.save(value, memory)
    with written_whole(path) as temporary:
        # getvalue, not a view: in a traceback a view makes Python 3.12.1 crash
        temporary.write_bytes(memory.getvalue())


def write_state(output: Path, state: dict[str, Any], recipe: Recipe) -> None:
    """Write what `read_state` reads."""
    store(output / STATE, state | {"recipe": _fixed(recipe)})


def read_state(output: Path, recipe: Recipe, data: str) -> dict[str, Any]:
    """The state of the run in `output`, which must have been trained as `recipe` says.

    Args:
        data: the fingerprint of what it is to go on with.

    Raises:
        InputError: no run, a broken file, another run, other data, or fewer steps than it has
            done.
    """
    path, fix = output / STATE, WITHOUT
    if not path.is_file():
        raise bad_input("resume", "an interrupted run in the output folder", output, fix)
    state = read_archive(path, "resume")
    if wrong := misfit(state, _State, "state"):
        raise bad_input(
            "resume", "the state of a run of this version", f"{path} ({wrong})", fix
        )
    before, now = state.pop("recipe"), _fixed(recipe)
    if changed := sorted(name for name in now if before.get(name) != now[name]):
        expected = _shown({name: before.get(name) for name in changed})
        got = _shown({name: now[name] for name in changed})
        fix = "pass the same, or train without resume"
        raise bad_input("resume", f"the run's {expected}", got, fix)
    if state.pop("data") != data:
        fix = f"pass the same, or begin another run with --weights {output / 'checkpoint'}"
        raise bad_input("resume", "the run's pictures and annotations", "others", fix)
    planned, steps = state.pop("steps"), recipe.train.steps
    if steps < state["step"]:
        raise bad_input("steps", f"at least the {state['step']} that are done", steps)
    if steps < planned:
        warn_of_input(f"steps: {steps} now, {planned} before: the learning rate jumps ahead")
    return state


def restore(parts: Mapping[str, Any], state: Mapping[str, Any], output: Path) -> None:
    """Give the parts of a run, by name, what `state` keeps of each.

    Raises:
        InputError: it is of another model or optimizer.
    """
    try:
        for name, part in parts.items():
            part.load_state_dict(state[name])
    except Exception as error:  # of what does not fit PyTorch raises several kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        got = f"{output / STATE} ({reason})"
        raise bad_input("resume", "the state of this model", got, WITHOUT) from None


def go_on(output: Path, step: int) -> None:
    """Bring the folder of a killed run to the state it goes on from."""
    clean(output)
    _cut_log(output / LOG, step)


def append_log(output: Path, record: dict[str, Any]) -> None:
    """Add a line to the log."""
    with _writing(output / LOG), open(output / LOG, "a", encoding="utf-8") as log:
        log.write(json.dumps(record) + "\n")


def read_log(output: Path) -> list[dict[str, Any]]:
    """The lines of the log: step, seconds, lr, and the means of the losses since the last.

    What a kill or a power cut left of a line is passed over.

    Raises:
        InputError: no log there.
    """
    if not (output / LOG).is_file():
        raise bad_input("run", f"the folder of a training, with {LOG}", output)
    text = (output / LOG).read_text(encoding="utf-8", errors="replace")
    return list(filter(None, map(_parsed, text.splitlines())))


def tell(bar: Any, text: str) -> None:
    """Write a line beside tqdm's `bar`, unless the terminal was closed."""
    with suppress(OSError):
        bar.write(text)


def kept(batches: Iterator[Item], save: Callable[[], Any]) -> Iterator[Item]:
    """The batches; an error in making one goes on after a `save` of what was learnt till then.

    Whichever process meets it saves: all have the same weights, and the others wait for it.
    """
    learnt = False
    try:
        for batch in batches:
            yield batch
            learnt = True
    except Exception as error:
        if learnt:
            save()
            if isinstance(error, InputError):
                saved = "what was learnt before is saved, --resume goes on from it"
                raise InputError(f"{error}; {saved}") from None
        raise


def _fixed(recipe: Recipe) -> dict[str, Any]:
    """What a resumed run shares, as JSON says it: equal after a round trip."""
    train = to_json(recipe.train)
    values = {"model": to_json(recipe.model), "input": to_json(recipe.input)}
    return json.loads(json.dumps({name: train[name] for name in FIXED} | values))


def _shown(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {str(value)[:60]}" for name, value in values.items())


def _cut_log(path: Path, step: int) -> None:
    """Forget what was logged after `step`, and a line that a kill cut in two."""
    lines = read_log(path.parent) if path.is_file() else []
    kept = "".join(json.dumps(line) + "\n" for line in lines if line["step"] <= step)
    with written_whole(path) as temporary:
        temporary.write_text(kept)


def _parsed(line: str) -> dict[str, Any]:
    """A line of the log, {} if it is none: half a line, or zeros where a disk lost it."""
    try:
        record = parsed_json(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) and type(record.get("step")) is int else {}


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error
