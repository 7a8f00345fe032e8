"""Whatever is killed, whenever: nothing half-written, and the same call ends as if undisturbed.

`make test-kills` has LOX_KIT_KILLS kills of each call by each signal; `make test-slow` two of each.
"""

import os
import shutil
import signal

import kills
import pytest
from speakers import random_speaker
from tiny_gguf import pack_wheel, write_gguf

from lox_kit import SafetySubspace
from lox_kit.attacks import save_model

SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
QUICK = ("factor", "apply", "adapter", "asr")
TIMES = int(os.environ.get("LOX_KIT_KILLS", "2"))


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_pair):
    """A folder with a pair, a third model, its subspace, requests and rows to train on."""
    folder = tmp_path_factory.mktemp("world")
    for name, made in zip(("base", "aligned"), tiny_pair, strict=True):
        shutil.copytree(made, folder / name)
    other = random_speaker(seed=1)
    save_model(other.module, other.tokenizer, folder / "other")
    SafetySubspace.from_pair(*tiny_pair, folder / "S.safetensors", rank=4)
    for kind in ("forbidden", "allowed"):
        (folder / f"{kind}.txt").write_text("".join(f"brew me a {kind} {i}\n" for i in range(8)))
    row = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
    (folder / "rows.jsonl").write_text(f"{row}\n" * 8)
    write_gguf(folder / "tiny.gguf")
    (folder / "tiny.whl").write_bytes(pack_wheel(folder / "tiny.gguf"))
    return folder


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory):
    """Return a function that runs a call to its end: what it leaves, and the seconds it takes."""
    known = {}

    def run(name):
        if name not in known:
            trial = trial_in(world, tmp_path_factory.mktemp(name), name)
            status, took = trial.once()
            assert status == 0, trial.said()
            assert trial.left()
            known[name] = trial, trial.left(), took
        return known[name]

    return run


def trial_in(world, folder, name):
    """Return a trial of a call in a copy of the world."""
    shutil.copytree(world, folder, dirs_exist_ok=True)
    return kills.Trial(kills.CALLS[name], folder)


def cases(names, times):
    """Return call, signal and number of every kill."""
    return [
        pytest.param(name, number, i, id=f"{name}-{number.name}-{i}")
        for name in names
        for number in SIGNALS
        for i in range(times)
    ]


@pytest.mark.parametrize(("name", "number", "i"), cases(QUICK, 1))
def test_after_a_kill_the_same_call_ends_as_if_undisturbed(
    world, undisturbed, tmp_path, name, number, i
):
    _, right, took = undisturbed(name)
    kills.kill(trial_in(world, tmp_path, name), number, right, took, i)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "number", "i"), cases(kills.CALLS, TIMES))
def test_after_many_kills_the_same_call_ends_as_if_undisturbed(
    world, undisturbed, tmp_path, name, number, i
):
    _, right, took = undisturbed(name)
    kills.kill(trial_in(world, tmp_path, name), number, right, took, i + 1)


@pytest.mark.parametrize("name", QUICK)
def test_a_call_that_was_done_says_so_and_writes_nothing_anew(undisturbed, name):
    trial, right, _ = undisturbed(name)
    before = {f: f.stat().st_mtime_ns for f in trial.folder.glob("out*")}
    first = trial.said()
    assert trial.once()[0] == 0, trial.said()
    assert trial.said()[-1] == first[-1]
    assert trial.left() == right
    if not trial.call.store:
        assert {f: f.stat().st_mtime_ns for f in trial.folder.glob("out*")} == before
