"""A LoRA adapter in the place of a checkpoint, against PEFT and float64."""

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from checkpoints import TINY, UP, assert_rounded, save_tensors, top_part, weights
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from speakers import random_speaker, same_weights
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from lox_kit import (
    Checkpoint,
    LoxDial,
    SafetySubspace,
    apply_lox,
    check_pair,
    load_model,
    save_adapter,
)
from lox_kit.extrapolation.svd import METHODS, product_factors

Q = "model.layers.0.self_attn.q_proj.weight"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
PLAIN = {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "up_proj"]}
KINDS = {
    "plain": PLAIN,
    "rslora": {**PLAIN, "use_rslora": True},
    "patterns": {
        **PLAIN,
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.up_proj": 5},
        "alpha_pattern": {"model.layers.1.mlp.up_proj": 7},
    },
    "embeddings": {**PLAIN, "target_modules": ["q_proj", "embed_tokens", "lm_head"]},
    "more-directions-than-the-matrix": {**PLAIN, "r": 40},
}
NAN, INF = float("nan"), float("inf")
WHOLE = {**PLAIN, "modules_to_save": ["lm_head", "norm"]}


def make_adapter(base, folder, **options):
    """Write a PEFT adapter with random factors and return its folder."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    with warnings.catch_warnings(action="ignore"), torch.random.fork_rng():
        torch.manual_seed(1)
        peft = get_peft_model(model, LoraConfig(**options))
        with torch.no_grad():
            for name, W in peft.named_parameters():
                if "lora_" in name or "modules_to_save" in name:
                    W.add_(0.2 * torch.randn_like(W))
        peft.save_pretrained(folder)
    return folder


def merged(base, adapter, dtype="auto"):
    """Return the tensors that PEFT makes of base and adapter."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    with warnings.catch_warnings(action="ignore"):
        return PeftModel.from_pretrained(model, adapter).merge_and_unload().state_dict()


def oracle(base, adapter):
    """Return every weight with the adapter, in float64, and its delta."""
    exact, before = merged(base, adapter, torch.float64), weights(base)
    return exact, {n: (exact[n] - W.double()).numpy() for n, W in before.items() if W.ndim == 2}


@pytest.fixture(scope="session")
def adapters(pair, tmp_path_factory):
    """Adapters of the base of `pair`, by kind."""
    folder, kinds = tmp_path_factory.mktemp("adapters"), {**KINDS, "whole": WHOLE}
    return {kind: make_adapter(pair.base, folder / kind, **kinds[kind]) for kind in kinds}


@pytest.fixture
def adapter(adapters, tmp_path):
    """A copy of the plain adapter, to be changed."""
    return shutil.copytree(adapters["plain"], tmp_path / "adapter")


def edit_config(adapter, **fields):
    """Change fields of an adapter's config."""
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


# --- the tensors --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*KINDS, "whole"])
def test_every_tensor_is_that_of_peft(pair, adapters, kind):
    checkpoint = Checkpoint(adapters[kind])
    exact, _ = oracle(pair.base, adapters[kind])
    theirs, before = merged(pair.base, adapters[kind]), weights(pair.base)
    assert checkpoint.tensors.keys() == before.keys()
    for name in before:
        W = checkpoint.read(name)
        assert_rounded(W, exact[name])
        torch.testing.assert_close(W, theirs[name])
        assert torch.equal(W, before[name]) == (name not in checkpoint.adapted)


def test_the_sum_is_rounded_once(make_pair, tmp_path):
    base = make_pair(dtype=torch.bfloat16).base
    adapter = make_adapter(base, tmp_path / "adapter", **PLAIN)
    W = Checkpoint(adapter).read(Q)
    assert W.dtype == torch.bfloat16
    assert_rounded(W, oracle(base, adapter)[0][Q])
    assert not torch.equal(W, weights(base)[Q])


