"""How much of one delta lies in the subspace of another: principal angles, and shares of energy.

A number says little without chance: in n dimensions a random subspace of k holds k/n of anything.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .subspace import SafetySubspace
from .svd import Factors, is_whole

_SIDES = (f"{side}{of}" for side in ("left", "right") for of in ("", "_least", "_chance"))
COLUMNS = ("layer", *_SIDES, "share", "share_chance")


def overlap(a: SafetySubspace, b: SafetySubspace, k: int | None):
    """Compare the top-k subspaces of two deltas, matrix by matrix, and each with chance.

    The cosines of the principal angles between the columns of U_a and U_b are the singular values
    of U_a^T U_b (Bjorck and Golub 1973); V likewise. For a uniformly random subspace in place of
    one of the two, the mean of cos^2 is max(k_a, k_b) / n, and the share of energy k_a / out.

    Parameters
    ----------
    a, b : SafetySubspace
        Of the same matrices: of the safety subspace and of an attack, or of two alignments.
    k : int or None
        Directions of each; None all that `rank="full"` or a cut subspace holds. Those with singular
        value 0 are arbitrary and do not count.

    Returns
    -------
    DataFrame
        One row per matrix: layer; left, the mean cos^2 of the left principal angles, in [0, 1];
        left_least, the cosine of the largest of them; left_chance, what a random subspace would
        have of the mean; the same three of right; share, |U_a U_a^T dW_b|_F^2 / |dW_b|_F^2, with
        all of dW_b; share_chance. NaN where one of the two has no direction; share also where
        `b` does not hold all of dW_b: factor it with `rank="full"`.

    Raises
    ------
    ValueError
        If `k` is not stored, or the two are not of the same matrices.
    """
    import pandas as pd

    for one in (a, b):
        one.check_rank(k)
    if other := sorted(set(a).symmetric_difference(b)):
        raise ValueError(
            f"{other[0]}: in one subspace and not in the other ({len(other)} such matrices); "
            "`select` the same of both."
        )
    rows = [{"layer": name} | _compared(name, a[name], b[name], k) for name in a]
    return pd.DataFrame(rows, columns=COLUMNS)


def _compared(name: str, a: Factors, b: Factors, k: int | None) -> dict[str, float]:
    """Return the row of one matrix."""
    if a.shape != b.shape:
        raise ValueError(f"{name}: one delta has shape {a.shape}, the other {b.shape}.")
    (Ua, Va), (Ub, Vb) = (_directions(of, k) for of in (a, b))
    ka, kb, row = Ua.shape[1], Ub.shape[1], {}
    if not (ka and kb):
        return row
    for side, one, other in (("left", Ua, Ub), ("right", Va, Vb)):
        cosines = torch.linalg.svdvals(one.T @ other).clamp(max=1.0)  # (min(ka, kb),)
        row[side], row[f"{side}_least"] = float(cosines.square().mean()), float(cosines[-1])
        row[f"{side}_chance"] = max(ka, kb) / len(one)
    if is_whole(b.S, b.shape):
        held = Ua.T @ _directions(b, None)[0] * b.S[b.S > 0].cpu().double()  # (ka, rank of b)
        row["share"] = min(float(held.norm() / b.S.double().norm()) ** 2, 1.0)
    return row | {"share_chance": ka / len(Ua)}


def _directions(of: Factors, k: int | None) -> tuple[Tensor, Tensor]:
    """Return U (out, k) and V (in, k) in float64, without the directions that are zero."""
    U, S, Vh = (x.cpu().double() for x in of.top(k))
    return U[:, S > 0], Vh[S > 0].T
