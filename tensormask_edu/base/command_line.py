"""What both command lines share: how a command is added, how errors end it and warnings look.

next: viz/look.py
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from .errors import InputError, InputWarning, printable
from .machine import cache_folder, is_writable, own_temporary_folder
from .memory import in_a_line, is_out_of_memory

with suppress(ImportError):  # Windows has none
    import pwd

Parser = argparse.ArgumentParser
LAST_ERROR = "last-error.txt"  # in the cache


def add_command(
    commands: Any, name: str, run: Callable[..., int], text: str, example: str
) -> Parser:
    """Add a command `name` that calls `run(args)`.

    Args:
        commands: what `add_subparsers` of the whole command line gave.
        text: its first sentence stands in the list of commands, all of it under `--help`.
        example: a command line without the program's name; more lines as they are.
    """
    program = commands._prog_prefix.split()[0]
    parser: Parser = commands.add_parser(
        name,
        help=re.split(r"\.\s", text)[0],
        description=text,
        epilog=f"example:\n  {program} {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def run_command(
    parser: Parser, arguments: Sequence[str] | None, when_interrupted: str = "stopped"
) -> int:
    """Parse and run; the exit code: the command's own, 2 for bad input, 130 for Ctrl-C."""
    settle_streams()
    try:
        args = parser.parse_args(arguments)
        settle_environment()
        with warnings_in_a_line():
            code: int = args.run(args)
        return code
    except InputError as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(when_interrupted, file=sys.stderr)
        return 130
    except BrokenPipeError:  # who read what is printed has gone: `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13  # as shells call a process that SIGPIPE ended
    except Exception as error:
        if not is_out_of_memory(error):
            keep_error(error)
            raise
        name = args.run.__name__.removeprefix("_run_").replace("_", "-")
        words = f"{name}: {in_a_line(error)}; smaller input or another machine"
        print(f"error: {words}", file=sys.stderr)
        return 2


def keep_error(error: Exception) -> None:
    """Keep a mistake of ours for `report-bug`, and say so below its traceback."""
    with suppress(OSError):
        cache_folder().mkdir(parents=True, exist_ok=True)
        text = "".join(traceback.format_exception(error))
        (cache_folder() / LAST_ERROR).write_text(text, encoding="utf-8", errors="replace")
        error.add_note("This is a mistake of ours. `tensormask-edu report-bug` packs it.")


# --- strange machines -------------------------------------------------------------------------


def settle_streams() -> None:
    """Let every text be printed: what a terminal's encoding lacks is spelled out.

    A service may start a program without stdin, stdout or stderr: the place of those that are
    missing is taken, before a file of ours gets their number.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def settle_environment() -> None:
    """Give libraries what they expect of a machine: a home, a user's name, a way to draw.

    Pictures are drawn to files alone, whatever a notebook that started us draws with. Without
    a home that can be written, as in a container of another user, caches go to a folder of
    this user among the temporary files.
    """
    os.environ["MPLBACKEND"] = "agg"
    if not hasattr(os, "getuid"):  # Windows
        return
    home = os.path.expanduser("~")
    if not (os.path.isabs(home) and is_writable(home)):
        os.environ["HOME"] = own_temporary_folder()
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("USER", f"user{os.getuid()}")
        os.environ.setdefault("LOGNAME", os.environ["USER"])


@contextmanager
def warnings_in_a_line() -> Iterator[None]:
    """Show an `InputWarning` as `warning: ...`, once, by the first of several processes."""
    with warnings.catch_warnings():
        warnings.simplefilter("default", InputWarning)
        others = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not issubclass(category, InputWarning):
                others(message, category, filename, lineno, file, line)
            elif os.environ.get("RANK", "0") == "0":  # torchrun's
                print(f"warning: {printable(message)}", file=sys.stderr)

        warnings.showwarning = show
        yield
