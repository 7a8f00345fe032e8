"""LoX itself: push an aligned model further along the safety subspace.

    W_lox = W_aligned + alpha * U_k S_k Vh_k          (Perin et al. 2025, arXiv:2506.15606)

As a full checkpoint, or live on a resident model; `adapter` has it as a PEFT adapter.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from . import __version__
from .checkpoint import Checkpoint
from .factoring import OnLayer, tell
from .store import content_key
from .stream import SafetensorsStream, one_ahead
from .subspace import SafetySubspace

CACHED_ROWS = 128
NOTE = "recipe.partial"  # in the folder being written: what it is going to be


def check_alpha(alpha: float) -> None:
    """Raise ValueError if `alpha` is not a finite number >= 0.

    Negative extrapolation strips alignment; it exists only as a measured control inside `studies`.
    """
    if not math.isfinite(alpha) or alpha < 0:
        raise ValueError(
            f"alpha={alpha}: use a finite number >= 0. Extrapolating backwards strips alignment, "
            "and no function that saves a model does that."
        )


def edit(W: Tensor, U: Tensor, S: Tensor, Vh: Tensor, alpha: float) -> Tensor:
    """Return `W + alpha U S Vh`, summed in float32 and rounded once to the dtype of `W`.

    Parameters
    ----------
    W : Tensor, shape (out, in)
    U, S, Vh : Tensor, shapes (out, k), (k,), (k, in)
    """
    if len(S) == 0 or alpha == 0:
        return W.clone()
    made, left = torch.empty_like(W), U * (alpha * S)
    # on a CPU a few rows at a time, whose float32 copy never leaves the processor's cache
    rows = CACHED_ROWS if W.device.type == "cpu" else len(W)
    for new, old, u in zip(made.split(rows), W.split(rows), left.split(rows), strict=True):
        new.copy_(old.to(torch.float32, copy=True).addmm_(u, Vh))
    return made


# --- a full checkpoint ------------------------------------------------------------------------


def apply_lox(
    subspace: SafetySubspace,
    aligned: str | Path,
    out: str | Path,
    k: int | None,
    alpha: float = 1.0,
    *,
    on_layer: OnLayer | None = None,
) -> Path:
    """Write the extrapolated model as a full checkpoint, streamed tensor by tensor.

    Dtypes, sharding, config and tokenizer are those of `aligned`. The folder appears under its
    name when it is whole; a run that was cut off is taken up again by the same call.

    Parameters
    ----------
    aligned : path or name
        The aligned checkpoint the subspace was made from; see `Checkpoint`. An adapter is merged.
    k : int or None
        Directions; 0 keeps none, None all that a `rank="full"` subspace holds.
    alpha : float
        Extrapolation factor, >= 0, on top of the aligned model.

    Raises
    ------
    ValueError
        If alpha is negative, `k` is not stored, or `aligned` is not the subspace's.
    FileExistsError
        If `out` exists.
    """
    check_alpha(alpha)
    checkpoint = own_aligned(subspace, aligned)
    subspace.check_rank(k)
    out = Path(out)
    refuse_existing(out)
    recipe = recipe_of(subspace, k, alpha)
    work = _work_folder(out, recipe)
    done = 0
    for file in dict.fromkeys(info.file for info in checkpoint.tensors.values()):
        mine = {n: i for n, i in checkpoint.tensors.items() if i.file == file}
        if not (work / file.name).exists():
            layout = {n: (i.dtype, i.shape) for n, i in mine.items()}
            with SafetensorsStream(work / file.name, layout, {"lox_kit": recipe}) as stream:
                names = list(stream.missing)
                made = one_ahead(_edited(checkpoint, subspace, names, k, alpha))
                start = done + len(mine) - len(names)
                for i, (name, W) in enumerate(made, start):
                    tell(on_layer, i, list(checkpoint.tensors))
                    stream.write(name, W)
        done += len(mine)
    for beside in checkpoint.beside:
        shutil.copyfile(beside, work / beside.name)
    (work / "README.md").write_text(model_card(checkpoint, subspace, k, alpha))
    (work / NOTE).unlink()
    os.replace(work, out)
    tell(on_layer, done, list(checkpoint.tensors))
    return out


def _edited(
    checkpoint: Checkpoint, subspace: SafetySubspace, names: list[str], k: int | None, alpha: float
) -> Iterator[tuple[str, Tensor]]:
    """Yield the named tensors of the aligned checkpoint, edited where the subspace has them."""
    for name in names:
        W = checkpoint.read(name)
        yield name, edit(W, *subspace.top(name, k), alpha) if name in subspace else W


def recipe_of(subspace: SafetySubspace, k: int | None, alpha: float) -> str:
    """Return what determines an extrapolated model, as canonical JSON."""
    made_from = {n: v for n, v in subspace.info.items() if n not in ("layers", "shapes")}
    return json.dumps({"k": k, "alpha": alpha, "subspace": made_from}, sort_keys=True)


def lox_key(aligned_key: str, subspace: SafetySubspace, k: int | None, alpha: float) -> str:
    """Return the key of the extrapolated model; where nothing is added, the aligned one's own."""
    if k == 0 or alpha == 0:
        return aligned_key
    return content_key(parent=aligned_key, recipe=recipe_of(subspace, k, alpha))


