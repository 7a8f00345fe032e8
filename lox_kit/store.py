"""The store: every generation, verdict and attack run, kept under what determines it.

One SQLite file in the user's data folder (`LOX_KIT_STORE` moves it). A record's key is a hash of
its content's causes, so changed weights, prompts or settings never get a stale answer, and a run
that was killed finds everything it had finished. `LOX_KIT_CLASS` names another store below it, that
of a class (`lox warm`): it is read as well, and never written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import sqlite3
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from lox_kit.folders import data_folder

NUMBER = (int, float)
SHARES = {...: dict.fromkeys(("value", "low", "high", "count", "n"), NUMBER)}  # see `_fits`
FILE = "lox.sqlite"
MADE = len("2025-06-18 12:00:00.000")  # the time a record was made; older ones have no more
SCHEMA = 1  # of what is stored; raised where older records cannot be used any more


def content_key(**causes) -> str:
    """Return the key of whatever these causes determine: a hash of their canonical JSON.

    Raises
    ------
    TypeError
        If a cause is not plain data (numbers, strings, lists, dicts).
    ValueError
        If a number is NaN or infinite.
    """
    text = json.dumps(causes, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def _naming(file: Path, done: str) -> Iterator[None]:
    """Say of an error of SQLite which file it is about, and what to do."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise OSError(
            f"{file}: the store cannot be {done} ({error}). Make room, choose another folder with "
            "--store or LOX_KIT_STORE, or move this file away."
        ) from error


class DamagedRecord(UserWarning):
    """A stored value is not JSON, or of another shape than is put here, and is left out."""


def check_fields(file: Path, data: Mapping, shapes: Mapping) -> None:
    """Raise ValueError if a field of a file's metadata is missing or empty, or of another shape."""
    for name, shape in shapes.items():
        value = data.get(name, ...)
        if value == [] or not _fits(value, shape):
            found = "not there" if value is ... else f"{str(value)[:60]!r}"
            raise ValueError(f"{file}: {name!r} in its metadata is {found}; make the file again.")


def _fits(value: object, shape) -> bool:
    """Whether a value is of a shape, see `Store.get_many`."""
    if isinstance(shape, list):
        return isinstance(value, list) and all(_fits(v, shape[0]) for v in value)
    if isinstance(shape, dict) and isinstance(value, dict):
        fields = dict.fromkeys(value, shape[...]) if ... in shape else shape
        same = bool(value) and value.keys() == fields.keys()
        return same and all(_fits(value[name], fields[name]) for name in fields)
    if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
        return shape is bool and isinstance(value, bool)
    return not isinstance(shape, dict) and isinstance(value, shape)


def _checksum(*parts: str) -> str:
    """Return what follows the time in the column `made`: " " and a hash of kind, key and value."""
    return f" {hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()}"


