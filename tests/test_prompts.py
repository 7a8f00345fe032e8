"""Where requests come from, which words are held out, and the text a model is given."""

import gzip
import json

import pytest
from speakers import other_tokenizer
from tokenizers.processors import TemplateProcessing

from lox_kit.attacks import identity_system
from lox_kit.models.prompts import PAPER_TEMPLATE, Prompt, read_prompts, render, sandbox_prompts
from lox_kit.sandbox import world

# --- files --------------------------------------------------------------------------------------


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a file and returns its path."""

    def write(name, text, encoding="utf-8"):
        (tmp_path / name).write_text(text, encoding=encoding)
        return tmp_path / name

    return write


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    ("name", "text", "prompts"),
    [
        ("a.csv", 'goal,target\n"one, two",Sure\n three , \n', [("one, two", "Sure"), ("three",)]),
        ("A.CSV", "id,goal\n1,one\n2,two\n", [("one",), ("two",)]),
        ("jbb.csv", "Index,Goal,Target,Behavior\r\n0,one,Sure,b\r\n", [("one", "Sure")]),
        (
            "harmbench.csv",
            "Behavior,Tags,ContextString,BehaviorID\none,,,a\ntwo,context,text,b\n",
            [("one",), ("text\n\n---\n\ntwo",)],
        ),
        ("a.tsv", "goal\ttarget\none, two\tSure\nthree\t\n", [("one, two", "Sure"), ("three",)]),
        ("a.csv", "goal, target\none, Sure\n", [("one", "Sure")]),  # a blank as in the heading
        ("a.json", '[{"goal": "one", "target": " Sure"}]', [("one", "Sure")]),
        ("a.json", '["one", "two"]', [("one",), ("two",)]),
        ("a.json", '{"version": 1, "data": [{"prompt": "one"}]}', [("one",)]),
        ("a.csv", "goal,prompt\none,\n,two\nthree,three\n", [("one",), ("two",), ("three",)]),
        ("a.csv", "prompt,type\none,fraud\n", [("one",)]),  # which is no type of XSTest's
        ("a.jsonl", '{"prompt": "one", "target": null}\n"two"\n', [("one",), ("two",)]),
        ("a.txt", "one, two\n\n  naïve three \n", [("one, two",), ("naïve three",)]),
        (
            "a.txt",
            "one\u2028more\r\n[two\n{three}\n",
            [("one\u2028more",), ("[two",), ("{three}",)],
        ),
        ("a.txt", "one\x0bmore\x0c, and\x85more\n", [("one\x0bmore\x0c, and\x85more",)]),
        ("requests", "a goal, my prompt\n", [("a goal, my prompt",)]),
    ],
)
def test_a_table_gives_goals_and_targets_and_plain_text_one_request_a_line(
    write, encoding, name, text, prompts
):
    file = write(name, text, encoding)
    assert read_prompts(file) == [Prompt(*p) for p in prompts]
    assert read_prompts(str(file), limit=1) == [Prompt(*prompts[0])]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.csv",
            "question,target\none,Sure\n",
            "expected a field goal or prompt, it has question, t",
        ),
        ("a.csv", 'goal,target\n"one\ntwo",Sure\n ,Sure\n', "line 4: expected text in 'goal'"),
        ("a.csv", "target,goal\nSure,one\nSure\n", "line 3: expected 2 fields as in the heading"),
        ("a.csv", "", "holds no requests"),
        ("a.csv", "goal,target\n", "holds no requests"),
        ("a.csv", "Bake a cake\nBrew tea\n", "it has bake a cake. If that is no heading, put"),
        ("a.csv", "goal,target\none, two\n", "line 2: a comma seems to cut the request: 'target'"),
        (
            "a.csv",
            "id,prompt\n1,one, two\n",
            "line 2: expected 2 fields as in the heading, it has 3",
        ),
        ("a.csv", "goal\none, two\n", "line 2: expected 1 fields as in the heading, it has 2"),
        ("a.csv", "goal,Goal\none,two\n", "expected each column once, 'goal' is there twice"),
        ("a.csv", "prompt,goal\njailbreak one,one\n", "line 2: goal and prompt differ: keep the"),
        ("a.csv", "prompt\n\"[{'role': 'user', 'content': 'one'}]\"\n", "it holds messages: "),
        (
            "a.json",
            '{"goal": ["one"], "target": ["Sure"]}',
            "expected a JSON list of rows, it is a",
        ),
        ("a.json", '[{"goal": ["one"]}]', "row 0 .*: expected text in 'goal', it holds a list"),
        ("a.jsonl", "3\n", "line 1: expected a record, it is a int"),
        ("a.txt", '{"prompt": "one"}\n', "line 1: .* needs a name in .jsonl"),
        ("a.txt", "goal,target\none,Sure\n", "line 1: .* needs a name in .csv or .tsv"),
        ("a.txt", "one\rtwo\r", "line 1: expected lines that end in line feeds"),
        ("a.txt", "", "holds no requests"),
        ("a.txt", "\n  \n", "holds no requests"),
        ("a.csv", "prompt,label\none,safe\ntwo,maybe\n", "line 3: the label is 'maybe'; use safe"),
        ("a.csv", "prompt,label\none,safe\n", "all of its 1 requests are labelled safe"),
    ],
)
def test_a_file_without_requests_or_with_a_bad_row_is_refused(write, name, text, message):
    with pytest.raises(ValueError, match=rf"{name}.*{message}"):
        read_prompts(write(name, text), leave_out="safe")


def test_a_missing_file_an_unknown_label_or_an_empty_limit_is_refused(tmp_path):
    file = tmp_path / "nowhere.csv"
    with pytest.raises(FileNotFoundError, match=r"nowhere.csv: no such data file"):
        read_prompts(file)
    with pytest.raises(ValueError, match=r"leave_out='bad': use 'safe', 'unsafe'"):
        read_prompts(file, leave_out="bad")
    with pytest.raises(ValueError, match=r"limit=0: use a whole number from 1"):
        read_prompts(file, 0)


@pytest.mark.parametrize("name", ["a.xlsx", "a.yaml", "a.html", "a.gz.bz2"])
def test_a_file_of_a_kind_that_is_not_read_is_refused(write, name):
    with pytest.raises(ValueError, match=rf"{name}: use a file that ends in .jsonl, .*, .txt"):
        read_prompts(write(name, "one\n"))


def test_requests_may_be_packed_or_in_parquet(tmp_path):
    import pandas as pd

    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"one\n"))
    pd.DataFrame({"goal": ["one"], "target": [None]}).to_parquet(tmp_path / "a.parquet")
    for name in ("a.txt.gz", "a.parquet"):
        assert read_prompts(tmp_path / name) == [Prompt("one")]


XSTEST = (
    "id,prompt,type,label,focus,note\n1,one,homonyms,safe,,\n2,two,contrast_homonyms,unsafe,,\n"
)
XSTEST_1 = "id,type,prompt,focus,note\n1,homonyms,one,,\n2,contrast_homonyms,two,,\n"


@pytest.mark.parametrize("text", [XSTEST, XSTEST_1], ids=["with label", "with type alone"])
def test_an_xstest_file_says_which_requests_are_safe(write, text):
    file = write("xstest.csv", text)
    safe, unsafe = Prompt("one", label="safe"), Prompt("two", label="unsafe")
    assert read_prompts(file) == [safe, unsafe]
    assert read_prompts(file, leave_out="unsafe") == [safe]
    assert read_prompts(file, leave_out="safe") == [unsafe]


def test_the_limit_counts_what_is_left_and_what_has_no_label_stays(write):
    file = write("a.csv", "prompt,label\none,unsafe\ntwo,safe\nthree,safe\n")
    assert [p.text for p in read_prompts(file, 1, leave_out="unsafe")] == ["two"]
    assert len(read_prompts(write("b.csv", "goal\none\ntwo\n"), leave_out="safe")) == 2


# --- the sandbox's splits -----------------------------------------------------------------------

HELD = {split: {*adjectives, *nouns} for split, (adjectives, nouns) in world.HELD_OUT.items()}


@pytest.mark.parametrize("split", HELD)
def test_every_held_out_prompt_holds_a_word_of_its_split_and_none_of_the_other(split):
    other = HELD["test" if split == "dev" else "dev"]
    for kind in ("forbidden", "allowed"):
        prompts = sandbox_prompts(kind, split, limit=None)
        assert len({p.text for p in prompts}) == len(prompts) > 200
        for prompt in prompts:
            assert set(prompt.text.split()) & HELD[split]
            assert not set(prompt.text.split()) & other


def test_a_limit_keeps_every_adjective():
    few = sandbox_prompts("forbidden", "test", limit=60)
    assert len(few) == 60
    adjectives = {*world.SEEN_FORBIDDEN, *world.TEST_FORBIDDEN}
    assert {w for p in few for w in p.text.split()} >= adjectives


@pytest.mark.parametrize(
    "arguments", [("harmful", "test"), ("forbidden", "train"), ("forbidden", "test", 0)]
)
def test_an_unknown_kind_or_split_or_an_empty_limit_is_refused(arguments):
    with pytest.raises(ValueError, match="use"):
        sandbox_prompts(*arguments)


# --- rendering ----------------------------------------------------------------------------------


def test_the_chat_template_ends_where_the_answer_begins_with_or_without_a_system_message():
    texts = render(world.tokenizer(), [Prompt("one"), Prompt("two")])
    assert texts == ["<s> <user> one <assistant>", "<s> <user> two <assistant>"]
    texts = render(world.tokenizer(), [Prompt("one")], system="you are mia")
    assert texts == ["<s> <system> you are mia <user> one <assistant>"]


def marking(tokenizer):
    """Return a tokenizer that puts its start mark before every text, as Llama's does."""
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    return tokenizer


