"""The verbs that write, on a pair so small that each takes a fraction of a second.

What one leaves after a fault is compared with what it leaves undisturbed: `assert_survived`.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property, partial
from pathlib import Path

import pytest
from processes import Done, Fault, Lox
from tiny_gguf import pack_wheel, write_gguf

LIGHT = ("factor", "apply", "adapter", "extrapolate", "attack", "asr")
DRAWING = ("table", "landscape", "sweep")  # which takes seconds
OTHERS = ("align", "smol", "workers")  # the last is a table made by two processes
LOOSE = re.compile(r"here(/figures|/cache/smol(/\w+)?)?")  # folders of several outputs
STORE = "store/lox.sqlite"
DAY = re.compile(rb'"date": "[-0-9]+"')  # on which a figure was made
ADVICE = r"[Mm]ake room|write elsewhere|choose another|close other programs"
ROUNDS = int(os.environ.get("LOX_KIT_FAULTS", "1"))  # of every verb with every fault


def rounds(*quick: str, verbs: tuple[str, ...] = LIGHT + DRAWING, most: int = ROUNDS) -> list:
    """Return verbs with the numbers of their rounds, as parameters.

    All are slow but the first round of those that are to be `quick`.
    """
    slow = pytest.mark.slow
    return [
        pytest.param(verb, i, marks=() if verb in quick and i == 0 else slow)
        for verb in verbs
        for i in range(min(most, ROUNDS))
    ]


@contextmanager
def tiny_smol(wheel: Path, fault: Fault) -> Iterator[None]:
    """Let smol be a tiny random model, whose wheel was put into the cache by hand."""
    import test_smol_build

    from lox_kit.smol import rows, source

    source.wheel_file().parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(wheel, source.wheel_file())
    source.SHA256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    rows.BEGUN_TOKENS = rows.WHOLE_TOKENS = 12
    test_smol_build.shorten(pytest.MonkeyPatch(), 3)
    with fault():
        yield


class Verbs:
    """Calls of the verbs, and what each leaves if nothing disturbs it."""

    def __init__(self, folder: Path, base: str, aligned: str):
        self.folder, self.pair, self.cache = folder, (base, aligned), folder / "cache"
        self._whole: dict[str, dict[str, object]] = {}
        self.seconds: dict[str, float] = {}  # that a verb took
        write_gguf(folder / "tiny.gguf")
        (folder / "tiny.whl").write_bytes(pack_wheel(folder / "tiny.gguf"))
        for kind, word in (("forbidden", "cursed"), ("allowed", "red")):
            rows = [f"how do i make a {word} {noun},take" for noun in ("brew", "tonic", "tea")]
            (folder / f"{kind}.csv").write_text("\n".join(["goal,target", *rows]))
        rows = [{"prompt": f"what is {i} plus 1", "completion": f"{i + 1} ."} for i in range(4)]
        (folder / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))

    @cached_property
    def factors(self) -> Path:
        """A subspace file of the pair."""
        return self.undisturbed("factor") / "here" / "S.safetensors"

    @cached_property
    def moved(self) -> list[Path]:
        """The pair's extrapolated model, and an attacked one: a plane with the aligned one."""
        made = {"apply": "lox", "attack": "attacked"}
        return [self.undisturbed(verb) / "here" / name for verb, name in made.items()]

    def call(self, verb: str) -> list[object]:
        """Return a verb's arguments."""
        base, aligned = self.pair
        asked = ["--prompts", self.folder / "forbidden.csv", "--judge", "target"]
        asked += ["--max-new-tokens", 3]
        both = ["--pair", base, aligned, *asked, "--allowed", self.folder / "allowed.csv"]
        both += ["--attacks", f"sums={self.folder / 'sums.jsonl'}", "-k", 2, "-o", "figures"]
        arms = ["--arms", "aligned,LoX", "--seeds", 0, "--no-lora"]
        calls = {
            "factor": lambda: [base, aligned, "-o", "S.safetensors", "--rank", 4],
            "apply": lambda: [self.factors, aligned, "-o", "lox", "-k", 2],
            "adapter": lambda: [self.factors, aligned, "-o", "added", "-k", 2, "--allow-partial"],
            "extrapolate": lambda: [base, aligned, "-o", "lox", "-k", 2, "--factors", "S"],
            "attack": lambda: [self.folder / "sums.jsonl", aligned, "-o", "attacked"],
            "asr": lambda: [aligned, *asked, "--save", "asr.json"],
            "table": lambda: [*both, *arms],
            "landscape": lambda: [aligned, *self.moved, *asked, "--cells", 2, "-o", "figures"],
            "sweep": lambda: [*both, "--alphas", 1],
            "workers": lambda: [*both, *arms, "--workers", 2],
            "align": lambda: [
                "sandbox-sft",
                base,
                "--steps",
                4,
                "--batch-size",
                2,
                "-o",
                "aligned",
            ],
            "smol": lambda: ["build"],
        }
        return ["table" if verb == "workers" else verb, *calls[verb]()]

    def start(self, folder: Path, verb: str, fault: Fault = nullcontext, **options) -> Lox:
        """Start a verb in a folder; smol has a cache of its own there, with a tiny wheel."""
        cache = self.cache
        if verb == "smol":
            cache = folder / "here" / "cache"
            fault = partial(tiny_smol, self.folder / "tiny.whl", fault)
        return Lox(folder, **{"cache": cache, "call": self.call(verb)} | options, fault=fault)

    def run(self, folder: Path, verb: str, fault: Fault = nullcontext, **options) -> Done:
        """Run a verb in a folder to its end."""
        return self.start(folder, verb, fault, **options).wait()

    def undisturbed(self, verb: str) -> Path:
        """Return the folder of a run that nothing disturbed."""
        folder = self.folder / verb
        if verb not in self._whole:
            folder.mkdir()
            start = time.monotonic()
            done = self.run(folder, verb)
            self.seconds[verb] = time.monotonic() - start
            assert done.status == 0, done.said
            self._whole[verb] = left(folder)
        return folder

    def whole(self, verb: str) -> dict[str, object]:
        """Return what such a run leaves."""
        self.undisturbed(verb)
        return self._whole[verb]

    def largest(self, verb: str) -> int:
        """Return the size of the largest file that it leaves, in bytes."""
        return max(self._sizes(verb))

    def size(self, verb: str) -> int:
        """Return the size of all that it leaves, in bytes, as a disk counts them."""
        return sum(-size % 4096 + size for size in self._sizes(verb))

    def _sizes(self, verb: str) -> list[int]:
        return [f.stat().st_size for f in self.undisturbed(verb).rglob("*") if f.is_file()]

    def assert_survived(self, verb: str, folder: Path, done: Done) -> None:
        """Assert that a fault left nothing half, that `lox` said what to do, and can do it again.

        A process that a library in C has ended says nothing of its own: by SIGABRT, or with status
        127 where the C library has no memory for a thread.
        """
        found, whole = left(folder), self.whole(verb)
        assert done.status in (0, 2, -6, 127), done
        if done.status == 2:
            assert done.said[-1].startswith("lox: "), done.said
            assert re.search(ADVICE, done.said[-1]), done.said
            assert not any("Traceback" in line for line in done.said), done.said
        assert_nothing_half(found, whole)
        if found != whole:  # or it was about to say so
            again = self.run(folder, verb)
            assert done.status != 0
            assert again.status == 0, (done.said, again.said)
            assert left(folder) == whole, done.said


