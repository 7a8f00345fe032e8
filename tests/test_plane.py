"""Planes and lines: axes, coordinates, distances, and weights set in place."""

import copy

import numpy as np
import pytest
import torch
from checkpoints import factor, weights
from speakers import random_speaker, same_weights
from transformers import AutoModelForCausalLM

from lox_kit.extrapolation.checkpoint import apply_lox
from lox_kit.extrapolation.lox import LowRank
from lox_kit.landscape.directions import (
    Direction,
    between,
    dot,
    lox_direction,
    norm,
    weights_of,
)
from lox_kit.landscape.flat import Flat, Walk, point_key
from lox_kit.landscape.plane import Line, Plane
from lox_kit.models.load import Model
from lox_kit.weights.checkpoint import Checkpoint


def moved(model, seed, size=0.05):
    """Return a copy of a model with every weight moved at random."""
    generator = torch.Generator().manual_seed(seed)
    module = copy.deepcopy(model.module)
    with torch.no_grad():
        for W in module.parameters():
            W.add_(size * torch.randn(W.shape, generator=generator))
    return Model(module, model.tokenizer, f"{model.key} moved {seed}", f"moved {seed}")


@pytest.fixture(scope="module")
def four():
    """An aligned model, "LoX", and both "attacked"; the attacks share a part."""
    aligned = random_speaker()
    lox = moved(aligned, 1)
    shared = moved(aligned, 2)
    attacked, both = moved(shared, 3, 0.02), moved(lox, 2)
    return aligned, lox, attacked, both


def flat_vector(first, second):
    """Return `second - first` over all weights as one float64 vector."""
    parts = between(first, second).parts
    return torch.cat([parts[n].double().flatten() for n in parts]).numpy()


def test_the_papers_plane_is_gram_schmidt_of_lox_and_the_mean_attack(four):
    aligned, lox, attacked, both = four
    plane = Plane.from_models(*four)
    d1 = flat_vector(aligned, lox)
    d2 = (flat_vector(aligned, attacked) + flat_vector(lox, both)) / 2
    d1 /= np.linalg.norm(d1)
    d2 -= d1 * (d1 @ d2)
    d2 /= np.linalg.norm(d2)
    for name, model in zip(("LoX", "attacked", "attacked LoX"), four[1:], strict=True):
        delta, point = flat_vector(aligned, model), plane.points[name]
        np.testing.assert_allclose(point.at, (delta @ d1, delta @ d2), atol=1e-5)
        rest = delta - d1 * (delta @ d1) - d2 * (delta @ d2)
        assert point.distance == pytest.approx(np.linalg.norm(rest), abs=1e-5)
    assert plane.points["LoX"].at[1] == 0
    assert plane.points["LoX"].distance == 0
    assert plane.points["attacked"].distance > 0.1
    assert plane.axes == ("along LoX (L2)", "along the mean attack (L2)")


def test_all_three_models_lie_on_the_plane_through_them(four):
    plane = Plane.through(*four[:3])
    for name, model in zip(("LoX", "attacked"), four[1:3], strict=True):
        found = plane.locate(between(four[0], model))
        assert plane.points[name].distance == 0
        assert found.distance < 1e-6
        np.testing.assert_allclose(found.at, plane.points[name].at, atol=1e-9)


