"""LoX as a PEFT adapter: `alpha Proj_k(dW)` has rank k, so it is an ordinary LoRA of megabytes.

PEFT says itself, of the model without its values, what the tensors of an adapter are called and
which shapes they have; what is written is read back by it and compared.
"""

from __future__ import annotations

import itertools
import json
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from lox_kit.folders import whole
from lox_kit.weights import (
    Checkpoint,
    Piece,
    Place,
    can_adapt,
    find_places,
    load_adapter,
    lora_layers,
    lora_names,
    lora_targets,
    lora_transposes,
    refuse_nonfinite,
    skeleton,
    tied_parameters,
    write_tensors,
)

from .card import model_card, refuse_control
from .checkpoint import open_aligned
from .file import made_by
from .lox import LowRank, check_alpha, recipe_of
from .subspace import SafetySubspace

WEIGHTS = "adapter_model.safetensors"
KINDS = ("float32", "bfloat16", "float16", "float64")
PARTIAL = 0.01  # share of |dW_k|^2 that an adapter may leave out without being asked to


def save_adapter(
    subspace: SafetySubspace,
    aligned: str | Path,
    out: str | Path,
    k: int | None,
    alpha: float = 1.0,
    *,
    dtype: str = "float32",
    allow_partial: bool = False,
) -> tuple[str, ...]:
    """Write the extrapolation as a PEFT LoRA adapter of the aligned model.

    `alpha Proj_k(dW)` has rank k: lora_B A is the projection, and PEFT's scale `lora_alpha / r` is
    alpha. `PeftModel.from_pretrained(aligned_model, out)` loads it. Parts that the model holds in
    one parameter, as the experts of a layer, are adapted as one. If `aligned` is an adapter, what
    is written is one of its base, and holds both.

    Parameters
    ----------
    dtype : str
        Of the adapter's tensors: one of `KINDS`.
    allow_partial : bool
        Write it even if it leaves out more than 1 % of |dW_k|^2, the squared length of the edit.

    Returns
    -------
    tuple of str
        Parameters that the adapter leaves out, as the loaded model calls them: a tied embedding and
        head (PEFT would edit one of the two places), what PEFT cannot adapt, and what alignment did
        not change.

    Raises
    ------
    ValueError
        As `apply_lox`; also if k is 0, too much would be left out, PEFT does not take up what was
        written, or `aligned` is an adapter that holds tensors whole.
    FileExistsError
        If `out` exists and is not what this call writes.
    """
    check_alpha(alpha)
    if dtype not in KINDS:
        raise ValueError(f"dtype={dtype!r}: use one of {', '.join(KINDS)}.")
    checkpoint = open_aligned(subspace, aligned)
    refuse_control(checkpoint, subspace)
    subspace.check_rank(k)
    if k == 0:
        raise ValueError("k=0 keeps no direction, and there is no adapter of rank 0.")
    module = skeleton(checkpoint.path)
    own = _own_factors(checkpoint)
    scale = 1.0 if own else alpha  # PEFT's, of all that an adapter holds
    places = find_places(module, [*subspace, *own])
    edits, left_out = _edits(subspace, checkpoint, module, places, k, own, alpha if own else 1.0)
    _refuse_partial(subspace, k, left_out, allow_partial)
    for name, edit in edits.items():
        for _, part in edit:
            refuse_nonfinite((scale * part.left).to(getattr(torch, dtype)), f"{name}, {alpha=:g}")
    base = (checkpoint.base or checkpoint).name
    tensors, config, ranks = _as_lora(edits, module, base, scale)
    tensors = {name: W.to(getattr(torch, dtype)).contiguous() for name, W in tensors.items()}
    card = model_card(checkpoint, subspace, k, alpha, ranks)
    recipe = recipe_of(subspace.info, k, alpha)
    layout = {name: (W.dtype, tuple(W.shape)) for name, W in tensors.items()}
    if not made_by(recipe, Path(out, WEIGHTS), layout):
        with whole(out, new=True) as work:
            work.mkdir()
            (work / "adapter_config.json").write_text(json.dumps(config, indent=2))
            (work / "README.md").write_text(card)
            write_tensors(work / WEIGHTS, layout, {"lox_kit": recipe}, tensors.values())
            load_adapter(work, skeleton(checkpoint.path))
    whole_names = ([p.parameter for p in places[n]] if n in places else [n] for n in left_out)
    return tuple(dict.fromkeys(itertools.chain(*whole_names)))


# --- what is adapted ----------------------------------------------------------------------------

Edit = list[tuple[Piece, LowRank]]  # what is added to some rows of a parameter each


def _own_factors(checkpoint: Checkpoint) -> dict[str, LowRank]:
    """Return what a checkpoint that is an adapter adds to the matrices of its base."""
    if (adapter := checkpoint.adapter) is None:
        return {}
    if whole := sorted(filter(adapter.replaces, adapter.names)):
        raise ValueError(
            f"{checkpoint.name}: is an adapter that holds {whole[0]} whole, beside which no other "
            "can be laid; use `lox apply` for a full checkpoint."
        )
    found = ((name, adapter.factors(name)) for name in checkpoint.parts)
    return {name: LowRank(*factors) for name, factors in found if factors}


