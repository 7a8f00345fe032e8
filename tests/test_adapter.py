import json
import shutil

import pytest
import torch
from checkpoints import UP, assert_rounded, extrapolated, factor, weights
from safetensors.torch import load_file, save_file
from test_lora_adapter import merged

from lox_kit import SafetySubspace, apply_lox, save_adapter

UNTIED = {
    "float32": {},
    "bfloat16": {"dtype": torch.bfloat16},
    "grouped-query": {"num_key_value_heads": 2},
    "biases": {"kind": "qwen2"},
    "few-tokens": {"vocab_size": 5},  # embedding and head have fewer directions than k
}


@pytest.mark.parametrize("alpha", [0.0, 1.25])
@pytest.mark.parametrize("options", UNTIED.values(), ids=UNTIED)
def test_peft_merges_it_to_the_float64_edit(make_pair, tmp_path, options, alpha):
    pair = make_pair(**options)
    out = tmp_path / "there" / "adapter"
    assert save_adapter(factor(pair, rank=8), pair.aligned, out, 6, alpha) == ()
    got = merged(pair.aligned, out)
    for name, expected in extrapolated(pair, 6, alpha).items():
        W = weights(pair.aligned)[name].double()
        rounding = torch.finfo(got[name].dtype).eps  # half of it for the delta, half for the sum
        limit = rounding * (W.abs() + (expected - W).abs()) + 2e-6
        assert ((got[name].double() - expected).abs() <= limit).all()


def test_all_directions_make_an_adapter_too(pair, subspace, tmp_path):
    save_adapter(subspace, pair.aligned, tmp_path / "adapter", None, 1.0)
    got = merged(pair.aligned, tmp_path / "adapter")
    assert_rounded(got[UP], extrapolated(pair, 32, 1.0)[UP], roundings=2)


def test_it_is_plain_lora_at_scale_alpha(pair, tmp_path):
    save_adapter(factor(pair, rank=8), pair.aligned, tmp_path / "adapter", 6, 1.25)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["lora_alpha"] / config["r"] == 1.25
    assert config["base_model_name_or_path"] == str(pair.aligned)
    assert {"lm_head", "model.embed_tokens"} < set(config["target_modules"])
    assert "lox adapter" in (tmp_path / "adapter" / "README.md").read_text()
    assert [f.name for f in tmp_path.iterdir()] == ["adapter"]


@pytest.mark.parametrize("head_stored", [False, True])
def test_tied_matrices_are_left_out_and_returned(make_pair, tmp_path, head_stored):
    pair = make_pair(tie_word_embeddings=True)
    if head_stored:  # as some published checkpoints do
        folders = [shutil.copytree(f, tmp_path / f.name) for f in (pair.base, pair.aligned)]
        pair = type(pair)(*folders)
        for folder in folders:
            tensors = weights(folder)
            tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
            save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    subspace, out = factor(pair, rank=8), tmp_path / "adapter"
    with pytest.raises(ValueError, match=r"embed_tokens.weight: tied.* lacks [\d.]+% of \|dW_k\|"):
        save_adapter(subspace, pair.aligned, out, 6)
    left_out = save_adapter(subspace, pair.aligned, out, 6, allow_partial=True)
    assert left_out == ("model.embed_tokens.weight",)
    names = {*left_out, "lm_head.weight"}  # where it is stored, a copy
    got, before = merged(pair.aligned, tmp_path / "adapter"), weights(pair.aligned)
    expected = extrapolated(pair, 6, 1.0)
    for name, W in before.items():
        assert_rounded(got[name], W.double() if name in names else expected[name], roundings=2)


def test_learned_positions_are_left_out_and_returned(make_pair, tmp_path):
    pair = make_pair(kind="opt", word_embed_proj_dim=32, ffn_dim=48)
    out = tmp_path / "adapter"
    left_out = save_adapter(factor(pair, rank=8), pair.aligned, out, 6, allow_partial=True)
    assert left_out == ("model.decoder.embed_positions.weight",)
    got, before = merged(pair.aligned, tmp_path / "adapter"), weights(pair.aligned)
    for name, expected in extrapolated(pair, 6, 1.0).items():
        assert_rounded(
            got[name], before[name].double() if name in left_out else expected, roundings=2
        )


def test_unchanged_matrices_are_left_out_and_returned(pair, tmp_path):
    tensors = weights(pair.aligned)
    tensors[UP] = weights(pair.base)[UP]
    aligned = shutil.copytree(pair.aligned, tmp_path / "aligned")
    save_file(tensors, aligned / "model.safetensors", metadata={"format": "pt"})
    subspace = SafetySubspace.from_pair(pair.base, aligned, rank=8)
    assert save_adapter(subspace, aligned, tmp_path / "adapter", 6) == (UP,)
    assert torch.equal(merged(aligned, tmp_path / "adapter")[UP], tensors[UP])


def test_an_adapter_that_would_hold_nothing_is_refused(make_pair, tmp_path):
    pair = make_pair(tie_word_embeddings=True)
    subspace = factor(pair, rank=8, include="embed_tokens")
    with pytest.raises(ValueError, match=r"model.embed_tokens.weight: tied, .* `lox apply`"):
        save_adapter(subspace, pair.aligned, tmp_path / "adapter", 6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_its_tensors_may_be_in_half_precision(pair, tmp_path, dtype):
    save_adapter(factor(pair, rank=8), pair.aligned, tmp_path / "a", 6, dtype=dtype)
    tensors = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert {W.dtype for W in tensors.values()} == {getattr(torch, dtype)}

    with pytest.raises(ValueError, match="dtype='int8': use one of float32, bfloat16"):
        save_adapter(factor(pair, rank=8), pair.aligned, tmp_path / "b", 6, dtype="int8")


@pytest.mark.parametrize("include", [None, "up_proj"])
def test_of_an_adapter_it_is_one_of_the_base_that_holds_both(pair, tmp_path, include):
    lora, lox = tmp_path / "lora", tmp_path / "lox"
    save_adapter(factor(pair, rank=3), pair.aligned, lora, 3)
    subspace = SafetySubspace.from_pair(pair.aligned, lora, rank=8, include=include)
    save_adapter(subspace, lora, lox, 8, 1.5)
    config = json.loads((lox / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(pair.aligned)
    assert config["r"] == 6  # three of its own, and of the extrapolation no more than there are
    got = merged(pair.aligned, lox)
    for name, W in weights(apply_lox(subspace, lora, tmp_path / "full", 8, 1.5)).items():
        torch.testing.assert_close(got[name], W, rtol=1e-5, atol=2e-6)


def test_no_direction_makes_no_adapter(pair, subspace, tmp_path):
    with pytest.raises(ValueError, match="k=0 keeps no direction"):
        save_adapter(subspace, pair.aligned, tmp_path / "adapter", 0)
    assert list(tmp_path.iterdir()) == []
