"""One row of a data file: its record, the fields it has, and what is wrong with it."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence

LONGEST = csv.field_size_limit()  # characters of a field: Python's own limit for CSV, 131,072
MESSAGES = re.compile(r"""\s*\[\s*\{\s*['"](?:role|content|from|value)['"]\s*:.*\]\s*""", re.DOTALL)


class RowError(ValueError):
    """What is wrong with one row and what was expected; who reads the file adds the place."""


def repeated(names: Sequence[str]) -> RowError | None:
    """Return what is wrong if two columns have the same name; several may have none."""
    twice = [name for name, n in Counter(names).items() if n > 1 and name]
    return RowError(f"expected each column once, {twice[0]!r} is there twice") if twice else None


def record(row: object) -> dict:
    """Return a row by the names of its fields in small letters; RowError if it is no record."""
    if not isinstance(row, Mapping):
        raise RowError(f"expected a record, it is a {type(row).__name__}")
    names = [str(name).strip().lower() for name in row]
    if problem := repeated(names):
        raise problem
    return dict(zip(names, row.values(), strict=True))


def column(row: Mapping, names: Sequence[str], *, alone: bool = False) -> str:
    """Return the first of these columns that a record has; RowError if it has none.

    With `alone` the first that is not empty; RowError if another says something else.
    """
    there = [name for name in names if name in row]
    if not there:
        raise RowError(
            f"expected a field {' or '.join(names)}, it has {', '.join(row)}. If that is no "
            "heading, put a line with the columns' names first; else rename the one that is meant"
        )
    said = {name: str(row[name]).strip() for name in there if alone and row[name] is not None}
    said = {name: text for name, text in said.items() if text}
    if len({*said.values()}) > 1:
        raise RowError(f"{' and '.join(said)} differ: keep the column that is meant")
    return next(iter(said), there[0])


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
        As `field`, and if it is not text, is longer than any field of a CSV file could be, or
        where it may not be empty is, or is a list of messages written as text.
    """
    value = field(row, name)
    if not isinstance(value, str):
        raise RowError(f"expected text in {name!r}, it holds a {type(value).__name__}")
    if len(value) > LONGEST:
        raise RowError(f"expected text of at most {LONGEST} characters in {name!r}: {len(value)}")
    if MESSAGES.fullmatch(value) and not may_be_empty:
        raise RowError(f"expected text in {name!r}, it holds messages: {value.strip():.40}...")
    if not value.strip() and not may_be_empty:
        raise RowError(f"expected text in {name!r}, it is empty")
    return value
