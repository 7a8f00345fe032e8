"""Which data files are here, whether they are the recorded ones, and fetching the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

from lox_kit.folders import whole
from lox_kit.models import collect, read_rows
from lox_kit.network import download
from lox_kit.threads import OnStage
from lox_kit.weights import file_hash

from .sets import SETS, DataSet, sets_folder


@dataclasses.dataclass(frozen=True)
class SetStatus:
    """What is known of one data set on this machine."""

    data_set: DataSet
    path: Path  # where its file is, or belongs
    here: bool
    rows: int | None  # of the file that is here, else as recorded; None: not recorded
    sha256: str | None
    agrees: bool | None  # with what is recorded in `SETS`; None without a file or a record
    note: str  # what someone should know or do; "" if nothing


def set_status(name: str, folder: str | Path | None = None) -> SetStatus:
    """Return whether a data set is here, its rows and hash, and whether they are the recorded ones.

    Parameters
    ----------
    folder : path, optional
        Where to look; default `data` in the user's data folder.

    Raises
    ------
    ValueError
        If there is no such set.
    """
    if name not in SETS:
        raise ValueError(f"data set {name!r}: use one of {', '.join(SETS)}.")
    data_set = SETS[name]
    path = sets_folder(folder) / data_set.file
    if not path.is_file():
        note = how_to_get(data_set, path)
        return SetStatus(data_set, path, False, data_set.rows, data_set.sha256, None, note)
    sha256 = file_hash(path)
    agrees = sha256 == data_set.sha256 if data_set.sha256 else None
    rows, note = (data_set.rows, "") if agrees else _count(data_set, path)
    if agrees is False:
        note = (
            f"{note} not the recorded file ({data_set.rows} rows, sha256 {data_set.sha256[:12]}): "
            "it is read, but numbers from it may not compare."
        ).strip()
    return SetStatus(data_set, path, True, rows, sha256, agrees, note)


def _count(data_set: DataSet, path: Path) -> tuple[int | None, str]:
    """Return how many usable rows a file has, and what is wrong with it."""
    try:
        kept, bad = collect(read_rows(path), data_set.parse, on_bad_row="skip")
    except (ValueError, OSError, ImportError) as error:
        return None, f"cannot be read: {error}"
    if bad:
        return len(kept) + len(bad), f"bad rows: {len(bad)}; the first: {bad[0]}"
    return len(kept), "" if kept else "it holds no rows."


def sets_frame(statuses: Sequence[SetStatus]):
    """Return a data frame of what `lox data` shows: a row per set."""
    import pandas as pd

    shown = {True: "as recorded", False: "DIFFERS", None: "no record"}
    return pd.DataFrame(
        {
            "set": s.data_set.name,
            "here": "yes" if s.here else "no",
            "rows": "not recorded" if s.rows is None else str(s.rows),
            "sha256": s.sha256[:12] if s.sha256 else "not recorded",
            "file": shown[s.agrees] if s.here else "",
            "licence": s.data_set.licence,
            "from": s.data_set.page or "your own file",
        }
        for s in statuses
    )


def how_to_get(data_set: DataSet, path: Path) -> str:
    """Return which file to put where, for one who has no internet here."""
    if data_set.url is None:
        return f"bring your own, JSON lines with messages, or instruction and response, as {path}"
    return f"download {data_set.url} (see {data_set.page}) and put it here: {path}"


def fetch_set(
    name: str,
    folder: str | Path | None = None,
    *,
    url: str | None = None,
    on_stage: OnStage | None = None,
) -> SetStatus:
    """Download a data set, unless its file is here; nothing half-loaded gets its name.

    Parameters
    ----------
    url : str, optional
        A mirror; default where the file is published.
    on_stage : callable, optional
        Told the bytes so far and in all (0 where the server does not say).

    Raises
    ------
    ValueError
        If there is no such set, it is not published, or what came is not its data.
    OSError
        If it cannot be downloaded; the message says which file to put where.
    """
    status = set_status(name, folder)
    data_set, path, source = status.data_set, status.path, url or status.data_set.url
    if status.here:
        return status
    if source is None:
        raise ValueError(f"{name}: not published anywhere; {how_to_get(data_set, path)}")
    with whole(path) as work:
        try:
            download(source, work, f"{name}, bytes", on_stage)
        except (OSError, HTTPException) as error:
            raise OSError(
                f"{name}: could not be downloaded from {source} ({error}). On a machine with "
                f"internet, {how_to_get(data_set, path)}"
            ) from error
        rows, problem = _count(data_set, work)
        if not rows:
            raise ValueError(f"{name}: what {source} sent is not this data set: {problem}")
    return set_status(name, folder)
