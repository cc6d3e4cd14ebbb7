"""One kind of error for bad input, which teaches, and one kind of warning.

An error names the argument, what was expected, what came and what to do. The command line
prints an `InputError` as one line and exits with code 2; any other exception is a bug of ours
and keeps its traceback. An `InputWarning` says what was mended or left out; the command line
prints it as one line and goes on.

next: config/model.py
"""

from __future__ import annotations

import warnings


class InputError(ValueError):
    """Bad input from the caller; as a ValueError it can be caught without knowing us."""


class InputWarning(UserWarning):
    """Input that was mended or left out; filters of Python's `warnings` silence it."""


def bad_input(argument: str, expected: str, got: object, fix: str = "") -> InputError:
    """The error to raise: ``raise bad_input("lam", "an integer >= 1", 0, "pass 1 for x")``."""
    message = f"{argument}: expected {expected}, got {got}"
    return InputError(f"{message}; {fix}" if fix else message)


def require(holds: bool, argument: str, expected: str, got: object) -> None:
    """Raise `bad_input` unless what is expected of `argument` holds."""
    if not holds:
        raise bad_input(argument, expected, got)


def warn_of_input(text: str) -> None:
    """Say in a line what was mended or left out; the same line is shown once."""
    warnings.warn(text, InputWarning, stacklevel=3)


SAID: set[str] = set()  # kinds of which a case was told


def warn_once(kind: str, text: str) -> None:
    """Say the first case of a kind that many files of a folder may share."""
    if kind not in SAID:
        SAID.add(kind)
        warnings.warn(text, InputWarning, stacklevel=3)
