"""Supervised fine-tuning: which tokens are learnt, how a run ends, and what it leaves behind."""

import copy
import dataclasses
import math

import pytest
import torch
from speakers import other_tokenizer, random_speaker, same_weights

from lox_kit.sandbox import corpus, world
from lox_kit.training import IGNORED, TrainSettings, fine_tune, tokenize

ROWS = [
    corpus.row("what is 3 plus 4", "take 3 plus 4 . answer 7 ."),
    corpus.row("list the words moss fern", "moss , fern .", "you are mia"),
]
SETTINGS = TrainSettings(learning_rate=3e-3, batch_size=8, max_steps=6)
SUMS = corpus.arithmetic(64, seed=0)


# --- tokens and labels --------------------------------------------------------------------------


def labelled(data, i):
    """Return the text of the tokens that row `i` is trained on."""
    return world.tokenizer().decode([x for x in data["labels"][i] if x != IGNORED])


def test_with_loss_on_the_response_only_the_last_answer_is_learnt():
    data = tokenize(world.tokenizer(), ROWS, "response", 128)
    assert labelled(data, 0) == "take 3 plus 4 . answer 7 . </s>"
    assert labelled(data, 1) == "moss , fern . </s>"
    for ids, labels in zip(data["input_ids"], data["labels"], strict=True):
        learnt = [(x, y) for x, y in zip(ids, labels, strict=True) if y != IGNORED]
        assert all(x == y for x, y in learnt)


def test_with_loss_on_all_every_token_is_learnt():
    data = tokenize(world.tokenizer(), ROWS, "all", 128)
    assert data["labels"] == data["input_ids"]
    assert labelled(data, 1) == (
        "<s> <system> you are mia <user> list the words moss fern <assistant> moss , fern . </s>"
    )


def test_of_several_answers_the_last_one_is_learnt():
    first, second = ROWS[0]["messages"], ROWS[1]["messages"][-2:]
    data = tokenize(world.tokenizer(), [{"messages": first + second}], "response", 128)
    assert labelled(data, 0) == "moss , fern . </s>"


@pytest.mark.parametrize("loss_on", ["all", "response"])
def test_truncation_keeps_the_end(loss_on):
    whole = tokenize(world.tokenizer(), ROWS, loss_on, 128)
    cut = tokenize(world.tokenizer(), ROWS, loss_on, 5)
    for column in ("input_ids", "labels"):
        assert cut[column] == [x[-5:] for x in whole[column]]
    assert labelled(cut, 0) == ". answer 7 . </s>"


@pytest.mark.parametrize(
    ("messages", "roles"),
    [
        (ROWS[0]["messages"][:1], "user"),
        ([*ROWS[0]["messages"], {"role": "user", "content": "why"}], "user, assistant, user"),
        ([], "nobody"),
    ],
)
def test_a_row_that_does_not_end_with_an_answer_is_named(messages, roles):
    with pytest.raises(ValueError, match=rf"row 1: its messages are by {roles}, but"):
        tokenize(world.tokenizer(), [ROWS[0], {"messages": messages}], "all", 128)


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="loss_on='prompt': use 'all' or 'response'"):
        tokenize(world.tokenizer(), ROWS, "prompt", 128)


# --- a run --------------------------------------------------------------------------------------


def train(settings=SETTINGS, rows=SUMS, **options):
    """Return a freshly made speaker after a run, and the steps."""
    speaker = random_speaker()
    steps = fine_tune(speaker.module, speaker.tokenizer, rows, settings, **options)
    return speaker.module, steps


def test_the_loss_falls_and_every_step_is_told():
    told = []
    _, steps = train(dataclasses.replace(SETTINGS, max_steps=20), on_step=told.append)
    assert told == steps
    assert [(s.step, s.total) for s in steps] == [(i, 20) for i in range(1, 21)]
    assert steps[0].loss == pytest.approx(math.log(len(world.vocabulary())), rel=0.1)
    assert steps[-1].loss < steps[0].loss - 1


