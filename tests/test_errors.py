"""Every error message of the product is listed with a test that triggers it (`errors.py`)."""

from __future__ import annotations

import numpy as np
import pytest
from errors import LIST, Recorder, is_there, listed, sites

# Beginning of a reason -> why a message may have no test
REASONS = {
    "- on a GPU": "raised by what needs one; tests/gpu runs it",
    "- by another process": "raised in a process that a test starts, which reads what it says",
}


def test_every_message_is_listed_and_none_is_stale():
    found = {(site.path, site.message) for site in sites()}
    told = {(path, message) for path, messages in listed().items() for message in messages}
    assert len(found) > 300
    assert found - told == set(), "pytest FILES --note-errors adds them with their tests"
    assert told - found == set()


def test_every_message_has_a_test_that_is_there():
    for path, messages in listed().items():
        for message, test in messages.items():
            if test.startswith("- "):
                assert any(test.startswith(reason) for reason in REASONS), (path, message, test)
                continue
            assert test and is_there(test), (
                f"{path}: no test triggers {message!r}, but {test!r}"
            )


def test_nearly_every_message_is_triggered_in_this_process():
    tests = [test for messages in listed().values() for test in messages.values()]
    assert sum(test.startswith("- ") for test in tests) < 0.05 * len(tests)


def test_a_message_is_noted_where_it_was_made(request):
    """What notes messages while tests run sees those of `require` and of other errors."""
    from tensormask_edu.config import TrainConfig
    from tensormask_edu.reference import swap_align2nat

    recorder = request.config.pluginmanager.get_plugin("errors")
    assert isinstance(recorder, Recorder)
    recorder.made.clear()
    with pytest.raises(ValueError):
        TrainConfig(steps=0)
    (made,) = recorder.made
    assert made[0] == "tensormask_edu/config/train.py" and "expected at least 1" in made[1]
    with pytest.raises(ValueError, match="lam"):
        swap_align2nat(np.zeros((1, 1, 1, 1, 1)), 0)
    assert any("reference" in path for path, _ in recorder.made)


def test_the_list_is_as_it_is_written():
    import json

    text = json.dumps(listed(), indent=1, ensure_ascii=False) + "\n"
    assert LIST.read_text(encoding="utf-8") == text
