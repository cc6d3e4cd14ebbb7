"""The number of threads: which one times lead to, and when it is looked at again."""

from __future__ import annotations

import pytest
import torch

from tensormask_edu.base import threads as module
from tensormask_edu.base.threads import TRIES, WARM_UP, WATCHED, Threads, candidates, choose


@pytest.fixture
def cores(monkeypatch):
    """Four cores, no word of the environment; afterwards the threads are as they were."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: range(4))
    yield
    torch.set_num_threads(before)


def work(threads, seconds, pieces):
    """Pieces that take `seconds[n]` with n threads; which number each was done with."""
    used = []
    for _ in range(pieces):
        if threads.trying:
            threads._use(threads.choices[threads.tried])
        used.append(torch.get_num_threads())
        threads.note(seconds[used[-1]])
    return used


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({1: 1.0, 2: 0.6, 4: 0.35}, 4),  # quiet: more are quicker
        ({1: 1.0, 2: 0.6, 4: 0.58}, 2),  # four gain too little
        ({1: 1.0, 2: 5.0, 4: 0.1}, 1),  # busy: not even tried with four
        ({1: 1.0, 2: 0.9, 4: 0.8}, 1),  # a tenth is not worth a second core
    ],
)
def test_more_threads_are_taken_only_as_long_as_they_pay(seconds, best, cores):
    said = []
    threads = Threads(say=said.append)
    work(threads, seconds, WARM_UP + 3 * TRIES)
    assert (threads.chosen, torch.get_num_threads()) == (best, best)
    assert len(said) == 1 and said[0].startswith(f"{best} thread")
    assert not threads.trying


def test_a_number_that_is_several_times_slower_is_tried_once(cores):
    used = work(Threads(), {1: 1.0, 2: 5.0, 4: 5.0}, 20)
    assert used.count(2) == 1 and used.count(4) == 0


def test_slower_work_is_looked_at_again_and_said(cores):
    said = []
    threads = Threads(say=said.append)
    work(threads, {1: 1.0, 2: 0.6, 4: 0.6}, 20)
    assert threads.chosen == 2
    work(threads, {1: 1.5, 2: 5.0, 4: 9.0}, WATCHED + 2 * TRIES)  # others came
    assert threads.chosen == 1
    assert said[-1] == "1 thread: 1.5 s, with 2 5 s, before 2"


def test_one_slow_piece_changes_nothing(cores):
    threads = Threads()
    work(threads, {1: 1.0, 2: 0.6, 4: 0.6}, 20)
    threads.note(30.0)
    assert not threads.trying


def test_a_machine_that_became_quiet_is_found_after_a_while(cores, monkeypatch):
    threads = Threads()
    work(threads, {1: 1.0, 2: 5.0}, 20)
    assert threads.chosen == 1
    monkeypatch.setattr(module, "AGAIN_S", 0.0)
    work(threads, {1: 1.0, 2: 0.5, 4: 0.4}, 4 * TRIES)
    assert threads.chosen == 4


@pytest.mark.parametrize("words", ["3", "1"])
def test_the_environment_is_obeyed(words, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", words)
    assert candidates() == [int(words)]


@pytest.mark.parametrize("words", ["", "0", "many", "2,1"])
def test_an_environment_that_says_nothing_useful_is_passed_over(words, cores, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", words)
    assert candidates() == [1, 2, 4]


def test_a_given_number_is_used_and_nothing_tried(cores):
    threads = Threads(3)
    assert (torch.get_num_threads(), threads.trying, threads.words) == (
        3,
        False,
        "3 threads, as asked for",
    )


def test_choosing_beforehand_ends_and_sets_the_number(cores):
    chosen = choose().chosen
    assert chosen in (1, 2, 4) and torch.get_num_threads() == chosen


def test_work_that_fails_leaves_no_time(cores):
    threads = Threads()
    with pytest.raises(ValueError), threads.timed():
        raise ValueError
    assert threads.wait == WARM_UP