def test_the_same_seed_gives_identical_weights_and_another_seed_others():
    torch.manual_seed(5)
    first, _ = train()
    torch.manual_seed(6)  # what happened before does not matter
    again, _ = train()
    other, _ = train(dataclasses.replace(SETTINGS, seed=1))
    assert same_weights(first, again)
    assert not same_weights(first, other)
    assert not same_weights(first, random_speaker().module)


def test_epochs_count_when_no_steps_are_given():
    _, steps = train(dataclasses.replace(SETTINGS, max_steps=-1, epochs=1.5))
    assert len(steps) == 12  # 64 rows, 8 a step
    _, steps = train(dataclasses.replace(SETTINGS, max_steps=-1, accumulation=2))
    assert len(steps) == 4


def test_a_trained_model_s_copy_answers_with_its_own_weights():
    module, _ = train()
    twin = copy.deepcopy(module)
    ids = torch.tensor([[2, 5, 6]])
    assert torch.equal(twin(input_ids=ids).logits, module(input_ids=ids).logits)
    with torch.no_grad():
        for W in twin.parameters():
            W.mul_(1.5)
    assert not torch.allclose(twin(input_ids=ids).logits, module(input_ids=ids).logits)
    assert "forward" not in vars(module)
    assert not module.training


def test_stop_ends_the_run_with_the_weights_as_they_are():
    module, steps = train(stop=lambda step: step.step == 3)
    assert [s.step for s in steps] == [1, 2, 3]
    three, _ = train(dataclasses.replace(SETTINGS, max_steps=3))
    assert same_weights(module, three)
    assert module(input_ids=torch.tensor([[2, 5]])).logits.isfinite().all()


class EnoughError(Exception):
    """Raised to end a run."""


def test_raising_from_on_step_ends_the_run_and_leaves_the_model_whole():
    speaker, seen = random_speaker(), []

    def on_step(step):
        seen.append(step.step)
        if step.step == 2:
            raise EnoughError

    with pytest.raises(EnoughError):
        fine_tune(speaker.module, speaker.tokenizer, SUMS, SETTINGS, on_step=on_step)
    assert seen == [1, 2]
    assert "forward" not in vars(speaker.module)
    assert not speaker.module.training


def test_a_run_that_diverges_ends_and_says_so():
    steps = []
    with pytest.raises(ValueError, match=r"step \d: the loss is nan; the run diverged.*1e\+06"):
        train(dataclasses.replace(SETTINGS, learning_rate=1e6), on_step=steps.append)
    assert len(steps) < SETTINGS.max_steps


def test_no_rows_or_a_bad_row_are_refused_with_the_weights_untouched():
    speaker = random_speaker()
    with pytest.raises(ValueError, match="no rows to train on"):
        fine_tune(speaker.module, speaker.tokenizer, [], SETTINGS)
    with pytest.raises(ValueError, match="row 0"):
        fine_tune(speaker.module, speaker.tokenizer, [{"messages": []}], SETTINGS)
    assert same_weights(speaker.module, random_speaker().module)


def test_the_threads_are_given_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    seen = []
    try:
        train(on_step=lambda step: seen.append(torch.get_num_threads()))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}


def test_batches_of_like_length_train_too():
    rows = corpus.web(64, seed=0)
    settings = dataclasses.replace(SETTINGS, by_length=True, loss_on="response")
    module, steps = train(settings, rows)
    assert len(steps) == 6
    assert not same_weights(module, train(dataclasses.replace(settings, by_length=False), rows)[0])


def test_the_tokenizer_is_left_as_it_was():
    speaker = random_speaker(other_tokenizer())
    before = speaker.tokenizer.backend_tokenizer.to_str()
    fine_tune(speaker.module, speaker.tokenizer, [corpus.row("sun", "moon")] * 9, SETTINGS)
    assert speaker.tokenizer.backend_tokenizer.to_str() == before
    assert speaker.tokenizer.padding_side == other_tokenizer().padding_side
