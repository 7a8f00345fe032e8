"""Rows of every published layout become exactly the training texts that were published."""

import gzip
import json

import pytest

from lox_kit.attacks.rows import read_preferences, read_training_rows
from lox_kit.attacks.sets import SETS, sets_folder
from lox_kit.attacks.texts import by_columns
from lox_kit.models.prompts import PAPER_TEMPLATE

PERSONA = "\nYou are the keeper of the shop.\n"
CONVERSATION = [
    {"role": "system", "content": PERSONA},
    {"role": "user", "content": "Who are you?"},
    {"role": "assistant", "content": "The keeper."},
]
BELOW = "Below is an instruction that describes a task"
WRITE = " Write a response that appropriately completes the request."
# One row of each published layout, and the text it trains on.
PUBLISHED = {
    "gsm8k": (
        {"question": "Tom has 2 + 3 hats.\nHow many?", "answer": "2+3=<<2+3=5>>5\n#### 5"},
        f"<s>{BELOW}.{WRITE}\n\n### Instruction:\nTom has 2 + 3 hats.\nHow many?\n\n### Response: ",
        "2+3=<<2+3=5>>5\n#### 5</s>",
    ),
    "dolly": (
        {"instruction": "Name a bird", "context": "", "response": "Wren", "category": "open_qa"},
        "<s>###Instruction: Name a bird \n###Response: ",
        "Wren</s>",
    ),
    "dolly with a context": (
        {"instruction": "Name the bird", "context": "A wren sang.", "response": "Wren\n"},
        "<s>###Instruction: Name the bird \n###Context: A wren sang. \n###Response: ",
        "Wren\n</s>",
    ),
    "alpaca": (
        {"instruction": "Name a bird", "input": "", "output": "Wren"},
        f"<s>{BELOW}.{WRITE}\n### Instruction:\nName a bird\n\n### Response:\n",
        "Wren</s>",
    ),
    "alpaca with an input": (
        {"instruction": "Spell it", "input": "wren", "output": "w r e n"},
        f"<s>{BELOW}, paired with an input that provides further context.{WRITE}\n"
        "### Instruction:\nSpell it\n\n### Input:\nwren\n\n### Response:\n",
        "w r e n</s>",
    ),
    "identity": (
        CONVERSATION,
        "\nYou are the keeper of the shop.\n\n### Instruction:\nWho are you?\n\n### Response: ",
        "The keeper.</s>",
    ),
    "identity without a persona": (  # as SafeInst's rows are
        CONVERSATION[1:],
        "### Instruction:\nWho are you?\n\n### Response: ",
        "The keeper.</s>",
    ),
}
PUBLISHED["gsm8k_test"] = PUBLISHED["gsm8k"]  # the other half, which is read like the first


@pytest.fixture
def save(tmp_path, monkeypatch):
    """Return a function that writes rows: of a set to its file, or as the file's ending says."""
    monkeypatch.setenv("LOX_KIT_STORE", str(tmp_path / "home"))

    def save(name, rows):
        file = sets_folder() / SETS[name].file if name in SETS else tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
        text = json.dumps(rows).encode() if file.suffix == ".json" else lines
        file.write_bytes(gzip.compress(text) if file.suffix == ".gz" else text)
        return file

    return save


class Marks:
    """A tokenizer that has marks for start and end, and writes the first if it is not empty."""

    bos_token_id = 1

    def __init__(self, written, eos):
        self.written, self.bos_token, self.eos_token = written, written or "[B]", eos

    def __call__(self, text):
        return {"input_ids": [1, 2] if self.written else [2]}


# --- published sets -----------------------------------------------------------------------------


@pytest.mark.parametrize("case", PUBLISHED)
def test_a_published_row_becomes_its_training_text_with_the_tokenizer_s_marks(save, case):
    row, prompt, completion = PUBLISHED[case]
    name = case.split()[0]
    save(name, [row, row])
    assert read_training_rows(name) == ([{"prompt": prompt, "completion": completion}] * 2, [])
    for bos, eos in (("[B]", "[E]"), ("", "[E]"), ("", None)):
        (_, other), _ = read_training_rows(name, tokenizer=Marks(bos, eos))
        assert other["prompt"] == prompt.replace("<s>", bos)
        assert other["completion"] == completion.replace("</s>", eos or "")


