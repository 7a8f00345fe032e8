import math
import random

import pytest
import torch
from checkpoints import UP, assert_rounded, extrapolated, factor
from test_lox import KINDS
from transformers import AutoModelForCausalLM

from lox_kit import LoxDial, SafetySubspace


def loaded(pair):
    return AutoModelForCausalLM.from_pretrained(pair.aligned, dtype="auto")


def state(model):
    return {n: W.detach().clone() for n, W in model.state_dict().items()}


def assert_state(model, expected):
    assert all(torch.equal(W, expected[n]) for n, W in model.state_dict().items())


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def any_pair(request, make_pair):
    return make_pair(**request.param)


@pytest.fixture
def model(any_pair):
    return loaded(any_pair)


@pytest.fixture
def dial(any_pair, model):
    return LoxDial(model, factor(any_pair, rank=8))


def test_a_setting_is_the_float64_edit_rounded_once(any_pair, model, dial):
    dial.set(k=5, alpha=2.0)
    dial.set(k=3, alpha=1.25)
    assert (dial.k, dial.alpha) == (3, 1.25)
    for name, expected in extrapolated(any_pair, 3, 1.25).items():
        assert_rounded(model.state_dict()[name], expected)


def test_after_any_settings_the_last_one_counts_and_off_gives_the_aligned_weights_back(model, dial):
    before = state(model)
    dial.set(k=3, alpha=1.0)
    once = state(model)
    rng = random.Random(0)
    for _ in range(50):
        dial.set(k=rng.randint(1, 8), alpha=rng.uniform(0.01, 3))
    dial.set(k=3, alpha=1.0)
    assert_state(model, once)
    assert not torch.equal(once[UP], before[UP])
    for k, alpha in ((0, 1.0), (4, 0.0)):
        dial.set(k=3, alpha=1.0)
        dial.set(k=k, alpha=alpha)
        assert_state(model, before)
    dial.set(k=3, alpha=1.0)
    dial.off()
    assert_state(model, before)
    assert (dial.k, dial.alpha) == (0, 0.0)


@pytest.mark.parametrize(
    ("k", "alpha"), [(3, -0.5), (3, math.nan), (9, 1.0), (None, 1.0), (-1, 1.0)]
)
def test_a_refused_setting_leaves_the_model_as_it_was(model, dial, k, alpha):
    dial.set(k=2, alpha=0.5)
    before = state(model)
    with pytest.raises(ValueError, match=r"alpha=|k="):
        dial.set(k=k, alpha=alpha)
    assert_state(model, before)
    assert (dial.k, dial.alpha) == (2, 0.5)


def test_a_stored_but_tied_head_is_found_in_the_model(make_pair):
    """Some published checkpoints hold the head beside the embedding it is tied to."""
    pair = make_pair(tie_word_embeddings=True)
    found = factor(pair, include="embed_tokens")
    factors = found["model.embed_tokens.weight"]
    names = ["model.embed_tokens.weight", "lm_head.weight"]
    info = {**found.info, "layers": names, "shapes": [list(factors.shape)] * 2}
    model = loaded(pair)
    before = model.lm_head.weight.detach().clone()
    dial = LoxDial(model, SafetySubspace(info, factors=dict.fromkeys(names, factors)))
    dial.set(k=3, alpha=1.0)
    U, S, Vh = factors.top(3)
    torch.testing.assert_close(model.lm_head.weight.detach(), before + (U * S) @ Vh)
    dial.off()
    assert torch.equal(model.lm_head.weight, before)


def test_a_model_that_does_not_fit_is_refused(pair, subspace):
    model = loaded(pair)
    mlp = model.model.layers[1].mlp
    mlp.up_proj = torch.nn.Linear(4, 5)
    with pytest.raises(ValueError, match=rf"{UP}: what is added has shape \(48, .* has \(5, 4\)"):
        LoxDial(model, subspace)
    del mlp.up_proj
    with pytest.raises(ValueError, match=f"{UP}: .* the model has no such tensor"):
        LoxDial(model, subspace)


def test_the_kept_copy_is_not_the_models_own(pair, subspace):
    model = loaded(pair)
    before = state(model)
    dial = LoxDial(model, subspace)
    with torch.no_grad():
        model.get_parameter(UP).zero_()
    dial.off()
    assert_state(model, before)


def test_the_weights_stay_where_they_were_loaded_and_a_copy_of_them_is_turned(pair, subspace):
    model = loaded(pair)
    loaded_at, before = model.state_dict()[UP], model.state_dict()[UP].clone()
    LoxDial(model, subspace).set(k=4, alpha=1.0)
    assert not torch.equal(model.state_dict()[UP], before)
    torch.testing.assert_close(loaded_at, before, atol=0, rtol=0)
