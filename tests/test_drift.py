"""Drift: nothing between a model and itself, and what the definition says between two."""

import copy

import numpy as np
import pytest
import torch
from speakers import other_tokenizer, random_speaker

from lox_kit import measure_drift
from lox_kit.measures import drift
from lox_kit.models.answers import generate
from lox_kit.models.prompts import Prompt, render

PROMPTS = [Prompt(f"tell me about the {words}") for words in ("sun", "moon and sea", "wind")]


def by_hand(model, aligned, prompt, tokens):
    """Return KL and agreement of one prompt, one token at a time in float64."""
    (text,) = render(aligned.tokenizer, [prompt])
    (answer,) = generate(aligned, [text], max_new_tokens=tokens)
    encode = aligned.tokenizer.encode
    asked, said = (encode(t, add_special_tokens=False) for t in (text, answer))
    kl, same = [], []
    for i in range(len(said) + 1):
        ids = torch.tensor([asked + said[:i]])
        with torch.no_grad():
            p, q = (
                m.module(ids).logits[0, -1].double().softmax(-1).numpy() for m in (aligned, model)
            )
        kl.append((p * np.log(p / q)).sum())
        same.append(p.argmax() == q.argmax())
    return np.mean(kl), np.mean(same)


def test_a_model_has_not_drifted_from_itself():
    model = random_speaker(other_tokenizer())
    found = measure_drift(model, copy.copy(model), PROMPTS, max_new_tokens=5)
    assert found.kl == (0.0, 0.0, 0.0)
    assert found.top1 == (1.0, 1.0, 1.0)
    assert (found.mean_kl.value, found.agreement.value) == (0.0, 1.0)


@pytest.mark.parametrize("batch", [1, 16])
def test_drift_is_the_mean_divergence_over_the_aligned_model_s_answer(batch, monkeypatch):
    monkeypatch.setattr(drift, "BATCH", batch)
    aligned, model = (random_speaker(other_tokenizer(), seed=s) for s in (0, 1))
    for parameter in [*aligned.module.parameters(), *model.module.parameters()]:
        parameter.data *= 3  # far from uniform
    found = measure_drift(model, aligned, PROMPTS, max_new_tokens=5)
    for i, prompt in enumerate(PROMPTS):
        kl, same = by_hand(model, aligned, prompt, 5)
        assert found.kl[i] == pytest.approx(kl, rel=1e-4)
        assert found.top1[i] == pytest.approx(same)
    assert found.mean_kl.value == pytest.approx(np.mean(found.kl))
    assert min(found.kl) > 0.01
    assert min(found.top1) < 1


def test_other_vocabularies_or_no_prompts_are_refused():
    model, other = random_speaker(), random_speaker(other_tokenizer())
    with pytest.raises(ValueError, match="different vocabularies"):
        measure_drift(model, other, PROMPTS)
    with pytest.raises(ValueError, match="no prompts"):
        measure_drift(model, model, [])
