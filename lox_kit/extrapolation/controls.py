"""Controls of equal norm: what LoX must beat for its direction, or its low rank, to be the cause.

Each takes a safety subspace and returns one to be used with `k=None`, whose step is as long as
LoX's top k: in every matrix, or, where only some matrices are edited, over all matrices together.
They are measured in memory, or written by `apply_lox(control=True)` to be attacked, marked as
controls.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from .file import FULL
from .places import kinds_of, module_of, place_of
from .subspace import SafetySubspace
from .svd import Factors

Triplets = tuple[Tensor, Tensor, Tensor]  # U (out, r), S (r,) and Vh (r, in)


def random_subspace(subspace: SafetySubspace, k: int, *, seed: int = 0) -> SafetySubspace:
    """Replace the top-k singular vectors by random orthonormal ones, keeping the singular values.

    The step has the rank and, matrix by matrix, the Frobenius norm of the LoX step.
    """
    drawn = partial(_random, subspace, k, seed)
    return _control(subspace, k, drawn, control="random", control_seed=seed)


def full_delta(subspace: SafetySubspace, k: int) -> SafetySubspace:
    """Return the whole delta, shrunk matrix by matrix to the norm of its top-k part.

    This is ExPO (Zheng et al. 2024, arXiv:2404.16792) at LoX's step length.

    Raises
    ------
    ValueError
        If the subspace does not hold every direction (`rank="full"`), or `k` is negative.
    """
    subspace.check_rank(None)
    return _control(subspace, k, lambda name: subspace[name].top(None), control="full")


def bottom_subspace(subspace: SafetySubspace, k: int) -> SafetySubspace:
    """Return the last k directions that are stored, lengthened to the norm of the top-k part.

    Directions with singular value 0 do not count: they are arbitrary.

    Raises
    ------
    ValueError
        If `k` is not stored, or the last k directions of a matrix are some of its first k, though
        its shape has room for 2k.
    """
    return _band(subspace, k, "bottom", "last", lambda held: slice(max(0, held - k), held))


def middle_band(subspace: SafetySubspace, k: int) -> SafetySubspace:
    """Return the k directions after the top k, lengthened to the norm of the top-k part.

    Of a matrix whose shape has no room for 2k, those that there are.

    Raises
    ------
    ValueError
        If 2k directions of a matrix are not stored though its shape has room for them, or it has
        none after the top k.
    """
    return _band(subspace, k, "middle", "next", lambda held: slice(k, 2 * k))


def _band(
    subspace: SafetySubspace, k: int, control: str, which: str, part: Callable[[int], slice]
) -> SafetySubspace:
    """Return a part of the directions held of each matrix, as long as its top k."""

    def directions(name: str) -> Triplets:
        U, S, Vh = subspace[name].top(subspace[name].nonzero)
        room, band = min(subspace[name].shape), part(len(S))
        if k and len(S) and (len(S) < 2 * k <= room or not len(S[band])):
            raise ValueError(
                f"{name}: {len(S)} directions are stored, so the {which} {k} are some of the first "
                f"{k}: factor again with --rank {2 * k} or more; a delta of lower rank has no more."
            )
        return U[:, band], S[band], Vh[band]

    return _control(subspace, k, directions, control=control)


def shuffled_layers(subspace: SafetySubspace, k: int, *, seed: int = 0) -> SafetySubspace:
    """Give each matrix the top-k step of another layer's, at the length of its own.

    Matrices change places within one kind and shape, along a random circle through the layers, so
    none keeps its own step. One that has no other of its kind (an embedding, a head) gets random
    directions, as in `random_subspace`; one that alignment did not change stays as it is.
    """
    groups: dict[tuple, list[str]] = {}
    for name, shape, norm in zip(subspace, subspace.info["shapes"], subspace.norms, strict=True):
        groups.setdefault((place_of(name)[1], *shape, norm > 0), []).append(name)
    generator, others = torch.Generator().manual_seed(seed), {}
    for names in groups.values():
        order = [names[i] for i in torch.randperm(len(names), generator=generator).tolist()]
        others |= dict(zip(order, [*order[1:], order[0]], strict=True))

    def directions(name: str) -> Triplets:
        other = others[name]
        return _random(subspace, k, seed, name) if other == name else subspace[other].top(k)

    return _control(subspace, k, directions, control="shuffled", control_seed=seed)


def some_matrices(subspace: SafetySubspace, k: int, which: str) -> SafetySubspace:
    """Return the top-k step of some matrices, as long as LoX's over all matrices together.

    Every step is lengthened by one factor; the other matrices are left as they are.

    Parameters
    ----------
    which : str
        One kind of matrix, as kind:up_proj or kind:mlp.up_proj, or the layers of a range, both
        ends included, as layers:0-9.

    Raises
    ------
    ValueError
        If the subspace has no such matrices, or alignment changed none of them.
    """
    kept = [name for name in subspace if _is_of(name, which)]
    _check(subspace, k)
    length = {name: np.linalg.norm(subspace.spectrum(name)[:k]) for name in subspace}
    whole, part = (np.linalg.norm([length[name] for name in of]) for of in (subspace, kept))
    if not kept or (k and not part):
        layers = len({place_of(name)[0] for name in subspace} - {None})
        raise ValueError(
            f"{which}: alignment changed no such matrix. The subspace has {layers} layers, from 0, "
            f"and the kinds {', '.join(kinds_of(subspace))}."
        )
    longer = float(whole / part) if part else 1.0
    return _control(subspace, k, lambda n: subspace[n].top(k), kept, longer, control=which)


CONTROLS: Mapping[str, Callable[..., SafetySubspace]] = {
    "random": random_subspace,
    "full": full_delta,
    "bottom": bottom_subspace,
    "middle": middle_band,
    "shuffled": shuffled_layers,
}
CONTROL_NAMES = f"{', '.join(CONTROLS)}, kind:MATRIX (kind:up_proj) or layers:A-B (layers:0-9)"


def is_control(name: str) -> bool:
    """Whether `control_of` makes a control of this name; none of them weakens on purpose."""
    return name in CONTROLS or bool(re.fullmatch(r"kind:.+|layers:\d+-\d+", name))


def control_of(name: str, subspace: SafetySubspace, k: int, seed: int = 0) -> SafetySubspace:
    """Return a control by name.

    Parameters
    ----------
    name : str
        Of `CONTROLS`, or what `some_matrices` takes.
    subspace : SafetySubspace
        Of the pair, of at least `control_rank` directions.
    seed : int
        Of those that draw at random: random and shuffled.

    Raises
    ------
    ValueError
        If there is no such control, or the subspace does not hold what it takes.
    """
    control_rank(name, k)
    if name not in CONTROLS:
        return some_matrices(subspace, k, name)
    draws = {"seed": seed} if name in ("random", "shuffled") else {}
    return CONTROLS[name](subspace, k, **draws)


def control_rank(name: str, k: int) -> int | str:
    """Return the rank to factor a pair with for a control: a number, or "full".

    Raises
    ------
    ValueError
        If there is no such control.
    """
    if not is_control(name):
        raise ValueError(f"control {name!r}: use {CONTROL_NAMES}.")
    return {"full": FULL, "bottom": FULL, "middle": 2 * k}.get(name, k)


def _is_of(name: str, which: str) -> bool:
    """Whether a matrix is of this kind, or in these layers."""
    head, _, of = which.partition(":")
    depth, path = place_of(name)
    if head == "kind":
        return of in (module_of(name), path)
    first, last = map(int, of.split("-"))
    return depth is not None and first <= depth <= last


def _check(subspace: SafetySubspace, k: int) -> None:
    """Raise ValueError if `k` is not stored, or this is a control, or cut to other k."""
    for what in ("control", "cut"):
        if what in subspace.info:
            raise ValueError(
                f"this is a {what} subspace; give the pair's own, and the control a k."
            )
    subspace.check_rank(k)


def _random(subspace: SafetySubspace, k: int, seed: int, name: str) -> Triplets:
    """Return random directions with the top k singular values of a matrix."""
    factors = subspace[name]
    (out, into), (_, S, _) = factors.shape, factors.top(k)
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
    U, V = (torch.linalg.qr(torch.randn(n, len(S), generator=generator)).Q for n in (out, into))
    return U, S, V.T


def _control(
    subspace: SafetySubspace,
    k: int,
    directions: Callable[[str], Triplets],
    names: Iterable[str] | None = None,
    longer: float = 1.0,
    **what,
) -> SafetySubspace:
    """Return the control of these directions, each matrix `longer` than its top k, as a subspace.

    Its `info` says what it is.
    """
    _check(subspace, k)
    factors = {}
    for name in subspace if names is None else names:
        U, S, Vh = directions(name)
        own = torch.linalg.vector_norm(torch.from_numpy(subspace.spectrum(name)[:k]))
        length = torch.linalg.vector_norm(S)
        S = S * (longer * own / length if length > 0 else 0.0)
        norm, zeros = float(torch.linalg.vector_norm(S)), torch.zeros_like(S)
        factors[name] = Factors(U=U, S=S, Vh=Vh, residual=zeros, norm=norm, method="svd")
    shapes = [list(made.shape) for made in factors.values()]
    edited = {"layers": list(factors), "shapes": shapes, "rank": FULL, "control_k": k}
    return SafetySubspace({**subspace.info, **edited, **what}, factors=factors)
