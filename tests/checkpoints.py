"""Tiny pairs of checkpoints on disk, and what LoX makes of them in float64."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from lox_kit import SafetySubspace

ROOT = Path(__file__).parents[1]
TINY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 40,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
UP = "model.layers.1.mlp.up_proj.weight"
RANK = 3  # of the strong part of every delta: its spectrum has a gap there


@dataclasses.dataclass(frozen=True)
class Pair:
    """The folders of a base and an aligned checkpoint."""

    base: Path
    aligned: Path


def save_pair(
    folder: Path,
    *,
    kind: str = "llama",
    dtype: torch.dtype = torch.float32,
    shards: str = "1GB",
    **config,
) -> Pair:
    """Write a random base, and aligned = base + low rank + noise in every matrix."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**TINY, **config}))
    pair = Pair(folder / "base", folder / "aligned")
    _save(model.to(dtype), pair.base, shards)
    with torch.no_grad():
        for W in model.parameters():
            if W.ndim == 2:
                W.copy_(W.float() + low_rank_and_noise(*W.shape))
    _save(model, pair.aligned, shards)
    return pair


def _save(model, folder: Path, shards: str) -> None:
    """Write weights, configs, and files where a tokenizer would be."""
    model.save_pretrained(folder, max_shard_size=shards)
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 64}')


def low_rank_and_noise(out: int, into: int) -> Tensor:
    """Return a delta with singular values of about .8, .6, .4, and noise far below them."""
    U, V = (torch.linalg.qr(torch.randn(n, RANK)).Q for n in (out, into))
    return U @ torch.diag(torch.tensor([0.8, 0.6, 0.4])) @ V.T + 2e-3 * torch.randn(out, into)


def save_tensors(folder: Path, tensors: dict[str, Tensor], config: dict | None = None) -> Path:
    """Write a checkpoint of these very tensors and return its folder."""
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def factor(pair: Pair, out: Path | None = None, **options) -> SafetySubspace:
    """Return the subspace of a pair."""
    return SafetySubspace.from_pair(pair.base, pair.aligned, out, **options)


def weights(folder: Path) -> dict[str, Tensor]:
    """Return all tensors of a checkpoint, as the safetensors library reads them."""
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


def delta(pair: Pair, name: str) -> np.ndarray:
    """Return W_aligned - W_base of one matrix in float64."""
    return (weights(pair.aligned)[name].double() - weights(pair.base)[name].double()).numpy()


def top_part(dW: np.ndarray, k: int | None) -> np.ndarray:
    """Return the top-k part of a matrix in float64."""
    U, S, Vh = np.linalg.svd(dW.astype(np.float64), full_matrices=False)
    return (U[:, :k] * S[:k]) @ Vh[:k]


def extrapolated(pair: Pair, k: int, alpha: float) -> dict[str, Tensor]:
    """Return every tensor LoX should write, in float64: matrices moved, the rest as it is."""
    before, after = weights(pair.base), weights(pair.aligned)
    moved = {}
    for name, W in after.items():
        W = W.double()
        if W.ndim == 2:
            W = W + alpha * torch.from_numpy(top_part((W - before[name].double()).numpy(), k))
        moved[name] = W
    return moved


def assert_rounded(actual: Tensor, expected: Tensor, *, roundings: float = 1.0) -> None:
    """Assert that a tensor is the float64 one, rounded to its own dtype."""
    half_ulp = torch.finfo(actual.dtype).eps / 2
    torch.testing.assert_close(
        actual.double(), expected, rtol=1.01 * roundings * half_ulp, atol=2e-6
    )


def flip_bit(file: Path, place: int) -> None:
    """Change one bit of the byte at this place of a file."""
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


def content(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder by name."""
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def run_python(script: str, *arguments, typed: str = "") -> subprocess.CompletedProcess:
    """Run a script in a fresh interpreter, with this on its standard input."""
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        input=typed,
        capture_output=True,
        text=True,
        check=False,
    )
