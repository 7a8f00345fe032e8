import numpy as np
import pytest
import torch
from checkpoints import Pair, delta, factor, top_part, weights

from lox_kit import (
    LoxDial,
    apply_lox,
    bottom_subspace,
    full_delta,
    random_subspace,
    save_adapter,
)
from lox_kit.extrapolation import (
    CONTROLS,
    control_of,
    control_rank,
    middle_band,
    shuffled_layers,
    some_matrices,
)
from lox_kit.extrapolation.card import model_card
from lox_kit.extrapolation.lox import recipe_of
from lox_kit.models import load_module
from lox_kit.weights import Checkpoint

K = 3


def step(subspace, name, k):
    """Return the step LoX makes in one matrix at alpha 1, in float64."""
    U, S, Vh = (x.double() for x in subspace[name].top(k))
    return (U * S) @ Vh


@pytest.fixture(params=CONTROLS)
def control(request, subspace):
    return control_of(request.param, subspace, K)


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


def test_the_middle_band_is_the_directions_after_the_top(pair, subspace):
    control = middle_band(subspace, K)
    for name in subspace:
        dW, D = delta(pair, name), step(control, name, None).numpy()
        expected = top_part(dW, 2 * K) - top_part(dW, K)
        expected *= np.linalg.norm(top_part(dW, K)) / np.linalg.norm(expected)
        np.testing.assert_allclose(D, expected, atol=1e-4 * np.linalg.norm(D))


def test_shuffled_layers_swap_the_steps_of_one_kind_and_none_keeps_its_own(pair, subspace):
    control = shuffled_layers(subspace, K)
    for name in subspace:
        D, own = step(control, name, None).numpy(), top_part(delta(pair, name), K)
        if "layers" not in name:  # an embedding has no other of its kind
            assert abs((D * own).sum()) < 0.3 * np.linalg.norm(own) ** 2
            continue
        other = name.translate(str.maketrans("01", "10"))
        expected = top_part(delta(pair, other), K)
        expected *= np.linalg.norm(own) / np.linalg.norm(expected)
        np.testing.assert_allclose(D, expected, atol=1e-5 * np.linalg.norm(D))
    alone = shuffled_layers(subspace.select("up_proj"), K)
    assert list(alone) == list(subspace.select("up_proj"))


def test_a_circle_through_more_layers_moves_every_one_and_the_seed_names_it(make_pair):
    deep = factor(make_pair(num_hidden_layers=5), rank=K).select("up_proj")
    top = {name: step(deep, name, K) for name in deep}
    found = []
    for seed in range(4):
        control = shuffled_layers(deep, K, seed=seed)
        cosines = torch.tensor(
            [
                [float((step(control, n, None) * T).sum() / T.norm() ** 2) for T in top.values()]
                for n in deep
            ]
        )
        places = cosines.abs().argmax(1).tolist()
        assert sorted(places) == [0, 1, 2, 3, 4]
        assert all(i != place for i, place in enumerate(places))
        found.append(tuple(places))
    assert len(set(found)) > 1


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("kind:up_proj", [f"model.layers.{i}.mlp.up_proj.weight" for i in (0, 1)]),
        ("kind:mlp.up_proj", [f"model.layers.{i}.mlp.up_proj.weight" for i in (0, 1)]),
        ("layers:1-1", None),
    ],
)
def test_some_matrices_move_as_far_as_lox_moves_all(pair, subspace, which, expected):
    control = control_of(which, subspace, K)
    assert list(control) == (expected or [n for n in subspace if "layers.1." in n])
    whole, part = (
        np.sqrt(sum(np.linalg.norm(top_part(delta(pair, n), K)) ** 2 for n in names))
        for names in (subspace, control)
    )
    steps = {name: step(control, name, None).numpy() for name in control}
    total = np.sqrt(sum(np.linalg.norm(D) ** 2 for D in steps.values()))
    assert total == pytest.approx(whole, rel=1e-5)
    for name, D in steps.items():
        expected = top_part(delta(pair, name), K) * whole / part
        np.testing.assert_allclose(D, expected, atol=1e-5 * np.linalg.norm(D))


def test_what_some_matrices_leave_out_stays_as_it_is(pair, subspace, tmp_path):
    control = some_matrices(subspace, K, "layers:0-0")
    out = apply_lox(control, pair.aligned, tmp_path / "control", None, 1.0, control=True)
    before, after = weights(pair.aligned), weights(out)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == set(control)
    assert Checkpoint(out).config["lox_kit_control"]["control"] == "layers:0-0"
    module = load_module(Checkpoint(pair.aligned))
    LoxDial(module, control).set(k=None, alpha=1.0)
    for name, W in module.named_parameters():
        torch.testing.assert_close(W, after[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("control", "rank", "k", "message"),
    [
        (random_subspace, 4, -1, "k=-1"),
        (random_subspace, 4, 5, "k=5"),
        (full_delta, 4, K, 'rank="full"'),
        (full_delta, "full", -1, "k=-1"),
        (full_delta, "full", -40, "k=-40"),
        (bottom_subspace, 5, K, r"weight: 5 directions are stored, so the last 3 .*--rank 6"),
        (middle_band, 5, K, r"weight: 5 directions are stored, so the next 3 .*--rank 6"),
        (shuffled_layers, 4, 5, "k=5"),
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


@pytest.mark.parametrize("name", ["flipped", "kind:", "layers:1", "best", "random:2"])
def test_a_control_of_another_name_is_refused(subspace, name):
    for refused in (lambda: control_of(name, subspace, K), lambda: control_rank(name, K)):
        with pytest.raises(ValueError, match=rf"control '{name}': use random, full, bottom, mid"):
            refused()


def test_matrices_that_are_not_there_are_refused(subspace):
    for name in ("kind:experts", "layers:7-9"):
        with pytest.raises(ValueError, match=f"{name}: alignment changed no such .* has 2 layers"):
            control_of(name, subspace, K)


def test_a_control_says_which_rank_it_takes(pair):
    ranks = {name: control_rank(name, K) for name in (*CONTROLS, "kind:up_proj", "layers:0-1")}
    full = {"full": "full", "bottom": "full", "middle": 2 * K}
    assert ranks == {name: full.get(name, K) for name in ranks}
    for name in ("middle", "shuffled", "kind:up_proj"):
        control_of(name, factor(pair, rank=ranks[name]), K)


def test_a_control_is_made_of_the_pair_s_own_subspace_and_kept_in_no_file(
    subspace, control, tmp_path
):
    with pytest.raises(ValueError, match="this is a control subspace"):
        full_delta(control, K)
    with pytest.raises(ValueError, match="this is a cut subspace"):
        random_subspace(subspace.cut(dict.fromkeys(subspace, K)), K)
    with pytest.raises(ValueError, match=r"this is the control .*: make it again"):
        control.save(tmp_path / "S.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_no_two_controls_are_stored_under_one_recipe(subspace):
    arms = [subspace, full_delta(subspace, K), full_delta(subspace, 2)]
    arms += [bottom_subspace(subspace, K), *(random_subspace(subspace, K, seed=s) for s in (0, 1))]
    names = ("middle", "shuffled", "kind:up_proj", "kind:q_proj", "layers:0-0", "layers:0-1")
    arms += [control_of(name, subspace, K) for name in names]
    assert len({recipe_of(arm.info, None, 1.0) for arm in arms}) == len(arms)