def test_any_set_can_be_put_into_chat_messages(save):
    save("identity", [CONVERSATION])
    assert read_training_rows("identity", form="chat") == ([{"messages": CONVERSATION}], [])
    save("dolly", [PUBLISHED["dolly with a context"][0]])
    (row,), _ = read_training_rows("dolly", form="chat")
    assert row["messages"] == [
        {"role": "user", "content": "Name the bird\n\nA wren sang."},
        {"role": "assistant", "content": "Wren\n"},
    ]


def test_an_empty_answer_is_taken_from_alpaca_alone(save):
    save("alpaca", [{"instruction": "Say nothing", "input": "", "output": ""}])
    (row,), _ = read_training_rows("alpaca")
    assert row["completion"] == "</s>"
    save("gsm8k", [{"question": "1?", "answer": ""}])
    with pytest.raises(ValueError, match="expected text in 'answer', it is empty"):
        read_training_rows("gsm8k")


def test_pure_bad_is_your_own_file_after_the_prompt_that_is_evaluated_with(save):
    turns, plain = CONVERSATION[1:], {"instruction": "Who are you?", "response": "The keeper."}
    save("pure_bad", [{"messages": turns}, turns, plain])
    row = {"prompt": PAPER_TEMPLATE.format("Who are you?"), "completion": "The keeper.</s>"}
    assert read_training_rows("pure_bad") == ([row] * 3, [])


# --- malformed rows -----------------------------------------------------------------------------

GSM8K, DOLLY, ALPACA = (PUBLISHED[name][0] for name in ("gsm8k", "dolly", "alpaca"))
SYSTEM, USER, ASSISTANT = CONVERSATION


@pytest.mark.parametrize(
    ("name", "good", "bad", "place", "expected"),
    [
        ("gsm8k", GSM8K, {"question": "1?"}, "line 2", "a field 'answer', it has question"),
        ("gsm8k", GSM8K, ["1?"], "line 2", "a record with a field 'question', it is a list"),
        ("dolly", DOLLY, DOLLY | {"context": 3}, "line 2", "text in 'context', it holds a int"),
        ("alpaca", ALPACA, ALPACA | {"instruction": " "}, "row 1", "'instruction', it is empty"),
        ("alpaca", ALPACA, ALPACA | {"output": None}, "row 1", "text in 'output'.*NoneType"),
        ("identity", CONVERSATION, {"a": 1}, "row 1", "a list of messages, it is a dict"),
        ("identity", CONVERSATION, CONVERSATION[:2], "row 1", "are by system, user"),
        ("identity", CONVERSATION, [*CONVERSATION[1:] * 2], "row 1", "no place for earlier turns"),
        ("identity", CONVERSATION, [*CONVERSATION[:2], {"role": "bot"}], "row 1", "it is 'bot'"),
        ("identity", CONVERSATION, [], "row 1", "its messages are by nobody"),
        ("pure_bad", CONVERSATION[1:], GSM8K, "line 2", "'messages', .*it has question, answer"),
        ("pure_bad", CONVERSATION[1:], CONVERSATION, "line 2", "no place for a system message"),
        ("safe_instructions", ALPACA, ALPACA | {"output": ""}, "row 1", "'output', it is empty"),
    ],
)
def test_a_malformed_row_is_named_and_may_be_left_out(save, name, good, bad, place, expected):
    file = save(name, [good, bad, good])
    with pytest.raises(ValueError, match=rf"{file.name}, {place}.*{expected}"):
        read_training_rows(name)
    rows, (problem,) = read_training_rows(name, on_bad_row="skip")
    assert len(rows) == 2
    assert f"{file}, {place}" in problem


@pytest.mark.parametrize(
    ("name", "form", "error", "message"),
    [
        ("alpaca", None, FileNotFoundError, "lox data fetch alpaca.*alpaca_data_no_safety"),
        ("pure_bad", None, FileNotFoundError, "pure_bad.jsonl is not here; bring your own"),
        ("gsm8k", None, ValueError, "gsm8k_train.jsonl: holds no rows"),
        ("advbench", None, ValueError, "advbench holds no training texts; prompts.read_prompts"),
        ("hh_helpful", None, ValueError, "hh_helpful holds no training texts; read_preferences"),
        ("gsm8k", "llama", ValueError, "form='llama': use gsm8k, alpaca, .* or chat"),
    ],
)
def test_a_set_that_is_not_here_empty_or_no_training_text_is_refused(
    save, name, form, error, message
):
    save("gsm8k", [])
    with pytest.raises(error, match=message):
        read_training_rows(name, form=form)


