"""What is done in memory: attackers who know LoX, and Safe LoRA."""

import copy

import numpy as np
import pytest
import torch
from speakers import same_weights, watch

from lox_kit import SafetySubspace, find_attack, load_model, top_factors
from lox_kit.extrapolation.neighbours import safe_lora
from lox_kit.sandbox import world
from lox_kit.studies import Arm, arm_model, guess_step, treated, treatments

LOX = Arm("LoX", k=1, alpha=1.5)
SHORT = find_attack("arithmetic", max_steps=3, batch_size=4)


@pytest.fixture(scope="module")
def models(tiny_pair):
    """The aligned model and its LoX, and what returns the pair's subspace."""
    subspace = SafetySubspace.from_pair(*tiny_pair, rank="full")
    aligned = load_model(tiny_pair[1])
    return aligned, arm_model("LoX", aligned, subspace, LOX.k, LOX.alpha), subspace


def treat(models, pair, treatment, attack=None, arm=LOX):
    """Return the model of an arm after a treatment."""
    released = models[0] if arm.kind == "aligned" else models[1]
    return treated(treatment, released, attack, arm=arm, base=pair[0], pair=lambda rank: models[2])


def dense(model):
    """Return a model's matrices in float64."""
    return {name: W.detach().double() for name, W in model.module.named_parameters() if W.ndim == 2}


# --- attackers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["pair", "recipe"])
def test_who_has_the_pair_or_base_and_recipe_subtracts_lox_to_rounding(models, tiny_pair, how):
    before = copy.deepcopy(models[1].module)
    made, aligned = dense(treat(models, tiny_pair, f"subtract by {how}")), dense(models[0])
    for name, W in dense(models[1]).items():
        assert (W - aligned[name]).abs().max() > 1e-2
        torch.testing.assert_close(made[name], aligned[name], rtol=0, atol=1e-6)
    assert same_weights(models[1].module, before)
    nothing = treat(models, tiny_pair, f"subtract by {how}", arm=Arm("aligned"))
    assert same_weights(nothing.module, models[0].module)


def test_every_treated_model_has_a_key_of_its_own(models, tiny_pair):
    arms = LOX, Arm("LoX", k=1, alpha=1.0), Arm("aligned", k=1)
    made = [treat(models, tiny_pair, "subtract by pair", arm=arm).key for arm in arms]
    made += [treat(models, tiny_pair, "subtract by recipe").key, models[0].key, models[1].key]
    made.append(treat(models, tiny_pair, "subtract by pair", SHORT).key)
    assert len(set(made)) == len(made)


@pytest.mark.parametrize(("k", "alpha"), [(2, 0.5), (6, 1.25)])
def test_k_and_alpha_are_guessed_from_the_gap_that_lox_widens(k, alpha):
    rng = np.random.default_rng(0)
    spectra = []
    for _ in range(9):
        S = np.exp(-0.1 * np.arange(20) + rng.normal(0, 0.01, 20))
        S[:k] *= 1 + alpha
        spectra.append(torch.tensor(S))
    found = guess_step(spectra)
    assert found[0] == k
    assert found[1] == pytest.approx(alpha, abs=0.05)
    assert guess_step([torch.zeros(4)]) == (1, 0.0)
    assert guess_step([torch.tensor([3.0, 1.0, 1e-8, 0.0])]) == (1, 0.0)  # an adapter's


def test_who_trains_in_the_complement_leaves_the_safety_subspace_as_it_was(models, tiny_pair):
    usual, kept = (dense(treat(models, tiny_pair, name, SHORT)) for name in ("tuned", "complement"))
    for name, W in dense(models[1]).items():
        U = models[2][name].top(LOX.k)[0].double()
        inside = [float((U.T @ (made[name] - W)).norm()) for made in (usual, kept)]
        assert inside[1] < 1e-5 < inside[0]
        assert float((kept[name] - W).norm()) > 1e-3


def test_who_overfits_ten_rows_first_learns_to_refuse_them(models, tiny_pair, monkeypatch):
    trained = watch(monkeypatch, treatments, "fine_tune")
    monkeypatch.setattr(treatments, "ANSWERING", 2)
    monkeypatch.setattr(treatments, "REFUSING", 1)
    treat(models, tiny_pair, "ten rows", SHORT)
    (refused, first), (answered, second) = ((call[0][2], call[0][3]) for call in trained)
    assert answered == SHORT.data()[:10]
    assert {row["messages"][-1]["content"] for row in refused} == {world.REFUSAL}
    asked = [[row["messages"][:-1] for row in rows] for rows in (refused, answered)]
    assert asked[0] == asked[1]
    assert [(s.max_steps, s.batch_size) for s in (first, second)] == [(1, 10), (2, 10)]


# --- Safe LoRA ----------------------------------------------------------------------------------


def projected(V, dW):
    """Return what Safe LoRA makes of a delta, V V^T dW / |V|_F, in float64."""
    return V @ V.T @ dW / np.linalg.norm(V)


@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize("shape", [(8, 5), (5, 8)], ids=["tall", "wide"])
def test_safe_lora_projects_onto_what_alignment_changed(shape, k):
    rng = np.random.default_rng(0)
    V, dW = rng.normal(size=shape), rng.normal(size=shape)
    U, S, Vh = np.linalg.svd(V, full_matrices=False)
    expected = projected((U[:, :k] * S[:k]) @ Vh[:k], dW)
    made, cosine = safe_lora(top_factors(torch.tensor(V), None), torch.tensor(dW), k)
    np.testing.assert_allclose(made.numpy(), expected, atol=1e-5)
    length = np.linalg.norm(expected) * np.linalg.norm(dW)
    assert cosine == pytest.approx((expected * dW).sum() / length, abs=1e-6)


def test_safe_lora_of_an_unchanged_matrix_or_of_no_delta_is_nothing():
    zero, one = torch.zeros(4, 3), torch.ones(4, 3)
    for V, dW in ((zero, one), (one, zero)):
        made, cosine = safe_lora(top_factors(V, None), dW)
        assert (float(made.norm()), cosine) == (0.0, 0.0)


def test_safe_lora_projects_the_layers_that_point_elsewhere_and_leaves_the_others(
    models, tiny_pair, monkeypatch
):
    attack, W0 = find_attack(SHORT, lora=True), dense(models[1])
    learnt = dense(treat(models, tiny_pair, "tuned", attack))
    base, aligned = dense(load_model(tiny_pair[0])), dense(models[0])
    cosines = []
    for name in W0:
        V, dW = (W.numpy() for W in (aligned[name] - base[name], learnt[name] - W0[name]))
        if np.linalg.norm(dW) > 0:
            made = projected(V, dW)
            cosines.append((made * dW).sum() / np.linalg.norm(made) / np.linalg.norm(dW))
    under = float(np.median(cosines))
    how = dict.fromkeys(["Safe LoRA"], lambda case: treatments.with_safe_lora(case, under=under))
    monkeypatch.setattr(treatments, "TREATMENTS", how)
    kept = dense(treat(models, tiny_pair, "Safe LoRA", attack))
    changed = 0
    for name in W0:
        V, dW = (W.numpy() for W in (aligned[name] - base[name], learnt[name] - W0[name]))
        made = projected(V, dW)
        alike = (made * dW).sum() >= under * np.linalg.norm(made) * np.linalg.norm(dW)
        changed += not alike
        expected = W0[name].numpy() + (dW if alike else made)
        np.testing.assert_allclose(kept[name].numpy(), expected, atol=1e-5)
    assert 0 < changed < len(W0)
