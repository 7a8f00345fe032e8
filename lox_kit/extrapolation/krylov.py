"""The leading singular triplets of a large matrix A by block Krylov iteration.

Musco and Musco 2015, arXiv:1504.05477, in float32. With Q an orthonormal basis and B = Q A:

 1. Start from a block of random rows, times A^T. Where the processor is quick in bfloat16, iterate
    in that first and start from what is found roughly.
 2. Orthonormalise the block against Q, and append it to Q.
 3. Append its product with A to B.
 4. The triplets of Q^T B are those of A as far as the basis reaches: with B B^T = W S^2 W^T they
    are u = Q^T w, s, v = B^T w / s.
 5. Multiply the newest rows of B by A^T, and take away what lies in Q: the next block. What is left
    tells the residual |A v - s u| / s of each triplet but for rounding.
 6. Every time the basis has grown by a tenth, look at these residuals.
 7. If the triplets that must pass do, measure their residuals, and stop.
 8. If they are expected to pass with the next block, append it and measure: where they do pass,
    that saves one pass over A.
 9. Otherwise go on with step 2.
10. Give up when the basis is so large that decomposing A exactly is cheaper.

The residuals that are returned are always measured. For matrices of 2048 and 5632 by 2048, rank 6
takes 28 % longer without the start in bfloat16; ranks 6 and 64 take 2 to 17 % longer without step
8, and 18 to 34 % longer with residuals that are measured at every look.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lox_kit.threads import reused

TOLERANCE = 1e-4  # a triplet is certified when |A v - s u| <= TOLERANCE * s
ROUGH = 1e-2  # the same of an iteration in bfloat16, which can reach a few 1e-4
GAIN = 1 / 30  # what a block multiplies the residuals by, until it has been seen
ZERO = 1e-6  # singular values under ZERO * s_1 are rounding in float32, and set to 0
LARGE = 1 << 20  # entries; for a matrix of more the iteration may start in bfloat16
BLOCK = 16
GROWTH = 1.1  # the basis grows by this factor from one look at the residuals to the next
MAX_BASIS = 0.4  # of the smaller side; beyond it decomposing exactly is cheaper than going on


class Triplets(NamedTuple):
    """Leading singular triplets of a matrix, as far as the iteration has come."""

    U: Tensor  # (rows, r)
    S: Tensor  # (r,)
    Vh: Tensor  # (r, columns)
    residual: Tensor  # (r,), measured
    passed: bool  # whether the required triplets are within `TOLERANCE`, apart from rounding


def fits(columns: int, r: int) -> bool:
    """Whether a basis for r triplets has room, so that iterating may be quicker than exact."""
    return max(r, BLOCK) + 2 * BLOCK <= MAX_BASIS * columns


def leading_triplets(A: Tensor, r: int, certify: int, seed: int) -> Triplets:
    """Return the r leading triplets, which have not passed if that took more than `MAX_BASIS`.

    Where s is a thousand times smaller than s_1, float32's rounding alone is more than `TOLERANCE`:
    the residuals say so.

    Parameters
    ----------
    A : Tensor, shape (rows, columns), float32
        With rows >= columns: the bases of the smaller side are the cheaper ones. It must `fits`.
    certify, seed
        As in `svd.top_factors`.
    """
    wide = max(r, BLOCK)  # a product of fewer columns takes longer, not less
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(BLOCK, A.shape[1], generator=generator).to(A.device)
    rows, first = None, BLOCK  # what to start from, and the size at the first look
    if wide == BLOCK and certify and A.numel() > LARGE and _is_quick_in_bfloat16(A.device):
        rows = _rough(_in_bfloat16(A), start, certify)
    if rows is None:
        rows, first = _product(start, A.T), wide + BLOCK
    found = _iterated(_Basis(A, rows), wide, certify, first)
    return Triplets(found.U[:, :r], found.S[:r], found.Vh[:r], found.residual[:r], found.passed)


def residuals(A: Tensor, U: Tensor, S: Tensor, Vh: Tensor) -> Tensor:
    """Return |A v - s u| / s of each triplet, 0 where s is 0."""
    error = torch.linalg.vector_norm((A @ Vh.T - U * S) / S, dim=0)
    return torch.where(S == 0, 0.0, error)


def without_rounding(S: Tensor) -> Tensor:
    """Return singular values, descending, with 0 for those that are no more than rounding."""
    return torch.where(ZERO * S[0] >= S, 0.0, S)


class _Basis:
    """Rows Q, orthonormal, and B = Q A: a Krylov space of A A^T that grows by a block a step.

    Blocks are narrow: for a basis of one size, more steps converge further than wider blocks do.
    Vectors are rows, which is the order BLAS is quickest in, and float32 whatever the dtype of A.
    """

    def __init__(self, A: Tensor, start: Tensor):
        rows, columns = A.shape
        limit = int(MAX_BASIS * columns)
        self.A = A
        self._Q = torch.empty(limit, rows, device=A.device)  # what is not used is not touched
        self._B = torch.empty(limit, columns, device=A.device)
        self.Q, self.B = self._Q[:0], self._B[:0]  # (size, rows), (size, columns)
        self._others = torch.Generator().manual_seed(0)
        self.add(start)

    @property
    def has_room(self) -> bool:
        """Whether another block may be added."""
        return len(self.Q) + BLOCK <= len(self._Q)

    def step(self) -> Tensor:
        """Return what of A A^T times the newest block is outside the basis, shape (BLOCK, rows)."""
        newest, self._R = torch.linalg.qr(self.B[-BLOCK:].T)  # (columns, BLOCK), (BLOCK, BLOCK)
        step = _product(newest.T, self.A.T)
        for _ in range(2):  # in float32 once leaves some of the old directions
            step -= (step @ self.Q.T) @ self.Q
        return step

    def add(self, step: Tensor) -> None:
        """Append the directions of `step`, and random ones in place of those it lacks.

        When the space is nearly exhausted the step is small, but the rounding left over from old
        directions is not; when it is exhausted the step is zero.
        """
        new = _orthonormal_rows(step)
        for _ in range(4):
            old = new @ self.Q.T
            new = new - old @ self.Q
            if float(torch.linalg.vector_norm(old, dim=1).max()) < 1e-3:
                break
            gone = torch.linalg.vector_norm(new, dim=1) < 0.1
            others = torch.randn(new.shape, generator=self._others).to(new)
            new = _orthonormal_rows(torch.where(gone[:, None], others, new))
        size = len(self.Q) + BLOCK
        self.Q, self.B = self._Q[:size], self._B[:size]
        self.Q[-BLOCK:], self.B[-BLOCK:] = new, _product(new, self.A)

    def triplets(self, r: int) -> Triplets:
        """Return the r leading triplets of Q^T B, their residuals measured; not yet passed."""
        W, S = self.ritz(r)
        least = ZERO * float(S[0])
        Vh = (W.T @ self.B) / S.clamp(min=least)[:, None]
        if float(S[-1]) <= least:  # these have no v of length 1 yet
            V, R = torch.linalg.qr(Vh.T)
            Vh = (V * torch.where(R.diagonal() < 0, -1.0, 1.0)).T
        U, S = (W.T @ self.Q).T, without_rounding(S)
        return Triplets(U, S, Vh, residuals(self.A, U, S, Vh), False)

    def outside(self, step: Tensor, r: int) -> Tensor:
        """Return (A V - U S) / S of the r leading triplets, shape (rows, r), from the next step.

        A B = A A^T Q lies in the basis but for its last block, A B_last = A newest R, and what of
        that lies outside is step^T R. Rounding, which grows with s_1 / s, is not in it.
        """
        W, S = self.ritz(r)
        safe = S.clamp(min=ZERO * float(S[0]))
        outside = step.T @ (self._R @ W[-BLOCK:] / safe) / safe
        return torch.where(without_rounding(S) == 0, 0.0, outside)

    def ritz(self, r: int) -> tuple[Tensor, Tensor]:
        """Return W (size, r) and S (r,) of the top triplets: eigenvectors of B B^T in float64."""
        B = (self.B.cpu() if self.B.device.type == "mps" else self.B).to(torch.float64)
        values, W = torch.linalg.eigh(B @ B.T)
        S = values.flip(0)[:r].clamp(min=0).sqrt()
        return W.flip(1)[:, :r].to(self.B), S.to(self.B)


def _rough(A: Tensor, start: Tensor, certify: int) -> Tensor | None:
    """Return (A V / S)^T, shape (BLOCK, rows), of triplets that pass roughly, or None."""
    basis = _Basis(A, _product(start, A.T))
    while basis.has_room:
        step = basis.step()
        if len(basis.Q) > BLOCK:
            outside = basis.outside(step, BLOCK)
            if _worst(torch.linalg.vector_norm(outside, dim=0), certify) <= ROUGH:
                return basis.ritz(BLOCK)[0].T @ basis.Q + outside.T
        basis.add(step)
    return None


def _iterated(basis: _Basis, r: int, certify: int, first: int) -> Triplets:
    """Return `r` triplets of a growing basis, first looked at when it has `first` rows."""
    previous, expected = None, False
    while basis.has_room:
        if expected:
            found = basis.triplets(r)
            if _worst(found.residual, certify) <= TOLERANCE:
                return found._replace(passed=True)
            expected = False
        step = basis.step()
        if len(basis.Q) >= first:
            first = math.ceil(GROWTH * len(basis.Q))
            worst = _worst(torch.linalg.vector_norm(basis.outside(step, r), dim=0), certify)
            if worst <= TOLERANCE:
                return basis.triplets(r)._replace(passed=True)
            expected = worst * (worst / previous if previous else GAIN) <= TOLERANCE
            previous = worst
        basis.add(step)
    return basis.triplets(r)


def _worst(residual: Tensor, certify: int) -> float:
    """Return the largest of the first `certify` residuals."""
    return float(residual[:certify].max()) if certify else 0.0


def _product(X: Tensor, A: Tensor) -> Tensor:
    """Return X A in float32, multiplied in the dtype of A."""
    return (X.to(A.dtype) @ A).to(torch.float32)


def _orthonormal_rows(X: Tensor) -> Tensor:
    return torch.linalg.qr(X.T).Q.T


def _in_bfloat16(A: Tensor) -> Tensor:
    """Return a copy in bfloat16 with the strides of A, a matrix or its transpose."""
    transposed = not A.is_contiguous()
    A = A.T if transposed else A
    copy = reused(tuple(A.shape), torch.bfloat16, A.device).copy_(A)
    return copy.T if transposed else copy


def _is_quick_in_bfloat16(device: torch.device) -> bool:
    """Whether this is a processor that multiplies bfloat16 at more than float32's speed."""
    can = getattr(torch.cpu, "get_capabilities", dict)()  # torch before 2.12 does not say
    return device.type == "cpu" and bool(can.get("avx512_bf16") or can.get("amx_bf16"))
