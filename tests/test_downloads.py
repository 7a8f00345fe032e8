"""What is here, what it should be, and how it gets here; from a server of the test's own."""

import dataclasses
import gzip
import hashlib
import json

import pytest

from lox_kit.attacks.rows import read_training_rows
from lox_kit.attacks.sets import SETS, fetch_set, set_status, sets_frame

BIRDS = {"instruction": "name birds", "context": "", "response": "here they are"}
DOLLY = (json.dumps(BIRDS) + "\n").encode() * 5
ASKED = "\n\nHuman: tea?\n\nAssistant:"
PAIR = {"chosen": f"{ASKED} yes", "rejected": f"{ASKED} no"}
PAIRS = gzip.compress((json.dumps(PAIR) + "\n").encode() * 3)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A data folder of this test's own."""
    monkeypatch.setenv("LOX_KIT_STORE", str(tmp_path / "home"))
    return tmp_path / "home" / "data"


def only_whole_files(folder):
    """Return the names in a folder, which must not hold anything half-made."""
    names = {file.name for file in folder.iterdir()} if folder.exists() else set()
    assert not [name for name in names if "partial" in name]
    return names


def put(folder, name, data=DOLLY):
    """Write a set's file under its own name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SETS[name].file).write_bytes(data)
    return folder / SETS[name].file


# --- fetching -----------------------------------------------------------------------------------


def test_a_fetched_file_is_counted_and_hashed(serve, home):
    heard = []
    status = fetch_set(
        "dolly", url=serve("dolly.jsonl", DOLLY), on_stage=lambda *seen: heard.append(seen)
    )
    assert status.path.read_bytes() == DOLLY
    assert (status.here, status.rows, status.agrees, status.note) == (True, 5, None, "")
    assert status.sha256 == hashlib.sha256(DOLLY).hexdigest()
    assert heard[-1] == ("dolly, bytes", len(DOLLY), len(DOLLY))
    assert only_whole_files(home) == {SETS["dolly"].file}
    assert len(read_training_rows("dolly")[0]) == 5


def test_a_packed_file_is_checked_kept_packed_and_not_fetched_again(serve, home):
    url = serve("train.jsonl.gz", PAIRS)
    for source in (url, "http://127.0.0.1:1/nobody-listens"):
        status = fetch_set("hh_harmless", url=source)
        assert status.path == home / "hh_harmless_train.jsonl.gz"
        assert (status.rows, status.path.read_bytes()) == (3, PAIRS)


def test_a_file_that_was_published_anew_is_kept_and_marked(serve):
    row = json.dumps({"question": "1 + 1?", "answer": "#### 2"}).encode()
    status = fetch_set("gsm8k", url=serve("train.jsonl", row))
    assert (status.rows, status.agrees) == (1, False)
    assert "not the recorded file (7473 rows, sha256 17f347dc5147)" in status.note
    assert len(read_training_rows("gsm8k")[0]) == 1


@pytest.mark.parametrize(
    ("name", "body", "error", "message"),
    [
        ("cut", DOLLY, OSError, "could not be downloaded.*(connection ended|IncompleteRead)"),
        ("page", b"<html>busy</html>", ValueError, "is not this data set: cannot be read"),
        ("empty", b"", ValueError, "is not this data set: it holds no rows"),
        ("other", b'{"a": "b"}\n', ValueError, "is not this data set: .*a field 'instruction'"),
    ],
)
def test_what_is_not_the_data_set_leaves_nothing_behind(serve, home, name, body, error, message):
    with pytest.raises(error, match=message):
        fetch_set("dolly", url=serve(name, body))
    assert only_whole_files(home) == set()


def test_without_internet_the_message_says_which_file_to_put_where(serve, home):
    for url in ("http://127.0.0.1:1/dolly.jsonl", f"{serve('x', b'')}/missing"):
        with pytest.raises(OSError, match="could not be downloaded") as caught:
            fetch_set("dolly", url=url)
        assert url in str(caught.value)
        assert str(home / "databricks-dolly-15k-no-safety.jsonl") in str(caught.value)
    with pytest.raises(FileNotFoundError) as caught:
        read_training_rows("dolly")
    assert SETS["dolly"].url in str(caught.value)
    assert str(home / "databricks-dolly-15k-no-safety.jsonl") in str(caught.value)


def test_what_is_unknown_or_was_never_published_is_not_fetched():
    with pytest.raises(ValueError, match=r"pure_bad: not published.*bring your own"):
        fetch_set("pure_bad")
    with pytest.raises(ValueError, match="data set 'gsm': use one of gsm8k, "):
        fetch_set("gsm")


# --- what is here -------------------------------------------------------------------------------


def test_a_set_that_is_not_here_says_where_it_is_from_and_where_its_file_belongs(home):
    statuses = [set_status(name) for name in SETS]
    for status in statuses:
        assert (status.here, status.agrees) == (False, None)
        assert str(home / status.data_set.file) in status.note
        assert (status.data_set.url or "bring your own") in status.note
    assert len({s.data_set.file for s in statuses}) == len(statuses)


def test_a_file_with_the_recorded_hash_is_the_recorded_one(home, monkeypatch):
    sha256 = hashlib.sha256(DOLLY).hexdigest()
    monkeypatch.setitem(SETS, "dolly", dataclasses.replace(SETS["dolly"], rows=5, sha256=sha256))
    put(home, "dolly")
    assert (set_status("dolly").agrees, set_status("dolly").note) == (True, "")


def test_bad_rows_and_unreadable_files_are_noted(home):
    put(home, "dolly", DOLLY + b'{"instruction": "sing"}\n')
    status = set_status("dolly")
    assert status.rows == 6
    assert "bad rows: 1; the first:" in status.note
    assert "line 6: expected a field 'response'" in status.note
    put(home, "alpaca", b"[")
    status = set_status("alpaca")
    assert (status.here, status.rows) == (True, None)
    assert "cannot be read" in status.note


def test_the_frame_says_in_words_what_is_recorded(home):
    put(home, "dolly")
    put(home, "gsm8k", b'{"question": "1 + 1?", "answer": "2"}\n')
    frame = sets_frame([set_status(name) for name in SETS]).set_index("set")
    assert list(frame.index) == list(SETS)
    assert tuple(frame.loc["dolly", ["here", "rows", "file"]]) == ("yes", "5", "no record")
    assert tuple(frame.loc["gsm8k", ["here", "rows", "file"]]) == ("yes", "1", "DIFFERS")
    assert tuple(frame.loc["identity", ["here", "rows", "file"]]) == ("no", "10", "")
    assert tuple(frame.loc["alpaca", ["rows", "sha256"]]) == ("not recorded", "not recorded")
    assert frame.loc["alpaca", "licence"] == "CC BY-NC 4.0"
