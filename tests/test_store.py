import os
import pathlib
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from checkpoints import run_python

from lox_kit.folders import cache_folder, data_folder
from lox_kit.store import Store, content_key

# --- records ------------------------------------------------------------------------------------


def test_a_value_comes_back_as_it_was_last_put_and_under_its_kind_alone(store):
    for value in (0, 0.1, "naïve", "", [], {"a": [1, None, True]}, {"b": 1e-300}):
        store.put("verdict", "key", value)
        assert store.get("verdict", "key") == value
    assert (store.get("verdict", "other"), store.get("answer", "key")) == (None, None)
    assert (store.count("verdict"), store.count("answer")) == (1, 0)


def test_all_of_a_kind_come_newest_first(store):
    for key in ("b", "c", "a"):
        store.put("run", key, {"name": key})
        time.sleep(0.005)
    store.put("run", "b", {"name": "again"})
    store.put("answer", "d", 1)
    assert list(store.all("run").items()) == [
        ("b", {"name": "again"}), ("a", {"name": "a"}), ("c", {"name": "c"}),
    ]  # fmt: skip
    assert store.all("none") == {}


def test_a_newer_store_is_refused_and_left_as_it_is(tmp_path):
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / "lox.sqlite") as db:
        db.execute("PRAGMA user_version=7")
    with pytest.raises(OSError, match=r"newer lox_kit \(schema 7, here 1\): update"):
        Store(tmp_path)
    with sqlite3.connect(tmp_path / "lox.sqlite") as db:
        assert db.execute("PRAGMA user_version").fetchone() == (7,)


@pytest.mark.parametrize("n", [0, 500, 1750])
def test_many_keys_are_looked_up_at_once(store, n):
    values = {f"k{i}": i for i in range(n)}
    store.put_many("answer", values)
    asked = iter([*values, "absent", *values])  # any iterable, with repeats
    assert store.get_many("answer", asked) == values


def test_several_values_go_in_together_or_not_at_all(store):
    with pytest.raises(TypeError, match="not JSON serializable"):
        store.put_many("answer", {"a": 1, "b": object()})
    with pytest.raises(OSError, match=r"lox.sqlite: the store cannot be written"):
        store.put_many("answer", {"a": 1, "b": 2, object(): 3})  # fails at the third row
    assert store.count("answer") == 0


KILLED = """
import os, sys
from lox_kit import Store
store = Store(sys.argv[1])
store.put("answer", "a", 1)
store.put_many("answer", {"b": 2, "c": 3})
store._db.execute("INSERT INTO records (kind, key, value) VALUES ('answer', 'unfinished', '4')")
os.kill(os.getpid(), 9)
"""


def test_what_was_put_survives_a_kill(tmp_path):
    assert run_python(KILLED, tmp_path).returncode == -9
    with Store(tmp_path) as store:
        assert store.get_many("answer", ["a", "b", "c", "unfinished"]) == {"a": 1, "b": 2, "c": 3}


# --- keys ---------------------------------------------------------------------------------------


def test_another_cause_makes_another_key_and_another_order_does_not():
    causes = [0.1, 0.30000000000000004, 0.3, "0.3", [0.3, 1], [1, 0.3], None, True, "é", "e"]
    assert len({content_key(x=cause) for cause in causes}) == len(causes)
    assert content_key(x=1) != content_key(y=1)
    first = content_key(model="m", settings={"a": 1, "b": [1, 2]})
    assert first == content_key(settings={"b": [1, 2], "a": 1}, model="m")


@pytest.mark.parametrize(
    "cause",
    [object(), {1, 2}, b"bytes", pathlib.Path("a"), float("nan"), float("inf")],
    ids=lambda cause: type(cause).__name__,
)
def test_a_cause_that_is_not_plain_data_is_refused(cause):
    with pytest.raises((TypeError, ValueError), match=r"not JSON (serializable|compliant)"):
        content_key(x=[cause])