class Store(contextlib.AbstractContextManager):
    """Records by kind and key, each a JSON value.

    Only the process that drives a run writes; workers hand their results back to it.

    Parameters
    ----------
    folder : path, optional
        Default `data_folder()`. The records are in `lox.sqlite` there, checkpoints of attack runs
        in `runs/`.

    Raises
    ------
    OSError
        If the folder cannot be made, or the file cannot be opened or is of a newer lox_kit; or if
        there is no store where `LOX_KIT_CLASS` says.
    """

    def __init__(self, folder: str | Path | None = None):
        self.folder = Path(folder) if folder else data_folder()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()  # one connection, perhaps for the jobs of several panels
        self._folders = [self.folder]
        with _naming(self.folder / FILE, "opened"):
            self._db = sqlite3.connect(
                self.folder / FILE, timeout=30, check_same_thread=False, uri=True
            )
            self._db.text_factory = lambda text: text.decode(errors="replace")  # see `_values`
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS records (kind TEXT, key TEXT, value TEXT NOT NULL, "
                "made TEXT DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (kind, key)) WITHOUT ROWID"
            )
            if self._schema("main") < SCHEMA:
                self._db.execute(f"PRAGMA user_version={SCHEMA}")
            if below := os.environ.get("LOX_KIT_CLASS"):
                self._read_below(Path(below).expanduser().resolve())

    def _read_below(self, folder: Path) -> None:
        """Read the records and runs of a class's store where there are none here."""
        if folder == self.folder.resolve():  # while it is being filled
            return
        if not (folder / FILE).exists():
            raise FileNotFoundError(
                f"LOX_KIT_CLASS={folder}: no store there; `lox warm -o {folder}` makes one."
            )
        with _naming(folder / FILE, "opened"):
            self._db.execute("ATTACH ? AS class", [f"{(folder / FILE).as_uri()}?mode=ro"])
            self._schema("class")
            self._db.execute("SELECT 1 FROM class.records LIMIT 1")  # it is a store
            self._db.execute(  # from now on `records` is this, and our own are `main.records`
                "CREATE TEMP VIEW records AS SELECT * FROM main.records UNION ALL "
                "SELECT * FROM class.records AS below WHERE NOT EXISTS (SELECT 1 FROM main.records "
                "AS own WHERE own.kind=below.kind AND own.key=below.key)"
            )
        self._folders.append(folder)

    def _schema(self, name: str) -> int:
        """Return the schema of a database, which must not be newer than ours."""
        (found,) = self._db.execute(f"PRAGMA {name}.user_version").fetchone()
        if found > SCHEMA:
            self.close()
            raise sqlite3.DatabaseError(
                f"written by a newer lox_kit (schema {found}, here {SCHEMA}): update lox_kit"
            )
        return found

    def get(self, kind: str, key: str, like=object):
        """Return the stored value, or None."""
        return self.get_many(kind, [key], like).get(key)

    def get_many(self, kind: str, keys: Iterable[str], like=object) -> dict[str, object]:
        """Return the stored values among `keys`, those left out that are not `like` this.

        `like` is a type; or of other shapes [shape], a list of them, {field: shape}, or with any
        fields {...: shape}. What is left out is warned of (DamagedRecord).
        """
        wanted = "SELECT value FROM json_each(?)"  # one variable, however many keys
        query = f"SELECT key, value, made FROM records WHERE kind=? AND key IN ({wanted})"
        return self._values(kind, self._rows(query, kind, json.dumps(list(keys))), like)

    def _values(self, kind: str, rows: Iterable[tuple], like=object) -> dict[str, object]:
        """Return records by key, without those that are damaged or not `like` this."""
        found = {}
        for key, text, made in rows:
            value, whole = None, str(made or "")[MADE:] in ("", _checksum(kind, key, text))
            with contextlib.suppress(TypeError, ValueError, RecursionError):
                value = json.loads(text)
            if whole and value is not None and _fits(value, like):
                found[key] = value
            else:
                warnings.warn(
                    f"{self.folder / FILE}: {kind} {str(key)[:16]} is damaged or of another "
                    "lox_kit; it may be made again.",
                    DamagedRecord,
                    stacklevel=4,
                )
        return found

    def put(self, kind: str, key: str, value) -> None:
        """Store one value; it is on disk when this returns."""
        self.put_many(kind, {key: value})

    def put_many(self, kind: str, values: Mapping[str, object]) -> None:
        """Store several values in one transaction: all of them or none."""
        texts, now = {k: json.dumps(v) for k, v in values.items()}, datetime.now(UTC)
        time = f"{now:%Y-%m-%d %H:%M:%S.%f}"[:MADE]
        with _naming(self.folder / FILE, "written"), self._lock, self._db:
            self._db.executemany(
                "INSERT OR REPLACE INTO main.records (kind, key, value, made) VALUES (?, ?, ?, ?)",
                [(kind, key, t, time + _checksum(kind, key, t)) for key, t in texts.items()],
            )

    def all(self, kind: str) -> dict[str, object]:
        """Return every record of a kind by its key, the one put last first."""
        query = "SELECT key, value, made FROM records WHERE kind=? "
        rows = self._rows(f"{query} ORDER BY substr(made, 1, {MADE}) DESC", kind)
        return self._values(kind, rows)

    def count(self, kind: str) -> int:
        """Return how many records of a kind there are."""
        return self._rows("SELECT COUNT(*) FROM records WHERE kind=?", kind)[0][0]

    def _rows(self, query: str, *values: str) -> list[tuple]:
        """Return what a query finds."""
        with _naming(self.folder / FILE, "read"), self._lock:
            return self._db.execute(query, values).fetchall()

    def run_folder(self, key: str) -> Path:
        """Return where the checkpoint of an attack run with this key belongs."""
        return self.run_folders(key)[0]

    def run_folders(self, key: str) -> list[Path]:
        """Return where that checkpoint may be: here, or in the class's store below."""
        return [folder / "runs" / key[:32] for folder in self._folders]

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __exit__(self, *exc) -> None:
        self.close()


class MemoryStore(Store):
    """A store in memory: of a worker, which hands it to the driver, or of a panel."""

    def __init__(self):
        self.kinds: dict[str, dict[str, object]] = {}

    def get_many(self, kind: str, keys: Iterable[str], like=object) -> dict[str, object]:
        """Return the held values among `keys`; what was put here is as it should be."""
        held = self.kinds.get(kind, {})
        return {key: held[key] for key in keys if key in held}

    def put_many(self, kind: str, values: Mapping[str, object]) -> None:
        """Hold several values."""
        self.kinds.setdefault(kind, {}).update(values)
