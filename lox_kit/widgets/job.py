"""Long work in a thread: the one place in the panels that knows threads.

A job runs one piece of work at a time. Work is a function that takes a `Ticket` and calls its
`step` as it goes on; there a cancelled job ends and a paused one waits.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import traitlets

INTERVAL = 0.1  # seconds between updates: more of them fill the server's message queue
BREATH = 0.3  # between those whose pictures take long to draw, at the cost of the work
STATUS = ("idle", "running", "paused", "cancelling", "done", "cancelled", "failed")


class Cancelled(Exception):  # noqa: N818 (it is no error)
    """Raised in the work, at its next step, when the job was cancelled."""


class Ticket:
    """What the work holds: its way to report, and where it learns that it is to stop."""

    def __init__(self, job: Job):
        self._job = job
        self._go = threading.Event()
        self._go.set()
        self.cancelled = threading.Event()
        self._started, self._rested = time.monotonic(), 0.0
        self._show: Callable[[], None] | None = None

    def step(
        self, what: str, done: int = 0, total: int = 0, show: Callable[[], None] | None = None
    ) -> None:
        """Report how far the work is; end here if cancelled, wait here while paused.

        Parameters
        ----------
        what, done, total
            As `threads.OnStage`.
        show : callable, optional
            Shows what the work has made so far. It is called with the report, at most once an
            interval, and the last one given is always called.

        Raises
        ------
        Cancelled
            If the job was cancelled.
        """
        self._show = show or self._show  # a later report without one does not take it away
        self._job._updates.give(lambda: self._tell(what, done, total))
        if not self._go.is_set():
            since = time.monotonic()
            self._go.wait()
            self._rested += time.monotonic() - since
        if self.cancelled.is_set():
            raise Cancelled

    def settle(self, seconds: float) -> None:
        """Give later work so long to take the place of this one.

        A slider that is dragged asks for something new at every step of the way.

        Raises
        ------
        Cancelled
            If the job was cancelled in that time.
        """
        if self.cancelled.wait(seconds):
            raise Cancelled

    def _tell(self, what, done, total) -> None:
        """Put a report on the job, and the time left as the pace so far gives it."""
        worked = time.monotonic() - self._started - self._rested
        left = worked / done * (total - done) if done and total else None
        self._job.set_trait("seconds_left", left)
        self._job.set_trait("progress", (what, done, total))
        show, self._show = self._show, None
        if show:
            show()

    def cancel(self) -> None:
        """Let the work end at its next step, also from a pause."""
        self.cancelled.set()
        self._go.set()


class Job(traitlets.HasTraits):
    """Runs one piece of work at a time in a daemon thread, and says how it stands.

    Parameters
    ----------
    interval : float
        Seconds between updates.

    Attributes
    ----------
    status : one of `STATUS`
    progress : (what, done, total)
    seconds_left : float or None
        At the pace so far.
    error : str
        What went wrong, where the status is "failed".
    lock : threading.RLock
        Held while traits change; a view that draws from several threads takes it, too.
    """

    status = traitlets.Enum(STATUS, "idle", read_only=True)
    progress = traitlets.Tuple(("", 0, 0), read_only=True)
    seconds_left = traitlets.Float(None, allow_none=True, read_only=True)
    error = traitlets.Unicode(read_only=True)

    def __init__(self, interval: float = INTERVAL):
        super().__init__()
        self.lock = threading.RLock()
        self.closed = False
        self._updates = Latest(self.lock, interval)
        self._ticket: Ticket | None = None
        self._next: Callable[[Ticket], None] | None = None
        self._thread: threading.Thread | None = None

    def start(self, work: Callable[[Ticket], None]) -> None:
        """Run `work(ticket)`; work that is under way is cancelled, and the latest follows it."""
        with self.lock:
            if self.closed:
                return
            self._next = work
            if self._ticket:
                self._ticket.cancel()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lox_kit job", daemon=True)
                self._thread.start()

    def cancel(self) -> None:
        """End the work at its next step; the status says so at once."""
        with self.lock:
            self._next = None
            if self._ticket:
                self._ticket.cancel()
                self.set_trait("status", "cancelling")

    def pause(self) -> None:
        """Hold the work at its next step."""
        with self.lock:
            if self._ticket and self.status == "running":
                self._ticket._go.clear()
                self.set_trait("status", "paused")

    def resume(self) -> None:
        """Let paused work go on."""
        with self.lock:
            if self._ticket and self.status == "paused":
                self.set_trait("status", "running")
                self._ticket._go.set()

    def close(self) -> None:
        """Cancel, and start nothing any more."""
        self.closed = True
        self.cancel()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until nothing runs and the thread is gone; return whether that was in time."""
        if thread := self._thread:
            thread.join(seconds)
        return thread is None or not thread.is_alive()

    def _run(self) -> None:
        """Do one piece of work after the other until there is none."""
        while (ticket := self._begin()) is not None:
            end, error = "done", ""
            try:
                self._work(ticket)
            except Cancelled:
                end = "cancelled"
            except Exception as problem:  # whatever it is, the panel shows it
                logging.getLogger(__name__).exception("a panel's job failed")
                end, error = "failed", f"{type(problem).__name__}: {problem}"
            with self.lock:
                self._shown(self._updates.flush)
                self._ticket = None
                if self._next is None:
                    self._shown(self.set_trait, "error", error)
                    self._shown(self.set_trait, "status", end)

    def _begin(self) -> Ticket | None:
        """Return a ticket for the work that is next, or None and let the thread end."""
        with self.lock:
            self._work, self._next = self._next, None
            if self._work is None:
                self._thread = None
                return None
            self._ticket = Ticket(self)
            anew = {"error": "", "progress": ("", 0, 0), "seconds_left": None, "status": "running"}
            for name, value in anew.items():
                self._shown(self.set_trait, name, value)
            return self._ticket

    def _shown(self, change: Callable, *arguments) -> None:
        """Make a change that views follow; the job goes on where one of them fails."""
        try:
            change(*arguments)
        except Exception:
            logging.getLogger(__name__).exception("a view of a job failed")


class Latest:
    """Calls the latest of the functions it is given; one that a later one replaces is not called.

    Parameters
    ----------
    lock : threading.RLock
        Held during the call.
    interval : float
        Seconds. The first function is called at once, and then one an interval.
    rest : bool
        Call nothing until no function has come for an interval.
    """

    def __init__(self, lock: threading.RLock, interval: float, *, rest: bool = False):
        self._lock, self._interval, self._rest = lock, interval, rest
        self._waiting: Callable[[], None] | None = None
        self._last = -interval
        self._timer: threading.Timer | None = None

    def give(self, function: Callable[[], None]) -> None:
        """Call this, at its time, unless a later one takes its place."""
        with self._lock:
            left = self._last + self._interval - time.monotonic()
            if self._rest:
                self.cancel()
                left = self._interval
            self._waiting = function
            if left <= 0:
                self.flush()
            elif self._timer is None:
                self._timer = threading.Timer(left, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Call the function that waits, if there is one."""
        with self._lock:
            function = self._waiting
            self.cancel()
            if function:
                self._last = time.monotonic()
                function()

    def cancel(self) -> None:
        """Forget the function that waits."""
        with self._lock:
            self._waiting = None
            if self._timer:
                self._timer.cancel()
                self._timer = None
