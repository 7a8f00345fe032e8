"""Architectures as transformers has them, each as a tiny random pair of checkpoints."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from checkpoints import TINY as LLAMA
from safetensors.torch import load_file, save_file
from speakers import other_tokenizer
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

TINY = {
    **LLAMA,
    **{"vocab_size": 72, "num_key_value_heads": 2, "max_position_embeddings": 128},
    **{"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 1},
}
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
VISION |= {"num_attention_heads": 4, "image_size": 28, "patch_size": 14}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
ROUTED |= {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}
LATENT |= {"v_head_dim": 8, "num_key_value_heads": 4}
HEADS = {"num_key_value_heads": None}
SMALL = {"head_dim": 8}
MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One model of transformers: its type, what its config has beside TINY, its kind."""

    kind: str
    options: dict
    family: str  # dense, MoE, SSM, hybrid, multimodal, FP8
    eight: str = ""  # how it is quantised to 8 bits: block, channel, tensor
    fused: bool = False  # saved as it is in memory, not as it is published

    def config(self):
        """Return the tiny config."""
        if self.family != "multimodal":
            return AutoConfig.for_model(self.kind, **{**TINY, **self.options})
        text = {**TINY, **self.options.get("text_config", {})}
        vision = {**VISION, **self.options.get("vision_config", {})}
        others = {
            k: v for k, v in self.options.items() if k not in ("text_config", "vision_config")
        }
        return AutoConfig.for_model(self.kind, text_config=text, vision_config=vision, **others)

    @property
    def auto(self):
        """The class of transformers that makes it."""
        return AutoModelForImageTextToText if self.family == "multimodal" else AutoModelForCausalLM


def _of(family: str, **kinds: dict) -> dict[str, Architecture]:
    return {name: Architecture(name, options, family) for name, options in kinds.items()}


