"""Metrics: success rate with every answer, and the refusal margin."""

import pickle

import pytest
import torch
from speakers import random_speaker
from torch.nn.functional import cross_entropy

from lox_kit import measure_asr, sandbox_prompts
from lox_kit.landscape import metrics
from lox_kit.landscape.metrics import Asr, Loss, RefusalMargin
from lox_kit.models.prompts import Prompt

PROMPTS = sandbox_prompts("forbidden", "dev", limit=24)


def test_the_success_rate_is_that_of_measure_asr(aligned, base):
    metric = Asr(PROMPTS, "rule", max_new_tokens=16)
    probe = pickle.loads(pickle.dumps(metric.prepare(aligned)))  # as a worker gets it
    for model in (aligned, base):
        record = probe.run(model)
        reading = metric.read(record)
        expected = measure_asr(model, PROMPTS, max_new_tokens=16)
        assert reading.answers == expected.responses
        assert reading.value == expected.asr().value
        assert (reading.low, reading.high) == expected.asr().interval
        assert reading.per_prompt == tuple(float(v.harmful) for v in expected.verdicts["rule"])


def test_what_cannot_be_judged_is_refused_at_once(aligned):
    with pytest.raises(ValueError, match="compares with targets"):
        Asr([Prompt("how do i make a tonic")], "rule").prepare(aligned)
    with pytest.raises(ValueError, match="no prompts"):
        Asr([], "rule").prepare(aligned)


def plain_margin(model, prompt, refusal, target):
    """Return the margin of one prompt without batches and caches."""
    means = []
    for tokens in (refusal, target):
        ids = torch.tensor([prompt + tokens])
        with torch.no_grad():
            said = model.module(input_ids=ids).logits[0].double().log_softmax(-1)
        starts = range(len(prompt) - 1, ids.shape[1] - 1)
        means.append(sum(said[i, ids[0, i + 1]].item() for i in starts) / len(tokens))
    return means[0] - means[1]


def test_the_loss_is_that_of_the_targets_per_token_and_falls_where_they_are_learnt(aligned, base):
    metric = Loss(PROMPTS)
    probe = metric.prepare(aligned)
    record = probe.run(base)
    for loss, prompt, target in zip(record["losses"], probe.prompts, *probe.answers, strict=True):
        ids = torch.tensor([prompt + target])
        with torch.no_grad():
            logits = base.module(input_ids=ids).logits[0, len(prompt) - 1 : -1].double()
        assert loss == pytest.approx(cross_entropy(logits, ids[0, len(prompt) :]).item(), abs=2e-5)
    reading = metric.read(record)
    assert reading.low < reading.value < reading.high
    assert reading.value < metric.read(probe.run(aligned)).value  # which learnt to refuse these
    assert probe.key == metric.prepare(base).key != Loss(PROMPTS[1:]).prepare(aligned).key
    with pytest.raises(ValueError, match="the loss is that of given answers, and the prompt 'say"):
        Loss([Prompt("say it")]).prepare(aligned)


@pytest.mark.parametrize("batch_size", [128, 5])
def test_the_margin_is_refusing_minus_complying_per_token(aligned, base, batch_size, monkeypatch):
    monkeypatch.setattr(metrics, "BATCH", batch_size)
    metric = RefusalMargin(PROMPTS)
    probe = metric.prepare(aligned)
    for model in (aligned, base):
        record = probe.run(model)
        rows = zip(probe.prompts, *probe.answers, strict=True)
        expected = [plain_margin(model, *row) for row in rows]
        assert record["margins"] == pytest.approx(expected, abs=2e-5)
        reading = metric.read(record)
        assert reading.value == pytest.approx(sum(expected) / len(expected), abs=2e-5)
        assert reading.low < reading.value < reading.high
    assert metric.read(metric.prepare(aligned).run(aligned)).value > 0
    assert metric.read(metric.prepare(aligned).run(base)).value < 0


def test_prompts_that_are_not_refused_are_left_out_and_counted(aligned):
    allowed = sandbox_prompts("allowed", "dev", limit=5)
    probe = RefusalMargin([*PROMPTS, *allowed]).prepare(aligned)
    said = measure_asr(aligned, [*PROMPTS, *allowed], max_new_tokens=60)
    assert probe.left_out == len(PROMPTS) + 5 - said.refusal.count >= 5
    record = probe.run(aligned)
    assert record["n_left_out"] == probe.left_out
    assert len(record["margins"]) == said.refusal.count


def test_a_margin_without_target_or_refusal_is_refused(aligned):
    with pytest.raises(ValueError, match="the prompt 'say it' has no target: give a CSV"):
        RefusalMargin([*PROMPTS, Prompt("say it")]).prepare(aligned)
    with pytest.raises(ValueError, match="there are no prompts"):
        RefusalMargin([]).prepare(aligned)
    with pytest.raises(ValueError, match="random-0 refuses none of these 24 prompts"):
        RefusalMargin(PROMPTS, max_new_tokens=4).prepare(random_speaker())
