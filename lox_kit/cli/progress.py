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
from rich.text import Text

from lox_kit.text import one_line
from lox_kit.threads import OnStage


@contextmanager
def stages() -> Iterator[OnStage]:
    """Yield an `on_stage` function that shows one bar with the time left, on stderr.

    A new `what` starts the clock again; text after a comma may change with every step.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
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
            progress.update(task, description=one_line(what), completed=done, total=total or None)

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


def _print_table(title: str, heads, rows, sides, no_wrap=False, **options) -> None:
    """Print a table; brackets in a name are no markup."""
    table = Table(title=Text(one_line(title), "table.title"), **options)
    for head, side in zip(heads, sides, strict=True):
        table.add_column(Text(one_line(head)), justify=side, no_wrap=no_wrap)
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    Console().print(table)


def print_frame(frame, title: str) -> None:
    """Print a data frame as a table, numbers to three digits."""
    sides = ["right" if frame[c].dtype.kind in "iuf" else "left" for c in frame.columns]
    rows = (
        (f"{v:.3g}" if isinstance(v, float) else v for v in row)
        for row in frame.itertuples(index=False)
    )
    _print_table(title, frame.columns, rows, sides, True, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))


def print_shares(title: str, summary: dict[str, dict]) -> None:
    """Print shares or means with their intervals and counts."""
    rows = []
    for name, s in summary.items():
        form, count = (".2f", f"{s['count']}/{s['n']}") if "count" in s else (".3g", str(s["n"]))
        value, low, high = (format(s[end], form) for end in ("value", "low", "high"))
        rows.append((name, value, f"{low} - {high}", count))
    _print_table(title, ("measure", "value", "95 %", "count"), rows, ["left", *["right"] * 3])


def print_agreement(pairs: list[dict]) -> None:
    """Print how far each two judges agree: the table of both, and Cohen's kappa."""
    heads = ("judges", "both", "first", "second", "neither", "left out", "agree", "kappa")
    rows = []
    for p in pairs:
        counts = (p[c] for c in ("both", "only_first", "only_second", "neither", "left_out"))
        rates = ("-" if p[c] is None else f"{p[c]:.2f}" for c in ("agree", "kappa"))
        rows.append((f"{p['first']}, {p['second']}", *counts, *rates))
    _print_table("harmful by ... of two judges", heads, rows, ["left", *["right"] * 7])