def own_aligned(subspace: SafetySubspace, aligned: str | Path) -> Checkpoint:
    """Open the aligned checkpoint and make sure the subspace was made from it."""
    if control := subspace.info.get("control"):
        raise ValueError(f"this is the control {control!r}: controls are measured, never saved.")
    checkpoint = Checkpoint(aligned)
    subspace.check_shapes(checkpoint)
    if checkpoint.fingerprint != subspace.info["aligned_fingerprint"]:
        raise ValueError(
            f"{checkpoint.name} is not the checkpoint this subspace was made from "
            f"({subspace.info['aligned']}): its weights, config or tokenizer differ. Factor the "
            "pair you mean with `lox factor`."
        )
    return checkpoint


def refuse_existing(out: Path) -> None:
    if out.exists():
        raise FileExistsError(f"{out} exists; remove it or choose another name.")


def _work_folder(out: Path, recipe: str) -> Path:
    """Return the folder to write in: what a cut-off run of this recipe left, or a new one."""
    work = out.with_name(f".{out.name}.partial")
    note = work / NOTE
    if not note.exists() or note.read_text() != recipe:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        note.write_text(recipe)
    return work


def model_card(
    checkpoint: Checkpoint, subspace: SafetySubspace, k: int | None, alpha: float
) -> str:
    """Return the model card: what this is and how to make it again."""
    info = subspace.info
    kept = "all" if k is None else k
    chosen = {name: info[name] for name in ("include", "exclude") if info[name]}
    patterns = "".join(f" --{name} '{pattern}'" for name, pattern in chosen.items())
    return f"""---
base_model: {checkpoint.name}
tags: [lox, safety]
---
# {checkpoint.name}, extrapolated with LoX

`W = W_aligned + alpha * Proj_k(W_aligned - W_base)` in {len(subspace)} matrices, with
k = {kept} and alpha = {alpha:g} (Perin et al., COLM 2025, arXiv:2506.15606).

| | |
|---|---|
| base | {info["base"]} (`{info["base_fingerprint"][:16]}`) |
| aligned | {info["aligned"]} (`{info["aligned_fingerprint"][:16]}`) |
| include, exclude | {info["include"]}, {info["exclude"]} |
| made with | lox_kit {__version__} |

    lox factor {info["base"]} {info["aligned"]} -o S.safetensors --rank {info["rank"]}{patterns}
    lox apply S.safetensors {info["aligned"]} -o DIR -k {kept} --alpha {alpha:g}

LoX makes the safety of a model harder to fine-tune away; it does not make an unsafe model safe.
Measure refusal *and* helpfulness before use.
"""


# --- live -------------------------------------------------------------------------------------


class LoxDial:
    """Turn k and alpha on a model in memory.

    Every setting is written from a kept copy of the aligned weights, `W0 + alpha U_k S_k Vh_k`, so
    nothing drifts, and `off()` gives W0 back bit for bit.

    Parameters
    ----------
    model : Model or torch.nn.Module
        The aligned model. Its parameters are changed in place; a `Model` from `load_model` has its
        key changed with them, so that no stored answer of other weights is taken for its own.
    subspace : SafetySubspace
        The pair's, or a control made from it.
    device : str, optional
        Where the copy of the weights is kept; default beside the model. "cpu" spares GPU memory.

    Raises
    ------
    ValueError
        If the model lacks one of the matrices, or has it in another shape.
    """

    def __init__(self, model, subspace: SafetySubspace, *, device: str | None = None):
        self._owner = model if hasattr(model, "key") else None
        self._own_key = self._owner.key if self._owner else ""
        module = self._owner.module if self._owner else model
        parameters = dict(module.named_parameters(remove_duplicate=False))  # tied ones, too
        self.subspace = subspace
        self.k: int | None = 0
        self.alpha = 0.0
        self._weights = {}
        for name in subspace:
            W = parameters.get(name)
            factors = subspace[name]
            if W is None or tuple(W.shape) != factors.shape:
                raise ValueError(
                    f"{name}: the subspace has shape {factors.shape}, the model has "
                    f"{'no such parameter' if W is None else tuple(W.shape)}."
                )
            place = W.device if device is None else device
            self._weights[name] = (W, W.detach().clone().to(place), factors)

    def set(self, *, k: int | None, alpha: float) -> None:
        """Put the model at `k` and `alpha`.

        Raises
        ------
        ValueError
            If alpha is negative or `k` is not stored; the model stays as it was.
        """
        check_alpha(alpha)
        self.subspace.check_rank(k)
        self._note(k, alpha, whole=False)
        with torch.no_grad():
            for W, W0, f in self._weights.values():
                parts = (x.to(W.device) for x in (f.U[:, :k], f.S[:k], f.Vh[:k]))
                W.copy_(edit(W0.to(W.device), *parts, alpha))
        self._note(k, alpha)

    def off(self) -> None:
        """Give the model its aligned weights back."""
        self._note(0, 0.0, whole=False)
        with torch.no_grad():
            for W, W0, _ in self._weights.values():
                W.copy_(W0)
        self._note(0, 0.0)

    def _note(self, k: int | None, alpha: float, *, whole: bool = True) -> None:
        """Remember where the dial stands, in the model's key too.

        While the weights are being written (not `whole`) the key is one that nothing has, so that
        an interrupt leaves no weights under another's key.
        """
        self.k, self.alpha = k, alpha
        if self._owner:
            key = lox_key(self._own_key, self.subspace, k, alpha)
            self._owner.key = key if whole else f"between settings, to {key}"
