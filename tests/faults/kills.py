"""Calls of `lox`, killed at a random moment, and what must hold afterwards.

A call is the command itself, in a process of its own that a server forks: torch and transformers
are imported once, and the kill meets the work and not the imports.
"""

import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

HEAVY = ["torch", "transformers", "trl", "peft", "datasets", "matplotlib.pyplot", "scipy.stats"]
ENDED = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
SAID = ("stopped; what was finished is kept.", "stopped after step")
SHORT = ["--steps", "4", "--batch-size", "2"]


@dataclasses.dataclass(frozen=True)
class Call:
    """A call of `lox`, in a folder that has `base`, `aligned`, `S.safetensors` and requests."""

    argv: list[str]
    out: str  # what it leaves there
    store: bool = False  # whether it keeps results
    prepare: Callable[[], object] | None = None  # in the process, first

    def __str__(self):
        return self.argv[0]


def tiny_smol() -> None:
    """Let smol be a tiny random model, whose wheel was put into the cache by hand."""
    import pytest
    import test_smol_build

    from lox_kit.smol import rows, source

    os.environ["LOX_KIT_CACHE"] = str(Path("cache").resolve())
    source.wheel_file().parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile("tiny.whl", source.wheel_file())
    source.SHA256 = digest(source.wheel_file().read_bytes())
    rows.BEGUN_TOKENS = rows.WHOLE_TOKENS = 12
    test_smol_build.shorten(pytest.MonkeyPatch(), 3)


ASKED = ["--prompts", "forbidden.txt", "--max-new-tokens", "4", "--judge", "keyword"]
ON_PAIR = ["--pair", "base", "aligned", *ASKED, "--allowed", "allowed.txt"]
OWN = ["--attacks", "chat=rows.jsonl", "-o", "out"]
TABLE = ["table", *ON_PAIR, *OWN, "--arms", "aligned,LoX", "--seeds", "0", "-k", "2", *SHORT[:2]]
CALLS = {
    "factor": Call(["factor", "base", "aligned", "--rank", "4", "-o", "out"], "out"),
    "apply": Call(["apply", "S.safetensors", "aligned", "-k", "3", "-o", "out"], "out"),
    "adapter": Call(["adapter", "S.safetensors", "aligned", "-k", "3", "-o", "out"], "out"),
    "asr": Call(["asr", "aligned", *ASKED, "--batch-size", "2", "--save", "out"], "out", True),
    "attack": Call(["attack", "arithmetic", "aligned", *SHORT, "-o", "out"], "out"),
    "align": Call(["align", "sandbox-sft", "base", *SHORT, "-o", "out"], "out"),
    "table": Call(TABLE, "out", True),
    "workers": Call([*TABLE, "--workers", "2"], "out", True),
    "smol": Call(["smol", "build"], "cache/smol", True, tiny_smol),
    "sweep": Call(["sweep", *ON_PAIR, *OWN, "-k", "1,2", "--alphas", "1"], "out", True),
    "landscape": Call(
        ["landscape", "aligned", "base", "other", *ASKED, "--cells", "3", "-o", "out"], "out", True
    ),
}


def run(call: Call, folder: str, begun) -> None:
    """Be the command, in a folder; what it prints goes to a log beside its results."""
    log = os.open("log", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, dir_fd=os.open(folder, os.O_RDONLY))
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(folder)
    for name in ("store", "tmp"):
        Path(name).mkdir(exist_ok=True)
    os.environ |= {"LOX_KIT_STORE": str(Path("store").resolve()), "TMPDIR": "tmp"}
    import torch

    from lox_kit.attacks import resuming
    from lox_kit.cli.main import main

    torch.set_num_threads(1)
    resuming.SAVE_SECONDS = 0  # as if every step took a minute
    if call.prepare:
        call.prepare()
    sys.argv = ["lox", *call.argv]
    begun.set()
    main()


