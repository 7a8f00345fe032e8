"""Names on disk are not names in memory: experts, prefixes, heads of two names, ties."""

import json
import shutil
from fnmatch import fnmatch
from importlib.metadata import version

import pytest
import torch
from checkpoints import TINY, UP, save_pair, weights
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from lox_kit import SafetySubspace, apply_lox, save_adapter
from lox_kit.landscape import Plane, Walk, between, lox_direction
from lox_kit.models import Model, load_module
from lox_kit.weights import (
    SINGLE,
    Checkpoint,
    check_pair,
    find_places,
    saved_places,
    values_of,
)

MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 8}
KINDS = {"qwen3_moe": MOE, "mixtral": {}, "gpt_oss": {"head_dim": 8}, "granitemoe": {}}
KINDS |= {"gpt_neox": {}, "gpt2": {"n_embd": 32, "n_layer": 2}}
KINDS |= {"hrm_text": {}}  # some of whose tensors are several parameters each
OLD = version("peft").startswith("0.19.")  # refuses adapters of these itself:
ADAPTED = [k for k in KINDS if k != "hrm_text" and not (OLD and k in ("qwen3_moe", "mixtral"))]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Pairs of some kinds, each made once."""
    folder = tmp_path_factory.mktemp("pairs")
    return {kind: save_pair(folder / kind, kind=kind, **KINDS[kind]) for kind in KINDS}


def rewrite(folder, to, rename):
    """Copy a checkpoint, its tensors under other names."""
    shutil.copytree(folder, to)
    tensors = {rename(n): W for n, W in load_file(folder / "model.safetensors").items()}
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    return to


@pytest.mark.parametrize("kind", KINDS)
def test_every_stored_tensor_is_found_in_the_loaded_model_with_its_values(pairs, kind):
    checkpoint = Checkpoint(pairs[kind].aligned)
    module = load_module(checkpoint)
    places, state = saved_places(module), module.state_dict()
    assert checkpoint.parts.keys() == places.keys()
    for name, place in find_places(module, checkpoint.parts).items():
        assert torch.equal(values_of(place, state), checkpoint.read_part(name))


@pytest.mark.parametrize("kind", ["qwen3_moe", "mixtral"])
def test_a_pair_in_two_layouts_has_one_lox(pairs, tmp_path, kind):
    pair, fused = pairs[kind], tmp_path / "fused"
    model = AutoModelForCausalLM.from_pretrained(pair.aligned)
    model.save_pretrained(fused, save_original_format=False)
    assert any(W.ndim == 3 for W in weights(fused).values())
    one = SafetySubspace.from_pair(pair.base, pair.aligned, rank=6)
    other = SafetySubspace.from_pair(pair.base, fused, rank=6)
    assert len(one) == len(other)
    for name in {*one} & {*other}:  # Mixtral's routers have two names
        assert torch.equal(one[name].top(4)[1], other[name].top(4)[1])
    apply_lox(one, pair.aligned, tmp_path / "one", 4)
    apply_lox(other, fused, tmp_path / "other", 4)
    first, second = (load_module(Checkpoint(tmp_path / n)).state_dict() for n in ("one", "other"))
    assert all(torch.equal(W, second[n]) for n, W in first.items())


@pytest.mark.parametrize(
    ("kind", "rename"),
    [
        ("qwen3_moe", lambda name: name.removeprefix("model.")),
        ("gpt_neox", lambda name: name.replace("embed_out", "lm_head")),
    ],
    ids=["no prefix", "the head's other name"],
)
def test_a_pair_that_differs_in_names_is_one_pair(pairs, tmp_path, kind, rename):
    pair, base = pairs[kind], rewrite(pairs[kind].base, tmp_path / "base", rename)
    as_named = SafetySubspace.from_pair(pair.base, pair.aligned, rank=4)
    renamed = SafetySubspace.from_pair(base, pair.aligned, rank=4)
    assert list(renamed) == list(as_named)
    assert all(torch.equal(renamed[n].top(4)[1], as_named[n].top(4)[1]) for n in as_named)
    assert len(between(base, pair.aligned).parts) == len(between(pair.base, pair.aligned).parts)


def test_what_one_side_stores_beside_its_weights_is_no_part_of_a_direction(pair, tmp_path):
    shutil.copytree(pair.aligned, tmp_path / "older")
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    save_file(weights(pair.aligned) | buffer, tmp_path / "older" / SINGLE, {"format": "pt"})
    plain, older = (between(pair.base, side) for side in (pair.aligned, tmp_path / "older"))
    assert older.parts.keys() == plain.parts.keys()


@pytest.mark.parametrize("kind", ["qwen3_moe", "mixtral"])
def test_a_plane_goes_through_a_model_whose_files_name_its_tensors_in_another_way(
    pairs, tmp_path, kind
):
    pair, aligned = pairs[kind], tmp_path / "aligned"
    if kind == "mixtral":  # as it is in memory
        AutoModelForCausalLM.from_pretrained(pair.aligned).save_pretrained(
            aligned, save_original_format=False
        )
    else:
        rewrite(pair.aligned, aligned, lambda name: name.removeprefix("model."))
    direction = lox_direction(SafetySubspace.from_pair(pair.base, aligned, rank=4), 3, 1.5)
    checkpoint = Checkpoint(aligned)
    model = Model(load_module(checkpoint), None, checkpoint.fingerprint, "aligned")
    planes = [Plane.through(origin, direction, pair.base) for origin in (model, aligned)]
    plain = SafetySubspace.from_pair(pair.base, pair.aligned, rank=4)
    planes.append(Plane.through(pair.aligned, lox_direction(plain, 3, 1.5), pair.base))
    for plane in planes:
        assert plane.scale == pytest.approx(planes[0].scale, rel=1e-5)
        assert set(plane.directions[0].parts) == set(planes[0].directions[0].parts)


@pytest.mark.parametrize("kind", ADAPTED)
def test_an_adapter_that_is_written_is_read_as_what_apply_writes(pairs, tmp_path, kind):
    pair, adapter = pairs[kind], tmp_path / "adapter"
    subspace = SafetySubspace.from_pair(pair.base, pair.aligned, rank=8)
    left_out = save_adapter(subspace, pair.aligned, adapter, 4, 1.5, allow_partial=True)
    edited = Checkpoint(apply_lox(subspace, pair.aligned, tmp_path / "lox", 4, 1.5))
    aligned, adapted = Checkpoint(pair.aligned), Checkpoint(f"{pair.aligned}+{adapter}")
    for name in aligned.parts:
        expected = (aligned if name in left_out else edited).read_part(name)
        torch.testing.assert_close(adapted.read_part(name), expected, rtol=1e-4, atol=1e-5)
    again = SafetySubspace.from_pair(pair.aligned, f"{pair.aligned}+{adapter}", rank=4)
    for name in set(again) - set(left_out):
        assert again[name].method == "lora"
        torch.testing.assert_close(again[name].S, 1.5 * subspace[name].top(4)[1], rtol=1e-3, atol=0)


@pytest.mark.parametrize("kind", [kind for kind in ("qwen3_moe", "gpt_oss") if kind in ADAPTED])
def test_an_adapter_of_experts_over_another_layout_is_the_same_model(pairs, tmp_path, kind):
    pair, fused = pairs[kind], tmp_path / "fused"
    AutoModelForCausalLM.from_pretrained(pair.aligned).save_pretrained(
        fused, save_original_format=False
    )
    subspace = SafetySubspace.from_pair(pair.base, pair.aligned, rank=4)
    save_adapter(subspace, pair.aligned, tmp_path / "adapter", 4, allow_partial=True)
    one, other = (
        load_module(Checkpoint(f"{base}+{tmp_path / 'adapter'}")).state_dict()
        for base in (pair.aligned, fused)
    )
    for name, W in one.items():
        torch.testing.assert_close(W, other[name])
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    save_file(dict(list(tensors.items())[1:]), tmp_path / "adapter" / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="PEFT does not take up all of its"):
        Checkpoint(f"{fused}+{tmp_path / 'adapter'}")


@pytest.mark.parametrize("kind", ["qwen3_moe", "gpt_oss", "gpt_neox", "hrm_text"])
def test_a_model_walks_to_where_another_checkpoint_is(pairs, tmp_path, kind):
    pair = pairs[kind]
    subspace = SafetySubspace.from_pair(pair.base, pair.aligned, rank=4)
    lox = apply_lox(subspace, pair.aligned, tmp_path / "lox", 3, 1.5)
    plane = Plane.through(pair.aligned, lox_direction(subspace, 3, 1.5), pair.base)
    module = load_module(Checkpoint(pair.aligned))
    model = Model(module, None, Checkpoint(pair.aligned).fingerprint, "aligned")
    start = {n: W.clone() for n, W in module.state_dict().items()}
    with Walk(model, plane) as walk:
        for point, folder in (("LoX", lox), ("attacked", pair.base)):
            walk.go(plane.points[point].at)
            there = load_module(Checkpoint(folder)).state_dict()
            for name, W in module.state_dict().items():
                if W.ndim > 1:
                    torch.testing.assert_close(W, there[name], rtol=1e-4, atol=1e-5)
    assert all(torch.equal(W, start[n]) for n, W in module.state_dict().items())


def test_what_is_no_matrix_is_not_factored_and_its_share_is_said(pair, tmp_path):
    more = {"gate_bias": (4, 6), "mixer.A_log": (8, 2), "none.weight": (0, 3), "s_scale": (2, 2)}
    sides = [tmp_path / "base", tmp_path / "aligned"]
    for source, to in zip((pair.base, pair.aligned), sides, strict=True):
        shutil.copytree(source, to)
        tensors = weights(source) | {name: torch.randn(shape) for name, shape in more.items()}
        save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    report = check_pair(*map(Checkpoint, sides))
    assert not set(report.matrices) & set(more)
    assert "4 tensors of more than one dimension are no matrices" in report.notes[-1]
    assert "% of the numbers, which are not factored" in report.notes[-1]


# --- ties ---------------------------------------------------------------------------------------

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
    """A pair that is tied by its class's default alone, of which the config says nothing."""
    folder = tmp_path_factory.mktemp("tied")
    pair = save_pair(folder, kind="gemma2", head_dim=8, tie_word_embeddings=True)
    for side in (pair.base, pair.aligned):
        config = json.loads((side / "config.json").read_text())
        config.pop("tie_word_embeddings", None)
        (side / "config.json").write_text(json.dumps(config))
    return pair


