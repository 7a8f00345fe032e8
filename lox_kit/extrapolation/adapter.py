"""LoX as a PEFT adapter: `alpha Proj_k(dW)` has rank k, so it is an ordinary LoRA of megabytes."""

from __future__ import annotations

import json
import re
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from lox_kit.folders import whole
from lox_kit.weights import TRANSPOSED, is_embedding, is_head, refuse_nonfinite

from .checkpoint import model_card, open_aligned
from .lox import check_alpha
from .subspace import SafetySubspace

_POSITIONS = re.compile(r"embed_positions|position_embeddings|wpe")


def save_adapter(
    subspace: SafetySubspace,
    aligned: str | Path,
    out: str | Path,
    k: int | None,
    alpha: float = 1.0,
) -> tuple[str, ...]:
    """Write the extrapolation as a PEFT LoRA adapter of the aligned model.

    `alpha Proj_k(dW)` has rank k: lora_B A is the projection, and PEFT's scale `lora_alpha / r` is
    alpha. `PeftModel.from_pretrained(aligned_model, out)` loads it.

    Returns
    -------
    tuple of str
        Matrices that the adapter leaves out: a tied embedding and head (PEFT would edit one of
        the two places), learned positions (it would not find their rows) and matrices that
        alignment did not change.

    Raises
    ------
    ValueError
        As `apply_lox`; also if k is 0, every matrix would be left out, or the architecture stores
        its matrices transposed.
    FileExistsError
        If `out` exists.
    """
    check_alpha(alpha)
    checkpoint = open_aligned(subspace, aligned)
    subspace.check_rank(k)
    if k == 0:
        raise ValueError("k=0 keeps no direction, and there is no adapter of rank 0.")
    if (kind := checkpoint.config.get("model_type")) in TRANSPOSED:
        raise ValueError(
            f"{kind} stores its matrices transposed, which PEFT adapters express differently: use "
            "`lox apply` for a full checkpoint."
        )
    left_out, ranks, tensors = [], {}, {}
    for name in subspace:
        U, S, Vh = subspace[name].top(k)
        tied = checkpoint.tied and (is_embedding(name) or is_head(name))
        if tied or _POSITIONS.search(name) or not bool((S > 0).any()):
            left_out.append(name)
            continue
        refuse_nonfinite((alpha * S).to(checkpoint.tensors[name].dtype), f"{name}, alpha={alpha:g}")
        module = name.removesuffix(".weight")
        ranks[module] = len(S)
        tensors |= _lora_pair(module, U * S, Vh, embedding=is_embedding(name))
    if not ranks:
        raise ValueError(
            f"{', '.join(left_out)}: tied, unchanged or learned positions, which leaves an "
            "adapter nothing to hold; use `lox apply` for a full checkpoint."
        )
    config = _adapter_config(str(checkpoint.name), ranks, alpha)
    card = model_card(checkpoint, subspace, k, alpha).replace("lox apply", "lox adapter")
    with whole(out, new=True) as work:
        work.mkdir()
        (work / "adapter_config.json").write_text(json.dumps(config, indent=2))
        (work / "README.md").write_text(card)
        save_file(tensors, work / "adapter_model.safetensors", metadata={"format": "pt"})
    return tuple(left_out)


def _lora_pair(module: str, left: Tensor, right: Tensor, *, embedding: bool) -> dict[str, Tensor]:
    """Return the two tensors PEFT loads for a delta `left @ right` of one module.

    PEFT adds B A to a linear weight (out, in) and (B A)^T to an embedding (tokens, width).
    """
    prefix = f"base_model.model.{module}"
    if embedding:
        return {
            f"{prefix}.lora_embedding_A": left.T.contiguous(),
            f"{prefix}.lora_embedding_B": right.T.contiguous(),
        }
    return {
        f"{prefix}.lora_A.weight": right.contiguous(),
        f"{prefix}.lora_B.weight": left.contiguous(),
    }


def _adapter_config(name: str, ranks: dict[str, int], alpha: float) -> dict:
    """Return `adapter_config.json`: plain LoRA of these modules, at scale alpha."""
    r = max(ranks.values())
    smaller = {m: q for m, q in ranks.items() if q != r}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": name,
        "inference_mode": True,
        "r": r,
        "lora_alpha": alpha * r,
        "rank_pattern": smaller,
        "alpha_pattern": {m: alpha * q for m, q in smaller.items()},
        "target_modules": sorted(ranks),
        "lora_dropout": 0.0,
        "bias": "none",
        "init_lora_weights": True,
        "fan_in_fan_out": False,
    }
