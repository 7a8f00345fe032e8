"""How much of the safety subspace an attack leaves: R_ft at every k, kept in the store."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lox_kit.extrapolation import SafetySubspace
from lox_kit.store import NUMBER, Store, content_key
from lox_kit.threads import OnStage
from lox_kit.weights import Checkpoint


def erosion(
    subspace: SafetySubspace,
    attacked: str | Path,
    most: int,
    *,
    store: Store,
    on_stage: OnStage | None = None,
) -> np.ndarray:
    """Return `SafetySubspace.r_ft_curve` of an attacked checkpoint, and keep it in the store.

    Parameters
    ----------
    attacked : path or name
        It is streamed beside the subspace's base, matrix by matrix; no model is loaded.
    most : int
        The largest k.
    store : Store
        Where `stored_erosion` finds it, by the subspace and this checkpoint's content.

    Returns
    -------
    array, shape (n_layers, most + 1), in [0, 1]

    Raises
    ------
    ValueError
        If `most` is not stored, or the checkpoint does not fit the subspace.
    """
    curve = subspace.r_ft_curve(subspace.info["base"], attacked, most, on_stage=on_stage)
    store.put("r_ft", _key(subspace, attacked, most), curve.tolist())
    return curve


def stored_erosion(
    subspace: SafetySubspace, attacked: str | Path, most: int, store: Store
) -> np.ndarray | None:
    """Return what the store has of `erosion`, or None; at most a checkpoint is hashed."""
    found = store.get("r_ft", _key(subspace, attacked, most), [[NUMBER]])
    return None if found is None else np.array(found)


def _key(subspace: SafetySubspace, attacked: str | Path, most: int) -> str:
    """Return the key of one curve."""
    weights = Checkpoint(attacked).fingerprint
    return content_key(subspace=subspace.key, attacked=weights, most=most)
