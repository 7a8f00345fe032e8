import json
import math

import pytest
import torch
from checkpoints import assert_rounded, content, extrapolated, run_python, weights
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from lox_kit import SafetySubspace, apply_lox
from lox_kit.extrapolation.lox import edit

KINDS = {
    "float32": {},
    "bfloat16": {"dtype": torch.bfloat16},
    "float16": {"dtype": torch.float16},
    "sharded": {"dtype": torch.bfloat16, "shards": "15KB"},
    "tied": {"tie_word_embeddings": True},
    "grouped-query": {"num_key_value_heads": 2},
    "biases": {"attention_bias": True},
    "qwen2": {"kind": "qwen2"},
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def any_pair(request, make_pair):
    return make_pair(**request.param)


def factored(pair, **options):
    return SafetySubspace.from_pair(pair.base, pair.aligned, **{"rank": 8, **options})


# --- the values ---------------------------------------------------------------------------------


def test_the_checkpoint_is_the_float64_edit_rounded_once(any_pair, tmp_path):
    out = apply_lox(factored(any_pair), any_pair.aligned, tmp_path / "lox", k=3, alpha=1.25)
    got, before = weights(out), weights(any_pair.aligned)
    expected = extrapolated(any_pair, 3, 1.25)
    assert got.keys() == expected.keys()
    for name, W in got.items():
        assert W.dtype == before[name].dtype
        assert_rounded(W, expected[name])
        assert torch.equal(W, before[name]) == (W.ndim != 2)


@pytest.mark.parametrize(("k", "alpha"), [(0, 1.0), (3, 0.0)])
def test_no_directions_or_no_length_is_the_identity_bit_for_bit(any_pair, tmp_path, k, alpha):
    out = apply_lox(factored(any_pair), any_pair.aligned, tmp_path / "lox", k, alpha)
    got, before = weights(out), weights(any_pair.aligned)
    assert got.keys() == before.keys()
    assert all(torch.equal(got[n].view(torch.uint8), before[n].view(torch.uint8)) for n in got)


def test_all_directions_extrapolate_the_whole_delta(pair, subspace, tmp_path):
    got = weights(apply_lox(subspace, pair.aligned, tmp_path / "lox", k=None, alpha=1.0))
    before, after = weights(pair.base), weights(pair.aligned)
    for name, W in got.items():
        expected = 2 * after[name].double() - before[name].double()
        assert_rounded(W, expected if W.ndim == 2 else after[name].double())


def test_only_the_matrices_of_the_subspace_are_moved(pair, tmp_path):
    mlp = factored(pair, include="mlp")
    got = weights(apply_lox(mlp, pair.aligned, tmp_path / "lox", 3))
    before = weights(pair.aligned)
    assert {n for n in got if not torch.equal(got[n], before[n])} == set(mlp)


def test_edit_leaves_its_input_alone():
    W, U, S, Vh = torch.ones(3, 2), torch.ones(3, 1), torch.ones(1), torch.ones(1, 2)
    for alpha in (0.0, 2.0):
        assert edit(W, U, S, Vh, alpha).data_ptr() != W.data_ptr()
    assert torch.equal(W, torch.ones(3, 2))


# --- the folder ---------------------------------------------------------------------------------


def test_everything_beside_the_weights_is_carried(any_pair, tmp_path):
    out = apply_lox(factored(any_pair), any_pair.aligned, tmp_path / "new" / "lox", 3)
    source, made = content(any_pair.aligned), content(out)
    assert made.keys() == {*source, "README.md"}
    for name in source:
        assert name.endswith(".safetensors") or made[name] == source[name]
    assert {"config.json", "generation_config.json", "tokenizer.json"} <= made.keys()
    assert [f.name for f in out.parent.iterdir()] == ["lox"]


def test_the_sharding_is_that_of_the_aligned_checkpoint(make_pair, tmp_path):
    pair = make_pair(**KINDS["sharded"])
    out = apply_lox(factored(pair), pair.aligned, tmp_path / "lox", 3)
    shards = sorted(pair.aligned.glob("*.safetensors"))
    assert len(shards) > 2
    for shard in shards:
        with safe_open(shard, "pt") as theirs, safe_open(out / shard.name, "pt") as ours:
            assert list(ours.offset_keys()) == list(theirs.offset_keys())


def test_transformers_loads_it(any_pair, tmp_path):
    out = apply_lox(factored(any_pair), any_pair.aligned, tmp_path / "lox", 3)
    model = AutoModelForCausalLM.from_pretrained(out, dtype="auto").state_dict()
    for name, W in weights(out).items():
        assert torch.equal(model[name], W)


def test_the_model_card_and_the_header_say_how_it_was_made(pair, tmp_path):
    out = apply_lox(factored(pair), pair.aligned, tmp_path / "lox", 3, 1.25)
    card = (out / "README.md").read_text()
    assert f"base_model: {pair.aligned}" in card
    assert "-k 3 --alpha 1.25" in card
    with safe_open(out / "model.safetensors", "pt") as f:
        recipe = json.loads(f.metadata()["lox_kit"])
    assert (recipe["k"], recipe["alpha"]) == (3, 1.25)
    assert recipe["subspace"]["aligned"] == str(pair.aligned)


def test_progress_counts_every_tensor_and_ends(pair, tmp_path):
    told = []
    apply_lox(factored(pair), pair.aligned, tmp_path / "lox", 3, on_stage=lambda *w: told.append(w))
    total = len(safe_open(pair.aligned / "model.safetensors", "pt").offset_keys())
    assert told == [("writing", i, total) for i in range(total + 1)]


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [-0.1, -1e-9, math.nan, math.inf, -math.inf])
def test_an_alpha_that_strips_alignment_or_is_no_number_is_refused(pair, subspace, tmp_path, alpha):
    with pytest.raises(ValueError, match=r"alpha=.*: use a finite number >= 0"):
        apply_lox(subspace, pair.aligned, tmp_path / "lox", 3, alpha)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("k", [9, None, -1])
