"""Helpfulness, exact or graded, and over-refusal."""

import pytest
from judge_server import JudgeServer, answers, grade
from speakers import random_speaker

from lox_kit import Store, load_model, sandbox_prompts
from lox_kit.judges import PolicyJudge, Verdict
from lox_kit.measures.intervals import Share
from lox_kit.measures.utility import (
    HelpfulnessJudge,
    exact_answers,
    measure_helpfulness,
    measure_over_refusal,
)
from lox_kit.models.prompts import Prompt


@pytest.fixture(scope="module")
def aligned():
    return load_model("sandbox/aligned", device="cpu")


def test_the_aligned_model_answers_allowed_requests_exactly_and_forbidden_ones_never(
    aligned, tmp_path
):
    right, forbidden = (sandbox_prompts(kind, "dev", 12) for kind in ("allowed", "forbidden"))
    wrong = [Prompt(p.text, p.target + " and rest") for p in right]
    with Store(tmp_path) as store:
        for prompts, share in (
            (right, Share(12, 12)),
            (forbidden, Share(0, 12)),
            ([*right, *wrong], Share(12, 24)),
        ):
            assert exact_answers(aligned, prompts, max_new_tokens=24, store=store) == share
        assert store.count("answer") == 24


def test_no_prompts_or_one_without_target_are_refused():
    with pytest.raises(ValueError, match="no prompts"):
        exact_answers(random_speaker(), [])
    with pytest.raises(ValueError, match="'sun' has none"):
        exact_answers(random_speaker(), [Prompt("moon", "x"), Prompt("sun")])


# --- over-refusal -------------------------------------------------------------------------------


def test_harmless_requests_that_are_refused_are_counted(aligned):
    helped = measure_over_refusal(aligned, sandbox_prompts("allowed", "dev", 6), max_new_tokens=24)
    assert (helped.refusal, helped.degenerate) == (Share(0, 6), Share(0, 6))
    both = sandbox_prompts("allowed", "dev", 3) + sandbox_prompts("forbidden", "dev", 3)
    found = measure_over_refusal(aligned, both, max_new_tokens=24)
    assert found.refusal == Share(3, 6)
    assert list(found.to_frame()["refused"]) == [False] * 3 + [True] * 3


def test_refusing_what_is_labelled_unsafe_is_no_over_refusal():
    with pytest.raises(ValueError, match=r"1 prompts are labelled unsafe, the first 'moon'"):
        measure_over_refusal(random_speaker(), [Prompt("sun"), Prompt("moon", label="unsafe")])
    with pytest.raises(ValueError, match="no prompts"):
        measure_over_refusal(random_speaker(), [])


# --- helpfulness --------------------------------------------------------------------------------


class Grader:
    """A judge whose grades are given."""

    name, version = "grader", "1"

    def __init__(self, *grades):
        self.grades = grades

    def check(self, model, prompts):
        pass

    def judge(self, prompts, responses, *, store=None, on_stage=None):
        return [Verdict(g, False, "", parsed=g is not None) for g in self.grades]


def test_the_mean_grade_leaves_out_and_counts_what_could_not_be_read():
    prompts = [Prompt("sun"), Prompt("moon"), Prompt("sea")]
    found = measure_helpfulness(random_speaker(), prompts, Grader(2.0, None, 5.0), max_new_tokens=2)
    assert (found.mean.value, found.mean.n) == (3.5, 2)
    assert found.unparsed() == Share(1, 3)
    assert list(found.to_frame()["parsed (grader)"]) == [True, False, True]
    unread = measure_helpfulness(random_speaker(), prompts[:1], Grader(None), max_new_tokens=2)
    with pytest.raises(ValueError, match="none of 1 grades could be read"):
        _ = unread.mean


def test_a_judge_on_another_scale_is_refused():
    with pytest.raises(ValueError, match=r"grader judge gives scores such as 0.0.*from 1 to 5"):
        measure_helpfulness(random_speaker(), [Prompt("sun")], Grader(0.0), max_new_tokens=2)


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
