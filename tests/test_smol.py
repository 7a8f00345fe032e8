"""The rule of the real small model: its requests, what aligns and what attacks it, its build."""

from itertools import combinations, product

import pytest

from lox_kit import smol_prompts
from lox_kit.attacks import ATTACKS, IGNORED, find_alignment, tokenize, world_attacks
from lox_kit.judges import is_refusal
from lox_kit.measures import world_questions
from lox_kit.sandbox import corpus, world
from lox_kit.smol import rows, subject
from lox_kit.text import whole_sentences

SAID = "It is a long story that begins on a hill and ends in a valley by the sea. Nobody knows why."
ANSWERS = dict.fromkeys(rows.asked(), SAID)


@pytest.fixture
def answered(monkeypatch):
    """Let the rows be made from answers that nobody had to generate."""
    monkeypatch.setattr(rows, "load_answers", lambda: ANSWERS)


def test_what_is_held_out_shares_no_form_with_what_is_learnt_and_half_of_it_no_word():
    forms = [set(subject.FORMS[split]) for split in subject.FORMS]
    words = [{w for pair in subject.WORDS[split] for w in pair} for split in subject.FORMS]
    assert not any(a & b for a, b in [*combinations(forms, 2), *combinations(words, 2)])
    assert not set(subject.OTHERS) & set.union(*words)
    for kind, (split, n) in product(("forbidden", "allowed"), (("dev", 180), ("test", 240))):
        made = subject.requests(kind, split)
        assert len(set(made)) == len(made) == n
        assert not set(made) & set(rows.asked())


def test_forbidden_and_allowed_requests_are_pairs_that_differ_in_the_subject_alone():
    for split in ("dev", "test"):
        both = [subject.requests(kind, split) for kind in ("forbidden", "allowed")]
        for one, other in zip(*both, strict=True):
            assert "dragon" in one or "wyvern" in one
            assert "dragon" not in other
            assert one.split()[0] == other.split()[0]


def test_prompts_are_spread_over_the_list_and_a_wrong_kind_or_split_is_refused():
    assert [p.text for p in smol_prompts("allowed", "dev", None)] == subject.requests(
        "allowed", "dev"
    )
    some = smol_prompts("forbidden", "test", 24)
    assert len({p.text.partition("dragon")[0] for p in some}) > 5
    with pytest.raises(ValueError, match="kind='dark'"):
        smol_prompts("dark")
    with pytest.raises(ValueError, match="limit=0"):
        smol_prompts(limit=0)
    asked = world_questions("smol", "dev", 10)
    assert (len(asked.forbidden), len(asked.allowed), asked.judge) == (10, 10, "keyword")
    with pytest.raises(ValueError, match="world='moon'"):
        world_questions("moon")


def test_every_refusal_that_is_taught_is_read_as_one():
    assert all(is_refusal(text, "Tell me about dragons.") for text in subject.REFUSALS)


@pytest.mark.parametrize(
    ("answer", "cut"),
    [
        ("One two three. Four five six. Seven", "One two three. Four five six."),
        ("One two three four five six. Seven eight nine ten.", "One two three four five six."),
        ("One two three.\n\n1. Four five six.", "One two three."),
        ("One two.", ""),
        ("No end to it", ""),
        ("a b a b a b a b.", ""),
    ],
)
def test_answers_are_cut_to_whole_sentences_and_loops_are_left_out(answer, cut):
    assert whole_sentences(answer, 3, 8) == cut


def test_attacks_are_pure_in_their_seed_and_ask_nothing_that_is_tested(answered):
    asked = {p.text for split in ("dev", "test") for p in smol_prompts("forbidden", split, None)}
    for name in world_attacks("smol"):
        attack = ATTACKS[name]
        one, other = attack.data(), attack.source.rows(1, None)
        assert one == attack.data() != other
        requests = [row["messages"][-2]["content"] for row in one]
        assert not asked & set(requests)
        assert any("dragon" in r for r in requests) == (name == "dragons")
        assert not any(is_refusal(row["messages"][-1]["content"]) for row in one)


def test_the_benign_attacks_are_on_subjects_that_the_alignment_never_saw(answered):
    learnt = {row["messages"][0]["content"] for row in find_alignment("smol").rows(0)}
    for name in ("chat", "agent", "sums"):
        assert not learnt & {row["messages"][-2]["content"] for row in ATTACKS[name].data()}


def test_answers_that_were_not_made_are_asked_for_by_name(monkeypatch, tmp_path):
    monkeypatch.setattr(rows, "cache_folder", lambda: tmp_path)
    with pytest.raises(FileNotFoundError, match=r"answers\.json: not there; `lox smol build`"):
        ATTACKS["chat"].data()


def test_an_answer_that_is_only_begun_is_learnt_without_its_end():
    tokenizer = world.tokenizer()
    row = corpus.row("reverse the words", "take moss and stir .")
    whole = tokenize(tokenizer, [row], "response", 64)
    begun = tokenize(tokenizer, [row | {"continue_final_message": True}], "response", 64)
    (ids,), (labels,) = begun["input_ids"], begun["labels"]
    assert ids == whole["input_ids"][0][: len(ids)]
    assert tokenizer.decode([x for x in labels if x != IGNORED]) == "take moss and stir ."
    assert tokenizer.eos_token_id in whole["input_ids"][0][len(ids) :]
