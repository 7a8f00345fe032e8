"""An extrapolated model as a full checkpoint, streamed tensor by tensor.

`apply_lox` takes factors that are there; `extrapolate` makes them first.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from lox_kit.folders import locked, whole
from lox_kit.threads import OnStage, map_in_order, tell
from lox_kit.weights import (
    INDEX,
    SINGLE,
    Checkpoint,
    copy_beside,
    plain_config,
    refuse_nonfinite,
    write_tensors,
)

from .card import CERTIFY, CONTROL, model_card, refuse_control
from .controls import is_control
from .factoring import check_stored, pair_info
from .file import FULL, made_by
from .lox import add, check_alpha, lox_terms, recipe_of
from .subspace import SafetySubspace


def apply_lox(
    subspace: SafetySubspace,
    aligned: str | Path,
    out: str | Path,
    k: int | None,
    alpha: float = 1.0,
    *,
    control: bool = False,
    on_stage: OnStage | None = None,
) -> Path:
    """Write the extrapolated model as a full checkpoint, streamed tensor by tensor.

    Dtypes, sharding, config and tokenizer are those of `aligned`. The folder appears under its
    name when it is whole.

    Parameters
    ----------
    aligned : path or name
        The aligned checkpoint the subspace was made from; see `Checkpoint`. An adapter is merged.
    k : int or None
        Directions; 0 keeps none, None all that a `rank="full"` subspace holds.
    alpha : float
        Extrapolation factor, >= 0, on top of the aligned model.
    control : bool
        The subspace is a control, such as `random_subspace`: written to be attacked, with `k=None`.
        There is no model card but a mark in the config, which outlives an attack; what has it is
        extrapolated no further, nor made an adapter.

    Raises
    ------
    ValueError
        If alpha is negative, `k` is not stored, `aligned` is not the subspace's, or `control` is
        not what the subspace says.
    FileExistsError
        If `out` exists and is not what this call writes; BusyError if another process writes it.
    """
    check_alpha(alpha)
    subspace.check_rank(k)
    out, recipe = Path(out), recipe_of(subspace.info, k, alpha)
    if out.is_dir() and _is_made(out, recipe, _open(subspace, aligned, control)):
        return out
    with whole(out, new=True) as work:
        checkpoint = _open(subspace, aligned, control)
        names = [name for name in checkpoint.tensors if name != checkpoint.tied_copy]
        inside: dict[str, list[str]] = {}  # the matrices to edit in each stored tensor
        for name in subspace:
            inside.setdefault(checkpoint.matrices[name].info.name, []).append(name)

        def make(name: str) -> Tensor:
            W, dtype = checkpoint.read(name), checkpoint.tensors[name].written
            if name not in inside:
                return W.to(dtype)
            made = torch.empty_like(W, dtype=dtype)
            if [checkpoint.matrices[n].piece for n in inside[name]] != [None]:
                made.copy_(W)  # what is in none of the matrices
            for matrix in inside[name]:
                of, factors = checkpoint.matrices[matrix].of, subspace[matrix].top(k)
                add(of(W), lox_terms(*factors, alpha), out=of(made))
            refuse_nonfinite(made, f"{name} with LoX, alpha={alpha:g}")
            return made

        def edited() -> Iterator[Tensor]:
            sizes = [checkpoint.tensors[name].size for name in names]
            for done, W in enumerate(map_in_order(make, names, 2, sizes)):
                tell(on_stage, "writing", done, len(names))
                yield W

        tensors, layouts = edited(), _layouts(checkpoint)
        for file, layout in layouts.items():
            made_now = itertools.islice(tensors, len(layout))
            write_tensors(work / file, layout, {"lox_kit": recipe}, made_now)
        copy_beside(checkpoint.beside, work)
        config = plain_config(checkpoint.config) if checkpoint.quantised else checkpoint.config
        if control:
            what = {n: v for n, v in subspace.info.items() if n.startswith("control")}
            config = {**config, CONTROL: {**what, "alpha": alpha}}
        else:
            (work / "README.md").write_text(model_card(checkpoint, subspace, k, alpha))
        if checkpoint.quantised or control:
            (work / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        if set(layouts) != {SINGLE}:
            (work / INDEX).write_text(_index(layouts))
    tell(on_stage, "writing", len(names), len(names))
    return out


def extrapolate(
    base: str | Path,
    aligned: str | Path,
    out: str | Path,
    k: int | None,
    alpha: float = 1.0,
    *,
    factors: str | Path | None = None,
    rank: int | str | None = None,
    on_stage: OnStage | None = None,
    **options,
) -> Path:
    """Factor a pair and write the extrapolated model: `from_pair` and `apply_lox` in one call.

    Parameters
    ----------
    base, aligned, options
        As in `SafetySubspace.from_pair`, which is asked to certify k directions; `UncertifiedRank`
        is warned of where float32 cannot. The options are include, exclude, seed and device.
    out, k, alpha
        As in `apply_lox`.
    factors : path, optional
        Keep the factors in this subspace file. If it is there and of this pair and these options,
        nothing is factored again. Without it they are in memory until the model is written.
    rank : int or "full", optional
        Directions of each matrix that are factored; default k.
    on_stage : function, optional
        Told of the matrices that are factored, then of the tensors that are written.

    Raises
    ------
    ValueError
        As `from_pair` and `apply_lox`.
    FileExistsError
        If `out` exists and is not what this call writes, or `factors` is another subspace;
        BusyError if another process writes one.
    """
    check_alpha(alpha)
    out = Path(out)
    rank = (FULL if k is None else max(k, 1)) if rank is None else rank
    check_stored(k, rank)
    options |= {"rank": rank, "certify": max(CERTIFY, k or 0)}
    if out.is_dir() and (factors is None or Path(factors).exists()):
        deciding = {"include": None, "exclude": None, "seed": 0} | options
        deciding.pop("device", None)
        pair = Checkpoint(base), Checkpoint(aligned)
        if _is_made(out, recipe_of(pair_info(*pair, deciding), k, alpha), pair[1]):
            return out
    with locked(out, new=True):  # refused before the factoring, not after it
        subspace = SafetySubspace.from_pair(base, aligned, factors, on_stage=on_stage, **options)
    return apply_lox(subspace, aligned, out, k, alpha, on_stage=on_stage)


def _open(subspace: SafetySubspace, aligned: str | Path, control: bool) -> Checkpoint:
    """Open the aligned checkpoint if it may be extrapolated along it; see `apply_lox`."""
    checkpoint = open_aligned(subspace, aligned)
    if not control:
        refuse_control(checkpoint, subspace)
    elif "control" not in subspace.info:
        raise ValueError("control=True, and the subspace is no control but the pair's own.")
    elif not is_control(named := subspace.info["control"]):
        raise ValueError(f"the control {named!r} exists in memory alone: it is never written.")
    return checkpoint


def _is_made(folder: Path, recipe: str, checkpoint: Checkpoint) -> bool:
    """Whether a folder holds what this recipe makes of a checkpoint."""
    return all(made_by(recipe, folder / f, layout) for f, layout in _layouts(checkpoint).items())


def _layouts(checkpoint: Checkpoint) -> dict[str, dict]:
    """Return which tensors, of which dtype and shape, are in which file of a checkpoint."""
    layouts: dict[str, dict] = {}
    for name, info in checkpoint.tensors.items():
        if name != checkpoint.tied_copy:
            layouts.setdefault(info.file.name, {})[name] = (info.written, info.shape)
    return layouts


def _index(layouts: dict[str, dict]) -> str:
    """Return the index of a checkpoint's files, as transformers writes it."""
    tensors = [found for layout in layouts.values() for found in layout.values()]
    total = {"total_parameters": sum(math.prod(shape) for _, shape in tensors)}
    total["total_size"] = sum(dtype.itemsize * math.prod(shape) for dtype, shape in tensors)
    where = {name: file for file, layout in layouts.items() for name in layout}
    return json.dumps({"metadata": total, "weight_map": where}, indent=2, sort_keys=True) + "\n"


def open_aligned(subspace: SafetySubspace, aligned: str | Path) -> Checkpoint:
    """Open the aligned checkpoint and make sure the subspace was made from it, and it is whole."""
    checkpoint = Checkpoint(aligned)
    subspace.check_shapes(checkpoint)
    if checkpoint.fingerprint != subspace.info["aligned_fingerprint"]:
        raise ValueError(
            f"{checkpoint.name} is not the checkpoint this subspace was made from "
            f"({subspace.info['aligned']}): its weights, config or tokenizer differ. Factor the "
            "pair you mean with `lox factor`."
        )
    checkpoint.refuse_nonfinite(matrices=False)  # matrices are refused when they are read
    return checkpoint
