"""The top singular triplets of one matrix, each with its residual.

Seeded block Krylov iteration (Musco and Musco 2015, arXiv:1504.05477) in float32, continued until
the leading triplets pass, and exact decomposition where they do not; of a product of thin matrices
exactly from those. The result says which of these it was. For a few triplets of a large matrix the
iteration starts from what it finds in bfloat16, where the processor is quick at that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

TOLERANCE = 1e-4  # a triplet is certified when |dW v - s u| <= TOLERANCE * s
ROUGH = 1e-2  # the same of an iteration in bfloat16, which can reach a few 1e-4
ZERO = 1e-6  # singular values under ZERO * s_1 are rounding in float32, and set to 0
EPSILON = 2.0**-23  # float32's; what rounding adds to a residual is a few times this
SMALL = 1 << 20  # entries of a matrix that is decomposed in float64
BLOCK = 16
GROWTH = 1.1  # the basis grows by this factor from one convergence check to the next
MAX_BASIS = 0.4  # of the smaller side; beyond it decomposing exactly is cheaper than going on
METHODS = ("krylov", "svd", "lora")  # by their number in a subspace file


@dataclasses.dataclass(frozen=True, eq=False)
class Factors:
    """Top singular triplets of one weight delta `dW`, shape (out, in)."""

    U: Tensor  # (out, r) float32, orthonormal columns
    S: Tensor  # (r,) float32, descending, >= 0
    Vh: Tensor  # (r, in) float32, orthonormal rows
    residual: Tensor  # (r,) float32: |dW v - s u| / s, at least EPSILON; 0 where s is 0
    norm: float  # |dW|_F, of the whole delta
    method: str  # one of METHODS: which algorithm made these numbers
    spectrum: Tensor | None = None  # (min(out, in),): all singular values, if asked for

    @property
    def rank(self) -> int:
        """Triplets held."""
        return len(self.S)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (out, in) of the delta."""
        return self.U.shape[0], self.Vh.shape[1]

    @property
    def certified(self) -> int:
        """Leading triplets that are as good as they get: see `count_certified`."""
        return count_certified(self.residual.cpu().numpy(), self.method)


def count_certified(residual: np.ndarray, method: str) -> int:
    """Return how many leading triplets have a residual within `TOLERANCE`.

    Of an exact decomposition that is all of them: a larger residual of a tiny singular value is
    the rounding of float32.
    """
    failed = np.flatnonzero(residual > TOLERANCE)
    return int(failed[0]) if len(failed) and method == "krylov" else len(residual)


