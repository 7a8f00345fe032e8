"""How much of a fine-tuned delta lies in the safety subspace: R_ft of the paper, streamed.

`SafetySubspace.r_ft` and `r_ft_curve` say what it is.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from lox_kit.threads import OnStage, tell
from lox_kit.weights import Checkpoint, delta

from .svd import frobenius


@dataclasses.dataclass(frozen=True, eq=False)
class SubspaceShare:
    """How much of a delta lies in the top-k safety subspace, matrix by matrix."""

    layers: tuple[str, ...]
    r_align: np.ndarray  # (n_layers,), in [0, 1]
    r_ft: np.ndarray  # (n_layers,), in [0, 1]; of dW_align + dW_ft, not of dW_ft alone
    k: int | None
    source: dict[str, str]

    def to_frame(self):
        """Return one row per matrix."""
        import pandas as pd

        return pd.DataFrame({"layer": self.layers, "r_align": self.r_align, "r_ft": self.r_ft})


def share_curve(
    subspace, base, finetuned, most: int | None, device: str, on_stage: OnStage | None
) -> np.ndarray:
    """Return what `SafetySubspace.r_ft_curve` says."""
    first, second = Checkpoint(base), Checkpoint(finetuned)
    for checkpoint in (first, second):
        subspace.check_shapes(checkpoint)
    if first.fingerprint != subspace.info["base_fingerprint"]:
        raise ValueError(
            f"{first.name} is not the base this subspace was made from ({subspace.info['base']})."
        )
    rows, names = [], list(subspace)
    for i, name in enumerate(names):
        M, (U, S, _) = delta(first, second, name, device), subspace[name].top(most)
        tell(on_stage, "reading", i, len(names))
        rows.append(_shares_held(U, S, M))
    wide = max(map(len, rows)) if most is None else most + 1
    return np.array([np.pad(row, (0, wide - len(row)), mode="edge") for row in rows])


def _shares_held(U: Tensor, S: Tensor, M: Tensor) -> np.ndarray:
    """Return |U_k U_k^T M|_F / |M|_F for k = 0, 1, ... as many as there are."""
    whole = frobenius(M)
    P = torch.where(S > 0, U, 0).to(M.device).T @ M  # (k, in); beyond the rank U is arbitrary
    squares = P.cpu().double().square().sum(dim=1).numpy().cumsum()
    kept = np.sqrt(np.concatenate([[0.0], squares]))
    return np.minimum(kept / whole, 1.0) if whole else np.zeros_like(kept)
