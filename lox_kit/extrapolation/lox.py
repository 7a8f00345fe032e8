"""LoX itself: push an aligned model further along the safety subspace.

    W_lox = W_aligned + alpha * U_k S_k Vh_k          (Perin et al. 2025, arXiv:2506.15606)

Here the edit of one matrix and, live, of a resident model; `checkpoint` writes it as a full
checkpoint, `adapter` as a PEFT adapter.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor

from lox_kit.store import content_key
from lox_kit.weights import Piece, find_places, is_beside, shape_of

from .subspace import SafetySubspace

CACHED_ROWS, MANY_ROWS = 128, 4096


class LowRank(NamedTuple):
    """A delta `left @ right` of one matrix."""

    left: Tensor  # (out, r)
    right: Tensor  # (r, in)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the delta."""
        return self.left.shape[0], self.right.shape[1]

    def dense(self) -> Tensor:
        """Return the product, (out, in)."""
        return self.left @ self.right


Part = Tensor | LowRank
Terms = Sequence[tuple[float, Part]]  # factors, and deltas of one tensor


def check_alpha(alpha: float) -> None:
    """Raise ValueError if `alpha` is not a finite number >= 0.

    Negative extrapolation strips alignment; it exists only as a measured control inside `studies`.
    """
    if not math.isfinite(alpha) or alpha < 0:
        raise ValueError(
            f"alpha={alpha}: use a finite number >= 0. Extrapolating backwards strips alignment, "
            "and no function that saves a model does that."
        )


def lox_terms(U: Tensor, S: Tensor, Vh: Tensor, alpha: float) -> Terms:
    """Return `alpha U S Vh` as what is added to one matrix; nothing where it is zero."""
    return [(1.0, LowRank(U * (alpha * S), Vh))] if len(S) and alpha else []


def add(W: Tensor, terms: Terms, *, out: Tensor) -> Tensor:
    """Write `W + sum of c D` to `out`, summed in float32 (float64 if it is) and rounded once.

    On a CPU a few rows at a time, whose float32 copy never leaves the processor's cache. What lies
    elsewhere comes to the device of `out` as it is stored, and is widened there.
    """
    wide = torch.float64 if out.dtype == torch.float64 else torch.float32
    rows = CACHED_ROWS if out.device.type == "cpu" else MANY_ROWS
    for i, (new, old) in enumerate(zip(out.split(rows), W.split(rows), strict=True)):
        total = _moved(old, out.device).to(wide, copy=True)
        for c, part in terms:
            some = rows_of(part, slice(i * rows, (i + 1) * rows))
            if isinstance(some, LowRank):
                left, right = (_moved(factor, out.device).to(wide) for factor in some)
                total.addmm_(left * c, right)
            else:
                total.add_(_moved(some, out.device).to(wide), alpha=c)
        new.copy_(total)
    return out


def _moved(rows: Tensor, device: torch.device) -> Tensor:
    """Return rows on a device; to CUDA from pinned memory, where the next are pinned meanwhile."""
    if device.type == "cuda" and rows.device.type == "cpu":
        return rows.pin_memory().to(device, non_blocking=True)
    return rows.to(device)


def rows_of(part: Part, rows: slice) -> Part:
    """Return some rows of a delta."""
    return LowRank(part.left[rows], part.right) if isinstance(part, LowRank) else part[rows]


def recipe_of(info: Mapping, k: int | None, alpha: float) -> str:
    """Return what determines an extrapolated model, as canonical JSON; `info` is the subspace's."""
    made_from = {n: v for n, v in info.items() if n not in ("layers", "shapes")}
    return json.dumps({"k": k, "alpha": alpha, "subspace": made_from}, sort_keys=True)


def lox_key(aligned_key: str, subspace: SafetySubspace, k: int | None, alpha: float) -> str:
    """Return the key of the extrapolated model; where nothing is added, the aligned one's own."""
    if k == 0 or alpha == 0:
        return aligned_key
    return content_key(parent=aligned_key, recipe=recipe_of(subspace.info, k, alpha))


