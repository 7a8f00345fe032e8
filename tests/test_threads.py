import os
import random
import threading
import time
from functools import partial

import pytest
import torch

from lox_kit import threads
from lox_kit.threads import fitting_threads, map_in_order, within


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_order_whatever_their_size(workers):
    sizes = [5, 1, 0, 3, 9, 9, 2, 0]
    found = map_in_order(lambda i: time.sleep(sizes[i] / 1e3) or i, range(8), workers, sizes)
    assert list(found) == list(range(8))
    assert list(map_in_order(str, [], workers, [])) == []


def test_with_two_workers_the_largest_is_begun_first_even_if_it_comes_last():
    begun, both = [], threading.Barrier(2, timeout=20)

    def work(item):
        begun.append(item)
        if item in "ad":
            both.wait()
        return item

    assert list(map_in_order(work, list("abcd"), 2, [3, 1, 1, 3])) == list("abcd")
    assert begun == ["d", "a", "b", "c"]


@pytest.mark.parametrize(
    ("sizes", "ahead"),
    [([25] * 39 + [100], 4), ([60] * 39 + [100], 2), ([10] * 40, 2), ([0] * 40, 39)],
    ids=["four are as large as the largest", "two are larger", "equal", "none has a size"],
)
def test_few_are_begun_ahead_of_their_turn(sizes, ahead):
    done, most = [], 0  # the last is the largest, which is begun first
    for turn, _ in enumerate(map_in_order(done.append, range(40), 2, sizes)):
        end = time.monotonic() + 0.2  # the other threads may have to wait for a core
        while time.monotonic() < end:
            time.sleep(0.002)
            most = max(most, sum(turn < i < 39 for i in done))
            if most >= ahead - 1:
                break
    assert sorted(done) == list(range(40))
    assert ahead - 1 <= most <= ahead


def test_after_an_error_nothing_more_is_begun_and_torch_has_its_threads_again():
    before, begun = torch.get_num_threads(), []

    def work(i):
        begun.append(i)
        time.sleep(0.02)
        raise ValueError(f"item {i}")

    with pytest.raises(ValueError, match="item 0"):
        list(map_in_order(work, range(50), 2, [100] + [1] * 49))
    assert len(begun) < 10
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("parameters", "when_busy", "load", "threads"),
    [
        (9e6, None, 0.0, 1),
        (9e6, None, 99.0, 1),
        (11e6, None, 99.0, 3),
        (11e6, 10**8, 99.0, 1),
        (11e6, 10**8, 0.0, 3),
        (101e6, 10**8, 99.0, 3),
    ],
)
def test_small_models_have_one_thread_and_larger_ones_too_when_the_machine_is_busy(
    monkeypatch, parameters, when_busy, load, threads
):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    now = [3]
    monkeypatch.setattr(torch, "get_num_threads", lambda: now[-1])
    monkeypatch.setattr(torch, "set_num_threads", now.append)
    module = torch.nn.Module()
    module.w = torch.nn.Parameter(torch.empty(int(parameters), device="meta"))
    with fitting_threads(module, **({"when_busy": when_busy} if when_busy else {})):
        assert now[-1] == threads
    assert now[-1] == 3


# --- a limit of time ----------------------------------------------------------------------------


def spin(seconds):
    """Compute in Python for so long, and return the argument."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return seconds


def fail():
    raise KeyError("a")


def test_work_within_its_time_returns_or_raises_what_it_does():
    assert within(5.0, lambda: spin(0.001)) == 0.001
    assert within(5.0, lambda: within(5.0, lambda: 3)) == 3
    with pytest.raises(KeyError, match="a"):
        within(5.0, fail)
    assert not threads._timed


def swallow():
    """Go on after any error."""
    while True:
        try:
            spin(1.0)
        except Exception:
            continue


@pytest.mark.parametrize(
    "work", [lambda: spin(60), swallow, lambda: within(60.0, lambda: spin(60))]
)
def test_work_that_takes_too_long_is_interrupted(work):
    since = time.monotonic()
    with pytest.raises(TimeoutError, match=r"it took longer than 0.1 seconds"):
        within(0.1, work)
    assert time.monotonic() - since < 10
    assert not threads._timed


def test_an_interruption_comes_to_its_own_work_alone_however_close_the_end(monkeypatch):
    monkeypatch.setattr(threads, "TICK", 0.0005)
    within(5.0, lambda: spin(0.3))  # until the watchdog has looked at its watch
    ends = {"in time": 0, "late": 0, "elsewhere": 0}

    def run(seed):
        rng = random.Random(seed)
        for _ in range(200):
            limit = 0.001 + 0.001 * rng.random()
            try:
                within(limit, partial(spin, limit + 0.002 * rng.random() - 0.0007))
                ends["in time"] += 1
            except TimeoutError:
                ends["late"] += 1
            try:
                sum(range(200))
            except BaseException:
                ends["elsewhere"] += 1

    workers = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert ends["late"] > 10
    assert ends == {"in time": 800 - ends["late"], "late": ends["late"], "elsewhere": 0}
    assert not threads._timed
