"""The store: every generation, verdict and attack run, kept under what determines it.

One SQLite file in the user's data folder (`LOX_KIT_STORE` moves it). A record's key is a hash of
its content's causes, so changed weights, prompts or settings never meet a stale answer, and a run
that was killed finds everything it had finished.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import threading
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

from lox_kit.folders import data_folder

SCHEMA = 1  # of what is stored; raised where an older version's records are not used any more
NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "9p"}
NETWORK_FILE_SYSTEMS |= {"fuse.sshfs"}


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


class OlderStore(UserWarning):
    """A store was written by an older lox_kit: some of it may be made again."""


class Store:
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
        If the folder cannot be made, or the file cannot be opened or is of a newer lox_kit.

    Warns
    -----
    OlderStore
        Once, if the file is of an older lox_kit.
    """

    def __init__(self, folder: str | Path | None = None):
        self.folder = Path(folder) if folder else data_folder()
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "lox.sqlite"
        self._lock = threading.RLock()  # one connection, perhaps for the jobs of several panels
        try:
            self._db = sqlite3.connect(file, timeout=30, check_same_thread=False)
            # WAL lets a notebook read while a run writes, and breaks on network file systems.
            journal = "DELETE" if on_network(self.folder) else "WAL"
            self._db.execute(f"PRAGMA journal_mode={journal}")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS records (kind TEXT, key TEXT, value TEXT NOT NULL, "
                "made TEXT DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (kind, key)) WITHOUT ROWID"
            )
            self._check_schema(file)
        except sqlite3.DatabaseError as error:
            raise OSError(
                f"{file}: the store cannot be opened ({error}). Choose another folder with "
                "--store or LOX_KIT_STORE, or move this file away."
            ) from error

    def _check_schema(self, file: Path) -> None:
        """Mark a new file with the schema; warn of an older one, and refuse a newer."""
        ((found,),) = self._rows("PRAGMA user_version")
        if found > SCHEMA:
            self.close()
            raise OSError(
                f"{file}: written by a newer lox_kit (schema {found}, here {SCHEMA}): update "
                "lox_kit, or choose another folder with --store or LOX_KIT_STORE."
            )
        if found == SCHEMA:
            return
        older = self._rows("SELECT 1 FROM records LIMIT 1")
        self._db.execute(f"PRAGMA user_version={SCHEMA}")
        if older:
            warnings.warn(
                f"{file}: written by an older lox_kit (schema {found}, now {SCHEMA}); its answers "
                "and verdicts are used, anything else may be made again.",
                OlderStore,
                stacklevel=3,
            )

    def get(self, kind: str, key: str):
        """Return the stored value, or None."""
        return self.get_many(kind, [key]).get(key)

    def get_many(self, kind: str, keys: Iterable[str]) -> dict[str, object]:
        """Return the stored values among `keys`."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, object] = {}
        for start in range(0, len(wanted), 500):  # SQLite limits the variables of a statement
            part = wanted[start : start + 500]
            marks = ",".join("?" * len(part))
            rows = self._rows(
                f"SELECT key, value FROM records WHERE kind=? AND key IN ({marks})", kind, *part
            )
            found.update((key, json.loads(value)) for key, value in rows)
        return found

    def put(self, kind: str, key: str, value) -> None:
        """Store one value; it is on disk when this returns."""
        self.put_many(kind, {key: value})

    def put_many(self, kind: str, values: Mapping[str, object]) -> None:
        """Store several values in one transaction: all of them or none."""
        with self._lock, self._db:
            self._db.executemany(
                "INSERT OR REPLACE INTO records (kind, key, value, made) "
                "VALUES (?, ?, ?, strftime('%Y-%m-%d %H:%M:%f', 'now'))",
                [(kind, key, json.dumps(value)) for key, value in values.items()],
            )

    def all(self, kind: str) -> dict[str, object]:
        """Return every record of a kind by its key, the one put last first."""
        rows = self._rows("SELECT key, value FROM records WHERE kind=? ORDER BY made DESC", kind)
        return {key: json.loads(value) for key, value in rows}

    def count(self, kind: str) -> int:
        """Return how many records of a kind there are."""
        return self._rows("SELECT COUNT(*) FROM records WHERE kind=?", kind)[0][0]

    def _rows(self, query: str, *values: str) -> list[tuple]:
        """Return what a query finds."""
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def run_folder(self, key: str) -> Path:
        """Return where the checkpoint of an attack run with this key belongs."""
        return self.folder / "runs" / key[:32]

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc) -> None:
        self.close()


class MemoryStore:
    """A store in memory: of a worker, which hands it to the driver, or of a panel."""

    def __init__(self):
        self.kinds: dict[str, dict[str, object]] = {}

    def get(self, kind: str, key: str):
        """Return the held value, or None."""
        return self.kinds.get(kind, {}).get(key)

    def get_many(self, kind: str, keys: Iterable[str]) -> dict[str, object]:
        """Return the held values among `keys`."""
        held = self.kinds.get(kind, {})
        return {key: held[key] for key in keys if key in held}

    def put(self, kind: str, key: str, value) -> None:
        """Hold one value."""
        self.put_many(kind, {key: value})

    def put_many(self, kind: str, values: Mapping[str, object]) -> None:
        """Hold several values."""
        self.kinds.setdefault(kind, {}).update(values)


def on_network(folder: Path) -> bool:
    """Whether a folder lies on a network file system, as far as /proc/mounts can tell."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/mounts").read_text().splitlines()
        mounts = [[part.replace("\\040", " ") for part in line.split()] for line in lines]
        real = str(folder.resolve())
        inside = [m for m in mounts if real == m[1] or real.startswith(m[1].rstrip("/") + "/")]
        if inside:
            return max(inside, key=lambda m: len(m[1]))[2] in NETWORK_FILE_SYSTEMS
    return str(folder).startswith("\\\\")  # a Windows share
