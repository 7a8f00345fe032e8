"""Directions: what is added to a model, as factors or dense, and their lengths and angles."""

import math

import numpy as np
import pytest
import torch
from checkpoints import save_tensors, weights
from speakers import random_speaker

from lox_kit.extrapolation.lox import LowRank
from lox_kit.landscape.directions import (
    Direction,
    between,
    combine,
    dot,
    lox_direction,
    norm,
    random_direction,
    weights_of,
)


def dense(part):
    """Return a part as a float64 array."""
    whole = part.left.double() @ part.right.double() if isinstance(part, LowRank) else part
    return whole.double().numpy()


def some_low_rank(out, into, rank, seed):
    generator = torch.Generator().manual_seed(seed)
    return LowRank(*(torch.randn(s, generator=generator) for s in ((out, rank), (rank, into))))


def low_rank(direction):
    """Whether every part is kept as factors."""
    return all(isinstance(part, LowRank) for part in direction.parts.values())


@pytest.mark.parametrize("kinds", ["low low", "low dense", "dense low", "dense dense"])
def test_dot_products_are_those_of_float64(kinds):
    parts = [some_low_rank(30, 20, 3, seed) for seed in (0, 1)]
    given = [
        p if kind == "low" else p.dense() for kind, p in zip(kinds.split(), parts, strict=True)
    ]
    expected = np.sum(dense(given[0]) * dense(given[1]))
    directions = [Direction({"a": part}, "", "") for part in given]
    assert dot(*directions) == pytest.approx(expected, rel=1e-12)


def test_a_dot_product_counts_the_weights_that_both_have():
    first = Direction({"a": torch.ones(2, 2), "b": torch.full((3,), 2.0)}, "1", "first")
    second = Direction({"b": torch.full((3,), 5.0), "c": torch.ones(7)}, "2", "second")
    assert dot(first, second) == 30
    assert norm(first) == pytest.approx(math.sqrt(4 + 12))


def test_sums_that_float32_would_lose_are_kept():
    large = torch.full((1000, 1000), 1.0)
    large[0, 0] = 1e4
    direction = Direction({"a": large}, "1", "large")
    assert dot(direction, direction) == 999_999 + 1e8


def test_between_is_the_difference_of_every_weight(pair):
    delta = between(pair.base, pair.aligned)
    before, after = weights(pair.base), weights(pair.aligned)
    assert set(delta.parts) == set(after)
    for name in after:
        assert torch.equal(delta.parts[name], after[name] - before[name])
    held = delta.hold()
    assert all(part.any() for part in held.parts.values())  # the norms did not change
    assert {n for n in after if after[n].ndim == 2} == set(held.parts)
    assert norm(held) == norm(delta)


def test_models_of_two_architectures_have_no_direction(pair, make_pair):
    other = make_pair(intermediate_size=64)
    with pytest.raises(ValueError, match=r"mlp.*has shape .* two architectures"):
        between(pair.aligned, other.aligned)
    fewer = make_pair(num_hidden_layers=1)
    with pytest.raises(ValueError, match=r"layers\.1.*no such tensor"):
        between(pair.aligned, fewer.aligned)


@pytest.mark.parametrize(
    ("k", "alpha", "message"),
    [(0, 1.0, "does not move"), (3, 0.0, "does not move"), (3, -1.0, "strips alignment")],
)
def test_a_lox_that_does_not_move_or_moves_backwards_has_no_direction(subspace, k, alpha, message):
    with pytest.raises(ValueError, match=message):
        lox_direction(subspace, k, alpha)


def test_sums_of_factors_stay_factors_and_mixed_ones_become_dense(subspace, pair):
    first, second = lox_direction(subspace, 2), lox_direction(subspace, 3, 0.5)
    mean = combine([(0.5, first), (0.5, second)], "mean")
    assert low_rank(mean)
    name = next(iter(subspace))
    expected = (dense(first.parts[name]) + dense(second.parts[name])) / 2
    np.testing.assert_allclose(dense(mean.parts[name]), expected, atol=1e-6)
    mixed = combine([(1.0, first), (-1.0, between(pair.base, pair.aligned))], "mixed")
    assert not low_rank(mixed)
    rest = dense(first.parts[name]) - dense(between(pair.base, pair.aligned).parts[name])
    np.testing.assert_allclose(dense(mixed.parts[name]), rest, atol=1e-6)


def test_random_directions_are_as_long_as_the_matrices_and_fixed_by_their_seed():
    model = random_speaker()
    a, b, c = (random_direction(model, seed).hold() for seed in (0, 0, 1))
    assert set(a.parts) == {n for n, W in model.module.named_parameters() if W.ndim == 2}
    for name, part in a.parts.items():
        W = model.module.get_parameter(name)
        assert part.norm().item() == pytest.approx(W.norm().item(), rel=1e-5)
        assert torch.equal(part, b.parts[name])
    assert a.key == b.key != c.key
    assert abs(dot(a, c)) < 0.1 * norm(a) * norm(c)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_parts_lead_to_the_other_checkpoint(dtype, tmp_path):
    generator = torch.Generator().manual_seed(0)
    W = 0.02 * torch.randn(200, 100, generator=generator)
    change = 6e-4 * torch.randn(200, 100, generator=generator)  # 3 %, as fine-tuning makes them
    first, second = W.to(dtype), (W + change).to(dtype)
    folders = [save_tensors(tmp_path / n, {"W": t}) for n, t in (("a", first), ("b", second))]
    (part,) = between(*folders).hold(weights_of(folders[0])).parts.values()
    assert part.dtype == dtype
    there = (first.float() + part.float()).to(dtype)
    true = second.float() - first.float()
    small = true.abs() < second.float().abs() / 2
    assert small.float().mean() > 0.9
    assert torch.equal(there[small], second[small])
    rounding = 2 * true.abs() * torch.finfo(dtype).eps + 2**-24  # that: under float16's numbers
    assert ((there.float() - second.float()).abs() <= rounding).all()


def test_a_tied_head_is_not_counted_twice(make_pair):
    tied = make_pair(tie_word_embeddings=True)
    assert not [n for n in weights_of(tied.aligned).tensors if "lm_head" in n]