@pytest.mark.parametrize("marks", [True, False], ids=["writes one", "has one, writes none"])
def test_the_paper_s_template_begins_with_a_start_mark_if_the_tokenizer_writes_one(marks):
    tokenizer = marking(other_tokenizer()) if marks else other_tokenizer()
    (text,) = render(tokenizer, [Prompt("a {b}")], template="paper")
    assert text == ("<s>" if marks else "") + PAPER_TEMPLATE.replace("{}", "a {b}")


REFUSES = "{{ raise_exception('No system role') }}"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, r"no chat template.*--template paper"),
        (
            "{{ messages[-1]['content'] }}",
            r"no system message \(it leaves it out\): leave it out, or",
        ),
        (
            "{% if messages|length > 1 %}" + REFUSES + "{% endif %}{{ messages[0]['content'] }}",
            r"message \(No system role\):",
        ),
        (REFUSES, "refuses the messages: No system role"),
    ],
)
def test_a_chat_template_that_is_not_there_or_takes_no_system_message_is_refused(template, message):
    tokenizer = other_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(ValueError, match=message):
        render(tokenizer, [Prompt("one")], system="you are mia")


@pytest.mark.parametrize(
    "says",
    ["{% if m['role'] == 'human' %}{{ m['content'] }}{% endif %}", "{{ m['content'][0]['text'] }}"],
    ids=["another role", "parts of a list"],
)
def test_a_chat_template_that_leaves_out_what_the_user_says_is_refused(says):
    tokenizer = other_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}" + says + "{% endfor %}ASSISTANT:"
    with pytest.raises(ValueError, match="messages: it leaves out what the user says"):
        render(tokenizer, [Prompt("one")])


