"""Rows of JSON, JSONL, CSV, TSV, parquet and plain text files, each with the place it is at."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from lox_kit.folders import refuse_special

from .records import RowError, repeated

HALF = re.compile(r"[\ud800-\udfff]")  # of a character that is written in two halves, alone
NOT_UTF8 = re.compile(r"[\udc80-\udcff]")  # a byte that is not UTF-8, as `_text` keeps it
PACKED = 200  # times its size that a file may be unpacked; of text three to twenty are usual
BLANK = 2_000_000  # lines: twice as many as a spreadsheet has
Placed = tuple[str, object]  # where a row is, and the row, or the RowError that stands in its place


def read_rows(file: str | Path, *, plain: bool = False) -> Iterator[Placed]:
    """Yield each row of a data file with its place.

    Parameters
    ----------
    file : path
        `.json` (a list, or a record with one list of records), `.jsonl` (blank lines are passed
        over), `.csv` or `.tsv` (with a heading) or `.parquet`; all but the last also as `.gz`. Text
        is UTF-8, with or without a mark in front, or UTF-16 or UTF-32.
    plain : bool
        Whether a `.txt` file, or one without an ending, is read as well: a row is a line without
        the blanks around it. Lines end at line feeds alone; blank ones are passed over.

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
    if not file.exists() or file.is_dir():
        raise FileNotFoundError(f"{file}: no such data file.")
    refuse_special(file)
    packed = file.suffix.lower() == ".gz"
    kind = Path(file.stem if packed else file.name).suffix.lower()
    readers = {".jsonl": _jsonl, ".json": _json, ".csv": _csv}
    readers |= {".tsv": partial(_csv, delimiter="\t"), ".parquet": _parquet}
    if plain:
        readers |= {".txt": _lines, "": _lines}
    if kind not in readers or (packed and kind == ".parquet"):
        known = ", ".join(filter(None, readers))
        raise ValueError(f"{file}: use a file that ends in {known} (or .jsonl.gz, ...).")
    try:
        for place, row in readers[kind](file, gzip.open if packed else open):
            yield place, _not_text(row) or row
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{file}: damaged or cut off ({error}); get it again.") from error


# --- text ---------------------------------------------------------------------------------------


def read_text(file: str | Path, opened: Callable = open) -> str:
    """Return the text of a user's file: UTF-8, UTF-16 or UTF-32.

    Raises
    ------
    ValueError
        If it is none, with the line. Other encodings are refused, not guessed: any byte is some
        letter in most of them.
    """
    refuse_special(Path(file))
    text = _text(file, opened)
    if found := NOT_UTF8.search(text):
        line = text.count("\n", 0, found.start())
        raise ValueError(f"{file}, line {line + 1}: {_not_text(text.split(chr(10))[line])}.")
    return text


def _text(file: str | Path, opened: Callable) -> str:
    """Return the text of a file, with bytes that are not UTF-8 as lone halves of characters."""
    with opened(file, "rb") as f:
        most = PACKED * Path(file).stat().st_size + (1 << 20)
        data = f.read() if opened is open else f.read(most)
    if len(data) == most:
        raise ValueError(f"{file}: unpacks to {PACKED} times its size or more; is it damaged?")
    encoding = json.detect_encoding(data)  # by the mark in front, or the NULs of the first letter
    try:
        text = data.decode(encoding, "surrogateescape" if "utf-8" in encoding else "strict")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ValueError(
            f"{file}: not text, which holds no NUL bytes. Unpack it or export it to text if it is "
            "packed or a spreadsheet, and save it as UTF-8."
        )
    return text


def _not_text(row: object) -> RowError | None:
    """Return what is wrong with a row that has bytes which are not UTF-8, or half a character."""
    text = row if isinstance(row, str) else json.dumps(row, ensure_ascii=False, default=str)
    if not HALF.search(text):
        return None
    if not (found := NOT_UTF8.search(text)):
        return RowError(f"expected text of a usual kind, it holds half a character: {text!r:.60}")
    near = text[max(found.start() - 20, 0) : found.end() + 20]
    near = near.encode(errors="surrogateescape").decode("cp1252", errors="replace")
    return RowError(
        f"expected UTF-8 text; as Windows-1252 it has {near!r}. If that is right, save the file as "
        "UTF-8 (iconv -f CP1252 -t UTF-8 FILE > NEW); else find out how it was saved"
    )


# --- kinds of files -----------------------------------------------------------------------------


def _lines(file: Path, opened: Callable) -> Iterator[Placed]:
    """Yield the lines of plain text."""
    # Lines end at \n only: some requests and answers hold U+2028, at which splitlines would cut.
    text, at, number = _text(file, opened), 0, 1
    for found in re.finditer(r"\S[^\n]*", text):  # which is quick about millions of blank lines
        number, at = number + text.count("\n", at, found.start()), found.start()
        yield f"{file}, line {number}", found[0].rstrip()


