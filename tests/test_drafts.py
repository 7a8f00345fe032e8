"""Drafts: the greedy answers, found in fewer passes."""

import random

import pytest
import torch
from speakers import random_speaker, watch

from lox_kit import load_model
from lox_kit.models import drafts
from lox_kit.models.answers import generate
from lox_kit.models.drafts import answer, generate_likely, token_drafts
from lox_kit.models.prompts import render, sandbox_prompts
from lox_kit.store import MemoryStore

PROMPTS = sandbox_prompts("forbidden", "dev", limit=40)


@pytest.fixture(scope="module")
def speaker():
    """A random model: long answers that nobody would guess."""
    return random_speaker()


@pytest.fixture(scope="module")
def texts(speaker):
    return render(speaker.tokenizer, PROMPTS)


@pytest.fixture(scope="module")
def greedy(speaker, texts):
    return generate(speaker, texts, max_new_tokens=12)


def damaged(tokens, generator):
    """Return a draft that goes wrong somewhere."""
    tokens = list(tokens)
    tokens[generator.randrange(len(tokens))] = generator.randrange(4, 100)
    return tokens


@pytest.mark.parametrize("kind", ["none", "right", "wrong at first", "damaged", "cut", "long"])
def test_answers_are_greedy_whatever_the_drafts(speaker, texts, greedy, kind):
    generator = random.Random(0)
    right = token_drafts(speaker, greedy)
    given = {
        "none": [[] for _ in texts],
        "right": [[d] for d in right],
        "wrong at first": [[[5, *d[1:]]] for d in right],
        "damaged": [[damaged(d, generator), damaged(d, generator)] for d in right],
        "cut": [[d[:3]] for d in right],
        "long": [[d * 3] for d in right],
    }[kind]
    assert answer(speaker, texts, given, max_new_tokens=12) == greedy


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_limit_on_tokens_holds(speaker, texts, limit):
    expected = generate(speaker, texts, max_new_tokens=limit)
    for given in ([[] for _ in texts], [[d] for d in token_drafts(speaker, expected)]):
        assert answer(speaker, texts, given, max_new_tokens=limit) == expected


def test_right_drafts_need_no_decoding_step_by_step(texts, monkeypatch):
    aligned = load_model("sandbox/aligned", device="cpu")
    known = generate(aligned, texts, max_new_tokens=24)
    calls = watch(monkeypatch, drafts, "greedy")
    given = [[[5, 6, 7], d] for d in token_drafts(aligned, known)]  # the right one second
    assert answer(aligned, texts, given, max_new_tokens=24) == known
    assert calls == []
    assert answer(aligned, texts, [[]] * len(texts), max_new_tokens=24) == known
    assert len(calls) == 1


def test_small_batches_and_full_memory_change_nothing(speaker, texts, greedy, monkeypatch):
    given = [[d] for d in token_drafts(speaker, greedy)]
    assert answer(speaker, texts, given, max_new_tokens=12, batch_size=7) == greedy
    real, sizes = drafts._greedy, []

    def small_memory(model, limit, asked):
        sizes.append(len(asked))
        if len(asked) > 12:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(model, limit, asked)

    monkeypatch.setattr(drafts, "_greedy", small_memory)
    assert answer(speaker, texts, given, max_new_tokens=12) == greedy
    assert sizes == [40, 20, 10, 10, 10, 10]


@pytest.mark.parametrize("prompt", ["a: ", "a:\n", "a:"])
def test_a_draft_is_tokenized_as_it_follows_its_prompt(prompt, monkeypatch):
    aligned = load_model("sandbox/aligned", device="cpu")
    seen = watch(monkeypatch, aligned, "tokenizer")
    assert token_drafts(aligned, [], prompt) == []
    token_drafts(aligned, ["take moss "], prompt)
    assert seen[0][0] == ([" take moss" if prompt == "a:" else "take moss"],)


def test_likely_answers_are_found_in_few_passes_and_kept(texts, monkeypatch):
    aligned, store = load_model("sandbox/aligned", device="cpu"), MemoryStore()
    known = generate(aligned, texts, max_new_tokens=24)
    likely = {text: [answer] for text, answer in zip(texts, known, strict=True)}
    calls = watch(monkeypatch, drafts, "greedy")
    options = {"max_new_tokens": 24, "store": store}
    assert generate_likely(aligned, texts, likely, **options) == known
    assert calls == []
    monkeypatch.setattr(drafts, "answer", None)
    assert generate_likely(aligned, texts, {}, **options) == known
