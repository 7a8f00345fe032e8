"""Principal angles and shares of energy, against scipy and dense float64."""

import numpy as np
import pytest
import scipy.linalg
import torch
from checkpoints import UP, delta, factor, save_tensors, weights

from lox_kit import SafetySubspace, random_subspace
from lox_kit.extrapolation import overlap

K = 3


@pytest.fixture(scope="module")
def other(pair, tmp_path_factory):
    """Another delta of the same base: half of the aligned one's, and half noise."""
    torch.manual_seed(1)
    before, after = weights(pair.base), weights(pair.aligned)
    made = {n: (before[n] + after[n]) / 2 + 0.05 * torch.randn_like(W) for n, W in before.items()}
    return save_tensors(tmp_path_factory.mktemp("other") / "ft", made)


@pytest.fixture(scope="module")
def bare(pair, tmp_path_factory):
    """The base without a config."""
    return save_tensors(tmp_path_factory.mktemp("bare") / "base", weights(pair.base))


def test_angles_and_shares_match_scipy_and_dense_float64(pair, subspace, bare, other):
    found = overlap(subspace, SafetySubspace.from_pair(bare, other, rank="full"), K)
    before, after = weights(pair.base), weights(other)
    assert found.layer.tolist() == list(subspace)
    for name, row in zip(subspace, found.itertuples(), strict=True):
        dW = (after[name].double() - before[name].double()).numpy()
        (Ua, _, Va), (Ub, _, Vb) = (np.linalg.svd(M) for M in (delta(pair, name), dW))
        for side, one, two in (("left", Ua, Ub), ("right", Va.T, Vb.T)):
            cosines = np.cos(scipy.linalg.subspace_angles(one[:, :K], two[:, :K]))
            assert getattr(row, side) == pytest.approx((cosines**2).mean(), abs=1e-5)
            assert getattr(row, f"{side}_least") == pytest.approx(cosines.min(), abs=1e-4)
            assert getattr(row, f"{side}_chance") == K / len(one)
        P = Ua[:, :K] @ Ua[:, :K].T
        share = np.linalg.norm(P @ dW) ** 2 / np.linalg.norm(dW) ** 2
        assert row.share == pytest.approx(share, abs=1e-5)
        assert row.share_chance == K / len(P)


def test_a_subspace_lies_in_itself_and_a_random_one_by_chance(subspace):
    alone = overlap(subspace, subspace, K)
    np.testing.assert_allclose(alone[["left", "right", "left_least", "right_least"]], 1, atol=1e-5)
    np.testing.assert_allclose(alone.share, subspace.energy(K), atol=1e-5)
    rows = [
        overlap(random_subspace(subspace, K, seed=s), subspace, K).mean(numeric_only=True)
        for s in range(40)
    ]
    mean = {name: np.mean([row[name] for row in rows]) for name in rows[0].index}
    for name in ("left", "right", "share"):
        assert mean[name] == pytest.approx(mean[f"{name}_chance"], rel=0.1)


def test_two_ranks_are_compared_with_the_chance_of_the_larger(subspace):
    few = subspace.cut(dict.fromkeys(subspace, 2))
    more = subspace.cut(dict.fromkeys(subspace, 5))
    found = overlap(few, more, None).set_index("layer").loc[UP]  # 48 x 32
    np.testing.assert_allclose([found.left, found.left_least], 1, atol=1e-6)  # 2 of the five
    assert (found.left_chance, found.right_chance, found.share_chance) == (5 / 48, 5 / 32, 2 / 48)


def test_what_is_not_known_is_nan_and_not_a_number(pair, subspace, tmp_path):
    found = overlap(subspace, factor(pair, rank=4), K)
    assert found.share.isna().all()
    assert found.left.notna().all()
    torch.manual_seed(0)
    names = ("a.weight", "b.weight")
    values = [{n: torch.randn(6, 4) for n in names} for _ in range(2)]
    values[1]["b.weight"] = values[0]["b.weight"]
    pair = [save_tensors(tmp_path / n, v) for n, v in zip("xy", values, strict=True)]
    still = SafetySubspace.from_pair(*pair)
    row = overlap(still, still, 2).set_index("layer").loc["b.weight"]
    assert row.isna().all()


def test_subspaces_of_other_matrices_are_refused(subspace, make_pair):
    with pytest.raises(ValueError, match=r"in one subspace and not in the other \(10 such"):
        overlap(subspace, subspace.select("embed|head|layers.0.self"), K)
    wide = factor(make_pair(intermediate_size=64), rank=K)
    with pytest.raises(ValueError, match=r"one delta has shape \(32, 48\), the other \(32, 64\)"):
        overlap(subspace, wide, K)
    with pytest.raises(ValueError, match="k=4 and the subspace holds 3"):
        overlap(subspace, factor(make_pair(), rank=3), 4)
