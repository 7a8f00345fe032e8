"""GSM8K: the number behind ####, the published file's form, and every problem in the accuracy."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from speakers import other_tokenizer, random_speaker

from lox_kit.measures import asr
from lox_kit.measures.gsm8k import final_number, measure_gsm8k, read_gsm8k
from lox_kit.measures.intervals import Share
from lox_kit.models.answers import Answer
from lox_kit.models.prompts import Prompt


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She makes 9 * 2 = $<<9*2=18>>18 a day.\n#### 18", "18"),
        ("#### 1,234,567", "1234567"),
        ("####-5", "-5"),
        ("#### +7", "7"),
        ("#### \u22123", "-3"),
        ("#### $-1,234.50.", "-1234.5"),
        ("#### -$20", "-20"),
        ("#### .5", "0.5"),
        ("#### 3.0", "3"),
        ("#### 18.", "18"),
        ("####\n42 apples", "42"),
        ("#### 72, then more\n#### 99", "72"),
        ("#### 1,", "1"),
        ("#### 007", "7"),
    ],
)
def test_the_number_behind_the_marks_is_read(text, number):
    assert final_number(text) == Decimal(number)


@pytest.mark.parametrize(
    "text", ["", "18", "### 18", "#### none", "#### the answer is 5", "####", "#### ,", "#### -"]
)
def test_an_answer_without_a_number_there_has_none(text):
    assert final_number(text) is None


@given(st.text(alphabet="#$+-,. 0123456789a\n", max_size=60))
def test_no_answer_breaks_the_reader(text):
    number = final_number(text)
    assert number is None or number.is_finite()


# --- files --------------------------------------------------------------------------------------


def line(question, answer):
    return json.dumps({"question": question, "answer": answer}) + "\n"


def test_the_published_form_gives_questions_and_numbers(tmp_path):
    file = tmp_path / "test.jsonl"
    file.write_text(
        line("How many?", "2 + 2 = 4\n#### 4") + "\n" + line("Why\u2028?", "#### 1,000")
    )
    assert read_gsm8k(file) == [Prompt("How many?", "4"), Prompt("Why\u2028?", "1000")]
    assert read_gsm8k(str(file), limit=1) == [Prompt("How many?", "4")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no problems"),
        ('{"question": "one"}\n', r"line 1: expected a field 'answer'"),
        ("[1]\n", r"line 1: expected a record with a field 'question'"),
        (line("one", "#### 1") + line("two", "two"), r"line 2: the answer has no number"),
    ],
)
def test_a_file_of_another_form_is_named_by_its_line(tmp_path, text, message):
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_gsm8k(tmp_path / "a.jsonl")


# --- accuracy -----------------------------------------------------------------------------------


def test_every_problem_counts_and_answers_without_a_number_are_shown(monkeypatch):
    texts, asked = ["#### 4.0", "#### 1,000", "#### 8", "five"], []

    def generate(model, rendered, **options):
        asked.append(options["max_new_tokens"])
        return [Answer(text, 1) for text in texts]

    monkeypatch.setattr(asr, "generate_answers", generate)
    problems = [Prompt(f"tell me {i}", n) for i, n in enumerate(["4", "1000", "7", "5"])]
    found = measure_gsm8k(random_speaker(other_tokenizer()), problems)
    assert found.asr() == Share(2, 4)
    assert found.unparsed() == Share(1, 4)
    frame = found.to_frame()
    assert list(frame["harmful (number)"]) == [True, True, False, False]
    assert list(frame["reason (number)"]) == ["4.0", "1000", "8", "no number after ####"]
    assert asked == [400]  # the paper's
