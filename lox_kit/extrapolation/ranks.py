"""How many directions a delta has: ways to choose k from the singular values, without a judge.

None of them knows of safety; the safety rank (`studies.rank_curve`) does, and needs a judge.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .subspace import SafetySubspace
from .svd import is_whole, noise_edge

GAP_WITHIN = 32  # directions among which the largest gap is looked for
RULES = ("noise", "gap", "energy", "gavish_donoho", "stable_rank", "entropy_rank")


def k_of_energy(subspace: SafetySubspace, share: float) -> dict[str, int]:
    """Return the smallest k of each matrix whose directions hold a share of its energy |dW|_F^2.

    `subspace.cut(k_of_energy(subspace, .9))` is what to extrapolate with. A matrix that alignment
    did not change has k = 0.

    Parameters
    ----------
    share : float
        In (0, 1].

    Raises
    ------
    ValueError
        If `share` is out of range, or the directions stored of a matrix hold less than it.
    """
    found = {}
    for name, S, shape, norm in spectra(subspace):
        k = _k_of_energy(S, shape, norm, share)
        if np.isnan(k):
            raise ValueError(
                f"{name}: the {len(S)} directions stored hold {(S @ S) / norm**2:.1%} of its "
                f"|dW|_F^2, less than {share:.1%}: factor again with a higher rank (--rank)."
            )
        found[name] = int(k)
    return found


def rank_rules(subspace: SafetySubspace, share: float = 0.9):
    """Return the k that each rule would choose, matrix by matrix, and two continuous ranks.

    - noise: singular values above the edge of pure noise of the matrix's energy (`noise_edge`).
    - gap: the k <= 32, and no more than half of what there is, with the largest s_k / s_{k+1}.
    - energy: the fewest directions with `share` of |dW|_F^2.
    - gavish_donoho: singular values above omega(b) median(s), b the ratio of the shorter side to
      the longer, omega(b) = .56 b^3 - .95 b^2 + 1.82 b + 1.43: the optimal threshold for noise of
      unknown size (Gavish and Donoho 2014, arXiv:1305.5870).
    - stable_rank: |dW|_F^2 / s_1^2.
    - entropy_rank: exp(-sum p ln p), p = s^2 / |dW|_F^2 (Roy and Vetterli 2007, of squares).

    Parameters
    ----------
    share : float
        Of the energy rule, in (0, 1].

    Returns
    -------
    DataFrame
        One row per matrix: layer; stored, the directions held; whole, whether those are all there
        are; the rules and ranks. NaN is what the stored directions do not tell: Gavish and Donoho's
        rule and the entropy rank take all of them (`rank="full"`). A matrix that alignment did not
        change has 0 throughout.
    """
    import pandas as pd

    rows = []
    for name, S, shape, norm in spectra(subspace):
        row = {"layer": name, "stored": len(S), "whole": is_whole(S, shape)}
        rows.append(row | _rules(S, shape, norm, share))
    return pd.DataFrame(rows)


def _rules(S: np.ndarray, shape: tuple[int, int], norm: float, share: float) -> dict[str, float]:
    """Return the rules of one matrix: float64 S, descending."""
    if not norm:
        return dict.fromkeys(RULES, 0.0)
    whole = is_whole(S, shape)
    above = float((noise_edge(shape, norm**2) < S).sum())
    p = S[S > 0] ** 2 / (S @ S)
    values = (
        above if whole or above < len(S) else np.nan,
        _largest_gap(S, shape, whole),
        _k_of_energy(S, shape, norm, share),
        float((_threshold(S, shape) < S).sum()) if whole else np.nan,
        norm**2 / S[0] ** 2,
        float(np.exp(-(p * np.log(p)).sum())) if whole else np.nan,
    )
    return dict(zip(RULES, values, strict=True))


def _largest_gap(S: np.ndarray, shape: tuple[int, int], whole: bool) -> float:
    """Return the k with the largest s_k / s_{k+1}; the first zero is a gap without end."""
    most = max(1, min(GAP_WITHIN, min(shape) // 2))
    if len(S) <= most and not whole:
        return np.nan
    S = np.pad(S, (0, 1))[: most + 1]
    S = S[: 1 + int((S > 0).sum())]
    with np.errstate(divide="ignore"):
        return float(1 + np.argmax(S[:-1] / S[1:]))


def _k_of_energy(S: np.ndarray, shape: tuple[int, int], norm: float, share: float) -> float:
    """Return the smallest k with a share of the energy; NaN if what is stored has less."""
    if not 0 < share <= 1:
        raise ValueError(f"share={share}: use a share of the energy, above 0 and up to 1.")
    kept = np.cumsum(S**2)
    energy = kept[-1] if is_whole(S, shape) else norm**2  # apart from rounding
    k = np.searchsorted(kept, share * energy) + 1
    return 0.0 if not norm else float(k) if k <= len(S) else np.nan


def _threshold(S: np.ndarray, shape: tuple[int, int]) -> float:
    """Return Gavish and Donoho's threshold; `S` holds all singular values but for zeros."""
    b = min(shape) / max(shape)
    omega = 0.56 * b**3 - 0.95 * b**2 + 1.82 * b + 1.43
    return omega * float(np.median(np.pad(S, (0, min(shape) - len(S)))))


def spectra(
    subspace: SafetySubspace,
) -> Iterator[tuple[str, np.ndarray, tuple[int, int], float]]:
    """Yield name, singular values in float64, shape and |dW|_F of every matrix."""
    for name, shape, norm in zip(subspace, subspace.info["shapes"], subspace.norms, strict=True):
        yield name, subspace.spectrum(name).astype(np.float64), tuple(shape), norm
