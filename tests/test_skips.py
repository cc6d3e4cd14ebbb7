"""Which checks may stay undone, and when. A new skip fails here until it is listed with its reason."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest
import torch
from conftest import SHARED, SKIPPED

# Beginning of the skip reason -> (whether it is true here, the tests that may give it).
ALLOWED: dict[str, tuple[Callable[[], bool], set[str]]] = {
    "no CUDA device": (lambda: not torch.cuda.is_available(), set()),
    "no shared data": (lambda: not SHARED.is_dir(), {"*"}),
    "tensorrt_rtx is not installed": (lambda: importlib.util.find_spec("tensorrt_rtx") is None, {"*"}),
}


def test_only_the_listed_checks_did_not_run(request: pytest.FixtureRequest):
    unexpected = []
    for node, reason in request.config.stash[SKIPPED].items():
        name = node.split("::")[-1].split("[")[0]
        known = [rule for start, rule in ALLOWED.items() if reason.startswith(start)]
        if not any(holds() and ({name, "*"} & tests) for holds, tests in known):
            unexpected.append(f"{node}: {reason}")
    assert not unexpected, "skipped without being listed in test_skips.py:\n" + "\n".join(unexpected)
