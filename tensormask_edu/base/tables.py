"""Tables as text: columns as wide as their widest cell, two spaces between them.

next: base/machine.py
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def text_table(rows: Iterable[Sequence[str]], indent: str = "") -> str:
    """Rows of cells, the head among them, as lines of equal columns.

    Args:
        rows: each with as many cells as the first.
        indent: what each line begins with.
    """
    rows = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(f"{indent}{line}".rstrip() for line in lines)