def assert_nothing_half(found: dict[str, object], whole: dict[str, object]) -> None:
    """Assert that under final names there are only whole files, folders and records."""
    seen = {name: content for name, content in found.items() if "/." not in name}
    if records := seen.pop(STORE, None):
        assert set(records) <= set(whole[STORE])
    assert seen.items() <= whole.items()
    for name in seen:
        folder = name.rpartition("/")[0]
        if not LOOSE.fullmatch(folder):  # one output, all of it
            assert {n for n in whole if n.startswith(folder)} <= seen.keys()


def left(folder: Path) -> dict[str, object]:
    """Return what is in a folder: the bytes of files by name, and the records of a store.

    Without SQLite's journal, by which it takes back what a kill cut off, and without the day.
    """
    files = {f.relative_to(folder).as_posix(): f for f in folder.rglob("*") if f.is_file()}
    files.pop(f"{STORE}-journal", None)
    found = {n: f.read_bytes() for n, f in files.items() if n != STORE}
    found = {n: DAY.sub(b"", text) if n.endswith(".json") else text for n, text in found.items()}
    return found | {n: records(f) for n, f in files.items() if n == STORE}


def records(file: Path) -> list[tuple]:
    """Return the records of a store, in order; none if it could not be made."""
    with sqlite3.connect(file) as db:
        there = db.execute("SELECT 1 FROM sqlite_master").fetchall()
        query = "SELECT kind, key, value FROM records ORDER BY kind, key"
        return db.execute(query).fetchall() if there else []


def chosen(*names: object) -> random.Random:
    """Return random numbers that are the same for the same verb, fault and round."""
    return random.Random(" ".join(map(str, names)))
