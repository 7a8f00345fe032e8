"""Long work: who does it, a bar meanwhile; and what is shown of it, lines and tables (rich)."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import click

from lox_kit.attacks import StoppedError
from lox_kit.text import one_line
from lox_kit.threads import OnStage, end_with_parent, is_first

LONG = 10.0  # seconds without a line


def say(*lines, err=False, by_all=False):
    """Print lines, of processes launched together the first one's or those of all.

    Text from outside cannot add lines or move the cursor.
    """
    if by_all or is_first():
        click.echo("\n".join(map(one_line, lines)), err=err)


@contextmanager
def stages() -> Iterator[OnStage]:
    """Yield an `on_stage` function that shows, on stderr, one bar with the time left.

    A new `what` starts the clock again; text after a comma may change with every step. In a pipe or
    a log, where a bar leaves empty lines, there is a line for each tenth that is done, of few parts
    or of bytes only if that takes long.
    """
    import rich.progress as bars
    from rich.console import Console

    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(bar_width=30),
        bars.MofNCompleteColumn(),
        bars.TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    plain = not (console.is_terminal and is_first())
    with bars.Progress(*columns, console=console, transient=True, disable=plain) as progress:
        task = progress.add_task("starting", total=None)
        last, said, since = "", 0, time.monotonic()

        def show(what: str, done: int, total: int) -> None:
            nonlocal last, said, since
            if what.split(", loss")[0] != last:
                last, said, since = what.split(", loss")[0], 0, time.monotonic()
                progress.reset(task)
            progress.update(task, description=one_line(what), completed=done, total=total or None)
            tenth = 10 * done // total if total else 0
            many = total >= 10 and not what.endswith("bytes")
            if plain and tenth > said and (many or time.monotonic() > since + LONG):
                say(f"{what}: {done} of {total}", err=True)
                said, since = tenth, time.monotonic()
            said = min(said, tenth)  # the same may be done once more

        yield show


@contextmanager
def training(name: str) -> Iterator[dict]:
    """Yield what a run takes to show its progress and to stop: after the step, all of it kept.

    Ctrl-C or SIGTERM stops it and then ends the command, a second one at once.
    """
    came: list[int] = []

    def first(number: int, _frame) -> None:
        came.append(number)
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {s: signal.signal(s, first) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        with stages() as on_stage:
            yield {
                "on_step": lambda s: on_stage(f"{name}, loss {s.loss:.3f}", s.step, s.total),
                "stop": lambda step: bool(came),
            }
    except StoppedError as error:
        say(str(error), err=True)
        came.append(signal.SIGTERM)  # another of the processes may have been told
        raise click.exceptions.Exit(128 + came[0]) from None
    finally:
        restore()


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


def print_rows(title: str, rows: Iterable[dict]) -> None:
    """Print records as a table, numbers to three digits; brackets in names are no markup."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = list(rows)
    table = Table(title=Text(one_line(title), "table.title"), box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head, value in rows[0].items():
        side = "left" if isinstance(value, str) else "right"
        table.add_column(Text(one_line(head)), justify=side, overflow="fold")
    for row in rows:
        cells = (f"{v:.3g}" if isinstance(v, float) else v for v in row.values())
        table.add_row(*(Text(one_line("-" if cell is None else cell)) for cell in cells))
    Console().print(table)


def print_shares(title: str, summary: dict[str, dict]) -> None:
    """Print shares or means with their intervals and counts."""
    rows = []
    for name, s in summary.items():
        form, count = (".2f", f"{s['count']}/{s['n']}") if "count" in s else (".3g", str(s["n"]))
        value, low, high = (format(s[end], form) for end in ("value", "low", "high"))
        rows.append({"measure": name, "value": value, "95 %": f"{low} - {high}", "count": count})
    print_rows(title, rows)
