"""Long work in a thread: start, progress, pause, cancel, errors, and no flood of updates."""

import threading
import time

import pytest

from lox_kit.widgets.job import INTERVAL, Cancelled, Job, Latest
from lox_kit.widgets.shell import job_text


@pytest.fixture
def job():
    """A job that is closed afterwards, with a list of the statuses it went through."""
    job = Job()
    job.seen = []
    job.observe(lambda change: job.seen.append(change.new), "status")
    yield job
    job.close()
    assert job.wait(10)


class Steps:
    """Work that does one step each time it is let."""

    def __init__(self, total=1000):
        self.total, self.done, self.ended = total, 0, None
        self.reached, self.go = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, ticket):
        try:
            while self.done < self.total:
                self.done += 1
                self.reached.release()
                assert self.go.acquire(timeout=10)
                ticket.step("steps", self.done, self.total)
        except Cancelled:
            self.ended = "cancelled"
            raise

    def at(self):
        """Wait until it is about to take a step."""
        assert self.reached.acquire(timeout=10)


def test_the_last_report_arrives_and_what_was_shown_last_though_later_steps_show_nothing(job):
    shown = []

    def work(ticket):
        for i in range(1, 6000):
            ticket.step("fast", i, 6000, lambda i=i: shown.append(i))
        ticket.step("fast", 6000, 6000)

    job.start(work)
    assert job.wait(30)
    assert job.seen == ["running", "done"]
    assert (shown[0], shown[-1]) == (1, 5999)
    assert len(shown) < 600
    assert job.progress == ("fast", 6000, 6000)


def test_a_report_that_came_too_soon_is_delivered_without_another(job):
    holds, shown = threading.Event(), threading.Event()

    def work(ticket):
        ticket.step("first", 1, 3)
        ticket.step("second", 2, 3, shown.set)
        assert holds.wait(10)

    job.start(work)
    assert shown.wait(10 * INTERVAL)
    assert job.progress == ("second", 2, 3)
    holds.set()


def test_cancel_is_acknowledged_at_once_and_ends_the_work_at_its_next_step(job):
    work = Steps()
    job.start(work)
    work.at()
    start = time.monotonic()
    job.cancel()
    assert job.status == "cancelling"
    assert time.monotonic() - start < 0.2
    work.go.release()
    assert job.wait(10)
    assert (work.done, work.ended, job.status) == (1, "cancelled", "cancelled")


def test_paused_work_waits_goes_on_and_can_be_cancelled(job):
    work = Steps()
    job.start(work)
    work.at()
    job.pause()
    assert job.status == "paused"
    work.go.release()
    assert not work.reached.acquire(timeout=0.3)  # no second step
    job.resume()
    assert job.status == "running"
    work.at()
    job.pause()
    work.go.release()
    job.cancel()
    assert job.wait(10)
    assert job.seen == ["running", "paused", "running", "paused", "cancelling", "cancelled"]


def test_time_left_is_that_of_the_pace_so_far_without_the_pauses(job):
    left = []
    job.observe(lambda change: left.append(job.seconds_left), "progress")

    def work(ticket):
        time.sleep(0.2)
        ticket.step("slow", 1, 4)
        job.pause()
        threading.Timer(1.0, job.resume).start()
        ticket.step("slow", 1, 4)
        time.sleep(0.2)
        ticket.step("slow", 2, 4)

    job.start(work)
    assert job.wait(10)
    first, last = next(s for s in left if s is not None), job.seconds_left
    assert first == pytest.approx(0.6, abs=0.3)
    assert last == pytest.approx(0.4, abs=0.3)  # 1.4 with the pause counted


def test_an_error_is_kept_with_its_kind(job, caplog):
    def work(ticket):
        raise ValueError("layer <7>: no such thing")

    job.start(work)
    assert job.wait(10)
    assert (job.status, job.error) == ("failed", "ValueError: layer <7>: no such thing")
    assert "layer &lt;7&gt;" in job_text(job)
    assert "a panel's job failed" in caplog.text
    job.start(lambda ticket: None)
    assert job.wait(10)
    assert (job.status, job.error) == ("done", "")


def test_the_latest_work_takes_the_place_of_what_runs_and_of_what_waits(job):
    first, done = Steps(), []
    job.start(first)
    first.at()
    for i in range(3):
        job.start(lambda ticket, i=i: done.append(i))
    first.go.release()
    assert job.wait(10)
    assert first.ended == "cancelled"
    assert done == [2]
    assert job.seen == ["running", "done"]


def test_work_that_is_to_settle_gives_way_to_later_work(job):
    done = []

    def work(ticket):
        ticket.settle(30)
        done.append("first")

    job.start(work)
    job.start(lambda ticket: done.append("second"))
    assert job.wait(10)
    assert done == ["second"]


def test_a_closed_job_stops_and_starts_nothing(job):
    work, late = Steps(), []
    job.start(work)
    work.at()
    job.close()
    job.start(late.append)
    work.go.release()
    assert job.wait(10)
    assert (work.ended, late) == ("cancelled", [])


def test_what_is_for_later_waits_until_nothing_comes_any_more():
    given, later = [], Latest(threading.RLock(), 0.3, rest=True)
    for i in range(5):
        later.give(lambda i=i: given.append(i))
        time.sleep(0.1)
        assert given == []
    time.sleep(0.6)
    assert given == [4]


def test_a_job_s_own_words_are_shown_as_text(job):
    for name, value in (("status", "running"), ("progress", ("<i>matrix</i>", 1, 2))):
        job.set_trait(name, value)
    assert "&lt;i&gt;matrix&lt;/i&gt; · 1 of 2" in job_text(job)


def test_a_view_that_fails_does_not_end_the_job(job, caplog):
    def view(change):
        raise RuntimeError("cannot be drawn")

    job.observe(view, "status")
    job.start(lambda ticket: None)
    assert job.wait(10)
    assert job.status == "done"
    assert "a view of a job failed" in caplog.text
