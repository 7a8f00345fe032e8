"""How many CPU threads a model is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