ZOO: dict[str, Architecture] = {
    **_of(
        "dense",
        llama={},
        mistral={},
        qwen2={"tie_word_embeddings": True},
        qwen3=SMALL,
        gemma={**SMALL, "tie_word_embeddings": True},
        gemma2={**SMALL, "tie_word_embeddings": True},
        gemma3_text={**SMALL, "tie_word_embeddings": True},
        phi=HEADS,
        phi3={},
        gpt2={"n_embd": 32, "n_layer": 2, "n_head": 4, "tie_word_embeddings": True},
        gpt_neo={"num_layers": 2, "num_heads": 4, "attention_types": [[["global"], 2]]},
        gpt_neox=HEADS,
        gptj={"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4},
        gpt_bigcode={"n_embd": 32, "n_layer": 2, "n_head": 4, "tie_word_embeddings": True},
        opt={"word_embed_proj_dim": 32, "ffn_dim": 48, "tie_word_embeddings": True},
        bloom={"n_layer": 2, "n_head": 4, "tie_word_embeddings": True},
        falcon={"tie_word_embeddings": True},
        mpt={"d_model": 32, "n_layers": 2, "n_heads": 4, "tie_word_embeddings": True},
        stablelm={},
        starcoder2={},
        olmo={},
        olmo2={},
        cohere={"tie_word_embeddings": True},
        granite={},
        smollm3={},
        glm=SMALL,
        glm4=SMALL,
        ernie4_5=SMALL,
        helium=SMALL,
        nemotron={},
        persimmon=HEADS,
        seed_oss=SMALL,
        exaone4={},
    ),
    **_of(
        "MoE",
        mixtral=LOCAL,
        qwen2_moe={**EXPERTS, "shared_expert_intermediate_size": 24, "decoder_sparse_step": 1},
        qwen3_moe={**EXPERTS, **SMALL},
        olmoe={"num_experts": 4, "num_experts_per_tok": 2},
        deepseek_v2={**ROUTED, **LATENT, "topk_method": "greedy"},
        deepseek_v3={**ROUTED, **LATENT},
        glm4_moe={**ROUTED, **SMALL},
        dots1={**ROUTED, **SMALL, "n_shared_experts": 1},
        gpt_oss={**LOCAL, **SMALL},
        llama4_text={"num_local_experts": 4, "intermediate_size_mlp": 48},
        granitemoe=LOCAL,
        granitemoeshared={**LOCAL, "shared_intermediate_size": 24},
        phimoe={**LOCAL, "sliding_window": None},
        ernie4_5_moe={"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 24},
    ),
    "qwen3_moe, fused": Architecture("qwen3_moe", {**EXPERTS, **SMALL}, "MoE", fused=True),
    "mixtral, fused": Architecture("mixtral", LOCAL, "MoE", fused=True),
    **_of(
        "SSM",
        mamba={"state_size": 8, "tie_word_embeddings": True},
        mamba2={"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 1},
        falcon_mamba={"state_size": 8},
    ),
    **_of(
        "hybrid",
        jamba={**LOCAL, "num_experts": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
        bamba={
            "mamba_n_heads": 8,
            "mamba_d_head": 8,
            "mamba_d_state": 8,
            "attn_layer_indices": [1],
        },
        recurrent_gemma={
            **{"lru_width": 32, "attention_window_size": 16, "head_dim": 8},
            **{"num_hidden_layers": 3, "tie_word_embeddings": True},
        },
        lfm2={"layer_types": ["conv", "full_attention"]},
        granitemoehybrid={
            **{**LOCAL, "shared_intermediate_size": 24, "layer_types": ["mamba", "attention"]},
            **MAMBA2,
        },
    ),
    **_of(
        "multimodal",
        gemma3={
            "text_config": {**SMALL, "model_type": "gemma3_text", "tie_word_embeddings": True},
            "vision_config": {"model_type": "siglip_vision_model"},
            **{"mm_tokens_per_image": 4, "boi_token_index": 68, "eoi_token_index": 69},
            "image_token_index": 70,
        },
        llava={
            "text_config": {"model_type": "llama"},
            "vision_config": {"model_type": "clip_vision_model", "projection_dim": 32},
            **{"vision_feature_layer": -1, "image_token_index": 70},
        },
        mistral3={
            "text_config": {**SMALL, "model_type": "mistral"},
            "vision_config": {**SMALL, "model_type": "pixtral"},
            **{"vision_feature_layer": -1, "image_token_index": 70, "spatial_merge_size": 2},
        },
        qwen2_vl={
            "text_config": {
                "model_type": "qwen2_vl_text",
                "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]},
            },
            "vision_config": {"depth": 1, "embed_dim": 32, "num_heads": 4, "mlp_ratio": 2},
            **{"image_token_id": 70, "video_token_id": 69},
        },
    ),
    "llama, FP8 in blocks": Architecture("llama", {"hidden_size": 64}, "FP8", "block"),
    "llama, FP8 by channel": Architecture("llama", {"hidden_size": 64}, "FP8", "channel"),
    "qwen3_moe, FP8": Architecture("qwen3_moe", {**EXPERTS, **SMALL}, "FP8", "block"),
}
QUICK = (
    *("llama", "gemma2", "gpt2", "gpt_neox", "qwen3_moe", "mixtral, fused", "gpt_oss"),
    *("granitemoe", "mamba", "jamba", "gemma3", "llama, FP8 in blocks"),
)


def make_pair(architecture: Architecture, folder: Path) -> tuple[Path, Path]:
    """Write a random base, and aligned = base + low rank + a little noise, in every tensor."""
    torch.manual_seed(0)
    config = architecture.config()
    model = architecture.auto.from_config(config).to(
        torch.bfloat16 if architecture.eight else torch.float32
    )
    sides = folder / "base", folder / "aligned"
    for side in sides:
        model.save_pretrained(side, save_original_format=not architecture.fused)
        other_tokenizer().save_pretrained(side)
        if architecture.eight:
            _quantise(side, architecture.eight)
        _perturb(model)
    return sides


def _perturb(model) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for W in model.parameters():
            if W.ndim < 2:
                W += 0.01 * torch.randn(W.shape, generator=generator)
                continue
            *lead, out, into = W.shape
            left = torch.randn(*lead, out, 3, generator=generator)
            low = left @ torch.randn(*lead, 3, into, generator=generator) / (out * into) ** 0.25
            noise = torch.randn(*lead, out, into, generator=generator)
            W += (0.05 * (low + 0.02 * noise)).to(W.dtype)


def _quantise(folder: Path, how: str, size: int = 8) -> None:
    """Write the projections of a checkpoint in 8-bit floats, with their scales."""
    tensors: dict[str, Tensor] = {}
    for name, W in load_file(folder / "model.safetensors").items():
        if W.ndim != 2 or "proj" not in name:
            tensors[name] = W
        elif how == "block":
            x, (out, into) = W.float(), W.shape
            blocks = x.reshape(out // size, size, into // size, size)
            s = blocks.abs().amax((1, 3)) / 448
            x = x / s.repeat_interleave(size, 0).repeat_interleave(size, 1)
            tensors |= {name: x.to(torch.float8_e4m3fn), f"{name}_scale_inv": s}
        else:
            s = W.float().abs().amax(1, keepdim=True) / 448
            tensors |= {name: (W.float() / s).to(torch.float8_e4m3fn), f"{name}_scale": s}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    said = {"quant_method": "fp8" if how == "block" else "fbgemm_fp8"}
    said |= {"weight_block_size": [size, size]} if how == "block" else {}
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": said}
    (folder / "config.json").write_text(json.dumps(config))
