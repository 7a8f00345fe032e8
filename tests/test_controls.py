import pytest
import torch
from checkpoints import Pair, delta, factor, weights

from lox_kit import (
    apply_lox,
    bottom_subspace,
    full_delta,
    random_subspace,
    save_adapter,
)
from lox_kit.extrapolation import CONTROLS
from lox_kit.extrapolation.card import model_card
from lox_kit.extrapolation.lox import recipe_of
from lox_kit.models import load_module
from lox_kit.weights import Checkpoint

K = 3


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


def test_the_bottom_is_the_last_directions_and_none_of_the_first(subspace):
    control = bottom_subspace(subspace, K)
    for name in subspace:
        U, S, Vh = (x.double() for x in subspace[name].top(subspace[name].nonzero))
        D = step(control, name, None)
        expected = (U[:, -K:] * S[-K:]) @ Vh[-K:]
        expected *= S[:K].norm() / S[-K:].norm()
        torch.testing.assert_close(D, expected, rtol=1e-5, atol=1e-7)
        assert (U[:, :-K].T @ D).norm() < 1e-5 * D.norm()


@pytest.mark.parametrize(
    ("control", "rank", "k", "message"),
    [
        (random_subspace, 4, -1, "k=-1"),
        (random_subspace, 4, 5, "k=5"),
        (full_delta, 4, K, 'rank="full"'),
        (full_delta, "full", -1, "k=-1"),
        (full_delta, "full", -40, "k=-40"),
        (bottom_subspace, 5, K, r"weight: 5 directions are stored, so the last 3 .*--rank 6"),
    ],
)
def test_directions_that_are_not_stored_are_refused(pair, control, rank, k, message):
    with pytest.raises(ValueError, match=message):
        control(factor(pair, rank=rank), k)


@pytest.mark.parametrize("save", [apply_lox, save_adapter])
def test_no_control_is_saved_as_a_defence(pair, control, tmp_path, save):
    with pytest.raises(ValueError, match=r"this is the control '\w+': no defence"):
        save(control, pair.aligned, tmp_path / "out", K)
    with pytest.raises(ValueError, match="nothing to publish"):
        model_card(Checkpoint(pair.aligned), control, K, 1.0)
    assert list(tmp_path.iterdir()) == []


def test_a_control_is_written_as_a_checkpoint_that_says_so_and_is_no_defence(
    pair, subspace, control, tmp_path
):
    out = apply_lox(control, pair.aligned, tmp_path / "control", None, 0.5, control=True)
    before, after = weights(pair.aligned), weights(out)
    for name in subspace:
        moved = after[name].double() - before[name].double()
        torch.testing.assert_close(moved, 0.5 * step(control, name, None), rtol=0, atol=1e-6)
    mark = Checkpoint(out).config["lox_kit_control"]
    assert (mark["control_k"], mark["alpha"]) == (K, 0.5)
    assert not (out / "README.md").exists()
    assert load_module(Checkpoint(out)).config.lox_kit_control == mark
    again = factor(Pair(pair.base, out), rank=K)
    for save in (apply_lox, save_adapter):
        with pytest.raises(ValueError, match=f"this is the control '{mark['control']}'"):
            save(again, out, tmp_path / "out", K)


@pytest.mark.parametrize(("alpha", "message"), [(-1.0, "strips alignment"), (1.0, "is no control")])
def test_only_a_control_is_written_as_one_and_never_backwards(
    pair, subspace, tmp_path, alpha, message
):
    made = subspace if alpha > 0 else full_delta(subspace, K)
    with pytest.raises(ValueError, match=message):
        apply_lox(made, pair.aligned, tmp_path / "out", None, alpha, control=True)
    assert list(tmp_path.iterdir()) == []


def test_no_two_controls_are_stored_under_one_recipe(subspace):
    arms = [subspace, full_delta(subspace, K), full_delta(subspace, 2)]
    arms += [bottom_subspace(subspace, K), *(random_subspace(subspace, K, seed=s) for s in (0, 1))]
    assert len({recipe_of(arm, None, 1.0) for arm in arms}) == len(arms)