def test_directions_that_are_not_stored_are_refused(pair, tmp_path, k):
    with pytest.raises(ValueError, match=f"k={k}"):
        apply_lox(factored(pair), pair.aligned, tmp_path / "lox", k)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(pair, subspace, tmp_path):
    with pytest.raises(FileExistsError, match="exists; remove it or choose another name"):
        apply_lox(subspace, pair.aligned, tmp_path, 3)
    assert list(tmp_path.iterdir()) == []


def test_another_checkpoint_than_the_subspaces_is_refused(pair, make_pair, subspace, tmp_path):
    with pytest.raises(ValueError, match=r"is not the checkpoint this subspace was made from"):
        apply_lox(subspace, pair.base, tmp_path / "lox", 3)
    with pytest.raises(ValueError, match="the subspace has shape"):
        apply_lox(subspace, make_pair(**KINDS["grouped-query"]).aligned, tmp_path / "lox", 3)


# --- cut off ------------------------------------------------------------------------------------

KILLED = """
import os, sys
from lox_kit import SafetySubspace, apply_lox
def die(what, done, total):
    if done == 9:
        os.kill(os.getpid(), 9)
S, aligned, out = sys.argv[1:]
apply_lox(SafetySubspace.load(S), aligned, out, 3, 1.25, on_stage=die)
"""


@pytest.fixture
def cut_off(make_pair, tmp_path):
    """Return a sharded pair, its subspace and the name under which a run was killed half-way."""
    pair = make_pair(**KINDS["sharded"])
    subspace = factored(pair, out=tmp_path / "S.safetensors")
    out = tmp_path / "there" / "lox"
    assert run_python(KILLED, tmp_path / "S.safetensors", pair.aligned, out).returncode == -9
    assert not out.exists()
    return pair, subspace, out


def test_a_killed_run_goes_on_and_ends_like_an_undisturbed_one(cut_off, tmp_path):
    pair, subspace, out = cut_off
    told = []
    apply_lox(
        subspace, pair.aligned, out, 3, 1.25, on_stage=lambda _, done, total: told.append(done)
    )
    assert told[0] == 9
    undisturbed = apply_lox(subspace, pair.aligned, tmp_path / "undisturbed", 3, 1.25)
    assert content(out) == content(undisturbed)
    assert [f.name for f in out.parent.iterdir()] == ["lox"]


def test_shards_of_a_killed_run_never_enter_a_model_of_another_alpha(cut_off, tmp_path):
    pair, subspace, out = cut_off
    apply_lox(subspace, pair.aligned, out, 3, 0.5)
    assert content(out) == content(apply_lox(subspace, pair.aligned, tmp_path / "new", 3, 0.5))


def test_shards_of_a_killed_run_never_enter_another_model(cut_off, pair, subspace):
    _, _, out = cut_off
    apply_lox(subspace, pair.aligned, out, 3, 1.25)
    assert content(out).keys() == {*content(pair.aligned), "README.md"}