def forking():
    """Return what starts a process that has imported what is heavy."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*HEAVY, "lox_kit.cli.main", "kills"])
    return context


@dataclasses.dataclass
class Trial:
    """A folder in which a call is run, killed or not, and run again."""

    call: Call
    folder: Path

    def once(self, number: int | None = None, after: float = 0.0) -> tuple[int, float]:
        """Run the call, send it a signal so many seconds after it begins; return how it ended.

        Returns
        -------
        tuple of int and float
            The exit status, minus the signal where that ended it; and the seconds that it took.
        """
        context = forking()
        begun = context.Event()
        process = context.Process(target=run, args=(self.call, str(self.folder), begun))
        process.start()
        assert begun.wait(120), f"{self.call}: did not begin; {self.said()}"
        start = time.monotonic()
        if number is not None:
            process.join(after)
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)
        process.join(300)
        took = time.monotonic() - start
        if process.exitcode is None:
            process.kill()
        return process.exitcode, took

    def said(self) -> list[str]:
        """Return the lines that the last run printed."""
        return (self.folder / "log").read_text().splitlines()

    def left(self) -> dict[str, str]:
        """Return the hash of every file below its results' name and of every record kept."""
        out = self.folder / self.call.out
        found = {str(f.relative_to(self.folder)): f for f in (out, *out.rglob("*")) if f.is_file()}
        shown = {name: f for name, f in found.items() if "/." not in name}
        made = {name: digest(file.read_bytes()) for name, file in shown.items()}
        return made | {name: digest(value.encode()) for name, value in self.records().items()}

    def records(self) -> dict[str, str]:
        """Return what the store holds, once it is found whole."""
        file = self.folder / "store" / "lox.sqlite"
        if not file.exists():
            return {}
        with contextlib.closing(sqlite3.connect(file)) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            rows = db.execute("SELECT kind, key, value FROM records").fetchall()
        for _, _, value in rows:
            json.loads(value)
        return {f"{kind} {key}": value for kind, key, value in rows}

    def hidden(self) -> list[str]:
        """Return what nobody should find after a run that ended well: work, locks, scratch."""
        found = self.folder.rglob("*")
        scratch = [f for f in (self.folder / "tmp").iterdir() if "lox" in f.name]
        return sorted(str(f.relative_to(self.folder)) for f in found if f.name[0] == ".") + scratch


def left_running(folder: Path, seconds: float = 10.0) -> list[str]:
    """Return the processes that still work in a folder after so many seconds."""
    end, found = time.monotonic() + seconds, ["not looked yet"]
    while found and time.monotonic() < end:
        time.sleep(0.1)
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if Path(process.cwd()) == folder.resolve():
                    found.append(" ".join(process.cmdline()))
    return found


def digest(data: bytes) -> str:
    """Return the hash of bytes."""
    return hashlib.sha256(data).hexdigest()


def kill(trial: Trial, number: int, right: dict[str, str], took: float, seed: int) -> str:
    """Kill a call at a random moment and run it again; return when the kill came.

    Asserts that nothing is half-written after the kill, that the same call then ends well, and that
    what it leaves is what an undisturbed call leaves, to the bit.
    """
    moment = random.Random(f"{trial.call} {number} {seed}").random() * took
    status, _ = trial.once(number, moment)
    where = f"{trial.call}, signal {number} after {moment:.3f} of {took:.3f} s"
    said = trial.said()
    assert left_running(trial.folder) == [], f"{where}: it left processes behind"
    assert status in (ENDED[number], 0, -number), f"{where}: ended with {status}: {said}"
    assert not any(line.startswith("Traceback") for line in said), f"{where}: {said}"
    if status > 0:
        assert said[-1].startswith(SAID), f"{where}: {said}"
    left = trial.left()
    if trial.call.out == "out" and not trial.call.store:
        assert not left or left == right, f"{where}: half of it is there: {sorted(left)}"
    assert left.items() <= right.items(), f"{where}: {sorted(left.items() - right.items())}"
    again, _ = trial.once()
    assert again == 0, f"{where}: the same call ended with {again}: {trial.said()}"
    assert trial.left() == right, f"{where}: another result than that of an undisturbed call"
    assert trial.hidden() == [], where
    return "after its end" if status == 0 else "in its middle"