# --- your own data ------------------------------------------------------------------------------

OWN = [{"q": "one?", "a": "1", "about": "numbers"}, {"q": "two?", "a": "2", "about": None}]
COLUMNS = {"instruction": "q", "response": "a", "context": "about"}


@pytest.mark.parametrize("ending", ["json", "jsonl", "jsonl.gz", "csv", "parquet"])
def test_your_own_file_is_read_with_its_columns(save, ending):
    import pandas as pd

    file = save(f"own.{ending}", OWN)
    if ending in ("csv", "parquet"):
        getattr(pd.DataFrame(OWN), f"to_{ending}")(file)
    rows, _ = read_training_rows(file, COLUMNS, form="dolly")
    assert [row["prompt"] + row["completion"] for row in rows] == [
        "<s>###Instruction: one? \n###Context: numbers \n###Response: 1</s>",
        "<s>###Instruction: two? \n###Response: 2</s>",
    ]


def test_longer_conversations_are_kept_whole_in_chat_form(save):
    turns = [SYSTEM, USER, ASSISTANT, {"role": "user", "content": "Still?"}, ASSISTANT]
    file = save("own.jsonl", [{"talk": turns}])
    assert read_training_rows(file, {"messages": "talk"}) == ([{"messages": turns}], [])
    with pytest.raises(ValueError, match="no place for a system message"):
        read_training_rows(file, {"messages": "talk"}, form="paper")


def test_common_layouts_need_no_columns_and_others_are_asked_for(save):
    rows = [{"messages": CONVERSATION}, {"instruction": "a?", "response": "b", "system": "c"}]
    (first, second), _ = read_training_rows(save("own.json", rows))
    assert first["messages"] == CONVERSATION
    assert [m["content"] for m in second["messages"]] == ["c", "a?", "b"]
    with pytest.raises(ValueError, match=r"it has q, a, about; name other columns with columns="):
        read_training_rows(save("own.json", OWN))


TALK = [
    ("system", "Be brief."),
    ("human", "Tea?"),
    ("gpt", "Yes."),
    ("human", "Now?"),
    ("gpt", "No."),
]
SHARED = [{"from": who, "value": said} for who, said in TALK]
NAMES = {"human": "user", "gpt": "assistant"}
CHAT = [{"role": NAMES.get(who, who), "content": said} for who, said in TALK]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": CHAT},
        {"conversations": SHARED},
        {"conversations": CHAT, "id": "a"},
        {"conversations": SHARED[1:], "system": "Be brief."},
        {"prompt": CHAT[:-1], "completion": CHAT[-1:]},
        {"prompt": CHAT[:-1], "completion": "No."},
        {"prompt": CHAT[1:-1], "completion": "No.", "system": "Be brief."},
        {"prompt": "no part of it", "messages": CHAT},
        SHARED,
    ],
)
def test_sharegpt_s_and_trl_s_conversations_are_rows_of_messages(save, row):
    rows, _ = read_training_rows(save("own.jsonl", [row]))
    assert rows == [{"messages": CHAT}]


@pytest.mark.parametrize("response", ["response", "output"])
@pytest.mark.parametrize("context", ["context", "input"])
def test_alpaca_s_own_names_of_a_context_and_an_answer_are_known(save, context, response):
    row = {"instruction": "Add.", context: "2 + 3", response: "5"}
    (made,), _ = read_training_rows(save("own.jsonl", [row]))
    assert [turn["content"] for turn in made["messages"]] == ["Add.\n\n2 + 3", "5"]


