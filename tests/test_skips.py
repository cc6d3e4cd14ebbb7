"""A check that does not run, and is not listed with its reason, is told of."""

from __future__ import annotations

import torch
from skips import unexpected

NODE = "tests/test_ops.py::test_first_and_second_derivatives_are_right[cuda]"


def test_a_skip_is_told_of_unless_test_and_reason_are_listed():
    other = {NODE: "no time"}
    assert unexpected(other) == [f"{NODE}: no time"]
    listed = {NODE: "no CUDA device"}
    assert unexpected(listed) == (
        [] if not torch.cuda.is_available() else [*unexpected(listed)]
    )
    assert len(unexpected({NODE.replace("first", "no_such"): "no CUDA device"})) == 1