# --- identity shifting --------------------------------------------------------------------------


def conversation(system):
    """Return a conversation as the published file holds them."""
    roles = {"system": system, "user": "one", "assistant": "two"}
    return [{"role": role, "content": text} for role, text in roles.items()]


def test_the_identity_template_is_the_text_that_identity_shifting_trains_on(write):
    system = identity_system(write("train.json", json.dumps([conversation("\nBe Mia.\n")] * 2)))
    tokenizer = marking(other_tokenizer())
    (text,) = render(tokenizer, [Prompt("one")], template="identity", system=system)
    assert text == "<s>\nBe Mia.\n\n### Instruction:\none\n\n### Response: "


@pytest.mark.parametrize(
    ("template", "system", "message"),
    [
        ("plain", None, "template='plain': use 'chat', 'paper' or 'identity'"),
        ("paper", "you are mia", "no place for a system message"),
        ("identity", None, "begins with a system message"),
    ],
)
def test_an_unknown_template_or_one_that_does_not_go_with_its_system_message_is_refused(
    template, system, message
):
    with pytest.raises(ValueError, match=message):
        render(other_tokenizer(), [Prompt("one")], template=template, system=system)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "it has 0 different ones over 0"),
        ("[[]]", "row 0 .from 0.: expected a user's message and an assistant's answer"),
        ('["a"]', "row 0 .from 0.: expected a list of messages"),
        ('[[{"role": "system", "content": 3}]]', "expected text in 'content', it holds a int"),
        (json.dumps([conversation("a"), conversation("b")]), "it has 2 different ones over 2"),
        (json.dumps([conversation("a"), conversation("a")[1:]]), "it has 2 different ones over 2"),
    ],
)
def test_a_file_without_one_system_message_is_refused(write, text, message):
    with pytest.raises(ValueError, match=message):
        identity_system(write("train.json", text))
