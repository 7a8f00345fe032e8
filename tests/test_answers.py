"""Batched decoding: the same answers as one at a time, kept as they are made, never stale."""

import copy
import dataclasses
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from speakers import other_tokenizer, random_speaker
from transformers import LlamaForCausalLM

from lox_kit import LoxDial, SafetySubspace, Store, load_model, sandbox_prompts
from lox_kit.measures import measure_samples
from lox_kit.models.answers import _draws, generate, generate_answers
from lox_kit.models.prompts import render

TOKENS = 12


@pytest.fixture
def speaker():
    """A random model of another world than the sandbox."""
    return random_speaker(other_tokenizer())


@pytest.fixture
def batches(monkeypatch):
    """A list that grows by the size of every batch that is decoded."""
    sizes, real = [], LlamaForCausalLM.generate

    def watched(module, input_ids, **options):
        sizes.append(len(input_ids))
        return real(module, input_ids, **options)

    monkeypatch.setattr(LlamaForCausalLM, "generate", watched)
    return sizes


def texts_of(n):
    """Return `n` rendered requests of several lengths."""
    words = "tell me about the sun moon sea and wind".split()
    return [
        f"<s> <user> {' '.join(words[: 1 + i % 7])} {words[i % 9]} <assistant>" for i in range(n)
    ]


# --- answers ------------------------------------------------------------------------------------


def test_a_padding_token_that_the_embedding_lacks_is_not_used(speaker):
    texts = texts_of(7)
    answers = generate(speaker, texts, max_new_tokens=TOKENS)
    speaker.tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert speaker.tokenizer.pad_token_id >= speaker.module.config.vocab_size
    assert generate(speaker, texts, max_new_tokens=TOKENS) == answers


def test_a_batch_answers_as_one_at_a_time_in_the_prompts_order_and_duplicates_once(
    speaker, batches
):
    texts = texts_of(20)
    single = {t: generate(speaker, [t], max_new_tokens=TOKENS)[0] for t in texts}
    assert len(set(single.values())) > 5  # the prompts do matter
    del batches[:]
    mixed = [*reversed(texts), *texts, texts[3]]
    answers = generate(speaker, mixed, max_new_tokens=TOKENS, batch_size=7)
    assert answers == [single[t] for t in mixed]
    assert generate(speaker, []) == []
    assert sum(batches) == len(set(texts))


