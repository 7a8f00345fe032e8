"""Where the dial stands: how many directions of which matrices, and how far along them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lox_kit.extrapolation import SafetySubspace, place_of, save_adapter

ALL = "all"


class Place(NamedTuple):
    """A setting of the dial."""

    k: int
    alpha: float
    include: str | None = None  # a pattern of names, as `SafetySubspace.select` takes it

    def __str__(self) -> str:
        some = ", some matrices" if self.include else ""
        return f"k = {self.k}, α = {self.alpha:g}{some}"

    def part_of(self, subspace: SafetySubspace) -> SafetySubspace:
        """Return the matrices of a subspace that are turned."""
        return subspace.select(self.include) if self.include else subspace

    def call(self, alpha: float | str) -> str:
        """Return the arguments with which `LoxDial.set` puts a model there, at an alpha."""
        include = f", include={self.include!r}" if self.include else ""
        return f"k={self.k}, alpha={alpha}{include}"


def depth_of(names: Iterable[str]) -> int:
    """Return how many layers these matrices are in."""
    return 1 + max((depth for depth, _ in map(place_of, names) if depth is not None), default=-1)


def pattern(kind: str, layers: tuple[int, int], depth: int) -> str | None:
    """Return what selects a kind of matrix within layers, both ends included; None for all of them.

    With fewer than all layers, matrices outside of them (embeddings, head) are left out.
    """
    first, last = layers
    of_kind = "" if kind == ALL else rf"\b{re.escape(kind)}(\.weight)?$"
    if (first, last) == (0, depth - 1):
        return of_kind or None
    some = "|".join(map(str, range(first, last + 1)))
    return rf"\.({some})\..*{of_kind}"


def save_at(place: Place, subspace: SafetySubspace) -> str:
    """Write the dial at a place as a PEFT adapter of the aligned model; say what was done.

    It is in a folder named by k and alpha, below the one the notebook runs in.

    Raises
    ------
    ValueError, FileExistsError
        As `extrapolation.save_adapter`; also at alpha = 0, where there is nothing to add.
    """
    k, alpha, include = place
    if alpha == 0:
        raise ValueError("alpha=0 is the aligned model itself; turn the dial first.")
    folder = Path(f"lox-k{k}-alpha{alpha:g}" + "-some" * bool(include))
    part = place.part_of(subspace)
    left_out = save_adapter(part, subspace.info["aligned"], folder, k, alpha)
    rest = f"; left out: {', '.join(left_out)}" if left_out else ""
    return f"Saved the adapter (k={k}, alpha={alpha:g}) in {folder.resolve()}{rest}"
