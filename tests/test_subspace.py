import dataclasses
import warnings

import numpy as np
import pytest
import torch
from checkpoints import RANK, UP, delta, factor, save_tensors, top_part, weights
from test_lora_adapter import make_adapter

from lox_kit import LoxDial, SafetySubspace, UncertifiedRank, apply_lox, noise_edge, save_adapter
from lox_kit.extrapolation import kind_summary, largest_k, lox_key
from lox_kit.models import load_module
from lox_kit.weights import Checkpoint


def test_it_maps_the_names_of_the_matrices(pair, subspace):
    assert set(subspace) == {n for n, W in weights(pair.aligned).items() if W.ndim == 2}
    assert UP in subspace
    assert "model.norm.weight" not in subspace
    with pytest.raises(KeyError, match=r"model.norm.weight: not in this subspace"):
        subspace["model.norm.weight"]


def test_ranks_nest_and_more_directions_than_a_matrix_has_mean_all_of_them(subspace):
    U, S, Vh = subspace[UP].top(None)
    assert len(S) == 32
    for k in (0, 1, RANK, 32, 1000):
        smaller, held = subspace[UP].top(k), min(k, 32)
        assert [x.shape for x in smaller] == [(48, held), (held,), (held, 32)]
        for part, whole in zip(smaller, (U[:, :k], S[:k], Vh[:k]), strict=True):
            assert torch.equal(part, whole)
    energies = np.array([subspace.energy(k) for k in range(33)])
    assert (np.diff(energies, axis=0) >= -1e-12).all()
    assert (energies[0] == 0).all()
    for k in (None, 1000):
        np.testing.assert_allclose(subspace.energy(k), 1.0, atol=1e-6)


@pytest.mark.parametrize("k", [1, RANK, 10])
def test_energy_and_r_align_match_float64(pair, subspace, k):
    for name, energy, share in zip(subspace, subspace.energy(k), subspace.r_align(k), strict=True):
        dW = delta(pair, name)
        expected = np.linalg.norm(top_part(dW, k)) / np.linalg.norm(dW)
        assert share == pytest.approx(expected, rel=1e-5)
        assert energy == pytest.approx(expected**2, rel=1e-5)


def test_a_matrix_that_alignment_left_alone_has_no_subspace(tmp_path):
    torch.manual_seed(0)
    names = ("a.weight", "b.weight")
    values = [{n: torch.randn(6, 4) for n in names} for _ in range(3)]
    values[1]["b.weight"] = values[0]["b.weight"]  # b: fine-tuning changes it, alignment did not
    base, aligned, ft = (save_tensors(tmp_path / n, v) for n, v in zip("xyz", values, strict=True))
    found = SafetySubspace.from_pair(base, aligned)
    share = found.r_ft(base, ft, 2)
    assert found.energy(2)[1] == share.r_align[1] == share.r_ft[1] == 0
    assert share.r_ft[0] > 0


def test_directions_behind_the_rank_of_a_delta_count_for_nothing(tmp_path):
    torch.manual_seed(0)
    u, v = torch.randn(6, 1), torch.randn(1, 4)
    base, aligned, ft = (
        save_tensors(tmp_path / n, {"a.weight": W})
        for n, W in (("x", torch.zeros(6, 4)), ("y", u @ v), ("z", torch.randn(6, 4)))
    )
    found = SafetySubspace.from_pair(base, aligned)
    assert found.r_ft(base, ft, 3).r_ft[0] == pytest.approx(found.r_ft(base, ft, 1).r_ft[0])


def test_the_curve_of_r_ft_matches_float64_at_every_k_and_r_ft_is_one_of_its_columns(
    make_pair, pair, subspace
):
    finetuned = make_pair(dtype=torch.bfloat16).aligned  # what a rough fine-tuning may leave
    curve = subspace.r_ft_curve(pair.base, finetuned)
    before, after = weights(pair.base), weights(finetuned)
    assert curve.shape == (len(subspace), 33)
    for name, row in zip(subspace, curve, strict=True):
        U = np.linalg.svd(delta(pair, name))[0]
        M = after[name].double().numpy() - before[name].double().numpy()
        dense = [np.linalg.norm(U[:, :k] @ U[:, :k].T @ M) for k in range(33)]
        np.testing.assert_allclose(row, np.array(dense) / np.linalg.norm(M), rtol=1e-4)
    for k in (0, 1, RANK, 32):
        share = subspace.r_ft(pair.base, finetuned, k)
        np.testing.assert_allclose(share.r_ft, curve[:, k], rtol=1e-6)
        np.testing.assert_array_equal(share.r_align, subspace.r_align(k))
    assert share.layer.tolist() == list(subspace)


