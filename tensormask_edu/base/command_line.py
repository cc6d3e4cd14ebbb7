"""What both command lines share: how a command is added, how errors end it and warnings look.

next: viz/look.py
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from .errors import InputError, InputWarning

Parser = argparse.ArgumentParser


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
    args = parser.parse_args(arguments)
    try:
        with warnings_in_a_line():
            code: int = args.run(args)
        return code
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(when_interrupted, file=sys.stderr)
        return 130


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
                print(f"warning: {message}", file=sys.stderr)

        warnings.showwarning = show
        yield