# --- the factors --------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [2, 8, "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_factors_are_those_of_the_dense_delta(pair, adapters, kind, rank):
    found = SafetySubspace.from_pair(pair.base, adapters[kind], rank=rank)
    _, deltas = oracle(pair.base, adapters[kind])
    assert set(found) == set(deltas)
    for name, dW in deltas.items():
        f, k = found[name], None if rank == "full" else rank
        assert f.method == "lora"
        assert f.certified == f.rank == min(k or 100, *dW.shape)
        assert f.norm == pytest.approx(np.linalg.norm(dW), rel=1e-6)
        S = np.linalg.svd(dW, compute_uv=False)[:k]
        np.testing.assert_allclose(found.spectrum(name), S, atol=2e-6 * max(S[0], 1))
        U, S, Vh = (x.double().numpy() for x in found[name].top(k))
        np.testing.assert_allclose((U * S) @ Vh, top_part(dW, k), atol=3e-6)
        for vectors in (U.T, Vh):  # those behind the rank of the adapter, too
            np.testing.assert_allclose(vectors @ vectors.T, np.eye(f.rank), atol=3e-6)


def test_no_weight_of_the_checkpoints_is_read(pair, adapters, tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoint, "read", None)
    found = SafetySubspace.from_pair(pair.base, adapters["patterns"], tmp_path / "S.safetensors")
    assert (found.norms > 0).sum() == 4
    again = SafetySubspace.load(tmp_path / "S.safetensors")
    assert {again[name].method for name in again} == {"lora"}


