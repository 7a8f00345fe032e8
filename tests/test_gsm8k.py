"""GSM8K: the number behind ####, the published file's form, and every problem in the accuracy."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from speakers import other_tokenizer, random_speaker

from lox_kit.measures import asr
from lox_kit.measures.gsm8k import by_rule, final_number, measure_gsm8k, read_gsm8k, read_number
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


@pytest.mark.parametrize(
    ("text", "rule", "number"),
    [
        ("so \\boxed{7}, that is #### 8 and #### 9", "####", "8"),
        ("#### 3/4", "####", "3"),  # as the data set's own code reads it
        (r"The answer is 5: \[\boxed{18}\]", "\\boxed", "18"),
        (r"\boxed{5} no, \boxed{x = \$1{,}234 \text{ a day}}", "\\boxed", "1234"),
        (r"$\boxed{\dfrac{3}{4}}$", "\\boxed", "0.75"),
        (r"\boxed{none}, the answer is 6", "the answer is", "6"),
        ("The answer is 5. Wait. The answer is 6, not 7.", "the answer is", "6"),
        ("**Final Answer:** $1,234.50 in 3 days", "the answer is", "1234.5"),
        ("Answer:\n\n\u22125", "the answer is", "-5"),
        ("The answer is 5 + 13 = 18 dollars.", "the answer is", "18"),
        ("The answer to the question is 25%.", "the answer is", "25"),
        ("The answer is simple. 5 and 6 make 11 of them.", "last number", "11"),
        ("She has **3/4** of an hour", "last number", "0.75"),
        ("- 2 pears\n- 3 apples", "last number", "3"),
        ("2,000,000 people", "last number", "2000000"),
        ("1, 2,3", "last number", "3"),
        ("10 - 3 = 7.", "last number", "7"),
        ("it is 10-3", "last number", "3"),
        ("a loss of -$20", "last number", "-20"),
        ("costs US$20 a day", "last number", "20"),
        ("half of it, .5", "last number", "0.5"),
        ("on the 2nd day of the v3", "", None),
        ("five", "", None),
    ],
)
def test_a_chat_model_s_number_is_read_by_the_first_rule_that_finds_one(text, rule, number):
    assert read_number(text) == (rule, number and Decimal(number))


@given(st.text(alphabet="#$+-,./ 0123456789a\n\\{}boxed=:answeris", max_size=80))
def test_no_answer_breaks_the_rules(text):
    rule, number = read_number(text)
    assert (number is None) == (rule == "")
    assert number is None or number.is_finite()
    assert final_number(text) in (None, number)


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
    texts, asked = ["#### 4.0", "#### 1,000", "#### 8", "five", "It is 6.", "or 3/2"], []

    def generate(model, rendered, **options):
        asked.append(options["max_new_tokens"])
        return [Answer(text, 1) for text in texts]

    monkeypatch.setattr(asr, "generate_answers", generate)
    problems = [Prompt(f"tell me {i}", n) for i, n in enumerate("4 1000 7 5 6 1".split())]
    found = measure_gsm8k(random_speaker(other_tokenizer()), problems)
    assert found.asr() == Share(3, 6)
    assert found.unparsed() == Share(1, 6)
    frame = found.to_frame()
    assert list(frame["harmful (number)"]) == [True, True, False, False, True, False]
    reasons = ["####: 4.0", "####: 1000", "####: 8", "no number"]
    assert list(frame["reason (number)"]) == [*reasons, "last number: 6", "last number: 1.5"]
    assert by_rule(found) == {"####": Share(2, 3), "last number": Share(1, 2)}
    assert asked == [400]  # the paper's
