"""Several processes as one: torchrun starts them and says in the environment who is who.

Without torchrun there is one process, and every function here does the obvious thing.

next: base/stages.py
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import bad_input

Item = TypeVar("Item")
FROM_TORCHRUN = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}


@contextmanager
def processes() -> Iterator[torch.device]:
    """Join the processes torchrun started, and leave them at the end; yields this one's device.

    On GPUs every process takes the one of its local rank and they speak NCCL, on CPUs Gloo.
    Where a caller has joined already, or torchrun started nothing, nothing is joined or left.
    """
    cuda = torch.cuda.is_available()
    device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if cuda else "cpu")
    if dist.is_initialized() or not FROM_TORCHRUN <= os.environ.keys():
        yield device
        return
    _end_with_torchrun()
    try:
        if cuda:
            torch.cuda.set_device(device)  # before joining: NCCL takes the device that is set
            dist.init_process_group("nccl", device_id=device)
        else:
            dist.init_process_group("gloo")
        yield device
    except RuntimeError as error:
        if not _is_of_another(error):
            raise
        got = f"process {os.environ['RANK']} alone ({str(error).splitlines()[0][:200]})"
        fix = "see what the first one to end says; training goes on with --resume"
        raise bad_input("processes", "all of them to the end", got, fix) from None
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _end_with_torchrun() -> None:
    """Ask Linux for a SIGTERM when torchrun ends: killed, it could not pass one on.

    Its processes would else train on, unseen. SIGTERM saves what was learnt.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))


_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def _is_of_another(error: RuntimeError) -> bool:
    """Whether an error says that a message to or from another process failed."""
    said = "gloo|NCCL|Connection closed by peer|Connection reset by peer"
    of_torch = isinstance(error, dist.DistError)
    return of_torch or re.search(said, str(error).split("\n")[0]) is not None


def rank() -> int:
    """Which of the processes this is; 0 writes files and speaks."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def threads(asked: int | None, device: torch.device) -> int | None:
    """How many the CPU gets: as asked for, as now on a GPU or among processes; None: try."""
    if asked is None and (device.type == "cuda" or count() > 1):
        return torch.get_num_threads()
    return asked


def mean(values: Tensor) -> Tensor:
    """The mean of `values` over the processes, the same bits in all of them."""
    if count() == 1:
        return values
    values = values.clone()  # all_reduce writes into what it is given
    dist.all_reduce(values)
    return values / count()


def share(items: Sequence[Item]) -> Sequence[Item]:
    """This process's part of `items`: every n-th of them."""
    return items[rank() :: count()]


def joined(part: list[Item]) -> list[Item]:
    """What every process made of its `share`, in the order of all the items, in all of them."""
    parts: list[list[Item]] = [part]
    if count() > 1:
        parts = [[] for _ in range(count())]
        dist.all_gather_object(parts, part)
    total = sum(len(part) for part in parts)
    # dealt out like cards, collected the same way
    return [parts[number % count()][number // count()] for number in range(total)]


def wait() -> None:
    """Go on when all processes have come here."""
    if count() > 1:
        dist.barrier()


def from_first(value: Any) -> Any:
    """What the first process holds, in all of them."""
    values = [value]
    if count() > 1:
        dist.broadcast_object_list(values)
    return values[0]
