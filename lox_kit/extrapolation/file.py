"""The file of a safety subspace: its layout, written layer by layer, read piece by piece.

One safetensors file, all float32. Of each matrix NAME: `NAME.U` (out, r), `NAME.S` (r,), `NAME.Vh`
(r, in), `NAME.residual` (r,) and `NAME.info` (|dW|_F, number of the method); of a subspace that was
cut, each matrix has its own r. Where it comes from is JSON in the header, under `lox_kit`; beside
it are a version of this layout and a checksum of each tensor. Older files can be read too: they
lack these two, or hold every singular value in `NAME.spectrum`, as `spectrum` in their JSON says.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from lox_kit.folders import whole
from lox_kit.store import check_fields
from lox_kit.weights import Layout, checked_reader, read_made, write_tensors

from .svd import METHODS, Factors, Values

FULL = "full"
SCHEMA = 1  # of the file; raised where an older lox_kit would read it wrongly
NORM_SLACK = 1e-3  # by how much, relatively, |S| may pass |dW|_F
LOOSE = 1e-2  # how far directions computed in float32 may be from orthonormal


FIELDS = {  # of `info`, which the header holds as JSON
    **{"layers": [str], "shapes": [[int]], "rank": (int, str), "certify": int, "seed": int},
    **dict.fromkeys(("base", "aligned", "base_fingerprint", "aligned_fingerprint"), str),
    **dict.fromkeys(("include", "exclude", "tied"), (str, type(None))),
    **dict.fromkeys(("spectrum", "version"), str),
}


def write_factors(file: str | Path, info: dict, factors: Iterable[Factors]) -> None:
    """Write a subspace file, matrix by matrix.

    If making the factors fails, no file is left.

    Raises
    ------
    FileExistsError
        If `file` exists; BusyError if another process writes it.
    """
    about = {"lox_kit": json.dumps(info), "schema": str(SCHEMA)}
    with whole(file, new=True) as work:
        write_tensors(work, _layout(info), about, _tensors(factors))


def made_by(recipe: str, file: Path, layout: Layout) -> bool:
    """Whether a file holds what a recipe makes (`lox.recipe_of`), in this layout."""
    try:
        tensors, found = read_made(file, "lox_kit", SCHEMA, "LoX")
    except (OSError, ValueError):  # it is not there, or another
        return False
    there = {name: (info.dtype, info.shape) for name, info in tensors.items()}
    return found == json.loads(recipe) and there == layout


def _tensors(factors: Iterable[Factors]) -> Iterator[Tensor]:
    """Yield every tensor of the file, in order."""
    for made in factors:
        facts = [made.norm, METHODS.index(made.method)]
        yield from (made.U, made.S, made.Vh, made.residual)
        yield torch.tensor(facts, dtype=torch.float32)


def _layout(info: dict) -> Layout:
    """Return dtype and shape of every tensor of the file, in order."""
    layout = {}
    for name, (out, into) in zip(info["layers"], info["shapes"], strict=True):
        r = min(out, into) if info["rank"] == FULL else min(info["rank"], out, into)
        r = min(r, info["cut"][name]) if "cut" in info else r
        shapes = {"U": (out, r), "S": (r,), "Vh": (r, into), "residual": (r,), "info": (2,)}
        layout |= {f"{name}.{part}": (torch.float32, shape) for part, shape in shapes.items()}
    return layout


def read_info(file: Path) -> dict:
    """Return where a subspace file comes from, once its header is checked.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, it is not a whole subspace file, or it is of a newer lox_kit.
    """
    if not file.exists():
        raise FileNotFoundError(f"{file}: no such file. `lox factor BASE ALIGNED -o` makes it.")
    if file.is_dir():
        raise FileExistsError(f"{file} is a folder; a subspace is one file: name that.")
    tensors, info = read_made(file, "lox_kit", SCHEMA, "`lox factor`")
    check_fields(file, info, FIELDS)
    if len(set(info["layers"])) < len(info["layers"]):
        raise ValueError(f"{file}: 'layers' in its metadata has a name twice; factor again.")
    try:
        layout = _layout(info)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file}: 'layers', 'shapes', 'rank' and 'cut' in its metadata do not fit ({error}); "
            "factor again."
        ) from error
    for name, expected in layout.items():
        there = tensors.get(name)
        if there is None or (there.dtype, there.shape) != expected:
            found = f"it is {there.dtype} {there.shape}" if there else "it is not there"
            raise ValueError(
                f"{file}: {name} should be {expected[0]} {expected[1]} and {found}; make or copy "
                "the file again."
            )
    return info


def read_factors(file: Path, name: str) -> Factors:
    """Return the factors of one matrix.

    Raises
    ------
    ValueError
        If they are damaged, or are not singular triplets of a matrix of the norm stored.
    """
    with safe_open(file, "pt") as f:
        read = checked_reader(f, file)
        values = _values(file, name, read)
        U, Vh = read(f"{name}.U"), read(f"{name}.Vh")
    used = values.S > 0  # beyond the rank, directions are arbitrary
    for part, Q in (("U", U), ("Vh", Vh.T)):  # (n, r)
        if not _distance_from_orthonormal(Q[:, used]) <= LOOSE:
            raise _not_factors(file, f"{name}.{part}", "not orthonormal")
    return Factors(U=U, Vh=Vh, **vars(values))


def read_values(file: Path, info: dict) -> dict[str, Values]:
    """Return the small part of the file, of every matrix.

    Raises
    ------
    ValueError
        As `read_factors`.
    """
    with safe_open(file, "pt") as f:
        read = checked_reader(f, file)
        return {name: _values(file, name, read) for name in info["layers"]}


def _values(file: Path, name: str, read: Callable[[str], Tensor]) -> Values:
    """Return the small part of one matrix, its singular values held against its norm."""
    S, residual, facts = (read(f"{name}.{part}") for part in ("S", "residual", "info"))
    (norm, number), length = facts.tolist(), float(S.double().norm())
    within = length <= norm * (1 + NORM_SLACK)
    descending = S.isfinite().all() and S.min() >= 0 and (S.diff() <= 1e-6 * S[0]).all()
    for part, fine, what in (
        ("info", number in range(len(METHODS)), f"of a method {number:g}"),
        ("info", 0 <= norm < math.inf, f"of a matrix with norm {norm}"),
        ("S", descending, "not finite, descending and at least 0"),
        ("S", within, f"of length {length:.3g}, the matrix of {norm:.3g}"),
        ("residual", residual.min() >= 0, "not at least 0"),
    ):
        if not fine:
            raise _not_factors(file, f"{name}.{part}", what)
    return Values(S=S, residual=residual, norm=norm, method=METHODS[int(number)])


def _not_factors(file: Path, name: str, what: str) -> ValueError:
    return ValueError(f"{file}: {name} is {what}; factor the pair again.")


def _distance_from_orthonormal(Q: Tensor) -> float:
    """Return the largest entry of |(Q^T Q - I) x|, x a vector of signs: 0 if Q^T Q is I."""
    signs = torch.randint(2, (Q.shape[1], 1), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    return float((Q.T @ (Q @ signs) - signs).abs().max()) if Q.shape[1] else 0.0
