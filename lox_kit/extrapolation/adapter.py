"""LoX as a PEFT adapter: `alpha Proj_k(dW)` has rank k, so it is an ordinary LoRA of megabytes.

PEFT says itself, of the model without its values, what the tensors of an adapter are called and
which shapes they have; what is written is read back by it and compared.
"""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lox_kit.folders import whole
from lox_kit.weights import (
    Checkpoint,
    Piece,
    Place,
    can_adapt,
    find_places,
    is_conv1d,
    lora_targets,
    refuse_nonfinite,
    skeleton,
    tied_parameters,
)

from .card import model_card
from .checkpoint import open_aligned
from .lox import LowRank, check_alpha
from .subspace import SafetySubspace

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
    one parameter, as the experts of a layer, are adapted as one.

    Parameters
    ----------
    dtype : str
        Of the adapter's tensors, a torch dtype's name.
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
        As `apply_lox`; also if k is 0, too much would be left out, or PEFT does not take up what
        was written.
    FileExistsError
        If `out` exists.
    """
    check_alpha(alpha)
    checkpoint = open_aligned(subspace, aligned)
    subspace.check_rank(k)
    if k == 0:
        raise ValueError("k=0 keeps no direction, and there is no adapter of rank 0.")
    module = skeleton(checkpoint.path)
    places = find_places(module, subspace)
    edits, left_out = _edits(subspace, checkpoint, module, places, k)
    _refuse_partial(subspace, k, left_out, allow_partial)
    for name, edit in edits.items():
        for part in edit.values():
            refuse_nonfinite((alpha * part.left).to(getattr(torch, dtype)), f"{name}, {alpha=:g}")
    tensors, config, ranks = _as_lora(edits, module, checkpoint.name, alpha)
    tensors = {name: W.to(getattr(torch, dtype)).contiguous() for name, W in tensors.items()}
    card = model_card(checkpoint, subspace, k, alpha, ranks)
    with whole(out, new=True) as work:
        work.mkdir()
        (work / "adapter_config.json").write_text(json.dumps(config, indent=2))
        (work / "README.md").write_text(card)
        save_file(tensors, work / "adapter_model.safetensors", metadata={"format": "pt"})
        _read_back(work, skeleton(checkpoint.path), tensors)
    whole_names = ([p.parameter for p in places[n]] if n in places else [n] for n in left_out)
    return tuple(dict.fromkeys(itertools.chain(*whole_names)))


# --- what is adapted ----------------------------------------------------------------------------

Edit = dict[int, LowRank]  # by expert, 0 where there are none: what is added to one parameter


def _edits(
    subspace: SafetySubspace,
    checkpoint: Checkpoint,
    module,
    places: Mapping[str, Place],
    k: int | None,
) -> tuple[dict[str, Edit], tuple[str, ...]]:
    """Return what is added to each parameter, and the matrices that are left out."""
    shapes, tied = dict(module.named_parameters(remove_duplicate=False)), set()
    if not checkpoint.has_head:
        tied.update(*tied_parameters(module).items())
    parts: dict[str, dict[int, list[tuple[Piece, LowRank]]]] = {}
    left_out = []
    for name in subspace:
        U, S, Vh = subspace[name].top(k)
        own = S > 0  # a delta that is LoRA has fewer than k
        pieces = places.get(name, ())
        can = all(p.parameter not in tied and can_adapt(module, p.parameter) for p in pieces)
        if not own.any() or not pieces or not can:
            left_out.append(name)
            continue
        left, right = (U * S)[:, own], Vh[own]
        for piece in pieces:
            W = shapes[piece.parameter]
            expert = piece.offset // (W.shape[-2] * W.shape[-1])
            found = parts.setdefault(piece.parameter, {}).setdefault(expert, [])
            found.append((piece, LowRank(left[slice(*piece.rows)], right)))
    edits = {
        parameter: {e: _joined(found, shapes[parameter]) for e, found in experts.items()}
        for parameter, experts in parts.items()
    }
    return edits, tuple(left_out)


def _joined(parts: list[tuple[Piece, LowRank]], W: Tensor) -> LowRank:
    """Return the sum of deltas of some rows each as one delta of a matrix, or of its transpose."""
    rows, columns = W.shape[-2:]
    left = torch.zeros(rows, sum(part.left.shape[1] for _, part in parts))
    rights, rank = [], 0
    for piece, part in parts:
        transposed = piece.stride[-1] != 1
        one, other = (part.right.T, part.left.T) if transposed else (part.left, part.right)
        row = piece.offset % (rows * columns) // columns
        left[row : row + len(one), rank : rank + one.shape[1]] = one
        rights.append(other)
        rank += one.shape[1]
    return LowRank(left, torch.cat(rights))


def _refuse_partial(
    subspace: SafetySubspace, k: int | None, left_out: tuple[str, ...], allow_partial: bool
) -> None:
    """Raise ValueError if what an adapter leaves out is too much of the edit."""
    energy = {name: float(subspace[name].top(k)[1].double().square().sum()) for name in subspace}
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
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraLayer

    targets, ranks = lora_targets(module, edits), {}
    for name, edit in edits.items():
        by_module = name not in (targets["target_parameters"] or ())
        target = name.removesuffix(".weight") if by_module else name
        ranks[target] = max(part.left.shape[1] for part in edit.values())
    config = _adapter_config(base, ranks, alpha) | targets
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PEFT, that it sets fan_in_fan_out by itself
        made = get_peft_model(module, LoraConfig(**config), low_cpu_mem_usage=True)
    tensors: dict[str, Tensor] = {}
    for path, layer in made.named_modules():
        if isinstance(layer, LoraLayer):
            own = path.removeprefix("base_model.model.").replace(".base_layer", "")
            name = f"{own}.{getattr(layer, 'parameter_name', 'weight')}"
            tensors |= _lora_pair(layer, path, edits[name])
    return tensors, config, ranks


def _lora_pair(layer, path: str, edit: Edit) -> dict[str, Tensor]:
    """Return the two tensors that PEFT's layer holds for the delta of its parameter.

    PEFT adds B A to a linear weight (out, in), and its transpose to an embedding (tokens, width)
    and to a Conv1D (in, out). Of experts A is (experts * r, in) and B (out, r * experts), which are
    swapped where a parameter is (experts, in, out).
    """
    r = layer.r["default"]
    if getattr(layer, "num_experts", 1) > 1:
        rows, columns = edit[next(iter(edit))].shape
        left, right = (torch.zeros(layer.num_experts, *s) for s in ((rows, r), (r, columns)))
        for expert, part in edit.items():
            n = part.left.shape[1]
            left[expert, :, :n], right[expert, :n] = part.left, part.right
        if not layer._did_swap_in_out_features:
            left, right = right.transpose(1, 2), left.transpose(1, 2)
        A = right.reshape(-1, right.shape[-1])
        B = left.permute(1, 2, 0).reshape(left.shape[1], -1)
    else:
        (part,) = edit.values()
        base = layer.get_base_layer()
        if isinstance(base, nn.Embedding) or is_conv1d(base):
            A, B = part.left.T, part.right.T
        else:
            A, B = part.right, part.left
    if isinstance(layer.get_base_layer(), nn.Embedding):
        return {f"{path}.lora_embedding_A": A, f"{path}.lora_embedding_B": B}
    return {f"{path}.lora_A.weight": A, f"{path}.lora_B.weight": B}


def _read_back(folder: Path, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless PEFT puts every tensor of an adapter into the model, and no other."""
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
    from peft import set_peft_model_state_dict as put

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = LoraConfig.from_pretrained(str(folder))
        model = get_peft_model(module, config, low_cpu_mem_usage=True)
        for layer in model.modules():  # would move what is read to where the model has no values
            layer.__dict__["_move_adapter_to_device_of_base_layer"] = lambda adapter: None
        put(model, dict(tensors), low_cpu_mem_usage=True)
    held = get_peft_model_state_dict(model, save_embedding_layers=False)
    wrong = [
        name
        for name in held.keys() | tensors.keys()
        if name not in held
        or name not in tensors
        or held[name].device.type == "meta"
        or not torch.equal(held[name], tensors[name].to(held[name].dtype))
    ]
    if wrong:
        raise ValueError(
            f"PEFT does not take up {len(wrong)} of {len(tensors)} tensors of this adapter, first "
            f"{min(wrong)}: use `lox apply` for a full checkpoint."
        )


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
