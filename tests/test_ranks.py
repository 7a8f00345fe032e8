"""Ways to choose k without a judge, against dense float64 and the exact threshold."""

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import torch
from checkpoints import RANK, UP, delta, factor, save_tensors
from test_lora_adapter import make_adapter

from lox_kit import SafetySubspace, noise_edge
from lox_kit.extrapolation import RULES, k_of_energy, rank_rules
from lox_kit.extrapolation.ranks import _threshold


def test_every_rule_matches_float64(pair, subspace):
    found = rank_rules(subspace, 0.9)
    assert found.columns.tolist() == ["layer", "stored", "whole", *RULES]
    assert found.layer.tolist() == list(subspace)
    assert found.whole.all()
    for name, row in zip(subspace, found.itertuples(), strict=True):
        dW = delta(pair, name)
        S = np.linalg.svd(dW, compute_uv=False)
        p = S**2 / (S**2).sum()
        assert row.noise == (noise_edge(dW.shape, (S**2).sum()) < S).sum()
        assert row.gap == RANK  # how the pair is made
        assert row.energy == 1 + np.argmax(np.cumsum(p) >= 0.9)
        assert row.gavish_donoho == (_omega(min(dW.shape) / max(dW.shape)) * np.median(S) < S).sum()
        assert row.gavish_donoho == RANK
        assert row.stable_rank == pytest.approx((S**2).sum() / S[0] ** 2, rel=1e-5)
        assert row.entropy_rank == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-5)


def _omega(b):
    """Return the exact omega: lambda(b) over the root of the median of Marchenko and Pastur's."""
    low, high = (1 - b**0.5) ** 2, (1 + b**0.5) ** 2

    def below(x):
        def density(t):
            return np.sqrt(max((high - t) * (t - low), 0)) / (2 * np.pi * b * t)

        return scipy.integrate.quad(density, low, x, limit=200)[0] - 0.5

    median = scipy.optimize.brentq(below, low + 1e-9, high)
    root = np.sqrt(b**2 + 14 * b + 1)
    return np.sqrt(2 * (b + 1) + 8 * b / (b + 1 + root)) / np.sqrt(median)


@pytest.mark.parametrize("shape", [(20, 20), (20, 40), (10, 100)], ids=str)
def test_the_threshold_is_gavish_and_donoho_s_within_its_approximation(shape):
    S = np.linspace(2, 1, min(shape))
    exact = _omega(min(shape) / max(shape)) * np.median(S)
    assert _threshold(S, shape) == pytest.approx(exact, rel=0.01)
    assert _threshold(S[:2], shape) == 0  # of a delta whose other singular values are zero


def test_of_fewer_directions_what_they_do_not_tell_is_nan(pair):
    found = rank_rules(factor(pair, rank=8)).set_index("layer").loc[UP]
    assert not found.whole
    assert (found.stored, found.noise, found.energy) == (8, RANK, 3)
    assert found[["gap", "gavish_donoho", "entropy_rank"]].isna().all()
    assert rank_rules(factor(pair, rank=17)).gap.eq(RANK).all()  # half of 32, and one
    few = rank_rules(factor(pair, rank=2))
    assert few.noise.isna().all()  # all that are stored are above the edge
    assert few.energy.isna().all()


def test_a_low_rank_adapter_has_the_rank_it_has(pair, tmp_path):
    adapter = make_adapter(pair.base, tmp_path / "adapter", r=4)
    found = rank_rules(SafetySubspace.from_pair(pair.base, adapter, rank=8))
    changed = found[found.stable_rank > 0]
    assert changed.whole.all()
    assert (changed.gap == 4).all()
    assert (changed.gavish_donoho == 4).all()
    assert changed.entropy_rank.between(1, 4).all()
    assert (found[found.stable_rank == 0][list(RULES)] == 0).all(axis=None)


def test_a_k_per_matrix_holds_the_share_of_energy_and_one_fewer_does_not(subspace):
    for share in (0.5, 0.95, 0.9999):
        ks = k_of_energy(subspace, share)
        energies = np.array([subspace.energy(k) for k in range(33)])
        for i, k in enumerate(ks.values()):
            assert energies[k, i] >= share
            assert energies[k - 1, i] < share
    assert set(k_of_energy(subspace, 1.0).values()) == {32}
    cut = subspace.cut(k_of_energy(subspace, 0.95))
    assert (cut.energy(None) >= 0.95).all()


def test_energy_that_is_not_stored_is_refused(pair, subspace):
    with pytest.raises(ValueError, match=r"weight: the 2 directions stored hold .*--rank"):
        k_of_energy(factor(pair, rank=2), 0.99)
    for share in (0.0, 1.1, float("nan")):
        for rule in (k_of_energy, rank_rules):
            with pytest.raises(ValueError, match="use a share of the energy"):
                rule(subspace, share)


def test_a_matrix_that_alignment_left_alone_has_no_direction(tmp_path):
    torch.manual_seed(0)
    values = [{n: torch.randn(6, 4) for n in ("a.weight", "b.weight")} for _ in range(2)]
    values[1]["b.weight"] = values[0]["b.weight"]
    pair = [save_tensors(tmp_path / n, v) for n, v in zip("xy", values, strict=True)]
    found = SafetySubspace.from_pair(*pair)
    assert (rank_rules(found).set_index("layer").loc["b.weight", list(RULES)] == 0).all()
    ks = k_of_energy(found, 0.9)
    assert ks["b.weight"] == 0
    assert list(found.cut(ks)) == ["a.weight"]
