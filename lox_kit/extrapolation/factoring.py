"""Walk a pair of checkpoints, one matrix in memory at a time.

Factor what alignment changed, or measure how much of a change lies in a subspace.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lox_kit import __version__
from lox_kit.threads import OnStage, map_in_order, reused, tell
from lox_kit.weights import Checkpoint, check_pair, delta

from .file import FULL
from .svd import Factors, frobenius, product_factors, top_factors


def pair_info(base: Checkpoint, aligned: Checkpoint, options: dict) -> dict:
    """Check the pair and the options, and return all that decides the factors, as plain data.

    Parameters
    ----------
    options : dict
        Those of `SafetySubspace.from_pair` that decide the factors: rank, include, exclude,
        certify, seed.

    Raises
    ------
    ValueError
        If the pair does not fit (`check_pair`) or an option is out of range.
    """
    rank = options["rank"]
    if rank != FULL and (not isinstance(rank, int) or rank < 1):
        raise ValueError(f"rank={rank!r}: use a positive number, or 'full'.")
    patterns = {name: options[name] for name in ("include", "exclude")}
    report = check_pair(base, aligned, **patterns, read_all=False)
    return {
        "layers": list(report.matrices),
        "shapes": [list(aligned.matrices[n].shape) for n in report.matrices],
        "base": base.name,
        "aligned": aligned.name,
        "base_fingerprint": base.fingerprint,
        "aligned_fingerprint": aligned.fingerprint,
        **options,
        "spectrum": "top",  # as opposed to older files, which could hold all singular values
        "tied": report.tied,
        "version": __version__,
    }


def check_stored(k: int | None, rank: int | str) -> None:
    """Raise ValueError if a subspace of this rank does not hold `k` directions, None being all."""
    if k is None and rank != FULL:
        raise ValueError(
            f"k=None keeps all directions and the subspace holds {rank}: factor again with "
            'rank="full" (--rank full).'
        )
    if k is not None and k < 0:
        raise ValueError(f"k={k}: use 0 or more directions, or None for all.")
    if k is not None and isinstance(rank, int) and k > rank:
        raise ValueError(
            f"k={k} and the subspace holds {rank} directions: factor again with rank={k} "
            f"(--rank {k})."
        )


def factor_all(
    base: Checkpoint, aligned: Checkpoint, info: dict, device: str, on_stage: OnStage | None
) -> Iterator[Factors]:
    """Factor every delta as `info` says, one after the other.

    Raises
    ------
    ValueError
        If a delta is not finite, which names the matrix; at the end, if every one is zero.
    """
    names = info["layers"]
    base = base.like(names)
    make = functools.partial(factor_one, base, aligned, info, device=device)
    sizes = [aligned.matrices[name].size for name in names]
    workers = 2 if device == "cpu" and torch.get_num_threads() > 1 else 1  # on any machine
    made = map_in_order(make, names, workers, sizes)
    tell(on_stage, "factoring", 0, len(names))
    changed = False
    for done, factors in enumerate(made, 1):
        changed = changed or factors.norm > 0
        yield factors
        tell(on_stage, "factoring", done, len(names))
    if not changed:
        raise ValueError(
            "the delta is zero in every matrix: base and aligned hold the same values. Give the "
            "model from before the alignment as BASE."
        )


def factor_one(
    base: Checkpoint, aligned: Checkpoint, info: dict, name: str, device: str
) -> Factors:
    """Factor one delta as `info` says, on a device; the factors are in the machine's own memory.

    Raises
    ------
    ValueError
        If it is not finite.
    """
    rank = None if info["rank"] == FULL else info["rank"]
    try:
        if aligned.is_adapter_of(base) and not aligned.adapter.replaces(name):
            out, into = aligned.matrices[name].shape
            none = torch.zeros(out, 0), torch.zeros(0, into)
            left, right = aligned.adapter.factors(name) or none
            return product_factors(left, right, rank)
        dW = delta(base, aligned, name, device, reused)
        found = top_factors(dW, rank, certify=info["certify"], seed=info["seed"])
        parts = {name: getattr(found, name).cpu() for name in ("U", "S", "Vh", "residual")}
        return dataclasses.replace(found, **parts)
    except ValueError as error:
        said = str(error)
        raise ValueError(said if said.startswith(name) else f"{name}: {said}") from error


# --- what lies in a subspace --------------------------------------------------------------------


def check_shapes(info: dict, checkpoint: Checkpoint) -> None:
    """Raise ValueError if a matrix is missing from a checkpoint or has another shape there."""
    for name, shape in zip(info["layers"], info["shapes"], strict=True):
        there = checkpoint.matrices.get(name)
        if there is None or list(there.shape) != shape:
            raise ValueError(
                f"{name}: the subspace has shape {tuple(shape)}, {checkpoint.name} has "
                f"{there.shape if there else 'no such tensor'}. It was made from "
                f"{info['base']} and {info['aligned']}."
            )


def shares_curve(
    subspace, base: str | Path, finetuned: str | Path, most: int | None, on_stage: OnStage | None
) -> np.ndarray:
    """Return R_ft of every matrix at every k; see `SafetySubspace.r_ft_curve`."""
    info = subspace.info
    if most is not None:
        check_stored(most, info["rank"])
    first, second = (Checkpoint(m).like(info["layers"]) for m in (base, finetuned))
    for checkpoint in (first, second):
        check_shapes(info, checkpoint)
    if first.fingerprint != info["base_fingerprint"]:
        raise ValueError(
            f"{first.name} is not the base this subspace was made from ({info['base']})."
        )
    rows = []
    for i, name in enumerate(subspace):
        M, (U, S, _) = delta(first, second, name, "cpu"), subspace[name].top(most)
        tell(on_stage, "reading", i, len(subspace))
        rows.append(_shares_held(U.cpu(), S.cpu(), M))
    wide = max(map(len, rows)) if most is None else most + 1
    return np.array([np.pad(row, (0, wide - len(row)), mode="edge") for row in rows])


def _shares_held(U: Tensor, S: Tensor, M: Tensor) -> np.ndarray:
    """Return |U_k U_k^T M|_F / |M|_F for k = 0, 1, ... as many as there are."""
    whole = frobenius(M)
    P = torch.where(S > 0, U, 0).T @ M  # (k, in); beyond the rank U is arbitrary
    squares = P.double().square().sum(dim=1).numpy().cumsum()
    kept = np.sqrt(np.concatenate([[0.0], squares]))
    return np.minimum(kept / whole, 1.0) if whole else np.zeros_like(kept)