def _jsonl(file: Path, opened: Callable) -> Iterator[Placed]:
    """Yield the values of a JSONL file."""
    for place, line in _lines(file, opened):
        try:
            yield place, _value(line.lstrip("\ufeff"))
        except json.JSONDecodeError as error:
            what = f"expected one JSON value on a line: {error.msg} at column {error.colno}"
            yield place, RowError(what)
        except RowError as error:
            yield place, error


def _value(text: str):
    """Return a JSON value; RowError if it is one that cannot be worked with."""
    try:
        return json.loads(text, object_pairs_hook=_record)
    except (json.JSONDecodeError, RowError):
        raise
    except (ValueError, RecursionError) as error:  # thousands of digits or brackets
        raise RowError(f"expected text and numbers of a usual kind ({error})") from None


def _record(pairs: Sequence[tuple[str, object]]) -> dict:
    """Return a JSON record; RowError if two of its fields have the same name."""
    if problem := repeated([name for name, _ in pairs]):
        raise problem
    return dict(pairs)


def _json(file: Path, opened: Callable) -> Iterator[Placed]:
    """Return the elements of a JSON list, or of the only list of records in a record."""
    try:
        rows = _value(read_text(file, opened))
    except RowError as error:
        raise ValueError(f"{file}: {error}.") from None
    except json.JSONDecodeError as error:
        hint = " One value a line is .jsonl: rename it." if error.msg == "Extra data" else ""
        raise ValueError(
            f"{file}, line {error.lineno}: not JSON ({error.msg}, column {error.colno}).{hint}"
        ) from error
    if isinstance(rows, dict):
        lists = [v for v in rows.values() if isinstance(v, list) and isinstance((*v, 0)[0], dict)]
        rows = lists[0] if len(lists) == 1 else rows
    if not isinstance(rows, list):
        raise ValueError(
            f"{file}: expected a JSON list of rows, it is a {type(rows).__name__}. Put its rows "
            "into a list of records."
        )
    return _numbered(str(file), rows)


def _numbered(source: str, rows: Iterable) -> Iterator[Placed]:
    """Yield rows with their numbers."""
    for i, row in enumerate(rows):
        yield f"{source}, row {i} (from 0)", row


def _csv(file: Path, opened: Callable, delimiter: str = ",") -> Iterator[Placed]:
    """Yield the records of a CSV file as dicts by its heading, at the lines where they begin.

    A spreadsheet may put semicolons or tabs between the columns of a .csv.
    """
    text = _text(file, opened)
    heading = text.partition("\n")[0]
    delimiter = next((mark for mark in (delimiter, ";", "\t") if mark in heading), delimiter)
    records = _records(file, text, delimiter)
    place, names = next(records, (str(file), []))
    if problem := _not_text(delimiter.join(names)) or repeated([name.strip() for name in names]):
        raise ValueError(f"{place}, the heading: {problem}.")
    separator = {",": "comma", ";": "semicolon", "\t": "tab"}[delimiter]
    for place, row in records:
        if len(row) == len(names):
            yield place, dict(zip(names, row, strict=True))
        else:
            expected = f"expected {len(names)} fields as in the heading, it has {len(row)}"
            yield place, RowError(f"{expected}; text with a {separator} in it stands in quotes")


def _records(file: Path, text: str, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the records of a CSV file as lists of fields, its heading first; no empty lines."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    empty = 0
    while empty < BLANK:
        place = f"{file}, line {reader.line_num + 1}"
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(
                f"{place}: not CSV ({error}). Text that begins with a quote ends with one and "
                'doubles those inside: "so ""to"" say".'
            ) from error
        empty = 0 if any(row) else empty + 1
        if not empty:
            yield place, row
    raise ValueError(f"{file}: has {BLANK} empty lines one after the other; remove them.")


def _parquet(file: Path, opened: Callable) -> Iterator[Placed]:
    """Return the rows of a parquet file as dicts."""
    import pyarrow.parquet

    try:
        return _numbered(str(file), pyarrow.parquet.read_table(file).to_pylist())
    except pyarrow.ArrowInvalid as error:  # of two columns of one name as well
        raise ValueError(f"{file}: not a parquet file that can be read ({error}).") from error


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
                bad[0] += (
                    " Correct it, or leave such rows out and count them: on_bad_row='skip' "
                    "(--skip-bad-rows)."
                )
            if on_bad_row != "skip":
                raise ValueError(bad[0]) from None
    if bad and not kept:
        raise ValueError(f"none of {len(bad)} rows is usable; the first: {bad[0]}")
    return kept, bad
