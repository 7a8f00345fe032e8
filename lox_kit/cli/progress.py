"""What the command line shows while it works, and its tables (rich)."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function (what, done, total) that shows one bar with the time left, on stderr.

    A new `what` starts the clock again; text after a comma may change with every step.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    hidden = not console.is_terminal  # in a pipe or a log, a bar leaves empty lines
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task("starting", total=None)
        last = ""

        def show(what: str, done: int, total: int) -> None:
            nonlocal last
            if what.split(", loss")[0] != last:
                last = what.split(", loss")[0]
                progress.reset(task)
            progress.update(task, description=what, completed=done, total=total or None)

        yield show


@contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether Ctrl-C was pressed; a second one interrupts at once."""
    pressed = threading.Event()

    def first(*_) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, first)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def layers(verb: str) -> Iterator[Callable[[int, int, str], None]]:
    """Yield an `on_layer` function that shows how many matrices are done."""
    with stages() as show:
        yield lambda done, total, name: show(verb, done, total)


def print_frame(frame, title: str) -> None:
    """Print a data frame as a table, numbers to three digits."""
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in frame.columns:
        side = "right" if frame[column].dtype.kind in "iuf" else "left"
        table.add_column(column, justify=side, no_wrap=True)
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row))
    Console().print(table)


def print_shares(title: str, summary: dict[str, dict]) -> None:
    """Print shares or means with their intervals and counts."""
    table = Table(title=title)
    for column in ("measure", "value", "95 %", "count"):
        table.add_column(column, justify="left" if column == "measure" else "right")
    for name, s in summary.items():
        form, count = (".2f", f"{s['count']}/{s['n']}") if "count" in s else (".3g", str(s["n"]))
        value, low, high = (format(s[end], form) for end in ("value", "low", "high"))
        table.add_row(name, value, f"{low} - {high}", count)
    Console().print(table)


def print_agreement(pairs: list[dict]) -> None:
    """Print how far each two judges agree: the table of both, and Cohen's kappa."""
    table = Table(title="harmful by ... of two judges")
    columns = ("judges", "both", "first", "second", "neither", "left out", "agree", "kappa")
    for column in columns:
        table.add_column(column, justify="left" if column == "judges" else "right")
    for p in pairs:
        counts = (str(p[c]) for c in ("both", "only_first", "only_second", "neither", "left_out"))
        rates = ("-" if p[c] is None else f"{p[c]:.2f}" for c in ("agree", "kappa"))
        table.add_row(f"{p['first']}, {p['second']}", *counts, *rates)
    Console().print(table)