def test_a_lox_given_as_factors_stays_factors_and_the_walk_gets_to_its_checkpoint(
    pair, subspace, tmp_path
):
    plane = Plane.through(pair.aligned, lox_direction(subspace, 3), weights_of(pair.base))
    kinds = [{type(part) for part in d.parts.values()} for d in plane.directions]
    assert kinds == [{LowRank}, {torch.Tensor}]
    module = AutoModelForCausalLM.from_pretrained(pair.aligned)
    model = Model(module, None, Checkpoint(pair.aligned).fingerprint, "aligned")
    made = weights(apply_lox(subspace, pair.aligned, tmp_path / "lox", 3, 1.0))
    with Walk(model, plane) as walk:
        walk.go(plane.points["LoX"].at)
        assert all(torch.equal(W, made[n]) for n, W in model.module.named_parameters())
    before = weights(pair.aligned)
    assert all(torch.equal(W, before[n]) for n, W in model.module.named_parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_are_summed_in_float32_rounded_once_and_the_origin_comes_back(dtype):
    model = random_speaker()
    model.module.to(dtype)
    plane = Plane.random(model, seed=3)
    before, key = copy.deepcopy(model.module), model.key
    generator = np.random.default_rng(0)
    places = [(0.01, -0.003), *(tuple(p) for p in generator.normal(size=(20, 2)))]
    with Walk(model, plane) as walk:
        walk.go(places[0])
        first = copy.deepcopy(model.module)
        assert model.key == point_key(plane, places[0]) != key
        for name, W0 in before.named_parameters():
            steps = zip(places[0], plane.directions, strict=True)
            terms = [c * d.parts[name].double() for c, d in steps if name in d.parts]
            exact = W0.double() + sum(terms, torch.zeros(()).double())
            off = (first.get_parameter(name).double() - exact).abs() / exact.abs().clamp(min=1e-3)
            roundings = 3 if dtype == torch.float32 else 1  # the sums are in float32
            assert off.max() <= roundings * 0.501 * torch.finfo(dtype).eps
        for at in [*places, places[0]]:
            walk.go(at)
        assert same_weights(model.module, first)
    assert same_weights(model.module, before)
    assert model.key == key


def test_parallel_and_zero_directions_are_refused(four):
    aligned, lox = four[:2]
    twice = between(aligned, lox)
    with pytest.raises(ValueError, match="are parallel"):
        Plane.through(aligned, lox, twice)
    with pytest.raises(ValueError, match="has length 0"):
        Plane.through(aligned, lox, aligned)
    unfit = Direction({"no.such.weight": torch.ones(2)}, "x", "odd")
    with pytest.raises(ValueError, match=r"no.such.weight: the direction odd .* no such tensor"):
        Line.along(aligned, unfit)


def test_a_line_is_in_distances_or_in_multiples_of_its_direction(four):
    aligned, lox = four[:2]
    length = norm(between(aligned, lox))
    by_length, by_step = (Line.along(aligned, lox, unit=u) for u in ("L2", "direction"))
    assert by_length.coefficients((length,)) == (1.0,)
    assert by_step.coefficients((0.5,)) == (0.5,)
    assert by_length.key != by_step.key
    with pytest.raises(ValueError, match="unit='cm': use 'L2' or 'direction'"):
        Line.along(aligned, lox, unit="cm")
    with pytest.raises(ValueError, match="a point here has 1 coordinates"):
        by_length.coefficients((1.0, 2.0))


def test_keys_follow_the_models_and_the_point(four):
    same, other = Plane.through(*four[:3]), Plane.through(four[0], four[1], four[3])
    assert Plane.through(*four[:3]).key == same.key != other.key
    assert point_key(same, (0.0, 0.0)) == point_key(same, (-0.0, 0.0)) == four[0].key
    assert point_key(same, (0.0, 1.0)) == point_key(same, (-0.0, 1.0)) != point_key(same, (1.0, 0))


def test_a_saved_plane_is_the_same_plane(four, pair, tmp_path):
    for flat in (Plane.from_models(*four), Line.along(*four[:2])):
        file = flat.save(tmp_path / "new" / "flat.safetensors")
        loaded = Flat.load(file)
        assert (loaded.key, loaded.points, loaded.scale) == (flat.key, flat.points, flat.scale)
        for mine, theirs in zip(flat.directions, loaded.directions, strict=True):
            assert dot(mine, theirs) == dot(mine, mine)
    factor(pair, tmp_path / "S.safetensors", rank=1)
    with pytest.raises(ValueError, match="not a file that"):
        Flat.load(tmp_path / "S.safetensors")
