"""The published algorithm written plainly: both models in memory, a full SVD of every matrix.

    python plain_lox.py BASE ALIGNED OUT K ALPHA FACTORS

Differs from the official code in one thing: that rounds the delta to bfloat16 before decomposing
it, here it stays float32. The top-k factors go to the file FACTORS, to be compared with ours.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def edit(base: str, aligned: str, out: str, k: int, alpha: float, factors: str) -> None:
    """Write `W_aligned + alpha * Proj_k(W_aligned - W_base)` of every matrix to the folder OUT."""
    state_base, state = load_model(Path(base)), load_model(Path(aligned))
    kept = {}
    for name, W in state.items():
        if W.ndim != 2:
            continue
        W = W.float()
        U, S, Vh = torch.linalg.svd(W - state_base[name].float(), full_matrices=False)
        U, S, Vh = U[:, :k], S[:k], Vh[:k]
        state[name] = (W + alpha * (U * S) @ Vh).bfloat16()
        for part, tensor in (("U", U), ("S", S), ("Vh", Vh)):
            kept[f"{name}.{part}"] = tensor.clone(memory_format=torch.contiguous_format)
    save_model(state, Path(aligned), Path(out))
    save_file(kept, factors)


def load_model(folder: Path) -> dict[str, torch.Tensor]:
    """Return the whole state dict."""
    shards = sorted(folder.glob("*.safetensors"))
    return {name: W for shard in shards for name, W in load_file(shard).items()}


def save_model(state: dict[str, torch.Tensor], source: Path, out: Path) -> None:
    """Save a state dict in the shards of `source`."""
    out.mkdir()
    index = json.loads((source / "model.safetensors.index.json").read_text())["weight_map"]
    for shard in sorted(set(index.values())):
        save_file({n: W for n, W in state.items() if index[n] == shard}, out / shard)
    for file in source.glob("*.json"):
        shutil.copy(file, out)


if __name__ == "__main__":
    base, aligned, out, k, alpha, factors = sys.argv[1:]
    edit(base, aligned, out, int(k), float(alpha), factors)