def test_the_curve_of_r_ft_goes_as_far_as_is_asked_and_stored(pair, subspace):
    whole = subspace.r_ft_curve(pair.base, pair.aligned)
    few = subspace.r_ft_curve(pair.base, pair.aligned, 5)
    np.testing.assert_allclose(few, whole[:, :6])
    more = subspace.r_ft_curve(pair.base, pair.aligned, 40)  # than any matrix has
    assert more.shape == (len(subspace), 41)
    np.testing.assert_array_equal(more[:, 33:], more[:, [32] * 8])
    with pytest.raises(ValueError, match="k=5 and the subspace holds 4 directions"):
        factor(pair, rank=4).r_ft_curve(pair.base, pair.aligned, 5)


def test_the_key_says_what_the_factors_are_of_whatever_the_checkpoints_are_called(
    pair, subspace, tmp_path
):
    found = factor(pair, rank=4, out=tmp_path / "S.safetensors")
    again = SafetySubspace.load(tmp_path / "S.safetensors")
    again.info["base"] = "elsewhere"
    assert again.key == found.key
    others = [factor(pair, rank=4, seed=1), factor(pair, rank=5), subspace]
    assert len({found.key, *(other.key for other in others)}) == 4


def test_r_ft_refuses_another_architecture(pair, subspace, tmp_path):
    other = save_tensors(tmp_path / "other", {UP: torch.ones(2, 2)})
    with pytest.raises(ValueError, match=r"the subspace has shape .* has no such tensor"):
        subspace.r_ft(pair.base, other, 2)


@pytest.mark.parametrize(
    ("k", "message"),
    [
        (5, r"k=5 and the subspace holds 4 directions: factor again with rank=5 \(--rank 5\)"),
        (None, r'k=None keeps all directions and the subspace holds 4: .*rank="full"'),
        (-1, "k=-1: use 0 or more directions, or None for all"),
    ],
)
def test_directions_that_are_not_stored_are_refused(pair, k, message):
    found = factor(pair, rank=4)
    for use in (found.check_rank, found.energy, found.r_align):
        with pytest.raises(ValueError, match=message):
            use(k)


def test_uncertified_directions_warn(subspace):
    residual = subspace[UP].residual.clone()
    residual[4] = 0.03
    factors = dataclasses.replace(subspace[UP], residual=residual, method="krylov")
    info = {**subspace.info, "layers": [UP], "shapes": [[48, 32]]}
    loose = SafetySubspace(info, factors={UP: factors})
    loose.check_rank(4)
    loose.check_rank(None)  # all directions together are the delta, however close some are
    message = r"k=5 goes beyond the certified directions in 1 of 1 matrices \(residual up to 3e-02"
    with pytest.warns(UncertifiedRank, match=message):
        loose.check_rank(5)
    assert loose.to_frame()["certified"].tolist() == [4]


def test_exact_directions_need_no_certificate(subspace):
    assert "svd" in subspace.to_frame()["method"].unique()
    residual = torch.full((32,), 0.03)  # rounding, where singular values are tiny
    exact = {UP: dataclasses.replace(subspace[UP], residual=residual)}
    info = {**subspace.info, "layers": [UP], "shapes": [[48, 32]]}
    with warnings.catch_warnings(action="error"):
        SafetySubspace(info, factors=exact).check_rank(32)


@pytest.mark.parametrize("shape", [(400, 300), (200, 900)], ids=str)
def test_the_spectrum_of_noise_ends_at_the_noise_edge(shape):
    noise = 0.01 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    edge = noise_edge(shape, float(noise.square().sum()))
    assert float(torch.linalg.matrix_norm(noise, 2)) == pytest.approx(edge, rel=0.04)


