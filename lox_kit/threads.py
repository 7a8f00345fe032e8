"""How CPU threads are shared out: to a model, or to several matrices at once."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

SMALL = 10_000_000  # parameters


@contextmanager
def fitting_threads(module) -> Iterator[None]:
    """Run a small model on one CPU thread, a large one on as many as torch has.

    The matrices of a sandbox model are done before a second thread has woken up; and when another
    process wants the same cores, threads that wait for each other are many times slower than one.
    """
    import torch

    before = torch.get_num_threads()
    small = sum(p.numel() for p in module.parameters()) < SMALL
    if small:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if small:
            torch.set_num_threads(before)


def end_with_parent() -> None:
    """Have this worker process end when the process that started it is gone, even by kill -9."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def map_in_order(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Yield `function(item)` in order, `workers` items at a time, torch's threads shared out.

    Two products on one thread each finish before one after the other on two threads, when they are
    as thin as those of a block iteration, and do not wait for each other on a busy machine.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // workers))
    running: deque = deque()
    try:
        with ThreadPoolExecutor(workers) as pool:
            for item in items:
                running.append(pool.submit(function, item))
                if len(running) > workers:  # one waits, to begin while a result is being used
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
    finally:
        torch.set_num_threads(before)
