import pytest
import torch
from checkpoints import delta, factor

from lox_kit import apply_lox, full_delta, random_subspace, save_adapter
from lox_kit.extrapolation.lox import recipe_of

K = 3
CONTROLS = {"random": random_subspace, "full": full_delta}


def step(subspace, name, k):
    """Return the step LoX makes in one matrix at alpha 1, in float64."""
    U, S, Vh = (x.double() for x in subspace[name].top(k))
    return (U * S) @ Vh


@pytest.fixture(params=CONTROLS.values(), ids=CONTROLS)
def control(request, subspace):
    return request.param(subspace, K)


def test_every_matrix_moves_as_far_as_under_lox(subspace, control):
    assert list(control) == list(subspace)
    for name in subspace:
        ours, theirs = step(subspace, name, K).norm(), step(control, name, None).norm()
        assert float(theirs) == pytest.approx(float(ours), rel=1e-5)
        assert control[name].norm == pytest.approx(float(ours), rel=1e-5)


def test_a_random_step_has_lox_s_singular_values_nearly_orthogonal_to_its_subspace(subspace):
    control = random_subspace(subspace, K)
    shares = []
    for name in subspace:
        D, U = step(control, name, None), subspace[name].U[:, :K].double()
        S = torch.linalg.svdvals(D)
        torch.testing.assert_close(S[:K], subspace[name].S[:K].double(), rtol=1e-5, atol=0)
        assert S[K:].max() < 1e-6
        shares.append(float((U.T @ D).square().sum() / D.square().sum()))
    assert sum(shares) / len(shares) < 2 * K / 32  # K/32 is what chance gives in 32 dimensions


def test_a_seed_names_the_random_directions(subspace):
    first, again, other = (random_subspace(subspace, K, seed=s) for s in (1, 1, 2))
    directions = [c[next(iter(c))].U for c in (first, again, other)]
    assert torch.equal(directions[0], directions[1])
    assert not torch.allclose(directions[0], directions[2])
    names = [n for n in subspace if subspace[n].shape == (32, 32)]
    assert not torch.allclose(first[names[0]].U, first[names[1]].U)  # each matrix has its own


def test_the_full_delta_points_along_the_delta(pair, subspace):
    control = full_delta(subspace, K)
    for name in subspace:
        dW, D = torch.from_numpy(delta(pair, name)), step(control, name, None)
        cosine = (dW * D).sum() / dW.norm() / D.norm()
        assert float(cosine) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("control", "rank", "k", "message"),
    [
        (random_subspace, 4, -1, "k=-1"),
        (random_subspace, 4, 5, "k=5"),
        (full_delta, 4, K, 'rank="full"'),
        (full_delta, "full", -1, "k=-1"),
        (full_delta, "full", -40, "k=-40"),
    ],
)
def test_directions_that_are_not_stored_are_refused(pair, control, rank, k, message):
    with pytest.raises(ValueError, match=message):
        control(factor(pair, rank=rank), k)


@pytest.mark.parametrize("save", [apply_lox, save_adapter])
def test_no_control_is_ever_saved(pair, control, tmp_path, save):
    with pytest.raises(ValueError, match="controls are measured, never saved"):
        save(control, pair.aligned, tmp_path / "out", K)
    assert list(tmp_path.iterdir()) == []


def test_no_two_controls_are_stored_under_one_recipe(subspace):
    arms = [subspace, full_delta(subspace, K), full_delta(subspace, 2)]
    arms += [random_subspace(subspace, K, seed=s) for s in (0, 1)]
    assert len({recipe_of(arm, None, 1.0) for arm in arms}) == len(arms)
