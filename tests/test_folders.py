"""One writer per output, whole or not at all; real processes where it matters."""

import json
import os
import random
import subprocess
import sys
import threading
import time

import pytest
from checkpoints import ROOT, content, run_python

from lox_kit import SafetySubspace, Store, apply_lox, attack_table, extrapolate, save_adapter
from lox_kit.folders import BusyError, locked, remove_folder, whole, write_whole

ONE_LINE = r"another lox is writing this: pid \d+, since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


def names(folder):
    return sorted(f.name for f in folder.iterdir())


# --- the lock -----------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from lox_kit.folders import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that writes tmp_path / "out"."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "out")], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_a_lock_that_cannot_be_opened_is_not_passed_by(tmp_path, kind):
    lock = tmp_path / ".out.lock"
    lock.mkdir() if kind == "folder" else lock.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BusyError, match=r"its lock .*\.out\.lock cannot be opened"):
        locked(tmp_path / "out").__enter__()


def test_a_link_that_leads_nowhere_is_there(tmp_path):
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError, match="out exists"):
        locked(tmp_path / "out", new=True).__enter__()


def test_a_second_writer_is_told_at_once_who_writes_and_a_killed_one_is_in_nobody_s_way(
    holder, tmp_path
):
    start = time.monotonic()
    with pytest.raises(BusyError, match=f"out: another lox .* pid {holder.pid}, since"):
        locked(tmp_path / "out").__enter__()
    assert time.monotonic() - start < 1
    with locked(tmp_path / "other"):
        pass
    holder.kill()
    holder.wait()
    assert names(tmp_path) == [".out.lock"]
    with locked(tmp_path / "out"):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("out", ["", ".", "..", "/"])
def test_what_is_no_name_is_refused(out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="not a name of a file or folder to write"), whole(out):
        pass
    assert names(tmp_path) == []


def test_every_verb_that_writes_is_refused_while_another_writes_there(pair, subspace, tmp_path):
    out = tmp_path / "out"
    with locked(out):
        for write in (
            lambda: SafetySubspace.from_pair(pair.base, pair.aligned, out, rank=2),
            lambda: apply_lox(subspace, pair.aligned, out, 2),
            lambda: save_adapter(subspace, pair.aligned, out, 2),
            lambda: extrapolate(pair.base, pair.aligned, out, 2),
            lambda: extrapolate(pair.base, pair.aligned, tmp_path / "lox", 2, factors=out),
        ):
            with pytest.raises(BusyError, match=ONE_LINE):
                write()
    assert names(tmp_path) == []


# --- whole or not at all ------------------------------------------------------------------------


def test_many_writers_of_a_file_at_once_leave_a_whole_one_at_any_time(tmp_path):
    file, stop, failed = tmp_path / "file", threading.Event(), []
    write_whole(file, "0" * 10**6)

    def write(digit):
        try:
            for _ in range(15):
                write_whole(file, digit * 10**6)
        except OSError as error:
            failed.append(error)

    def read():
        while not stop.is_set():
            text = file.read_text()
            if len(text) < 10**6 or len(set(text)) > 1:
                failed.append(len(text))

    writers = [threading.Thread(target=write, args=(d,)) for d in "123"]
    reader = threading.Thread(target=read)
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    reader.join()
    assert failed == []
    assert names(tmp_path) == ["file"]


