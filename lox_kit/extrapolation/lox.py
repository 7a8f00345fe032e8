"""LoX itself: push an aligned model further along the safety subspace.

    W_lox = W_aligned + alpha * U_k S_k Vh_k          (Perin et al. 2025, arXiv:2506.15606)

Here the edit of one matrix and, live, of a resident model; `checkpoint` writes it as a full
checkpoint, `adapter` as a PEFT adapter.
"""

from __future__ import annotations

import json
import math

import torch
from torch import Tensor

from lox_kit.store import content_key

from .subspace import SafetySubspace

CACHED_ROWS = 128


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


def recipe_of(subspace: SafetySubspace, k: int | None, alpha: float) -> str:
    """Return what determines an extrapolated model, as canonical JSON."""
    made_from = {n: v for n, v in subspace.info.items() if n not in ("layers", "shapes")}
    return json.dumps({"k": k, "alpha": alpha, "subspace": made_from}, sort_keys=True)


def lox_key(aligned_key: str, subspace: SafetySubspace, k: int | None, alpha: float) -> str:
    """Return the key of the extrapolated model; where nothing is added, the aligned one's own."""
    if k == 0 or alpha == 0:
        return aligned_key
    return content_key(parent=aligned_key, recipe=recipe_of(subspace, k, alpha))


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
                U, S, Vh = (x.to(W.device) for x in (f.U[:, :k], f.S[:k], f.Vh[:k]))
                W.copy_(edit(W0.to(W.device), U, S, Vh, alpha))
        self._note(k, alpha)

    def off(self) -> None:
        """Give the model its aligned weights back."""
        self.set(k=0, alpha=0.0)

    def _note(self, k: int | None, alpha: float, *, whole: bool = True) -> None:
        """Remember where the dial stands, in the model's key too.

        While the weights are being written (not `whole`) the key is one that nothing has, so that
        an interrupt leaves no weights under another's key.
        """
        self.k, self.alpha = k, alpha
        if self._owner:
            key = lox_key(self._own_key, self.subspace, k, alpha)
            self._owner.key = key if whole else f"between settings, to {key}"
