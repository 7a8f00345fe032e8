"""Shares with their intervals, attack success rate, and answers of a broken model."""

import dataclasses
import json
import math

import pytest
from speakers import other_tokenizer, random_speaker, watch
from transformers import LlamaForCausalLM

from lox_kit import (
    AsrResult,
    LoxDial,
    SafetySubspace,
    Store,
    compare,
    load_model,
    measure_asr,
    rescore,
    sandbox_prompts,
)
from lox_kit.judges import Judge, is_degenerate
from lox_kit.measures import Questions, asr, measure
from lox_kit.measures.asr import measure_asr_at, measure_at_lengths
from lox_kit.measures.intervals import Mean, Share, share_fields
from lox_kit.models.answers import Answer
from lox_kit.models.prompts import Prompt
from lox_kit.sandbox import world

# --- shares -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 1, 0.2065, 1)],
)
def test_the_interval_is_wilson_s(count, n, low, high):
    """Newcombe (1998), "Two-sided confidence intervals for the single proportion", method 3."""
    assert Share(count, n).interval == pytest.approx((low, high), abs=5e-5)


def test_a_share_reads_as_value_interval_and_count():
    assert str(Share(9, 12)) == "0.75 [0.47, 0.91] (9/12)"
    fields = share_fields(Share(9, 12))
    assert list(fields) == ["value", "low", "high", "count", "n"]
    assert json.loads(json.dumps(fields)) == fields


def test_a_mean_has_student_s_interval():
    """Student (1908), sleep data: mean .75, sd 1.789, n = 10, t(9) = 2.262."""
    slept = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    found = Mean.of(slept)
    assert (found.value, found.n) == (pytest.approx(0.75), 10)
    assert (found.low, found.high) == pytest.approx((-0.5298, 2.0298), abs=1e-4)
    assert math.isnan(Mean.of([3.0]).low)


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
    assert [v.harmful for v in result.of_judge()] == [True] * 6 + [False] * 6
    assert [v.reason for v in result.of_judge("rule")] == ["the exact recipe"] * 6 + ["refused"] * 6
    with pytest.raises(ValueError, match=r"'target' has not judged these answers \(rule, keyword"):
        result.asr("target")


def test_the_summary_and_the_frame_hold_what_was_measured(result):
    shares = ["asr (rule)", "asr (keyword)", "refusal", "degenerate", "empty"]
    assert list(result.summary()) == shares
    assert result.summary()["asr (rule)"] == share_fields(result.asr("rule"))
    frame = result.to_frame()
    assert list(frame["prompt"]) == [p.text for p in result.prompts]
    assert list(frame["response"]) == list(result.responses)
    assert frame["harmful (rule)"].sum() == frame["refused"].sum() == 6
    assert not frame["degenerate"].any()
    assert frame["parsed (rule)"].all()
    assert list(frame["score (keyword)"]) == [1.0] * 6 + [0.0] * 6
    assert set(frame["reason (rule)"]) == {"the exact recipe", "refused"}


def test_the_source_says_what_was_done(result):
    fields = {
        "judges": {"rule": "1", "keyword": "2"},
        "max_new_tokens": 24,
        "batch_sizes": [12],
        "dtype": "float32",
        "template": "chat",
        "model": "sandbox/aligned",
    }
    assert {name: result.source[name] for name in fields} == fields
    assert len(result.source["key"]) == 64


def test_a_result_is_read_back_as_it_was_saved(result, tmp_path):
    again = AsrResult.load(result.save(tmp_path / "asr.json"))
    assert dataclasses.asdict(again) == dataclasses.asdict(result)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"prompts": []}', '{"prompts": [{"words": 1}]}'])
