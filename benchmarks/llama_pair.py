"""A Llama-shaped pair of checkpoints whose delta has a known kind of spectrum.

    W_base    ~ N(0, 0.02), in bfloat16
    W_aligned = bfloat16(W_base + P + N)

P is low-rank with singular values `TOP * edge * i^-DECAY`, i = 1 .. `PLANTED`, and N is i.i.d.
noise with standard deviation `NOISE`, whose largest singular value is `edge`: a few strong
directions, a power-law tail that sinks into the noise, and a bulk. Rounding to bfloat16 adds a
bulk of its own, of about the same size.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from lox_kit.weights import INDEX, write_tensors

SHARD = 200_000_000  # bytes of weights after which a new shard begins
TOP, DECAY, PLANTED, NOISE = 20.0, 0.7, 256, 5e-5
SPECTRUM = (
    f"planted s_i = {TOP:g} * edge * i^-{DECAY:g} (rank {PLANTED}) + i.i.d. noise of {NOISE:g}, "
    "edge = the noise's largest singular value, then rounded to bfloat16"
)
Shapes = dict[str, tuple[int, ...]]


def llama_config(hidden: int, layers: int) -> dict:
    """Return the config: at hidden size 2048 the shapes are those of TinyLlama-1.1B."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": hidden * 11 // 4,
        "num_hidden_layers": layers,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "vocab_size": 32000 if hidden >= 1024 else 4000,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }


def llama_shapes(config: dict) -> Shapes:
    """Return name and shape of every tensor, in file order."""
    h, mlp, vocabulary = (config[f"{n}_size"] for n in ("hidden", "intermediate", "vocab"))
    kv = h * config["num_key_value_heads"] // config["num_attention_heads"]
    parts = {
        "self_attn.q_proj": (h, h),
        "self_attn.k_proj": (kv, h),
        "self_attn.v_proj": (kv, h),
        "self_attn.o_proj": (h, h),
        "mlp.gate_proj": (mlp, h),
        "mlp.up_proj": (mlp, h),
        "mlp.down_proj": (h, mlp),
        "input_layernorm": (h,),
        "post_attention_layernorm": (h,),
    }
    shapes: Shapes = {"model.embed_tokens.weight": (vocabulary, h)}
    for i in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{i}.{part}.weight": shape for part, shape in parts.items()}
    return shapes | {"model.norm.weight": (h,), "lm_head.weight": (vocabulary, h)}


def make_pair(
    folder: Path, hidden: int, layers: int, seed: int = 0, **fields: int
) -> tuple[Path, Path]:
    """Write `folder/base` and `folder/aligned`, shard by shard, and return them.

    `fields` stand in the config in place of `llama_config`'s.
    """
    pair = folder / "base", folder / "aligned"
    config = llama_config(hidden, layers) | fields
    shards = _shards(llama_shapes(config))
    generator = torch.Generator().manual_seed(seed)
    for number, shapes in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        layout = {name: (torch.bfloat16, shape) for name, shape in shapes.items()}
        both = zip(*_weights(shapes, generator), strict=True)
        for path, tensors in zip(pair, both, strict=True):
            write_tensors(path / file, layout, {}, tensors)
    for path in pair:
        (path / "config.json").write_text(json.dumps(config, indent=1))
        (path / INDEX).write_text(json.dumps(_index(shards)))
    return pair


def _weights(shapes: Shapes, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield base and aligned weights; norm weights are 1 on both sides."""
    for shape in shapes.values():
        if len(shape) == 1:
            ones = torch.ones(shape, dtype=torch.bfloat16)
            yield ones, ones
            continue
        W_base = (0.02 * torch.randn(shape, generator=generator)).to(torch.bfloat16)
        dW = torch.randn(shape, generator=generator).mul_(NOISE)
        U, S, Vh = _planted(shape, generator)
        yield W_base, dW.addmm_(U * S, Vh).add_(W_base).to(torch.bfloat16)


def _planted(shape: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return random orthonormal directions and their power-law singular values."""
    out, into = shape
    rank = min(PLANTED, out, into)
    U, V = (torch.linalg.qr(torch.randn(n, rank, generator=generator)).Q for n in (out, into))
    edge = NOISE * (out**0.5 + into**0.5)
    return U, TOP * edge * torch.arange(1, rank + 1) ** -DECAY, V.T


def _shards(shapes: Shapes) -> list[Shapes]:
    """Cut the tensors, in order, into shards of about `SHARD` bytes."""
    shards: list[Shapes] = [{}]
    room = SHARD
    for name, shape in shapes.items():
        if room <= 0:
            shards.append({})
            room = SHARD
        shards[-1][name] = shape
        room -= 2 * torch.Size(shape).numel()
    return shards


def _index(shards: list[Shapes]) -> dict:
    """Return the index that says which shard holds a tensor."""
    files = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    pairs = zip(files, shards, strict=True)
    return {"metadata": {}, "weight_map": {name: file for file, s in pairs for name in s}}