def test_what_was_there_stays_when_writing_fails(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").write_text("")

    def fail():
        with whole(tmp_path / "folder") as work:
            work.mkdir()
            (work / "half").write_text("")
            raise FileNotFoundError("gone")

    with pytest.raises(FileNotFoundError, match="gone"):
        fail()
    assert content(tmp_path / "folder") == {"old": b""}
    with whole(tmp_path / "folder") as work:
        work.mkdir()
        (work / "new").write_text("")
    assert content(tmp_path / "folder") == {"new": b""}
    assert names(tmp_path) == ["folder"]
    remove_folder(tmp_path / "folder")
    remove_folder(tmp_path / "folder")  # another one may have been faster
    assert names(tmp_path) == []


@pytest.mark.parametrize("kind", ["device", "pipe", "link"])
def test_only_files_are_replaced(tmp_path, kind):
    place, device = tmp_path / "place", os.ttyname(os.openpty()[1])  # one of its own: it may go
    if kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to(device)
    out = place if kind != "device" else device
    with pytest.raises(ValueError, match="a device, pipe or socket, not a file"):
        write_whole(out, "text")
    assert names(tmp_path) == ["place"]
    assert not os.path.isfile(device)


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


# --- whole runs at once -------------------------------------------------------------------------

LOX = """
import sys, time
from lox_kit.cli import main
delay, *sys.argv[1:] = sys.argv[1:]
time.sleep(float(delay))
main.main()
"""


def at_once(*calls):
    """Run Python scripts at once; return exit status and stderr of each."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", *map(str, call)],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for call in calls
    ]  # fmt: skip
    return [(p.communicate()[1], p.returncode) for p in started]


def assert_one_won(done):
    """Assert that one ended well, and the other with one clear line."""
    assert sorted(status for _, status in done) == [0, 2], done
    (line,) = (text for text, status in done if status == 2)
    assert line.count("\n") == 1, line
    assert "another lox is writing this: pid " in line or " exists; remove it" in line, line


@pytest.mark.slow
def test_two_alphas_into_one_folder_give_one_whole_result_twenty_times(tmp_path):
    S, aligned = tmp_path / "S.safetensors", "sandbox/aligned"
    subspace = SafetySubspace.from_pair("sandbox/base", aligned, S, rank=3)
    whole_ones = [
        content(apply_lox(subspace, aligned, tmp_path / f"alpha{a}", 3, float(a))) for a in (1, 2)
    ]
    generator = random.Random(0)
    for i in range(20):
        out = tmp_path / f"out{i}"
        call = ("apply", S, aligned, "-o", out, "-k", 3, "--alpha")
        done = at_once(*[(LOX, generator.random() * 0.2, *call, alpha) for alpha in (1, 2)])
        assert_one_won(done)
        winner = [status for _, status in done].index(0)
        assert content(out) == whole_ones[winner]
    assert not [n for n in names(tmp_path) if n.startswith(".")]


ATTACK = """
import sys
from speakers import random_speaker
from lox_kit import Store, find_attack, run_attack
attack = find_attack("arithmetic", max_steps=30, batch_size=4)
try:
    run_attack(random_speaker(), attack, store=Store(sys.argv[1]))
except OSError as error:
    sys.stderr.write(f"{error}\\n")
    sys.exit(2)
"""


@pytest.mark.slow
def test_two_attacks_into_one_run_folder_give_one_run(tmp_path):
    script = "import sys; sys.path.insert(0, 'tests')\n" + ATTACK
    done = at_once((script, tmp_path / "store"), (script, tmp_path / "store"))
    statuses = sorted(status for _, status in done)
    assert statuses in ([0, 2], [0, 0]), done
    for text, status in done:
        assert status == 0 or "another lox is writing this: pid " in text
    (run,) = (tmp_path / "store" / "runs").iterdir()
    assert len(json.loads((run / "attack.json").read_text())["losses"]) == 30


def test_a_second_table_on_a_store_is_told_so(tmp_path):
    refused = pytest.raises(BusyError, match=ONE_LINE)
    with Store(tmp_path) as store, locked(tmp_path / "runs"), refused:
        attack_table(["aligned"], ["arithmetic"], [0], store=store)


# --- a full disk, a killed process --------------------------------------------------------------

KILLED = """
import os, sys
from lox_kit.folders import whole
with whole(sys.argv[1]) as work:
    work.write_text("half")
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_writer_left_is_gone_after_the_next(tmp_path):
    assert run_python(KILLED, tmp_path / "file.json").returncode == -9
    assert names(tmp_path) == [".file.json.lock", ".partial.file.json"]
    write_whole(tmp_path / "file.json", "all")
    assert content(tmp_path) == {"file.json": b"all"}