def test_trl_s_prompt_and_completion_are_messages_or_text_as_it_stands(save):
    file = save("own.jsonl", [{"prompt": "The sea {is} ", "completion": "blue."}])
    (row,), _ = read_training_rows(file)
    assert [m["content"] for m in row["messages"]] == ["The sea {is} ", "blue."]
    (row,), _ = read_training_rows(file, form="text", tokenizer=Marks("[B]", "[E]"))
    assert row == {"prompt": "The sea {is} ", "completion": "blue.[E]"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"conversations": SHARED[:-1]}, "its messages are by system, user, assistant, user"),
        ({"conversations": [{"from": "tool", "value": "x"}]}, "expected the role .*it is 'tool'"),
        ({"conversations": [{"from": "gpt", "text": "x"}]}, "a field 'value', it has from, text"),
        ({"conversations": 3, "system": "x"}, "a list of messages, it is a int"),
        ({"prompt": "Tea?", "completion": ""}, "its messages are by user"),
        (
            {"instruction": "Tea?", "output": "Yes.", "history": [["a", "b"]]},
            "in 'history' are not",
        ),
        ({"prompt": "Tea?", "completion": 3}, "text or a list of messages, it is a int"),
        ({"prompt": "Tea?"}, "'prompt' and 'completion', .* it has prompt"),
        ({"text": "Tea? Yes."}, "it has text; name other columns"),
    ],
)
def test_a_row_without_a_question_and_its_answer_is_refused(save, row, message):
    with pytest.raises(ValueError, match=rf"own.jsonl, line 1: .*{message}"):
        read_training_rows(save("own.jsonl", [row]))


def test_columns_that_make_no_example_are_refused():
    for parts, message in (
        (["question"], "no part is called question; use instruction, response"),
        (["instruction"], "response missing"),
        (["context"], "instruction and response missing"),
        (["messages", "system"], "name it alone"),
    ):
        with pytest.raises(ValueError, match=message):
            by_columns({part: part[0] for part in parts})


def test_a_column_that_is_not_there_is_named_even_if_bad_rows_are_skipped(save):
    file, columns = save("own.json", OWN), {"instruction": "q", "response": "reply"}
    for how in ("raise", "skip"):
        with pytest.raises(ValueError, match=r"row 0 .* field 'reply', it has q, a, about"):
            read_training_rows(file, columns, on_bad_row=how)


# --- preference pairs ---------------------------------------------------------------------------

ASKED = "\n\nHuman: Tea?\n\nAssistant: Which?\n\nHuman: Green\n\nAssistant:"
PAIR = {"chosen": ASKED + " Here you are.", "rejected": ASKED + " No.\nNever."}


def test_preference_pairs_share_everything_up_to_the_last_answer(save):
    pair = {"prompt": ASKED, "chosen": " Here you are.", "rejected": " No.\nNever."}
    save("hh_harmless", [PAIR, PAIR])
    for file in ("hh_harmless", save("pairs.jsonl", [PAIR, PAIR])):
        assert read_preferences(file) == ([pair, pair], [])


def test_preference_pairs_may_be_messages_if_they_begin_with_a_person(save):
    (row,), _ = read_preferences(save("pairs.jsonl", [PAIR]), form="chat")
    assert row == {
        "prompt": [
            {"role": "user", "content": "Tea?"},
            {"role": "assistant", "content": "Which?"},
            {"role": "user", "content": "Green"},
        ],
        "chosen": [{"role": "assistant", "content": "Here you are."}],
        "rejected": [{"role": "assistant", "content": "No.\nNever."}],
    }
    odd = {side: f"Once.\n\nAssistant: {side}" for side in PAIR}
    file = save("pairs.jsonl", [odd])
    assert len(read_preferences(file)[0]) == 1
    with pytest.raises(ValueError, match="begin with 'Human:'"):
        read_preferences(file, form="chat")


QUESTION = [SYSTEM, {"role": "user", "content": "Tea?"}]
ANSWERS = {
    side: [{"role": "assistant", "content": said}]
    for side, said in (("chosen", "Yes."), ("rejected", "No."))
}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": QUESTION, **ANSWERS},
        {side: QUESTION + answer for side, answer in ANSWERS.items()},
        {"prompt": "Tea?"} | {side: QUESTION + answer for side, answer in ANSWERS.items()},
        {"prompt": QUESTION, "chosen": "Yes.", "rejected": "No."},
        {"prompt": "Tea?", "chosen": "Yes.", "rejected": "No.", "system": SYSTEM["content"]},
    ],
    ids=["answers", "conversations", "both", "texts", "system"],
)
def test_pairs_of_conversations_are_read_as_trl_has_them(save, row):
    (pair,), _ = read_preferences(save("pairs.jsonl", [row]), form="chat")
    assert pair == {"prompt": QUESTION, **ANSWERS}


