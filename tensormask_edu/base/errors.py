"""One kind of error for bad input, which teaches, and one kind of warning.

An error names the argument, what was expected, what came and what to do. The command line
prints an `InputError` as one line and exits with code 2; any other exception is a bug of ours
and keeps its traceback. An `InputWarning` says what was mended or left out; the command line
prints it as one line and goes on.

next: config/model.py
"""

from __future__ import annotations

import warnings

LONGEST = 1000  # characters of what came, and of what was expected
LINE = 2000  # of an error, about


class InputError(ValueError):
    """Bad input from the caller; as a ValueError it can be caught without knowing us.

    It is one line, and no page: names in a file hold line breaks, or 5,000 letters.
    """

    def __init__(self, message: str) -> None:
        text = printable(message)
        if len(text) > LINE:  # what to do stands at the end
            text = f"{text[: LINE // 2]} ... {text[-LINE // 3 :]}"
        super().__init__(text)


class InputWarning(UserWarning):
    """Input that was mended or left out; filters of Python's `warnings` silence it."""


def bad_input(argument: str, expected: str, got: object, fix: str = "") -> InputError:
    """The error to raise: ``raise bad_input("lam", "an integer >= 1", 0, "pass 1 for x")``."""
    message = f"{argument}: expected {_in_a_line(expected)}, got {_in_a_line(got)}"
    return InputError(f"{message}; {fix}" if fix else message)


def _in_a_line(value: object) -> str:
    """A value as text, whatever it is: names may hold line breaks, values fill a page."""
    try:
        text = printable(value)
    except (ValueError, RecursionError):  # an integer of 4,300 digits; lists in lists in lists
        text = f"a {type(value).__name__} that is too long to be shown"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def printable(text: object) -> str:
    """A line that commands no terminal: names of strangers' files hold line breaks and more.

    Signs that cannot be shown are spelled out, as in ``\\n`` and ``\\x1b``.
    """
    return "".join(s if s.isprintable() else repr(s)[1:-1] for s in str(text))


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
