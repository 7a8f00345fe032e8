"""Long work: how it is shared out, to CPU threads, workers or processes, and its progress.

Progress has one shape: what is being done, how much of it is done, how much there is.
"""

from __future__ import annotations

import ctypes
import dataclasses
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")
R = TypeVar("R")
Name = TypeVar("Name")

OnStage = Callable[[str, int, int], None]  # what is being done, done of it, in all (0: not known)

Stop = Callable[[], bool]  # asked between pieces of work: once it is true, no more is begun

SMALL = 10_000_000  # parameters
TICK = 0.25  # seconds between two looks at what has a limit of time

_kept = threading.local()  # by each thread: room for the largest matrix it has met


def tell(on_stage: OnStage | None, what: str, done: int, total: int) -> None:
    """Report what is being done. Raising from `on_stage` ends the work there.

    Without `on_stage`, a cell of a notebook shows a bar, with the time left.
    """
    if on_stage:
        on_stage(what, done, total)
    elif cell := _running_cell():
        _show_bar(cell, what, done, total)


_bars: dict[int, object] = {}  # the one on screen, by its cell


def _running_cell() -> int | None:
    """Return the number of the notebook's cell that this runs in; None anywhere else."""
    module = sys.modules.get("IPython")
    shell = module and module.get_ipython()
    if not hasattr(shell, "kernel") or threading.current_thread() is not threading.main_thread():
        return None
    return shell.execution_count


def _show_bar(cell: int, what: str, done: int, total: int) -> None:
    """Show this work on the cell's one bar, which appears when something is left to do."""
    from tqdm.auto import tqdm

    if cell not in _bars:
        _bars.clear()
        if done >= total:
            return
        _bars[cell] = tqdm(total=total, desc=what, miniters=1)  # else paced by the work before
    bar = _bars[cell]
    if bar.desc != f"{what}: ":
        bar.reset(total)
        bar.set_description(what, refresh=False)
    bar.update(done - bar.n)
    if done >= total:
        bar.refresh()


@contextmanager
def importing(module: str) -> Iterator[None]:
    """Have a notebook's cell say so while a library is imported, which takes seconds."""
    if module in sys.modules or _running_cell() is None:
        yield
        return
    from tqdm.auto import tqdm

    library = module.partition(".")[0]
    with tqdm(desc=f"importing {library}", bar_format="{desc} ...", leave=False):
        yield


@contextmanager
def fitting_threads(module, *, when_busy: int = SMALL) -> Iterator[None]:
    """Run a small model on one CPU thread, a large one on as many as torch has.

    The matrices of a sandbox model are done before a second thread has woken up; and when another
    process wants the same cores, threads that wait for each other are many times slower than one:
    on two cores with five processes, 12 tokens of a model of 28 million parameters took 14 to 18 s
    on two threads and 1.8 s on one, of 74 million 12 to 16 s and 4 to 5 s.

    Parameters
    ----------
    when_busy : int
        Parameters below which a model counts as small on a busy machine. Sums may then round
        differently from one run to the next, so training does not ask for it.
    """
    import torch

    before = torch.get_num_threads()
    is_busy = hasattr(os, "getloadavg") and os.getloadavg()[0] > 1.25 * (os.cpu_count() or 1)
    limit = max(SMALL, when_busy) if is_busy else SMALL
    small = sum(p.numel() for p in module.parameters()) < limit
    if small:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if small:
            torch.set_num_threads(before)


def launched() -> bool:
    """Whether `accelerate launch`, or torchrun, started this process together with others."""
    there = {"RANK", "LOCAL_RANK"} <= os.environ.keys()
    return there and os.environ.get("WORLD_SIZE", "1") != "1"


def is_first() -> bool:
    """Whether this is the one of the processes launched together that locks, writes and reports."""
    return not launched() or os.environ["RANK"] == "0"


