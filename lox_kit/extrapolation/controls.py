"""Controls of equal norm: what LoX must beat for its direction, or its low rank, to be the cause.

Each takes a safety subspace and returns one that edits every matrix by an equally long step. They
are measured in memory, or written by `apply_lox(control=True)` to be attacked, marked as controls.
"""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from .file import FULL
from .subspace import SafetySubspace
from .svd import Factors


def random_subspace(subspace: SafetySubspace, k: int, *, seed: int = 0) -> SafetySubspace:
    """Replace the top-k singular vectors by random orthonormal ones, keeping the singular values.

    The step has the rank and, matrix by matrix, the Frobenius norm of the LoX step.
    """
    subspace.check_rank(k)
    factors = {}
    for name in subspace:
        _, S, _ = subspace[name].top(k)
        out, into = subspace[name].shape
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
        factors[name] = _exact(
            _orthonormal(out, len(S), generator), S, _orthonormal(into, len(S), generator).T
        )
    return _control(subspace, factors, control="random", control_k=k, control_seed=seed)


def full_delta(subspace: SafetySubspace, k: int) -> SafetySubspace:
    """Return the whole delta, shrunk matrix by matrix to the norm of its top-k part.

    This is ExPO (Zheng et al. 2024, arXiv:2404.16792) at LoX's step length.

    Raises
    ------
    ValueError
        If the subspace does not hold every direction (`rank="full"`), or `k` is negative.
    """
    subspace.check_rank(None)
    subspace.check_rank(k)
    factors = {}
    for name in subspace:
        U, S, Vh = subspace[name].top(None)
        whole = torch.linalg.vector_norm(S)
        shrink = torch.linalg.vector_norm(S[:k]) / whole if whole > 0 else 0.0
        factors[name] = _exact(U, S * shrink, Vh)
    return _control(subspace, factors, control="full", control_k=k)


def bottom_subspace(subspace: SafetySubspace, k: int) -> SafetySubspace:
    """Return the last k directions that are stored, lengthened to the norm of the top-k part.

    Directions with singular value 0 do not count: they are arbitrary.

    Raises
    ------
    ValueError
        If `k` is not stored, or the last k directions of a matrix are some of its first k, though
        its shape has room for 2k.
    """
    subspace.check_rank(k)
    factors = {}
    for name in subspace:
        U, S, Vh = subspace[name].top(subspace[name].nonzero)
        if 0 < len(S) < 2 * k <= min(subspace[name].shape):
            raise ValueError(
                f"{name}: {len(S)} directions are stored, so the last {k} are some of the first "
                f"{k}: factor again with --rank {2 * k} or more; a delta of lower rank has no more."
            )
        last = slice(max(0, len(S) - k), None)
        longer = torch.linalg.vector_norm(S[:k]) / torch.linalg.vector_norm(S[last])
        factors[name] = _exact(U[:, last], S[last] * longer, Vh[last])
    return _control(subspace, factors, control="bottom", control_k=k)


CONTROLS = {"random": random_subspace, "full": full_delta, "bottom": bottom_subspace}


def _orthonormal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Return random orthonormal columns, shape (rows, columns)."""
    return torch.linalg.qr(torch.randn(rows, columns, generator=generator)).Q


def _exact(U: Tensor, S: Tensor, Vh: Tensor) -> Factors:
    """Return these triplets as the factors of the matrix they make."""
    norm = float(torch.linalg.vector_norm(S))
    zeros = torch.zeros_like(S)
    return Factors(U=U, S=S, Vh=Vh, residual=zeros, norm=norm, method="svd")


def _control(subspace: SafetySubspace, factors: dict[str, Factors], **what) -> SafetySubspace:
    """Return the control as a subspace that knows what it is."""
    return SafetySubspace({**subspace.info, "rank": FULL, **what}, factors=factors)
