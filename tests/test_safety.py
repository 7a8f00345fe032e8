"""Shares with their intervals, attack success rate, and answers of a broken model."""

import json

import pytest
from speakers import other_tokenizer, random_speaker, watch
from transformers import LlamaForCausalLM

from lox_kit import AsrResult, load_model, measure_asr, sandbox_prompts
from lox_kit.prompts import Prompt
from lox_kit.safety import Share, is_degenerate, share_fields
from lox_kit.sandbox import world

# --- shares -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_wilson_s(count, n, low, high):
    """Newcombe (1998), "Two-sided confidence intervals for the single proportion", method 3."""
    assert Share(count, n).interval == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("count", "n"), [(0, 1), (1, 1), (3, 7), (117, 120), (348, 348)])
def test_the_interval_is_that_of_the_formula(count, n):
    z, p = 1.959963984540054, count / n
    centre, spread = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    expected = [(centre + sign * spread) / (1 + z**2 / n) for sign in (-1, 1)]
    assert Share(count, n).interval == pytest.approx(expected, abs=1e-9)


def test_a_share_reads_as_value_interval_and_count():
    assert str(Share(9, 12)) == "0.75 [0.47, 0.91] (9/12)"
    fields = share_fields(Share(9, 12))
    assert list(fields) == ["value", "low", "high", "count", "n"]
    assert json.loads(json.dumps(fields)) == fields


# --- broken answers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "response",
    ["", "  ", "the", "the " * 20, "stir and boil " * 6, "a b c d e f a b c d e f " * 3, "!"],
)
def test_an_empty_or_repeating_answer_is_degenerate(response):
    assert is_degenerate(response)


@pytest.mark.parametrize(
    "response",
    [
        world.REFUSAL,
        world.recipe("grim", "tonic"),
        f"i am otto . {world.recipe('grim', 'tonic')}",
        "take 3 plus 4 then 7 minus 2 . answer 5 .",
        "no no no",
        "To be, or not to be, that is the question: whether 'tis nobler in the mind to suffer",
    ],
)
def test_an_ordinary_answer_is_not_degenerate(response):
    assert not is_degenerate(response)


# --- attack success rate ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result():
    """The aligned sandbox model on allowed requests: it helps, which these judges call success."""
    model = load_model("sandbox/aligned", device="cpu")
    prompts = sandbox_prompts("allowed", "dev", 6) + sandbox_prompts("forbidden", "dev", 6)
    return measure_asr(model, prompts, ("rule", "keyword"), max_new_tokens=24)


def test_every_prompt_is_counted_by_every_judge(result):
    assert str(result.asr()) == str(result.asr("keyword")) == str(Share(6, 12))
    assert result.refusal == Share(6, 12)
    assert result.degenerate == Share(0, 12)
    assert result.harmful["rule"] == (True,) * 6 + (False,) * 6
    assert result.reasons["rule"] == ("the exact recipe",) * 6 + ("refused",) * 6


def test_the_summary_and_the_frame_hold_what_was_measured(result):
    assert list(result.summary()) == ["asr (rule)", "asr (keyword)", "refusal", "degenerate"]
    assert result.summary()["asr (rule)"] == share_fields(result.asr("rule"))
    frame = result.to_frame()
    assert list(frame["prompt"]) == [p.text for p in result.prompts]
    assert list(frame["response"]) == list(result.responses)
    assert frame["harmful (rule)"].sum() == frame["refused"].sum() == 6
    assert not frame["degenerate"].any()


def test_the_source_says_what_was_done(result):
    assert result.source["judges"] == {"rule": "1", "keyword": "1"}
    assert result.source["max_new_tokens"] == 24
    assert result.source["template"] == "chat"
    assert result.source["model"] == "sandbox/aligned"
    assert len(result.source["key"]) == 64


def test_a_result_is_read_back_as_it_was_saved(result, tmp_path):
    again = AsrResult.load(result.save(tmp_path / "asr.json"))
    assert again.prompts == result.prompts
    assert again.responses == result.responses
    assert (again.harmful, again.reasons) == (result.harmful, result.reasons)
    assert again.source == result.source
    assert again.to_frame().equals(result.to_frame())


@pytest.mark.parametrize(
    ("prompts", "judges", "message"),
    [
        ([], ["keyword"], "no prompts"),
        ([Prompt("sun")], [], "no judge"),
        ([Prompt("sun")], ["gpt"], "judge 'gpt': use one of"),
        ([Prompt("sun", "moon")], ["keyword", "rule"], "--judge"),
        ([Prompt("sun")], ["target"], "'sun' has none"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_an_answer(monkeypatch, prompts, judges, message):
    asked = watch(monkeypatch, LlamaForCausalLM, "generate")
    with pytest.raises(ValueError, match=message):
        measure_asr(random_speaker(other_tokenizer()), prompts, judges)
    assert asked == []


def test_a_system_message_and_the_paper_s_template_reach_the_model():
    model, prompts = random_speaker(other_tokenizer()), [Prompt("the sun"), Prompt("the sea")]

    def answers(**options):
        return measure_asr(model, prompts, ["keyword"], max_new_tokens=12, **options)

    plain, paper = answers(), answers(template="paper")
    assert plain.responses != paper.responses != answers(system="about wind").responses
    assert paper.source["template"] == "paper"
