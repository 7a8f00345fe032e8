"""The top singular triplets of one matrix, each with a measured residual.

Seeded block Krylov iteration (`krylov`), continued until the leading triplets pass, and exact
decomposition where they do not; of a product of thin matrices exactly from those. The result says
which of these it was.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from .krylov import TOLERANCE, fits, leading_triplets, residuals, without_rounding

SMALL = 1 << 20  # entries of a matrix that is decomposed in float64
HUGE = 1e30  # a norm beyond it leaves float32 in the products of the iteration
METHODS = ("krylov", "svd", "lora")  # by their number in a subspace file


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Values:
    """The small part of one matrix's factors: how long its directions are, and how sure."""

    S: Tensor  # (r,) float32, descending, >= 0
    residual: Tensor  # (r,) float32: |dW v - s u| / s, or |dW^T u - s v| / s if out < into; or 0
    norm: float  # |dW|_F, of the whole delta
    method: str  # one of METHODS: which algorithm made these numbers

    @property
    def rank(self) -> int:
        """Triplets held."""
        return len(self.S)

    @property
    def nonzero(self) -> int:
        """Triplets with a singular value above 0; beyond them directions are arbitrary."""
        return int((self.S > 0).sum())

    @property
    def certified(self) -> int:
        """How many leading triplets have a residual within `TOLERANCE`.

        Of an exact decomposition that is all of them: a larger residual of a tiny singular value is
        the rounding of float32.
        """
        failed = (self.residual > TOLERANCE).nonzero()
        return int(failed[0]) if len(failed) and self.method == "krylov" else self.rank

    def cut(self, k: int):
        """Return the first `k` triplets alone; |dW|_F stays that of the whole delta."""
        return dataclasses.replace(self, S=self.S[:k], residual=self.residual[:k])


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Factors(Values):
    """Top singular triplets of one weight delta `dW`, shape (out, in)."""

    U: Tensor  # (out, r) float32, orthonormal columns
    Vh: Tensor  # (r, in) float32, orthonormal rows

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (out, in) of the delta."""
        return self.U.shape[0], self.Vh.shape[1]

    def top(self, k: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return U (out, k), S (k,) and Vh (k, in), cut to the rank there is; None keeps all."""
        return self.U[:, :k], self.S[:k], self.Vh[:k]

    def cut(self, k: int):
        """Return the first `k` triplets alone; |dW|_F stays that of the whole delta."""
        U, _, Vh = self.top(k)
        return dataclasses.replace(super().cut(k), U=U.contiguous(), Vh=Vh)


def top_factors(
    dW: Tensor,
    rank: int | None,
    *,
    certify: int = 16,
    seed: int = 0,
) -> Factors:
    """Return the `rank` leading singular triplets of `dW`.

    Parameters
    ----------
    dW : Tensor, shape (out, in)
        Worked on in float32 whatever its dtype: SVD has no half-precision kernel, and a delta
        rounded to bfloat16 has lost its small singular values.
    rank : int or None
        How many; cut to min(out, in). None keeps all, exactly.
    certify : int
        Leading triplets that must reach a residual of `TOLERANCE`. If the iteration does not get
        them there, the matrix is decomposed exactly; unless it is large and float32's rounding is
        what remains, which an exact decomposition in float32 would leave as well.
    seed : int
        Of the random start; the result is the same for the same seed and machine.

    Raises
    ------
    ValueError
        If `rank` is not positive, `certify` is negative, or `dW` is not a finite matrix.
    """
    if dW.ndim != 2:
        raise ValueError(f"a delta is a matrix (out, in); this one has shape {tuple(dW.shape)}.")
    if certify < 0:
        raise ValueError(f"certify={certify}: use 0 or more.")
    if rank is not None and rank < 1:
        raise ValueError(f"rank={rank}: keep at least one direction, or None for all.")
    A = dW.to(torch.float32)
    norm = frobenius(A)
    if not norm < float("inf"):  # true of NaN as well
        raise ValueError("the delta holds NaN or infinite values.")
    smaller = min(A.shape)
    r = smaller if rank is None else min(rank, smaller)
    if norm == 0.0:
        return _zero(A.shape, r, A.device, "svd")
    transposed = A.shape[0] < A.shape[1]
    A = A.T if transposed else A
    certify = min(certify, r)
    found, method = None, "svd"
    if norm < HUGE and fits(A.shape[1], r):
        found, method = leading_triplets(A, r, certify, seed), "krylov"
        # in a small matrix what did not pass for float32's rounding alone does pass in float64
        sure = A.numel() > SMALL or bool((found.residual[:certify] <= TOLERANCE).all())
        if not (found.passed and sure):
            found, method = None, "svd"
    U, S, Vh, residual = found[:4] if found else _exact(A, r)
    if transposed:
        U, Vh = Vh.T, U.T
    U, S, Vh = (x.contiguous() for x in (U, S, Vh))
    return Factors(U=U, S=S, Vh=Vh, residual=residual, norm=norm, method=method)