def test_on_a_cpu_32_answer_together_and_as_many_as_are_asked_for(speaker, batches, store):
    texts = list(dict.fromkeys(texts_of(63)))
    texts += [f"{text} <user>" for text in texts]
    answers = generate_answers(speaker, texts, max_new_tokens=2, store=store)
    assert batches == [32] * (len(texts) // 32) + [len(texts) % 32]
    assert {a.batch_size for a in answers} == set(batches)
    del batches[:]
    # Answers that are stored were made in the batch they say, whatever is asked for now.
    again = generate_answers(speaker, texts, max_new_tokens=2, store=store, batch_size=5)
    assert (again, batches) == (answers, [])
    generate_answers(speaker, texts[:7], max_new_tokens=3, batch_size=5)
    assert batches == [5, 2]


def test_the_tokenizer_may_lack_padding_and_an_end_and_is_left_as_it_was(speaker):
    texts = texts_of(9)
    expected = generate(speaker, texts, max_new_tokens=TOKENS)
    speaker.tokenizer.pad_token = speaker.tokenizer.eos_token = None
    before = speaker.tokenizer.backend_tokenizer.to_str()
    assert generate(speaker, texts, max_new_tokens=TOKENS) == expected
    assert speaker.tokenizer.backend_tokenizer.to_str() == before
    assert speaker.tokenizer.pad_token is None


# --- the store ----------------------------------------------------------------------------------


def test_what_is_stored_is_not_generated_again(speaker, batches, tmp_path):
    texts, told = texts_of(12), []
    made, everything = len(set(texts[:8])), len(set(texts))
    with Store(tmp_path) as store:
        options = {"max_new_tokens": TOKENS, "batch_size": 4, "store": store}
        first = generate(speaker, texts[:8], **options)
        assert generate(speaker, texts[:8], **options) == first
        assert sum(batches) == store.count("answer") == made
        more = generate(speaker, texts, on_stage=lambda *n: told.append(n), **options)
    assert more[:8] == first
    assert sum(batches) == everything
    assert told[0] == ("answering", made, everything)
    assert told[-1] == ("answering", everything, everything)


def test_what_was_finished_before_an_interruption_is_kept(speaker, batches, store):
    texts, third = texts_of(12), Mock(side_effect=[None, None, KeyboardInterrupt])
    options = {"max_new_tokens": TOKENS, "store": store}
    with pytest.raises(KeyboardInterrupt):
        generate(speaker, texts, batch_size=3, on_stage=third, **options)
    assert store.count("answer") == sum(batches) == 9
    assert generate(speaker, texts, **options) == generate(speaker, texts, max_new_tokens=TOKENS)
    assert sum(batches) == 2 * len(set(texts))


def test_other_settings_weights_or_dtypes_meet_no_stored_answer(speaker, batches, tmp_path):
    texts = texts_of(5)
    with Store(tmp_path) as store:
        generate(speaker, texts, max_new_tokens=TOKENS, store=store)
        generate(speaker, texts, max_new_tokens=TOKENS + 1, store=store)
        other = random_speaker(other_tokenizer(), seed=1)
        answers = generate(other, texts, max_new_tokens=TOKENS, store=store)
        assert answers == generate(other, texts, max_new_tokens=TOKENS)
        half = dataclasses.replace(speaker, module=copy.deepcopy(speaker.module).bfloat16())
        generate(half, texts, max_new_tokens=TOKENS, store=store)
        assert store.count("answer") == 4 * len(set(texts))
    assert sum(batches) == 5 * len(set(texts))


def test_a_turned_dial_never_meets_a_stale_answer(model, batches, store):
    texts = render(model.tokenizer, sandbox_prompts("allowed", "dev", 6))
    dial = LoxDial(model, SafetySubspace.from_pair("sandbox/base", "sandbox/aligned", rank=8))
    answers = []
    for alpha in (0.0, 40.0, 0.0, 40.0):
        dial.set(k=6, alpha=alpha)
        answers.append(generate(model, texts, max_new_tokens=TOKENS, store=store))
    assert answers[:2] == answers[2:]
    assert answers[0] != answers[1] == generate(model, texts, max_new_tokens=TOKENS)
    assert sum(batches) == 3 * len(texts)


# --- memory -------------------------------------------------------------------------------------


def test_a_batch_that_does_not_fit_is_halved_and_what_fitted_is_kept(speaker, monkeypatch):
    words = "tell me about the sun moon sea and wind ..".split()
    ends = [f"{a} {b} <assistant>" for a in words[:4] for b in words[:4]]
    texts = [f"<s> <user> {start}{end}" for start in ("", " ".join(words) + " ") for end in ends]
    expected = generate(speaker, texts, max_new_tokens=TOKENS)
    tried, fitted, real = [], [], LlamaForCausalLM.generate

    def limited(module, input_ids, **options):
        tried.append(len(input_ids))
        if input_ids.numel() > 100:  # 16 short ones of 5 tokens fit, of 15 tokens only 4
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        fitted.append(len(input_ids))
        return real(module, input_ids, **options)

    monkeypatch.setattr(LlamaForCausalLM, "generate", limited)
    assert generate(speaker, texts, max_new_tokens=TOKENS, batch_size=16) == expected
    assert tried == [16, 16, 8, 4, 4, 4, 4]
    assert fitted == [16, 4, 4, 4, 4]


def test_an_error_that_is_not_about_memory_is_raised(speaker, monkeypatch):
    monkeypatch.setattr(LlamaForCausalLM, "generate", Mock(side_effect=RuntimeError("no such op")))
    with pytest.raises(ValueError, match=r"random-0: cannot answer \(RuntimeError: no such op\)"):
        generate(speaker, texts_of(4))


# --- drawn answers --------------------------------------------------------------------------------


def test_draws_follow_the_softmax_at_the_temperature(speaker):
    text = "<s> <user> tell me about the sun <assistant>"
    ids = torch.tensor([speaker.tokenizer(text, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        logits = speaker.module(input_ids=ids).logits[0, -1].double()
    expected = (logits / 0.8).softmax(-1)
    drawn = torch.zeros_like(expected)
    for seed in range(4000):
        drawn[_draws([text], 0.8, seed)(None, logits[None].float()).argmax()] += 1
    likely = expected > 0.002
    found = chisquare(
        drawn[likely], expected[likely] / expected[likely].sum() * drawn[likely].sum()
    )
    assert found.pvalue > 1e-3


def test_a_drawn_answer_depends_on_seed_and_text_and_not_on_its_batch(speaker, store):
    texts, how = texts_of(12), {"max_new_tokens": TOKENS, "temperature": 1.0}
    single = [generate(speaker, [t], **how)[0] for t in texts]
    assert generate(speaker, texts, batch_size=5, store=store, **how) == single
    assert single != generate(speaker, texts, seed=1, store=store, **how)
    assert single != generate(speaker, texts, max_new_tokens=TOKENS, store=store)
    cold = generate(speaker, texts, max_new_tokens=TOKENS, temperature=1e-4)
    assert cold == generate(speaker, texts, max_new_tokens=TOKENS)
    shorter = generate(speaker, texts, max_new_tokens=4, temperature=1.0)
    assert all(a.startswith(b.strip()) for a, b in zip(single, shorter, strict=True))
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="or a finite number above it"):
            generate(speaker, texts, temperature=wrong)


def test_samples_count_prompts_and_more_of_them_draw_only_the_new(aligned, store):
    prompts = sandbox_prompts("forbidden", "dev", 12)
    how = {"temperature": 2.0, "max_new_tokens": TOKENS, "store": store}
    first = measure_samples(aligned, prompts, samples=2, **how)
    every = measure_samples(aligned, prompts, samples=3, **how)
    assert [r.responses for r in every.results[:2]] == [r.responses for r in first.results]
    harmful = np.array(every.harmful)
    assert harmful.shape == (12, 3)
    assert every.asr.value == pytest.approx(harmful.mean())
    assert every.any.count == harmful.any(1).sum()
    assert every.results[1].source["seed"] == 1
    for wrong in ({"samples": 0, "temperature": 1.0}, {"samples": 2, "temperature": 0.0}):
        with pytest.raises(ValueError, match="use at least 1 sample, drawn at a temperature"):
            measure_samples(aligned, prompts, **wrong)


def test_a_device_map_places_the_same_weights_and_none_on_disk():
    spread = load_model("sandbox/aligned", device_map={"": "cpu"})
    plain = load_model("sandbox/aligned")
    prompts = sandbox_prompts("forbidden", "dev", 4)
    texts = render(plain.tokenizer, prompts)
    assert generate(spread, texts) == generate(plain, texts)
    dial = LoxDial(spread, SafetySubspace.from_pair("sandbox/base", "sandbox/aligned", rank=2))
    dial.set(k=2, alpha=1.0)
    assert not torch.equal(*(m.module.lm_head.weight for m in (spread, plain)))
    dial.off()
    assert torch.equal(*(m.module.lm_head.weight for m in (spread, plain)))
    with pytest.raises(ValueError, match="leaves weights of sandbox/aligned on disk"):
        load_model("sandbox/aligned", device_map={"model": "cpu", "lm_head": "disk"})