def _edits(
    subspace: SafetySubspace,
    checkpoint: Checkpoint,
    module,
    places: Mapping[str, Place],
    k: int | None,
    own: Mapping[str, LowRank],
    alpha: float,
) -> tuple[dict[str, Edit], tuple[str, ...]]:
    """Return what is added to each parameter, and the matrices that are left out.

    That is alpha times the extrapolation, and what the aligned checkpoint adds itself.
    """
    tied = {} if checkpoint.has_head else tied_parameters(module)
    fixed = {*tied, *tied.values()}
    edits: dict[str, Edit] = {}
    left_out = []
    for name in dict.fromkeys([*own, *subspace]):
        added = [own[name]] if name in own else []
        if name in subspace:
            U, S, Vh = subspace[name].top(k)
            there = S > 0  # a delta that is LoRA has fewer than k
            added += [LowRank((alpha * U * S)[:, there], Vh[there])] if there.any() else []
        pieces = places.get(name, ())
        can = all(p.parameter not in fixed and can_adapt(module, p.parameter) for p in pieces)
        if not added or not pieces or not can:
            if name in own:
                raise ValueError(
                    f"{name}: {checkpoint.name} adapts it, and with PEFT that cannot be written "
                    "again; use `lox apply` for a full checkpoint."
                )
            left_out.append(name)
            continue
        for piece in pieces:
            for left, right in added:
                part = piece, LowRank(left[slice(*piece.rows)], right)
                edits.setdefault(piece.parameter, []).append(part)
    return edits, tuple(left_out)


def _refuse_partial(
    subspace: SafetySubspace, k: int | None, left_out: tuple[str, ...], allow_partial: bool
) -> None:
    """Raise ValueError if what an adapter leaves out is too much of the edit."""
    spectra = {name: subspace.spectrum(name)[:k].astype(float) for name in subspace}
    energy = {name: float(S @ S) for name, S in spectra.items()}
    share = sum(energy[name] for name in left_out) / sum(energy.values())
    what = "tied, unchanged or nothing that PEFT can adapt"
    if len(left_out) == len(energy):
        raise ValueError(
            f"{', '.join(left_out)}: {what}, which leaves an adapter nothing to hold; use "
            "`lox apply` for a full checkpoint."
        )
    if share > PARTIAL and not allow_partial:
        raise ValueError(
            f"{', '.join(left_out[:3])}: {what}. Without {len(left_out)} of {len(energy)} matrices "
            f"an adapter lacks {share:.1%} of |dW_k|^2. `lox apply` writes all of it as a full "
            "checkpoint; allow_partial=True (--allow-partial) writes the rest as an adapter."
        )


# --- as PEFT has it -----------------------------------------------------------------------------


def _as_lora(
    edits: Mapping[str, Edit], module: nn.Module, base: str, alpha: float
) -> tuple[dict[str, Tensor], dict, dict[str, int]]:
    """Return an adapter's tensors by PEFT's names, its `adapter_config.json`, and its ranks."""
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    targets, ranks = lora_targets(module, edits), {}
    shapes = {n: W.shape for n, W in module.named_parameters(remove_duplicate=False)}
    for name, edit in edits.items():
        by_module = name not in (targets["target_parameters"] or ())
        target = name.removesuffix(".weight") if by_module else name
        held = Counter()
        for piece, part in edit:
            held[piece.within(shapes[name])[0]] += len(part.right)
        ranks[target] = max(held.values())
    config = _adapter_config(base, ranks, alpha) | targets
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PEFT, that it sets fan_in_fan_out by itself
        made = get_peft_model(module, LoraConfig(**config), low_cpu_mem_usage=True)
    for name, layer in lora_layers(made).items():
        _fill(layer, edits[name], shapes[name])
    return get_peft_model_state_dict(made, save_embedding_layers=False), config, ranks


def _fill(layer, edit: Edit, shape: tuple[int, ...]) -> None:
    """Give PEFT's layer the delta of its parameter, of this shape; see `lora_factors`."""
    experts, r = getattr(layer, "num_experts", 1), layer.r["default"]
    left, right = torch.zeros(experts, shape[-2], r), torch.zeros(experts, r, shape[-1])
    filled = [0] * experts
    for piece, part in edit:
        expert, rows, transposed = piece.within(shape)
        one, other = (part.right.T, part.left.T) if transposed else part
        columns = slice(filled[expert], filled[expert] + len(other))
        left[expert, rows, columns], right[expert, columns] = one, other
        filled[expert] = columns.stop
    if lora_transposes(layer):
        left, right = right.mT, left.mT
    A, B = right.flatten(0, 1), left.permute(1, 2, 0).flatten(1)
    for name, W in zip(lora_names(layer), (A, B), strict=True):
        held = getattr(layer, name)
        if isinstance(held, nn.ParameterDict):
            held["default"] = nn.Parameter(W)
        else:
            held["default"].weight = nn.Parameter(W)


def _adapter_config(name: str, ranks: dict[str, int], alpha: float) -> dict:
    """Return `adapter_config.json` but for its targets: plain LoRA, at scale alpha."""
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
        "lora_dropout": 0.0,
        "bias": "none",
        "init_lora_weights": True,
    }