def end_with_parent() -> None:
    """Have this worker process end when the process that started it is gone, even by kill -9."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _Late(BaseException):
    """Is raised in a thread whose time is up; a handler of errors does not stop it."""


@dataclasses.dataclass(eq=False)
class _Timed:
    """Some work with a limit of time."""

    end: float
    thread: int
    is_late: bool = False  # it is being interrupted
    is_told: bool = False  # it has been


_timed: dict[int, _Timed] = {}  # what is being done; who takes it out decides how it ends
_watchdog = threading.Thread()


def _watch() -> None:
    """Interrupt what takes too long."""
    while True:
        time.sleep(TICK)
        now = time.monotonic()
        for key, work in list(_timed.items()):
            if work.end < now and _timed.pop(key, None):
                work.is_late = True
                _raise_in(work.thread, _Late)
                work.is_told = True


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Raise an error in a thread, at its next step in Python; with None, not raise it after all."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), error and ctypes.py_object(error)
    )


def within(seconds: float, function: Callable[[], R]) -> R:
    """Return `function()`, interrupted in its own thread if it takes longer.

    One thread watches over all calls, so that a call costs about a microsecond. A step that is a
    single operation of C is not interrupted before its end.

    Raises
    ------
    TimeoutError
        If it takes longer.
    """
    global _watchdog
    if not _watchdog.is_alive():  # the first call, also of a process that was forked
        _watchdog = threading.Thread(target=_watch, daemon=True)
        _watchdog.start()
    work = _Timed(time.monotonic() + seconds, threading.get_ident())
    try:
        try:
            _timed[id(work)] = work
            return function()
        finally:
            if _timed.pop(id(work), None) is None:  # the watchdog took it
                while not work.is_told:
                    time.sleep(0.001)
                _raise_in(work.thread, None)  # if it has not come yet, it comes no more
    except _Late:
        if not work.is_late:  # this is for work around it
            raise
        raise TimeoutError(f"it took longer than {seconds:g} seconds") from None


def reused(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return room for a matrix, the same at every call of a thread for this dtype.

    On a CPU memory that is new takes three times as long to fill as memory that was used before:
    with it, factoring a matrix of 5632 by 2048 takes 11 to 17 % longer.
    """
    import torch

    size, room = math.prod(shape), getattr(_kept, str(dtype), None)
    if room is None or room.numel() < size or room.device != device:
        room = torch.empty(size, dtype=dtype, device=device)
        setattr(_kept, str(dtype), room)
    return room[:size].view(shape)


def never() -> bool:
    """Return False: the `Stop` of work that goes on to its end."""
    return False


def as_finished(
    function: Callable[[T], R],
    items: Mapping[Name, T],
    executor: Executor | None,
    stop: Stop = never,
) -> Iterator[tuple[Name, R]]:
    """Yield the name of each item and `function(item)`, as it is finished.

    Parameters
    ----------
    executor : Executor, optional
        Whose workers do it, many at a time; default here, one by one.
    stop : callable
        Once it is true, only what a worker has begun is still yielded. After an error nothing more
        is begun either, and what was begun is waited for; not of a cluster, which drops it.
    """
    if executor is None:
        for name, item in items.items():
            if stop():
                return
            yield name, function(item)
        return
    futures = {executor.submit(function, item): name for name, item in items.items()}
    try:
        for future in as_completed([*futures]):
            name = futures.pop(future)  # a cluster would make it again for as long as it is held
            if not future.cancelled():
                yield name, future.result()
            if stop():
                _cancel(futures)
    finally:  # also when the caller no longer listens
        _cancel(futures)
        wait(futures)


def _cancel(futures: Iterable[Future]) -> None:
    """Take back what no worker has begun."""
    for future in futures:
        future.cancel()


def map_in_order(
    function: Callable[[T], R], items: Sequence[T], workers: int, sizes: Sequence[int]
) -> Iterator[R]:
    """Yield `function(item)` in order, `workers` items at a time, torch's threads shared out.

    Two products on one thread each finish before one after the other on two threads, when they are
    as thin as those of a block iteration, and do not wait for each other on a busy machine.

    With several workers the largest item is begun first, so that none is left alone with it at the
    end. Besides that one, begun ahead of their turn are as many items as there are workers, or any
    number whose sizes together do not exceed the largest: small ones need not wait for a large one
    before them, and few results are held.
    """
    import torch

    largest = max(range(len(items)), key=lambda i: (sizes[i], i), default=0)
    first = largest if workers > 1 else 0
    waiting = sorted(range(len(items)), key=lambda i: i != first)
    begun: dict[int, Future] = {}
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // workers))
    pool = ThreadPoolExecutor(workers)
    try:
        for turn in range(len(items)):
            while waiting:
                ahead = [sizes[i] for i in begun if i not in (first, turn)]
                if len(ahead) >= workers and sum(ahead) + sizes[waiting[0]] > sizes[largest]:
                    break
                i = waiting.pop(0)
                begun[i] = pool.submit(function, items[i])
            yield begun.pop(turn).result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)
