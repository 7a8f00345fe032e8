import os
import threading
import time

import pytest
import torch

from lox_kit.threads import fitting_threads, map_in_order


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
