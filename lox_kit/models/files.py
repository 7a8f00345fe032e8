"""Rows of JSON, JSONL, CSV and parquet files, each with the place it is at."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

HALF = re.compile(r"\\u[dD][89a-fA-F]")  # of a character that is written in two halves
Placed = tuple[str, object]  # where a row is, and the row, or the RowError that stands in its place


class RowError(ValueError):
    """What is wrong with one row and what was expected; who reads the file adds the place."""


def read_rows(file: str | Path) -> Iterator[Placed]:
    """Yield each row of a data file with its place.

    Parameters
    ----------
    file : path
        `.json` (a list), `.jsonl` (blank lines are passed over), `.csv` (with a header, UTF-8) or
        `.parquet`; the first three also as `.gz`.

    Yields
    ------
    (str, object)
        The place ("gsm8k_train.jsonl, line 7"; lines count from 1, rows of a list from 0) and the
        row as it was stored, or a `RowError` where a line is not readable.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is of another kind, or is damaged so that its rows cannot be told apart.
    ImportError
        For parquet without pyarrow.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such data file.")
    endings = [ending.lower() for ending in file.suffixes]
    packed = endings[-1:] == [".gz"]
    kind = "".join(endings[:-1][-1:] if packed else endings[-1:])
    readers = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet}
    if kind not in readers or (packed and kind == ".parquet"):
        raise ValueError(
            f"{file}: use a file that ends in {', '.join(readers)} (or .jsonl.gz, ...)."
        )
    try:
        yield from readers[kind](file, gzip.open if packed else open)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{file}: damaged or cut off ({error}); get it again.") from error


def read_text(file: str | Path, opened: Callable = open) -> str:
    """Return the text of a file of a user's; ValueError, with the file's name, if it is none."""
    try:
        with opened(file, "rb") as f:
            text = f.read().decode("utf-8-sig")  # spreadsheets put a mark in front
        if "\0" in text:
            raise UnicodeDecodeError("utf-8", b"", text.index("\0"), 0, "a NUL")
        return text
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file}: not UTF-8 text (byte {error.start}). Unpack it or export it to text if it is "
            "packed or a spreadsheet, and save it as UTF-8."
        ) from None


def _jsonl(file: Path, opened: Callable) -> Iterator[Placed]:
    """Yield the lines of a JSONL file."""
    with opened(file, "rb") as f:
        # Bytes are split at \n only; text would also be split at the U+2028 of some answers.
        for number, line in enumerate(f, start=1):
            place = f"{file}, line {number}"
            if not line.strip():
                continue
            try:
                yield place, _value(line.decode("utf-8-sig"))
            except UnicodeDecodeError:
                yield place, RowError("expected UTF-8 text")
            except json.JSONDecodeError as error:
                what = f"expected one JSON value on a line: {error.msg} at column {error.colno}"
                yield place, RowError(what)
            except RowError as error:
                yield place, error


def _value(text: str):
    """Return a JSON value; RowError if it is one that cannot be worked with."""
    try:
        value = json.loads(text)
        if HALF.search(text):
            json.dumps(value, ensure_ascii=False).encode()  # a half by itself is no text
        return value
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:  # thousands of digits or brackets; a half
        raise RowError(f"expected text and numbers of a usual kind ({error})") from None


def _json(file: Path, opened: Callable) -> Iterator[Placed]:
    """Return the elements of a JSON list."""
    try:
        rows = _value(read_text(file, opened))
    except RowError as error:
        raise ValueError(f"{file}: {error}.") from None
    except json.JSONDecodeError as error:
        hint = " One value a line is .jsonl: rename it." if error.msg == "Extra data" else ""
        raise ValueError(
            f"{file}, line {error.lineno}: not JSON ({error.msg}, column {error.colno}).{hint}"
        ) from error
    if not isinstance(rows, list):
        raise ValueError(f"{file}: expected a JSON list of rows, it is a {type(rows).__name__}.")
    return _numbered(str(file), rows)


def _numbered(source: str, rows: Iterable) -> Iterator[Placed]:
    """Yield rows with their numbers."""
    for i, row in enumerate(rows):
        yield f"{source}, row {i} (from 0)", row


def _csv(file: Path, opened: Callable) -> Iterator[Placed]:
    """Yield the records of a CSV file as dicts by its header."""
    rows = csv.DictReader(io.StringIO(read_text(file, opened), newline=""))
    try:
        for row in rows:  # fields too many come under None, too few are None
            place = f"{file}, line {rows.line_num}"  # where the record ends
            if None in row or None in row.values():
                n = sum(v is not None for k, v in row.items() if k is not None)
                n += len(row.get(None, ()))
                wanted = len(rows.fieldnames)
                yield place, RowError(f"expected {wanted} fields as in the header, it has {n}")
            else:
                yield place, row
    except csv.Error as error:
        raise ValueError(f"{file}, after line {rows.line_num}: not CSV ({error}).") from error


def _parquet(file: Path, opened: Callable) -> Iterator[Placed]:
    """Return the rows of a parquet file as dicts."""
    import pyarrow.parquet

    try:
        return _numbered(str(file), pyarrow.parquet.read_table(file).to_pylist())
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{file}: not a parquet file ({error}).") from error


def collect(
    rows: Iterable[Placed], parse: Callable[[object], object], on_bad_row: str | None = None
) -> tuple[list, list[str]]:
    """Parse every row; stop at the first bad one, or leave bad ones out.

    Parameters
    ----------
    parse : callable
        Returns what a row holds, or raises `RowError`.
    on_bad_row : "raise", "skip" or None
        None raises without the advice to skip, for those whose caller cannot.

    Returns
    -------
    (list, list of str)
        What was parsed, in order, and for each row left out its place and what is wrong.

    Raises
    ------
    ValueError
        At a bad row (its place and what was expected), or if all of them are bad.
    """
    if on_bad_row not in ("raise", "skip", None):
        raise ValueError(f"on_bad_row={on_bad_row!r}: use 'raise' or 'skip'.")
    kept, bad = [], []
    for place, row in rows:
        try:
            if isinstance(row, RowError):
                raise row
            kept.append(parse(row))
        except RowError as problem:
            bad.append(f"{place}: {problem}.")
            if on_bad_row == "raise":
                bad[0] += " Correct it, or leave such rows out and count them: on_bad_row='skip'."
            if on_bad_row != "skip":
                raise ValueError(bad[0]) from None
    if bad and not kept:
        raise ValueError(f"none of {len(bad)} rows is usable; the first: {bad[0]}")
    return kept, bad


def field(row: object, name: str):
    """Return one field of a row, whatever it holds.

    Raises
    ------
    RowError
        If the row is no record or lacks the field.
    """
    if not isinstance(row, Mapping):
        raise RowError(f"expected a record with a field {name!r}, it is a {type(row).__name__}")
    if name not in row:
        raise RowError(f"expected a field {name!r}, it has {', '.join(map(str, row)) or 'none'}")
    return row[name]


def text_field(row: object, name: str, *, may_be_empty: bool = False) -> str:
    """Return one field of a row, text as it stands.

    Raises
    ------
    RowError
        As `field`, and if it is not text, or empty where it may not be.
    """
    value = field(row, name)
    if not isinstance(value, str):
        raise RowError(f"expected text in {name!r}, it holds a {type(value).__name__}")
    if not value.strip() and not may_be_empty:
        raise RowError(f"expected text in {name!r}, it is empty")
    return value