def with_head(folder, to, W=None):
    """Copy a checkpoint and store a head: a copy of the embedding, or other values."""
    shutil.copytree(folder, to)
    tensors = load_file(folder / "model.safetensors")
    tensors[HEAD] = tensors[EMBEDDING].clone() if W is None else W
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    return to


@pytest.mark.parametrize("copied", [("base",), ("aligned",), ("base", "aligned")])
def test_a_stored_copy_of_a_tied_head_is_edited_with_the_embedding(tied, tmp_path, copied):
    sides = {"base": tied.base, "aligned": tied.aligned}
    sides |= {side: with_head(sides[side], tmp_path / side) for side in copied}
    assert Checkpoint(sides["aligned"]).tied == EMBEDDING
    subspace = SafetySubspace.from_pair(*sides.values(), rank=4)
    assert HEAD not in subspace
    out = apply_lox(subspace, sides["aligned"], tmp_path / "lox", 3, 1.5)
    plain = SafetySubspace.from_pair(tied.base, tied.aligned, rank=4)
    expected = apply_lox(plain, tied.aligned, tmp_path / "plain", 3, 1.5)
    module = load_module(Checkpoint(out))
    assert module.lm_head.weight is module.model.embed_tokens.weight
    assert torch.equal(module.lm_head.weight, weights(expected)[EMBEDDING])


