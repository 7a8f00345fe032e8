"""Who does the work of a verb: processes of this machine, or a Dask cluster's."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import click

from lox_kit.threads import end_with_parent


class Workers(click.ParamType):
    """How many processes, or where a Dask scheduler is."""

    name = "number or dask://host:port"

    def convert(self, value, param, ctx):
        """Return the number, or the scheduler's address; "" is a cluster of this machine's own."""
        where, scheme, address = str(value).partition("dask://")
        return address if scheme and not where else click.IntRange(1).convert(value, param, ctx)


@contextmanager
def worker_pool(workers: int | str) -> Iterator[Executor | None]:
    """Yield an executor: processes of this machine, those of a Dask scheduler, or for one None.

    Dask's workers have one thread each (a second one would turn the first one's model), and see the
    same folders as this process. What one had begun when it died is begun again by another; after a
    call that was cut off they may go on with a piece of work.

    Raises
    ------
    ValueError
        If a worker has more threads.
    """
    if isinstance(workers, str):
        from distributed import Client

        own = {} if workers else {"threads_per_worker": 1}
        with Client(workers or None, **own) as client:
            if any(threads > 1 for threads in client.nthreads().values()):
                raise ValueError(f"dask://{workers}: start its workers with `--nthreads 1`.")
            yield client.get_executor()
    elif workers < 2:
        yield None
    else:
        # A forked child would inherit torch's threads in a state in which they wait for ever.
        spawn = get_context("spawn")
        with ProcessPoolExecutor(workers, spawn, initializer=end_with_parent) as pool:
            yield pool