def test_a_saved_subspace_is_the_same_and_is_written_over_nothing(subspace, tmp_path):
    file = subspace.save(tmp_path / "S.safetensors")
    again = SafetySubspace.load(file)
    assert again.key == subspace.key
    for name in subspace:
        assert all(map(torch.equal, again[name].top(None), subspace[name].top(None)))
    with pytest.raises(FileExistsError):
        subspace.save(file)


# --- parts of it --------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["file", "memory"])
def test_a_selection_is_what_factoring_with_its_patterns_gives(pair, tmp_path, where):
    file = tmp_path / "S.safetensors" if where == "file" else None
    chosen = factor(pair, file, rank=4, exclude="embed").select("^model.*mlp|q_proj", "down")
    chosen = chosen.select("^model.layers.1", exclude="o_proj")
    made = factor(pair, rank=4, include=chosen.info["include"], exclude=chosen.info["exclude"])
    assert chosen.info == made.info
    assert chosen.key == made.key
    names = ("mlp.gate_proj", "mlp.up_proj", "self_attn.q_proj")
    assert list(chosen) == [f"model.layers.1.{n}.weight" for n in names]
    for name in chosen:
        assert all(map(torch.equal, chosen[name].top(None), made[name].top(None)))
    np.testing.assert_allclose(chosen.energy(2), made.energy(2), rtol=1e-6)
    with pytest.raises(KeyError, match="not in this subspace"):
        chosen["lm_head.weight"]


def test_a_selection_of_nothing_is_refused(subspace):
    with pytest.raises(
        ValueError, match=r"leave no matrix of the subspace\. A name looks like lm_head"
    ):
        subspace.select("experts")
    with pytest.raises(ValueError, match="not a regular expression"):
        subspace.select("(")


@pytest.fixture
def ks(subspace):
    """A k of each matrix; the head has none."""
    return {n: 0 if "lm_head" in n else 1 + i % 4 for i, n in enumerate(subspace)}


def test_a_cut_subspace_is_the_dial_the_checkpoint_and_the_adapter_of_its_own_k(
    pair, subspace, ks, tmp_path
):
    cut = subspace.cut(ks)
    out = apply_lox(cut, pair.aligned, tmp_path / "lox", None, 0.5)
    module = load_module(Checkpoint(pair.aligned))
    LoxDial(module, cut).set(k=None, alpha=0.5)
    held = dict(module.named_parameters())
    after = weights(out)
    for name, W in weights(pair.aligned).items():
        moved = 0.5 * top_part(delta(pair, name), ks[name]) if W.ndim == 2 else 0
        np.testing.assert_allclose(after[name].numpy(), W.double().numpy() + moved, atol=1e-6)
        np.testing.assert_allclose(held[name].detach(), after[name], atol=1e-6)
    card = (out / "README.md").read_text()
    assert "k = 1 to 4, each matrix its own," in card
    assert "SafetySubspace.cut" in card
    left_out = save_adapter(cut, pair.aligned, tmp_path / "adapter", None, 0.5)
    assert left_out == ()
    merged = SafetySubspace.from_pair(pair.aligned, tmp_path / "adapter")
    for name in merged:
        expected = 0.5 * top_part(delta(pair, name), ks[name])
        U, S, Vh = (x.double() for x in merged[name].top(None))
        np.testing.assert_allclose((U * S) @ Vh, expected, atol=1e-6)


def test_energies_of_a_cut_subspace_are_shares_of_the_whole_delta(pair, subspace, ks):
    cut = subspace.cut(ks)
    assert "lm_head.weight" not in cut
    for name, energy in zip(cut, cut.energy(None), strict=True):
        dW = delta(pair, name)
        share = np.linalg.norm(top_part(dW, ks[name])) ** 2 / np.linalg.norm(dW) ** 2
        assert energy == pytest.approx(share, rel=1e-5)
        assert len(cut.spectrum(name)) == ks[name]
    most = [min(2, k) for k in cut.info["cut"].values()]
    assert [len(cut[n].top(2)[1]) for n in cut] == most  # a k beside it is the most of any