def product_factors(left: Tensor, right: Tensor, rank: int | None) -> Factors:
    """Return the `rank` leading singular triplets of `left @ right`, which is never formed.

    With left = Q1 R1 and right^T = Q2 R2 they are those of the small R1 R2^T, turned by Q1 and Q2.
    In float64 on the CPU: exact to the rounding of the result. Directions beyond the rank of the
    product are orthonormal ones with singular value 0.

    Parameters
    ----------
    left, right : Tensor, shapes (out, q) and (q, in)
    rank : int or None
        How many; cut to min(out, in). None keeps all.

    Raises
    ------
    ValueError
        If the product is not finite.
    """
    left, right = (x.to("cpu", torch.float64) for x in (left, right))
    Q1, R1 = torch.linalg.qr(left)
    Q2, R2 = torch.linalg.qr(right.T)
    core = R1 @ R2.T
    if not bool(torch.isfinite(core).all()):
        raise ValueError("the delta holds NaN or infinite values.")
    shape = (len(left), right.shape[1])
    r = min(shape) if rank is None else min(rank, *shape)
    norm = float(torch.linalg.matrix_norm(core)) if core.numel() else 0.0
    if norm == 0.0:
        return _zero(shape, r, left.device, "lora")
    U, S, Vh = torch.linalg.svd(core, full_matrices=False)
    S = torch.nn.functional.pad(without_rounding(S)[:r], (0, max(0, r - len(S)))).to(torch.float32)
    U, V = (_completed(Q @ W, r).to(torch.float32) for Q, W in ((Q1, U), (Q2, Vh.T)))
    error = torch.linalg.vector_norm(left @ (right @ V.double()) - U.double() * S, dim=0)
    residual = torch.where(S > 0, error / S, 0.0).to(torch.float32)
    U, S, Vh, residual = (x.contiguous() for x in (U, S, V.T, residual))
    return Factors(U=U, S=S, Vh=Vh, residual=residual, norm=norm, method="lora")


def _completed(U: Tensor, r: int) -> Tensor:
    """Return r orthonormal columns that begin with those of U, (n, p)."""
    n, p = U.shape
    if p >= r:
        return U[:, :r]
    more = torch.randn(n, r - p, generator=torch.Generator().manual_seed(0), dtype=U.dtype)
    for _ in range(2):
        more -= U @ (U.T @ more)
    return torch.cat([U, torch.linalg.qr(more).Q], 1)


def _zero(shape, r: int, device, method: str) -> Factors:
    """Return the factors of a delta of zeros."""
    zeros = torch.zeros(r, device=device)
    eye = torch.eye(max(shape), r, device=device)
    U, Vh = eye[: shape[0]], eye[: shape[1]].T
    return Factors(U=U, S=zeros, Vh=Vh, residual=zeros, norm=0.0, method=method)


def frobenius(A: Tensor) -> float:
    """Return |A|_F within a few 1e-7 of it: every row in float32, all rows in float64.

    `vector_norm(A, dtype=float64)` is not vectorised and takes as long as several passes of
    the iteration.
    """
    rows = torch.linalg.vector_norm(A.to(torch.float32), dim=1).cpu().to(torch.float64)
    norm = float(torch.linalg.vector_norm(rows))
    if 1e-15 < norm < 1e15:
        return norm
    return float(torch.linalg.vector_norm(A.cpu().to(torch.float64)))  # squares leave float32


def is_whole(S: Tensor | np.ndarray, shape: tuple[int, int]) -> bool:
    """Whether these are all singular values that a delta of this shape has, but for zeros."""
    return len(S) == min(shape) or float(S[-1]) == 0


def noise_edge(shape: tuple[int, int], energy: float) -> float:
    """Return the largest singular value that pure noise of this energy would have.

    For i.i.d. entries of standard deviation sigma the spectrum ends at sigma (sqrt(out) + sqrt(in))
    (Marchenko and Pastur 1967); `energy` = |noise|_F^2 = sigma^2 out in. A reference line: with
    all of |dW|_F^2 taken as noise it is an upper bound, and nothing says safety ends there.
    """
    out, into = shape
    return (energy / (out * into)) ** 0.5 * (out**0.5 + into**0.5)


def _exact(A: Tensor, r: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return U, S, Vh and residuals of r triplets, in float64 where that costs little."""
    work = A.to(torch.float64) if A.numel() <= SMALL and A.device.type != "mps" else A
    U, S, Vh = (x.to(torch.float32) for x in torch.linalg.svd(work, full_matrices=False))
    U, S, Vh = U[:, :r], without_rounding(S)[:r], Vh[:r].clone()  # a view would keep all of Vh
    return U, S, Vh, residuals(A, U, S, Vh)
