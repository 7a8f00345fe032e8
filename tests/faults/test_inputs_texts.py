"""Prompts, rows, replies, templates and settings that are anything: right, or one line."""

import csv
import gzip
import io
import os
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from hostile import (
    JSON,
    NO_JSON,
    as_json,
    damaged,
    damaged_bytes,
    in_time,
    refused,
    tries,
)
from hypothesis import assume, example, given
from hypothesis import strategies as st
from speakers import other_tokenizer, random_speaker

from lox_kit.attacks import find_alignment, identity_system, read_preferences, read_training_rows
from lox_kit.attacks.alignment import prefer
from lox_kit.attacks.tokens import tokenize
from lox_kit.judges import ClassifierJudge, is_degenerate, is_foreign, read_answers
from lox_kit.judges.replies import break_markers, read_guard, read_score
from lox_kit.measures import read_labelled, read_result
from lox_kit.measures.gsm8k import read_gsm8k, read_number
from lox_kit.models import Prompt, prompts, read_prompts, render, split_thought
from lox_kit.models.completions import read_completion
from lox_kit.models.files import HALF
from lox_kit.text import one_line
from lox_kit.weights import own_world

TOKENIZER = other_tokenizer()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the files of a module are written, one over the other."""
    return tmp_path_factory.mktemp("texts")


# --- files of rows ------------------------------------------------------------------------------


def trained(file, **options) -> None:
    """Read training rows, and tokenize those that are messages."""
    rows, _ = read_training_rows(file, **options)
    tokenize(TOKENIZER, rows, "response", 64)


TALK = [{"role": role, "content": role[0]} for role in ("system", "user", "assistant")]
SHARED = [{"from": "human", "value": "h"}, {"from": "gpt", "value": "g"}]
SAID = [{"role": "assistant", "content": "no"}]
GOALS = [{"goal": "g", "target": "t"}, {"prompt": "p", "label": "safe", "type": "x"}, "plain"]
ROWS = [{"instruction": "i", "response": "r", "system": "s"}, {"messages": TALK}, TALK]
ROWS += [{"conversations": SHARED, "system": "s"}, {"prompt": TALK[:2], "completion": TALK[2:]}]
ROWS += [{"instruction": "i", "input": "c", "output": "o"}, {"prompt": "p", "completion": "c"}]
PAIRS = [{"prompt": "p", "chosen": "c", "rejected": "r"}]
PAIRS += [{"prompt": TALK[:2], "chosen": TALK[2:], "rejected": SAID}]
PAIRS += [{side: f"\n\nHuman: a\n\nAssistant: {side}" for side in ("chosen", "rejected")}]
ANSWERS = [{"goal": "g", "response": "r", "harmful": "yes", "kind": "safe", "model": "m"}]
READERS = {
    "prompts": (read_prompts, GOALS),
    "rows": (trained, ROWS),
    "rows of a text": (partial(read_training_rows, form="alpaca"), ROWS),
    "rows without bad ones": (partial(read_training_rows, on_bad_row="skip"), ROWS),
    "pairs": (read_preferences, PAIRS),
    "pairs of chats": (partial(read_preferences, form="chat"), PAIRS),
    "a system message": (identity_system, [TALK]),
    "problems": (read_gsm8k, [{"question": "q", "answer": "#### 7"}]),
    "answers": (lambda file: read_result(file).summary(), ANSWERS),
    "labels": (lambda file: read_labelled(file).summary(), ANSWERS),
}
ENDINGS = ["csv", "tsv", "json", "jsonl", "txt", "", "csv.gz", "jsonl.gz", "parquet"]
MARKS = st.sampled_from([*',;\t"\n\r\u2028\ufeff\\{}[]:é\ud800\0 7a', "goal", "prompt", "null"])
TEXTS = st.lists(MARKS, max_size=12).map("".join) | st.text(max_size=20)
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32-le"])


def table(rows, delimiter=",") -> bytes:
    """Return rows as CSV."""
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows(rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


def write(folder, ending: str, data: bytes):
    """Write a file of this kind."""
    file = folder / f"file.{ending}".rstrip(".")
    file.write_bytes(gzip.compress(data, 1) if ending.endswith("gz") else data)
    return file


@pytest.mark.parametrize("reader", READERS)
@tries(30)
@given(
    st.sampled_from(ENDINGS),
    st.binary(max_size=60)
    | st.builds(str.encode, TEXTS, ENCODINGS, st.just("surrogatepass"))
    | st.lists(st.lists(TEXTS, min_size=2, max_size=3), max_size=4).map(table)
    | NO_JSON,
)
def test_a_file_of_anything_is_read_or_refused(folder, reader, ending, data):
    file = write(folder, ending, data)
    refused(lambda: READERS[reader][0](file), file)


@pytest.mark.parametrize("reader", READERS)
@tries(40)
@given(st.data())
def test_rows_in_which_something_is_wrong_are_read_or_refused(folder, reader, data):
    read, rows = READERS[reader]
    ending = data.draw(st.sampled_from(["json", "jsonl", "jsonl.gz"]))
    made = data.draw(damaged({"rows": rows}, JSON | TEXTS)).get("rows")
    lines = b"\n".join(map(as_json, made)) if isinstance(made, list) else as_json(made)
    file = write(folder, ending, as_json(made) if ending == "json" else lines)
    refused(lambda: read(file), file)


@tries(150)
@given(st.lists(TEXTS.map(str.strip).filter(bool), min_size=1, max_size=4), st.data())
def test_requests_of_any_letters_are_those_that_were_written(folder, texts, data):
    assume(not any(HALF.search(text) or "\0" in text for text in texts))
    kinds = {
        "csv": table([["id", "goal"], *enumerate(texts)]),
        "tsv": table([["goal", "id"], *zip(texts, range(9), strict=False)], "\t"),
        "json": as_json([{"goal": text} for text in texts]),
        "jsonl": b"\n\n".join(as_json({"prompt": text}) for text in texts),
        "txt": "\n \n".join(texts).encode(),
    }
    ending = data.draw(st.sampled_from([*kinds]))
    if ending == "txt":  # where some requests read as the beginning of another kind of file
        assume(not any(mark in "".join(texts) for mark in '\n\r{["7'))
        assume(not {"goal", "prompt"} & {part for t in texts for part in re.split("[,\t] *", t)})
        assume(not texts[0].startswith("\ufeff"))
    file = write(folder, ending, kinds[ending])
    assert [prompt.text for prompt in read_prompts(file)] == texts


@tries(60)
@given(st.data())
def test_a_table_is_what_the_library_for_tables_reads_or_refused(folder, data):
    rows = data.draw(st.lists(st.lists(TEXTS, min_size=2, max_size=2), min_size=1, max_size=3))
    whole = table([["goal", "note"], *rows])
    file = write(folder, "csv", data.draw(damaged_bytes(whole)))
    found: list[Prompt] = []
    if refused(lambda: found.extend(read_prompts(file)), file) is None:
        text = file.read_bytes().decode("utf-8-sig")
        mark = next((m for m in ",;\t" if m in text.partition("\n")[0]), ",")
        records = [r for r in csv.reader(io.StringIO(text, newline=""), delimiter=mark) if any(r)]
        at = [name.strip().lower() for name in records[0]]
        at = at.index("goal") if "goal" in at else at.index("prompt")
        assert [prompt.text for prompt in found] == [record[at].strip() for record in records[1:]]


@pytest.mark.parametrize("reader", READERS)
def test_a_pipe_is_not_waited_for(tmp_path, reader):
    for ending in ("csv", "json", "parquet"):
        file = tmp_path / f"{reader}.{ending}"
        os.mkfifo(file)
        line = refused(lambda file=file: in_time(lambda: READERS[reader][0](file)), file)
        assert "a device, pipe or socket, not a file" in line


@pytest.mark.parametrize(
    ("ending", "data", "message"),
    [
        ("txt", b"a" * 10**7, "line 1: expected text of at most 131072 characters"),
        ("txt", b"a" + b" " * 10**7 + b"b", "line 1: expected text of at most 131072 characters"),
        ("csv", b"a" * 10**7, "line 1: not CSV"),
        ("jsonl", b'{"' + b"a" * 10**7 + b'": 1}', "line 1: expected a field goal or prompt"),
        ("jsonl", b"\n" * 10**7, "holds no requests"),
        ("txt", b" \n" * 10**7, "holds no requests"),
        ("csv", b"\n" * 10**7, "has 2000000 empty lines one after the other"),
        ("jsonl.gz", b"\n" * 10**8, "unpacks to 200 times its size or more"),
        ("csv.gz", b"\n" * 10**8, "unpacks to 200 times its size or more"),
    ],
    ids=lambda x: "" if isinstance(x, bytes) else x,
)
def test_a_file_of_a_long_line_or_of_nothing_takes_no_time(tmp_path, ending, data, message):
    file = write(tmp_path, ending, data)
    assert message in refused(lambda: read_prompts(file), file)


# --- answers, replies ---------------------------------------------------------------------------

READING = {
    "score": read_score,
    "guard": read_guard,
    "markers": break_markers,
    "stance": lambda text: read_answers([text], ["p"]),
    "degenerate": is_degenerate,
    "foreign": is_foreign,
    "thought": split_thought,
    "number": read_number,
    "a line": one_line,
}
UNITS = ["#thescore: ", "unsafe ", "####", "\\boxed{", "<think>", "I cannot ", "1,", "no. ", "\n\n"]
UNITS += [" ", "\t", "\n ", "a", "*", "{", '"', "S1,", "= ", "\u200b", "é"]


@pytest.mark.parametrize("reader", READING)
@tries(15)
@given(st.sampled_from(UNITS), st.sampled_from(UNITS), st.sampled_from(["", "x", "!"]))
@example("#thescore: ", " ", "x")
@example("####", " ", "x")
@example("x", " ", "y")
def test_no_long_text_takes_long_to_read(reader, start, unit, end):
    assert refused(lambda: READING[reader](start + unit * (40_000 // len(unit)) + end)) is None


COMPLETION = {
    "choices": [{"message": {"content": "y", "reasoning_content": "hm"}, "finish_reason": "stop"}],
    "usage": {"total_tokens": 7},
    "error": {"message": "m", "code": 403},
}


@tries(200)
@given(damaged(COMPLETION).map(as_json) | damaged_bytes(as_json(COMPLETION)) | NO_JSON)
def test_a_server_s_completion_is_read_or_refused(body):
    refused(lambda: read_completion(body))


# --- chat templates -----------------------------------------------------------------------------

FRAGMENTS = """{{ messages[0].content }}|{% for m in messages %}{{ m.content }}{% endfor %}|{%|}}
{{ messages[9].x.y }}|{{ messages }}|{{ 1/0 }}|{{ raise_exception('no') }}|{# # #}|{% set a = 1 %}
{{ messages|tojson }}|{{ 'a' * 200000 }}|{{ 2**9 }}|{% if x %}y{% endif %}|{% generation %}|**
{{ range(99999)|list|length }}|{{ strftime_now('%Y') }}|{{ namespace(a=1).a }}|{{ ''.x() }}|a b
{{ messages[0].__class__.__mro__ }}|{% include 'x' %}|{{ bos_token }}|{% macro f() %}|{{ f(f) }}"""
FRAGMENTS = [fragment for line in FRAGMENTS.splitlines() for fragment in line.split("|")]


@tries(150)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=4).map(" ".join) | st.text(max_size=9))
def test_a_chat_template_of_anything_is_rendered_or_refused(template):
    tokenizer = other_tokenizer()
    tokenizer.chat_template = template
    found: list[str] = []
    if refused(lambda: found.extend(render(tokenizer, [Prompt("moss")]))) is None:
        assert len(found) == 1
        assert found[0].strip()


ENDLESS = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "letters": "{% for a in 'x' * 99999 %}{% for b in 'x' * 99999 %}{% endfor %}{% endfor %}",
}


@pytest.mark.parametrize("template", ENDLESS.values(), ids=[*ENDLESS])
def test_a_template_that_does_not_end_is_interrupted_in_whichever_thread(monkeypatch, template):
    monkeypatch.setattr(prompts, "SECONDS", 0.5)
    endless, plain = other_tokenizer(), other_tokenizer()
    endless.chat_template = template
    asked = [(endless, None), (endless, "you are mia"), (plain, None)]
    with ThreadPoolExecutor(3) as threads:
        lines = threads.map(
            lambda a: refused(lambda: render(a[0], [Prompt("moss")], system=a[1])), asked
        )
    words = "chat template refuses the messages: it took longer than 0.5 seconds"
    assert [words in (line or "") for line in lines] == [True, True, False]
    assert refused(lambda: render(plain, [Prompt("moss")])) is None


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ 'a ' * 200000 }}", "it makes 400000 characters of 4; at most 131096 are asked"),
        ("{{ 9**9**9 }}", "it computes a power"),
        ("{{ raise_exception('x' * 10**6) }}", "it computes a power"),
    ],
)
def test_a_template_that_makes_too_much_is_refused(template, message):
    tokenizer = other_tokenizer()
    for made in (template, {"default": template, "tool_use": "a"}):
        tokenizer.chat_template = made
        assert message in refused(lambda: render(tokenizer, [Prompt("moss")]))


@pytest.mark.parametrize(
    "template",
    [
        "**bold** {{ messages[0]['content'] }}",
        "{% macro f(a) %}{{ a }}{% endmacro %}{{ f( **{'a': messages[0].content}) }}",
        {"default": "{{ messages[0]['content'] }}\n", "tool_use": "{{ 'a\\n' }}"},
    ],
    ids=["two stars in text", "arguments of a name", "several templates"],
)
def test_two_stars_that_are_no_power_are_taken(template):
    tokenizer = other_tokenizer()
    tokenizer.chat_template = template
    assert "moss" in render(tokenizer, [Prompt("moss")])[0]


@pytest.mark.parametrize("side", ["prompt", "chosen", "rejected"])
def test_no_template_that_does_not_end_reaches_the_training_of_preferences(monkeypatch, side):
    monkeypatch.setattr(prompts, "SECONDS", 0.3)
    loops = ENDLESS["loops"]
    when = {"prompt": "add_generation_prompt", "chosen": "messages[-1].content == 'yes'"}
    model, alignment = random_speaker(other_tokenizer()), find_alignment("dpo")
    condition = when.get(side, "messages[-1].content == 'no'")
    model.tokenizer.chat_template = (
        f"{{% if {condition} %}}{loops}{{% endif %}}{{{{ messages[0].content }}}}"
    )
    pair = {"prompt": TALK[1:2], "chosen": SAID, "rejected": SAID}
    pair = {**pair, "chosen": [{"role": "assistant", "content": "yes"}]}
    line = refused(lambda: prefer(model.module, model.tokenizer, [pair], alignment))
    assert "it took longer than 0.3 seconds" in line


# --- settings -----------------------------------------------------------------------------------

WORLD = 'base = "b"\naligned = "a"\nattacks = ["x"]\n[test]\nforbidden = "f"\nallowed = "g"\n'
JUDGE = 'model = "sandbox/base"\ntemplate = "{prompt}{response}"\nlabels = ["a"]\npositive = ["a"]'


@pytest.mark.parametrize(
    ("whole", "read"),
    [(WORLD, own_world), (JUDGE, ClassifierJudge.from_file)],
    ids=["world", "judge"],
)
@tries(40)
@given(st.data())
def test_a_toml_of_anything_is_followed_or_refused(folder, whole, read, data):
    words = ["7", "[]", "[1]", '"x"', "{}", "true", "[[", "=", "\n[a]\n", "'", "[" * 5000]
    text = whole
    for _ in range(data.draw(st.integers(1, 2))):
        part = data.draw(st.sampled_from([w for w in text.split() if w]))
        text = text.replace(part, data.draw(st.sampled_from(words)), 1)
    file = folder / "settings.toml"
    file.write_bytes(data.draw(st.just(text.encode()) | damaged_bytes(whole.encode())))
    refused(lambda: read(str(file)), file)