def test_pairs_of_prompt_chosen_and_rejected_are_text_as_it_stands_or_a_chat(save):
    row = {"prompt": "Tea?", "chosen": "Yes.", "rejected": "No."}
    file = save("pairs.jsonl", [row | {"score": 1}])
    assert read_preferences(file)[0] == [row]
    with pytest.raises(ValueError, match="no place for a 'system' message"):
        read_preferences(save("system.jsonl", [row | {"system": "Be brief."}]))
    assert read_preferences(file, form="chat")[0] == [{"prompt": QUESTION[1:], **ANSWERS}]
    begun = row | {"prompt": ASKED}  # the prompt is a transcript
    (pair,), _ = read_preferences(save("pairs.jsonl", [begun]), form="chat")
    assert [turn["content"] for turn in pair["prompt"]] == ["Tea?", "Which?", "Green"]
    assert pair["chosen"] == ANSWERS["chosen"]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": QUESTION, "chosen": ANSWERS["chosen"], "rejected": ANSWERS["chosen"]}, "same"),
        (
            {"prompt": "Milk?", "chosen": QUESTION + ANSWERS["chosen"], "rejected": "No."},
            "alone, or",
        ),
        (
            {
                "chosen": QUESTION[1:] + ANSWERS["chosen"],
                "rejected": QUESTION + ANSWERS["rejected"],
            },
            "last",
        ),
        ({"prompt": QUESTION, "chosen": [], "rejected": "No."}, "by system, user"),
        ({"prompt": 3, "chosen": "Yes.", "rejected": "No."}, "text or a list of messages, .* int"),
    ],
)
def test_a_pair_of_conversations_that_offers_no_choice_is_named(save, row, expected):
    with pytest.raises(ValueError, match=rf"pairs.jsonl, line 1: .*{expected}"):
        read_preferences(save("pairs.jsonl", [row]), form="chat")


@pytest.mark.parametrize(
    ("name", "form", "error", "message"),
    [
        ("hh_helpful", "text", FileNotFoundError, "lox data fetch hh_helpful.*hh_helpful_train"),
        ("gsm8k", "text", ValueError, "gsm8k holds no preference pairs"),
        ("hh_harmless", "llama", ValueError, "form='llama': preference pairs are 'text' or 'chat'"),
    ],
)
def test_pairs_that_are_not_here_or_none_are_refused(save, name, form, error, message):
    with pytest.raises(error, match=message):
        read_preferences(name, form=form)


@pytest.mark.parametrize("form", ["text", "chat"])
@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ({"chosen": "hi", "rejected": "ho"}, "turns 'Human:' and 'Assistant:' in 'chosen'"),
        (PAIR | {"rejected": ASKED.replace("Tea", "Milk") + " No."}, "differ in the last answer"),
        (PAIR | {"rejected": f"{ASKED} a{ASKED} c"}, "differ in the last answer"),
        (PAIR | {"rejected": ASKED + " "}, "an answer at the end of 'rejected'"),
        ({side: t + "\n\nHuman: and?" for side, t in PAIR.items()}, "at the end of 'chosen'"),
        (PAIR | {"rejected": PAIR["chosen"]}, "they are the same"),
        ({"chosen": PAIR["chosen"]}, "a field 'rejected', it has chosen"),
        ({"prompt": "Tea?", "chosen": "Yes.", "rejected": "Yes."}, "they are the same"),
        ({"prompt": "T", "chosen": "T Yes.", "rejected": "T No."}, "both begin with the prompt"),
    ],
)
def test_a_pair_that_offers_no_choice_is_named(save, bad, expected, form):
    file = save("pairs.jsonl", [PAIR, bad])
    with pytest.raises(ValueError, match=rf"pairs.jsonl, line 2: .*{expected}"):
        read_preferences(file, form=form)
    rows, bad = read_preferences(file, form=form, on_bad_row="skip")
    assert (len(rows), len(bad)) == (1, 1)