def test_a_head_of_other_values_is_a_matrix_of_its_own_as_it_is_in_memory(tied, tmp_path):
    sides = [
        with_head(s, tmp_path / s.name, torch.randn(40, 32)) for s in (tied.base, tied.aligned)
    ]
    assert Checkpoint(sides[1]).tied is None
    assert HEAD in SafetySubspace.from_pair(*sides, rank=4)
    module = load_module(Checkpoint(sides[1]))
    assert not torch.equal(module.lm_head.weight, module.model.embed_tokens.weight)
    subspace = SafetySubspace.from_pair(tied.base, sides[1], rank=40)
    delta = weights(sides[1])[HEAD] - weights(tied.base)[EMBEDDING]  # which is the base's head
    assert subspace.norms[list(subspace).index(HEAD)] == pytest.approx(
        float(delta.norm()), rel=1e-5
    )
    save_adapter(subspace, sides[1], tmp_path / "adapter", 4)


@pytest.mark.parametrize(
    ("kind", "lost"),
    [
        ("qwen3_moe", "model.layers.1.mlp.experts.3.up_proj.weight"),
        ("mixtral", "model.norm.weight"),
        ("gpt_oss", "model.layers.1.mlp.experts.down_proj"),
        ("gpt_neox", "gpt_neox.layers.0.attention.dense.bias"),
        ("gpt2", "transformer.h.1.ln_1.weight"),
        ("llama", "model.layers.1.*"),
        ("llama", "model.norm.weight"),
        ("llama", HEAD),
    ],
)
def test_what_neither_side_holds_of_the_config_s_model_is_missing(
    pairs, pair, tmp_path, kind, lost
):
    sides = [tmp_path / "base", tmp_path / "aligned"]
    pair = pairs.get(kind, pair)
    for source, to in zip((pair.base, pair.aligned), sides, strict=True):
        shutil.copytree(source, to)
        tensors = {n: W for n, W in load_file(to / SINGLE).items() if not fnmatch(n, lost)}
        assert tensors.keys() < weights(source).keys()
        save_file(tensors, to / SINGLE, metadata={"format": "pt"})
    assert Checkpoint(sides[1]).tied is None
    with pytest.raises(ValueError, match=r"aligned: its config.json describes .*, which is not"):
        SafetySubspace.from_pair(*sides)


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_whole_checkpoint_nothing_is_missing(pairs, kind):
    assert Checkpoint(pairs[kind].aligned).missing == []


def test_without_a_config_nothing_needs_transformers(pair, tmp_path):
    sides = [rewrite(s, tmp_path / s.name, str) for s in (pair.base, pair.aligned)]
    for side in sides:
        (side / "config.json").unlink()
    assert UP in SafetySubspace.from_pair(*sides, rank=2)


def test_the_models_here_are_what_their_configs_say():
    assert AutoConfig.for_model("gemma2").tie_word_embeddings
    assert not TINY["tie_word_embeddings"]
