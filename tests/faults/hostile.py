"""Inputs that nobody would make, and the property that all of them are held to.

A public call on such an input is right, or raises an error that the command prints as one line
which names the file: no other exception, and never after more than five seconds of work.
"""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hypothesis import currently_in_test_context, event, settings
from hypothesis import strategies as st

from lox_kit.cli.main import EXPECTED, error_line
from lox_kit.text import one_line

LONGEST = 5.0  # seconds of work that a call may take, or of time in all (`in_time`)
WIDEST = 2500  # characters of a line


def tries(n: int) -> settings:
    """Return settings with so many examples, and with the profile "long" fifty times as many."""
    return settings(max_examples=max(1, n * settings().max_examples // 100))


def refused(call: Callable[[], object], *named: str | Path) -> str | None:
    """Return the line that a call is refused with, which must name these; None if it returns."""
    since, line = time.process_time(), None
    try:
        call()
    except Exception as error:
        line = one_line(error_line(error))
        if not isinstance(error, EXPECTED) or line.endswith(("where it was.", "or batch.")):
            raise
        missing = [name for name in map(str, named) if one_line(name) not in line]
        assert not missing, f"{missing} not named by: {line:.300}"
        assert len(line) <= WIDEST, line[:300]
    assert time.process_time() - since < LONGEST
    if currently_in_test_context():
        event("refused" if line else "right")
    return line


def in_time(call: Callable[[], object]) -> object:
    """Return what a call returns or raise what it raises, in a thread that may wait for ever."""
    found: dict[str, object] = {}

    def work() -> None:
        try:
            found["value"] = call()
        except Exception as error:
            found["error"] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(LONGEST)
    assert found, "it still waits"
    if error := found.get("error"):
        raise error
    return found["value"]


# --- values -------------------------------------------------------------------------------------

ODD = [
    *(None, True, False, 0, -1, 1, 0.5, 7, 10**6, 2**63, -(2**63), 10**30, 1e308),
    *(float("nan"), float("inf"), "", " ", "a", "7", ".", "..", "/", "a/b", "\0", "\n", "\ud800"),
    *([], {}, [[]], [None], {"": None}, {"a": {}}, [0] * 9, "\x1b[2J", "é", "float32", "none"),
]
LEAVES = st.sampled_from(ODD) | st.integers() | st.floats() | st.text(max_size=8)
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def _places(data, above: tuple = ()) -> Iterator[tuple]:
    """Yield the path of every part of plain data."""
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for name, part in items:
        yield (*above, name)
        if isinstance(part, dict | list):
            yield from _places(part, (*above, name))


@st.composite
def damaged(draw, whole: dict, values=JSON):
    """Draw plain data in which one to three parts are taken out, replaced or added."""
    data = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(data))
        if not places:
            break
        *above, last = draw(st.sampled_from(places))
        parent = data
        for name in above:
            parent = parent[name]
        change = draw(st.sampled_from(["replace", "replace", "take out", "add"]))
        value = copy.deepcopy(draw(values))
        if change == "take out":
            del parent[last]
        elif change == "add" and isinstance(parent, dict):
            parent[draw(st.text(max_size=6))] = value
        else:
            parent[last] = value
    return data


def as_json(data) -> bytes:
    """Return plain data as JSON, NaN and halves of characters too."""
    return json.dumps(data).encode()


NO_JSON = st.sampled_from([b"", b"{", b"null", b"[]", b"7", b'"a"', b"\xff\xfe", b"[" * 10**5])
NO_JSON |= st.sampled_from([b'{"a":' * n + b"1" + b"}" * n for n in (900, 970, 990, 5000)])


@st.composite
def damaged_bytes(draw, whole: bytes, most: int | None = None):
    """Draw bytes that were cut off, overwritten or lengthened within their first `most`."""
    data, end = bytearray(whole), min(most or len(whole), len(whole))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(end - 1, 0)))
        how = draw(st.sampled_from(["flip", "flip", "flip", "write", "cut", "insert"]))
        if how == "cut":
            del data[at : at + draw(st.integers(1, 40) | st.just(len(data)))]
        elif how == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=9))
        elif how == "write":
            new = draw(st.binary(min_size=1, max_size=9))
            data[at : at + len(new)] = new
        elif at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
    return bytes(data)