# --- a class's store below ----------------------------------------------------------------------


@pytest.fixture
def class_store(tmp_path, monkeypatch):
    """A store filled for a class, which is named from then on."""
    with Store(tmp_path / "class") as store:
        store.put_many("run", {"both": "theirs", "below": 1})
        store.put("answer", "below", "an answer")
    monkeypatch.setenv("LOX_KIT_CLASS", str(tmp_path / "class"))
    return tmp_path / "class"


def test_a_class_store_is_read_where_there_is_nothing_here_and_never_written(class_store, tmp_path):
    before = (class_store / "lox.sqlite").read_bytes()
    with Store(tmp_path / "own") as store:
        store.put_many("run", {"both": "ours", "own": 2})
        assert store.get_many("run", ["both", "below", "own", "none"]) == {
            "both": "ours", "below": 1, "own": 2,
        }  # fmt: skip
        assert list(store.all("run"))[2:] == ["below"]  # the other two were put later
        assert (store.count("run"), store.get("answer", "below")) == (3, "an answer")
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            store._db.execute("INSERT INTO class.records (kind, key, value) VALUES ('a', 'b', '1')")
    assert (class_store / "lox.sqlite").read_bytes() == before
    assert [f.name for f in class_store.iterdir()] == ["lox.sqlite"]


def test_a_class_store_is_filled_while_it_is_named(class_store):
    with Store(class_store) as store:
        store.put("run", "more", 3)
        assert store.count("run") == 3


def test_a_run_may_lie_in_the_class_store_and_is_made_here(class_store, tmp_path):
    with Store(tmp_path / "own") as store:
        assert store.run_folder("k") == tmp_path / "own" / "runs" / "k"
        assert store.run_folders("k")[1:] == [class_store / "runs" / "k"]


def test_a_class_store_that_is_none_is_named(class_store, tmp_path, monkeypatch):
    with sqlite3.connect(class_store / "lox.sqlite") as db:
        db.execute("PRAGMA user_version=7")
    with pytest.raises(OSError, match=r"class/lox.sqlite: .*newer lox_kit \(schema 7"):
        Store(tmp_path / "own")
    (class_store / "lox.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(OSError, match=r"class/lox.sqlite: .*not a database"):
        Store(tmp_path / "own")
    monkeypatch.setenv("LOX_KIT_CLASS", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match=r"LOX_KIT_CLASS=.*none: no store.*lox warm -o"):
        Store(tmp_path / "own")


# --- the file -----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["file", "folder", "store"])
def test_what_is_no_store_in_its_place_is_named(tmp_path, place):
    folder = tmp_path / "store"
    file = folder / "lox.sqlite"
    message = r"lox.sqlite: the store cannot be opened \(.*--store or LOX"
    if place == "store":
        folder.write_text("")
        message = "store"
    elif place == "folder":
        file.mkdir(parents=True)
    else:
        folder.mkdir()
        file.write_bytes(b"not a database" * 100)
    with pytest.raises(OSError, match=message):
        Store(folder)


def test_the_folders_are_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("LOX_KIT_STORE", str(tmp_path / "s"))
    monkeypatch.setenv("LOX_KIT_CACHE", "~/c")
    assert data_folder() == tmp_path / "s"
    assert cache_folder() == pathlib.Path(os.path.expanduser("~/c"))
    with Store() as store:
        assert store.folder == tmp_path / "s"
    monkeypatch.delenv("LOX_KIT_STORE")
    monkeypatch.delenv("LOX_KIT_CACHE")
    assert data_folder() != cache_folder()
    assert data_folder().name == cache_folder().name == "lox_kit"


def test_threads_that_share_a_store_lose_nothing(tmp_path):
    with Store(tmp_path) as store:

        def work(thread):
            for i in range(25):
                store.put("answer", f"{thread} {i}", i)
                assert store.get("answer", f"{thread} {i}") == i

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(work, range(4)))
        assert store.count("answer") == 100
