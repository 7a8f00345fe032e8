"""Whatever is killed, whenever: nothing half-written, and the same call ends as if undisturbed.

`make test-kills` has LOX_KIT_KILLS kills of each verb by each signal; `make test-slow` two of each.
"""

import os
import signal
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from verbs import DRAWING, LIGHT, OTHERS, STORE, assert_nothing_half, chosen, left

from lox_kit.attacks import resuming

STATUS = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
SAID = ("stopped; what was finished is kept.", "stopped after step")
QUICK = ("factor", "apply", "adapter", "asr")
TIMES = int(os.environ.get("LOX_KIT_KILLS", "2"))


@contextmanager
def every_step_is_kept():
    """As if a step of training took a minute."""
    resuming.SAVE_SECONDS = 0
    yield


def left_running(folder, seconds=10.0):
    """Return the processes that still work in a folder after so many seconds."""
    end, found = time.monotonic() + seconds, ["not looked yet"]
    while found and time.monotonic() < end:
        time.sleep(0.05)
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if Path(process.cwd()).is_relative_to(folder):
                    found.append(" ".join(process.cmdline()))
    return found


def kill(verbs, verb, folder, number, i):
    """Kill a verb at a random moment, look, and run it again."""
    whole = verbs.whole(verb)
    moment = chosen(verb, number, i).random() * verbs.seconds[verb]
    scratch = folder / "tmp"
    scratch.mkdir()
    lox = verbs.start(folder, verb, every_step_is_kept, environment={"TMPDIR": str(scratch)})
    assert lox.begun.wait(60), lox.wait()
    lox.process.join(moment)
    with suppress(ProcessLookupError):
        os.kill(lox.process.pid, number)
    done = lox.wait()
    where = f"{verb}, signal {number} after {moment:.3f} s: {done}"
    assert left_running(folder) == [], where
    assert done.status in (STATUS[number], 0, -number), where
    assert not any("Traceback" in line for line in done.said), where
    if done.status > 0:
        assert done.said[-1].startswith(SAID), where
    assert_nothing_half(left(folder), whole)
    again = verbs.run(folder, verb, every_step_is_kept, environment={"TMPDIR": str(scratch)})
    assert again.status == 0, (where, again)
    assert left(folder) == whole, where


def kills(names, times):
    """Return verb, signal and number of every kill."""
    return [
        pytest.param(verb, number, i, id=f"{verb}-{number.name}-{i}")
        for verb in names
        for number in STATUS
        for i in range(times)
    ]


@pytest.mark.parametrize(("verb", "number", "i"), kills(QUICK, 1))
def test_after_a_kill_the_same_call_ends_as_if_undisturbed(verbs, tmp_path, verb, number, i):
    kill(verbs, verb, tmp_path, number, i)


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "number", "i"), kills((*LIGHT, *DRAWING, *OTHERS), TIMES))
def test_after_many_kills_the_same_call_ends_as_if_undisturbed(verbs, tmp_path, verb, number, i):
    kill(verbs, verb, tmp_path, number, i + 1)


@contextmanager
def deaf():
    """Work whose SIGTERM comes where Python passes errors by."""
    from lox_kit import extrapolation

    class Deaf:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    def work(*arguments, **options):
        Deaf()
        time.sleep(5)

    extrapolation.SafetySubspace.from_pair = work
    yield


def test_a_signal_that_meets_a_destructor_ends_the_command_all_the_same(verbs, tmp_path):
    start = time.monotonic()
    assert verbs.run(tmp_path, "factor", deaf) == (143, ["stopped; what was finished is kept."])
    assert time.monotonic() - start < 4


@pytest.mark.parametrize("verb", LIGHT)
def test_a_call_that_was_done_says_so_and_writes_nothing_anew(verbs, verb):
    folder, whole = verbs.undisturbed(verb), verbs.whole(verb)
    made = {f: f.stat().st_mtime_ns for f in folder.rglob("*") if not f.match(STORE)}
    done = verbs.run(folder, verb)
    assert done.status == 0, done
    assert left(folder) == whole
    if verb != "asr":
        assert {f: f.stat().st_mtime_ns for f in made} == made
