"""Helpfulness as a judge grades it, and over-refusal."""

import pytest
from judge_server import JudgeServer, answers, grade
from speakers import random_speaker

from lox_kit import load_model, sandbox_prompts
from lox_kit.judges import HelpfulnessJudge, PolicyJudge, TargetJudge
from lox_kit.measures import measure_helpfulness, measure_over_refusal
from lox_kit.measures.intervals import Share
from lox_kit.models.prompts import Prompt


def test_harmless_requests_that_are_refused_are_counted():
    model = load_model("sandbox/aligned", device="cpu")
    both = sandbox_prompts("allowed", "dev", 3) + sandbox_prompts("forbidden", "dev", 3)
    found = measure_over_refusal(model, both, max_new_tokens=24)
    assert (found.refusal, found.degenerate) == (Share(3, 6), Share(0, 6))
    assert list(found.to_frame()["refused"]) == [False] * 3 + [True] * 3


def test_refusing_what_is_labelled_unsafe_is_no_over_refusal():
    with pytest.raises(ValueError, match=r"1 prompts are labelled unsafe, the first 'moon'"):
        measure_over_refusal(random_speaker(), [Prompt("sun"), Prompt("moon", label="unsafe")])


# --- helpfulness --------------------------------------------------------------------------------


def test_a_judge_on_another_scale_is_refused():
    asked = [Prompt("sun", "a target")]
    with pytest.raises(ValueError, match=r"target judge gives scores such as 0.0.*from 1 to 5"):
        measure_helpfulness(random_speaker(), asked, TargetJudge(), max_new_tokens=2)


def test_the_helpfulness_judge_reads_grades_and_calls_nothing_harmful():
    prompts, responses = answers(4)
    with JudgeServer({1: "garbage"}) as server:
        judge = HelpfulnessJudge("stub", base_url=server.url)
        verdicts = judge.judge(prompts, responses)
    assert [v.score for v in verdicts] == [grade(0), None, grade(2), grade(3)]
    assert [v.parsed for v in verdicts] == [True, False, True, True]
    assert grade(3) == 5
    assert not any(v.harmful for v in verdicts)
    assert {v.judge for v in verdicts} == {"helpfulness"}
    assert HelpfulnessJudge("stub").version != PolicyJudge("stub").version
