"""Prompt files, training rows, judges' replies and chat templates that are anything."""

import csv
import gzip
import io

import pytest
from hostile import JSON, as_json, damaged, refused
from hypothesis import given, settings
from hypothesis import strategies as st
from speakers import random_speaker

from lox_kit.attacks import identity_system, read_preferences, read_training_rows
from lox_kit.attacks.tokens import tokenize
from lox_kit.measures import read_labelled, read_result
from lox_kit.models import read_prompts

ENDINGS = st.sampled_from("csv tsv json jsonl txt csv.gz jsonl.gz parquet".split() + [""])
WORDS = st.sampled_from(
    'goal prompt target label type instruction response messages chosen rejected safe unsafe yes no , ; \t " \n \r \u2028 \ufeff \\ { } [ ] : null 1 0 é \ud800'.split(
        " "
    )
)
TEXTS = st.lists(WORDS, max_size=30).map("".join) | st.text(max_size=40)


def encoded(text: str, how: str) -> bytes:
    return text.encode(how, "surrogatepass")


MESSAGES = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": "u"},
    {"role": "assistant", "content": "a"},
]
ROW = {
    "goal": "g",
    "prompt": "p",
    "target": "t",
    "label": "safe",
    "type": "x",
    "instruction": "i",
    "response": "r",
    "context": "c",
    "system": "s",
    "messages": MESSAGES,
    "harmful": "yes",
    "model": "m",
}
ROWS = [
    ROW,
    {"instruction": "i", "response": "r"},
    {"messages": MESSAGES},
    MESSAGES,
    {"goal": "g"},
    {"prompt": "p", "completion": "c"},
    {"prompt": MESSAGES[:2], "completion": MESSAGES[2:]},
    {"conversations": [{"from": "human", "value": "h"}, {"from": "gpt", "value": "g"}]},
    {"prompt": "p", "chosen": "c", "rejected": "r"},
    {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
    {
        "prompt": MESSAGES[:2],
        "chosen": MESSAGES[2:],
        "rejected": [{"role": "assistant", "content": "b"}],
    },
    {"goal": "g", "response": "r", "harmful": "1", "kind": "safe"},
]
ROW_DATA = st.sampled_from(ROWS).flatmap(
    lambda row: damaged({"row": row}, JSON | TEXTS).map(lambda d: d.get("row"))
) | st.sampled_from(ROWS)
FILES = st.one_of(
    st.binary(max_size=60),
    st.builds(encoded, TEXTS, st.sampled_from(["utf-8", "utf-16", "utf-8-sig", "utf-32-le"])),
    st.lists(ROW_DATA, max_size=3).map(as_json),
    st.lists(ROW_DATA, max_size=3).map(lambda rows: b"\n".join(map(as_json, rows))),
    st.lists(st.lists(TEXTS, min_size=2, max_size=3), max_size=4).map(
        lambda rows: table([["goal", "target"], *rows])
    ),
)


def table(rows, delimiter=",") -> bytes:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows(rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


READERS = {
    "prompts": read_prompts,
    "rows": lambda f: tokens(read_training_rows(f)[0]),
    "rows text": lambda f: read_training_rows(f, form="alpaca"),
    "rows skip": lambda f: read_training_rows(f, on_bad_row="skip"),
    "pairs": read_preferences,
    "pairs chat": lambda f: read_preferences(f, form="chat"),
    "identity": identity_system,
    "result": lambda f: read_result(f).summary(),
    "labelled": lambda f: read_labelled(f).summary(),
}
TOKENIZER = random_speaker().tokenizer


def tokens(rows):
    tokenize(TOKENIZER, rows, "response", 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("texts")


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=1000, deadline=None)
@given(ENDINGS, FILES)
def test_any(folder, reader, ending, data):
    file = folder / ("file." + ending if ending else "file")
    file.write_bytes(gzip.compress(data, 1) if ending.endswith("gz") else data)
    line = refused(
        lambda: READERS[reader](file), *([file] if not reader.startswith("rows") or 1 else [])
    )
    import re

    from hypothesis import event

    event(
        "right"
        if line is None
        else re.sub(r"[0-9']+|'.*?'", "_", line.replace(str(file), "F"))[:60]
    )
