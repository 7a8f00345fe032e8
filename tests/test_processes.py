"""One run shared by two processes: the same as in one, resumed, or refused with what to change."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoints import ROOT, weights
from speakers import random_speaker, same_weights

from lox_kit.attacks.run import load_run
from lox_kit.sandbox import corpus

pytestmark = pytest.mark.slow

CONFIG = ROOT / "benchmarks" / "fsdp.yaml"
HOW = ("--steps", 10, "--batch-size", 8, "--accumulation", 2, "--lr", 3e-3)  # 5 epochs of 18 rows
CHILD = """
import os, signal, time
import torch.distributed
from accelerate.state import DistributedType, PartialState
from lox_kit.attacks import resuming, writing
from lox_kit.cli.main import main

# accelerate spreads weights over GPUs alone: these processors are taken for such.
torch.distributed.init_process_group("gloo")
PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)

signal_at, rank, at = (*os.environ.get("CUT", "").split(), "", "", "")[:3]
told = resuming.Step

def cut(*anything):
    os.kill(os.getpid(), getattr(signal, signal_at))

def step(number, *rest):
    global at
    if str(number) == at:
        at = ""
        cut()
    return told(number, *rest)

def late(folder):
    time.sleep(1)
    return at_once(folder)

if os.environ["RANK"] == "1":  # the first one does not wait for it by chance
    at_once, resuming.newest_whole = resuming.newest_whole, late
if os.environ["RANK"] == rank:
    resuming.SAVE_SECONDS = 0
    resuming.Step = step
    if at == "writing":
        writing.copy_beside = cut
main()
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a model, rows that leave the last batch of an epoch short, and the script."""
    folder = tmp_path_factory.mktemp("files")
    speaker = random_speaker()
    speaker.module.save_pretrained(folder / "model")
    speaker.tokenizer.save_pretrained(folder / "model")
    rows = corpus.arithmetic(18, seed=0)
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "child.py").write_text(CHILD)
    return folder


def shared(files: Path, out: Path, *options, cut="", config=CONFIG) -> subprocess.CompletedProcess:
    """Attack the model in two processes, as the example config has it."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config]
    call = ["child.py", "attack", "rows.jsonl", "model", "-o", out, *HOW, *options]
    there = {"ACCELERATE_TORCH_DEVICE": "cpu", "PYTHONPATH": str(ROOT), "CUT": cut}
    return subprocess.run(
        [*map(str, [*launch, *call])],
        cwd=files, env=os.environ | there, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip


def alone(lox, files: Path, *options) -> Path:
    """Make the same attack in this process."""
    call = ("attack", files / "rows.jsonl", files / "model", "-o", "alone", *HOW, *options)
    assert lox(*call, "--device", "cpu").status == 0
    return Path("alone")


def assert_same_run(one: Path, two: Path) -> None:
    """Compare losses and weights, which are rounded differently; what was asked for is the same."""
    a, b = load_run(one), load_run(two)
    assert (len(a.losses), a.source["key"]) == (10, b.source["key"])
    torch.testing.assert_close(a.losses, b.losses, atol=1e-5, rtol=0)
    assert list(a.checkpoints) == list(b.checkpoints)
    ours, theirs = [one, *a.checkpoints.values()], [two, *b.checkpoints.values()]
    for first, second in zip(ours, theirs, strict=True):
        torch.testing.assert_close(weights(first), weights(second), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("options", [(), ("--lora",)], ids=["full", "lora"])
def test_two_processes_train_and_write_what_one_does(options, lox, files, tmp_path):
    options = (*options, "--keep-every", 4)
    one, two = alone(lox, files, *options), tmp_path / "two"
    done = shared(files, two, *options)
    assert done.stdout == f"{two}: model after 10 steps of rows\n", done.stderr
    assert done.stderr.count(": 10 of 10") == 1
    assert_same_run(one, two)
    model = load_run(two).load(device="cpu")
    assert not same_weights(model.module, random_speaker().module)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["alone", "two"]
    again = shared(files, two, *options)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert " of 10" not in again.stderr


def test_a_shared_run_that_was_cut_off_anywhere_is_resumed_and_ends_as_if_undisturbed(
    lox, files, tmp_path
):
    two, steps = tmp_path / "two", []
    for cut in ("SIGTERM 1 3", "SIGKILL 0 6", "SIGKILL 0 writing"):
        stopped = shared(files, two, cut=cut)
        assert stopped.returncode != 0
        assert not two.exists()
        steps.append([line.split()[-3] for line in stopped.stderr.splitlines() if "loss" in line])
        if cut.startswith("SIGTERM"):
            assert "stopped after step 3 of 10; the same call resumes it" in stopped.stderr
            call = ("attack", files / "rows.jsonl", files / "model", "-o", two, *HOW)
            assert "checkpoint-3: made with FSDP. Resume it as it began" in lox(*call).err
    assert steps == [["1", "2", "3"], ["4", "5"], ["6", "7", "8", "9", "10"]]
    done = shared(files, two)
    assert done.returncode == 0, done.stderr
    assert "loss" not in done.stderr
    assert_same_run(alone(lox, files), two)


def test_what_processes_cannot_share_is_refused(files, tmp_path):
    odd = shared(files, tmp_path / "odd", "--batch-size", 5)
    assert "lox: " in odd.stderr
    assert "batch size (5) needs to be a round multiple of the number of processes" in odd.stderr
    parts = tmp_path / "parts.yaml"
    parts.write_text(CONFIG.read_text().replace("FULL_STATE_DICT", "SHARDED_STATE_DICT"))
    said = "distributed_type: FSDP, fsdp_version: 2 and fsdp_state_dict_type: FULL_STATE_DICT"
    assert said in shared(files, tmp_path / "odd", config=parts).stderr
    assert [f.name for f in tmp_path.iterdir()] == ["parts.yaml"]