def top_factors(
    dW: Tensor,
    rank: int | None,
    *,
    certify: int = 16,
    seed: int = 0,
    room: Callable[..., Tensor] = torch.empty,
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
        them there, the matrix is decomposed exactly.
    seed : int
        Of the random start; the result is the same for the same seed and machine.
    room : function of shape, dtype and device
        Gives the memory that a copy of `dW` in bfloat16 is put in, if one is needed.

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
    A = A.T if transposed else A  # the smaller side on the right: its bases are the cheaper ones
    wide = max(r, BLOCK)  # a product of fewer columns takes longer, not less
    fits = wide + 2 * BLOCK <= MAX_BASIS * smaller  # else exact is as quick: a small or a full one
    found = _krylov(A, wide, min(certify, r), seed, room) if fits else None
    method = "krylov" if found else "svd"
    U, S, Vh, outside = found or _exact(A, wide)
    S = torch.where(ZERO * S[0] >= S, 0.0, S)
    residual = (torch.linalg.vector_norm(outside, dim=0) / S).clamp(min=EPSILON)
    residual = torch.where(S > 0, residual, 0.0)
    U, S, Vh, residual = U[:, :r], S[:r], Vh[:r], residual[:r]
    if transposed:
        U, Vh = Vh.T, U.T
    return Factors(U.contiguous(), S.contiguous(), Vh.contiguous(), residual, norm, method)


def product_factors(
    left: Tensor,
    right: Tensor,
    rank: int | None,
    *,
    spectrum: bool = False,
    device: str = "cpu",
) -> Factors:
    """Return the `rank` leading singular triplets of `left @ right`, which is never formed.

    With left = Q1 R1 and right^T = Q2 R2 they are those of the small R1 R2^T, turned by Q1 and Q2.
    In float64 on the CPU, whatever the device: exact to the rounding of the result. Directions
    behind the rank of the product are orthonormal ones with singular value 0.

    Parameters
    ----------
    left, right : Tensor, shapes (out, q) and (q, in)
    rank : int or None
        How many; cut to min(out, in). None keeps all.
    spectrum : bool
        Store all min(out, in) singular values as well.
    device : str
        Where the result is put.

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
    smaller = min(shape)
    r = smaller if rank is None else min(rank, smaller)
    norm = float(torch.linalg.matrix_norm(core)) if core.numel() else 0.0
    if norm == 0.0:
        made = _zero(shape, r, device, "lora")
        return dataclasses.replace(made, spectrum=torch.zeros(smaller)) if spectrum else made
    U, S, Vh = torch.linalg.svd(core, full_matrices=False)
    S = torch.where(ZERO * S[0] >= S, 0.0, S)
    values = torch.zeros(smaller).index_copy_(0, torch.arange(len(S)), S.to(torch.float32))
    U, V = (_completed(Q @ W, r).to(torch.float32) for Q, W in ((Q1, U), (Q2, Vh.T)))
    S = values[:r]
    error = torch.linalg.vector_norm(left @ (right @ V.double()) - U.double() * S, dim=0)
    residual = torch.where(S > 0, error / S, 0.0).to(torch.float32)
    parts = (x.contiguous().to(device) for x in (U, S, V.T, residual))
    return Factors(*parts, norm, "lora", values if spectrum else None)


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
    return Factors(eye[: shape[0]], zeros, eye[: shape[1]].T, zeros, 0.0, method)


def singular_values(dW: Tensor) -> Tensor:
    """Return all singular values of `dW`, descending, as float32 of shape (min(out, in),)."""
    return torch.linalg.svdvals(dW.to(torch.float32))


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


def _exact(A: Tensor, r: int):
    """Return U, S, Vh and A V - U S of r triplets, in float64 where that costs little."""
    work = A.to(torch.float64) if A.numel() <= SMALL and A.device.type != "mps" else A
    U, S, Vh = (x.to(torch.float32) for x in torch.linalg.svd(work, full_matrices=False))
    U, S, Vh = U[:, :r], S[:r], Vh[:r]
    return U, S, Vh, A @ Vh.T - U * S


def _krylov(A: Tensor, r: int, certify: int, seed: int, room: Callable[..., Tensor]):
    """Return U, S, Vh and A V - U S of `r` triplets, or None if `certify` of them do not pass."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(BLOCK, A.shape[1], generator=generator).to(A.device)
    if r <= BLOCK and certify and A.numel() > SMALL and _is_quick_in_bfloat16(A.device):
        near = _in_bfloat16(A, room)
        if rough := _iterated(near, _product(start, near.T), r, certify, ROUGH):
            U, S, _, outside = rough
            return _iterated(A, (U * S + outside).T, r, certify, TOLERANCE)  # goes on with A V
    return _iterated(A, _product(start, A.T), r, certify, TOLERANCE)


def _in_bfloat16(A: Tensor, room: Callable[..., Tensor]) -> Tensor:
    """Return a copy in bfloat16 with the strides of A, a matrix or its transpose."""
    transposed = not A.is_contiguous()
    A = A.T if transposed else A
    copy = room(tuple(A.shape), dtype=torch.bfloat16, device=A.device).copy_(A)
    return copy.T if transposed else copy


def _is_quick_in_bfloat16(device: torch.device) -> bool:
    """Whether this is a processor that multiplies bfloat16 at more than float32's speed."""
    can = getattr(torch.cpu, "get_capabilities", dict)()  # torch before 2.12 does not say
    return device.type == "cpu" and bool(can.get("avx512_bf16") or can.get("amx_bf16"))


def _iterated(A: Tensor, start: Tensor, r: int, certify: int, tolerance: float):
    """Return U, S, V^T and A V - U S of `r` triplets by block Krylov iteration, or None.

    The basis Q grows by a block a step: Q_0 = orth(start^T), Q_i = orth(A A^T Q_(i-1) - Q Q^T ...).
    With B = A^T Q at hand from the steps themselves, the triplets are those of Q B^T. Narrow
    blocks: for a basis of one size, more steps converge further than wider blocks do. Q and B are
    kept with vectors as rows, which is the order BLAS is quickest in, and in float32 whatever the
    dtype of A; so is `start`, (BLOCK, rows).

    How far A V is from U S is known without another pass over A. A B = A A^T Q lies in the basis
    but for its last block, A B_last = A newest R, and what of that lies outside is step^T R.
    """
    rows, columns = A.shape
    limit = int(MAX_BASIS * columns)
    Q = torch.empty(limit, rows, device=A.device)  # what is not used of it is not touched
    B = torch.empty(limit, columns, device=A.device)
    Q[:BLOCK] = _orthonormal_rows(start)
    B[:BLOCK] = _product(Q[:BLOCK], A)
    size = BLOCK
    check_at = r if r == BLOCK else r + BLOCK  # rows of the basis
    while size + BLOCK <= limit:
        newest, R = torch.linalg.qr(B[size - BLOCK : size].T)  # (columns, BLOCK), (BLOCK, BLOCK)
        step = _product(newest.T, A.T)
        for _ in range(2):  # in float32 once leaves some of the old directions
            step -= (step @ Q[:size].T) @ Q[:size]
        if size >= check_at:
            check_at = GROWTH * size
            W, S = _from_basis(B[:size], r)
            least = ZERO * float(S[0])  # less is rounding, and has no direction to converge to
            outside = step.T @ (R @ W[-BLOCK:] / S.clamp(min=least))
            error = torch.linalg.vector_norm(outside, dim=0)
            if bool(((error <= tolerance * S) | (least >= S))[:certify].all()):
                V = (W.T @ B[:size]) / S.clamp(min=least)[:, None]
                if float(S[-1]) <= least:  # these have no v of length 1 yet
                    V, R = torch.linalg.qr(V.T)
                    V = (V * torch.where(R.diagonal() < 0, -1.0, 1.0)).T
                return (W.T @ Q[:size]).T, S, V, outside
        new = slice(size, size + BLOCK)
        Q[new] = _orthonormal_rows(step)
        B[new] = _product(Q[new], A)
        size += BLOCK
    return None


def _product(X: Tensor, A: Tensor) -> Tensor:
    """Return X A in float32, multiplied in the dtype of A."""
    return (X.to(A.dtype) @ A).to(torch.float32)


def _orthonormal_rows(X: Tensor) -> Tensor:
    return torch.linalg.qr(X.T).Q.T


def _from_basis(B: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """Return W (size, r) and S (r,) of the top triplets: eigenvectors of B B^T in float64."""
    B = B.to(torch.float64)
    values, W = torch.linalg.eigh(B @ B.T)
    S = values.flip(0)[:r].clamp(min=0).sqrt().to(torch.float32)
    return W.flip(1)[:, :r].to(torch.float32), S
