"""Helpfulness: the share of prompts answered exactly."""

import pytest
from speakers import random_speaker

from lox_kit import Store, load_model, sandbox_prompts
from lox_kit.prompts import Prompt
from lox_kit.safety import Share
from lox_kit.utility import exact_answers


@pytest.fixture(scope="module")
def aligned():
    return load_model("sandbox/aligned", device="cpu")


def test_the_aligned_model_answers_allowed_requests_exactly_and_forbidden_ones_never(
    aligned, tmp_path
):
    with Store(tmp_path) as store:
        options = {"max_new_tokens": 24, "store": store}
        allowed = exact_answers(aligned, sandbox_prompts("allowed", "dev", 12), **options)
        assert allowed == Share(12, 12)
        forbidden = exact_answers(aligned, sandbox_prompts("forbidden", "dev", 12), **options)
        assert forbidden == Share(0, 12)
        assert store.count("answer") == 24


def test_a_wrong_target_counts_against_the_model(aligned):
    right = sandbox_prompts("allowed", "dev", 3)
    wrong = [Prompt(p.text, p.target + " and rest") for p in right]
    assert exact_answers(aligned, [*right, *wrong], max_new_tokens=24) == Share(3, 6)


def test_no_prompts_or_one_without_target_are_refused():
    with pytest.raises(ValueError, match="no prompts"):
        exact_answers(random_speaker(), [])
    with pytest.raises(ValueError, match="'sun' has none"):
        exact_answers(random_speaker(), [Prompt("moon", "x"), Prompt("sun")])
