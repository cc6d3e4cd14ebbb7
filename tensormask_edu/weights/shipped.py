"""Which models come along, where they are, and whether their weights are whole.

Whatever takes a checkpoint folder takes a model's name too. A string that is exactly a name
means the model, whatever the working folder holds; `./cells` is a folder, and so is a `Path`.
Needs no torch.

next: weights/checkpoint.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..base.errors import bad_input
from ..base.files import file_sha256, read_json

ROOM = Path(__file__).parent / "models"
CARD, PAGE = "card.json", "card.md"


def list_models() -> list[str]:
    """The names of the models that come along."""
    return sorted(card.parent.name for card in ROOM.glob(f"*/{CARD}"))


def located(where: str | Path) -> Path:
    """The folder of the model of that name; anything else as the path it is."""
    return ROOM / where if isinstance(where, str) and where in list_models() else Path(where)


def read_card(name: str) -> dict[str, Any]:
    """The facts about a model: what its page says.

    Raises:
        InputError: no model of that name.
    """
    return read_json(_folder(name) / CARD, "card")


def read_page(name: str) -> str:
    """A model's page: Markdown.

    Raises:
        InputError: no model of that name.
    """
    return (_folder(name) / PAGE).read_text(encoding="utf-8")


def check_weights(path: Path) -> None:
    """Raise InputError if a card lies beside a weights file and names another SHA-256."""
    card = path.parent / CARD
    if card.is_file():
        expected, got = read_json(card, "card")["weights"]["sha256"], file_sha256(path)
        if got != expected:
            fix = "the file was changed or cut off; install the package again"
            raise bad_input("checkpoint", f"{path} with SHA-256 {expected}", got, fix)


def _folder(name: str) -> Path:
    if name not in list_models():
        raise bad_input("model", f"one of {', '.join(list_models())}", name)
    return ROOM / name