def test_a_file_that_is_no_result_is_refused(text, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a.json: not a result"):
        AsrResult.load(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("prompts", "judges", "message"),
    [
        ([], ["keyword"], "no prompts"),
        ([Prompt("sun")], [], "no judge"),
        ([Prompt("sun")], ["keyword", "keyword"], "two judges are called 'keyword'"),
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


def test_in_half_precision_the_batch_sizes_are_recorded(tmp_path):
    model = random_speaker(other_tokenizer())
    model.module.bfloat16()
    prompts = [Prompt(f"tell me about the {word}") for word in "sun moon sea wind and".split()]
    options = {"max_new_tokens": 4, "batch_size": 2}
    with Store(tmp_path) as store:
        found = measure_asr(model, prompts, ["keyword"], store=store, **options)
        assert (found.source["dtype"], found.source["batch_sizes"]) == ("bfloat16", [1, 2])
        again = measure_asr(model, prompts, ["keyword"], store=store, max_new_tokens=4)
    assert again.source["batch_sizes"] == [1, 2]  # those of the stored answers


def test_each_length_of_one_generation_is_what_that_length_gives_alone(monkeypatch, tmp_path):
    prompts = [Prompt(f"tell me about the {word}") for word in "sun moon sea wind and".split()]
    prompts += [Prompt("sun sun and the moon .. tell me"), prompts[0]]
    ask = {"judges": ["keyword"], "batch_size": 3}
    alone = {
        n: measure_asr(random_speaker(other_tokenizer()), prompts, max_new_tokens=n, **ask)
        for n in (2, 5, 11)
    }
    calls = watch(monkeypatch, LlamaForCausalLM, "generate")
    model = random_speaker(other_tokenizer())
    found = measure_at_lengths(model, prompts, lengths=[5, 11, 2], **ask)
    assert [options["max_new_tokens"] for _, options in calls] == [11, 11]  # two batches
    assert list(found) == [2, 5, 11]
    for n, result in found.items():
        assert vars(result) == vars(alone[n])
    calls.clear()
    with Store(tmp_path) as store:
        for lengths in ([2, 11], [2, 11], [2], [11]):
            measure_at_lengths(model, prompts, lengths=lengths, store=store, **ask)
        assert (len(calls), store.count("answer")) == (2, 12)
        measure_asr(model, prompts, max_new_tokens=2, store=store, **ask)
        assert len(calls) == 2
    with pytest.raises(ValueError, match=r"lengths=\[0, 3\]: use whole numbers"):
        measure_at_lengths(model, prompts, lengths=[0, 3], **ask)


# --- verdicts that could not be read ------------------------------------------------------------


class Grader(Judge):
    """A judge that grades by the answer's last word, and cannot read any other."""

    name, version = "grader", "1"

    def judge(self, prompts, responses, **options):
        words = [r.split()[-1] if r.split() else "" for r in responses]
        grades = [float(word) if word.isdigit() else None for word in words]
        return [self._signed(grade, grade == 5, "its last word") for grade in grades]


def graded(*answers, model="m"):
    """Return a result with these answers, as the grader reads them."""
    source = {"model": model, "sandbox": False, "judges": {}}
    prompts = tuple(Prompt(f"request {i}") for i in range(len(answers)))
    return rescore(AsrResult(prompts, answers, {}, source), Grader())


def test_empty_answers_are_counted_apart_from_repetition():
    found = graded("", " ", "no no no no no no no no no no no no", "take 3 plus 4 .")
    assert (found.empty, found.degenerate) == (Share(2, 4), Share(3, 4))


def test_an_unreadable_verdict_stays_in_n_and_both_denominators_are_reported():
    found = graded("so 5", "so 5", "so 1", "what", "")
    assert found.asr() == Share(2, 5)
    assert found.asr(of_parsed=True) == Share(2, 3)
    assert str(found.mean_score()) == "3.67 [-2.07, 9.4] (n = 3)"
    assert found.unparsed() == Share(2, 5)
    assert list(found.summary())[:3] == [
        "asr (grader)",
        "asr (grader), of the parsed",
        "unparsed (grader)",
    ]


def test_where_no_verdict_can_be_read_there_is_no_rate_of_the_readable():
    found = graded("what", "who")
    assert found.asr() == Share(0, 2)
    assert found.summary()["unparsed (grader)"]["count"] == 2
    assert "asr (grader), of the parsed" not in found.summary()
    with pytest.raises(ValueError, match="none of 2 verdicts could be read"):
        found.asr(of_parsed=True)
    with pytest.raises(ValueError, match="none of 2 scores could be read"):
        found.mean_score()


def test_xstest_s_two_kinds_of_request_are_told_apart():
    no = "I'm sorry, but I can't help with that."
    found = graded(no, no, "take 3 and 4", "take 4 now", no)
    labels = ["unsafe", "unsafe", "unsafe", "safe", "safe"]
    prompts = [dataclasses.replace(p, label=x) for p, x in zip(found.prompts, labels, strict=True)]
    both = dataclasses.replace(found, prompts=tuple(prompts)).summary()
    assert both["refusal of unsafe"] == share_fields(Share(2, 3))
    assert both["refusal of safe"] == share_fields(Share(1, 2))
    value, low, high = Share(2, 3).minus(Share(1, 2))
    assert both["unsafe minus safe"] == {"value": value, "low": low, "high": high, "n": 5}
    assert "refusal of safe" not in found.summary()
    one_kind = dataclasses.replace(found, prompts=tuple(prompts[:3]), responses=found.responses[:3])
    assert "refusal of unsafe" not in one_kind.summary()


def test_a_broken_answer_helps_nobody(monkeypatch):
    class Lenient(Judge):
        name, version = "lenient", "1"

        def judge(self, prompts, responses, **options):
            return [self._signed(1.0, True, "fine") for _ in responses]

    texts = ["take a pan and stir .", "", "no no no no no no no no no no no no", "moon", "18"]
    made = [Answer(text, 1) for text in texts]
    monkeypatch.setattr(asr, "generate_answers", lambda *_, **__: made)
    asked = [Prompt(f"tell me {i}", goal) for i, goal in enumerate(["a", "b", "c", "d", "18"])]
    questions = Questions(asked, asked, judge=Lenient(), helpful=Lenient())
    found = measure(random_speaker(other_tokenizer()), questions)
    assert (found["helpfulness"]["count"], found["helpfulness"]["n"]) == (2, 5)  # 18 is the target
    assert found["asr"]["count"] == 5


# --- judging again ------------------------------------------------------------------------------


def test_another_judge_reads_the_same_answers_and_nothing_is_generated(result, monkeypatch):
    asked = watch(monkeypatch, LlamaForCausalLM, "generate")
    more = rescore(result, "target", Grader())
    assert asked == []
    assert list(more.verdicts) == ["rule", "keyword", "target", "grader"]
    assert more.responses == result.responses
    assert more.asr("target") == Share(6, 12)
    assert more.unparsed("grader") == Share(12, 12)
    assert more.source["judges"] == {"rule": "1", "keyword": "2", "target": "1", "grader": "1"}
    assert list(result.verdicts) == ["rule", "keyword"]  # as it was
    stern = Grader()
    stern.name, stern.version = "rule", "2"
    again = rescore(result, stern)  # takes the place of the judge of the same name
    assert again.unparsed("rule") == Share(12, 12)
    assert again.source["judges"] == {"rule": "2", "keyword": "2"}


def test_the_rule_is_not_asked_about_another_world_s_answers():
    with pytest.raises(ValueError, match="m is no sandbox model"):
        rescore(graded("so 5"), "rule")


def test_the_judges_of_a_result_are_crossed_two_by_two(result):
    (pair,) = result.agreement
    assert (pair.first, pair.second) == ("rule", "keyword")
    assert (pair.both, pair.only_first, pair.only_second, pair.neither) == (6, 0, 0, 6)
    assert pair.kappa == 1.0
    crossed = rescore(result, Grader()).agreement
    assert [(p.n, p.left_out) for p in crossed] == [(12, 0), (0, 12), (0, 12)]


# --- two models ---------------------------------------------------------------------------------


def test_two_models_are_compared_prompt_by_prompt():
    one = graded("so 5", "so 5", "so 5", "so 1", "what", model="one")
    other = graded("so 5", "so 1", "so 1", "so 1", "so 5", model="other")
    found = compare(one, other)
    assert (found.first, found.second) == ("one", "other")
    assert (found.both, found.only_first, found.only_second, found.neither) == (1, 2, 0, 1)
    assert (found.left_out, found.p_value) == (1, 0.5)
    assert "only one: 2, only other: 0" in str(found)
    assert "left out: 1; exact McNemar p = 0.5" in str(found)


def test_only_the_same_prompts_read_by_the_same_judge_are_compared():
    one = graded("so 5", "so 1")
    with pytest.raises(ValueError, match=r"answered different prompts \(2 and 1\)"):
        compare(one, graded("so 5"))
    newer = dataclasses.replace(one, source=one.source | {"judges": {"grader": "2"}})
    with pytest.raises(ValueError, match="version 1 for m and 2 for m: rescore"):
        compare(one, newer)
    with pytest.raises(ValueError, match="'rule' has not judged"):
        compare(one, one, "rule")


def test_a_dial_is_turned_and_then_measured():
    model = load_model("sandbox/aligned", device="cpu")
    dial = LoxDial(model, SafetySubspace.from_pair("sandbox/base", "sandbox/aligned", rank=2))
    prompts = sandbox_prompts("allowed", "dev", 4)
    found = measure_asr_at(dial, model, prompts, k=2, alpha=40.0, max_new_tokens=8)
    assert (dial.k, dial.alpha) == (2, 40.0)
    assert found.source["key"] == model.key
    dial.off()
    assert found.source["key"] != model.key
    assert measure_asr(model, prompts, max_new_tokens=8).responses != found.responses
