"""What models come along: a table of them, or the card of one.

next: commands/check_ops.py
"""

from __future__ import annotations

from typing import Any

from ..base.tables import text_table
from ..weights.shipped import list_models, read_card, read_page

HEAD = ("name", "for", "classes", "mask AP of", "size", "SHA-256", "licence")


def text(name: str | None = None) -> str:
    """The card of model `name`, or a row for each model.

    Raises:
        InputError: no model of that name.
    """
    if name:
        return read_page(name).rstrip()
    table = text_table([HEAD, *(row(read_card(name)) for name in list_models())])
    return f"{table}\n\nmask AP of the ceiling; `tensormask-edu models NAME` prints a card"


def row(card: dict[str, Any]) -> tuple[str, ...]:
    """A line of the table."""
    scores, weights = card["scores"], card["weights"]
    return (
        card["name"],
        card["purpose"],
        ", ".join(card["classes"]),
        f"{scores['AP']:.3f} of {scores['ceiling_AP']:.3f}",
        f"{weights['bytes'] / 1e6:.2f} MB",
        weights["sha256"][:12],
        card["licence"],
    )
