"""What both command lines share: how a command is added, and how errors end it.

next: viz/look.py
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from .errors import InputError

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
        code: int = args.run(args)
        return code
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(when_interrupted, file=sys.stderr)
        return 130