def test_a_cut_has_a_key_of_its_own_and_is_the_same_from_a_file(pair, subspace, ks, tmp_path):
    cut = subspace.cut(ks)
    others = [subspace, subspace.cut({**ks, UP: 7}), cut.select(exclude="embed")]
    assert len({cut.key, *(other.key for other in others)}) == 4
    assert len({lox_key("aligned", s, None, 1.0) for s in (cut, *others)}) == 4
    again = SafetySubspace.load(cut.save(tmp_path / "cut.safetensors"))
    whole = SafetySubspace.load(subspace.save(tmp_path / "S.safetensors"))
    for other in (again, whole.cut(ks)):
        assert other.key == cut.key
        np.testing.assert_allclose(other.energy(None), cut.energy(None), rtol=1e-6)
        for name in cut:
            assert all(map(torch.equal, other[name].top(None), cut[name].top(None)))
    assert (tmp_path / "cut.safetensors").stat().st_size < 0.2 * (
        (tmp_path / "S.safetensors").stat().st_size
    )
    assert cut.select("q_proj").info["cut"] == {n: ks[n] for n in ks if "q_proj" in n}


def test_a_k_that_is_missing_or_not_stored_is_refused(pair, subspace, ks):
    few = factor(pair, rank=3)
    with pytest.raises(ValueError, match=r"lm_head.weight: has no k; give one"):
        subspace.cut({n: k for n, k in ks.items() if k})
    with pytest.raises(ValueError, match=r"other.weight: is not in this subspace"):
        subspace.cut({**ks, "other.weight": 1})
    for k in (4, -1):
        with pytest.raises(ValueError, match=rf"up_proj.weight: k={k}, and 3 directions are"):
            few.cut({**dict.fromkeys(few, 1), UP: k})
    with pytest.raises(ValueError, match="every k is 0"):
        few.cut(dict.fromkeys(few, 0))
    assert subspace.cut({**ks, UP: 1000}).info["cut"][UP] == 32  # all that there are


def test_a_cut_beyond_the_certified_directions_warns(subspace):
    F = subspace[UP]
    residual = torch.where(torch.arange(32) < 4, 0.0, 0.03)
    found = dataclasses.replace(F, residual=residual, method="krylov")
    info = {**subspace.info, "rank": 32, "layers": [UP], "shapes": [[48, 32]], "certify": 4}
    loose = SafetySubspace(info, factors={UP: found})
    with pytest.warns(UncertifiedRank, match="k=5 goes beyond the certified directions in 1 of 1"):
        loose.cut({UP: 5}).energy(None)
    with warnings.catch_warnings(action="error"):
        loose.cut({UP: 4}).energy(None)


def test_matrices_of_one_kind_are_summed_up(pair, subspace):
    found = kind_summary(subspace, 2).set_index("kind")
    assert list(found.index)[:3] == ["q_proj", "k_proj", "v_proj"]
    names = [name for name in subspace if name.endswith("up_proj.weight")]
    deltas = [delta(pair, name) for name in names]
    whole = sum(np.square(delta(pair, name)).sum() for name in subspace)
    up = found.loc["up_proj"]
    assert up["matrices"] == len(names) == 2
    assert up["share"] == pytest.approx(sum(np.square(dW).sum() for dW in deltas) / whole)
    squares = [np.square(np.linalg.svd(dW)[1]) for dW in deltas]
    assert up["energy"] == pytest.approx(np.median([s[:2].sum() / s.sum() for s in squares]))
    assert up["above_noise"] == RANK
    assert found["share"].sum() == pytest.approx(1.0)


def test_directions_that_are_zero_do_not_count(pair, tmp_path):
    adapter = make_adapter(pair.base, tmp_path / "adapter", r=2, target_modules=["q_proj"])
    thin = SafetySubspace.from_pair(pair.base, f"{pair.base}+{adapter}", rank=8)
    counts = thin.to_frame().set_index("layer")[["rank", "certified"]]
    is_q = counts.index.str.endswith("q_proj.weight")
    assert (counts[is_q] == 2).all(axis=None)
    assert (counts[~is_q] == 0).all(axis=None)
    assert largest_k(thin) == 2
