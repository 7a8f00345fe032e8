"""What a direction says: its tokens, against float64, and how peaked they are against chance."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from checkpoints import Pair, factor, weights
from safetensors.torch import save_file

from lox_kit import SafetySubspace, direction_tokens
from lox_kit.extrapolation.svd import Factors

TOKENIZER = SimpleNamespace(decode=lambda ids: "" if ids == [7] else f"t {ids[0]}\n")
LAYER = "model.layers.1."
EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture(scope="module", params=[False, True], ids=["head", "tied"])
def read(request, make_pair, tmp_path_factory):
    """The tensors of an aligned model whose norms are not all ones, and the pair's subspace."""
    pair = make_pair(tie_word_embeddings=request.param)
    aligned = shutil.copytree(pair.aligned, tmp_path_factory.mktemp("normed") / "aligned")
    generator, tensors = torch.Generator().manual_seed(0), weights(aligned)
    for name, W in tensors.items():
        if W.ndim == 1:
            tensors[name] = torch.rand(W.shape, generator=generator) + 0.5
    save_file(tensors, aligned / "model.safetensors", metadata={"format": "pt"})
    return tensors, factor(Pair(pair.base, aligned), rank="full")


@pytest.mark.parametrize(
    ("matrix", "norm"),
    [
        ("self_attn.q_proj", LAYER + "input_layernorm"),
        ("self_attn.v_proj", LAYER + "input_layernorm"),
        ("mlp.up_proj", LAYER + "post_attention_layernorm"),
        ("self_attn.o_proj", "model.norm"),
        ("mlp.down_proj", "model.norm"),
    ],
)
def test_scores_are_those_of_float64_through_norm_and_embedding(read, matrix, norm):
    tensors, subspace = read
    name, writes = f"{LAYER}{matrix}.weight", norm == "model.norm"
    table = "lm_head.weight" if writes and "lm_head.weight" in tensors else EMBEDDING
    E, g = (tensors[n].double().numpy() for n in (table, f"{norm}.weight"))
    found = direction_tokens(subspace, name, TOKENIZER, directions=2, top=3)
    assert list(found["direction"]) == [1, 1, 2, 2]
    for i in range(2):
        U, S, Vh = (x.double().numpy() for x in subspace[name].top(2))
        scores = E @ (g * (U[:, i] if writes else Vh[i]))
        z = (scores - scores.mean()) / scores.std(ddof=1)
        ends = found[found["direction"] == i + 1]
        np.testing.assert_allclose(ends["peak"], [z.max(), -z.min()], rtol=1e-4)
        np.testing.assert_allclose(ends["s"], S[i], rtol=1e-6)
        order = np.argsort(-z)
        for tokens, ids in zip(ends["tokens"], (order[:3], order[::-1][:3]), strict=True):
            assert tokens == ["#7" if t == 7 else repr(f"t {t}\n") for t in ids]


def test_a_direction_of_the_embedding_has_an_entry_for_each_token(read):
    _, subspace = read
    U = subspace[EMBEDDING].U[:, 0].double().numpy()
    up, down = direction_tokens(subspace, EMBEDDING, TOKENIZER, directions=1, top=40)["tokens"]
    order = [repr(f"t {t}\n") if t != 7 else "#7" for t in np.argsort(-U)]
    assert (up, down) == (order, order[::-1])


def test_a_direction_that_writes_one_token_is_more_peaked_than_chance_at_that_end(read):
    tensors, subspace = read
    E = tensors.get("lm_head.weight", tensors[EMBEDDING]) * tensors["model.norm.weight"]
    name = f"{LAYER}mlp.down_proj.weight"
    one, u = torch.ones(1), torch.linalg.pinv(E)[:, 5:6]
    planted = Factors(U=u, S=one, Vh=torch.ones(1, 48), residual=one, norm=1.0, method="svd")
    ends = direction_tokens(
        SafetySubspace(subspace.info, factors={**subspace, name: planted}), name, TOKENIZER
    )
    assert len(ends) == 2
    assert ends["tokens"][0][0] == repr("t 5\n")
    assert ends["peak"][0] > ends["chance"][0] > ends["peak"][1]


def test_what_is_not_known_to_read_or_write_is_refused(make_pair):
    pair = make_pair(kind="gpt_neox", num_key_value_heads=None)
    subspace = factor(pair, rank=4)
    name = next(n for n in subspace if n.endswith("query_key_value.weight"))
    with pytest.raises(ValueError, match=rf"{name}: which tokens it reads or writes is known of"):
        direction_tokens(subspace, name, TOKENIZER)
    gemma = make_pair(kind="gemma2", head_dim=8)
    subspace = factor(gemma, rank=4)
    name = next(n for n in subspace if n.endswith("up_proj.weight"))
    with pytest.raises(ValueError, match="are not where Llama has them"):
        direction_tokens(subspace, name, TOKENIZER)