class ResidentWeights:
    """Some weights of a model in memory, and a copy of them from which every setting is written.

    So nothing drifts, and a setting without terms gives the weights back bit for bit. Weights have
    the names that they have in the checkpoint: in memory some are parts of one parameter.

    Parameters
    ----------
    model : Model or torch.nn.Module
        Its parameters are changed in place. A `Model` has its key changed with them, so that no
        stored answer of other weights is taken for its own.
    shapes : mapping of str to shape
        Of what is going to be added to each weight.
    keep_on : "device" or "cpu"
        Where the copy is: beside the weights, or in the machine's own memory, from which it is read
        tensor by tensor, so that an accelerator holds the model once. No setting differs by a bit.

    Raises
    ------
    ValueError
        If the model lacks one of the weights, or has it in another shape; or of another `keep_on`.
    """

    def __init__(self, model, shapes: Mapping[str, tuple], keep_on: str = "device"):
        if keep_on not in ("device", "cpu"):
            raise ValueError(f"keep_on={keep_on!r}: use 'device' or 'cpu'.")
        self._owner = model if hasattr(model, "key") else SimpleNamespace(key="", module=model)
        self.key: str = self._owner.key
        found = dict(self._owner.module.named_parameters(remove_duplicate=False))
        places = find_places(self._owner.module, shapes)
        self._weights: dict[str, Tensor] = {}  # parameters, by their own names
        self._inside: dict[str, list[tuple[str, Piece]]] = {}  # what is in each of them
        for name, shape in shapes.items():
            if name not in places and is_beside(self._owner.module, name):
                continue
            for piece in places.get(name, ()):
                self._inside.setdefault(piece.parameter, []).append((name, piece))
                self._weights[piece.parameter] = found[piece.parameter]
            if shape_of(places.get(name, ())) != tuple(shape):
                raise ValueError(
                    f"{name}: what is added has shape {tuple(shape)}, the model has "
                    f"{shape_of(places[name]) if name in places else 'no such tensor'}."
                )
        # The copy is what changes: what is kept stays where it was loaded, on a CPU mapped from the
        # checkpoint's file and so in memory once for all models of it.
        self._kept = {name: W.data for name, W in self._weights.items()}
        for name, W in self._weights.items():
            if keep_on == "cpu" and W.device.type != "cpu":
                self._kept[name] = W.data.cpu()
            else:
                W.data = self._kept[name].clone()

    @torch.no_grad()
    def write(self, terms: Callable[[str], Terms], key: str) -> None:
        """Set every weight to its kept copy plus its terms, and the model's key.

        While the weights are being written, the key is one that nothing has, so that an interrupt
        leaves no weights under another's key.
        """
        self._owner.key = f"between settings, to {key}"
        for parameter, W in self._weights.items():
            W0 = self._kept[parameter]
            for name, piece in self._inside[parameter]:
                rows = [(c, rows_of(part, slice(*piece.rows))) for c, part in terms(name)]
                add(piece.of(W0), rows, out=piece.of(W))
        self._owner.key = key


class LoxDial:
    """Turn k and alpha on a model in memory: a walk along one low-rank line.

    Every setting is written from a kept copy of the aligned weights, `W0 + alpha U_k S_k Vh_k`, so
    nothing drifts, and `off()` gives W0 back bit for bit.

    Parameters
    ----------
    model : Model or torch.nn.Module
        The aligned model. Its parameters are changed in place; a `Model` from `load_model` has its
        key changed with them, so that no stored answer of other weights is taken for its own.
    subspace : SafetySubspace
        The pair's, or a control made from it.
    keep_on : "device" or "cpu"
        Where the copy is, see `ResidentWeights`. Factors are always in the machine's own memory.

    Raises
    ------
    ValueError
        If the model lacks one of the matrices, or has it in another shape.
    """

    def __init__(self, model, subspace: SafetySubspace, keep_on: str = "device"):
        self.subspace = subspace
        self._factors = {name: subspace[name] for name in subspace}
        shapes = {name: factors.shape for name, factors in self._factors.items()}
        self._kept = ResidentWeights(model, shapes, keep_on)
        self.k: int | None = 0
        self.alpha = 0.0
        self.include: str | None = None

    def set(self, *, k: int | None, alpha: float, include: str | None = None) -> None:
        """Put the model at `k` and `alpha`.

        Parameters
        ----------
        include : regular expression, optional
            Turn only the matrices that `SafetySubspace.select` takes; the others are aligned.

        Raises
        ------
        ValueError
            If alpha is negative, `k` is not stored or no matrix is left; the model stays as it was.
        """
        check_alpha(alpha)
        turned = self.subspace.select(include) if include else self.subspace
        turned.check_rank(k)
        self.k, self.alpha, self.include = k, alpha, include

        def terms(name: str) -> Terms:
            return lox_terms(*self._factors[name].top(k), alpha) if name in turned else []

        self._kept.write(terms, lox_key(self._kept.key, turned, k, alpha))

    def off(self) -> None:
        """Give the model its aligned weights back."""
        self.set(k=0, alpha=0.0)
