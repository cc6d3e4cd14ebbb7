"""How many bytes of tensors live at once, and which of them the mask operators touched.

    with Tensors() as seen:
        model(images)
    seen.peak(), seen.peak(seen.of_masks)

A `TorchDispatchMode`, so it sees every operation of the forward and the backward pass (tried on
a CPU). An operation's results count from its end to the death of their storage (looked at after
every operation); what an operation allocates for itself does not show.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MASK_OPERATORS = "tensormask_edu::swap_align2nat"


class Tensors(TorchDispatchMode):
    """The storages made while it was on: how large each was, when it was born and died.

    Attributes:
        of_masks: the storages that a mask operator read or wrote.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes: list[int] = []
        self.events: list[tuple[int, int]] = []  # (number of a storage, +1 born or -1 dead)
        self.of_masks: set[int] = set()
        # address of a storage -> its number, and whether it lives
        self.alive: dict[int, tuple[int, StorageWeakRef]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self._bury()
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        made = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        before = {storage_address(x) for x in given}
        for x in (*given, *made):
            number = self._number(x, new=storage_address(x) not in before)
            masks = func.name().startswith(MASK_OPERATORS) and x.is_floating_point()
            if masks and number is not None:
                self.of_masks.add(number)
        return result

    def _number(self, tensor: Tensor, new: bool) -> int | None:
        address = storage_address(tensor)
        if address in self.alive:
            return self.alive[address][0]
        if not new or not address:
            return None  # from before
        number = len(self.bytes)
        self.alive[address] = (number, StorageWeakRef(tensor.untyped_storage()))
        self.bytes.append(tensor.untyped_storage().nbytes())
        self.events.append((number, 1))
        return number

    def _bury(self) -> None:
        for address in [a for a, (_, reference) in self.alive.items() if reference.expired()]:
            self.events.append((self.alive.pop(address)[0], -1))

    def peak(self, among: set[int] | None = None) -> int:
        """The most bytes that lived at once, of all storages or `among` some."""
        living = most = 0
        for number, change in self.events:
            if among is None or number in among:
                living += change * self.bytes[number]
                most = max(most, living)
        return most


def storage_address(tensor: Tensor) -> int:
    """Names a storage while it lives."""
    return tensor.untyped_storage()._cdata