class Sizes(TorchDispatchMode):
    """Note the size of the largest tensor that is made."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for made in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(made, torch.Tensor):
                self.largest = max(self.largest, made.numel())
        return out


def test_the_dense_delta_is_never_formed():
    with Sizes() as sizes:
        left, right = torch.randn(400, 5), torch.randn(5, 300)
        found = product_factors(left, right, 8)
        product_factors(torch.zeros(400, 0), torch.zeros(0, 300), 8)
    assert sizes.largest <= 400 * 8  # of the 400 x 300 of the matrix
    dW = left.double() @ right.double()
    torch.testing.assert_close((found.U * found.S) @ found.Vh, dW.float())
    assert found.norm == pytest.approx(float(dW.norm()), rel=1e-12)
    assert found.residual.max() < 1e-6


def test_a_product_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="the delta holds NaN or infinite values"):
        product_factors(torch.full((4, 1), NAN), torch.ones(1, 3), 1)


def test_a_file_keeps_which_method_it_was():
    assert METHODS == ("krylov", "svd", "lora")  # by number in files: append only


def test_a_matrix_that_is_stored_whole_is_factored_as_one(pair, adapters, tmp_path):
    found = SafetySubspace.from_pair(pair.base, adapters["whole"], rank="full")
    _, deltas = oracle(pair.base, adapters["whole"])
    assert {n for n in found if found[n].method == "svd"} == {HEAD}
    for name in (HEAD, UP):
        U, S, Vh = (x.double().numpy() for x in found[name].top(None))
        np.testing.assert_allclose((U * S) @ Vh, deltas[name], atol=3e-6)
    with pytest.raises(ValueError, match=r"is an adapter that holds lm_head.weight whole"):
        save_adapter(found, adapters["whole"], tmp_path / "lox", 3)


def test_over_another_base_the_delta_is_that_of_the_merged_weights(pair, adapters):
    found = SafetySubspace.from_pair(pair.aligned, adapters["plain"], rank="full")
    exact, _ = oracle(pair.base, adapters["plain"])
    assert {found[name].method for name in found} == {"svd"}
    dW = (exact[UP] - weights(pair.aligned)[UP].double()).numpy()
    U, S, Vh = (x.double().numpy() for x in found[UP].top(None))
    np.testing.assert_allclose((U * S) @ Vh, dW, atol=3e-6)


def test_an_adapter_that_was_never_trained_is_no_alignment(pair, adapter):
    file = adapter / "adapter_model.safetensors"
    tensors = {n: W * ("lora_B" not in n) for n, W in load_file(file).items()}
    save_file(tensors, file)
    with pytest.raises(ValueError, match="the delta is zero in every matrix"):
        SafetySubspace.from_pair(pair.base, adapter)


# --- what is done with it -----------------------------------------------------------------------


def test_lox_edits_the_merged_checkpoint(pair, adapters, tmp_path):
    subspace = SafetySubspace.from_pair(pair.base, adapters["plain"], rank=4)
    same = apply_lox(subspace, adapters["plain"], tmp_path / "merged", k=0)
    lox = apply_lox(subspace, adapters["plain"], tmp_path / "lox", k=2, alpha=1.25)
    exact, deltas = oracle(pair.base, adapters["plain"])
    for name, W in weights(lox).items():
        assert_rounded(weights(same)[name], exact[name])
        push = torch.from_numpy(top_part(deltas[name], 2)) if W.ndim == 2 else 0.0
        assert_rounded(W, exact[name] + 1.25 * push, roundings=2)
    full = AutoModelForCausalLM.from_pretrained(same).state_dict()
    assert all(torch.equal(full[n], W) for n, W in weights(same).items())
    assert not (same / "adapter_config.json").exists()


@pytest.fixture
def speaker(tmp_path):
    """A base with a tokenizer, an adapter of it, and the subspace of the two."""
    model, base = random_speaker(), tmp_path / "base"
    model.module.save_pretrained(base)
    model.tokenizer.save_pretrained(base)
    adapter = make_adapter(base, tmp_path / "adapter", **PLAIN)
    return base, adapter, SafetySubspace.from_pair(base, adapter, rank=4)


def test_the_loaded_model_has_the_weights_that_are_written(speaker, tmp_path):
    base, adapter, subspace = speaker
    written = apply_lox(subspace, adapter, tmp_path / "merged", k=0)
    model = load_model(f"{base}+{adapter}", device="cpu")
    assert model.key == Checkpoint(adapter).fingerprint
    assert same_weights(model.module, written)
    dial = LoxDial(model, subspace)
    dial.set(k=2, alpha=1.25)
    extrapolated = apply_lox(subspace, adapter, tmp_path / "lox", 2, 1.25)
    assert same_weights(model.module, extrapolated)
    dial.off()
    assert same_weights(model.module, written)


def test_a_tokenizer_that_was_saved_with_the_adapter_is_its_own(speaker, tmp_path):
    base, adapter, _ = speaker
    assert load_model(adapter, device="cpu").tokenizer.chat_template is not None
    before = Checkpoint(adapter).fingerprint
    tokenizer = random_speaker().tokenizer
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(adapter)
    assert Checkpoint(adapter).fingerprint != before
    assert load_model(adapter, device="cpu").tokenizer.chat_template == tokenizer.chat_template
    subspace = SafetySubspace.from_pair(base, adapter, rank=4)
    out = apply_lox(subspace, adapter, tmp_path / "merged", k=0)
    assert load_model(out, device="cpu").tokenizer.chat_template == tokenizer.chat_template


def test_the_pair_is_told_apart_from_a_merged_one(pair, adapters):
    base, aligned = Checkpoint(pair.base), Checkpoint(adapters["plain"])
    (note,) = check_pair(base, aligned).notes
    assert "is a LoRA adapter of" in note
    assert "is zero in 12 of 16 matrices" in note
    (note,) = check_pair(Checkpoint(pair.aligned), aligned).notes
    assert "the delta is that of the merged weights" in note
    with pytest.raises(ValueError, match="hold the same weights"):
        check_pair(aligned, Checkpoint(f"{pair.base}+{adapters['plain']}"))


# --- names and content --------------------------------------------------------------------------


def test_base_plus_adapter_overrules_the_base_in_the_config(pair, adapter):
    edit_config(adapter, base_model_name_or_path="gone/from-here")
    for name in (f"{pair.base}+{adapter}", f"{pair.base} + {adapter}"):
        checkpoint = Checkpoint(name)
        assert checkpoint.name == name
        assert checkpoint.base.path == pair.base
    with pytest.raises(
        FileNotFoundError, match=r"adapter: gone/from-here: no such .* BASE\+ADAPTER"
    ):
        Checkpoint(adapter)


def test_a_folder_of_that_very_name_comes_first(pair, adapter, tmp_path):
    both = tmp_path / "base+adapter"
    shutil.copytree(pair.aligned, both)
    assert Checkpoint(both).adapter is None
    assert Checkpoint(f"{both}+{adapter}").base.path == both  # the last + is the one meant
    adapter = shutil.copytree(adapter, both / "one+two")
    assert Checkpoint(adapter).base.path == pair.base


def test_a_revision_in_the_config_is_asked_of_the_hub(adapter):
    edit_config(adapter, base_model_name_or_path="school/base", revision="v2")
    with pytest.raises(FileNotFoundError, match="school/base@v2: no such folder"):
        Checkpoint(adapter)


def test_the_fingerprint_is_of_the_content_of_base_and_adapter(pair, adapter, tmp_path):
    first = Checkpoint(adapter).fingerprint
    moved = shutil.copytree(adapter, tmp_path / "moved")
    assert Checkpoint(f"{pair.base}+{moved}").fingerprint == first
    seen = {first, Checkpoint(pair.base).fingerprint}
    seen.add(Checkpoint(f"{pair.aligned}+{adapter}").fingerprint)
    edit_config(moved, lora_alpha=6)
    seen.add(Checkpoint(moved).fingerprint)
    data = bytearray((adapter / "adapter_model.safetensors").read_bytes())
    data[-1] ^= 1
    (adapter / "adapter_model.safetensors").write_bytes(data)
    seen.add(Checkpoint(adapter).fingerprint)
    assert len(seen) == 5


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peft_type": "VERA"}, "peft_type='VERA' is not plain LoRA"),
        ({"use_dora": True}, "use_dora=True is not plain LoRA.*Merge it with PEFT"),
        ({"bias": "all"}, "bias='all' is not plain LoRA"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"target_parameters": ["mlp.down_proj.weight"]}, "PEFT does not take up all of its 8"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
        ({"alora_invocation_tokens": [1]}, r"alora_invocation_tokens=\[1\]"),
        ({"arrow_config": {"top_k": 2}}, "arrow_config="),
        ({"lora_bias": True}, "lora_bias=True"),
        ({"r": 4}, r"are not factors of rank 4"),
        ({"base_model_name_or_path": None}, r"names no base; give BASE\+"),
        ({"lora_alpha": None}, "adapter_config.json: .*has no number 'lora_alpha'"),
        ({"lora_alpha": NAN}, "has no number 'lora_alpha': nan"),
        ({"lora_alpha": INF}, "has no number 'lora_alpha': inf"),
        ({"lora_alpha": True}, "has no number 'lora_alpha': True"),
        ({"alpha_pattern": {"q_proj": -INF}}, "has no number 'lora_alpha': -inf"),
        ({"r": 0}, "has no number 'r': 0"),
        ({"rank_pattern": {"q_proj": "3"}}, "has no number 'r': '3'"),
        ({"rank_pattern": ["q_proj"]}, "adapter_config.json: .*rank_pattern is not an object"),
        ({"rank_pattern": {"(q|v)_proj": 3}}, r"json: rank_pattern has '.*; up to 1000 names of"),
        ({"alpha_pattern": {r".*\.q_proj": 3}}, r"alpha_pattern has '\.\*.*Merge it with PEFT"),
    ],
)
def test_a_config_that_cannot_be_followed_is_refused(adapter, fields, message):
    edit_config(adapter, **fields)
    with pytest.raises(ValueError, match=message):
        Checkpoint(adapter)


def test_a_tied_matrix_is_refused(make_pair, tmp_path):
    base = make_pair(tie_word_embeddings=True).base
    for target, name in (("embed_tokens", EMBEDDING), ("lm_head", HEAD)):
        options = {**PLAIN, "target_modules": ["q_proj", target]}
        folder = make_adapter(base, tmp_path / target, **options)
        with pytest.raises(ValueError, match=rf"changes {name}, and in .* the embedding is tied"):
            Checkpoint(folder)
    untied = weights(base) | {HEAD: weights(base)[EMBEDDING].clone()}
    config = json.loads((base / "config.json").read_text()) | {"tie_word_embeddings": False}
    other = save_tensors(tmp_path / "untied", untied, config)
    assert HEAD in Checkpoint(f"{other}+{folder}").adapted
    assert Checkpoint(make_adapter(base, tmp_path / "plain", **PLAIN)).adapted >= {Q, UP}


@pytest.mark.parametrize(
    ("kind", "config", "target", "stored"),
    [
        ("gpt2", {"n_embd": 32, "n_layer": 2}, "c_attn", "transformer.h.1.attn.c_attn.weight"),
        (
            "gpt_bigcode",
            {"n_embd": 32, "n_layer": 2},
            "c_proj",
            "transformer.h.1.mlp.c_proj.weight",
        ),
        ("gpt_neox", {}, "lm_head", "embed_out.weight"),
    ],
)
def test_tensors_that_are_stored_in_another_way_than_they_are_in_memory_are_peft_s(
    make_pair, tmp_path, kind, config, target, stored
):
    base = make_pair(kind=kind, **config).base
    folder = make_adapter(base, tmp_path / "adapter", r=2, target_modules=[target])
    checkpoint, in_memory = Checkpoint(folder), merged(base, folder, torch.float64)
    assert stored in checkpoint.adapted
    found, before = checkpoint.read(stored).double(), weights(base)[stored]
    torch.testing.assert_close(found, in_memory.get(stored, in_memory.get("lm_head.weight")))
    assert not torch.equal(found, before.double())


def test_another_base_than_its_own_is_refused(pair, adapter, tmp_path):
    LlamaForCausalLM(LlamaConfig(**{**TINY, "hidden_size": 16})).save_pretrained(tmp_path / "a")
    with pytest.raises(ValueError, match=r"as \(48, 32\); in .* it is \(48, 16\)"):
        Checkpoint(f"{tmp_path / 'a'}+{adapter}")
    tensors = {n: W for n, W in weights(pair.base).items() if n != UP}
    with pytest.raises(ValueError, match=f"changes {UP}, which .* does not have"):
        Checkpoint(f"{save_tensors(tmp_path / 'b', tensors)}+{adapter}")
    tensors = weights(pair.base) | {UP: torch.zeros(48, 32, dtype=torch.uint8)}
    with pytest.raises(ValueError, match=rf"quantised \(integer codes; the first is {UP}\)"):
        Checkpoint(f"{save_tensors(tmp_path / 'c', tensors)}+{adapter}")


def test_a_damaged_folder_is_named(pair, adapter, tmp_path):
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({n: W for n, W in tensors.items() if "lora_A" not in n}, file)
    with pytest.raises(ValueError, match=r"lora_A \(\) and lora_B .* are not factors of rank 3"):
        Checkpoint(adapter)
    file.rename(adapter / "adapter_model.bin")
    with pytest.raises(ValueError, match=r"adapter_model.bin: a pickle"):
        Checkpoint(adapter)
    (adapter / "adapter_model.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"but no adapter_model.safetensors"):
        Checkpoint(adapter)
    shutil.copy(pair.base / "model.safetensors", adapter)
    with pytest.raises(ValueError, match="holds a full checkpoint and an adapter"):
        Checkpoint(adapter)
    with pytest.raises(FileNotFoundError, match=r"read as BASE\+ADAPTER there is no adapter_conf"):
        Checkpoint(f"{pair.base}+{tmp_path / 'nowhere'}")
    with pytest.raises(FileNotFoundError, match=r"read as BASE\+ADAPTER; school/none: no such"):
        Checkpoint(f"{pair.base}+school/none")


def test_tensors_of_a_variant_to_come_are_refused(adapter):
    file = adapter / "adapter_model.safetensors"
    new = {f"base_model.model.{UP.removesuffix('weight')}lora_new.weight": torch.ones(3)}
    save_file(load_file(file) | new, file)
    with pytest.raises(ValueError, match=r"changes .*lora_new.weight, which .* does not have"):
        Checkpoint(adapter)
